"""Each rule alone: the numbers before and after on several shapes, and the cases that its checks must
refuse.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from ingot.passes.rewrite import Rule
from ingot.passes.rules import RULES, activation, affine, attention, extreme, norm, shape
from tests.passes.graphs import keeps_function, ops, parse, with_weights

RNG = np.random.default_rng(7)


def f32(*sizes: int) -> np.ndarray:
    return RNG.standard_normal(sizes).astype(np.float32)


def applies(
    rule: Rule, model: ir.Model, expected: list[str], *feeds: dict[str, np.ndarray], **options: bool
) -> None:
    count = keeps_function(model, lambda m: rule(m, **options), list(feeds))
    assert count, "the rule was not applied"
    assert ops(model) == expected


def refuses(rule: Rule, model: ir.Model, words: str, **options: bool) -> None:
    before, lines = ops(model), list[str]()
    assert rule(model, explain=lines.append, **options) == 0
    assert ops(model) == before
    assert any(words in line for line in lines), lines


def does_not_match(rule: Rule, model: ir.Model) -> None:
    before = ops(model)
    assert rule(model) == 0
    assert ops(model) == before


def test_every_rule_states_its_equation() -> None:
    for rule in RULES:
        assert "==" in (rule.apply.__doc__ or ""), rule.name


# ---- into the weights -----------------------------------------------------------------------------------

BN = "y = BatchNormalization <epsilon = 0.001> (t, s, b, m, v)"
PARAMETERS = {"s": f32(4), "b": f32(4), "m": f32(4), "v": np.abs(f32(4)) + 0.1}
PARAMETER_INPUTS = "float[4] s, float[4] b, float[4] m, float[4] v"


@pytest.mark.parametrize("bias", ["", ", c"])
@pytest.mark.parametrize(
    ("node", "w"),
    [
        ("Conv <pads = [1, 1, 1, 1]> (x, w", f32(4, 6, 3, 3)),
        ("Conv <group = 2> (x, w", f32(4, 3, 3, 3)),
        ("ConvTranspose <strides = [2, 2]> (x, w", f32(6, 4, 3, 3)),
        ("ConvTranspose <group = 2> (x, w", f32(6, 2, 3, 3)),
    ],
)
def test_batch_norm_into_convolutions(node: str, w: np.ndarray, bias: str) -> None:
    inputs = f"float[N, 6, H, W] x, float[a, b1, c1, d] w, float[4] c, {PARAMETER_INPUTS}"
    model = parse(f"g ({inputs}) => (float[N, 4, I, J] y) {{ t = {node}{bias}) {BN} }}")
    model = with_weights(model, w=w, c=f32(4), **PARAMETERS)
    applies(
        affine.batch_norm_into_weights,
        model,
        [node.split()[0]],
        {"x": f32(2, 6, 5, 7)},
        {"x": f32(1, 6, 3, 3)},
    )


@pytest.mark.parametrize("transposed", [0, 1])
def test_batch_norm_into_gemm(transposed: int) -> None:
    inputs = f"float[N, 6] x, float[a, b1] w, {PARAMETER_INPUTS}"
    model = parse(f"g ({inputs}) => (float[N, 4] y) {{ t = Gemm <transB = {transposed}> (x, w) {BN} }}")
    model = with_weights(model, w=f32(4, 6) if transposed else f32(6, 4), **PARAMETERS)
    applies(affine.batch_norm_into_weights, model, ["Gemm"], {"x": f32(3, 6)}, {"x": f32(0, 6)})


def test_batch_norm_with_outputs_that_it_has_not() -> None:
    """The operator has one outside of training; files of frameworks name five."""
    inputs = f"float[N, 6, H, W] x, float[4, 6, 1, 1] w, {PARAMETER_INPUTS}"
    text = f"g ({inputs}) => (float[N, 4, I, J] y) {{ t = Conv (x, w) {BN.replace('y =', 'y, y1, y2 =')} }}"
    model = with_weights(parse(text), w=f32(4, 6, 1, 1), **PARAMETERS)
    does_not_match(affine.batch_norm_into_weights, model)


def test_batch_norm_stays_where_the_product_is_seen() -> None:
    inputs = f"float[N, 6, H, W] x, float[4, 6, 1, 1] w, {PARAMETER_INPUTS}"
    text = f"g ({inputs}) => (float[N, 4, H, W] y, float[N, 4, H, W] t) {{ t = Conv (x, w) {BN} }}"
    refuses(
        affine.batch_norm_into_weights,
        with_weights(parse(text), w=f32(4, 6, 1, 1), **PARAMETERS),
        "elsewhere",
    )
    text = f"g ({inputs}) => (float[N, 4, H, W] y) {{ t = Conv (x, w) {BN} }}"
    refuses(
        affine.batch_norm_into_weights,
        with_weights(parse(text), **PARAMETERS),
        "weight is not a float constant",
    )
    refuses(
        affine.batch_norm_into_weights,
        with_weights(parse(text), w=f32(4, 6, 1, 1), s=f32(4)),
        "not all constants",
    )


@pytest.mark.parametrize("c", [f32(), f32(1), f32(4, 1, 1), f32(1, 4, 1, 1), f32(1, 1, 1)])
@pytest.mark.parametrize("op", ["Mul (t, c)", "Mul (c, t)", "Div (t, c)"])
def test_factor_into_conv(op: str, c: np.ndarray) -> None:
    model = parse(
        f"g (float[N, 6, H, W] x, float[4, 6, 3, 3] w, float[4] b, float c) => (float[N, 4, I, J] y)"
        f"{{ t = Conv (x, w, b) y = {op} }}"
    )
    model = with_weights(model, w=f32(4, 6, 3, 3), b=f32(4), c=c)
    applies(affine.factor_into_weights, model, ["Conv"], {"x": f32(2, 6, 5, 4)})


@pytest.mark.parametrize(
    ("c", "words"),
    [
        (f32(5), "each output channel"),
        (f32(2, 1, 1, 1), "each output channel"),
        (f32(1, 1, 4, 1, 1), "more dimensions"),
        (np.array(np.inf, np.float32), "finite"),
        (np.array(3e38, np.float32), "overflow"),
    ],
)
def test_factor_that_does_not_belong_to_channels(c: np.ndarray, words: str) -> None:
    model = parse(
        "g (float[N, 6, H, W] x, float[4, 6, 3, 3] w, float c) => (float y) { t = "
        "Conv (x, w) y = Mul (t, c) }"
    )
    model = with_weights(model, w=np.full((4, 6, 3, 3), 2, np.float32), c=c)
    refuses(affine.factor_into_weights, model, words)


@pytest.mark.parametrize(
    ("node", "size"),
    [
        ("Conv (x, w)", (96, 64, 3, 3)),
        ("ConvTranspose (x, w)", (64, 96, 3, 3)),
        ("ConvTranspose <group = 2> (x, w)", (64, 48, 3, 3)),
        ("Gemm (x, w)", (200, 96)),
        ("Gemm <transB = 1> (x, w)", (96, 200)),
    ],
)
def test_large_weights_of_a_session_are_computed_when_they_are_read(node: str, size: tuple[int, ...]) -> None:
    """Not before, and to the weight's own precision."""
    channels = "96" if "Gemm" in node else "96, 1, 1"
    text = f"g (float x, float w, float[{channels}] c) => (float y) {{ t = {node} y = Mul (t, c) }}"
    weight, factor = f32(*size), 3 * f32(*map(int, channels.split(",")))
    model = with_weights(parse(text), w=weight, c=factor)
    assert affine.factor_into_weights(model, standard=False) == 1
    tensor = model.graph[0].inputs[1].const_value  # type: ignore[union-attr]
    assert isinstance(tensor, ir.LazyTensor)
    exact = with_weights(parse(text), w=weight, c=factor)
    assert affine.factor_into_weights(exact, standard=True) == 1
    want = exact.graph[0].inputs[1].const_value  # type: ignore[union-attr]
    assert isinstance(want, ir.Tensor)
    np.testing.assert_allclose(tensor.numpy(), want.numpy(), rtol=2**-22)


