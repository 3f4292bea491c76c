"""The error function, the normal distribution, and their inverses."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import math

import torch

from ingot.capture.aten.registry import composed
from ingot.capture.aten.special import horner, in_float64, infinities, nans

Tensor = torch.Tensor


@composed("erfinv", "special_erfinv")
def erfinv(x: Tensor) -> Tensor:
    """Giles' polynomials for single precision (GPU Computing Gems, 2011); two steps of Newton's in
    float64.
    """
    x = x if x.dtype.is_floating_point else x.to(torch.get_default_dtype())
    w = -torch.log((1 - x) * (1 + x))
    near = [1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06]
    near += [-3.5233877e-06, 3.43273939e-07, 2.81022636e-08]
    far = [2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844]
    far += [0.00134934322, 0.000100950558, -0.000200214257]
    tail = horner(torch.sqrt(torch.clamp_min(w, 0)) - 3, far)
    y = x * torch.where(w < 5, horner(w - 2.5, near), tail)
    if x.dtype == torch.float64:
        for _ in range(2):
            y = y - (torch.erf(y) - x) * (math.sqrt(math.pi) / 2) * torch.exp(y * y)
    y = torch.where(torch.abs(x) == 1, x * math.inf, y)
    return torch.where(torch.abs(x) > 1, nans(x), y)


# Of (1 + 2 z) exp(z²) erfc(z) for z >= 0 in powers of (z - c) / (z + c), which runs from -1 to 1, by
# interpolation at Chebyshev's points. c is 4 in float64, within 5e-16, and 2.5 in float32, within 5e-8.
_ERFC_64 = [
    1.2329951186255526, -0.139621116840557, 0.015379652102618402, 0.06809705425420673,
    -0.10103906603618064, 0.0937328350110569, -0.06633036581541651, 0.03716751538360477,
    -0.016197734020451597, 0.005031971017234254, -0.0007577735257382458, -0.0001992610018544279,
    0.00015062257137043143, -2.4387691264306046e-05, -1.1224122281497544e-05, 5.6894090899650724e-06,
    2.968409172531307e-07, -8.019174684327191e-07, 7.202517584836005e-08, 9.290772873032215e-08,
    -1.673812797437216e-08, -6.984021100158542e-09, 1.6403183696752708e-09,
]  # fmt: skip
_ERFC_32 = [
    1.26483818, -0.122357491, -0.0990244476, 0.157644631, -0.102968894,
    0.0326763726, 0.000942164442, -0.00417866144, 0.000468581915, 0.000404788142,
    -6.60132742e-05,
]  # fmt: skip


def _scaled_erfc(z: Tensor) -> Tensor:
    """exp(z²) erfc(z) for z >= 0."""
    c, coefficients = (4.0, _ERFC_64) if z.dtype == torch.float64 else (2.5, _ERFC_32)
    return horner(1 - 2 * c / (z + c), coefficients) / (1 + 2 * z)


@composed("erfc")
def erfc(x: Tensor) -> Tensor:
    """The complementary error function; 1 - erf(x) keeps none of its digits from 4 on.

    The square in exp(-z²) is taken apart, so that its rounding is not multiplied: of one part it is exact,
    the other is small.
    """
    x = x if x.dtype == torch.float64 else x.float()
    size = torch.abs(x)
    z = torch.where(size > 30, 30, size)  # from there on it is 0
    part = torch.round(z * 16) / 16
    y = _scaled_erfc(size) * (torch.exp(-part * part) * torch.exp((part - z) * (part + z)))
    return torch.where(x < 0, 2 - y, y)


@in_float64("special_erfcx")
def erfcx(x: Tensor) -> Tensor:
    """The complementary error function times exp(x²); below zero 2 exp(x²) less that of -x."""
    y = _scaled_erfc(torch.abs(x))
    return torch.where(x < 0, 2 * torch.exp(x * x) - y, y)


@in_float64("special_ndtri")
def ndtri(p: Tensor) -> Tensor:
    """The normal distribution's quantile: Acklam's rational functions, within 1.2e-9."""
    a = [2.506628277459239, -30.66479806614716, 138.3577518672690, -275.9285104469687, 220.9460984245205]
    a += [-39.69683028665376]
    b = [
        1.0,
        -13.28068155288572,
        66.80131188771972,
        -155.6989798598866,
        161.5858368580409,
        -54.47609879822406,
    ]
    c = [2.938163982698783, 4.374664141464968, -2.549732539343734, -2.400758277161838, -0.3223964580411365]
    c += [-0.007784894002430293]
    d = [1.0, 3.754408661907416, 2.445134137142996, 0.3224671290700398, 0.007784695709041462]
    q = p - 0.5
    middle = q * horner(q * q, a) / horner(q * q, b)
    low = torch.minimum(p, 1 - p)
    far = torch.sqrt(-2 * torch.log(low))
    tail = horner(far, c) / horner(far, d)
    y = torch.where(low < 0.02425, torch.where(p < 0.5, tail, -tail), middle)
    y = torch.where(p == 0, infinities(p, -1), torch.where(p == 1, infinities(p), y))
    return torch.where((p < 0) | (p > 1), nans(p), y)


@in_float64("special_log_ndtr")
def log_ndtr(x: Tensor) -> Tensor:
    """log of the normal distribution function."""
    t = x * math.sqrt(0.5)
    tail = torch.log(erfcx(-t) / 2) - t * t
    return torch.where(x < -1, tail, torch.log1p(-erfc(t) / 2))
