"""What operators meant in older opsets, in the newest one's terms: one function for each change of meaning.

An upgrade named `to=13` takes a node as opsets below 13 understand it. It changes the node so that opset 13
understands the same, or returns the values that replace it. `opset.py` applies them in order. A change that
only adds (dtypes, an attribute whose default is the old meaning) needs none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from ingot.errors import UnsupportedOperatorError
from ingot.ops.nodes import input_at
from ingot.ops.registry import attr_float, attr_floats, attr_int, attr_ints, attr_str, label
from ingot.passes.edit import Editor, attribute, constant_of, constant_shape, dtype_of, fresh, rank_of

Replacement: TypeAlias = "Sequence[ir.Value | None] | None"
Function: TypeAlias = "Callable[[Editor, ir.Node], Replacement]"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """One change of meaning. `types`: it needs to know dtypes or ranks, so shapes are inferred first."""

    to: int
    function: Function
    types: bool


UPGRADES: dict[str, list[Upgrade]] = {}


def upgrade(*names: str, to: int, types: bool = False) -> Callable[[Function], Function]:
    """Decorator: enters a function for each of the operators."""

    def enter(function: Function) -> Function:
        for name in names:
            UPGRADES.setdefault(name, []).append(Upgrade(to, function, types))
            UPGRADES[name].sort(key=lambda entry: entry.to)
        return function

    return enter


def refuse(node: ir.Node, what: str) -> UnsupportedOperatorError:
    """The old meaning cannot be expressed."""
    return UnsupportedOperatorError(f"{label(node)}: {what}. Export the model again with opset 18 or newer.")


def _drop(node: ir.Node, *names: str) -> None:
    for name in names:
        node.attributes.pop(name, None)


def _set(node: ir.Node, name: str, value: Any) -> None:
    node.attributes[name] = attribute(name, value)


def _input(node: ir.Node, index: int, value: ir.Value) -> None:
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def _axes_to_input(g: Editor, node: ir.Node, name: str = "axes", index: int = 1) -> None:
    values = attr_ints(node, name)
    _drop(node, name)
    if values is not None:
        _input(node, index, g.ints(values))


# ---- elementwise -----------------------------------------------------------------------------------------

_OLD_BROADCAST = ("Add", "Sub", "Mul", "Div", "And", "Or", "Xor", "Equal", "Greater", "Less", "Pow")


@upgrade(*_OLD_BROADCAST, to=7, types=True)
def _broadcast(g: Editor, node: ir.Node) -> Replacement:
    """The second input was aligned at `axis`; now shapes are aligned at their ends."""
    if attr_int(node, "broadcast", 0) and "axis" in node.attributes:
        axis, a, b = attr_int(node, "axis", 0), rank_of(node.inputs[0]), rank_of(node.inputs[1])
        if a is None or b is None:
            raise refuse(node, "it broadcasts at an axis, and the ranks of its inputs are unknown")
        trailing = a - (axis + a if axis < 0 else axis) - b
        if trailing:
            axes = g.ints(range(b, b + trailing))
            node.replace_input_with(1, g.op("Unsqueeze", node.inputs[1], axes))
    _drop(node, "broadcast", "axis")
    return None


@upgrade("PRelu", to=7, types=True)
def _prelu(g: Editor, node: ir.Node) -> Replacement:
    """A slope of one dimension belonged to the channels."""
    x, slope = rank_of(node.inputs[0]), rank_of(node.inputs[1])
    if x is None or slope is None:
        raise refuse(node, "the rank of its input is unknown")
    if slope == 1 and x > 2:
        node.replace_input_with(1, g.op("Unsqueeze", node.inputs[1], g.ints(range(1, x - 1))))
    return None


@upgrade("Clip", to=11, types=True)
def _clip(g: Editor, node: ir.Node) -> Replacement:
    """The bounds were attributes."""
    dtype = dtype_of(node.inputs[0])
    for i, name in enumerate(("min", "max")):
        default = (
            None
            if node.version is not None and node.version < 6
            else (-3.4028234663852886e38, 3.4028234663852886e38)[i]
        )
        bound = node.attributes[name].value if name in node.attributes else default
        if bound is not None:
            # A bound beyond the dtype's range becomes infinite, and bounds nothing: as before.
            with np.errstate(over="ignore"):
                value = g.constant(np.array(bound, np.float32).astype(dtype or np.float32))
            _input(node, 1 + i, value if dtype is not None else g.op("CastLike", value, node.inputs[0]))
    _drop(node, "min", "max")
    return None


@upgrade("Selu", to=6)
def _selu(g: Editor, node: ir.Node) -> Replacement:
    """The defaults had fewer digits."""
    del g
    _set(node, "alpha", attr_float(node, "alpha", 1.6732))
    _set(node, "gamma", attr_float(node, "gamma", 1.0507))
    return None


@upgrade("Dropout", to=7)
def _dropout_7(g: Editor, node: ir.Node) -> Replacement:
    """It dropped elements unless is_test said that the model is only run."""
    del g
    if not attr_int(node, "is_test", 0):
        raise refuse(node, "is_test is 0, which means training: elements are dropped by chance")
    return None


@upgrade("Dropout", to=12)
def _dropout(g: Editor, node: ir.Node) -> Replacement:
    """The ratio was an attribute, and matters only in training, which a model that is run is not. Before
    opset 10 the mask had the input's type.
    """
    _drop(node, "ratio", "is_test")
    if node.version is None or node.version >= 10 or len(node.outputs) < 2:
        return None
    mask = node.outputs[1]
    if mask.uses():
        raise refuse(node, "its mask is used, and had no meaning outside training")
    if not mask.is_graph_output():
        return None
    x = input_at(node, 0)
    kept, mask = g.ops("Dropout", [x], 2)
    return [kept, *g.ops("CastLike", [mask, x], 1)]


@upgrade("Cast", to=6)
def _cast(g: Editor, node: ir.Node) -> Replacement:
    """The type was given by its name."""
    del g
    attribute = node.attributes.get("to")
    if attribute is not None and attribute.type == ir.AttributeType.STRING:
        _set(node, "to", int(ir.DataType[attribute.as_string().upper()]))
    return None


# ---- shapes and indices ----------------------------------------------------------------------------------


@upgrade("Reshape", to=5)
def _reshape(g: Editor, node: ir.Node) -> Replacement:
    """The shape was an attribute."""
    _axes_to_input(g, node, "shape")
    return None


@upgrade("Squeeze", "Unsqueeze", "ReduceSum", to=13)
def _axes_13(g: Editor, node: ir.Node) -> Replacement:
    """The axes were an attribute."""
    _axes_to_input(g, node)
    return None


@upgrade(
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSumSquare"),
    to=18,
)
def _axes_18(g: Editor, node: ir.Node) -> Replacement:
    """The axes were an attribute."""
    _axes_to_input(g, node)
    return None


@upgrade("Concat", to=4)
def _concat(g: Editor, node: ir.Node) -> Replacement:
    """The axis had a default."""
    del g
    _set(node, "axis", attr_int(node, "axis", 1))
    return None


@upgrade("Split", to=2)
def _split_1(g: Editor, node: ir.Node) -> Replacement:
    """The sizes could be an input, of the type of what is split."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        sizes = g.op("Cast", node.inputs[1], to=int(ir.DataType.INT64))
        _drop(node, "split")
        _input(node, 1, sizes)
    return None


