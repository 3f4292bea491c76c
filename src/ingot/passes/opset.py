"""Brings a model to one opset: local functions are inlined, old operators rewritten (`upgrades.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from ingot.errors import ModelError, UnsupportedOperatorError
from ingot.ops.registry import DECLARED, label
from ingot.passes import gradient
from ingot.passes.contrib import BLOCKED, DOMAIN, LOWEST, MISPLACED, blocked, expand_contrib
from ingot.passes.edit import (
    Editor,
    fixed_graphs,
    graphs_added,
    graphs_of,
    rank_of,
    replace,
    reserve_names,
    subgraphs_of,
)
from ingot.passes.origins import ORIGINS
from ingot.passes.upgrades import UPGRADES

#: The opset that everything behind the door speaks.
NEWEST: int = onnx.defs.onnx_opset_version()


def normalise(model: ir.Model, target: int = NEWEST) -> ir.Model:
    """Upgrades `model` in place to opset `target` of the main domain, without local functions; returns it.

    requires: nothing. ensures: `model.opset_imports[""] == target`, `model.functions` is empty, and every
    node means what the operator means at `target`; names of `fresh` are new to the model. A model at or above
    `target` is left at its opset.
    Raises `UnsupportedOperatorError` naming node, operator and opset where an old meaning has no newer
    form.
    """
    with fixed_graphs(model):
        for graph in (*graphs_of(model), *model.functions.values()):
            if "ai.onnx" in graph.opset_imports:  # the main domain by its long name; its nodes have the short
                graph.opset_imports[""] = graph.opset_imports.pop("ai.onnx")
        if model.functions:
            _inline(model)
            graphs_added(model)
        reserve_names(model)
        nodes = [node for graph in graphs_of(model) for node in graph]
        domains = {node.domain for node in nodes}
        if BLOCKED in domains:
            raise blocked(next(node for node in nodes if node.domain == BLOCKED))
        misplaced = not {node.op_type for node in nodes}.isdisjoint(MISPLACED)
        _upgrade_all(model, [node for node in nodes if node.domain == ""], target)
        if DOMAIN in domains or misplaced:
            if model.opset_imports.get("") is None:
                model.opset_imports[""] = target
            if model.opset_imports[""] >= LOWEST:
                expand_contrib(model)
        if gradient.DOMAIN in domains:
            gradient.expand_gradients(model)
    return model


def _inline(model: ir.Model) -> None:
    """Every call of a local function becomes its nodes, each with the opset that the function declares."""
    imports = model.opset_imports
    for function in model.functions.values():
        for domain, version in list(function.opset_imports.items()):
            if imports.setdefault(domain, version) != version:
                for node in _all_nodes(function):
                    if node.domain == domain and node.version is None:
                        node.version = version
                function.opset_imports[domain] = imports[domain]
    try:
        common.InlinePass()(model)
    except ValueError as error:
        raise UnsupportedOperatorError(
            f"A function of the model cannot be inlined: {error}. Export the model without local functions."
        ) from error


def _all_nodes(graph: ir.Graph | ir.Function) -> Iterator[ir.Node]:
    for node in graph:
        yield node
        for body in subgraphs_of(node):
            yield from _all_nodes(body)


def _upgrade_all(model: ir.Model, nodes: Sequence[ir.Node], target: int) -> None:
    """nodes: those of the main domain."""
    declared = model.opset_imports.get("")
    if declared is None:
        if nodes:
            raise ModelError(
                "The model does not say which opset its operators are of. Add an opset_import for ai.onnx."
            )
        return
    versions = [declared if node.version is None else node.version for node in nodes]
    lowest = min(versions, default=declared)
    target = max([target, *versions])  # functions may be of newer opsets than the model
    _require_known(nodes, versions)
    if lowest >= target:
        return
    changing = [
        (node, version)
        for node, version in zip(nodes, versions, strict=True)
        if node.op_type in UPGRADES and version < UPGRADES[node.op_type][-1].to
    ]
    if any(_lacks_types(node, version, target) for node, version in changing):
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
        _declare_ranks(nodes)
    if lowest < 6:
        for node, version in zip(nodes, versions, strict=True):
            if version < 6:
                node.attributes.pop("consumed_inputs", None)
    may_add = any(
        next(subgraphs_of(node), None) is not None for node, _ in changing
    )  # of others' graphs come none
    for node, version in changing:
        _upgrade(node, version, target)
    if may_add:
        graphs_added(model)
    for node, version in zip(nodes, versions, strict=True):
        if node.version is not None:
            if version != declared:
                node.meta[DECLARED] = version
            node.version = None
    for graph in graphs_of(model):
        graph.opset_imports[""] = target
        graph.meta.setdefault(DECLARED, declared)  # pyright: ignore[reportUnknownMemberType]
    model.opset_imports[""] = target


#: What gives its first input's rank.
_SAME_RANK = frozenset({
    "Abs", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Conv", "ConvTranspose", "Dropout",
    "Elu", "Exp", "Floor", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "Identity",
    "InstanceNormalization", "LRN", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "MaxPool", "Neg",
    "Not", "PRelu", "Pad", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softmax", "Softplus", "Softsign", "Sqrt",
    "Tanh", "Transpose",
})  # fmt: skip


def _declare_ranks(nodes: Sequence[ir.Node]) -> None:
    """Where onnx infers no shapes, as of the oldest Gemm, ranks follow all the same. nodes: in order."""
    for node in nodes:
        if not node.outputs or rank_of(node.outputs[0]) is not None:
            continue
        ranks = [rank_of(value) for value in node.inputs]
        rank = None
        if node.op_type == "Gemm" or (node.op_type == "MatMul" and ranks == [2, 2]):
            rank = 2
        elif node.op_type in _SAME_RANK and ranks:
            rank = ranks[0]
        elif node.op_type in ("Add", "Sub", "Mul", "Div") and len(ranks) == 2:
            rank = None if None in ranks else max(n for n in ranks if n is not None)
        if rank is not None:
            node.outputs[0].shape = ir.Shape([None] * rank)


def _lacks_types(node: ir.Node, declared: int, target: int) -> bool:
    """Whether an upgrade wants to know dtypes or ranks that the file does not declare. (Inferring them means
    to write the whole model and to read it again: half of the time that opening such a file takes.)
    """
    if not any(entry.types and declared < entry.to <= target for entry in UPGRADES.get(node.op_type, ())):
        return False
    return any(v is not None and (rank_of(v) is None or v.dtype is None) for v in node.inputs)


def is_known(op_type: str, version: int) -> bool:
    """Whether the operator has a meaning at that opset. What onnx does not have at all is found out later."""
    first = ORIGINS.get(op_type)
    if first is not None:
        return version >= first
    if not onnx.defs.has(op_type):
        return True
    try:
        onnx.defs.get_schema(op_type, version)
    except onnx.defs.SchemaError:
        return False
    return True


def _require_known(nodes: Sequence[ir.Node], versions: Sequence[int]) -> None:
    """Raises `UnsupportedOperatorError` for an operator that its opset does not have: what it would mean
    there, nobody has written down.
    """
    pairs = {(node.op_type, version): node for node, version in zip(nodes, versions, strict=True)}
    for (op_type, version), node in pairs.items():
        if op_type in _EXPERIMENTS or is_known(op_type, version):
            continue
        every = onnx.defs.get_all_schemas_with_history()
        first = min(s.since_version for s in every if s.domain == "" and s.name == op_type)
        node.version = version
        raise UnsupportedOperatorError(
            f"{label(node)}: {op_type} came with opset {first}. Export the model again with that opset "
            "or a newer one."
        )


#: Operators that opset 1 had as experiments, with the meaning that they were given later.
_EXPERIMENTS = frozenset({"ThresholdedRelu"})


def _upgrade(node: ir.Node, version: int, target: int) -> None:
    node.version = version  # so that errors name the opset that the file declares
    for entry in UPGRADES[node.op_type]:
        if version < entry.to <= target:
            values = entry.function(Editor(node, whole=True), node)
            if values is not None:
                replace(node, values)
                return
