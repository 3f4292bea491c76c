"""The two ends of Winograd's F(4×4, 3×3) and F(2×2, 3×3): tiles of the image to their points, and what the
points give to tiles of the output.

A 3×3 convolution of a 6×6 tile is a product of polynomials. Evaluated at the points 0, 1, −1, ½, −2 and
infinity, along rows and columns, it is 36 products for 16 outputs, where the definition has 144. A 4×4 tile
at 0, 1, −1 and infinity is 16 products for 4 outputs, where the definition has 36.
Points and their order: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), with 2
replaced by ½, which loses less precision.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportMissingTypeStubs=false

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir

from ingot.codegen.builder import F32, I8, I64, PTR, Builder, Int, Value, vector
from ingot.codegen.elements import gather_element, load_element, scatter_element, store_element
from ingot.codegen.kernel import kernel
from ingot.kernels import expression as expressions
from ingot.kernels.contract import AXES, Reach, elements
from ingot.kernels.expression import Expression

TAPS = 3  # of the filter, along an axis


@dataclass(frozen=True, slots=True)
class Scheme:
    """F(outputs × outputs, 3 × 3)."""

    outputs: int  # of a tile, along an axis
    finite_points: tuple[float, ...]

    @property
    def side(self) -> int:
        """Pixels that a tile reads, and points, along an axis."""
        return self.outputs + TAPS - 1

    @property
    def points(self) -> int:
        """Products that a tile needs."""
        return self.side * self.side

    @property
    def line(self) -> int:
        """Addresses of a column of a tile, in a whole vector: the last may be read by nobody."""
        return 8 if self.side > 4 else 4

    @property
    def input_scratch(self) -> tuple[int, int]:
        """Bytes and vectors that `to_points` needs beside its zeros."""
        return self.side * self.line * 8, self.points

    @property
    def output_scratch(self) -> int:
        """Vectors that `from_points` needs for two vectors of channels."""
        return self.outputs * self.side + 2 * self.outputs * self.outputs


SCHEMES = {4: Scheme(4, (0.0, 1.0, -1.0, 0.5, -2.0)), 2: Scheme(2, (0.0, 1.0, -1.0))}

INPUT_SLOTS = (
    "x", *(f"x_{axis}" for axis in AXES), "channels", "height", "width", "top", "left",
    "across", "per_image", "v", "v_strip", "v_block", "v_point", "strip", "first",
)  # fmt: skip
OUTPUT_SLOTS = (
    "m", "out", *(f"out_{axis}" for axis in AXES), "height", "width", "across", "per_image",
    "first", "count", "valid",
)  # fmt: skip


def _to_points(k: Builder, d: Sequence[Value]) -> list[Value]:
    """Bᵀ d for the vectors of a line; what the polynomials of the points share is computed once."""
    type_ = d[0].type

    def times(number: float, a: Value, b: Value) -> Value:
        return k.fma(k.splat(number, type_), a, b)

    if len(d) == 4:
        return [k.ir.fsub(d[2], d[0]), k.ir.fadd(d[2], d[1]), k.ir.fsub(d[2], d[1]), k.ir.fsub(d[3], d[1])]
    # (x − ½)(x + 2) = x² + 1.5 x − 1
    q0, q1, q2, q3 = (k.ir.fsub(times(1.5, d[i + 1], d[i + 2]), d[i]) for i in range(4))
    p, q = k.ir.fsub(d[4], d[2]), k.ir.fsub(d[3], d[1])
    return [
        k.ir.fsub(q2, q0), k.ir.fadd(q2, q1), k.ir.fsub(q2, q1),
        times(2.0, q, p), times(-0.5, q, p), k.ir.fsub(q3, q1),
    ]  # fmt: skip


def _from_points(k: Builder, m: Sequence[Value]) -> list[Value]:
    """Aᵀ m for the vectors of a line: output j weighs the point a by a^j."""
    type_ = m[0].type

    def times(number: float, a: Value, b: Value) -> Value:
        return k.fma(k.splat(number, type_), a, b)

    both, apart = k.ir.fadd(m[1], m[2]), k.ir.fsub(m[1], m[2])
    if len(m) == 4:
        return [k.ir.fadd(m[0], both), k.ir.fadd(apart, m[3])]
    return [
        k.ir.fadd(k.ir.fadd(m[0], both), k.ir.fadd(m[3], m[4])),
        times(-2.0, m[4], times(0.5, m[3], apart)),
        times(4.0, m[4], times(0.25, m[3], both)),
        k.ir.fadd(times(-8.0, m[4], times(0.125, m[3], apart)), m[5]),
    ]


def _two_sided(
    k: Builder,
    transform: Callable[[Builder, Sequence[Value]], list[Value]],
    read: Callable[[int, int], Value],
    write: Callable[[int, int, Value], None],
    side: int,
    rows: int,
    in_registers: bool,
) -> None:
    """`transform` on each of `side` columns, then on each of the `rows` rows that result.

    Between the two the vectors wait in registers, or in scratch memory, which stays in L1.
    """
    lanes = k.machine.lanes
    kept: dict[tuple[int, int], Value] = {}
    for column in range(side):
        for row, value in enumerate(transform(k, [read(row, column) for row in range(side)])):
            if in_registers:
                kept[row, column] = value
            else:
                k.store(value, k.scratch, (row * side + column) * lanes)
    type_ = vector(F32, lanes)
    for row in range(rows):
        line = [
            kept[row, column] if in_registers else k.load(k.scratch, type_, (row * side + column) * lanes)
            for column in range(side)
        ]
        for column, value in enumerate(transform(k, line)):
            write(row, column, value)


def _place(k: Builder, tile: Value, outputs: int) -> tuple[Value, Value, Value]:
    """Image, and first row and column of the output, of a tile."""
    per_image, across = k.arg("per_image"), k.arg("across")
    image, within = k.div(tile, per_image), k.rem(tile, per_image)
    return image, k.mul(k.div(within, across), outputs), k.mul(k.rem(within, across), outputs)


@kernel(*INPUT_SLOTS)
def to_points(k: Builder, *, outputs: int, gather: bool, tail: bool, source: str = "float32") -> None:
    """Tiles begin..end, counted from tile `first` on, of x, whose dtype is `source`, at the points of
    F(outputs × outputs): v [strip of tiles][block of channels][point][tile][lanes].

    Strides of x are in bytes, of v too. Scratch: a vector for each point, then lines of addresses, then
    as many zeros as there are channels, which are read where a tile reaches over the image.
    """
    lanes, scheme = k.machine.lanes, SCHEMES[outputs]
    side, line = scheme.side, scheme.line
    addresses = k.at(k.scratch, scheme.points * lanes, F32)
    nothing = k.at(addresses, side * line, I64)
    type_ = vector(F32, lanes)
    strides = {axis: k.arg(f"x_{axis}") for axis in AXES}
    channels, first, v_point, v_block = (k.arg(n) for n in ("channels", "first", "v_point", "v_block"))
    zeros = 0 if gather else k.ir.ptrtoint(nothing, I64)
    if not gather:
        with k.loop(0, channels, lanes) as i:
            k.store(k.zero(type_), nothing, i)
    # Rows' offsets and whether they exist are vectors: a few instructions for each column of a tile.
    numbers = ir.Constant(vector(I64, line), list(range(line)))
    rows = k.ir.mul(numbers, k.broadcast(strides["row"], line))
    height = k.broadcast(k.arg("height"), line)
    nowhere = k.broadcast(k.int(zeros), line)
    with k.loop(k.begin, k.end) as number:
        image, row, column = _place(k, k.add(first, number), outputs)
        start = k.add(k.arg("x"), k.mul(image, strides["image"]))
        top, left = k.sub(row, k.arg("top")), k.sub(column, k.arg("left"))
        start = k.add(start, k.mul(top, strides["row"]), k.mul(left, strides["column"]))
        down = k.ir.add(k.broadcast(start, line), rows)
        is_row = k.ir.icmp_unsigned("<", k.ir.add(k.broadcast(top, line), numbers), height)
        for j in range(side):
            is_column = k.ir.icmp_unsigned("<", k.add(left, j), k.arg("width"))
            there = k.ir.add(down, k.broadcast(k.int(k.mul(strides["column"], j)), line))
            found = k.ir.select(k.ir.and_(is_row, k.broadcast(is_column, line)), there, nowhere)
            k.store(found, addresses, j * line)
        strip = k.arg("strip")
        target = k.at(k.pointer("v"), k.mul(k.div(number, strip), k.arg("v_strip")), I8)
        target = k.at(target, k.mul(k.rem(number, strip), lanes), F32)

        def transform(block: Value, masked: bool, target: Value = target) -> None:
            left = k.sub(channels, k.mul(block, lanes))
            mask = k.lanes_below(left, lanes) if masked else None
            further = k.mul(k.mul(block, lanes), strides["channel"])

            def read(i: int, j: int) -> Value:
                address = k.load(addresses, I64, j * line + i)
                pointer = k.ir.inttoptr(k.add(address, further), PTR)
                if gather:
                    count = k.choose(k.compare("==", address, 0), 0, left)
                    step = elements(k, strides["channel"], source)
                    return gather_element(k, pointer, source, lanes, step, count)
                return load_element(k, pointer, source, lanes, mask=mask)

            point = [k.at(target, k.mul(block, v_block), I8)]

            def write(i: int, j: int, value: Value) -> None:
                del i, j  # they come in order
                k.store(value, point[0])
                point[0] = k.at(point[0], v_point, I8)

            _two_sided(k, _to_points, read, write, side, side, in_registers=False)

        whole = k.div(channels, lanes)
        with k.loop(0, whole) as block:
            transform(block, masked=False)
        if tail:
            transform(whole, masked=True)


@kernel(*OUTPUT_SLOTS)
def from_points(
    k: Builder,
    *,
    outputs: int,
    vectors: int,
    panel: int,
    masked: bool,
    out: Reach,
    epilogue: Expression | None,
    reaches: tuple[Reach, ...],
    operands: tuple[str, ...],
) -> None:
    """Tiles first .. first + count of out from m [tile][point][panel of channels], through the epilogue.

    Of the `panel` vectors `vectors` are there; `out` and operands point to the panel's first channel, of
    which `valid` are stored. Strides are in bytes. Scratch: a vector for
    each output along one axis and point along the other, then `vectors` for each output.
    """
    del operands  # they are in the slots already
    lanes, type_ = k.machine.lanes, vector(F32, k.machine.lanes)
    side = SCHEMES[outputs].side
    results = k.at(k.scratch, outputs * side * lanes, F32)
    names = {"out": out, **{f"x{i}": reach for i, reach in enumerate(reaches)}}
    pointers = {name: k.pointer(name) for name in names}
    strides = {name: {axis: k.arg(f"{name}_{axis}") for axis in AXES} for name in names}
    first, valid = k.arg("first"), k.arg("valid")
    height, width = k.arg("height"), k.arg("width")
    masks = [k.lanes_below(k.sub(valid, v * lanes), lanes) if masked else None for v in range(vectors)]

    def vector_at(name: str, pointer: Value, v: int) -> Value:
        """The address of vector v of the channels at `pointer`, where they are strided."""
        return k.at(pointer, k.mul(strides[name]["channel"], v * lanes), I8)

    def read(name: str, pointer: Value, v: int) -> Value:
        reach = names[name]
        if reach.channels == "contiguous":
            return load_element(k, pointer, reach.dtype, lanes, v * lanes, masks[v])
        if reach.channels == "repeated":
            return k.broadcast(load_element(k, pointer, reach.dtype, 1), lanes)
        left = k.sub(valid, v * lanes)
        step = elements(k, strides[name]["channel"], reach.dtype)
        return gather_element(k, vector_at(name, pointer, v), reach.dtype, lanes, step, left)

    with k.loop(0, k.arg("count")) as number:
        image, row, column = _place(k, k.add(first, number), outputs)
        source = k.at(k.pointer("m"), k.mul(number, side * side * panel * lanes), F32)

        def corner(name: str, image: Value = image, row: Value = row, column: Value = column) -> Value:
            within = k.add(k.mul(row, strides[name]["row"]), k.mul(column, strides[name]["column"]))
            return k.at(pointers[name], k.add(k.mul(image, strides[name]["image"]), within), I8)

        corners = {name: corner(name) for name in names}
        fixed = {
            (name, v): read(name, corners[name], v)
            for name, reach in names.items()
            if name != "out" and not reach.per_pixel
            for v in range(vectors)
        }

        def transform(v: int, source: Value = source) -> None:
            def point(i: int, j: int) -> Value:
                return k.load(source, type_, ((i * side + j) * panel + v) * lanes)

            def keep(i: int, j: int, value: Value) -> None:
                k.store(value, results, ((i * outputs + j) * vectors + v) * lanes)

            _two_sided(
                k,
                _from_points,
                point,
                keep,
                side,
                outputs,
                in_registers=outputs == 2 or k.machine.registers >= 32,
            )

        def finish(values: list[Value], i: Int, j: Int, corners: dict[str, Value] = corners) -> None:
            """One pixel's vectors, through the epilogue."""
            here = {
                name: k.at(
                    corners[name],
                    k.add(k.mul(strides[name]["row"], i), k.mul(strides[name]["column"], j)),
                    I8,
                )
                for name, reach in names.items()
                if name == "out" or reach.per_pixel
            }
            if epilogue is not None:
                leaves = [
                    [value]
                    + [
                        fixed[name, v] if (name, v) in fixed else read(name, here[name], v)
                        for name in itertools.islice(names, 1, None)
                    ]
                    for v, value in enumerate(values)
                ]
                values = [results[0] for results in expressions.emit_vectors(k, epilogue, leaves, lanes)]
            for v, value in enumerate(values):
                if out.channels == "contiguous":
                    store_element(k, value, here["out"], out.dtype, v * lanes, masks[v])
                else:
                    left = k.sub(valid, v * lanes)
                    step = elements(k, strides["out"]["channel"], out.dtype)
                    scatter_element(k, value, vector_at("out", here["out"], v), out.dtype, step, left)

        for v in range(vectors):
            transform(v)
        rows, columns = (k.min(k.sub(a, b), outputs) for a, b in ((height, row), (width, column)))
        with k.loop(0, rows) as i, k.loop(0, columns) as j:
            found = k.at(results, k.mul(k.add(k.mul(i, outputs), j), vectors * lanes), F32)
            finish([k.load(found, type_, v * lanes) for v in range(vectors)], i, j)
