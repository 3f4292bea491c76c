"""What is done to loose arrays (`kernels/loose.py`): fused elementwise operators, and the operators that move
elements or say sizes. Each has the meaning of its operator's plain definition, or declines.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Sequence

from ingot.codegen.builder import I1, I64, Builder, Int, Value
from ingot.codegen.elements import bytes_of, load_element, memory_element, store_element
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.kernels.expression import Expression, emit
from ingot.kernels.loose import (
    MOST_DIMS,
    MOST_ELEMENTS,
    Loose,
    all_of,
    any_of,
    arrays,
    bounded,
    copy_dims,
    integer_element,
    is_nonzero,
    move,
    natural_strides,
    room,
    slots,
    spread,
    unless,
)

# ---- elementwise -------------------------------------------------------------------------------------------


@kernel("state", "out")
def _apply(k: Builder, *, operands: tuple[str, ...], expression: Expression, lanes: int) -> None:
    """An expression of arrays that broadcast."""
    out, xs = Loose(k, "out"), arrays(k, operands)
    dtypes, (result,) = expression.leaves, expression.result_dtypes
    clash = _broadcast(k, out, xs)
    total = out.count()
    counts = [x.count() for x in xs]
    # Arrays that have all the elements, or one, are run through as one row.
    flat = k.compare("==", total, 0)
    alike = I1(1)
    for count in counts:
        alike = k.ir.and_(alike, k.ir.or_(k.compare("==", count, total), k.compare("==", count, 1)))
    flat = k.ir.or_(flat, alike)
    rank = out.rank
    last = k.max(k.sub(rank, 1), 0)
    length = k.choose(flat, total, out.dim(last))
    outer = k.choose(flat, 0, last)
    rows = k.choose(flat, 1, k.div(total, k.max(length, 1)))
    with unless(k, clash), room(k, k.mul(total, bytes_of(result))) as memory:
        out.lie(memory)
        sources, steps = [x.memory for x in xs], list[Value]()
        for x, count in zip(xs, counts, strict=True):
            whole, in_row = k.compare("==", count, total), k.compare("!=", _dim(k, x, 0), 1)
            steps.append(k.choose(flat, _bit(k, whole), _bit(k, in_row)))
        with k.loop(0, rows) as row:
            pointers: list[Value] = []
            for n, (x, source, step, dtype) in enumerate(zip(xs, sources, steps, dtypes, strict=True)):
                where = k.at(source, _offset(k, row, outer, out, x), memory_element(dtype))
                # What has one element in a row stands in each lane of a vector that is read again and again.
                spare = k.at(k.scratch, 64 * n, integer_element(1))
                repeats = k.compare("==", step, 0)
                with k.when(repeats):
                    one = k.broadcast(load_element(k, where, dtype, 1), lanes)
                    store_element(k, one, spare, dtype)
                pointers.append(k.ir.select(repeats, spare, where))
            target = k.at(memory, k.mul(row, length), memory_element(result))

            def one(
                column: Int,
                left: Value | None,
                pointers: Sequence[Value] = pointers,
                target: Value = target,
            ) -> None:
                mask = None if left is None else k.lanes_below(left, lanes)
                leaves = [
                    load_element(k, pointer, dtype, lanes, k.mul(column, step), mask)
                    for pointer, dtype, step in zip(pointers, dtypes, steps, strict=True)
                ]
                (value,) = emit(k, expression, leaves, lanes)
                store_element(k, value, target, result, column, mask)

            full = k.sub(length, k.rem(length, lanes))
            with k.loop(0, full, lanes) as column:
                one(column, None)
            with k.loop(full, length, lanes) as column:
                one(column, k.sub(length, column))


def apply(expression: Expression, machine: Machine) -> Kernel:
    """The kernel of an expression of one result."""
    lanes = machine.vector_bytes // expression.widest
    return _apply(operands=slots("in", len(expression.leaves)), expression=expression, lanes=lanes)


def _bit(k: Builder, condition: Value) -> Value:
    return k.ir.zext(condition, I64)


def _dim(k: Builder, x: Loose, back: Int) -> Value:
    """The size of the dimension so many before the last; 1 where there is none."""
    axis = k.sub(k.sub(x.rank, 1), back)
    return k.choose(k.compare(">=", axis, 0), x.dim(k.max(axis, 0)), 1)


def _broadcast(k: Builder, out: Loose, xs: Sequence[Loose]) -> Value:
    """Write down the sizes to which the arrays broadcast; whether they do not."""
    rank: Value = I64(0)
    for x in xs:
        rank = k.max(rank, x.rank)
    out.set_rank(rank)
    bad: list[Value] = [I64(0)]
    with k.loop(0, rank, carry=bad) as back:
        size: Value = I64(1)
        for x in xs:
            here = _dim(k, x, back)
            differs = all_of(
                k, k.compare("!=", here, 1), k.compare("!=", size, 1), k.compare("!=", here, size)
            )
            bad[0] = k.ir.or_(bad[0], _bit(k, differs))
            size = k.choose(k.compare("==", size, 1), here, size)
        out.set_dim(k.sub(k.sub(rank, 1), back), size)
    return k.compare("!=", bad[0], 0)


def _offset(k: Builder, row: Value, outer: Value, out: Loose, x: Loose) -> Value:
    """Where a row of the result begins in an operand: rows are counted over the first `outer` dimensions."""
    carry: list[Value] = [row, I64(0), _dim(k, x, 0)]
    with k.loop(1, k.add(outer, 1), carry=carry) as back:
        size, own = out.dim(k.sub(outer, back)), _dim(k, x, back)
        here = k.choose(k.compare("==", own, 1), 0, k.mul(k.rem(carry[0], size), carry[2]))
        carry[:] = [k.div(carry[0], size), k.add(carry[1], here), k.mul(carry[2], own)]
    return carry[1]


# ---- sizes -------------------------------------------------------------------------------------------------


@kernel("state", "out", "in")
def shape_of(k: Builder, *, start: int, end: int | None) -> None:
    """Shape: the dimensions from `start` to `end`, both from the end where negative."""
    out, x = Loose(k, "out"), Loose(k, "in")
    rank = x.rank

    def place(axis: int) -> Value:
        return k.max(k.min(k.add(rank, axis) if axis < 0 else I64(axis), rank), 0)

    first = place(start)
    count = k.max(k.sub(rank if end is None else place(end), first), 0)
    with room(k, k.mul(count, 8)) as memory:
        with k.loop(0, count) as i:
            k.store(x.dim(k.add(first, i)), memory, i)
        _describe(out, memory, [count])


@kernel("state", "out", "in")
def size_of(k: Builder) -> None:
    """Size: how many elements there are."""
    with room(k, I64(8)) as memory:
        k.store(Loose(k, "in").count(), memory)
        _describe(Loose(k, "out"), memory, [])


def _describe(out: Loose, memory: Value, dims: Sequence[Int]) -> None:
    out.lie(memory)
    out.set_rank(len(dims))
    for axis, size in enumerate(dims):
        out.set_dim(axis, size)


def _is_size(k: Builder, size: Value) -> Value:
    return all_of(k, k.compare(">=", size, 0), k.compare("<", size, MOST_ELEMENTS))


# ---- the same elements in other dimensions -----------------------------------------------------------------


@kernel("state", "out", "in", "shape")
def reshape(k: Builder, *, dtype: str, keeps_zero: bool) -> None:
    """Reshape. A size of 0 is the input's, unless it `keeps_zero`; -1 is what is left."""
    out, x, shape = (Loose(k, name) for name in ("out", "in", "shape"))
    rank, total = shape.dim(0), x.count()
    bad: list[Value] = [
        _bit(k, any_of(k, k.compare("!=", shape.rank, 1), k.compare(">", rank, MOST_DIMS))),
        I64(1),  # the product of what is said
        I64(-1),  # where a size is left open
    ]
    with k.loop(0, k.min(rank, MOST_DIMS), carry=bad) as axis:
        size = shape.integer(axis, dtype)
        if not keeps_zero:
            lacks = all_of(k, k.compare("==", size, 0), k.compare(">=", axis, x.rank))
            bad[0] = k.ir.or_(bad[0], _bit(k, lacks))
            size = k.choose(k.compare("==", size, 0), x.dim(k.min(axis, MOST_DIMS - 1)), size)
        is_open = k.compare("==", size, -1)
        wrong = any_of(
            k,
            all_of(k, is_open, k.compare(">=", bad[2], 0)),
            all_of(k, k.ir.not_(is_open), k.ir.not_(_is_size(k, size))),
        )
        bad[0] = k.ir.or_(bad[0], _bit(k, wrong))
        bad[2] = k.choose(is_open, axis, bad[2])
        kept = k.choose(any_of(k, is_open, wrong), 1, size)
        bad[1] = bounded(k, k.mul(bad[1], kept))
        out.set_dim(axis, kept)
    found, said, left = bad
    rest = k.div(total, k.max(said, 1))
    is_open = k.compare(">=", left, 0)
    made = k.mul(said, k.choose(is_open, rest, 1))
    wrong = any_of(
        k,
        k.compare("!=", found, 0),
        k.compare("!=", made, total),
        all_of(k, is_open, k.compare("==", said, 0)),
    )
    with unless(k, wrong):
        with k.when(is_open):
            out.set_dim(left, rest)
        out.set_rank(rank)
        out.lie(x.memory)


