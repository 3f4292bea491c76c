"""Large weights in a serialised ONNX model, found without copying them.

`split` cuts the raw data of a graph's initializers out of the bytes of a ModelProto. Protobuf then parses
what is left, some kilobytes, and the weights stay where they are: views of a memory-mapped file. Only the
wire format is known here (https://protobuf.dev/programming-guides/encoding), and of the fields those on the
way.
"""

from __future__ import annotations

from collections.abc import Iterator

#: Raw data of fewer bytes is left in: finding it takes longer than protobuf takes to copy it.
LEAST_CUT = 1 << 8

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # fields of ModelProto, GraphProto and TensorProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Unreadable(Exception):
    """Torn, or encoded in a way that nobody writes: protobuf shall decide."""


def split(content: memoryview) -> tuple[bytes, dict[int, memoryview]] | None:
    """(the model without the large raw data, the data by the initializer's number in its graph); None where
    the bytes are not plainly a ModelProto, or nothing in it is large.
    """
    cut: dict[int, memoryview] = {}
    parts: list[bytes | memoryview] = []
    kept = count = 0
    try:
        for field, kind, start, body, end in _fields(content, 0, len(content)):
            if field != _GRAPH or kind != _BYTES:
                continue
            inside, count = _graph(content, body, end, count, cut)
            parts += [content[kept:start], _bytes_header(_GRAPH, sum(map(len, inside))), *inside]
            kept = end
    except (_Unreadable, IndexError):
        return None
    if not cut:
        return None
    return b"".join([*parts, content[kept:]]), cut


def _graph(
    content: memoryview, begin: int, end: int, count: int, cut: dict[int, memoryview]
) -> tuple[list[bytes | memoryview], int]:
    """The pieces of a GraphProto without the data that is entered into `cut`, and how many initializers there
    are so far.
    """
    parts: list[bytes | memoryview] = []
    kept = begin
    for field, kind, start, body, stop in _fields(content, begin, end):
        if field != _INITIALIZER or kind != _BYTES:
            continue
        number, count = count, count + 1
        if stop - body < LEAST_CUT:
            continue
        raw = [f for f in _fields(content, body, stop) if f[0] == _RAW_DATA]
        if len(raw) != 1 or raw[0][1] != _BYTES:
            continue
        _, _, before, data, after = raw[0]
        if after - data < LEAST_CUT:
            continue
        cut[number] = content[data:after]
        rest = [content[body:before], content[after:stop]]
        parts += [content[kept:start], _bytes_header(_INITIALIZER, sum(map(len, rest))), *rest]
        kept = stop
    return [*parts, content[kept:end]], count


def _fields(content: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, start, start of the value, end) of each field of a message."""
    while at < end:
        start = at
        tag, at = _varint(content, at)
        kind, body = tag & 7, at
        if kind == _BYTES:
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
    header = bytearray([field << 3 | _BYTES])
    while size >= 0x80:
        header.append(size & 0x7F | 0x80)
        size >>= 7
    header.append(size)
    return bytes(header)
