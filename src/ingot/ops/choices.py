"""Attributes that are words: which ones an operator of the main domain knows, at the newest opset. Another
word is refused when the session is made, instead of being taken for one of them.
"""

from __future__ import annotations

import onnx_ir as ir

from ingot.errors import ModelError
from ingot.ops.registry import attr_str, label

_PADS = {"auto_pad": ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "")}
_DIRECTION = {"direction": ("forward", "reverse", "bidirectional")}
_REDUCTION = {"reduction": ("mean", "sum", "none", "")}
_SCATTER = {"reduction": ("none", "add", "mul", "max", "min")}

CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "ConvTranspose", "QLinearConv"), _PADS),
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _PADS),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _DIRECTION),
    **dict.fromkeys(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), _REDUCTION),
    **dict.fromkeys(("ScatterElements", "ScatterND"), _SCATTER),
    "BitShift": {"direction": ("LEFT", "RIGHT")},
    "CausalConvWithState": {"activation": ("none", "silu", "swish")},
    "DepthToSpace": {"mode": ("DCR", "CRD")},
    "Gelu": {"approximate": ("none", "tanh")},
    "GridSample": {
        "mode": ("linear", "nearest", "cubic"),
        "padding_mode": ("zeros", "border", "reflection"),
    },
    "LinearAttention": {"update_rule": ("linear", "gated", "delta", "gated_delta")},
    "Pad": {"mode": ("constant", "reflect", "edge", "wrap")},
    "Resize": {
        "mode": ("nearest", "linear", "cubic"),
        "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
        "coordinate_transformation_mode": (
            *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"),
            "tf_crop_and_resize",
        ),
        "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
    },
    "RoiAlign": {
        "mode": ("avg", "max"),
        "coordinate_transformation_mode": ("half_pixel", "output_half_pixel"),
    },
    "SpaceToDepth": {"mode": ("DCR", "CRD")},
    "TensorScatter": {"mode": ("linear", "circular")},
}


def check_choices(node: ir.Node) -> None:
    """Raises `ModelError` for a word that the node's operator does not know."""
    for name, known in CHOICES.get(node.op_type, {}).items():
        if name in node.attributes.data and (found := attr_str(node, name, "")) not in known:
            words = ", ".join(word for word in known if word)
            raise ModelError(
                f"{label(node)}: attribute {name!r} is {found!r}, and must be one of {words}. Correct it."
            )
