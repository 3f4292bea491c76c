"""Singular values and vectors, pseudo-inverses, least squares; eigenvalues and vectors of symmetric ones.

By one-sided Jacobi rotations in float64. Singular vectors and eigenvectors are defined up to sign (and more
where values repeat), so no other library's can be reproduced: `bases` says which ones the model gives.
"""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ingot.capture.aten.linalg import bound, count_of, positions, smaller, without_elements
from ingot.capture.aten.loops import loop
from ingot.capture.aten.registry import row, whole
from ingot.capture.bases import earlier_first, largest, oriented, rank_of, signs
from ingot.capture.fakes import hint
from ingot.capture.graph import GraphWriter
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
SWEEPS = 14
_DOUBLE = ir.DataType.DOUBLE


def decomposed(g: Recorder, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S and V of [b, n, m] in float64, S from the largest on; U and V up to signs.

    There are m of each, of which those beyond n belong to values of 0, and columns of U to none: they are 0.
    """
    batch, n, m = a.shape
    wide, turned = a.double(), torch.eye(m, dtype=torch.float64).expand(batch, m, m)
    if g.sizes.number(m) != 1:
        wide, turned = _rotated(g, wide, turned)
    values = torch.linalg.vector_norm(wide, dim=1)
    values, order = torch.sort(values, dim=-1, descending=True)
    wide = torch.gather(wide, 2, order.unsqueeze(1).expand(batch, n, m))
    turned = torch.gather(turned, 2, order.unsqueeze(1).expand(batch, m, m))
    safe = torch.where(values > 0, values, torch.ones_like(values))
    return wide / safe.unsqueeze(1), values, turned


def _rotated(g: Recorder, wide: Tensor, turned: Tensor) -> tuple[Tensor, ...]:
    """The columns after all sweeps: a tournament, in each of whose rounds each column meets another, an empty
    one where they are odd. The first stays in its place and the others go round, until all are home.
    """
    m: Any = wide.shape[2]
    even = m + m % 2
    known = g.sizes.number(even)

    def body(b: GraphWriter, turn: ir.Value, x: ir.Value, v: ir.Value) -> list[ir.Value]:
        del turn
        zero, one, axis = b.const([0]), b.const([1]), b.const([2])
        size = b.op("Shape", x, start=2, end=3) if known is None else b.const([known])
        half = b.op("Div", size, b.const([2])) if known is None else b.const([known // 2])
        below = b.op("Sub", half, one) if known is None else b.const([known // 2 - 1])
        back = b.const([-1])

        def paired(x: ir.Value) -> tuple[ir.Value, ir.Value]:
            return b.op("Slice", x, zero, half, axis), b.op("Slice", x, back, below, axis, back)

        def gone_round(p: ir.Value, q: ir.Value) -> ir.Value:
            firsts = [b.op("Slice", x, zero, one, axis) for x in (p, q)]
            return b.op(
                "Concat",
                *firsts,
                b.op("Slice", p, one, half, axis),
                b.op("Slice", q, back, zero, axis, back),
                axis=2,
            )

        (p, q), (vp, vq) = paired(x), paired(v)
        pp, qq, pq = (
            b.op("ReduceSum", b.op("Mul", *pair), one, keepdims=1) for pair in ((p, p), (q, q), (p, q))
        )
        none, unit = b.const(0.0, _DOUBLE), b.const(1.0, _DOUBLE)
        still = b.op(
            "LessOrEqual", b.op("Mul", pq, pq), b.op("Mul", b.op("Mul", pp, qq), b.const(1e-34, _DOUBLE))
        )
        safe = b.op("Where", still, unit, pq)
        zeta = b.op("Div", b.op("Sub", qq, pp), b.op("Add", safe, safe))
        sign = b.op("Where", b.op("Less", zeta, none), b.const(-1.0, _DOUBLE), unit)
        root = b.op("Sqrt", b.op("Add", unit, b.op("Mul", zeta, zeta)))
        t = b.op("Div", sign, b.op("Add", b.op("Abs", zeta), root))
        t = b.op("Where", still, none, t)
        c = b.op("Div", unit, b.op("Sqrt", b.op("Add", unit, b.op("Mul", t, t))))
        s = b.op("Mul", c, t)

        def turned(p: ir.Value, q: ir.Value) -> ir.Value:
            new_p = b.op("Sub", b.op("Mul", c, p), b.op("Mul", s, q))
            return gone_round(new_p, b.op("Add", b.op("Mul", s, p), b.op("Mul", c, q)))

        return [turned(p, q), turned(vp, vq)]

    states = [g.val(torch.constant_pad_nd(x, [0, even - m])) for x in (wide, turned)]
    made = loop(g, g.operand(SWEEPS * (even - 1), torch.int64), states, [_DOUBLE] * 2, [3, 3], body)
    return tuple(_first(g, x.shape, v) for x, v in zip((wide, turned), made, strict=True))


def _first(g: Recorder, shape: Sequence[Any], x: ir.Value) -> Tensor:
    """As many along the last axis of a value as this shape has, which are there: nothing has to be proved."""
    axis = g.const([len(shape) - 1])
    return bound(g, shape, torch.float64, g.op("Slice", x, g.const([0]), g.sizes.dim(shape[-1]), axis))


def _tall(a: Tensor) -> tuple[Tensor, bool]:
    """[.., n, m] as [b, n, m], and whether transposed: where the example has n below m, as fewer columns are
    less work.
    """
    n, m = a.shape[-2:]
    is_wide = hint(n) < hint(m)
    flat = a.reshape(count_of(a), n, m)
    return (flat.mT if is_wide else flat), is_wide


def singular_values(g: Recorder, a: Tensor) -> Tensor:
    """[.., min(n, m)] in float64."""
    tall, _ = _tall(a)
    least = smaller(*a.shape[-2:])
    values = _first(g, [count_of(a), least], g.val(decomposed(g, tall)[1]))
    return values.reshape([*a.shape[:-2], least])


def _left_open(g: Recorder, what: str) -> None:
    g.assume("open", f"{what} are not unique, and the model's may be others than PyTorch's", "fixed")


@row("_linalg_svd")
def svd(
    g: Recorder, out: Any, a: Tensor, full_matrices: bool = False, compute_uv: bool = True, **kwargs: Any
) -> list[ir.Value]:
    """Singular values, and those of the vectors that `bases` says."""
    if g.is_empty(a):
        made = g.recorded(lambda: [_unit(o) for o in out])
        return [g.val(m) for m in made]
    if not compute_uv:
        values = g.operand(g.recorded(singular_values, g, a), out[1].dtype)
        return [without_elements(g, out[0]), values, without_elements(g, out[2])]
    _left_open(g, "singular vectors")
    made = g.recorded(_singular, g, a, full_matrices)
    return [g.operand(m, o.dtype) for m, o in zip(made, out, strict=True)]


def _singular(g: Recorder, a: Tensor, is_full: bool) -> list[Tensor]:
    """U, S and Vᵀ in float64."""
    tall, is_wide = _tall(a)
    n, m = tall.shape[-2:]
    least = smaller(n, m)
    left, values, right = decomposed(g, tall)
    values = _first(g, [count_of(a), least], g.val(values))
    rank = rank_of(values, a)
    left = _completed(g, left, rank, n if is_full else least)
    right = _completed(g, right, rank, m if is_full else least)
    u, v = (right, left) if is_wide else (left, right)
    u, v = oriented(u, v, rank)
    return [x.reshape([*a.shape[:-2], *x.shape[1:]]) for x in (u, values, v.mT)]


def _completed(g: Recorder, u: Tensor, rank: Tensor, count: Any) -> Tensor:
    """See `bases.completed`: the first columns of [b, n, m], as many as `rank` says, and others up to
    `count`, one of each matrix in a turn.
    """
    batch, n, m = u.shape
    places = torch.arange(count)
    u = u.index_select(-1, places.clamp(max=m - 1))
    u = torch.where(places < rank.unsqueeze(-2), u, 0.0)
    fewest = torch.cat([rank.reshape(-1), torch.full([1], count)]).amin()
    weights = g.val(earlier_first(n))

    def body(b: GraphWriter, turn: ir.Value, u: ir.Value, rank: ir.Value) -> list[ir.Value]:
        double = _DOUBLE
        used = b.op("ReduceSumSquare", u, b.const([2]), keepdims=0)
        left = b.op("Mul", b.op("Sub", b.const(1.0, double), used), weights)
        at = b.op("ArgMax", left, axis=1, keepdims=1)
        axis = b.op("Equal", positions(b, u, 1), b.op("Unsqueeze", at, b.const([2])))
        axis = b.op("Cast", axis, to=double)
        across = b.op("Transpose", u, perm=[0, 2, 1])
        for _ in range(2):  # what rounding has left of it
            axis = b.op("Sub", axis, b.op("MatMul", u, b.op("MatMul", across, axis)))
        axis = b.op("Div", axis, b.op("ReduceL2", axis, b.const([1]), keepdims=1))
        place = b.op("Unsqueeze", b.op("Add", rank, turn), b.const([2]))
        return [b.op("Where", b.op("Equal", positions(b, u, 2), place), axis, u), rank]

    turns = g.val(count - fewest)
    states = [g.val(u), g.val(rank)]
    made = loop(g, turns, states, [_DOUBLE, ir.DataType.INT64], [3, 2], body)
    return bound(g, [batch, n, count], torch.float64, made[0])


def _unit(o: Tensor) -> Tensor:
    if o.dim() < 2:
        return torch.zeros(o.shape, dtype=o.dtype)
    return torch.eye(o.shape[-2], o.shape[-1], dtype=o.dtype).expand(o.shape)


@row("_linalg_eigh")
def eigh(g: Recorder, out: Any, a: Tensor, uplo: str = "L", compute_v: bool = True) -> list[ir.Value]:
    """Eigenvalues of a symmetric matrix, singular values of it moved to where all are positive, moved back;
    and those of the eigenvectors that `bases` says.
    """
    if g.is_empty(a):
        made = g.recorded(lambda: [_unit(o) for o in out])
        return [g.val(m) for m in made]

    def call() -> tuple[Tensor, Tensor]:
        whole = symmetric(a, uplo == "L").double().reshape(count_of(a), *a.shape[-2:])
        size = torch.linalg.vector_norm(whole, dim=(-2, -1), keepdim=True)
        eye = torch.eye(a.shape[-1], dtype=torch.float64)
        _, values, vectors = decomposed(g, whole + size * eye)
        values, order = torch.sort(values - size.squeeze(-1), dim=-1, stable=True)
        vectors = torch.gather(vectors, 2, order.unsqueeze(1).expand(vectors.shape))
        return values.reshape(a.shape[:-1]), (vectors * signs(vectors)).reshape(a.shape)

    values, vectors = (g.operand(x, a.dtype) for x in g.recorded(call))
    if not compute_v:
        return [values, without_elements(g, out[1])]
    _left_open(g, "eigenvectors")
    return [values, vectors]


def symmetric(a: Tensor, lower: bool) -> Tensor:
    """The matrix that one triangle stands for."""
    return a.tril() + a.tril(-1).mT if lower else a.triu() + a.triu(1).mT


def _inverted(g: Recorder, a: Tensor, atol: Any, rtol: Any, hermitian: bool = False) -> Tensor:
    """V S⁺ Uᵀ in float64, S⁺ without the values below max(atol, rtol σ₁)."""
    whole = symmetric(a, True) if hermitian else a
    tall, turned = _tall(whole)
    u, s, v = decomposed(g, tall)
    limit = largest(s)
    rank = a.dim() - 2

    def each(x: Any) -> Any:
        x = torch.as_tensor(x)
        return x.double().expand(a.shape[:-2]).reshape(-1, 1) if rank else x.double().reshape(-1, 1)

    epsilon: Any = torch.finfo(a.dtype).eps * torch.sym_max(*a.shape[-2:])
    relative = each(rtol) if rtol is not None else (epsilon if atol is None else torch.zeros_like(limit))
    if atol is not None and rtol is None:
        relative = torch.where(each(atol) > 0, torch.zeros_like(limit), torch.full_like(limit, epsilon))
    limit = limit * relative
    if atol is not None:
        limit = torch.maximum(each(atol), limit)
    kept = s > limit
    inverse = torch.where(kept, 1 / torch.where(kept, s, torch.ones_like(s)), torch.zeros_like(s))
    made = (v * inverse.unsqueeze(1)) @ u.mT
    return (made.mT if turned else made).reshape([*a.shape[:-2], a.shape[-1], a.shape[-2]])


def _fake_pinv(a: Tensor, *_: Any, **__: Any) -> Tensor:
    return a.new_empty([*a.shape[:-2], a.shape[-1], a.shape[-2]])


@whole(torch.linalg.pinv, meta=_fake_pinv)
@row("linalg_pinv.atol_rtol_tensor")
def pinv(
    g: Recorder,
    out: Tensor,
    a: Tensor,
    rcond: Any = None,
    hermitian: bool = False,
    *,
    atol: Any = None,
    rtol: Any = None,
) -> ir.Value:
    """The pseudo-inverse."""
    if g.is_empty(a):
        return g.op("Expand", g.const(0, out.dtype), g.shape(out.shape))
    relative = rtol if rcond is None else rcond
    return g.operand(g.recorded(_inverted, g, a, atol, relative, hermitian), out.dtype)


@whole(torch.pinverse, Tensor.pinverse, meta=_fake_pinv)
def pinverse(g: Recorder, out: Tensor, a: Tensor, rcond: Any = 1e-15) -> ir.Value:
    """The same, by its older name."""
    return pinv(g, out, a, rcond)


def _is_vector(a: Tensor, b: Tensor) -> bool:
    """Whether right-hand sides are vectors: torch looks for a tensor of one axis less."""
    return b.dim() == 1 or b.dim() == a.dim() - 1


def _is_tall(a: Tensor, driver: str | None) -> bool:
    """Whether there are more equations than unknowns, or may be. Residuals alone depend on it, and those of
    other drivers than gels are refused then: no question to sizes that leave it open.
    """
    rows, columns = a.shape[-2:]
    if driver == "gels":
        return bool(rows > columns)
    return not statically_known_true(rows <= columns)


def _fake_lstsq(input: Tensor, b: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    batch, (rows, columns) = list(input.shape[:-2]), input.shape[-2:]
    sides = [] if _is_vector(input, b) else [b.shape[-1]]
    of_residuals = [*batch, *(sides or [1])] if _is_tall(input, driver) else [0]
    fewest: Any = torch.sym_min(rows, columns)
    of_values = [*batch, fewest] if driver in ("gelsd", "gelss") else [0]
    rank = input.new_empty([0] if driver == "gels" else batch, dtype=torch.int64)
    floats = [input.new_empty(sizes) for sizes in ([*batch, columns, *sides], of_residuals, of_values)]
    kind: Any = torch.return_types
    return kind.linalg_lstsq((floats[0], floats[1], rank, floats[2]))


@whole(torch.linalg.lstsq, meta=_fake_lstsq)
def lstsq(
    g: Recorder, out: Any, input: Tensor, b: Tensor, rcond: float | None = None, *, driver: str | None = None
) -> list[ir.Value | ExportError]:
    """A⁺ b, the shortest of the best solutions. torch leaves the residuals away where a rank is not full,
    which only gels rules out; for other drivers they are refused where something uses them.
    """
    if g.is_empty(input) or g.is_empty(b):
        raise ExportError(
            f"least squares of shapes {list(input.shape)} and {list(b.shape)} have nothing to fit. "
            "Give at least one equation, unknown and right-hand side."
        )
    vectors = _is_vector(input, b)
    right = b.unsqueeze(-1) if vectors else b

    def call() -> list[Tensor]:
        found = _inverted(g, input, None, rcond) @ right.double()
        rest = ((input.double() @ found - right.double()) ** 2).sum(-2)
        if vectors:
            found = found.squeeze(-1)
        values = singular_values(g, input)
        least = torch.finfo(input.dtype).eps * torch.sym_max(*input.shape[-2:]) if rcond is None else rcond
        rank = (values > largest(values) * least).sum(-1)
        return [found, rest, rank, values]

    solution, residuals, rank, values = (
        g.operand(m, o.dtype) for m, o in zip(g.recorded(call), out, strict=True)
    )
    none = g.op("Expand", g.const(0, input.dtype), g.const([0]))
    refused = ExportError(
        "torch.linalg.lstsq has residuals only where the rank is full, which the run alone knows with "
        f"driver={driver!r}. Use driver='gels', or compute them from the solution."
    )
    plain, tall = driver == "gels", _is_tall(input, driver)
    return [
        solution,
        (residuals if plain else refused) if tall else none,
        g.op("Expand", g.const(0), g.const([0])) if plain else rank,
        values if driver in ("gelsd", "gelss") else none,
    ]
