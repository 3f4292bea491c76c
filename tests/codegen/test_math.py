"""Vector mathematics against float64, in units of the last place, over the whole range of float32."""

from __future__ import annotations

import functools

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
WHOLE_RANGE = ("Exp", "Log", "Tanh", "Erf", "Sigmoid", "Softplus", "Sqrt", "Reciprocal", "Sin", "Cos")
RARE = ("Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh")
COMPOSITE = ("Gelu", "Mish", "Swish", "Elu", "Selu", "Celu", "Softsign", "HardSwish")


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
    x = arguments(step)
    error = units(run(op, x, machine), reference(op, step))
    worst = int(error.argmax())
    assert error[worst] <= 4.0, f"{op}({x[worst]!r}) is {error[worst]:.2f} ULP off"


@each_machine
@pytest.mark.parametrize("op", RARE)
def test_rare_functions_are_rounded_once(op: str, machine: Machine) -> None:
    step = 200003
    x = arguments(step)
    error = units(run(op, x, machine), reference(op, step))
    assert error.max() <= 1.0


@each_machine
@pytest.mark.parametrize("op", COMPOSITE)
def test_composites_keep_their_relative_error_down_to_denormal_numbers(op: str, machine: Machine) -> None:
    step = 60013
    x, exact = arguments(step), reference(op, step)
    got = run(op, x, machine)
    error = units(got, exact)
    # A factor that is denormal itself has lost digits already.
    denormal = np.abs(exact) < 2e-36
    assert error[~denormal].max() <= 10.0, x[~denormal][error[~denormal].argmax()]
    assert (np.abs(got[denormal] - exact[denormal]) <= 2e-42).all()


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
