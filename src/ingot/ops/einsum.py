"""Einsum: sums of products over any subscripts, two operands at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ingot.kernels.call import View as Memory
from ingot.kernels.call import constant
from ingot.kernels.contract import name_of
from ingot.kernels.contraction import DTYPES, Dim, contraction
from ingot.kernels.gemm import matmul
from ingot.ops.linear import in_float32
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_str,
    need,
    present,
    register,
    shape_error,
    show,
)


def einsum_terms(equation: str, ranks: Sequence[int]) -> tuple[list[str], str] | None:
    """The subscripts of each input and of the output, with "..." spelled out in capitals of its own; None if
    malformed.

    Without "->" the output has the letters that occur once, in alphabetical order, after the ellipsis.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        return None
    used = set(equation)
    spare = [c for c in map(chr, range(0x4E00, 0x4E40)) if c not in used]
    widest = max(
        [
            rank - len(term.replace("...", ""))
            for term, rank in zip(terms, ranks, strict=True)
            if "..." in term
        ],
        default=0,
    )
    if widest < 0 or widest > len(spare):
        return None
    spelled: list[str] = []
    for term, rank in zip(terms, ranks, strict=True):
        count = rank - len(term.replace("...", ""))
        if count < 0 or ("..." not in term and count):
            return None
        spelled.append(term.replace("...", "".join(spare[widest - count : widest])))
    ellipsis = "".join(spare[:widest])
    if arrow:
        return spelled, right.replace("...", ellipsis)
    letters = [c for c in left if c.isalpha()]
    return spelled, ellipsis + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))


