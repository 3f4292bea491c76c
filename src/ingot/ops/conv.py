"""Convolutions. Evaluated as im2col and matrix product in float64, rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from ingot.kernels.call import Call, Series, Weights
from ingot.kernels.call import View as Memory
from ingot.kernels.contract import Epilogue, name_of
from ingot.kernels.contraction import DTYPES
from ingot.kernels.conv import conv2d, pack_conv_weights, supports
from ingot.kernels.depthwise import pack_depthwise
from ingot.kernels.sliced import SlicedConvWeights, cycles, direct_cycles, sliced_conv2d
from ingot.kernels.stride_one import StrideOneWeights, stride_one_conv2d
from ingot.kernels.winograd import fastest, pays, winograd_conv2d
from ingot.kernels.winograd_pack import pack_winograd
from ingot.kernels.winograd_scheme import schemes, upright
from ingot.ops.bands import Rows, is_cut
from ingot.ops.convolve import convolve, filters_of, padded
from ingot.ops.lowering import Lowering
from ingot.ops.narrow import depthwise, is_narrow, narrow_conv
from ingot.ops.numeric import rounded, widen
from ingot.ops.planes import conv_by_planes, flat, plane_of, reached
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_int,
    attr_ints,
    first_input,
    given,
    is_weight,
    need,
    one_dtype,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.sums import dequantized, dequantized_conv, placed
from ingot.ops.window import Window, channels_last

T = TypeVar("T")


def bias_fits(node: ir.Node, bias: Facts | None, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise shape_error(node, f"the bias has shape {show(bias.shape)}, and must be [{channels}]")


@register("Conv", since=22)
class Conv(Op):
    """x [N, C, …] with w [M, C / group, …] and an optional bias [M]: [N, M, …]."""

    def window(self, node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Window:
        """The resolved window for these shapes.

        Raises `ShapeError` when input, weight and group do not belong together.
        """
        group = attr_int(node, "group", 1)
        if len(x) < 3 or len(x) != len(w):
            raise shape_error(
                node, f"the input {show(x)} and the weight {show(w)} must have one rank, at least 3"
            )
        if x[1] != w[1] * group:
            raise shape_error(
                node,
                f"weight has {w[1]} input channels, the input has {x[1]}"
                + (f" in {group} groups" * (group > 1)),
                "Give an input whose second dimension is "
                f"{w[1] * group}; images in [N, H, W, C] order need a Transpose first.",
            )
        if w[0] % group:
            raise shape_error(node, f"{w[0]} output channels do not divide into {group} groups")
        stated = attr_ints(node, "kernel_shape")
        if stated is not None and stated != w[2:]:
            raise shape_error(node, f"kernel_shape {show(stated)} contradicts the weight {show(w)}")
        return Window.of(node, x[2:], w[2:])

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """See `window`."""
        x, w = need(node, inputs, 0), need(node, inputs, 1)
        window = self.window(node, x.shape, w.shape)
        one_dtype(node, inputs)
        bias_fits(node, given(inputs, 2), w.shape[0])
        return [Facts(x.dtype, (x.shape[0], w.shape[0], *window.output))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """One tensordot for each group."""
        x, w, bias = present(inputs, 0), present(inputs, 1), given(inputs, 2)
        window = self.window(node, x.shape, w.shape)
        group, rank = attr_int(node, "group", 1), x.ndim - 2
        windows = window.windows(widen(x), 0)
        weight = widen(w)
        contracted = [1, *range(2 + rank, 2 + 2 * rank)]
        parts: list[Array] = []
        with np.errstate(all="ignore"):
            for columns, kernels in zip(np.split(windows, group, 1), np.split(weight, group, 0), strict=True):
                parts.append(np.tensordot(columns, kernels, (contracted, [*range(1, 2 + rank)])))
            y = np.moveaxis(np.concatenate(parts, -1), -1, 1)
            if bias is not None:
                y = y + widen(bias).reshape(-1, *[1] * rank)
        return [rounded(y, x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """With constant weights the register tile of float32, for three spatial dimensions plane by plane;
        else sums of products over any dimensions. The bias is a step after it.
        """
        x, w = first_input(node), node.inputs[1]
        assert w is not None
        facts, weights = plan.facts(x), plan.weights(w)
        rank, group = len(facts.shape) - 2, attr_int(node, "group", 1)
        if name_of(facts.dtype) not in DTYPES:
            return False
        machine = plan.machine
        window = Window.of(node, facts.shape[2:], plan.facts(w).shape[2:])  # `infer` has looked at the rest
        pads = (*window.before, *window.after)
        if weights is not None and _has_planes(facts, window):
            plan.anchor(
                with_bias(plan, node, rank), _by_planes(plan, node, weights, window), channels_last(rank)
            )
            return True
        if weights is None or not supports(name_of(facts.dtype), rank) or min(pads) < 0:
            image = padded(plan, plan.view(x), window.before, window.after)
            filters = filters_of(weights or plan.view(w), group, weights_key("conv", w, group))
            out = plan.output(with_bias(plan, node, rank), channels_last(rank))
            convolve(plan, image, filters, out, group, window.strides, window.dilations)
            return True
        if _from_integers(plan, node, window, group):
            return True
        if is_narrow(weights.shape, group, machine):
            own = plan.pack(weights_key("depthwise", w), lambda: pack_depthwise(weights.read(), machine))
            value = with_bias(plan, node, rank)
            plan.anchor(value, narrow_conv(plan, x, own, window), channels_last(rank))
            return True
        source = plan.view(x)
        if _is_turned(plan, source, weights, window):
            source = plan.copied(source, channels_last(rank))
        value = with_bias(plan, node, rank)
        rows: Callable[[], Rows | None]
        if (slices := _slices(plan, node, source, window)) is not None:

            def emit(out: Memory, epilogue: Epilogue | None) -> Sequence[Call | Series]:
                return sliced_conv2d(source, slices, out, pads, epilogue, machine)

            def sliced(
                part: Memory, out: Memory, around: Sequence[int], epilogue: Epilogue | None
            ) -> list[Call]:
                return sliced_conv2d(part, slices, out, around, epilogue, machine)

            rows = partial(Rows, source, window, sliced)

        elif _allows_winograd(plan) and _can_winograd(source, weights, window):
            packing = plan.packing
            either = plan.pack(
                weights_key("stride one", w), lambda: StrideOneWeights(weights, machine, packing)
            )

            def emit(out: Memory, epilogue: Epilogue | None) -> Sequence[Call | Series]:
                return stride_one_conv2d(source, either, out, pads, epilogue, machine)

            def some(
                part: Memory, out: Memory, around: Sequence[int], epilogue: Epilogue | None
            ) -> list[Call]:
                return conv2d(part, either.direct, out, (1, 1), around, (1, 1), epilogue, machine)

            def rows() -> Rows | None:  # of a transform of the whole there are none
                wanted = (source.shape[0], weights.shape[0], *window.output)
                if pays(window.kernel, source.shape[1], wanted, machine):
                    return None
                return Rows(source, window, some)

        else:
            packed = plan.pack(
                weights_key("conv", w, group), lambda: pack_conv_weights(weights, machine, group)
            )
            strides, dilations = window.strides, window.dilations

            def emit(out: Memory, epilogue: Epilogue | None) -> Sequence[Call | Series]:
                return conv2d(source, packed, out, strides, pads, dilations, epilogue, machine)

            def direct(
                part: Memory, out: Memory, around: Sequence[int], epilogue: Epilogue | None
            ) -> list[Call]:
                return conv2d(part, packed, out, strides, around, dilations, epilogue, machine)

            rows = partial(Rows, source, window, direct)

        cut = rank == 2 and is_cut(window)
        plan.anchor(value, emit, channels_last(rank), rows=rows if cut else None)
        return True

    def is_by_image(self, node: ir.Node, inputs: Sequence[Facts | None]) -> bool:
        """With constant weights."""
        del node
        return all(facts is None or facts.is_known for facts in inputs[1:])


def _has_planes(x: Facts, window: Window) -> bool:
    """Whether a convolution is of volumes, and its filters reach into x at every plane of the output."""
    return (
        len(x.shape) == 5
        and supports(name_of(x.dtype), 2)
        and min(*window.before, *window.after) >= 0
        and all(reached(window, x.shape[2]))
    )


def _by_planes(
    plan: Lowering, node: ir.Node, weights: Weights, window: Window
) -> Callable[[Memory, Epilogue | None], Sequence[Call | Series]]:
    """A convolution of volumes [N, C, D, H, W] with constant filters, as two-dimensional ones."""
    w = node.inputs[1]
    inner, group, machine = flat(window), attr_int(node, "group", 1), plan.machine
    strides, dilations, pads = inner.strides, inner.dilations, (*inner.before, *inner.after)
    filters = [plane_of(weights, tap) for tap in range(window.kernel[0])]
    x = plan.view(first_input(node))
    images = _planes(x, window)
    if _is_turned(plan, images, filters[0], inner):
        x = plan.copied(x, channels_last(3))
        images = _planes(x, window)

    def packed(kind: str, pack: Callable[[Weights], T]) -> list[T]:
        """The planes of the filters."""
        assert w is not None
        return [
            plan.pack(weights_key(kind, w, group, tap), partial(pack, own)) for tap, own in enumerate(filters)
        ]

    if is_narrow(filters[0].shape, group, machine):
        columns = packed("depthwise", lambda own: pack_depthwise(own.read(), machine))

        def one(tap: int, x: Memory, out: Memory, epilogue: Epilogue | None) -> list[Call]:
            return depthwise(x, columns[tap], out, inner, epilogue, machine)

    elif (
        _allows_winograd(plan)
        and _can_winograd(images, filters[0], inner)
        and (
            scheme := fastest(
                inner.kernel,
                images.shape[1],
                (images.shape[0], filters[0].shape[0], *inner.output),
                machine,
            )
        )
    ):
        points = packed(f"winograd {scheme.points}", lambda own: pack_winograd(own.read(), scheme, machine))

        def one(tap: int, x: Memory, out: Memory, epilogue: Epilogue | None) -> list[Call]:
            return winograd_conv2d(x, points[tap], out, pads, epilogue, machine)

    else:
        panels = packed("conv", lambda own: pack_conv_weights(own, machine, group))

        def one(tap: int, x: Memory, out: Memory, epilogue: Epilogue | None) -> list[Call]:
            return conv2d(x, panels[tap], out, strides, pads, dilations, epilogue, machine)

    return conv_by_planes(plan, x, window, one)


def _planes(x: Memory, window: Window) -> Memory:
    """As many planes of a volume as the output has, as images."""
    return x.with_dims((window.output[0], x.shape[1], *x.shape[3:]), (0, x.strides[1], *x.strides[3:]))


def _slices(plan: Lowering, node: ir.Node, x: Memory, window: Window) -> SlicedConvWeights | None:
    """The filters in slices, where tile registers are faster than vectors."""
    w, machine = node.inputs[1], plan.machine
    if w is None or not (plan.options.amx and machine.tiles):
        return None
    weights = plan.weights(w)
    if weights is None:
        return None
    if (
        x.dtype != np.float32
        or weights.dtype != np.float32
        or x.strides[1] != 1
        or weights.shape[1] != x.shape[1]
    ):
        return None
    out_shape = (x.shape[0], weights.shape[0], *window.output)
    if not math.prod(out_shape):
        return None
    direct = direct_cycles(out_shape, math.prod(weights.shape[1:]), machine)
    if cycles(out_shape, x.shape[1], window.kernel, window.strides, window.dilations, fine=True) > direct:
        return None
    strides, dilations = window.strides, window.dilations
    packed = plan.pack(
        weights_key("slices", w, strides, dilations),
        lambda: SlicedConvWeights(weights.read(), strides, dilations, machine),
    )
    return packed if packed.packed is not None else None


def _allows_winograd(plan: Lowering) -> bool:
    """Tile registers come close to Winograd's speed with a fraction of its error."""
    return plan.options.winograd and not (plan.options.amx and plan.machine.tiles)