@kernel("state", "out", "in")
def flatten(k: Builder, *, axis: int) -> None:
    """Flatten: two dimensions, those before `axis` and the others."""
    out, x = Loose(k, "out"), Loose(k, "in")
    rank = x.rank
    place = k.add(rank, axis) if axis < 0 else I64(axis)
    with unless(k, any_of(k, k.compare("<", place, 0), k.compare(">", place, rank))):
        _describe(out, x.memory, [x.count(0, place), x.count(place)])


@kernel("state", "out", "in", "axes")
def unsqueeze(k: Builder, *, dtype: str) -> None:
    """Unsqueeze: new dimensions of size 1."""
    out, x, axes = (Loose(k, name) for name in ("out", "in", "axes"))
    rank = k.add(x.rank, axes.count())
    chosen, bad = _chosen(k, axes, rank, dtype)
    with unless(k, k.ir.or_(bad, k.compare(">", rank, MOST_DIMS))):
        source: list[Value] = [I64(0)]
        with k.loop(0, rank, carry=source) as axis:
            is_new = _has(k, chosen, axis)
            out.set_dim(axis, k.choose(is_new, 1, x.dim(k.min(source[0], MOST_DIMS - 1))))
            source[0] = k.add(source[0], _bit(k, k.ir.not_(is_new)))
        out.set_rank(rank)
        out.lie(x.memory)


