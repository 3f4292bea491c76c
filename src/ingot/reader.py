"""From onnx's protos to a model: what onnx_ir's reader makes, in half of its time.

Most of a session's creation is reading. Here types and shapes that are alike are read once, tensors become
arrays at once (a TensorProto copies its bytes at every look, and keeps the file alive), and nothing is
wrapped for the sake of an error's text. Whatever is unusual (local functions, annotations, names that are
missing or declared twice, anything that is wrong) is left to onnx_ir.
"""

# pyright: reportUnknownMemberType=false
# onnx_ir annotates paths as os.PathLike without its parameter.

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir import serde

from ingot.damage import tensor_damage
from ingot.ops.create import tensor_array
from ingot.ops.lists import LongAttr, numbered
from ingot.ops.nodes import initialized, node_of
from ingot.ops.tensors import ArrayTensor, frozen_shape
from ingot.wire import floats_header

Array = np.ndarray[Any, Any]
Scope = dict[str, ir.Value]

_KINDS = {int(kind): kind for kind in ir.AttributeType}
_DTYPES = {int(dtype): dtype for dtype in ir.DataType}
#: What lies in memory as NumPy has it: dtypes of whole bytes, the lowest first.
_ARRAYS = {
    int(dtype): dtype.numpy()
    for dtype in ir.DataType
    if dtype not in (ir.DataType.UNDEFINED, ir.DataType.STRING)
    and dtype.bitwidth >= 8
    and (dtype.bitwidth == 8 or sys.byteorder == "little")
}
_FLOAT, _STRING = onnx.TensorProto.FLOAT, onnx.TensorProto.STRING
_GRAPH, _GRAPHS = onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS
_TENSOR, _EXTERNAL = onnx.AttributeProto.TENSOR, onnx.TensorProto.EXTERNAL
#: The attribute's field of each plain type: numbers, and lists of them.
_NUMBERED: dict[int, str] = {onnx.AttributeProto.INT: "i", onnx.AttributeProto.FLOAT: "f"}
_LISTED: dict[int, str] = {onnx.AttributeProto.INTS: "ints", onnx.AttributeProto.FLOATS: "floats"}
_PLAIN = frozenset([*_NUMBERED, *_LISTED])
#: Where a tensor's numbers are, one by one, if they are not raw.
_NUMBERS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.INT32: "int32_data",
    onnx.TensorProto.INT64: "int64_data",
}


#: Elements of constants that are compared.
_SMALL = 4
#: Longer lists are no key for attributes that are alike, and too many to go through one by one.
_LONG = 256


class _UnusualError(Exception):
    """Something that onnx_ir shall read, or refuse."""


class _LaterError(Exception):
    """A node reads what only a node behind it may make."""


@dataclass(slots=True)
class Arrays:
    """Contents of tensors of the outermost graph, where the proto has them not: initializers by their number,
    and Constant nodes by theirs.
    """

    initializers: dict[int, Array] = field(default_factory=dict[int, Array])
    constants: dict[int, Array] = field(default_factory=dict[int, Array])


class _Layout(NamedTuple):
    """What tensors of one type and one shape share."""

    kind: ir.DataType
    shape: ir.Shape
    #: if their numbers are an array as it lies in memory
    dtype: np.dtype[Any] | None
    size: int
    #: what stands before them in the message of a float32 tensor that lists its numbers
    before: bytes


@dataclass(slots=True)
class Read:
    """A model, and its tensors whose data are in other files, with the name of the weight or node.

    ordered: each of its nodes is known to read only what nodes before it make.
    """

    model: ir.Model
    external: list[tuple[str, ir.ExternalTensor]]
    ordered: bool


def read(proto: onnx.ModelProto, arrays: Arrays | None = None, lift: bool = False) -> Read | None:
    """The model of a proto; None where onnx_ir shall read it.

    arrays: what the proto lacks. lift: Constant nodes that hold a tensor become initializers, and tensors
    have neither names nor remarks.
    """
    if proto.functions or proto.configuration:
        return None
    for ordered in (True, False):
        reader = _Reader(lift, ordered)
        try:
            model = reader.model(proto, arrays or Arrays())
        except _LaterError:
            continue
        except (_UnusualError, serde.SerdeError):
            return None
        return Read(model, reader.external, ordered)
    return None


def layout_of(
    tensor: onnx.TensorProto, dims: tuple[int, ...] | None = None
) -> tuple[np.dtype[Any], int] | None:
    """The dtype of a tensor, and its bytes, if those are its array as it lies in memory; dims: its own."""
    dtype = _ARRAYS.get(tensor.data_type)
    if dtype is None or tensor.data_location == _EXTERNAL:
        return None
    count = 1
    for size in tensor.dims if dims is None else dims:
        if size < 0:
            return None
        count *= size
    return dtype, count * dtype.itemsize


