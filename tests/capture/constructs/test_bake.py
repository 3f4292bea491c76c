"""Places where a tracer keeps the example's value for ever: each is right for all inputs, or refused."""

# The constructs are written as people write them.
# ruff: noqa: B007

from __future__ import annotations

import bisect
import dataclasses
import numbers
import struct
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ingot
from ingot.calls import ingot_runner
from ingot.capture.attempt import capture
from ingot.errors import IngotError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, lengths, random
from tests.capture.support import ort_runner, same

case = Cases()
SIGNS = both_signs()
ROWS = lengths()


@case(*SIGNS)
def branch(x: T) -> T:
    return x * 2 if x.sum() > 0 else x


@case(*SIGNS)
def item_times(x: T) -> T:
    return x * x.max().item()


@case(*SIGNS)
def int_of_data(x: T) -> T:
    return x[: int((x > 0).any()) + 1]


@case(*SIGNS)
def f_string_of_data(x: T) -> T:
    table = {"True": 1.0, "False": 2.0}
    return x * table[f"{bool(x.sum() > 0)}"]


@case(*SIGNS)
def format_of_a_number(x: T) -> T:
    return x * float(f"{x.sum().item():.2f}")


@case(*SIGNS)
def numpy_of_data(x: T) -> T:
    return x * float(np.asarray(x).sum())


@case(*SIGNS)
def numpy_function_of_data(x: T) -> T:
    return x + torch.from_numpy(np.sort(x.numpy(), axis=0))


@case(*SIGNS)
def sorted_numbers(x: T) -> T:
    return x * sorted([x.sum().item(), x.mean().item(), 0.0])[0]


@case(*SIGNS)
def max_with_a_key(x: T) -> T:
    return max([x, -x], key=lambda t: float(t.sum()))


@case(*SIGNS)
def set_of_numbers(x: T) -> T:
    return x * len({int(x.sum() > 0), 1})


@case(*SIGNS)
def hash_of_a_number(x: T) -> T:
    return x * (hash(int((x > 0).sum())) % 7)


@case(*SIGNS)
def list_times_a_number(x: T) -> T:
    return torch.tensor([1.0] * int((x > 0).any() + 1)) + x.sum()


@case(*SIGNS)
def isinstance_of_a_number(x: T) -> T:
    n = x.sum().item()
    return x * 2 if isinstance(n, float) else x


@case(*SIGNS)
def equality_of_lists(x: T) -> T:
    return x + 1 if (x[0] > 0).tolist() == [True, True, True] else x


@case(*SIGNS)
def generator_that_branches(x: T) -> T:
    def parts() -> Any:
        if x.sum() > 0:
            yield x
        yield x + 1

    return sum(parts())


@case(*SIGNS)
def raise_that_is_caught(x: T) -> T:
    try:
        if x.sum() > 0:
            raise ValueError
        y = x + 1
    except ValueError:
        y = x * 100
    return y


@case(*SIGNS)
def error_of_an_operator_that_is_caught(x: T) -> T:
    try:
        y = x[: int((x > 0).sum())].reshape(-1, 2)
    except RuntimeError:
        y = x
    return y


@case(*SIGNS)
def bare_except_around_a_branch(x: T) -> T:
    try:
        y = x + 1 if bool(x.sum() > 0) else x
    except:  # noqa: E722
        y = x * 0
    return y


@case(*SIGNS)
def two_types(x: T) -> T:
    y = x if x.sum() > 0 else x.long()
    return y * 1.5


@case(*SIGNS)
def two_ranks(x: T) -> T:
    y = x if x.sum() > 0 else x.sum(0)
    return y * 2


@case(*SIGNS)
def int_or_float(x: T) -> T:
    k = 1 if x.sum() > 0 else 0.5
    return x * k


@case(*SIGNS)
def string_of_a_branch(x: T) -> T:
    name = "relu" if x.sum() > 0 else "tanh"
    return getattr(torch, name)(x)


@case(*SIGNS)
class PythonCounter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: T) -> T:
        self.calls += 1
        return x * self.calls


@case(*SIGNS)
class CounterInABranch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: T) -> T:
        self.calls = 0
        if x.sum() > 0:
            self.calls += 1
        return x * self.calls


