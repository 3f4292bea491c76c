"""A session's memory does not grow with the number of different shapes it has seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.numpy_helper
import onnx.parser
import pytest

import ingot

STATM = Path("/proc/self/statm")
PAGE = 4096

MODEL = """<ir_version: 10, opset_import: ["" : 20]>
g (float[n, c, 8] x) => (float[n, c, 16] y, float[n, k] z, float[n, 8, d] t) {
    p = MatMul(x, w)
    q = LayerNormalization(p, scale)
    y = Softmax<axis=-1>(q)
    axis = Constant<value_ints=[1]>()
    m = ReduceMean<keepdims=0>(y, axis)
    xt = Transpose<perm=[0, 2, 1]>(x)
    f = Conv<kernel_shape=[3], pads=[1, 1]>(xt, v)
    u = Relu(f)
    t = Add(u, xt)
    shape = Constant<value_ints=[0, -1]>()
    z = Reshape(m, shape)
}"""


def resident() -> float:
    """Megabytes of this process that lie in memory."""
    return int(STATM.read_text().split()[1]) * PAGE / 2**20


def session() -> ingot.InferenceSession:
    model = onnx.parser.parse_model(MODEL)
    generator = np.random.default_rng(0)
    for name, shape in (("w", (8, 16)), ("scale", (16,)), ("v", (8, 8, 3))):
        weight = generator.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    options = ingot.SessionOptions()
    options.intra_op_num_threads = 1
    return ingot.InferenceSession(model, options)


@pytest.mark.skipif(not STATM.exists(), reason="only Linux tells how much memory is resident")
@pytest.mark.parametrize(
    ("shapes", "most_megabytes"), [(3_000, 4), pytest.param(10_000, 4, marks=pytest.mark.slow)]
)
def test_memory_stays_flat_over_many_shapes(shapes: int, most_megabytes: float) -> None:
    """The largest shape first, then 2,000 others, which fill every table; from there on nothing is added."""
    runner = session()
    side = int(np.ceil(np.sqrt(shapes)))
    order = np.random.default_rng(1).permutation(side * side)[:shapes]
    runner.run(None, {"x": np.ones((side, side, 8), np.float32)})
    warm = 2_000
    before = 0.0
    for turn, number in enumerate(order):
        n, c = 1 + int(number) // side, 1 + int(number) % side
        y, z, t = runner.run(None, {"x": np.ones((n, c, 8), np.float32)})
        assert (y.shape, z.shape, t.shape) == ((n, c, 16), (n, 16), (n, 8, c))
        if turn == warm:
            before = resident()
    grown = resident() - before
    assert grown < most_megabytes, f"the process grew by {grown:.1f} MB over {shapes - warm} shapes"