@pytest.mark.parametrize(("largest", "factor"), [(2.0, 3e38), (3e38, 2.0), (-3e38, 1.5), (np.nan, 2.0)])
def test_large_weights_that_would_overflow(largest: float, factor: float) -> None:
    text = "g (float[N, 200] x, float w, float c) => (float y) { t = MatMul (x, w) y = Mul (t, c) }"
    weight = f32(200, 3000)
    weight[137, 2000] = largest
    model = with_weights(parse(text), w=weight, c=np.array(factor, np.float32))
    refuses(affine.factor_into_weights, model, "overflow", standard=False)


@pytest.mark.parametrize("standard", [False, True])
@pytest.mark.parametrize(
    ("node", "size"),
    [
        ("Conv (x, w)", (40, 30, 5, 7)),
        ("ConvTranspose <group = 2> (x, w)", (60, 20, 5, 7)),
        ("Gemm (x, w)", (1050, 40)),
        ("Gemm <transB = 1> (x, w)", (40, 1050)),
        ("MatMul (x, w)", (1050, 40)),
    ],
)
@pytest.mark.parametrize(
    ("dtype", "weight", "c", "folds"),
    [
        ("float16", 0.01, 1e-5, False),  # 1e-7 lies between two numbers that float16 has
        ("float16", 0.01, 1e-6, False),  # and this would be 0
        ("float16", 300.0, 1e-5, True),  # the factor alone would be rounded coarsely
        ("float16", 0.01, 0.0, True),
        ("float32", 1e-20, 1e-20, False),
        ("float32", 1e-20, 1e-9, True),
    ],
)
def test_factors_that_would_lose_the_weights(
    node: str, size: tuple[int, ...], dtype: str, weight: float, c: float, folds: bool, standard: bool
) -> None:
    """Products below the least normal number have few bits left, or none."""
    kind = {"float16": "float16", "float32": "float"}[dtype]
    text = f"g ({kind} x, {kind} w, {kind} c) => ({kind} y) {{ t = {node} y = Mul (t, c) }}"
    array, factor = np.full(size, weight, dtype), np.array(c, dtype)
    model = with_weights(parse(text), w=array, c=factor)
    if not folds:
        refuses(affine.factor_into_weights, model, "too small for their dtype", standard=standard)
        return
    assert affine.factor_into_weights(model, standard=standard) == 1
    tensor = model.graph[0].inputs[1].const_value  # type: ignore[union-attr]
    assert tensor is not None
    want = array.astype(np.float64) * factor
    np.testing.assert_allclose(tensor.numpy(), want, rtol=2 * float(np.finfo(dtype).eps))


