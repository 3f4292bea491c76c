"""Functions and iterators of C's that compare numbers of data, ask whether they are true or look them up: no
instruction of the model's own asks anything there. Each is right for all inputs, or refused.
"""

# The constructs are written as people write them.
# ruff: noqa: B905, C420, RUF007, RUF058, UP031
# pyright: basic, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import bisect
import collections
import dataclasses
import functools
import heapq
import itertools
import math
import operator
import queue
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ingot
from ingot.errors import ExportError, IngotError
from tests.capture.constructs.support import Case, T, check, lengths

Numbers = list[Any]
INPUTS = [
    torch.tensor(v) for v in ([1.0, 2, 2], [1.0, 1, 2], [2.0, 1, 0], [0.0, 0, 0], [-1.0, 3, 3], [5.0, 4, 3])
]
ASKED: list[Callable[[Numbers], Any]] = []


def asks(function: Callable[[Numbers], Any]) -> Callable[[Numbers], Any]:
    """Register something that is done with three numbers."""
    ASKED.append(function)
    return function


@dataclasses.dataclass(order=True)
class Weighed:
    weight: Any


class Own:
    """Says itself what it is equal to, smaller than, and whether it is true."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __bool__(self) -> bool:
        return self.value > 1

    def __eq__(self, other: Any) -> bool:
        return self.value == other.value

    def __lt__(self, other: Any) -> bool:
        return self.value < other.value

    def __hash__(self) -> int:
        return 1

    def is_above(self, value: Any) -> bool:
        return self.value >= value


# -- iterators


@asks
def groups(a: Numbers) -> Any:
    return sum(1 for _ in itertools.groupby(a))


@asks
def keys_of_groups(a: Numbers) -> Any:
    return sum(k for k, _ in itertools.groupby(a))


@asks
def groups_by_a_key(a: Numbers) -> Any:
    return sum(1 for _ in itertools.groupby(a, lambda v: v > 1))


@asks
def lengths_of_groups(a: Numbers) -> Any:
    total = 0
    for _, group in itertools.groupby(a):
        total += 10 * len(list(group)) ** 2
    return total


@asks
def largest_group(a: Numbers) -> Any:
    return max(len(list(group)) for _, group in itertools.groupby(a))


@asks
def numbered_groups(a: Numbers) -> Any:
    return sum(i for i, _ in enumerate(itertools.groupby(a))) + sum(
        i for i, _ in zip([1, 2, 3], itertools.groupby(a))
    )


@asks
def groups_of_objects(a: Numbers) -> Any:
    return sum(1 for _ in itertools.groupby([Own(v) for v in a]))


@asks
def true_ones(a: Numbers) -> Any:
    return sum(1 for _ in filter(None, a)) + 10 * sum(1 for _ in filter(None, iter(a)))


@asks
def true_objects(a: Numbers) -> Any:
    return sum(1 for _ in filter(None, [Own(v) for v in a]))


@asks
def those_that_do_not_fit(a: Numbers) -> Any:
    return sum(v for v in itertools.filterfalse(lambda v: v > 1, a))


@asks
def first_ones(a: Numbers) -> Any:
    return sum(1 for _ in itertools.takewhile(lambda v: v > 0, a))


@asks
def first_ones_by_a_method(a: Numbers) -> Any:
    return sum(1 for _ in itertools.takewhile(Own(1.0).is_above, a))


@asks
def last_ones(a: Numbers) -> Any:
    return sum(1 for _ in itertools.dropwhile(lambda v: v > 1, a))


@asks
def selected(a: Numbers) -> Any:
    return sum(v for v in itertools.compress([1, 2, 4], (v > 1 for v in a)))


@asks
def running_extremes(a: Numbers) -> Any:
    return sum(2 * v for v in itertools.accumulate(a, max)) + sum(v for v in itertools.accumulate(a, min))


@asks
def larger_neighbours(a: Numbers) -> Any:
    return sum(2 * v for v in itertools.starmap(max, zip(a, a[1:]))) + sum(v for v in map(min, a, a[1:]))


@asks
def until_a_number(a: Numbers) -> Any:
    waiting = [1.0, 7.0, 1.0, 0.0, 5.0, *a]
    return sum(1 for _ in iter(waiting.pop, 1.0))


@asks
def any_of_an_iterator(a: Numbers) -> Any:
    return 2 if any(itertools.starmap(operator.gt, zip(a, a[1:]))) else 3


@asks
def all_of_a_map(a: Numbers) -> Any:
    return 2 if all(map({0.0, 1.0}.__contains__, a)) else 3


# -- functions and methods


@asks
def counted(a: Numbers) -> Any:
    return a.count(1.0) + 10 * operator.countOf(a, 2.0) + 100 * tuple(a).count(3.0)


@asks
def found(a: Numbers) -> Any:
    return a.index(a[-1]) + operator.indexOf(a, a[-1])


@asks
def taken_out(a: Numbers) -> Any:
    a.remove(a[-1])
    return a[0] + 2 * a[1]


@asks
def within_an_iterator(a: Numbers) -> Any:
    return 2 if 1.0 in map(abs, a) else 3


@asks
def within_items(a: Numbers) -> Any:
    return 2 if (0, 1.0) in dict(enumerate(a)).items() else 3


@asks
def compared_by_a_function(a: Numbers) -> Any:
    return sorted(a, key=functools.cmp_to_key(lambda p, q: p - q))[0]


@asks
def sorted_objects(a: Numbers) -> Any:
    return sorted([Own(v) for v in a])[0].value


@asks
def sorted_dataclasses(a: Numbers) -> Any:
    return sorted([Weighed(a[0]), Weighed(a[1])])[0].weight


@asks
def largest_pair(a: Numbers) -> Any:
    return max(zip(a, [5, 6, 7]))[1]


@asks
def largest_key(a: Numbers) -> Any:
    weights = dict(enumerate(a))
    return max(weights, key=weights.get)


@asks
def compared_lists(a: Numbers) -> Any:
    return (2 if operator.eq(a[:2], a[1:]) else 3) + (20 if operator.lt((a[0], 1), (a[1], 0)) else 30)


@asks
def reduced(a: Numbers) -> Any:
    return functools.reduce(max, a) + functools.reduce(lambda p, q: p and q, a)


@asks
def in_place(a: Numbers) -> Any:
    return bisect.bisect([0.0, 1.0, 2.0], a[0])


@asks
def on_a_heap(a: Numbers) -> Any:
    heapq.heapify(a)
    return a[0]


@asks
def merged(a: Numbers) -> Any:
    return sum(i * v for i, v in enumerate(heapq.merge([a[0]], [a[1]])))


@asks
def medians(a: Numbers) -> Any:
    return statistics.median(a) + statistics.mode(a)


@asks
def close(a: Numbers) -> Any:
    return 2 if math.isclose(a[0], a[1]) else 3


@asks
def chosen_by_an_array(a: Numbers) -> Any:
    return float(np.where(a[0] > 1, 2.0, 3.0))


# -- keys and strings


@asks
def different_ones(a: Numbers) -> Any:
    return len(set(a)) + len({v: 1 for v in a}) + len(dict.fromkeys(a))


@asks
def different_objects(a: Numbers) -> Any:
    return len({Own(v) for v in a})


@asks
def counts(a: Numbers) -> Any:
    return len(collections.Counter(a))


@asks
def common_ones(a: Numbers) -> Any:
    return (2 if {0.0}.isdisjoint(a) else 3) + len({0.0, 1.0}.intersection(a))


@asks
def looked_up(a: Numbers) -> Any:
    return collections.ChainMap({0.0: 1, 1.0: 2}, {2.0: 3, 5.0: 3, -1.0: 8}).get(a[0], 9)


@asks
def as_text(a: Numbers) -> Any:
    return 2 if str(a[0]) == "1.0" else 3


@asks
def begin_of_a_text(a: Numbers) -> Any:
    return 2 if f"{a[0]}".startswith("1") else 3


@asks
def joined_texts(a: Numbers) -> Any:
    return len(",".join(map(str, a))) + len("%s" % a[0]) + len(repr(a))


@pytest.mark.parametrize("asked", ASKED, ids=lambda f: f.__name__)
def test_right_or_refused(asked: Callable[[Numbers], Any]) -> None:
    """Never the answer that the example gives; a refusal names the line."""

    def model(x: T) -> T:
        return x.sum() * 0 + asked([x[0].item(), x[1].item(), x[2].item()])

    try:
        check(Case(asked.__name__, lambda: model, [(x,) for x in INPUTS]))
    except IngotError as error:
        assert "test_asked_by_c.py:" in str(error), error


OF_SIZES: list[Callable[[T], Any]] = [
    lambda x: sum(1 for _ in itertools.groupby([x.shape[0], 3, x.shape[1]])),
    lambda x: sum(2 * n for n in itertools.accumulate([x.shape[0], 3, 4], max)),
    lambda x: sum(1 for _ in itertools.takewhile(lambda n: n > 2, x.shape)),
    lambda x: sum(i for i, _ in enumerate(itertools.dropwhile(lambda n: n == 3, [x.shape[0], 3, 4]))),
]


@pytest.mark.parametrize("number", range(len(OF_SIZES)))
def test_sizes(number: int) -> None:
    """The same of sizes: those that go another way than the example's are excluded, as an assumption says."""
    asked = OF_SIZES[number]

    def model(x: T) -> T:
        return x * asked(x)

    try:
        check(Case(str(number), lambda: model, [(x,) for x in lengths()]), narrowed=True, refuses=True)
    except IngotError as error:
        assert "test_asked_by_c.py:" in str(error), error


class Waiting(nn.Module):
    """Keeps what comes in a queue."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.waiting = kind()

    def forward(self, x: T) -> T:
        self.waiting.put(1)
        return x * self.waiting.qsize()


@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue])
def test_what_waits_in_a_queue_is_state(kind: Any) -> None:
    """It outlives the call, and no input can take it; the module has what it had before."""
    module = Waiting(kind)
    module.waiting.put(5)
    with pytest.raises(ExportError, match="state that outlives the call"):
        ingot.export(module, (torch.ones(2),), verify=False)
    assert module.waiting.qsize() == 1
    assert module.waiting.get() == 5
