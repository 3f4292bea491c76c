"""Random weights with the statistics of trained ones, and random inputs with those of photographs.

PyTorch's default initialisation hides mistakes: batch normalisation that does nothing, LayerScale of 1e-6
that switches whole branches off, attention logits so small that softmax is flat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def photographs(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Return images, float32 [batch, 3, height, width]: noise at every scale, mean 0, deviation 1.

    Natural images have equal energy at each octave; white noise alone would leave pooled features all alike.
    """
    image = torch.zeros(batch, 3, height, width)
    size = 4
    while size < max(height, width):
        noise = torch.randn(batch, 3, size, size, generator=generator)
        image += nn.functional.interpolate(noise, (height, width), mode="bilinear", align_corners=False)
        size *= 2
    image += 0.3 * torch.randn(batch, 3, height, width, generator=generator)
    return (image - image.mean()) / image.std()


def _uniform(tensor: Tensor, low: float, high: float, generator: torch.Generator) -> None:
    tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)


def _normal(tensor: Tensor, deviation: float, generator: torch.Generator, mean: float = 0.0) -> None:
    tensor.copy_(torch.randn(tensor.shape, generator=generator) * deviation + mean)


@torch.no_grad()
def settle(module: nn.Module, sample: Mapping[str, Tensor], generator: torch.Generator) -> nn.Module:
    """Give module trained-looking weights in place and leave it in eval mode; returns it.

    Linear and convolution weights keep the variance of what passes through, norms scale by 0.5 to 1.5 and
    shift, LayerScale passes 10 to 50 %, and running statistics are those of `sample` (inputs by name).
    """
    normed = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
            fan_in = part.weight[0].numel()
            if isinstance(part, nn.ConvTranspose2d):
                fan_in = part.in_channels * part.kernel_size[0] * part.kernel_size[1] // part.stride[0] ** 2
            # ReLU halves the energy; behind batch normalisation the scale is free.
            gain = 2.0 if isinstance(part, nn.Conv2d) and not normed else 1.0
            _normal(part.weight, math.sqrt(gain / fan_in), generator)
            if part.bias is not None:
                _normal(part.bias, 0.1, generator)
        elif isinstance(part, nn.LayerNorm | nn.GroupNorm | nn.modules.batchnorm._BatchNorm):
            _uniform(part.weight, 0.5, 1.5, generator)
            if part.bias is not None:
                _normal(part.bias, 0.2, generator)
        elif isinstance(part, nn.Embedding):
            _normal(part.weight, 0.5, generator)
    for name, parameter in module.named_parameters():
        if "layer_scale" in name or name.endswith("lambda1"):
            _uniform(parameter, 0.1, 0.5, generator)
        elif name.endswith(("cls_token", "position_embeddings", "mask_token")) and not parameter.any():
            _normal(parameter, 0.2, generator)
    if normed:
        drops = [part for part in module.modules() if isinstance(part, nn.Dropout)]
        momenta: dict[nn.modules.batchnorm._BatchNorm, float | None] = {}
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.reset_running_stats()
                momenta[part] = part.momentum
                part.momentum = None  # the average over all batches seen
        module.train()
        for drop in drops:
            drop.eval()
        module(**sample)
        for part, momentum in momenta.items():
            part.momentum = momentum
    return module.eval()
