"""Makes a valid case a wrong one: one attribute, shape, dtype or input is another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.search.draw import Case, Draw

DTYPES = ("float32", "int64", "int32", "bool", "string", "float16", "uint8", "float64", "int8", "bfloat16")


def mutated(case: Case, r: Draw) -> tuple[Case, str]:
    """The case with one thing changed, and what that is."""
    arrays = [i for i, value in enumerate(case.inputs) if isinstance(value, np.ndarray)]
    kinds = ["attribute"] * bool(case.attributes) + ["input", "rank", "size", "dtype", "values"] * bool(
        arrays
    )
    kind = r.one(kinds or ["output"])
    if kind == "output":
        return replace(case, outputs=case.outputs + 1, named=None), "an output more"
    if kind == "attribute":
        name = r.one(sorted(case.attributes))
        value = other_value(case.attributes[name], r)
        attributes = {k: v for k, v in case.attributes.items() if k != name}
        if value is not None:
            attributes[name] = value
        return replace(case, attributes=attributes), f"{name} is {value!r}"
    which = r.one(arrays)
    inputs = list(case.inputs)
    x: Any = inputs[which]
    if kind == "input":
        inputs[which] = None
    elif kind == "rank":
        inputs[which] = (
            x[None]
            if r.flag() or not x.ndim
            else x[0]
            if x.shape[0]
            else x.reshape(())
            if x.size == 1
            else x[..., None]
        )
    elif kind == "size" and x.ndim:
        axis = r.integer(0, x.ndim - 1)
        inputs[which] = (
            np.concatenate([x, x], axis) if r.flag() else np.take(x, range(max(0, x.shape[axis] - 1)), axis)
        )
    elif kind == "dtype":
        inputs[which] = r.array(x.shape, r.one(DTYPES), special=0.0)
    elif x.dtype.kind in "iu" and x.size:
        inputs[which] = r.array(x.shape, str(x.dtype), special=0.9)
    else:
        inputs[which] = np.zeros((), x.dtype)
    return replace(case, inputs=inputs), f"{kind} of input {which}"


def other_value(value: Any, r: Draw) -> Any:
    """Another value of the same type, or none."""
    if isinstance(value, bool | int):
        return r.one([-1, 0, 1, 7, 99, -100, 2**40, None])
    if isinstance(value, float):
        return r.one([float("nan"), float("inf"), -1.0, 0.0, 1e30, None])
    if isinstance(value, str):
        return r.one(["bogus", "", None])
    if isinstance(value, list) and value and isinstance(value[0], str):
        return r.one([[*value, "bogus"], value[:-1] or ["x"], ["bogus"] * len(value)])
    if isinstance(value, list) and value and isinstance(value[0], float):
        return r.one([[*value, 1.0], value[:-1] or None, None])
    if isinstance(value, list):
        return r.one(
            [
                [*value, 1],
                value[:-1] or None,
                [-v for v in value] or None,
                [0] * len(value) or None,
                [v + 2**33 for v in value] or None,
            ]
        )
    return None
