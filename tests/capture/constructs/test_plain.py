"""Ordinary Python that does not depend on data: it runs as it is, beside one branch that does."""

# The constructs are written as people write them.
# ruff: noqa: C416

from __future__ import annotations

import contextlib
import enum
import functools
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import nn

from tests.capture.constructs.support import Case, Cases, T, both_signs, check

case = Cases()
SIGNS = both_signs()


def gate(x: T) -> T:
    """A branch that data decides, called from the constructs."""
    if x.sum() > 0:
        return x * 2
    return x - 1


@case(*SIGNS)
def args_and_kwargs(x: T) -> T:
    def f(*args: T, scale: float = 1.0, **more: Any) -> T:
        return sum(args, torch.zeros(3)) * scale + more["shift"]

    return f(x, gate(x), scale=2.0, shift=1)


@case(*SIGNS)
def closures(x: T) -> T:
    def make(k: float) -> Any:
        def act(v: T) -> T:
            if v.sum() > k:
                return v * k
            return v - k

        return act

    return make(2.0)(x) + make(-3.0)(x)


@case(*SIGNS)
def partial_and_reduce(x: T) -> T:
    def step(a: T, b: float, *, w: float) -> T:
        if a.sum() > b:
            return a - w
        return a + w

    return functools.reduce(functools.partial(step, w=0.5), [1.0, 2.0, 3.0], x)


@case(*SIGNS)
def map_and_filter(x: T) -> T:
    parts = list(map(gate, [x, -x, x * 2]))
    return sum(filter(lambda t: t.dim() == 2, parts))


def _plus_one(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args) + 1

    return wrapper


@_plus_one
def _decorated(x: T) -> T:
    return x if x.sum() > 0 else -x


@case(*SIGNS)
def decorators(x: T) -> T:
    return _decorated(x)


@case(*SIGNS)
def comprehensions(x: T) -> T:
    d = {f"k{i}": gate(x * i) for i in range(3)}
    s = {k for k in d if k != "k1"}
    rows = [[v for v in (1, 2)] for _ in range(2)]
    return sum(d[k] for k in sorted(s)) * sum(map(sum, rows))


@case(*SIGNS)
def generators(x: T) -> T:
    def parts() -> Iterator[T]:
        for i in range(3):
            yield gate(x) * i

    return sum(parts())


@case(*SIGNS)
def dataclasses_and_properties(x: T) -> T:
    @dataclass
    class Config:
        scale: float = 2.0
        shifts: list[float] = field(default_factory=lambda: [1.0, 2.0])

        @property
        def total(self) -> float:
            return sum(self.shifts)

    c = Config()
    return gate(x) * c.scale + c.total


class _Pair(NamedTuple):
    left: T
    right: T


@case(*SIGNS)
def named_tuples(x: T) -> T:
    pair = _Pair(gate(x), x)
    old = namedtuple("old", "a b")(pair.left, 2)
    return pair.right + old.a * old.b


class _Mode(enum.Enum):
    FAST = "fast"
    EXACT = "exact"


@case(*SIGNS)
def enums_and_match(x: T) -> T:
    mode = _Mode("exact")
    match mode:
        case _Mode.FAST:
            return x
        case _Mode.EXACT:
            x = gate(x)
    match {"kind": "add", "by": 2}:
        case {"kind": "add", "by": int(n)}:
            x = x + n
        case _:
            raise ValueError
    return x


@case(*SIGNS)
def dict_and_list_mutation(x: T) -> T:
    d: dict[str, Any] = {}
    d["a"] = gate(x)
    d.setdefault("b", []).append(x)
    d["b"].insert(0, -x)
    d.update(c=3)
    more = defaultdict(list)
    more["x"].append(d.pop("a"))
    order = OrderedDict(q=1)
    order.move_to_end("q")
    return more["x"][0] + d["b"][0] * d["c"] + order["q"]


@case(*SIGNS)
class AttributesByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for i in range(3):
            setattr(self, f"layer{i}", nn.Linear(3, 3))

    def forward(self, x: T) -> T:
        for i in range(3):
            x = gate(getattr(self, f"layer{i}")(x))
        return x


