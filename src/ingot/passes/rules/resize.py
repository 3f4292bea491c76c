"""Interpolation and the convolution after it: which comes first is decided when the sizes are known."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ingot.ops.registry import Array, attr_int, attr_ints, attr_str
from ingot.passes.edit import add_initializer, constant_of
from ingot.passes.rewrite import Result, Rewriting, made_by, only_use, rule

#: Filters for each channel from which on interpolating what they make costs more than they save.
_MOST_FILTERS = 2


@rule("Conv", needs=("Resize",))
def conv_of_resized(g: Rewriting, node: ir.Node) -> Result:
    """Conv(Concat(Resize(x), Resize(y), z), w) == Resize(Conv(x, w₁)) + Resize(Conv(y, w₂)) + Conv(z, w₃).

    For filters of one pixel. A session decides for each branch which side it computes, by its sizes.
    """
    concat = made_by(node.inputs[0], "Concat")
    if concat is None or g.standard or node.inputs[0] is None:
        return None
    resizes = [made_by(value, "Resize") for value in concat.inputs]
    if not any(resizes):
        return None
    weight, bias = constant_of(node.inputs[1]), node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None or weight.dtype != np.float32 or weight.shape[2:] != (1, 1):
        return "its weight is no constant of one pixel"
    if attr_int(node, "group", 1) != 1 or {*(attr_ints(node, "strides") or ())} - {1}:
        return "it has groups or strides"
    if any(attr_ints(node, "pads") or ()):  # auto_pad adds nothing to one pixel
        return "it pads"
    if not only_use(node.inputs[0]):
        return "the concatenation is used elsewhere, too"
    if any(use.node.op_type == "BatchNormalization" for use in node.outputs[0].uses()):
        return "the BatchNormalization after it goes into its weights first"
    if attr_int(concat, "axis", 0) not in (1, -3):
        return "it does not join channels"
    pairs = zip(concat.inputs, resizes, strict=True)
    counts = [_channels(g, value, resize) for value, resize in pairs]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return "the channels of its parts are not known"
    if sum(known) != weight.shape[1] or weight.shape[0] < 2:
        return "channels and filters are too few, or do not fit"
    parts = np.split(weight, np.cumsum(known)[:-1], axis=1)
    attributes: dict[str, object] | None = None
    plain: list[tuple[ir.Value, Array]] = []
    resized: list[ir.Value | None] = []
    for value, resize, part in zip(concat.inputs, resizes, parts, strict=True):
        assert value is not None
        own = None if resize is None else _linear(g, resize, value, part)
        if own is None or resize is None or (attributes is not None and own != attributes):
            plain.append((value, part))
            continue
        attributes = own
        given = [*resize.inputs, None, None][2:4]
        resized += [resize.inputs[0], *given, _initializer(g, part)]
    if attributes is None:
        return "its parts are used elsewhere, too, or have too few channels"
    inputs: list[ir.Value | None] = [bias]
    if len(plain) == 1:
        inputs += [plain[0][0], None, None, _initializer(g, plain[0][1])]
    elif plain:
        joined = g.op("Concat", *(value for value, _ in plain), axis=1)
        inputs += [joined, None, None, _initializer(g, np.concatenate([p for _, p in plain], axis=1))]
    return [g.op("ConvOfResized", *inputs, *resized, domain="ingot", **attributes)]


def _channels(g: Rewriting, value: ir.Value | None, resize: ir.Node | None) -> int | None:
    """The channels of an image [N, C, H, W], None where they or the rank are not known."""
    dims = g.dims.of(value)
    if resize is not None and (dims is None or len(dims) != 4 or not isinstance(dims[1], int)):
        axes, keeps = attr_ints(resize, "axes"), False
        scales = constant_of(resize.inputs[2]) if len(resize.inputs) > 2 else None
        if axes is not None:
            keeps = 1 not in axes and -3 not in axes
        elif scales is not None and scales.size == 4:
            keeps = scales[1] == 1
        dims = g.dims.of(resize.inputs[0]) if keeps else None
    count = dims[1] if dims is not None and len(dims) == 4 else None
    return count if isinstance(count, int) else None


def _linear(g: Rewriting, resize: ir.Node, value: ir.Value, part: Array) -> dict[str, object] | None:
    """The attributes of a Resize that may change places with a filter of one pixel."""
    before = g.dims.of(resize.inputs[0])
    if before is None or before[1] != part.shape[1] or not only_use(value):
        return None
    if part.shape[1] < 2 or part.shape[0] > _MOST_FILTERS * part.shape[1]:
        return None
    if attr_str(resize, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return None
    return {name: attribute.value for name, attribute in resize.attributes.items()}


def _initializer(g: Rewriting, array: Array) -> ir.Value:
    return add_initializer(g.graph, f"{g.node.name}.part", ir.Tensor(np.ascontiguousarray(array)))


RULES = (conv_of_resized,)
