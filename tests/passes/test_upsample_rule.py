"""Transposed convolutions as ordinary ones: where filters do not meet, and where they are left alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from ingot.passes.rules.upsample import filters_that_do_not_meet
from tests.passes.graphs import keeps_function, ops, parse, with_weights

RNG = np.random.default_rng(2)
FEEDS = [{"x": RNG.standard_normal((n, 3, 4, 5)).astype(np.float32)} for n in (1, 2)]


def model(attributes: str, filters: int, size: tuple[int, int], bias: bool) -> ir.Model:
    text = f"""g (float[N, 3, 4, 5] x, float[3, {filters}, {size[0]}, {size[1]}] w, float[{filters}] b)
        => (float[N, {filters}, H, W] y) {{
            y = ConvTranspose <{attributes}> (x, w{", b" if bias else ""})
        }}"""
    weights = {"w": RNG.standard_normal((3, filters, *size)).astype(np.float32)}
    weights["b"] = RNG.standard_normal(filters).astype(np.float32)
    return with_weights(parse(text), **weights)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("filters", "size"), [(1, 2), (2, 2), (2, 3), (1, 4)])
def test_filters_that_do_not_meet(filters: int, size: int, bias: bool) -> None:
    one = model(f"strides = [{size}, {size}]", filters, (size, size), bias)
    count = keeps_function(one, lambda m: filters_that_do_not_meet(m, standard=False), FEEDS)
    assert count == 1
    assert ops(one) == ["Conv", "DepthToSpace"]


@pytest.mark.parametrize(
    ("attributes", "filters", "size"),
    [
        ("strides = [2, 2]", 3, (2, 2)),
        ("strides = [2, 2]", 2, (3, 3)),
        ("strides = [3, 3]", 2, (2, 2)),
        ("strides = [2, 3]", 2, (2, 3)),
        ("strides = [2, 2], dilations = [2, 2]", 2, (2, 2)),
        ("strides = [2, 2], pads = [1, 0, 0, 0]", 2, (2, 2)),
        ("strides = [2, 2], output_padding = [1, 1]", 2, (2, 2)),
        ("strides = [2, 2], output_shape = [7, 9]", 2, (2, 2)),
        ("group = 1", 2, (1, 1)),
    ],
)
def test_others_stay(attributes: str, filters: int, size: tuple[int, int]) -> None:
    one = model(attributes, filters, size, bias=True)
    assert filters_that_do_not_meet(one, standard=False) == 0
    assert ops(one) == ["ConvTranspose"]


def test_files_keep_them() -> None:
    assert filters_that_do_not_meet(model("strides = [2, 2]", 1, (2, 2), bias=True)) == 0
