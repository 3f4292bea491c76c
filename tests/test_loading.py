"""Files in and out: each broken file is one clear line, and a saved model is the model."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx_ir as ir
import pytest

import ingot
from ingot import loading
from ingot.errors import IngotError, ModelError, UnsupportedOperatorError
from ingot.loading import load, save
from ingot.ops.interpreter import interpret


def small() -> ir.Model:
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[N, 2] x) => (float[N, 3] y) <float[2, 3] w = {1, 2, 3, 4, 5, 6}> { y = MatMul(x, w) }""")
    return ir.from_proto(proto)


def outputs(model: ir.Model) -> np.ndarray:
    return interpret(model, {"x": np.array([[1.0, 2.0]], np.float32)})["y"]


@pytest.mark.parametrize("external", [False, True, None])
def test_round_trip(tmp_path: Path, external: bool | None) -> None:
    path = tmp_path / "m.onnx"
    model = small()
    big = np.random.default_rng(0).standard_normal((2, 3000)).astype(np.float32)
    model.graph.initializers["w"].const_value = ir.Tensor(big)
    model.graph.outputs[0].shape = None
    save(model, path, external_data=external)
    assert (tmp_path / "m.onnx.data").exists() == bool(external)
    np.testing.assert_array_equal(outputs(load(path)), outputs(model))
    # Saving what was loaded from an external file over itself, as one file.
    again = load(path)
    save(again, path)
    np.testing.assert_array_equal(outputs(load(path)), outputs(model))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_sources() -> None:
    model = small()
    proto = ir.to_proto(model)
    assert load(model) is model
    for source in (proto, proto.SerializeToString()):
        np.testing.assert_array_equal(outputs(load(source)), outputs(model))


def refused(source: object, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(source)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_wrong_path(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "none.onnx", "no such file")
    refused(tmp_path, "directory")
    refused("a" * 5000, "cannot be read")


def test_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"")
    refused(path, "empty")
    save(small(), path)
    path.write_bytes(path.read_bytes()[:-7])
    refused(path, "truncated")
    path.write_bytes(b"PK\x03\x04" + bytes(range(256)))
    refused(path, "ZIP")
    path.write_bytes(b"<html>nothing here</html>")
    refused(path, "HTML")
    path.write_bytes(b"\x18\x00\x00\x00ORTM" + bytes(range(256)))
    refused(path, "ONNX Runtime's own format")
    refused(onnx.ModelProto(), "no graph")
    refused(np.random.default_rng(0).bytes(1000), "the bytes given")


def test_external_data_problems(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = small()
    model.graph.initializers["w"].const_value = ir.Tensor(np.ones((2, 3000), np.float32))
    save(model, path, external_data=True)
    refused(path.read_bytes(), "another file")
    data = tmp_path / "m.onnx.data"
    content = data.read_bytes()
    data.write_bytes(content[:-4])
    refused(path, "m.onnx.data", "truncated", "'w'")
    data.unlink()
    refused(path, "m.onnx.data", "missing")
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../../etc/passwd"
    path.write_bytes(proto.SerializeToString())
    refused(path, "outside")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("offset", "-4", ["offset '-4'"]),
        ("offset", "x", ["offset 'x'"]),
        ("length", "1.5", ["length '1.5'"]),
        ("length", "4", ["takes 4 bytes", "[2, 3] takes 24"]),
        ("location", "", ["''"]),
        ("location", "a\0b", ["'a\\x00b'"]),
    ],
)
def test_places_that_make_no_sense(tmp_path: Path, key: str, value: str, words: list[str]) -> None:
    (tmp_path / "w.bin").write_bytes(np.ones(6, np.float32).tobytes())
    proto = ir.to_proto(small())
    weight = proto.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for k, v in ({"location": "w.bin", "offset": "0", "length": "24"} | {key: value}).items():
        entry = weight.external_data.add()
        entry.key, entry.value = k, v
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    refused(path, "m.onnx", "'w'", *words)


def test_tensors_without_their_numbers() -> None:
    proto = ir.to_proto(small())
    proto.graph.initializer[0].ClearField("float_data")
    refused(proto, "'w'", "[2, 3] and no numbers")
    proto = ir.to_proto(small())
    proto.graph.initializer[0].dims[0] = -2
    refused(proto, "'w'", "[-2, 3]")


