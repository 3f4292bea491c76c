"""Where Python raises for what data decides, the run fails; and where its whole numbers have more than
64 bits, which it does not mind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import ingot
from ingot.calls import ingot_runner
from ingot.capture.attempt import capture
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, random

SIGNS = both_signs()
NAN, INF = math.nan, math.inf
NUMBERS = [torch.tensor([n, 1.0]) for n in (2.5, -2.5, 0.0, NAN, INF, -INF, 1e30, 9e18)]
case = Cases()


# -- None


@case(*SIGNS)
def none_in_arithmetic(x: T) -> T:
    h = None
    if x.sum() > 0:
        h = x.tanh()
    return h * 2  # type: ignore[operator, no-any-return]


@case(*SIGNS)
def none_given_to_a_function(x: T) -> T:
    h = x if x.sum() > 0 else None
    return torch.relu(h)  # type: ignore[arg-type]


@case(*SIGNS)
def a_method_of_none(x: T) -> T:
    h = x if x.sum() > 0 else None
    return h.mean(0)  # type: ignore[union-attr]


@case(*SIGNS)
def an_element_of_none(x: T) -> T:
    h = (x, x + 1) if x.sum() > 0 else None
    return h[1] + x  # type: ignore[index, no-any-return]


@case(*SIGNS)
def none_among_numbers(x: T) -> T:
    n = 3 if x.sum() > 0 else None
    return torch.tensor([x.shape[0], n])


@case(*SIGNS)
def none_taken_apart(x: T) -> T:
    h = (x, x + 1) if x.sum() > 0 else None
    a, b = h  # type: ignore[misc]
    return a * b


@case(*SIGNS)
def rows_of_none(x: T) -> T:
    h = x if x.sum() > 0 else None
    total = x.new_zeros(3)
    for row in h:  # type: ignore[union-attr]
        total = total + row
    return total


@case(*SIGNS)
def none_where_it_is_not_used(x: T) -> T:
    h = x if x.sum() > 0 else None
    return x * 2 if x.sum() <= 0 else h * 3  # type: ignore[operator, no-any-return]


@case(*SIGNS)
def a_number_that_is_none(x: T) -> T:
    n = int(x.argmax()) if x.sum() > 0 else None
    return x + n  # type: ignore[operator, no-any-return]


@case(*SIGNS)
def none_of_a_loop(x: T) -> T:
    best = None
    for row in x:
        if row.sum() > 0:
            best = row
    return best * 2  # type: ignore[operator, no-any-return]


@case(*SIGNS, random(0, 3))
def none_before_a_loop(x: T) -> tuple[T, T]:
    best, first, n = None, None, 0
    for i in range(x.shape[0]):
        first = x[i] if first is None else first + 1
        if x[i].sum() > 0:
            n += 1
            if n == 2:
                best = x[i]
                break
    return (x.new_zeros(3) if best is None else best), first * 2  # type: ignore[operator]


@case(*SIGNS)
def none_behind_another_question(x: T) -> T:
    h, there = None, x.sum() > 0
    if there:
        x = x * 3
        if x[0].mean() > 0.5:
            h = x * 2
    if there:
        return h + 1  # type: ignore[operator, no-any-return]
    return x


@case(*SIGNS, random(0, 3))
def none_that_rounds_change(x: T) -> tuple[int, T, T]:
    h = x.mean(0) if x.sum() > 0 else None
    last, n = h, 0
    for row in x:
        n += h is None
        h = row if row.sum() > 0 else None
        last = row
    return n, (x.sum() if h is None else h.sum()), (x.sum() if last is None else (last * 2).sum())


@case(*SIGNS)
def a_place_that_is_none(x: T) -> T:
    rows = [x, x + 1, x + 2]
    n = int(x[0].argmax()) if x.sum() > 0 else None
    return rows[n]  # type: ignore[index]


class Reset(torch.nn.Module):
    """A layer of PyTorch's whose state data takes away."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = torch.nn.GRU(3, 4)

    def forward(self, x: T) -> T:
        state, out = None, []
        for row in x.unbind(0):
            if row.sum() > 0:
                state = None
            y, state = self.cell(row[None, None], state)
            out.append(y)
        return torch.cat(out)


