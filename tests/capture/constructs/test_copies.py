"""Copies that Python's own library makes of tensors: `copy.deepcopy`, and what writes them out."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs.support import Case, Cases, T, check, random

X = random(3, 4)
case = Cases()


@case(X, random(5, 4))
def of_a_tensor(x: T) -> Any:
    y = copy.deepcopy(x)
    y += 1
    return x, y


@case(X, random(5, 4))
def of_a_dict(x: T) -> Any:
    kept = {"a": x, "b": [x, x * 2]}
    made = copy.deepcopy(kept)
    made["a"] += 1  # the same tensor as the first of "b"
    return made["b"], kept["b"]


@case.parametrize()
def test_copies(case: Case) -> None:
    """As eager."""
    check(case)


def of_parts(x: T) -> T:
    made = copy.deepcopy({"whole": x, "row": x[0]})
    made["whole"] += 1
    return made["row"]


def test_a_copy_of_a_tensor_and_a_part_of_it_is_refused() -> None:
    """What is written into the whole is in the part."""
    with pytest.raises(ExportError, match=r"test_copies\.py:\d+: (.|\n)*share memory(.|\n)*take the parts"):
        capture(of_parts, (X,))


def pickled(x: T) -> T:
    return pickle.loads(pickle.dumps(x)) + 1


def saved(x: T) -> T:
    torch.save(x, io.BytesIO())
    return x + 1


@pytest.mark.parametrize("model", [pickled, saved], ids=lambda f: f.__name__)
def test_writing_a_tensor_out_is_refused(model: Any) -> None:
    """It has no contents."""
    with pytest.raises(ExportError, match=r"test_copies\.py:\d+: (.|\n)*writes a tensor out(.|\n)*clone"):
        capture(model, (X,))
