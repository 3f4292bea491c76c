"""Linear algebra by elimination: LU, determinant, inverse, solve, Cholesky, QR by reflections. One loop each.

Matrices of any batch are worked on together as [b, n, m]; a turn of the loop updates all of them at once.
"""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture import fakes
from ingot.capture.aten.loops import loop
from ingot.capture.aten.registry import composed, row
from ingot.capture.graph import GraphWriter
from ingot.capture.tensors import dtype_of

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
_INT = ir.DataType.INT64
_BOOL = ir.DataType.BOOL


_DECOMPOSED = "the matrix can be decomposed (not singular, or positive definite)"


def relies_on_success(g: Recorder, what: str) -> None:
    """torch raises where a decomposition fails; the exported model gives NaN or infinity there."""
    g.assume("values", f"{what}: PyTorch raises where not, the exported model gives NaN or infinity", "fixed")


def _batched(g: Recorder, x: ir.Value, a: Tensor) -> ir.Value:
    """[.., n, m] as [b, n, m]."""
    if a.dim() == 3:
        return x
    return g.op("Reshape", x, g.shape([_count(a), *a.shape[-2:]]), allowzero=1)


def smaller(n: Any, m: Any) -> Any:
    """The smaller of two sizes."""
    return torch.sym_min(n, m)


def _count(a: Tensor) -> Any:
    count: Any = 1
    for n in a.shape[:-2]:
        count = count * n
    return count


def _like(g: Recorder, x: ir.Value, shape: Any) -> ir.Value:
    """[b, ..] back in a shape of torch's."""
    return g.op("Reshape", x, g.shape(list(shape)), allowzero=1)


def bound(g: Recorder, shape: Any, dtype: torch.dtype, value: ir.Value) -> Tensor:
    """A tensor of the recording with this value."""
    made = fakes.fresh(g.mode, list(shape), dtype, torch.device("cpu"))
    g.bind(made, value)
    return made


def _line(b: GraphWriter, x: ir.Value, k: ir.Value, axis: int) -> ir.Value:
    """Row or column k, its axis kept."""
    return b.op("Gather", x, b.op("Unsqueeze", k, b.const([0])), axis=axis)


def _positions(b: GraphWriter, x: ir.Value, axis: int) -> ir.Value:
    """0, 1 … along an axis of [b, n, m], to stand against it."""
    size = b.op("Squeeze", b.op("Shape", x, start=axis, end=axis + 1), b.const([0]))
    i = b.op("Range", b.const(0), size, b.const(1))
    return b.op("Unsqueeze", i, b.const([0, 2] if axis == 1 else [0, 1]))


# -- LU


