"""Pieces of syntax that rewritten code is made of."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

RUNTIME = "_ingot"  # the variable that has the runtime, in rewritten code
THUNK = "_ingot_thunk"  # a parameter that only functions made of expressions have
IMPORT = "__import__('ingot.capture.stage', fromlist=('RUNTIME',)).RUNTIME"


def name(of: str) -> ast.Name:
    """The variable, read."""
    return ast.Name(of, ast.Load())


def runtime(function: str) -> ast.Attribute:
    """A function of the runtime that rewritten code calls."""
    return ast.Attribute(name(RUNTIME), function, ast.Load())


def assign(target: str, value: ast.expr, at: ast.AST) -> ast.stmt:
    """`target = value`, at the line of another node."""
    made = ast.Assign([ast.Name(target, ast.Store())], value)
    return ast.fix_missing_locations(ast.copy_location(made, at))


def parsed(source: str) -> ast.expr:
    """An expression, read."""
    return ast.parse(source, mode="eval").body


def call(function: str, *arguments: ast.expr) -> ast.Call:
    """A call of a function of the runtime."""
    return ast.Call(runtime(function), list(arguments), [])


def thunk(body: ast.expr, *parameters: str) -> ast.Lambda:
    """An expression as a function, which has a mark that nobody passes."""
    taken, mark = [ast.arg(p) for p in parameters], ast.arg(THUNK)
    return ast.Lambda(ast.arguments([], taken, None, [mark], [ast.Constant(None)], None, []), body)


def strings(values: Sequence[str]) -> ast.Constant:
    """A tuple of strings."""
    constant: Any = tuple(values)
    return ast.Constant(constant)


def slice_value(node: ast.expr) -> ast.expr:
    """What stands in brackets as a value: slices become calls of `slice`."""
    if isinstance(node, ast.Slice):
        parts = [part or ast.Constant(None) for part in (node.lower, node.upper, node.step)]
        return ast.Call(ast.Name("slice", ast.Load()), parts, [])
    if isinstance(node, ast.Tuple):
        if any(isinstance(n, ast.Starred) for n in node.elts):
            return node
        return ast.Tuple([slice_value(n) for n in node.elts], ast.Load())
    return node
