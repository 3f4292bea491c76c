"""Operators on strings: concatenation, splitting, normalisation, regular expressions and counts of n-grams.
The host evaluates them.
"""
# pyright: reportUnknownMemberType=false
# onnx_ir does not say what a node's meta holds.

from __future__ import annotations

import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError, UnsupportedOperatorError
from ingot.ops.numeric import BOOL, FLOAT32, STRING
from ingot.ops.patterns import python_pattern
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_floats,
    attr_int,
    attr_ints,
    attr_str,
    broadcast,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)

_CACHE = "ingot.ops.text"


def _strings(node: ir.Node, inputs: Sequence[Facts | None], index: int) -> Facts:
    facts = need(node, inputs, index)
    if facts.dtype != STRING:
        raise ModelError(
            f"{label(node)}: input {index} is {facts.dtype}, and must be strings. Insert a Cast."
        )
    return facts


def _each(function: Callable[..., Any], *arrays: Array) -> Array:
    """The function of each element, as objects in the shape that the arrays broadcast to."""
    found = np.broadcast_arrays(*arrays)
    made = np.empty(found[0].shape, object)
    for place in np.ndindex(made.shape):
        made[place] = function(*(array[place] for array in found))
    return made


def _list_of_strings(node: ir.Node, name: str) -> list[str]:
    attribute = node.attributes.get(name)
    return [] if attribute is None else list(attribute.as_strings())


