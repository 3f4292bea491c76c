"""Random networks for images at real sizes, by one thread and by several, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

import ingot
from ingot.timing import worst_difference
from tests.search.draw import Array
from tests.search.judge import attempt
from tests.search.networks import LAYERS, Layer, Network, pointwise, three_by_three

TOLERANCE = 1e-4  # of the largest value
LARGEST = 1 << 28  # bytes of all results


def session(model: onnx.ModelProto, threads: int) -> ingot.InferenceSession:
    options = ingot.SessionOptions()
    options.intra_op_num_threads = threads
    return ingot.InferenceSession(model, options)


def peer(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def check(network: Network, label: str, feeds: int, pixels: int = 10_000) -> int:
    """Compares at several sizes, and says at how many: an image may be too small for what strides leave."""
    model = network.model()
    theirs = peer(model)
    threads = (1, network.r.integer(2, 3))
    ours = [session(model, n) for n in threads]
    compared = 0
    for feed in [network.feed(pixels) for _ in range(feeds)]:
        wanted, refusal, _ = attempt(theirs.run, None, feed)
        if refusal is not None or sum(w.nbytes for w in wanted) > LARGEST:
            continue
        found: list[list[Array]] = [s.run(None, feed) for s in ours]
        at = f"{label} at {feed['image'].shape}"
        difference = worst_difference(found[0], wanted)
        assert difference <= TOLERANCE, f"{at}: {difference:.2g} from ONNX Runtime"
        for a, b in zip(*found, strict=True):
            same = np.array_equal(a, b, equal_nan=True)
            assert same, f"{at}: {threads[1]} threads give other bits than one"
        compared += 1
    return compared


@pytest.mark.parametrize("function", LAYERS, ids=lambda f: f.__name__)
def test_a_layer(function: Layer) -> None:
    """Behind a convolution, so that it finds channels in blocks, and before one."""
    assert check(Network(1, (three_by_three, function, pointwise)), function.__name__, 2)


@pytest.mark.parametrize("block", range(4))
def test_random_networks(block: int) -> None:
    assert sum(check(Network(seed), f"network {seed}", 2) for seed in range(3 * block, 3 * block + 3))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(40))
def test_many_random_networks(block: int) -> None:
    first = 1000 + 10 * block
    assert sum(check(Network(seed), f"network {seed}", 3, 60_000) for seed in range(first, first + 10))
