"""Numbers and tensors that only the run knows, as stand-ins find them among what they are given."""

# Arguments are whatever the model's Python has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

from types import FunctionType
from typing import Any

import torch

from ingot.capture import scalars
from ingot.capture.choice import Maybe, Undecided, present
from ingot.capture.objects import is_a
from ingot.capture.request import cannot_wait, recorder
from ingot.capture.scalars import Symbolic, is_data
from ingot.capture.where import is_user_code
from ingot.capture.words import Word


def number_in(x: Any, kind: type | None = None) -> Any:
    """A tensor that only the run knows as its number; anything else as it is."""
    return scalars.item(recorder(), x, kind) if is_a(x, torch.Tensor) and is_data(recorder(), x) else x


def number_of(x: torch.Tensor) -> Any:
    """A tensor as a Python int, or one that the run knows."""
    return number_in(x, int) if is_data(recorder(), x) else x.item()


def is_symbolic(*values: Any) -> bool:
    """Whether the run alone knows one of them."""
    return any(is_a(v, Symbolic) or (is_a(v, torch.Tensor) and is_data(recorder(), v)) for v in values)


def own_answer(x: Any, method: str) -> Any:
    """What a method of the model's own says, `__len__`, `__bool__` or `__iter__`, which may be a number or an
    iterator that only the run knows: Python itself takes none. None where x has no such method.
    """
    asked: Any = getattr(type(x), method, None)
    own = is_a(asked, FunctionType) and is_user_code(asked.__code__)
    return asked(x) if own else None


def weighed(x: Any) -> Any:
    """What says whether x is true: x itself, or the answer of an object of the model's own."""
    if is_a(x, (bool, torch.Tensor, *Symbolic, Maybe, Word)):
        return x
    method = "__bool__" if hasattr(type(x), "__bool__") else "__len__"
    own = own_answer(x, method)
    return x if own is None else own


def has_tensors(data: Any) -> bool:
    """Whether lists or tuples of any depth hold tensors."""
    if is_a(data, (list, tuple)):
        held: Any = list.__iter__(data) if is_a(data, list) else data
        return any(is_a(v, torch.Tensor) or has_tensors(v) for v in held)
    return False


def may_hold_none(data: Any) -> bool:
    """Whether data decides of something in lists or tuples of any depth that it is None."""
    if is_a(data, (list, tuple)):
        return any(map(may_hold_none, list.__iter__(data) if is_a(data, list) else data))
    return is_a(data, Maybe)


def made_of_symbols(data: Any) -> bool:
    """Whether something holds symbolic numbers."""
    if is_a(data, (list, tuple)):
        return any(made_of_symbols(v) for v in (list.__iter__(data) if is_a(data, list) else data))
    return is_a(data, Symbolic)


def tensor_of(data: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> torch.Tensor:
    """torch.tensor of symbolic numbers, in lists of any depth."""
    del kwargs
    data = present(data)
    if is_a(data, torch.Tensor):
        return data if dtype is None else data.to(dtype)
    if not is_a(data, (list, tuple)):
        if scalars.counts_as(data) is None:
            held = "what data decides" if is_a(data, Undecided) else f"a {type(data).__name__}"
            cannot_wait(f"makes a tensor of numbers that only the run knows, with {held} among them,")
        return scalars.as_tensor(recorder(), data, dtype)
    parts = [tensor_of(v, dtype) for v in data]
    wide = parts[0].dtype
    for p in parts[1:]:
        wide = torch.promote_types(wide, p.dtype)
    return torch.stack([p.to(wide) for p in parts])
