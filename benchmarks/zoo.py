"""The models that Ingot is measured on: real architectures at their true sizes, with random weights.

`build("resnet50")` returns the module in eval mode and its inputs by name; the same name gives the same
numbers in every process. CORE are the models measured by default, ZOO is all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor, nn

from examples.yolo import YOLOv8
from tests.models.classic import MLP, VGG, DenseNet, SequenceTagger, SSDLite, UNet
from tests.models.mobile import EfficientNet, MobileNetV2, MobileNetV3
from tests.models.weights import photographs, settle

Inputs = Callable[[int, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Model:
    """One model of the zoo: how to build it, what to feed it, and what its paper or code calls it."""

    title: str
    module: Callable[[], nn.Module]
    inputs: Inputs


class Vision(nn.Module):
    """A transformers vision model that returns one plain tensor instead of a ModelOutput."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model = model
        self.output = output

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the named field of the model's output for images [batch, 3, height, width]."""
        return getattr(self.model(pixel_values=pixel_values), self.output)


class Text(nn.Module):
    """A transformers text model that returns one plain tensor instead of a ModelOutput."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model = model
        self.output = output

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the named field of the model's output for token ids and mask, both int64 [batch, length]."""
        return getattr(self.model(input_ids=input_ids, attention_mask=attention_mask), self.output)


class Audio(nn.Module):
    """Whisper's encoder, returning the plain hidden states."""

    def __init__(self, model: transformers.WhisperModel) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, input_features: Tensor) -> Tensor:
        """Return hidden states [batch, 1500, width] of log-mel features [batch, 80, 3000]."""
        return self.encoder(input_features).last_hidden_state


def images(size: int, name: str = "image") -> Inputs:
    """Square photographs, float32 [batch, 3, size, size]."""
    return lambda batch, generator: {name: photographs(batch, size, size, generator)}


def tokens(length: int, vocabulary: int) -> Inputs:
    """Token ids and a mask of ones, int64 [batch, length]."""

    def make(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        ids = torch.randint(1, vocabulary, (batch, length), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    return make


def noise(*shape: int, name: str) -> Inputs:
    """Normal noise, float32 [batch, *shape]."""
    return lambda batch, generator: {name: torch.randn(batch, *shape, generator=generator)}


def _resnet(block: str, depths: list[int], widths: list[int]) -> nn.Module:
    config = transformers.ResNetConfig(
        layer_type=block, depths=depths, hidden_sizes=widths, embedding_size=64, num_labels=1000
    )
    return Vision(transformers.ResNetForImageClassification(config), "logits")


def _regnet() -> nn.Module:
    config = transformers.RegNetConfig(  # RegNetY-400MF
        embedding_size=32, hidden_sizes=[48, 104, 208, 440], depths=[1, 3, 6, 6], groups_width=8,
        layer_type="y", num_labels=1000,
    )  # fmt: skip
    return Vision(transformers.RegNetForImageClassification(config), "logits")


def _convnext() -> nn.Module:
    return Vision(
        transformers.ConvNextForImageClassification(transformers.ConvNextConfig(num_labels=1000)), "logits"
    )


def _vit(width: int, heads: int) -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width, num_labels=1000
    )
    return Vision(transformers.ViTForImageClassification(config), "logits")


def _swin() -> nn.Module:
    return Vision(transformers.SwinForImageClassification(transformers.SwinConfig(num_labels=1000)), "logits")


def _dinov2() -> nn.Module:
    config = transformers.Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14)
    return Vision(transformers.Dinov2Model(config), "last_hidden_state")


def _depth_anything() -> nn.Module:
    backbone = transformers.Dinov2Config(
        hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14, reshape_hidden_states=False,
        out_features=["stage3", "stage6", "stage9", "stage12"],
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=384, neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64, head_hidden_size=32,
    )  # fmt: skip
    return Vision(transformers.DepthAnythingForDepthEstimation(config), "predicted_depth")


def _segformer() -> nn.Module:
    config = transformers.SegformerConfig(num_labels=150)  # the defaults are MiT-B0
    return Vision(transformers.SegformerForSemanticSegmentation(config), "logits")


def _bert() -> nn.Module:
    return Text(transformers.BertModel(transformers.BertConfig()), "last_hidden_state")


def _minilm() -> nn.Module:
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    return Text(transformers.BertModel(config), "last_hidden_state")


