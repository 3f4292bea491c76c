"""How close an output of an exported model must be to the module's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ingot.errors import VerificationError

Array = npt.NDArray[Any]

# Largest difference allowed, as a part of the largest reference value. A network's float32 sums differ by
# 1e-6 to 2e-5 between libraries; integers and booleans must be equal.
TOLERANCE = {"float64": 1e-9, "float32": 2e-4, "float16": 1e-2, "bfloat16": 5e-2}
#: How many times its tolerance an output may differ at the most, where the module itself is that sensitive.
MOST_SENSITIVE = 10
#: How much further than an input moved by its rounding moves the module's result a model may be from it.
SHAKEN = 20


def check(
    name: str,
    want: Array,
    got: Array,
    rtol: float | None,
    shaken: Callable[[], Array],
    where: str,
    computed: str | None = None,
) -> float:
    """The largest difference relative to the largest reference value.

    computed: the narrowest dtype of floating numbers on the way to it, where there are any below float64

    Raises:
        VerificationError: on another dtype or shape, other places of NaN and infinity, or a larger
        difference.
    """
    at = f" at {where}" if where else ""
    if got.dtype != want.dtype or got.shape != want.shape:
        raise _of_another_kind(name, at, want, got)
    difference, scale = distance(want, got)
    tolerance = TOLERANCE.get(str(want.dtype), 0.0) if rtol is None else rtol
    if rtol is None and tolerance and computed:  # more digits than those it was computed in, nobody has
        tolerance = max(tolerance, TOLERANCE[computed])
    if difference <= tolerance * scale:
        return difference / scale if scale else 0.0
    if rtol is None and difference <= MOST_SENSITIVE * tolerance * scale:
        # A module that moves this much when its inputs change in their last digits says no more than that.
        moved, _ = distance(want, shaken())
        if np.isfinite(moved) and difference <= SHAKEN * moved:
            return difference / scale if scale else 0.0
    raise VerificationError(
        f"output {name!r}{at}: the exported model differs from the module by {difference:.3g}, where "
        "values reach "
        f"{scale:.3g} and {tolerance * scale:.3g} is allowed."
    )


def check_kind(name: str, want: Array, got: Array, again: Iterable[Array], where: str) -> None:
    """An output that depends on drawn numbers has the module's dtype and shape, but for axes whose size is
    another one each time that the module runs.

    Raises:
        VerificationError: it has not.
    """
    if got.dtype == want.dtype and got.shape == want.shape:
        return
    if got.dtype == want.dtype and got.ndim == want.ndim:
        runs = np.array([want.shape, *(other.shape for other in again if other.ndim == want.ndim)])
        differ = np.array(got.shape) != want.shape
        if (runs != runs[0]).any(0)[differ].all():
            return
    at = f" at {where}" if where else ""
    raise _of_another_kind(name, at, want, got)


def _of_another_kind(name: str, at: str, want: Array, got: Array) -> VerificationError:
    """Says which dtype and shape an output has, and what to do where it is empty, or a number of Python's."""
    remedy = ""
    if not want.size and not got.size and want.dtype == np.float32:
        remedy = (
            " torch.tensor of an empty list is float32 of shape [0]: give it the dtype that it has "
            "otherwise, and reshape it where its elements are lists (torch.tensor(pairs, "
            "dtype=torch.int64).view(-1, 2))."
        )
    elif not want.ndim and str(want.dtype) in ("int64", "float64") and want.dtype != got.dtype:
        remedy = (
            " A number of Python's has a dtype of its own where no round of a loop, or no side of a branch, "
            "makes a tensor of it (`total = 0` before the loop): begin with a tensor, x.new_zeros(())."
        )
    return VerificationError(
        f"output {name!r}{at}: the module gives {want.dtype} {list(want.shape)}, the exported model "
        f"{got.dtype} {list(got.shape)}.{remedy}"
    )


def differs(want: Array, got: Array) -> bool:
    """Whether a difference is larger than the dtype allows."""
    difference, scale = distance(want, got)
    return difference > TOLERANCE.get(str(want.dtype), 0.0) * scale


def distance(want: Array, got: Array) -> tuple[float, float]:
    """The largest difference, infinite where NaN or infinities stand in other places, and the largest finite
    value.
    """
    if want.size == 0:
        return 0.0, 0.0
    a, b = want.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(np.isnan(a), np.isnan(b)) or not np.array_equal(finite, np.isfinite(b)):
        return float("inf"), 1.0
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf"), 1.0
    scale = float(np.abs(a[finite]).max()) if finite.any() else 0.0
    difference = float(np.abs(a[finite] - b[finite]).max()) if finite.any() else 0.0
    if want.dtype.kind in "iu" and not np.array_equal(want, got):
        difference = max(difference, 1.0)  # whole numbers of 64 bits have more digits than float64
    return difference, scale


def equal(a: Array, b: Array) -> bool:
    """The same numbers, NaN among them, of one dtype and shape."""
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def is_finite(x: Array) -> bool:
    """Whether there is no NaN and no infinity."""
    return x.dtype.kind not in "fc" or bool(np.isfinite(x).all())
