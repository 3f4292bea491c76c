"""Nodes that break their operator's definition: looked for when something failed, not in every model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import onnx
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.ops.registry import label
from ingot.passes.edit import graphs_of

#: What Python and NumPy raise over a node with too few inputs, or an attribute of another type.
SYMPTOMS = (TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError, ZeroDivisionError)


def malformed(model: ir.Model) -> ModelError | None:
    """The first node whose inputs, outputs or attributes are not as its operator's schema has them."""
    for graph in graphs_of(model):
        for node in graph:
            found = malformed_node(node, model.opset_imports)
            if found is not None:
                return found
    return None


def malformed_node(node: ir.Node, opsets: Mapping[str, int]) -> ModelError | None:
    """The same of one node."""
    version = node.version or opsets.get(node.domain)
    found = None if version is None else _fault(node, version)
    if found is None:
        return None
    return ModelError(f"{label(node)}: {found}. Export the model again; onnx.checker finds these.")


def require_form(node: ir.Node) -> None:
    """Raises ModelError for a node that a pass could make nothing of, where that is the node's own fault."""
    graph = node.graph  # a body has no opsets: what is wrong in it, is refused where it runs
    found = None if graph is None else malformed_node(node, graph.opset_imports)
    if found is not None:
        raise found


def _fault(node: ir.Node, version: int) -> str | None:
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return None  # nobody's, or Ingot's own
    for kind, values, least, most in (
        ("inputs", node.inputs, schema.min_input, schema.max_input),
        ("outputs", node.outputs, schema.min_output, schema.max_output),
    ):
        if not least <= len(values) <= most:
            wanted = (
                f"{least}" if least == most else f"{least} or more" if most > 99 else f"{least} to {most}"
            )
            return f"it has {len(values)} {kind}, and the operator has {wanted}"
    for i, definition in enumerate(schema.inputs):
        is_single = definition.option == onnx.defs.OpSchema.FormalParameterOption.Single
        if is_single and node.inputs[i] is None:
            return f"input {i} ({definition.name}) is missing, and the operator requires it"
    for name, definition in schema.attributes.items():
        attribute = node.attributes.get(name)
        if attribute is None:
            if definition.required:
                return f"attribute {name!r} is missing, and the operator requires it"
            continue
        wanted = ir.AttributeType(cast("Any", definition.type).value)
        if attribute.type != wanted:
            return f"attribute {name!r} is of type {attribute.type.name}, and must be {wanted.name}"
    if node.op_type == "Cast" and node.attributes["to"].value not in set(ir.DataType) - {0}:
        return f"attribute 'to' is {node.attributes['to'].value}, which is no type of ONNX"
    return None
