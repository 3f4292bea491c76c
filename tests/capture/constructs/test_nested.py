"""Lists in the elements of lists, of lengths that data or rounds decide: tokens of a batch or of a beam."""

# The constructs are written as people write them.
# ruff: noqa: RUF005, B905, SIM113
# pyright: basic

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

import ingot
from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, check, random

case = Cases()
IDS = [
    torch.tensor(v) for v in ([[1, 1, 0, 2], [3, 0, 0, 3]], [[1, 2, 3, 4, 5], [0, 0, 0, 0, 0]], [[4], [4]])
]
STEPS = [random(n, 2, seed=n) for n in (3, 1, 6)]


@case(*IDS)
def padded_by_a_sum_of_lists(x: T) -> T:
    kept = []
    for row in x:
        ids, before = [], -1
        for v in row.tolist():
            if v != before and v != 0:
                ids.append(v)
            before = v
        kept.append(ids)
    longest = max(len(ids) for ids in kept)
    return torch.tensor([ids + [0] * (longest - len(ids)) for ids in kept])


@case(*IDS)
def padded_with_a_mask(x: T) -> Any:
    kept = [[int(v) for v in row if v > 0] for row in x]
    longest = max(map(len, kept))
    mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in kept]
    return torch.tensor([ids + [-1] * (longest - len(ids)) for ids in kept]), torch.tensor(mask)


@case(*IDS)
def padded_one_by_one(x: T) -> T:
    kept = [[float(v) for v in row if v > 0] for row in x]
    longest, out = max(len(ids) for ids in kept), []
    for ids in kept:
        while len(ids) < longest:
            ids = ids + [0.5]
        out.append(ids)
    return torch.tensor(out)


@case(*IDS, torch.tensor([[0, 0], [0, 1]]))
def split_at_zeros(x: T) -> Any:
    groups = [[]]
    for v in x.flatten().tolist():
        if v == 0:
            groups.append([])
        else:
            groups[-1] = groups[-1] + [v]
    return torch.tensor([len(g) for g in groups]), torch.tensor([sum(g) for g in groups])


@case(*STEPS)
def beam_of_pairs(x: T) -> Any:
    beams = [([], 0.0)]
    for row in x:
        longer = []
        for tokens, score in beams:
            for k, v in enumerate(row.tolist()):
                longer.append((tokens + [k], score + v))
        longer.sort(key=lambda b: b[1], reverse=True)
        beams = longer[:2]
    tokens, score = beams[0]
    return torch.tensor(tokens), torch.tensor(score)


@case(*STEPS)
def beam_of_two_lists(x: T) -> Any:
    beams, scores = [[]], [0.0]
    for row in x:
        longer, sums = [], []
        for tokens, score in zip(beams, scores):
            for k in range(2):
                longer.append(tokens + [k])
                sums.append(score + row[k].item())
        order = sorted(range(len(sums)), key=lambda i: -sums[i])[:2]
        beams, scores = [longer[i] for i in order], [sums[i] for i in order]
    return torch.tensor(beams[0]), torch.tensor(scores)


@case(*STEPS)
def beam_of_dicts(x: T) -> Any:
    beams = [{"tokens": [], "h": torch.zeros(2)}]
    for row in x:
        longer = []
        for b in beams:
            for k in (0, 1):
                longer.append({"tokens": b["tokens"] + [k], "h": b["h"] * 0.5 + row * k})
        longer.sort(key=lambda b: b["h"].sum().item(), reverse=True)
        beams = longer[:2]
    return torch.tensor(beams[0]["tokens"]), beams[0]["h"]


@case(*STEPS)
def lists_of_tensors(x: T) -> Any:
    out = [(0, [])]
    for row in x:
        count, rows = out[-1]
        out.append((count + 1, rows + [row * 2]))
    return torch.stack(out[-1][1]), torch.tensor([n for n, _ in out])


VALUES = [random(5), random(1), -random(3).abs(), random(9)]


