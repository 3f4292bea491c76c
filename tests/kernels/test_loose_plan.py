"""Nodes of a loop's body that have plans for each size, against a session that runs the node alone: the same
bits, whatever sizes came before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ingot import InferenceSession, SessionOptions
from ingot.codegen.machine import host
from ingot.compiler.index import index_graph
from ingot.errors import IngotError
from ingot.ops.registry import Array
from ingot.runtime import loose, loose_plans
from ingot.runtime.loose import LooseLoops
from ingot.runtime.loose_plans import Planner

RNG = np.random.default_rng(5)


def numbers(*shape: int, dtype: str = "float32") -> Array:
    return (RNG.standard_normal(shape) * 3).astype(dtype)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


#: Operator, the array whose first dimension shrinks to nothing, further inputs, attributes.
CASES: list[tuple[str, Array, list[Array], dict[str, Any]]] = [
    ("ReduceProd", numbers(37, 2), [ints(-1)], {"keepdims": 0}),
    ("ReduceProd", numbers(1, 3), [ints(0)], {}),
    ("ReduceSum", numbers(70, 19), [ints(0)], {"keepdims": 0}),
    ("ReduceSum", numbers(5, 3, 7, dtype="int32"), [ints(0, 2)], {}),
    ("ReduceSum", numbers(9, 1030), [ints(1)], {}),
    ("ReduceMax", numbers(40, 5), [], {"keepdims": 0}),
    ("ReduceMin", numbers(20, 4, 3) > 0, [ints(1)], {}),
    ("ReduceMean", numbers(33, 17, dtype="float64"), [ints(1)], {}),
    ("ReduceLogSumExp", numbers(6, 40), [ints(-1)], {}),
    ("ArgMax", numbers(18, 35), [], {"axis": -1, "keepdims": 0}),
    ("ArgMin", numbers(3, 9), [], {"axis": 1, "select_last_index": 1}),
    ("Softmax", numbers(41, 6), [], {"axis": 0}),
    ("Softmax", numbers(4, 5, 67), [], {"axis": -1}),
    ("LogSoftmax", numbers(12, 33), [], {"axis": 1}),
    ("MatMul", numbers(35, 24), [numbers(24, 19)], {}),
    ("MatMul", numbers(4, 1, 24), [numbers(24, 70)], {}),
    ("MatMul", numbers(17), [], {}),
    ("Gemm", numbers(21, 16), [numbers(33, 16), numbers(33)], {"transB": 1, "alpha": 0.5}),
    ("LayerNormalization", numbers(9, 48), [numbers(48), numbers(48)], {}),
    ("CumSum", numbers(14, 3), [ints(0)], {}),
    ("Pad", numbers(7, 3), [ints(1, 0, 0, 2)], {}),
    ("Tile", numbers(6, 2), [ints(2, 3)], {}),
    ("GatherElements", numbers(5, 4), [ints(0, -1, 0, 0).reshape(1, 4)], {}),
]


def model_of(op: str, x: Array, others: Sequence[Array], attributes: dict[str, Any], own: bool) -> Any:
    """A model of one node; the other inputs are inputs of the model, or constants."""
    names = ["x", *(f"w{number}" for number in range(len(others)))]
    read = names if op != "MatMul" or others else ["x", "x"]
    graph = helper.make_graph(
        [helper.make_node(op, read, ["y"], **attributes)], "g",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim)
            for name, a in zip(names, [x] if own else [x, *others], strict=False)
        ],
        [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)],
        [numpy_helper.from_array(a, name) for name, a in zip(names[1:], others, strict=True)] if own else [],
    )  # fmt: skip
    graph.output[0].ClearField("type")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])


def loop_of(op: str, x: Array, others: Sequence[Array], attributes: dict[str, Any]) -> ir.Graph:
    """A loop's body: x is carried without its first part; what the operator makes of it is put out."""
    node = model_of(op, x, others, attributes, own=True).graph
    info = helper.make_tensor_value_info
    dtype = helper.np_dtype_to_tensor_dtype(x.dtype)
    tensors = [*node.initializer, numpy_helper.from_array(ints(1), "one")]
    tensors.append(numpy_helper.from_array(ints(1 << 40), "end"))
    body = helper.make_graph(
        [
            *node.node,
            helper.make_node("Slice", ["x", "one", "end"], ["rest"]),
            helper.make_node("Identity", ["c"], ["d"]),
        ],
        "body",
        [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("x", dtype, None)],
        [info("d", TensorProto.BOOL, []), info("rest", dtype, None), info("y", dtype, None)],
        tensors,
    )
    around = helper.make_node("Loop", ["n", "", "start"], ["z", "rows"], body=body)
    outer = helper.make_graph(
        [around],
        "g",
        [info("n", TensorProto.INT64, []), info("start", dtype, None)],
        [info("z", dtype, None)],
    )
    model = ir.serde.deserialize_model(helper.make_model(outer, opset_imports=[helper.make_opsetid("", 23)]))
    return model.graph.node(0).attributes["body"].as_graph()


