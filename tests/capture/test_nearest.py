"""Nearest neighbours: the exported graph takes the pixels that torch's kernels take, at every size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ingot
from tests.capture.support import ort_runner

GROWS = (1.7, 2.3, 1.3, 2.5, 1.1)


class Resized(torch.nn.Module):
    """The first axis of an image resized by each of the scales, with and without its size counted anew."""

    def __init__(self, rank: int, mode: str, scales: tuple[float, ...]) -> None:
        super().__init__()
        self.rank, self.mode, self.scales = rank, mode, scales

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [
            F.interpolate(
                x, scale_factor=(s, *[1.0] * (self.rank - 1)), mode=self.mode, recompute_scale_factor=again
            )
            for s in self.scales
            for again in (None, True)
        ]


def same_pixels(f: Any, example: torch.Tensor, others: list[torch.Tensor]) -> None:
    model = ingot.export(f, (example,), verify=False).model
    run = ort_runner(model)
    names = [str(value.name) for value in model.graph.outputs]
    (name,) = (str(value.name) for value in model.graph.inputs)
    for x in others:
        want = f(x)
        want = want if isinstance(want, list) else [want]
        for i, (g, w) in enumerate(zip(run({name: x.numpy()}, names), want, strict=True)):
            np.testing.assert_array_equal(g, w.numpy(), err_msg=f"output {i} of an image {tuple(x.shape)}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_size(rank: int, mode: str, dtype: torch.dtype) -> None:
    """Also at 0.3 of fewer than 4 pixels, where torch refuses and there is nothing to compare."""

    def image(n: int, batch: int = 2) -> torch.Tensor:
        x = torch.arange(n, dtype=dtype).reshape(1, 1, n, *[1] * (rank - 1))
        return x.expand(batch, 1, n, *[3] * (rank - 1)).contiguous()

    same_pixels(Resized(rank, mode, GROWS), image(6), [image(n) for n in range(1, 71)])
    same_pixels(Resized(rank, mode, (0.3,)), image(6), [image(n) for n in range(4, 71)])
    if dtype == torch.float32:  # onnxruntime has no Resize of float64
        same_pixels(Resized(rank, mode, (3.0, 41.0)), image(6), [image(n) for n in range(1, 5)])
    same_pixels(Resized(rank, mode, GROWS), image(6), [image(n, 0) for n in (1, 6, 70)])


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_images_too_large_for_the_small_kernel(mode: str) -> None:
    """Of up to 128 rows and columns together torch takes a ratio of 1 or 2 where that is the sizes' own."""

    def image(n: int) -> torch.Tensor:
        return torch.arange(3.0 * 200 * n).reshape(1, 3, n, 200)

    same_pixels(Resized(2, mode, GROWS), image(6), [image(n) for n in (1, 2, 3, 5, 9, 60, 70)])


def test_an_image_of_fixed_size() -> None:
    """The neighbours are numbers of the file."""
    x = torch.randn(2, 3, 17, 13)
    captured = ingot.export(lambda x: F.interpolate(x, scale_factor=1.7), (x,), dynamic_shapes=None)
    want = F.interpolate(x, scale_factor=1.7).numpy()
    (got,) = ort_runner(captured.model)({"x": x.numpy()}, captured.output_names)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("scale", [2, 3, 4, 0.5])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_whole_scales_stay_one_resize(mode: str, scale: float) -> None:
    captured = ingot.export(
        lambda x: F.interpolate(x, scale_factor=scale, mode=mode), (torch.randn(1, 2, 6, 8),)
    )
    assert [node.op_type for node in captured.model.graph] == ["Resize"]
