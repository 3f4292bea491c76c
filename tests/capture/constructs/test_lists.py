"""Lists that grow as data says, comprehensions, and containers that branches and loops change."""

# The constructs are written as people write them.
# ruff: noqa: B905, C416, RUF007

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import ingot
from ingot.capture.attempt import capture
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, lengths, positive, random

case = Cases()
SIGNS = both_signs()
ROWS = lengths()
#: Places of a list in the first number, from the end where that is negative; all rows are kept.
PLACES = [torch.tensor([[k, 3.0, 4], [3, 4, 5], [6, 7, 8]]) for k in (1.0, 0, 2, -1, -2, -3)]
#: Signs of rows: pushed where positive, popped where not, of nothing too.
PUSHES = [
    *SIGNS,
    random(0, 3),
    *[
        torch.tensor(s).unsqueeze(1) * positive(len(s), 3)
        for s in ([-1, 1, 1, -1, -1, -1, 1], [1, -1, -1], [1, 1, -1, 1], [1, -1])
    ],
]
SOME = [*both_signs(), *[positive(n, 3) - 0.5 for n in (4, 7)]]


@case(*ROWS)
def append_in_a_loop(x: T) -> T:
    outs = []
    h = torch.zeros(3)
    for row in x:
        h = (h + row).relu()
        outs.append(h)
    return torch.stack(outs)


@case(*ROWS)
def append_two_lists(x: T) -> tuple[T, T]:
    a, b = [], []
    for row in x:
        a.append(row * 2)
        b.append(row.sum())
    return torch.stack(a), torch.stack(b)


@case(*ROWS)
def append_twice(x: T) -> T:
    outs = []
    for row in x:
        outs.append(row)
        outs.append(-row)
    return torch.stack(outs)


@case(*SIGNS)
def sort_in_a_rewritten_function(x: T) -> T:
    order = [1.0, 3.0, 2.0]
    order.sort(reverse=True)
    outs = []
    if x.sum() > 0:
        outs.append(x)
        order.sort(key=abs)
    for out in outs:
        x = x + out
    return x * order[0]


@case(*ROWS)
def append_before_and_in_a_loop(x: T) -> T:
    outs = [torch.zeros(3)]
    for row in x:
        outs.append(row * 2)
    outs.append(torch.ones(3))
    return torch.stack(outs)


@case(*ROWS)
def cat_of_a_list(x: T) -> T:
    outs = []
    for i in range(x.shape[0]):
        outs.append(x[i : i + 1] * i)
    return torch.cat(outs, 0)


@case(*ROWS)
def cat_along_the_other_axis(x: T) -> T:
    outs = []
    for row in x:
        outs.append(row[:, None])
    return torch.cat(outs, 1)


@case(*ROWS)
def stack_along_the_other_axis(x: T) -> T:
    outs = []
    for row in x:
        outs.append(row)
    return torch.stack(outs, dim=1)


@case(*ROWS)
def append_as_many_as_rows(x: T) -> T:
    outs = []
    h = torch.zeros(3)
    for i in range(x.shape[0]):
        h = h * 0.5 + x[i]
        outs.append(h * x[i])
    return torch.stack(outs, dim=-1) + x.T * 2


@case(*SOME)
def append_under_a_condition(x: T) -> T:
    outs = []
    for row in x:
        if row.sum() > 0:
            outs.append(row)
    return torch.stack(outs) if outs else x * 0


@case(*SOME)
def append_on_either_side(x: T) -> tuple[T, T]:
    up, down = [torch.zeros(3)], [torch.zeros(3)]
    for row in x:
        if row.sum() > 0:
            up.append(row)
        else:
            down.append(row)
    return torch.stack(up), torch.stack(down)


@case(*SOME)
def append_outside_of_a_loop(x: T) -> T:
    outs = [x]
    if x.sum() > 0:
        outs.append(x * 2)
    return torch.cat([o[None] for o in outs] if False else outs)


@case(*SOME)
def length_of_a_list(x: T) -> T:
    outs = []
    for row in x:
        if row.sum() > 0:
            outs.append(row)
    return x * len(outs)


