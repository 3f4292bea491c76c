"""Complex numbers as pairs of real ones: at the model's edge, through views and writes, with dynamic
sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import ExportError
from ingot.verify import verify_capture
from tests.capture.support import ort_runner, parity

torch.manual_seed(0)
R = torch.randn


def Z(*shape: int) -> torch.Tensor:
    """Complex numbers."""
    return torch.randn(*shape, dtype=torch.complex64)


def verified(function: Callable[..., Any], *args: torch.Tensor, **options: Any) -> Any:
    """The capture, compared in onnxruntime on the example and other sizes."""
    captured = capture(function, args, **options)
    verify_capture(captured, runner=ort_runner)
    return captured


def rotary(x: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """Rotary embedding, as Llama's first code has it."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    turns = torch.polar(torch.ones_like(frequencies), frequencies)
    return torch.view_as_real(pairs * turns).flatten(-2)


def spectrogram(x: torch.Tensor) -> torch.Tensor:
    """Log magnitudes, as audio models have them."""
    spectrum = torch.stft(x, 16, 4, window=torch.hann_window(16), return_complex=True)
    return torch.log1p(spectrum.abs() ** 2)


CASES: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "rotary": (rotary, (R(2, 5, 8), R(5, 4))),
    "spectrogram": (spectrogram, (R(2, 64),)),
    "filter": (lambda x, w: torch.fft.irfft(torch.fft.rfft(x) * w, n=x.shape[-1]), (R(3, 10), Z(6))),
    "edges": (lambda z: (z * 2 + 1j, z.conj(), z.abs(), z.angle(), z.real, z.imag), (Z(3, 4),)),
    "structure": (lambda z: torch.cat([z.transpose(0, 1), z.mT], 0)[1:, ::2].sum(-1), (Z(3, 4),)),
    "products": (lambda a, b: a @ b - (a * 1j) @ b.conj(), (Z(3, 4), Z(4, 3))),
    "functions": (
        lambda z: torch.exp(z) + torch.sqrt(z) + 1 / (z * z.conj() + 1) + torch.tanh(z),
        (Z(3, 4),),
    ),
    "numbers": (
        lambda x: (torch.exp(1j * x), x + (1 - 2j), x - 1j, 1j - x, x / 2j, 1j / (x + 9), (x * 1j).abs()),
        (R(3, 2),),
    ),
    "powers_of_numbers": (
        lambda x: ((x.abs() + 1) ** 1j, 2j**x, torch.exp(1j * x) ** (0.5 - 1j), (-2) ** (x + 1j)),
        (R(3, 2),),
    ),
    "number_where": (lambda x: torch.where(x > 0, x, 1j) * (2 * x.long() * 1j), (R(3, 2),)),
    "constants": (lambda x: x * torch.tensor([1 + 2j, 3.0]), (R(3, 2),)),
    "fourier_2d": (lambda x: torch.fft.ifft2(torch.fft.fftshift(torch.fft.fft2(x))).real, (R(2, 4, 6),)),
}


@pytest.mark.parametrize("name", CASES)
def test_complex(name: str) -> None:
    """Equals torch on the example and on other sizes."""
    function, args = CASES[name]
    verified(function, *args)


def test_writes_reach_parts_and_views() -> None:
    """A write through a view of a complex tensor, and one through its real part."""

    def function(x: torch.Tensor) -> torch.Tensor:
        z = torch.zeros(3, 4, dtype=torch.complex64)
        view = z[1:]
        view[0] = torch.complex(x, x * 2)
        z[:, 1] *= 1j
        z[2].add_(1)
        return view + z.sum()

    verified(function, R(4), dynamic_shapes=None)


def test_pairs_at_the_edge() -> None:
    """A complex input or output is a real tensor with a last axis of 2."""
    captured = capture(lambda z: z * 1j, (Z(3, 4),))
    value, result = captured.model.graph.inputs[0], captured.model.graph.outputs[0]
    assert value.shape is not None and value.shape[-1] == 2
    assert result.shape is not None and result.shape[-1] == 2
    pairs = np.array([[[1.0, 2.0]]], dtype=np.float32)
    (got,) = ort_runner(captured.model)({str(value.name): pairs}, captured.output_names)
    np.testing.assert_array_equal(got, [[[-2.0, 1.0]]])


