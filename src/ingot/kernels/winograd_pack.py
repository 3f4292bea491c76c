"""Filters of Winograd's convolution: evaluated at the points in float64, rounded once, packed in panels."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ingot.codegen.builder import F32, F64, Builder, Value, vector
from ingot.codegen.kernel import kernel
from ingot.codegen.machine import Machine
from ingot.codegen.pages import passing
from ingot.errors import ShapeError
from ingot.kernels.call import View, constant
from ingot.kernels.contract import PANEL_VECTORS, UNROLL
from ingot.kernels.pack import aligned_floats, check_packable, pack_weights, run_now
from ingot.kernels.winograd_scheme import Scheme, filter_matrix, upright

PACK_SLOTS = ("source", "source_panel", "target", "inputs", "rows")


@dataclass(frozen=True, slots=True)
class WinogradWeights:
    """Filters [O, C, …] at the points: [panels][point][C, up to whole steps][panel], zero-padded.

    turned: they have one row, and are packed as a column.
    """

    view: View
    scheme: Scheme
    inputs: int
    outputs: int
    rows: int
    panel: int
    turned: bool

    @property
    def panels(self) -> int:
        """Groups of output channels that are computed together."""
        return -(-self.outputs // self.panel)


@kernel(*PACK_SLOTS)
def filters_to_points(k: Builder, *, scheme: Scheme, panel: int) -> None:
    """Panels begin..end: from [panel][source_panel rows][lanes], a row for each (channel, tap), to
    [panel][point][rows][lanes]; G w Gᵀ in float64. `panel` vectors are in a row.
    """
    lanes, (high, wide) = k.machine.lanes, scheme.kernel
    down, across = filter_matrix(scheme.rows), filter_matrix(scheme.columns)
    double, width = vector(F64, lanes), panel * lanes
    inputs, rows = k.arg("inputs"), k.arg("rows")
    plane = k.mul(rows, width)

    def dot(weights: np.ndarray, values: list[Value]) -> Value:
        total: Value | None = None
        for weight, value in zip(weights, values, strict=True):
            if weight != 0:
                factor = k.splat(float(weight), double)
                total = k.ir.fmul(factor, value) if total is None else k.fma(factor, value, total)
        assert total is not None
        return total

    with k.loop(k.begin, k.end) as number:
        source = k.at(k.pointer("source"), k.mul(number, k.mul(k.arg("source_panel"), width)), F32)
        target = k.at(k.pointer("target"), k.mul(number, k.mul(plane, scheme.points)), F32)
        with k.loop(0, inputs) as channel, k.loop(0, panel) as v:
            here = k.at(source, k.add(k.mul(channel, high * wide * width), k.mul(v, lanes)), F32)
            out = k.at(target, k.add(k.mul(channel, width), k.mul(v, lanes)), F32)
            taps = [
                k.ir.fpext(k.load(here, vector(F32, lanes), tap * width), double)
                for tap in range(high * wide)
            ]
            for row in down:
                line = [dot(row, taps[j::wide]) for j in range(wide)]
                for column in across:
                    k.store(k.ir.fptrunc(dot(column, line), vector(F32, lanes)), out)
                    out = k.at(out, plane, F32)
        zero = k.zero(vector(F32, lanes))
        with k.loop(0, scheme.points) as point, k.loop(inputs, rows) as row:
            rest = k.at(target, k.add(k.mul(point, plane), k.mul(row, width)), F32)
            for v in range(panel):
                k.store(zero, rest, v * lanes)


def pack_winograd(weights: np.ndarray, scheme: Scheme, machine: Machine) -> WinogradWeights:
    """Filters [O, C, k] or [O, C, kh, kw] of float32, float16 or bfloat16 for `winograd_conv2d`.

    Raises UnsupportedOperatorError for another dtype, ShapeError for other filters.
    """
    check_packable("filters of Winograd's convolution", weights.dtype)
    if weights.ndim not in (3, 4) or upright(weights.shape[2:]) != scheme.kernel:
        rows, columns = scheme.kernel
        raise ShapeError(
            f"Winograd weights: found {weights.shape}, wanted [O, C, {rows}, {columns}]"
            + (f", [O, C, 1, {rows}] or [O, C, {rows}]" if columns == 1 else "")
            + "; use the direct convolution"
        )
    outputs, inputs, *kernel = weights.shape
    rows = -(-inputs // UNROLL) * UNROLL
    with passing():
        turned = pack_weights(np.ascontiguousarray(weights).reshape(outputs, -1).T, machine)
    memory = aligned_floats(turned.panels * scheme.points * rows * turned.panel)
    packed = WinogradWeights(
        constant(memory), scheme, inputs, outputs, rows, turned.panel, tuple(kernel) != scheme.kernel
    )
    if memory.size:
        source = turned.view.buffer.array
        assert source is not None
        arguments = [source.ctypes.data, turned.rows, memory.ctypes.data, inputs, rows]
        code = filters_to_points(scheme=scheme, panel=PANEL_VECTORS)
        run_now(code, arguments, turned.panels, machine)
    return packed
