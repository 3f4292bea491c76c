"""What onnx_ir does not read or write, made into what it does: sparse tensors and map types.

Sparse initializers and sparse constants become dense ones. A value whose type has a map in it loses the type
and keeps its name, in onnxruntime's spelling, among its metadata; `restore` puts it back into a file.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# protobuf's repeated fields and numpy_helper are annotated in part.

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx

from ingot.errors import ModelError

#: The key of the metadata that has a value's type where onnx_ir cannot have it.
TYPE_KEY = "ingot.type"


def readable(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy that onnx_ir reads; None if there is nothing to change.

    Raises `ModelError` for a sparse tensor whose indices do not fit its values or its shape.
    """
    if not any(_is_strange(graph) for graph in _graphs(proto)):
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for graph in _graphs(copy):
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_dense(sparse, sparse.values.name))
        graph.ClearField("sparse_initializer")
        for info in _values(graph):
            if has_map(info.type):
                entry = info.metadata_props.add()
                entry.key, entry.value = TYPE_KEY, spelling(info.type)
                info.ClearField("type")
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.SPARSE_TENSOR and node.op_type == "Constant":
                    dense = _dense(attribute.sparse_tensor, node.output[0])
                    attribute.CopyFrom(onnx.helper.make_attribute("value", dense))
    return copy


def restore(proto: onnx.ModelProto) -> bool:
    """Gives values of map types their types again, in place; says whether there are any."""
    found = False
    for graph in _graphs(proto):
        for info in _values(graph):
            for number, entry in enumerate(info.metadata_props):
                if entry.key == TYPE_KEY:
                    info.type.CopyFrom(_parse(entry.value))
                    del info.metadata_props[number]
                    found = True
                    break
    return found


def has_map(type_: onnx.TypeProto) -> bool:
    """Whether a type is a map, or made of maps."""
    kind = type_.WhichOneof("value")
    if kind in ("sequence_type", "optional_type"):
        return has_map(getattr(type_, kind).elem_type)
    return kind == "map_type"


def spelling(type_: onnx.TypeProto) -> str:
    """A type as onnxruntime spells it: `seq(map(int64,tensor(float)))`."""
    kind = type_.WhichOneof("value")
    if kind == "map_type":
        return f"map({_name(type_.map_type.key_type)},{spelling(type_.map_type.value_type)})"
    if kind == "sequence_type":
        return f"seq({spelling(type_.sequence_type.elem_type)})"
    if kind == "optional_type":
        return f"optional({spelling(type_.optional_type.elem_type)})"
    return f"tensor({_name(type_.tensor_type.elem_type)})"


def _name(element: int) -> str:
    return onnx.TensorProto.DataType.Name(element).lower()


def _parse(text: str) -> onnx.TypeProto:
    kind, _, inner = text.removesuffix(")").partition("(")
    result = onnx.TypeProto()
    if kind == "map":
        key, _, value = inner.partition(",")
        result.map_type.key_type = onnx.TensorProto.DataType.Value(key.upper())
        result.map_type.value_type.CopyFrom(_parse(value))
    elif kind == "seq":
        result.sequence_type.elem_type.CopyFrom(_parse(inner))
    elif kind == "optional":
        result.optional_type.elem_type.CopyFrom(_parse(inner))
    else:
        result.tensor_type.elem_type = onnx.TensorProto.DataType.Value(inner.upper())
    return result


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """All graphs of a model, those of its functions' nodes too."""
    yield from _with_inner(proto.graph)
    for function in proto.functions:
        yield from _inner(function.node)


def _with_inner(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    yield from _inner(graph.node)


def _inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _with_inner(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for graph in attribute.graphs:
                    yield from _with_inner(graph)


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.input
    yield from graph.output
    yield from graph.value_info


def _is_strange(graph: onnx.GraphProto) -> bool:
    return (
        bool(graph.sparse_initializer)
        or any(has_map(info.type) for info in _values(graph))
        or any(
            attribute.type == onnx.AttributeProto.SPARSE_TENSOR
            for node in graph.node
            if node.op_type == "Constant"
            for attribute in node.attribute
        )
    )


def _dense(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    """The tensor with zeros where the sparse one has nothing. Indices are linear [n], or [n, rank]."""
    values: np.ndarray[Any, Any] = onnx.numpy_helper.to_array(sparse.values)
    indices: np.ndarray[Any, Any] = onnx.numpy_helper.to_array(sparse.indices)
    shape = tuple(sparse.dims)
    dense = np.full(shape, "", object) if values.dtype == object else np.zeros(shape, values.dtype)
    try:
        if len(indices) != len(values):
            raise ValueError(f"{len(values)} values have {len(indices)} indices")
        if indices.size and indices.min() < 0:
            raise ValueError(f"index {indices.min()} is negative")
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        else:
            dense[tuple(indices.T)] = values
    except (IndexError, ValueError) as error:
        raise ModelError(
            f"sparse tensor {name!r} of shape {list(shape)}: {error}. Save the model again."
        ) from error
    return onnx.numpy_helper.from_array(dense, name)
