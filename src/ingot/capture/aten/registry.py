"""The tables of rows: from an ATen operator (or a torch function kept whole) to the function that emits its
ONNX.

A row is `row(g, out, *args, **kwargs)`: `g` the recorder, `out` what torch's fake tensors say the call
returns (for shapes and dtypes), then the call's own arguments. It returns an `ir.Value`, or a list with one
per output. Rows named without an overload serve every overload; `name.Overload` is looked up first. `op_`
uses the row of `op`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any

Row = Callable[..., Any]

ROWS: dict[str, Row] = {}
WHOLE: dict[Any, tuple[Row, Row]] = {}
WHOLE_BY_NAME: dict[str, tuple[Row, Row]] = {}  # by the name of the ATen operator with the same arguments
INSTEAD: dict[Any, Row] = {}


def row(*names: str) -> Callable[[Row], Row]:
    """Register a row for ATen operators: `"add"`, `"max.dim"`."""

    def register(function: Row) -> Row:
        for name in names:
            if name in ROWS:
                raise ValueError(f"two rows for {name}")
            ROWS[name] = function
        return function

    return register


def whole(*functions: Any, meta: Row | None = None) -> Callable[[Row], Row]:
    """Register a row for torch functions that must not be taken apart into ATen operators.

    `meta(*args, **kwargs)` makes the fake outputs where torch's own function cannot with symbolic sizes.
    """

    def register(function: Row) -> Row:
        for f in functions:
            WHOLE[f] = (function, meta or f)
            if isinstance(f, BuiltinFunctionType):
                WHOLE_BY_NAME[f.__name__] = WHOLE[f]
        return function

    return register


def whole_row(function: Any) -> tuple[Row, Row] | None:
    """The row of a torch function, or of the ATen operator that it is, which must stay whole."""
    found = WHOLE.get(function)
    if found is None and getattr(function, "namespace", "") == "aten":
        found = WHOLE_BY_NAME.get(function.__name__.partition(".")[0])
    return found


def composed(*names: str) -> Callable[[Row], Row]:
    """Register an ATen operator that is written as Python over other torch operators, with its own
    arguments.
    """

    def register(function: Row) -> Row:
        def emit(g: Any, out: Any, *args: Any, **kwargs: Any) -> Any:
            return g.traced(function, out, *args, **kwargs)

        row(*names)(emit)
        return function

    return register


def instead(*functions: Any) -> Callable[[Row], Row]:
    """Register Python over other torch functions that is called instead of these ones, with their
    arguments.
    """

    def register(function: Row) -> Row:
        for f in functions:
            INSTEAD[f] = function
        return function

    return register
