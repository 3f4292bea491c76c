"""Which functions are found to be alive, and how often all objects of the process are looked at for it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any
from weakref import ref

import pytest
import torch

from ingot.capture import alive
from ingot.capture.attempt import capture


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """As in a process that exports for the first time; how many objects each look at all of them saw."""
    monkeypatch.setattr(alive, "_old", None)
    monkeypatch.setattr(alive, "_entered", 0)
    seen: list[int] = []
    everything = gc.get_objects

    def counted(generation: int | None = None) -> list[Any]:
        things = everything(generation=generation)
        if generation in (None, 2):
            seen.append(len(things))
        return things

    monkeypatch.setattr(gc, "get_objects", counted)
    callbacks = list(gc.callbacks)
    yield seen
    assert gc.callbacks == callbacks, "the collector still calls what watched it"


def _maker() -> Callable[[], int]:
    here = 1
    return lambda: here


@pytest.mark.parametrize("generations", [True, False])
def test_functions_are_found_whenever_they_were_made(
    looks: list[int], monkeypatch: pytest.MonkeyPatch, generations: bool
) -> None:
    monkeypatch.setattr(alive, "_GENERATIONS", generations)
    with alive.remembered():
        before = _maker()
        gc.collect()
        assert {before, _maker} <= set(alive.functions({__file__}))
        young = _maker()
        assert {before, young} <= set(alive.functions({__file__}))
        gc.collect(1)
        assert {before, young} <= set(alive.functions({__file__})), "lost as the collector passed it on"
        middle = _maker()
        gc.collect(0)
        assert middle in alive.functions({__file__})
        gc.collect()
        assert {before, young, middle} <= set(alive.functions({__file__}))
        assert torch.nn.functional.relu in alive.functions({torch.nn.functional.__file__})
    assert len(looks) == 2 if generations else len(looks) == 6


def test_functions_are_not_kept_alive(looks: list[int]) -> None:
    with alive.remembered():
        made = _maker()
        gc.collect()
        assert made in alive.functions({__file__})
        gone = ref(made)
        del made
        assert gone() is None
        assert all(f.__code__.co_filename == __file__ for f in alive.functions({__file__}))
    assert len(looks) == 1


def test_functions_of_one_time_only(looks: list[int]) -> None:
    """Where nobody remembers, each look is new."""
    assert _maker in alive.functions({__file__})
    assert _maker in alive.functions({__file__})
    assert len(looks) == 2


@pytest.mark.skipif(not alive._GENERATIONS, reason="all are looked at each time")
def test_folders_that_may_be_asked_about_later_take_no_look_of_their_own(looks: list[int]) -> None:
    file = torch.nn.functional.__file__
    with alive.remembered():
        assert _maker in alive.functions({__file__}, {__file__, file})
        assert torch.nn.functional.relu in alive.functions({file})
    assert len(looks) == 1


def test_an_export_looks_once(looks: list[int]) -> None:
    """However often it starts again: here with one more branch each time."""

    def model(x: torch.Tensor) -> torch.Tensor:
        return _third(_second(_first(x)))

    capture(model, (torch.ones(3),))
    assert len(looks) == 1, f"{len(looks)} looks at {looks} objects"


def _first(x: torch.Tensor) -> torch.Tensor:
    return x + 1 if x.sum() > 0 else x


def _second(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.sum() > 1 else x


def _third(x: torch.Tensor) -> torch.Tensor:
    return x - 3 if x.sum() > 2 else x


@pytest.mark.usefixtures("looks")
def test_threads_that_look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one finds a folder's functions once it finds the folder, and may forget dead ones first."""
    function = _maker()
    gc.collect()
    found: list[Callable[..., Any]] = []
    second = Thread(target=lambda: found.extend(alive.functions({__file__})))
    everything = gc.get_objects

    def slow(generation: int | None = None) -> list[Any]:
        if generation == 2 and second.ident is None:
            second.start()
            second.join(0.2)
        return everything(generation=generation)

    monkeypatch.setattr(gc, "get_objects", slow)
    with alive.remembered():
        alive.functions({__file__})
        second.join()
        assert function in found, "asked while another thread looked at the folder"
        old: Any = alive._old
        known: Any = old._found[__file__]

        class Dead:
            def __call__(self) -> None:
                known.pop(self, None)

        known[Dead()] = None
        assert function in old.of(__file__)
