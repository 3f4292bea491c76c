"""Normalisations: each row (elements of some dimensions) by its mean and variance, root mean square or norm.

LayerNormalization, RMSNormalization, GroupNormalization, InstanceNormalization and LpNormalization are one
kernel, with residual additions before it and scales, biases and activations after it fused in.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ingot.codegen.builder import Builder, Value, vector
from ingot.codegen.elements import is_float, register_element, register_type
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import Lanes
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View
from ingot.kernels.contract import name_of
from ingot.kernels.expression import Expression, Step, converted, emit, identity
from ingot.kernels.formed import formed
from ingot.kernels.reduce import accumulator
from ingot.kernels.walk import Layout, Place, Walk, plan

Kind = Literal["variance", "rms", "l1", "l2"]
Sweep = Callable[[Place, int], Lanes]


def evaluate_normalize(kind: Kind, x: np.ndarray, axes: Sequence[int], eps: float) -> np.ndarray:
    """The plain definition in float64: (x - mean) / sqrt(var + eps), x / sqrt(mean square + eps), x / norm.

    Where a norm is 0 the result is 0.
    """
    x, axis = x.astype(np.float64), tuple(axes)
    with np.errstate(all="ignore"):
        if kind == "variance":
            return (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + eps)
        if kind == "rms":
            return x / np.sqrt((x * x).mean(axis, keepdims=True) + eps)
        norm = (
            np.abs(x).sum(axis, keepdims=True) if kind == "l1" else np.sqrt((x * x).sum(axis, keepdims=True))
        )
        return np.where(norm == 0, 0.0, x / norm)


def _reads_again(prologue: Expression) -> bool:
    """Whether later passes read the row from where it was, instead of from scratch memory."""
    return prologue.results == (0,) and prologue.leaves[0] in ("float32", "float64")


@kernel("count")
def _normalize(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    kind: Kind,
    prologue: Expression,
    epilogue: Expression,
    layout: Layout,
    eps: float,
    keeps: bool,
) -> None:
    """Two or three passes over a row, which stays where it is, in scratch memory or (a short one) in
    registers: mean, deviations, quotients.
    """
    walk = Walk(k, layout)
    dtype, lanes = prologue.result_dtypes[0], layout.lanes
    inputs, extras = len(prologue.leaves), len(epilogue.leaves) - 1
    element = register_element(dtype)
    total = accumulator(k, "sum", dtype, lanes)
    direct = _reads_again(prologue)
    count = k.broadcast(k.ir.sitofp(k.arg("count"), register_type(dtype, 1)), lanes)

    def first_visit(place: Place) -> Lanes:
        """The row's element, on the first pass: computed, and kept for the others."""
        x = emit(k, prologue, [place.load(i) for i in range(inputs)], lanes)[0]
        if not direct:
            k.store(x, k.scratch, place.held)
        if keeps:
            place.store(inputs + extras, x)
        return Lanes(k, x)

    def later_visit(place: Place) -> Lanes:
        return Lanes(k, place.load(0) if direct else k.load(k.scratch, vector(element, lanes), place.held))

    def sums(visit: Sweep) -> list[Lanes]:
        """The sum of what `visit(place, way)` gives, for each way."""
        way = 0

        def term(place: Place, values: list[Value]) -> list[Value]:
            nonlocal way
            x = visit(place, way)
            way += 1
            return [k.ir.fadd(values[0], x.value)]

        (found,) = walk.sweep(term, [total])
        return [Lanes(k, v) for v in walk.lanes_of(found, total.combine)]

    def size(x: Lanes) -> Lanes:
        """What of an element the norm adds up."""
        return x.abs() if kind == "l1" else x * x

    def factor(s: Lanes) -> Lanes:
        """What the elements are multiplied by, from the sum."""
        if kind == "l1":
            return s.constant(0.0).where(s.equals(0.0), 1.0 / s)
        if kind == "l2":
            return s.constant(0.0).where(s.equals(0.0), 1.0 / s.intrinsic("sqrt"))
        return 1.0 / (s / Lanes(k, count) + eps).intrinsic("sqrt")

    def item() -> None:
        mean: list[Lanes] = []
        if kind == "variance":
            mean = [s / Lanes(k, count) for s in sums(lambda place, _: first_visit(place))]

            def deviation(place: Place, way: int) -> Lanes:
                d = later_visit(place) - mean[way % len(mean)]
                return d * d

            scale = [factor(s) for s in sums(deviation)]
        else:
            scale = [factor(s) for s in sums(lambda place, _: size(first_visit(place)))]
        way = 0

        def quotient(place: Place, _values: list[Value]) -> list[Value]:
            nonlocal way
            x = later_visit(place)
            if mean:
                x = x - mean[way % len(mean)]
            y = x * scale[way % len(scale)]
            way += 1
            leaves = [y.value, *(place.load(inputs + i) for i in range(extras))]
            place.store(inputs + extras + int(keeps), emit(k, epilogue, leaves, lanes)[0])
            return []

        walk.sweep(quotient)

    def short_item() -> None:
        """The row in registers."""
        places = walk.row()
        values: list[Lanes] = []
        for place in places:
            x = emit(k, prologue, [place.load(i) for i in range(inputs)], lanes)[0]
            if keeps:
                place.store(inputs + extras, x)
            values.append(Lanes(k, x))
        if kind == "variance":
            mean = Lanes(k, walk.gathered(total, places, [x.value for x in values])) / Lanes(k, count)
            values = [x - mean for x in values]
        scale = factor(Lanes(k, walk.gathered(total, places, [size(x).value for x in values])))
        for place, x in zip(places, values, strict=True):
            leaves = [(x * scale).value, *(place.load(inputs + i) for i in range(extras))]
            place.store(inputs + extras + int(keeps), emit(k, epilogue, leaves, lanes)[0])

    walk.each(short_item if layout.short else item)


