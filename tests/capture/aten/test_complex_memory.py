"""Which complex tensors share memory, and the digits of their functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from ingot.verify import verify_capture
from tests.capture.support import ort_runner

Tensor = torch.Tensor


def verified(function: Callable[..., Any], *args: Tensor) -> None:
    """Compared in onnxruntime on the example and other sizes."""
    verify_capture(capture(function, args), runner=ort_runner)


def Z(*shape: int) -> Tensor:
    """Complex numbers."""
    torch.manual_seed(0)
    return torch.randn(*shape, dtype=torch.complex64)


def sum_with_a_number(z: Tensor) -> Any:
    y, w = z + 1.0, z - 2.0
    y *= 2
    w.zero_()
    return z, y, w


def of_two_real(z: Tensor) -> Any:
    a, b = z.real * 1, z.imag * 1
    made = torch.complex(a, b)
    a.zero_()
    made.mul_(3)
    return made, a, b


def conjugate_after_a_write(z: Tensor) -> Any:
    z = z * 1
    y = z.conj()
    z.mul_(2)
    return y, z


def write_into_the_conjugate(z: Tensor) -> Any:
    z = z * 1
    y = z.conj()
    y.mul_(1 + 2j)
    return z, y


def conjugate_of_its_own(z: Tensor) -> Any:
    z = z * 1
    y = torch.conj_physical(z)
    z.mul_(2)
    return y, z


def real_part_by_cast(z: Tensor) -> Any:
    z = z * 1
    x = z.to(torch.float32)
    x.zero_()
    return z, x


def another_view_in_place(z: Tensor) -> Any:
    z = z * 1
    row = z[0]
    z.t_()
    z.unsqueeze_(0)
    z.mul_(2)
    return row, z


@pytest.mark.filterwarnings("ignore:Casting complex values")
@pytest.mark.parametrize(
    "function",
    [
        sum_with_a_number,
        of_two_real,
        conjugate_after_a_write,
        write_into_the_conjugate,
        conjugate_of_its_own,
        real_part_by_cast,
        another_view_in_place,
    ],
)
def test_memory(function: Callable[..., Any]) -> None:
    """A result has memory of its own unless torch gives a view, which sees writes on either side."""
    verified(function, Z(3, 4))


@pytest.mark.parametrize("show", [torch.view_as_real, torch.real, torch.imag])
@pytest.mark.parametrize("into_pairs", [True, False])
def test_pairs_that_are_written_to(show: Callable[..., Any], into_pairs: bool) -> None:
    """`view_as_real` is a copy in the model: a read after a write into the other one is refused."""

    def function(z: Tensor) -> Tensor:
        z = z * 1
        pairs = show(z)
        (pairs if into_pairs else z).mul_(2)
        return z if into_pairs else pairs

    with pytest.raises(DataDependentError, match=r"pairs = show\(z\)"):
        capture(function, (Z(3),))


def test_functions_of_far_and_of_almost_real_numbers() -> None:
    """No digits are lost to |z| - re, and no hyperbolic cosine is beyond float32."""
    near = torch.tensor([1 + 1e-4j, 4 - 1e-3j, -1 + 1e-4j, -9 - 1e-3j, complex(-4, -0.0), 0j, 1e20 + 1e10j])
    verify_capture(
        capture(lambda z: (z.sqrt().imag[:2], z.sqrt().real[2:4], z.sqrt()), (near,), dynamic_shapes=None),
        runner=ort_runner,
    )
    far = torch.tensor([50 + 1j, -60 + 2j, 1 + 1j, 100 - 1j])
    verify_capture(
        capture(lambda z: (z.tanh(), (z * 1j).tan()), (far,), dynamic_shapes=None), runner=ort_runner
    )


@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_truth_of_complex_numbers() -> None:
    """Of an imaginary part alone, too."""
    z = torch.tensor([1j, 0j, 1 + 0j])
    verify_capture(capture(lambda z: (z.bool(), z.real), (z,), dynamic_shapes=None), runner=ort_runner)
