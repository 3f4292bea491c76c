"""What forward keeps or asks outside of the module: in closures, classes, objects and Python modules, in
generators of random numbers and in the clock. Each is state, or refused with the line that changes it.
"""

# The constructs are written as people write them.

from __future__ import annotations

import collections
import contextvars
import functools
import gc
import itertools
import math
import os
import random as python_random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ingot
from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs import keeper
from tests.capture.constructs.support import Case, T, check, random

X = random(5, 3)
CASES: list[Any] = []


def changes(line: str) -> Callable[[Any], Any]:
    """Register a function or module class, and the text of the line that the refusal shows."""

    def register(thing: Any) -> Any:
        CASES.append(pytest.param(thing, line, id=thing.__name__))
        return thing

    return register


def counter() -> Callable[[], int]:
    """A closure that counts its calls."""
    n = 0

    def tick() -> int:
        nonlocal n
        n += 1
        return n

    return tick


def cell() -> Callable[[], int]:
    """The same with a list."""
    n = [0]

    def tick() -> int:
        n[0] += 1
        return n[0]

    return tick


class Counts:
    """Counts in itself."""

    calls = 0
    table: dict[str, int] = {"a": 0}  # noqa: RUF012

    def __init__(self) -> None:
        self.n = 0

    def tick(self) -> int:
        """One more each time."""
        self.n += 1
        return self.n

    def __call__(self, x: T) -> T:
        """The same, as a call."""
        self.n += 1
        return x * self.n

    @classmethod
    def of_class(cls) -> int:
        """One for all objects."""
        cls.calls += 1
        return cls.calls


class Elsewhere:
    """Counts in a Python module."""

    def tick(self) -> int:
        """One more each time."""
        keeper.count += 1
        return keeper.count


class Slotted:
    """An object without a dict."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0


TICK, CELL, OBJECT, SLOTTED, HELD = counter(), cell(), Counts(), Slotted(), {"a": Counts()}
VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("calls", default=0)
VARIABLE.set(0)
LOCAL = threading.local()
LOCAL.n = 0
GENERATOR = np.random.default_rng(0)
CLOCK = time.perf_counter_ns
os.environ.setdefault("INGOT_TEST_CALLS", "0")


@changes("n += 1")
def closure_of_a_global_function(x: T) -> T:
    return x * TICK()


@changes("n[0] += 1")
def list_in_a_closure(x: T) -> T:
    return x * CELL()


@changes("Counts.calls += 1")
def attribute_of_a_class(x: T) -> T:
    Counts.calls += 1
    return x * Counts.calls


@changes('Counts.table["a"] += 1')
def dict_of_a_class(x: T) -> T:
    Counts.table["a"] += 1
    return x * Counts.table["a"]


@changes("cls.calls += 1")
def class_method(x: T) -> T:
    return x * Counts.of_class()


@changes("OBJECT.n += 1")
def attribute_of_a_global_object(x: T) -> T:
    OBJECT.n += 1
    return x * OBJECT.n


@changes("n")
def method_of_an_object_in_a_dict(x: T) -> T:
    return x * HELD["a"].tick()


@changes("keeper.count += 1")
def variable_of_a_module(x: T) -> T:
    keeper.count += 1
    return x * keeper.count


@changes("count += 1")
def function_of_a_module(x: T) -> T:
    return x * keeper.bump()


@changes("SLOTTED.n += 1")
def object_with_slots(x: T) -> T:
    SLOTTED.n += 1
    return x * SLOTTED.n


@changes("VARIABLE.set(")
def context_variable(x: T) -> T:
    VARIABLE.set(VARIABLE.get() + 1)
    return x * VARIABLE.get()


@changes("LOCAL.n += 1")
def local_of_a_thread(x: T) -> T:
    LOCAL.n += 1
    return x * LOCAL.n


@changes("os.environ[")
def environment(x: T) -> T:
    os.environ["INGOT_TEST_CALLS"] = str(int(os.environ["INGOT_TEST_CALLS"]) + 1)
    return x * int(os.environ["INGOT_TEST_CALLS"])


@changes("GENERATOR.normal()")
def generator_of_numpy(x: T) -> T:
    return x * float(GENERATOR.normal())


@changes("CLOCK() % 1000")
def clock_by_another_name(x: T) -> T:
    return x * (CLOCK() % 1000)


class Layers(nn.Module):
    """Has layers in a list and in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = nn.ModuleList([nn.Tanh()])
        self.named = nn.ModuleDict({"a": nn.Sigmoid()})
        self.last: nn.Module = nn.Tanh()

    def layers(self, x: T) -> T:
        """Every layer in turn."""
        for layer in (*self.listed, *self.named.values(), self.last):
            x = layer(x)
        return x


