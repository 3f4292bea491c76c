"""Operators without a row: taken apart into others, or noted, so that one error names them all."""

# torch's fake tensors, operator overloads and dispatch modes are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.where import quoted_line
from ingot.errors import MissingOperatorError

if TYPE_CHECKING:
    from ingot.capture.aten.registry import Row
    from ingot.capture.record import Recorder


@dataclass
class Missing:
    """Operators without a row, with the lines that call them."""

    lines: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, name: str, line: str) -> None:
        """Note one call."""
        lines = self.lines.setdefault(name, [])
        if line not in lines:
            lines.append(line)

    def raise_if_any(self) -> None:
        """Raise one error for all of them."""
        if not self.lines:
            return
        listing = "\n".join(f"  {name}\n      {lines[0]}" for name, lines in sorted(self.lines.items()))
        count = "An operator" if len(self.lines) == 1 else f"{len(self.lines)} operators"
        raise MissingOperatorError(
            f"{count} of PyTorch without a form in ONNX here:\n{listing}\n"
            "Express them with other operators in the model, or say what they become with ingot.translate."
        )


def without_row(g: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Take an operator without a row apart; when torch cannot, note it and go on to find the others."""
    parts = _decomposition(func)
    if parts is not None:
        again = g.recorded(parts, *args, **kwargs)
        results = again if isinstance(again, (list, tuple)) else [again]
        if any(isinstance(r, torch.Tensor) and g.known_entry(r) is None for r in results):
            _note_missing(g, func, out)  # it came apart into something that has no row either
            return
        flat_out = list(out) if isinstance(out, (list, tuple)) else [out]
        flat_again = list(again) if isinstance(again, (list, tuple)) else [again]
        for o, a in zip(flat_out, flat_again, strict=True):
            if isinstance(o, torch.Tensor) and o is not a:  # an operand itself, as broadcast_tensors gives it
                g.adopt(o, a)
        return
    _note_missing(g, func, out)


def functional(func: Any) -> Row | None:
    """`op_` without a row of its own as `op`, taken apart."""
    name = func._schema.name.split("::")[1]
    packet: Any = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") else None
    overload = getattr(packet, func._overloadname, None)
    if overload is None:
        return None

    def emit(g: Recorder, out: Any, *args: Any, **kwargs: Any) -> Any:
        return g.traced(overload, out, *args, **kwargs)

    return emit


def _note_missing(g: Recorder, func: Any, out: Any) -> None:
    g.missing.add(str(func), quoted_line())
    outs = list(out) if isinstance(out, (list, tuple)) else [out]
    if any(isinstance(o, torch.Tensor) and o.is_complex() for o in outs):
        g.missing.raise_if_any()  # nothing can stand for it
    for o in outs:
        if isinstance(o, torch.Tensor):
            value = ir.Value(name=g.graph.unique("missing"))
            g.bind(o, value)
            g.note_dims(o, value)


@functools.cache
def _core() -> Any:
    """What torch itself takes apart on the way to its own export: it makes the table anew each time."""
    from torch._decomp import core_aten_decompositions

    return core_aten_decompositions()


def _decomposition(func: Any) -> Callable[..., Any] | None:
    from torch._decomp import decomposition_table

    found: Any = _core().get(func) or decomposition_table.get(func)
    if found is None and func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
        return func.decompose
    return found
