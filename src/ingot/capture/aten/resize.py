"""Interpolation: Resize of every mode torch has, grid sampling, affine grids."""

# Rows take whatever the ATen call was given; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.registry import row
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor


def _resize(g: Recorder, x: Tensor, size: Sequence[Any], scales: Sequence[Any], **attributes: Any) -> ir.Value:
    """Resize to sizes; by scales where torch was given scales, which then also place the samples."""
    lead = x.dim() - len(size)
    fixed = all(isinstance(s, (int, float)) for s in scales)
    if fixed and len(scales) == len(size):
        factors = g.const([*[1.0] * lead, *[float(s) for s in scales]], torch.float32)
        return g.op("Resize", g.val(x), None, factors, **attributes)
    if any(s is not None for s in scales):
        # The samples lie at 1 / scale, which need not be the ratio of the sizes.
        parts = [g.const([1.0] * lead, torch.float32)]
        for s in scales:
            one = g.operand(s, torch.float32)
            parts.append(g.op("Unsqueeze", one, g.const([0])))
        return g.op("Resize", g.val(x), None, g.op("Concat", *parts, axis=0), **attributes)
    return g.op("Resize", g.val(x), None, None, g.shape([*x.shape[:lead], *size]), **attributes)


def _corners(align: bool) -> str:
    return "align_corners" if align else "half_pixel"


@row("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def nearest(g: Recorder, out: Tensor, x: Tensor, size: Sequence[Any], *scales: Any) -> ir.Value:
    """Sample floor(i / scale)."""
    return _resize(
        g, x, size, scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )


@row("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d")
def nearest_exact(g: Recorder, out: Tensor, x: Tensor, size: Sequence[Any], *scales: Any) -> ir.Value:
    """Sample floor((i + 0.5) / scale)."""
    return _resize(
        g, x, size, scales, mode="nearest", coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_ceil"
    )


@row("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")
def linear(g: Recorder, out: Tensor, x: Tensor, size: Sequence[Any], align_corners: bool, *scales: Any) -> ir.Value:
    """Linear in every spatial axis."""
    return _resize(g, x, size, scales, mode="linear", coordinate_transformation_mode=_corners(align_corners))


@row("upsample_bicubic2d")
def bicubic(g: Recorder, out: Tensor, x: Tensor, size: Sequence[Any], align_corners: bool, *scales: Any) -> ir.Value:
    """Cubic with torch's coefficient, -0.75."""
    mode = _corners(align_corners)
    return _resize(g, x, size, scales, mode="cubic", coordinate_transformation_mode=mode, cubic_coeff_a=-0.75)


@row("_upsample_bilinear2d_aa")
def bilinear_aa(g: Recorder, out: Tensor, x: Tensor, size: Sequence[Any], align_corners: bool, *scales: Any) -> ir.Value:
    """Linear with a filter that widens when shrinking."""
    mode = _corners(align_corners)
    return _resize(g, x, size, scales, mode="linear", coordinate_transformation_mode=mode, antialias=1)


@row("_upsample_bicubic2d_aa")
def bicubic_aa(g: Recorder, out: Tensor, x: Tensor, size: Sequence[Any], align_corners: bool, *scales: Any) -> ir.Value:
    """Cubic (-0.5, as Pillow) with a filter that widens when shrinking."""
    mode = _corners(align_corners)
    return _resize(
        g, x, size, scales, mode="cubic", coordinate_transformation_mode=mode, antialias=1, cubic_coeff_a=-0.5
    )


@row("grid_sampler_2d", "grid_sampler_3d", "grid_sampler")
def grid_sample(g: Recorder, out: Tensor, x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool) -> ir.Value:
    """Samples at given places."""
    modes = ["linear", "nearest", "cubic"] if g.opset >= 20 else ["bilinear", "nearest", "bicubic"]
    if x.dim() == 5 and g.opset < 20:
        raise ExportError("grid_sample of volumes needs opset 20 or newer; pass opset_version=20.")
    return g.op(
        "GridSample",
        g.val(x),
        g.val(grid),
        mode=modes[mode],
        padding_mode=["zeros", "border", "reflection"][padding],
        align_corners=int(align_corners),
    )
