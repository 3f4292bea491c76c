"""`assert`, `raise` and torch._check under a condition that data decides: the exported model fails where
eager does.
"""

# The constructs are written as people write them.

from __future__ import annotations

import numpy as np
import pytest
import torch

import ingot
from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, lengths, negative, positive
from tests.capture.constructs.support import random as random_numbers

case = Cases()
SIGNS = both_signs()


@case(*SIGNS)
def assert_alone(x: T) -> T:
    assert (x > 0).all()
    return x * 2


@case(*SIGNS)
def assert_with_a_message(x: T) -> T:
    s = x.sum()
    assert s > 0, f"the sum is {s.dim()}-dimensional and negative"
    return x / s


@case(*SIGNS)
def raise_in_a_branch(x: T) -> T:
    if x.sum() < 0:
        raise ValueError("negative")
    return x * 2


@case(*SIGNS)
def raise_in_the_other_branch(x: T) -> T:
    if x.sum() > 0:
        y = x + 1
    else:
        raise ValueError("negative")
    return y


@case(*SIGNS, positive(3, 3) * 100, negative(3, 3) * 100)
def raise_in_a_nested_branch(x: T) -> T:
    if x.sum() > 0:
        if x.sum() > 50:
            raise ValueError("large")
        return x
    return x - 1


@case(*SIGNS)
def raise_in_a_helper(x: T) -> T:
    def checked(v: T) -> T:
        if not bool((v > 0).any()):
            raise RuntimeError("nothing")
        return v

    return checked(x) + 1


@case(*lengths())
def assert_in_a_loop(x: T) -> T:
    h = torch.zeros(3)
    for row in x:
        assert row.sum() < 2
        h = h + row
    return h


@case(*lengths())
def raise_in_a_loop(x: T) -> T:
    h = torch.zeros(3)
    for row in x:
        if row.sum() > 2:
            raise ValueError
        h = h + row
    return h


@case(*[(random_numbers(4, 3), torch.tensor(k)) for k in (2, 0, 3, 9)])
def torch_check(x: T, n: T) -> T:
    k = n.item()
    torch._check(k < 5, lambda: "too many")
    return x * k


@case(*SIGNS)
def two_checks(x: T) -> tuple[T, T]:
    assert x.sum() > 0
    y = x * 2
    assert y.max() < 1000
    return y, x


@case(*SIGNS)
def an_index_that_must_exist(x: T) -> T:
    return x * [1.0, 2.0, 3.0][int((x > 0).all()) * 2]


@case(
    *(
        (random_numbers(n, 3), torch.tensor(v))
        for n, v in ((2, 1.0), (0, 1.0), (0, -1.0), (2, -1.0), (1, -2.0))
    )
)
def checked_in_rounds(x: T, y: T) -> T:
    n = y.item()
    for _ in x:
        if n < 0:
            raise ValueError("negative")
    return x.sum() + 1 if n < 0 else x.sum()


@case(positive(3), positive(3) * 100)
def raise_with_a_number_in_percent_signs(x: T) -> T:
    most = x.max().item()
    if most > 9:
        raise ValueError("%s: %.2f of %d, 100%% wrong" % ("large", most, x.shape[0]))  # noqa: UP031
    return x * 2


@case(positive(3), positive(3) * 100)
def raise_with_a_named_number_in_percent_signs(x: T) -> T:
    most = x.max().item()
    assert most < 9, "%(most).1f is too large" % {"most": most}  # noqa: UP031
    return x * 2


@case(positive(3), positive(3) * 100)
def raise_with_numbers_in_braces(x: T) -> T:
    most = x.max().item()
    if most > 9:
        raise ValueError("{:.2f} of {n} is too large".format(most, n=x.shape[0]))  # noqa: UP032
    return x * 2


@case.parametrize()
def test_checks(case: Case) -> None:
    """Fails where eager PyTorch fails."""
    check(case)


def test_each_check_is_listed_with_its_line() -> None:
    """In the assumptions, as checked in the graph."""
    captured = capture(two_checks, (positive(3, 3),))
    found = [a for a in captured.assumptions if a.kind == "condition"]
    assert [a.status for a in found] == ["checked", "checked"]
    assert all("test_checks.py:" in a.where for a in found)
    assert "assert x.sum() > 0" in found[0].what
    assert "assert y.max() < 1000" in found[1].what


def test_a_model_that_always_raises_is_refused_in_its_own_words() -> None:

    def f(x: T) -> T:
        if x.sum() > 0:
            raise ValueError("one")
        raise KeyError("two")

    with pytest.raises(ExportError, match="ValueError: one") as error:
        capture(f, (positive(3, 3),))
    assert 'raise ValueError("one")' in str(error.value)


def test_a_slice_that_may_count_from_either_end_is_checked() -> None:
    """Its length is one of two formulas, which the check of what follows has as well."""

    def mirrored(x: T) -> T:
        tail = x[x.shape[0] - 4 :]
        return torch.nn.functional.pad(tail[None, None], (1, 1), mode="reflect")

    session = ingot.InferenceSession(capture(mirrored, (torch.ones(9),)).model)
    name = session.get_inputs()[0].name
    for n in (9, 4, 2):
        x = torch.arange(float(n))
        np.testing.assert_array_equal(session.run(None, {name: x.numpy()})[0], mirrored(x))
    with pytest.raises(ingot.ShapeError, match=r"test_checks\.py:\d+: .* does not hold"):
        session.run(None, {name: np.ones(3, np.float32)})  # one element is left, and cannot be mirrored
