"""One step of a recurrent layer for some of its units and sequences: the code for which recurrent.py makes
calls.

Vectors hold neighbouring hidden units, and a unit's gates are computed together. The weights of a block of
units lie together, in the order in which they are read: [direction][block][unit of the state][gate][lanes].
Where a block's gates leave registers empty, a run of several blocks is multiplied together, some vectors of
its gates at a time: [direction][run][column of vectors][unit of the state][vector][lanes].

The sums of a group of sequences fill the registers. A tile has several groups, and all of them take a part of
a column's weights before the next part, so that it comes from afar but once:

    for each run of blocks of units:
        for each column of its vectors (block by block, gate by gate):
            for each part of the state's units:
                for each group:
                    for each unit of the part:
                        sums[sequence, vector] += weights[column, unit, vector] * state[sequence, unit]
        for each block, for each sequence: its new state, from the sums (recurrent_gates.py)

Every other step goes through the runs from the last to the first: it finds some of their weights in the
cache, where the step before it has just read them.

Between parts the sums lie in scratch memory.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ingot.codegen.builder import I32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import bytes_of, register_element
from ingot.codegen.kernel import kernel
from ingot.kernels.recurrent_form import UNROLL, Form, columns
from ingot.kernels.recurrent_gates import Gates, Vectors

SLOTS = (
    "batch", "groups", "taller", "blocks", "shares", "part", "directions", "hidden", "steps", "reverse",
    "inputs", "inputs_step", "inputs_row", "weights", "late_weights", "late_bias", "peepholes", "lengths",
    "states", "cells", "updates",
    "h0", "h0_direction", "h0_row", "c0", "c0_direction", "c0_row",
    "y", "y_step", "y_direction", "y_row",
)  # fmt: skip


#: Sums that are added to by turns: a multiply-add takes four cycles, and two begin in each.
_LEAST_SUMS = 8
_LINE = 64


class Rows(NamedTuple):
    """Where the vectors of sequences lie: the address of the first sequence's, and how far apart they are, in
    elements.
    """

    first: Value
    apart: Int


@kernel(*SLOTS)
def step_through(k: Builder, *, form: Form) -> None:
    """Tiles begin..end of (step, direction, some groups of sequences, share of the units); steps are
    waves.
    """
    Steps(k, form).emit()


class Steps:
    """The code that takes some units of some sequences through a step."""

    def __init__(self, k: Builder, form: Form) -> None:
        self.k, self.form = k, form
        self.lanes = k.machine.vector_bytes // bytes_of(form.dtype)
        self.element = register_element(form.dtype)
        self.type = vector(self.element, self.lanes)
        names = ("batch", "groups", "taller", "blocks", "shares", "part", "directions", "hidden")
        self.size = {name: k.arg(name) for name in names}
        self.unit_blocks = k.ceil_div(self.size["hidden"], self.lanes)
        self.padded = k.mul(self.unit_blocks, self.lanes)
        self.runs = k.div(self.unit_blocks, form.together)

    def emit(self) -> None:
        """Tiles [step][direction][groups][share of the units]; shares that follow each other are one tile."""
        k, size, form = self.k, self.size, self.form
        at = [k.begin]
        with k.repeat(lambda: k.compare("<", at[0], k.end), carry=at):
            run = k.div(at[0], size["shares"])
            first, end = k.mul(run, size["shares"]), k.min(k.end, k.mul(k.add(run, 1), size["shares"]))
            block, rest = k.rem(run, size["blocks"]), k.div(run, size["blocks"])
            direction, wave = k.rem(rest, size["directions"]), k.div(rest, size["directions"])
            units = [  # of whole runs of blocks
                k.mul(
                    k.div(k.mul(k.sub(share, first), self.runs), size["shares"]), self.lanes * form.together
                )
                for share in (at[0], end)
            ]
            groups = [k.div(k.mul(k.add(block, i), size["groups"]), size["blocks"]) for i in (0, 1)]
            if form.groups == "one":
                groups = [0, 1]
            phases = 2 if form.late == "before" else 1
            step = k.div(wave, phases)
            tile = self.tile(step, direction, (groups[0], groups[1]), (units[0], units[1]))
            tile.emit(k.rem(wave, phases))
            at[:] = [end]

    def tile(
        self, step: Value, direction: Value, groups: tuple[Int, Int], units: tuple[Value, Value]
    ) -> Tile:
        """One tile: some units (from, to) of some groups (from, to) of a direction, in one step."""
        return Tile(self, step, direction, groups, units)

    def row_of(self, group: Int) -> Int:
        """The first sequence of a group."""
        k, rows = self.k, self.form.rows
        if self.form.groups != "mixed":
            return k.mul(group, rows)
        return k.add(k.mul(group, rows - 1), k.min(group, self.size["taller"]))

    def sizes(self, first: Int, last: Int) -> list[tuple[int, Int, Int]]:
        """Sequences in a group, and which groups from `first` to `last` have as many."""
        k, rows = self.k, self.form.rows
        if self.form.groups != "mixed":
            return [(rows, first, last)]
        taller = self.size["taller"]
        return [(rows, first, k.min(last, taller)), (rows - 1, k.max(first, taller), last)]


class Tile:
    """One tile: some units (`units`: from, to) of some groups of sequences of a direction, in one step."""

    clips_cells = True  # whether a cell is clipped before its activation

    def __init__(
        self, layer: Steps, step: Value, direction: Value, groups: tuple[Int, Int], units: tuple[Value, Value]
    ) -> None:
        self.layer, self.step, self.direction, self.groups, self.units = layer, step, direction, groups, units
        self.k, self.form, self.size = layer.k, layer.form, layer.size
        self.element, self.type = layer.element, layer.type
        k = self.k
        self.first = layer.row_of(groups[0])
        self.count = k.sub(layer.row_of(groups[1]), self.first)
        self.backwards = k.compare("!=", k.ir.and_(k.ir.lshr(k.arg("reverse"), direction), I64(1)), 0)
        first, odd = k.compare("==", step, 0), k.rem(step, 2)
        even = k.sub(1, odd)  # steps take turns; the first one reads what was there before it

        def before(given: str, held: str) -> Rows:
            a, b = self.given(given), self.held(held, odd)
            return Rows(k.ir.select(first, a.first, b.first), k.choose(first, a.apart, b.apart))

        self.old = before("h0", "states")
        self.old_cell = before("c0", "cells") if self.form.kind == "LSTM" else self.old
        self.new = self.held("states", even)
        self.cell = self.held("cells", even)
        time = k.choose(self.backwards, k.sub(k.sub(k.arg("steps"), 1), step), step)
        self.inputs, self.y = self.at_time(time)

    def given(self, name: str) -> Rows:
        """The rows of an array [direction, sequence, unit] with strides."""
        k = self.k
        offset = k.mul(self.direction, k.arg(f"{name}_direction"))
        return Rows(k.at(k.pointer(name), offset, self.element), k.arg(f"{name}_row"))

    def held(self, name: str, which: Int = 0) -> Rows:
        """The rows of one of the layer's arrays [which][direction][sequence][unit]."""
        k = self.k
        place = k.add(k.mul(which, self.size["directions"]), self.direction)
        place = k.mul(k.mul(place, self.size["batch"]), self.layer.padded)
        return Rows(k.at(k.pointer(name), place, self.element), self.layer.padded)

    def of(self, rows: Rows, row: Int, unit: Int = 0) -> Value:
        """The address of a sequence's units from `unit` on."""
        return self.k.at(self.k.at(rows.first, self.k.mul(row, rows.apart), self.element), unit, self.element)

    def mask(self, unit: Int) -> Value | None:
        if not self.form.masked:
            return None
        return self.k.lanes_below(self.k.sub(self.size["hidden"], unit), self.layer.lanes)

    # ---- the product ---------------------------------------------------------------------------------------

    @property
    def sum_type(self) -> Value:
        """Of a vector of sums."""
        return self.type

    @property
    def factor(self) -> Value:
        """The type of what is broadcast of a state."""
        return self.element

    @property
    def factors(self) -> Int:
        """How many of these a state has."""
        return self.size["hidden"]

    @property
    def unroll(self) -> int:
        """Factors in a turn of the loop."""
        return UNROLL

    def line(self, rows: Rows, row: Int) -> Value:
        """The address of a sequence's factors."""
        return self.of(rows, row)

    def multiply(self, total: Value, factor: Value, weights: Value) -> Value:
        """total + factor · weights."""
        return self.k.fma(factor, weights, total)

    def plus(self, a: Value, b: Value) -> Value:
        """The sum of two vectors of sums."""
        return self.k.ir.fadd(a, b)

    def add_up(self, weights: Value, across: int, rows: Rows, first_sum: Int) -> None:
        """Σ_j weights[j][vector] · state[j] for each sequence, for the column of `across` vectors that
        `weights` points to, into the tile's sums from `first_sum` on.
        """
        k, is_parted = self.k, self.form.parts
        part = self.size["part"] if is_parted else self.factors
        with k.loop(0, self.factors, part, at_least_once=True) as first:
            begin: Int = first if is_parted else 0
            end = k.min(k.add(begin, part), self.factors) if is_parted else self.factors
            for count, low, high in self.layer.sizes(*self.groups):
                with k.loop(low, high) as group:
                    row = self.layer.row_of(group)
                    lines = [self.line(rows, k.add(row, p)) for p in range(count)]
                    sums = self.sums(k.sub(row, self.first), first_sum)
                    self._add_part(weights, across, lines, sums, begin, end)

    def _add_part(
        self, weights: Value, across: int, lines: list[Value], sums: Value, begin: Int, end: Int
    ) -> None:
        """The same for a group of sequences, whose factors lie at `lines`, and a part of the factors."""
        k, lanes, unroll, count = self.k, self.layer.lanes, self.unroll, len(lines)
        outs = count * across
        places = [(i // across * self.form.sums + i % across) * lanes for i in range(outs)]
        # Few sums would wait for each other: then each is split in several, by the factor's number.
        split = 1
        others = min(count, across) + (1 if k.machine.fma else 2)  # registers that hold no sums
        while (
            split < unroll and split * outs < _LEAST_SUMS and 2 * split * outs + others < k.machine.registers
        ):
            split *= 2
        flat = [k.zero(self.sum_type)] * outs
        if self.form.parts:
            flat = k.either(
                k.compare("==", begin, 0),
                lambda: [k.zero(self.sum_type)] * outs,
                lambda: [k.load(sums, self.sum_type, place) for place in places],
            )
        flat += [k.zero(self.sum_type)] * (outs * (split - 1))

        def turn(factor: Int, many: int) -> None:
            here = k.at(weights, k.mul(factor, across * lanes), self.factor)
            own = [k.at(line, factor, self.factor) for line in lines]
            for j in range(many):
                if j:  # as in contract.py: LLVM loads no weights early, into no registers
                    k.ir.fence("seq_cst", "singlethread")
                self._multiply(flat, j % split * outs, here, own, across, j)

        whole = k.add(begin, k.mul(k.div(k.sub(end, begin), unroll), unroll))
        with k.loop(begin, whole, unroll, carry=flat) as factor:
            turn(factor, unroll)
        if unroll > 1:
            with k.loop(whole, end, carry=flat) as factor:
                turn(factor, 1)
        while len(flat) > outs:
            half = len(flat) // 2
            flat = [self.plus(a, b) for a, b in zip(flat[:half], flat[half:], strict=True)]
        for total, place in zip(flat, places, strict=True):
            k.store(total, sums, place)

    def _multiply(
        self, flat: list[Value], first: int, weights: Value, places: list[Value], across: int, j: int
    ) -> None:
        """Add each sequence's factor j times each vector of weights to the sums from flat[first] on.

        The fewer, factors or vectors of weights, are held in registers while the others are read one by one.
        """
        k, lanes, count = self.k, self.layer.lanes, len(places)

        def factor(p: int) -> Value:
            return k.broadcast(k.load(places[p], self.factor, j), lanes)

        def vector_of(v: int) -> Value:
            return k.load(weights, self.sum_type, (j * across + v) * lanes)

        def add(p: int, v: int, factor: Value, own: Value) -> None:
            at = first + p * across + v
            flat[at] = self.multiply(flat[at], factor, own)

        if across <= count:
            vectors = [vector_of(v) for v in range(across)]
            for p in range(count):
                one = factor(p)
                for v in range(across):
                    add(p, v, one, vectors[v])
        else:
            factors = [factor(p) for p in range(count)]
            for v in range(across):
                one = vector_of(v)
                for p in range(count):
                    add(p, v, factors[p], one)

    def sums(self, row: Int, first: Int) -> Value:
        """The address of the sums of one of the tile's sequences from vector `first` on: [vector][lanes]."""
        k, lanes = self.k, self.layer.lanes
        place = k.add(k.mul(row, self.form.sums * lanes), k.mul(first, lanes))
        return k.at(k.scratch, place, self.type.element)

    def real(self, sums: list[Value]) -> list[Value]:
        """The sums of a block's gates as floats."""
        return sums

    # ---- the step ------------------------------------------------------------------------------------------

    def emit(self, phase: Value) -> None:
        """All units of the tile; `phase` 0 or 1 of a step that takes two waves."""
        k, form = self.k, self.form
        if form.late != "before":
            self._each_run("weights", form.gates, self.old, self._whole_step)
            return
        with k.when(k.compare("==", phase, 0)):
            self._each_run("weights", 2, self.old, self._gates_first)
        with k.when(k.compare("==", phase, 1)):
            self._each_run("late_weights", 1, self.cell, self._candidate_last)

    def _each_run(self, name: str, gates: int, rows: Rows, become: Callable[[Value, Int], None]) -> None:
        """The product of each run of blocks of units with so many gates' weights, and what becomes of the
        sums of each block: it begins at a unit, and its sums at a vector.
        """
        k, lanes, together = self.k, self.layer.lanes, self.form.together
        self._fetch(rows)
        first, end = self.units
        backwards = k.compare("!=", k.rem(self.step, 2), 0)
        with k.loop(first, end, lanes * together) as forwards:
            last = k.sub(k.sub(k.add(first, end), lanes * together), forwards)
            run = k.choose(backwards, last, forwards)
            weights = self.weights(name, gates, run)
            vector_size = k.mul(self.factors, lanes)
            before = 0
            for number, across in columns(gates, together):
                with k.loop(0, number) as i:
                    vector = k.add(before, k.mul(i, across))
                    self.add_up(k.at(weights, k.mul(vector, vector_size), self.factor), across, rows, vector)
                before += number * across
            with k.loop(0, together) as i:
                become(k.add(run, k.mul(i, lanes)), k.mul(i, gates))

    def _fetch(self, rows: Rows) -> None:
        """Begin to fetch all states: the other threads have just written theirs."""
        k = self.k
        with k.loop(0, self.count) as row:
            line = self.line(rows, k.add(self.first, row))
            with k.loop(0, self.factors, _LINE // bytes_of(self.form.dtype)) as at:
                k.prefetch(line, at, self.factor)

    def _whole_step(self, unit: Value, first: Int) -> None:
        """In two loops over the sequences where there are several: each waits for one activation at most, so
        that the processor has several sequences at hand.
        """
        k, lanes, gates = self.k, self.layer.lanes, self.form.gates
        if self.form.kind == "RNN" or (isinstance(self.count, int) and self.count == 1):
            with k.loop(0, self.count) as row:
                own = self._gates(row, unit)
                own.end(own.begin(self._read(row, first, gates)))
            return
        kept = 0
        with k.loop(0, self.count) as row:
            values = self._gates(row, unit).begin(self._read(row, first, gates))
            kept = len(values)
            for i, value in enumerate(values):
                k.store(value, self.sums(row, first), i * lanes)
        with k.loop(0, self.count) as row:
            here = self.sums(row, first)
            self._gates(row, unit).end([k.load(here, self.type, i * lanes) for i in range(kept)])

    def _gates_first(self, unit: Value, first: Int) -> None:
        with self.k.loop(0, self.count) as row:
            self._gates(row, unit).gates_first(self._read(row, first, 2))

    def _candidate_last(self, unit: Value, first: Int) -> None:
        with self.k.loop(0, self.count) as row:
            self._gates(row, unit).candidate_last(self._read(row, first, 1))

    def _read(self, row: Int, first: Int, gates: int) -> list[Value]:
        """The sums of one of the tile's sequences, of the gates whose first is at vector `first`."""
        here = self.sums(row, first)
        return self.real([self.k.load(here, self.sum_type, g * self.layer.lanes) for g in range(gates)])

    def _gates(self, row: Int, unit: Value) -> Gates:
        """The code for a block of units of one of the tile's sequences."""
        at = self._vectors(self.k.add(self.first, row), unit, self.mask(unit))
        return Gates(self.k, self.form, at, self.type, self.clips_cells)

    def _vectors(self, row: Int, unit: Int, mask: Value | None) -> Vectors:
        k, hidden, direction, form = self.k, self.size["hidden"], self.direction, self.form
        live, inputs, y = None, self.inputs, self.y
        if form.ragged:
            length = k.ir.sext(k.load(k.pointer("lengths"), I32, row), I64)
            live = k.compare("<", self.step, length)
            time = k.choose(k.ir.and_(self.backwards, live), k.sub(k.sub(length, 1), self.step), self.step)
            inputs, y = self.at_time(time)

        def constants(name: str, of: Int, which: Int) -> Value:
            first = k.mul(k.add(k.mul(direction, of), which), hidden)
            return k.at(k.at(k.pointer(name), first, self.element), unit, self.element)

        of_inputs = self.of(inputs, row, unit)
        return Vectors(
            mask=mask,
            live=live,
            old=self.of(self.old, row, unit),
            new=self.of(self.new, row, unit),
            inputs=[k.at(of_inputs, k.mul(hidden, g), self.element) for g in range(form.gates)],
            old_cell=self.of(self.old_cell, row, unit),
            cell=self.of(self.cell, row, unit),
            update=self.of(self.held("updates"), row, unit),
            y=self.of(y, row, unit),
            late_bias=constants("late_bias", 1, 0),
            peepholes=[constants("peepholes", 3, g) for g in range(3)],
        )

    def at_time(self, time: Int) -> tuple[Rows, Rows]:
        """What the inputs contribute at a time, and where its states go."""
        k = self.k
        apart = k.arg("inputs_row")
        own = k.mul(k.mul(self.direction, self.form.gates), self.size["hidden"])
        place = k.add(k.mul(time, k.arg("inputs_step")), own)
        inputs = Rows(k.at(k.pointer("inputs"), place, self.element), apart)
        place = k.add(k.mul(time, k.arg("y_step")), k.mul(self.direction, k.arg("y_direction")))
        return inputs, Rows(k.at(k.pointer("y"), place, self.element), k.arg("y_row"))

    def weights(self, name: str, gates: int, unit: Int) -> Value:
        """The recurrent weights of the blocks of units from `unit` on."""
        k, units = self.k, self.size["hidden"]
        block = k.add(k.mul(self.direction, self.layer.padded), unit)
        return k.at(k.pointer(name), k.mul(block, k.mul(units, gates)), self.element)
