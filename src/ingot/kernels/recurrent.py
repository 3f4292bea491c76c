"""LSTM, GRU and plain recurrent layers: what the inputs contribute is one matrix product over all steps; then
a kernel goes through the steps in waves.

A wave is a step: its tiles are (direction, share of the hidden units, a few sequences), and none begins
before the step before it is done. So a single sequence is shared out among threads as well, and each of them
keeps the recurrent weights of its units in its own cache. (A GRU whose reset gate comes before its last
product takes two waves for a step.) What a tile does is in recurrent_step.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ingot.codegen.elements import bytes_of
from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels import definitions as plain
from ingot.kernels.call import Buffer, Call, View, constant, row_major
from ingot.kernels.contract import Epilogue
from ingot.kernels.contraction import Matrices, multiply, pack_matrices
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, Step
from ingot.kernels.pack import PackedWeights, aligned_copy, aligned_floats, pack_weights
from ingot.kernels.recurrent_form import (
    DEFAULTS,
    Activation,
    Form,
    Kind,
    StateWeights,
    columns,
    grouped,
    together,
)
from ingot.kernels.recurrent_integers import IntegerWeights, step_through_integers
from ingot.kernels.recurrent_step import step_through
from ingot.kernels.sliced import FEWEST_ROWS, cycles, direct_cycles, slice_matrix, sliced_matmul
from ingot.kernels.slices import SlicedWeights
from ingot.kernels.strassen import PanelSums, packed_matmul
from ingot.kernels.units import VALUES

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

#: Arithmetic of a tile, at least: some 0.5 µs, for which claiming it is a few percent.
_LEAST_FLOPS = 100_000


@dataclass(frozen=True, slots=True)
class RecurrentWeights(StateWeights):
    """All of a layer's constants. inputs: [I, directions * gates * H]."""

    inputs: PackedWeights | Matrices
    input_slices: SlicedWeights | None
    bias: View


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
    panels = panels.reshape(directions, gates, blocks, lanes, hidden)
    first = 2 if kind == "GRU" and not linear_before_reset else gates
    inputs = np.asarray(w, wide).reshape(directions * rows, -1).T
    is_wide = wide == np.float64
    blocks_together = together(kind, hidden, lanes, machine)
    return RecurrentWeights(
        kind,
        wide.name,
        hidden,
        directions,
        tuple(activations or DEFAULTS[kind]),
        linear_before_reset,
        clip,
        input_forget,
        constant(_in_columns(panels[:, :first], blocks_together)),
        constant(_in_columns(panels[:, first:], blocks_together)),
        constant(np.ascontiguousarray(late_bias)),
        None if p is None else constant(np.ascontiguousarray(p, wide)),
        blocks_together,
        pack_matrices(inputs, machine) if is_wide else pack_weights(inputs, machine),
        slice_matrix(inputs, machine) if tiles and not is_wide else None,
        constant(np.ascontiguousarray(early.reshape(-1))),
    )


def _in_columns(panels: np.ndarray, together: int) -> np.ndarray:
    """Recurrent weights [directions, gates, blocks, lanes, hidden] in the order in which steps read them (see
    recurrent_step.py): [directions, blocks / together, ...].
    """
    if panels.size == 0:
        return aligned_copy(panels)
    gates, lanes, hidden = panels.shape[1], *panels.shape[3:]
    vectors = panels.transpose(0, 2, 1, 4, 3).reshape(-1, gates * together, hidden, lanes)
    parts, first = list[np.ndarray](), 0
    for number, across in columns(gates, together):
        part = vectors[:, first : first + number * across].reshape(-1, number, across, hidden, lanes)
        parts.append(part.swapaxes(2, 3).reshape(len(vectors), -1))
        first += number * across
    return aligned_copy(np.concatenate(parts, 1))


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


@dataclass(frozen=True, slots=True)
class Sequences:
    """What a layer's steps begin with, and what is wanted of them, in any strides.

    y [T, D, B, H], last_h, last_c [D, B, H]: results, None where nobody reads them. reverse: for each
    direction, whether it goes from a sequence's end to its beginning. lengths: int32 [B], each at most T;
    beyond a sequence's end y is 0 and the state stays. h0, c0 [D, B, H]: where None, zeros.
    """

    y: View | None = None
    last_h: View | None = None
    last_c: View | None = None
    reverse: Sequence[bool] = (False,)
    lengths: View | None = None
    h0: View | None = None
    c0: View | None = None


def recurrent(
    x: View,
    weights: RecurrentWeights,
    sequences: Sequences,
    machine: Machine,
    sums: PanelSums | None = None,
) -> list[Call]:
    """Calls for a layer: x [T, B, I], any strides; all of the dtype that the weights were packed for, float32
    or float64. (Layouts with the batch first are a matter of strides.) sums: of the packed `weights.inputs`,
    where Strassen's scheme is faster.

    Raises UnsupportedOperatorError for other dtypes.
    """
    if x.dtype.name != weights.dtype:
        raise UnsupportedOperatorError(
            f"{weights.kind}: x is {x.dtype.name}, its weights are computed in {weights.dtype}; cast it"
        )
    order = (1, 0, 2) if x.strides[0] < x.strides[1] else (0, 1, 2)  # in memory: its rows are one matrix
    rows = x.transpose(order)
    products = _dense((*rows.shape[:2], weights.bias.size), weights.dtype)
    calls = through_steps(products.transpose(order), weights, sequences, machine)
    return [*_input_products(rows, weights, products, machine, sums), *calls] if products.size else calls


