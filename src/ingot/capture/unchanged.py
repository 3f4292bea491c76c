"""The module as it has to be while it is recorded or called, and as it was afterwards."""

# torch's shape environment and fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
from collections.abc import Generator
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch.fx.graph_module import _WrappedCall
from torch.nn.modules import transformer
from torch.nn.modules.batchnorm import _BatchNorm

from ingot.capture import flex
from ingot.capture.assume import Assumption
from ingot.capture.sources import codes_in
from ingot.capture.state import Snapshot
from ingot.capture.torchscript import reads, script_of


@contextlib.contextmanager
def unchanged(function: Any, keep_batch_norm: bool = False) -> Generator[Snapshot]:
    """eval() for the time of the run, and nothing compiled; mode and everything the model holds as before
    afterwards.

    With `keep_batch_norm`, BatchNorm layers in training mode stay in it.
    """
    with evaluating(function, keep_batch_norm) as snapshot, put_back(snapshot):
        yield snapshot


@contextlib.contextmanager
def evaluating(function: Any, keep_batch_norm: bool = False) -> Generator[Snapshot]:
    """The same for any number of runs, each of which puts back what the model holds."""
    found = list(function.modules()) if isinstance(function, torch.nn.Module) else []
    modules = [m for m in found if hasattr(m, "training")]  # a frozen script has no mode
    modes = [m.training for m in modules]
    script = isinstance(function, torch.jit.ScriptModule)  # what it holds is not Python's
    try:
        for m in modules:
            m.training = m.training and keep_batch_norm and _is_batch_norm(m)
        yield Snapshot(None if script else function)
    finally:
        for m, mode in zip(modules, modes, strict=True):
            m.training = mode


@contextlib.contextmanager
def put_back(snapshot: Snapshot) -> Generator[None]:
    """Everything that the model holds is put back after a run, in which nothing is compiled."""
    snapshot.shield()
    try:
        with flex.uncompiled(), _graphs_without_reports():
            yield
    finally:
        snapshot.restore()


@contextlib.contextmanager
def _graphs_without_reports() -> Generator[None]:
    """A graph module whose code raises would write so on stderr, and drop the error's frames: sizes are only
    tried here.
    """

    def call(self: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        own = self.cls_call
        return super(self.cls, obj).__call__(*args, **kwargs) if own is None else own(obj, *args, **kwargs)

    before = _WrappedCall.__call__
    _WrappedCall.__call__ = call
    try:
        yield
    finally:
        _WrappedCall.__call__ = before


def left_training(function: Any, keep_batch_norm: bool = False) -> list[Assumption]:
    """Layers in training mode that ask for it, which `unchanged` takes out of it."""
    named = function.named_modules() if isinstance(function, torch.nn.Module) else []
    what = "the model is in training mode, and is exported as after .eval()"
    return [
        Assumption("training", f"{_kind(m)} {name!r}" if name else _kind(m), what, "fixed")
        for name, m in named
        if getattr(m, "training", False) and not (keep_batch_norm and _is_batch_norm(m)) and _differs(m)
    ]


def _kind(m: torch.nn.Module) -> str:
    script = script_of(m)
    return type(m).__name__ if script is None else script.original_name


def _is_batch_norm(m: torch.nn.Module) -> bool:
    """Whether it is one of torch's, or a script of one."""
    kinds = _BatchNorm.__subclasses__()
    return isinstance(m, _BatchNorm) or (script_of(m) is not None and _kind(m) in {k.__name__ for k in kinds})


def _differs(m: torch.nn.Module) -> bool:
    script = script_of(m)
    if not (_asks(type(m)) if script is None else reads(script, "training")):
        return False
    # PyTorch's own layers ask always: also those that drop nothing, or keep no statistics.
    own = type(m).__module__.startswith("torch.nn.") or script is not None
    rate: Any = getattr(m, "p", getattr(m, "dropout", None))
    return not own or not (rate == 0 or getattr(m, "track_running_stats", True) is False)


@cache
def _asks(layer: type) -> bool:
    """Whether forward, or a method that it calls, reads `training`."""
    if layer.__module__ == transformer.__name__:
        return False  # for a faster way to the same; the layers in it speak for themselves
    bases = layer.__mro__[: layer.__mro__.index(torch.nn.Module)]
    seen, names = set[str](), ["forward"]
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        for method in (vars(base).get(name) for base in bases):
            if isinstance(method, FunctionType):
                read = {n for code in codes_in(method.__code__) for n in code.co_names}
                if "training" in read:
                    return True
                names.extend(read)
    return False
