"""com.microsoft's operators against onnxruntime, over attributes and optional inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
from onnx import helper

import ingot
from ingot.errors import UnsupportedOperatorError
from tests.processors import weights_in_range

R = np.random.default_rng(7)
B, S, N, H = 2, 5, 4, 8
D = N * H


def f(*shape: int) -> np.ndarray:
    return R.standard_normal(shape).astype(np.float32)


def model(
    op: str,
    feed: Sequence[np.ndarray | None],
    outputs: int | Sequence[int],
    domain: str = "com.microsoft",
    fixed: bool = False,
    **attributes: Any,
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of the node alone, every size dynamic unless fixed. outputs: how many, or which."""
    named = {f"i{i}": a for i, a in enumerate(feed) if a is not None}
    inputs = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(a.dtype),
            a.shape if fixed else [f"{name}_{d}" for d in range(a.ndim)],
        )
        for name, a in named.items()
    ]
    wanted = range(outputs) if isinstance(outputs, int) else outputs
    results = [helper.make_tensor_value_info(f"o{i}", 0, None) for i in wanted]
    for value in results:
        value.type.Clear()
    names = [f"i{i}" if a is not None else "" for i, a in enumerate(feed)]
    shown = [f"o{i}" if i in wanted else "" for i in range(max(wanted) + 1)]
    node = helper.make_node(op, names, shown, domain=domain, **attributes)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", inputs, results)
    return helper.make_model(graph, opset_imports=opsets, ir_version=9), named


def compare(
    op: str,
    feed: Sequence[np.ndarray | None],
    outputs: int = 1,
    domain: str = "com.microsoft",
    **attributes: Any,
) -> None:
    proto, named = model(op, feed, outputs, domain, **attributes)
    want = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, named)
    got = ingot.InferenceSession(proto).run(None, named)
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"output {i}"
        if b.dtype.kind == "f":
            assert np.abs(a - b).max(initial=0) <= 2e-5 * max(1.0, np.abs(b).max(initial=0)), f"output {i}"
        else:
            np.testing.assert_array_equal(a, b)


