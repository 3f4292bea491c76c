"""Sums of interpolated images against their plain definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.call import strides_in_order
from ingot.kernels.contract import Epilogue
from ingot.kernels.expression import Expression, Step, evaluate
from ingot.kernels.interpolate import Source, definition, interpolate_sum
from ingot.kernels.resize import Taps, identity_taps, taps
from tests.kernels.run import each_machine, machines, new, put, run_calls

CHANNELS_LAST = (0, 2, 3, 1)


def image(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    stored = rng.standard_normal([shape[d] for d in CHANNELS_LAST]).astype(np.float32)
    return stored.transpose(0, 3, 1, 2)


def table(mode: str, size: int, output: int) -> Taps:
    return identity_taps(size) if size == output else taps(mode, size, output, output / size)


def check(
    machine: Machine, sizes: list[tuple[int, int]], out: tuple[int, int, int, int], modes: list[str]
) -> None:
    rng = np.random.default_rng(0)
    images = [image(rng, (*out[:2], *size)) for size in sizes]
    tables = [
        (table(m, size[0], out[2]), table(m, size[1], out[3])) for m, size in zip(modes, sizes, strict=True)
    ]
    want = definition(images, tables)
    target = new(out, strides=strides_in_order(out, CHANNELS_LAST))
    sources = [Source(put(x), *pair) for x, pair in zip(images, tables, strict=True)]
    (got,) = run_calls(interpolate_sum(sources, target, None, machine), target, machine=machine)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_shapes(data: st.DataObject) -> None:
    side = st.integers(1, 12)
    out = data.draw(st.tuples(st.integers(0, 2), st.integers(1, 40), side, side))
    sizes = data.draw(st.lists(st.tuples(side, side), min_size=1, max_size=3))
    modes = data.draw(st.lists(st.sampled_from(["linear", "nearest", "cubic"]), min_size=3, max_size=3))
    check(data.draw(st.sampled_from(machines())), sizes, out, modes[: len(sizes)])


@each_machine
@pytest.mark.parametrize("channels", [1, 7, 32])
def test_epilogue(machine: Machine, channels: int) -> None:
    """A bias of each channel and an operand of each element."""
    rng = np.random.default_rng(1)
    x, other = image(rng, (2, channels, 3, 5)), image(rng, (2, channels, 6, 9))
    bias = rng.standard_normal((channels, 1, 1)).astype(np.float32)
    rows, columns = table("linear", 3, 6), table("linear", 5, 9)
    steps = (
        Step("Add", (0, 1), "float32"), Step("Add", (3, 2), "float32"), Step("Relu", (4,), "float32"),
    )  # fmt: skip
    expression = Expression(("float32",) * 3, steps, (5,))
    (want,) = evaluate(expression, [definition([x], [(rows, columns)]), bias, other])
    out = new(want.shape, strides=strides_in_order(want.shape, CHANNELS_LAST))
    epilogue = Epilogue(expression, [put(bias), put(other)])
    calls = interpolate_sum([Source(put(x), rows, columns)], out, epilogue, machine)
    (got,) = run_calls(calls, out, machine=machine)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_what_it_cannot_do_is_refused() -> None:
    (machine, *_) = machines()
    half = Source(new((1, 4, 2, 2), "float64", (16, 1, 8, 4)), identity_taps(2), identity_taps(2))
    out = new((1, 4, 2, 2), strides=(16, 1, 8, 4))
    with pytest.raises(UnsupportedOperatorError, match="float64"):
        interpolate_sum([half], out, None, machine)
    plain = Source(new((1, 4, 2, 2)), identity_taps(2), identity_taps(2))
    with pytest.raises(ValueError, match="side by side"):
        interpolate_sum([plain], out, None, machine)