@changes("self.listed.append(")
class AppendsALayer(Layers):
    def forward(self, x: T) -> T:
        x = self.layers(x)
        self.listed.append(nn.ReLU())
        return x


@changes('self.named["b"] =')
class NamesALayer(Layers):
    def forward(self, x: T) -> T:
        x = self.layers(x)
        self.named["b"] = nn.ReLU()
        return x


@changes("del self.listed[0]")
class DropsALayer(Layers):
    def forward(self, x: T) -> T:
        x = self.layers(x)
        if len(self.listed):
            del self.listed[0]
        return x


@changes("self.last = nn.ReLU()")
class SwapsALayer(Layers):
    def forward(self, x: T) -> T:
        x = self.layers(x)
        self.last = nn.ReLU()
        return x


class MakesALayerOnce(Layers):
    def forward(self, x: T) -> T:
        if "late" not in self.named:
            self.named["late"] = nn.Tanh()
        return self.named["late"](x) + self.last(x)


def test_a_layer_that_the_first_call_makes_is_there_in_all() -> None:
    """The second call finds it and is the same model."""
    captured = check(Case("MakesALayerOnce", MakesALayerOnce, [(X,), (X[:2],)]))
    assert [a.status for a in captured.assumptions if a.kind == "state"] == ["proved"]
    model = MakesALayerOnce().eval()
    capture(model, (X,))
    assert list(model.named) == ["a"]


@changes("torch.manual_seed(3)")
def seeded(x: T) -> T:
    torch.manual_seed(3)
    return x + torch.randn_like(x)


@changes("torch.manual_seed(1)")
def seeded_aside(x: T) -> T:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        noise = torch.rand(3)
    return x * noise


@changes("torch.seed()")
def another_seed(x: T) -> T:
    return x * (torch.seed() % 7)


class Holds(nn.Module):
    """Holds something that forward asks for a number."""

    def __init__(self, thing: Any) -> None:
        super().__init__()
        self.thing = thing

    def forward(self, x: T) -> T:
        """x times the number."""
        return x * self.number()

    def number(self) -> Any:
        """What the thing says."""
        return self.thing()


@changes("n += 1")
class HoldsAClosure(Holds):
    def __init__(self) -> None:
        super().__init__(counter())


@changes("self.n += 1")
class HoldsABoundMethod(Holds):
    def __init__(self) -> None:
        super().__init__(Counts().tick)


@changes("self.n += 1")
class HoldsAPartial(Holds):
    def __init__(self) -> None:
        super().__init__(functools.partial(Counts.tick, Counts()))


@changes("keeper.count += 1")
class HoldsAnObject(Holds):
    def __init__(self) -> None:
        super().__init__(Elsewhere())

    def number(self) -> Any:
        """A method's."""
        return self.thing.tick()


@changes("n += 1")
class HoldsFunctionsInAList(Holds):
    def __init__(self) -> None:
        super().__init__([counter()])

    def number(self) -> Any:
        """The first one's."""
        return self.thing[0]()


@changes("return next(self.thing)")
class HoldsAnIterator(Holds):
    def __init__(self) -> None:
        super().__init__(itertools.count(1))

    def number(self) -> Any:
        """The next."""
        return next(self.thing)


@changes("return next(self.thing[0]")
class HoldsAnIteratorInATuple(Holds):
    def __init__(self) -> None:
        super().__init__(({"a": zip(iter([1.0, 2.0, 3.0]), itertools.cycle("ab"), strict=False)}, 2))

    def number(self) -> Any:
        """The next."""
        return next(self.thing[0]["a"])[0]


@changes("return next(self.thing)")
class HoldsAGeneratorOfPythons(Holds):
    def __init__(self) -> None:
        super().__init__(float(i) for i in range(1, 9))

    def number(self) -> Any:
        """The next."""
        return next(self.thing)


@changes("self.thing")
class HoldsAnArray(Holds):
    def __init__(self) -> None:
        super().__init__(np.zeros(1))

    def number(self) -> Any:
        """One more each time."""
        self.thing += 1
        return float(self.thing[0])


@changes("self.thing")
class HoldsASet(Holds):
    def __init__(self) -> None:
        super().__init__(set())

    def number(self) -> Any:
        """One more each time."""
        self.thing.add(len(self.thing))
        return len(self.thing)


@changes("self.thing")
class HoldsBytes(Holds):
    def __init__(self) -> None:
        super().__init__(bytearray(1))

    def number(self) -> Any:
        """One more each time."""
        self.thing[0] += 1
        return self.thing[0]


@changes("self.thing")
class HoldsACounter(Holds):
    def __init__(self) -> None:
        super().__init__(collections.Counter())

    def number(self) -> Any:
        """One more each time."""
        self.thing["a"] += 1
        return self.thing["a"]


