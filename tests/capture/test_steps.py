"""A quantised module goes on with the exported model's integers, where they are its own but for rounding."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.ao.quantization as aoq
from torch import nn
from torch.ao.quantization import quantize_fx

import ingot
import ingot.capture.attempt  # as an export does, before anything imports a part of it: they are a cycle
from ingot.capture.aten import INSTEAD
from ingot.capture.aten.quantised_tensor import Quantised
from ingot.capture.overflow import loses, lost
from ingot.capture.steps import OtherError, UnknownError, in_steps
from ingot.errors import VerificationError
from ingot.verify import verify_capture

T = torch.Tensor
LOW, HIGH = 0, 255


def quantised(x: T) -> T:
    return torch.fake_quantize_per_tensor_affine(x, 0.5, 3, LOW, HIGH) * 2


def test_only_what_lies_in_the_middle_may_be_another_step() -> None:
    x = torch.tensor([0.24, 0.25, 0.7500001, 1.0, 9.9])
    kind = "fake_quantize_per_tensor_affine_cachemask"
    own = quantised(x) / 2
    middle, far, back = own.clone(), own.clone(), own.clone()
    middle[1:3] = torch.tensor([0.5, 0.5])
    far[3] = 1.5
    back[2] = own[2] + 0.5
    with in_steps([(kind, middle.numpy(), None), (kind, None, None)]):
        assert torch.equal(quantised(x), middle * 2), "the module goes on with the integers that it is given"
    for other in (far, back):
        with pytest.raises(OtherError), in_steps([(kind, other.numpy(), None), (kind, None, None)]):
            quantised(x)
    none = (kind, None, None)
    for found in ([], [("round", None, None)], [(kind, middle.numpy()[1:], None), none], [none] * 4):
        with pytest.raises(UnknownError), in_steps(found):
            quantised(x)


def test_steps_of_another_scale_are_no_steps() -> None:
    """A scale that is one in a hundred larger keeps each number next to its own."""
    kind = "fake_quantize_per_tensor_affine_cachemask"
    x = torch.linspace(-1.5, 100, 300)
    own, other = (torch.fake_quantize_per_tensor_affine(x, s, 3, LOW, HIGH) for s in (0.5, 0.505))
    for made, outcome in ((own, contextlib.nullcontext()), (other, pytest.raises(OtherError))):
        with outcome, in_steps([(kind, made.numpy(), None), (kind, None, None)]):
            torch.fake_quantize_per_tensor_affine(x, 0.5, 3, LOW, HIGH)


class ByTheLargest(nn.Module):
    """Each row in steps of its largest: where that is negative it lies in the middle of two."""

    def __init__(self, span: float = 127.5) -> None:
        super().__init__()
        self.norm, self.span = nn.LayerNorm(24), span

    def forward(self, x: T) -> T:
        x = self.norm(x)
        scale = x.abs().amax(-1, keepdim=True) / self.span
        return torch.clamp(torch.round(x * (1 / scale)), -128, 127) * scale


def test_rows_in_steps_of_their_largest() -> None:
    """LayerNorm's last digits decide whether the largest is -127 or -128."""
    x = torch.randn(300, 24, generator=torch.Generator().manual_seed(0))
    program = ingot.export(ByTheLargest(), (x,))
    assert program.verification is not None
    with pytest.raises(VerificationError, match="differs from the module"):
        ingot.verify(program, ByTheLargest(127.0))


def _by_fx(model: nn.Module, x: T, engine: str = "x86") -> nn.Module:
    prepared = quantize_fx.prepare_fx(model.eval(), aoq.get_default_qconfig_mapping(engine), (x,))
    prepared(x)
    return quantize_fx.convert_fx(prepared)


