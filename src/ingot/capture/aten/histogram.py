"""How many elements, or what weight of them, fall into bins: of one axis or of several."""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ingot.capture.aten.nothing import of_nothing_too
from ingot.capture.aten.registry import composed, instead
from ingot.capture.checks import demand
from ingot.capture.request import recorder

Tensor = torch.Tensor


@composed("histc")
def histc(a: Tensor, bins: int = 100, min: Any = 0, max: Any = 0) -> Tensor:
    """How many elements fall into each of equal bins; between the extremes where no bounds are given."""
    x = a.reshape(-1)
    if x.shape[0] == 0:
        return torch.zeros(bins, dtype=a.dtype)
    low, high = (torch.full([], float(v), dtype=x.dtype) for v in (min, max))
    if min == max:
        with of_nothing_too():
            low, high = x.amin(), x.amax()
        same = low == high
        low, high = torch.where(same, low - 1, low), torch.where(same, high + 1, high)
    inside = (x >= low) & (x <= high)
    at = torch.floor((torch.where(inside, x, low) - low) * bins / (high - low))
    at = torch.clamp(at, 0, bins - 1).long()
    return torch.zeros(bins, dtype=a.dtype).index_add(0, at, inside.to(a.dtype))


def _even(x: Tensor, bins: int, limits: Sequence[float] | None) -> Tensor:
    """The edges of equal bins between the limits, or the extremes of a flat tensor."""
    if limits is not None:
        low, high = (torch.full([], float(v), dtype=torch.float64) for v in limits)
    else:  # of no elements between 0 and 1, as if these were the only two
        missing: Any = torch.sym_max(1 - x.numel(), 0)
        low, high = (torch.nn.functional.pad(x, (0, missing), value=end) for end in (0, 1))
        with of_nothing_too():
            low, high = low.min().double(), high.max().double()
    same = low == high
    low, high = torch.where(same, low - 0.5, low), torch.where(same, high + 0.5, high)
    steps = torch.arange(bins + 1, dtype=torch.float64) / bins
    edges = (low + (high - low) * steps).to(x.dtype)
    # The ends are what was given, not what arithmetic makes of them.
    return torch.where(torch.arange(bins + 1) == bins, high.to(x.dtype), edges)


def _counted(points: Tensor, edges: Sequence[Tensor], weight: Tensor | None, density: bool) -> Tensor:
    """The histogram of points [n, axes]; the last bin of an axis has its upper edge, too."""
    counts = [e.shape[0] - 1 for e in edges]
    amount = torch.ones_like(points[:, 0]) if weight is None else weight.reshape(-1)
    inside = torch.ones_like(points[:, 0], dtype=torch.bool)
    place = torch.zeros_like(points[:, 0], dtype=torch.int64)
    size: Any = 1
    for axis, (e, n) in enumerate(zip(edges, counts, strict=True)):
        x = points[:, axis]
        inside = inside & (x >= e[0]) & (x <= e[n])
        place = place * n + torch.clamp(torch.searchsorted(e, x, right=True) - 1, 0, n - 1)
        size = size * n
    kept = torch.where(inside, amount, 0.0).to(points.dtype)
    total = torch.zeros(size, dtype=points.dtype).index_add(0, place, kept).reshape(counts)
    if density:
        total = total / total.sum()
        for axis, (e, n) in enumerate(zip(edges, counts, strict=True)):
            widths = e.narrow(0, 1, n) - e.narrow(0, 0, n)
            total = total / widths.reshape([n if d == axis else 1 for d in range(len(edges))])
    return total


@composed("histogram.bins_tensor")
def histogram(a: Tensor, bins: Tensor, *, weight: Any = None, density: bool = False) -> tuple[Tensor, Tensor]:
    """Counts between the given edges."""
    return _counted(a.reshape(-1, 1), [bins], weight, density), bins


@composed("histogram.bin_ct")
def histogram_count(
    a: Tensor,
    bins: int = 100,
    *,
    range: Sequence[float] | None = None,
    weight: Any = None,
    density: bool = False,
) -> tuple[Tensor, Tensor]:
    """Counts in equal bins."""
    edges = _even(a.reshape(-1), bins, range)
    return _counted(a.reshape(-1, 1), [edges], weight, density), edges


@instead(torch.histogram, Tensor.histogram)
def histogram_of_any(
    input: Tensor,
    bins: Any = 100,
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    """Either of these; torch's own do not run on tensors without contents."""
    if isinstance(bins, Tensor):
        made = histogram(input, bins, weight=weight, density=density)
    else:
        made = histogram_count(input, bins, range=range, weight=weight, density=density)
    return torch.return_types.histogram(made)


@instead(torch.bincount, Tensor.bincount)
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each number from 0 occurs in a vector of integers, or with what weight."""
    if input.dim() != 1 or input.dtype.is_floating_point or minlength < 0:
        return torch.bincount(input, weights, minlength)  # which says what it wants
    places = input.long()
    ends = torch.cat([places, torch.full([1], minlength - 1)])
    lowest = torch.cat([places, torch.zeros(1, dtype=torch.int64)]).min().item()
    demand(recorder(), lowest >= 0, "torch.bincount would refuse negative numbers here")  # pyright: ignore[reportArgumentType]
    size: Any = (ends.max() + 1).item()
    if weights is None:
        return torch.zeros(size, dtype=torch.int64).index_add(0, places, torch.ones_like(places))
    demand(
        recorder(), places.shape[0] > 0, "torch.bincount would count nothing in integers, not weights, here"
    )
    kind = torch.float32 if weights.dtype == torch.float32 else torch.float64
    return torch.zeros(size, dtype=kind).index_add(0, places, weights.to(kind))


@instead(torch.histogramdd)
def histogramdd(
    input: Tensor,
    bins: Any,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    """Counts of points [.., axes], in equal bins or between each axis's edges; torch's own way does not
    run on tensors without contents.
    """
    points = input.reshape(-1, input.shape[-1])
    each: list[Any] = [bins] * points.shape[1] if isinstance(bins, int) else list(bins)
    edges: list[Tensor] = each
    if not isinstance(each[0], Tensor):
        limits = [None if range is None else range[2 * i : 2 * i + 2] for i, _ in enumerate(each)]
        edges = [_even(points[:, i], n, limits[i]) for i, n in enumerate(each)]
    counts = _counted(points, edges, weight, density)
    return torch.return_types.histogramdd((counts, tuple(edges)))
