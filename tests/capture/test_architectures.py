"""Whole architectures with small random weights: one dynamic export each, equal to torch on several sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as tf
from torch import nn

from ingot.verify import verify_capture
from tests.capture.support import op_types, parity

tf.logging.set_verbosity_error()
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def image(batch: int, height: int, width: int | None = None) -> torch.Tensor:
    """Random pixels."""
    return torch.randn(batch, 3, height, width or height)


def ids(batch: int, length: int) -> torch.Tensor:
    """Random token ids, none of them special."""
    return torch.randint(3, 99, (batch, length))


def text(batch: int, length: int) -> dict[str, torch.Tensor]:
    """Token ids with a mask whose last tokens of the first row are padding."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, max(length - 2, 1) :] = 0
    return {"input_ids": ids(batch, length), "attention_mask": mask}


def distilbert() -> Any:
    """DistilBERT."""
    return tf.DistilBertModel(
        tf.DistilBertConfig(dim=32, hidden_dim=64, n_layers=2, n_heads=4, vocab_size=100)
    )


def t5() -> Any:
    """The encoder of T5."""
    config = tf.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=100)
    return tf.T5EncoderModel(config)


def gpt2() -> Any:
    """GPT-2 without a cache."""
    tokens = {"bos_token_id": 1, "eos_token_id": 2}
    config = tf.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=100, use_cache=False, **tokens)
    return tf.GPT2LMHeadModel(config)


def llama() -> Any:
    """Llama without a cache, with shared key heads."""
    return tf.LlamaModel(tf.LlamaConfig(**SMALL, num_key_value_heads=2, vocab_size=100, use_cache=False))


def bert(attention: str = "sdpa") -> Any:
    """BERT."""
    return tf.BertModel(tf.BertConfig(**SMALL, vocab_size=100, attn_implementation=attention))


TEXT: dict[str, Callable[[], Any]] = {
    "bert": bert,
    "bert-eager": lambda: bert("eager"),
    "distilbert": distilbert,
    "roberta": lambda: tf.RobertaModel(tf.RobertaConfig(**SMALL, vocab_size=100)),
    "t5": t5,
    "gpt2": gpt2,
    "llama": llama,
}


@pytest.mark.parametrize("name", TEXT)
def test_text(name: str) -> None:
    """Batch and length are dynamic, with and without padding."""
    torch.manual_seed(0)
    captured = parity(TEXT[name](), (), kwargs=text(2, 7), other_kwargs=[text(3, 5), text(1, 9)])
    assert not captured.recording.env.fixed


def resnet() -> Any:
    """ResNet with two stages."""
    return tf.ResNetModel(tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]))


def segformer() -> Any:
    """SegFormer with its decoder."""
    sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]}
    return tf.SegformerForSemanticSegmentation(tf.SegformerConfig(**sizes, decoder_hidden_size=16))


def convnext() -> Any:
    """ConvNeXt."""
    return tf.ConvNextModel(tf.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]))


def dinov2_config(**options: Any) -> Any:
    """A DINOv2 whose position embeddings are of 5 by 5 patches."""
    small = {"hidden_size": 32, "num_attention_heads": 4, "image_size": 70, "patch_size": 14}
    return tf.Dinov2Config(**small, **options)


def depth_anything() -> Any:
    """Depth Anything: DINOv2, a neck that resizes and fuses, a head."""
    options = {"out_indices": [1, 2, 3, 4], "reshape_hidden_states": False, "apply_layernorm": True}
    config = tf.DepthAnythingConfig(
        backbone_config=dinov2_config(num_hidden_layers=4, **options),
        reassemble_hidden_size=32,
        patch_size=14,
        neck_hidden_sizes=[8, 16, 32, 32],
        fusion_hidden_size=16,
        head_hidden_size=8,
    )
    return tf.DepthAnythingForDepthEstimation(config)


def efficientnet() -> Any:
    """EfficientNet-B0 with few channels."""
    return tf.EfficientNetModel(
        tf.EfficientNetConfig(width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320)
    )


