"""Generation with a key-value cache, of every architecture that has one: the step is exported with its cache
as inputs and outputs, and tokens and logits of a greedy loop over it in Ingot's session are compared with
those of the model's own `generate`.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch

from ingot.closeness import TOLERANCE, distance
from tests.architectures.build import arguments, awaken, ids, tiny

BATCHES = ((2, 6), (1, 3), (3, 1))  # rows and length of the prompts
TOKENS = 6
CACHES = ("past_key_values", "cache_params", "state", "mems")


class Unbuilt(Exception):
    """There is nothing to measure: no such model, or no cache."""


def generation(config_class: Any) -> str:
    """How the loop was made; raises where it was not, or where a token differs.

    Raises:
        Unbuilt: the architecture has no model that generates with a cache from what is made here.
        IngotError: the export was refused, or found wrong.
        AssertionError: a token differs, or logits do.
    """
    import transformers as tf

    torch.manual_seed(0)
    tf.logging.set_verbosity_error()
    try:
        config = tiny(config_class)
        config.use_cache = True
        if getattr(config, "is_encoder_decoder", False) and not hasattr(config, "decoder_start_token_id"):
            config.decoder_start_token_id = config.pad_token_id or 0  # T5's, which its own class leaves open
        model = _model(config).eval().float()
        awaken(model)
        model.generation_config.use_cache = True  # of which models inside one that `tiny` made say no
        for name in ("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "forced_decoder_ids"):
            if getattr(model.generation_config, name, None) is not None:
                setattr(model.generation_config, name, None)
        seq2seq = bool(getattr(config, "is_encoder_decoder", False))
        begin = _beginning(model, config, seq2seq)
        name, past = _cache_of(model(**begin))
    except Exception as error:
        raise Unbuilt(
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
    if seq2seq:
        return _translating(model, begin, name, past)
    return _continuing(model, begin, name, past)


def _model(config: Any) -> Any:
    import transformers as tf

    kinds = (tf.AutoModelForCausalLM, tf.AutoModelForSeq2SeqLM, tf.AutoModelForSpeechSeq2Seq)
    order = kinds[1:] if getattr(config, "is_encoder_decoder", False) else kinds[:1]
    for kind in order:
        if type(config) in kind._model_mapping:
            return kind.from_config(config)
    raise Unbuilt("no model that generates")


def _beginning(model: Any, config: Any, seq2seq: bool) -> dict[str, Any]:
    """The arguments of a first call, without a past."""
    if not seq2seq:
        return {"input_ids": ids(2, 5), "use_cache": True}
    given = arguments(model, config)
    made = model.generation_config  # which begins with the first of these that is a token
    starts = (made.decoder_start_token_id, made.bos_token_id, getattr(config, "decoder_start_token_id", None))
    given["decoder_input_ids"] = torch.full((2, 1), next((s for s in starts if s is not None), 1))
    return {**given, "use_cache": True}


def _cache_of(output: Any) -> tuple[str, Any]:
    found = [n for n in CACHES if output.get(n) is not None]
    if not found:
        raise Unbuilt("the model returns no cache")
    return found[0], output[found[0]]


def _generated(model: Any, inputs: dict[str, Any], **options: Any) -> Any:
    """The model's own greedy search: its tokens and the logits of each step."""
    with torch.no_grad():
        return model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, eos_token_id=None,
                              output_logits=True, return_dict_in_generate=True, **options)  # fmt: skip


def _require_equal(seen: list[Any], steps: list[Any], wanted: Any) -> None:
    """The tokens that were made are those of `generate` (some of which leave the prompt away), the logits of
    each step within what `ingot.verify` allows.
    """
    np.testing.assert_array_equal(np.concatenate(seen, 1), wanted.sequences.numpy()[:, -TOKENS:])
    assert len(wanted.logits) == TOKENS
    for found, reference in zip(steps, wanted.logits, strict=True):
        difference, scale = distance(reference.float().numpy(), found)
        assert difference <= TOLERANCE["float32"] * scale, f"logits differ by {difference} of {scale}"