@case(*ROWS)
def elements_of_a_list(x: T) -> T:
    outs = []
    for row in x:
        outs.append(row * 3)
    return outs[0] + outs[-1]


@case(*ROWS)
def element_of_the_round_before(x: T) -> T:
    outs = [x[0] * 0]
    for row in x:
        outs.append(outs[-1] * 0.5 + row)
    return torch.stack(outs)


@case(*ROWS)
def length_inside_the_loop(x: T) -> T:
    outs = []
    for row in x:
        outs.append(row * len(outs))
    return torch.stack(outs)


@case(*ROWS)
def stacked_inside_the_loop(x: T) -> T:
    outs = [x[0]]
    h = x[0] * 0
    for row in x:
        outs.append(row)
        h = h + torch.stack(outs).sum(0)
    return h


@case(*ROWS)
def empty_in_the_first_round(x: T) -> T:
    outs = []
    for row in x:
        if outs:
            outs.append(row)
        else:
            outs.append(row * 100)
    return torch.stack(outs)


@case(*SOME)
def pop_in_a_loop(x: T) -> T:
    stack = [x[0]]
    for row in x:
        if row.sum() > 0:
            stack.append(row)
        elif len(stack) > 1:
            stack.pop()
    return torch.stack(stack)


@case(*ROWS)
def pop_until_empty(x: T) -> T:
    stack = list(x)
    h = x[0] * 0
    while stack:
        h = h * 0.5 + stack.pop()
    return h


@case(*ROWS)
def pop_the_first_until_empty(x: T) -> T:
    queue = [r for r in x]
    h = x[0] * 0
    while len(queue) > 0:
        h = h * 0.5 + queue.pop(0)
    return h


@case(*[positive(5, 3) * k for k in (0.1, 1, 5, 20)])
def stack_of_work(x: T) -> T:
    work = [x]
    total = x * 0
    while work:
        t = work.pop()
        if t.sum() > 20:
            work.append(t / 2)
            work.append(t / 3)
        else:
            total = total + t
    return total


@case(*SIGNS)
def pop_in_a_branch(x: T) -> T:
    parts = [x, x * 2, x * 3]
    last = x
    if x.sum() > 0:
        last = parts.pop()
    return sum(parts) + last


@case(*SOME)
def insert_delete_and_replace(x: T) -> T:
    rows = [r * 2 for r in x]
    rows.insert(0, x[0])
    if x.sum() > 0:
        rows[-1] = x[0] * 7
    else:
        del rows[0]
    rows.reverse()
    return torch.stack(rows)


def positive_rows(x: T) -> list[T]:
    rows = []
    for row in x:
        if row.sum() > 0:
            rows.append(row)
    return rows


@case(*PLACES)
def write_where_data_says(x: T) -> T:
    rows = positive_rows(x)
    rows[int(x[0, 0])] = x[1] * 7
    return torch.stack(rows)


@case(*PLACES)
def read_where_data_says(x: T) -> T:
    return positive_rows(x)[int(x[0, 0])]


@case(*PLACES)
def pop_where_data_says(x: T) -> tuple[T, T]:
    rows = positive_rows(x)
    taken = rows.pop(int(x[0, 0]))
    return taken, torch.stack(rows)


@case(*PLACES)
def delete_where_data_says(x: T) -> T:
    rows = positive_rows(x)
    del rows[int(x[0, 0])]
    return torch.stack(rows)


@case(*PLACES, torch.tensor([[9.0, 1, 2], [3, 4, 5], [6, 7, 8]]))
def insert_where_data_says(x: T) -> T:
    rows = positive_rows(x)
    rows.insert(int(x[0, 0]), x[1] * 7)
    rows.insert(-9, x[2])
    return torch.stack(rows)


@case(*ROWS)
def loop_over_a_grown_list(x: T) -> T:
    outs = []
    for row in x:
        outs.append(row * 3)
    total = torch.zeros(3)
    for o in outs:
        total = total * 0.5 + o
    return total


