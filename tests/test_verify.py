"""What verification takes for the module's own rounding, and what it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ingot
from ingot.calls import ingot_runner
from ingot.capture.attempt import capture
from ingot.closeness import TOLERANCE
from ingot.errors import IngotError, VerificationError
from ingot.verify import verify_capture

Tensor = torch.Tensor


class Amplifies(nn.Module):
    """A detector's smallest map: each group is one number, less its mean; what rounding leaves of that is
    scaled up by the next normalisation.
    """

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.group = nn.GroupNorm(8, 8)
        self.rows = nn.LayerNorm(8)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x[..., 0, 0] * self.factor + self.rows(self.group(x * 50 + 17).flatten(1))


class Digits(nn.Module):
    """What float32 loses beside a large number: no accident, and not what float64 gives."""

    def __init__(self, lost: float = 0.0) -> None:
        super().__init__()
        self.lost = lost

    def forward(self, x: Tensor) -> Tensor:
        one = x * 0 + 1
        return x + ((one * 2**24 + one) - one * 2**24) + self.lost


def _x() -> Tensor:
    return torch.randn(3, 8, 1, 1, generator=torch.Generator().manual_seed(0))


def test_a_module_that_amplifies_rounding_is_compared_with_itself_in_float64() -> None:
    """Its float32 is far from its own float64, the exported model is not, and the report says so."""
    module, x = Amplifies().eval(), _x()
    program = ingot.export(module, (x,))
    (got,) = ingot_runner(program.model)({"x": x.numpy()}, program.output_names)
    own, exact = module(x).detach().numpy(), module.double()(x.double()).detach().numpy()
    allowed = TOLERANCE["float32"] * np.abs(exact).max()
    assert np.abs(own - exact).max() > 10 * allowed  # or the case shows nothing
    assert np.abs(got - exact).max() <= allowed
    assert program.verification is not None
    (line,) = [u for u in program.verification.unverified if "float64" in u]
    assert "'output'" in line, line


def test_a_mistake_smaller_than_the_rounding_is_found() -> None:
    """0.001 of the result is much less than float32's own distance from float64, and refused all the same."""
    with pytest.raises(VerificationError, match="differs from the module by"):
        verify_capture(capture(Amplifies(1.001).eval(), (_x(),)), Amplifies().eval())


def test_digits_that_no_rounding_of_the_inputs_moves_are_those_of_float32() -> None:
    """The model that is refused gives what the module gives in float64."""
    x = _x()
    verify_capture(capture(Digits(), (x,)))
    np.testing.assert_allclose(Digits(1.0)(x), Digits()(x.double()), rtol=1e-6)
    with pytest.raises(VerificationError, match="differs from the module by"):
        verify_capture(capture(Digits(1.0), (x,)), Digits())


def _places(x: torch.Tensor) -> torch.Tensor:
    found: list[int] = []
    for i, v in enumerate(x):
        if v > 0:
            found.append(i)
    return torch.tensor(found)


def test_an_empty_list_as_a_tensor_is_of_another_dtype() -> None:
    """PyTorch knows no dtype of nothing: the message says where to give one."""
    with pytest.raises(VerificationError, match=r"float32 \[0\].*int64.*give it the dtype"):
        ingot.export(_places, (torch.tensor([-1.0, -2.0, -3.0]),))


def test_a_list_that_a_size_of_0_leaves_empty_is_told() -> None:
    """What PyTorch gives there, and the model, as data may leave it empty for other sizes."""
    program = ingot.export(_places, (torch.tensor([1.0, -1.0, 2.0]),))
    assert program.verification is not None
    (line,) = [line for line in program.verification.unverified if "of an empty list" in line]
    assert "float32" in line, line


def test_dimensions_that_a_branch_alone_fixes_and_makes_equal_are_drawn_together() -> None:
    def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if q.sum() > 0:
            return torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v) * 2

    q = torch.ones(2, 3, 4, 8)
    program = ingot.export(attended, (q, q.clone(), q.clone()))
    assert len({case.sizes["k_batch"] for case in program.verification.cases}) > 1  # type: ignore[union-attr]


def test_sizes_that_one_side_of_a_branch_asks_for_are_checked_there() -> None:
    """Another size fails on that side alone, which the report says: PyTorch repeats rows of 1."""

    def one_side(x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x + 1
        return x - torch.arange(12.0).view(4, 3)

    program = ingot.export(one_side, (torch.ones(4, 3),))
    for x in (torch.ones(4, 3), -torch.ones(4, 3), torch.ones(7, 3)):
        np.testing.assert_array_equal(program(x), one_side(x))
    with pytest.raises(IngotError, match="sizes fit each other at this line"):
        program(-torch.ones(1, 3))
    assert program.verification is not None
    failing = [line for line in program.verification.unverified if "the exported model fails for" in line]
    assert len(failing) <= 2
    assert any("sizes fit each other at this line" in line for line in failing)


def test_whole_numbers_are_compared_in_all_of_their_digits() -> None:
    """Of 64 bits, float64 has 53."""
    x = torch.tensor([2**60 + 1, -(2**59) - 3])
    program = ingot.export(lambda x: x * 3 + 1, (x,), verify=False)
    assert ingot.verify(program.model, lambda x: x * 3 + 1, (x,)).worst == 0
    with pytest.raises(VerificationError, match="differs from the module by 1, where"):
        ingot.verify(program.model, lambda x: x * 3, (x,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": 5}, "reference is of type int"),
        ({"runner": 5}, "runner is of type int"),
        ({"rtol": "1e-3"}, "rtol is '1e-3'"),
        ({"rtol": -1}, "rtol is -1"),
        ({"rtol": float("nan")}, "rtol is nan"),
        ({"args": (torch.ones(3),)}, "compared on the call that it was exported with"),
    ],
)
def test_arguments_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    """One clear error before anything runs."""
    program = ingot.export(torch.relu, (torch.ones(3),), verify=False)
    with pytest.raises(VerificationError, match=message):
        ingot.verify(program, **options)
    assert ingot.verify(program).cases
