"""Denormal biases: what the packing of weights does for weights, for what is added to the products.

A channel whose weights and bias have all decayed to denormal numbers is computed as zero then; whatever
follows the addition would take a hundred cycles for each of its elements. For sessions only.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ingot.passes.edit import add_initializer, constant_of, graphs_of

#: The operators whose third input is a bias.
_BIASED = frozenset({"Conv", "ConvTranspose", "Gemm"})
#: Denormal numbers (below 2^-126) count as zero where the largest of a bias is at least this.
_LEAST_LARGEST = 2.0**-100


def flush_biases(model: ir.Model) -> int:
    """Replaces denormal float32 numbers in constant biases by zeros, in place; returns how many biases.

    requires: nothing. ensures: no bias whose largest number is at least 2^-100 has a denormal one; those
    were below 2^-26 of it.
    """
    count = 0
    for graph in graphs_of(model):
        for node in graph:
            if node.op_type not in _BIASED or node.domain != "" or len(node.inputs) < 3:
                continue
            bias = constant_of(node.inputs[2])
            if bias is None or bias.dtype != np.float32 or bias.size == 0:
                continue
            sizes = np.abs(bias)
            is_denormal = (sizes > 0) & (sizes < np.finfo(np.float32).tiny)
            if is_denormal.any() and sizes.max() >= _LEAST_LARGEST:
                flushed = ir.Tensor(np.where(is_denormal, np.float32(0), bias))
                node.replace_input_with(2, add_initializer(graph, "bias", flushed))
                count += 1
    return count
