"""Dicts of rewritten code of which data decides whether they have some of their keys, constants of the code.

They take the place of all dicts that the model's own code makes once it turns out that one of them is such a
dict. Needs no torch to be told.
"""

# Keys and values may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportIncompatibleMethodOverride=false, reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from ingot.capture.objects import is_a
from ingot.capture.where import models_own

_NONE: Any = object()  # stands for an argument that is not given
_IN_ORDER = "goes through a dict of which data decides in which order it has its keys"


class TracedDict(dict[Any, Any]):
    """A dict that may hold Perhaps: what stands under a key that is there or not."""

    unordered = False  # whether data decides the order of its keys

    @property
    def known(self) -> bool:
        """Whether Python knows its keys."""
        return not any(map(_is_perhaps, dict.values(self)))

    def has(self, key: Any) -> Any:
        """`key in self`, of a key that Python knows."""
        held = dict.get(self, key, _NONE)
        return held.there if _is_perhaps(held) else held is not _NONE

    def count(self) -> Any:
        """How many keys it has."""
        from ingot.capture.request import recorder  # which needs this file
        from ingot.capture.scalars import of_truth

        held = list(dict.values(self))
        perhaps = [of_truth(recorder(), v.there) for v in held if _is_perhaps(v)]
        return sum(perhaps, len(held) - len(perhaps))

    def __getitem__(self, key: Any) -> Any:
        try:
            held = dict.__getitem__(self, key)
        except KeyError as error:
            # The side of a branch that does this raises always, as far as rounds have filled the dict.
            models_own(error)
            raise
        return _there(held)

    def __setitem__(self, key: Any, value: Any) -> None:
        if _is_perhaps(dict.get(self, key)) and next(dict.__reversed__(self)) != key:
            self.unordered = True  # it stays where it is, or becomes the last
        dict.__setitem__(self, key, value)

    def __delitem__(self, key: Any) -> None:
        _there(dict.get(self, key))
        dict.__delitem__(self, key)

    def get(self, key: Any, default: Any = None) -> Any:
        """As dict.get."""
        return _or_else(dict.get(self, key, default), default)

    def pop(self, key: Any, *default: Any) -> Any:
        """As dict.pop."""
        held = dict.pop(self, key, *default)
        return _or_else(held, default[0]) if default else _there(held)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As dict.setdefault."""
        held = dict.setdefault(self, key, default)
        if _is_perhaps(held):
            self[key] = held = _or_else(held, default)
        return held

    def update(self, *others: Any, **more: Any) -> None:
        """As dict.update, with what may be there too."""
        for other in (*others, more):
            if not isinstance(other, TracedDict):
                for key, value in dict(other).items():
                    self[key] = value
                continue
            for key, value in dict.items(other):
                self[key] = self._over(key, value)
            self.unordered = self.unordered or other.unordered

    def _over(self, key: Any, value: Any) -> Any:
        """What stands under a key once another dict is written over this one."""
        held = dict.get(self, key, _NONE)
        if not _is_perhaps(value) or held is _NONE:
            return value
        from ingot.capture.runs import Perhaps
        from ingot.capture.stage import RUNTIME

        before = held.value if _is_perhaps(held) else held
        made = RUNTIME.choose(value.there, lambda: value.value, lambda: before)
        return Perhaps(RUNTIME.either(value.there, lambda: held.there), made) if _is_perhaps(held) else made

    def copy(self) -> TracedDict:
        """As dict.copy."""
        made = TracedDict()
        made.update(self)
        return made

    def __or__(self, other: Any) -> TracedDict:  # type: ignore[override]
        made = self.copy()
        made.update(other)
        return made

    def __ror__(self, other: Any) -> TracedDict:  # type: ignore[override]
        made = TracedDict(other)
        made.update(self)
        return made

    def __ior__(self, other: Any) -> TracedDict:  # type: ignore[override, misc]
        self.update(other)
        return self

    def _listed(self, of: Any) -> Any:
        """A list of what a function gives of its keys and values, as they are there."""
        from ingot.capture.lists import TracedList
        from ingot.capture.runs import Perhaps

        if self.unordered and dict.__len__(self) > 1:
            _cannot_say(_IN_ORDER)
        return TracedList(
            Perhaps(v.there, of(k, v.value)) if _is_perhaps(v) else of(k, v) for k, v in dict.items(self)
        )

    def keys(self) -> Any:
        """As dict.keys: a list where data decides which they are."""
        plain = self.known and not self.unordered
        return dict.keys(self) if plain else self._listed(lambda key, _: key)

    def values(self) -> Any:
        """As dict.values."""
        plain = self.known and not self.unordered
        return dict.values(self) if plain else self._listed(lambda _, value: value)

    def items(self) -> Any:
        """As dict.items."""
        plain = self.known and not self.unordered
        return dict.items(self) if plain else self._listed(lambda key, value: (key, value))

    def __contains__(self, key: object) -> bool:
        if _is_perhaps(dict.get(self, key)):
            _cannot_wait("asks a dict for a key of which data decides whether it is there")
        return dict.__contains__(self, key)

    def _plain(self, what: str) -> TracedDict:
        if not self.known:
            _cannot_wait(f"{what} a dict of which data decides the keys")
        if self.unordered and dict.__len__(self) > 1:
            _cannot_say(_IN_ORDER)
        return self

    def __iter__(self) -> Iterator[Any]:
        return dict.__iter__(self._plain("goes through"))

    def __reversed__(self) -> Iterator[Any]:
        return dict.__reversed__(self._plain("goes through"))

    def popitem(self) -> tuple[Any, Any]:
        """As dict.popitem."""
        return dict.popitem(self._plain("takes the last item of"))

    def __len__(self) -> int:
        if not self.known:
            _cannot_wait("needs the length of a dict of which data decides the keys")
        return dict.__len__(self)

    def __eq__(self, other: object) -> bool:
        if not (self.known and (not isinstance(other, TracedDict) or other.known)):
            _cannot_wait("compares a dict of which data decides the keys")
        return dict.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]


def is_grown(x: Any) -> bool:
    """Whether it is a dict of which data decides some of the keys, or their order."""
    return is_a(x, TracedDict) and not x.known


def looped_over(x: Any) -> Any:
    """What a loop over something goes through: of such a dict, a list of its keys."""
    return x.keys() if is_grown(x) else x


def in_order(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> tuple[list[Any], bool]:
    """The keys of two dicts, and whether both have theirs in this order."""
    for first, second in ((a, b), (b, a)):
        keys = list(dict.fromkeys([*first, *second]))
        if all([k for k in keys if k in side] == list(side) for side in (a, b)):
            return keys, True
    return list(dict.fromkeys([*a, *b])), False


def _is_perhaps(x: Any) -> bool:
    from ingot.capture.runs import Perhaps  # which needs torch

    return isinstance(x, Perhaps)


def _there(held: Any) -> Any:
    """What stands under a key that must be there, as the model checks."""
    if not _is_perhaps(held):
        return held
    from ingot.capture.checks import require_uncaught
    from ingot.capture.stage import RUNTIME

    require_uncaught("a dict has the key", "Ask with `in` or `.get(…)` before.", KeyError)
    RUNTIME.check(held.there, None)
    return held.value


def _or_else(held: Any, default: Any) -> Any:
    """What stands under a key, or something else where it is not there."""
    if not _is_perhaps(held):
        return held
    from ingot.capture.stage import RUNTIME

    return RUNTIME.choose(held.there, lambda: held.value, lambda: default)


def _cannot_wait(what: str) -> NoReturn:
    from ingot.capture.request import cannot_wait  # which needs this file

    cannot_wait(what)


def _cannot_say(what: str) -> NoReturn:
    from ingot.capture.request import cannot_say

    cannot_say(what, "Set its keys in one order, all of them before a branch or loop.")