class MobileNetV3Block(nn.Module):
    """An inverted residual with squeeze-excite and hard activations, as torchvision writes it."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish(inplace=True)
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 5, padding=2, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Sequential(
            nn.Conv2d(wide, 8, 1), nn.ReLU(), nn.Conv2d(8, wide, 1), nn.Hardsigmoid()
        )
        self.project = nn.Sequential(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape out."""
        y = self.depthwise(self.expand(x))
        return x + self.project(y * self.squeeze(self.pool(y)))


def mobilenetv3() -> Any:
    """Two MobileNetV3 blocks behind a stem."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        MobileNetV3Block(8, 24),
        MobileNetV3Block(8, 32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class ConvUnit(nn.Module):
    """Convolution, batch normalisation, SiLU."""

    def __init__(self, a: int, b: int, k: int = 1, s: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(a, b, k, s, k // 2, bias=False)
        self.norm = nn.BatchNorm2d(b)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, b, h / s, w / s]."""
        return self.act(self.norm(self.conv(x)))


class CrossStage(nn.Module):
    """YOLO's C2f: half of the channels go through bottlenecks, all stages are joined."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.first = ConvUnit(a, b)
        self.inner = nn.ModuleList(
            nn.Sequential(ConvUnit(b // 2, b // 2, 3), ConvUnit(b // 2, b // 2, 3)) for _ in range(2)
        )
        self.last = ConvUnit(b * 2, b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same size out."""
        y = list(self.first(x).chunk(2, 1))
        for block in self.inner:
            y.append(y[-1] + block(y[-1]))
        return self.last(torch.cat(y, 1))


class Detector(nn.Module):
    """A YOLO: CSP blocks, SPPF, upsampling, boxes decoded from distributions (DFL) on anchors made from the
    sizes.
    """

    def __init__(self, classes: int = 5, bins: int = 8) -> None:
        super().__init__()
        self.bins, self.classes = bins, classes
        self.stem = nn.Sequential(
            ConvUnit(3, 8, 3, 2), ConvUnit(8, 16, 3, 2), CrossStage(16, 16), ConvUnit(16, 16, 3, 2)
        )
        self.deep = nn.Sequential(CrossStage(16, 16), ConvUnit(16, 32, 3, 2))
        self.before, self.after = ConvUnit(32, 16), ConvUnit(64, 32)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.join = CrossStage(48, 16)
        self.heads = nn.ModuleList(nn.Conv2d(c, 4 * bins + classes, 1) for c in (16, 32))
        self.register_buffer("projection", torch.arange(bins, dtype=torch.float32), persistent=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes [n, 4, anchors] in pixels and scores [n, classes, anchors]."""
        fine = self.stem(x)
        coarse = self.deep(fine)
        y = [self.before(coarse)]
        y.extend(self.pool(y[-1]) for _ in range(3))
        coarse = self.after(torch.cat(y, 1))
        fine = self.join(torch.cat([self.up(coarse), fine], 1))
        maps = [head(f) for head, f in zip(self.heads, (fine, coarse), strict=True)]
        points, strides = [], []
        for f, stride in zip(maps, (8, 16), strict=True):
            h, w = f.shape[2:]
            sy, sx = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            points.append(torch.stack((sx, sy), -1).view(-1, 2))
            strides.append(torch.full((h * w, 1), float(stride)))
        anchors, steps = torch.cat(points).T, torch.cat(strides).T
        joined = torch.cat([f.view(f.shape[0], 4 * self.bins + self.classes, -1) for f in maps], 2)
        box, score = joined.split((4 * self.bins, self.classes), 1)
        b, _, a = box.shape
        distance = (box.view(b, 4, self.bins, a).softmax(2) * self.projection.view(1, 1, -1, 1)).sum(2)
        low, high = distance.chunk(2, 1)
        x1y1, x2y2 = anchors - low, anchors + high
        return torch.cat(((x1y1 + x2y2) / 2, x2y2 - x1y1), 1) * steps, score.sigmoid()


VISION: dict[str, tuple[Callable[[], Any], list[tuple[int, ...]]]] = {
    "resnet": (resnet, [(1, 32), (2, 45, 33)]),
    "mobilenetv2": (
        lambda: tf.MobileNetV2Model(tf.MobileNetV2Config(depth_multiplier=0.25)),
        [(1, 64), (2, 96, 64)],
    ),
    "mobilenetv3": (mobilenetv3, [(1, 32), (2, 45, 33)]),
    "efficientnet": (efficientnet, [(1, 64), (2, 96, 128)]),
    "convnext": (convnext, [(1, 64), (2, 96, 65)]),
    "dinov2": (lambda: tf.Dinov2Model(dinov2_config(num_hidden_layers=2)), [(1, 56), (2, 84, 98)]),
    "depth-anything": (depth_anything, [(1, 56), (2, 84, 98)]),
    "segformer": (segformer, [(1, 64), (2, 96, 128)]),
    "yolo": (Detector, [(1, 64), (2, 96, 128)]),
}


@pytest.mark.parametrize("name", VISION)
def test_vision(name: str) -> None:
    """Batch, height and width are dynamic from an example of batch 1; only the channels are fixed."""
    torch.manual_seed(0)
    make, sizes = VISION[name]
    captured = parity(make(), (image(*sizes[0]),), *[(image(*s),) for s in sizes[1:]], tolerance=5e-5)
    env = captured.recording.env
    assert [f.size for f in env.fixed.values()] == [3]


def test_vit_fixes_its_image_size() -> None:
    """Without interpolation ViT refuses other sizes, and the export says where."""
    captured = parity(
        tf.ViTModel(tf.ViTConfig(**SMALL, image_size=32, patch_size=8)), (image(1, 32),), (image(3, 32),)
    )
    narrowed = {a.what: a.where for a in captured.assumptions if a.kind == "narrowed"}
    assert set(narrowed) == {f"dimension 'pixel_values_dim{i}' is {n}" for i, n in ((1, 3), (2, 32), (3, 32))}
    assert all("transformers/models/vit/modeling_vit.py:" in where for where in narrowed.values())


def test_swin() -> None:
    """Shifted windows: sizes that need no padding, as in the example."""
    config = tf.SwinConfig(
        image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4
    )
    parity(tf.SwinModel(config), (image(1, 64),), (image(2, 96, 128),))


def test_swin_whose_last_stage_is_one_window() -> None:
    """As in Swin-T: forward sets the window to the image's size where that is no larger than the window."""
    config = tf.SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[1, 2], num_heads=[2, 2], window_size=8
    )
    captured = parity(tf.SwinModel(config), (image(1, 32),), (image(3, 32),))
    kept = [a for a in captured.assumptions if a.kind == "begins"]
    assert kept and all("begins every call with" in a.what and a.status == "fixed" for a in kept), kept


