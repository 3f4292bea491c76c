"""Whole graphs through the session: what is fused, what moves nothing, and that the numbers are
onnxruntime's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

import ingot
from ingot.compiler.plan import Plan
from ingot.ops import registry
from ingot.ops.lowering import Lowering, Steps
from ingot.ops.registry import Array, Facts, Op, add, attr_str, first_input, need, present

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'


def session_of(text: str, threads: int = 2) -> tuple[ingot.InferenceSession, onnx.ModelProto]:
    """A session on a graph in ONNX's text format."""
    model = onnx.parser.parse_model(HEADER + text)
    options = ingot.SessionOptions()
    options.intra_op_num_threads = threads
    return ingot.InferenceSession(model, options), model


def check(text: str, *feeds: dict[str, np.ndarray]) -> ingot.InferenceSession:
    """Equal to onnxruntime on every feed, of different shapes maybe; twice, since memory is used again."""
    session, model = session_of(text)
    peer = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for feed in (*feeds, *feeds):
        for given, wanted, arg in zip(
            session.run(None, feed), peer.run(None, feed), peer.get_outputs(), strict=True
        ):
            assert given.dtype == wanted.dtype, arg.name
            assert given.shape == wanted.shape, arg.name
            np.testing.assert_allclose(given, wanted, rtol=2e-5, atol=2e-5, err_msg=arg.name)
    return session


def plan_of(session: ingot.InferenceSession) -> Plan:
    """The plan of the session's only stage and shape."""
    (stage,) = session._driver._stages.values()
    return stage.plan


def kernels(session: ingot.InferenceSession) -> list[str]:
    """The generators of a plan's calls, in order."""
    return [generator.rpartition(".")[2] for generator, *_ in plan_of(session).told]


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_elementwise_nodes_become_one_kernel() -> None:
    session = check(
        """g (float[n, 8] x, float[8] b) => (float[n, 8] y) {
            s = Sigmoid(x)
            m = Mul(x, s)
            a = Add(m, b)
            y = Relu(a)
        }""",
        {"x": floats(5, 8), "b": floats(8)},
        {"x": floats(1, 8), "b": floats(8)},
        {"x": floats(0, 8), "b": floats(8)},
    )
    assert all(len(stage.plan.told) == 1 for stage in session._driver._stages.values())


def test_what_follows_a_product_is_its_epilogue() -> None:
    session = check(
        """g (float[n, 16] x, float[16, 24] w, float[24] b, float[n, 24] r) => (float[n, 24] y) {
            p = MatMul(x, w)
            q = Add(p, b)
            t = Tanh(q)
            y = Add(t, r)
        }""",
        {"x": floats(7, 16), "w": floats(16, 24), "b": floats(24), "r": floats(7, 24)},
    )
    assert len(kernels(session)) == 2  # packing the runtime weights, and the product


@pytest.mark.parametrize(("rows", "width", "spread"), [(20, 1024, True), (20, 1000, False), (3, 1024, False)])
def test_rows_that_meet_in_the_cache_are_spread(rows: int, width: int, spread: bool) -> None:
    """A product reads many rows side by side: rows of whole pages lie a cache line further apart."""
    session = check(
        f"""g (float[2, n, 8] x, float[8, {width}] w, float[{width}, 16] v)
          => (float[2, n, 16] y, float[2, n, k] z) {{
            p = MatMul(x, w)
            r = Relu(p)
            y = MatMul(r, v)
            u = ReduceMax <keepdims = 1> (r)
            z = Div(r, u)
        }}""",
        {"x": floats(2, rows, 8), "w": floats(8, width, seed=1), "v": floats(width, 16, seed=2)},
    )
    plan = plan_of(session)
    first = next(row for row in map(plan.row, range(len(plan.told))) if row.label == "matmul")
    _, shape, inner, *_ = first.views[-1]  # what it writes
    assert shape == (2, rows, width)
    assert inner == ((rows * (width + 16), width + 16, 1) if spread else (rows * width, width, 1))


def test_a_value_with_two_readers_is_stored_once() -> None:
    check(
        """g (float[n, 6] x) => (float[n, 6] y, float[6, n] z, float[n, 6] e) {
            e = Exp(x)
            y = Add(e, x)
            z = Transpose<perm=[1, 0]>(e)
        }""",
        {"x": floats(3, 6)},
    )


