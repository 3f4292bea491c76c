"""Determinants of matrices: Gaussian elimination with the largest pivot of each column, in float64."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math

import numpy as np

from ingot.codegen.builder import F64, Builder, Value, vector
from ingot.codegen.elements import cast, load_element, memory_element, store_element
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import Lanes
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View
from ingot.kernels.iteration import round_up


def evaluate_determinant(x: np.ndarray) -> np.ndarray:
    """The plain definition, in float64."""
    return np.linalg.det(x.astype(np.float64))


@kernel("x", "row", "column", "matrix", "n", "pitch", "out")
def _determinant(k: Builder, *, dtype: str, lanes: int) -> None:
    """A tile is a matrix, copied into rows of whole vectors."""
    n, pitch, work, wide = k.arg("n"), k.arg("pitch"), k.scratch, vector(F64, lanes)
    element = memory_element(dtype)
    with k.loop(k.begin, k.end) as tile:
        source = k.at(k.pointer("x"), k.mul(tile, k.arg("matrix")), element)
        with k.loop(0, n) as i, k.loop(0, pitch) as j:
            inside = k.min(j, k.sub(n, 1))
            where = k.add(k.mul(i, k.arg("row")), k.mul(inside, k.arg("column")))
            value = cast(k, load_element(k, source, dtype, 1, where), dtype, "float64")
            k.store(k.ir.select(k.compare("<", j, n), value, F64(0)), work, k.add(k.mul(i, pitch), j))
        product: list[Value] = [F64(1)]
        with k.loop(0, n, carry=product) as c:

            def at(row: Value, c: Value = c) -> Value:
                return k.load(work, F64, k.add(k.mul(row, pitch), c))

            best: list[Value] = [c, k.intrinsic("fabs", at(c))]
            with k.loop(k.add(c, 1), n, carry=best) as row:
                size = k.intrinsic("fabs", at(row))
                larger = k.ir.fcmp_ordered(">", size, best[1])
                best[:] = [k.ir.select(larger, row, best[0]), k.ir.select(larger, size, best[1])]
            chosen = best[0]
            first = k.mul(k.div(c, lanes), lanes)
            with k.loop(first, pitch, lanes) as j:
                here, there = (k.add(k.mul(r, pitch), j) for r in (c, chosen))
                a, b = k.load(work, wide, here), k.load(work, wide, there)
                k.store(b, work, here)
                k.store(a, work, there)
            pivot = at(c)
            turned = k.ir.select(k.compare("==", chosen, c), F64(1), F64(-1))
            safe = k.ir.select(k.ir.fcmp_ordered("==", pivot, F64(0)), F64(1), pivot)
            with k.loop(k.add(c, 1), n) as row:
                factor = Lanes(k, k.broadcast(k.ir.fdiv(at(row), safe), lanes))
                with k.loop(first, pitch, lanes) as j:
                    where = k.add(k.mul(row, pitch), j)
                    own, top = k.load(work, wide, where), k.load(work, wide, k.add(k.mul(c, pitch), j))
                    k.store((Lanes(k, own) - factor * Lanes(k, top)).value, work, where)
            product[0] = k.ir.fmul(k.ir.fmul(product[0], turned), pivot)
        store_element(k, cast(k, product[0], "float64", dtype), k.pointer("out"), dtype, tile)


def determinant(x: View, out: View, machine: Machine) -> Call:
    """ONNX Det of contiguous matrices x [..., n, n]; out [...] is contiguous."""
    n = x.shape[-1]
    lanes = machine.vector_bytes // 8
    pitch = round_up(max(n, 1), lanes)
    return Call(
        _determinant(dtype=x.dtype.name, lanes=lanes),
        [x, x.strides[-2], x.strides[-1], n * n, n, pitch, out],
        tiles=math.prod(x.shape[:-2]),
        reads=[x],
        writes=[out],
        scratch=8 * n * pitch,
        flops=math.prod(x.shape[:-2]) * 2 * n**3 // 3,
        label="Det",
    )
