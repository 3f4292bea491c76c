"""Convolution against its plain definition: layouts, strides, pads, dilations, groups, epilogues."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen import cache
from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine, host
from ingot.errors import ShapeError, UnsupportedOperatorError
from ingot.kernels.call import strides_in_order
from ingot.kernels.contract import Epilogue
from ingot.kernels.conv import conv2d, definition, pack_conv_weights
from ingot.kernels.expression import Expression, Step, evaluate
from tests.kernels.assembly import spills_in_loops
from tests.kernels.run import each_machine, machines, new, put, run_calls

LAST, FIRST = (0, 2, 3, 1), (0, 1, 2, 3)  # where channels lie in memory


def image(rng: np.random.Generator, shape: tuple[int, ...], layout: str) -> np.ndarray:
    """Random values, logically [N, C, H, W]."""
    n, c, h, w = shape
    if layout == "first":
        return rng.standard_normal(shape).astype(np.float32)
    if layout == "slice":  # some channels of a wider image
        return rng.standard_normal((n, h, w, c + 5)).astype(np.float32)[..., 2 : 2 + c].transpose(0, 3, 1, 2)
    if layout == "flipped":
        return rng.standard_normal((n, h, w, c)).astype(np.float32)[:, ::-1, ::-1].transpose(0, 3, 1, 2)
    return rng.standard_normal((n, h, w, c)).astype(np.float32).transpose(0, 3, 1, 2)


def check(
    rng: np.random.Generator,
    x: np.ndarray,
    outputs: int,
    groups: int,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
    machine: Machine,
    order: tuple[int, ...] = LAST,
) -> None:
    """Compare one convolution with its definition."""
    w = rng.standard_normal((outputs, x.shape[1] // groups, *kernel)).astype(np.float32)
    reference = definition(x, w, strides, pads, dilations, groups)
    out = new(reference.shape, strides=strides_in_order(reference.shape, order))
    weights = pack_conv_weights(w, machine, groups)
    calls = conv2d(put(x), weights, out, strides, pads, dilations, None, machine)
    (y,) = run_calls(calls, out, machine=machine)
    depth = max(1, w[0].size)
    np.testing.assert_allclose(y, reference, rtol=1e-5, atol=3e-6 * depth**0.5)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 2),
    inner=st.sampled_from([1, 2, 3, 4, 7, 16, 19, 33]),
    outer=st.sampled_from([1, 3, 16, 33, 40]),
    groups=st.sampled_from([1, 1, 1, 2, 3]),
    size=st.tuples(st.integers(1, 19), st.integers(1, 31)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.one_of(st.just((0, 0, 0, 0)), st.tuples(*[st.integers(0, 3)] * 4)),
    layout=st.sampled_from(["first", "last", "slice", "flipped"]),
    machine=st.sampled_from(machines()),
)
def test_any_convolution(
    n: int,
    inner: int,
    outer: int,
    groups: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    layout: str,
    machine: Machine,
) -> None:
    """Random geometry; where the kernel is larger than the padded image, there is no output and no call."""
    rng = np.random.default_rng(inner * 1000 + outer)
    x = image(rng, (n, inner * groups, *size), layout)
    reach = [size[d] + pads[d] + pads[d + 2] - (kernel[d] - 1) * dilations[d] for d in range(2)]
    if min(reach) < 1:
        kernel, pads = (1, 1), (0, 0, 0, 0)
    check(rng, x, outer * groups, groups, kernel, strides, pads, dilations, machine)


@each_machine
@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize(
    ("inner", "outer", "size", "kernel", "stride", "pad"),
    [
        (3, 24, 37, 7, 2, 3),  # the first convolution of many networks
        (3, 16, 32, 3, 2, 1),
        (3, 40, 32, 16, 16, 0),  # patches of a vision transformer
        (64, 64, 7, 3, 1, 1),
        (40, 70, 14, 3, 2, 1),
        (64, 48, 28, 1, 2, 0),
        (20, 33, 3, 3, 1, 1),
    ],
)
def test_usual_layers(
    machine: Machine, layout: str, inner: int, outer: int, size: int, kernel: int, stride: int, pad: int
) -> None:
    """Shapes that networks use, in both layouts of the input and of the output."""
    rng = np.random.default_rng(3)
    x = image(rng, (1, inner, size, size), layout)
    order = LAST if layout == "last" else FIRST
    check(rng, x, outer, 1, (kernel,) * 2, (stride,) * 2, (pad,) * 4, (1, 1), machine, order)


@each_machine
def test_epilogue(machine: Machine) -> None:
    """Bias, a residual image, and an output that is a slot of a concatenation."""
    expression = Expression(
        ("float32", "float32", "float32"),
        (Step("Add", (0, 1), "float32"), Step("Add", (3, 2), "float32"), Step("Relu", (4,), "float32")),
        (5,),
    )
    rng = np.random.default_rng(4)
    for kernel in (1, 3):
        x = image(rng, (2, 21, 9, 11), "last")
        w = rng.standard_normal((40, 21, kernel, kernel)).astype(np.float32)
        bias = rng.standard_normal((40, 1, 1)).astype(np.float32)
        residual = image(rng, (2, 40, 9, 11), "last")
        slot = new((2, 9, 11, 100))
        out = slot.with_dims((2, 40, 9, 11), (9 * 11 * 100, 1, 1100, 100), 30)
        pads = (kernel // 2,) * 4
        after = Epilogue(expression, [put(bias), put(residual)])
        weights = pack_conv_weights(w, machine)
        calls = conv2d(put(x), weights, out, (1, 1), pads, (1, 1), after, machine)
        (y,) = run_calls(calls, out, machine=machine)
        (reference,) = evaluate(
            expression, [definition(x, w, (1, 1), pads, (1, 1), 1), bias.astype(np.float64), residual]
        )
        np.testing.assert_allclose(y, reference, rtol=1e-5, atol=5e-5)


@each_machine
def test_one_dimension_and_columns(machine: Machine) -> None:
    """A signal [N, C, W]; and an image of one column, which is treated as one row."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 20, 50)).astype(np.float32)
    w = rng.standard_normal((30, 20, 5)).astype(np.float32)
    reference = definition(x[:, :, None], w[:, :, None], (1, 2), (0, 2, 0, 1), (1, 1), 1)
    weights = pack_conv_weights(w, machine)
    out = new((2, 30, reference.shape[3]))
    (y,) = run_calls(conv2d(put(x), weights, out, (2,), (2, 1), (1,), None, machine), out, machine=machine)
    np.testing.assert_allclose(y, reference[:, :, 0], rtol=1e-5, atol=1e-4)
    column = image(rng, (1, 20, 40, 1), "last")
    check(rng, column, 33, 1, (3, 1), (2, 1), (1, 0, 1, 0), (1, 1), machine)


