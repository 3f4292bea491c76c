"""Operators that move elements of loose arrays (`kernels/loose.py`), or make new ones. Each has the meaning
of its operator's plain definition, or declines.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from ingot.codegen.builder import I64, Builder, Value
from ingot.codegen.elements import bytes_of, memory_element
from ingot.codegen.kernel import Kernel, kernel
from ingot.kernels.loose import (
    MOST_DIMS,
    MOST_ELEMENTS,
    Loose,
    all_of,
    any_of,
    arrays,
    bit,
    copy_dims,
    describe,
    dim_back,
    has,
    integer_element,
    is_nonzero,
    is_size,
    move,
    natural_strides,
    room,
    slots,
    spread,
    unless,
)


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
    bad: list[Value] = [bit(k, k.compare(">", rank, MOST_DIMS))]
    with k.when(k.compare("==", bad[0], 0)):
        natural_strides(k, x, own)
        out.set_rank(rank)
    with k.loop(0, k.min(rank, MOST_DIMS), carry=bad) as back:
        axis = k.sub(k.sub(rank, 1), back)
        wanted = k.sub(k.sub(given, 1), back)
        asked = k.either(
            k.compare(">=", wanted, 0), lambda w=wanted: [shape.integer(w, dtype)], lambda: [I64(1)]
        )[0]
        here = dim_back(k, x, back)
        wrong = any_of(
            k,
            k.ir.not_(is_size(k, asked)),
            all_of(k, k.compare("!=", asked, 1), k.compare("!=", here, 1), k.compare("!=", asked, here)),
        )
        bad[0] = k.ir.or_(bad[0], bit(k, wrong))
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
    carry: list[Value] = [bit(k, bad), I64(0), I64(0)]  # what is wrong, where it begins, axes so far
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
            has(k, carry[2], axis),
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
            k.ir.or_(carry[0], bit(k, wrong)),
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
    carry: list[Value] = [bit(k, bad)]
    with k.loop(0, k.choose(bad, 0, rank), carry=carry) as d:
        is_place = k.compare("==", d, place)
        total: Value = I64(0)
        for x in xs:
            differs = all_of(k, k.ir.not_(is_place), k.compare("!=", x.dim(d), first.dim(d)))
            carry[0] = k.ir.or_(carry[0], bit(k, differs))
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
            bad[0] = k.ir.or_(bad[0], bit(k, outside))
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
                carry[:] = [k.add(k.mul(carry[0], dim), index), k.ir.or_(carry[1], bit(k, outside))]
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
            carry[0] = k.add(carry[0], bit(k, is_nonzero(k, memory_of_condition, "bool", i)))
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
                    found[0] = k.add(number, bit(k, holds))


@kernel("state", "out", "in")
def nonzero(k: Builder, *, dtype: str) -> None:
    """NonZero: the places of what is not 0, a row for each dimension."""
    out, x = Loose(k, "out"), Loose(k, "in")
    rank, total, source = x.rank, x.count(), x.memory
    with unless(k, k.compare("==", rank, 0)):
        carry: list[Value] = [I64(0)]
        with k.loop(0, total, carry=carry) as i:
            carry[0] = k.add(carry[0], bit(k, is_nonzero(k, source, dtype, i)))
        count = carry[0]
        with room(k, k.mul(k.mul(rank, count), 8)) as memory:
            describe(out, memory, [rank, count])
            found: list[Value] = [I64(0)]
            with k.loop(0, total, carry=found) as i:
                holds, number = is_nonzero(k, source, dtype, i), found[0]
                with k.when(holds):
                    rest: list[Value] = [i]
                    with k.loop(0, rank, carry=rest) as turn:
                        axis = k.sub(k.sub(rank, 1), turn)
                        k.store(k.rem(rest[0], x.dim(axis)), memory, k.add(k.mul(axis, count), number))
                        rest[0] = k.div(rest[0], x.dim(axis))
                found[0] = k.add(number, bit(k, holds))


@kernel("state", "out", "shape", "value")
def constant_of_shape(k: Builder, *, dtype: str, size: int) -> None:
    """ConstantOfShape: the first element of `value` in every place."""
    out, shape = Loose(k, "out"), Loose(k, "shape")
    rank = shape.count()
    bad: list[Value] = [bit(k, k.compare(">", rank, MOST_DIMS))]
    with k.loop(0, k.min(rank, MOST_DIMS), carry=bad) as axis:
        dim = shape.integer(axis, dtype)
        out.set_dim(axis, dim)
        bad[0] = k.ir.or_(bad[0], bit(k, k.ir.not_(is_size(k, dim))))
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
            describe(Loose(k, "out"), memory, [count])
            with k.loop(0, count) as i:
                value = k.add(begin, k.mul(i, step))
                k.store(value if bytes_of(dtype) == 8 else k.ir.trunc(value, element), memory, i)
