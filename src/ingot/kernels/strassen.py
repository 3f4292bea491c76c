"""Matrix products with an eighth fewer multiplications: Strassen's scheme in Winograd's form, inside of a few
register tiles (Strassen, "Gaussian elimination is not optimal", 1969; Higham, "Accuracy and Stability of
Numerical Algorithms", section 23).

Two tiles of rows below each other by two panels of columns are four outputs of a product of 2 × 2 blocks,
where the contraction is cut in halves. Seven products of sums of the blocks of `a` (made while a band of rows
is packed) with sums of the blocks of `b` (made once, beside its panels) give all four:

    x = a11·b11             c11 = x + a12·b21
    x += s2·t2              y = s1·t1               c12 = x + y + s4·b22
    z = x + s3·t3           c22 = z + y             c21 = z - a22·t4

    s1 = a21 + a22   s2 = s1 - a11   s3 = a11 - a21   s4 = a12 - s2
    t1 = b12 - b11   t2 = b22 - t1   t3 = b22 - b12   t4 = t2 - b21

x, y and z are as large as the tiles of a band times a few panels, and stay in the cache. A row is rounded as
the larger one of its pair is, so where the rows of a pair are not of a size, or one has an infinity or a NaN,
the whole band is multiplied as ever, by eight products; so are panels whose columns are not of a size.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ingot.codegen.builder import F32, I8, I32, Builder, Int, Value, vector
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, Form, View, constant
from ingot.kernels.contract import (
    FRAME_BYTES,
    MOST_OPERANDS,
    PACKED_AT,
    PANEL_VECTORS,
    PART_SLOTS,
    SHARING,
    TILE_SLOTS,
    UNROLL,
    Ahead,
    Epilogue,
    Frame,
    Part,
    Reach,
    name_of,
    offsets_table,
    operand_names,
    operand_slots,
    reach,
    register_tile,
    tile,
)
from ingot.kernels.expression import Expression
from ingot.kernels.gemm import matmul
from ingot.kernels.made_again import remembered
from ingot.kernels.pack import PackedWeights, aligned_floats, run_now

_TILES = 16  # of work, at least, where the problem has them
_ARRAYS = ("", "_row", "_column")  # an address; bytes along each dimension

# The smallest products that are faster this way.
_FEWEST_ROWS, _LEAST_DEPTH, _FEWEST_COLUMNS = 36, 128, 256

#: Rows and columns whose largest values differ by a factor of about 2 to more than this are not of a size.
MOST_APART = 3
#: Biased exponent from which sums might overflow; infinities and NaNs have 255.
_LARGE = 248

# The sums of blocks of a, in the order in which they are packed. A band that is multiplied as ever uses the
# blocks themselves.
_A = ("a11", "a12", "a22", "s1", "s2", "s3", "s4", "a21")
#: The blocks of a pair of panels as they lie, and sums of them beside the panels, as many; t4 is negated.
_B, _SUMS = ("b11", "b21", "b12", "b22"), ("t1", "t2", "t3", "-t4")


class _Step(NamedTuple):
    """One product: which blocks or sums; where its sums begin, go to and what they get at the end; which
    output they then are.
    """

    a: str
    b: str
    start: str = ""
    keep: str = ""
    plus: str = ""
    out: str = ""

    @property
    def does(self) -> tuple[bool, bool, bool, bool]:
        """What `Part` says of a tile."""
        return bool(self.start), bool(self.keep), bool(self.plus), bool(self.out)

    @property
    def lower(self) -> bool:
        """Whether only the rows of the lower tile count."""
        return self.out.startswith("c2") or self.a == "a21" or (self.a == "a22" and not self.out)


_SEVEN = (
    _Step("a11", "b11", keep="x"),
    _Step("a12", "b21", start="x", out="c11"),
    _Step("s2", "t2", start="x", keep="x"),
    _Step("s1", "t1", keep="y"),
    _Step("s4", "b22", start="x", plus="y", out="c12"),
    _Step("s3", "t3", start="x", keep="z", plus="y", out="c22"),
    _Step("a22", "-t4", start="z", out="c21"),
)
_EIGHT = (
    _Step("a11", "b11", keep="x"),
    _Step("a12", "b21", start="x", out="c11"),
    _Step("a11", "b12", keep="x"),
    _Step("a12", "b22", start="x", out="c12"),
    _Step("a21", "b11", keep="x"),
    _Step("a22", "b21", start="x", out="c21"),
    _Step("a21", "b12", keep="x"),
    _Step("a22", "b22", start="x", out="c22"),
)
#: What kinds of tile there are: what it does, and whether it has the lower tile's rows and the right panel.
_KINDS = tuple(dict.fromkeys((step.does, step.lower, step.out.endswith("2")) for step in (*_SEVEN, *_EIGHT)))

SLOTS = (
    "a", "a_row", "b", "half", "sums", "uneven", *(f"out{part}" for part in _ARRAYS),
    "pairs", "odd", "bands", "tiles", "height", "pitch", "columns", "shares", "panel", "n", "blocks",
    "table", "steps", "near", "next_step", "next_tile", "pack",
    *(f"{kind}_{i}" for kind in ("tall", "low", "odd") for i in range(len(_KINDS))),
)  # fmt: skip
_PLACES = tuple(SLOTS.index(slot) for slot in ("a", "b", "sums", "uneven", "out", "table"))

BAND_SLOTS = (
    "source", "source_row", "target", "tiles", "pitch", "blocks", "tall", "low", "odd", "height", "uneven",
)  # fmt: skip
SUM_SLOTS = ("panels", "half", "sums", "uneven")


@kernel(*SUM_SLOTS)
def sum_panels(k: Builder) -> None:
    """Of pairs begin..end of panels, each of two halves of `half` floats: the four sums, one after the
    other. At uneven[pair]: 1 where columns of the pair are not of a size, else 0.
    """
    lanes, half = k.machine.lanes, k.arg("half")
    type_, words = vector(F32, lanes), vector(I32, lanes)
    with k.loop(k.begin, k.end) as pair:
        panels = k.at(k.pointer("panels"), k.mul(k.mul(pair, 4), half), F32)
        sums = k.at(k.pointer("sums"), k.mul(k.mul(pair, 4), half), F32)
        most = [k.zero(words) for _ in range(2 * PANEL_VECTORS)]  # of the left panel, of the right one
        with k.loop(0, half, PANEL_VECTORS * lanes, carry=most) as row:
            for v in range(PANEL_VECTORS):
                at = k.add(row, v * lanes)
                b11, b21, b12, b22 = (
                    k.load(k.at(panels, k.add(k.mul(half, i), at), F32), type_) for i in range(4)
                )
                t1 = k.ir.fsub(b12, b11)
                t2, t3 = k.ir.fsub(b22, t1), k.ir.fsub(b22, b12)
                for i, value in enumerate((t1, t2, t3, k.ir.fsub(b21, t2))):
                    k.store(value, k.at(sums, k.add(k.mul(half, i), at), F32))
                for side, blocks in enumerate(((b11, b21), (b12, b22))):
                    for block in blocks:
                        number = side * PANEL_VECTORS + v
                        most[number] = _larger(k, most[number], block)
        uneven = k.zero(words)
        for left, right in zip(most[:PANEL_VECTORS], most[PANEL_VECTORS:], strict=True):
            bad = _is_uneven(k, *(k.ir.lshr(side, k.splat(23, words)) for side in (left, right)))
            uneven = k.ir.or_(uneven, k.ir.zext(bad, words))
        k.store(k.reduce_lanes(k.ir.or_, uneven), k.at(k.pointer("uneven"), pair, I32))


def _larger(k: Builder, most: Value, value: Value) -> Value:
    """The larger ones of `most` and |value|, as the bits of floats (a NaN is larger than any)."""
    bits = k.ir.and_(k.ir.bitcast(value, most.type), k.splat(0x7FFFFFFF, most.type))
    return k.intrinsic("smax", most, bits)


def _is_uneven(k: Builder, a: Value, b: Value) -> Value:
    """Whether numbers with these biased exponents are not of a size, or too large for sums."""
    larger, smaller = k.intrinsic("smax", a, b), k.intrinsic("smin", a, b)
    apart = k.ir.icmp_signed(">", k.ir.sub(larger, smaller), _same(k, MOST_APART, a))
    return k.ir.or_(apart, k.ir.icmp_signed(">=", larger, _same(k, _LARGE, a)))


def _same(k: Builder, number: int, like: Value) -> Value:
    return k.splat(number, like.type)


@kernel(*BAND_SLOTS)
def sum_rows(k: Builder) -> None:
    """Pack a band of rows, and the sums of their blocks: [8][tiles][blocks][pitch][lanes]. `tall` tiles of
    `height` + 1 rows, with as many rows below, come before `low` ones of `height`; of the last one, where
    `odd` is 1, the last row has none below. At "uneven": 1 where the rows of a pair are not of a size,
    else 0.
    """
    lanes, blocks, pitch = k.machine.lanes, k.arg("blocks"), k.arg("pitch")
    type_, words = vector(F32, lanes), vector(I32, lanes)
    tile_floats = k.mul(k.mul(blocks, pitch), lanes)
    plane = k.mul(tile_floats, k.arg("tiles"))
    zero, uneven = k.zero(type_), k.pointer("uneven")
    k.store(I32(0), uneven)

    def exponent(most: Value) -> Value:
        return k.ir.lshr(k.reduce_lanes(lambda x, y: k.intrinsic("smax", x, y), most), I32(23))

    def pack(source: Value, target: Value, lower: Value | None) -> None:
        """One row of a tile, and its partner below."""
        most = [k.zero(words), k.zero(words)]
        with k.loop(0, blocks, carry=most) as block:
            at = k.mul(block, lanes)
            a11, a12, a21, a22 = (
                zero
                if line is None
                else k.load(k.at(line, k.add(at, k.mul(k.mul(blocks, lanes), i)), F32), type_)
                for line in (source, lower)
                for i in (0, 1)
            )
            s1 = k.ir.fadd(a21, a22)
            s2, s3 = k.ir.fsub(s1, a11), k.ir.fsub(a11, a21)
            here = k.at(target, k.mul(k.mul(block, pitch), lanes), F32)
            for i, value in enumerate((a11, a12, a22, s1, s2, s3, k.ir.fsub(a12, s2), a21)):
                k.store(value, k.at(here, k.mul(plane, i), F32))
            most[0] = _larger(k, _larger(k, most[0], a11), a12)
            if lower is not None:
                most[1] = _larger(k, _larger(k, most[1], a21), a22)
        upper = exponent(most[0])
        other = upper if lower is None else exponent(most[1])
        with k.when(_is_uneven(k, upper, other)):
            k.store(I32(1), uneven)

    row_bytes, height = k.arg("source_row"), k.arg("height")
    tall, low = k.arg("tall"), k.arg("low")
    last = k.sub(k.add(tall, low), k.arg("odd"))
    with k.loop(0, k.add(tall, low)) as group:
        first, own = _rows_of(k, group, tall, height)
        partners = k.choose(k.compare("==", group, last), k.sub(own, 1), own)
        with k.loop(0, own, at_least_once=True) as row:
            source = k.at(k.pointer("source"), k.mul(k.add(k.mul(first, 2), row), row_bytes), I8)
            at = k.add(k.mul(group, tile_floats), k.mul(row, lanes))
            target = k.at(k.pointer("target"), at, F32)
            has_partner = k.compare("<", row, partners)
            with k.when(has_partner):
                pack(source, target, k.at(source, k.mul(own, row_bytes), I8))
            with k.when(k.ir.not_(has_partner)):
                pack(source, target, None)


def _rows_of(k: Builder, group: Int, tall: Int, height: Int) -> tuple[Int, Int]:
    """The rows above a tile of a band, those of its partners below not counted, and how many it has."""
    first = k.add(k.mul(group, height), k.min(group, tall))
    return first, k.choose(k.compare("<", group, tall), k.add(height, 1), height)


@kernel(*SLOTS)
def strassen(k: Builder, *, operands: tuple[str, ...]) -> None:
    """out[m, n] = epilogue(Σ_k a[m, k] · b[k, n]) for tiles begin..end of (band of rows, share of the pairs
    of panels), in this order. A band has `tiles` tiles, each with another one below.
    """
    lanes = k.machine.lanes
    names = ["out", *(f"x{i}" for i in range(len(operands) // len(_ARRAYS)))]
    slots = (*TILE_SLOTS, *PART_SLOTS, *operand_names(len(names) - 1))
    frame = Frame(k, k.scratch, slots)
    packing = Frame(k, k.at(k.scratch, FRAME_BYTES, I8), BAND_SLOTS)
    spill, uneven = k.at(k.scratch, 2 * FRAME_BYTES, I8), k.at(k.scratch, PACKED_AT, I8)
    memory = k.at(uneven, 64, I8)
    arg = {name: k.arg(name) for name in (*SLOTS, *operands)}
    height, pitch, panel, blocks, tiles = (
        arg[name] for name in ("height", "pitch", "panel", "blocks", "tiles")
    )
    tile_sums, tile_floats = k.mul(pitch, panel), k.mul(k.mul(blocks, pitch), lanes)
    sums_size = k.mul(k.mul(tiles, tile_sums), k.ceil_div(arg["columns"], arg["shares"]))
    kept = {name: k.at(memory, k.mul(sums_size, i), F32) for i, name in enumerate("xyz")}
    packed = k.at(memory, k.mul(sums_size, len(kept)), F32)
    plane = k.mul(tiles, tile_floats)
    planes = {name: k.at(packed, k.mul(plane, i), F32) for i, name in enumerate(_A)}

    for slot in ("table", "steps", "next_step", "next_tile"):
        frame.set(slot, arg[slot])
    frame.set("a_row", 0)
    frame.set("further", tile_floats)
    for name in names:
        frame.set(f"{name}_column", arg[f"{name}_row"])  # a tile's columns are the matrix's rows
        frame.set(f"{name}_row", 0)
        frame.set(f"{name}_channel", arg[f"{name}_column"])
    for slot, value in (
        ("source_row", arg["a_row"]), ("target", packed), ("tiles", tiles), ("pitch", pitch),
        ("blocks", blocks), ("height", height), ("uneven", uneven),
    ):  # fmt: skip
        packing.set(slot, value)

    pair_bytes = k.mul(arg["half"], len(_B))  # from pair to pair of panels, and of sums
    held = [k.held()]  # the band that is packed
    with k.loop(k.begin, k.end, carry=held) as work:
        share, band = k.rem(work, arg["shares"]), k.div(work, arg["shares"])
        begin, end = (k.div(k.mul(k.add(band, i), arg["pairs"]), arg["bands"]) for i in (0, 1))
        first_row = k.mul(begin, 2)
        tall = k.sub(k.sub(end, begin), k.mul(height, tiles))
        low = k.sub(tiles, tall)
        odd = k.choose(k.compare("==", end, arg["pairs"]), arg["odd"], 0)
        with k.when(k.compare("!=", band, held[0])):
            packing.set("source", k.add(arg["a"], k.mul(arg["a_row"], first_row)))
            for slot, value in (("tall", tall), ("low", low), ("odd", odd)):
                packing.set(slot, value)
            k.call(arg["pack"], packing.pointer, 0, 0, k.scratch)
        held[0] = band
        first_pair, last_pair = (k.div(k.mul(k.add(share, i), arg["columns"]), arg["shares"]) for i in (0, 1))
        found = [k.load(uneven, I32)]
        with k.loop(first_pair, last_pair, carry=found) as pair:
            found[0] = k.ir.or_(found[0], k.load(k.at(k.pointer("uneven"), pair, I32), I32))
        is_uneven = k.ir.icmp_signed("!=", found[0], I32(0))

        # The last tile of an odd number of rows is one of its own.
        odd_low = k.min(odd, low)
        odd_tall = k.sub(odd, odd_low)
        kinds = (
            ("tall", k.sub(tall, odd_tall), k.add(height, 1)),
            ("low", k.sub(low, odd_low), height),
            ("odd", odd, k.add(height, odd_tall)),
        )

        def multiply(step: _Step) -> None:
            """One of the products, for all pairs of panels of the share."""
            right = step.out.endswith("2")
            base = _weights(k, arg, step.b)
            with k.loop(first_pair, last_pair, at_least_once=True) as pair:
                left = k.mul(pair, k.mul(panel, 2))
                column = k.add(left, panel) if right else left
                weights = k.add(base, k.mul(pair, pair_bytes))
                frame.set("b", weights)
                ahead = k.choose(k.compare(">", arg["near"], 0), arg["near"], pair_bytes)
                ahead = k.add(weights, ahead)
                frame.set("valid", k.max(k.min(k.sub(arg["n"], column), panel), 0))
                before = k.mul(k.sub(pair, first_pair), tiles)  # tiles of other pairs of panels
                rows_before, done = 0, 0
                for kind, count, own in kinds:
                    with k.when(k.compare(">", count, 0)):
                        frame.set("a", k.at(planes[step.a], k.mul(done, tile_floats), F32))
                        frame.set("count", count)
                        frame.set("next", k.add(ahead, k.mul(done, arg["next_tile"])))
                        for slot, where in zip(
                            PART_SLOTS[1:], (step.start, step.keep, step.plus), strict=True
                        ):
                            if where:
                                at = k.mul(k.add(before, done), tile_sums)
                                frame.set(slot, k.at(kept[where], at, F32))
                        if step.out:
                            row = k.add(first_row, rows_before)
                            if step.out.startswith("c2"):
                                row = k.add(row, own)
                            for name in names:
                                down, across = arg[f"{name}_row"], arg[f"{name}_column"]
                                corner = k.add(arg[name], k.mul(down, row), k.mul(across, column))
                                frame.set(name, corner)
                        which = _KINDS.index((step.does, step.lower, right))
                        k.call(arg[f"{kind}_{which}"], frame.pointer, 0, 0, spill)
                    rows_before = k.add(rows_before, k.mul(k.mul(count, own), 2))
                    done = k.add(done, count)

        with k.when(k.ir.not_(is_uneven)):
            for step in _SEVEN:
                multiply(step)
        with k.when(is_uneven):
            for step in _EIGHT:
                multiply(step)
    k.hold(held[0])


def _weights(k: Builder, arg: dict[str, Value], block: str) -> Int:
    """Where a block of the first pair of panels lies, or a sum of blocks."""
    start, blocks = (arg["sums"], _SUMS) if block in _SUMS else (arg["b"], _B)
    return k.add(start, k.mul(arg["half"], blocks.index(block)))


@dataclass(frozen=True, slots=True)
class PanelSums:
    """The sums of the blocks of pairs of panels: [pairs][4][k / 2][floats in a row of a panel]. uneven: for
    each pair, in int32, 1 where its columns are not of a size.
    """

    view: View
    uneven: View


@remembered(4096, "decision")  # layers that are alike, and shapes that come again
def pays(rows: int, depth: int, columns: int, machine: Machine) -> bool:
    """Whether a product of `rows` rows with a matrix [depth, columns], which must have halves and pairs of
    panels, is faster this way.
    """
    panel = PANEL_VECTORS * machine.lanes
    if depth % (2 * machine.lanes) or -(-columns // panel) % 2:
        return False
    return rows >= _FEWEST_ROWS and depth >= _LEAST_DEPTH and columns >= _FEWEST_COLUMNS


def pack_sums(b: PackedWeights, machine: Machine) -> PanelSums:
    """The sums that belong to packed weights, one matrix for which it `pays`."""
    panels = b.view.buffer.array
    assert panels is not None
    pairs, half = b.panels // 2, b.k // 2 * b.panel
    sums, uneven = aligned_floats(pairs * 4 * half), np.zeros(pairs, np.int32)
    run_now(sum_panels(), [panels.ctypes.data, half, sums.ctypes.data, uneven.ctypes.data], pairs, machine)
    return PanelSums(constant(sums), constant(uneven))


class _Layouts(NamedTuple):
    """Of a, out and the epilogue's operands: dtypes, and strides along rows and columns, in elements."""

    dtypes: tuple[np.dtype, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]


