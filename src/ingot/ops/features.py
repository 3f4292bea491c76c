"""What ai.onnx.ml does to columns of a table: scaling, encoding, filling in, picking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import DTYPES
from ingot.errors import InputError, ModelError
from ingot.kernels.gather import gather
from ingot.ops.compose import computed, deliver, integer, ints, settled
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import FLOAT32, INT64, STRING
from ingot.ops.registry import (
    Array,
    DType,
    Facts,
    Op,
    Outputs,
    attr_float,
    attr_floats,
    attr_int,
    attr_ints,
    attr_str,
    first_input,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)

ML = "ai.onnx.ml"


def numeric(node: ir.Node, x: Facts) -> Facts:
    """The facts of an input that must be numbers."""
    if x.dtype.kind not in "fiub":
        raise ModelError(
            f"{label(node)}: the input is {x.dtype}, and must be numbers. Insert a Cast before it."
        )
    return x


def strings_of(node: ir.Node, name: str) -> Array | None:
    """An attribute that lists strings, as an array; None where it is missing or empty."""
    attribute = node.attributes.get(name)
    if attribute is None or not len(attribute.value):
        return None
    return np.array(list(attribute.as_strings()), object)


def as_float(plan: Lowering, x: ir.Value) -> ir.Value:
    """The value in float32."""
    facts = plan.facts(x)
    if facts.dtype == FLOAT32:
        return x
    return computed(plan, "Cast", [x], facts.shape, FLOAT32, [integer("to", int(ir.DataType.FLOAT))])


class _ToFloat(Op):
    """float32, of the shape of the input."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x."""
        return [Facts(FLOAT32, numeric(node, need(node, inputs, 0)).shape)]


