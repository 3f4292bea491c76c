"""Loops whose rounds are native for all shapes: what is handed on and what is put out."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest

from ingot.runtime.loose import LooseRounds
from tests.runtime.test_bodies import session_of


@contextmanager
def watched() -> Generator[Callable[[], int]]:
    """How many calls have advanced a loop."""
    advance, count = LooseRounds.advance, [0]

    def counted(self: LooseRounds, *arguments: object) -> object:
        ahead = advance(self, *arguments)  # pyright: ignore[reportArgumentType]
        count[0] += ahead is not None
        return ahead

    with patch.object(LooseRounds, "advance", counted):
        yield lambda: count[0]


@pytest.mark.parametrize("view", ["Identity (i)", "Reshape (i, none)"])
def test_the_number_of_a_round_stays_what_it_was_when_it_is_carried(view: str) -> None:
    """The number of the next round is written where this one's was."""
    text = f"""g (int64 n, int64 p, float[k] x) => (int64 q, float[m] y, int64[r] s) {{
        none = Constant<value = int64[0] {{}}>()
        q, y, s = Loop(n, , p, x) <
            body = b (int64 i, bool c, int64 before, float[a] u)
                => (bool d, int64 now, float[z] v, int64 row) {{
                d = Identity(c)
                now = {view}
                row = Identity(before)
                v = Concat<axis = 0>(u, u)
            }}
        >
    }}"""
    feed = {"n": np.array(5), "p": np.array(-7), "x": np.ones(1, np.float32)}
    with watched() as advanced:
        last, _, rows = session_of(text).run(None, feed)
    assert advanced() == 1
    assert last == 4
    assert rows.tolist() == [-7, 0, 1, 2, 3]


TWO_LISTS = """g (int64 n, seq(float[]) p, seq(float[]) q, float[k] x) => (seq(float[]) s, seq(float[]) t) {
    s, t, y = Loop(n, , p, q, x) <
        body = b (int64 i, bool c, seq(float[]) s0, seq(float[]) t0, float[a] u)
            => (bool d, seq(float[]) s1, seq(float[]) t1, float[z] v) {
            d = Identity(c)
            t1 = SequenceInsert(t0, u)
            s1 = Identity(t1)
            v = Concat<axis = 0>(u, u)
        }
    >
}"""


@pytest.mark.parametrize(
    "text",
    [TWO_LISTS, TWO_LISTS.replace("seq(float[]) s1,", "seq(float[]) t1,").replace("s1 = Identity(t1)", "")],
)
def test_a_list_that_is_carried_twice(text: str) -> None:
    """Both are the longer one, whatever the first was before."""
    one, two, x = (np.array(a, np.float32) for a in ([0], [9, 9], [1]))
    for found in session_of(text).run(None, {"n": np.array(2), "p": [one], "q": [two], "x": x}):
        assert [a.tolist() for a in found] == [[9, 9], [1], [1, 1]]


@pytest.mark.parametrize("value", ["i", "v"])
def test_what_is_put_into_a_list_is_an_array_of_its_own(value: str) -> None:
    """Rows of equal shapes are stacked while the loop runs; those of rank 0 would come out as numbers."""
    text = f"""g (int64 n, seq(float[]) p, float[1] x) => (seq(float[]) s) {{
        s, y = Loop(n, , p, x) <
            body = b (int64 i, bool c, seq(float[]) s0, float[a] u)
                => (bool d, seq(float[]) s1, float[z] v) {{
                d = Identity(c)
                axis = Constant<value_ints = [0]>()
                end = Constant<value_ints = [1]>()
                v = Slice(u, axis, end)
                row = Cast<to = 1>({value})
                s1 = SequenceInsert(s0, row)
            }}
        >
    }}"""
    feed = {"n": np.array(3), "p": [np.zeros(1, np.float32)], "x": np.ones(1, np.float32)}
    with watched() as advanced:
        _, *rows = session_of(text).run(None, feed)[0]
    assert advanced() == 1
    assert len(rows) == 3
    for row in rows:
        assert isinstance(row, np.ndarray)
        assert row.base is None


def test_many_operands_of_many_operators() -> None:
    """A sum of 80 products would take more scratch than there is, a chain of 1500 too many calls."""
    numbers = range(80)
    products = " ".join(f"k{n} = Constant<value_floats = [{n}.0]>() w{n} = Mul(last, k{n})" for n in numbers)
    chain = " ".join(f"c{n + 1} = Neg(c{n})" for n in range(1500))
    text = f"""g (int64 n, float[k] x) => (float[m] y) {{
        y = Loop(n, , x) <
            body = b (int64 i, bool c, float[a] u) => (bool d, float[z] v) {{
                d = Identity(c)
                at = Constant<value_ints = [-1]>()
                last = Gather<axis = 0>(u, at)
                {products}
                c0 = Sum({", ".join(f"w{n}" for n in numbers)})
                {chain}
                v = Concat<axis = 0>(u, c1500)
            }}
        >
    }}"""
    with watched() as advanced:
        found = session_of(text).run(None, {"n": np.array(2), "x": np.ones(1, np.float32)})[0]
    assert advanced() == 1
    assert found.tolist() == [1, 3160, 3160.0**2]
