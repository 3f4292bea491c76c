"""Evenly spaced numbers and what is made of them, for sizes that torch's C++ wants as numbers: arange,
linspace, logspace, windows and the grids of affine maps.
"""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from ingot.capture.aten.registry import instead
from ingot.capture.checks import insist, insist_not_below
from ingot.capture.request import recorder
from ingot.capture.scalars import require_kind

Tensor = torch.Tensor
_FOLLOWED = (torch.float32, torch.float64)  # of other dtypes torch rounds in between, lane by lane


def _free(size: Any, dtype: torch.dtype | None, more: dict[str, Any]) -> bool:
    """Whether a size is no number, and what torch would make can be made without it."""
    plain = more.get("out") is None and more.get("layout") in (None, torch.strided)
    return isinstance(size, torch.SymInt) and plain and (dtype or torch.get_default_dtype()) in _FOLLOWED


def _number_of(steps: Any) -> Any:
    """How many there are, which a tensor may say."""
    return steps.item() if isinstance(steps, Tensor) else steps


def _number(x: Any, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if isinstance(x, Tensor) else torch.full((), x, dtype=dtype)


def spaced(start: Any, end: Any, steps: Any, dtype: torch.dtype) -> Tensor:
    """From start to end, both included; as torch counts, from the start below the middle and from the end
    above it, rounded once.
    """
    first, last = _number(start, dtype), _number(end, dtype)
    inner = dtype if dtype.is_floating_point else torch.float64
    step = ((last.to(inner) - first.to(inner)) / torch.sym_max(steps - 1, 1)).double()
    at = torch.arange(steps)
    up, down = first.double() + step * at, last.double() - step * (steps - 1 - at)
    return torch.where(at < torch.sym_max(steps // 2, 1), up, down).to(dtype)


def _is_symbolic(*numbers: Any) -> bool:
    return any(isinstance(n, (torch.SymInt, torch.SymFloat)) for n in numbers)


def require_count(name: str, *counts: Any) -> None:
    """The run fails where one of these is below 0, as torch refuses it."""
    for n in counts:
        if _is_symbolic(n):
            insist_not_below(recorder(), n, 0, f"torch.{name} would refuse a number of elements below 0 here")


def require_way(start: Any, end: Any, step: Any) -> None:
    """The run fails where steps lead away from the end."""
    if not _is_symbolic(start, end, step):
        return  # torch has looked at them
    said = "torch.arange would refuse steps away from its end, or of 0, here"
    if _is_symbolic(step):
        ends = torch.sym_not((step == 0) | ((step > 0) & (end < start)) | ((step < 0) & (end > start)))
        insist(recorder(), ends, said)
    else:
        insist_not_below(recorder(), *((end, start) if step > 0 else (start, end)), said)


@instead(torch.linspace)
def linspace(start: Any, end: Any, steps: Any, *, dtype: torch.dtype | None = None, **more: Any) -> Tensor:
    """Evenly spaced numbers."""
    steps = _number_of(steps)
    if not _free(steps, dtype, more):
        return torch.linspace(start, end, steps, dtype=dtype, **more)
    require_count("linspace", steps)
    return spaced(start, end, steps, dtype or torch.get_default_dtype())


def _are_middles(start: Any, end: Any, step: Any) -> bool:
    """Whether numbers are places in the pixels of an image of a free size, one in each."""
    return isinstance(start, float) and isinstance(end, torch.SymInt) and step == 1


@instead(torch.arange)
def arange(*bounds: Any, **more: Any) -> Tensor:
    """From the start in steps to before the end; torch's own takes no number with a fraction that sizes or
    data decide.
    """
    names = ("start", "end", "step") if len(bounds) > 1 or "end" in more else ("end",)
    given: dict[str, Any] = {"start": 0, "end": None, "step": 1} | more
    given |= dict(zip(names, bounds, strict=False))
    start, end, step = (given[n] for n in ("start", "end", "step"))
    dtype = more.get("dtype") or torch.get_default_dtype()
    if more.get("dtype") is None:
        for n in (start, end, step):
            require_kind(recorder(), n, "the dtype that torch.arange gives")
    free = any(isinstance(n, torch.SymFloat) for n in (start, end, step))
    middles = _are_middles(start, end, step)
    if not (free or middles) or dtype not in _FOLLOWED or more.get("out") is not None:
        return torch.arange(*bounds, **more)
    count: Any
    if middles:  # as many as pixels, which torch's formula of fractions does not say
        require_way(math.ceil(start), end, step)
        count = end - math.floor(start)
    else:
        require_way(start, end, step)
        count = math.ceil((end - start) / step)
    return (torch.arange(count) * step + torch.full((), start, dtype=torch.float64)).to(dtype)


@instead(torch.logspace)
def logspace(
    start: Any, end: Any, steps: Any, base: float = 10.0, *, dtype: torch.dtype | None = None, **more: Any
) -> Tensor:
    """Powers of a base, with evenly spaced exponents."""
    steps = _number_of(steps)
    if not _free(steps, dtype, more):
        return torch.logspace(start, end, steps, base, dtype=dtype, **more)
    require_count("logspace", steps)
    return torch.pow(base, spaced(start, end, steps, dtype or torch.get_default_dtype()))


@instead(torch.fft.fftfreq)
def fftfreq(n: Any, d: float = 1.0, *, dtype: Any = None, **more: Any) -> Tensor:
    """The frequencies of a transform: those from 0 on, then the negative ones."""
    if not _free(n, dtype, more):
        return torch.fft.fftfreq(n, d, dtype=dtype, **more)
    at = torch.arange(n)
    at = torch.where(at < (n + 1) // 2, at, at - n)
    return at.to(dtype or torch.get_default_dtype()) * (1.0 / (n * d))


@instead(torch.fft.rfftfreq)
def rfftfreq(n: Any, d: float = 1.0, *, dtype: Any = None, **more: Any) -> Tensor:
    """The frequencies of a transform of real numbers."""
    if not _free(n, dtype, more):
        return torch.fft.rfftfreq(n, d, dtype=dtype, **more)
    return torch.arange(n // 2 + 1).to(dtype or torch.get_default_dtype()) * (1.0 / (n * d))


def _cosines(at: Tensor, last: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.cos(at * (2 * math.pi / last).to(at.dtype)) * -beta + alpha


def _triangle(at: Tensor, last: Tensor) -> Tensor:
    rising = at * (2 / last).to(at.dtype)
    return torch.where(at <= torch.floor(last / 2).to(at.dtype), rising, 2 - rising)


def _blackman(at: Tensor, last: Tensor) -> Tensor:
    angle = at * (math.pi / last).to(at.dtype)
    return torch.cos(angle * 4) * 0.08 - torch.cos(angle * 2) * 0.5 + 0.42


def _kaiser(at: Tensor, last: Tensor, beta: float) -> Tensor:
    side = at * (2 / last).to(at.dtype) - 1
    top = torch.full((), beta, dtype=at.dtype)
    return torch.i0(beta * torch.sqrt(torch.clamp_min(1 - side * side, 0))) / torch.i0(top)


def _window(own: Callable[..., Tensor], shape: Callable[..., Tensor], **defaults: float) -> None:
    """Register a window: `shape` of its places and of the last one, which a periodic one leaves out."""

    def window(
        window_length: Any, periodic: bool = True, *numbers: float, dtype: Any = None, **more: Any
    ) -> Tensor:
        if not _free(window_length, dtype, more):
            return own(window_length, periodic, *numbers, dtype=dtype, **more)
        named = {n: more.get(n, v) for n, v in defaults.items()} | dict(zip(defaults, numbers, strict=False))
        require_count(own.__name__, window_length)
        at = torch.arange(window_length).to(dtype or torch.get_default_dtype())
        last = torch.sym_max(window_length if periodic else window_length - 1, 1)
        made = shape(at, torch.full((), last, dtype=torch.float64), **named)
        return made.masked_fill(_is_one(window_length), 1)

    instead(own)(window)


def _is_one(size: Any) -> Tensor:
    return torch.full((), size, dtype=torch.int64) == 1


_window(torch.hann_window, partial(_cosines, alpha=0.5, beta=0.5))
_window(torch.hamming_window, _cosines, alpha=0.54, beta=0.46)
_window(torch.bartlett_window, _triangle)
_window(torch.blackman_window, _blackman)
_window(torch.kaiser_window, _kaiser, beta=12.0)


@instead(torch.affine_grid_generator)
def affine_grid(theta: Tensor, size: Sequence[Any], align_corners: bool) -> Tensor:
    """Where the affine maps [n, d, d + 1] take the middles of pixels, [n, …, d]; with `align_corners` those
    at the edges are at -1 and 1. A single pixel is in the middle.
    """
    if not any(isinstance(n, torch.SymInt) for n in size) or theta.dtype not in _FOLLOWED:
        return torch.affine_grid_generator(theta, size, align_corners)
    batch, _, *spatial = size
    axes: list[Tensor] = []
    for n in spatial:
        places = spaced(-1, 1, n, theta.dtype)
        places = places if align_corners else places * (n - 1) / n
        axes.append(places.masked_fill(_is_one(n), 0))
    grids = [g.reshape(-1) for g in torch.meshgrid(*axes, indexing="ij")][::-1]
    base = torch.stack([*grids, torch.ones_like(grids[0])], -1)
    return torch.matmul(base, theta.transpose(1, 2)).reshape([batch, *spatial, len(spatial)])
