"""Singular vectors and eigenvectors, of which torch leaves signs and bases open: the model has its own, and
what does not depend on them is the module's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import ingot
from ingot.capture.attempt import capture
from ingot.capture.bases import OwnBases, completed, rank_of
from ingot.errors import VerificationError
from tests.capture.support import ort_runner, parity

Tensor = torch.Tensor


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Drawn numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Aligned(torch.nn.Module):
    """The rotation that brings points to others (Kabsch)."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        u, _, vh = torch.linalg.svd(a.mT @ b)
        sign = torch.linalg.det(u @ vh).sign()
        u = torch.cat([u[..., :-1], u[..., -1:] * sign[..., None, None]], -1)
        return a @ u @ vh


def test_a_rotation_that_brings_points_to_others() -> None:
    """It does not depend on the signs: nothing is said, for any number of points and of clouds."""
    program = ingot.export(Aligned(), (draw(2, 7, 3), draw(2, 7, 3, seed=1)))
    assert program.verification is not None and not program.verification.unverified
    assert [a.kind for a in program.assumptions].count("open") == 1
    flat = draw(3, 5, 3), draw(3, 5, 3, seed=2) * torch.tensor([1.0, 1.0, 0.0])
    parity(Aligned(), (draw(2, 7, 3), draw(2, 7, 3, seed=1)), (draw(1, 4, 3), draw(1, 4, 3, seed=3)), flat)


def test_whitened() -> None:
    """By the eigenvectors of a covariance of any size, there and back."""

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(x.mT @ x / x.shape[0] + torch.eye(x.shape[1]))
        return x @ (vectors * values.rsqrt()) @ vectors.mT, values

    parity(function, (draw(9, 4),), (draw(3, 5),), (draw(7, 2),), (draw(5, 1),))


SHAPES = [(3, 3), (5, 3), (3, 5), (2, 4, 4), (2, 1, 4), (4, 1), (1, 1), (2, 3, 6, 2)]
MATRICES = {
    "drawn": lambda *shape: draw(*shape),
    "of_rank_1": lambda *shape: draw(*shape[:-1], 1) @ draw(*shape[:-2], 1, shape[-1], seed=1),
    "zeros": torch.zeros,
}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", MATRICES)
def test_singular_vectors(kind: str, shape: tuple[int, ...], full: bool) -> None:
    """They are orthonormal, and make up the matrix; of those that torch may give, they are the ones told."""
    a = MATRICES[kind](*shape)
    captured = capture(lambda x: torch.linalg.svd(x, full_matrices=full), (a,), dynamic_shapes=None)
    feeds = captured.feeds([a])
    got = [torch.from_numpy(x) for x in ort_runner(captured.model)(feeds, captured.output_names)]
    u, s, vh = got
    for q in (u, vh.mT):
        torch.testing.assert_close(
            q.mT @ q, torch.eye(q.shape[-1]).expand(*q.shape[:-2], -1, -1), atol=1e-5, rtol=0
        )
    k = s.shape[-1]
    torch.testing.assert_close((u[..., :k] * s.unsqueeze(-2)) @ vh[..., :k, :], a, atol=1e-5, rtol=0)
    with OwnBases():
        wanted = torch.linalg.svd(a, full_matrices=full)
    for mine, own in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, own, atol=2e-4, rtol=0)


@pytest.mark.parametrize("sizes", [[(6, 4), (4, 6), (5, 5), (1, 3)], [(4, 6), (6, 4)]])
def test_any_sizes(sizes: list[tuple[int, int]]) -> None:
    """Which size is the smaller, the run alone knows: values, pseudo-inverse, and what is made of vectors."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        u, s, vh = torch.linalg.svd(x, full_matrices=False)
        return u @ vh, s, torch.linalg.svdvals(x), torch.linalg.pinv(x), (u * s) @ vh

    example, *others = [(draw(*size),) for size in sizes]
    captured = parity(function, example, *others, tolerance=1e-4)
    assert not [a for a in captured.assumptions if a.status == "checked"]


def test_what_depends_on_the_signs_is_told() -> None:
    """The line is named; another mistake is found nevertheless."""

    class Projected(torch.nn.Module):
        def __init__(self, scale: float = 1.0) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(scale))

        def forward(self, x: Tensor) -> Tensor:
            x = x - x.mean(0)
            return x @ torch.linalg.svd(x, full_matrices=False)[2].mT[:, :2] * self.scale

    x = draw(20, 4)
    program = ingot.export(Projected(), (x,))
    assert program.verification is not None
    lines = [u for u in program.verification.unverified if "signs" in u]
    assert len(lines) == 1 and "linalg_svd at" in lines[0] and "test_bases.py:" in lines[0]
    np.testing.assert_allclose(np.abs(program(x)), Projected()(x).detach().abs(), atol=1e-5)
    with pytest.raises(VerificationError):
        ingot.verify(program, Projected(1.01))


def test_the_last_vector_of_a_wide_matrix() -> None:
    """What the matrix takes to 0, by which points tell a projection: it is in the full matrix alone."""

    def function(a: Tensor) -> Tensor:
        h = torch.linalg.svd(a)[2][..., -1, :]
        return h / h[..., -1:]

    parity(function, (draw(2, 8, 9),), (draw(1, 8, 9, seed=4),), tolerance=1e-3)


def test_completed_by_what_is_left() -> None:
    """The columns that are there stay; the others are orthonormal to them."""
    a = draw(2, 5, 2) @ draw(2, 2, 4, seed=1)
    u, s, _ = torch.linalg.svd(a.double())
    s = s.float()
    rank = rank_of(s, a)
    assert rank.tolist() == [[2], [2]]
    made: Any = completed(u, rank)
    torch.testing.assert_close(made[..., :2], u[..., :2])
    torch.testing.assert_close(made.mT @ made, torch.eye(5, dtype=made.dtype).expand(2, 5, 5))