@kernel("state", "out", "in", "axes")
def squeeze(k: Builder, *, dtype: str | None) -> None:
    """Squeeze: without the dimensions of the axes, which must be of size 1; dtype None: without all of
    those.
    """
    out, x = Loose(k, "out"), Loose(k, "in")
    rank = x.rank
    chosen, bad = (I64(0), I1(0)) if dtype is None else _chosen(k, Loose(k, "axes"), rank, dtype)
    carry: list[Value] = [I64(0), _bit(k, bad)]
    with k.loop(0, rank, carry=carry) as axis:
        size = x.dim(axis)
        is_one = k.compare("==", size, 1)
        goes = is_one if dtype is None else _has(k, chosen, axis)
        carry[1] = k.ir.or_(carry[1], _bit(k, all_of(k, goes, k.ir.not_(is_one))))
        out.set_dim(carry[0], size)
        carry[0] = k.add(carry[0], _bit(k, k.ir.not_(goes)))
    with unless(k, k.compare("!=", carry[1], 0)):
        out.set_rank(carry[0])
        out.lie(x.memory)


def _chosen(k: Builder, axes: Loose, rank: Value, dtype: str) -> tuple[Value, Value]:
    """The axes as bits, and whether one is none or comes twice."""
    carry: list[Value] = [I64(0), _bit(k, k.compare(">", axes.count(), MOST_DIMS))]
    with k.loop(0, k.min(axes.count(), MOST_DIMS), carry=carry) as i:
        axis = axes.integer(i, dtype)
        axis = k.choose(k.compare("<", axis, 0), k.add(axis, rank), axis)
        wrong = any_of(k, k.compare("<", axis, 0), k.compare(">=", axis, rank))
        axis = k.choose(wrong, 0, k.min(axis, 63))
        wrong = k.ir.or_(wrong, _has(k, carry[0], axis))
        carry[:] = [k.ir.or_(carry[0], k.ir.shl(I64(1), axis)), k.ir.or_(carry[1], _bit(k, wrong))]
    return carry[0], k.compare("!=", carry[1], 0)


