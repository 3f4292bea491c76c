"""The conditions on sizes that lead to a branch: known in it, with example sizes that agree with them."""

# SymPy and torch's shape environment are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportIncompatibleMethodOverride=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import sympy

from ingot.capture.by_numbers import NoNumber, number
from ingot.capture.size_symbols import UNDEFINED
from ingot.capture.sizes import SizeEnv
from ingot.capture.solving import solved

_TRIED = (*range(2, 24), 32, 33, 48, 64, 65, 96, 128, 129, 255, 256, 257, 512, 513, 1024, 1025, 1, 0)
_TIMES = (2, 3, 4)  # as large as the example's: what is cut into windows or patches
_LARGE = [1 << k for k in range(11, 21)]  # beyond tables of positions


class NeverTaken(Exception):
    """A branch on sizes that no size takes."""


def require_example(env: SizeEnv, before: Collection[sympy.Symbol]) -> None:
    """What a branch's sides fixed for good, beside the dimensions before, are the example's sizes.

    Raises:
        NeverTaken: a side fits other sizes alone, and the model would refuse its own example.
    """
    if any(env.canon(s) != env.hint(s) for s in env.fixed.keys() - before):
        raise NeverTaken("a side fits sizes alone that are not the example's")


@contextlib.contextmanager
def assuming(env: SizeEnv, condition: Any = None) -> Generator[None]:
    """For the time of a branch that runs when the condition holds: it is known, and hints agree with it.

    Raises:
        NeverTaken: no sizes within the declared ranges were found under which it holds.
    """
    path = list(env.path)
    if condition is None:
        try:
            yield
        finally:
            env.path[:] = path  # without what was checked in it, which the run may not come to
        return
    hints, moment = dict(env.hints), env.moment
    env.path.append(condition)
    try:
        if not _agrees(env):
            _search_hints(env)
        for part in _parts(condition):
            if isinstance(part, sympy.Eq):
                _assume_equal(env, part)
        env.learned()
        env.begin_branch(moment, condition)
        yield
    finally:
        env.path[:] = path
        for symbol, hint in hints.items():
            env.hints[symbol] = hint
        env.decided.clear()
        env.moment = moment


def _agrees(env: SizeEnv) -> bool:
    """Whether the conditions of the path hold for the hints, and no size is divided by one of 0; all hints
    agree with one another then.
    """
    if not _hold(env, env.path):
        return False
    try:
        env.derive_hints(env.definitions)
    except UNDEFINED:
        return False
    return True


def _hold(env: SizeEnv, conditions: Sequence[Any]) -> bool:
    """Whether some conditions of the path hold for the hints."""
    try:
        env.derive_hints(_behind(env, conditions))
        return all(env.value(c) == True for c in conditions)  # noqa: E712  (SymPy objects)
    except UNDEFINED:
        return False


def _behind(env: SizeEnv, conditions: Iterable[Any]) -> list[sympy.Symbol]:
    """The sizes with definitions that conditions are made of, each after those that it is made of."""
    found: set[sympy.Symbol] = set()
    todo = [s for c in conditions for s in c.free_symbols]
    while todo:
        symbol = todo.pop()
        if symbol in env.definitions and symbol not in found:
            found.add(symbol)
            todo += env.definitions[symbol].free_symbols
    return [s for s in env.definitions if s in found]


def _search_hints(env: SizeEnv) -> None:
    """Sizes of the inputs, few changed, under which every condition of the path holds."""
    own = sorted(env.bases(env.path[-1]), key=str)
    asked, all_of = _asked(env, env.path)
    others = all_of - {*own, *env.names}
    symbols = [*own, *sorted(others, key=str)][:3]  # what data decides may have to be otherwise
    before = {s: env.hint(s) for s in symbols}
    every = {s: env.hints[s] for s in env.names} | before
    # Changing one size is tried before changing several, to one near the example's first: a
    # small one leaves
    # feature maps of size 1, which torch takes for what is repeated.
    near = [
        (s, int(n) * k + step)
        for k in (1, 2, 3)
        for step in (1, -1, 0, 2, 3, 4, 7)
        for s, n in before.items()
        if s.is_integer
    ]

    # Sizes that are equal in the example fit each other, as a mask's length does its text's: they change
    # together.
    alone = asked in env.unlike

    def singles(numbers: Iterable[tuple[Any, int]]) -> Iterator[dict[Any, Any]]:
        for s, n in numbers:
            alike = [t for t in env.names if s in env.names and every[t] == before[s]]
            for equal in ([],) if alone else (alike, []):
                yield {**before, **dict.fromkeys(equal, sympy.Integer(n)), s: sympy.Integer(n)}

    tried = _numbers(len(symbols))
    few = singles([*near, *itertools.product(symbols, tried)])
    many = singles(itertools.product(symbols, _LARGE))
    several = (
        dict(zip(symbols, map(sympy.Integer, numbers), strict=True))
        for numbers in itertools.product(tried, repeat=len(symbols))
    )
    found = env.fitting.get(asked)
    known = [] if found is None else [found]
    more = several if len(symbols) > 1 else ()
    are_sizes = all(s in env.names for s in symbols)
    computed = solved(_whole(env), before, _numbers(len(symbols))) if are_sizes else ()
    trials = itertools.chain(known, few, computed, more, many, _tied(env, own, every, alone))
    if asked in env.multiples:
        larger = ((s, int(n) * times) for times in _TIMES for s, n in before.items() if s.is_integer)
        together = ({s: n * times for s, n in before.items()} for times in _TIMES)
        trials = itertools.chain(known, singles(larger), together)
    fails = _Failing(env, env.path)
    for trial in () if found == {} else trials:
        if fails.for_sizes({**every, **trial}):
            continue
        if any(n not in env.var_to_range[s] for s, n in trial.items() if s in env.var_to_range):
            continue
        env.hints.update({**every, **trial})
        if _agrees(env):
            env.fitting[asked] = trial
            return
    env.fitting[asked] = {}  # there are none
    env.hints.update(every)
    env.derive_hints(env.definitions)
    if not are_sizes:
        return  # data decides: any hint will do
    raise NeverTaken(f"no sizes were found for which {env.path[-1]} holds")