@case(*ROWS)
def numbers_in_a_list(x: T) -> T:
    counts = []
    for row in x:
        counts.append((row > 0).sum().item())
    return torch.tensor(counts)


@case(*ROWS)
def sum_of_a_list(x: T) -> T:
    return sum([row * 2 for row in x])


@case(*ROWS)
def comprehension_over_rows(x: T) -> T:
    return torch.stack([row * 2 for row in x])


@case(*ROWS)
def comprehension_with_a_ternary(x: T) -> T:
    return torch.stack([r * 2 if r.sum() > 0 else r for r in x])


@case(*SOME)
def comprehension_with_a_condition(x: T) -> T:
    rows = [r for r in x if r.sum() > 0]
    return torch.stack(rows) if len(rows) > 0 else x


@case(*ROWS)
def comprehension_over_enumerate(x: T) -> T:
    return torch.stack([r * i for i, r in enumerate(x)])


@case(*ROWS)
def comprehension_over_a_size(x: T) -> T:
    return torch.stack([x[i] * i for i in range(x.shape[0])])


@case(*ROWS)
def generator_as_an_argument(x: T) -> T:
    return torch.stack(tuple(r + 1 for r in x)) + max(r.sum() for r in x)


@case(*ROWS)
def any_row(x: T) -> T:
    return x + 1 if any(r.sum() > 2 for r in x) else x


@case(*ROWS)
def split_rows(x: T) -> T:
    outs = []
    for a, b in zip(x[:-1], x[1:]):
        outs.append(b - a)
    outs.append(x[0])
    return torch.stack(outs)


@case(*SIGNS)
def list_slots(x: T) -> T:
    items = [x, x]
    if x.sum() > 0:
        items[0] = x + 1
    return items[0] + items[1]


@case(*SIGNS)
def dict_slots(x: T) -> T:
    d = {"a": x, "b": x * 2}
    if x.sum() > 0:
        d["a"] = x * 5
    else:
        d["b"] = x * 7
    return d["a"] + d["b"]


@case(*ROWS)
def dict_slots_in_a_loop(x: T) -> T:
    state = {"h": torch.zeros(3), "n": 0}
    for row in x:
        state["h"] = state["h"] * 0.5 + row
        state["n"] = state["n"] + 1
    return state["h"] * state["n"]


@case(*SIGNS)
class AttributeInABranch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(1)

    def forward(self, x: T) -> T:
        self.scale = torch.ones(1) * 2
        if x.sum() > 0:
            self.scale = self.scale * 7
        return x * self.scale


@case(*ROWS)
def attributes_in_a_loop(x: T) -> T:
    @dataclass
    class State:
        h: T
        n: int

    state = State(torch.zeros(3), 0)
    for row in x:
        state.h = state.h + row
        state.n += 2
    return state.h * state.n


@case(*SIGNS)
def nested_containers(x: T) -> T:
    d = {"a": [x, (x, 1)]}
    if x.sum() > 0:
        d["a"][0] = x * 2
        d["a"][1] = (x + 1, 2)
    return d["a"][0] + d["a"][1][0] * d["a"][1][1]


@case(*SIGNS)
def append_through_a_helper(x: T) -> T:
    outs = [x]

    def add(v: T) -> None:
        outs.append(v)

    if x.sum() > 0:
        add(x * 2)
    else:
        add(x * 3)
    return torch.stack(outs)


@case(*SIGNS)
def nonlocal_variable(x: T) -> T:
    total = torch.zeros(())

    def add(v: T) -> None:
        nonlocal total
        if v.sum() > 0:
            total = total + v.sum()

    add(x)
    add(-x)
    return x + total


@case(*SIGNS)
def write_into_a_tensor(x: T) -> T:
    y = torch.ones(3)
    if x.sum() > 0:
        y.add_(x.sum())
    else:
        y.mul_(3)
    return y + x


@case(*SIGNS)
def write_through_a_view(x: T) -> T:
    y = x.clone()
    if x.sum() > 0:
        y[0] = 1
        y[:, 1] += 5
    return y


