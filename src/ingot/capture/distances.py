"""Distances of rows as an exported model has them, from their differences.

For more than 25 rows torch takes them from |a|² - 2ab + |b|², of which little is left where rows are near to
each other or far from 0.
"""

# torch's modes are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportPrivateUsage=false

from __future__ import annotations

from typing import Any

import torch

from ingot.capture.called import Called
from ingot.capture.where import source_line

aten = torch.ops.aten
_FROM_DIFFERENCES = 2  # `compute_mode` of torch's


class FromDifferences(Called):
    """While entered, torch takes distances of however many rows as it does those of a few.

    `lines` has the model's lines where it would not have.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, None] = {}

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func is not aten._euclidean_dist.default:
            return func(*args, **kwargs)
        self.lines[f"cdist at {source_line()}"] = None
        return aten._cdist_forward.default(*args, 2.0, _FROM_DIFFERENCES)