case(*(random(3, 3, seed=n) for n in range(4)))(Reset)


@case(*SIGNS)
def an_end_that_is_none(x: T) -> tuple[T, T]:
    n = x.argmax(1)[0].item() if x.sum() > 0 else None
    return x[:, :n], x[:, n:]


@case.parametrize()
def test_none_stops(case: Case) -> None:
    """What raises in eager fails at a check."""
    check(case)


unbound = Cases()


@unbound(*SIGNS, random(0, 3))
def unbound_on_one_side(x: T) -> T:
    if x.sum() > 0:
        y = x * 2
    return y + 1


@unbound(*SIGNS, random(0, 3))
def unbound_without_rounds(x: T) -> T:
    for row in x:
        last = row * 2
    return last


@unbound(*SIGNS, random(0, 3))
def unbound_in_every_round(x: T) -> tuple[T, int]:
    for i, row in enumerate(x):
        if row.sum() > 0:
            last, place = row, i
    return last * 2, place


@unbound(*SIGNS, random(0, 3))
def unbound_where_it_grows(x: T) -> T:
    for row in x:
        if row.sum() > 0:
            total = 1.5
        total += row[0].item()
    return x * total


@unbound(*SIGNS)
def unbound_in_a_comprehension(x: T) -> list[T]:
    if x.sum() > 0:
        k = x[0]
    return [k * i for i in range(3)]


@unbound(*SIGNS)
def unbound_in_a_sum(x: T) -> T:
    if x.sum() > 0:
        k = x[0]
    return sum((k * i for i in range(3)), x[0])


@unbound(*SIGNS)
def unbound_in_a_function(x: T) -> T:
    if x.sum() > 0:
        k = x[0]
    return (lambda v: v * k)(x)


@unbound(*SIGNS)
def unbound_in_a_function_of_its_own(x: T) -> T:
    def scaled(v: T) -> T:
        return v * k

    if x.sum() > 0:
        k = x[0]
    return scaled(x)


@unbound(*SIGNS)
def unbound_behind_and(x: T) -> T:
    if x.sum() > 0 and (y := x * 2).sum() < 1e9:
        x = x + 1
    return x + y


@unbound(*SIGNS)
def unbound_behind_a_ternary(x: T) -> T:
    z = (y := x * 2) if x.sum() > 0 else x
    return z + y


@unbound(*SIGNS)
def unbound_where_it_is_deleted(x: T) -> T:
    y = x * 2
    if x.sum() > 0:
        del y
    return y


@unbound(*SIGNS)
def bound_where_both_hold(x: T) -> T:
    if x.sum() > 0 and (y := x * 2).sum() < 1e9:
        return y + 1
    if not (x.sum() > -1 or (z := x * 3).sum() > 0):
        return z
    return x


@unbound(*SIGNS)
def bound_by_its_condition(x: T) -> T:
    if (y := x * 2).sum() > 0:
        x = x + 1
    while (n := x.abs().sum()) > 100:
        x = x / 2
    return x + y + n


@unbound(*SIGNS)
def bound_when_it_is_called(x: T) -> tuple[T, list[T]]:
    def scaled(v: T) -> T:
        return v * k

    k = x[0] if x.sum() > 0 else x[-1]
    return scaled(x), [y for i in range(3) if (y := x * i) is not None]


@unbound(*SIGNS, random(0, 3))
def bound_by_a_break(x: T) -> tuple[T, int]:
    for i in range(12):
        y = x + i
        if y.sum() > 5:
            break
    return y, i


@unbound(*SIGNS, random(0, 3))
def bound_where_it_is_asked(x: T) -> T:
    there = x.sum() > 0
    if there:
        y = x * 2
    return y if there else x


@unbound.parametrize()
def test_variables_without_a_value_stop(case: Case) -> None:
    """Where Python finds none."""
    checked = [a for a in check(case).assumptions if a.kind == "condition"]
    assert bool(checked) == case.name.startswith("unbound")