@upgrade("Split", to=13)
def _split(g: Editor, node: ir.Node) -> Replacement:
    """The sizes were an attribute."""
    _axes_to_input(g, node, "split")
    return None


@upgrade("Split", to=18)
def _split_18(g: Editor, node: ir.Node) -> Replacement:
    """Without sizes the number of outputs was the number of parts."""
    del g
    if len(node.inputs) < 2 or node.inputs[1] is None:
        _set(node, "num_outputs", len(node.outputs))
    return None


@upgrade("Slice", to=10)
def _slice(g: Editor, node: ir.Node) -> Replacement:
    """Bounds and axes were attributes."""
    for i, name in enumerate(("starts", "ends", "axes")):
        _axes_to_input(g, node, name, 1 + i)
    return None


@upgrade("Pad", to=11, types=True)
def _pad(g: Editor, node: ir.Node) -> Replacement:
    """Amounts and value were attributes; opset 1 called the amounts paddings."""
    value = attr_float(node, "value", 0.0)
    _axes_to_input(g, node, "pads" if "pads" in node.attributes else "paddings")
    if value:
        constant = g.constant(value, np.float32)
        _input(node, 2, g.op("CastLike", constant, node.inputs[0]))
    _drop(node, "value")
    return None


@upgrade("TopK", to=10)
def _topk(g: Editor, node: ir.Node) -> Replacement:
    """k was an attribute."""
    k = attr_int(node, "k", 1)
    _drop(node, "k")
    _input(node, 1, g.ints([k]))
    return None