def test_channels_beside_a_much_larger_one_may_be_denormal() -> None:
    """They count as zero, as packed weights of float32 do; without the large one the factor stays outside."""
    text = "g (float[N, 3] x, float[3, 2] w, float[2] c) => (float y) { t = MatMul (x, w) y = Mul (t, c) }"
    decayed = np.array([1, 1e-20], np.float32)
    model = with_weights(parse(text), w=f32(3, 2) + 3, c=decayed * np.array([1, 1e-22], np.float32))
    assert affine.factor_into_weights(model) == 1
    model = with_weights(parse(text), w=1e-15 * (f32(3, 2) + 3), c=decayed * np.float32(1e-18))
    refuses(affine.factor_into_weights, model, "too small for their dtype")


@pytest.mark.parametrize("c", [f32(), f32(5), f32(1)])
def test_factor_into_matmul(c: np.ndarray) -> None:
    text = (
        "g (float[A, B, 3] x, float[3, 5] w, float c) => (float[A, B, 5] y) { t = "
        "MatMul (x, w) y = Mul (t, c) }"
    )
    model = with_weights(parse(text), w=f32(3, 5), c=c)
    applies(affine.factor_into_weights, model, ["MatMul"], {"x": f32(2, 4, 3)}, {"x": f32(1, 0, 3)})


def test_factor_leaves_a_shared_weight_alone() -> None:
    text = """g (float[A, 3] x, float[3, 5] w, float c) => (float[A, 5] y, float[A, 5] z) {
        t = MatMul (x, w) y = Mul (t, c) u = Neg (x) z = MatMul (u, w) }"""
    model = with_weights(parse(text), w=f32(3, 5), c=f32(5))
    applies(affine.factor_into_weights, model, ["MatMul", "Neg", "MatMul"], {"x": f32(2, 3)})
    large = f32(3, 100_000)
    model = with_weights(parse(text.replace("5]", "100000]")), w=large, c=f32(1))
    refuses(affine.factor_into_weights, model, "used elsewhere, too, and large")


def test_matrix_factor_that_would_add_a_dimension() -> None:
    text = "g (float[A, 3] x, float[3, 5] w, float c) => (float y) { t = MatMul (x, w) y = Mul (t, c) }"
    refuses(
        affine.factor_into_weights, with_weights(parse(text), w=f32(3, 5), c=f32(1, 5)), "more dimensions"
    )


@pytest.mark.parametrize("op", ["Add (t, c)", "Add (c, t)", "Sub (t, c)"])
def test_sum_into_bias(op: str) -> None:
    text = (
        "g (float[N, 6, L] x, float[4, 6, 3] w, float[4, 1] c) => (float[N, 4, M] y) "
        f"{{ t = Conv (x, w) y = {op} }}"
    )
    model = with_weights(parse(text), w=f32(4, 6, 3), c=f32(4, 1))
    applies(affine.sum_into_bias, model, ["Conv"], {"x": f32(2, 6, 8)})


def test_sum_into_a_gemm_that_had_no_bias() -> None:
    """Its beta is of no account then; it is not the new bias's."""
    text = """g (float[N, 4] x, float[4, 5] w, float[5] c) => (float[N, 5] y) {
        t = Gemm <beta = 0.5> (x, w) y = Add (t, c) }"""
    model = with_weights(parse(text), w=f32(4, 5), c=f32(5))
    applies(affine.sum_into_bias, model, ["Gemm"], {"x": f32(3, 4)})


def test_sum_keeps_to_constants() -> None:
    text = (
        "g (float[N, 6, L] x, float[4, 6, 3] w, float[4, 1] c) => (float[N, 4, M] y) { t = "
        "Conv (x, w) y = Add (t, c) }"
    )
    does_not_match(affine.sum_into_bias, with_weights(parse(text), w=f32(4, 6, 3)))
    text = (
        "g (float[N, 6, L] x, float[4, 6, 3] w, float[4, 1] c) => (float[N, 4, M] y) { t = "
        "Conv (x, w) y = Sub (c, t) }"
    )
    does_not_match(affine.sum_into_bias, with_weights(parse(text), w=f32(4, 6, 3), c=f32(4, 1)))


@pytest.mark.parametrize("op", ["Mul (s, c)", "Mul (c, s)", "Div (s, c)"])
def test_factor_through_matmul_bias(op: str) -> None:
    text = f"""g (float[A, B, 3] x, float[3, 5] w, float[5] b, float c) => (float[A, B, 5] y) {{
        t = MatMul (x, w) s = Add (b, t) y = {op} }}"""
    model = with_weights(parse(text), w=f32(3, 5), b=f32(5), c=np.float32(0.125))
    applies(affine.factor_through_matmul_bias, model, ["MatMul", "Add"], {"x": f32(2, 4, 3)})


# ---- shapes ---------------------------------------------------------------------------------------------


