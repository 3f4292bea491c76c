"""Detection: torchvision's operators, by name, since torchvision need not be installed to have rows for
them.
"""

# Rows take whatever the operator's call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.registry import row
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor


@row("torchvision::nms")
def nms(g: Recorder, out: Tensor, boxes: Tensor, scores: Tensor, iou_threshold: float) -> ir.Value:
    """Indices of the boxes [n, 4] kept, the highest score first. Which of a corner's numbers is x does not
    matter to an overlap.
    """
    first = g.const([0])
    operands = [
        g.op("Unsqueeze", g.operand(boxes, torch.float32), first),
        g.op("Unsqueeze", g.operand(scores, torch.float32), g.const([0, 1])),
        g.sizes.dim(boxes.shape[0]),
        g.const([float(iou_threshold)], torch.float32),
    ]
    chosen = g.op("NonMaxSuppression", *operands)  # [kept, 3]: batch, class, box
    return g.op("Gather", chosen, g.const(2), axis=1)


def _regions(g: Recorder, rois: Tensor) -> tuple[ir.Value, ir.Value]:
    """[k, 5] as boxes [k, 4] and the image of each [k]."""
    value = g.val(rois)
    boxes = g.op("Slice", value, g.const([1]), g.const([5]), g.const([1]))
    image = g.op("Gather", value, g.const(0), axis=1)
    return boxes, g.cast(image, rois.dtype, torch.int64)


@row("torchvision::roi_align")
def roi_align(
    g: Recorder,
    out: Tensor,
    x: Tensor,
    rois: Tensor,
    spatial_scale: float,
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> ir.Value:
    """Averages of bilinear samples over a grid in each region."""
    boxes, image = _regions(g, rois)
    return g.op(
        "RoiAlign",
        g.val(x),
        boxes,
        image,
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
        mode="avg",
        output_height=int(height),
        output_width=int(width),
        sampling_ratio=max(int(sampling_ratio), 0),
        spatial_scale=float(spatial_scale),
    )


@row("torchvision::roi_pool")
def roi_pool(
    g: Recorder, out: Any, x: Tensor, rois: Tensor, spatial_scale: float, height: int, width: int
) -> list[ir.Value | None]:
    """Maxima over a grid in each region."""
    scale = float(spatial_scale)
    pooled = g.op(
        "MaxRoiPool", g.val(x), g.val(rois), pooled_shape=[int(height), int(width)], spatial_scale=scale
    )
    return [pooled, None]


@row("torchvision::deform_conv2d")
def deform_conv2d(
    g: Recorder,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> ir.Value:
    """A convolution whose samples are moved by offsets and weighed by a mask."""
    if g.opset < 19:
        raise ExportError("deform_conv2d needs opset 19 or newer; pass opset_version=20.")
    operands = [g.val(x), g.val(weight), g.val(offset), g.val(bias)]
    if use_mask:
        operands.append(g.val(mask))
    return g.op(
        "DeformConv",
        *operands,
        kernel_shape=[int(k) for k in weight.shape[2:]],
        strides=[int(stride_h), int(stride_w)],
        pads=[int(pad_h), int(pad_w)] * 2,
        dilations=[int(dilation_h), int(dilation_w)],
        group=int(groups),
        offset_group=int(offset_groups),
    )