def _takes_all(model: Any) -> bool:
    """Whether `generate` passes all of the text beside the cache, not only the token that is new."""
    lengths = list[int]()
    hook = model.register_forward_pre_hook(
        lambda _, __, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        model.generate(ids(1, 3), max_new_tokens=2, do_sample=False, eos_token_id=None, pad_token_id=0)
    finally:
        hook.remove()
    return lengths == [3, 4]


def _continuing(model: Any, begin: dict[str, Any], name: str, past: Any) -> str:
    """A decoder: one model for the prompt and each token, or where it takes no more than a token beside its
    state, or all of the text, one for each.
    """
    import ingot

    masked = "attention_mask" in inspect.signature(model.forward).parameters and name == "past_key_values"
    alone, whole = name != "past_key_values", _takes_all(model)
    known = begin["input_ids"].shape[1]
    new = known + 1 if whole else 1 if alone else 4
    step = {"input_ids": ids(2, new), name: past, "use_cache": True}
    if masked:
        step["attention_mask"] = torch.ones(2, new if whole else known + new, dtype=torch.int64)
    session = ingot.Stateful(ingot.export(model, kwargs=step))
    first = ingot.export(model, kwargs=begin) if alone or whole else None
    one = None if first is None else first.session()
    for batch, length in BATCHES:
        prompt = ids(batch, length)
        wanted = _generated(model, {"inputs": prompt}, pad_token_id=0)
        session.reset()
        new = prompt.numpy()
        seen = list[Any]()
        steps = list[Any]()
        for i in range(TOKENS):
            mask = {"attention_mask": np.ones((batch, length + i), np.int64)} if masked else {}
            if first is not None and one is not None and i == 0:
                found = dict(
                    zip(first.output_names, one.run(first.output_names, {"input_ids": new}), strict=True)
                )
                session.reset({s.input: found[s.input] for s in session.states})
                logits = found["logits"]
            else:
                (logits,) = session.run(["logits"], {"input_ids": new, **mask})
            token = logits[:, -1:].argmax(-1)
            new = np.concatenate([new, token], 1) if whole else token
            seen.append(token)
            steps.append(logits[:, -1])
        _require_equal(seen, steps, wanted)
    two = "two models, the prompt's and the next tokens'"
    return "one model for prompts and tokens" if first is None else two


def _translating(model: Any, begin: dict[str, Any], name: str, past: Any) -> str:
    """An encoder-decoder: a model for the first token, and one for those after it."""
    import ingot

    encoder = {k: v for k, v in begin.items() if not k.startswith("decoder")}
    with torch.no_grad():
        first_output = model(**begin)
    states = first_output.encoder_last_hidden_state
    first = ingot.export(model, kwargs=begin)
    encoded = type(model.get_encoder()(**{k: v[:1] for k, v in encoder.items() if k != "use_cache"}))(states)
    token = first_output.logits[:, -1:].argmax(-1)  # which its vocabulary has, of however few tokens
    step = {"decoder_input_ids": token, "encoder_outputs": encoded, name: past, "use_cache": True}
    if "attention_mask" in encoder:
        step["attention_mask"] = encoder["attention_mask"]
    later = ingot.export(model, kwargs=step)
    one, session = first.session(), ingot.Stateful(later)
    takes = {v.name for v in later.model.graph.inputs}
    for rows in (2, 1):
        given = {k: v[:rows] for k, v in begin.items() if isinstance(v, torch.Tensor)}
        source = {k: v for k, v in given.items() if not k.startswith("decoder")}
        wanted = _generated(model, source, num_beams=1, min_new_tokens=TOKENS)
        used = {v.name for v in one.get_inputs()}
        feeds = {k: v.numpy() for k, v in given.items() if k in used}
        found = dict(zip(first.output_names, one.run(first.output_names, feeds), strict=True))
        cache = {n: a for n, a in found.items() if n in takes}
        own = {s.input for s in session.states}
        session.reset({n: a for n, a in cache.items() if n in own})
        fixed = {n: a for n, a in cache.items() if n not in own}
        if "attention_mask" in takes:
            fixed["attention_mask"] = feeds["attention_mask"]
        if "encoder_outputs_last_hidden_state" in takes:
            fixed["encoder_outputs_last_hidden_state"] = found["encoder_last_hidden_state"]
        logits = found["logits"]
        seen, steps = list[Any](), list[Any]()
        for i in range(TOKENS):
            new = logits[:, -1:].argmax(-1)
            seen.append(new)
            steps.append(logits[:, -1])
            if i + 1 < TOKENS:
                (logits,) = session.run(["logits"], {"decoder_input_ids": new, **fixed})
        _require_equal(seen, steps, wanted)
    return "two models, the first token's and the next ones'"