@case(*SIGNS)
class HiddenState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.outs: list[T] = []

    def push(self, v: T) -> None:
        self.outs.append(v)

    def forward(self, x: T) -> T:
        self.outs = [x]
        if x.sum() > 0:
            self.push(x)
        return sum(self.outs)


@case(*SIGNS)
def set_in_a_branch(x: T) -> T:
    seen = {1}
    if x.sum() > 0:
        seen.add(2)
    return x * len(seen)


@case(*SIGNS)
def key_in_a_branch(x: T) -> T:
    d = {"a": 1.0}
    if x.sum() > 0:
        d["b"] = 5.0
    return x * sum(d.values())


@case(*SIGNS)
def deleted_in_a_branch(x: T) -> T:
    d = {"a": 1.0, "b": 5.0}
    if x.sum() > 0:
        del d["b"]
    return x * len(d)


@case(*SIGNS)
def attribute_in_a_branch(x: T) -> T:
    class Thing:
        pass

    thing = Thing()
    if x.sum() > 0:
        thing.flag = True  # type: ignore[attr-defined]
    return x * (2 if hasattr(thing, "flag") else 3)


@case(*ROWS)
def list_given_away(x: T) -> T:
    def count(items: list[T]) -> int:
        return len(items)

    outs = []
    for row in x:
        if row.sum() > 0:
            outs.append(row)
    return x * count(outs)


@case(*ROWS)
def pop_from_a_grown_list(x: T) -> T:
    outs = []
    for row in x:
        outs.append(row)
    last = outs.pop()
    return last * 2


@case(*ROWS)
def index_of_the_loop_used_outside(x: T) -> T:
    i = -1
    for i, row in enumerate(x):
        if row.sum() > 0:
            break
    return x * i


@case(*ROWS)
def enumerate_of_rows(x: T) -> T:
    return sum(row * i for i, row in enumerate(x))


@case(*ROWS)
def sum_of_unbind(x: T) -> T:
    return sum(x.unbind(0))


@case(*ROWS)
def list_of_a_tensor(x: T) -> T:
    return list(x)[-1] * len(list(x))


@case(*ROWS)
def size_as_a_dict_key(x: T) -> T:
    return x * {5: 1.0, 3: 2.0}.get(x.shape[0], 0.5)


@case(*ROWS)
def list_times_a_size(x: T) -> T:
    return torch.tensor([2.0] * x.shape[0])[:, None] * x


@case(*ROWS)
def float_of_a_size(x: T) -> T:
    return x / float(x.shape[0]) + 1 / x.shape[0]


@case(*ROWS)
def tensor_of_a_size(x: T) -> T:
    return x * torch.tensor(x.shape[0]) + torch.tensor([x.shape[0], 2]).sum()


@case(*ROWS)
def size_compared_with_a_tensor(x: T) -> T:
    return x + 1 if (x > 0).sum() > x.shape[0] else x


@case(*ROWS)
def identity_with_a_number(x: T) -> T:
    n = x.shape[0]
    return x * 2 if n is 5 else x  # noqa: F632


@case(*ROWS)
def type_of_a_size(x: T) -> T:
    n = x.shape[0]
    return x * 2 if type(n) is int and int is int else x


@case(*ROWS)
def type_of_a_size_among_types(x: T) -> T:
    return x * 2 if type(x.shape[0]) in (int, float) else x


@case(*ROWS)
def abstract_class_of_a_size(x: T) -> T:
    return x * 2 if isinstance(x.shape[0], numbers.Integral) else x


@case(*ROWS)
def int_as_a_dtype_beside_sizes(x: T) -> T:
    return x * int(x.shape[0]) + torch.ones(1, dtype=int)


@case(*ROWS)
def contiguity_of_a_slice(x: T) -> T:
    return x * 2 if x[:, :1].is_contiguous() else x


@case(*ROWS)
def contiguity_that_does_not_matter(x: T) -> T:
    y = x.t()
    if not y.is_contiguous():
        y = y.contiguous()
    return y.reshape(-1)


