"""Singular values, and what is unique about them: norms, ranks, pseudo-inverses; eigenvalues of symmetric
matrices.

By one-sided Jacobi rotations in float64. Singular vectors and eigenvectors are defined up to sign (and more
where values repeat), so no other library's can be reproduced; they are used here only where signs cancel.
"""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ingot.capture.aten.linalg import bound
from ingot.capture.aten.loops import loop
from ingot.capture.aten.registry import row, whole
from ingot.capture.graph import GraphWriter
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
SWEEPS = 14
_DOUBLE = ir.DataType.DOUBLE


def _rounds(m: int) -> tuple[np.ndarray, np.ndarray]:
    """A tournament of m columns (m even): in each of m - 1 rounds every column meets another; and the order
    that puts [first of each pair, second of each pair] back.
    """
    circle, rows, back = list(range(m)), [], []
    for _ in range(m - 1):
        pairs = [(circle[i], circle[m - 1 - i]) for i in range(m // 2)]
        order = [p for p, _ in pairs] + [q for _, q in pairs]
        rows.append(order)
        back.append([order.index(c) for c in range(m)])
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return np.array(rows, dtype=np.int64), np.array(back, dtype=np.int64)


def decomposed(g: Recorder, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S and V of [b, n, m] in float64 with n ≥ m, S from the largest on; U and V up to signs."""
    m = g.sizes.number(a.shape[2])
    if m is None:
        raise ExportError(
            "singular values of a matrix whose smaller dimension is dynamic: the rotations are laid out for "
            "a "
            "number of columns. Make that dimension static with dynamic_shapes."
        )
    batch, n = a.shape[0], a.shape[1]
    wide, odd = a.double(), m % 2
    turned = torch.eye(m, dtype=torch.float64).expand(batch, m, m)
    if odd:
        wide, turned = torch.constant_pad_nd(wide, [0, 1]), torch.constant_pad_nd(turned, [0, 1])
    if m > 1:
        wide, turned = _rotated(g, wide, turned, m + odd)
    wide, turned = wide.narrow(2, 0, m), turned.narrow(2, 0, m)
    values = torch.linalg.vector_norm(wide, dim=1)
    values, order = torch.sort(values, dim=-1, descending=True)
    wide = torch.gather(wide, 2, order.unsqueeze(1).expand(batch, n, m))
    turned = torch.gather(turned, 2, order.unsqueeze(1).expand(batch, m, m))
    safe = torch.where(values > 0, values, torch.ones_like(values))
    return wide / safe.unsqueeze(1), values, turned


def _rotated(g: Recorder, wide: Tensor, turned: Tensor, m: int) -> tuple[Tensor, Tensor]:
    rows, back = _rounds(m)
    half = m // 2

    def body(b: GraphWriter, turn: ir.Value, x: ir.Value, v: ir.Value) -> list[ir.Value]:
        k = b.op("Mod", turn, b.const(m - 1))
        order = b.op("Gather", b.const(rows), k, axis=0)
        home = b.op("Gather", b.const(back), k, axis=0)
        first = b.op("Slice", order, b.const([0]), b.const([half]))
        second = b.op("Slice", order, b.const([half]), b.const([m]))
        p, q = (b.op("Gather", x, at, axis=2) for at in (first, second))
        vp, vq = (b.op("Gather", v, at, axis=2) for at in (first, second))
        down = b.const([1])
        pp, qq, pq = (
            b.op("ReduceSum", b.op("Mul", *pair), down, keepdims=1) for pair in ((p, p), (q, q), (p, q))
        )
        zero, one = b.const(0.0, _DOUBLE), b.const(1.0, _DOUBLE)
        still = b.op(
            "LessOrEqual", b.op("Mul", pq, pq), b.op("Mul", b.op("Mul", pp, qq), b.const(1e-34, _DOUBLE))
        )
        safe = b.op("Where", still, one, pq)
        zeta = b.op("Div", b.op("Sub", qq, pp), b.op("Add", safe, safe))
        sign = b.op("Where", b.op("Less", zeta, zero), b.const(-1.0, _DOUBLE), one)
        root = b.op("Sqrt", b.op("Add", one, b.op("Mul", zeta, zeta)))
        t = b.op("Div", sign, b.op("Add", b.op("Abs", zeta), root))
        t = b.op("Where", still, zero, t)
        c = b.op("Div", one, b.op("Sqrt", b.op("Add", one, b.op("Mul", t, t))))
        s = b.op("Mul", c, t)

        def turned(p: ir.Value, q: ir.Value) -> ir.Value:
            new_p = b.op("Sub", b.op("Mul", c, p), b.op("Mul", s, q))
            new_q = b.op("Add", b.op("Mul", s, p), b.op("Mul", c, q))
            return b.op("Gather", b.op("Concat", new_p, new_q, axis=2), home, axis=2)

        return [turned(p, q), turned(vp, vq)]

    states = [g.val(wide), g.val(turned)]
    made = loop(g, g.const(SWEEPS * (m - 1)), states, [_DOUBLE] * 2, [3, 3], body)
    return bound(g, wide.shape, torch.float64, made[0]), bound(g, turned.shape, torch.float64, made[1])


def _tall(a: Tensor) -> tuple[Tensor, bool]:
    """[.., n, m] as [b, n, m] with n ≥ m, and whether that took a transposition."""
    flat = a.reshape(-1, a.shape[-2], a.shape[-1])
    wide = bool(a.shape[-1] > a.shape[-2])
    return (flat.mT if wide else flat), wide


def singular_values(g: Recorder, a: Tensor) -> Tensor:
    """[.., min(n, m)] in float64."""
    tall, _ = _tall(a)
    values = decomposed(g, tall)[1]
    return values.reshape([*a.shape[:-2], values.shape[-1]])


def _refuse_vectors(what: str) -> ExportError:
    return ExportError(
        f"{what} are defined up to their signs, and which ones PyTorch's library picks cannot be "
        f"reproduced. Take "
        "the values alone (torch.linalg.svdvals, eigvalsh) or what does not depend on the signs "
        "(torch.linalg.pinv)."
    )


@row("_linalg_svd")
def svd(
    g: Recorder, out: Any, a: Tensor, full_matrices: bool = False, compute_uv: bool = True, **kwargs: Any
) -> list[ir.Value | ExportError]:
    """Singular values; the vectors are refused where something uses them."""
    if g.is_empty(a):
        made = g.recorded(lambda: [_unit(o) for o in out])
        return [g.val(m) for m in made]
    refused = _refuse_vectors("singular vectors")
    return [refused, g.operand(g.recorded(singular_values, g, a), out[1].dtype), refused]


def _unit(o: Tensor) -> Tensor:
    if o.dim() < 2:
        return torch.zeros(o.shape, dtype=o.dtype)
    return torch.eye(o.shape[-2], o.shape[-1], dtype=o.dtype).expand(o.shape)


@row("_linalg_eigh")
def eigh(
    g: Recorder, out: Any, a: Tensor, uplo: str = "L", compute_v: bool = True
) -> list[ir.Value | ExportError]:
    """Eigenvalues of a symmetric matrix: singular values of it moved to where all are positive, moved
    back.
    """
    if g.is_empty(a):
        made = g.recorded(lambda: [_unit(o) for o in out])
        return [g.val(m) for m in made]

    def call() -> Tensor:
        whole = symmetric(a, uplo == "L").double()
        size = torch.linalg.vector_norm(whole, dim=(-2, -1), keepdim=True)
        eye = torch.eye(a.shape[-1], dtype=torch.float64)
        values = singular_values(g, whole + size * eye) - size.squeeze(-1)
        return values.flip(-1)

    return [g.operand(g.recorded(call), out[0].dtype), _refuse_vectors("eigenvectors")]


def symmetric(a: Tensor, lower: bool) -> Tensor:
    """The matrix that one triangle stands for."""
    return a.tril() + a.tril(-1).mT if lower else a.triu() + a.triu(1).mT


def _inverted(g: Recorder, a: Tensor, atol: Any, rtol: Any, hermitian: bool = False) -> Tensor:
    """V S⁺ Uᵀ in float64, S⁺ without the values below max(atol, rtol σ₁)."""
    whole = symmetric(a, True) if hermitian else a
    tall, turned = _tall(whole)
    u, s, v = decomposed(g, tall)
    limit = s.narrow(-1, 0, 1)
    rank = a.dim() - 2

    def each(x: Any) -> Any:
        x = torch.as_tensor(x)
        return x.double().expand(a.shape[:-2]).reshape(-1, 1) if rank else x.double().reshape(-1, 1)

    epsilon: Any = torch.finfo(a.dtype).eps * tall.shape[-2]
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
        rank = (values > values.narrow(-1, 0, 1) * least).sum(-1)
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