X, BIAS, IMAGE = f(B, S, D), f(D), f(B, 3, 9, 8)
W = f(6, 3, 3, 3)
CASES: dict[str, tuple[str, list[np.ndarray | None], int | Sequence[int], dict[str, Any]]] = {
    "Gelu": ("Gelu", [X], 1, {}),
    "FastGelu": ("FastGelu", [X], 1, {}),
    "FastGelu bias": ("FastGelu", [X, BIAS], 1, {}),
    "QuickGelu": ("QuickGelu", [X], 1, {}),
    "QuickGelu alpha": ("QuickGelu", [X], 1, {"alpha": 1.3}),
    "BiasGelu": ("BiasGelu", [X, BIAS], 1, {}),
    "SkipLayerNormalization": ("SkipLayerNormalization", [X, f(B, S, D), BIAS], 1, {}),
    "SkipLayerNormalization all": (
        "SkipLayerNormalization",
        [X, f(B, S, D), BIAS, f(D), f(D)],
        4,
        {"epsilon": 1e-5},
    ),
    "SkipSimplified": ("SkipSimplifiedLayerNormalization", [X, f(B, S, D), BIAS], 1, {}),
    "SkipSimplified all": (
        "SkipSimplifiedLayerNormalization",
        [X, f(B, S, D), BIAS, f(D)],
        (0, 3),
        {"epsilon": 1e-5},
    ),
    "FusedConv": ("FusedConv", [IMAGE, W, f(6)], 1, {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    "FusedConv sum": ("FusedConv", [IMAGE, W, f(6), f(B, 6, 7, 6)], 1, {"activation": "Relu"}),
    "FusedConv leaky": (
        "FusedConv",
        [IMAGE, W],
        1,
        {"activation": "LeakyRelu", "activation_params": [0.2], "strides": [2, 1]},
    ),
    "FusedConv clip": ("FusedConv", [IMAGE, W], 1, {"activation": "Clip", "activation_params": [-0.5, 1.0]}),
    "FusedConv hard": (
        "FusedConv",
        [IMAGE, W],
        1,
        {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]},
    ),
    "FusedMatMul": ("FusedMatMul", [f(B, S, D), f(B, D, 3)], 1, {"alpha": 0.5}),
    "FusedMatMul turned": ("FusedMatMul", [f(B, D, S), f(B, 3, D)], 1, {"transA": 1, "transB": 1}),
    "FusedMatMul batch": ("FusedMatMul", [f(S, B, D), f(B, D, 3)], 1, {"transBatchA": 1}),
    "FusedGemm": (
        "FusedGemm",
        [f(S, D), f(3, D), f(3)],
        1,
        {"transB": 1, "alpha": 0.5, "activation": "Relu"},
    ),
    "FusedGemm leaky": (
        "FusedGemm",
        [f(S, D), f(D, 3), f(3)],
        1,
        {"activation": "LeakyRelu", "activation_alpha": 0.3},
    ),
    "Trilu": ("Trilu", [f(4, 6), np.array(1)], 1, {"upper": 0}),
    "CDist": ("CDist", [f(4, 6), f(3, 6)], 1, {"metric": "euclidean"}),
    "CDist square": ("CDist", [f(4, 6), f(3, 6)], 1, {"metric": "sqeuclidean"}),
    "Unique": ("Unique", [np.array([2, 1, 1, 3, 4, 3], np.float32)], 3, {}),
    "ExpandDims": ("ExpandDims", [X, np.array(-1, np.int32)], 1, {}),
    "Pad": ("Pad", [X, np.array([0, 1, 0, 0, 0, 2])], 1, {}),
    "NhwcMaxPool": (
        "NhwcMaxPool",
        [R.integers(0, 256, (B, 9, 8, 5)).astype(np.uint8)],
        1,
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
    ),
    "NhwcMaxPool signed": (
        "NhwcMaxPool",
        [R.integers(-128, 128, (B, 9, 8, 5)).astype(np.int8)],
        1,
        {"kernel_shape": [3, 3], "dilations": [2, 1], "ceil_mode": 1, "strides": [2, 2]},
    ),
    "Inverse": ("Inverse", [f(2, 4, 4)], 1, {}),
    "GridSample": ("GridSample", [IMAGE, np.tanh(f(B, 4, 5, 2))], 1, {"align_corners": 1}),
    "BiasSplitGelu": ("BiasSplitGelu", [f(B, S, 2 * D), f(2 * D)], 1, {}),
    "BiasAdd": ("BiasAdd", [X, BIAS, f(B, S, D)], 1, {}),
}


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("BiasSplitGelu", "BiasAdd")])
def test_operators(name: str) -> None:
    op, feed, outputs, attributes = CASES[name]
    compare(op, feed, outputs, **attributes)


def erf(x: np.ndarray) -> np.ndarray:
    import torch

    return torch.erf(torch.from_numpy(x)).numpy()


def run(proto: onnx.ModelProto, named: dict[str, np.ndarray]) -> list[np.ndarray]:
    return ingot.InferenceSession(proto).run(None, named)


