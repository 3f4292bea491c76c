"""ONNX's whole node suite, of every opset and with function bodies, normalised and then interpreted."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from ingot.ops.interpreter import interpret
from ingot.passes.opset import normalise
from tests.ops.onnx_cases import assert_same, plain

RANDOM = "draws random numbers"


@cache
def suite() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return {case.name: case for case in collect_testcases(None)}


def reason(name: str) -> str | None:
    if "bernoulli" in name or "training_dropout" in name:
        return RANDOM
    return None


@pytest.mark.parametrize("part", range(8))
def test_suite(part: int) -> None:
    """An eighth of the suite; every failure is reported."""
    failures: list[str] = []
    checked = 0
    for case in list(suite().values())[part::8]:
        if reason(case.name):
            continue
        model = normalise(ir.from_proto(case.model))
        for inputs, outputs in case.data_sets:
            given = dict(zip([v.name for v in model.graph.inputs], map(plain, inputs), strict=False))
            got = interpret(model, given)
            checked += 1
            for array, want in zip(got.values(), map(plain, outputs), strict=False):
                try:
                    _compare(array, want, case.rtol, case.atol)
                except AssertionError as error:
                    failures.append(f"{case.name}: {' '.join(str(error).split())[:200]}")
    assert checked > 150
    assert not failures, "\n".join(failures)


def _compare(got: Any, want: Any, rtol: float, atol: float) -> None:
    if isinstance(want, list):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            _compare(a, b, rtol, atol)
    elif want is None:
        assert got is None
    else:
        # The expected numbers were rounded at every step, ours once at the end: two units in the last place.
        ulps = {np.dtype(np.float16): 2.0**-9, np.dtype(ml_dtypes.bfloat16): 2.0**-6}
        assert_same(np.asarray(got), want, max(rtol, ulps.get(want.dtype, 0.0)), atol)
