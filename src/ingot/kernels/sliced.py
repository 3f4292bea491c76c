"""Matrix products and convolutions on tile registers: float32 in, float32 out, bytes in between.

A tile of work is (image, band of output rows, share of the panels of output channels), in this order: a
thread slices a band's input into its own memory when it comes to it (slices.py), and walks the panels of its
share with each block of positions (sliced_tile.py). Positions are numbered through the band, the ends of
lines included, so that a register of pixels may go on in the next row; outputs of positions behind the end of
a line are not stored. A matrix is an image with one column.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingot.codegen.builder import F32, I8, I64, Builder
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.codegen.pages import passing
from ingot.errors import ShapeError
from ingot.kernels.call import Call, View, constant
from ingot.kernels.contract import Epilogue, Frame, Reach, name_of, operand_names, operand_slots, reach_of
from ingot.kernels.expression import Expression
from ingot.kernels.pack import pack_ordered, pack_weights
from ingot.kernels.sliced_tile import MOST_ROWS, SUMS_BYTES, TILE_SLOTS, Tiles, sliced_tile
from ingot.kernels.slices import (
    DEPTH,
    LANES,
    PANEL,
    PIXEL_SLOTS,
    SLICES,
    STEP_BYTES,
    SlicedWeights,
    slice_pixels,
    sliced,
)

_TILES = 16  # of work, at least, where the problem has them
#: Rows of a matrix below which reading the weights takes longest, whoever multiplies.
FEWEST_ROWS = 12
_FRAME_BYTES = 2048
# Scratch memory: frames, sums, the special flag; then scales, slices, and values that stand apart.
_HEADER = 2 * _FRAME_BYTES + SUMS_BYTES + 64
_ARRAYS = ("", "_image", "_row", "_column", "_channel")  # an address; bytes along each dimension

SLOTS = (
    "x", "x_image", "x_row", "x_column", "channels", "height", "top", "stride",
    "out", *(f"out{part}" for part in _ARRAYS[1:]),
    "bands", "groups", "unit", "out_rows", "extra_rows", "panels", "shares", "n",
    "b", "b_panel", "column_scales", "table", "steps", "rows", "config",
    "slice", "plane", "line", "columns", "width", "phase_rows", "phase_columns", "residues", "ranges",
    "row_scale", "scales_bytes", "slicer", "block", "half", "block_last", "half_last",
)  # fmt: skip


@kernel(*SLOTS)
def sliced_product(k: Builder, *, operands: tuple[str, ...]) -> None:
    """Tiles begin..end of (image, band of output rows, share of the panels of output channels)."""
    names = ["out", *(f"x{i}" for i in range(len(operands) // len(_ARRAYS)))]
    frame = Frame(k, k.scratch, (*TILE_SLOTS, *operand_names(len(names) - 1)))
    slicing = Frame(k, k.at(k.scratch, _FRAME_BYTES, I8), PIXEL_SLOTS)
    sums = k.at(k.scratch, 2 * _FRAME_BYTES, I8)
    special = k.at(sums, SUMS_BYTES, I8)
    scales = k.at(k.scratch, _HEADER, I8)
    packed = k.at(scales, k.arg("scales_bytes"), I8)
    apart = k.at(packed, k.mul(k.arg("slice"), SLICES), I8)
    arg = {name: k.arg(name) for name in (*SLOTS, *operands)}
    tiles = Tiles(k)

    for slot in ("slice", "width", "table", "steps", "rows", "line", "columns", "row_scale"):
        frame.set(slot, arg[slot])
    for slot, value in (("row_scales", scales), ("special", special)):
        frame.set(slot, value)
    for name in names:
        for part in ("column", "row", "channel"):
            frame.set(f"{name}_{part}", arg[f"{name}_{part}"])
    for slot in ("channels", "height", "stride", "slice", "plane", "line", "width"):
        slicing.set(slot, arg[slot])
    for slot in ("phase_rows", "phase_columns", "residues", "ranges"):
        slicing.set(slot, arg[slot])
    for slot, value in (
        ("row", arg["x_row"]), ("column", arg["x_column"]), ("target", packed), ("scales", scales),
        ("special", special), ("apart", apart),
    ):  # fmt: skip
        slicing.set(slot, value)

    tiles.configure(k.pointer("config"))
    held = [I64(-1)]  # the band that is sliced
    with k.loop(k.begin, k.end, carry=held) as work:
        share, place = k.rem(work, arg["shares"]), k.div(work, arg["shares"])
        band, image = k.rem(place, arg["bands"]), k.div(place, arg["bands"])
        groups = (k.div(k.mul(k.add(band, i), arg["groups"]), arg["bands"]) for i in (0, 1))
        first_row, last_row = (k.min(k.mul(g, arg["unit"]), arg["out_rows"]) for g in groups)
        out_rows = k.sub(last_row, first_row)
        with k.when(k.compare("!=", place, held[0])):
            slicing.set("source", k.add(arg["x"], k.mul(image, arg["x_image"])))
            slicing.set("top", k.sub(k.mul(first_row, arg["stride"]), arg["top"]))
            slicing.set("rows", k.add(out_rows, arg["extra_rows"]))
            k.call(arg["slicer"], slicing.pointer, 0, 0, k.scratch)
        held[0] = place

        positions = k.add(k.mul(k.sub(out_rows, 1), arg["line"]), arg["columns"])
        frame.set("positions", positions)
        corners = {
            name: k.add(arg[name], k.mul(image, arg[f"{name}_image"]), k.mul(first_row, arg[f"{name}_row"]))
            for name in names
        }
        first_panel, last_panel = (
            k.div(k.mul(k.add(share, i), arg["panels"]), arg["shares"]) for i in (0, 1)
        )
        with k.loop(0, positions, k.mul(arg["rows"], 2)) as first:
            frame.set("a", k.at(packed, k.mul(first, arg["width"]), I8))
            frame.set("apart", k.at(apart, k.mul(first, arg["width"]), F32))
            frame.set("first", first)
            is_half = k.compare("<=", k.sub(positions, first), arg["rows"])
            usual, last = (k.choose(is_half, arg[f"half{e}"], arg[f"block{e}"]) for e in ("", "_last"))
            with k.loop(first_panel, last_panel) as panel:
                channel = k.mul(panel, PANEL)
                frame.set("b", k.add(arg["b"], k.mul(panel, arg["b_panel"])))
                frame.set("column_scales", k.add(arg["column_scales"], k.mul(channel, 4)))
                frame.set("valid", k.min(k.sub(arg["n"], channel), PANEL))
                for name in names:
                    frame.set(name, k.add(corners[name], k.mul(channel, arg[f"{name}_channel"])))
                code = k.choose(k.compare("==", panel, k.sub(arg["panels"], 1)), last, usual)
                k.call(code, frame.pointer, 0, 0, sums)
    tiles.release()


@dataclass(frozen=True, slots=True)
class _Window:
    """A convolution's numbers; pairs are (rows, columns)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int]  # above, on the left

    def residues(self, axis: int) -> tuple[int, ...]:
        """Which positions, modulo the stride, are read."""
        return _residues(self.kernel[axis], self.strides[axis], self.dilations[axis])

    def extra(self, axis: int) -> int:
        """Positions of a phase that outputs read beyond their number."""
        return (self.kernel[axis] - 1) * self.dilations[axis] // self.strides[axis]


