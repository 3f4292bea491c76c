"""Matrix products: linear layers, matmul, bmm, addmm, einsum, outer and inner products."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.elementwise import is_held
from ingot.capture.aten.registry import composed, row, whole
from ingot.capture.fakes import checked
from ingot.capture.tensors import inner_dtype
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor


def _fake_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if weight.dim() != 2 or input.dim() < 2 or input.dtype != weight.dtype:
        return torch.nn.functional.linear(input, weight, bias)
    checked(input, -1, weight.shape[1], "the linear layer")
    return torch.empty([*input.shape[:-1], weight.shape[0]], dtype=input.dtype, device=input.device)


@whole(torch.nn.functional.linear, meta=_fake_linear)
@row("linear")
def linear(g: Recorder, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> ir.Value:
    """x Wᵀ + b: Gemm for matrices, else MatMul with the weight transposed as a constant, then Add."""
    if input.dim() == 2 and weight.dim() == 2 and out.dtype.is_floating_point:
        operands = [g.val(input), g.val(weight)]
        return g.op("Gemm", *operands, *([g.val(bias)] if bias is not None else []), transB=1)
    w = g.transposed(weight) if weight.dim() == 2 else g.val(weight)
    product = _product(g, g.val(input), w, out.dtype)
    return product if bias is None else g.op("Add", product, g.val(bias))


# Whole numbers that ONNX multiplies no matrices of.
_NARROW = (torch.int8, torch.uint8, torch.int16, torch.uint16)


def _product(g: Recorder, a: ir.Value, b: ir.Value, dtype: torch.dtype) -> ir.Value:
    """Matrix product; what narrow whole numbers keep of it are its last bits."""
    wide = torch.int32 if dtype in _NARROW else dtype
    return g.cast(g.op("MatMul", g.cast(a, dtype, wide), g.cast(b, dtype, wide)), wide, dtype)


@whole(torch.matmul, Tensor.matmul, Tensor.__matmul__)
@row("mm", "bmm", "mv", "dot", "matmul")
def matmul(g: Recorder, out: Tensor, input: Tensor, other: Tensor) -> ir.Value:
    """Matrix product with broadcast batch axes, as NumPy."""
    return _product(g, g.val(input), g.val(other), out.dtype)


@row("_int_mm")
def int_matmul(g: Recorder, out: Tensor, input: Tensor, other: Tensor) -> ir.Value:
    """int8 matrices multiplied into int32."""
    return g.op("MatMulInteger", g.val(input), g.val(other))


@whole(Tensor.__rmatmul__)
def rmatmul(g: Recorder, out: Tensor, input: Tensor, other: Tensor) -> ir.Value:
    """other @ self."""
    return _product(g, g.val(other), g.val(input), out.dtype)


def _is(x: Any, n: int) -> bool:
    return isinstance(x, (int, float)) and x == n


@row("addmm")
def addmm(
    g: Recorder, out: Tensor, c: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> ir.Value:
    """beta c + alpha a b."""
    held = all(isinstance(n, (int, float)) and is_held(n, out.dtype) for n in (alpha, beta))
    if out.dtype.is_floating_point and held:
        scale = {"alpha": float(alpha)} if not _is(alpha, 1) else {}
        if _is(beta, 0):  # c is not looked at, NaN or not
            return g.op("Gemm", g.val(a), g.val(b), **scale)
        scale |= {"beta": float(beta)} if not _is(beta, 1) else {}
        return g.op("Gemm", g.val(a), g.val(b), g.val(c), **scale)
    return baddbmm(g, out, c, a, b, beta=beta, alpha=alpha)


@row("baddbmm", "addmv")
def baddbmm(
    g: Recorder, out: Tensor, c: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> ir.Value:
    """beta c + alpha a b over a batch; with factors that are not 1, of halves in float32."""
    plain = _is(alpha, 1) and (_is(beta, 0) or _is(beta, 1))
    dtype = out.dtype if plain else inner_dtype(out.dtype)
    product = _product(g, g.operand(a, dtype), g.operand(b, dtype), dtype)
    if not _is(alpha, 1):
        product = g.op("Mul", product, g.operand(alpha, dtype))
    if not _is(beta, 0):
        term = g.operand(c, dtype)
        term = term if _is(beta, 1) else g.op("Mul", term, g.operand(beta, dtype))
        product = g.op("Add", product, term)
    return g.cast(product, dtype, out.dtype)


def _fake_grouped(
    self: Tensor, mat2: Tensor, offs: Tensor | None = None, bias: Any = None, out_dtype: Any = None
) -> Tensor:
    if self.dim() != 2 or mat2.dim() != 3 or offs is None:
        raise ExportError(
            f"grouped_mm of {self.dim()} and {mat2.dim()} axes: only rows [n, k] in groups, each by a "
            f"matrix of "
            "its own [groups, k, m], are followed. Use torch.matmul for the others."
        )
    return self.new_empty([self.shape[0], mat2.shape[-1]], dtype=out_dtype or self.dtype)


_torch: Any = torch


@whole(_torch._grouped_mm, torch.nn.functional.grouped_mm, meta=_fake_grouped)
def grouped_mm(
    g: Recorder,
    out: Tensor,
    self: Tensor,
    mat2: Tensor,
    offs: Tensor | None = None,
    bias: Any = None,
    out_dtype: Any = None,
) -> ir.Value:
    """Rows up to each offset by a matrix of their own: experts' products."""
    assert offs is not None
    x, w, ends = g.val(self), g.val(mat2), g.operand(offs, torch.int64)
    groups = int(mat2.shape[0])
    parts: list[ir.Value] = []
    start = g.const([0])
    for i in range(groups):
        end = g.op("Gather", ends, g.const([i]), axis=0)
        rows = g.op("Slice", x, start, end, g.const([0]))
        parts.append(g.op("MatMul", rows, g.op("Gather", w, g.const(i), axis=0)))
        start = end
    y = g.op("Concat", *parts, axis=0) if groups > 1 else parts[0]
    return g.cast(y, self.dtype, out.dtype)


