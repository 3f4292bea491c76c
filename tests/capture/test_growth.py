"""What an export does grows with a model's depth, and with nothing faster; layers that are alike are worked
out once. Counted, not timed: `make bench-depth` times it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import ingot
from ingot.capture.state import Snapshot

ROOT = Path(__file__).parents[2]
Built = tuple[nn.Module, dict[str, torch.Tensor]]
WORDS = {
    "input_ids": torch.ones(2, 6, dtype=torch.int64),
    "attention_mask": torch.ones(2, 6, dtype=torch.int64),
}
SIZES: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "intermediate_size": 32,
}


def encoder(layers: int) -> Built:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return nn.TransformerEncoder(layer, layers), {"src": torch.randn(2, 6, 16)}


def bert(layers: int) -> Built:
    return transformers.BertModel(transformers.BertConfig(num_hidden_layers=layers, **SIZES)), WORDS


def llama(layers: int) -> Built:
    """Its attention asks whether there is one query, and is recorded for either answer."""
    heads = SIZES["num_attention_heads"] // 2
    config = transformers.LlamaConfig(
        num_hidden_layers=layers, num_key_value_heads=heads, use_cache=False, **SIZES
    )
    return transformers.LlamaModel(config), {"input_ids": WORDS["input_ids"]}


class Deep(nn.Module):
    """Layers that branch on data."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each layer takes one side of a branch."""
        for layer in self.layers:
            x = layer(x)
            if x.sum() > 0:
                x = x.relu()
        return x


def branching(layers: int) -> Built:
    return Deep(layers), {"x": torch.randn(2, 6, 8)}


class Chosen(nn.Module):
    """One of as many states as there are layers, as data says."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The state of a place."""
        states = list[torch.Tensor]()
        for layer in self.layers:
            x = layer(x)
            states.append(x)
        return states[int((x > 0).sum()) % len(states)]


def choosing(layers: int) -> Built:
    return Chosen(layers), {"x": torch.randn(2, 6, 8)}


def exported(build: Callable[[int], Built], layers: int) -> tuple[int, int]:
    """How many calls of Python and C an export makes, and how many answers of operators it keeps."""
    module, inputs = build(layers)
    count = 0

    def event(_: Any, kind: str, __: Any) -> None:
        nonlocal count
        count += kind in ("call", "c_call")

    sys.setprofile(event)
    try:
        program = ingot.export(module, kwargs=inputs, verify=False)
    finally:
        sys.setprofile(None)
    assert program.capture is not None
    return count, len(program.capture.recording.recorder.alike.answers)


def counted(builds: list[Callable[[int], Built]]) -> dict[str, list[tuple[int, int]]]:
    """`exported` with 3, 6 and 12 layers."""
    found = {}
    for build in builds:
        module, inputs = build(1)
        ingot.export(module, kwargs=inputs, verify=False)  # what is loaded once is loaded
        found[build.__name__] = [exported(build, n) for n in (3, 6, 12)]
    return found


@pytest.fixture(scope="module")
def counts() -> dict[str, list[tuple[int, int]]]:
    """Of a process of its own: what tests before it left behind adds calls to each layer."""
    code = (
        "import json\n"
        "from tests.capture.test_growth import bert, branching, counted, encoder, llama\n"
        "print(json.dumps(counted([encoder, bert, llama, branching])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("build", [encoder, bert, llama, branching])
def test_every_layer_costs_the_same(
    build: Callable[[int], Built], counts: dict[str, list[tuple[int, int]]]
) -> None:
    """The calls made for the last 6 layers of 12 are as many as those for the 3 before, twice; what shapes
    come out of an operator is asked for the first layers alone.
    """
    (few, shallow), (some, _), (many, deep) = counts[build.__name__]
    assert many - some < 2.1 * (some - few), f"{few}, {some}, {many} calls for 3, 6, 12 layers"
    if build in (encoder, bert):  # what is learned in a branch is forgotten with it
        assert deep == shallow


def test_one_of_many_tensors_is_chosen_in_as_many_steps() -> None:
    """Twice as many states to choose from cost twice as much, and not the square of it."""
    exported(choosing, 2)
    few, some, many = (exported(choosing, n)[0] for n in (10, 20, 40))
    assert many - some < 3 * (some - few), f"{few}, {some}, {many} calls for 10, 20, 40 states"


def test_what_a_model_holds_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often its recording starts again, with one more function rewritten each time."""
    begin, seen = Snapshot.__init__, list[Any]()

    def counted(snapshot: Snapshot, function: Any) -> None:
        seen.append(function)
        begin(snapshot, function)

    monkeypatch.setattr(Snapshot, "__init__", counted)
    module, inputs = llama(2)
    ingot.export(module, kwargs=inputs, verify=False)
    assert seen == [module]
