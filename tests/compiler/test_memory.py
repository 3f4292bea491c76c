"""Offsets in the arena: buffers that live at the same time never overlap, and the arena is not much larger
than it must be.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.compiler.memory import ALIGNMENT, place
from ingot.kernels.call import Buffer

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
