"""Interpolation: Resize of every mode torch has, grid sampling, affine grids."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

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
    if attributes["coordinate_transformation_mode"] == "align_corners" and "antialias" in attributes:
        sizes = [(g.sizes.number(n), g.sizes.number(t)) for n, t in zip(before, size, strict=True)]
        if not all(n is not None and t is not None and n <= t for n, t in sizes):
            raise ExportError(
                "interpolate with antialias=True and align_corners=True makes an image smaller with a filter "
                "that ONNX does not have. Leave align_corners at False."
            )
    if attributes["coordinate_transformation_mode"] == "align_corners":
        scales = ()  # corner to corner of the result's whole size, which ONNX takes from sizes only
    for n, t, s in zip(before, size, scales, strict=False):
        whole = all(isinstance(part, (int, float)) for part in (n, t, s))
        if whole and int(n * s) != t:
            raise ExportError(
                f"interpolate places samples by a scale of {s} and makes {t} of {n} elements, which is not "
                "the scale's size; ONNX has one or the other. Give the size or the scale alone."
            )
    fixed = all(isinstance(s, (int, float)) for s in scales)
    if fixed and len(scales) == len(size):
        factors = g.const([*[1.0] * lead, *[float(s) for s in scales]], torch.float32)
        return g.op("Resize", g.val(x), None, factors, **attributes)
    if any(s is not None for s in scales):
        # The samples lie at 1 / scale, which need not be the ratio of the sizes.
        parts = [g.const([1.0] * lead, torch.float32)]
        for s in scales:
            one = g.operand(s, torch.float32)
            parts.append(g.op("Unsqueeze", one, g.const([0])))
        return g.op("Resize", g.val(x), None, g.op("Concat", *parts, axis=0), **attributes)
    return g.op("Resize", g.val(x), None, None, g.shape([*x.shape[:lead], *size]), **attributes)


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

    torch moves a cubic's neighbours to the edge, ONNX the place itself: outside of the image they differ.
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