def lu_packed(g: Recorder, a: Tensor, pivot: bool = True) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
    """L below the diagonal and U on and above it as [b, n, m]; the rows' order [b, n]; its sign [b]; and each
    step's pivot [b, n], as LAPACK counts them but from 0.
    """
    key = ("lu", id(g.val(a)), pivot)
    known = g.memo.get(key)
    if known is not None:
        return known
    dtype = dtype_of(a.dtype)
    n, m = a.shape[-2], a.shape[-1]
    x = _batched(g, g.val(a), a)
    batch = g.op("Shape", x, start=0, end=1)
    rows = g.op("Range", g.const(0), g.operand(n, torch.int64), g.const(1))
    order = g.op("Expand", rows, g.op("Concat", batch, g.sizes.dim(n), axis=0))
    sign = g.op("Expand", g.const(1.0, a.dtype), batch)

    def body(
        b: GraphWriter, k: ir.Value, x: ir.Value, order: ir.Value, sign: ir.Value, pivots: ir.Value
    ) -> list[ir.Value]:
        i, j = _positions(b, x, 1), _positions(b, x, 2)
        below = b.op("Greater", i, k)
        if pivot:
            size = b.op("Where", b.op("Less", i, k), b.const(-1.0, dtype), b.op("Abs", _line(b, x, k, 2)))
            at = b.op("ArgMax", size, axis=1, keepdims=1)  # [b, 1, 1]
            swap = b.op("Where", b.op("Equal", i, at), k, b.op("Where", b.op("Equal", i, k), at, i))
            x = b.op("GatherElements", x, b.op("Expand", swap, b.op("Shape", x)), axis=1)
            order = b.op("GatherElements", order, b.op("Squeeze", swap, b.const([2])), axis=1)
            moved = b.op("Not", b.op("Equal", b.op("Squeeze", at, b.const([1, 2])), k))
            sign = b.op("Where", moved, b.op("Neg", sign), sign)
            here = b.op("Equal", b.op("Squeeze", i, b.const([2])), k)
            pivots = b.op("Where", here, b.op("Squeeze", at, b.const([2])), pivots)
        top = _line(b, x, k, 1)  # [b, 1, m]
        head = _line(b, top, k, 2)
        column = _line(b, x, k, 2)
        zero = b.const(0.0, dtype)
        # LAPACK leaves a column of zeros alone.
        safe = b.op("Where", b.op("Equal", head, zero), b.const(1.0, dtype), head)
        factor = b.op("Where", below, b.op("Div", column, safe), zero)
        right = b.op("Where", b.op("Greater", j, k), top, zero)
        x = b.op("Sub", x, b.op("Mul", factor, right))
        first = b.op("And", below, b.op("Equal", j, k))
        return [b.op("Where", first, factor, x), order, sign, pivots]

    steps = g.operand(smaller(n, m), torch.int64)
    kinds = [dtype, _INT, dtype, _INT]
    made = loop(g, steps, [x, order, sign, order], kinds, [3, 2, 1, 2], body)
    known = g.memo[key] = (made[0], made[1], made[2], made[3])
    return known


def triangular(
    g: Recorder, a: ir.Value, rhs: ir.Value, n: Any, dtype: torch.dtype, upper: bool, unit: bool
) -> ir.Value:
    """x with a x = rhs, for triangles [b, n, n] and right sides [b, n, k]; the other triangle is not read."""
    kind = dtype_of(dtype)

    def body(b: GraphWriter, turn: ir.Value, a: ir.Value, x: ir.Value) -> list[ir.Value]:
        k = turn
        if upper:
            size = b.op("Squeeze", b.op("Shape", a, start=1, end=2), b.const([0]))
            k = b.op("Sub", b.op("Sub", size, b.const(1)), turn)
        i = _positions(b, a, 1)
        column, line = _line(b, a, k, 2), _line(b, x, k, 1)
        if not unit:
            line = b.op("Div", line, _line(b, column, k, 1))
        later = b.op("Less" if upper else "Greater", i, k)
        zero = b.const(0.0, kind)
        x = b.op("Sub", x, b.op("Mul", b.op("Where", later, column, zero), line))
        return [a, b.op("Where", b.op("Equal", i, k), line, x)]

    return loop(g, g.operand(n, torch.int64), [a, rhs], [kind, kind], [3, 3], body)[1]


def _permuted(g: Recorder, order: ir.Value, rhs: ir.Value) -> ir.Value:
    """Rows of [b, n, k] in the order [b, n]."""
    wide = g.op("Expand", g.op("Unsqueeze", order, g.const([2])), g.op("Shape", rhs))
    return g.op("GatherElements", rhs, wide, axis=1)


def _identity(g: Recorder, n: Any, batch: ir.Value, dtype: torch.dtype) -> ir.Value:
    rows = g.op("Range", g.const(0), g.operand(n, torch.int64), g.const(1))
    eye = g.cast(g.op("Equal", g.op("Unsqueeze", rows, g.const([1])), rows), torch.bool, dtype)
    return g.op("Expand", eye, g.op("Concat", batch, g.shape([n, n]), axis=0))


def _solved(g: Recorder, a: Tensor, rhs: ir.Value) -> ir.Value:
    """x with a x = rhs; rhs is [b, n, k]."""
    packed, order, _, _ = lu_packed(g, a)
    y = triangular(g, packed, _permuted(g, order, rhs), a.shape[-1], a.dtype, False, True)
    return triangular(g, packed, y, a.shape[-1], a.dtype, True, False)


