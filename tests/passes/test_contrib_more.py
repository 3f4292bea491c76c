"""com.microsoft's operators that few models contain, against onnxruntime where its CPU has a kernel, else
against what their description says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest

import ingot
from tests.passes.test_contrib import compare, f, model
from tests.processors import weights_in_range

R = np.random.default_rng(11)


def run(op: str, feed: Sequence[np.ndarray | None], outputs: int = 1, **attributes: Any) -> list[np.ndarray]:
    proto, named = model(op, feed, outputs, **attributes)
    return ingot.InferenceSession(proto).run(None, named)


def held(proto: onnx.ModelProto, named: dict[str, np.ndarray], constant: Sequence[int]) -> None:
    """Makes some inputs initializers."""
    for i in sorted(constant, reverse=True):
        name = f"i{i}"
        if name in named:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(named.pop(name), name))
            (found,) = [v for v in proto.graph.input if v.name == name]
            proto.graph.input.remove(found)


# ---- experts -----------------------------------------------------------------------------------------------


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Small numbers in bytes along the last dimension, the first one lowest."""
    each = 8 // bits
    width = -(-codes.shape[-1] // each) * each
    whole = np.zeros((*codes.shape[:-1], width), np.uint8)
    whole[..., : codes.shape[-1]] = codes
    parts = whole.reshape(*codes.shape[:-1], -1, each).astype(np.uint16)
    return (parts << (bits * np.arange(each))).sum(-1).astype(np.uint8)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [0, 32])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("activation", ["swiglu", "silu"])
