"""Which of two errors is told first, where an export was tried in two ways."""

from __future__ import annotations

import pytest
import torch

import ingot
from ingot.capture.tries import Tries, beside_the_first
from ingot.errors import ExportError

HOW = "with branches on sizes as the example takes them"
FIRST = "model.py:7: a = f(x)\nThis line does one thing."


def told(last: Exception, first: Exception | None = None) -> str:
    """What is said of both; the last one as the export tells it."""
    tries = Tries()
    tries.note(ExportError(FIRST) if first is None else first, HOW)
    tries.tell(last)
    return beside_the_first(last, str(last))


def test_one_error_twice_is_one() -> None:
    assert told(ExportError(FIRST)) == FIRST


def test_the_error_that_is_further_down_is_first() -> None:
    """What ended the first try did not end the other."""
    last = "model.py:9: b = g(a)\nThis line does another."
    said = told(ExportError(last))
    assert said.startswith(last) and said.endswith(FIRST) and HOW in said, said


def test_an_error_after_the_run_is_first() -> None:
    """Operators without a form are told when all of the model has run."""
    said = told(ExportError("An operator of PyTorch without a form"))
    assert said.startswith("An operator") and said.endswith(FIRST), said


def test_the_first_error_is_first_where_the_other_try_ends_before() -> None:
    """Or in another file, of which nobody knows."""
    for place in ("model.py:5", "model.py:7", "other.py:80"):
        last = f"{place}: c = h(x)\nThis line fails."
        said = told(ExportError(last))
        assert said.startswith(FIRST) and said.endswith(last) and HOW in said, said


def test_an_error_of_torch_is_told_beside_a_refusal() -> None:
    """The refusal names an edit; torch's error may come of what the other way gave up."""
    last = ValueError("model.py:5: sizes do not fit")
    assert told(last).startswith(FIRST)
    assert told(last).endswith(str(last))


def test_a_refusal_is_told_before_an_error_of_torch() -> None:
    """Whatever line that one has, which is all that is told of it."""
    try:
        raise ValueError("sizes do not fit")
    except ValueError as error:
        said = told(ExportError(FIRST), error)
    assert said.startswith(FIRST) and said.endswith('raise ValueError("sizes do not fit")'), said


def test_the_first_of_three_is_kept() -> None:
    """What is between was neither the whole way nor the last."""
    tries = Tries()
    tries.note(ExportError(FIRST), "with a function recorded twice")
    tries.note(ExportError("model.py:8: between"), HOW)
    last = ExportError("model.py:9: last")
    tries.tell(last)
    assert "between" not in str(last) and FIRST in str(last) and HOW in str(last), last


def test_an_export_tells_both() -> None:
    """Rounds that sizes decide have no form; with the example's sizes an operator is what is missing."""

    def function(x: torch.Tensor) -> torch.Tensor:
        parts: list[torch.Tensor] = []
        for i in range(x.shape[0]):
            parts.append(x[: i + 1, : i + 1])
        return torch.linalg.eigvals(torch.block_diag(*parts)).real

    with pytest.raises(ingot.ExportError) as caught:
        ingot.export(function, (torch.randn(5, 5),))
    said = str(caught.value)
    assert said.startswith("An operator of PyTorch without a form"), said
    assert "for i in range(x.shape[0]):" in said and HOW in said, said
