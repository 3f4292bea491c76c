"""Tensors without dimensions as positions: `y[j]` read and written, where only the run knows `j`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import nn

import ingot
from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, check, negative, positive, random

case = Cases()


def at(*places: int) -> T:
    return torch.tensor(places[0] if len(places) == 1 else places)


# The last ones lie outside: eager PyTorch raises, and so must the model.
VECTORS = [(random(n, seed=n), at(j)) for n, j in ((6, 2), (9, 4), (1, 0), (5, -1), (5, -5), (5, 5), (5, -6))]
TABLES = [
    (random(n, m, seed=n), at(j))
    for n, m, j in ((6, 4, 2), (3, 9, 1), (1, 1, 0), (5, 5, -1), (5, 6, -4), (3, 3, 3), (3, 3, -4))
]
PAIRS = [
    (random(n, m, seed=n), at(i), at(j))
    for n, m, i, j in ((6, 4, 2, 3), (3, 9, -1, 7), (1, 1, 0, -1), (3, 3, 3, 0), (3, 3, 0, -4))
]
ANY = [random(n, seed=n) for n in (6, 9, 1)]


@case(*VECTORS)
def number_is_put(x: T, j: T) -> T:
    y = x.clone()
    y[j] = 0.0
    return y


@case(*VECTORS)
def element_is_put(x: T, j: T) -> T:
    y = x.clone()
    y[j] = x[0]
    return y


@case(*VECTORS)
def added_to(x: T, j: T) -> T:
    y = x.clone()
    y[j] += 1
    y[j].add_(2)
    return y


@case(*[(x.gt(0), j) for x, j in VECTORS])
def bools(x: T, j: T) -> T:
    y = x.clone()
    y[j] = True
    return y


@case(*[((x * 9).int(), j.int()) for x, j in VECTORS])
def ints(x: T, j: T) -> T:
    y = x.clone()
    y[j] = 3
    y[j] *= 2
    return y


@case(*[(x, j.to(torch.int16)) for x, j in VECTORS])
def short_places(x: T, j: T) -> tuple[T, T]:
    y = x.clone()
    y[j] = 3
    return y, x[j]


@case(*VECTORS)
def place_from_a_number(x: T, j: T) -> T:
    y = x.clone()
    y[torch.tensor(j.item())] = j.item()
    return y


@case(*VECTORS)
def place_as_a_number(x: T, j: T) -> T:
    y = x.clone()
    y.select(0, j).fill_(4)
    y[j.item()] += 1
    return y


@case(*ANY)
def at_the_largest(x: T) -> T:
    y = x.clone()
    y[x.argmax()] = 0.0
    return y


@case(*TABLES)
def row(x: T, j: T) -> T:
    y = x.clone()
    y[j] = 2
    y[j, 0] = x[0, 0]
    return y


@case(*TABLES)
def column(x: T, j: T) -> T:
    y = x.clone()
    y[:, j] = 0
    y[..., j] += x[:, 0]
    return y


#: More columns than two, of whose numbers the sum is of either sign.
SIGNED = [positive(4, 3), negative(2, 3), positive(6, 2), negative(1, 5), positive(3, 6)]


@case(*SIGNED)
def columns_by_truths(x: T) -> T:
    some = bool(x.sum() > 0)
    return x[:, [True, some] + [False] * (x.shape[1] - 2)]


def first_two() -> list[bool]:
    return [True, False]


@case(*SIGNED)
def columns_by_truths_behind_a_known_list(x: T) -> tuple[T, int]:
    keep = first_two() + [bool(x.sum() > 0)] * (x.shape[1] - 2)
    return x[:, keep], len(keep)


@case(*SIGNED)
def known_list_made_longer(x: T) -> tuple[T, int]:
    keep = whole = first_two()
    keep += [True] * int((x[0] > 0).sum())
    return torch.tensor(whole), len(keep)


@case(*SIGNED)
def known_list_extended(x: T) -> tuple[T, int]:
    keep = whole = first_two()
    keep.extend([bool(x[0, 0] > 0)] * int((x[0] > 0).sum()))
    return torch.tensor(whole), len(keep)


@case(*TABLES)
def two_rows_swapped(x: T, j: T) -> T:
    y, p = x.clone(), int(j)
    y[[0, p]] = y[[p, 0]]
    return y


@case(*PAIRS)
def a_list_of_tensors_is_a_tuple(x: T, i: T, j: T) -> tuple[T, ...]:
    y, p = x.clone(), int(i)
    y[[i, j]] = y[[i, 0]] * 2  # type: ignore[index]  # one element, as torch has it
    y[[[0, p], [0, 0]]] += 1  # type: ignore[index]
    y[:, [j, j]] = y[:, [0, j]] + y[torch.stack([i, i])].sum()
    return y, y[[i, None, 0]]  # type: ignore[index]


@case(random(5, 3), random(1, 3), random(4, 2), random(9, 3))
def rows_of_a_pivot(x: T) -> T:
    y, n = x.clone(), x.shape[0]
    for k in range(n):
        p = k + int(y[k:, 0].argmax())
        y[[k, p]] = y[[p, k]]
    y[[0, n - 1]] = y[[n - 1, 0]]
    return y


@case(*PAIRS)
def element_of_a_table(x: T, i: T, j: T) -> T:
    y = x.clone()
    y[i, j] = 7.0
    y[i][j] += 1
    y[None, i, ..., None, j] = y[i, j] * 2
    return y


@case(*PAIRS)
def beside_other_parts(x: T, i: T, j: T) -> tuple[T, ...]:
    y = torch.stack((x, x + 1, x + 2), 1)
    y[i, 1:] = 5
    y[i, [0, 1], j] = 3
    y[[0, 0], :, j] = y[[0, 0], :, j] + 1
    y[:, torch.tensor([True, False, True]), j] = 4
    y[i, :, 0] = x[None, None, i, :1]
    return y, y[i, [0, 1], j], y[[0, 0], 1:, j], y[i, None, :, j]


@case(*VECTORS)
def the_view_and_its_base(x: T, j: T) -> tuple[T, T]:
    y, k = x.clone(), j.clone()
    part = y[k]
    k += 1
    y *= 2
    part -= 1
    return y, part


@case(*PAIRS)
def views_of_views(x: T, i: T, j: T) -> T:
    y = x.clone()
    y.t()[j][i] = 1
    y.view(-1)[i] += 2
    return y


@case(*PAIRS[:2])
def reshapes_of_views(x: T, i: T, j: T) -> T:
    y = torch.stack((x, x + 1, x + 2), 1)
    y[i].reshape(-1).add_(1)  # a view
    y[:, 0 * j + 1].clone().reshape(-1).add_(1)  # a copy
    return y


@case(*[(random(n, 4, seed=n), at(j)) for n, j in ((5, 2), (1, -1), (8, 0), (3, 4))])
def rows_of_a_loop(x: T, j: T) -> T:
    y = x.clone()
    for row in y:
        if row[j] > 0:
            row[j] = 0
            row[-1] += 1
    return y


@case(*TABLES)
def in_a_branch(x: T, j: T) -> T:
    y = x.clone()
    if x[0, 0] > 0:
        y[j] = 1
    else:
        y[:, j] = 2
    return y


@case(*[torch.randperm(n, generator=torch.Generator().manual_seed(n)) for n in (4, 7, 1, 0)])
def ranks_in_a_loop(order: T) -> T:
    y = torch.zeros_like(order)
    for r, o in enumerate(order):
        y[o] = r
    return y


@case(*[(random(n, 4, seed=n), random(4), at(j)) for n, j in ((6, 2), (9, -1), (3, 3))])
def into_an_argument(cache: T, k: T, pos: T) -> T:
    cache[pos] = k
    return cache * 1


@case(*VECTORS)
def complex_numbers(x: T, j: T) -> tuple[T, T]:
    y = torch.complex(x, x + 1)
    y[j] = 2
    y[j] += 1j
    return y.real, y.imag


def overlap(a: T, b: T) -> T:
    low, high = torch.maximum(a[:1], b[:1]), torch.minimum(a[1:], b[1:])
    both = (high - low).clamp(min=0).sum()
    return both / ((a[1:] - a[:1]).sum() + (b[1:] - b[:1]).sum() - both)


@case(*[(random(n, 2, seed=n).abs().cumsum(1), random(n, seed=n + 1), torch.tensor(0.3)) for n in (5, 8, 1)])
def suppression(boxes: T, scores: T, most: T) -> tuple[T, T]:
    suppressed = torch.zeros(boxes.shape[0], dtype=torch.bool)
    keep = []
    for i in scores.argsort(descending=True):
        if suppressed[i]:
            continue
        keep.append(i.item())
        for j in range(boxes.shape[0]):
            if overlap(boxes[i], boxes[j]) > most:
                suppressed[j] = True
        suppressed[i] = True
    return torch.tensor(keep), suppressed


NUMBERED = [(random(2, 4), torch.tensor(n)) for n in (1, 0, 2, 3, -1)]  # eager PyTorch raises on the last two


@case(*NUMBERED)
class NamedByData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleDict({f"expert_{i}": nn.Linear(4, 4) for i in range(3)})
        self.experts["expert_01"] = nn.Linear(4, 4)  # no number's name
        self.head_0, self.head_1 = nn.Linear(4, 4), nn.Linear(4, 4)
        self.scales = {str(i): 1.5 * i for i in range(3)}

    def forward(self, x: T, at: T) -> T:
        n = int(at)
        y = self.experts[f"expert_{at}"](x) * self.scales[str(n)]
        return y + getattr(self, f"head_{n // 2}")(x)


@case(random(5, 3), positive(5, 3), negative(5, 3), random(7, 3))
def written_through_get(x: T) -> T:
    rows = {0: x[0] * 1, 1: x[0] * 2, 2: x[0] * 3}
    found = rows.get(int((x[:, 0] > 0).sum()) % 3)
    found += 1
    named = {"over": x[0] * 1, "under": x[0] * 2}
    other = named.get("over" if x.sum() > 0 else "under")
    other += 1
    return torch.stack([*rows.values(), *named.values()])


@case(random(5, 3), positive(5, 3), negative(5, 3), random(7, 3))
def added_under_a_key(x: T) -> T:
    first = x[0] * 0
    rows = {0: first, 1: x[0] * 0 + 1}
    rows[int(x.sum() > 0)] += x[1]
    named = {"over": first * 1, "under": first + 2}
    named["over" if x.sum() > 0 else "under"] += x[1]
    return torch.stack([*rows.values(), first, *named.values()])


@case((random(3, 4), torch.tensor(2)), (random(5, 4), torch.tensor(-1)))
def truth_takes_all_or_nothing(x: T, k: T) -> list[T]:
    return [x[k > 0], x[:, k > 0], x[x.sum() > 0], x[None, k > 0], x[..., k > 0]]


@case((random(3, 4), torch.tensor(2)), (random(5, 4), torch.tensor(-1)))
def truth_puts_all_or_nothing(x: T, k: T) -> T:
    y = x.clone()
    y[k > 0] += 1
    y[1:, k < 0] = 3
    y[x.sum() > 0] = y * 2
    return y


@case.parametrize()
def test_places(case: Case) -> None:
    check(case)


class Held(nn.Module):
    cache: T
    pos: T

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(4, 3))
        self.register_buffer("pos", torch.tensor(0))

    def forward(self, k: T) -> T:
        self.cache[self.pos] = k
        self.pos += 1
        return self.cache * 2


def test_buffer_written_at_a_buffer() -> None:
    """State that is passed in and out: the place moves with every call, and fails behind the end."""
    program = ingot.export(Held(), (torch.ones(3),), state="inputs")
    eager = Held()
    for n in range(4):
        k = random(3, seed=n)
        assert torch.equal(torch.as_tensor(program(k)), eager(k)), f"call {n} differs"
    with pytest.raises(Exception, match=r"(?i)indic|index|range|bound"):
        program(torch.ones(3))


def library_s_list_made_longer(x: T) -> T:
    keep = json.loads("[true, false]")
    keep += [True] * int((x[0] > 0).sum())
    return torch.tensor(keep)


def library_s_list_extended(x: T) -> T:
    keep = json.loads("[true, false]")
    keep.extend([True] * int((x[0] > 0).sum()))
    return torch.tensor(keep)


@pytest.mark.parametrize("function", [library_s_list_made_longer, library_s_list_extended])
def test_lists_of_a_library_s_are_not_made_longer(function: Callable[[T], T]) -> None:
    """It may have them elsewhere, and would see it."""
    with pytest.raises(DataDependentError, match=r"not the model's own has made it\. .* `items = \[\*items"):
        capture(function, (positive(4, 3),))