def test_transposes() -> None:
    text = """g (float[A, B, C] x) => (float[D, E, F] y) {
        t = Transpose <perm = [1, 2, 0]> (x) y = Transpose <perm = [0, 2, 1]> (t) }"""
    applies(shape.transposes, parse(text), ["Transpose"], {"x": f32(2, 3, 4)})
    text = """g (float[A, B, C] x) => (float[A, B, C] y) {
        t = Transpose <perm = [1, 2, 0]> (x) u = Transpose <perm = [2, 0, 1]> (t) y = Neg (u) }"""
    applies(shape.transposes, parse(text), ["Neg"], {"x": f32(2, 3, 4)})
    does_not_match(shape.transposes, parse("g (float[A, B] x) => (float[B, A] y) { y = Transpose (x) }"))


def test_reshapes() -> None:
    text = """g (float[A, B, C] x) => (float[E, F] y) {
        s = Constant <value = int64[2] {0, -1}> () t = Reshape (x, s)
        u = Constant <value = int64[2] {-1, 4}> () y = Reshape (t, u) }"""
    applies(shape.reshapes, parse(text), ["Reshape"], {"x": f32(2, 3, 4)}, {"x": f32(5, 2, 2)})
    copying = text.replace("{-1, 4}", "{0, -1}")
    refuses(shape.reshapes, parse(copying), "copies a size")
    dynamic = """g (float[A, B, C] x, int64[2] u) => (float[E, F] y) { t = Flatten (x) y = Reshape (t, u) }"""
    refuses(shape.reshapes, parse(dynamic), "not a constant")


@pytest.mark.parametrize(
    "node",
    [
        "Concat <axis = 0> (a)",
        "Pad (a, zeros)",
        "Tile (a, ones)",
        "Expand (a, ones)",
        "Slice (a, starts, ends)",
        "Slice (a, starts, ends32)",
        "Reshape (a, same)",
        "Identity (a)",
        "Dropout (a)",
        "Cast <to = 1> (a)",
        "Mul (a, one)",
        "Div (a, one)",
        "Transpose <perm = [0, 1]> (a)",
    ],
)
def test_nothing_done(node: str) -> None:
    text = f"""g (float[2, 3] x) => (float[2, 3] y) {{
        zeros = Constant <value = int64[4] {{0, 0, 0, 0}}> () ones = Constant <value = int64[2] {{1, 1}}> ()
        starts = Constant <value = int64[2] {{0, 0}}> () same = Constant <value = int64[2] {{2, 3}}> ()
        ends = Constant <value = int64[2] {{9223372036854775807, 9223372036854775807}}> ()
        ends32 = Constant <value = int32[2] {{2147483647, 2147483647}}> ()
        one = Constant <value = float {{1}}> ()
        a = Abs (x) t = {node} y = Neg (t) }}"""
    model = parse(text)
    model.graph[0].outputs[0].dtype = ir.DataType.FLOAT
    model.graph[0].outputs[0].shape = ir.Shape([2, 3])
    feeds = [{"x": f32(2, 3)}]
    assert keeps_function(model, lambda m: sum(rule(m) for rule in shape.RULES), feeds) == 1
    assert ops(model) == ["Abs", "Neg"]


def test_something_done() -> None:
    text = """g (float[N, 3] x) => (float[N, 3] y) {
        s = Constant <value = int64[2] {-1, 3}> () ones = Constant <value = int64[3] {1, 1, 1}> ()
        one = Constant <value = float[1, 1, 1] {1}> ()
        ends = Constant <value = int64[2] {2, 9223372036854775807}> ()
        starts = Constant <value = int64[2] {0, 0}> ()
        a = Expand (x, ones) b = Mul (x, one) c = Slice (x, starts, ends) d = Cast <to = 11> (x)
        y = Neg (x) }"""
    for rule in shape.RULES:
        assert rule(parse(text)) == 0
    training = """g (float[N, 3] x, bool t) => (float[N, 3] y) {
        r = Constant <value = float {0.5}> () a = Dropout (x, r, t) y = Neg (a) }"""
    refuses(shape.identity, parse(training), "training")


@pytest.mark.parametrize(
    ("size", "end", "whole"),
    [("2147483653", 2**31 - 1, False), ("2147483653", 2**31 + 4, False), ("2147483653", 2**31 + 5, True),
     ("N", 2**31 - 1, False), ("N", 2**63 - 1, True), ("3", 3, True), ("3", 2, False)],
)  # fmt: skip
def test_a_slice_up_to_a_number_that_a_dimension_may_pass(size: str, end: int, whole: bool) -> None:
    text = f"""g (int8[{size}] x) => (int8[M] y) {{
        starts = Constant <value = int64[1] {{0}}> () ends = Constant <value = int64[1] {{{end}}}> ()
        a = Slice (x, starts, ends) y = Neg (a) }}"""
    model = parse(text)
    assert shape.no_operation(model) == whole
    assert ops(model) == (["Neg"] if whole else ["Slice", "Neg"])


def test_identity_of_an_input_as_output_stays() -> None:
    model = parse("g (float[N] x) => (float[N] y, float[N] z) { y = Identity (x) z = Dropout (x) }")
    applies(shape.identity, model, ["Identity", "Identity"], {"x": f32(3)})


def test_one_value_for_two_outputs() -> None:
    model = parse("g (float[N] x) => (float[N] y, float[N] z) { y = Neg (x) z = Identity (y) }")
    does_not_match(shape.identity, model)


PAD = """g (float[N, 2, H, W] x, float[3, 2, 3, 3] w) => (float[N, 3, I, J] y) {
    p = Constant <value = int64[8] {0, 0, 1, 2, 0, 0, 3, 0}> ()
    t = Pad (x, p) y = Conv <pads = [1, 0, 0, 1], strides = [2, 1]> (t, w) }"""


