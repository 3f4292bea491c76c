"""Rows on tensors without axes and without elements, on NaN, and on what torch allows and ONNX does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ingot
from ingot.calls import ingot_runner
from ingot.capture.attempt import capture
from ingot.errors import IngotError
from ingot.verify import verify_capture
from tests.capture.support import OrtError, ort_runner, parity, seeded

torch.manual_seed(0)
R, Z = torch.randn, torch.zeros
NAN, INF = math.nan, math.inf


def ids(*values: int) -> torch.Tensor:
    return torch.tensor(values)


NUMBER, PLACE = torch.tensor(2.5), torch.tensor(0)
NOWHERE = Z(0, dtype=torch.int64)


@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "amax", "amin"])
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize(
    ("x", "index", "src"),
    [
        (NUMBER, PLACE, torch.tensor(-1.0)),
        (NUMBER, ids(0), R(1)),
        (R(3), PLACE, torch.tensor(4.0)),
        (R(3), PLACE, R(2)),
        (R(3, 4), NOWHERE, R(2)),
        (NUMBER, NOWHERE, R(0)),
        (Z(0, 3), Z(0, 2, dtype=torch.int64), Z(0, 2)),
    ],
    ids=["0d", "0d-1", "1-0d", "1-0d-long", "nowhere", "0d-nowhere", "empty"],
)
def test_scatter(
    reduce: str, include_self: bool, x: torch.Tensor, index: torch.Tensor, src: torch.Tensor
) -> None:
    """Places, values and targets without axes or elements, for every kind of scatter."""

    def scattered(x: torch.Tensor, index: torch.Tensor, src: torch.Tensor) -> Any:
        return (
            x.scatter_reduce(-1, index, src, reduce, include_self=include_self),
            x.scatter(-1, index, src),
            x.scatter(-1, index, 3.0),
            x.scatter_add(-1, index, src),
        )

    parity(scattered, (x, index, src), dynamic_shapes=None)


@pytest.mark.parametrize(
    ("x", "index"),
    [
        (NUMBER, PLACE),
        (NUMBER, ids(0, 0)),
        (R(3), PLACE),
        (R(3, 4), NOWHERE),
        (NUMBER, NOWHERE),
        (Z(0), NOWHERE),
    ],
)
def test_gather(x: torch.Tensor, index: torch.Tensor) -> None:
    """One element for each position, also where either has no axis, or there is no position."""
    parity(lambda x, i: x.gather(-1, i), (x, index), dynamic_shapes=None)


def test_take() -> None:
    """Elements counted along all axes, by one number or many, from the end too."""
    parity(lambda x, i: x.take(i), (R(3, 4), torch.tensor(-5)), dynamic_shapes=None)
    parity(lambda x, i: x.take(i), (R(3, 4), ids(1, -1, 11)), (R(2, 3), ids(-6, 5)))


@pytest.mark.parametrize("x", [NUMBER, Z(0, 0, 0), Z(0, 3), R(2, 3)])
def test_roll(x: torch.Tensor) -> None:
    """Nothing to shift, or no axis to shift along."""
    parity(lambda x: x.roll(2), (x,), dynamic_shapes=None)
    if x.dim():
        parity(lambda x: x.roll((1, -5), (0, -1)), (x,), dynamic_shapes=None)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        (
            "...ik, ...j -> ij",
            [(1, 2, 3), (3,)],
        ),  # other axes in each, summed over
        ("...i, ...i -> ...", [(4,), (4,)]),  # for none
        ("...i, i... -> ...", [(2, 4), (4,)]),
        ("...ij, ...j -> ...i", [(2, 1, 3, 4), (5, 4)]),  # broadcast
        ("i..., i... -> ...", [(4, 2, 3), (4, 3)]),
        ("...i -> i", [(2, 3, 4)]),
        ("i, j", [(4,), (5,)]),
        ("ii -> i", [(3, 3)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    """Ellipses as torch has them."""
    operands = tuple(R(s) for s in shapes)
    parity(lambda *xs: torch.einsum(equation, *xs), operands, dynamic_shapes=None)


WITH_NAN = torch.tensor([[1.0, NAN, 3.0, -INF], [5.0, 2.0, INF, 0.0], [-1.0, 4.0, 2.0, NAN]])
EXTREMES: dict[str, Callable[[torch.Tensor], Any]] = {
    "amax": lambda x: (x.amax(), x.amax(0), x.amax((0, 1), keepdim=True)),
    "amin": lambda x: (x.amin(), x.amin(-1), x.amin(0, keepdim=True)),
    "max": lambda x: (x.max(), x.max(0), x.max(1, keepdim=True)),
    "min": lambda x: (x.min(), x.min(0), x.min(1, keepdim=True)),
    "argmax": lambda x: (x.argmax(), x.argmax(0), x.argmax(1, keepdim=True)),
    "argmin": lambda x: (x.argmin(), x.argmin(0), x.argmin(1, keepdim=True)),
    "aminmax": lambda x: (torch.aminmax(x), torch.aminmax(x, dim=1)),
    "norms": lambda x: (x.norm(INF), torch.linalg.vector_norm(x, -INF, 1), torch.cdist(x, x, INF)),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_see_nan(name: str) -> None:
    """A NaN behind a number is the extreme, and its place is the first NaN's; in other runtimes, too."""
    x = WITH_NAN if name != "norms" else WITH_NAN.nan_to_num(NAN, 9.0, -9.0)
    parity(EXTREMES[name], (x,), (R(5, 2),))


