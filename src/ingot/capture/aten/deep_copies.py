"""`copy.deepcopy` of a tensor that is recorded, and what would write one out."""

# torch's fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any, NoReturn

import torch

from ingot.capture.aten.registry import instead
from ingot.capture.request import recorder, refuse
from ingot.capture.where import quoted_line
from ingot.errors import ExportError

_Tensor: Any = torch.Tensor


@instead(_Tensor.__deepcopy__)
def deep_copy(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    """A tensor of its own. torch's own copies the memory, once for all tensors that lie in it."""
    if id(tensor) in memo:
        return memo[id(tensor)]
    memory = id(recorder().entry(tensor).group)
    if memory in memo:
        refuse(
            ExportError(
                f"{quoted_line()}\nThis copies two tensors that share memory, and what is written into the "
                "copy of one is to be in the other's. Copy the tensor that both are parts of, and take the "
                "parts of the copy."
            )
        )
    made = memo[id(tensor)] = memo[memory] = tensor.clone()
    return made


@instead(_Tensor.__reduce_ex__, _Tensor.__reduce__)
def write_out(*_: Any) -> NoReturn:
    """Refuse: what is pickled is a tensor's contents, which only the run knows."""
    refuse(
        ExportError(
            f"{quoted_line()}\nThis writes a tensor out (pickle, torch.save, copy.copy), which has no "
            "contents before the model runs, and no ONNX operator does it. Copy it with `t.clone()`, and "
            "return what is to be stored."
        )
    )
