"""Functions that torch's C++ composes of others by numbers of their sizes: every size stays free."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import ingot
from tests.capture.support import OrtError, ort_runner, parity

R, ones = torch.randn, torch.ones
T = torch.Tensor


def places(*shape: int) -> T:
    """Coordinates that grow unevenly."""
    return (torch.rand(*shape) + 0.2).cumsum(0)


def padded(x: T) -> T:
    """A list of rows that grows, padded."""
    rows = []
    for i in range(x.shape[0]):
        rows.append(x[i])
    return torch.nn.utils.rnn.pad_sequence(rows)


CASES: dict[str, tuple[Callable[..., Any], tuple[T, ...], tuple[T, ...]]] = {
    "kron": (torch.kron, (R(4, 6), R(3, 2)), (R(1, 5), R(2, 7))),
    "kron of itself": (lambda x: torch.kron(x, x), (R(4, 6),), (R(3, 1),)),
    "kron of other ranks": (torch.kron, (R(3), R(2, 4, 5)), (R(6), R(1, 2, 3))),
    "take_along_dim": (lambda x: x.take_along_dim(x.argsort(1), 1), (R(4, 6),), (R(3, 2),)),
    "take_along_dim, broadcast": (
        lambda x, i: torch.take_along_dim(x, i, -1),
        (R(4, 6), torch.tensor([[0, 5, 2]])), (R(2, 3), torch.tensor([[1, 1]])),
    ),
    "take_along_dim, flat": (lambda x: torch.take_along_dim(x, x.argmax()), (R(4, 6),), (R(3, 2),)),
    "vander": (torch.vander, (R(4),), (R(6),)),
    "vander, few": (lambda x: torch.vander(x, 3, increasing=True), (R(4),), (R(6),)),
    "vander of integers": (torch.vander, (torch.arange(4),), (torch.arange(6),)),
    "gradient": (torch.gradient, (R(4, 6),), (R(3, 7),)),
    "gradient, steps": (
        lambda x: torch.gradient(x, spacing=[0.5, 2.0], dim=(1, 0), edge_order=2), (R(4, 6),), (R(3, 7),),
    ),
    "gradient, places": (
        lambda x, p: torch.gradient(x, spacing=(p,), dim=0)[0], (R(5, 3), places(5)), (R(7, 2), places(7)),
    ),
    "gradient, places and edges": (
        lambda x, p: torch.gradient(x, spacing=(p,), dim=0, edge_order=2)[0],
        (R(5, 3), places(5)), (R(7, 2), places(7)),
    ),
    "multi_dot": (
        lambda *m: torch.linalg.multi_dot(m), (R(4, 6), R(6, 3), R(3, 5)), (R(2, 7), R(7, 4), R(4, 1)),
    ),
    "multi_dot of vectors": (
        lambda *m: torch.linalg.multi_dot(m), (R(6), R(6, 3), R(3, 5), R(5)), (R(7), R(7, 4), R(4, 2), R(2)),
    ),
    "corrcoef": (torch.corrcoef, (R(4, 6),), (R(3, 5),)),
    "pad_sequence of rows": (padded, (R(4, 6),), (R(7, 3),)),
    "pad_sequence": (
        lambda *s: torch.nn.utils.rnn.pad_sequence(s, padding_value=2),
        (R(4, 6), R(5, 6)), (R(7, 3), R(0, 3)),
    ),
    "pad_sequence, on the left": (
        lambda *s: torch.nn.utils.rnn.pad_sequence(s, True, padding_side="left"),
        (R(4), R(2), R(9)), (R(1), R(3), R(2)),
    ),
    "pad_sequence of what data selects": (
        lambda x: torch.nn.utils.rnn.pad_sequence([x[0][x[0] > 0], x[1][x[1] > 1]], True),
        (R(2, 6),), (torch.tensor([[-1.0, -2, -3], [2, 3, 4]]),),
    ),
    "pdist": (torch.pdist, (R(4, 6),), (R(7, 3),)),
    "pdist of one": (torch.pdist, (R(4, 6),), (R(1, 3),)),
    "pdist, the largest": (lambda x: torch.pdist(x, float("inf")), (R(4, 6),), (R(1, 3),)),
    "pdist, how many": (lambda x: torch.pdist(x.round(), 0), (R(4, 6),), (R(3, 5),)),
    "fftfreq": (lambda x: torch.fft.fftfreq(x.shape[0], 1 / 16000) * x, (R(4),), (R(7),)),
    "rfftfreq": (lambda x: torch.fft.rfftfreq(x.shape[0]), (R(4),), (R(7),)),
    "rfft along many": (lambda x: torch.fft.rfft(x, dim=0).abs(), (R(5, 3),), (R(1, 3),)),
    "adaptive_max_pool1d": (lambda x: torch.nn.functional.adaptive_max_pool1d(x, 1), (R(4, 6),), (R(3, 9),)),
    "adaptive_max_pool1d to several": (
        lambda x: torch.nn.functional.adaptive_max_pool1d(x, 4), (R(4, 6),), (R(3, 9),),
    ),
    "adaptive_max_pool2d": (
        lambda x: torch.nn.functional.adaptive_max_pool2d(x, (3, 2), return_indices=True),
        (R(1, 2, 7, 9),), (R(2, 1, 12, 1),),
    ),
    "adaptive_max_pool3d": (
        lambda x: torch.nn.functional.adaptive_max_pool3d(x, 2), (R(1, 2, 7, 4, 3),), (R(2, 1, 1, 5, 8),),
    ),
    "bincount beside rows": (
        lambda x: torch.bincount(x[:, 0].long().abs(), minlength=3)[:, None] / x[:3].exp(),
        (ones(5, 2),), (ones(3, 1) * 2,),
    ),
    "inverse": (lambda x: torch.linalg.inv(x @ x.T + torch.eye(x.shape[0])), (R(5, 3),), (R(1, 3),)),
    "combinations": (torch.combinations, (R(4),), (R(6),)),
    "combinations of three": (lambda x: torch.combinations(x, 3), (R(4),), (R(2),)),
    "combinations with replacement": (
        lambda x: torch.combinations(x, 3, with_replacement=True), (R(4),), (R(2),),
    ),
    "combinations of one": (lambda x: torch.combinations(x, 1), (R(4),), (R(0),)),
    "atleast_2d of a vector": (torch.atleast_2d, (R(4),), (R(0),)),
    "atleast_3d": (lambda *x: torch.atleast_3d(x), (R(4), R(4, 6), R(2, 3, 4)), (R(1), R(0, 3), R(1, 1, 5))),
    "prelu, a slope for all": (torch.prelu, (R(4, 3), R(1)), (R(5, 2), R(1))),
    "prelu, a slope for each": (torch.prelu, (R(4, 3, 2), R(3)), (R(1, 5, 4), R(5))),
    "prelu of a vector": (torch.prelu, (R(4), R(1)), (R(5), R(1))),
    "arange, half a size": (lambda x: torch.arange(float(x.shape[0]) * 0.5) + x[:1], (R(4),), (R(7),)),
    "arange, steps of a part": (
        lambda x: torch.arange(-1.5, end=x.shape[0] / 3, step=0.25), (R(4),), (R(7),),
    ),
    "arange, as far as data says": (lambda x: torch.arange(0, x.sum().item(), 0.3), (ones(4),), (ones(9),)),
    "linspace, as many as data says": (
        lambda n: torch.linspace(9, 0, n.sum()).long(), (torch.tensor([1, 2]),), (torch.tensor([1, 4, 2]),),
    ),
    "one_hot, as wide as data says": (
        lambda i: torch.nn.functional.one_hot(i).sum(0), (torch.tensor([1, 0, 2]),), (torch.tensor([4, 4]),),
    ),
    "one_hot, as wide as a size": (
        lambda x, i: torch.nn.functional.one_hot(i, x.shape[0]) @ x.long(),
        (ones(4, 2), torch.tensor([1, 0, 2])), (ones(5, 2), torch.tensor([4, 4])),
    ),
    "reshape by two numbers of data's": (
        lambda x, n: x.reshape(n[0].item(), n[1].item(), -1),
        (R(6, 4), torch.tensor([3, 2])), (R(5, 1), torch.tensor([1, 5])),
    ),
    "pinv, tall": (
        lambda x: torch.linalg.pinv(x), (R(5, 3),), (R(9, 3),),
    ),
    "pinverse, wide": (torch.pinverse, (R(2, 3, 5),), (R(1, 3, 4),)),
    "a convolution with a filter for each image": (
        lambda x, w: torch.nn.functional.conv2d(
            x.flatten(0, 1)[None], w.flatten(0, 1), groups=x.shape[0], stride=(2, 1), padding=(1, 2),
            dilation=(1, 2),
        ).unflatten(1, (x.shape[0], -1)),
        (R(2, 3, 8, 9), R(2, 4, 3, 3, 2)), (R(3, 1, 5, 6), R(3, 2, 1, 3, 2)),
    ),
    "filters of any size": (
        lambda x, w: torch.nn.functional.conv2d(x, w, stride=2, padding=1),
        (R(2, 3, 9, 11), R(4, 3, 3, 2)), (R(1, 5, 12, 6), R(6, 5, 1, 5)),
    ),
    "transposed filters of any size": (
        lambda x, w: torch.nn.functional.conv_transpose1d(x, w, stride=2, padding=1),
        (R(2, 3, 9), R(3, 4, 3)), (R(1, 5, 6), R(5, 2, 6)),
    ),
    "a filter of any size that keeps the image's": (
        lambda x, w, b: torch.nn.functional.conv2d(x, w, b, padding="same", dilation=(1, 2)),
        (R(2, 3, 9, 8), R(4, 3, 3, 2), R(4)), (R(1, 5, 2, 6), R(6, 5, 4, 5), R(6)),
    ),
    "padded by half of a filter": (
        lambda x, w: torch.nn.functional.conv2d(x, w, padding=(w.shape[2] // 2, w.shape[3] // 2)),
        (R(2, 3, 9, 11), R(4, 3, 3, 2)), (R(1, 5, 12, 6), R(6, 5, 1, 5)),
    ),
    "a filter of any size for each image": (
        lambda x, w: torch.nn.functional.conv2d(
            x[None], w[:, None], groups=x.shape[0], stride=(2, 1), dilation=(1, 2), padding=w.shape[1] // 2
        ),
        (R(2, 8, 9), R(2, 3, 2)), (R(5, 6, 12), R(5, 4, 3)),
    ),
    "a convolution of each channel alone": (
        lambda x, w, b: torch.nn.functional.conv1d(x, w, b, groups=x.shape[1], padding="same"),
        (R(2, 3, 8), R(3, 1, 5), R(3)), (R(1, 4, 6), R(4, 1, 5), R(4)),
    ),
    "blurred by a kernel of one's own": (
        lambda x: torch.nn.functional.conv2d(x, ones(3, 3).expand(x.shape[1], 1, 3, 3), groups=x.shape[1]),
        (R(2, 3, 8, 9),), (R(1, 4, 5, 3),),
    ),
    "chunk of what data selects": (lambda x: x[x > 0].chunk(2)[0], (ones(5),), (ones(1),)),
    "a part of which sizes say that it is empty": (
        lambda x: (x[:, x.shape[1] - 2 : x.shape[1] - 2], x[:, :, x.shape[2] - 2 :]),
        (R(2, 4, 6),), (R(3, 1, 2),),
    ),
    "chunks of what data selects": (
        lambda x: [c.sum() for c in x[x > 0].chunk(2)], (ones(5),), (ones(3) * -1,),
    ),
}  # fmt: skip
DYNAMIC: dict[str, Any] = {"pinv, tall": ({0: "n"},), "pinverse, wide": ({0: "b", 2: "n"},)}  # else all axes


@pytest.mark.parametrize("name", CASES)
def test_sizes_stay_free(name: str) -> None:
    """Parity on other sizes than the example's."""
    function, example, other = CASES[name]
    parity(function, example, other, dynamic_shapes=DYNAMIC.get(name, "auto"))


