"""What an image has in the boxes of a detector (RoiAlign, MaxRoiPool)."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Literal

import numpy as np

from ingot.codegen.builder import F64, I64, Builder, Int, Value
from ingot.codegen.elements import (
    gather_element,
    load_element,
    memory_element,
    register_element,
    register_type,
    scatter_element,
    store_element,
)
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import Lanes
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View

# ---- what lies in a box ------------------------------------------------------------------------------------

Pooling = Literal["avg", "max"]


def evaluate_roi_align(
    x: np.ndarray,
    rois: np.ndarray,
    images: np.ndarray,
    size: tuple[int, int],
    mode: Pooling,
    ratio: int,
    scale: float,
    *,
    half_pixel: bool,
) -> np.ndarray:
    """The plain definition: each box (x, y, x, y) in size[0] · size[1] bins, the mean (or maximum) of samples
    of each, which lie between four pixels. [R, C, *size], in float64.
    """
    height, width = x.shape[2:]
    out = np.zeros((len(rois), x.shape[1], *size))
    for r, (box, image) in enumerate(zip(rois.astype(np.float64), images.tolist(), strict=True)):
        start_x, start_y, end_x, end_y = box * scale - (0.5 if half_pixel else 0.0)
        sides = end_y - start_y, end_x - start_x
        if not half_pixel:
            sides = max(sides[0], 1.0), max(sides[1], 1.0)
        bins = [side / n for side, n in zip(sides, size, strict=True)]
        grid = [ratio or max(0, int(np.ceil(b))) for b in bins]
        if 0 in grid:
            continue
        axes: list[tuple[np.ndarray, ...]] = []
        for start, step, n, own, limit in zip(
            (start_y, start_x), bins, size, grid, (height, width), strict=True
        ):
            at = start + step * (np.arange(n)[:, None] + (np.arange(own) + 0.5) / own)
            outside = ~((at >= -1.0) & (at <= limit))
            near = np.clip(np.nan_to_num(at), 0, limit - 1)
            low = near.astype(np.int64)
            part = near - low
            high = np.minimum(low + 1, limit - 1)
            axes.append((low, high, np.where(outside, 0, 1 - part), np.where(outside, 0, part)))
        rows, columns = axes
        corners = [
            (rows[2 + i][:, :, None, None] * columns[2 + j])
            * x[image][:, rows[i][:, :, None, None], columns[j]].astype(np.float64)
            for i in (0, 1)
            for j in (0, 1)
        ]
        if mode == "avg":
            out[r] = np.sum(corners, 0).mean((2, 4))
        else:
            out[r] = np.max(corners, 0).max((2, 4))
    return out


def _at_pixel(k: Builder, place: Lanes, size: Value) -> tuple[Value, Value, Lanes, Lanes]:
    """Along one axis: the pixels before and after, and their weights; 0 where the place lies outside."""
    number = Lanes(k, k.ir.sitofp(size, place.type))
    outside = k.ir.or_(k.ir.fcmp_unordered("<", place.value, k.splat(-1.0, place.type)),
                       k.ir.fcmp_unordered(">", place.value, number.value))  # fmt: skip
    near = place.constant(0.0).where(outside, place)
    near = (number - 1.0).where(number - 1.0 < near, near)
    near = near.where(near > 0.0, 0.0)
    low = k.ir.fptosi(near.value, I64)
    high = k.min(k.add(low, 1), k.sub(size, 1))
    part = near - Lanes(k, k.ir.sitofp(low, place.type))
    zero = part.constant(0.0)
    return low, high, zero.where(outside, 1.0 - part), zero.where(outside, part)


@kernel("x", "xn", "xc", "xh", "xw", "out", "yr", "yc", "yh", "yw", "rois", "ri", "rj", "images", "ii",
        "error", "count", "channels", "height", "width", "rows", "columns", "ratio", "scale")  # fmt: skip
def _roi_align(
    k: Builder,
    *,
    dtype: str,
    mode: Pooling,
    half_pixel: bool,
    gather: bool,
    scatter: bool,
    lanes: int,
    ways: int,
) -> None:
    """A tile is a row of bins of one box; vectors lie along channels."""
    register, element = register_element(dtype), memory_element(dtype)
    height, width, channels = k.arg("height"), k.arg("width"), k.arg("channels")
    rows, columns, ratio = k.arg("rows"), k.arg("columns"), k.arg("ratio")
    x_step: Int = k.arg("xc") if gather else 1
    y_step: Int = k.arg("yc") if scatter else 1
    type_ = register_type(dtype, lanes)
    scale = k.load(k.pointer("scale"), register)

    def number(value: Value) -> Lanes:
        return Lanes(k, k.ir.sitofp(value, register))

    def samples(side: Lanes) -> Value:
        """How many along one side of a bin."""
        own = k.max(k.ir.fptosi(Lanes(k, k.intrinsic("ceil", side.value)).at_most(1e6).value, I64), 0)
        return k.choose(k.compare(">", ratio, 0), ratio, own)

    with k.loop(k.begin, k.end) as tile:
        roi, row = k.div(tile, rows), k.rem(tile, rows)
        own = k.at(k.pointer("rois"), k.mul(roi, k.arg("ri")), element)
        parts = [Lanes(k, load_element(k, own, dtype, 1, k.mul(k.arg("rj"), i))) for i in range(4)]
        offset = 0.5 if half_pixel else 0.0
        start_x, start_y, end_x, end_y = (p * Lanes(k, scale) - offset for p in parts)
        side_x, side_y = end_x - start_x, end_y - start_y
        if not half_pixel:
            side_x, side_y = side_x.at_least(1.0), side_y.at_least(1.0)
        bin_x, bin_y = side_x / number(columns), side_y / number(rows)
        grid_x, grid_y = samples(bin_x), samples(bin_y)
        taken = k.max(k.mul(grid_x, grid_y), 1)
        image = k.load(k.pointer("images"), I64, k.mul(roi, k.arg("ii")))
        wrong = k.ir.icmp_unsigned(">=", image, k.arg("count"))
        with k.when(wrong):
            k.store(I64(1), k.pointer("error"))
        image = k.choose(wrong, 0, image)
        source = k.at(k.pointer("x"), k.mul(image, k.arg("xn")), element)
        base = k.add(k.mul(roi, k.arg("yr")), k.mul(row, k.arg("yh")))
        target = k.at(k.pointer("out"), base, element)
        with k.loop(0, columns) as column, k.loop(0, channels, ways * lanes) as channel:
            start = float("-inf") if mode == "max" else 0.0
            sums = [k.splat(start, type_) for _ in range(ways)]
            with k.loop(0, grid_y, carry=sums) as iy:
                y = start_y + number(row) * bin_y + (number(iy) + 0.5) * bin_y / number(grid_y)
                low_y, high_y, *by_row = _at_pixel(k, y, height)
                with k.loop(0, grid_x, carry=sums) as ix:
                    x = start_x + number(column) * bin_x + (number(ix) + 0.5) * bin_x / number(grid_x)
                    low_x, high_x, *by_column = _at_pixel(k, x, width)
                    corners = [
                        (
                            k.add(k.mul(i, k.arg("xh")), k.mul(j, k.arg("xw"))),
                            k.broadcast((a * b).value, lanes),
                        )
                        for i, a in zip((low_y, high_y), by_row, strict=True)
                        for j, b in zip((low_x, high_x), by_column, strict=True)
                    ]
                    for u in range(ways):
                        first = k.add(channel, u * lanes)
                        left = k.sub(channels, first)
                        terms: list[Lanes] = []
                        for place, weight in corners:
                            where = k.at(source, k.add(place, k.mul(first, x_step)), element)
                            if gather:
                                value = gather_element(k, where, dtype, lanes, x_step, left)
                            else:
                                value = load_element(k, where, dtype, lanes, 0, k.lanes_below(left, lanes))
                            terms.append(Lanes(k, value) * Lanes(k, weight))
                        total = Lanes(k, sums[u])
                        for term in terms:
                            total = total + term if mode == "avg" else total.at_least(term)
                        sums[u] = total.value
            none = k.compare("==", k.mul(grid_x, grid_y), 0)
            for u in range(ways):
                first = k.add(channel, u * lanes)
                left = k.sub(channels, first)
                result = Lanes(k, sums[u])
                if mode == "avg":
                    result = result / Lanes(k, k.broadcast(number(taken).value, lanes))
                else:
                    result = Lanes(k, k.ir.select(none, k.zero(type_), result.value))
                where = k.at(target, k.add(k.mul(column, k.arg("yw")), k.mul(first, y_step)), element)
                if scatter:
                    scatter_element(k, result.value, where, dtype, y_step, left)
                else:
                    store_element(k, result.value, where, dtype, 0, k.lanes_below(left, lanes))


def roi_align(
    x: View,
    rois: View,
    images: View,
    out: View,
    mode: Pooling,
    ratio: int,
    scale: View,
    error: View,
    machine: Machine,
    *,
    half_pixel: bool,
) -> Call:
    """ONNX RoiAlign; see `evaluate_roi_align`. scale: one number of the dtype that sums have (float64, or
    float32). error: an int64 that becomes 1 where a box names an image that is not there.
    """
    count, channels, height, width = x.shape
    lanes = machine.vector_bytes // max(4, x.dtype.itemsize)
    return Call(
        _roi_align(
            dtype=x.dtype.name,
            mode=mode,
            half_pixel=half_pixel,
            gather=x.strides[1] != 1,
            scatter=out.strides[1] != 1,
            lanes=lanes,
            ways=2 if channels > lanes else 1,
        ),
        [x, *x.strides, out, *out.strides, rois, *rois.strides, images, *images.strides, error, count,
         channels, height, width, *out.shape[2:], ratio, scale],
        tiles=out.shape[0] * out.shape[2] if out.size else 0,
        reads=[x, rois, images, scale],
        writes=[out, error],
        flops=out.size * 8 * max(1, ratio * ratio),
        label="RoiAlign",
    )  # fmt: skip


def evaluate_roi_pool(x: np.ndarray, rois: np.ndarray, size: tuple[int, int], scale: float) -> np.ndarray:
    """The plain definition: the largest of the whole pixels of each of size[0] · size[1] bins of a box, 0 of
    a bin without any. rois [R, 5]: the image, then corners (x, y, x, y), both inside.
    """
    wide = np.float64 if x.dtype == np.float64 else np.float32
    out = np.zeros((len(rois), x.shape[1], *size), x.dtype)
    corners = rois[:, 1:].astype(wide) * wide(scale)
    corners = np.trunc(corners + np.copysign(wide(0.5), corners)).astype(np.int64)
    for r, (box, image) in enumerate(
        zip(corners.tolist(), rois[:, 0].astype(np.int64).tolist(), strict=True)
    ):
        spans: list[list[tuple[int, int]]] = []
        for first, last, n, limit in zip(box[1::-1], box[:1:-1], size, x.shape[2:], strict=True):
            step = wide(max(last - first + 1, 1)) / wide(n)
            low = [int(np.floor(wide(i) * step)) + first for i in range(n)]
            high = [int(np.ceil(wide(i + 1) * step)) + first for i in range(n)]
            ends = np.clip([low, high], 0, limit).T.tolist()
            spans.append([(a, b) for a, b in ends])
        for i, (top, bottom) in enumerate(spans[0]):
            for j, (left, right) in enumerate(spans[1]):
                if bottom > top and right > left:
                    out[r, :, i, j] = x[image, :, top:bottom, left:right].max((1, 2))
    return out


@kernel("x", "xn", "xc", "xh", "xw", "out", "yr", "yc", "yh", "yw", "rois", "ri", "rj", "error", "count",
        "channels", "height", "width", "rows", "columns", "scale")  # fmt: skip
def _roi_pool(k: Builder, *, dtype: str, gather: bool, scatter: bool, lanes: int) -> None:
    """A tile is a row of bins of one box; vectors lie along channels."""
    register, element, type_ = register_element(dtype), memory_element(dtype), register_type(dtype, lanes)
    channels, rows, columns = k.arg("channels"), k.arg("rows"), k.arg("columns")
    x_step: Int = k.arg("xc") if gather else 1
    y_step: Int = k.arg("yc") if scatter else 1
    scale = Lanes(k, k.load(k.pointer("scale"), register))

    def number(value: Value) -> Lanes:
        return Lanes(k, k.ir.sitofp(k.int(value), register))

    def whole(value: Lanes) -> Value:
        name = f"llvm.fptosi.sat.i64.{'f64' if register == F64 else 'f32'}"
        return k.ir.call(k.declare(name, I64, [register]), [value.value])

    def span(i: Value, first: Value, last: Value, n: Value, limit: Value) -> tuple[Value, Value]:
        """The pixels of bin i along one side."""
        step = number(k.max(k.add(k.sub(last, first), 1), 1)) / number(n)
        low = k.add(whole((number(i) * step).intrinsic("floor")), first)
        high = k.add(whole((number(k.add(i, 1)) * step).intrinsic("ceil")), first)
        return k.min(k.max(low, 0), limit), k.min(k.max(high, 0), limit)

    with k.loop(k.begin, k.end) as tile:
        roi, row = k.div(tile, rows), k.rem(tile, rows)
        own = k.at(k.pointer("rois"), k.mul(roi, k.arg("ri")), element)
        parts = [Lanes(k, load_element(k, own, dtype, 1, k.mul(k.arg("rj"), i))) for i in range(5)]
        image = whole(parts[0])
        wrong = k.ir.icmp_unsigned(">=", image, k.arg("count"))
        with k.when(wrong):
            k.store(I64(1), k.pointer("error"))
        image = k.choose(wrong, 0, image)
        halves = [Lanes(k, k.intrinsic("copysign", k.splat(0.5, register), p.value)) for p in parts[1:]]
        left, top, right, bottom = (whole(p * scale + h) for p, h in zip(parts[1:], halves, strict=True))
        y_first, y_last = span(row, top, bottom, rows, k.arg("height"))
        source = k.at(k.pointer("x"), k.mul(image, k.arg("xn")), element)
        base = k.add(k.mul(roi, k.arg("yr")), k.mul(row, k.arg("yh")))
        target = k.at(k.pointer("out"), base, element)
        with k.loop(0, columns) as column, k.loop(0, channels, lanes) as channel:
            x_first, x_last = span(column, left, right, columns, k.arg("width"))
            remaining = k.sub(channels, channel)
            inside = k.lanes_below(remaining, lanes)
            best: list[Value] = [k.splat(float("-inf"), type_)]
            with k.loop(y_first, y_last, carry=best) as y, k.loop(x_first, x_last, carry=best) as x:
                at = k.add(k.mul(y, k.arg("xh")), k.mul(x, k.arg("xw")), k.mul(channel, x_step))
                where = k.at(source, at, element)
                if gather:
                    value = gather_element(k, where, dtype, lanes, x_step, remaining)
                else:
                    value = load_element(k, where, dtype, lanes, 0, inside)
                best[0] = Lanes(k, best[0]).at_least(Lanes(k, value)).value
            none = k.ir.or_(k.compare("<=", y_last, y_first), k.compare("<=", x_last, x_first))
            result = k.ir.select(none, k.zero(type_), best[0])
            where = k.at(target, k.add(k.mul(column, k.arg("yw")), k.mul(channel, y_step)), element)
            if scatter:
                scatter_element(k, result, where, dtype, y_step, remaining)
            else:
                store_element(k, result, where, dtype, 0, inside)


def roi_pool(x: View, rois: View, out: View, scale: View, error: View, machine: Machine) -> Call:
    """ONNX MaxRoiPool; see `evaluate_roi_pool`. scale and error as for `roi_align`."""
    count, channels, height, width = x.shape
    return Call(
        _roi_pool(
            dtype=x.dtype.name,
            gather=x.strides[1] != 1,
            scatter=out.strides[1] != 1,
            lanes=machine.vector_bytes // max(4, x.dtype.itemsize),
        ),
        [x, *x.strides, out, *out.strides, rois, *rois.strides, error, count, channels, height, width,
         *out.shape[2:], scale],
        tiles=out.shape[0] * out.shape[2] if out.size else 0,
        reads=[x, rois, scale],
        writes=[out, error],
        flops=out.size * 16,
        label="MaxRoiPool",
    )  # fmt: skip
