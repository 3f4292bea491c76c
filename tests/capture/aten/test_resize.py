"""Scales of images: how large the result is, for sizes other than the example's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.capture.support import parity

Tensor = torch.Tensor
SIZES = (7, 9, 10, 20, 30, 33, 50, 90, 99, 100, 200, 300, 700)


@pytest.mark.parametrize("scale", [0.57, 0.29, 0.7, 1.1, 1 / 3])
def test_as_large_as_torch_makes_it(scale: float) -> None:
    """The product of size and scale is rounded down in float64 there, and in float32 by Resize; an axis whose
    size stays is taken as it is.
    """

    def function(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=scale, mode="linear")

    torch.manual_seed(0)
    smooth = {
        n: torch.randn(1, 2, n).cumsum(-1) for n in (7, 9, 10, 20, 30, 33, 50, 90, 99, 100, 200, 300, 700)
    }
    parity(function, (smooth[20],), *((x,) for x in smooth.values()))
    for n in (9, 100):
        parity(function, (smooth[n],), dynamic_shapes=None)


@pytest.mark.parametrize(("mode", "antialias"), [("bilinear", False), ("bicubic", False), ("bilinear", True)])
def test_an_axis_whose_size_stays(mode: str, antialias: bool) -> None:
    """It is copied by all modes but plain cubic, the others are scaled."""

    def function(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=1.1, mode=mode, antialias=antialias)

    torch.manual_seed(0)
    parity(function, (torch.randn(1, 2, 7, 30),), (torch.randn(1, 2, 25, 8),))
    parity(function, (torch.randn(1, 2, 7, 30),), dynamic_shapes=None)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(3, 4), (1, 11), (9, 20)])
def test_a_filter_from_corner_to_corner(mode: str, size: tuple[int, int]) -> None:
    """With antialias, smaller and larger: torch places the filter by its own scale, as no Resize does."""

    def function(x: Tensor) -> Tensor:
        return F.interpolate(x, size, mode=mode, antialias=True, align_corners=True)

    torch.manual_seed(0)
    parity(function, (torch.randn(1, 2, 7, 30),), (torch.randn(2, 2, 9, 4),), (torch.randn(1, 1, 1, 5),))
    parity(function, (torch.randn(1, 2, 7, 13),), dynamic_shapes=None)
    parity(function, (torch.randn(1, 2, 7, 13).double(),), tolerance=1e-9)
