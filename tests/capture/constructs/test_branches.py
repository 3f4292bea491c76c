"""`if` in all its forms under a condition that data decides."""

# The constructs are written as people write them.
# ruff: noqa: SIM108, ARG005, RET504

from __future__ import annotations

import torch
from torch import nn

from tests.capture.constructs.support import Case, Cases, T, both_signs, check, negative, positive, random

case = Cases()
SIGNS = both_signs()
LARGE = [positive(3, 3) * 100, negative(4, 3) * 100]


@case(*SIGNS)
def if_else(x: T) -> T:
    if x.sum() > 0:
        y = x * 2
    else:
        y = x - 1
    return y + 1


@case(*SIGNS)
def if_with_annotated_variables(x: T) -> T:
    w: T
    n: int = 2
    if x.sum() > 0:
        y: T = x * n
        w = y
    else:
        y = x - 1
        w = x
    for row in x:
        total: T = row * 2
        n: int = n + 1
    return y + w * n + total


@case(*SIGNS)
def a_function_that_was_chosen_is_asked_for(x: T) -> T:
    way = torch.exp if x.sum() > 0 else torch.neg
    size = int if x.shape[0] == 1 else str
    y = x * 2 if way is torch.exp else x - 1
    if size is not str:
        y = y * 3
    return y + 1 if torch.neg != way else y


@case(positive(5), negative(6), positive(3))
def a_negative_number_inside_a_branch(x: T) -> T:
    n = int(x.sum() * 10)
    if x.shape[0] > 4:
        return x - 1 if n < 0 else x + 1
    return x * 2


@case(torch.full((4,), 0.5), torch.full((5,), 0.1), torch.full((3,), -0.5))
def a_number_between_two_whole_ones_inside_a_branch(x: T) -> T:
    n = x.sum().item()
    if n > 0:
        return x - 1 if n < 1 else x + 1
    return x * 2


@case(*SIGNS)
def if_alone(x: T) -> T:
    if x.sum() > 0:
        x = x * 2
    return x


@case(*SIGNS, *LARGE)
def if_elif_else(x: T) -> T:
    if x.sum() > 50:
        y = x / 2
    elif x.sum() > 0:
        y = x + 1
    elif x.sum() < -50:
        y = x * 0
    else:
        y = -x
    return y


@case(*SIGNS, *LARGE)
def nested_if(x: T) -> T:
    s = x.sum()
    if s > 0:
        if s > 50:
            y = x / 2
        else:
            y = x + 1
    else:
        y = x * 3
        if s < -50:
            y = y - 7
    return y + s


@case(*SIGNS)
def early_return(x: T) -> T:
    if x.sum() > 0:
        return x * 2
    y = x - 1
    return y.relu() + 3


@case(*SIGNS, *LARGE)
def many_early_returns(x: T) -> T:
    if x.sum() > 50:
        return x
    if x.sum() > 10:
        return x + 1
    if x.sum() > 0:
        return x + 2
    if x.sum() < -50:
        return x + 3
    if x.sum() < -10:
        return x + 4
    return x + 5


@case(*SIGNS, *LARGE)
def return_in_nested_if_only_sometimes(x: T) -> T:
    if x.sum() > 0:
        if x.sum() > 50:
            return x * 10
        x = x + 1
    y = x * 2
    if y.mean() < -20:
        return y
    return y - 1


@case(*SIGNS)
def ternary(x: T) -> T:
    return x * 2 if x.mean() > 0 else -x


@case(*SIGNS)
def ternary_with_numbers(x: T) -> T:
    return x * (3 if x.sum() > 0 else 5) + (0.5 if x.max() > 1 else 1.5)


@case(*SIGNS, *LARGE)
def nested_ternary(x: T) -> T:
    return x if x.sum() > 50 else (x + 1 if x.sum() > 0 else (x - 1 if x.sum() > -50 else x * 0))


@case(*SIGNS, *LARGE)
def and_or_not(x: T) -> T:
    if x.sum() > 0 and not x.max() > 50:
        return x + 1
    if x.sum() < -50 or (x.min() > 0 and x.max() > 100):
        return x + 2
    return x + 3


@case(*SIGNS, *LARGE)
def chained_comparison(x: T) -> T:
    return x + (1 if -5 < x.sum() < 50 else 2)


@case(*SIGNS)
def not_a_tensor(x: T) -> T:
    return x if not (x > 0).any() else x * 2


@case(*SIGNS)
def bool_of_a_tensor(x: T) -> T:
    flag = bool(x.sum() > 0)
    other = bool((x > 1).any())
    if flag and not other:
        return x * 3
    return x


