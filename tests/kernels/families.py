"""The calls of the catalogue in variants.py: each family of kernels through its public functions, over what
changes the code: register tiles, widths, masks, dtypes, epilogues, strides, windows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine
from ingot.kernels import loose_dims, loose_elements, loose_fused
from ingot.kernels.argreduce import argreduce
from ingot.kernels.arrange import cumulative, one_hot
from ingot.kernels.attention import attention
from ingot.kernels.boxes import roi_align, roi_pool
from ingot.kernels.call import Block, Call, View, Weights, strides_in_order
from ingot.kernels.contract import Epilogue, Numbers
from ingot.kernels.contraction import DTYPES as CONTRACTED
from ingot.kernels.contraction import Dim, contraction
from ingot.kernels.control import branch, loop
from ingot.kernels.conv import IntegerConvWeights, conv2d, integer_conv2d, pack_conv_weights
from ingot.kernels.copy import copy
from ingot.kernels.coupling import coupling
from ingot.kernels.depthwise import depthwise_conv2d, pack_depthwise, suits_groups
from ingot.kernels.determinant import determinant
from ingot.kernels.elementwise import elementwise, fill
from ingot.kernels.expression import Expression, Step
from ingot.kernels.few_bits import MOST_ROWS, few_bits
from ingot.kernels.few_bits_integers import few_bits_integers, pack_few_bits
from ingot.kernels.gather import gather, gather_elements, gather_nd, scatter_elements, scatter_nd
from ingot.kernels.gemm import integer_matmul, matmul
from ingot.kernels.interpolate import Source, interpolate_sum
from ingot.kernels.linear_attention import linear_attention
from ingot.kernels.loose_loop import append, keep, link, once, only_one, rounds
from ingot.kernels.loose_loop import branch as loose_branch
from ingot.kernels.loose_plan import planned
from ingot.kernels.normalize import group_norm, layer_norm, normalize
from ingot.kernels.order import topk, topk_counted
from ingot.kernels.pack import pack_weights
from ingot.kernels.pool import average_pool, lp_pool, max_pool
from ingot.kernels.recurrent import Sequences, pack_recurrent, recurrent, through_steps
from ingot.kernels.recurrent_integers import pack_integer_states
from ingot.kernels.reduce import ANY_NUMBER, FLOAT_ONLY, reduce
from ingot.kernels.resize import identity_taps, resize, taps
from ingot.kernels.sample import deformed_columns, grid_sample
from ingot.kernels.select import compress, nonzero
from ingot.kernels.sliced import SlicedConvWeights, slice_matrix, sliced_conv2d, sliced_matmul
from ingot.kernels.softmax import softmax
from ingot.kernels.strassen import pack_sums, strassen_matmul
from ingot.kernels.suppress import suppress
from ingot.kernels.trees import Forest, forest
from ingot.kernels.unique import unique
from ingot.kernels.units import pack_factor_calls, pack_integers
from ingot.kernels.winograd import winograd_conv2d
from ingot.kernels.winograd_pack import pack_winograd
from ingot.kernels.winograd_scheme import schemes, upright
from tests.kernels.run import new

# ---- what goes into calls ----------------------------------------------------------------------------------

F = "float32"
LAST, FIRST = (0, 2, 3, 1), (0, 1, 2, 3)  # where an image's channels lie in memory
_ONE = (Step("Add", (0, 1), F), Step("Relu", (2,), F))
_GELU = (Step("Add", (0, 1), F), Step("Gelu", (3,), F), Step("Add", (4, 2), F))
_SILU = (Step("Add", (0, 1), F), Step("Sigmoid", (3,), F), Step("Mul", (3, 4), F), Step("Mul", (5, 2), F))
_HALF = (Step("Add", (0, 1), F), Step("Cast", (2,), "float16"))
#: Steps of an epilogue, and its operands: "channel" (a bias), "all" (a residual).
EPILOGUES: dict[str, tuple[tuple[Step, ...], tuple[str, ...]]] = {
    "none": ((), ()),
    "relu": (_ONE, ("channel",)),
    "gelu+residual": (_GELU, ("channel", "all")),
    "silu·all": (_SILU, ("channel", "all")),
    "half": (_HALF, ("channel",)),
}


def after(name: str, shape: Sequence[int], channel: int, order: Sequence[int]) -> Epilogue | None:
    """The epilogue of that name for an output of `shape`, whose dimension `channel` has a bias."""
    steps, operands = EPILOGUES[name]
    if not steps:
        return None
    bias = tuple(n if d == channel else 1 for d, n in enumerate(shape))
    views = [
        new(bias) if kind == "channel" else new(shape, F, strides_in_order(shape, order)) for kind in operands
    ]
    return Epilogue(Expression((F,) * (1 + len(views)), steps, (len(views) + len(steps),)), views)


def result(name: str, shape: Sequence[int], order: Sequence[int]) -> View:
    """An output for that epilogue."""
    return new(shape, "float16" if name == "half" else F, strides_in_order(shape, order))


def image(shape: Sequence[int], order: Sequence[int] = LAST, dtype: str = F) -> View:
    """[N, C, H, W] in that order of memory."""
    return new(shape, dtype, strides_in_order(shape, order))


def ones(*shape: int) -> np.ndarray:
    """Constant weights."""
    return np.ones(shape, np.float32)


# ---- families ----------------------------------------------------------------------------------------------


def strassen_products(machine: Machine) -> Iterator[Call]:
    """Tiles of every height that bands have, the last one with a row less; a last panel that is masked."""
    lanes = machine.lanes
    for n in (4 * lanes, 4 * lanes - 1):
        weights = pack_weights(ones(2 * lanes, n), machine)
        sums = pack_sums(weights, machine)
        heights = [(m, "none") for m in range(36, 57, 2)]
        for m, name in (*heights, *((37, name) for name in EPILOGUES), (36, "gelu+residual")):
            end = after(name, (m, n), 1, (0, 1))
            yield from (
                strassen_matmul(
                    new((m, 2 * lanes)), weights, sums, result(name, (m, n), (0, 1)), end, machine
                )
                or ()
            )


def products(machine: Machine) -> Iterator[Call]:
    """Register tiles of every height and width, whole and masked; the orders of both factors."""
    lanes = machine.lanes
    weights = {n: pack_weights(ones(24, n), machine) for n in (lanes - 1, lanes, 2 * lanes, 3 * lanes + 1)}
    for m, n in itertools.product((*range(1, 15), 28, 57), weights):
        yield from matmul(new((m, 24)), weights[n], new((m, n)), None, machine)
    for name, m, n in itertools.product(EPILOGUES, (1, 6, 14), (2 * lanes, 3 * lanes + 1)):
        out = result(name, (m, n), (0, 1))
        yield from matmul(new((m, 24)), weights[n], out, after(name, (m, n), 1, (0, 1)), machine)
    # Columns that lie side by side, gaps, half precision, large outputs, long weights, an unknown factor.
    m, n, bias = 14, 2 * lanes, after("relu", (14, 2 * lanes), 0, (0, 1))
    for a in (
        new((m, 24), F, (1, m)),
        new((m, 24), F, (80, 3)),
        new((m, 24), "float16"),
        new((m, 24), "bfloat16"),
    ):
        for b in (
            weights[n],
            new((24, n)),
            new((24, n), F, (1, 24)),
            new((24, n), F, (n * 9, 3)),
            new((24, n), "float16"),
        ):
            yield from matmul(a, b, new((m, n)), None, machine)
    yield from matmul(new((m, 24)), weights[n], new((m, n), F, columns_of((m, n))), bias, machine)
    yield from matmul(new((m, 24)), weights[n], new((m, n), F, (n * 3, 3)), bias, machine)
    wide = pack_weights(ones(64, 4096), machine)
    for m in (1, 3, 8, 14, 200):
        yield from matmul(
            new((m, 64)), wide, new((m, 4096)), after("gelu+residual", (m, 4096), 1, (0, 1)), machine
        )
    for n in (1, 7, lanes):  # batches
        yield from matmul(new((2, 3, 20, 16)), new((2, 3, 16, n)), new((2, 3, 20, n)), None, machine)
    for dtype in (np.float16, "bfloat16"):
        kind: Any = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        for b in (np.ones((24, n), kind), np.ones((n, 24), kind).T, np.ones((24, 3 * n), kind)[:, ::3]):
            pack_weights(b, machine)


def contractions(machine: Machine) -> Iterator[Call]:
    """Products of every dtype: tiles of each height, few rows in place, whole and scattered columns."""
    for dtype, m, n in itertools.product(CONTRACTED, (1, 2, 3, 4, 7, 12, 24, 200), (3, 1000)):
        a, b, out = new((m, 24), dtype), new((24, n), dtype), new((m, n), dtype)
        for column, row in ((1, n), (24, 1)):
            dims = [Dim(m, 24, 0, n), Dim(n, 0, column, 1), Dim(24, 1, row, None)]
            yield from contraction(a, b, out, dims, machine)
        dims = [Dim(m, 24, 0, 1), Dim(n, 0, 1, m), Dim(24, 1, n, None)]
        yield from contraction(a, b, out, dims, machine)


def columns_of(shape: tuple[int, int]) -> tuple[int, int]:
    """Strides of a matrix whose columns lie side by side."""
    return (1, shape[0])


def convolutions(machine: Machine) -> Iterator[Call]:
    """The image in place and packed, as blocks and as lines; windows, strides, groups, epilogues."""

    def one(
        x: Sequence[int], o: int, kernel: tuple[int, int], stride: int, pad: int, *, dilation: int = 1,
        groups: int = 1, order: Sequence[int] = LAST, epilogue: str = "none", dtype: str = F,
    ) -> list[Call]:  # fmt: skip
        reach = [x[2 + d] + 2 * pad - (kernel[d] - 1) * dilation - 1 for d in range(2)]
        shape = (x[0], o, reach[0] // stride + 1, reach[1] // stride + 1)
        weights = pack_conv_weights(ones(o, x[1] // groups, *kernel), machine, groups)
        out, end = result(epilogue, shape, order), after(epilogue, shape, 1, order)
        return conv2d(
            image(x, order, dtype), weights, out, (stride,) * 2, (pad,) * 4, (dilation,) * 2, end, machine
        )

    lanes = machine.lanes
    for width, o in itertools.product((1, 3, 7, 14, 20, 28, 57), (lanes, 2 * lanes, 3 * lanes + 1)):
        yield from one((1, 32, width, width), o, (3, 3), 1, 1)
    for kernel, stride, pad in itertools.product(
        ((1, 1), (3, 3), (5, 5), (7, 7), (1, 4), (4, 4)), (1, 2, 4), (0, 1)
    ):
        for channels, order in itertools.product((3, 32), (LAST, FIRST)):
            yield from one((1, channels, 28, 28), 40, kernel, stride, pad, order=order)
    for name, order in itertools.product(EPILOGUES, (LAST, FIRST)):
        for kernel in ((1, 1), (3, 3)):
            yield from one(
                (1, 32, 14, 14), 3 * lanes + 1, kernel, 1, kernel[0] // 2, order=order, epilogue=name
            )
    yield from one((1, 64, 14, 14), 64, (3, 3), 1, 2, dilation=2)
    yield from one((1, 64, 14, 14), 64, (3, 3), 1, 0, dilation=2)
    yield from one((1, 96, 14, 14), 96, (3, 3), 1, 1, groups=3)
    yield from one((1, 96, 14, 14), 96, (1, 1), 1, 0, groups=3)
    yield from one((1, 32, 14, 14), 64, (3, 3), 1, 1, dtype="float16")
    yield from one((8, 64, 112, 112), 64, (3, 3), 2, 1)


def winograds(machine: Machine) -> Iterator[Call]:
    """Strips with their own input and with a shared one; panels of one vector and two; epilogues; squares,
    columns and rows.
    """
    lanes = machine.lanes
    sizes = ((1, 64, 56), (1, 33, 14), (3, 32, 7), (1, 16, 5))
    outers = (lanes, 2 * lanes, 3 * lanes + 1)
    kernels = ((3, 3), (5, 5), (1, 3), (5, 1))
    for (n, inner, size), outer, kernel in itertools.product(sizes, outers, kernels):
        pads = (kernel[0] // 2, kernel[1] // 2) * 2
        for scheme, order in itertools.product(schemes(upright(kernel)), (LAST, FIRST)):
            weights = pack_winograd(ones(outer, inner, *kernel), scheme, machine)
            shape = (n, outer, size, size)
            for name in EPILOGUES if inner == 33 else ("none",):
                end = after(name, shape, 1, order)
                x = image((n, inner, size, size), order)
                for dtype in ("float16", "bfloat16") if name == "none" else ():
                    half = new(x.shape, dtype, x.strides)
                    yield from winograd_conv2d(half, weights, new(shape, dtype), pads, None, machine)
                yield from winograd_conv2d(x, weights, result(name, shape, order), pads, end, machine)


def slices(machine: Machine) -> Iterator[Call]:
    """Products and convolutions on tile registers."""
    if not machine.tiles:
        return
    for m, n in itertools.product((1, 14, 16, 17, 40, 128), (16, 32, 40, 47)):
        weights = slice_matrix(ones(100, n), machine)
        assert weights is not None
        for name, dtype in itertools.product(EPILOGUES, (F, "float16")):
            end = after(name, (m, n), 1, (0, 1))
            yield from (
                sliced_matmul(new((m, 100), dtype), weights, result(name, (m, n), (0, 1)), end, machine) or []
            )
        apart = new((m, n), F, (n * 3, 3))
        yield from sliced_matmul(new((m, 100)), weights, apart, None, machine) or []
    for kernel, stride, n in itertools.product((1, 3, 5), (1, 2), (16, 32, 40, 47)):
        pad = kernel // 2
        weights = SlicedConvWeights(ones(n, 24, kernel, kernel), (stride,) * 2, (1, 1), machine)
        side = (28 + 2 * pad - kernel) // stride + 1
        for name, order in itertools.product(EPILOGUES, (LAST, FIRST)):
            shape = (1, n, side, side)
            out, end = result(name, shape, order), after(name, shape, 1, order)
            yield from sliced_conv2d(image((1, 24, 28, 28)), weights, out, (pad,) * 4, end, machine)


def depthwises(machine: Machine) -> Iterator[Call]:
    """Windows of one channel and of few, in blocks and in rows."""
    kernels = ((3, 3), (5, 5), (7, 7), (1, 3), (3, 1), (1, 15), (9, 9), (1, 31), (15, 15))
    cases = [(k, s, d, 14) for k in kernels for s in (1, 2) for d in (1, 2)]
    cases += [(k, s, 1, size) for k in kernels[:3] for s in (1, 2) for size in (7, 28, 56)]
    for kernel, stride, dilation, size in cases:
        pads = [(n - 1) * dilation // 2 for n in kernel] * 2
        side = [(size + 2 * pads[d] - (kernel[d] - 1) * dilation - 1) // stride + 1 for d in range(2)]
        if min(side) < 1:
            continue
        for group, channels in ((1, 96), (1, 37), (4, 64)):
            if group > 1 and not suits_groups((channels, group, *kernel), channels // group, machine):
                continue
            weights = pack_depthwise(ones(channels, group, *kernel), machine)
            for name in EPILOGUES if kernel == (3, 3) or kernel == (9, 9) else ("none", "relu"):
                shape = (1, channels, *side)
                out, end = result(name, shape, LAST), after(name, shape, 1, LAST)
                x, steps, apart = image((1, channels, size, size)), (stride,) * 2, (dilation,) * 2
                yield from depthwise_conv2d(x, weights, out, steps, (*pads,), apart, end, machine)
                if name == "none":
                    half = new(x.shape, "float16", x.strides)
                    yield from depthwise_conv2d(half, weights, out, steps, (*pads,), apart, None, machine)
    for order in itertools.product((LAST, FIRST), (LAST, FIRST)):
        for kernel in ((3, 3), (15, 15)):
            weights = pack_depthwise(ones(64, 1, *kernel), machine)
            x, out, pads = (
                image((1, 32, 14, 14), order[0]),
                image((1, 64, 14, 14), order[1]),
                (kernel[0] // 2,) * 4,
            )
            yield from depthwise_conv2d(x, weights, out, (1, 1), pads, (1, 1), None, machine)


def pools(machine: Machine) -> Iterator[Call]:
    """The largest, the mean and norms of windows, in blocks, by axis, and in rows."""
    for (kernel, stride), (channels, order, after) in itertools.product(
        ((2, 2), (3, 2), (3, 1), (5, 1), (8, 8), (13, 1)),
        ((64, LAST, LAST), (37, LAST, LAST), (64, FIRST, LAST), (64, FIRST, FIRST)),
    ):
        side = (28 - kernel) // stride + 1
        x, out = image((1, channels, 28, 28), order), image((1, channels, side, side), after)
        window = ((kernel,) * 2, (stride,) * 2, (0,) * 4, (1, 1))
        yield from max_pool(x, out, *window, machine)
        yield from average_pool(x, out, *window, True, machine)
        for p in (1, 2):
            yield from lp_pool(x, out, p, *window, machine)
        half = new(x.shape, "float16", x.strides)
        yield from max_pool(half, new(out.shape, "float16", out.strides), *window, machine)
    yield from max_pool(new((1, 8, 60)), new((1, 8, 1)), (60,), (1,), (0, 0), (1,), machine)
    wide = image((1, 32, 60, 60))
    yield from max_pool(wide, image((1, 32, 58, 1)), (3, 60), (1, 1), (0,) * 4, (1, 1), machine)
    yield from average_pool(wide, image((1, 32, 58, 1)), (3, 60), (1, 1), (0,) * 4, (1, 1), True, machine)


def attentions(machine: Machine) -> Iterator[Call]:
    """Few queries and many, short and long keys, every mask, with and without tile registers."""

    def one(
        n: int, length: int, d: int, dv: int, mask: View | None = None, *, spread: bool = False, **more: Any
    ) -> list[Call]:  # fmt: skip
        def of(rows: int, depth: int) -> View:
            shape = (1, 2, rows, depth)
            return new(shape, F, strides_in_order(shape, (0, 2, 1, 3))) if spread else new(shape)

        return attention(of(n, d), of(length, d), of(length, dv), mask, of(n, dv), 0.1, machine, **more)

    for n, length in itertools.product((1, 4, 5, machine.lanes + 3, 128), (1, 3, 7, 13, 50, 197, 300)):
        yield from one(n, length, 64, 64)
    for d, dv in itertools.product((1, 20, 32, 64, 80, 128), repeat=2):
        if d == dv or 64 in (d, dv):
            for n in (1, 128):
                yield from one(n, 128, d, dv)
                yield from one(n, 128, d, dv, amx=True, spread=True)
    for n, dtype in itertools.product((1, 3, 40, 100), (F, "bool")):
        for mask in (
            new((1, 1, n, 77), dtype),
            new((1, 1, 1, 77), dtype),
            new((1, 1, n, 77), dtype, (0, 0, 1, n)),
        ):
            for more in ({}, {"causal_offset": 3}, {"softcap": 5.0}, {"empty_is_zero": False}):
                yield from one(n, 77, 64, 64, mask, **more)
                yield from one(n, 77, 64, 64, mask, amx=True, **more)
    for n, more in itertools.product((1, 64), ({"causal_offset": 0}, {"softcap": 5.0}, {"spread": True})):
        yield from one(n, 128, 64, 64, **more)
        yield from one(n, 128, 64, 64, amx=True, **more)
    yield from one(64, 3000, 64, 64, amx=True)


UNARY = (
    "Abs", "Neg", "Relu", "Sqrt", "Reciprocal", "Exp", "Log", "Tanh", "Erf", "Sigmoid", "Gelu", "Swish",
    "Softplus", "Sin", "Cos", "Floor", "Round", "Sign", "HardSwish", "HardSigmoid", "Elu", "Selu",
    "LeakyRelu", "Mish", "Softsign",
)  # fmt: skip


def elements(machine: Machine) -> Iterator[Call]:
    """Functions, typical groups, dtypes and classes of strides."""

    def one(steps: Sequence[Step], leaves: Sequence[View], *, strides: Sequence[int] | None = None) -> Call:
        dtypes = tuple(v.dtype.name for v in leaves)
        expression = Expression(dtypes, tuple(steps), (len(leaves) + len(steps) - 1,))
        shape = np.broadcast_shapes(*(v.shape for v in leaves))
        return elementwise(expression, leaves, [new(shape, expression.result_dtypes[0], strides)], machine)

    for op in UNARY:
        yield one([Step(op, (0,), F)], [new((4096,))])
    for op in ("Exp", "Tanh", "Erf", "Sigmoid", "Gelu"):
        for dtype in ("float16", "bfloat16", "float64"):
            yield one([Step(op, (0,), dtype)], [new((4096,), dtype)])
        yield one([Step(op, (0,), F)], [new((64, 100), F, (300, 3))])
    for op, dtype in itertools.product(("Add", "Sub", "Mul", "Div", "Pow", "Max"), (F, "int64", "int32")):
        if op == "Pow" and dtype != F:
            continue
        full, row, column, one_ = (new(s, dtype) for s in ((64, 96), (96,), (64, 1), (1,)))
        for other in (full, row, column, one_, new((64, 96), dtype, (1, 64))):
            yield one([Step(op, (0, 1), dtype)], [full, other])
    for a, b in itertools.permutations(
        (F, "float16", "bfloat16", "float64", "int8", "uint8", "int32", "int64", "bool"), 2
    ):
        yield one([Step("Cast", (0,), b)], [new((1000,), a)])
    three = [new((64, 96)), new((96,)), new((64, 96))]
    for steps in (_GELU, _SILU):
        yield one(steps, three)
    yield one(
        [
            Step("Less", (0, 1), "bool"),
            Step("Where", (3, 0, 2), F),
            Step("Tanh", (4,), F),
            Step("Exp", (5,), F),
        ],
        [new((64, 96)), new((1,)), new((64, 96))],
    )
    for dtype in (F, "int64", "bool"):
        yield fill(1, new((1000,), dtype), machine)


def rows(machine: Machine) -> Iterator[Call]:
    """Softmax and normalisations along and across vectors, short and long, with what is fused."""
    lanes = machine.lanes
    scale = Expression((F, F), (Step("Mul", (0, 1), F),), (2,))
    masked = Expression((F, F, F), (Step("Mul", (0, 1), F), Step("Add", (3, 2), F)), (4,))
    for n in (7, lanes, 2 * lanes, 2 * lanes + 3, 4 * lanes, 8 * lanes, 12 * lanes, 16 * lanes, 1000):
        x, weight = new((64, n)), new((n,))
        for log in (False, True):
            yield softmax(x, new(x.shape), 1, machine, log=log)
        yield softmax(x, new(x.shape), 1, machine, operands=[new((1,)), new(x.shape)], prologue=masked)
        yield softmax(x, new(x.shape), 1, machine, extras=[new(x.shape)], epilogue=scale)
        yield layer_norm(x, weight, weight, new(x.shape), 1, 1e-5, machine)
        yield layer_norm(x, weight, None, new(x.shape), 1, 1e-5, machine, rms=True)
        yield layer_norm(
            x, weight, weight, new(x.shape), 1, 1e-5, machine, residual=new(x.shape), total=new(x.shape)
        )
        for kind in ("l1", "l2"):
            yield normalize(kind, x, new(x.shape), (1,), machine)
    for n in (2, 10, 40, 400):
        x = new((n, 512))
        yield softmax(x, new(x.shape), 0, machine)
        yield softmax(x, new(x.shape), 0, machine, log=True)
        yield normalize("variance", x, new(x.shape), (0,), machine)
        yield normalize("l2", x, new(x.shape), (0,), machine)
    for order in (LAST, FIRST):
        x, weight = image((2, 32, 14, 14), order), new((32,))
        for groups in (4, 32):
            yield group_norm(x, weight, weight, groups, image(x.shape, order), 1e-5, machine)
    for dtype in ("float16", "bfloat16", "float64"):
        x, weight = new((64, 768), dtype), new((768,), dtype)
        yield softmax(x, new(x.shape, dtype), 1, machine)
        yield layer_norm(x, weight, weight, new(x.shape, dtype), 1, 1e-5, machine)
    apart = new((64, 100), F, (300, 3))
    yield softmax(apart, new(apart.shape), 1, machine)
    yield layer_norm(apart, None, None, new(apart.shape), 1, 1e-5, machine)


def reductions(machine: Machine) -> Iterator[Call]:
    """Each reduction along, across and both, of the dtypes it has; indices of extremes; running sums."""
    squared = Expression((F, F), (Step("Sub", (0, 1), F), Step("Mul", (2, 2), F)), (3,))
    shapes = (((64, 768), (1,)), ((64, 768), (0,)), ((64, 21), (1,)), ((9, 40), (0,)), ((4, 6, 50), (0, 2)))
    for op, (shape, axes) in itertools.product((*FLOAT_ONLY, *ANY_NUMBER), shapes):
        kept = tuple(n for d, n in enumerate(shape) if d not in axes)
        for dtype in (F, "float16", "float64") if op in FLOAT_ONLY else (F, "int32", "int64"):
            yield reduce(op, [new(shape, dtype)], axes, new(kept, dtype), machine)
        yield reduce(op, [new(shape), new(shape)], axes, new(kept), machine, prologue=squared)
    for op in (*FLOAT_ONLY, *ANY_NUMBER):  # strips of columns
        yield reduce(op, [new((8192, 500))], (0,), new((500,)), machine)
    pooled = image((2, 64, 14, 14))
    yield reduce("ReduceMean", [pooled], (2, 3), new((2, 64)), machine)
    yield reduce("ReduceMean", [image(pooled.shape, FIRST)], (2, 3), new((2, 64)), machine)
    for (shape, axis), largest, last in itertools.product(
        (((64, 1000), 1), ((64, 1000), 0), ((64, 5), 1)), (True, False), (True, False)
    ):
        for dtype in (F, "float16", "float64", "int64", "uint8"):
            out = new((shape[1 - axis],), "int64")
            yield argreduce(new(shape, dtype), axis, out, machine, largest=largest, last=last)
    for axis, exclusive, reverse in itertools.product((0, 1), (False, True), (False, True)):
        for dtype in (F, "int64", "float16"):
            x, out = new((40, 50), dtype), new((40, 50), dtype)
            yield cumulative(x, out, axis, machine, exclusive=exclusive, reverse=reverse)
        yield cumulative(x, out, axis, machine, product=True)


def copies(machine: Machine) -> Iterator[Call]:
    """Transposes of each size of element, copies with gaps; what places elements elsewhere by position."""
    for dtype in ("uint8", "float16", F, "float64"):
        for order in ((1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0)):
            x = new((48, 50, 40), dtype).transpose(order)
            yield copy(x, new(x.shape, dtype), machine)
        yield copy(new((96, 160), dtype).transpose((1, 0)), new((160, 96), dtype), machine)
        yield copy(new((40, 50), dtype, (300, 3)), new((40, 50), dtype), machine)
        yield copy(new((40, 50), dtype), new((40, 50), dtype, (300, 3)), machine)
        yield copy(new((40, 1), dtype), new((40, 50), dtype), machine)
        for run in (2, 3, 4, 7, 20):
            x = new((3, 5, 6, run), dtype)
            yield copy(x.transpose((0, 2, 1, 3)), new((3, 6, 5, run), dtype), machine)
        for channels in (2, 3, 4):
            x, planes = new((2, 900, channels), dtype), new((2, channels, 900), dtype)
            yield copy(x.transpose((0, 2, 1)), planes, machine)
            yield copy(planes.transpose((0, 2, 1)), x, machine)
    for axis in (0, 2):
        yield one_hot(
            new((4, 21), "int64"), 5, new((2,)), axis, new(((5, 4, 21), (), (4, 21, 5))[axis]), machine
        )


def indexed(machine: Machine) -> Iterator[Call]:
    """Gathers and scatters of each dtype, by indices of both widths."""
    error = new((), "int64")
    for dtype, index in itertools.product((F, "int64", "float16", "bool"), ("int32", "int64")):
        data = new((30, 40, 50), dtype)
        for axis in range(3):
            shape = (*data.shape[:axis], 7, *data.shape[axis + 1 :])
            yield gather(data, new((7,), index), axis, new(shape, dtype), error, machine)
            yield gather_elements(data, new(shape, index), axis, new(shape, dtype), error, machine)
        for depth in (1, 2, 3):
            shape = (6, *data.shape[depth:])
            yield gather_nd(data, new((6, depth), index), 0, new(shape, dtype), error, machine)
        for combine in ("none", "add", "mul", "min", "max"):
            if dtype == "bool" and combine != "none":
                continue
            shape, out = (6, *data.shape[2:]), new(data.shape, dtype)
            yield from scatter_nd(data, new((6, 2), index), new(shape, dtype), out, error, machine, combine)
            for axis in (0, 2):
                part = (5, 6, 7)
                updates = new(part, dtype)
                yield from scatter_elements(
                    data, new(part, index), updates, axis, out, error, machine, combine
                )


def resizes(machine: Machine) -> Iterator[Call]:
    """Nearest, linear and cubic, of channels and of columns, up and down; sums of interpolations."""
    for mode, order in itertools.product(("nearest", "linear", "cubic"), (LAST, FIRST)):
        for channels, size, more in ((48, 28, {}), (37, 28, {}), (16, 7, {}), (16, 28, {"antialias": True})):
            if more and mode == "nearest":
                continue
            table = taps(mode, 14, size, size / 14, **more)
            out = image((1, channels, size, size), order)
            yield from resize(image((1, channels, 14, 14), order), out, {2: table, 3: table}, machine)
            yield from resize(image((1, channels, 14, size), order), out, {2: table}, machine)
    crop = taps("linear", 14, 28, 2.0, coordinates="tf_crop_and_resize", roi=(-0.5, 1.2))
    for order in (LAST, FIRST):
        yield from resize(
            image((1, 48, 14, 14), order), image((1, 48, 28, 28), order), {2: crop, 3: crop}, machine
        )
        for dtype, (size, other) in itertools.product(
            ("uint8", "float16", "float32", "int64"), ((14, 28), (60, 200), (200, 110), (4, 3), (200, 40))
        ):
            table = taps("nearest", size, other, other / size)
            for channels in (3, 48):
                x = image((1, channels, size, size), order, dtype)
                out = image((1, channels, other, other), order, dtype)
                yield from resize(x, out, {2: table, 3: table}, machine)
                out = image((1, channels, other, size), order, dtype)
                yield from resize(x, out, {2: table}, machine)
    for name, channels in itertools.product(EPILOGUES, (48, 37)):
        shape = (1, channels, 28, 28)
        linear, same = taps("linear", 14, 28, 2.0), identity_taps(28)
        nearest = taps("nearest", 7, 28, 4.0)
        sources = [
            Source(image((1, channels, 14, 14)), linear, linear),
            Source(image(shape), same, same),
            Source(image((1, channels, 7, 7)), nearest, nearest),
        ]
        for count in (1, 2, 3):
            out, end = result(name, shape, LAST), after(name, shape, 1, LAST)
            yield from interpolate_sum(sources[:count], out, end, machine)


def integers(machine: Machine) -> Iterator[Call]:
    """Products and convolutions of bytes, as four or two to a unit: heights, widths, signs, layouts."""
    lanes, scalar = machine.lanes, new(())
    kinds: list[Numbers] = ["words", "bytes"] if machine.byte_products else ["words"]
    quantised = (Step("Cast", (0,), F), Step("Mul", (3, 1), F), Step("Requantize", (4, 1, 2), "uint8"))
    expression = Expression(("int32", F, "uint8"), quantised, (5,))
    end = Epilogue(expression, [new((1, 1)), new((1, 1), "uint8")])
    for numbers, dtype in itertools.product(kinds, ("int8", "uint8")):
        zero = np.ones((), dtype) if numbers == "words" else None
        for n in (lanes, 2 * lanes, 3 * lanes + 1):
            weights = pack_integers(np.ones((24, n), dtype), zero, numbers, machine)
            for m, epilogue in itertools.product((*range(1, 15), 57), (None, end)):
                out = new((m, n), "int32" if epilogue is None else "uint8")
                yield from integer_matmul(new((m, 24), dtype), weights, out, epilogue, machine)
        for strides in ((1, 57), (80, 3)):
            a = new((57, 24), dtype, strides)
            yield from integer_matmul(a, weights, new((57, n), "int32"), None, machine)
        for strides in ((48, 1), (1, 24), (200, 3)):
            source = new((2, 24, 48), dtype, (4800, *strides))
            yield from pack_factor_calls(source, scalar if numbers == "words" else None, numbers, machine)[0]
        for channels, o, order in itertools.product((3, 24, 64), (lanes - 1, 48), (LAST, FIRST)):
            filters = Weights.of(np.ones((o, channels, 3, 3), dtype))
            packed = IntegerConvWeights(filters, zero, 1, numbers, machine)
            for stride in (1, 2):
                size = (14 - 1) // stride + 1
                out = image((1, o, size, size), dtype="int32")
                yield from integer_conv2d(
                    image((1, channels, 14, 14), order, dtype), None, packed, out,
                    (stride, stride), (1, 1, 1, 1), (1, 1), None, machine,
                )  # fmt: skip

    for rows, n, block, has_zero in itertools.product(range(1, MOST_ROWS + 1), (6, 8, 9), (32, 128), (0, 1)):
        scales, halves = new((n, 2)), new((rows, block // lanes, 2, lanes))
        zeros, out = scales if has_zero else None, new((rows, n))
        yield few_bits(halves, new((n, block), "uint8"), scales, zeros, out, block, machine)
    for rows, n, block, has_zero in itertools.product((1, 2, 5, 12, 40), (9, 16), (16, 32, 128), (0, 1)):
        w, of_blocks = np.ones((n, block), np.uint8), ones(n, 2)
        bits = pack_few_bits(w, of_blocks, of_blocks if has_zero else None, block, machine)
        yield from few_bits_integers(new((rows, 2 * block)), bits, new((rows, n)), machine)


def layers(machine: Machine) -> Iterator[Call]:
    """LSTM, GRU and RNN over numbers of sequences, with what they may be given and asked for."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}
    for kind, batch, hidden in itertools.product(gates, (1, 2, 3, 5, 8, 9, 16), (64, 256, 512, 37, 300)):
        if hidden in (256, 512) and kind != "LSTM":  # blocks of units that are multiplied together
            continue
        g: Any = kind
        for reset in (False, True) if kind == "GRU" else (False,):
            for peephole, full in itertools.product(
                (False, True) if kind == "LSTM" else (False,), (False, True)
            ):
                weights = pack_recurrent(
                    g, ones(1, gates[kind] * hidden, 32), ones(1, gates[kind] * hidden, hidden), None,
                    ones(1, 3 * hidden) if peephole else None, machine, linear_before_reset=reset,
                )  # fmt: skip
                y, state = new((10, 1, batch, hidden)), [new((1, batch, hidden)) for _ in range(4)]
                last_c = state[1] if kind == "LSTM" else None
                start: dict[str, Any] = {"h0": state[2], "c0": state[3] if kind == "LSTM" else None}
                x, given = new((10, batch, 32)), start if full else {}
                sequences = Sequences(y, state[0], last_c if full else None, **given)
                yield from recurrent(x, weights, sequences, machine)
    for batch, hidden, zero, peephole in itertools.product(
        (1, 2, 5, 8), (64, 37, 700), (0, 1), (False, True)
    ):
        r, p = np.ones((1, hidden, 4 * hidden), np.int8), ones(1, 3 * hidden) if peephole else None
        whole = pack_integer_states(
            r, ones(1), np.full(1, zero, np.int8), p, machine, clip=2.0 if zero else None
        )
        gates, y, state = new((10, batch, 4 * hidden)), new((10, 1, batch, hidden)), new((1, batch, hidden))
        yield from through_steps(gates, whole, Sequences(y, state, h0=new((1, batch, hidden))), machine)


