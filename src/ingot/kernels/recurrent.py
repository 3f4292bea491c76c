"""LSTM, GRU and plain recurrent layers: what the inputs contribute is one matrix product over all steps; then
a kernel goes through the steps of a direction for a few sequences at a time.

Vectors hold neighbouring hidden units, and a unit's gates are computed together, so that a step's state never
leaves the thread: sequences and directions are shared out among threads, and no barrier is needed. The
weights of a block of units lie together, in the order in which they are read: [direction][block][unit of the
state][gate][lanes].
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ingot.codegen import math as vector_math
from ingot.codegen.builder import F32, I32, I64, Builder, Int, Value, vector
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.call import Buffer, Call, View, constant, row_major
from ingot.kernels.contract import Epilogue
from ingot.kernels.copy import copy
from ingot.kernels.expression import Expression, Step
from ingot.kernels.gemm import matmul
from ingot.kernels.pack import PackedWeights, aligned_floats, pack_weights
from ingot.kernels.sliced import FEWEST_ROWS, cycles, direct_cycles, slice_matrix, sliced_matmul
from ingot.kernels.slices import SlicedWeights

Kind = Literal["LSTM", "GRU", "RNN"]

_SLOTS = (
    "steps", "batch", "blocks", "hidden", "reverse",
    "inputs", "inputs_row", "weights", "late_weights", "late_bias", "peepholes", "lengths",
    "h0", "h0_direction", "h0_row", "c0", "c0_direction", "c0_row",
    "y", "y_step", "y_direction", "y_row",
    "yh", "yh_direction", "yh_row", "yc", "yc_direction", "yc_row",
)  # fmt: skip

_DEFAULT_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_UNROLL = 4


@dataclass(frozen=True, slots=True)
class Form:
    """What of a layer changes the code. `rows`: sequences in a tile. late: whether the GRU's reset gate is
    applied before its last product ("before": that one waits for the gates), after it ("after"), or there is
    none.
    """

    kind: Kind
    rows: int
    activations: tuple[str, ...]
    late: Literal["none", "before", "after"]
    masked: bool
    peepholes: bool
    initial: tuple[bool, bool]  # of h, of c
    outputs: tuple[bool, bool, bool]  # y, the last h, the last c


@dataclass(frozen=True, slots=True)
class RecurrentWeights:
    """A layer's constants as the kernels read them. inputs: [I, directions * gates * H]."""

    kind: Kind
    hidden: int
    directions: int
    activations: tuple[str, ...]
    linear_before_reset: bool
    inputs: PackedWeights
    input_slices: SlicedWeights | None
    bias: View
    weights: View
    late_weights: View
    late_bias: View
    peepholes: View | None


def supports(
    kind: Kind, activations: Sequence[str] | None, clip: float | None = None, input_forget: bool = False
) -> bool:
    """Whether the kernels compute such a layer. activations: of all directions in a row, as in the node, or
    None.
    """
    if clip is not None or input_forget:
        return False
    names = [name.lower() for name in activations or []]
    each = len(_DEFAULT_ACTIVATIONS[kind])
    same = all(names[i] == names[i % each] for i in range(len(names)))
    return same and set(names) <= {"sigmoid", "tanh", "relu"}


