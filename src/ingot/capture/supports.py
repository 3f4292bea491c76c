"""What torch's distributions ask of their parameters and values (`log_prob` of one outside of the support):
Python raises as data decides, in code of torch's own, and the model checks it.
"""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ingot.capture.request import recorder
from ingot.capture.where import source_line

_own: Callable[[torch.Tensor], torch.Tensor] = torch._is_all_true  # pyright: ignore


def _is_all_true(valid: torch.Tensor) -> Any:
    """Whether all of it is true: what data decides is, or the model's run fails."""
    if recorder().real(valid) is not None:
        return _own(valid)
    torch.ops.aten._assert_async.msg(
        valid.all(), f"{source_line()}: the distribution's constraints hold for its parameters and values"
    )
    return True


#: What stands in for torch's functions while the model's Python runs.
INSTEAD: dict[Any, Callable[..., Any]] = {_own: _is_all_true}
