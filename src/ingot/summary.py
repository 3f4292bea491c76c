"""Outputs in a line each: dtype, shape, range, and how many values are not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingot.runtime.options import NodeArg


@dataclass(frozen=True)
class Summary:
    """One array; min, max and mean are over its finite values, None when it has none or is not numeric."""

    name: str
    dtype: str
    shape: list[int]
    min: float | None
    max: float | None
    mean: float | None
    not_finite: int


def summarise(name: str, output: NDArray[Any] | list[Any] | dict[Any, Any] | None) -> Summary:
    """Summarise one output; of a sequence or map its length, of what is absent nothing."""
    if isinstance(output, list | dict) or output is None:
        kind = "none" if output is None else "seq" if isinstance(output, list) else "map"
        return Summary(name, kind, [] if output is None else [len(output)], None, None, None, 0)
    array = output
    numeric = array.dtype.kind not in "OSUc"
    values = array.astype(np.float64).ravel() if numeric else np.empty(0)
    finite = values[np.isfinite(values)]
    some = finite.size > 0
    return Summary(
        name,
        str(array.dtype),
        list(array.shape),
        float(finite.min()) if some else None,
        float(finite.max()) if some else None,
        float(finite.mean()) if some else None,
        int(values.size - finite.size),
    )


def signature(name: str, dtype: str, dims: Sequence[int | str]) -> NodeArg:
    """Return an input as a session's `get_inputs` would give it."""
    onnx_name = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    return NodeArg(name, f"tensor({onnx_name})", list(dims))
