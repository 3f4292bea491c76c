"""Winograd convolution against the plain definition: sizes, pads, layouts, epilogues, threads, registers."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen import cache
from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine
from ingot.errors import ShapeError, UnsupportedOperatorError
from ingot.kernels import winograd
from ingot.kernels.call import strides_in_order
from ingot.kernels.contract import Epilogue
from ingot.kernels.conv import definition
from ingot.kernels.expression import Expression, Step, evaluate
from ingot.kernels.winograd import fastest, pays, winograd_conv2d
from ingot.kernels.winograd_pack import filter_matrix, pack_winograd
from ingot.kernels.winograd_tile import SCHEMES, Scheme
from tests.kernels.assembly import spills_in_loops
from tests.kernels.run import each_machine, machines, new, put, run_calls
from tests.kernels.test_conv import FIRST, LAST, image

BOUND = 2e-5  # of the largest output; measured 1 to 6e-6, by tiles of 2×2 below 1e-6
LARGE, SMALL = SCHEMES[4], SCHEMES[2]
each_scheme = pytest.mark.parametrize("scheme", [LARGE, SMALL], ids=["4×4", "2×2"])


def check(
    x: np.ndarray,
    outputs: int,
    pads: tuple[int, int, int, int],
    machine: Machine,
    scheme: Scheme,
    order: tuple[int, ...] = LAST,
) -> None:
    """Compare one convolution with its definition."""
    rng = np.random.default_rng(1)
    w = rng.standard_normal((outputs, x.shape[1], 3, 3)).astype(x.dtype)
    want = definition(x, w, (1, 1), pads, (1, 1), 1)
    out = new(want.shape, x.dtype, strides_in_order(want.shape, order))
    (got,) = run_calls(
        winograd_conv2d(put(x), pack_winograd(w, scheme, machine), out, pads, None, machine),
        out,
        machine=machine,
    )
    rounding = 0.0 if x.dtype == np.float32 else float(ml_dtypes.finfo(x.dtype).eps)
    assert np.abs(got - want).max(initial=0) <= (BOUND + rounding) * np.abs(want).max(initial=0)


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
    dtype=st.sampled_from([np.float32, np.float32, np.float16, ml_dtypes.bfloat16]),
    scheme=st.sampled_from([LARGE, SMALL]),
    l2_bytes=st.sampled_from([1 << 21, 1 << 14]),
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
    dtype: Any,
    scheme: Scheme,
    l2_bytes: int,
) -> None:
    """Random geometry, and caches that a strip fits or does not; where the filter is larger than the padded
    image, there is no output and no call.
    """
    if min(size[d] + pads[d] + pads[d + 2] for d in range(2)) < 3:
        pads = (1, 1, 1, 1)
    x = image(np.random.default_rng(0), (n, inner, *size), layout)
    check(
        x if dtype == np.float32 else as_dtype(x, dtype),
        outer,
        pads,
        replace(machine, l2_bytes=l2_bytes),
        scheme,
        order,
    )


def as_dtype(x: np.ndarray, dtype: Any) -> np.ndarray:
    """The same values, rounded, with the same strides in elements, negative ones too."""
    made = new(x.shape, np.dtype(dtype), [s // x.itemsize for s in x.strides])
    memory = np.zeros(made.buffer.nbytes, np.uint8)
    strides = [s * made.dtype.itemsize for s in made.strides]
    view = np.ndarray(x.shape, made.dtype, memory, made.offset, strides) if x.size else x.astype(dtype)
    view[...] = x
    return view


@each_machine
@each_scheme
@pytest.mark.parametrize(
    ("images", "inner", "outer", "size"),
    [
        (1, 64, 64, (56, 56)),  # many strips, each with its own input
        (1, 128, 96, (14, 14)),  # one strip, whose input all groups of panels share
        (3, 32, 48, (7, 7)),  # tiles of several images in a register tile
    ],
)
def test_usual_layers(
    machine: Machine, scheme: Scheme, images: int, inner: int, outer: int, size: tuple[int, int]
) -> None:
    """Each way in which work is shared out."""
    check(
        image(np.random.default_rng(2), (images, inner, *size), "last"), outer, (1, 1, 1, 1), machine, scheme
    )


@each_machine
@each_scheme
@pytest.mark.parametrize("outer", [96, 112])
def test_panels_take_turns(
    machine: Machine, scheme: Scheme, outer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where v is beyond half of L2, two of them at each point, and then the next two, or the last one."""
    monkeypatch.setattr(winograd, "_TOGETHER", 2)
    small = replace(machine, l2_bytes=(1 << 14) + 64)  # forms are remembered for each machine
    check(image(np.random.default_rng(4), (1, 64, 14, 14), "last"), outer, (1, 1, 1, 1), small, scheme)


