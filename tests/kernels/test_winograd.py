"""Winograd convolution against the plain definition: sizes, pads, layouts, epilogues, threads, registers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine
from ingot.kernels.call import strides_in_order
from ingot.kernels.conv import definition
from ingot.kernels.winograd import winograd_conv2d
from ingot.kernels.winograd_pack import pack_winograd
from tests.kernels.run import machines, new, put, run_calls
from tests.kernels.test_conv import FIRST, LAST, image

BOUND = 2e-5  # of the largest output; measured 2 to 6e-6


def check(
    x: np.ndarray,
    outputs: int,
    pads: tuple[int, int, int, int],
    machine: Machine,
    order: tuple[int, ...] = LAST,
) -> None:
    """Compare one convolution with its definition."""
    rng = np.random.default_rng(1)
    w = rng.standard_normal((outputs, x.shape[1], 3, 3)).astype(np.float32)
    want = definition(x, w, (1, 1), pads, (1, 1), 1)
    out = new(want.shape, strides=strides_in_order(want.shape, order))
    (got,) = run_calls(
        winograd_conv2d(put(x), pack_winograd(w, machine), out, pads, None, machine), out, machine=machine
    )
    assert np.abs(got - want).max(initial=0) <= BOUND * np.abs(want).max(initial=0)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    n=st.integers(0, 3),
    inner=st.sampled_from([1, 3, 16, 19, 33, 64]),
    outer=st.sampled_from([1, 3, 16, 33, 40, 65]),
    size=st.tuples(st.integers(1, 19), st.integers(1, 31)),
    pads=st.one_of(st.just((1, 1, 1, 1)), st.tuples(*[st.integers(0, 3)] * 4)),
    layout=st.sampled_from(["first", "last", "last", "slice", "flipped"]),
    order=st.sampled_from([LAST, LAST, FIRST]),
    machine=st.sampled_from(machines()),
)
def test_any_size(
    n: int,
    inner: int,
    outer: int,
    size: tuple[int, int],
    pads: tuple[int, int, int, int],
    layout: str,
    order: tuple[int, ...],
    machine: Machine,
) -> None:
    """Random geometry; where the filter is larger than the padded image, there is no output and no call."""
    if min(size[d] + pads[d] + pads[d + 2] for d in range(2)) < 3:
        pads = (1, 1, 1, 1)
    check(image(np.random.default_rng(0), (n, inner, *size), layout), outer, pads, machine, order)
