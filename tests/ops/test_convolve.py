"""Convolutions that the register tile of float32 does not have: dtypes, dimensions, weights that are fed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ingot
from tests.ops.native import native
from tests.ops.test_native import values

#: Of x, of the weights, attributes.
CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 3, 9, 11), (4, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    ((2, 6, 10, 8), (8, 3, 2, 3), {"group": 2, "strides": [2, 1], "pads": [0, 1, 1, 2]}),
    ((2, 5, 7, 7), (5, 1, 3, 3), {"group": 5, "pads": [1, 1, 1, 1], "dilations": [2, 1]}),
    ((2, 5, 7, 7), (20, 1, 1, 1), {"group": 5}),
    ((2, 3, 17), (7, 3, 4), {"strides": [3], "pads": [2, 0]}),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 2), {"pads": [1, 0, 1, 0, 1, 1], "strides": [1, 2, 2]}),
    ((2, 4, 3, 5, 6), (4, 1, 3, 3, 3), {"group": 4, "pads": [1] * 6}),
    (
        (2, 3, 9, 6, 7),
        (20, 3, 3, 3, 3),
        {"pads": [2, 1, 0, 1, 0, 2], "strides": [2, 1, 1], "dilations": [2, 1, 1]},
    ),
    ((1, 4, 5, 6, 7), (6, 2, 3, 1, 1), {"group": 2, "pads": [1, 0, 0, 1, 0, 0]}),
    ((1, 3, 5, 6, 7), (5, 3, 1, 3, 3), {"pads": [0, 1, 1, 0, 1, 1]}),
    ((1, 2, 3, 4, 4), (3, 2, 2, 3, 3), {"pads": [3, 1, 1, 3, 1, 1]}),  # planes that no filter reaches
    ((1, 1, 2, 3, 4, 5), (2, 1, 2, 2, 2, 2), {}),
    ((1, 3, 0, 5, 5), (4, 3, 1, 3, 3), {"pads": [1, 0, 0, 0, 0, 0]}),
    ((0, 3, 9, 9), (4, 3, 3, 3), {}),
]
CHANGED = {"float64": 1e-12, "float32": 3e-6, "float16": 2e-3, "bfloat16": 2e-2}


@pytest.mark.parametrize("dtype", list(CHANGED))
@pytest.mark.parametrize("case", range(len(CONVOLUTIONS)))
def test_conv(dtype: str, case: int) -> None:
    shape, weights, attributes = CONVOLUTIONS[case]
    x, w = values(*shape, dtype=dtype), values(*weights, dtype=dtype, seed=1)
    bias = values(weights[0], dtype=dtype, seed=2)
    for fed in ((0,), (0, 1)):
        native("Conv", [x, w, bias], fed=fed, tolerance=CHANGED[dtype], **attributes)
        native("Conv", [x, w], fed=fed, tolerance=CHANGED[dtype], **attributes)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("fed", [(0,), (0, 1)])
def test_padding_that_removes(dtype: str, fed: tuple[int, ...]) -> None:
    x, w = values(1, 3, 9, 9, dtype=dtype), values(4, 3, 3, 3, dtype=dtype, seed=1)
    native("Conv", [x, w], fed=fed, pads=[-1, 2, -2, 0], tolerance=CHANGED[dtype])


TRANSPOSED: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 3, 5, 6), (3, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]}),
    ((2, 6, 4, 5), (6, 2, 3, 2), {"group": 3, "strides": [1, 3]}),
    ((2, 4, 7), (4, 3, 4), {"strides": [3], "dilations": [2]}),
    ((1, 2, 3, 4), (2, 3, 1, 2), {"strides": [3, 4]}),  # some pixels are reached by no tap
    ((1, 2, 3, 4, 3), (2, 3, 2, 3, 2), {"strides": [2, 1, 2], "pads": [0, 1, 1, 0, 0, 1]}),
    ((1, 2, 6, 6), (2, 3, 3, 3), {"pads": [2, 2, 2, 2]}),
    ((2, 3, 4, 4), (3, 1, 3, 3), {"group": 3, "strides": [2, 2]}),
    ((0, 3, 4, 4), (3, 2, 3, 3), {"strides": [2, 2]}),
    ((1, 1, 3, 3), (1, 2, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((1, 2, 4, 4), (2, 2, 3, 3), {"strides": [2, 2], "dilations": [2, 2]}),
]


@pytest.mark.parametrize("dtype", list(CHANGED))
@pytest.mark.parametrize("case", range(len(TRANSPOSED)))
def test_conv_transpose(dtype: str, case: int) -> None:
    shape, weights, attributes = TRANSPOSED[case]
    x, w = values(*shape, dtype=dtype), values(*weights, dtype=dtype, seed=1)
    bias = values(weights[1] * attributes.get("group", 1), dtype=dtype, seed=2)
    for fed in ((0,), (0, 1)):
        native("ConvTranspose", [x, w, bias], fed=fed, tolerance=CHANGED[dtype], **attributes)


#: x, weights or kernel, attributes: spatial sizes of nothing that leave no position, or one of padding alone.
NOTHING: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("Conv", (1, 1, 0), (1, 1, 8), {"strides": [4], "pads": [2, 2]}),
    ("Conv", (1, 1, 0), (1, 1, 1), {}),
    ("Conv", (1, 1, 0), (1, 1, 3), {"auto_pad": "SAME_UPPER"}),
    ("Conv", (1, 1, 0, 4), (1, 1, 3, 3), {"pads": [1, 1, 1, 1]}),
    ("ConvTranspose", (1, 1, 0), (1, 1, 3), {"pads": [1, 1]}),
    ("ConvTranspose", (1, 1, 0), (1, 1, 1), {}),
    ("MaxPool", (1, 1, 0, 4), (3, 3), {"pads": [1, 1, 1, 1]}),
    ("MaxPool", (1, 1, 0), (2,), {"pads": [1, 1]}),
    ("AveragePool", (1, 1, 0), (2,), {"pads": [1, 1]}),
    ("AveragePool", (0, 1, 0), (1,), {}),
]


@pytest.mark.parametrize(("op", "shape", "kernel", "attributes"), NOTHING)
def test_a_window_over_nothing_is_refused(
    op: str, shape: tuple[int, ...], kernel: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    """As PyTorch and ONNX Runtime do; what is right for other sizes of the model would not be noticed."""
    inputs, more = [np.ones(shape, np.float32)], attributes
    if "Pool" in op:
        more = {**attributes, "kernel_shape": list(kernel)}
    else:
        inputs.append(np.ones(kernel, np.float32))
    with pytest.raises(ingot.ShapeError, match=r"fit|leave nothing|no positions"):
        native(op, inputs, fed=(0,), **more)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("shape", [(0, 2, 5), (2, 0, 5)])
def test_a_pool_of_no_images_or_channels(op: str, shape: tuple[int, ...]) -> None:
    (made,) = native(op, [np.ones(shape, np.float32)], kernel_shape=[3])
    assert made.shape == (*shape[:2], 3)