@register("Scaler", since=1, domain=ML)
class Scaler(_ToFloat):
    """(x - offset) · scale for each column, in float32."""

    def _factors(self, node: ir.Node, x: tuple[int, ...]) -> tuple[Array, Array]:
        factors: list[Array] = []
        for name, default in (("offset", 0.0), ("scale", 1.0)):
            found = np.array(attr_floats(node, name) or (default,), np.float32)
            if len(found) != 1 and (not x or len(found) != x[-1]):
                raise shape_error(
                    node,
                    f"{name} has {len(found)} elements, and the input {show(x)} another number of columns",
                )
            factors.append(found if x else found.reshape(()))
        return factors[0], factors[1]

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x."""
        self._factors(node, need(node, inputs, 0).shape)
        return super().infer(node, inputs)

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In float32, as in the kernel."""
        x = present(inputs, 0)
        offset, scale = self._factors(node, x.shape)
        with np.errstate(all="ignore"):
            return [((x.astype(FLOAT32) - offset) * scale).astype(FLOAT32)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Two steps of a fused kernel."""
        x, value = first_input(node), node.outputs[0]
        shape = plan.facts(x).shape
        offset, scale = self._factors(node, shape)
        centred = computed(plan, "Sub", [as_float(plan, x), plan.known(offset)], shape, FLOAT32)
        return plan.wait(value, "Mul", [centred, plan.known(scale)])


@register("Normalizer", since=1, domain=ML)
class Normalizer(_ToFloat):
    """Each row divided by its largest element (MAX), the sum of its absolute values (L1) or its length (L2);
    a row whose divisor is 0 stays. float32.
    """

    _REDUCE = {"MAX": "ReduceMax", "L1": "ReduceL1", "L2": "ReduceL2"}  # noqa: RUF012

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x."""
        if attr_str(node, "norm", "MAX") not in self._REDUCE:
            raise ModelError(f"{label(node)}: norm {attr_str(node, 'norm', '')!r} is none of MAX, L1, L2.")
        x = need(node, inputs, 0)
        if len(x.shape) not in (1, 2):
            raise shape_error(node, f"the input has shape {show(x.shape)}, and must have 1 or 2 dimensions")
        return super().infer(node, inputs)

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In float64, rounded once."""
        x = present(inputs, 0).astype(np.float64)
        if not x.size:
            return [x.astype(FLOAT32)]
        norm = attr_str(node, "norm", "MAX")
        with np.errstate(all="ignore"):
            if norm == "MAX":
                divisor = x.max(-1, keepdims=True)
            elif norm == "L1":
                divisor = np.abs(x).sum(-1, keepdims=True)
            else:
                divisor = np.sqrt((x * x).sum(-1, keepdims=True))
            return [(x / np.where(divisor == 0, 1.0, divisor)).astype(FLOAT32)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A reduction, then a division."""
        x, value = first_input(node), node.outputs[0]
        shape = plan.facts(x).shape
        if not math.prod(shape):
            return False
        x = settled(plan, as_float(plan, x))
        axes, column = plan.known(np.array([-1], INT64)), (*shape[:-1], 1)
        divisor = computed(plan, self._REDUCE[attr_str(node, "norm", "MAX")], [x, axes], column, FLOAT32)
        divisor = settled(plan, divisor)
        zero, one = (plan.known(np.array(v, FLOAT32)) for v in (0, 1))
        is_zero = computed(plan, "Equal", [divisor, zero], column, np.bool_)
        return plan.wait(value, "Div", [x, computed(plan, "Where", [is_zero, one, divisor], column, FLOAT32)])


@register("Binarizer", since=1, domain=ML)
class Binarizer(Op):
    """1 where x is above the threshold, else 0."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape and dtype of x."""
        x = numeric(node, need(node, inputs, 0))
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """NaN is not above anything."""
        x = present(inputs, 0)
        return [(x > np.float32(attr_float(node, "threshold", 0.0))).astype(x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Two steps of a fused kernel; integers are compared by the host."""
        x, value = first_input(node), node.outputs[0]
        facts = plan.facts(x)
        if facts.dtype.kind != "f":
            return False
        bound = plan.known(np.array(np.float32(attr_float(node, "threshold", 0.0)), facts.dtype))
        above = computed(plan, "Greater", [x, bound], facts.shape, np.bool_)
        return plan.wait(value, "Cast", [above])


@register("Imputer", since=1, domain=ML)
class Imputer(Op):
    """A value that stands for missing ones (NaN, say) is replaced, by one number or one for each column."""

    def _values(self, node: ir.Node, x: Facts) -> tuple[Array, Array]:
        floats, integers = attr_floats(node, "imputed_value_floats"), attr_ints(node, "imputed_value_int64s")
        if x.dtype.kind == "f":
            values, replaced = floats, attr_float(node, "replaced_value_float", 0.0)
        else:
            values, replaced = integers, attr_int(node, "replaced_value_int64", 0)
        if not values:
            raise ModelError(
                f"{label(node)}: it has no imputed values for {x.dtype}. Insert a Cast before it."
            )
        if len(values) != 1 and (not x.shape or len(values) != x.shape[-1]):
            raise shape_error(node, f"{len(values)} imputed values for an input of shape {show(x.shape)}")
        imputed = np.array(values, x.dtype)
        return imputed if x.shape else imputed.reshape(()), np.array(replaced, x.dtype)

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape and dtype of x."""
        x = numeric(node, need(node, inputs, 0))
        self._values(node, x)
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """NaN stands for every NaN."""
        x = present(inputs, 0)
        values, replaced = self._values(node, Facts(x.dtype, x.shape))
        gone = np.isnan(x) if x.dtype.kind == "f" and np.isnan(replaced) else x == replaced
        return [np.where(gone, values, x).astype(x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Two steps of a fused kernel."""
        x, value = first_input(node), node.outputs[0]
        facts = plan.facts(x)
        values, replaced = self._values(node, facts)
        if facts.dtype.kind == "f" and np.isnan(replaced):
            gone = computed(plan, "IsNaN", [x], facts.shape, np.bool_)
        else:
            gone = computed(plan, "Equal", [x, plan.known(replaced)], facts.shape, np.bool_)
        return plan.wait(value, "Where", [gone, plan.known(values), x])


@register("ArrayFeatureExtractor", since=1, domain=ML)
class ArrayFeatureExtractor(Op):
    """Columns of x [..., C] at the places in y."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[..., count]; one row for an input of one dimension."""
        x, y = need(node, inputs, 0), need(node, inputs, 1)
        if not x.shape:
            raise shape_error(node, "the input has no dimensions, and must have one at least")
        return [Facts(x.dtype, (*(x.shape[:-1] or (1,)), math.prod(y.shape)))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Raises InputError for a place that there is not."""
        x, y = present(inputs, 0), present(inputs, 1).reshape(-1)
        wrong = y[(y < 0) | (y >= x.shape[-1])]
        if wrong.size:
            raise InputError(
                f"{label(node)}: index {wrong[0]} is outside of the {x.shape[-1]} columns. Check the second "
                "input."
            )
        found = np.take(x, y, -1)
        return [found[None] if x.ndim == 1 else found]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A Gather; places that are known are checked now."""
        x, value, places = first_input(node), node.outputs[0], plan.constant(node.inputs[1])
        facts = plan.facts(x)
        if places is None:
            return self._gather(node, plan)
        if places.size and not 0 <= places.min() <= places.max() < facts.shape[-1]:
            return False
        view = plan.view(x)
        if view.rank == 1:
            x = plan.located(view.with_dims((1, *view.shape), (0, *view.strides)))
        axis = [integer("axis", -1)]
        shape = plan.facts(value).shape
        flat = plan.known(places.reshape(-1))
        deliver(plan, value, computed(plan, "Gather", [x, flat], shape, facts.dtype, axis))
        return True

    @staticmethod
    def _gather(node: ir.Node, plan: Lowering) -> bool:
        x, y = first_input(node), node.inputs[1]
        assert y is not None
        facts, columns = plan.facts(x), plan.facts(x).shape[-1]
        if (
            plan.facts(y).dtype.name not in ("int32", "int64")
            or facts.dtype.name not in DTYPES
            or not columns
        ):
            return False
        view, places = plan.view(x), plan.plain(y)
        if view.rank == 1:
            view = view.with_dims((1, *view.shape), (0, *view.strides))
        flag = plan.check(
            f"{label(node)}: an index is outside of the {columns} columns. Check the second input."
        )
        flat, out = places.with_dims((places.size,), (1,)), plan.output(node.outputs[0])
        plan.emit(gather(view, flat, view.rank - 1, out, flag, plan.machine, from_end=False))
        return True


@register("FeatureVectorizer", since=1, domain=ML)
class FeatureVectorizer(Op):
    """Tables next to each other, in float32; each is cut or filled with zeros to its number of columns."""

    def _widths(self, node: ir.Node, inputs: Sequence[Facts | None]) -> tuple[int, list[int], list[int]]:
        """Rows, the columns that each input has, and those it gets."""
        wanted = attr_ints(node, "inputdimensions") or ()
        tables = [numeric(node, need(node, inputs, i)) for i in range(len(inputs))]
        shapes = [(1, *t.shape) if len(t.shape) == 1 else t.shape for t in tables]
        rows = {shape[0] for shape in shapes}
        if len(rows) != 1 or (wanted and len(wanted) != len(shapes)):
            raise shape_error(
                node,
                f"inputs {', '.join(show(t.shape) for t in tables)} and inputdimensions {list(wanted)} do "
                "not fit",
            )
        have = [math.prod(shape[1:]) for shape in shapes]
        return rows.pop(), have, list(wanted or have)

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[N, sum of columns]."""
        rows, _, widths = self._widths(node, inputs)
        return [Facts(FLOAT32, (rows, sum(widths)))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Column by column."""
        arrays = [present(inputs, i) for i in range(len(inputs))]
        rows, have, widths = self._widths(node, [Facts(a.dtype, a.shape) for a in arrays])
        parts: list[Array] = []
        for array, columns, width in zip(arrays, have, widths, strict=True):
            part = np.zeros((rows, width), FLOAT32)
            flat = array.reshape(rows, columns)[:, :width]
            part[:, : flat.shape[1]] = flat
            parts.append(part)
        return [np.concatenate(parts, 1)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A Concat, where nothing is cut or filled."""
        operands = [v for v in node.inputs if v is not None]
        facts = [plan.facts(v) for v in operands]
        _, have, widths = self._widths(node, facts)
        if have != widths or any(len(f.shape) != 2 for f in facts):
            return False
        value = node.outputs[0]
        shape = plan.facts(value).shape
        floats = [as_float(plan, v) for v in operands]
        deliver(plan, value, computed(plan, "Concat", floats, shape, FLOAT32, [integer("axis", 1)]))
        return True


@register("OneHotEncoder", since=1, domain=ML)
class OneHotEncoder(Op):
    """1 at the category that an element is, 0 at the others, in a new last dimension. float32."""

    def _categories(self, node: ir.Node, dtype: DType) -> Array:
        strings, numbers = strings_of(node, "cats_strings"), attr_ints(node, "cats_int64s")
        found = strings if dtype == STRING else None if not numbers else np.array(numbers, INT64)
        if found is None:
            raise ModelError(
                f"{label(node)}: it has no categories for an input of {dtype}. Insert a Cast before it."
            )
        return found

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[..., categories]."""
        x = need(node, inputs, 0)
        return [Facts(FLOAT32, (*x.shape, len(self._categories(node, x.dtype))))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Raises InputError for an unknown category where zeros=0 forbids it."""
        x = present(inputs, 0)
        categories = self._categories(node, x.dtype)
        if x.dtype != STRING:
            x = x.astype(INT64)
        hot = x[..., None] == categories
        if not attr_int(node, "zeros", 1) and not hot.any(-1).all():
            unknown = x[~hot.any(-1)].ravel()[0]
            raise InputError(
                f"{label(node)}: {unknown!r} is none of its categories, and zeros=0 allows no others."
            )
        return [hot.astype(FLOAT32)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A comparison with each category."""
        x, value = first_input(node), node.outputs[0]
        facts = plan.facts(x)
        if facts.dtype == STRING or not attr_int(node, "zeros", 1):
            return False
        shape = plan.facts(value).shape
        if facts.dtype != INT64:
            x = computed(plan, "Cast", [x], facts.shape, INT64, [integer("to", int(ir.DataType.INT64))])
        view = plan.view(x)
        column = plan.located(view.with_dims((*view.shape, 1), (*view.strides, 0)))
        categories: Any = plan.known(self._categories(node, facts.dtype))
        return plan.wait(value, "Cast", [computed(plan, "Equal", [column, categories], shape, np.bool_)])


__all__ = ["ML", "as_float", "ints", "numeric", "strings_of"]
