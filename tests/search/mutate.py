"""Makes a valid case, or a model of several nodes, a wrong one: one thing is another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from tests.search.draw import Case, Draw

DTYPES = ("float32", "int64", "int32", "bool", "string", "float16", "uint8", "float64", "int8", "bfloat16")

#: Operators that compute as many elements as a number says: gigabytes for the largest of 32 bits.
MAKE_AS_MANY = ("MelWeightMatrix", "HannWindow", "HammingWindow", "BlackmanWindow")


def mutated(case: Case, r: Draw) -> tuple[Case, str]:
    """The case with one thing changed, and what that is."""
    arrays = [i for i, value in enumerate(case.inputs) if isinstance(value, np.ndarray)]
    kinds = ["attribute"] * bool(case.attributes) + ["input", "rank", "size", "dtype", "values"] * bool(
        arrays
    )
    kind = r.one(kinds or ["output"])
    if kind == "output":
        return replace(case, outputs=case.outputs + 1, named=None), "an output more"
    if kind == "attribute":
        name = r.one(sorted(case.attributes))
        value = other_value(case.attributes[name], r)
        attributes = {k: v for k, v in case.attributes.items() if k != name}
        if value is not None:
            attributes[name] = value
        return replace(case, attributes=attributes), f"{name} is {value!r}"
    which = r.one(arrays)
    inputs = list(case.inputs)
    x: Any = inputs[which]
    if kind == "input":
        inputs[which] = None
    elif kind == "rank":
        inputs[which] = (
            x[None]
            if r.flag() or not x.ndim
            else x[0]
            if x.shape[0]
            else x.reshape(())
            if x.size == 1
            else x[..., None]
        )
    elif kind == "size" and x.ndim:
        axis = r.integer(0, x.ndim - 1)
        inputs[which] = (
            np.concatenate([x, x], axis) if r.flag() else np.take(x, range(max(0, x.shape[axis] - 1)), axis)
        )
    elif kind == "dtype":
        inputs[which] = r.array(x.shape, r.one(DTYPES), special=0.0)
    elif x.dtype.kind in "iu" and x.size:
        other = r.array(x.shape, str(x.dtype), special=0.9)
        inputs[which] = np.clip(other, -4096, 4096) if case.op in MAKE_AS_MANY else other
    else:
        inputs[which] = np.zeros((), x.dtype)
    return replace(case, inputs=inputs), f"{kind} of input {which}"


def other_value(value: Any, r: Draw) -> Any:
    """Another value of the same type, or none."""
    if isinstance(value, bool | int):
        return r.one([-1, 0, 1, 7, 99, -100, 2**40, None])
    if isinstance(value, float):
        return r.one([float("nan"), float("inf"), -1.0, 0.0, 1e30, None])
    if isinstance(value, str):
        return r.one(["bogus", "", None])
    if isinstance(value, list) and value and isinstance(value[0], str):
        return r.one([[*value, "bogus"], value[:-1] or ["x"], ["bogus"] * len(value)])
    if isinstance(value, list) and value and isinstance(value[0], float):
        return r.one([[*value, 1.0], value[:-1] or None, None])
    if isinstance(value, list):
        return r.one(
            [
                [*value, 1],
                value[:-1] or None,
                [-v for v in value] or None,
                [0] * len(value) or None,
                [v + 2**33 for v in value] or None,
            ]
        )
    return None


def damaged(model: onnx.ModelProto, r: Draw) -> tuple[onnx.ModelProto, str]:
    """A model of several nodes with one thing changed, in its graph or a body, and what that is: what a node
    reads, what it is, one of its attributes, what an initializer holds, or what the graph declares.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graphs = list(_graphs(model.graph))
    graph = r.one([g for g in graphs if g.node])
    node = r.one(list(graph.node))
    kinds = ["type"] + ["input"] * 3 * bool(node.input) + ["attribute"] * bool(node.attribute)
    kinds += ["initializer"] * 2 * bool(model.graph.initializer) + ["declared"] * bool(graph.value_info)
    kind = r.one(kinds)
    if kind == "type":
        types = sorted({n.op_type for g in graphs for n in g.node})
        node.op_type = r.one([*types, "Squeeze", "Conv", "Expand", "ReduceSum", "Shape", "Slice"])
        return model, f"{node.name} is {node.op_type}"
    if kind == "input":
        which = r.integer(0, len(node.input) - 1)
        # Of what was made before: a cycle is another fault.
        names = [t.name for t in model.graph.initializer] + [v.name for v in model.graph.input]
        names += [name for n in graph.node[: list(graph.node).index(node)] for name in n.output]
        name = r.one([None, "", *names])
        if name is None:
            del node.input[which]
        else:
            node.input[which] = name
        return model, f"input {which} of {node.op_type} is {name!r}"
    if kind == "attribute":
        attribute = r.one(list(node.attribute))
        value = onnx.helper.get_attribute_value(attribute)
        other = other_value(list(value) if isinstance(value, Sequence) else value, r)
        if attribute.name == "strides" and other is not None and max(other, default=0) > 2**32:
            other = None  # a transposed convolution would be planned, and computed, for hours
        node.attribute.remove(attribute)
        if other is not None:
            node.attribute.append(onnx.helper.make_attribute(attribute.name, other))
        return model, f"{attribute.name} of {node.op_type} is {other!r}"
    if kind == "declared":
        value = r.one(list(graph.value_info))
        value.type.tensor_type.elem_type = r.one([1, 7, 9])
        return model, f"{value.name} is declared otherwise"
    tensor = r.one(list(model.graph.initializer))
    array = onnx.numpy_helper.to_array(tensor)
    other = _other_array(array, r)
    tensor.CopyFrom(onnx.numpy_helper.from_array(other, tensor.name))
    return model, f"{tensor.name} is {other.dtype} {other.shape} {other.ravel()[:4].tolist()}"


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _other_array(x: np.ndarray[Any, Any], r: Draw) -> np.ndarray[Any, Any]:
    kind = r.one(["rank", "scalar", "size", "dtype", "numbers", "numbers"])
    if kind == "rank":
        return x[None]
    if kind == "scalar":
        return x.ravel()[0] if x.size else np.zeros((), x.dtype)
    if kind == "size" and x.ndim:
        return np.concatenate([x, x]) if r.flag() else x[:-1]
    if kind == "dtype":
        return np.asarray(x, r.one(["float32", "int64", "int32", "int8"]))
    if x.dtype.kind not in "iu":
        return np.zeros_like(x)
    return np.full_like(x, r.one([-100, -5, -1, 0, 1, 7, 2**40 if x.dtype.itemsize == 8 else 100]))