@case(*SIGNS)
def write_before_and_after_a_branch(x: T) -> T:
    y = x.clone()
    row = y[0]
    row.add_(1)
    if x.sum() > 0:
        y.mul_(2)
    row.add_(1)
    return y + row


@case(*ROWS)
def write_rows_in_a_loop(x: T) -> T:
    y = torch.zeros_like(x)
    for i in range(x.shape[0]):
        y[i] = x[i] * i
    return y


@case(*[positive(5, 3) * k for k in (0.1, 1, 50)])
def write_in_a_while_loop(x: T) -> T:
    y = x.clone()
    while y.sum() < 100:
        y.mul_(2)
        y[0] += 1
    return y


@case(*SIGNS)
def masked_write(x: T) -> T:
    y = x.clone()
    if (x > 0.5).any():
        y[x > 0.5] = 0
    return y


@case(*ROWS)
def unbind_loop(x: T) -> T:
    h = x[0] * 0
    for row in x.unbind(0):
        h = h * 0.5 + row
    return h


@case(*ROWS)
def unbind_torch(x: T) -> T:
    outs = []
    for i, row in enumerate(torch.unbind(x, dim=0)):
        outs.append(row * i)
    return torch.stack(outs)


@case(*[random(2, n, seed=n) for n in (5, 1, 3, 8)])
def unbind_last(x: T) -> T:
    h = x[:, 0] * 0
    for c in x.unbind(-1):
        h = h * 0.5 + c
    return h


@case(*ROWS)
def split_one(x: T) -> T:
    h = x[:1] * 0
    for row in x.split(1):
        h = h * 0.5 + row
    return h


@case(*lengths(3))
def split_two(x: T) -> T:
    h = x[0] * 0
    for part in x.split(2):
        h = h * 0.5 + part.sum(0)
    return h


@case(*[random(n, seed=n) for n in (6, 0, 1, 5)])
def split_nothing(x: T) -> T:
    return torch.stack([part.sum() for part in x.split(2)])


@case(*ROWS)
def unbind_indexed(x: T) -> T:
    rows = x.unbind(0)
    return rows[-1] + rows[0] * len(rows)


@case(*ROWS)
def list_times_size(x: T) -> T:
    v = [torch.ones(3)] * x.shape[0]
    return torch.stack(v) + x


@case(*ROWS)
def list_of_zero_times(x: T) -> T:
    v = [0] * x.shape[0]
    return x * (len(v) + sum(v))


@case(*ROWS)
def list_zeros_counts(x: T) -> T:
    v = [0.0] * x.shape[0]
    for i in range(x.shape[0]):
        v[i] = x[i].sum().item()
    return torch.tensor(v)


@case(*ROWS)
def comprehension_in_a_comprehension(x: T) -> T:
    return torch.stack([torch.stack([v * 2 for v in row]) for row in x])


@case(*ROWS)
def rows_taken_apart_in_a_comprehension(x: T) -> T:
    return torch.stack([torch.stack(list(row.unbind())) for row in x])


@case(*ROWS)
def sorted_numbers(x: T) -> tuple[T, T]:
    up = sorted(x[:, 0].tolist())
    return torch.tensor(up), torch.tensor(sorted([row.sum().item() for row in x], reverse=True))


@case(*PUSHES)
def push_or_pop(x: T) -> T:
    kept = []
    for row in x:
        if row[0] > 0:
            kept.append(row)
        elif kept:
            kept.pop()
    return torch.stack(kept) if kept else torch.zeros(0, x.shape[1])


@case(*PUSHES)
def push_or_pop_numbers(x: T) -> T:
    kept = []
    for row in x:
        if row[0] > 0:
            kept.append(row[0].item() * 2)
        elif len(kept) > 0:
            kept.pop()
    return torch.tensor(kept) if kept else torch.zeros(0)


@case(*[(random(4, 3), torch.tensor(ops)) for ops in ([0, 0, 1, 0, 1], [0], [0, 0, 0, 1, 1], [0, 0, 1])])
def shift_or_reduce(x: T, operations: T) -> T:
    stack, i = [], 0
    for operation in operations.tolist():
        if operation == 0:
            stack.append(x[i])
            i += 1
        else:
            second = stack.pop()
            first = stack.pop()
            stack.append(torch.tanh(first - second))
    return stack[-1]


