"""Sums of products of small integers, for operators of integers and for QDQ graphs.

Sums are int32, exact, and wrap like NumPy's. Where both factors of a MatMul, Gemm or Conv are dequantised
integers, its float32 result is the exact sum, rounded once, times the product of the scales: closer to the
real one than a sum of rounded products. Sums that int32 might not hold are left to floats. What follows it
(bias, activation, quantisation) is computed on the sums before they are stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, Weights
from ingot.kernels.call import View as Memory
from ingot.kernels.contract import Epilogue, name_of
from ingot.kernels.conv import IntegerConvWeights, integer_conv2d
from ingot.kernels.depthwise import DepthwiseWeights, pack_depthwise
from ingot.kernels.gemm import integer_matmul
from ingot.kernels.units import DTYPES, IntegerWeights, flips, numbers_for, pack_factor_calls, pack_integers
from ingot.ops.lowering import Lowering
from ingot.ops.narrow import is_narrow, narrow_conv
from ingot.ops.nodes import input_at
from ingot.ops.numeric import FLOAT32, INT32
from ingot.ops.registry import Array, DType, attr_int, attr_ints, is_weight
from ingot.ops.window import Window, channels_last

_INT8, _UINT8 = np.dtype(np.int8), np.dtype(np.uint8)
#: Constants narrower than a byte are packed as bytes.
_NARROW = {"int4": _INT8, "int2": _INT8, "uint4": _UINT8, "uint2": _UINT8}
_MOST = (1 << 31) - 1
#: Columns of weights that are looked at together.
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Quantized:
    """A tensor (value - zero) · scale. `axis`: of a vector of scales."""

    value: ir.Value
    scale: ir.Value | None
    zero: ir.Value | None
    axis: int = 0


def dequantized(plan: Lowering, value: ir.Value) -> Quantized | None:
    """Of what small integers a float32 value is made, if it is: of constants, or of a DequantizeLinear that
    waits. The scale is one number or a vector.
    """
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or plan.facts(value).dtype != FLOAT32:
        return None
    source, scale = node.inputs[0], node.inputs[1]
    assert source is not None and scale is not None
    if not (plan.facts(value).is_known or plan.waits_as(value) == "DequantizeLinear"):
        return None
    dtype, shape = name_of(plan.facts(source).dtype), plan.facts(scale).shape
    if plan.facts(scale).dtype != FLOAT32 or (math.prod(shape) > 1 and len(shape) > 1):
        return None
    if dtype not in DTYPES and not (dtype in _NARROW and plan.weights(source) is not None):
        return None
    rank = max(1, len(plan.facts(source).shape))
    return Quantized(source, scale, input_at(node, 2), attr_int(node, "axis", 1) % rank)


# ---- sums --------------------------------------------------------------------------------------------------


def _bytes_of(plan: Lowering, value: ir.Value) -> Weights | None:
    """Constant integers as int8 or uint8."""
    weights = plan.weights(value)
    dtype = None if weights is None else _NARROW.get(name_of(weights.dtype), weights.dtype)
    if weights is None or dtype is None or name_of(dtype) not in DTYPES:
        return None
    return Weights(weights.shape, dtype, lambda: weights.read().astype(dtype, copy=False))


def _zero_of(plan: Lowering, zero: ir.Value | None, dtype: DType) -> Array | None:
    known = plan.constant(zero)
    return None if known is None else known.astype(dtype, copy=False)


def _less_zero(
    plan: Lowering,
    value: ir.Value,
    sums: ir.Value,
    columns: Memory,
    zero: ir.Value | None,
    flip: bool,
    place: Callable[[Memory], Memory],
    key: Hashable,
) -> None:
    """`value` = sums - (zero, moved by 128 with `flip`) · columns, which broadcast to it by `place`."""
    known = plan.constant(zero) if zero is not None else np.zeros((), np.int32)
    if columns.buffer.array is not None and known is not None and known.size == 1:
        shift = int(known.reshape(())) + (128 if flip else 0)
        if not shift:
            plan.wait(value, "Identity", [sums])
            return

        def make() -> Array:
            array = columns.buffer.array
            assert array is not None
            return array.reshape(-1) * np.int32(-shift)

        moved = plan.pack(None if key is None else ("moved", key, shift), make)
        term = plan.view(plan.known(moved))
        term = term.with_dims(columns.shape, columns.strides, columns.offset // 4)
        plan.wait(value, "Add", [sums, plan.located(place(term))])
        return
    shape = plan.facts(value).shape
    product = plan.intermediate(np.broadcast_shapes(place(columns).shape), INT32)
    shift_value: ir.Value = plan.known(np.array(128 if flip else 0, np.int32))
    if zero is not None:
        view = plan.view(zero)
        if view.size == 1:
            view = view.with_dims((), ())
        elif view.rank == 1:  # of rows
            view = view.with_dims((view.size, 1), (view.strides[0], 0))
        wide = plan.intermediate(view.shape, INT32)
        plan.wait(wide, "Cast", [plan.located(view)])
        if flip:
            sum_ = plan.intermediate(view.shape, INT32)
            plan.wait(sum_, "Add", [wide, shift_value])
            wide = sum_
        shift_value = plan.located(plan.view(wide))
        product = plan.intermediate(np.broadcast_shapes(place(columns).shape, view.shape), INT32)
    plan.wait(product, "Mul", [shift_value, plan.located(place(columns))])
    product = plan.located(plan.view(product)) if plan.facts(product).shape != shape else product
    plan.wait(value, "Sub", [sums, product])


def integer_product(
    plan: Lowering,
    value: ir.Value,
    a: ir.Value,
    a_zero: ir.Value | None,
    b: ir.Value,
    b_zero: ir.Value | None,
    *,
    transposed_a: bool = False,
    transposed: bool = False,
) -> bool:
    """`value` = (a - a_zero) @ (b - b_zero) in int32, waiting for what follows. False: no kernel computes it
    (nothing was emitted). a, b: matrices or batches of them. A zero point of a is one number or one for each
    row, of b one or one for each column.
    """
    machine, weights = plan.machine, _bytes_of(plan, b)
    of_a = plan.facts(a).dtype
    of_b = weights.dtype if weights is not None else plan.facts(b).dtype
    if name_of(of_a) not in DTYPES or name_of(of_b) not in DTYPES:
        return False
    if min(len(plan.facts(a).shape), len(plan.facts(b).shape)) < 2:
        return False
    known_zero = _zero_of(plan, b_zero, of_b)
    numbers = numbers_for(name_of(of_b), known_zero, b_zero is not None, machine)
    source = plan.view(a).swapped() if transposed_a else plan.view(a)
    key: Hashable = None
    if weights is not None and (b_zero is None or known_zero is not None):
        lasting = is_weight(b) and (b_zero is None or is_weight(b_zero))
        key = ("integers", b, b_zero, transposed) if lasting else None

        def make() -> IntegerWeights:
            array = weights.read()
            array = np.swapaxes(array, -1, -2) if transposed else array
            zero = None if known_zero is None else _columns(known_zero)
            return pack_integers(array, zero, numbers, machine)

        packed = plan.pack(key, make)
    else:
        view = plan.view(b) if weights is None else plan.view(plan.known(weights.read()))
        view = view.swapped() if transposed else view
        zeros = None
        if b_zero is not None:
            zeros = plan.view(b_zero) if known_zero is None else plan.view(plan.known(known_zero))
            if zeros.rank <= 1:
                zeros = zeros.with_dims((1, zeros.size), (0, zeros.strides[0] if zeros.rank else 0))
        calls, packed = pack_factor_calls(view, zeros, numbers, machine)
        plan.emit(calls)
    shape = plan.facts(value).shape
    sums = plan.intermediate(shape, INT32)

    def emit(out: Memory, epilogue: Epilogue | None) -> list[Call]:
        return integer_matmul(source, packed, out, epilogue, machine)

    plan.anchor(sums, emit, exact=True)
    flip = flips(numbers, name_of(of_a))
    _less_zero(plan, value, sums, packed.columns(), a_zero, flip, lambda v: v, key)
    return True


def _columns(zero: Array) -> Array:
    """A zero point of the columns as it broadcasts to matrices."""
    return zero.reshape(1, -1) if zero.ndim <= 1 else zero


def integer_conv(
    plan: Lowering,
    value: ir.Value,
    x: ir.Value,
    x_zero: ir.Value | None,
    w: ir.Value,
    w_zero: ir.Value | None,
    window: Window,
    group: int,
) -> bool:
    """`value` = the convolution of x - x_zero with w - w_zero in int32, waiting for what follows. False: no
    kernel computes it (nothing was emitted).
    """
    weights, machine = _bytes_of(plan, w), plan.machine
    of_x, rank = plan.facts(x).dtype, len(plan.facts(x).shape) - 2
    pads = (*window.before, *window.after)
    if weights is None or name_of(of_x) not in DTYPES or rank not in (1, 2) or min(pads) < 0:
        return False
    known_zero = _zero_of(plan, w_zero, weights.dtype)
    if w_zero is not None and known_zero is None:
        return False
    if x_zero is not None and plan.facts(x_zero).shape not in ((), (1,)):
        return False
    lasting = is_weight(w) and (w_zero is None or is_weight(w_zero))
    if is_narrow(weights.shape, group, machine) and _is_exact(weights.shape):
        narrow: Hashable = ("integer depthwise", w, w_zero) if lasting else None
        filters = plan.pack(narrow, lambda: _floats(weights, known_zero, machine))
        _narrow_sums(plan, value, x, x_zero, filters, window)
        return True
    key: Hashable = ("integer conv", w, w_zero, group) if lasting else None
    numbers = numbers_for(name_of(weights.dtype), known_zero, w_zero is not None, machine)
    packed = plan.pack(key, lambda: IntegerConvWeights(weights, known_zero, group, numbers, machine))
    source = plan.view(x)
    padding = None if x_zero is None else plan.view(x_zero).with_dims((), ())
    strides, dilations = window.strides, window.dilations
    sums = plan.intermediate(plan.facts(value).shape, INT32)

    def emit(out: Memory, epilogue: Epilogue | None) -> list[Call]:
        return integer_conv2d(source, padding, packed, out, strides, pads, dilations, epilogue, machine)

    def place(columns: Memory) -> Memory:
        """[O] as [O, 1, …]."""
        return columns.with_dims((packed.outputs, *[1] * rank), (*columns.strides, *[0] * rank))

    plan.anchor(sums, emit, channels_last(rank), exact=True)
    _less_zero(plan, value, sums, packed.sums, x_zero, flips(numbers, name_of(of_x)), place, key)
    return True


def _is_exact(filters: tuple[int, ...]) -> bool:
    """Whether float32 adds up the products of two bytes less their zero points without rounding."""
    return math.prod(filters[1:]) * 255 * 255 <= 1 << 24


def _floats(weights: Weights, zero: Array | None, machine: Machine) -> DepthwiseWeights:
    """Filters less their zero points, as float32."""
    array = weights.read().astype(np.float32)
    if zero is not None:
        array -= zero.astype(np.float32).reshape(-1, *[1] * (array.ndim - 1))
    return pack_depthwise(array, machine)


def _narrow_sums(
    plan: Lowering,
    value: ir.Value,
    x: ir.Value,
    x_zero: ir.Value | None,
    filters: DepthwiseWeights,
    window: Window,
) -> None:
    """`value` = the sums of narrow groups' convolutions: float32 adds them up without rounding."""
    order = channels_last(len(plan.facts(x).shape) - 2)
    real, sums = (plan.intermediate(plan.facts(v).shape, FLOAT32) for v in (x, value))
    zero = [] if x_zero is None else [placed(plan, x_zero, 0, 0)]
    plan.wait(real, "DequantizeLinear", [x, plan.known(np.ones((), np.float32)), *zero])
    plan.anchor(sums, narrow_conv(plan, real, filters, window), order, exact=True)
    plan.wait(value, "Cast", [sums])


