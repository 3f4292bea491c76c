"""Every exception Ingot raises on purpose. Each message names its subject, what was found, what was wanted,
what to do.

    IngotError
    ├── ExportError                  a PyTorch model cannot be captured as it is
    │   ├── DataDependentError       data decides what Python does, in a way that has no ONNX form
    │   ├── MissingOperatorError     ATen operators without a row; lists all of them
    │   └── VerificationError        the exported model and its source disagree
    ├── ModelError                   a file or graph that is not a valid model
    │   └── UnsupportedOperatorError an operator, opset or dtype that no provider here can run
    ├── InputError (ValueError)      what was given to run(): name, dtype, rank, shape
    ├── OperatorError (ValueError)   an operator of the user's: its registration, or what it answered
    ├── TerminatedError              a run that RunOptions.terminate has ended
    ├── ShapeError                   shapes inside the graph do not fit each other
    ├── ProviderError                an execution provider that is not available
    └── MissingExtraError            an optional dependency is not installed
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
DEBUG = "INGOT_DEBUG"  # the environment's variable: 1 shows what is inside of Ingot and PyTorch


class IngotError(Exception):
    """Anything that Ingot refuses, with the reason and the remedy in its message."""


class ExportError(IngotError):
    """A PyTorch model cannot be captured as it is."""


class DataDependentError(ExportError):
    """Data decides what Python does here, and no ONNX operators can."""


class MissingOperatorError(ExportError):
    """The model calls ATen operators that have no row in the capture tables."""


class VerificationError(ExportError):
    """The exported model gives other numbers than its source."""


class ModelError(IngotError):
    """A file or graph that is not a valid model."""


class UnsupportedOperatorError(ModelError):
    """An operator, opset or dtype that nothing here can run; names node, operator, opset and dtype."""


class InputError(IngotError, ValueError):
    """Bad input to a session: an unknown or missing name, a wrong dtype, rank or shape."""


class OperatorError(IngotError, ValueError):
    """An operator given to register_op(): it cannot be registered so, or its function broke its word."""


class TerminatedError(IngotError):
    """A run was ended by its RunOptions; the session goes on."""


class ShapeError(IngotError):
    """Shapes inside the graph do not fit each other for the given inputs."""


class ProviderError(IngotError):
    """An execution provider was asked for that cannot run here."""


class MissingExtraError(IngotError, ImportError):
    """An optional dependency is not installed; the message has the pip command."""


def is_debugging() -> bool:
    """Whether the environment asks for whole tracebacks."""
    return os.environ.get(DEBUG, "0") not in ("", "0")


def said_plainly(function: Callable[P, T]) -> Callable[P, T]:
    """The function, raising Ingot's errors without the frames and causes inside of Ingot and PyTorch: the
    message says all that a user needs. The whole traceback is shown where the call has `debug=True`, or the
    environment INGOT_DEBUG=1.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except IngotError as error:
            if kwargs.get("debug") or is_debugging():
                raise
            raise error.with_traceback(None) from None

    return call
