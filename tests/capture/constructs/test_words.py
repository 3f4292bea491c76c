"""Words, members of enums and other plain values that a condition chooses: their uses branch."""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, lengths, random

case = Cases()
SIGNS = both_signs()
ROWS = lengths()
TABLE = {"one": 2.0, "many": 3.0}


class Kind(enum.Enum):
    UP = 1
    DOWN = 2


@case(*ROWS)
def one_or_many(x: T) -> T:
    how = "one" if x.shape[0] == 1 else "many"
    if how == "one":
        return x * 10
    return x - 1


@case(*ROWS)
def looked_up_by_a_size(x: T) -> T:
    return x * TABLE["one" if x.shape[0] == 1 else "many"]


@case(*ROWS)
def method_by_a_size(x: T) -> T:
    return getattr(x, "sum" if x.shape[0] == 1 else "mean")(0)


@case(*ROWS)
def option_by_a_size(x: T) -> T:
    options = {"mode": "nearest" if x.shape[0] > 3 else "linear"}
    return nn.functional.interpolate(x.T[None], scale_factor=2, **options)


@case(*ROWS)
def matched_shape(x: T) -> T:
    match x.shape:
        case (1, *_):
            return x
        case (2 | 3, d):
            return x * d
        case (n, *rest) if n > 5:
            return x * n + rest[0]
        case _:
            return -x


@case(*ROWS)
def matched_by_a_size(x: T) -> T:
    match "small" if len(x) < 3 else "large":
        case "small":
            return x + 1
        case _:
            return x - 1


@case(*SIGNS)
def member_of_an_enum(x: T) -> tuple[T, bool]:
    kind = Kind.UP if x.sum() > 0 else Kind.DOWN
    return (x * kind.value if kind is Kind.UP else x.exp()), kind.name == "UP"


@case(*SIGNS)
def words_of_three_branches(x: T) -> T:
    if x.sum() > 5:
        level = "high"
    elif x.sum() > 0:
        level = "middle"
    else:
        level = "low"
    return x * {"high": 1.0, "middle": 2.0, "low": 3.0}[level] if level != "low" else x * 0


def _reduced(x: T, how: str) -> T:
    if how == "mean":
        return x.mean(0)
    return x.max(0).values if how in ("max", "largest") else x.sum(0)


@case(*SIGNS)
def word_passed_on(x: T) -> T:
    how = "mean" if x.sum() > 0 else "max"
    return _reduced(x, how) + _reduced(x, how=how.lower())


def _named(x: T) -> str:
    return "up" if x.sum() > 0 else "down"


@case(*SIGNS)
def word_of_another_function(x: T) -> T:
    if x.mean() > 0.5:
        name, y = _named(x), x * 2
    else:
        name, y = _named(-x), x
    return y if name == "up" else -y


@case(*SIGNS)
class LayerByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head_up, self.head_down = nn.Linear(3, 3), nn.Linear(3, 3)
        self.heads = nn.ModuleDict({"up": nn.Linear(3, 3), "down": nn.Linear(3, 3)})

    def forward(self, x: T) -> T:
        name = _named(x)
        return getattr(self, f"head_{name}")(x) + self.heads[name](x)


@case(*SIGNS)
def word_in_a_loop(x: T) -> T:
    total = torch.zeros(3)
    for row in x:
        total = total + row if _named(row) == "up" else total - row * 2
    return total


def _by(options: dict[str, Kind], x: T) -> T:
    return x + 1 if options["kind"] is Kind.UP else x - 1


@case(*SIGNS)
def member_in_a_dict_passed_on(x: T) -> T:
    return _by({"kind": Kind.UP if x.sum() > 0 else Kind.DOWN}, x)


@case(*SIGNS)
def member_in_a_closure(x: T) -> T:
    kind = Kind.UP if x.sum() > 0 else Kind.DOWN

    def go() -> T:
        return x + 1 if kind is Kind.UP else x - 1

    return go()


@case(*SIGNS)
def state_machine(x: T) -> tuple[T, bool]:
    state, total, i = "idle", torch.zeros(()), 0
    while i < x.shape[0]:
        v = x[i, 0]
        if state == "idle":
            if v > 0:
                state, total = "speech", total + 1
        elif state == "speech":
            if v < 0:
                state = "hang"
        else:
            state = "idle" if v < -0.5 else "speech"
        i += 1
    return total, state == "idle"


