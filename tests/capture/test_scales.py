"""`F.interpolate` by scales that a loop carries, that are data, or whose float32 makes another size."""

# pyright: basic

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.capture.support import parity

MODES = ("nearest", "bilinear", "bicubic")


def slope(height: int, width: int) -> torch.Tensor:
    """An image so smooth that the last digits of a place do not show."""
    return (torch.arange(height)[:, None] / height + torch.arange(width) / width)[None, None].sin()


@pytest.mark.parametrize("mode", MODES)
def test_a_scale_that_a_loop_carries(mode: str) -> None:
    def grown(x: torch.Tensor) -> torch.Tensor:
        scale = 1.0
        while x.shape[-1] * scale < 20:
            scale = scale * 1.5
        return F.interpolate(x, scale_factor=scale, mode=mode)

    parity(grown, (torch.rand(1, 2, 6, 8),), (torch.rand(2, 2, 3, 5),), (torch.rand(1, 1, 9, 31),))


@pytest.mark.parametrize("mode", MODES)
def test_a_scale_in_the_rounds_of_a_loop(mode: str) -> None:
    def pyramid(x: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
        scale = 1.0
        total = x.new_zeros(())
        while scale > limit.item():
            small = F.interpolate(x, scale_factor=scale, mode=mode)
            total = total + small.mean()
            scale = scale * 0.8
        return total

    limits = (torch.tensor(0.3), torch.tensor(0.9), torch.tensor(2.0))
    shapes = ((1, 2, 12, 10), (2, 1, 7, 16), (1, 1, 8, 8))
    parity(pyramid, *[(torch.rand(s), limit) for s, limit in zip(shapes, limits, strict=True)])


@pytest.mark.parametrize("mode", MODES)
def test_a_scale_that_is_data(mode: str) -> None:
    def scaled(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=float(scale), mode=mode)

    scales = [0.29, 0.7, 1.0, 2.0, 1.7, 3.3]
    cases = [(slope(100, 10), torch.tensor(s, dtype=torch.float64)) for s in scales]
    parity(scaled, *cases)


def test_float32_rounds_a_size_up() -> None:
    """0.29 of 100 is 28 in torch, and 29 where the scale is a float32."""
    assert int(100 * 0.29) == 28 and int(np.float32(100) * np.float32(0.29)) == 29

    def scaled(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=0.29, mode="bilinear")

    x = slope(100, 100)
    parity(scaled, (x,), (x[:, :, :50],))
    parity(scaled, (x,), dynamic_shapes=None)
