"""What Python's own functions and subscripts do with tensors, numbers and lists that only the run knows.

`STANDINS` maps a function (by id) to what stands in for it in rewritten code: called with the runtime, then
the arguments, with Python's own names where it takes them by name. Each gives for plain values what the
function gives.
"""

# Arguments are whatever the model's Python has; not every stand-in needs the runtime.
# ruff: noqa: ARG001
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import builtins
import enum
import functools
import itertools
import math
import operator
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from types import BuiltinMethodType, FunctionType
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture import checks, keyed, memos, scalars
from ingot.capture.choice import Maybe, present
from ingot.capture.forms import Differ
from ingot.capture.lists import Layers, Passing, Rows, TracedList, is_called_in_order, sliced
from ingot.capture.positions import another, made_of_what
from ingot.capture.request import cannot_wait, recorder
from ingot.capture.runs import join
from ingot.capture.scalars import Symbolic, depends_on_data, is_data
from ingot.capture.structure import inside, parts_of, undecided
from ingot.capture.symbolic_int import SymbolicInt
from ingot.capture.where import is_user_code, source_line
from ingot.capture.words import Word, counted

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime

STANDINS: dict[int, Callable[..., Any]] = {}
_ENDLESS = (itertools.count, itertools.repeat, itertools.cycle)
_LONGEST = 10_000  # elements that an iterator beside rows may have