asked = Cases()


@asked(*SIGNS)
def asked_before(x: T) -> T:
    h = x.tanh() if x.sum() > 0 else None
    if h is not None:
        x = h * 2 + h
    return x


@asked(*SIGNS)
def asked_and_made(x: T) -> T:
    h = x.tanh() if x.sum() > 0 else None
    if h is None:
        h = x * 0.5
    return h + x


@asked(*SIGNS)
def asked_by_a_return(x: T) -> T:
    h = x.tanh() if x.sum() > 0 else None
    if h is None:
        return x
    return h + x


@asked(*SIGNS)
def asked_beside(x: T) -> T:
    h = x.tanh() if x.sum() > 0 else None
    return x if h is None or h.sum() < 1 else h * 3


@asked.parametrize()
def test_none_that_was_asked_for_needs_no_check(case: Case) -> None:
    """Nothing is checked twice."""
    assert not [a for a in check(case).assumptions if a.kind == "condition"]


def test_none_is_checked_once() -> None:
    """Every use of a value asks the same."""

    def uses(x: T) -> T:
        h = x.tanh() if x.sum() > 0 else None
        assert h is not None
        y = h * 2
        return y + h.sum() + (h.mean() if x.shape[0] > 2 else h.prod())

    captured = check(Case("uses", lambda: uses, [(v,) for v in SIGNS]))
    assert len([a for a in captured.assumptions if a.kind == "condition"]) == 1


# -- floats that are no numbers

floats = Cases()


@floats(*NUMBERS)
def whole_numbers(x: T) -> T:
    return torch.tensor([int(x[0])])


@floats(*NUMBERS)
def whole_items(x: T) -> tuple[int, int]:
    v = x[0].item()
    return int(v), math.trunc(v / 2)


@floats(*NUMBERS)
def rounded_down(x: T) -> T:
    return x[1:] * math.floor(x[0].item())


@floats(*NUMBERS)
def rounded_up(x: T) -> T:
    return x[1:] * math.ceil(x[0].item())


@floats(*NUMBERS)
def rounded(x: T) -> T:
    return x[1:] * round(x[0].item())


@floats(*NUMBERS)
def rounded_parts(x: T) -> T:
    return x[1:] * math.floor(x[0].item() / 2 + 1)


@floats(*NUMBERS)
def whole_elements(x: T) -> tuple[T, T]:
    v = x[0].item() * 0.25
    return torch.full((2,), v, dtype=torch.int64), torch.tensor(v, dtype=torch.int32)


@floats(*NUMBERS)
def rounded_on_one_side(x: T) -> T:
    n = 3
    if x[0] != 0:
        n = int(x[0] * 2)
    return x[1:] * n


@floats(*NUMBERS)
def turns(x: T) -> T:
    y = x[1:]
    for _ in range(round(min(x[0].item(), 5.0))):
        y = y + 1
    return y


@floats(*NUMBERS)
def numpys_give_floats(x: T) -> tuple[float, float, float]:
    v = x[0].item()
    return float(np.floor(v)), float(np.ceil(v)), float(np.rint(v))


def _of_64_bits(case: Case) -> Case:
    """Without numbers of which Python alone has whole ones."""
    few = [i for i in case.inputs if case.name.startswith("numpys") or not 8e18 < abs(i[0][0]) < INF]
    return Case(case.name, case.make, few)


@floats.parametrize()
def test_what_is_no_number_stops(case: Case) -> None:
    """NaN and infinities, where eager raises."""
    check(_of_64_bits(case))


@pytest.mark.parametrize("name", ["whole_numbers", "whole_items", "rounded_down", "rounded_on_one_side"])
def test_a_float_beyond_64_bits_stops(name: str) -> None:
    """Python alone has a whole number for it."""
    (found,) = [c for c in floats.all if c.name == name]
    with pytest.raises(ingot.IngotError, match=r"test_stops\.py:\d+: .*whole number"):
        _run(found.make(), found.inputs[0], (torch.tensor([1e30, 1.0]),))


