"""Matrix multiplication: bands of rows, read in place where they lie well, times packed panels of columns.

A tile of work is (matrix of the batch, band of rows, panel of columns), in this order: a band stays in a
thread's cache, or packed in its own memory, while the panels go by. The whole contraction happens in
registers (contract.py), so how the work is cut changes no result.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from ingot.codegen.builder import F32, I8, I64, Builder, Int
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine, host
from ingot.errors import ShapeError
from ingot.kernels.call import Call, Form, View, row_major
from ingot.kernels.contract import (
    FRAME_BYTES,
    PACKED_AT,
    SHARING,
    TILE_SLOTS,
    UNROLL,
    Ahead,
    Epilogue,
    Frame,
    Numbers,
    Reach,
    Tiling,
    name_of,
    offsets_table,
    operand_names,
    operand_slots,
    reach,
    register_tile,
    register_tiles,
    split,
)
from ingot.kernels.expression import Expression
from ingot.kernels.made_again import remembered
from ingot.kernels.notes import has_noted
from ingot.kernels.pack import PACK_SLOTS, PackedWeights, check_packable, pack, pack_calls, pack_mode
from ingot.kernels.units import VALUES, IntegerWeights, check_bytes, pack_units

_TILES = 16  # of work, at least, where the problem has them: enough to share out among a few threads
_ARRAYS = ("", "_outer", "_batch", "_row", "_column")  # an address; bytes along each dimension
_FEWEST_ROWS = 8  # for which rows are worth another order of the dimensions

GEMM_SLOTS = (
    *(f"a{part}" for part in _ARRAYS[:-1]), "a_inner",
    "b", "b_outer", "b_batch", "b_panel",
    *(f"out{part}" for part in _ARRAYS),
    "batches", "bands", "tiles", "tall", "height", "pitch", "panels", "panel_width",
    "n", "k", "k_blocks", "table", "steps",
    "near", "next_step", "next_tile", "pack", "tall_tile", "low_tile", "tall_last", "low_last",
)  # fmt: skip
#: Which arguments are the addresses of a, of the weights, of out and of the table of steps: `Form.places`.
_PLACES = tuple(GEMM_SLOTS.index(slot) for slot in ("a", "b", "out", "table"))


@kernel(*GEMM_SLOTS)
def gemm(k: Builder, *, in_place: bool, operands: tuple[str, ...]) -> None:
    """out[b, m, n] = epilogue(Σ_k a[b, m, k] · b[b, k, n]) for tiles begin..end of (b, band of m, panel)."""
    lanes = k.machine.lanes
    names = ["out", *(f"x{i}" for i in range(len(operands) // len(_ARRAYS)))]
    frame = Frame(k, k.scratch, (*TILE_SLOTS, *operand_names(len(names) - 1)))
    packing = Frame(k, k.at(k.scratch, FRAME_BYTES, I8), PACK_SLOTS)
    sums, band_memory = k.at(k.scratch, 2 * FRAME_BYTES, I8), k.at(k.scratch, PACKED_AT, I8)
    arg = {name: k.arg(name) for name in (*GEMM_SLOTS, *operands)}
    height, tall, panels, bands = (arg[name] for name in ("height", "tall", "panels", "bands"))

    for slot in ("table", "steps", "next_step", "next_tile"):
        frame.set(slot, arg[slot])
    frame.set("a_row", 0)
    for name in names:
        frame.set(f"{name}_column", arg[f"{name}_row"])  # a tile's columns are the matrix's rows
        frame.set(f"{name}_row", 0)
        frame.set(f"{name}_channel", arg[f"{name}_column"])
    fixed: dict[str, Int] = {
        "source_row": arg["a_row"], "source_inner": arg["a_inner"], "source_outer": 0, "source_batch": 0,
        "target": band_memory, "pitch": arg["pitch"], "target_batch": 0, "fill": 0,
        "inner": arg["k"], "blocks": arg["k_blocks"], "batches": 1, "order": 0,
    }  # fmt: skip
    for slot, value in fixed.items():
        packing.set(slot, value)

    packed = [I64(0), I64(-1)]  # what the band memory holds: the address of its first row, and which band
    with k.loop(k.begin, k.end, carry=packed) as work:
        panel, rest = k.rem(work, panels), k.div(work, panels)
        band, matrix = k.rem(rest, bands), k.div(rest, bands)
        batch, outer = k.rem(matrix, arg["batches"]), k.div(matrix, arg["batches"])
        first_tile, last_tile = (k.div(k.mul(k.add(band, i), arg["tiles"]), bands) for i in (0, 1))
        first_row = k.add(k.mul(first_tile, height), k.min(first_tile, tall))
        tall_tiles = k.max(k.sub(k.min(last_tile, tall), first_tile), 0)
        low_tiles = k.sub(k.sub(last_tile, first_tile), tall_tiles)

        def start(name: str, batch: Int = batch, outer: Int = outer, row: Int = first_row) -> Int:
            of_batch = k.add(k.mul(arg[f"{name}_batch"], batch), k.mul(arg[f"{name}_outer"], outer))
            return k.add(arg[name], of_batch, k.mul(arg[f"{name}_row"], row) if name != "b" else 0)

        source = start("a")
        if not in_place:
            stale = k.ir.or_(k.compare("!=", source, packed[0]), k.compare("!=", band, packed[1]))
            with k.when(stale):
                packing.set("source", source)
                packing.set("rows", k.add(k.mul(k.add(tall_tiles, low_tiles), height), tall_tiles))
                k.call(arg["pack"], packing.pointer, 0, arg["k_blocks"], k.scratch)
            packed[:] = [source, band]

        column = k.mul(panel, arg["panel_width"])
        weights = k.add(start("b"), k.mul(panel, arg["b_panel"]))
        frame.set("b", weights)
        # Behind the last panel of a matrix lies the first one of the next.
        again = k.ir.and_(k.compare("==", panel, k.sub(panels, 1)), k.compare("<", band, k.sub(bands, 1)))
        far = k.choose(again, start("b"), k.add(weights, arg["b_panel"]))
        following = k.choose(k.compare(">", arg["near"], 0), k.add(weights, arg["near"]), far)
        frame.set("valid", k.min(k.sub(arg["n"], column), arg["panel_width"]))
        last = k.compare("==", panel, k.sub(panels, 1))
        corners = {name: k.add(start(name), k.mul(column, arg[f"{name}_column"])) for name in names}
        tall_rows = k.mul(tall_tiles, k.add(height, 1))
        for kind, count, before in (("tall", tall_tiles, 0), ("low", low_tiles, tall_rows)):
            with k.when(k.compare(">", count, 0)):
                within = k.at(band_memory, k.mul(before, lanes), F32)
                frame.set("a", k.add(source, k.mul(before, arg["a_row"])) if in_place else within)
                frame.set("count", count)
                done = 0 if kind == "tall" else tall_tiles
                frame.set("next", k.add(following, k.mul(done, arg["next_tile"])))
                for name in names:
                    frame.set(name, k.add(corners[name], k.mul(before, arg[f"{name}_row"])))
                code = k.choose(last, arg[f"{kind}_last"], arg[f"{kind}_tile"])
                k.call(code, frame.pointer, 0, 0, sums)


@functools.lru_cache(1024)
def _starts(depth: int, step: int, distance: int) -> View:
    """Where each step of `step` values begins that lie `distance` apart."""
    return offsets_table(np.arange(0, depth, step) * distance)


@functools.lru_cache(1024)
def _packed_starts(depth: int, step: int, rows_in_band: int, lanes: int) -> View:
    """Where each step of `step` values begins in a packed band, in which blocks of `lanes` lie apart."""
    number, each = np.arange(-(-depth // step)), lanes // step
    return offsets_table(number // each * (rows_in_band * lanes) + number % each * step)


def definition(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The plain meaning, in float64."""
    with np.errstate(all="ignore"):
        return np.matmul(a.astype(np.float64), b.astype(np.float64))


