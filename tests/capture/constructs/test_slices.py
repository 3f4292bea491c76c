"""Slices of lists at places that data or a size decides: of Python's lists, and of those that loops fill."""

# The constructs are written as people write them.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, check, negative, positive, random

case = Cases()
ROWS = [
    random(5, 3),
    positive(5, 3),
    negative(5, 3),
    random(6, 3, seed=1),
    positive(9, 3),
    random(7, 3, seed=9),
]


def count(x: T) -> Any:
    return (x[:, 0] > 0).sum().item()


def folded(rows: Any, start: T) -> T:
    for r in rows:
        start = start * 2 + r
    return start


def of_four(cut: Callable[[list[T], Any], Any], name: str) -> None:
    def sliced(x: T) -> T:
        rows = [x[0], x[1] * 2, x[2] * 3, x[3] * 4]
        return folded(cut(rows, count(x)), x[0] * 0)

    sliced.__name__ = name
    case(*ROWS)(sliced)


def of_some(cut: Callable[[list[T], Any], Any], name: str) -> None:
    def sliced(x: T) -> T:
        rows: list[T] = []
        for r in x:
            if r[0] > 0:
                rows.append(r)
        return folded(cut(rows, count(x)), x[0] * 0)

    sliced.__name__ = name
    case(*ROWS)(sliced)


for _register, _of in ((of_four, "known"), (of_some, "grown")):
    _register(lambda h, n: h[:n], f"{_of}_first")
    _register(lambda h, n: h[n:], f"{_of}_last")
    _register(lambda h, n: h[-n:], f"{_of}_from_the_end")
    _register(lambda h, n: h[: n - 3], f"{_of}_to_either_end")
    _register(lambda h, n: h[n - 2 : n + 1], f"{_of}_between")
    _register(lambda h, n: h[n - 1 :: 2], f"{_of}_every_second")
    _register(lambda h, n: h[n - 2 :: -1], f"{_of}_backwards")
    _register(lambda h, n: h[: n - 3 : -1], f"{_of}_backwards_to")
    _register(lambda h, n: h[n:0:-2], f"{_of}_every_second_backwards")
    _register(lambda h, n: list(reversed(h))[:n], f"{_of}_of_reversed")
    _register(lambda h, n: reversed(h[:n]), f"{_of}_reversed")
    _register(lambda h, n: [v * 2 for v in h[1:n]], f"{_of}_comprehension")


@case(*ROWS)
def tensors_of_any_shapes(x: T) -> T:
    parts = [x[0], x[1:3], x[:, :2], x]
    y = x.sum() * 0
    for p in parts[1 : count(x)]:
        if p.sum() > 4:
            break
        y = y * 2 + p.sum()
    return y + len(parts[: count(x)]) + sum([p.sum() for p in parts[: count(x)]])


@case(*ROWS)
def words(x: T) -> T:
    y = x[0] * 0
    for word in ["add", "add", "double", "add"][: count(x)]:
        y = y * 2 if word == "double" else y + x[1]
    return y


@case(*ROWS)
def pairs_and_numbers(x: T) -> T:
    y = x[0] * 0
    for row, by in ((x[0], 1.0), (x[1], 2.0), (x[2], 3.0))[: count(x)]:
        y = y + row * by
    for by in [1, 2, 5, 7][: x.shape[0] - 4]:
        y = y + x[1] * by
    return y


@case(*ROWS)
def joined_and_grown(x: T) -> T:
    rows = [x[0], x[1] * 2, x[2] * 3][: count(x)]
    rows.append(x[3])
    return torch.stack(rows).sum(0) + len(rows)


class _Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(4)])


@case(*ROWS)
class LayersByData(_Layers):
    def forward(self, x: T) -> T:
        for layer in self.layers[: count(x)]:
            x = layer(x).tanh()
        return x


@case(*ROWS)
class LayersBySize(_Layers):
    def forward(self, x: T) -> T:
        for layer in self.layers[: x.shape[0] - 4]:
            x = layer(x).tanh()
        return x


@case(*ROWS)
class LastLayersBySize(_Layers):
    """The first one that is there for every size finds rows of the input, or of those before it."""

    def forward(self, x: T) -> T:
        for layer in self.layers[x.shape[0] % 3 :]:
            x = layer(x).tanh()
        return x


class Some(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))


@case(*ROWS)
class FirstOfASequential(Some):
    def forward(self, x: T) -> T:
        return self.blocks[: int((x[0] > 0).sum())](x)


@case(*ROWS)
class LastOfASequential(Some):
    def forward(self, x: T) -> T:
        n = int((x[0] > 0).sum())
        for block in self.blocks[n:-1]:
            x = block(x)
        return self.blocks[n:](x) * len(self.blocks[n:])


#: As many rows and a size, or a number, of parts; torch refuses the last ones, two where there are rows.
CUT = [
    (random(n, 3, seed=n), torch.tensor(k))
    for n, k in ((7, 2), (7, 1), (7, 3), (7, 7), (7, 9), (1, 2), (6, 2), (6, 5), (6, 0), (6, -1))
]


@case(*CUT)
def parts_of_a_size(x: T, k: T) -> Any:
    parts = x.split(k)
    out = []
    for part in torch.split(x, int(k)):
        out.append(part.sum(0))
    return torch.stack(out), parts[0], torch.cat(parts[::-1]), len(x.T.split(k.item(), dim=1))