@case(
    *[
        (random(rows, 3), torch.tensor(n))
        for rows, n in ((6, [1, 2, 3]), (6, [2, 4]), (6, [6, 0, 0]), (0, [0]))
    ]
)
def split_by_data(x: T, n: T) -> T:
    return torch.stack([p.sum(0) * p.shape[0] for p in x.split(n.tolist())])


@case(*[(random(3, 6), torch.tensor(n)) for n in ([1, 2, 3], [2, 4], [7, -1], [2, 2])])
def split_columns_by_data(x: T, n: T) -> T:
    total = x[:, 0] * 0
    for i, part in enumerate(torch.split(x, n.tolist(), dim=1)):
        total = total + part.sum(1) * (i + 1)
    return total


@case(*ROWS, random(0, 3))
def fewer_chunks_than_asked_for(x: T) -> T:
    return torch.cat([c.sum(0, keepdim=True) for c in x.chunk(4)])


@case(*ROWS)
def best_by_a_key(x: T) -> tuple[T, int]:
    best = max([x[0], x[-1], x.sum(0)], key=lambda row: row.sum().item())
    return best, min((5, x.shape[0], 3), key=lambda n: abs(n - 4))


@case(*ROWS)
def longest_of_listed(x: T) -> T:
    counts = (x > 0).sum(1).tolist()
    return x * max(counts) - min(counts)


@case(*both_signs())
def list_as_an_index(x: T) -> Any:
    kept = []
    for i, row in enumerate(x):
        if row.sum() > 0:
            kept.append(i)
    y = x.clone()
    y[kept] = 7.0
    return x[kept], y, x[kept, 0], x[[bool(row.sum() > 0) for row in x]], x[x.argmax(0).tolist()]


@case(*SIGNS)
def del_of_the_first(x: T) -> T:
    rows, n = list(x), int((x > 0).sum().clamp(max=2))
    del rows[:n]
    return torch.stack(rows) if rows else x


@case(*SIGNS)
def del_between(x: T) -> T:
    rows, n = [x[0], x[0] * 2, x[0] * 3, x[0] * 4], int((x[0] > 0).sum())
    del rows[1:n]
    del rows[-n:-3]
    return torch.stack(rows)


@case(*SIGNS)
def del_of_a_window(x: T) -> T:
    rows = []
    for row in x:
        rows.append(row)
        if row.sum() > 0:
            del rows[:-2]
    return torch.stack(rows)


@case(*[(random(n, 3), random(m, 3)) for n, m in ((37, 3), (5, 3), (64, 3), (4, 1))])
class frames_of_a_stream(nn.Module):
    """What does not fill a frame is carried to the next call."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(3, 5)

    def forward(self, audio: T, carry: T) -> tuple[T, T]:
        held = torch.cat([carry, audio])
        frames, at = [], 0
        while at + 8 <= held.shape[0]:
            frames.append(self.project(held[at : at + 8]))
            at += 4
        return torch.stack(frames) if frames else held.new_zeros(0, 8, 5), held[at:]


@case(*[random(n, 4, seed=n) for n in (6, 1, 11)])
def rows_in_buckets(x: T) -> T:
    buckets: dict[int, list[T]] = {0: [], 1: [], 2: []}
    for row in x:
        buckets[int(row[:3].argmax())].append(row)
    return torch.stack([torch.stack(v).sum(0) if v else x.new_zeros(4) for v in buckets.values()])


@case(*[random(n, 5, seed=n) for n in (9, 1, 20)])
def repeats_and_blanks_are_dropped(x: T) -> T:
    kept, before = [], -1
    for k in x.argmax(-1).tolist():
        if k != before and k != 0:
            kept.append(k)
        before = k
    return torch.tensor(kept, dtype=torch.long)


#: Numbers of which 0 is one, in places of their own, and rows that are alike.
WITH_ZEROS = [torch.tensor(v) for v in ([3.0, 0, 1, 0, 1], [0.0], [2.0, 2, 0], [1.0, 1, 1, 1, 0, 7])]


@case(*WITH_ZEROS)
def occurrences_and_places(x: T) -> Any:
    values, places = x.tolist(), []
    for i, v in enumerate(values):
        if v == 0:
            places.append(i)
    known = [int(x[0] > 1), 1, int(x.sum() > 3)]
    counts = torch.tensor([values.count(0), places.count(0), values.count(x[-1].item()), known.count(1)])
    values.remove(0.0)
    return counts, x[: x.tolist().index(0)], torch.tensor(values), x * places.count(1.5)


@case(torch.tensor([3, 1, 2]), torch.tensor([1]), torch.tensor([2, 3]), torch.tensor([5, 6, 7, 1, 1]))
def place_of_what_is_not_there(x: T) -> T:
    return x * x.tolist().index(1)


def kept_rows(x: T, out: list[T] | None = None) -> list[T]:
    out = out or []
    for row in x:
        if row.sum() > 0:
            out.append(row)
    return out


@case(*SIGNS)
def list_or_another(x: T) -> T:
    kept = kept_rows(x)
    return torch.stack(kept) if kept else x


@case.parametrize()
def test_lists(case: Case) -> None:
    """Containers hold what eager's hold."""
    check(case)