# ---- what becomes of them ----------------------------------------------------------------------------------


def product_of(plan: Lowering, *scales: ir.Value | None, over: ir.Value | None = None) -> ir.Value:
    """The product of scales in float32, from left to right, divided by `over`; each a number or a vector."""
    values = [v for v in scales if v is not None]
    arrays = [plan.constant(v) for v in (*values, *([] if over is None else [over]))]
    known = [a for a in arrays if a is not None]
    if len(known) == len(arrays):
        flat = [a.reshape(-1) if a.size > 1 else a.reshape(()) for a in known]
        result = flat[0]
        for array in flat[1 : len(values)]:
            result = result * array
        return plan.known(np.asarray(result / flat[-1] if over is not None else result, np.float32))

    def flat_value(value: ir.Value) -> ir.Value:
        view = plan.view(value)
        return plan.located(view.with_dims((), ()) if view.size == 1 else view)

    total = flat_value(values[0])
    steps = [("Mul", v) for v in values[1:]] + ([] if over is None else [("Div", over)])
    for op, value in steps:
        other = flat_value(value)
        shape = np.broadcast_shapes(plan.facts(total).shape, plan.facts(other).shape)
        result_value = plan.intermediate(shape, FLOAT32)
        plan.wait(result_value, op, [total, other])
        total = result_value
    return plan.located(plan.view(total))


