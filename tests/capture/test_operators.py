"""Every family of ATen rows against torch, through onnxruntime, on more than one shape of a dynamic
export.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ingot
from ingot.capture import dispatch
from ingot.capture.attempt import capture
from tests.capture.support import OrtError, op_types, ort_runner, parity

torch.manual_seed(0)
R = torch.randn
P = torch.rand


def ints(*shape: int, high: int = 5) -> torch.Tensor:
    """Small non-negative integers."""
    return torch.randint(0, high, shape)


def written(x: torch.Tensor, places: Any, values: Any) -> torch.Tensor:
    """A copy with values at these places."""
    y = x.clone()
    y[places] = values
    return y


Case = tuple[str, Callable[..., Any], tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]


def unary(name: str, f: Callable[..., Any], draw: Callable[..., torch.Tensor] = R) -> Case:
    """A function of one tensor."""
    return name, f, (draw(3, 4, 5),), (draw(2, 7, 1),)


ELEMENTWISE: list[Case] = [
    *[
        unary(f.__name__, f)
        for f in (
            torch.abs,
            torch.neg,
            torch.sign,
            torch.exp,
            torch.sin,
            torch.cos,
            torch.tan,
            torch.atan,
            torch.sinh,
            torch.cosh,
            torch.asinh,
            torch.tanh,
            torch.erf,
            torch.erfc,
            torch.sigmoid,
            torch.relu,
            torch.floor,
            torch.ceil,
            torch.round,
            torch.trunc,
            torch.square,
            torch.exp2,
            torch.expm1,
            torch.isnan,
            torch.isinf,
            torch.isfinite,
            F.gelu,
            F.silu,
            F.mish,
            F.hardswish,
            F.hardsigmoid,
            F.relu6,
            F.hardtanh,
            F.leaky_relu,
            F.elu,
            F.selu,
            F.celu,
            F.softplus,
            F.softsign,
            F.logsigmoid,
            F.tanhshrink,
        )
    ],
    *[
        unary(f.__name__, f, P)
        for f in (
            torch.log,
            torch.log2,
            torch.log10,
            torch.log1p,
            torch.sqrt,
            torch.rsqrt,
            torch.reciprocal,
            torch.asin,
            torch.acos,
            torch.atanh,
        )
    ],
    unary("acosh", lambda x: torch.acosh(x + 1.5), P),
    unary("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")),
    unary("glu", lambda x: F.glu(torch.cat([x, x * 2], 1), 1)),
    unary("clamp", lambda x: x.clamp(-0.5, 0.7) + x.clamp(min=0.1) - x.clamp(max=0.2)),
    unary("clamp_nan", lambda x: (x.clamp(x.sum() / 0 - x.sum() / 0), x.clamp(0, math.nan))),
    unary("clamp_at_most_nan", lambda x: x.clamp(max=(x.mean() - torch.inf) * 0)),
    unary("clamp_tensor", lambda x: torch.clamp(x, min=x.mean(0), max=x.amax(0))),
    unary("powers", lambda x: x**2 + x.abs() ** 0.5 + x**3 + 2.0**x + (x.abs() + 1) ** -0.5),
    unary(
        "rounding",
        lambda x: torch.div(x, 0.3, rounding_mode="floor") + torch.div(x, 0.3, rounding_mode="trunc"),
    ),
    unary("remainder", lambda x: x % 0.7 + torch.fmod(x, 0.7) + x.remainder(-0.4)),
    unary("where", lambda x: torch.where(x > 0, x, 2.0) + x.masked_fill(x < 0, -1.0)),
    unary("where_truths", lambda x: (torch.where(x > 0, x > 1, x < -1), torch.where(x > 0, x < 1, True))),
    unary(
        "fill_truths",
        lambda x: ((x > 0).masked_fill(x > 1, False), (x > 0).index_fill(0, torch.tensor([1]), True)),
    ),
    unary(
        "put_truths",
        lambda x: ((x > 0).index_put((x > 1,), torch.tensor(False)), (x > 0).masked_select(x[:1] > 0)),
    ),
    unary("where_narrow", lambda x: torch.where(x > 0, (x * 9).to(torch.int16), 2)),
    unary("scalars", lambda x: 1 - x * 2 + x / 3 + (3 / (x + 9)) - torch.rsub(x, 2, alpha=3)),
    unary("alpha", lambda x: torch.add(x, x, alpha=0.5) - torch.sub(x, x * 2, alpha=3)),
    unary(
        "lerp",
        lambda x: (
            torch.lerp(x, x * 2, 0.3) + torch.addcmul(x, x, x, value=0.1) + torch.addcdiv(x, x, x * x + 1)
        ),
    ),
    unary(
        "casts", lambda x: x.to(torch.int32).float() + x.double().float() + (x > 0).float() + x.bool().long()
    ),
    unary("logic", lambda x: ((x > 0) & (x < 1)) | ~(x > -1) ^ (x == 0)),
    unary(
        "comparisons",
        lambda x: (x >= 0).long() + (x <= 0).long() + (x != 0).long() + torch.logical_not(x).long(),
    ),
    unary("nan_to_num", lambda x: torch.nan_to_num(x / torch.relu(x), nan=1.0, posinf=2.0, neginf=-2.0)),
    unary("threshold", lambda x: F.threshold(x, 0.1, 20.0)),
    unary("extremes", lambda x: torch.maximum(x, x.mean()) + torch.minimum(x, -x)),
    ("atan2", torch.atan2, (R(3, 4), R(3, 4)), (R(2, 5), R(2, 5))),
    ("broadcast", lambda a, b: a * b + b, (R(3, 1, 4), R(5, 4)), (R(2, 1, 6), R(3, 6))),
    ("promotion", lambda a, b: a * b + b / 2 + (a > b), (R(3, 4), ints(3, 4)), (R(2, 5), ints(2, 5))),
    (
        "integers",
        lambda a, b: a // (b + 1) + a % (b + 1) + (-a) // (b + 2),
        (ints(3, 4), ints(3, 4)),
        (ints(2, 5), ints(2, 5)),
    ),
    (
        "numbers_that_wrap",
        lambda x: (
            x.clamp(-2, 5),
            x.clamp_min(-255),
            x + 300,
            -2 - x,
            x * -1,
            x == 300,
            x > -2,
            x % -2,
            x // 300,
            x.masked_fill(x > 3, -1),
            torch.full_like(x, -2),
            x & -2,
            x.clone().add_(-2),
            x.char() + 200,
        ),
        (torch.tensor([0, 3, 4, 43, 44, 45, 254, 255], dtype=torch.uint8),),
        (torch.tensor([44, 254, 1], dtype=torch.uint8),),
    ),
    ("int_division", lambda a, b: a / (b + 1), (ints(3, 4), ints(3, 4)), (ints(2, 5), ints(2, 5))),
    (
        "bits",
        lambda a, b: (a & b) + (a | b) + (a ^ b) + (a << 2),
        (ints(3, 4), ints(3, 4)),
        (ints(2, 5), ints(2, 5)),
    ),
    ("prelu", lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3, 0.4])), (R(3, 4, 5),), (R(2, 4, 1),)),
]

REDUCTIONS: list[Case] = [
    unary("sums", lambda x: (x.sum(), x.sum(1), x.sum((0, 2), keepdim=True), x.mean(-1), x.mean())),
    unary(
        "extremes", lambda x: (x.amax(1), x.amin((0, 1)), x.max(), x.min(), x.max(2), x.min(0, keepdim=True))
    ),
    unary("arg", lambda x: (x.argmax(1), x.argmin(-1, keepdim=True), x.argmax())),
    unary("products", lambda x: (x.prod(1), x.logsumexp(2), x.cumsum(1), x.prod())),
    unary("truth", lambda x: ((x > 0).any(), (x > 0).all(1), (x > 1).any(2, keepdim=True), (x > 0).sum(1))),
    unary(
        "statistics",
        lambda x: (x.var(1), x.std(0, unbiased=False), x.var((0, 1)), torch.var_mean(x, 0, correction=0)),
    ),
    unary(
        "norms",
        lambda x: (
            x.norm(),
            x.norm(dim=1),
            torch.linalg.vector_norm(x, 1, 2),
            x.norm(3, 1),
            F.normalize(x, dim=1),
        ),
    ),
    unary("softmax", lambda x: (x.softmax(1), x.log_softmax(-1), torch.softmax(x, 0), F.softmin(x, 1))),
    unary("topk", lambda x: (*torch.topk(x, 2, 1), *torch.topk(x, 2, 1, largest=False))),
    unary("sort", lambda x: (*x.sort(1), *x.sort(1, descending=True), x.argsort(0))),
    ("int_sum", lambda x: (x.sum(0), x.max(1).values, x.cumsum(0)), (ints(3, 4),), (ints(2, 5),)),
]

SHAPES: list[Case] = [
    unary("views", lambda x: (x.view(x.shape[0], -1), x.reshape(-1), x.flatten(1), x.view(-1, x.shape[2]))),
    unary(
        "merged",
        lambda x: x.reshape(x.shape[0] * x.shape[1], x.shape[2]).view(x.shape[0], x.shape[1], x.shape[2]),
    ),
    unary(
        "axes",
        lambda x: (
            x.transpose(1, 2),
            x.permute(2, 0, 1),
            x.mT,
            x.unsqueeze(1),
            x[:, None],
            x.unsqueeze(0).squeeze(0),
        ),
    ),
    unary(
        "expand",
        lambda x: (
            x.unsqueeze(1).expand(-1, 3, -1, -1),
            x[:1].expand(6, *x.shape[1:]),
            x.mean(0, True).expand_as(x),
        ),
    ),
    unary(
        "repeat", lambda x: (x.repeat(2, 1, 3), x.repeat_interleave(2, 1), x.tile(2), x.repeat(1, 2, 1, 1))
    ),
    unary(
        "slices",
        lambda x: (
            x[1:],
            x[:, :-1],
            x[..., ::2],
            x[:, -1],
            x[0],
            x[-1, ..., 0],
            x[:, 0:1],
            x.narrow(1, 0, 2),
        ),
    ),
    unary("symbolic_index", lambda x: (x[:, x.shape[1] - 1], x[x.shape[0] // 2], x[:, : x.shape[1] // 2])),
    unary("join", lambda x: (torch.cat([x, x[:, :1]], 1), torch.stack([x, x], 1), torch.cat([x, x * 2], -1))),
    unary("split", lambda x: (*x.unsqueeze(0).chunk(1), *torch.cat([x, x, x], 1).chunk(3, 1))),
    unary("split_sizes", lambda x: torch.cat([x, x], 1).split([1, 2 * x.shape[1] - 1], 1)),
    unary(
        "flip_roll", lambda x: (x.flip(1), x.flip((0, 2)), x.roll(1, 0), x.roll((-1, 2), (1, 2)), x.roll(3))
    ),
    unary("triangles", lambda x: (x.tril(), x.triu(1), torch.tril(x > 0, -1))),
    unary("pad", lambda x: (F.pad(x, (1, 2)), F.pad(x, (0, 0, 1, 1), value=3.0), F.pad(x, (-1, 1, 1, 0)))),
    unary("unfold", lambda x: F.pad(x, (0, 8)).unfold(2, 3, 2)),
    unary("diagonal", lambda x: (x.diagonal(0, 1, 2), torch.diagonal(x, 1, 0, 1))),
    unary("stack_unbind", lambda x: [t * i for i, t in enumerate(torch.stack([x, x, x], 1).unbind(1))]),
    unary(
        "meshgrid",
        lambda x: torch.meshgrid(torch.arange(x.shape[0]), torch.arange(x.shape[1]), indexing="ij"),
    ),
    (
        "pad_modes",
        lambda x: (F.pad(x, (1, 2, 2, 1), "reflect"), F.pad(x, (1, 1, 2, 0), "replicate")),
        (R(2, 3, 5, 6),),
        (R(1, 3, 4, 7),),
    ),
    unary("pad_transposed", lambda x: F.pad(x.transpose(0, 2), (0, 0, 0, 0, 1, 2)).transpose(0, 2)),
    unary(
        "as_strided",
        lambda x: x.contiguous().as_strided(
            [x.shape[0], 2 * x.shape[1] - 1, x.shape[2]], [x.stride(0), x.stride(1) // 2, 1]
        ),
        lambda *shape: R(shape[0], shape[1], 6),
    ),
    ("circular", lambda x: F.pad(x, (1, 2), "circular"), (R(2, 3, 6),), (R(1, 3, 5),)),
    (
        "shuffles",
        lambda x: (F.pixel_shuffle(x, 2), F.pixel_unshuffle(x, 2), F.channel_shuffle(x, 2)),
        (R(2, 8, 4, 6),),
        (R(1, 8, 2, 2),),
    ),
    (
        "im2col",
        lambda x: F.unfold(x, (3, 2), dilation=1, padding=1, stride=2),
        (R(2, 3, 6, 7),),
        (R(1, 3, 5, 4),),
    ),
]

INDEXING: list[Case] = [
    ("embedding", lambda i: F.embedding(i, torch.arange(40.0).view(10, 4)), (ints(3, 4),), (ints(2, 7),)),
    ("gather", lambda x, i: x.gather(1, i), (R(3, 5), ints(3, 4)), (R(2, 5), ints(2, 2))),
    ("index_select", lambda x, i: x.index_select(1, i), (R(3, 5), ints(4)), (R(2, 5), ints(7))),
    ("take", lambda x, i: x[i], (R(5, 3), ints(4, 2)), (R(6, 2), ints(1, 3))),
    (
        "two_indices",
        lambda x, i, j: (x[i, j], x[:, i, j], x[i, :, j]),
        (R(5, 5, 5), ints(4), ints(4)),
        (R(6, 5, 7), ints(2), ints(2)),
    ),
    (
        "outer_indices",
        lambda x, i, j: x[:, i[:, None], j],
        (R(2, 5, 5), ints(4), ints(3)),
        (R(3, 6, 7), ints(2), ints(5)),
    ),
    ("mask", lambda x: (x[x > 0], x[x[:, 0] > 0], (x > 0).nonzero()), (R(4, 5),), (R(3, 2),)),
    ("masked_select", lambda x: x.masked_select(x.mean(0) > 0), (R(4, 5),), (R(3, 2),)),
    (
        "scatter",
        lambda x, i: (x.scatter(1, i, 2.0), x.scatter_add(1, i, x), x.scatter(1, i, x * 2)),
        (R(3, 5), ints(3, 1)),
        (R(2, 6), ints(2, 1)),
    ),
    ("put", lambda x, i: x.index_put((i,), torch.tensor(7.0)), (R(6, 3), ints(4)), (R(5, 2), ints(2))),
    (
        "put_beside_a_slice",
        lambda x, i, j, v: (
            written(x, (slice(None), i, slice(None), j), v),
            written(x, (slice(None), i, slice(None), j), 7.0),
            written(x, (slice(None), i, slice(None), torch.arange(3) > 1), v[:, :1]),
            written(x, (i * 0, slice(None), j.clamp(max=1)), v[:, :1, 0, None]),
            torch.ops.aten.index_put(x, [None, i, None, j], v, True),
        ),
        (R(3, 5, 2, 3), ints(4), ints(4, high=3), R(4, 3, 2)),
        (R(2, 6, 4, 3), ints(1), ints(1, high=3), R(1, 2, 4)),
    ),
    (
        "put_rows",
        lambda x, i, v: x.index_put((i,), v, accumulate=True),
        (R(6, 3), ints(4), R(4, 3)),
        (R(5, 2), ints(2), R(2, 2)),
    ),
    (
        "index_add",
        lambda x, i, v: x.index_add(0, i, v),
        (R(6, 3), ints(4), R(4, 3)),
        (R(5, 2), ints(2), R(2, 2)),
    ),
    (
        "index_copy",
        lambda x, v: x.index_copy(1, torch.tensor([0, 2]), v),
        (R(3, 4), R(3, 2)),
        (R(2, 5), R(2, 2)),
    ),
    ("searchsorted", lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])), (R(3, 4),), (R(2, 5),)),
    ("one_hot", lambda i: F.one_hot(i, 5), (ints(3, 4),), (ints(2, 7),)),
    ("tensor_index", lambda x, i: x[i[0]], (R(5, 3), ints(2)), (R(6, 2), ints(4))),
]

LINEAR: list[Case] = [
    ("matmul", torch.matmul, (R(2, 3, 4, 5), R(5, 6)), (R(1, 2, 3, 4), R(4, 1))),
    ("matmul_vectors", lambda a, b: (a @ b, torch.dot(a, a), b @ b.mT), (R(5), R(5, 6)), (R(4), R(4, 1))),
    ("linear", lambda x: F.linear(x, torch.ones(3, 4), torch.arange(3.0)), (R(2, 5, 4),), (R(1, 1, 4),)),
    ("linear_2d", lambda x: F.linear(x, torch.ones(3, 4), torch.arange(3.0)), (R(2, 4),), (R(7, 4),)),
    (
        "addmm",
        lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2),
        (R(3), R(2, 4), R(4, 3)),
        (R(5), R(1, 2), R(2, 5)),
    ),
    (
        "baddbmm",
        lambda c, a, b: torch.baddbmm(c, a, b, alpha=2),
        (R(2, 3, 5), R(2, 3, 4), R(2, 4, 5)),
        (R(1, 2, 5), R(1, 2, 2), R(1, 2, 5)),
    ),
    (
        "einsum",
        lambda a, b: torch.einsum("bhqd,bhkd->bhqk", a, b),
        (R(2, 3, 4, 5), R(2, 3, 6, 5)),
        (R(1, 2, 1, 3), R(1, 2, 2, 3)),
    ),
    (
        "bilinear",
        lambda a, b: F.bilinear(a, b, torch.arange(24.0).view(2, 3, 4), torch.arange(2.0)),
        (R(2, 5, 3), R(2, 5, 4)),
        (R(1, 3, 3), R(1, 3, 4)),
    ),
    *[
        (
            f"cdist_{p}",
            lambda a, b, p=p: torch.cdist(a, b, p=p),
            (R(2, 5, 3), R(2, 4, 3)),
            (R(1, 30, 2), R(1, 27, 2)),
        )
        for p in (1.0, 2.0, 3.0, float("inf"))
    ],
    ("einsum_outer", lambda a, b: torch.einsum("i,j->ij", a, b), (R(4), R(5)), (R(2), R(3))),
]

IMAGES: list[Case] = [
    ("conv1d", lambda x: F.conv1d(x, torch.ones(4, 3, 3), stride=2, padding=1), (R(2, 3, 9),), (R(1, 3, 6),)),
    (
        "conv2d",
        lambda x: F.conv2d(
            x, torch.ones(4, 1, 3, 3), torch.arange(4.0), groups=2, padding=(1, 2), dilation=2
        ),
        (R(2, 2, 9, 8),),
        (R(1, 2, 7, 7),),
    ),
    (
        "conv_same",
        lambda x: F.conv2d(x, torch.ones(4, 3, 3, 3), padding="same"),
        (R(2, 3, 9, 8),),
        (R(1, 3, 5, 6),),
    ),
    (
        "conv_transpose",
        lambda x: F.conv_transpose2d(x, torch.ones(3, 4, 3, 3), stride=2, padding=1, output_padding=1),
        (R(2, 3, 4, 5),),
        (R(1, 3, 2, 2),),
    ),
    (
        "max_pool",
        lambda x: (F.max_pool2d(x, 3, 2, 1), F.max_pool2d(x, 2, ceil_mode=True)),
        (R(2, 3, 9, 8),),
        (R(1, 3, 7, 7),),
    ),
    (
        "avg_pool",
        lambda x: (F.avg_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 2, count_include_pad=False, padding=1)),
        (R(2, 3, 9, 8),),
        (R(1, 3, 7, 7),),
    ),
    (
        "pool_1d",
        lambda x: (F.max_pool1d(x, 3, 2), F.avg_pool1d(x, 2), F.adaptive_avg_pool1d(x, 3)),
        (R(2, 3, 9),),
        (R(1, 3, 7),),
    ),
    (
        "adaptive",
        lambda x: (
            F.adaptive_avg_pool2d(x, 1),
            F.adaptive_avg_pool2d(x, (2, 3)),
            F.adaptive_max_pool2d(x, 1),
        ),
        (R(2, 3, 9, 8),),
        (R(1, 3, 7, 5),),
    ),
    (
        "nearest",
        lambda x: (
            F.interpolate(x, scale_factor=2),
            F.interpolate(x, size=(5, 7)),
            F.interpolate(x, scale_factor=2, mode="nearest-exact"),
        ),
        (R(2, 3, 4, 5),),
        (R(1, 3, 6, 3),),
    ),
    (
        "bilinear",
        lambda x: (
            F.interpolate(x, scale_factor=2, mode="bilinear"),
            F.interpolate(x, size=(5, 7), mode="bilinear", align_corners=True),
            F.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=True),
            F.interpolate(x, scale_factor=1.5, mode="bicubic", align_corners=True),
        ),
        (R(2, 3, 4, 5),),
        (R(1, 3, 7, 3),),
    ),
    ("bicubic", lambda x: F.interpolate(x, size=(9, 7), mode="bicubic"), (R(2, 3, 4, 5),), (R(1, 3, 6, 3),)),
    (
        "antialias",
        lambda x: F.interpolate(x, size=(3, 4), mode="bilinear", antialias=True),
        (R(2, 3, 8, 9),),
        (R(1, 3, 6, 7),),
    ),
    (
        "to_size_of",
        lambda x, y: F.interpolate(x, size=y.shape[-2:], mode="bilinear") + y,
        (R(2, 3, 4, 5), R(2, 3, 7, 9)),
        (R(1, 3, 2, 3), R(1, 3, 6, 5)),
    ),
    (
        "grid_sample",
        lambda x, g: F.grid_sample(x, g, align_corners=False),
        (R(2, 3, 4, 5), P(2, 3, 3, 2) * 2 - 1),
        (R(1, 3, 6, 3), P(1, 2, 4, 2) * 2 - 1),
    ),
]

NORMS: list[Case] = [
    (
        "layer_norm",
        lambda x: F.layer_norm(x, (4,), torch.ones(4), torch.arange(4.0)),
        (R(2, 3, 4),),
        (R(1, 5, 4),),
    ),
    ("layer_norm_plain", lambda x: F.layer_norm(x, (3, 4)), (R(2, 3, 4),), (R(5, 3, 4),)),
    (
        "group_norm",
        lambda x: F.group_norm(x, 2, torch.arange(4.0), torch.ones(4)),
        (R(2, 4, 5, 3),),
        (R(1, 4, 2, 2),),
    ),
    (
        "batch_norm",
        lambda x: F.batch_norm(x, torch.zeros(3), torch.ones(3) * 2, torch.ones(3), torch.arange(3.0)),
        (R(2, 3, 4),),
        (R(1, 3, 7),),
    ),
    ("instance_norm", lambda x: F.instance_norm(x), (R(2, 3, 4, 5),), (R(1, 3, 2, 7),)),
    ("rms_norm", lambda x: F.rms_norm(x, (4,), torch.arange(4.0)), (R(2, 3, 4),), (R(1, 5, 4),)),
]

CREATION: list[Case] = [
    unary(
        "filled",
        lambda x: (
            torch.zeros(x.shape[0], 2),
            torch.ones_like(x),
            torch.full((2, x.shape[1]), 3.5),
            x.new_zeros(x.shape[1]),
        ),
    ),
    unary(
        "ranges",
        lambda x: (
            torch.arange(x.shape[1]),
            torch.arange(1, x.shape[0], 2),
            torch.arange(x.shape[0], dtype=torch.float32) * 0.5,
        ),
    ),
    unary(
        "constants",
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]).sum() + torch.linspace(0, 1, 5).mean() + math.pi,
    ),
    unary("eye", lambda x: (torch.eye(x.shape[1]), torch.eye(3) @ torch.ones(3, 3))),
    unary("sizes", lambda x: (x * x.shape[1], x / x.shape[0], torch.scalar_tensor(x.shape[2]) + x.mean())),
]

FAMILIES = {
    "elementwise": ELEMENTWISE,
    "reduce": REDUCTIONS,
    "shape": SHAPES,
    "index": INDEXING,
    "linear": LINEAR,
    "image": IMAGES,
    "norm": NORMS,
    "create": CREATION,
}
CASES = [pytest.param(*c[1:], id=f"{family}-{c[0]}") for family, cases in FAMILIES.items() for c in cases]


@pytest.mark.parametrize(("function", "example", "other"), CASES)
def test_row(function: Any, example: Any, other: Any) -> None:
    """The exported function equals torch on the example and on other sizes."""
    parity(function, example, other)


def test_masked_scatter_of_nothing() -> None:
    """A source without elements is right for a mask that holds nowhere."""

    def f(x: torch.Tensor, mask: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        return x.masked_scatter(mask, source[mask])

    some, none = P(3, 4) > 0.5, torch.zeros(3, 4, dtype=torch.bool)
    parity(f, (R(3, 4), some, R(3, 4)), (R(3, 4), none, R(3, 4)))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample_outside_of_the_image(mode: str, padding: str, align_corners: bool) -> None:
    """Places up to twice as far from the centre as the edge, and some far away."""

    def sample(x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return F.grid_sample(x, grid, mode, padding, align_corners)

    def inputs(n: int, h: int, w: int, m: int) -> tuple[torch.Tensor, ...]:
        grid = P(n, 20, m, 2) * 4 - 2
        grid[:, 0] *= 20
        return R(n, 3, h, w), grid

    parity(sample, inputs(2, 4, 5, 6), inputs(1, 6, 3, 5), inputs(3, 2, 9, 4))


def test_samples_are_not_computed_for_their_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's Python would work out each neighbour of each sample, which takes seconds."""
    asked: list[str] = []
    fake = dispatch._fake

    def counted(g: Any, func: Any, *rest: Any) -> Any:
        asked.append(str(func))
        return fake(g, func, *rest)

    monkeypatch.setattr(dispatch, "_fake", counted)
    inputs = R(2, 3, 4, 5), P(2, 6, 7, 2)
    capture(lambda x, grid: F.grid_sample(x, grid, "bicubic", align_corners=False), inputs)
    assert not [name for name in asked if "grid_sampler" in name]


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "amax", "amin"])
def test_scatter_reduce(reduce: str, dtype: torch.dtype, include_self: bool) -> None:
    """Places written once, often and never; negative means of integers are rounded down."""

    def reduced(x: torch.Tensor, index: torch.Tensor, src: torch.Tensor) -> torch.Tensor:
        return x.scatter_reduce(1, index, src, reduce, include_self=include_self)

    def inputs(n: int, m: int, k: int) -> tuple[torch.Tensor, ...]:
        x, src = (R(n, m) * 9).to(dtype), (R(n, k + 1) * 9).to(dtype)
        return x, ints(n, k, high=m - 1), src

    parity(reduced, inputs(3, 5, 6), inputs(2, 9, 4))


