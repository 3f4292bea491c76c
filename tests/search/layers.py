"""Random cases of layers: windows, normalisations, products, recurrent layers, attention, images, signals."""
# ruff: noqa: ARG001  (every generator is given the opset)

from __future__ import annotations

from typing import Any

import numpy as np

from tests.search.draw import FLOATS, INTEGERS, Array, Case, Draw, case, dtype_of
from tests.search.shapes import ints


def window(
    r: Draw, opset: int, rank: int, *, ceil: int = 99, dilations: int = 99, low: int = 1
) -> tuple[list[int], dict[str, Any], list[int]]:
    """Kernel, attributes and input sizes that fit."""
    kernel = [r.integer(low, 4) for _ in range(rank)]
    strides = [r.integer(1, 3) for _ in range(rank)]
    dil = [r.integer(1, 3) for _ in range(rank)] if opset >= dilations and r.flag(0.4) else [1] * rank
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dil, strict=True)]
    sizes = [r.integer(max(n, 1), n + 9) for n in reach]
    attributes: dict[str, Any] = r.some({"strides": strides})
    if dil != [1] * rank:
        attributes["dilations"] = dil
    mode = r.one(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    if mode.startswith("SAME") and (
        dil != [1] * rank or any(n < s for n, s in zip(reach, strides, strict=True))
    ):
        mode = "NOTSET"  # what SAME means there, peers answer each in its way
    if mode == "NOTSET":
        if r.flag(0.6):
            attributes["pads"] = [r.integer(0, k - 1) for k in kernel * 2]
    else:
        attributes["auto_pad"] = mode
    if opset >= ceil:
        attributes |= r.some({"ceil_mode": r.integer(0, 1)})
    return kernel, attributes, sizes


@case("MaxPool", "AveragePool", "LpPool")
def pool(r: Draw, opset: int) -> Case:
    rank = r.one([1, 2, 2, 2, 3])
    since = {"MaxPool": (10, 10), "AveragePool": (10, 19), "LpPool": (18, 18)}[r.op]
    kernel, attributes, sizes = window(r, opset, rank, ceil=since[0], dilations=since[1])
    attributes["kernel_shape"] = kernel
    if r.op == "AveragePool" and opset >= 7:
        attributes |= r.some({"count_include_pad": r.integer(0, 1)})
    if r.op == "LpPool":
        attributes |= r.some({"p": r.integer(1, 4) if opset >= 2 else float(r.integer(1, 4))})
    x = r.array((r.integer(0, 3), r.integer(1, 5), *sizes), r.dtype(opset), special=0.0)
    outputs = 1
    if r.op == "MaxPool" and opset >= 8:
        attributes |= r.some({"storage_order": 0})
        outputs = r.integer(1, 2)
    return Case(r.op, [x], attributes, outputs)


@case("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def whole_pool(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(3, 5, empty=False), r.dtype(opset), special=0.0)
    return Case(r.op, [x], r.some({"p": r.integer(1, 4) if opset >= 2 else 2.0}) if "Lp" in r.op else {})


@case("MaxUnpool")
def unpool(r: Draw, opset: int) -> Case:
    rank = r.integer(1, 2)
    kernel = [r.integer(1, 3) for _ in range(rank)]
    strides = [r.integer(1, 3) for _ in range(rank)]
    sizes = [r.integer(1, 4) for _ in range(rank)]
    shape = (r.integer(1, 2), r.integer(1, 3), *sizes)
    whole = [(s - 1) * t + k for s, t, k in zip(sizes, strides, kernel, strict=True)]
    count = int(np.prod(whole)) * shape[0] * shape[1]
    per = int(np.prod(whole))
    del count
    where = np.stack(
        [
            r.rng.permutation(per)[: int(np.prod(sizes))].reshape(sizes) + c * per
            if int(np.prod(sizes)) <= per
            else np.zeros(sizes, int)
            for c in range(shape[0] * shape[1])
        ]
    )
    x = r.floats(*shape, dtype=r.dtype(opset))
    return Case("MaxUnpool", [x, ints(where).reshape(shape)], {"kernel_shape": kernel, "strides": strides})


@case("Conv")
def conv(r: Draw, opset: int) -> Case:
    rank = r.one([1, 2, 2, 2, 3])
    kernel, attributes, sizes = window(r, opset, rank, dilations=1)
    group = r.one([1, 1, 1, 2, 3])
    inner, outer = r.one([1, 2, 3, 8, 17]), r.one([1, 2, 5, 16])
    if r.flag(0.2):
        inner, group = 1, r.one([4, 17])
        outer = r.integer(1, 2)
    dtype = r.dtype(opset)
    x = r.floats(r.integer(0, 2) or 1, group * inner, *sizes, dtype=dtype)
    w = r.floats(group * outer, inner, *kernel, dtype=dtype)
    b = r.floats(group * outer, dtype=dtype) if r.flag() else None
    if group != 1:
        attributes["group"] = group
    return Case("Conv", [x, w, b], attributes | r.some({"kernel_shape": kernel}))


@case("ConvTranspose")
def conv_transpose(r: Draw, opset: int) -> Case:
    rank = r.one([1, 2, 2, 2, 3])
    kernel, attributes, sizes = window(r, opset, rank, dilations=1)
    sizes = [min(s, 6) for s in sizes]
    group, inner, outer = r.one([1, 1, 2]), r.integer(1, 3), r.integer(1, 3)
    dtype = r.dtype(opset)
    x = r.floats(r.integer(1, 2), group * inner, *sizes, dtype=dtype)
    w = r.floats(group * inner, outer, *kernel, dtype=dtype)
    b = r.floats(group * outer, dtype=dtype) if r.flag() else None
    strides = attributes.get("strides", [1] * rank)
    if r.flag(0.3):
        attributes["output_padding"] = [r.integer(0, s - 1) for s in strides]
    if r.flag(0.2) and "pads" not in attributes:
        dil = attributes.get("dilations", [1] * rank)
        whole = [
            s * (n - 1) + (k - 1) * d + 1 for s, n, k, d in zip(strides, sizes, kernel, dil, strict=True)
        ]
        attributes["output_shape"] = [r.integer(max(1, n - 2), n) for n in whole]
        attributes.pop("output_padding", None)
    if group != 1:
        attributes["group"] = group
    return Case("ConvTranspose", [x, w, b], attributes | r.some({"kernel_shape": kernel}))


@case("DeformConv")
def deform_conv(r: Draw, opset: int) -> Case:
    kernel, attributes, sizes = window(r, opset, 2, dilations=1)
    attributes.pop("auto_pad", None)
    group, groups = r.one([1, 2]), r.one([1, 2])
    inner = 2 * r.integer(1, 2)
    strides, pads, dil = (
        attributes.get(k, d) for k, d in (("strides", [1, 1]), ("pads", [0] * 4), ("dilations", [1, 1]))
    )
    out = [
        (n + pads[i] + pads[i + 2] - (kernel[i] - 1) * dil[i] - 1) // strides[i] + 1
        for i, n in enumerate(sizes)
    ]
    dtype = r.dtype(opset)
    n = r.integer(1, 2)
    x = r.floats(n, inner * group, *sizes, dtype=dtype)
    w = r.floats(r.integer(1, 2) * group, inner, *kernel, dtype=dtype)
    offset = r.floats(n, groups * kernel[0] * kernel[1] * 2, *out, dtype=dtype)
    b = r.floats(w.shape[0], dtype=dtype) if r.flag() else None
    mask = r.floats(n, groups * kernel[0] * kernel[1], *out, dtype=dtype) if r.flag() else None
    return Case(
        "DeformConv",
        [x, w, offset, b, mask],
        {**attributes, "group": group, "offset_group": groups, "kernel_shape": kernel},
    )


@case("Col2Im")
def col2im(r: Draw, opset: int) -> Case:
    rank = r.one([1, 2, 2, 3])
    kernel, attributes, sizes = window(r, opset, rank, dilations=1)
    attributes.pop("auto_pad", None)
    strides, pads, dil = (
        attributes.get(k, d * rank) for k, d in (("strides", [1]), ("pads", [0, 0]), ("dilations", [1]))
    )
    out = [
        (n + pads[i] + pads[i + rank] - (kernel[i] - 1) * dil[i] - 1) // strides[i] + 1
        for i, n in enumerate(sizes)
    ]
    x = r.array(
        (r.integer(1, 2), r.integer(1, 3) * int(np.prod(kernel)), int(np.prod(out))),
        r.dtype(opset, only=("float32", "float64", "float16", "int32", "bfloat16")),
        special=0,
    )
    return Case("Col2Im", [x, ints(sizes), ints(kernel)], attributes)


# ---- products ----------------------------------------------------------------------------------------------


@case("MatMul")
def matmul(r: Draw, opset: int) -> Case:
    lead = r.shape(0, 2, largest=30)
    m, k, n = r.size(12), r.size(12), r.size(12)
    a, b = (*r.broadcastable(lead), m, k), (*r.broadcastable(lead), k, n)
    kind = r.integer(0, 9)
    if kind == 0:
        a = (k,)
    elif kind == 1:
        b = (k,)
    elif kind == 2:
        a, b = (k,), (k,)
    dtype = r.dtype(opset)
    return Case("MatMul", [r.array(a, dtype, special=0.05), r.array(b, dtype, special=0.05)])


@case("Gemm")
def gemm(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    m, k, n = r.size(12), r.size(12), r.size(12)
    ta, tb = r.integer(0, 1), r.integer(0, 1)
    a = r.array((k, m) if ta else (m, k), dtype, special=0.03)
    b = r.array((n, k) if tb else (k, n), dtype, special=0.03)
    shape = r.one([(m, n), (1, n), (n,), (m, 1), (1, 1), (1,), ()])
    attributes: dict[str, Any] = {"transA": ta, "transB": tb}
    if opset < 7:
        shape = r.one([(m, n), (n,), (1,)])
        if shape != (m, n):
            attributes["broadcast"] = 1
    c = r.array(shape, dtype, special=0.03)
    whole = dtype in INTEGERS
    attributes |= r.some(
        {
            "alpha": float(r.integer(-2, 3)) if whole else r.real(-2, 2),
            "beta": float(r.integer(-2, 3)) if whole else r.real(-2, 2),
        }
    )
    return Case("Gemm", [a, b, c if opset < 11 or r.flag(0.7) else None], attributes)


@case("Det")
def det(r: Draw, opset: int) -> Case:
    n = r.integer(1, 5)
    return Case("Det", [r.floats(*r.shape(0, 2, largest=20), n, n, dtype=r.dtype(opset))])


# ---- normalisation -----------------------------------------------------------------------------------------


@case("BatchNormalization")
def batch_norm(r: Draw, opset: int) -> Case:
    x = r.floats(*r.shape(2, 5, empty=False), dtype=r.dtype(opset))
    dtype = str(x.dtype)
    c = (x.shape[1],)
    kinds = [dtype, dtype]
    if opset >= 14:
        kinds = [
            r.dtype(
                opset,
                1 if opset >= 15 else 0,
                only=("float32",) if dtype in ("float16", "bfloat16") and r.flag() else (dtype,),
            ),
            r.dtype(
                opset, 3, only=("float32",) if dtype in ("float16", "bfloat16") and r.flag() else (dtype,)
            ),
        ]
    mean = r.floats(*c, dtype=kinds[1])
    var = np.abs(r.floats(*c, dtype=kinds[1])) + np.ones((), kinds[1])
    attributes = r.some({"epsilon": r.real(1e-5, 0.1), "momentum": r.real(0, 1)})
    if opset < 7:
        attributes["is_test"] = 1
    outputs = 1
    if opset >= 14 and r.flag(0.3):
        attributes["training_mode"] = 1
        outputs = 3
    return Case(
        "BatchNormalization",
        [x, r.floats(*c, dtype=kinds[0]), r.floats(*c, dtype=kinds[0]), mean, var.astype(mean.dtype)],
        attributes,
        outputs,
    )


@case("InstanceNormalization")
def instance_norm(r: Draw, opset: int) -> Case:
    x = r.floats(*r.shape(3, 5, empty=False), dtype=r.dtype(opset))
    c, d = x.shape[1], str(x.dtype)
    return Case(
        "InstanceNormalization",
        [x, r.floats(c, dtype=d), r.floats(c, dtype=d)],
        r.some({"epsilon": r.real(1e-3, 0.1)}),
    )


@case("GroupNormalization")
def group_norm(r: Draw, opset: int) -> Case:
    groups = r.integer(1, 4)
    c = groups * r.integer(1, 3)
    x = r.floats(r.integer(1, 3), c, *r.shape(0, 3, empty=False, largest=300), dtype=r.dtype(opset))
    per = c if opset >= 21 else groups
    d = str(x.dtype)
    attributes = {"num_groups": groups, **r.some({"epsilon": r.real(1e-3, 0.1)})}
    return Case("GroupNormalization", [x, r.floats(per, dtype=d), r.floats(per, dtype=d)], attributes)


@case("LayerNormalization", "RMSNormalization")
def layer_norm(r: Draw, opset: int) -> Case:
    x = r.floats(*r.shape(1, 4, empty=r.flag(0.1)), dtype=r.dtype(opset))
    axis = r.integer(0, x.ndim - 1)
    tail = x.shape[axis:]
    d = str(x.dtype)
    shape = tail if r.flag(0.7) else tuple(1 if r.flag(0.3) else s for s in tail)
    scale = r.floats(*shape, dtype=d if r.op[0] == "L" else r.dtype(opset, "V"))
    attributes = r.some({"axis": axis - x.ndim if r.flag() else axis, "epsilon": r.real(1e-5, 0.1)})
    if "axis" not in attributes:
        scale = r.floats(x.shape[-1], dtype=str(scale.dtype))
    if r.op == "RMSNormalization":
        return Case(r.op, [x, scale], attributes)
    bias = r.floats(*scale.shape, dtype=d) if r.flag() else None
    return Case(r.op, [x, scale, bias], attributes, r.integer(1, 3))


@case("LpNormalization", "MeanVarianceNormalization")
def lp_norm(r: Draw, opset: int) -> Case:
    x = r.floats(*r.shape(1, 4, empty=False), dtype=r.dtype(opset))
    if r.op == "LpNormalization":
        return Case(r.op, [x], r.some({"axis": r.axis(x.ndim, opset, 1), "p": r.integer(1, 2)}))
    if x.ndim < 4 or r.flag():
        return Case(r.op, [x], {"axes": r.axes(x.ndim, 1, negative=opset >= 13)})
    return Case(r.op, [x])


@case("LRN")
def lrn(r: Draw, opset: int) -> Case:
    x = r.floats(
        r.integer(1, 2), r.integer(1, 9), *r.shape(1, 2, empty=False, largest=100), dtype=r.dtype(opset)
    )
    return Case(
        "LRN",
        [x],
        {
            "size": r.integer(1, 6),
            **r.some({"alpha": r.real(0, 1), "beta": r.real(0.1, 1.5), "bias": r.real(0.5, 3)}),
        },
    )


@case("Softmax", "LogSoftmax", "Hardmax")
def softmax(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 4), r.dtype(opset), special=0.0)
    axis = r.axis(x.ndim, opset)
    if opset < 13 and x.ndim == 1:
        axis = r.one([0, 1]) if opset < 11 else 0
        return Case(r.op, [x], {"axis": axis})
    return Case(r.op, [x], {"axis": axis} if r.flag(0.7) else {})


# ---- recurrent ---------------------------------------------------------------------------------------------


@case("RNN", "GRU", "LSTM")
def recurrent(r: Draw, opset: int) -> Case:
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[r.op]
    direction = r.one(["forward", "reverse", "bidirectional"])
    d = 2 if direction == "bidirectional" else 1
    steps, batch, inner, hidden = r.integer(1, 5), r.integer(1, 4), r.integer(1, 6), r.integer(1, 9)
    dtype = r.dtype(opset, only=("float32", "float64", "float16"))
    layout = 1 if opset >= 14 and r.flag(0.25) else 0
    f = lambda *s: r.floats(*s, dtype=dtype, scale=0.7)  # noqa: E731
    x = f(batch, steps, inner) if layout else f(steps, batch, inner)
    state = (batch, d, hidden) if layout else (d, batch, hidden)
    inputs: list[Any] = [x, f(d, gates * hidden, inner), f(d, gates * hidden, hidden)]
    inputs.append(f(d, 2 * gates * hidden) if r.flag() else None)
    inputs.append(r.between(0 if r.flag(0.2) else 1, steps, (batch,), "int32") if r.flag(0.4) else None)
    inputs.append(f(*state) if r.flag() else None)
    if r.op == "LSTM":
        inputs.append(f(*state) if r.flag() else None)
        inputs.append(f(d, 3 * hidden) if r.flag(0.3) else None)
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if direction == "forward" and r.flag():
        del attributes["direction"]
    attributes |= r.some({"clip": r.real(0.3, 2)}, 0.25)
    if layout:
        attributes["layout"] = 1
    if r.op == "GRU":
        attributes |= r.some({"linear_before_reset": r.integer(0, 1)}) if opset >= 3 else {}
    if r.op == "LSTM":
        attributes |= r.some({"input_forget": r.integer(0, 1)}, 0.3)
    if r.flag(0.3):
        each = {"RNN": 1, "GRU": 2, "LSTM": 3}[r.op]
        known = [
            "Tanh",
            "Sigmoid",
            "Relu",
            "Affine",
            "LeakyRelu",
            "ThresholdedRelu",
            "ScaledTanh",
            "HardSigmoid",
            "Elu",
            "Softsign",
        ]
        names = [r.one(known) for _ in range(each * d)]
        alphas = {
            "Affine": 1,
            "LeakyRelu": 1,
            "ThresholdedRelu": 1,
            "ScaledTanh": 1,
            "HardSigmoid": 1,
            "Elu": 1,
        }
        betas = {"Affine", "ScaledTanh", "HardSigmoid"}
        attributes["activations"] = names
        attributes["activation_alpha"] = [r.real(0.1, 0.9) for n in names if n in alphas]
        attributes["activation_beta"] = [r.real(0.1, 0.9) for n in names if n in betas]
        for k in ("activation_alpha", "activation_beta"):
            if not attributes[k]:
                del attributes[k]
    outputs = 3 if r.op == "LSTM" else 2
    if opset < 7:
        attributes["output_sequence"] = 1
    named = [i for i in range(outputs) if r.flag(0.7)] or [0]
    return Case(
        r.op, inputs, attributes, named[-1] + 1, named=named, tolerance=1e-2 if dtype == "float16" else None
    )


# ---- attention ---------------------------------------------------------------------------------------------


@case("Attention")
def attention(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset, only=("float32", "float16", "float64", "bfloat16"))
    n, kv_heads, per = r.integer(1, 2), r.integer(1, 2), r.integer(1, 3)
    heads = kv_heads * per
    q_len, kv_len, past = r.integer(1, 6), r.integer(1, 7), r.integer(0, 4) if r.flag(0.3) else None
    size, v_size = r.integer(1, 8), r.integer(1, 8)
    f = lambda *s: r.floats(*s, dtype=dtype)  # noqa: E731
    flat = r.flag(0.4)
    attributes: dict[str, Any] = {}
    if flat:
        q, k, v = f(n, q_len, heads * size), f(n, kv_len, kv_heads * size), f(n, kv_len, kv_heads * v_size)
        attributes = {"q_num_heads": heads, "kv_num_heads": kv_heads}
    else:
        q, k, v = f(n, heads, q_len, size), f(n, kv_heads, kv_len, size), f(n, kv_heads, kv_len, v_size)
    whole = kv_len + (past or 0)
    mask = None
    if r.flag(0.5):
        shape = r.one(
            [
                (q_len, whole),
                (n, heads, q_len, whole),
                (1, 1, q_len, whole),
                (n, 1, q_len, whole),
                (heads, q_len, whole),
                (1, q_len, whole),
            ]
        )
        mask = np.asarray(r.rng.random(shape) < 0.7) if r.flag() else f(*shape)
    causal = r.flag(0.4)
    pasts = [None, None] if past is None else [f(n, kv_heads, past, size), f(n, kv_heads, past, v_size)]
    lengths = r.between(1, kv_len, (n,)) if opset >= 24 and past is None and r.flag(0.3) else None
    attributes |= r.some(
        {
            "scale": r.real(0.1, 1),
            "softcap": r.real(0.5, 5),
            "qk_matmul_output_mode": r.integer(0, 3),
            "softmax_precision": r.one([1, 10, 11]),
        },
        0.3,
    )
    if causal:
        attributes["is_causal"] = 1
    if opset >= 25:
        attributes |= r.some(
            {"left_window_size": r.integer(-1, 3), "right_window_size": r.integer(-1, 3)}, 0.4
        )
    named = [
        0,
        *([1, 2] if past is not None or (lengths is None and r.flag(0.2)) else []),
        *([3] if r.flag(0.3) else []),
    ]
    return Case("Attention", [q, k, v, mask, *pasts, lengths], attributes, named[-1] + 1, named=named)


@case("RotaryEmbedding")
def rotary(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    n, heads, steps, size = r.integer(1, 2), r.integer(1, 3), r.integer(1, 5), 2 * r.integer(1, 6)
    flat = r.flag(0.4)
    part = 2 * r.integer(1, size // 2) if r.flag(0.4) else 0
    rot = part or size
    x = (
        r.floats(n, steps, heads * size, dtype=dtype)
        if flat
        else r.floats(n, heads, steps, size, dtype=dtype)
    )
    if r.flag():
        caches = [r.floats(steps + 3, rot // 2, dtype=dtype) for _ in range(2)]
        positions = r.between(0, steps + 2, (n, steps))
    else:
        caches, positions = [r.floats(n, steps, rot // 2, dtype=dtype) for _ in range(2)], None
    attributes = r.some({"interleaved": r.integer(0, 1)})
    if flat:
        attributes["num_heads"] = heads
    if part:
        attributes["rotary_embedding_dim"] = part
    return Case("RotaryEmbedding", [x, *caches, positions], attributes)


@case("LinearAttention")
def linear_attention(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    n, heads, steps, dk, dv = (
        r.integer(1, 2),
        r.integer(1, 3),
        r.integer(1, 6),
        r.integer(1, 6),
        r.integer(1, 6),
    )
    rule = r.one(["linear", "gated", "delta", "gated_delta"])
    f = lambda *s: r.floats(*s, dtype=dtype, scale=0.5)  # noqa: E731
    decay = (
        np.asarray(-np.abs(f(n, steps, heads * dk) if r.flag() else f(n, steps, heads))).astype(
            dtype_of(dtype)
        )
        if "gated" in rule
        else None
    )
    beta = np.abs(f(n, steps, heads)) if "delta" in rule else None
    state = r.floats(n, heads, dk, dv, dtype=r.dtype(opset, 3)) if r.flag() else None
    return Case(
        "LinearAttention",
        [f(n, steps, heads * dk), f(n, steps, heads * dk), f(n, steps, heads * dv), state, decay, beta],
        {
            "q_num_heads": heads,
            "kv_num_heads": heads,
            "update_rule": rule,
            **r.some({"scale": r.real(0.1, 1)}),
        },
        2,
        tolerance=None,
    )


@case("CausalConvWithState")
def causal_conv(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    n, c, steps, k = r.integer(1, 2), r.integer(1, 5), r.integer(1, 7), r.integer(1, 4)
    return Case(
        "CausalConvWithState",
        [
            r.floats(n, c, steps, dtype=dtype),
            r.floats(c, 1, k, dtype=dtype),
            r.floats(c, dtype=dtype) if r.flag() else None,
            r.floats(n, c, k - 1, dtype=dtype) if r.flag() else None,
        ],
        r.some({"activation": r.one(["none", "silu", "swish"])}),
        2,
    )


# ---- images ------------------------------------------------------------------------------------------------

PLACES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize")


@case("Resize")
def resize(r: Draw, opset: int) -> Case:
    mode = r.one(["nearest", "linear"] + (["cubic"] if opset >= 11 else []))
    dtype = r.dtype(opset, only=None if mode == "nearest" else FLOATS)
    x = r.array(r.shape(1, 4, empty=False, largest=600), dtype, special=0.0)
    if mode == "cubic" and x.ndim != 4:
        x = r.array((1, 2, r.integer(2, 7), r.integer(2, 7)), dtype, special=0.0)
    rank = x.ndim
    scaled = list(range(rank))
    if mode != "nearest":
        scaled = scaled[-2:]
    if opset == 10:
        scales = [r.one([0.5, 1.0, 2.0, 0.7, 1.5, 3.0]) if a in scaled else 1.0 for a in range(rank)]
        scales = [s if int(np.floor(s * n)) >= 1 else 1.0 for s, n in zip(scales, x.shape, strict=True)]
        return Case("Resize", [x, np.array(scales, np.float32)], {"mode": mode})
    places = (
        list(PLACES)
        + (["tf_half_pixel_for_nn"] if opset < 13 else [])
        + (["half_pixel_symmetric"] if opset >= 19 else [])
    )
    attributes: dict[str, Any] = {
        "mode": mode,
        **r.some({"coordinate_transformation_mode": r.one(places)}, 0.8),
    }
    if mode == "nearest":
        attributes |= r.some(
            {"nearest_mode": r.one(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])}
        )
    if mode == "cubic":
        attributes |= r.some({"cubic_coeff_a": r.one([-0.75, -0.5]), "exclude_outside": r.integer(0, 1)})
    axes = None
    if opset >= 18:
        if r.flag(0.4):
            axes = [a for a in scaled if r.flag(0.7)] or scaled[-1:]
            scaled = axes = [int(a) for a in r.rng.permutation(axes)]
            attributes["axes"] = [a - rank if r.flag(0.3) else a for a in axes]
        if mode != "nearest":
            attributes |= r.some({"antialias": r.integer(0, 1)})
    order = scaled if axes is not None else list(range(rank))
    scales = [r.one([0.5, 1.0, 2.0, 0.7, 1.5, 3.0, 0.33]) if a in scaled else 1.0 for a in order]
    scales = [s if int(np.floor(s * x.shape[a])) >= 1 else 1.0 for s, a in zip(scales, order, strict=True)]
    by_sizes = r.flag(0.4)
    roi = None
    if attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        lows = [r.real(0, 0.4) if a in scaled else 0.0 for a in order]
        highs = [r.real(0.6, 1.3) if a in scaled else 1.0 for a in order]
        roi = np.array(lows + highs, np.float32)
        attributes |= r.some({"extrapolation_value": r.real(-3, 3)})
    elif opset < 13:
        roi = np.zeros((0,), np.float32)
    if by_sizes:
        sizes = ints([max(1, round(s * x.shape[a])) for s, a in zip(scales, order, strict=True)])
        if opset >= 18 and r.flag(0.3):
            attributes["keep_aspect_ratio_policy"] = r.one(["not_larger", "not_smaller", "stretch"])
        empty = np.zeros((0,), np.float32) if opset < 13 else None
        return Case("Resize", [x, roi, empty, sizes], attributes)
    return Case("Resize", [x, roi, np.array(scales, np.float32)], attributes)


@case("Upsample")
def upsample(r: Draw, opset: int) -> Case:
    x = r.array(
        (r.integer(1, 2), r.integer(1, 3), r.integer(1, 6), r.integer(1, 6)),
        r.dtype(opset, only=FLOATS),
        special=0.0,
    )
    mode = r.one(["nearest", "bilinear" if opset < 7 else "linear"])
    scales = [r.one([1.0, 1.5, 2.0, 3.0]) for _ in range(2)]
    if opset < 7:
        return Case("Upsample", [x], {"mode": mode, "height_scale": scales[0], "width_scale": scales[1]})
    if opset < 9:
        return Case("Upsample", [x], {"mode": mode, "scales": [1.0, 1.0, *scales]})
    return Case("Upsample", [x, np.array([1, 1, *scales], np.float32)], {"mode": mode})


@case("GridSample")
def grid_sample(r: Draw, opset: int) -> Case:
    rank = r.one([2, 2, 3]) if opset >= 20 else 2
    dtype = r.dtype(opset, only=("float32", "float64", "float16", "bfloat16"))
    names = ["linear", "nearest", "cubic"] if opset >= 20 else ["bilinear", "nearest", "bicubic"]
    mode = r.one(names[: 2 if rank == 3 else 3])
    n = r.integer(1, 2)
    x = r.array((n, r.integer(1, 3), *(r.integer(1, 5) for _ in range(rank))), dtype, special=0.0)
    grid = r.floats(
        n,
        *(r.integer(1, 4) for _ in range(rank)),
        rank,
        dtype=r.dtype(opset, 1, only=("float32", "float64") if dtype != "float64" else ("float64",)),
    )
    return Case(
        "GridSample",
        [x, grid],
        r.some(
            {
                "mode": mode,
                "padding_mode": r.one(["zeros", "border", "reflection"]),
                "align_corners": r.integer(0, 1),
            },
            0.8,
        ),
    )


@case("AffineGrid")
def affine_grid(r: Draw, opset: int) -> Case:
    rank, n = r.one([2, 3]), r.integer(1, 2)
    theta = r.floats(n, rank, rank + 1, dtype=r.dtype(opset))
    sizes = [n, r.integer(1, 3), *(r.integer(1, 5) for _ in range(rank))]
    return Case("AffineGrid", [theta, ints(sizes)], r.some({"align_corners": r.integer(0, 1)}))


def rois(r: Draw, count: int, h: int, w: int, scale: float) -> Array:
    corners = r.rng.uniform(0, 1, (count, 2, 2)) * np.array([w, h]) / scale
    return np.sort(corners, 1).reshape(count, 4)


@case("RoiAlign")
def roi_align(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    n, h, w, count = r.integer(1, 3), r.integer(3, 9), r.integer(3, 9), r.integer(0, 4)
    scale = r.one([1.0, 0.5])
    boxes = rois(r, count, h, w, scale).astype(dtype_of(dtype))
    attributes = r.some(
        {
            "mode": r.one(["avg", "max"]),
            "output_height": r.integer(1, 4),
            "output_width": r.integer(1, 4),
            "sampling_ratio": r.integer(0, 3),
        }
    )
    if scale != 1:
        attributes["spatial_scale"] = scale
    if opset >= 16:
        attributes |= r.some({"coordinate_transformation_mode": r.one(["half_pixel", "output_half_pixel"])})
    return Case(
        "RoiAlign",
        [r.floats(n, r.integer(1, 3), h, w, dtype=dtype), boxes, r.between(0, n - 1, (count,))],
        attributes,
    )


@case("MaxRoiPool")
def max_roi_pool(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    n, h, w, count = r.integer(1, 3), r.integer(3, 9), r.integer(3, 9), r.integer(0, 4)
    scale = r.one([1.0, 0.5])
    boxes = rois(r, count, h - 1, w - 1, scale)
    whole = np.concatenate([r.between(0, n - 1, (count, 1)), np.floor(boxes)], 1).astype(dtype_of(dtype))
    return Case(
        "MaxRoiPool",
        [r.floats(n, r.integer(1, 3), h, w, dtype=dtype), whole],
        {"pooled_shape": [r.integer(1, 3), r.integer(1, 3)], "spatial_scale": scale},
    )


@case("NonMaxSuppression")
def nms(r: Draw, opset: int) -> Case:
    n, count, classes = r.integer(1, 2), r.integer(0, 9), r.integer(1, 3)
    boxes = r.rng.uniform(0, 1, (n, count, 4)).astype(np.float32)
    scores = r.rng.uniform(0, 1, (n, classes, count)).astype(np.float32)
    return Case(
        "NonMaxSuppression",
        [
            boxes,
            scores,
            ints([r.integer(0, 5)]).reshape(r.one([(), (1,)])) if r.flag(0.8) else None,
            np.array([r.real(0, 0.9)], np.float32) if r.flag() else None,
            np.array([r.real(0, 0.9)], np.float32) if r.flag() else None,
        ],
        r.some({"center_point_box": r.integer(0, 1)}),
    )


# ---- losses ------------------------------------------------------------------------------------------------


@case("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    n, c = r.integer(1, 4), r.integer(1, 5)
    rest = r.shape(0, 2, empty=False, largest=30)
    x = r.floats(n, c, *rest, dtype=dtype)
    target = r.between(0, c - 1, (n, *rest), r.dtype(opset, 1))
    attributes = r.some({"reduction": r.one(["none", "mean", "sum"])}) | r.some(
        {"ignore_index": r.integer(0, c - 1)}, 0.4
    )
    weight = np.abs(r.floats(c, dtype=dtype)) if r.flag() else None
    return Case(r.op, [x, target, weight], attributes, 2 if r.op[0] == "S" and r.flag() else 1)


# ---- signals -----------------------------------------------------------------------------------------------


@case("DFT")
def dft(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    parts = r.one([1, 2])
    dims = [r.integer(1, 3) for _ in range(r.integer(1, 2))] + [r.integer(1, 9)]
    x = r.floats(*dims, parts, dtype=dtype)
    axis = r.integer(1 if opset < 20 else 0, len(dims) - 1)
    inverse, onesided = r.integer(0, 1), r.integer(0, 1)
    length = np.array(r.integer(1, 9), r.one([np.int64, np.int32])) if r.flag(0.4) else None
    if opset < 20:
        attributes = {"axis": axis} if axis != 1 or r.flag() else {}
        rest: list[Any] = [length]
    else:
        attributes, rest = {}, [length, np.array(axis - len(dims) - 1 if r.flag(0.3) else axis, np.int64)]
    if onesided and parts == 1 and not inverse:
        attributes["onesided"] = 1
    if inverse and parts == 2:
        attributes["inverse"] = 1
        if onesided and opset >= 20 and r.flag():
            attributes["onesided"] = 1
    return Case("DFT", [x, *rest], attributes)


@case("STFT")
def stft(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    length, frame = r.integer(8, 30), r.integer(2, 8)
    kind = r.dtype(opset, 1)
    shape = (
        r.one([(r.integer(1, 2), length, 1), (r.integer(1, 2), length)]) if r.flag(0.8) else (1, length, 2)
    )
    onesided = 0 if shape[-1] == 2 else r.integer(0, 1)
    window_ = r.floats(frame, dtype=dtype) if r.flag(0.7) else None
    given = np.array(frame, dtype_of(kind)) if window_ is None or r.flag(0.3) else None
    return Case(
        "STFT",
        [r.floats(*shape, dtype=dtype), np.array(r.integer(1, 4), dtype_of(kind)), window_, given],
        {"onesided": onesided} if not onesided or r.flag() else {},
    )


@case("HannWindow", "HammingWindow", "BlackmanWindow")
def hann(r: Draw, opset: int) -> Case:
    return Case(
        r.op,
        [np.array(r.integer(1, 20), dtype_of(r.dtype(opset)))],
        r.some({"periodic": r.integer(0, 1), "output_datatype": r.one([1, 11, 10])}),
    )


@case("MelWeightMatrix")
def mel(r: Draw, opset: int) -> Case:
    kind, real = r.dtype(opset), r.dtype(opset, 3)
    sizes = [np.array(v, dtype_of(kind)) for v in (r.integer(1, 9), r.integer(8, 40), r.integer(4000, 16000))]
    return Case(
        "MelWeightMatrix",
        [*sizes, *(np.asarray(v).astype(dtype_of(real)) for v in (r.integer(0, 300), r.integer(500, 2000)))],
        r.some({"output_datatype": r.one([1, 11, 10])}),
    )
