"""NonMaxSuppression against its plain definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.kernels.suppress import evaluate_suppression, suppress
from tests.kernels.run import machines, new, put, run_calls


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_suppression(data: st.DataObject) -> None:
    images, classes, count = (data.draw(st.sampled_from(n)) for n in ([0, 1, 2], [1, 3], [0, 1, 6, 100]))
    centred, machine = data.draw(st.booleans()), data.draw(st.sampled_from(machines()))
    most, least = data.draw(st.sampled_from([0, 1, 5, 200])), data.draw(st.sampled_from([None, 0.3]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    boxes = rng.random((images, count, 4)).astype(np.float32)
    scores = np.round(rng.random((images, classes, count)), 1).astype(np.float32)  # some are equal
    room = min(most, count)
    out, n = new((images * classes * room, 3), "int64"), new((), "int64")
    numbers = [put(np.array(v)) for v in (np.int64(most), np.float32(0.4))]
    bound = None if least is None else put(np.array(least, np.float32))
    calls = suppress(put(boxes), put(scores), *numbers, bound, room, out, n, machine, centred=centred)
    got, found = run_calls(calls, out, n, machine=machine)
    want = evaluate_suppression(boxes, scores, most, 0.4, least, centred=centred)
    assert found == len(want)
    np.testing.assert_array_equal(got[: len(want)], want)