def _can_winograd(x: Memory, weights: Weights, window: Window) -> bool:
    """Whether Winograd's algorithm can compute it; the others are for the direct one."""
    return _is_for_winograd(x, weights, window) and x.strides[1] == 1


def _is_for_winograd(x: Memory, weights: Weights, window: Window) -> bool:
    """The same for an image that may lie in any way."""
    return (
        bool(schemes(upright(window.kernel)))
        and {*window.strides, *window.dilations} == {1}
        and weights.shape[1] == x.shape[1]
        and x.dtype == weights.dtype
    )


def _is_turned(plan: Lowering, x: Memory, weights: Weights, window: Window) -> bool:
    """Whether Winograd's algorithm is faster than the direct one only once x has its channels side by side:
    behind a normalisation by groups or of images, or as the caller gives it.
    """
    if x.strides[1] == 1 or not (_allows_winograd(plan) and _is_for_winograd(x, weights, window)):
        return False
    return pays(window.kernel, x.shape[1], (x.shape[0], weights.shape[0], *window.output), plan.machine, True)


def weights_key(kind: str, w: ir.Value, *more: object) -> Hashable:
    """Under which packed weights are kept: those of initializers only, the others belong to one plan."""
    return (kind, w, *more) if is_weight(w) else None


def with_bias(plan: Lowering, node: ir.Node, rank: int) -> ir.Value:
    """The value the convolution itself computes: the node's, or one that waits for the bias to be added."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    value = node.outputs[0]
    if bias is None:
        return value
    facts = plan.facts(value)
    column = plan.column(bias, rank)
    product = plan.intermediate(facts.shape, facts.dtype)
    plan.wait(value, "Add", [product, column])
    return product


def _from_integers(plan: Lowering, node: ir.Node, window: Window, group: int) -> bool:
    """A convolution of dequantised integers; False where it is none, or no kernel computes it."""
    x, w, value = first_input(node), node.inputs[1], node.outputs[0]
    assert w is not None
    if dequantized(plan, x) is None:
        return False
    bias, facts = node.inputs[2] if len(node.inputs) > 2 else None, plan.facts(value)
    product = value if bias is None else plan.intermediate(facts.shape, facts.dtype)
    if not dequantized_conv(plan, product, x, w, window, group):
        return False
    if bias is not None:
        plan.wait(value, "Add", [product, placed(plan, bias, 1, len(facts.shape))])
    return True