SIGNAL = torch.signal.windows
SPACED: dict[str, Callable[[T], T]] = {
    "linspace": lambda x: torch.linspace(-1, 1, x.shape[0]) * x,
    "linspace, ends by sizes": lambda x: torch.linspace(0.1, x.shape[0] / 3, x.shape[0] + 2)[2:] * x,
    "linspace, ends by data": lambda x: torch.linspace(x.sum(), 7, x.shape[0]) * x,
    "linspace of float64": lambda x: torch.linspace(0.1, 7.3, x.shape[0], dtype=torch.float64) * x,
    "linspace of integers": lambda x: torch.linspace(-7, 20, x.shape[0], dtype=torch.int64) * x,
    "logspace": lambda x: torch.logspace(0, 1, x.shape[0], 2.0) * x,
    **{
        f"{own.__name__}, {'periodic' if periodic else 'symmetric'}": partial(
            lambda x, own, periodic: own(x.shape[0], periodic) * x, own=own, periodic=periodic
        )
        for own in (
            torch.hann_window,
            torch.hamming_window,
            torch.bartlett_window,
            torch.blackman_window,
            torch.kaiser_window,
        )
        for periodic in (True, False)
    },
    "hamming_window, numbers": lambda x: torch.hamming_window(x.shape[0], True, 0.6, beta=0.3) * x,
    "cosine": lambda x: SIGNAL.cosine(x.shape[0]) * x,
    "gaussian": lambda x: SIGNAL.gaussian(x.shape[0], std=2.0) * x,
    "nuttall": lambda x: SIGNAL.nuttall(x.shape[0]) * x,
}