_VF: Any = torch._VF  # its functions come from C++ and are unknown to type checkers


@whole(_VF.einsum)
def einsum(g: Recorder, out: Tensor, equation: str, *operands: Any, **kwargs: Any) -> ir.Value:
    """Einsum, whole; its one-operand and two-operand forms included."""
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    wide = torch.int32 if out.dtype in _NARROW else out.dtype
    values = [g.cast(g.operand(t, out.dtype), out.dtype, wide) for t in tensors]
    equation = equation.replace(" ", "")
    terms, arrow, result = equation.partition("->")
    if not arrow:  # of the axes that occur once torch takes those of capitals first, not every runtime does
        names = terms.replace("...", "").replace(",", "")
        once = sorted(c for c in names if names.count(c) == 1)
        result = ("..." if "..." in terms else "") + "".join(once)
        equation = f"{terms}->{result}"
    # torch lets an ellipsis stand for another number of axes in each operand, and for none, and sums over
    # those that the result leaves out; ONNX does none of it.
    spans = [
        (i, term.index("..."), tensors[i].dim() - len(term) + 3)
        for i, term in enumerate(terms.split(","))
        if "..." in term
    ]
    most = max((span for _, _, span in spans), default=0)
    for i, before, span in spans:
        if span < most:
            values[i] = g.op("Unsqueeze", values[i], g.const([before + k for k in range(most - span)]))
    if not most or "..." not in result:
        free = [c for c in string.ascii_letters if c not in equation]
        equation = equation.replace("...", "".join(free[:most]))
    return g.cast(g.op("Einsum", *values, equation=equation), wide, out.dtype)


def _fake_bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    checked(input1, -1, weight.shape[1], "the bilinear layer")
    checked(input2, -1, weight.shape[2], "the bilinear layer")
    return torch.empty([*input1.shape[:-1], weight.shape[0]], dtype=input1.dtype, device=input1.device)


@whole(torch.nn.functional.bilinear, torch.bilinear, meta=_fake_bilinear)
def bilinear(
    g: Recorder, out: Tensor, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None
) -> ir.Value:
    """x1' W x2 + b for each matrix of W; torch's own way fails on tensors without contents."""
    operands = [g.val(input1), g.val(weight), g.val(input2)]
    y = g.op("Einsum", *operands, equation="...i,oij,...j->...o")
    return y if bias is None else g.op("Add", y, g.val(bias))


@row("_cdist_forward")
def cdist(g: Recorder, out: Tensor, x1: Tensor, x2: Tensor, p: float, compute_mode: Any) -> ir.Value:
    """Distances of each row of x1 to each row of x2."""
    apart = g.op(
        "Sub", g.op("Unsqueeze", g.val(x1), g.const([-2])), g.op("Unsqueeze", g.val(x2), g.const([-3]))
    )
    if p in (1, 2):
        return g.op(f"ReduceL{int(p)}", apart, g.const([-1]), keepdims=0)
    if p == float("inf"):
        # torch starts at 0 and takes what is larger: no NaN is.
        size = g.op("Where", g.op("IsNaN", apart), g.const(0, out.dtype), g.op("Abs", apart))
        if not g.sizes.number(x1.shape[-1]):  # of no columns too
            size = g.op("Pad", size, g.const([0] * (2 * out.dim() + 1) + [1]))
        return g.op("ReduceMax", size, g.const([-1]), keepdims=0)
    if p == 0:
        differ = g.cast(g.op("Not", g.op("Equal", apart, g.const(0, out.dtype))), torch.bool, out.dtype)
        return g.op("ReduceSum", differ, g.const([-1]), keepdims=0)
    powers = g.op("Pow", g.op("Abs", apart), g.const(float(p), out.dtype))
    total = g.op("ReduceSum", powers, g.const([-1]), keepdims=0)
    return g.op("Pow", total, g.const(1.0 / p, out.dtype))


@composed("addbmm")
def addbmm(c: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta c + alpha Σ a b over the batch; torch cuts the factors of whole numbers to whole ones."""
    if not (c.is_floating_point() or c.is_complex()):
        alpha, beta = int(alpha), int(beta)
    product = torch.matmul(a, b).sum(0)
    product = product if alpha == 1 else product * alpha
    if beta == 0:
        return product
    return product + (c if beta == 1 else c * beta)
