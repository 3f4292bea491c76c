"""Generators that something goes through later than they are made: Python reads their variables then. Where
none of these may be another one by that time, a list that is made at once is as good, and has a form for as
many elements as data says; the others stay Python's.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ingot.capture.names import COMPREHENSIONS, FUNCTIONS, goes_through, read, walk_scope, written

_LATE = "ingot_late"  # how a generator in the tree is marked
#: Methods that change what they are called of, beside those whose names end with an underscore.
_CHANGING = frozenset(
    (
        "add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop", "popitem",
        "popleft", "remove", "reverse", "rotate", "setdefault", "sort", "update",
    )
)  # fmt: skip


@dataclass(frozen=True)
class _Changes:
    """Variables that are given other values, and those whose values are changed where they are."""

    rebound: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()

    def __or__(self, other: _Changes) -> _Changes:
        return _Changes(self.rebound | other.rebound, self.changed | other.changed)


_NONE = _Changes()


def mark(function: ast.FunctionDef) -> None:
    """Mark the generators that have to be gone through as late as Python does."""
    if any(isinstance(n, ast.GeneratorExp) for n in ast.walk(function)):
        _Generators(function).block(function.body, _NONE)


def is_late(node: ast.GeneratorExp) -> bool:
    """Whether a generator was marked."""
    return getattr(node, _LATE, False)


def shares_its_variables(node: ast.ListComp) -> bool:
    """Whether a comprehension makes functions or generators that find its variables as its last round leaves
    them.
    """
    own = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
    parts: list[ast.AST] = [node.elt, *(test for g in node.generators for test in g.ifs)]
    return any(not own.isdisjoint(_read_late(part)) for part in parts)


def _read_late(node: ast.AST) -> set[str]:
    """Variables that functions in an expression, and generators that nothing goes through there, read."""
    if isinstance(node, ast.Lambda):
        given = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
        return read(node.body) - given
    if isinstance(node, ast.GeneratorExp):
        return _names_in(node)[1]
    inner = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Starred) or (isinstance(node, ast.Call) and goes_through(node.func)):
        inner = [n for n in inner if not isinstance(n, ast.GeneratorExp)]
    return set[str]().union(*map(_read_late, inner))


class _Generators:
    """The generators of one function."""

    def __init__(self, function: ast.FunctionDef) -> None:
        inner = [f for f in ast.walk(function) if isinstance(f, FUNCTIONS) and f is not function]
        names = {v for f in inner for n in ast.walk(f) if isinstance(n, ast.Nonlocal) for v in n.names}
        self.of_functions = _Changes(rebound=frozenset(names))  # whoever calls them changes these

    def changes(self, nodes: Sequence[ast.AST]) -> _Changes:
        """What happens to variables where these nodes run."""
        inside = [n for node in nodes for n in [node, *walk_scope(node)]]
        targets: list[ast.AST] = [n.target for n in inside if isinstance(n, ast.AugAssign)]
        targets += [n for n in inside if isinstance(n, (ast.Subscript, ast.Attribute)) and not _is_read(n)]
        targets += [n.func for n in inside if isinstance(n, ast.Call) and _changes_its_own(n.func)]
        changed = frozenset(root for root in map(_root, targets) if root is not None)
        return _Changes(frozenset(written(nodes)), changed) | self.of_functions

    def block(self, statements: Sequence[ast.stmt], after: _Changes) -> None:
        """after: what happens behind these statements while their generators may be there"""
        after |= self.of_functions
        for s in reversed(statements):
            self.statement(s, after)
            after |= self.changes([s])

    def statement(self, s: ast.stmt, after: _Changes) -> None:
        if isinstance(s, (*FUNCTIONS, ast.ClassDef)):
            return
        parts = [getattr(s, part, []) for part in ("body", "orelse", "finalbody")]
        parts += [inner.body for inner in (*getattr(s, "handlers", ()), *getattr(s, "cases", ()))]
        inside = self.changes([n for part in parts for n in part])
        heads = [n for n in ast.iter_child_nodes(s) if not any(n in part for part in parts)]
        if isinstance(s, ast.For):
            inside |= self.changes([s.target])
            self.look([s.iter], inside)  # the loop goes through it
        else:
            self.look(heads, inside | after)
        if isinstance(s, (ast.For, ast.While, ast.Try)):  # what stands before a part may run behind it
            after |= inside
        for part in parts:
            self.block(part, after)

    def look(self, nodes: Iterable[ast.AST], until: _Changes) -> None:
        """Mark the generators in expressions; until: what happens before something goes through them."""
        for node in nodes:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                continue
            if isinstance(node, ast.GeneratorExp):
                at_once, late = _names_in(node)
                if late & until.rebound or (at_once | late) & until.changed:
                    setattr(node, _LATE, True)
            inner = until
            if isinstance(node, ast.Starred) or (isinstance(node, ast.Call) and goes_through(node.func)):
                inner = _NONE
            elif isinstance(node, COMPREHENSIONS) and not isinstance(node, ast.GeneratorExp):
                inner = self.changes([node])
            self.look(ast.iter_child_nodes(node), inner)


def _names_in(node: ast.GeneratorExp) -> tuple[set[str], set[str]]:
    """Variables that a generator reads when it is made, and those that it reads when it is gone through."""
    own = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
    first = node.generators[0].iter
    at_once = {n.id for n in ast.walk(first) if isinstance(n, ast.Name)}
    later: list[ast.AST] = [node.elt, *node.generators[0].ifs, *node.generators[1:]]
    late = {n.id for x in later for n in ast.walk(x) if isinstance(n, ast.Name)}
    return at_once, late - own


def _is_read(node: ast.Subscript | ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Load)


def _changes_its_own(function: ast.expr) -> bool:
    """Whether a method changes what it is called of, by its name."""
    if not isinstance(function, ast.Attribute):
        return False
    name = function.attr
    return name in _CHANGING or (name.endswith("_") and not name.startswith("_"))


def _root(node: ast.AST) -> str | None:
    """The variable that a place or method is found by."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