def _t5() -> nn.Module:
    config = transformers.T5Config()  # T5-small
    return Text(transformers.T5EncoderModel(config), "last_hidden_state")


def _gpt2() -> nn.Module:
    config = transformers.GPT2Config(use_cache=False)
    return Text(transformers.GPT2LMHeadModel(config), "logits")


def _whisper() -> nn.Module:
    config = transformers.WhisperConfig(  # Whisper-tiny
        d_model=384, encoder_layers=4, decoder_layers=1, encoder_attention_heads=6, decoder_attention_heads=6,
        encoder_ffn_dim=1536, decoder_ffn_dim=1536,
    )  # fmt: skip
    return Audio(transformers.WhisperModel(config))


BERT_WORDS = 30522
PIXELS = "pixel_values"

CORE: dict[str, Model] = {
    "resnet50": Model(
        "ResNet-50 224²",
        lambda: _resnet("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
        images(224, PIXELS),
    ),
    "mobilenet_v2": Model("MobileNetV2 224²", MobileNetV2, images(224)),
    "efficientnet_b0": Model("EfficientNet-B0 224²", EfficientNet, images(224)),
    "convnext_tiny": Model("ConvNeXt-T 224²", _convnext, images(224, PIXELS)),
    "vit_s16": Model("ViT-S/16 224²", lambda: _vit(384, 6), images(224, PIXELS)),
    "yolov8n": Model("YOLOv8n 640²", YOLOv8, images(640)),
    "bert_base_128": Model("BERT-base, 128 tokens", _bert, tokens(128, BERT_WORDS)),
    "depth_anything_s": Model("Depth-Anything-S 252²", _depth_anything, images(252, PIXELS)),
}

ZOO: dict[str, Model] = CORE | {
    "resnet18": Model(
        "ResNet-18 224²", lambda: _resnet("basic", [2, 2, 2, 2], [64, 128, 256, 512]), images(224, PIXELS)
    ),
    "vgg16": Model("VGG-16 224²", VGG, images(224)),
    "mobilenet_v3": Model("MobileNetV3-L 224²", MobileNetV3, images(224)),
    "regnet_y400": Model("RegNetY-400MF 224²", _regnet, images(224, PIXELS)),
    "densenet121": Model("DenseNet-121 224²", DenseNet, images(224)),
    "unet": Model("U-Net 256²", UNet, images(256)),
    "yolov8s": Model("YOLOv8s 640²", lambda: YOLOv8("s"), images(640)),
    "ssd": Model("SSD head 320²", SSDLite, images(320)),
    "vit_b16": Model("ViT-B/16 224²", lambda: _vit(768, 12), images(224, PIXELS)),
    "swin_t": Model("Swin-T 224²", _swin, images(224, PIXELS)),
    "dinov2_s": Model("DINOv2-S 224²", _dinov2, images(224, PIXELS)),
    "segformer_b0": Model("SegFormer-B0 512²", _segformer, images(512, PIXELS)),
    "bert_base_32": Model("BERT-base, 32 tokens", _bert, tokens(32, BERT_WORDS)),
    "bert_base_512": Model("BERT-base, 512 tokens", _bert, tokens(512, BERT_WORDS)),
    "minilm": Model("MiniLM-L6, 128 tokens", _minilm, tokens(128, BERT_WORDS)),
    "t5_encoder": Model("T5-small encoder, 128 tokens", _t5, tokens(128, 32128)),
    "gpt2_128": Model("GPT-2 prefill, 128 tokens", _gpt2, tokens(128, 50257)),
    "whisper_tiny": Model("Whisper-tiny encoder, 30 s", _whisper, noise(80, 3000, name="input_features")),
    "lstm": Model("LSTM, 2 layers, 100 steps", SequenceTagger, noise(100, 128, name="steps")),
    "mlp": Model("MLP, 3 layers", MLP, noise(64, name="x")),
}


def build(name: str, batch: int = 1) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the model `name` of ZOO in eval mode, and its inputs by name for `batch` samples.

    Raises KeyError, listing the names there are, for one that is not in the zoo.
    """
    if name not in ZOO:
        raise KeyError(f"no model {name!r} in the zoo; there are {', '.join(ZOO)}")
    model = ZOO[name]
    seed = zlib.crc32(name.encode())
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # what constructors draw, and paths that training drops at random
        module = model.module()
        settle(module, model.inputs(4, generator), generator)
    return module, model.inputs(batch, generator)
