"""Tables that a module keeps, and makes longer in forward where an input is longer than they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ingot
from ingot.errors import ExportError, IngotError

T = torch.Tensor
WIDTH = 6
LENGTHS = (1, 5, 6, 7, 8, 9, 10, 13, 40)  # of tables of 8 rows


class Sinusoidal(nn.Module):
    """Sinusoids of any length, as speech and translation models have them."""

    def __init__(self, rows: int = 8, shown: Callable[[T], T] | None = None) -> None:
        super().__init__()
        self.shown = shown  # what of the whole table shows in the result
        self.make(rows)

    def make(self, rows: int) -> None:
        scale = torch.exp(torch.arange(WIDTH // 2).float() * (-math.log(10000) / (WIDTH // 2 - 1)))
        angles = torch.arange(rows).float().unsqueeze(1) * scale.unsqueeze(0)
        table = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1).view(rows, -1)
        table[1, :] = 0  # padding
        self.weights = nn.Buffer(table, persistent=False)

    @torch.no_grad()
    def forward(self, x: T) -> T:
        length = x.shape[1]
        if length + 2 > self.weights.size(0):
            self.make(length + 4)
        found = self.weights.index_select(0, torch.arange(length) + 2).view(1, length, WIDTH)
        return x + found if self.shown is None else x + found + self.shown(self.weights)


class Rotary(nn.Module):
    """Cosines and sines, and a number that says how many there are."""

    def __init__(self, kept: str, factor: int = 1) -> None:
        super().__init__()
        self.kept, self.factor = kept, factor
        self.inverse = 1 / 10000 ** (torch.arange(0, WIDTH, 2).float() / WIDTH)
        self.box: dict[str, T] = {}
        self.pair: list[T] = []
        self.make(8)

    def make(self, rows: int) -> None:
        self.cached = rows
        angles = torch.outer(torch.arange(rows).float(), self.inverse)
        angles = torch.cat([angles, angles], dim=-1)
        cos, sin = angles.cos(), angles.sin()
        if self.kept == "buffers":
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        elif self.kept == "attributes":
            self.first, self.second = cos, sin
        elif self.kept == "a dict":
            self.box["cos"], self.box["sin"] = cos, sin
        elif self.kept == "a list":
            self.pair[:] = [cos, sin]
        else:
            self.both = (cos, sin)

    def forward(self, x: T) -> T:
        length = x.shape[1]
        if length > self.cached:
            self.make(length * self.factor)
        tables: dict[str, Callable[[], Any]] = {
            "buffers": lambda: (self.cos, self.sin),
            "attributes": lambda: (self.first, self.second),
            "a dict": self.box.values,
            "a list": lambda: self.pair,
            "a tuple": lambda: self.both,
        }
        cos, sin = tables[self.kept]()
        return x * cos[:length] + x.flip(-1) * sin[:length]


class Layers(nn.Module):
    """Several layers that ask one table, and one with a longer table of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rotary = Rotary("buffers")
        self.other = Sinusoidal(11)

    def forward(self, x: T) -> T:
        return self.rotary(self.other(self.rotary(x)))


class Stretched(nn.Module):
    """Frequencies that are others for texts longer than any before, and put back for short ones."""

    def __init__(self, resets: bool) -> None:
        super().__init__()
        self.resets, self.cached = resets, 8
        self.register_buffer("frequencies", self.made(8), persistent=False)
        self.original = self.frequencies

    def made(self, length: int) -> T:
        base = 10000 * (2 * length / 8 - 1) ** (WIDTH / (WIDTH - 2))
        return 1 / base ** (torch.arange(0, WIDTH, 2).float() / WIDTH)

    def forward(self, x: T) -> T:
        length = x.shape[1]
        if length > self.cached:
            self.register_buffer("frequencies", self.made(length), persistent=False)
            self.cached = length
        if self.resets and length < 8 and self.cached > 8:
            self.register_buffer("frequencies", self.original, persistent=False)
            self.cached = 8
        angles = torch.outer(torch.arange(length).float(), self.frequencies)
        angles = torch.cat([angles, angles], dim=-1)
        return x * angles.cos() + x.flip(-1) * angles.sin()


ANY_LENGTH: dict[str, Callable[[], nn.Module]] = {
    "sinusoids": Sinusoidal,
    **{
        f"rotary in {kept}": lambda kept=kept: Rotary(kept)
        for kept in ("buffers", "attributes", "a dict", "a list", "a tuple")
    },
    "rotary, twice as long": lambda: Rotary("buffers", 2),
    "layers": Layers,
    "as many as large models have": lambda: Sinusoidal(2050),
}


@pytest.mark.parametrize("example", [5, 8, 12])
@pytest.mark.parametrize("name", ANY_LENGTH)
def test_any_length(name: str, example: int) -> None:
    """Whatever the example's length, and whatever the module has seen before."""
    made = ANY_LENGTH[name]
    program = ingot.export(made(), (torch.randn(2, example, WIDTH),))
    assert not [a for a in program.assumptions if a.kind == "branch"], "no length is left out"
    used = made()
    used(torch.randn(1, 30, WIDTH))
    for length in LENGTHS:
        x = torch.randn(2, length, WIDTH)
        got = program(x)
        for module in (made(), used):
            np.testing.assert_allclose(got, module(x).numpy(), atol=1e-5, err_msg=f"length {length}")