class Machine:
    """A member of an enum as an attribute that rounds change."""

    def __init__(self) -> None:
        self.kind, self.count = Kind.UP, 0

    def step(self, row: T) -> None:
        if self.kind is Kind.UP:
            self.count += 1
            if row[0] > 0:
                self.kind = Kind.DOWN
        elif row[1] > 0:
            self.kind = Kind.UP


@case(*SIGNS)
def machine_of_an_object(x: T) -> tuple[T, bool]:
    machine = Machine()
    for row in x:
        machine.step(row)
    return x * machine.count, machine.kind is Kind.UP


@case(*SIGNS)
def word_in_a_dict(x: T) -> T:
    state = {"mode": "a", "n": 0}
    for row in x:
        if state["mode"] == "a" and row.sum() > 0:
            state["mode"] = "b"
        elif state["mode"] == "b":
            state["n"] += 1
            state["mode"] = "a" if row[0] > 0 else "c"
    return x + state["n"]


@case(*SIGNS)
def function_of_the_round_before(x: T) -> T:
    function = torch.relu
    for row in x:
        x = function(x)
        if row.sum() > 1:
            function = torch.tanh
        elif row.sum() < 0:
            function = torch.exp
        else:
            function = torch.relu
    return x


LAYERS = nn.Linear(3, 3), nn.Linear(3, 3)


@case(*SIGNS)
def attribute_of_a_layer(x: T) -> T:
    return nn.functional.linear(x, (LAYERS[0] if x.sum() > 0 else LAYERS[1]).weight.detach()[:, :3])


class Level(enum.IntEnum):
    LOW = 0
    MIDDLE = 1
    HIGH = 2


class Access(enum.IntFlag):
    READ = 1
    WRITE = 2
    RUN = 4


class Rate(float, enum.Enum):
    SLOW = 0.5
    FAST = 2.0


class Steps(int):
    """A number of a class of its own."""

    def twice(self) -> int:
        return int(self) * 2


@case(*SIGNS)
def member_that_is_a_number(x: T) -> tuple[object, ...]:
    level = Level.LOW if x.sum() > 0 else Level.HIGH
    y = x * 2 if level == Level.LOW else x
    counted = x * level + level * y, torch.mul(x, level), x.clamp(min=level), level * 2 + 1, 3 - level, -level
    known = x / {Level.LOW: 1.5, Level.HIGH: 2.5}[level], level.name == "LOW", level < 1, float(level)
    return *counted, *known, torch.tensor([level, 1]), torch.full((2,), level), x[:, level], x[:, level:]


@case(*SIGNS)
def member_that_is_a_float(x: T) -> tuple[T, T]:
    rate = Rate.SLOW if x.sum() > 0 else Rate.FAST
    return x * rate + rate, x.exp() if rate is Rate.SLOW else x * rate.value


@case(*ROWS)
def member_that_is_a_number_by_a_size(x: T) -> T:
    level = Level.MIDDLE if x.shape[0] > 3 else Level.HIGH
    return x * 3 if level == Level.MIDDLE else x * level


@case(*SIGNS)
def member_or_number(x: T) -> T:
    level = Level.HIGH if x.sum() > 0 else 0
    for _ in range(level):
        x = x * 2
    return x + max(level, 1)


@case(*SIGNS)
def member_or_none(x: T) -> T:
    level = Level.HIGH if x.sum() > 0 else None
    return x if level is None else x * level


@case(*SIGNS)
def members_of_a_state_machine(x: T) -> T:
    level, total = Level.LOW, torch.zeros(3)
    for row in x:
        if level == Level.LOW:
            level = Level.MIDDLE if row.sum() > 1 else Level.LOW
        elif level == Level.MIDDLE:
            level = Level.HIGH
        else:
            level = Level.LOW if row.sum() > 2 else Level.HIGH
        total = total + row * level + (1 if level is Level.MIDDLE else 0)
    return total


@case(*SIGNS)
def member_that_rounds_make_a_number(x: T) -> T:
    level = Level.MIDDLE
    for _ in x:
        level = level + 1
    return x * level


