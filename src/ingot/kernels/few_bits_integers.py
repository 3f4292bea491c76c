"""Rows times weights of four bits, with the rows as bytes: what ONNX Runtime does where a node's accuracy
level is 4.

Each block of a row becomes signed bytes over its own largest magnitude, and its products with a block of
weights w, which are unsigned, are summed as integers:

    out += scale of the row's block · scale of the weights' block · (Σ q · w - zero · Σ q)

The weights' four bits lie in panels of one vector of columns, [panel][block][pair of units][lanes]: the low
halves of a unit's four bytes are the first unit of the pair, the high ones the second. Units of rows are
repeated from memory, so those of the rows of a tile lie side by side.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ingot.codegen.builder import F32, I8, I32, Builder, Int, Value, vector
from ingot.codegen.kernel import kernel
from ingot.codegen.machine import Machine
from ingot.codegen.products import add_few_bits
from ingot.kernels.call import Buffer, Call, View, constant
from ingot.kernels.pack import aligned_copy

_PAIR = 8  # values of two units
_LANES = 16  # float32 in the widest vector
_TOGETHER = 4  # pairs in a turn of the inner loop, at most
_NEUTRAL = 8  # the zero point of weights without one
_MOST = 127  # of a row's byte
_LEAST = 2.0**-120  # magnitude of a block that is not all zeros: below, its inverse would not be finite


def supports(depth: int, block: int) -> bool:
    """Whether a row of this length is whole blocks, of whole vectors on any machine."""
    return depth > 0 and depth % block == 0 and block % _LANES == 0


def rows_in_tile(rows: int, machine: Machine) -> int:
    """Rows whose sums, as integers and as floats, stay in registers."""
    most = (machine.registers - (6 if machine.byte_products else 8)) // 2
    tiles = -(-rows // most)
    return -(-rows // tiles)


def definition(x: np.ndarray, w: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None) -> np.ndarray:
    """The plain meaning: float32 x [rows, depth], w uint8 [n, depth / 2], scales and zeros [n, blocks]. The
    integers as float32 gives them, the rest in float64.
    """
    n, blocks = scales.shape
    whole = np.stack([w & 15, w >> 4], -1).reshape(n, blocks, -1).astype(np.int64)
    parts = x.reshape(x.shape[0], blocks, -1)
    largest = np.abs(parts).max(-1, keepdims=True)
    counts = largest >= _LEAST
    inverse = np.where(counts, np.float32(_MOST) / np.where(counts, largest, 1), np.float32(0))
    codes = np.rint(parts * inverse.astype(np.float32)).astype(np.int64)
    own = (largest / np.float32(_MOST)).astype(np.float64)[..., 0]
    shifted = whole - (_NEUTRAL if zeros is None else zeros.astype(np.int64)[..., None])
    sums = np.einsum("rbi,nbi->rbn", codes, shifted)
    return np.einsum("rbn,rb,nb->rn", sums, own, scales.astype(np.float64))


@dataclass(frozen=True, slots=True)
class FewBits:
    """Packed weights; shifts: each block's scale times its zero point, where it has one of its own."""

    weights: View
    scales: View
    shifts: View | None
    n: int
    depth: int
    block: int