@formed
def normalize(
    kind: Kind,
    x: View,
    out: View,
    axes: Sequence[int],
    machine: Machine,
    *,
    eps: float = 0.0,
    operands: Sequence[View] = (),
    prologue: Expression | None = None,
    total: View | None = None,
    extras: Sequence[View] = (),
    epilogue: Expression | None = None,
    label: str = "",
) -> Call:
    """A call that normalises `prologue(x, *operands)` (default x) over `axes`.

    kind: "variance" is (v - mean) / sqrt(variance + eps), "rms" v / sqrt(mean of v² + eps), "l1" and "l2" v
    / norm. out: of x's shape; may be exactly the memory of x or of an operand. total: where the prologue's
    value is stored too (a residual sum), or None. epilogue: an expression of the result and of `extras`,
    default the result. operands and extras broadcast to x's shape.
    """
    if prologue is None:
        prologue = identity(name_of(x.dtype))
    dtype = prologue.result_dtypes[0]
    if epilogue is None:
        epilogue = identity(dtype)
    if not is_float(dtype) or name_of(out.dtype) != epilogue.result_dtypes[0]:
        raise ValueError(
            f"normalisation of {dtype} into {out.dtype.name}: want floats, and the epilogue's dtype"
        )
    views = [v.broadcast_to(x.shape) for v in (x, *operands, *extras)]
    stores = [out] if total is None else [total, out]
    widest = max(prologue.widest, epilogue.widest)
    weight = prologue.weight + epilogue.weight + len(views) + len(stores)
    most = machine.registers - 8  # the others take operands and what the row's mean and scale come from
    walk = plan([*views, *stores], x.shape, axes, machine, widest, weight, most)
    return Call(
        _normalize(
            operands=walk.layout.slots(),
            kind=kind,
            prologue=prologue,
            epilogue=epilogue,
            layout=walk.layout,
            eps=float(eps),
            keeps=total is not None,
        ),
        [walk.count, *walk.args],
        tiles=walk.tiles if x.size else 0,
        reads=[x, *operands, *extras],
        writes=stores,
        scratch=0 if _reads_again(prologue) else walk.scratch,
        flops=x.size * (8 + prologue.weight + epilogue.weight),
        label=label or f"normalize {kind}",
    )


def _wide(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def affine(dtype: str, scale: str | None, bias: str | None) -> Expression:
    """y -> y · scale + bias; each of which may be absent. `scale` and `bias` are their dtypes; y is as wide
    as a kernel computes with, and the result is rounded to `dtype` once.
    """
    wide = _wide(dtype)
    leaves = (wide, *(d for d in (scale, bias) if d is not None))
    steps: list[Step] = []
    value = 0
    for leaf, op in enumerate(op for op, d in (("Mul", scale), ("Add", bias)) if d is not None):
        operand = leaf + 1
        if leaves[operand] != wide:
            steps.append(Step("Cast", (operand,), wide))
            operand = len(leaves) + len(steps) - 1
        steps.append(Step(op, (value, operand), wide))
        value = len(leaves) + len(steps) - 1
    return converted(Expression(leaves, tuple(steps), (value,)), dtype)


def layer_norm(
    x: View,
    scale: View | None,
    bias: View | None,
    out: View,
    axis: int,
    eps: float,
    machine: Machine,
    *,
    residual: View | None = None,
    total: View | None = None,
    rms: bool = False,
    label: str = "",
) -> Call:
    """LayerNormalization (or RMSNormalization) of x (+ residual) over the dimensions from `axis` on.

    scale and bias broadcast to x's shape. total: where x + residual is stored too.
    """
    dtype = name_of(x.dtype)
    own = identity(dtype)
    if residual is not None:
        own = Expression((dtype, dtype), (Step("Add", (0, 1), dtype),), (2,))
    given = [v for v in (scale, bias) if v is not None]
    names = [None if v is None else name_of(v.dtype) for v in (scale, bias)]
    return normalize(
        "rms" if rms else "variance",
        x,
        out,
        range(axis % max(1, x.rank), x.rank),
        machine,
        eps=eps,
        operands=[] if residual is None else [residual],
        prologue=converted(own, _wide(dtype)),
        total=total,
        extras=given,
        epilogue=affine(dtype, *names),
        label=label or ("rms_norm" if rms else "layer_norm"),
    )


def group_norm(
    x: View, scale: View, bias: View, groups: int, out: View, eps: float, machine: Machine, *, label: str = ""
) -> Call:
    """GroupNormalization of x [N, C, …], scale and bias [C]; with C groups it is InstanceNormalization."""
    channels = x.shape[1]

    def split(view: View) -> View:
        own = channels // groups
        step = view.strides[1]
        shape = (view.shape[0], groups, own, *view.shape[2:])
        return view.with_dims(shape, (view.strides[0], step * own, step, *view.strides[2:]))

    ones = (1,) * (x.rank - 2)
    zeros = (0,) * (x.rank - 2)
    extras = [split(v.with_dims((1, channels, *ones), (0, v.strides[0], *zeros))) for v in (scale, bias)]
    x, out = split(x), split(out)
    return normalize(
        "variance",
        x,
        out,
        range(2, x.rank),
        machine,
        eps=eps,
        prologue=converted(identity(name_of(x.dtype)), _wide(name_of(x.dtype))),
        extras=extras,
        epilogue=affine(name_of(x.dtype), name_of(scale.dtype), name_of(bias.dtype)),
        label=label or "group_norm",
    )
