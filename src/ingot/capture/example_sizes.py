"""Which sizes a model is recorded with: the example's, others where it has none, or small or equal ones."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ingot.capture.dims import DimTable, hints_for, raised
from ingot.capture.recording import Recording
from ingot.capture.size_symbols import UNDEFINED
from ingot.capture.where import raise_if_ours
from ingot.errors import ExportError

LARGER = (4, 16, 64, 256)  # times the example: blocks of 128 rows are one for fewer
#: Tried in turn where no example gives sizes and small ones do not do; the last is a multiple of 3, 5 and 7.
CHOSEN_SIZES = ((64, 96, 128), (224,), (420,))


def with_chosen_sizes(attempt: Any, table: DimTable) -> Recording:
    """Where no example gave sizes, small ones first: then those that images and long texts have.

    A network that halves its feature maps five times has nothing left of a small one.
    """
    try:
        recording = _with_raised_hints(attempt, table)
        if not table.chosen or not _ends_small(recording, table):
            return recording
    except Exception as error:  # whatever the model makes of a size that is none of its own
        raise_if_ours(error)
        if not table.chosen:
            raise
    for sizes in CHOSEN_SIZES:
        larger = replace(table, sizes=table.sizes | _within(table, sizes))
        try:
            recording = _with_raised_hints(attempt, larger)
        except Exception as error:  # as above
            raise_if_ours(error)
            continue
        table.sizes.update(larger.sizes)
        return recording
    return _with_raised_hints(attempt, table)


def _ends_small(recording: Recording, table: DimTable) -> bool:
    env = recording.env
    return any(env.names.get(s) in table.chosen for s in {*env.fixed}.union(*env.small.values()))


def _within(table: DimTable, sizes: Sequence[int]) -> dict[str, int]:
    """Other sizes for the dimensions that no example gave, inside their ranges."""
    made: dict[str, int] = {}
    for i, name in enumerate(sorted(table.chosen)):
        low, high = table.ranges.get(name, (0, None))
        size = max(sizes[i % len(sizes)], low)
        made[name] = size if high is None else min(size, high)
    return made


def _with_raised_hints(attempt: Any, table: DimTable) -> Recording:
    """Example sizes of 0 and 1 are raised to 2 or more; those that the model then refuses are put back, one
    by one.
    """
    hints = hints_for(table)
    changed = raised(table, hints)
    try:
        recording: Recording = attempt(hints)
        if not changed or not _misses_the_example(recording, table):
            return recording
    except ExportError:
        raise
    except Exception as error:  # whatever the model makes of sizes that are none of its own
        raise_if_ours(error)
        if not changed:
            raise
    kept = table.sizes | table.numbers
    recording = attempt(kept)  # the example's own sizes: if these fail too, the error is the model's
    if len(changed) == 1:
        return recording
    for name in changed:
        trial = {**kept, name: hints[name]}
        try:
            other: Recording = attempt(trial)
        except ExportError:
            raise
        except Exception as error:  # whatever the model makes of sizes that are none of its own
            raise_if_ours(error)
            continue
        if not _misses_the_example(other, table):
            recording, kept = other, trial
    return recording


def _misses_the_example(recording: Recording, table: DimTable) -> bool:
    """Whether the model's own Python took a branch at the sizes tried that it does not take at the example's,
    or fixed a dimension at the size tried, or operands fit at these that do not at the example's, where one
    is repeated.

    Such a recording is not the function that the example shows, however well its sizes fit.
    """
    env = recording.env
    named = {name: fixed.size for s, fixed in env.fixed.items() if (name := env.names.get(s)) is not None}
    if any(table.sizes.get(n, size) != size for n, size in named.items() if n not in table.chosen):
        return True
    example = {s: table.sizes[name] for s, name in env.names.items() if name in table.sizes}
    example |= {s: table.numbers[name] for s, name in env.numbers.items()}
    try:
        known = env.at(example)
        return any(
            guard.whole.xreplace(known) == False  # noqa: E712  (a SymPy object)
            for guard in env.held.values()
            if guard.by_user or guard.demanded
        )
    except UNDEFINED:  # the sizes tried went a way on which the example's divide by 0
        return True


def with_larger_sizes(attempt: Any, recording: Recording, table: DimTable) -> Recording:
    """An example so small that its feature maps end at size 1 is recorded again with larger sizes."""
    env = recording.env
    if not env.small:
        return recording
    bases = set().union(*env.small.values())
    small = {name for s, name in env.names.items() if s in bases or env.canon_dims(s) in bases}
    base = env.hints_by_name()

    def scaled(factor: int) -> dict[str, int]:
        return {name: hint * factor if name in small else hint for name, hint in base.items()}

    def is_small(hints: dict[str, int]) -> bool:
        try:
            known = env.at({s: hints[name] for s, name in env.names.items() if name in hints})
            return any(condition.xreplace(known) != False for condition in env.small)  # noqa: E712  (SymPy's)
        except UNDEFINED:  # a size is divided by one that is 0 there: no sizes to record with
            return True

    hints = next((h for h in map(scaled, LARGER) if not is_small(h)), scaled(LARGER[0]))
    if _goes_another_way(recording, hints):
        return recording
    try:
        larger: Recording = attempt(hints)
    except Exception as error:  # whatever the model makes of sizes that are none of its own
        raise_if_ours(error)
        return recording
    better = len(larger.env.small) < len(env.small) and len(larger.env.fixed) <= len(env.fixed)
    return larger if better and not _misses_the_example(larger, table) else recording


def _goes_another_way(recording: Recording, hints: Mapping[str, int]) -> bool:
    """Whether it is known beforehand that a recording with these sizes would miss the example: the first
    condition that does not hold for them is one of the model's own, or demanded, and was asked before a size
    of 1 was put into any formula.
    """
    env = recording.env
    own = {s: n for s, n in env.hints.items() if s in env.names or s in env.numbers}
    if not env.small.keys() <= {guard.condition for guard in env.held.values()}:
        return False
    try:
        here, there = env.at(own), env.at(own | {s: hints[name] for s, name in env.names.items()})
        for guard in env.held.values():
            if guard.condition in env.small:
                return False
            if guard.whole.xreplace(there) != False:  # noqa: E712  (a SymPy object)
                continue
            ways = (guard.condition, *guard.under)
            return (guard.by_user or guard.demanded) and all(c.xreplace(here) == True for c in ways)  # noqa: E712
    except UNDEFINED:
        pass
    return False


def with_unequal_sizes(attempt: Any, recording: Recording, table: DimTable) -> Recording:
    """Dimensions that were found equal may be so by chance in the example: try whether the model works
    without.

    Only where torch looked for itself: what the model's own Python asked is its own branch, and what an
    operator demands it demands of other sizes too.
    """
    env = recording.env
    pairs = [drop for drop, (_, _, must) in env.unified.items() if not must]
    trials = [pairs, *([p] for p in pairs)] if len(pairs) > 1 else [pairs]
    base = env.hints_by_name()
    for changed in trials if pairs else []:
        hints = base | {env.names[s]: base[env.names[s]] * 2 for s in changed}
        try:
            other: Recording = attempt(hints)
        except Exception as error:  # whatever the model makes of sizes that are none of its own
            raise_if_ours(error)
            continue
        freer = len(other.env.unified) < len(recording.env.unified)
        if freer and len(other.env.fixed) <= len(env.fixed) and not _misses_the_example(other, table):
            recording = other
            if changed is pairs:
                break
    return recording