class _Parent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: T) -> T:
        return self.layer(x)

    @property
    def bias(self) -> T:
        return self.layer.bias

    @staticmethod
    def double(x: T) -> T:
        return x * 2

    @classmethod
    def name(cls) -> str:
        return cls.__name__


@case(*SIGNS)
class Inheritance(_Parent):
    def forward(self, x: T) -> T:
        y = super().forward(x)
        if y.sum() > 0:
            y = self.double(super().forward(y))
        return y + self.bias + len(self.name())


@case(*SIGNS)
class ModuleContainers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
        self.heads = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.ReLU()})
        self.weights = nn.ParameterList([torch.ones(3), torch.zeros(3)])

    def forward(self, x: T) -> T:
        for i, layer in enumerate(self.layers[1:]):
            x = gate(layer(x)) * (i + 1)
        for name, head in self.heads.items():
            x = head(x) + len(name)
        return x + sum(self.weights) + self.layers[-1](x)


@case(*SIGNS)
def plain_classes(x: T) -> T:
    class Scaler:
        def __init__(self, k: float) -> None:
            self.k = k

        def __call__(self, v: T) -> T:
            return gate(v) * self.k

        def __add__(self, other: Scaler) -> Scaler:
            return Scaler(self.k + other.k)

    return (Scaler(1.0) + Scaler(2.0))(x)


@case(*SIGNS)
def config_objects(x: T) -> T:
    config = SimpleNamespace(hidden=3, use_bias=True, act="relu")
    y = gate(x) + (1 if config.use_bias else 0)
    return getattr(torch, config.act)(y) * config.hidden


@case(*SIGNS)
def try_and_except(x: T) -> T:
    try:
        k = {"a": 1}["b"]
    except KeyError as error:
        k = len(str(error))
    else:
        k = 0
    finally:
        x = x + 1
    return gate(x) * k


@case(*SIGNS)
def context_managers(x: T) -> T:
    @contextlib.contextmanager
    def scaled(k: float) -> Iterator[float]:
        yield k * 2

    with scaled(2.0) as k, torch.no_grad(), torch.autocast("cpu", enabled=False):
        return gate(x) * k


@case(*SIGNS)
def recursion(x: T) -> T:
    def power(v: T, n: int) -> T:
        return gate(v) if n == 0 else power(v, n - 1) * 1.5

    return power(x, 3)


@case(*SIGNS)
def star_unpacking_and_walrus(x: T) -> T:
    first, *rest = [x, gate(x), x * 3]
    if (n := len(rest)) > 1:
        first = first * n
    return first + sum(rest)


@case(*SIGNS)
def strings_and_formatting(x: T) -> T:
    name = f"{'ab':>4}".strip().upper()
    return gate(x) * (2 if name == "AB" and "A" in name else 3)


@case(*SIGNS)
def global_and_nonlocal(x: T) -> T:
    count = 0

    def bump() -> None:
        nonlocal count
        count += 1

    bump()
    y = gate(x)
    bump()
    return y * count


@case(*SIGNS)
def itertools_and_sorting(x: T) -> T:
    pairs = sorted([(3, x), (1, gate(x)), (2, -x)], key=lambda p: p[0])
    return sum(k * v for k, v in pairs)


@case(*SIGNS)
class CachedFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = functools.lru_cache(None)(lambda n: n * 2.0)

    def forward(self, x: T) -> T:
        return gate(x) * self.scale(3)


@case(*SIGNS)
def vmap(x: T) -> T:
    return torch.vmap(lambda r: r * r.sum())(gate(x))


@case(*SIGNS)
def vmap_in_chunks(x: T) -> tuple[T, T]:
    """As many rows at a time as there is memory for."""
    by = gate(x).sum()
    return torch.vmap(lambda r, k: (r * k, r.cumsum(0)), (1, None), (0, 1), chunk_size=2)(x, by)


@case(*SIGNS)
def while_that_python_decides(x: T) -> T:
    n = 5
    while n > 0:
        n -= 2
        if n == 1:
            continue
        x = x + n
    return gate(x)


@case.parametrize()
def test_plain_python(case: Case) -> None:
    """It simply runs."""
    check(case)
