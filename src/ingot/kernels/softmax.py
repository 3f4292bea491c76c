"""Softmax and its logarithm along one dimension of any layout, with what comes before and after fused in."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ingot.codegen import math
from ingot.codegen.builder import Builder, Value, vector
from ingot.codegen.elements import is_float, register_element
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import Lanes
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View
from ingot.kernels.contract import name_of
from ingot.kernels.expression import Expression, emit, identity
from ingot.kernels.formed import formed
from ingot.kernels.reduce import accumulator
from ingot.kernels.walk import Accumulator, Layout, Place, Walk, plan


def evaluate_softmax(x: np.ndarray, axis: int, log: bool = False) -> np.ndarray:
    """The plain definition, in float64."""
    x = x.astype(np.float64)
    with np.errstate(all="ignore"):
        shifted = x - np.max(x, axis, keepdims=True, initial=-np.inf)
        total = np.sum(np.exp(shifted), axis, keepdims=True)
        return shifted - np.log(total) if log else np.exp(shifted) / total


@kernel()
def _softmax(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    prologue: Expression,
    epilogue: Expression,
    layout: Layout,
    log: bool,
) -> None:
    """Three passes over a row, which stays in scratch memory (a short one in registers) meanwhile: maximum,
    sum, quotients.
    """
    walk = Walk(k, layout)
    dtype, lanes = prologue.result_dtypes[0], layout.lanes
    inputs, extras = len(prologue.leaves), len(epilogue.leaves) - 1
    element = register_element(dtype)
    top, total = accumulator(k, "max", dtype, lanes), accumulator(k, "sum", dtype, lanes)
    direct = prologue.results == (0,) and dtype in ("float32", "float64")

    def held(place: Place) -> Value:
        return k.load(k.scratch, vector(element, lanes), place.held)

    def item() -> None:
        way = 0

        def largest(place: Place, best: list[Value]) -> list[Value]:
            x = emit(k, prologue, [place.load(i) for i in range(inputs)], lanes)[0]
            if not direct:
                k.store(x, k.scratch, place.held)
            # A NaN need not win here: its exponential is NaN in the sum.
            return [Lanes(k, best[0]).at_least(Lanes(k, x)).value]

        (found,) = walk.sweep(largest, [top])
        tops = walk.lanes_of(found, lambda a, b: Lanes(k, a).at_least(Lanes(k, b)).value)

        def exponential(place: Place, sums: list[Value]) -> list[Value]:
            nonlocal way
            x = place.load(0) if direct else held(place)
            shifted = k.ir.fsub(x, tops[way % len(tops)])
            way += 1
            e = math.exp_or_zero(Lanes(k, shifted)).value
            k.store(shifted if log else e, k.scratch, place.held)
            return [k.ir.fadd(sums[0], e)]

        (found,) = walk.sweep(exponential, [total])
        sums = walk.lanes_of(found, total.combine)
        factors = [Lanes(k, math.log(k, s)) if log else 1.0 / Lanes(k, s) for s in sums]
        way = 0

        def quotient(place: Place, _values: list[Value]) -> list[Value]:
            nonlocal way
            factor = factors[way % len(factors)]
            way += 1
            y = Lanes(k, held(place)) - factor if log else Lanes(k, held(place)) * factor
            leaves = [y.value, *(place.load(inputs + i) for i in range(extras))]
            place.store(inputs + extras, emit(k, epilogue, leaves, lanes)[0])
            return []

        walk.sweep(quotient)

    def short_item() -> None:
        """The row in registers."""
        places = walk.row()
        values = [emit(k, prologue, [p.load(i) for i in range(inputs)], lanes)[0] for p in places]
        largest = Accumulator(top.start, lambda a, b: Lanes(k, a).at_least(Lanes(k, b)).value, is_sum=False)
        best = walk.gathered(largest, places, values)
        shifted = [k.ir.fsub(x, best) for x in values]
        powers = [math.exp_or_zero(Lanes(k, x)).value for x in shifted]
        whole = walk.gathered(total, places, powers)
        factor = Lanes(k, math.log(k, whole)) if log else 1.0 / Lanes(k, whole)
        for place, x, e in zip(places, shifted, powers, strict=True):
            y = Lanes(k, x) - factor if log else Lanes(k, e) * factor
            leaves = [y.value, *(place.load(inputs + i) for i in range(extras))]
            place.store(inputs + extras, emit(k, epilogue, leaves, lanes)[0])

    walk.each(short_item if layout.short else item)


@formed
def softmax(
    x: View,
    out: View,
    axis: int,
    machine: Machine,
    *,
    operands: Sequence[View] = (),
    prologue: Expression | None = None,
    extras: Sequence[View] = (),
    epilogue: Expression | None = None,
    log: bool = False,
    label: str = "",
) -> Call:
    """A call for softmax (or its logarithm) of `prologue(x, *operands)` along `axis`.

    prologue: default x itself. out: of x's shape; may be exactly x's memory. epilogue: an expression of the
    result and of `extras`, default the result itself. operands and extras broadcast to x's shape.
    """
    if prologue is None:
        prologue = identity(name_of(x.dtype))
    dtype = prologue.result_dtypes[0]
    if epilogue is None:
        epilogue = identity(dtype)
    if not is_float(dtype) or name_of(out.dtype) != epilogue.result_dtypes[0]:
        raise ValueError(f"softmax of {dtype} into {out.dtype.name}: want floats of one dtype")
    views = [v.broadcast_to(x.shape) for v in (x, *operands, *extras)]
    widest, weight = max(prologue.widest, epilogue.widest), 20 + prologue.weight
    most = machine.registers * 3 // 4 - 8  # the others are for exponentials and their constants
    walk = plan([*views, out], x.shape, (axis,), machine, widest, weight, most)
    return Call(
        _softmax(
            operands=walk.layout.slots(), prologue=prologue, epilogue=epilogue, layout=walk.layout, log=log
        ),
        list(walk.args),
        tiles=walk.tiles if x.size else 0,
        reads=[x, *operands, *extras],
        writes=[out],
        scratch=walk.scratch,
        flops=x.size * (5 + prologue.weight + epilogue.weight),
        label=label or ("log_softmax" if log else "softmax"),
    )
