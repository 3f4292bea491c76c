"""Winograd convolution against the plain definition: sizes, pads, layouts, epilogues, threads, registers."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
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
from ingot.kernels.winograd_pack import pack_winograd
from ingot.kernels.winograd_scheme import Axis, Scheme, filter_matrix, schemes, upright
from ingot.kernels.winograd_tile import line_from_points, line_to_points
from tests.kernels.assembly import spills_in_loops
from tests.kernels.run import each_machine, machines, new, put, run_calls
from tests.kernels.test_conv import FIRST, LAST, image

BOUND = 2e-5  # of the largest output; measured 1 to 6e-6, by tiles of 2×2 below 1e-6
LARGE, SMALL = schemes((3, 3))
#: Sizes of filters, and how many of their points a tile may have: squares, columns and rows.
KERNELS = ((3, 3), (2, 2), (4, 3), (5, 5), (3, 1), (1, 3), (5, 1), (1, 5), (2, 1), (1, 7))
FILTERS = [(kernel, scheme) for kernel in KERNELS for scheme in schemes(upright(kernel))]
each_filter = pytest.mark.parametrize(
    ("kernel", "scheme"), FILTERS, ids=[f"{h}×{w} at {scheme.points}" for (h, w), scheme in FILTERS]
)


def check(
    x: np.ndarray,
    outputs: int,
    pads: tuple[int, int, int, int],
    machine: Machine,
    scheme: Scheme,
    kernel: tuple[int, int] = (3, 3),
    order: tuple[int, ...] = LAST,
) -> None:
    """Compare one convolution with its definition."""
    rng = np.random.default_rng(1)
    w = rng.standard_normal((outputs, x.shape[1], *kernel)).astype(x.dtype)
    want = definition(x, w, (1, 1), pads, (1, 1), 1)
    out = new(want.shape, x.dtype, strides_in_order(want.shape, order))
    (got,) = run_calls(
        winograd_conv2d(put(x), pack_winograd(w, scheme, machine), out, pads, None, machine),
        out,
        machine=machine,
    )
    rounding = 0.0 if x.dtype == np.float32 else float(ml_dtypes.finfo(x.dtype).eps)
    assert np.abs(got - want).max(initial=0) <= (BOUND + rounding) * np.abs(want).max(initial=0)


@settings(max_examples=200, deadline=None, derandomize=True)
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
    filters=st.sampled_from([*FILTERS, *[(kernel, own) for kernel, own in FILTERS if own in (LARGE, SMALL)]]),
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
    filters: tuple[tuple[int, int], Scheme],
    l2_bytes: int,
) -> None:
    """Random geometry, and caches that a strip fits or does not; where the filter is larger than the padded
    image, there is no output and no call.
    """
    kernel, scheme = filters
    if min(size[d] + pads[d] + pads[d + 2] - kernel[d] for d in range(2)) < 0:
        pads = tuple([taps // 2 for taps in kernel]) * 2
    x = image(np.random.default_rng(0), (n, inner, *size), layout)
    check(
        x if dtype == np.float32 else as_dtype(x, dtype),
        outer,
        pads,
        replace(machine, l2_bytes=l2_bytes),
        scheme,
        kernel,
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
@each_filter
@pytest.mark.parametrize(
    ("images", "inner", "outer", "size"),
    [
        (1, 64, 64, (56, 56)),  # many strips, each with its own input
        (1, 128, 96, (14, 14)),  # one strip, whose input all groups of panels share
        (3, 32, 48, (7, 7)),  # tiles of several images in a register tile
    ],
)
def test_usual_layers(
    machine: Machine,
    kernel: tuple[int, int],
    scheme: Scheme,
    images: int,
    inner: int,
    outer: int,
    size: tuple[int, int],
) -> None:
    """Each way in which work is shared out."""
    x = image(np.random.default_rng(2), (images, inner, *size), "last")
    check(x, outer, around(kernel), machine, scheme, kernel)


def around(kernel: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pads with which the output is about as large as the input."""
    return (kernel[0] // 2, kernel[1] // 2, kernel[0] // 2, kernel[1] // 2)


@each_machine
@each_filter
@pytest.mark.parametrize("outer", [96, 112])
def test_panels_take_turns(
    machine: Machine,
    kernel: tuple[int, int],
    scheme: Scheme,
    outer: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where v is beyond half of L2, two of them at each point, and then the next two, or the last one."""
    monkeypatch.setattr(winograd, "_TOGETHER", 2)
    small = replace(machine, l2_bytes=(1 << 14) + 64)  # forms are remembered for each machine
    x = image(np.random.default_rng(4), (1, 64, 14, 14), "last")
    check(x, outer, around(kernel), small, scheme, kernel)


class Exact:
    """What the transforms ask of a Builder, on exact numbers."""

    class Number(Fraction):
        """One that knows its type, as a vector does."""

        type = None

    def __init__(self) -> None:
        self.ir = self

    def fadd(self, a: Fraction, b: Fraction) -> Fraction:
        return self.Number(a + b)

    def fsub(self, a: Fraction, b: Fraction) -> Fraction:
        return self.Number(a - b)

    def fmul(self, a: Fraction, b: Fraction) -> Fraction:
        return self.Number(a * b)

    def fma(self, a: Fraction, b: Fraction, c: Fraction) -> Fraction:
        return self.Number(a * b + c)

    def splat(self, number: float, type_: None) -> Fraction:
        del type_
        return self.Number(number)


@pytest.mark.parametrize(
    "axis", sorted({own.rows for _, own in FILTERS} | {LARGE.columns}, key=repr), ids=str
)
def test_lines_are_exact(axis: Axis) -> None:
    """Aᵀ (G w · Bᵀ d) is the convolution of a line, for the transforms as they are emitted and every unit
    of filters and inputs; G is exact but for thirds.
    """
    exact: Any = Exact()
    units = [[exact.Number(int(i == j)) for j in range(axis.side)] for i in range(axis.side)]
    for tap in range(axis.taps):
        filters = [Fraction(float(number)).limit_denominator(1000) for number in filter_matrix(axis)[:, tap]]
        for place, d in enumerate(units):
            points: list[Any] = line_to_points(exact, axis, d)
            products: list[Any] = [exact.fmul(u, v) for u, v in zip(filters, points, strict=True)]
            found = line_from_points(exact, axis, products)
            assert found == [int(place == output + tap) for output in range(axis.outputs)]


@each_machine
@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize("order", [(0, 2, 1), (0, 1, 2)], ids=["last", "first"])
def test_one_dimension(machine: Machine, taps: int, order: tuple[int, ...]) -> None:
    """x [N, C, W] by filters [O, C, k], with an epilogue: what the same filters of one row give."""
    rng = np.random.default_rng(5)
    x = np.ascontiguousarray(rng.standard_normal((3, 53, 24)).astype(np.float32)).transpose(0, 2, 1)
    w = rng.standard_normal((40, 24, taps)).astype(np.float32)
    bias = rng.standard_normal((40, 1)).astype(np.float32)
    pads = (2, 1)
    sums = definition(x[:, :, None], w[:, :, None], (1, 1), (0, 2, 0, 1), (1, 1), 1)[:, :, 0]
    expression = Expression(("float32",) * 2, (Step("Add", (0, 1), "float32"),), (2,))
    (scheme, *_) = schemes(upright((taps,)))
    for other in (bias, np.broadcast_to(bias, sums.shape).copy()):
        out = new(sums.shape, strides=strides_in_order(sums.shape, order))
        epilogue = Epilogue(expression, [put(other)])
        calls = winograd_conv2d(put(x), pack_winograd(w, scheme, machine), out, pads, epilogue, machine)
        (got,) = run_calls(calls, out, machine=machine)
        np.testing.assert_allclose(got, sums + bias, rtol=1e-5, atol=BOUND * np.abs(sums).max())


SHORT = (Step("Add", (0, 1), "float32"), Step("Add", (3, 2), "float32"), Step("Relu", (4,), "float32"))
LONG = (
    Step("Add", (0, 1), "float32"),
    Step("Sigmoid", (3,), "float32"),
    Step("Mul", (3, 4), "float32"),
    Step("Mul", (5, 2), "float32"),
)


@each_machine
@each_filter
@pytest.mark.parametrize("steps", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("order", [LAST, FIRST], ids=["last", "first"])
def test_epilogue(
    machine: Machine,
    kernel: tuple[int, int],
    scheme: Scheme,
    steps: tuple[Step, ...],
    order: tuple[int, ...],
) -> None:
    """A bias of each channel, and an operand of each element (or image and channel, or one number)."""
    rng = np.random.default_rng(0)
    x = image(rng, (2, 20, 9, 11), "last")
    w = rng.standard_normal((37, 20, *kernel)).astype(np.float32)
    sums = definition(x, w, (1, 1), around(kernel), (1, 1), 1)
    bias = rng.standard_normal((37, 1, 1)).astype(np.float32)
    expression = Expression(("float32",) * 3, steps, (len(steps) + 2,))
    for shape in (sums.shape, (2, 37, 1, 1), (1, 1, 1, 1)):
        other = rng.standard_normal(shape).astype(np.float32)
        (want,) = evaluate(expression, [sums, bias, other])
        out = new(want.shape, strides=strides_in_order(want.shape, order))
        epilogue = Epilogue(expression, [put(bias), put(other)])
        packed = pack_winograd(w, scheme, machine)
        calls = winograd_conv2d(put(x), packed, out, around(kernel), epilogue, machine)
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
@each_filter
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (18, 33), (64, 70)])
def test_weights_at_the_points(
    machine: Machine, kernel: tuple[int, int], scheme: Scheme, inputs: int, outputs: int
) -> None:
    """G w Gᵀ rounded once, zero where panels and steps are not full."""
    w = np.random.default_rng(0).standard_normal((outputs, inputs, *kernel)).astype(np.float32)
    packed = pack_winograd(w, scheme, machine)
    down, across = filter_matrix(scheme.rows), filter_matrix(scheme.columns)
    array = packed.view.buffer.array
    assert array is not None
    got = array.reshape(packed.panels, scheme.points, packed.rows, packed.panel)
    want = np.zeros((packed.panels * packed.panel, packed.rows, scheme.rows.side, scheme.columns.side))
    want[:outputs, :inputs] = down @ w.astype(np.float64).reshape(outputs, inputs, *scheme.kernel) @ across.T
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
    with pytest.raises(ShapeError, match=r"wanted \[O, C, 5, 1\], \[O, C, 1, 5\] or \[O, C, 5\]"):
        pack_winograd(ones[..., :1], schemes((5, 1))[0], machine)
    with pytest.raises(UnsupportedOperatorError, match="pads"):
        winograd_conv2d(x, weights, out, (-1, 1, 1, 1), None, machine)
    line = pack_winograd(ones[:, :, 0], schemes((3, 1))[0], machine)
    with pytest.raises(UnsupportedOperatorError, match="wanted 2 that are not negative"):
        winograd_conv2d(new((1, 16, 8)), line, new((1, 16, 8)), (1,) * 4, None, machine)
    with pytest.raises(ShapeError, match="an input of"):
        winograd_conv2d(new((1, 16, 8)), weights, out, (1,) * 4, None, machine)
    with pytest.raises(ShapeError, match="an input of"):
        winograd_conv2d(new((1, 8, 8, 8)), weights, out, (1,) * 4, None, machine)
    with pytest.raises(ShapeError, match="an output of"):
        winograd_conv2d(x, weights, out, (0,) * 4, None, machine)


@each_machine
def test_choice(machine: Machine) -> None:
    """Large images of many channels gain; few channels, one pixel and weights that are read once do not."""
    square = (3, 3)
    assert pays(square, 64, (1, 64, 56, 56), machine)
    assert pays(square, 128, (1, 128, 28, 28), machine)
    assert not pays(square, 8, (1, 64, 56, 56), machine)
    assert not pays(square, 64, (1, 8, 56, 56), machine)
    assert not pays(square, 64, (0, 64, 56, 56), machine)
    assert not pays(square, 512, (1, 512, 1, 1), machine)
    assert not pays(square, 1024, (1, 1024, 2, 2), machine)
    assert fastest(square, 128, (1, 128, 28, 28), machine) == LARGE


@each_machine
def test_choice_where_channels_lie_apart(machine: Machine) -> None:
    """Turning the image must pay as well: it does for many outputs, and never where the rest does not."""
    square, channels = (3, 3), range(16, 129, 16)
    assert pays(square, 128, (1, 128, 28, 28), machine, True)
    cases = [(inputs, (1, outputs, 28, 28)) for inputs in channels for outputs in channels]
    lying, turned = ({case for case in cases if pays(square, *case, machine, each)} for each in (False, True))
    assert turned <= lying


@each_machine
def test_choice_along_a_line(machine: Machine) -> None:
    """However the line lies; a filter of one tap has nothing to save, and one position nothing to share."""
    for kernel, size in (((5,), (1000,)), ((1, 5), (1, 1000)), ((5, 1), (1000, 1))):
        assert fastest(kernel, 128, (1, 128, *size), machine) == schemes((5, 1))[0]
        assert not pays(kernel, 8, (1, 128, *size), machine)
    assert not pays((1,), 128, (1, 128, 1000), machine)
    assert not pays((3,), 512, (1, 512, 1), machine)
    assert not pays((11,), 128, (1, 128, 1000), machine)


def test_small_images_of_many_channels() -> None:
    """They have few tiles for many weights: tiles of 2×2 have less than half as many."""
    narrow = [machine for machine in machines() if machine.vector_bytes == 32]
    if not narrow:
        pytest.skip("this CPU lacks AVX2")
    machine = replace(narrow[0], l2_bytes=1 << 19)
    assert fastest((3, 3), 512, (1, 512, 7, 7), machine) == SMALL
    assert fastest((3, 3), 512, (8, 512, 7, 7), machine) == LARGE


@each_machine
@pytest.mark.parametrize("scheme", [LARGE, SMALL], ids=["4×4", "2×2"])
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
