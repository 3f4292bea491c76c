"""Scaled dot-product attention: whole from opset 23, before it the MatMul, Softmax, MatMul that runtimes
recognise.
"""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import sympy  # pyright: ignore[reportMissingTypeStubs]
import torch

from ingot.capture.aten.random import dropped
from ingot.capture.aten.registry import instead, whole
from ingot.capture.fakes import checked, fitted
from ingot.capture.request import recorder
from ingot.capture.tensors import zero_copy

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
_torch: Any = torch
_aten: Any = torch.ops.aten


def _fake_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: Any = False,
    scale: Any = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The result's shape, with torch's checks that the operands fit."""
    if isinstance(is_causal, torch.SymBool) and attn_mask is not None:
        raise TypeError("is_causal must be bool beside attn_mask, not SymBool")
    if attn_mask is not None and is_causal:
        raise RuntimeError("scaled_dot_product_attention takes attn_mask or is_causal, not both")
    checked(key, -1, query.shape[-1], "attention")
    checked(value, -2, key.shape[-2], "attention")
    for axis in range(query.dim() - 2):
        if (enable_gqa and axis == query.dim() - 3) or key.shape[axis] is query.shape[axis]:
            continue
        for other in (key, value):
            size: Any = other.shape[axis]
            if isinstance(size, int) and size == 1:
                continue  # one for all: batch axes broadcast
            checked(other, axis, query.shape[axis], "attention")
    if attn_mask is not None:
        scores = [*query.shape[:-1], key.shape[-2]]
        fitted(recorder(), attn_mask, scores).expand(scores[-max(attn_mask.dim(), 2) :])
    return query.new_empty([*query.shape[:-1], value.shape[-1]])


@whole(torch.nn.functional.scaled_dot_product_attention, meta=_fake_attention)
def attention(
    g: Recorder,
    out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool | torch.SymBool = False,
    scale: Any = None,
    enable_gqa: bool = False,
) -> ir.Value:
    """softmax(q kᵀ scale + mask) v; a row whose mask leaves nothing gives zeros, as in torch. Of halves in
    float32, as torch computes it: a score may be larger than any of them, and a mask takes its digits.

    is_causal: may be a condition that the run decides
    """
    dtype = torch.float32 if query.dtype in (torch.float16, torch.bfloat16) else query.dtype
    q, k, v = (g.cast(g.val(x), x.dtype, dtype) for x in (query, key, value))
    factor = 1 / torch.sym_sqrt(query.shape[-1]) if scale is None else scale
    causal = _where_causal(g, is_causal, query, key)
    if (
        g.opset >= 23
        and not dropout_p
        and query.dim() == 4
        and (isinstance(factor, float) or scale is None)
        and _plain(g, attn_mask)
    ):
        mask = None if attn_mask is None else _along_keys(g, attn_mask, key, dtype)
        if isinstance(causal, torch.SymBool):
            mask, causal = _seen(g, query, key, causal), False
        operands = [q, k, v, *([mask] if mask is not None else [])]
        own = factor if isinstance(factor, float) else None  # by default that of the size in the run
        made = g.op("Attention", *operands, scale=own, is_causal=int(causal))
        return g.cast(made, dtype, query.dtype)
    if enable_gqa and not g.same_size(query.shape[-3], key.shape[-3]):
        k, v = (_shared_heads(g, x, t, query) for x, t in ((k, key), (v, value)))
    rank = key.dim()
    flipped = g.op("Transpose", k, perm=[*range(rank - 2), rank - 1, rank - 2])
    scores = g.op("Mul", g.op("MatMul", q, flipped), g.operand(factor, dtype))
    alive: ir.Value | None = None
    if attn_mask is not None:
        bias, alive = _bias(g, attn_mask, dtype)
        scores = g.op("Add", scores, bias)
    if not isinstance(causal, bool) or causal:
        scores = g.op("Add", scores, _causal(g, query, key, dtype, causal))
    weights = g.op("Softmax", scores, axis=-1)
    if dropout_p:
        weights, _ = dropped(g, weights, [*query.shape[:-1], key.shape[-2]], dropout_p, dtype)
    result = g.op("MatMul", weights, v)
    result = result if alive is None else g.op("Mul", result, alive)
    return g.cast(result, dtype, query.dtype)


def _along_keys(g: Recorder, mask: Tensor, key: Tensor, dtype: torch.dtype) -> ir.Value:
    """The mask with one element for each key: ONNX takes one that is shorter to hide the keys behind it."""
    keys, value = key.shape[-2], g.val(mask)
    if mask.dtype != torch.bool:
        value = _above_the_lowest(g, value, mask.dtype, dtype)
    if g.same_size(mask.shape[-1], keys):
        return value
    return g.op("Expand", value, g.shape([1] * (mask.dim() - 1) + [keys]))


def _plain(g: Recorder, mask: Tensor | None) -> bool:
    return mask is None or mask.dim() <= 4


def _lowest(dtype: torch.dtype) -> float:
    """Low enough that exp gives 0, finite so that a row of nothing else gives no NaN."""
    return float(torch.finfo(dtype).min) / 2


def _above_the_lowest(g: Recorder, mask: ir.Value, own: torch.dtype, dtype: torch.dtype) -> ir.Value:
    """The mask without the lowest number, which onnxruntime's Attention takes for what is hidden: where a row
    has nothing else it gives 0, and torch a mean.
    """
    if ("attention mask", id(mask), dtype) not in g.memo:
        none, low = (g.const(n, dtype) for n in (-math.inf, _lowest(dtype)))
        wide = g.cast(mask, own, dtype)
        kept = g.op("Where", g.op("Equal", wide, none), none, g.op("Max", wide, low))
        g.memo["attention mask", id(mask), dtype] = kept
    return g.memo["attention mask", id(mask), dtype]


def _bias(g: Recorder, mask: Tensor, dtype: torch.dtype) -> tuple[ir.Value, ir.Value | None]:
    """The mask as an addend, and 0 or 1 for rows that have nothing left (None when there are none for
    sure).
    """
    value = g.val(mask)
    known = g.memo.get(("mask", id(value), dtype))
    if known is not None:
        return known
    low = g.const(_lowest(dtype), dtype)
    contents = g.real(mask)
    if mask.dtype == torch.bool:
        bias = g.op("Where", value, g.const(0.0, dtype), low)
        sure = contents is not None and bool(zero_copy(contents).any(axis=-1).all())
        whole_row = g.op("ReduceMax", g.cast(value, torch.bool, dtype), g.const([-1]), keepdims=1)
        made = (bias, None if sure else whole_row)
    elif contents is not None and not bool(
        np.isneginf(zero_copy(contents).astype(np.float64)).all(axis=-1).any()
    ):
        made = (g.operand(mask, dtype), None)
    else:
        plain = g.operand(mask, dtype)
        highest = g.op("ReduceMax", plain, g.const([-1]), keepdims=1)
        alive = g.cast(g.op("Not", g.op("Equal", highest, g.const(-math.inf, dtype))), torch.bool, dtype)
        made = (g.op("Max", plain, low), alive)
    g.memo["mask", id(value), dtype] = made
    return made


def _where_causal(
    g: Recorder, flag: bool | torch.SymBool, query: Tensor, key: Tensor
) -> bool | torch.SymBool:
    """Whether a row sees no key after it; true where that makes no difference whenever the flag is not set,
    as for one query and one key.
    """
    if not isinstance(flag, torch.SymBool):
        return flag
    e = g.env.expr(flag)
    known = g.env.known(e)
    if known is not None:
        return known
    g.env.path.append(sympy.Not(e))
    try:
        alike = all(g.env.known(sympy.Le(g.env.expr(x.shape[-2]), 1)) for x in (query, key))
    finally:
        g.env.path.pop()
    return True if alike else flag


def _seen(g: Recorder, query: Tensor, key: Tensor, flag: bool | torch.SymBool) -> ir.Value:
    """Which keys are not after which queries, or all where the flag is not set: BOOL [queries, keys]."""
    n, m = query.shape[-2], key.shape[-2]
    rows = g.op("Unsqueeze", g.op("Range", g.const(0), g.operand(n, torch.int64), g.const(1)), g.const([1]))
    columns = g.op("Range", g.const(0), g.operand(m, torch.int64), g.const(1))
    seen = g.op("LessOrEqual", columns, rows)
    return g.op("Or", seen, g.op("Not", g.scalar(flag))) if isinstance(flag, torch.SymBool) else seen


def _causal(
    g: Recorder, query: Tensor, key: Tensor, dtype: torch.dtype, flag: bool | torch.SymBool
) -> ir.Value:
    """0 where the key is not after the query, else the lowest number: [queries, keys]."""
    name = ("causal", *(str(g.env.expr(n)) for n in (query.shape[-2], key.shape[-2], flag)), dtype)
    known = g.memo.get(name)
    if known is None:
        seen = _seen(g, query, key, flag)
        known = g.memo[name] = g.op("Where", seen, g.const(0.0, dtype), g.const(_lowest(dtype), dtype))
    return known


def _shared_heads(g: Recorder, x: ir.Value, tensor: Tensor, query: Tensor) -> ir.Value:
    """Each key head repeated for the query heads that share it."""
    axis = tensor.dim() - 3
    heads = query.shape[axis]
    wide = g.op("Unsqueeze", x, g.const([axis + 1]))
    counts = [1] * (tensor.dim() + 1)
    counts[axis + 1] = heads // tensor.shape[axis]
    repeated = g.op("Expand", wide, g.shape(counts))
    shape = [*tensor.shape[:axis], heads, *tensor.shape[axis + 1 :]]
    return g.op("Reshape", repeated, g.shape(shape), allowzero=1)


@instead(
    _torch._native_multi_head_attention,
    _aten._native_multi_head_attention,
    _aten._native_multi_head_attention.default,
)
def native_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_head: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The layer that torch calls in the place of MultiheadAttention outside of training: [batch, length,
    channels] to the same, and the weights.

    mask: true where nothing is taken from; of mask_type 0 for every query and key, of 1 for every key of a
    batch, of 2 for all of both.
    """
    weights, biases = qkv_weight.chunk(3), qkv_bias.chunk(3)
    parts = [
        torch.nn.functional.linear(x, w, b).unflatten(-1, (num_head, embed_dim // num_head)).transpose(1, 2)
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    ]
    scores = (parts[0] / (embed_dim // num_head) ** 0.5) @ parts[1].transpose(-2, -1)
    if mask is not None:
        hidden = mask.to(torch.bool)
        hidden = hidden[:, None, None, :] if mask_type == 1 else hidden
        scores = scores.masked_fill(hidden, float("-inf"))
    attention = scores.softmax(-1)
    joined = (attention @ parts[2]).transpose(1, 2).flatten(2)
    given = torch.nn.functional.linear(joined, proj_weight, proj_bias)
    if not need_weights:
        return given, None
    return given, attention.mean(1) if average_attn_weights else attention


@instead(
    _torch._transformer_encoder_layer_fwd,
    _aten._transformer_encoder_layer_fwd,
    _aten._transformer_encoder_layer_fwd.default,
)
def encoder_layer(
    src: Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    ffn_weight_1: Tensor,
    ffn_bias_1: Tensor,
    ffn_weight_2: Tensor,
    ffn_bias_2: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Tensor:
    """The layer that torch calls in the place of TransformerEncoderLayer outside of training."""
    functions = torch.nn.functional

    def attended(x: Tensor) -> Tensor:
        whole = qkv_weight, qkv_bias, proj_weight, proj_bias, mask, False, True, mask_type
        return native_attention(x, x, x, embed_dim, num_heads, *whole)[0]

    def fed(x: Tensor) -> Tensor:
        activate = functions.gelu if use_gelu else functions.relu
        hidden = activate(functions.linear(x, ffn_weight_1, ffn_bias_1))
        return functions.linear(hidden, ffn_weight_2, ffn_bias_2)

    def normal_1(x: Tensor) -> Tensor:
        return functions.layer_norm(x, (embed_dim,), norm_weight_1, norm_bias_1, eps)

    def normal_2(x: Tensor) -> Tensor:
        return functions.layer_norm(x, (embed_dim,), norm_weight_2, norm_bias_2, eps)

    if norm_first:
        src = src + attended(normal_1(src))
        return src + fed(normal_2(src))
    src = normal_1(src + attended(src))
    return normal_2(src + fed(src))