@case(*CUT, (random(0, 3), torch.tensor(2)))
def as_many_parts(x: T, k: T) -> Any:
    parts = x.chunk(k)
    return torch.cat(parts[::-1]), len(parts), torch.stack([p.sum(0) for p in x.T.chunk(int(k), -1)], 1)


#: As many rows and a size, or a number, of parts: two first, then others, which Python refuses.
HALVED = [
    (random(n, 3, seed=n), torch.tensor(k))
    for n, k in ((7, 4), (7, 6), (5, 3), (2, 1), (7, 3), (7, 7), (1, 1), (6, 0))
]


@case(*HALVED)
def parts_for_two_variables(x: T, k: T) -> tuple[T, T]:
    a, b = x.split(int(k))
    return a.sum(0) - b.sum(0), b


@case(*[(random(n, 2, seed=n), torch.tensor(k)) for n, k in ((7, 3), (9, 3), (6, 4), (3, 3), (7, 2), (2, 3))])
def chunks_for_variables(x: T, k: T) -> tuple[T, T]:
    a, (b, c) = x.chunk(k)[0], x.chunk(k)[1:]
    first, second, third = x.T.chunk(int(k), dim=1)
    return torch.cat([c, b, a]), torch.cat([third, second, first], 1)


def signs(*numbers: float) -> T:
    return torch.tensor([[n, n + 1.0, 2.0] for n in numbers])


@case(signs(1, -2, -3, 4), signs(-1, 2, 3), signs(1, 1, 1), signs(-1, 5), signs(-1, -1))
def rows_for_two_variables(x: T) -> tuple[T, T, T]:
    first, second = x[x[:, 0] > 0]
    kept = []
    for row in x:
        if row[0] > 0:
            kept.append(row * 2)
    third, fourth = kept
    fifth, sixth = x[x[:, 0] > 0].unbind(0)
    return first - second, third + fourth, fifth * sixth


@case(random(4, 6), random(2, 4), random(6, 2), random(3, 3), random(2, 5))
def parts_as_sizes_say(x: T) -> Any:
    n = x.shape[1] // 2
    return torch.cat([p * 2 for p in x.split(n, 1)], 1), torch.stack([p.sum() for p in x.chunk(n, 1)])


@case(*CUT)
def second_part_of_a_size(x: T, k: T) -> T:
    return x.split(int(k))[1].sum(0)


@case(*CUT)
def part_from_the_end(x: T, k: T) -> T:
    return x.chunk(k)[-2].sum(0)


@case(*CUT)
def part_at_a_place_of_data(x: T, k: T) -> T:
    return x.split(2)[k].sum(0)


@case(random(6, 3), random(5, 3), random(4, 3), random(1, 3), random(9, 3))
def third_part(x: T) -> Any:
    parts = x.split(2)
    return parts[2].sum(0), parts[0] * 2, parts[-1] + 1


@case(random(4, 6), random(2, 4), random(3, 3), random(2, 2), random(2, 5))
def part_as_sizes_say(x: T) -> T:
    return x.chunk(x.shape[1] // 2, 1)[1].sum()


@case(random(6, 3), random(5, 3), random(4, 3), random(1, 3), random(9, 3))
def where_it_is_there(x: T) -> T:
    parts = x.split(2)
    return parts[3] * 2 if len(parts) > 3 else parts[-3] if len(parts) == 3 else parts[0] + 1


@case.parametrize()
def test_slices(case: Case) -> None:
    check(case)


class Residual(nn.Sequential):
    """A slice of it has this forward too."""

    def forward(self, input: T) -> T:
        return input + super().forward(input)


class Doubled(nn.Sequential):
    """A slice of it is made by this."""

    def __init__(self, *layers: Any) -> None:
        super().__init__(*layers)
        self.append(nn.Tanh())


class Backwards(nn.Sequential):
    """Its layers are called in this order."""

    def __iter__(self) -> Any:
        return reversed(self._modules.values())


class Plain(nn.Sequential):
    """Nothing of its own."""


class Sliced(nn.Module):
    """Calls as many blocks as data says."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.blocks = kind(nn.Linear(3, 3), nn.Linear(3, 3))

    def forward(self, x: T) -> T:
        return self.blocks[: int((x > 0).sum())](x)


@pytest.mark.parametrize("kind", [Residual, Doubled, Backwards])
def test_a_sequential_with_methods_of_its_own_is_not_its_layers(kind: Any) -> None:
    """torch makes a slice of the same class."""
    with pytest.raises(DataDependentError, match=f"slice of a {kind.__name__}, a Sequential with methods"):
        capture(Sliced(kind), (random(2, 3),))


def test_a_sequential_of_another_name_is_its_layers() -> None:
    check(
        Case("plain", lambda: Sliced(Plain), [(v,) for v in (random(2, 3), negative(2, 3), positive(1, 3))])
    )


def parts_for_a_starred_variable(x: T, k: T) -> T:
    first, *others = x.split(int(k))
    return torch.cat([*others, first])


def parts_unless_there_are_others(x: T, k: T) -> T:
    try:
        first, second = x.split(int(k))
    except ValueError:
        return x
    return torch.cat([second, first])


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (parts_for_a_starred_variable, r"a starred variable takes some.* `first, rest = items\[0\]"),
        (parts_unless_there_are_others, "inside a `try` that may catch"),
    ],
)
def test_what_cannot_be_taken_apart_says_so(function: Callable[[T, T], T], said: str) -> None:
    """With what to write instead."""
    with pytest.raises(DataDependentError, match=said):
        capture(function, HALVED[0])
