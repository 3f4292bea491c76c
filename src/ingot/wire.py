"""Large weights in a serialised ONNX model, found without copying them.

`split` cuts the data of a graph's initializers and constants out of the bytes of a ModelProto. Protobuf then
parses what is left, some kilobytes, and the weights stay where they are: views of a memory-mapped file. Only
the wire format is known here (https://protobuf.dev/programming-guides/encoding), and of the fields those on
the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

#: Data of fewer bytes are left in: finding them takes longer than protobuf takes to copy them.
LEAST_CUT = 1 << 10

_GRAPH = 7  # of ModelProto
_NODE, _INITIALIZER = 1, 5  # of GraphProto
_OP_TYPE, _ATTRIBUTE = 4, 5  # of NodeProto
_TENSOR = 5  # of AttributeProto
_DIMS, _DATA_TYPE, _FLOAT = 1, 2, 1  # of TensorProto, and its number for float32
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

#: The fields of TensorProto that hold numbers as they lie in memory.
FLOAT_DATA, RAW_DATA, DOUBLE_DATA = 4, 9, 10
_NUMBERS = frozenset({FLOAT_DATA, RAW_DATA, DOUBLE_DATA})
_OTHER_DATA = frozenset({5, 6, 7, 11})  # int32, string, int64 and uint64: encoded one by one

_Parts: TypeAlias = "list[bytes | memoryview]"


class _Unreadable(Exception):
    """Torn, or encoded in a way that nobody writes: protobuf shall decide."""


class Cut(NamedTuple):
    """A tensor's numbers, and which of TensorProto's fields they were in."""

    field: int
    data: memoryview


@dataclass(slots=True)
class Pieces:
    """What was cut out of the outermost graph: initializers by their number, and Constant nodes by theirs."""

    initializers: dict[int, Cut] = field(default_factory=dict[int, Cut])
    constants: dict[int, Cut] = field(default_factory=dict[int, Cut])
    _counts: dict[int, int] = field(default_factory=lambda: {_NODE: 0, _INITIALIZER: 0})

    def graph(self, content: memoryview, begin: int, end: int) -> _Parts:
        """The pieces of a GraphProto without the data that is entered here."""
        parts: _Parts = []
        kept = begin
        for number, kind, start, body, stop in _fields(content, begin, end):
            if (number != _NODE and number != _INITIALIZER) or kind != _BYTES:
                continue
            place = self._counts[number]
            self._counts[number] = place + 1
            if stop - body < LEAST_CUT:
                continue
            if number == _INITIALIZER:
                found, into = _tensor(content, body, stop), self.initializers
            else:
                found, into = _constant(content, body, stop), self.constants
            if found is not None:
                into[place], rest = found
                parts += [content[kept:start], *_message(number, rest)]
                kept = stop
        return [*parts, content[kept:end]]


def split(content: memoryview) -> tuple[bytes, Pieces] | None:
    """(the model without the large data, the data); None where the bytes are not plainly a ModelProto, or
    nothing in it is large.
    """
    cut = Pieces()
    parts: _Parts = []
    kept = 0
    try:
        for number, kind, start, body, end in _fields(content, 0, len(content)):
            if number == _GRAPH and kind == _BYTES:
                parts += [content[kept:start], *_message(_GRAPH, cut.graph(content, body, end))]
                kept = end
    except (_Unreadable, IndexError):
        return None
    if not cut.initializers and not cut.constants:
        return None
    return b"".join([*parts, content[kept:]]), cut


def joined(content: memoryview, sizes: Mapping[int, int]) -> Iterator[bytes | memoryview | int]:
    """The way back: the bytes of a model in order, and the numbers of initializers where their data go.

    content: a ModelProto as protobuf writes it, whose initializers of these numbers have no data; sizes: how
    many bytes of data each gets.
    """
    for number, _, start, body, end in _fields(content, 0, len(content)):
        if number != _GRAPH:
            yield content[start:end]
            continue
        parts, total, count, kept = list[bytes | memoryview | int](), 0, 0, body
        for inner, _, before, tensor, after in _fields(content, body, end):
            if inner != _INITIALIZER:
                continue
            size = sizes.get(count)
            if size is not None:
                header = _bytes_header(RAW_DATA, size)
                whole = _bytes_header(_INITIALIZER, after - tensor + len(header) + size)
                parts += [content[kept:before], whole, content[tensor:after], header, count]
                kept, total = after, total + size
            count += 1
        parts.append(content[kept:end])
        total += sum(len(part) for part in parts if not isinstance(part, int))
        yield _bytes_header(_GRAPH, total)
        yield from parts


def floats_header(dims: tuple[int, ...], size: int) -> bytes:
    """What stands before the numbers of a TensorProto of float32 with this many bytes of `float_data`."""
    sizes = [(_DIMS << 3 | _VARINT, size) for size in dims]
    return _encoded(*sizes, (_DATA_TYPE << 3 | _VARINT, _FLOAT), (FLOAT_DATA << 3 | _BYTES, size))


def _tensor(content: memoryview, begin: int, end: int) -> tuple[Cut, _Parts] | None:
    """The data of a TensorProto, and what else it says; None where they are few, or not in one piece."""
    found: tuple[int, int, int, int] | None = None
    for number, kind, start, body, stop in _fields(content, begin, end):
        if number in _NUMBERS:
            if found is not None or kind != _BYTES:
                return None
            found = number, start, body, stop
        elif number in _OTHER_DATA:
            return None
    if found is None:
        return None
    number, start, body, stop = found
    if stop - body < LEAST_CUT:
        return None
    return Cut(number, content[body:stop]), [content[begin:start], content[stop:end]]


def _constant(content: memoryview, begin: int, end: int) -> tuple[Cut, _Parts] | None:
    """The data of the tensor in a Constant node, and what else the node says."""
    is_constant, attributes = False, list[tuple[int, int, int]]()
    for number, kind, start, body, stop in _fields(content, begin, end):
        if number == _OP_TYPE:
            is_constant = kind == _BYTES and bytes(content[body:stop]) == b"Constant"
        elif number == _ATTRIBUTE:
            attributes.append((start, body, stop))
    if not is_constant or len(attributes) != 1:
        return None
    start, body, stop = attributes[0]
    tensors = [f for f in _fields(content, body, stop) if f[0] == _TENSOR]
    if len(tensors) != 1 or tensors[0][1] != _BYTES:
        return None
    _, _, before, inside, after = tensors[0]
    found = _tensor(content, inside, after)
    if found is None:
        return None
    attribute = [content[body:before], *_message(_TENSOR, found[1]), content[after:stop]]
    return found[0], [content[begin:start], *_message(_ATTRIBUTE, attribute), content[stop:end]]


def _message(number: int, parts: _Parts) -> _Parts:
    """These parts as a field of another message."""
    return [_bytes_header(number, sum(map(len, parts))), *parts]


def _fields(content: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, start, start of the value, end) of each field of a message."""
    while at < end:
        start = at
        tag = content[at]
        if tag < 0x80:  # as nearly all of them: without a call
            at += 1
        else:
            tag, at = _varint(content, at)
        kind, body = tag & 7, at
        if kind == _BYTES:
            size = content[at]
            if size < 0x80:
                body = at + 1
            else:
                size, body = _varint(content, at)
            at = body + size
        elif kind == _VARINT:
            _, at = _varint(content, at)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        else:
            raise _Unreadable
        if at > end:
            raise _Unreadable
        yield tag >> 3, kind, start, body, at


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    byte = content[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = content[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise _Unreadable


def _bytes_header(field: int, size: int) -> bytes:
    """The tag and the length of a field of bytes."""
    return _encoded((field << 3 | _BYTES, size))


def _encoded(*fields: tuple[int, int]) -> bytes:
    """Tags, each with a number that is not negative, seven bits in each byte."""
    encoded = bytearray()
    for tag, value in fields:
        encoded.append(tag)
        while value >= 0x80:
            encoded.append(value & 0x7F | 0x80)
            value >>= 7
        encoded.append(value)
    return bytes(encoded)