def test_names_that_are_no_text() -> None:
    content = ir.to_proto(small()).SerializeToString()
    refused(content.replace(b"MatMul", b"MatM\xffl"), "is not UTF-8 text")


def test_each_byte_of_a_file_damaged() -> None:
    """It opens, or is refused by a typed error: whatever the byte was part of."""
    proto = ir.to_proto(small())
    proto.graph.node[0].name = "product"
    content = proto.SerializeToString()
    refused(content.replace(b"product", b"pr\x80duct"), "is not UTF-8 text")
    for at in range(len(content)):
        for byte in (0, 127, 128, 255):
            damaged = bytearray(content)
            damaged[at] = byte
            with contextlib.suppress(IngotError):
                ingot.InferenceSession(bytes(damaged))


UNSORTED = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[N] x, bool c) => (float[N] z) {
        z = If (c) <then_branch = t () => (float[N] p) { p = Neg(y) }, else_branch = e () => (float[N] q) {
            q = Abs(r) r = Relu(y) }>
        y = Exp(x)
    }"""


def test_nodes_out_of_order_are_sorted() -> None:
    """In subgraphs too, and where only a subgraph reads what comes later; models in memory as well."""
    x, c = np.array([1.0, -2.0], np.float32), np.array(True)
    proto = onnx.parser.parse_model(UNSORTED)
    for source in (proto, proto.SerializeToString(), ir.from_proto(proto)):
        model = load(source)
        assert [node.op_type for node in model.graph] == ["Exp", "If"]
        for flag, wanted in ((c, -np.exp(x)), (~c, np.exp(x))):
            np.testing.assert_allclose(interpret(model, {"x": x, "c": flag})["z"], wanted, rtol=1e-6)


def test_nodes_in_a_circle_are_named() -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[N] x) => (float[N] y) { a = Add(x, b) b = Relu(a) y = Relu(b) }""")
    refused(proto, "Add 'a' (opset 20)", "Relu 'b' (opset 20)", "in a circle")


def test_long_names_and_those_that_are_too_long(tmp_path: Path) -> None:
    """As long as the file system has them, whatever is written beside them meanwhile."""
    for name in ("a" * 250 + ".onnx", "\u6a21" * 83 + ".onnx"):
        save(small(), tmp_path / name)
        np.testing.assert_array_equal(outputs(load(tmp_path / name)), outputs(small()))
    with pytest.raises(ModelError, match="cannot be written: File name too long"):
        save(small(), tmp_path / ("a" * 300 + ".onnx"))
    with pytest.raises(ModelError, match="zero byte"):
        save(small(), f"{tmp_path}/a\0.onnx")


def test_a_folder_that_is_read_only_is_refused_before_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    for write in (lambda path: save(small(), path), lambda path: ingot.export(None, (), path)):
        with pytest.raises(ModelError, match=r"m\.onnx: cannot be written: .* is read-only"):
            write(tmp_path / "m.onnx")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    path = tmp_path / "pipe.onnx"
    os.mkfifo(path)
    with pytest.raises(ModelError, match=r"pipe\.onnx: this is a device, pipe or socket"):
        save(small(), path)
    assert path.is_fifo()


def with_external_weights(folder: Path, location: str = "w.data", attributes: bool = False) -> Path:
    """A model whose weight, or the constant in a node, is in a file beside it."""
    weight = np.arange(256, dtype=np.float32).reshape(2, 128)
    model = ir.to_proto(small())
    del model.graph.initializer[:]
    tensor = onnx.numpy_helper.from_array(weight, "w")
    if attributes:
        node = onnx.helper.make_node("Constant", [], ["w"], value=tensor)
        model.graph.node.insert(0, node)
    else:
        model.graph.initializer.append(tensor)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 128
    folder.mkdir(parents=True)
    onnx.save_model(
        model,
        folder / "m.onnx",
        save_as_external_data=True,
        location=location,
        size_threshold=1,
        convert_attribute=attributes,
    )
    return folder / "m.onnx"


