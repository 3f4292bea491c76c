"""What `torch.empty` leaves in a tensor is 0 in the model, which is said where something may read it."""

# The models are written as people write them.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.capture.support import parity

T = torch.Tensor
Model = Callable[[T], T]


def copied(x: T) -> T:
    return torch.empty_like(x).copy_(x * 2)


def given_as_out(x: T) -> T:
    out = x.new_empty(x.shape)
    torch.add(x, 1, out=out)
    return out


def by_columns(x: T) -> T:
    out = torch.empty(x.shape[0], 3)
    out[:, 0] = x[:, 0]
    out[:, 1:] = x[:, 1:3] * 2
    return out + out


def in_steps(x: T) -> T:
    table = torch.empty(4, 6)
    at = torch.arange(4.0)[:, None]
    table[:, 0::2] = torch.sin(at * torch.arange(3.0))
    table[:, 1::2] = torch.cos(at * torch.arange(3.0))
    return x.sum() + table


def in_two_parts(x: T) -> T:
    n = x.shape[0]
    out = torch.empty(2 * n, x.shape[1])
    out[:n] = x
    out[n:] = -x
    return out


def element_by_element(x: T) -> T:
    out = torch.empty(2, 2)
    for i in range(2):
        for k in range(2):
            out[i, k] = x[i].sum() + k
    return out


def by_rows(x: T) -> T:
    out = torch.empty(x.shape[0], 2)
    for i in range(x.shape[0]):
        out[i, 0] = x[i].sum()
        out[i, 1] = x[i].max()
    return out * 2


def by_rows_and_columns(x: T) -> T:
    out = torch.empty(x.shape)
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[i, k] = x[: i + 1, k].sum()
    return out


def of_many_rounds(x: T) -> T:
    out = torch.empty(20, x.shape[1])
    for i in range(20):
        out[i] = x.sum(0) if x.sum() > i else x[0]
    return out


def transposed(x: T) -> T:
    out = torch.empty(4, x.shape[0])
    out.T[:, :2] = x[:, :2]
    out.t()[:, 2:] = x[:, 2:]
    return out


def of_no_elements(x: T) -> T:
    return torch.cat([torch.empty(0, x.shape[1]), x])


def for_its_sizes(x: T) -> T:
    return torch.ones_like(torch.empty(x.shape[0], 2))


def read_where_it_is_written(x: T) -> T:
    out = torch.empty(3)
    out[0] = x.sum()
    y = out[0] + 1
    out[1:] = y
    return out


def in_chunks(x: T) -> T:
    out = torch.empty(x.shape[0], 4)
    for part in out.chunk(2, 1):
        part.copy_(x[:, :2])
    return out


def on_both_sides(x: T) -> T:
    out = torch.empty(x.shape)
    if x.sum() > 0:
        out.copy_(x)
    else:
        out[:] = 2.0
    return out


@pytest.mark.parametrize(
    "model",
    [
        copied,
        given_as_out,
        by_columns,
        in_steps,
        in_two_parts,
        element_by_element,
        by_rows,
        by_rows_and_columns,
        of_many_rounds,
        transposed,
        of_no_elements,
        for_its_sizes,
        read_where_it_is_written,
        in_chunks,
        on_both_sides,
    ],
    ids=lambda m: m.__name__,
)
def test_what_is_written_before_it_is_read(model: Model) -> None:
    """Nothing is to be said."""
    x = torch.randn(5, 4)
    captured = parity(model, (x,), (torch.randn(2, 4),), tolerance=1e-5)
    assert not [a for a in captured.assumptions if a.kind == "unwritten"], "all of it is written"


def nothing(x: T) -> T:
    return x + torch.nan_to_num(torch.empty(x.shape) * 0)


def a_part(x: T) -> T:
    out = torch.empty(x.shape)
    out[1:] = x[1:]
    return torch.nan_to_num(out[:, :1] * 0) + x


def some_rows(x: T) -> T:
    out = torch.empty(x.shape)
    for i in range(x.shape[0]):
        if x[i].sum() > 0:
            out[i] = x[i]
    return torch.nan_to_num(out * 0) + x


def the_row_before(x: T) -> T:
    out = torch.empty(x.shape[0] + 1, x.shape[1])
    for i in range(x.shape[0]):
        out[i + 1] = torch.nan_to_num(out[i] * 0) + x[i]
    return out[1:]


def static(x: T) -> T:
    out = torch.empty(2, 3)
    out[0] = 1.0
    return torch.nan_to_num(out * 0).sum() + x


def a_number(x: T) -> T:
    return x * (1 if torch.empty(1, dtype=torch.int64).item() == 0.5 else 2)


def behind_a_branch(x: T) -> T:
    a = x * 2 if x.sum() > 0 else torch.empty(x.shape)
    return torch.nan_to_num(a * 0) + x


@pytest.mark.parametrize(
    "model",
    [nothing, a_part, some_rows, the_row_before, static, a_number, behind_a_branch],
    ids=lambda m: m.__name__,
)
def test_what_may_be_read_first(model: Model) -> None:
    """The line that made it is named."""
    captured = parity(model, (torch.ones(5, 4),), (torch.randn(3, 4),))
    found = [a for a in captured.assumptions if a.kind == "unwritten"]
    assert len(found) == 1 and found[0].status == "fixed"
    assert "test_unwritten.py" in found[0].where and "`torch.empty`" in found[0].what
