"""Objects of the model's own classes that say themselves how long they are and whether they are true."""

from __future__ import annotations

import torch

from tests.capture.constructs.support import Case, Cases, T, both_signs, check, lengths

case = Cases()


class Rows:
    """A list of tensors that is as long as they are together."""

    def __init__(self, *parts: T) -> None:
        self.parts = list(parts)

    def add(self, part: T) -> T:
        self.parts.append(part)
        return torch.cat(self.parts)

    @property
    def length(self) -> int:
        return sum(p.shape[0] for p in self.parts)

    def __len__(self) -> int:
        return self.length


class Positive:
    """True as data says."""

    def __init__(self, x: T) -> None:
        self.x = x

    def __bool__(self) -> bool:
        return bool((self.x > 0).all())


@case(*lengths())
def length_of_an_object(x: T) -> T:
    rows = Rows(x)
    place = len(rows)
    return rows.add(x * 2) + torch.arange(place, place + 2 * x.shape[0])[:, None]


@case(*lengths())
def object_true_as_long_as_it_is(x: T) -> T:
    rows = Rows(x[4:])
    if rows:
        return x * 2
    return x - 1 if not Rows(x[2:]) else x


@case(*both_signs())
def object_true_as_data_says(x: T) -> T:
    positive = Positive(x)
    if positive:
        x = x * 2
    if x.shape[0] > 1 and not positive:
        x = x - 1
    return x + bool(positive)


@case(*both_signs())
def loop_while_an_object_is_true(x: T) -> T:
    steps = 0
    while Positive(x):
        x = x - 1
        steps += 1
    return x * steps


@case.parametrize()
def test_objects(case: Case) -> None:
    """The model is the same function."""
    check(case)
