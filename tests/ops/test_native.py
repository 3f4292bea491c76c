"""Operators that become several kernels and views: over shapes and dtypes that ONNX's own suite does not
have.
"""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

import ingot
from ingot.ops.registry import find
from tests.ops.native import native, one_node

HALVES = ("float16", "bfloat16")
FLOATS = ("float32", "float64", *HALVES)


def values(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    kind = np.dtype(getattr(ml_dtypes, dtype)) if dtype == "bfloat16" else np.dtype(dtype)
    rng = np.random.default_rng(seed)
    if kind.kind == "b":
        return rng.random(shape) < 0.5
    if kind.kind in "iu":
        return rng.integers(0 if kind.kind == "u" else -20, 20, shape).astype(kind)
    return rng.normal(0, 1, shape).astype(kind)


@pytest.mark.parametrize("dtype", [*FLOATS, "int8", "uint16", "int32", "int64", "uint64"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_topk(dtype: str, axis: int) -> None:
    x = values(5, 7, 9, dtype=dtype)
    for k in (0, 1, x.shape[axis]):
        for largest in (0, 1):
            native("TopK", [x, np.array([k])], outputs=2, axis=axis, largest=largest)


@pytest.mark.parametrize("dtype", [*FLOATS])
def test_norms(dtype: str) -> None:
    x = values(3, 4, 5, 6, dtype=dtype)
    x[0, 0] = 0
    for axis in (0, 1, -1):
        native("Hardmax", [x], axis=axis)
        for p in (1, 2):
            native("LpNormalization", [x], axis=axis, p=p)
    native("MeanVarianceNormalization", [x], tolerance=2e-2 if dtype in HALVES else 1e-5)
    native("MeanVarianceNormalization", [x], axes=[1, 3], tolerance=2e-2 if dtype in HALVES else 1e-5)
    for size in (1, 2, 3, 4, 5, 19):
        native("LRN", [x], size=size, alpha=0.7, beta=0.6, bias=1.5)
    native("LRN", [values(2, 1, 3)], size=5)
    native("LRN", [values(0, 3, 3)], size=5)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary(dtype: str, interleaved: int) -> None:
    cos, sin = values(50, 4, dtype=dtype, seed=1), values(50, 4, dtype=dtype, seed=2)
    places = np.random.default_rng(3).integers(0, 50, (2, 6))
    x = values(2, 3, 6, 8, dtype=dtype)
    native("RotaryEmbedding", [x, cos, sin, places], fed=(0, 3), interleaved=interleaved)
    flat = x.transpose(0, 2, 1, 3).reshape(2, 6, 24)
    native("RotaryEmbedding", [flat, cos, sin, places], interleaved=interleaved, num_heads=3)
    wide = values(2, 3, 6, 13, dtype=dtype)
    options: dict[str, Any] = {"interleaved": interleaved, "rotary_embedding_dim": 8}
    native("RotaryEmbedding", [wide, cos[places], sin[places]], fed=(0, 1, 2), **options)


def test_a_position_outside_the_table_is_refused() -> None:
    inputs = [values(1, 1, 2, 4), values(5, 2), values(5, 2), np.array([[0, 5]])]
    model, feed = one_node("RotaryEmbedding", inputs, fed=(0, 3))
    with pytest.raises(ingot.InputError, match="position"):
        ingot.InferenceSession(model).run(None, feed)


@pytest.mark.parametrize("dtype", ["float32", "int16", "bool", "float16"])
def test_reverse_sequence(dtype: str) -> None:
    x = values(4, 5, 3, dtype=dtype)
    native("ReverseSequence", [x, np.array([0, 1, 3, 4, 2])], fed=(0, 1), time_axis=0, batch_axis=1)
    native("ReverseSequence", [x, np.array([5, 2, 1, 4])], fed=(0, 1), time_axis=1, batch_axis=0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint32"])
def test_running_products(dtype: str) -> None:
    x = values(4, 5, dtype=dtype)
    for axis in (0, 1):
        for exclusive, reverse in ((0, 0), (1, 0), (0, 1), (1, 1)):
            native("CumProd", [x, np.array(axis)], exclusive=exclusive, reverse=reverse)


@pytest.mark.parametrize(("dtype", "to"), [("float32", 6), ("int64", 11), ("bfloat16", 10), ("uint8", 3)])
def test_bitcast(dtype: str, to: int) -> None:
    native("BitCast", [values(3, 5, dtype=dtype)], to=to)


@pytest.mark.parametrize("dtype", [*FLOATS, "int8", "uint8", "int32", "int64", "uint64"])
def test_powers_and_remainders(dtype: str) -> None:
    a, b = values(37, dtype=dtype), values(37, dtype=dtype, seed=1)
    b[b == 0] = 1
    native("Mod", [a, b], fed=(0, 1), fmod=int(dtype in FLOATS))
    if dtype in ("float32", "float64"):
        native("Mod", [a, b], fed=(0, 1))
    native("Pow", [np.abs(a), np.abs(b)], fed=(0, 1))
    if dtype in ("int8", "int32", "int64"):
        native("BitShift", [a, np.abs(b)], fed=(0, 1), direction="RIGHT")
    if dtype in ("int32", "int64"):
        native("Pow", [np.abs(a) % 7, np.abs(values(37, seed=4))], fed=(0, 1))


@pytest.mark.parametrize("dtype", [1, 6, 7, 9, 10, 11, 16])
def test_eye_like(dtype: int) -> None:
    for shape, k in (((3, 7), 0), ((7, 3), 2), ((4, 4), -3), ((1, 1), 0), ((0, 3), 0)):
        native("EyeLike", [values(*shape)], dtype=dtype, k=k)


@pytest.mark.parametrize("name", ["ReduceMax", "ReduceMin"])
def test_truth_values_are_reduced(name: str) -> None:
    for axes in ([0], [1], [0, 1]):
        native(name, [values(5, 9, dtype="bool"), np.array(axes)])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_of_one_channel(mode: str, dtype: str) -> None:
    for shape in ((1, 1, 5, 7), (5, 7), (7,), (1, 7)):
        scales = np.array([1.0] * (len(shape) - 1) + [2.5] if len(shape) < 2 else [2.0, 1.5])
        scales = np.concatenate([np.ones(len(shape) - len(scales)), scales]).astype(np.float32)
        native("Resize", [values(*shape, dtype=dtype), None, scales], mode=mode)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_integers_are_interpolated(mode: str, dtype: str) -> None:
    """To the nearest even whole number within the dtype's limits; with scales whose weights are exact."""
    limits = np.iinfo(dtype)
    for shape, scale in (((2, 3, 5, 7), 2.0), ((2, 7, 9, 16), 0.5), ((1, 1, 4, 6), 4.0), ((1, 2, 1, 1), 2.0)):
        x = np.random.default_rng(0).integers(limits.min, limits.max, shape, dtype, endpoint=True)
        native("Resize", [x, None, np.array([1, 1, scale, scale], np.float32)], mode=mode)
    x = np.arange(24).reshape(1, 1, 4, 6).astype(dtype)
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 2.5}
    roi = np.array([0, 0, -0.5, 0, 1, 1, 1.5, 1], np.float32)
    native("Resize", [x, roi, None, np.array([1, 1, 7, 6])], mode=mode, **crop)


@pytest.mark.parametrize("by", [{"scales": [1, 1, 2.5, 0.5]}, {"sizes": [0, 2, 9, 4]}])
def test_resize_of_an_empty_batch(by: dict[str, Any]) -> None:
    scales, sizes = by.get("scales"), by.get("sizes")
    inputs = [
        values(0, 2, 6, 8),
        None,
        None if scales is None else np.array(scales, np.float32),
        None if sizes is None else np.array(sizes),
    ]
    native("Resize", inputs, mode="linear")


@pytest.mark.parametrize("dtype", ["float32", "bool", "int64"])
def test_what_is_counted(dtype: str) -> None:
    for shape in ((3, 4), (0, 3), (), (1,), (2, 3, 4, 5), (700, 30)):
        native("NonZero", [values(*shape, dtype="bool").astype(dtype)])
        for axis in ({}, *({"axis": a} for a in range(-1, len(shape)))):
            length = int(np.prod(shape)) if not axis else shape[axis["axis"]] if shape else 0
            if shape and length:
                picks = values(length - 1, dtype="bool", seed=1)
                native("Compress", [values(*shape, dtype=dtype), picks], fed=(0, 1), **axis)


def test_what_was_counted_goes_on() -> None:
    """The nodes after one that counts are planned for what it found, which changes from run to run."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("NonZero", ["r"], ["at"]),
        helper.make_node("Transpose", ["at"], ["rows"], perm=[1, 0]),
        helper.make_node("GatherND", ["x", "rows"], ["found"]),
        helper.make_node("Mul", ["found", "found"], ["y"]),
        helper.make_node("Sum", ["x", "r"], ["s"]),
    ]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "s")]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", "b"])], infos
    )
    session = ingot.InferenceSession(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)]))
    for seed, shape in enumerate([(4, 5), (4, 5), (30, 40), (1, 1), (0, 3)]):
        x = values(*shape, seed=seed)
        y, s = session.run(None, {"x": x})
        np.testing.assert_array_equal(y, np.square(x[x > 0]))
        np.testing.assert_array_equal(s, x + np.maximum(x, 0))
    kinds = {step.kind for step in session.profile({"x": values(4, 5)}, rounds=1)}
    assert "host" not in kinds


def test_boxes() -> None:
    rng = np.random.default_rng(0)
    boxes, scores = rng.random((2, 50, 4)).astype(np.float32), rng.random((2, 3, 50)).astype(np.float32)
    overlap, least = np.array([0.3], np.float32), np.array([0.2], np.float32)
    for centred in (0, 1):
        for fed in ((0, 1), (0, 1, 2, 3, 4)):
            inputs = [boxes, scores, np.array([7]), overlap, least]
            native("NonMaxSuppression", inputs, fed=fed, center_point_box=centred)
        native("NonMaxSuppression", [boxes, scores], fed=(0, 1), center_point_box=centred)
    rois, images = (rng.random((5, 4)) * 12).astype(np.float32), np.array([0, 1, 1, 0, 0])
    x = values(2, 19, 9, 11)
    for mode in ("avg", "max"):
        options = {"mode": mode, "output_height": 3, "output_width": 2, "spatial_scale": 0.7}
        native("RoiAlign", [x, rois, images], fed=(0, 1, 2), tolerance=1e-5, **options)
    model, feed = one_node("RoiAlign", [x, rois, images + 1], fed=(0, 1, 2))
    with pytest.raises(ingot.InputError, match="names an image"):
        ingot.InferenceSession(model).run(None, feed)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_affine_grid_and_sample(dtype: str) -> None:
    for size in ([2, 1, 5, 6], [2, 1, 1, 4], [1, 2, 3, 4, 5]):
        dims = len(size) - 2
        theta = values(size[0], dims, dims + 1, dtype=dtype)
        for corners in (0, 1):
            native("AffineGrid", [theta, np.array(size)], align_corners=corners)
    x, grid = values(2, 3, 5, 6, dtype=dtype), values(2, 4, 7, 2, dtype="float32", seed=1)
    for mode in ("nearest", "linear", "cubic"):
        native("GridSample", [x, grid], fed=(0, 1), mode=mode, tolerance=3e-3 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_deformed_convolutions(dtype: str) -> None:
    window = {"strides": [2, 1], "dilations": [1, 2], "pads": [1, 0, 1, 2]}
    sizes = ((1, 1, 3, 4), (2, 1, 4, 6), (1, 2, 4, 4), (4, 2, 8, 8), (1, 1, 40, 33))
    bound = 5e-3 if dtype == "float16" else 1e-5
    for group, many, channels, outputs in sizes:
        x, w = values(2, channels, 7, 8, dtype=dtype), values(outputs, channels // group, 3, 2, dtype=dtype)
        offset, mask = values(2, many * 12, 4, 8, dtype=dtype), values(2, many * 6, 4, 8, dtype=dtype)
        bias = values(outputs, dtype=dtype)
        for inputs in ([x, w, offset], [x, w, offset, bias, mask], [x, w, offset, None, mask]):
            for fed in ((0, 2), (0, 1, 2, 3, 4)):
                options: dict[str, Any] = {"group": group, "offset_group": many, **window}
                native("DeformConv", inputs, fed=fed, tolerance=bound, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_losses(dtype: str) -> None:
    rng, bound = np.random.default_rng(0), {"float16": 3e-3, "float32": 1e-5}.get(dtype)
    for shape in ((4, 5), (2, 5, 3, 4)):
        x, weight = values(*shape, dtype=dtype), np.abs(values(5, dtype=dtype)) + 1
        rows = (("int64", "none", None), ("int32", "mean", 2), ("int64", "sum", -100))
        for index, reduction, ignored in rows:
            target = rng.integers(0, 5, (shape[0], *shape[2:])).astype(index)
            options: dict[str, Any] = {"reduction": reduction}
            if ignored is not None:
                target.flat[:2], options["ignore_index"] = ignored, ignored
            for inputs in ([x, target], [x, target, weight.astype(dtype)]):
                native("NegativeLogLikelihoodLoss", inputs, fed=(0, 1), tolerance=bound, **options)
                for outputs in (1, 2):
                    more: dict[str, Any] = {"outputs": outputs, "tolerance": bound, **options}
                    native("SoftmaxCrossEntropyLoss", inputs, fed=(0, 1), **more)
    model, feed = one_node("NegativeLogLikelihoodLoss", [values(2, 3), np.array([0, 3])], fed=(0, 1))
    with pytest.raises(ingot.InputError, match="no class"):
        ingot.InferenceSession(model).run(None, feed)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_blocks_become_an_image(dtype: str) -> None:
    for sizes, block, more in (
        ([5, 6], [2, 3], {}),
        ([5, 6], [2, 3], {"strides": [2, 2], "pads": [1, 0, 2, 1]}),
        ([5, 6], [2, 2], {"dilations": [2, 1], "pads": [0, 1, 1, 0]}),
        ([7], [3], {"pads": [2, 2]}),
        ([4, 5, 6], [1, 2, 3], {}),
    ):
        rank = len(sizes)
        strides, dilations = more.get("strides", [1] * rank), more.get("dilations", [1] * rank)
        pads, count = more.get("pads", [0] * 2 * rank), 1
        for d in range(rank):
            reach = dilations[d] * (block[d] - 1) + 1
            count *= (sizes[d] + pads[d] + pads[rank + d] - reach) // strides[d] + 1
        x = values(2, 3 * int(np.prod(block)), count, dtype=dtype)
        options: dict[str, Any] = {"tolerance": 3e-3 if dtype == "float16" else None, **more}
        native("Col2Im", [x, np.array(sizes), np.array(block)], **options)


@pytest.mark.parametrize("dtype", ["float32", "int8", "bool"])
def test_elements_are_placed(dtype: str) -> None:
    x = values(2, 3, 4, 5, dtype=dtype)
    where = np.random.default_rng(0).permutation(2 * 3 * 8 * 10)[: x.size].reshape(x.shape)
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    native("MaxUnpool", [x, where], fed=(0, 1), **pool)
    native("MaxUnpool", [x, where, np.array([2, 3, 9, 12])], fed=(0, 1), **pool)
    x = values(5, 6, 3, dtype=dtype)
    for sizes in ([3, 3, 3], [8, 9, 4], [2, 9, 3], [6, 5, 3]):
        native("CenterCropPad", [x, np.array(sizes)])
    native("CenterCropPad", [x, np.array([1, 9])], axes=[2, 0])
    cache, update = values(3, 2, 7, 4, dtype=dtype), values(3, 2, 3, 4, dtype=dtype, seed=1)
    native("TensorScatter", [cache, update], fed=(0, 1))
    native("TensorScatter", [cache, update, np.array([0, 4, 2])], fed=(0, 1, 2))
    native("TensorScatter", [cache, update, np.array([0, 6, 5])], fed=(0, 1, 2), mode="circular")
    for first in ([0, 5, 0], [0, -1, 0]):
        model, feed = one_node("TensorScatter", [cache, update, np.array(first)], fed=(0, 1, 2))
        with pytest.raises(ingot.InputError, match="beyond the cache"):
            ingot.InferenceSession(model).run(None, feed)


@pytest.mark.parametrize("length", [1, 2, 5, 16, 100, 512, 521, 600, 1024, 4096])
def test_transforms(length: int) -> None:
    for parts in (1, 2):
        x = values(90 if length < 100 else 2, length, 3, parts)  # few numbers are NumPy's
        less = length - 4 if length > 1000 else max(1, length - 1)
        for axis, size in ((1, None), (1, less), (-3, length + 2)):
            taken = None if size is None else np.array(size)
            for inverse in (0, 1):
                native("DFT", [x, taken, np.array(axis)], inverse=inverse, tolerance=3e-6)
        native("DFT", [x, None, np.array(1)], onesided=1, tolerance=3e-6)
        if length > 1:
            native("DFT", [x, None, np.array(1)], onesided=1, inverse=1, tolerance=3e-6)


#: A product of small factors, a prime, one with a factor that is too large, twice that, a square of a prime.
LONG = [4608, 6000, 4099, 5 * 2053, 8192, 71 * 73, 2 * 2551]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", LONG)
def test_long_transforms(dtype: str, length: int) -> None:
    """In steps, or with chirps; signals that are shorter and longer than the transform."""
    tolerance = 3e-6 if dtype == "float32" else 1e-12
    for parts, taken in itertools.product((1, 2), (length, length - 7, length + 5)):
        x, wanted = values(2, taken, parts, dtype=dtype), np.array(length)
        for inverse in (0, 1):
            native("DFT", [x, wanted], inverse=inverse, tolerance=tolerance)
        if parts == 1:
            native("DFT", [x, wanted], onesided=1, tolerance=tolerance)
    for parts, taken in itertools.product((1, 2), (length // 2 + 1, length // 3, length, 1)):
        x = values(2, taken, parts, dtype=dtype)
        native("DFT", [x, np.array(length)], onesided=1, inverse=1, tolerance=tolerance)


@pytest.mark.parametrize(("length", "parts", "step"), [(16, 1, 4), (400, 1, 160), (1024, 1, 256), (60, 2, 7)])
def test_frames_are_transformed(length: int, parts: int, step: int) -> None:
    x, window = values(2, 2500, parts), values(length)
    for onesided in (0, 1) if parts == 1 else (0,):
        options: dict[str, Any] = {"onesided": onesided, "tolerance": 3e-6}
        for fed in ((0,), (0, 2)):
            native("STFT", [x, np.array(step), window], fed=fed, **options)
        native("STFT", [x, np.array(step), None, np.array(length)], **options)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_determinants(dtype: str) -> None:
    for shape in ((1, 1), (3, 3), (5, 2, 7, 7), (2, 20, 20), (0, 3, 3), (4, 0, 0)):
        native("Det", [values(*shape, dtype=dtype)], tolerance={"float16": 2e-3, "float32": 1e-5}.get(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool", "uint8", "bfloat16"])
def test_unique(dtype: str) -> None:
    for shape in ((0,), (1,), (50,), (3, 4, 5), (6, 1)):
        x = values(*shape, dtype=dtype)
        if dtype == "float32" and x.size > 5:
            x = np.round(x * 2)
            x.flat[:4] = [np.nan, np.nan, -0.0, np.inf]
        for in_order in (0, 1):
            for outputs in (1, 2, 4):
                native("Unique", [x], sorted=in_order, outputs=outputs)
                for axis in range(-1, len(shape)):
                    native("Unique", [x], sorted=in_order, outputs=outputs, axis=axis)


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
def test_linear_attention(rule: str) -> None:
    for dtype, (heads, group, keys, size) in itertools.product(
        ("float32", "float16"), ((1, 1, 1, 1), (2, 2, 8, 8), (2, 1, 5, 19))
    ):
        q, k, v = (
            (values(2, 5, n, dtype="float32", seed=i) * 0.4).astype(dtype)
            for i, n in enumerate((heads * group * keys, heads * keys, heads * size))
        )
        past = values(2, heads, keys, size, dtype=dtype, seed=3)
        for own, each in ((heads, heads), (heads * keys, 1)):
            decay = -np.abs(values(2, 5, own, dtype=dtype)) if "gated" in rule else None
            beta = np.abs(values(2, 5, each, dtype=dtype)) / 4 if "delta" in rule else None
            for state in (None, past):
                inputs = [q, k, v, state, decay, None if beta is None else beta.astype(dtype)]
                native(
                    "LinearAttention",
                    inputs,
                    fed=range(6),
                    outputs=2,
                    tolerance=3e-5 if dtype == "float32" else 5e-3,
                    q_num_heads=heads * group,
                    kv_num_heads=heads,
                    update_rule=rule,
                )


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_causal_convolutions(dtype: str) -> None:
    bound = 5e-3 if dtype == "float16" else None
    for taps in (1, 2, 4, 20):
        x, w = values(2, 5, 9, dtype=dtype), values(5, 1, taps, dtype=dtype)
        bias, past = values(5, dtype=dtype), values(2, 5, taps - 1, dtype=dtype)
        for inputs in ([x, w], [x, w, bias, past], [x, w, None, past]):
            for activation in ("none", "silu"):
                options: dict[str, Any] = {"outputs": 2, "activation": activation, "tolerance": bound}
                native("CausalConvWithState", inputs, fed=(0, 3), **options)


@pytest.mark.parametrize("dtype", [*FLOATS, "int8", "uint8"])
def test_pools(dtype: str) -> None:
    windows: list[dict[str, Any]] = [
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
        {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [2, 1, 1, 2]},
    ]
    for window in windows:
        x = values(2, 3, 9, 11, dtype=dtype)
        native("MaxPool", [x], **window)
        for order in (0, 1):
            native("MaxPool", [x], outputs=2, storage_order=order, **window)
        if dtype not in FLOATS:
            continue
        low = np.full_like(x, -np.inf)
        native("MaxPool", [low], outputs=2, **window)
        for whole in (0, 1):
            native("AveragePool", [x], count_include_pad=whole, **window)
        for p in (1, 2, 3):
            native("LpPool", [np.abs(x) + 1], p=p, tolerance=1e-5 if dtype == "float32" else None, **window)
    native("MaxPool", [values(1, 2, 7, dtype=dtype)], outputs=2, kernel_shape=[3])
    native("MaxPool", [values(1, 2, 5, 6, 7, dtype=dtype)], outputs=2, kernel_shape=[3, 2, 2], pads=[1] * 6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_statistics_of_layers(dtype: str) -> None:
    x, scale, bias = values(3, 4, 5, dtype=dtype), values(5, dtype=dtype), values(5, dtype=dtype)
    bound = 2e-2 if dtype in HALVES else 1e-5
    for outputs in (1, 2, 3):
        native("LayerNormalization", [x, scale, bias], outputs=outputs, tolerance=bound)
        native("LayerNormalization", [x, values(4, 5, dtype=dtype)], outputs=outputs, axis=1, tolerance=bound)
    native("RMSNormalization", [x, scale], tolerance=bound)
    native("RMSNormalization", [x, values(5)], tolerance=bound)
    native("Dropout", [x], outputs=2)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_attention(dtype: str) -> None:
    bound = {"float32": 1e-5, "float16": 3e-3, "bfloat16": 2e-2}[dtype]
    q, k, v = (values(2, h, n, 8, dtype=dtype, seed=i) for i, (h, n) in enumerate(((4, 5), (2, 7), (2, 7))))
    past = [values(2, 2, 3, 8, dtype=dtype, seed=i) for i in (4, 5)]
    lengths = np.array([4, 7])
    truth, numbers = values(5, 7, dtype="bool"), values(2, 1, 5, 7, dtype=dtype, seed=6)
    truth[:, 0] = True
    rules: list[dict[str, Any]] = [
        {},
        {"is_causal": 1},
        {"left_window_size": 2},
        {"left_window_size": 1, "right_window_size": 2, "softcap": 2.0},
        {"right_window_size": 0, "is_causal": 1, "scale": 0.3},
    ]
    for rule in rules:
        options: dict[str, Any] = {"fed": range(7), "tolerance": bound, **rule}
        for mask in (None, truth, numbers, truth[:, :4], numbers[..., :5]):
            native("Attention", [q, k, v, mask], **options)
            native("Attention", [q, k, v, mask, None, None, lengths], **options)
            if mask is None:
                for outputs in (1, 3):
                    native("Attention", [q, k, v, None, *past], outputs=outputs, **options)
            elif mask.shape[-1] == 7:
                wide = np.concatenate([mask, mask[..., :3]], -1)
                native("Attention", [q, k, v, wide, *past], outputs=3, **options)
        flat = [a.transpose(0, 2, 1, 3).reshape(2, a.shape[2], -1) for a in (q, k, v)]
        native("Attention", [*flat, None, *past], outputs=3, q_num_heads=4, kv_num_heads=2, **options)


@pytest.mark.parametrize("keys", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["bool", "float32"])
def test_a_mask_shorter_than_the_keys_hides_the_rest(dtype: str, keys: int) -> None:
    """Also one of a single key, which does not broadcast (the operator's own function pads)."""
    q, k, v = (values(1, 2, n, 8, seed=n) for n in (3, 5, 5))
    mask = np.ones((3, keys), dtype) if dtype == "bool" else values(3, keys)
    (got,) = native("Attention", [q, k, v, mask], fed=range(4), tolerance=1e-5)
    bias = np.full((3, 5), -np.inf)
    bias[:, :keys] = 0 if dtype == "bool" else mask
    scores = np.exp(q.astype(np.float64) @ k.swapaxes(2, 3) / np.sqrt(8) + bias)
    want = scores @ v / np.maximum(scores.sum(-1, keepdims=True), 1e-300)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_scale_of_nothing_is_one() -> None:
    """As ONNX's own definition: only a scale that is not there has a default."""
    q, k, v = (values(1, 2, n, 8, seed=n) for n in (3, 5, 5))
    (got,) = native("Attention", [q, k, v], fed=range(3), tolerance=1e-5, scale=0.0)
    np.testing.assert_allclose(got, v.mean(2, keepdims=True).repeat(3, 2), atol=1e-6)


def test_largest_pixels_of_boxes() -> None:
    """onnx has no case of MaxRoiPool and no reference; onnxruntime has."""
    runtime = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    x = values(2, 5, 9, 11)
    rois = np.concatenate([rng.integers(0, 2, (20, 1)), rng.random((20, 4)) * 14 - 2], 1).astype(np.float32)
    options: dict[str, Any] = {"pooled_shape": [3, 2], "spatial_scale": 0.7}
    (got,) = native("MaxRoiPool", [x, rois], fed=(0, 1), **options)
    model, feed = one_node("MaxRoiPool", [x, rois], fed=(0, 1), **options)
    model.graph.opset_imports[""] = 21  # the newest that it has it for
    session = runtime.InferenceSession(ir.to_proto(model).SerializeToString())
    np.testing.assert_array_equal(got, session.run(None, feed)[0])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op_type", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("layout", [0, 1])
def test_recurrent_layers(op_type: str, dtype: str, layout: int) -> None:
    """Every attribute: activations of each direction, clip, peepholes, the coupled gates, lengths."""
    gates, count = {"RNN": (1, 1), "GRU": (3, 2), "LSTM": (4, 3)}[op_type]
    steps, batch, inputs, hidden = 5, 3, 4, 6
    x = values(steps, batch, inputs, dtype=dtype)
    states = [values(2, batch, hidden, dtype=dtype, seed=i) for i in (5, 6)]
    if layout:
        x, states = x.swapaxes(0, 1).copy(), [v.swapaxes(0, 1).copy() for v in states]
    arrays: list[np.ndarray | None] = [
        x,
        values(2, gates * hidden, inputs, dtype=dtype, seed=1) / 2,
        values(2, gates * hidden, hidden, dtype=dtype, seed=2) / 2,
        values(2, 2 * gates * hidden, dtype=dtype, seed=3),
        np.array([5, 2, 0], np.int32),
        *states[: 2 if op_type == "LSTM" else 1],
        *([values(2, 3 * hidden, dtype=dtype, seed=7)] if op_type == "LSTM" else []),
    ]
    names = ["HardSigmoid", "LeakyRelu", "ScaledTanh", "Affine", "Elu", "Softsign", "Softplus"]
    own: dict[str, Any] = {"clip": 0.8, "activations": [names[i % 7] for i in range(2 * count)]}
    own |= {"activation_alpha": [0.3] * 6, "activation_beta": [0.4] * 3}
    tolerance = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}.get(dtype)
    fed = (0, 4, 5, 6)
    for extra in (
        {},
        own,
        {"linear_before_reset": 1} if op_type == "GRU" else {},
        {"input_forget": 1} if op_type == "LSTM" else {},
    ):
        arguments = {"direction": "bidirectional", "layout": layout, "hidden_size": hidden, **extra}
        native(
            op_type, arrays, fed=fed, outputs=3 if op_type == "LSTM" else 2, tolerance=tolerance, **arguments
        )


@pytest.mark.parametrize("dtype", ["float64", *HALVES])
@pytest.mark.parametrize("length", [2, 5, 16, 100, 1024])
def test_transforms_of_other_dtypes(dtype: str, length: int) -> None:
    """Signals of every length, shorter and longer than the transform."""
    tolerance = {"float16": 2e-3, "bfloat16": 2e-2, "float64": 1e-12}[dtype]
    for parts, inverse in ((1, 0), (2, 0), (2, 1)):
        x = values(3, length, parts, dtype=dtype)
        for wanted in (None, np.array(length + 3), np.array(max(1, length - 3))):
            native("DFT", [x, wanted], inverse=inverse, tolerance=tolerance)
        if parts == 1 or inverse:
            native("DFT", [x], inverse=inverse, onesided=1, tolerance=tolerance)


@pytest.mark.parametrize("dtype", FLOATS)
def test_frames(dtype: str) -> None:
    tolerance = {"float16": 2e-3, "bfloat16": 2e-2}.get(dtype, 1e-5 if dtype == "float32" else 1e-12)
    x, window = values(2, 1300, 1, dtype=dtype), values(600, dtype=dtype, seed=1)
    for size in (16, 600):
        for fed in ((0,), (0, 2)):
            native("STFT", [x, np.array(7), window[:size].copy()], fed=fed, tolerance=tolerance)
        native("STFT", [x, np.array(9), None, np.array(size)], tolerance=tolerance)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integers_by_way_of_floats(dtype: str) -> None:
    x, grid = values(2, 3, 6, 7, dtype=dtype), values(2, 4, 5, 2, seed=1) / 2
    native("GridSample", [x, grid], fed=(0, 1), mode="nearest")
    if not dtype.endswith(("8", "16")):
        native("ReduceMean", [x, np.array([1, 3])])
        native("ReduceL2", [x, np.array([0])], keepdims=0)
        native("PRelu", [x, values(3, 1, 1, dtype=dtype, seed=1)], fed=(0, 1))
    if not dtype.endswith("64"):
        native("Shrink", [x], lambd=2.5, bias=1.0)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"])
def test_what_is_no_number_in_eight_bits(dtype: str) -> None:
    x = np.arange(256, dtype=np.uint8).view(getattr(ml_dtypes, dtype))
    native("IsNaN", [x])
    for low, high in ((1, 1), (0, 1), (1, 0), (0, 0)):
        native("IsInf", [x], detect_negative=low, detect_positive=high)


def test_blocks_of_truth_values() -> None:
    native("Col2Im", [values(2, 12, 20, dtype="bool"), np.array([5, 6]), np.array([2, 2])])


@pytest.mark.parametrize("dtype", FLOATS)
def test_means(dtype: str) -> None:
    native("Mean", [values(3, 4, dtype=dtype, seed=i) for i in range(3)], fed=(0, 1, 2))


@pytest.mark.parametrize("fed", [(0, 2, 4), (0, 1, 2, 3, 4)])
def test_deformed_convolutions_of_float64(fed: tuple[int, ...]) -> None:
    x, w = values(2, 4, 8, 9, dtype="float64"), values(6, 2, 3, 3, dtype="float64", seed=1)
    offset = values(2, 18, 8, 9, dtype="float64", seed=2)
    bias, mask = values(6, dtype="float64", seed=3), values(2, 9, 8, 9, dtype="float64", seed=4)
    native("DeformConv", [x, w, offset, bias, mask], fed=fed, group=2, pads=[1, 1, 1, 1])


@pytest.mark.parametrize(
    "shapes",
    [
        ((300, 70), (300, 70)),
        ((1, 70), (300, 1)),
        ((70,), (400, 3, 70)),
        ((20000,), (0, 1)),
        ((), (3, 20000)),
        ((1, 1, 40000), (1,)),
    ],
)
def test_large_arrays_are_computed_part_by_part(shapes: tuple[tuple[int, ...], ...]) -> None:
    x, y = (values(*shape, seed=seed) for seed, shape in enumerate(shapes))
    for op_type in ("Pow", "Mod", "Greater"):
        model, _ = one_node(op_type, [x, y], **({"fmod": 1} if op_type == "Mod" else {}))
        node = model.graph[0]
        (found,) = find("", op_type).evaluate(node, [x, y])
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64), y.astype(np.float64)
            wanted = {"Pow": np.power, "Mod": np.fmod, "Greater": np.greater}[op_type](*wide)
        assert found.dtype == (np.bool_ if op_type == "Greater" else np.float32)
        np.testing.assert_array_equal(found, wanted.astype(found.dtype))
