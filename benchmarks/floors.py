"""Recorded floors: the ratios that `make bench-check` holds Ingot to.

A floor belongs to a class of CPU (amx, avx512, avx2), and each class has a file of its own: what a machine
with other vectors or tiles reaches is another matter, and checking it there would prove nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.results import Results, Row

FOLDER = Path(__file__).parent
MARGIN = 0.9  # of the ratio that was measured


@dataclass(frozen=True, order=True)
class Floor:
    """The lowest acceptable ratio of a peer's time to Ingot's, for one model at one batch and threads."""

    model: str
    batch: int
    threads: int
    peer: str
    ratio: float

    @property
    def key(self) -> tuple[str, int, int, str]:
        """What the floor is about."""
        return self.model, self.batch, self.threads, self.peer


@dataclass
class Floors:
    """All floors, and where and when they were recorded."""

    cpu_class: str
    machine: str
    date: str
    floors: list[Floor] = field(default_factory=list[Floor])


class FloorsError(Exception):
    """Floors that cannot be read or do not fit this machine; the text says what to do."""


def path_of(cpu_class: str) -> Path:
    """Return where the floors of a class of CPU are."""
    return FOLDER / f"floors-{cpu_class}.json"


def read(cpu_class: str) -> Floors:
    """Read a class's floors. Raises FloorsError where there are none, or the file is not theirs."""
    path = path_of(cpu_class)
    try:
        found = json.loads(path.read_text())
        return Floors(
            found["cpu_class"], found["machine"], found["date"], [Floor(**each) for each in found["floors"]]
        )
    except FileNotFoundError:
        others = ", ".join(sorted(p.stem.removeprefix("floors-") for p in FOLDER.glob("floors-*.json")))
        raise FloorsError(
            f"no floors are recorded for {cpu_class}, which this machine is"
            + (f" (there are some for {others}, which mean nothing here)" if others else "")
            + '; `make bench ARGS="--record-floors"` records them'
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FloorsError(f"{path}: found no floors in it ({error}); record them anew") from error


def write(floors: Floors) -> Path:
    """Write floors, one to a line, sorted, so that a change of one is a change of one line."""
    lines = ",\n".join("  " + json.dumps(asdict(floor)) for floor in sorted(floors.floors))
    head = {key: getattr(floors, key) for key in ("cpu_class", "machine", "date")}
    start = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
    path = path_of(floors.cpu_class)
    path.write_text(f'{start},\n "floors": [\n{lines}\n ]\n}}\n')
    return path


def record(results: Results, old: Floors | None, margin: float = MARGIN) -> Floors:
    """Return floors at `margin` of each ratio measured, rounded down to hundredths.

    Old floors (of the same class of CPU) of what was not measured now stay.
    """
    new = [
        Floor(row.model, row.batch, row.threads, cell.runner, math.floor(ratio * margin * 100 + 1e-9) / 100)
        for row in results.rows
        for cell in row.cells
        if cell.runner != "ingot" and (ratio := row.ratio(cell.runner)) is not None
    ]
    measured = {floor.key for floor in new}
    if old is not None:
        new += [floor for floor in old.floors if floor.key not in measured]
    return Floors(results.cpu_class, results.machine, results.date, sorted(new))


def fallen(floors: Iterable[Floor], rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each floor whose ratio was measured below it, or has no time at all."""
    found: list[str] = []
    where = {(row.model, row.batch, row.threads): row for row in rows}
    for floor in sorted(floors):
        row = where.get((floor.model, floor.batch, floor.threads))
        if row is None:
            continue
        ratio = row.ratio(floor.peer)
        about = f"{row.title}, {row.on}, {floor.peer}"
        if ratio is None:
            cells = [row.cell("ingot"), row.cell(floor.peer)]
            reasons = [row.reason, *(cell.reason for cell in cells if cell is not None)]
            why = next((reason for reason in reasons if reason), "it was not measured")
            found.append(f"{about}: no ratio, the floor is {floor.ratio:.2f}×; {why}")
        elif ratio < floor.ratio:
            found.append(f"{about}: {ratio:.2f}× is below the floor of {floor.ratio:.2f}×")
    return found