def test_operators_on_quantised_tensors_are_held_to_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means of quantised numbers are ties; an operator that is exported as another is found out."""
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Hardswish(), nn.Flatten())
    model = _by_fx(model, x)
    with in_steps([("quantize_per_tensor", None, None)] * 4):
        made = model(x)
    np.testing.assert_allclose(made, model(x), atol=0.05)  # two steps
    other = INSTEAD[torch.ops.quantized.sigmoid]
    monkeypatch.setitem(INSTEAD, torch.ops.quantized.hardswish, other)
    with pytest.raises(OtherError), in_steps([("quantize_per_tensor", None, None)] * 4):
        model(x)


def test_what_sixteen_bits_lose_is_bounded() -> None:
    """Pairs of products that saturate, in whatever order they are paired."""
    rng = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 256, (5, 64), generator=rng, dtype=torch.uint8)
    weight = torch.randn(7, 64, generator=rng)
    q = torch.quantize_per_tensor(weight, float(weight.abs().max() / 127), 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(q, None)
    x = Quantised(rows, 0.5, 3, torch.quint8, None)
    bound = lost(x, packed, "linear")
    assert bound is not None
    products = rows[:, None].long() * q.int_repr()[None].long()
    exact = products.sum(-1)
    for order in (torch.arange(64), torch.randperm(64, generator=rng)):
        pairs = products[..., order].unflatten(-1, (32, 2)).sum(-1).clamp(-(2**15), 2**15 - 1).sum(-1)
        assert ((pairs - exact).abs() * 0.5 * q.q_scale() <= bound).all()
    assert lost(Quantised(rows // 2, 0.5, 3, torch.quint8, None), packed, "linear") is None


def test_a_zero_point_that_is_off_by_one_is_found() -> None:
    """Of a quantiser and what reads it alike: numbers inside the range are the same, those beyond are not."""
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.Hardswish(), nn.Linear(16, 4))
    faked = quantize_fx.prepare_qat_fx(
        copy.deepcopy(model).train(), aoq.get_default_qat_qconfig_mapping("x86"), (x,)
    )
    faked(x)
    faked.apply(aoq.disable_observer)
    for module in (_by_fx(model, x), faked.eval()):
        captured = ingot.capture.attempt.capture(module, (x,))
        verify_capture(captured)
        points = {
            str(v.name): v
            for node in captured.model.graph
            if node.op_type == "QuantizeLinear" and (v := node.inputs[2]) is not None
        }
        assert len(points) > 3
        for point in points.values():
            before = point.const_value
            assert before is not None
            for moved in (before.numpy().astype(int) + d for d in (1, -1)):
                limits = np.iinfo(before.numpy().dtype)
                if moved.min() < limits.min or moved.max() > limits.max:
                    continue
                point.const_value = ir.tensor(moved.astype(limits.dtype), name=point.name)
                with pytest.raises(VerificationError):
                    verify_capture(captured)
            point.const_value = before


def test_overflows_are_allowed_where_the_kernel_loses_sums() -> None:
    """What a kernel gives for the largest products says whether it does: the same as for others."""
    weight = torch.quantize_per_tensor(torch.full((4, 8), 1.0), 1 / 127, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(weight, None)
    x = torch.quantize_per_tensor(torch.full((2, 8), 255.0), 1.0, 0, torch.quint8)
    exact = 8 * 255.0
    found = torch.ops.quantized.linear(x, packed, exact / 200, 0).dequantize()
    rows = Quantised(x.int_repr(), 1.0, 0, torch.quint8, None)
    assert loses(rows, packed, "linear") == bool((found - exact).abs().max() > exact / 100)
    kernel = torch.nn.Conv2d(2, 2, 3, padding=1, groups=2)
    small = torch.quantize_per_tensor(kernel.weight.detach() * 0, 1.0, 0, torch.qint8)
    convolution = torch.ops.quantized.conv2d_prepack(small, None, [1, 1], [1, 1], [1, 1], 2)
    loses(
        Quantised(torch.ones(1, 2, 5, 5, dtype=torch.uint8), 1.0, 0, torch.quint8, None),
        convolution,
        "conv2d",
    )


def test_sizes_of_zero_are_not_given_to_qnnpack() -> None:
    """Its kernels divide by them, which ends the process."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "qnnpack"
    try:
        x = torch.randn(2, 3, 8, 8)
        program = ingot.export(_by_fx(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish()), x, "qnnpack"), (x,))
    finally:
        torch.backends.quantized.engine = before
    found: Any = program.verification
    assert any(line.startswith("sizes of 0") for line in found.unverified)
