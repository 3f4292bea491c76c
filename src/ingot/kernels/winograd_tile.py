"""The two ends of Winograd's convolution: tiles of the image to their points, and what the points give to
tiles of the output. The transforms of a line follow from its points (winograd_scheme.py).
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportMissingTypeStubs=false

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction

from llvmlite import ir

from ingot.codegen.builder import F32, I8, I64, PTR, Builder, Int, Value, vector
from ingot.codegen.elements import gather_element, load_element, scatter_element, store_element
from ingot.codegen.kernel import kernel
from ingot.kernels import expression as expressions
from ingot.kernels.contract import AXES, Reach, elements
from ingot.kernels.expression import Expression
from ingot.kernels.winograd_scheme import Axis, Scheme, Tree, leaves, polynomial

INPUT_SLOTS = (
    "x", *(f"x_{axis}" for axis in AXES), "channels", "height", "width", "top", "left",
    "across", "per_image", "v", "v_strip", "v_block", "v_point", "strip", "first",
)  # fmt: skip
OUTPUT_SLOTS = (
    "m", "out", *(f"out_{axis}" for axis in AXES), "height", "width", "across", "per_image",
    "first", "count", "valid",
)  # fmt: skip


def _plus(k: Builder, total: Value | None, factor: Fraction, value: Value) -> Value | None:
    """total + factor · value; None: nothing yet."""
    if factor == 0:
        return total
    if total is None:
        return value if factor == 1 else k.ir.fmul(k.splat(float(factor), value.type), value)
    if factor in (1, -1):
        return (k.ir.fadd if factor == 1 else k.ir.fsub)(total, value)
    return k.fma(k.splat(float(factor), value.type), value, total)


def _filtered(k: Builder, d: Sequence[Value], weights: Sequence[Fraction]) -> list[Value]:
    """Each value of a line and those behind it, weighed, as far as there are any. The last weight is 1."""
    found: list[Value] = []
    for first in range(len(d) - len(weights) + 1):
        total: Value | None = None
        for power in reversed(range(len(weights))):
            total = _plus(k, total, weights[power], d[first + power])
        assert total is not None
        found.append(total)
    return found


def _finite(k: Builder, d: Sequence[Value], group: Tree) -> list[Value]:
    """Bᵀ d at the points of a group, for as many values: those of each part once the others have filtered."""
    if not isinstance(group, tuple):
        return list(d)
    found: list[Value] = []
    for i, part in enumerate(group):
        others = polynomial(leaves((*group[:i], *group[i + 1 :])))
        found += _finite(k, _filtered(k, d, others), part)
    return found


def line_to_points(k: Builder, axis: Axis, d: Sequence[Value]) -> list[Value]:
    """Bᵀ d for the vectors of a line; infinity's is the last."""
    if not axis.points:
        return list(d)
    first, *others = axis.points
    # What is the same as for the first group, LLVM computes once.
    shared = _filtered(k, d, polynomial(leaves(tuple(others))))
    return [*_finite(k, d[:-1], axis.points), *_filtered(k, shared, polynomial(leaves(first)))]


def _sum(k: Builder, values: Sequence[Value]) -> Value:
    """The sum of one value or more, by halves."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return k.ir.fadd(_sum(k, values[:half]), _sum(k, values[half:]))


def line_from_points(k: Builder, axis: Axis, m: Sequence[Value]) -> list[Value]:
    """Aᵀ m for the vectors of a line; what a and −a share is computed once."""
    *finite, infinite = m
    points = leaves(axis.points)
    even: list[tuple[Fraction, Value]] = []  # a, and what even powers of it weigh
    odd: list[tuple[Fraction, Value]] = []
    for number, (a, value) in enumerate(zip(points, finite, strict=True)):
        if a and -a in points[:number]:
            continue
        opposite = points.index(-a) if a and -a in points else None
        for powers, join in ((even, k.ir.fadd), (odd, k.ir.fsub)):
            powers.append((a, value if opposite is None else join(value, finite[opposite])))
    if not points:
        return [infinite]
    found = [_sum(k, [value for _, value in even])]
    for j in range(1, axis.outputs):
        total: Value | None = None
        for a, value in odd if j % 2 else even:
            total = _plus(k, total, a**j, value)
        total = _plus(k, total, Fraction(int(j == axis.outputs - 1)), infinite)
        assert total is not None
        found.append(total)
    return found


def _two_sided(
    k: Builder,
    scheme: Scheme,
    transform: Callable[[Builder, Axis, Sequence[Value]], list[Value]],
    read: Callable[[int, int], Value],
    write: Callable[[int, int, Value], None],
    rows: int,
    in_registers: bool,
) -> None:
    """`transform` on each column of points or pixels, then on each of the `rows` rows that result.

    Between the two the vectors wait in registers, or in scratch memory, which stays in L1.
    """
    lanes, side = k.machine.lanes, scheme.columns.side
    kept: dict[tuple[int, int], Value] = {}
    for column in range(side):
        line = [read(row, column) for row in range(scheme.rows.side)]
        for row, value in enumerate(transform(k, scheme.rows, line)):
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
        for column, value in enumerate(transform(k, scheme.columns, line)):
            write(row, column, value)


def _place(k: Builder, tile: Value, scheme: Scheme) -> tuple[Value, Value, Value]:
    """Image, and first row and column of the output, of a tile."""
    per_image, across = k.arg("per_image"), k.arg("across")
    image, within = k.div(tile, per_image), k.rem(tile, per_image)
    row, column = k.div(within, across), k.rem(within, across)
    return image, k.mul(row, scheme.rows.outputs), k.mul(column, scheme.columns.outputs)


@kernel(*INPUT_SLOTS)
def to_points(k: Builder, *, scheme: Scheme, gather: bool, tail: bool, source: str = "float32") -> None:
    """Tiles begin..end, counted from tile `first` on, of x, whose dtype is `source`, at the points of
    `scheme`: v [strip of tiles][block of channels][point][tile][lanes].

    Strides of x are in bytes, of v too. Scratch: a vector for each point, then lines of addresses, then
    as many zeros as there are channels, which are read where a tile reaches over the image.
    """
    lanes = k.machine.lanes
    side, line = scheme.columns.side, scheme.line
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
        image, row, column = _place(k, k.add(first, number), scheme)
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

            in_registers = scheme.passes == 1
            _two_sided(k, scheme, line_to_points, read, write, scheme.rows.side, in_registers)

        whole = k.div(channels, lanes)
        with k.loop(0, whole) as block:
            transform(block, masked=False)
        if tail:
            transform(whole, masked=True)


@kernel(*OUTPUT_SLOTS)
def from_points(
    k: Builder,
    *,
    scheme: Scheme,
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
    side, high, wide = scheme.columns.side, scheme.rows.outputs, scheme.columns.outputs
    results = k.at(k.scratch, high * side * lanes, F32)
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
        image, row, column = _place(k, k.add(first, number), scheme)
        source = k.at(k.pointer("m"), k.mul(number, scheme.points * panel * lanes), F32)

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
                k.store(value, results, ((i * wide + j) * vectors + v) * lanes)

            in_registers = scheme.passes == 1 or high * side <= 8 or k.machine.registers >= 32
            _two_sided(k, scheme, line_from_points, point, keep, high, in_registers)

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
        rows, columns = k.min(k.sub(height, row), high), k.min(k.sub(width, column), wide)
        with k.loop(0, rows) as i, k.loop(0, columns) as j:
            found = k.at(results, k.mul(k.add(k.mul(i, wide), j), vectors * lanes), F32)
            finish([k.load(found, type_, v * lanes) for v in range(vectors)], i, j)
