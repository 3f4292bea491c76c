"""Random numbers, as ONNX's own generators: each run of the model draws its own, which is recorded.

The distribution is torch's; the numbers are not, and no seed of torch's repeats them.
"""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.elementwise import leaky_relu
from ingot.capture.aten.registry import row
from ingot.capture.chance import require_unseeded
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor


def _note(g: Recorder, name: str) -> None:
    require_unseeded(g, name)
    g.assume("random", f"{name} draws other numbers in every run of the model", "fixed")


def _drawn(g: Recorder, op_type: str, shape: Sequence[Any], **attributes: float) -> ir.Value:
    """float32 numbers of this shape; of a static one when all sizes are known."""
    sizes = [g.sizes.number(n) for n in shape]
    if None not in sizes and 0 not in sizes:
        return g.op(op_type, shape=sizes, dtype=ir.DataType.FLOAT, **attributes)
    like = g.op("ConstantOfShape", g.shape(shape))
    return g.op(f"{op_type}Like", like, dtype=ir.DataType.FLOAT, **attributes)


def uniform(g: Recorder, shape: Sequence[Any]) -> ir.Value:
    """float32, 0 ≤ x < 1."""
    return _drawn(g, "RandomUniform", shape, low=0.0, high=1.0)


def open_uniform(g: Recorder, shape: Sequence[Any]) -> ir.Value:
    """float32, 0 < x < 1, for logarithms."""
    tiny, one = g.const(1e-7, torch.float32), g.const(1 - 6e-8, torch.float32)
    return g.op("Clip", uniform(g, shape), tiny, one)


def normal(g: Recorder, shape: Sequence[Any]) -> ir.Value:
    """float32, mean 0, deviation 1."""
    return _drawn(g, "RandomNormal", shape, mean=0.0, scale=1.0)


def _to(g: Recorder, value: ir.Value, out: Tensor) -> ir.Value:
    return g.cast(value, torch.float32, out.dtype)


@row("rand", "rand_like")
def rand(g: Recorder, out: Tensor, *args: Any, **kwargs: Any) -> ir.Value:
    """0 ≤ x < 1."""
    _note(g, "rand")
    return _to(g, uniform(g, out.shape), out)


@row("randn", "randn_like")
def randn(g: Recorder, out: Tensor, *args: Any, **kwargs: Any) -> ir.Value:
    """The standard normal distribution."""
    _note(g, "randn")
    return _to(g, normal(g, out.shape), out)


def _integers(g: Recorder, out: Tensor, low: Any, high: Any) -> ir.Value:
    """Whole numbers from low to high - 1."""
    _note(g, "randint")
    wide = torch.float64
    first = g.operand(low, wide)
    span = g.op("Sub", g.operand(high, wide), first)
    scaled = g.op("Mul", g.cast(uniform(g, out.shape), torch.float32, wide), span)
    whole = g.op("Add", g.op("Floor", scaled), first)
    return g.cast(whole, wide, out.dtype)


@row("randint")
def randint(g: Recorder, out: Tensor, high: Any, *args: Any, **kwargs: Any) -> ir.Value:
    """0 to high - 1."""
    return _integers(g, out, 0, high)


@row("randint.low", "randint.low_generator")
def randint_low(g: Recorder, out: Tensor, low: Any, high: Any, *args: Any, **kwargs: Any) -> ir.Value:
    """low to high - 1."""
    return _integers(g, out, low, high)


@row("randint_like")
def randint_like(g: Recorder, out: Tensor, a: Tensor, high: Any, **kwargs: Any) -> ir.Value:
    """0 to high - 1, in the shape of another tensor."""
    return _integers(g, out, 0, high)


@row("randint_like.low_dtype")
def randint_like_low(g: Recorder, out: Tensor, a: Tensor, low: Any, high: Any, **kwargs: Any) -> ir.Value:
    """low to high - 1, in the shape of another tensor."""
    return _integers(g, out, low, high)