def test_pad_into_conv() -> None:
    model = with_weights(parse(PAD), w=f32(3, 2, 3, 3))
    applies(shape.pad_into_conv, model, ["Conv"], {"x": f32(2, 2, 5, 6)}, {"x": f32(1, 2, 1, 1)})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Pad (x, p)", 'Pad <mode = "edge"> (x, p)', "zeros"),
        ("{0, 0, 1, 2, 0, 0, 3, 0}", "{0, 1, 1, 2, 0, 0, 3, 0}", "spatial"),
        ("{0, 0, 1, 2, 0, 0, 3, 0}", "{0, 0, -1, 2, 0, 0, 3, 0}", "removes"),
        ("pads = [1, 0, 0, 1]", 'auto_pad = "SAME_UPPER"', "by itself"),
    ],
)
def test_pad_that_stays(old: str, new: str, words: str) -> None:
    refuses(shape.pad_into_conv, with_weights(parse(PAD.replace(old, new)), w=f32(3, 2, 3, 3)), words)


def test_mean_over_image() -> None:
    text = """g (float[N, C, H, W] x) => (float[N, C, 1, 1] y) {
        a = Constant <value = int64[2] {-1, 2}> () y = ReduceMean (x, a) }"""
    applies(shape.mean_over_image, parse(text), ["GlobalAveragePool"], {"x": f32(2, 3, 4, 5)})
    does_not_match(shape.mean_over_image, parse(text.replace("{-1, 2}", "{1, 2}")))
    does_not_match(shape.mean_over_image, parse(text.replace("(x, a)", "<keepdims = 0> (x, a)")))


def test_mean_over_an_image_of_integers() -> None:
    """GlobalAveragePool is of floats alone in a file."""
    text = """g (int32[N, C, H, W] x) => (int32[N, C, 1, 1] y) {
        a = Constant <value = int64[2] {2, 3}> () y = ReduceMean (x, a) }"""
    refuses(shape.mean_over_image, parse(text), "floats")


# ---- activations and normalisations ---------------------------------------------------------------------

GELU = """g (float[N, D] x) => (float[N, D] y) {{
    half = Constant <value = float {{0.5}}> () one = Constant <value = float {{1}}> ()
    root = Constant <value = float {{1.4142135}}> () inv = Constant <value = float {{0.70710678}}> ()
    three = Constant <value = float {{3}}> () c = Constant <value = float {{0.044715}}> ()
    k = Constant <value = float {{0.7978845608}}> ()
    {} }}"""
X = np.linspace(-8, 8, 60).reshape(6, 10).astype(np.float32)


@pytest.mark.parametrize(
    "body",
    [
        "a = Div (x, root) e = Erf (a) p = Add (e, one) h = Mul (x, half) y = Mul (h, p)",
        "a = Div (x, root) e = Erf (a) p = Add (e, one) h = Mul (x, p) y = Mul (h, half)",
        "a = Mul (x, inv) e = Erf (a) p = Add (one, e) h = Mul (half, p) y = Mul (x, h)",
        "a = Mul (inv, x) e = Erf (a) p = Add (one, e) m = Mul (x, p) y = Mul (half, m)",
    ],
)
def test_gelu_erf(body: str) -> None:
    applies(activation.gelu_erf, parse(GELU.format(body)), ["Gelu"], {"x": X})


@pytest.mark.parametrize(
    "body",
    [
        """q = Pow (x, three) r = Mul (c, q) s = Add (x, r) u = Mul (k, s) t = Tanh (u)
           p = Add (t, one) h = Mul (half, x) y = Mul (h, p)""",
        """q = Mul (x, x) q3 = Mul (q, x) r = Mul (q3, c) s = Add (r, x) u = Mul (s, k) t = Tanh (u)
           p = Add (one, t) h = Mul (x, p) y = Mul (h, half)""",
        """ck = Mul (x, c) q = Mul (ck, x) s = Add (one, q) xk = Mul (x, k) u = Mul (xk, s) t = Tanh (u)
           p = Add (one, t) h = Mul (half, x) y = Mul (h, p)""",
    ],
)
def test_gelu_tanh(body: str) -> None:
    applies(activation.gelu_tanh, parse(GELU.format(body)), ["Gelu"], {"x": X}, {"x": X[:0]})


def test_what_is_no_gelu() -> None:
    body = "a = Div (x, root) e = Erf (a) p = Add (e, one) h = Mul (x, half) y = Mul (h, p)"
    wrong = parse(GELU.format(body).replace("{1.4142135}", "{1.41}"))
    refuses(activation.gelu_erf, wrong, "x / sqrt(2)")
    wrong = parse(GELU.format(body).replace("{0.5}", "{0.51}"))
    refuses(activation.gelu_erf, wrong, "0.5")
    wrong = parse(GELU.format(body).replace("float {0.5}", "float[1,1,1] {0.5}"))
    refuses(activation.gelu_erf, wrong, "add dimensions")
    cube = """q = Pow (x, three) r = Mul (c, q) s = Add (x, r) u = Mul (k, s) t = Tanh (u)
              p = Add (t, one) h = Mul (half, x) y = Mul (h, p)"""
    refuses(activation.gelu_tanh, parse(GELU.format(cube).replace("0.044715", "0.0447")), "0.044715")
    refuses(activation.gelu_tanh, parse(GELU.format(cube).replace("{3}", "{2}")), "0.044715")
    old = parse(GELU.format(body), opset=18)
    does_not_match(activation.gelu_erf, old)
    double = GELU.format(body).replace("float", "double")
    refuses(activation.gelu_erf, parse(double), "x / sqrt(2)")
    exact = parse(double.replace("1.4142135", "1.4142135623730951"))
    assert keeps_function(exact, activation.gelu_erf, [{"x": X.astype(np.float64)}], rtol=1e-12) == 1


