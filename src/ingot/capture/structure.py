"""Values that are made of others, as branches and loops take them apart: lists, tuples, dicts, dataclasses,
and what stands for elements or values that may not be there.
"""

# Stands for values of any kind.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch

from ingot.capture.choice import Choice, Maybe, Parts, Unordered
from ingot.capture.dicts import TracedDict
from ingot.capture.objects import copied, held_in, is_a, is_of_attributes, own_dict
from ingot.capture.request import ACTIVE
from ingot.capture.scalars import Symbolic, is_data
from ingot.capture.words import Word, is_thing

_DICTS = (dict, Unordered, TracedDict)
_CHOSEN = (Word, Choice)  # a condition chooses: it is a part of them, and so are those of their sides


def parts_of(x: Any) -> list[Any] | None:
    """What a value is made of; None where it is made of nothing else. Nor are objects that have no
    attributes, which are told apart by what they are alone, and such as hold themselves, without an end.
    """
    parts = _parts(x)
    if not is_of_attributes(type(x)):
        return parts
    return None if not parts or holds_itself(x) else parts


def holds_itself(x: Any) -> bool:
    """Whether an object is among what it is made of: itself, or what those that it holds hold."""
    return is_of_attributes(type(x)) and any(v is x for v in inside(_parts(x)))


def _parts(x: Any) -> list[Any] | None:
    """The same of whatever holds anything."""
    kind = type(x)
    if issubclass(kind, Parts):
        return x.parts()
    if issubclass(kind, list):
        return [*list.__iter__(x), *own_dict(x).values()]
    if issubclass(kind, tuple):
        return [*tuple.__iter__(x), *own_dict(x).values()]
    if kind in _DICTS:
        return list(dict.values(x))
    if issubclass(kind, Maybe):
        return [x.ingot_is_none, x.ingot_value]
    if issubclass(kind, _CHOSEN):
        return [x.ingot_condition, *(v for v in x.ingot_sides if is_a(v, _CHOSEN))]
    return list(held_in(x).values()) if is_of_attributes(kind) else None


def _keys(x: dict[Any, Any]) -> list[Any]:
    return list(dict.keys(x) if is_a(x, (Unordered, TracedDict)) else x)


def rebuilt(like: Any, parts: list[Any]) -> Any:
    """A value of the same kind, made of other parts."""
    made = _rebuilt(like, parts)
    if ACTIVE.recorder is not None:
        ACTIVE.recorder.copies.follow(made, like)
    return made


def _rebuilt(like: Any, parts: list[Any]) -> Any:
    if is_a(like, Parts):
        return like.of_parts(parts)
    if is_a(like, (list, tuple)):
        return _sequence(like, parts)
    if type(like) in _DICTS:
        return type(like)(zip(dict.keys(like), parts, strict=True))
    if is_a(like, _CHOSEN):
        condition, *rest = parts
        then, other = (rest.pop(0) if is_a(v, _CHOSEN) else v for v in like.ingot_sides)
        return Word(condition, then, other) if is_a(like, Word) else Choice(condition, (then, other))
    if is_a(like, Maybe):
        return Maybe(parts[0], parts[1])
    made: Any = _copied_dict(like) if is_a(like, dict) else copied(like)
    own = own_dict(made)
    for name, value in zip(held_in(like), parts, strict=True):
        if name in own:
            own[name] = value  # whatever its class makes of an assignment
        else:
            object.__setattr__(made, name, value)
        if is_a(made, dict) and name in made:
            _kind_of_dict(made).__setitem__(made, name, value)
    return made


def _sequence(like: Any, parts: list[Any]) -> Any:
    """A list or tuple of the same class, whatever that makes of its elements."""
    kind: Any = type(like)
    count = len(parts) - len(own_dict(like))
    if kind is tuple or kind is torch.Size:
        return tuple(parts)
    if is_a(like, tuple):
        is_torchs = hasattr(kind, "n_sequence_fields")  # values and indices, as torch.max gives them
        made = kind(parts) if is_torchs else tuple.__new__(kind, parts[:count])
    elif kind is list or kind.__module__.startswith("ingot."):
        return parts
    else:
        made = kind.__new__(kind)
        list.extend(made, parts[:count])
    if own_dict(like):
        own_dict(made).update(zip(own_dict(like), parts[count:], strict=True))
    return made


