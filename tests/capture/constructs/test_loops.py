"""`while` and `for` that run as often as data or a size says."""

# The constructs are written as people write them.
# ruff: noqa: SIM108, B905

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import ingot
from tests.capture.constructs.support import (
    Case,
    Cases,
    T,
    both_signs,
    check,
    lengths,
    negative,
    positive,
    random,
)

case = Cases()
ROWS = lengths()
SMALL = [positive(5, 3) * k for k in (0.01, 1, 100)] + [positive(1, 3), positive(2, 3) * 0.1]
COUNTS = [torch.tensor(n) for n in (3, 0, 1, 7)]


@case(*SMALL)
def while_loop(x: T) -> tuple[T, int]:
    n = 0
    while x.sum() < 10:
        x = x * 1.5 + 0.1
        n += 1
    return x, n


@case(*SMALL)
def while_true_with_break(x: T) -> tuple[T, int]:
    i = 0
    while True:
        x = x * 2
        i = i + 1
        if x.sum() > 300:
            break
        x = x + 1
    return x, i


@case(*SMALL)
def while_with_continue(x: T) -> T:
    i = 0
    y = x * 0
    while i < int(x.sum().clamp(max=9)):
        i += 1
        if i == 2:
            continue
        y = y + x * i
    return y


@case(*SMALL)
def while_else(x: T) -> T:
    n = 0
    while x.sum() < 10:
        x = x * 2 + 0.1
        n += 1
        if n > 3:
            break
    else:
        x = x + 1000
    return x


@case(*SMALL)
def while_with_a_float(x: T) -> T:
    rate = 1.0
    while (x * rate).abs().sum() > 1:
        rate = rate / 2
    return x * rate


@case(*SMALL)
def while_with_and(x: T) -> T:
    i = 0
    while x.sum() < 50 and i < 4:
        x = x * 2
        i += 1
    return x * i


@case(*COUNTS)
def for_range_of_a_tensor(n: T) -> T:
    y = torch.zeros(3)
    for i in range(n):
        y = y + i * 2
    return y


@case(*COUNTS)
def for_range_int(n: T) -> T:
    y = torch.zeros(3)
    for i in range(int(n)):
        y = y + i * 2
    return y


@case(*COUNTS)
def for_range_item_with_start_and_step(n: T) -> T:
    y = torch.zeros(3)
    for i in range(1, n.item() * 3, 2):
        y = y * 2 + i
    return y


@case(*COUNTS)
def for_range_backwards(n: T) -> T:
    y = torch.zeros(3)
    for i in range(n.item() - 1, -1, -1):
        y = y * 2 + i
    return y


@case(*ROWS)
def for_rows(x: T) -> T:
    h = torch.zeros(3)
    for row in x:
        h = (h + row).relu()
    return h


@case(*ROWS)
def for_rows_with_a_branch(x: T) -> T:
    h = torch.zeros(3)
    for row in x:
        if row.sum() > 0:
            h = h * 2 + row
        else:
            h = h - row
    return h


@case(*ROWS)
def for_rows_with_break(x: T) -> T:
    h = torch.zeros(3)
    for row in x:
        if row.sum() > 1:
            break
        h = h + row
    return h


@case(*ROWS)
def for_rows_with_continue(x: T) -> T:
    h = torch.zeros(3)
    for row in x:
        if row.sum() > 0:
            continue
        h = h * 0.5 + row
    return h


@case(*ROWS)
def for_rows_with_return(x: T) -> T:
    for row in x:
        if row.sum() > 1:
            return row
    return torch.zeros(3)


@case(*ROWS)
def for_rows_with_else(x: T) -> T:
    y = x.sum(0)
    for row in x:
        if row.sum() > 1:
            y = row
            break
    else:
        y = y * 10
    return y


@case(*ROWS)
def for_enumerate_of_rows(x: T) -> T:
    h = torch.zeros(3)
    for i, row in enumerate(x):
        h = h + row * i
    return h


@case(*[(a, b) for a in lengths() for b in (random(4, 3), random(7, 3))])
def for_zip_of_rows(x: T, y: T) -> T:
    h = torch.zeros(3)
    for a, b in zip(x, y):
        h = h + a * b
    return h


@case(*ROWS)
def for_zip_with_a_list(x: T) -> T:
    h = torch.zeros(3)
    for a, k in zip(x, [1.0, 2.0, 3.0]):
        h = h + a * k
    return h


@case(*ROWS)
def for_reversed_rows(x: T) -> T:
    h = torch.zeros(3)
    for row in reversed(x):
        h = h * 2 + row
    return h


@case(*ROWS)
def for_range_of_a_size(x: T) -> T:
    acc = torch.zeros(3)
    for i in range(x.shape[0]):
        acc = acc * 0.5 + x[i] * i
    return acc


