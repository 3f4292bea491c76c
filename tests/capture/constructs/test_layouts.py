"""`contiguous` and `reshape` where sizes or data decide whether they copy: what is written into one memory is
not read in the other.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import ingot
from ingot.capture import layouts
from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, random

SIGNS = both_signs()


def some(x: T) -> int:
    return int((x[0] > 0).sum())


def contiguous_of_data(x: T) -> T:
    y = x.clone()
    y[:, : some(x)].contiguous().add_(1)
    return y


def contiguous_of_a_whole(x: T) -> T:
    y = x.clone()
    y[:, : y.shape[1]].transpose(0, 1).contiguous().add_(1)
    return y


def reshaped(x: T) -> T:
    y = x.clone()
    y[:, : some(x)].reshape(-1).mul_(2)
    return y


def flat(x: T) -> T:
    y = x.clone()
    z = torch.flatten(y[: x.shape[0] - 1].t())
    y += 1
    return z


def in_rounds(x: T) -> T:
    y = x.clone()
    for i in range(x.shape[0]):
        z = y[:, : some(x)].contiguous()
        z[i] = 0
    return y


@pytest.mark.parametrize("function", [contiguous_of_data, contiguous_of_a_whole, reshaped, flat, in_rounds])
def test_a_write_that_another_may_see_is_refused(function: Callable[[T], T]) -> None:
    """With the line that leaves it open, and what to do."""
    line = r"test_layouts\.py:\d+.*(contiguous|reshape|flatten)[\s\S]*clone"
    with pytest.raises(DataDependentError, match=line):
        capture(function, (random(4, 3),))


case = Cases()


@case(*SIGNS)
def nobody_reads_it(x: T) -> T:
    y = (x * 2)[:, : some(x)].contiguous()
    y += 1
    return y


@case(*SIGNS)
def nobody_writes(x: T) -> tuple[T, T]:
    y = x.clone()
    return y[:, : some(x)].contiguous() + 1, y.t().reshape(-1) + y.sum()


@case(*SIGNS)
def copied(x: T) -> tuple[T, T]:
    y = x.clone()
    z = y[:, : some(x)].clone().contiguous()
    z += 1
    return y, z


@case(*SIGNS)
def surely_a_view(x: T) -> tuple[T, T]:
    y = torch.stack([x, x + 1], 1)
    y.reshape(-1, 3)[0] = 5
    y[:, 0].reshape(x.shape[0], -1, 1).mul_(2)
    y.flatten(1)[0, 1] = 7
    y.contiguous().add_(1)
    return y, y.reshape(-1)


@case(*SIGNS)
def surely_a_copy(x: T) -> tuple[T, T]:
    three = torch.stack([x[:, 0], x[:, 1], x[:, 2]], 1)
    y = torch.stack([three, three + 1], 1)
    z = y.transpose(1, 2).contiguous()
    z += 1
    return y, z


@case(*(random(n) for n in (4, 1, 2)))
def copied_of_one_repeated(x: T) -> tuple[T, T]:
    y = x.clone()
    z = y.expand(3, y.shape[0]).contiguous()
    z += 1
    return y, z


@case.parametrize()
def test_what_is_known_is_as_in_eager(case: Case) -> None:
    """A view, a copy, or memory that is of no interest."""
    check(case)


@pytest.mark.parametrize("rows", [1, 4])
def test_the_example_says_nothing(rows: int) -> None:
    """One row is laid out as it is wanted; others are not."""

    def model(x: T) -> Any:
        y = x[:, :2].contiguous()
        y += 1
        return x

    with pytest.raises(DataDependentError, match="contiguous"):
        capture(model, (random(rows, 3),))


def flat_of_several(x: T) -> tuple[T, T]:
    y = x.clone()
    z = y.t().reshape(-1)
    z += 1
    return y, z


def contiguous_of_several(x: T) -> tuple[T, T]:
    y = x.clone()
    z = y.t().contiguous()
    z += 1
    return y, z


def heads_of_several(x: T) -> tuple[T, T]:
    y = torch.stack([x, x, x, x])
    z = y.reshape(2, 2, *x.shape).transpose(1, 2).reshape(2, x.shape[0], -1)
    z += 1
    return y, z


def repeated_of_several(x: T) -> tuple[T, T]:
    y = x.clone()
    z = y.unsqueeze(1).expand(-1, 4, -1).reshape(-1, y.shape[1])
    z += 1
    return y, z


@pytest.mark.parametrize(
    "function", [flat_of_several, contiguous_of_several, heads_of_several, repeated_of_several]
)
def test_declared_sizes_say_that_it_is_a_copy(function: Callable[[T], tuple[T, T]]) -> None:
    """Of two rows and columns or more it is one; of others it may be a view."""
    several = ingot.Input("float32", [ingot.Dim("a", min=2), ingot.Dim("b", min=2)])
    captured = capture(function, (several,))
    inputs = [(torch.randn(a, b),) for a in (2, 3) for b in (2, 5)]
    check(Case(function.__name__, lambda: function, inputs), captured=captured)
    with pytest.raises(DataDependentError, match="whose memory"):
        capture(function, (ingot.Input("float32", ["a", "b"]),))


def pairs(x: T) -> T:
    return torch.stack([x, x + 1]).t().reshape(-1)


def heads(x: T) -> T:
    y = (x * 2).reshape(x.shape[0], -1, 4, 8).transpose(1, 2)
    return (y @ torch.eye(8)).transpose(1, 2).reshape(x.shape[0], -1, 32)


@pytest.mark.parametrize(("function", "shapes"), [(pairs, [(1,), (5,)]), (heads, [(2, 96), (1, 64)])])
def test_strides_are_compared_only_where_that_tells_something(
    function: Callable[[T], T], shapes: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the example has a view (of one pair), nobody asks which sizes copy; and surely none do of which
    one may be 1, as the rows of the heads.
    """
    asked: list[Any] = []
    monkeypatch.setattr(layouts._Formulas, "differ", lambda _, a, b: asked.append((a, b)))
    check(Case(function.__name__, lambda: function, [(random(*shape),) for shape in shapes]))
    assert not asked, f"{asked}: each costs SymPy's time, and deep models have hundreds of them"