def _magnitude(dtype: DType, zero: Array | None) -> int:
    """The largest |value - zero| that there can be; zero None: not known."""
    bounds = ml_dtypes.iinfo(dtype)
    if zero is None:
        return int(bounds.max) - int(bounds.min)
    return max(int(bounds.max) - int(zero.min()), int(zero.max()) - int(bounds.min))


def _holds_sums(
    plan: Lowering, x: Quantized, w: Quantized, depth: int, columns: Callable[[Array], Array]
) -> bool:
    """Whether int32 holds every sum of `depth` products of x and w: their dtypes prove it below 33,025, of
    deeper sums the weights may. `columns`: w as [..., depth, N].
    """
    zeros = [np.zeros(1) if q.zero is None else plan.constant(q.zero) for q in (x, w)]
    x_zero, w_zero = (None if zero is None or not zero.size else zero.astype(np.int16) for zero in zeros)
    largest = _magnitude(plan.facts(x.value).dtype, x_zero)
    if depth * largest * _magnitude(plan.facts(w.value).dtype, w_zero) <= _MOST:
        return True
    weights = plan.weights(w.value)
    if weights is None or w_zero is None:
        return False
    zero = w_zero.reshape(-1)

    def heaviest() -> int:
        array, most = columns(weights.read()), 0
        for start in range(0, array.shape[-1], _BLOCK):
            part = slice(start, start + _BLOCK)
            less = array[..., part].astype(np.int16) - (zero if zero.size == 1 else zero[part])
            most = max(most, int(np.abs(less).sum(-2, np.int64).max(initial=0)))
        return most

    lasting = is_weight(w.value) and (w.zero is None or is_weight(w.zero))
    key = ("heaviest", w.value, w.zero, w.axis) if lasting else None
    return largest * plan.pack(key, heaviest) <= _MOST


