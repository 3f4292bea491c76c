"""PyTorch models named on the command line: MODULE:FACTORY becomes the model and, if it brings them, its
arguments.

Nothing here imports PyTorch; the user's module does.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np

from ingot.errors import ExportError, MissingExtraError

#: What PyTorch's exported programs and TorchScript modules are called.
MODEL_SUFFIXES = (".pt2", ".pt", ".pth", ".jit", ".ts", ".torchscript")


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
    `python -m`. Raises ExportError naming the part that is wrong, MissingExtraError where it imports PyTorch
    and that is not installed; what else the user's own code raises comes through as it is.
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
    made = factory if _is_model(factory) else factory() if callable(factory) else factory
    model, args, kwargs = _parts(made)
    if not _is_model(model):
        raise ExportError(
            f"{name} gave a {type(model).__name__}; a torch.nn.Module is wanted, or (module, args, kwargs)"
        )
    return Source(model, args, kwargs)


def is_model_file(name: str) -> bool:
    """Whether a name on the command line is a model that PyTorch wrote, not MODULE:FACTORY."""
    path = Path(name)
    return path.suffix in MODEL_SUFFIXES or (path.is_file() and path.suffix != ".py")


def require_example(name: str, source: Source) -> None:
    """Raise ExportError, naming the option to give, where nobody gave an example argument."""
    if source.args or source.kwargs or isinstance(source.model, Path):
        return
    wanted = list(inspect.signature(source.model.forward).parameters)
    raise ExportError(
        f"{name} gave no example arguments; describe the inputs ({', '.join(wanted) or 'none'}) with "
        f"--shape, as in --shape {wanted[0] if wanted else 'x'}:1x3x224x224, or return (module, args)"
    )


def export_example(dims: Sequence[int | str], dtype: str) -> Any:
    """Return an argument for ingot.export: an array of zeros for sizes, an ingot.Input when some dims are
    named.
    """
    sizes = [dim for dim in dims if isinstance(dim, int)]
    if len(sizes) == len(dims):
        return np.zeros(sizes, dtype)
    from ingot.capture.signature import Input

    return Input(dtype, dims)


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
        try:
            specification.loader.exec_module(module)
        except ModuleNotFoundError as error:
            _needs_torch(error)
            raise
        return module
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        _needs_torch(error)
        if error.name is not None and (name + ".").startswith(error.name + "."):
            raise ExportError(f"there is no module {name!r} here or among the installed packages") from error
        raise


def _needs_torch(error: ModuleNotFoundError) -> None:
    if error.name == "torch":
        raise MissingExtraError(
            "ingot export needs PyTorch. Install it with: pip install 'ingot[torch]'"
        ) from error


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
