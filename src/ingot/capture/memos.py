"""Dicts in which forward keeps what it has computed, under sizes: `if n not in self.tables: …`. The exported
model computes it in each call, where that is the same.

It is, where what is kept follows from its key alone, and nobody asks such a dict for more than what stands
under one key.
"""

# Keys and what is kept may be anything; SymPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING, Any, NoReturn

import onnx_ir as ir
import sympy
import torch

from ingot.capture.assume import Assumption
from ingot.capture.graph import uses
from ingot.capture.objects import is_a
from ingot.capture.request import recorder, refuse
from ingot.capture.scalars import Symbolic, counts_as
from ingot.capture.structure import parts_of
from ingot.capture.where import UNKNOWN, quoted_at, quoted_line
from ingot.errors import ExportError, UnsupportedOperatorError
from ingot.ops.registry import find as operator

if TYPE_CHECKING:
    from ingot.capture.record import Recorder
    from ingot.capture.state import Change, Snapshot

_REMEDY = "Compute it in each call, or keep it under a key that says all it follows from."
_ASKING = ("get", "setdefault")
_SHORT = (int, float, str, bytes, tuple, list)


@dataclass
class Kept:
    """What one call keeps."""

    held: dict[Any, Any]
    key: Any
    form: Any  # how it follows from its key: what follows in the same way has the same
    versions: list[tuple[torch.Tensor, int]]  # how often its tensors had been written to
    line: str


# -- while recording


def takes(container: Any, key: Any) -> bool:
    """Whether a dict outlives the call, and no key of Python's in it may be a number of the run's."""
    if type(container) is not dict or not is_symbolic(key) or not recorder().outlives(container):
        return False
    return not any(_may_be(k, key) for k in dict.__iter__(container))


def is_symbolic(key: Any) -> bool:
    """Whether a key is a number that only the run knows, or has one in it."""
    if is_a(key, tuple):
        return any(map(is_symbolic, key))
    return is_a(key, Symbolic)


def _may_be(known: Any, key: Any) -> bool:
    """Whether a key of Python's may be equal to one of the run's."""
    if is_symbolic(known):
        return False  # what is kept under it is the same, computed again
    if isinstance(key, tuple):
        fits = isinstance(known, tuple) and len(known) == len(key)
        return fits and all(map(_may_be, known, key))
    return counts_as(known) is not None if isinstance(key, Symbolic) else bool(known == key)


def look(container: Any, key: Any) -> tuple[bool, Any]:
    """Whether this call has put something under a key, and what."""
    g = recorder()
    for k, value in dict.items(container):
        if is_symbolic(k) and _is(g, k, key):
            return True, value
    return False, None


def _is(g: Recorder, a: Any, b: Any) -> bool:
    if is_a(a, tuple) and is_a(b, tuple):
        return len(a) == len(b) and all(_is(g, x, y) for x, y in zip(a, b, strict=True))
    if is_a(a, Symbolic) and is_a(b, Symbolic):
        return a.node.shape_env is g.env and bool(g.env.expr(a) == g.env.expr(b))
    return type(a) is type(b) and bool(a == b)


def put(container: Any, key: Any, value: Any) -> None:
    """`container[key] = value`."""
    g, line = recorder(), quoted_line()
    forms = _Forms(g, key)
    form = forms.of(value)
    if form is None:
        _refuse(line, f"what is kept here follows from more than its key ({forms.why})")
    tensors = [v for v in _leaves(value) if isinstance(v, torch.Tensor)]
    versions = [(t, g.entry(t).group.version) for t in tensors]
    g.memos[len(g.memos)] = Kept(container, key, (forms.constants(key), form), versions, line)
    for k in [k for k in dict.__iter__(container) if is_symbolic(k) and _is(g, k, key)]:
        del container[k]
    container[key] = value


