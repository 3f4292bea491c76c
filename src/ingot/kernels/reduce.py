"""Reductions: sums, means, extremes, products, norms, logarithms of sums; any dimensions, any layout."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math as scalar
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ingot.codegen import math
from ingot.codegen.builder import Builder, Value
from ingot.codegen.elements import FLOATS, INTEGERS, is_float, is_signed, register_type
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.lanes import Lanes
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, Form, View, common_shape
from ingot.kernels.contract import name_of
from ingot.kernels.expression import Expression, emit, identity
from ingot.kernels.iteration import Space
from ingot.kernels.made_again import remembered
from ingot.kernels.operations import OPERATIONS
from ingot.kernels.walk import Accumulator, Layout, Place, Walk, loops, spaces_of

#: ONNX's names.
FLOAT_ONLY = ("ReduceMean", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp")
ANY_NUMBER = ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceSumSquare")


def supports(op: str, dtype: str) -> bool:
    """Whether `reduce` computes `op` on values of `dtype`."""
    return (op in FLOAT_ONLY and dtype in FLOATS) or (op in ANY_NUMBER and dtype in (*FLOATS, *INTEGERS))


def evaluate_reduce(op: str, x: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """The plain definition: floats in float64, integers in their own type; the axes are dropped."""
    axis = tuple(axes)
    if is_float(name_of(x.dtype)):
        x = x.astype(np.float64)
    bounds: Any = np.finfo(x.dtype) if x.dtype.kind == "f" else np.iinfo(x.dtype)
    low, high = (-np.inf, np.inf) if x.dtype.kind == "f" else (bounds.min, bounds.max)

    def log_sum_exp() -> np.ndarray:
        top = np.max(x, axis, keepdims=True, initial=-np.inf)
        top = np.where(np.isfinite(top), top, 0.0)
        return np.log(np.sum(np.exp(x - top), axis)) + np.squeeze(top, axis)

    table: dict[str, Callable[[], Any]] = {
        "ReduceSum": lambda: np.sum(x, axis, dtype=x.dtype),
        "ReduceMean": lambda: np.mean(x, axis),
        "ReduceMax": lambda: np.max(x, axis, initial=low),
        "ReduceMin": lambda: np.min(x, axis, initial=high),
        "ReduceProd": lambda: np.prod(x, axis, dtype=x.dtype),
        "ReduceL1": lambda: np.sum(np.abs(x), axis, dtype=x.dtype),
        "ReduceL2": lambda: np.sqrt(np.sum(x * x, axis)),
        "ReduceSumSquare": lambda: np.sum(x * x, axis, dtype=x.dtype),
        "ReduceLogSum": lambda: np.log(np.sum(x, axis)),
        "ReduceLogSumExp": log_sum_exp,
    }
    with np.errstate(all="ignore"):
        return np.asarray(table[op]())


def accumulator(k: Builder, kind: str, dtype: str, lanes: int) -> Accumulator:
    """The accumulator of kind "sum", "prod", "max" or "min" for register values of `dtype`."""
    type_ = register_type(dtype, lanes)

    def combine(a: Value, b: Value) -> Value:
        op = {"sum": "Add", "prod": "Mul", "max": "Max", "min": "Min"}[kind]
        return OPERATIONS[op].emit(k, [a, b], (dtype, dtype), dtype, {})

    start: float = {"sum": 0, "prod": 1}.get(kind, 0)
    if kind in ("max", "min"):
        if is_float(dtype):
            start = -scalar.inf if kind == "max" else scalar.inf
        else:
            bounds = np.iinfo(dtype)
            start = int(bounds.min if kind == "max" else bounds.max)
    return Accumulator(k.splat(start, type_), combine, kind == "sum" and is_float(dtype))


_KINDS = {"ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod"}


@kernel("count")
def _reduce(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    op: str,
    prologue: Expression,
    epilogue: Expression,
    layout: Layout,
) -> None:
    walk = Walk(k, layout)
    dtype, lanes, inputs = prologue.result_dtypes[0], layout.lanes, len(prologue.leaves)
    total = accumulator(k, _KINDS.get(op, "sum"), dtype, lanes)

    def value_at(place: Place) -> Value:
        return emit(k, prologue, [place.load(i) for i in range(inputs)], lanes)[0]

    def term(x: Lanes) -> Lanes:
        """What of an element is combined."""
        if op == "ReduceL1" and (is_float(dtype) or is_signed(dtype)):
            return x.abs()
        return x * x if op in ("ReduceL2", "ReduceSumSquare") else x

    def store(place: Place, result: Value, top: Value | None = None) -> None:
        """Store what becomes of the combined elements."""
        y = Lanes(k, result)
        if op == "ReduceMean":
            y = y / Lanes(k, k.broadcast(k.ir.sitofp(k.arg("count"), register_type(dtype, 1)), lanes))
        elif op == "ReduceL2":
            y = y.intrinsic("sqrt")
        elif op == "ReduceLogSum":
            y = Lanes(k, math.log(k, y.value))
        elif op == "ReduceLogSumExp":
            y = Lanes(k, math.log(k, y.value)) + Lanes(k, top)
        place.store(inputs, emit(k, epilogue, [y.value], lanes)[0])

    def finish(results: Sequence[Value], tops: Sequence[Value]) -> None:
        for i, (place, result) in enumerate(zip(walk.outputs(), results, strict=True)):
            store(place, result, tops[i] if tops else None)

    def item() -> None:
        tops: list[Value] = []
        if op == "ReduceLogSumExp":
            top = accumulator(k, "max", dtype, lanes)
            (found,) = walk.sweep(lambda place, best: [top.combine(best[0], value_at(place))], [top])
            for best in walk.lanes_of(found, top.combine):
                v = Lanes(k, best)
                tops.append(v.where(v.abs() < scalar.inf, 0.0).value)
        way = 0

        def visit(place: Place, values: list[Value]) -> list[Value]:
            nonlocal way
            x = Lanes(k, value_at(place))
            if op == "ReduceLogSumExp":
                x = Lanes(k, math.exp(k, (x - Lanes(k, tops[way % len(tops)])).value))
                way += 1
            return [total.combine(values[0], term(x).value)]

        (found,) = walk.sweep(visit, [total])
        finish(walk.lanes_of(found, total.combine), tops)

    def short_item() -> None:
        """The row in registers."""
        places = walk.row()
        terms = [term(Lanes(k, value_at(place))).value for place in places]
        finish([walk.gathered(total, places, terms)], [])

    def strip_item() -> None:
        def visit(place: Place, values: list[Value]) -> list[Value]:
            return [total.combine(values[0], term(Lanes(k, value_at(place))).value)]

        walk.strip(visit, total, store)

    walk.each(short_item if layout.short else strip_item if layout.strip else item)


def reduce(
    op: str,
    inputs: Sequence[View],
    axes: Sequence[int],
    out: View,
    machine: Machine,
    prologue: Expression | None = None,
    epilogue: Expression | None = None,
    label: str = "",
) -> Call:
    """A call that reduces `prologue(*inputs)` (default: the only input) over `axes`; `op` is ONNX's name.

    inputs: views that broadcast to one shape. axes: non-negative, may be empty. out: that shape without the
    axes (no dimensions of size 1 in their place). epilogue: an expression of the result, default itself. An
    empty sum is 0, an empty product 1, an empty maximum -Inf (or the lowest integer).
    """
    if prologue is None:
        prologue = identity(name_of(inputs[0].dtype))
    dtype = prologue.result_dtypes[0]
    if epilogue is None:
        epilogue = identity(dtype)
    if not supports(op, dtype):
        raise ValueError(f"{op} of {dtype}: not one of these kernels")
    shape = common_shape(*[v.shape for v in inputs])
    if out.shape != tuple(n for d, n in enumerate(shape) if d not in axes):
        raise ValueError(f"{op} of shape {shape} over {tuple(axes)} into shape {out.shape}")
    kept = iter(out.strides)
    whole = out.with_dims(shape, [0 if d in axes else next(kept) for d in range(len(shape))])
    views = [v.broadcast_to(shape) for v in inputs]
    kept, reduced = spaces_of(tuple([v.strides for v in (*views, whole)]), shape, frozenset(axes))
    dtypes = tuple([name_of(v.dtype) for v in (*views, whole)])
    form = _form(op, prologue, epilogue, dtypes, kept, reduced, machine, label or op)
    return form.call([*inputs, out], list(inputs), [out])


@remembered(1024, "roles")  # layers that are alike, and shapes that come again
def _form(
    op: str,
    prologue: Expression,
    epilogue: Expression,
    dtypes: tuple[str, ...],
    kept: Space,
    reduced: Space,
    machine: Machine,
    label: str,
) -> Form:
    """All of a call but its memory: that of the inputs, then of out; dtypes are theirs, too."""
    most, strips = (0, False) if op == "ReduceLogSumExp" else (machine.registers // 2, True)
    weight = prologue.weight + 2 * (len(dtypes) - 1) + (0 if strips else 20)
    widest = max(prologue.widest, epilogue.widest)
    layout, sizes, further, tiles, count, held = loops(
        dtypes, kept, reduced, machine, widest, weight, most, strips
    )
    args: list[int | View | Kernel] = [count, *sizes]
    places: list[int] = []
    for own in further:
        places.append(len(args))
        args += (0, *own)
    return Form(
        _reduce(operands=layout.slots(), op=op, prologue=prologue, epilogue=epilogue, layout=layout),
        args,
        tuple(places),
        tiles,
        scratch=held if layout.strip else 0,
        flops=count * scalar.prod(kept.sizes) * (1 + prologue.weight),
        label=label,
    )