def _has(k: Builder, bits: Value, axis: Value) -> Value:
    return k.compare("!=", k.ir.and_(bits, k.ir.shl(I64(1), axis)), 0)


# ---- elements in other places ------------------------------------------------------------------------------


@kernel("state", "out", "in")
def transpose(k: Builder, *, perm: tuple[int, ...], size: int) -> None:
    """Transpose."""
    out, x = Loose(k, "out"), Loose(k, "in")
    strides, own = k.scratch, k.at(k.scratch, MOST_DIMS, I64)
    with unless(k, k.compare("!=", x.rank, len(perm))):
        natural_strides(k, x, own)
        for axis, source in enumerate(perm):
            k.store(k.load(own, I64, source), strides, axis)
            out.set_dim(axis, x.dim(source))
        out.set_rank(len(perm))
        with room(k, k.mul(out.count(), size)) as memory:
            out.lie(memory)
            spread(k, memory, out, x.memory, strides, size)


@kernel("state", "out", "in", "shape")
def expand(k: Builder, *, dtype: str, size: int) -> None:
    """Expand: broadcast with a shape."""
    out, x, shape = (Loose(k, name) for name in ("out", "in", "shape"))
    strides, own = k.scratch, k.at(k.scratch, MOST_DIMS, I64)
    given = shape.count()
    rank = k.max(x.rank, given)
    bad: list[Value] = [_bit(k, k.compare(">", rank, MOST_DIMS))]
    with k.when(k.compare("==", bad[0], 0)):
        natural_strides(k, x, own)
        out.set_rank(rank)
    with k.loop(0, k.min(rank, MOST_DIMS), carry=bad) as back:
        axis = k.sub(k.sub(rank, 1), back)
        wanted = k.sub(k.sub(given, 1), back)
        asked = k.either(
            k.compare(">=", wanted, 0), lambda w=wanted: [shape.integer(w, dtype)], lambda: [I64(1)]
        )[0]
        here = _dim(k, x, back)
        wrong = any_of(
            k,
            k.ir.not_(_is_size(k, asked)),
            all_of(k, k.compare("!=", asked, 1), k.compare("!=", here, 1), k.compare("!=", asked, here)),
        )
        bad[0] = k.ir.or_(bad[0], _bit(k, wrong))
        axis = k.max(k.min(axis, MOST_DIMS - 1), 0)
        out.set_dim(axis, k.choose(k.compare("==", here, 1), asked, here))
        source = k.max(k.sub(k.sub(x.rank, 1), back), 0)
        step = k.choose(k.compare("==", here, 1), 0, k.load(own, I64, source))
        k.store(step, strides, axis)
    with unless(k, k.compare("!=", bad[0], 0)), room(k, k.mul(out.count(), size)) as memory:
        out.lie(memory)
        spread(k, memory, out, x.memory, strides, size)


