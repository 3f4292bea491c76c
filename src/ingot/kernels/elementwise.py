"""Fused elementwise kernels: an expression over strided, broadcasting views, and fills."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from ingot.codegen.builder import Builder, Int, Value
from ingot.codegen.elements import (
    gather_element,
    is_float,
    load_element,
    memory_element,
    scatter_element,
    store_element,
)
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, Form, View
from ingot.kernels.contract import name_of
from ingot.kernels.expression import LONG, Expression, Step, emit, emit_vectors, joined
from ingot.kernels.grid import Grid, Rows, collapsed, loops
from ingot.kernels.iteration import Space
from ingot.kernels.made_again import remembered


@kernel()
def _elementwise(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    expression: Expression,
    grid: Grid,
    lanes: int,
    unroll: int,
) -> None:
    inputs, classes = len(expression.leaves), grid.classes
    dtypes = (*expression.leaves, *expression.result_dtypes)
    elements = [memory_element(dtype) for dtype in dtypes]
    rows = Rows(k, grid, elements)
    uniform = {
        i: k.broadcast(load_element(k, rows.start[i], dtypes[i], 1), lanes)
        for i in range(inputs)
        if classes[i] == "u"
    }
    with rows.each() as (pointers, count):
        fixed = dict(uniform)
        for i in range(inputs):
            if classes[i] == "b":
                fixed[i] = k.broadcast(load_element(k, pointers[i], dtypes[i], 1), lanes)

        def read(column: Int, left: Int | None) -> list[Value]:
            """One vector of each operand; only the first `left` elements."""
            mask = None if left is None else k.lanes_below(left, lanes)
            leaves: list[Value] = []
            for i in range(inputs):
                if i in fixed:
                    leaves.append(fixed[i])
                elif classes[i] == "c":
                    leaves.append(load_element(k, pointers[i], dtypes[i], lanes, column, mask))
                else:
                    where = k.at(pointers[i], k.mul(column, rows.steps[i]), elements[i])
                    leaves.append(gather_element(k, where, dtypes[i], lanes, rows.steps[i], left))
            return leaves

        def write(column: Int, results: list[Value], left: Int | None) -> None:
            mask = None if left is None else k.lanes_below(left, lanes)
            for i, result in enumerate(results, inputs):
                if classes[i] == "c":
                    store_element(k, result, pointers[i], dtypes[i], column, mask)
                else:
                    where = k.at(pointers[i], k.mul(column, rows.steps[i]), elements[i])
                    scatter_element(k, result, where, dtypes[i], rows.steps[i], left)

        whole = k.sub(count, k.rem(count, lanes * unroll))
        with k.loop(0, whole, lanes * unroll) as column:
            columns = [k.add(column, u * lanes) for u in range(unroll)]
            found = emit_vectors(k, expression, [read(here, None) for here in columns], lanes)
            for here, results in zip(columns, found, strict=True):
                write(here, results, None)
        with k.loop(whole, count, lanes) as column:
            left = k.sub(count, column)
            write(column, emit(k, expression, read(column, left), lanes), left)


def elementwise(
    expression: Expression, inputs: Sequence[View], outputs: Sequence[View], machine: Machine, label: str = ""
) -> Call:
    """A call that computes `expression` for each element of the outputs' shape.

    inputs: views that broadcast to the outputs' shape, in the order of the expression's leaves. An output may
    be exactly an input's memory (same strides); any other overlap is wrong. outputs: all of one shape, one
    for each result, no element twice. Raises ValueError where dtypes or shapes do not fit the expression.
    """
    shape = outputs[0].shape
    if tuple([name_of(v.dtype) for v in inputs]) != expression.leaves:
        raise ValueError(f"inputs have dtypes {[v.dtype.name for v in inputs]}, want {expression.leaves}")
    if tuple([name_of(v.dtype) for v in outputs]) != expression.result_dtypes or [
        v for v in outputs if v.shape != shape
    ]:
        raise ValueError(
            f"outputs are {[(v.dtype.name, v.shape) for v in outputs]}, want {expression.result_dtypes}"
        )
    spread = [v if v.shape == shape else v.broadcast_to(shape) for v in inputs]
    space = collapsed(shape, tuple([v.strides for v in (*outputs, *spread)]))
    form = _form(expression, space.sizes, space.strides, machine, label or "elementwise")
    return form.call([*inputs, *outputs], list(inputs), list(outputs))


@remembered(1024, "roles")  # layers that are alike, and shapes that come again
def _form(
    expression: Expression,
    sizes: tuple[int, ...],
    strides: tuple[tuple[int, ...], ...],
    machine: Machine,
    label: str,
) -> Form:
    """All of a call but its memory: that of inputs, then of outputs. sizes, strides: of the dimensions that
    are left; strides of the outputs first.
    """
    lanes = machine.vector_bytes // expression.widest
    weight = expression.weight + len(strides)
    grid, numbers, steps, tiles = loops(Space(sizes, strides), len(expression.result_dtypes), lanes, weight)
    args: list[int | View | Kernel] = [*numbers]
    places: list[int] = []
    for own in steps:
        places.append(len(args))
        args.append(0)
        args += own
    return Form(
        _named(expression, grid, machine),
        args,
        tuple(places),
        tiles,
        flops=math.prod(sizes) * expression.weight,
        label=label,
        in_place=True,
    )


@functools.lru_cache(1024)
def _named(expression: Expression, grid: Grid, machine: Machine) -> Kernel:
    weight = expression.weight + len(grid.classes)
    return _elementwise(
        operands=grid.slots(),
        expression=expression,
        grid=grid,
        lanes=machine.vector_bytes // expression.widest,
        unroll=4 if weight < LONG else joined(expression, machine),
    )


def fill(value: float | int | bool, out: View, machine: Machine) -> Call:
    """A call that stores `value` in every element of `out`."""
    dtype = out.dtype.name
    number = bool(value) if dtype == "bool" else float(value) if is_float(dtype) else int(value)
    expression = Expression((), (Step("Constant", (), dtype, (("value", number),)),), (0,))
    return elementwise(expression, [], [out], machine, label="fill")
