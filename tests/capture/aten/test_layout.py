"""Where the elements of a result lie: a reshape of it is a view, and sees what is written, or a copy."""

from __future__ import annotations

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.support import parity

Tensor = torch.Tensor


def test_of_a_part_of_a_tensor() -> None:
    """The result of an operator on a slice has no gaps: its reshape is a view of it."""

    def function(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b, c = torch.relu(x[:, :2]), x[:, 1:] + 1, torch.softmax(x[:, ::2], -1)
        a.reshape(-1)[0] = 7
        b.reshape(-1).mul_(2)
        c.view(-1)[1:].zero_()
        return a, b, c

    torch.manual_seed(0)
    parity(function, (torch.randn(3, 5),), (torch.randn(4, 7),))
    parity(function, (torch.randn(3, 5),), dynamic_shapes=None)


def test_of_a_transposed_part() -> None:
    """The order of the elements is kept: a reshape to the same one is a view."""

    def function(x: Tensor) -> Tensor:
        a = torch.relu(x[:, :2].t())
        a.t().reshape(-1)[0] = 7
        return a

    torch.manual_seed(0)
    parity(function, (torch.randn(3, 5),), (torch.randn(4, 7),))


def test_of_a_transposed_part_in_another_order() -> None:
    """A reshape to another order is a copy; of one row it is a view, so that sizes decide it."""

    def function(x: Tensor) -> Tensor:
        a = torch.relu(x[:, :2].t())
        a.reshape(-1)[0] = 7
        return a

    torch.manual_seed(0)
    parity(function, (torch.randn(3, 5),), dynamic_shapes=None)
    parity(function, (torch.randn(1, 5),), dynamic_shapes=None)
    with pytest.raises(DataDependentError, match="whose memory"):
        capture(function, (torch.randn(3, 5),))


def test_of_repeated_elements() -> None:
    """The result of an operator on an expanded tensor has elements of its own, and may be written into."""

    def function(p: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b = p.expand(x.shape[0], -1, -1) + x, p.expand(x.shape[0], -1, -1).exp()
        a += 1
        b.reshape(-1)[0] = 5
        b *= 2
        c = torch.nn.functional.layer_norm(p.expand(x.shape[0], -1, -1), (3,))
        c += x
        return a, b, c

    torch.manual_seed(0)
    p = torch.randn(1, 4, 3)
    parity(function, (p, torch.randn(2, 4, 3)), (p, torch.randn(5, 4, 3)))
