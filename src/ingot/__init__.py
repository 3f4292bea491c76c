"""Ingot: PyTorch models to standard ONNX files, and a native session that runs ONNX files fast.

Public names are imported when first used, so `import ingot` costs nothing and needs neither torch nor
llvmlite.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from ingot.later import import_later

if TYPE_CHECKING:
    from ingot.capture.signature import Dim as Dim
    from ingot.capture.signature import Input as Input
    from ingot.capture.translations import translate as translate
    from ingot.errors import DataDependentError as DataDependentError
    from ingot.errors import ExportError as ExportError
    from ingot.errors import IngotError as IngotError
    from ingot.errors import InputError as InputError
    from ingot.errors import MissingExtraError as MissingExtraError
    from ingot.errors import MissingOperatorError as MissingOperatorError
    from ingot.errors import ModelError as ModelError
    from ingot.errors import OperatorError as OperatorError
    from ingot.errors import ProviderError as ProviderError
    from ingot.errors import ShapeError as ShapeError
    from ingot.errors import TerminatedError as TerminatedError
    from ingot.errors import UnsupportedOperatorError as UnsupportedOperatorError
    from ingot.errors import VerificationError as VerificationError
    from ingot.export import export as export
    from ingot.loading import load as load
    from ingot.loading import save as save
    from ingot.ops.user import register_op as register_op
    from ingot.optimize import optimize as optimize
    from ingot.program import Program as Program
    from ingot.runtime.binding import IOBinding as IOBinding
    from ingot.runtime.binding import OrtValue as OrtValue
    from ingot.runtime.options import ExecutionMode as ExecutionMode
    from ingot.runtime.options import GraphOptimizationLevel as GraphOptimizationLevel
    from ingot.runtime.options import NodeArg as NodeArg
    from ingot.runtime.options import RunOptions as RunOptions
    from ingot.runtime.options import SessionOptions as SessionOptions
    from ingot.runtime.providers import get_available_providers as get_available_providers
    from ingot.runtime.session import InferenceSession as InferenceSession
    from ingot.stateful import Stateful as Stateful
    from ingot.verify import verify as verify

_HOME = {
    "DataDependentError": "ingot.errors",
    "Dim": "ingot.capture.signature",
    "ExecutionMode": "ingot.runtime.options",
    "ExportError": "ingot.errors",
    "GraphOptimizationLevel": "ingot.runtime.options",
    "IOBinding": "ingot.runtime.binding",
    "InferenceSession": "ingot.runtime.session",
    "IngotError": "ingot.errors",
    "Input": "ingot.capture.signature",
    "InputError": "ingot.errors",
    "MissingExtraError": "ingot.errors",
    "MissingOperatorError": "ingot.errors",
    "ModelError": "ingot.errors",
    "NodeArg": "ingot.runtime.options",
    "OperatorError": "ingot.errors",
    "OrtValue": "ingot.runtime.binding",
    "Program": "ingot.program",
    "ProviderError": "ingot.errors",
    "RunOptions": "ingot.runtime.options",
    "SessionOptions": "ingot.runtime.options",
    "ShapeError": "ingot.errors",
    "TerminatedError": "ingot.errors",
    "Stateful": "ingot.stateful",
    "UnsupportedOperatorError": "ingot.errors",
    "VerificationError": "ingot.errors",
    "export": "ingot.export",
    "get_available_providers": "ingot.runtime.providers",
    "load": "ingot.loading",
    "optimize": "ingot.optimize",
    "register_op": "ingot.ops.user",
    "save": "ingot.loading",
    "translate": "ingot.capture.translations",
    "verify": "ingot.verify",
}

__version__ = "0.1.0"
__all__ = ["__version__", *_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


class _Package(ModuleType):
    """Keeps `ingot.export` and `ingot.verify` functions when their modules of the same names are imported.

    The import system sets a submodule as an attribute of its package; here a public name of the same
    spelling wins.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and name in _HOME:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
import_later()


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'ingot' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
