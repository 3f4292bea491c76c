"""Losses that torch does not write in its own operators, on other lengths and targets than the example's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ingot.capture.attempt import capture
from tests.capture.support import ort_runner, parity

torch.manual_seed(0)
R = torch.randn


def spoken(t: int, n: int, c: int, s: int) -> tuple[torch.Tensor, ...]:
    """Log-probabilities, targets with repetitions, and lengths from nothing to everything."""
    targets = torch.randint(1, c, (n, s))
    targets[:, 1] = targets[:, 0]
    steps, said = torch.randint(0, t + 1, (n,)), torch.randint(0, s + 1, (n,))
    steps[0], said[0] = t, s
    steps[1], said[1] = 0, 0
    return R(t, n, c).log_softmax(-1), targets, steps, said


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("zero_infinity", [True, False])
def test_ctc(reduction: str, zero_infinity: bool) -> None:
    """Targets too long for their time have no path: an infinite loss, or none."""

    def loss(*args: torch.Tensor) -> torch.Tensor:
        return F.ctc_loss(*args, blank=0, reduction=reduction, zero_infinity=zero_infinity)

    parity(loss, spoken(7, 4, 5, 3), spoken(12, 3, 4, 5), spoken(3, 6, 5, 4))


def test_ctc_in_its_other_forms() -> None:
    """Lengths as numbers, targets one after the other, another blank, no batch."""
    x, targets, steps, said = spoken(9, 3, 6, 4)
    said = said.clamp_min(1)
    joined = torch.cat([row[:n] for row, n in zip(targets, said, strict=True)])
    steps = steps.clamp_min(5)

    def numbers(x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.ctc_loss(x, targets, steps.tolist(), said.tolist(), blank=0, reduction="none")

    parity(numbers, (x, targets), dynamic_shapes=None)
    parity(numbers, (x, joined), dynamic_shapes=None)
    parity(lambda *a: F.ctc_loss(*a, blank=0), (x, joined, steps, said), dynamic_shapes=None)
    parity(lambda *a: F.ctc_loss(*a, blank=5), (x, targets - 1, steps, said))
    parity(
        lambda x, y, m, n: F.ctc_loss(x, y, m, n), (x[:, 0], targets[0, :3], torch.tensor(9), torch.tensor(3))
    )


@pytest.mark.parametrize("full", [True, False])
def test_gaussian_nll(full: bool) -> None:
    """Variances of each element, of each row, and one for all; no variance is below zero."""

    def loss(x: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> Any:
        rows = F.gaussian_nll_loss(x, y, v[:, 0], full=full, reduction="none")
        return F.gaussian_nll_loss(x, y, v, full=full), rows, F.gaussian_nll_loss(x, y, 0.3, full)

    captured = parity(loss, (R(3, 4), R(3, 4), torch.rand(3, 4)), (R(2, 5), R(2, 5), torch.rand(2, 5)))
    feeds = {v.name: R(3, 4).numpy() for v in captured.model.graph.inputs}
    with pytest.raises(Exception, match="Reshape"):
        ort_runner(captured.model)({**feeds, "v": -torch.ones(3, 4).numpy()}, captured.output_names)


def test_closeness_decides() -> None:
    """torch.allclose and torch.equal as conditions."""

    def chosen(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if torch.equal(x, y):
            return x
        if torch.allclose(x, y, atol=1e-3):
            return x * 2
        return x - y

    x = R(3, 4)
    parity(chosen, (x, x.clone()), (x, x + 1e-4), (x, x + 1), dynamic_shapes=None)
    assert not capture(lambda x, y: x + torch.equal(x, y), (x, R(3)), dynamic_shapes=None).assumptions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_linear_cross_entropy_in_chunks(reduction: str, dtype: torch.dtype) -> None:
    """torch takes the rows in chunks, as the options say; the model all at once, for any number of rows."""
    weight, bias, classes = R(11, 4).to(dtype), R(11).to(dtype), R(11).abs().to(dtype)
    options = torch.nn.modules.linear_cross_entropy_options.LinearCrossEntropyOptions(batch_chunk_size=3)

    def loss(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        given: Any = {"linear_bias": bias, "weight": classes, "reduction": reduction, "ignore_index": 2}
        return F.linear_cross_entropy(x, weight, target, options=options, **given)

    def rows(n: int) -> tuple[torch.Tensor, ...]:
        return R(n, 4).to(dtype), torch.arange(n) % 11

    tolerance = 2e-5 if dtype == torch.float32 else 1e-3
    parity(loss, rows(7), rows(1), rows(12), tolerance=tolerance)
