"""Operators that make values out of nothing but attributes, shapes and scalars: Constant, ConstantOfShape,
Range, EyeLike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import DTYPES
from ingot.errors import ModelError
from ingot.kernels.call import constant
from ingot.kernels.sizes import Size
from ingot.ops.cast import target_dtype
from ingot.ops.lowering import Lowering, Steps
from ingot.ops.numeric import INT64, STRING
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_int,
    facts_of,
    known_ints,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.sized import made_constant
from ingot.ops.tensors import ArrayTensor

_CACHE = "ingot.ops.constant"


def tensor_array(tensor: ir.TensorProtocol) -> Array:
    """A tensor's array; strings are Python strings in an object array."""
    array = tensor.numpy()
    if type(tensor) is ArrayTensor:
        return array
    if tensor.dtype == ir.DataType.STRING:
        flat = [s.decode() if isinstance(s, bytes) else str(s) for s in array.ravel().tolist()]
        strings = np.empty(len(flat), STRING)
        strings[:] = flat
        return strings.reshape(array.shape)
    # With the byte order of a file in its dtype it would be another type than every other array's.
    return (
        array if array.dtype.isbuiltin or not array.dtype.isnative else array.view(np.dtype(array.dtype.char))
    )


def constant_array(node: ir.Node) -> Array:
    """The value of a Constant node, decoded once for each node. It is not to be written to."""
    array = cast("Array | None", node.meta.get(_CACHE))  # pyright: ignore[reportUnknownMemberType]
    if array is None:
        array = node.meta[_CACHE] = _decode(node)
    return array


def _decode(node: ir.Node) -> Array:
    for key, attribute in node.attributes.items():
        value: Any = attribute.value
        if key == "value":
            return tensor_array(attribute.as_tensor())
        if key in ("value_int", "value_ints"):
            return np.array(value, np.int64)
        if key in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if key in ("value_string", "value_strings"):
            return np.array(value, STRING)
    raise ModelError(
        f"{label(node)}: attributes {sorted(node.attributes)} hold no dense value. Store the "
        "constant as a dense tensor."
    )


@register("Constant", since=25)
class Constant(Op):
    """The value that an attribute holds."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Always known."""
        del inputs
        if "sparse_value" in node.attributes:
            return None
        return [facts_of(constant_array(node))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """See `constant_array`."""
        if "sparse_value" in node.attributes:
            return super().evaluate(node, inputs)
        return [constant_array(node)]


@register("ConstantOfShape", since=25)
class ConstantOfShape(Op):
    """One value, 0.0 by default, in the shape given."""

    quick = True

    def value(self, node: ir.Node) -> Array:
        """The value, as an array of one element."""
        attribute = node.attributes.get("value")
        return np.zeros(1, np.float32) if attribute is None else tensor_array(attribute.as_tensor())

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while the shape is."""
        shape = known_ints(node, inputs, 0)
        if shape is None:
            return None
        if any(size < 0 for size in shape):
            raise shape_error(node, f"the shape {show(shape)} has a negative dimension")
        return [Facts(self.value(node).dtype, shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.full."""
        value = self.value(node)
        return [np.full(tuple(present(inputs, 0).tolist()), value.reshape(-1)[0], value.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """The one element, repeated by strides of 0."""
        value = node.outputs[0]
        element = constant(self.value(node).reshape(()))
        plan.alias(value, element.broadcast_to(plan.facts(value).shape))
        return True


@register("Range", since=27)
class Range(Op):
    """start, start + delta, … below limit (above, for a negative delta)."""

    quick = True

    @staticmethod
    def count(start: Any, limit: Any, delta: Any) -> int:
        """How many elements there are."""
        if isinstance(start, float):
            return max(math.ceil((limit - start) / delta), 0)
        return max(-((start - limit) // delta), 0)

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while a bound is."""
        bounds = [need(node, inputs, i) for i in range(3)]
        values = [b.value.item() for b in bounds if b.value is not None]
        if len(values) < 3:
            return None
        if values[2] == 0:
            raise shape_error(node, "delta is 0", "Use a delta other than 0.")
        return [Facts(bounds[0].dtype, (self.count(*(_exact(v) for v in values)),))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Start + i · delta, each rounded once."""
        start, limit, delta = (present(inputs, i) for i in range(3))
        first, last, step = (_exact(v.item()) for v in (start, limit, delta))
        if step == 0:
            raise shape_error(node, "delta is 0", "Use a delta other than 0.")
        return [_range(first, self.count(first, last, step), step, start.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A constant: what is not known gives no shape to plan for."""
        value = node.outputs[0]
        facts, bounds = plan.facts(value), [plan.constant(v) for v in node.inputs]
        first, step = (_exact(present(bounds, i).item()) for i in (0, 2))
        count = facts.shape[0]
        plan.alias(value, made_constant(_range, first, count, step, facts.dtype, shape=(count,)))
        return True


def _range(first: Any, count: int, step: Any, dtype: np.dtype[Any]) -> Array:
    """First + i · step, each rounded once."""
    return (first + np.arange(count) * step).astype(dtype)


def _exact(value: Any) -> Any:
    return value if isinstance(value, (int, Size)) else float(value)


@register("EyeLike", since=22)
class EyeLike(Op):
    """Ones on diagonal k of a matrix with the input's shape."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The input's shape; dtype by attribute, or the input's."""
        x = need(node, inputs, 0)
        if len(x.shape) != 2:
            raise shape_error(node, f"the input has shape {show(x.shape)}, and must be a matrix")
        return [Facts(self._dtype(node, x.dtype), x.shape)]

    @staticmethod
    def _dtype(node: ir.Node, default: np.dtype[Any]) -> np.dtype[Any]:
        return ir.DataType(attr_int(node, "dtype", 1)).numpy() if "dtype" in node.attributes else default

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.eye."""
        x = present(inputs, 0)
        return [np.eye(x.shape[0], x.shape[1], attr_int(node, "k", 0)).astype(self._dtype(node, x.dtype))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A step that compares columns with rows."""
        value = node.outputs[0]
        facts = plan.facts(value)
        if facts.dtype.name not in DTYPES:
            return False
        rows, columns = facts.shape
        steps = Steps(plan, facts.shape)
        first = attr_int(node, "k", 0)
        diagonal = made_constant(_range, first, rows, 1, INT64, shape=(rows,)).with_dims((rows, 1), (1, 0))
        column = made_constant(_range, 0, columns, 1, INT64, shape=(columns,))
        on = steps("Equal", plan.located(column), plan.located(diagonal), dtype="bool")
        steps.cast(on, facts.dtype.name, value)
        return True


__all__ = [
    "Constant",
    "ConstantOfShape",
    "EyeLike",
    "Range",
    "constant_array",
    "target_dtype",
    "tensor_array",
]
