"""Whole models with Winograd's convolution, beside onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ingot
from benchmarks.zoo import build

ort: Any = pytest.importorskip("onnxruntime")


def distance(got: list[np.ndarray], want: list[np.ndarray]) -> float:
    """The largest difference in units of each output's largest value."""
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("name", ["resnet50", "yolov8n"])
def test_models_agree_with_onnxruntime(name: str, tmp_path: Path) -> None:
    """Within 1e-4 of the largest output.

    Or, where rounding alone moves a model so far, within three times the distance of the direct convolution:
    the detector has random weights, and scaling its input by 1 + 2e-7 changes its output by 8e-5.
    """
    module, inputs = build(name)
    path = tmp_path / "model.onnx"
    ingot.export(module, (), str(path), kwargs=inputs, verify=False)
    reference = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (argument,) = reference.get_inputs()
    (tensor,) = inputs.values()
    feed = {argument.name: tensor.numpy()}
    want = reference.run(None, feed)
    found: dict[bool, list[np.ndarray]] = {}
    for enabled in (True, False):
        options = ingot.SessionOptions()
        options.intra_op_num_threads, options.enable_winograd = 1, enabled
        options.enable_amx = False  # which Winograd's algorithm is not used beside
        found[enabled] = ingot.InferenceSession(str(path), options).run(None, feed)
    assert any(not np.array_equal(a, b) for a, b in zip(found[True], found[False], strict=True))
    assert distance(found[True], want) <= max(1e-4, 3 * distance(found[False], want))