def matmul(
    a: View,
    b: PackedWeights | View,
    out: View,
    epilogue: Epilogue | None = None,
    machine: Machine | None = None,
) -> list[Call]:
    """Calls that compute out[..., M, N] = epilogue(a[..., M, K] · b[..., K, N]) with batch dimensions
    broadcast.

    a and a runtime b are float32, float16 or bfloat16 with any strides; products are summed in float32. out
    and the epilogue's operands (broadcastable to out's shape) may have any dtype the expression computes. A
    b that is a View is packed by the first of the calls. K = 0 gives the epilogue of zeros.

    Raises ShapeError where the shapes do not fit, UnsupportedOperatorError for another dtype of a or b.
    """
    machine = machine or host()
    depth, n = (b.k, b.n) if isinstance(b, PackedWeights) else b.shape[-2:]
    m = out.shape[-2]
    if a.shape[-2:] != (m, depth) or out.shape[-1] != n:
        raise ShapeError(
            f"matrix product: found {a.shape} · [..., {depth}, {n}] -> {out.shape}; "
            "the inner sizes must be equal and the result [..., rows of the first, columns of the second]"
        )
    check_packable("first factor of a matrix product", a.dtype)
    if out.size == 0:
        return []
    calls: list[Call] = []
    if isinstance(b, View):
        operands = [v.broadcast_to(out.shape) for v in (epilogue.operands if epilogue else ())]
        if out.strides[-1] != 1 and n > 1 and out.strides[-2] == 1:
            turned = Epilogue(epilogue.expression, [v.swapped() for v in operands]) if epilogue else None
            return matmul(b.swapped(), a.swapped(), out.swapped(), turned, machine)
        calls, b = pack_calls(b, machine)
    return calls + product_calls(a, b, out, epilogue, machine)


