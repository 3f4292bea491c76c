"""The NumPy around the sessions in the examples, against PyTorch and against plain loops."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture
def two_sessions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as when the file is run
    return importlib.import_module("two_sessions")


@pytest.mark.parametrize("size", [(252, 252), (31, 70), (8, 9)])
def test_resize_is_pytorchs_bilinear(two_sessions: ModuleType, size: tuple[int, int]) -> None:
    planes = np.random.default_rng(0).random((1, 3, 64, 48), np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(planes), size, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(two_sessions.resize(planes, *size), expected.numpy(), atol=1e-5)


def test_overlap_of_boxes(two_sessions: ModuleType) -> None:
    box, others = (
        np.array([0.0, 0.0, 2.0, 2.0]),
        np.array([[0, 0, 2, 2], [1, 1, 3, 3], [2, 2, 4, 4], [5, 5, 5, 5]]),
    )
    np.testing.assert_allclose(two_sessions.overlap(box, others.astype(float)), [1, 1 / 7, 0, 0], atol=1e-6)


def test_suppression_keeps_the_best_of_each_class(two_sessions: ModuleType) -> None:
    boxes = np.array(
        [[100, 100, 40, 40], [102, 100, 40, 40], [102, 100, 40, 40], [300, 300, 20, 20]], np.float32
    )
    scores = np.zeros((4, len(two_sessions.CLASSES)), np.float32)
    scores[0, 0], scores[1, 0], scores[2, 1], scores[3, 0] = 0.9, 0.8, 0.7, 0.6
    found = two_sessions.detections(boxes, scores)
    assert [(one.label, round(one.score, 1)) for one in found] == [
        ("person", 0.9),
        ("bicycle", 0.7),
        ("person", 0.6),
    ]
    np.testing.assert_allclose(found[0].box, [80, 80, 120, 120])
    assert len(two_sessions.detections(boxes, scores, limit=1)) == 1


def test_depth_image_uses_the_whole_range(two_sessions: ModuleType) -> None:
    depth = np.linspace(-3, 5, 252 * 252, dtype=np.float32).reshape(252, 252)
    picture = two_sessions.depth_image(depth)
    assert (picture.dtype, picture.shape) == (np.uint8, (640, 640))
    assert (picture.min(), picture.max()) == (0, 255)
    assert two_sessions.depth_image(np.ones((252, 252), np.float32)).max() == 0  # flat: no division by zero


def test_camera_image_becomes_planes(two_sessions: ModuleType) -> None:
    (image,) = two_sessions.camera(1)
    planes = two_sessions.to_planes(image)
    assert (image.dtype, image.shape) == (np.uint8, (640, 640, 3))
    assert (planes.dtype, planes.shape) == (np.float32, (1, 3, 640, 640))
    assert planes.flags.c_contiguous
    np.testing.assert_allclose(planes[0, 2, 5, 7] * 255, image[5, 7, 2], rtol=1e-6)
    assert two_sessions.for_depth(planes).shape == (1, 3, 252, 252)


def test_nearest_pairs() -> None:
    sys.path.insert(0, str(EXAMPLES))
    try:
        encoder = importlib.import_module("sentence_encoder")
    finally:
        sys.path.remove(str(EXAMPLES))
    embeddings = np.eye(4)
    embeddings[3] = [0, 0.6, 0.8, 0]
    pairs = encoder.nearest_pairs(embeddings, 2)
    assert [(a, b) for _, a, b in pairs] == [(2, 3), (1, 3)]
    assert pairs[0][0] == pytest.approx(0.8)
