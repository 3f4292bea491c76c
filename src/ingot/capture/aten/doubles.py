"""Functions of float64 in those that other runtimes have for it: onnxruntime computes the sine, cosine,
exponential, logarithm, root and hyperbolic tangent of float64, and those of this file of float32 alone.

Each is within a few units of the last place of float64, and keeps infinities, NaN and the sign of zeros.
Formulas are those of Abramowitz and Stegun, Handbook of Mathematical Functions (A&S).
"""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ingot.capture.aten.error_function import erfc
from ingot.capture.aten.special import horner, nans

Tensor = torch.Tensor

_LARGE = 2.0**28  # 1 is nothing beside its square
_FAR = 2.0**60  # whose arctangent is π/2
#: A&S 7.1.5: of erf(x) / x in powers of x², enough of them below 1.
_SERIES = [2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(20)]


def _but_zero(x: Tensor, y: Tensor) -> Tensor:
    """y, and x itself where it is a zero, whose sign it keeps, or a NaN."""
    return torch.where(torch.abs(x) > 0, y, x)


def _odd(x: Tensor, of_size: Tensor) -> Tensor:
    """What the size gives, with the sign of x."""
    return _but_zero(x, torch.where(x < 0, -of_size, of_size))


def tan(x: Tensor) -> Tensor:
    """As exact beside its poles as the cosine is beside its zeros."""
    return torch.sin(x) / torch.cos(x)


def atan(x: Tensor) -> Tensor:
    """That of float32 and the angle that is left, which is its own arctangent: its cube is below 1e-21."""
    along = torch.clamp(x, -_FAR, _FAR)
    near = torch.atan(along.float()).double()
    s, c = torch.sin(near), torch.cos(near)
    return _but_zero(x, near + (along * c - s) / (along * s + c))


def asin(x: Tensor) -> Tensor:
    """The angle whose tangent is x / sqrt(1 - x²) (A&S 4.4.32)."""
    return atan(x / torch.sqrt((1 - x) * (1 + x)))


def acos(x: Tensor) -> Tensor:
    """Twice the angle whose tangent is sqrt((1 - x) / (1 + x)): small ones have all their digits."""
    return 2 * atan(torch.sqrt((1 - x) / (1 + x)))


def cosh(x: Tensor) -> Tensor:
    """(exp(x) + exp(-x)) / 2, of which the first may be beyond all numbers where the half is not."""
    root = torch.exp(torch.abs(x) / 2)
    half = root * (root / 2)
    return half + 0.25 / half


def sinh(x: Tensor) -> Tensor:
    """tanh(x / 2) (cosh(x) + 1) (A&S 4.5.30), in which nothing is taken from anything."""
    return torch.tanh(x / 2) * (cosh(x) + 1)


def asinh(x: Tensor) -> Tensor:
    """log(|x| + sqrt(x² + 1)) by log1p, so that small ones have all their digits."""
    size = torch.abs(x)
    large = size > _LARGE
    safe = torch.where(large, torch.ones_like(size), size)
    near = torch.log1p(safe + safe * safe / (1 + torch.sqrt(safe * safe + 1)))
    return _odd(x, torch.where(large, torch.log(size) + math.log(2), near))


def acosh(x: Tensor) -> Tensor:
    """log(x + sqrt(x² - 1)) by log1p, so that those beside 1 have all their digits."""
    large = x > _LARGE
    above = torch.where(large, torch.ones_like(x), x - 1)
    near = torch.log1p(above + torch.sqrt(above * (above + 2)))
    return torch.where(x < 1, nans(x), torch.where(large, torch.log(x) + math.log(2), near))


def atanh(x: Tensor) -> Tensor:
    """log((1 + |x|) / (1 - |x|)) / 2 by log1p."""
    size = torch.abs(x)
    return _odd(x, torch.log1p(2 * size / (1 - size)) / 2)


def erf(x: Tensor) -> Tensor:
    """Its series below 1, and 1 - erfc from there."""
    size = torch.abs(x)
    near = size < 1
    small = torch.where(near, x, torch.ones_like(x))
    far = 1 - erfc(size)
    y = torch.where(near, small * horner(small * small, _SERIES), torch.where(x < 0, -far, far))
    return _but_zero(x, y)


def gelu(x: Tensor) -> Tensor:
    """x (1 + erf(x / sqrt(2))) / 2, where erfc has the digits that the sum would lose."""
    return x / 2 * erfc(x * -math.sqrt(0.5))


def mish(x: Tensor) -> Tensor:
    """x tanh(log(1 + exp(x)))."""
    return x * torch.tanh(torch.log1p(torch.exp(x)))


#: By the operator of ONNX that is the function.
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "Acos": acos, "Acosh": acosh, "Asin": asin, "Asinh": asinh, "Atan": atan, "Atanh": atanh, "Cosh": cosh,
    "Erf": erf, "Gelu": gelu, "Mish": mish, "Sinh": sinh, "Tan": tan,
}  # fmt: skip
