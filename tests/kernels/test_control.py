"""Loops and branches against Python's own, over rounds that end in every way."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine
from ingot.compiler.plan import make_plan
from ingot.compiler.steps import Check, Lowered
from ingot.errors import InputError
from ingot.kernels.call import Block, Buffer, Nested, View, row_major
from ingot.kernels.control import branch, loop
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, Step
from ingot.runtime.execute import Instance, Memory
from ingot.runtime.threads import Team
from tests.kernels.run import machines, new

ADD = Expression(("float32", "float32"), (Step("Add", (0, 1), "float32"),), (2,))


def at(kind: str, index: int, array: np.ndarray) -> View:
    """An input or output, of a plan or of a block, that is like this array."""
    buffer = Buffer(array.nbytes, "input" if kind == "input" else "output", index=index)
    return View(buffer, 0, array.dtype, array.shape, row_major(array.shape))


class Run:
    """A plan of one step, run twice: addresses that moved are back."""

    def __init__(self, step: Nested, checks: list[Check], machine: Machine) -> None:
        self.plan = make_plan(Lowered([step], checks), machine, 1)
        self.instance, self.machine = Instance(self.plan), machine

    def __call__(self, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> bool:
        """Whether a check failed."""
        try:
            self.instance.run(inputs, outputs, Memory(), Team(1, self.machine), lambda *_: [])
        except InputError:
            return True
        return False


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rounds(data: st.DataObject) -> None:
    """A sum over rows, read from either end; the sum so far goes to rows that are written from either end."""
    machine = data.draw(st.sampled_from(machines()))
    length, width = data.draw(st.integers(1, 6)), data.draw(st.sampled_from([0, 1, 3, 17]))
    rows = np.random.default_rng(length).standard_normal((length, width)).astype(np.float32)
    lives = np.array(data.draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    flags = np.array(data.draw(st.lists(st.sampled_from([0, 0, 0, 9]), min_size=length, max_size=length)))
    limit = data.draw(st.sampled_from([None, -1, 0, 1, length, length + 3]))
    first = data.draw(st.sampled_from([None, True, False]))
    asks = data.draw(st.booleans()) or limit is None or limit > length
    if asks:
        lives[-1] = False  # it ends at the last row
    turned_in, turned_out = data.draw(st.booleans()), data.draw(st.booleans())

    want_sum, want_rows, done, bad = np.zeros(width, np.float32), np.full_like(rows, 7), 0, False
    live = first is not False
    while live and not bad and (limit is None or done < limit):
        want_sum = want_sum + rows[-1 - done if turned_in else done]
        want_rows[-1 - done if turned_out else done] = want_sum
        bad = bool(flags[done])
        live = bool(lives[done]) or not asks
        done += 1

    row, line = np.zeros(width, np.float32), 4 * width
    trip, start = np.array(0 if limit is None else limit), np.array(first is not False)
    inputs = [rows, lives, flags, trip, start]
    outputs = [np.zeros(width, np.float32), np.full_like(rows, 7), np.array(-1)]
    total, before, one_live, one_flag = (at("input", i, v) for i, v in enumerate((row, row, start, trip)))
    after, kept, going = (at("output", i, v) for i, v in enumerate((row, row, start)))
    flag, counter, condition = new((), "int64"), at("output", 2, trip), new((), "bool")
    steps = [
        elementwise(ADD, [total, before], [after], machine),
        copy(after, kept, machine),
        copy(one_live, going, machine),
        copy(one_flag, flag, machine),
    ]
    given_ = [at("input", i, v) for i, v in enumerate(inputs)]
    results = [at("output", i, v) for i, v in enumerate(outputs)]
    last = (length - 1) * width
    body = Block(
        list(steps),
        [results[0], given_[0].with_dims((width,), (1,), last if turned_in else 0), given_[1], given_[2]],
        [results[0], results[1].with_dims((width,), (1,), last if turned_out else 0), condition],
        set(),
        ({1: -line if turned_in else line, 2: 1, 3: 8}, {1: -line if turned_out else line}),
    )
    trips, begins = None if limit is None else given_[3], None if first is None else given_[4]
    step = loop(body, [flag], counter, trips, begins, condition if asks else None)
    run = Run(step, [Check(flag, "a flag")], machine)
    for _ in range(2):
        outputs[0][:], outputs[1][:], outputs[2][...] = 0, 7, -1
        assert run(inputs, outputs) == bad
        assert outputs[2] == done - 1  # the number of the last round
        np.testing.assert_array_equal(outputs[0], want_sum)
        np.testing.assert_array_equal(outputs[1], want_rows)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_branches(data: st.DataObject) -> None:
    machine, width = data.draw(st.sampled_from(machines())), data.draw(st.sampled_from([0, 1, 5, 40]))
    x = np.arange(width, dtype=np.float32)
    own, out = at("input", 0, x), at("output", 0, x)
    blocks = [
        Block([call], [at("input", 0, x)], [at("output", 0, x)], set())
        for call in (copy(own, out, machine), elementwise(ADD, [own, own], [out], machine))
    ]
    step = branch(at("input", 1, np.array(True)), *blocks)
    run = Run(step, [], machine)
    for holds in data.draw(st.lists(st.booleans(), min_size=1, max_size=4)):
        outputs = [np.empty_like(x)]
        assert not run([x, np.array(holds)], outputs)
        np.testing.assert_array_equal(outputs[0], x if holds else 2 * x)
