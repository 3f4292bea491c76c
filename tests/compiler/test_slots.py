"""What is moved on its way to a concat is written into its part of it, and nothing is copied."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import ingot
from ingot.ops.interpreter import interpret
from tests.passes.graphs import parse, with_weights

RNG = np.random.default_rng(5)


def f32(*sizes: int) -> np.ndarray:
    return RNG.standard_normal(sizes).astype(np.float32)


def run(model: ir.Model, feed: dict[str, np.ndarray], kernels: int) -> None:
    want = interpret(model, feed)
    session = ingot.InferenceSession(ir.to_proto(model))
    for got, expected in zip(session.run(None, feed), want.values(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert len(session.profile_kernels(feed)) == kernels


DETECTIONS = """
g (float[N, 8, H, W] x, float[N, 8, P, Q] z, float[12, 8, 1, 1] w, int64[3] s) => (float[N, A, 3] y) {
  a = Conv (x, w)
  b = Conv (z, w)
  ta = Transpose <perm = [0, 2, 3, 1]> (a)
  tb = Transpose <perm = [0, 2, 3, 1]> (b)
  ra = Reshape (ta, s)
  rb = Reshape (tb, s)
  c = Concat <axis = 1> (ra, rb)
  y = Softmax (c)
}
"""


@pytest.mark.parametrize("images", [1, 3])
def test_detections_of_two_sizes(images: int) -> None:
    model = with_weights(parse(DETECTIONS), w=f32(12, 8, 1, 1), s=np.array([0, -1, 3], np.int64))
    run(model, {"x": f32(images, 8, 5, 4), "z": f32(images, 8, 3, 2)}, 3)


MAPS = """
g (float[N, 8, H, W] x, float[N, 8, P, Q] z, float[12, 8, 1, 1] w, int64[3] s)
  => (float[N, 12, A] y, float[N, 12, B] r) {
  a = Conv (x, w)
  b = Conv (z, w)
  ra = Reshape (a, s)
  rb = Reshape (b, s)
  c = Concat <axis = 2> (ra, rb)
  y = Relu (c)
  r = Neg (ra)
}
"""


def test_maps_of_two_sizes() -> None:
    """One of them has another reader, which finds it there."""
    model = with_weights(parse(MAPS), w=f32(12, 8, 1, 1), s=np.array([0, 12, -1], np.int64))
    run(model, {"x": f32(2, 8, 5, 4), "z": f32(2, 8, 3, 2)}, 4)


def test_what_no_view_can_say_is_copied() -> None:
    """The Reshape mixes rows of the part with others of the image."""
    text = """
    g (float[4, 6] x, float[2, 6] z) => (float[P, Q] y) {
      a = Exp (x)
      t = Transpose (a)
      s = Constant <value = int64[2] {2, 12}> ()
      r = Reshape (t, s)
      k = Constant <value = int64[2] {1, 12}> ()
      b = Exp (z)
      q = Reshape (b, k)
      c = Concat <axis = 0> (r, q)
      y = Relu (c)
    }
    """
    model = parse(text)
    feed = {"x": f32(4, 6), "z": f32(2, 6)}
    want = interpret(model, feed)["y"]
    (got,) = ingot.InferenceSession(ir.to_proto(model)).run(None, feed)
    np.testing.assert_allclose(got, want, rtol=1e-6)
