"""Convolution: the register tile over output pixels, on an image read in place or on packed bands of its
rows.

A tile of work is (image, group, band of output rows, panel of output channels), in this order: a thread
packs a band when it comes to it and walks the panels with it. How the input is read is decided in
arrange.py. 1×1 convolutions of stride 1 are matrix products.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ingot.codegen.builder import F32, I8, I64, PTR, Builder, Int, Value, vector
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine, host
from ingot.errors import ShapeError, UnsupportedOperatorError
from ingot.kernels.call import Call, Form, View, Weights, constant
from ingot.kernels.contract import (
    FRAME_BYTES,
    PACKED_AT,
    SHARING,
    TILE_SLOTS,
    UNROLL,
    Ahead,
    Epilogue,
    Frame,
    Numbers,
    Tiling,
    name_of,
    operand_names,
    operand_slots,
    reach,
    register_tile,
    register_tiles,
    split,
)
from ingot.kernels.expression import Expression
from ingot.kernels.gemm import calls_of_product, packer
from ingot.kernels.made_again import remembered
from ingot.kernels.pack import (
    DTYPES,
    PACK_SLOTS,
    PackedWeights,
    check_packable,
    pack_mode,
    pack_ordered,
)
from ingot.kernels.reading import Order, choose, geometry, ranges, table, tile_shape, weight_rows
from ingot.kernels.units import VALUES, check_bytes, pack_integers, repeated, steps_of

_ONES = (1, 1)
_TILES = 16  # of work, at least, where the problem has them
TILE_ROWS = 4  # of the output in a register tile, at most: each needs an address register
_ARRAYS = ("", "_image", "_group", "_row", "_column", "_channel")  # an address; bytes along each dimension
_HEIGHTS, _WIDTHS = ("tall", "low"), ("wide", "narrow")

CONV_SLOTS = (
    "x", "x_image", "x_group", "x_plane", "x_row", "x_pixel", "x_inner", "height", "top",
    "b", "b_group", "b_panel", "out", *(f"out{part}" for part in _ARRAYS[1:]),
    "groups", "bands", "panels", "panel_width", "n", "table", "steps",
    "row_groups", "tall", "row_tile", "wide", "narrow", "wide_columns",
    "near", "next_step", "next_tile", "step", "rows_step", "extra_rows", "a_row", "a_column",
    "pack", "pitch", "inner", "blocks", "planes", "plane", "line", "columns", "phases", "ranges", "zero",
    *(f"{h}_{w}{part}" for part in ("", "_last") for h in _HEIGHTS for w in _WIDTHS),
)  # fmt: skip

#: Where the addresses of x, of the weights, of out and of two tables go, and of what pads integers.
_PLACES = tuple(CONV_SLOTS.index(slot) for slot in ("x", "b", "out", "table", "ranges"))
_ZERO = CONV_SLOTS.index("zero")


def supports(dtype: str, spatial: int) -> bool:
    """Whether `conv2d` computes a convolution of this dtype with this many spatial dimensions."""
    return dtype in DTYPES and spatial in (1, 2)


@kernel(*CONV_SLOTS)
def conv(
    k: Builder, *, source: str, operands: tuple[str, ...], fill: tuple[str, Numbers] | None = None
) -> None:
    """Tiles begin..end of (image, group, band of output rows, panel of output channels).

    source: what tiles read, "place" (the image), "blocks" or "lines" (of a packed band). fill: the dtype of
    the byte at "zero" that padding is made of, and what its units are; None: zeros.
    """
    names = ["out", *(f"x{i}" for i in range(len(operands) // len(_ARRAYS)))]
    frame = Frame(k, k.scratch, (*TILE_SLOTS, *operand_names(len(names) - 1)))
    packing = Frame(k, k.at(k.scratch, FRAME_BYTES, I8), PACK_SLOTS)
    sums, packed = k.at(k.scratch, 2 * FRAME_BYTES, I8), k.at(k.scratch, PACKED_AT, I8)
    arg = {name: k.arg(name) for name in (*CONV_SLOTS, *operands)}
    panels, bands, groups, row_tile, tall = (
        arg[n] for n in ("panels", "bands", "groups", "row_tile", "tall")
    )

    for slot in ("table", "steps", "a_row", "next_step", "next_tile"):
        frame.set(slot, arg[slot])
    for name in names:
        for part in ("column", "row", "channel"):
            frame.set(f"{name}_{part}", arg[f"{name}_{part}"])
    fixed: dict[str, Int] = {
        "source_row": arg["x_pixel"], "source_inner": arg["x_inner"], "source_outer": 0, "source_batch": 0,
        "pitch": arg["pitch"], "target_batch": 0, "fill": 0, "rows": 1,
        "inner": arg["inner"], "blocks": arg["blocks"], "batches": 1, "order": 0,
    }  # fmt: skip
    for slot, value in fixed.items():
        packing.set(slot, value)

    held = [k.held()]  # the band that `packed` holds
    with k.loop(k.begin, k.end, carry=held) as work:
        panel, place = k.rem(work, panels), k.div(work, panels)
        band, rest = k.rem(place, bands), k.div(place, bands)
        group, image = k.rem(rest, groups), k.div(rest, groups)
        first, last = (k.div(k.mul(k.add(band, i), arg["row_groups"]), bands) for i in (0, 1))
        top_row, bottom_row = (k.add(k.mul(i, row_tile), k.min(i, tall)) for i in (first, last))

        image_start = k.add(arg["x"], k.mul(image, arg["x_image"]), k.mul(group, arg["x_group"]))
        if source != "place":
            with k.when(k.compare("!=", place, held[0])):
                top = k.sub(k.mul(top_row, arg["step"]), arg["top"])
                turns = k.mul(k.sub(k.sub(bottom_row, top_row), 1), k.div(arg["step"], arg["rows_step"]))
                rows = k.add(turns, arg["extra_rows"], 1)
                if source == "blocks":
                    zero = _padding(k, arg["zero"], fill)
                    _pack_blocks(k, arg, packing, image_start, packed, top, rows, zero)
                else:
                    _pack_lines(k, arg, packing, image_start, packed, top, rows)
            held[0] = place
            band_start, band_row = packed, top_row
        else:
            band_start, band_row = k.ir.inttoptr(image_start, PTR), 0

        channel = k.mul(panel, arg["panel_width"])
        first_panel = k.add(arg["b"], k.mul(group, arg["b_group"]))
        weights = k.add(first_panel, k.mul(panel, arg["b_panel"]))
        frame.set("b", weights)
        # Behind the last panel of a group lies the first one of the next.
        again = k.ir.and_(k.compare("==", panel, k.sub(panels, 1)), k.compare("<", band, k.sub(bands, 1)))
        far = k.choose(again, first_panel, k.add(weights, arg["b_panel"]))
        following = k.choose(k.compare(">", arg["near"], 0), k.add(weights, arg["near"]), far)
        columns = k.add(arg["wide"], arg["narrow"])
        frame.set("valid", k.min(k.sub(arg["n"], channel), arg["panel_width"]))
        is_last = k.compare("==", panel, k.sub(panels, 1))
        code = {
            (h, w): k.choose(is_last, arg[f"{h}_{w}_last"], arg[f"{h}_{w}"])
            for h in _HEIGHTS
            for w in _WIDTHS
        }
        corners: dict[str, Int] = {}
        for name in names:
            within = k.add(k.mul(group, arg[f"{name}_group"]), k.mul(channel, arg[f"{name}_channel"]))
            corners[name] = k.add(arg[name], k.mul(image, arg[f"{name}_image"]), within)
        with k.loop(first, last) as row_group:
            row = k.add(k.mul(row_group, row_tile), k.min(row_group, tall))
            is_tall = k.compare("<", row_group, tall)
            line = k.at(band_start, k.mul(k.sub(row, band_row), arg["a_row"]), F32)
            for w, before in (("wide", 0), ("narrow", arg["wide_columns"])):
                with k.when(k.compare(">", arg[w], 0)):
                    frame.set("a", k.at(line, k.mul(before, arg["a_column"]), F32))
                    frame.set("count", arg[w])
                    done = k.mul(k.sub(row_group, first), columns)
                    done = k.add(done, 0 if w == "wide" else arg["wide"])
                    frame.set("next", k.add(following, k.mul(done, arg["next_tile"])))
                    for name in names:
                        offset = k.add(k.mul(row, arg[f"{name}_row"]), k.mul(before, arg[f"{name}_column"]))
                        frame.set(name, k.add(corners[name], offset))
                    k.call(k.choose(is_tall, code["tall", w], code["low", w]), frame.pointer, 0, 0, sums)
    k.hold(held[0])


def _padding(k: Builder, zero: Value, fill: tuple[str, Numbers] | None) -> Value:
    """A vector of what lies outside of the image."""
    lanes = k.machine.lanes
    if fill is None:
        return k.zero(vector(F32, lanes))
    return k.broadcast(repeated(k, k.ir.inttoptr(zero, PTR), *fill), lanes)


def _pack_blocks(
    k: Builder,
    arg: dict[str, Value],
    packing: Frame,
    source: Value,
    packed: Value,
    top: Int,
    rows: Int,
    zero: Value,
) -> None:
    """`rows` rows from input row `top` on, as blocks of channels with their columns sorted by phase; `zero`
    stands outside of the image.
    """
    lanes, columns = k.machine.lanes, arg["columns"]
    with k.loop(0, rows) as r, k.loop(0, arg["phases"]) as phase:
        y = k.add(top, k.mul(r, arg["rows_step"]))
        target = k.at(packed, k.add(k.mul(r, arg["line"]), k.mul(k.mul(phase, columns), lanes)), F32)
        limits = k.at(k.ir.inttoptr(arg["ranges"], PTR), k.mul(phase, 3), I64)
        inside = k.ir.icmp_unsigned("<", y, arg["height"])
        low, high = (k.choose(inside, k.load(limits, I64, i), columns) for i in (0, 1))
        with k.when(k.compare("<", low, high)):
            packing.set("source", k.add(source, k.mul(y, arg["x_row"]), k.load(limits, I64, 2)))
            packing.set("target", k.at(target, k.mul(low, lanes), F32))
            packing.set("rows", k.sub(high, low))
            k.call(arg["pack"], packing.pointer, 0, arg["blocks"], k.scratch)
        with k.loop(0, arg["blocks"]) as block:
            goal = k.at(target, k.mul(block, arg["plane"]), F32)
            for begin, end in ((0, low), (high, columns)):
                with k.loop(begin, end) as column:
                    k.store(zero, goal, k.mul(column, lanes))


def _pack_lines(
    k: Builder, arg: dict[str, Value], packing: Frame, source: Value, packed: Value, top: Int, rows: Int
) -> None:
    """`rows` rows of each plane from input row `top` on, as they lie, between zeros.

    A row's copy may run past its end by less than a vector of zeros; the row after it is written later.
    """
    lanes = k.machine.lanes
    zero = k.zero(vector(F32, lanes))
    limits = k.ir.inttoptr(arg["ranges"], PTR)
    left, offset = k.load(limits, I64), k.load(limits, I64, 2)
    with k.loop(0, arg["planes"]) as plane, k.loop(0, rows) as r:
        y = k.add(top, k.mul(r, arg["rows_step"]))
        target = k.at(packed, k.add(k.mul(plane, arg["plane"]), k.mul(r, arg["line"])), F32)
        inner = k.choose(k.ir.icmp_unsigned("<", y, arg["height"]), arg["inner"], 0)
        right = k.mul(k.div(k.add(left, inner), lanes), lanes)
        for first, last in ((0, left), (right, arg["line"])):
            with k.loop(first, last, lanes) as i:
                k.store(zero, target, i)
        with k.when(k.compare(">", inner, 0)):
            start = k.add(source, k.mul(plane, arg["x_plane"]), k.mul(y, arg["x_row"]))
            packing.set("source", k.add(start, offset))
            packing.set("target", k.at(target, left, F32))
            k.call(arg["pack"], packing.pointer, 0, arg["blocks"], k.scratch)


class PackedConvWeights:
    """Filters [O, C / groups, kh, kw] (or [O, C / groups, k]), packed when a convolution says how it will
    read them.

    Which order that is depends on how the input lies; the same filters used on two layouts are packed twice.
    """

    def __init__(self, weights: Weights, groups: int, machine: Machine) -> None:
        check_packable("convolution weights", weights.dtype)
        self.outputs, self.inputs = weights.shape[:2]  # inputs of one group
        *rows, columns = weights.shape[2:]
        self.kernel: tuple[int, int] = (rows[0] if rows else 1, columns)
        self.groups, self._weights, self._machine = groups, weights, machine
        self._packed: dict[Order, PackedWeights] = {}
        self._matrices: PackedWeights | None = None

    def panels(self, order: Order) -> PackedWeights:
        """The panels of all groups, with the contraction in this order."""
        taps = self.kernel[0] * self.kernel[1]
        if taps == 1:
            order = "blocks"  # they are all the same then, but for this one's rows of zeros
        if order not in self._packed:
            rows, count = weight_rows(order, self.inputs, taps, self._machine.lanes)
            filters = np.ascontiguousarray(self._weights.read())
            flat = filters.reshape(self.groups, self.outputs // self.groups, -1)
            self._packed[order] = pack_ordered(flat, rows, count, self._machine)
        return self._packed[order]

    def matrices(self) -> PackedWeights:
        """The panels of a 1×1 filter, as matrices for products over [N, groups, …]."""
        if self._matrices is None:
            self._matrices = replace(self.panels("blocks"), batch=(self.groups, 1) if self.groups > 1 else ())
        return self._matrices


class IntegerConvWeights:
    """Filters [O, C / groups, kh, kw] (or [O, C / groups, k]) of int8 or uint8 with one zero point, or one
    for each of O, as units.
    """

    def __init__(
        self, weights: Weights, zero: np.ndarray | None, groups: int, numbers: Numbers, machine: Machine
    ) -> None:
        check_bytes("convolution weights", weights.dtype)
        self.outputs, self.inputs = weights.shape[:2]  # inputs of one group
        *rows, columns = weights.shape[2:]
        self.kernel: tuple[int, int] = (rows[0] if rows else 1, columns)
        self.numbers: Numbers = numbers
        self.groups, values = groups, VALUES[numbers]
        self.units = -(-self.inputs // values)
        self.step = steps_of(self.units, numbers, machine)
        taps, each = self.kernel[0] * self.kernel[1], self.outputs // groups
        order, count = weight_rows("blocks", self.units, taps, machine.lanes, self.step)
        filters = weights.read().reshape(groups, each, self.inputs, taps)
        neutral = np.zeros((self.outputs, 1), np.int32) if zero is None else zero.reshape(-1, 1)
        neutral = np.broadcast_to(neutral, (self.outputs, 1)).reshape(groups, 1, each).astype(filters.dtype)
        # Places behind the last channel hold the zero point, so that nothing of them is left.
        spread = np.empty((groups, count * values, each), filters.dtype)
        spread[...] = neutral if numbers == "words" else 128 if filters.dtype == np.uint8 else 0
        for tap, unit in np.ndindex(taps, self.units):
            first, row = unit * values, order[unit * taps + tap] * values
            part = filters[:, :, first : first + values, tap]
            spread[:, row : row + part.shape[2]] = part.swapaxes(1, 2)
        packed = pack_integers(spread, neutral if numbers == "words" else None, numbers, machine)
        self.packed = replace(packed, batch=(groups, 1) if groups > 1 else (), step=self.step)
        found = packed.sums.buffer.array
        assert found is not None
        #: Σ of each filter's weights as they are packed: int32 [O]
        self.sums = constant(np.ascontiguousarray(found.reshape(groups, -1)[:, :each]).reshape(-1))


def pack_conv_weights(array: np.ndarray | Weights, machine: Machine, groups: int = 1) -> PackedConvWeights:
    """Filters [O, C / groups, kh, kw] or [O, C / groups, k] of float32, float16 or bfloat16, for `conv2d`.

    Raises UnsupportedOperatorError for another dtype or more spatial dimensions, ShapeError where O is no
    multiple of `groups`.
    """
    weights = array if isinstance(array, Weights) else Weights.of(array)
    dimensions = len(weights.shape) - 2
    if dimensions not in (1, 2):
        raise UnsupportedOperatorError(
            f"convolution weights: found {dimensions} spatial dimensions, generated kernels want 1 or 2; "
            "let the host compute it"
        )
    if groups < 1 or weights.shape[0] % groups:
        raise ShapeError(
            f"convolution weights: found {weights.shape[0]} output channels in {groups} groups; "
            "wanted a multiple"
        )
    return PackedConvWeights(weights, groups, machine)


def definition(
    x: np.ndarray,
    w: np.ndarray,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> np.ndarray:
    """The plain meaning for two spatial dimensions, in float64: pads are (top, left, bottom, right)."""
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    (o, c, kh, kw), (sh, sw), (dh, dw) = w.shape, strides, dilations
    height, width = (x.shape[2] - (kh - 1) * dh - 1) // sh + 1, (x.shape[3] - (kw - 1) * dw - 1) // sw + 1
    y = np.zeros((x.shape[0], groups, o // groups, height, width))
    w = w.astype(np.float64).reshape(groups, o // groups, c, kh, kw)
    with np.errstate(all="ignore"):
        for i, j in itertools.product(range(kh), range(kw)):
            rows = slice(i * dh, i * dh + (height - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (width - 1) * sw + 1, sw)
            picked = x[:, :, rows, columns].reshape(x.shape[0], groups, c, height, width)
            y += np.einsum("ngchw,goc->ngohw", picked, w[..., i, j])
    return y.reshape(x.shape[0], o, height, width)


def conv2d(
    x: View,
    w: PackedConvWeights,
    out: View,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    epilogue: Epilogue | None = None,
    machine: Machine | None = None,
) -> list[Call]:
    """Calls that compute out[N, O, Ho, Wo] = epilogue(convolution of x[N, C, H, W] with w), both of any
    strides.

    pads are (top, left, bottom, right), as ONNX has them. One spatial dimension: x [N, C, W], out [N, O,
    Wo], pads (left, right). The epilogue's operands are broadcastable to out's shape.

    Raises ShapeError where the shapes do not fit, UnsupportedOperatorError for a dtype that cannot be packed.
    """
    machine = machine or host()
    operands = [v.broadcast_to(out.shape) for v in (epilogue.operands if epilogue else ())]
    views = [x, out, *operands]
    if x.rank == 3:
        views = [v.with_dims((*v.shape[:2], 1, v.shape[2]), (*v.strides[:2], 0, v.strides[2])) for v in views]
        strides, dilations, pads = (1, *strides), (1, *dilations), (0, pads[0], 0, pads[1])
    kernel_size = w.kernel
    check_packable("convolution", x.dtype)
    _check(views[0], w, views[1], strides, pads, dilations)
    if out.size == 0:
        return []
    if views[0].shape[3] == 1 and kernel_size[1] == 1 and views[1].shape[3] == 1 and not (pads[1] or pads[3]):
        # A column of pixels is better called a row.
        views = [v.transpose((0, 1, 3, 2)) for v in views]
        kernel_size, strides, dilations = (kernel_size[1], kernel_size[0]), (1, strides[0]), (1, dilations[0])
        pads = (0, pads[0], 0, pads[2])
    if kernel_size == (1, 1) and tuple(strides) == (1, 1) and not any(pads):
        return _pointwise(views, w, epilogue, machine)
    return [_call(views, w, kernel_size, strides, pads, dilations, epilogue, machine)]


def call_of_square(
    x: View, w: PackedConvWeights, out: View, pads: Sequence[int], epilogue: Epilogue | None, machine: Machine
) -> Call:
    """The call of `conv2d` for an image, filters of more than one row and column, and no strides and
    dilations, of shapes that fit.
    """
    views = [x, out, *[v.broadcast_to(out.shape) for v in (epilogue.operands if epilogue else ())]]
    return _call(views, w, w.kernel, _ONES, pads, _ONES, epilogue, machine)


def integer_conv2d(
    x: View,
    zero: View | None,
    w: IntegerConvWeights,
    out: View,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    epilogue: Epilogue | None,
    machine: Machine,
) -> list[Call]:
    """`conv2d` for int8 or uint8 x of any strides, in int32, padded with the byte at `zero` (0 if None).

    The sums that the epilogue gets still hold x's zero point, as those of `gemm.integer_matmul` do.
    """
    check_bytes("convolution", x.dtype)
    operands = [v.broadcast_to(out.shape) for v in (epilogue.operands if epilogue else ())]
    views = [x, out, *operands]
    if x.rank == 3:
        views = [v.with_dims((*v.shape[:2], 1, v.shape[2]), (*v.strides[:2], 0, v.strides[2])) for v in views]
        strides, dilations, pads = (1, *strides), (1, *dilations), (0, pads[0], 0, pads[1])
    _check(views[0], w, views[1], strides, pads, dilations)
    if out.size == 0:
        return []
    if w.kernel == (1, 1) and tuple(strides) == (1, 1) and not any(pads):
        return _pointwise(views, w, epilogue, machine)
    zero = constant(np.zeros((), x.dtype)) if zero is None else zero
    return [_call(views, w, w.kernel, strides, pads, dilations, epilogue, machine, zero)]


def _check(
    x: View,
    w: PackedConvWeights | IntegerConvWeights,
    out: View,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> None:
    wanted = [x.shape[0], w.outputs]
    for d in range(2):
        padded = x.shape[2 + d] + pads[d] + pads[d + 2]
        wanted.append(max(0, (padded - (w.kernel[d] - 1) * dilations[d] - 1) // strides[d] + 1))
    if x.shape[1] != w.inputs * w.groups:
        raise ShapeError(
            f"convolution: weight has {w.inputs} input channels in {w.groups} groups, the input has "
            f"{x.shape[1]}; it must have their product"
        )
    if out.shape != tuple(wanted):
        raise ShapeError(
            f"convolution: found an output of {out.shape} for an input of {x.shape}; wanted {wanted}"
        )
    if min(pads) < 0:
        raise UnsupportedOperatorError(
            f"convolution: found negative pads {tuple(pads)}, wanted none; slice the input first"
        )


def _pointwise(
    views: list[View], w: PackedConvWeights | IntegerConvWeights, epilogue: Epilogue | None, machine: Machine
) -> list[Call]:
    """A 1×1 convolution: a product of matrices [pixels, channels] for each image and group."""
    (n, c, h, width), groups = views[1].shape, w.groups
    layouts: list[tuple[np.dtype, tuple[int, ...]]] = []
    if groups == 1:
        shape = (n, h, width, c)
        for v in views:
            sn, sc, sh, sw = v.strides
            layouts.append((v.dtype, (sn, sh, sw, sc)))
    else:
        shape = (n, groups, h, width, c // groups)
        for v in views:
            sn, sc, sh, sw = v.strides
            layouts.append((v.dtype, (sn, v.shape[1] // groups * sc, sh, sw, sc)))
    panels = replace(w.packed, depth=w.inputs) if isinstance(w, IntegerConvWeights) else w.matrices()
    expression = None if epilogue is None else epilogue.expression
    return calls_of_product(views, shape, tuple(layouts), panels, expression, machine, "conv")


def _call(
    views: list[View],
    w: PackedConvWeights | IntegerConvWeights,
    kernel_size: tuple[int, int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    epilogue: Epilogue | None,
    machine: Machine,
    zero: View | None = None,
) -> Call:
    """One call over all images and groups. views: x, out and the epilogue's operands, all [N, channels, H,
    W]. zero: what integers are padded with.
    """
    x = views[0]
    if isinstance(w, IntegerConvWeights):
        b, in_place, order = w.packed, False, "blocks"
        numbers, channels, step = w.numbers, w.units, w.step
    else:
        in_place, order = choose(x, w.groups, w.inputs, kernel_size[1], pads, dilations[1], machine.lanes)
        b, numbers, channels, step = w.panels(order), "float32", w.inputs, UNROLL
    filters = _Filters(
        kernel_size, w.inputs, w.outputs, w.groups, numbers, channels, step, in_place, order, b.rows, b.panel
    )
    form = _form(
        (x.shape, views[1].shape),
        tuple([(v.dtype, v.strides) for v in views]),
        filters, tuple(strides), tuple(pads), tuple(dilations),
        None if epilogue is None else epilogue.expression, zero is not None, machine,
    )  # fmt: skip
    more = [] if zero is None else [zero]
    places = [x, b.view, views[1], *form.constants, *more, *views[2:]]
    return form.call(places, [x, b.view, *form.constants, *views[2:], *more], [views[1]])


class _Filters(NamedTuple):
    """Packed filters without their memory, and how they want the input read."""

    kernel: tuple[int, int]
    inputs: int  # of a group
    outputs: int
    groups: int
    numbers: Numbers
    channels: int  # of a group, in units
    step: int  # units of a block of channels in a step
    in_place: bool
    order: Order
    rows: int  # of a panel
    panel: int


@remembered(1024)  # layers that are alike, and shapes that come again
def _form(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    layouts: tuple[tuple[np.dtype, tuple[int, ...]], ...],
    w: _Filters,
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
    epilogue: Expression | None,
    has_zero: bool,
    machine: Machine,
) -> Form:
    """All of a call but its memory. shapes: of x and out. layouts: dtypes and strides of x, out and the
    epilogue's operands.
    """
    (images, x_channels, height, x_width), (_, out_channels, out_rows, out_columns) = shapes
    (x_dtype, (_, x_channel, x_row, x_column)), lanes = layouts[0], machine.lanes
    outputs, is_float = w.outputs // w.groups, w.numbers == "float32"
    g = geometry(
        w.in_place, w.order, w.channels, w.kernel, strides, dilations,
        pads[1], x_width, out_columns, lanes, (x_channel, x_row, x_column), w.step,
    )  # fmt: skip

    shape = register_tile(machine, outputs, w.numbers)
    tile_rows, tile_columns = tile_shape(out_rows, out_columns, shape.pixels, shape.vectors, TILE_ROWS)
    row_groups, tall, low = split(out_rows, tile_rows)
    column_tiles, wide, narrow = split(out_columns, tile_columns)
    fitting = max(-(-SHARING // column_tiles), machine.l2_bytes // 4 // max(g.row_floats * tile_rows * 4, 1))
    panels = -(-outputs // w.panel)
    others = images * w.groups * panels
    bands = min(row_groups, max(-(-row_groups // fitting), -(-_TILES // others)))
    most_rows = -(-row_groups // bands) * (low + (tall > 0))  # of the output, in a band
    packed_rows = (most_rows - 1) * g.advance + g.extra_rows + 1

    heights, widths = (low + (tall > 0), low), (narrow + (wide > 0), narrow)
    ahead = Ahead.of(
        row_groups * column_tiles // bands, heights[0] * widths[0], w.rows // g.unroll, g.unroll * w.panel * 4
    )
    sizes = [dtype.itemsize for dtype, _ in layouts]
    reaches = [reach(name_of(dtype), own[1], (own[2] or own[3]) != 0, outputs) for dtype, own in layouts[1:]]
    operands = tuple(reaches[1:])
    tiling = Tiling(
        shape.pixels, w.panel // lanes, outputs - (panels - 1) * w.panel, panels == 1, lanes,
        images * out_channels * out_rows * out_columns * sum(sizes[1:]) > machine.l2_bytes // 2,
        ahead.lines, g.pitch, g.unroll,
    )  # fmt: skip
    kernels = register_tiles(heights, widths, tiling, reaches[0], epilogue, operands, w.numbers)
    channels = [x_channels, *[out_channels] * (len(layouts) - 1)]
    arrays: list[list[int | View | Kernel]] = []
    for (_, (sn, sc, sh, sw)), size, own in zip(layouts, sizes, channels, strict=True):
        arrays.append([0, sn * size, own // w.groups * sc * size, sh * size, sw * size, sc * size])

    _, sn, x_group, sh, sw, sc = arrays[0]
    steps, limits = table(g, packed_rows), ranges(g, x_column * sizes[0])
    planes, line, columns = g.planes, g.line, g.columns
    mode, inner, pitch, x_pixel, x_inner = "copy", 0, 1, 0, sizes[0]
    if w.order == "blocks":
        mode = pack_mode((x_width, w.inputs), x_column * strides[1], x_channel)
        inner, pitch = w.inputs, packed_rows * line // lanes
        x_pixel, x_inner = x_column * sizes[0] * strides[1], x_channel * sizes[0]
    elif not w.in_place:
        inner = max(0, min(x_width, columns // g.values - pads[1])) * g.values
    dtype = name_of(x_dtype)
    packing = packer(mode, dtype, w.numbers)
    memory = 0 if w.in_place else planes * packed_rows * line + 2 * lanes
    args: list[int | View | Kernel] = [
        0, sn, x_group, sc, sh, x_pixel, x_inner, height, pads[0],
        0, panels * w.rows * w.panel * 4, w.rows * w.panel * 4, *arrays[1],
        w.groups, bands, panels, w.panel, outputs, 0, steps.size,
        row_groups, tall, low, wide, column_tiles - wide, wide * (narrow + 1),
        ahead.near, ahead.step, ahead.tile, strides[0], g.rows_step, g.extra_rows, g.row_pitch, g.pitch,
        packing, pitch, inner, -(-(inner if is_float else w.channels) // lanes),
        planes, packed_rows * line, line, columns, len(g.phases), 0, 0, *kernels,
    ]  # fmt: skip
    for array in arrays[2:]:
        args += array
    source = "place" if w.in_place else "blocks" if w.order == "blocks" else "lines"
    names = operand_slots(len(operands), _ARRAYS)
    return Form(
        _named(source, names, None if is_float else (dtype, w.numbers)),
        args,
        places=(*_PLACES, *[_ZERO] * has_zero, *range(len(CONV_SLOTS), len(args), len(_ARRAYS))),
        tiles=images * w.groups * bands * panels,
        scratch=PACKED_AT + memory * 4,
        flops=2 * images * out_channels * out_rows * out_columns * w.inputs * w.kernel[0] * w.kernel[1],
        label="conv",
        constants=(steps, limits),
    )


@functools.cache
def _named(source: str, operands: tuple[str, ...], fill: tuple[str, Numbers] | None) -> Kernel:
    return conv(source=source, operands=operands, **({} if fill is None else {"fill": fill}))