class _Failing:
    """Sizes for which one of some conditions fails, as Python's own numbers show: most of those that are
    tried, and SymPy takes long for each.
    """

    def __init__(self, env: SizeEnv, conditions: Sequence[Any]) -> None:
        self._conditions = list(conditions)
        self._definitions = {s: env.definitions[s] for s in _behind(env, conditions)}
        self._hints = {s: int(n) for s, n in env.hints.items() if n.is_Integer and s not in self._definitions}

    def for_sizes(self, sizes: Mapping[Any, Any]) -> bool:
        """Whether one fails for these."""
        numbers = self._hints | {s: int(n) for s, n in sizes.items() if s in self._hints}
        known: dict[Any, Any] = {}
        try:
            for symbol, definition in self._definitions.items():
                known[symbol] = number(definition, numbers, known)
            return not all(number(c, numbers, known) for c in self._conditions)
        except NoNumber:
            return False


def _asked(env: SizeEnv, path: Sequence[Any]) -> tuple[Any, set[sympy.Symbol]]:
    """What sizes are looked for: conditions, with what the sizes are that they are made of; these sizes."""
    all_of = set[sympy.Symbol]().union(*map(env.bases, path))
    return (*path, *((s, env.hint(s)) for s in sorted(all_of, key=str))), all_of


def taken_apart(env: SizeEnv, condition: Any) -> bool:
    """Something fails for the sizes that were found for a condition: whether others will be looked for. Those
    that are equal in the example may be so by chance, tokens that are as many as a filter has taps; and an
    image that is cut into windows has to be as large as several of them.
    """
    if not env.fitting or any(s in env.stale for s in env.bases(condition)):
        return False
    asked, all_of = _asked(env, (*env.path, condition))
    moved = [s for s, n in env.fitting.get(asked, {}).items() if n != env.hint(s)]
    if asked not in env.unlike and not all_of.issuperset(moved):
        env.unlike.add(asked)
    elif asked not in env.multiples and moved and any(_holds_for(env, condition, n) for n in _TIMES):
        env.multiples.add(asked)
    else:
        return False
    del env.fitting[asked]
    return True


def _whole(env: SizeEnv) -> Any:
    """The last condition of the path, over sizes without definitions."""
    condition = env.path[-1]
    while found := condition.free_symbols & env.definitions.keys():
        condition = condition.xreplace({s: env.definitions[s] for s in found})
    return condition


def _holds_for(env: SizeEnv, condition: Any, times: int) -> bool:
    """Whether a condition holds where one of its sizes, or all, are so many times the example's."""
    opened, sizes = env.expand(condition), {s: env.hint(s) for s in env.bases(condition)}
    larger = {s: n * times for s, n in sizes.items()}
    try:
        return any(opened.xreplace(sizes | n) == True for n in (larger, *({s: n} for s, n in larger.items())))  # noqa: E712
    except UNDEFINED:
        return False


def _tied(
    env: SizeEnv, own: Sequence[sympy.Symbol], every: Mapping[Any, Any], alone: bool
) -> Iterator[dict[sympy.Symbol, Any]]:
    """Sizes for which the last condition of the path holds, with others for those that one before ties to
    them: where a past and a text are longer than a window, a text of one token wants a longer past.
    """
    before = [bases for c in env.path[:-1] if not (bases := env.bases(c)).isdisjoint(own)]
    tied = set[sympy.Symbol]().union(*before) & env.names.keys() - {*own}
    symbols = [*own, *sorted(tied, key=str)][:3]
    if len(symbols) == len(own) or not all(s in env.names for s in own):
        return
    numbers = list(map(sympy.Integer, (*_numbers(len(symbols)), *(_LARGE if len(symbols) < 3 else ()))))
    together = [] if alone else env.names
    equal = {s: [t for t in together if every[t] == every[s] and t not in symbols] for s in symbols}
    fails = _Failing(env, env.path[-1:])
    for mine in itertools.product(numbers, repeat=len(own)):
        if fails.for_sizes(dict(zip(own, mine, strict=True))):
            continue
        env.hints.update(zip(own, mine, strict=True))
        if not _hold(env, env.path[-1:]):
            continue
        for others in itertools.product(numbers, repeat=len(symbols) - len(own)):
            sizes = dict(zip(symbols, (*mine, *others), strict=True))
            yield sizes | {t: n for s, n in sizes.items() for t in equal[s]}
            yield sizes


def _numbers(count: int) -> Sequence[int]:
    """The sizes that each of so many is tried with."""
    return _TRIED if count < 3 else (*range(2, 12), 16, 33, 64, 1, 0)


def _parts(condition: Any) -> list[Any]:
    """What holds together where a condition does; SymPy leaves `not (a or b)` as it is."""
    if isinstance(condition, sympy.And):
        return [part for each in condition.args for part in _parts(each)]
    if isinstance(condition, sympy.Not) and isinstance(condition.args[0], sympy.Or):
        return [part for each in condition.args[0].args for part in _parts(sympy.Not(each))]
    return [condition]


def _assume_equal(env: SizeEnv, equation: Any) -> None:
    """In this branch a size is known."""
    for side, other in ((equation.lhs, equation.rhs), (equation.rhs, equation.lhs)):
        if side.is_Symbol and side not in other.free_symbols:
            env.put(side, other)
            return
