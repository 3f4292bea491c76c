"""The models of the benchmark, ready to run: an .onnx file, its inputs, and the PyTorch module where there is
one.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import ingot
from benchmarks.files import FILES, fetch, inputs_of
from benchmarks.zoo import CORE, ZOO, build
from ingot.describe import cost
from ingot.peers import Arrays

NAMES = [*ZOO, *FILES]
CORE_NAMES = list(CORE)
TORCH_RUNNERS = ("torch", "torch.compile")


@dataclass(frozen=True)
class Case:
    """One model at one batch size. `module` takes `tensors` by name; None for a file that came without."""

    name: str
    title: str
    batch: int
    path: Path
    inputs: Mapping[str, NDArray[Any]]
    module: nn.Module | None = None
    tensors: Mapping[str, Tensor] | None = None

    def runners(self, names: list[str]) -> list[str]:
        """Return those of the runners that have what they need."""
        return [name for name in names if self.module is not None or name not in TORCH_RUNNERS]

    @functools.cached_property
    def reference(self) -> Arrays | None:
        """The module's own outputs, computed in float64 and rounded once: runners of float32 differ from each
        other by both of their errors. None without a module.
        """
        if self.module is None or self.tensors is None:
            return None
        module = copy.deepcopy(self.module).double()
        tensors = {name: t.double() if t.is_floating_point() else t for name, t in self.tensors.items()}
        with torch.no_grad():
            leaves = torch.utils._pytree.tree_leaves(module(**tensors))
        found = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        return [(leaf.float() if leaf.is_floating_point() else leaf).numpy() for leaf in found]

    def gflop(self) -> float | None:
        """Return 10⁹ operations of one call, a multiply-add as two; None where sizes depend on data."""
        found = cost(ir.load(self.path), {name: array.shape for name, array in self.inputs.items()})
        return found.total / 1e9 if found.complete and found.total else None


def title(name: str) -> str:
    """Return what a model is called in tables."""
    return ZOO[name].title if name in ZOO else FILES[name].title


def open_case(name: str, batch: int, folder: Path, exporter: str = "ingot") -> Case:
    """Return a model of NAMES; a module is exported into `folder` unless its file is there already.

    Raises NotAvailableError for a file that cannot be downloaded, and whatever the exporter raises.
    """
    if name in FILES:
        return Case(name, title(name), batch, fetch(name), inputs_of(name, batch))
    module, tensors = build(name, batch)
    path = folder / f"{name}.onnx"
    if not path.exists():
        EXPORTERS[exporter](module, tensors).save(path)
    inputs = {key: np.ascontiguousarray(value.numpy()) for key, value in tensors.items()}
    return Case(name, title(name), batch, path, inputs, module, tensors)


def export_with_ingot(module: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    """Return ingot.export's program, every dimension symbolic."""
    return ingot.export(module, (), kwargs=dict(inputs), verify=False)


def export_with_torch(module: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    """Return the program of PyTorch's own exporter, the batch symbolic."""
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (),
            kwargs=dict(inputs),
            input_names=list(inputs),
            dynamic_shapes={name: {0: batch} for name in inputs},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program


EXPORTERS: dict[str, Callable[[nn.Module, Mapping[str, Tensor]], Any]] = {
    "ingot": export_with_ingot,
    "torch": export_with_torch,
}
