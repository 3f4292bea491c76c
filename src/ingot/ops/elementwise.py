"""Operators that treat every element alike, with NumPy broadcasting: one row of a table each.

Functions get float64 for any float (rounded once at the end by the caller) and integers as they are. The
names of a row's attributes, with their defaults, are `Elementwise.defaults`; `attributes(node)` gives them
for one node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.kernels.call import constant
from ingot.kernels.definitions import (
    HARD_ALPHA,
    LEAKY_ALPHA,
    bit_shift,
    celu,
    divide,
    elu,
    erf,
    gelu,
    hard_sigmoid,
    hard_swish,
    is_inf,
    leaky_relu,
    maximum,
    minimum,
    mish,
    modulo,
    power,
    prelu,
    relu,
    selu,
    shrink,
    sigmoid,
    softplus,
    softsign,
    swiglu,
    swish,
    thresholded_relu,
)
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import BOOL, FLOAT64, is_float, is_integer, is_native, rounded, widen
from ingot.ops.registry import (
    Array,
    DType,
    Facts,
    Op,
    add,
    broadcast,
    given,
    have_no_images,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)

Function = Callable[..., Any]
#: Elements of larger arrays are computed part by part.
_BLOCK = 1 << 14
#: Below it a float64 has every whole number: comparing with one says whether a 64-bit integer is the same.
_WHOLE = 2.0**53


class Elementwise(Op):
    """y[i] = f(a[i], b[i], …) after broadcasting; the dtype of y is the inputs' own, or bool for a
    predicate.
    """

    function: ClassVar[Function]
    arity: ClassVar[int]
    defaults: ClassVar[dict[str, Any]] = {}
    predicate: ClassVar[bool] = False
    #: The result of the dtype's own arithmetic is already correctly rounded: no float64 needed.
    exact: ClassVar[bool] = False

    def attributes(self, node: ir.Node) -> dict[str, Any]:
        """Every attribute of the row, as the node has it or by default."""
        if not self.defaults:
            return {}
        found = node.attributes
        return {key: (found[key].value if key in found else value) for key, value in self.defaults.items()}

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The broadcast shape."""
        first = need(node, inputs, 0)
        shape, dtype = first.shape, first.dtype
        for i in range(1, self.arity):
            other = need(node, inputs, i)
            if other.dtype != dtype:
                raise _dtype_error(node, dtype, other.dtype)
            if other.shape != shape:
                shape = broadcast(node, shape, other.shape)
        return [Facts(BOOL if self.predicate else dtype, shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The row's function, computed in float64 unless it is exact."""
        arrays = [present(inputs, i) for i in range(self.arity)]
        dtype = arrays[0].dtype
        function, attributes = type(self).function, self.attributes(node)
        made = BOOL if self.predicate else dtype
        with np.errstate(all="ignore"):
            if self.exact and is_native(dtype):
                return [rounded(function(*arrays, **attributes), made)]
            if max([a.size for a in arrays]) > _BLOCK:
                return [_by_rows(arrays, made, lambda *parts: function(*map(widen, parts), **attributes))]
            return [rounded(function(*map(widen, arrays), **attributes), made)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A step of a fused kernel."""
        attrs: list[tuple[str, Any]] = []
        if self.defaults:
            found = node.attributes
            for name, default in self.defaults.items():
                if name in found and found[name].value != default:
                    attrs.append((name, found[name].value))
        operands = [v for v in node.inputs if v is not None]
        return plan.wait(node.outputs[0], self.name, operands, tuple(attrs))

    def is_by_image(self, node: ir.Node, inputs: Sequence[Facts | None]) -> bool:
        """Always, of operands that are."""
        del node
        return have_no_images(inputs)


def _by_rows(arrays: Sequence[Array], dtype: DType, function: Function) -> Array:
    """A function of broadcast arrays, some rows at a time: float64 takes only as much memory as those."""
    shape = np.broadcast_shapes(*[a.shape for a in arrays])
    result = np.empty(shape, dtype)
    rows = max(_BLOCK * shape[0] // max(result.size, 1), 1)
    for start in range(0, shape[0], rows):
        stop = start + rows
        parts = [a if a.ndim < len(shape) or a.shape[0] == 1 else a[start:stop] for a in arrays]
        result[start:stop] = rounded(function(*parts), dtype)
    return result


def _held(numbers: Array, dtype: DType) -> Array | None:
    """Constants of another dtype in this one, if it holds them all."""
    if numbers.dtype == dtype or numbers.size > _BLOCK:
        return None
    with np.errstate(all="ignore"):
        own = numbers.astype(dtype)
        is_held = (own.astype(np.float64) == numbers) & (np.abs(own) < _WHOLE)
    return own if is_held.all() else None


def _square(x: Array) -> Array:
    return np.square(widen(x))


def _dtype_error(node: ir.Node, a: DType, b: DType) -> ModelError:
    return ModelError(
        f"{label(node)}: inputs have dtypes {a} and {b}, and must have one. Insert a Cast before it."
    )


def _row(
    name: str,
    since: int,
    function: Function,
    arity: int,
    *,
    predicate: bool = False,
    exact: bool = False,
    **defaults: Any,
) -> None:
    doc = function.__doc__ or f"{name}, element by element."
    cls = type(name, (Elementwise,), {"__doc__": doc, "__module__": __name__})
    cls.function, cls.arity, cls.defaults = staticmethod(function), arity, defaults
    cls.predicate, cls.exact, cls.quick = predicate, exact, exact
    add(cls, name, since)


# ---- functions that are more than one NumPy call -----------------------------------------------------------


def reciprocal(x: Array) -> Array:
    """1 / x."""
    return 1.0 / x


_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875

# name, since, f, arity
_row("Abs", 13, np.abs, 1, exact=True)
_row("Acos", 22, np.arccos, 1)
_row("Acosh", 22, np.arccosh, 1)
_row("Asin", 22, np.arcsin, 1)
_row("Asinh", 22, np.arcsinh, 1)
_row("Atan", 22, np.arctan, 1)
_row("Atanh", 22, np.arctanh, 1)
_row("BitwiseNot", 18, np.bitwise_not, 1, exact=True)
_row("Ceil", 13, np.ceil, 1, exact=True)
_row("Celu", 28, celu, 1, alpha=1.0)
_row("Cos", 22, np.cos, 1)
_row("Cosh", 22, np.cosh, 1)
_row("Elu", 22, elu, 1, alpha=1.0)
_row("Erf", 13, erf, 1)
_row("Exp", 13, np.exp, 1)
_row("Floor", 13, np.floor, 1, exact=True)
_row("Gelu", 20, gelu, 1, approximate="none")
_row("HardSigmoid", 22, hard_sigmoid, 1, alpha=HARD_ALPHA, beta=0.5)
_row("HardSwish", 22, hard_swish, 1)
_row("IsInf", 20, is_inf, 1, predicate=True, detect_negative=1, detect_positive=1)
_row("IsNaN", 20, np.isnan, 1, predicate=True)
_row("LeakyRelu", 16, leaky_relu, 1, alpha=LEAKY_ALPHA)
_row("Log", 13, np.log, 1)
_row("Mish", 22, mish, 1)
_row("Neg", 13, np.negative, 1, exact=True)
_row("Not", 1, np.logical_not, 1, exact=True)
_row("Reciprocal", 13, reciprocal, 1)
_row("Relu", 14, relu, 1, exact=True)
_row("Round", 22, np.rint, 1, exact=True)
_row("Selu", 22, selu, 1, alpha=_SELU_ALPHA, gamma=_SELU_GAMMA)
_row("Shrink", 9, shrink, 1, lambd=0.5, bias=0.0)
_row("Sigmoid", 13, sigmoid, 1)
_row("Sign", 13, np.sign, 1, exact=True)
_row("Sin", 22, np.sin, 1)
_row("Sinh", 22, np.sinh, 1)
_row("Softplus", 22, softplus, 1)
_row("Softsign", 22, softsign, 1)
_row("Sqrt", 13, np.sqrt, 1, exact=True)
_row("Swish", 24, swish, 1, alpha=1.0)
_row("Tan", 22, np.tan, 1)
_row("Tanh", 13, np.tanh, 1)
_row("ThresholdedRelu", 22, thresholded_relu, 1, alpha=1.0)

_row("Add", 14, np.add, 2, exact=True)
_row("And", 7, np.logical_and, 2, exact=True)
_row("BitShift", 28, bit_shift, 2, direction="LEFT")
_row("BitwiseAnd", 18, np.bitwise_and, 2, exact=True)
_row("BitwiseOr", 18, np.bitwise_or, 2, exact=True)
_row("BitwiseXor", 18, np.bitwise_xor, 2, exact=True)
_row("Div", 14, divide, 2, exact=True)
_row("Equal", 19, np.equal, 2, predicate=True, exact=True)
_row("Greater", 13, np.greater, 2, predicate=True, exact=True)
_row("GreaterOrEqual", 16, np.greater_equal, 2, predicate=True, exact=True)
_row("Less", 13, np.less, 2, predicate=True, exact=True)
_row("LessOrEqual", 16, np.less_equal, 2, predicate=True, exact=True)
_row("Mod", 28, modulo, 2, fmod=0)
_row("Mul", 14, np.multiply, 2, exact=True)
_row("Or", 7, np.logical_or, 2, exact=True)
_row("Sub", 14, np.subtract, 2, exact=True)
_row("SwiGLU", 28, swiglu, 2, alpha=1.0)
_row("Xor", 7, np.logical_xor, 2, exact=True)


# ---- rows that are not quite the table's -------------------------------------------------------------------


@register("Pow", since=15)
class Pow(Elementwise):
    """base ** exponent, in the base's dtype; the exponent may have another."""

    function = np.power
    arity = 2

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The broadcast shape, the base's dtype."""
        base, exponent = need(node, inputs, 0), need(node, inputs, 1)
        return [Facts(base.dtype, broadcast(node, base.shape, exponent.shape))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Integers to integers are exact; a negative exponent leaves 1, -1 or 0."""
        base, exponent = present(inputs, 0), present(inputs, 1)
        with np.errstate(all="ignore"):
            if is_integer(base.dtype) and is_integer(exponent.dtype):
                result = power(base, exponent)
            elif is_float(base.dtype) and exponent.shape == () and exponent.item() == 2:
                if base.size > _BLOCK:
                    return [_by_rows([base], base.dtype, _square)]
                result = _square(base)
            else:
                result = power(base.astype(FLOAT64), exponent.astype(FLOAT64))
        return [rounded(result, base.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Small whole exponents are products; any other is a step of its own."""
        base, exponent, value = node.inputs[0], plan.constant(node.inputs[1]), node.outputs[0]
        assert base is not None
        known = exponent.reshape(()).item() if exponent is not None and exponent.size == 1 else None
        facts = plan.facts(value)
        if known not in (1, 2, 3, 4) or plan.facts(base).shape != facts.shape or not is_float(facts.dtype):
            own = None if exponent is None or not is_float(facts.dtype) else _held(exponent, facts.dtype)
            if own is not None:  # an exponent of another dtype that the base's holds is one of that
                return plan.wait(value, self.name, [base, plan.known(own)])
            return super().lower(node, plan)
        if known == 1:
            return plan.wait(value, "Identity", [base])
        square = value if known == 2 else plan.intermediate(facts.shape, facts.dtype)
        done = plan.wait(square, "Mul", [base, base])
        return done and (known == 2 or plan.wait(value, "Mul", [square, base if known == 3 else square]))


@register("PRelu", since=16)
class PRelu(Elementwise):
    """x where it is not negative, slope · x elsewhere; the slope broadcasts to x."""

    function = staticmethod(prelu)
    arity = 2

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The shape of x."""
        x, slope = need(node, inputs, 0), need(node, inputs, 1)
        if slope.dtype != x.dtype:
            raise _dtype_error(node, x.dtype, slope.dtype)
        if broadcast(node, x.shape, slope.shape) != x.shape:
            raise shape_error(
                node, f"the slope {show(slope.shape)} does not broadcast to the input {show(x.shape)}"
            )
        return [Facts(x.dtype, x.shape)]


class Variadic(Op):
    """One or more inputs, broadcast and combined from left to right."""

    #: the operator of two inputs that combines them in a kernel
    pairwise: ClassVar[str]

    def combine(self, arrays: list[Array]) -> Array:
        """The combination, on arrays widened to float64."""
        raise NotImplementedError

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The broadcast shape."""
        facts = [need(node, inputs, i) for i in range(len(inputs) or 1)]
        for other in facts[1:]:
            if other.dtype != facts[0].dtype:
                raise _dtype_error(node, facts[0].dtype, other.dtype)
        return [Facts(facts[0].dtype, broadcast(node, *[f.shape for f in facts]))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """See `combine`."""
        arrays = [widen(present(inputs, i)) for i in range(len(inputs))]
        with np.errstate(all="ignore"):
            return [rounded(self.combine(arrays), present(inputs, 0).dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A chain of steps of two operands."""
        operands = [v for v in node.inputs if v is not None]
        return self.chain(node, plan, operands, node.outputs[0])

    def chain(self, node: ir.Node, plan: Lowering, operands: list[ir.Value], result: ir.Value) -> bool:
        """operands[0] ∘ operands[1] ∘ … as `result`."""
        if len(operands) == 1:
            return plan.wait(result, "Identity", operands)
        so_far = operands[0]
        for i, operand in enumerate(operands[1:], 2):
            both = [so_far, operand]
            facts = [plan.facts(v) for v in both]
            last = i == len(operands)
            shape = broadcast(node, facts[0].shape, facts[1].shape)
            so_far = result if last else plan.intermediate(shape, facts[0].dtype)
            if not plan.wait(so_far, self.pairwise, both):
                return False
        return True


def _fold_left(function: Function, arrays: list[Array]) -> Array:
    result = arrays[0]
    for array in arrays[1:]:
        result = function(result, array)
    return result


@register("Sum", since=13)
class Sum(Variadic):
    """a + b + …"""

    pairwise = "Add"

    def combine(self, arrays: list[Array]) -> Array:
        """A + b + …"""
        return _fold_left(np.add, arrays)


@register("Mean", since=13)
class Mean(Variadic):
    """(a + b + …) / n."""

    pairwise = "Add"

    def combine(self, arrays: list[Array]) -> Array:
        """(a + b + …) / n."""
        return _fold_left(np.add, arrays) / len(arrays)

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """The sum, divided."""
        operands = [v for v in node.inputs if v is not None]
        value = node.outputs[0]
        facts = plan.facts(value)
        total = plan.intermediate(facts.shape, facts.dtype)
        count = plan.known(np.array(len(operands), facts.dtype))
        return self.chain(node, plan, operands, total) and plan.wait(value, "Div", [total, count])


@register("Max", since=13)
class Max(Variadic):
    """The largest; NaN wins."""

    pairwise = "Max"

    def combine(self, arrays: list[Array]) -> Array:
        """The largest; NaN wins."""
        return maximum(*arrays)


@register("Min", since=13)
class Min(Variadic):
    """The smallest; NaN wins."""

    pairwise = "Min"

    def combine(self, arrays: list[Array]) -> Array:
        """The smallest; NaN wins."""
        return minimum(*arrays)


@register("Clip", since=13)
class Clip(Op):
    """min(max(x, low), high); both bounds are optional scalars, and high wins where low > high."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The shape of x."""
        x = need(node, inputs, 0)
        for bound in (given(inputs, 1), given(inputs, 2)):
            if bound is not None and bound.dtype != x.dtype:
                raise _dtype_error(node, x.dtype, bound.dtype)
            if bound is not None and any(size != 1 for size in bound.shape):
                raise shape_error(node, f"a bound has shape {show(bound.shape)}", "Bounds are scalars.")
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """NaN stays NaN."""
        x = y = present(inputs, 0)
        low, high = given(inputs, 1), given(inputs, 2)
        if low is not None:
            y = maximum(y, low.reshape(()))
        if high is not None:
            y = minimum(y, high.reshape(()))
        return [rounded(y, x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Max with the lower bound, then Min with the upper one, whichever are given."""
        x, value = node.inputs[0], node.outputs[0]
        assert x is not None
        bounds = [(op, b) for op, b in zip(("Max", "Min"), node.inputs[1:], strict=False) if b is not None]
        if not bounds:
            return plan.wait(value, "Identity", [x])
        facts, so_far = plan.facts(x), x
        for i, (op, bound) in enumerate(bounds, 1):
            target = value if i == len(bounds) else plan.intermediate(facts.shape, facts.dtype)
            if len(plan.facts(bound).shape) > len(facts.shape):  # one number all the same
                bound = plan.located(plan.view(bound).with_dims((), ()))
            if not plan.wait(target, op, [so_far, bound]):
                return False
            so_far = target
        return True

    def is_by_image(self, node: ir.Node, inputs: Sequence[Facts | None]) -> bool:
        """Always, of operands that are."""
        del node
        return have_no_images(inputs)


@register("Where", since=16)
class Where(Op):
    """a where the condition holds, b elsewhere, all three broadcast."""

    quick = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The broadcast shape of all three."""
        condition, a, b = (need(node, inputs, i) for i in range(3))
        if a.dtype != b.dtype:
            raise _dtype_error(node, a.dtype, b.dtype)
        if condition.dtype != BOOL:
            raise ModelError(
                f"{label(node)}: the condition has dtype {condition.dtype}, and must be bool. Cast it."
            )
        return [Facts(a.dtype, broadcast(node, condition.shape, a.shape, b.shape))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.where."""
        return [np.where(present(inputs, 0), present(inputs, 1), present(inputs, 2))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A step of a fused kernel."""
        return plan.wait(node.outputs[0], "Where", [v for v in node.inputs if v is not None])


@register("Dropout", since=22)
class Dropout(Op):
    """x and a mask of ones, outside training; training mode draws random numbers and is left to
    onnx.reference.
    """

    random = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The shape of x, twice."""
        x = need(node, inputs, 0)
        outputs: list[Facts | None] = [Facts(x.dtype, x.shape), Facts(BOOL, x.shape)]
        return outputs[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The identity unless `training_mode` is given and true."""
        training = given(inputs, 2)
        if training is not None and training.any():
            return super().evaluate(node, inputs)
        x = present(inputs, 0)
        return [x, np.ones(x.shape, BOOL)][: len(node.outputs)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """The same memory, and a truth value that is repeated, where training is off."""
        training = node.inputs[2] if len(node.inputs) > 2 else None
        switch = plan.constant(training)
        if training is not None and (switch is None or switch.any()):
            return False
        x = node.inputs[0]
        assert x is not None
        plan.alias(node.outputs[0], plan.view(x))
        if len(node.outputs) > 1:
            kept = constant(np.ones((), BOOL)).broadcast_to(plan.facts(x).shape)
            plan.alias(node.outputs[1], kept)
        return True


@register("Identity", since=25)
class Identity(Op):
    """y = x."""

    quick = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The same facts."""
        return [need(node, inputs, 0)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The same array, sequence or map; None is an absent optional."""
        return cast("list[Array]", [inputs[0]])

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """The same memory."""
        x = node.inputs[0]
        assert x is not None
        plan.alias(node.outputs[0], plan.view(x))
        return True
