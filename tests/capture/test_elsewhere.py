"""What ONNX Runtime lacks: written in other operators where these give the same, said where none do."""

# Functions are lambdas over torch, which is untyped.
# pyright: basic

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from onnxruntime.capi import _pybind_state as state
from torch import nn

import ingot
from ingot.capture import elsewhere
from ingot.capture.attempt import capture
from tests.capture.support import ort_runner, parity

T = torch.Tensor
OPSET = 20
DTYPES = {
    "double": ir.DataType.DOUBLE, "bfloat16": ir.DataType.BFLOAT16, "bool": ir.DataType.BOOL,
    **{f"{u}int{n}": ir.DataType[f"{u}int{n}".upper()] for u in ("", "u") for n in (8, 16, 32, 64)},
}  # fmt: skip


def written() -> list[Any]:
    """The schemas of the operators that capture's source names."""
    folder = Path(elsewhere.__file__).parent
    text = "\n".join(path.read_text() for path in sorted(folder.rglob("*.py")) if path.name != "elsewhere.py")
    names = sorted(set(re.findall(r'"([A-Z]\w+)"', text)))
    found = []
    for name in names:
        with contextlib.suppress(onnx.defs.SchemaError):
            found.append(onnx.defs.get_schema(name, OPSET, ""))
    return [s for s in found if s.inputs]


def lacking_here() -> dict[ir.DataType, list[str]]:
    """The table as the installed onnxruntime has it."""
    kernels: dict[str, list[Any]] = {}
    for kernel in state.get_all_opkernel_def():
        first, last = kernel.version_range
        if kernel.provider == "CPUExecutionProvider" and not kernel.domain and first <= OPSET <= last:
            kernels.setdefault(kernel.op_name, []).append(kernel)
    found: dict[ir.DataType, list[str]] = {}
    for schema in written():
        formal = schema.inputs[min(elsewhere.operand(schema.name), len(schema.inputs) - 1)]
        expands = schema.has_function or schema.has_context_dependent_function
        for name, dtype in DTYPES.items():
            spelled = f"tensor({name})"
            found_of = [
                k.type_constraints.get(formal.type_str, [spelled]) for k in kernels.get(schema.name, [])
            ]
            taken = any(spelled in types for types in found_of)
            if spelled in formal.types and not taken and (not expands or name in ("double", "bfloat16")):
                found.setdefault(dtype, []).append(schema.name)
    return found


def test_the_table_is_that_of_the_installed_onnxruntime() -> None:
    """A newer one has other kernels: write the table that is printed into `elsewhere`."""
    table = {dtype: names.split() for dtype, names in elsewhere.LACKING.items()}
    here = lacking_here()
    assert table == here, "\n".join(f"{d.name}: {' '.join(names)}" for d, names in here.items())


