"""ONNX's node suite through the session: everything fed while running, and again with all but the first input
constant.

The second form is how weights, shapes and axes come in real files, and what most generated kernels ask for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ingot
from tests.ops.onnx_cases import Case, assert_same, cases

LEFT_OUT = (
    "ImageDecoder",
    "Dropout",
    "Bernoulli",
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
)
#: random numbers, and what onnx.reference needs Pillow for
CASES = {case.name: case for case in cases() if case.node.op_type not in LEFT_OUT}
#: What no session can take as input yet: sequences, optionals, elements narrower than a byte.
NARROW = ("int4", "uint4", "int2", "uint2", "float4e2m1fn")


def is_plain(values: list[Any]) -> bool:
    return all(isinstance(v, np.ndarray) and v.dtype.name not in NARROW for v in values)


PLAIN = [name for name, case in CASES.items() if is_plain([*case.inputs, *case.outputs]) and case.inputs]


def check(model: ir.Model, case: Case, feed: dict[str, np.ndarray]) -> None:
    session = ingot.InferenceSession(model)
    for _ in range(2):  # the second run uses memory that the first one has written
        for got, want in zip(session.run(None, feed), case.outputs, strict=True):
            assert_same(got, want, max(case.rtol, 1e-5), max(case.atol, 2e-6))


@pytest.mark.parametrize("name", PLAIN)
def test_fed(name: str) -> None:
    case = CASES[name]
    names = [v.name for v in case.model.graph.inputs]
    check(case.model, case, dict(zip(names, case.inputs, strict=True)))


@pytest.mark.parametrize("name", [name for name in PLAIN if len(CASES[name].inputs) > 1])
def test_constant(name: str) -> None:
    case = CASES[name]
    model = case.model.clone()
    graph = model.graph
    for value, array in list(zip(graph.inputs, case.inputs, strict=True))[1:]:
        if array.dtype == object:
            pytest.skip("strings are fed")
        value.const_value = ir.tensor(array, name=value.name)
        graph.inputs.remove(value)
        graph.register_initializer(value)
    check(model, case, {graph.inputs[0].name or "": case.inputs[0]})
