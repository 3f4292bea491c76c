"""ArgMax and ArgMin: where along one dimension of any layout the extreme element is."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from ingot.codegen.builder import I32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import gather_element, is_float, is_signed, load_element, memory_element
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import Lanes, index_lanes
from ingot.codegen.machine import Machine
from ingot.errors import ShapeError
from ingot.kernels.call import Call, View
from ingot.kernels.grid import Grid, Rows, plan


def evaluate_argreduce(x: np.ndarray, axis: int, largest: bool, last: bool) -> np.ndarray:
    """The plain definition: the first (or last) extreme element; a NaN is more extreme than any number."""
    if last:
        x = np.flip(x, axis)
    found = (np.argmax if largest else np.argmin)(x, axis)
    return np.asarray(x.shape[axis] - 1 - found if last else found)


def _better(k: Builder, a: Lanes, b: Lanes, dtype: str, largest: bool) -> Value:
    """Whether a is more extreme than b."""
    found = a.compare(">" if largest else "<", b, signed=is_signed(dtype))
    if is_float(dtype):
        found = k.ir.or_(found, k.ir.and_(a.is_nan(), k.ir.not_(b.is_nan())))
    return found


def _choose(k: Builder, a: list[Value], b: list[Value], dtype: str, largest: bool, last: bool) -> list[Value]:
    """Of two (value, index) the more extreme; of equals the one with the lower (or higher) index."""
    (x, i), (y, j) = ((Lanes(k, p[0]), Lanes(k, p[1])) for p in (a, b))
    second = _better(k, y, x, dtype, largest)
    worse = _better(k, x, y, dtype, largest)
    tie = k.ir.not_(k.ir.or_(second, worse))
    take = k.ir.or_(second, k.ir.and_(tie, j.compare(">" if last else "<", i)))
    return [y.where(take, x).value, j.where(take, i).value]


@kernel("length", "step")
def _argreduce(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    dtype: str,
    grid: Grid,
    largest: bool,
    last: bool,
    along: bool,
    lanes: int,
) -> None:
    """The grid runs over the kept dimensions; vectors lie `along` the reduced one, or across those."""
    element = memory_element(dtype)
    rows = Rows(k, grid, [element, I64])
    length, step = k.arg("length"), k.arg("step")
    wide: Any = vector(I32, lanes)

    def turn(best: list[Value], x: Value, i: Value, mask: Value | None) -> None:
        """Element x at index i, which is higher than all before in its lane."""
        found = _better(k, Lanes(k, x), Lanes(k, best[0]), dtype, largest)
        if last:  # an equal one is taken too: neither is better
            found = k.ir.not_(_better(k, Lanes(k, best[0]), Lanes(k, x), dtype, largest))
        if mask is not None:
            found = k.ir.and_(found, mask)
        best[:] = [k.ir.select(found, x, best[0]), k.ir.select(found, i, best[1])]

    def row(pointer: Value, target: Value) -> None:
        count = k.min(length, lanes)
        mask = k.lanes_below(count, lanes)
        first = load_element(k, pointer, dtype, lanes, 0, mask)
        # Lanes that have no element start as copies of the first one, and so never win against it.
        start = k.broadcast(load_element(k, pointer, dtype, 1), lanes)
        zero = k.zero(wide)
        best = [k.ir.select(mask, first, start), k.ir.select(mask, index_lanes(lanes), zero)]
        with k.loop(lanes, length, lanes, carry=best) as i:
            inside = k.lanes_below(k.sub(length, i), lanes)
            x = load_element(k, pointer, dtype, lanes, i, inside)
            index = k.ir.add(k.broadcast(k.ir.trunc(i, I32), lanes), index_lanes(lanes))
            turn(best, x, index, inside)
        count = lanes
        while count > 1:
            half = count // 2
            picks = [ir.Constant(ir.VectorType(I32, half), list(range(s, s + half))) for s in (0, half)]
            parts = [[k.ir.shuffle_vector(v, v, p) for v in best] for p in picks]
            best = _choose(k, parts[0], parts[1], dtype, largest, last)
            count = half
        value = best[1] if lanes == 1 else k.ir.extract_element(best[1], I32(0))
        k.store(k.ir.zext(value, I64), target)

    def across(pointer: Value, target: Value, left: Int) -> None:
        mask = k.lanes_below(left, lanes)

        def read(i: Int) -> Value:
            where = k.at(pointer, k.mul(i, step), element)
            if grid.classes[0] == "c":
                return load_element(k, where, dtype, lanes, 0, mask)
            return gather_element(k, where, dtype, lanes, rows.steps[0], left)

        best = [read(0), k.zero(wide)]
        with k.loop(1, length, carry=best) as i:
            turn(best, read(i), k.broadcast(k.ir.trunc(i, I32), lanes), None)
        index = k.ir.zext(best[1], vector(I64, lanes))
        if grid.classes[1] == "c":
            k.store(index, target, 0, mask)
        else:
            k.scatter(index, target, rows.steps[1], left)

    with rows.each() as (pointers, count), k.loop(0, count, 1 if along else lanes) as column:
        places = zip(pointers, rows.steps, (element, I64), strict=True)
        source, target = (k.at(p, k.mul(column, s), e) for p, s, e in places)
        if along:
            row(source, target)
        else:
            across(source, target, k.sub(count, column))


def argreduce(
    x: View, axis: int, out: View, machine: Machine, *, largest: bool = True, last: bool = False
) -> Call:
    """ArgMax (`largest`) or ArgMin of x along `axis` (not negative): int64 `out`, without that dimension.

    Of equal elements the first, or with `last` the last; NaN is the extreme. An empty axis is a ShapeError.
    """
    length, step = x.shape[axis], x.strides[axis]
    if not 0 < length < 2**31:
        raise ShapeError(
            f"ArgMax or ArgMin over {length} elements: it wants at least one (and fewer than 2^31)"
        )
    rest = [d for d in range(x.rank) if d != axis]
    source = x.with_dims([x.shape[d] for d in rest], [x.strides[d] for d in rest])
    lanes = machine.vector_bytes // max(4, x.dtype.itemsize)
    along = step == 1 and (length >= lanes or source.size < 2 * lanes)
    walk = plan([out], [source], source.shape, lanes, 4 * length)
    return Call(
        _argreduce(
            operands=walk.grid.slots(),
            dtype=x.dtype.name,
            grid=walk.grid,
            largest=largest,
            last=last,
            along=along,
            lanes=lanes,
        ),
        [length, step, *walk.args],
        tiles=walk.tiles,
        reads=[x],
        writes=[out],
        flops=x.size,
        label="ArgMax" if largest else "ArgMin",
    )
