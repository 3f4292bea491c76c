"""Files that are written to, replaced or cut off while a session on them is open."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

import ingot
from ingot.errors import ModelError
from ingot.loading import LEAST_MAPPED

SMALL, LARGE = 256, 1100  # square weights: LARGE ones are mapped
assert SMALL * SMALL * 4 < LEAST_MAPPED < LARGE * LARGE * 4


def model(value: float, size: int) -> onnx.ModelProto:
    """The product with weights that are all of one value."""
    weights = onnx.numpy_helper.from_array(np.full((size, size), value, np.float32), "w")
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["b", size]) for n in "xy")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weights]
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])


def first(session: ingot.InferenceSession, size: int, rows: int = 1) -> float:
    return float(session.run(None, {"x": np.ones((rows, size), np.float32)})[0][0, 0])


def written_later(path: Path, proto: onnx.ModelProto) -> None:
    """Written in place, by a clock that has moved on."""
    before = path.stat()
    onnx.save(proto, path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))


@pytest.mark.parametrize("ran", [False, True])
def test_a_small_file_may_change(tmp_path: Path, ran: bool) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model(1.0, SMALL), path)
    session = ingot.InferenceSession(path)
    if ran:
        first(session, SMALL)
    written_later(path, model(2.0, SMALL))
    assert first(session, SMALL) == SMALL
    os.truncate(path, 10)
    assert first(session, SMALL, 7) == SMALL


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("ran", [False, True])
def test_a_large_file_that_changed_is_refused(tmp_path: Path, ran: bool, external: bool) -> None:
    path, data = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
    onnx.save_model(model(1.0, LARGE), path, save_as_external_data=external, location=data.name)
    file = data if external else path
    session = ingot.InferenceSession(path)
    if ran:
        assert first(session, LARGE) == LARGE
    os.truncate(file, 10)
    for rows in (1, 7):
        with pytest.raises(ModelError, match=f"{file.name}: this file was written to"):
            first(session, LARGE, rows)


def test_a_model_in_memory_knows_its_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model(1.0, LARGE), path)
    session = ingot.InferenceSession(ingot.load(path))
    written_later(path, model(2.0, LARGE))
    with pytest.raises(ModelError, match="Make a new session"):
        first(session, LARGE)


def test_a_large_file_may_be_replaced_or_deleted(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model(1.0, LARGE), path)
    session = ingot.InferenceSession(path)
    ingot.save(ingot.load(model(2.0, LARGE)), path)
    assert first(session, LARGE) == LARGE
    path.unlink()
    assert first(session, LARGE, 7) == LARGE


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_weights_beside_a_model_are_those_that_it_was_opened_with(tmp_path: Path, size: int) -> None:
    """Where another model and its data are put there before the first run."""
    path = tmp_path / "m.onnx"
    ingot.save(ingot.load(model(1.0, size)), path, external_data=True)
    session = ingot.InferenceSession(path)
    ingot.save(ingot.load(model(2.0, size)), path, external_data=True)
    assert first(session, size) == size
    assert first(ingot.InferenceSession(path), size) == 2 * size


def test_bytes_that_their_owner_changes_are_those_that_were_given() -> None:
    given = bytearray(model(1.0, SMALL).SerializeToString())
    session = ingot.InferenceSession(ingot.load(given))
    given[:] = model(2.0, SMALL).SerializeToString()
    assert first(session, SMALL) == SMALL
