"""Folding, cleaning and the two pipelines: the same function, the same interface, smaller."""

from __future__ import annotations

import tracemalloc
from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingot
from ingot.errors import ModelError
from ingot.ops.interpreter import interpret
from ingot.optimize import optimize
from ingot.passes import clean, fold
from ingot.passes.dims import Dims
from ingot.passes.opset import NEWEST
from ingot.passes.pipeline import optimise, prepare, run
from tests.passes.graphs import keeps_function, ops, parse, with_weights

RNG = np.random.default_rng(3)


def f32(*sizes: int) -> np.ndarray:
    return RNG.standard_normal(sizes).astype(np.float32)


# ---- folding --------------------------------------------------------------------------------------------


def test_constants_fold() -> None:
    model = parse("""g (float[N, 4] x) => (float[N, 4] y) {
        a = Constant <value = float[4] {1, 2, 3, 4}> () b = Neg (a) c = Mul (b, a) y = Add (x, c) }""")
    assert keeps_function(model, fold.fold, [{"x": f32(3, 4)}]) == 2
    assert ops(model) == ["Add"]


def test_shapes_that_are_numbers_fold() -> None:
    model = parse("""g (float[N, 4, 6] x) => (float[N, 24] y) {
        s = Shape (x) i = Constant <value = int64[1] {1}> () j = Constant <value = int64 {2}> ()
        one = Gather (s, i) two = Gather (s, j) k = Constant <value = int64[1] {0}> () u = Unsqueeze (two, k)
        m = Mul (one, u) z = Constant <value = int64[1] {-1}> () t = Concat <axis = 0> (z, m) y =
            Reshape (x, t) }""")
    keeps_function(model, fold.fold, [{"x": f32(3, 4, 6)}, {"x": f32(0, 4, 6)}])
    assert ops(model) == ["Reshape"]


@pytest.mark.parametrize(("to", "kind"), [(1, np.float32), (6, np.int32), (7, np.int64)])
def test_sizes_in_another_dtype_keep_it(to: int, kind: type) -> None:
    """Where the graph declares no dtype, a size that is a number is one of the dtype it was cast to."""
    model = parse(f"""g (float[3, n] x) => (size, none, half) {{
        shape = Shape(x)
        cast = Cast<to = {to}>(shape)
        first = Constant<value_ints = [0]>()
        size = Gather<axis = 0>(cast, first)
        end = Constant<value_ints = [9]>()
        none = Slice(cast, end, end, first)
        two = Constant<value_ints = [2]>()
        like = CastLike(two, cast)
        half = Div(size, like)
    }}""")
    session = ingot.InferenceSession(ir.to_proto(model))
    outputs = session.run(None, {"x": np.zeros((3, 5), np.float32)})
    for got, want in zip(outputs, ([3], [], [3 / 2 if to == 1 else 1]), strict=True):
        assert got.dtype == kind
        assert got.tolist() == want


def test_links_of_a_chain_become_no_initializers() -> None:
    model = parse("""g (float[N, 2] x) => (float[N, 2] y, float[N, 2] z) {
        a = Constant <value = float[4] {1, 2, 3, 4}> () b = Neg (a)
        p, q = Split <axis = 0, num_outputs = 2> (b) c = Exp (p) d = Mul (c, q)
        e = Sub (d, q) y = Add (x, e) z = Mul (x, q) }""")
    assert keeps_function(model, fold.fold, [{"x": f32(3, 2)}]) == 5
    assert ops(model) == ["Add", "Mul"]
    # Of what was computed: what is read by others, and all of a node of which something is.
    assert {name.split("#")[0] for name in model.graph.initializers} - {"a"} == {"e", "p", "q"}


