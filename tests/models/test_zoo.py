"""The zoo is what it says: published parameter counts, and statistics that hide nothing."""

from __future__ import annotations

import pytest
import torch

from benchmarks.zoo import CORE, ZOO, build

# Millions of parameters as published (torchvision, Ultralytics before fusion, timm, the transformers hub).
PUBLISHED = {
    "resnet50": 25.557,
    "mobilenet_v2": 3.505,
    "efficientnet_b0": 5.289,
    "convnext_tiny": 28.589,
    "vit_s16": 22.051,
    "yolov8n": 3.157,
    "bert_base_128": 109.482,
    "depth_anything_s": 24.785,
    "resnet18": 11.690,
    "vgg16": 138.358,
    "mobilenet_v3": 5.483,
    "densenet121": 7.979,
    "yolov8s": 11.167,
    "vit_b16": 86.568,
    "swin_t": 28.288,
    "segformer_b0": 3.752,
    "gpt2_128": 124.440,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        module = ZOO[name].module()
    assert sum(p.numel() for p in module.parameters()) / 1e6 == pytest.approx(PUBLISHED[name], rel=1e-3)


def test_core_has_a_published_count_for_every_model() -> None:
    assert set(CORE) <= set(PUBLISHED)


@pytest.mark.parametrize("name", ["mobilenet_v2", "ssd", "lstm", "mlp"])
def test_built_models_repeat_and_their_outputs_vary(name: str) -> None:
    module, inputs = build(name, batch=2)
    again, same_inputs = build(name, batch=2)
    with torch.no_grad():
        first, second = module(**inputs), again(**same_inputs)
    values = first if isinstance(first, tuple) else (first,)
    repeated = second if isinstance(second, tuple) else (second,)
    for value, twin in zip(values, repeated, strict=True):
        assert torch.equal(value, twin)
        assert value.isfinite().all()
        assert value.std() > 1e-2  # dead activations would leave the bias alone
        assert not torch.equal(value[0], value[1])  # the input reaches the output


def test_no_denormal_weights() -> None:
    module, _ = build("mobilenet_v2")
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            tiny = (value != 0) & (value.abs() < torch.finfo(value.dtype).tiny)
            assert not tiny.any(), name


def test_unknown_name_lists_the_zoo() -> None:
    with pytest.raises(KeyError, match="resnet50"):
        build("resnet51")
