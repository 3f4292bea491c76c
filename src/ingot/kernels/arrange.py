"""OneHot, CumSum and CumProd: tensors made from positions and running sums."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import numpy as np

from ingot.codegen.builder import Builder, Int, Value
from ingot.codegen.elements import (
    gather_element,
    load_element,
    memory_element,
    register_type,
    scatter_element,
    store_element,
)
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import Lanes
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View, constant
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, Step
from ingot.kernels.grid import Grid, Rows, plan


def one_hot(indices: View, depth: int, values: View, axis: int, out: View, machine: Machine) -> Call:
    """ONNX OneHot: values[1] where the new dimension `axis` (not negative) has the index, else values[0].

    indices: any integer or float dtype; negative ones count from `depth`, ones out of range give no hot
    element. values: two elements of out's dtype.
    """
    dtype = out.dtype.name
    steps = (
        Step("Cast", (0,), "int64"),
        Step("Constant", (), "int64", (("value", 0),)),
        Step("Constant", (), "int64", (("value", depth),)),
        Step("Less", (4, 5), "bool"),
        Step("Add", (4, 6), "int64"),
        Step("Where", (7, 8, 4), "int64"),
        Step("Equal", (9, 1), "bool"),
        Step("Where", (10, 3, 2), dtype),
    )
    expression = Expression((indices.dtype.name, "int64", dtype, dtype), steps, (11,))
    shape, zeros = out.shape, (0,) * out.rank
    strides = (*indices.strides[:axis], 0, *indices.strides[axis:])
    positions = constant(np.arange(depth, dtype=np.int64))
    along = tuple(int(d == axis) for d in range(out.rank))
    off, on = (values.with_dims(shape, zeros, i * values.strides[0]) for i in (0, 1))
    inputs = [indices.with_dims(shape, strides), positions.with_dims(shape, along), off, on]
    call = elementwise(expression, inputs, [out], machine, "OneHot")
    call.reads[:] = [indices, positions, values]
    return call


@kernel("length", "source_step", "target_step")
def _running(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    dtype: str,
    grid: Grid,
    product: bool,
    exclusive: bool,
    lanes: int,
) -> None:
    """A vector of running sums (or products) at a time: the grid is that of the other dimensions."""
    element = memory_element(dtype)
    rows = Rows(k, grid, [element, element])
    length, source_step, target_step = (k.arg(n) for n in ("length", "source_step", "target_step"))

    def read(pointer: Value, left: Int) -> Value:
        if grid.classes[0] == "c":
            return load_element(k, pointer, dtype, lanes, 0, k.lanes_below(left, lanes))
        return gather_element(k, pointer, dtype, lanes, rows.steps[0], left)

    def write(pointer: Value, value: Value, left: Int) -> None:
        if grid.classes[1] == "c":
            store_element(k, value, pointer, dtype, 0, k.lanes_below(left, lanes))
        else:
            scatter_element(k, value, pointer, dtype, rows.steps[1], left)

    with rows.each() as (pointers, count), k.loop(0, count, lanes) as column:
        left = k.sub(count, column)
        source, target = (
            k.at(p, k.mul(column, s), element) for p, s in zip(pointers, rows.steps, strict=True)
        )
        total = [k.splat(int(product), register_type(dtype, lanes))]
        with k.loop(0, length, carry=total) as i:
            x = read(k.at(source, k.mul(i, source_step), element), left)
            so_far = Lanes(k, total[0])
            after = (so_far * Lanes(k, x) if product else so_far + Lanes(k, x)).value
            write(k.at(target, k.mul(i, target_step), element), total[0] if exclusive else after, left)
            total[0] = after


def cumulative(
    x: View,
    out: View,
    axis: int,
    machine: Machine,
    *,
    product: bool = False,
    exclusive: bool = False,
    reverse: bool = False,
) -> Call:
    """ONNX CumSum (or CumProd, `product`) along `axis` (not negative), in the dtype's own arithmetic (half
    precision in float32).
    """
    dtype = x.dtype.name
    length = x.shape[axis]

    def without(view: View) -> tuple[View, int]:
        step, start = view.strides[axis], 0
        if reverse:
            start, step = step * (length - 1), -step
        rest = [d for d in range(view.rank) if d != axis]
        shape, strides = [view.shape[d] for d in rest], [view.strides[d] for d in rest]
        return view.with_dims(shape, strides, start if length else 0), step

    (source, source_step), (target, target_step) = without(x), without(out)
    lanes = machine.vector_bytes // max(4, x.dtype.itemsize)
    # Each place of the grid is `length` elements of work.
    walk = plan([target], [source], target.shape, lanes, 2 * max(1, length))
    return Call(
        _running(
            operands=walk.grid.slots(),
            dtype=dtype,
            grid=walk.grid,
            product=product,
            exclusive=exclusive,
            lanes=lanes,
        ),
        [length, source_step, target_step, *walk.args],
        tiles=walk.tiles if x.size else 0,
        reads=[x],
        writes=[out],
        flops=x.size,
        label="CumProd" if product else "CumSum",
    )
