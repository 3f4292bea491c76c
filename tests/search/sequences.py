"""Random cases of strings, sequences, optional values and generators."""
# ruff: noqa: ARG001  (every generator is given the opset)

from __future__ import annotations

from typing import Any

import numpy as np

from tests.search.draw import FLOATS, Case, Draw, case
from tests.search.shapes import ints


def arrays(r: Draw, low: int = 1, dtype: str | None = None) -> list[Any]:
    kind = dtype or r.one(["float32", "int64", "string", "bool", "float64"])
    return [r.array(r.shape(0, 3, largest=60), kind) for _ in range(r.integer(low, 4))]


@case("SequenceConstruct")
def construct(r: Draw, opset: int) -> Case:
    return Case("SequenceConstruct", arrays(r))


@case("SequenceAt", "SequenceErase", "SequenceLength")
def at(r: Draw, opset: int) -> Case:
    held = arrays(r)
    position = np.array(r.integer(-len(held), len(held) - 1), r.one([np.int32, np.int64]))
    if r.op == "SequenceLength":
        return Case(r.op, [held])
    return Case(r.op, [held, position if r.op == "SequenceAt" or r.flag(0.7) else None])


@case("SequenceInsert")
def insert(r: Draw, opset: int) -> Case:
    kind = r.one(["float32", "int64", "string"])
    held = arrays(r, 1, kind)
    position = (
        np.array(r.integer(-len(held), len(held)), r.one([np.int32, np.int64])) if r.flag(0.7) else None
    )
    return Case(r.op, [held, r.array(r.shape(0, 2), kind), position])


@case("ConcatFromSequence")
def from_sequence(r: Draw, opset: int) -> Case:
    shape = r.shape(1, 3, largest=60)
    new = r.integer(0, 1)
    axis = r.integer(-len(shape), len(shape) - 1) if not new else r.integer(-len(shape) - 1, len(shape))
    kind = r.one(["float32", "int64", "string"])
    return Case(
        r.op, [[r.array(shape, kind) for _ in range(r.integer(1, 4))]], {"axis": axis, "new_axis": new}
    )


@case("SplitToSequence")
def to_sequence(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 3, empty=False), r.dtype(opset))
    axis = r.axis(x.ndim)
    n = x.shape[axis]
    kind = r.integer(0, 2)
    attributes = r.some({"axis": axis, "keepdims": r.integer(0, 1)})
    n = x.shape[attributes.get("axis", 0)]
    if kind == 0:
        return Case(r.op, [x], attributes)
    if kind == 1:
        return Case(r.op, [x, np.array(r.integer(1, n), r.one([np.int32, np.int64]))], attributes)
    cut = sorted(r.integer(0, n) for _ in range(2))
    return Case(r.op, [x, ints([cut[0], cut[1] - cut[0], n - cut[1]])], attributes)


@case("StringConcat")
def string_concat(r: Draw, opset: int) -> Case:
    whole = r.shape()
    return Case(r.op, [r.array(r.broadcastable(whole), "string") for _ in range(2)])


@case("StringSplit")
def string_split(r: Draw, opset: int) -> Case:
    words = np.array(["a b c", "", "  a  b ", "x,y,,z", "one", ",", " ", "a,b c", "ß,日本"], object)
    x = r.rng.choice(words, r.shape(0, 2, largest=30))
    return Case(
        r.op,
        [np.asarray(x, object)],
        r.some({"delimiter": r.one(["", ",", " ", "b", ",,"]), "maxsplit": r.integer(0, 3)}),
        2,
    )


@case("StringNormalizer")
def normalizer(r: Draw, opset: int) -> Case:
    words = np.array(["monday", "Tuesday", "MONDAY", "éCOLE", "", "straße", "x y"], object)
    shape = r.one([(r.integer(1, 6),), (1, r.integer(1, 6))])
    return Case(
        r.op,
        [r.rng.choice(words, shape)],
        r.some(
            {
                "case_change_action": r.one(["NONE", "LOWER", "UPPER"]),
                "is_case_sensitive": r.integer(0, 1),
                "stopwords": ["monday", "x y"],
            }
        ),
    )


@case("RegexFullMatch")
def regex(r: Draw, opset: int) -> Case:
    return Case(
        r.op,
        [r.array(r.shape(0, 2), "string")],
        {"pattern": r.one(["a", "[a-z]+", "\\d.*", ".*", "(Ab|ab c)", "", "x{20}"])},
    )


@case("TfIdfVectorizer")
def tfidf(r: Draw, opset: int) -> Case:
    kind = r.one(["int64", "int32", "string"])
    low = r.integer(1, 2)
    high = r.integer(low, 3)
    counts, pool, total = [], [], 0
    for n in range(1, high + 1):
        counts.append(len(pool))
        made = {tuple(r.integer(0, 4) for _ in range(n)) for _ in range(r.integer(1, 3))}
        pool += [v for gram in sorted(made) for v in gram]
        total += len(made)
    attributes: dict[str, Any] = {
        "min_gram_length": low,
        "max_gram_length": high,
        "max_skip_count": r.integer(0, 2),
        "mode": r.one(["TF", "IDF", "TFIDF"]),
        "ngram_counts": counts,
        "ngram_indexes": [int(i) for i in r.rng.permutation(total)],
    }
    attributes["pool_strings" if kind == "string" else "pool_int64s"] = (
        [f"w{v}" for v in pool] if kind == "string" else pool
    )
    if r.flag():
        attributes["weights"] = [r.real(0.1, 2) for _ in range(total)]
    x = r.between(
        0,
        5,
        r.one([(r.integer(1, 9),), (r.integer(1, 3), r.integer(1, 9))]),
        "int64" if kind == "string" else kind,
    )
    if kind == "string":
        x = np.array([f"w{v}" for v in x.ravel()], object).reshape(x.shape)
    return Case(r.op, [x], attributes)


@case("RandomUniformLike", "RandomNormalLike", "Bernoulli")
def random_like(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(), r.dtype(opset, only=FLOATS))
    if r.op == "Bernoulli":
        x = np.asarray(r.rng.random(x.shape)).astype(x.dtype)
    return Case(r.op, [x], r.some({"dtype": r.one([1, 11, 10]), "seed": r.real(0, 9)}), by_form=True)


@case("RandomUniform", "RandomNormal")
def random(r: Draw, opset: int) -> Case:
    return Case(
        r.op, [], {"shape": list(r.shape(1, 3)), **r.some({"dtype": r.one([1, 11, 10])})}, by_form=True
    )


@case("Multinomial")
def multinomial(r: Draw, opset: int) -> Case:
    return Case(
        r.op,
        [r.floats(r.integer(1, 3), r.integer(1, 5), dtype=r.dtype(opset))],
        r.some({"sample_size": r.integer(1, 5), "dtype": r.one([6, 7])}),
        by_form=True,
    )