def test_a_nan_belongs_behind_all_boundaries() -> None:
    """And the infinities where their order says; in 32 bits and 64, among boundaries of any number."""
    kinds = [{"right": r, "out_int32": i} for r in (False, True) for i in (False, True)]

    def places(x: torch.Tensor, edges: torch.Tensor) -> Any:
        rows = edges.repeat(x.shape[0], 1)
        found = [(torch.bucketize(x, edges, **k), torch.searchsorted(edges, x, **k)) for k in kinds]
        return found, torch.searchsorted(rows, x), torch.bucketize(x[0], ids(0, 1, 2).float(), right=True)

    parity(places, (WITH_NAN, torch.tensor([-INF, -1.0, 2.0, INF])), (WITH_NAN, Z(1)), (WITH_NAN, Z(0)))


def test_extremes_of_integers_and_truth() -> None:
    """These have no NaN to look for."""
    parity(lambda x: (x.amax(0), x.max(1), x.argmin(), (x > 1).amax(0)), (ids(3, 1, 2, 2, 0, 5).view(2, 3),))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0), (2, 3)])
def test_truth_of_nothing(shape: tuple[int, ...]) -> None:
    """Of no elements none is true, and all are; without any dimension each stands for itself."""

    def truth(x: torch.Tensor) -> Any:
        over = (x.any(), x.any(0), x.any(1, keepdim=True), x.any((0, 1)), (x > 0).any((0, 1), keepdim=True))
        every = (x.all(), x.all(0), x.all(1, keepdim=True), x.all((0, 1)), (x > 0).all(-1))
        bytes_ = x.to(torch.uint8)
        return *over, *every, x.any(()), x.all(()), bytes_.any(), bytes_.all(1), torch.complex(x, x).any()

    parity(truth, (torch.arange(20.0).reshape(4, 5) % 3,), (Z(*shape),), (torch.ones(shape) * 2,))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_output_padding_beyond_the_stride(dims: int, padding: int, bias: bool) -> None:
    """A dilation allows it: elements that are there already, and then such that only the bias is in."""
    conv = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)[dims - 1]
    layer = conv(2, 3, 2, stride=1, padding=padding, output_padding=2, dilation=3, bias=bias)
    parity(layer, (R(2, 2, *[4, 5, 3][:dims]),))


@pytest.mark.parametrize("opset", [20, 21])
@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3), (2, 4, 0), (2, 4)])
def test_group_norm(shape: tuple[int, ...], opset: int) -> None:
    """Batches and images without elements, and no image at all."""

    def normed(x: torch.Tensor, w: torch.Tensor) -> Any:
        n, c, *rest = x.shape
        native = torch.ops.aten.native_group_norm(x, w, w, n, c, math.prod(rest), 2, 1e-5)
        return F.group_norm(x, 2, w, w), native[0]

    parity(normed, (R(shape), R(4)), dynamic_shapes=None, opset=opset)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (0, 3, 4), (2, 3, 0)])
