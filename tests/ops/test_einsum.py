"""Einsum: NumPy's numbers for every kind of subscript and every dtype, and no host."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import ingot
from tests.compiler.test_lowering import floats, kernels
from tests.ops.native import native
from tests.ops.test_native import values

PRODUCTS = [
    ("ij,jk->ik", [(3, 4), (4, 5)]),
    ("bhqd,bhkd->bhqk", [(2, 3, 5, 7), (2, 3, 4, 7)]),
    ("bhqk,bkhd->bqhd", [(2, 3, 5, 7), (2, 7, 3, 4)]),  # the result lies in another order
    ("nd,edh->neh", [(5, 6), (3, 6, 4)]),
    ("abcd,cdab->ab", [(2, 3, 4, 5), (4, 5, 2, 3)]),  # neither rows nor columns
    ("i,j->ij", [(4,), (5,)]),  # nothing to sum
    ("i,i->", [(9,), (9,)]),
    ("...ij,jk->...ik", [(2, 3, 4, 5), (5, 6)]),
    ("ij,kj", [(3, 4), (5, 4)]),
    ("ba,ac->bc", [(3, 0), (0, 5)]),  # an empty sum
    ("ba,ac->bc", [(0, 3), (3, 5)]),
    ("bchw,cd,bdhw->bhw", [(2, 3, 4, 5), (3, 6), (2, 6, 4, 5)]),
    ("ij,kl,jk->il", [(3, 4), (5, 6), (4, 5)]),
    ("neh,ehd,ne->nd", [(5, 3, 4), (3, 4, 6), (5, 3)]),
    ("ij,jk,kl,lm->im", [(2, 3), (3, 4), (4, 5), (5, 6)]),
    ("abc->cab", [(2, 3, 4)]),
]
OTHERS = [
    ("ii->i", [(4, 4)]),
    ("ij->i", [(3, 4)]),
    ("ij,k->k", [(3, 4), (5,)]),
    ("bij,bjk->bik", [(1, 3, 4), (2, 4, 5)]),
    ("ii,ij->j", [(4, 4), (4, 5)]),
    ("iij,jk,lk->ilk", [(3, 3, 4), (4, 5), (2, 5)]),
    ("ij->", [(3, 4)]),
    ("i,ij,j->i", [(3,), (3, 40), (40,)]),
]


def outcome(
    equation: str, arrays: list[np.ndarray], constant: int | None
) -> tuple[ingot.InferenceSession, np.ndarray]:
    """The session and its result, with one of the operands a weight of the model."""
    names = [f"x{i}" for i in range(len(arrays))]
    node = helper.make_node("Einsum", names, ["y"], equation=equation)
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info(n, float32, a.shape)
            for i, (n, a) in enumerate(zip(names, arrays, strict=True))
            if i != constant
        ],
        [helper.make_tensor_value_info("y", float32, None)],
        [onnx.numpy_helper.from_array(arrays[constant], names[constant])] if constant is not None else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = ingot.InferenceSession(model)
    feed = {n: a for i, (n, a) in enumerate(zip(names, arrays, strict=True)) if i != constant}
    session.run(None, feed)
    (result,) = session.run(None, feed)
    return session, result


@pytest.mark.parametrize(("equation", "shapes"), PRODUCTS + OTHERS)
def test_einsum_is_numpys(equation: str, shapes: list[tuple[int, ...]]) -> None:
    arrays = [floats(*shape, seed=i) for i, shape in enumerate(shapes)]
    wanted = np.einsum(equation, *[a.astype(np.float64) for a in arrays])
    for constant in [None, *range(len(arrays) if len(arrays) > 1 else 0)]:
        _, result = outcome(equation, arrays, constant)
        assert result.shape == wanted.shape
        np.testing.assert_allclose(result, wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("equation", "shapes"), [p for p in PRODUCTS if len(p[1]) > 1])
def test_products_run_as_generated_code(equation: str, shapes: list[tuple[int, ...]]) -> None:
    arrays = [floats(*shape, seed=i) for i, shape in enumerate(shapes)]
    session, result = outcome(equation, arrays, None)
    assert not result.size or any("gemm" in k or "matmul" in k for k in kernels(session)), kernels(session)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int8", "uint16", "int32", "uint64"])
def test_every_dtype_and_subscript_has_kernels(dtype: str) -> None:
    for equation, shapes in PRODUCTS + OTHERS:
        arrays = [values(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes)]
        for fed in {(0,), tuple(range(len(arrays)))}:
            tolerance = {"float16": 5e-3, "bfloat16": 5e-2}.get(dtype)
            native("Einsum", arrays, fed=fed, equation=equation, tolerance=tolerance)
