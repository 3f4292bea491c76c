"""Variables of which data decides whose memory they are, and writes through them: into what they were taken
from, or refused with the line that takes them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, check, random

case = Cases()

# Sums of both signs and sizes; the largest of the first column stands in each row once.
INPUTS = [
    sign * random(4, 3, seed=n).abs() * scale for n in range(4) for sign in (1, -1) for scale in (1, 0.05)
]
INPUTS += [random(4, 3, seed=n) for n in range(8)]


def rounds(x: T) -> int:
    return x[:, 0].abs().argmax().item() + 1


@case(*INPUTS)
def view_by_a_ternary(x: T) -> T:
    y = x.clone()
    v = y[1] if x.sum() > 0 else y[0]
    v.add_(1)
    return y


@case(*INPUTS)
def slice_replaced_under_an_if(x: T) -> T:
    y = x.clone()
    v = y[2:]
    if x.sum() > 0:
        v = y[1:]
    v += 1
    return y


@case(*INPUTS)
def swapped_under_an_if(x: T) -> tuple[T, ...]:
    a, b = x.clone(), x * 2
    c, d = a, b
    if x.sum() > 0:
        a, b = b, a
    a += 1
    b *= 3
    return a, b, c, d


@case(*INPUTS)
def one_of_three(x: T) -> tuple[T, T]:
    y = x.clone()
    m = x.sum()
    if m > 2:
        v = y[2]
    elif m > 0:
        v = y[1]
    else:
        v = y[0]
    v += 1
    return y, v


@case(*INPUTS)
def view_or_new(x: T) -> tuple[T, T]:
    y = x.clone()
    v = y[1] if x.sum() > 0 else torch.zeros(3)
    y.mul_(2)
    v[0] = 7
    return y, v


@case(*INPUTS)
def whole_and_part_made_in_both_sides(x: T) -> tuple[T, T]:
    if x.sum() > 0:
        w = x * 2
        v = w[0]
    else:
        w = x * 3
        v = w[1]
    v += 1
    return w, v


@case(*INPUTS)
def two_names_of_one(x: T) -> tuple[T, T]:
    if x.sum() > 0:
        v = w = x * 2
    else:
        v = w = x * 3
    v += 1
    return w, v


@case(*INPUTS)
def place_that_a_side_computes(x: T) -> tuple[T, T]:
    y = x.clone()
    if x.sum() > 0:
        i = x[:, 0].argmax().item()
        v = y[i]
    else:
        v = y[0]
    v += 1
    return y, v


@case(*INPUTS)
def pieces_made_in_both_sides(x: T) -> T:
    if x.sum() > 0:
        q, k, v = (x * 2).chunk(3, 1)
    else:
        q, k, v = (x * 3).chunk(3, 1)
    q *= 2
    return q + k + v


@case(*INPUTS)
def view_of_a_joined_view(x: T) -> tuple[T, ...]:
    y = x.clone()
    v = y[0] if x.sum() > 0 else y[1]
    w = v[1:]
    if x.sum() > 1:
        w += 5
    y[0, 2] = 9
    return y, v, w


@case(*INPUTS)
def joined_then_written_in_rounds(x: T) -> tuple[T, T]:
    y = x.clone()
    v = y[0] if x.sum() > 0 else y[1]
    for i in range(rounds(x)):
        v += x[i]
    return y, v


@case(*INPUTS)
def constant_written_through_a_join(x: T) -> tuple[T, T]:
    y = torch.zeros(4, 3)
    v = y[0] if x.sum() > 0 else y[1]
    y[1] = 5
    v += 1
    return y + x.sum(), v


@case(*INPUTS)
def row_of_each_round_written(x: T) -> T:
    y = x.clone()
    v = y[0]
    for i in range(rounds(x)):
        v = y[i]
        v += 1
    return y


@case(*INPUTS)
def two_buffers_that_change_places(x: T) -> tuple[T, T]:
    a, b = torch.zeros(3), torch.ones(3)
    for i in range(rounds(x)):
        b[:] = a + x[i]
        a, b = b, a
    return a, b


@case(*INPUTS)
def element_at_a_place(x: T) -> tuple[T, T]:
    kept = [torch.zeros(3), torch.ones(3)]
    kept[(x.sum() > 0).long().item()].add_(1)
    return kept[0], kept[1]


def rows_of(x: T) -> list[T]:
    """A list of which data decides the length."""
    rows: list[T] = []
    for i in range(rounds(x)):
        rows.append(x[i] * 2)
    return rows


@case(*INPUTS)
def last_row_taken_and_another_written(x: T) -> tuple[T, T]:
    rows = rows_of(x)
    first, last = rows[0], rows.pop()
    last.add_(1)
    first.mul_(3)
    rows.append(x[0])
    return torch.stack(rows), last


@case(*INPUTS)
def rows_replaced_one_by_one(x: T) -> T:
    rows = rows_of(x)
    for i in range(rounds(x)):
        rows[i] += i
    return torch.stack(rows)


@case(*INPUTS)
def list_cut_and_written(x: T) -> T:
    rows = rows_of(x)
    rows[:1][0].add_(1)
    return torch.stack(rows)


class Positions(nn.Module):
    """A weight that a side is the first to read."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.table = nn.Parameter(torch.randn(4, 3, generator=generator))
        self.other = nn.Parameter(torch.randn(4, 3, generator=generator))