def _for(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(standin: Callable[..., Any]) -> Callable[..., Any]:
        for f in functions:
            STANDINS[id(f)] = standin
        return standin

    return register


def number_in(x: Any, kind: type | None = None) -> Any:
    """A tensor that only the run knows as its number; anything else as it is."""
    return scalars.item(recorder(), x, kind) if isinstance(x, torch.Tensor) and is_data(recorder(), x) else x


def number_of(x: torch.Tensor) -> Any:
    """A tensor as a Python int, or one that the run knows."""
    return number_in(x, int) if is_data(recorder(), x) else x.item()


def _symbolic(*values: Any) -> bool:
    return any(
        isinstance(v, Symbolic) or (isinstance(v, torch.Tensor) and is_data(recorder(), v)) for v in values
    )


# -- what objects of the model's own answer


def own_answer(x: Any, method: str) -> Any:
    """What a method of the model's own says, `__len__` or `__bool__`, which may be a number that only the run
    knows: Python itself would make it a number. None where x has no such method.
    """
    asked: Any = getattr(type(x), method, None)
    own = isinstance(asked, FunctionType) and is_user_code(asked.__code__)
    return asked(x) if own else None


def weighed(x: Any) -> Any:
    """What says whether x is true: x itself, or the answer of an object of the model's own."""
    if isinstance(x, (bool, torch.Tensor, *Symbolic, Maybe, Word)):
        return x
    method = "__bool__" if hasattr(type(x), "__bool__") else "__len__"
    own = own_answer(x, method)
    return x if own is None else own


# -- numbers


@_for(bool)
def bool_(rt: Runtime, x: Any = False) -> Any:
    """bool(x)."""
    x = weighed(x)
    return rt.truth(x) if rt.waits(x) else bool(x)


@_for(int, SymbolicInt)
def int_(rt: Runtime, x: Any = 0, *rest: Any, **more: Any) -> Any:
    """int(x): towards zero."""
    x = number_in(present(x), int)
    if isinstance(x, torch.SymInt):
        return x
    if isinstance(x, torch.SymFloat):
        return torch.sym_int(x)
    if isinstance(x, torch.SymBool):
        return scalars.of_truth(recorder(), x)
    return builtins.int(x, *rest, **more)


@_for(float)
def float_(rt: Runtime, x: Any = 0.0) -> Any:
    """float(x)."""
    x = number_in(present(x), float)
    if isinstance(x, torch.SymBool):
        x = int_(rt, x)
    return torch.sym_float(x) if isinstance(x, (torch.SymInt, torch.SymFloat)) else builtins.float(x)


@_for(abs)
def abs_(rt: Runtime, x: Any) -> Any:
    """abs(x)."""
    return abs(present(x))


@_for(round)
def round_(rt: Runtime, number: Any, ndigits: Any = None) -> Any:
    """round(x)."""
    x = number_in(present(number))
    return round(x) if ndigits is None else round(x, ndigits)


@_for(divmod)
def divmod_(rt: Runtime, a: Any, b: Any) -> Any:
    """divmod(a, b)."""
    a, b = number_in(present(a)), number_in(present(b))
    return (a // b, a % b) if _symbolic(a, b) else divmod(a, b)


@_for(pow)
def pow_(rt: Runtime, base: Any, exp: Any, mod: Any = None) -> Any:
    """pow(a, b) and pow(a, b, m)."""
    if mod is None or not _symbolic(base, exp, mod):
        return pow(base, exp, mod)
    return (base**exp) % mod


_IN_ORDER = (list, tuple, dict, KeysView, ItemsView, ValuesView)


def _extreme(name: str, plain: Callable[..., Any], two: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def standin(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
        values: Any = args[0] if len(args) == 1 else args
        if isinstance(values, Rows) or (isinstance(values, torch.Tensor) and "key" in kwargs):
            values = list_(rt, values)
            args = (values,)
        grown = isinstance(values, TracedList) and not values.known
        if grown and kwargs.keys() == {"key"}:
            keys = rt.list_of(values, lambda v: rt.call(kwargs["key"], v), []).rows()[0]
            if keys.dim() > 1:
                cannot_wait("compares tensors of several elements")
            listed: Any = values
            return listed.element(best_of(keys, name).item())
        if grown and kwargs.keys() == {"default"}:
            listed: Any = values
            return rt.choose(listed.count() > 0, lambda: standin(rt, values), lambda: kwargs["default"])
        if kwargs.keys() == {"key"} and isinstance(values, _IN_ORDER) and not grown and values:
            return _best_by(rt, list(values), kwargs["key"], name)
        if kwargs or isinstance(values, (str, dict)):
            return plain(*args, **kwargs)
        if isinstance(values, TracedList) and not values.known:
            rows, kind = values.rows()
            found = getattr(rows, name)(0).values if rows.dim() > 1 else rows[best_of(rows, name)]
            return found if kind is torch.Tensor else found.item()
        if isinstance(values, torch.Tensor):
            return values[best_of(values, name)] if values.dim() == 1 and _symbolic(values) else plain(*args)
        values = list(values)
        if not values or not _symbolic(*values):
            return plain(values)
        best = values[0]
        for v in values[1:]:
            if isinstance(best, torch.Tensor) and isinstance(v, torch.Tensor) and best.dtype == v.dtype:
                # Python keeps the first unless the next one beats it; NaN beats nothing.
                best = torch.where(v > best if name == "max" else v < best, v, best)
            elif isinstance(best, torch.Tensor) or isinstance(v, torch.Tensor):
                best = rt.choose(v > best if name == "max" else v < best, lambda v=v: v, lambda b=best: b)
            else:
                best = two(best, v)
        return best

    return standin


def best_of(keys: torch.Tensor, name: str) -> torch.Tensor:
    """The place of the first largest ("max") or smallest of some numbers: NaN beats none, and none beats a
    NaN that comes first.
    """
    if not keys.is_floating_point():
        return getattr(keys.to(torch.int64) if keys.dtype == torch.bool else keys, f"arg{name}")()
    lost = torch.isnan(keys)
    least = keys.masked_fill(lost, -math.inf if name == "max" else math.inf)
    return getattr(least, f"arg{name}")().masked_fill(lost[0], 0)


def _best_by(rt: Runtime, values: list[Any], key: Any, name: str) -> Any:
    """max or min of values by a key: the first one that no other beats."""
    best, height = values[0], number_in(rt.call(key, values[0]))
    for v in values[1:]:
        other = number_in(rt.call(key, v))
        beats = other > height if name == "max" else other < height
        best, height = rt.choose(beats, lambda v=v, n=other: (v, n), lambda b=best, h=height: (b, h))
    return best


def _of_two(name: str, plain: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """One of two numbers, the first of which stays unless the second beats it: NaN beats none."""

    def two(best: Any, v: Any) -> Any:
        g = recorder()
        if not any(isinstance(x, torch.SymFloat) and depends_on_data(g, g.env.expr(x)) for x in (best, v)):
            return plain(best, v)
        kept, other = (scalars.as_tensor(g, x, torch.float64) for x in (best, v))
        return torch.where(other > kept if name == "max" else other < kept, other, kept).item()

    return two


STANDINS[id(max)] = _extreme("max", max, _of_two("max", torch.sym_max))
STANDINS[id(min)] = _extreme("min", min, _of_two("min", torch.sym_min))


def _math(function: Callable[..., Any], symbolic: Callable[..., Any]) -> None:
    def standin(rt: Runtime, *args: Any) -> Any:
        args = tuple(number_in(present(a)) for a in args)
        return symbolic(*args) if any(isinstance(a, Symbolic) for a in args) else function(*args)

    STANDINS[id(function)] = standin


_math(math.floor, lambda x: x if isinstance(x, torch.SymInt) else math.floor(x))
_math(math.ceil, lambda x: x if isinstance(x, torch.SymInt) else math.ceil(x))
_math(math.trunc, lambda x: x if isinstance(x, torch.SymInt) else torch.sym_int(x))
_math(math.pow, lambda a, b: torch.sym_float(a) ** torch.sym_float(b))


# -- lengths and loops


@_for(len)
def len_(rt: Runtime, x: Any) -> Any:
    """len(x)."""
    if isinstance(x, TracedList) and not x.known:
        return x.count()
    if isinstance(x, Rows):
        return x.length
    if isinstance(x, torch.Tensor) and x.dim():
        return x.shape[0]
    own = own_answer(x, "__len__")
    if isinstance(own, torch.SymInt):
        checks.demand(recorder(), own >= 0, "`__len__` returns a number below 0")
        return own
    return own if type(own) is int and own >= 0 else len(present(x))


@_for(range)
def range_(rt: Runtime, *args: Any) -> Any:
    """range(…), of numbers that the run knows too."""
    args = tuple(number_in(present(a), int) for a in args)
    if not any(isinstance(a, torch.SymInt) for a in args):
        return range(*args)
    start, stop, step = (0, args[0], 1) if len(args) == 1 else (*args, 1)[:3]
    if isinstance(step, torch.SymInt):
        checks.demand(recorder(), step != 0, "range() takes no step of 0")
        env = recorder().env
        turns = (env.expr(stop) - env.expr(start)) / env.expr(step)
        if turns.is_Integer:  # `range(0, n, n)`: Python's own loop
            return [start + i * step for i in range(int(turns))]
        span = rt.choose(step > 0, lambda: stop - start + step - 1, lambda: start - stop - step - 1)
        size = rt.choose(step > 0, lambda: step, lambda: -step)
    else:
        span, size = (stop - start + (step - 1), step) if step > 0 else (start - stop + (-step - 1), -step)
    return Rows(torch.sym_max(span // size, 0), lambda i: start + i * step)


def rows_of(items: Any) -> Rows | None:
    """What is looped over as long as the run says; None for what Python can loop over."""
    if isinstance(items, Rows):
        return items
    if isinstance(items, TracedList) and not items.known:
        run = items.run()
        return Rows(run.count, run.reader())
    if isinstance(items, torch.Tensor) and items.dim() and isinstance(items.shape[0], torch.SymInt):
        return Rows(items.shape[0], lambda i: items.select(0, i))
    if isinstance(items, Maybe):
        return rows_of(present(items))
    return None


def gone_through(items: Any) -> Rows | None:
    """The same, of which nothing is left to others where Python has an iterator."""
    rows = rows_of(items)
    return rows.left() if isinstance(rows, Passing) else rows


def by_place(rt: Runtime, items: Any) -> Rows:
    """Something to loop over by place, as long as Python or the run says; of no length where it has no end.

    Raises:
        DataDependentError: it has no end, and no form of its own.
    """
    rows = gone_through(items)
    if rows is not None:
        return rows
    if not isinstance(items, Iterator):
        known = list(items)
        return Rows(len(known), lambda i: item(rt, known, i))
    recorder().passed[id(items)] = items  # how far it is taken, the run alone knows
    found = _without_end(rt, items) if isinstance(items, _ENDLESS) else None
    if found is not None:
        return found
    taken = list(itertools.islice(items, _LONGEST + 1))
    if len(taken) > _LONGEST:
        cannot_wait("goes through an iterator without an end beside as many rows as data or a size says")
    return Rows(len(taken), lambda i: item(rt, taken, i))


def _without_end(rt: Runtime, items: Any) -> Rows | None:
    """A count, or what is given again and again, from where it stands."""
    how = made_of_what(items)
    if how is None:  # newer versions of Python do not say
        return None
    kind, made_of, state = how
    if kind is itertools.count:
        start, step = made_of if len(made_of) > 1 else (*made_of, 1)
        return Rows(None, lambda i: start + i * step)
    if kind is itertools.repeat:
        value, *times = made_of
        return Rows(times[0] if times else None, lambda _: value)
    copy = another(made_of[0], {}) if kind is itertools.cycle and not state[0][0] else None
    if copy is None:
        return None
    known = by_place(rt, copy)
    return Rows(None if known.length else 0, lambda i: known.at(i % known.length))


@_for(iter)
def iter_(rt: Runtime, items: Any, *until: Any) -> Any:
    """iter(items)."""
    rows = None if until else rows_of(items)
    if rows is None:
        return iter(items, *until)
    return rows if isinstance(rows, Passing) else Passing(rows.length, rows.at)


@_for(next)
def next_(rt: Runtime, iterator: Any, *default: Any) -> Any:
    """next(iterator, default)."""
    return iterator.take(*default) if isinstance(iterator, Passing) else next(iterator, *default)


@_for(enumerate)
def enumerate_(rt: Runtime, iterable: Any, start: Any = 0) -> Any:
    """enumerate(items, start)."""
    rows = gone_through(iterable)
    if rows is None:
        return enumerate(iterable, start)
    return Passing(rows.length, lambda i: (i + start, rows.at(i)))


@_for(reversed)
def reversed_(rt: Runtime, items: Any) -> Any:
    """reversed(items), which is another tensor of a tensor."""
    rows = None if isinstance(items, torch.Tensor) else rows_of(items)
    return reversed(items) if rows is None else Passing(rows.length, lambda i: rows.at(rows.length - 1 - i))


@_for(zip)
def zip_(rt: Runtime, *columns: Any, strict: bool = False) -> Any:
    """zip(…): as many as the shortest has."""
    if all(rows_of(c) is None for c in columns):
        return zip(*columns, strict=strict)
    parts = [by_place(rt, c) for c in columns]
    first, *others = (p.length for p in parts if p.length is not None)
    for n in others:
        if strict:
            checks.demand(recorder(), first == n, "zip(strict=True) takes as many of each")
        else:
            first = torch.sym_min(first, n)
    if strict and any(p.length is None for p in parts):
        cannot_wait("gives zip(strict=True) an iterator without an end")
    return Passing(first, lambda i: tuple(p.at(i) for p in parts))


@_for(map)
def map_(rt: Runtime, function: Any, *columns: Any) -> Any:
    """map(function, …): as many as the shortest has."""

    def call(*args: Any) -> Any:
        return rt.call(function, *args)

    rows = gone_through(zip_(rt, *columns))
    if rows is None:
        return map(call, *columns)
    return Passing(rows.length, lambda i: call(*rows.at(i)))


@_for(filter)
def filter_(rt: Runtime, function: Any, items: Any) -> Any:
    """filter(function, items), of what has an end."""
    if rows_of(items) is None and not isinstance(items, (list, tuple)):
        return filter(function, items)
    fits = (lambda v: v) if function is None else (lambda v: rt.call(function, v))
    found = rt.list_of(items, lambda v: v, [fits])
    return iter(found) if found.known else found


@_for(functools.reduce)
def reduce_(rt: Runtime, function: Any, items: Any, *start: Any) -> Any:
    """functools.reduce(function, items, start)."""
    rows = gone_through(items)
    if rows is None:
        return functools.reduce(lambda a, b: rt.call(function, a, b), items, *start)
    total = start[0] if start else rows.at(0)

    def body(item: Any) -> None:
        nonlocal total
        total = rt.call(function, total, item)

    rt.each(rows if start else rows[1:], body, None, ("total",), ("total",), ("total",))
    return total


@_for(list, tuple)
def list_(rt: Runtime, *args: Any) -> Any:
    """list(items)."""
    if not args:
        return TracedList()
    rows = rows_of(args[0])
    if rows is None:
        return TracedList(*args)
    if isinstance(args[0], TracedList):
        return TracedList(args[0].parts())
    return rt.list_of(rows, lambda v: v, [])


STANDINS[id(tuple)] = lambda rt, *args: (
    tuple(*args) if not args or rows_of(args[0]) is None else list_(rt, *args)
)


@_for(defaultdict)
def defaultdict_(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
    """defaultdict(list): its lists may grow as data says."""
    return defaultdict(*(TracedList if a is list else a for a in args[:1]), *args[1:], **kwargs)


@_for(sum)
def sum_(rt: Runtime, items: Any, start: Any = 0) -> Any:
    """sum(items, start)."""
    if isinstance(items, TracedList) and not items.known:
        rows, kind = items.rows()
        total = _summed(rows)
        return start + (total if kind is torch.Tensor else total.item())
    if isinstance(items, torch.Tensor) and rows_of(items) is not None:
        return start + _summed(items)
    if isinstance(items, Rows):
        return sum_(rt, rt.list_of(items, lambda v: v, []), start)
    values = list(items)
    if all(type(v) in (int, float) for v in (start, *values)):
        return sum(values, start)  # which rounds floats in a way of its own from Python 3.12 on
    return functools.reduce(operator.add, values, start)


def _summed(rows: torch.Tensor) -> torch.Tensor:
    """The sum of rows, in their own dtype, as `+` gives it; of conditions, their number."""
    total = rows.sum(0)
    return total if rows.dtype == torch.bool else total.to(rows.dtype)


@_for(any)
def any_(rt: Runtime, items: Any) -> Any:
    """any(items)."""
    return _quantified(rt, items, "any")


@_for(all)
def all_(rt: Runtime, items: Any) -> Any:
    """all(items)."""
    return _quantified(rt, items, "all")


def _quantified(rt: Runtime, items: Any, name: str) -> Any:
    from ingot.capture.early import joined

    if isinstance(items, Rows):
        items = rt.list_of(items, lambda v: v, [])
    if isinstance(items, TracedList) and not items.known:
        items = items.rows()[0]
    if isinstance(items, torch.Tensor) and (rows_of(items) is not None or is_data(recorder(), items)):
        return rt.truth(getattr(items.to(torch.bool), name)())
    return joined(rt, items, rt.truth, name == "any")


@_for(isinstance)
def isinstance_(rt: Runtime, x: Any, kinds: Any) -> bool:
    """isinstance, where symbolic numbers are numbers and lists of unknown length lists."""
    if isinstance(x, Symbolic):
        scalars.require_kind(recorder(), x, "isinstance")
        kind: Any = scalars.kind_of(x)
        return isinstance(kind(0), kinds) or isinstance(x, kinds)
    return isinstance(x, kinds)


def _of_value(function: Any, what: str, asks: Callable[..., bool] | None = None) -> None:
    """A function of a number's value, where only the run knows that; `asks` says which formulas matter."""

    def standin(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
        g = recorder() if args and isinstance(args[0], Symbolic) else None
        if g is not None and is_data(g, args[0]) and (asks is None or asks(g, g.env.expr(args[0]))):
            cannot_wait(what)
        return function(*args, **kwargs)

    STANDINS[id(function)] = standin


for _function in (str, repr, format):
    _of_value(_function, "writes a number that data decides into a string", depends_on_data)
_of_value(hash, "takes the hash of a number that data or a size decides")


@_for(sys.getsizeof)
def getsizeof_(rt: Runtime, x: Any, *default: Any) -> int:
    """sys.getsizeof(x)."""
    if isinstance(x, Symbolic):
        cannot_wait("asks how much memory Python takes for a number that data or a size decides")
    return sys.getsizeof(x, *default)


_CONTAINERS = (list, tuple, set, dict, str)
# Methods of Python's containers that want to know the number.
_NEED_NUMBERS = (
    "index", "count", "remove", "add", "discard", "setdefault", "format", "join", "pop", "insert",
)  # fmt: skip


# Functions of Python's that give for None what it is, instead of raising.
_TAKE_NONE = {id(f) for f in (isinstance, repr, format, hash, hasattr, callable)}


def takes_none(function: Any, args: Any) -> bool:
    """Whether a function of Python's gives something else for None than for a value, and does not raise."""
    if isinstance(function, BuiltinMethodType) and isinstance(function.__self__, _CONTAINERS):
        return function.__name__ in (*_NEED_NUMBERS, "get")
    if isinstance(function, type):
        return function in (type, str)  # or what knows a module's own `type`, which equals Python's
    return id(function) in _TAKE_NONE or (function is getattr and len(args) == 3)


def with_symbols(rt: Runtime, function: Any, args: Any, kwargs: Any) -> Any:
    """A call with symbolic numbers: a dict looks them up, most others take them as they are."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, dict) and function.__name__ in ("get", "setdefault") and made_of_symbols(args[0]):
        default = args[1] if len(args) > 1 else None
        if memos.takes(owner, args[0]):
            found, value = memos.look(owner, args[0])
            if not found and function.__name__ == "setdefault":
                memos.put(owner, args[0], default)
            return value if found else default
        if function.__name__ == "get":
            return _looked_up(rt, list(owner.items()), args[0], default)
    if isinstance(owner, _CONTAINERS) and isinstance(function, BuiltinMethodType):
        method = function.__name__
        whole = method not in ("insert", "pop")  # these take a place
        if method in _NEED_NUMBERS and (whole or any(isinstance(a, Symbolic) for a in args)):
            cannot_wait(f"gives a number that data or a size decides to {type(owner).__name__}.{method}")
    return function(*args, **kwargs)


def has_tensors(data: Any) -> bool:
    """Whether lists or tuples of any depth hold tensors."""
    if isinstance(data, (list, tuple)):
        held: Any = list.__iter__(data) if isinstance(data, list) else data
        return any(isinstance(v, torch.Tensor) or has_tensors(v) for v in held)
    return False


def made_of_symbols(data: Any) -> bool:
    """Whether something holds symbolic numbers."""
    if isinstance(data, (list, tuple)):
        return any(made_of_symbols(v) for v in (list.__iter__(data) if isinstance(data, list) else data))
    return isinstance(data, Symbolic)


def tensor_of(data: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> torch.Tensor:
    """torch.tensor of symbolic numbers, in lists of any depth."""
    del kwargs
    if isinstance(data, torch.Tensor):
        return data if dtype is None else data.to(dtype)
    if not isinstance(data, (list, tuple)):
        return scalars.as_tensor(recorder(), data, dtype)
    parts = [tensor_of(v, dtype) for v in data]
    wide = parts[0].dtype
    for p in parts[1:]:
        wide = torch.promote_types(wide, p.dtype)
    return torch.stack([p.to(wide) for p in parts])


@_for(torch.as_tensor)
def as_tensor_(rt: Runtime, data: Any, dtype: torch.dtype | None = None, device: Any = None) -> Any:
    """torch.as_tensor(data): a tensor is no other one."""
    if isinstance(data, torch.Tensor):
        return torch.as_tensor(data, dtype=dtype, device=device)
    return tensor_(rt, data, dtype=dtype, device=device)


@_for(torch.tensor)
def tensor_(
    rt: Runtime, data: Any, *, dtype: torch.dtype | None = None, device: Any = None, **kwargs: Any
) -> Any:
    """torch.tensor(data), with numbers and lists that the run knows in it."""
    if isinstance(data, TracedList) and not data.known:
        rows, kind = data.numbers()
        dtype = torch.get_default_dtype() if dtype is None and kind is float else dtype
        return rows if dtype is None else rows.to(dtype)
    data = counted(data.parts() if isinstance(data, TracedList) else data)
    if made_of_symbols(data) or has_tensors(data):
        return tensor_of(data, dtype)
    return torch.tensor(data, dtype=dtype, device=device, **kwargs)


def _of_class(kind: Any, dtype: torch.dtype) -> None:
    """torch.LongTensor(list) and its like; numbers instead are the sizes of an empty one."""

    def standin(rt: Runtime, *args: Any) -> Any:
        listed = len(args) == 1 and isinstance(args[0], (list, tuple)) and not isinstance(args[0], torch.Size)
        if listed and (made_of_symbols(args[0]) or not getattr(args[0], "known", True)):
            return tensor_(rt, args[0], dtype=dtype)
        return kind(*args)

    STANDINS[id(kind)] = standin


for _class, _dtype in (
    (torch.LongTensor, torch.int64),
    (torch.IntTensor, torch.int32),
    (torch.FloatTensor, torch.float32),
    (torch.DoubleTensor, torch.float64),
    (torch.BoolTensor, torch.bool),
):
    _of_class(_class, _dtype)


def _joining(function: Any) -> None:
    given = "sequences" if function is torch.nn.utils.rnn.pad_sequence else "tensors"

    def standin(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
        if not args and given in kwargs:
            args = (kwargs.pop(given),)
        if args and isinstance(args[0], Rows):
            args = (rt.list_of(args[0], lambda v: v, []), *args[1:])
        if args and isinstance(args[0], TracedList) and not args[0].known:
            return join(function, args, kwargs)
        return function(*args, **kwargs)

    STANDINS[id(function)] = standin


for _function in (
    torch.stack, torch.cat, torch.concat, torch.concatenate, torch.vstack, torch.row_stack, torch.hstack,
    torch.nn.utils.rnn.pad_sequence,
):  # fmt: skip
    _joining(_function)


def spread(rt: Runtime, function: Any, items: Any) -> Any:
    """function(*items)."""
    if isinstance(items, TracedList) and not items.known:
        columns = items.run().unzipped() if function is zip else None
        if columns is None:
            cannot_wait("passes on as many arguments as data says")
        return [TracedList([c]) for c in columns]
    return rt.call(function, *items)


def cut_by(rt: Runtime, tensor: torch.Tensor, sizes: Rows | TracedList, axis: int) -> Rows:
    """torch.split into as many parts as data says, of the sizes that it says: the model checks that they fill
    the axis.
    """
    axis %= tensor.dim()
    rows = list_(rt, sizes).rows()[0]
    ends = rows.cumsum(0)
    fill = (rows >= 0).all() & (rows.sum() == tensor.shape[axis])
    torch.ops.aten._assert_async.msg(fill, f"{source_line()}: the parts add up to the dimension")

    def part(i: Any) -> torch.Tensor:
        end, size = ends[i].item(), rows[i].item()
        return tensor[(*(slice(None),) * axis, slice(end - size, end))]

    return Rows(rows.shape[0], part)


# -- subscripts


def item(rt: Runtime, container: Any, index: Any) -> Any:
    """container[index]."""
    container = present(container)
    plain = isinstance(container, (list, tuple, dict, torch.nn.ModuleList, torch.nn.Sequential))
    thing: Any = container
    if isinstance(index, slice):
        index = slice(*(number_in(p, int) for p in (index.start, index.stop, index.step)))
    elif isinstance(index, tuple):
        index = tuple(
            slice(*(number_in(p, int) for p in (i.start, i.stop, i.step))) if isinstance(i, slice) else i
            for i in index
        )
    if isinstance(container, torch.Tensor):
        index = tuple(map(_as_index, index)) if isinstance(index, tuple) else _as_index(index)
    if isinstance(container, Rows):
        return container[number_in(index, int)]
    if isinstance(container, TracedList) and not container.known and not isinstance(index, slice):
        return container.element(number_in(index, int))
    if plain and isinstance(index, slice) and _symbolic(index.start, index.stop, index.step):
        require_alike(index.start, index.stop, index.step)
        chained = isinstance(container, torch.nn.Sequential)
        if chained and not is_called_in_order(type(container)):
            what = f"takes a slice of a {type(container).__name__}, a Sequential with methods of its own,"
            cannot_wait(f"{what} at a place that data or a size decides")
        found = sliced(container, index)
        return Layers(found.parts()) if chained else found
    keyed = isinstance(container, dict) and _is_composed(index)
    if not keyed and (not plain or isinstance(index, (slice, tuple)) or not _symbolic(index)):
        return thing[index]
    if memos.takes(container, index):
        found, value = memos.look(container, index)
        if not found:
            raise KeyError(index)
        return value
    return _switch(rt, container, number_in(index))


def put(rt: Runtime, container: Any, index: Any, value: Any) -> None:
    """container[index] = value: at a key or place that the run knows, which is there, as the model checks."""
    container = present(container)
    if isinstance(container, list) and isinstance(index, torch.Tensor) and _symbolic(index):
        index = number_in(index, int)
    if not (type(container) in keyed.KINDS and (_symbolic(index) or _is_composed(index))):
        container[index] = value
        return
    key = number_in(index)
    if memos.takes(container, key):
        memos.put(container, key, value)
    elif rt.contains(list(container), key) is False and not _is_of_data(key):
        memos.require_empty(container, key)
        container[key] = value  # a size may be a key of its own
    else:
        keyed.put(rt, container, key, value)


def require_alike(*numbers: Any) -> None:
    """One of Python's own values is about to be chosen by a number: by that of a round, which Python would
    know, it is another one each time.

    Raises:
        Differ: it is that of a round.
    """
    g = recorder()
    symbols = [g.env.expr(v).free_symbols for v in numbers if g.turns and isinstance(v, Symbolic)]
    if not g.turns.isdisjoint(set[Any]().union(*symbols)):
        raise Differ


def _is_of_data(key: Any) -> bool:
    """Whether data decides a key, or a part of it, and none of them may be None, which no dict looks up."""
    g, parts = recorder(), list(inside(key))
    if any(isinstance(v, Maybe) for v in parts):
        return False
    return any(isinstance(v, Symbolic) and depends_on_data(g, g.env.expr(v)) for v in parts)


def _is_composed(key: Any) -> bool:
    """Whether a key of a dict is made of several values, of which the run knows one."""
    parts = parts_of(key)
    return parts is not None and not isinstance(key, Word) and undecided(key)


def _as_index(index: Any) -> Any:
    """A list of places, of which the run knows some or how many they are, as a tensor."""
    if isinstance(index, TracedList) and not index.known:
        return index.rows()[0]
    return tensor_of(index) if isinstance(index, list) and index and made_of_symbols(index) else index


def _switch(rt: Runtime, container: Any, index: Any) -> Any:
    """One of a few values by a number that the run knows."""
    require_alike(index)
    if isinstance(container, Counter):
        return _looked_up(rt, list(container.items()), index, 0)
    if isinstance(container, dict):
        keyed.require_there(rt, container, index)
        pairs = list(container.items())
        return _looked_up(rt, pairs[:-1], index, pairs[-1][1])
    values = list(container)
    index = int_(rt, index)
    index = rt.choose(index < 0, lambda: index + len(values), lambda: index)
    pairs = list(enumerate(values))
    rt.check(rt.contains([k for k, _ in pairs], index), None)
    return _looked_up(rt, pairs[:-1], index, pairs[-1][1])


def is_lookup(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call has one argument alone, a number that only the run knows."""
    return len(args) == 1 and not kwargs and _symbolic(args[0])


def member(rt: Runtime, kind: enum.EnumType, value: Any) -> Any:
    """kind(value): the member of an enum that has a value that only the run knows."""
    missing: Any = getattr(kind, "_missing_", None)
    if issubclass(kind, enum.Flag) or missing.__func__ is not enum.Enum._missing_.__func__:
        what = "a number that data or a size decides, which may be more than its members"
        cannot_wait(f"makes {kind.__name__} of {what}")
    members: Any = list(kind)
    return _switch(rt, {m.value: m for m in members}, number_in(value))


def _looked_up(rt: Runtime, pairs: list[tuple[Any, Any]], key: Any, otherwise: Any) -> Any:
    """The value that stands beside a key, or else something."""
    if isinstance(key, torch.SymBool):
        known = dict(p for p in pairs if isinstance(p[0], bool))
        if len(known) == 2:
            return rt.choose(key, lambda: known[True], lambda: known[False])
    found = otherwise
    for k, value in reversed(pairs):
        if scalars.counts_as(k) is not None or parts_of(k) is not None:
            found = rt.choose(rt.equal(key, k), lambda v=value: v, lambda f=found: f)
    return found


def numbers_of(tensor: torch.Tensor) -> Any:
    """tensor.tolist(): numbers that the run knows, in lists as long as the tensor's sizes say."""
    if not tensor.dim():
        return scalars.item(recorder(), tensor)
    if isinstance(tensor.shape[0], torch.SymInt):
        return Rows(tensor.shape[0], lambda i: numbers_of(tensor.select(0, i)))
    return [numbers_of(row) for row in tensor.unbind(0)]
