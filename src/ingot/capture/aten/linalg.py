"""Linear algebra by elimination: LU, determinant, inverse, what is solved with them. One loop each.

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
DECOMPOSED = "the matrix can be decomposed (not singular, or positive definite)"


def relies_on_success(g: Recorder, what: str) -> None:
    """torch raises where a decomposition fails; the exported model gives NaN or infinity there."""
    g.assume("values", f"{what}: PyTorch raises where not, the exported model gives NaN or infinity", "fixed")


def batched(g: Recorder, x: ir.Value, a: Tensor) -> ir.Value:
    """[.., n, m] as [b, n, m]."""
    if a.dim() == 3:
        return x
    return g.op("Reshape", x, g.shape([count_of(a), *a.shape[-2:]]), allowzero=1)


def smaller(n: Any, m: Any) -> Any:
    """The smaller of two sizes."""
    return torch.sym_min(n, m)


def count_of(a: Tensor) -> Any:
    count: Any = 1
    for n in a.shape[:-2]:
        count = count * n
    return count


def like(g: Recorder, x: ir.Value, shape: Any) -> ir.Value:
    """[b, ..] back in a shape of torch's."""
    return g.op("Reshape", x, g.shape(list(shape)), allowzero=1)


def bound(g: Recorder, shape: Any, dtype: torch.dtype, value: ir.Value) -> Tensor:
    """A tensor of the recording with this value."""
    made = fakes.fresh(g.mode, list(shape), dtype, torch.device("cpu"))
    g.bind(made, value)
    return made


def line_at(b: GraphWriter, x: ir.Value, k: ir.Value, axis: int) -> ir.Value:
    """Row or column k, its axis kept."""
    return b.op("Gather", x, b.op("Unsqueeze", k, b.const([0])), axis=axis)


def positions(b: GraphWriter, x: ir.Value, axis: int) -> ir.Value:
    """0, 1 … along an axis of [b, n, m], to stand against it."""
    size = b.op("Squeeze", b.op("Shape", x, start=axis, end=axis + 1), b.const([0]))
    i = b.op("Range", b.const(0), size, b.const(1))
    return b.op("Unsqueeze", i, b.const([0, 2] if axis == 1 else [0, 1]))


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
    x = batched(g, g.val(a), a)
    batch = g.op("Shape", x, start=0, end=1)
    rows = g.op("Range", g.const(0), g.operand(n, torch.int64), g.const(1))
    order = g.op("Expand", rows, g.op("Concat", batch, g.sizes.dim(n), axis=0))
    sign = g.op("Expand", g.const(1.0, a.dtype), batch)

    def body(
        b: GraphWriter, k: ir.Value, x: ir.Value, order: ir.Value, sign: ir.Value, pivots: ir.Value
    ) -> list[ir.Value]:
        i, j = positions(b, x, 1), positions(b, x, 2)
        below = b.op("Greater", i, k)
        if pivot:
            size = b.op("Where", b.op("Less", i, k), b.const(-1.0, dtype), b.op("Abs", line_at(b, x, k, 2)))
            at = b.op("ArgMax", size, axis=1, keepdims=1)  # [b, 1, 1]
            swap = b.op("Where", b.op("Equal", i, at), k, b.op("Where", b.op("Equal", i, k), at, i))
            x = b.op("GatherElements", x, b.op("Expand", swap, b.op("Shape", x)), axis=1)
            order = b.op("GatherElements", order, b.op("Squeeze", swap, b.const([2])), axis=1)
            moved = b.op("Not", b.op("Equal", b.op("Squeeze", at, b.const([1, 2])), k))
            sign = b.op("Where", moved, b.op("Neg", sign), sign)
            here = b.op("Equal", b.op("Squeeze", i, b.const([2])), k)
            pivots = b.op("Where", here, b.op("Squeeze", at, b.const([2])), pivots)
        top = line_at(b, x, k, 1)  # [b, 1, m]
        head = line_at(b, top, k, 2)
        column = line_at(b, x, k, 2)
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
        i = positions(b, a, 1)
        column, line = line_at(b, a, k, 2), line_at(b, x, k, 1)
        if not unit:
            line = b.op("Div", line, line_at(b, column, k, 1))
        later = b.op("Less" if upper else "Greater", i, k)
        zero = b.const(0.0, kind)
        x = b.op("Sub", x, b.op("Mul", b.op("Where", later, column, zero), line))
        return [a, b.op("Where", b.op("Equal", i, k), line, x)]

    return loop(g, g.operand(n, torch.int64), [a, rhs], [kind, kind], [3, 3], body)[1]


