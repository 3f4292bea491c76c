"""Values that depend on random numbers are not compared; their dtype and shape are, and other outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ingot
from ingot.errors import VerificationError

X = torch.randn(9, 2)


def _mixed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x * 2, x + torch.rand_like(x), x[torch.rand(x.shape[0]) > 0.5]


@pytest.mark.parametrize(
    ("draw", "operator"),
    [
        (lambda x: x + torch.rand_like(x), "RandomUniform"),
        (lambda x: x + torch.randn(2), "RandomNormal"),
        (lambda x: nn.functional.dropout(x, 0.5, True), "RandomUniform"),
    ],
)
def test_what_draws_is_exported_and_said(draw: Callable[[Tensor], Tensor], operator: str) -> None:
    """The report names the operator and its line; nothing says that values were compared."""
    program = ingot.export(draw, (X,))
    report = program.verification
    assert report is not None and all(not case.differences for case in report.cases)
    (line,) = report.unverified
    assert operator in line and "test_draws.py:" in line and "'output'" in line
    assert any(a.kind == "random" for a in program.assumptions)


def test_only_what_depends_on_a_draw_is_left_out() -> None:
    """Another output of the model is compared; so are dtype and shape of those that draw, but for an axis
    that has another size in each run of the module.
    """
    program = ingot.export(_mixed, (X,))
    assert program.verification is not None
    assert all(set(case.differences) == {"output_0"} for case in program.verification.cases)
    for other, named in [
        (lambda x: (x * 2.01, *_mixed(x)[1:]), "'output_0'.*differs"),
        (lambda x: (x * 2, x.double(), _mixed(x)[2]), "'output_1'.*float64"),
        (lambda x: (x * 2, x[:, :1], _mixed(x)[2]), r"'output_1'.*\[9, 1\]"),
        (lambda x: (x * 2, _mixed(x)[1], _mixed(x)[2][:, :1]), r"'output_2'.*, 1\]"),
    ]:
        with pytest.raises(VerificationError, match=named):
            ingot.verify(program, other)
    report = ingot.verify(program.model, _mixed, (X,))
    assert set(report.cases[0].differences) == {"output_0"} and len(report.unverified) == 2


class _Walk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("place", torch.zeros(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        before = self.place.clone()
        self.place += torch.rand(3)
        return x + before, x * 3, before


def test_draws_reach_later_calls_through_state_and_leave_loops() -> None:
    """What the state of an earlier call decides was drawn as well; so is what a loop carries."""
    program = ingot.export(_Walk(), (torch.randn(3),), state="inputs")
    assert program.verification is not None
    assert set(program.verification.cases[0].differences) == {"output_1"}

    def looped(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x
        for _ in range(int((x > 0).sum().item())):
            y = y + torch.randn_like(y)
        return y, x - 1

    program = ingot.export(looped, (torch.tensor([1.0, -1.0, 2.0]),))
    assert program.verification is not None
    assert set(program.verification.cases[0].differences) == {"output_1"}


def test_a_branch_on_sizes_is_in_the_model_where_values_are_drawn() -> None:
    """Both ways draw, so nothing compares their values: sizes and what is not drawn show which was taken."""

    def branched(x: Tensor) -> tuple[Tensor, Tensor]:
        way = "short" if x.shape[0] == 1 else "long"
        return x.sum(0), torch.rand(3 if way == "short" else 2)

    program = ingot.export(branched, (X,))
    assert not [a for a in program.assumptions if a.kind == "branch"]
    session = program.session()
    for count, drawn in ((1, 3), (2, 2), (5, 2)):
        x = np.ones((count, 2), np.float32)
        total, values = session.run(None, {"x": x})
        np.testing.assert_array_equal(total, x.sum(0))
        assert values.shape == (drawn,) and ((values >= 0) & (values < 1)).all()


def test_a_generator_that_is_none_leaves_sizes_free() -> None:
    """Libraries hand `generator=None` on; torch has operators of their own for it, of whole numbers."""

    def drawn(x: Tensor) -> tuple[Tensor, ...]:
        n, size = x.shape[0], x.shape
        return (
            torch.randn(size, generator=None, dtype=x.dtype, layout=torch.strided),
            torch.rand(*size, generator=None),
            torch.randint(n, size, generator=None),
            torch.randint(2, n + 3, (n, 2), generator=None, dtype=torch.int32),
            torch.randperm(n, generator=None),
        )

    program = ingot.export(drawn, (X,))
    for x in (X, torch.randn(4, 5), torch.randn(1, 0)):
        normal, uniform, below, between, order = map(np.asarray, program(x))
        for made, wanted in zip((normal, uniform, below, between, order), drawn(x), strict=True):
            assert (made.dtype, made.shape) == (wanted.numpy().dtype, tuple(wanted.shape))
        assert ((uniform >= 0) & (uniform < 1)).all() and ((below >= 0) & (below < len(x))).all()
        assert ((between >= 2) & (between < len(x) + 3)).all()
        np.testing.assert_array_equal(np.sort(order), np.arange(len(x)))