@pytest.mark.parametrize(
    "model", [write_where_data_says, read_where_data_says, pop_where_data_says, delete_where_data_says]
)
def test_a_place_outside_of_the_list_is_an_error(model: Any) -> None:
    """As in Python, not another list."""
    captured = capture(model, (PLACES[0],))
    session = ingot.InferenceSession(captured.model)
    (given,) = session.get_inputs()
    for place in (3, -4):
        x = PLACES[0].clone()
        x[0, 0] = place
        x[0, 1] = 9  # the row is kept
        with pytest.raises(IndexError):
            model(x)
        with pytest.raises(
            ingot.IngotError, match=r"^\S*test_lists\.py:\d+: the list has|an index is outside"
        ):
            session.run(None, {given.name: x.numpy()})


def test_what_a_loop_collects_has_a_declared_dtype() -> None:
    """Of a body that never runs nothing else may tell it."""

    def chosen(x: torch.Tensor) -> torch.Tensor:
        out = []
        for i in range(x.shape[0]):
            if x[i] > 3:
                out.append(int(x[i]) + 1)
        return torch.tensor(out, dtype=torch.long)

    program = ingot.export(chosen, (torch.tensor([1, 4, 0, 5]),))
    bodies = [a.as_graph() for n in program.model.graph for a in n.attributes.values() if a.name == "body"]
    assert bodies and all(v.dtype is not None for body in bodies for v in body.outputs)
    assert program(torch.zeros(0, dtype=torch.long)).shape == (0,)


def heap_of_rows(x: T) -> Any:
    heap = x[:, 0].tolist()
    heapq.heapify(heap)
    return x * heap[0]


def heap_that_rounds_fill(x: T) -> Any:
    heap: list[Any] = []
    for i, row in enumerate(x):
        heapq.heappush(heap, (row.sum().item(), i))
    return x * heapq.heappop(heap)[0]


@pytest.mark.parametrize("function", [heap_of_rows, heap_that_rounds_fill])
def test_heaps_that_data_fills_are_refused(function: Any) -> None:
    """C's functions would take the tensors that the elements are kept in for elements."""
    with pytest.raises(ingot.ExportError, match=r"heapq\.heap(.|\n)*In the place of heapq\.heap\w+, write"):
        capture(function, (positive(3, 2),))


def test_a_number_that_no_round_makes_a_tensor_is_told() -> None:
    """It has another dtype as an output."""

    def total(x: T) -> Any:
        found: Any = 0
        for row in x:
            if row[0] > 0:
                found = found + row[1]
        return found

    with pytest.raises(ingot.ExportError, match=r"begin with a tensor, x\.new_zeros"):
        ingot.export(total, (positive(3, 2),))
