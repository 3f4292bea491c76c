"""Objects among the arguments: what they hold are inputs, what a call leaves in them are outputs. A
transformer's key-value cache is one; a loop over the exported step says what the module's `generate` says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch import nn

import ingot
from ingot.calls import ingot_runner
from ingot.capture.attempt import capture
from ingot.verify import verify_capture
from tests.capture.support import ort_runner

tf.logging.set_verbosity_error()


class Layer:
    """Rows so far, and how many were ever added."""

    def __init__(self, rows: torch.Tensor, added: int) -> None:
        self.rows, self.added, self.window = rows, added, 4

    def update(self, new: torch.Tensor) -> torch.Tensor:
        """All rows; the last three stay."""
        whole = torch.cat([self.rows, new], 1)
        self.rows = whole[:, -self.window + 1 :]
        self.added += new.shape[1]
        return whole


class Memory:
    """Two layers, one of them in a dict, and something that no call reads."""

    def __init__(self, batch: int, rows: int) -> None:
        self.layers = {"a": Layer(torch.randn(batch, rows, 3), rows), "b": Layer(torch.randn(batch, 2, 3), 7)}
        self.sums = torch.zeros(batch, 3)
        self._unread = torch.ones(5)


class Reader(nn.Module):
    """Attends to what the memory holds; returns it or leaves it to the caller."""

    def __init__(self, returns: bool) -> None:
        super().__init__()
        self.returns = returns

    def forward(self, x: torch.Tensor, memory: Memory) -> Any:
        """x: [b, n, 3]."""
        y = x
        for layer in memory.layers.values():
            whole = layer.update(y)
            y = (y @ whole.mT).softmax(-1) @ whole / (1 + layer.added)
        memory.sums.add_(y.sum(1))
        return (y, memory) if self.returns else y


@pytest.mark.parametrize("returns", [True, False])
def test_what_objects_hold_goes_in_and_out(returns: bool) -> None:
    """Tensors that are replaced, written to and untouched, a number that counts, over several sizes."""
    torch.manual_seed(0)
    captured = capture(Reader(returns), (torch.randn(2, 4, 3), Memory(2, 5)))
    names = [str(v.name) for v in captured.model.graph.inputs]
    assert "memory__unread" not in names  # no output needs it
    assert captured.recording.carried == {
        f"memory_{name}": f"next.memory_{name}"
        for name in ("layers_a_rows", "layers_a_added", "layers_b_rows", "layers_b_added", "sums")
    }
    report = verify_capture(captured, runner=ort_runner)
    assert len(report.cases) >= 4


def test_the_caller_s_object_stays_as_it_was() -> None:
    """An export works on copies."""
    memory = Memory(2, 5)
    before = memory.layers["a"].rows.clone()
    program = ingot.export(Reader(True), (torch.randn(2, 4, 3), memory))
    assert torch.equal(memory.layers["a"].rows, before)
    assert memory.layers["a"].added == 5
    y, after = program(torch.randn(2, 4, 3), memory)
    assert int(after.layers["a"].added) == 9
    again, _ = program(torch.randn(2, 1, 3), after)  # what a call returns is an argument of the next
    assert y.shape == (2, 4, 3)
    assert again.shape == (2, 1, 3)


@dataclasses.dataclass
class Rows:
    """Rows so far, and how many."""

    k: torch.Tensor
    n: int = 0


class Grows(nn.Module):
    """The same step on a dataclass, a dict or a list."""

    def forward(self, x: torch.Tensor, past: Any) -> torch.Tensor:
        """x: [b, n]."""
        if isinstance(past, Rows):
            past.k, past.n = torch.cat([past.k, x], 1), past.n + x.shape[1]
            return past.k.sum(1) * past.n
        k, n = ("k", "n") if isinstance(past, dict) else (0, 1)
        past[k] = torch.cat([past[k], x], 1)
        past[n] += x.shape[1]
        return past[k].sum(1) * past[n]


@pytest.mark.parametrize("make", [Rows, lambda k, n: {"k": k, "n": n}, lambda k, n: [k, n]],
                         ids=["dataclass", "dict", "list"])  # fmt: skip
def test_what_dataclasses_dicts_and_lists_hold_goes_in_and_out(make: Callable[..., Any]) -> None:
    """As what plain objects hold; `Stateful` carries it, and the caller's own stays as it was."""
    given = make(torch.randn(2, 5), 5)
    program = ingot.export(Grows(), (torch.randn(2, 3), given))
    assert len(program.input_names) == 3 and not [a for a in program.assumptions if a.kind == "argument"]
    own = make(torch.zeros(4, 0), 0)
    session = ingot.Stateful(program)
    for columns in (3, 1, 2):
        x = torch.randn(4, columns)
        (got,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(got, Grows()(x, own).numpy(), rtol=1e-5)
    first = (
        given.k
        if isinstance(given, Rows)
        else next(iter(given.values() if isinstance(given, dict) else given))
    )
    assert first.shape == (2, 5)


def test_what_no_output_can_be_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A word, a truth and a None that a call leaves in its arguments; a new tensor there is an output."""

    class Marks(nn.Module):
        def forward(self, x: torch.Tensor, c: dict[str, Any]) -> torch.Tensor:
            c["on"], c["word"], c["t"], c["new"] = True, "b", None, x * 2
            return x.sum(1)

    program = ingot.export(Marks(), (torch.randn(2, 3), {"on": False, "word": "a", "t": torch.ones(2)}))
    assert [str(v.name) for v in program.model.graph.outputs] == ["output", "next.c_new"]
    said = capsys.readouterr().err
    for left, label, found in (
        ("True", "c_on", "False"),
        ("'b'", "c_word", "'a'"),
        ("None", "c_t", "a tensor"),
    ):
        assert f"forward leaves {left} in argument {label!r}, where {found} was" in said


class Shortcut(nn.Module):
    """Another way for one row, chosen as a set: no ONNX value can be that."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sums of rows."""
        way = {"short"} if x.shape[0] == 1 else {"long"}
        return x[0] * self.factor if "short" in way else x.sum(0)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_the_way_that_the_example_did_not_take(factor: float) -> None:
    """It is in the model: an If over the size around all that follows."""
    captured = capture(Shortcut(factor), (torch.randn(4, 3),))
    assert not [a for a in captured.assumptions if a.kind == "branch"]
    for rows in (1, 4, 2):
        x = torch.randn(rows, 3)
        want = Shortcut(factor)(x).numpy()
        for run in (ort_runner(captured.model), ingot_runner(captured.model)):
            np.testing.assert_allclose(run({"x": x.numpy()}, captured.output_names)[0], want, rtol=1e-5)


class Shorter(nn.Module):
    """Of the keys as many as there are values, with another way for none, of the same result."""

    def forward(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Sums of both."""
        way = {"empty"} if keys.shape[0] == 0 else {"some"}
        return values + keys[: values.shape[0]] if "some" in way else values


def test_a_way_for_none_keeps_to_bounds() -> None:
    """Keys of none are recorded with values of none: of more there are no keys, which the model refuses."""
    captured = capture(Shorter(), (torch.randn(5, 3), torch.randn(4, 3)))
    assert not [a for a in captured.assumptions if a.kind == "branch"], captured.assumptions
    run = ort_runner(captured.model)
    for keys, values in ((0, 0), (5, 5), (6, 2)):
        x, y = torch.randn(keys, 3), torch.randn(values, 3)
        (got,) = run({"keys": x.numpy(), "values": y.numpy()}, captured.output_names)
        np.testing.assert_allclose(got, Shorter()(x, y).numpy(), rtol=1e-6)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
         "vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip


def llama() -> Any:
    """Shared key heads."""
    return tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL, num_key_value_heads=2))


def test_the_way_that_the_example_took() -> None:
    """Positions are not repeated for a batch of 1. Where they are, nothing else changes: it is free."""
    ids = torch.randint(3, 90, (3, 5))
    model = llama().eval()
    program = ingot.export(model, kwargs={"input_ids": ids[:1], "use_cache": False})
    assert "input_ids_batch" in ingot.InferenceSession(program).get_inputs()[0].shape
    for rows in (1, 3):
        with torch.no_grad():
            want = model(ids[:rows], use_cache=False).logits.numpy()
        np.testing.assert_allclose(program(ids[:rows]).logits, want, atol=1e-5 * abs(want).max())


def mistral() -> Any:
    """A window of 6 tokens, which the cache counts."""
    return tf.MistralForCausalLM(tf.MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=6))


@pytest.mark.parametrize("make", [mistral, pytest.param(llama, marks=pytest.mark.slow)])
def test_a_loop_over_the_step_is_generate(make: Callable[[], Any]) -> None:
    """One model for the prompt and for each token after it, at several batch sizes, token for token."""
    torch.manual_seed(0)
    model = make().eval()
    ids = torch.randint(3, 99, (2, 9))
    with torch.no_grad():
        past = model(ids[:, :5], use_cache=True).past_key_values
    call = {"input_ids": ids[:, 5:], "attention_mask": torch.ones_like(ids), "past_key_values": past}
    session = ingot.Stateful(ingot.export(model, kwargs={**call, "use_cache": True}))
    for batch, length in ((2, 6), (3, 1)):
        prompt = torch.randint(3, 99, (batch, length))
        wanted = model.generate(prompt, max_new_tokens=8, do_sample=False, eos_token_id=None)
        session.reset()
        new = seen = prompt.numpy()
        for _ in range(8):
            (logits,) = session.run(["logits"], {"input_ids": new, "attention_mask": np.ones_like(seen)})
            new = logits[:, -1:].argmax(-1)
            seen = np.concatenate([seen, new], 1)
        np.testing.assert_array_equal(seen, wanted.numpy())