def rows_of(loops: LooseLoops, x: Array) -> list[Array]:
    """What as many rounds as there are parts put out, and one more for none."""
    rounds = loops.begin([x], [])
    assert rounds is not None, "the body has no steps over loose arrays"
    rows: list[Array] = []
    carried, done, pauses = [x], 0, 0
    while done <= len(x):
        ahead = rounds.advance(done, len(x) + 1, carried)
        if ahead is None:  # sizes that did not change, or that do not fit
            pauses += 1
            if pauses > 3:
                break
            continue
        done, carried = ahead.next, ahead.carried
        rows.extend(ahead.rows[0])
    rounds.end()
    return rows


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda n: f"{CASES[n][0]}{n}")
def test_nodes(case: int) -> None:
    check(*CASES[case])


@settings(max_examples=8, deadline=None)
@given(
    op=st.sampled_from(("ReduceProd", "ReduceSum", "ReduceMax", "Softmax", "MatMul")),
    sizes=st.lists(st.sampled_from((1, 2, 3, 9, 16, 40)), min_size=2, max_size=3),
    wide=st.sampled_from((1, 5, 33)),
    axis=st.integers(0, 1),
)
def test_drawn_sizes(op: str, sizes: list[int], wide: int, axis: int) -> None:
    x = numbers(min(sizes[0], 9), *sizes[1:])
    if op == "MatMul":
        check(op, x, [numbers(sizes[-1], wide)], {})
    elif op == "Softmax":
        check(op, x, [], {"axis": axis - 1})
    else:
        check(op, x, [ints(*range(axis, x.ndim))], {"keepdims": wide % 2})


def check(op: str, x: Array, others: list[Array], attributes: dict[str, Any]) -> None:
    """Rounds over less and less of x against a session."""
    loops = LooseLoops(index_graph(loop_of(op, x, others, attributes)), Planner(host()))
    alone = InferenceSession(model_of(op, x, others, attributes, own=True).SerializeToString())
    wanted: list[Array] = []
    for start in range(len(x) + 1):
        try:
            wanted.append(np.asarray(alone.run(None, {"x": x[start:]})[0]))
        except IngotError:
            break
    with patch.object(loose, "FIRST_BYTES", 256):
        first = rows_of(loops, x)
    for found in (first, rows_of(loops, x[len(x) // 2 :]), rows_of(loops, x)):
        for row, want in zip(found[::-1], wanted[::-1], strict=False):
            assert (row.dtype, row.shape) == (want.dtype, want.shape)
            assert row.tobytes() == want.tobytes(), f"{op} of {want.shape}: other bits than alone"
    assert len(first) == len(wanted), f"{op}: {len(first)} rounds were computed, {len(wanted)} can be"


DECODER = """<ir_version: 10, opset_import: ["" : 23]>
g (int64 n, float[1, s, 8] start, float[a, b] w) => (float[1, t, 8] keys, float[n, 1, 1, 8] rows) {
    keys, rows = Loop(n, , start) <
        body = b (int64 i, bool c, float[1, s1, 8] k) => (bool d, float[1, s2, 8] k2, float[1, 1, 8] row) {
            d = Identity(c)
            last = Constant<value_ints = [-1]>()
            end = Constant<value_ints = [1000000]>()
            axis = Constant<value_ints = [1]>()
            q = Slice(k, last, end, axis)
            turned = Transpose<perm = [0, 2, 1]>(k)
            scores = MatMul(q, turned)
            part = Softmax<axis = -1>(scores)
            mixed = MatMul(part, k)
            row = MatMul(mixed, w)
            k2 = Concat<axis = 1>(k, row)
        }
    >
}"""


def test_a_loop_that_grows() -> None:
    """The same bits on the first run and later, for other sizes in between, and for any number of threads;
    sizes that were met need no new plans.
    """
    model = onnx.parser.parse_model(DECODER)
    feeds = {"n": np.array(30), "start": numbers(1, 2, 8), "w": numbers(8, 8) / 4}
    session = InferenceSession(model.SerializeToString())
    first = session.run(None, feeds)
    session.run(None, feeds | {"start": numbers(1, 13, 8)})
    with patch.object(Planner, "plan", side_effect=AssertionError("a plan for sizes that were met")):
        second = session.run(None, feeds)
    with patch.object(loose_plans, "MOST_PLAN_BYTES", 1 << 13):
        options = SessionOptions()
        options.intra_op_num_threads = 3
        third = InferenceSession(model.SerializeToString(), options).run(None, feeds)
    for a, b, c in zip(first, second, third, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes() == np.asarray(c).tobytes()
    keys = feeds["start"]
    for row in np.asarray(first[1]):
        scores = keys[:, -1:].astype("float64") @ keys.transpose(0, 2, 1)
        part = np.exp(scores - scores.max())
        want = part / part.sum() @ keys @ feeds["w"]
        np.testing.assert_allclose(row, want, rtol=0, atol=1e-5 * np.abs(want).max())
        keys = np.concatenate([keys, row], 1)


def test_an_error_in_a_round_is_said() -> None:
    """What shapes do not allow is said as by plans."""
    model = onnx.parser.parse_model(DECODER)
    session = InferenceSession(model.SerializeToString())
    with pytest.raises(IngotError, match="MatMul"):
        session.run(None, {"n": np.array(3), "start": numbers(1, 2, 8), "w": numbers(7, 8)})