def _diagonal(g: Recorder, packed: ir.Value, dtype: torch.dtype) -> ir.Value:
    """[b, n] of [b, n, n]."""
    shape = g.op("Shape", packed, start=1, end=2)
    rows = g.op("Range", g.const(0), g.op("Squeeze", shape, g.const([0])), g.const(1))
    eye = g.op("Equal", g.op("Unsqueeze", rows, g.const([1])), rows)
    return g.op("ReduceSum", g.op("Where", eye, packed, g.const(0.0, dtype)), g.const([2]), keepdims=0)


def _info(g: Recorder, out: Tensor, bad: ir.Value) -> ir.Value:
    """LAPACK's info: 0, or which step failed first, counted from 1; `bad` is [b, n]."""
    number = g.cast(bad, torch.bool, torch.int32)
    first = g.op("Add", g.op("ArgMax", number, axis=1, keepdims=0), g.const(1))
    any_bad = g.op("ReduceMax", number, g.const([1]), keepdims=0)
    info = g.op("Mul", g.cast(first, torch.int64, torch.int32), any_bad)
    return _like(g, info, out.shape)


def _singular(g: Recorder, packed: ir.Value, dtype: torch.dtype) -> ir.Value:
    return g.op("Equal", _diagonal(g, packed, dtype), g.const(0.0, dtype))


def _nothing(g: Recorder, out: Any, ones: bool = False) -> Any:
    """Results of matrices without elements."""
    if isinstance(out, Tensor):
        return g.op("Expand", g.const(1 if ones else 0, out.dtype), g.shape(out.shape))
    return [_nothing(g, o, ones) for o in out]


@row("_linalg_check_errors")
def check_errors(g: Recorder, out: Any, *args: Any, **kwargs: Any) -> list[ir.Value]:
    """torch raises here when a decomposition failed."""
    relies_on_success(g, _DECOMPOSED)
    return []


@row("_linalg_det")
def det(g: Recorder, out: Any, a: Tensor) -> list[ir.Value | None]:
    """The product of U's diagonal, with the sign of the row exchanges."""
    if g.is_empty(a):
        return [_nothing(g, out[0], True), None, None]
    packed, _, sign, _ = lu_packed(g, a)
    value = g.op("Mul", sign, g.op("ReduceProd", _diagonal(g, packed, a.dtype), g.const([1]), keepdims=0))
    return [_like(g, value, out[0].shape), None, None]


@row("_linalg_slogdet")
def slogdet(g: Recorder, out: Any, a: Tensor) -> list[ir.Value | None]:
    """Sign and logarithm of the determinant."""
    if g.is_empty(a):
        return [_nothing(g, out[0], True), _nothing(g, out[1]), None, None]
    packed, _, sign, _ = lu_packed(g, a)
    diagonal = _diagonal(g, packed, a.dtype)
    signs = g.op("ReduceProd", g.op("Sign", diagonal), g.const([1]), keepdims=0)
    logs = g.op("ReduceSum", g.op("Log", g.op("Abs", diagonal)), g.const([1]), keepdims=0)
    return [_like(g, g.op("Mul", sign, signs), out[0].shape), _like(g, logs, out[1].shape), None, None]


@row("linalg_inv_ex")
def inv_ex(g: Recorder, out: Any, a: Tensor, *, check_errors: bool = False) -> list[ir.Value]:
    """The solution for the unit matrix."""
    if check_errors:
        relies_on_success(g, _DECOMPOSED)
    if g.is_empty(a):
        return _nothing(g, out)
    packed = lu_packed(g, a)[0]
    inverse = _solved(g, a, _identity(g, a.shape[-1], g.op("Shape", packed, start=0, end=1), a.dtype))
    return [_like(g, inverse, out[0].shape), _info(g, out[1], _singular(g, packed, a.dtype))]