def pack_recurrent(
    kind: Kind,
    w: np.ndarray,
    r: np.ndarray,
    b: np.ndarray | None,
    p: np.ndarray | None,
    machine: Machine,
    *,
    linear_before_reset: bool = False,
    activations: Sequence[str] | None = None,
    tiles: bool = False,
) -> RecurrentWeights:
    """Pack constants of ONNX's LSTM, GRU or RNN: w [D, gates * H, I], r [D, gates * H, H], b [D, 2 * gates *
    H], p [D, 3 * H] (LSTM's peepholes), for D directions. tiles: the inputs of long sequences are multiplied
    on tile registers. Raises UnsupportedOperatorError for what `supports` denies.
    """
    if not supports(kind, activations):
        raise UnsupportedOperatorError(
            f"{kind}: found activations {list(activations or [])}, the native kernel has Sigmoid, Tanh, Relu"
            ", the same in both directions; leave this node to the host"
        )
    directions, rows, _ = w.shape
    hidden, lanes = r.shape[2], machine.lanes
    gates = rows // max(hidden, 1)
    blocks = -(-hidden // lanes)
    biases = (
        np.zeros((directions, 2, gates, hidden), np.float32)
        if b is None
        else b.reshape(directions, 2, gates, hidden)
    )
    early = biases.sum(1, dtype=np.float32)
    late_bias = np.zeros((directions, hidden), np.float32)
    if (
        kind == "GRU" and linear_before_reset
    ):  # the bias of the last product is inside what the reset gate multiplies
        early[:, 2], late_bias = biases[:, 0, 2], biases[:, 1, 2].astype(np.float32)

    panels = np.zeros((directions, gates, blocks * lanes, hidden), np.float32)
    panels[:, :, :hidden] = r.reshape(directions, gates, hidden, hidden)
    panels = panels.reshape(directions, gates, blocks, lanes, hidden).transpose(0, 2, 4, 1, 3)
    first = 2 if kind == "GRU" and not linear_before_reset else gates
    names = [name.capitalize() for name in activations or []][: len(_DEFAULT_ACTIVATIONS[kind])]
    inputs = np.asarray(w, np.float32).reshape(directions * rows, -1).T
    return RecurrentWeights(
        kind,
        hidden,
        directions,
        tuple(names) or _DEFAULT_ACTIVATIONS[kind],
        linear_before_reset,
        pack_weights(inputs, machine),
        slice_matrix(inputs, machine) if tiles else None,
        constant(np.ascontiguousarray(early.reshape(-1))),
        constant(_aligned(panels[:, :, :, :first])),
        constant(_aligned(panels[:, :, :, first:])),
        constant(np.ascontiguousarray(late_bias)),
        None if p is None else constant(np.ascontiguousarray(p, np.float32)),
    )


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy from whose lines vectors are loaded whole: across two of them, a step took half as long more."""
    memory = aligned_floats(array.size).reshape(array.shape)
    memory[...] = array
    return memory


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
    activations: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The plain meaning in float64, step by step: x [T, B, I], h and c [D, B, H]; y [T, D, B, H], the last h
    and c.
    """
    functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "Sigmoid": lambda v: 1 / (1 + np.exp(-v)),
        "Tanh": np.tanh,
        "Relu": lambda v: np.maximum(v, 0),
    }
    act = [functions[name] for name in activations or _DEFAULT_ACTIVATIONS[kind]]
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
                    new = act[0](f + pf * old) * old + act[0](i + pi * old) * act[1](g)
                    state = act[0](o + po * new) * act[2](new)
                    c[d, n] = new
                h[d, n] = y[t, d, n] = state
    return y, h, c


@kernel(*_SLOTS)
def step_through(k: Builder, *, form: Form) -> None:
    """A tile is a direction of up to `rows` sequences, through all steps."""
    _Sequences(k, form).emit()


