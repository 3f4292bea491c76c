"""Operators on strings against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper as h
import onnxruntime
import pytest

import ingot


def text(*words: str) -> np.ndarray:
    return np.array(words, object)


def model_of(op: str, feed: list[np.ndarray], outputs: int, **attributes: Any) -> onnx.ModelProto:
    names = [f"i{i}" for i in range(len(feed))]
    kinds = [
        onnx.TensorProto.STRING if a.dtype == object else h.np_dtype_to_tensor_dtype(a.dtype) for a in feed
    ]
    made = [f"o{i}" for i in range(outputs)]
    graph = h.make_graph(
        [h.make_node(op, names, made, **attributes)],
        "g",
        [h.make_tensor_value_info(n, k, a.shape) for n, k, a in zip(names, kinds, feed, strict=True)],
        [onnx.ValueInfoProto(name=name) for name in made],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 20)], ir_version=9)


def ours(op: str, feed: list[np.ndarray], outputs: int = 1, **attributes: Any) -> list[np.ndarray]:
    session = ingot.InferenceSession(model_of(op, feed, outputs, **attributes))
    return session.run(None, {f"i{i}": a for i, a in enumerate(feed)})


def both(op: str, feed: list[np.ndarray], outputs: int = 1, **attributes: Any) -> list[list[Any]]:
    """What Ingot and ONNX Runtime answer, as lists."""
    peer = onnxruntime.InferenceSession(model_of(op, feed, outputs, **attributes).SerializeToString())
    theirs = peer.run(None, {f"i{i}": a for i, a in enumerate(feed)})
    return [
        [(a.shape, a.tolist()) for a in found] for found in (ours(op, feed, outputs, **attributes), theirs)
    ]


@pytest.mark.parametrize("shape", [(), (5,), (5, 1), (0,)])
@pytest.mark.parametrize("delimiter", [None, "", ",", "b "])
@pytest.mark.parametrize("most", [None, 0, 1, 3])
def test_parts_of_strings(shape: tuple[int, ...], delimiter: str | None, most: int | None) -> None:
    words = text(" a  b c ", "x,y,,z", "b b b", ",", "one")
    x = (
        words.reshape(shape)
        if shape and 0 not in shape
        else np.array(words[0], object)
        if not shape
        else words[:0]
    )
    given = {"delimiter": delimiter, "maxsplit": most}
    got, want = both("StringSplit", [x], 2, **{k: v for k, v in given.items() if v is not None})
    assert got == want


@pytest.mark.parametrize("change", ["NONE", "LOWER", "UPPER"])
@pytest.mark.parametrize("sensitive", [0, 1])
@pytest.mark.parametrize("x", [text("Monday", "monday", "x", "École", "é"), text("monday")[None]])
def test_words_without_stop_words(change: str, sensitive: int, x: np.ndarray) -> None:
    """Letters keep their accents; case needs none of the machine's locales, as ONNX Runtime's does."""
    attributes = {"case_change_action": change, "is_case_sensitive": sensitive, "stopwords": ["monday"]}
    (got,) = ours("StringNormalizer", [x], **attributes)
    kept = [w for w in x.ravel() if (w if sensitive else w.lower()) != "monday"] or [""]
    cased = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}[change]
    assert got.tolist() == np.array([cased(w) for w in kept], object).reshape(*x.shape[:-1], -1).tolist()


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("skips", [0, 1, 5])
@pytest.mark.parametrize("lengths", [(1, 1), (1, 2), (2, 2), (1, 3), (3, 3)])
@pytest.mark.parametrize("weighted", [False, True])
def test_counts_of_n_grams(mode: str, skips: int, lengths: tuple[int, int], weighted: bool) -> None:
    """The i-th weight belongs to the i-th n-gram of the pool, wherever its count is put."""
    attributes: dict[str, Any] = {
        "pool_int64s": [2, 3, 5, 5, 4, 5, 6, 7, 8, 5, 6, 7],
        "ngram_counts": [0, 3, 9],
        "ngram_indexes": [6, 0, 2, 1, 5, 4, 3],
        "mode": mode,
        "max_skip_count": skips,
        "min_gram_length": lengths[0],
        "max_gram_length": lengths[1],
    }
    if weighted:
        attributes["weights"] = [0.5, 2.0, 1.5, 3.0, 0.25, 7.0, 1.25]
    x = np.array([[1, 1, 3, 3, 3, 7, 8], [8, 5, 4, 5, 6, 7, 5]], np.int64)
    for rows in (x, x[0], x[:, :0]):
        got, want = both("TfIdfVectorizer", [rows], **attributes)
        assert got == want


def test_n_grams_of_words() -> None:
    """What a pool of words has."""
    x = text("a", "b", "a", "b", "c")
    got, want = both(
        *("TfIdfVectorizer", [x]),
        mode="TF",
        min_gram_length=1,
        max_gram_length=2,
        max_skip_count=1,
        pool_strings=["a", "c", "a", "b", "b", "b"],
        ngram_counts=[0, 2],
        ngram_indexes=[0, 1, 2, 3],
    )
    assert got == want


WORDS = text(
    "", " ", "a\n", "a\n\n", "a\nb", "a\x0b", "ab ab", "\\", "ab", "xy", "b", "abc", "ab:", "123", "٣",
    "é", "É", "x]", ":]", "_", "aX", "a$", "{,2}", "ab{", "a-", "[", "ß", "ſ", "éa", "a.b",
)  # fmt: skip
PATTERNS = [
    "", r"[a-z]+", r".*b", r"(x|y){2}", r".", r"(?s).*", r"(?s)a.b", r"x*?", r"^a", r"a$", r"a$\n",
    r"(?m)a$\n.", r"a|b{,2}", r"a{,2}", r"a{1,2}b?", r"a\{", r"a\.", r"\d+", r"\D", r"\w+", r"\W", r"\s",
    r"\S+", r"\bab\b.*", r"\B", r"\Aab:\z", r"\Qab:\E", r"\Q[a", r"\_", r"\101|\x61.*", r"\x{e9}",
    "[[:alpha:]]+", "[[:^alpha:]]+", "[^[:alpha:]]+", "[[:punct:][:digit:]]+", "[[:alpha:]-z]+",
    "[[:word:]]", r"[\w]+", r"[^\W]+", r"[\W\d]+", r"[\s\S]*", r"[\d-z]+", r"[\]-a]+", r"[\n\t]",
    r"[a-\x7a]+", "[]a]", "[^]]*", "[[]", "[a-]+", "[-a]+", "[a-b-c]+", r"(?i)é", r"(?i:ABC)",
    r"(?i)[A-S]", r"(?i)ss", r"(?i)\w", r"(?P<n>a)b:", r"(?<n>a)b:",
]  # fmt: skip
#: No patterns of RE2's; then patterns of RE2's that Python's expressions cannot say.
BAD_PATTERNS = [
    r"(", r"[a", r"[z-a]", r"[[:foo:]]", r"a++", r"a{2}+", r"(?=a)a", r"(?#x)a", r"(a)\1", r"\8", r"[\b]",
    "\\", r"\pL", r"\C", r"a(?i)b", r"(?U)a", r"(?m:a$)",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns(pattern: str) -> None:
    got, want = both("RegexFullMatch", [WORDS], pattern=pattern)
    assert got == want


def test_joined_strings() -> None:
    got, want = both("StringConcat", [text("a", "")[:, None], text("", "x", "日本")])
    assert got == want


BAD: dict[str, tuple[str, list[np.ndarray], dict[str, Any]]] = {
    **{f"the pattern {bad}": ("RegexFullMatch", [text("a")], {"pattern": bad}) for bad in BAD_PATTERNS},
    "numbers to join": ("StringConcat", [text("a"), np.ones(1, np.float32)], {}),
    "shapes that do not broadcast": ("StringConcat", [text("a", "b"), text("a", "b", "c")], {}),
    "words in a table": ("StringNormalizer", [text("a", "b").reshape(2, 1)], {}),
    "no such case": ("StringNormalizer", [text("a")], {"case_change_action": "TITLE"}),
    "a pool cut wrong": (
        *("TfIdfVectorizer", [np.ones(2, np.int64)]),
        {"pool_int64s": [1, 2, 3], "ngram_counts": [0, 0], "ngram_indexes": [0], "mode": "TF"},
    ),
    "fewer weights": (
        *("TfIdfVectorizer", [np.ones(2, np.int64)]),
        {
            "pool_int64s": [1, 2],
            "ngram_counts": [0],
            "ngram_indexes": [0, 1],
            "mode": "IDF",
            "weights": [1.0],
        },
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name: str) -> None:
    op, feed, attributes = BAD[name]
    with pytest.raises(ingot.IngotError, match=op):
        ours(op, feed, **attributes)


def test_numbers_as_strings() -> None:
    """Plain digits; the rest as ONNX Runtime writes it."""
    floats = np.array([1, 0.1, -0.0, 1e10, 1e-5, np.nan, np.inf, -np.inf, 100.5], np.float32)
    words = ["1", "0.1", "-0", "10000000000", "0.00001", "NaN", "INF", "-INF", "100.5"]
    cases: list[tuple[Any, list[str]]] = [
        (floats, words),
        (floats.astype(np.float64)[[0, 5, 8]], ["1", "NaN", "100.5"]),
        (floats[[0, 8]].astype(np.float16), ["1", "100.5"]),
        (np.array([True, False]), ["1", "0"]),
        (np.array([-3, 2**62]), ["-3", "4611686018427387904"]),
    ]
    for x, wanted in cases:
        (found,) = ours("Cast", [x], to=8)
        assert found.tolist() == wanted
        if x.dtype.kind == "f":
            (again,) = ours("Cast", [found], to=h.np_dtype_to_tensor_dtype(x.dtype))
            np.testing.assert_array_equal(again, x)


@pytest.mark.parametrize(
    ("to", "word", "wanted"),
    [
        (7, "100.5", 100),
        (7, " 2 ", 2),
        (3, "300", 44),
        (2, "-1", 255),
        (9, "0", False),
        (9, "2", True),
        (1, "1E3", 1e3),
    ],
)
def test_strings_as_numbers(to: int, word: str, wanted: Any) -> None:
    (found,) = ours("Cast", [np.array([word], object)], to=to)
    assert found.tolist() == [wanted]


@pytest.mark.parametrize(
    ("to", "word"), [(1, "abc"), (7, "abc"), (7, "nan"), (7, "9" * 20), (9, "True"), (17, ""), (1, "1_0")]
)
def test_strings_that_are_no_numbers(to: int, word: str) -> None:
    with pytest.raises(ingot.InputError, match=f"Cast .*the string '{word}', which is no"):
        ours("Cast", [np.array([word], object)], to=to)


def test_nothing_is_split_into_nothing() -> None:
    """As ONNX Runtime counts, with a delimiter and without."""
    for delimiter in (",", ""):
        parts, counts = ours("StringSplit", [np.array(["", "a"], object)], 2, delimiter=delimiter)
        assert parts.tolist() == [[""], ["a"]]
        assert counts.tolist() == [0, 1]
