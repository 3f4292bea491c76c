"""oneDNN's layout, which no tensor of a recording has: its operators on plain tensors."""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ingot.capture.aten.registry import instead

Tensor = torch.Tensor
_aten: Any = torch.ops.aten
_nn: Any = torch._C._nn  # pyright: ignore[reportAttributeAccessIssue]  (made in C++)


@instead(torch.Tensor.to_mkldnn, _aten.to_mkldnn, _aten.to_mkldnn.default)
def to_mkldnn(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor as it is."""
    return x if dtype is None else x.to(dtype)


@instead(torch.mkldnn_convolution, _aten.mkldnn_convolution, _aten.mkldnn_convolution.default)
def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A convolution over as many axes as the tensor has."""
    convolve = {3: torch.conv1d, 4: torch.conv2d, 5: torch.conv3d}[x.dim()]
    return convolve(x, weight, bias, stride, padding, dilation, groups)  # type: ignore[operator]


@instead(_nn.mkldnn_linear, _aten.mkldnn_linear, _aten.mkldnn_linear.default)
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer."""
    return torch.nn.functional.linear(x, weight, bias)