@kernel("state", "out", "in", "starts", "ends", "axes", "steps")
def slice_of(k: Builder, *, dtype: str, axes: bool, steps: bool, size: int) -> None:
    """Slice. axes, steps: whether those are given."""
    out, x, starts, ends = (Loose(k, name) for name in ("out", "in", "starts", "ends"))
    natural, strides = k.scratch, k.at(k.scratch, MOST_DIMS, I64)
    rank, given = x.rank, starts.count()
    natural_strides(k, x, natural)
    natural_strides(k, x, strides)
    out.set_rank(rank)
    copy_dims(k, out, x, 0, rank, 0)
    others = [Loose(k, name) for name, there in (("axes", axes), ("steps", steps)) if there]
    bad = any_of(
        k, k.compare(">", given, rank), *(k.compare("!=", other.count(), given) for other in (ends, *others))
    )
    carry: list[Value] = [_bit(k, bad), I64(0), I64(0)]  # what is wrong, where it begins, axes so far
    with k.loop(0, k.choose(bad, 0, given), carry=carry) as i:
        axis = Loose(k, "axes").integer(i, dtype) if axes else i
        axis = k.choose(k.compare("<", axis, 0), k.add(axis, rank), axis)
        step = Loose(k, "steps").integer(i, dtype) if steps else I64(1)
        out_of_range = any_of(k, k.compare("<", axis, 0), k.compare(">=", axis, rank))
        axis = k.choose(out_of_range, 0, axis)
        wrong = any_of(
            k,
            out_of_range,
            k.compare("==", step, 0),
            _has(k, carry[2], axis),
        )
        # A step beyond the end is as good as a longer one.
        step = k.choose(wrong, 1, k.max(k.min(step, MOST_ELEMENTS), -MOST_ELEMENTS))
        dim, is_back = x.dim(axis), k.compare("<", step, 0)
        high = k.choose(is_back, k.sub(dim, 1), dim)

        def place(bound: Value, low: Value, dim: Value = dim, high: Value = high) -> Value:
            bound = k.choose(k.compare("<", bound, 0), k.add(bound, dim), bound)
            return k.max(k.min(bound, high), low)

        # A start before the first element is the first one, for negative steps too.
        begin = place(starts.integer(i, dtype), k.min(high, 0))
        end = place(ends.integer(i, dtype), k.choose(is_back, -1, 0))
        way = k.choose(is_back, k.sub(begin, end), k.sub(end, begin))
        pace = k.choose(is_back, k.sub(0, step), step)
        count = k.choose(k.compare(">", way, 0), k.ceil_div(k.max(way, 1), pace), 0)
        stride = k.load(natural, I64, axis)
        out.set_dim(axis, count)
        k.store(k.mul(stride, step), strides, axis)
        carry[:] = [
            k.ir.or_(carry[0], _bit(k, wrong)),
            k.add(carry[1], k.choose(k.compare(">", count, 0), k.mul(begin, stride), 0)),
            k.ir.or_(carry[2], k.ir.shl(I64(1), axis)),
        ]
    with unless(k, k.compare("!=", carry[0], 0)), room(k, k.mul(out.count(), size)) as memory:
        out.lie(memory)
        spread(k, memory, out, k.at(x.memory, carry[1], integer_element(size)), strides, size)


