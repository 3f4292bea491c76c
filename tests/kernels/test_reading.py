"""How a convolution reads its input: what is chosen, and that register tiles cover every image."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.kernels.call import strides_in_order
from ingot.kernels.reading import choose, tile_shape, weight_rows
from tests.kernels.run import new


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    pixels=st.sampled_from([4, 6, 8, 14, 28]),
    most_rows=st.integers(1, 4),
)
def test_tiles_fit(rows: int, columns: int, pixels: int, most_rows: int) -> None:
    """A tile is neither larger than the registers nor than the image."""
    height, width = tile_shape(rows, columns, pixels, 2, most_rows)
    assert 1 <= height <= min(rows, most_rows)
    assert 1 <= width <= columns
    assert height * width <= pixels


def test_tiles_of_usual_images() -> None:
    """Rows of 14 pixels fill a tile; two rows of 7 share one; so do narrow images."""
    assert tile_shape(56, 56, 14, 2, 4) == (1, 14)
    assert tile_shape(7, 7, 14, 2, 4) == (2, 7)
    assert tile_shape(4, 3, 14, 2, 4) == (4, 3)


def test_weight_rows_are_a_permutation() -> None:
    """Each (channel, tap) has a row of its own in every order."""
    for order in ("blocks", "planes", "pixels"):
        for channels, taps, lanes in ((3, 9, 16), (19, 4, 8), (32, 1, 16)):
            rows, count = weight_rows(order, channels, taps, lanes)
            assert len(set(rows.tolist())) == channels * taps
            assert rows.max() < count


def test_what_is_read_in_place() -> None:
    """Without padding the image itself; with padding blocks of channels, or lines where channels are few."""
    last = new((1, 32, 8, 8), strides=strides_in_order((1, 32, 8, 8), (0, 2, 3, 1)))
    first = new((1, 3, 8, 8))
    assert choose(last, 1, 32, 3, (0, 0, 0, 0), 1, 16) == (True, "pixels")
    assert choose(first, 1, 3, 3, (0, 0, 0, 0), 1, 16) == (True, "planes")
    assert choose(last, 1, 32, 3, (1, 1, 1, 1), 1, 16) == (False, "blocks")
    assert choose(first, 1, 3, 3, (1, 1, 1, 1), 1, 16) == (False, "planes")
    assert choose(first, 1, 3, 3, (1, 1, 1, 1), 2, 16) == (False, "blocks")
    half = new((1, 32, 8, 8), np.float16, strides_in_order((1, 32, 8, 8), (0, 2, 3, 1)))
    assert choose(half, 1, 32, 3, (0, 0, 0, 0), 1, 16) == (False, "blocks")