def samples(machine: Machine) -> Iterator[Call]:
    """Images between their pixels: every mode and padding; columns of deformed convolutions."""
    for mode, padding, dims in itertools.product(
        ("nearest", "linear", "cubic"), ("zeros", "border", "reflection"), (1, 2, 3)
    ):
        for dtype in (F, "float16", "float64"):
            x, grid = new((2, 3, *(9,) * dims), dtype), new((2, *(11,) * dims, dims), F)
            out = new((2, 3, 11**dims), dtype)
            yield grid_sample(x, grid, out, mode, padding, machine, corners=dims == 2)
    for dtype, order, masked in itertools.product((F, "float16"), (FIRST, LAST), (False, True)):
        x, offsets = image((1, 32, 14, 14), order, dtype), new((1, 18, 12, 12), dtype)
        mask = new((1, 9, 12, 12), dtype) if masked else None
        out = new((1, 1, 12, 12, 9, 32), dtype)
        pairs = (3, 3), (1, 1), (1, 1), (0, 0)
        yield deformed_columns(x, offsets, mask, out, (1, 1), *pairs, machine)


def states(machine: Machine) -> Iterator[Call]:
    """Linear attention of every rule; determinants; what is unique among elements and among rows."""
    for dtype, starts, decays, corrects in itertools.product((F, "float16"), *[(False, True)] * 3):
        q, k, v = new((1, 9, 4, 64), dtype), new((1, 9, 2, 64), dtype), new((1, 9, 2, 72), dtype)
        factors = new((1, 9, 2, 64)) if decays else None
        rates = new((1, 9, 2), dtype) if corrects else None
        last, out = new((1, 2, 64, 72), dtype), new((1, 9, 4, 72), dtype)
        state = new(last.shape, dtype) if starts else None
        yield linear_attention(q, k, v, state, factors, rates, new(()), out, last, machine)
    for dtype in (F, "float16", "float64"):
        yield determinant(new((3, 20, 20), dtype), new((3,), dtype), machine)
    for dtype, width, in_order in itertools.product((F, "float16", "int64", "bool"), (1, 5), (False, True)):
        lines = [new((50,), "int64") for _ in range(3)]
        x, out = new((50, width), dtype), new((50, width), dtype)
        yield from unique(x, 1, width, out, *lines, new((), "int64"), machine, in_order=in_order)


