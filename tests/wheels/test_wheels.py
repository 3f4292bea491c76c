"""Trained files inside wheels of the package index: outputs equal to onnxruntime's, at several shapes.

Floats are equal to 1e-4 of the largest, all else exactly. Where floats are not, the node must be found that
makes the difference (`judge`), and it may not be ours: onnxruntime's STFT of a length that is no power of two
is off by ten times ours, and logarithms that follow show it; its Sigmoid is right to 3e-8 of 1,
and where all results are as small, that is much of them; a number in the middle of two integers, to the
last bit of a float32, is quantised to either, and all that follows moves in whole steps.

Wheels are downloaded once into the user's cache; without an index a test is skipped, and says so. They run
with `make wheels`.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import ingot
from benchmarks.files import Feed, NotAvailableError, models_of
from ingot.ops.interpreter import interpret
from ingot.passes.opset import normalise
from tests.wheels.feeds import WHEELS, Wheel
from tests.wheels.judge import departures, difference, roundings

pytestmark = pytest.mark.wheels

#: How far float32 may move what is next to the largest of a tensor: two units in the last place.
ROUNDING = 2.0**-22
#: What one node of float32 may be off: of the order in which it adds up a few hundred products.
SUM = 5e-6


def explain(path: Path, feed: Feed, got: np.ndarray, want: np.ndarray, output: str, subject: str) -> None:
    """Why an output is not ONNX Runtime's, to the node: a value in the middle of two steps of a quantised
    tensor, or a node whose float32 in ONNX Runtime is further from its definition than ours. Else it fails.
    """
    found, ends = roundings(path, feed)
    if found:
        for rounding in found:
            assert rounding.steps <= 1, f"{subject}: {rounding} from the same integers"
            assert rounding.off_middle <= ROUNDING, f"{subject}: {rounding} is not a tie"
        assert sum(rounding.count for rounding in found), f"{subject}: the integers are all the same"
        for name, apart in ends:
            assert apart <= 1e-4, f"{subject}: {name} is {apart:.1e} away from the same integers"
        return
    exact = interpret(normalise(ingot.load(path)), feed)[output]
    apart = [difference(array, exact) for array in (got, want)]
    text = f"{subject}: {difference(got, want):.1e} apart, {apart} from the definition"
    assert apart[0] <= 5e-5 < apart[1], text  # theirs is the one that is not exact
    nodes = departures(path, feed)
    worst = max(nodes, key=lambda node: node.theirs)
    assert worst.ours < worst.theirs / 5, f"{text}, and no node alone shows it: {worst}"
    for node in nodes:
        assert node.ours <= max(node.theirs, SUM), f"{subject}: {node}"


@pytest.mark.parametrize(
    "wheel", WHEELS, ids=lambda w: f"{w.package}:{w.member.strip('*/').removesuffix('.onnx')}"
)
def test_outputs_are_onnxruntimes(wheel: Wheel) -> None:
    try:
        files = [path for path in models_of(wheel.package) if fnmatch.fnmatch(str(path), wheel.member)]
    except NotAvailableError as error:
        pytest.skip(str(error))
    assert files, f"the wheel of {wheel.package} has no {wheel.member}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    for path in files:
        theirs, ours = onnxruntime.InferenceSession(str(path), options), ingot.InferenceSession(path)
        for feed in wheel.feeds(np.random.default_rng(0)):
            shapes = {name: array.shape for name, array in feed.items()}
            for got, want, output in zip(
                ours.run(None, feed), theirs.run(None, feed), theirs.get_outputs(), strict=True
            ):
                subject = f"{path.name} {shapes}, output {output.name}"
                assert (got.dtype, got.shape) == (want.dtype, want.shape), subject
                if want.dtype.kind != "f":
                    assert got.tolist() == want.tolist(), subject
                elif difference(got, want) > 1e-4:
                    explain(path, feed, got, want, output.name, subject)