def _permuted(g: Recorder, order: ir.Value, rhs: ir.Value) -> ir.Value:
    """Rows of [b, n, k] in the order [b, n]."""
    wide = g.op("Expand", g.op("Unsqueeze", order, g.const([2])), g.op("Shape", rhs))
    return g.op("GatherElements", rhs, wide, axis=1)


def identity(g: Recorder, n: Any, batch: ir.Value, dtype: torch.dtype) -> ir.Value:
    rows = g.op("Range", g.const(0), g.operand(n, torch.int64), g.const(1))
    eye = g.cast(g.op("Equal", g.op("Unsqueeze", rows, g.const([1])), rows), torch.bool, dtype)
    return g.op("Expand", eye, g.op("Concat", batch, g.shape([n, n]), axis=0))


def _solved(g: Recorder, a: Tensor, rhs: ir.Value) -> ir.Value:
    """x with a x = rhs; rhs is [b, n, k]."""
    packed, order, _, _ = lu_packed(g, a)
    y = triangular(g, packed, _permuted(g, order, rhs), a.shape[-1], a.dtype, False, True)
    return triangular(g, packed, y, a.shape[-1], a.dtype, True, False)


def diagonal_of(g: Recorder, packed: ir.Value, dtype: torch.dtype) -> ir.Value:
    """[b, n] of [b, n, n]."""
    shape = g.op("Shape", packed, start=1, end=2)
    rows = g.op("Range", g.const(0), g.op("Squeeze", shape, g.const([0])), g.const(1))
    eye = g.op("Equal", g.op("Unsqueeze", rows, g.const([1])), rows)
    return g.op("ReduceSum", g.op("Where", eye, packed, g.const(0.0, dtype)), g.const([2]), keepdims=0)


def info_of(g: Recorder, out: Tensor, bad: ir.Value) -> ir.Value:
    """LAPACK's info: 0, or which step failed first, counted from 1; `bad` is [b, n]."""
    number = g.cast(bad, torch.bool, torch.int32)
    first = g.op("Add", g.op("ArgMax", number, axis=1, keepdims=0), g.const(1))
    any_bad = g.op("ReduceMax", number, g.const([1]), keepdims=0)
    info = g.op("Mul", g.cast(first, torch.int64, torch.int32), any_bad)
    return like(g, info, out.shape)


def _singular(g: Recorder, packed: ir.Value, dtype: torch.dtype) -> ir.Value:
    return g.op("Equal", diagonal_of(g, packed, dtype), g.const(0.0, dtype))


def without_elements(g: Recorder, out: Any, ones: bool = False) -> Any:
    """Results of matrices without elements."""
    if isinstance(out, Tensor):
        return g.op("Expand", g.const(1 if ones else 0, out.dtype), g.shape(out.shape))
    return [without_elements(g, o, ones) for o in out]


@row("_linalg_check_errors")
def check_errors(g: Recorder, out: Any, *args: Any, **kwargs: Any) -> list[ir.Value]:
    """torch raises here when a decomposition failed."""
    relies_on_success(g, DECOMPOSED)
    return []


@row("_linalg_det")
def det(g: Recorder, out: Any, a: Tensor) -> list[ir.Value | None]:
    """The product of U's diagonal, with the sign of the row exchanges."""
    if g.is_empty(a):
        return [without_elements(g, out[0], True), None, None]
    packed, _, sign, _ = lu_packed(g, a)
    value = g.op("Mul", sign, g.op("ReduceProd", diagonal_of(g, packed, a.dtype), g.const([1]), keepdims=0))
    return [like(g, value, out[0].shape), None, None]


