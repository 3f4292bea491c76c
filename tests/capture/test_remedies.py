"""What a refusal says where a line calls Python's library: what to write in its place."""

# Functions take numbers that only the run knows for Python's own.
# pyright: basic

from __future__ import annotations

import bisect
import heapq
import itertools
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch

import ingot

T = torch.Tensor
X = torch.randn(3, 4)


def on_a_heap(x: T) -> Any:
    kept = [x[0].sum().item(), x[1].sum().item()]
    heapq.heapify(kept)
    return x * kept[0]


def pushed(x: T) -> Any:
    kept: list[float] = []
    for v in x[0].tolist():
        heapq.heappush(kept, v)
    return x * kept[0]


def found_among(x: T) -> T:
    return x * bisect.bisect_left([0.0, 1.0], x.sum().item())


def put_among(x: T) -> T:
    edges = [0.0, 1.0]
    bisect.insort(edges, x.sum().item())
    return x * edges[0]


def in_groups(x: T) -> T:
    out = []
    for _, group in itertools.groupby(x[0].tolist(), lambda v: v > 0):
        out.append(sum(group))
    return torch.tensor(out)


def leading(x: T) -> T:
    return torch.tensor(list(itertools.takewhile(lambda v: v > 0, x[0].tolist())))


def leading_of_few(x: T) -> T:
    numbers = [x[0].sum().item(), x[1].sum().item()]
    return x * sum(itertools.takewhile(lambda v: v > 0, numbers))


def first_ones(x: T) -> T:
    return torch.tensor(list(itertools.islice(x[0].tolist(), 2)))


def averaged(x: T) -> T:
    return x * statistics.mean([x[0].sum().item(), x[1].sum().item()])


def by_rows(x: T) -> T:
    return torch.tensor(sorted(x.tolist(), key=lambda row: row))


CASES: list[tuple[Callable[[T], Any], str, str]] = [
    (on_a_heap, "heapq.heapify", "torch.topk"),
    (pushed, "heapq.heappush", "torch.topk"),
    (found_among, "bisect.bisect_left", "torch.searchsorted"),
    (put_among, "bisect.insort", "torch.sort"),
    (in_groups, "itertools.groupby", "torch.unique_consecutive"),
    (leading, "itertools.takewhile", "`break`"),
    (leading_of_few, "itertools.takewhile", "`break`"),
    (first_ones, "itertools.islice", "rows[a:b]"),
    (averaged, "statistics.mean", "median"),
    (by_rows, "sorted", "torch.argsort"),
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_what_to_write_instead(number: int) -> None:
    """The function as the line has it, and tensor operations that do the same."""
    function, name, instead = CASES[number]
    with pytest.raises(ingot.ExportError) as caught:
        ingot.export(function, (X,))
    said = str(caught.value)
    assert f"In the place of {name}, write" in said, said
    assert instead in said, said
    assert __file__ in said, said


def test_a_line_without_such_a_function_has_the_plain_remedy() -> None:
    """Also where another line of the function has one, which runs."""

    def function(x: T) -> T:
        best = heapq.nlargest(1, x[0].tolist())[0]
        edges = itertools.accumulate([1, 2])
        return x * [3, 4][:: x.argmax().item() + 1][0] + best + sum(edges)

    with pytest.raises(ingot.ExportError) as caught:
        ingot.export(function, (X,))
    assert "In the place of" not in str(caught.value), caught.value
