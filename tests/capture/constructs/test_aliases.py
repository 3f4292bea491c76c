"""Two variables that hold one container, as a condition says: what is written into one is in the other."""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

import dataclasses
from typing import Any

from tests.capture.constructs.support import Case, Cases, T, check, random

case = Cases()
EIGHT = [random(n, 4, seed=s) for s, n in enumerate((5, 1, 2, 3, 4, 8, 7, 6))]


@dataclasses.dataclass
class Held:
    """What a tracker knows of one thing."""

    v: T
    n: int = 0


class Plain:
    """The same without fields."""

    def __init__(self, v: T) -> None:
        self.v = v


@case(*EIGHT)
def alias_list(x: T) -> Any:
    a, b = [x], [x * 2]
    t = a if x.sum() > 0 else b
    t.append(x * 3)
    return sum(a), sum(b)


@case(*EIGHT)
def alias_or_new(x: T) -> Any:
    a = [x]
    t = a if x.sum() > 0 else [x * 9]
    t[0] = t[0] + 1
    return a[0], t[0]


@case(*EIGHT)
def alias_or_copy(x: T) -> Any:
    a, d = [x], {"v": x}
    t = a if x.sum() > 0 else list(a)
    t[0] = t[0] + 1
    e = d if x.sum() > 0 else dict(d)
    e["v"] = e["v"] + 1
    return a[0], t[0], d["v"], e["v"]


@case(*EIGHT)
def alias_that_the_branch_does_not_see(x: T) -> Any:
    a = [x]
    c = a
    if x.sum() > 0:
        a = [x * 9]
    a[0] = a[0] + 1
    return a[0], c[0]


@case(*EIGHT)
def alias_of_the_caller(x: T) -> Any:
    def changed(v: list[T]) -> list[T]:
        if x.sum() > 0:
            v = [x * 7]
        v[0] = v[0] + 1
        return v

    a = [x]
    return changed(a)[0], a[0]


@case(*EIGHT)
def alias_on_one_side(x: T) -> Any:
    a, b = [x], [x * 2]
    t = a if x.sum() > 0 else None
    if t is not None:
        t[0] = t[0] + 1
    if x.sum() > 0:
        u = b
    if x.sum() > 0:
        u[0] = u[0] + 1  # pyright: ignore[reportPossiblyUnbound]
    return a[0], b[0]


@case(*EIGHT)
def alias_made_in_a_branch(x: T) -> Any:
    if x.sum() > 0:
        p = [x]
        q = p
    else:
        p = [x * 2]
        q = p
    p[0] = p[0] + 1
    return p[0], q[0]


@case(*EIGHT)
def alias_of_an_element(x: T) -> Any:
    a = [x]
    o, t = {"k": a}, (x, a)
    if x.sum() > 0:
        o["k"], t = [x * 3], (x * 2, [x * 2])
    o["k"][0] = o["k"][0] + 1
    t[1][0] = t[1][0] + 1
    return a[0], o["k"][0], t[0], t[1][0]


@case(*EIGHT)
def alias_held_nowhere_else(x: T) -> Any:
    out = []
    for i in range(3):
        if x.sum() > i:
            out = [x * i]
        out.append(x + i)
    return sum(out), len(out)


@case(*EIGHT)
def alias_dict(x: T) -> Any:
    a, b = {"v": x}, {"v": x * 2}
    t = a if x.sum() > 0 else b
    t["v"] = x * 5
    return a["v"], b["v"]


@case(*EIGHT)
def alias_word_index(x: T) -> Any:
    g = {"p": [x], "n": [x]}
    g["p" if x.sum() > 0 else "n"].append(x + 1)
    return sum(g["p"]), sum(g["n"])


@case(*EIGHT)
def alias_data_index(x: T) -> Any:
    g = [[x], [x * 2]]
    g[int(x.sum() > 0)].append(x + 1)
    return sum(g[0]), sum(g[1])


@case(*EIGHT)
def alias_dataclass(x: T) -> Any:
    a, b = Held(x), Held(x * 2)
    t = a if x.sum() > 0 else b
    t.v = x * 7
    t.n += 1
    return a.v, b.v, a.n


@case(*EIGHT)
def alias_dataclass_index(x: T) -> Any:
    ps = [Held(x), Held(x * 2)]
    p = ps[int(x.sum() > 0)]
    p.v = x * 7
    return ps[0].v, ps[1].v


@case(*EIGHT)
def alias_object(x: T) -> Any:
    a, b = Plain(x), Plain(x * 2)
    t = a if x.sum() > 0 else b
    t.v = x * 7
    return a.v, b.v


@case(*EIGHT)
def alias_loop(x: T) -> Any:
    a, b = [x[0]], [x[0]]
    cur = a
    for r in x:
        cur.append(r)
        cur = b if r.sum() > 0 else a
    return sum(a), sum(b)


@case(*EIGHT)
def alias_loop_dict(x: T) -> Any:
    a, b = {"s": x[0]}, {"s": x[0] * 2}
    cur = a
    for r in x:
        cur["s"] = cur["s"] + r
        cur = b if r.sum() > 0 else a
    return a["s"], b["s"]


@case(*EIGHT)
def alias_size(x: T) -> Any:
    a, b = [x], [x * 2]
    t = a if x.shape[0] > 3 else b
    t[0] = x * 3
    return sum(a), sum(b)


@case(*EIGHT)
def alias_is(x: T) -> Any:
    a, b = [x], [x * 2]
    t = a if x.sum() > 0 else b
    return x * 2 if t is a else x


@case(*EIGHT)
def current_best(x: T) -> Any:
    best = {"score": x[0, 0] - 100, "row": x[0] * 0}
    for r in x:
        c = {"score": r.sum(), "row": r}
        if c["score"] > best["score"]:
            best = c
    best["row"] = best["row"] * 2
    return best["row"]


@case(*EIGHT)
def best_track(x: T) -> Any:
    ts = [Plain(x[0]), Plain(x[0] + 1)]
    for r in x:
        best, top = None, 0.1
        for t in ts:
            o = (t.v * r).sum()
            if o > top:
                best, top = t, o
        if best is not None:
            best.v = best.v * 0.5 + r
    return ts[0].v, ts[1].v


@case.parametrize()
def test_aliases(case: Case) -> None:
    """The containers are the ones that eager has."""
    check(case)