@kernel("state", "out")
def _concat(k: Builder, *, operands: tuple[str, ...], axis: int, size: int) -> None:
    """Concat."""
    out, xs = Loose(k, "out"), arrays(k, operands)
    first = xs[0]
    rank = first.rank
    place = k.add(rank, axis) if axis < 0 else I64(axis)
    ranks = [k.compare("!=", x.rank, rank) for x in xs]
    bad = any_of(k, k.compare("<", place, 0), k.compare(">=", place, rank), *ranks)
    carry: list[Value] = [_bit(k, bad)]
    with k.loop(0, k.choose(bad, 0, rank), carry=carry) as d:
        is_place = k.compare("==", d, place)
        total: Value = I64(0)
        for x in xs:
            differs = all_of(k, k.ir.not_(is_place), k.compare("!=", x.dim(d), first.dim(d)))
            carry[0] = k.ir.or_(carry[0], _bit(k, differs))
            total = k.add(total, x.dim(d))
        out.set_dim(d, k.choose(is_place, total, first.dim(d)))
    with unless(k, k.compare("!=", carry[0], 0)):
        out.set_rank(rank)
        with room(k, k.mul(out.count(), size)) as memory:
            out.lie(memory)
            rows, row = out.count(0, place), out.count(place)
            begin: Value = I64(0)
            for x in xs:
                part, source, element = x.count(place), x.memory, integer_element(size)
                with k.loop(0, rows) as r:
                    where = k.at(memory, k.add(k.mul(r, row), begin), element)
                    move(k, where, k.at(source, k.mul(r, part), element), part, size)
                begin = k.add(begin, part)


def concat(inputs: int, axis: int, size: int) -> Kernel:
    """The kernel that joins so many arrays."""
    return _concat(operands=slots("in", inputs), axis=axis, size=size)


@kernel("state", "out", "in", "indices")
def gather(k: Builder, *, axis: int, dtype: str, size: int) -> None:
    """Gather: whole slices, by their numbers along an axis."""
    out, x, indices = (Loose(k, name) for name in ("out", "in", "indices"))
    rank, own = x.rank, indices.rank
    place = k.add(rank, axis) if axis < 0 else I64(axis)
    new = k.sub(k.add(rank, own), 1)
    wrong = any_of(k, k.compare("<", place, 0), k.compare(">=", place, rank), k.compare(">", new, MOST_DIMS))
    with unless(k, wrong):
        copy_dims(k, out, x, 0, place, 0)
        copy_dims(k, out, indices, 0, own, place)
        copy_dims(k, out, x, k.add(place, 1), rank, k.add(place, own))
        out.set_rank(new)
        outer, inner, count, dim = x.count(0, place), x.count(k.add(place, 1)), indices.count(), x.dim(place)
        bad: list[Value] = [I64(0)]
        with k.loop(0, count, carry=bad) as i:
            index = indices.integer(i, dtype)
            outside = k.ir.or_(k.compare("<", index, k.sub(0, dim)), k.compare(">=", index, dim))
            bad[0] = k.ir.or_(bad[0], _bit(k, outside))
        with unless(k, k.compare("!=", bad[0], 0)), room(k, k.mul(out.count(), size)) as memory:
            out.lie(memory)
            source, element, is_one = x.memory, integer_element(size), k.compare("==", inner, 1)

            def from_end(i: Value) -> Value:
                index = indices.integer(i, dtype)
                return k.choose(k.compare("<", index, 0), k.add(index, dim), index)

            with k.loop(0, outer) as o:
                begin = k.at(source, k.mul(o, k.mul(dim, inner)), element)
                end = k.at(memory, k.mul(o, k.mul(count, inner)), element)
                with k.when(is_one), k.loop(0, count) as i:
                    k.store(k.load(begin, element, from_end(i)), end, i)
                with k.when(k.ir.not_(is_one)), k.loop(0, count) as i:
                    where = k.at(end, k.mul(i, inner), element)
                    move(k, where, k.at(begin, k.mul(from_end(i), inner), element), inner, size)