@case(*ROWS)
def parts_of_a_split(x: T) -> T:
    first, second, third = torch.tensor_split(x, 3)
    return torch.cat([third, first * 2, second * 3])


@case(*ROWS)
def first_part_of_a_split(x: T) -> T:
    return x.tensor_split(2, 0)[0]


@case(*[random(3, n) for n in (5, 1, 2, 4, 8, 12)])
def spectrum_of_a_given_length(x: T) -> T:
    return torch.view_as_real(torch.fft.rfft(x, n=4))


@case(*[random(2, n, m) for n, m in ((6, 5), (4, 4), (8, 9), (1, 2))])
def signal_of_a_given_length(x: T) -> T:
    return torch.fft.irfftn(torch.fft.rfftn(x, s=(7, 3)), s=(5, 4))


@case(*ROWS)
def class_of_a_size(x: T) -> T:
    return x * 2 if x.shape[0].__class__ is int else x


@case(*SIGNS)
def class_of_a_number(x: T) -> T:
    n = int((x > 0).sum())
    return x * 2 if n.__class__ is int else x


@case(*ROWS)
def class_of_a_tensor(x: T) -> T:
    return x * 2 if type(x) is torch.Tensor and x.__class__ is torch.Tensor else x


@case(*ROWS)
def name_of_a_type(x: T) -> T:
    return x * 2 if type(x.shape[0]).__name__ == "int" else x


@case(*ROWS)
def identity_of_a_size(x: T) -> T:
    return x * 2 if id(x.shape[0]) == id(5) else x


@case(*ROWS, random(300, 3))
def identity_of_two_sizes(x: T) -> T:
    n = x.shape[0]
    return x * 2 if n is x.shape[0] else x


@case(*SIGNS)
def identity_of_a_number(x: T) -> T:
    n = int((x > 0).sum())
    return x * 2 if id(n) == id(0) else x


@dataclasses.dataclass(frozen=True)
class Number:
    """Has a hash by its number."""

    n: int


@case(*ROWS)
def dataclass_as_a_key(x: T) -> T:
    return x * {Number(5): 2.0, Number(3): 3.0}.get(Number(x.shape[0]), 1.0)


@case(*SIGNS)
def tuple_as_a_key(x: T) -> T:
    n = int((x > 0).sum())
    return x * {(0, 1): 2.0, (15, 1): 3.0}.get((n, 1), 1.0)


@case(*SIGNS)
def tuple_among_tuples(x: T) -> T:
    n = int((x > 0).sum())
    return x * 2 if (n, 1) in [(0, 1), (3, 1)] else x


@case(*ROWS)
def first_that_fits_a_size(x: T) -> T:
    return x * next(k for k in (1, 2, 4, 8) if k >= x.shape[0])


@case(*SIGNS)
def first_that_fits_a_number(x: T) -> T:
    return x * next((k for k in (1, 4) if k >= x.sum()), 9)


@case(*ROWS)
def sorted_sizes(x: T) -> T:
    return x * sorted([x.shape[0], 3, 4])[0]


@case(*ROWS)
def nearest_to_a_size(x: T) -> T:
    return x * min((1, 4, 7), key=lambda k: abs(k - x.shape[0]))


@case(*ROWS)
def largest_below_a_size(x: T) -> T:
    return x * max([k for k in (1, 2, 4, 6) if k < x.shape[0]], default=0)


@case(*ROWS)
def place_among_sorted(x: T) -> T:
    return x * bisect.bisect([2, 4, 6], x.shape[0])


@case(*ROWS)
def shapes_in_order(x: T) -> T:
    return x * 2 if x.shape < (4, 4) else x


@case(*ROWS)
def place_of_a_size(x: T) -> T:
    return x * tuple(x.shape).index(3)


@case(*ROWS)
def bits_of_a_size(x: T) -> T:
    return x * x.shape[0].bit_length()


@case(*ROWS)
def bytes_of_a_size(x: T) -> T:
    return x * struct.pack("i", x.shape[0])[0] + len(bytes(x.shape[0]))


@case(*SIGNS)
def bytes_of_a_number(x: T) -> T:
    return x * struct.pack("f", x.max().item())[3]


