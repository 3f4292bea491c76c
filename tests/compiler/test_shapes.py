"""A plan follows from the graph and the shapes alone. What a session has worked out for other shapes, and
keeps, does not show in it: table for table, it is the plan of a session that never saw any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx.numpy_helper
import onnx.parser
import pytest

import ingot
from ingot.compiler.plan import Plan

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'

IMAGES = """g (float[n, 3, h, w] x) => (float[n, 10] y, float[n, c, a, b] z) {
    p = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(x, stem, stem_bias)
    q = Relu(p)
    r = Conv<pads=[0, 0, 0, 0]>(q, expand, expand_bias)
    zero = Constant<value_float=0.0>()
    six = Constant<value_float=6.0>()
    s = Clip(r, zero, six)
    t = Conv<pads=[1, 1, 1, 1], group=64, strides=[1, 1]>(s, depthwise, expand_bias)
    u = Clip(t, zero, six)
    v = Conv(u, project, stem_bias)
    added = Add(v, q)
    wide = Conv<pads=[1, 1, 1, 1]>(added, square, stem_bias)
    gate = Sigmoid(wide)
    silu = Mul(wide, gate)
    joined = Concat<axis=1>(silu, added)
    small = MaxPool<kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1]>(joined)
    z = Conv(small, expand2)
    m = GlobalAveragePool(z)
    f = Flatten(m)
    y = Gemm(f, head, head_bias)
}"""
IMAGE_WEIGHTS = {
    "stem": (32, 3, 3, 3), "stem_bias": (32,), "expand": (64, 32, 1, 1), "expand_bias": (64,),
    "depthwise": (64, 1, 3, 3), "project": (32, 64, 1, 1), "square": (32, 32, 3, 3),
    "expand2": (40, 64, 1, 1), "head": (40, 10), "head_bias": (10,),
}  # fmt: skip

# Growing an image before a convolution of a join: no node of the graph stands for some of what is computed.
GROWN = """g (float[n, 8, h, w] x, float[n, 8, a, b] s) => (float[n, 16, c, d] y) {
    scales = Constant<value=float[4] {1.0, 1.0, 2.0, 2.0}>()
    grown = Resize<mode="linear">(x, , scales)
    joined = Concat<axis=1>(grown, s)
    p = Conv(joined, weights, bias)
    y = Relu(p)
}"""
GROWN_WEIGHTS = {"weights": (16, 16, 1, 1), "bias": (16,)}

TOKENS = """g (float[n, t, 32] x) => (float[n, t, 32] y) {
    split = Constant<value_ints=[0, 0, 4, 8]>()
    back = Constant<value_ints=[0, 0, 32]>()
    l = LayerNormalization(x, scale, bias)
    q = MatMul(l, wq)
    k = MatMul(l, wk)
    v = MatMul(l, wv)
    q4 = Reshape(q, split)
    k4 = Reshape(k, split)
    v4 = Reshape(v, split)
    qt = Transpose<perm=[0, 2, 1, 3]>(q4)
    kt = Transpose<perm=[0, 2, 3, 1]>(k4)
    vt = Transpose<perm=[0, 2, 1, 3]>(v4)
    scores = MatMul(qt, kt)
    part = Softmax<axis=-1>(scores)
    mixed = MatMul(part, vt)
    turned = Transpose<perm=[0, 2, 1, 3]>(mixed)
    flat = Reshape(turned, back)
    o = MatMul(flat, wo)
    ob = Add(o, bias)
    r = Add(ob, x)
    up = MatMul(r, wide)
    g1 = Gelu(up)
    down = MatMul(g1, narrow)
    y = Add(down, r)
}"""
TOKEN_WEIGHTS = {
    "scale": (32,), "bias": (32,), "wq": (32, 32), "wk": (32, 32), "wv": (32, 32), "wo": (32, 32),
    "wide": (32, 96), "narrow": (96, 32),
}  # fmt: skip

Shapes = list[dict[str, tuple[int, ...]]]


def images(*sizes: tuple[int, ...]) -> Shapes:
    return [{"x": (n, 3, h, w)} for n, h, w in sizes]


# Sizes on both sides of what decides: bands of rows (large images), Winograd (enough tiles), tails of tiles,
# 1 and 0.
CASES = {
    "images": (
        IMAGES, IMAGE_WEIGHTS,
        images((1, 32, 32), (2, 33, 31), (1, 1, 1), (0, 16, 16), (1, 320, 256), (3, 7, 64), (1, 300, 260),
               (1, 2, 3), (1, 512, 64), (8, 32, 32), (1, 96, 2), (2, 320, 256)),
    ),
    "grown": (
        GROWN, GROWN_WEIGHTS,
        [{"x": (n, 8, h, w), "s": (n, 8, 2 * h, 2 * w)}
         for n, h, w in ((1, 8, 8), (2, 5, 7), (1, 1, 1), (0, 4, 4), (1, 40, 33), (1, 64, 64))],
    ),
    "tokens": (
        TOKENS, TOKEN_WEIGHTS,
        [{"x": (n, t, 32)}
         for n, t in ((1, 7), (3, 33), (1, 1), (0, 5), (2, 0), (1, 128), (4, 64), (1, 513))],
    ),
}  # fmt: skip


def session_of(text: str, weights: dict[str, tuple[int, ...]], threads: int) -> ingot.InferenceSession:
    model = onnx.parser.parse_model(HEADER + text)
    random = np.random.default_rng(0)
    for name, shape in weights.items():
        array = random.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    options = ingot.SessionOptions()
    options.intra_op_num_threads = threads
    return ingot.InferenceSession(model, options)


def plans(session: ingot.InferenceSession, shapes: dict[str, tuple[int, ...]]) -> Plan:
    """The plan for these shapes, which does not run."""
    driver = session._driver
    feeds = [np.zeros(shapes[str(value.name)], np.float32) for value in driver.index.inputs]
    stage = driver._stage(driver._stages, 0, driver._feeds, feeds, {}, driver.index)
    return stage.plan


def tables(plan: Plan) -> list[Any]:
    """Everything in a plan; for each constant, of which every session has its own, not where it lies."""
    kept = [(array.ctypes.data, array) for array in plan.keep]
    words: list[Any] = plan.words.tolist()
    for number, word in enumerate(words):
        for which, (start, array) in enumerate(kept):
            if start <= word < start + max(array.nbytes, 1):
                words[number] = (which, word - start)
    return [
        words, plan.rows.tolist(), plan.arena_words.tolist(), plan.arena_offsets.tolist(),
        plan.input_patches, plan.output_patches, plan.parts, plan.arena_bytes, plan.scratch_bytes,
        [(plan.offset(check.flag), check.message) for check in plan.checks], plan.kinds, plan.is_long,
        [row[:4] for row in plan.told], [array.tobytes() for _, array in kept],
    ]  # fmt: skip


def assert_same(found: Plan, wanted: Plan, shapes: dict[str, tuple[int, ...]]) -> None:
    for number, (a, b) in enumerate(zip(tables(found), tables(wanted), strict=True)):
        assert a == b, f"shapes {shapes}: table {number} depends on what was planned before"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_a_plan_is_that_of_a_session_that_saw_nothing_else(name: str, threads: int) -> None:
    text, weights, shapes = CASES[name]
    session = session_of(text, weights, threads)
    first: Sequence[Plan] = [plans(session, each) for each in shapes]
    kinds = {tuple(label for _, label, *_ in plan.told) for plan in first}
    assert len(kinds) > 1, "these shapes were chosen because they come to different kernels"
    session._driver._stages.clear()
    for each, before in reversed(list(zip(shapes, first, strict=True))):
        assert_same(plans(session, each), before, each)
        assert_same(before, plans(session_of(text, weights, threads), each), each)
