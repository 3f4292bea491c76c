"""Two models in one process, as a vision service keeps them: an open-vocabulary detector and a depth
estimator.

Both are exported from PyTorch (architectures with random weights, so the boxes mean nothing), opened with a
list of providers of which the first that exists runs them, warmed up on a blank image, and then fed uint8
camera images of 640×640×3. Everything around the sessions is NumPy: PyTorch is only needed to export, and
here to compare times.

    python examples/two_sessions.py [--images 10] [--threads 2]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from yolo import OpenVocabularyDetector

import ingot
from ingot.closeness import TOLERANCE

SIZE = 640
DEPTH_SIZE = 252  # a multiple of the 14 pixels of a patch
CLASSES = [
    "person",
    "bicycle",
    "traffic light",
    "delivery van",
    "dog",
    "open door",
    "red umbrella",
    "suitcase",
]
PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]
console = Console()
messages = Console(stderr=True)


class DepthEstimator(nn.Module):
    """Depth-Anything-Small: DINOv2 and a DPT head, returning the plain depth map."""

    def __init__(self) -> None:
        super().__init__()
        backbone = transformers.Dinov2Config(
            hidden_size=384,
            num_attention_heads=6,
            image_size=518,
            patch_size=14,
            reshape_hidden_states=False,
            out_features=["stage3", "stage6", "stage9", "stage12"],
        )
        config = transformers.DepthAnythingConfig(
            backbone_config=backbone,
            reassemble_hidden_size=384,
            neck_hidden_sizes=[48, 96, 192, 384],
            fusion_hidden_size=64,
            head_hidden_size=32,
        )
        self.model = transformers.DepthAnythingForDepthEstimation(config)

    def forward(self, image: Tensor) -> Tensor:
        """Return relative depth [batch, height, width] of normalised images [batch, 3, height, width]."""
        return self.model(pixel_values=image).predicted_depth


@dataclass
class Detection:
    """One box (left, top, right, bottom in pixels), its class and its score."""

    box: np.ndarray
    label: str
    score: float


def to_planes(image: np.ndarray) -> np.ndarray:
    """Turn uint8 [height, width, 3] into float32 [1, 3, height, width] in 0..1."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255)


