"""ONNX's own backend node tests as (node, inputs, expected outputs), each at its newest version."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx_ir as ir


@dataclass(frozen=True)
class Case:
    name: str
    model: ir.Model
    inputs: list[Any]
    outputs: list[Any]
    rtol: float
    atol: float

    @property
    def node(self) -> ir.Node:
        return self.model.graph[0]


@cache
def cases(any_version: bool = False) -> list[Case]:
    """Every one-node case whose declared opset is the operator's newest (or any); multi-node cases are left
    out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    found: list[Case] = []
    for case in collected:
        graph = case.model.graph
        if len(graph.node) != 1:
            continue
        node = graph.node[0]
        version = {o.domain: o.version for o in case.model.opset_import}[node.domain]
        newest = onnx.defs.get_schema(node.op_type, domain=node.domain).since_version
        if (
            onnx.defs.get_schema(node.op_type, version, node.domain).since_version != newest
            and not any_version
        ):
            continue
        model = ir.from_proto(case.model)
        for inputs, outputs in case.data_sets:
            found.append(
                Case(
                    case.name,
                    model,
                    [plain(v) for v in inputs],
                    [plain(v) for v in outputs],
                    case.rtol,
                    case.atol,
                )
            )
    return found


def plain(value: Any) -> Any:
    """An array, list of arrays or None for what a case holds; strings are objects."""
    if isinstance(value, onnx.TensorProto):
        value = onnx.numpy_helper.to_array(value)
    if isinstance(value, onnx.SequenceProto):
        return onnx.numpy_helper.to_list(value)
    if isinstance(value, onnx.OptionalProto):
        return onnx.numpy_helper.to_optional(value)
    if value is None or isinstance(value, list | dict):
        return value
    value = np.asarray(value)
    if value.dtype.kind in "SU":
        return value.astype(object)
    return value


def node_inputs(case: Case) -> list[Any]:
    """The case's inputs in the node's positions, None where an optional one is absent."""
    by_name = dict(zip([v.name for v in case.model.graph.inputs], case.inputs, strict=False))
    return [None if v is None else by_name.get(v.name) for v in case.node.inputs]


def node_outputs(case: Case) -> list[Any]:
    """The expected outputs in the node's positions, None where the case does not say."""
    by_name = dict(zip([v.name for v in case.model.graph.outputs], case.outputs, strict=False))
    return [by_name.get(v.name) for v in case.node.outputs]


def assert_same(got: np.ndarray, want: np.ndarray, rtol: float, atol: float) -> None:
    assert got.dtype == want.dtype, f"dtype {got.dtype}, expected {want.dtype}"
    assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
    if want.dtype.kind in "Ob" or want.dtype.kind in "iu":
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_allclose(
            got.astype(np.complex128), want.astype(np.complex128), rtol=rtol, atol=atol
        )
