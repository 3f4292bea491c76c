"""Loops that data ends before Python would, first rounds that differ, functions that call themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ingot
from tests.capture.constructs.support import Case, Cases, T, check, lengths, positive, random

case = Cases()
SMALL = [positive(5, 3) * k for k in (0.01, 1, 100)] + [positive(1, 3), positive(2, 3) * 0.1]


@case(*SMALL)
def newton(x: T) -> T:
    y = x * 0.5 + 0.1
    for _ in range(100):
        new = (y + x / y) / 2
        if (new - y).abs().max() < 1e-4:
            break
        y = new
    return y


@case(*SMALL)
def returns_from_a_round(x: T) -> tuple[T, int]:
    y = x * 0.5 + 0.1
    for i in range(60, 0, -1):
        new = (y + x / y) / 2
        if (new - y).abs().max() < 1e-4:
            return new, i
        if i % 2:
            continue
        y = new
    return y, -1


@case(*SMALL)
def numbers_of_python_are_carried(x: T) -> tuple[T, float]:
    rate, momentum, v = 1.0, 0.9, torch.zeros_like(x)
    for step in range(40):
        v = momentum * v + rate * x
        x = x - 0.1 * v
        rate = rate / (1 + 0.1 * step)
        if x.abs().max() < 0.5:
            break
    return x, rate


class Greedy(nn.Module):
    """A list that grows, in each round with a token that the round before has chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.cell = nn.Embedding(9, 4), nn.GRUCell(4, 4)
        self.out = nn.Linear(4, 9)

    def forward(self, h: T) -> T:
        """Tokens, at most 30."""
        token = torch.zeros(h.shape[0], dtype=torch.long)
        tokens = []
        for _ in range(30):
            h = self.cell(self.embedding(token), h)
            token = self.out(h).argmax(-1)
            tokens.append(token)
            if (token == 3).all():
                break
        return torch.stack(tokens, 1)


class WithoutAState(nn.Module):
    """An LSTM that begins without a state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 3, batch_first=True)

    def forward(self, x: T) -> T:
        """The outputs, at most 20."""
        state, at, outs = None, x[:, None], []
        for _ in range(20):
            at, state = self.rnn(at, state)
            outs.append(at)
            if at.abs().max() < 0.1:
                break
        return torch.cat(outs, 1)


case(*[random(n, 4, seed=n) for n in (3, 1, 2)])(Greedy)
case(*lengths()[:4])(WithoutAState)


@case.parametrize()
def test_many_rounds_are_a_loop(case: Case) -> None:
    """A hundred rounds written out would be a hundred branches."""
    nodes = check(case).model.graph.all_nodes()
    assert [n.op_type for n in nodes].count("Loop") == 1, f"{case.name} was written out: see `_as_loop`"


written_out = Cases()


@written_out(*SMALL)
def few(x: T) -> T:
    for _ in range(4):
        if x.sum() > 10:
            break
        x = x * 3
    return x


class ByNumber(nn.Module):
    """Each round has a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(10))

    def forward(self, x: T) -> T:
        """As many layers as it takes."""
        for i in range(10):
            x = torch.relu(self.layers[i](x)) + x
            if x.norm() > 9:
                break
        return x


written_out(*[random(n, 4, seed=n) * k for n, k in ((3, 1), (1, 1), (2, 10), (5, 0.01))])(ByNumber)


@written_out.parametrize()
def test_rounds_that_differ_are_written_out(case: Case) -> None:
    """Layers by their number, and few rounds."""
    nodes = check(case).model.graph.all_nodes()
    assert "Loop" not in {n.op_type for n in nodes}, f"{case.name} is a Loop: see `require_alike`"


def test_long_rounds_with_branches_are_a_loop_behind_the_first() -> None:
    """No round ends the loop, but 400 of them would be thousands of nodes."""

    def climbing(x: T) -> T:
        for i in range(400):
            if x.sum() > i:
                x = x.tanh()
            x = x * 1.1 + 0.1
        return x

    nodes = list(check(Case("climbing", lambda: climbing, [(v,) for v in SMALL[:3]])).model.graph.all_nodes())
    assert len(nodes) < 60, f"{len(nodes)} nodes: the rounds were written out"


apart = Cases()


class Until(nn.Module):
    """A GRU without a state at first, whose loop may run no round."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 3, batch_first=True)

    def forward(self, x: T) -> tuple[T, int]:
        """The last output and the number of rounds."""
        h, at, n = None, x[:1], 0
        while at.abs().sum() > 0.5 and n < 20:
            out, h = self.rnn(at[None], h)
            at = out[0]
            n += 1
        return at, n


class OverRows(nn.Module):
    """An LSTM cell without a state at first, over any number of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 4)

    def forward(self, x: T) -> T:
        """The sum of all states."""
        state, total = None, x.sum()
        for row in x:
            state = self.cell(row[None], state)
            total = total + state[0].sum()
        return total


apart(*lengths(), random(2, 3) * 0.01)(Until)
apart(*lengths(), random(0, 3))(OverRows)


@apart.parametrize()
def test_a_first_round_apart_may_be_none(case: Case) -> None:
    """State that is None before the first round, and a tuple of tensors after it."""
    captured = check(case)
    assert not any("at least once" in a.what for a in captured.assumptions)


def _scaled(n: int, x: T) -> T:
    if n == 0:
        return x
    return _scaled(n - 1, x * 1.5)


def test_calls_of_itself_that_data_decides_are_refused() -> None:
    """The export would never end."""

    def scaled(n: T, x: T) -> T:
        return _scaled(int(n), x)

    with pytest.raises(ingot.ExportError, match=r"return _scaled\(n - 1, x \* 1.5\)\n_scaled calls itself"):
        ingot.export(scaled, (torch.tensor(3), random(2, 3)))


def test_calls_of_itself_that_sizes_decide_follow_the_example() -> None:
    """The model checks that sizes ask for the same calls."""
    calls = [(random(4, 3),), (random(3, 3),)]
    captured = check(Case("scaled", lambda: lambda x: _scaled(x.shape[0], x), calls), narrowed=True)
    assert any(a.kind == "narrowed" for a in captured.assumptions)
