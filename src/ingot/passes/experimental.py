"""Operators that ONNX had on trial in its first versions, in the standard's terms: converters of that time
wrote them into the main domain, and runtimes still take them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ingot.ops.nodes import input_at
from ingot.ops.registry import attr_float, attr_floats, attr_ints
from ingot.passes.edit import Editor, refusal

Function = Callable[[Editor, ir.Node], Sequence["ir.Value | None"]]


def _affine(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """alpha · x + beta."""
    x = node.inputs[0]
    y = g.op("Mul", x, g.number(attr_float(node, "alpha", 1.0), x))
    return [g.op("Add", y, g.number(attr_float(node, "beta", 0.0), x))]


def _image_scaler(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """Images [N, C, H, W] times a number, plus one for each channel."""
    x = node.inputs[0]
    bias = np.array(attr_floats(node, "bias") or (0.0,), np.float32).reshape(-1, 1, 1)
    y = g.op("Mul", x, g.number(attr_float(node, "scale", 1.0), x))
    return [g.op("Add", y, g.op("CastLike", g.constant(bias), x))]


def _parametric_softplus(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """alpha · ln(exp(beta · x) + 1)."""
    x = node.inputs[0]
    y = g.op("Softplus", g.op("Mul", x, g.number(attr_float(node, "beta", 1.0), x)))
    return [g.op("Mul", y, g.number(attr_float(node, "alpha", 1.0), x))]


def _scaled_tanh(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """alpha · tanh(beta · x)."""
    x = node.inputs[0]
    y = g.op("Tanh", g.op("Mul", x, g.number(attr_float(node, "beta", 1.0), x)))
    return [g.op("Mul", y, g.number(attr_float(node, "alpha", 1.0), x))]


def _crop(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """What lies inside of borders left, top, right and bottom; or so high and wide from the upper left on."""
    border, size = attr_ints(node, "border"), attr_ints(node, "scale")
    if border is None or len(border) != 4 or (size is not None and len(size) != 2):
        raise refusal(node, f"border {border} and scale {size}: four numbers are wanted, and two or none")
    left, top, right, bottom = border
    x, starts, axes = node.inputs[0], g.ints([top, left]), g.ints([2, 3])
    if size is not None:
        return [g.op("Slice", x, starts, g.ints([top + size[0], left + size[1]]), axes)]
    ends = g.op("Sub", g.op("Shape", x, start=2, end=4), g.ints([bottom, right]))
    return [g.op("Slice", x, starts, ends, axes)]


def _dynamic_slice(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """Slice, as it was meant to be."""
    return [g.op("Slice", *(input_at(node, i) for i in range(4)))]


EXPERIMENTAL: dict[str, Function] = {
    "Affine": _affine,
    "Crop": _crop,
    "DynamicSlice": _dynamic_slice,
    "ImageScaler": _image_scaler,
    "ParametricSoftplus": _parametric_softplus,
    "ScaledTanh": _scaled_tanh,
}