def product_calls(
    a: View, b: PackedWeights, out: View, epilogue: Epilogue | None, machine: Machine, label: str = "matmul"
) -> list[Call]:
    """Calls for panels that are packed already, of floats or of integers; see `matmul`."""
    shape = out.shape
    views = [a if a.shape[:-1] == shape[:-1] else a.broadcast_to((*shape[:-1], a.shape[-1])), out]
    if epilogue is not None:
        views += [v if v.shape == shape else v.broadcast_to(shape) for v in epilogue.operands]
    expression = None if epilogue is None else epilogue.expression
    layouts = tuple([(v.dtype, v.strides) for v in views])
    return calls_of_product(views, shape, layouts, b, expression, machine, label)


def calls_of_product(
    views: Sequence[View],
    shape: tuple[int, ...],
    layouts: tuple[tuple[np.dtype, tuple[int, ...]], ...],
    b: PackedWeights,
    epilogue: Expression | None,
    machine: Machine,
    label: str,
) -> list[Call]:
    """The same for a, out and the epilogue's operands as `views`, which need not be of the product's `shape`:
    layouts are their dtypes, and their strides along its dimensions.
    """
    form, distances = _form_and_distances(shape, layouts, _panels(b), epilogue, machine, label)
    calls: list[Call] = []
    (table,) = form.constants
    for number, (weights, further) in enumerate(distances):
        x, y, *operands = [_further(v, d) for v, d in zip(views, further, strict=True)] if number else views
        panels = _further(b.view, weights) if number else b.view
        calls.append(form.call([x, panels, y, table, *operands], [x, panels, table, *operands], [y]))
    return calls


def integer_matmul(
    a: View, b: IntegerWeights, out: View, epilogue: Epilogue | None, machine: Machine, label: str = "matmul"
) -> list[Call]:
    """Calls that compute out[..., M, N] = epilogue(a' · b') in int32, with units as `kernels.units` says.

    a: int8 or uint8 of any strides. The sums that the epilogue gets still hold the pixels' zero point:
    `zero_terms` says what to subtract.
    """
    check_bytes("first factor of a product of integers", a.dtype)
    if a.shape[-2:] != (out.shape[-2], b.depth) or out.shape[-1] != b.n:
        raise ShapeError(
            f"product of integers: found {a.shape} · [..., {b.depth}, {b.n}] -> {out.shape}; "
            "the inner sizes must be equal and the result [..., rows of the first, columns of the second]"
        )
    return product_calls(a, b, out, epilogue, machine, label) if out.size else []


def _further(view: View, distance: int) -> View:
    """The same view so many bytes further."""
    return View(view.buffer, view.offset + distance, view.dtype, view.shape, view.strides)


class _Panels(NamedTuple):
    """Packed weights without their memory."""

    k: int
    n: int
    batch: tuple[int, ...]
    rows: int
    panel: int
    numbers: Numbers
    depth: int  # of the contraction
    step: int  # units in a step of the tile


