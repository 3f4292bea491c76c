"""Resizing: tables against ONNX's reference, kernels against the tables."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.call import strides_in_order
from ingot.kernels.resize import Taps, definition, identity_taps, resize, taps
from tests.kernels.run import each_machine, machines, new, put, run_calls

COORDINATES = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]


def reference(
    x: np.ndarray, scales: list[float], roi: list[float] | None = None, **attributes: Any
) -> np.ndarray:
    """ONNX's Resize, opset 19."""
    node = helper.make_node("Resize", ["x", "roi" if roi else "", "scales"], ["y"], **attributes)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("roi", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, None),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = helper.make_model(
        helper.make_graph([node], "resize", inputs, outputs), opset_imports=[helper.make_opsetid("", 19)]
    )
    feeds = {"x": x, "roi": np.array(roi or [], np.float32), "scales": np.array(scales, np.float32)}
    return ReferenceEvaluator(model).run(None, feeds)[0]


@pytest.mark.parametrize("coordinates", [*COORDINATES, "tf_crop_and_resize"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_tables_mean_what_the_operator_says(mode: Any, coordinates: str) -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 1, 7)).astype(np.float32)
    rounds = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"] if mode == "nearest" else ["floor"]
    flags = [False] if mode == "nearest" else [False, True]
    # The reference counts in float64: the nearest of two is only the same where the scale is a short number.
    scales = (
        [0.25, 0.5, 0.75, 1.0, 2.0, 2.5, 3.0] if mode == "nearest" else [0.3, 0.5, 0.8, 1.0, 2.0, 2.4, 3.0]
    )
    for scale, nearest, exclude, antialias in itertools.product(scales, rounds, flags, flags):
        start, end = (0.2, 1.1) if coordinates == "tf_crop_and_resize" else (0.0, 1.0)
        if scale == 1.0 and coordinates == "tf_crop_and_resize":
            continue  # the reference takes it for an identity
        if scale % 1 and mode == "nearest" and coordinates == "half_pixel_symmetric":
            continue  # the middle of the image is no short number
        if int(7 * scale) == 1 and coordinates == "pytorch_half_pixel":
            continue  # the reference asks for the length before it is made whole
        if scale in (0.5, 0.8) and coordinates == "half_pixel_symmetric":
            continue  # the reference puts a coordinate of 1 + 2e-16 between 0 and 1
        attributes: dict[str, Any] = {"mode": mode, "nearest_mode": nearest, "extrapolation_value": 5.0}
        attributes |= {"coordinate_transformation_mode": coordinates, "exclude_outside": int(exclude)}
        attributes |= {"antialias": int(antialias), "cubic_coeff_a": -0.5}
        want = reference(x, [1, 1, 1, scale], [0, 0, 0, start, 1, 1, 1, end], **attributes)
        table = taps(
            mode, 7, want.shape[3], float(np.float32(scale)),
            coordinates=coordinates, nearest_mode=nearest, cubic_coeff_a=-0.5, exclude_outside=exclude,
            antialias=antialias, roi=(float(np.float32(start)), float(np.float32(end))),
        )  # fmt: skip
        got = definition(x, {3: table}, 5.0)
        np.testing.assert_allclose(
            got, want, rtol=5e-6, atol=5e-6, err_msg=f"{scale} {nearest} {exclude} {antialias}"
        )


@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize(
    "coordinates", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"]
)
def test_the_nearest_is_the_peers(coordinates: str, nearest: str) -> None:
    """At scales that are no short numbers, by scales and by sizes. Not half_pixel_symmetric, whose middle
    onnxruntime moves by a last place where a size is given.
    """
    attributes: dict[str, Any] = {"nearest_mode": nearest, "coordinate_transformation_mode": coordinates}
    by_scales, by_sizes = (_peer(by, extrapolation_value=-7.0, **attributes) for by in ("scales", "sizes"))
    rng, roi = np.random.default_rng(1), np.array([0.1, 0.9], np.float32)
    for scale in np.float32([1.7, 2.3, 0.3, 1.3, 2.5, 1.1, 2, 3, 0.5, *rng.uniform(0.1, 4, 12)]):
        for size in (1, 2, 3, 5, 10, 13, 17, 20, 30, 64, 127):
            out_size = int(np.floor(np.float32(size) * scale))
            if out_size in (0, size):
                continue  # of an unchanged size onnxruntime makes a copy
            x = np.arange(size, dtype=np.float32)
            calls = [(out_size / size, by_sizes, {"sizes": np.array([out_size])})]
            # Of align_corners and the like, ONNX takes a fraction for the length, onnxruntime a whole number.
            if coordinates in ("half_pixel", "asymmetric"):
                calls.append((float(scale), by_scales, {"scales": np.array([scale])}))
            for factor, peer, feed in calls:
                (want,) = peer.run(None, {"x": x, "roi": roi, **feed})
                table = taps(
                    "nearest", size, out_size, factor, coordinates=coordinates, nearest_mode=nearest,
                    roi=(float(roi[0]), float(roi[1])),
                )  # fmt: skip
                got = definition(x, {0: table}, -7.0)
                np.testing.assert_array_equal(got, want, err_msg=f"{size} to {out_size} by {factor}")


