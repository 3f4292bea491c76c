"""Denormal biases: what the packing of weights does for weights, for what is added to the products.

A channel whose weights and bias have all decayed to denormal numbers is computed as zero then; whatever
follows the addition would take a hundred cycles for each of its elements. For sessions only.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ingot.passes.edit import add_initializer, constant_of, graphs_of

#: The operators whose third input is a bias, and those whose result may have one added.
_BIASED = frozenset({"Conv", "ConvTranspose", "Gemm"})
_PRODUCTS = _BIASED | {"MatMul"}
_LEAST_NORMAL = np.float32(2.0**-126)
#: Denormal numbers (below that) count as zero where the largest of a bias is at least this.
_LEAST_LARGEST = 2.0**-100


def flush_biases(model: ir.Model) -> int:
    """Replaces denormal float32 numbers in constant biases by zeros, in place; returns how many biases.

    requires: nothing. ensures: no bias whose largest number is at least 2^-100 has a denormal one; those
    were below 2^-26 of it.
    """
    count = 0
    for graph in graphs_of(model):
        for node in graph:
            place = _place_of_bias(node)
            bias = None if place is None else constant_of(node.inputs[place])
            if place is None or bias is None or bias.dtype != np.float32 or bias.size == 0:
                continue
            sizes = np.abs(bias)
            if sizes.min() >= _LEAST_NORMAL:  # as nearly always
                continue
            is_denormal = (sizes > 0) & (sizes < _LEAST_NORMAL)
            if is_denormal.any() and sizes.max() >= _LEAST_LARGEST:
                flushed = ir.Tensor(np.where(is_denormal, np.float32(0), bias))
                node.replace_input_with(place, add_initializer(graph, "bias", flushed))
                count += 1
    return count


def _place_of_bias(node: ir.Node) -> int | None:
    """Which input is added to a product: the node's own, or one that it gets."""
    if node.domain != "":
        return None
    if node.op_type in _BIASED and len(node.inputs) > 2:
        return 2
    if node.op_type == "Add":
        for place in (0, 1):
            product = node.inputs[1 - place]
            maker = None if product is None else product.producer()
            if maker is not None and maker.op_type in _PRODUCTS and maker.domain == "":
                return place
    return None