@case(*SIGNS)
def array_of_numbers(x: T) -> T:
    return x * float(np.asarray(x.sum(0).tolist()).sum())


@case(*SIGNS)
def range_of_a_number(x: T) -> T:
    return x.sum() * torch.arange((x > 0).sum().item())


@case(*[random(3, n) for n in (5, 1, 2, 8)])
def stride_of_a_part(x: T) -> T:
    return x * x.stride(0) + x[:, :1].stride(0)


@case(*[random(n, 3) for n in (5, 6, 4)])
def memory_of_a_part(x: T) -> T:
    return x[1:].as_strided((3, 2), (2, 1))


LONG = [random(n, 6) for n in (8, 5, 3, 4, 2, 1, 12)]


@case(*LONG)
def narrowed(x: T) -> T:
    return x.narrow(0, 0, 3)


@case(*LONG)
def windows(x: T) -> T:
    return x.unfold(0, 3, 2)


@case(*LONG)
def reflected(x: T) -> T:
    return nn.functional.pad(x[None], (3, 3, 3, 3), mode="reflect")


@case(*LONG)
def written_where_it_fits(x: T) -> T:
    y = torch.zeros(10, 6)
    y[: x.shape[0]] = x
    return y


@case(*LONG)
def written_at_a_place(x: T) -> T:
    y = x.clone()
    y[2:5] = 1.0
    y[4] = 2.0
    return y


@case(*LONG)
def counted_down(x: T) -> T:
    return torch.arange(x.shape[0], 2, -1) + x.sum()


@case(*LONG)
def spectrogram(x: T) -> T:
    return torch.view_as_real(
        torch.stft(x.reshape(-1), 16, 4, window=torch.ones(16), return_complex=True, center=True)
    )


@case.parametrize()
def test_right_or_refused(case: Case) -> None:
    """Never the example's value for ever: other sizes than those that the model can do fail in it, and an
    assumption says so. A refusal is one of Ingot's own errors and names the line.
    """
    try:
        check(case, narrowed=True, refuses=True)
    except IngotError as error:
        assert "test_bake.py:" in str(error), error


def squeezed(x: T) -> T:
    return x.squeeze(0) * 2


def squeezed_anywhere(x: T) -> T:
    return torch.squeeze(x) * 2


def count_of_chunks(x: T) -> T:
    return x * len(torch.chunk(x, 3))


def halves(x: T) -> T:
    return nn.functional.glu(x, 0)


def upper_part(x: T) -> T:
    return torch.vsplit(x, 2)[0]


@pytest.mark.parametrize(
    ("function", "right", "wrong"),
    [
        (squeezed, (5, 2, 3), (1,)),
        (squeezed_anywhere, (5, 2, 3), (1,)),
        (count_of_chunks, (5, 3, 6, 8), (1, 2, 4)),
        (halves, (4, 2, 6), (1, 3)),
        (upper_part, (4, 2, 6), (1, 3)),
    ],
)
def test_sizes_of_which_it_is_another_model_fail(function: Any, right: Any, wrong: Any) -> None:
    """Ranks and lists of Python's cannot follow a size: the model checks it, and says where."""
    captured = capture(function, (random(right[0], 3),))
    runs = [ort_runner(captured.model), ingot_runner(captured.model)]
    for run in runs:
        for n in right:
            x = random(n, 3)
            same(
                f"{function.__name__} of {n}", run({"x": x.numpy()}, ["output"])[0], function(x).numpy(), 1e-6
            )
        for n in wrong:
            with pytest.raises(Exception):  # noqa: B017  (each runtime has its own)
                run({"x": random(n, 3).numpy()}, ["output"])
                pytest.fail(f"{function.__name__} of {n} gives a result", pytrace=False)


def test_a_relation_is_tried_on_both_of_its_other_sides() -> None:
    """At equal sizes a swap makes no difference."""

    def swapped(x: T) -> T:
        return x * (bisect.bisect([x.shape[0]], x.shape[1]) + 1)

    program = ingot.export(swapped, (random(5, 3),))
    (relation,) = [a for a in program.assumptions if a.kind == "branch"]
    assert relation.status == "checked", relation