class _Sequences:
    """The code that takes some sequences through their steps."""

    def __init__(self, k: Builder, form: Form) -> None:
        self.k, self.form, self.lanes = k, form, k.machine.lanes
        self.type = vector(F32, self.lanes)
        self.size = {name: k.arg(name) for name in ("steps", "batch", "blocks", "hidden")}
        self.padded = k.mul(k.ceil_div(self.size["hidden"], self.lanes), self.lanes)
        self.gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[form.kind]
        self.early = 2 if form.late == "before" else self.gates
        # Scratch: the state before and after a step, the cell, and what waits for the GRU's last product.
        area = k.mul(self.padded, form.rows)
        self.states = [k.scratch, k.at(k.scratch, area, F32)]
        self.cell = k.at(k.scratch, k.mul(area, 2), F32)
        self.update = k.at(k.scratch, k.mul(area, 3), F32)

    def emit(self) -> None:
        k, size = self.k, self.size
        with k.loop(k.begin, k.end) as tile:
            direction, block = k.div(tile, size["blocks"]), k.rem(tile, size["blocks"])
            last = k.sub(size["batch"], 1)
            # A row beyond the last sequence computes that one again, and writes the same.
            rows = [k.min(k.add(k.mul(block, self.form.rows), p), last) for p in range(self.form.rows)]
            lengths = [k.ir.sext(k.load(k.pointer("lengths"), I32, row), I64) for row in rows]
            backwards = k.compare("!=", k.ir.and_(k.ir.lshr(k.arg("reverse"), direction), I64(1)), 0)
            self._start(direction, rows)
            with k.loop(0, size["steps"]) as step:
                odd = k.compare("==", k.rem(step, 2), 1)
                even_state, odd_state = self.states
                old, new = k.ir.select(odd, odd_state, even_state), k.ir.select(odd, even_state, odd_state)
                live = [k.compare("<", step, length) for length in lengths]
                times = [
                    k.choose(k.ir.and_(backwards, alive), k.sub(k.sub(length, 1), step), step)
                    for alive, length in zip(live, lengths, strict=True)
                ]
                self._step(direction, rows, times, live, old, new)
            odd = k.compare("==", k.rem(size["steps"], 2), 1)
            self._finish(direction, rows, k.ir.select(odd, self.states[1], self.states[0]))

    def _mask(self, unit: Int) -> Value | None:
        return (
            self.k.lanes_below(self.k.sub(self.size["hidden"], unit), self.lanes)
            if self.form.masked
            else None
        )

    def _row(self, name: str, direction: Int, row: Int) -> Value:
        """The address of a sequence's vector in an array [direction, sequence, unit]."""
        k = self.k
        offset = k.add(k.mul(direction, k.arg(f"{name}_direction")), k.mul(row, k.arg(f"{name}_row")))
        return k.at(k.pointer(name), offset, F32)

    def _start(self, direction: Int, rows: list[Int]) -> None:
        """The state before the first step."""
        k = self.k
        with k.loop(0, self.size["hidden"], self.lanes) as unit:
            mask = self._mask(unit)
            for p, row in enumerate(rows):
                here = k.add(unit, k.mul(self.padded, p))
                for name, given, target in zip(
                    ("h0", "c0"), self.form.initial, (self.states[0], self.cell), strict=True
                ):
                    value = k.zero(self.type)
                    if given:
                        value = k.load(self._row(name, direction, row), self.type, unit, mask=mask)
                    k.store(value, target, here)

    def _finish(self, direction: Int, rows: list[Int], state: Value) -> None:
        """The state after the last step."""
        k = self.k
        _, wants_h, wants_c = self.form.outputs
        with k.loop(0, self.size["hidden"], self.lanes) as unit:
            mask = self._mask(unit)
            for p, row in enumerate(rows):
                here = k.add(unit, k.mul(self.padded, p))
                for name, wanted, source in (("yh", wants_h, state), ("yc", wants_c, self.cell)):
                    if wanted:
                        value = k.load(source, self.type, here)
                        k.store(value, self._row(name, direction, row), unit, mask=mask)

    def _product(self, weights: Value, gates: int, state: Value, sums: list[list[Value]]) -> None:
        """sums[row][gate] += Σ_j weights[j][gate] · state[row][j], for the block of units that `weights`
        points to.
        """
        k, rows = self.k, self.form.rows
        # Few sums would wait for each other: then each is split in several, by the unit's number.
        parts = max(1, min(_UNROLL, 8 // (rows * gates)))
        flat = [value for row in sums for value in row]
        flat += [k.zero(self.type)] * (len(flat) * (parts - 1))

        def multiply(unit: Int, count: int) -> None:
            here = k.at(weights, k.mul(unit, gates * self.lanes), F32)
            lines = [k.at(k.at(state, k.mul(self.padded, p), F32), unit, F32) for p in range(rows)]
            for j in range(count):
                held = [k.load(here, self.type, (j * gates + g) * self.lanes) for g in range(gates)]
                for p in range(rows):
                    element = k.broadcast(k.load(lines[p], F32, j), self.lanes)
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
        k = self.k
        name = self.form.activations[i]
        if name == "Relu":
            return k.ir.select(k.ir.fcmp_unordered("<", value, k.zero(self.type)), k.zero(self.type), value)
        return vector_math.sigmoid(k, value) if name == "Sigmoid" else vector_math.tanh(k, value)

    def _step(
        self, direction: Int, rows: list[Int], times: list[Int], live: list[Value], old: Value, new: Value
    ) -> None:
        k, form, size = self.k, self.form, self.size
        width = k.mul(size["hidden"], self.gates)
        all_directions = k.arg("inputs_row")
        inputs = [
            k.at(
                k.pointer("inputs"),
                k.add(k.mul(k.add(k.mul(time, size["batch"]), row), all_directions), k.mul(direction, width)),
                F32,
            )
            for time, row in zip(times, rows, strict=True)
        ]
        units, padded = size["hidden"], self.padded
        weights = k.at(k.pointer("weights"), k.mul(k.mul(direction, padded), k.mul(units, self.early)), F32)

        def given(p: int, gate: int, unit: Int, mask: Value | None) -> Value:
            """What the inputs contribute to a gate."""
            return k.load(k.at(inputs[p], k.mul(units, gate), F32), self.type, unit, mask=mask)

        def hidden_bias(unit: Int, mask: Value | None) -> Value:
            return k.load(
                k.at(k.pointer("late_bias"), k.mul(direction, units), F32), self.type, unit, mask=mask
            )

        def store(p: int, unit: Int, mask: Value | None, value: Value) -> None:
            """Keep a sequence's new state, or, after its end, the one before."""
            here = k.add(unit, k.mul(padded, p))
            value_or_old = k.ir.select(live[p], value, k.load(old, self.type, here))
            k.store(value_or_old, new, here)
            if form.outputs[0]:
                offset = k.add(k.mul(times[p], k.arg("y_step")), k.mul(direction, k.arg("y_direction")))
                target = k.at(k.pointer("y"), k.add(offset, k.mul(rows[p], k.arg("y_row"))), F32)
                k.store(k.ir.select(live[p], value, k.zero(self.type)), target, unit, mask=mask)

        with k.loop(0, units, self.lanes) as unit:
            mask = self._mask(unit)
            gates = range(self.early)
            separate = form.late == "after"
            sums = [
                [hidden_bias(unit, mask) if separate and g == 2 else given(p, g, unit, mask) for g in gates]
                for p in range(form.rows)
            ]
            self._product(k.at(weights, k.mul(unit, k.mul(units, self.early)), F32), self.early, old, sums)
            for p in range(form.rows):
                here = k.add(unit, k.mul(padded, p))
                if form.kind == "RNN":
                    store(p, unit, mask, self._activate(0, sums[p][0]))
                elif form.kind == "LSTM":
                    store(p, unit, mask, self._lstm(direction, unit, here, mask, sums[p], live[p]))
                else:
                    z, reset = (self._activate(0, sums[p][g]) for g in range(2))
                    state = k.load(old, self.type, here)
                    if form.late == "before":
                        k.store(z, self.update, here)
                        k.store(
                            k.ir.fmul(reset, state), self.cell, here
                        )  # a GRU has no cell; it holds what follows
                        continue
                    candidate = self._activate(1, k.fma(reset, sums[p][2], given(p, 2, unit, mask)))
                    store(p, unit, mask, k.fma(z, k.ir.fsub(state, candidate), candidate))
        if form.late != "before":
            return
        weights = k.at(k.pointer("late_weights"), k.mul(k.mul(direction, padded), units), F32)
        with k.loop(0, units, self.lanes) as unit:
            mask = self._mask(unit)
            sums = [[given(p, 2, unit, mask)] for p in range(form.rows)]
            self._product(k.at(weights, k.mul(unit, units), F32), 1, self.cell, sums)
            for p in range(form.rows):
                here = k.add(unit, k.mul(padded, p))
                z, state = k.load(self.update, self.type, here), k.load(old, self.type, here)
                candidate = self._activate(1, sums[p][0])
                store(p, unit, mask, k.fma(z, k.ir.fsub(state, candidate), candidate))

    def _lstm(
        self, direction: Int, unit: Int, here: Int, mask: Value | None, sums: list[Value], live: Value
    ) -> Value:
        """The new state; the new cell goes to its memory. Gates are in ONNX's order: input, output, forget,
        cell.
        """
        k = self.k
        i, o, f, g = sums
        old = k.load(self.cell, self.type, here)

        def peep(gate: int, cell: Value, value: Value) -> Value:
            if not self.form.peepholes:
                return value
            first = k.mul(k.add(k.mul(direction, 3), gate), self.size["hidden"])
            weight = k.load(k.at(k.pointer("peepholes"), first, F32), self.type, unit, mask=mask)
            return k.fma(weight, cell, value)

        admitted = k.ir.fmul(self._activate(0, peep(0, old, i)), self._activate(1, g))
        cell = k.fma(self._activate(0, peep(2, old, f)), old, admitted)
        k.store(k.ir.select(live, cell, old), self.cell, here)
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
    """Calls for a layer: x [T, B, I] to y [T, D, B, H] and the last states [D, B, H], float32, any strides.

    reverse: for each direction, whether it goes from a sequence's end to its beginning. lengths: int32 [B],
    each at most T; beyond a sequence's end y is 0 and the state stays. h0, c0 [D, B, H]: where None, zeros.
    (Layouts with the batch first are a matter of strides.) Raises UnsupportedOperatorError for other dtypes.
    """
    views = {"x": x, "y": y, "last_h": last_h, "last_c": last_c, "h0": h0, "c0": c0}
    for name, view in views.items():
        if view is not None and view.dtype != np.float32:
            raise UnsupportedOperatorError(
                f"{weights.kind}: {name} is {view.dtype.name}, the native kernel computes float32; "
                "cast it, or leave this node to the host"
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
    products = _dense((steps, batch, width))
    add = Expression(("float32", "float32"), (Step("Add", (0, 1), "float32"),), (2,))
    calls = _input_products(x, weights, products, Epilogue(add, [weights.bias]), machine) if steps else []

    before: list[Call] = []
    after: list[Call] = []

    def source(view: View | None) -> View | None:
        if view is None or view.strides[-1] == 1 or view.shape[-1] == 1:
            return view
        dense = _dense(view.shape)
        before.append(copy(view, dense, machine))
        return dense

    def target(view: View | None) -> View | None:
        if view is None or view.strides[-1] == 1 or view.shape[-1] == 1:
            return view
        dense = _dense(view.shape)
        after.append(copy(dense, view, machine))
        return dense

    start, outs = [source(v) for v in (h0, c0)], [target(v) for v in (y, last_h, last_c)]
    if lengths is None:
        lengths = constant(np.full(batch, steps, np.int32))
    elif lengths.strides[0] != 1 and batch > 1:
        dense = View(Buffer(4 * batch), 0, lengths.dtype, lengths.shape, (1,))
        before.append(copy(lengths, dense, machine))
        lengths = dense
    # Sums of all gates of the rows, one unit's weights and a state must fit in the registers.
    most = max(1, (machine.registers - 2) // gates - 1)
    blocks = -(-batch // most)
    rows = -(-batch // blocks)
    late: Literal["none", "before", "after"] = "none"
    if kind == "GRU":
        late = "after" if weights.linear_before_reset else "before"
    form = Form(
        kind=kind,
        rows=rows,
        activations=weights.activations,
        late=late,
        masked=hidden % machine.lanes != 0,
        peepholes=weights.peepholes is not None,
        initial=(start[0] is not None, start[1] is not None),
        outputs=(outs[0] is not None, outs[1] is not None, outs[2] is not None),
    )
    arguments: list[int | View | Kernel] = [
        steps, batch, -(-batch // rows), hidden, sum(bit << d for d, bit in enumerate(reverse)),
        products, width, weights.weights, weights.late_weights, weights.late_bias, weights.peepholes or 0,
        lengths,
    ]  # fmt: skip
    for view, count in zip([*start, *outs], (2, 2, 3, 2, 2), strict=True):
        arguments += [0] * (count + 1) if view is None else [view, *view.strides[:count]]
    constants = [weights.weights, weights.late_weights, weights.late_bias, weights.peepholes]
    padded = -(-hidden // machine.lanes) * machine.lanes
    call = Call(
        step_through(form=form),
        arguments,
        tiles=directions * -(-batch // rows),
        reads=[v for v in (products, lengths, *constants, *start) if v is not None],
        writes=[v for v in outs if v is not None],
        scratch=4 * 4 * rows * padded,
        flops=2 * steps * batch * directions * gates * hidden * hidden,
        label=kind,
    )
    return [*before, *calls, call, *after]


def _input_products(
    x: View, weights: RecurrentWeights, out: View, epilogue: Epilogue, machine: Machine
) -> list[Call]:
    """What the inputs of all steps contribute to the gates."""
    slices, shape = weights.input_slices, (1, out.shape[-1], x.shape[0] * x.shape[1], 1)
    pays = shape[2] >= FEWEST_ROWS and cycles(shape, x.shape[2]) < direct_cycles(shape, x.shape[2], machine)
    calls = sliced_matmul(x, slices, out, epilogue, machine) if slices is not None and pays else None
    return matmul(x, weights.inputs, out, epilogue, machine) if calls is None else calls


def _dense(shape: Sequence[int]) -> View:
    """A fresh row-major buffer of float32."""
    return View(Buffer(4 * int(np.prod(shape))), 0, np.dtype(np.float32), tuple(shape), row_major(shape))
