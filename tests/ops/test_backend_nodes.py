"""Every registered operator against ONNX's own node tests: inferred shapes and dtypes, evaluated numbers."""

from __future__ import annotations

import numpy as np
import pytest

from ingot.ops.registry import Facts, facts_of, find, operators
from tests.ops.onnx_cases import Case, assert_same, cases, node_inputs, node_outputs

REGISTERED = {(op.domain, op.name): op for op in operators()}
CASES = [c for c in cases() if (c.node.domain, c.node.op_type) in REGISTERED]
#: Sequences have no Facts: what touches one is evaluated without inference.
PLAIN = [c for c in CASES if all(isinstance(v, np.ndarray) or v is None for v in [*c.inputs, *c.outputs])]


def _ids(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", PLAIN, ids=_ids)
def test_infer(case: Case) -> None:
    op = REGISTERED[case.node.domain, case.node.op_type]
    expected = node_outputs(case)
    known = [None if v is None else facts_of(v) for v in node_inputs(case)]
    inferred = op.infer(case.node, known)
    if inferred is not None:
        assert len(inferred) == len(case.node.outputs)
        for facts, want in zip(inferred, expected, strict=True):
            if want is not None:
                assert facts is not None
                assert (facts.shape, facts.dtype) == (want.shape, want.dtype)
                assert all(type(size) is int for size in facts.shape)
    # Without values it must come to the same answer, or to none.
    unknown = [None if v is None else Facts(v.dtype, v.shape) for v in node_inputs(case)]
    blind = op.infer(case.node, unknown)
    if blind is not None:
        for facts, want in zip(blind, expected, strict=True):
            if want is not None:
                assert facts is not None
                assert (facts.shape, facts.dtype) == (want.shape, want.dtype)


@pytest.mark.parametrize("case", CASES, ids=_ids)
def test_evaluate(case: Case) -> None:
    op = find(case.node.domain, case.node.op_type)
    if op.subgraphs:
        pytest.skip("driven by the session: see test_interpreter")
    got = op.evaluate(case.node, node_inputs(case))
    for array, want in zip(got, node_outputs(case), strict=False):
        if want is None:
            continue
        if op.random:
            assert array.shape == want.shape
            continue
        if isinstance(want, list):
            assert len(array) == len(want)
            for a, w in zip(array, want, strict=True):
                assert_same(a, w, case.rtol, case.atol)
        else:
            assert_same(array, want, case.rtol, case.atol)
