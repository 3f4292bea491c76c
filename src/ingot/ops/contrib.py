"""com.microsoft's operators that standard ones cannot say: strings, hashes, paths, repeated words.

The others are rewritten when a file is opened (`passes/contrib.py`).
"""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# What NumPy makes of arrays of any dtype has none that is known.

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from ingot.errors import InputError, ModelError, ShapeError
from ingot.ops.numeric import STRING, rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    attr_int,
    attr_ints,
    attr_str,
    find,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.window import Window

DOMAIN = "com.microsoft"


@register("Inverse", since=1, domain=DOMAIN)
class Inverse(Op):
    """The inverses of matrices [..., n, n]."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The shape of x."""
        x = need(node, inputs, 0)
        if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
            raise shape_error(node, f"the input has shape {show(x.shape)}, and must be square matrices")
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In float64; raises ShapeError for a matrix that has none."""
        x = present(inputs, 0)
        try:
            return [rounded(np.linalg.inv(widen(x)), x.dtype)]
        except np.linalg.LinAlgError as error:
            raise ShapeError(f"{label(node)}: a matrix has no inverse ({error}). Check the input.") from error


@register("MaxpoolWithMask", since=1, domain=DOMAIN)
class MaxpoolWithMask(Op):
    """The largest element of each window; a row of the window ends where the mask is 0, but not at the first
    element of an image. Of a window without any the lowest number.
    """

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """MaxPool's; the mask has x's sizes, and one image and channel, which all of x share."""
        x, mask = need(node, inputs, 0), need(node, inputs, 1)
        if len(x.shape) < 3 or mask.shape != (1, 1, *x.shape[2:]):
            raise shape_error(
                node, f"the mask has shape {show(mask.shape)}, and must be [1, 1, sizes] of x {show(x.shape)}"
            )
        return find("", "MaxPool").infer(node, inputs[:1])

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Padding has no mask, and no number; NaN is not above anything."""
        x, mask = present(inputs, 0), (present(inputs, 1) != 0).copy()
        window = Window.of(node, x.shape[2:], tuple(attr_ints(node, "kernel_shape") or ()))
        lowest = np.finfo(x.dtype).min
        if x.ndim > 3:
            mask.reshape(-1)[:1] = True
        seen = np.logical_and.accumulate(window.windows(mask, True), -1)
        values = np.where(seen, window.windows(x, lowest), lowest)
        return [np.fmax.reduce(values, tuple(range(x.ndim, values.ndim)), initial=lowest)]


@register("Tokenizer", since=1, domain=DOMAIN)
class Tokenizer(Op):
    """The words of each string [C] or [N, C], in a last dimension as long as the most there are: what lies
    between matches of `separators`, or the matches of `tokenexp`; the longest match counts, as in RE2.
    """

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Marks stand around the words, padding behind them."""
        x = present(inputs, 0)
        if x.dtype != STRING or x.ndim not in (1, 2):
            raise shape_error(node, f"{x.dtype} {show(x.shape)} are no strings [C] or [N, C]")
        split, least = self._split(node), attr_int(node, "mincharnum", 1)
        rows = [[word for word in split(str(text)) if len(word) >= least] for text in x.ravel().tolist()]
        most = max(map(len, rows), default=0)
        if most and attr_int(node, "mark", 0):
            rows, most = [["\x02", *row, "\x03"] for row in rows], most + 2
        padding = attr_str(node, "pad_value", "")
        result = np.full((len(rows), most), padding, object)
        for target, row in zip(result, rows, strict=True):
            target[: len(row)] = row
        return [result.reshape(*x.shape, most)]

    @staticmethod
    def _split(node: ir.Node) -> Callable[[str], list[str]]:
        expression = attr_str(node, "tokenexp", "")
        found = node.attributes.get("separators")
        separators = [] if found is None else list(found.as_strings())
        if bool(expression) == bool(separators):
            raise ModelError(f"{label(node)}: give either tokenexp or separators.")
        if separators == [""] or expression == ".":
            return list
        try:
            patterns = [re.compile(pattern) for pattern in separators or [expression]]
        except re.error as error:
            raise ModelError(
                f"{label(node)}: {error.pattern!r} is no regular expression ({error})."
            ) from error
        if expression:
            return lambda text: [text[begin:end] for begin, end in _matches(patterns[0], text)]

        def between(text: str) -> list[str]:
            parts = [text]
            for pattern in patterns:
                parts = [piece for part in parts for piece in _between(pattern, part)]
            return [part for part in parts if part]

        return between


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Where the matches are that are not empty, from left to right, each as long as it can be."""
    at = 0
    while at < len(text) and (match := pattern.search(text, at)) is not None:
        begin = match.start()
        ends = range(len(text), begin, -1)
        end = next((end for end in ends if pattern.fullmatch(text, begin, end)), begin)
        if end > begin:
            yield begin, end
        at = max(end, begin + 1)


