"""Images read between their pixels, at places the data gives: GridSample, the columns of DeformConv."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np

from ingot.codegen.builder import F32, I64, Builder, Int, Value, element_of, integers, lanes_of, vector
from ingot.codegen.elements import (
    gather_element,
    gather_element_at,
    load_element,
    memory_element,
    register_element,
    register_type,
    store_element,
)
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import Lanes
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View
from ingot.kernels.iteration import block_of

Mode = Literal["nearest", "linear", "cubic"]
Padding = Literal["zeros", "border", "reflection"]
_FAR = 2.0**30  # a coordinate beyond any size that still fits an index

# ---- GridSample --------------------------------------------------------------------------------------------


def evaluate_grid_sample(
    x: np.ndarray, grid: np.ndarray, mode: Mode, padding: Padding, *, corners: bool
) -> np.ndarray:
    """The plain definition: a sum over the neighbours of each place, in float64; coordinates in the grid's
    own precision (of half precision in float32). x [N, C, sizes...], grid [N, places..., coordinates in
    -1..1, the last dimension's first].
    """
    images, channels, *sizes = x.shape
    places = grid.shape[1:-1]
    if 0 in x.shape or 0 in grid.shape:
        return np.zeros((images, channels, *places))
    points = grid.reshape(images, -1, len(sizes))[..., ::-1]
    points = points if grid.dtype.itemsize >= 4 else points.astype(np.float32)
    data = x.astype(np.float64).reshape(images, channels, -1)
    result = np.zeros((images, channels, points.shape[1]))
    with np.errstate(all="ignore"):
        axes = [_neighbours(points[..., d], size, mode, padding, corners) for d, size in enumerate(sizes)]
        for chosen in itertools.product(*axes):
            at, weight = np.zeros(points.shape[:2], np.int64), np.ones(points.shape[:2])
            for (index, share), size in zip(chosen, sizes, strict=True):
                at, weight = at * size + index, weight * share
            taken = np.take_along_axis(data, at[:, None], axis=2)
            weight = weight[:, None]
            result += np.where(weight == 0, 0, taken * weight)  # no NaN from what is only padding
    return result.reshape(images, channels, *places)


def _neighbours(
    place: np.ndarray, size: int, mode: Mode, padding: Padding, corners: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices along one axis and their weights; a neighbour that is padding has weight 0."""
    one, two = place.dtype.type(1), place.dtype.type(2)
    low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
    if corners:
        exact = (place + one) / two * place.dtype.type(size - 1)
    else:
        exact = ((place + one) * place.dtype.type(size) - one) / two
    at = exact.astype(np.float64)
    if mode == "nearest":
        at = np.rint(at)
    if padding == "border" and mode != "cubic":  # each of whose neighbours is brought back by itself
        at = np.where((at < low) | (at > high), np.clip(at, 0, size - 1), at)
    elif padding == "reflection":
        at = _reflected(at, low, high)
    at = np.clip(np.where(np.isnan(at), low if padding == "reflection" else -_FAR, at), -_FAR, _FAR)
    if mode == "nearest":
        return [_inside(at, np.ones(at.shape), size, padding, low, high)]
    start = np.floor(at)
    t = at - start
    # Keys' cubic with a = -0.75, as in PyTorch
    weights = [1 - t, t] if mode == "linear" else [_far(1 + t), _near(t), _near(1 - t), _far(2 - t)]
    first = 0 if mode == "linear" else -1
    return [_inside(start + first + i, w, size, padding, low, high) for i, w in enumerate(weights)]


def _near(t: np.ndarray) -> np.ndarray:
    return (1.25 * t - 2.25) * t * t + 1


def _far(t: np.ndarray) -> np.ndarray:
    return ((-0.75 * t + 3.75) * t - 6) * t + 3


def _inside(
    index: np.ndarray, weight: np.ndarray, size: int, padding: Padding, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    if padding == "zeros":
        weight = np.where((index >= 0) & (index < size), weight, 0)
    elif padding == "reflection":
        index = _reflected(index, low, high)
    return np.clip(index, 0, size - 1).astype(np.int64), weight


def _reflected(at: np.ndarray, low: float, high: float) -> np.ndarray:
    """Mirrored at both ends until it lies between them."""
    if high == low:
        return np.full_like(at, low)
    span = high - low
    inside = np.mod(at - low, 2 * span)
    return np.where((at >= low) & (at <= high), at, low + np.minimum(inside, 2 * span - inside))


class _Axis:
    """What `_neighbours` computes, on vectors: of one axis of a size that is an argument."""

    def __init__(self, k: Builder, size: Value, type_: object, mode: Mode, padding: Padding, corners: bool):
        self._k, self._mode, self._padding, self._corners = k, mode, padding, corners
        number = k.ir.sitofp(size, element_of(type_))
        self._size = Lanes(k, k.broadcast(number, lanes_of(type_)))
        half = 0.0 if corners else 0.5
        self._low, self._high = self._size.constant(-half), self._size - (1.0 - half)

    def _mirrored(self, at: Lanes) -> Lanes:
        span = self._high - self._low
        double, moved = span * 2.0, at - self._low
        turns = (moved / double).intrinsic("floor")
        rest = moved - turns * double
        back = double - rest
        inside = self._low + back.where(back < rest, rest)
        k = self._k
        within = k.ir.and_(at >= self._low, at <= self._high)
        return self._low.where(span <= 0.0, at.where(within, inside))

    def _clipped(self, at: Lanes) -> Lanes:
        return at.at_most(self._size - 1.0).at_least(0.0)

    def neighbours(self, place: Lanes) -> list[tuple[Value, Lanes]]:
        """Indices (int64) and weights."""
        k, size = self._k, self._size
        at = (place + 1.0) / 2.0 * (size - 1.0) if self._corners else ((place + 1.0) * size - 1.0) / 2.0
        if self._mode == "nearest":
            at = at.intrinsic("rint")
        if self._padding == "border" and self._mode != "cubic":
            beyond = k.ir.or_(at < self._low, at > self._high)
            at = self._clipped(at).where(beyond, at)
        elif self._padding == "reflection":
            at = self._mirrored(at)
        nowhere = self._low if self._padding == "reflection" else at.constant(-_FAR)
        at = nowhere.where(at.is_nan(), at).at_most(_FAR).at_least(-_FAR)
        if self._mode == "nearest":
            return [self._within(at, at.constant(1.0))]
        start = at.intrinsic("floor")
        t = at - start
        if self._mode == "linear":
            return [self._within(start + i, w) for i, w in enumerate((1.0 - t, t))]

        def near(u: Lanes) -> Lanes:
            return (u * 1.25 - 2.25) * u * u + 1.0

        def far(u: Lanes) -> Lanes:
            return ((u * -0.75 + 3.75) * u - 6.0) * u + 3.0

        weights = (far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t))
        return [self._within(start + (i - 1), w) for i, w in enumerate(weights)]

    def _within(self, index: Lanes, weight: Lanes) -> tuple[Value, Lanes]:
        k = self._k
        if self._padding == "zeros":
            weight = weight.where(k.ir.and_(index >= 0.0, index < self._size), 0.0)
        elif self._padding == "reflection":
            index = self._mirrored(index)
        number = self._clipped(index).value
        return k.ir.fptosi(number, vector(I64, lanes_of(number.type))), weight


class _Pair:
    """Two neighbours along the last axis, side by side in memory: one gather of 64 bits reads both, and
    gathers cost what they have elements.
    """

    def __init__(self, k: Builder, size: Value, taps: list[tuple[Value, Lanes]]) -> None:
        """size: at least 2. taps: where the weights are, at most one apart where neither is 0."""
        self._k, ir = k, k.ir
        (low, _), (high, _) = taps
        lanes = lanes_of(low.type)
        # The first is always one of the two: where numbers are too large for neighbours, it has all weight.
        before = ir.sub(low, k.splat(1, low.type))
        base = k.min(k.min(low, k.max(high, before)), k.broadcast(k.sub(size, 2), lanes))
        self._base = base
        self._weights: list[Lanes] = []
        for at in (base, ir.add(base, k.splat(1, base.type))):
            one, two = (w.where(ir.icmp_signed("==", index, at), 0.0) for index, w in taps)
            self._weights.append(one + two)
        self._counts = [weight.compare("!=", 0.0) for weight in self._weights]
        self._either = ir.or_(*self._counts)

    def total(self, source: Value, offset: Value, mask: Value) -> Lanes:
        """The sum of both, read at `offset` in the axes before."""
        k, lanes = self._k, lanes_of(offset.type)
        mask = k.ir.and_(mask, self._either)
        both = k.gather_at(source, k.ir.add(offset, self._base), vector(I64, lanes), mask, F32)
        flat = k.ir.bitcast(both, vector(F32, 2 * lanes))
        sums: list[Lanes] = []
        for i, (weight, counts) in enumerate(zip(self._weights, self._counts, strict=True)):
            picked = integers(32, tuple(range(i, 2 * lanes, 2)))
            value = Lanes(k, k.ir.shuffle_vector(flat, flat, picked))
            sums.append((value * weight).where(counts, 0.0))
        return sums[0] + sums[1]


@kernel("x", "xn", "xc", "grid", "gn", "out", "yn", "yc", "places", "blocks", "per_tile", "channels")
def _grid_sample(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    dtype: str,
    grid_dtype: str,
    dims: int,
    mode: Mode,
    padding: Padding,
    corners: bool,
    paired: bool,
    lanes: int,
) -> None:
    """A tile is a block of places of an image; vectors lie along places, the channels are a loop.

    paired: the last axis is read as `_Pair`.
    """
    element, grid_element = memory_element(dtype), memory_element(grid_dtype)
    places, channels = k.arg("places"), k.arg("channels")
    strides = [k.arg(f"s{d}") for d in range(dims)]
    own = register_type(grid_dtype, lanes)
    axes = [_Axis(k, k.arg(f"n{d}"), own, mode, padding, corners) for d in range(dims)]
    compute = "float64" if dtype == "float64" else "float32"

    def in_sum(weight: Lanes) -> Lanes:
        """A weight in the precision of sums."""
        if register_element(compute) == element_of(weight.type):
            return weight
        return weight.double() if compute == "float64" else weight.single()

    def total(
        source: Value,
        taps: list[list[tuple[Value, Lanes]]],
        pair: _Pair | None,
        offset: Value,
        mask: Value,
    ) -> Lanes:
        """The sum over the last axes' neighbours, for places at `offset` in the axes before."""
        if not taps and pair is not None:
            return pair.total(source, offset, mask)
        if not taps:
            return Lanes(k, gather_element_at(k, source, dtype, lanes, offset, mask))
        sums: Lanes | None = None
        for moved, weight in taps[0]:
            matters = k.ir.and_(mask, weight.compare("!=", 0.0))
            inner = total(source, taps[1:], pair, k.ir.add(offset, moved), matters) * weight
            inner = inner.where(matters, 0.0)
            sums = inner if sums is None else sums + inner
        assert sums is not None
        return sums

    with k.loop(k.begin, k.end) as tile:
        image, block = k.div(tile, k.arg("blocks")), k.rem(tile, k.arg("blocks"))
        first = k.mul(block, k.arg("per_tile"))
        last = k.min(places, k.add(first, k.arg("per_tile")))
        data = k.at(k.pointer("x"), k.mul(image, k.arg("xn")), element)
        points = k.at(k.pointer("grid"), k.mul(image, k.arg("gn")), grid_element)
        target = k.at(k.pointer("out"), k.mul(image, k.arg("yn")), element)
        with k.loop(first, last, lanes) as place:
            left = k.sub(last, place)
            mask = k.lanes_below(left, lanes)
            here = k.at(points, k.mul(place, dims), grid_element)
            taps: list[list[tuple[Value, Lanes]]] = []
            pair: _Pair | None = None
            for d, axis in enumerate(axes):
                where = k.at(here, dims - 1 - d, grid_element)
                at = Lanes(k, gather_element(k, where, grid_dtype, lanes, dims, left))
                step = k.broadcast(strides[d], lanes)
                found = [(i, in_sum(w)) for i, w in axis.neighbours(at)]
                if paired and d == dims - 1:
                    pair = _Pair(k, k.arg(f"n{d}"), found)
                else:
                    taps.append([(k.ir.mul(i, step), w) for i, w in found])
            with k.loop(0, channels) as channel:
                source = k.at(data, k.mul(channel, k.arg("xc")), element)
                value = total(source, taps, pair, k.zero(vector(I64, lanes)), mask).value
                where = k.at(target, k.mul(channel, k.arg("yc")), element)
                store_element(k, value, where, dtype, place, mask)


def grid_sample(
    x: View, grid: View, out: View, mode: Mode, padding: Padding, machine: Machine, *, corners: bool
) -> Call:
    """ONNX GridSample; see `evaluate_grid_sample`. grid is contiguous, out [N, C, places] has its places side
    by side.
    """
    images, channels, *sizes = x.shape
    dims, places = len(sizes), math.prod(grid.shape[1:-1])
    lanes = machine.vector_bytes // max(4, x.dtype.itemsize, grid.dtype.itemsize)
    neighbours = {"nearest": 1, "linear": 2, "cubic": 4}[mode] ** dims
    per_tile = block_of(places, max(lanes, 4096 // max(1, channels * neighbours)), lanes)
    blocks = -(-places // per_tile)
    names = (*(f"s{d}" for d in range(dims)), *(f"n{d}" for d in range(dims)))
    return Call(
        _grid_sample(
            operands=names,
            dtype=x.dtype.name,
            grid_dtype=grid.dtype.name,
            dims=dims,
            mode=mode,
            padding=padding,
            corners=corners,
            paired=mode == "linear" and x.dtype == np.float32 and x.strides[-1] == 1 and sizes[-1] > 1,
            lanes=lanes,
        ),
        [x, *x.strides[:2], grid, places * dims, out, *out.strides[:2], places, blocks, per_tile, channels,
         *x.strides[2:], *sizes],
        tiles=images * blocks if out.size else 0,
        reads=[x, grid],
        writes=[out],
        flops=out.size * neighbours * 8,
        label="GridSample",
    )  # fmt: skip


# ---- DeformConv --------------------------------------------------------------------------------------------


def evaluate_deformed_columns(
    x: np.ndarray,
    offsets: np.ndarray,
    mask: np.ndarray | None,
    groups: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    before: tuple[int, int],
) -> np.ndarray:
    """The plain definition: what each filter's tap reads, between pixels, 0 beyond the image:
    [N, G, OH, OW, taps, C / G], in float64.

    offsets [N, D, kh, kw, 2 (y, x), OH, OW] in pixels, mask [N, D, kh, kw, OH, OW]; groups: G of the filters
    and D of the offsets.
    """
    images, channels, height, width = x.shape
    _, many, kh, kw, _, oh, ow = offsets.shape
    out = np.zeros((images, channels, kh, kw, oh, ow))
    base = [
        (np.arange(n) * s - b)[:, None] + (np.arange(m) * d)[None]
        for n, m, s, d, b in zip((oh, ow), (kh, kw), strides, dilations, before, strict=True)
    ]
    each = channels // many
    for image, group in np.ndindex(images, many):
        y = base[0].T[:, None, :, None] + offsets[image, group, :, :, 0].astype(np.float64)
        z = base[1].T[None, :, None, :] + offsets[image, group, :, :, 1].astype(np.float64)
        part = slice(group * each, (group + 1) * each)
        data = x[image, part].astype(np.float64)
        low = [np.floor(np.clip(np.nan_to_num(v, nan=-_FAR), -_FAR, _FAR)).astype(np.int64) for v in (y, z)]
        for i, j in itertools.product((0, 1), repeat=2):
            row, column = low[0] + i, low[1] + j
            weight = (1 - np.abs(y - row)) * (1 - np.abs(z - column))
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            taken = data[:, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
            out[image, part] += np.where(inside & (weight != 0), taken * weight, 0)
        if mask is not None:
            out[image, part] *= mask[image, group].astype(np.float64)
    out = out.reshape(images, groups[0], channels // groups[0], kh * kw, oh, ow)
    return out.transpose(0, 1, 4, 5, 3, 2)


@kernel("x", "xn", "xc", "xh", "xw", "height", "width", "offsets", "on", "oc", "oh", "ow", "mask", "mn", "mc",
        "mh", "mw", "out", "rows", "columns", "taps_y", "taps_x", "stride_y", "stride_x", "dilation_y",
        "dilation_x", "before_y", "before_x", "groups", "segments", "run", "per_offset")  # fmt: skip
def _deformed_columns(k: Builder, *, dtype: str, masked: bool, gather: bool, lanes: int) -> None:
    """A tile is a row of places of an image. Channels are segments of one group of filters and of offsets;
    vectors lie along them.
    """
    element, type_ = memory_element(dtype), register_type(dtype, lanes)
    register = register_element(dtype)
    height, width, rows, columns = (k.arg(n) for n in ("height", "width", "rows", "columns"))
    taps_y, taps_x, segments, run = (k.arg(n) for n in ("taps_y", "taps_x", "segments", "run"))
    taps, groups = k.mul(taps_y, taps_x), k.arg("groups")
    own = k.div(k.mul(segments, run), groups)  # channels of a group of filters
    x_step: Int = k.arg("xc") if gather else 1

    def along(base: Int, moved: Value, size: Value) -> list[tuple[Value, Lanes]]:
        """Pixels along an axis and their weights; 0 beyond the image."""
        at = Lanes(k, k.ir.sitofp(k.int(base), register)) + Lanes(k, moved)
        at = at.constant(-_FAR).where(at.is_nan(), at).at_most(_FAR).at_least(-_FAR)
        start = at.intrinsic("floor")
        part, low = at - start, k.ir.fptosi(start.value, I64)
        found: list[tuple[Value, Lanes]] = []
        for i, weight in enumerate((1.0 - part, part)):
            index = k.add(low, i)
            inside = k.ir.icmp_unsigned("<", index, size)
            found.append((k.max(k.min(index, k.sub(size, 1)), 0), weight.where(inside, 0.0)))
        return found

    with k.loop(k.begin, k.end) as tile:
        image, row = k.div(tile, rows), k.rem(tile, rows)
        data = k.at(k.pointer("x"), k.mul(image, k.arg("xn")), element)
        moves = k.add(k.mul(image, k.arg("on")), k.mul(row, k.arg("oh")))
        moves = k.at(k.pointer("offsets"), moves, element)
        shares = k.add(k.mul(image, k.arg("mn")), k.mul(row, k.arg("mh")))
        shares = k.at(k.pointer("mask"), shares, element)
        with k.loop(0, columns) as column, k.loop(0, taps) as tap, k.loop(0, segments) as segment:
            tap_y, tap_x = k.div(tap, taps_x), k.rem(tap, taps_x)
            channel = k.mul(segment, run)
            group, which = k.div(channel, own), k.div(channel, k.arg("per_offset"))
            slot = k.add(k.mul(which, taps), tap)
            place = k.mul(column, k.arg("ow"))
            at = [k.add(k.mul(k.add(k.mul(slot, 2), i), k.arg("oc")), place) for i in (0, 1)]
            dy, dx = (load_element(k, moves, dtype, 1, a) for a in at)
            base_y = k.add(k.mul(row, k.arg("stride_y")), k.mul(tap_y, k.arg("dilation_y")))
            base_x = k.add(k.mul(column, k.arg("stride_x")), k.mul(tap_x, k.arg("dilation_x")))
            base_y, base_x = k.sub(base_y, k.arg("before_y")), k.sub(base_x, k.arg("before_x"))
            share = Lanes(k, k.splat(1.0, register))
            if masked:
                at_mask = k.add(k.mul(slot, k.arg("mc")), k.mul(column, k.arg("mw")))
                share = Lanes(k, load_element(k, shares, dtype, 1, at_mask))
            corners = [
                (k.add(k.mul(i, k.arg("xh")), k.mul(j, k.arg("xw"))), a * b)
                for i, a in along(base_y, dy, height)
                for j, b in along(base_x, dx, width)
            ]
            wide = [(p, k.broadcast(w.value, lanes)) for p, w in corners]
            scale = Lanes(k, k.broadcast(share.value, lanes))
            # [N, G, OH, OW, taps, own]
            line = k.add(k.mul(k.add(k.mul(image, groups), group), rows), row)
            line = k.add(k.mul(k.add(k.mul(line, columns), column), taps), tap)
            start = k.add(k.mul(line, own), k.sub(channel, k.mul(group, own)))
            target = k.at(k.pointer("out"), start, element)
            with k.loop(0, run, lanes) as c:
                left = k.sub(run, c)
                inside = k.lanes_below(left, lanes)
                total = Lanes(k, k.zero(type_))
                for where, weight in wide:
                    source = k.at(data, k.add(where, k.mul(k.add(channel, c), x_step)), element)
                    counts = k.ir.and_(inside, Lanes(k, weight).compare("!=", 0.0))
                    if gather:
                        value = gather_element(k, source, dtype, lanes, x_step, left)
                    else:
                        value = load_element(k, source, dtype, lanes, 0, counts)
                    total = total + (Lanes(k, value) * Lanes(k, weight)).where(counts, 0.0)
                store_element(k, (total * scale).value, target, dtype, c, inside)


def deformed_columns(
    x: View,
    offsets: View,
    mask: View | None,
    out: View,
    groups: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    before: tuple[int, int],
    machine: Machine,
) -> Call:
    """The columns of DeformConv; see `evaluate_deformed_columns`. offsets and mask as the node has them:
    [N, D · taps · 2, OH, OW] and [N, D · taps, OH, OW]; out is contiguous.
    """
    _, channels, height, width = x.shape
    rows, columns = offsets.shape[2:]
    run = math.gcd(channels // groups[0], channels // groups[1])
    shares = offsets if mask is None else mask
    lanes = machine.vector_bytes // max(4, x.dtype.itemsize)
    return Call(
        _deformed_columns(
            dtype=x.dtype.name, masked=mask is not None, gather=x.strides[1] != 1, lanes=lanes
        ),
        [x, *x.strides, height, width, offsets, *offsets.strides, shares, *shares.strides, out, rows, columns,
         *kernel, *strides, *dilations, *before, groups[0], channels // max(1, run), run,
         channels // groups[1]],
        tiles=x.shape[0] * rows if out.size else 0,
        reads=[x, offsets, *([] if mask is None else [mask])],
        writes=[out],
        flops=out.size * 8,
        label="deformed columns",
    )  # fmt: skip