@register("StringConcat", since=20)
class StringConcat(Op):
    """Each string of x followed by the one of y; shapes broadcast."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape that both broadcast to."""
        x, y = (_strings(node, inputs, i) for i in range(2))
        return [Facts(STRING, broadcast(node, x.shape, y.shape))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Of Python's strings."""
        return [_each(operator.add, present(inputs, 0), present(inputs, 1))]


@register("RegexFullMatch", since=20)
class RegexFullMatch(Op):
    """Whether the pattern matches the whole of each string."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x."""
        return [Facts(BOOL, _strings(node, inputs, 0).shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By Python's expressions, in which RE2's are written."""
        text = attr_str(node, "pattern", "")
        try:
            pattern = re.compile(python_pattern(text))
        except NotImplementedError as error:
            raise UnsupportedOperatorError(
                f"{label(node)}: pattern {text!r} has {error}, which Python's expressions, by which it is "
                "matched, cannot say. Write it without that."
            ) from error
        except (re.error, ValueError) as error:
            raise ModelError(
                f"{label(node)}: pattern {text!r} is no regular expression: {error}. Correct it."
            ) from error

        def matches(word: str) -> bool:
            return pattern.fullmatch(word) is not None

        return [_each(matches, present(inputs, 0)).astype(np.bool_)]


@register("StringSplit", since=20)
class StringSplit(Op):
    """The parts of each string along a new last axis, filled up with empty strings; and how many they are."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The strings decide how long the last axis is."""
        _strings(node, inputs, 0)
        return None

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By str.split; without a delimiter at any white space."""
        x = present(inputs, 0)
        delimiter, most = attr_str(node, "delimiter", "") or None, attr_int(node, "maxsplit", -1)
        # Of an empty string there are no parts.
        parts: list[list[str]] = [s.split(delimiter, most) if s else [] for s in x.ravel()]
        if delimiter is None and most >= 0:  # Python leaves the white space at the end of what is left over
            parts = [[*found[:most], *(s.rstrip() for s in found[most:])] for found in parts]
        counts = np.array([len(found) for found in parts], np.int64).reshape(x.shape)
        width = int(counts.max(initial=0))
        filled = np.full((x.size, width), "", object)
        for row, found in zip(filled, parts, strict=True):
            row[: len(found)] = found
        return [filled.reshape(*x.shape, width), counts][: len(node.outputs)]


@register("StringNormalizer", since=10)
class StringNormalizer(Op):
    """The strings of a row that are no stop words, in lower or upper case."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[C] or [1, C]; the strings decide how many are left."""
        x = _strings(node, inputs, 0)
        if len(x.shape) not in (1, 2) or (len(x.shape) == 2 and x.shape[0] != 1):
            raise shape_error(node, f"the input has shape {show(x.shape)}, and must be [C] or [1, C]")
        return None

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """One empty string where nothing is left."""
        x = present(inputs, 0)
        change = attr_str(node, "case_change_action", "NONE")
        if change not in ("NONE", "LOWER", "UPPER"):
            raise ModelError(
                f"{label(node)}: case_change_action is {change!r}, and must be NONE, LOWER or UPPER. "
                "Correct it."
            )
        stop = _list_of_strings(node, "stopwords")
        kept: list[str] = x.ravel().tolist()
        if attr_int(node, "is_case_sensitive", 0):
            kept = [s for s in kept if s not in stop]
        else:
            lower = {word.lower() for word in stop}
            kept = [s for s in kept if s.lower() not in lower]
        changed = [{"NONE": s, "LOWER": s.lower(), "UPPER": s.upper()}[change] for s in kept] or [""]
        return [np.array(changed, object).reshape(*x.shape[:-1], len(changed))]


@dataclass(frozen=True, slots=True)
class _Grams:
    """ways: lengths of n-grams, each with the distance of their elements in a row. grams: the number of each
    n-gram; places and weights have one for each of them.
    """

    ways: list[tuple[int, int]]
    grams: dict[tuple[Any, ...], int]
    mode: str
    places: Sequence[int]
    weights: Sequence[float]
    columns: int


@register("TfIdfVectorizer", since=9)
class TfIdfVectorizer(Op):
    """How often each n-gram of a pool comes in a row, with up to max_skip_count elements between two of its
    elements; "IDF": its weight if it comes at all, "TFIDF": its weight times how often.
    """

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """A column for each place that ngram_indexes name."""
        x = need(node, inputs, 0)
        if len(x.shape) not in (1, 2):
            raise shape_error(node, f"the input has shape {show(x.shape)}, and must be [C] or [N, C]")
        columns = max(attr_ints(node, "ngram_indexes") or (-1,)) + 1
        return [Facts(FLOAT32, (*x.shape[:-1], columns))]

    def _table(self, node: ir.Node) -> _Grams:
        """What the attributes say, read once."""
        table = cast("_Grams | None", node.meta.get(_CACHE))
        if table is None:
            table = node.meta[_CACHE] = self._read(node)
        return table

    def _read(self, node: ir.Node) -> _Grams:
        low, high = attr_int(node, "min_gram_length", 1), attr_int(node, "max_gram_length", 1)
        places = attr_ints(node, "ngram_indexes") or ()
        grams = self._pool(node, len(places))
        mode = attr_str(node, "mode", "TF")
        if mode not in ("TF", "IDF", "TFIDF"):
            raise ModelError(f"{label(node)}: mode is {mode!r}, and must be TF, IDF or TFIDF. Correct it.")
        weights = attr_floats(node, "weights") or (1.0,) * len(places)
        if len(weights) != len(places):
            raise ModelError(
                f"{label(node)}: it has {len(weights)} weights for {len(places)} n-grams. "
                "Give each of them one."
            )
        skips = attr_int(node, "max_skip_count", 0)
        ways = [(n, far) for n in range(low, high + 1) for far in range(1, 2 + (skips if n > 1 else 0))]
        return _Grams(ways, grams, mode, places, weights, max(places, default=-1) + 1)

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Every start, distance and length in turn; an n-gram of one element has no distances."""
        x, table = present(inputs, 0), self._table(node)
        mode, weights, places = table.mode, table.weights, table.places
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        counts = np.zeros((len(rows), table.columns), np.float32)
        for row, found in zip(rows.tolist(), counts, strict=True):
            seen: Counter[int | None] = Counter()
            for length, distance in table.ways:
                starts = [row[distance * n :] for n in range(length)]
                seen.update(map(table.grams.get, zip(*starts, strict=False)))
            seen.pop(None, None)
            numbers: list[float] = list(seen.values())
            which = cast("list[int]", list(seen))
            if mode != "TF":
                often = numbers if mode == "TFIDF" else [1.0] * len(which)
                numbers = [weights[n] * times for n, times in zip(which, often, strict=True)]
            np.add.at(found, [places[n] for n in which], np.array(numbers, np.float32))
        return [counts.reshape(*x.shape[:-1], counts.shape[1])]

    def _pool(self, node: ir.Node, count: int) -> dict[tuple[Any, ...], int]:
        """Each n-gram's number, by its elements."""
        pool: Sequence[Any] = _list_of_strings(node, "pool_strings") or attr_ints(node, "pool_int64s") or ()
        starts = attr_ints(node, "ngram_counts") or ()
        grams: dict[tuple[Any, ...], int] = {}
        for length, (first, end) in enumerate(zip(starts, (*starts[1:], len(pool)), strict=True), start=1):
            if not 0 <= first <= end <= len(pool) or (end - first) % length:
                raise ModelError(
                    f"{label(node)}: ngram_counts {list(starts)} do not cut a pool of {len(pool)} elements "
                    "into n-grams. Check both."
                )
            for i in range(first, end, length):
                grams.setdefault(tuple(pool[i : i + length]), len(grams))
        if len(grams) != count:
            raise ModelError(
                f"{label(node)}: the pool has {len(grams)} different n-grams, and ngram_indexes {count} "
                "places. Give each of them one."
            )
        return grams