def test_fused_operators_that_onnxruntime_has_on_gpus_alone() -> None:
    """By the formulas of its documentation, computed by PyTorch in float64."""
    import torch
    from torch.nn import functional

    def wide(a: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(a).double()

    def close(got: np.ndarray, want: torch.Tensor) -> None:
        np.testing.assert_allclose(got, want.numpy(), rtol=2e-5, atol=2e-5)

    a, b, bias = f(B, S, D), f(D, 3 * D) / 6, f(3 * D)
    (got,) = run(*model("GemmFastGelu", [a, b, bias], 1))
    close(got, functional.gelu(wide(a) @ wide(b) + wide(bias), approximate="tanh"))

    x, w, c, z = f(B, 9, 8, 3), f(6, 3, 3, 3), f(6), f(B, 9, 8, 6)
    attributes: dict[str, Any] = {"pads": [1, 1, 1, 1], "activation": "LeakyRelu", "activation_params": [0.2]}
    (got,) = run(*model("NhwcFusedConv", [x, w, c, z], 1, **attributes))
    y = functional.conv2d(wide(x).permute(0, 3, 1, 2), wide(w), wide(c), padding=1).permute(0, 2, 3, 1)
    close(got, functional.leaky_relu(y + wide(z), 0.2))

    image, gamma, beta, more = f(B, 4, 5, 8), f(8), f(8), f(8)
    for skip in (f(B, 4, 5, 8), f(B, 1, 1, 8), f(B, 8)):
        got, total = run(
            *model("SkipGroupNorm", [image, gamma, beta, skip, more], 2, groups=2, activation=1, epsilon=1e-5)
        )
        beside = wide(skip if skip.ndim == 4 else skip[:, None, None])
        sum_ = wide(image) + beside + wide(more)
        close(total, sum_)
        normal = functional.group_norm(sum_.permute(0, 3, 1, 2), 2, wide(gamma), wide(beta), 1e-5)
        close(got, functional.silu(normal).permute(0, 2, 3, 1))


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 1, 1]])
def test_transposed_convolution_whose_pads_are_an_input(pads: list[int]) -> None:
    feed = [f(B, 3, 5, 6), f(3, 4, 3, 3), np.array(pads), f(4)]
    proto, named = model("ConvTransposeWithDynamicPads", feed, 1, strides=[2, 1], output_padding=[1, 0])
    want = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, named)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(named.pop("i2"), "i2"))
    del proto.graph.input[2]
    np.testing.assert_allclose(run(proto, named)[0], want[0], rtol=2e-5, atol=2e-5)


