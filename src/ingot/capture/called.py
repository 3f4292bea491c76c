"""Modes that see, and may answer, each operator that a module calls outside of a recording."""

# torch's operators and modes are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportPrivateUsage=false

from __future__ import annotations

import sys
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode


class Called(TorchDispatchMode):
    """While entered, every operator goes through `answer`; torch's control flow (scan, cond …) runs as it is,
    with all that is called in it.
    """

    supports_higher_order_operators = True
    eager: Any = None

    def __enter__(self) -> Any:
        # What is compiled while a mode is entered is compiled in parts, and torch fails on the same later.
        if "torch._dynamo" in sys.modules:
            self.eager = torch.compiler.set_stance("force_eager")
            self.eager.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self.eager is not None:
            self.eager.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, HigherOrderOperator):
            return func(*args, **(kwargs or {}))
        return self.answer(func, args, kwargs or {})

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What the operator gives."""
        return func(*args, **kwargs)
