"""The sum of several images, each interpolated to one size, with an epilogue: one pass over the output."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingot.codegen.builder import F32, I32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import memory_element, store_element
from ingot.codegen.kernel import kernel
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View, constant
from ingot.kernels.contract import AXES, Epilogue, Reach
from ingot.kernels.epilogue import finisher, operands_of
from ingot.kernels.expression import Expression
from ingot.kernels.resize import Taps
from ingot.kernels.resize import definition as resized
from ingot.kernels.window import Place, refuse_other_dtypes

#: Neighbours of one output pixel in all images together, whose weights should stay in registers.
MOST_NEIGHBOURS = 24

_SLOTS = (
    "out", "out_image", "out_row", "out_column", "out_height", "out_width", "channels",
)  # fmt: skip
_IMAGE = ("", "_image", "_row", "_column", "_rows", "_row_weights", "_columns", "_column_weights")


@dataclass(frozen=True, slots=True)
class Source:
    """An image [N, C, H, W] and the tables that make its rows and columns those of the output."""

    view: View
    rows: Taps
    columns: Taps

    @property
    def neighbours(self) -> int:
        """Pixels that make one of the output."""
        return self.rows.count * self.columns.count


@dataclass(frozen=True, slots=True)
class Form:
    """What of a source changes the code: its taps, and whether they have weights."""

    rows: int
    columns: int
    row_weights: bool
    column_weights: bool


def definition(images: Sequence[np.ndarray], tables: Sequence[tuple[Taps, Taps]]) -> np.ndarray:
    """The plain meaning: Σ of images [N, C, H, W], each with rows and columns replaced through its tables."""
    terms = [
        resized(image.astype(np.float64), {2: rows, 3: columns})
        for image, (rows, columns) in zip(images, tables, strict=True)
    ]
    return np.sum(terms, axis=0)


@kernel(*_SLOTS)
def interpolate(
    k: Builder,
    *,
    forms: tuple[Form, ...],
    masked: bool,
    out: str,
    epilogue: Expression | None,
    reaches: tuple[Reach, ...],
    operands: tuple[str, ...],
) -> None:
    """A tile is a row of an output image; a vector holds channels of one pixel."""
    del operands  # they are in the slots already
    lanes, stored = k.machine.lanes, memory_element(out)
    type_ = vector(F32, lanes)
    size = {name: k.arg(name) for name in _SLOTS if name != "out"}
    target_image = k.pointer("out")
    prepare, finish = finisher(k, epilogue, reaches)

    def taps(i: int, axis: str, count: int, weighted: bool, place: Int) -> tuple[list[Value], list[Value]]:
        """Indices and weights (none: all 1) of one output place."""
        first = k.mul(place, count)
        table = k.at(k.pointer(f"s{i}_{axis}s"), first, I32)
        index = [k.ir.sext(k.load(table, I32, t), I64) for t in range(count)]
        weights = k.at(k.pointer(f"s{i}_{axis}_weights"), first, F32)
        return index, [k.load(weights, F32, t) for t in range(count)] if weighted else []

    with k.loop(k.begin, k.end) as tile:
        row, image = k.rem(tile, size["out_height"]), k.div(tile, size["out_height"])
        target = k.add(k.mul(image, size["out_image"]), k.mul(row, size["out_row"]))
        lines: list[tuple[list[Value], list[Value]]] = []
        for i, form in enumerate(forms):
            source = k.at(k.pointer(f"s{i}"), k.mul(image, k.arg(f"s{i}_image")), F32)
            index, weights = taps(i, "row", form.rows, form.row_weights, row)
            lines.append(([k.at(source, k.mul(r, k.arg(f"s{i}_row")), F32) for r in index], weights))
        with k.loop(0, size["out_width"]) as column:
            here = k.at(target_image, k.add(target, k.mul(column, size["out_column"])), stored)
            pixels: list[tuple[Value, Value | None]] = []
            for i, (form, (starts, row_weights)) in enumerate(zip(forms, lines, strict=True)):
                index, weights = taps(i, "column", form.columns, form.column_weights, column)
                offsets = [k.mul(c, k.arg(f"s{i}_column")) for c in index]
                for r, start in enumerate(starts):
                    for c, offset in enumerate(offsets):
                        own = [w[t] for w, t in ((row_weights, r), (weights, c)) if w]
                        weight = None if not own else own[0] if len(own) == 1 else k.ir.fmul(*own)
                        pixels.append(
                            (
                                k.at(start, offset, F32),
                                None if weight is None else k.broadcast(weight, lanes),
                            )
                        )
            with k.loop(0, size["channels"], lanes) as channel:
                mask = k.lanes_below(k.sub(size["channels"], channel), lanes) if masked else None
                total: Value | None = None
                for pointer, weight in pixels:
                    value = k.load(k.at(pointer, channel, F32), type_, mask=mask)
                    if weight is None:
                        total = value if total is None else k.ir.fadd(total, value)
                    else:
                        total = k.ir.fmul(value, weight) if total is None else k.fma(value, weight, total)
                place = Place(image, channel, row, column, mask)
                (value,) = finish([total], [place], prepare(place))
                store_element(k, value, k.at(here, channel, stored), out, mask=mask)


def interpolate_sum(
    sources: Sequence[Source], out: View, epilogue: Epilogue | None, machine: Machine
) -> list[Call]:
    """out [N, C, Ho, Wo] = epilogue(Σ of the interpolated sources); channels lie side by side everywhere.

    Raises UnsupportedOperatorError if a source, or out where no epilogue converts to its dtype, is not
    float32; ValueError for channels that lie apart, and for tables that extrapolate.
    """
    expression, extra = (epilogue.expression, epilogue.operands) if epilogue else (None, ())
    views = [source.view for source in sources]
    refuse_other_dtypes("interpolation", *views, *([] if expression else [out]))
    if out.size == 0:
        return []
    if any(view.strides[1] != 1 and view.shape[1] > 1 for view in (*views, out)):
        raise ValueError("interpolate_sum wants channels side by side")
    if any((table.index < 0).any() for s in sources for table in (s.rows, s.columns)):
        raise ValueError("interpolate_sum does not extrapolate")
    images, channels, height, width = out.shape
    spread = [v.broadcast_to(out.shape) for v in extra]
    reaches, names, numbers = operands_of([(v.dtype, v.strides) for v in spread], channels)
    slots: list[int | View] = [*numbers]
    slots[:: 1 + len(AXES)] = extra
    forms: list[Form] = []
    arguments: list[int | View] = [
        out, out.strides[0], out.strides[2], out.strides[3], height, width, channels,
    ]  # fmt: skip
    tables: list[View] = []
    for source in sources:
        rows, columns = source.rows, source.columns
        forms.append(Form(rows.count, columns.count, rows.weight is not None, columns.weight is not None))
        own = [_table(a) for a in (rows.index, rows.weight, columns.index, columns.weight)]
        image, _, row, column = source.view.strides
        arguments += [source.view, image, row, column, *own]
        tables += own
    code = interpolate(
        forms=tuple(forms),
        masked=channels % machine.lanes != 0,
        out=out.dtype.name,
        epilogue=expression,
        reaches=reaches,
        operands=(*(f"s{i}{part}" for i in range(len(sources)) for part in _IMAGE), *names),
    )
    return [
        Call(
            code,
            [*arguments, *slots],
            tiles=images * height,
            reads=[*views, *tables, *extra],
            writes=[out],
            flops=2 * out.size * sum(source.neighbours for source in sources),
            label="interpolate",
        )
    ]


def _table(array: np.ndarray | None) -> View:
    """Numbers of taps as int32, weights as float32."""
    if array is None:
        return constant(np.zeros(1, np.float32))
    return constant(np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else np.int32))