def test_batch_norm_of_nothing(shape: tuple[int, ...], training: bool) -> None:
    """An empty batch stays one, and leaves running statistics alone."""
    channels = shape[1] if len(shape) > 1 else 0

    def normed(x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        return torch.batch_norm(x, None, None, mean, var, training, 0.1, 1e-5, False)

    parity(normed, (R(shape), R(channels), torch.rand(channels)), dynamic_shapes=None)


def test_instance_norm_moves_its_statistics() -> None:
    """As layers with track_running_stats do in training: towards the mean over the batch."""

    def normed(x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor) -> Any:
        mean, var = mean.clone(), var.clone()
        y = F.instance_norm(x, mean, var, use_input_stats=True, momentum=0.3)
        return y, mean, var

    parity(normed, (R(2, 3, 4, 5), R(3), torch.rand(3)), (R(1, 3, 7, 2), R(3), torch.rand(3)))


@pytest.mark.parametrize(
    "function",
    [
        torch.special.gammainc,
        torch.special.gammaincc,
        torch.special.zeta,
        torch.special.chebyshev_polynomial_t,
        torch.special.legendre_polynomial_p,
    ],
)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (3,)])
def test_series_over_nothing(function: Callable[..., Any], shape: tuple[int, ...]) -> None:
    """What a series needs most is asked of elements that may not be there."""
    parity(function, (torch.rand(shape) * 3 + 1.5, torch.rand(shape) * 3 + 0.5), dynamic_shapes=None)


@pytest.mark.parametrize("shape", [(1, 2, 12), (2, 1, 7)])
@pytest.mark.parametrize("spatial", [2, 3])
def test_fractional_max_pool_by_any_sample(shape: tuple[int, ...], spatial: int) -> None:
    """torch cuts products off towards zero; samples below it show that."""
    pool = F.fractional_max_pool2d if spatial == 2 else F.fractional_max_pool3d

    def pooled(x: torch.Tensor, u: torch.Tensor) -> Any:
        return pool(x, 2, output_size=3, _random_samples=u, return_indices=True)

    x, u = R(*shape[:2], *[shape[2]] * spatial), torch.rand(*shape[:2], spatial)
    parity(pooled, (x, u), dynamic_shapes=None)
    parity(pooled, (x, u - 0.4), dynamic_shapes=None)


@pytest.mark.parametrize("dim", [None, 0, 1])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 3), (4, 2)])
def test_unique_consecutive(shape: tuple[int, ...], dim: int | None) -> None:
    """Nothing has no runs."""
    if dim is not None and (dim >= len(shape) or (0 in shape and shape[dim])):
        pytest.skip("torch has no such axis, or refuses it")
    x = torch.randint(0, 2, shape)
    parity(lambda x: torch.unique_consecutive(x, True, True, dim), (x,), dynamic_shapes=None)
    if 0 not in shape:  # of a symbolic size, which may be 0
        captured = capture(lambda x: torch.unique_consecutive(x, True, True, dim), (x,))
        report = verify_capture(captured, runner=ingot_runner)
        empty = [c.sizes for c in report.cases if 0 in c.sizes.values()]
        assert empty and not captured.assumptions and not report.unverified, report


