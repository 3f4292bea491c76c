"""What C's library says of floats: signs, exponents, angles, the next one, the larger one."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.registry import composed, row
from ingot.capture.aten.special import nans
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


Tensor = torch.Tensor


@composed("signbit")
def signbit(x: Tensor) -> Tensor:
    """Below zero, or the zero that is; a NaN's sign is out of sight and counts as none."""
    if not x.dtype.is_floating_point:
        return x < 0
    return (x < 0) | ((x == 0) & (1 / x < 0))


@composed("copysign")
def copysign(a: Tensor, b: Any) -> Tensor:
    """|a| with the sign of b."""
    dtype = torch.result_type(a, b)
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    size = torch.abs(a.to(dtype))
    if not isinstance(b, Tensor):
        return -size if math.copysign(1.0, b) < 0 else size
    return torch.where(signbit(b), -size, size)


@composed("atan2")
def atan2(y: Tensor, x: Tensor) -> Tensor:
    """The angle of the point (x, y), by C's rules for zeros with a sign and for infinities."""
    dtype = torch.result_type(y, x)
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    y, x = y.to(dtype), x.to(dtype)
    one, pi = (torch.full([], n, dtype=dtype) for n in (1.0, math.pi))
    # Two infinities are as far off as two ones are; at the origin, the signs alone tell.
    far = (torch.abs(y) == math.inf) & (torch.abs(x) == math.inf)
    up = torch.where(far, copysign(one, y), y)
    along = torch.where(far | ((y == 0) & (x == 0)), copysign(one, x), x)
    angle = torch.atan(up / along)
    return torch.where(signbit(x), angle + copysign(pi, y), angle)


@composed("frexp")
def frexp(x: Tensor) -> tuple[Tensor, Tensor]:
    """x = mantissa 2^exponent with 1/2 ≤ |mantissa| < 1; 0, infinities and NaN have exponent 0."""
    wide = torch.abs(x.double())
    plain = torch.isfinite(wide) & (wide > 0)
    safe = torch.where(plain, wide, torch.ones_like(wide))
    exponent = torch.floor(torch.log2(safe)) + 1
    mantissa = safe * torch.exp2(-exponent)
    high, low = mantissa >= 1, mantissa < 0.5
    exponent = torch.where(high, exponent + 1, torch.where(low, exponent - 1, exponent))
    mantissa = torch.where(high, mantissa / 2, torch.where(low, mantissa * 2, mantissa))
    mantissa = torch.where(x < 0, -mantissa, mantissa).to(x.dtype)
    return torch.where(plain, mantissa, x), torch.where(plain, exponent, torch.zeros_like(wide)).int()


@row("nextafter")
def nextafter(g: Recorder, out: Tensor, a: Tensor, b: Tensor) -> ir.Value:
    """The float32 beside a on b's side, by steps that float64 holds exactly."""
    if out.dtype != torch.float32:
        raise ExportError(f"nextafter is for float32 here; found {out.dtype}, whose steps ONNX cannot hold.")

    def call(a: Tensor, b: Tensor) -> Tensor:
        x, y = torch.broadcast_tensors(a, b)
        mantissa, exponent = frexp(x)
        up = y > x
        outwards = up == (x > 0)
        # Below a power of two the steps are half as wide.
        narrow = ~outwards & (torch.abs(mantissa) == 0.5)
        power = torch.clamp_min(exponent - torch.where(narrow, 25, 24), -149).double()
        step = torch.where(x == 0, torch.full_like(x, 2.0**-149).double(), torch.exp2(power))
        moved = (x.double() + torch.where(up, step, -step)).float()
        largest = torch.finfo(torch.float32).max
        inwards = torch.where(x > 0, torch.full_like(x, largest), torch.full_like(x, -largest))
        moved = torch.where(torch.isinf(x), inwards, moved)
        moved = torch.where(x == y, y, moved)
        return torch.where(torch.isnan(x) | torch.isnan(y), nans(x), moved)

    return g.val(g.recorded(call, a, b))


@composed("hypot")
def hypot(a: Tensor, b: Tensor) -> Tensor:
    """sqrt(a² + b²), scaled by the larger so that neither square overflows."""
    from ingot.capture.complex_numbers import modulus

    return modulus(a, b)


@composed("angle")
def angle(x: Tensor) -> Tensor:
    """0, or π below zero."""
    y = torch.where(x < 0, math.pi, 0.0).to(
        x.dtype if x.dtype.is_floating_point else torch.get_default_dtype()
    )
    return torch.where(torch.isnan(x), x, y) if x.dtype.is_floating_point else y


@composed("fmax")
def fmax(a: Tensor, b: Tensor) -> Tensor:
    """The larger; of a number and a NaN the number."""
    if not (a.dtype.is_floating_point or b.dtype.is_floating_point):
        return torch.maximum(a, b)
    return torch.where(torch.isnan(a), b, torch.where(torch.isnan(b), a, torch.maximum(a, b)))


@composed("fmin")
def fmin(a: Tensor, b: Tensor) -> Tensor:
    """The smaller; of a number and a NaN the number."""
    if not (a.dtype.is_floating_point or b.dtype.is_floating_point):
        return torch.minimum(a, b)
    return torch.where(torch.isnan(a), b, torch.where(torch.isnan(b), a, torch.minimum(a, b)))
