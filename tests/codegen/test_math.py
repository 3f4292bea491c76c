"""Vector mathematics in units of the last place: float32 against float64, float64 against 40 digits."""

from __future__ import annotations

import functools
from typing import Any

import mpmath
import numpy as np
import pytest

from ingot.codegen.machine import Machine
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, Step
from ingot.kernels.operations import OPERATIONS
from tests.kernels.run import each_machine, new, put, run_once

EDGES = (
    *(
        0.0,
        -0.0,
        1.0,
        -1.0,
        np.inf,
        -np.inf,
        np.nan,
        1e-45,
        -1e-45,
        1.1754944e-38,
        1.1754942e-38,
        3.4028235e38,
    ),
    *(
        -3.4028235e38,
        88.72283,
        88.72284,
        89.0,
        -87.33,
        -103.27,
        -103.97,
        -103.98,
        -104.5,
        0.70710677,
        0.7071068,
    ),
    *(0.625, 0.62499994, 9.02, 3.93, 3.9192059, 14.5, 1e6, 1000001.0, 1e30, 710.0, 16777216.0, 8388608.5),
)
CIRCULAR = ("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh")
WHOLE_RANGE = ("Exp", "Log", "Tanh", "Erf", "Sigmoid", "Softplus", "Sqrt", "Reciprocal", *CIRCULAR)
#: 0 where they are less than the smallest normal number
FLUSHED = ("Sigmoid", "Softplus")
COMPOSITE = ("Mish", "Swish", "Elu", "Selu", "Celu", "Softsign", "HardSwish")


@functools.cache
def arguments(step: int) -> np.ndarray:
    """Edges, every `step`-th bit pattern of float32, and a dense stretch where functions bend."""
    patterns = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    bends = np.concatenate([np.linspace(-110, 110, 50001), np.linspace(-4, 4, 50001)])
    edges = [sign * e for e in EDGES for sign in (1, -1)]
    return np.concatenate([np.array(edges, np.float32), patterns, bends.astype(np.float32)])


@functools.cache
def reference(op: str, step: int) -> np.ndarray:
    with np.errstate(all="ignore"):
        return OPERATIONS[op].define(arguments(step).astype(np.float64))


