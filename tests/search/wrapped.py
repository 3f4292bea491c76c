"""Steps of random graphs with graphs of their own: If, Loop and Scan around further steps, which use values
from outside.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as h

from tests.search.chains import Chain, Unfit, Value
from tests.search.judge import element_type
from tests.search.links import CODES, NUMBERS, step


def graph_of(body: Chain, inputs: list[Value], outputs: list[Value], name: str) -> onnx.GraphProto:
    return h.make_graph(
        body.nodes,
        name,
        [
            h.make_tensor_value_info(v.name, element_type(v.array), v.shape if body.r.flag(0.3) else None)
            for v in inputs
        ],
        [declared(v, body.r.flag()) for v in outputs],
        body.initializers,
    )


def declared(value: Value, typed: bool) -> onnx.ValueInfoProto:
    if not typed:
        return onnx.ValueInfoProto(name=value.name)
    return h.make_tensor_value_info(value.name, element_type(value.array), None)


def made_in(body: Chain) -> list[Value]:
    names = {name for node in body.nodes for name in node.output}
    return [v for v in body.pool if v.name in names and not v.constant]


def outer(c: Chain) -> None:
    if c.depth >= 2:
        raise Unfit


@step(2)
def branch(c: Chain) -> None:
    """If: the branches' results are of one dtype."""
    outer(c)
    flags = [v for v in c.seen() if v.dtype == "bool" and v.array.size == 1 and v.rank <= 1 and v.exact]
    if flags and c.r.flag(0.6):
        condition = c.r.one(flags)
    elif c.r.flag():
        condition = c.input(np.array(c.r.flag()))
    else:
        x = c.pick(lambda v: v.rank >= 1, dtypes=())
        n = c.op("Gather", c.op("Shape", x), c.constant(0, "int64"), axis=0)
        condition = c.op(c.r.one(["Greater", "Equal"]), n, c.constant(c.r.integer(0, 4), "int64"))
    sides = []
    for _ in range(2):
        body = c.body()
        body.grow(body, c.r.integer(1, 3))
        sides.append(body)
    first, second = made_in(sides[0]), made_in(sides[1])
    chosen: list[tuple[Value, Value]] = []
    for a in first[::-1]:  # each once: ONNX Runtime loses the second one
        left = [b for b in second[::-1] if b.dtype == a.dtype and b not in [y for _, y in chosen]]
        left = [b for b in left if a.rank == b.rank or c.r.flag(0.3)]
        if left and len(chosen) < 2:
            chosen.append((a, left[0]))
    if not chosen:
        raise Unfit
    graphs = [
        graph_of(body, [], values, name)
        for body, values, name in zip(sides, zip(*chosen, strict=True), ("then", "else"), strict=True)
    ]
    c.add("If", [condition], len(chosen), then_branch=graphs[0], else_branch=graphs[1])


@step(2)
def loop(c: Chain) -> None:
    """Loop: one or two values are carried, some rows are collected."""
    outer(c)
    body = c.body()
    carried = [c.pick(lambda v: v.array.size <= 400, dtypes=NUMBERS) for _ in range(c.r.integer(1, 2))]
    number = Value(body.name(), np.array(0, np.int64))
    going = Value(body.name(), np.array(True))
    inner = [Value(body.name(), v.array, v.exact and "int" in v.dtype) for v in carried]
    body.pool += [number, *inner]
    body.grow(body, c.r.integer(1, 4))
    made = made_in(body)
    after = []
    for value in inner:
        fits = [v for v in made if v.dtype == value.dtype and v.shape == value.shape]
        if fits and c.r.flag(0.7):
            y = fits[-1]
        else:
            more = [v for v in made if v.dtype == value.dtype and v.array.size]
            y = (
                body.op("Add", value, body.op("ReduceMax", c.r.one(more), keepdims=0))
                if more
                else body.op("Identity", value)
            )
        if "float" in y.dtype:
            y = body.op("Tanh", y)
        after.append(body.op("Identity", y) if y in after else y)
    scans = [v for v in made_in(body) if v not in after][-2:] if c.r.flag(0.6) else []
    if c.r.flag(0.3):
        still = body.op("Less", number, body.constant(c.r.integer(0, 3), "int64"))
    else:
        still = body.op("Identity", going)
    turns = c.r.one([0, 1, 2, 3, 3, 4])
    kind = c.r.integer(0, 2)
    most = c.constant(turns, "int64") if kind == 0 else c.input(np.array(turns, np.int64))
    start = None if c.r.flag(0.3) else c.constant(True) if c.r.flag(0.7) else c.input(np.array(c.r.flag(0.7)))
    proto = graph_of(body, [number, going, *inner], [still, *after, *scans], "body")
    results = c.add("Loop", [most, start, *carried], len(after) + len(scans), body=proto)
    for value in results:
        value.exact = value.exact and "float" not in value.dtype


@step(2)
def scan(c: Chain) -> None:
    """Scan: along some axis of one or two values, now and then from the end."""
    outer(c)
    x = c.pick(lambda v: v.rank >= 1 and 0 < v.array.size <= 600, dtypes=NUMBERS)
    axis = c.r.integer(0, x.rank - 1)
    body = c.body()
    row = Value(body.name(), np.take(x.array, 0, axis), x.exact)
    state = (
        c.constant(np.zeros(row.shape, c.main))
        if c.r.flag(0.7)
        else c.input(c.r.floats(*row.shape, dtype=c.main))
    )
    kept = Value(body.name(), state.array, False)
    body.pool += [kept, row]
    y = row if x.dtype == c.main else body.op("Cast", row, to=CODES[c.main])
    body.op("Add", kept, y)
    body.grow(body, c.r.integer(0, 3))
    made = made_in(body)
    after = c.r.one([v for v in made if v.dtype == c.main and v.shape == kept.shape])
    after = body.op("Tanh", after)
    scans = [v for v in made_in(body) if v is not after][-2:]
    backwards, where = c.r.integer(0, 1), [c.r.integer(0, v.rank) for v in scans]
    proto = graph_of(body, [kept, row], [after, *scans], "body")
    c.add(
        "Scan",
        [state, x],
        1 + len(scans),
        body=proto,
        num_scan_inputs=1,
        scan_input_axes=[axis - x.rank if c.r.flag(0.3) else axis] if axis or c.r.flag() else None,
        scan_input_directions=[backwards] if backwards else None,
        scan_output_axes=where if any(where) else None,
        scan_output_directions=[c.r.integer(0, 1) for _ in scans] if scans and c.r.flag(0.3) else None,
    )