@case(*SIGNS)
def flags_of_both_branches(x: T) -> T:
    y, k, flag = x, 1, False
    if x.sum() > 0:
        y = torch.cat([y, y])
        k = 4
        flag = True
    z = y * k
    if flag:
        z = z + 100
    return z


@case(*SIGNS)
def different_variables_on_each_side(x: T) -> tuple[T, T]:
    b = x
    if x.sum() > 0:
        a = x + 1
        t = a * a
        b = t - a
    else:
        a = x - 1
        k = 3
        a = a * k
    return a + b, a


@case(*SIGNS)
def none_then_tensor(x: T) -> T:
    y = None
    if x.sum() > 0:
        y = x[:1] * 2
    if y is None:
        y = x - 1
    return y


@case(*SIGNS)
def is_not_none(x: T) -> T:
    y = x if x.sum() > 0 else None
    if y is not None:
        return y * 2
    return x - 1


def _half(x: T, mask: T | None) -> T:
    if mask is None:
        return x / 2
    return x * mask


@case(*SIGNS)
def optional_passed_to_a_function(x: T) -> T:
    mask = (x > 0.5).float() if x.sum() > 0 else None
    return _half(x, mask) + 1


@case(*SIGNS)
def different_sizes_on_each_side(x: T) -> T:
    y = x[1:] if x.sum() > 0 else torch.cat([x, x])
    return y * 2


@case(*SIGNS)
def tuples_on_each_side(x: T) -> T:
    a, b = (x, x * 2) if x.sum() > 0 else (-x, x + 1)
    return a - b


@case(*SIGNS)
def dicts_on_each_side(x: T) -> T:
    d = {"a": x, "n": 2} if x.sum() > 0 else {"a": -x, "n": 3}
    return d["a"] * d["n"]


@case(*SIGNS)
def functions_on_each_side(x: T) -> T:
    f = torch.relu if x.sum() > 0 else torch.tanh
    return f(x)


@case(*SIGNS)
def returns_a_tuple(x: T) -> tuple[T, T]:
    if x.sum() > 0:
        return x, x + 1
    return -x, x * 2


@case(*SIGNS)
def returns_a_dict(x: T) -> dict[str, T]:
    if x.sum() > 0:
        return {"a": x, "b": x.sum()}
    return {"a": -x, "b": x.mean()}


@case(*SIGNS)
def a_branch_without_outputs(x: T) -> T:
    if x.sum() > 0:
        pass
    else:
        unused = x * 2  # noqa: F841
    return x + 1


@case(*SIGNS)
def same_value_on_both_sides(x: T) -> T:
    y = x * 2
    if x.sum() > 0:
        z = y
    else:
        z = y
    return z


@case(*SIGNS)
def constants_on_each_side(x: T) -> T:
    w = torch.ones(3) if x.sum() > 0 else torch.full((3,), 2.0)
    return x * w


@case(*SIGNS)
def walrus(x: T) -> T:
    if (s := x.sum()) > 0:
        return x * s
    return x - s


@case(*SIGNS, *LARGE)
def match_on_a_number(x: T) -> T:
    match int(x.sum() > 0) + int(x.sum() > 50):
        case 0:
            return x - 1
        case 1 | 3:
            return x + 1
        case _:
            return x * 0


@case(*SIGNS)
def nested_functions_that_branch(x: T) -> T:
    c = 5

    def local(v: T) -> T:
        if v.max() > 1:
            return v + c
        return v

    return local(x) + local(-x)


@case(*SIGNS)
def lambda_that_branches(x: T) -> T:
    f = lambda v: v + 1 if v.sum() > 0 else v  # noqa: E731
    return f(x) * f(-x)