LAYER_NORM = """g (float[N, L, 8] x, float[8] s, float[8] b) => (float[N, L, 8] y) {{
    axes = Constant <value = int64[1] {{-1}}> () eps = Constant <value = float {{1e-3}}> ()
    two = Constant <value = float {{2}}> ()
    m = ReduceMean (x, axes) d = Sub (x, m) {} v = ReduceMean (q, axes) w = Add (v, eps) r = Sqrt (w)
    {} n = Mul (z, s) y = Add (n, b) }}"""


@pytest.mark.parametrize("square", ["q = Mul (d, d)", "q = Pow (d, two)"])
@pytest.mark.parametrize(
    "divide", ["z = Div (d, r)", "i = Reciprocal (r) z = Mul (d, i)", "i = Reciprocal (r) z = Mul (i, d)"]
)
def test_layer_norm(square: str, divide: str) -> None:
    model = with_weights(parse(LAYER_NORM.format(square, divide)), s=f32(8), b=f32(8))
    feeds = [{"x": f32(2, 3, 8)}, {"x": f32(1, 1, 8)}]
    assert keeps_function(model, norm.layer_norm, feeds) == 1
    assert keeps_function(model, norm.layer_norm_bias, feeds) == 1
    assert ops(model) == ["LayerNormalization"]


def test_layer_norm_needs_proof_of_its_last_dimension() -> None:
    text = LAYER_NORM.format("q = Mul (d, d)", "z = Div (d, r)")
    refuses(norm.layer_norm, parse(text), "not a constant")
    loose = with_weights(parse(text.replace("[N, L, 8] x", "[N, L, D] x")), s=f32(8), b=f32(8))
    refuses(norm.layer_norm, loose, "not proved")
    middle = with_weights(parse(text.replace("{-1}", "{1}")), s=f32(8), b=f32(8))
    refuses(norm.layer_norm, middle, "last dimensions")
    double = parse(text.replace("float", "double"))
    refuses(norm.layer_norm, with_weights(double, s=f32(8).astype(float), b=f32(8).astype(float)), "float64")


@pytest.mark.parametrize("name", ["eps", "two"])
def test_layer_norm_of_numbers_that_add_a_dimension(name: str) -> None:
    text = LAYER_NORM.format("q = Pow (d, two)", "z = Div (d, r)").replace(
        "=> (float[N, L, 8] y)", "=> (float y)"
    )
    text = text.replace(
        f"{name} = Constant <value = float ", f"{name} = Constant <value = float[1, 1, 1, 1] "
    )
    refuses(norm.layer_norm, with_weights(parse(text), s=f32(8), b=f32(8)), "add dimensions")


def test_rms_norm() -> None:
    text = """g (float[N, L, 8] x, float[8] s) => (float[N, L, 8] y) {
        axes = Constant <value = int64[1] {-1}> () eps = Constant <value = float {1e-3}> ()
        two = Constant <value = float {2}> ()
        q = Pow (x, two) v = ReduceMean (q, axes) w = Add (v, eps) r = Sqrt (w) z = Div (x, r)
        y = Mul (s, z) }"""
    applies(norm.rms_norm, with_weights(parse(text), s=f32(8)), ["RMSNormalization"], {"x": f32(2, 3, 8)})
    refuses(norm.rms_norm, parse(text), "not a constant")
    does_not_match(norm.rms_norm, with_weights(parse(text, opset=22), s=f32(8)))
    wide = text.replace("eps = Constant <value = float ", "eps = Constant <value = float[1, 1, 1, 1] ")
    wide = wide.replace("=> (float[N, L, 8] y)", "=> (float y)")
    refuses(norm.rms_norm, with_weights(parse(wide), s=f32(8)), "add dimensions")


# ---- attention ------------------------------------------------------------------------------------------

ATTENTION = """g (float[B, H, L, D] q, float[B, H, S, D] k0, float[B, H, S, E] v, {mask})
    => (float[B, H, L, E] y) {{
    c = Constant <value = float {{0.25}}> () big = Constant <value = float {{-inf}}> ()
    low = Constant <value = float {{-1e30}}> () zero = Constant <value = float {{0}}> ()
    k = Transpose <perm = [0, 1, 3, 2]> (k0) {body} }}"""


def qkv(b: int, h: int, n: int, s: int, d: int, e: int) -> dict[str, np.ndarray]:
    return {"q": f32(b, h, n, d), "k0": f32(b, h, s, d), "v": f32(b, h, s, e)}


