"""Resizing: each place of an output axis is a weighted sum of a few places of the input axis.

What the modes, coordinate transformations and roundings mean is settled in tables when the call is made
(`taps`); the kernels only gather and weigh. With channels side by side, a vector holds channels of one pixel.
With few channels, a row is first mixed from input rows, into scratch memory, and a vector holds neighbouring
columns gathered from there.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ingot.codegen.builder import F32, F64, I32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import memory_element
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.call import Buffer, Call, View, constant, strides_in_order
from ingot.kernels.pick import pick
from ingot.kernels.window import as_images

_SLOTS = (
    "x", "x_image", "x_channel", "x_row", "x_column",
    "out", "out_image", "out_channel", "out_row", "out_column",
    "images", "channels", "width", "out_height", "out_width",
    "row_index", "row_weight", "column_index", "column_weight", "outside",
)  # fmt: skip

#: So near to the middle of two elements, a coordinate of float32 is the middle; onnxruntime's number.
_TIE = 1e-6

_MOST_TAPS_TOGETHER = 16  # of rows times columns; more of them take a pass for each axis


@dataclass(eq=False, slots=True)
class Taps:
    """A table for one axis: output i is Σ_t weight[i, t] · input[index[i, t]].

    index: int32 [outputs, taps]; -1 in the first tap says that the place lies outside of the input, and takes
    the extrapolation value. weight: float64 [outputs, taps]; None where each output is one element,
    unchanged.
    """

    index: np.ndarray
    weight: np.ndarray | None

    @property
    def count(self) -> int:
        """Taps of one output."""
        return self.index.shape[1]


def identity_taps(size: int) -> Taps:
    """The axis as it is."""
    return Taps(np.arange(size, dtype=np.int32)[:, None], None)


def taps(
    mode: str,
    size: int,
    out_size: int,
    scale: float,
    *,
    coordinates: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
    exclude_outside: bool = False,
    antialias: bool = False,
    roi: tuple[float, float] = (0.0, 1.0),
) -> Taps:
    """The table of ONNX's Resize for one axis, from `size` to `out_size` elements.

    mode: nearest, linear or cubic. scale: the node's, or out_size / size where it gives sizes. roi: start and
    end, of "tf_crop_and_resize". Raises UnsupportedOperatorError for a mode or coordinate transformation that
    the operator does not have, and for elements to be made from none.
    """
    if out_size == 0:
        return Taps(np.zeros((0, 1), np.int32), None)
    if size == 0:
        raise UnsupportedOperatorError("Resize: found an empty axis to resize, wanted at least one element")
    # Runtimes count in float32, and the nearest of two elements is now and then another one there: at a
    # scale of 1.7 output 17 is element 10, in float64 9. Weights only move by their last places.
    real = np.float32 if mode == "nearest" else np.float64
    x = _coordinates(coordinates, size, out_size, scale, roi, real)
    outside = (x < 0) | (x > size - 1) if coordinates == "tf_crop_and_resize" else np.zeros(out_size, bool)
    # The pixel to the left, and how far beyond it: (0, 1], so a whole coordinate is the right one of its two.
    whole = np.floor(x)
    left = np.where(x == whole, whole - 1, whole).astype(np.int64)
    beyond = np.where(x == whole, 1.0, x.astype(np.float64) - whole)
    if mode == "nearest":
        tie = np.abs(beyond - 0.5) < _TIE
        right = {
            "round_prefer_floor": (beyond > 0.5) & ~tie,
            "round_prefer_ceil": (beyond > 0.5) | tie,
            "floor": beyond == 1.0,
            "ceil": beyond > 0.0,
        }.get(nearest_mode)
        if right is None:
            raise UnsupportedOperatorError(f"Resize: found nearest_mode {nearest_mode!r}, unknown to ONNX")
        index = np.clip(left + right, 0, size - 1)
        return Taps(np.where(outside, -1, index).astype(np.int32)[:, None], None)
    reach = {"linear": 1, "cubic": 2}.get(mode)
    if reach is None:
        raise UnsupportedOperatorError(f"Resize: found mode {mode!r}; wanted nearest, linear or cubic")
    shrink = min(scale, 1.0) if antialias else 1.0
    start = math.floor(-reach / shrink) + 1
    offsets = np.arange(start, 2 - start)
    distance = np.abs(offsets - beyond[:, None]) * shrink
    if mode == "linear":
        weight = np.clip(1 - distance, 0, None)
    else:
        a, d = cubic_coeff_a, distance
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        weight = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    index = left[:, None] + offsets
    if antialias:
        weight /= weight.sum(1, keepdims=True)
    if exclude_outside:
        weight = np.where((index < 0) | (index >= size), 0.0, weight)
        total = weight.sum(1, keepdims=True)
        weight /= np.where(total == 0, 1.0, total)
    used = (weight != 0).any(0)
    used[0] |= not used.any()
    index, weight = np.clip(index, 0, size - 1)[:, used], weight[:, used]
    index[outside, 0] = -1
    return Taps(index.astype(np.int32), weight)


def _coordinates(
    coordinates: str,
    size: int,
    out_size: int,
    scale: float,
    roi: tuple[float, float],
    real: type[np.floating],
) -> np.ndarray:
    """Where in the input each output lies (ONNX's Resize, attribute coordinate_transformation_mode)."""
    one, half = real(1), real(0.5)
    y, before, factor = np.arange(out_size, dtype=real), real(size), real(scale)
    width = real(scale * size)  # not rounded to a whole number
    if coordinates == "asymmetric":
        return y / factor
    if coordinates == "align_corners":
        return y * real(0) if width == 1 else y * (before - one) / (width - one)
    if coordinates == "tf_crop_and_resize":
        start, end = real(roi[0]), real(roi[1])
        if width == 1:
            return real(0) * y + half * (start + end) * (before - one)
        return start * (before - one) + y * (end - start) * (before - one) / (width - one)
    if coordinates == "pytorch_half_pixel" and out_size == 1:  # of whole elements, as ONNX Runtime counts
        return real(0) * y
    if coordinates in ("half_pixel", "pytorch_half_pixel"):
        return (y + half) / factor - half
    if coordinates == "half_pixel_symmetric":
        return before * half * (one - real(out_size) / width) + ((y + half) / factor - half)
    raise UnsupportedOperatorError(
        f"Resize: found coordinate_transformation_mode {coordinates!r}, which ONNX does not have"
    )


def definition(x: np.ndarray, axes: Mapping[int, Taps], extrapolation: float = 0.0) -> np.ndarray:
    """The plain meaning: x with each of the axes replaced through its table; numbers in float64."""
    outside = np.zeros([1] * x.ndim, bool)
    for axis, table in axes.items():
        gathered = np.moveaxis(x, axis, -1)[..., np.maximum(table.index, 0)]
        weight = table.weight
        x = gathered[..., 0] if weight is None else (gathered.astype(np.float64) * weight).sum(-1)
        x = np.moveaxis(x, -1, axis)
        beyond = table.index[:, 0] < 0
        outside = outside | beyond.reshape([-1 if d == axis else 1 for d in range(x.ndim)])
    return np.where(outside, np.asarray(extrapolation, x.dtype), x) if outside.any() else x


@dataclass(frozen=True, slots=True)
class Form:
    """What of a resize changes the code. The numbers of taps; whether each side's channels (or columns) must
    be gathered or scattered; `masked`: channels are no multiple of the vector.
    """

    row_taps: int
    column_taps: int
    row_weights: bool
    column_weights: bool
    gather: bool
    scatter: bool
    masked: bool
    extrapolate: bool
    dtype: str


@kernel(*_SLOTS)
def resize_channels(k: Builder, *, form: Form) -> None:
    """A tile is a row of an output image; a vector holds channels."""
    lanes = k.machine.lanes
    element = memory_element(form.dtype)
    type_ = vector(element, lanes)
    size = {name: k.arg(name) for name in _SLOTS if name not in _POINTERS}
    x, out = k.pointer("x"), k.pointer("out")
    with k.loop(k.begin, k.end) as tile:
        row, image = k.rem(tile, size["out_height"]), k.div(tile, size["out_height"])
        source = k.at(x, k.mul(image, size["x_image"]), element)
        target = k.at(out, k.add(k.mul(image, size["out_image"]), k.mul(row, size["out_row"])), element)
        rows, row_weights, above = _read_taps(k, form, "row", row)
        lines = [k.at(source, k.mul(r, size["x_row"]), element) for r in rows]
        with k.loop(0, size["out_width"]) as column:
            columns, column_weights, beside = _read_taps(k, form, "column", column)
            offsets = [k.mul(c, size["x_column"]) for c in columns]
            here = k.at(target, k.mul(column, size["out_column"]), element)
            weights = [
                k.broadcast(
                    k.ir.fmul(r, c) if r is not None and c is not None else r if r is not None else c, lanes
                )
                for r in row_weights
                for c in column_weights
                if r is not None or c is not None
            ]
            with k.loop(0, size["channels"], lanes) as channel:
                left = k.sub(size["channels"], channel) if form.masked else lanes
                mask = k.lanes_below(left, lanes) if form.masked else None

                def read(
                    line: Value, offset: Int, channel: Int = channel, left: Int = left, mask: Value = mask
                ) -> Value:
                    pointer = k.at(line, offset, element)
                    if form.gather:
                        first = k.at(pointer, k.mul(channel, size["x_channel"]), element)
                        return k.gather(first, type_, size["x_channel"], left)
                    return k.load(k.at(pointer, channel, element), type_, mask=mask)

                values = [read(line, offset) for line in lines for offset in offsets]
                value = values[0]
                if weights:
                    value = k.ir.fmul(value, weights[0])
                    for other, weight in zip(values[1:], weights[1:], strict=True):
                        value = k.fma(other, weight, value)
                if form.extrapolate:
                    value = k.ir.select(k.ir.or_(above, beside), _outside(k, form), value)
                if form.scatter:
                    k.scatter(
                        value,
                        k.at(here, k.mul(channel, size["out_channel"]), element),
                        size["out_channel"],
                        left,
                    )
                else:
                    k.store(value, k.at(here, channel, element), mask=mask)


@kernel(*_SLOTS)
def resize_columns(k: Builder, *, form: Form) -> None:
    """A tile is a row of a channel of an output image; a vector holds columns. `scratch` takes one mixed
    input row.
    """
    lanes = k.machine.lanes
    element = memory_element(form.dtype)
    type_ = vector(element, lanes)
    size = {name: k.arg(name) for name in _SLOTS if name not in _POINTERS}
    x, out = k.pointer("x"), k.pointer("out")
    index, weight, number = k.pointer("column_index"), k.pointer("column_weight"), _number(form)
    with k.loop(k.begin, k.end) as tile:
        row, others = k.rem(tile, size["out_height"]), k.div(tile, size["out_height"])
        channel, image = k.rem(others, size["channels"]), k.div(others, size["channels"])
        start = k.add(k.mul(image, size["x_image"]), k.mul(channel, size["x_channel"]))
        source = k.at(x, start, element)
        start = k.add(k.mul(image, size["out_image"]), k.mul(channel, size["out_channel"]))
        target = k.at(out, k.add(start, k.mul(row, size["out_row"])), element)
        rows, row_weights, above = _read_taps(k, form, "row", row)
        lines = [k.at(source, k.mul(r, size["x_row"]), element) for r in rows]
        line, step = lines[0], size["x_column"]
        if form.row_weights:
            line, step = k.scratch, 1
            held = [k.broadcast(w, lanes) for w in row_weights]
            with k.loop(0, size["width"], lanes) as column:
                left = k.sub(size["width"], column)
                mask = k.lanes_below(left, lanes)

                def read(pointer: Value, column: Int = column, left: Int = left, mask: Value = mask) -> Value:
                    if form.gather:
                        first = k.at(pointer, k.mul(column, size["x_column"]), element)
                        return k.gather(first, type_, size["x_column"], left)
                    return k.load(pointer, type_, column, mask=mask)

                value = k.ir.fmul(read(lines[0]), held[0])
                for other, w in zip(lines[1:], held[1:], strict=True):
                    value = k.fma(read(other), w, value)
                k.store(value, line, column)
        with k.loop(0, size["out_width"], lanes) as column:
            left = k.sub(size["out_width"], column)
            mask = k.lanes_below(left, lanes)
            numbers = vector(I32, lanes)
            value = beside = None
            for t in range(form.column_taps):
                table = k.at(index, k.mul(size["out_width"], t), I32)
                places = k.load(table, numbers, column, mask=mask)
                if t == 0 and form.extrapolate:
                    beside = k.ir.icmp_signed("<", places, k.zero(numbers))
                    places = k.ir.select(beside, k.zero(numbers), places)
                offsets = k.ir.sext(places, vector(I64, lanes))
                if not isinstance(step, int):
                    offsets = k.ir.mul(offsets, k.broadcast(step, lanes))
                gathered = k.gather_at(line, offsets, type_, mask)
                if form.column_weights:
                    table = k.at(weight, k.mul(size["out_width"], t), number)
                    w = k.load(table, vector(number, lanes), column, mask=mask)
                    gathered = k.ir.fmul(gathered, w) if value is None else k.fma(gathered, w, value)
                value = gathered
            if form.extrapolate:
                value = k.ir.select(k.ir.or_(k.broadcast(above, lanes), beside), _outside(k, form), value)
            if form.scatter:
                k.scatter(
                    value, k.at(target, k.mul(column, size["out_column"]), element), size["out_column"], left
                )
            else:
                k.store(value, target, column, mask=mask)


_POINTERS = ("x", "out", "row_index", "row_weight", "column_index", "column_weight")


def _number(form: Form) -> Value:
    """The type of weights and of the extrapolation value."""
    return F64 if form.dtype == "float64" else F32


def _outside(k: Builder, form: Form) -> Value:
    """The extrapolation value, which travels as its bits."""
    bits, number = k.arg("outside"), _number(form)
    bits = bits if number is F64 else k.ir.trunc(bits, I32)
    return k.broadcast(k.ir.bitcast(bits, number), k.machine.lanes)


def _read_taps(
    k: Builder, form: Form, axis: str, place: Int
) -> tuple[list[Value], list[Value | None], Value]:
    """Indices (at least 0) and weights of one output place, and whether it lies outside."""
    count, weighted = (
        (form.row_taps, form.row_weights) if axis == "row" else (form.column_taps, form.column_weights)
    )
    first = k.mul(place, count)
    table = k.at(k.pointer(f"{axis}_index"), first, I32)
    index = [k.ir.sext(k.load(table, I32, t), I64) for t in range(count)]
    outside = k.ir.icmp_signed("<", index[0], I64(0))
    if form.extrapolate:
        index[0] = k.max(index[0], 0)
    if not weighted:
        return index, [None] * count, outside
    weights = k.at(k.pointer(f"{axis}_weight"), first, _number(form))
    return index, [k.load(weights, _number(form), t) for t in range(count)], outside


def resize(
    x: View, out: View, axes: Mapping[int, Taps], machine: Machine, extrapolation: float = 0.0
) -> list[Call]:
    """out = x with each axis of `axes` replaced through its table; out's other axes are x's. Any strides.

    float32 and float64; any dtype of 1, 2, 4 or 8 bytes where no table has weights (mode nearest).
    Raises UnsupportedOperatorError for other dtypes, and where every axis is resized but those of size 1.
    """
    if out.size == 0:
        return []
    if not axes:  # a copy
        x, out = (view.with_dims(view.shape or (1,), view.strides or (1,)) for view in (x, out))
        axes = {x.rank - 1: identity_taps(x.shape[-1])}
    weighted = any(table.weight is not None for table in axes.values())
    extrapolate = any((table.index[:, 0] < 0).any() for table in axes.values())
    if x.dtype != out.dtype or ((weighted or extrapolate) and x.dtype.name not in ("float32", "float64")):
        raise UnsupportedOperatorError(
            f"Resize: found {x.dtype.name} to {out.dtype.name}, the native kernel interpolates float32 "
            "and float64 (and repeats elements of any dtype); cast it, or leave this node to the host"
        )
    if not (weighted or extrapolate):
        call = pick(x, out, {d: table.index[:, 0] for d, table in axes.items()}, machine)
        if call is not None:
            return [call]
    calls: list[Call] = []
    left = sorted(axes)
    while left:
        # The innermost axes first, two at a time where that takes few taps.
        together = left[-2:]
        if math.prod(axes[d].count for d in together) > _MOST_TAPS_TOGETHER:
            together = left[-1:]
        left = left[: len(left) - len(together)]
        target = out
        if left:
            sizes = {d: x.shape[d] for d in left}
            shape = tuple(sizes.get(d, n) for d, n in enumerate(out.shape))
            order = sorted(range(out.rank), key=lambda d: -abs(out.strides[d]))
            target = View(
                Buffer(math.prod(shape) * x.dtype.itemsize), 0, x.dtype, shape, strides_in_order(shape, order)
            )
        calls += _pass(x, target, axes, together, machine, extrapolation, extrapolate)
        x = target
    return calls


def _pass(
    x: View,
    out: View,
    axes: Mapping[int, Taps],
    together: Sequence[int],
    machine: Machine,
    extrapolation: float,
    extrapolate: bool,
) -> list[Call]:
    """Resize one or two axes; share the others out between images, channels, and the axis that is not
    resized.
    """
    others = [d for d in range(x.rank) if d not in together]
    channels = [d for d in others if x.strides[d] == 1 and out.strides[d] == 1 and x.shape[d] > 1][:1]
    if not channels and 1 in others:
        channels = [1]
    others = [d for d in others if d not in channels]
    if len(together) == 2:
        rows, columns = [together[0]], [together[1]]
        images = others
    else:
        axis = together[0]
        beyond = [d for d in others if d > axis]
        images = [d for d in others if d < axis]
        rows, columns = ([axis], beyond) if beyond else ([], [axis])
    calls: list[Call] = []
    for source, target in as_images(x, out, (images, channels, rows, columns)):
        row_taps = axes[rows[0]] if rows else identity_taps(1)
        column_taps = axes[columns[0]] if columns == together[-1:] else identity_taps(source.shape[3])
        calls.append(_call(source, target, row_taps, column_taps, machine, extrapolation, extrapolate))
    return calls


def _call(
    x: View, out: View, rows: Taps, columns: Taps, machine: Machine, extrapolation: float, extrapolate: bool
) -> Call:
    """x [N, C, H, W] to out [N, C, Ho, Wo]."""
    images, channels, out_height, out_width = out.shape
    lanes = machine.lanes
    across_channels = x.strides[1] == out.strides[1] == 1 and 4 * channels >= lanes
    vector_axis = 1 if across_channels else 3
    form = Form(
        row_taps=rows.count,
        column_taps=columns.count,
        row_weights=rows.weight is not None,
        column_weights=columns.weight is not None,
        gather=x.strides[vector_axis] != 1 and x.shape[vector_axis] > 1,
        scatter=out.strides[vector_axis] != 1 and out.shape[vector_axis] > 1,
        masked=across_channels and channels % lanes != 0,
        extrapolate=extrapolate,
        dtype=x.dtype.name,
    )
    number, bits = (np.float64, np.int64) if x.dtype == np.float64 else (np.float32, np.int32)
    row_weight, column_weight = (
        None if table.weight is None else table.weight.astype(number) for table in (rows, columns)
    )
    # The kernel of columns loads the table of neighbouring columns: there a tap's numbers lie side by side.
    tables = [_table(rows.index), _table(row_weight)]
    tables += [_table(a if across_channels or a is None else a.T) for a in (columns.index, column_weight)]
    arguments: list[int | View | Kernel] = [
        x, *x.strides, out, *out.strides, images, channels, x.shape[3], out_height, out_width,
        *tables, int(number(extrapolation).view(bits)),
    ]  # fmt: skip
    generator = resize_channels if across_channels else resize_columns
    return Call(
        generator(form=form),
        arguments,
        tiles=images * out_height * (1 if across_channels else channels),
        reads=[x, *tables],
        writes=[out],
        scratch=0 if across_channels else (x.shape[3] + lanes) * x.dtype.itemsize,
        flops=2 * out.size * rows.count * columns.count,
        label="resize",
    )


def _table(array: np.ndarray | None) -> View:
    return constant(np.zeros(1, np.float32) if array is None else np.ascontiguousarray(array))
