"""Lists whose elements differ in one dimension: what a mask selects of each image, in a loop over a batch."""

# The constructs are written as people write them.
# ruff: noqa: RUF005
# pyright: basic

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, check, random

case = Cases()
SHAPES = ((3, 5, 6), (1, 4, 6), (2, 7, 6), (5, 1, 6), (4, 6, 6))
BATCHES = [random(*shape, seed=n) for n, shape in enumerate(SHAPES)]
NONE = -BATCHES[0].abs()  # of which nothing is kept


@case(*BATCHES, NONE)
def rows_of_each_image(x: T) -> Any:
    out = []
    for b in range(x.shape[0]):
        out.append(x[b][x[b, :, 4] > 0.2])
    return torch.cat(out), torch.cat([o * 2 for o in out]), len(out), torch.tensor([len(o) for o in out])


@case(*[(x, x[..., 0] > 0) for x in BATCHES])
def with_the_image_beside(x: T, mask: T) -> T:
    out = []
    for b in range(x.shape[0]):
        kept = x[b][mask[b]]
        out.append(torch.cat([torch.full((kept.shape[0], 1), b).to(kept), kept], 1))
    return torch.cat(out)


@case(*BATCHES, NONE)
def some_images_left_out(x: T) -> T:
    out = []
    for one in x:
        one = one[one[:, 4] > 0.1]
        if not one.shape[0]:
            continue
        best, kind = one[:, 4:].max(1, keepdim=True)
        out.append(torch.cat((one[:, :4], best, kind.float()), 1)[best.view(-1) > 0.3])
    return torch.cat(out) if out else x.new_zeros(0, 6)


@case(*BATCHES)
def along_another_axis(x: T) -> T:
    out = []
    for one in x:
        out.append(one[one[:, 4] > 0].T)
    return torch.cat(out, dim=1)


@case(*BATCHES)
def in_a_comprehension(x: T) -> Any:
    return torch.vstack([one[one[:, 4] > 0] for one in x]), torch.hstack([one[one[:, 1] > 0, 1] for one in x])


@case(*BATCHES)
def padded(x: T) -> T:
    out = []
    for one in x:
        out.append(one[one[:, 4] > 0])
    return torch.nn.utils.rnn.pad_sequence(out, batch_first=True, padding_value=-1.0)


@case(*BATCHES)
def a_variable_given_anew(x: T) -> T:
    out = []
    for one in x:
        out = out + [one[one[:, 4] > 0]]
    return torch.cat(out)


@case(*BATCHES)
def changed_as_lists_are(x: T) -> Any:
    out = []
    for one in x:
        out.append(one[one[:, 4] > 0])
    out.reverse()
    backwards = torch.cat(out)
    out.insert(1, torch.ones(2, 1) * x[0, :1])
    more, rest = torch.cat(out), torch.cat(out[1:])
    out.pop()
    out[0] = torch.ones(4, 1) * x[0, :1]
    return backwards, more, rest, torch.cat(out), torch.cat(sorted(out, key=len)), out[0], out[-1]


@case(*BATCHES)
def as_branches_say(x: T) -> Any:
    out = []
    for one in x:
        if one.sum() > 0:
            out.append(one[one[:, 4] > 0])
        else:
            out.append(one[:1])
            out.append(one[one[:, 1] > 0])
    if x.sum() > 0:
        out.append(x[0])
    return torch.cat(out), len(out)


@case(*BATCHES)
def parts_of_each_element(x: T) -> Any:
    out = []
    for one in x:
        keep = one[:, 4] > 0
        out.append({"boxes": one[keep][:, :4], "scores": one[keep][:, 4], "count": int(keep.sum())})
    boxes, scores = torch.cat([d["boxes"] for d in out]), torch.cat([d["scores"] for d in out])
    return boxes, scores, sum(d["count"] for d in out)


@case(*BATCHES, NONE)
def lists_of_lists(x: T) -> Any:
    out = []
    for one in x:
        own = []
        for row in one:
            if row[4] > 0:
                own.append(row)
        out.append(own)
    counts = [len(own) for own in out]
    kept = [torch.stack(own) for own in out if len(own) > 0]
    return torch.tensor(counts), torch.cat(kept) if kept else x[:0, 0]