@pytest.mark.parametrize(
    "body",
    [
        "t = MatMul (q, k) u = Mul (t, c) a = Add (u, m) p = Softmax (a) y = MatMul (p, v)",
        "t = MatMul (q, k) u = Div (t, c) a = Add (m, u) p = Softmax <axis = 3> (a) y = MatMul (p, v)",
        "r = Mul (q, c) t = MatMul (r, k) a = Add (t, m) p = Softmax (a) y = MatMul (p, v)",
        "r = Mul (q, c) kk = Mul (k, c) t = MatMul (r, kk) a = Add (t, m) p = Softmax (a) y = MatMul (p, v)",
        """t = MatMul (q, k) u = Mul (t, c) a = Add (u, m) p = Softmax (a) n = IsNaN (p)
           w = Where (n, zero, p) y = MatMul (w, v)""",
    ],
)
def test_attention_with_an_added_mask(body: str) -> None:
    mask = "float[B, 1, L, S] m"
    model = parse(ATTENTION.format(mask=mask, body=body))
    feed = {**qkv(2, 3, 4, 5, 8, 6), "m": f32(2, 1, 4, 5)}
    feed["m"][:, :, :, 2] = -np.inf
    small = {**qkv(1, 1, 1, 1, 2, 2), "m": f32(1, 1, 1, 1)}
    if "IsNaN" in body:
        empty = {**feed, "m": np.full_like(feed["m"], -np.inf)}
        applies(attention.attention, model, ["Attention"], feed, small, empty)
        return
    refuses(attention.attention, parse(ATTENTION.format(mask=mask, body=body)), "0 and not NaN")
    applies(attention.attention, model, ["SoftmaxAttention"], feed, small, standard=False)


def test_attention_with_a_boolean_mask() -> None:
    body = "t = MatMul (q, k) a = Where (m, t, big) p = Softmax (a) y = MatMul (p, v)"
    feed = {**qkv(2, 3, 4, 4, 8, 6), "m": np.tri(4, dtype=bool)[None, None]}
    model = parse(ATTENTION.format(mask="bool[1, 1, L, S] m", body=body))
    refuses(attention.attention, model, "0 and not NaN")
    nothing = {**feed, "m": np.zeros_like(feed["m"])}
    applies(attention.attention, model, ["SoftmaxAttention"], feed, nothing, standard=False)
    refuses(
        attention.attention,
        parse(ATTENTION.format(mask="bool[1, 1, L, S] m", body=body.replace("big", "low"))),
        "not -inf",
    )


def test_attention_without_a_mask_and_other_transposes() -> None:
    text = """g (float[B, L, H, D] q0, float[B, S, H, D] k0, float[B, H, S, E] v) => (float[B, H, L, E] y) {
        q = Transpose <perm = [0, 2, 1, 3]> (q0) k = Transpose <perm = [0, 2, 3, 1]> (k0)
        t = MatMul (q, k) p = Softmax (t) y = MatMul (p, v) }"""
    feed = {"q0": f32(2, 3, 4, 8), "k0": f32(2, 5, 4, 8), "v": f32(2, 4, 5, 6)}
    applies(attention.attention, parse(text), ["Transpose", "Transpose", "Attention"], feed)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_rows_that_are_masked_whole(kind: str) -> None:
    text = """g (float[B, H, L, D] q, float[B, H, S, D] k0, float[B, H, S, E] v, MASK[B, 1, L, S] m)
        => (float[B, H, L, E] y) {
        k = Transpose <perm = [0, 1, 3, 2]> (k0) axes = Constant <value = int64[1] {-1}> ()
        low = Constant <value = float {-1.7e38}> () zero = Constant <value = float {0}> ()
        inf = Constant <value = float {-inf}> () PREPARE
        t = MatMul (q, k) a = Add (t, bias) p = Softmax (a) o = MatMul (p, v) y = Mul (o, live) }"""
    feed = {**qkv(2, 3, 4, 5, 8, 6), "m": RNG.random((2, 1, 4, 5)) < 0.5}
    feed["m"][1, 0, 2] = False
    if kind == "bool":
        prepare = "bias = Where (m, zero, low) f = Cast <to = 1> (m) live = ReduceMax (f, axes)"
    else:
        feed["m"] = np.where(feed["m"], f32(2, 1, 4, 5), -np.inf).astype(np.float32)
        prepare = """bias = Max (m, low) h = ReduceMax (m, axes) e = Equal (h, inf) n = Not (e)
                     live = Cast <to = 1> (n)"""
    model = parse(text.replace("MASK", kind).replace("PREPARE", prepare))
    keeps_function(model, attention.attention, [feed])
    applies(attention.masked_rows_are_zero, model, ["Attention"], feed)
    higher = parse(text.replace("MASK", kind).replace("PREPARE", prepare).replace("-1.7e38", "-100"))
    attention.attention(higher)
    refuses(attention.masked_rows_are_zero, higher, "low number")
    causal = parse(text.replace("MASK", kind).replace("PREPARE", prepare))
    attention.attention(causal)
    fused = next(node for node in causal.graph if node.op_type == "Attention")
    fused.attributes["is_causal"] = ir.AttrInt64("is_causal", 1)
    refuses(attention.masked_rows_are_zero, causal, "hides keys")


