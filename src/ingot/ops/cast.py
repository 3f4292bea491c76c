"""Operators that change an element's type: Cast, CastLike, BitCast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ingot.errors import InputError, ModelError
from ingot.kernels.call import View
from ingot.kernels.definitions import to_integer
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import STRING, is_float, is_integer, is_native
from ingot.ops.registry import (
    Array,
    DType,
    Facts,
    Op,
    attr_int,
    attr_str,
    first_input,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)


def target_dtype(node: ir.Node) -> DType:
    """The dtype that attribute `to` names."""
    to = attr_int(node, "to", 0)
    try:
        data_type = ir.DataType(to)
        return STRING if data_type == ir.DataType.STRING else data_type.numpy()
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{label(node)}: attribute to={to} names no type. Use one of TensorProto.DataType."
        ) from error


def convert(x: Array, dtype: DType) -> Array | None:
    """`x` in another dtype, or None where onnx.reference is asked: floats narrower than 16 bits (saturation),
    integers narrower than 8 bits, and strings.
    """
    if is_float(x.dtype) and is_integer(dtype) and is_native(dtype):
        return to_integer(x, dtype.name)
    if not (_plain(x.dtype) and _plain(dtype)):
        return None
    with np.errstate(all="ignore"):
        return x.astype(dtype)


def _parsed(node: ir.Node, x: Array, dtype: DType) -> Array:
    """Strings that become floats of 8 bits or less, as numbers: onnx.reference saturates only those."""
    if x.dtype != STRING or not is_float(dtype) or dtype.itemsize > 1:
        return x
    try:
        return x.astype(np.float32)
    except ValueError as error:
        raise InputError(
            f"{label(node)}: found a string that is no number ({error}). Give it numbers as strings."
        ) from error


def _plain(dtype: DType) -> bool:
    return (is_native(dtype) and dtype != STRING) or dtype == ml_dtypes.bfloat16


def _attributes(node: ir.Node) -> tuple[tuple[str, Any], ...]:
    """How casts to narrow floats round, where it is not the default."""
    saturate, mode = attr_int(node, "saturate", 1), attr_str(node, "round_mode", "up")
    return (*(() if saturate else (("saturate", 0),)), *(() if mode == "up" else (("round_mode", mode),)))


@register("Cast", since=28)
class Cast(Op):
    """x in the type that `to` names."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The same shape."""
        return [Facts(target_dtype(node), need(node, inputs, 0).shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By NumPy between its own types; onnx.reference knows the rounding and saturation of the small
        ones.
        """
        x, dtype = present(inputs, 0), target_dtype(node)
        converted = convert(x, dtype)
        return super().evaluate(node, [_parsed(node, x, dtype)]) if converted is None else [converted]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A step of a fused kernel."""
        return plan.wait(node.outputs[0], "Cast", [first_input(node)], _attributes(node))


@register("CastLike", since=25)
class CastLike(Op):
    """x in the type of another value."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The first input's shape, the second's dtype."""
        return [Facts(need(node, inputs, 1).dtype, need(node, inputs, 0).shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """As Cast."""
        x, like = present(inputs, 0), present(inputs, 1)
        converted = convert(x, like.dtype)
        return (
            super().evaluate(node, [_parsed(node, x, like.dtype), like]) if converted is None else [converted]
        )

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A step of a fused kernel."""
        return plan.wait(node.outputs[0], "Cast", [first_input(node)], _attributes(node))


@register("BitCast", since=26)
class BitCast(Op):
    """The same bits read as another type of the same width."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The same shape; the widths must agree."""
        x, dtype = need(node, inputs, 0), target_dtype(node)
        if x.dtype.itemsize != dtype.itemsize:
            raise shape_error(
                node,
                f"{x.dtype} {show(x.shape)} and {dtype} differ in width",
                "BitCast keeps the number of bits.",
            )
        return [Facts(dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The same memory, read as the other type."""
        return [present(inputs, 0).view(target_dtype(node))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """The same memory."""
        view, value = plan.view(first_input(node)), node.outputs[0]
        plan.alias(value, View(view.buffer, view.offset, plan.facts(value).dtype, view.shape, view.strides))
        return True
