"""Operators that draw random numbers: NumPy's generator draws them, on the host; they are never folded.
With a seed every run of a node draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.ops.numeric import is_float, is_integer
from ingot.ops.registry import (
    Array,
    DType,
    Facts,
    Op,
    attr_float,
    attr_int,
    attr_ints,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)


def _dtype(node: ir.Node, default: DType) -> DType:
    return ir.DataType(attr_int(node, "dtype", 1)).numpy() if "dtype" in node.attributes else default


def _generator(node: ir.Node) -> np.random.Generator:
    if "seed" not in node.attributes:
        return np.random.default_rng()
    return np.random.default_rng(int(np.float32(attr_float(node, "seed", 0.0)).view(np.uint32)))


def _normal(node: ir.Node, shape: tuple[int, ...]) -> Array:
    mean, scale = attr_float(node, "mean", 0.0), attr_float(node, "scale", 1.0)
    return np.asarray(mean + scale * _generator(node).standard_normal(shape))


def _uniform(node: ir.Node, shape: tuple[int, ...], dtype: DType) -> Array:
    """Rounded to `dtype`, and below `high` all the same."""
    low, high = attr_float(node, "low", 0.0), attr_float(node, "high", 1.0)
    with np.errstate(over="ignore"):
        drawn = np.asarray(low + (high - low) * _generator(node).random(shape)).astype(dtype)
        first, last = np.array(low).astype(dtype), np.array(high).astype(dtype)
    if not low < high:
        return drawn
    if last >= high:
        last = np.nextafter(last, first)
    return np.asarray(np.minimum(drawn, last))


def _of_floats(node: ir.Node, dtype: DType) -> DType:
    if not is_float(dtype):
        raise ModelError(f"{label(node)}: it draws floats, not {dtype}. Give it a dtype that is one of them.")
    return dtype


class _Drawn(Op):
    """Numbers in the shape that an attribute gives."""

    random = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The attribute's shape."""
        del inputs
        return [Facts(_of_floats(node, _dtype(node, np.dtype(np.float32))), attr_ints(node, "shape") or ())]


class _DrawnLike(Op):
    """Numbers in the input's shape."""

    random = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The input's shape; dtype by attribute, or the input's."""
        x = need(node, inputs, 0)
        return [Facts(_of_floats(node, _dtype(node, x.dtype)), x.shape)]


@register("RandomNormal", since=22)
class RandomNormal(_Drawn):
    """Normally distributed."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In float64, rounded."""
        del inputs
        shape = attr_ints(node, "shape") or ()
        return [_normal(node, shape).astype(_dtype(node, np.dtype(np.float32)))]


@register("RandomUniform", since=22)
class RandomUniform(_Drawn):
    """Uniformly distributed."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In float64, rounded."""
        del inputs
        shape = attr_ints(node, "shape") or ()
        return [_uniform(node, shape, _dtype(node, np.dtype(np.float32)))]


@register("RandomNormalLike", since=22)
class RandomNormalLike(_DrawnLike):
    """Normally distributed, like the input."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In float64, rounded."""
        x = present(inputs, 0)
        return [_normal(node, x.shape).astype(_dtype(node, x.dtype))]


@register("RandomUniformLike", since=22)
class RandomUniformLike(_DrawnLike):
    """Uniformly distributed, like the input."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In float64, rounded."""
        x = present(inputs, 0)
        return [_uniform(node, x.shape, _dtype(node, x.dtype))]


@register("Bernoulli", since=22)
class Bernoulli(Op):
    """1 with the probability that each element gives."""

    random = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The input's shape; dtype by attribute, or the input's."""
        x = need(node, inputs, 0)
        return [Facts(_dtype(node, x.dtype), x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A number of 0 … 1 for each element is below it, or not."""
        x = present(inputs, 0)
        drawn = _uniform(node, x.shape, np.dtype(np.float64))
        return [np.asarray(drawn < x.astype(np.float64)).astype(_dtype(node, x.dtype))]


@register("Multinomial", since=22)
class Multinomial(Op):
    """Indices drawn by the log-probabilities of each row."""

    random = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """[batch, sample_size], int32 by default."""
        x = need(node, inputs, 0)
        if len(x.shape) != 2 or not x.shape[1]:
            raise shape_error(node, f"the input has shape {show(x.shape)}, and must be [batch, classes]")
        dtype = _dtype(node, np.dtype(np.int32))
        if not is_integer(dtype):
            raise ModelError(
                f"{label(node)}: it draws indices, not {dtype}. Give it int32 or int64 for dtype."
            )
        return [Facts(dtype, (x.shape[0], attr_int(node, "sample_size", 1)))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Where a number of 0 … 1 falls among the sums of the row's probabilities."""
        x = present(inputs, 0).astype(np.float64)
        highest = x.max(1, keepdims=True)
        sums = np.cumsum(np.exp(x - np.where(np.isfinite(highest), highest, 0.0)), 1)
        drawn = _generator(node).random((x.shape[0], attr_int(node, "sample_size", 1))) * sums[:, -1:]
        found = (sums[:, None, :] <= drawn[:, :, None]).sum(-1)
        return [np.minimum(found, x.shape[1] - 1).astype(_dtype(node, np.dtype(np.int32)))]
