"""Brings a model to one opset: local functions are inlined, old operators rewritten (`upgrades.py`)."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from ingot.errors import ModelError
from ingot.passes import gradient
from ingot.passes.edit import Editor, graphs_of, rank_of, replace, reserve_names
from ingot.passes.upgrades import UPGRADES

#: The opset that everything behind the door speaks.
NEWEST: int = onnx.defs.onnx_opset_version()


def normalise(model: ir.Model, target: int = NEWEST) -> ir.Model:
    """Upgrades `model` in place to opset `target` of the main domain, without local functions; returns it.

    requires: nothing. ensures: `model.opset_imports[""] == target`, `model.functions` is empty, and every
    node means what the operator means at `target`. A model at or above `target` is left at its opset.
    Raises `UnsupportedOperatorError` naming node, operator and opset where an old meaning has no newer
    form.
    """
    if model.functions:
        common.InlinePass()(model)
    _upgrade_all(model, target)
    if gradient.DOMAIN in model.opset_imports:
        gradient.expand_gradients(model)
    return model


def _upgrade_all(model: ir.Model, target: int) -> None:
    declared = model.opset_imports.get("")
    if declared is None:
        if any(node.domain == "" for graph in graphs_of(model) for node in graph):
            raise ModelError(
                "The model does not say which opset its operators are of. Add an opset_import for ai.onnx."
            )
        return
    if declared >= target:
        return
    reserve_names(model)
    nodes = [node for graph in graphs_of(model) for node in list(graph) if node.domain == ""]
    if any(_lacks_types(node, declared, target) for node in nodes):
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    for node in nodes:
        version = node.version if node.version is not None else declared
        if version < 6:
            node.attributes.pop("consumed_inputs", None)
        _upgrade(node, version, target)
    for graph in graphs_of(model):
        graph.opset_imports[""] = target
        for node in graph:
            if node.domain == "":
                node.version = None
    model.opset_imports[""] = target


def _lacks_types(node: ir.Node, declared: int, target: int) -> bool:
    """Whether an upgrade wants to know dtypes or ranks that the file does not declare. (Inferring them means
    to write the whole model and to read it again: half of the time that opening such a file takes.)
    """
    if not any(entry.types and declared < entry.to <= target for entry in UPGRADES.get(node.op_type, ())):
        return False
    return any(v is not None and (rank_of(v) is None or v.dtype is None) for v in node.inputs)


def _upgrade(node: ir.Node, version: int, target: int) -> None:
    node.version = version  # so that errors name the opset that the file declares
    for entry in UPGRADES.get(node.op_type, ()):
        if version < entry.to <= target:
            values = entry.function(Editor(node), node)
            if values is not None:
                replace(node, values)
                return