def packed_matmul(
    a: View,
    b: PackedWeights,
    sums: PanelSums | None,
    out: View,
    epilogue: Epilogue | None,
    machine: Machine,
) -> list[Call]:
    """`gemm.matmul` with packed weights, by Strassen's scheme where its `sums` are given and the views allow
    it.
    """
    calls = None if sums is None else strassen_matmul(a, b, sums, out, epilogue, machine)
    return matmul(a, b, out, epilogue, machine) if calls is None else calls


def strassen_matmul(
    a: View,
    b: PackedWeights,
    sums: PanelSums,
    out: View,
    epilogue: Epilogue | None,
    machine: Machine,
) -> list[Call] | None:
    """Calls that compute out[..., M, N] = epilogue(a[..., M, K] · b[K, N]), where a's rows are contiguous
    float32; None where the views are not matrices, with all rows equally far apart.
    """
    views = [a, out, *(v.broadcast_to(out.shape) for v in (epilogue.operands if epilogue else ()))]
    if a.dtype != np.float32 or a.strides[-1] != 1 or len(views) - 2 >= MOST_OPERANDS:
        return None
    rows = [_rows(view) for view in views]
    if any(row is None for row in rows):
        return None
    m = math.prod(out.shape[:-1])
    layouts = _Layouts(
        tuple([v.dtype for v in views]),
        tuple([row for row in rows if row is not None]),
        tuple([v.strides[-1] for v in views]),
    )
    expression = None if epilogue is None else epilogue.expression
    form = _form(m, b.k, b.n, b.panel, layouts, expression, machine)
    (table,) = form.constants
    x, y, *operands = views
    places = [x, b.view, sums.view, sums.uneven, y, table, *operands]
    reads = [x, b.view, sums.view, sums.uneven, table, *operands]
    return [form.call(places, reads, [y])]