@upgrade("Scatter", to=11)
def _scatter(g: Editor, node: ir.Node) -> Replacement:
    """Renamed."""
    return [g.op("ScatterElements", *node.inputs, axis=attr_int(node, "axis", 0))]


@upgrade("Tile", to=6)
def _tile(g: Editor, node: ir.Node) -> Replacement:
    """One axis was repeated; how often and which were scalars, of the type of what is repeated."""
    x = node.inputs[0]
    tiles, axis = (g.op("Cast", v, to=int(ir.DataType.INT64)) for v in node.inputs[1:3])
    rank = g.op("Squeeze", g.op("Shape", g.op("Shape", x)), g.ints([0]))
    axes = g.op("Range", g.constant(0, np.int64), rank, g.constant(1, np.int64))
    where = g.op("Reshape", axis, g.ints([1]))
    once = g.op("Where", g.op("Less", where, g.ints([0])), g.op("Add", where, rank), where)
    repeats = g.op("Where", g.op("Equal", axes, once), g.op("Reshape", tiles, g.ints([1])), g.ints([1]))
    return [g.op("Tile", x, repeats)]


@upgrade("OneHot", to=11)
def _one_hot(g: Editor, node: ir.Node) -> Replacement:
    """Negative indices were outside; now they count from the end."""
    indices, depth = node.inputs[0], node.inputs[1]
    whole = g.op("Cast", indices, to=int(ir.DataType.INT64))
    outside = g.op("Reshape", g.op("Cast", depth, to=int(ir.DataType.INT64)), g.ints([1]))
    # An index of `depth` is outside at both opsets.
    is_negative = g.op("Less", whole, g.constant(0, np.int64))
    scalar = g.op("Squeeze", outside, g.ints([0]))
    node.replace_input_with(0, g.op("Where", is_negative, scalar, whole))
    return None


# ---- layers ----------------------------------------------------------------------------------------------


@upgrade("Softmax", "LogSoftmax", "Hardmax", to=13)
def _softmax(g: Editor, node: ir.Node) -> Replacement:
    """The input was flattened to two dimensions at `axis`; where the rank is not declared,
    `rules.shape.softmax_of_flattened` may prove that nothing needs to be.
    """
    x, axis = node.inputs[0], attr_int(node, "axis", 1)
    rank = rank_of(x)
    if rank is not None and axis in (-1, rank - 1):
        _set(node, "axis", -1)
        return None
    flat = g.op("Flatten", x, axis=axis)
    return [g.op("Reshape", g.op(node.op_type, flat, axis=-1), g.op("Shape", x), allowzero=1)]


@upgrade("Gemm", to=7)
def _gemm(g: Editor, node: ir.Node) -> Replacement:
    """Broadcasting had to be asked for."""
    del g
    _drop(node, "broadcast")
    return None


@upgrade("BatchNormalization", to=7)
def _batch_norm_7(g: Editor, node: ir.Node) -> Replacement:
    """It normalised by the batch's own statistics unless is_test said that the model is only run."""
    del g
    if not attr_int(node, "is_test", 0):
        raise refuse(node, "is_test is 0, which means training: the batch's own statistics are used")
    return None


@upgrade("BatchNormalization", to=9)
def _batch_norm(g: Editor, node: ir.Node) -> Replacement:
    """spatial=0 normalised each position by itself."""
    del g
    if not attr_int(node, "spatial", 1):
        raise refuse(node, "spatial=0 has no counterpart in newer opsets")
    _drop(node, "spatial", "is_test")
    return None


@upgrade("BatchNormalization", to=14)
def _batch_norm_14(g: Editor, node: ir.Node) -> Replacement:
    """Training was asked for by having more outputs; now by an attribute, and with other outputs."""
    del g
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        raise refuse(node, "its training outputs are used, and have no counterpart in newer opsets")
    node.resize_outputs(1)
    return None


