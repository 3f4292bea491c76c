"""Depthwise convolution against its plain definition."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen import cache
from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.call import strides_in_order
from ingot.kernels.contract import Epilogue
from ingot.kernels.depthwise import definition, depthwise_conv2d, pack_depthwise, suits_groups
from ingot.kernels.expression import Expression, Step, evaluate
from tests.kernels.run import each_machine, machines, new, put, run_calls

CHANNELS_LAST, PLAIN = (0, 2, 3, 1), (0, 1, 2, 3)
DTYPES = st.sampled_from([np.float32, np.float32, np.float16, ml_dtypes.bfloat16])


def random_image(rng: np.random.Generator, shape: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray:
    """An array of logical `shape` whose memory order is `order`."""
    stored = rng.standard_normal([shape[d] for d in order]).astype(np.float32)
    return stored.transpose(np.argsort(order))


def check(
    machine: Machine,
    shape: tuple[int, int, int, int],
    kernel: tuple[int, int],
    multiplier: int = 1,
    group: int = 1,
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilations: tuple[int, int] = (1, 1),
    order: tuple[int, ...] = CHANNELS_LAST,
    out_order: tuple[int, ...] = CHANNELS_LAST,
    dtype: Any = np.float32,
) -> None:
    rng = np.random.default_rng(0)
    x = random_image(rng, shape, order).astype(dtype)
    w = rng.standard_normal((shape[1] * multiplier, group, *kernel)).astype(dtype)
    want = definition(x, w, strides, pads, dilations)
    out = new(want.shape, np.dtype(dtype), strides_in_order(want.shape, out_order))
    calls = depthwise_conv2d(put(x), pack_depthwise(w, machine), out, strides, pads, dilations, None, machine)
    (got,) = run_calls(calls, out, machine=machine)
    rounding = 0.0 if dtype == np.float32 else float(ml_dtypes.finfo(dtype).eps)
    bound = 1e-5 * max(1, group * kernel[0] * kernel[1]) ** 0.5
    np.testing.assert_allclose(got.astype(np.float32), want, rtol=1e-5 + rounding, atol=bound)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_shapes(data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from(machines()))
    kernel = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    dilations = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    reach = [(n - 1) * d for n, d in zip(kernel, dilations, strict=True)]
    pads = data.draw(st.tuples(*(st.integers(0, 3) for _ in range(4))))
    height = data.draw(st.integers(max(1, reach[0] + 1 - pads[0] - pads[2]), 20))
    width = data.draw(st.integers(max(1, reach[1] + 1 - pads[1] - pads[3]), 40))
    shape = (data.draw(st.integers(0, 3)), data.draw(st.integers(1, 40)), height, width)
    orders = st.sampled_from([CHANNELS_LAST, CHANNELS_LAST, PLAIN])
    check(
        machine,
        shape,
        kernel,
        multiplier=data.draw(st.sampled_from([1, 1, 1, 2, 3])),
        strides=data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        pads=pads,
        dilations=dilations,
        order=data.draw(orders),
        out_order=data.draw(orders),
        dtype=data.draw(DTYPES),
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_narrow_groups(data: st.DataObject) -> None:
    """Groups of 2, 4 and 8 channels that share a vector."""
    machine = data.draw(st.sampled_from([m for m in machines() if m.permutes]))
    width = data.draw(st.sampled_from([w for w in (2, 4, 8) if w < machine.lanes]))
    kernel = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 7)))
    orders = st.sampled_from([CHANNELS_LAST, CHANNELS_LAST, PLAIN])
    check(
        machine,
        (data.draw(st.integers(1, 2)), width * data.draw(st.integers(2, 8)), 12, 13),
        kernel,
        group=width,
        strides=data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        pads=data.draw(st.tuples(*(st.integers(0, 3) for _ in range(4)))),
        dilations=data.draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)])),
        order=data.draw(orders),
        out_order=data.draw(orders),
        dtype=data.draw(DTYPES),
    )


def test_which_groups_suit() -> None:
    machine = next(m for m in machines() if m.permutes)
    assert suits_groups((48, 4, 3, 3), 12, machine)
    assert not suits_groups((48, 3, 3, 3), 16, machine)  # not a part of a vector
    assert not suits_groups((96, 4, 3, 3), 12, machine)  # two outputs for each input
    assert not suits_groups((48, machine.lanes, 3, 3), 48 // machine.lanes, machine)  # a whole vector
    assert not suits_groups((48, 4, 3, 9), 12, machine)


@each_machine
@pytest.mark.parametrize(("columns", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (31, 1)])
def test_usual_layers(machine: Machine, columns: int, stride: int) -> None:
    pad = columns // 2
    check(machine, (1, 96, 14, 14), (columns, columns), strides=(stride, stride), pads=(pad,) * 4)


@each_machine
def test_one_dimension(machine: Machine) -> None:
    check(machine, (2, 48, 1, 50), (1, 15), pads=(0, 14, 0, 0))


def test_non_finite_values_reach_only_their_windows() -> None:
    (machine, *_) = machines()
    x = np.ones((1, 16, 8, 20), np.float32).transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1)
    x[0, 3, 4, 5], x[0, 7, 0, 0] = np.nan, np.inf
    w = np.ones((16, 1, 3, 3), np.float32)
    want = definition(x, w, (1, 1), (1, 1, 1, 1), (1, 1))
    out = new(want.shape, strides=strides_in_order(want.shape, CHANNELS_LAST))
    calls = depthwise_conv2d(
        put(x), pack_depthwise(w, machine), out, (1, 1), (1, 1, 1, 1), (1, 1), None, machine
    )
    np.testing.assert_array_equal(run_calls(calls, out, machine=machine)[0], want)


def test_other_dtypes_are_refused() -> None:
    (machine, *_) = machines()
    x, out = new((1, 4, 5, 5), "float64"), new((1, 4, 5, 5), "float64")
    weights = pack_depthwise(np.ones((4, 1, 3, 3), np.float32), machine)
    with pytest.raises(UnsupportedOperatorError, match="float64"):
        depthwise_conv2d(x, weights, out, (1, 1), (1, 1, 1, 1), (1, 1), None, machine)


RELU6 = (
    Step("Add", (0, 1), "float32"),
    Step("Constant", (), "float32", (("value", 0.0),)),
    Step("Constant", (), "float32", (("value", 6.0),)),
    Step("Clip", (3, 4, 5), "float32"),
    Step("Add", (6, 2), "float32"),
)
SILU = (
    Step("Add", (0, 1), "float32"),
    Step("Sigmoid", (3,), "float32"),
    Step("Mul", (3, 4), "float32"),
    Step("Mul", (5, 2), "float32"),
)


@each_machine
@pytest.mark.parametrize("steps", [RELU6, SILU], ids=["short", "long"])
@pytest.mark.parametrize("order", [CHANNELS_LAST, PLAIN], ids=["channels last", "plain"])
def test_epilogue(machine: Machine, steps: tuple[Step, ...], order: tuple[int, ...]) -> None:
    """A bias of each channel, an activation, and an operand of each element (or image and channel)."""
    rng = np.random.default_rng(0)
    x, w = (
        random_image(rng, (2, 37, 9, 11), CHANNELS_LAST),
        rng.standard_normal((37, 1, 3, 3)).astype(np.float32),
    )
    geometry = (1, 2), (1, 1, 1, 1), (1, 1)
    sums = definition(x, w, *geometry)
    bias = rng.standard_normal((37, 1, 1)).astype(np.float32)
    expression = Expression(("float32",) * 3, steps, (len(steps) + 2,))
    for other in (random_image(rng, sums.shape, order), random_image(rng, (2, 37, 1, 1), order)):
        (want,) = evaluate(expression, [sums, bias, other])
        out = new(want.shape, strides=strides_in_order(want.shape, order))
        epilogue = Epilogue(expression, [put(bias), put(other)])
        calls = depthwise_conv2d(put(x), pack_depthwise(w, machine), out, *geometry, epilogue, machine)
        (got,) = run_calls(calls, out, machine=machine)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5)


@each_machine
@pytest.mark.parametrize(("columns", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)])
def test_no_spills(machine: Machine, columns: int, stride: int) -> None:
    """Sums and weights stay in registers, but for a few that LLVM's scheduling moves: they cost nothing that
    could be measured (without FMA, a product takes one register more than large filters leave).
    """
    if not machine.fma and columns > 3:
        pytest.skip("this machine has no FMA")
    x, size = new((1, 96, 28, 28), strides=strides_in_order((1, 96, 28, 28), CHANNELS_LAST)), 28 // stride
    out = new((1, 96, size, size), strides=strides_in_order((1, 96, size, size), CHANNELS_LAST))
    weights = pack_depthwise(np.ones((96, 1, columns, columns), np.float32), machine)
    pads = (columns // 2,) * 4
    (call,) = depthwise_conv2d(x, weights, out, (stride, stride), pads, (1, 1), None, machine)
    assembly = cache.native_assembly(call.kernel, machine)
    products = len(re.findall(r"\tv?(?:vfmadd|mulps)", assembly))
    assert products >= 8 * columns
    assert len(re.findall(r"[xyz]mm.*rsp|rsp.*[xyz]mm", assembly)) < products / 2


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_every_block(data: st.DataObject) -> None:
    """Blocks of rows and pixels that the cost model would not choose compute the same."""
    machine = data.draw(st.sampled_from(machines()))
    dilation = data.draw(st.integers(1, 2))
    rows = data.draw(st.integers(1, 5)) if dilation == 1 else 1
    turn = (rows, data.draw(st.integers(1, 6)))
    kernel = data.draw(st.sampled_from([(3, 3), (5, 5), (1, 4), (4, 1), (2, 3), (7, 7)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingot.kernels.depthwise.choose", lambda *_, **__: turn)
        check(
            machine,
            (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 40)), 14, 15),
            kernel,
            strides=data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
            pads=data.draw(st.tuples(*(st.integers(0, 4) for _ in range(4)))),
            dilations=(dilation, dilation),
        )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_rows_of_any_window(data: st.DataObject) -> None:
    """The kernel of large windows, of these and of small ones, which the cost model would give to blocks."""
    kernel = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 40)))
    dilations = data.draw(st.sampled_from([(1, 1), (1, 2), (2, 1)]))
    reach = [(n - 1) * d + 1 for n, d in zip(kernel, dilations, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingot.kernels.depthwise.choose", lambda *_, **__: None)
        check(
            data.draw(st.sampled_from(machines())),
            (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 40)), 6 + reach[0], 9 + reach[1]),
            kernel,
            multiplier=data.draw(st.sampled_from([1, 1, 2])),
            strides=data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
            pads=data.draw(st.tuples(*(st.integers(0, 4) for _ in range(4)))),
            dilations=dilations,
            order=data.draw(st.sampled_from([CHANNELS_LAST, CHANNELS_LAST, PLAIN])),
            out_order=data.draw(st.sampled_from([CHANNELS_LAST, CHANNELS_LAST, PLAIN])),
            dtype=data.draw(DTYPES),
        )
