"""Lists that a loop collects become rows that it puts out, where they are joined and nothing else."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

import ingot
from ingot.ops.sequence import joined_rows
from ingot.passes.lists import stack_lists

X = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)

#: Two lists, one before what is carried beside them and one after it, and rows.
TEXT = """<ir_version: 10, opset_import: ["" : 20]>
g (float[2, 3] x, int64 n) => (OUTPUTS) <float half = {0.5}, int64[1] ends = {1}, int64[1] axis = {1}> {
    start = SequenceEmpty()
    other = SequenceEmpty()
    left, last, right, rows = Loop(n, , start, x, other) <
        body = b (int64 i, bool c, seq(float[2, 3]) kept, float[2, 3] u, seq(float[2, 3]) more)
            => (bool d, seq(float[2, 3]) grown, float[2, 3] v, seq(float[2, 3]) all, float[2, 3] row) {
            d = Identity(c)
            v = Mul(u, half)
            grown = SequenceInsert(kept, v)
            minus = Neg(u)
            all = SequenceInsert(more, minus)
            row = Identity(u)
        }
    >
    JOINS
}"""
OUTPUTS = "float[2, 3] last, float[a, b, c] y, float[d, e] z, float[k, 2, 3] rows"
JOINS = """y = ConcatFromSequence<axis = AXIS, new_axis = 1>(left)
    z = ConcatFromSequence<axis = -1>(right)"""


def model(outputs: str = OUTPUTS, joins: str = JOINS, axis: int = 0) -> onnx.ModelProto:
    text = TEXT.replace("OUTPUTS", outputs).replace("JOINS", joins).replace("AXIS", str(axis))
    return onnx.parser.parse_model(text)


def stacked(proto: onnx.ModelProto) -> int:
    made = ir.from_proto(proto)
    count = stack_lists(made)
    left = [node.op_type for graph in (made.graph, *made.graph.subgraphs()) for node in graph]
    assert ("SequenceInsert" in left) == (count < 2)
    return count


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_rows_are_what_the_lists_were(axis: int) -> None:
    proto = model(axis=axis)
    assert stacked(proto) == 2
    session = ingot.InferenceSession(proto)
    for n in (3, 1, 5, 3):
        last, y, z, rows = session.run(None, {"x": X, "n": np.array(n)})
        us = [X * np.float32(0.5**i) for i in range(n + 1)]
        np.testing.assert_array_equal(last, us[n])
        np.testing.assert_array_equal(y, np.stack(us[1:], axis))
        np.testing.assert_array_equal(z, -np.concatenate(us[:n], -1))
        np.testing.assert_array_equal(rows, np.stack(us[:n]))


def test_an_empty_list_is_refused_as_before() -> None:
    session = ingot.InferenceSession(model())
    for n in (0, 2, 0):
        if n:
            session.run(None, {"x": X, "n": np.array(n)})
            continue
        with pytest.raises(ingot.errors.InputError, match=r"ConcatFromSequence.*the sequence is empty"):
            session.run(None, {"x": X, "n": np.array(n)})


def test_lists_that_others_read_stay() -> None:
    both = "y = ConcatFromSequence<axis = 0, new_axis = 1>(left)\n"
    for joins, outputs in (
        (both + "z = SequenceLength(right)", "float[a, b, c] y, int64 z"),
        (both + "at = SequenceLength(left)\nz = SequenceAt(right, at)", "float[a, b, c] y, float[2, 3] z"),
        (both + "z = Identity(right)", "float[a, b, c] y, seq(float[2, 3]) z"),
    ):
        assert stacked(model(outputs, joins)) < 2


def test_tensors_that_may_differ_in_size_stay_in_a_list() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
    g (float[n, 2] x, int64 n) => (float[m, 2] y) <int64[1] zero = {0}, int64[1] one = {1}> {
        start = SequenceEmpty()
        all = Loop(n, , start) <
            body = b (int64 i, bool c, seq(float[k, 2]) kept) => (bool d, seq(float[l, 2]) grown) {
                d = Identity(c)
                end = Add(i, one)
                part = Slice(x, zero, end)
                grown = SequenceInsert(kept, part)
            }
        >
        y = ConcatFromSequence<axis = 0>(all)
    }"""
    proto = onnx.parser.parse_model(text)
    assert stack_lists(ir.from_proto(proto)) == 0
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    (y,) = ingot.InferenceSession(proto).run(None, {"x": x, "n": np.array(4)})
    np.testing.assert_array_equal(y, np.concatenate([x[: i + 1] for i in range(4)]))


def test_a_list_that_is_not_empty_at_first_stays() -> None:
    text = TEXT.replace("start = SequenceEmpty()", "start = SequenceConstruct(x)")
    text = text.replace("OUTPUTS", "float[a, b, c] y").replace(
        "JOINS", "y = ConcatFromSequence<axis = 0, new_axis = 1>(left)"
    )
    proto = onnx.parser.parse_model(text)
    assert stack_lists(ir.from_proto(proto)) == 0
    (y,) = ingot.InferenceSession(proto).run(None, {"x": X, "n": np.array(2)})
    np.testing.assert_array_equal(y, [X, X * 0.5, X * 0.25])


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 2), (2, 0, 3)])
def test_rows_without_elements_are_joined(shape: tuple[int, ...]) -> None:
    rows = np.zeros((3, *shape), np.float32)
    for axis in range(len(shape)):
        (joined,) = joined_rows(rows, False, axis)
        assert joined.shape == np.concatenate(list(rows), axis).shape


def test_a_list_that_is_joined_where_it_is_not_empty() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
    g (float[2] x, int64 n) => (float[m, 2] y) <int64 zero = {0}, int64[2] one = {1, 2}> {
        start = SequenceEmpty()
        all = Loop(n, , start) <
            body = b (int64 i, bool c, seq(float[2]) kept) => (bool d, seq(float[2]) grown) {
                d = Identity(c)
                f = Cast<to = 1>(i)
                row = Add(x, f)
                grown = SequenceInsert(kept, row)
            }
        >
        any = Greater(n, zero)
        y = If(any) <
            then_branch = t () => (float[m, 2] a) { a = ConcatFromSequence<axis = 0, new_axis = 1>(all) },
            else_branch = e () => (float[1, 2] b) { b = Reshape(x, one) }
        >
    }"""
    session = ingot.InferenceSession(onnx.parser.parse_model(text))
    x = np.array([1, -1], np.float32)
    for n in (2, 0, 3, 0, 1):
        (y,) = session.run(None, {"x": x, "n": np.array(n)})
        np.testing.assert_array_equal(y, [x + i for i in range(n)] if n else [x], err_msg=str(n))
