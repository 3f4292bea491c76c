"""What trained files are fed: text, voices, the bytes of a file; the same every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.files import FILES, inputs_of
from benchmarks.inputs import file_bytes, lines, pages, speech, write


def random() -> np.random.Generator:
    return np.random.default_rng(7)


def test_letters_have_their_shape() -> None:
    ink = write("IT", 4)
    assert ink.shape == (28, 48)
    assert ink[12:16, 9:11].min() > 0.9  # the stem of the I
    assert ink[:, 21:23].max() == 0  # between the letters
    assert write("A 1", 3).shape == (21, 54)


@pytest.mark.parametrize("draw", [pages, lines])
def test_images_of_text_are_bright_with_some_ink(
    draw: Callable[[int, int, int, np.random.Generator], np.ndarray],
) -> None:
    images = draw(3, 64, 320, random())
    assert images.shape == (3, 3, 64, 320)
    assert images.dtype == np.float32
    assert images.min() >= -1
    assert images.max() <= 1
    ink = (images[:, 0] < -0.2).mean(axis=(1, 2))
    assert (ink > 0.02).all()
    assert (ink < 0.5).all()
    assert not np.array_equal(images[0], images[1])


def test_voices_ring_at_their_pitch() -> None:
    sounds = speech(2, 16000, random())
    assert sounds.shape == (2, 16000)
    assert np.abs(sounds).max() == pytest.approx(0.5)
    spectrum = np.abs(np.fft.rfft(sounds, axis=1)) ** 2  # a bin per hertz
    assert (spectrum[:, 80:4000].sum(axis=1) > 0.9 * spectrum[:, 1:].sum(axis=1)).all()


def test_bytes_come_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"0123456789" * 30)
    found = file_bytes(path, 4, 40, random())
    assert found.shape == (4, 40)
    assert found.dtype == np.int32
    assert all(bytes(row.astype(np.uint8)) in path.read_bytes() for row in found)
    path.write_bytes(b"ab")
    assert bytes(file_bytes(path, 1, 5, random())[0].astype(np.uint8)) == b"ababa"  # repeated to the size


@pytest.mark.parametrize("name", [name for name in FILES if name != "ppocr_det"])
def test_inputs_are_the_same_every_time_and_as_many_as_asked(name: str) -> None:
    one, again, eight = inputs_of(name, 1), inputs_of(name, 1), inputs_of(name, 8)
    assert one.keys() == eight.keys()
    for key, array in one.items():
        assert np.array_equal(array, again[key])
        assert np.isfinite(array).all()
    assert sum(a.size for a in eight.values()) > sum(a.size for a in one.values())
