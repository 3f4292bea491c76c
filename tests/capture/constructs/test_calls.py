"""Calls as Python lets them be written: arguments by their names, tensors of tensors, functions of the
model's own that are called as others are.
"""

# The constructs are written as people write them.

from __future__ import annotations

import heapq
import itertools
import logging

import torch

from tests.capture.constructs.support import Case, Cases, T, both_signs, check, lengths

case = Cases()
SIGNS = both_signs()
ROWS = lengths()
LOG = logging.getLogger(__name__)


@case(*ROWS)
def tensor_by_name(x: T) -> T:
    return x * torch.tensor(data=[1.0, 2.0, 3.0]) + torch.tensor(data=x.shape[0])


@case(*SIGNS)
def equal_by_name(x: T) -> T:
    y = x + 1 if torch.equal(input=x, other=x.abs()) else x - 1
    if torch.equal(x, other=x.abs()) and x.equal(other=x.abs()):
        y = y * 2
    return y


@case(*ROWS)
def rows_by_name(x: T) -> T:
    parts = torch.split(tensor=x, split_size_or_sections=2)
    columns = torch.split(x, split_size_or_sections=2, dim=1)
    rows = sum(torch.unbind(input=x)) + sum(torch.unbind(x, dim=0))
    return rows + sum(v.sum() for v in parts) + columns[0].sum()


@case(*ROWS)
def part_by_name(x: T) -> T:
    return torch.narrow(input=x, dim=0, start=0, length=1) + torch.chunk(input=x, chunks=3, dim=1)[0]


@case(*SIGNS)
def tensor_of_tensors(x: T) -> tuple[T, ...]:
    angle = x.sum()
    c, s = angle.cos(), angle.sin()
    turned = x @ torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return (
        turned,
        torch.tensor([1, angle.half()]),
        torch.tensor([angle.long(), 1.5]),
        torch.tensor([angle > 0]),
    )


@case(*SIGNS)
def tensor_of_tensors_beside_a_branch(x: T) -> T:
    angle = x.sum()
    if angle > 0:
        return torch.as_tensor([[angle, 1], [x.shape[0], 2.5]], dtype=torch.float64)
    return torch.tensor([[1.0, 2.0], [angle, angle]], dtype=torch.float64)


@case(*SIGNS)
def as_tensor_of_a_tensor_is_the_tensor(x: T) -> tuple[T, ...]:
    x = x.clone()
    same = torch.as_tensor(x, dtype=torch.float32)
    other = torch.as_tensor(x, dtype=torch.float64)
    if x.sum() > 0:
        same += 1
        other += 2
    return (x * 2 if torch.as_tensor(x) is x else x), other


class Losses(torch.nn.Module):
    """Its method is called as loggers' are."""

    def error(self, v: T | None, scale: float = 1.0) -> T:
        return torch.zeros(3) if v is None else v * scale

    def forward(self, x: T) -> T:
        found = x.sum(0) if x.sum() > 0 else None
        LOG.debug("%s %s", x.sum().item(), found)
        return self.error(found, scale=2.0) + self.error(x[0] if x[0].sum() > 0 else x[-1])


case(*SIGNS)(Losses)


def warn(v: T | None) -> float | T:
    return 1.0 if v is None else v.abs().sum()


@case(*SIGNS)
def function_of_the_models_own_that_is_called_warn(x: T) -> T:
    return x * warn(x[0] if x.sum() > 0 else None)


@case(*ROWS)
def numbers_by_name(x: T) -> tuple[T, ...]:
    y = x * round(number=x.sum().item()) + pow(base=2, exp=3, mod=5) + pow(2, exp=x.shape[0])
    return y, x * round(number=2.345, ndigits=1) if x.sum() > 0 else x


@case(*SIGNS)
def lists_by_name(x: T) -> tuple[T, ...]:
    sums = [x[0].sum(), x[-1].sum()]
    rows = [row for row in x if row.sum() > -1e9]
    padded = torch.nn.utils.rnn.pad_sequence(sequences=rows, batch_first=True)
    most = heapq.nlargest(n=1, iterable=sums)[0]
    return padded, most, torch.stack(tensors=rows, dim=1), torch.cat(tensors=rows)


@case(*ROWS)
def pairs_by_name(x: T) -> T:
    total = x.sum(0)
    for a, b in itertools.product(x, repeat=2):
        total = total + a * b
    for a, b in itertools.combinations(iterable=x, r=2):
        total = total + a * b * 2
    for i, a in enumerate(iterable=x, start=2):
        total = total + a * i
    return total


@case(*SIGNS)
def operators_of_what_may_be_none(x: T) -> T:
    is_positive = bool(x.sum() > 0)
    mask = x > 0.5 if is_positive else None
    parts = (x, x + 1) if is_positive else None
    if is_positive:
        a, b = parts
        x = (a + b) * (~mask).float() + (mask & (x < 1)) + (mask ^ (x > 1)) + (mask | mask)
        for part in parts:
            x = x + part
    return x


@case(*ROWS)
def longer_by_rows(x: T) -> T:
    out = [x[0]]
    out.extend(x)
    out += x * 2
    return torch.stack(out)


@case.parametrize()
def test_calls(case: Case) -> None:
    """As eager, for all inputs."""
    check(case)
