"""Arrays that tensors become share their memory: what is written into one is in the tensor, or refused."""

# The constructs are written as people write them.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError, ExportError
from tests.capture.constructs.support import Case, Cases, T, check, random

X = random(2, 3)
case = Cases()


@case(X, random(4, 3))
def array_of_its_own(x: T) -> T:
    mask = torch.ones(3).numpy()
    mask[0] = 0  # nobody reads the tensor
    return x * torch.from_numpy(mask)


@case(X, random(4, 3))
def tensor_of_an_array_that_nobody_has(x: T) -> T:
    mask = torch.from_numpy(np.ones(3, np.float32))
    mask[0] = 0
    mask[1:] *= x[0, 1:]
    return x * mask


@case(X, random(4, 3))
def tensor_of_a_copy(x: T) -> T:
    counts = np.arange(3, dtype=np.float32)
    held = torch.from_numpy(counts).clone()
    held += x[0]
    return x * held + float(counts[2])


@case(X, random(4, 3))
def written_into_a_copy(x: T) -> T:
    ones = torch.ones(3)
    mask = ones.numpy().copy()
    mask[0] = 0
    return x * torch.from_numpy(mask) + ones


@case(X, random(4, 3))
class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scales", torch.arange(1.0, 4.0))

    def forward(self, x: T) -> T:
        return x * float(self.scales.numpy().max()) + self.scales


@case.parametrize()
def test_arrays(case: Case) -> None:
    """As eager."""
    check(case)


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("b", torch.ones(3))
        self.p = nn.Parameter(torch.ones(3))


class WritesABuffer(Held):
    def forward(self, x: T) -> T:
        self.b.numpy()[:] = 5.0
        return x + self.b


class WritesABufferLast(Held):
    def forward(self, x: T) -> T:
        y = x + self.b
        counts = self.b.numpy()
        counts += 1
        return y


class WritesAParameter(Held):
    def forward(self, x: T) -> T:
        self.p.detach().numpy()[0] = 7
        return x * self.p


def writes_what_it_made(x: T) -> T:
    y = torch.zeros(3)
    np.asarray(y)[:] = 4
    return x + y


def reads_a_view(x: T) -> T:
    y = torch.zeros(3)
    first = y[:2]
    y.numpy()[:] = 4
    return x[:, :2] + first


WRITING = [WritesABuffer, WritesABufferLast, WritesAParameter, writes_what_it_made, reads_a_view]


@pytest.mark.parametrize("thing", WRITING, ids=lambda t: t.__name__)
def test_writes_that_no_recording_sees_are_refused(thing: Any) -> None:
    """The model stays as it was."""
    model = thing() if isinstance(thing, type) else thing
    with pytest.raises(ExportError, match=r"test_arrays\.py:\d+: .*(numpy\(\)|asarray)(.|\n)*`t\[:\] = …`"):
        capture(model, (X,))
    if isinstance(model, Held):
        assert model.b.eq(1).all() and model.p.eq(1).all()


def of_an_array_it_reads_later(x: T) -> T:
    counts = np.zeros(3, np.float32)
    held = torch.from_numpy(counts)
    held[0] = 5
    return x + float(counts[0])


def of_an_array_in_an_array(x: T) -> T:
    counts = np.zeros((2, 3), np.float32)
    held = torch.as_tensor(counts[0])
    held.add_(x[0])
    return x + torch.from_numpy(counts)


def into_what_gave_an_array(x: T) -> T:
    y = torch.zeros(3)
    counts = y.numpy()[:2]
    y += x[0]
    return x + float(counts[0])


class OfAnArrayItHolds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.counts = np.zeros(3, np.float32)

    def forward(self, x: T) -> T:
        torch.from_numpy(self.counts)[0] = 5
        return x + float(self.counts[0])


def of_an_array_in_a_list(x: T) -> T:
    counts = [np.zeros(3, np.float32)]
    torch.from_numpy(counts[0])[0] = 5
    return x + float(counts[0][0])


class InObjects(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tables = [Table({"first": Table(np.zeros(3, np.float32))})]

    def forward(self, x: T) -> T:
        torch.from_numpy(self.tables[0].held["first"].held)[0] = 5
        return x + float(self.tables[0].held["first"].held[0])


class Table:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


KEPT = {"counts": (np.zeros(3, np.float32),)}


def of_an_array_in_a_global(x: T) -> T:
    torch.from_numpy(KEPT["counts"][0])[0] = 5
    return x + _kept(x)


def _kept(x: T) -> T:
    return x * float(KEPT["counts"][0][0])


def of_an_array_around_a_function(x: T) -> T:
    counts = np.zeros(3, np.float32)

    def first() -> float:
        return float(counts[0])

    return _written(first, torch.from_numpy(counts)) + x


def _written(first: Callable[[], float], held: T) -> T:
    held[0] = 5
    return held + first()


def of_bytes(x: T) -> T:
    counts = bytearray(12)
    held = torch.from_numpy(np.frombuffer(counts, np.float32))
    held += x[0]
    return x + float(np.frombuffer(counts, np.float32)[0])


BEHIND = [
    of_an_array_it_reads_later,
    of_an_array_in_an_array,
    into_what_gave_an_array,
    OfAnArrayItHolds,
    of_an_array_in_a_list,
    InObjects,
    of_an_array_in_a_global,
    of_an_array_around_a_function,
    of_bytes,
]


@pytest.mark.parametrize("model", BEHIND, ids=lambda f: f.__name__)
def test_writes_into_tensors_that_arrays_show_are_refused(model: Any) -> None:
    """The array would have what was in it before."""
    with pytest.raises(ExportError, match=r"test_arrays\.py:\d+: (.|\n)*The array changes with it"):
        capture(model() if isinstance(model, type) else model, (X,))


def writes_an_array_that_it_made_a_tensor_of(x: T) -> T:
    counts = np.zeros(3, np.float32)
    held = torch.from_numpy(counts)
    counts[1] = 5
    return x + held


def test_writes_into_arrays_of_tensors_are_refused() -> None:
    """The tensor would have what was in the array before."""
    with pytest.raises(
        ExportError, match=r"from_numpy\(counts\)(.|\n)*This array shares the tensor's memory"
    ):
        capture(writes_an_array_that_it_made_a_tensor_of, (X,))


@pytest.mark.parametrize("function", [np.array, np.mean, np.sort])
def test_lists_of_data_are_refused(function: Callable[[Any], Any]) -> None:
    """Numbers are in them that only the run knows, as many as it says."""

    def model(x: T) -> T:
        return x * float(function(x[:, 0].tolist()).max())

    with pytest.raises(DataDependentError, match=r"test_arrays\.py:\d+: (.|\n)*Give it to torch\.tensor"):
        capture(model, (X,))
