"""Operators that draw random numbers. onnx.reference evaluates them; they are never folded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.ops.registry import DType, Facts, Op, attr_int, attr_ints, need, register, shape_error, show


def _dtype(node: ir.Node, default: DType) -> DType:
    return ir.DataType(attr_int(node, "dtype", 1)).numpy() if "dtype" in node.attributes else default


class _Drawn(Op):
    """Numbers in the shape that an attribute gives."""

    random = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The attribute's shape."""
        del inputs
        return [Facts(_dtype(node, np.dtype(np.float32)), attr_ints(node, "shape") or ())]


class _DrawnLike(Op):
    """Numbers in the input's shape."""

    random = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The input's shape; dtype by attribute, or the input's."""
        x = need(node, inputs, 0)
        return [Facts(_dtype(node, x.dtype), x.shape)]


@register("RandomNormal", since=22)
class RandomNormal(_Drawn):
    """Normally distributed."""


@register("RandomUniform", since=22)
class RandomUniform(_Drawn):
    """Uniformly distributed."""


@register("RandomNormalLike", since=22)
class RandomNormalLike(_DrawnLike):
    """Normally distributed, like the input."""


@register("RandomUniformLike", since=22)
class RandomUniformLike(_DrawnLike):
    """Uniformly distributed, like the input."""


@register("Bernoulli", since=22)
class Bernoulli(_DrawnLike):
    """1 with the probability that each element gives."""


@register("Multinomial", since=22)
class Multinomial(Op):
    """Indices drawn by the log-probabilities of each row."""

    random = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """[batch, sample_size], int32 by default."""
        x = need(node, inputs, 0)
        if len(x.shape) != 2:
            raise shape_error(node, f"the input has shape {show(x.shape)}, and must be [batch, classes]")
        return [Facts(_dtype(node, np.dtype(np.int32)), (x.shape[0], attr_int(node, "sample_size", 1)))]