@case(*ROWS)
def for_range_of_a_size_by_two(x: T) -> T:
    acc = torch.zeros(3)
    for i in range(0, x.shape[0], 2):
        acc = acc * 0.5 + x[i]
    return acc


@case(*ROWS)
def for_nested(x: T) -> T:
    acc = torch.zeros(3)
    for i in range(x.shape[0] - 1, -1, -1):
        for j in range(i):
            if (x[i] - x[j]).sum() > 0:
                acc = acc + x[i] * j
    return acc


@case(*both_signs(), positive(3, 3) * 50, random(7, 3) * 3)
def for_known_range_with_everything(x: T) -> T:
    y = x
    for i in range(3):
        if y.sum() < -5:
            continue
        y = y * 2 - i
        if y.sum() > 100:
            break
        if (y[0] < -2).all():
            return y * 0
    return y + 1


@case(*both_signs())
def for_known_list_with_break(x: T) -> T:
    for k in [1.0, 2.0, 3.0]:
        x = x * k
        if x.sum() > 5:
            break
    return x


@case(*both_signs())
def for_else_of_a_known_loop(x: T) -> T:
    for k in (1, 2, 3):
        if x.sum() > k * 3:
            break
    else:
        x = x - 100
    return x


@case(*ROWS)
def while_over_rows_with_return(x: T) -> T:
    i = 0
    while i < x.shape[0]:
        if x[i].sum() > 2:
            return x[i]
        i += 1
    return x.sum(0)


@case(*ROWS)
def loop_in_branch(x: T) -> tuple[T, T]:
    r = torch.tensor(0)
    if x.sum() > 0:
        for i in range(3):
            while x.sum() < 30 + i:
                x = x + i + 1
                r = r + 2
    else:
        for row in x:
            if row.sum() < -4:
                break
            r = r + 1
    return x, r


@case(*lengths())
def grows_in_a_loop(x: T) -> T:
    y = x
    n = 0
    while y.shape[0] < 12 and n < 5:
        y = torch.cat([y, x + n])
        n += 1
    return y


@case(*both_signs())
def grows_as_data_says(x: T) -> T:
    y = x
    while y.abs().sum() < 40:
        y = torch.cat([y, x * 2])
    return y


@case(*ROWS)
def last_value_of_a_loop_variable(x: T) -> T:
    for row in x:
        last = row * 2
    return last + row


@case(*ROWS)
def accumulates_from_none(x: T) -> T:
    acc = None
    for row in x:
        acc = row if acc is None else acc + row * 2
    return acc


@case(*ROWS)
def accumulates_from_a_number(x: T) -> T:
    total = 0
    for row in x:
        total = total + row
    return total


@case(*ROWS)
def accumulates_a_scalar_from_a_number(x: T) -> T:
    total = 0.0
    for row in x:
        total = total + row.sum()
    return x + total


@case(*ROWS)
def counts_rows(x: T) -> T:
    n = 0
    for row in x:
        if row.sum() > 0:
            n += 1
    return x * n


@case(*ROWS)
def keeps_the_best(x: T) -> tuple[T, int]:
    best = x[0]
    at = 0
    for i, row in enumerate(x):
        if row.sum() > best.sum():
            best = row
            at = i
    return best, at


@case(*ROWS)
def swaps_in_a_loop(x: T) -> T:
    a, b = torch.zeros(3), torch.ones(3)
    for row in x:
        a, b = b, a + row
    return a - b


@case(*ROWS)
def tuple_carried(x: T) -> T:
    state = (torch.zeros(3), torch.ones(3))
    for row in x:
        state = (state[0] + row, state[1] * 0.5)
    return state[0] * state[1]


@case(*ROWS)
class RecurrentCell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 3)

    def forward(self, x: T) -> T:
        h = torch.zeros(1, 3)
        for t in range(x.shape[0]):
            h = self.cell(x[t : t + 1], h)
        return h


@case(*[positive(5, 3) * k for k in (1, 10, 0.1)])
class NewtonIterations(nn.Module):
    def forward(self, x: T) -> T:
        y = x
        for _ in range(20):
            new = 0.5 * (y + x / y)
            if (new - y).abs().max() < 1e-3:
                break
            y = new
        return y


@case(*[torch.full((n, 3), v) for n, v in ((4, 2.0), (1, 0.5), (2, 3.0), (5, 1.2))])
def everything_so_far_is_returned(x: T) -> tuple[T, T, int]:
    z, seen = torch.zeros(3), []
    for k in range(1, 31):
        z = z * 0.5 + x.mean(0)
        seen.append(z.norm())
        if seen[-1] > 4:
            return z, torch.stack(seen), k
    else:
        return z, torch.stack(seen), -1