@pytest.mark.parametrize("kind", ["causal", "bool", "float", "gqa", "none"])
@pytest.mark.parametrize("opset", [20, 23])
def test_attention(kind: str, opset: int) -> None:
    """Scaled dot-product attention with each kind of mask, below and from opset 23."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        options: dict[str, Any] = {
            "causal": {"is_causal": True},
            "bool": {"attn_mask": mask > 0},
            "float": {"attn_mask": mask},
            "gqa": {"enable_gqa": True},
            "none": {"scale": 0.3},
        }[kind]
        return F.scaled_dot_product_attention(q, k, v, **options) + mask.mean()

    def inputs(b: int, n: int, m: int) -> tuple[torch.Tensor, ...]:
        mask = R(b, 1, n, m)
        mask[..., 0] = 1
        heads = 2 if kind == "gqa" else 4
        return R(b, 4, n, 8), R(b, heads, m, 8), R(b, heads, m, 8), mask

    captured = parity(attend, inputs(2, 5, 5), inputs(1, 3, 3), inputs(3, 7, 7), opset=opset)
    assert ("Attention" in op_types(captured)) == (opset >= 23)


@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_a_mask_of_one_column_is_every_keys(dtype: torch.dtype, opset: int) -> None:
    """ONNX's Attention takes such a mask for one that hides the keys behind the first."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def inputs(n: int, m: int) -> tuple[torch.Tensor, ...]:
        mask = torch.arange(n)[:, None] != 1 if dtype == torch.bool else R(n, 1)
        return R(2, 4, n, 8), R(2, 4, m, 8), R(2, 4, m, 8), mask

    parity(attend, inputs(5, 7), inputs(3, 4), opset=opset)


