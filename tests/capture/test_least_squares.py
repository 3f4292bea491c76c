"""torch.linalg.lstsq: solutions by any driver, and what else a driver gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.support import parity

torch.manual_seed(0)
R = torch.randn


@pytest.mark.parametrize("driver", ["gels", "gelsy", "gelsd", "gelss"])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 5, 3)])
def test_solution(driver: str, shape: tuple[int, ...]) -> None:
    """More equations than unknowns, fewer, as many; matrices and vectors on the right; batches."""

    def solved(a: torch.Tensor, b: torch.Tensor) -> Any:
        found = torch.linalg.lstsq(a, b, driver=driver)
        more = [found.rank] if driver != "gels" else [found.rank, found.residuals]
        return found.solution, *more, *([found.singular_values] if driver in ("gelsd", "gelss") else [])

    parity(solved, (R(shape), R(*shape[:-1], 2)), tolerance=1e-4, dynamic_shapes=None)
    parity(solved, (R(shape), R(shape[:-1])), tolerance=1e-4, dynamic_shapes=None)


def test_other_sizes() -> None:
    """More equations than in the example; the number of unknowns is the model's."""
    mixed = R(3, 3)
    inputs = [(R(n, 3), R(n, k)) for n, k in ((6, 2), (9, 4), (4, 1))]
    parity(lambda a, b: torch.linalg.lstsq(a @ mixed, b).solution, *inputs, tolerance=1e-4)


def test_nothing_to_fit() -> None:
    """No equation is refused by name."""
    with pytest.raises(ExportError, match="nothing to fit"):
        capture(lambda a, b: torch.linalg.lstsq(a, b).solution, (R(0, 3), R(0, 2)), dynamic_shapes=None)


def test_without_full_rank() -> None:
    """The shortest solution; whether there are residuals, only the run knows."""
    a = R(5, 3)
    a[:, 2] = a[:, 0] + a[:, 1]
    parity(lambda a, b: torch.linalg.lstsq(a, b).solution, (a, R(5, 2)), tolerance=1e-4, dynamic_shapes=None)
    with pytest.raises(ExportError, match="driver='gels'"):
        capture(lambda a, b: torch.linalg.lstsq(a, b).residuals, (R(5, 3), R(5, 2)), dynamic_shapes=None)


def test_equations_that_data_counts() -> None:
    """As many as unknowns, or more: which of them, only the run knows."""

    def fitted(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        inside = x > 0
        equations = torch.stack([x[inside], torch.ones(int(inside.sum()))], 1)
        if equations.shape[0] < 2:
            return torch.zeros(2)
        return torch.linalg.lstsq(equations, y[inside].unsqueeze(1)).solution[:, 0]

    def drawn(inside: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([torch.arange(1.0, inside + 1), -torch.ones(6 - inside)]), R(6)

    parity(fitted, drawn(4), *(drawn(n) for n in (0, 1, 2, 3, 6)), tolerance=1e-4)
