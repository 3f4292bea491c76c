"""Convolutions of volumes plane by plane: what follows them in the last plane's epilogue, and cuts."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import ingot
from ingot.ops.interpreter import interpret
from ingot.ops.planes import reached
from ingot.ops.window import Window
from tests.passes.graphs import parse, with_weights

RNG = np.random.default_rng(5)


def f32(*sizes: int) -> np.ndarray:
    return RNG.standard_normal(sizes).astype(np.float32)


def network(channels: int, outputs: int, attributes: str, group: int, after: str) -> ir.Model:
    """x -> Conv -> `after`, which makes y of a."""
    shape = f"{outputs}, {channels // group}, 3, 3, 3"
    text = f"""
    g (float[N, {channels}, D, H, W] x, float[N, {outputs}, P, Q, R] r, float[{shape}] w, float[{outputs}] b,
       float s, uint8 z) => (float[N, {outputs}, P, Q, R] y) {{
      a = Conv <{attributes}, group = {group}> (x, w, b)
      {after}
    }}
    """
    weights = {"w": f32(outputs, channels // group, 3, 3, 3), "b": f32(outputs)}
    return with_weights(parse(text), **weights, s=np.float32(0.5), z=np.uint8(128))


RESIDUAL = "t = Add (a, r)\n y = Relu (t)"
QUANTISED = "t = Add (a, r)\n q = QuantizeLinear (t, s, z)\n y = DequantizeLinear (q, s, z)"
CASES = [
    (5, 7, "pads = [1, 1, 1, 1, 1, 1]", 1),
    (40, 48, "pads = [1, 1, 1, 1, 1, 1]", 1),  # Winograd's, where planes are large
    (6, 12, "pads = [1, 1, 1, 1, 1, 1], strides = [1, 2, 2]", 6),
    (32, 32, "pads = [2, 1, 1, 0, 1, 1], dilations = [2, 1, 1], strides = [2, 1, 1]", 4),
]


@pytest.mark.parametrize("after", [RESIDUAL, QUANTISED])
@pytest.mark.parametrize(("channels", "outputs", "attributes", "group"), CASES)
def test_epilogues(channels: int, outputs: int, attributes: str, group: int, after: str) -> None:
    """Sums wait in the output, or beside it where it has another dtype; threads change no bit."""
    model = network(channels, outputs, attributes, group, after)
    x = f32(2, channels, 7, 24, 25)
    (conv, *_) = [node for node in model.graph if node.op_type == "Conv"]
    window = Window.of(conv, x.shape[2:], (3, 3, 3))
    feed = {"x": x, "r": f32(2, outputs, *window.output)}
    want = interpret(model, feed)["y"]
    results: list[np.ndarray] = []
    for threads in (1, 2):
        options = ingot.SessionOptions()
        options.intra_op_num_threads = threads
        results += ingot.InferenceSession(model, options).run(None, feed)
    if after == QUANTISED:  # a sum that lies between two steps may be rounded to the other one
        assert np.mean(results[0] != want) < 1e-3
    else:
        assert np.abs(results[0] - want).max() <= 2e-5 * np.abs(want).max()
    np.testing.assert_array_equal(*results)


def test_planes_that_are_reached() -> None:
    window = Window((3,), (2,), (2,), (3,), (3,), (4,))  # filters begin at -3, -1, 1 and 3 of 5 planes
    assert reached(window, 5) == [(2,), (1, 2), (0, 1), (0,)]