@row("_linalg_solve_ex")
def solve_ex(
    g: Recorder, out: Any, a: Tensor, b: Tensor, *, left: bool = True, check_errors: bool = False
) -> list[ir.Value | None]:
    """x with a x = b, or x a = b."""
    if check_errors:
        relies_on_success(g, _DECOMPOSED)
    if g.is_empty(a) or g.is_empty(b):
        return [_nothing(g, o) for o in out]

    def solved(a: Tensor, b: Tensor) -> Tensor:
        vector = b.dim() == 1 or (b.dim() == a.dim() - 1 and list(b.shape) == list(a.shape[:-1]))
        if vector:
            b = b.unsqueeze(-1)
        if not left:
            a, b = a.mT, (b if vector else b.mT)
        lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = a.expand(*lead, *a.shape[-2:]), b.expand(*lead, *b.shape[-2:])
        x = bound(g, b.shape, a.dtype, _like(g, _solved(g, a, _batched(g, g.val(b), b)), b.shape))
        if vector:
            return x.squeeze(-1)
        return x if left else x.mT

    result = g.val(g.recorded(solved, a, b))
    packed = lu_packed(g, a)[0]
    return [result, None, None, _info(g, out[3], _singular(g, packed, a.dtype))]


@row("linalg_lu_factor_ex", "_lu_with_info")
def lu_factor_ex(g: Recorder, out: Any, a: Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """LU packed into one matrix, LAPACK's pivots and info."""
    if check_errors:
        relies_on_success(g, _DECOMPOSED)
    if g.is_empty(a):
        return _nothing(g, out)
    packed, _, _, steps = lu_packed(g, a, pivot)
    count = smaller(a.shape[-2], a.shape[-1])
    used = g.op("Slice", steps, g.const([0]), g.sizes.dim(count), g.const([1]))
    pivots = g.cast(g.op("Add", used, g.const(1)), torch.int64, torch.int32)
    square = g.same_size(a.shape[-2], a.shape[-1])
    info = _info(g, out[2], _singular(g, packed, a.dtype)) if square else _nothing(g, out[2])
    return [_like(g, packed, out[0].shape), _like(g, pivots, out[1].shape), info]


@row("linalg_lu")
def lu(g: Recorder, out: Any, a: Tensor, *, pivot: bool = True) -> list[ir.Value]:
    """P, L and U."""
    if g.is_empty(a):
        made = g.recorded(lambda: [torch.zeros(o.shape, dtype=o.dtype) for o in out])
        return [g.val(m) for m in made]
    packed, order, _, _ = lu_packed(g, a, pivot)
    n = a.shape[-2]
    rows = g.op("Range", g.const(0), g.operand(n, torch.int64), g.const(1))
    # Row order[i] of P has its 1 at i.
    at = g.op("Equal", g.op("Unsqueeze", order, g.const([1])), g.op("Unsqueeze", rows, g.const([0, 2])))
    p = g.cast(at, torch.bool, a.dtype)
    whole = bound(g, a.shape, a.dtype, _like(g, packed, a.shape))
    lower, upper = (g.val(x) for x in g.recorded(_triangles, whole))
    return [_like(g, p, out[0].shape) if pivot else _nothing(g, out[0]), lower, upper]


def _triangles(packed: Tensor) -> tuple[Tensor, Tensor]:
    """L with ones on its diagonal, and U."""
    n, m = packed.shape[-2], packed.shape[-1]
    k = smaller(n, m)
    eye = torch.eye(n, k, dtype=packed.dtype)
    return packed.narrow(-1, 0, k).tril(-1) + eye, packed.narrow(-2, 0, k).triu()


def _order_of(g: Recorder, pivots: Tensor, n: Any) -> ir.Value:
    """LAPACK's pivots [.., k] played through: the rows' order [b, n]."""
    steps = g.op("Sub", g.operand(pivots, torch.int64), g.const(1))
    steps = g.op("Reshape", steps, g.shape([-1, pivots.shape[-1]]))
    rows = g.op("Range", g.const(0), g.operand(n, torch.int64), g.const(1))
    order = g.op("Expand", rows, g.op("Concat", g.op("Shape", steps, start=0, end=1), g.sizes.dim(n), axis=0))

    def body(b: GraphWriter, k: ir.Value, steps: ir.Value, order: ir.Value) -> list[ir.Value]:
        size = b.op("Squeeze", b.op("Shape", order, start=1, end=2), b.const([0]))
        i = b.op("Unsqueeze", b.op("Range", b.const(0), size, b.const(1)), b.const([0]))
        at = _line(b, steps, k, 1)
        swap = b.op("Where", b.op("Equal", i, at), k, b.op("Where", b.op("Equal", i, k), at, i))
        return [steps, b.op("GatherElements", order, swap, axis=1)]

    turns = g.operand(pivots.shape[-1], torch.int64)
    return loop(g, turns, [steps, order], [_INT, _INT], [2, 2], body)[1]


@row("lu_unpack")
def lu_unpack(
    g: Recorder,
    out: Any,
    packed: Tensor,
    pivots: Tensor,
    unpack_data: bool = True,
    unpack_pivots: bool = True,
) -> list[ir.Value]:
    """P, L and U of a packed factorisation."""
    n = packed.shape[-2]
    lower, upper, p = (_nothing(g, out[i]) for i in (1, 2, 0))
    if unpack_data and not g.is_empty(packed):
        lower, upper = (g.val(x) for x in g.recorded(_triangles, packed))
    if unpack_pivots and not g.is_empty(packed):
        order = _order_of(g, pivots, n)
        rows = g.op("Range", g.const(0), g.operand(n, torch.int64), g.const(1))
        at = g.op("Equal", g.op("Unsqueeze", order, g.const([1])), g.op("Unsqueeze", rows, g.const([0, 2])))
        p = _like(g, g.cast(at, torch.bool, packed.dtype), out[0].shape)
    return [p, lower, upper]


@row("linalg_lu_solve")
def lu_solve(
    g: Recorder,
    out: Tensor,
    packed: Tensor,
    pivots: Tensor,
    rhs: Tensor,
    *,
    left: bool = True,
    adjoint: bool = False,
) -> ir.Value:
    """x with a x = rhs or x a = rhs, for a factorised or its transpose."""
    if g.is_empty(packed) or g.is_empty(rhs):
        return _nothing(g, out)

    def solved(packed: Tensor, pivots: Tensor, b: Tensor) -> Tensor:
        transposed = adjoint != (not left)
        if not left:
            b = b.mT
        lead = torch.broadcast_shapes(packed.shape[:-2], b.shape[:-2])
        lu = packed.expand(*lead, *packed.shape[-2:])
        at = pivots.expand(*lead, pivots.shape[-1])
        b = b.expand(*lead, *b.shape[-2:])
        n, dtype = packed.shape[-1], packed.dtype
        order, flat = _order_of(g, at, n), _batched(g, g.val(b), b)
        if not transposed:
            y = triangular(g, _batched(g, g.val(lu), lu), _permuted(g, order, flat), n, dtype, False, True)
            y = triangular(g, _batched(g, g.val(lu), lu), y, n, dtype, True, False)
        else:
            turned = lu.mT
            t = _batched(g, g.val(turned), turned)
            y = triangular(g, t, flat, n, dtype, False, False)
            y = triangular(g, t, y, n, dtype, True, True)
            back = g.ops("TopK", order, g.sizes.dim(n), n=2, axis=1, largest=0)[1]
            y = _permuted(g, back, y)
        x = bound(g, b.shape, dtype, _like(g, y, b.shape))
        return x if left else x.mT

    return g.val(g.recorded(solved, packed, pivots, rhs))


@row("linalg_solve_triangular")
def solve_triangular(
    g: Recorder,
    out: Tensor,
    a: Tensor,
    rhs: Tensor,
    *,
    upper: bool,
    left: bool = True,
    unitriangular: bool = False,
) -> ir.Value:
    """x with a x = rhs or x a = rhs, for a triangle a."""
    if g.is_empty(a) or g.is_empty(rhs):
        return _nothing(g, out)

    def solved(a: Tensor, b: Tensor) -> Tensor:
        high = upper
        if not left:
            a, b, high = a.mT, b.mT, not upper
        lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = a.expand(*lead, *a.shape[-2:]), b.expand(*lead, *b.shape[-2:])
        flat, right = _batched(g, g.val(a), a), _batched(g, g.val(b), b)
        y = triangular(g, flat, right, a.shape[-1], a.dtype, high, unitriangular)
        x = bound(g, b.shape, a.dtype, _like(g, y, b.shape))
        return x if left else x.mT

    return g.val(g.recorded(solved, a, rhs))


@composed("triangular_solve")
def triangular_solve(
    b: Tensor, a: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> tuple[Tensor, Tensor]:
    """The older form: also gives the matrix back, expanded to the batch."""
    matrix, high = (a.mT, not upper) if transpose else (a, upper)
    x = torch.linalg.solve_triangular(matrix, b, upper=high, unitriangular=unitriangular)
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return x, a.expand(*lead, *a.shape[-2:]).clone()


# -- Cholesky


def _cholesky(g: Recorder, a: Tensor) -> ir.Value:
    """L with L Lᵀ = a as [b, n, n]; reads the lower triangle. NaN from the first column that fails."""
    dtype = dtype_of(a.dtype)
    x = _batched(g, g.val(a), a)

    def body(b: GraphWriter, k: ir.Value, x: ir.Value, lower: ir.Value) -> list[ir.Value]:
        i, j = _positions(b, x, 1), _positions(b, x, 2)
        zero = b.const(0.0, dtype)
        column = _line(b, x, k, 2)
        root = b.op("Sqrt", _line(b, column, k, 1))
        column = b.op("Where", b.op("Less", i, k), zero, b.op("Div", column, root))
        x = b.op("Sub", x, b.op("Mul", column, b.op("Transpose", column, perm=[0, 2, 1])))
        return [x, b.op("Where", b.op("Equal", j, k), column, lower)]

    zeros = g.op("Expand", g.const(0.0, a.dtype), g.op("Shape", x))
    return loop(g, g.operand(a.shape[-1], torch.int64), [x, zeros], [dtype, dtype], [3, 3], body)[1]


def _failed(g: Recorder, lower: ir.Value, dtype: torch.dtype) -> ir.Value:
    return g.op("Not", g.op("Greater", _diagonal(g, lower, dtype), g.const(0.0, dtype)))


@row("linalg_cholesky_ex")
def cholesky_ex(g: Recorder, out: Any, a: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    """L, or its transpose from the upper triangle, and info."""
    if check_errors:
        relies_on_success(g, _DECOMPOSED)
    if g.is_empty(a):
        return _nothing(g, out)
    source = g.recorded(lambda: a.mT) if upper else a
    lower = _cholesky(g, source)
    info = _info(g, out[1], _failed(g, lower, a.dtype))
    value = g.op("Transpose", lower, perm=[0, 2, 1]) if upper else lower
    return [_like(g, value, out[0].shape), info]


@row("cholesky")
def cholesky(g: Recorder, out: Tensor, a: Tensor, upper: bool = False) -> ir.Value:
    """L, or its transpose."""
    if g.is_empty(a):
        return _nothing(g, out)
    relies_on_success(g, "the matrix is positive definite")
    lower = _cholesky(g, g.recorded(lambda: a.mT) if upper else a)
    return _like(g, g.op("Transpose", lower, perm=[0, 2, 1]) if upper else lower, out.shape)


@composed("cholesky_solve", "_cholesky_solve_helper")
def cholesky_solve(b: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    """x with (L Lᵀ) x = b."""
    lower = factor.mT if upper else factor
    y = torch.linalg.solve_triangular(lower, b, upper=False)
    return torch.linalg.solve_triangular(lower.mT, y, upper=True)


@composed("cholesky_inverse")
def cholesky_inverse(factor: Tensor, upper: bool = False) -> Tensor:
    """The inverse of L Lᵀ."""
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype).expand_as(factor)
    return cholesky_solve(eye, factor, upper)


# -- QR


def _reflected(g: Recorder, a: Tensor) -> tuple[ir.Value, ir.Value]:
    """LAPACK's geqrf: R on and above the diagonal, the reflections' vectors below it [b, n, m]; their factors
    [b, k].
    """
    key = ("qr", id(g.val(a)))
    known = g.memo.get(key)
    if known is not None:
        return known
    dtype = dtype_of(a.dtype)
    x = _batched(g, g.val(a), a)
    count = smaller(a.shape[-2], a.shape[-1])
    taus = g.op(
        "Expand",
        g.const(0.0, a.dtype),
        g.op("Concat", g.op("Shape", x, start=0, end=1), g.sizes.dim(count), axis=0),
    )

    def body(b: GraphWriter, k: ir.Value, x: ir.Value, taus: ir.Value) -> list[ir.Value]:
        i, j = _positions(b, x, 1), _positions(b, x, 2)
        zero, one = b.const(0.0, dtype), b.const(1.0, dtype)
        column = _line(b, x, k, 2)  # [b, n, 1]
        alpha = _line(b, column, k, 1)
        rest = b.op("Where", b.op("Greater", i, k), column, zero)
        below = b.op("ReduceSumSquare", rest, b.const([1]), keepdims=1)
        norm = b.op("Sqrt", b.op("Add", b.op("Mul", alpha, alpha), below))
        beta = b.op("Where", b.op("Less", alpha, zero), norm, b.op("Neg", norm))
        none = b.op("Equal", below, zero)  # nothing below the diagonal: no reflection
        beta = b.op("Where", none, alpha, beta)
        safe = b.op("Where", none, one, beta)
        tau = b.op("Where", none, zero, b.op("Div", b.op("Sub", beta, alpha), safe))
        scale = b.op("Where", none, one, b.op("Sub", alpha, beta))
        v = b.op("Where", b.op("Equal", i, k), one, b.op("Div", rest, scale))
        turned = b.op("Transpose", v, perm=[0, 2, 1])
        dots = b.op("MatMul", turned, x)  # [b, 1, m]
        moved = b.op("Sub", x, b.op("Mul", tau, b.op("Mul", v, dots)))
        right = b.op("Greater", j, k)
        x = b.op("Where", right, moved, x)
        mine = b.op("Where", b.op("Equal", i, k), beta, b.op("Where", b.op("Greater", i, k), v, column))
        x = b.op("Where", b.op("Equal", j, k), mine, x)
        size = b.op("Squeeze", b.op("Shape", taus, start=1, end=2), b.const([0]))
        at = b.op("Unsqueeze", b.op("Equal", b.op("Range", b.const(0), size, b.const(1)), k), b.const([0]))
        return [x, b.op("Where", at, b.op("Squeeze", tau, b.const([2])), taus)]

    made = loop(g, g.operand(count, torch.int64), [x, taus], [dtype, dtype], [3, 2], body)
    known = g.memo[key] = (made[0], made[1])
    return known


def _applied(
    g: Recorder,
    packed: ir.Value,
    taus: ir.Value,
    count: Any,
    target: ir.Value,
    dtype: torch.dtype,
    forward: bool,
) -> ir.Value:
    """Q target (reflections from the last to the first) or Qᵀ target, target being [b, n, k]."""
    kind = dtype_of(dtype)

    def body(b: GraphWriter, turn: ir.Value, packed: ir.Value, taus: ir.Value, y: ir.Value) -> list[ir.Value]:
        k = turn
        if not forward:
            size = b.op("Squeeze", b.op("Shape", taus, start=1, end=2), b.const([0]))
            k = b.op("Sub", b.op("Sub", size, b.const(1)), turn)
        i = _positions(b, packed, 1)
        column = _line(b, packed, k, 2)
        v = b.op("Where", b.op("Greater", i, k), column, b.const(0.0, kind))
        v = b.op("Where", b.op("Equal", i, k), b.const(1.0, kind), v)
        tau = b.op("Unsqueeze", _line(b, taus, k, 1), b.const([2]))
        dots = b.op("MatMul", b.op("Transpose", v, perm=[0, 2, 1]), y)
        return [packed, taus, b.op("Sub", y, b.op("Mul", tau, b.op("Mul", v, dots)))]

    states = [packed, taus, target]
    return loop(g, g.operand(count, torch.int64), states, [kind] * 3, [3, 2, 3], body)[2]


@row("geqrf")
def geqrf(g: Recorder, out: Any, a: Tensor) -> list[ir.Value]:
    """The packed factorisation and its factors."""
    if g.is_empty(a):
        return _nothing(g, out)
    packed, taus = _reflected(g, a)
    return [_like(g, packed, out[0].shape), _like(g, taus, out[1].shape)]


@row("linalg_qr")
def qr(g: Recorder, out: Any, a: Tensor, mode: str = "reduced") -> list[ir.Value]:
    """Q with orthonormal columns and R."""
    if g.is_empty(a):
        made = g.recorded(
            lambda: [
                torch.eye(*o.shape[-2:], dtype=o.dtype).expand(o.shape)
                if i == 0 and o.dim() > 1
                else torch.zeros(o.shape, dtype=o.dtype)
                for i, o in enumerate(out)
            ]
        )
        return [g.val(m) for m in made]
    packed, taus = _reflected(g, a)
    n, count = a.shape[-2], smaller(a.shape[-2], a.shape[-1])
    whole = bound(g, a.shape, a.dtype, _like(g, packed, a.shape))
    rows = n if mode == "complete" else count
    upper = g.val(g.recorded(lambda: whole.narrow(-2, 0, rows).triu()))
    if mode == "r":
        return [_nothing(g, out[0]), upper]
    eye = _identity(g, n, g.op("Shape", packed, start=0, end=1), a.dtype)
    if mode == "reduced":
        eye = g.op("Slice", eye, g.const([0]), g.sizes.dim(count), g.const([2]))
    q = _applied(g, packed, taus, count, eye, a.dtype, False)
    return [_like(g, q, out[0].shape), upper]


@row("linalg_householder_product")
def householder_product(g: Recorder, out: Tensor, a: Tensor, tau: Tensor) -> ir.Value:
    """The first columns of the product of reflections."""
    if g.is_empty(a):
        return _nothing(g, out)
    packed = _batched(g, g.val(a), a)
    if g.is_empty(tau):
        eye = _identity(g, a.shape[-2], g.op("Shape", packed, start=0, end=1), a.dtype)
        return _like(g, g.op("Slice", eye, g.const([0]), g.sizes.dim(a.shape[-1]), g.const([2])), out.shape)
    taus = g.op("Reshape", g.val(tau), g.shape([_count(a), tau.shape[-1]]), allowzero=1)
    eye = _identity(g, a.shape[-2], g.op("Shape", packed, start=0, end=1), a.dtype)
    eye = g.op("Slice", eye, g.const([0]), g.sizes.dim(a.shape[-1]), g.const([2]))
    return _like(g, _applied(g, packed, taus, tau.shape[-1], eye, a.dtype, False), out.shape)


@row("ormqr")
def ormqr(
    g: Recorder,
    out: Tensor,
    a: Tensor,
    tau: Tensor,
    other: Tensor,
    left: bool = True,
    transpose: bool = False,
) -> ir.Value:
    """Q c, Qᵀ c, c Q or c Qᵀ for Q given by its reflections."""
    if g.is_empty(a) or g.is_empty(other):
        return _nothing(g, out)
    target = other if left else g.recorded(lambda: other.mT)
    packed = _batched(g, g.val(a), a)
    taus = g.op("Reshape", g.val(tau), g.shape([_count(a), tau.shape[-1]]), allowzero=1)
    forward = transpose if left else not transpose
    y = _applied(g, packed, taus, tau.shape[-1], _batched(g, g.val(target), target), a.dtype, forward)
    made = bound(g, target.shape, a.dtype, _like(g, y, target.shape))
    return g.val(made if left else g.recorded(lambda: made.mT))


# -- functions of a matrix


@composed("linalg_matrix_exp", "matrix_exp")
def matrix_exp(a: Tensor) -> Tensor:
    """exp(a): a / 2^s by Taylor's series, squared s times; s is chosen so that any norm up to 2^12 is
    small.
    """
    scale = 2.0**-16
    wide = a.double() * scale
    eye = torch.eye(a.shape[-1], dtype=wide.dtype)
    term, total = eye, eye
    for k in range(1, 5):
        term = term @ wide / k
        total = total + term
    # (1 + e)² - 1 = 2 e + e², which keeps what 1 + e would round away.
    rest = total - eye
    for _ in range(16):
        rest = 2 * rest + rest @ rest
    return (rest + eye).to(a.dtype)
