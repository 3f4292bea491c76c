"""Random loops whose arrays change their sizes from round to round, of operators that native rounds have.

The first round fits, as every step of a chain does; later ones may not, which is an error in every way of
running them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.helper as h

from tests.search import links, wrapped
from tests.search.chains import Chain, Unfit, Value, needed
from tests.search.draw import Array, Draw
from tests.search.judge import element_type

DTYPES = ("float32", "float32", "float64", "int64", "int32", "bool", "uint8")
#: What native rounds have; `wrapped.branch` grows of the same.
STEPS: Sequence[tuple[Any, float]] = (
    (links.binary, 4),
    (links.unary, 2),
    (links.several, 1),
    (links.clip, 1),
    (links.integers, 2),
    (links.compared, 2),
    (links.logic, 1),
    (links.where, 2),
    (links.cast, 2),
    (links.transpose, 2),
    (links.reshape, 1),
    (links.reshape_by_sizes, 2),
    (links.flat, 1),
    (links.ones, 2),
    (links.expand, 2),
    (links.slice_, 3),
    (links.slice_to_size, 2),
    (links.concat, 4),
    (links.gather, 3),
    (links.made_from_sizes, 2),
    (links.counted, 1),
    (wrapped.branch, 2),
)


def grow(c: Chain, many: int) -> None:
    """Draws so many steps that fit."""
    chances = np.array([weight for _, weight in STEPS], float)
    for _ in range(many * 6):
        if many == 0:
            return
        try:
            STEPS[int(c.r.rng.choice(len(STEPS), p=chances / chances.sum()))][0](c)
            many -= 1
        except Unfit:
            continue


def changed(body: Chain, value: Value) -> Value:
    """What the next round gets: the same values, more of them, fewer, or another result of that dtype."""
    r = body.r
    made = [v for v in wrapped.made_in(body) if v.dtype == value.dtype]
    kind = r.integer(0, 5)
    if made and kind <= 1:
        return made[-1] if kind else r.one(made)
    if value.rank == 0 or kind == 2:
        others = [v for v in body.seen() if v.dtype == value.dtype]
        return body.op("Identity", r.one(others))
    if kind == 3:
        begin = body.ints([r.one([0, 0, 1, -3])])
        end = body.ints([r.one([-1, 2, 9, 2**40])])
        return body.op("Slice", value, begin, end, body.ints([r.integer(-value.rank, value.rank - 1)]))
    rows = [v for v in made if v.rank == value.rank and v.shape[1:] == value.shape[1:]]
    return body.op("Concat", *r.rng.permutation([value, r.one([value, *rows])]), axis=0)


def loop_of(seed: int) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A model of one loop, and a feed. Raises Unfit."""
    r = Draw(seed)
    c = Chain(r, r.one((13, 18, 21)), r.one(["float32", "float32", "float64"]), grow)
    carried = [
        c.input(r.array(r.shape(0, 3, largest=60), c.main if n == 0 else r.one(DTYPES), special=0.1))
        for n in range(r.integer(1, 3))
    ]
    for _ in range(r.integer(0, 2)):
        c.input(r.array(r.shape(0, 3, largest=60), r.one([c.main, "int64"]), special=0.0))
    body = c.body()
    number, going = Value(body.name(), np.array(0)), Value(body.name(), np.array(True))
    inner = [Value(body.name(), v.array) for v in carried]
    body.pool += [number, *inner]
    body.grow(body, r.integer(1, 6))
    after = [changed(body, value) for value in inner]
    # No rows of the number itself: ONNX Runtime's are all the last one.
    rows = [r.one(body.pool[1:]) for _ in range(r.integer(0, 2))]
    still = body.op("Identity", going)
    if r.flag(0.3):
        size = body.op("Size", r.one(after))
        still = body.op("Less", size, body.constant(r.integer(0, 40), "int64"))
    inputs, outputs = [number, going, *inner], [still, *after, *rows]
    infos = [
        [
            h.make_tensor_value_info(v.name, element_type(v.array), () if n < numbers else None)
            for n, v in enumerate(values)
        ]
        for values, numbers in ((inputs, 2), (outputs, 1))
    ]
    given, made = list(carried), [Value(c.name(), v.array) for v in (*carried, *rows)]
    lists: list[tuple[str, str, onnx.TypeProto]] = []
    if r.flag(0.25):
        put = r.one(body.pool)
        kind = h.make_sequence_type_proto(h.make_tensor_type_proto(element_type(put.array), None))
        names = [c.name() for _ in range(4)]
        body.nodes.append(h.make_node("SequenceInsert", [names[1], put.name], [names[2]]))
        infos[0].append(h.make_value_info(names[1], kind))
        infos[1].insert(1 + len(after), h.make_value_info(names[2], kind))
        c.nodes.append(h.make_node("SequenceEmpty", [], [names[0]], dtype=element_type(put.array)))
        lists.append((names[0], names[3], kind))
    proto = h.make_graph(body.nodes, "body", *infos, body.initializers)
    trips = c.input(np.array(r.one([0, 1, 2, 3, 3, 5, 5, 9]), np.int64))
    names = [v.name for v in made]
    names[len(given) : len(given)] = [end for _, end, _ in lists]
    begins = [*(v.name for v in given), *(begin for begin, _, _ in lists)]
    c.nodes.append(h.make_node("Loop", [trips.name, "", *begins], names, body=proto))
    model = c.model(made)
    model.graph.output.extend(h.make_value_info(end, kind) for _, end, kind in lists)
    used = set().union(*(needed(node) for node in c.nodes))
    unused = [v for v in model.graph.input if v.name not in used]
    for info in unused:
        model.graph.input.remove(info)
    feed: dict[str, Array] = c.feed()
    return model, {v.name: feed[v.name] for v in model.graph.input}
