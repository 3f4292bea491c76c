"""LSTM steps with recurrent weights of small integers against NumPy, on every kind of CPU.

A state that differs in its last bit may become another integer, and the steps after it would differ by a
hundredth. So each step is compared from the states that the kernel itself had before it, bit by bit.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine
from ingot.kernels.recurrent import Sequences, through_steps
from ingot.kernels.recurrent_integers import IntegerWeights, definition, pack_integer_states
from tests.kernels.run import each_machine, machines, new, put, run_calls

Arrays = dict[str, np.ndarray]


def layer(rng: np.random.Generator, steps: int, batch: int, hidden: int, directions: int) -> Arrays:
    """What the inputs contribute, and the states before the first step."""
    return {
        "gates": rng.standard_normal((steps, batch, directions * 4 * hidden)).astype(np.float32),
        "h": np.tanh(rng.standard_normal((directions, batch, hidden))).astype(np.float32),
        "c": rng.standard_normal((directions, batch, hidden)).astype(np.float32),
    }


def run(
    values: Arrays,
    steps: int,
    weights: IntegerWeights,
    lengths: np.ndarray,
    reverse: tuple[bool, ...],
    machine: Machine,
) -> list[np.ndarray]:
    """y, h and c of the kernel after so many steps (of the sequences from their own beginning)."""
    ends = np.minimum(lengths, steps).astype(np.int32)
    gates = values["gates"]
    shape = (gates.shape[0], *values["h"].shape)
    out = [new(shape), new(shape[1:]), new(shape[1:])]
    sequences = Sequences(*out, reverse, put(ends), put(values["h"]), put(values["c"]))
    calls = through_steps(put(gates), weights, sequences, machine)
    return run_calls(calls, *out, machine=machine)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_layer(data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from(machines()))
    # With a small L1 products are computed in parts.
    l1 = data.draw(st.sampled_from([machine.l1_bytes, 4096, 16384]))
    machine = dataclasses.replace(machine, l1_bytes=l1)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    steps, batch = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 9))
    hidden = data.draw(st.integers(1, 100))
    reverse = data.draw(st.sampled_from([(False,), (True,), (False, True)]))
    directions, dtype = len(reverse), data.draw(st.sampled_from([np.int8, np.uint8]))
    low = np.iinfo(dtype).min
    r = rng.integers(low, low + 256, (directions, hidden, 4 * hidden)).astype(dtype)
    size = (directions, 4 * hidden) if data.draw(st.booleans()) else (directions,)
    scale = rng.uniform(0.001, 0.02, size).astype(np.float32)
    zero = data.draw(st.sampled_from(["none", "middle", "any"]))
    own = rng.integers(low, low + 256, size) if zero == "any" else np.full(size, low + 128)
    zeros = None if zero == "none" else own.astype(dtype)
    p = rng.standard_normal((directions, 3 * hidden)).astype(np.float32) if data.draw(st.booleans()) else None
    clip, input_forget = data.draw(st.sampled_from([None, 0.7])), data.draw(st.booleans())
    lengths = np.array(data.draw(st.lists(st.integers(0, steps), min_size=batch, max_size=batch)), np.int64)
    values = layer(rng, steps, batch, hidden, directions)
    if data.draw(st.booleans()):
        values["h"][:] = 0
    weights = pack_integer_states(r, scale, zeros, p, machine, clip=clip, input_forget=input_forget)
    if not any(reverse):  # the states between the steps, by stopping there
        states = [run(values, t, weights, lengths, reverse, machine)[1:] for t in range(steps)]
        states = [(h, c) for h, c in states]
    else:  # a sequence's end is where it begins: all steps, from the same states
        steps = min(steps, 1)
        values["gates"], lengths, states = values["gates"][:1], np.minimum(lengths, 1), None
    got = run(values, steps, weights, lengths, reverse, machine)
    want = definition(
        values["gates"], r, scale, zeros, p, lengths, values["h"], values["c"],
        reverse=reverse, clip=clip, input_forget=input_forget, given=states,
    )  # fmt: skip
    for name, a, b in zip("yhc", got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=4e-6, err_msg=name)


@each_machine
def test_states_that_are_no_numbers_stay_so(machine: Machine) -> None:
    rng = np.random.default_rng(0)
    values = layer(rng, 1, 3, 20, 1)
    values["h"][0, 1, 7] = np.nan
    r = rng.integers(-128, 128, (1, 20, 80)).astype(np.int8)
    weights = pack_integer_states(r, np.full(1, 0.01, np.float32), None, None, machine)
    got = run(values, 1, weights, np.ones(3, int), (False,), machine)
    assert np.isnan(got[1]).all(), "a NaN among the states must reach every unit: all share its range"


@each_machine
def test_two_threads_share_a_sequence(machine: Machine) -> None:
    """Enough units for several tiles in a step; run_calls compares 1, 2 and 3 threads bit by bit."""
    rng = np.random.default_rng(1)
    values = layer(rng, 3, 2, 400, 1)
    r = rng.integers(-128, 128, (1, 400, 1600)).astype(np.int8)
    scale = np.full(1, 0.001, np.float32)
    weights = pack_integer_states(r, scale, None, None, machine)
    lengths = np.full(2, 3)
    states = [run(values, t, weights, lengths, (False,), machine)[1:] for t in range(3)]
    got = run(values, 3, weights, lengths, (False,), machine)
    want = definition(
        values["gates"], r, scale, None, None, None, values["h"], values["c"],
        reverse=(False,), given=[(h, c) for h, c in states],
    )  # fmt: skip
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=4e-6)