SHORT = (Step("Add", (0, 1), "float32"), Step("Add", (3, 2), "float32"), Step("Relu", (4,), "float32"))
LONG = (
    Step("Add", (0, 1), "float32"),
    Step("Sigmoid", (3,), "float32"),
    Step("Mul", (3, 4), "float32"),
    Step("Mul", (5, 2), "float32"),
)


@each_machine
@each_scheme
@pytest.mark.parametrize("steps", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("order", [LAST, FIRST], ids=["last", "first"])
def test_epilogue(machine: Machine, scheme: Scheme, steps: tuple[Step, ...], order: tuple[int, ...]) -> None:
    """A bias of each channel, and an operand of each element (or image and channel, or one number)."""
    rng = np.random.default_rng(0)
    x = image(rng, (2, 20, 9, 11), "last")
    w = rng.standard_normal((37, 20, 3, 3)).astype(np.float32)
    sums = definition(x, w, (1, 1), (1,) * 4, (1, 1), 1)
    bias = rng.standard_normal((37, 1, 1)).astype(np.float32)
    expression = Expression(("float32",) * 3, steps, (len(steps) + 2,))
    for shape in (sums.shape, (2, 37, 1, 1), (1, 1, 1, 1)):
        other = rng.standard_normal(shape).astype(np.float32)
        (want,) = evaluate(expression, [sums, bias, other])
        out = new(want.shape, strides=strides_in_order(want.shape, order))
        epilogue = Epilogue(expression, [put(bias), put(other)])
        calls = winograd_conv2d(put(x), pack_winograd(w, scheme, machine), out, (1,) * 4, epilogue, machine)
        (got,) = run_calls(calls, out, machine=machine)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=BOUND * np.abs(sums).max())


@each_machine
def test_epilogue_may_convert(machine: Machine) -> None:
    """The output has the dtype of the epilogue's result."""
    rng = np.random.default_rng(0)
    x = image(rng, (1, 16, 8, 8), "last")
    w = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    want = definition(x, w, (1, 1), (1,) * 4, (1, 1), 1)
    expression = Expression(("float32",), (Step("Cast", (0,), "float16"),), (1,))
    out = new(want.shape, "float16", strides_in_order(want.shape, LAST))
    weights = pack_winograd(w, LARGE, machine)
    calls = winograd_conv2d(put(x), weights, out, (1,) * 4, Epilogue(expression), machine)
    (got,) = run_calls(calls, out, machine=machine)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


@each_machine
@each_scheme
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (18, 33), (64, 70)])
def test_weights_at_the_points(machine: Machine, scheme: Scheme, inputs: int, outputs: int) -> None:
    """G w Gᵀ rounded once, zero where panels and steps are not full."""
    w = np.random.default_rng(0).standard_normal((outputs, inputs, 3, 3)).astype(np.float32)
    packed, g = pack_winograd(w, scheme, machine), filter_matrix(scheme)
    array = packed.view.buffer.array
    assert array is not None
    got = array.reshape(packed.panels, scheme.points, packed.rows, packed.panel)
    want = np.zeros((packed.panels * packed.panel, packed.rows, scheme.side, scheme.side))
    want[:outputs, :inputs] = g @ w.astype(np.float64) @ g.T
    want = want.reshape(packed.panels, packed.panel, packed.rows, scheme.points).transpose(0, 3, 2, 1)
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-12)


