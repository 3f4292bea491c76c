"""Places where the example's sizes could decide for ever which way an operator or a translation goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from ingot.calls import ingot_runner
from ingot.capture.attempt import Capture, capture
from ingot.capture.fakes import pooled
from ingot.errors import InputError, ShapeError
from tests.capture.constructs.support import Case, Cases, T, check, random
from tests.capture.support import parity

case = Cases()


def planes(*more: tuple[int, int]) -> list[T]:
    """Matrices of several sizes; the first is [6, 7]."""
    return [random(*size) for size in ((6, 7), (5, 7), (7, 7), (12, 13), *more)]


SHAPES = planes((3, 7), (9, 6), (1, 7), (2, 5))


@case(*planes((9, 9)))
def ring_as_wide_as_the_rows(x: T) -> T:
    return functional.pad(x[None], (x.shape[0] - 5, 1), mode="circular")


@case(*planes((3, 7), (9, 9), (4, 9)))
def ring_that_may_cut(x: T) -> T:
    return functional.pad(x[None], (x.shape[0] - 6, 2), mode="circular")


@case(*planes((9, 6), (3, 5)))
def ring_around_planes(x: T) -> T:
    return functional.pad(x[None, None], (2, 1, 0, 3), mode="circular")


@case(*planes((9, 9)))
def written_as_a_ring(x: T) -> T:
    n, m = x.shape
    y = x.new_zeros(n, n + m - 4)
    y[..., n - 5 : m + n - 5] = x
    y[..., : n - 5] = y[..., m : m + n - 5]
    y[..., m + n - 5 :] = y[..., n - 5 : n - 4]
    return y


@case(*SHAPES)
def covariances(x: T) -> T:
    return torch.cov(x.T)


@case(*SHAPES, random(30, 31))
def distances(x: T) -> T:
    return torch.cdist(x, x + 1)


@case(*SHAPES, random(6, 2), random(6, 1))
def differences(x: T) -> T:
    return torch.diff(x, 3, 1)


@case(*SHAPES)
def differences_between_others(x: T) -> T:
    return torch.diff(x, dim=0, prepend=x[:1] * 2, append=x[-1:])


@case(*SHAPES)
def narrowed_from_the_end(x: T) -> T:
    return x.narrow(0, 2 - x.shape[0], 1)


@case(*SHAPES)
def slice_replaced(x: T) -> T:
    return torch.slice_scatter(x, x[2:5:2] * 0, 0, 2, 5, 2)


@case(*[(random(1)[0], torch.zeros(n, dtype=torch.int64)) for n in (2, 1, 0)])
def filled_at_places(x: T, at: T) -> T:
    return x.index_fill(0, at, 5.0)


@case(*[(random(2, 3, n, d),) for n, d in ((6, 8), (6, 5), (3, 16), (4, 1))])
def attention_of_any_width(x: T) -> T:
    return functional.scaled_dot_product_attention(x, x, x)


@case(*SHAPES)
def grid_of_an_affine_map(x: T) -> T:
    theta = torch.tensor([[[1.0, 0.2, 0.0], [0.0, 0.9, 0.1]]])
    return functional.affine_grid(theta, [1, 1, *x.shape], align_corners=False)


@case(*[random(2, 3, n) for n in (6, 7, 8, 9, 4, 5, 10, 11, 2)])
def pool_as_long_as_a_third(x: T) -> T:
    y = functional.max_pool1d(x, 2, 3, ceil_mode=True)
    if y.shape[-1] == x.shape[-1] // 3:
        return y + 1
    return y


@case(*[(random(2, n, 2), random(2, m, 3)) for n, m in ((7, 4), (6, 5), (2, 9), (1, 1))])
def parts_filled_up(x: T, y: T) -> T:
    return torch._chunk_cat([x, y], 1, 2)  # pyright: ignore[reportPrivateUsage]


@case(*planes((1, 7), (0, 7)))
def histogram_of_points(x: T) -> Any:
    found = torch.histogramdd(x[:, :2], [3, 4])
    return found.hist, found.bin_edges


@case(*planes((1, 7), (0, 7)))
def variances_over_more_than_there_are(x: T) -> Any:
    return torch.var(x, 0, correction=-1), torch.std(x, correction=-2)


@case(*[random(n) for n in (5, 2, 1)])
def one_number_as_a_scalar(x: T) -> T:
    return x[:1].view(())


@case((random(1)[0], random(1)))
def slope_of_a_number(x: T, slope: T) -> T:
    return functional.prelu(x, slope)


@case.parametrize()
def test_right_or_refused(case: Case) -> None:
    """Never the example's way for ever: what other sizes would take otherwise is in the model, or fails."""
    check(case, narrowed=True, refuses=True)