def _kind_of_dict(x: Any) -> Any:
    return OrderedDict if is_a(x, OrderedDict) else dict


def _copied_dict(x: Any) -> Any:
    """Without its class's own way, which would look at the parts."""
    kind: Any = type(x)
    made = kind.__new__(kind)
    own_dict(made).update(own_dict(x))
    for name in x:
        _kind_of_dict(x).__setitem__(made, name, dict.__getitem__(x, name))
    return made


def settled(x: Any) -> Any:
    """The value with containers that a condition chooses as copies of what is in them now."""
    return _settled(x, ()) if ACTIVE.words else x


def _settled(x: Any, around: Collection[int]) -> Any:
    if is_thing(x):
        return _settled(x.ingot_either(_copied), around)
    parts = parts_of(x)
    if parts is None or is_a(x, _CHOSEN) or id(x) in around:
        return x
    new = [_settled(v, (*around, id(x))) for v in parts]
    return x if all(a is b for a, b in zip(parts, new, strict=True)) else rebuilt(x, new)


def settled_in_tuples(x: Any, lasts: Callable[[Any], bool]) -> Any:
    """The same of a value, and of what is in tuples, which nobody can change; containers that a condition
    chooses stay where that one `lasts`.
    """
    if is_a(x, Word):
        return x if lasts(x) else settled(x)
    if not is_a(x, tuple) or not ACTIVE.words:
        return x
    parts = parts_of(x) or []
    new = [settled_in_tuples(v, lasts) for v in parts]
    return x if all(a is b for a, b in zip(parts, new, strict=True)) else rebuilt(x, new)


def _copied(x: Any) -> Any:
    """A container of its own with what is in this one."""
    if is_thing(x):
        return settled(x)
    if is_a(x, list):
        from ingot.capture.lists import TracedList

        return TracedList(list.__iter__(x))
    parts = parts_of(x)
    return x if parts is None else rebuilt(x, parts)


def alike(a: Any, b: Any) -> bool:
    """Whether two values are made in the same way, whatever of."""
    if type(a) is not type(b):
        return False
    parts, more = parts_of(a), parts_of(b)
    if parts is None or more is None or len(parts) != len(more):
        return False
    if is_a(a, Parts):
        return a.is_like(b)
    if is_a(a, _CHOSEN):
        return all(is_a(v, _CHOSEN) or v is w for v, w in zip(a.ingot_sides, b.ingot_sides, strict=True))
    if is_a(a, dict) and _keys(a) != _keys(b):
        return False  # of another order, parts are not each other's
    if is_a(a, (list, tuple)):
        return list(own_dict(a)) == list(own_dict(b))
    return not is_of_attributes(type(a)) or list(held_in(a)) == list(held_in(b))


def inside(x: Any) -> Iterator[Any]:
    """A value and all that it is made of, each object once: objects may hold each other."""
    seen, todo = set[int](), [x]
    while todo:
        v = todo.pop()
        if id(v) not in seen:
            seen.add(id(v))
            yield v
            todo.extend(reversed(_parts(v) or ()))


def undecided(x: Any) -> bool:
    """Whether the run alone knows a value, or a part of it."""
    g = ACTIVE.recorder
    if g is None:
        return False  # a script that runs by itself
    kinds = (Word, Maybe, Choice, *Symbolic)
    return any(
        is_data(g, v) if is_a(v, torch.Tensor) else is_a(v, kinds) or id(v) in g.chosen for v in inside(x)
    )


def mapped(
    x: Any,
    change: Callable[[Any], Any],
    around: Collection[int] = (),
    made: dict[int, tuple[Any, Any]] | None = None,
) -> Any:
    """The value with its innermost parts changed; the very same where none is, or where it lies inside itself
    (`around`: the ids of what it lies in).

    made: what became of which thing, so that one thing in two places stays one
    """
    parts = parts_of(x)
    if parts is None:
        return change(x)
    if id(x) in around:
        return x
    made = {} if made is None else made
    if id(x) in made:
        return made[id(x)][1]
    changed = [mapped(v, change, (*around, id(x)), made) for v in parts]
    same = all(a is b for a, b in zip(parts, changed, strict=True))
    made[id(x)] = x, (x if same else rebuilt(x, changed))
    return made[id(x)][1]
