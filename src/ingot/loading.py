"""Models from files and to files: `load` and `save`. Weights stay in the file, memory-mapped, until somebody
reads them.
"""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# onnx_ir annotates paths as os.PathLike without its parameter.

from __future__ import annotations

import contextlib
import gc
import logging
import mmap
import os
import sys
import tempfile
import threading
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import google.protobuf.message
import numpy as np
import onnx
import onnx_ir as ir

from ingot.damage import damage
from ingot.errors import ModelError, UnsupportedOperatorError
from ingot.mapped import FileState, note_files, state_of
from ingot.ops.create import tensor_array
from ingot.passes.edit import graphs_of
from ingot.passes.order import in_order
from ingot.proto import TYPE_KEY, readable, restore
from ingot.reader import Arrays, layout_of
from ingot.reader import read as read_plain
from ingot.wire import DOUBLE_DATA, FLOAT_DATA, Cut, Pieces, split
from ingot.writer import write

Source: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model"

#: Weights of fewer bytes are copied out of the file, to an aligned place.
LEAST_VIEW = 1 << 16
#: Files of fewer bytes are read when they are opened, which takes a millisecond at the most.
LEAST_MAPPED = 1 << 22
#: Of fewer bytes protobuf copies the weights in less time than it takes to find them.
LEAST_SPLIT = 1 << 20
#: What TensorProto's fields of numbers may hold; raw data may be of any type.
_HELD = {
    FLOAT_DATA: frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.COMPLEX64}),
    DOUBLE_DATA: frozenset({onnx.TensorProto.DOUBLE, onnx.TensorProto.COMPLEX128}),
}
_ANY = frozenset(onnx.TensorProto.DataType.values())
#: Protobuf refuses messages of 2 GiB and more; what is not weights gets the rest.
EXTERNAL_ABOVE = (1 << 31) - (64 << 20)