@pytest.mark.parametrize(
    "whole",
    [
        lambda x: int(x.argmax().float() * 0.5),
        lambda x: math.floor((x > 0).sum().item() * 1.5),
        lambda x: round(x.to(torch.int32)[0].item() / 3),
        lambda x: int(x.bool()[0].float()),
        lambda x: int(x.shape[0] * 0.3),
    ],
)
def test_what_is_always_a_number_needs_no_check(whole: Callable[[T], Any]) -> None:
    """Counts, truths, sizes, integers of 32 bits."""
    captured = check(Case("whole", lambda: lambda x: x * whole(x), [(torch.tensor([2.0, -1.0]),)]))
    checked = [a for a in captured.assumptions if a.kind == "condition"]
    assert not checked, "the number is known to have 64 bits"


# -- numbers of more than 64 bits

long = Cases()
MANY = [torch.cat([torch.zeros(n), torch.ones(1), torch.zeros(30)]) for n in (0, 3, 5, 6, 7, 11, 30)]


@long(*MANY)
def a_product_that_data_ends(x: T) -> T:
    p = 1
    for i in range(12):
        p *= 1000
        if x[i] > 0.5:
            break
    return x + p % 7


@long(*MANY)
def a_product_of_rounds(x: T) -> T:
    p, i = 1, 0
    while x[i] < 0.5:
        p = p * 1000
        i += 1
    return x + p % 7


@long(*MANY)
def a_sum_of_rounds(x: T) -> T:
    a, b = 3, 5
    for v in x:
        if v > 0.5:
            break
        a, b = b, (a + b) * 1000
    return x + b % 7


@long(*MANY)
def a_shift(x: T) -> T:
    n = x.argmax().item()
    return x + (1 << n * 4) % 7


@long(*MANY)
def a_power(x: T) -> T:
    n = x.argmax().item()
    return x + (1000**n) % 7


