"""Networks that transformers does not have: VGG-16, DenseNet-121, U-Net, an SSD head, an LSTM and an MLP."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class VGG(nn.Module):
    """VGG-16 without batch normalisation (Simonyan and Zisserman, 2014): 138.4 million parameters."""

    widths = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0 is a max pool

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        channels = 3
        layers: list[nn.Module] = []
        for width in self.widths:
            if width == 0:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, classes),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits [batch, classes] of images [batch, 3, 224, 224]."""
        return self.classifier(torch.flatten(self.pool(self.features(image)), 1))


class DenseLayer(nn.Module):
    """BN, ReLU, 1x1, BN, ReLU, 3x3: adds `growth` channels to what it reads."""

    def __init__(self, inputs: int, growth: int, bottleneck: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, bottleneck * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bottleneck * growth)
        self.conv2 = nn.Conv2d(bottleneck * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, inputs, h, w] to [batch, inputs + growth, h, w]."""
        new = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(new)))], 1)


class DenseNet(nn.Module):
    """DenseNet-121 (Huang et al., 2017): 7.98 million parameters."""

    def __init__(
        self, classes: int = 1000, growth: int = 32, blocks: tuple[int, ...] = (6, 12, 24, 16)
    ) -> None:
        super().__init__()
        channels = 2 * growth
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 7, 2, 3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ]
        for index, count in enumerate(blocks):
            for _ in range(count):
                layers.append(DenseLayer(channels, growth))
                channels += growth
            layers.append(nn.BatchNorm2d(channels))
            if index < len(blocks) - 1:
                layers += [nn.ReLU(), nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2, 2)]
                channels //= 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits [batch, classes] of images [batch, 3, height, width]."""
        x = torch.relu(self.features(image))
        return self.classifier(torch.flatten(nn.functional.adaptive_avg_pool2d(x, (1, 1)), 1))


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with batch normalisation and ReLU: the U-Net's stage."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015) with transposed convolutions going up.

    Width 32 has 7.8 million parameters. Height and width of the images are multiples of 16.
    """

    def __init__(self, classes: int = 2, width: int = 32) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        self.stem = double_conv(3, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), double_conv(a, b)) for a, b in pairwise(widths)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairwise(widths))
        self.join = nn.ModuleList(double_conv(2 * a, a) for a in widths[:-1])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return per-pixel logits [batch, classes, height, width] of images [batch, 3, height, width]."""
        levels = [self.stem(image)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for index in reversed(range(len(self.up))):
            x = self.join[index](torch.cat([levels[index], self.up[index](x)], 1))
        return self.head(x)


class SSDLite(nn.Module):
    """An SSD head on four feature maps of a small strided backbone: boxes and scores of every anchor."""

    def __init__(
        self, classes: int = 21, anchors: int = 6, widths: tuple[int, ...] = (64, 128, 256, 256)
    ) -> None:
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        channels = 32
        self.stages = nn.ModuleList()
        self.boxes = nn.ModuleList()
        self.scores = nn.ModuleList()
        for width in widths:
            self.stages.append(
                nn.Sequential(
                    nn.Conv2d(channels, width, 3, 2, 1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.Conv2d(width, width, 3, 1, 1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                )
            )
            self.boxes.append(nn.Conv2d(width, anchors * 4, 3, padding=1))
            self.scores.append(nn.Conv2d(width, anchors * classes, 3, padding=1))
            channels = width

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes [batch, anchors, 4] and class probabilities [batch, anchors, classes]."""
        x = self.stem(image)
        batch = x.shape[0]
        boxes: list[Tensor] = []
        scores: list[Tensor] = []
        for stage, box, score in zip(self.stages, self.boxes, self.scores, strict=True):
            x = stage(x)
            boxes.append(box(x).permute(0, 2, 3, 1).reshape(batch, -1, 4))
            scores.append(score(x).permute(0, 2, 3, 1).reshape(batch, -1, self.classes))
        return torch.cat(boxes, 1), torch.softmax(torch.cat(scores, 1), -1)


class SequenceTagger(nn.Module):
    """A two-layer LSTM over feature vectors, and a linear layer on every step."""

    def __init__(self, features: int = 128, hidden: int = 256, classes: int = 32) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, steps: Tensor) -> Tensor:
        """Return logits [batch, length, classes] of steps [batch, length, features]."""
        return self.head(self.lstm(steps)[0])


class MLP(nn.Module):
    """Three linear layers with ReLU between them: small enough that the cost of a call shows."""

    def __init__(self, features: int = 64, hidden: int = 256, classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [batch, classes] of x [batch, features]."""
        return self.layers(x)
