"""LSTM, GRU and plain recurrent layers: what the inputs contribute is one matrix product over all steps; then
a kernel goes through the steps in waves.

A wave is a step: its tiles are (direction, share of the hidden units, a few sequences), and none begins
before the step before it is done. So a single sequence is shared out among threads as well, and each of them
keeps the recurrent weights of its units in its own cache. (A GRU whose reset gate comes before its last
product takes two waves for a step.) Vectors hold neighbouring hidden units, and a unit's gates are computed
together. The weights of a block of units lie together, in the order in which they are read:
[direction][block][unit of the state][gate][lanes].
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ingot.codegen import math as vector_math
from ingot.codegen.builder import I32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import bytes_of, register_element
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.lanes import Lanes
from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels import definitions as plain
from ingot.kernels.call import Buffer, Call, View, constant, row_major
from ingot.kernels.contract import Epilogue
from ingot.kernels.contraction import Matrices, multiply, pack_matrices
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, Step
from ingot.kernels.gemm import matmul
from ingot.kernels.operations import OPERATIONS
from ingot.kernels.pack import PackedWeights, aligned_floats, pack_weights
from ingot.kernels.sliced import FEWEST_ROWS, cycles, direct_cycles, slice_matrix, sliced_matmul
from ingot.kernels.slices import SlicedWeights

Kind = Literal["LSTM", "GRU", "RNN"]

_SLOTS = (
    "batch", "blocks", "shares", "directions", "hidden", "reverse",
    "inputs", "inputs_row", "weights", "late_weights", "late_bias", "peepholes", "lengths",
    "states", "cells", "updates",
    "h0", "h0_direction", "h0_row", "c0", "c0_direction", "c0_row",
    "y", "y_step", "y_direction", "y_row",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Activation:
    """A function of a gate, by ONNX's name, with its parameters."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0


#: What they mean, of x, alpha and beta; the defaults of these, None where a function has none.
ACTIVATIONS: dict[
    str, tuple[Callable[[np.ndarray, float, float], np.ndarray], float | None, float | None]
] = {
    "Relu": (lambda x, _a, _b: np.maximum(x, 0.0), None, None),
    "Tanh": (lambda x, _a, _b: np.tanh(x), None, None),
    "Sigmoid": (lambda x, _a, _b: plain.sigmoid(x), None, None),
    "Affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "LeakyRelu": (lambda x, a, _b: np.where(x < 0, a * x, x), plain.LEAKY_ALPHA, None),
    "ThresholdedRelu": (lambda x, a, _b: np.where(x >= a, x, 0.0), 1.0, None),
    "ScaledTanh": (lambda x, a, b: a * np.tanh(b * x), 1.0, 1.0),
    "HardSigmoid": (lambda x, a, b: np.clip(a * x + b, 0.0, 1.0), plain.HARD_ALPHA, 0.5),
    "Elu": (lambda x, a, _b: np.where(x >= 0, x, a * np.expm1(x)), 1.0, None),
    "Softsign": (lambda x, _a, _b: x / (1.0 + np.abs(x)), None, None),
    "Softplus": (lambda x, _a, _b: plain.softplus(x), None, None),
}

_SIGMOID, _TANH = Activation("Sigmoid"), Activation("Tanh")
DEFAULTS: dict[Kind, tuple[Activation, ...]] = {
    "LSTM": (_SIGMOID, _TANH, _TANH),
    "GRU": (_SIGMOID, _TANH),
    "RNN": (_TANH,),
}
#: Those of the activations that are elementwise operators by themselves.
_PARAMETERS = {
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Elu": ("alpha",),
    "Softsign": (),
    "Softplus": (),
}
_UNROLL = 4
#: Arithmetic of a tile, at least: some 0.5 µs, for which claiming it is a few percent.
_LEAST_FLOPS = 100_000