def common(a: dict[Any, Any], b: dict[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Two contents of one dict without what one alone keeps under a size: it is computed again."""
    if not any(map(is_symbolic, (*a, *b))):
        return a, b
    kept = {k: v for k, v in a.items() if not is_symbolic(k) or (k in b and b[k] is v)}
    return kept, {k: v for k, v in b.items() if not is_symbolic(k) or k in kept}


def require_empty(container: Any, key: Any) -> None:
    """Refuse to put something under a size into a dict with others in it that is there before the call."""
    if type(container) is dict and is_symbolic(key) and recorder().outlives(container):
        known = ", ".join(repr(k) for k in list(container)[:3])
        _refuse(
            quoted_line(),
            f"it has entries from before the export, for {known}, of which no model can say what later calls "
            "are to find",
            "Empty it before the export (`.clear()`): the module computes them again.",
        )


def _leaves(value: Any) -> list[Any]:
    parts = parts_of(value)
    return [value] if parts is None else [leaf for part in parts for leaf in _leaves(part)]


def _refuse(line: str, why: str, remedy: str = _REMEDY) -> NoReturn:
    refuse(
        ExportError(
            f"{line}\nforward keeps something for later calls under a size, and the model is to be the same "
            f"without: {why}. {remedy}"
        )
    )


class _Forms:
    """How values follow from a key alone: equal where they follow in the same way."""

    def __init__(self, g: Recorder, key: Any) -> None:
        self.g = g
        self.why = "a tensor or size of the inputs"
        parts = [g.env.expr(k) for k in _leaves(key) if isinstance(k, Symbolic)]
        self._numbers = [sympy.Symbol(f"key{i}", integer=True) for i in range(len(parts))]
        self._places = self._of_parts(parts)
        self._sizes = {id(v): e for e, v in [*g.sizes._made.items(), *g.sizes.scalars.items()]}  # pyright: ignore[reportPrivateUsage]
        self._shapes = {id(v): e for e, v in g.sizes._shapes.items()}  # pyright: ignore[reportPrivateUsage]
        self._known: dict[int, Any] = {}

    def _of_parts(self, parts: Sequence[Any]) -> dict[Any, Any]:
        """What the symbols are of which a key's numbers are made, in terms of these; where a number says too
        little of its symbols, the whole of it.
        """
        found: dict[Any, Any] = {}
        for number, e in zip(self._numbers, parts, strict=True):
            symbols = list(e.free_symbols)
            slope = e.diff(symbols[0]) if len(symbols) == 1 and e.is_polynomial() else sympy.S.Zero
            if slope.is_number and slope != 0 and symbols[0] not in found:
                found[symbols[0]] = (number - e.subs(symbols[0], 0)) / slope
            elif symbols:
                found.setdefault(e, number)
        for e, value in list(found.items()):  # a size that has a name of its own, as what it is made of
            found.setdefault(self.g.env.expand(e), value)
        return found

    def constants(self, key: Any) -> Any:
        """The parts of a key that Python knows."""
        if isinstance(key, tuple):
            return tuple(map(self.constants, key))
        return None if isinstance(key, Symbolic) else key

    def of(self, value: Any) -> Any:
        """How a value follows from the key; None where it does not, of it alone."""
        if isinstance(value, torch.Tensor):
            return None if value.is_complex() else self._value(self.g.val(value))
        if isinstance(value, Symbolic):
            return self._formula(self.g.env.expr(value))
        if type(value) in (tuple, list):
            parts = [self.of(v) for v in value]
            return None if any(p is None for p in parts) else (type(value), *parts)
        return ("plain", value) if isinstance(value, (int, float, bool, str, type(None))) else None

    def _formula(self, e: Any) -> Any:
        made = sympy.sympify(e).xreplace(self._places)
        return ("size", str(made)) if made.free_symbols <= {*self._numbers} else None

    def _value(self, value: ir.Value) -> Any:
        if id(value) not in self._known:
            found = self._new(value)
            forms = self.g.forms
            self._known[id(value)] = None if found is None else forms.setdefault(found, len(forms))
        return self._known[id(value)]

    def _new(self, value: ir.Value) -> Any:
        if id(value) in self._sizes and (found := self._formula(self._sizes[id(value)])) is not None:
            return found
        if id(value) in self._shapes:
            found = tuple(map(self._formula, self._shapes[id(value)]))
            if None not in found:
                return found
        node = value.producer()
        if node is None:
            return (
                ("constant", value.name) if self.g.graph.initializers.get(str(value.name)) is value else None
            )
        if _draws(node):
            self.why = "random numbers"
            return None
        read = [self._value(v) for v in uses(node)]
        if None in read:
            return None
        attributes = sorted((name, _said(a)) for name, a in node.attributes.items())
        return (node.op_identifier(), tuple(attributes), tuple(read), node.outputs.index(value))


def _said(attribute: ir.Attr) -> str:
    """An attribute as text that no other one has."""
    return str(attribute if isinstance(attribute.value, _SHORT) else id(attribute.value))


def _draws(node: ir.Node) -> bool:
    try:
        return operator(node.domain, node.op_type, node).random
    except UnsupportedOperatorError:  # a function of the model's own, whose inputs are looked at
        return False


# -- afterwards


def is_kept(change: Change) -> bool:
    """Whether a change is an entry of such a dict."""
    return any(is_symbolic(k) for k in change.place.path)


def require_transparent(g: Recorder, snapshot: Snapshot) -> list[Assumption]:
    """Raise ExportError unless a model that computes anew what was kept is the same in every call; else what
    is to be known.
    """
    forms: dict[tuple[int, Any], Any] = {}
    lines: dict[str, str] = {}
    for kept in g.memos.values():
        constants, form = kept.form
        if forms.setdefault((id(kept.held), constants), form) != form:
            _refuse(kept.line, "two things in one dict follow from their keys in different ways")
        if any(g.entry(t).group.version != version for t, version in kept.versions):
            _refuse(kept.line, "what is kept here is written to afterwards, which a later call would find")
        names = snapshot.names_of(kept.held)
        lines |= {name: kept.line for name in names if name not in lines}
        other = next(filter(None, (other_use(name, snapshot.codes) for name in names)), None)
        if other is not None or not names:
            _refuse(other or kept.line, "the dict is used here for more than what is kept under one key")
    what = "what forward keeps in {!r} follows from its key; the exported model computes it in each call"
    return [Assumption("state", line, what.format(name), "proved") for name, line in lines.items()]


def other_use(name: str, codes: Iterable[CodeType]) -> str | None:
    """A line of code that uses a dict of this name for more than one key at a time, or the first line of the
    code where it is nowhere named; None where there is no such line.
    """
    named, where = False, UNKNOWN
    for code in codes:
        node = _source_of(code)
        if node is None:
            continue
        where = quoted_at(code.co_filename, code.co_firstlineno)
        parents = {child: n for n in ast.walk(node) for child in ast.iter_child_nodes(n)}
        for n in ast.walk(node):
            if (n.attr if isinstance(n, ast.Attribute) else getattr(n, "id", None)) != name:
                continue
            named = True
            if not _asks_by_key(n, parents):
                return quoted_at(code.co_filename, getattr(n, "lineno", code.co_firstlineno))
    return None if named else where


def _asks_by_key(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """`d[k]`, `d[k] = v`, `k in d`, `d.get(k)`."""
    parent = parents.get(node)
    if isinstance(parent, ast.Subscript):
        return parent.value is node and not isinstance(parent.ctx, ast.Del)
    if isinstance(parent, ast.Compare):
        return node is not parent.left and all(isinstance(op, (ast.In, ast.NotIn)) for op in parent.ops)
    if isinstance(parent, ast.Attribute) and parent.attr in _ASKING:
        call = parents.get(parent)
        return isinstance(call, ast.Call) and call.func is parent
    return False


def _source_of(code: CodeType) -> ast.AST | None:
    """The function or lambda in its source."""
    for node in _functions(code.co_filename):
        decorators: list[ast.expr] = getattr(node, "decorator_list", [])
        first = min([node.lineno, *[d.lineno for d in decorators]])
        if first == code.co_firstlineno and getattr(node, "name", "<lambda>") == code.co_name:
            return node
    return None


@functools.lru_cache(maxsize=64)
def _functions(file: str) -> list[ast.FunctionDef | ast.Lambda]:
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return []
    return [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda))]
