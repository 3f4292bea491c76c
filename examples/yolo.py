"""YOLOv8 in plain PyTorch, and its open-vocabulary form: the detectors of the examples and the benchmarks.

Blocks, widths and decoding follow Ultralytics' YOLOv8 (CSP blocks with two convolutions, SPPF, PAN neck,
decoupled head, distribution focal loss decoding); the open-vocabulary detector follows YOLO-World (Cheng et
al., 2024): class names arrive as text embeddings, which guide the neck and are compared with every anchor's.
Images are float32 [batch, 3, height, width] in 0..1, height and width multiples of 32. Weights are random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

STRIDES = (8, 16, 32)
BINS = 16  # bins of the distribution over each side of a box
WIDTHS = {"n": (16, 32, 64, 128, 256), "s": (32, 64, 128, 256, 512)}


class Conv(nn.Module):
    """Convolution without bias, batch normalisation and, unless told otherwise, SiLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, activate: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU() if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, inputs, h, w] to [batch, outputs, h / stride, w / stride]."""
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with the input added when `shortcut`."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 3)
        self.cv2 = Conv(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape [batch, channels, h, w]."""
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C2f(nn.Module):
    """CSP block: half of the channels pass through a chain of bottlenecks, and every link of it is kept."""

    def __init__(
        self, inputs: int, outputs: int, repeats: int, shortcut: bool = False, extra: int = 0
    ) -> None:
        super().__init__()
        half = outputs // 2
        self.cv1 = Conv(inputs, 2 * half)
        self.cv2 = Conv((2 + repeats + extra) * half, outputs)
        self.m = nn.ModuleList(Bottleneck(half, shortcut) for _ in range(repeats))

    def parts(self, x: Tensor) -> list[Tensor]:
        """Return every link of the chain, each [batch, outputs / 2, h, w]."""
        parts = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            parts.append(block(parts[-1]))
        return parts

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, inputs, h, w] to [batch, outputs, h, w]."""
        return self.cv2(torch.cat(self.parts(x), 1))


class MaxSigmoidAttention(nn.Module):
    """Scale x by how well each pixel agrees with its best matching class name (YOLO-World, section 3.3)."""

    def __init__(self, channels: int, heads: int, text: int) -> None:
        super().__init__()
        self.heads = heads
        self.width = channels // heads
        self.guide = nn.Linear(text, channels)
        self.bias = nn.Parameter(torch.zeros(heads))
        self.proj = Conv(channels, channels, 3, activate=False)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Weight x [batch, channels, h, w] by text [batch, classes, text]; same shape as x."""
        batch, _, height, width = x.shape
        guide = self.guide(text).view(batch, -1, self.heads, self.width)
        pixels = x.view(batch, self.heads, self.width, height, width)
        match = torch.einsum("bmchw,bnmc->bmhwn", pixels, guide).amax(-1) / math.sqrt(self.width)
        weight = (match + self.bias[None, :, None, None]).sigmoid()
        value = self.proj(x).view(batch, self.heads, -1, height, width)
        return (value * weight.unsqueeze(2)).view(batch, -1, height, width)


