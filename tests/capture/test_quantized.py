"""Quantised models: Q/DQ of PT2E, FakeQuantize, weights that stay integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.quantization as aoq
import torch.ao.quantization.fx._decomposed
from torch import nn
from torch.ao.quantization import quantize_fx

import ingot
from ingot.capture.rounding import is_a_rounding
from ingot.errors import ExportError
from tests.capture.support import op_types, parity, seeded

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


class Beside(nn.Module):
    """Two layers with as many channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Linear8(), Linear8()

    def forward(self, x: T) -> T:
        return self.first(x) + self.second(x)


def test_weights_beside_each_other() -> None:
    """ONNX Runtime's exact way loads no model in which two weights have one zero point."""
    captured = parity(Beside(), (torch.randn(3, 4),), (torch.randn(1, 4),), (torch.randn(50, 4),))
    weights = [n for n in captured.model.graph if n.inputs[0] is not None and n.inputs[0].is_initializer()]
    assert len({n.inputs[2] for n in weights}) == len(weights) == 2


@pytest.mark.parametrize(
    "observer", [aoq.MinMaxObserver, aoq.HistogramObserver, aoq.MovingAveragePerChannelMinMaxObserver]
)
def test_a_model_under_calibration_is_refused(observer: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    model.qconfig = aoq.QConfig(activation=observer, weight=aoq.default_weight_observer)
    with pytest.raises(
        ExportError, match=rf"A {observer.__name__} notes here .* Export that one: what .*conv"
    ):
        ingot.export(aoq.prepare(model.eval()), (torch.randn(2, 4),))


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
    with pytest.raises(ExportError, match=r"DequantizeLinear takes no int16.*opset_version=21"):
        ingot.export(lambda q: Q.dequantize_per_tensor.default(q, 0.1, 0, -9, 9, torch.int16), (x.short(),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_scale_for_each_token(dtype: torch.dtype) -> None:
    """Chosen in the run; the integers, the scales and zero points, and what they stand for."""

    def symmetric(x: T) -> tuple[T, ...]:
        scale, zero = Q.choose_qparams_per_token(x, torch.int8)
        q = Q.quantize_per_token(x, scale, zero, -128, 127, torch.int8)
        return q, Q.dequantize_per_token(q, scale, zero, -128, 127, torch.int8, dtype), scale, zero

    def spanned(x: T) -> tuple[T, ...]:
        scale, zero = Q.choose_qparams_per_token_asymmetric(x, torch.int8)
        q = Q.quantize_per_token(x, scale, zero, -128, 127, torch.int8)
        return q, Q.dequantize_per_token(q, scale, zero, -128, 127, torch.int8, dtype), scale, zero

    def one(x: T, eps: float = 1e-5) -> tuple[T, ...]:
        scale, zero = Q.choose_qparams_symmetric.tensor(x, -127, 127, eps, torch.int8)
        middle = Q.choose_qparams_symmetric.tensor(x, 0, 255, eps, torch.uint8)
        return Q.quantize_per_tensor.tensor(x, scale, zero, -127, 127, torch.int8), scale, zero, *middle

    seeded()
    x, y = torch.randn(3, 4), torch.randn(2, 5, 6) * 100
    for t in (x, x.abs(), -x.abs(), x * 0, y):
        # onnxruntime computes chains of halves in float32, without the roundings between.
        for f in (symmetric, spanned, one) if dtype == torch.float32 else (symmetric,):
            parity(f, (t.to(dtype),), (t[:1].to(dtype),), tolerance=1e-6)
    for f in (symmetric, spanned):
        assert ingot.export(f, (x.to(dtype),)).verification is not None


def test_a_scale_for_each_group_of_a_weight() -> None:
    """The weight stays integers in the file."""
    seeded()

    class Grouped(nn.Module):
        def __init__(self, zeros: Any) -> None:
            super().__init__()
            self.register_buffer("weight", torch.randint(-8, 8, (6, 32), dtype=torch.int8))
            self.register_buffer("scales", torch.rand(6, 2) + 0.1)
            self.zeros = zeros

        def forward(self, x: T) -> T:
            args = self.weight, self.scales, self.zeros, -8, 7, torch.int8, 16, torch.float32
            return torch.nn.functional.linear(x, Q.dequantize_per_channel_group(*args))

    for zeros in (None, torch.zeros(6, 2), torch.randint(-3, 4, (6, 2), dtype=torch.int32)):
        captured = parity(Grouped(zeros), (torch.randn(3, 32),), (torch.randn(7, 32),))
        held = [v for v in captured.model.graph.initializers.values() if v.shape is not None]
        whole = {str(v.dtype) for v in held if np.prod(v.shape.numpy()) == 6 * 32}  # pyright: ignore
        assert whole == {"INT8"}, f"the weight lies in the file as {whole}"


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_fake_quantize_of_other_floats(dtype: torch.dtype) -> None:
    """Halves are divided in float32, doubles by a scale of float32: QuantizeLinear takes no doubles."""
    scales, zeros = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 1, 2], dtype=torch.int32)

    def by_tensor(x: T) -> T:
        return torch.fake_quantize_per_tensor_affine(x, 0.1, 3, -128, 127)

    def by_channel(x: T) -> T:
        return torch.fake_quantize_per_channel_affine(x, scales, zeros, 1, -128, 127)

    x = (torch.arange(60).reshape(20, 3) * 0.73 - 20).to(dtype)
    for function in (by_tensor, by_channel):
        program = ingot.export(function, (x,))
        for v in (x, x[:4] * 3):
            np.testing.assert_array_equal(program(v), function(v).numpy(), err_msg=function.__name__)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_points_between_integers_are_refused(dtype: torch.dtype) -> None:
    """PyTorch rounds their sum with what is divided, which no operator does; of whole ones it is the same."""
    scales, x = torch.tensor([0.1, 0.2]), torch.randn(4, 2, dtype=dtype)

    def by(zeros: T) -> Any:
        return lambda x: torch.fake_quantize_per_channel_affine(x, scales, zeros, 1, -128, 127)

    parity(by(torch.tensor([1.0, 2.0])), (x,), tolerance=1e-6)
    with pytest.raises(ExportError, match="zero point that is no integer"):
        ingot.export(by(torch.tensor([0.5, 2.0])), (x,))


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
        if func is torch.nn.functional.embedding:  # which torch has in Python
            i, w = args[:2]
            return torch.nn.functional.embedding(i, w.data8).to(w.scale.dtype) * w.scale[i][..., None]
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
            self.rows = nn.Embedding(5, 4)
            self.rows.weight = self.linear.weight

        def forward(self, x: T) -> Any:
            row = (x * 10).to(torch.int8)
            rows = self.rows((x[:, 0] > 0).long())
            return self.linear(x), x * self.linear.weight[0], torch._int_mm(row, row.T), rows

    net, x = Net(), torch.randn(3, 4)
    program = ingot.export(net, (x,))
    for got, want in zip(program(x), net(x), strict=True):
        np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-5)


