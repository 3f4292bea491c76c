"""The models that Ingot is measured on: architectures at their true sizes, random weights with realistic statistics.

`build("resnet50")` returns the module in eval mode and its inputs by name; the same name gives the same numbers in
every process. CORE holds the names of the table in docs/benchmarks.md, ZOO all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor, nn

from examples.yolo import YOLOv8
from tests.models.classic import MLP, DenseNet, SequenceTagger, SSDLite, UNet, VGG
from tests.models.mobile import EfficientNet, MobileNetV2, MobileNetV3
from tests.models.weights import photographs, settle

Inputs = Callable[[int, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Model:
    """One model of the zoo: how to build it, what to feed it, and what its paper or code calls it."""

    title: str
    module: Callable[[], nn.Module]
    inputs: Inputs


class Tensors(nn.Module):
    """A transformers model that takes its tensors by name and returns plain tensors instead of a ModelOutput.

    All peers then see the same function with the same outputs, none of them optional.
    """

    def __init__(self, model: nn.Module, input_name: str, outputs: tuple[str, ...], **fixed: object) -> None:
        super().__init__()
        self.model = model
        self.input_name = input_name
        self.outputs = outputs
        self.fixed = fixed

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the chosen fields of the model's output."""
        result = self.model(**{self.input_name: x}, **self.fixed)
        values = tuple(getattr(result, name) for name in self.outputs)
        return values[0] if len(values) == 1 else values