def _between(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    last = 0
    for begin, end in _matches(pattern, text):
        yield text[last:begin]
        last = end
    yield text[last:]


@register("NGramRepeatBlock", since=1, domain=DOMAIN)
class NGramRepeatBlock(Op):
    """Scores [B, words], -inf for a word that would repeat `ngram_size` words of its row of ids [B, S]."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The shape of the scores."""
        ids, scores = need(node, inputs, 0), need(node, inputs, 1)
        if len(ids.shape) != 2 or len(scores.shape) != 2 or ids.shape[0] != scores.shape[0]:
            raise shape_error(node, f"ids {show(ids.shape)} do not fit scores {show(scores.shape)}")
        return [Facts(scores.dtype, scores.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Each place whose words before it are the row's last ones."""
        ids, scores = present(inputs, 0), present(inputs, 1).copy()
        size = attr_int(node, "ngram_size", 0)
        if size < 1:
            raise ModelError(f"{label(node)}: ngram_size is {size}, and must be positive.")
        if ids.shape[1] < size:
            return [scores]
        words = np.lib.stride_tricks.sliding_window_view(ids, size, axis=1)
        last = ids[:, ids.shape[1] - size + 1 :]
        row, place = np.nonzero((words[..., : size - 1] == last[:, None]).all(-1))
        column = words[row, place, size - 1]
        if ((column < 0) | (column >= scores.shape[1])).any():
            raise InputError(f"{label(node)}: an id is outside of {scores.shape[1]} scores. Check input_ids.")
        scores[row, column] = -np.inf
        return [scores]


@register("DynamicTimeWarping", since=1, domain=DOMAIN)
class DynamicTimeWarping(Op):
    """The cheapest way [2, steps] through costs [M, N] (or [1, M, N]) from one corner to the other."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Sums along anti-diagonals; of ways that cost the same the one across comes first, then down."""
        x = present(inputs, 0)
        costs = x[0] if x.ndim == 3 and len(x) == 1 else x
        if costs.ndim != 2 or not costs.size:
            raise shape_error(node, f"the costs {show(x.shape)} are no matrix")
        rows, columns = costs.shape
        total = np.full((rows + 1, columns + 1), np.inf, np.float32)
        came = np.zeros((rows + 1, columns + 1), np.int8)
        total[0, 0] = 0
        for diagonal in range(rows + columns - 1):
            i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1)) + 1
            j = diagonal + 2 - i
            across, down, along = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
            first = (across < down) & (across < along)
            second = ~first & (down < across) & (down < along)
            best = np.where(first, across, np.where(second, down, along))
            total[i, j] = costs[i - 1, j - 1] + best
            came[i, j] = np.where(first, 0, np.where(second, 1, 2))
        came[0, :], came[:, 0] = 2, 1
        way: list[tuple[int, int]] = []
        i, j = rows, columns
        while i > 0 or j > 0:
            way.append((i - 1, j - 1))
            step = came[i, j]
            i, j = i - (step != 2), j - (step != 1)
        return [np.array(way[::-1], np.int32).T]


@register("MurmurHash3", since=1, domain=DOMAIN)
class MurmurHash3(Op):
    """32 bits of each element (Appleby, 2011: MurmurHash3_x86_32), unsigned or not."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The shape of x."""
        dtype = np.uint32 if attr_int(node, "positive", 1) else np.int32
        return [Facts(np.dtype(dtype), need(node, inputs, 0).shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Of the bytes of a number, or of a string in UTF-8."""
        x, seed = present(inputs, 0), attr_int(node, "seed", 0) & 0xFFFFFFFF
        if x.dtype == STRING:
            keys = [str(text).encode() for text in x.ravel().tolist()]
        else:
            keys = [value.tobytes() for value in np.ascontiguousarray(x).ravel()]
        hashes = np.array([_hash(key, seed) for key in keys], np.uint32).reshape(x.shape)
        return [hashes if attr_int(node, "positive", 1) else hashes.view(np.int32)]


def _hash(key: bytes, seed: int) -> int:
    def turned(x: int, bits: int) -> int:
        return (x << bits | x >> (32 - bits)) & 0xFFFFFFFF

    def mixed(word: int) -> int:
        return turned(word * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF

    h, whole = seed, len(key) // 4 * 4
    for at in range(0, whole, 4):
        h = (turned(h ^ mixed(int.from_bytes(key[at : at + 4], "little")), 13) * 5 + 0xE6546B64) & 0xFFFFFFFF
    h ^= mixed(int.from_bytes(key[whole:], "little")) ^ len(key)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ h >> shift) * factor & 0xFFFFFFFF
    return h
