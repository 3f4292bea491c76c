"""Operators on boxes of detectors: NonMaxSuppression, RoiAlign, MaxRoiPool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import FLOATS
from ingot.errors import InputError, ModelError
from ingot.kernels.boxes import Pooling, evaluate_roi_align, evaluate_roi_pool, roi_align, roi_pool
from ingot.kernels.call import constant
from ingot.kernels.suppress import evaluate_suppression, suppress
from ingot.ops.lowering import Lowering, wide_of
from ingot.ops.numeric import INT64, rounded
from ingot.ops.registry import (
    Array,
    Bound,
    Facts,
    Op,
    attr_float,
    attr_int,
    attr_ints,
    attr_str,
    given,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)

_ALL = 1 << 62


@register("NonMaxSuppression", since=11)
class NonMaxSuppression(Op):
    """(image, class, box) of boxes that overlap no better one of their class too much: [count, 3]."""

    def _room(self, node: ir.Node, inputs: Sequence[Facts | None]) -> tuple[int, int]:
        """How many classes there are, over all images, and how many boxes each can keep."""
        boxes, scores = need(node, inputs, 0), need(node, inputs, 1)
        if (
            len(boxes.shape) != 3
            or len(scores.shape) != 3
            or boxes.shape[2] != 4
            or (boxes.shape[0], boxes.shape[1]) != (scores.shape[0], scores.shape[2])
        ):
            raise shape_error(
                node,
                f"boxes {show(boxes.shape)} and scores {show(scores.shape)} are not [N, B, 4] and [N, K, B]",
            )
        most: Facts | None = given(inputs, 2)
        room = boxes.shape[1]
        if most is None:
            room = 0
        elif most.value is not None:
            room = max(0, min(room, int(most.value.reshape(()))))
        return scores.shape[0] * scores.shape[1], room

    def bound(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Bound | None] | None:
        """As many as each class of an image may keep."""
        classes, room = self._room(node, inputs)
        if any(f is not None and f.dtype != np.float32 for i, f in enumerate(inputs) if i != 2):
            return None
        return [Bound(INT64, (classes * room, 3), 0)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The boxes of each class by their scores, one after the other, each against those that are kept."""
        most, overlap, least = (
            None if a is None else a.reshape(()).item() for a in (given(inputs, i) for i in (2, 3, 4))
        )
        centred = bool(attr_int(node, "center_point_box", 0))
        return [
            evaluate_suppression(
                present(inputs, 0), present(inputs, 1), most or 0, overlap or 0.0, least, centred=centred
            )
        ]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A heap for each class of an image, and kernels that count and list what was kept."""
        facts = [None if v is None else plan.facts(v) for v in node.inputs]
        _, room = self._room(node, facts)
        values = [*node.inputs, *[None] * 5][:5]
        boxes, scores, most, overlap, least = (None if v is None else plan.view(v) for v in values)
        assert boxes is not None
        assert scores is not None
        plan.emit(
            suppress(
                boxes,
                scores,
                most or constant(np.zeros((), np.int64)),
                overlap or constant(np.zeros((), np.float32)),
                least,
                room,
                plan.output(node.outputs[0]),
                plan.count,
                plan.machine,
                centred=bool(attr_int(node, "center_point_box", 0)),
            )
        )
        return True


@register("RoiAlign", since=22)
class RoiAlign(Op):
    """Boxes of an image in bins, each the mean (or maximum) of samples between pixels: [R, C, bins, bins]."""

    def _size(self, node: ir.Node) -> tuple[int, int]:
        return attr_int(node, "output_height", 1), attr_int(node, "output_width", 1)

    def _options(self, node: ir.Node) -> tuple[Pooling, bool]:
        mode = attr_str(node, "mode", "avg")
        coordinates = attr_str(node, "coordinate_transformation_mode", "half_pixel")
        if mode not in ("avg", "max") or coordinates not in ("half_pixel", "output_half_pixel"):
            raise ModelError(
                f"{label(node)}: found mode {mode!r} with coordinates {coordinates!r}. Use avg or max, and "
                "half_pixel or output_half_pixel."
            )
        return mode, coordinates == "half_pixel"

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """A bin for each part of each box."""
        x, rois, images = (need(node, inputs, i) for i in range(3))
        if len(x.shape) != 4 or len(rois.shape) != 2 or rois.shape[1] != 4 or images.shape != rois.shape[:1]:
            raise shape_error(
                node,
                f"x {show(x.shape)}, rois {show(rois.shape)} and batch_indices {show(images.shape)} are not "
                "[N, C, H, W], [R, 4] and [R]",
            )
        if 0 in x.shape[2:] and rois.shape[0]:
            raise shape_error(node, f"an image of shape {show(x.shape)} has no pixels")
        self._options(node)
        return [Facts(x.dtype, (rois.shape[0], x.shape[1], *self._size(node)))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """All samples of a box at once, in float64."""
        x, rois, images = (present(inputs, i) for i in range(3))
        mode, half_pixel = self._options(node)
        if images.size and not (int(images.min()) >= 0 and int(images.max()) < len(x)):
            raise InputError(f"{label(node)}: a box names an image that is not there. Check batch_indices.")
        y = evaluate_roi_align(
            x,
            rois,
            images,
            self._size(node),
            mode,
            attr_int(node, "sampling_ratio", 0),
            attr_float(node, "spatial_scale", 1.0),
            half_pixel=half_pixel,
        )
        return [rounded(y, x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One kernel, with vectors along channels."""
        x, rois, images = (plan.view(v) for v in _inputs(node))
        if x.dtype.name not in FLOATS or rois.dtype != x.dtype or images.dtype != np.int64:
            return False
        mode, half_pixel = self._options(node)
        out = plan.output(node.outputs[0], (0, 2, 3, 1), free_order=True)
        scale = constant(np.array(attr_float(node, "spatial_scale", 1.0), wide_of(x.dtype.name)))
        message = f"{label(node)}: a box names an image that is not there. Check batch_indices."
        call = roi_align(
            x,
            rois,
            images,
            out,
            mode,
            attr_int(node, "sampling_ratio", 0),
            scale,
            plan.check(message),
            plan.machine,
            half_pixel=half_pixel,
        )
        plan.emit(call)
        return True