def resize(planes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize [..., h, w] bilinearly, pixel centres aligned: two passes of a weighted sum of two
    neighbours.
    """
    for axis, size in ((-2, height), (-1, width)):
        source = planes.shape[axis]
        centre = np.clip((np.arange(size) + 0.5) * (source / size) - 0.5, 0, source - 1)
        low = np.floor(centre).astype(np.int64)
        high = np.minimum(low + 1, source - 1)
        weight = (centre - low).astype(np.float32)
        weight = weight[:, None] if axis == -2 else weight
        planes = planes.take(low, axis) * (1 - weight) + planes.take(high, axis) * weight
    return planes


def for_depth(planes: np.ndarray) -> np.ndarray:
    """Resize to the estimator's size and normalise with ImageNet's mean and deviation."""
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
    deviation = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
    return (resize(planes, DEPTH_SIZE, DEPTH_SIZE) - mean) / deviation


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return intersection over union of one box [4] with others [n, 4], corners in pixels."""
    corner = np.maximum(box[:2], others[:, :2])
    opposite = np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(opposite - corner, 0, None), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    return shared / (np.prod(box[2:] - box[:2]) + areas - shared + 1e-9)


def detections(
    boxes: np.ndarray, scores: np.ndarray, candidates: int = 300, limit: int = 20, iou: float = 0.7
) -> list[Detection]:
    """Non-maximum suppression per class over the best candidates of one image.

    boxes: [anchors, 4] as centre and size in pixels; scores: [anchors, classes].
    """
    labels, best = scores.argmax(1), scores.max(1)
    order = np.argsort(-best)[:candidates]
    centre, half = boxes[order, :2], boxes[order, 2:] / 2
    corners, labels, best = np.hstack([centre - half, centre + half]), labels[order], best[order]
    # Boxes of different classes never suppress each other: shifted apart by more than the image.
    shifted = corners + labels[:, None] * (2 * SIZE)
    alive = np.ones(len(order), bool)
    kept: list[Detection] = []
    for index in range(len(order)):
        if alive[index] and len(kept) < limit:
            kept.append(Detection(corners[index].clip(0, SIZE), CLASSES[labels[index]], float(best[index])))
            alive[index + 1 :] &= overlap(shifted[index], shifted[index + 1 :]) <= iou
    return kept


def depth_image(depth: np.ndarray) -> np.ndarray:
    """Stretch relative depth [h, w] to 0..255 over its own range, at the camera's size: uint8 [640, 640]."""
    low, high = depth.min(), depth.max()
    full = resize((depth - low) / max(float(high - low), 1e-6), SIZE, SIZE)
    return np.rint(full * 255).astype(np.uint8)


def camera(count: int) -> list[np.ndarray]:
    """Return made-up camera images, uint8 [640, 640, 3]: shapes on a gradient, with noise."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    images: list[np.ndarray] = []
    for _ in range(count):
        image = np.stack([x / SIZE, y / SIZE, (x + y) / (2 * SIZE)], -1) * 200
        for _ in range(6):
            (cx, cy), radius = random.uniform(0, SIZE, 2), random.uniform(20, 120)
            image[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = random.uniform(0, 255, 3)
        images.append((image + random.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8))
    return images


def untrained_detector() -> OpenVocabularyDetector:
    """Return a detector whose scores spread as a trained one's do.

    One pass in training mode gives batch normalisation its statistics, and the contrast starts at an even
    chance.
    """
    detector = OpenVocabularyDetector()
    with torch.no_grad():
        for head in detector.contrast:
            head.bias.fill_(0.0)
        for part in detector.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None
        images = torch.from_numpy(np.concatenate([to_planes(image) for image in camera(2)]))
        detector.train()(images, torch.randn(len(CLASSES), 512))
    return detector.eval()


def export_both(
    detector: nn.Module, estimator: nn.Module, text: np.ndarray, folder: Path
) -> tuple[Path, Path]:
    """Write both models as ONNX files, verified on other shapes; returns their paths."""
    blank = torch.zeros(1, 3, SIZE, SIZE)
    small = torch.zeros(1, 3, DEPTH_SIZE, DEPTH_SIZE)
    paths = folder / "detector.onnx", folder / "depth.onnx"
    with messages.status("exporting the detector"):
        ingot.export(
            detector, (blank, torch.from_numpy(text)), str(paths[0]), output_names=["boxes", "scores"]
        )
    with messages.status("exporting the depth estimator"):
        ingot.export(estimator, (small,), str(paths[1]), output_names=["depth"])
    return paths


def main() -> int:
    """Export, open, warm up, serve a few images, compare with PyTorch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10, help="images to process (default: 10)")
    parser.add_argument("--threads", type=int, default=2, help="threads of both runtimes (default: 2)")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(chosen.threads)
    detector, estimator = untrained_detector(), DepthEstimator().eval()
    # A service computes these once, with a text encoder; the detector takes whatever classes they stand for.
    text = np.random.default_rng(0).standard_normal((len(CLASSES), 512)).astype(np.float32)

    with tempfile.TemporaryDirectory() as folder:
        detector_path, depth_path = export_both(detector, estimator, text, Path(folder))
        options = ingot.SessionOptions()
        options.intra_op_num_threads = chosen.threads
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            detect = ingot.InferenceSession(str(detector_path), options, providers=PROVIDERS)
            estimate = ingot.InferenceSession(str(depth_path), options, providers=PROVIDERS)
        for remark in {str(remark.message) for remark in remarks}:
            messages.print(f"[yellow]warning:[/yellow] {remark}")
        console.print(f"running on {detect.get_providers()[0]}")

        blank = to_planes(np.zeros((SIZE, SIZE, 3), np.uint8))
        start = time.perf_counter()
        detect.run(None, {"image": blank, "text": text})
        estimate.run(None, {"image": for_depth(blank)})
        console.print(f"warmed up in {time.perf_counter() - start:.2f} s")

        times: dict[str, list[float]] = {
            name: [] for name in ("pre", "detect", "depth", "post", "torch detect", "torch depth")
        }
        worst = {"boxes": 0.0, "scores": 0.0, "depth": 0.0}
        for number, image in enumerate(camera(chosen.images)):
            marks = [time.perf_counter()]
            planes = to_planes(image)
            scaled = for_depth(planes)
            marks.append(time.perf_counter())
            boxes, scores = detect.run(None, {"image": planes, "text": text})
            marks.append(time.perf_counter())
            (depth,) = estimate.run(None, {"image": scaled})
            marks.append(time.perf_counter())
            found, picture = detections(boxes[0], scores[0]), depth_image(depth[0])
            marks.append(time.perf_counter())
            with torch.inference_mode():
                expected = [
                    value.numpy() for value in detector(torch.from_numpy(planes), torch.from_numpy(text))
                ]
                marks.append(time.perf_counter())
                expected.append(estimator(torch.from_numpy(scaled)).numpy())
                marks.append(time.perf_counter())
            for name, start, end in zip(times, marks, marks[1:], strict=False):
                times[name].append(end - start)
            for name, ours, theirs in zip(worst, (boxes, scores, depth), expected, strict=True):
                worst[name] = max(worst[name], float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
            console.print(
                f"image {number}: {len(found)} boxes, best {found[0].label} at {found[0].score:.3f}; "
                f"depth {picture.shape[0]}x{picture.shape[1]}, mean {picture.mean():.0f} of 255",
                highlight=False,
            )

    median = {name: float(np.median(values)) * 1e3 for name, values in times.items()}
    table = Table(title=f"milliseconds per image, {chosen.threads} thread(s), medians", title_justify="left")
    for heading in ("", "Ingot", "PyTorch", "speed-up"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("pre-processing (NumPy)", f"{median['pre']:.1f}", "", "")
    for name, title in (("detect", "open-vocabulary detector"), ("depth", "depth estimator")):
        ours, theirs = median[name], median[f"torch {name}"]
        table.add_row(title, f"{ours:.1f}", f"{theirs:.1f}", f"{theirs / ours:.2f}×")
    table.add_row("post-processing (NumPy)", f"{median['post']:.1f}", "", "")
    console.print(table)
    console.print(
        "largest difference from PyTorch: "
        + ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
    )
    return 0 if max(worst.values()) <= TOLERANCE["float32"] else 1  # what verification allows, too


if __name__ == "__main__":
    sys.exit(main())
