"""Casts of floats that no integer of the type is near: as PyTorch and ONNX Runtime convert them on x86."""

from __future__ import annotations

import platform

import numpy as np
import onnx_ir as ir
import pytest

from ingot.codegen.elements import INTEGERS
from ingot.kernels.definitions import to_integer
from tests.ops.native import native, one_node

torch = pytest.importorskip("torch")
runtime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86's conversions")

NUMBERS = np.array(
    [
        *(0.5, -0.5, 127.9, 128.0, -128.9, -129.0, 130.0, -130.0, 200.0, 300.0, 32768.0, -32769.0, 65504.0),
        *(65536.0, 70000.0, -70000.0, 2.0**31, -(2.0**31), 3e9, 2.0**32, 5e9, -5e9, 2.0**63, -(2.0**63)),
        *(1.5 * 2.0**63, 2.0**64, 1e30, -1e30, np.inf, -np.inf, np.nan),
    ]
)


@pytest.mark.parametrize("source", ["float16", "float32", "float64"])
@pytest.mark.parametrize("target", [*INTEGERS, "bool"])
@pytest.mark.parametrize("length", [1, 3, 64])
def test_what_is_out_of_range_is_the_libraries_number(length: int, target: str, source: str) -> None:
    with np.errstate(over="ignore"):
        x = np.repeat(NUMBERS.astype(source)[:, None], length, axis=1)
    to = ir.DataType[target.upper()]
    # In the libraries, vectors of uint32 differ from single numbers.
    rows = [row[:1] for row in x] if target == "uint32" else list(x)
    model, _ = one_node("Cast", [x[0]], to=to)
    file = ir.to_proto(model).SerializeToString()
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    theirs = np.stack([session.run(None, {"i0": row})[0] for row in rows])
    pytorch = np.stack([torch.from_numpy(row).to(getattr(torch, target)).numpy() for row in rows])
    np.testing.assert_array_equal(pytorch, theirs)
    (ours,) = native("Cast", [np.stack(rows)], to=to)
    np.testing.assert_array_equal(ours, theirs)
    if target != "bool":
        np.testing.assert_array_equal(to_integer(np.float64(np.stack(rows)), target), theirs)