@pytest.mark.parametrize(
    "name",
    ["ring_as_wide_as_the_rows", "differences", "distances", "attention_of_any_width", "histogram_of_points"],
)
def test_every_size_stays_free(name: str) -> None:
    """None is fixed, where a translation works for all."""
    (found,) = [c for c in case.all if c.name == name]
    captured = capture(found.make(), found.inputs[0])
    assert not [a for a in captured.assumptions if a.kind == "narrowed"], captured.assumptions


def test_pools_that_round_up_have_torchs_sizes() -> None:
    """The formula without a branch is torch's for every kernel, stride, padding and dilation."""
    for size in range(1, 14):
        for kernel in (1, 2, 3, 5):
            for padding in range(kernel // 2 + 1):
                for stride, dilation in ((1, 1), (2, 1), (3, 1), (4, 2)):
                    if size + 2 * padding < dilation * (kernel - 1) + 1:
                        continue
                    for rounds_up in (False, True):
                        layer = torch.nn.MaxPool1d(kernel, stride, padding, dilation, ceil_mode=rounds_up)
                        found = pooled(size, kernel, padding, padding, stride, dilation, rounds_up)
                        sizes = (size, kernel, padding, stride, dilation, rounds_up)
                        assert found == layer(torch.zeros(1, 1, size)).shape[-1], sizes


def _run(captured: Capture, *inputs: T) -> Any:
    feeds = {k: v.numpy() for k, v in captured.arguments.feeds(inputs, {}).items()}
    return ingot_runner(captured.model)(feeds, captured.output_names)[0]


def test_what_was_written_down_does_not_prove_itself() -> None:
    """Two parts that are one element long in the example, and always as long as each other, are not one
    element for ever; and where one part stays so, the other is still recorded at another size.
    """

    def model(x: T) -> T:
        n, m = x.shape
        y = torch.zeros(n, n + m) + torch.arange(n + m)
        y[:, : n - 5] = y[:, m : m + n - 5]
        return y

    captured = capture(model, (random(6, 7),))
    for shape in ((6, 7), (9, 7), (12, 13), (5, 5)):
        x = random(*shape)
        np.testing.assert_array_equal(_run(captured, x), model(x).numpy(), err_msg=str(shape))


def test_a_write_that_does_not_fit_fails() -> None:
    """What is written must be as long as the place for it in every run, as in the example: the relation is
    checked where the assumption says so.
    """

    def model(x: T) -> T:
        n, m = x.shape
        y = x.new_zeros(n, n + m - 4)
        y[:, n - 5 : m + n - 5] = x
        return y

    captured = capture(model, (random(6, 7),))
    np.testing.assert_array_equal(_run(captured, random(8, 7)), model(random(8, 7)).numpy())
    with pytest.raises(RuntimeError):
        model(random(4, 7))
    with pytest.raises(ShapeError, match="test_bake_sizes"):
        _run(captured, random(4, 7))


def test_a_function_of_torchs_that_asks_for_a_size_is_checked() -> None:
    """What torch's own Python asks of sizes is asked in the model: other sizes fail as they do there."""

    def model(x: T) -> T:
        return functional.max_unpool1d(*functional.max_pool1d(x, 2, return_indices=True), 2, output_size=(9,))

    captured = capture(model, (random(1, 3, 8),))
    x = random(1, 3, 9)
    np.testing.assert_array_equal(_run(captured, x), model(x).numpy())
    with pytest.raises(ValueError, match="invalid output_size"):
        model(random(1, 3, 12))
    with pytest.raises(ShapeError, match="test_bake_sizes"):
        _run(captured, random(1, 3, 12))


def test_the_axis_that_a_cross_product_finds_is_checked() -> None:
    """The first of 3 elements: where another becomes one, the model is another one."""

    def model(x: T, y: T) -> T:
        return torch.cross(x, y)

    captured = capture(model, (random(5, 3), random(5, 3, seed=1)))
    for n in (5, 4, 1):
        x, y = random(n, 3), random(n, 3, seed=1)
        np.testing.assert_allclose(_run(captured, x, y), model(x, y).numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ShapeError, match="would take axis 0"):
        _run(captured, random(3, 3), random(3, 3, seed=1))


def test_sizes_that_fit_by_repeating_are_checked() -> None:
    """Two sizes that are equal in the example: one may be 1 in a run, and what follows depends on which."""

    def model(x: T, mask: T) -> T:
        y = x + mask[:, 5:]
        return y * torch.arange(y.shape[1])

    captured = capture(model, (random(2, 4), random(2, 9)))
    for n in (3, 0):
        x, mask = random(2, n), random(2, 5 + n)
        np.testing.assert_allclose(_run(captured, x, mask), model(x, mask).numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ShapeError, match="fit each other"):
        _run(captured, random(2, 1), random(2, 9))


def _shifted(x: T, state: T) -> T:
    """Of one token, the state's rows are repeated for each row of x."""

    def chosen() -> T:
        return x + (state if x.shape[1] == 1 else x * 2)

    y = x + chosen()
    if y.shape[1] == 1:
        y = y + 7
    return y


def test_a_size_that_a_branch_chose_is_checked_where_it_meets_another() -> None:
    captured = capture(_shifted, (random(1, 1, 3), random(1, 3)))
    for shapes in (((1, 1, 3), (1, 3)), ((2, 5, 3), (2, 3))):
        inputs = [random(*shape) for shape in shapes]
        np.testing.assert_allclose(_run(captured, *inputs), _shifted(*inputs).numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ShapeError, match="fit each other"):
        _run(captured, random(2, 1, 3), random(2, 3))


def test_what_fits_at_the_example_by_being_repeated_is_recorded_so() -> None:
    """The size that is tried in the place of the example's 1 fits in another way, which the example's would
    be refused for.
    """
    captured = capture(_shifted, (random(2, 1, 3), random(2, 3)))
    for shapes in (((2, 1, 3), (2, 3)), ((1, 1, 3), (1, 3)), ((3, 1, 3), (3, 3))):
        inputs = [random(*shape) for shape in shapes]
        np.testing.assert_allclose(_run(captured, *inputs), _shifted(*inputs).numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="the model wants"):
        _run(captured, random(2, 5, 3), random(2, 3))


def test_an_axis_of_which_a_branch_chose_the_size_is_repeated_where_it_is_one() -> None:
    """torch asks whether it is 1, as it is in the example: it is whole for other sizes."""

    def model(x: T) -> T:
        rows = x[:1] if x.shape[1] == 1 else x * 2
        return x + rows.expand(x.shape[0], -1, -1)

    captured = capture(model, (random(2, 1, 3),))
    for shape in ((2, 1, 3), (2, 5, 3), (1, 4, 3), (3, 1, 3), (1, 1, 3)):
        x = random(*shape)
        np.testing.assert_allclose(_run(captured, x), model(x).numpy(), rtol=1e-5, atol=1e-6)


def test_an_axis_of_which_a_branch_chose_the_size_is_checked_where_it_is_repeated() -> None:
    def model(x: T, y: T) -> T:
        rows = x[:1] if x.shape[1] == 1 else x * 2
        return rows.expand(y.shape[0], -1, -1) + 1

    captured = capture(model, (random(4, 1, 3), random(4)))
    for shape, rows in (((4, 1, 3), 4), ((2, 1, 3), 7), ((2, 5, 3), 2), ((1, 4, 3), 6)):
        x, y = random(*shape), random(rows)
        np.testing.assert_allclose(_run(captured, x, y), model(x, y).numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ShapeError, match="fit each other"):
        _run(captured, random(2, 5, 3), random(1))


def require_one_or_as_many(x: T, y: T, raises: bool = True) -> bool:
    """Rows that are one or as many as the other's; else an error that says which of the two were wanted."""
    a, b = x.shape, y.shape
    if not ((isinstance(a[0], int) and a[0] == 1) or a[0] == b[0] or a[0] == 1):
        if raises:
            wanted = f"{b[0]} or 1" if b[0] != 1 else f"{b[0]}"
            raise ValueError(f"expected {wanted}, got {a[0]}")
        return False
    return True


def filtered(x: T, taps: T) -> T:
    """A filter for all images, or one for each."""
    require_one_or_as_many(taps, x)
    batch, channels, height, width = x.shape
    weight = taps[:, None].expand(-1, channels, -1, -1)
    rows, columns = weight.shape[-2:]
    if weight.shape[0] == 0:
        weight = weight.sum(dim=0, keepdim=True)
    weight = weight.reshape(-1, 1, rows, columns)
    groups = weight.size(0)
    y = functional.conv2d(x.reshape(-1, groups, height, width), weight, groups=groups)
    return y.view(batch, channels, height - rows + 1, width - columns + 1)


@pytest.mark.parametrize("each", [True, False])
def test_a_function_taken_apart_fixes_no_size_that_is_not_the_examples(each: bool) -> None:
    """A side that fits a single filter alone must not make it the only one that the model takes."""

    def images(batch: int, channels: int, *size: int) -> tuple[T, T]:
        return random(batch, channels, *size), random(batch if each else 1, 3, 3)

    parity(filtered, images(2, 3, 8, 9), images(4, 3, 6, 11), images(3, 2, 5, 3))
