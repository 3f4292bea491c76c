"""Products of matrices, and determinants: MatMul, Gemm, Det. Floats are multiplied in float64 and rounded
once.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import FLOATS
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call
from ingot.kernels.call import View as Memory
from ingot.kernels.contract import Epilogue, name_of
from ingot.kernels.contraction import DTYPES, Matrices, multiply, pack_matrices
from ingot.kernels.copy import copy
from ingot.kernels.determinant import determinant, evaluate_determinant
from ingot.kernels.gemm import matmul
from ingot.kernels.made_again import remembered
from ingot.kernels.pack import PackedWeights, pack_weights
from ingot.kernels.sliced import FEWEST_ROWS, cycles, direct_cycles, slice_matrix, sliced_matmul
from ingot.kernels.slices import SlicedWeights
from ingot.kernels.strassen import PanelSums, pack_sums, packed_matmul, pays
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_float,
    attr_int,
    broadcast,
    first_input,
    given,
    is_weight,
    need,
    one_dtype,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.sums import dequantized_matmul


def matmul_shape(node: ir.Node, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of NumPy's matmul: vectors get a dimension that the result drops again, the others
    broadcast.
    """
    if not a or not b:
        raise shape_error(node, f"inputs {show(a)} and {show(b)}: a scalar cannot be multiplied as a matrix")
    left = a if len(a) > 1 else (1, *a)
    right = b if len(b) > 1 else (*b, 1)
    if left[-1] != right[-2]:
        raise shape_error(node, f"inputs {show(a)} and {show(b)}: {left[-1]} columns meet {right[-2]} rows")
    batch = left[:-2] if left[:-2] == right[:-2] else broadcast(node, left[:-2], right[:-2])
    rows = () if len(a) == 1 else (left[-2],)
    columns = () if len(b) == 1 else (right[-1],)
    return batch + rows + columns


