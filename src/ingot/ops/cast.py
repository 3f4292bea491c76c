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
    integers narrower than 8 bits, and what strings say.
    """
    if dtype == STRING and x.dtype != STRING and x.dtype.kind != "c":
        words = [_word(number) for number in x.ravel()]
        return np.array(words, object).reshape(x.shape)
    if is_float(x.dtype) and is_integer(dtype) and is_native(dtype):
        return to_integer(x, dtype.name)
    if not (_plain(x.dtype) and _plain(dtype)):
        return None
    with np.errstate(all="ignore"):
        return x.astype(dtype)


def _word(number: Any) -> str:
    """A number as a string: the plain digits that the operator's definition wants, as many as tell it from
    its neighbours; otherwise as ONNX Runtime writes it.
    """
    if not is_float(number.dtype):
        return str(int(number))
    plain = number if is_native(number.dtype) else np.float32(number)
    if not np.isfinite(plain):
        return "NaN" if np.isnan(plain) else "INF" if plain > 0 else "-INF"
    return np.format_float_positional(plain, trim="-")


def _parsed(node: ir.Node, x: Array, dtype: DType) -> Array:
    """Strings as numbers: floats, or integers whose lower bits are right."""
    if x.dtype != STRING or dtype == STRING or dtype.kind == "c":
        return x
    numbers: list[float | int] = []
    for word in x.ravel():
        try:
            number = float(word.replace("_", "?"))  # which only Python reads
            numbers.append(number if is_float(dtype) else _whole(word, number))
        except (ValueError, OverflowError) as error:
            what = "number" if is_float(dtype) else "integer of 64 bits"
            raise InputError(
                f"{label(node)}: found the string {word!r}, which is no {what}. Give it numbers as strings."
            ) from error
    if is_float(dtype):  # onnx.reference saturates what is rounded from float32
        return np.array(numbers, np.float64 if dtype.itemsize > 1 else np.float32).reshape(x.shape)
    return np.array([n % 2**64 for n in numbers], np.uint64).view(np.int64).reshape(x.shape)


def _whole(word: str, number: float) -> int:
    """A string's integer, without what follows the point."""
    try:
        whole = int(word)
    except ValueError:
        whole = int(number)
    if not -(2**63) <= whole < 2**64:
        raise OverflowError
    return whole


def _plain(dtype: DType) -> bool:
    return (is_native(dtype) and dtype != STRING) or dtype == ml_dtypes.bfloat16


def _attributes(node: ir.Node) -> tuple[tuple[str, Any], ...]:
    """How casts to narrow floats round, where it is not the default."""
    saturate, mode = attr_int(node, "saturate", 1), attr_str(node, "round_mode", "up")
    return (*(() if saturate else (("saturate", 0),)), *(() if mode == "up" else (("round_mode", mode),)))


@register("Cast", since=28)
class Cast(Op):
    """x in the type that `to` names."""

    quick = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The same shape."""
        return [Facts(target_dtype(node), need(node, inputs, 0).shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By NumPy between its own types; onnx.reference knows the rounding and saturation of the small
        ones.
        """
        x, dtype = present(inputs, 0), target_dtype(node)
        x = _parsed(node, x, dtype)
        converted = convert(x, dtype)
        return super().evaluate(node, [x]) if converted is None else [converted]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A step of a fused kernel."""
        return plan.wait(node.outputs[0], "Cast", [first_input(node)], _attributes(node))


@register("CastLike", since=25)
class CastLike(Op):
    """x in the type of another value."""

    quick = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The first input's shape, the second's dtype."""
        return [Facts(need(node, inputs, 1).dtype, need(node, inputs, 0).shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """As Cast."""
        x, like = present(inputs, 0), present(inputs, 1)
        x = _parsed(node, x, like.dtype)
        converted = convert(x, like.dtype)
        return super().evaluate(node, [x, like]) if converted is None else [converted]

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
