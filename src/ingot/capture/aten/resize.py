"""Interpolation: Resize of every mode torch has, grid sampling, affine grids."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from ingot.capture.aten.antialias import filtered
from ingot.capture.aten.registry import Row, row, whole
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
_nn: Any = torch._C._nn  # pyright: ignore[reportAttributeAccessIssue]  (made in C++)


def _resize(
    g: Recorder, x: Tensor, size: Sequence[Any], scales: Sequence[Any], **attributes: Any
) -> ir.Value:
    """Resize to sizes; by scales where torch was given scales, which then also place the samples."""
    lead = x.dim() - len(size)
    before = x.shape[lead:]
    if attributes["mode"] == "nearest":
        samples = _Nearest(g, x, size, scales, attributes["coordinate_transformation_mode"] == "half_pixel")
        if not samples.by_resize():
            return samples.gathered()
    align_corners = attributes["coordinate_transformation_mode"] == "align_corners"
    if align_corners:
        scales = ()  # corner to corner of the result's whole size, which ONNX takes from sizes only
    apart = _apart(before, size, scales)
    if "antialias" in attributes and (align_corners or apart):
        if not x.dtype.is_floating_point:
            raise ExportError(
                f"interpolate of {x.dtype} with antialias=True has no form in ONNX with align_corners=True, "
                "or a scale beside another size. Convert the image to float32 first."
            )
        given = list(scales) or [None] * len(size)
        return g.val(g.recorded(filtered, x, size, given, align_corners, attributes["mode"]))
    if apart:
        n, t, s = apart
        raise ExportError(
            f"interpolate places samples by a scale of {s} and makes {t} of {n} elements, which is not "
            "the scale's size; ONNX has one or the other. Give the size or the scale alone."
        )
    if all(s is None for s in scales):
        return g.op("Resize", g.val(x), None, None, g.shape([*x.shape[:lead], *size]), **attributes)
    # The samples lie at 1 / scale, which need not be the ratio of the sizes.
    mode = "antialias" if "antialias" in attributes else attributes["mode"]
    factors = [_factor(g, n, t, s, mode) for n, t, s in zip(before, size, scales, strict=True)]
    numbers = [f for f in factors if isinstance(f, float)]
    if len(numbers) == len(size):
        factor = g.const([*[1.0] * lead, *numbers], torch.float32)
    else:
        each = [f if isinstance(f, ir.Value) else g.const(f, torch.float32) for f in factors]
        parts = [g.op("Unsqueeze", f, g.const([0])) for f in each]
        factor = g.op("Concat", g.const([1.0] * lead, torch.float32), *parts, axis=0)
    return g.op("Resize", g.val(x), None, factor, **attributes)


def _apart(before: Sequence[Any], size: Sequence[Any], scales: Sequence[Any]) -> tuple[Any, Any, Any] | None:
    """The first axis's sizes before and after and its scale, where these are known not to fit each other."""
    for axis in zip(before, size, scales, strict=False):
        if all(isinstance(part, (int, float)) for part in axis) and int(axis[0] * axis[2]) != axis[1]:
            return axis
    return None


_SLACK = 2.0**-22  # of a product of float32


def _factor(g: Recorder, n: Any, t: Any, scale: Any, mode: str) -> float | ir.Value:
    """A scale in float32 by which n elements become t in ONNX too: torch rounds n · scale down in float64, of
    which float32 may have another whole part (57 of 100 · 0.57, which is 56.99…). It is moved by its last
    digits there. Runtimes multiply in float32, ONNX's inference of shapes in float64.

    mode: but for plain cubic, torch takes an axis as it is where its size stays, whatever the scale; nearest
    neighbours come here with scales that find them
    """
    known, copies = float(scale) if isinstance(scale, (int, float)) else None, mode != "cubic"
    if known is not None and (mode == "nearest" or known.is_integer() or known == 0.5):
        return known  # the product is exact, and no size above 0 stays
    before, after = g.sizes.number(n), g.sizes.number(t)
    if known is not None and before is not None and after is not None:
        if copies and before == after:
            return 1.0
        near = float(np.float32(known))
        if all(
            math.floor(product) == after for product in (np.float32(near) * np.float32(before), near * before)
        ):
            return near
        return min(max(known, after * (1 + _SLACK) / before), (after + 1) * (1 - _SLACK) / before)
    single, wide = torch.float32, torch.float64
    factor, count = g.operand(scale, wide), g.operand(t, torch.int64)
    near = g.cast(factor, wide, single)
    size, goal = g.operand(n, wide), g.cast(count, torch.int64, wide)
    narrow = g.op("Mul", g.operand(n, single), near)
    exact = g.op("Equal", g.op("Floor", g.cast(narrow, single, wide)), goal)
    whole = g.op("Floor", g.op("Mul", size, g.cast(near, single, wide)))
    exact = g.op("And", exact, g.op("Equal", whole, goal))
    least = g.op("Div", g.op("Mul", goal, g.const(1 + _SLACK, wide)), size)
    beyond = g.op("Add", goal, g.const(1.0, wide))
    most = g.op("Div", g.op("Mul", beyond, g.const(1 - _SLACK, wide)), size)
    moved = g.op("Min", g.op("Max", factor, least), most)
    made = g.op("Where", exact, near, g.cast(moved, wide, single))
    if not copies:
        return made
    return g.op("Where", g.op("Equal", g.operand(n, torch.int64), count), g.const(1.0, single), made)


