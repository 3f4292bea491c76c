"""com.microsoft's loops that write text: GreedySearch, Sampling and BeamSearch, whose bodies are the decoder.

Only decoders alone (GPT-2's form): the body gets the newest words, their places, a mask of the whole text and
what it kept of older words [2, B, N, S, H] for each layer, and gives scores of the next words [B, S, words]
and what it keeps now. Sources: docs/ContribOperators.md and contrib_ops/cpu/transformers of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError, UnsupportedOperatorError
from ingot.ops.control import Control, RunGraph, Subgraphs, body_of, one_of
from ingot.ops.registry import Array, attr_float, attr_int, given, label, register, shape_error, show

_DOMAIN = "com.microsoft"
_LOWEST = np.finfo(np.float32).min
#: The score of all beams but the first before anything is written: they begin alike.
_BEHIND = np.float32(-1e9)


@dataclass
class _Options:
    """What the node says of a text, and its inputs by name; words of masks that are 0 are not written."""

    node: ir.Node
    ids: Array
    longest: int
    shortest: int
    repetition: float
    words: Array | None
    first_words: Array | None
    mask: Array | None
    pad: int
    end: int

    def penalised(self, scores: Array, texts: Array, is_first: bool) -> Array:
        """Scores [B, words] of what may follow each text [B, S], in the order in which the rules apply."""
        count = scores.shape[1]
        masks = ("vocab_mask", self.words, 1), ("prefix_vocab_mask", self.first_words, 2)
        for name, words, rank in masks:
            if words is not None and (np.ndim(words) != rank or np.shape(words)[-1] != count):
                raise shape_error(self.node, f"{name} has shape {show(np.shape(words))}, for {count} words")
        scores = scores.copy()
        if self.repetition != 1.0:
            for row, text in zip(scores, texts, strict=True):
                seen = np.unique(text)
                old = row[seen]
                row[seen] = np.where(old < 0, old * self.repetition, old / self.repetition)
        size = attr_int(self.node, "no_repeat_ngram_size", 0)
        if 0 < size <= texts.shape[1]:
            for row, text in zip(scores, texts, strict=True):
                row[list(_repeating(text, size))] = _LOWEST
        if self.words is not None:
            scores[:, self.words == 0] = _LOWEST
        if self.first_words is not None and is_first:
            beams = len(scores) // len(self.first_words)
            scores[np.repeat(self.first_words, beams, 0) == 0] = _LOWEST
        if texts.shape[1] < self.shortest and 0 <= self.end < count:  # else no word ends a text
            scores[:, self.end] = _LOWEST
        return scores


def _repeating(text: Array, size: int) -> Iterator[int]:
    """The words that would end `size` words which the text has already."""
    last = text[len(text) - size + 1 :]
    for at in range(len(text) - size + 1):
        if np.array_equal(text[at : at + size - 1], last):
            yield int(text[at + size - 1])


def _options(node: ir.Node, inputs: Sequence[Any], places: Sequence[int]) -> _Options:
    """places: the inputs that are min_length, repetition_penalty, vocab_mask, prefix_vocab_mask and
    attention_mask; max_length is the second one.
    """
    ids = np.asarray(inputs[0])
    if ids.ndim != 2 or not ids.size:
        raise shape_error(node, f"input_ids has shape {show(ids.shape)}, and must be [batch, length]")
    if attr_int(node, "model_type", 0) != 0 or "encoder" in node.attributes:
        raise UnsupportedOperatorError(
            f"{label(node)}: only decoders alone (model_type 0) run here, not those behind an encoder. Call "
            "the encoder and the decoder as models of their own."
        )
    longest = int(one_of(node, "max_length", inputs[1]))
    if ids.shape[1] >= longest:
        raise shape_error(
            node, f"max_length is {longest}, and input_ids has {ids.shape[1]} words", "Give a larger one."
        )
    shortest, repetition, words, first_words, mask = (given(inputs, place) for place in places)
    if mask is not None and np.shape(mask) != ids.shape:
        raise shape_error(
            node, f"attention_mask has shape {show(np.shape(mask))}, input_ids {show(ids.shape)}"
        )
    if first_words is not None and (np.ndim(first_words) != 2 or len(first_words) != len(ids)):
        raise shape_error(
            node, f"prefix_vocab_mask has shape {show(np.shape(first_words))}, not [batch, words]"
        )
    return _Options(
        node=node,
        ids=ids,
        longest=longest,
        shortest=0 if shortest is None else int(one_of(node, "min_length", shortest)),
        repetition=1.0 if repetition is None else float(one_of(node, "repetition_penalty", repetition)),
        words=words,
        first_words=first_words,
        mask=mask,
        pad=attr_int(node, "pad_token_id", 0),
        end=attr_int(node, "eos_token_id", 0),
    )


@dataclass
class _Decoder:
    """The body, and what it is fed from word to word. Every text has `beams` rows."""

    options: _Options
    beams: int
    run_graph: RunGraph
    mask: Array = field(init=False)
    lengths: Array = field(init=False)
    kept: list[Array] = field(init=False)
    given: tuple[Array, Array] = field(init=False)

    def __post_init__(self) -> None:
        options = self.options
        ids = np.repeat(options.ids, self.beams, 0)
        is_word = ids != options.pad
        mask = is_word if options.mask is None else np.repeat(options.mask, self.beams, 0)
        self.mask = mask.astype(np.int32)
        places = np.where(is_word, np.cumsum(is_word, 1) - 1, 0).astype(np.int32)
        self.lengths = is_word.sum(1).astype(np.int32)
        self.given = ids, places
        body = self._body(options)
        if not 3 < len(body.inputs) == len(body.outputs) + 2:
            raise ModelError(
                f"{label(options.node)}: its decoder has {len(body.inputs)} inputs and {len(body.outputs)} "
                "outputs; it must take input_ids, position_ids, attention_mask and what is past of each "
                "layer, and give logits and what is kept of each layer."
            )
        self.kept = [self._nothing(value) for value in body.inputs[3:]]

    def _body(self, options: _Options, is_first: bool = False) -> ir.Graph:
        name = "init_decoder" if is_first and "init_decoder" in options.node.attributes else "decoder"
        return body_of(options.node, name)

    def _nothing(self, value: ir.Value) -> Array:
        dims = None if value.shape is None else list(value.shape)
        if dims is None or len(dims) != 5 or not isinstance(dims[2], int) or not isinstance(dims[4], int):
            raise UnsupportedOperatorError(
                f"{label(self.options.node)}: input {value.name!r} of its decoder must be declared as "
                "[2, batch, heads, length, size] with numbers for heads and size; buffers of fixed length "
                "are unknown here. Export the decoder with past keys and values that grow."
            )
        dtype = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
        return np.zeros((2, len(self.mask), dims[2], 0, dims[4]), dtype)

    def scores(self, is_first: bool) -> Array:
        """Those of the next words [B, words] in float32."""
        logits, *self.kept = self.run_graph(
            self._body(self.options, is_first), [*self.given, self.mask, *self.kept]
        )
        logits = np.asarray(logits)
        if logits.ndim != 3:
            raise shape_error(
                self.options.node,
                f"its decoder gives scores {show(logits.shape)}, and must give [batch, length, words]",
            )
        return logits[:, -1].astype(np.float32)

    def follow(self, words: Array, rows: Array | None = None) -> None:
        """The words [B] are written behind the texts of `rows`."""
        if rows is not None:
            self.kept = [kept[:, rows] for kept in self.kept]
        self.given = words[:, None].astype(np.int32), self.lengths[:, None].copy()
        self.lengths += 1
        self.mask = np.concatenate([self.mask, np.ones((len(self.mask), 1), np.int32)], 1)


def _written(options: _Options, run_graph: RunGraph, choose: Callable[[Array], Array]) -> Array:
    """One text for each row of input_ids [B, max_length]; the end, and words after it, are padding.
    choose: from the scores of words [B, words] to the next word of each row.
    """
    decoder = _Decoder(options, 1, run_graph)
    texts, ended = options.ids, np.zeros(len(options.ids), bool)
    result = np.full((len(texts), options.longest), options.pad, np.int32)
    while True:
        is_first = texts.shape[1] == options.ids.shape[1]
        scores = options.penalised(decoder.scores(is_first), texts, is_first)
        words = choose(scores)
        ended |= words == options.end
        words = np.where(ended, options.pad, words).astype(np.int32)
        texts = np.concatenate([texts, words[:, None]], 1)
        if ended.all() or texts.shape[1] == options.longest:
            result[:, : texts.shape[1]] = texts
            return result
        decoder.follow(words)


#: Where the inputs of `_options` stand in nodes that write one text.
_PLACES = (2, 3, 4, 5, 6)


@register("GreedySearch", since=1, domain=_DOMAIN)
class GreedySearch(Control):
    """The likeliest word, again and again; of those that are as likely the first."""

    def run(self, node: ir.Node, inputs: Sequence[Any], subgraphs: Subgraphs) -> list[Any]:
        """The texts [B, max_length]."""
        return [_written(_options(node, inputs, _PLACES), subgraphs.run, lambda scores: scores.argmax(-1))]


@register("Sampling", since=1, domain=_DOMAIN)
class Sampling(Control):
    """Words drawn from the likeliest ones, whose probabilities add up to top_p."""

    random = True

    def run(self, node: ir.Node, inputs: Sequence[Any], subgraphs: Subgraphs) -> list[Any]:
        """The texts [B, max_length]. Draws are NumPy's, not ONNX Runtime's."""
        if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
            raise UnsupportedOperatorError(f"{label(node)}: filtered_logits is unknown here. Leave it out.")
        if attr_int(node, "custom", 0) or given(inputs, 7) is not None:
            raise UnsupportedOperatorError(
                f"{label(node)}: custom sampling and a presence mask are unknown here. Leave them out."
            )
        seed = given(inputs, 8)
        number = None if seed is None else int(one_of(node, "seed", seed)) & 0xFFFFFFFF
        generator = np.random.default_rng(number)
        options = _options(node, inputs, _PLACES)
        return [_written(options, subgraphs.run, lambda scores: _drawn(node, scores, generator))]


def _drawn(node: ir.Node, scores: Array, generator: np.random.Generator) -> Array:
    """A word for each row: of those that come first, the fewest whose probabilities reach `top_p`."""
    heat, share = attr_float(node, "temperature", 1.0), attr_float(node, "top_p", 0.0)
    least = max(attr_int(node, "min_tokens_to_keep", 0), 1)
    scores = scores / np.float32(heat) if heat > 0 else scores
    order = np.argsort(-scores, -1, kind="stable")
    ranked = np.take_along_axis(scores, order, -1)
    shares = _shares(ranked)
    away = np.cumsum(shares, -1) - shares > share
    away[:, :least] = False
    left = np.cumsum(_shares(np.where(away, attr_float(node, "filter_value", -1e20), ranked)), -1)
    rank = (left <= generator.random((len(scores), 1)) * left[:, -1:]).sum(-1)
    return np.take_along_axis(order, rank.clip(max=scores.shape[-1] - 1)[:, None], -1)[:, 0]


def _shares(scores: Array) -> Array:
    """Softmax."""
    power = np.exp((scores - scores.max(-1, keepdims=True)).astype(np.float64))
    return power / power.sum(-1, keepdims=True)


@dataclass
class _Ended:
    """The best texts of one row of input_ids that are at their end."""

    most: int
    penalty: float
    texts: list[tuple[np.float32, Array]] = field(default_factory=list[tuple[np.float32, Array]])
    done: bool = False

    def worth(self, score: Any, length: int) -> np.float32:
        """A score divided by a power of the length."""
        return np.float32(score / np.float32(float(length) ** self.penalty))

    def add(self, text: Array, score: Any) -> None:
        """The worst one makes room."""
        value = self.worth(score, len(text))
        if len(self.texts) < self.most or value > self.texts[-1][0]:
            self.texts.append((value, text))
            self.texts.sort(key=lambda pair: -pair[0])
            del self.texts[self.most :]

    def is_settled(self, best: Any, length: int, early: bool) -> bool:
        """Whether no text that still grows can be better."""
        if len(self.texts) < self.most:
            return False
        return early or bool(self.texts[-1][0] >= self.worth(best, length))


@register("BeamSearch", since=1, domain=_DOMAIN)
class BeamSearch(Control):
    """The likeliest texts: of each row the best `num_beams` go on with every word."""

    def run(self, node: ir.Node, inputs: Sequence[Any], subgraphs: Subgraphs) -> list[Any]:
        """Texts [B, returned, max_length], their scores [B, returned], and those of each word
        [max_length - S, B, beams, words], 0 after the last step.
        """
        options = _options(node, inputs, (2, 6, 7, 8, 9))
        if given(inputs, 10) is not None or np.any(given(inputs, 11)):
            raise UnsupportedOperatorError(
                f"{label(node)}: decoder_input_ids and logits_processor belong to decoders behind an "
                "encoder, which are unknown here. Leave the inputs out."
            )
        beams, wanted = (int(one_of(node, name, inputs[i])) for i, name in ((3, "num_beams"), (4, "number")))
        if not 1 <= wanted <= beams:
            raise shape_error(node, f"{wanted} texts are wanted of {beams} beams", "Give more beams.")
        penalty = given(inputs, 5)
        power = 1.0 if penalty is None else float(one_of(node, "length_penalty", penalty))
        found = [_Ended(beams, power) for _ in options.ids]
        totals, texts, steps = self._grow(options, found, beams, subgraphs.run)
        result = np.full((len(found), wanted, options.longest), options.pad, np.int32)
        scores = np.zeros((len(found), wanted), np.float32)
        for row, ended in enumerate(found):
            if not ended.done:
                for beam in range(row * beams, (row + 1) * beams):
                    ended.add(texts[beam], totals[beam])
            for place, (score, text) in enumerate(ended.texts[:wanted]):
                result[row, place, : len(text)] = text
                scores[row, place] = score
        each = np.zeros((options.longest - options.ids.shape[1], *steps[0].shape), np.float32)
        each[: len(steps)] = steps
        return [result, scores, each][: len(node.outputs)]

    def _grow(
        self, options: _Options, found: Sequence[_Ended], beams: int, run_graph: RunGraph
    ) -> tuple[Array, Array, list[Array]]:
        """The texts that grow until the last word or until all are settled, and their scores."""
        decoder, early = (
            _Decoder(options, beams, run_graph),
            bool(attr_int(options.node, "early_stopping", 0)),
        )
        texts = np.repeat(options.ids, beams, 0)
        totals = np.full((len(found), beams), _BEHIND)
        totals[:, 0] = 0
        totals, steps = totals.ravel(), list[Array]()
        while True:
            is_first = texts.shape[1] == options.ids.shape[1]
            logits = decoder.scores(is_first)
            shifted = logits - logits.max(-1, keepdims=True)
            scores = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
            scores = options.penalised(scores, texts, is_first) + totals[:, None]
            steps.append(scores.reshape(len(found), beams, -1))
            totals, words, rows = self._step(options, found, texts, steps[-1], early)
            texts = np.concatenate([texts[rows], words[:, None]], 1)
            if all(ended.done for ended in found) or texts.shape[1] == options.longest:
                return totals, texts, steps
            decoder.follow(words, rows)

    @staticmethod
    def _step(
        options: _Options, found: Sequence[_Ended], texts: Array, scores: Array, early: bool
    ) -> tuple[Array, Array, Array]:
        """Scores, words and rows of the texts that go on: of twice as many as there are beams, those whose
        text has not ended.
        """
        _, beams, count = scores.shape
        totals = np.zeros(len(found) * beams, np.float32)
        words = np.full(len(totals), options.pad, np.int32)
        rows = np.zeros(len(totals), np.int64)
        for row, (ended, own) in enumerate(zip(found, scores.reshape(len(found), -1), strict=True)):
            if ended.done:
                continue
            best = np.argsort(-own, kind="stable")[: 2 * beams]
            beam = 0
            for rank, place in enumerate(best.tolist()):
                origin, word = row * beams + place // count, place % count
                if word == options.end:
                    if rank < beams:
                        ended.add(texts[origin], own[place])
                    continue
                target = row * beams + beam
                totals[target], words[target], rows[target] = own[place], word, origin
                beam += 1
                if beam == beams:
                    break
            ended.done = ended.is_settled(own[best[0]], texts.shape[1], early)
        return totals, words, rows