@register("Einsum", since=28)
class Einsum(Op):
    """Products summed over the subscripts that the output does not have."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """One size for each subscript; 1 broadcasts."""
        facts = [need(node, inputs, i) for i in range(len(inputs) or 1)]
        equation = attr_str(node, "equation", "")
        terms = einsum_terms(equation, [len(f.shape) for f in facts])
        if terms is None:
            raise shape_error(node, f"equation {equation!r} does not fit {[show(f.shape) for f in facts]}")
        sizes: dict[str, int] = {}
        for term, fact in zip(terms[0], facts, strict=True):
            for letter, size in zip(term, fact.shape, strict=True):
                known = sizes.setdefault(letter, size)
                if known == 1:
                    sizes[letter] = size
                elif size not in (1, known):
                    raise shape_error(
                        node, f"equation {equation!r}: subscript {letter!r} is {known} and {size}"
                    )
        wrong = [c for c in terms[1] if c not in sizes or terms[1].count(c) > 1]
        if wrong:
            found = "twice in the output" if wrong[0] in sizes else "in the output and in no input"
            raise shape_error(
                node,
                f"equation {equation!r}: subscript {wrong[0]!r} is {found}",
                "Have it once, and in an input.",
            )
        return [Facts(facts[0].dtype, tuple([sizes[letter] for letter in terms[1]]))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.einsum."""
        arrays = [present(inputs, i) for i in range(len(inputs))]
        equation = attr_str(node, "equation", "").replace(" ", "")
        with np.errstate(all="ignore"):
            return [rounded(np.einsum(equation, *[widen(a) for a in arrays], optimize=True), arrays[0].dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Products of two operands at a time. What no matrix product is (a subscript twice in an operand, one
        that only a single operand has and the output has not, sizes of 1 that repeat) and other dtypes than
        those computed in float32 are sums over any dimensions.
        """
        values = [value for value in node.inputs if value is not None]
        facts = [plan.facts(value) for value in values]
        equation = attr_str(node, "equation", "").replace(" ", "")
        terms = einsum_terms(equation, [len(f.shape) for f in facts])
        dtype = facts[0].dtype
        if terms is None or name_of(dtype) not in DTYPES or any(f.dtype != dtype for f in facts):
            return False
        inputs, output = terms
        if not in_float32(dtype) or not _is_product(inputs, output, [f.shape for f in facts]):
            _sum_products(plan, node.outputs[0], values, equation, inputs, output)
            return True
        known = [plan.constant(value) is not None for value in values]
        factors = [_Factor(plan.view(v), term, k) for v, term, k in zip(values, inputs, known, strict=True)]
        for group in _pairs(equation, [f.shape for f in facts]):
            taken = [factors[i] for i in group]
            factors = [f for i, f in enumerate(factors) if i not in group]
            while len(taken) > 1:
                a, b = taken.pop(0), taken.pop(0)
                needed = output + "".join(f.term for f in taken + factors)
                taken.insert(0, _contract(plan, a, b, needed))
            factors += taken
        (result,) = factors
        plan.alias(node.outputs[0], result.view.transpose([result.term.index(c) for c in output]))
        return True


def _sum_products(
    plan: Lowering,
    value: ir.Value,
    values: Sequence[ir.Value],
    equation: str,
    inputs: Sequence[str],
    output: str,
) -> None:
    """An Einsum of any subscripts: a diagonal is a sum of strides, and what is repeated has none."""
    shapes = [plan.facts(v).shape for v in values]
    size = dict[str, int]()
    for term, shape in zip(inputs, shapes, strict=True):
        for letter, n in zip(term, shape, strict=True):
            size[letter] = n if size.get(letter, 1) == 1 else size[letter]
    left = [(plan.view(v), _steps(plan.view(v), term)) for v, term in zip(values, inputs, strict=True)]
    groups = [(0, 1)] * (len(left) - 1) if len(left) < 3 else _pairs(equation, shapes)
    one = constant(np.ones((), left[0][0].dtype))
    if len(left) == 1:
        left.append((one, {}))
        groups = [(0, 1)]
    for number, group in enumerate(groups):
        taken = [left[i] for i in group]
        left = [f for i, f in enumerate(left) if i not in group]
        while len(taken) > 1:
            (a, mine), (b, yours) = taken.pop(0), taken.pop(0)
            is_last = number == len(groups) - 1 and not taken
            needed = {*output, *(c for _, steps in left + taken for c in steps)}
            letters = [*output] if is_last else [c for c in {**mine, **yours} if c in needed]
            shape = [size[c] for c in letters]
            out = plan.output(value) if is_last else plan.temporary(shape, a.dtype)
            steps = dict(zip(letters, out.strides, strict=True))
            every = dict.fromkeys((*mine, *yours, *steps))
            dims = [Dim(size[c], mine.get(c, 0), yours.get(c, 0), steps.get(c)) for c in every]
            plan.emit(contraction(a, b, out, dims, plan.machine))
            taken.insert(0, (out, steps))
        left += taken


def _steps(view: Memory, term: str) -> dict[str, int]:
    """The stride of each subscript: none where its size here is 1, the sum where it stands twice."""
    steps = dict.fromkeys(term, 0)
    for letter, n, stride in zip(term, view.shape, view.strides, strict=True):
        steps[letter] += stride if n > 1 else 0
    return steps


@dataclass(frozen=True, slots=True)
class _Factor:
    """An operand of an Einsum, its subscripts, and whether it is a constant."""

    view: Memory
    term: str
    constant: bool = False


def _is_product(inputs: Sequence[str], output: str, shapes: Sequence[tuple[int, ...]]) -> bool:
    sizes: dict[str, int] = {}
    for term, shape in zip(inputs, shapes, strict=True):
        if len(set(term)) != len(term):
            return False
        if any(sizes.setdefault(c, n) != n for c, n in zip(term, shape, strict=True)):
            return False
    return all(c in output or sum(c in term for term in inputs) > 1 for c in sizes)


def _pairs(equation: str, shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Which operands to contract next, in NumPy's order of least work; results go to the end of the list."""
    if len(shapes) < 3:
        return [tuple(range(len(shapes)))]
    one = np.zeros(())
    return np.einsum_path(equation, *[np.broadcast_to(one, s) for s in shapes], optimize="greedy")[0][1:]


def _contract(plan: Lowering, a: _Factor, b: _Factor, needed: str) -> _Factor:
    """The product of two operands, summed over their common subscripts that nobody needs any more."""
    if a.constant and not b.constant:
        a, b = b, a  # a thread packs its own part of the first factor, the second is packed as a whole
    batch = [c for c in a.term if c in b.term and c in needed]
    summed = [c for c in a.term if c in b.term and c not in needed]
    rows = [c for c in a.term if c not in b.term]
    columns = [c for c in b.term if c not in a.term]
    size = dict(zip(a.term + b.term, a.view.shape + b.view.shape, strict=True))
    left = _matrices(plan, a, batch, rows, summed)
    right = _matrices(plan, b, batch, summed, columns)
    letters = [*batch, *rows, *columns]
    dense = plan.temporary([size[c] for c in letters], a.view.dtype)
    out = _grouped(dense, len(batch), len(rows))
    assert out is not None
    plan.emit(matmul(left, right, out, None, plan.machine))
    return _Factor(dense, "".join(letters))


def _matrices(
    plan: Lowering, factor: _Factor, batch: list[str], rows: list[str], columns: list[str]
) -> Memory:
    """The operand as [batch..., rows, columns], copied where its strides do not allow it."""
    view = factor.view.transpose([factor.term.index(c) for c in [*batch, *rows, *columns]])
    matrices = _grouped(view, len(batch), len(rows))
    if matrices is None:
        matrices = _grouped(plan.copied(view), len(batch), len(rows))
    assert matrices is not None
    return matrices


def _grouped(view: Memory, batch: int, rows: int) -> Memory | None:
    shape = view.shape
    tall, wide = math.prod(shape[batch : batch + rows]), math.prod(shape[batch + rows :])
    return view.reshape((*shape[:batch], tall, wide))