@row("random.from")
def random_from(g: Recorder, out: Tensor, a: Tensor, low: Any, high: Any, **kwargs: Any) -> ir.Value:
    """low to high - 1."""
    return _integers(g, out, low, high)


@row("random.to")
def random_to(g: Recorder, out: Tensor, a: Tensor, high: Any, **kwargs: Any) -> ir.Value:
    """0 to high - 1."""
    return _integers(g, out, 0, high)


@row("randperm")
def randperm(g: Recorder, out: Tensor, n: Any, *args: Any, **kwargs: Any) -> ir.Value:
    """The numbers 0 to n - 1 in random order: the order that sorts random numbers."""
    _note(g, "randperm")
    order = g.ops("TopK", uniform(g, out.shape), g.sizes.dim(n), n=2, axis=0)[1]
    return g.cast(order, torch.int64, out.dtype)


@row("uniform")
def uniform_(g: Recorder, out: Tensor, a: Tensor, low: Any = 0.0, high: Any = 1.0, **kwargs: Any) -> ir.Value:
    """low ≤ x < high."""
    _note(g, "uniform")
    single = torch.float32
    span = g.op("Sub", g.operand(high, single), g.operand(low, single))
    return _to(g, g.op("Add", g.op("Mul", uniform(g, out.shape), span), g.operand(low, single)), out)


@row("normal", "normal_functional")
def normal_(g: Recorder, out: Tensor, a: Tensor, mean: Any = 0.0, std: Any = 1.0, **kwargs: Any) -> ir.Value:
    """`tensor.normal_(mean, std)`."""
    _note(g, "normal")
    return _spread(g, out, mean, std)


@row("normal.Tensor_float", "normal.float_Tensor", "normal.Tensor_Tensor", "normal.float_float")
def normal_of(
    g: Recorder, out: Tensor, mean: Any = 0.0, std: Any = 1.0, *args: Any, **kwargs: Any
) -> ir.Value:
    """`torch.normal(mean, std)` of tensors or numbers."""
    _note(g, "normal")
    return _spread(g, out, mean, std)


def _spread(g: Recorder, out: Tensor, mean: Any, std: Any) -> ir.Value:
    scaled = g.op("Mul", _to(g, normal(g, out.shape), out), g.operand(std, out.dtype))
    return g.op("Add", scaled, g.operand(mean, out.dtype))


@row("bernoulli.float")
def bernoulli_half(g: Recorder, out: Tensor, a: Tensor, p: float = 0.5, **kwargs: Any) -> ir.Value:
    """`tensor.bernoulli_(p)`, whose default is a half."""
    return bernoulli(g, out, a, p)


@row("bernoulli")
def bernoulli(g: Recorder, out: Tensor, a: Tensor, p: Any = None, **kwargs: Any) -> ir.Value:
    """1 with a probability that each element gives, or with one for all."""
    _note(g, "bernoulli")
    chance = g.operand(a if p is None else p, torch.float32)
    return g.cast(g.op("Less", uniform(g, out.shape), chance), torch.bool, out.dtype)


def dropped(
    g: Recorder, x: ir.Value, shape: Sequence[Any], p: float, dtype: torch.dtype
) -> tuple[ir.Value, ir.Value]:
    """Elements dropped at random and the others scaled up; and which are kept."""
    _note(g, "dropout")
    kept = g.op("GreaterOrEqual", uniform(g, shape), g.const(float(p), torch.float32))
    scale = 0.0 if p == 1 else 1 / (1 - p)
    return g.op("Mul", g.op("Mul", x, g.cast(kept, torch.bool, dtype)), g.const(scale, dtype)), kept


@row("native_dropout")
def native_dropout(g: Recorder, out: Any, a: Tensor, p: float, train: Any = True) -> list[ir.Value]:
    """Elements dropped at random and the others scaled up."""
    x = g.val(a)
    if not train:
        return [x, g.op("Expand", g.const(True, torch.bool), g.shape(a.shape))]
    return list(dropped(g, x, a.shape, p, a.dtype))


