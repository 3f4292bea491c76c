"""A model into one file: protobuf writes the graph, and the weights go from where they are to the file."""

# onnx_ir annotates paths as os.PathLike without its parameter.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from typing import IO

import numpy as np
import onnx_ir as ir

from ingot.wire import joined

#: Weights of fewer bytes are left to protobuf.
LEAST_CUT = 1 << 12
#: Bytes of a weight that does not lie in memory as in the file are put in order in pieces of this size.
PIECE = 16 << 20


def write(model: ir.Model, file: IO[bytes]) -> None:
    """Write a model with all its weights. No more of them is copied at a time than a piece of one."""
    with _outlined(model) as weights:
        proto = ir.to_proto(model)
    for number, tensor in enumerate(proto.graph.initializer):
        if number in weights:
            tensor.ClearField("data_location")
            del tensor.external_data[:]
    sizes = {number: weight.nbytes for number, weight in weights.items()}
    for piece in joined(memoryview(proto.SerializeToString()), sizes):
        if isinstance(piece, int):
            _write_weight(weights[piece], file)
        else:
            file.write(piece)


@contextlib.contextmanager
def _outlined(model: ir.Model) -> Generator[dict[int, ir.TensorProtocol]]:
    """For a while the model's own large weights are without contents; those by the number they will have."""
    weights: dict[int, ir.TensorProtocol] = {}
    replaced: list[tuple[ir.Value, ir.TensorProtocol]] = []
    values = [v for v in model.graph.initializers.values() if v.const_value is not None]
    try:
        for number, value in enumerate(values):
            tensor = value.const_value
            if tensor is None or not _is_large(tensor):
                continue
            weights[number] = tensor
            replaced.append((value, tensor))
            outline = ir.ExternalTensor(
                "in this file",
                0,
                tensor.nbytes,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=str(tensor.name),
                doc_string=tensor.doc_string,
                metadata_props=dict(tensor.metadata_props),
            )
            value.const_value = outline
        yield weights
    finally:
        for value, tensor in replaced:
            value.const_value = tensor


def _is_large(tensor: ir.TensorProtocol) -> bool:
    return isinstance(tensor, ir.Tensor) and tensor.nbytes >= LEAST_CUT


def _write_weight(tensor: ir.TensorProtocol, file: IO[bytes]) -> None:
    array = tensor.numpy()
    as_it_lies = array.nbytes == tensor.nbytes and array.dtype.isnative and sys.byteorder == "little"
    if not as_it_lies or array.dtype.hasobject or not array.ndim:
        file.write(tensor.tobytes())
        return
    rows = max(PIECE // max(array.nbytes // len(array), 1), 1)
    if array.flags.c_contiguous:
        rows = len(array)
    for begin in range(0, len(array), rows):
        file.write(np.ascontiguousarray(array[begin : begin + rows]).view(np.uint8).data)