def steps(x: T) -> T:
    return x * 2 + x.stride(0)


def steps_of_a_view(x: T) -> T:
    return x + x.t().stride(1) + x.storage_offset()


@pytest.mark.parametrize("function", [steps, steps_of_a_view])
def test_how_inputs_lie_is_noted(function: Callable[[T], T]) -> None:
    """As ONNX has them; an example that lies otherwise is refused at the line."""
    captured = check(
        Case(function.__name__, lambda: function, [(random(n, m),) for n in (4, 1) for m in (3, 1)])
    )
    assert [(a.kind, a.status) for a in captured.assumptions if "memory" in a.what][:1] == [
        ("values", "fixed")
    ]
    with pytest.raises(DataDependentError, match=r"test_layouts\.py:\d+.*\n.*example's 'x'.*contiguous"):
        capture(function, (random(3, 4).t(),))


def step_of_a_contiguous_one(x: T) -> T:
    return x * x.t().contiguous().stride(0)  # itself, where it has one row


def step_of_a_result_in_another_order(x: T) -> T:
    return x + (x.t() + 1).stride(0)


def address(x: T) -> T:
    return x * 2 if x.view(-1).data_ptr() == x.data_ptr() else x


def memory(x: T) -> T:
    y = x + 1
    return y if y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() else x


class Tied(nn.Module):
    """Asks whether two layers have one weight."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, 3), nn.Linear(3, 3)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: T) -> T:
        is_tied = self.head.weight.data_ptr() == self.embed.weight.data_ptr()
        return self.head(self.embed(x)) * (2.0 if is_tied else 3.0)


@pytest.mark.parametrize("tied", [True, False])
def test_where_weights_lie(tied: bool) -> None:
    """They lie somewhere, whatever the inputs are."""
    check(Case("Tied", lambda: Tied(tied), [(random(n, 3),) for n in (4, 1)]))


@pytest.mark.parametrize(
    "function", [step_of_a_contiguous_one, step_of_a_result_in_another_order, address, memory]
)
def test_what_no_sizes_say_is_refused(function: Callable[[T], T]) -> None:
    """Where a tensor lies, or how one that sizes decide about."""
    with pytest.raises(DataDependentError, match=r"test_layouts\.py:\d+.*\nThis line asks"):
        capture(function, (random(3, 4),))


def fast_where_contiguous(x: T) -> T:
    """Slices where memory is read in its order, else a filter: other operators for one result."""
    if x.is_contiguous() and x.dtype == torch.float32:
        return (x[:, 1:] + x[:, :-1]) / 2
    return nn.functional.avg_pool1d(x[:, None], 2, 1)[:, 0]


def fast_of_a_result(x: T) -> T:
    """The same of what an operator gives."""
    return fast_where_contiguous(x.exp() * x[:, :1])


@pytest.mark.parametrize("function", [fast_where_contiguous, fast_of_a_result])
def test_whether_an_input_is_contiguous_is_noted(function: Callable[[T], T]) -> None:
    """Inputs of a model always lie as they are counted; an example that does not is no such input."""
    check(Case("fast", lambda: function, [(random(*size),) for size in ((3, 4), (1, 5), (6, 2))]))
    (noted,) = [a for a in capture(function, (random(3, 4),)).assumptions if a.kind == "values"]
    assert noted.status == "fixed" and "as they do in ONNX" in noted.what
    with pytest.raises(DataDependentError, match="This line asks how a tensor lies in memory"):
        capture(function, (random(4, 3).t(),))