def test_concat_is_written_in_place() -> None:
    session = check(
        """g (float[n, 3, 4] x, float[n, 5, 4] y) => (float[n, 16, 4] out) {
            a = Relu(x)
            b = Neg(y)
            c = Exp(y)
            j = Concat<axis=1>(a, b, c, a)
            out = Neg(j)
        }""",
        {"x": floats(2, 3, 4), "y": floats(2, 5, 4)},
    )
    assert (
        len(kernels(session)) == 5
    )  # Relu, Neg, Exp into their parts, a copy for the second `a`, the last Neg


def test_a_concat_inside_a_concat_and_as_an_output() -> None:
    check(
        """g (float[n, 3] x, float[n, 2] y) => (float[n, 5] inner, float[n, 8] outer, float[n, 3] r) {
            r = Relu(x)
            inner = Concat<axis=1>(r, y)
            outer = Concat<axis=1>(inner, r)
        }""",
        {"x": floats(4, 3), "y": floats(4, 2)},
    )


def test_views_move_nothing() -> None:
    session = check(
        """g (float[b, 6, 8] x) => (float y) {
            shape = Constant<value_ints=[0, 3, 2, 8]>()
            r = Reshape(x, shape)
            t = Transpose<perm=[0, 2, 3, 1]>(r)
            starts = Constant<value_ints=[1]>()
            ends = Constant<value_ints=[-1]>()
            axes = Constant<value_ints=[2]>()
            s = Slice(t, starts, ends, axes)
            y = Neg(s)
        }""",
        {"x": floats(2, 6, 8)},
    )
    assert len(kernels(session)) == 1


def test_a_reshape_of_a_transposed_value_copies() -> None:
    check(
        """g (float[a, b, c] x) => (float[a, m] y, float[k] z) {
            t = Transpose<perm=[0, 2, 1]>(x)
            flat = Constant<value_ints=[0, -1]>()
            y = Reshape(t, flat)
            all = Constant<value_ints=[-1]>()
            u = Transpose<perm=[2, 0, 1]>(x)
            z = Reshape(u, all)
        }""",
        {"x": floats(2, 3, 4)},
        {"x": floats(3, 1, 5)},
    )


def test_outputs_that_need_no_kernel() -> None:
    """An input, a constant, the same value twice, a view."""
    check(
        """g (float[a, b] x) => (float[a, b] same, float[2] k, float[b, a] t, float[b, a] u, int64[2] s) {
            same = Identity(x)
            k = Constant<value_floats=[1.5, 2.5]>()
            t = Transpose<perm=[1, 0]>(x)
            u = Identity(t)
            s = Shape(x)
        }""",
        {"x": floats(2, 3)},
        {"x": floats(0, 3)},
    )


def test_shape_arithmetic_is_known_while_planning() -> None:
    session = check(
        """g (float[b, n, 12] x) => (float y) {
            s = Shape(x)
            zero = Constant<value_int=0>()
            one = Constant<value_int=1>()
            b = Gather(s, zero)
            n = Gather(s, one)
            at = Constant<value_ints=[0]>()
            b1 = Unsqueeze(b, at)
            n1 = Unsqueeze(n, at)
            heads = Constant<value_ints=[3, 4]>()
            shape = Concat<axis=0>(b1, n1, heads)
            r = Reshape(x, shape)
            y = Transpose<perm=[0, 2, 1, 3]>(r)
        }""",
        {"x": floats(2, 5, 12)},
        {"x": floats(1, 1, 12)},
    )
    for stage in session._driver._stages.values():
        assert [label for _, label, *_ in stage.plan.told if "Gather" in label] == []
        assert len(stage.plan.told) == 1


def test_the_graph_goes_on_after_a_shape_that_depends_on_data() -> None:
    session = check(
        """g (float[n, 4] x, float[4, 3] w) => (float[m, 3] y, int64 count) {
            row = Constant<value_ints=[1]>()
            sums = ReduceSum<keepdims=0>(x, row)
            zero = Constant<value_float=0.0>()
            positive = Greater(sums, zero)
            where = NonZero(positive)
            flat = Constant<value_ints=[-1]>()
            rows = Reshape(where, flat)
            kept = Gather(x, rows)
            product = MatMul(kept, w)
            y = Relu(product)
            count = Size(rows)
        }""",
        {"x": floats(9, 4), "w": floats(4, 3)},
        {"x": floats(9, 4, seed=1), "w": floats(4, 3)},
        {"x": -np.abs(floats(3, 4)), "w": floats(4, 3)},
    )
    kinds = {p.op_type: p.kind for p in session.profile({"x": floats(9, 4), "w": floats(4, 3)}, rounds=1)}
    assert kinds["NonZero"] == "native"
    assert kinds["MatMul"] == "native"


