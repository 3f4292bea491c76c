"""Offsets in the arena: buffers that live at the same time never overlap, the arena is not much larger than
it must be, and calls that work element by element write where they read.
"""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingot
from ingot.codegen.machine import host
from ingot.compiler import plan
from ingot.compiler.memory import ALIGNMENT, Lives, merge, peak, place
from ingot.kernels.call import Buffer, Call, View, row_major
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, Step

lives = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 30), st.integers(0, 10)).map(
        lambda t: (t[0], t[1], t[1] + t[2])
    ),
    max_size=40,
)


@given(lives)
@settings(max_examples=200, deadline=None)
def test_buffers_that_live_together_lie_apart(cases: list[tuple[int, int, int]]) -> None:
    """Checked pair by pair; offsets are aligned and inside the arena."""
    buffers = [(Buffer(size), first, last) for size, first, last in cases]
    offsets, size = place(buffers)
    for i, (a, first, last) in enumerate(buffers):
        assert offsets[a] % ALIGNMENT == 0
        assert offsets[a] + a.nbytes <= size
        for b, other_first, other_last in buffers[i + 1 :]:
            if first <= other_last and other_first <= last:
                apart = offsets[a] + a.nbytes <= offsets[b] or offsets[b] + b.nbytes <= offsets[a]
                assert apart, f"{cases}: buffers at {offsets[a]} and {offsets[b]} overlap"


def test_a_chain_needs_two_buffers() -> None:
    """Each value dies when the next is made: the arena is as large as two of them, however long the chain."""
    chain = [(Buffer(1 << 20), step, step + 1) for step in range(100)]
    _, size = place(chain)
    assert size == 2 << 20


# ---- in place --------------------------------------------------------------------------------------------


def view(buffer: Buffer, shape: tuple[int, ...] = (4, 6), offset: int = 0) -> View:
    return View(buffer, offset, np.dtype(np.float32), shape, row_major(shape))


def add(a: View, b: View, out: View) -> Call:
    expression = Expression(("float32",) * 2, (Step("Add", (0, 1), "float32"),), (2,))
    return elementwise(expression, [a, b], [out], host())


def lives_of(steps: list[Call]) -> Lives:
    return plan._lives(list(steps), [])[1]


def test_a_sum_is_written_over_an_operand_that_nobody_reads_again() -> None:
    a, b, c, d = (Buffer(96) for _ in range(4))
    steps = [add(view(a), view(b), view(c)), add(view(c), view(b), view(d))]
    lives = lives_of(steps)
    assert merge(steps, lives) == {c: a, d: a}
    assert lives == {a: (0, 1), b: (0, 1)}


def alone(buffers: list[Buffer]) -> list[Call]:
    a, b, c, _ = buffers
    return [add(view(a), view(b), view(c))]


def read_later(buffers: list[Buffer]) -> list[Call]:
    a, b, c, d = buffers
    return [add(view(a), view(b), view(c)), add(view(a), view(b), view(d))]


def turned(buffers: list[Buffer]) -> list[Call]:
    a, b, c, _ = buffers
    return [add(view(a, (6, 4)).transpose((1, 0)), view(b, (6, 4)).transpose((1, 0)), view(c))]


def repeated(buffers: list[Buffer]) -> list[Call]:
    a, b, c, _ = buffers
    return [add(view(a, (6,)).broadcast_to((4, 6)), view(b, (4, 1)).broadcast_to((4, 6)), view(c))]


def in_two_ways(buffers: list[Buffer]) -> list[Call]:
    a, _, c, _ = buffers
    square = View(a, 0, np.dtype(np.float32), (4, 4), (4, 1))
    return [add(square, square.transpose((1, 0)), view(c, (4, 4)))]


def a_part(buffers: list[Buffer]) -> list[Call]:
    a, b, c, _ = buffers
    return [add(view(a, (2, 6)), view(b, (2, 6)), view(c, (2, 6), 48)), add(view(a), view(b), view(c))]


@pytest.mark.parametrize("case", [read_later, turned, repeated, in_two_ways, a_part])
def test_nothing_else_is_written_over(case) -> None:
    """The operand is read again, lies otherwise, is smaller, is read in two ways; only a part is written."""
    buffers = [Buffer(64 if case is in_two_ways else 96) for _ in range(4)]
    steps = case(buffers)
    merged = merge(steps, lives_of(steps))
    if case is read_later:
        assert merged == {buffers[3]: buffers[0]}  # the second sum may
    else:
        assert merged == {}
    assert merge(alone(buffers), lives_of(alone(buffers))) != {} or case is in_two_ways


def test_inputs_and_constants_are_never_written_over() -> None:
    a, b = Buffer(96, "input"), Buffer(96, "constant", np.zeros(24, np.float32))
    steps = [add(view(a), view(b), view(Buffer(96)))]
    assert merge(steps, lives_of(steps)) == {}


# ---- whole graphs ----------------------------------------------------------------------------------------

RESIDUAL = """
    a = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(x, w)
    b = Relu(a)
    c = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(b, w)
    d = Add(c, x)
    e = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(d)
    f = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(e, w)
    g = Softmax<axis=1>(f)
    h = Add(g, e)
    y = GlobalAveragePool(h)"""
NESTED = """
    a = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(x, w)
    b = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(a)
    c = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(b, w)
    d = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(c)
    e = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(d, w)
    scales = Constant<value_floats=[1.0, 1.0, 2.0, 2.0]>()
    f = Resize<mode="nearest">(e, , scales)
    g = Concat<axis=1>(f, c)
    h = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(g, w2)
    i = Resize<mode="nearest">(h, , scales)
    j = Concat<axis=1>(a, i)
    k = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(j, w2)
    y = GlobalAveragePool(k)"""
DENSE = """
    a = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(x, w)
    b = Concat<axis=1>(x, a)
    c = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(b, w2)
    d = Concat<axis=1>(b, c)
    e = Softmax<axis=1>(d)
    f = Concat<axis=1>(x, e, c)
    y = GlobalAveragePool(f)"""


@pytest.mark.parametrize("nodes", [RESIDUAL, NESTED, DENSE])
def test_the_arena_is_as_large_as_what_lives_together(nodes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def watched(lives):
        lives = list(lives)
        offsets, size = place(lives)
        seen.append((size, peak(lives)))
        return offsets, size

    monkeypatch.setattr(plan, "place", watched)
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[1, 8, 32, 32] x, float[8, 8, 3, 3] w, float[8, 16, 3, 3] w2) => (float[1, c, 1, 1] y) {{
            {nodes}
        }}""")
    generator = np.random.default_rng(0)
    feed = {
        "x": generator.standard_normal((1, 8, 32, 32)).astype(np.float32),
        "w": generator.standard_normal((8, 8, 3, 3)).astype(np.float32),
        "w2": generator.standard_normal((8, 16, 3, 3)).astype(np.float32),
    }
    for value in ("w", "w2"):  # weights, as in a model
        model.graph.initializer.append(onnx.numpy_helper.from_array(feed.pop(value), value))
        del model.graph.input[1]
    ingot.InferenceSession(model).run(None, feed)
    assert seen
    for size, least in seen:
        assert size <= 1.1 * least, f"the arena has {size} bytes, {least} live together"
