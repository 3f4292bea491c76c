"""Steps over loose arrays against the plain definitions of their operators, over shapes that fit and shapes
that do not: where NumPy refuses, so must they.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from ingot.codegen.machine import Machine
from ingot.compiler.index import index_graph
from ingot.errors import IngotError
from ingot.ops.registry import evaluated_late, find
from ingot.runtime import loose
from ingot.runtime.loose import LooseLoops
from ingot.runtime.loose_plans import Planner
from tests.kernels.run import each_machine

SIZES = (0, 1, 1, 2, 3, 5, 17, 40)
DTYPES = ("float32", "float64", "int32", "int64", "uint8", "bool")
Drawn = tuple[list[Any], dict[str, Any]]
FAR = np.iinfo(np.int64).max


def shape(rng: np.random.Generator, least: int = 0, most: int = 4) -> list[int]:
    """Of few elements."""
    sizes = [int(rng.choice(SIZES)) for _ in range(rng.integers(least, most + 1))]
    return sizes if np.prod(sizes) < 3000 else [min(n, 5) for n in sizes]


def values(rng: np.random.Generator, sizes: Sequence[int], dtype: str | None = None) -> np.ndarray:
    dtype = dtype or str(rng.choice(DTYPES))
    return np.asarray(rng.integers(0, 3, tuple(sizes))).astype(dtype)


def spoiled(rng: np.random.Generator, number: int, *others: int) -> int:
    """Mostly the number, and now and then what does not fit."""
    return int(rng.choice(others)) if rng.random() < 0.15 else number


def integers(rng: np.random.Generator, numbers: Sequence[int]) -> np.ndarray:
    return np.array(numbers, rng.choice(["int32", "int64"]) if max(numbers, default=0) < FAR else "int64")


def shrunk(rng: np.random.Generator, sizes: Sequence[int]) -> list[int]:
    """A shape that broadcasts to `sizes`, or nearly."""
    begin = int(rng.integers(0, len(sizes) + 1))
    return [spoiled(rng, int(rng.choice([1, n])), 4) for n in sizes[begin:]]


def slices(rng: np.random.Generator) -> Drawn:
    x = values(rng, shape(rng, 1))
    count = int(rng.integers(1, x.ndim + 1))
    axes = rng.permutation(x.ndim)[:count] - x.ndim * rng.integers(0, 2, count)
    starts, ends = (rng.choice([-FAR, -6, -2, -1, 0, 1, 2, 6, FAR], count) for _ in range(2))
    paces = rng.choice([-3, -1, 1, 1, 2, FAR], count)
    axes[0] = spoiled(rng, int(axes[0]), x.ndim, -x.ndim - 1)
    return [x, starts, ends, axes.astype(np.int64), *([paces] if rng.random() < 0.7 else [])], {}


def gathers(rng: np.random.Generator) -> Drawn:
    x = values(rng, shape(rng, 1, 3))
    axis = int(rng.integers(-x.ndim, x.ndim))
    n, sizes = x.shape[axis], shape(rng, 0, 2)
    indices = rng.integers(-n, n, sizes) if n else np.zeros([0, *sizes], np.int64)
    if indices.size and rng.random() < 0.15:
        indices = np.asarray(indices)
        indices.flat[0] = n
    return [x, np.asarray(indices, rng.choice(["int32", "int64"]))], {"axis": axis}


def gathers_nd(rng: np.random.Generator) -> Drawn:
    x = values(rng, [max(n, 1) for n in shape(rng, 1, 3)])
    depth = int(rng.integers(1, x.ndim + 1))
    rows = shape(rng, 0, 2)
    columns = [rng.integers(-n, n, rows) for n in x.shape[:depth]]
    indices = np.stack(columns, -1) if columns else np.zeros([*rows, 0])
    if indices.size and rng.random() < 0.15:
        indices.flat[0] = 99
    return [x, indices.astype(np.int64)], {}


def joined(rng: np.random.Generator) -> Drawn:
    sizes, dtype = shape(rng, 1, 3), str(rng.choice(DTYPES))
    axis = int(rng.integers(-len(sizes), len(sizes)))
    parts: list[np.ndarray] = []
    for _ in range(rng.integers(1, 4)):
        own = list(sizes)
        own[axis] = int(rng.choice(SIZES))
        own[-1] = own[-1] if axis in (-1, len(sizes) - 1) else spoiled(rng, own[-1], own[-1] + 1)
        parts.append(values(rng, own, dtype))
    return list(parts), {"axis": axis}


def reshaped(rng: np.random.Generator) -> Drawn:
    x = values(rng, shape(rng))
    sizes = list(rng.permutation(x.shape)) if rng.random() < 0.5 else [x.size]
    if sizes and rng.random() < 0.5:
        sizes[int(rng.integers(len(sizes)))] = int(rng.choice([-1, -1, 0, 7, -2]))
    return [x, integers(rng, [int(n) for n in sizes])], {"allowzero": int(rng.random() < 0.3)}


def unsqueezed(rng: np.random.Generator) -> Drawn:
    x = values(rng, shape(rng, 0, 3))
    count = int(rng.integers(1, 4))
    rank = x.ndim + count
    axes = [int(a) - rank * int(rng.integers(0, 2)) for a in rng.permutation(rank)[:count]]
    axes[0] = spoiled(rng, axes[0], rank, axes[-1])
    return [x, integers(rng, axes)], {}


def squeezed(rng: np.random.Generator) -> Drawn:
    x = values(rng, [int(rng.choice([1, 1, n])) for n in shape(rng, 1)])
    ones = [d for d, n in enumerate(x.shape) if n == 1]
    if rng.random() < 0.3:
        return [x], {}
    axes = [spoiled(rng, d, 9) - x.ndim * int(rng.integers(0, 2)) for d in ones[:2]]
    return [x, integers(rng, axes)], {}


def compressed(rng: np.random.Generator) -> Drawn:
    x = values(rng, shape(rng, 1, 3))
    axis = int(rng.integers(-x.ndim, x.ndim)) if rng.random() < 0.7 else None
    n = x.size if axis is None else x.shape[axis]
    condition = rng.random(max(0, n - int(rng.integers(0, 3)))) < 0.5
    return [x, condition], {} if axis is None else {"axis": axis}


def expanded(rng: np.random.Generator) -> Drawn:
    sizes = shape(rng)
    asked = [
        spoiled(rng, int(rng.choice([1, n])), -1, 3) for n in sizes[int(rng.integers(0, len(sizes) + 1)) :]
    ]
    return [values(rng, shrunk(rng, sizes)), integers(rng, asked)], {}


def ranged(rng: np.random.Generator) -> Drawn:
    bounds = [int(rng.integers(-9, 10)), int(rng.integers(-9, 10)), int(rng.choice([-3, -1, 1, 2, 0]))]
    dtype = rng.choice(["int32", "int64"])
    return [np.array(n, dtype) for n in bounds], {}


def filled(rng: np.random.Generator) -> Drawn:
    return [np.array([spoiled(rng, n, -1) for n in shape(rng, 0, 3)], np.int64)], {}


def turned(rng: np.random.Generator) -> Drawn:
    x = values(rng, shape(rng, 1, 4))
    return [x], {"perm": [int(d) for d in rng.permutation(x.ndim)]}


def two(op: Callable[[np.random.Generator, list[int]], list[Any]]) -> Callable[[np.random.Generator], Drawn]:
    return lambda rng: (op(rng, shape(rng)), {})


def pair(rng: np.random.Generator, sizes: list[int]) -> list[Any]:
    dtype = str(rng.choice(["float32", "float64", "int32", "int64"]))
    return [np.asarray(values(rng, shrunk(rng, sizes), dtype) + 1) for _ in range(2)]


def choice(rng: np.random.Generator, sizes: list[int]) -> list[Any]:
    dtype = str(rng.choice(DTYPES))
    others = [values(rng, shrunk(rng, sizes), dtype) for _ in range(2)]
    return [values(rng, shrunk(rng, sizes), "bool"), *others]


CASES: dict[str, Callable[[np.random.Generator], Drawn]] = {
    "Add": two(pair),
    "Div": two(pair),
    "Less": two(pair),
    "Max": two(pair),
    "Where": two(choice),
    "Cast": lambda rng: ([values(rng, shape(rng))], {"to": int(rng.choice([1, 6, 7, 9, 11]))}),
    "Shape": lambda rng: (
        [values(rng, shape(rng))], {"start": int(rng.integers(-3, 3)), "end": int(rng.integers(-3, 6))}
    ),
    "Size": lambda rng: ([values(rng, shape(rng))], {}),
    "Reshape": reshaped,
    "Flatten": lambda rng: ([values(rng, shape(rng, 1))], {"axis": int(rng.integers(-1, 2))}),
    "Unsqueeze": unsqueezed,
    "Squeeze": squeezed,
    "Transpose": turned,
    "Expand": expanded,
    "Slice": slices,
    "Concat": joined,
    "Gather": gathers,
    "GatherND": gathers_nd,
    "Compress": compressed,
    "NonZero": lambda rng: ([values(rng, shape(rng, 1))], {}),
    "ConstantOfShape": filled,
    "Range": ranged,
}  # fmt: skip


def body(
    op: str, arrays: Sequence[np.ndarray], attributes: dict[str, Any], steady: bool
) -> tuple[ir.Graph, ir.Node]:
    """A loop's body that puts out what the operator makes of what is carried; of what stands around it where
    it is steady.
    """

    def info(name: str, dtype: Any) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)

    names = [f"x{n}" for n in range(len(arrays))]
    infos = [info(name, array.dtype) for name, array in zip(names, arrays, strict=True)]
    node = helper.make_node(op, names, ["y"], **attributes)
    nodes = [node, helper.make_node("Identity", ["c"], ["d"])]
    head = [info("i", "int64"), info("c", "bool")]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    inner = helper.make_graph(
        nodes, "body", head + ([] if steady else infos),
        [info("d", "bool"), *([] if steady else infos), y],
    )  # fmt: skip
    trips = helper.make_tensor_value_info("n", TensorProto.INT64, [])
    around = helper.make_node(
        "Loop", ["n", "", *([] if steady else names)], ["" for _ in names] * (not steady) + ["z"], body=inner
    )
    outer = helper.make_graph([around], "g", [trips, *infos], [y.__class__(name="z", type=y.type)])
    model = ir.serde.deserialize_model(helper.make_model(outer, opset_imports=[helper.make_opsetid("", 25)]))
    loop = model.graph.node(0)
    graph = loop.attributes["body"].as_graph()
    return graph, graph.node(0)


def result(
    machine: Machine, op: str, arrays: list[np.ndarray], attributes: dict[str, Any], steady: bool
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What three rounds put out, and what the operator's definition gives; None where either refuses."""
    graph, node = body(op, arrays, attributes, steady)
    index = index_graph(graph)
    try:
        want = evaluated_late(find("", op), node, arrays)[0]
    except (IngotError, ValueError, IndexError):
        want = None
    carried, captured = ([], arrays) if steady else (arrays, [])
    rounds = LooseLoops(index, Planner(machine)).begin(carried, captured)
    assert rounds is not None, f"{op} of {[a.dtype for a in arrays]} has no steps"
    ahead = rounds.advance(0, 3, carried)
    if ahead is None:
        return None, want
    assert (ahead.next, ahead.live) == (3, True)
    for before, after in zip(carried, ahead.carried, strict=True):
        np.testing.assert_array_equal(after, before)
    rows = ahead.rows[0]
    assert isinstance(rows, np.ndarray)
    for row in rows[1:]:
        np.testing.assert_array_equal(row, rows[0])
    rounds.end()
    return rows[0], want