def placed(plan: Lowering, value: ir.Value, axis: int, rank: int) -> ir.Value:
    """A number or a vector along `axis`, as it broadcasts to `rank` dimensions."""
    view = plan.view(value)
    if view.size == 1:
        return plan.located(view.with_dims((), ()))
    shape, strides = [1] * rank, [0] * rank
    shape[axis], strides[axis] = view.size, view.strides[-1]
    return plan.located(view.with_dims(shape, strides))


def scaled(plan: Lowering, value: ir.Value, sums: ir.Value, factor: ir.Value) -> None:
    """`value` = sums · factor in float32."""
    real = plan.intermediate(plan.facts(sums).shape, FLOAT32)
    plan.wait(real, "Cast", [sums])
    plan.wait(value, "Mul", [real, factor])


def plus(plan: Lowering, sums: ir.Value, term: ir.Value) -> ir.Value:
    """sums + term, in int32."""
    total = plan.intermediate(plan.facts(sums).shape, INT32)
    plan.wait(total, "Add", [sums, term])
    return total


def dequantized_matmul(
    plan: Lowering, value: ir.Value, a: ir.Value, b: ir.Value, *, transposed_a: bool = False,
    transposed: bool = False, alpha: float = 1.0,
) -> bool:  # fmt: skip
    """`value` = alpha · a @ b in float32, from integers, if both are dequantised ones. False: they are not,
    or no kernel computes it.
    """
    b, turned = _unturned(plan, b)
    transposed = transposed != turned
    left, right = dequantized(plan, a), dequantized(plan, b)
    if left is None or right is None or left.scale is None or right.scale is None:
        return False
    rank = len(plan.facts(b).shape)
    if math.prod(plan.facts(left.scale).shape) != 1 or is_many(plan, left.zero):
        return False
    along_columns = right.axis == (rank - 2 if transposed else rank - 1)
    if math.prod(plan.facts(right.scale).shape) != 1 and not along_columns:
        return False
    depth = plan.facts(b).shape[-1 if transposed else -2] if rank > 1 else 0

    def columns(array: Array) -> Array:
        return np.swapaxes(array, -1, -2) if transposed else array

    if not _holds_sums(plan, left, right, depth, columns):
        return False
    shape = plan.facts(value).shape
    sums = plan.intermediate(shape, INT32)
    if not integer_product(
        plan, sums, left.value, left.zero, right.value, right.zero,
        transposed_a=transposed_a, transposed=transposed,
    ):  # fmt: skip
        return False
    extra = [] if alpha == 1.0 else [plan.known(np.array(alpha, np.float32))]
    factor = product_of(plan, left.scale, right.scale, *extra)
    scaled(plan, value, sums, placed(plan, factor, len(shape) - 1, len(shape)))
    return True


