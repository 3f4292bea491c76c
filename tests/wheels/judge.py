"""Where two runtimes differ on a file: which node, and whose rounding it is.

Floats are judged node by node, each on the values that ONNX Runtime has for its inputs, beside its plain
definition in float64. A graph that quantises on its way is cut at every quantised tensor, and each piece
begins with ONNX Runtime's integers: what lies in the middle of two steps may be rounded either way, and then
moves all that follows, in whole steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

import ingot
from ingot.ops.interpreter import interpret
from ingot.passes.opset import normalise

Feed = dict[str, np.ndarray]


def difference(got: np.ndarray, want: np.ndarray) -> float:
    """Relative to the largest reference value; not finite where NaN and infinities lie elsewhere."""
    there = np.isfinite(want)
    if not np.array_equal(np.isfinite(got), there):
        return float("inf")
    if not there.any():
        return 0.0
    largest = np.abs(want[there].astype(np.float64)).max()
    apart = np.abs(got[there].astype(np.float64) - want[there]).max()
    return float(apart / largest) if largest else float(apart)


def plain_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """ONNX Runtime without its rewrites, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def everything(model: onnx.ModelProto, feed: Feed) -> Feed:
    """ONNX Runtime's value of every edge of the main graph."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = list(dict.fromkeys(name for node in model.graph.node for name in node.output if name))
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values = plain_session(shown).run(names, feed)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return weights | dict(feed) | dict(zip(names, values, strict=True))


def one_node(model: onnx.ModelProto, node: onnx.NodeProto, values: Feed) -> onnx.ModelProto:
    """The node alone; constants stay constants, what is computed becomes an input."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    used = list(dict.fromkeys(name for name in node.input if name))
    ends = [
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape
            )
            for name in names
        ]
        for names in ([n for n in used if n not in weights], [n for n in node.output if n])
    ]
    graph = onnx.helper.make_graph([node], "one", *ends, [weights[n] for n in used if n in weights])
    return onnx.helper.make_model(
        graph, opset_imports=list(model.opset_import), functions=list(model.functions), ir_version=10
    )


@dataclass(frozen=True)
class Departure:
    """How far from a node's definition its results are, ours and ONNX Runtime's, of the same inputs."""

    node: str
    ours: float
    theirs: float


def departures(path: Path, feed: Feed) -> list[Departure]:
    """Every node of the main graph with results of floats."""
    model = onnx.load(path)
    values = everything(model, feed)
    found: list[Departure] = []
    for node in model.graph.node:
        names = [name for name in node.output if name and values[name].dtype.kind == "f"]
        own = {name: values[name] for name in node.input if name}
        if not names or any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute):
            continue
        alone = one_node(model, node, values)
        given = {value.name: own[value.name] for value in alone.graph.input}
        exact = interpret(normalise(ir.from_proto(alone)), given)
        ours = dict(zip(exact, ingot.InferenceSession(alone).run(list(exact), given), strict=True))
        for name in names:
            apart = [difference(array, exact[name]) for array in (ours[name], values[name])]
            found.append(Departure(f"{node.op_type} -> {name}", *apart))
    return found


@dataclass(frozen=True)
class Rounding:
    """Integers that two runtimes make of the same ones: how many differ, by how many steps at most, and how
    far from the middle between two steps those lie, in units of the tensor's largest value.
    """

    name: str
    count: int
    steps: int
    off_middle: float


MAKERS = ("QuantizeLinear", "DynamicQuantizeLinear")


def cut(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.NodeProto]]:
    """The model with inputs in the place of all that makes integers of floats, which becomes outputs; and the
    nodes that make them.
    """
    pieces = onnx.ModelProto()
    pieces.CopyFrom(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    makers = [n for n in pieces.graph.node if n.op_type in MAKERS and n.input[0] not in weights]
    renamed = {name: f"{name} (given)" for node in makers for name in node.output}
    for node in pieces.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
    pieces.graph.output.extend(onnx.ValueInfoProto(name=name) for name in renamed)
    return pieces, makers


def roundings(path: Path, feed: Feed) -> tuple[list[Rounding], list[tuple[str, float]]]:
    """Every quantised tensor, and the differences of outputs and scales, which are floats, each made of ONNX
    Runtime's integers before it.
    """
    model = onnx.load(path)
    values = everything(model, feed)
    pieces, makers = cut(model)
    given = dict(feed)
    for name in [name for node in makers for name in node.output]:
        element = onnx.helper.np_dtype_to_tensor_dtype(values[name].dtype)
        pieces.graph.input.append(
            onnx.helper.make_tensor_value_info(f"{name} (given)", element, values[name].shape)
        )
        given[f"{name} (given)"] = values[name]
    wanted = [value.name for value in pieces.graph.output]
    ours = dict(zip(wanted, ingot.InferenceSession(pieces).run(wanted, given), strict=True))
    exact = interpret(normalise(ir.from_proto(pieces)), given, [node.input[0] for node in makers])
    found: list[Rounding] = []
    for node in makers:
        x = np.asarray(exact[node.input[0]], np.float64)
        if node.op_type == "QuantizeLinear":
            real = x / values[node.input[1]]
        else:  # the range has 0 in it
            real = x * 255 / (x.max(initial=0.0) - x.min(initial=0.0))
        integers = [name for name in node.output if values[name].dtype.kind in "iu"]
        for name, reals in zip(integers, (real, real.min(initial=0.0)), strict=False):  # and a zero point
            apart = np.abs(ours[name].astype(np.int64) - values[name].astype(np.int64))
            off = np.abs(reals - np.floor(reals) - 0.5)[apart > 0].max(initial=0.0)
            largest = max(np.abs(reals).max(initial=0.0), 1.0)
            found.append(
                Rounding(name, int((apart > 0).sum()), int(apart.max(initial=0)), float(off / largest))
            )
    floats = [name for name in wanted if values[name].dtype.kind == "f"]
    return found, [(name, difference(ours[name], values[name])) for name in floats]