def _peer(by: str, **attributes: Any) -> onnxruntime.InferenceSession:
    kinds = {"x": TensorProto.FLOAT, "roi": TensorProto.FLOAT}
    kinds[by] = TensorProto.FLOAT if by == "scales" else TensorProto.INT64
    names = ["x", "roi", "scales"] if by == "scales" else ["x", "roi", "", "sizes"]
    graph = helper.make_graph(
        [helper.make_node("Resize", names, ["y"], mode="nearest", **attributes)],
        "resize",
        [
            helper.make_tensor_value_info(name, kind, [{"x": None, "roi": 2}.get(name, 1)])
            for name, kind in kinds.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def check(
    machine: Machine,
    x: np.ndarray,
    axes: dict[int, Taps],
    out_order: tuple[int, ...],
    extrapolation: float = 0.0,
) -> None:
    want = definition(x, axes, extrapolation)
    out = new(want.shape, x.dtype, strides_in_order(want.shape, out_order))
    (got,) = run_calls(resize(put(x), out, axes, machine, extrapolation), out, machine=machine)
    if x.dtype == np.float32:
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    elif x.dtype == np.float64:
        np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-13)
    else:
        np.testing.assert_array_equal(got, want)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_images(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 5))
    mode = data.draw(st.sampled_from(["nearest", "linear", "cubic"]))
    shape = [data.draw(st.integers(1, 40 if d == 1 else 9)) for d in range(rank)]
    order = tuple(data.draw(st.permutations(range(rank))))
    resized = sorted(data.draw(st.sets(st.sampled_from(range(rank)), max_size=3)))
    crop = data.draw(st.integers(0, 3)) == 0
    axes = {}
    for d in resized:
        out_size = data.draw(st.integers(1, 20))
        axes[d] = taps(
            mode, shape[d], out_size, out_size / shape[d],
            coordinates="tf_crop_and_resize" if crop else data.draw(st.sampled_from(COORDINATES)),
            antialias=mode != "nearest" and data.draw(st.booleans()), roi=(-0.1, 0.8),
        )  # fmt: skip
    rng = np.random.default_rng(0)
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    if mode == "nearest" and not crop:
        dtype = data.draw(st.sampled_from(["float32", "int8", "int64", "float16", "bool", "float64"]))
    stored = (10 * rng.standard_normal([shape[d] for d in order])).astype(dtype)
    x = stored.transpose(np.argsort(order))
    out_order = order if data.draw(st.booleans()) else tuple(data.draw(st.permutations(range(rank))))
    check(data.draw(st.sampled_from(machines())), x, axes, out_order, extrapolation=7.0)


@each_machine
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("channels", [1, 3, 40])
def test_usual_layers(machine: Machine, mode: Any, channels: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 10, 13, channels)).astype(np.float32).transpose(0, 3, 1, 2)
    axes = {2: taps(mode, 10, 20, 2.0), 3: taps(mode, 13, 26, 2.0)}
    check(machine, x, axes, (0, 2, 3, 1))
    check(machine, np.ascontiguousarray(x), axes, (0, 1, 2, 3))


def test_nothing_to_do_is_a_copy() -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    check(machines()[0], x, {1: identity_taps(3)}, (0, 1, 2))


def test_refusals() -> None:
    machine, x = machines()[0], new((1, 4, 5, 5), "int8")
    with pytest.raises(UnsupportedOperatorError, match="int8"):
        resize(x, new((1, 4, 5, 10), "int8"), {3: taps("linear", 5, 10, 2.0)}, machine)
    with pytest.raises(UnsupportedOperatorError, match="'sideways'"):
        taps("nearest", 4, 8, 2.0, nearest_mode="sideways")
    with pytest.raises(UnsupportedOperatorError, match="'inside_out'"):
        taps("linear", 4, 8, 2.0, coordinates="inside_out")
    with pytest.raises(UnsupportedOperatorError, match="empty axis"):
        taps("linear", 0, 8, 2.0)
