"""Inputs that take the sides of branches and loops which the example does not take.

Sizes are chosen from the conditions on sizes; elements are drawn in many ways, then moved towards the other
side of a comparison. What is found is for verification to compare; what is not, for it to report.
"""

# torch and SymPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy
import torch

from ingot.capture.sample import LONGEST, allowed, free_sizes, sampled_inputs, sizes_of, within
from ingot.capture.sides import Side, Taken
from ingot.capture.size_symbols import UNDEFINED
from ingot.capture.solving import solved
from ingot.errors import IngotError

if TYPE_CHECKING:
    from ingot.capture.attempt import Capture

DRAWS = 160  # of elements at one set of sizes, at the most
CLIMBS = 150  # steps towards one side
SHAPES = 12  # sets of sizes that are drawn at
_CONDITIONS = 24  # conditions on sizes that are solved

Look = Callable[[Sequence[Any]], Taken]
Found = tuple[list[Any], dict[str, int], set[Side]]


def searched(
    captured: Capture,
    look: Look,
    open_sides: set[Side],
    shapes: Sequence[dict[str, int]],
    rng: np.random.Generator,
    seconds: float,
) -> Iterator[Found]:
    """Inputs, with their sizes, that take sides which nothing before took; `open_sides` loses those.

    look: runs the watched copy of the model
    shapes: sizes that the module is known to take
    seconds: when to stop at the latest
    """
    deadline = time.monotonic() + seconds
    near: dict[Side, tuple[float, list[Any], dict[str, int]]] = {}

    def tried(inputs: list[Any], sizes: dict[str, int]) -> set[Side]:
        try:
            taken = look(inputs)
        except IngotError:  # a check in the graph says no, or an index is none
            return set()
        if taken.endless:  # the module would run on as well
            return set()
        for side, margin in taken.margins.items():
            if side in open_sides and (side not in near or margin > near[side][0]):
                near[side] = margin, inputs, sizes
        return taken.sides & open_sides

    for inputs, sizes in _drawn(captured, shapes, rng):
        if not open_sides or time.monotonic() > deadline:
            break
        found = tried(inputs, sizes)
        if found and tried([_moved(x) for x in inputs], sizes) >= found:  # not by the last digit
            open_sides -= found
            yield inputs, sizes, found
    for side in [s for s in near if s in open_sides]:
        for inputs, sizes in _climbed(captured, near, side, rng):
            if side not in open_sides or time.monotonic() > deadline:
                break
            found = tried(inputs, sizes)
            if found and tried([_moved(x) for x in inputs], sizes) >= found:
                open_sides -= found
                yield inputs, sizes, found


def _moved(x: Any) -> Any:
    """The input in other last digits."""
    return x * (1 + 1e-5) if isinstance(x, torch.Tensor) and x.dtype.is_floating_point else x


# -- sizes


def sizes_taking_other_sides(captured: Capture) -> Iterator[dict[str, int]]:
    """Sizes for which a branch on sizes goes another way than for the example."""
    env = captured.recording.env
    free = free_sizes(captured)
    example = {s: sympy.Integer(captured.table.sizes[env.names[s]]) for s in free}
    conditions = [c for c in dict.fromkeys(env.asked) if not env.of_data(c)]
    for condition in conditions[:_CONDITIONS]:
        try:
            holds = condition.xreplace(env.at(example))
        except UNDEFINED:  # it stands on a way that the example does not go
            continue
        symbols = [s for s in sorted(env.bases(condition), key=str) if s in example][:2]
        other = condition if holds == False else sympy.Not(condition)  # noqa: E712  (SymPy objects)
        for trial in itertools.chain(_near(condition, symbols, example), _computed(other, symbols, example)):
            if any(not within(captured, s, int(n)) for s, n in trial.items()):
                continue
            known = allowed(captured, example | trial)
            if known is not None and condition.xreplace(known) == sympy.Not(holds):
                yield sizes_of(captured, known)
                break