#: Up to this many rows and columns together, torch's kernel of images takes a shape's own whole ratio.
_SMALL_IMAGE = 128


class _Nearest:
    """Nearest neighbours as torch's CPU kernels count them: floor(i · r), `exact` floor((i + 1/2) · r).

    r is 1 / scale, or without a scale the ratio of the sizes, in float32 (float64 for an input of float64,
    whose product is then rounded to float32). ONNX's Resize divides by the scale, or by the other ratio, and
    now and then that finds the neighbour's neighbour.
    """

    def __init__(
        self, g: Recorder, x: Tensor, size: Sequence[Any], scales: Sequence[Any], exact: bool
    ) -> None:
        self.g, self.x, self.exact = g, x, exact
        self.before, self.size = x.shape[x.dim() - len(size) :], size
        self.scales = list(scales) or [None] * len(size)
        self.double, self.image = x.dtype == torch.float64, len(size) == 2

    def by_resize(self) -> bool:
        """Whether ONNX's Resize provably takes the same neighbours, for all sizes that there may be."""
        if len({scale is None for scale in self.scales}) > 1:
            return False
        return all(map(self._agrees, self.before, self.size, self.scales))

    def _agrees(self, n: Any, t: Any, scale: Any) -> bool:
        g = self.g
        if scale is None:
            whole = [k for k in range(1, 9) if g.same_size(t, n * k)]
            ratio = whole[0] if whole else None
            if ratio is None and any(g.same_size(n, t * k) for k in (2, 4, 8)):
                return True
        else:
            ratio = scale if isinstance(scale, (int, float)) else None
        if ratio is not None:
            if math.frexp(ratio)[0] == 0.5:
                return True  # a power of two: nothing is rounded
            # Where r · k is 1 again, no multiple of k falls below its own sample.
            one = np.float32(ratio) * np.float32(1 / ratio)
            if float(ratio).is_integer() and one >= 1:
                return True
        n, t = g.sizes.number(n), g.sizes.number(t)
        if n is None or t is None or not isinstance(scale, (int, float, type(None))):
            return False
        own = self._places(n, t, scale)
        y = np.arange(t, dtype=np.float32)
        factor = np.float32(t) / np.float32(n) if scale is None else np.float32(scale)
        place = (y + np.float32(0.5)) / factor if self.exact else y / factor
        wide = (y + 0.5 * self.exact) / (float(factor) if scale is not None else t / n)
        # A tie of the rounding is read with some tolerance, so no sample may lie near one.
        slack = 1e-6 * (1 + n) * self.exact
        found = (np.minimum(np.floor(p), n - 1) for p in (place, wide - slack, wide + slack))
        return t == int(np.floor(np.float32(n) * factor)) and all(np.array_equal(own, p) for p in found)

    def _places(self, n: int, t: int, scale: float | None) -> npt.NDArray[np.int64]:
        small = self.image and sum(self.g.sizes.number(size) or 2**31 for size in self.size) <= _SMALL_IMAGE
        real = np.float64 if self.double and not small else np.float32
        ratio = real(n) / real(t) if scale is None else real(1 / scale)
        if small and not self.exact and t in (n, 2 * n):
            ratio = real(n / t)
        place = (np.arange(t).astype(real) + real(0.5 * self.exact)) * ratio
        return np.minimum(np.floor(place.astype(np.float32)).astype(np.int64), n - 1)

    def gathered(self) -> ir.Value:
        """Each axis gathered at its neighbours, which the graph computes where the sizes are not fixed."""
        g, value = self.g, self.g.val(self.x)
        lead = self.x.dim() - len(self.size)
        for axis, (n, t, scale) in enumerate(zip(self.before, self.size, self.scales, strict=True), lead):
            if g.same_size(n, t) and scale in (None, 1):
                continue
            value = g.op("Gather", value, self._indices(n, t, scale), axis=axis)
        return value

    def _indices(self, n: Any, t: Any, scale: Any) -> ir.Value:
        g = self.g
        before, after = g.sizes.number(n), g.sizes.number(t)
        others = [g.sizes.number(size) for size in self.size]
        if (
            before is not None
            and after is not None
            and None not in others
            and isinstance(scale, (int, float, type(None)))
        ):
            return g.const(self._places(before, after, scale).tolist())
        small: ir.Value | None = None
        if self.image and (self.double or self._has_own_ratio(scale)):
            together = g.op("Add", *(g.operand(size, torch.int64) for size in self.size))
            small = g.op("LessOrEqual", together, g.const(_SMALL_IMAGE))
        if not self.double:
            place = self._place(n, t, scale, torch.float32, small)
        else:
            place = g.cast(self._place(n, t, scale, torch.float64, None), torch.float64, torch.float32)
            if small is not None:
                place = g.op("Where", small, self._place(n, t, scale, torch.float32, small), place)
        found = g.op("Cast", g.op("Floor", place), to=int(ir.DataType.INT64))
        return g.op("Min", found, g.op("Sub", g.operand(n, torch.int64), g.const(1)))

    def _has_own_ratio(self, scale: Any) -> bool:
        """Whether a small image may come out once or twice as large, and by another scale than that."""
        if self.exact or scale is None:
            return False
        return not isinstance(scale, (int, float)) or (1 < scale < 3 and scale != 2)

    def _place(self, n: Any, t: Any, scale: Any, dtype: torch.dtype, small: ir.Value | None) -> ir.Value:
        """Where in the input each output lies."""
        g = self.g
        before, after = (g.operand(size, torch.int64) for size in (n, t))
        i = g.cast(g.op("Range", g.const(0), after, g.const(1)), torch.int64, dtype)
        if self.exact:
            i = g.op("Add", i, g.const(0.5, dtype))

        def of_sizes() -> ir.Value:
            return g.op("Div", *(g.cast(size, torch.int64, dtype) for size in (before, after)))

        if scale is None:
            ratio = of_sizes()
        elif isinstance(scale, (int, float)):
            ratio = g.const(1 / scale, dtype)
        else:
            wide = g.op("Div", g.const(1.0, torch.float64), g.operand(scale, torch.float64))
            ratio = g.cast(wide, torch.float64, dtype)
        if small is not None and self._has_own_ratio(scale):
            same = g.op("Equal", after, before)
            twice = g.op("Equal", after, g.op("Mul", before, g.const(2)))
            ratio = g.op("Where", g.op("And", small, g.op("Or", same, twice)), of_sizes(), ratio)
        return g.op("Mul", i, ratio)