def test_links_of_a_chain_are_let_go_of() -> None:
    """Each as soon as the next is there: else there would be a copy of each weight for each link."""
    chains, size = 8, 1 << 20
    body = "\n".join(
        f"a{i} = Neg (w{i}) b{i} = Exp (a{i}) c{i} = Neg (b{i}) d{i} = Abs (c{i}) "
        f"{'y' if i == chains - 1 else f'x{i + 1}'} = Add (x{i}, d{i})"
        for i in range(chains)
    )
    given = ", ".join(f"float[{size}] {name}" for name in ("x0", *(f"w{i}" for i in range(chains))))
    model = parse(f"g ({given}) => (float[{size}] y) {{ {body} }}")
    model = with_weights(model, **{f"w{i}": f32(size) for i in range(chains)})
    tracemalloc.start()
    try:
        fold.fold(model, fold.SESSION_LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ops(model) == ["Add"] * chains
    assert peak < 4 * size * (chains + 3)  # the results, and two links of one chain


def test_a_link_that_is_read_again_later_is_kept() -> None:
    """By a node that is folded, by one that is not, and by one that is refused."""
    model = parse("""g (float[300, 300] x, float[300, 300] w)
        => (float[300, 300] y, float[300, 300] z, float[1200, 300] v) {
        a = Neg (w) b = Exp (a) c = Mul (b, a) s = Constant <value = int64[2] {4, 1}> ()
        y = Add (x, c) z = Add (x, b) v = Tile (a, s) }""")
    model = with_weights(model, w=f32(300, 300))
    assert keeps_function(model, partial(fold.fold, limit=1 << 19), [{"x": f32(300, 300)}]) == 3
    assert ops(model) == ["Add", "Add", "Tile"]


def test_what_a_refused_node_reads_is_folded() -> None:
    model = parse("""g (float[300, 300] x) => (float[300, 300] y) {
        a = Constant <value = float {2}> () s = Constant <value = int64[2] {300, 300}> () b = Neg (a)
        c = Exp (b) d = Expand (c, s) y = Add (x, d) }""")
    assert keeps_function(model, fold.fold, [{"x": f32(300, 300)}]) == 2
    assert ops(model) == ["Expand", "Add"]


def test_symbolic_shapes_stay() -> None:
    model = parse("g (float[N, 4] x) => (int64[2] s) { s = Shape (x) }")
    assert fold.fold(model) == 0


def test_random_numbers_and_quantised_weights_are_never_folded() -> None:
    model = parse("""g (float[4] x) => (float[4] y, float[2] z) {
        s = Constant <value = float {1}> () q = Constant <value = int8[2] {1, 2}> ()
        a = RandomNormalLike (s) y = Add (x, a) z = DequantizeLinear (q, s) }""")
    assert fold.fold(model) == 0


def test_large_results_stay_nodes_in_a_file() -> None:
    text = """g (float[1000, 1000] x) => (float[1000, 1000] y) {
        s = Constant <value = int64[2] {1000, 1000}> () c = ConstantOfShape (s) y = Add (x, c) }"""
    assert fold.fold(parse(text)) == 0
    assert fold.fold(parse(text), fold.SESSION_LIMIT) == 1


def test_an_invalid_node_is_left_for_the_run_to_report() -> None:
    model = parse("""g (float[N] x) => (float[M] y, float[N] z) {
        a = Constant <value = float[2] {1, 2}> () b = Constant <value = float[3] {1, 2, 3}> ()
        y = Add (a, b) z = Neg (x) }""")
    assert fold.fold(model) == 0


def test_inside_branches() -> None:
    model = parse("""g (bool c, float[4] x) => (float[4] y) {
        y = If (c) <then_branch = a () => (float[4] t) {
                        k = Constant <value = float {2}> () l = Neg (k) m = Neg (l) t = Mul (x, m) },
                    else_branch = b () => (float[4] e) { o = Constant <value = float {1}> () e = Mul
                        (x, o) }> }""")
    feeds = [{"c": np.array(flag), "x": f32(4)} for flag in (True, False)]
    keeps_function(model, lambda m: prepare(m), feeds)
    assert sum(len(graph) for graph in model.graphs()) == 3


# ---- cleaning -------------------------------------------------------------------------------------------


def test_equal_nodes_merge() -> None:
    model = parse("""g (float[N] x) => (float[N] y, float[N] z) {
        a = Exp (x) b = Exp (x) c = Elu <alpha = 2.0> (a) d = Elu <alpha = 2.0> (b) e = Elu (b)
        y = Add (c, d) z = Add (e, c) }""")
    assert keeps_function(model, clean.merge_equal_nodes, [{"x": f32(3)}]) == 2


def test_nodes_with_zeros_of_either_sign_do_not_merge() -> None:
    model = parse("""g (float[N] x) => (float[N] y) {
        a = LeakyRelu <alpha = 0.0> (x) b = LeakyRelu <alpha = 0.0> (x) c = LeakyRelu <alpha = 0.0> (x)
        d = Sub (a, b) e = Reciprocal (c) y = Add (d, e) }""")
    model.graph[2].attributes["alpha"] = ir.AttrFloat32("alpha", -0.0)
    assert keeps_function(model, clean.merge_equal_nodes, [{"x": -np.ones(3, np.float32)}]) == 1


def test_random_nodes_do_not_merge() -> None:
    model = parse("""g (float[N] x) => (float[N] y) {
        a = RandomNormalLike (x) b = RandomNormalLike (x) y = Sub (a, b) }""")
    assert clean.merge_equal_nodes(model) == 0


def test_dead_nodes_and_initializers_go() -> None:
    model = parse("""g (float[N] x) => (float[N] y) {
        k = Constant <value = float {2}> () a = Mul (x, k) b = Neg (a) y = Abs (x) }""")
    assert keeps_function(model, clean.remove_dead, [{"x": f32(3)}]) == 2
    assert clean.remove_unused_initializers(model) == 1
    assert not model.graph.initializers


def test_equal_initializers_merge() -> None:
    model = parse("""g (float[3] x) => (float[3] y) {
        a = Constant <value = float[3] {1, 2, 3}> () b = Constant <value = float[3] {1, 2, 3}> ()
        c = Constant <value = int32[3] {1, 2, 3}> () d = Cast <to = 1> (c) t = Add (x, a) u = Add (t,
            b) y = Add (u, d) }""")
    assert keeps_function(model, clean.merge_initializers, [{"x": f32(3)}]) == 1


def test_large_equal_initializers_merge() -> None:
    """One tensor twice in a file is packed once; one element makes two of them."""
    model = parse("""g (float[2, 600] x, float[600, 600] a, float[600, 600] b,
        float[600, 600] c) => (float[2, 600] y) { t = MatMul (x, a) u = MatMul (t, b) y = MatMul (u, c) }""")
    a = f32(600, 600)
    other = a.copy()
    other[300, 301] += 1
    model = with_weights(model, a=a, b=a.copy(), c=other)
    assert keeps_function(model, clean.merge_initializers, [{"x": f32(2, 600)}]) == 1
    first, second, third = (node.inputs[1] for node in model.graph)
    assert first is second
    assert first is not third


def test_a_weight_under_several_names_stays_one() -> None:
    """Exporters write Identity where layers share a weight."""
    model = parse("""g (float[2, 600] x, float[600, 600] a) => (float[2, 600] y) {
        b = Identity (a) c = Identity (b) t = MatMul (x, a) u = MatMul (t, b) y = MatMul (u, c) }""")
    model = with_weights(model, a=f32(600, 600))
    assert keeps_function(model, fold.fold, [{"x": f32(2, 600)}]) == 2
    assert {node.inputs[1] for node in model.graph} == {model.graph.initializers["a"]}


def test_an_initializer_that_is_an_input_is_not_a_constant() -> None:
    model = with_weights(
        parse("g (float[3] x, float[3] w) => (float[3] y) { t = Neg (w) y = Add (x, t) }"), w=f32(3)
    )
    model.graph.inputs.append(model.graph.initializers["w"])
    optimise(model)
    assert ops(model) == ["Neg", "Add"]


# ---- pipelines ------------------------------------------------------------------------------------------


def encoder(opset: int) -> ir.Model:
    """A block of a transformer, as exporters spell it."""
    model = parse(
        """g (float[B, L, 8] x, float[B, 1, 1, L] m, float[8, 8] wq, float[8, 8] wk, float[8, 8] wv,
            float[8] bq,
            float[8] s, float[8] b) => (float[B, L, 8] y) {
        shape = Constant <value = int64[4] {0, 0, 2, 4}> () flat = Constant <value = int64[3] {0, 0, 8}> ()
        c = Constant <value = float {0.5}> () one = Constant <value = float {1}> ()
        axes = Constant <value = int64[1] {-1}> () eps = Constant <value = float {1e-5}> ()
        root = Constant <value = float {1.41421356}> ()
        q0 = MatMul (x, wq) q1 = Add (q0, bq) q2 = Reshape (q1, shape) q = Transpose <perm = [0, 2, 1,
            3]> (q2)
        k0 = MatMul (x, wk) k2 = Reshape (k0, shape) k1 = Transpose <perm = [0, 2, 1, 3]> (k2)
        k = Transpose <perm = [0, 1, 3, 2]> (k1)
        v0 = MatMul (x, wv) v2 = Reshape (v0, shape) v = Transpose <perm = [0, 2, 1, 3]> (v2)
        t = MatMul (q, k) u = Mul (t, c) a = Add (u, m) p = Softmax <axis = 3> (a) o = MatMul (p, v)
        o1 = Transpose <perm = [0, 2, 1, 3]> (o) o2 = Reshape (o1, flat) h = Add (x, o2)
        mean = ReduceMean (h, axes) d = Sub (h, mean) d2 = Mul (d, d) var = ReduceMean (d2, axes)
        ve = Add (var, eps) sd = Sqrt (ve) n = Div (d, sd) n1 = Mul (n, s) n2 = Add (n1, b)
        g1 = Div (n2, root) g2 = Erf (g1) g3 = Add (g2, one) g4 = Mul (n2, g3) y = Mul (g4, c) }""",
        opset,
    )
    return with_weights(model, wq=f32(8, 8), wk=f32(8, 8), wv=f32(8, 8), bq=f32(8), s=f32(8), b=f32(8))


def encoder_feeds() -> list[dict[str, np.ndarray]]:
    return [{"x": f32(b, n, 8), "m": f32(b, 1, 1, n)} for b, n in ((2, 5), (1, 1), (3, 7))]


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_a_file_keeps_its_opset(opset: int) -> None:
    model = encoder(opset)
    keeps_function(model, lambda m: optimise(m, debug=True), encoder_feeds())
    assert model.opset_imports[""] == opset
    assert "Attention" not in ops(model)  # where the mask leaves a row nothing, it would not be the same
    assert ("Gelu" in ops(model)) == (opset >= 20)
    assert "LayerNormalization" in ops(model)
    assert "ReduceMean" not in ops(model)


def test_a_session_gets_the_newest() -> None:
    model = encoder(18)
    keeps_function(model, lambda m: prepare(m, debug=True), encoder_feeds())
    assert model.opset_imports[""] == NEWEST
    assert {"SoftmaxAttention", "Gelu", "LayerNormalization"} <= set(ops(model))
    assert len(ops(model)) == 15


def test_optimize_leaves_its_argument_alone() -> None:
    model = encoder(20)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    smaller = optimize(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert len(smaller.graph) < len(model.graph)
    assert ops(optimize(ir.to_proto(model))) == ops(smaller)


def test_optimising_twice_changes_nothing_more() -> None:
    once = optimize(encoder(20))
    twice = optimize(once)
    assert ops(twice) == ops(once)
    again = optimize(encoder(20))
    assert [node.name for node in again.graph] == [node.name for node in once.graph]


def test_outputs_keep_their_names_and_types() -> None:
    model = parse(
        "g (float[N] x) => (float[N] y, float[N] z, float[2] w) {"
        "y = Identity (x) t = Neg (x) z = Identity (t) k = Constant <value = float[2] {1, "
        "2}> () w = Identity (k) }"
    )
    feeds = [{"x": f32(4)}]
    keeps_function(model, lambda m: optimise(m, debug=True), feeds)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert all(value.dtype == ir.DataType.FLOAT for value in model.graph.outputs)


def test_a_broken_stage_is_named() -> None:
    def broken(model: ir.Model) -> None:
        model.graph[0].op_type = "NoSuchOperator"

    model = parse("g (float[N] x) => (float[N] y) { y = Neg (x) }")
    with pytest.raises(ModelError, match="'breaking things'"):
        run(model, [("breaking things", broken)], debug=True)


def test_explanations() -> None:
    lines: list[str] = []
    optimise(encoder(23), explain=lines.append)
    assert any("gelu" in line and "applied" in line for line in lines)
    assert any("attention" in line and "0 and not NaN" in line for line in lines)
    assert any(line.startswith("[fold]") for line in lines)


def test_deep_graphs() -> None:
    body = " ".join(f"v{i + 1} = Relu (v{i})" for i in range(3000))
    model = parse(f"g (float[N, 4] v0) => (int64[2] s) {{ {body} s = Shape (v3000) }}")
    assert Dims().of(model.graph[-2].outputs[0]) == ("N", 4)


def test_terms_do_not_grow_with_the_graph() -> None:
    body = " ".join(f"v{i + 1} = Add (v{i}, v{max(i - 1, 0)})" for i in range(200))
    model = parse(f"g (float[N, 4] a, float[M, 4] b) => (float[K, 4] v200) {{ v0 = Add (a, b) {body} }}")
    assert Dims().of(model.graph.outputs[0]) == (("broadcast", "'M'", "'N'"), 4)


def test_a_number_that_a_file_still_declares_is_no_proof() -> None:
    """The input was given a name since, as many files are made to take any batch."""
    model = parse("g (float[N, 3] x) => (int64[2] s) <float[1, 3] y> { y = Relu (x) s = Shape (y) }")
    keeps_function(model, lambda m: prepare(m), [{"x": f32(5, 3)}, {"x": f32(1, 3)}])


@pytest.mark.parametrize(
    ("x", "node", "declared", "wanted"),
    [
        ("N, 3, 8, 8", "Conv (x, w)", "N, 4, 6, 6", ["N", 4, 6, 6]),  # N is still there
        ("N, 3, 8, 8", "Conv (x, w)", "1, 4, 6, 6", ["N", 4, 6, 6]),
        ("1, 3, 8, 8", "Conv (x, w)", "1, 4, 6, 6", [1, 4, 6, 6]),
        ("N, 3, H, 8", "Conv (x, w)", "N, 4, 6, 6", ["N", 4, None, None]),  # H is not
        ("N, 3, 8, 8", "Pad (x, p)", "1, 3, 9, 9", [None] * 4),  # nothing is known of Pad but that
        ("N, 3, 8, 8", "Pad (x, p)", "M, 3, 9, 9", ["M", 3, 9, 9]),
    ],
)
def test_declared_numbers_say_what_no_name_decides(
    x: str, node: str, declared: str, wanted: list[int | str | None]
) -> None:
    model = parse(f"""g (float[{x}] x, float[4, 3, 3, 3] w, int64[8] p) => (float[a, b, c, d] y)
        <float[{declared}] t> {{ t = {node} y = Relu (t) }}""")
    got = Dims().of(model.graph[0].outputs[0])
    assert got is not None
    assert [None if isinstance(key, tuple) else key for key in got] == wanted


# ---- random graphs --------------------------------------------------------------------------------------

UNARY = ("Neg", "Relu", "Sigmoid", "Identity", "Transpose <perm = [1, 0]>", "Transpose <perm = [0, 1]>")
BINARY = ("Add", "Mul", "Sub", "Div")


@st.composite
def random_graphs(draw: st.DrawFn) -> tuple[str, int]:
    """Chains over square matrices, so that everything fits everything; constants of several shapes."""
    size = draw(st.integers(1, 4))
    lines = ["c0 = Constant <value = float {2.0}> ()", "c1 = Constant <value = float {1.0}> ()"]
    numbers = ", ".join(str(draw(st.sampled_from([0.5, 1.0, 2.0, -3.0]))) for _ in range(size))
    lines.append(f"c2 = Constant <value = float[{size}] {{{numbers}}}> ()")
    square = ", ".join(str(draw(st.sampled_from([0.5, 1.0, -1.0, 0.25]))) for _ in range(size * size))
    lines.append(f"c3 = Constant <value = float[{size}, {size}] {{{square}}}> ()")
    values, constants = ["x", "w"], ["c0", "c1", "c2", "c3"]
    for i in range(draw(st.integers(1, 12))):
        kind = draw(st.integers(0, 5))
        a = draw(st.sampled_from(values[-3:]))
        if kind <= 1:
            lines.append(f"t{i} = {draw(st.sampled_from(UNARY))} ({a})")
        elif kind <= 3:
            lines.append(f"t{i} = {draw(st.sampled_from(BINARY))} ({a}, {draw(st.sampled_from(constants))})")
        elif kind == 4:
            lines.append(f"t{i} = MatMul ({a}, c3)")
        else:
            lines.append(
                f"t{i} = {draw(st.sampled_from(('Add', 'Mul', 'MatMul')))} ({a}, "
                f"{draw(st.sampled_from(values))})"
            )
        values.append(f"t{i}")
    lines.append(f"y = Identity ({values[-1]})")
    text = f"g (float[N, N] x, float[{size}, {size}] w) => (float[N, M] y) {{ {' '.join(lines)} }}"
    return text, size


@settings(max_examples=150, deadline=None, derandomize=True)
@given(random_graphs(), st.booleans())
def test_random_graphs_keep_their_function(graph: tuple[str, int], session: bool) -> None:
    text, size = graph
    rng = np.random.default_rng(size)
    feed = {name: rng.standard_normal((size, size)).astype(np.float32) for name in ("x", "w")}
    model = parse(text)
    expected = interpret(model, feed)["y"]
    if not np.isfinite(expected).all() or np.abs(expected).max(initial=0.0) > 1e30:
        return
    keeps_function(model, lambda m: (prepare if session else optimise)(m, debug=True), [feed], rtol=1e-4)


@pytest.mark.parametrize("start", [-10, -3, -1, 0, 2, 9])
@pytest.mark.parametrize("end", [-(1 << 63), -2, 0, 9])
@pytest.mark.parametrize("step", [-2, -1, 1, 2])
def test_sizes_of_slices_are_proved_as_they_are(start: int, end: int, step: int) -> None:
    """A start below the dimension is its first element, also for a negative step."""
    model = parse(f"""g (float[3] x) => (int64[1] y) {{
        a = Constant <value = int64[1] {{{start}}}> () b = Constant <value = int64[1] {{{end}}}> ()
        c = Constant <value = int64[1] {{0}}> () d = Constant <value = int64[1] {{{step}}}> ()
        s = Slice (x, a, b, c, d) y = Shape (s) }}""")
    keeps_function(model, lambda m: prepare(m), [{"x": f32(3)}])
