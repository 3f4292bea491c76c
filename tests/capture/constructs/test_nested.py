"""Lists in the elements of lists, of lengths that data or rounds decide: tokens of a batch or of a beam."""

# The constructs are written as people write them.
# ruff: noqa: RUF005, B905
# pyright: basic

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import ingot
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


@case.parametrize()
def test_all_ways_agree_with_eager(case: Case) -> None:
    check(case)


def test_sizes_that_leave_the_table_empty_are_told() -> None:
    """torch.tensor of lists without numbers is float32, of numbers int64: a size of 0 leaves none."""
    program = ingot.export(beam_of_pairs, (STEPS[0],))
    assert program.verification is not None
    assert any("test_nested.py" in s and "of an empty list" in s for s in program.verification.unverified)
    np.testing.assert_array_equal(program(STEPS[2])[0], beam_of_pairs(STEPS[2])[0])
