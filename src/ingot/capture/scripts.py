"""Scripted modules and functions that a Python model calls: their graphs are run here for the time of a
recording, as TorchScript's own interpreter would hide their branches, and wants numbers for sizes.
"""

# TorchScript's modules are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator
from typing import Any

import torch

from ingot.capture.torchscript import Graph, Scripted, bound, sets_attributes, standing_for
from ingot.errors import ExportError

_C: Any = torch._C
_Function: Any = torch.jit.ScriptFunction


class Scripts:
    """The scripted modules in a Python model, and for each the module that stands for it."""

    def __init__(self, model: Any) -> None:
        self._by_script: dict[Any, Scripted] = {}
        self._by_id: dict[int, Scripted] = {}
        for module in model.modules() if isinstance(model, torch.nn.Module) else ():
            if isinstance(module, torch.jit.ScriptModule) and id(module) not in self._by_id:
                self._add(module, standing_for(module))

    def _add(self, script: Any, standing: Any) -> None:
        self._by_id[id(script)] = standing
        self._by_script.setdefault(script._c, standing)
        for name, child in script.named_children():
            self._add(child, getattr(standing, name))

    def stands_for(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module itself, or what has a scripted one's tensors and attributes here."""
        if isinstance(module, torch.jit.ScriptModule) and id(module) not in self._by_id:
            self._add(module, standing_for(module))  # one that an object, closure or global holds
        return self._by_id.get(id(module), module)

    @contextlib.contextmanager
    def run_here(self) -> Generator[None]:
        """Whatever calls a scripted module or function has its graph run by Ingot."""
        before = _C.ScriptMethod.__call__, _Function.__call__

        def method(called: Any, *args: Any, **kwargs: Any) -> Any:
            owner = self._owner(called.owner, called.name)
            return owner.method(called.name).run([owner, *bound(called.schema, args, kwargs)])

        _C.ScriptMethod.__call__, _Function.__call__ = method, _function
        try:
            yield
        finally:
            _C.ScriptMethod.__call__, _Function.__call__ = before

    def _owner(self, script: Any, method: str) -> Scripted:
        """What stands for a script whose method is called.

        Raises:
            ExportError: nobody saw it before the recording, and the method changes it.
        """
        found = self._by_script.get(script)
        if found is None:
            found = self._by_script[script] = standing_for(torch.jit._recursive.wrap_cpp_module(script))
            if sets_attributes(found.method(method).graph):
                raise ExportError(
                    f"a scripted module is called that sets its own attributes in {method!r} and is no "
                    "submodule of the model. Make it one: self.part = scripted."
                )
        return found


@functools.lru_cache(maxsize=256)
def _graph(script: Any) -> Graph:
    return Graph(script.inlined_graph)


def _function(script: Any, *args: Any, **kwargs: Any) -> Any:
    return _graph(script).run(bound(script.schema, args, kwargs))