@upgrade("GroupNormalization", to=21)
def _group_norm(g: Editor, node: ir.Node) -> Replacement:
    """Scale and bias belonged to the groups; now to the channels."""
    groups = attr_int(node, "num_groups", 1)
    channels = g.op("Shape", node.inputs[0], start=1, end=2)
    repeats = g.op("Div", channels, g.ints([groups]))
    wanted = g.op("Concat", g.ints([groups]), repeats, axis=0)
    for i in (1, 2):
        column = g.op("Unsqueeze", node.inputs[i], g.ints([1]))
        node.replace_input_with(i, g.op("Reshape", g.op("Expand", column, wanted), g.ints([-1])))
    return None


@upgrade("LpPool", "GlobalLpPool", to=2)
def _lp(g: Editor, node: ir.Node) -> Replacement:
    """p was a float."""
    del g
    p = attr_float(node, "p", 2.0)
    if not math.isfinite(p) or p != int(p):
        raise refuse(node, f"p={p} is not whole")
    _set(node, "p", int(p))
    return None


@upgrade("RNN", "GRU", "LSTM", to=7)
def _recurrent(g: Editor, node: ir.Node) -> Replacement:
    """Whether the sequence is returned was an attribute; now it is whether the output has a name."""
    del g
    if attr_str(node, "direction", "forward") == "foward":  # the default, as opset 1 spelled it
        _set(node, "direction", "forward")
    _drop(node, "output_sequence")
    return None


@upgrade("Scan", to=9)
def _scan(g: Editor, node: ir.Node) -> Replacement:
    """It ran over a batch, each sequence as far as its length said: a Scan over the batch, of a Scan over one
    sequence, whose outputs are filled up with zeros.
    """
    count = attr_int(node, "num_scan_inputs", 1)
    lengths, values = node.inputs[0], list(node.inputs[1:])
    inner_nodes: list[ir.Node] = []

    def op(op_type: str, *inputs: ir.Value | None, outputs: int = 1, **attributes: Any) -> Sequence[ir.Value]:
        given = [attribute(key, value) for key, value in attributes.items()]
        made = ir.Node("", op_type, inputs, given, num_outputs=outputs, name=fresh(f"{node.name}/{op_type}"))
        for value in made.outputs:
            value.name = fresh(f"{node.name}/{op_type}_out")
        inner_nodes.append(made)
        return made.outputs

    slices = [ir.Value(name=fresh(f"{node.name}/of_one")) for _ in values]
    states, scanned = slices[: len(values) - count], slices[len(values) - count :]
    (zero,) = op("Constant", value=ir.Tensor(np.zeros(1, np.int64)))
    (total,) = op("Shape", scanned[0], start=0, end=1)
    length = total
    if lengths is not None:
        slices.append(ir.Value(name=fresh(f"{node.name}/length")))
        (length,) = op("Unsqueeze", slices[-1], zero)
        scanned = [op("Slice", value, zero, length, zero)[0] for value in scanned]
    results = list(
        op(
            "Scan",
            *states,
            *scanned,
            outputs=len(node.outputs),
            body=node.attributes["body"],
            num_scan_inputs=count,
            scan_input_directions=attr_ints(node, "directions") or (0,) * count,
        )
    )
    if lengths is not None:
        (missing,) = op("Sub", total, length)
        (pads,) = op("Concat", zero, missing, axis=0)
        padded = [op("Pad", value, pads, None, zero)[0] for value in results[len(states) :]]
        results[len(states) :] = padded
    opsets = dict(g.graph.opset_imports)
    outer = ir.Graph(slices, results, nodes=inner_nodes, opset_imports=opsets, name=f"{node.name}_of_batch")
    every = values if lengths is None else [*values, lengths]
    outputs = len(node.outputs)
    return g.ops("Scan", every, outputs, body=ir.AttrGraph("body", outer), num_scan_inputs=len(every))


@upgrade("DFT", to=20)
def _dft(g: Editor, node: ir.Node) -> Replacement:
    """The axis was an attribute, 1 by default."""
    axis = attr_int(node, "axis", 1)
    _drop(node, "axis")
    _input(node, 2, g.constant(axis, np.int64))
    return None


# ---- images ----------------------------------------------------------------------------------------------


@upgrade("Upsample", to=7)
def _upsample_1(g: Editor, node: ir.Node) -> Replacement:
    """Two scales, for the last two of four dimensions."""
    del g
    scales = [1.0, 1.0, attr_float(node, "height_scale", 1.0), attr_float(node, "width_scale", 1.0)]
    _drop(node, "height_scale", "width_scale")
    _set(node, "scales", scales)
    return None