class Small(nn.Module):
    """What is quantised mostly: convolutions, sums, pools, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.again, self.last = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Linear(8, 5)
        self.enter, self.leave = aoq.QuantStub(), aoq.DeQuantStub()
        self.sums = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x: T) -> T:
        y = torch.relu(self.norm(self.conv(self.enter(x))))
        y = nn.functional.max_pool2d(self.sums.add_relu(y, self.again(y)), 2)
        y = self.sums.cat([y, y], 1)[:, 4:12]
        return self.leave(self.last(nn.functional.adaptive_avg_pool2d(y, 1).flatten(1)))


IMAGES = torch.randn(4, 3, 12, 12)


def _converted() -> nn.Module:
    model = aoq.fuse_modules(Small().eval(), [["conv", "norm"]])
    model.qconfig = aoq.get_default_qconfig("x86")
    prepared = aoq.prepare(model)
    prepared(IMAGES)
    return aoq.convert(prepared)


def _by_fx(convert: Any) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Hardswish(), nn.Flatten(), nn.Linear(800, 4))
    prepared = quantize_fx.prepare_fx(model.eval(), aoq.get_default_qconfig_mapping("x86"), (IMAGES,))
    prepared(IMAGES)
    return convert(prepared)


@pytest.mark.parametrize(
    "make",
    [
        _converted,
        lambda: _by_fx(quantize_fx.convert_fx),
        lambda: _by_fx(quantize_fx.convert_to_reference_fx),
    ],
    ids=["eager", "fx", "reference"],
)
def test_converted_models_become_qdq(make: Any) -> None:
    """Weights stay integers, and each product has quantised operands."""
    model = make()
    program = ingot.export(model, (IMAGES[:2],))
    graph = program.model.graph
    kept = {str(v.dtype) for v in graph.initializers.values() if v.shape is not None and len(v.shape) > 1}
    assert kept == {"INT8"}
    for node in graph:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            weight = node.inputs[1].producer()
            while weight is not None and weight.op_type == "Transpose":
                weight = weight.inputs[0].producer()
            assert weight is not None and weight.op_type == "DequantizeLinear"
    x = torch.randn(3, 3, 12, 12)
    np.testing.assert_allclose(program(x), model(x).numpy(), atol=0.05)  # a few steps, where halves are


class Recurrent(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.first, self.cells = nn.Linear(6, 8), kind(8, 5, 2, batch_first=True, bidirectional=True)

    def forward(self, x: T) -> T:
        return self.cells(torch.relu(self.first(x)))[0]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16], ids=str)
def test_dynamically_quantised_layers(kind: Any, dtype: torch.dtype) -> None:
    """Activations are quantised in each call as far as they span, a state in each step."""
    model = aoq.quantize_dynamic(Recurrent(kind).eval(), {nn.Linear, kind}, dtype=dtype)
    program = ingot.export(model, (torch.randn(2, 4, 6),))
    for batch, length in ((1, 7), (3, 1)):
        x = torch.randn(batch, length, 6)
        np.testing.assert_allclose(program(x), model(x).detach().numpy(), atol=0.02)


def test_spans_are_those_that_pytorch_chooses() -> None:
    from ingot.capture.aten.quantised_tensor import spanning

    for x in (torch.randn(9), torch.rand(9) + 1, -torch.rand(9), torch.zeros(3), torch.randn(5) * 1e-6):
        q = torch.quantize_per_tensor_dynamic(x, torch.quint8, False)
        scale, zero = spanning(x, torch.quint8, False)
        assert (scale.item(), zero.item()) == (np.float32(q.q_scale()), q.q_zero_point())


def test_quantised_embeddings() -> None:
    model = nn.Sequential(nn.Embedding(20, 8))
    observer = aoq.PerChannelMinMaxObserver.with_args(
        dtype=torch.quint8, qscheme=torch.per_channel_affine_float_qparams, ch_axis=0
    )
    model.qconfig = aoq.QConfig(activation=aoq.PlaceholderObserver, weight=observer)
    model = aoq.convert(aoq.prepare(model))
    parity(model, (torch.tensor([[3, 19, 0]]),), (torch.tensor([[7], [7]]),))


def test_rows_of_four_bits() -> None:
    """Their scales are float16."""
    model = nn.Sequential(nn.EmbeddingBag(20, 8, mode="sum", include_last_offset=True))

    class Bags(nn.Module):
        def __init__(self, bag: Any) -> None:
            super().__init__()
            self.bag = bag

        def forward(self, i: T, offsets: T) -> T:
            return self.bag(i, offsets)

    model.qconfig = aoq.float_qparams_weight_only_qconfig_4bit
    bags = Bags(aoq.convert(aoq.prepare(model.eval()))[0])
    parity(bags, (torch.tensor([3, 19, 0, 7, 7]), torch.tensor([0, 2, 5])))


@pytest.mark.parametrize("mode", [0, 1])
def test_quantised_bags_are_sums_in_every_mode(mode: int) -> None:
    """PyTorch's kernel takes the mode and does not look at it."""
    ops = torch.ops.quantized
    scales, zeros = torch.full((20,), 0.02), torch.zeros(20)
    packed = ops.embedding_bag_prepack(
        torch.quantize_per_channel(torch.randn(20, 8), scales, zeros, 0, torch.quint8)
    )

    class Bags(nn.Module):
        def forward(self, i: T, offsets: T) -> T:
            return ops.embedding_bag_byte(packed, i, offsets, False, mode)

    parity(Bags(), (torch.tensor([3, 19, 0, 7, 7]), torch.tensor([0, 2, 4])))


def test_what_has_no_form_of_integers_is_refused_by_name() -> None:
    def summed(x: T) -> T:
        return torch.quantize_per_tensor(x, 0.1, 3, torch.quint8).cumsum(0).dequantize()  # pyright: ignore

    with pytest.raises(ExportError, match="cumsum of PyTorch's own quantised tensors"):
        ingot.export(summed, (torch.randn(3),))
    with pytest.raises(ExportError, match="DeQuantStub"):
        ingot.export(lambda x: torch.quantize_per_tensor(x, 0.1, 3, torch.quint8), (torch.randn(3),))
