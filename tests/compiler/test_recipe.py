"""A plan that a recipe gives is the plan: table for table that of a session that has no recipes."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

import ingot
from ingot.runtime.recipes import Recipes
from tests.compiler.test_shapes import CASES, assert_same, plans, session_of

Shapes = dict[str, tuple[int, ...]]

# Windows of all kinds, volumes, joins that are written in place, and images that grow.
WINDOWS = """g (float[n, 16, h, w] x) => (float[n, 8, a, b] y, float[n, c, d, e] z) {
    p = AveragePool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(x)
    q = MaxPool<kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2]>(p)
    r = Conv<pads=[1, 1, 1, 1], strides=[2, 2], auto_pad="NOTSET">(x, square)
    j = Concat<axis=1>(p, q, r)
    k = Relu(j)
    y = Conv<pads=[1, 1, 1, 1]>(k, joined)
    t = ConvTranspose<strides=[2, 2], pads=[1, 1, 1, 1]>(q, grow)
    s = Sigmoid(t)
    axes = Constant<value_ints=[2, 3]>()
    m = ReduceMean<keepdims=1>(s, axes)
    z = Mul(s, m)
}"""
WINDOW_WEIGHTS = {"square": (16, 16, 3, 3), "joined": (8, 48, 3, 3), "grow": (16, 8, 4, 4)}

VOLUMES = """g (float[n, 4, d, h, w] x) => (float[n, 8, a, b, c] y) {
    p = Conv<pads=[1, 1, 1, 1, 1, 1]>(x, first)
    q = Relu(p)
    r = MaxPool<kernel_shape=[2, 2, 2], strides=[2, 2, 2]>(q)
    y = Conv<pads=[1, 1, 1, 1, 1, 1]>(r, second)
}"""
VOLUME_WEIGHTS = {"first": (8, 4, 3, 3, 3), "second": (8, 8, 3, 3, 3)}

Draw = Callable[[random.Random], Shapes]


def image(channels: int, low: int, high: int) -> Draw:
    return lambda r: {"x": (1, channels, r.randrange(low, high), r.randrange(low, high))}


def batch(channels: int, low: int, high: int) -> Draw:
    return lambda r: {"x": (r.randrange(4), channels, r.randrange(low, high), r.randrange(low, high))}


def grown(r: random.Random) -> Shapes:
    h, w = r.randrange(1, 40), r.randrange(1, 40)
    return {"x": (1, 8, h, w), "s": (1, 8, 2 * h, 2 * w)}


def volume(r: random.Random) -> Shapes:
    return {"x": (1, 4, r.randrange(2, 7), r.randrange(4, 20), r.randrange(4, 20))}


#: Graphs, the shapes they are planned for, and how many of 24 plans must come from recipes at least.
GRAPHS: dict[str, tuple[str, dict[str, tuple[int, ...]], Draw, int]] = {
    "images": (*CASES["images"][:2], image(3, 16, 120), 10),
    "large images": (*CASES["images"][:2], image(3, 200, 330), 10),
    "batches": (*CASES["images"][:2], batch(3, 1, 40), 1),
    "grown": (*CASES["grown"][:2], grown, 0),
    "tokens": (*CASES["tokens"][:2], lambda r: {"x": (r.randrange(1, 4), r.randrange(1, 200), 32)}, 1),
    "windows": (WINDOWS, WINDOW_WEIGHTS, image(16, 8, 60), 10),
    "volumes": (VOLUMES, VOLUME_WEIGHTS, volume, 0),
}


def counted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether a recipe held, for each plan that is made."""
    held: list[bool] = []
    find = Recipes.find

    def count(self: Recipes, shapes: tuple[tuple[int, ...], ...]) -> object:
        found = find(self, shapes)
        held.append(found is not None)
        return found

    monkeypatch.setattr(Recipes, "find", count)
    return held


def without_recipes(session: ingot.InferenceSession) -> ingot.InferenceSession:
    session._driver._recipes.missed = lambda *_: None  # type: ignore[method-assign]
    return session


@pytest.mark.parametrize("name", GRAPHS)
def test_a_recipe_gives_the_plan(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, weights, draw, least = GRAPHS[name]
    threads = 1 + len(name) % 2
    session = session_of(text, weights, threads)
    plain = without_recipes(session_of(text, weights, threads))
    held, drawn = counted(monkeypatch), random.Random(name)
    shapes = [draw(drawn) for _ in range(24)]
    found = [plans(session, each) for each in shapes]
    number = sum(held)
    assert number >= least, f"recipes held for {number} of {len(shapes)} sets of sizes"
    for each, plan in zip(shapes, found, strict=True):
        assert_same(plan, plans(plain, each), each)
    assert sum(held) == number, "the other session had recipes as well"
