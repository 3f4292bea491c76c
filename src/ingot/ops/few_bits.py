"""Weights of a few bits in blocks, each with a scale of its own (com.microsoft)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

from ingot.kernels.call import View as Memory
from ingot.kernels.call import constant
from ingot.kernels.contract import name_of
from ingot.kernels.copy import copy
from ingot.kernels.few_bits import few_bits, supports
from ingot.kernels.few_bits_integers import definition as bytes_definition
from ingot.kernels.few_bits_integers import few_bits_integers, pack_few_bits
from ingot.kernels.few_bits_integers import supports as supports_bytes
from ingot.kernels.gemm import matmul
from ingot.kernels.pack import pack_weights
from ingot.ops.contrib_quantized import along_last
from ingot.ops.lowering import Lowering
from ingot.ops.nodes import input_at
from ingot.ops.numeric import FLOAT32, unpacked
from ingot.ops.registry import (
    Array,
    DType,
    Facts,
    Op,
    Outputs,
    attr_int,
    given,
    need,
    normal_axis,
    present,
    register,
    shape_error,
    show,
)

_DOMAIN = "com.microsoft"


@register("MatMulNBits", since=1, domain=_DOMAIN)
class MatMulNBits(Op):
    """a @ b for weights of `bits` bits: a [..., K], b [N, blocks, bytes], scales [N, blocks], zero points
    (packed bytes, or of the scales' dtype), g_idx [K] (which block each row of b belongs to), bias [N].

    accuracy_level 4 allows rows of a to become bytes, as ONNX Runtime then does; else they stay floats.
    """

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[..., N], of a's dtype."""
        a, depth = need(node, inputs, 0), attr_int(node, "K", 0)
        if not a.shape or a.shape[-1] != depth:
            raise shape_error(node, f"the input {show(a.shape)} must end in K = {depth}")
        return [Facts(a.dtype, (*a.shape[:-1], attr_int(node, "N", 0)))]

    def weights(self, node: ir.Node, inputs: Sequence[Array | None]) -> Array:
        """The matrix [K, N] in float32."""
        depth, n = attr_int(node, "K", 0), attr_int(node, "N", 0)
        bits, block = attr_int(node, "bits", 4), attr_int(node, "block_size", 32)
        blocks = -(-depth // block)
        whole = unpacked(present(inputs, 1).reshape(n, blocks, -1), bits)[..., :block].astype(np.float32)
        scales, zeros = present(inputs, 2).reshape(n, blocks).astype(np.float32), given(inputs, 3)
        if zeros is None:
            zero = np.full((n, blocks), 1 << (bits - 1), np.float32)
        elif zeros.dtype == np.uint8:
            zero = unpacked(zeros.reshape(n, -1), bits)[:, :blocks].astype(np.float32)
        else:
            zero = zeros.reshape(n, blocks).astype(np.float32)
        groups = given(inputs, 4)
        if groups is not None:
            rows = whole.reshape(n, -1)[:, :depth]
            return ((rows - zero[:, groups[:depth]]) * scales[:, groups[:depth]]).T
        return ((whole - zero[..., None]) * scales[..., None]).reshape(n, -1)[:, :depth].T

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A product in float64, rounded once; of bytes where a's rows become those."""
        a, bias = present(inputs, 0), given(inputs, 5)
        dtypes = [None if v is None else v.dtype for v in [*inputs, *[None] * 3][:5]]
        if _rows_become_bytes(node, dtypes):
            w, scales, zeros = _parts(node, [v for v in inputs[1:4] if v is not None])
            y = bytes_definition(a.reshape(-1, a.shape[-1]), w, scales, zeros).reshape(*a.shape[:-1], -1)
        else:
            y = a.astype(np.float64) @ self.weights(node, inputs).astype(np.float64)
        return [(y if bias is None else y + bias.astype(np.float64)).astype(a.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A product with constant weights, dequantised when they are packed."""
        a, value, bias = node.inputs[0], node.outputs[0], input_at(node, 5)
        arrays = [None, *(plan.constant(input_at(node, i)) for i in range(1, 5))]
        missing = [i for i in range(1, 5) if arrays[i] is None and input_at(node, i) is not None]
        assert a is not None
        if (
            missing
            or name_of(plan.facts(a).dtype) not in ("float32", "float16")
            or len(plan.facts(a).shape) < 2
        ):
            return False
        own = all(v is None or v.is_initializer() for v in node.inputs[1:5])
        key = ("few bits", node.inputs[1], *(input_at(node, i) for i in (2, 3, 4))) if own else None
        rows_as = self._takes_bits(node, plan, a)
        if rows_as is not None:
            known = [array for array in arrays[1:] if array is not None]
            return self._lower_bits(node, plan, a, known, key, rows_as)
        machine, source = plan.machine, plan.view(a)
        packed = plan.pack(key, lambda: pack_weights(self.weights(node, arrays), machine))
        facts = plan.facts(value)
        product = value if bias is None else plan.intermediate(facts.shape, facts.dtype)
        plan.anchor(product, lambda out, epilogue: matmul(source, packed, out, epilogue, machine))
        return bias is None or plan.wait(value, "Add", [product, along_last(plan, bias, len(facts.shape))])

    def _takes_bits(self, node: ir.Node, plan: Lowering, a: ir.Value) -> Literal["floats", "bytes"] | None:
        """As what the rows of a meet weights that are read as they are, if they are: four bits, and few rows
        or rows that may be bytes.
        """
        facts, block = plan.facts(a), attr_int(node, "block_size", 32)
        dtypes = [None if v is None else plan.facts(v).dtype for v in [*node.inputs, *[None] * 3][:5]]
        rows = math.prod(facts.shape[:-1])
        if rows and _rows_become_bytes(node, dtypes):
            return "bytes"
        plain = attr_int(node, "bits", 4) == 4 and dtypes[4] is None and facts.dtype == dtypes[2] == FLOAT32
        return "floats" if plain and supports(rows, facts.shape[-1], block, plan.machine) else None

    def _lower_bits(
        self,
        node: ir.Node,
        plan: Lowering,
        a: ir.Value,
        arrays: Sequence[Array],
        key: Hashable,
        rows_as: Literal["floats", "bytes"],
    ) -> bool:
        """A kernel that widens the weights in registers."""
        value, bias, machine = node.outputs[0], input_at(node, 5), plan.machine
        n, depth, block = attr_int(node, "N", 0), attr_int(node, "K", 0), attr_int(node, "block_size", 32)

        def kept() -> list[Memory]:
            w, scales, zeros = _parts(node, arrays)
            floats = [scales] if zeros is None else [scales, zeros.astype(np.float32)]
            return [constant(np.ascontiguousarray(array)) for array in (w, *floats)]

        rows, facts = math.prod(plan.facts(a).shape[:-1]), plan.facts(value)
        source = plan.plain(a)
        product = value if bias is None else plan.intermediate(facts.shape, facts.dtype)
        out = plan.output(product)
        flat = out.reshape((rows, n))
        target = plan.temporary((rows, n), FLOAT32) if flat is None or flat.strides[1] != 1 else flat
        if rows_as == "bytes":
            own = None if key is None else ("rows as bytes", key)
            packed = plan.pack(own, lambda: pack_few_bits(*_parts(node, arrays), block, machine))
            plan.emit(few_bits_integers(source.with_dims((rows, depth), (depth, 1)), packed, target, machine))
        else:
            weights, scales, *zeros = plan.pack(None if key is None else ("as they are", key), kept)
            shape = (rows, depth // (2 * machine.lanes), 2, machine.lanes)
            halves = plan.copied(source.with_dims(shape, (depth, 2 * machine.lanes, 1, 2)))
            plan.emit(few_bits(halves, weights, scales, zeros[0] if zeros else None, target, block, machine))
        if target is not flat:
            whole = target.reshape(facts.shape)
            assert whole is not None
            plan.emit(copy(whole, out, machine))
        return bias is None or plan.wait(value, "Add", [product, along_last(plan, bias, len(facts.shape))])


def _rows_become_bytes(node: ir.Node, dtypes: Sequence[DType | None]) -> bool:
    """Whether a MatMulNBits of inputs of these dtypes (rows, weights, scales, zero points, groups) multiplies
    bytes: its accuracy level allows it, and weights are of four bits, as are their zero points.
    """
    a, _, scales, zeros, groups = dtypes
    allowed = attr_int(node, "accuracy_level", 0) == 4 and attr_int(node, "bits", 4) == 4
    plain = groups is None and a == scales == FLOAT32 and zeros in (None, np.uint8)
    return allowed and plain and supports_bytes(attr_int(node, "K", 0), attr_int(node, "block_size", 32))


def _parts(node: ir.Node, arrays: Sequence[Array]) -> tuple[Array, Array, Array | None]:
    """Weights of four bits, scales and zero points, a row for each column."""
    n = attr_int(node, "N", 0)
    w, scales = arrays[0].reshape(n, -1), arrays[1].reshape(n, -1)
    zeros = arrays[2].reshape(n, -1) if len(arrays) > 2 else None
    if zeros is not None and zeros.dtype == np.uint8:
        zeros = unpacked(zeros, 4)[:, : scales.shape[1]]
    return w, scales, zeros


@register("GatherBlockQuantized", since=1, domain=_DOMAIN)
class GatherBlockQuantized(Op):
    """Rows of a table of integers, dequantised: data, indices, scales, zero points. Data of uint8 holds
    numbers of `bits` bits, the lowest first; blocks lie along quantize_axis.
    """

    def _geometry(self, node: ir.Node, data: Facts | Array) -> tuple[int, int, int, int]:
        """How many numbers a byte holds, and gather_axis, quantize_axis, block_size."""
        rank = len(data.shape)
        bits = attr_int(node, "bits", 4)
        per_byte = 8 // bits if data.dtype == np.uint8 else 1
        axes = [normal_axis(node, attr_int(node, name, d), rank) for name, d in
                (("gather_axis", 0), ("quantize_axis", 1))]  # fmt: skip
        return per_byte, axes[0], axes[1], attr_int(node, "block_size", 128)

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The indices' shape in the place of the gathered axis; the scales' dtype."""
        data, indices, scales = (need(node, inputs, i) for i in range(3))
        per_byte, axis, _, _ = self._geometry(node, data)
        shape = (*data.shape[:-1], data.shape[-1] * per_byte)
        return [Facts(scales.dtype, (*shape[:axis], *indices.shape, *shape[axis + 1 :]))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Gathered before it is dequantised, where the blocks allow it."""
        data, indices, scales, zeros = *(present(inputs, i) for i in range(3)), given(inputs, 3)
        per_byte, axis, blocked, block = self._geometry(node, data)
        bits = attr_int(node, "bits", 4)

        def rows(array: Array) -> Array:
            return np.take(array, indices, axis)

        def repeat(array: Array, size: int) -> Array:
            return np.repeat(array, block, blocked).take(range(size), blocked)

        size = data.shape[blocked] * (per_byte if blocked == data.ndim - 1 else 1)
        whole: Array = data if per_byte == 1 else unpacked(data, bits)
        if zeros is None:
            zero: Array = np.full(scales.shape, 1 << (bits - 1) if data.dtype == np.uint8 else 0, np.float32)
        else:
            zero = zeros if per_byte == 1 else unpacked(zeros, bits)[..., : scales.shape[-1]]
        real = rows(whole).astype(np.float32) - rows(repeat(zero.astype(np.float32), size))
        return [(real * rows(repeat(scales, size)).astype(np.float32)).astype(scales.dtype)]