@dataclass(slots=True)
class _Reader:
    lift: bool
    #: Nodes are made in the order of the file, each before the outputs of those behind it are declared.
    ordered: bool
    external: list[tuple[str, ir.ExternalTensor]] = field(default_factory=list[tuple[str, ir.ExternalTensor]])
    _types: dict[bytes, tuple[Any, ir.Shape | None]] = field(
        default_factory=dict[bytes, "tuple[Any, ir.Shape | None]"]
    )
    _layouts: dict[tuple[int, tuple[int, ...]], _Layout] = field(
        default_factory=dict[tuple[int, tuple[int, ...]], _Layout]
    )
    #: by what the file says: nodes share attributes, which nobody changes
    _attributes: dict[bytes, ir.Attr] = field(default_factory=dict[bytes, ir.Attr])

    def model(self, proto: onnx.ModelProto, arrays: Arrays) -> ir.Model:
        graph = self._graph(proto.graph, (), arrays)
        graph.opset_imports.update((opset.domain, opset.version) for opset in proto.opset_import)
        return ir.Model(
            graph,
            ir_version=proto.ir_version,
            producer_name=_given(proto, "producer_name"),
            producer_version=_given(proto, "producer_version"),
            domain=_given(proto, "domain"),
            model_version=_given(proto, "model_version"),
            doc_string=_given(proto, "doc_string"),
            metadata_props=_properties(proto),
        )

    def _graph(self, proto: onnx.GraphProto, outer: Sequence[Scope], arrays: Arrays) -> ir.Graph:
        if proto.quantization_annotation or proto.sparse_initializer:
            raise _UnusualError
        scope: Scope = {}
        inputs = [self._described(ir.Value(name=info.name), info) for info in proto.input]
        for value in inputs:
            _declare(scope, value)
        initializers = [
            self._initializer(tensor, tensor.name, scope, arrays.initializers.get(number))
            for number, tensor in enumerate(proto.initializer)
        ]
        infos = {info.name: info for info in proto.value_info}
        fixed = {info.name for info in proto.output} if self.lift else set[str]()
        remaining: list[tuple[onnx.NodeProto, list[ir.Value], Array | None]] = []
        nodes: list[ir.Node] = []
        scopes = [scope, *outer]
        small: dict[Any, ir.Value] = {}
        for number, node in enumerate(proto.node):
            constant = _constant(node) if self.lift and node.op_type == "Constant" else None
            if constant is not None:
                name, tensor = constant
                if name not in fixed:
                    if name in scope:
                        raise _UnusualError
                    if outer:
                        self._require_new(name, outer)
                    self._lifted(tensor, name, scope, arrays.constants.get(number), initializers, small)
                    continue
            made: list[ir.Value] = []
            for name in node.output:
                value, info = ir.Value(name=name), infos.get(name)
                if name and info is not None:
                    self._described(value, info)
                made.append(value)
            if self.ordered:
                nodes.append(self._node(node, made, scopes, arrays.constants.get(number)))
            else:
                remaining.append((node, made, arrays.constants.get(number)))
            for value in made:
                if value.name:
                    if outer:
                        self._require_new(value.name, outer)
                    _declare(scope, value)
        # After all outputs: one that stands in a subgraph may use what comes later out here.
        nodes += [self._node(node, made, scopes, array) for node, made, array in remaining]
        outputs = [self._shown(_find(info.name, (scope,)), info) for info in proto.output]
        return ir.Graph(
            inputs,
            outputs,
            nodes=nodes,
            initializers=initializers,
            doc_string=_given(proto, "doc_string"),
            name=_given(proto, "name"),
            metadata_props=_properties(proto),
        )

    def _require_new(self, name: str, outer: Sequence[Scope]) -> None:
        """Where a value of a graph around has this name, nodes before may have taken it for the one meant."""
        if self.ordered and any(name in scope for scope in outer):
            raise _LaterError

    def _shown(self, value: ir.Value, info: onnx.ValueInfoProto) -> ir.Value:
        """A graph's output; of an input or initializer, its own type and shape count."""
        if value.producer() is None and value.type is not None:
            return value
        return self._described(value, info)

    def _described(self, value: ir.Value, info: onnx.ValueInfoProto) -> ir.Value:
        """The value, with the type, shape and remarks of `info`."""
        key = info.type.SerializeToString()
        known = self._types.get(key)
        if known is None:
            type_ = serde.deserialize_type_proto_for_type(info.type)
            known = self._types[key] = type_, serde.deserialize_type_proto_for_shape(info.type)
        type_, value.shape = known
        if type(type_) is ir.TensorType:  # each value its own: a type can be changed, a frozen shape cannot
            value.type = ir.TensorType(type_.dtype, denotation=type_.denotation)
        else:
            value.type = None if type_ is None else serde.deserialize_type_proto_for_type(info.type)
        if len(info.metadata_props):
            value.metadata_props.update(_properties(info) or {})
        value.doc_string = info.doc_string or None
        return value

    def _lifted(
        self,
        proto: onnx.TensorProto,
        name: str,
        scope: Scope,
        array: Array | None,
        initializers: list[ir.Value],
        small: dict[Any, ir.Value],
    ) -> None:
        """A Constant's tensor as an initializer, under a new name; small ones that are equal are one."""
        if type(name) is not str:  # bytes: no UTF-8
            raise _UnusualError
        tensor, key = self._tensor(proto, name, array), None
        if type(tensor) is ArrayTensor:
            found = tensor.numpy()
            if found.size <= _SMALL:
                key = tensor.dtype, found.shape, found.tobytes()
                known = small.get(key)
                if known is not None:
                    scope[name] = known
                    return
        value = scope[name] = initialized(name, tensor)
        initializers.append(value)
        if key is not None:
            small[key] = value

    def _initializer(self, proto: onnx.TensorProto, name: str, scope: Scope, array: Array | None) -> ir.Value:
        return self._valued(self._tensor(proto, name, array), name, scope)

    def _valued(self, tensor: ir.TensorProtocol, name: str, scope: Scope) -> ir.Value:
        value = scope.get(name)
        if value is not None:
            if value.const_value is not None:
                raise _UnusualError  # two initializers of one name
            value.const_value = tensor
            return value
        value = initialized(name, tensor)
        _declare(scope, value)
        return value

    def _node(
        self,
        proto: onnx.NodeProto,
        outputs: list[ir.Value],
        scopes: Sequence[Scope],
        array: Array | None,
    ) -> ir.Node:
        name, op_type, domain = proto.name, proto.op_type, proto.domain
        if not type(name) is type(op_type) is type(domain) is str or len(proto.device_configurations):
            raise _UnusualError
        own = scopes[0]
        inputs: list[ir.Value | None] = []
        for given in proto.input:
            value = own.get(given)
            if value is None and given:
                value = _find(given, scopes, _LaterError if self.ordered else _UnusualError)
            inputs.append(value)
        attributes: dict[str, ir.Attr] = {}
        for attribute in proto.attribute:
            made = self._attribute(attribute, name or op_type, scopes, array)
            attributes[made.name] = made
        return node_of(
            domain,
            op_type,
            inputs,
            outputs,
            attributes,
            name=name,
            overload=proto.overload,
            doc_string=proto.doc_string or None,
            metadata_props=_properties(proto),
        )

    def _attribute(
        self, proto: onnx.AttributeProto, owner: str, scopes: Sequence[Scope], array: Array | None
    ) -> ir.Attr:
        kind, key = proto.type, b""
        if kind in _PLAIN:
            key = proto.SerializeToString()
            known = self._attributes.get(key)
            if known is not None:
                return known
        if proto.ref_attr_name or kind == _GRAPHS or type(proto.name) is not str:  # bytes: no UTF-8
            raise _UnusualError
        value: Any
        if len(proto.ints) > _LONG or len(proto.floats) > _LONG or len(proto.strings) > _LONG:
            return _long(proto)
        if kind in _PLAIN:
            value = getattr(proto, _NUMBERED.get(kind) or _LISTED[kind])
            known = ir.Attr(proto.name, _KINDS[kind], value, doc_string=proto.doc_string or None)
            self._attributes[key] = known
            return known
        if kind == _TENSOR:
            value = self._tensor(proto.t, owner, array)
        elif kind == _GRAPH:
            value = self._graph(proto.g, scopes, Arrays())
        else:
            return serde.deserialize_attribute(proto)
        return ir.Attr(proto.name, _KINDS[kind], value, doc_string=proto.doc_string or None)

    def _tensor(self, proto: onnx.TensorProto, owner: str, array: Array | None) -> ir.TensorProtocol:
        data_type = proto.data_type
        if proto.data_location == _EXTERNAL or data_type == _STRING:
            if tensor_damage(proto) is not None:
                raise _UnusualError
            tensor = serde.deserialize_tensor(proto)
            if isinstance(tensor, ir.ExternalTensor):
                self.external.append((owner, tensor))
            return tensor
        dims = tuple(proto.dims)
        layout = self._layouts.get((data_type, dims))
        if layout is None:
            layout = self._layouts[data_type, dims] = _layout(data_type, dims)
        if array is None:
            array = _numbers(proto, layout)
            if array.shape != dims:
                array = array.reshape(dims)
        if data_type not in _ARRAYS:
            return ir.Tensor(
                array,
                dtype=layout.kind,
                shape=layout.shape,
                name=proto.name or None,
                doc_string=proto.doc_string or None,
                metadata_props=_properties(proto),
            )
        if self.lift:
            return ArrayTensor(array, layout.kind, layout.shape)
        return ArrayTensor(
            array,
            layout.kind,
            layout.shape,
            proto.name or None,
            proto.doc_string or None,
            _properties(proto),
        )