@kernel("state", "out", "in", "indices")
def gather_nd(k: Builder, *, dtype: str, size: int) -> None:
    """GatherND without batch dimensions: slices by their places."""
    out, x, indices = (Loose(k, name) for name in ("out", "in", "indices"))
    rank, own = x.rank, indices.rank
    depth = indices.dim(k.max(k.sub(own, 1), 0))
    new = k.add(k.sub(own, 1), k.sub(rank, depth))
    wrong = any_of(
        k,
        k.compare("<", own, 1),
        k.compare("<", depth, 1),
        k.compare(">", depth, rank),
        k.compare(">", new, MOST_DIMS),
    )
    with unless(k, wrong):
        copy_dims(k, out, indices, 0, k.sub(own, 1), 0)
        copy_dims(k, out, x, depth, rank, k.sub(own, 1))
        out.set_rank(new)
        count, inner = indices.count(0, k.sub(own, 1)), x.count(depth)

        def place(i: Value) -> list[Value]:
            """Where slice i begins, in slices, and whether it is outside."""
            carry: list[Value] = [I64(0), I64(0)]
            with k.loop(0, depth, carry=carry) as d:
                index, dim = indices.integer(k.add(k.mul(i, depth), d), dtype), x.dim(d)
                outside = k.ir.or_(k.compare("<", index, k.sub(0, dim)), k.compare(">=", index, dim))
                index = k.choose(k.compare("<", index, 0), k.add(index, dim), index)
                carry[:] = [k.add(k.mul(carry[0], dim), index), k.ir.or_(carry[1], _bit(k, outside))]
            return carry

        bad: list[Value] = [I64(0)]
        with k.loop(0, count, carry=bad) as i:
            bad[0] = k.ir.or_(bad[0], place(i)[1])
        with unless(k, k.compare("!=", bad[0], 0)), room(k, k.mul(out.count(), size)) as memory:
            out.lie(memory)
            source, element = x.memory, integer_element(size)
            with k.loop(0, count) as i:
                begin = k.at(source, k.mul(place(i)[0], inner), element)
                move(k, k.at(memory, k.mul(i, inner), element), begin, inner, size)


@kernel("state", "out", "in", "condition")
def compress(k: Builder, *, axis: int | None, size: int) -> None:
    """Compress: the slices along an axis where the condition holds; axis None: the elements."""
    out, x, condition = (Loose(k, name) for name in ("out", "in", "condition"))
    rank, given = x.rank, condition.count()
    place = I64(0) if axis is None else k.add(rank, axis) if axis < 0 else I64(axis)
    wrong = k.compare("!=", condition.rank, 1)
    if axis is not None:
        wrong = any_of(k, wrong, k.compare("<", place, 0), k.compare(">=", place, rank))
    with unless(k, wrong):
        dim = x.count() if axis is None else x.dim(place)
        carry: list[Value] = [I64(0)]
        memory_of_condition = condition.memory
        with k.loop(0, given, carry=carry) as i:
            carry[0] = k.add(carry[0], _bit(k, is_nonzero(k, memory_of_condition, "bool", i)))
        kept = carry[0]
        if axis is None:
            out.set_rank(1)
            outer, inner = I64(1), I64(1)
        else:
            copy_dims(k, out, x, 0, rank, 0)
            out.set_rank(rank)
            outer, inner = x.count(0, place), x.count(k.add(place, 1))
        out.set_dim(place, kept)
        nbytes = k.mul(out.count(), size)
        with unless(k, k.compare(">", given, dim)), room(k, nbytes) as memory:
            out.lie(memory)
            source, element, is_one = x.memory, integer_element(size), k.compare("==", inner, 1)
            with k.loop(0, outer) as o:
                begin = k.at(source, k.mul(o, k.mul(dim, inner)), element)
                end = k.at(memory, k.mul(o, k.mul(kept, inner)), element)
                found: list[Value] = [I64(0)]
                with k.loop(0, given, carry=found) as i:
                    holds = is_nonzero(k, memory_of_condition, "bool", i)
                    number = found[0]
                    with k.when(all_of(k, holds, is_one)):
                        k.store(k.load(begin, element, i), end, number)
                    with k.when(all_of(k, holds, k.ir.not_(is_one))):
                        where = k.at(end, k.mul(number, inner), element)
                        move(k, where, k.at(begin, k.mul(i, inner), element), inner, size)
                    found[0] = k.add(number, _bit(k, holds))