def test_fully_masked_rows_are_zero() -> None:
    """A query that may look at nothing gets zeros from torch, not NaN."""
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    mask[:, :, 2] = False

    def attend(q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, q, q, attn_mask=mask)

    parity(attend, (R(1, 2, 4, 8), mask))


@pytest.mark.parametrize("cell", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN])
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}, {"bias": False}]
)
def test_recurrent(cell: Any, options: dict[str, Any]) -> None:
    """Layers, directions, with and without biases."""
    parity(cell(5, 6, **options), (R(7, 3, 5),), (R(2, 4, 5),))


@pytest.mark.parametrize("opset", [18, 20, 21, 23])
def test_whole_operators_by_opset(opset: int) -> None:
    """What the opset has is one node; what it has not is spelled out and still equal."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 3)
            self.norm = torch.nn.GroupNorm(2, 8)
            self.rms = torch.nn.RMSNorm(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rms(F.gelu(self.norm(self.conv(x))).movedim(1, -1))

    types = op_types(parity(Net(), (R(2, 3, 6, 7),), (R(1, 3, 5, 5),), opset=opset))
    assert ("Gelu" in types) == (opset >= 20)
    assert ("GroupNormalization" in types) == (opset >= 21)
    assert ("RMSNormalization" in types) == (opset >= 23)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding", [None, 4])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bag(mode: str, last: bool, padding: int | None, dtype: torch.dtype) -> None:
    """The end of the last bag is read where torch reads it."""
    weight = R(10, 4, dtype=dtype)

    def bags(i: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return F.embedding_bag(i, weight, offsets, mode=mode, include_last_offset=last, padding_idx=padding)

    parity(
        bags,
        (torch.arange(6), torch.tensor([0, 1, 3])),
        (torch.tensor([9, 4, 4, 2, 1]), torch.tensor([0, 0, 2, 5])),
    )


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("last", [False, True])
def test_offsets_are_drawn_as_offsets(mode: str, last: bool) -> None:
    """Verification tries no offsets that fall or lie outside, which torch makes nonsense of."""
    weight = R(10, 4)

    def bags(i: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return F.embedding_bag(i, weight, offsets.long(), mode=mode, include_last_offset=last)

    example = (torch.arange(6), torch.tensor([0, 1, 3], dtype=torch.int32))
    program = ingot.export(bags, example)
    assert program.verification is not None
    assert any(c.sizes["offsets_batch"] != 3 for c in program.verification.cases), "other sizes were tried"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_shifts_to_the_left(dtype: torch.dtype) -> None:
    """Bits that leave the dtype are lost, in files that ONNX's checker takes."""
    x = torch.tensor([0, 1, 3, 100, 127], dtype=dtype)
    by = torch.tensor([0, 1, 7, 2, 5], dtype=dtype)
    parity(lambda x, by: (x << 1, x << by, torch.bitwise_left_shift(x, by)), (x, by))


