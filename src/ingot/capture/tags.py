"""Attributes that the model's own code puts on tensors: `y.scale = 2.0`."""

# Attributes may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor

from ingot.capture.request import ACTIVE

_MEMOS = [n for n, v in vars(FakeTensor).items() if isinstance(v, fake_tensor.SymNumberMemoDescriptor)]
#: What torch keeps in a tensor without contents.
_OF_TORCH = frozenset(FakeTensor.__annotations__) | {
    f"_{name}{end}" for name in _MEMOS for end in ("", "_vc", "_epoch")
}
_NOTHING: dict[str, Any] = {}


def tags(tensor: torch.Tensor) -> dict[str, Any]:
    """The attributes of a tensor that are the model's own, by name."""
    held = vars(tensor)
    if not held:
        return _NOTHING
    return {n: v for n, v in held.items() if n not in _OF_TORCH} or _NOTHING


def followed(tensor: torch.Tensor) -> dict[str, Any]:
    """Those of them that what is made of the tensor in a branch or loop is to have: not what was there before
    the call as it is now, where no code of the model's reads it, as marks for optimisers are.
    """
    held, g = tags(tensor), ACTIVE.recorder
    if not held or g is None:
        return held
    idle = g.idle_tags(tensor)
    return {n: v for n, v in held.items() if n not in idle or idle[n] is not v}


def put(tensor: torch.Tensor, held: dict[str, Any]) -> None:
    """Let a tensor have these, and no others."""
    own = vars(tensor)
    for name in tags(tensor).keys() - held.keys():
        del own[name]
    own.update(held)


def tagged(values: Iterable[Any]) -> str | None:
    """The first attribute of the tensors among some values that is to be followed."""
    found = (followed(v) for v in values if isinstance(v, torch.Tensor))
    return next((name for held in found for name in held), None)