def test_unique_along_a_dimension_from_the_end() -> None:
    """It has the rank of its input, which the declared shapes say as well."""

    def values(x: torch.Tensor) -> Any:
        runs, inverse, counts = torch.unique_consecutive(x, True, True, dim=-2)
        return torch.unique(x, dim=-1), runs, inverse, counts, runs.flatten(), runs.dim()

    captured = capture(values, (torch.randint(0, 2, (3, 4)),))
    ranks = [len(v.shape or ()) for v in captured.model.graph.outputs]
    assert ranks == [2, 2, 1, 1, 1]
    parity(values, (torch.randint(0, 2, (5, 2)),), dynamic_shapes=None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_every_nan_is_unique(dtype: torch.dtype) -> None:
    """Behind all numbers, in the order that they come in, which torch leaves open."""

    def values(x: torch.Tensor) -> Any:
        return torch.unique(x, return_counts=True)

    def all_of(x: torch.Tensor) -> Any:
        found, places, counts = torch.unique(x, return_inverse=True, return_counts=True)
        return found, torch.where(x.isnan(), -1, places), counts

    x = torch.tensor([[NAN, 1.0], [2.0, NAN], [1.0, NAN], [INF, -0.0]]).to(dtype)
    for case in (x, x[2:], x[:1, :1], torch.zeros(0, 2, dtype=dtype), torch.ones(3, 1, dtype=dtype)):
        for function in (values, all_of):
            got = ingot.export(function, (x,))(case)
            for a, b in zip(got, function(case), strict=True):
                np.testing.assert_array_equal(a.astype(np.float64), b.double().numpy())
    noted = verify_capture(capture(lambda x: torch.unique(x, return_inverse=True), (x.float().repeat(9, 1),)))
    assert all("unique at" in line for line in noted.unverified), noted.unverified


@pytest.mark.parametrize("p", [0, 1, 2, 3, INF])
def test_distances_of_no_columns(p: float) -> None:
    """All are 0."""
    parity(lambda a, b: torch.cdist(a, b, p), (R(4, 3), R(2, 3)), (R(4, 0), R(2, 0)), (R(0, 3), R(2, 3)))


RESHAPES: dict[str, tuple[Callable[..., Any], tuple[int, ...], list[tuple[int, ...]]]] = {
    "there and back": (
        lambda x: x.reshape(-1, x.shape[-1]).view(x.shape),
        (2, 3, 4),
        [(0, 0, 4), (0, 3, 4), (2, 0, 4)],
    ),
    "merged": (lambda x: x.flatten(1), (2, 3, 4, 5), [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 4, 0)]),
    "kept beside merged": (
        lambda x: x.flatten(2).transpose(1, 2),
        (2, 3, 4, 5),
        [(0, 3, 4, 5), (0, 3, 0, 7)],
    ),
    "split": (lambda x: x.unflatten(1, (2, -1)), (2, 6, 4), [(0, 6, 4), (3, 0, 4), (1, 8, 0)]),
    "masked": (lambda x: x[:, x[0] > 0], (2, 3, 4), [(2, 0, 4), (2, 3, 0)]),
}


@pytest.mark.parametrize("name", RESHAPES)
def test_reshape_of_nothing(name: str) -> None:
    """Any dynamic size may be 0: it is no copied size then, and leaves no -1 to guess."""
    function, shape, others = RESHAPES[name]
    parity(function, (R(shape),), *[(R(s),) for s in others])


