"""One sampled call of every entry that passes in results.json: what the full run found holds still.

The full run is `make opinfo`. When an entry here fails, `make opinfo ARGS="--entries '^name$'"` shows all
its calls.
"""

from __future__ import annotations

import itertools

import pytest

from tests.opinfo import report
from tests.opinfo.judge import outcome
from tests.opinfo.samples import UNDEFINED, calls, entries

RESULTS = report.load()
PASSING = [name for name, result in RESULTS.items() if report.verdict(result) == "pass"]


@pytest.mark.parametrize("name", PASSING)
def test_first_call(name: str) -> None:
    """Exports, runs elsewhere and equals eager PyTorch."""
    op = entries()[name]
    function, args, kwargs = next(itertools.islice(calls(op), RESULTS[name]["first"], None))
    found = outcome(function, args, kwargs, undefined=op.name in UNDEFINED)
    assert found.status in report.FINE, f"{name}: {found.status}: {found.reason}"


def test_nothing_is_wrong() -> None:
    """No call of the full run ends in other numbers or in an error that is not Ingot's."""
    bad = [name for name, result in RESULTS.items() if report.verdict(result) in ("wrong", "crash")]
    assert not bad, f"repair or refuse what these meet: {bad}"


def test_most_entries_pass() -> None:
    """At least nine in ten."""
    assert len(RESULTS) >= 600
    assert len(PASSING) >= 0.9 * len(RESULTS)