def ordered(machine: Machine) -> Iterator[Call]:
    """Selections along rows and across them, of short keys and long ones; by what elements are; of boxes."""
    for dtype, (shape, axis), largest in itertools.product(
        (F, "float16", "float64", "int64", "uint8"), (((6, 1000), 1), ((1000, 6), 0)), (True, False)
    ):
        kept = [5 if d == axis else n for d, n in enumerate(shape)]
        outs = new(kept, dtype), new(kept, "int64")
        yield topk(new(shape, dtype), 5, axis, *outs, machine, largest=largest)
        all_of_it = new(shape, dtype), new(shape, "int64")
        one, count, error = (new((), "int64") for _ in range(3))
        yield from topk_counted(
            new(shape, dtype), one, axis, *all_of_it, count, error, machine, largest=largest
        )
    count = new((), "int64")
    for dtype, rank in itertools.product((F, "float16", "float64", "bool", "int64"), (1, 2, 4)):
        shape = (40,) * rank
        yield from nonzero(new(shape, dtype), new((rank, 40**rank), "int64"), count, machine)
        yield from compress(new(shape, dtype), new((40,), "bool"), 0, new(shape, dtype), count, machine)
    boxes, scores, one = new((2, 100, 4)), new((2, 3, 100)), new((1,))
    for centred, least in itertools.product((False, True), (None, one)):
        kept = new((600, 3), "int64")
        yield from suppress(boxes, scores, count, one, least, 100, kept, count, machine, centred=centred)
    for dtype, channels, order, mode in itertools.product(
        (F, "float16", "float64"), (3, 64), (FIRST, LAST), ("avg", "max")
    ):
        x, y = image((2, channels, 14, 14), order, dtype), image((5, channels, 7, 7), order, dtype)
        scale = new((), "float64" if dtype == "float64" else F)
        places = new((5, 4), dtype), new((5,), "int64")
        yield roi_align(x, *places, y, mode, 2, scale, count, machine, half_pixel=True)
        yield roi_pool(x, new((5, 5), dtype), y, scale, count, machine)


