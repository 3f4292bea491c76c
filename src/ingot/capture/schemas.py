"""What ONNX says of an operator, held against a node that somebody writes by hand."""

# onnx's schemas are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import onnx
import onnx_ir as ir

from ingot.errors import ExportError

STANDARD = ("", "ai.onnx")  # ONNX's own operators, by either name


def require_operator(name: str, opset: int | None = None) -> Any:
    """The schema of one of ONNX's own operators, at an opset or the newest.

    Raises:
        ExportError: ONNX has none of this name; says which are near.
    """
    newest = onnx.defs.onnx_opset_version()
    try:
        return onnx.defs.get_schema(name, opset or newest, "")
    except onnx.defs.SchemaError:
        pass
    names = sorted({s.name for s in onnx.defs.get_all_schemas_with_history() if not s.domain})
    if name in names and opset is not None and opset < newest:
        raise ExportError(
            f"{name} is no operator of opset {opset}. Export with a newer opset_version, or write it with "
            "others."
        )
    folded = {n.lower(): n for n in names}
    near = [folded[n] for n in difflib.get_close_matches(name.lower(), list(folded), 3)]
    raise ExportError(
        f"{name} is no operator of ONNX"
        + (f"; near ones are {', '.join(near)}" if near else "")
        + ". Correct the name, or give the domain that it is of."
    )


def fitting(
    name: str, opset: int, inputs: int, outputs: int, attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """The attributes of a node of ONNX's own, whole numbers as floats where it takes floats.

    Raises:
        ExportError: there is no such operator, or it takes no node like this.
    """
    schema = require_operator(name, opset)
    for what, count, low, high in (
        ("input", inputs, schema.min_input, schema.max_input),
        ("output", outputs, schema.min_output, schema.max_output),
    ):
        if not low <= count <= high:
            wanted = str(low) if low == high else f"{low} to {high}" if high < 1000 else f"{low} or more"
            raise ExportError(f"{name} of opset {opset} has {wanted} {what}(s), and this node has {count}.")
    made: dict[str, Any] = {}
    for key, value in attributes.items():
        known = schema.attributes.get(key)
        if known is None:
            raise ExportError(
                f"{name} of opset {opset} has no attribute {key!r}; it has "
                f"{', '.join(sorted(schema.attributes)) or 'none'}."
            )
        made[key] = _floats(value) if known.type.name in ("FLOAT", "FLOATS") else value
        kind = attribute(key, made[key]).type.name
        empty = isinstance(value, (list, tuple)) and not value
        if kind != known.type.name and not empty:
            raise ExportError(f"the attribute {key!r} of {name} is {value!r}; wanted {known.type.name}.")
    missing = [n for n, a in schema.attributes.items() if a.required and n not in made]
    if missing:
        raise ExportError(f"{name} of opset {opset} wants the attribute {missing[0]!r}, which is not given.")
    return made


def attribute(name: str, value: Any) -> ir.Attr:
    """A value as an attribute of a node.

    Raises:
        ExportError: no attribute can be this value.
    """
    try:
        return ir.convenience.convert_attribute(name, value)
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"the attribute {name!r} is {value!r}, which no attribute of a node can be. Give a number, a "
            "string, a tensor, or a list of one kind of them."
        ) from error


def _floats(value: Any) -> Any:
    """Whole numbers as floats."""
    if isinstance(value, (list, tuple)):
        return [_floats(v) for v in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
