"""Every test draws the same numbers, whichever tests ran before it in its process."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """The seed of what a test draws itself; what modules draw for their cases has theirs."""
    torch.manual_seed(0)
