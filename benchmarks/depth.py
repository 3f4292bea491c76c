"""`make bench-depth`: how export time grows with the depth of a transformer, and how much memory it takes.

Three stacks of 12 and 96 layers, exported in turn in one process without verification, the least of some
rounds of each; then a large one whose export and file are weighed. Exits 1 where a limit is broken.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import nn

import ingot
from benchmarks.cases import export_with_torch

SHALLOW, DEEP = 12, 96
SECONDS = 2.0  # for SHALLOW layers
GROWTH = 9.0  # DEEP layers against SHALLOW ones, which are an eighth
MEMORY = 0.20  # of the weights
HIDDEN, HEADS = 64, 4

Inputs = dict[str, torch.Tensor]


def encoder(layers: int, hidden: int = HIDDEN) -> tuple[nn.Module, Inputs]:
    """PyTorch's own encoder."""
    layer = nn.TransformerEncoderLayer(hidden, HEADS, 4 * hidden, batch_first=True)
    return nn.TransformerEncoder(layer, layers).eval(), {"src": torch.randn(2, 16, hidden)}


def bert(layers: int) -> tuple[nn.Module, Inputs]:
    """BERT with a mask."""
    config = transformers.BertConfig(
        vocab_size=100,
        hidden_size=HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        intermediate_size=4 * HIDDEN,
    )
    words = {"input_ids": torch.ones(2, 16, dtype=torch.int64)}
    return transformers.BertModel(config).eval(), {**words, "attention_mask": words["input_ids"]}


def llama(layers: int) -> tuple[nn.Module, Inputs]:
    """Llama without a cache."""
    config = transformers.LlamaConfig(
        vocab_size=100,
        hidden_size=HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        intermediate_size=4 * HIDDEN,
        use_cache=False,
    )
    return transformers.LlamaModel(config).eval(), {"input_ids": torch.ones(2, 16, dtype=torch.int64)}


STACKS: dict[str, Callable[[int], tuple[nn.Module, Inputs]]] = {
    "nn.TransformerEncoder": encoder,
    "transformers.BertModel": bert,
    "transformers.LlamaModel": llama,
}


def seconds(export: Callable[[nn.Module, Inputs], Any], module: nn.Module, inputs: Inputs) -> float:
    """How long one export takes."""
    gc.collect()
    start = time.perf_counter()
    export(module, inputs)
    return time.perf_counter() - start


def with_ingot(module: nn.Module, inputs: Inputs) -> Any:
    """ingot.export, nothing verified."""
    return ingot.export(module, kwargs=inputs, verify=False)


def peak() -> float:
    """The most memory this process had, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def weigh() -> None:
    """Print the MB of a large module's weights, and what its export and its file take beyond them at the
    most: in a process of its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        small, inputs = encoder(1)
        with_ingot(small, inputs).save(Path(folder) / "small.onnx")  # what is loaded once is loaded
        module, inputs = encoder(SHALLOW, 768)
        weights = sum(p.nbytes for p in module.parameters()) / 2**20
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        with_ingot(module, inputs).save(Path(folder) / "large.onnx")
        print(weights, peak() - before)


def main() -> int:
    """Measure, print a table, and compare with the limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch", action="store_true", help="also time torch.onnx.export, once")
    parser.add_argument("--weigh", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.weigh:
        weigh()
        return 0
    broken: list[str] = []
    table = Table("model", f"{SHALLOW} layers, s", f"{DEEP} layers, s", "ratio", "torch.onnx, s")
    for name, build in STACKS.items():
        seconds(with_ingot, *build(1))
        shallow, deep = build(SHALLOW), build(DEEP)
        times = [(seconds(with_ingot, *shallow), seconds(with_ingot, *deep)) for _ in range(options.rounds)]
        few, many = (min(column) for column in zip(*times, strict=True))
        theirs = f"{seconds(export_with_torch, *shallow):.1f}" if options.torch else "–"
        table.add_row(name, f"{few:.2f}", f"{many:.2f}", f"{many / few:.1f}", theirs)
        if few > SECONDS or many > GROWTH * few:
            broken.append(f"{name}: {few:.2f} s and {many:.2f} s; wanted {SECONDS} s and {GROWTH} times it")
    Console().print(table)
    command = [sys.executable, "-m", "benchmarks.depth", "--weigh"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    weights, more = map(float, answer.split())
    print(f"{weights:.0f} MB of weights: export and file take {more:.0f} MB beyond them at the most")
    if more > MEMORY * weights:
        broken.append(f"memory: {more:.0f} MB beyond {weights:.0f} MB of weights; wanted {MEMORY:.0%}")
    print("\n".join(broken) or "within the limits")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