def test_if_and_loop_run_their_bodies_as_graphs() -> None:
    check(
        """g (float[n] x, bool flag, int64 times) => (float[m] y, float[n] z) {
            y = If(flag) <
                then_branch = t () => (float[k] a) { a = Relu(x) },
                else_branch = e () => (float[k2] b) { b = Concat<axis=0>(x, x) }
            >
            yes = Constant<value = bool {1}>()
            z = Loop(times, yes, x) <
                body = l (int64 i, bool c, float[n] v) => (bool c2, float[n] w) {
                    c2 = Identity(c)
                    d = Add(v, x)
                    half = Constant<value_float=0.5>()
                    w = Mul(d, half)
                }
            >
        }""",
        {"x": floats(4), "flag": np.array(True), "times": np.array(3)},
        {"x": floats(4), "flag": np.array(False), "times": np.array(0)},
    )


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_results_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    text = """g (float[n, 64] x, float[64, 300] w, float[300] b) => (float[n, 300] y, float[n, 1] m) {
        p = MatMul(x, w)
        q = Add(p, b)
        y = Softmax<axis=-1>(q)
        m = ReduceMean<keepdims=1>(q)
    }"""
    text = text.replace("ReduceMean<keepdims=1>(q)", "ReduceMean<keepdims=1>(q, axis)").replace(
        "p = MatMul", "axis = Constant<value_ints=[1]>()\n p = MatMul"
    )
    feed = {"x": floats(77, 64), "w": floats(64, 300), "b": floats(300)}
    alone = session_of(text, 1)[0].run(None, feed)
    shared = session_of(text, threads)[0].run(None, feed)
    for a, b in zip(alone, shared, strict=True):
        assert np.array_equal(a, b), f"{threads} threads give other bits than one"


def test_a_row_masked_whole_stays_nan() -> None:
    """What a plain softmax gives, also where the nodes became one streaming kernel; and 0 where the graph
    guards it.
    """
    text = """g (float[1, 2, 3, 8] q, float[1, 2, 5, 8] k, float[1, 2, 5, 8] v, float[3, 5] m)
            => (float[1, 2, 3, 8] y) {
        t = Transpose<perm=[0, 1, 3, 2]>(k)
        s = MatMul(q, t)
        a = Add(s, m)
        w = Softmax<axis=-1>(a)
        GUARD
        y = MatMul(p, v)
    }"""
    mask = np.zeros((3, 5), np.float32)
    mask[1] = -np.inf
    mask[2, 1:] = -np.inf
    feed = {"q": floats(1, 2, 3, 8), "k": floats(1, 2, 5, 8), "v": floats(1, 2, 5, 8), "m": mask}
    session = check(text.replace("GUARD", "p = Identity(w)"), feed)
    assert any(name.startswith("attend") for name in kernels(session))
    guard = "n = IsNaN(w)\n zero = Constant<value_float=0.0>()\n p = Where(n, zero, w)"
    check(text.replace("GUARD", guard), feed)


def test_one_value_in_several_places_of_a_node() -> None:
    """Scale and bias of a normalisation, or all its inputs; both factors of a product and what is added."""
    check(
        """g (float[n, 4] x, float[4] s, float[4, 4] z) => (float[n, 4] y, float[4] whole, float[4, 4] g) {
            y = LayerNormalization(x, s, s)
            a = Relu(s)
            whole = LayerNormalization<axis=0>(a, a, a)
            b = Relu(z)
            g = Gemm(b, b, b)
        }""",
        {"x": floats(3, 4), "s": floats(4, seed=1), "z": floats(4, 4, seed=2)},
    )


def test_a_product_of_two_vectors_is_a_number() -> None:
    check(
        """g (float[n] x, float[n] z) => (float y, float r) {
            d = MatMul(x, z)
            y = Transpose(d)
            e = MatMul(z, z)
            r = Relu(e)
        }""",
        {"x": floats(5), "z": floats(5, seed=1)},
    )


