"""Rows for torchvision's operators, by name: defined here as torchvision defines them, where it is not
installed.
"""

# Shapes follow from some of the arguments.
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from ingot.capture.attempt import capture
from tests.capture.support import op_types, ort_runner, parity

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt "
    "pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt "
    "pooled_width) -> "
    "(Tensor, Tensor)",
    "deform_conv2d": "(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt "
    "stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask) -> Tensor",
}


def _fake_nms(dets: Any, scores: Any, iou_threshold: float) -> Any:
    return dets.new_empty([torch.library.get_ctx().new_dynamic_size()], dtype=torch.int64)


def _fake_align(x: Any, rois: Any, scale: float, h: int, w: int, ratio: int, aligned: bool) -> Any:
    return x.new_empty([rois.shape[0], x.shape[1], h, w])


def _fake_pool(x: Any, rois: Any, scale: float, h: int, w: int) -> Any:
    shape = [rois.shape[0], x.shape[1], h, w]
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int32)


def _fake_deform(x: Any, weight: Any, offset: Any, *rest: Any) -> Any:
    return x.new_empty([x.shape[0], weight.shape[0], *offset.shape[2:]])


_FAKES = {"nms": _fake_nms, "roi_align": _fake_align, "roi_pool": _fake_pool, "deform_conv2d": _fake_deform}


@pytest.fixture(scope="module", autouse=True)
def operators() -> None:
    """The operators, unless torchvision has them defined already."""
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            _LIBRARY.define(name + schema)
            torch.library.register_fake(f"torchvision::{name}", _FAKES[name], lib=_LIBRARY)