@dataclass(frozen=True, slots=True)
class Form:
    """What of a layer changes the code. `rows`: sequences in a tile. late: whether the GRU's reset gate is
    applied before its last product ("before": that one waits for the gates), after it ("after"), or there is
    none.
    """

    kind: Kind
    rows: int
    activations: tuple[Activation, ...]
    late: Literal["none", "before", "after"]
    masked: bool
    peepholes: bool
    every: bool  # whether the states of all steps are wanted
    dtype: str = "float32"
    clip: float | None = None
    input_forget: bool = False


@dataclass(frozen=True, slots=True)
class RecurrentWeights:
    """A layer's constants as the kernels read them. inputs: [I, directions * gates * H]."""

    kind: Kind
    dtype: str
    hidden: int
    directions: int
    activations: tuple[Activation, ...]
    linear_before_reset: bool
    clip: float | None
    input_forget: bool
    inputs: PackedWeights | Matrices
    input_slices: SlicedWeights | None
    bias: View
    weights: View
    late_weights: View
    late_bias: View
    peepholes: View | None


def pack_recurrent(
    kind: Kind,
    w: np.ndarray,
    r: np.ndarray,
    b: np.ndarray | None,
    p: np.ndarray | None,
    machine: Machine,
    *,
    linear_before_reset: bool = False,
    activations: Sequence[Activation] | None = None,
    clip: float | None = None,
    input_forget: bool = False,
    tiles: bool = False,
) -> RecurrentWeights:
    """Pack constants of ONNX's LSTM, GRU or RNN: w [D, gates * H, I], r [D, gates * H, H], b [D, 2 * gates *
    H], p [D, 3 * H] (LSTM's peepholes), for D directions, which have the same activations. Float64 is
    computed in float64, the other floats in float32. clip: the bound of what activations get. input_forget:
    LSTM's forget gate is one minus its input gate. tiles: the inputs of long sequences are multiplied on tile
    registers.
    """
    directions, rows, _ = w.shape
    wide = np.dtype(np.float64 if w.dtype == np.float64 else np.float32)
    hidden, lanes = r.shape[2], machine.vector_bytes // wide.itemsize
    gates = rows // max(hidden, 1)
    blocks = -(-hidden // lanes)
    biases = (
        np.zeros((directions, 2, gates, hidden), wide)
        if b is None
        else b.reshape(directions, 2, gates, hidden)
    )
    early = biases.sum(1, dtype=wide)
    late_bias = np.zeros((directions, hidden), wide)
    if (
        kind == "GRU" and linear_before_reset
    ):  # the bias of the last product is inside what the reset gate multiplies
        early[:, 2], late_bias = biases[:, 0, 2], biases[:, 1, 2].astype(wide)

    panels = np.zeros((directions, gates, blocks * lanes, hidden), wide)
    panels[:, :, :hidden] = r.reshape(directions, gates, hidden, hidden)
    panels = panels.reshape(directions, gates, blocks, lanes, hidden).transpose(0, 2, 4, 1, 3)
    first = 2 if kind == "GRU" and not linear_before_reset else gates
    inputs = np.asarray(w, wide).reshape(directions * rows, -1).T
    is_wide = wide == np.float64
    return RecurrentWeights(
        kind,
        wide.name,
        hidden,
        directions,
        tuple(activations or DEFAULTS[kind]),
        linear_before_reset,
        clip,
        input_forget,
        pack_matrices(inputs, machine) if is_wide else pack_weights(inputs, machine),
        slice_matrix(inputs, machine) if tiles and not is_wide else None,
        constant(np.ascontiguousarray(early.reshape(-1))),
        constant(_aligned(panels[:, :, :, :first])),
        constant(_aligned(panels[:, :, :, first:])),
        constant(np.ascontiguousarray(late_bias)),
        None if p is None else constant(np.ascontiguousarray(p, wide)),
    )


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy from whose lines vectors are loaded whole: across two of them, a step took half as long more."""
    memory = aligned_floats(array.nbytes // 4).view(array.dtype).reshape(array.shape)
    memory[...] = array
    return memory


def applied(activation: Activation, clip: float | None) -> Callable[[np.ndarray], np.ndarray]:
    """The plain meaning of an activation."""
    function, alpha, beta = ACTIVATIONS[activation.name][0], activation.alpha, activation.beta
    return lambda x: function(x if clip is None else np.clip(x, -clip, clip), alpha, beta)


def definition(
    kind: Kind,
    x: np.ndarray,
    w: np.ndarray,
    r: np.ndarray,
    b: np.ndarray,
    p: np.ndarray,
    lengths: np.ndarray,
    h: np.ndarray,
    c: np.ndarray,
    *,
    reverse: Sequence[bool],
    linear_before_reset: bool = False,
    activations: Sequence[Activation] | None = None,
    clip: float | None = None,
    input_forget: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The plain meaning in float64, step by step: x [T, B, I], h and c [D, B, H]; y [T, D, B, H], the last h
    and c.
    """
    act = [applied(activation, clip) for activation in activations or DEFAULTS[kind]]
    steps, batch, _ = x.shape
    directions, hidden = h.shape[0], h.shape[2]
    x, w, r, b, p, h, c = (a.astype(np.float64) for a in (x, w, r, b, p, h, c))
    y = np.zeros((steps, directions, batch, hidden))
    for d in range(directions):
        gates = w.shape[1] // hidden
        bias, late_bias = b[d, : gates * hidden], b[d, gates * hidden :]
        pi, po, pf = np.split(p[d], 3)
        for n in range(batch):
            order = range(int(lengths[n]))
            for t in reversed(order) if reverse[d] else order:
                state = h[d, n]
                from_x = np.split(w[d] @ x[t, n] + bias, gates)
                from_h = np.split(r[d] @ state + late_bias, gates)
                if kind == "RNN":
                    state = act[0](from_x[0] + from_h[0])
                elif kind == "GRU":
                    z, reset = (act[0](from_x[i] + from_h[i]) for i in range(2))
                    late = r[d][2 * hidden :]
                    rest = late_bias[2 * hidden :]
                    product = reset * from_h[2] if linear_before_reset else late @ (reset * state) + rest
                    state = (1 - z) * act[1](from_x[2] + product) + z * state
                else:
                    i, o, f, g = (from_x[k] + from_h[k] for k in range(4))
                    old = c[d, n]
                    admitted = act[0](i + pi * old)
                    forget = 1 - admitted if input_forget else act[0](f + pf * old)
                    new = forget * old + admitted * act[1](g)
                    state = act[0](o + po * new) * act[2](new)
                    c[d, n] = new
                h[d, n] = y[t, d, n] = state
    return y, h, c


@kernel(*_SLOTS)
def step_through(k: Builder, *, form: Form) -> None:
    """Tiles begin..end of (step, direction, share of the units, up to `rows` sequences); steps are waves."""
    _Steps(k, form).emit()


class _Steps:
    """The code that takes some units of some sequences through a step."""

    def __init__(self, k: Builder, form: Form) -> None:
        self.k, self.form = k, form
        self.lanes = k.machine.vector_bytes // bytes_of(form.dtype)
        self.element = register_element(form.dtype)
        self.type = vector(self.element, self.lanes)
        self.size = {name: k.arg(name) for name in ("batch", "blocks", "shares", "directions", "hidden")}
        self.unit_blocks = k.ceil_div(self.size["hidden"], self.lanes)
        self.padded = k.mul(self.unit_blocks, self.lanes)
        self.gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[form.kind]
        self.early = 2 if form.late == "before" else self.gates

    def emit(self) -> None:
        k, size = self.k, self.size
        tiles_of_wave = k.mul(k.mul(size["directions"], size["shares"]), size["blocks"])
        with k.loop(k.begin, k.end) as tile:
            wave, rest = k.div(tile, tiles_of_wave), k.rem(tile, tiles_of_wave)
            block, rest = k.rem(rest, size["blocks"]), k.div(rest, size["blocks"])
            share, direction = k.rem(rest, size["shares"]), k.div(rest, size["shares"])
            units = [
                k.mul(k.div(k.mul(k.add(share, i), self.unit_blocks), size["shares"]), self.lanes)
                for i in (0, 1)
            ]
            last = k.sub(size["batch"], 1)
            # A row beyond the last sequence computes that one again, and writes the same.
            rows = [k.min(k.add(k.mul(block, self.form.rows), p), last) for p in range(self.form.rows)]
            phases = 2 if self.form.late == "before" else 1
            _Tile(self, k.div(wave, phases), direction, rows, (units[0], units[1])).emit(k.rem(wave, phases))


class _Tile:
    """One tile: some units (`units`: from, to) of some sequences (`rows`) of a direction, in one step."""

    def __init__(
        self, layer: _Steps, step: Value, direction: Value, rows: list[Int], units: tuple[Value, Value]
    ) -> None:
        self.layer, self.step, self.direction, self.rows, self.units = layer, step, direction, rows, units
        self.k, self.form, self.size = layer.k, layer.form, layer.size
        self.element, self.type = layer.element, layer.type
        k = self.k
        lengths = [k.ir.sext(k.load(k.pointer("lengths"), I32, row), I64) for row in rows]
        backwards = k.compare("!=", k.ir.and_(k.ir.lshr(k.arg("reverse"), direction), I64(1)), 0)
        self.live = [k.compare("<", step, length) for length in lengths]
        self.times = [
            k.choose(k.ir.and_(backwards, alive), k.sub(k.sub(length, 1), step), step)
            for alive, length in zip(self.live, lengths, strict=True)
        ]
        first, odd = k.compare("==", step, 0), k.rem(step, 2)
        # Even and odd steps take turns: a row may be computed twice, from the same old state. The first step
        # reads what was there before it.
        even = k.sub(1, odd)

        def before(given: str, held: str) -> list[Value]:
            return [k.ir.select(first, self._given(given, row), self._held(held, row, odd)) for row in rows]

        self.old = before("h0", "states")
        self.old_cell = before("c0", "cells") if self.form.kind == "LSTM" else []
        self.new = [self._held("states", row, even) for row in rows]
        self.cell = [self._held("cells", row, even) for row in rows]

    def _given(self, name: str, row: Int) -> Value:
        """The address of a sequence's vector in an array [direction, sequence, unit] with strides."""
        k = self.k
        offset = k.add(k.mul(self.direction, k.arg(f"{name}_direction")), k.mul(row, k.arg(f"{name}_row")))
        return k.at(k.pointer(name), offset, self.element)

    def _held(self, name: str, row: Int, which: Int = 0) -> Value:
        """The address of a sequence's vector in arrays [which][direction][sequence][unit] of the layer."""
        k = self.k
        place = k.add(k.mul(which, self.size["directions"]), self.direction)
        place = k.mul(k.add(k.mul(place, self.size["batch"]), row), self.layer.padded)
        return k.at(k.pointer(name), place, self.element)

    def _mask(self, unit: Int) -> Value | None:
        if not self.form.masked:
            return None
        return self.k.lanes_below(self.k.sub(self.size["hidden"], unit), self.layer.lanes)

    def _product(self, weights: Value, gates: int, states: list[Value], sums: list[list[Value]]) -> None:
        """sums[row][gate] += Σ_j weights[j][gate] · states[row][j], for the block of units that `weights`
        points to.
        """
        k, rows, lanes = self.k, self.form.rows, self.layer.lanes
        # Few sums would wait for each other: then each is split in several, by the unit's number.
        parts = max(1, min(_UNROLL, 8 // (rows * gates)))
        flat = [value for row in sums for value in row]
        flat += [k.zero(self.type)] * (len(flat) * (parts - 1))

        def multiply(unit: Int, count: int) -> None:
            here = k.at(weights, k.mul(unit, gates * lanes), self.element)
            lines = [k.at(state, unit, self.element) for state in states]
            for j in range(count):
                held = [k.load(here, self.type, (j * gates + g) * lanes) for g in range(gates)]
                for p in range(rows):
                    element = k.broadcast(k.load(lines[p], self.element, j), lanes)
                    for g in range(gates):
                        at = ((j % parts) * rows + p) * gates + g
                        flat[at] = k.fma(element, held[g], flat[at])

        whole = k.mul(k.div(self.size["hidden"], _UNROLL), _UNROLL)
        with k.loop(0, whole, _UNROLL, carry=flat) as unit:
            multiply(unit, _UNROLL)
        with k.loop(whole, self.size["hidden"], carry=flat) as unit:
            multiply(unit, 1)
        while len(flat) > rows * gates:
            half = len(flat) // 2
            flat = [k.ir.fadd(a, b) for a, b in zip(flat[:half], flat[half:], strict=True)]
        for p in range(rows):
            sums[p] = flat[p * gates : (p + 1) * gates]

    def _activate(self, i: int, value: Value) -> Value:
        k, own, clip, dtype = self.k, self.form.activations[i], self.form.clip, self.form.dtype
        x = Lanes(k, value)
        if clip is not None:
            x = x.at_least(-clip).at_most(clip)
        if own.name == "Relu":
            return k.ir.select(
                k.ir.fcmp_unordered("<", x.value, k.zero(self.type)), k.zero(self.type), x.value
            )
        if own.name == "Sigmoid":
            return vector_math.sigmoid(k, x.value)
        if own.name == "Affine":
            return (x * own.alpha + own.beta).value
        if own.name == "ThresholdedRelu":
            return x.where(x >= own.alpha, 0.0).value
        if own.name in ("Tanh", "ScaledTanh"):
            if own.name == "Tanh":
                return vector_math.tanh(k, x.value)
            return (Lanes(k, vector_math.tanh(k, (x * own.beta).value)) * own.alpha).value
        given = {"alpha": own.alpha, "beta": own.beta}
        attrs = {name: given[name] for name in _PARAMETERS[own.name]}
        return OPERATIONS[own.name].emit(k, [x.value], (dtype,), dtype, attrs)

    def emit(self, phase: Value) -> None:
        """All units of the tile; `phase` 0 or 1 of a step that takes two waves."""
        k, form = self.k, self.form
        if form.late != "before":
            self._each_unit(self._whole)
            return
        with k.when(k.compare("==", phase, 0)):
            self._each_unit(self._gates_first)
        with k.when(k.compare("==", phase, 1)):
            self._each_unit(self._candidate_last)

    def _each_unit(self, emit: Callable[[Value, Value | None], None]) -> None:
        with self.k.loop(*self.units, self.layer.lanes) as unit:
            emit(unit, self._mask(unit))

    def _from_input(self, p: int, gate: int, unit: Int, mask: Value | None) -> Value:
        """What the inputs contribute to a gate."""
        k, units = self.k, self.size["hidden"]
        row = k.add(k.mul(self.times[p], self.size["batch"]), self.rows[p])
        width = k.mul(units, self.layer.gates)
        offset = k.add(k.mul(row, k.arg("inputs_row")), k.mul(self.direction, width), k.mul(units, gate))
        return k.load(k.at(k.pointer("inputs"), offset, self.element), self.type, unit, mask=mask)

    def _weights(self, name: str, gates: int, unit: Int) -> Value:
        """The recurrent weights of the block of units that begins at `unit`."""
        k, units = self.k, self.size["hidden"]
        block = k.add(k.mul(self.direction, self.layer.padded), unit)
        return k.at(k.pointer(name), k.mul(block, k.mul(units, gates)), self.element)

    def _store(self, p: int, unit: Int, mask: Value | None, value: Value) -> None:
        """Keep a sequence's new state, or, after its end, the one before."""
        k = self.k
        old = k.load(self.old[p], self.type, unit, mask=mask)
        k.store(k.ir.select(self.live[p], value, old), self.new[p], unit)
        if self.form.every:
            offset = k.add(k.mul(self.times[p], k.arg("y_step")), k.mul(self.direction, k.arg("y_direction")))
            target = k.at(k.pointer("y"), k.add(offset, k.mul(self.rows[p], k.arg("y_row"))), self.element)
            k.store(k.ir.select(self.live[p], value, k.zero(self.type)), target, unit, mask=mask)

    def _whole(self, unit: Value, mask: Value | None) -> None:
        """A step in one wave."""
        k, form = self.k, self.form
        separate = form.late == "after"

        def start(p: int, gate: int) -> Value:
            if not (separate and gate == 2):
                return self._from_input(p, gate, unit, mask)
            bias = k.at(k.pointer("late_bias"), k.mul(self.direction, self.size["hidden"]), self.element)
            return k.load(bias, self.type, unit, mask=mask)

        sums = [[start(p, gate) for gate in range(self.layer.gates)] for p in range(form.rows)]
        self._product(self._weights("weights", self.layer.gates, unit), self.layer.gates, self.old, sums)
        for p in range(form.rows):
            if form.kind == "RNN":
                self._store(p, unit, mask, self._activate(0, sums[p][0]))
            elif form.kind == "LSTM":
                self._store(p, unit, mask, self._lstm(p, unit, mask, sums[p]))
            else:
                z, reset = (self._activate(0, sums[p][g]) for g in range(2))
                added = self._from_input(p, 2, unit, mask)
                candidate = self._activate(1, k.fma(reset, sums[p][2], added))
                self._store(p, unit, mask, self._mixed(p, unit, mask, z, candidate))

    def _mixed(self, p: int, unit: Value, mask: Value | None, z: Value, candidate: Value) -> Value:
        """(1 - z) · candidate + z · the state before."""
        state = self.k.load(self.old[p], self.type, unit, mask=mask)
        return self.k.fma(z, self.k.ir.fsub(state, candidate), candidate)

    def _gates_first(self, unit: Value, mask: Value | None) -> None:
        """A GRU's gates: keeps z, and the reset gate times the state, which the last product needs whole."""
        k, early = self.k, self.layer.early
        sums = [[self._from_input(p, g, unit, mask) for g in range(early)] for p in range(self.form.rows)]
        self._product(self._weights("weights", early, unit), early, self.old, sums)
        for p, row in enumerate(self.rows):
            z, reset = (self._activate(0, sums[p][g]) for g in range(2))
            state = k.load(self.old[p], self.type, unit, mask=mask)
            k.store(z, self._held("updates", row), unit)
            k.store(k.ir.fmul(reset, state), self.cell[p], unit)

    def _candidate_last(self, unit: Value, mask: Value | None) -> None:
        """A GRU's last product, and its new state."""
        k = self.k
        sums = [[self._from_input(p, 2, unit, mask)] for p in range(self.form.rows)]
        self._product(self._weights("late_weights", 1, unit), 1, self.cell, sums)
        for p, row in enumerate(self.rows):
            z = k.load(self._held("updates", row), self.type, unit)
            self._store(p, unit, mask, self._mixed(p, unit, mask, z, self._activate(1, sums[p][0])))

    def _lstm(self, p: int, unit: Value, mask: Value | None, sums: list[Value]) -> Value:
        """The new state; the new cell goes to its memory. Gates are in ONNX's order: input, output, forget,
        cell.
        """
        k = self.k
        i, o, f, g = sums
        old = k.load(self.old_cell[p], self.type, unit, mask=mask)

        def peep(gate: int, cell: Value, value: Value) -> Value:
            if not self.form.peepholes:
                return value
            first = k.mul(k.add(k.mul(self.direction, 3), gate), self.size["hidden"])
            weight = k.load(k.at(k.pointer("peepholes"), first, self.element), self.type, unit, mask=mask)
            return k.fma(weight, cell, value)

        gate = self._activate(0, peep(0, old, i))
        if self.form.input_forget:
            forget = k.ir.fsub(k.splat(1.0, self.type), gate)
        else:
            forget = self._activate(0, peep(2, old, f))
        cell = k.fma(forget, old, k.ir.fmul(gate, self._activate(1, g)))
        k.store(k.ir.select(self.live[p], cell, old), self.cell[p], unit)
        return k.ir.fmul(self._activate(0, peep(1, cell, o)), self._activate(2, cell))


def recurrent(
    x: View,
    weights: RecurrentWeights,
    y: View | None,
    last_h: View | None,
    last_c: View | None,
    machine: Machine,
    *,
    reverse: Sequence[bool] = (False,),
    lengths: View | None = None,
    h0: View | None = None,
    c0: View | None = None,
) -> list[Call]:
    """Calls for a layer: x [T, B, I] to y [T, D, B, H] and the last states [D, B, H], any strides; all of the
    dtype that the weights were packed for, float32 or float64.

    reverse: for each direction, whether it goes from a sequence's end to its beginning. lengths: int32 [B],
    each at most T; beyond a sequence's end y is 0 and the state stays. h0, c0 [D, B, H]: where None, zeros.
    (Layouts with the batch first are a matter of strides.) Raises UnsupportedOperatorError for other dtypes.
    """
    views = {"x": x, "y": y, "last_h": last_h, "last_c": last_c, "h0": h0, "c0": c0}
    for name, view in views.items():
        if view is not None and view.dtype.name != weights.dtype:
            raise UnsupportedOperatorError(
                f"{weights.kind}: {name} is {view.dtype.name}, its weights are computed in {weights.dtype}; "
                "cast it"
            )
    if lengths is not None and lengths.dtype != np.int32:
        raise UnsupportedOperatorError(
            f"{weights.kind}: sequence lengths are {lengths.dtype.name}, wanted int32"
        )
    steps, batch, _ = x.shape
    kind, hidden, directions = weights.kind, weights.hidden, weights.directions
    if batch == 0 or hidden == 0:
        return []
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    width = directions * gates * hidden
    dtype = weights.dtype
    products = _dense((steps, batch, width), dtype)
    calls = _input_products(x, weights, products, machine) if steps else []

    before: list[Call] = []
    after: list[Call] = []

    def source(view: View | None) -> View | None:
        if view is None or view.strides[-1] == 1 or view.shape[-1] == 1:
            return view
        dense = _dense(view.shape, dtype)
        before.append(copy(view, dense, machine))
        return dense

    def target(view: View | None) -> View | None:
        if view is None or view.strides[-1] == 1 or view.shape[-1] == 1:
            return view
        dense = _dense(view.shape, dtype)
        after.append(copy(dense, view, machine))
        return dense

    h, c = (source(v) for v in (h0, c0))
    every = target(y)
    if lengths is None:
        lengths = constant(np.full(batch, steps, np.int32))
    elif lengths.strides[0] != 1 and batch > 1:
        dense = View(Buffer(4 * batch), 0, lengths.dtype, lengths.shape, (1,))
        before.append(copy(lengths, dense, machine))
        lengths = dense
    lanes = machine.vector_bytes // bytes_of(dtype)
    padded = -(-hidden // lanes) * lanes
    nothing = View(
        _zeros(padded * bytes_of(dtype)), 0, np.dtype(dtype), (directions, batch, hidden), (0, 0, 1)
    )
    h, c = h or nothing, c or nothing
    states = _dense((2, directions, batch, padded), dtype)
    is_late = _late(weights) == "before"  # then "cells" holds the states times the reset gates
    cells = _dense(states.shape, dtype) if kind == "LSTM" or is_late else None
    updates = _dense(states.shape[1:], dtype) if is_late else None
    if steps:
        held = (states, cells, updates)
        calls.append(_steps_call(weights, products, lengths, h, c, every, held, machine, reverse))
    for state, given, wanted in ((states, h, last_h), (cells, c, last_c)):
        if wanted is not None and state is not None:
            last = state.with_dims(wanted.shape, state.strides[1:], steps % 2 * state.strides[0])
            after.append(copy(last if steps else given, wanted, machine))
    return [*before, *calls, *after]


def _steps_call(
    weights: RecurrentWeights,
    products: View,
    lengths: View,
    h: View,
    c: View,
    y: View | None,
    held: tuple[View, View | None, View | None],
    machine: Machine,
    reverse: Sequence[bool],
) -> Call:
    """The steps of a layer. products [T, B, D * gates * H]; held: memory for states and cells [2, D, B,
    padded H] and updates [D, B, padded H], where the layer has those.
    """
    steps, batch, width = products.shape
    kind, hidden, directions = weights.kind, weights.hidden, weights.directions
    gates = width // (directions * hidden)
    lanes = machine.vector_bytes // bytes_of(weights.dtype)
    # Sums of all gates of the rows, one unit's weights and a state must fit in the registers.
    most = max(1, (machine.registers - 2) // gates - 1)
    blocks = -(-batch // most)
    rows = -(-batch // blocks)
    blocks = -(-batch // rows)
    late = _late(weights)
    form = Form(
        kind=kind,
        rows=rows,
        activations=weights.activations,
        late=late,
        masked=hidden % lanes != 0,
        peepholes=weights.peepholes is not None,
        every=y is not None,
        dtype=weights.dtype,
        clip=weights.clip,
        input_forget=weights.input_forget,
    )
    flops = 2 * batch * directions * gates * hidden * hidden  # of a step
    of_block, shares = flops // (directions * blocks), 1
    while 2 * shares <= -(-hidden // lanes) and of_block >= 2 * shares * _LEAST_FLOPS:
        shares *= 2
    waves = steps * (2 if late == "before" else 1)
    arguments: list[int | View | Kernel] = [
        batch, blocks, shares, directions, hidden, sum(bit << d for d, bit in enumerate(reverse)),
        products, width, weights.weights, weights.late_weights, weights.late_bias, weights.peepholes or 0,
        lengths, *[v or 0 for v in held], h, *h.strides[:2], c, *c.strides[:2],
    ]  # fmt: skip
    arguments += [0] * 4 if y is None else [y, *y.strides[:3]]
    constants = [weights.weights, weights.late_weights, weights.late_bias, weights.peepholes]
    return Call(
        step_through(form=form),
        arguments,
        tiles=waves * directions * shares * blocks,
        reads=[v for v in (products, lengths, *constants, h, c) if v is not None],
        writes=[v for v in (y, *held) if v is not None],
        flops=steps * flops,
        label=kind,
        waves=waves,
    )


def _late(weights: RecurrentWeights) -> Literal["none", "before", "after"]:
    """Which sums of a GRU wait for its reset gates."""
    if weights.kind != "GRU":
        return "none"
    return "after" if weights.linear_before_reset else "before"


def _input_products(x: View, weights: RecurrentWeights, out: View, machine: Machine) -> list[Call]:
    """What the inputs of all steps, and the biases, contribute to the gates."""
    dtype = weights.dtype
    add = Expression((dtype, dtype), (Step("Add", (0, 1), dtype),), (2,))
    if isinstance(weights.inputs, Matrices):
        calls = multiply(x, weights.inputs, out, machine)
        return [*calls, elementwise(add, [out, weights.bias], [out], machine)]
    epilogue = Epilogue(add, [weights.bias])
    slices, shape = weights.input_slices, (1, out.shape[-1], x.shape[0] * x.shape[1], 1)
    pays = shape[2] >= FEWEST_ROWS and cycles(shape, x.shape[2]) < direct_cycles(shape, x.shape[2], machine)
    calls = sliced_matmul(x, slices, out, epilogue, machine) if slices is not None and pays else None
    return matmul(x, weights.inputs, out, epilogue, machine) if calls is None else calls


@functools.lru_cache(64)
def _zeros(nbytes: int) -> Buffer:
    """Memory of zeros, for states that are not given."""
    memory = aligned_floats(nbytes // 4)
    memory[:] = 0
    return constant(memory).buffer


def _dense(shape: Sequence[int], dtype: str) -> View:
    """A fresh row-major buffer."""
    kind = np.dtype(dtype)
    return View(Buffer(kind.itemsize * int(np.prod(shape))), 0, kind, tuple(shape), row_major(shape))
