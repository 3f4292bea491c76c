"""Modules that others import and hardly ever use are loaded when they are used.

onnx_ir imports sympy for arithmetic on symbolic sizes, which sessions never do: a quarter of a second and 35
MB for each process. Nothing else is changed for sympy's other users: whoever touches it gets all of it.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

#: sympy, and the module of onnx_ir that takes functions out of it.
LATER = ("sympy", "onnx_ir._symbolic_shapes")


class _Loaded:
    """Gives a module that is there, as it is."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, which gets another specification for a moment."""
        del spec
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do but to give its own specification back."""
        module.__spec__ = self._spec


class _Finder:
    """Finds each of the modules once, as one that loads itself at the first look at an attribute.

    That first look may be Python's own, for the folder of a submodule that is imported (`sympy.core.add`):
    after it, the package has loaded this submodule itself, and Python would load it a second time.
    """

    def __init__(self) -> None:
        self._names = {name for name in LATER if name not in sys.modules}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own specification, with a loader that waits."""
        if target is None and fullname.partition(".")[0] in LATER and fullname in sys.modules:
            return ModuleSpec(fullname, _Loaded(sys.modules[fullname]))  # pyright: ignore[reportArgumentType]
        if fullname not in self._names:
            return None
        self._names.discard(fullname)
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = importlib.util.LazyLoader(spec.loader)
                return spec
        return None


def import_later() -> None:
    """From now on; where onnx_ir was imported before, sympy has been, too."""
    if "onnx_ir" not in sys.modules:
        sys.meta_path.insert(0, _Finder())