@kernel("state", "out", "in")
def nonzero(k: Builder, *, dtype: str) -> None:
    """NonZero: the places of what is not 0, a row for each dimension."""
    out, x = Loose(k, "out"), Loose(k, "in")
    rank, total, source = x.rank, x.count(), x.memory
    with unless(k, k.compare("==", rank, 0)):
        carry: list[Value] = [I64(0)]
        with k.loop(0, total, carry=carry) as i:
            carry[0] = k.add(carry[0], _bit(k, is_nonzero(k, source, dtype, i)))
        count = carry[0]
        with room(k, k.mul(k.mul(rank, count), 8)) as memory:
            _describe(out, memory, [rank, count])
            found: list[Value] = [I64(0)]
            with k.loop(0, total, carry=found) as i:
                holds, number = is_nonzero(k, source, dtype, i), found[0]
                with k.when(holds):
                    rest: list[Value] = [i]
                    with k.loop(0, rank, carry=rest) as turn:
                        axis = k.sub(k.sub(rank, 1), turn)
                        k.store(k.rem(rest[0], x.dim(axis)), memory, k.add(k.mul(axis, count), number))
                        rest[0] = k.div(rest[0], x.dim(axis))
                found[0] = k.add(number, _bit(k, holds))


# ---- new elements ------------------------------------------------------------------------------------------


@kernel("state", "out", "shape", "value")
def constant_of_shape(k: Builder, *, dtype: str, size: int) -> None:
    """ConstantOfShape: the first element of `value` in every place."""
    out, shape = Loose(k, "out"), Loose(k, "shape")
    rank = shape.count()
    bad: list[Value] = [_bit(k, k.compare(">", rank, MOST_DIMS))]
    with k.loop(0, k.min(rank, MOST_DIMS), carry=bad) as axis:
        dim = shape.integer(axis, dtype)
        out.set_dim(axis, dim)
        bad[0] = k.ir.or_(bad[0], _bit(k, k.ir.not_(_is_size(k, dim))))
    with unless(k, k.compare("!=", bad[0], 0)):
        out.set_rank(rank)
        total, element = out.count(), integer_element(size)
        one = k.load(Loose(k, "value").memory, element)
        with room(k, k.mul(total, size)) as memory:
            out.lie(memory)
            with k.loop(0, total) as i:
                k.store(one, memory, i)


@kernel("state", "out", "start", "limit", "delta")
def range_of(k: Builder, *, dtype: str) -> None:
    """Range of integers."""
    bounds = [Loose(k, name) for name in ("start", "limit", "delta")]
    begin, end, step = (bound.integer(0, dtype) for bound in bounds)
    most = MOST_ELEMENTS
    far = [k.ir.or_(k.compare(">", n, most), k.compare("<", n, -most)) for n in (begin, end, step)]
    wrong = any_of(k, k.compare("==", step, 0), *far, *(k.compare("!=", b.count(), 1) for b in bounds))
    with unless(k, wrong):
        is_back = k.compare("<", step, 0)
        way = k.choose(is_back, k.sub(begin, end), k.sub(end, begin))
        pace = k.choose(is_back, k.sub(0, step), step)
        count = k.choose(k.compare(">", way, 0), k.ceil_div(k.max(way, 1), pace), 0)
        element = memory_element(dtype)
        with room(k, k.mul(count, bytes_of(dtype))) as memory:
            _describe(Loose(k, "out"), memory, [count])
            with k.loop(0, count) as i:
                value = k.add(begin, k.mul(i, step))
                k.store(value if bytes_of(dtype) == 8 else k.ir.trunc(value, element), memory, i)
