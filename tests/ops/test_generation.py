"""com.microsoft's loops that write text, against onnxruntime, on a small decoder with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper as h
import onnx.numpy_helper
import onnxruntime
import pytest

import ingot
from ingot.errors import ShapeError, UnsupportedOperatorError

Feed = dict[str, np.ndarray]
INT, FLOAT = onnx.TensorProto.INT32, onnx.TensorProto.FLOAT
#: The inputs after input_ids and max_length, in their order.
SINGLE = ("min_length", "repetition_penalty", "vocab_mask", "prefix_vocab_mask", "attention_mask")
BEAMS = ("min_length", "num_beams", "num_return_sequences", "length_penalty", *SINGLE[1:])


def decoder(rng: np.random.Generator, words: int, heads: int, size: int, layers: int) -> onnx.GraphProto:
    """Attention over what is kept and what is new, of weights large enough that words differ."""
    nodes: list[onnx.NodeProto] = []
    width = heads * size
    held = {name: np.array(value, np.int64) for name, value in (("zero", [0]), ("axes", [1, 2]))}
    held |= {"split": np.array([0, 0, heads, size]), "merge": np.array([0, 0, width])}
    held |= {"one": np.array(1, np.float32), "hidden": np.array(-1e4, np.float32)}

    def weight(name: str, *shape: int) -> str:
        held[name] = (rng.standard_normal(shape) * 0.8).astype(np.float32)
        return name

    def op(kind: str, *inputs: str, to: str = "", count: int = 1, **attributes: Any) -> Any:
        made = [to or f"n{len(nodes)}_{i}" for i in range(count)]
        nodes.append(h.make_node(kind, inputs, made, **attributes))
        return made[0] if count == 1 else made

    x = op("Gather", weight("words", words, width), "input_ids")
    x = op("Add", x, op("Gather", weight("places", 64, width), "position_ids"))
    nodes.append(h.make_node("Cast", ["attention_mask"], ["seen"], to=FLOAT))
    away = op("Sub", "one", "seen")
    mask = op("Unsqueeze", op("Mul", away, "hidden"), "axes")
    for layer in range(layers):
        parts = [op("MatMul", x, weight(f"{c}{layer}", width, width)) for c in "qkv"]
        query, *new = (op("Transpose", op("Reshape", p, "split"), perm=[0, 2, 1, 3]) for p in parts)
        old = op("Split", f"past_{layer}", count=2, axis=0, num_outputs=2)
        both = [op("Concat", op("Squeeze", a, "zero"), b, axis=2) for a, b in zip(old, new, strict=True)]
        op("Concat", *(op("Unsqueeze", v, "zero") for v in both), axis=0, to=f"present_{layer}")
        scores = op("MatMul", query, op("Transpose", both[0], perm=[0, 1, 3, 2]))
        found = op("MatMul", op("Softmax", op("Add", scores, mask), axis=-1), both[1])
        x = op("Add", x, op("Reshape", op("Transpose", found, perm=[0, 2, 1, 3]), "merge"))
    op("MatMul", x, weight("out", width, words), to="logits")
    inputs = [h.make_tensor_value_info(n, INT, ["b", "s"]) for n in ("input_ids", "position_ids")]
    inputs.append(h.make_tensor_value_info("attention_mask", INT, ["b", "t"]))
    outputs = [h.make_tensor_value_info("logits", FLOAT, ["b", "s", words])]
    for layer in range(layers):
        inputs.append(h.make_tensor_value_info(f"past_{layer}", FLOAT, [2, "b", heads, "p", size]))
        outputs.append(h.make_tensor_value_info(f"present_{layer}", FLOAT, [2, "b", heads, "t", size]))
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in held.items()]
    return h.make_graph(nodes, "decoder", inputs, outputs, tensors)


def model(
    op: str, body: onnx.GraphProto, feed: Feed, outputs: list[str], **attributes: Any
) -> onnx.ModelProto:
    names = ["input_ids", "max_length", *(BEAMS if op == "BeamSearch" else SINGLE)]
    if op == "Sampling":
        names += ["presence_mask", "seed"]
    given = [name if name in feed else "" for name in names]
    while not given[-1]:
        given.pop()
    node = h.make_node(op, given, outputs, "search", domain="com.microsoft", decoder=body, **attributes)
    kinds = {name: FLOAT if array.dtype.kind == "f" else INT for name, array in feed.items()}
    graph = h.make_graph(
        [node],
        "g",
        [h.make_tensor_value_info(name, kinds[name], None) for name in given if name],
        [h.make_tensor_value_info(name, INT if name == "sequences" else FLOAT, None) for name in outputs],
    )
    imports = [h.make_opsetid("", 18), h.make_opsetid("com.microsoft", 1)]
    return h.make_model(graph, opset_imports=imports, ir_version=9)


def one(value: Any) -> np.ndarray:
    return np.array([value], np.float32 if isinstance(value, float) else np.int32)


def drawn(rng: np.random.Generator, op: str) -> tuple[onnx.ModelProto, Feed]:
    """A decoder, a few prompts (padded in front), and some of what may be asked for."""
    words = int(rng.integers(8, 30))
    body = decoder(rng, words, int(rng.integers(1, 3)), int(rng.choice([2, 4])), int(rng.integers(1, 3)))
    batch, length = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    longest = int(length + rng.integers(1, 9))
    pad, end = (int(v) for v in rng.integers(0, words, 2))
    ids = rng.integers(0, words, (batch, length)).astype(np.int32)
    if length > 1:
        ids[0, : int(rng.integers(0, length))] = pad
    there = rng.random((batch, length)) < 0.8
    there[:, -1] = True
    some: Feed = {
        "min_length": one(int(rng.integers(0, longest))),
        "repetition_penalty": one(float(rng.choice([1.3, 0.8]))),
        "vocab_mask": (rng.random(words) < 0.8).astype(np.int32),
        "prefix_vocab_mask": (rng.random((batch, words)) < 0.8).astype(np.int32),
        "attention_mask": there.astype(np.int32),
    }
    feed = {"input_ids": ids, "max_length": one(longest)}
    feed |= {name: array for name, array in some.items() if rng.random() < 0.4}
    attributes: dict[str, Any] = {"pad_token_id": pad, "eos_token_id": end}
    if rng.random() < 0.3:
        attributes["no_repeat_ngram_size"] = int(rng.integers(1, 4))
    if op == "GreedySearch":
        return model(op, body, feed, ["sequences"], **attributes), feed
    beams = int(rng.integers(1, 5))
    feed.setdefault("min_length", one(0))  # ONNX Runtime asks for it
    feed["num_beams"] = one(beams)
    feed["num_return_sequences"] = one(int(rng.integers(1, beams + 1)))
    feed["length_penalty"] = one(float(rng.choice([1.0, 0.5, 2.0])))
    # Of a single beam that is at its end, the last bit would say whether it might still become better.
    attributes["early_stopping"] = int(beams == 1 or rng.random() < 0.5)
    return model(op, body, feed, ["sequences", "sequences_scores", "scores"], **attributes), feed


@pytest.mark.parametrize("op", ["GreedySearch", "BeamSearch"])
def test_texts_are_onnxruntimes(op: str) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for seed in range(25):
        proto, feed = drawn(np.random.default_rng(seed), op)
        theirs = onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, feed)
        ours = ingot.InferenceSession(proto).run(None, feed)
        if op == "GreedySearch":
            (got,), (want,) = ours, theirs
            pad = next(a.i for a in proto.graph.node[0].attribute if a.name == "pad_token_id")
            written = [*np.flatnonzero((got != pad).any(0)), 0][-2] + 1
            # behind the last word ONNX Runtime leaves memory as it is
            np.testing.assert_array_equal(got[:, :written], want[:, :written], err_msg=f"seed {seed}")
            continue
        np.testing.assert_array_equal(ours[0], theirs[0], err_msg=f"seed {seed}")
        np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-4, atol=1e-5, err_msg=f"seed {seed}")
        assert ours[2].shape == theirs[2].shape
        if len(ours[0]) == 1:  # what is said of a text that is settled, while others grow, is not defined
            made = ours[2].any((1, 2, 3))
            want = theirs[2][made]
            np.testing.assert_allclose(ours[2][made], want, rtol=1e-3, atol=1e-3, err_msg=f"seed {seed}")


def test_sampling_draws_from_the_likeliest_words() -> None:
    rng = np.random.default_rng(3)
    body = decoder(rng, 12, 2, 4, 1)
    feed = {"input_ids": rng.integers(1, 12, (2, 3)).astype(np.int32), "max_length": one(9)}
    ends = {"pad_token_id": 0, "eos_token_id": 0}
    (best,) = ingot.InferenceSession(model("GreedySearch", body, feed, ["sequences"], **ends)).run(None, feed)
    narrow = model("Sampling", body, feed, ["sequences"], top_p=1e-4, temperature=0.7, **ends)
    (got,) = ingot.InferenceSession(narrow).run(None, feed)
    np.testing.assert_array_equal(got, best)  # a single word is left
    feed["seed"] = one(5)
    wide = ingot.InferenceSession(
        model("Sampling", body, feed, ["sequences"], top_p=0.95, temperature=3.0, **ends)
    )
    first, again = (wide.run(None, feed)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    others = [wide.run(None, {**feed, "seed": one(seed)})[0] for seed in range(6)]
    assert any((other != first).any() for other in others)


def test_what_is_unknown_is_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    body = decoder(rng, 12, 2, 4, 1)
    feed = {"input_ids": np.ones((1, 3), np.int32), "max_length": one(3)}
    ends = {"pad_token_id": 0, "eos_token_id": 0}
    with pytest.raises(ShapeError, match="max_length is 3"):
        ingot.InferenceSession(model("GreedySearch", body, feed, ["sequences"], **ends)).run(None, feed)
    behind = model("GreedySearch", body, feed, ["sequences"], model_type=1, **ends)
    with pytest.raises(UnsupportedOperatorError, match="behind an encoder"):
        ingot.InferenceSession(behind).run(None, feed)
    feed = {**feed, "max_length": one(6), "vocab_mask": np.ones((1, 12), np.int32)}
    with pytest.raises(ShapeError, match=r"vocab_mask has shape \[1, 12\], for 12 words"):
        ingot.InferenceSession(model("GreedySearch", body, feed, ["sequences"], **ends)).run(None, feed)


def test_a_decoder_whose_scores_are_no_rows_of_words_is_refused() -> None:
    body = decoder(np.random.default_rng(0), 12, 2, 4, 1)
    body.node[-1].output[0] = "scores"
    body.node.append(h.make_node("Flatten", ["scores"], ["logits"]))
    body.output[0].CopyFrom(h.make_tensor_value_info("logits", FLOAT, ["b", "n"]))
    feed = {"input_ids": np.ones((1, 3), np.int32), "max_length": one(6)}
    made = model("GreedySearch", body, feed, ["sequences"], pad_token_id=0, eos_token_id=0)
    with pytest.raises(ShapeError, match=r"scores \[1, 36\], and must give \[batch, length, words\]"):
        ingot.InferenceSession(made).run(None, feed)


@pytest.mark.parametrize("end", [-1, 12])
def test_a_text_that_no_word_ends(end: int) -> None:
    """A least length then forbids no word."""
    body = decoder(np.random.default_rng(9), 12, 2, 4, 1)
    feed = {"input_ids": np.ones((2, 3), np.int32), "max_length": one(9)}
    ends = {"pad_token_id": 0, "eos_token_id": end}
    (want,) = ingot.InferenceSession(model("GreedySearch", body, feed, ["sequences"], **ends)).run(None, feed)
    feed["min_length"] = one(8)
    (got,) = ingot.InferenceSession(model("GreedySearch", body, feed, ["sequences"], **ends)).run(None, feed)
    np.testing.assert_array_equal(got, want)