@row("_linalg_slogdet")
def slogdet(g: Recorder, out: Any, a: Tensor) -> list[ir.Value | None]:
    """Sign and logarithm of the determinant."""
    if g.is_empty(a):
        return [without_elements(g, out[0], True), without_elements(g, out[1]), None, None]
    packed, _, sign, _ = lu_packed(g, a)
    diagonal = diagonal_of(g, packed, a.dtype)
    signs = g.op("ReduceProd", g.op("Sign", diagonal), g.const([1]), keepdims=0)
    logs = g.op("ReduceSum", g.op("Log", g.op("Abs", diagonal)), g.const([1]), keepdims=0)
    return [like(g, g.op("Mul", sign, signs), out[0].shape), like(g, logs, out[1].shape), None, None]


@row("linalg_inv_ex")
def inv_ex(g: Recorder, out: Any, a: Tensor, *, check_errors: bool = False) -> list[ir.Value]:
    """The solution for the unit matrix."""
    if check_errors:
        relies_on_success(g, DECOMPOSED)
    if g.is_empty(a):
        return without_elements(g, out)
    packed = lu_packed(g, a)[0]
    inverse = _solved(g, a, identity(g, a.shape[-1], g.op("Shape", packed, start=0, end=1), a.dtype))
    return [like(g, inverse, out[0].shape), info_of(g, out[1], _singular(g, packed, a.dtype))]


@row("_linalg_solve_ex")
def solve_ex(
    g: Recorder, out: Any, a: Tensor, b: Tensor, *, left: bool = True, check_errors: bool = False
) -> list[ir.Value | None]:
    """x with a x = b, or x a = b."""
    if check_errors:
        relies_on_success(g, DECOMPOSED)
    if g.is_empty(a) or g.is_empty(b):
        return [without_elements(g, o) for o in out]

    def solved(a: Tensor, b: Tensor) -> Tensor:
        vector = b.dim() == 1 or (b.dim() == a.dim() - 1 and list(b.shape) == list(a.shape[:-1]))
        if vector:
            b = b.unsqueeze(-1)
        if not left:
            a, b = a.mT, (b if vector else b.mT)
        lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = a.expand(*lead, *a.shape[-2:]), b.expand(*lead, *b.shape[-2:])
        x = bound(g, b.shape, a.dtype, like(g, _solved(g, a, batched(g, g.val(b), b)), b.shape))
        if vector:
            return x.squeeze(-1)
        return x if left else x.mT

    result = g.val(g.recorded(solved, a, b))
    packed = lu_packed(g, a)[0]
    return [result, None, None, info_of(g, out[3], _singular(g, packed, a.dtype))]