@case(*INPUTS, *(random(n, 3) for n in (1, 2, 6)))
class WholeOrStretched(Positions):
    """As position embeddings are used: whole, or in parts where the size is another one."""

    def forward(self, x: T) -> T:
        if x.shape[0] == self.table.shape[0]:
            positions = self.table
        else:
            first = self.table[:1]
            positions = torch.cat([first, self.table[1:].mean(0, keepdim=True).expand(x.shape[0] - 1, 3)])
        return x + positions


@case(*INPUTS)
class OneOfTwoWeights(Positions):
    """The weight itself on both sides, and read after it."""

    def forward(self, x: T) -> tuple[T, T]:
        chosen = self.table if x.sum() > 0 else self.other
        row = self.other[1] if x[0, 0] > 0 else self.table[2:][0]
        return x * chosen + row, self.table + x


@case.parametrize()
def test_memory(case: Case) -> None:
    """The model is eager PyTorch on every side."""
    check(case)


def last_row_written(x: T) -> T:
    y = x.clone()
    v = y[0]
    for i in range(rounds(x)):
        v = y[i]
    v += 1
    return y


def rows_kept_then_cleared(x: T) -> T:
    y = x.clone()
    out: list[T] = []
    for i in range(rounds(x)):
        out.append(y[i])
    y.zero_()
    return torch.stack(out)


def sum_kept_in_every_round(x: T) -> T:
    h = torch.zeros(3)
    out: list[T] = []
    for i in range(rounds(x)):
        h += x[i]
        out.append(h)
    return torch.stack(out)


def rows_kept_perhaps(x: T) -> T:
    y = x.clone()
    rows: list[T] = []
    if x.sum() > 0:
        rows.append(y[0])
    rows.append(y[1])
    for r in rows:
        r.add_(1)
    return y


def reversed_copy_written(x: T) -> T:
    rows = rows_of(x)
    rows[::-1][0].add_(1)
    return torch.stack(rows)


def reversed_where_it_is(x: T) -> T:
    rows = rows_of(x)
    first = rows[0]
    rows.reverse()
    first.add_(1)
    return torch.stack(rows)


def row_put_at_a_place(x: T) -> T:
    rows, new = rows_of(x), x[0] * 5
    rows[rounds(x) - 1] = new
    new.add_(1)
    return torch.stack(rows)


def another_row_replaced(x: T) -> T:
    rows = rows_of(x)
    first = rows[0]
    rows[rounds(x) - 1] = x[0]
    first.add_(1)
    return torch.stack(rows)


def row_put_in(x: T) -> T:
    rows, new = rows_of(x), x[0] * 5
    rows.insert(0, new)
    new.add_(1)
    return torch.stack(rows)


def first_row_taken(x: T) -> T:
    rows = rows_of(x)
    last = rows[-1]
    rows.pop(0)
    last.add_(1)
    rows.append(x[0])
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (reversed_copy_written, "rows[::-1][0].add_(1)"),
        (reversed_where_it_is, "rows.reverse()"),
        (row_put_at_a_place, "rows[rounds(x) - 1] = new"),
        (another_row_replaced, "rows[rounds(x) - 1] = x[0]"),
        (row_put_in, "rows.insert(0, new)"),
        (first_row_taken, "rows.pop(0)"),
        (last_row_written, "for i in range(rounds(x)):"),
        (rows_kept_then_cleared, "for i in range(rounds(x)):"),
        (sum_kept_in_every_round, "for i in range(rounds(x)):"),
        (rows_kept_perhaps, "for r in rows:"),
    ],
)
def test_what_has_no_form_is_refused(function: Callable[[T], T], line: str) -> None:
    """The message has the line that takes the tensor, and says to copy it there."""
    with pytest.raises(DataDependentError) as error:
        capture(function, (INPUTS[0],))
    assert line in str(error.value)
    assert "`.clone()`" in str(error.value)