@pytest.mark.parametrize("external", [False, True])
def test_constants_of_nodes_go_along_into_another_folder(tmp_path: Path, external: bool) -> None:
    """Also those that were in a file beside the model that was read."""
    model = load(with_external_weights(tmp_path / "from", attributes=True))
    wanted = outputs(model)
    (tmp_path / "to").mkdir()
    save(model, tmp_path / "to" / "m.onnx", external_data=external)
    np.testing.assert_array_equal(outputs(load(tmp_path / "to" / "m.onnx")), wanted)
    np.testing.assert_array_equal(outputs(model), wanted)


def test_weights_in_a_file_of_several_names(tmp_path: Path) -> None:
    """As installers that share files between environments leave them."""
    path = with_external_weights(tmp_path / "made")
    wanted = outputs(load(path))
    os.link(tmp_path / "made" / "w.data", tmp_path / "other.data")
    np.testing.assert_array_equal(outputs(load(path)), wanted)


def test_links_into_the_cache_of_a_hub(tmp_path: Path) -> None:
    """Model and weights are links to files in one other folder; a link to anywhere else is refused."""
    path = with_external_weights(tmp_path / "made")
    wanted = outputs(load(path))
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1a" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name in ("m.onnx", "w.data"):
        (tmp_path / "made" / name).rename(blobs / f"{name}-sha")
        (snapshot / name).symlink_to(Path("../../../blobs") / f"{name}-sha")
    np.testing.assert_array_equal(outputs(load(snapshot / "m.onnx")), wanted)
    (blobs / "w.data-sha").rename(tmp_path / "elsewhere")
    (snapshot / "w.data").unlink()
    (snapshot / "w.data").symlink_to(tmp_path / "elsewhere")
    refused(snapshot / "m.onnx", "outside", "'w'")


def test_two_who_write_one_model_with_its_data(tmp_path: Path) -> None:
    """Whoever is last: its model lies beside its data."""
    path = tmp_path / "m.onnx"
    models = [load(with_external_weights(tmp_path / name)) for name in ("a", "b")]
    for model, factor in zip(models, (1, 3), strict=True):
        value = model.graph.initializers["w"]
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy() * factor)
        model.doc_string = str(factor)
    first = outputs(models[0])

    def write(model: ir.Model) -> None:
        for _ in range(20):
            save(model, path, external_data=True)

    threads = [threading.Thread(target=write, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = load(path)
    np.testing.assert_array_equal(outputs(last), first * int(last.doc_string or 0))


def test_too_new_opset() -> None:
    proto = ir.to_proto(small())
    proto.opset_import[0].version = 999
    with pytest.raises(UnsupportedOperatorError, match="opset 999"):
        load(proto)


def test_save_into_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no directory"):
        save(small(), tmp_path / "a" / "m.onnx")
    with pytest.raises(ModelError, match="this is a directory"):
        save(small(), tmp_path)
    with pytest.raises(ModelError, match="type NoneType"):
        save(small(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [None, 3, ["model.onnx"], object()])
def test_what_is_no_model(given: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"type {type(given).__name__}.*ingot.export first"):
        load(given)
    with pytest.raises(ModelError, match=f"type {type(given).__name__}"):
        save(given, tmp_path / "model.onnx")


@pytest.mark.parametrize("unusual", [False, True])
def test_an_input_that_is_an_output_keeps_its_type(unusual: bool) -> None:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3])],
        [onnx.ValueInfoProto(name="x"), onnx.ValueInfoProto(name="y")],
    )
    if unusual:  # which onnx_ir reads
        graph.quantization_annotation.add(tensor_name="y")
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    session = ingot.InferenceSession(model)
    assert session.get_inputs()[0].shape == ["n", 3]
    x = np.array([[-1, 0, 2]], np.float32)
    for got, want in zip(session.run(None, {"x": x}), (x, np.maximum(x, 0)), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_model_is_read_while_the_collector_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    at_work: list[bool] = []
    read = loading.read_plain

    def noted(*arguments: Any) -> Any:
        at_work.append(gc.isenabled())
        return read(*arguments)

    monkeypatch.setattr(loading, "read_plain", noted)
    load(ir.to_proto(small()))
    assert at_work == [False]
    assert gc.isenabled()