@functools.lru_cache(256)
def _residues(taps: int, stride: int, dilation: int) -> tuple[int, ...]:
    return tuple(sorted({i * dilation % stride for i in range(taps)}))


_MATRIX = _Window((1, 1), (1, 1), (1, 1), (0, 0))


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring taps of a filter's row that read neighbouring positions: which, and where they begin."""

    row: int
    taps: tuple[int, ...]
    phase: int
    position: int  # in its phase: the row, times the line, and the column


def _runs(window: _Window, line: int) -> list[_Run]:
    runs: list[_Run] = []
    rows, columns = window.residues(0), window.residues(1)
    for i in range(window.kernel[0]):
        y = i * window.dilations[0]
        row_phase = rows.index(y % window.strides[0]) * len(columns)
        for number, residue in enumerate(columns):
            step, dilation = window.strides[1], window.dilations[1]
            taps = [j for j in range(window.kernel[1]) if j * dilation % step == residue]
            at = [j * dilation // step for j in taps]
            breaks = [0, *(t for t in range(1, len(at)) if at[t] != at[t - 1] + 1), len(at)]
            for low, high in itertools.pairwise(breaks):
                position = y // window.strides[0] * line + at[low]
                runs.append(_Run(i, tuple(taps[low:high]), row_phase + number, position))
    return runs


def position_bytes(channels: int) -> int:
    """Bytes of a slice from one position to the next: multiples of 8, whole tile rows for many channels."""
    unit = DEPTH if channels > 2 * DEPTH and -channels % DEPTH < 16 else 8
    return -(-channels // unit) * unit


class SlicedConvWeights:
    """Filters [O, C, kh, kw] (or [O, C, k]) as slices for one stride and dilation; `packed` is None where
    they cannot be sliced.
    """

    def __init__(
        self, array: np.ndarray, strides: Sequence[int], dilations: Sequence[int], machine: Machine
    ) -> None:
        if array.ndim == 3:
            array = array[:, :, None, :]
        self.window = _window(array.shape[2:], strides, dilations)
        channels, columns = array.shape[1], array.shape[3]
        width = position_bytes(channels)
        order = np.empty((channels, array.shape[2] * columns), np.int32)
        step = 0
        for run in _runs(self.window, 0):
            for t, j in enumerate(run.taps):
                order[:, run.row * columns + j] = step * DEPTH + t * width + np.arange(channels)
            step += -(-(width * len(run.taps)) // DEPTH)
        flat = np.ascontiguousarray(array).reshape(1, array.shape[0], -1)
        self.packed = sliced(pack_ordered(flat, order.reshape(-1), step * DEPTH, machine), machine)


def _window(kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> _Window:
    """One spatial dimension is an image of one row."""
    pairs = [(1, p[0]) if len(p) == 1 else (p[0], p[1]) for p in (strides, dilations)]
    kernel = (1, kernel[0]) if len(kernel) == 1 else kernel
    return _Window((kernel[0], kernel[1]), pairs[0], pairs[1], (0, 0))


def cycles(
    out_shape: Sequence[int],
    channels: int,
    kernel: Sequence[int] = (1, 1),
    strides: Sequence[int] = (1, 1),
    dilations: Sequence[int] = (1, 1),
    *,
    fine: bool = False,
) -> float:
    """About how long a convolution to [N, O, …] takes one thread, in cycles; a product's rows are pixels of
    one image. fine: with the fourth sum.

    Measured: a multiplication of all slices of a step, one register by one, takes 190 cycles with what it
    loads, 250 with the fourth sum; slicing a value half a cycle; a position's 32 sums 35 cycles until they
    are stored.
    """
    images, outputs = out_shape[:2]
    window = _window(kernel, strides, dilations)
    columns = out_shape[-1]
    is_matrix = window == _MATRIX
    line = 1 if is_matrix else columns + window.extra(1)
    rows = math.prod(out_shape[2:]) if line == 1 else math.prod(out_shape[2:-1])
    width = position_bytes(channels)
    steps = sum(-(-len(run.taps) * width // DEPTH) for run in _runs(window, 0))
    phases = len(window.residues(0)) * len(window.residues(1))
    positions = rows * line
    products = -(-positions // MOST_ROWS) * -(-outputs // LANES) * steps * (250.0 if fine else 190.0)
    slicing = positions * phases * max(width, DEPTH / 2) * (0.5 if is_matrix else 0.7)
    return images * (products + slicing + positions * -(-outputs // PANEL) * 35.0)


def direct_cycles(out_shape: Sequence[int], depth: int, machine: Machine) -> float:
    """The same for the register tile of vectors, which sums `depth` products for each output."""
    vectors = -(-out_shape[1] // machine.lanes)
    return math.prod(out_shape) / out_shape[1] * vectors * depth / 1.8


def slice_matrix(array: np.ndarray, machine: Machine) -> SlicedWeights | None:
    """A constant matrix [K, N] of any strides as slices; None where it cannot be sliced."""
    with passing():
        packed = pack_weights(array, machine)
    return sliced(packed, machine)


def sliced_matmul(
    a: View, b: SlicedWeights, out: View, epilogue: Epilogue | None, machine: Machine
) -> list[Call] | None:
    """Calls that compute out[..., M, N] = epilogue(a[..., M, K] · b); None where a does not lie well for it:
    it wants the last dimension contiguous, and at most two dimensions of steps before it.
    """
    operands = [v.broadcast_to(out.shape) for v in (epilogue.operands if epilogue else ())]
    missing = out.rank - a.rank  # the weights' own dimensions of size 1
    a = a.with_dims((*[1] * missing, *a.shape), (*[0] * missing, *a.strides))
    views = [a, out, *operands]
    if a.shape != (*out.shape[:-1], b.k) or out.shape[-1] != b.n:
        raise ShapeError(
            f"matrix product: found {a.shape} · [{b.k}, {b.n}] -> {out.shape}; the inner sizes must be equal "
            "and the result [..., rows of the first, columns of the second]"
        )
    dims: list[list[int]] = []  # of pixels: size, then a stride for each view
    for d in range(a.rank - 1):
        size, strides = out.shape[d], [v.strides[d] for v in views]
        if size == 1:
            continue
        if dims and all(before == size * own for before, own in zip(dims[-1][1:], strides, strict=True)):
            dims[-1] = [dims[-1][0] * size, *strides]
        else:
            dims.append([size, *strides])
    if len(dims) > 2 or (a.strides[-1] != 1 and b.k > 1):
        return None
    dims = [[1] + [0] * len(views)] * (2 - len(dims)) + dims
    if out.size == 0:
        return []
    images = [
        v.with_dims(
            (dims[0][0], v.shape[-1], dims[1][0], 1), (dims[0][1 + i], v.strides[-1], dims[1][1 + i], 0)
        )
        for i, v in enumerate(views)
    ]
    return [_call(images, b, _MATRIX, epilogue, machine, "matmul", fine=False)]


def sliced_conv2d(
    x: View,
    w: SlicedConvWeights,
    out: View,
    pads: Sequence[int],
    epilogue: Epilogue | None,
    machine: Machine,
) -> list[Call]:
    """Calls that compute out[N, O, Ho, Wo] = epilogue(convolution of x[N, C, H, W], channels side by side).

    pads: top, left, …; what lies beyond the bottom and the right follows from out's shape. One spatial
    dimension: x [N, C, W], pads (left, …).
    """
    assert w.packed is not None
    operands = [v.broadcast_to(out.shape) for v in (epilogue.operands if epilogue else ())]
    views = [x, out, *operands]
    top, left = (pads[0], pads[1]) if x.rank == 4 else (0, pads[0])
    if x.rank == 3:
        views = [v.with_dims((*v.shape[:2], 1, v.shape[2]), (*v.strides[:2], 0, v.strides[2])) for v in views]
    if out.size == 0:
        return []
    window = _Window(w.window.kernel, w.window.strides, w.window.dilations, (top, left))
    rows_follow = all(v.strides[2] == v.shape[3] * v.strides[3] or v.shape[2] == 1 for v in views)
    if window == _MATRIX and views[0].shape[2:] == views[1].shape[2:] and rows_follow:
        views = [
            v.with_dims((*v.shape[:2], v.shape[2] * v.shape[3], 1), (*v.strides[:2], v.strides[3], 0))
            for v in views
        ]
    return [_call(views, w.packed, window, epilogue, machine, "conv", fine=True)]


@functools.cache
def _config(rows: int) -> View:
    """What `ldtilecfg` reads: palette 1; bytes of a row, and rows, of each register."""
    memory = np.zeros(64, np.uint8)
    memory[0] = 1
    memory[16:32].view(np.uint16)[:] = DEPTH
    memory[48:54], memory[54:56] = rows, MOST_ROWS
    return constant(memory)


@functools.lru_cache(256)
def _geometry(
    window: _Window, channels: int, width: int, line: int, plane: int, image_width: int, pixel_bytes: int
) -> tuple[View, View, View]:
    """The table of steps, the residues of rows, and for each phase of columns the first that lies in the
    image, the end, and the bytes to the first in its row.
    """
    entries: list[tuple[int, int]] = []
    for run in _runs(window, line):
        start, length = run.phase * plane + run.position * width, (len(run.taps) - 1) * width + channels
        for at in range(0, len(run.taps) * width, DEPTH):
            entries.append((start + at, max(0, min(DEPTH, length - at))))
    left, step = window.pads[1], window.strides[1]
    limits: list[tuple[int, int, int]] = []
    for residue in window.residues(1):
        low = max(0, -(-(left - residue) // step))
        high = min(line, -(-(image_width + left - residue) // step))
        first = (low * step + residue - left) * pixel_bytes
        limits.append((low, high, first) if low < high else (line, line, 0))
    residues = constant(np.array(window.residues(0), np.int64))
    return constant(np.array(entries, np.int32)), residues, constant(np.array(limits, np.int64))


@functools.lru_cache(1024)
def _rows(positions: int) -> int:
    """Rows of a register, so that few of them compute what is thrown away."""

    def time(rows: int) -> int:
        return -(-positions // rows) * (rows + 2)  # each multiplication costs some cycles more than its rows

    return min(range(1, MOST_ROWS + 1), key=lambda rows: (time(rows), -rows))


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a call's work is cut and how its bands lie, in positions, bytes and pieces."""

    line: int
    extra_rows: int
    width: int
    each: bool
    unit: int  # rows that stay together
    groups: int
    bands: int
    shares: int
    rows: int  # of a register
    plane: int
    slice_bytes: int
    scales_bytes: int


@functools.lru_cache(1024)  # layers that are alike, and shapes that come again
def _layout(
    out_shape: tuple[int, ...],
    x_shape: tuple[int, ...],
    window: _Window,
    panels: int,
    steps: int,
    l2_bytes: int,
) -> _Layout:
    images, _, out_rows, columns = out_shape
    line, extra_rows = columns + window.extra(1), window.extra(0)
    phases = len(window.residues(0)) * len(window.residues(1))
    width = position_bytes(x_shape[1])
    unit = 2 * MOST_ROWS if line == 1 else 1
    groups = -(-out_rows // unit)
    row_bytes = SLICES * phases * line * width * unit
    weight_bytes = panels * steps * STEP_BYTES
    # A third of L2 is for the band; more where weights would have to come again from memory for the next one.
    fitting = max(1, l2_bytes // 3 // max(row_bytes, 1))
    if weight_bytes > l2_bytes // 2:
        fitting = max(fitting, l2_bytes * 2 // 3 // max(row_bytes, 1))
    # Weights that stay in L2 go by for each block, which writes whole rows of its output; others once a band.
    shares = 1 if weight_bytes <= l2_bytes // 4 else panels
    if images * groups * shares < _TILES:
        shares = min(panels, -(-_TILES // (images * groups)))
    bands = min(groups, max(-(-groups // fitting), -(-_TILES // (images * shares))))
    most_rows = min(-(-groups // bands) * unit, out_rows)
    plane = (most_rows + extra_rows) * line * width
    # A register may read to the end of a block and of a step, and storing goes on to the end of 64 bytes.
    slack = 2 * MOST_ROWS * width + 2 * DEPTH
    each = window == _MATRIX and x_shape[3] == columns == 1 and x_shape[2] == out_rows
    return _Layout(
        line=line, extra_rows=extra_rows, width=width, each=each, unit=unit, groups=groups, bands=bands,
        shares=shares, rows=_rows((most_rows - 1) * line + columns), plane=plane,
        slice_bytes=-(-(phases * plane + slack) // 64) * 64,
        scales_bytes=-(-(8 * (most_rows if each else 1)) // 64) * 64,
    )  # fmt: skip


@functools.lru_cache(1024)
def _tiles_of(
    n: int,
    matrix: bool,
    each: bool,
    fine: bool,
    epilogue: Expression | None,
    reaches: tuple[Reach, ...],
) -> tuple[Kernel, ...]:
    """The kernels of whole and of half blocks, for panels and for the last one. reaches: out's first."""
    panels = -(-n // PANEL)

    def kernel_of(tall: int, is_last: bool) -> Kernel:
        valid = n - (panels - 1) * PANEL if is_last or panels == 1 else PANEL
        return sliced_tile(
            tall=tall, wide=-(-valid // LANES), masked=valid % LANES != 0, matrix=matrix, each=each,
            fine=fine, out=reaches[0], epilogue=epilogue, reaches=reaches[1:],
            operands=operand_names(len(reaches) - 1),
        )  # fmt: skip

    return tuple(kernel_of(tall, is_last) for is_last in (False, True) for tall in (2, 1))


def _call(
    views: list[View],
    b: SlicedWeights,
    window: _Window,
    epilogue: Epilogue | None,
    machine: Machine,
    label: str,
    *,
    fine: bool,
) -> Call:
    """One call over all images. views: x, out and the epilogue's operands, all [N, channels, H, W]."""
    x, out = views[:2]
    images, n, out_rows, columns = out.shape
    channels, height, image_width = x.shape[1:]
    cut = _layout(out.shape, x.shape, window, b.panels, b.steps, machine.l2_bytes)
    pixel_bytes = x.strides[3] * x.dtype.itemsize
    table, residues, ranges = _geometry(
        window, channels, cut.width, cut.line, cut.plane, image_width, pixel_bytes
    )
    reaches = tuple([reach_of(v, v.strides[1], v.strides[2:], n) for v in views[1:]])
    codes = _tiles_of(n, cut.line == 1, cut.each, fine, epilogue.expression if epilogue else None, reaches)
    config = _config(cut.rows)
    arrays: list[list[int | View | Kernel]] = []
    for v in views:
        sn, sc, sh, sw = (s * v.dtype.itemsize for s in v.strides)
        arrays.append([v, sn, sh, sw, sc])
    args: list[int | View | Kernel] = [
        x, *arrays[0][1:3], window.strides[1] * pixel_bytes,
        channels, height, window.pads[0], window.strides[0], *arrays[1],
        cut.bands, cut.groups, cut.unit, out_rows, cut.extra_rows, b.panels, cut.shares, n,
        b.view, b.steps * STEP_BYTES, b.scales, table, b.steps, cut.rows, config,
        cut.slice_bytes, cut.plane, cut.line, columns, cut.width,
        len(window.residues(0)), len(window.residues(1)), residues, ranges,
        8 if cut.each else 0, cut.scales_bytes,
        slice_pixels(dtype=name_of(x.dtype), each=cut.each), *codes,
        *itertools.chain.from_iterable(arrays[2:]),
    ]  # fmt: skip
    return Call(
        sliced_product(operands=operand_slots(len(views) - 2, _ARRAYS)),
        args,
        tiles=images * cut.bands * cut.shares,
        reads=[x, b.view, b.scales, table, residues, ranges, config, *views[2:]],
        writes=[out],
        scratch=_HEADER + cut.scales_bytes + (SLICES + 4) * cut.slice_bytes,
        flops=2 * out.size * channels * window.kernel[0] * window.kernel[1],
        label=label,
    )