@pytest.mark.parametrize("name", SPACED)
def test_spaced_by_a_free_size(name: str) -> None:
    """Any number of places, none and one too; linspace, which counts from both ends, to the last bit."""
    function = SPACED[name]
    program = ingot.export(function, (torch.ones(3),))
    free = "x_batch" in ingot.InferenceSession(program).get_inputs()[0].shape
    assert free == (name != "linspace of integers"), "of integers torch rounds lane by lane"
    for n in (0, 1, 2, 7, 64, 999) if free else (3,):
        want, got = function(torch.ones(n)).numpy(), program(torch.ones(n))
        bound = 0 if name.startswith("linspace") and want.dtype == np.float32 else 2e-6
        np.testing.assert_allclose(got, want, rtol=0, atol=bound, err_msg=f"{name} of {n}")


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("spatial", [2, 3])
def test_affine_grid_of_any_size(spatial: int, align_corners: bool) -> None:
    """Also of one pixel along an axis, which is in the middle."""

    def grid(x: T, theta: T) -> T:
        return torch.nn.functional.affine_grid(theta, x.shape, align_corners=align_corners)

    calls = [
        (torch.ones(n, 2, *sizes[:spatial]), R(n, spatial, spatial + 1))
        for n, sizes in ((2, (8, 9, 4)), (1, (5, 1, 7)), (3, (1, 1, 1)))
    ]
    captured = parity(grid, *calls)
    assert all(a.kind != "narrowed" or "theta" in a.what for a in captured.assumptions)


