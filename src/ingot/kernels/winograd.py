"""Winograd's convolutions of stride 1: filters of 3×3 with a quarter, or four ninths, of the multiplications,
five taps of a line with two fifths.

Tiles of output pixels are numbered through all images. A thread takes a strip of them, transforms their
input to the points of a scheme (winograd_scheme.py, winograd_tile.py), and for each panel of output channels
computes at each point a product of matrices [tiles, input channels] × [input channels, panel] on the register
tile, then transforms what is at the points to the output. Where the transformed input fits half of L2, a
panel goes through all points; else panels take turns at each, so that what is at a point stays near.

    v  [block of input channels][point][tile][lanes]
    m  [panel][tile][point][panel's channels]
    b  [panel][point][input channel][panel's channels]

Filters of one row, and those of one dimension, are filters of one column of an image that lies on its side:
along its other axis there is nothing to transform.

With 4×4 tiles of 3×3 filters the result differs from the definition's by 1 to 6e-6 of the largest output,
with eight points along a line by 1 to 4e-6 (a direct sum in float32 by 0.3 to 3e-6, fewer points by less),
and a value that is not finite reaches all outputs of the tiles that read it.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from ingot.codegen.builder import F32, I8, I64, Builder, Int
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine, host
from ingot.errors import ShapeError, UnsupportedOperatorError
from ingot.kernels.call import Buffer, Call, Form, Layout, View, layout_of
from ingot.kernels.contract import (
    AXES,
    PANEL_VECTORS,
    SUMS_BYTES,
    TILE_SLOTS,
    UNROLL,
    Ahead,
    Epilogue,
    Frame,
    Reach,
    axis_slots,
    name_of,
    offsets_table,
    partial_sums,
    reach,
    register_tile,
    tile,
)
from ingot.kernels.conv import TILE_ROWS
from ingot.kernels.expression import Expression
from ingot.kernels.made_again import remembered
from ingot.kernels.pack import check_packable
from ingot.kernels.reading import fastest_tiles, step_cycles
from ingot.kernels.winograd_pack import WinogradWeights
from ingot.kernels.winograd_scheme import Scheme, schemes, upright
from ingot.kernels.winograd_tile import INPUT_SLOTS, OUTPUT_SLOTS, from_points, to_points

_TILES = 16  # of work, at least, where the problem has them
_STRIP = 24  # tiles that should share a panel of weights, even where v and m take more than their part of L2
_TOGETHER = 32  # panels, at most, that take turns at a point
_FEWEST_CHANNELS = 16  # below, most of a vector's lanes or of the time goes to the transforms
#: For a vector at a point of a tile, on each side, by how many axes are transformed.
_TRANSFORM_CYCLES = {1: 3.0, 2: 5.5}
_BYTES_A_CYCLE = 5  # from beyond L2
_TURNED_CYCLES = 4.0  # for an element of an image whose channels are laid side by side before
_APART = 0.25  # of the shorter one of reading and multiplying, which do not go on at the same time
_MARGIN = 1.1  # faster by so much, or the simpler algorithm is taken
_FRAME_BYTES = 2048

SLOTS = (
    "x", *(f"x_{axis}" for axis in AXES), "channels", "height", "width", "top", "left",
    "out", *(f"out_{axis}" for axis in AXES), "out_height", "out_width", "outputs",
    "across", "per_image", "tiles", "strip", "columns", "v", "v_strip", "v_block", "v_point",
    "b", "b_point", "panels", "groups", "together", "m_panel", "table", "steps", "next_step", "next_tile",
    "input", "product", "product_last", "output", "output_last",
)  # fmt: skip


#: Where among ours the arguments of the transform of the input are, but for the first tile, and where its
#: addresses go.
_SHARED_SLOTS = tuple([None if slot == "first" else SLOTS.index(slot) for slot in INPUT_SLOTS])
_SHARED_PLACES = tuple([INPUT_SLOTS.index(slot) for slot in ("x", "v")])


@kernel(*SLOTS)
def winograd(k: Builder, *, points: int, panel: int, shared: bool, operands: tuple[str, ...]) -> None:
    """Tiles begin..end of (strip of the images' tiles, group of panels of output channels).

    panel: vectors in one. shared: v is there already, for all strips.
    """
    lanes = k.machine.lanes
    width = panel * lanes
    arg = {name: k.arg(name) for name in (*SLOTS, *operands)}
    names = ["out", *(f"x{i}" for i in range(len(operands) // (1 + len(AXES))))]
    frames = [k.at(k.scratch, i * _FRAME_BYTES, I8) for i in range(3)]
    before, product = Frame(k, frames[0], INPUT_SLOTS), Frame(k, frames[1], TILE_SLOTS)
    after = Frame(k, frames[2], (*OUTPUT_SLOTS, *operands))
    sums = k.at(k.scratch, 3 * _FRAME_BYTES, I8)
    m = k.at(sums, SUMS_BYTES, I8)
    own = k.at(m, k.mul(arg["together"], arg["m_panel"]), I8)
    local = own if shared else k.at(own, arg["v_strip"], I8)

    for slot in INPUT_SLOTS:
        if slot in arg:
            before.set(slot, arg[slot])
    before.set("v", k.ir.ptrtoint(own, I64))
    for slot in ("table", "steps", "next_step", "next_tile"):
        product.set(slot, arg[slot])
    for slot, value in (("a_row", 0), ("out_row", 0), ("out_channel", 4), ("valid", width)):
        product.set(slot, value)
    product.set("out_column", points * width * 4)
    for slot, value in (("height", "out_height"), ("width", "out_width")):
        after.set(slot, arg[value])
    for slot in ("across", "per_image", *(f"{name}_{axis}" for name in names for axis in AXES)):
        after.set(slot, arg[slot])

    def first_of(group: Int) -> Int:
        """The first panel of a group."""
        return k.div(k.mul(group, arg["panels"]), arg["groups"])

    held = [k.held()]  # the strip that v holds
    until = k.div(k.add(k.end, k.sub(arg["groups"], 1)), arg["groups"])
    with k.loop(k.div(k.begin, arg["groups"]), until, carry=held) as strip:
        before_it = k.mul(strip, arg["groups"])
        low = first_of(k.max(k.sub(k.begin, before_it), 0))
        high = first_of(k.min(k.sub(k.end, before_it), arg["groups"]))
        first = k.mul(strip, arg["strip"])
        count = k.min(arg["strip"], k.sub(arg["tiles"], first))
        if shared:
            v = k.at(k.pointer("v"), k.mul(strip, arg["v_strip"]), I8)
        else:
            with k.when(k.compare("!=", strip, held[0])):
                before.set("first", first)
                k.call(arg["input"], before.pointer, 0, count, local)
            held[0], v = strip, own
        after.set("first", first)
        after.set("count", count)
        product.set("count", k.ceil_div(count, arg["columns"]))
        with k.loop(low, high, arg["together"]) as start:
            stop = k.min(k.add(start, arg["together"]), high)
            with k.loop(0, points) as point, k.loop(start, stop) as number:
                is_last = k.compare("==", number, k.sub(arg["panels"], 1))
                turn = k.compare("==", k.add(number, 1), stop)
                done = k.ir.and_(turn, k.compare("==", point, points - 1))
                following = k.choose(done, stop, k.choose(turn, start, k.add(number, 1)))
                after_it = k.choose(done, 0, k.choose(turn, k.add(point, 1), point))
                product.set("a", k.at(v, k.mul(point, arg["v_point"]), I8))
                for slot, panel_, point_ in (("b", number, point), ("next", following, after_it)):
                    where = k.mul(k.add(k.mul(panel_, points), point_), arg["b_point"])
                    product.set(slot, k.add(arg["b"], where))
                here = k.at(m, k.mul(k.sub(number, start), arg["m_panel"]), I8)
                product.set("out", k.at(here, k.mul(point, width), F32))
                k.call(k.choose(is_last, arg["product_last"], arg["product"]), product.pointer, 0, 0, sums)
            with k.loop(start, stop) as number:
                is_last = k.compare("==", number, k.sub(arg["panels"], 1))
                channel = k.mul(number, width)
                here = k.at(m, k.mul(k.sub(number, start), arg["m_panel"]), I8)
                after.set("m", k.ir.ptrtoint(here, I64))
                for name in names:
                    after.set(name, k.add(arg[name], k.mul(channel, arg[f"{name}_channel"])))
                after.set("valid", k.min(k.sub(arg["outputs"], channel), width))
                code = k.choose(is_last, arg["output_last"], arg["output"])
                k.call(code, after.pointer, 0, 0, local)
    k.hold(held[0])


@functools.lru_cache(256)
def _table(channels: int, points: int, strip: int, lanes: int) -> View:
    """Where the steps of a product's contraction begin in v."""
    steps = np.arange(0, channels, UNROLL)
    return offsets_table(steps // lanes * (points * strip * lanes) + steps % lanes)


def winograd_conv2d(
    x: View,
    w: WinogradWeights,
    out: View,
    pads: Sequence[int],
    epilogue: Epilogue | None = None,
    machine: Machine | None = None,
) -> list[Call]:
    """Calls that compute out[N, O, Ho, Wo] = epilogue(convolution of x[N, C, H, W] with w), stride 1.

    pads are (top, left, bottom, right), as ONNX has them. One spatial dimension: x [N, C, W], out [N, O,
    Wo], pads (left, right). Any strides; fast where channels lie side by side. The epilogue's operands are
    broadcastable to out's shape.

    x and, where no epilogue converts to another dtype, out are float32, float16 or bfloat16; all between is
    float32. Raises ShapeError where the shapes do not fit, UnsupportedOperatorError for another dtype.
    """
    machine = machine or host()
    _check(x, w, out, pads, epilogue)
    return winograd_calls(x, w, out, pads, epilogue, machine) if out.size else []


def winograd_calls(
    x: View, w: WinogradWeights, out: View, pads: Sequence[int], epilogue: Epilogue | None, machine: Machine
) -> list[Call]:
    """The same for shapes that fit, and an output that has elements."""
    views, before = stood_up(x, out, pads, epilogue, w.turned)
    forms = _remembered_forms(*layouts_of(views), expression_of(epilogue), before, w.scheme, machine)
    return calls_of_forms(forms, views, w)


def stood_up(
    x: View, out: View, pads: Sequence[int], epilogue: Epilogue | None, turned: bool
) -> tuple[list[View], tuple[int, int]]:
    """x, out and the epilogue's operands, of out's shape, as images [N, C, H, W], and the padding at their
    top and left. turned: those for filters of one row, or of one dimension, lie on their sides.
    """
    views = [x, out, *[v.broadcast_to(out.shape) for v in (epilogue.operands if epilogue else ())]]
    if x.rank == 3:
        views = [v.with_dims((*v.shape, 1), (*v.strides, 0)) for v in views]
        return views, (pads[0], 0)
    if turned:
        return [v.swapped() for v in views], (pads[1], pads[0])
    return views, (pads[0], pads[1])


def layouts_of(
    views: Sequence[View],
) -> tuple[Layout, Layout, tuple[tuple[np.dtype, tuple[int, ...]], ...]]:
    """All but the memory of x and out, and dtypes and strides of the epilogue's operands."""
    x, out, *operands = views
    return layout_of(x), layout_of(out), tuple([(v.dtype, v.strides) for v in operands])


def expression_of(epilogue: Epilogue | None) -> Expression | None:
    """What it computes."""
    return None if epilogue is None else epilogue.expression


def calls_of_forms(forms: WinogradForms, views: Sequence[View], w: WinogradWeights) -> list[Call]:
    """The calls. views: as they are `stood_up`."""
    _, transform, main, nbytes = forms
    x, out, *operands = views
    further = [*main.constants, *operands]
    if transform is None:
        return [main.call([x, out, w.view, *further], [x, w.view, *further], [out])]
    v = _memory(nbytes)
    return [
        transform.call([x, v], [x], [v]),
        main.call([x, out, v, w.view, *further], [v, w.view, *further], [out]),
    ]


#: Points of a tile, all of the calls but their memory, and the bytes of v; the first call, if there is one,
#: fills v for all strips.
WinogradForms: TypeAlias = tuple[int, Form | None, Form, int]


def winograd_forms(
    x: Layout,
    out: Layout,
    operands: tuple[tuple[np.dtype, tuple[int, ...]], ...],
    epilogue: Expression | None,
    pads: tuple[int, int],
    scheme: Scheme,
    machine: Machine,
) -> WinogradForms:
    """operands: dtypes and strides of the epilogue's, of the output's shape. pads: top and left."""
    (x_dtype, (_, _, x_height, x_width), x_strides), (out_dtype, shape, out_strides) = x, out
    lanes, inputs, (images, outputs, height, width) = machine.lanes, x[1][1], shape
    rows, panel = -(-inputs // UNROLL) * UNROLL, PANEL_VECTORS * lanes
    points, panels = scheme.points, -(-outputs // panel)
    across, down = -(-width // scheme.columns.outputs), -(-height // scheme.rows.outputs)
    tiles = images * across * down
    columns, strip, groups = _blocking(tiles, points, rows, panel, panels, machine)
    strips = -(-tiles // strip)
    blocks = -(-inputs // lanes)
    v_point = strip * lanes * 4
    v_strip = blocks * points * v_point
    m_panel = strip * points * panel * 4
    together = min(panels, _TOGETHER if v_strip > machine.l2_bytes // 2 else 1)
    shared = groups > 1 and strips * v_strip <= machine.l2_bytes // 2

    last = outputs - (panels - 1) * panel
    steps = -(-inputs // UNROLL)
    ahead = _ahead(strip // columns, steps, UNROLL * panel * 4)
    reaches = [
        reach(name_of(dtype), own[1], (own[2] or own[3]) != 0, outputs)
        for dtype, own in ((out_dtype, out_strides), *operands)
    ]
    table = _table(inputs, points, strip, lanes)
    read_input = _input(scheme, x_strides[1] != 1, inputs % lanes != 0, name_of(x_dtype))
    args: list[int | View | Kernel] = [
        0, *[s * x_dtype.itemsize for s in x_strides], inputs, x_height, x_width, *pads,
        0, *[s * out_dtype.itemsize for s in out_strides], height, width, outputs,
        across, across * down, tiles, strip, columns,
        0, v_strip, points * v_point, v_point,
        0, rows * panel * 4, panels, groups, together, m_panel, 0, steps,
        ahead.step, ahead.tile,
        read_input,
        *_kernels(
            scheme, columns, ahead.lines, register_tile(machine).pixels, panel, last, lanes,
            reaches[0], epilogue, tuple(reaches[1:]),
        ),
    ]  # fmt: skip
    for dtype, own in operands:
        args += [0, *[s * dtype.itemsize for s in own]]
    code, places = _main(points, shared, len(operands))
    nbytes, vectors = scheme.input_scratch
    local = nbytes + (vectors + blocks) * machine.vector_bytes
    memory = 3 * _FRAME_BYTES + SUMS_BYTES + together * m_panel + (0 if shared else v_strip)
    main = Form(
        code,
        args,
        places=places,
        tiles=strips * groups,
        scratch=memory + max(local, scheme.output_scratch * machine.vector_bytes),
        flops=2 * math.prod(shape) * inputs * math.prod(scheme.kernel),
        label="winograd",
        constants=(table,),
    )
    if not shared:
        return points, None, main, 0
    slots: list[int | View | Kernel] = [0 if place is None else args[place] for place in _SHARED_SLOTS]
    transform = Form(read_input, slots, _SHARED_PLACES, tiles, scratch=local, label="winograd")
    return points, transform, main, strips * v_strip


_remembered_forms = remembered(1024)(winograd_forms)  # layers that are alike, and shapes that come again


@functools.cache
def _input(scheme: Scheme, gather: bool, tail: bool, dtype: str) -> Kernel:
    """The transform of the input."""
    own = {} if dtype == "float32" else {"source": dtype}
    return to_points(scheme=scheme, gather=gather, tail=tail, **own)


@functools.cache
def _main(points: int, shared: bool, operands: int) -> tuple[Kernel, tuple[int, ...]]:
    """The loops, and where the addresses go."""
    names = axis_slots(operands)
    first = ("x", "out", "v", "b", "table") if shared else ("x", "out", "b", "table")
    further = range(len(SLOTS), len(SLOTS) + len(names), 1 + len(AXES))
    code = winograd(points=points, panel=PANEL_VECTORS, shared=shared, operands=names)
    return code, (*[SLOTS.index(slot) for slot in first], *further)


@functools.lru_cache(1024)
def _kernels(
    scheme: Scheme,
    columns: int,
    fetched: int,
    most: int,
    panel: int,
    last: int,
    lanes: int,
    out: Reach,
    epilogue: Expression | None,
    reaches: tuple[Reach, ...],
) -> list[Kernel]:
    """The product and the transform of its results, of whole panels and of the last one, of `last`
    channels.
    """
    products = [
        tile(
            rows=1, columns=columns, pitch=lanes, unroll=UNROLL, vectors=vectors, panel=PANEL_VECTORS,
            sums=partial_sums(columns, most, UNROLL), masked=False, fetch=False,
            fetched=fetched, out=Reach("float32", "contiguous"), epilogue=None, reaches=(), operands=(),
        )
        for vectors in (PANEL_VECTORS, -(-last // lanes))
    ]  # fmt: skip
    transforms = [
        from_points(
            scheme=scheme, vectors=-(-channels // lanes), panel=PANEL_VECTORS, masked=channels % lanes != 0,
            out=out, epilogue=epilogue, reaches=reaches, operands=axis_slots(len(reaches)),
        )
        for channels in (panel, last)
    ]  # fmt: skip
    return [*products, *transforms]


def _ahead(tiles: int, steps: int, step_bytes: int) -> Ahead:
    """Each of the register tiles that share a panel fetches its part of the next point's, which lies behind
    it, even if there are only two of them: they take turns so quickly that a panel is needed at once.
    """
    step = -(-step_bytes // tiles)
    return Ahead(-(-step // 64), 0, step, step * steps)


def _memory(nbytes: int) -> View:
    """Floats in the arena."""
    return View(Buffer(nbytes), 0, np.dtype(np.float32), (nbytes // 4,), (1,))


def _check(x: View, w: WinogradWeights, out: View, pads: Sequence[int], epilogue: Epilogue | None) -> None:
    for view in (x, *([] if epilogue else [out])):
        check_packable("image of Winograd's convolution", view.dtype)
    sizes, kernel = ("H, W", w.scheme.kernel[:: -1 if w.turned else 1])
    if x.rank == 3 and w.turned:
        sizes, kernel = "W", kernel[1:]
    if x.rank != 2 + len(kernel) or x.shape[1] != w.inputs:
        raise ShapeError(
            f"Winograd convolution: found an input of {x.shape}, wanted [N, {w.inputs}, {sizes}] for this "
            "weight"
        )
    if len(pads) != 2 * len(kernel) or min(pads) < 0:
        raise UnsupportedOperatorError(
            f"Winograd convolution: found pads {tuple(pads)}, wanted {2 * len(kernel)} that are not "
            "negative; slice the input first"
        )
    size = [
        max(0, x.shape[2 + d] + pads[d] + pads[d + len(kernel)] - taps + 1) for d, taps in enumerate(kernel)
    ]
    if out.shape != (x.shape[0], w.outputs, *size):
        raise ShapeError(
            f"Winograd convolution: found an output of {out.shape} for an input of {x.shape}; "
            f"wanted {[x.shape[0], w.outputs, *size]}"
        )


@functools.lru_cache(1024)  # whether it pays is asked first
def _blocking(
    tiles: int, points: int, rows: int, panel: int, panels: int, machine: Machine
) -> tuple[int, int, int]:
    """Pixels of the register tile, tiles of a strip, and groups of panels.

    Register tiles are made equal, so that one kernel serves; the last may compute pixels that nobody reads. A
    strip is some register tiles, as many as leave three quarters of L2 to the weights.
    """
    most = register_tile(machine).pixels
    columns = min(range(1, most + 1), key=lambda n: -(-tiles // n) * step_cycles(n * PANEL_VECTORS))

    register_tiles = -(-tiles // columns)
    each = columns * points * 4 * (rows + panel)
    fitting = max(1, -(-_STRIP // columns), machine.l2_bytes // 4 // each)
    if points * rows * panels * panel * 4 <= machine.l2_bytes // 2:
        fitting = min(fitting, max(1, register_tiles // _TILES))
    strips = -(-register_tiles // fitting)
    strip = -(-register_tiles // strips) * columns
    return columns, strip, min(panels, max(1, _TILES // strips))


@remembered(1024, "decision")
def fastest(
    kernel: Sequence[int], inputs: int, out_shape: Sequence[int], machine: Machine, turned: bool = False
) -> Scheme | None:
    """The scheme that is faster than the direct algorithm for filters of this size, this many input channels
    and an output [N, O, …], and than the others; None where none is.

    turned: the input's channels do not lie side by side, so that it is copied first.
    """
    if min(inputs, out_shape[1]) < _FEWEST_CHANNELS or not out_shape[0]:
        return None
    images, outputs, *size = out_shape
    height, width = size if len(size) == 2 else (1, *size)
    standing = upright(kernel)
    direct = (1, height) if width == kernel[-1] == 1 else (height, width)
    least, best = _direct_cycles(kernel, inputs, (images, outputs, *direct), machine) / _MARGIN, None
    if standing != tuple(kernel):
        height, width = width, height
    for scheme in schemes(standing):
        cycles = _cycles(inputs, (images, outputs, height, width), scheme, machine)
        if turned:
            cycles += _TURNED_CYCLES * images * inputs * height * width
        if cycles < least:
            least, best = cycles, scheme
    return best


@remembered(1024, "decision")
def pays(
    kernel: Sequence[int], inputs: int, out_shape: Sequence[int], machine: Machine, turned: bool = False
) -> bool:
    """Whether Winograd's algorithm is faster than the direct one; `turned` as of `fastest`."""
    return fastest(kernel, inputs, out_shape, machine, turned) is not None


def _direct_cycles(kernel: Sequence[int], inputs: int, out_shape: Sequence[int], machine: Machine) -> float:
    """A count of cycles for one thread, of the direct algorithm."""
    images, outputs, height, width = out_shape
    panel, rows = PANEL_VECTORS * machine.lanes, -(-inputs // UNROLL) * UNROLL
    panels = -(-outputs // panel)
    shape = register_tile(machine)
    steps = math.prod(kernel) * rows * panels
    each, _, _ = fastest_tiles(height, width, shape.pixels, shape.vectors, TILE_ROWS)
    return _time(steps * images * each, steps * panel * 4, machine)


def _cycles(inputs: int, out_shape: Sequence[int], scheme: Scheme, machine: Machine) -> float:
    """The same for Winograd's algorithm.

    It transforms a vector at a point of a tile in so many cycles on each side. Its weights, up to four times
    as many as the direct algorithm's, come again for each strip.
    """
    images, outputs, height, width = out_shape
    lanes, panel = machine.lanes, PANEL_VECTORS * machine.lanes
    vectors, panels = -(-outputs // lanes), -(-outputs // panel)
    rows = -(-inputs // UNROLL) * UNROLL
    tiles = images * -(-height // scheme.rows.outputs) * -(-width // scheme.columns.outputs)
    columns, strip, _ = _blocking(tiles, scheme.points, rows, panel, panels, machine)
    steps = scheme.points * rows * panels
    multiplying = steps * -(-tiles // columns) * step_cycles(columns * PANEL_VECTORS)
    transforms = tiles * (-(-inputs // lanes) + vectors) * scheme.points
    transforms *= _TRANSFORM_CYCLES[scheme.passes]
    return _time(multiplying, steps * panel * 4, machine, -(-tiles // strip)) + transforms


def _time(multiplying: float, weight_bytes: int, machine: Machine, times: int = 1) -> float:
    """Cycles for products whose weights are read so many times: those that leave no room in L2 come from
    beyond it, mostly while others are multiplied.
    """
    if weight_bytes <= machine.l2_bytes // 2:
        return multiplying
    reading = times * weight_bytes / _BYTES_A_CYCLE
    return max(multiplying, reading) + _APART * min(multiplying, reading)