SHOWN: dict[str, Callable[[T], T]] = {
    "its sum": lambda table: table.sum(),
    "its last row": lambda table: table[-1],
    "how long it is": lambda table: torch.ones(1) * table.shape[0],
}


@pytest.mark.parametrize("rows", [8, 700])
@pytest.mark.parametrize("shown", SHOWN)
def test_a_table_of_which_all_shows_stays_as_it_is(shown: str, rows: int) -> None:
    """The model is for inputs that leave the table alone, and says so: a longer one before would be seen,
    also where only one much longer than the example changes anything.
    """
    program = ingot.export(Sinusoidal(rows, SHOWN[shown]), (torch.randn(2, 5, WIDTH),))
    (limit,) = [a for a in program.assumptions if a.kind == "branch"]
    assert limit.status == "checked" and limit.what.endswith(f"at most {rows}")
    for length in (1, 5, rows - 2):
        x = torch.randn(2, length, WIDTH)
        want = Sinusoidal(rows, SHOWN[shown])(x).numpy()
        np.testing.assert_allclose(program(x), want, rtol=1e-5, atol=1e-5, err_msg=f"length {length}")
    with pytest.raises(IngotError):
        program(torch.randn(2, rows - 1, WIDTH))


@pytest.mark.parametrize("shown", SHOWN)
def test_a_table_of_which_all_shows_is_state(shown: str) -> None:
    """Where the example itself makes it longer."""
    with pytest.raises(ExportError, match="forward changes 'weights'"):
        ingot.export(Sinusoidal(8, SHOWN[shown]), (torch.randn(2, 12, WIDTH),))


@pytest.mark.parametrize("resets", [True, False])
def test_frequencies_that_the_longest_text_decides(resets: bool) -> None:
    """No length may change what later calls find: the model is for those that do not, and says so."""
    program = ingot.export(Stretched(resets), (torch.randn(2, 5, WIDTH),))
    (limit,) = [a for a in program.assumptions if a.kind == "branch"]
    assert limit.status == "checked" and "at most 8" in limit.what
    for length in (1, 5, 8):
        x = torch.randn(2, length, WIDTH)
        np.testing.assert_allclose(program(x), Stretched(resets)(x).numpy(), atol=1e-5)
    with pytest.raises(IngotError):
        program(torch.randn(2, 9, WIDTH))
    with pytest.raises(ExportError, match="a later call reads it"):
        ingot.export(Stretched(resets), (torch.randn(2, 12, WIDTH),))


def test_frequencies_that_positions_decide_are_carried() -> None:
    """By elements of a tensor, which no size is: refused, with a remedy that gives what the module gives."""

    class ByPositions(Stretched):
        cached: Any

        def __init__(self) -> None:
            super().__init__(resets=True)

        def forward(self, x: T) -> T:
            positions = torch.arange(x.shape[1])
            longest = torch.max(positions) + 1
            before = self.cached
            if longest > before:
                self.register_buffer("frequencies", self.made(longest), persistent=False)
                self.cached = longest
            if longest < 8 and before > 8:
                self.register_buffer("frequencies", self.original, persistent=False)
                self.cached = torch.tensor(8)
            angles = torch.outer(positions.float(), self.frequencies)
            angles = torch.cat([angles, angles], dim=-1)
            return x * angles.cos() + x.flip(-1) * angles.sin()

    with pytest.raises(
        ExportError, match=r"'cached', where 8 stood .* a tensor of its dtype .* state=\"inputs\""
    ):
        ingot.export(ByPositions(), (torch.randn(2, 5, WIDTH),))
    module, other = ByPositions(), ByPositions()
    module.cached = other.cached = torch.tensor(8)
    session = ingot.Stateful(ingot.export(module, (torch.randn(2, 5, WIDTH),), state="inputs"))
    for length in (5, 20, 9, 5, 12, 40, 20):
        x = torch.randn(2, length, WIDTH)
        (got,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(got, other(x).numpy(), atol=1e-5, err_msg=f"length {length}")


def test_a_length_that_shows_is_kept_to() -> None:
    """What is divided by the number of rows is another thing once there are more of them."""

    class Shares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.table = 8, torch.arange(8.0)

        def forward(self, x: T) -> T:
            if x.shape[0] > self.rows:
                self.rows = x.shape[0]
                self.table = torch.arange(float(self.rows))
            return x + self.table[: x.shape[0]] / self.rows

    program = ingot.export(Shares(), (torch.randn(5),))
    assert "at most 8" in "".join(a.what for a in program.assumptions if a.kind == "branch")
    with pytest.raises(IngotError):
        program(torch.randn(9))