def test_experts_of_integers(bits: int, block: int, zeros: bool, activation: str) -> None:
    experts, hidden, inner, fused = 3, 64, 32, 2 if activation == "swiglu" else 1
    feed: list[np.ndarray | None] = [f(5, hidden), f(5, experts), *[None] * 12]
    floats: list[np.ndarray] = []
    for which, (rows, depth) in enumerate(((fused * inner, hidden), (hidden, inner))):
        codes = R.integers(0, 1 << bits, (experts, rows, depth))
        scales = R.uniform(0.5, 1.5, (experts, rows, depth // (block or depth))).astype(np.float32) / (
            4 << bits
        )
        zero = R.integers(0, 1 << bits, scales.shape) if zeros else np.full(scales.shape, 1 << (bits - 1))
        floats.append((codes - np.repeat(zero, block or depth, 2)) * np.repeat(scales, block or depth, 2))
        feed[2 + 3 * which] = packed(codes, bits)
        feed[3 + 3 * which] = scales if block else scales[..., 0]
        feed[4 + 3 * which] = f(experts, rows)
        if zeros:
            feed[11 + which] = packed(zero if block else zero[..., 0], bits)
    attributes: dict[str, Any] = {"k": 2, "normalize_routing_weights": 1, "activation_type": activation}
    attributes |= {"expert_weight_bits": bits} | ({"block_size": block} if block else {})
    if activation == "swiglu":
        attributes |= {
            "swiglu_fusion": 1,
            "swiglu_limit": 7.0,
            "activation_alpha": 1.7,
            "activation_beta": 1.0,
        }
    proto, named = model("QMoE", feed, 1, fixed=True, **attributes)
    held(proto, named, range(2, 14))
    (got,) = ingot.InferenceSession(proto).run(None, named)
    plain = [feed[0], feed[1], floats[0].astype(np.float32), feed[4], floats[1].astype(np.float32), feed[7]]
    own = {k: v for k, v in attributes.items() if k not in ("expert_weight_bits", "block_size")}
    (want,) = run("MoE", plain, **own)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    try:
        (peer,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, named)
    except Exception as error:
        pytest.skip(f"equal to MoE; onnxruntime: {str(error)[:60]}")
    tolerance = 0.03 if bits == 8 else 1e-3  # its products of 8 bits round what they multiply
    np.testing.assert_allclose(got, peer, rtol=tolerance, atol=tolerance * np.abs(want).max())


# ---- attention ---------------------------------------------------------------------------------------------

B, N, H, PAST = 2, 3, 8, 5


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_decoders_row(mask: bool, bias: bool) -> None:
    rows = [f(B, 1, N * H) for _ in range(3)]
    kept = np.array([[1] * (PAST + 1), [0, 0, *[1] * (PAST - 1)]], np.int32) if mask else None
    more = f(3 * N * H) if bias else None
    past = [f(B, N, PAST, H) for _ in range(2)]
    joined = [*rows, kept, None, *past, *[None] * 3, more]
    grown = run("DecoderMaskedMultiHeadAttention", joined, 3, num_heads=N)
    buffers = [np.concatenate([p, f(B, N, 3, H)], 2) for p in past]
    feed = [*rows, kept, None, *buffers, np.array([PAST], np.int32), None, None, more]
    shared = {"num_heads": N, "past_present_share_buffer": 1}
    compare("DecoderMaskedMultiHeadAttention", feed, 3, **shared)
    put = run("DecoderMaskedMultiHeadAttention", feed, 3, **shared)
    for i, (a, b) in enumerate(zip(grown, put, strict=True)):
        np.testing.assert_allclose(a, b[:, :, : PAST + 1] if i else b, rtol=1e-5, atol=1e-6)
    other = [rows[0], *past, None if kept is None else kept[:, 1:]]
    (cross,) = run("DecoderMaskedMultiHeadAttention", other, 1, **shared)  # onnxruntime's CPU has none
    (same,) = run("MultiHeadAttention", [*other[:3], None, other[3]], 1, num_heads=N)
    np.testing.assert_allclose(cross, same, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotations_by_three_positions(layout: int, interleaved: int) -> None:
    angle = R.uniform(0, 6, (20, H // 2)).astype(np.float32)
    places = R.integers(0, 20, (3, B, 4))
    proto, named = model(
        "MRotaryEmbedding",
        [f(B, 4, N * H), places, np.cos(angle), np.sin(angle)],
        1,
        fixed=True,
        mrope_section=[2, 1, 1],
        mrope_layout=layout,
        interleaved=interleaved,
        num_heads=N,
    )
    held(proto, named, (2, 3))
    (want,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, named)
    (got,) = ingot.InferenceSession(proto).run(None, named)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_states() -> None:
    compare("CausalConvWithState", [f(2, 6, 9), f(6, 1, 4), f(6), f(2, 6, 3)], 2, activation="silu")
    q, k, v = f(2, 5, 16), f(2, 5, 16) / np.float32(4), f(2, 5, 24)
    gates = [-np.abs(f(2, 5, 2)), 1 / (1 + np.exp(f(2, 5, 2)))]
    compare("LinearAttention", [q, k, v, f(2, 2, 8, 12), *gates], 2, q_num_heads=2, kv_num_heads=2)
    compare("LinearAttentionGate", [f(2, 5, 3), f(3), -np.abs(f(3)), f(2, 5, 3)], 2)
    proto, named = model("CausalConvWithState", [f(2, 6, 9), f(6, 1, 4)], 1, dilation=2)
    with pytest.raises(ingot.UnsupportedOperatorError, match=r"CausalConvWithState.*dilation is 2"):
        ingot.InferenceSession(proto).run(None, named)


# ---- integers ----------------------------------------------------------------------------------------------


def quantised(*shape: int, dtype: Any = np.uint8) -> list[np.ndarray]:
    low = np.iinfo(dtype).min
    return [
        R.integers(low, low + 256, shape).astype(dtype),
        np.array(R.uniform(0.01, 0.1), np.float32),
        np.array(low + int(R.integers(100, 150)), dtype),
    ]


def test_one_of_two_quantised_tensors() -> None:
    where = R.random((4, 5)) < 0.5
    compare("QLinearWhere", [where, *quantised(4, 5), *quantised(5), *quantised(1)[1:]])


@pytest.mark.parametrize("last", [0, 1])
def test_convolutions_of_integers(last: int) -> None:
    x = quantised(2, 7, 8, 4) if last else quantised(2, 4, 7, 8)
    weights, *scale = quantised(6, 4, 3, 3, dtype=np.int8)
    feed = [*x, weights_in_range(weights), *scale, *quantised(1)[1:]]
    proto, named = model("QLinearConv", feed, 1, fixed=True, channels_last=last, pads=[1, 1, 1, 1])
    held(proto, named, range(1, 8))
    (want,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, named)
    (got,) = ingot.InferenceSession(proto).run(None, named)
    assert np.abs(got.astype(int) - want).max() <= 1
    assert (got != want).mean() < 0.01


@pytest.mark.parametrize("segments", [False, True])
def test_embeddings_of_integers(segments: bool) -> None:
    ids = R.integers(0, 9, (2, 6)).astype(np.int32)
    about = R.integers(0, 2, ids.shape).astype(np.int32) if segments else None
    tables = [quantised(n, 16) if n else quantised(16) for n in (9, 8, 2, 0, 0)]
    if not segments:
        tables[2] = [None, None, None]  # type: ignore[list-item]
    columns = [[table[i] for table in tables] for i in range(3)]
    mask = np.array([[1] * 6, [1, 1, 1, 0, 0, 0]], np.int32)
    feed = [ids, about, *columns[0], mask, *columns[1], *columns[2]]
    proto, named = model("QEmbedLayerNormalization", feed, 2, fixed=True)
    want = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, named)
    got = ingot.InferenceSession(proto).run(None, named)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-4, atol=1e-4)
    assert got[1].tolist() == want[1].tolist()


# ---- small ones --------------------------------------------------------------------------------------------


def test_windows_along_a_dimension() -> None:
    for dim, size, step in ((-1, 3, 1), (1, 2, 2), (0, 4, 3)):
        compare("UnfoldTensor", [f(5, 6, 7)], dim=dim, size=size, step=step)


def test_what_only_other_providers_compute() -> None:
    a, b = f(3, 4, 2), f(3, 4, 2)
    first, second = a[..., 0] + 1j * a[..., 1], b[..., 0] + 1j * b[..., 1]
    for op, want in (("ComplexMul", first * second), ("ComplexMulConj", first * second.conj())):
        np.testing.assert_allclose(run(op, [a, b])[0], np.stack([want.real, want.imag], -1), atol=1e-5)
    x = f(3, 16)
    (back,) = run("Irfft", [np.stack([np.fft.rfft(x).real, np.fft.rfft(x).imag], -1).astype(np.float32)])
    np.testing.assert_allclose(back, x, atol=1e-5)
    image, weight = f(2, 3, 9, 8), f(6, 3, 3, 3)
    (y,) = run("NhwcConv", [image.transpose(0, 2, 3, 1).copy(), weight], pads=[1, 1, 1, 1])
    plain = model("Conv", [image, weight], 1, domain="", pads=[1, 1, 1, 1])
    (want,) = onnxruntime.InferenceSession(plain[0].SerializeToString()).run(None, plain[1])
    np.testing.assert_allclose(y.transpose(0, 3, 1, 2), want, atol=1e-4)
    y, mask = run("BiasDropout", [f(2, 4), np.ones(4, np.float32), np.ones((2, 4), np.float32)], 2)
    assert mask.all()


def softmax(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    e = np.exp(x - x.max(axes, keepdims=True))
    return e / e.sum(axes, keepdims=True)


def test_softmax_with_a_bias() -> None:
    x, inner, outer = f(2, 3, 4, 5), f(2, 1, 1, 5), f(4, 5)
    (y,) = run("BiasSoftmax", [x, inner], axis=3, is_inner_broadcast=1)
    np.testing.assert_allclose(y, softmax(x + inner, (3,)), atol=1e-6)
    (y,) = run("BiasSoftmax", [x, inner[:, 0, 0]], axis=3, is_inner_broadcast=1)
    np.testing.assert_allclose(y, softmax(x + inner, (3,)), atol=1e-6)
    (y,) = run("BiasSoftmax", [x, outer], axis=2, is_inner_broadcast=0)
    np.testing.assert_allclose(y, softmax(x + outer, (2, 3)), atol=1e-6)


def test_gates_with_a_limit() -> None:
    gate, up = 3 * f(4, 6), 3 * f(4, 6)
    bounds = {"limit": 2.0, "activation_alpha": 1.7, "activation_beta": 1.0}
    g, l = np.minimum(gate, 2), np.clip(up, -2, 2)  # noqa: E741
    want = g / (1 + np.exp(-1.7 * g)) * (l + 1)
    np.testing.assert_allclose(run("SwiGLU", [gate, up], **bounds)[0], want, rtol=1e-5, atol=1e-6)
    both = np.concatenate([gate, up], 1)
    np.testing.assert_allclose(run("SwiGLU", [both], **bounds)[0], want, rtol=1e-5, atol=1e-6)
    want = gate / (1 + np.exp(-gate)) * up
    np.testing.assert_allclose(run("SwiGLU", [gate, up])[0], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("both", [0, 1])
def test_buckets_of_distances(both: int) -> None:
    """As T5 computes them (Raffel et al., 2020)."""
    count, farthest, length = 32, 60, 90
    table = f(count, 3)
    proto, named = model(
        "RelativePositionBias",
        [table, np.array([length]), np.array([length])],
        1,
        fixed=True,
        is_bidirectional=both,
        max_distance=farthest,
    )
    held(proto, named, (0,))
    (got,) = ingot.InferenceSession(proto).run(None, named)
    away = np.arange(length)[None] - np.arange(length)[:, None]
    half = count // 2 if both else count
    first = np.where(away > 0, half, 0) if both else 0
    away = np.abs(away) if both else np.maximum(-away, 0)
    exact = half // 2
    large = exact + (np.log(np.maximum(away, 1) / exact) / np.log(farthest / exact) * (half - exact)).astype(
        int
    )
    bucket = first + np.where(away < exact, away, np.minimum(large, half - 1))
    assert (got[0] != table[bucket].transpose(2, 0, 1)).mean() < 0.01  # a logarithm at the edge of a bucket


# ---- strings, hashes, paths --------------------------------------------------------------------------------

TEXTS = np.array([["Hello World", "I love computer science !"], ["", "a,b;;c  déjà"]], object)
WAYS: dict[str, dict[str, Any]] = {
    "spaces": {"separators": [" "]},
    "several": {"separators": [",", ";", " +"]},
    "letters": {"separators": [""]},
    "characters": {"tokenexp": "."},
    "words": {"tokenexp": "[a-z]+"},
    "the longest": {"tokenexp": "l|lo|love|a?"},
    "at least two": {"separators": [" "], "mincharnum": 2},
}


@pytest.mark.parametrize("mark", [0, 1])
@pytest.mark.parametrize("way", WAYS)
def test_words(way: str, mark: int) -> None:
    for texts in (TEXTS, TEXTS[0], TEXTS[1, :1]):
        attributes = {"mincharnum": 1, "pad_value": "#", "mark": mark} | WAYS[way]
        proto, named = model("Tokenizer", [texts.astype("U")], 1, **attributes)
        proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
        named["i0"] = texts
        (want,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, named)
        (got,) = ingot.InferenceSession(proto).run(None, named)
        assert got.shape == want.shape
        assert got.tolist() == want.tolist()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_repeated_words(size: int) -> None:
    ids, scores = np.array([[1, 2, 3, 1, 2, 4, 1, 2], [0] * 8, [5, 4, 3, 2, 1, 0, 5, 4]]), f(3, 6)
    proto, named = model("NGramRepeatBlock", [ids, scores], 1, ngram_size=size)
    (want,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, named)
    assert np.isinf(want).any()
    np.testing.assert_array_equal(ingot.InferenceSession(proto).run(None, named)[0], want)


def test_paths() -> None:
    compare("DynamicTimeWarping", [f(7, 9)])
    compare("DynamicTimeWarping", [np.abs(f(1, 12, 5))])


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("seed", [0, 77])
def test_hashes(positive: int, seed: int) -> None:
    for x in (R.integers(-9, 9, (3, 4)).astype(np.int32), R.integers(0, 9, 5), f(6), f(3).astype(np.float64)):
        compare("MurmurHash3", [x], positive=positive, seed=seed)
    texts = np.array(["", "a", "ab", "abc", "abcd", "déjà vu"], object)
    proto, named = model("MurmurHash3", [texts.astype("U")], 1, positive=positive, seed=seed)
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    named["i0"] = texts
    (want,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, named)
    assert ingot.InferenceSession(proto).run(None, named)[0].tolist() == want.tolist()
