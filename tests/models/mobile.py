"""Mobile networks in plain PyTorch, as torchvision builds them: MobileNetV2, MobileNetV3, EfficientNet.

Inputs are images, float32 [batch, 3, height, width]; outputs are logits, float32 [batch, classes].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def round_channels(channels: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of divisor, never down by more than 10 % (the MobileNet papers' rule)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = nn.ReLU6,
    eps: float = 1e-5,
) -> nn.Sequential:
    """Convolution with 'same' padding, batch normalisation and, unless None, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=eps),
    ]
    if activation is not None:
        layers.append(activation())
    return nn.Sequential(*layers)


class SqueezeExcite(nn.Module):
    """x * gate(W2 act(W1 mean(x))), the mean over height and width."""

    def __init__(self, channels: int, squeezed: int, activation: Activation, gate: Activation) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel of x [batch, channels, height, width]."""
        return x * self.gate(self.expand(self.activation(self.reduce(self.pool(x)))))


class InvertedResidual(nn.Module):
    """1x1 expand, depthwise, optional squeeze-excite, 1x1 project; the input is added where shapes allow."""

    def __init__(
        self,
        inputs: int,
        expanded: int,
        outputs: int,
        kernel: int,
        stride: int,
        activation: Activation,
        excite: nn.Module | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers.append(conv_bn(inputs, expanded, 1, activation=activation, eps=eps))
        layers.append(conv_bn(expanded, expanded, kernel, stride, expanded, activation, eps))
        if excite is not None:
            layers.append(excite)
        layers.append(conv_bn(expanded, outputs, 1, activation=None, eps=eps))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, inputs, h, w] to [batch, outputs, h / stride, w / stride]."""
        return x + self.block(x) if self.residual else self.block(x)


class MobileNetV2(nn.Module):
    """MobileNetV2, width 1.0 (Sandler et al., 2018): 3.50 million parameters."""

    # expansion, channels, repeats, stride of the first
    rows = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        channels = 32
        layers: list[nn.Module] = [conv_bn(3, channels, 3, 2)]
        for expansion, outputs, repeats, first in self.rows:
            for index in range(repeats):
                stride = first if index == 0 else 1
                layers.append(InvertedResidual(channels, channels * expansion, outputs, 3, stride, nn.ReLU6))
                channels = outputs
        layers.append(conv_bn(channels, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits [batch, classes] of images [batch, 3, height, width]."""
        x = nn.functional.adaptive_avg_pool2d(self.features(image), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class MobileNetV3(nn.Module):
    """MobileNetV3-Large (Howard et al., 2019): 5.48 million parameters."""

    # kernel, expanded, outputs, squeeze-excite, hard-swish instead of ReLU, stride
    rows = (
        (3, 16, 16, False, False, 1),
        (3, 64, 24, False, False, 2),
        (3, 72, 24, False, False, 1),
        (5, 72, 40, True, False, 2),
        (5, 120, 40, True, False, 1),
        (5, 120, 40, True, False, 1),
        (3, 240, 80, False, True, 2),
        (3, 200, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 480, 112, True, True, 1),
        (3, 672, 112, True, True, 1),
        (5, 672, 160, True, True, 2),
        (5, 960, 160, True, True, 1),
        (5, 960, 160, True, True, 1),
    )

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        channels = 16
        layers: list[nn.Module] = [conv_bn(3, channels, 3, 2, activation=nn.Hardswish, eps=1e-3)]
        for kernel, expanded, outputs, excited, hard_swish, stride in self.rows:
            squeezed = round_channels(expanded / 4)
            excite = SqueezeExcite(expanded, squeezed, nn.ReLU, nn.Hardsigmoid) if excited else None
            activation: Activation = nn.Hardswish if hard_swish else nn.ReLU
            block = InvertedResidual(channels, expanded, outputs, kernel, stride, activation, excite, 1e-3)
            layers.append(block)
            channels = outputs
        layers.append(conv_bn(channels, 960, 1, activation=nn.Hardswish, eps=1e-3))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(960, 1280), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1280, classes)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits [batch, classes] of images [batch, 3, height, width]."""
        x = nn.functional.adaptive_avg_pool2d(self.features(image), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class EfficientNet(nn.Module):
    """EfficientNet-B0 (Tan and Le, 2019): 5.29 million parameters."""

    # expansion, kernel, stride of the first, channels, repeats
    rows = (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    )

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        channels = 32
        layers: list[nn.Module] = [conv_bn(3, channels, 3, 2, activation=nn.SiLU)]
        for expansion, kernel, first, outputs, repeats in self.rows:
            for index in range(repeats):
                stride = first if index == 0 else 1
                expanded = channels * expansion
                excite = SqueezeExcite(expanded, max(1, channels // 4), nn.SiLU, nn.Sigmoid)
                layers.append(InvertedResidual(channels, expanded, outputs, kernel, stride, nn.SiLU, excite))
                channels = outputs
        layers.append(conv_bn(channels, 1280, 1, activation=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits [batch, classes] of images [batch, 3, height, width]."""
        x = nn.functional.adaptive_avg_pool2d(self.features(image), (1, 1))
        return self.classifier(torch.flatten(x, 1))