def test_shifts_to_the_right() -> None:
    """Also by as many bits as there are, and of negative numbers."""
    x = torch.tensor([0, 1, -1, 100, -128, 127, -(1 << 62), (1 << 62) + 3])
    counts = torch.tensor([0, 1, 70, 3, 2, 63, 62, -1])
    parity(lambda a, b: (a >> b, a >> 2, a.int() >> b.int() % 32), (x, counts), (x[:3], counts[2:5]))
    parity(lambda a: (a.to(torch.uint8) >> 3, a.to(torch.int8) >> 7), (x,), (x[:3],))


def test_common_divisors() -> None:
    """Of zeros, negative numbers, and the pair that Euclid's algorithm takes longest for."""
    x = torch.tensor([0, 4, -15, 0, 12200160415121876738 - (1 << 63), 7540113804746346429])
    y = torch.tensor([0, 0, 5, -3, 12, 4660046610375530309])
    parity(lambda a, b: (torch.gcd(a, b), torch.gcd(a, b[:1])), (x, y), (y[:3], x[2:5]))
    parity(lambda a, b: torch.lcm(a.int(), b.int()), (ints(4), ints(4)), (ints(6), -ints(6)))


def test_bincount() -> None:
    """Data decides how many counts there are; a negative number fails."""
    x, other = torch.tensor([1, 2, 2, 5, 0]), torch.tensor([7, 7])
    counted = parity(lambda i: torch.bincount(i), (x,), (other,), (torch.zeros(0, dtype=torch.int64),))
    parity(lambda i, w: i.bincount(w, minlength=7), (x, R(5)), (other, R(2)))
    ingot.export(lambda i, w: torch.bincount(i, w, minlength=9), (x, R(5)))  # verified: never of nothing
    with pytest.raises(OrtError):
        ort_runner(counted.model)({"i": np.array([1, -1])}, counted.output_names)