def _rows(view: View) -> int | None:
    """How far apart the rows of a view lie, in elements; None where they do not lie equally far apart."""
    dims = [(n, s) for n, s in zip(view.shape[:-1], view.strides[:-1], strict=True) if n > 1]
    for (_, outer), (n, inner) in itertools.pairwise(dims):
        if outer != n * inner:
            return None
    return dims[-1][1] if dims else 0


@remembered(1024)
def _form(
    m: int, depth: int, n: int, panel: int, layouts: _Layouts, epilogue: Expression | None, machine: Machine
) -> Form:
    """The call but its memory."""
    lanes = machine.lanes
    most = register_tile(machine, n).pixels
    pairs, columns, blocks = -(-m // 2), -(-n // panel) // 2, depth // 2 // lanes
    fitting = max(SHARING, machine.l2_bytes * 5 // 8 // (len(_A) * most * depth // 2 * 4))
    bands = -(-pairs // (fitting * most))
    most_pairs = -(-pairs // bands)  # of a band
    tiles = -(-most_pairs // most)
    height = pairs // bands // tiles
    tallest = height + (pairs > height * tiles * bands)
    last_tall = pairs - pairs * (bands - 1) // bands - height * tiles
    odd = height + (last_tall == tiles), height + (last_tall == tiles) - m % 2
    pair_bytes = 4 * tiles * tallest * panel * 3  # of x, y and z for a pair of panels
    shares = _shares(columns, -(-_TILES // bands), machine.l2_bytes // 4 // pair_bytes)

    steps = blocks * (lanes // UNROLL)
    step, each = np.arange(steps), lanes // UNROLL
    table = offsets_table(step // each * (tallest * lanes) + step % each * UNROLL)
    ahead = Ahead.of(tiles, tallest, steps, UNROLL * panel * 4)
    sizes = [dtype.itemsize for dtype in layouts.dtypes]
    _, out, *operands = (
        reach(name_of(dtype), column, row != 0, n)
        for dtype, row, column in zip(layouts.dtypes, layouts.rows, layouts.columns, strict=True)
    )
    fetch = m * n * sum(sizes[1:]) > machine.l2_bytes // 2
    common = _Common(tallest, panel // lanes, lanes, n % panel != 0, fetch, ahead.lines)
    codes: list[Kernel] = []
    for heights in ((tallest, tallest), (height, height), odd):
        codes += _codes(heights, common, out, epilogue, tuple(operands))
    arrays = [
        [0, row * size, column * size]
        for row, column, size in zip(layouts.rows, layouts.columns, sizes, strict=True)
    ]
    half = depth // 2 * panel * 4
    args: list[int | View | Kernel] = [
        0, arrays[0][1], 0, half, 0, 0, *arrays[1],
        pairs, m % 2, bands, tiles, height, tallest, columns, shares, panel, n, blocks,
        0, steps, ahead.near, ahead.step, ahead.tile, sum_rows(), *codes,
    ]  # fmt: skip
    for array in arrays[2:]:
        args += array
    packed_bytes = 4 * len(_A) * tiles * tallest * depth // 2
    return Form(
        strassen(operands=operand_slots(len(operands), _ARRAYS)),
        args,
        places=(*_PLACES, *range(len(SLOTS), len(args), len(_ARRAYS))),
        tiles=bands * shares,
        scratch=PACKED_AT + 64 + pair_bytes * -(-columns // shares) + packed_bytes,
        flops=2 * m * n * depth,
        label="matmul",
        constants=(table,),
    )


def _shares(pairs: int, fewest: int, most: int) -> int:
    """In how many parts the pairs of panels are computed with a band: at least `fewest`, of at most `most`
    pairs, and all alike if that makes few more.
    """
    wanted = min(pairs, max(fewest, -(-pairs // max(most, 1))))
    alike = next(n for n in range(wanted, pairs + 1) if pairs % n == 0)
    return alike if alike <= 2 * wanted else wanted


class _Common(NamedTuple):
    """What the tiles of a product have in common: the most rows of one, and the rest as `tile` says."""

    rows: int
    vectors: int
    lanes: int
    masked: bool  # outputs of the right one of the last pair of panels
    fetch: bool
    fetched: int


@functools.lru_cache(1024)
def _codes(
    heights: tuple[int, int],
    common: _Common,
    out: Reach,
    epilogue: Expression | None,
    reaches: tuple[Reach, ...],
) -> list[Kernel]:
    """A tile of each kind, for tiles of so many rows with so many below."""
    made: list[Kernel] = []
    for does, lower, right in _KINDS:
        part = Part(common.rows, sum(heights), *does)
        if not part.finishes:  # then it is the same kernel whatever comes at the end
            part = part._replace(apart=0)
        made.append(
            tile(
                rows=1,
                columns=heights[lower],
                pitch=common.lanes,
                unroll=UNROLL,
                panel=common.vectors,
                vectors=common.vectors,
                fetch=common.fetch and part.finishes,
                fetched=common.fetched,
                sums=1,
                masked=common.masked and right and part.finishes,
                out=out if part.finishes else _NOWHERE,
                epilogue=epilogue if part.finishes else None,
                reaches=reaches if part.finishes else (),
                operands=(*PART_SLOTS, *operand_names(len(reaches) if part.finishes else 0)),
                part=part,
            )
        )
    return made


_NOWHERE = Reach("float32", "contiguous")  # of outputs that there are none of
