"""A condition that only the run knows, given to torch where it wants a Python bool: `keepdim=n > 4`.

Most operators have no form for it: the call becomes an If, with the call for either answer on its sides.
Those that take numbers compute with it as they are.
"""

# Arguments are whatever the model's Python has; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import handle_torch_function

from ingot.capture.checks import as_known
from ingot.capture.choice import Maybe
from ingot.capture.objects import is_a
from ingot.capture.standins import calls

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime

_TAKE_CONDITIONS = (torch.nn.functional.scaled_dot_product_attention,)  # their rows compute with them


def opened(function: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
    """The function of a partial, with all arguments."""
    while isinstance(function, functools.partial):
        args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
        function = function.func
    return function, args, kwargs


def told(rt: Runtime, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """`function(…)`, of torch or Python; an If over a condition among its arguments where it takes none."""
    if not (function in _TAKE_CONDITIONS and any(is_a(a, Maybe) for a in (*args, *kwargs.values()))):
        try:
            if function in _TAKE_CONDITIONS:
                tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
                return handle_torch_function(function, tensors, *args, **kwargs)
            return calls.with_symbols(rt, function, args, kwargs)
        except TypeError as error:
            if "SymBool" not in str(error):
                raise
    at, condition = next(_conditions(args, kwargs))

    def side(holds: bool) -> Any:
        given: list[Any] = list(map(as_known, args))
        named = {key: as_known(a) for key, a in kwargs.items()}
        if isinstance(at, int):
            given[at] = holds
        else:
            named[at] = holds
        return rt.call(function, *given, **named)

    return rt.choose(condition, lambda: side(True), lambda: side(False))


def _conditions(args: Any, kwargs: Any) -> Iterator[tuple[int | str, Any]]:
    """Conditions among arguments, with their places."""
    for at, value in (*enumerate(args), *kwargs.items()):
        if isinstance(value, torch.SymBool):
            yield at, value
