"""PyTorch models named on the command line: MODULE:FACTORY becomes the model and, if it brings them, its
arguments.

Nothing here imports PyTorch; the user's module does.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import numpy as np

from ingot.errors import ExportError, IngotError, MissingExtraError
from ingot.feeds import wrong_dtype

#: What PyTorch's exported programs and TorchScript modules are called.
MODEL_SUFFIXES = (".pt2", ".pt", ".pth", ".jit", ".ts", ".torchscript")


T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """A model and the example arguments that its factory gave with it, if any."""

    model: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])


def load_source(name: str) -> Source:
    """Import `package.module:factory` or `path/to/file.py:factory` and call the factory without arguments.

    The factory returns a torch.nn.Module, or a tuple (module, args) or (module, args, kwargs) with example
    arguments; a Module instance or class may stand in its place. The current folder is importable, as with
    `python -m`. Raises ExportError naming the part that is wrong, with the line of the user's own code where
    that raises; MissingExtraError where it imports PyTorch and that is not installed.
    """
    module_name, colon, factory_name = name.rpartition(":")
    if not colon or not module_name or not factory_name:
        raise ExportError(
            f"{name!r} is not MODULE:FACTORY; write for example mypackage.models:build or model.py:build"
        )
    module = _import(module_name)
    factory: Any = module
    for part in factory_name.split("."):
        if not hasattr(factory, part):
            names = ", ".join(key for key in vars(module) if not key.startswith("_"))
            raise ExportError(f"{module_name} has no {factory_name!r}; it has {names or 'nothing public'}")
        factory = getattr(factory, part)
    made = factory if _is_model(factory) or not callable(factory) else _running(name, factory)
    model, args, kwargs = _parts(made)
    if not _is_model(model):
        raise ExportError(
            f"{name} gave an object of type {type(model).__name__}; a torch.nn.Module is wanted, or "
            "(module, args, kwargs)"
        )
    return Source(model, args, kwargs)


def is_model_file(name: str) -> bool:
    """Whether a name on the command line is a model that PyTorch wrote, not MODULE:FACTORY."""
    path = Path(name)
    return path.suffix in MODEL_SUFFIXES or (path.is_file() and path.suffix != ".py")


def with_examples(
    name: str, source: Source, specs: Sequence[tuple[str, Sequence[int | str], str | None]]
) -> Source:
    """The source with arguments described by --shape (name, dims, dtype): in the place of those that its
    factory gave, or beside them.

    Raises ExportError, naming the option to give, where nobody gave an example argument, or one has a name
    that forward has not.
    """
    described = {arg: _example(dims, dtype or "float32") for arg, dims, dtype in specs}
    if isinstance(source.model, Path):
        return Source(source.model, source.args, source.kwargs | described)
    signature = inspect.signature(source.model.forward)
    parameters = signature.parameters
    wanted = ", ".join(parameters) or "none"
    if not (source.args or source.kwargs or described):
        raise ExportError(
            f"{name} gave no example arguments; describe the inputs ({wanted}) with --shape, as in "
            f"--shape {next(iter(parameters), 'x')}:1x3x224x224, or return (module, args)"
        )
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [arg for arg in described if arg not in parameters and not takes_any]
    if unknown:
        for arg, dims, _ in specs:
            wrong = wrong_dtype(arg, dims, parameters) if arg == unknown[0] else None
            if wrong is not None:
                raise ExportError(wrong)
        raise ExportError(f"--shape {unknown[0]}: forward has no such argument; it has {wanted}")
    args = list(source.args)
    for position, arg in enumerate(parameters):
        if arg in described and position < len(args):
            args[position] = described.pop(arg)
    return Source(source.model, tuple(args), source.kwargs | described)


def _example(dims: Sequence[int | str], dtype: str) -> Any:
    """An argument for ingot.export: an array of zeros for sizes, an ingot.Input when some dims are named."""
    dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)  # as ONNX calls them
    sizes = [dim for dim in dims if isinstance(dim, int)]
    if len(sizes) < len(dims):
        from ingot.capture.signature import Input

        return Input(dtype, dims)
    if dtype == "bfloat16":
        import ml_dtypes

        return np.zeros(sizes, ml_dtypes.bfloat16)
    return np.zeros(sizes, dtype)


def _import(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if name.endswith(".py"):
        path = Path(name)
        specification = importlib.util.spec_from_file_location(path.stem, path)
        if not path.exists() or specification is None or specification.loader is None:
            raise ExportError(
                f"{name} is not there; give the path of a Python file, or a module's dotted name"
            )
        module = importlib.util.module_from_spec(specification)
        sys.modules[path.stem] = module
        sys.path.insert(0, str(path.resolve().parent))
        loader = specification.loader
        _running(name, lambda: loader.exec_module(module))
        return module
    return _running(name, lambda: importlib.import_module(name))


def _running(name: str, code: Callable[[], T]) -> T:
    """Run the user's own code; what it raises is said with its line."""
    try:
        return code()
    except IngotError:
        raise
    except ModuleNotFoundError as error:
        if error.name == "torch":
            raise MissingExtraError(
                "ingot export needs PyTorch. Install it with: pip install 'ingot[torch]'"
            ) from error
        if error.name is not None and (name + ".").startswith(error.name + "."):
            raise ExportError(f"there is no module {name!r} here or among the installed packages") from error
        raise _own(name, error) from error
    except Exception as error:  # whatever the user's code raises
        raise _own(name, error) from error


def _own(name: str, error: Exception) -> ExportError:
    """What the user's code raised, with its innermost line that is the user's."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).parent)
    users = [
        f for f in frames if not f.filename.startswith(("<", ours)) and "site-packages" not in f.filename
    ]
    where = f"{users[-1].filename}:{users[-1].lineno}: {users[-1].line}\n" if users else ""
    return ExportError(f"{where}{name} raises {type(error).__name__}: {error}")


def _is_model(value: object) -> bool:
    return not isinstance(value, type) and hasattr(value, "state_dict") and hasattr(value, "forward")


def _parts(made: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Split what a factory returned; example arguments may be a tuple, one value, or a dict by name."""
    if not isinstance(made, tuple):
        return made, (), {}
    model, *rest = cast("tuple[Any, ...]", made)
    args: Any = rest[0] if rest else ()
    kwargs: Any = rest[1] if len(rest) > 1 else {}
    if isinstance(args, dict):
        args, kwargs = (), cast("dict[str, Any]", args)
    return model, cast("tuple[Any, ...]", args) if isinstance(args, tuple) else (args,), kwargs
