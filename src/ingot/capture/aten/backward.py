"""Gradients that core ATen has as operators of their own: of models that compute them in their forward."""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ingot.capture.aten.pool import each
from ingot.capture.aten.registry import composed

Tensor = torch.Tensor


def _cut(x: Tensor, padding: Sequence[int], sizes: Sequence[Any]) -> Tensor:
    """What a padded operand's gradient is without its padding: `sizes` elements behind `padding` ones; zero
    where no window reached.
    """
    first = x.dim() - len(sizes)
    for axis, (p, n) in enumerate(zip(padding, sizes, strict=True), start=first):
        missing: Any = torch.sym_max(p + n - x.shape[axis], 0)
        ends = [0, missing] if axis == x.dim() - 1 else [0, 0] * (x.dim() - 1 - axis) + [0, missing]
        x = torch.constant_pad_nd(x, ends).narrow(axis, p, n)
    return x


def _spread(
    grad: Tensor, weight: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int
) -> Tensor:
    """A transposed convolution without padding."""
    none = [0] * len(stride)
    return torch.ops.aten.convolution(grad, weight, None, stride, none, dilation, True, none, groups)


def _weight_gradient(
    x: Tensor,
    grad: Tensor,
    kernel: Sequence[Any],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Σ over batch and places of input times gradient: a convolution of the input by the gradient, whose
    steps are the weight's dilation.
    """
    n, c, *sizes = x.shape
    o, *places = grad.shape[1:]
    x = x.reshape([n, groups, c // groups, *sizes]).movedim(2, 0)
    x = x.transpose(1, 2).reshape([c // groups, groups * n, *sizes])
    grad = grad.movedim(1, 0).reshape([o, n, *places])
    none = [0] * len(sizes)
    made = torch.ops.aten.convolution(x, grad, None, dilation, padding, stride, False, none, groups)
    for axis, k in enumerate(kernel, start=2):  # a stride that leaves elements over makes it longer
        made = made.narrow(axis, 0, k)
    return made.transpose(0, 1)


@composed("convolution_backward")
def convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of input, weight and bias."""
    spatial = weight.dim() - 2
    stride, padding, dilation = (each(v, spatial) for v in (stride, padding, dilation))
    kernel, none = weight.shape[2:], [0] * spatial
    of_input = of_weight = of_bias = None
    if wanted[0] and transposed:
        of_input = torch.ops.aten.convolution(
            grad, weight, None, stride, padding, dilation, False, none, groups
        )
    elif wanted[0]:
        of_input = _cut(_spread(grad, weight, stride, dilation, groups), padding, x.shape[2:])
    if wanted[1]:
        pair = (grad, x) if transposed else (x, grad)
        of_weight = _weight_gradient(*pair, kernel, stride, padding, dilation, groups)
    if wanted[2]:
        of_bias = grad.sum([0, *range(2, grad.dim())])
    return of_input, of_weight, of_bias


@composed("avg_pool2d_backward")
def avg_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """Each window's gradient shared out evenly among its elements."""
    window, pads = each(kernel, 2), each(padding, 2)
    steps = each(stride, 2) if stride else window
    shared = grad if divisor is None else grad / divisor
    if divisor is None:
        for axis, k, s, p in zip((-2, -1), window, steps, pads, strict=True):
            begin = torch.arange(grad.shape[axis]) * s - p
            end = torch.clamp_max(begin + k, x.shape[axis] + p)
            if not count_include_pad:
                begin, end = torch.clamp_min(begin, 0), torch.clamp_max(end, x.shape[axis])
            count = (end - begin).to(grad.dtype)
            shared = shared / (count.unsqueeze(-1) if axis == -2 else count)
    flat = shared.reshape([-1, 1, *grad.shape[-2:]])
    ones = torch.ones([1, 1, *window], dtype=grad.dtype)
    return _cut(_spread(flat, ones, steps, [1, 1], 1), pads, x.shape[-2:]).reshape(x.shape)


@composed("_adaptive_avg_pool2d_backward")
def adaptive_avg_pool2d_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Each part's gradient shared out evenly among the elements of its window."""

    def windows(length: Any, parts: Any) -> Tensor:
        i, at = torch.arange(parts), torch.arange(length).unsqueeze(1)
        begin = (i * length).div(parts, rounding_mode="floor")
        end = ((i + 1) * length + parts - 1).div(parts, rounding_mode="floor")
        return ((at >= begin) & (at < end)).to(grad.dtype) / (end - begin).to(grad.dtype)

    rows, columns = (windows(x.shape[axis], grad.shape[axis]) for axis in (-2, -1))
    return torch.matmul(torch.matmul(rows, grad), columns.transpose(0, 1))