@case(*[(random(5, 3), torch.tensor(k)) for k in (2, 0, 5)])
def layers_as_often_as_said(x: T, n: T) -> T:
    w = torch.eye(3) * 0.5 + 0.1
    for _ in range(n):
        x = (x @ w).tanh()
    return x


@case(*[negative(4, 3), positive(4, 3), positive(2, 3) * 0.2])
def break_out_of_two_loops(x: T) -> T:
    found = False
    y = x
    for i in range(3):
        for j in range(3):
            y = y + i * j
            if y.sum() > 20:
                found = True
                break
        if found:
            break
    return y * (2 if found else 1)


@case(random(8, 4), random(1, 4), random(5, 4), random(3, 4))
class pairs_until_one_is_left(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.merge = nn.Linear(8, 4)

    def forward(self, x: T) -> T:
        while x.shape[0] > 1:
            odd = x[-1:] if x.shape[0] % 2 else x[:0]
            n = x.shape[0] // 2 * 2
            x = torch.cat([torch.tanh(self.merge(torch.cat([x[0:n:2], x[1:n:2]], 1))), odd])
        return x[0]


@case(positive(5), positive(2), positive(9))
def the_two_smallest_are_merged(v: T) -> T:
    total = torch.zeros(())
    while v.numel() > 1:
        s, _ = v.sort()
        new = s[0] + s[1]
        total = total + new
        v = torch.cat([s[2:], new[None]])
    return total


@case((random(4, 4), random(4)), (random(1, 1), random(1)), (random(7, 7), random(7)))
def conjugate_gradients(a: T, b: T) -> T:
    a = a @ a.T + torch.eye(a.shape[0]) * 3
    x, r = torch.zeros_like(b), b
    p, rs = r, r @ r
    for _ in range(b.shape[0] * 2):
        ap = a @ p
        alpha = rs / (p @ ap)
        x, r = x + alpha * p, r - alpha * ap
        n = r @ r
        if n.sqrt() < 1e-5:
            break
        p, rs = r + (n / rs) * p, n
    return x


@case((random(5, 3), random(3, 3)), (random(1, 3), random(3, 3)), (random(8, 3), random(3, 3)))
def viterbi(emitted: T, moves: T) -> tuple[T, T]:
    s, back = emitted[0], []
    for x in emitted[1:]:
        v, i = (s[:, None] + moves).max(0)
        back.append(i)
        s = v + x
    best = s.argmax()
    path = [best]
    for pointers in reversed(back):
        best = pointers[best]
        path.append(best)
    path.reverse()
    return torch.stack(path), s.max()


@case(
    torch.tensor([0, 0, 1, 0, 1]), torch.tensor([0, 0, 1]), torch.tensor([0]), torch.tensor([0, 0, 0, 1, 1])
)
class shift_and_reduce(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.merge = nn.Embedding(8, 4), nn.Linear(8, 4)

    def forward(self, actions: T) -> tuple[T, T]:
        stack, i = [], 0
        for action in actions:
            if action == 0:
                stack.append(self.words(torch.tensor(i)))
                i += 1
            else:
                right = stack.pop()
                left = stack.pop()
                stack.append(torch.tanh(self.merge(torch.cat([left, right]))))
        return stack[-1], torch.tensor(len(stack))


@case(random(4, 3), random(6, 3), random(1, 3))
def variable_of_a_loop_and_of_a_lambda(x: T) -> tuple[T, T]:
    total = torch.zeros(())
    for v in x:
        total = total + v.sum()
    for v in x.flatten():  # another kind of value, of which no lambda has the other's
        total = total + v * 2
    return total, torch.stack(sorted(x.sum(1), key=lambda v: -v))


@case(random(4, 3), random(6, 3), random(1, 3))
def variable_of_a_loop_and_of_a_comprehension(x: T) -> T:
    total = torch.zeros(())
    for v in x:
        total = total + v.sum()
    for v in x.flatten():
        total = total + v * 2
    return total + sum(v.max() for v in x) + torch.stack([v * 2 for v in x]).sum()


@case.parametrize()
def test_loops(case: Case) -> None:
    """As many rounds as the inputs say, none among them."""
    check(case)


def _collatz(n: int) -> int:
    c = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        c += 1
    return c


def test_a_loop_called_inside_a_lambda() -> None:
    """The lambda is rewritten too, again and again, and each form holds operands at the places of others."""
    program = ingot.export(lambda n: torch.as_tensor(_collatz(n.item())), (torch.tensor(6),))
    session = program.session()
    for n in (1, 6, 7, 27):
        assert session.run(None, {session.get_inputs()[0].name: np.array(n)})[0] == _collatz(n)
