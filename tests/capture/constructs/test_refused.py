"""Numbers among the data that an operator of PyTorch refuses: the model fails there, with the line."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import ingot
from ingot.capture.attempt import capture
from ingot.errors import ShapeError
from tests.capture.constructs.support import Case, Cases, T, check

L = torch.tensor
case = Cases()
CLASSES = [L([1, 2]), L([0, 3]), L([1, 4]), L([-1, 0]), L([], dtype=torch.int64)]
PACKED = [(torch.randn(2, 4, 3), L(n)) for n in ([3, 2], [4, 4], [1, 1], [2, 0], [1, 4], [5, 1], [3, -1])]


@case(*CLASSES)
def classes(x: T) -> T:
    return one_hot(x, 4)


@case(*[(x, torch.zeros(4)) for x in CLASSES])
def as_many_as_a_size(x: T, y: T) -> T:
    return one_hot(x, y.shape[0])


@case(*CLASSES)
def where_it_is_asked(x: T) -> T:
    return one_hot(x, 4) if x.sum() > 2 else one_hot(x + 1, 4)


@case(*PACKED)
def packed(x: T, n: T) -> tuple[T, T]:
    return pad_packed_sequence(pack_padded_sequence(x, n, batch_first=True), batch_first=True)


@case(*PACKED)
def packed_in_any_order(x: T, n: T) -> tuple[T, T]:
    kept = pack_padded_sequence(x, n, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(kept, batch_first=True)


@case.parametrize()
def test_the_run_fails_where_pytorch_does(case: Case) -> None:
    """And gives what it gives elsewhere."""
    check(case)


def test_an_exported_program_checks_its_classes() -> None:
    """The operator that `one_hot` is there, as well."""

    class Model(torch.nn.Module):
        def forward(self, x: T) -> T:
            return one_hot(x, 4)

    program = ingot.export(torch.export.export(Model(), (CLASSES[0],)))
    for x in CLASSES[2:4]:
        with pytest.raises(ShapeError, match="is one of its classes"):
            program(x)


def test_what_is_a_class_needs_no_check() -> None:
    """Places along an axis of a known size, truths, and lengths that no input decides."""

    def model(x: T) -> tuple[T, ...]:
        y = x @ torch.ones(3, 4)
        packed = pack_padded_sequence(x.t().unsqueeze(0), L([2]), batch_first=True)
        return one_hot(y.argmax(-1), 4), one_hot(y.topk(2)[1], 4), one_hot((y > 0).long(), 2), packed[0]

    said = [a.what for a in capture(model, (torch.randn(5, 3),)).assumptions if a.kind == "condition"]
    assert not said