@each_machine
def test_infinities_stay_where_they_are(machine: Machine) -> None:
    """No tap outside of the filter and no padding ever meets an infinity of the image."""
    for channels in (3, 20):
        x = np.ones((1, channels, 6, 33), np.float32)
        x[0, 1, 3, 16], x[0, 2, 0, 32] = np.inf, np.nan
        w = np.ones((5, channels, 3, 3), np.float32)
        reference = definition(x, w, (1, 1), (1, 1, 1, 1), (1, 1), 1).astype(np.float32)
        for order in (FIRST, LAST):
            source = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
            out = new(reference.shape)
            calls = conv2d(
                put(source), pack_conv_weights(w, machine), out, (1, 1), (1, 1, 1, 1), (1, 1), None, machine
            )
            (y,) = run_calls(calls, out, machine=machine)
            np.testing.assert_array_equal(y, reference)


def test_refusals() -> None:
    """What is not computed is refused with what was found and wanted."""
    machine = machines()[0]
    x, weights = new((1, 4, 5, 5)), pack_conv_weights(np.ones((6, 3, 3, 3), np.float32), machine)
    with pytest.raises(ShapeError, match="weight has 3 input channels"):
        conv2d(x, weights, new((1, 6, 3, 3)), machine=machine)
    with pytest.raises(ShapeError, match="found an output"):
        conv2d(new((1, 3, 5, 5)), weights, new((1, 6, 4, 3)), machine=machine)
    with pytest.raises(UnsupportedOperatorError, match="3 spatial"):
        pack_conv_weights(np.ones((6, 3, 3, 3, 3), np.float32), machine)
    with pytest.raises(UnsupportedOperatorError, match="int8"):
        pack_conv_weights(np.ones((6, 3, 3, 3), np.int8), machine)
    view = replace(new((1, 3, 5, 5)), dtype=np.dtype(np.float64))
    with pytest.raises(UnsupportedOperatorError, match="float64"):
        conv2d(view, weights, new((1, 6, 3, 3)), machine=machine)


@pytest.mark.parametrize("machine", [*machines(), host()], ids=lambda m: f"{m.cpu}-v{m.vector_bytes}")
@pytest.mark.parametrize(
    ("size", "channels", "outputs", "order"),
    [(7, 32, 64, LAST), (28, 32, 64, LAST), (5, 32, 64, LAST), (28, 3, 64, FIRST), (56, 32, 4, LAST)],
)
def test_no_spills(machine: Machine, size: int, channels: int, outputs: int, order: tuple[int, ...]) -> None:
    """Register tiles over one and over several rows, of packed blocks and of lines, stay in registers."""
    weights = pack_conv_weights(np.ones((outputs, channels, 3, 3), np.float32), machine)
    x = new((1, channels, size, size), strides=strides_in_order((1, channels, size, size), order))
    out = new((1, outputs, size, size), strides=strides_in_order((1, outputs, size, size), LAST))
    (call,) = conv2d(x, weights, out, pads=(1, 1, 1, 1), machine=machine)
    for kernel in {k for k in call.args if isinstance(k, Kernel) and k.generator.endswith("tile")}:
        p = dict(kernel.params)
        count = p["columns"] * p["rows"] * p["vectors"] * p["unroll"]
        assert spills_in_loops(cache.native_assembly(kernel, machine), count) == 0, kernel
