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
from ingot.capture.rounding import is_a_rounding
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


class Halves(nn.Module):
    """Means of quantised numbers lie half way between two steps, again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = (aoq.FakeQuantize(quant_min=0, quant_max=255) for _ in range(2))

    def forward(self, x: T) -> T:
        return self.last(torch.nn.functional.avg_pool2d(self.first(x), 2))


def test_halves_may_round_either_way() -> None:
    """PyTorch multiplies by the inverse of the scale, QuantizeLinear divides by it."""
    for scale in (0.013, 0.0271, 0.03337):
        model, x = Halves(), torch.randn(2, 3, 8, 8)
        model(x)
        model.apply(aoq.disable_observer)
        for part in (model.first, model.last):
            part.scale.fill_(scale)
            part.zero_point.fill_(121)
        program = ingot.export(model, (x,))
        assert (np.abs(program(x) - model(x).numpy()) <= scale * 1.001).all()


def test_a_rounding_is_told_from_a_mistake() -> None:
    """The same steps pass, with ties either way; another zero point, and one element far away, do not."""
    steps = np.random.default_rng(0).integers(-100, 100, 4000) / 2  # half of them ties
    want = (np.rint(steps) * 0.1).astype(np.float32)

    def run(seed: int) -> Any:
        moved = steps + np.random.default_rng(seed).uniform(-1e-6, 1e-6, steps.shape)
        return (np.rint(moved) * 0.1).astype(np.float32)

    up = (np.floor(steps + 0.5) * 0.1).astype(np.float32)
    assert is_a_rounding(want, up, run, 0.0)
    assert not is_a_rounding(want, want + np.float32(0.1), run, 0.0)
    far = want.copy()
    far[7] += 1
    assert not is_a_rounding(want, far, run, 0.0)
    assert not is_a_rounding(want, np.full_like(want, np.nan), run, 0.0)
    for bad in (np.nan, np.inf):
        assert not is_a_rounding(want, far, lambda _, bad=bad: np.full_like(want, bad), 0.0)


class Packed(torch.Tensor):
    """A weight of int8 and its scales, as torchao's are: it says itself what a linear layer does with it."""

    @staticmethod
    def __new__(cls, data: T, scale: T) -> Packed:
        return torch.Tensor._make_wrapper_subclass(cls, data.shape, dtype=scale.dtype)  # pyright: ignore

    def __init__(self, data: T, scale: T) -> None:
        self.data8, self.scale = data, scale

    def __tensor_flatten__(self) -> Any:
        return ["data8", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, *_: Any) -> Packed:
        return cls(inner["data8"], inner["scale"])

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.linear:
            x, w, bias = args
            return x @ w.data8.to(x.dtype).T * w.scale + bias
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].data8, args[0].scale)
        plain = [a.data8 * a.scale[:, None] if isinstance(a, cls) else a for a in args]
        return func(*plain, **(kwargs or {}))


def test_weights_that_are_made_of_other_tensors() -> None:
    """In a layer that they know, in an operator that they leave to torch, and an integer product."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 5)
            data = torch.randint(-127, 128, (5, 4), dtype=torch.int8)
            self.linear.weight = nn.Parameter(Packed(data, torch.rand(5) / 100), requires_grad=False)

        def forward(self, x: T) -> Any:
            row = (x * 10).to(torch.int8)
            return self.linear(x), x * self.linear.weight[0], torch._int_mm(row, row.T)

    net, x = Net(), torch.randn(3, 4)
    program = ingot.export(net, (x,))
    for got, want in zip(program(x), net(x), strict=True):
        np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-5)