def test_write_into_a_reshaped_nothing() -> None:
    """The way back from a view is a Reshape, too."""

    def written(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y.view(-1, y.shape[-1]).mul_(2)
        return y

    parity(written, (R(2, 3, 4),), (R(0, 3, 4),), (R(2, 0, 4),), (R(0, 0, 4),))


def test_group_norm_of_any_batch() -> None:
    """Also of a batch of 0 where the sizes of the images are dynamic."""
    shapes = [(0, 4, 3, 5), (1, 4, 6, 2)]
    dims = ({0: "batch", 2: "height", 3: "width"},)
    parity(lambda x: F.group_norm(x, 2), (R(2, 4, 3, 5),), *[(R(s),) for s in shapes], dynamic_shapes=dims)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
def test_group_norm_of_any_channels(dtype: torch.dtype) -> None:
    """Without weights nothing says how many there are; those that make up no groups fail."""

    def function(x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, 2)

    inputs = [(R(*s).to(dtype),) for s in ((2, 4, 3, 5), (1, 6, 2, 2), (3, 2, 1, 4))]
    captured = parity(function, *inputs, tolerance=2e-3 if dtype == torch.float16 else 1e-5)
    odd = captured.feeds([R(1, 3, 2, 2).to(dtype)])
    with pytest.raises(OrtError):
        ort_runner(captured.model)(odd, captured.output_names)


SIGNED = torch.tensor([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 1e-42, -3e38, 0.3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("opset", [18, 20])
def test_atan2_of_signed_zeros_and_infinities(dtype: torch.dtype, opset: int) -> None:
    """Every pair; 1 / angle shows the sign of an angle of 0."""
    y, x = (v.clone().to(dtype) for v in torch.meshgrid(SIGNED, SIGNED, indexing="ij"))

    def angles(y: torch.Tensor, x: torch.Tensor) -> Any:
        angle = torch.atan2(y, x)
        return angle, (1 / angle) > 0

    tolerance = 2e-3 if dtype == torch.float16 else 2e-5  # two roundings of half precision
    parity(angles, (y, x), dynamic_shapes=None, opset=opset, tolerance=tolerance)
    parity(lambda x: torch.atan2(x, -x), (SIGNED,), (R(3),))


def test_atan2_of_integers() -> None:
    """They have one zero."""
    parity(torch.atan2, (ids(0, 0, 2, -3), ids(0, -1, 0, -5)))


@pytest.mark.parametrize("window", [None, torch.hann_window(16)])
def test_istft_of_any_batch(window: torch.Tensor | None) -> None:
    """torch adds up one envelope of windows for all signals."""

    def back(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, 16, 4, window=window, return_complex=True)
        return torch.istft(spectrum, 16, 4, window=window)

    parity(back, (R(3, 64),), (R(1, 64),), (R(5, 80),))


@pytest.mark.parametrize("extra", [-9, 0, 5, 40])
@pytest.mark.parametrize("center", [True, False])
def test_istft_to_the_signals_own_length(extra: int, center: bool) -> None:
    """Cut off, or filled up with zeros where no frame reaches."""
    window = torch.linspace(0.5, 1, 16)

    def back(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, 16, 4, window=window, center=center, return_complex=True)
        return torch.istft(spectrum, 16, 4, window=window, center=center, length=x.shape[-1] + extra)

    parity(back, (R(3, 64),), (R(1, 61),), (R(2, 83),))


def test_istft_of_complex_signals() -> None:
    def back(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(torch.complex(x, -x), 16, 4, onesided=False, return_complex=True)
        return torch.view_as_real(torch.istft(spectrum, 16, 4, length=x.shape[-1], return_complex=True))

    parity(back, (R(64),), (R(61),))


def test_windows_that_leave_a_gap() -> None:
    """torch refuses them; the model checks the window that it is given."""

    def back(x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, 16, 4, window=window, return_complex=True)
        return torch.istft(spectrum, 16, 4, window=window)

    program = ingot.export(back, (R(3, 64), torch.ones(16)))
    with pytest.raises(RuntimeError, match="window overlap add min"):
        back(R(3, 64), torch.zeros(16))
    with pytest.raises(IngotError, match="windows add up to more than 0"):
        program(R(3, 64), torch.zeros(16))


@pytest.mark.parametrize("shape", [(4, 6), (4, 1), (1, 5)])
def test_median_along_a_dynamic_axis(shape: tuple[int, ...]) -> None:
    """The axis is gone, whatever its size."""
    parity(lambda x: (x.median(-1).values, x.median(0).indices), (R(shape),), (R(3, 7),), (R(1, 2),))


def test_threshold_and_sign_of_nan() -> None:
    """A NaN is not up to the threshold, and has no sign."""
    parity(lambda x: (F.threshold(x, 0.1, 20.0), x.sign(), x.sgn()), (SIGNED,))
    parity(lambda x: x.sign(), (ids(-3, 0, 2),))


def test_floor_division_and_remainder_are_exact() -> None:
    """Also where a quotient rounds to an integer, and for infinities, NaN and divisors of 0.

    Not where a quotient is beyond integers: there torch's vectors give NaN, its single elements a remainder.
    """
    ordinary = SIGNED[SIGNED.isnan() | SIGNED.isinf() | (SIGNED == 0) | (SIGNED.abs() == 1)]
    some = torch.cat([ordinary, torch.arange(-9, 10) * 0.1, R(8) * 100])
    x, y = (v.contiguous() for v in torch.meshgrid(some, some, indexing="ij"))

    def parts(x: torch.Tensor, y: torch.Tensor) -> Any:
        floor = torch.floor_divide(x, y)
        return floor, x // 0.3, torch.div(x, y, rounding_mode="floor"), x % y, (1 / floor) > 0

    parity(parts, (x, y), (R(2, 3), R(2, 3)))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8])
def test_division_of_the_largest_integers(dtype: torch.dtype) -> None:
    """What is left of a quotient never passes the dtype's ends. The smallest by -1 has no quotient."""
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    ends = [low, low + 1, low + 2, -7, -1, 0, 1, 5, high - 1, high]
    numbers = torch.tensor([n for n in ends if n >= low], dtype=dtype)
    divisors = torch.tensor([n for n in [*ends[:4], -3, -2, 2, 3, 7, high] if n and n >= low], dtype=dtype)
    x, y = (v.contiguous() for v in torch.meshgrid(numbers, divisors, indexing="ij"))

    def parts(x: torch.Tensor, y: torch.Tensor) -> Any:
        rounded = [torch.div(x, y, rounding_mode=m) for m in ("floor", "trunc")]
        return x // y, x // 3, x % y, torch.fmod(x, y), *rounded

    few = (torch.tensor([10, 20], dtype=dtype), torch.tensor([3, 3], dtype=dtype))
    ran = ingot.export(parts, few, verify=False)(x.flatten(), y.flatten())
    names = ("//", "// 3", "%", "fmod", "floor", "trunc")
    for name, got, want in zip(names, ran, parts(x.flatten(), y.flatten()), strict=True):
        np.testing.assert_array_equal(got, want.numpy(), err_msg=name)


def test_rows_that_onnx_has_for_floats_alone() -> None:
    """Sums without NaN of integers, -x of bytes, extremes of truth values, and operands of other dtypes."""
    truths = torch.tensor([[True, False, False], [False, True, True]])
    parity(
        lambda b: (*b.max(1), *b.min(0), b.amax(1), b.amin(0), torch.maximum(b, ~b), torch.min(b, ~b)),
        (truths,),
        (truths.T.contiguous(),),
    )
    parity(lambda i: (i.nansum(), -i.to(torch.uint8), i.nansum(0)), (ids(1, 2, 200),), (ids(0, 255),))
    parity(
        lambda x, i, d: (torch.addcmul(x, i, i, value=2), torch.addcdiv(x, d, i + 1), torch.addcdiv(x, x, i)),
        (R(3), ids(1, 2, 3), R(3).double()),
    )


def test_what_is_not_looked_at() -> None:
    """What a factor of 0 drops may be NaN."""
    nothing = torch.full((3, 3), NAN)
    parity(
        lambda c, a: (torch.addmm(c, a, a, beta=0), torch.addmv(c[0], a, a[0], beta=0)), (nothing, R(3, 3))
    )


def test_masks_of_bytes() -> None:
    """Bytes are truths where positions could stand."""
    mask = torch.tensor([0, 1, 0, 1, 2], dtype=torch.uint8)
    parity(
        lambda x, m, y: (x.index_put((m,), y), x.index_put((m,), y, accumulate=True)),
        (R(5), mask, R(3)),
        (R(5), mask.flip(0), R(3)),
    )


def test_shifts_by_more_bits_than_there_are() -> None:
    """All bits leave."""
    x, by = ids(1, 3, 5, -1, 7), ids(63, 64, 70, -1, 2)
    parity(lambda x, by: (x << by, x << 65, x.int() << by.int(), x >> by), (x, by), (x[:2], by[1:3]))


def test_repeated_no_times() -> None:
    """No row, where each is to stand there no times."""
    parity(lambda x: (x.repeat_interleave(0), x.repeat_interleave(0, dim=0), x[:1].expand(0, 4)), (R(3, 4),))


def test_patches_of_one_image() -> None:
    """Without a batch."""
    parity(lambda x: F.unfold(x, 2, stride=2, padding=1), (R(3, 4, 6),), (R(3, 6, 6),))


def test_spectrogram_aligned_to_the_window() -> None:
    """The first window begins at the first sample, where the frame is wider than it."""

    def spectrogram(x: torch.Tensor, width: int) -> torch.Tensor:
        options: dict[str, Any] = {"center": False, "align_to_window": True, "return_complex": True}
        return torch.view_as_real(torch.stft(x, 16, 4, width, torch.hann_window(width), **options))

    parity(lambda x: spectrogram(x, 8), (R(64),), (R(61),))
    parity(lambda x: spectrogram(x, 7), (R(64),), (R(77),))


def test_strides_from_the_beginning_of_the_memory() -> None:
    """An offset of 0 is where the whole tensor begins, not a part of it."""
    with pytest.raises(IngotError, match="memory layout"):
        ingot.export(lambda x: x[2:].as_strided((4,), (1,), 0), (R(6),))
    parity(
        lambda x: x.as_strided((6,), (1,), 0) + x[2:].as_strided((4,), (1,))[0], (R(6),), dynamic_shapes=None
    )


def test_strides_of_a_result_of_an_example_that_lies_otherwise() -> None:
    """It lies as the example does: the message says what to do about that."""
    with pytest.raises(IngotError, match=r"(?s)example's 'x' does not lie .* with \.contiguous\(\)"):
        ingot.export(lambda x: (x + 1).as_strided((4,), (1,)), (R(3, 2).t(),), input_names=["x"])


def test_inference_mode() -> None:
    """Inside it torch hands on what it takes apart outside of it: views stay views."""

    @torch.inference_mode()
    def forward(x: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x.clone()
        y.swapaxes(0, 1)[0] = 1
        y.movedim(0, 1)[1] = 3
        y.view_as(y)[0] += 5
        order = torch.argsort(x, dim=0, descending=True, stable=True)
        parts = x.chunk(2, 1)[0], *x.tensor_split(2), x.repeat_interleave(2, 0), x.flatten(), x.matmul(x.mT)
        return y, x.narrow(1, -2, 2), order, torch.take_along_dim(x, at, 1), *parts

    parity(forward, (R(4, 4), ids(0, 2).reshape(1, 2)), dynamic_shapes=None)
    parity(forward, (R(4, 4), ids(0, 2).reshape(1, 2)), (R(4, 6), ids(5, 2).reshape(1, 2)))
    assert forward(R(4, 4), ids(0, 2).reshape(1, 2))[0].is_inference(), "torch's own again"


class Weighed(torch.nn.Module):
    """A parameter, a view of it, a buffer that is copied and written to, and branches by data."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(R(4, 4))
        self.register_buffer("b", torch.arange(4.0))
        self.row = self.w.view(16)[:4]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        moved = self.b.clone()
        moved[0] = x.sum()
        return x @ self.w + moved if x.sum() > 0 else x * self.row


def test_weights_made_in_inference_mode() -> None:
    """They are weights as any other: torch's fake of such a tensor would be made in the mode, too."""
    seeded()
    with torch.inference_mode():
        model, layers = Weighed(), torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        free = R(3)
    parity(model, (R(2, 4).abs(),), (R(5, 4).abs(),), (-R(3, 4).abs(),))
    parity(layers.eval(), (R(2, 3, 5, 6),), (R(1, 3, 8, 4),))
    parity(lambda x: x * free, (R(2, 3),), (R(7, 3),))
    assert model.w.is_inference(), "left as it was"


def test_a_buffer_made_in_inference_mode_is_written_to() -> None:
    """As in PyTorch outside of the mode; the error says whose fault it is, and not that sizes are."""

    class Counter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("n", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.n += 1
            return x * self.n

    with torch.inference_mode():
        model = Counter()
    with pytest.raises(ingot.ExportError, match=r"made under torch\.inference_mode"):
        ingot.export(model, (R(2, 3),), state="inputs")


def test_inside_inference_mode() -> None:
    """What the model asks is answered as torch does; the mode around the export is there after it."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y.swapaxes(0, 1)[0] = 1
        return y if torch.is_inference_mode_enabled() else x

    x = R(4, 3)
    plain = ingot.export(forward, (x,))
    with torch.inference_mode():
        program = ingot.export(forward, (x,))
        assert torch.is_inference_mode_enabled()
        np.testing.assert_array_equal(program(x), forward(x).numpy())
    np.testing.assert_array_equal(plain(x), x.numpy())


@pytest.mark.parametrize("name", ["inv_ex", "lu_factor_ex", "cholesky_ex", "solve_ex"])
def test_checked_decompositions_are_assumed(name: str) -> None:
    """check_errors=True raises in torch: the program says what it takes for granted."""
    matrix = R(3, 3)
    matrix = matrix @ matrix.T + torch.eye(3)

    def forward(a: torch.Tensor) -> torch.Tensor:
        more = (a,) if name == "solve_ex" else ()
        return getattr(torch.linalg, name)(a, *more, check_errors=True)[0]

    program = ingot.export(forward, (matrix,))
    assert any("PyTorch raises" in a.what for a in program.assumptions)


@pytest.mark.parametrize("pad", [(-1, 2, 1, -1), (2, -2, -1, 1), (-1, -1, 0, 1)])
def test_a_mirror_of_what_is_cut_off_elsewhere(pad: tuple[int, ...]) -> None:
    """A border that is mirrored is the whole tensor's, also where the other end is cut off."""
    inputs = [(R(*s),) for s in ((2, 2, 5, 6), (1, 2, 2, 4), (2, 1, 3, 3))]
    parity(lambda x: F.pad(x, pad, "reflect"), *inputs)
    parity(lambda x: F.pad(x, pad, "replicate"), *inputs)