def _long(proto: onnx.AttributeProto) -> ir.Attr:
    texts: list[str] = []
    if proto.type == onnx.AttributeProto.STRINGS:
        array, raw = numbered(proto.strings)
        try:
            texts = [item.decode() for item in raw]
        except UnicodeDecodeError as error:
            raise _UnusualError from error
    elif proto.type == onnx.AttributeProto.INTS:
        array = np.array(proto.ints, np.int64)
    elif proto.type == onnx.AttributeProto.FLOATS:
        array = np.array(proto.floats, np.float32)
    else:
        raise _UnusualError  # it says that it is something else
    return LongAttr(proto.name, _KINDS[proto.type], array, texts, _given(proto, "doc_string"))


def _layout(data_type: int, dims: tuple[int, ...]) -> _Layout:
    kind, dtype = _DTYPES.get(data_type), _ARRAYS.get(data_type)
    if kind is None or any(size < 0 for size in dims):
        raise _UnusualError
    size = 0 if dtype is None else math.prod(dims) * dtype.itemsize
    before = floats_header(dims, size) if data_type == _FLOAT else b""
    return _Layout(kind, frozen_shape(dims), dtype, size, before)


def _numbers(proto: onnx.TensorProto, layout: _Layout) -> Array:
    """As many numbers as the tensor's shape wants, perhaps flat."""
    dtype, size = layout.dtype, layout.size
    if dtype is not None:
        if proto.HasField("raw_data"):
            content = proto.raw_data
            if len(content) == size:
                return np.frombuffer(content, dtype)
        elif proto.data_type in _NUMBERS:
            if layout.before:
                # Without a Python object for each: they lie in the message as in memory, unless protobuf
                # writes something else before them.
                content = proto.SerializeToString()
                if content.startswith(layout.before):
                    begin = len(layout.before)
                    return np.frombuffer(content[begin : begin + size], dtype)  # an aligned place
            numbers = getattr(proto, _NUMBERS[proto.data_type])
            if len(numbers) * dtype.itemsize == size:
                return np.array(numbers[:], dtype)  # of a list: protobuf's own is asked for each number
    if tensor_damage(proto) is not None:
        raise _UnusualError
    try:
        return tensor_array(ir.TensorProtoTensor(proto))
    # More or fewer numbers than its shape says, or no such type, which onnx_ir asserts.
    except (ValueError, TypeError, AssertionError) as error:
        raise _UnusualError from error


def _constant(node: onnx.NodeProto) -> tuple[str, onnx.TensorProto] | None:
    """The result and the tensor of a node called Constant, if it is one and holds one."""
    if node.domain not in ("", "ai.onnx"):
        return None
    attributes, outputs = node.attribute, node.output
    if len(attributes) != 1 or len(outputs) != 1:
        return None
    value, name = attributes[0], outputs[0]
    if value.type != _TENSOR or value.name != "value" or value.ref_attr_name or not name:
        return None
    return name, value.t


def _declare(scope: Scope, value: ir.Value) -> None:
    name = value.name
    if not name or name in scope or type(name) is not str:
        raise _UnusualError
    scope[name] = value


def _find(name: str, scopes: Sequence[Scope], missing: type[Exception] = _UnusualError) -> ir.Value:
    for scope in scopes:
        value = scope.get(name)
        if value is not None:
            return value
    raise missing


def _given(proto: Any, name: str) -> Any:
    return getattr(proto, name) if proto.HasField(name) else None


def _properties(proto: Any) -> dict[str, str] | None:
    entries = proto.metadata_props
    return {entry.key: entry.value for entry in entries} if len(entries) else None