@each_machine
@pytest.mark.parametrize("op", CASES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_steps(op: str, machine: Machine, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for turn in range(4):
        arrays, attributes = CASES[op](rng)
        got, want = result(machine, op, arrays, attributes, steady=turn == 0)
        said = f"{op} {attributes} of {[(a.dtype.name, a.shape) for a in arrays]}"
        if want is None:
            assert got is None, f"{said}: a result, where the definition refuses"
            continue
        assert got is not None, f"{said}: refused"
        assert (got.dtype, got.shape) == (want.dtype, want.shape), said
        np.testing.assert_array_equal(got, want, said)


ROUNDS = """<ir_version: 10, opset_import: ["" : 20]>
g (int64 n, float bound, float[k] x, float[1] one)
    => (float[m] y, float[l] z, int64 count, float[r, s] rows) {
    zero = Constant<value_int = 0>()
    start = Less(zero, n)
    y, z, count, rows = Loop(n, start, x, one, zero) <
        body = b (int64 i, bool c, float[k1] u, float[k2] w, int64 j)
            => (bool d, float[k3] w2, float[k4] u2, int64 j2, float[s] row) {
            two = Constant<value_int = 2>()
            step = Constant<value_int = 1>()
            rest = Mod(i, two)
            is_odd = Equal(rest, step)
            u2 = If(is_odd) <
                then_branch = t () => (float[a] u3) { u3 = Concat<axis = 0>(u, w) },
                else_branch = e () => (float[b] u4) { twice = Add(u, u)  u4 = Identity(twice) }
            >
            w2 = Sub(w, bound)
            row = Mul(one, bound)
            j2 = Add(j, step)
            size = Size(u2)
            most = Constant<value_int = 60>()
            d = Less(size, most)
        }
    >
}"""


def by_hand(n: int, bound: float, x: np.ndarray, one: np.ndarray) -> list[np.ndarray]:
    """The same in NumPy: what is carried changes places."""
    u, w, rows = x, one, list[np.ndarray]()
    for i in range(n):
        u, w = w - np.float32(bound), np.concatenate([u, w]) if i % 2 else u + u
        rows.append(one * np.float32(bound))
        if w.size >= 60:
            break
    return [u, w, np.array(len(rows)), np.array(rows, np.float32).reshape(len(rows), 1)]


@each_machine
@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 40), count=st.integers(0, 4), few=st.integers(1, 5))
def test_rounds(n: int, count: int, few: int, machine: Machine) -> None:
    """Little memory, which grows; few rounds at a time; what is carried changes places."""
    with patch.multiple(loose, FIRST_BYTES=128, FIRST_LIST_BYTES=128, MOST_ROUNDS=few):
        check_rounds(n, count, machine)


def check_rounds(n: int, count: int, machine: Machine) -> None:
    model = ir.serde.deserialize_model(onnx.parser.parse_model(ROUNDS))
    graph = next(node for node in model.graph if node.op_type == "Loop").attributes["body"].as_graph()
    index = index_graph(graph)
    x, one, bound = np.arange(count, dtype=np.float32), np.ones(1, np.float32), np.array(0.25, np.float32)
    outer = {"one": one, "bound": bound}
    carried = [x, one, np.array(0)]
    for _ in range(2):
        rounds = LooseLoops(index, Planner(machine)).begin(
            carried, [outer[v.name or ""] for v in index.captured]
        )
        assert rounds is not None
        ahead = rounds.advance(0, n, carried)
        assert ahead is not None
        want = by_hand(n, 0.25, x, one)
        assert ahead.next == want[2]
        for a, b in zip([*ahead.carried, ahead.rows[0]], want, strict=True):
            assert isinstance(a, np.ndarray)
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            np.testing.assert_array_equal(a, b)
        rounds.end()
