"""Loops that data ends before Python would, first rounds that differ, functions that call themselves."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import pytest
import torch
from torch import nn

import ingot
from ingot.capture import recursion, rounds
from ingot.capture.record import Recorder
from ingot.capture.request import ACTIVE, Marks
from ingot.capture.rewrite import Key
from ingot.capture.sizes import SizeEnv
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, check, lengths, negative, positive, random

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


@case(positive(2, 3) * 0.001, torch.ones(2, 3), -torch.ones(1, 3), torch.zeros(2, 3))
def data_may_end_the_first_round(x: T) -> tuple[T | None, int]:
    s, n = None, 0
    for _ in range(20):
        s = x if s is None else s * 2
        n += 1
        if s.sum() > 1:
            break
    return s, n


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


class ByNumberBehindTheFirst(ByNumber):
    """The first round finds None, and the others have a layer each."""

    def forward(self, x: T) -> T:
        """As many layers as it takes."""
        h = None
        for i in range(10):
            h = x if h is None else torch.relu(self.layers[i - 1](h)) + h
            if h.norm() > 9:
                break
        assert h is not None
        return h


@written_out(*SMALL)
def powers_of_their_number(x: T) -> T:
    for i in range(12):
        x = x + 1000**i % 7
        if x.sum() > 500:
            break
    return x


@written_out(*SMALL)
def as_many_as_a_number_says(x: T) -> tuple[T, int]:
    limit, n = 6, 0
    if x.sum() > 10:
        x = x - 1
    for i in range(40):
        if i >= limit:
            break
        x = x * 1.5
    for _ in range(40):
        n += 1
        if n > 3:
            break
        x = x + 1
    return x, n


for _module in (ByNumber, ByNumberBehindTheFirst):
    written_out(*[random(n, 4, seed=n) * k for n, k in ((3, 1), (1, 1), (2, 10), (5, 0.01))])(_module)


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


beyond = Cases()


@beyond(*SMALL[:3])
def products(x: T) -> T:
    p = 1
    for i in range(12):
        if x.sum() > i:
            x = x.tanh()
        p = p * 1000
        x = x + p % 7
    return x


@beyond(*SMALL[:3])
def products_in_every_other_round(x: T) -> T:
    p = 1
    for i in range(16):
        if x.sum() > i:
            x = x.tanh()
        if i % 2:
            p = p * 1000
        x = x + p % 7
    return x


@beyond.parametrize()
def test_numbers_beyond_64_bits_are_pythons(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's whole numbers have no end: rounds in which they grow so far are written out."""
    monkeypatch.setattr(rounds, "LARGE", 0)
    nodes = check(case).model.graph.all_nodes()
    assert "Loop" not in {n.op_type for n in nodes}, f"{case.name} is a Loop: see `require_bounded`"


def test_numbers_that_stay_below_64_bits_are_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters, and numbers of the round's own."""

    def counting(x: T) -> tuple[T, int]:
        n, last = 3, 0
        for i in range(12):
            if x.sum() > i:
                x = x.tanh()
            if i % 2:
                n += i * i
            last = 2**i + n
            x = x + last
        return x, last - n

    monkeypatch.setattr(rounds, "LARGE", 0)
    nodes = check(Case("counting", lambda: counting, [(v,) for v in SMALL[:3]])).model.graph.all_nodes()
    assert [n.op_type for n in nodes].count("Loop") == 1, "it was written out: see `require_bounded`"


def test_rounds_that_are_no_loop_leave_no_assumptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a Loop that was given up would check, Python knows in rounds that are written out."""

    def growing(x: T) -> T:
        for i in range(9):
            assert i < 20
            if x.sum() > i:
                x = x.tanh()
            x = torch.cat([x, x[:1]])
        return x

    monkeypatch.setattr(rounds, "LARGE", 0)
    captured = check(Case("growing", lambda: growing, [(v,) for v in SMALL[:3]]))
    assert not [a for a in captured.assumptions if a.kind == "condition"], "those of the Loop are still there"


def test_a_recording_that_is_given_up_leaves_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The export would end with it, and later nodes would be named as a submodule's that has ended."""
    g = Recorder(SizeEnv(), 18)
    monkeypatch.setattr(ACTIVE, "recorder", g)
    monkeypatch.setattr(ACTIVE, "refusal", None)
    with pytest.raises(ValueError, match="no form"), rounds._attempt():
        g.modules.append("inner")
        ACTIVE.refusal = DataDependentError("refused")
        raise ValueError("no form")
    assert (g.modules, ACTIVE.refusal) == ([], None), "a part of the attempt is still there"


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


def _doubled(depth: int, x: T) -> T:
    if depth and x.sum() > 0:
        x = _doubled(depth - 1, x * 2)
    return x


def test_calls_of_itself_that_python_ends() -> None:
    """Each is one branch, and twenty have room in each other."""
    calls = [(positive(2, 3),), (negative(2, 3),)]
    check(Case("doubled", lambda: lambda x: _doubled(20, x), calls))


def test_calls_of_itself_that_no_number_decides_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no formula for the condition, data decides it."""
    g, key = Recorder(SizeEnv(), 18), Key(__file__, 1, "again")
    monkeypatch.setattr(recursion, "functions", lambda: [key] * 40)
    monkeypatch.setattr(recursion, "place", lambda: ("model.py", 1))
    monkeypatch.setattr(ACTIVE, "refusal", None)
    monkeypatch.setattr(ACTIVE, "marks", Marks())
    g.branches += [(("model.py", 1), depth) for depth in range(40)]
    with pytest.raises(DataDependentError, match="again calls itself here as often as data says"):
        recursion.enter(g, None)


def test_calls_of_itself_that_sizes_decide_follow_the_example() -> None:
    """The model checks that sizes ask for the same calls."""
    calls = [(random(4, 3),), (random(3, 3),)]
    captured = check(Case("scaled", lambda: lambda x: _scaled(x.shape[0], x), calls), narrowed=True)
    assert any(a.kind == "narrowed" for a in captured.assumptions)


def _merged(x: T) -> T:
    if x.shape[0] <= 1:
        return x
    half = x.shape[0] // 2
    return torch.cat([_merged(x[:half]), _merged(x[half:])]).sort(0).values


def test_calls_of_itself_by_halves_of_a_size_follow_the_example() -> None:
    """Each makes a longer formula of the size, and there are twice as many: the export would take hours."""
    captured = check(Case("merged", lambda: _merged, [(random(6, 2),), (random(6, 3),)]), narrowed=True)
    assert {a.status for a in captured.assumptions if a.kind == "branch"} == {"checked"}


def _largest(x: T, depth: int = 0) -> T:
    if depth == 3 or x.shape[0] < 2:
        return x.sum(0)
    half = x.shape[0] // 2
    return torch.maximum(_largest(x[:half], depth + 1), _largest(x[half:], depth + 1))


def test_calls_of_itself_by_halves_that_python_ends() -> None:
    """Each is one branch."""
    check(Case("largest", lambda: _largest, [(random(n, 2),) for n in (8, 1, 3, 30)]))