@case(*SIGNS)
def flags(x: T) -> T:
    access = Access.READ
    if x.sum() > 0:
        access |= Access.WRITE
    if x.max() > 1:
        access |= Access.RUN
    y = x * 2 if access & Access.WRITE else x
    return y + 1 if Access.RUN in access else y * access


@case(*SIGNS)
def number_of_a_class_of_its_own(x: T) -> tuple[T, int]:
    steps = Steps(1)
    for row in x:
        steps = Steps(3) if row.sum() > 1 else Steps(5)
    return x * steps, steps.twice()


@case(*SIGNS)
def numbers_of_numpy(x: T) -> T:
    wide = np.float64(1.5) if x.sum() > 0 else np.float64(3.5)
    count = np.int64(2) if x.max() > 1 else np.int64(3)
    return x * wide + int(count)


@case(*SIGNS)
def member_of_a_number_of_data(x: T) -> T:
    total = x * Level(int(x.sum() > 0) + 1)
    for row in x:
        level = Level(int((row > 0.5).sum()) % 3)
        total = total + level if level is not Level.MIDDLE else total - row
    return total


@case(*SIGNS)
def number_of_data_that_no_member_has(x: T) -> T:
    return x * Level(int(x.argmax()))


@case(*SIGNS)
def counters_of_words(x: T) -> T:
    counts = {"up": 0, "down": 0, "flat": 0.5}
    counts["up" if x.sum() > 0 else "down" if x.min() < -1 else "flat"] += 1
    for row in x:
        kind = _named(row - 1)
        counts[kind] = counts[kind] + 2
    return x * counts["up"] + counts["down"] * 10 + counts["flat"]


@case(*SIGNS)
def sums_of_words(x: T) -> tuple[T, T]:
    sums = {"up": torch.zeros(3), "down": torch.zeros(3)}
    for row in x:
        kind = _named(row - 1)
        sums[kind] = sums[kind] + row
    return sums["up"], sums["down"]


@case(*ROWS)
def counter_of_a_size(x: T) -> T:
    counts = {"one": 0, "many": 0}
    counts["one" if x.shape[0] == 1 else "many"] += 1
    return x * counts["one"] - counts["many"]


class Step(NamedTuple):
    y: T
    time: T
    width: T
    line: list[T]


@case(
    *(
        (random(n, 3) * by, torch.tensor(end))
        for n, by, end in ((2, 1, 1.0), (4, 5, 2.0), (1, 1, -1.0), (3, 9, 0.1))
    )
)
class StepsAsWideAsTheErrorAllows(nn.Module):
    """A list in a tuple is a new one where a step is taken, and the one before where it is not."""

    state: Step

    def take(self, step: Step) -> Step:
        y, time, width, line = step
        whole, middle = y - width * y.sin(), y - width / 2 * y.sin()
        halves = middle - width / 2 * middle.sin()
        error = (whole - halves).abs().max()
        if error <= 0.05:
            end, line = time + width, [y, (halves - y) / width]
            y = halves
        else:
            end = time
        return Step(y, end, width * (0.04 / (error + 1e-6)).clamp(0.3, 2.0), line)

    def forward(self, y: T, end: T) -> tuple[T, T]:
        self.state = Step(y, torch.tensor(0.0), torch.tensor(0.5), [y] * 2)
        while end > self.state.time:
            self.state = self.take(self.state)
        start, slope = self.state.line
        return start + slope * (self.state.time - end), self.state.time


@case.parametrize()
def test_words(case: Case) -> None:
    """Nothing of the example's choice stays in the model."""
    captured = check(case)
    assert not [a for a in captured.assumptions if a.kind == "branch"]


def _returned(x: T) -> tuple[T, str]:
    return x, _named(x)


def _key(x: T) -> T:
    return x * len({_named(x)})


def _flags(x: T) -> T:
    return x * Access(int(x.sum() > 0) + 1)


_REFUSED = [
    (_returned, "'up' or 'down'"),
    (_key, "len({_named(x)})"),
    (_flags, "makes Access of a number that data or a size decides"),
]


@pytest.mark.parametrize(("model", "message"), _REFUSED)
def test_what_python_alone_could_do_with_a_word(model: object, message: str) -> None:
    """It is refused where data chooses, with the line or the values."""
    with pytest.raises(ExportError) as error:
        capture(model, (random(3, 3),))
    assert message in str(error.value)
