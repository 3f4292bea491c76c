"""What is wrong with a proto in ways that neither protobuf nor onnx_ir tells: looked for in models that are
unusual, not in every one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir as ir

_EXTERNAL = onnx.TensorProto.EXTERNAL
#: Where the numbers of a tensor may be.
_FIELDS = ("raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


def damage(proto: onnx.ModelProto) -> str | None:
    """The first thing found: a tensor without its numbers, or whose place in another file makes no sense; a
    name that is no text.
    """
    for graph in (proto.graph, *proto.functions):
        for owner, tensor in _tensors(graph):
            found = tensor_damage(tensor)
            if found is not None:
                return f"{_shown(owner)} {found}"
        for name in _names(graph):
            if not isinstance(name, str):
                return f"has the name {name!r}, which is not UTF-8 text"
    return None


def tensor_damage(proto: onnx.TensorProto) -> str | None:
    """What is wrong with a tensor: its shape, its numbers, or where they are said to be."""
    dims = list(proto.dims)
    if any(size < 0 for size in dims):
        return f"has the shape {dims}"
    if proto.data_location == _EXTERNAL:
        return _place_damage(proto, dims)
    if 0 not in dims and not any(len(getattr(proto, name)) for name in _FIELDS):
        return f"has the shape {dims} and no numbers"
    return None


def _place_damage(proto: onnx.TensorProto, dims: list[int]) -> str | None:
    entries = {entry.key: entry.value for entry in proto.external_data}
    location = entries.get("location", "")
    if not location or "\0" in location:
        return f"is in another file, whose name is {location!r}"
    for key in ("offset", "length"):
        text = entries.get(key, "0")
        if not (text.isascii() and text.isdigit()):
            return f"is in {location!r}, with the {key} {text!r}"
    length = int(entries.get("length", "0"))
    if proto.data_type in _BITS:
        needed = (math.prod(dims) * _BITS[proto.data_type] + 7) // 8
        if length and length != needed:
            return f"takes {length:,} bytes of {location!r}, and its shape {dims} takes {needed:,}"
    return None


_BITS = {
    int(dtype): dtype.bitwidth
    for dtype in ir.DataType
    if dtype not in (ir.DataType.UNDEFINED, ir.DataType.STRING)
}


def _tensors(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[tuple[Any, onnx.TensorProto]]:
    """Tensors with the names of the weights or nodes that they belong to, those of subgraphs included."""
    if isinstance(graph, onnx.GraphProto):
        for tensor in graph.initializer:
            yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and not attribute.ref_attr_name:
                yield node.name or node.op_type, attribute.t
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _tensors(inner)


def _names(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[Any]:
    if isinstance(graph, onnx.GraphProto):
        for named in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            yield named.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _names(inner)


def _shown(name: Any) -> str:
    return repr(name) if name else "a tensor without a name"
