"""Classifiers whose classes are strings: they name places instead, so that kernels can compute them."""

from __future__ import annotations

import onnx_ir as ir

from ingot.passes.edit import Editor, graphs_of, replace

_CLASSIFIERS = frozenset(["LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"])
_STRINGS = "classlabels_strings"


def number_classes(model: ir.Model) -> int:
    """Classifier(x; strings) == Gather(strings, Classifier(x; 0, 1, …)) of ai.onnx.ml; returns how many."""
    if "ai.onnx.ml" not in model.opset_imports:
        return 0
    found = [node for graph in graphs_of(model) for node in graph if node.domain and _names_strings(node)]
    for node in found:
        g = Editor(node)
        attributes = dict(node.attributes.data)
        names = list(attributes.pop(_STRINGS).as_strings())
        numbers = "classlabels_int64s" if node.op_type == "TreeEnsembleClassifier" else "classlabels_ints"
        attributes[numbers] = ir.Attr(numbers, ir.AttributeType.INTS, tuple(range(len(names))))
        outputs = g.ops(node.op_type, node.inputs, len(node.outputs), node.domain, **attributes)
        classes = g.op("Gather", g.op("Constant", value_strings=names), outputs[0], axis=0)
        made = outputs[0].producer()
        assert made is not None
        name = node.name or node.outputs[0].name  # by which errors know it
        replace(node, [classes, *outputs[1:]])
        made.name = name
    return len(found)


def _names_strings(node: ir.Node) -> bool:
    if node.op_type not in _CLASSIFIERS or node.domain != "ai.onnx.ml":
        return False
    strings = node.attributes.get(_STRINGS)
    return strings is not None and len(strings.value) > 0