@changes("self.thing")
class HoldsAGenerator(Holds):
    def __init__(self) -> None:
        super().__init__(python_random.Random(0))

    def number(self) -> Any:
        """Another each time."""
        return self.thing.random()


@changes("count += 1")
class CountsInAProperty(nn.Module):
    @property
    def number(self) -> int:
        """One more each time."""
        return keeper.bump()

    def forward(self, x: T) -> T:
        """x times the number."""
        return x * self.number


@changes("n[0] += 1")
class CountsInAHook(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()
        n = [0]

        def hook(_: nn.Module, __: Any, out: T) -> T:
            n[0] += 1
            return out * n[0]

        self.inner.register_forward_hook(hook)

    def forward(self, x: T) -> T:
        """What the hook makes of it."""
        return self.inner(x)


@changes("self.first = ")
class FirstSize(nn.Module):
    first: int | None = None

    def forward(self, x: T) -> T:
        """x times the first call's number of rows."""
        if self.first is None:
            self.first = x.shape[0]
        return x * self.first


@pytest.mark.parametrize(("thing", "line"), CASES)
def test_refused_with_the_line_that_changes_it(thing: Any, line: str) -> None:
    """The counter of one call is never kept for all, and stays what it was."""
    model = thing().eval() if isinstance(thing, type) else thing
    before = keeper.count, Counts.calls, OBJECT.n, SLOTTED.n, LOCAL.n, os.environ["INGOT_TEST_CALLS"]
    with pytest.raises(ExportError) as error:
        capture(model, (X,))
    assert line in str(error.value), error.value
    assert before == (
        keeper.count,
        Counts.calls,
        OBJECT.n,
        SLOTTED.n,
        LOCAL.n,
        os.environ["INGOT_TEST_CALLS"],
    )


@pytest.mark.parametrize(
    "function", [closure_of_a_global_function, attribute_of_a_class, variable_of_a_module]
)
def test_a_counter_outside_becomes_state(function: Any) -> None:
    """Asked for, it is an input and an output of the model."""
    session = ingot.Stateful(ingot.export(function, (X,), state="inputs"))
    for n in (1, 2, 3):
        np.testing.assert_allclose(session.run(None, {"x": X.numpy()})[0], X.numpy() * n, rtol=1e-6)


def test_a_seed_that_nothing_is_drawn_after_is_harmless() -> None:
    """And PyTorch's own numbers go on as if there had been no export."""

    def f(x: T) -> T:
        torch.manual_seed(3)
        return x * 2

    state = torch.get_rng_state()
    assert capture(f, (X,)).assumptions == []
    assert torch.equal(torch.get_rng_state(), state)


@functools.cache
def _table(n: int) -> T:
    return torch.arange(n).float()


def test_caches_of_functions_hold_nothing_of_a_recording() -> None:
    """The model computes with its own tensors after an export, as before it."""

    def scaled(x: T) -> T:
        return x * _table(3)

    ingot.export(scaled, (torch.ones(2, 3),), verify=False)
    assert type(_table(3)) is T
    assert torch.equal(scaled(torch.ones(1, 3)), torch.tensor([[0.0, 1.0, 2.0]]))


CALLS = itertools.count()


def test_what_measures_garbage_collection_is_no_part_of_the_model() -> None:
    """Its callbacks run wherever a recording happens to be, and ask a clock."""
    times: list[float] = []

    def taken(x: T) -> T:
        next(CALLS)
        return x * 2

    def callback(_phase: str, _info: dict[str, int]) -> None:
        times.append(time.perf_counter())

    often = gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(1, 1, 1)
    try:
        assert [a.status for a in ingot.export(taken, (X,), verify=False).assumptions] == ["proved"]
        assert gc.callbacks.pop() is callback, "it is called again behind the export"
    finally:
        gc.set_threshold(*often)
    assert times, "nothing was collected around the recording"


def _stands(iterator: Any) -> str:
    return repr(iterator if isinstance(iterator, itertools.count) else iterator.__reduce__()[2:])


NAMES, LEFT = itertools.count(), iter([1.0, 2.0, 3.0])


def test_iterators_are_left_where_they_stand() -> None:
    """Also where the export is refused; one that changes no output is harmless."""

    def taken(x: T) -> T:
        next(NAMES)
        return x * 2

    def scaled(x: T) -> T:
        return x * next(LEFT)

    next(NAMES)
    said = ingot.export(taken, (X,)).assumptions
    assert ["NAMES" in a.what and a.status == "proved" for a in said] == [True]
    with pytest.raises(ExportError, match=r"leaves list_iterator\(3, 1\) in 'LEFT'"):
        ingot.export(scaled, (X,))
    assert (_stands(NAMES), _stands(LEFT)) == ("count(1)", "(0,)")
    module, both = HoldsAnIterator(), HoldsAnIteratorInATuple()
    held = module.thing, both.thing, both.thing[0]["a"]
    for refused in (module, both):
        with pytest.raises(ExportError):
            ingot.export(refused, (X,))
    assert (module.thing, both.thing, both.thing[0]["a"]) == held
    assert (next(module.thing), next(both.thing[0]["a"])) == (1, (1.0, "a"))
    generator = HoldsAGeneratorOfPythons()
    with pytest.raises(ExportError, match="a generator that outlives the call"):
        ingot.export(generator, (X,))
    assert next(generator.thing) == 1.0


class Taken(torch.nn.Module):
    """Multiplies by what an iterator of its own gives."""

    def __init__(self, iterator: Any, by: Any) -> None:
        super().__init__()
        self.iterator, self.by = iterator, by

    def forward(self, x: T) -> T:
        """The next number, as `by` has it."""
        return x * self.by(next(self.iterator))


#: What is odd where a number is.
ODD: dict[str, Any] = {
    "and": lambda n: 1 & n,
    "or": lambda n: (1 | n) - 1,
    "xor": lambda n: 1 ^ n,
    "left": lambda n: (1 << n) % 3,
    "right": lambda n: 3 >> n,
    "divmod": lambda n: divmod(10**7, n)[1],
    "positive": lambda n: +n,
    "round": lambda n: round(n),
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
    "real": lambda n: n.real,
    "imag": lambda n: n.imag,
    "numerator": lambda n: n.numerator,
    "bit_length": lambda n: n.bit_length(),
    "conjugate": lambda n: n.conjugate(),
    "str": lambda n: int(str(n)),
    "repr": lambda n: int(repr(n)),
    "format": lambda n: int(f"{n:03d}"),
    "percent": lambda n: int("%d" % n),  # noqa: UP031
    "hash": hash,
    "gcd": lambda n: math.gcd(n, 2),
    "repeated": lambda n: len([0] * n),
    "sliced": lambda n: len("ab"[n:]),
    "binary": lambda n: int(bin(n)[-1]),
    "tensor": lambda n: int(torch.tensor(n)),
    "array": lambda n: int(np.asarray(n)),
    "key": lambda n: {7: 1}.get(n, 0),
}


@pytest.mark.parametrize("by", ODD.values(), ids=ODD)
def test_a_number_of_a_counter_is_nothing_to_compute_with(by: Any) -> None:
    """Two calls that have something in common are not all calls: both numbers may be even."""
    with pytest.raises(ExportError, match="in 'iterator', and the next call is another model"):
        capture(Taken(itertools.count(2), lambda n: 1 + by(n) % 2), (X,))


def test_a_number_of_a_counter_that_is_returned() -> None:
    """An output of the example's for ever would be another one's."""

    def numbered(x: T) -> Any:
        return x, {"call": next(NAMES)}

    with pytest.raises(ExportError, match="in 'NAMES', and the next call is another model"):
        capture(numbered, (X,))


@pytest.mark.parametrize(
    ("iterator", "by"),
    [
        (iter([2.0, 2.0, 2.0, 3.0]), lambda n: n),
        (itertools.cycle([2.0, 2.0, 3.0]), lambda n: n),
        (itertools.count(1), lambda n: 2 if n < 5 else 3),
        (itertools.count(1), lambda n: 3 if n == 7 else 2),
    ],
    ids=["list", "cycle", "less", "equal"],
)
def test_iterators_that_give_the_same_for_a_while(iterator: Any, by: Any) -> None:
    """Not the next call alone is asked what it makes of where an iterator stands."""
    with pytest.raises(ExportError, match="in 'iterator', and the next call is another model"):
        capture(Taken(iterator, by), (X,))


class Watch(threading.Thread):
    """Runs beside whoever asks for its limit, and notes when it last woke, as progress bars have one."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.limit, self.woken, self.ended = 1.0, 0.0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(1e-4):
            self.woken = time.perf_counter()


WATCH = Watch()


class BesideAThread(nn.Module):
    """A branch on sizes looks at everything that it might change."""

    def forward(self, x: T) -> T:
        if x.shape[0] == 1:
            x = x.cumsum(1).softmax(1)
            x = x * WATCH.limit
        else:
            x = x.cumsum(0).softmax(0) - WATCH.limit
        if x.sum() > WATCH.limit:
            x = x.exp().cumsum(1)
        return x


def test_what_a_thread_keeps_for_itself_is_no_part_of_a_branch() -> None:
    """It is another number on each side, and the model made neither."""
    WATCH.start()
    try:
        check(Case("thread", BesideAThread, [(X,), (-X,), (X[:1],), (random(1, 4),)]))
    finally:
        WATCH.ended.set()
        WATCH.join()