def kept(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Non-maximum suppression as torchvision describes it."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    found: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        low, high = np.maximum(boxes[i, :2], boxes[found, :2]), np.minimum(boxes[i, 2:], boxes[found, 2:])
        inter = np.clip(high - low, 0, None).prod(-1)
        if not found or (inter / (area[i] + area[found] - inter) <= threshold).all():
            found.append(int(i))
    return found


def test_nms() -> None:
    """Any number of boxes, sorted by score; what follows takes the number that is left."""
    rng = np.random.default_rng(0)

    def boxes(n: int) -> tuple[np.ndarray, np.ndarray]:
        corner, size = rng.uniform(0, 10, (n, 2)), rng.uniform(1, 5, (n, 2))
        dets = np.concatenate([corner, corner + size], 1)
        return dets.astype(np.float32), rng.standard_normal(n).astype(np.float32)

    def function(dets: torch.Tensor, scores: torch.Tensor) -> Any:
        best = torch.ops.torchvision.nms(dets, scores, 0.3)
        return best, dets[best] * 2

    captured = capture(function, tuple(torch.from_numpy(a) for a in boxes(20)))
    run = ort_runner(captured.model)
    for n in (1, 7, 40):
        dets, scores = boxes(n)
        best, taken = run({"dets": dets, "scores": scores}, captured.output_names)
        assert best.tolist() == kept(dets, scores, 0.3)
        np.testing.assert_array_equal(taken, dets[best] * 2)


def _bilinear(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """[c, h, w] at one place, as RoIAlign samples."""
    h, w = image.shape[1:]
    if not (-1 <= y <= h and -1 <= x <= w):
        return np.zeros(image.shape[0])
    y, x = max(y, 0), max(x, 0)
    y0, x0 = min(int(y), h - 1), min(int(x), w - 1)
    y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
    y, x = (y0 if y0 >= h - 1 else y), (x0 if x0 >= w - 1 else x)
    a, b = y - y0, x - x0
    top = image[:, y0, x0] * (1 - b) + image[:, y0, x1] * b
    return top * (1 - a) + (image[:, y1, x0] * (1 - b) + image[:, y1, x1] * b) * a


@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align(aligned: bool) -> None:
    """Averages of samples, as torchvision's documentation has them."""

    def function(x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        return torch.ops.torchvision.roi_align(x, rois, 0.5, 3, 2, 2, aligned)

    x, rois = torch.randn(2, 3, 8, 9), torch.tensor([[0.0, 1, 2, 9, 11], [1, 0, 0, 15, 15], [1, 4, 4, 5, 6]])
    captured = capture(function, (x, rois))
    (got,) = ort_runner(captured.model)({"x": x.numpy(), "rois": rois.numpy()}, captured.output_names)
    for k, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        moved = 0.5 if aligned else 0.0
        left, top = x1 * 0.5 - moved, y1 * 0.5 - moved
        width, height = (x2 - x1) * 0.5, (y2 - y1) * 0.5
        if not aligned:
            width, height = max(width, 1), max(height, 1)
        for i in range(3):
            for j in range(2):
                samples = [
                    _bilinear(
                        x[int(image)].numpy(),
                        top + (i + (u + 0.5) / 2) * height / 3,
                        left + (j + (v + 0.5) / 2) * width / 2,
                    )
                    for u in range(2)
                    for v in range(2)
                ]
                np.testing.assert_allclose(got[k, :, i, j], np.mean(samples, 0), atol=1e-5)


def _overlap(box: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    low, high = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    inter = (high - low).clamp(min=0).prod(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return inter / ((box[2:] - box[:2]).prod() + area - inter)


def _nms_until_one_is_left(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    order = scores.argsort(descending=True)
    keep = []
    while order.numel() > 0:
        i = order[0]
        keep.append(i)
        if order.numel() == 1:
            break
        inds = torch.where(_overlap(boxes[i], boxes[order[1:]]) <= 0.4)[0]
        order = order[inds + 1]
    return torch.stack(keep) if keep else torch.zeros(0, dtype=torch.long)


def _nms_by_masks(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    keep = []
    order = torch.argsort(-scores)
    while len(order) > 0:
        i = order[0]
        keep.append(i.item())
        order = order[1:][_overlap(boxes[i], boxes[order[1:]]) <= 0.4]
    return torch.LongTensor(keep)


@pytest.mark.parametrize("nms", [_nms_until_one_is_left, _nms_by_masks], ids=lambda f: f.__name__)
def test_suppression_written_in_python(nms: Any) -> None:
    """As it is written in most repositories: as many boxes as there are, none and one among them."""

    def boxes(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(n)
        at = torch.rand(n, 2, generator=g) * 5
        size = torch.rand(n, 2, generator=g) * 4 + 0.1
        return torch.cat([at, at + size], 1), torch.rand(n, generator=g)

    parity(nms, boxes(9), *map(boxes, (0, 1, 2, 3, 17, 40)))


def test_roi_pool() -> None:
    """Maxima of whole pixels."""

    def function(x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        return torch.ops.torchvision.roi_pool(x, rois, 1.0, 2, 2)[0]

    x, rois = torch.randn(1, 2, 8, 8), torch.tensor([[0.0, 0, 0, 3, 3], [0, 2, 4, 5, 7]])
    captured = capture(function, (x, rois))
    (got,) = ort_runner(captured.model)({"x": x.numpy(), "rois": rois.numpy()}, captured.output_names)
    np.testing.assert_allclose(got[0], torch.max_pool2d(x[:, :, :4, :4], 2)[0], atol=1e-6)
    np.testing.assert_allclose(got[1], torch.max_pool2d(x[:, :, 4:8, 2:6], 2)[0], atol=1e-6)


def test_deform_conv2d() -> None:
    """With no offsets it is a convolution, weighed by the mask."""
    x, weight, bias = torch.randn(1, 4, 6, 6), torch.randn(5, 4, 3, 3), torch.randn(5)

    def function(x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        call = torch.ops.torchvision.deform_conv2d
        return call(x, weight, offset, mask, bias, 1, 1, 1, 1, 1, 1, 1, 1, True)

    offset, mask = torch.zeros(1, 18, 6, 6), torch.full((1, 9, 6, 6), 0.5)
    captured = capture(function, (x, offset, mask), dynamic_shapes=None)
    assert op_types(captured) == ["DeformConv"]
    evaluator = ReferenceEvaluator(ir.to_proto(captured.model))
    (got,) = evaluator.run(None, {"x": x.numpy(), "offset": offset.numpy(), "mask": mask.numpy()})
    expected = torch.nn.functional.conv2d(x, weight * 0.5, bias, padding=1)
    np.testing.assert_allclose(got, expected, atol=1e-4)
