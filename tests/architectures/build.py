"""Every architecture of transformers with a tiny configuration: built from its own defaults made small, and
the tensors that its forward wants.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

SIZES = {
    32: """
    hidden_size d_model n_embd dim embed_dim encoder_hidden_size embedding_size decoder_hidden_size
    projection_dim word_embed_proj_dim hidden_dim conv_dim_tdnn projection_size backbone_hidden_size
    rnn_hidden_size out_hidden_size encoder_dim text_embed_dim vision_embed_dim codevector_dim
    proj_codevector_dim classifier_proj_size fpn_hidden_size neck_hidden_size decoder_dim
    attention_hidden_size rank vision_hidden_size
    """,
    64: """
    intermediate_size ffn_dim d_ff d_inner n_inner encoder_ffn_dim decoder_ffn_dim mlp_dim
    dim_feedforward encoder_feedforward_dim moe_intermediate_size ffn_hidden_size
    shared_expert_intermediate_size decoder_intermediate_size feed_forward_size mlp_hidden_size
    dense_intermediate_size expert_intermediate_size
    """,
    4: """
    num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads
    decoder_num_attention_heads num_experts num_local_experts n_routed_experts
    encoder_num_attention_heads num_mamba_heads moe_num_experts
    """,
    2: """
    num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers
    num_decoder_layers num_key_value_heads num_experts_per_tok layers decoder_num_hidden_layers
    depth num_blocks top_k encoder_num_hidden_layers moe_top_k num_adapter_layers conv_layers
    num_codevector_groups n_group num_kv_heads
    """,
    8: """
    rotary_dim head_dim d_kv qk_nope_head_dim qk_rope_head_dim v_head_dim kv_channels attention_head_size
    attention_window
    """,
    16: """
    q_lora_rank kv_lora_rank num_queries dt_rank time_step_rank state_size num_mel_bins_
    """,
    120: """
    vocab_size num_embeddings codebook_size speech_vocab_size text_vocab_size
    """,
    128: """
    max_position_embeddings n_positions max_seq_len max_2d_position_embeddings
    """,
}
SMALL = {name: value for value, names in SIZES.items() for name in names.split()}
TOKENS = (
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "decoder_start_token_id",
    "sep_token_id",
    "mask_token_id",
)
IMAGE = 64
PER_LAYER = ("layer_types", "layers_block_type", "mlp_layer_types", "block_types", "hybrid_override_pattern")


def _resnet(timm: dict[str, Any]) -> dict[str, Any]:
    """transformers' own small ResNet in the place of a backbone of timm's."""
    stages = [min(i, 4) for i in timm.get("out_indices") or [4]]
    return {
        "model_type": "resnet",
        "embedding_size": 32,
        "hidden_sizes": [32, 64, 96, 128],
        "depths": [1, 1, 1, 1],
        "out_features": [f"stage{i}" for i in stages],
    }


def shrunk(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration's values made small; nested configurations too."""
    made: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value.get("model_type") == "timm_backbone":
            made[name] = _resnet(value)
        elif isinstance(value, dict):
            made[name] = shrunk(value) if name.endswith("config") or "hidden_size" in value else value
        elif name == "use_cache":
            made[name] = False
        elif isinstance(value, bool) or value is None:
            made[name] = value
        elif name in TOKENS and isinstance(value, int):
            made[name] = min(value, 2) if value >= 0 else value
        elif name in SMALL and isinstance(value, int):
            made[name] = min(value, SMALL[name]) if value > 0 else value
        elif name in SMALL and isinstance(value, (list, tuple)) and all(isinstance(v, int) for v in value):
            made[name] = [2 if v == 3 else min(v, SMALL[name]) for v in value]  # heads divide widths
        elif name in ("depths", "layer_depths", "num_blocks_per_stage") and isinstance(value, (list, tuple)):
            made[name] = [1 for _ in value]
        elif name in PER_LAYER:
            made[name] = value[:2]
        elif name == "image_size" and isinstance(value, int):
            made[name] = IMAGE
        elif name == "image_size" and isinstance(value, (list, tuple)):
            made[name] = [IMAGE for _ in value]
        else:
            made[name] = value
    if "stage_names" in made and "num_hidden_layers" in made:  # the last layer's, of those that are left
        for name in ("stage_names", "out_features", "out_indices"):
            made.pop(name, None)
    return made


