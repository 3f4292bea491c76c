"""A few rows times weights of four bits: read as they lie in the file, widened in registers.

With few rows a product's time is that of reading the weights, and these are an eighth of float32's. Two
numbers lie in a byte, the first in its low half; neighbours in a column share a scale in blocks.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import numpy as np

from ingot.codegen.builder import F32, I8, I32, Builder, Int, Value, vector
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import index_lanes
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View

#: Rows whose sums stay in registers.
MOST_ROWS = 4
_NEUTRAL = 8.0  # the zero point of weights without one


def supports(rows: int, depth: int, block: int, machine: Machine) -> bool:
    """Whether `few_bits` takes so many rows of this length, in blocks of whole vectors."""
    return 0 < rows <= MOST_ROWS and depth % block == 0 and block % (2 * machine.lanes) == 0


def definition(x: np.ndarray, w: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None) -> np.ndarray:
    """The plain meaning in float64: x [rows, depth], w uint8 [n, depth / 2], scales and zeros [n, blocks]."""
    numbers = np.stack([w & 15, w >> 4], -1).reshape(*scales.shape, -1).astype(np.float64)
    real = (numbers - (_NEUTRAL if zeros is None else zeros[..., None])) * scales[..., None]
    return x.astype(np.float64) @ real.reshape(w.shape[0], -1).T


def _has_table(machine: Machine) -> bool:
    """Whether a vector holds all that four bits can say: a permutation then reads no other bits."""
    return machine.lanes == 16 and machine.permutes


@kernel("x", "weights", "scales", "zeros", "out", "out_row", "depth", "blocks")
def _few_bits(k: Builder, *, rows: int, together: int, chunks: int, has_zero: bool) -> None:
    """A tile is `together` columns. `chunks` vectors of bytes make a block; of x [rows, chunks, 2, lanes]
    each has first what meets the low halves of the bytes, then what meets the high ones.
    """
    lanes = k.machine.lanes
    floats, words = vector(F32, lanes), vector(I32, lanes)
    depth, blocks = k.arg("depth"), k.arg("blocks")
    x = k.pointer("x")

    table = _has_table(k.machine)

    def widened(wide: Value, zero: Value) -> tuple[Value, Value]:
        """The low and the high halves of bytes less the zero point; `zero` is the table where one is."""
        parts = wide, k.ir.lshr(wide, k.splat(4, words))
        if table:
            return k.permute(zero, parts[0]), k.permute(zero, parts[1])
        low = k.ir.and_(parts[0], k.splat(15, words))
        return k.ir.fsub(k.ir.sitofp(low, floats), zero), k.ir.fsub(k.ir.sitofp(parts[1], floats), zero)

    numbers = k.ir.sitofp(index_lanes(lanes, I32), floats)
    with k.loop(k.begin, k.end) as tile:
        first = k.mul(tile, together)
        total = [k.zero(floats) for _ in range(together * rows)]
        with k.loop(0, blocks, carry=total) as block:
            start = k.mul(block, chunks * lanes)  # in bytes of a column
            for c in range(together):
                column = k.add(first, c)
                line = k.at(k.pointer("weights"), k.add(k.mul(column, k.div(depth, 2)), start), I8)
                place = k.add(k.mul(column, blocks), block)
                scale = k.broadcast(k.load(k.pointer("scales"), F32, place), lanes)
                zero: Value = k.splat(_NEUTRAL, floats)
                if has_zero:
                    zero = k.broadcast(k.load(k.pointer("zeros"), F32, place), lanes)
                zero = k.ir.fsub(numbers, zero) if table else zero
                sums = [k.zero(floats) for _ in range(rows)]
                with k.loop(0, 1 if table else chunks, carry=sums) as turn:
                    for chunk in range(chunks if table else 1):
                        begin = k.mul(turn, lanes)
                        wide = k.ir.zext(
                            k.load(k.at(line, begin, I8), vector(I8, lanes), chunk * lanes), words
                        )
                        low, high = widened(wide, zero)
                        for row in range(rows):
                            at: Int = k.add(k.mul(depth, row), k.mul(k.add(start, begin), 2))
                            here = k.at(x, k.add(at, 2 * chunk * lanes), F32)
                            sums[row] = k.fma(low, k.load(here, floats), sums[row])
                            sums[row] = k.fma(high, k.load(here, floats, lanes), sums[row])
                for row in range(rows):
                    total[c * rows + row] = k.fma(sums[row], scale, total[c * rows + row])
        for c in range(together):
            for row in range(rows):
                result = k.reduce_lanes(k.ir.fadd, total[c * rows + row])
                k.store(result, k.pointer("out"), k.add(k.mul(k.arg("out_row"), row), k.add(first, c)))


def few_bits(
    x: View, weights: View, scales: View, zeros: View | None, out: View, block: int, machine: Machine
) -> Call:
    """out [rows, n] = x @ weights.T, whose last dimension is contiguous.

    x: float32 [rows, depth / (2 · lanes), 2, lanes], each vector's even values before its odd ones. weights:
    uint8 [n, depth / 2]. scales, zeros (None: 8): float32 [n, depth / block]. All contiguous. Ask `supports`.
    """
    rows, n = out.shape
    depth = 2 * weights.shape[1]
    most = 1 if not _has_table(machine) else 4 if rows <= 2 else 2
    together = next(count for count in (most, 2, 1) if count <= most and n % count == 0)
    code = _few_bits(
        rows=rows, together=together, chunks=block // (2 * machine.lanes), has_zero=zeros is not None
    )
    return Call(
        code,
        [x, weights, scales, 0 if zeros is None else zeros, out, out.strides[0], depth, depth // block],
        tiles=n // together,
        reads=[x, weights, scales, *([] if zeros is None else [zeros])],
        writes=[out],
        flops=2 * rows * n * depth,
        label="matmul of few bits",
    )
