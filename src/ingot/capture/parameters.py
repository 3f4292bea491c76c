"""What the arguments of a call are called, in the order in which the operator, function or module that is
called declares them, however they were passed.
"""

# What is called is whatever PyTorch has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parameters:
    """What a target takes: names for the arguments of a call, in the order that it declares them."""

    by_name: Callable[[Sequence[Any], Mapping[str, Any]], dict[str, Any]]
    optional: frozenset[str] = frozenset()  # tensors that a call may leave out


def of_schema(schema: Any) -> Parameters:
    """The parameters of an operator."""
    names = [a.name for a in schema.arguments]

    def by_name(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        found = {**dict(zip(names, args, strict=False)), **kwargs}
        return {name: found[name] for name in names if name in found}

    kinds = {a.name: str(a.type) for a in schema.arguments}
    return Parameters(by_name, frozenset(n for n, kind in kinds.items() if kind == "Optional[Tensor]"))


def of_function(function: Any, beyond: int = 0) -> Parameters:
    """The parameters of a Python function, but for the first ones (`beyond`), which no call gives."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[beyond:]
    except (TypeError, ValueError):
        return Parameters(lambda args, kwargs: {**{f"input_{i}": a for i, a in enumerate(args)}, **kwargs})
    signature = inspect.Signature(parameters)
    rest = next((p.name for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD), None)

    def by_name(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(signature.bind(*args, **kwargs).arguments)
        return found if rest is None else {**found, **found.pop(rest, {})}

    return Parameters(by_name)


def of_autograd(function: Any) -> Parameters:
    """The parameters of an autograd function: where it sets up its context by itself, forward has none."""
    from torch.autograd.function import Function

    return of_function(function.forward, int(function.setup_context is Function.setup_context))
