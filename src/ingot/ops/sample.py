"""GridSample: interpolation at places that the data gives, evaluated for all places at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    attr_int,
    attr_str,
    need,
    present,
    register,
    shape_error,
    show,
)

Outputs = list[Facts | None] | None
_FAR = 2.0**30  # a coordinate beyond any size that still fits an index


@register("GridSample", since=22)
class GridSample(Op):
    """x [N, C, sizes...] at grid [N, places..., coordinates in -1..1, the last dimension's first]."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[N, C, places...]."""
        x, grid = need(node, inputs, 0), need(node, inputs, 1)
        dims = len(x.shape) - 2
        if dims < 1 or len(grid.shape) != dims + 2 or grid.shape[-1] != dims or grid.shape[0] != x.shape[0]:
            raise shape_error(
                node,
                f"x {show(x.shape)} wants a grid [{x.shape[0] if x.shape else 'N'}, places of {dims} "
                f"dimensions, {dims}], found {show(grid.shape)}",
            )
        return [Facts(x.dtype, (*x.shape[:2], *grid.shape[1:-1]))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A sum over the neighbours of each place; coordinates in the grid's own precision."""
        x, grid = present(inputs, 0), present(inputs, 1)
        mode, padding = attr_str(node, "mode", "linear"), attr_str(node, "padding_mode", "zeros")
        corners = bool(attr_int(node, "align_corners", 0))
        images, channels, *sizes = x.shape
        places = grid.shape[1:-1]
        if 0 in x.shape or 0 in grid.shape:
            return [np.zeros((images, channels, *places), x.dtype)]
        points = grid.reshape(images, -1, len(sizes))[..., ::-1]
        data = widen(x).reshape(images, channels, -1)
        result = np.zeros((images, channels, points.shape[1]), data.dtype)
        with np.errstate(all="ignore"):
            axes = [_neighbours(points[..., d], size, mode, padding, corners) for d, size in enumerate(sizes)]
            for chosen in itertools.product(*axes):
                at, weight = np.zeros(points.shape[:2], np.int64), np.ones(points.shape[:2])
                for (index, share), size in zip(chosen, sizes, strict=True):
                    at, weight = at * size + index, weight * share
                taken = np.take_along_axis(data, at[:, None], axis=2)
                weight = weight[:, None]
                result += np.where(weight == 0, 0, taken * weight)  # no NaN from what is only padding
        return [rounded(result.reshape(images, channels, *places), x.dtype)]


def _neighbours(
    place: Array, size: int, mode: str, padding: str, corners: bool
) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Indices along one axis and their weights; a neighbour that is padding has weight 0."""
    one, two = place.dtype.type(1), place.dtype.type(2)
    low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
    if corners:
        exact = (place + one) / two * place.dtype.type(size - 1)
    else:
        exact = ((place + one) * place.dtype.type(size) - one) / two
    at: np.ndarray[Any, Any] = exact.astype(np.float64)
    if mode == "nearest":
        at = np.rint(at)
    if padding == "border":
        at = np.where((at < low) | (at > high), np.clip(at, 0, size - 1), at)
    elif padding == "reflection":
        at = _reflected(at, low, high)
    at = np.clip(np.nan_to_num(at, nan=-_FAR), -_FAR, _FAR)
    if mode == "nearest":
        return [_inside(at, np.ones(at.shape), size, padding, low, high)]
    start = np.floor(at)
    t = at - start
    if mode == "linear":
        weights = [1 - t, t]
    else:  # Keys' cubic with a = -0.75, as in PyTorch
        near, far = _near(t), _far(1 + t)
        weights = [far, near, _near(1 - t), _far(2 - t)]
    first = 0 if mode == "linear" else -1
    return [_inside(start + first + i, w, size, padding, low, high) for i, w in enumerate(weights)]


def _near(t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (1.25 * t - 2.25) * t * t + 1


def _far(t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return ((-0.75 * t + 3.75) * t - 6) * t + 3


def _inside(
    index: np.ndarray[Any, Any],
    weight: np.ndarray[Any, Any],
    size: int,
    padding: str,
    low: float,
    high: float,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    if padding == "zeros":
        weight = np.where((index >= 0) & (index < size), weight, 0)
    elif padding == "reflection":
        index = _reflected(index, low, high)
    return np.clip(index, 0, size - 1).astype(np.int64), weight


def _reflected(at: np.ndarray[Any, Any], low: float, high: float) -> np.ndarray[Any, Any]:
    """Mirrored at both ends until it lies between them."""
    if high == low:
        return np.full_like(at, low)
    span = high - low
    inside = np.mod(at - low, 2 * span)
    return np.where((at >= low) & (at <= high), at, low + np.minimum(inside, 2 * span - inside))