@register("MaxRoiPool", since=22)
class MaxRoiPool(Op):
    """The largest pixels of boxes (image, x, y, x, y) in bins: [R, C, bins, bins]."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """A bin for each part of each box."""
        x, rois = need(node, inputs, 0), need(node, inputs, 1)
        size = attr_ints(node, "pooled_shape") or ()
        if len(x.shape) != 4 or len(rois.shape) != 2 or rois.shape[1] != 5 or len(size) != 2 or min(size) < 1:
            raise shape_error(
                node,
                f"x {show(x.shape)}, rois {show(rois.shape)} and pooled_shape {show(size)} are not "
                "[N, C, H, W], [R, 5] and two sizes",
            )
        return [Facts(x.dtype, (rois.shape[0], x.shape[1], *size))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Bin by bin, all channels at once."""
        x, rois = present(inputs, 0), present(inputs, 1)
        images = rois[:, 0].astype(np.int64)
        if images.size and not (int(images.min()) >= 0 and int(images.max()) < len(x)):
            raise InputError(f"{label(node)}: a box names an image that is not there. Check rois.")
        height, width = attr_ints(node, "pooled_shape") or (1, 1)
        return [evaluate_roi_pool(x, rois, (height, width), attr_float(node, "spatial_scale", 1.0))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One kernel, with vectors along channels."""
        x, rois = (plan.view(v) for v in _inputs(node))
        if x.dtype.name not in FLOATS or rois.dtype != x.dtype:
            return False
        out = plan.output(node.outputs[0], (0, 2, 3, 1), free_order=True)
        scale = constant(np.array(attr_float(node, "spatial_scale", 1.0), wide_of(x.dtype.name)))
        flag = plan.check(f"{label(node)}: a box names an image that is not there. Check rois.")
        plan.emit(roi_pool(x, rois, out, scale, flag, plan.machine))
        return True


def _inputs(node: ir.Node) -> list[ir.Value]:
    return [v for v in node.inputs if v is not None]
