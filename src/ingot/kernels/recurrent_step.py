"""One step of a recurrent layer for some of its units and sequences: the code for which recurrent.py makes
calls.

Vectors hold neighbouring hidden units, and a unit's gates are computed together. The weights of a block of
units lie together, in the order in which they are read: [direction][block][unit of the state][gate][lanes].
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ingot.codegen import math as vector_math
from ingot.codegen.builder import I32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import bytes_of, register_element
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import Lanes
from ingot.kernels.call import View
from ingot.kernels.operations import OPERATIONS

Kind = Literal["LSTM", "GRU", "RNN"]

SLOTS = (
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
UNROLL = 4


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
class StateWeights:
    """A layer's constants as its steps read them."""

    kind: Kind
    dtype: str
    hidden: int
    directions: int
    activations: tuple[Activation, ...]
    linear_before_reset: bool
    clip: float | None
    input_forget: bool
    weights: View
    late_weights: View | None
    late_bias: View | None
    peepholes: View | None


@kernel(*SLOTS)
def step_through(k: Builder, *, form: Form) -> None:
    """Tiles begin..end of (step, direction, share of the units, up to `rows` sequences); steps are waves."""
    Steps(k, form).emit()


class Steps:
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
            step = k.div(wave, phases)
            self.tile(step, direction, rows, (units[0], units[1])).emit(k.rem(wave, phases))

    def tile(self, step: Value, direction: Value, rows: list[Int], units: tuple[Value, Value]) -> Tile:
        """One tile: some units (from, to) of some sequences of a direction, in one step."""
        return Tile(self, step, direction, rows, units)


class Tile:
    """One tile: some units (`units`: from, to) of some sequences (`rows`) of a direction, in one step."""

    clips_cells = True  # whether a cell is clipped before its activation

    def __init__(
        self, layer: Steps, step: Value, direction: Value, rows: list[Int], units: tuple[Value, Value]
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
            return [k.ir.select(first, self.given(given, row), self.held(held, row, odd)) for row in rows]

        self.old = before("h0", "states")
        self.old_cell = before("c0", "cells") if self.form.kind == "LSTM" else []
        self.new = [self.held("states", row, even) for row in rows]
        self.cell = [self.held("cells", row, even) for row in rows]

    def given(self, name: str, row: Int) -> Value:
        """The address of a sequence's vector in an array [direction, sequence, unit] with strides."""
        k = self.k
        offset = k.add(k.mul(self.direction, k.arg(f"{name}_direction")), k.mul(row, k.arg(f"{name}_row")))
        return k.at(k.pointer(name), offset, self.element)

    def held(self, name: str, row: Int, which: Int = 0) -> Value:
        """The address of a sequence's vector in arrays [which][direction][sequence][unit] of the layer."""
        k = self.k
        place = k.add(k.mul(which, self.size["directions"]), self.direction)
        place = k.mul(k.add(k.mul(place, self.size["batch"]), row), self.layer.padded)
        return k.at(k.pointer(name), place, self.element)

    def mask(self, unit: Int) -> Value | None:
        if not self.form.masked:
            return None
        return self.k.lanes_below(self.k.sub(self.size["hidden"], unit), self.layer.lanes)

    def product(
        self, weights: Value, gates: int, states: list[Value], start: Callable[[int, int], Value]
    ) -> list[list[Value]]:
        """start(row, gate) + Σ_j weights[j][gate] · states[row][j] for each row and gate, for the block of
        units that `weights` points to.
        """
        k, rows, lanes = self.k, self.form.rows, self.layer.lanes
        # Few sums would wait for each other: then each is split in several, by the unit's number.
        parts = max(1, min(UNROLL, 8 // (rows * gates)))
        flat = [start(p, g) for p in range(rows) for g in range(gates)]
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

        whole = k.mul(k.div(self.size["hidden"], UNROLL), UNROLL)
        with k.loop(0, whole, UNROLL, carry=flat) as unit:
            multiply(unit, UNROLL)
        with k.loop(whole, self.size["hidden"], carry=flat) as unit:
            multiply(unit, 1)
        while len(flat) > rows * gates:
            half = len(flat) // 2
            flat = [k.ir.fadd(a, b) for a, b in zip(flat[:half], flat[half:], strict=True)]
        return [flat[p * gates : (p + 1) * gates] for p in range(rows)]

    def _activate(self, i: int, value: Value) -> Value:
        k, own, clip, dtype = self.k, self.form.activations[i], self.form.clip, self.form.dtype
        x = Lanes(k, value)
        if clip is not None and (i < 2 or self.clips_cells):
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
            emit(unit, self.mask(unit))

    def _from_input(self, p: int, gate: int, unit: Int, mask: Value | None) -> Value:
        """What the inputs contribute to a gate."""
        k, units = self.k, self.size["hidden"]
        row = k.add(k.mul(self.times[p], self.size["batch"]), self.rows[p])
        width = k.mul(units, self.layer.gates)
        offset = k.add(k.mul(row, k.arg("inputs_row")), k.mul(self.direction, width), k.mul(units, gate))
        return k.load(k.at(k.pointer("inputs"), offset, self.element), self.type, unit, mask=mask)

    def weights(self, name: str, gates: int, unit: Int) -> Value:
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

        weights = self.weights("weights", self.layer.gates, unit)
        sums = self.product(weights, self.layer.gates, self.old, start)
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

        def start(p: int, gate: int) -> Value:
            return self._from_input(p, gate, unit, mask)

        sums = self.product(self.weights("weights", early, unit), early, self.old, start)
        for p, row in enumerate(self.rows):
            z, reset = (self._activate(0, sums[p][g]) for g in range(2))
            state = k.load(self.old[p], self.type, unit, mask=mask)
            k.store(z, self.held("updates", row), unit)
            k.store(k.ir.fmul(reset, state), self.cell[p], unit)

    def _candidate_last(self, unit: Value, mask: Value | None) -> None:
        """A GRU's last product, and its new state."""
        k = self.k

        def start(p: int, _gate: int) -> Value:
            return self._from_input(p, 2, unit, mask)

        sums = self.product(self.weights("late_weights", 1, unit), 1, self.cell, start)
        for p, row in enumerate(self.rows):
            z = k.load(self.held("updates", row), self.type, unit)
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