def _sizes(x: Tensor, size: Any, scales: Any) -> list[Any]:
    if size is not None:
        return list(size)
    spatial = x.shape[2:]
    return [
        n * int(s) if isinstance(s, (int, float)) and float(s).is_integer() else torch.sym_int(n * s)
        for n, s in zip(spatial, scales, strict=True)
    ]


def _fake(x: Tensor, size: Any, *rest: Any) -> Tensor:
    """The resized tensor's shape; torch's own function wants numbers for symbolic sizes."""
    target = _sizes(x, size, rest[-1])
    torch._check(x.dim() == len(target) + 2, lambda: f"interpolate got {x.dim()} axes for sizes {target}")
    return x.new_empty([*x.shape[:2], *target])


_MODES: dict[str, dict[str, Any]] = {
    # Sample floor(i / scale).
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    # Sample floor((i + 0.5) / scale).
    "exact": {
        "mode": "nearest",
        "coordinate_transformation_mode": "half_pixel",
        "nearest_mode": "round_prefer_ceil",
    },
    "linear": {"mode": "linear"},
    "cubic": {"mode": "cubic", "cubic_coeff_a": -0.75},
    # With a filter that widens when shrinking and never weighs what lies outside; the cubic one is Pillow's.
    "linear_aa": {"mode": "linear", "antialias": 1, "exclude_outside": 1},
    "cubic_aa": {"mode": "cubic", "antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5},
}
_FUNCTIONS = {
    "upsample_nearest1d": "nearest",
    "upsample_nearest2d": "nearest",
    "upsample_nearest3d": "nearest",
    "_upsample_nearest_exact1d": "exact",
    "_upsample_nearest_exact2d": "exact",
    "_upsample_nearest_exact3d": "exact",
    "upsample_linear1d": "linear",
    "upsample_bilinear2d": "linear",
    "upsample_trilinear3d": "linear",
    "upsample_bicubic2d": "cubic",
    "_upsample_bilinear2d_aa": "linear_aa",
    "_upsample_bicubic2d_aa": "cubic_aa",
}


def _attributes(kind: str, align_corners: bool) -> dict[str, Any]:
    attributes = dict(_MODES[kind])
    attributes.setdefault(
        "coordinate_transformation_mode", "align_corners" if align_corners else "half_pixel"
    )
    return attributes


def _as_called(kind: str) -> Row:
    """torch._C._nn.upsample_…(x, size or None, [align_corners,] scale factors or None)."""

    def emit(g: Recorder, out: Tensor, x: Tensor, size: Any, *rest: Any) -> ir.Value:
        target = out.shape[2:]
        scales = rest[-1] if rest[-1] is not None else []
        return _resize(g, x, target, scales, **_attributes(kind, bool(rest[0]) if len(rest) > 1 else False))

    return emit


def _as_operator(kind: str) -> Row:
    """aten::upsample_…(x, size, [align_corners,] one scale or None for each axis)."""

    def emit(g: Recorder, out: Tensor, x: Tensor, size: Sequence[Any], *rest: Any) -> ir.Value:
        nearest = kind in ("nearest", "exact")
        scales = rest if nearest else rest[1:]
        return _resize(g, x, size, scales, **_attributes(kind, False if nearest else bool(rest[0])))

    return emit


for _name, _kind in _FUNCTIONS.items():
    row(_name)(_as_operator(_kind))
    whole(getattr(_nn, _name), meta=_fake)(_as_called(_kind))


@row("grid_sampler_2d", "grid_sampler_3d", "grid_sampler")
def grid_sample(
    g: Recorder, out: Tensor, x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool
) -> ir.Value:
    """Samples at given places."""
    modes = ["linear", "nearest", "cubic"] if g.opset >= 20 else ["bilinear", "nearest", "bicubic"]
    if x.dim() == 5 and g.opset < 20:
        raise ExportError("grid_sample of volumes needs opset 20 or newer; pass opset_version=20.")
    image, places = g.val(x), g.val(grid)
    if mode == 2 and padding == 1:
        image, places = _with_border(g, x, grid, align_corners)
        padding, align_corners = 0, True
    return g.op(
        "GridSample",
        image,
        places,
        mode=modes[mode],
        padding_mode=["zeros", "border", "reflection"][padding],
        align_corners=int(align_corners),
    )


def _with_border(g: Recorder, x: Tensor, grid: Tensor, align_corners: bool) -> tuple[ir.Value, ir.Value]:
    """The image with two more pixels at each edge, and the grid of the same places in it, aligned by corners.

    torch and most runtimes move a cubic's neighbours to the edge, onnx.reference the place itself: outside of
    the image they differ.
    From one pixel outside on, all neighbours that count are the edge, so no place needs to lie further out.
    """
    dtype = grid.dtype
    size = g.cast(g.shape([x.shape[3], x.shape[2]]), torch.int64, dtype)  # the grid's order: x, then y
    one, half, two = g.const(1, dtype), g.const(0.5, dtype), g.const(2, dtype)
    place = g.op("Mul", g.op("Add", g.val(grid), one), half)  # 0 to 1 over the image
    if align_corners:
        place = g.op("Mul", place, g.op("Sub", size, one))
    else:
        place = g.op("Sub", g.op("Mul", place, size), half)
    place = g.op("Min", g.op("Max", place, g.const(-1, dtype)), size)
    last = g.op("Add", size, g.const(3, dtype))
    moved = g.op("Sub", g.op("Div", g.op("Mul", g.op("Add", place, two), two), last), one)
    return g.op("Pad", g.val(x), g.const([0, 0, 2, 2, 0, 0, 2, 2]), mode="edge"), moved