def pack_few_bits(
    w: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, block: int, machine: Machine
) -> FewBits:
    """Pack w uint8 [n, depth / 2], the even number in a byte's low half; scales float32 and zeros (0 to 15)
    [n, blocks].
    """
    n, blocks = scales.shape
    lanes, depth = machine.lanes, 2 * w.shape[1]
    panels = -(-n // lanes)
    whole = np.zeros((panels * lanes, depth), np.uint8)
    whole[:n, 0::2], whole[:n, 1::2] = w & 15, w >> 4
    units = whole.reshape(panels, lanes, depth // _PAIR, 2, 4)
    packed = (units[..., 0, :] | units[..., 1, :] << 4).transpose(0, 2, 1, 3)

    def columns(array: np.ndarray) -> View:
        wide = np.zeros((panels * lanes, blocks), np.float32)
        wide[:n] = array
        return constant(aligned_copy(wide.reshape(panels, lanes, blocks).swapaxes(1, 2)))

    shifts = None if zeros is None else columns(scales * zeros)
    return FewBits(constant(aligned_copy(packed)), columns(scales), shifts, n, depth, block)


@kernel("x", "x_row", "rows", "codes", "scales", "sums", "depth", "block", "blocks")
def _rows_to_bytes(k: Builder, *, rows: int, has_zero: bool) -> None:
    """Tiles are rows, of which the last is repeated. sums: -8 times a block's as int32, else (where weights
    have zero points) -scale times it as float32.
    """
    lanes = k.machine.lanes
    floats, words = vector(F32, lanes), vector(I32, lanes)
    depth, block, blocks = k.arg("depth"), k.arg("block"), k.arg("blocks")
    with k.loop(k.begin, k.end) as row:
        line = k.at(k.pointer("x"), k.mul(k.min(row, k.sub(k.arg("rows"), 1)), k.arg("x_row")), F32)
        tile, own = k.div(row, rows), k.rem(row, rows)
        codes = k.at(k.pointer("codes"), k.add(k.mul(tile, k.mul(k.div(depth, 4), rows)), own), I32)
        with k.loop(0, blocks) as number:
            here = k.at(line, k.mul(number, block), F32)
            ends = [k.zero(floats)] * 2  # the largest magnitude, and 0, or NaN where a value is not finite
            with k.loop(0, block, lanes, carry=ends) as at:
                value = k.load(here, floats, at)
                size = k.intrinsic("fabs", value)
                ends[:] = [
                    k.ir.select(k.ir.fcmp_ordered(">", size, ends[0]), size, ends[0]),
                    k.fma(value, k.zero(floats), ends[1]),
                ]
            largest = k.reduce_lanes(lambda a, b: k.ir.select(k.ir.fcmp_ordered(">", a, b), a, b), ends[0])
            is_zero = k.ir.fcmp_ordered("<", largest, F32(_LEAST))
            inverse = k.ir.fdiv(F32(float(_MOST)), k.ir.select(is_zero, F32(1.0), largest))
            inverse = k.broadcast(k.ir.select(is_zero, F32(0.0), inverse), lanes)
            total = [k.zero(words)]
            first = k.mul(number, block)
            with k.loop(0, block, lanes, carry=total) as at:
                scaled = k.intrinsic("rint", k.ir.fmul(k.load(here, floats, at), inverse))
                # Not a number: whatever integer, the scale says it.
                is_number = k.ir.fcmp_ordered("ord", scaled, scaled)
                whole = k.ir.fptosi(k.ir.select(is_number, scaled, k.zero(floats)), words)
                total[0] = k.ir.add(total[0], whole)
                units = k.ir.bitcast(k.ir.trunc(whole, vector(I8, lanes)), vector(I32, lanes // 4))
                goal = k.at(codes, k.mul(k.div(k.add(first, at), 4), rows), I32)
                k.scatter(units, goal, rows)
            place = k.add(k.mul(k.add(k.mul(tile, blocks), number), rows), own)
            scale = k.ir.fdiv(largest, F32(float(_MOST)))
            scale = k.ir.fadd(scale, k.reduce_lanes(k.ir.fadd, ends[1]))
            k.store(scale, k.pointer("scales"), place)
            sum_ = k.reduce_lanes(k.ir.add, total[0])
            if has_zero:
                shift = k.ir.fmul(scale, k.ir.sitofp(k.ir.sub(I32(0), sum_), F32))
            else:
                shift = k.ir.mul(sum_, I32(-_NEUTRAL))
            k.store(shift, k.pointer("sums"), place)


@kernel(
    "codes", "row_scales", "row_sums", "weights", "scales", "shifts", "out", "out_row", "count", "n",
    "blocks", "depth",
)  # fmt: skip
def _few_bits_integers(k: Builder, *, rows: int, pairs: int, has_zero: bool, masked: bool) -> None:
    """Tiles are (panel of columns, some rows), of `count` rows; `pairs` pairs of units are a block."""
    lanes = k.machine.lanes
    floats, words = vector(F32, lanes), vector(I32, lanes)
    blocks, depth, count = k.arg("blocks"), k.arg("depth"), k.arg("count")
    groups = k.ceil_div(count, rows)
    low = k.splat(0x0F0F0F0F, words)
    most = _TOGETHER if k.machine.byte_products else 1
    together = next(turn for turn in range(most, 0, -1) if pairs % turn == 0)

    def add_unit(sums: list[Value], half: Value, units: Value, number: Int) -> None:
        """Products of one unit of each column and row."""
        here = k.at(units, k.mul(number, rows), I32)
        for p in range(rows):
            sums[p] = add_few_bits(k, sums[p], half, k.broadcast(k.load(here, I32, p), lanes))

    with k.loop(k.begin, k.end) as tile:
        panel, group = k.div(tile, groups), k.rem(tile, groups)
        codes = k.at(k.pointer("codes"), k.mul(group, k.mul(k.div(depth, 4), rows)), I32)
        weights = k.at(k.pointer("weights"), k.mul(panel, k.mul(k.div(depth, _PAIR), lanes)), I32)
        of_rows = k.mul(k.mul(group, blocks), rows)
        row_scales, row_sums = (k.at(k.pointer(name), of_rows, F32) for name in ("row_scales", "row_sums"))
        of_panel = k.mul(k.mul(panel, blocks), lanes)
        scales = k.at(k.pointer("scales"), of_panel, F32)
        shifts = k.at(k.pointer("shifts"), of_panel, F32) if has_zero else None
        total = [k.zero(floats) for _ in range(rows)]
        with k.loop(0, blocks, carry=total) as block:
            at_rows, at_columns = k.mul(block, rows), k.mul(block, lanes)
            sums_here = k.at(row_sums, at_rows, F32)
            sums = [
                k.zero(words) if has_zero else k.broadcast(k.load(sums_here, I32, p), lanes)
                for p in range(rows)
            ]
            first = k.mul(block, pairs)
            with k.loop(0, pairs, together, carry=sums) as turn:
                begin = k.add(first, turn)
                here = k.at(weights, k.mul(begin, lanes), I32)
                units = k.at(codes, k.mul(begin, 2 * rows), I32)
                for pair in range(together):
                    if pair:  # as in contract.py: nothing is loaded early
                        k.ir.fence("seq_cst", "singlethread")
                    both = k.load(here, words, pair * lanes)
                    if k.machine.byte_products:
                        add_unit(sums, k.ir.and_(both, low), units, 2 * pair)
                        add_unit(
                            sums, k.ir.and_(k.ir.lshr(both, k.splat(4, words)), low), units, 2 * pair + 1
                        )
                        continue
                    # Of several products LLVM adds up those first, and spills them: one in a turn.
                    with k.loop(0, 2, carry=sums) as which:
                        shift = k.broadcast(k.ir.trunc(k.int(k.mul(which, 4)), I32), lanes)
                        add_unit(sums, k.ir.and_(k.ir.lshr(both, shift), low), units, k.add(which, 2 * pair))
            scale = k.load(k.at(scales, at_columns, F32), floats)
            scales_here = k.at(row_scales, at_rows, F32)
            for p in range(rows):
                own = k.broadcast(k.load(scales_here, F32, p), lanes)
                total[p] = k.fma(k.ir.sitofp(sums[p], floats), k.ir.fmul(own, scale), total[p])
            if shifts is not None:
                shift = k.load(k.at(shifts, at_columns, F32), floats)
                for p in range(rows):
                    own = k.broadcast(k.load(sums_here, F32, p), lanes)
                    total[p] = k.fma(shift, own, total[p])
        column = k.mul(panel, lanes)
        mask = k.lanes_below(k.sub(k.arg("n"), column), lanes) if masked else None
        for p in range(rows):
            row: Int = k.min(k.add(k.mul(group, rows), p), k.sub(count, 1))
            line: Value = k.at(k.pointer("out"), k.mul(row, k.arg("out_row")), F32)
            k.store(total[p], line, column, mask=mask)


def few_bits_integers(x: View, weights: FewBits, out: View, machine: Machine) -> list[Call]:
    """out [rows, n] = x [rows, depth] @ weights, float32, rows contiguous in both. Ask `supports`."""
    count, depth = x.shape
    rows, blocks = rows_in_tile(count, machine), depth // weights.block
    groups, has_zero = -(-count // rows), weights.shifts is not None

    def memory(size: int, dtype: str) -> View:
        return View(Buffer(4 * size), 0, np.dtype(dtype), (size,), (1,))

    codes = memory(groups * rows * depth // 4, "int32")
    scales = memory(groups * rows * blocks, "float32")
    sums = memory(groups * rows * blocks, "float32" if has_zero else "int32")
    quantize = Call(
        _rows_to_bytes(rows=rows, has_zero=has_zero),
        [x, x.strides[0], count, codes, scales, sums, depth, weights.block, blocks],
        tiles=groups * rows,
        reads=[x],
        writes=[codes, scales, sums],
        flops=4 * count * depth,
        label="rows to bytes",
    )
    shifts = weights.shifts
    code = _few_bits_integers(
        rows=rows, pairs=weights.block // _PAIR, has_zero=has_zero, masked=weights.n % machine.lanes != 0
    )
    product = Call(
        code,
        [
            codes, scales, sums, weights.weights, weights.scales, shifts or 0, out, out.strides[0], count,
            weights.n, blocks, depth,
        ],
        tiles=-(-weights.n // machine.lanes) * groups,
        reads=[codes, scales, sums, weights.weights, weights.scales, *([] if shifts is None else [shifts])],
        writes=[out],
        flops=2 * count * weights.n * depth,
        label="matmul of few bits, as bytes",
    )  # fmt: skip
    return [quantize, product]
