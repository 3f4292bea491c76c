"""Inputs for trained files: pages of text, speech and the bytes of a file, drawn with NumPy alone.

Trained models are fed what they were trained for: on noise a text detector finds nothing, and much of what
it then computes with is next to zero. The same generator gives the same arrays everywhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

# The 5×7 font of character displays: five columns to a glyph, the lowest bit on top.
_GLYPHS = {
    "0": "3E5149453E", "1": "00427F4000", "2": "4261514946", "3": "2141454B31", "4": "1814127F10",
    "5": "2745454539", "6": "3C4A494930", "7": "0171090503", "8": "3649494936", "9": "064949291E",
    "A": "7E1111117E", "B": "7F49494936", "C": "3E41414122", "D": "7F4141221C", "E": "7F49494941",
    "F": "7F09090901", "G": "3E4149497A", "H": "7F0808087F", "I": "00417F4100", "J": "2040413F01",
    "K": "7F08142241", "L": "7F40404040", "M": "7F020C027F", "N": "7F0408107F", "O": "3E4141413E",
    "P": "7F09090906", "Q": "3E4151215E", "R": "7F09192946", "S": "4649494931", "T": "01017F0101",
    "U": "3F4040403F", "V": "1F2040201F", "W": "3F4038403F", "X": "6314081463", "Y": "0708700807",
    "Z": "6151494543", " ": "0000000000",
}  # fmt: skip
_TEXT = "INGOT MELTS METAL AND CASTS IT AT 1538 DEGREES INTO BARS OF 12 KILOGRAMS FOR THE NEXT MILL"
_WORDS = _TEXT.split()


def write(text: str, scale: int) -> Image:
    """Return capitals, digits and blanks as ink in 0 to 1, float32 [7 scale, 6 scale len(text)]."""
    columns = [int(_GLYPHS[letter][i : i + 2], 16) for letter in text for i in range(0, 10, 2)]
    bits = np.array([[column >> row & 1 for column in columns] for row in range(7)], np.float32)
    spaced = np.concatenate([bits.reshape(7, -1, 5), np.zeros((7, len(text), 1), np.float32)], axis=2)
    large = spaced.reshape(7, -1).repeat(scale, axis=0).repeat(scale, axis=1)
    for axis in (0, 1):  # what a lens does to an edge
        large = (np.roll(large, 1, axis) + 2 * large + np.roll(large, -1, axis)) / 4
    return large


def pages(batch: int, height: int, width: int, random: np.random.Generator) -> Image:
    """Return photographed pages with lines of text, float32 [batch, 3, height, width] in -1 to 1."""
    images = np.empty((batch, 3, height, width), np.float32)
    down, right = np.mgrid[0:height, 0:width].astype(np.float32)
    for image in images:
        light = 0.85 - 0.2 * random.random() * down / height - 0.2 * random.random() * right / width
        ink = np.zeros((height, width), np.float32)
        top = 12
        while True:
            scale = int(random.integers(2, 6))
            left, end = int(random.integers(8, 40)), top + 7 * scale
            if end > height - 8:
                break
            words = " ".join(random.choice(_WORDS, 12))
            line = write(words[: (width - left - 8) // (6 * scale)], scale)
            ink[top:end, left : left + line.shape[1]] = line
            top = end + int(random.integers(4, 24))
        paper = np.array([1.0, 0.97, 0.9], np.float32)[:, None, None]
        image[...] = paper * light * (1 - 0.85 * ink) + 0.01 * random.standard_normal((3, height, width))
    return np.clip(images, 0, 1) * 2 - 1


def lines(batch: int, height: int, width: int, random: np.random.Generator) -> Image:
    """Return images of one line of text each, float32 [batch, 3, height, width] in -1 to 1, as pages."""
    images = np.empty((batch, 3, height, width), np.float32)
    scale = height // 10
    top = (height - 7 * scale) // 2
    for image in images:
        text = " ".join(random.choice(_WORDS, 8))[: width // (6 * scale)]
        ink = np.zeros((height, width), np.float32)
        drawn = write(text, scale)
        ink[top : top + 7 * scale, : drawn.shape[1]] = drawn
        image[...] = 0.9 - 0.75 * ink + 0.01 * random.standard_normal((3, height, width))
    return np.clip(images, 0, 1) * 2 - 1


def speech(batch: int, samples: int, random: np.random.Generator, rate: int = 16000) -> NDArray[np.float32]:
    """Return vowels as a vocal tract makes them, float32 [batch, samples] in -1 to 1, at `rate` hertz.

    Pulses of the voice, at a pitch that glides, ring in three resonances (source and filter).
    """
    time = np.arange(samples) / rate
    sounds = np.empty((batch, samples), np.float32)
    for sound in sounds:
        start, glide = random.uniform(90, 220), random.uniform(-30, 30)
        phase = np.cumsum(start + glide * np.sin(2 * np.pi * 3 * time)) / rate
        pulses = np.diff(np.floor(phase), prepend=0.0)
        voice = np.zeros(samples)
        ring = np.arange(min(samples, rate // 25)) / rate
        for formant, loudness in zip(
            random.uniform((300, 900, 2200), (800, 2000, 3000)), (1.0, 0.5, 0.2), strict=True
        ):
            response = loudness * np.exp(-2 * np.pi * 40 * ring) * np.sin(2 * np.pi * formant * ring)
            voice += np.convolve(pulses, response)[:samples]
        voice += 0.003 * random.standard_normal(samples)
        sound[...] = 0.5 * voice / np.abs(voice).max()
    return sounds


def file_bytes(path: Path, batch: int, size: int, random: np.random.Generator) -> NDArray[np.int32]:
    """Return `size` bytes of a file from `batch` different places in it, int32 [batch, size]."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    starts = random.integers(0, max(1, len(content) - size), batch)
    return np.stack([np.resize(content[start:], size) for start in starts]).astype(np.int32)
