"""Random loops of changing sizes: native rounds do what plans and NumPy do to the last bit, errors as well;
and what ONNX Runtime does.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import ingot
from ingot.runtime import loose
from ingot.runtime.loose import LooseLoops, LooseRounds
from tests.search.chains import Unfit
from tests.search.judge import attempt, difference, run_ingot, run_ort
from tests.search.loops import loop_of

MANY = 3000


def same(got: Any, want: Any) -> bool:
    """To the last bit, but for which NaN it is."""
    if isinstance(want, list):
        return len(got) == len(want) and all(map(same, got, want))
    if not isinstance(got, np.ndarray) or (got.dtype, got.shape) != (want.dtype, want.shape):
        return False
    if got.dtype.kind != "f":
        return bool((got == want).all())
    numbers = ~np.isnan(want)
    signs = np.signbit(got[numbers]) == np.signbit(want[numbers])
    return np.array_equal(got, want, equal_nan=True) and bool(signs.all())


def compare(seed: int) -> tuple[str, bool]:
    """What became of it, and whether a round was native. Every other one has little memory, which grows."""
    try:
        model, feed = loop_of(seed)
    except Unfit:
        return "none", False
    advance, native = LooseRounds.advance, []

    def watched(self: LooseRounds, *arguments: Any) -> Any:
        native.append(advance(self, *arguments))
        return native[-1]

    memory, few = (256, 3) if seed % 2 else (loose.FIRST_BYTES, loose.MOST_ROUNDS)
    little = {"FIRST_BYTES": memory, "FIRST_LIST_BYTES": memory, "MOST_ROUNDS": few}
    with patch.object(LooseRounds, "advance", watched), patch.multiple(loose, **little):
        got, refusal, error = attempt(run_ingot, model, feed)
    with patch.object(LooseLoops, "begin", lambda *_: None):
        want, other_refusal, other_error = attempt(run_ingot, model, feed)
    is_native = any(ahead is not None for ahead in native)
    for e, text in ((error, refusal), (other_error, other_refusal)):
        assert e is None or isinstance(e, ingot.IngotError), f"seed {seed}: {text}"
    if error is None or other_error is None:
        assert error is other_error, f"seed {seed}: {refusal} | without native rounds: {other_refusal}"
    if error is not None:
        return "refused", is_native
    assert same(got, want), f"seed {seed}: {got} | without native rounds: {want}"
    peer, _, _ = attempt(run_ort, model, feed)
    if peer is None:
        return "alone", is_native
    for number, (a, b) in enumerate(zip(got, peer, strict=True)):
        if isinstance(b, np.ndarray) and not a.size and not b.size:
            continue  # dims of rows that no trip made
        different = difference(a, b, 1e-5)
        assert different is None, f"seed {seed}, output {number}: {different} | ONNX Runtime"
    return "agrees", is_native


def test_random_loops() -> None:
    found = [compare(seed) for seed in range(60)]
    assert sum(is_native for _, is_native in found) > 20, "hardly a loop is native: what is drawn must suit"
    assert sum(kind == "agrees" for kind, _ in found) > 20, "ONNX Runtime takes hardly a loop"


@pytest.mark.slow
def test_many_random_loops() -> None:
    for seed in range(1000, 1000 + MANY):
        compare(seed)
