"""Random cases of com.microsoft's operators; ONNX Runtime is the judge."""
# ruff: noqa: ARG001  (every generator is given the opset)

from __future__ import annotations

from typing import Any

import numpy as np

from tests.search.draw import Array, Case, Draw, case

DOMAIN = "com.microsoft"


@case("Gelu", "QuickGelu", "FastGelu", "BiasGelu", domain=DOMAIN)
def gelu(r: Draw, opset: int) -> Case:
    x = r.floats(*r.shape(1, 3, empty=False))
    bias = r.floats(x.shape[-1])
    attributes = r.some({"alpha": r.real(0.5, 2)}) if r.op == "QuickGelu" else {}
    with_bias = r.op == "BiasGelu" or (r.op == "FastGelu" and r.flag())
    return Case(r.op, [x, bias] if with_bias else [x], attributes)


@case("FusedMatMul", domain=DOMAIN)
def fused_matmul(r: Draw, opset: int) -> Case:
    m, k, n = (r.integer(1, 20) for _ in range(3))
    lead = r.shape(0, 2, empty=False, largest=12)
    turned = [r.integer(0, 1), r.integer(0, 1)]
    a = r.floats(*lead, *((k, m) if turned[0] else (m, k)))
    b = r.floats(*lead, *((n, k) if turned[1] else (k, n)))
    attributes: dict[str, Any] = {"transA": turned[0], "transB": turned[1]}
    return Case(r.op, [a, b], attributes | r.some({"alpha": r.real(-2, 2)}))


@case("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=DOMAIN)
def skip(r: Draw, opset: int) -> Case:
    shape = (r.integer(1, 3), r.integer(1, 7), r.one([1, 5, 16, 33]))
    x, y = r.floats(*shape), r.floats(*shape)
    width = shape[-1:]
    inputs: list[Any] = [x, y, r.floats(*width)]
    if r.op == "SkipLayerNormalization":
        inputs.append(r.floats(*width) if r.flag() else None)
    inputs.append(r.floats(*width) if r.flag() else None)
    named = [0, 3] if r.flag() else [0]
    return Case(r.op, inputs, {"epsilon": r.real(1e-3, 1e-1)}, outputs=max(named) + 1, named=named)


@case("BranchwiseRMSNorm", domain=DOMAIN)
def branches(r: Draw, opset: int) -> Case:
    lead, count, width = r.shape(1, 2, empty=False, largest=20), r.integer(1, 4), r.integer(1, 20)
    flat = r.flag()
    x = r.floats(*lead, *((count * width,) if flat else (count, width)))
    scale = r.one([None, (width,), (count, width), (count * width,)])
    attributes = {"num_branches": count} if flat else {}
    attributes |= r.some({"epsilon": r.real(1e-3, 1e-1)})
    return Case(r.op, [x, None if scale is None else r.floats(*scale)], attributes)


@case("MultiHeadAttention", domain=DOMAIN)
def attention(r: Draw, opset: int) -> Case:
    batch, rows, heads, size = r.integer(1, 3), r.integer(1, 6), r.integer(1, 4), r.one([4, 8, 16])
    keys = rows if r.flag() else r.integer(1, 9)
    width = heads * size
    query, key, value = (
        r.floats(batch, rows, width),
        r.floats(batch, keys, width),
        r.floats(batch, keys, width),
    )
    bias = r.floats(3 * width) if r.flag() else None
    padding = None
    if r.flag():
        padding = np.arange(keys)[None] < r.rng.integers(1, keys + 1, (batch, 1))
        padding = padding.astype(np.int32)
    more = r.floats(1, heads, rows, keys) if r.flag() else None
    attributes: dict[str, Any] = {"num_heads": heads}
    attributes |= r.some({"scale": r.real(0.1, 1)})
    return Case(r.op, [query, key, value, bias, padding, more], attributes)


@case("RotaryEmbedding", domain=DOMAIN)
def rotary(r: Draw, opset: int) -> Case:
    batch, rows, heads, size = r.integer(1, 3), r.integer(1, 6), r.integer(1, 4), r.one([4, 8, 16])
    x = r.floats(batch, rows, heads * size) if r.flag() else r.floats(batch, heads, rows, size)
    angles = r.floats(12, size // 2)
    places = r.between(0, 11 - rows, (1,)) if r.flag() else r.between(0, 11, (batch, rows))
    attributes = {"interleaved": r.integer(0, 1)}
    if x.ndim == 3 and r.flag():
        attributes["num_heads"] = heads
    return Case(r.op, [x, places, np.cos(angles), np.sin(angles)], attributes, constant=(2, 3))


def number(r: Draw, low: float, high: float) -> Array:
    return np.array(r.real(low, high), np.float32)


def zero(r: Draw, dtype: str) -> Array | None:
    return r.array((), dtype, special=0.5) if r.flag(0.8) else np.zeros((), dtype)


@case("QLinearAdd", "QLinearMul", domain=DOMAIN)
def pairs(r: Draw, opset: int) -> Case:
    dtype, shape = r.one(["int8", "uint8"]), r.shape(1, 3, empty=False)
    inputs: list[Any] = []
    for own in (shape, shape if r.flag() else r.broadcastable(shape)):
        inputs += [r.array(own, dtype, special=1.0), number(r, 0.01, 0.1), zero(r, dtype)]
    inputs += [number(r, 0.02, 0.3), zero(r, dtype)]
    return Case(r.op, inputs, constant=(1, 2, 4, 5, 6, 7))


@case("QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool", domain=DOMAIN)
def through(r: Draw, opset: int) -> Case:
    dtype = r.one(["int8", "uint8"])
    pooled = r.op.endswith("Pool")
    shape = (r.integer(1, 2), r.integer(1, 20), r.integer(2, 9), r.integer(2, 9))
    shape = shape if pooled else r.shape(1, 3, empty=False)
    attributes: dict[str, Any] = {}
    if r.op == "QLinearLeakyRelu":
        attributes = r.some({"alpha": r.real(0.01, 0.5)})
    x_scale = number(r, 0.01, 0.1)
    y_scale = x_scale if r.flag(0.3) else number(r, 0.01, 0.1)
    inputs = [r.array(shape, dtype, special=1.0), x_scale, zero(r, dtype), y_scale, zero(r, dtype)]
    return Case(r.op, inputs, attributes, constant=(1, 2, 3, 4))


@case("MatMulNBits", domain=DOMAIN)
def few_bits(r: Draw, opset: int) -> Case:
    block, rows, n = r.one([16, 32, 64]), r.integer(1, 9), r.integer(1, 40)
    blocks = r.integer(1, 4)
    depth = block * blocks - (0 if r.flag(0.7) else r.integer(1, 7))
    weights = r.array((n, blocks, block // 2), "uint8", special=1.0)
    scales = np.abs(r.floats(n * blocks)) * np.float32(0.1)
    zeros = r.array((n * -(-blocks // 2),), "uint8", special=1.0) if r.flag() else None
    attributes = {"K": depth, "N": n, "bits": 4, "block_size": block}
    a = r.floats(rows, depth) if r.flag() else r.floats(2, rows, depth)
    return Case(r.op, [a, weights, scales, zeros], attributes, constant=(1, 2, 3))