@upgrade("Upsample", to=9)
def _upsample_7(g: Editor, node: ir.Node) -> Replacement:
    """The scales were an attribute."""
    scales = attr_floats(node, "scales") or ()
    _drop(node, "scales")
    _input(node, 1, g.constant(list(scales), np.float32))
    return None


@upgrade("Upsample", to=10)
def _upsample_9(g: Editor, node: ir.Node) -> Replacement:
    """A Resize that takes the nearest element below."""
    return [_resize(g, node, node.inputs[0], node.inputs[1], "floor")]


@upgrade("Resize", to=11)
def _resize_10(g: Editor, node: ir.Node) -> Replacement:
    """Where it shrinks it took the nearest element above, elsewhere the one below."""
    x, scales = node.inputs[0], node.inputs[1]
    known = constant_of(scales)
    if attr_str(node, "mode", "nearest") != "nearest" or (known is not None and bool((known >= 1).all())):
        return [_resize(g, node, x, scales, "floor")]
    if known is not None and bool((known <= 1).all()):
        return [_resize(g, node, x, scales, "ceil")]
    one = g.constant(1.0, np.float32)
    wide = _resize(g, node, x, g.op("Max", scales, one), "floor")
    return [_resize(g, node, wide, g.op("Min", scales, one), "ceil")]


def _resize(g: Editor, node: ir.Node, x: ir.Value | None, scales: ir.Value | None, nearest: str) -> ir.Value:
    mode = attr_str(node, "mode", "nearest")
    return g.op(
        "Resize",
        x,
        None,
        scales,
        mode="linear" if mode == "bilinear" else mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode=nearest if mode == "nearest" else None,
    )


@upgrade("Resize", to=13)
def _resize_11(g: Editor, node: ir.Node) -> Replacement:
    """One way of counting coordinates is gone: that of half_pixel and one half more, rounded down there."""
    del g
    if attr_str(node, "coordinate_transformation_mode", "half_pixel") == "tf_half_pixel_for_nn":
        mode, nearest = (
            attr_str(node, "mode", "nearest"),
            attr_str(node, "nearest_mode", "round_prefer_floor"),
        )
        # With p = q + 1/2: floor(p) is q rounded, halves up; p rounded, halves down, is ceil(q).
        same = {"floor": "round_prefer_ceil", "round_prefer_floor": "ceil"}
        if mode != "nearest" or nearest not in same:
            raise refuse(
                node,
                f"coordinate_transformation_mode 'tf_half_pixel_for_nn' with mode {mode!r} and nearest_mode "
                f"{nearest!r} has no counterpart in newer opsets",
            )
        _set(node, "coordinate_transformation_mode", "half_pixel")
        _set(node, "nearest_mode", same[nearest])
    return None


@upgrade("Resize", to=19)
def _resize_18(g: Editor, node: ir.Node) -> Replacement:
    """From corner to corner it counted whole elements; now scales may give the length a fraction."""
    x, scales, sizes = (input_at(node, i) for i in (0, 2, 3))
    corners = ("align_corners", "tf_crop_and_resize")
    if attr_str(node, "coordinate_transformation_mode", "half_pixel") not in corners:
        return None
    if scales is None or constant_shape(scales) == (0,) or attr_int(node, "antialias", 0):
        return None  # a filter's width is a matter of the scale
    if sizes is not None and constant_shape(sizes) != (0,):
        return None
    lengths = g.op("Shape", x)
    axes = attr_ints(node, "axes")
    if axes is not None:
        lengths = g.op("Gather", lengths, g.ints(axes))
    exact = g.op("Mul", g.op("Cast", lengths, to=int(ir.DataType.FLOAT)), scales)
    whole = g.op("Cast", g.op("Floor", exact), to=int(ir.DataType.INT64))
    node.replace_input_with(2, None)
    _input(node, 3, whole)
    return None


@upgrade("RoiAlign", to=16)
def _roi_align(g: Editor, node: ir.Node) -> Replacement:
    """Coordinates were not moved by half a pixel."""
    del g
    _set(node, "coordinate_transformation_mode", "output_half_pixel")
    return None


@upgrade("GridSample", to=20)
def _grid_sample(g: Editor, node: ir.Node) -> Replacement:
    """Modes had other names."""
    del g
    mode = attr_str(node, "mode", "bilinear")
    _set(node, "mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))
    return None