@contextlib.contextmanager
def collector_paused() -> Generator[None, None, None]:
    """While a model is made: thousands of objects that stay, which Python would look through again and again
    for garbage, in a third of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Wanted(NamedTuple):
    """What `load` was asked for besides the model."""

    lift: bool
    given: Collection[str]


@collector_paused()
def load(source: Source, *, lift: bool = False, given: Collection[str] = ()) -> ir.Model:
    """Reads an ONNX model from a path, the bytes of a file, or a ModelProto; an `ir.Model` is returned as
    it is. Nodes that stand before one that they read are brought into order.

    lift: Constant nodes may become initializers at once, which a session would make of them anyway.
    given: weights whose values are to be replaced; the file that they are in need not be there.

    Weights of a file of 4 MiB or more are views of the file, mapped into memory: do not write into it while
    the model is in use (replacing it by another, as `save` does, is safe). A session refuses to run where it
    was written to, but cannot save the process if that happens during a run.

    Raises `ModelError`: no such file, empty, truncated or corrupt, not ONNX, nodes that wait for each other,
    weights in a file that is missing or too short; `UnsupportedOperatorError`: an opset that is newer than
    the installed onnx package knows.
    """
    if isinstance(source, ir.Model):
        return in_order(source, "the model given")
    if isinstance(source, onnx.ModelProto):
        return _whole(source, "the ModelProto", None, _Wanted(lift, given))
    if isinstance(source, bytes | bytearray | memoryview):
        own = bytes(source)  # a copy of those that may change under the model
        return _serialised(memoryview(own), "the bytes given", None, _Wanted(lift, given))
    if not isinstance(source, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ModelError(
            f"a model is wanted, and this is of type {type(source).__name__}. Give the path of an .onnx "
            "file, its bytes, an onnx.ModelProto or an onnx_ir.Model (of an ingot.Program: its `model`); a "
            "module of PyTorch's goes through ingot.export first."
        )
    path = Path(source)
    try:
        if not path.exists():
            raise ModelError(
                f"{path}: there is no such file. Check the path; the working directory is {Path.cwd()}."
            )
        if path.is_dir():
            raise ModelError(f"{path}: this is a directory. Give the path of an .onnx file.")
        with _kept_together(path.parent, write=False):
            content, file = _opened(path)
            model = _serialised(content, str(path), path, _Wanted(lift, given))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}. Check its permissions.") from error
    if file is not None:
        note_files(model, [file])
    return model


def _opened(path: Path) -> tuple[memoryview, FileState | None]:
    """The bytes of a file, and the state of one whose bytes are read only when they are looked at. Small
    files, pipes and the like are read now.
    """
    with path.open("rb") as file:
        state = state_of(path, file.fileno())
        if state is not None and state.size >= LEAST_MAPPED:
            with contextlib.suppress(ValueError, OSError):  # nothing that can be mapped
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), state
        return memoryview(file.read()), None


def _serialised(content: memoryview, subject: str, path: Path | None, wanted: _Wanted) -> ir.Model:
    """The model in these bytes, of the file at this path; its large weights are views of them."""
    if not content.nbytes:
        raise ModelError(f"{subject}: empty, 0 bytes. Export or download the model again.")
    content = content.cast("B")
    pieces = split(content) if content.nbytes >= LEAST_SPLIT and sys.byteorder == "little" else None
    if pieces is not None:
        proto = _parse(pieces[0], subject)
        arrays = _arrays(proto.graph, pieces[1])
        model = None if arrays is None else _model(proto, subject, path, wanted, arrays)
        if model is not None:
            return model
    return _whole(_parse(content, subject), subject, path, wanted)


def _whole(proto: onnx.ModelProto, subject: str, path: Path | None, wanted: _Wanted) -> ir.Model:
    """A proto that lacks nothing as a model."""
    model = _model(proto, subject, path, wanted)
    assert model is not None
    return model


def _arrays(graph: onnx.GraphProto, pieces: Pieces) -> Arrays | None:
    """What was cut out of the graph: views of the file, small ones copied to an aligned place. None where not
    all are arrays as they lie in memory: that is for onnx_ir to decode or to refuse.
    """
    arrays = Arrays()
    for number, cut in pieces.initializers.items():
        array = _array(graph.initializer[number], cut)
        if array is None:
            return None
        arrays.initializers[number] = array
    for number, cut in pieces.constants.items():
        array = _array(graph.node[number].attribute[0].t, cut)
        if array is None:
            return None
        arrays.constants[number] = array
    return arrays


def _array(tensor: onnx.TensorProto, cut: Cut) -> np.ndarray[Any, Any] | None:
    layout = layout_of(tensor)
    if layout is None or layout[1] != cut.data.nbytes or tensor.data_type not in _HELD.get(cut.field, _ANY):
        return None
    content = cut.data if cut.data.nbytes >= LEAST_VIEW else bytes(cut.data)
    return np.frombuffer(content, layout[0]).reshape(tuple(tensor.dims))


def _parse(content: bytes | memoryview, subject: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(cast("bytes", content))  # which takes a view as well
    except google.protobuf.message.DecodeError as error:
        kind = _kind(bytes(content))
        what = f"this is {kind}, not ONNX" if kind else "truncated or corrupt, or not ONNX"
        raise ModelError(
            f"{subject}: {what} ({len(content):,} bytes do not parse). Export or download the model again."
        ) from error
    return proto


def _kind(content: bytes) -> str | None:
    """What a file that is not ONNX looks like."""
    starts = {
        b"PK\x03\x04": "a ZIP archive (a PyTorch checkpoint is one)",
        b"version https://git-lfs": "a Git LFS pointer (run `git lfs pull`)",
        b"<": "HTML or XML (a failed download is often one)",
        b"{": "JSON",
        b"\x89HDF": "HDF5 (a Keras model is one)",
        b"\x80": "a Python pickle",
    }
    marks = {
        b"ORTM": "ONNX Runtime's own format (use the .onnx file that it was made from)",
        b"TFL3": "TensorFlow Lite (tf2onnx converts it)",
    }
    named = next((kind for start, kind in starts.items() if content.startswith(start)), None)
    return named or marks.get(bytes(content[4:8]))


def _model(
    proto: onnx.ModelProto,
    subject: str,
    path: Path | None,
    wanted: _Wanted,
    arrays: Arrays | None = None,
) -> ir.Model | None:
    """The proto as a model. arrays: contents of tensors that the proto lacks; None if it must be read with
    them in it.
    """
    if not proto.ir_version or not proto.HasField("graph"):
        raise ModelError(
            f"{subject}: not an ONNX model: it has no graph. Give a file that an ONNX exporter wrote."
        )
    for opset in proto.opset_import:
        newest = onnx.defs.onnx_opset_version()
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise UnsupportedOperatorError(
                f"{subject}: declares opset {opset.version}; the installed onnx "
                f"{onnx.__version__} knows opsets up "
                f"to {newest}. Run `pip install -U onnx`, or export with a lower opset."
            )
    read = read_plain(proto, arrays, wanted.lift)
    if read is not None:
        model, external = read.model, read.external
    elif arrays is not None:
        return None
    else:
        model = _read(proto, subject)
        _decode(model, subject)
        external = list(_external(model))
    files: dict[str, _WeightsFile] = {}
    for name, tensor in external:
        if name in wanted.given:
            continue
        if path is None:
            raise ModelError(
                f"{subject}: weight {name!r} is in another file, {str(tensor.location)!r}, and its place is "
                "unknown here. Give the path of the .onnx file."
            )
        tensor.base_dir = path.parent
        location = str(tensor.location)
        file = files.get(location)
        if file is None:
            file = files[location] = _weights_file(name, tensor, path)
        _check_length(subject, name, tensor, file)
        _map(tensor, file)
    if files:
        note_files(model, [file.state for file in files.values() if file.state is not None])
    return model if read is not None and read.ordered else in_order(model, subject)


def _read(proto: onnx.ModelProto, subject: str) -> ir.Model:
    """A proto with something unusual in it, as onnx_ir reads it; what it cannot read is brought into another
    form first.
    """
    found = damage(proto)
    if found is not None:
        raise ModelError(f"{subject}: {found}. Export or download the model again.")
    try:
        with _QUIET, _level(logging.getLogger("onnx_ir"), logging.CRITICAL):
            return _from_proto(proto)
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        reason: BaseException = error
        while reason.__cause__ is not None:  # onnx_ir wraps it once for each part it lies in
            reason = reason.__cause__
        raise ModelError(f"{subject}: not a valid ONNX graph: {reason}. Run onnx.checker on it.") from error


#: What onnx_ir logs of missing values, the session's error says. One load at a time changes that level.
_QUIET = threading.Lock()


@contextlib.contextmanager
def _level(log: logging.Logger, level: int) -> Generator[None]:
    before = log.level
    log.setLevel(level)
    try:
        yield
    finally:
        log.setLevel(before)


def _from_proto(proto: onnx.ModelProto) -> ir.Model:
    model: Any = None
    if not proto.graph.sparse_initializer:
        with contextlib.suppress(NotImplementedError, ir.serde.SerdeError):
            model = ir.from_proto(proto)
    # onnx_ir passes over sparse initializers, which a subgraph may have as well.
    if model is None or len(graphs_of(model)) > 1:
        plainer = readable(proto)
        if model is None or plainer is not None:
            model = ir.from_proto(proto if plainer is None else plainer)
    assert isinstance(model, ir.Model)
    for value, info in zip(model.graph.inputs, proto.graph.input, strict=True):
        if value.is_graph_output():  # what the output's declaration leaves out, the input's says
            ir.serde.deserialize_value_info_proto(info, value)
    return model


def _decode(model: ir.Model, subject: str) -> None:
    """Tensors become arrays now: a TensorProto copies its bytes at every look, and keeps the file alive."""
    for graph in graphs_of(model):
        for name, value in graph.initializers.items():
            if isinstance(value.const_value, ir.TensorProtoTensor):
                value.const_value = _decoded(value.const_value, subject, name)
        for node in graph:
            for name, given in list(node.attributes.items()):
                if given.type == ir.AttributeType.TENSOR and isinstance(given.value, ir.TensorProtoTensor):
                    tensor = _decoded(given.value, subject, node.name or node.op_type)
                    node.attributes[name] = ir.Attr(name, given.type, tensor, doc_string=given.doc_string)


def _decoded(tensor: ir.TensorProtoTensor, subject: str, name: str) -> ir.TensorProtocol:
    if tensor.dtype == ir.DataType.STRING:
        return tensor
    try:
        array = tensor_array(tensor)
    except (ValueError, TypeError, AssertionError) as error:  # onnx_ir asserts what a valid file has
        raise ModelError(
            f"{subject}: the numbers of {name!r} do not fit its shape {list(tensor.shape)} and type "
            f"{tensor.dtype.name}: {error}. Export or download the model again."
        ) from error
    return ir.Tensor(array, dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)


def _external(model: ir.Model) -> Iterator[tuple[str, ir.ExternalTensor]]:
    for graph in graphs_of(model):
        for name, value in graph.initializers.items():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield name, value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and isinstance(
                    attribute.value, ir.ExternalTensor
                ):
                    yield node.name or node.op_type, attribute.value


class _WeightsFile(NamedTuple):
    size: int
    state: FileState | None
    mapping: mmap.mmap | None  # none of an empty file
    linked: Path | None  # where the file is, if its name is a link, or it has several names


def _weights_file(name: str, tensor: ir.ExternalTensor, model: Path) -> _WeightsFile:
    """The file that a weight is in: it stands beside the model's, or is a link to one that stands beside that
    which the model's is a link to, as in the caches of model hubs.
    """
    path, folder = Path(tensor.path), model.parent.resolve()
    real, location = path.resolve(), Path(str(tensor.location))
    is_link = not location.is_absolute() and ".." not in location.parts
    if not (real.is_relative_to(folder) or (is_link and real.is_relative_to(model.resolve().parent))):
        raise ModelError(
            f"{model}: weight {name!r} points outside the model's directory, to {str(tensor.location)!r}. "
            "That is not allowed in ONNX; do not trust this file."
        )
    if not path.is_file():
        raise ModelError(
            f"{model}: the weights file {str(tensor.location)!r} is missing (weight {name!r} is in it). "
            f"Put it next to the model, into {folder}."
        )
    with path.open("rb") as file:
        found, mapping = os.fstat(file.fileno()), None
        if found.st_size:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        is_link = real.parent != path.parent.resolve() or found.st_nlink > 1
        return _WeightsFile(found.st_size, state_of(path, file.fileno()), mapping, real if is_link else None)


def _map(tensor: ir.ExternalTensor, file: _WeightsFile) -> None:
    """Let a weight be a view of the file that stands there now: another one may stand there when it is read.
    What is packed into parts of bytes is read later.
    """
    if file.linked is not None:  # onnx_ir follows no links; it asks nothing of a place without a directory
        tensor._location, tensor.base_dir = str(file.linked), ""  # pyright: ignore[reportPrivateUsage]
    if tensor.dtype.bitwidth >= 8 and file.mapping is not None and tensor.size:
        dtype = tensor.dtype.numpy().newbyteorder("<")
        array = np.frombuffer(file.mapping, dtype, tensor.size, tensor.offset or 0)
        tensor.raw = file.mapping
        tensor._array = array.reshape(tensor.shape.numpy())  # pyright: ignore[reportPrivateUsage]


def _check_length(subject: str, name: str, tensor: ir.ExternalTensor, file: _WeightsFile) -> None:
    needed = (tensor.offset or 0) + (tensor.length if tensor.length is not None else tensor.nbytes)
    if needed > file.size:
        raise ModelError(
            f"{subject}: the weights file {str(tensor.location)!r} has {file.size:,} bytes, "
            f"and weight {name!r} ends at "
            f"byte {needed:,}. It is truncated: copy or download it again."
        )


def save(model: ir.Model, path: str | os.PathLike[str], *, external_data: bool | None = None) -> None:
    """Writes an ONNX file; a reader sees the old file or the new one, never half of one.

    external_data: weights into `<path>.data` beside it; by default only where they exceed what one file can
    hold (2 GiB). Raises `ModelError` when the place cannot be written to.
    """
    if not isinstance(model, ir.Model):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ModelError(
            f"an onnx_ir.Model is wanted, and this is of type {type(model).__name__}. An ingot.Program has "
            "`save` of its own; ingot.load makes a Model of everything else."
        )
    path = require_directory(path)
    if external_data is None:
        external_data = weight_bytes(model) > EXTERNAL_ABOVE
    try:
        # Not by the model's name, which may be as long as names can be.
        with tempfile.TemporaryDirectory(prefix=".ingot-", dir=path.parent) as scratch:
            file, data = Path(scratch) / path.name, f"{path.name}.data"
            with _embedded(model):
                if external_data:
                    ir.save(model, file, format="protobuf", external_data=data)
                else:
                    with file.open("wb") as out:
                        write(model, out)
            if _has_map_types(model):
                written = onnx.load_model(file, load_external_data=False)
                if restore(written):
                    onnx.save_model(written, file)
            with _kept_together(path.parent, write=True):
                # The data first: the new model must never lie beside the old data.
                if external_data and (file.parent / data).exists():
                    (file.parent / data).replace(path.parent / data)
                file.replace(path)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be written: {error.strerror or error}. Check space and permissions."
        ) from error
    except google.protobuf.message.EncodeError as error:
        raise ModelError(
            f"{path}: cannot be written: what is no weight, constants in nodes and metadata, has more than "
            "the 2 GB that a file may have of it. Make large constants initializers (parameters or buffers)."
        ) from error


@contextlib.contextmanager
def _kept_together(folder: Path, *, write: bool) -> Generator[None]:
    """While a model and its data go to their places in a folder, or are opened there, nobody puts another
    model's there: one would lie beside the other's data. Where the system or the file system has no locks,
    nothing is promised.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            place = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, place)  # which lets go of the lock
            fcntl.flock(place, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
        yield


def _has_map_types(model: ir.Model) -> bool:
    return any(
        TYPE_KEY in value.metadata_props
        for graph in graphs_of(model)
        for values in (graph.inputs, *(node.outputs for node in graph))
        for value in values
    )


def require_directory(path: str | os.PathLike[str]) -> Path:
    """The place of a file that is to be written; raises `ModelError` when its directory is not there, or it
    is a directory itself.
    """
    if not isinstance(path, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ModelError(f"the path of a file to write is wanted, and this is of type {type(path).__name__}.")
    path = Path(path)
    try:
        if not path.parent.is_dir():
            raise ModelError(f"{path}: there is no directory {path.parent}. Create it first.")
        if path.is_dir():
            raise ModelError(f"{path}: this is a directory. Give the path of an .onnx file to write.")
        if path.exists() and not path.is_file():
            raise ModelError(
                f"{path}: this is a device, pipe or socket, in whose place a file would be put. Give the "
                "path of an .onnx file to write."
            )
        if not os.access(path.parent, os.W_OK):
            raise ModelError(
                f"{path}: cannot be written: {path.parent} is read-only for this user. Check its "
                "permissions, or give another path."
            )
        if "\0" in str(path):
            raise ModelError(
                f"{str(path)!r} is the name of no file: there is a zero byte in it. Give another."
            )
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {error.strerror}. Give another path.") from error
    return path


def weight_bytes(model: ir.Model) -> int:
    """The size of all initializers, each tensor counted once."""
    tensors = {id(v.const_value): v.const_value for g in graphs_of(model) for v in g.initializers.values()}
    return sum(tensor.nbytes for tensor in tensors.values() if tensor is not None)


@contextlib.contextmanager
def _embedded(model: ir.Model) -> Generator[None, None, None]:
    """While a file is written, weights and constants of nodes that were read from an external file are in
    the model.
    """
    replaced: list[tuple[ir.Value, ir.TensorProtocol]] = []
    constants: list[tuple[ir.Node, ir.Attr]] = []
    try:
        for graph in graphs_of(model):
            for value in graph.initializers.values():
                if isinstance(value.const_value, ir.ExternalTensor):
                    replaced.append((value, value.const_value))
                    value.const_value = _in_memory(value.const_value)
            for node in graph:
                for held in [a for a in node.attributes.values() if isinstance(a.value, ir.ExternalTensor)]:
                    constants.append((node, held))
                    tensor = _in_memory(held.value)
                    node.attributes[held.name] = ir.Attr(held.name, held.type, tensor)
        yield
    finally:
        for value, tensor in replaced:
            value.const_value = tensor
        for node, held in constants:
            node.attributes[held.name] = held


def _in_memory(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