def _unturned(plan: Lowering, value: ir.Value) -> tuple[ir.Value, bool]:
    """Matrices without the Transpose that they come from, and whether there is one: a weight is dequantised
    before it where PyTorch calls a linear layer with a weight that it keeps as integers.
    """
    node = value.producer()
    if node is None or node.op_type != "Transpose" or node.inputs[0] is None:
        return value, False
    rank = len(plan.facts(value).shape)
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    is_swap = attr_ints(node, "perm") == swapped or (rank == 2 and attr_ints(node, "perm") is None)
    return (node.inputs[0], True) if is_swap else (value, False)


def dequantized_conv(
    plan: Lowering, value: ir.Value, x: ir.Value, w: ir.Value, window: Window, group: int
) -> bool:
    """`value` = the convolution of x with w in float32, from integers, if both are dequantised ones."""
    image, filters = dequantized(plan, x), dequantized(plan, w)
    if image is None or filters is None or image.scale is None or filters.scale is None:
        return False
    if math.prod(plan.facts(image.scale).shape) != 1 or (filters.axis != 0 and is_many(plan, filters.scale)):
        return False
    depth = math.prod(plan.facts(w).shape[1:])
    if not _holds_sums(plan, image, filters, depth, lambda array: array.reshape(len(array), -1).T):
        return False
    shape = plan.facts(value).shape
    sums = plan.intermediate(shape, INT32)
    if not integer_conv(plan, sums, image.value, image.zero, filters.value, filters.zero, window, group):
        return False
    factor = product_of(plan, image.scale, filters.scale)
    scaled(plan, value, sums, placed(plan, factor, 1, len(shape)))
    return True


def is_many(plan: Lowering, value: ir.Value | None) -> bool:
    """Whether a value is there and has more than one element."""
    return value is not None and math.prod(plan.facts(value).shape) > 1