def _panels(b: PackedWeights) -> _Panels:
    if isinstance(b, IntegerWeights):
        return _Panels(b.k, b.n, b.batch, b.rows, b.panel, b.numbers, b.depth, b.step)
    return _Panels(b.k, b.n, b.batch, b.rows, b.panel, "float32", b.k, UNROLL)


#: A dimension of the batch, or the rows: its size, and strides in elements of the weights and of each view.
_Dim: TypeAlias = tuple[int, int, list[int]]


def _collapse(dims: list[_Dim], row: _Dim) -> tuple[list[_Dim], _Dim]:
    """Fewer dimensions of batch: neighbours that follow each other become one, and rows where the weights
    stay.
    """
    dims = [d for d in dims if d[0] > 1]
    if not dims:
        return dims, row
    while dims and dims[-1][1] == 0 and _follow(dims[-1], row):
        last = dims.pop()
        row = last[0] * row[0], 0, row[2] if row[0] > 1 else last[2]
    kept: list[_Dim] = []
    for dim in dims:
        if kept and kept[-1][1] == dim[1] * dim[0] and _follow(kept[-1], dim):
            kept[-1] = kept[-1][0] * dim[0], dim[1], dim[2]
        else:
            kept.append(dim)
    return kept, row


def _as_rows(shape: tuple[int, ...], views: list[tuple[int, ...]]) -> _Dim | None:
    """The rows of a product whose weights are one matrix, where all dimensions of the batch follow each other
    in every view, as they mostly do: what `_collapse` would say.
    """
    size, inner = shape[-2], -2
    for d in range(len(shape) - 3, -1, -1):
        n = shape[d]
        if n < 2:
            continue
        if size == 1:
            size, inner = n, d
            continue
        for own in views:
            if own[d] != size * own[inner]:
                return None
        size *= n
    return size, 0, [own[inner] for own in views]


def _in_order(dims: list[_Dim], row: _Dim) -> tuple[list[_Dim], _Dim]:
    """The same with the rows that lie closest together as rows: how far apart they lie is part of the code,
    and further out that is what the sizes of the input say. A few would make a tile of a few rows; but with a
    few between them, rows can lie only so many distances apart.
    """
    apart, fewest = abs(row[2][0]), min(row[0], _FEWEST_ROWS)
    nearer = [
        n
        for n, (size, weights, steps) in enumerate(dims)
        if weights == 0 and size >= fewest and 0 < abs(steps[0]) < apart
    ]
    if row[0] < 2 or not nearer:
        return dims, row
    number = min(nearer, key=lambda n: abs(dims[n][2][0]))
    return _collapse([*dims[:number], row, *dims[number + 1 :]], dims[number])


def _follow(outer: _Dim, inner: _Dim) -> bool:
    return inner[0] == 1 or outer[2] == [inner[0] * step for step in inner[2]]


@dataclass(slots=True, eq=False)
class _Product:
    """All of a product but its rows, its batch, and how far apart things lie."""

    b: _Panels
    dtype: str  # of a
    sizes: tuple[int, ...]  # bytes of an element of a, out and the epilogue's operands
    reaches: tuple[Reach, ...]  # of out and the operands
    epilogue: Expression | None
    machine: Machine
    label: str
    lanes: int
    most: int  # rows of a register tile
    panels: int
    blocks: int  # of the depth, of one vector
    fitting: int  # tiles whose rows fit in their part of the cache
    written: int  # bytes of an element of out and of the operands together
    kernels: tuple[Kernel, Kernel]  # for packed rows, and for rows where they lie
    places: tuple[int, ...]  # of its calls' arguments that are addresses