@case(*VALUES)
def a_tuple_with_a_list(x: T) -> Any:
    state = ([], 0.0)
    for v in x.tolist():
        if v > 0:
            state = (state[0] + [v], state[1] + v)
    return torch.tensor(state[0], dtype=torch.float32), torch.tensor(state[1])


@case(*VALUES)
def a_dict_with_a_list(x: T) -> Any:
    state = {"ids": [], "n": 0}
    for v in x.tolist():
        if v > 0:
            state = {**state, "ids": state["ids"] + [state["n"]], "n": state["n"] + 2}
    return torch.tensor(state["ids"], dtype=torch.long), torch.tensor(state["n"])


@dataclass
class Found:
    ids: list[int]
    score: float
    h: T


@case(random(5, 3), random(1, 3), -random(3, 3).abs(), random(9, 3))
def an_object_with_a_list(x: T) -> Any:
    found = Found([], 0.0, torch.zeros(x.shape[1]))
    for row in x:
        if row.sum() > 0:
            found = Found(found.ids + [int(row.argmax())], found.score + row.max().item(), found.h + row)
        else:
            found = replace(found, h=found.h * 0.5)
    return torch.tensor(found.ids, dtype=torch.long), torch.tensor(found.score), found.h


@case(*VALUES)
def two_lists_deep_in_tuples(x: T) -> Any:
    state = ([1.0], ([], 0))
    for v in x.tolist():
        every, (some, n) = state
        state = (every + [v], (some + [n] if v > 0 else some, n + 1))
    return torch.tensor(state[0]), torch.tensor(state[1][0], dtype=torch.long), torch.tensor(state[1][1])


@case(*VALUES)
def longer_or_the_same(x: T) -> T:
    ids, n = [7] if x.sum() > 0 else [], 0
    for v in x.tolist():
        if v > 0:
            ids = [*ids, n]
        elif v < -1:
            ids = []
        n += 1
    return torch.tensor(ids, dtype=torch.long)


@case.parametrize()
def test_all_ways_agree_with_eager(case: Case) -> None:
    check(case)


def test_sizes_that_leave_the_table_empty_are_told() -> None:
    """torch.tensor of lists without numbers is float32, of numbers int64: a size of 0 leaves none."""
    program = ingot.export(beam_of_pairs, (STEPS[0],))
    assert program.verification is not None
    assert any("test_nested.py" in s and "of an empty list" in s for s in program.verification.unverified)
    np.testing.assert_array_equal(program(STEPS[2])[0], beam_of_pairs(STEPS[2])[0])


def put_by_a_branch(x: T) -> T:
    out = []
    for row in x:
        if row.sum() > 0 or len(out) == 0:
            out.append(row)
        else:
            out[0] = row
    for i in range(len(out)):
        out[i].mul_(2)
    return x


def out_of_a_slice(x: T) -> T:
    out, t = [], torch.zeros(3)
    for row in x:
        out.append([t, row][: int(row[0] > 0) + 1][0])
    t += 1
    return torch.stack(out)


def slices_in_a_list(x: T) -> T:
    out, t = [], torch.zeros(3)
    for row in x:
        out.append([t, row][: int(row[0] > 0) + 1])
    out[0][0].add_(1)
    return t + x[0]


@pytest.mark.parametrize("function", [put_by_a_branch, out_of_a_slice, slices_in_a_list])
def test_a_list_of_others_tensors_is_not_read_after_a_write(function: Any) -> None:
    """The list has copies, also where a branch or a slice has put them there."""
    with pytest.raises(DataDependentError, match=r"whose memory a tensor is.*\.clone"):
        capture(function, (random(4, 3),))


def test_a_list_of_one_tensor_sees_its_writes() -> None:
    def the_same_again(x: T) -> T:
        t = x[0] * 2
        out = [t]
        for _ in x[1:]:
            out = out + [t]
        t += 1
        return torch.stack(out)

    check(Case("the_same_again", lambda: the_same_again, [(random(4, 3),), (random(2, 3),)]), narrowed=True)
