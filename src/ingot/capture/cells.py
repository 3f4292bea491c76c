"""The variables that the functions of a rewritten block share with the function around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CellType, FunctionType
from typing import Any

from ingot.capture.merge import UNBOUND


class Sharing:
    """A function that says itself which variables it shares, as a closure does."""

    def __init__(self, function: Callable[..., Any], cells: Mapping[str, CellType]) -> None:
        self.function, self.cells = function, dict(cells)

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        return self.function(*args)


class Cells:
    """Variables of some functions by name, read and written from outside."""

    def __init__(self, *functions: Any, around: Sequence[Any] = ()) -> None:
        """around: what else they can get at"""
        self.all: dict[str, CellType] = {}
        self.others = list(around)
        self.functions: list[FunctionType] = []
        for f in functions:
            if isinstance(f, FunctionType):
                self.functions.append(f)
                self.others += f.__defaults__ or ()
                self.all.update(zip(f.__code__.co_freevars, f.__closure__ or (), strict=True))
            elif isinstance(f, Sharing):
                self.all.update(f.cells)

    def cell(self, name: str) -> CellType:
        """A variable's cell; private names of a class are found by their own name."""
        found = self.all.get(name)
        if found is None:
            (found,) = [c for n, c in self.all.items() if name.startswith("__") and n.endswith(name)]
        return found

    def get(self, names: Iterable[str]) -> dict[str, Any]:
        """Values by name; UNBOUND where there is none."""
        return {n: contents(self.cell(n)) for n in names}

    def put(self, values: Mapping[str, Any]) -> None:
        """Write values; UNBOUND takes the variable away."""
        for n, value in values.items():
            write(self.cell(n), value)

    def reachable(self, names: Iterable[str]) -> list[Any]:
        """What the functions can get at: what these variables hold, and the cells of all others."""
        mine = [self.cell(n) for n in names]
        return [*self.others, *(contents(c) if any(c is m for m in mine) else c for c in self.all.values())]


def contents(cell: CellType) -> Any:
    """What a cell holds."""
    try:
        return cell.cell_contents
    except ValueError:
        return UNBOUND


def write(cell: CellType, value: Any) -> None:
    """Make a cell hold a value, or nothing."""
    if value is not UNBOUND:
        cell.cell_contents = value
    elif contents(cell) is not UNBOUND:
        del cell.cell_contents