def ensembles(machine: Machine) -> Iterator[Call]:
    """Trees over tables of both dtypes, combined in each way; the coupling of pairs of classes."""
    yield coupling(new((40, 6), "float64"), new((40, 4), "float64"))
    nodes, roots = np.zeros((1, 8), np.int32), np.zeros(8, np.int32)
    said, weights, base = np.zeros(0, np.int32), np.zeros(0), np.zeros(3)
    for dtype, result_, combine in itertools.product((F, "float64"), (F, "float64"), ("add", "min", "max")):
        packed = Forest(nodes, roots, said, weights, base, 1.0, combine, np.dtype(dtype))
        yield forest(packed, new((40, 5), dtype), new((40, 3), result_), machine)


def controls(machine: Machine) -> Iterator[Call]:  # noqa: ARG001  (no vectors in them)
    """Loops that ask for each combination of trips and conditions; a branch."""
    number, holds = new((), "int64"), new((), "bool")
    for trips, first, condition in itertools.product((None, number), (None, holds), (None, holds)):
        yield loop(Block([], [], [], set()), [], number, trips, first, condition).call
    yield branch(holds, Block([], [], [], set()), Block([], [], [], set())).call


def looses(machine: Machine) -> Iterator[Call]:
    """Steps over arrays of any sizes, and the rounds."""
    steps: list[Kernel] = [
        rounds(), once(), loose_branch(), link(), only_one(), planned(1, 2), planned(3, 1),
        loose_dims.size_of(), loose_dims.flatten(axis=1), loose_dims.squeeze(dtype=None),
        loose_dims.shape_of(start=0, end=None), loose_dims.shape_of(start=-2, end=3),
    ]  # fmt: skip
    for size in (1, 4, 8):
        steps += [keep(size=size), append(size=size), loose_elements.transpose(perm=(1, 0, 2), size=size)]
        steps += [loose_elements.concat(3, -1, size), loose_elements.compress(axis=0, size=size)]
        steps.append(loose_elements.compress(axis=None, size=size))
    for dtype, size in itertools.product(("int32", "int64"), (4, 8)):
        steps += [
            loose_elements.gather(axis=0, dtype=dtype, size=size),
            loose_elements.gather_nd(dtype=dtype, size=size),
            loose_elements.expand(dtype=dtype, size=size),
            loose_elements.slice_of(dtype=dtype, axes=True, steps=True, size=size),
            loose_elements.constant_of_shape(dtype=dtype, size=size),
            loose_dims.reshape(dtype=dtype, keeps_zero=size == 4),
            loose_elements.range_of(dtype=dtype),
            loose_dims.squeeze(dtype=dtype),
            loose_dims.unsqueeze(dtype=dtype),
        ]
    steps += [loose_elements.nonzero(dtype=dtype) for dtype in ("bool", F, "int64")]
    less = Expression(("int64",) * 2, (Step("Less", (0, 1), "bool"),), (2,))
    for expression in (Expression((F, F), _ONE, (3,)), Expression((F,) * 3, _GELU, (5,)), less):
        steps.append(loose_fused.apply(expression, machine))
    for kernel in steps:
        yield Call(kernel, [0] * len(kernel.arguments), 1, [], [])


FAMILIES: dict[str, Callable[[Machine], Iterator[Call]]] = {
    family.__name__: family
    for family in (
        products, strassen_products, contractions, convolutions, winograds, slices, depthwises, pools,
        attentions, elements, rows, reductions, copies, indexed, resizes, layers, ordered, samples,
        integers, ensembles, states, controls, looses,
    )
}  # fmt: skip
