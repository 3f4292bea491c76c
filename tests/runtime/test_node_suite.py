"""ONNX's node suite through the session with all but the first input constant: how weights, shapes and axes
come in real files, and what most generated kernels ask for. (tests/conformance feeds everything at run time.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ingot
from tests.ops.onnx_cases import Case, assert_same, cases

LEFT_OUT = (
    "Dropout",
    "Bernoulli",
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
)
#: random numbers
CASES = {case.name: case for case in cases() if case.node.op_type not in LEFT_OUT}


def is_plain(values: list[Any]) -> bool:
    """Sequences and optionals cannot be constants of a file."""
    return all(isinstance(v, np.ndarray) for v in values)


PLAIN = [name for name, case in CASES.items() if is_plain([*case.inputs, *case.outputs]) and case.inputs]


def check(model: ir.Model, case: Case, feed: dict[str, np.ndarray]) -> None:
    session = ingot.InferenceSession(model)
    for _ in range(2):  # the second run uses memory that the first one has written
        for got, want in zip(session.run(None, feed), case.outputs, strict=True):
            assert_same(got, want, max(case.rtol, 1e-5), max(case.atol, 2e-6))


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
