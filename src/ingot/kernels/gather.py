"""Reads and writes at computed places: Gather, GatherElements, GatherND, ScatterElements, ScatterND.

An index out of range never touches memory outside of its tensor: it becomes 0, and a word is set that the
caller checks after the run.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ingot.codegen.builder import I1, I32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import (
    gather_element,
    load_element,
    memory_element,
    scatter_element,
    store_element,
)
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import Lanes, any_lane, index_lanes
from ingot.codegen.machine import Machine
from ingot.errors import ShapeError
from ingot.kernels.call import Call, View
from ingot.kernels.copy import as_bits, copy
from ingot.kernels.grid import Grid, Rows, plan
from ingot.kernels.operations import OPERATIONS

Combine = Literal["none", "add", "mul", "min", "max"]
_OPS = {"add": "Add", "mul": "Mul", "min": "Min", "max": "Max"}


def _position(
    k: Builder, indices: list[Value], sizes: list[Value], strides: list[Value], lanes: int, from_end: bool
) -> tuple[Value, Value]:
    """The sum of index · stride, and the mask of indices out of range; from_end: negative ones count from
    the end.
    """
    total, wrong = Lanes(k, k.zero(vector(I64, lanes))), k.zero(vector(I1, lanes))
    for index, size, stride in zip(indices, sizes, strides, strict=True):
        bound = Lanes(k, k.broadcast(size, lanes))
        i = Lanes(k, index)
        if from_end:
            i = (i + bound).where(i < 0, i)
        outside = i.compare(">=", bound, signed=False)  # as unsigned numbers, negative ones are large
        wrong = k.ir.or_(wrong, outside)
        total = total + i.constant(0).where(outside, i) * Lanes(k, k.broadcast(stride, lanes))
    return total.value, wrong


@kernel("error")
def _indexed(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    dtype: str,
    index_dtypes: tuple[str, ...],
    grid: Grid,
    writes: bool,
    combine: Combine,
    lanes: int,
    from_end: bool,
) -> None:
    """Operand 0 is the tensor that is indexed, then come the indices, then what is read into or written from.

    Along the vectors either all indices stay the same (rows are moved) or each lane has its own.
    """
    axes, classes = len(index_dtypes), grid.classes
    dtypes = (dtype, *index_dtypes, dtype)
    other = axes + 1
    elements = [memory_element(d) for d in dtypes]
    rows = Rows(k, grid, elements)
    sizes, strides = ([k.arg(f"{name}{a}") for a in range(axes)] for name in ("size", "stride"))
    error = k.pointer("error")
    rows_move = all(classes[1 + a] in "bu" for a in range(axes))

    def read(i: int, pointers: list[Value], column: Int, left: Int | None) -> Value:
        if classes[i] in "bu":
            return k.broadcast(load_element(k, pointers[i], dtypes[i], 1), lanes)
        if classes[i] == "c":
            mask = None if left is None else k.lanes_below(left, lanes)
            return load_element(k, pointers[i], dtypes[i], lanes, column, mask)
        where = k.at(pointers[i], k.mul(column, rows.steps[i]), elements[i])
        return gather_element(k, where, dtypes[i], lanes, rows.steps[i], left)

    def write(i: int, value: Value, pointers: list[Value], column: Int, left: Int | None) -> None:
        if classes[i] == "c":
            mask = None if left is None else k.lanes_below(left, lanes)
            store_element(k, value, pointers[i], dtypes[i], column, mask)
            return
        where = k.at(pointers[i], k.mul(column, rows.steps[i]), elements[i])
        scatter_element(k, value, where, dtypes[i], rows.steps[i], left)

    def merged(old: Value, new: Value) -> Value:
        return OPERATIONS[_OPS[combine]].emit(k, [old, new], (dtype, dtype), dtype, {})

    def place_of(indices: list[Value], width: int, mask: Value | None) -> Value:
        """The position, after complaining where an index is out of range."""
        wide = [
            i if d == "int64" else k.ir.sext(i, vector(I64, width))
            for i, d in zip(indices, index_dtypes, strict=True)
        ]
        position, wrong = _position(k, wide, sizes, strides, width, from_end)
        with k.when(any_lane(k, wrong if mask is None else k.ir.and_(wrong, mask))):
            k.store(I64(1), error)
        return position

    def move_row(pointers: list[Value], count: Value) -> None:
        indices = [load_element(k, pointers[1 + a], index_dtypes[a], 1) for a in range(axes)]
        pointers = [k.at(pointers[0], place_of(indices, 1, None), elements[0]), *pointers[1:]]
        source, target = (other, 0) if writes else (0, other)

        def move(column: Int, left: Int | None) -> None:
            value = read(source, pointers, column, left)
            if combine != "none":
                value = merged(read(target, pointers, column, left), value)
            write(target, value, pointers, column, left)

        whole = k.sub(count, k.rem(count, 4 * lanes))
        with k.loop(0, whole, 4 * lanes) as column:
            for vector_number in range(4):
                move(k.add(column, vector_number * lanes), None)
        with k.loop(whole, count, lanes) as column:
            move(column, k.sub(count, column))

    def move_lanes(pointers: list[Value], count: Value) -> None:
        with k.loop(0, count, lanes) as column:
            left = k.sub(count, column)
            mask = k.lanes_below(left, lanes)
            position = place_of([read(1 + a, pointers, column, left) for a in range(axes)], lanes, mask)
            along = Lanes(k, index_lanes(lanes, I64)) * Lanes(k, k.broadcast(k.int(rows.steps[0]), lanes))
            offsets = k.ir.add(position, along.value)
            base = k.at(pointers[0], k.mul(column, rows.steps[0]), elements[0])
            if not writes:
                write(
                    other,
                    k.gather_at(base, offsets, vector(elements[0], lanes), mask),
                    pointers,
                    column,
                    left,
                )
                return
            values = read(other, pointers, column, left)
            # Lane by lane: two of them may have the same place.
            for lane in range(lanes):
                with k.when(k.compare("<", lane, left)):
                    one = lanes > 1
                    where = k.at(
                        base, k.ir.extract_element(offsets, I32(lane)) if one else offsets, elements[0]
                    )
                    value = k.ir.extract_element(values, I32(lane)) if one else values
                    if combine != "none":
                        value = merged(load_element(k, where, dtype, 1), value)
                    store_element(k, value, where, dtype)

    # Writes are one tile, for one thread: two of them may have the same place.
    share = (k.mul(k.begin, k.arg("serial")), k.mul(k.end, k.arg("serial")))
    with rows.each(*share) as (pointers, count):
        (move_row if rows_move else move_lanes)(pointers, count)


def _call(
    tensor: View,
    indices: list[View],
    axes: list[tuple[int, int]],
    other: View,
    error: View,
    machine: Machine,
    writes: bool,
    combine: Combine,
    label: str,
    from_end: bool = True,
) -> Call:
    """All views have the shape of `other`; `axes` are sizes and strides of the indexed dimensions."""
    if other.size and not all(size for size, _ in axes):
        raise ShapeError(f"{label}: indices into a dimension of size 0; every index is out of range")
    for view in indices:
        if view.dtype.name not in ("int32", "int64"):
            raise ValueError(f"{label}: indices are {view.dtype.name}, want int32 or int64")
    if tensor.dtype != other.dtype:
        raise ValueError(f"{label}: {tensor.dtype.name} and {other.dtype.name} differ")
    reads, written = [*indices, other if writes else tensor], tensor if writes else other
    if combine == "none":
        tensor, other = as_bits(tensor), as_bits(other)
    lanes = machine.lanes // (2 if tensor.dtype.itemsize == 8 else 1)
    walk = plan([other], [tensor, *indices], other.shape, lanes, 8)
    extra = [name for a in range(len(axes)) for name in (f"size{a}", f"stride{a}")]
    return Call(
        _indexed(
            operands=(*walk.grid.slots(), *extra, "serial"),
            dtype=tensor.dtype.name,
            index_dtypes=tuple(v.dtype.name for v in indices),
            grid=walk.grid,
            writes=writes,
            combine=combine,
            lanes=lanes,
            from_end=from_end,
        ),
        [error, *walk.args, *(n for axis in axes for n in axis), walk.tiles if writes else 1],
        tiles=min(walk.tiles, 1) if writes else walk.tiles,
        reads=[*reads, written] if combine != "none" else reads,
        writes=[written, error],
        label=label,
    )


def gather(
    data: View,
    indices: View,
    axis: int,
    out: View,
    error: View,
    machine: Machine,
    from_end: bool = True,
) -> Call:
    """ONNX Gather: out[a…, i…, b…] = data[a…, indices[i…], b…] along `axis` (not negative).

    indices: int32 or int64; negative ones count from the end (from_end), or are out of range. error: an int64
    that becomes 1 if one is out of range.
    """
    before, inside, after = data.strides[:axis], (0,) * indices.rank, data.strides[axis + 1 :]
    shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    if out.shape != shape:
        raise ValueError(f"Gather into shape {out.shape}, want {shape}")
    zeros = [(0,) * len(part) for part in (before, after)]
    return _call(
        data.with_dims(shape, (*before, *inside, *after)),
        [indices.with_dims(shape, (*zeros[0], *indices.strides, *zeros[1]))],
        [(data.shape[axis], data.strides[axis])],
        out,
        error,
        machine,
        False,
        "none",
        "Gather",
        from_end,
    )


def gather_elements(
    data: View,
    indices: View,
    axis: int,
    out: View,
    error: View,
    machine: Machine,
    from_end: bool = True,
) -> Call:
    """ONNX GatherElements: out[…, i, …] = data[…, indices[…, i, …], …], the index in the place of `axis`.

    from_end: as for `gather`.
    """
    strides = tuple(0 if d == axis else s for d, s in enumerate(data.strides))
    tensor = data.with_dims(indices.shape, strides)
    place = [(data.shape[axis], data.strides[axis])]
    return _call(tensor, [indices], place, out, error, machine, False, "none", "GatherElements", from_end)


def _nd(
    data: View, indices: View, batch: int, shape: Sequence[int]
) -> tuple[View, list[View], list[tuple[int, int]]]:
    """The base of `data`, a view for each index in the last dimension of `indices`, their dimensions."""
    count, middle = indices.shape[-1], indices.rank - 1 - batch
    rest = data.strides[batch + count :]
    tensor = data.with_dims(shape, (*data.strides[:batch], *(0,) * middle, *rest))
    own = (*indices.strides[:-1], *(0,) * len(rest))
    each = [indices.with_dims(shape, own, j * indices.strides[-1]) for j in range(count)]
    return tensor, each, [(data.shape[d], data.strides[d]) for d in range(batch, batch + count)]


def gather_nd(data: View, indices: View, batch: int, out: View, error: View, machine: Machine) -> Call:
    """ONNX GatherND: `indices[…, :]` are positions in the dimensions of `data` after `batch`."""
    tensor, each, axes = _nd(data, indices, batch, out.shape)
    return _call(tensor, each, axes, out, error, machine, False, "none", "GatherND")


def scatter_nd(
    data: View,
    indices: View,
    updates: View,
    out: View,
    error: View,
    machine: Machine,
    combine: Combine = "none",
) -> list[Call]:
    """ONNX ScatterND: out is data, with updates[i…] put (or combined) at the place that indices[i…, :] names.

    out may be data itself.
    """
    tensor, each, axes = _nd(out, indices, 0, updates.shape)
    call = _call(tensor, each, axes, updates, error, machine, True, combine, "ScatterND")
    return [*_copied(data, out, machine), _whole(call, out)]


def scatter_elements(
    data: View,
    indices: View,
    updates: View,
    axis: int,
    out: View,
    error: View,
    machine: Machine,
    combine: Combine = "none",
) -> list[Call]:
    """ONNX ScatterElements: out is data, with out[…, indices[…, i, …], …] = updates[…, i, …] (or combined).

    out may be data itself.
    """
    strides = tuple(0 if d == axis else s for d, s in enumerate(out.strides))
    tensor, place = out.with_dims(indices.shape, strides), [(out.shape[axis], out.strides[axis])]
    call = _call(tensor, [indices], place, updates, error, machine, True, combine, "ScatterElements")
    return [*_copied(data, out, machine), _whole(call, out)]


def _copied(data: View, out: View, machine: Machine) -> list[Call]:
    return [] if data == out else [copy(data, out, machine)]


def _whole(call: Call, out: View) -> Call:
    """What a scatter writes is the whole tensor, not the view from which its places are counted."""
    call.writes[0] = out
    return call