@long(*(torch.tensor([n]) for n in (0, 1, 12, 33, 39, 40, 63)))
def another_power(x: T) -> tuple[T, T]:
    return torch.tensor(3 ** x[0].item() % 1000003), torch.tensor(pow(7, x[0].item() // 2) % 1000003)


@long(*MANY)
def a_product_of_items(x: T) -> T:
    n = x.argmax().item() * 10**9
    return x + (n * n * n) % 7


@long(*(torch.tensor([n]) for n in (0, 5, 2**62, 2**63 - 1, -(2**62), -(2**63))))
def a_line(x: T) -> T:
    n = x[0].item()
    return torch.tensor([(2 * n + 1) % 7, (n - 1) % 7, -n % 7])


@long(*(torch.tensor([n, m]) for n in (0, 2**62, -(2**62)) for m in (3, -(2**62), 2**62)))
def a_sum_of_items(x: T) -> T:
    n, m = x.tolist()
    return torch.tensor([(n + m) % 7, (n - m) % 7])


@long(*MANY)
def one_side_is_longer(x: T) -> T:
    n = 10**20 if x[0] > 0.5 else 3
    return x + n % 7


@long(*(torch.tensor([n]) for n in (0, 2**63 - 1, -(2**63))))
def compared_with_more(x: T) -> tuple[bool, bool, bool]:
    n = x[0].item()
    return n < 10**20, n == 10**20, n >= -(10**20)


@long(*(torch.tensor([n, m]) for n in (7, 2**63 - 1, -(2**63)) for m in (3, -1)))
def the_lowest_turned(x: T) -> T:
    n, m = x.tolist()
    return torch.tensor([abs(n) % 7, n // m % 7, n % m])


@long(*(torch.tensor([n, m, 1]) for n in (1, 2**62, -(2**62)) for m in (5, 2**62, -(2**62) - 9)))
def sums_of_lists(x: T) -> T:
    doubled = []
    for v in x.tolist():
        doubled.append(v // 3 * 2)
    return torch.tensor([sum(x.tolist()) % 7, sum(v - 1 for v in x.tolist()) % 7, sum(doubled) % 7])


@long.parametrize()
def test_numbers_of_more_than_64_bits_stop(case: Case) -> None:
    """They are right, or the run fails and names the line."""
    captured = capture(case.make(), case.inputs[0])
    run, right = ingot_runner(captured.model), 0
    for args in case.inputs:
        wanted = case.make()(*args)
        feeds = {k: v.numpy() for k, v in captured.arguments.feeds(args, {}).items()}
        try:
            got = run(feeds, captured.output_names)
        except ingot.IngotError as error:
            assert "64 bits" in str(error), error
            assert "test_stops.py:" in str(error), error
            continue
        right += 1
        for g, w in zip(got, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
            np.testing.assert_array_equal(g, np.asarray(w), err_msg=f"{case.name} on {args}")
    assert right, f"{case.name} gives nothing"


HASHES = [torch.tensor([n, m]) for n in (0, 1, 5, 2**31, 2**62, -3, -(2**63)) for m in (2, 2**40, -1)]
hashes = Cases()


@hashes(*HASHES)
def hashed(x: T) -> tuple[int, ...]:
    n, m = x.tolist()
    h = (n * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFF
    h = (h ^ m * m) & (2**63 - 1)
    return h, (n * n * m + 10**19) % 2**32, (n * m * 3 - 1) & 255, (n + 2**63) & 7, (n**3 | m) & 0xFFFF


@hashes(*(torch.arange(n) for n in (9, 1, 40)))
def hashed_in_rounds(x: T) -> int:
    h = 1469598103934665603
    for v in x:
        h = ((h ^ int(v)) * 1099511628211) & 0x7FFFFFFFFFFFFFFF
        if h == 0:
            break
    return h


@hashes.parametrize()
def test_bits_that_a_mask_takes_away_need_no_check(case: Case) -> None:
    """A sum or product that is then cut to its low bits is right, however large it is."""
    captured = check(case)
    assert not [a for a in captured.assumptions if "64 bits" in a.what]


shifts = Cases()


@shifts(*(torch.tensor([n]) for n in (3, 0, 7, -1, -40)))
def shifted(x: T) -> tuple[int, int]:
    n = x[0].item()
    return 5 << n, 1000 >> n


@shifts.parametrize()
def test_a_negative_shift_stops(case: Case) -> None:
    """As in eager."""
    check(case)


short = Cases()


@short(*MANY)
def counted(x: T) -> tuple[T, int, int, int]:
    n, last, rounds = 0, -1, 3
    for i, v in enumerate(x):
        rounds += 1
        if v > 0.5:
            n += 2
            last = i
        if last > 20:
            n = 0
    return x, n, last, rounds


@short(*MANY)
def counted_in_two_loops(x: T) -> tuple[T, int]:
    n, i = 0, 0
    while x[i] < 0.5:
        j = i
        while j > 2:
            j -= 2
            n += 1
        i += 1
    return x, n * 3 + i


@short(*MANY)
def sizes_added_up(x: T) -> tuple[T, int]:
    total = 0
    for v in x:
        if v < 0.5:
            total += x.shape[0]
    return x, total - x.numel() * 2


@short(*MANY)
def places(x: T) -> T:
    n = x.argmax().item()
    return torch.cat([x[n + 1 :], x[: n * 2 + 1], x[: int((x > 0).sum()) + 1]])


@short(*MANY)
def pairs_of_sizes(x: T) -> tuple[T, int, int]:
    n = x.shape[0]
    m = x[x > 0].shape[0]
    return x, n * (n - 1) // 2 + (n + 1) * (n + 2), (m + 1) * n


@short.parametrize()
def test_counters_need_no_check(case: Case) -> None:
    """Counters, sizes and places are far below 64 bits."""
    checked = [a.what for a in check(case).assumptions if "64 bits" in a.what]
    assert not checked, f"{case.name} is known to have 64 bits"


def _run(module: Any, example: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
    captured = capture(module, example)
    feeds = {k: v.numpy() for k, v in captured.arguments.feeds(args, {}).items()}
    return ingot_runner(captured.model)(feeds, captured.output_names)
