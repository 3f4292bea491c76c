"""Expressions: what a fused kernel computes for each element, as a hashable value with its own meaning.

An expression is a list of steps over leaves. `evaluate` is its plain definition in NumPy; `emit` writes the
same into a kernel, on vectors in registers. It knows the operators of `operations.OPERATIONS` and no graph.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingot.codegen.builder import Builder, Value
from ingot.codegen.elements import DTYPES, INTEGERS, is_float, register_type
from ingot.codegen.machine import Machine
from ingot.kernels.definitions import numpy_dtype, to_integer
from ingot.kernels.operations import OPERATIONS, power_of


class _NegativeZero(float):
    """-0.0 as an attribute: Python finds it equal to 0.0, and would take one's code for the other's."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NegativeZero)

    def __hash__(self) -> int:
        return hash("-0.0")


@dataclass(frozen=True, slots=True)
class Step:
    """One operator: `op` is ONNX's name, or "Constant" with the attribute `value`.

    `operands` are ids: first the expression's leaves, then its steps. `dtype` is the result's. `attrs` are
    (name, value) pairs; those that have ONNX's default may be left out.
    """

    op: str
    operands: tuple[int, ...]
    dtype: str
    attrs: tuple[tuple[str, Any], ...] = ()
    _hash: int = field(init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        return self._hash

    def __post_init__(self) -> None:
        if self.attrs and any(
            type(value) is float and value == 0 and math.copysign(1, value) < 0 for _, value in self.attrs
        ):
            attrs = tuple((name, _NegativeZero(v) if str(v) == "-0.0" else v) for name, v in self.attrs)
            object.__setattr__(self, "attrs", attrs)
        object.__setattr__(self, "_hash", hash((self.op, self.operands, self.dtype, self.attrs)))


@functools.lru_cache(4096)
def plain_step(op: str, operands: tuple[int, ...], dtype: str) -> Step:
    """A step without attributes, made once for all expressions that have it."""
    return Step(op, operands, dtype)


@dataclass(frozen=True, slots=True)
class Expression:
    """Scalar code: `leaves` are the dtypes of its operands, `results` the ids of what it returns."""

    leaves: tuple[str, ...]
    steps: tuple[Step, ...]
    results: tuple[int, ...]
    #: the dtypes of what it returns
    result_dtypes: tuple[str, ...] = field(init=False, repr=False, compare=False)
    #: bytes of its largest register element
    widest: int = field(init=False, repr=False, compare=False)
    #: its instructions on one vector, roughly
    weight: int = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        return self._hash

    def __post_init__(self) -> None:
        for i, step in enumerate(self.steps):
            if not all(0 <= operand < len(self.leaves) + i for operand in step.operands):
                raise ValueError(
                    f"step {i} ({step.op}) uses a value that is not computed before it: {step.operands}"
                )
            if step.op not in OPERATIONS:
                raise ValueError(f"step {i}: no expression computes {step.op}; ask supports() first")
        if not all(0 <= result < len(self.leaves) + len(self.steps) for result in self.results):
            raise ValueError(f"results {self.results} are not all values of the expression")
        # Computed once: plans ask for these again and again.
        dtypes = [*self.leaves, *(step.dtype for step in self.steps)]
        widest = max([8 if d in ("float64", "int64", "uint64") else 4 for d in dtypes], default=4)
        weight = sum(OPERATIONS[step.op].weight for step in self.steps)
        for name, value in (
            ("result_dtypes", tuple(self.dtype(i) for i in self.results)),
            ("widest", widest),
            ("weight", weight),
            ("_hash", hash((self.leaves, self.steps, self.results))),
        ):
            object.__setattr__(self, name, value)

    def dtype(self, identity: int) -> str:
        """The dtype of a value by its id."""
        leaves = len(self.leaves)
        return self.leaves[identity] if identity < leaves else self.steps[identity - leaves].dtype


@functools.lru_cache(4096)
def expression_of(leaves: tuple[str, ...], steps: tuple[Step, ...], results: tuple[int, ...]) -> Expression:
    """The expression, checked once for all plans that have it."""
    return Expression(leaves, steps, results)


@functools.cache
def identity(dtype: str) -> Expression:
    """x -> x."""
    return Expression((dtype,), (), (0,))


def converted(expression: Expression, dtype: str) -> Expression:
    """The expression with its one result in another dtype; itself where it has that already."""
    if expression.result_dtypes == (dtype,):
        return expression
    last = len(expression.leaves) + len(expression.steps)
    step = plain_step("Cast", expression.results, dtype)
    return expression_of(expression.leaves, (*expression.steps, step), (last,))


def supports(
    op: str, dtypes: Sequence[str], dtype: str | None = None, attrs: dict[str, Any] | None = None
) -> bool:
    """Whether an expression can compute `op` on operands of `dtypes`; `dtype` is the result's, or theirs."""
    return supports_step(op, tuple(dtypes), dtype, tuple(attrs.items()) if attrs else ())


@functools.lru_cache(4096)
def supports_step(
    op: str, dtypes: tuple[str, ...], dtype: str | None, attrs: tuple[tuple[str, Any], ...]
) -> bool:
    """Like `supports`, for attributes as a step has them: asked once for all steps that are alike."""
    operation = OPERATIONS.get(op)
    if operation is None or not all(d in DTYPES for d in (*dtypes, *([dtype] if dtype else []))):
        return False
    return operation.accepts(dtypes, dtype or dtypes[0], dict(attrs))


def evaluate(expression: Expression, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The plain definition: floats in float64 throughout, rounded to the results' dtypes at the end."""
    values = [
        a.astype(np.float64) if is_float(d) else np.asarray(a)
        for a, d in zip(arrays, expression.leaves, strict=True)
    ]
    with np.errstate(all="ignore"):
        for step in expression.steps:
            operands = [values[i] for i in step.operands]
            operation, attrs = OPERATIONS[step.op], dict(step.attrs)
            if operation.typed:
                dtypes = tuple(expression.dtype(i) for i in step.operands)
                attrs |= {"dtypes": dtypes, "dtype": step.dtype}
            result = np.asarray(operation.define(*operands, **attrs))
            if result.dtype.kind == "f" and step.dtype in INTEGERS:
                values.append(to_integer(result, step.dtype))
            else:
                values.append(result.astype(np.float64 if is_float(step.dtype) else numpy_dtype(step.dtype)))
        return [values[i].astype(numpy_dtype(expression.dtype(i))) for i in expression.results]


def _constant(expression: Expression, value: int) -> float | None:
    """The number that a value of the expression always is, if it is known."""
    step = expression.steps[value - len(expression.leaves)] if value >= len(expression.leaves) else None
    return dict(step.attrs)["value"] if step is not None and step.op == "Constant" else None


def emit(k: Builder, expression: Expression, leaves: Sequence[Value], lanes: int) -> list[Value]:
    """Code for one vector: `leaves` and the results are register values (see codegen.elements)."""
    values = list(leaves)
    for step in expression.steps:
        operands = [values[i] for i in step.operands]
        dtypes = tuple(expression.dtype(i) for i in step.operands)
        if step.op == "Constant":
            values.append(k.splat(dict(step.attrs)["value"], register_type(step.dtype, lanes)))
            continue
        if step.op == "Pow" and (exponent := _constant(expression, step.operands[1])) is not None:
            short = power_of(k, values[step.operands[0]], exponent)
            if short is not None:
                values.append(short)
                continue
        values.append(OPERATIONS[step.op].emit(k, operands, dtypes, step.dtype, dict(step.attrs)))
    return [values[i] for i in expression.results]


#: Instructions from which on an expression is long: written out less often, for several vectors at a time.
LONG = 12

#: What branches on the lanes of a vector, or calls a function for each of them.
_BRANCHING = frozenset({"Sin", "Cos", "Tan", "Pow", "Mod"})


def joined(expression: Expression, machine: Machine) -> int:
    """For how many vectors `emit_vectors` computes it at a time."""
    if expression.weight < LONG or machine.registers >= 32 or not machine.fma:
        return 1
    return 1 if any(step.op in _BRANCHING for step in expression.steps) else 2


def emit_vectors(
    k: Builder, expression: Expression, leaves: Sequence[Sequence[Value]], lanes: int
) -> list[list[Value]]:
    """Code for several vectors: the leaves and the results of each. Long expressions are computed for some of
    them as one vector of more lanes, which LLVM takes apart instruction by instruction.

    Their chains of instructions then overlap in cores that look few instructions ahead. Measured on a Zen 3
    (64 of them): 15 to 25 % of SiLU, Tanh and GELU.
    """
    most, results = joined(expression, k.machine), list[list[Value]]()
    for first in range(0, len(leaves), most):
        together = leaves[first : first + most]
        if len(together) == 1:
            results.append(emit(k, expression, together[0], lanes))
            continue
        whole = [k.concatenate(values) for values in zip(*together, strict=True)]
        found = emit(k, expression, whole, lanes * len(together))
        results += [[k.part(value, i * lanes, lanes) for value in found] for i in range(len(together))]
    return results