@row("linalg_lu_factor_ex", "_lu_with_info")
def lu_factor_ex(g: Recorder, out: Any, a: Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """LU packed into one matrix, LAPACK's pivots and info."""
    if check_errors:
        relies_on_success(g, DECOMPOSED)
    if g.is_empty(a):
        return without_elements(g, out)
    packed, _, _, steps = lu_packed(g, a, pivot)
    count = smaller(a.shape[-2], a.shape[-1])
    used = g.op("Slice", steps, g.const([0]), g.sizes.dim(count), g.const([1]))
    pivots = g.cast(g.op("Add", used, g.const(1)), torch.int64, torch.int32)
    square = g.same_size(a.shape[-2], a.shape[-1])
    info = info_of(g, out[2], _singular(g, packed, a.dtype)) if square else without_elements(g, out[2])
    return [like(g, packed, out[0].shape), like(g, pivots, out[1].shape), info]


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
    whole = bound(g, a.shape, a.dtype, like(g, packed, a.shape))
    lower, upper = (g.val(x) for x in g.recorded(_triangles, whole))
    return [like(g, p, out[0].shape) if pivot else without_elements(g, out[0]), lower, upper]


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
        at = line_at(b, steps, k, 1)
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
    lower, upper, p = (without_elements(g, out[i]) for i in (1, 2, 0))
    if unpack_data and not g.is_empty(packed):
        lower, upper = (g.val(x) for x in g.recorded(_triangles, packed))
    if unpack_pivots and not g.is_empty(packed):
        order = _order_of(g, pivots, n)
        rows = g.op("Range", g.const(0), g.operand(n, torch.int64), g.const(1))
        at = g.op("Equal", g.op("Unsqueeze", order, g.const([1])), g.op("Unsqueeze", rows, g.const([0, 2])))
        p = like(g, g.cast(at, torch.bool, packed.dtype), out[0].shape)
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
        return without_elements(g, out)

    def solved(packed: Tensor, pivots: Tensor, b: Tensor) -> Tensor:
        transposed = adjoint != (not left)
        if not left:
            b = b.mT
        lead = torch.broadcast_shapes(packed.shape[:-2], b.shape[:-2])
        lu = packed.expand(*lead, *packed.shape[-2:])
        at = pivots.expand(*lead, pivots.shape[-1])
        b = b.expand(*lead, *b.shape[-2:])
        n, dtype = packed.shape[-1], packed.dtype
        order, flat = _order_of(g, at, n), batched(g, g.val(b), b)
        if not transposed:
            y = triangular(g, batched(g, g.val(lu), lu), _permuted(g, order, flat), n, dtype, False, True)
            y = triangular(g, batched(g, g.val(lu), lu), y, n, dtype, True, False)
        else:
            turned = lu.mT
            t = batched(g, g.val(turned), turned)
            y = triangular(g, t, flat, n, dtype, False, False)
            y = triangular(g, t, y, n, dtype, True, True)
            back = g.ops("TopK", order, g.sizes.dim(n), n=2, axis=1, largest=0)[1]
            y = _permuted(g, back, y)
        x = bound(g, b.shape, dtype, like(g, y, b.shape))
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
        return without_elements(g, out)

    def solved(a: Tensor, b: Tensor) -> Tensor:
        high = upper
        if not left:
            a, b, high = a.mT, b.mT, not upper
        lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = a.expand(*lead, *a.shape[-2:]), b.expand(*lead, *b.shape[-2:])
        flat, right = batched(g, g.val(a), a), batched(g, g.val(b), b)
        y = triangular(g, flat, right, a.shape[-1], a.dtype, high, unitriangular)
        x = bound(g, b.shape, a.dtype, like(g, y, b.shape))
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


@row("linalg_matrix_exp", "matrix_exp")
def matrix_exp(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """exp(a): a / 2^s by Taylor's series, squared s times: 16, and more for sums of rows above 2^9."""
    double = ir.DataType.DOUBLE

    def squared(b: GraphWriter, turn: ir.Value, rest: ir.Value) -> list[ir.Value]:
        del turn
        return [b.op("Add", b.op("Add", rest, rest), b.op("MatMul", rest, rest))]

    def call() -> Tensor:
        wide = a.double()
        sums = torch.cat([wide.abs().sum(-1).reshape(-1), torch.ones(1, dtype=wide.dtype)])
        more = torch.ceil(torch.log2(sums.amax() / 2.0**9)).clamp(0, 1023)
        more = torch.where(torch.isfinite(more), more, 0.0)
        scaled = wide * torch.exp2(-16 - more)
        # Without the unit matrix, which would round small numbers away: (1 + e)² - 1 = 2 e + e².
        term = rest = scaled
        for k in range(2, 9):
            term = term @ scaled / k
            rest = rest + term
        for _ in range(16):
            rest = 2 * rest + rest @ rest
        turns = g.op("Cast", g.val(more), to=_INT)
        made = loop(g, turns, [g.val(rest)], [double], [a.dim()], squared)[0]
        return bound(g, a.shape, torch.float64, made) + torch.eye(a.shape[-1], dtype=torch.float64)

    return g.operand(g.recorded(call), out.dtype)