def units(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Errors in units in the last place of the exact value; infinite for a wrong Inf or NaN."""
    with np.errstate(all="ignore"):
        near = exact.astype(np.float32)
        spacing = np.spacing(np.abs(near)).astype(np.float64)
        error = np.abs(got.astype(np.float64) - exact) / spacing
    same = (np.isnan(near) & np.isnan(got)) | (near == got)
    return np.where(np.isfinite(near) & np.isfinite(got), error, np.where(same, 0.0, np.inf))


def run(op: str, x: np.ndarray, machine: Machine, *others: np.ndarray) -> np.ndarray:
    expression = Expression(
        ("float32",) * (1 + len(others)),
        (Step(op, (*range(1 + len(others)),), "float32"),),
        (1 + len(others),),
    )
    out = new(x.shape)
    memory = run_once([elementwise(expression, [put(x), *map(put, others)], [out], machine)], machine)
    return memory.array(out).copy()


@each_machine
@pytest.mark.parametrize("op", WHOLE_RANGE)
def test_within_four_units_over_the_whole_range(op: str, machine: Machine) -> None:
    step = 12007
    x, exact = arguments(step), reference(op, step)
    got = run(op, x, machine)
    error = units(got, exact)
    if op in FLUSHED:
        error[(got == 0.0) & (np.abs(exact) < np.finfo(np.float32).tiny)] = 0.0
    worst = int(error.argmax())
    assert error[worst] <= 4.0, f"{op}({x[worst]!r}) is {error[worst]:.2f} ULP off"


#: float64's functions, in any number of digits
DIGITS: dict[str, Any] = {
    "Exp": mpmath.exp,
    "Log": mpmath.log,
    "Tanh": mpmath.tanh,
    "Erf": mpmath.erf,
    "Sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "Softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    **{op: getattr(mpmath, op.lower()) for op in CIRCULAR},
}
#: float64's nearest neighbours of multiples of π/2, where a tangent keeps no digits of a careless reduction
NEAR_TURNS = (
    1.5707963267948966,
    3.141592653589793,
    355.0,
    710.0,
    103993.0,
    104348.0,
    208341.0,
    312689.0,
    833719.0,
)


@functools.cache
def doubles() -> np.ndarray:
    """Edges, random bit patterns, and stretches where functions bend."""
    rng = np.random.default_rng(0)
    edges = [*EDGES, *NEAR_TURNS, 5e-324, 2.2e-308, 1.7e308, 709.78, 709.79, 710.475, 710.48, 745.13, 745.14]
    edges += [0.5, 2.0**27, 2.0**28, 2.0**29, 2.4142135623730954, 2.414213562373095, 0.41421356237309503]
    with np.errstate(all="ignore"):
        patterns = rng.integers(0, 2**64, 600, dtype=np.uint64).view(np.float64)
    parts = [*(np.linspace(-edge, edge, 301) for edge in (1.01, 5, 40, 760)), np.arange(1, 200) * np.pi / 2]
    parts += [
        rng.standard_normal(100) * 1e-8,
        1 + rng.standard_normal(100) * 1e-8,
        10.0 ** rng.uniform(0, 6, 300),
    ]
    return np.concatenate([[sign * e for e in edges for sign in (1, -1)], patterns, *parts])


@functools.cache
def digits_of(op: str) -> list[Any]:
    """40 digits for each of `doubles`; None where NumPy says that there is no finite number."""
    found: list[Any] = []
    with mpmath.workdps(40), np.errstate(all="ignore"):
        plain = OPERATIONS[op].define(doubles())
        for x, y in zip(doubles().tolist(), plain.tolist(), strict=True):
            found.append(DIGITS[op](mpmath.mpf(x)) if np.isfinite(y) and np.isfinite(x) else None)
    return found


@each_machine
@pytest.mark.parametrize("op", DIGITS)
def test_float64_is_within_four_units_over_the_whole_range(op: str, machine: Machine) -> None:
    x = doubles()
    out = new(x.shape, np.dtype(np.float64))
    expression = Expression(("float64",), (Step(op, (0,), "float64"),), (1,))
    got = run_once([elementwise(expression, [put(x)], [out], machine)], machine).array(out).copy()
    with np.errstate(all="ignore"):
        plain = OPERATIONS[op].define(x)
    tiny = np.finfo(np.float64).tiny if op in FLUSHED else 0.0
    for argument, y, exact, rough in zip(
        x.tolist(), got.tolist(), digits_of(op), plain.tolist(), strict=True
    ):
        if exact is None:
            assert y == rough or (np.isnan(y) and np.isnan(rough)), (
                f"{op}({argument!r}) is {y!r}, want {rough!r}"
            )
            continue
        error = abs(mpmath.mpf(y) - exact) / float(np.spacing(abs(float(exact))))
        assert error <= 4.0 or (y == 0.0 and abs(exact) < tiny), (
            f"{op}({argument!r}) is {float(error):.2f} ULP off"
        )


@each_machine
@pytest.mark.parametrize("op", COMPOSITE)
def test_composites_keep_their_relative_error_down_to_denormal_numbers(op: str, machine: Machine) -> None:
    step = 60013
    x, exact = arguments(step), reference(op, step)
    got = run(op, x, machine)
    error = units(got, exact)
    # A factor that is denormal itself has lost digits already, or is 0.
    denormal = np.abs(exact) < 2e-36
    assert error[~denormal].max() <= 10.0, x[~denormal][error[~denormal].argmax()]
    x, got, exact = x[denormal].astype(np.float64), got[denormal], exact[denormal]
    flushed = (got == 0.0) & (np.abs(exact) <= np.abs(x) * np.finfo(np.float32).tiny)
    assert ((np.abs(got - exact) <= 2e-42) | flushed).all()


@each_machine
def test_erf_comes_to_one(machine: Machine) -> None:
    """1 + erf(x) of a large negative x is nothing, also times x."""
    x = np.array([4.0, 5.0, 20.0, 1e38, np.inf], np.float32)
    for sign in (np.float32(1), np.float32(-1)):
        np.testing.assert_array_equal(run("Erf", sign * x, machine), np.full(x.shape, sign, np.float32))


@each_machine
def test_gelu_is_within_three_units_of_its_argument(machine: Machine) -> None:
    x, exact = arguments(60013), reference("Gelu", 60013)
    got = run("Gelu", x, machine)
    finite = np.isfinite(x)
    assert np.array_equal(np.isnan(got), np.isnan(exact)) and (got[x == np.inf] == np.inf).all()
    error = np.abs(got[finite] - exact[finite]) / np.spacing(np.minimum(np.abs(x[finite]), np.float32(1e38)))
    assert error.max() <= 3.0, x[finite][error.argmax()]
    assert not got[finite & (x < -6.0)].any()


@each_machine
def test_pow_is_cs_pow(machine: Machine) -> None:
    specials = np.array(
        [
            0.0,
            -0.0,
            1.0,
            -1.0,
            np.inf,
            -np.inf,
            np.nan,
            2.0,
            -2.0,
            3.0,
            -3.0,
            0.5,
            -0.5,
            1e-45,
            -1e-45,
            1e38,
            1e30,
            16777217.0,
        ],
        np.float32,
    )
    a, b = (g.ravel() for g in np.meshgrid(specials, specials))
    rng = np.random.default_rng(0)
    x = np.concatenate([a, np.exp(rng.normal(0, 8, 20000)), -np.exp(rng.normal(0, 2, 2000))]).astype(
        np.float32
    )
    y = np.concatenate([b, rng.normal(0, 6, 20000), rng.integers(-9, 9, 2000)]).astype(np.float32)
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
    got = run("Pow", x, machine, y)
    assert units(got, exact).max() <= 1.0
    assert np.array_equal(np.signbit(got[got == 0]), np.signbit(exact.astype(np.float32)[got == 0]))