@pytest.mark.parametrize("start", [0.5, -1.0, 1.75])
def test_middles_of_pixels_are_as_many_as_pixels(start: float) -> None:
    """A grid of them fits what has a place for each pixel, unchecked. None begins behind the last."""

    class M(torch.nn.Module):
        def forward(self, x: T) -> T:
            first = math.floor(start)
            h, w = (torch.arange(start, n) / n for n in x.shape[1:])
            grid = torch.stack(torch.meshgrid(h, w, indexing="ij"), -1).flatten(0, 1)
            places = x.new_ones((x.shape[1] - first) * (x.shape[2] - first), 2)
            return grid * places * x.sum()

    captured = parity(M(), *[(R(2, h, w),) for h, w in ((5, 4), (3, 7), (2, 2), (33, 8))])
    assert not [a for a in captured.assumptions if a.kind == "relation"]
    if start > 0:
        with pytest.raises(OrtError):
            ort_runner(captured.model)({"x": torch.ones(2, 0, 4).numpy()}, captured.output_names)


def test_linspace_of_as_many_as_data_says() -> None:
    """The number of places may be a tensor's."""
    parity(
        lambda x, n: x[:1] * torch.linspace(0, 1, int(n)),
        (torch.ones(3), torch.tensor(4)), (torch.ones(2), torch.tensor(1)), (torch.ones(2), torch.tensor(9)),
    )  # fmt: skip