@pytest.mark.parametrize(
    "live",
    ["live = ReduceMax (m, axes)", "i = Cast <to = 7> (m) j = Cast <to = 1> (i) live = ReduceMax (j, axes)"],
)
def test_a_factor_of_any_number_is_no_live_row(live: str) -> None:
    """The largest addend of a mask is 1 by chance only."""
    text = f"""g (float[B, H, L, D] q, float[B, H, S, D] k, float[B, H, S, E] v, float[B, 1, L, S] m)
        => (float[B, H, L, E] y) {{
        axes = Constant <value = int64[1] {{-1}}> () low = Constant <value = float {{-1.7e38}}> ()
        bias = Max (m, low) {live} o = Attention (q, k, v, bias) y = Mul (o, live) }}"""
    does_not_match(attention.masked_rows_are_zero, parse(text))


BODY = "t = MatMul (q, k) u = Mul (t, c) a = Add (u, m) p = Softmax (a) y = MatMul (p, v)"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("float[B, 1, L, S] m", "float[M, 1, L, S] m", "mask is not proved"),
        ("float[B, H, S, E] v", "float[C, H, S, E] v", "one batch"),
        ("float[B, H, S, E] v", "float[B, G, S, E] v", "as many heads"),
        ("k = Transpose <perm = [0, 1, 3, 2]> (k0)", "k = Identity (k0)", "not transposed"),
        ("Softmax (a)", "Softmax <axis = 1> (a)", "last axis"),
        ("{0.25}", "{-0.25}", "not positive"),
    ],
)
def test_attention_that_is_not_proved(old: str, new: str, words: str) -> None:
    text = ATTENTION.format(mask="float[B, 1, L, S] m", body=BODY)
    assert old in text
    refuses(attention.attention, parse(text.replace(old, new)), words)


@pytest.mark.parametrize("mask", [(1, 1, 4, 5), (3, 1, 1, 5), (3, 1, 1, 1), (1, 1, 4, 1), (4, 5), (5,)])
@pytest.mark.parametrize("batch", [1, 3])
def test_attention_in_a_session_needs_no_proof_of_the_batch(mask: tuple[int, ...], batch: int) -> None:
    dims = ", ".join(f"M{i}" for i in range(len(mask)))
    text = ATTENTION.format(mask=f"float[{dims}] m", body=BODY)
    feed = {**qkv(batch, 2, 4, 5, 8, 6), "m": f32(*mask)}
    model = parse(text)
    count = keeps_function(model, lambda m: attention.attention(m, standard=False), [feed])
    assert count == 1
    assert "Softmax" not in ops(model)


SOFTMAX = """g (float[{x}] x) => (float[{y}] y) {{
    f = Flatten <axis = {axis}> (x)  s = LogSoftmax <axis = -1> (f)  n = Shape (x)  y = Reshape (s, n) }}"""


def test_softmax_of_flattened() -> None:
    text = SOFTMAX.format(x="a, 3, 5", y="a, 3, 5", axis=2)
    applies(shape.softmax_of_flattened, parse(text), ["LogSoftmax"], {"x": f32(2, 3, 5)}, {"x": f32(1, 3, 5)})
    wide = parse(SOFTMAX.format(x="a, 3, 5", y="a, 3, 5", axis=1))
    refuses(shape.softmax_of_flattened, wide, "over several dimensions")
    moved = parse(
        SOFTMAX.format(x="a, 5", y="b, c", axis=1).replace(
            "n = Shape (x)", "n = Constant <value = int64[2] {5, 2}> ()"
        )
    )
    refuses(shape.softmax_of_flattened, moved, "another shape")


# ---- extremes -------------------------------------------------------------------------------------------


def _spelled_extreme(
    op: str, axes: str, keep: int, other: str = "", nan: str = "value_float = nan"
) -> ir.Model:
    """An extreme that sees a NaN, of `axes`; `other` axes for the flags where they are to differ."""
    arg = op.startswith("Arg")
    over = f"<axis = {axes}, keepdims = {keep}> (x)" if arg else f"<keepdims = {keep}> (x, axes)"
    found = f"found = ArgMax <axis = {axes}, keepdims = {keep}> (flags)" if arg else ""
    return parse(f"""
    agraph (float[a, b] x) => ({"int64" if arg else "float"}[c] z) {{
        axes = Constant <value_ints = [{axes}]> ()
        others = Constant <value_ints = [{other or axes}]> ()
        nan = Constant <{nan}> ()
        isnan = IsNaN (x)
        flags = Cast <to = 6> (isnan)
        some = ReduceMax <keepdims = {keep}> (flags, others)
        any = Cast <to = 9> (some)
        {found}
        y = {op} {over}
        z = Where (any, {"found" if arg else "nan"}, y)
    }}""")


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin", "ArgMax", "ArgMin"])
def test_extreme(op: str, keep: int) -> None:
    x, y = f32(3, 5), f32(4, 1)
    x[1, 2], x[1, 4], x[2, 0] = np.nan, np.nan, np.inf
    model = _spelled_extreme(op, "1", keep)
    applies(extreme.RULES[0], model, [op], {"x": x}, {"x": y}, standard=False)
    refuses(extreme.RULES[0], _spelled_extreme(op, "1", keep), "other runtimes", standard=True)
    refuses(extreme.RULES[0], _spelled_extreme(op, "1", keep, "0"), "other axes", standard=False)
    if op.startswith("Reduce"):
        wide = _spelled_extreme(op, "1", keep, nan="value = float[1, 1, 1] {nan}")
        refuses(extreme.RULES[0], wide, "has axes", standard=False)
