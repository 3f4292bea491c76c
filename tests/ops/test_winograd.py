"""Which convolutions of a model take Winograd's algorithm, and the session option that turns it off."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

import ingot
from ingot.kernels.conv import definition


def run(
    x: np.ndarray,
    w: np.ndarray,
    enable_winograd: bool,
    threads: int = 1,
    *,
    turned: bool = False,
    **attributes: object,
) -> np.ndarray:
    """Relu(Conv(Conv 1×1 identity(x), w)): the second convolution reads channels-last memory. turned:
    Relu(Conv(x, w)), which reads what the caller gives.
    """
    channels = x.shape[1]
    identity = np.eye(channels, dtype=x.dtype).reshape(channels, channels, *[1] * (x.ndim - 2))
    pads = [taps // 2 for taps in w.shape[2:]] * 2
    dtype = helper.np_dtype_to_tensor_dtype(x.dtype)
    before = [] if turned else [helper.make_node("Conv", ["x", "i"], ["a"])]
    graph = helper.make_graph(
        [
            *before,
            helper.make_node("Conv", ["x" if turned else "a", "w"], ["b"], pads=pads, **attributes),
            helper.make_node("Relu", ["b"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", dtype, x.shape)],
        [helper.make_tensor_value_info("y", dtype, None)],
        [numpy_helper.from_array(identity, "i"), numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])
    options = ingot.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_winograd = enable_winograd
    options.enable_amx = False  # which Winograd's algorithm is not used beside
    (y,) = ingot.InferenceSession(model, options).run(None, {"x": x})
    return y


def image_and_filters(
    channels: int, outputs: int, size: int, groups: int = 1, kernel: tuple[int, ...] = (3, 3)
) -> tuple[np.ndarray, np.ndarray]:
    """Images of so many rows and columns, or lines of as many values."""
    rng = np.random.default_rng(0)
    shape = (size, size) if len(kernel) == 2 else (size * size,)
    x = rng.standard_normal((2, channels, *shape)).astype(np.float32)
    return x, rng.standard_normal((outputs, channels // groups, *kernel)).astype(np.float32)


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (3, 1), (1, 5), (1, 7), (3,), (5,), (4,)], ids=str)
def test_on_and_off(kernel: tuple[int, ...]) -> None:
    """Both are right; they round differently, and no number of threads changes a bit of either."""
    x, w = image_and_filters(48, 40, 30, kernel=kernel)
    pads = [taps // 2 for taps in kernel]
    image, filters = (x, w) if len(kernel) == 2 else (x[:, :, None], w[:, :, None])
    around = [*([0] if len(kernel) == 1 else []), *pads] * 2
    want = np.maximum(definition(image, filters, (1, 1), around, (1, 1), 1), 0)
    want = want if len(kernel) == 2 else want[:, :, 0]
    on, off = run(x, w, True), run(x, w, False)
    for got, bound in ((on, 2e-5), (off, 4e-6)):
        assert np.abs(got - want).max() <= bound * np.abs(want).max()
    assert not np.array_equal(on, off)
    for threads in (2, 3):
        np.testing.assert_array_equal(run(x, w, True, threads), on)


@pytest.mark.parametrize("kernel", [(3, 3), (3, 1), (5,), (3, 3, 3)], ids=str)
def test_an_image_whose_channels_lie_apart_is_turned(kernel: tuple[int, ...]) -> None:
    """As the caller gives it, or a normalisation leaves it; the result is that of the same image turned."""
    channels, size = 64, 24
    rng = np.random.default_rng(1)
    shape = (6, size, size) if len(kernel) == 3 else (size,) * 2 if len(kernel) == 2 else (size * size,)
    x = rng.standard_normal((2, channels, *shape)).astype(np.float32)
    w = rng.standard_normal((channels, channels, *kernel)).astype(np.float32)
    on = run(x, w, True, turned=True)
    np.testing.assert_array_equal(on, run(x, w, True))
    off = run(x, w, False, turned=True)
    assert np.abs(on - off).max() <= 2e-5 * np.abs(off).max()
    assert not np.array_equal(on, off)
    np.testing.assert_array_equal(run(x, w, True, 3, turned=True), on)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (5,)], ids=str)
@pytest.mark.parametrize(
    ("channels", "outputs", "groups", "attributes"),
    [
        (48, 40, 1, {"strides": 2}),
        (48, 40, 1, {"dilations": 2}),
        (64, 64, 2, {"group": 2}),
        (8, 40, 1, {}),
        (48, 8, 1, {}),
    ],
    ids=["strides", "dilations", "groups", "few inputs", "few outputs"],
)
def test_others_are_direct(
    channels: int, outputs: int, groups: int, attributes: dict[str, int], kernel: tuple[int, ...]
) -> None:
    """They are computed in the same way with the option on and off."""
    x, w = image_and_filters(channels, outputs, 30, groups, kernel)
    given = {name: value if name == "group" else [value] * len(kernel) for name, value in attributes.items()}
    np.testing.assert_array_equal(run(x, w, True, **given), run(x, w, False, **given))


@pytest.mark.parametrize("kernel", [(3, 3), (5,)], ids=str)
def test_half_precision(kernel: tuple[int, ...]) -> None:
    """Between its points all is float32, so results differ from the direct ones' by a rounding at most."""
    x, w = image_and_filters(48, 40, 30, kernel=kernel)
    x, w = x.astype(np.float16), w.astype(np.float16)
    on, off = (run(x, w, enabled).astype(np.float32) for enabled in (True, False))
    assert np.abs(on - off).max() <= np.finfo(np.float16).eps * np.abs(off).max()
    assert not np.array_equal(on, off)


def test_options_say_so() -> None:
    assert ingot.SessionOptions().enable_winograd