class GuidedC2f(C2f):
    """A CSP block whose last link is guided by the class names."""

    def __init__(self, inputs: int, outputs: int, repeats: int, heads: int, text: int) -> None:
        super().__init__(inputs, outputs, repeats, extra=1)
        self.attention = MaxSigmoidAttention(outputs // 2, heads, text)

    def guided(self, x: Tensor, text: Tensor) -> Tensor:
        """Map x [batch, inputs, h, w] to [batch, outputs, h, w] under text [batch, classes, text]."""
        parts = self.parts(x)
        return self.cv2(torch.cat([*parts, self.attention(parts[-1], text)], 1))


class SPPF(nn.Module):
    """Three 5x5 max pools in a row, all kept: receptive fields of 5, 9 and 13 at the price of one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels // 2)
        self.cv2 = Conv(2 * channels, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape [batch, channels, h, w]."""
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class Backbone(nn.Module):
    """YOLOv8's CSP backbone: feature maps at strides 8, 16 and 32."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        stem, first, *rest = widths
        self.stem = nn.Sequential(
            Conv(3, stem, 3, 2), Conv(stem, first, 3, 2), C2f(first, first, depths[0], True)
        )
        stages: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(zip(widths[1:], rest, strict=False)):
            stage = [Conv(inputs, outputs, 3, 2), C2f(outputs, outputs, depths[index + 1], True)]
            stages.append(nn.Sequential(*stage, *([SPPF(outputs)] if index == 2 else [])))
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return [batch, width, height / stride, width / stride] for each stride."""
        x = self.stem(image)
        levels: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


def branch(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """One branch of the decoupled head: two 3x3 convolutions and a 1x1."""
    return nn.Sequential(Conv(inputs, width, 3), Conv(width, width, 3), nn.Conv2d(width, outputs, 1))


def anchor_points(levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the centres [2, anchors] in cells, and the stride [1, anchors] of every cell of every level."""
    points: list[Tensor] = []
    strides: list[Tensor] = []
    for level, stride in zip(levels, STRIDES, strict=True):
        height, width = level.shape[-2:]
        x = torch.arange(width, dtype=level.dtype, device=level.device) + 0.5
        y = torch.arange(height, dtype=level.dtype, device=level.device) + 0.5
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack((columns, rows)).view(2, -1))
        strides.append(torch.full((1, height * width), stride, dtype=level.dtype, device=level.device))
    return torch.cat(points, 1), torch.cat(strides, 1)


def decode_boxes(distribution: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Expectation of each side's distribution, then boxes (centre x, centre y, width, height) in pixels.

    distribution [batch, 4 * BINS, anchors] → [batch, 4, anchors].
    """
    batch, _, anchors = distribution.shape
    bins = torch.arange(BINS, dtype=distribution.dtype, device=distribution.device)
    weights = distribution.view(batch, 4, BINS, anchors).transpose(2, 1).softmax(1)
    sides = (weights * bins.view(1, BINS, 1, 1)).sum(1)
    near, far = sides.chunk(2, 1)
    low, high = points - near, points + far
    return torch.cat(((low + high) / 2, high - low), 1) * strides


class YOLOv8(nn.Module):
    """YOLOv8 with 80 classes; size 'n' has 3.16 million parameters, 's' 11.17 million."""

    def __init__(self, size: str = "n", classes: int = 80) -> None:
        super().__init__()
        widths = WIDTHS[size]
        a, b, c = widths[2:]
        self.backbone = Backbone(widths, (1, 2, 2, 1))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.top_down = nn.ModuleList([C2f(b + c, b, 1), C2f(a + b, a, 1)])
        self.down = nn.ModuleList([Conv(a, a, 3, 2), Conv(b, b, 3, 2)])
        self.bottom_up = nn.ModuleList([C2f(a + b, b, 1), C2f(b + c, c, 1)])
        sides, scores = max(16, a // 4, 4 * BINS), max(a, min(classes, 100))
        self.boxes = nn.ModuleList(branch(width, sides, 4 * BINS) for width in (a, b, c))
        self.scores = nn.ModuleList(branch(width, scores, classes) for width in (a, b, c))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (cx, cy, w, h) [batch, 4, anchors] in pixels and scores [batch, classes, anchors]."""
        p3, p4, p5 = self.backbone(image)
        n4 = self.top_down[0](torch.cat([self.up(p5), p4], 1))
        n3 = self.top_down[1](torch.cat([self.up(n4), p3], 1))
        n4 = self.bottom_up[0](torch.cat([self.down[0](n3), n4], 1))
        n5 = self.bottom_up[1](torch.cat([self.down[1](n4), p5], 1))
        levels = [n3, n4, n5]
        sides = torch.cat([head(x).flatten(2) for head, x in zip(self.boxes, levels, strict=True)], 2)
        scores = torch.cat([head(x).flatten(2) for head, x in zip(self.scores, levels, strict=True)], 2)
        boxes = decode_boxes(sides, *anchor_points(levels))
        return boxes, scores.sigmoid()


class ContrastiveHead(nn.Module):
    """Cosine-like score of every pixel's embedding against every class name's, scaled and shifted."""

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(embedding, eps=1e-3)
        self.bias = nn.Parameter(torch.tensor([-10.0]))
        self.scale = nn.Parameter(torch.tensor([-1.0]))

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Return logits [batch, classes, h, w] of x [batch, embedding, h, w].

        text is [batch, classes, embedding], each embedding of length one.
        """
        scores = torch.einsum("bchw,bkc->bkhw", self.norm(x), text)
        return scores * self.scale.exp() + self.bias


class OpenVocabularyDetector(nn.Module):
    """YOLO-World on the YOLOv8 backbone: the classes are whatever text embeddings the caller brings."""

    def __init__(self, size: str = "s", text: int = 512) -> None:
        super().__init__()
        widths = WIDTHS[size]
        a, b, c = widths[2:]
        heads = {width: max(1, width // 64) for width in (a, b, c)}
        self.backbone = Backbone(widths, (1, 2, 2, 1))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.top_down = nn.ModuleList(
            [GuidedC2f(b + c, b, 1, heads[b], text), GuidedC2f(a + b, a, 1, heads[a], text)]
        )
        self.down = nn.ModuleList([Conv(a, a, 3, 2), Conv(b, b, 3, 2)])
        self.bottom_up = nn.ModuleList(
            [GuidedC2f(a + b, b, 1, heads[b], text), GuidedC2f(b + c, c, 1, heads[c], text)]
        )
        sides = max(16, a // 4, 4 * BINS)
        self.boxes = nn.ModuleList(branch(width, sides, 4 * BINS) for width in (a, b, c))
        self.embed = nn.ModuleList(branch(width, max(a, 100), text) for width in (a, b, c))
        self.contrast = nn.ModuleList(ContrastiveHead(text) for _ in (a, b, c))

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Detect `text` [classes, embedding] in images [batch, 3, height, width].

        Returns boxes in pixels (cx, cy, w, h), [batch, anchors, 4], and scores, [batch, anchors, classes].
        """
        names = nn.functional.normalize(text, dim=-1).expand(image.shape[0], -1, -1)
        p3, p4, p5 = self.backbone(image)
        n4 = self.top_down[0].guided(torch.cat([self.up(p5), p4], 1), names)
        n3 = self.top_down[1].guided(torch.cat([self.up(n4), p3], 1), names)
        n4 = self.bottom_up[0].guided(torch.cat([self.down[0](n3), n4], 1), names)
        n5 = self.bottom_up[1].guided(torch.cat([self.down[1](n4), p5], 1), names)
        levels = [n3, n4, n5]
        sides: list[Tensor] = []
        scores: list[Tensor] = []
        for index, x in enumerate(levels):
            sides.append(self.boxes[index](x).flatten(2))
            scores.append(self.contrast[index](self.embed[index](x), names).flatten(2))
        boxes = decode_boxes(torch.cat(sides, 2), *anchor_points(levels))
        return boxes.transpose(1, 2), torch.cat(scores, 2).sigmoid().transpose(1, 2)