@case(*SIGNS)
class BranchInASubmodule(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        class Gate(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(3, 3)

            def forward(self, x: T) -> T:
                x = self.layer(x)
                if x.mean() > 0:
                    x = x * 10
                return x

        self.net = nn.Sequential(nn.Linear(3, 3), Gate(), nn.ReLU(), Gate())

    def forward(self, x: T) -> T:
        return self.net(x)


class _Base(nn.Module):
    def forward(self, x: T) -> T:
        return x + 1


@case(*SIGNS)
class SuperAndPrivateNames(_Base):
    def __secret(self, x: T) -> T:
        return x * 3

    def forward(self, x: T) -> T:
        if x.sum() > 0:
            x = super().forward(x)
        return self.__secret(x)


@case(*SIGNS)
class BranchInAHook(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.layer.register_forward_hook(lambda m, a, o: o * 2 if o.sum() > 0 else o - 1)

    def forward(self, x: T) -> T:
        return self.layer(x)


@case(*SIGNS)
class Recursive(nn.Module):
    def down(self, x: T, n: int) -> T:
        if n == 0:
            return x
        if x.sum() > 0:
            return self.down(x - 1, n - 1)
        return self.down(x + 0.5, n - 1) * 2

    def forward(self, x: T) -> T:
        return self.down(x, 3)


@case(*SIGNS)
def with_block_that_branches(x: T) -> T:
    with torch.no_grad():
        if x.sum() > 0:
            return x * 2
        x = x - 1
    return x


@case(*SIGNS)
def try_block_that_branches(x: T) -> T:
    try:
        y = x + 1 if x.sum() > 0 else x - 1
    except ValueError:
        y = x
    finally:
        x = x * 2
    return y + x


@case(*SIGNS)
def else_of_a_try_that_returns(x: T) -> T:
    try:
        if x.sum() > 0:
            return x * 2
    except RuntimeError:
        return x
    else:
        return x * 3


@case(*SIGNS)
def else_of_a_try_in_a_loop(x: T) -> T:
    total = x.sum(0)
    for row in x:
        try:
            if row.sum() > 0:
                continue
        except RuntimeError:
            pass
        else:
            total = total * 2
        total = total + row
    return total


@case(*SIGNS)
def comparison_with_an_element(x: T) -> T:
    if x[0, 0] > x[-1, -1]:
        return x
    return x.flip(0)


@case(*[(random(4, 3), torch.tensor(k)) for k in (0, 1, 2, 7)])
def tensor_as_condition(x: T, n: T) -> T:
    if n:
        return x * n
    return x - 1


@case(*SIGNS)
def torch_equal(x: T) -> T:
    return x + 1 if torch.equal(x, x.abs()) else x - 1


@case(*SIGNS)
def contains(x: T) -> T:
    return x + 1 if 0 in (x > 0).int() else x - 1


@case(*SIGNS)
def branch_after_branch_on_the_same_tensor(x: T) -> T:
    if x.sum() > 0:
        x = x - 3
    if x.sum() > 0:
        x = x - 3
    if x.sum() > 0:
        x = x - 3
    return x


@case(*SIGNS)
def assigned_in_an_operand(x: T) -> T:
    t = torch.zeros(())
    if (s := x.sum()) > 0 and (t := s * 2) > 1:
        return x * t
    return x + s + t


@case(*SIGNS)
def assigned_in_the_condition_of_a_loop(x: T) -> tuple[T, T, int]:
    n = 0
    while (s := x.sum()) > 1 or (n := n + 1) < 3:
        x = x * 0.5
        if x.max() > 2:
            break
    return x, s, n


@case(*SIGNS)
def match_on_data_and_sizes(x: T) -> T:
    match (x.shape[0] > 4, bool(x.sum() > 0)):
        case (True, True):
            y = x + 1
        case (True, _):
            y = x + 2
        case (_, c) if x.max() < -0.2 or c is True:
            y = x + 3
        case _:
            y = x * 2
    return y


@case(*SIGNS)
def guard_with_variables_of_its_own(x: T) -> T:
    match int(x.sum() > 0) + 2:
        case n if any(n > 1 for n in (0, 1)) or max((1, 2), key=lambda n: -n) == 2:
            return x
        case n if n * 2 == sum([n + 1 for n in (0, 2)]):
            return x * n
        case n:
            return x + n


@case(*SIGNS)
def condition_compared_with_true(x: T) -> T:
    c = x.shape[0] > 4
    return x * 2 if c is True else x * 3


class Slotted:
    __slots__ = ("h", "n")

    def __init__(self, h: T) -> None:
        self.h = h
        self.n = 0


@case(*SIGNS)
def attributes_in_slots(x: T) -> tuple[T, int]:
    s = Slotted(x[0])
    if x.sum() > 0:
        s.h = s.h * 2
    for r in x:
        s.h = s.h + r
        s.n += 1
    return s.h, s.n


@case(*SIGNS)
def mask_that_is_none_on_one_side(x: T) -> T:
    mask = None if x.sum() > 0 else torch.ones(x.shape[0], x.shape[0], dtype=torch.bool).tril()
    return nn.functional.scaled_dot_product_attention(x[None], x[None] * 2, x[None], mask)


@case(*SIGNS)
def bounds_of_which_one_may_be_none(x: T) -> T:
    least = x.mean() if x.sum() > 0 else None
    return torch.clamp(x, least, max=x.max() / 2)


@case(*[(torch.tensor(n), positive(3, 3)) for n in (1, 2, 5, 3)])
def match_whose_guard_fails_keeps_the_name(n: T, x: T) -> T:
    k = 7
    match n.item():
        case 1 | 2 as k if k > 1:
            return x * k
        case m if m > 4:
            return x - m
        case 1:
            return x + k * m
    return x - k + m


@case.parametrize()
def test_branches(case: Case) -> None:
    """Both sides of every branch, in several sizes."""
    check(case)
