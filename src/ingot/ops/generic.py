"""Operators as `onnx.reference` evaluates them: the default of `Op.evaluate`, and a class for operators
without their own.

Nothing is known of their shapes before they have run.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# onnx.reference has no annotations.

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from ingot.errors import UnsupportedOperatorError
from ingot.ops.registry import Op, label

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator

_CACHE = "ingot.ops.reference"
_STRING = onnx.TensorProto.STRING


def reference_evaluate(node: ir.Node, inputs: Sequence[Any]) -> list[Any]:
    """Runs one node in `onnx.reference`. Sequences are lists of arrays, an absent optional is None.

    Raises `UnsupportedOperatorError` when the reference has no implementation for these inputs.
    """
    # Function operators are expanded by the inputs' types, so those are part of the key.
    key = tuple(_type_key(value) for value in inputs)
    cache: dict[Any, ReferenceEvaluator] = node.meta.setdefault(_CACHE, {})
    runner = cache.get(key)
    if runner is None:
        from onnx.reference import ReferenceEvaluator

        try:
            runner = cache[key] = ReferenceEvaluator(_one_node_model(node, inputs))
        except (NotImplementedError, RuntimeError, TypeError, onnx.defs.SchemaError) as error:
            raise UnsupportedOperatorError(
                f"{label(node)}: onnx.reference cannot evaluate it for these inputs: {error}. "
                "Rewrite the model without this operator, or give its implementation to ingot.register_op()."
            ) from error
    feeds = {f"i{i}": value for i, value in enumerate(inputs) if _connected(node, i)}
    try:
        with np.errstate(all="ignore"):
            return [_strings_as_objects(value) for value in runner.run(None, feeds)]
    except MemoryError:
        raise
    except Exception as error:  # of whatever kind: the reference checks little of what it is given
        given = ", ".join(_shown(value) for value in inputs)
        raise UnsupportedOperatorError(
            f"{label(node)}: onnx.reference cannot evaluate it for {given}: {type(error).__name__}: {error}. "
            "Check the inputs against the operator's definition."
        ) from error


def _shown(value: Any) -> str:
    """`float32 [2, 3]`, and what is no array by its kind."""
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def _strings_as_objects(value: Any) -> Any:
    # The reference sometimes answers in NumPy's fixed-width strings, which would cut off longer ones later.
    return value.astype(object) if isinstance(value, np.ndarray) and value.dtype.kind in "US" else value


def _type_key(value: Any) -> Any:
    if isinstance(value, list):
        return ("sequence", _type_key(value[0]) if value else None)
    return None if value is None else (value.dtype, value.ndim)


def _connected(node: ir.Node, index: int) -> bool:
    return index < len(node.inputs) and node.inputs[index] is not None


def _one_node_model(node: ir.Node, inputs: Sequence[Any]) -> onnx.ModelProto:
    proto = ir.to_proto(node)
    assert isinstance(proto, onnx.NodeProto)
    names = [f"i{i}" if _connected(node, i) else "" for i in range(len(inputs))]
    while names and not names[-1]:
        names.pop()
    del proto.input[:], proto.output[:]
    proto.input.extend(names)
    proto.output.extend(f"o{i}" if value.name != "" else "" for i, value in enumerate(node.outputs))
    graph = onnx.helper.make_graph(
        [proto],
        "one_node",
        [
            onnx.helper.make_value_info(name, type_proto_of(value))
            for name, value in zip(names, inputs, strict=False)
            if name
        ],
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in proto.output if name],
    )
    version = node.version or (node.graph.opset_imports.get(node.domain) if node.graph is not None else None)
    if version is None:
        version = onnx.defs.onnx_opset_version() if node.domain == "" else 1
    opsets = [onnx.helper.make_opsetid(node.domain, version)]
    if node.domain:
        opsets.append(onnx.helper.make_opsetid("", onnx.defs.onnx_opset_version()))
    return onnx.helper.make_model(graph, opset_imports=opsets)


def type_proto_of(value: Any) -> onnx.TypeProto:
    """The type of an array, a list of arrays, or of None, of which nothing is known."""
    if value is None:
        return onnx.TypeProto()
    if isinstance(value, list):
        element = type_proto_of(value[0]) if value else onnx.TypeProto()
        return onnx.helper.make_sequence_type_proto(element)
    return onnx.helper.make_tensor_type_proto(element_type(value.dtype), value.shape)


def element_type(dtype: np.dtype[Any]) -> int:
    """ONNX's element type for a NumPy or ml_dtypes dtype; `object` and NumPy's own strings are STRING."""
    if dtype.kind in "OUS":
        return _STRING
    return int(ir.DataType.from_numpy(dtype))


_MODULES = {
    "": "onnx.reference.ops._op_list",
    "ai.onnx.ml": "onnx.reference.ops.aionnxml._op_list",
    "ai.onnx.preview": "onnx.reference.ops.aionnx_preview._op_list",
    "ai.onnx.preview.training": "onnx.reference.ops.aionnx_preview_training._op_list",
}


def _implemented(domain: str, op_type: str) -> bool:
    if domain not in _MODULES:
        return False
    # Slow to import, so only models with such operators pay. Each module lists its operators as names of
    # its own.
    names = vars(importlib.import_module(_MODULES[domain]))
    return any(name == op_type or name.startswith(f"{op_type}_") for name in names)


class GenericOp(Op):
    """An operator that only `onnx.reference` knows; one class per operator is made by `generic_op`."""


def generic_op(domain: str, op_type: str) -> Op | None:
    """An `Op` for an operator with a schema and a reference implementation, None where there is none."""
    try:
        schema = onnx.defs.get_schema(op_type, domain=domain)
    except onnx.defs.SchemaError:
        return None
    functions = ("has_function", "has_context_dependent_function")  # which the stubs do not know
    if not (_implemented(domain, op_type) or any(getattr(schema, name) for name in functions)):
        return None
    # A schema does not say that its operator draws random numbers; the names do.
    random = op_type in ("Bernoulli", "Multinomial") or op_type.startswith("Random")
    cls = type(
        op_type, (GenericOp,), {"__doc__": f"{op_type}, as onnx.reference evaluates it.", "random": random}
    )
    cls.name, cls.since, cls.domain = op_type, schema.since_version, domain
    return cls()
