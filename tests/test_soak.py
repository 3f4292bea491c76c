"""Slow checks (`make soak`): every model of the zoo end to end, and a session under thousands of shapes."""

from __future__ import annotations

import resource

import numpy as np
import onnx.parser
import pytest
import torch

import ingot
from benchmarks.zoo import ZOO, build
from ingot.timing import worst_difference
from tests.models.weights import photographs

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4  # of the largest value; random weights make some of these models sensitive


@pytest.mark.parametrize("name", list(ZOO))
def test_a_model_of_the_zoo(name: str) -> None:
    """Exported, and equal to PyTorch at two batch sizes, by one thread and by two (to the same bits)."""
    module, inputs = build(name)
    program = ingot.export(module, kwargs=inputs, verify=False)
    sessions = [program.session(sess_options=options(threads)) for threads in (1, 2)]
    for batch in (1, 3):
        _, feed = build(name, batch)
        with torch.no_grad():
            wanted = module(**feed)
        flat = [t.numpy() for t in (wanted if isinstance(wanted, tuple | list) else [wanted])]
        arrays = {arg.name: feed[arg.name].numpy() for arg in sessions[0].get_inputs()}
        alone, shared = (session.run(None, arrays) for session in sessions)
        assert worst_difference(alone, flat) < TOLERANCE
        for a, b in zip(alone, shared, strict=True):
            assert np.array_equal(a, b), f"{name}: two threads give other bits than one"


def options(threads: int) -> ingot.SessionOptions:
    chosen = ingot.SessionOptions()
    chosen.intra_op_num_threads = threads
    return chosen


def test_memory_stays_flat_over_many_shapes() -> None:
    """Plans are dropped, the arena is shared: 3,000 different shapes need no more than 300 did."""
    text = """<ir_version: 10, opset_import: ["" : 20]>
    g (float[n, c, 8] x, float[8, 16] w) => (float[n, c, 16] y, float[n, 16] z) {
        p = MatMul(x, w)
        y = Softmax<axis=-1>(p)
        axis = Constant<value_ints=[1]>()
        z = ReduceMean<keepdims=0>(y, axis)
    }"""
    session = ingot.InferenceSession(onnx.parser.parse_model(text), options(2))
    w = np.ones((8, 16), np.float32)
    peaks: list[int] = []
    for turn in range(3000):
        n, c = 1 + turn % 60, 1 + turn // 60
        y, _ = session.run(None, {"x": np.ones((n, c, 8), np.float32), "w": w})
        assert y.shape == (n, c, 16)
        if turn in (300, 2999):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    grown = (peaks[1] - peaks[0]) / 1024
    assert grown < 60, f"the process grew by {grown:.0f} MB over 2,700 shapes"


def test_photographs_are_not_noise() -> None:
    """What the zoo is fed has the statistics of images: correlated neighbours, all three channels."""
    image = photographs(1, 64, 64, torch.Generator().manual_seed(0))[0]
    neighbours = torch.stack([image[:, :, :-1].flatten(), image[:, :, 1:].flatten()])
    assert torch.corrcoef(neighbours)[0, 1] > 0.5