@row("exponential")
def exponential(g: Recorder, out: Tensor, a: Tensor, rate: float = 1.0, **kwargs: Any) -> ir.Value:
    """-log(u) / rate."""
    _note(g, "exponential")
    y = g.op("Neg", g.op("Log", open_uniform(g, out.shape)))
    return _to(g, g.op("Div", y, g.operand(rate, torch.float32)), out)


@row("geometric")
def geometric(g: Recorder, out: Tensor, a: Tensor, p: float, **kwargs: Any) -> ir.Value:
    """ceil(log(u) / log(1 - p))."""
    _note(g, "geometric")
    y = g.op("Div", g.op("Log", open_uniform(g, out.shape)), g.const(math.log1p(-p), torch.float32))
    return _to(g, g.op("Ceil", y), out)


@row("cauchy")
def cauchy(
    g: Recorder, out: Tensor, a: Tensor, median: float = 0.0, sigma: float = 1.0, **kwargs: Any
) -> Any:
    """median + sigma tan(π (u - 1/2))."""
    _note(g, "cauchy")
    single = torch.float32
    turn = g.op(
        "Mul", g.op("Sub", open_uniform(g, out.shape), g.const(0.5, single)), g.const(math.pi, single)
    )
    y = g.op("Mul", g.op("Tan", turn), g.operand(sigma, single))
    return _to(g, g.op("Add", y, g.operand(median, single)), out)


@row("log_normal")
def log_normal(
    g: Recorder, out: Tensor, a: Tensor, mean: float = 1.0, std: float = 2.0, **kwargs: Any
) -> Any:
    """exp of a normal distribution."""
    _note(g, "log_normal")
    return g.op("Exp", _spread(g, out, mean, std))


@row("multinomial")
def multinomial(
    g: Recorder, out: Tensor, a: Tensor, count: int, replacement: bool = False, **kwargs: Any
) -> ir.Value:
    """Indices drawn by weight: with replacement where a number falls among the running sums; without, those
    of the largest log(weight) - log(-log u).
    """
    _note(g, "multinomial")
    wide = torch.float32
    weights = g.operand(a, wide)
    if not replacement:
        noise = g.op("Log", g.op("Neg", g.op("Log", open_uniform(g, a.shape))))
        keys = g.op("Sub", g.op("Log", weights), noise)
        return g.ops("TopK", keys, g.sizes.dim(count), n=2, axis=-1)[1]
    last = g.const(a.dim() - 1)
    sums = g.op("CumSum", weights, last)
    total = g.op("ReduceSum", weights, g.const([-1]), keepdims=1)
    at = g.op("Mul", uniform(g, out.shape), total)
    below = g.op("LessOrEqual", g.op("Unsqueeze", sums, g.const([-2])), g.op("Unsqueeze", at, g.const([-1])))
    return g.op("ReduceSum", g.cast(below, torch.bool, torch.int64), g.const([-1]), keepdims=0)


@row("poisson", "binomial", "_standard_gamma", "_sample_dirichlet")
def refuse(g: Recorder, out: Tensor, *args: Any, **kwargs: Any) -> ir.Value:
    """Distributions that are drawn by rejection, which takes a loop of unknown length for each element."""
    raise ExportError(
        "this distribution is drawn by rejection, which ONNX's generators cannot do. Draw the numbers "
        "outside of "
        "the model and pass them in as an input."
    )


@row("rrelu_with_noise", "rrelu_with_noise_functional")
def rrelu(
    g: Recorder,
    out: Any,
    a: Tensor,
    noise: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> Any:
    """x, times a slope below zero: a random one in training, else the middle of the range."""
    x = g.val(a)
    if not training:
        return leaky_relu(g, a, a, (float(lower) + float(upper)) / 2)
    _note(g, "rrelu")
    slope = _to(g, uniform(g, a.shape), a)
    slope = g.op("Add", g.op("Mul", slope, g.const(upper - lower, a.dtype)), g.const(float(lower), a.dtype))
    return g.op("Where", g.op("Less", x, g.const(0, a.dtype)), g.op("Mul", x, slope), x)
