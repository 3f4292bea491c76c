"""Products of any numeric dtype, summed over any dimensions: what matrix products, Einsum and convolutions
are where no faster kernel has them (`kernels.gemm`, `kernels.conv`: float32 and what is computed in it).

    out[i, j …] = Σ a[i, k …] · b[k, j …]        every dimension with its own stride in each of the three

A dimension that a and out have makes rows, one that b and out have makes columns, one that all three have a
batch, and one that out lacks is summed over. Offsets of rows, batches and summands lie in tables, so that a
window of an image is as good as a matrix. A thread packs strips of rows, and walks the panels of columns with
them; sums stay in registers. Integers wrap around, half precision is summed in float32 and rounded once.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ingot.codegen.builder import I8, I64, Builder, Int, Value, vector
from ingot.codegen.elements import (
    FLOATS,
    INTEGERS,
    bytes_of,
    cast,
    gather_element_at,
    load_element,
    register_element,
    scatter_element,
    store_element,
)
from ingot.codegen.kernel import kernel
from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.call import Buffer, Call, View, constant, row_major
from ingot.kernels.contract import SHARING, name_of, split
from ingot.kernels.expression import Step, expression_of, identity
from ingot.kernels.iteration import TILES
from ingot.kernels.reduce import reduce

DTYPES = (*FLOATS, *INTEGERS)


@dataclass(frozen=True, slots=True)
class Dim:
    """One dimension: its size, and its strides in elements of a, b and out; None: out is summed over it."""

    size: int
    a: int
    b: int
    out: int | None


@dataclass(frozen=True, slots=True)
class Strips:
    """A second factor, packed: [matrix][panel][k][lanes of a panel's vectors]."""

    view: View
    vectors: int


@dataclass(frozen=True, slots=True)
class _Groups:
    """Dimensions by what they do."""

    batch: list[Dim]
    rows: list[Dim]
    columns: list[Dim]
    summed: list[Dim]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """How many matrices, rows, columns and summands there are."""
        batch, rows, columns, summed = (
            math.prod(d.size for d in group) for group in (self.batch, self.rows, self.columns, self.summed)
        )
        return batch, rows, columns, summed


def definition(a: np.ndarray, b: np.ndarray, dims: Sequence[Dim], shape: Sequence[int]) -> np.ndarray:
    """The plain meaning, of contiguous a and b: out as an array of the sizes of the dimensions that it has.

    Integers in their own dtype, floats in float64.
    """
    wide = a.dtype if a.dtype.kind in "iu" else np.dtype(np.float64)
    left, right = (
        np.lib.stride_tricks.as_strided(
            v.astype(wide).reshape(-1),
            [d.size for d in dims],
            [s * wide.itemsize for s in steps],
        )
        for v, steps in ((a, [d.a for d in dims]), (b, [d.b for d in dims]))
    )
    summed = tuple([i for i, d in enumerate(dims) if d.out is None])
    with np.errstate(all="ignore"):
        return (left * right).sum(summed, wide).reshape(shape)


# ---- the register tile -------------------------------------------------------------------------------------


def _wide(dtype: str) -> str:
    """In which dtype products are summed: integers in 32 or 64 bits, of which the lowest are the result."""
    kind = "float" if dtype in FLOATS else "int"
    return f"{kind}{64 if bytes_of(dtype) == 8 else 32}"


def _tile(dtype: str, columns: int, machine: Machine) -> tuple[int, int, int]:
    """Rows and vectors of a register tile, and lanes of a vector: sums, a row's vectors and temporaries fit
    in the registers.
    """
    wide = _wide(dtype)
    lanes = machine.vector_bytes // bytes_of(wide)
    vectors = 1 if columns <= lanes else 2
    many = machine.registers >= 32
    if wide in FLOATS and machine.fma:
        rows = 12 if many else 5  # the masks of the last columns take a register
    elif wide == "int64" and not many:  # a product takes several instructions
        rows, vectors = 4, 1
    else:
        rows = 10 if many else 3
    return rows, vectors, lanes


_CONTRACT = (
    "a", "b", "out", "batches", "places", "depth", "other", "k", "m", "n",
    "bands", "strips", "panels", "b_panel", "out_column",
)  # fmt: skip


@kernel(*_CONTRACT)
def contract(
    k: Builder, *, dtype: str, rows: int, vectors: int, in_place: bool, dense: bool, partial: int
) -> None:
    """Tiles begin..end of (matrix, band of strips, panel of columns).

    Offsets in the tables are in bytes: batches [matrices, 3] of a, b and out; places [m, 2] of a and out;
    depth [k] of a; other [k] of b, which is read where it lies with `in_place`. dense: columns of out lie
    side by side. partial: how many sums each output is split into, which hides the latency of an addition.
    """
    wide = _wide(dtype)
    size, element = bytes_of(wide), register_element(wide)
    lanes = k.machine.vector_bytes // size
    type_, width = vector(element, lanes), vectors * lanes
    depth, m, n, bands, strips, panels = (k.arg(x) for x in ("k", "m", "n", "bands", "strips", "panels"))
    a, b, out, batches, places, table, other = (k.pointer(x) for x in _CONTRACT[:7])
    b_panel, out_column = k.arg("b_panel"), k.arg("out_column")
    strip_bytes = k.mul(depth, rows * size)

    def pack(source: Value, first: Int, last: Int) -> None:
        """Strips of rows, step by step; places behind the last row hold it again."""
        with k.loop(first, last) as strip, k.loop(0, rows) as r:
            row = k.min(k.add(k.mul(strip, rows), r), k.sub(m, 1))
            line = k.at(source, k.load(places, I64, k.mul(row, 2)), I8)
            target = k.at(k.at(k.scratch, k.mul(k.sub(strip, first), strip_bytes), I8), r, element)
            with k.loop(0, depth) as step:
                value = load_element(k, k.at(line, k.load(table, I64, step), I8), dtype, 1)
                k.store(cast(k, value, dtype, wide), target, k.mul(step, rows))

    def multiply(x: Value, y: Value, total: Value) -> Value:
        if wide in FLOATS:
            return k.fma(x, y, total)
        return k.ir.add(total, k.ir.mul(x, y))

    held: list[Value] = [I64(-1), I64(-1)]  # which rows of a the strips in scratch memory are
    with k.loop(k.begin, k.end, carry=held) as work:
        panel, rest = k.rem(work, panels), k.div(work, panels)
        band, batch = k.rem(rest, bands), k.div(rest, bands)
        a_at, b_at, out_at = (k.load(batches, I64, k.add(k.mul(batch, 3), i)) for i in range(3))
        first, last = (k.div(k.mul(k.add(band, i), strips), bands) for i in (0, 1))
        stale = k.ir.or_(k.compare("!=", a_at, held[0]), k.compare("!=", band, held[1]))
        with k.when(stale):
            pack(k.at(a, a_at, I8), first, last)
        held[:] = [a_at, band]
        column = k.mul(panel, width)
        masks = [k.lanes_below(k.sub(k.sub(n, column), v * lanes), lanes) for v in range(vectors)]
        here = k.at(k.at(b, b_at, I8), k.mul(panel, b_panel), I8)
        goal = k.at(k.at(out, out_at, I8), k.mul(column, out_column), I8)

        def line(step: Int, here: Value = here, masks: list[Value] = masks) -> list[Value]:
            """One row of the panel."""
            if not in_place:
                return [k.load(here, type_, k.add(k.mul(step, width), v * lanes)) for v in range(vectors)]
            start = k.at(here, k.load(other, I64, step), I8)
            return [load_element(k, start, dtype, lanes, v * lanes, masks[v]) for v in range(vectors)]

        with k.loop(first, last) as strip:
            packed = k.at(k.scratch, k.mul(k.sub(strip, first), strip_bytes), I8)
            total = [k.zero(type_) for _ in range(partial * rows * vectors)]

            def add(step: Int, part: int, packed: Value = packed, total: list[Value] = total) -> None:
                """One summand of every output."""
                held = line(step)
                for r in range(rows):
                    value = k.broadcast(k.load(packed, element, k.add(k.mul(step, rows), r)), lanes)
                    for v in range(vectors):
                        at = (part * rows + r) * vectors + v
                        total[at] = multiply(value, held[v], total[at])

            whole = k.sub(depth, k.rem(depth, partial))
            with k.loop(0, whole, partial, carry=total) as step:
                for part in range(partial):
                    add(k.add(step, part), part)
            if partial > 1:
                with k.loop(whole, depth, carry=total) as step:
                    add(step, 0)
            plus = k.ir.fadd if wide in FLOATS else k.ir.add
            while len(total) > rows * vectors:
                half = len(total) // 2
                total = [plus(x, y) for x, y in zip(total[:half], total[half:], strict=True)]
            for r in range(rows):
                row = k.add(k.mul(strip, rows), r)
                with k.when(k.compare("<", row, m)):
                    place = k.at(goal, k.load(places, I64, k.add(k.mul(row, 2), 1)), I8)
                    for v in range(vectors):
                        value = cast(k, total[r * vectors + v], wide, dtype)
                        if dense:
                            store_element(k, value, place, dtype, v * lanes, masks[v])
                        else:
                            shift = bytes_of(dtype).bit_length() - 1
                            stride = k.ir.ashr(out_column, I64(shift))
                            left = k.sub(k.sub(n, column), v * lanes)
                            at = k.at(place, k.mul(out_column, v * lanes), I8)
                            scatter_element(k, value, at, dtype, stride, left)


@kernel("source", "target", "matrices", "places", "depth", "k", "n", "panels")
def strips_of(k: Builder, *, dtype: str, vectors: int, dense: bool) -> None:
    """Panels begin..end of the second factor, step by step, with zeros behind the last column.

    Offsets in the tables are in bytes: matrices, places [n] of columns, depth [k]. dense: columns lie side by
    side.
    """
    wide = _wide(dtype)
    element = register_element(wide)
    lanes = k.machine.vector_bytes // bytes_of(wide)
    depth, n, panels, table = k.arg("k"), k.arg("n"), k.arg("panels"), k.pointer("depth")
    with k.loop(k.begin, k.end) as work:
        panel, matrix = k.rem(work, panels), k.div(work, panels)
        source = k.at(k.pointer("source"), k.load(k.pointer("matrices"), I64, matrix), I8)
        width = vectors * lanes
        target = k.at(k.pointer("target"), k.mul(k.mul(work, depth), width), element)
        with k.loop(0, vectors) as v:
            column = k.add(k.mul(panel, width), k.mul(v, lanes))
            mask = k.lanes_below(k.sub(n, column), lanes)
            goal = k.at(target, k.mul(v, lanes), element)
            if dense:
                corner = k.at(source, k.mul(column, bytes_of(dtype)), I8)
                with k.loop(0, depth) as step:
                    line = k.at(corner, k.load(table, I64, step), I8)
                    value = load_element(k, line, dtype, lanes, 0, mask)
                    k.store(cast(k, value, dtype, wide), goal, k.mul(step, width))
            else:
                offsets = k.load(k.pointer("places"), vector(I64, lanes), column, mask)
                with k.loop(0, depth) as step:
                    line = k.at(source, k.load(table, I64, step), I8)
                    value = gather_element_at(k, line, dtype, lanes, offsets, mask, step=I8)
                    k.store(cast(k, value, dtype, wide), goal, k.mul(step, width))


# ---- calls -------------------------------------------------------------------------------------------------


def _grouped(dims: Sequence[Dim]) -> _Groups:
    """Dimensions by what they do; columns are those that are one in out, the others become batches."""
    batch, rows, columns, summed = list[Dim](), list[Dim](), list[Dim](), list[Dim]()
    for dim in dims:
        if dim.out is None:
            summed.append(dim)
        elif dim.size == 1:
            continue
        elif dim.a and not dim.b:
            rows.append(dim)
        elif dim.b and not dim.a:
            columns.append(dim)
        else:
            batch.append(dim)
    columns.sort(key=lambda d: -abs(d.out or 0))
    while len(columns) > 1 and any(
        outer.out != inner.size * (inner.out or 0) for outer, inner in itertools.pairwise(columns)
    ):
        batch.append(columns.pop(0))
    return _Groups(batch, rows, columns, summed)


def _offsets(dims: Sequence[Dim], strides: Sequence[int], itemsize: int) -> np.ndarray:
    """The offset in bytes of every place of these dimensions, the last one running fastest."""
    total = np.zeros(1, np.int64)
    for dim, stride in zip(dims, strides, strict=True):
        total = (total[:, None] + np.arange(dim.size) * (stride * itemsize)).reshape(-1)
    return total


def _matrices(groups: _Groups) -> tuple[list[Dim], np.ndarray]:
    """The dimensions of a batch in which b differs, and which of its matrices each of the batch has."""
    own = [d for d in groups.batch if d.b]
    steps, step = dict[int, int](), 1
    for dim in reversed(own):
        steps[id(dim)], step = step, step * dim.size
    return own, _offsets(groups.batch, [steps.get(id(d), 0) for d in groups.batch], 1)


def packing_key(dims: Sequence[Dim]) -> Hashable:
    """What of the dimensions decides how `pack_strips` packs."""
    groups = _grouped(dims)
    own, _ = _matrices(groups)
    return tuple([tuple([(d.size, d.b) for d in part]) for part in (own, groups.summed, groups.columns)])


def _swapped(dims: Sequence[Dim]) -> list[Dim]:
    return [replace(d, a=d.b, b=d.a) for d in dims]


def pack_strips(array: np.ndarray, dims: Sequence[Dim], machine: Machine) -> Strips:
    """Constant weights as the second factor of a `contraction` over these dimensions, whose strides are those
    of the contiguous array.
    """
    groups, dtype = _grouped(dims), name_of(array.dtype)
    _, _, n, depth = groups.shape
    _, vectors, lanes = _tile(dtype, n, machine)
    own, _ = _matrices(groups)
    wide = np.dtype(_wide(dtype))
    flat = np.ascontiguousarray(array).reshape(-1)
    if not flat.size:
        return Strips(constant(flat.astype(wide)), vectors)
    order = [*own, *groups.summed, *groups.columns]
    places = _offsets(order, [d.b for d in order], 1).reshape(-1, depth, n)
    width = vectors * lanes
    panels = -(-n // width)
    packed = np.zeros((len(places), panels, depth, width), wide)
    for panel in range(panels):
        part = places[:, :, panel * width : (panel + 1) * width]
        packed[:, panel, :, : part.shape[2]] = flat[part]
    return Strips(constant(packed.reshape(-1)), vectors)


def contraction(
    a: View, b: View | Strips, out: View, dims: Sequence[Dim], machine: Machine, label: str = "matmul"
) -> list[Call]:
    """Calls that compute out = Σ a · b over these dimensions; the views' own shapes and strides do not
    matter, only where they begin. All have one dtype of DTYPES.

    Raises UnsupportedOperatorError for another dtype.
    """
    dtype = name_of(out.dtype)
    if dtype not in DTYPES or name_of(a.dtype) != dtype or (isinstance(b, View) and b.dtype != a.dtype):
        raise UnsupportedOperatorError(
            f"{label}: found {a.dtype.name} and a result of {dtype}, generated products want one dtype of "
            f"{', '.join(DTYPES)}; cast the factors, or let the host compute it"
        )
    if any(d.size == 0 for d in dims if d.out is not None):
        return []
    groups = _grouped(dims)
    if isinstance(b, View):
        turned = _grouped(_swapped(dims))
        if min(groups.shape[1:3]) == 1 and not any(
            g.columns and _steps(g.columns) == 1 for g in (groups, turned)
        ):
            return [_vectors(a, b, out, dims, dtype, machine, label)]
        if _columns_first(turned, groups, machine.vector_bytes // bytes_of(_wide(dtype))):
            a, b, groups = b, a, turned
    return _calls(a, b, out, groups, dtype, machine, label)


@dataclass(frozen=True, slots=True)
class Matrices:
    """Constant matrices [..., K, N], packed as second factors of `multiply`."""

    strips: Strips
    shape: tuple[int, ...]


def pack_matrices(array: np.ndarray, machine: Machine) -> Matrices:
    """Matrices [..., K, N] of one of DTYPES, of any strides."""
    *batch, depth, columns = array.shape
    steps = row_major(array.shape)
    dims = [Dim(n, 1, s, 1) for n, s in zip(batch, steps, strict=False)]
    dims += [Dim(columns, 0, 1, 1), Dim(depth, 1, steps[-2], None)]
    return Matrices(pack_strips(array, dims, machine), array.shape)


def multiply(a: View, b: View | Matrices, out: View, machine: Machine) -> list[Call]:
    """Calls that compute out[..., M, N] = a[..., M, K] @ b[..., K, N], batches broadcast, of one dtype."""
    batch, (rows, columns) = out.shape[:-2], out.shape[-2:]
    depth = a.shape[-1]
    left = a.broadcast_to((*batch, rows, depth))
    if isinstance(b, View):
        right = b.broadcast_to((*batch, depth, columns)).strides
    else:
        missing = len(out.shape) - len(b.shape)
        own = zip(b.shape[:-2], row_major(b.shape), strict=False)
        right = (*[0] * missing, *(0 if n == 1 else s for n, s in own), columns, 1)
    dims = [Dim(*each) for each in zip(batch, left.strides[:-2], right[:-2], out.strides[:-2], strict=True)]
    dims.append(Dim(rows, left.strides[-2], 0, out.strides[-2]))
    dims.append(Dim(columns, 0, right[-1], out.strides[-1]))
    dims.append(Dim(depth, left.strides[-1], right[-2], None))
    if isinstance(b, View):
        return contraction(a, b, out, dims, machine)
    if out.size == 0:
        return []
    *around, line, column, sum_ = dims
    around = [d for d in around if d.size > 1]
    groups = _Groups([d for d in around if d.b], [*(d for d in around if not d.b), line], [column], [sum_])
    return _calls(a, b.strips, out, groups, name_of(out.dtype), machine, "matmul")


def _vectors(
    a: View, b: View, out: View, dims: Sequence[Dim], dtype: str, machine: Machine, label: str
) -> Call:
    """Where a factor is a vector there is nothing to keep in registers: a sum of products, as they lie."""
    if sum(bool(d.a) for d in dims) < sum(bool(d.b) for d in dims):
        a, b, dims = b, a, _swapped(dims)  # the walk follows the first operand: the matrix
    kept = [d for d in dims if d.out is not None]
    order = [*kept, *(d for d in dims if d.out is None)]
    sizes = [d.size for d in order]
    views = [v.with_dims(sizes, steps) for v, steps in ((a, [d.a for d in order]), (b, [d.b for d in order]))]
    target = out.with_dims(sizes[: len(kept)], [d.out or 0 for d in kept])
    wide = _wide(dtype) if dtype in FLOATS else dtype
    steps = [Step("Mul", (0, 1), wide)]
    if wide != dtype:
        steps = [Step("Cast", (0,), wide), Step("Cast", (1,), wide), Step("Mul", (2, 3), wide)]
    product = expression_of((dtype, dtype), tuple(steps), (1 + len(steps),))
    rounded = identity(dtype) if wide == dtype else expression_of((wide,), (Step("Cast", (0,), dtype),), (1,))
    axes = range(len(kept), len(order))
    return reduce("ReduceSum", views, axes, target, machine, product, rounded, label)


def _columns_first(turned: _Groups, groups: _Groups, lanes: int) -> bool:
    """Whether the factors had better change places: columns that lie side by side and fill vectors."""

    def rank(g: _Groups) -> tuple[bool, bool, int]:
        columns = g.shape[2]
        return columns >= lanes // 2, bool(g.columns) and g.columns[-1].out == 1, -g.shape[0]

    if min(groups.shape[2], turned.shape[2]) == 1:
        return turned.shape[2] > groups.shape[2]

    return rank(turned) > rank(groups)


def _calls(
    a: View, b: View | Strips, out: View, groups: _Groups, dtype: str, machine: Machine, label: str
) -> list[Call]:
    count, m, n, depth = groups.shape
    size, wide = out.dtype.itemsize, bytes_of(_wide(dtype))
    most, vectors, lanes = _tile(dtype, n, machine)
    strips, _, _ = split(m, most)
    rows = -(-m // strips)
    strips = -(-m // rows)
    own, which = _matrices(groups)

    calls: list[Call] = []
    columns, summed = groups.columns, groups.summed
    b_depth = constant(_offsets(summed, [d.b for d in summed], size))
    dense = n == 1 or _steps(columns) == 1
    # Few rows do not pay for packing what they use once, unless a masked load is one of every lane.
    few = m <= 2 * most and machine.vector_bytes > 16
    in_place = isinstance(b, View) and few and dense and size == wide
    if in_place and m < 5:  # longer pieces of b's rows, which lie far apart
        longer = (8 if m == 1 else 4) if machine.registers >= 32 else (4 if m == 1 else 2)
        vectors = min(longer, -(-n // lanes))
    width = vectors * lanes
    panels = -(-n // width)
    if isinstance(b, Strips):
        factor = b.view
    elif in_place:
        factor = b
    else:
        memory = Buffer(len(_offsets(own, [0] * len(own), 1)) * panels * depth * width * wide)
        factor = View(memory, 0, np.dtype(_wide(dtype)), (memory.nbytes // wide,), (1,))
        matrices = constant(_offsets(own, [d.b for d in own], size))
        places = constant(_offsets(columns, [d.b for d in columns], size))
        calls.append(
            Call(
                strips_of(dtype=_stored(dtype), vectors=vectors, dense=dense),
                [b, factor, matrices, places, b_depth, depth, n, panels],
                tiles=matrices.size * panels,
                reads=[b, matrices, places, b_depth],
                writes=[factor],
                flops=matrices.size * n * depth,
                label=label,
            )
        )
    if in_place:
        b_batch, b_panel = _offsets(groups.batch, [d.b for d in groups.batch], size), width * size
    else:
        b_batch, b_panel = which * (panels * depth * width * wide), depth * width * wide
    batch = groups.batch
    batches = constant(
        np.stack(
            [
                _offsets(batch, [d.a for d in batch], size),
                b_batch,
                _offsets(batch, [d.out or 0 for d in batch], size),
            ],
            1,
        )
    )
    row_dims = groups.rows
    places = constant(
        np.stack([_offsets(row_dims, [s or 0 for s in steps], size) for steps in _both(row_dims)], 1)
    )
    table = constant(_offsets(summed, [d.a for d in summed], size))
    out_column = (columns[-1].out or 0) if columns else 1
    # Bands of strips fit in half of L2, or are a few strips, and there is work to share out.
    fitting = max(SHARING, machine.l2_bytes // 2 // max(1, depth * rows * wide))
    bands = min(strips, max(-(-strips // fitting), -(-TILES // (panels * count))))
    partial = max(1, min(4, (12 if machine.registers >= 32 else 5) // (rows * vectors)))
    partial = 4 if partial == 4 else 2 if partial > 1 else 1
    calls.append(
        Call(
            contract(
                dtype=_stored(dtype), rows=rows, vectors=vectors, in_place=in_place,
                dense=out_column == 1 or n == 1, partial=partial,
            ),
            [
                a, factor, out, batches, places, table, b_depth, depth, m, n,
                bands, strips, panels, b_panel, out_column * size,
            ],
            tiles=count * bands * panels,
            reads=[a, factor, batches, places, table, b_depth],
            writes=[out],
            scratch=-(-strips // bands) * rows * depth * wide,
            flops=2 * count * m * n * depth,
            label=label,
        )
    )  # fmt: skip
    return calls


def _stored(dtype: str) -> str:
    """The dtype as kernels have it: signed and unsigned integers are the same to a sum of products."""
    return dtype if dtype in FLOATS else f"int{8 * bytes_of(dtype)}"


def _both(dims: Sequence[Dim]) -> tuple[list[int], list[int | None]]:
    return [d.a for d in dims], [d.out for d in dims]


def _steps(columns: Sequence[Dim]) -> int | None:
    """The one stride with which b has these columns; None: there is no single one."""
    for outer, inner in itertools.pairwise(columns):
        if outer.b != inner.size * inner.b:
            return None
    return columns[-1].b if columns else None