def test_short_time_transforms() -> None:
    """Every option of stft, dynamic in batch and length."""
    window = torch.hann_window(12)
    for options in (
        {"n_fft": 16, "hop_length": 4, "win_length": 12, "window": window},
        {"n_fft": 16, "center": False, "normalized": True},
        {"n_fft": 16, "onesided": False, "pad_mode": "constant"},
    ):
        verified(lambda x, o=options: torch.stft(x, return_complex=True, **o), R(2, 50))


def test_real_frequencies_are_real() -> None:
    """The angle of a negative one is pi, not what the rounding of a complex transform makes of it."""
    for n in (15, 16):
        verified(lambda x: torch.fft.rfft(x, dim=0)[[0, -1]].angle(), -R(n, 40).abs())
    verified(lambda x: torch.stft(x, 16, return_complex=True, center=False)[..., [0, 8], :].angle(), R(3, 80))


def test_random_numbers_are_drawn_by_the_model() -> None:
    """Of the shape that the run has, different each time, and written down."""
    captured = capture(lambda x: (x * 0 + torch.rand_like(x), torch.randn(x.shape[0], 1000)), (R(3, 4),))
    assert {a.kind for a in captured.assumptions} >= {"random"}
    run = ort_runner(captured.model)
    feeds = {captured.arguments.names[0]: np.zeros((5, 2), np.float32)}
    first, second = (run(feeds, captured.output_names) for _ in range(2))
    assert first[0].shape == (5, 2) and first[1].shape == (5, 1000)
    assert (first[0] >= 0).all() and (first[0] < 1).all()
    assert not np.array_equal(first[0], second[0])
    assert abs(first[1].mean()) < 0.1 and abs(first[1].std() - 1) < 0.1


@pytest.mark.parametrize(
    ("draw", "mean", "deviation"),
    [
        (lambda x: torch.empty_like(x).uniform_(2, 4), 3.0, 0.577),
        (lambda x: torch.empty_like(x).normal_(1, 2), 1.0, 2.0),
        (lambda x: torch.bernoulli(torch.full_like(x, 0.25)), 0.25, 0.433),
        (lambda x: torch.randint(0, 10, (100, 100)).float() + x * 0, 4.5, 2.872),
        (lambda x: torch.empty_like(x).exponential_(2.0), 0.5, 0.5),
        (lambda x: torch.nn.functional.dropout(torch.ones_like(x), 0.5, training=True), 1.0, 1.0),
        (
            lambda x: torch.multinomial(x[:, :2] * 0 + torch.tensor([1.0, 3.0]), 100, True).float(),
            0.75,
            0.433,
        ),
    ],
)
def test_distributions(draw: Callable[..., Any], mean: float, deviation: float) -> None:
    """Ten thousand draws have torch's mean and deviation."""
    captured = capture(draw, (torch.zeros(100, 100),), dynamic_shapes=None)
    run = ort_runner(captured.model)
    (got,) = run({captured.arguments.names[0]: np.zeros((100, 100), np.float32)}, captured.output_names)
    assert abs(got.mean() - mean) < 0.1, got.mean()
    assert abs(got.std() - deviation) < 0.1, got.std()


def test_permutations() -> None:
    """Every number once."""
    captured = capture(lambda x: torch.randperm(x.shape[0]), (R(50),))
    (got,) = ort_runner(captured.model)({captured.arguments.names[0]: np.zeros(70, np.float32)}, ["output"])
    assert sorted(got) == list(range(70))


def test_matrices_of_any_size() -> None:
    """Elimination is a loop over a size that only the run knows."""

    def function(x: torch.Tensor) -> Any:
        square = x @ x.mT + torch.eye(x.shape[-2])
        lower = torch.linalg.cholesky(square)
        return torch.linalg.inv(square), torch.linalg.det(square), lower, torch.linalg.solve(square, x)

    parity(function, (R(2, 3, 4),), (R(1, 5, 2),), (R(4, 2, 2),))
    parity(lambda x: torch.linalg.qr(x), (R(2, 5, 3),), (R(1, 3, 4),), (R(3, 3, 3),))


def test_singular_values_and_pseudo_inverses() -> None:
    """Of matrices with more rows and with more columns."""
    parity(lambda x: torch.linalg.svdvals(x), (R(2, 5, 3),), dynamic_shapes=None)
    parity(lambda x: torch.linalg.pinv(x), (R(2, 3, 5),), dynamic_shapes=None)


def test_a_complex_number_that_torch_refuses() -> None:
    """Beside real tensors, as the factor of an addition."""
    with pytest.raises(ExportError, match="stands beside real tensors"):
        capture(lambda x: torch.add(x, x, alpha=1j), (R(3),))
