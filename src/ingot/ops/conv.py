"""Convolutions: Conv, ConvTranspose. Evaluated as im2col and matrix product in float64, rounded once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    attr_int,
    attr_ints,
    attr_str,
    given,
    need,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.window import Window

Outputs = list[Facts | None] | None


def _bias_fits(node: ir.Node, bias: Facts | None, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise shape_error(node, f"the bias has shape {show(bias.shape)}, and must be [{channels}]")


@register("Conv", since=22)
class Conv(Op):
    """x [N, C, …] with w [M, C / group, …] and an optional bias [M]: [N, M, …]."""

    def window(self, node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Window:
        """The resolved window for these shapes.

        Raises `ShapeError` when input, weight and group do not belong together.
        """
        group = attr_int(node, "group", 1)
        if len(x) < 3 or len(x) != len(w):
            raise shape_error(
                node, f"the input {show(x)} and the weight {show(w)} must have one rank, at least 3"
            )
        if x[1] != w[1] * group:
            raise shape_error(
                node,
                f"weight has {w[1]} input channels, the input has {x[1]}"
                + (f" in {group} groups" * (group > 1)),
                "Give an input whose second dimension is "
                f"{w[1] * group}; images in [N, H, W, C] order need a Transpose first.",
            )
        if w[0] % group:
            raise shape_error(node, f"{w[0]} output channels do not divide into {group} groups")
        stated = attr_ints(node, "kernel_shape")
        if stated is not None and stated != w[2:]:
            raise shape_error(node, f"kernel_shape {show(stated)} contradicts the weight {show(w)}")
        return Window.of(node, x[2:], w[2:])

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """See `window`."""
        x, w = need(node, inputs, 0), need(node, inputs, 1)
        window = self.window(node, x.shape, w.shape)
        _bias_fits(node, given(inputs, 2), w.shape[0])
        return [Facts(x.dtype, (x.shape[0], w.shape[0], *window.output))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """One tensordot for each group."""
        x, w, bias = present(inputs, 0), present(inputs, 1), given(inputs, 2)
        window = self.window(node, x.shape, w.shape)
        group, rank = attr_int(node, "group", 1), x.ndim - 2
        windows = window.windows(widen(x), 0)
        weight = widen(w)
        contracted = [1, *range(2 + rank, 2 + 2 * rank)]
        parts: list[Array] = []
        with np.errstate(all="ignore"):
            for columns, kernels in zip(np.split(windows, group, 1), np.split(weight, group, 0), strict=True):
                parts.append(np.tensordot(columns, kernels, (contracted, [*range(1, 2 + rank)])))
            y = np.moveaxis(np.concatenate(parts, -1), -1, 1)
            if bias is not None:
                y = y + widen(bias).reshape(-1, *[1] * rank)
        return [rounded(y, x.dtype)]


@register("ConvTranspose", since=22)
class ConvTranspose(Op):
    """The gradient of Conv with respect to its input: x [N, C, …] with w [C, M / group, …]: [N, M, …]."""

    def window(self, node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Window:
        """The Conv window that maps the output back onto x: `output` is this operator's output size.

        Raises `ShapeError` when input, weight and group do not belong together.
        """
        group, rank = attr_int(node, "group", 1), len(x) - 2
        if rank < 1 or len(x) != len(w):
            raise shape_error(
                node, f"the input {show(x)} and the weight {show(w)} must have one rank, at least 3"
            )
        if x[1] != w[0] or x[1] % group:
            raise shape_error(
                node,
                f"weight has {w[0]} input channels, the input has {x[1]}, in {group} groups",
                f"Give an input whose second dimension is {w[0]}.",
            )
        strides = attr_ints(node, "strides") or (1,) * rank
        dilations = attr_ints(node, "dilations") or (1,) * rank
        extra = attr_ints(node, "output_padding") or (0,) * rank
        pads = attr_ints(node, "pads") or (0,) * (2 * rank)
        wanted, auto = attr_ints(node, "output_shape"), attr_str(node, "auto_pad", "NOTSET")
        full = [
            (n - 1) * s + (k - 1) * d + 1 + e
            for n, s, k, d, e in zip(x[2:], strides, w[2:], dilations, extra, strict=True)
        ]
        if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
            wanted = tuple(n * s for n, s in zip(x[2:], strides, strict=True))
        if wanted is not None:
            wanted = wanted[-rank:]
            total = [max(f - o, 0) for f, o in zip(full, wanted, strict=True)]
            half = [t // 2 for t in total]
            rest = [t - h for t, h in zip(total, half, strict=True)]
            before, after = (half, rest) if auto == "SAME_UPPER" else (rest, half)
            output = list(wanted)
        else:
            before, after = ([0] * rank, [0] * rank) if auto == "VALID" else (pads[:rank], pads[rank:])
            output = [f - b - a for f, b, a in zip(full, before, after, strict=True)]
        if min(output) < 0:
            raise shape_error(node, f"pads {show((*before, *after))} leave nothing of {show(full)}")
        return Window(w[2:], strides, dilations, tuple(before), tuple(after), tuple(output))

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """See `window`."""
        x, w = need(node, inputs, 0), need(node, inputs, 1)
        window = self.window(node, x.shape, w.shape)
        channels = w.shape[1] * attr_int(node, "group", 1)
        _bias_fits(node, given(inputs, 2), channels)
        return [Facts(x.dtype, (x.shape[0], channels, *window.output))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Every kernel position adds its product to the strided part of the output that it reaches."""
        x, w, bias = present(inputs, 0), present(inputs, 1), given(inputs, 2)
        window = self.window(node, x.shape, w.shape)
        group, rank = attr_int(node, "group", 1), x.ndim - 2
        sizes = x.shape[2:]
        # Wide enough for every position; the padding is cut off at the end.
        full = [
            max((n - 1) * s + (k - 1) * d + 1, b + o)
            for n, s, k, d, b, o in zip(
                sizes,
                window.strides,
                window.kernel,
                window.dilations,
                window.before,
                window.output,
                strict=True,
            )
        ]
        y = np.zeros((x.shape[0], w.shape[1] * group, *full), np.float64)
        width = w.shape[1]
        for g, (part, kernels) in enumerate(
            zip(np.split(widen(x), group, 1), np.split(widen(w), group, 0), strict=True)
        ):
            for position in np.ndindex(*window.kernel):
                product = np.tensordot(part, kernels[(slice(None), slice(None), *position)], ([1], [0]))
                where = [
                    slice(p * d, p * d + (n - 1) * s + 1, s)
                    for p, d, n, s in zip(position, window.dilations, sizes, window.strides, strict=True)
                ]
                channels = slice(g * width, (g + 1) * width)
                y[(slice(None), channels, *where)] += np.moveaxis(product, -1, 1)
        kept = [slice(b, b + o) for b, o in zip(window.before, window.output, strict=True)]
        y = y[(slice(None), slice(None), *kept)]
        if bias is not None:
            y = y + widen(bias).reshape(-1, *[1] * rank)
        return [rounded(y, x.dtype)]
