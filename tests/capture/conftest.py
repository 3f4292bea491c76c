"""Every test draws the same numbers, whichever ran before it; all share one look at torch's functions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingot.capture.alive import remembered
from tests.capture.support import seeded


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """The seed of what a test draws itself; what modules draw for their cases has theirs."""
    seeded()


@pytest.fixture(autouse=True, scope="session")
def one_look() -> Iterator[None]:
    """All exports of the process are one to `alive`: none looks at each object of torch's again."""
    with remembered():
        yield