def test_operators_that_onnxruntime_has_on_gpus_alone() -> None:
    """By the formulas of its documentation."""
    op, feed, outputs, _ = CASES["BiasSplitGelu"]
    x, bias = (a for a in feed if a is not None)
    proto, named = model(op, feed, outputs)
    first, second = np.split(x + bias, 2, -1)
    (got,) = ingot.InferenceSession(proto).run(None, named)
    want = first * second * 0.5 * (1 + erf(second / np.float32(np.sqrt(2))))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    op, feed, outputs, _ = CASES["BiasAdd"]
    proto, named = model(op, feed, outputs)
    (got,) = ingot.InferenceSession(proto).run(None, named)
    np.testing.assert_allclose(got, sum(a for a in feed if a is not None), rtol=1e-5, atol=1e-6)
    signal = f(3, 16)
    proto, named = model("Rfft", [signal], 1, signal_ndim=1, normalized=0, onesided=1)
    (got,) = ingot.InferenceSession(proto).run(None, named)
    want = np.fft.rfft(signal)
    np.testing.assert_allclose(got, np.stack([want.real, want.imag], -1), rtol=1e-4, atol=1e-5)
    image = f(2, 4, 5, 8)
    gamma, beta = f(8), f(8)
    proto, named = model("GroupNorm", [image, gamma, beta], 1, groups=2, epsilon=1e-5, activation=1)
    groups = image.reshape(2, 20, 2, 4)
    mean, var = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    y = ((groups - mean) / np.sqrt(var + 1e-5)).reshape(image.shape) * gamma + beta
    (got,) = ingot.InferenceSession(proto).run(None, named)
    np.testing.assert_allclose(got, y / (1 + np.exp(-y)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_simplified_layer_normalization(domain: str) -> None:
    if domain:
        proto, named = model("SimplifiedLayerNormalization", [X, BIAS], 1, domain, epsilon=1e-6)
        (got,) = ingot.InferenceSession(proto).run(None, named)
        want = X / np.sqrt((X * X).mean(-1, keepdims=True) + 1e-6) * BIAS
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        return
    compare("SimplifiedLayerNormalization", [X, BIAS], 1, domain, epsilon=1e-6)
    compare("SimplifiedLayerNormalization", [X, BIAS], 2, domain, stash_type=1)


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_embeddings(segments: bool, masked: bool) -> None:
    ids = R.integers(0, 20, (B, S)).astype(np.int32)
    kinds = R.integers(0, 2, (B, S)).astype(np.int32) if segments else None
    mask = (np.arange(S) < np.array([[3], [5]])).astype(np.int32) if masked else None
    feed = [ids, kinds, f(20, D), f(9, D), f(2, D) if segments else None, f(D), f(D)]
    compare("EmbedLayerNormalization", [*feed, mask] if masked else feed, 2, fixed=True, epsilon=1e-5)
    if masked:
        places = np.tile(np.arange(S)[::-1], (B, 1)).astype(np.int32)
        compare("EmbedLayerNormalization", [*feed, mask, places], 2, fixed=True)


LENGTHS = np.array([3, 5], np.int32)
SOME = (np.arange(S) < LENGTHS[:, None]).astype(np.int32)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("mask", ["none", "lengths", "keys", "pairs"])
def test_attention_of_one_input(mask: str, causal: int) -> None:
    masks = {"none": None, "lengths": LENGTHS, "keys": SOME, "pairs": np.tril(np.ones((B, S, S), np.int32))}
    feed = [X, f(D, 3 * D) / 4, f(3 * D), masks[mask]]
    compare("Attention", feed[: 4 if mask != "none" else 3], num_heads=N, unidirectional=causal)
    if mask == "none":
        compare("Attention", [*feed[:3], None, f(2, B, N, 3, H)], 2, num_heads=N, unidirectional=causal)
        compare("Attention", [*feed[:3], None, None, f(B, N, S, S)], num_heads=N, scale=0.2)
        sizes = {"num_heads": N, "qkv_hidden_sizes": [D, D, 2 * D]}
        compare("Attention", [X, f(D, 4 * D) / 4, f(4 * D)], **sizes)


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_of_queries_keys_and_values(causal: int) -> None:
    q, k, v = f(B, S, D), f(B, S, D), f(B, S, D)
    common = {"num_heads": N, "unidirectional": causal}
    compare("MultiHeadAttention", [q, k, v], **common)
    compare("MultiHeadAttention", [q, k, v, f(3 * D)], **common, scale=0.3)
    compare("MultiHeadAttention", [q, k, v, None, SOME], **common)
    compare("MultiHeadAttention", [q, k, v, None, None, f(1, N, S, S)], **common)
    compare("MultiHeadAttention", [q, k, v, None, None, None, f(B, N, 3, H), f(B, N, 3, H)], 3, **common)
    if not causal:
        compare("MultiHeadAttention", [q, f(B, 7, D), f(B, 7, D)], **common)
        compare("MultiHeadAttention", [q, f(B, N, 7, H), f(B, N, 7, H)], **common)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding(interleaved: int) -> None:
    cos, sin = np.cos(f(20, H // 2)), np.sin(f(20, H // 2))
    places = np.array([[0, 1, 2, 3, 4], [7, 8, 9, 10, 11]])
    common = {"interleaved": interleaved}
    compare("RotaryEmbedding", [f(B, N, S, H), places, cos, sin], **common)
    compare("RotaryEmbedding", [f(B, N, S, H), np.array([3]), cos, sin], **common)
    compare("RotaryEmbedding", [f(B, S, D), places, cos, sin], **common, num_heads=N)
    half = {"num_heads": N, "rotary_embedding_dim": H // 2}
    compare("RotaryEmbedding", [f(B, S, D), places, cos[:, :2], sin[:, :2]], **common, **half)


def compare_in_place(op: str, feed: Sequence[np.ndarray | None], **attributes: Any) -> None:
    """With the caches, inputs 3 and 4, bound as outputs too: only so onnxruntime keeps what is in them."""
    proto, named = model(op, feed, 3, **attributes)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(a.copy()) for name, a in named.items()}
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("o0")
    for name, cache in (("o1", "i3"), ("o2", "i4")):
        binding.bind_ortvalue_output(name, values[cache])
    session.run_with_iobinding(binding)
    want = [value.numpy() for value in binding.get_outputs()]
    for a, b in zip(ingot.InferenceSession(proto).run(None, named), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def grouped(rows: int, kept: int, lengths: list[int], total: int, h: int = 16) -> list[np.ndarray | None]:
    """Inputs of an attention whose 4 heads of queries share 2 of keys."""
    batch = len(lengths)
    new = [f(batch, rows, N * h), f(batch, rows, 2 * h), f(batch, rows, 2 * h)]
    past = [f(batch, 2, kept, h), f(batch, 2, kept, h)]
    return [*new, *past, np.array(lengths, np.int32), np.array(total, np.int32)]


#: A prompt; one token and three after what is kept; rows of other lengths in a cache of fixed size.
GROUPED = [
    grouped(S, 0, [S - 1, S - 1], S),
    grouped(1, 6, [6, 6], 7),
    grouped(3, 6, [8], 9),
    grouped(1, 12, [6, 3], 7),
    grouped(4, 12, [6], 7),
    grouped(S, 12, [S - 1, S - 1], S),
]


@pytest.mark.parametrize("rotary", [0, 1, 2])
@pytest.mark.parametrize("window", [-1, 3])
@pytest.mark.parametrize("case", range(len(GROUPED)))
def test_attention_of_groups(case: int, rotary: int, window: int) -> None:
    feed = GROUPED[case]
    tables: list[np.ndarray | None] = [np.cos(f(20, 8)), np.sin(f(20, 8))] if rotary else []
    common = {"num_heads": N, "kv_num_heads": 2, "do_rotary": int(rotary > 0), "local_window_size": window}
    common["rotary_interleaved"] = int(rotary == 2)
    packed = np.concatenate([a for a in feed[:3] if a is not None], -1)
    inputs: list[list[np.ndarray | None]] = [[*feed, *tables], [packed, None, None, *feed[3:], *tables]]
    for values in inputs:
        for extra in ({}, {"softcap": 5.0, "scale": 0.4}):
            if case < 3:
                compare("GroupQueryAttention", values, 3, **common, **extra)
            else:
                compare_in_place("GroupQueryAttention", values, **common, **extra)


@pytest.mark.parametrize("case", range(3))
def test_attention_of_groups_with_a_sink_and_a_bias(case: int) -> None:
    feed, common = GROUPED[case], {"num_heads": N, "kv_num_heads": 2}
    assert feed[0] is not None
    assert feed[6] is not None
    rows, total = feed[0].shape[1], int(feed[6])
    nothing: list[np.ndarray | None] = [None] * 3
    compare("GroupQueryAttention", [*feed, *nothing, f(len(feed[0]), N, rows, total)], 3, **common)
    compare("GroupQueryAttention", [*feed, *nothing, f(1, 1, rows, total)], 3, **common)
    compare("GroupQueryAttention", [*feed, *nothing, None, f(N)], 3, **common)
    compare("GroupQueryAttention", feed, 3, **common, smooth_softmax=1)


def test_attention_of_groups_is_native_where_the_length_follows_from_shapes() -> None:
    proto, named = model("GroupQueryAttention", GROUPED[1], 3, num_heads=N, kv_num_heads=2)
    named["mask"] = np.ones((B, 7), np.int64)
    mask = helper.make_tensor_value_info("mask", onnx.TensorProto.INT64, ["b", "t"])
    del proto.graph.input[6], named["i6"]
    proto.graph.input.append(mask)
    before = [
        helper.make_node("Shape", ["mask"], ["all"], start=1),
        helper.make_node("Cast", ["all"], ["i6"], to=onnx.TensorProto.INT32),
    ]
    nodes = [*before, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    found = ingot.InferenceSession(proto).profile(named, 1)
    assert not [node.op_type for node in found if node.kind == "host"]


@pytest.mark.parametrize("mask", ["none", "lengths"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_attention_of_a_quantised_product(mask: str, dtype: type) -> None:
    low = np.iinfo(dtype).min
    x = R.integers(0, 256, (B, S, D)).astype(np.uint8)
    w = weights_in_range(R.integers(low, low + 256, (D, 3 * D)).astype(dtype))
    scales = [np.float32(0.01), R.uniform(0.001, 0.004, 3 * D).astype(np.float32)]
    zeros = [np.array(100, np.uint8), np.full(3 * D, low + 128, dtype)]
    lengths = np.array([S, 3], np.int32) if mask == "lengths" else None
    feed = [x, w, f(3 * D), np.array(scales[0]), scales[1], lengths, *zeros]
    proto, named = model("QAttention", feed, 1, num_heads=N)
    try:
        want = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, named)
    except Exception as error:
        pytest.skip(str(error)[:80])
    np.testing.assert_allclose(run(proto, named)[0], want[0], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("kind", [0, 1])
def test_products_with_floats_of_four_bits(kind: int) -> None:
    n, k, block = 10, 48, 16
    codes = R.integers(0, 256, n * k // 2).astype(np.uint8)
    feed = [f(B, S, k), codes, np.abs(f(n * k // block))]
    proto, named = model("MatMulBnb4", feed, 1, fixed=True, N=n, K=k, block_size=block, quant_type=kind)
    for i in (2, 1):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(named.pop(f"i{i}"), f"i{i}"))
        del proto.graph.input[i]
    want = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, named)
    np.testing.assert_allclose(run(proto, named)[0], want[0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "identity", "swiglu"])
@pytest.mark.parametrize("normalised", [0, 1])
def test_experts(activation: str, normalised: int) -> None:
    experts, inner, fused = 4, 12, 2 if activation == "swiglu" else 1
    weights = [f(experts, fused * inner, D), f(experts, fused * inner), f(experts, D, inner), f(experts, D)]
    feed = [f(7, D), f(7, experts), *(w / np.float32(4) for w in weights)]
    own = {"swiglu_fusion": 1, "swiglu_limit": 1.5, "activation_alpha": 1.7, "activation_beta": 1.0}
    attributes: dict[str, Any] = {"k": 2, "normalize_routing_weights": normalised}
    attributes |= {"activation_type": activation, **(own if activation == "swiglu" else {})}
    compare("MoE", feed, **attributes)
    compare("MoE", [f(1, 3, D), f(3, experts), *feed[2:]], **attributes)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [[4, 3], [1, 5]])
def test_crops(mode: str, size: list[int]) -> None:
    boxes = np.array([[0.1, 0.2, 0.9, 0.7], [-0.2, 0.1, 1.2, 1.0], [0.8, 0.9, 0.1, 0.2]], np.float32)
    feed = [f(B, 3, 9, 8), boxes, np.array([1, 0, 1], np.int32), np.array(size, np.int32)]
    compare("CropAndResize", feed, mode=mode, extrapolation_value=-3.0)


def test_small_operators_of_newer_models() -> None:
    compare("GatherND", [f(4, 5, 6), np.array([[1, 2], [3, 0]])])
    compare("Range", [np.array(1.5, np.float32), np.array(9.0, np.float32)])
    compare("Range", [np.array(9), np.array(1), np.array(-3)])
    compare("SampleOp", [f(3, 4)])
    compare("ScaledSiLU", [f(3, 4)], alpha=1.7)
    compare("ScaledSiLU", [f(3, 4), np.array(0.3, np.float32)])
    compare("GatedAdd", [f(B, S, D), f(B, S, D), f(B, S, 1)])
    for kind in ("silu", "sigmoid"):
        compare("GatedRMSNorm", [f(B, S, D), f(H), f(B, S, D)], activation=kind, epsilon=1e-6)
    words = [R.integers(-99, 99, s).astype(np.int16) for s in ((3, 4), (4, 5))]
    compare("MatMulInteger16", words)


def test_what_cannot_be_said_is_refused_by_name() -> None:
    proto, _ = model("CDist", [f(4, 6), f(3, 6)], 1, metric="cityblock")
    with pytest.raises(ingot.UnsupportedOperatorError, match=r"CDist.*'cityblock' is unknown"):
        ingot.InferenceSession(proto)
    proto, _ = model("NoSuchThing", [X], 1)
    with pytest.raises(ingot.UnsupportedOperatorError, match="register_op"):
        ingot.InferenceSession(proto)


def test_blocks_of_channels_are_refused_with_what_to_do(tmp_path: Path) -> None:
    """What ONNX Runtime's highest level writes: the file does not say how large the blocks are."""
    x, y = (helper.make_tensor_value_info(name, 1, None) for name in "xy")
    w = onnx.numpy_helper.from_array(f(32, 16, 3, 3), "w")
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", [x], [y], [w])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "all.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    found = {node.domain for node in onnx.load(tmp_path / "all.onnx").graph.node}
    if "com.microsoft.nchwc" not in found:
        pytest.skip(f"onnxruntime has no blocks for this CPU: {found}")
    with pytest.raises(UnsupportedOperatorError, match="ORT_ENABLE_EXTENDED"):
        ingot.InferenceSession(tmp_path / "all.onnx")


def test_fused_forms_are_native() -> None:
    op, feed, outputs, attributes = CASES["FusedConv sum"]
    proto, named = model(op, feed, outputs, **attributes)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(named.pop("i1"), "i1"))
    del proto.graph.input[1]
    found = ingot.InferenceSession(proto).profile(named, 1)
    assert not [node.op_type for node in found if node.kind == "host"]


def lstm_inputs(directions: int, columns: bool, dtype: type, batch: int = 1) -> list[np.ndarray | None]:
    """Of 5 steps, 6 inputs and 8 hidden units; scales of whole matrices or of their columns."""
    hidden, low = 8, np.iinfo(dtype).min
    drawn = [R.integers(low, low + 256, (directions, n, 4 * hidden)).astype(dtype) for n in (6, hidden)]
    weights = [weights_in_range(w) for w in drawn]
    size = (directions, 4 * hidden) if columns else (directions,)
    scales = [R.uniform(0.002, 0.01, size).astype(np.float32) for _ in weights]
    zeros = [np.full(size, low + 128, dtype) for _ in weights]
    x, bias = f(5, batch, 6), f(directions, 8 * hidden) * np.float32(0.1)
    return [x, *weights, bias, None, None, None, None, scales[0], zeros[0], scales[1], zeros[1]]


def run_lstm(feed: list[np.ndarray | None], **attributes: Any) -> None:
    """Against onnxruntime on one thread: on more it takes each sequence's range instead of the batch's. It
    wants all but X and the states to be constants.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    proto, named = model("DynamicQuantizeLSTM", feed, 3, hidden_size=8, **attributes)
    for i in (1, 2, 3, 7, 8, 9, 10, 11):
        if (array := named.pop(f"i{i}", None)) is not None:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, f"i{i}"))
    for value in [v for v in proto.graph.input if v.name not in named]:
        proto.graph.input.remove(value)
    want = onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, named)
    got = ingot.InferenceSession(proto).run(None, named)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 2e-6, f"{np.abs(a - b).max():.1e} apart"


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize(("direction", "directions"), [("forward", 1), ("reverse", 1), ("bidirectional", 2)])
def test_a_quantised_lstm(direction: str, directions: int, columns: bool, dtype: type) -> None:
    run_lstm(lstm_inputs(directions, columns, dtype), direction=direction)


def test_a_quantised_lstm_with_everything() -> None:
    for lengths in ([5, 2, 3], [2, 5, 4], [4, 1, 2]):
        feed = lstm_inputs(2, False, np.int8, batch=3)
        feed[4] = np.array(lengths, np.int32)
        feed[5:7] = [np.tanh(f(2, 3, 8)), f(2, 3, 8)]
        feed[7] = f(2, 24)
        run_lstm(feed, direction="bidirectional", clip=2.0)
        run_lstm(feed, direction="bidirectional", input_forget=1)


def test_a_quantised_lstm_of_other_activations() -> None:
    feed = lstm_inputs(1, False, np.int8)
    proto, _ = model("DynamicQuantizeLSTM", feed, 3, hidden_size=8, activations=["Relu", "Tanh", "Tanh"])
    with pytest.raises(UnsupportedOperatorError, match="Relu"):
        ingot.InferenceSession(proto)
