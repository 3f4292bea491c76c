"""Fused elementwise kernels: an expression over strided, broadcasting views, and fills."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ingot.codegen.builder import Builder, Int, Value
from ingot.codegen.elements import (
    gather_element,
    load_element,
    memory_element,
    scatter_element,
    store_element,
)
from ingot.codegen.kernel import kernel
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View
from ingot.kernels.expression import Expression, Step, emit
from ingot.kernels.iteration import Space, block_of, collapse

# How an operand moves along the innermost dimension: "c" to the next element, "s" by a stride, "b" not at all;
# "u" is one value for the whole call.
_SIZES = ("n", "n_block", "n_blocks", "m", "m_block", "m_blocks")


def _slots(classes: tuple[str, ...], rank: int) -> tuple[str, ...]:
    slots = [*_SIZES, *(f"o{d}" for d in range(rank))]
    for i, kind in enumerate(classes):
        slots.append(f"p{i}")
        if kind != "u":
            slots += [f"m{i}", *(f"o{d}_{i}" for d in range(rank))]
        if kind == "s":
            slots.append(f"n{i}")
    return tuple(slots)


@kernel()
def _elementwise(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    expression: Expression,
    classes: tuple[str, ...],
    rank: int,
    lanes: int,
    unroll: int,
) -> None:
    """A tile is a block of rows (dimension m) by a block of columns (n) at one place of the outer dimensions."""
    inputs = len(expression.leaves)
    dtypes = (*expression.leaves, *expression.result_dtypes)
    n, n_block, n_blocks, m, m_block, m_blocks = (k.arg(name) for name in _SIZES)
    outer = [k.arg(f"o{d}") for d in range(rank)]
    start = [k.pointer(f"p{i}") for i in range(len(classes))]
    steps = [k.arg(f"m{i}") if kind != "u" else 0 for i, kind in enumerate(classes)]
    columns: list[Int] = [{"c": 1, "s": 0, "b": 0, "u": 0}[kind] for kind in classes]
    columns = [
        k.arg(f"n{i}") if kind == "s" else c for i, (kind, c) in enumerate(zip(classes, columns, strict=True))
    ]
    places = [
        [k.arg(f"o{d}_{i}") if kind != "u" else 0 for d in range(rank)] for i, kind in enumerate(classes)
    ]
    elements = [memory_element(dtype) for dtype in dtypes]
    uniform = {
        i: k.broadcast(load_element(k, start[i], dtypes[i], 1), lanes)
        for i in range(inputs)
        if classes[i] == "u"
    }

    def row(pointers: list[Value], count: Value) -> None:
        fixed = dict(uniform)
        for i in range(inputs):
            if classes[i] == "b":
                fixed[i] = k.broadcast(load_element(k, pointers[i], dtypes[i], 1), lanes)

        def one(column: Int, left: Int | None) -> None:
            """One vector of elements; only the first `left` of them."""
            mask = None if left is None else k.lanes_below(left, lanes)
            leaves: list[Value] = []
            for i in range(inputs):
                if i in fixed:
                    leaves.append(fixed[i])
                elif classes[i] == "c":
                    leaves.append(load_element(k, pointers[i], dtypes[i], lanes, column, mask))
                else:
                    where = k.at(pointers[i], k.mul(column, columns[i]), elements[i])
                    leaves.append(gather_element(k, where, dtypes[i], lanes, columns[i], left))
            results = emit(k, expression, leaves, lanes)
            for i, result in enumerate(results, inputs):
                if classes[i] == "c":
                    store_element(k, result, pointers[i], dtypes[i], column, mask)
                else:
                    where = k.at(pointers[i], k.mul(column, columns[i]), elements[i])
                    scatter_element(k, result, where, dtypes[i], columns[i], left)

        whole = k.sub(count, k.rem(count, lanes * unroll))
        with k.loop(0, whole, lanes * unroll) as column:
            for u in range(unroll):
                one(k.add(column, u * lanes), None)
        with k.loop(whole, count, lanes) as column:
            one(column, k.sub(count, column))

    with k.loop(k.begin, k.end) as tile:
        rest, column = k.div(tile, n_blocks), k.mul(k.rem(tile, n_blocks), n_block)
        first = k.mul(k.rem(rest, m_blocks), m_block)
        rest = k.div(rest, m_blocks)
        offsets: list[Int] = [
            k.add(k.mul(column, c), k.mul(first, s)) for c, s in zip(columns, steps, strict=True)
        ]
        for d in reversed(range(rank)):
            index = rest if d == 0 else k.rem(rest, outer[d])
            rest = rest if d == 0 else k.div(rest, outer[d])
            offsets = [k.add(o, k.mul(index, places[i][d])) for i, o in enumerate(offsets)]
        base = [k.at(p, o, e) for p, o, e in zip(start, offsets, elements, strict=True)]
        count = k.min(n_block, k.sub(n, column))
        with k.loop(0, k.min(m_block, k.sub(m, first))) as r:
            row([k.at(p, k.mul(r, s), e) for p, s, e in zip(base, steps, elements, strict=True)], count)


def _arrange(space: Space, lanes: int) -> Space:
    """Choose the dimension for the vectors, and next to it a long one: the loop over rows in a tile."""
    rank = len(space.sizes)
    order = list(range(rank))
    if rank > 1 and 2 * space.sizes[-1] < lanes:
        # Too narrow for a vector: a long dimension is better, even with gathers.
        long = [d for d in order[:-1] if space.sizes[d] >= 2 * lanes]
        if long:
            inner = max(long, key=lambda d: (sum(s[d] in (0, 1) for s in space.strides), d))
            order.remove(inner)
            order.append(inner)
    if rank > 2:
        rows = next((d for d in reversed(order[:-1]) if space.sizes[d] >= 8), order[-2])
        order.remove(rows)
        order.insert(rank - 2, rows)
    return Space(
        tuple(space.sizes[d] for d in order), tuple(tuple(s[d] for d in order) for s in space.strides)
    )


def elementwise(
    expression: Expression, inputs: Sequence[View], outputs: Sequence[View], machine: Machine, label: str = ""
) -> Call:
    """A call that computes `expression` for each element of the outputs' shape.

    inputs: views that broadcast to the outputs' shape, in the order of the expression's leaves. An output may
    be exactly an input's memory (same strides); any other overlap is wrong. outputs: all of one shape, one for
    each result, no element twice. Raises ValueError where dtypes or shapes do not fit the expression.
    """
    views = (*outputs, *inputs)
    shape = outputs[0].shape
    if tuple(v.dtype.name for v in inputs) != expression.leaves:
        raise ValueError(f"inputs have dtypes {[v.dtype.name for v in inputs]}, want {expression.leaves}")
    if tuple(v.dtype.name for v in outputs) != expression.result_dtypes or any(
        v.shape != shape for v in outputs
    ):
        raise ValueError(
            f"outputs are {[(v.dtype.name, v.shape) for v in outputs]}, want {expression.result_dtypes}"
        )
    lanes = machine.vector_bytes // expression.widest
    steps = [v.strides if v.shape == shape else v.broadcast_to(shape).strides for v in views]
    space = _arrange(collapse(shape, steps), lanes)
    sizes, count = space.sizes, len(outputs)
    strides = (*space.strides[count:], *space.strides[:count])
    views = (*inputs, *outputs)
    if not sizes:
        sizes, strides = (1,), tuple((1,) for _ in views)
    classes = tuple(
        "c" if s[-1] == 1 else "s" if s[-1] or i >= len(inputs) else "b" if any(s) else "u"
        for i, s in enumerate(strides)
    )
    if sizes == (1,):
        classes = ("c",) * len(views)
    n, m, outer = sizes[-1], (sizes[-2] if len(sizes) > 1 else 1), sizes[:-2]
    size = math.prod(sizes)
    weight = expression.weight + len(views)
    # Some microseconds of work in a tile, at least.
    least = max(512, (1 << 16) // (weight + 4))
    elements = block_of(size, least)
    if "s" in classes and m > 1:
        n_block = min(n, 8 * lanes)  # squarish, so that the lines a gather touches are used again from L1
    else:
        n_block = n if n < 2 * elements else block_of(n, elements, 4 * lanes)
    n_block = max(1, n_block)
    m_block = max(1, min(m, elements // n_block))
    n_blocks, m_blocks = -(-n // n_block), -(-m // m_block)
    args: list[int | View] = [n, n_block, n_blocks, m, m_block, m_blocks, *outer]
    for view, kind, steps in zip(views, classes, strides, strict=True):
        args.append(view)
        if kind != "u":
            args += [steps[-2] if len(steps) > 1 else 0, *steps[:-2]]
        if kind == "s":
            args.append(steps[-1])
    return Call(
        _elementwise(
            operands=_slots(classes, len(outer)),
            expression=expression,
            classes=classes,
            rank=len(outer),
            lanes=lanes,
            unroll=4 if weight < 12 else 2,
        ),
        [*args],
        tiles=math.prod(outer) * m_blocks * n_blocks if size else 0,
        reads=list(inputs),
        writes=list(outputs),
        flops=size * expression.weight,
        label=label or "elementwise",
    )


def fill(value: float | int | bool, out: View, machine: Machine) -> Call:
    """A call that stores `value` in every element of `out`."""
    dtype = out.dtype.name
    number = (
        bool(value)
        if dtype == "bool"
        else int(value)
        if np.issubdtype(out.dtype, np.integer)
        else float(value)
    )
    expression = Expression((), (Step("Constant", (), dtype, (("value", number),)),), (0,))
    return elementwise(expression, [], [out], machine, label="fill")