def tiny(config_class: Any) -> Any:
    """A small configuration of this class."""
    values = shrunk(config_class().to_dict())
    for name in ("transformers_version", "model_type", "architectures", "dtype", "torch_dtype"):
        values.pop(name, None)
    return config_class(**values)


def awaken(model: torch.nn.Module) -> None:
    """Draw weights with which every part of the network shows in its outputs.

    Initial weights are made for training: layers whose outputs are a hundredth of their inputs, down to
    denormal numbers after twenty, and projections of zeros, behind which all experts and all queries have the
    same score. Which of them a TopK picks is then for rounding and the order of a sort to decide.
    """
    drawn = torch.Generator().manual_seed(0)

    def draw(weight: torch.Tensor, fan_in: int) -> None:
        weight.copy_(torch.randn(weight.shape, generator=drawn) / max(fan_in, 1) ** 0.5)

    with torch.no_grad():
        done: set[int] = set()
        for module in model.modules():
            for name, p in module.named_parameters(recurse=False):
                if id(p) in done or p.dim() < 2 or p.numel() == 0:
                    continue
                done.add(id(p))
                if name == "weight" and isinstance(module, (torch.nn.Linear, _ConvNd)):
                    draw(p, p.numel() // p.shape[0])
                elif bool((p == p.flatten()[0]).all()):
                    draw(p, p.shape[-1])


def ids(batch: int, length: int) -> torch.Tensor:
    """Token ids that are no special ones."""
    return torch.randint(5, 100, (batch, length))


def _config(config: Any, *names: str, default: Any = None) -> Any:
    """The first of these that the configuration or one inside it has."""
    inner = ("vision_config", "audio_config", "encoder", "text_config", "backbone_config")
    for at in (config, *(getattr(config, n, None) for n in inner)):
        for name in names:
            value = getattr(at, name, None)
            if value is not None:
                return value
    return default


def arguments(model: Any, config: Any, batch: int = 2, length: int = 12) -> dict[str, torch.Tensor]:
    """The keyword arguments of one call."""
    wanted = inspect.signature(model.forward).parameters
    main = getattr(model, "main_input_name", "input_ids")
    given: dict[str, torch.Tensor] = {}
    if ("input_ids" in wanted and main in ("input_ids", "pixel_values")) or main == "input_ids":
        given["input_ids"] = ids(batch, length)
        if "attention_mask" in wanted:
            given["attention_mask"] = torch.ones(batch, length, dtype=torch.int64)
    asked = "pixel_values" in wanted and wanted["pixel_values"].default is inspect.Parameter.empty
    if "pixel_values" in wanted and (main == "pixel_values" or asked or hasattr(config, "vision_config")):
        side = _config(config, "image_size", default=IMAGE)
        height, width = (side, side) if isinstance(side, int) else side[:2]
        channels = _config(config, "num_channels", default=3)
        frames = _config(config, "num_frames")
        still = not frames or "pixel_values_videos" in wanted
        given["pixel_values"] = torch.randn([batch, *([] if still else [frames]), channels, height, width])
    if main == "input_features" or "input_features" in wanted:
        bins = _config(
            config, "num_mel_bins", "feature_size", "input_dim", "input_feat_per_channel", default=80
        )
        long = 2 * _config(config, "max_source_positions", default=32) if main == "input_features" else 64
        features = (
            torch.randn(batch, bins, long) if "whisper" in config.model_type else torch.randn(batch, 64, bins)
        )
        given["input_features"] = features
    if main == "input_values" or (main not in given and "input_values" in wanted):
        channels = [1] if "audio_channels" in config.to_dict() else []
        given["input_values"] = torch.randn(batch, *channels, 4000)
    if "decoder_input_ids" in wanted and (getattr(config, "is_encoder_decoder", False)):
        given["decoder_input_ids"] = ids(batch, 7)
    if "bbox" in wanted:
        given["bbox"] = torch.randint(0, 50, (batch, length, 4)).sort(-1).values
    noise = [n for n in wanted if n.startswith("noise")]
    if noise:  # drawn by the model where it is not given, and another one in each call
        with torch.no_grad(), _Draws() as draws:
            model(**given)
        given |= dict(zip(noise, draws.found, strict=False))
    return given


class _Draws(TorchFunctionMode):
    """Notes the random numbers that a model draws."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in (torch.rand, torch.randn):
            self.found.append(made)
        return made
