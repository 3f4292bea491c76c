"""Fused elementwise operators on loose arrays (`kernels/loose.py`), which broadcast."""
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
    Loose,
    all_of,
    arrays,
    bit,
    dim_back,
    integer_element,
    room,
    slots,
    unless,
)


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
            whole, in_row = k.compare("==", count, total), k.compare("!=", dim_back(k, x, 0), 1)
            steps.append(k.choose(flat, bit(k, whole), bit(k, in_row)))
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
            here = dim_back(k, x, back)
            differs = all_of(
                k, k.compare("!=", here, 1), k.compare("!=", size, 1), k.compare("!=", here, size)
            )
            bad[0] = k.ir.or_(bad[0], bit(k, differs))
            size = k.choose(k.compare("==", size, 1), here, size)
        out.set_dim(k.sub(k.sub(rank, 1), back), size)
    return k.compare("!=", bad[0], 0)


def _offset(k: Builder, row: Value, outer: Value, out: Loose, x: Loose) -> Value:
    """Where a row of the result begins in an operand: rows are counted over the first `outer` dimensions."""
    carry: list[Value] = [row, I64(0), dim_back(k, x, 0)]
    with k.loop(1, k.add(outer, 1), carry=carry) as back:
        size, own = out.dim(k.sub(outer, back)), dim_back(k, x, back)
        here = k.choose(k.compare("==", own, 1), 0, k.mul(k.rem(carry[0], size), carry[2]))
        carry[:] = [k.div(carry[0], size), k.add(carry[1], here), k.mul(carry[2], own)]
    return carry[1]
