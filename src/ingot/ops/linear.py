"""Products of matrices: MatMul, Gemm, Einsum. Floats are multiplied in float64 and rounded once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    attr_float,
    attr_int,
    attr_str,
    broadcast,
    given,
    need,
    present,
    register,
    shape_error,
    show,
)

Outputs = list[Facts | None] | None


def matmul_shape(node: ir.Node, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of NumPy's matmul: vectors get a dimension that the result drops again, the others broadcast."""
    if not a or not b:
        raise shape_error(node, f"inputs {show(a)} and {show(b)}: a scalar cannot be multiplied as a matrix")
    left = a if len(a) > 1 else (1, *a)
    right = b if len(b) > 1 else (*b, 1)
    if left[-1] != right[-2]:
        raise shape_error(node, f"inputs {show(a)} and {show(b)}: {left[-1]} columns meet {right[-2]} rows")
    batch = left[:-2] if left[:-2] == right[:-2] else broadcast(node, left[:-2], right[:-2])
    rows = () if len(a) == 1 else (left[-2],)
    columns = () if len(b) == 1 else (right[-1],)
    return batch + rows + columns


@register("MatMul", since=13)
class MatMul(Op):
    """a @ b, as np.matmul."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """See `matmul_shape`."""
        a, b = need(node, inputs, 0), need(node, inputs, 1)
        return [Facts(a.dtype, matmul_shape(node, a.shape, b.shape))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.matmul."""
        a, b = present(inputs, 0), present(inputs, 1)
        with np.errstate(all="ignore"):
            return [rounded(np.matmul(widen(a), widen(b)), a.dtype)]


@register("Gemm", since=13)
class Gemm(Op):
    """alpha · a' @ b' + beta · c, with a' and b' transposed where the node says so."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[rows of a', columns of b']; c must broadcast to it."""
        a, b, c = need(node, inputs, 0), need(node, inputs, 1), given(inputs, 2)
        if len(a.shape) != 2 or len(b.shape) != 2:
            raise shape_error(node, f"inputs {show(a.shape)} and {show(b.shape)} must both be matrices")
        m, k = a.shape[::-1] if attr_int(node, "transA", 0) else a.shape
        k2, n = b.shape[::-1] if attr_int(node, "transB", 0) else b.shape
        if k != k2:
            raise shape_error(node, f"inputs {show(a.shape)} and {show(b.shape)}: {k} columns meet {k2} rows")
        if c is not None and c.shape != (n,) and broadcast(node, c.shape, (m, n)) != (m, n):
            raise shape_error(node, f"the third input {show(c.shape)} does not broadcast to {show((m, n))}")
        return [Facts(a.dtype, (m, n))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """All of it in float64; an integer Gemm with factors of 1 stays in its own type."""
        a, b, c = present(inputs, 0), present(inputs, 1), given(inputs, 2)
        left = widen(a).T if attr_int(node, "transA", 0) else widen(a)
        right = widen(b).T if attr_int(node, "transB", 0) else widen(b)
        alpha, beta = attr_float(node, "alpha", 1.0), attr_float(node, "beta", 1.0)
        with np.errstate(all="ignore"):
            y = left @ right
            y = y if alpha == 1.0 else y * alpha
            if c is not None:
                y = y + (widen(c) if beta == 1.0 else widen(c) * beta)
            return [rounded(y, a.dtype)]


def einsum_terms(equation: str, ranks: Sequence[int]) -> tuple[list[str], str] | None:
    """The subscripts of each input and of the output, with "..." spelled out in capitals of its own; None if malformed.

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
        return [Facts(facts[0].dtype, tuple([sizes[letter] for letter in terms[1]]))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.einsum."""
        arrays = [present(inputs, i) for i in range(len(inputs))]
        equation = attr_str(node, "equation", "").replace(" ", "")
        with np.errstate(all="ignore"):
            return [rounded(np.einsum(equation, *[widen(a) for a in arrays], optimize=True), arrays[0].dtype)]