@register("MatMul", since=13)
class MatMul(Op):
    """a @ b, as np.matmul."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """See `matmul_shape`."""
        a, b = need(node, inputs, 0), need(node, inputs, 1)
        if a.dtype != b.dtype:
            one_dtype(node, inputs)
        return [Facts(a.dtype, matmul_shape(node, a.shape, b.shape))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.matmul."""
        a, b = present(inputs, 0), present(inputs, 1)
        with np.errstate(all="ignore"):
            return [rounded(np.matmul(widen(a), widen(b)), a.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Generated products; vectors as matrices of one row or column."""
        a, b = first_input(node), node.inputs[1]
        assert b is not None
        value = node.outputs[0]
        if name_of(plan.facts(a).dtype) not in DTYPES:
            return False
        a_rank, b_rank = len(plan.facts(a).shape), len(plan.facts(b).shape)
        if dequantized_matmul(plan, value, a, b):
            return True
        if a_rank > 1 and b_rank > 1:
            product(plan, value, plan.view(a), b)
            return True
        left, right = plan.view(a), plan.view(b)
        if a_rank == 1:
            left = left.with_dims((1, *left.shape), (0, *left.strides))
        if b_rank == 1:
            right = right.with_dims((*right.shape, 1), (*right.strides, 0))
        out = plan.output(value)
        shape, strides = list(out.shape), list(out.strides)
        if a_rank == 1:
            at = len(shape) - (b_rank > 1)
            shape.insert(at, 1)
            strides.insert(at, 0)
        if b_rank == 1:
            shape.append(1)
            strides.append(1)
        out = out.with_dims(shape, strides)
        if in_float32(out.dtype):
            plan.emit(matmul(left, right, out, None, plan.machine))
        else:
            plan.emit(multiply(left, right, out, plan.machine))
        return True


@register("Gemm", since=13)
class Gemm(Op):
    """alpha · a' @ b' + beta · c, with a' and b' transposed where the node says so."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[rows of a', columns of b']; c must broadcast to it."""
        a, b, c = need(node, inputs, 0), need(node, inputs, 1), given(inputs, 2)
        if len(a.shape) != 2 or len(b.shape) != 2:
            raise shape_error(node, f"inputs {show(a.shape)} and {show(b.shape)} must both be matrices")
        one_dtype(node, inputs)
        m, k = a.shape[::-1] if attr_int(node, "transA", 0) else a.shape
        k2, n = b.shape[::-1] if attr_int(node, "transB", 0) else b.shape
        if k != k2:
            raise shape_error(node, f"inputs {show(a.shape)} and {show(b.shape)}: {k} columns meet {k2} rows")
        if c is not None and c.shape != (n,) and broadcast(node, c.shape, (m, n)) != (m, n):
            raise shape_error(node, f"the third input {show(c.shape)} does not broadcast to {show((m, n))}")
        return [Facts(a.dtype, (m, n))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """All of it in float64; an integer Gemm with factors of 1 stays in its own type."""
        a, b, c = present(inputs, 0), present(inputs, 1), given(inputs, 2)
        left = widen(a).T if attr_int(node, "transA", 0) else widen(a)
        right = widen(b).T if attr_int(node, "transB", 0) else widen(b)
        alpha, beta = attr_float(node, "alpha", 1.0), attr_float(node, "beta", 1.0)
        with np.errstate(all="ignore"):
            y = left @ right
            y = y if alpha == 1.0 else y * alpha
            if c is not None:
                y = y + (widen(c) if beta == 1.0 else widen(c) * beta)
            return [rounded(y, a.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A product; alpha goes into constant weights, the third input becomes a step after it. Factors of
        integers are the host's.
        """
        a, b = first_input(node), node.inputs[1]
        c = node.inputs[2] if len(node.inputs) > 2 else None
        assert b is not None
        value = node.outputs[0]
        facts = plan.facts(value)
        alpha, beta = attr_float(node, "alpha", 1.0), attr_float(node, "beta", 1.0)
        if name_of(facts.dtype) not in DTYPES or (facts.dtype.kind in "iu" and not alpha == beta == 1.0):
            return False
        transposed_a, transposed = (bool(attr_int(node, name, 0)) for name in ("transA", "transB"))
        whole = value if c is None or beta == 0.0 else plan.intermediate(facts.shape, facts.dtype)
        if dequantized_matmul(
            plan, whole, a, b, transposed_a=transposed_a, transposed=transposed, alpha=alpha
        ):
            if whole is not value:
                assert c is not None
                plan.wait(value, "Add", [whole, _times(plan, c, beta)])
            return True
        steps: list[tuple[str, ir.Value]] = []  # what follows the product
        constant = plan.facts(b).is_known
        if alpha != 1.0 and not constant:
            steps.append(("Mul", plan.known(np.array(alpha, facts.dtype))))
        if c is not None and beta != 0.0:
            steps.append(("Add", _times(plan, c, beta)))
        left = plan.view(a)
        if transposed_a:
            left = left.transpose((1, 0))
        so_far = value if not steps else plan.intermediate(facts.shape, facts.dtype)
        product(plan, so_far, left, b, transposed=transposed, scale=alpha if constant else 1.0)
        for i, (op, operand) in enumerate(steps, 1):
            target = value if i == len(steps) else plan.intermediate(facts.shape, facts.dtype)
            plan.wait(target, op, [so_far, operand])
            so_far = target
        return True


def _times(plan: Lowering, value: ir.Value, number: float) -> ir.Value:
    """`value` · number."""
    if number == 1.0:
        return value
    facts = plan.facts(value)
    result = plan.intermediate(facts.shape, facts.dtype)
    plan.wait(result, "Mul", [value, plan.known(np.array(number, facts.dtype))])
    return result


def in_float32(dtype: np.dtype[Any]) -> bool:
    """Whether products are those of the register tile of float32."""
    return name_of(dtype) in ("float32", "float16", "bfloat16")


def product(
    plan: Lowering,
    value: ir.Value,
    a: Memory,
    b: ir.Value,
    *,
    transposed: bool = False,
    scale: float = 1.0,
) -> None:
    """`value` = a @ b, waiting for what follows it; b, if constant, transposed and scaled."""
    machine = plan.machine
    if not in_float32(a.dtype):
        plan.emit(multiply(a, _wide_factor(plan, b, transposed, scale), plan.output(value), machine))
        return
    slices = _slices(plan, a, b, transposed, scale)
    if slices is None:
        right = _factor(plan, b, transposed, scale)
        key = ("sums", b, transposed, scale) if is_weight(b) else None
        sums = strassen_sums(plan, a, right, key)

        def multiplied(out: Memory, epilogue: Epilogue | None) -> list[Call]:
            if isinstance(right, PackedWeights):
                return packed_matmul(a, right, sums, out, epilogue, machine)
            return matmul(a, right, out, epilogue, machine)

        plan.anchor(value, multiplied)
        return

    def emit(out: Memory, epilogue: Epilogue | None) -> list[Call]:
        calls = sliced_matmul(a, slices, out, epilogue, machine)
        return (
            matmul(a, _factor(plan, b, transposed, scale), out, epilogue, machine) if calls is None else calls
        )

    plan.anchor(value, emit)


def _factor(plan: Lowering, b: ir.Value, transposed: bool, scale: float) -> PackedWeights | Memory:
    """The second factor of a product: packed once for the session where it is constant."""
    weights = plan.weights(b)
    if weights is None:
        return plan.view(b).swapped() if transposed else plan.view(b)
    return plan.pack(
        ("factor", b, transposed, scale) if is_weight(b) else None,
        lambda: pack_weights(_scaled(weights.read(), transposed, scale), plan.machine),
    )


def strassen_sums(
    plan: Lowering, a: Memory, packed: PackedWeights | Matrices | Memory, key: Hashable
) -> PanelSums | None:
    """What Strassen's scheme wants beside a packed second factor, where it is faster than a plain product
    with `a` and the session has memory for it. key: of the weights; None where they do not last.
    """
    if not isinstance(packed, PackedWeights) or math.prod(packed.batch) != 1:
        return None
    if a.dtype != np.float32 or a.strides[-1] != 1:
        return None
    if not pays(math.prod(a.shape[:-1]), packed.k, packed.n, plan.machine):
        return None
    return plan.afford(
        key,
        packed.view.size * packed.view.dtype.itemsize,
        lambda: pack_sums(packed, plan.machine),
    )


def _wide_factor(plan: Lowering, b: ir.Value, transposed: bool, scale: float) -> Matrices | Memory:
    """The same for the dtypes that are not computed in float32."""
    weights = plan.weights(b)
    if weights is None:
        return plan.view(b).swapped() if transposed else plan.view(b)
    return plan.pack(
        ("matrices", b, transposed, scale) if is_weight(b) else None,
        lambda: pack_matrices(_scaled(weights.read(), transposed, scale), plan.machine),
    )


def _scaled(array: Array, transposed: bool, scale: float) -> Array:
    matrix = np.swapaxes(array, -1, -2) if transposed else array
    return matrix if scale == 1.0 else matrix * array.dtype.type(scale)


def _slices(plan: Lowering, a: Memory, b: ir.Value, transposed: bool, scale: float) -> SlicedWeights | None:
    """The constant second factor in slices, where tile registers are faster than vectors."""
    weights, machine = plan.weights(b), plan.machine
    if weights is None or not (plan.options.amx and machine.tiles) or a.dtype != np.float32:
        return None
    matrix = weights.shape[-2:]
    if weights.dtype != np.float32 or math.prod(weights.shape[:-2]) != 1 or a.strides[-1] != 1:
        return None
    depth, columns = matrix[::-1] if transposed else matrix
    if not _slices_pay(math.prod(a.shape[:-1]), depth, columns, machine):
        return None
    return plan.pack(
        ("slices", b, transposed, scale) if is_weight(b) else None,
        lambda: slice_matrix(_scaled(weights.read().reshape(matrix), transposed, scale), machine),
    )


@remembered(4096, "decision")  # layers that are alike, and shapes that come again
def _slices_pay(rows: int, depth: int, columns: int, machine: Machine) -> bool:
    out_shape = (1, columns, rows, 1)
    return rows >= FEWEST_ROWS and cycles(out_shape, depth) <= direct_cycles(out_shape, depth, machine)


@register("Det", since=22)
class Det(Op):
    """Determinants of the matrices in the last two dimensions."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The shape without them."""
        x = need(node, inputs, 0)
        if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
            raise shape_error(node, f"{show(x.shape)} are no square matrices")
        return [Facts(x.dtype, x.shape[:-2])]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.linalg.det, in float64."""
        x = present(inputs, 0)
        return [rounded(evaluate_determinant(x), x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Elimination, a matrix at a time."""
        x = plan.plain(first_input(node))
        if name_of(x.dtype) not in FLOATS:
            return False
        out = plan.output(node.outputs[0])
        target = out if out.is_contiguous else plan.temporary(out.shape, out.dtype)
        plan.emit(determinant(x, target, plan.machine))
        if target is not out:
            plan.emit(copy(target, out, plan.machine))
        return True