def test_refusals() -> None:
    """Each says what was found and what was wanted."""
    (machine, *_) = machines()
    ones = np.ones((16, 16, 3, 3), np.float32)
    weights = pack_winograd(ones, LARGE, machine)
    x, out = new((1, 16, 8, 8)), new((1, 16, 8, 8))
    with pytest.raises(UnsupportedOperatorError, match="found float64, generated products want"):
        pack_winograd(ones.astype(np.float64), LARGE, machine)
    with pytest.raises(ShapeError, match=r"found \(16, 16, 3, 2\)"):
        pack_winograd(ones[..., :2], LARGE, machine)
    with pytest.raises(UnsupportedOperatorError, match="found int32, generated products want"):
        winograd_conv2d(new((1, 16, 8, 8), "int32"), weights, out, (1,) * 4, None, machine)
    with pytest.raises(UnsupportedOperatorError, match="pads"):
        winograd_conv2d(x, weights, out, (-1, 1, 1, 1), None, machine)
    with pytest.raises(ShapeError, match="an input of"):
        winograd_conv2d(new((1, 8, 8, 8)), weights, out, (1,) * 4, None, machine)
    with pytest.raises(ShapeError, match="an output of"):
        winograd_conv2d(x, weights, out, (0,) * 4, None, machine)


@each_machine
def test_choice(machine: Machine) -> None:
    """Large images of many channels gain; few channels, one pixel and weights that are read once do not."""
    assert pays(64, (1, 64, 56, 56), machine)
    assert pays(128, (1, 128, 28, 28), machine)
    assert not pays(8, (1, 64, 56, 56), machine)
    assert not pays(64, (1, 8, 56, 56), machine)
    assert not pays(64, (0, 64, 56, 56), machine)
    assert not pays(512, (1, 512, 1, 1), machine)
    assert not pays(1024, (1, 1024, 2, 2), machine)
    assert fastest(128, (1, 128, 28, 28), machine) == LARGE


def test_small_images_of_many_channels() -> None:
    """They have few tiles for many weights: tiles of 2×2 have less than half as many."""
    narrow = [machine for machine in machines() if machine.vector_bytes == 32]
    if not narrow:
        pytest.skip("this CPU lacks AVX2")
    machine = replace(narrow[0], l2_bytes=1 << 19)
    assert fastest(512, (1, 512, 7, 7), machine) == SMALL
    assert fastest(512, (8, 512, 7, 7), machine) == LARGE


@each_machine
@each_scheme
def test_no_spills(machine: Machine, scheme: Scheme) -> None:
    """Sums stay in registers in products, values in the transforms (which on 16 registers go through L1)."""
    x = new((1, 64, 28, 28), strides=strides_in_order((1, 64, 28, 28), LAST))
    out = new((1, 64, 28, 28), strides=strides_in_order((1, 64, 28, 28), LAST))
    weights = pack_winograd(np.ones((64, 64, 3, 3), np.float32), scheme, machine)
    call = winograd_conv2d(x, weights, out, (1,) * 4, None, machine)[-1]
    kernels = {a for a in call.args if isinstance(a, Kernel)}
    assert {kernel.generator.split(".")[-1] for kernel in kernels} == {"tile", "to_points", "from_points"}
    for kernel in kernels:
        assembly = cache.native_assembly(kernel, machine)
        if kernel.generator.endswith("from_points"):  # its loop is over tiles, with others in it
            assert not re.findall(r"[xyz]mm.*rsp|rsp.*[xyz]mm", assembly)
        else:
            only_adds = scheme == SMALL and kernel.generator.endswith("to_points")
            assert spills_in_loops(assembly, 0 if only_adds else 30) == 0
