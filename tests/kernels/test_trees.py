"""Trees by the kernel against their plain definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.kernels.trees import (
    ABOVE,
    BELOW,
    FEATURE,
    FIRST,
    IF_NAN,
    LAST,
    THRESHOLD,
    TOGETHER,
    WORDS,
    Forest,
    evaluate_forest,
    forest,
)
from tests.kernels.run import machines, new, put, run_calls


def random_forest(
    rng: np.random.Generator, trees: int, features: int, targets: int, dtype: str, combine: str
) -> Forest:
    """Trees of random shape, of which each leaf says up to three things."""
    rows: list[list[int]] = []
    thresholds: list[float] = []
    entries: list[tuple[int, float]] = []

    def grow(depth: int) -> int:
        number = len(rows)
        rows.append([0] * WORDS)
        thresholds.append(0.0)
        row = [0] * WORDS
        if depth == 0 or rng.random() < 0.2:
            row[ABOVE] = row[BELOW] = row[IF_NAN] = number * WORDS
            row[FIRST] = len(entries)
            entries.extend(
                (int(rng.integers(targets)), float(rng.standard_normal())) for _ in range(rng.integers(4))
            )
            row[LAST] = len(entries)
        else:
            row[FEATURE], thresholds[number] = int(rng.integers(features)), float(rng.integers(-2, 3))
            small, large = grow(depth - 1) * WORDS, grow(depth - 1) * WORDS
            row[BELOW], row[ABOVE], row[IF_NAN] = small, large, int(rng.choice([small, large]))
        rows[number] = row
        return number

    roots = [grow(int(rng.integers(0, 7))) for _ in range(trees)]
    silent = len(rows)
    rows.append([0, silent * WORDS, silent * WORDS, silent * WORDS, 0, 0, 0, 0])
    thresholds.append(0.0)
    roots += [silent] * (-trees % TOGETHER)
    nodes = np.array(rows, np.int32)
    words = np.dtype(dtype).itemsize // 4
    nodes[:, THRESHOLD : THRESHOLD + words] = np.array(thresholds, dtype).view(np.int32).reshape(-1, words)
    said, weights = zip(*entries, strict=True) if entries else ((), ())
    return Forest(
        nodes,
        np.array(roots, np.int32) * WORDS,
        np.array(said, np.int32),
        np.array(weights, np.float64),
        rng.standard_normal(targets),
        float(rng.integers(1, 4)),
        combine,
        np.dtype(dtype),
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_trees(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 9999)))
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    features, targets = data.draw(st.sampled_from([1, 2, 9])), data.draw(st.sampled_from([1, 2, 5, 300]))
    trees = data.draw(st.sampled_from([0, 1, 7, 8, 9, 40]))
    combine = data.draw(st.sampled_from(["add", "min", "max"]))
    packed = random_forest(rng, trees, features, targets, dtype, combine)
    rows = data.draw(st.sampled_from([0, 1, 2, 8, 9, 65, 130]))
    x = rng.integers(-3, 4, (rows, features + 2)).astype(dtype)[
        :, 1 : 1 + features
    ]  # rows with something between
    x[rng.random(x.shape) < 0.2] = np.nan
    out = new((rows, targets), data.draw(st.sampled_from(["float32", "float64"])))
    machine = data.draw(st.sampled_from(machines()))
    (got,) = run_calls(forest(packed, put(x), out, machine), out, machine=machine)
    want = evaluate_forest(packed, x).astype(out.dtype)
    np.testing.assert_array_equal(got, want)
