"""The rule for interpolation before a convolution, and the operator it makes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import ingot
from ingot.ops.interpreter import interpret
from ingot.passes.pipeline import prepare
from ingot.passes.rules.resize import conv_of_resized
from tests.passes.graphs import parse, with_weights
from tests.passes.test_rules import applies, does_not_match, f32, refuses

SCALES = np.array([1, 1, 2, 4], np.float32)
LINEAR = 'mode = "linear", coordinate_transformation_mode = "half_pixel"'


def network(
    conv: str = "c, w, b", resize: str = LINEAR, bn: str = "y = Relu (t)", axes: bool = False
) -> ir.Model:
    """Two images enlarged (by scales, and to the size of a third), one as it is, one only moved."""
    more = f"""first = Shape <end = 2> (q)
      rest = Shape <start = 2> (r)
      size = Concat <axis = 0> (first, rest)
      more = Resize <{resize}> (q, none, none, size)"""
    if axes:
        more = f"""size = Shape <start = 2> (r)
      more = Resize <{resize}, axes = [2, 3]> (q, none, none, size)"""
    text = f"""
    g (float[N, 6, H, W] p, float[N, 5, h, v] q, float[N, 4, K, L] r, float[M, 20, 1, 1] w, float[M] b,
       float[4] s, int64[2] ends)
      => (float[N, 7, K, L] y) <float[N, 5, K, L] more> {{
      none = Constant <value = float[0] {{}}> ()
      big = Resize <{resize}> (p, none, s)
      {more}
      again = Neg (r)
      c = Concat <axis = 1> (big, r, more, again)
      t = Conv ({conv})
      {bn}
    }}
    """
    weights = {"w": f32(7, 19, 1, 1), "b": f32(7), "s": SCALES}
    text = text.replace("float[M, 20, 1, 1] w", "float[M, 19, 1, 1] w").replace(", int64[2] ends", "")
    return with_weights(parse(text), **weights)


def feed(height: int, width: int, h: int, v: int, images: int = 2) -> dict[str, np.ndarray]:
    return {
        "p": f32(images, 6, height, width),
        "q": f32(images, 5, h, v),
        "r": f32(images, 4, 2 * height, 4 * width),
    }


@pytest.mark.parametrize(
    ("axes", "left"),
    [
        (False, ["Shape", "Shape", "Concat", "Neg", "Concat", "ConvOfResized", "Relu"]),
        (True, ["Shape", "Resize", "Neg", "Concat", "ConvOfResized", "Relu"]),
    ],
    ids=["all alike", "attributes differ"],
)
def test_branches_are_filtered_apart(axes: bool, left: list[str]) -> None:
    applies(
        conv_of_resized,
        network(axes=axes),
        left,
        feed(3, 2, 2, 2),
        feed(2, 2, 9, 30),
        standard=False,
    )


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("sizes", [(3, 5, 2, 2), (3, 2, 9, 30), (4, 4, 8, 16), (1, 1, 1, 1)])
def test_sessions_compute_it(mode: str, sizes: tuple[int, int, int, int]) -> None:
    """Enlarged, shrunk and unchanged branches, against the graph before the rule."""
    model = network(resize=f'mode = "{mode}"')
    data = feed(*sizes)
    want = interpret(model, data)["y"]
    got = ingot.InferenceSession(ir.to_proto(model)).run(None, data)[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_a_session_has_no_node_on_the_host() -> None:
    model = network()
    prepare(model)
    assert "ConvOfResized" in [node.op_type for node in model.graph]
    session = ingot.InferenceSession(ir.to_proto(network()))
    session.run(None, feed(3, 2, 2, 2))
    assert not any("host" in str(line) for line in session.profile(feed(3, 2, 2, 2)))


def test_a_file_keeps_the_pattern() -> None:
    does_not_match(conv_of_resized, network())


def test_it_refuses() -> None:
    norm = "y = BatchNormalization (t, b, b, b, b)"
    refuses(conv_of_resized, network(bn=norm), "BatchNormalization", standard=False)
    refuses(conv_of_resized, network(bn="d = Neg (c)\n y = Relu (t)"), "elsewhere", standard=False)
