"""Convolutions of narrow groups in bands of rows, after the rows that they need."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest

import ingot
from ingot.codegen.machine import host
from ingot.ops import bands
from ingot.ops.interpreter import interpret
from ingot.ops.window import Window
from tests.passes.graphs import parse, with_weights

RNG = np.random.default_rng(3)


def f32(*sizes: int) -> np.ndarray:
    return RNG.standard_normal(sizes).astype(np.float32)


def network(first: str, second: str, groups: int = 24) -> ir.Model:
    """A convolution with an epilogue that has an operand of each pixel, and one of narrow groups after it."""
    text = f"""
    g (float[N, 5, H, W] x, float[N, 24, P, Q] r, float[N, 1, 1, 1] s, float[24, 5, 3, 3] w, float[24] b,
       float[24, {24 // groups}, 3, 3] v, float[24] c) => (float[N, 24, Y, Z] y) {{
      a = Conv <{first}> (x, w, b)
      t = Add (a, r)
      h = Relu (t)
      d = Conv <{second}, group = {groups}> (h, v, c)
      e = Mul (d, s)
      y = HardSwish (e)
    }}
    """
    weights = {"w": f32(24, 5, 3, 3), "b": f32(24), "v": f32(24, 24 // groups, 3, 3), "c": f32(24)}
    return with_weights(parse(text), **weights)


CASES = [
    ("pads = [1, 1, 1, 1]", "pads = [1, 1, 1, 1]"),
    ("pads = [1, 1, 1, 1]", "pads = [1, 1, 1, 1], strides = [2, 2]"),
    ("pads = [1, 1, 1, 1], strides = [2, 2]", "pads = [0, 1, 2, 1]"),
    ("pads = [2, 0, 0, 1]", "pads = [2, 2, 2, 2], dilations = [2, 2]"),
    ("pads = [0, 0, 0, 0]", "pads = [0, 0, 0, 0], strides = [3, 1]"),
]


@pytest.mark.parametrize("groups", [24, 6])
@pytest.mark.parametrize(("first", "second"), CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_bands_are_the_whole(
    first: str, second: str, groups: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands of very few rows, and the last one of fewer."""
    model = network(first, second, groups)
    sizes = {"x": f32(2, 5, 23, 9), "s": f32(2, 1, 1, 1)}
    (conv, *_) = [node for node in model.graph if node.op_type == "Conv"]
    window = Window.of(conv, (23, 9), (3, 3))
    feed = {**sizes, "r": f32(2, 24, *window.output)}
    want = interpret(model, feed)["y"]
    row = 24 * window.output[1] * 4
    monkeypatch.setattr(bands, "_LARGE", 0.0)
    monkeypatch.setattr(bands, "_PART_OF_L2", 8.5 * row / host().l2_bytes)
    options = ingot.SessionOptions()
    options.intra_op_num_threads = threads
    session = ingot.InferenceSession(ir.to_proto(model), options)
    (got,) = session.run(None, feed)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    assert len(session.profile_kernels(feed)) > 8  # bands there were


@pytest.mark.parametrize("height", range(20, 27))
def test_only_the_last_rows_have_padding_below(height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image that is computed in bands has padding below, and the convolution that reads it has none."""
    model = network("pads = [1, 1, 1, 1]", "pads = [1, 1, 0, 1]")
    feed = {"x": f32(1, 5, height, 9), "s": f32(1, 1, 1, 1), "r": f32(1, 24, height, 9)}
    want = interpret(model, feed)["y"]
    monkeypatch.setattr(bands, "_LARGE", 0.0)
    monkeypatch.setattr(bands, "_PART_OF_L2", 8.5 * 24 * 9 * 4 / host().l2_bytes)
    (got,) = ingot.InferenceSession(ir.to_proto(model)).run(None, feed)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("seed", range(40))
def test_random_windows_in_bands(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding above and below, strides and dilations of both convolutions, in bands of up to twelve rows."""
    rng = np.random.default_rng(seed)
    first, second = int(rng.choice([1, 3])), int(rng.choice([2, 3, 4, 5]))
    stride, dilation, rows = (int(rng.integers(1, most)) for most in (4, 3, 13))
    pads = ", ".join(str(n) for n in rng.integers(0, (second - 1) * dilation + 1, 4))
    text = f"""
    g (float[N, 5, H, W] x, float[16, 5, {first}, {first}] w, float[16, 1, {second}, {second}] v)
      => (float[N, 16, Y, Z] y) {{
      a = Conv <pads = [{", ".join(str(n) for n in rng.integers(0, first, 4))}]> (x, w)
      h = Relu (a)
      y = Conv <group = 16, pads = [{pads}], strides = [{stride}, 1], dilations = [{dilation}, 1]> (h, v)
    }}
    """
    model = with_weights(parse(text), w=f32(16, 5, first, first), v=f32(16, 1, second, second))
    monkeypatch.setattr(bands, "_LARGE", 0.0)
    options = ingot.SessionOptions()
    options.intra_op_num_threads = 1 + seed % 2
    monkeypatch.setattr(bands, "_PART_OF_L2", (rows + 0.5) * 16 * 11 * 4 / host().l2_bytes)
    for height in rng.integers(12, 40, 3):
        x = f32(2, 5, int(height), 11)
        want = interpret(model, {"x": x})["y"]
        (got,) = ingot.InferenceSession(ir.to_proto(model), options).run(None, {"x": x})
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max(), err_msg=text)


def test_a_value_that_others_read_is_computed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("pads = [1, 1, 1, 1]", "pads = [1, 1, 1, 1]")
    h = next(node.outputs[0] for node in model.graph if node.op_type == "Relu")
    h.shape, h.type = ir.Shape(["N", 24, "P", "Q"]), ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs.append(h)
    feed = {"x": f32(1, 5, 23, 9), "s": f32(1, 1, 1, 1), "r": f32(1, 24, 23, 9)}
    want = interpret(model, feed)
    monkeypatch.setattr(bands, "_LARGE", 0.0)
    monkeypatch.setattr(bands, "_PART_OF_L2", 0.005)
    session = ingot.InferenceSession(ir.to_proto(model))
    for got, name in zip(session.run(None, feed), want, strict=True):
        np.testing.assert_allclose(got, want[name], rtol=1e-5, atol=1e-5 * np.abs(want[name]).max())


def test_when_bands_pay() -> None:
    machine = host()
    same = Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1), (112, 112))
    wide = 2 * machine.l2_bytes // (112 * 112 * 4)
    assert bands.rows_in_band((1, wide // 4, 112, 112), same, machine) is None  # it stays in the cache
    count = bands.rows_in_band((1, wide, 112, 112), same, machine)
    assert count is not None and 1 < count < 112
    assert bands.rows_in_band((1, wide * 40, 112, 112), same, machine) is None  # not even a band would
    far = Window((3, 3), (1, 1), (1, 1), (5, 1), (1, 1), (116, 112))
    assert bands.rows_in_band((1, wide, 112, 112), far, machine) is None  # a row of padding alone


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("pads", [(0, 0), (1, 0), (2, 1)])
def test_no_row_is_computed_twice(stride: int, kernel: int, dilation: int, pads: tuple[int, int]) -> None:
    """Bands give all rows of output, and a row that two of them reach is computed by the first alone."""
    reach = (kernel - 1) * dilation + 1
    for height in (reach, reach + 1, 17, 30):
        output = (height + sum(pads) - reach) // stride + 1
        window = Window((kernel, 1), (stride, 1), (dilation, 1), (pads[0], 0), (pads[1], 0), (output, 9))
        if not bands.is_cut(window):
            continue
        for rows in range(1, output + 1):
            made = [band for run in bands.runs_of(height, window, rows, (height, window)) for band in run]
            assert [row for b in made for row in range(b.first, b.first + b.count)] == [*range(output)]
            fresh = [row for b in made for row in range(b.begin + b.kept, b.end)]
            assert fresh == sorted(set(fresh))
            for before, band in itertools.pairwise(made):
                assert band.begin + band.kept <= before.end or not band.kept
                assert band.top + (band.end - band.begin) + band.bottom == bands.reached(window, band.count)