@pytest.mark.parametrize("step", [-2, -1, 1, 2])
def test_slices_beyond_the_ends(step: int) -> None:
    """A start below the dimension is its first element, for a negative step too: not as in Python."""
    check(
        """g (float[n] x, int64[1] start, int64[1] end, int64[1] axis, int64[1] step) => (float[m] y) {
            y = Slice(x, start, end, axis, step)
        }""",
        *[
            {"x": floats(n), **{k: np.array([v]) for k, v in bounds.items()}}
            for n in (0, 3)
            for start in (-9, -4, -3, 0, 2, 3, 7)
            for end in (-9, -4, -3, -1, 0, 3, 8)
            for bounds in [{"start": start, "end": end, "axis": 0, "step": step}]
        ],
    )


def test_attention_broadcasts_like_the_products_it_is_made_of() -> None:
    """One batch of keys or of queries for all; the sizes are not known when the pattern is found."""
    text = """g (float[a, 2, n, 8] q, float[b, 2, m, 8] k, float[c, 2, m, 8] v, float[e, f, h, m] mask)
            => (float[o, 2, n, 8] y) {
        t = Transpose<perm=[0, 1, 3, 2]>(k)
        s = MatMul(q, t)
        biased = Add(s, mask)
        w = Softmax<axis=-1>(biased)
        y = MatMul(w, v)
    }"""
    feeds = [
        {"q": floats(a, 2, n, 8), "k": floats(b, 2, 5, 8), "v": floats(c, 2, 5, 8), "mask": floats(*mask, 5)}
        for a, b, c, n, mask in [
            (2, 2, 2, 3, (1, 1, 1)),
            (1, 3, 3, 3, (1, 1, 3)),
            (3, 1, 3, 9, (1, 2, 1)),
            (3, 1, 1, 1, (3, 1, 1)),
            (1, 1, 1, 3, (2, 2, 3)),
            (1, 1, 1, 1, (2, 2, 4)),
        ]
    ]
    session = check(text, *feeds)
    for stage in session._driver._stages.values():
        assert any("attend" in generator for generator, *_ in stage.plan.told)


class _Pair(Op):
    """exp(x²) and x² + 1, the square being a step of the same node."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None]:
        x = need(node, inputs, 0)
        return [x, x]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        del node
        square = present(inputs, 0) ** 2
        return [np.exp(square), square + 1]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        x, (first, second) = first_input(node), node.outputs
        steps = Steps(plan, plan.facts(x).shape)
        square = steps("Mul", x, x)
        if attr_str(node, "way", "") == "early":  # one is computed before anybody has heard of the other
            raised = steps.stored(steps("Exp", square))
            steps("Identity", raised, into=first)
        else:
            steps("Exp", square, into=first)
        steps("Add", square, 1.0, into=second)
        return True


@pytest.fixture
def pair() -> Iterator[None]:
    add(_Pair, "Pair", 1, "test.lowering")
    yield
    del registry._table["test.lowering", "Pair"]


@pytest.mark.parametrize("way", ["late", "early"])
@pytest.mark.parametrize("source", ["Relu(x)", "MatMul(x, w)"])
@pytest.mark.parametrize("last", ["first = Sigmoid(a) second = Neg(b)", "first = Add(a, b) second = Neg(b)"])
@pytest.mark.usefixtures("pair")
def test_two_steps_of_a_node_read_one_that_waits(way: str, source: str, last: str) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 20, "test.lowering" : 1]>
        g (float[n, 8] x, float[8, 8] w) => (float[n, 8] first, float[n, 8] second) {{
            s = {source}
            a, b = test.lowering.Pair <way: string = "{way}"> (s)
            {last}
        }}"""
    session = ingot.InferenceSession(onnx.parser.parse_model(text))
    x, w = floats(5, 8), floats(8, 8, seed=1) / 8
    first, second = session.run(None, {"x": x, "w": w})
    square = (np.maximum(x, 0) if "Relu" in source else x @ w) ** 2
    a, b = np.exp(square), square + 1
    np.testing.assert_allclose(first, a + b if "Add" in last else 1 / (1 + np.exp(-a)), rtol=1e-5)
    np.testing.assert_allclose(second, -b, rtol=1e-5)