def _near(condition: Any, symbols: Sequence[Any], example: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    numbers = sorted({abs(int(n)) for n in condition.atoms(sympy.Integer)})
    steps = sorted({max(n + d, 0) for n in numbers for d in (-1, 0, 1)})
    from_condition = [n for n in (*steps, *(2 * n for n in numbers)) if n <= LONGEST]
    of_all = [*from_condition, 2, 3, 5, 7, 1, 0, 16, 33, 64, 128, 257, 512, 1024]
    for s in symbols:
        own = int(example[s])
        for n in dict.fromkeys([own + 1, own - 1, 2 * own, own // 2, 3 * own, *of_all]):
            yield {s: sympy.Integer(max(n, 0))}
    for pair in itertools.product(of_all[:12], repeat=2) if len(symbols) == 2 else ():
        yield dict(zip(symbols, map(sympy.Integer, pair), strict=True))


def _computed(condition: Any, symbols: Sequence[Any], example: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    for trial in solved(condition, {s: example[s] for s in symbols}, ()):
        if all(n <= LONGEST for n in trial.values()):
            yield trial


# -- elements


def _drawn(
    captured: Capture, shapes: Sequence[dict[str, int]], rng: np.random.Generator
) -> Iterator[tuple[list[Any], dict[str, int]]]:
    """Inputs of these sizes, elements drawn in many ways: all alike, or one in another way than the rest."""
    count = len(captured.specs)
    kept = list({tuple(sizes.items()): sizes for sizes in shapes}.values())[:SHAPES]
    for round_ in range(DRAWS if kept else 0):
        sizes = kept[round_ % len(kept)]
        inputs = sampled_inputs(captured, sizes, rng)
        way = round_ // len(kept)
        if way:
            alone = int(rng.integers(count)) if way % 2 and count > 1 else None
            inputs = [
                _varied(spec, x, way, rng) if alone is None or i == alone else x
                for i, (spec, x) in enumerate(zip(captured.specs, inputs, strict=True))
            ]
        yield inputs, sizes


_SCALES = (1.0, -1.0, 0.1, 10.0, -10.0, 100.0, 0.01, -100.0, 1000.0)
_SHIFTS = (0.0, 1.0, -1.0, 0.5, 5.0, -5.0, 50.0, -50.0)


def _varied(spec: Any, x: Any, way: int, rng: np.random.Generator) -> Any:
    if spec.number is bool:
        return bool(rng.integers(2))
    if spec.number is int:
        return int(rng.choice([0, 1, 2, 3, 5, 10, 100, -1, -2, x, x + 1, 2 * x]))
    if spec.number is float:
        return float(np.float32(x * rng.choice(_SCALES) + rng.choice(_SHIFTS)))
    if spec.dtype == torch.bool:
        return torch.from_numpy(np.asarray(rng.random(tuple(x.shape)) < (0.0, 1.0, 0.5, 0.9, 0.1)[way % 5]))
    if not spec.dtype.is_floating_point:
        return _integers(x, way, rng)
    noise = torch.from_numpy(np.asarray(rng.standard_normal(tuple(x.shape)))).to(x.dtype)
    kind = way % 6
    scale, shift = float(rng.choice(_SCALES)), float(rng.choice(_SHIFTS))
    if kind == 0:
        return noise.abs() * scale
    if kind == 1:
        return noise * 1e-3 * scale + shift
    if kind == 2:
        return x * scale + shift
    if kind == 3:
        return torch.zeros_like(x) if way % 12 == 3 else torch.full_like(x, shift)
    if kind == 4:
        return torch.where(
            torch.from_numpy(np.asarray(rng.random(tuple(x.shape)) < 0.9)), x * 0, noise * scale
        )
    return noise * scale + shift


def _integers(x: torch.Tensor, way: int, rng: np.random.Generator) -> torch.Tensor:
    low, high = (int(x.min()), int(x.max())) if x.numel() else (0, 1)
    kind = way % 5
    if kind == 0:
        return torch.full_like(x, int(rng.integers(low, high + 1)))
    if kind == 1:
        return torch.from_numpy(np.asarray(rng.integers(low, high + 1, tuple(x.shape)))).to(x.dtype)
    if kind == 2:
        return torch.full_like(x, int(rng.choice([0, 1, 2, 3, 5, 10])))
    if kind == 3:
        return torch.from_numpy(np.asarray(rng.integers(0, 10, tuple(x.shape)))).to(x.dtype)
    return (x.to(torch.int64) * int(rng.choice([-1, 2, 10])) + int(rng.integers(-3, 4))).to(x.dtype)


def _climbed(
    captured: Capture,
    near: dict[Side, tuple[float, list[Any], dict[str, int]]],
    side: Side,
    rng: np.random.Generator,
) -> Iterator[tuple[list[Any], dict[str, int]]]:
    """The nearest inputs so far, moved a little or much: whoever looks keeps the nearest up to date."""
    for step in range(CLIMBS):
        _, inputs, sizes = near[side]
        reach = float(10.0 ** rng.uniform(-4, 1.5))
        yield (
            [_stepped(spec, x, reach, step, rng) for spec, x in zip(captured.specs, inputs, strict=True)],
            sizes,
        )


def _stepped(spec: Any, x: Any, reach: float, step: int, rng: np.random.Generator) -> Any:
    if spec.number is not None:
        return x if spec.number is bool else spec.number(x + rng.normal() * (1 + abs(x)) * reach)
    if not spec.dtype.is_floating_point:
        return x
    shape, kind = tuple(x.shape), step % 4
    spread = float(x.abs().max()) if x.numel() else 1.0
    if kind == 0:
        return x + (rng.normal() * reach * (spread + 1e-3))
    if kind == 1:
        return x * float(np.exp(rng.normal() * reach))
    noise = torch.from_numpy(np.asarray(rng.standard_normal(shape))).to(x.dtype) * reach * (spread + 1e-3)
    return x + (noise if kind == 2 else noise * torch.from_numpy(np.asarray(rng.random(shape) < 0.2)))
