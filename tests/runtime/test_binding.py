"""Arrays that are bound to a session, against onnxruntime's own classes."""

from __future__ import annotations

import queue
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

import ingot

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 3] x, float[N, 3] z) => (float[N, 3] s, float[N, 3] d) { s = Add(x, z) d = Sub(x, z) }"""
X, Z = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 0.5, np.float32)


@pytest.fixture
def model() -> onnx.ModelProto:
    return onnx.parser.parse_model(TEXT)


@pytest.fixture
def session(model: onnx.ModelProto) -> ingot.InferenceSession:
    return ingot.InferenceSession(model)


def use(library: Any, model: onnx.ModelProto) -> list[Any]:
    """What somebody's code does with a binding, in either library."""
    session = library.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    binding, seen = session.io_binding(), list[Any]()
    x, target = X.copy(), library.OrtValue.ortvalue_from_shape_and_type([2, 3], np.float32, "cpu", 0)
    address = np.zeros((2, 3), np.float32)
    binding.bind_cpu_input("x", x)
    binding.bind_input("z", "cpu", 0, np.float32, Z.shape, Z.ctypes.data)
    binding.bind_ortvalue_output("d", target)
    binding.bind_output("s")
    session.run_with_iobinding(binding)
    seen += [y.copy() for y in binding.copy_outputs_to_cpu()]
    seen += [target.numpy().copy(), target.shape(), target.data_type(), target.element_type()]
    seen += [target.device_name(), target.is_tensor(), target.has_value()]
    x += 1  # where it lies
    binding.bind_output("s", "cpu", 0, np.float32, address.shape, address.ctypes.data)
    session.run_with_iobinding(binding)
    seen += [address, target.numpy().copy(), len(binding.get_outputs())]
    target.update_inplace(Z)
    values = {"x": target, "z": library.OrtValue.ortvalue_from_numpy(Z)}
    seen += [value.numpy() for value in session.run_with_ort_values(["d"], values)]
    seen += session.run(None, values)
    return seen


def test_the_same_code_as_with_onnxruntime(model: onnx.ModelProto) -> None:
    got, want = use(ingot, model), use(onnxruntime, model)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_bound_arrays_are_used_where_they_lie(session: ingot.InferenceSession) -> None:
    value = ingot.OrtValue.ortvalue_from_numpy(X)
    assert value.numpy() is X
    assert value.data_ptr() == X.ctypes.data
    out = np.empty_like(X)
    binding = session.io_binding()
    for name, array in (("x", X), ("z", Z)):
        binding.bind_ortvalue_input(name, ingot.OrtValue.ortvalue_from_numpy(array))
    binding.bind_ortvalue_output("s", ingot.OrtValue.ortvalue_from_numpy(out))
    binding.run()
    np.testing.assert_array_equal(out, X + Z)
    assert binding.get_outputs()[0].numpy() is out
    assert binding.copy_outputs_to_cpu()[0] is not out


def test_types_of_every_kind() -> None:
    for element, spelled in ((1, "float"), (16, "bfloat16"), (8, "string"), ("int64", "int64"), (9, "bool")):
        value = ingot.OrtValue.ortvalue_from_shape_and_type([0, 2], element)
        assert (value.shape(), value.data_type()) == ([0, 2], f"tensor({spelled})")
        assert value.element_type() == (7 if element == "int64" else element)
    assert ingot.OrtValue.ortvalue_from_shape_and_type([1], 16).numpy().dtype == ml_dtypes.bfloat16


def test_what_does_not_fit_is_refused(session: ingot.InferenceSession) -> None:
    binding = session.io_binding()
    with pytest.raises(ingot.InputError, match="no output is bound; bind one of s, d"):
        session.run_with_iobinding(binding)
    with pytest.raises(ingot.InputError, match="no input 'w'; it has x, z"):
        binding.bind_cpu_input("w", X)
    with pytest.raises(ingot.InputError, match="no output 'w'; it has s, d"):
        binding.bind_output("w")
    with pytest.raises(ingot.InputError, match="device 'cuda' 0 is not available"):
        binding.bind_output("s", "cuda")
    with pytest.raises(ingot.InputError, match="needs an element_type and a shape"):
        binding.bind_output("s", buffer_ptr=X.ctypes.data)
    with pytest.raises(ingot.InputError, match="element_type is 'flaot'"):
        ingot.OrtValue.ortvalue_from_shape_and_type([2], "flaot")
    target = ingot.OrtValue.ortvalue_from_numpy(np.zeros((1, 3), np.float32))
    binding.bind_output("s")
    binding.bind_ortvalue_output("d", target)
    with pytest.raises(ingot.InputError, match="input 'x', 'z' is missing"):
        binding.run()
    binding.bind_cpu_input("x", X)
    binding.bind_cpu_input("z", Z)
    with pytest.raises(
        ingot.InputError, match=r"output 'd' is float32 \[2, 3\], and what .* float32 \[1, 3\]"
    ):
        binding.run()
    assert not target.numpy().any()
    with pytest.raises(ingot.InputError, match="update_inplace: the array is float64"):
        target.update_inplace(np.ones((1, 3)))
    with pytest.raises(ingot.ProviderError, match="not available here"):
        session.set_providers(["CUDAExecutionProvider"])
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_a_run_in_a_thread_calls_back(session: ingot.InferenceSession) -> None:
    told: queue.Queue[tuple[Any, Any, str]] = queue.Queue()
    session.run_async(["s"], {"x": X, "z": Z}, lambda *all_: told.put(all_), "mine")
    outputs, data, error = told.get(timeout=60)
    np.testing.assert_array_equal(outputs[0], X + Z)
    assert (data, error) == ("mine", "")
    session.run_async(None, {"x": X}, lambda *all_: told.put(all_), None)
    outputs, _, error = told.get(timeout=60)
    assert outputs == []
    assert "input 'z' is missing" in error


@pytest.mark.parametrize("shape", [[2, -1], 3, [2, 1.5], None, [1 << 62]])
def test_shapes_that_are_none(shape: Any) -> None:
    with pytest.raises(ingot.InputError, match="shape is"):
        ingot.OrtValue.ortvalue_from_shape_and_type(shape, np.float32)


@pytest.mark.parametrize("shape", [[2, -3], 6])
def test_memory_of_a_shape_that_is_none(session: ingot.InferenceSession, shape: Any) -> None:
    with pytest.raises(ingot.InputError, match="shape is"):
        session.io_binding().bind_input("x", "cpu", 0, np.float32, shape, X.ctypes.data)
