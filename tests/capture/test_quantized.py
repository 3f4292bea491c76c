"""Quantised models: Q/DQ of PT2E, FakeQuantize, weights that stay integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.quantization as aoq
import torch.ao.quantization.fx._decomposed
from torch import nn

import ingot
from ingot.errors import ExportError
from tests.capture.support import op_types, parity

T = torch.Tensor
Q: Any = torch.ops.quantized_decomposed


class Linear8(nn.Module):
    """As convert_pt2e leaves a linear layer: an integer weight by channel, activations by tensor."""

    def __init__(self, low: int = -127) -> None:
        super().__init__()
        weight = torch.randn(5, 4)
        scales = weight.abs().amax(1) / 127
        self.low = low
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.zeros(5, dtype=torch.int64))
        self.register_buffer("weight", (weight / scales[:, None]).round().to(torch.int8))

    def forward(self, x: T) -> T:
        q = Q.quantize_per_tensor.default(x, 0.05, 3, self.low, 127, torch.int8)
        x = Q.dequantize_per_tensor.default(q, 0.05, 3, self.low, 127, torch.int8)
        w = Q.dequantize_per_channel.default(self.weight, self.scales, self.zeros, 0, -127, 127, torch.int8)
        return torch.nn.functional.linear(x, w)


def test_decomposed_operators_become_qdq() -> None:
    """The weight stays an int8 initializer behind a DequantizeLinear; a narrower range is clipped."""
    x, y = torch.randn(3, 4) * 3, torch.randn(6, 4) * 9
    captured = parity(Linear8(-128), (x,), (y,))
    assert op_types(captured).count("DequantizeLinear") == 2 and "Clip" not in op_types(captured)
    assert captured.model.graph.initializers["weight"].dtype.name == "INT8"  # pyright: ignore[reportOptionalMemberAccess]
    assert "Clip" in op_types(parity(Linear8(-127), (x,), (y,)))
    program = ingot.export(Linear8(), (x,))
    assert program.verification is not None


def test_scales_in_tensors_and_chosen_at_run_time() -> None:
    """quantize_per_tensor.tensor, and the parameters that choose_qparams takes from the activation."""

    def f(x: T) -> T:
        scale, zero = Q.choose_qparams.tensor(x, -128, 127, 1e-5, torch.int8)
        q = Q.quantize_per_tensor.tensor(x, scale, zero, -128, 127, torch.int8)
        return Q.dequantize_per_tensor.tensor(q, scale, zero, -128, 127, torch.int8)

    x = torch.randn(4, 5)
    for t in (x, -x.abs(), x * 100):
        parity(f, (t,), tolerance=0.01)  # one step of 255 may round the other way
    with pytest.raises(ExportError, match="opset_version=21"):
        ingot.export(lambda x: Q.quantize_per_tensor.default(x, 0.1, 0, -9, 9, torch.int16), (x,))


def test_fake_quantize() -> None:
    """By tensor and by channel, with the observer apart and in one; an observer that is on is refused."""
    x = torch.randn(4, 3, 5)
    plain = aoq.FakeQuantize.with_args(observer=aoq.MinMaxObserver, quant_min=0, quant_max=255)()
    channel = aoq.FakeQuantize.with_args(
        observer=aoq.PerChannelMinMaxObserver,
        quant_min=-127,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        ch_axis=1,
    )()
    fused = aoq.FusedMovingAvgObsFakeQuantize(quant_min=0, quant_max=255)
    for module in (plain, channel, fused):
        module(x)
        if module is fused:
            with pytest.raises(ExportError, match="disable_observer"):
                ingot.export(module, (x,))
        module.apply(aoq.disable_observer)
        captured = parity(module, (x,), (torch.randn(2, 3, 5),), tolerance=0.01)
        kinds = op_types(captured)
        assert kinds[0] == "QuantizeLinear" and kinds[-1] == "DequantizeLinear", kinds
    scale = torch.tensor([0.1])
    y = torch.fake_quantize_per_tensor_affine(x, 0.1, 2, 0, 255)
    program = ingot.export(
        lambda x: torch.fake_quantize_per_tensor_affine(
            x, scale, torch.tensor([2], dtype=torch.int32), 0, 255
        ),
        (x,),
    )
    np.testing.assert_allclose(program(x), y.numpy(), atol=1e-5)
