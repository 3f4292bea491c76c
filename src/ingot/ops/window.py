"""Windows that slide over spatial dimensions: what convolutions and pools have in common.

`Window.of` resolves a node's attributes (auto_pad, ceil_mode, defaults) for concrete sizes, once for every
user of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.kernels.made_again import remembered
from ingot.ops.registry import Array, attr_ints, label, shape_error, show


@dataclass(frozen=True, slots=True)
class Window:
    """Per spatial dimension: kernel, stride, dilation, padding before and after, and the number of output
    positions.

    With ceil_mode the last position may reach beyond the padding after; nothing is there.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    output: tuple[int, ...]

    @classmethod
    def of(cls, node: ir.Node, sizes: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
        """The window of a Conv or pool node over spatial `sizes`.

        Raises `ShapeError` where it does not fit once.
        """
        find = node.attributes.data.get  # as `attr_ints` does: this runs twice for each window of each plan
        strides, dilations, pads = find("strides"), find("dilations"), find("pads")
        auto, ceil = find("auto_pad"), find("ceil_mode")
        fitted = _fit(
            sizes,
            kernel,
            None if strides is None else tuple(strides.value),
            None if dilations is None else tuple(dilations.value),
            None if pads is None else tuple(pads.value),
            "NOTSET" if auto is None else auto.as_string(),
            ceil is not None and ceil.value != 0,
        )
        if isinstance(fitted, Window):
            return fitted
        raise shape_error(node, *fitted)

    def windows(self, x: Array, fill: Any) -> Array:
        """A view [N, C, *output, *kernel] of x [N, C, *sizes], with `fill` in the padding."""
        rank = len(self.kernel)
        extents = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        widths = [(0, 0), (0, 0)]
        crop = [slice(None), slice(None)]
        for i in range(rank):
            reach = (self.output[i] - 1) * self.strides[i] + extents[i]
            extra = reach - x.shape[2 + i] - self.before[i]
            widths.append((max(self.before[i], 0), max(extra, 0)))
            crop.append(slice(max(-self.before[i], 0), None))
        padded = np.pad(x[tuple(crop)], widths, constant_values=fill)
        view = np.lib.stride_tricks.sliding_window_view(padded, extents, tuple(range(2, 2 + rank)))
        positions = [slice(0, (o - 1) * s + 1, s) for o, s in zip(self.output, self.strides, strict=True)]
        inside = [slice(None, None, d) for d in self.dilations]
        return view[(slice(None), slice(None), *positions, *inside)]


_CHECK = "Check the node's attributes and the shapes that feed it."


@remembered(4096, "sizes")  # inferring and lowering, layers that are alike, shapes that come again
def _fit(
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...] | None,
    dilations: tuple[int, ...] | None,
    pads: tuple[int, ...] | None,
    auto: str,
    ceil: bool,
) -> Window | tuple[str, str]:
    """See `Window.of`; what was found and what to do where it does not fit."""
    rank = len(sizes)
    strides, dilations, pads = strides or (1,) * rank, dilations or (1,) * rank, pads or (0,) * (2 * rank)
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        found = f"kernel {show(kernel)}, strides {show(strides)}, dilations {show(dilations)} and pads"
        return f"{found} {show(pads)} do not all belong to {rank} spatial dimensions", _CHECK
    if min((*kernel, *strides, *dilations), default=1) < 1:
        found = f"kernel {show(kernel)}, strides {show(strides)} and dilations {show(dilations)}"
        return f"{found} must be positive", _CHECK
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        output = [-(-n // s) for n, s in zip(sizes, strides, strict=True)]
        total = [
            max((o - 1) * s + e - n, 0) for o, s, e, n in zip(output, strides, extents, sizes, strict=True)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    else:
        before, after = ([0] * rank, [0] * rank) if auto == "VALID" else (pads[:rank], pads[rank:])
        output = list[int]()
        for n, s, e, b, a in zip(sizes, strides, extents, before, after, strict=True):
            space = n + b + a - e
            count = (-(-space // s) if ceil else space // s) + 1
            # A last window that would start in the padding after, or beyond it, does not count.
            if ceil and (count - 1) * s >= n + b:
                count -= 1
            output.append(count)
    if any(n < 1 for n in output):  # of nothing too, as PyTorch and ONNX Runtime have it
        found = f"a window of {show(extents)} does not fit into {show(sizes)} padded by"
        return f"{found} {show((*before, *after))}", "Use a larger input, more padding, or a smaller kernel."
    return Window(kernel, strides, dilations, tuple(before), tuple(after), tuple(output))


def kernel_shape(node: ir.Node) -> tuple[int, ...]:
    """The attribute that a pool cannot do without."""
    kernel = attr_ints(node, "kernel_shape")
    if kernel is None:
        raise ModelError(f"{label(node)}: attribute kernel_shape is missing. Run onnx.checker on the file.")
    return kernel


def channels_last(rank: int) -> tuple[int, ...]:
    """The memory order of [N, C, …] with `rank` spatial dimensions in which the channels lie side by side."""
    return (0, *range(2, 2 + rank), 1)