def through_steps(
    products: View, weights: StateWeights, sequences: Sequences, machine: Machine
) -> list[Call]:
    """The rest of `recurrent`: products [T, B, D * gates * H], with contiguous rows, is what the inputs and
    the biases contribute to the gates.
    """
    for name in ("y", "last_h", "last_c", "h0", "c0"):
        view: View | None = getattr(sequences, name)
        if view is not None and view.dtype.name != weights.dtype:
            raise UnsupportedOperatorError(
                f"{weights.kind}: {name} is {view.dtype.name}, its weights are computed in {weights.dtype}; "
                "cast it"
            )
    lengths = sequences.lengths
    if lengths is not None and lengths.dtype != np.int32:
        raise UnsupportedOperatorError(
            f"{weights.kind}: sequence lengths are {lengths.dtype.name}, wanted int32"
        )
    steps, batch, _ = products.shape
    kind, hidden, directions, dtype = weights.kind, weights.hidden, weights.directions, weights.dtype
    if batch == 0 or hidden == 0:
        return []
    calls: list[Call] = []
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

    h, c = (source(v) for v in (sequences.h0, sequences.c0))
    every = target(sequences.y)
    if lengths is not None and lengths.strides[0] != 1 and batch > 1:
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
        calls.append(_steps_call(weights, products, lengths, h, c, every, held, machine, sequences.reverse))
    for state, given, wanted in ((states, h, sequences.last_h), (cells, c, sequences.last_c)):
        if wanted is not None and state is not None:
            last = state.with_dims(wanted.shape, state.strides[1:], steps % 2 * state.strides[0])
            after.append(copy(last if steps else given, wanted, machine))
    return [*before, *calls, *after]


def _steps_call(
    weights: StateWeights,
    products: View,
    lengths: View | None,
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
    is_whole = isinstance(weights, IntegerWeights)
    factors = -(-hidden // VALUES[weights.numbers]) if is_whole else hidden
    groups = grouped(batch, gates, weights.together, factors, weights.dtype, machine, is_whole)
    late = _late(weights)
    form = Form(
        kind=kind,
        rows=groups.rows,
        groups="one" if groups.number == 1 else "mixed" if groups.taller else "alike",
        parts=groups.parts,
        ragged=lengths is not None,
        activations=weights.activations,
        late=late,
        masked=hidden % lanes != 0,
        peepholes=weights.peepholes is not None,
        every=y is not None,
        dtype=weights.dtype,
        clip=weights.clip,
        input_forget=weights.input_forget,
        together=weights.together,
    )
    flops = 2 * batch * directions * gates * hidden * hidden  # of a step
    of_block, shares = flops // (directions * groups.tiles), 1
    least = _LEAST_FLOPS * (VALUES[weights.numbers] if is_whole else 1)
    runs = -(-hidden // lanes) // weights.together
    while 2 * shares <= runs and of_block >= 2 * shares * least:
        shares *= 2
    waves = steps * (2 if late == "before" else 1)
    arguments: list[int | View | Kernel] = [
        batch, groups.number, groups.taller, groups.tiles, shares, groups.part, directions, hidden, steps,
        sum(bit << d for d, bit in enumerate(reverse)),
        products, *products.strides[:2], weights.weights, weights.late_weights or 0, weights.late_bias or 0,
        weights.peepholes or 0,
        lengths or 0, *[v or 0 for v in held], h, *h.strides[:2], c, *c.strides[:2],
    ]  # fmt: skip
    arguments += [0] * 4 if y is None else [y, *y.strides[:3]]
    constants = [weights.weights, weights.late_weights, weights.late_bias, weights.peepholes]
    code, scratch = step_through(form=form), groups.most * groups.rows * form.sums * machine.vector_bytes
    if is_whole:
        code = step_through_integers(form=form, numbers=weights.numbers)
        scratch += weights.scratch(groups.most * groups.rows, machine)
        constants += [weights.scales, weights.sums]
        arguments += [weights.scales, weights.sums]
    return Call(
        code,
        arguments,
        tiles=waves * directions * shares * groups.tiles,
        reads=[v for v in (products, lengths, *constants, h, c) if v is not None],
        writes=[v for v in (y, *held) if v is not None],
        scratch=scratch,
        flops=steps * flops,
        label=kind,
        waves=waves,
    )


def _late(weights: StateWeights) -> Literal["none", "before", "after"]:
    """Which sums of a GRU wait for its reset gates."""
    if weights.kind != "GRU":
        return "none"
    return "after" if weights.linear_before_reset else "before"


def _input_products(
    x: View, weights: RecurrentWeights, out: View, machine: Machine, sums: PanelSums | None
) -> list[Call]:
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
    return packed_matmul(x, weights.inputs, sums, out, epilogue, machine) if calls is None else calls


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