@case(*BATCHES)
def split_again(x: T) -> T:
    out, sizes = [], []
    for one in x:
        kept = one[one[:, 4] > 0]
        out.append(kept)
        sizes.append(len(kept))
    return torch.stack([part.sum(0) for part in torch.cat(out).mul(2).split(sizes)])


def overlap(box: T, boxes: T) -> T:
    low, high = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:4], boxes[:, 2:4])
    inter = (high - low).clamp(min=0).prod(1)
    area = (boxes[:, 2:4] - boxes[:, :2]).prod(1)
    return inter / ((box[2:4] - box[:2]).prod() + area - inter)


def suppressed(boxes: T, scores: T) -> T:
    order = scores.argsort(descending=True)
    keep = []
    while order.numel() > 0:
        first, order = order[0], order[1:]
        keep.append(first)
        order = order[overlap(boxes[first], boxes[order]) <= 0.4]
    return torch.stack(keep) if keep else torch.zeros(0, dtype=torch.long)


def detections(images: int, boxes: int, seed: int) -> T:
    """[images, boxes, 6]: corners, a score and one of three classes."""
    g = torch.Generator().manual_seed(seed)
    at, size = torch.rand(images, boxes, 2, generator=g) * 5, torch.rand(images, boxes, 2, generator=g) * 4
    score = torch.rand(images, boxes, 1, generator=g)
    return torch.cat([at, at + size + 0.1, score, torch.randint(0, 3, score.shape, generator=g).float()], 2)


@case(detections(3, 9, 0), detections(1, 5, 1), detections(2, 1, 2), detections(4, 12, 3))
def suppression_by_image_and_class(x: T) -> Any:
    out = []
    for image in x:
        image = image[image[:, 4] > 0.3]
        own = []
        for c in range(3):
            one = image[image[:, 5] == c]
            own.append(one[suppressed(one, one[:, 4])])
        out.append(torch.cat(own))
    return torch.cat(out), torch.tensor([len(own) for own in out])


@case.parametrize()
def test_ragged(case: Case) -> None:
    """Any batch: no size of it is fixed, and no branch follows the example."""
    captured = check(case)
    assert not [a for a in captured.assumptions if a.kind in ("branch", "narrowed")]


def test_elements_of_a_first_size_take_the_example_s_other_sizes() -> None:
    """Empty tensors of six columns stand for a batch of them: the columns' number is fixed, not the batch."""

    def filled(x: T) -> T:
        out = [torch.zeros((0, 6))] * x.shape[0]
        for n, one in enumerate(x):
            out[n] = one[one[:, 4] > 0.1]
        return torch.cat(out)

    captured = check(Case("filled", lambda: filled, [(x,) for x in BATCHES]))
    (fixed,) = [a for a in captured.assumptions if a.kind == "narrowed"]
    assert "x_dim2" in str(fixed)


def test_two_dimensions_are_too_many() -> None:
    """The message says what to do."""

    def two(x: T) -> T:
        out = []
        while len(out) < x.sum():
            n = int(x.abs().sum()) + len(out)
            out.append(torch.zeros(n, n))
        return out[0]

    with pytest.raises(
        DataDependentError, match=r"more than one dimension. Keep them alike .*pad the others"
    ):
        capture(two, (torch.ones(3),))


@pytest.mark.parametrize("again", [lambda z: z, lambda z: z[:2], lambda z: z[0]])
def test_one_tensor_in_several_places_is_not_written_in_one(again: Any) -> None:
    """A write into one element would be seen in the others, which are copies."""

    def same(x: T, n: T) -> T:
        z = x.sum(0)
        out = []
        for _ in range(int(n)):
            out.append(again(z))
        out[0] += 1
        return torch.stack(out)

    with pytest.raises(DataDependentError, match="clone"):
        capture(same, (random(3, 4), torch.tensor(3)))
