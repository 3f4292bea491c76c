"""Inputs from annotations: `Annotated[Tensor, Input(...)]`, and jaxtyping's `Float32[Tensor, "batch 3 h w"]`.

jaxtyping need not be installed: where an annotation is text, its text is read.
"""

# Annotations may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import ast
import contextlib
import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import replace
from inspect import Parameter
from typing import Any

from ingot.capture.signature import Count, Input
from ingot.errors import ExportError

# jaxtyping's names; those of several dtypes stand for torch's default of the kind.
_DTYPES = {
    "Float": "float32", "Inexact": "float32", "Num": "float32", "Real": "float32", "Shaped": "float32",
    "Int": "int64", "Integer": "int64", "UInt": "uint8", "Bool": "bool", "BFloat16": "bfloat16",
    "Complex": "complex64", "Complex64": "complex64", "Complex128": "complex128",
    **{f"Float{n}": f"float{n}" for n in (16, 32, 64)},
    **{f"Int{n}": f"int{n}" for n in (8, 16, 32, 64)},
    **{f"UInt{n}": f"uint{n}" for n in (8, 16, 32, 64)},
}  # fmt: skip
_UNIONS = (typing.Union, types.UnionType)


def annotated_inputs(model: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments of a call: an Input for each parameter whose annotation has one,
    with a default or without; other numbers and words that are defaults as they are, to be recorded as fixed.

    Both are empty where no parameter is so annotated.

    Raises:
        ExportError: some parameters say what they are and others do not, or a shape cannot be read.
    """
    function = getattr(model, "forward", model)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return (), {}
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    parameters = [p for p in signature.parameters.values() if p.kind in kinds]
    names = getattr(inspect.unwrap(function), "__globals__", {})
    found = {p.name: spec for p in parameters if (spec := _spec(p.annotation, names, p.name)) is not None}
    missing = [p.name for p in parameters if p.default is Parameter.empty and p.name not in found]
    if found and missing:
        raise ExportError(
            f"the arguments {missing} have no shape in their annotations. Annotate them as the others, "
            'Annotated[Tensor, ingot.Input("float32", ["batch", 8])] for example, or pass args.'
        )
    return _call(parameters, found) if found else ((), {})


def _call(parameters: list[Parameter], found: Mapping[str, Input]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the call: by position up to the first that keeps its default, the others by name."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    gap = False
    for p in parameters:
        spec = found.get(p.name)
        if p.kind is Parameter.POSITIONAL_ONLY:
            args.append(p.default if spec is None else _beginning(spec, p.default))
            continue
        gap |= spec is None or p.kind is Parameter.KEYWORD_ONLY
        if spec is not None and not gap:
            args.append(_beginning(spec, p.default))
        elif spec is not None:
            kwargs[p.name] = _beginning(spec, p.default)
        elif isinstance(p.default, (bool, int, float, str)):
            kwargs[p.name] = p.default
    return tuple(args), kwargs


def _beginning(spec: Input, default: Any) -> Input:
    """The Input of a number with the parameter's default as its example, if it has none of its own."""
    if spec.example is None and not len(spec.shape) and isinstance(default, (bool, int, float)):
        return replace(spec, example=default)
    return spec


def _spec(annotation: Any, names: Mapping[str, Any], parameter: str) -> Input | None:
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__  # text inside of Optional[…]
    if isinstance(annotation, str):
        return _from_text(annotation, names, parameter)
    if typing.get_origin(annotation) is typing.Annotated:
        of = typing.get_args(annotation)[0]
        spec = next((m for m in annotation.__metadata__ if isinstance(m, Input)), None)
        if spec is None:
            return _spec(of, names, parameter)
        kinds = [k for k in (bool, int, float) if of in (k, k | None)]
        return Count(spec.dtype, [], spec.example, kinds[0]) if kinds and not len(spec.shape) else spec
    if typing.get_origin(annotation) in _UNIONS:
        parts = [_spec(part, names, parameter) for part in typing.get_args(annotation)]
        return next((part for part in parts if part is not None), None)
    shape, dtypes = getattr(annotation, "dim_str", None), getattr(annotation, "dtypes", None)
    if not isinstance(shape, str):
        return None
    kind = annotation.__name__.partition("[")[0]  # "Float32[Tensor, 'batch 3']"
    known = _DTYPES.get(kind) or (str(dtypes[0]) if isinstance(dtypes, (list, tuple)) and dtypes else None)
    return Input(known, read_shape(shape, parameter)) if known else None


def _from_text(text: str, names: Mapping[str, Any], parameter: str) -> Input | None:
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
    for part in _alternatives(node):
        if isinstance(part, (ast.Name, ast.Attribute)):  # an alias, of what a module says once
            with contextlib.suppress(NameError, AttributeError):
                made = eval(ast.unparse(part), dict(names))
                if not isinstance(made, str) and (spec := _spec(made, names, parameter)) is not None:
                    return spec
            continue
        if not isinstance(part, ast.Subscript) or not isinstance(part.slice, ast.Tuple):
            continue
        kind = _last_name(part.value)
        last = part.slice.elts[-1]
        if kind in _DTYPES and isinstance(last, ast.Constant) and isinstance(last.value, str):
            return Input(_DTYPES[kind], read_shape(last.value, parameter))
        if kind == "Annotated":
            try:
                made = eval(ast.unparse(part), dict(names))
            except NameError as error:
                raise ExportError(
                    f"the annotation of argument {parameter!r}, {text!r}, cannot be read: {error}. Import "
                    "the name in the module that defines the model."
                ) from error
            return _spec(made, names, parameter)
    return None


def _alternatives(node: ast.expr) -> list[ast.expr]:
    """The parts of `A | B`, `Optional[A]` and `Union[A, B]`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_alternatives(node.left), *_alternatives(node.right)]
    if isinstance(node, ast.Subscript) and _last_name(node.value) in ("Optional", "Union"):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return [alternative for part in parts for alternative in _alternatives(part)]
    return [node]


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def read_shape(text: str, parameter: str) -> list[int | str | None]:
    """The dims of a jaxtyping shape: `"batch 3 h w"`; `_` has no name, `rows=4` is 4.

    Raises:
        ExportError: it says that the number of axes varies, or has an expression.
    """
    dims: list[int | str | None] = []
    for token in text.split():
        word = token.lstrip("#?").rpartition("=")[2]
        if word == "_" or word.startswith("_"):
            dims.append(None)
        elif word.isdigit():
            dims.append(int(word))
        elif word.isidentifier():
            dims.append(word)
        else:
            raise ExportError(
                f"the annotation of argument {parameter!r} has {token!r} in its shape {text!r}; an input of "
                "a model has a fixed number of axes, each a size or a name. Pass args=(ingot.Input(…),)."
            )
    return dims