def test_clip() -> None:
    """Both towers, a batch of texts against a batch of images."""
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    words = {**SMALL, "vocab_size": 100, "max_position_embeddings": 20, "eos_token_id": 2, "bos_token_id": 1}
    model = tf.CLIPModel(tf.CLIPConfig(text_config=words, vision_config=vision, projection_dim=16))
    example = {**text(2, 7), "pixel_values": image(3, 32)}
    parity(model, (), kwargs=example, other_kwargs=[{**text(4, 5), "pixel_values": image(1, 32)}])


def test_whisper_encoder() -> None:
    """Mel frames to states; the positions fix the length."""
    layers = {
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
    }
    tokens = {
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
        "vocab_size": 100,
    }
    config = tf.WhisperConfig(
        d_model=32,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=20,
        num_mel_bins=8,
        **layers,
        **tokens,
    )
    parity(tf.WhisperModel(config).encoder, (torch.randn(1, 8, 40),), (torch.randn(3, 8, 40),))


def test_transformer_encoder_of_torch() -> None:
    """nn.TransformerEncoder: attention stays one recognisable pattern, not a hundred small nodes."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    captured = parity(nn.TransformerEncoder(layer, 2), (torch.randn(2, 7, 16),), (torch.randn(3, 4, 16),))
    assert op_types(captured).count("Softmax") == 2
    assert op_types(captured).count("LayerNormalization") == 4


def test_verification_draws_other_sizes() -> None:
    """The check that export runs: the example, three other sizes within what was assumed, 1s and 0s; the
    example's again with a mask of ones, which may be another way.
    """
    captured = parity(bert(), (), kwargs=text(2, 7))
    report = verify_capture(captured)
    sizes = {tuple(c.sizes.values()) for c in report.cases}
    assert len(sizes) == len(report.cases) - 1 >= 5
    assert any(1 in s for s in sizes)
    assert report.worst < 1e-5