X = torch.linspace(-3, 3, 25, dtype=torch.float64).reshape(5, 5)
EDGES = torch.tensor([[0.0, -0.0, 1e-9, -1e-300, 1e300], [torch.inf, -torch.inf, torch.nan, 1.0, -1.0]])
EDGES = EDGES.double()
UNARY: dict[str, Callable[[T], T]] = {
    "tan": torch.tan, "atan": torch.atan, "asin": torch.asin, "acos": torch.acos, "sinh": torch.sinh,
    "cosh": torch.cosh, "asinh": torch.asinh, "acosh": torch.acosh, "atanh": torch.atanh, "erf": torch.erf,
    "gelu": F.gelu, "gelu tanh": lambda x: F.gelu(x, approximate="tanh"), "mish": F.mish,
    "softplus": F.softplus, "logsigmoid": F.logsigmoid, "elu": F.elu,
    "celu": lambda x: F.celu(x, 0.7), "selu": F.selu,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "leaky_relu": F.leaky_relu, "silu": F.silu,
    "cos": torch.cos, "sin": torch.sin, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "erfc": torch.erfc,
}  # fmt: skip
CASES: dict[str, tuple[Callable[..., Any], tuple[T, ...]]] = {
    "atan2": (torch.atan2, (X, X.T.contiguous())),
    "nonzero": (torch.nonzero, (X.round(),)),
    "group_norm": (lambda x: F.group_norm(x, 2), (torch.randn(3, 4, 5, dtype=torch.float64),)),
    "instance_norm": (
        nn.InstanceNorm2d(4, affine=True).double(),
        (torch.randn(3, 4, 5, 6, dtype=torch.float64),),
    ),
    "global mean": (nn.AdaptiveAvgPool2d(1), (torch.randn(3, 4, 5, 6, dtype=torch.float64),)),
    "global max": (nn.AdaptiveMaxPool2d(1), (torch.randn(3, 4, 5, 6, dtype=torch.float64),)),
    "prelu": (nn.PReLU().double(), (X,)),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.5), (X,)),
    "matmul of 8 bits": (lambda x: (x @ x, F.linear(x, x), torch.einsum("ij,jk->ik", x, x)), (X.char(),)),
    "bounds of 16 bits": (
        lambda x: (x.clamp(-1, 2), torch.maximum(x, x.T), torch.minimum(x, x.T)),
        (X.short(),),
    ),
    "relu of 64 bits": (torch.relu, (X.long(),)),
    "kthvalue": (lambda x: x.kthvalue(2).values, (X,)),
    "nonzero of 16 bits": (torch.nonzero, (X.to(torch.int16),)),
}


@pytest.mark.parametrize("opset", [18, 20, 22])
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_float64(name: str, opset: int) -> None:
    """ONNX Runtime loads them, and has float64's digits: of the largest value, and of small ones alone."""
    function = UNARY[name]
    parity(function, (X,), (X * 1e-8,), (1 + X * 1e-9,), tolerance=1e-14, opset=opset)


@pytest.mark.parametrize("name", UNARY)
def test_edges_of_float64(name: str) -> None:
    """Zeros with a sign, infinities and NaN."""
    parity(UNARY[name], (EDGES,), tolerance=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_operators_of_float64(name: str) -> None:
    """ONNX Runtime loads these too."""
    function, args = CASES[name]
    parity(function, args, tolerance=1e-13, dynamic_shapes=None)


def test_topk_of_truths() -> None:
    """PyTorch has it on other devices than the CPU."""
    x = torch.tensor([[False, True, True, False]])
    captured = capture(lambda x: x.topk(3).values, (x,))
    onnx.checker.check_model(ir.to_proto(captured.model), full_check=True)
    (values,) = ort_runner(captured.model)(captured.feeds([x]), captured.output_names)
    assert values.tolist() == [[True, True, False]]


def test_what_is_lacking_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Where no other operators give it: the operators, the dtype and the line."""
    program = ingot.export(nn.Conv1d(2, 3, 3).double(), (torch.randn(1, 2, 9, dtype=torch.float64),))
    (found,) = [a for a in program.assumptions if a.kind == "runtime"]
    assert found.what.startswith("ONNX Runtime's CPU provider has no kernel of float64 for Conv"), found
    assert found.what in capsys.readouterr().err
    program = ingot.export(nn.Linear(2, 3).bfloat16(), (torch.randn(4, 2).bfloat16(),))
    (found,) = [a for a in program.assumptions if a.kind == "runtime"]
    assert "bfloat16 for Gemm" in found.what, found


def test_what_is_there_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor what lies in float16, which ONNX Runtime computes in float32."""
    for module, dtype in ((nn.Linear(2, 3), torch.float64), (nn.Conv1d(2, 3, 3), torch.float16)):
        x = torch.randn(2, 2 if dtype == torch.float64 else 9).to(dtype)
        program = ingot.export(module.to(dtype), (x,))
        assert not [a for a in program.assumptions if a.kind == "runtime"]
    assert "ONNX Runtime" not in capsys.readouterr().err