@functools.lru_cache(1024)
def _product(
    b: _Panels,
    dtypes: tuple[np.dtype, ...],
    reaches: tuple[Reach, ...],
    epilogue: Expression | None,
    machine: Machine,
    label: str,
) -> _Product:
    lanes, sizes = machine.lanes, tuple([dtype.itemsize for dtype in dtypes])
    most, blocks = register_tile(machine, b.n, b.numbers).pixels, max(1, -(-b.k // lanes))
    operands = operand_slots(len(dtypes) - 2, _ARRAYS)
    return _Product(
        b, name_of(dtypes[0]), sizes, reaches, epilogue, machine, label,
        lanes, most, -(-b.n // b.panel), blocks,
        max(SHARING, machine.l2_bytes // 2 // (most * blocks * lanes * 4)), sum(sizes[1:]),
        (gemm(in_place=False, operands=operands), gemm(in_place=True, operands=operands)),
        (*_PLACES, *range(len(GEMM_SLOTS), len(GEMM_SLOTS) + len(operands), len(_ARRAYS))),
    )  # fmt: skip


#: For each call of a product: how many bytes further the weights and each view lie than those of the first.
_Distances: TypeAlias = tuple[tuple[int, tuple[int, ...]], ...]


def _form_and_distances(
    shape: tuple[int, ...],
    layouts: Sequence[tuple[np.dtype, tuple[int, ...]]],
    b: _Panels,
    epilogue: Expression | None,
    machine: Machine,
    label: str,
) -> tuple[Form, _Distances]:
    """All of the calls but their memory. layouts: dtype and strides of a, out and the epilogue's operands,
    all of the batch's shape.
    """
    row = None if b.batch or has_noted(b) else _as_rows(shape, [own for _, own in layouts])
    if row is None:
        return _in_batches(shape, tuple(layouts), b, epilogue, machine, label)
    rows, _, steps = row
    form = _form(
        _of_layouts(layouts, steps, b, epilogue, machine, label), rows, tuple(steps), _across(layouts)
    )
    return form, ((0, (0,) * len(layouts)),)


def _across(layouts: Sequence[tuple[np.dtype, tuple[int, ...]]]) -> tuple[int, ...]:
    return tuple([own[-1] for _, own in layouts])


def _of_layouts(
    layouts: Sequence[tuple[np.dtype, tuple[int, ...]]],
    steps: Sequence[int],
    b: _Panels,
    epilogue: Expression | None,
    machine: Machine,
    label: str,
) -> _Product:
    """The product of these dtypes and strides. steps: from row to row."""
    n = b.n
    reaches = [
        reach(name_of(dtype), own[-1], step != 0, n)
        for (dtype, own), step in zip(layouts[1:], steps[1:], strict=True)
    ]
    return _product(b, tuple([dtype for dtype, _ in layouts]), tuple(reaches), epilogue, machine, label)


@remembered(1024)  # layers that are alike, and shapes that come again
def _in_batches(
    shape: tuple[int, ...],
    layouts: tuple[tuple[np.dtype, tuple[int, ...]], ...],
    b: _Panels,
    epilogue: Expression | None,
    machine: Machine,
    label: str,
) -> tuple[Form, _Distances]:
    """The same where the batch is more than rows: each call is over at most two dimensions of it."""
    batch = shape[:-2]
    missing = len(batch) - len(b.batch)
    between = [0] * missing
    if b.batch:
        matrix = -(-b.n // b.panel) * b.rows * b.panel
        for size, whole, stride in zip(b.batch, batch[missing:], row_major(b.batch), strict=True):
            if size not in (1, whole):
                raise ShapeError(
                    f"matrix product: found batches {b.batch} of the second factor for {batch}; "
                    "they must be equal or 1"
                )
            between.append(0 if size == 1 else stride * matrix)
    along = list(map(list, zip(*[own for _, own in layouts], strict=True)))  # each dimension
    dims, row = _collapse(list(zip(batch, between, along[:-2], strict=True)), (shape[-2], 0, along[-2]))
    if dims:
        dims, row = _in_order(dims, row)
    outer, inner = dims[:-2], dims[-2:]
    rows, _, steps = row
    product = _of_layouts(layouts, steps, b, epilogue, machine, label)
    each = math.prod([size for size, _, _ in outer])
    form = _form(product, rows, tuple(steps), _across(layouts), tuple([(*d[:2], *d[2]) for d in inner]), each)
    if not outer:
        return form, ((0, (0,) * len(layouts)),)
    distances: list[tuple[int, tuple[int, ...]]] = []
    for index in itertools.product(*[range(n) for n, _, _ in outer]):
        weights = 4 * sum(i * dim[1] for i, dim in zip(index, outer, strict=True))
        further = [
            dtype.itemsize * sum(i * dim[2][j] for i, dim in zip(index, outer, strict=True))
            for j, (dtype, _) in enumerate(layouts)
        ]
        distances.append((weights, tuple(further)))
    return form, tuple(distances)


@remembered(1024)
def _form(
    p: _Product,
    rows: int,
    down: tuple[int, ...],
    across: tuple[int, ...],
    batch: tuple[tuple[int, ...], ...] = (),
    calls: int = 1,
) -> Form:
    """One of `calls` calls over at most two dimensions of batch: for each its size, and strides of the
    weights and of each view. down, across: the views' strides from row to row and within one.
    """
    b, lanes, count = p.b, p.lanes, len(down)
    (outer, outer_weights, *far), (inner, inner_weights, *near) = (*(_ONE,) * (2 - len(batch)), *batch)
    matrices = outer * inner
    tiles, tall, height = split(rows, p.most)
    bands = min(tiles, max(-(-tiles // p.fitting), -(-_TILES // (p.panels * matrices))))
    highest = height + 1 if tall else height
    rows_in_band = -(-tiles // bands) * highest

    # In place is 4 to 20 % faster than packed. Packed are other dtypes, matrices whose neighbours lie apart
    # in both directions, of which a tile would use one value of each cache line, and columns that all fall
    # on the same lines of the cache; of bytes all but unsigned ones that make whole units.
    row, step = down[0], across[0]
    if b.numbers == "float32":
        depth = b.k
        in_place = p.dtype == "float32" and (
            (step == 1 or rows == 1 or (row == 1 and step % 512 != 0))
            and max(abs(row) * rows, abs(step) * depth) < 2**28
        )
        unroll = UNROLL if not in_place or (step == 1 and depth % UNROLL == 0) else 1
        apart = step
    else:
        depth, unroll, apart = -(-b.depth // VALUES[b.numbers]), b.step, 1
        aligned = b.depth % 4 == 0 and (row % 4 == 0 or rows == 1) and depth % unroll == 0
        is_unsigned = b.numbers == "bytes" and p.dtype == "uint8"
        in_place = is_unsigned and step == 1 and aligned and abs(row) * rows < 2**30
        row //= 4
    if in_place:
        pitch, table = (row if rows > 1 else 0), _starts(depth, unroll, apart)
    else:
        pitch, table = lanes, _packed_starts(depth, unroll, rows_in_band, lanes)

    steps = -(-b.k // unroll)
    ahead = Ahead.of(tiles // bands, highest, steps, unroll * b.panel * 4)
    tiling = Tiling(
        p.most, b.panel // lanes, b.n - (p.panels - 1) * b.panel, p.panels == 1, lanes,
        calls * matrices * rows * b.n * p.written > p.machine.l2_bytes // 2, ahead.lines, pitch, unroll,
    )  # fmt: skip
    kernels = register_tiles(
        (1,), (highest, height), tiling, p.reaches[0], p.epilogue, p.reaches[1:], b.numbers
    )

    if not batch:
        arrays = [(0, 0, 0, y * size, x * size) for size, y, x in zip(p.sizes, down, across, strict=True)]
    else:
        far, near = far or (0,) * count, near or (0,) * count
        arrays = [
            (0, g * size, f * size, y * size, x * size)
            for size, g, f, y, x in zip(p.sizes, far, near, down, across, strict=True)
        ]
    mode = pack_mode((rows, b.depth), down[0], step)
    args: list[int | View | Kernel] = [
        *arrays[0], 0, outer_weights * 4, inner_weights * 4, b.rows * b.panel * 4, *arrays[1],
        inner, bands, tiles, tall, height, rows_in_band, p.panels, b.panel,
        b.n, b.depth, p.blocks, 0, steps,
        ahead.near, ahead.step, ahead.tile, packer(mode, p.dtype, b.numbers), *kernels,
    ]  # fmt: skip
    for array in arrays[2:]:
        args += array
    return Form(
        p.kernels[in_place],
        args,
        places=p.places,
        tiles=matrices * bands * p.panels,
        scratch=PACKED_AT + (0 if in_place else p.blocks * rows_in_band * lanes * 4),
        flops=2 * matrices * rows * b.n * b.depth,
        label=p.label,
        constants=(table,),
    )


#: No dimension of the batch.
_ONE = (1, 0)


@functools.cache
def packer(mode: str, dtype: str, numbers: Numbers) -> Kernel:
    """The kernel that packs a band of pixels for the tile."""
    if numbers == "float32":
        return pack(mode=mode, width=1, dtype=dtype)
    return pack_units(mode=mode, dtype=dtype, numbers=numbers)