def test_sizes_that_torch_counts_with_are_fixed() -> None:
    """An operator that torch's C++ alone can take apart makes the sizes static that it asks for, and says
    so.
    """
    program = ingot.export(lambda x: torch.linalg.cond(x @ x.T + torch.eye(x.shape[0]), 1), (R(4, 6),))
    fixed = [str(a) for a in program.assumptions if a.kind == "narrowed"]
    assert any("is 4" in f for f in fixed), "torch counts the rows of the matrix in C++"


def distances(x: T) -> T:
    return torch.cdist(x, x)


@pytest.mark.parametrize("source", ["function", "script", "trace", "program"])
def test_distances_of_many_rows_are_as_exact_as_those_of_few(source: str) -> None:
    """For more than 25 rows torch takes them from squares and products, of which nothing is left between
    near rows far from 0; the example's way of its own is not every size's.
    """
    x = torch.rand(32, 3, generator=torch.Generator().manual_seed(0)) + 100
    given: dict[str, Callable[[], Any]] = {
        "function": lambda: distances,
        "script": lambda: torch.jit.script(distances),
        "trace": lambda: torch.jit.trace(distances, (x,)),
        "program": lambda: torch.export.export(Distances(), (x,)),
    }
    program = ingot.export(given[source](), (x,))
    assert program.verification is not None
    said = program.verification.unverified
    assert any("digits" in line for line in said), f"nothing is said of the digits that torch loses: {said}"
    exact = torch.cdist(x.double(), x.double()).numpy()
    np.testing.assert_allclose(np.asarray(program(x)), exact, rtol=1e-5)


class Distances(torch.nn.Module):
    def forward(self, x: T) -> T:
        return distances(x)


def test_distances_by_a_product_that_the_caller_asks_for_are_one() -> None:
    mode = "use_mm_for_euclid_dist"
    program = ingot.export(lambda x: torch.cdist(x, x, compute_mode=mode), (R(8, 3),))
    assert "MatMul" in [n.op_type for n in program.model.graph]


def test_verification_still_sees_a_mistake_beside_distances() -> None:
    x = torch.rand(32, 3, generator=torch.Generator().manual_seed(0)) + 100
    program = ingot.export(distances, (x,))
    with pytest.raises(ingot.VerificationError, match="differs from the module by"):
        ingot.verify(program, lambda x: torch.cdist(x, x) * 1.001)


def by_fives(x: T) -> T:
    """On a side of a branch sizes are divided by one that is 0 in the example."""
    n = x.shape[0]
    if n > 4:
        if x.shape[1] % (n // 5) == 0:
            return x * 2
        return x * 3
    return x + 1


@pytest.mark.parametrize("rows", [2, 5, 11])
def test_a_size_that_is_0_for_the_example_divides_on_a_side(rows: int) -> None:
    others = [(R(n, m),) for n, m in ((1, 3), (4, 6), (5, 3), (10, 6), (10, 7), (17, 6))]
    parity(by_fives, (R(rows, 6),), *others)
