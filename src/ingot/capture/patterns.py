"""`match` as a row of comparisons: what must hold of a subject for a pattern to match it."""

from __future__ import annotations

import ast
from typing import Any

from ingot.capture.syntax import call


def if_all(tests: list[ast.expr], body: list[ast.stmt], rest: list[ast.stmt]) -> list[ast.stmt]:
    """`if all tests: body; else: rest`."""
    if not tests:
        return body
    return [ast.copy_location(ast.If(all_of(tests), body, rest), body[0])]


def fits(pattern: ast.pattern, subject: ast.expr) -> tuple[list[ast.expr], dict[str, ast.expr]] | None:
    """What must hold of a subject for a pattern to match it, and the variables that it binds then; None for
    patterns that stay Python's.
    """
    if isinstance(pattern, ast.MatchValue):
        return [ast.Compare(subject, [ast.Eq()], [pattern.value])], {}
    if isinstance(pattern, ast.MatchSingleton):
        return [ast.Compare(subject, [ast.Is()], [ast.Constant(pattern.value)])], {}
    if isinstance(pattern, ast.MatchAs):
        if pattern.pattern is None:
            return [], {} if pattern.name is None else {pattern.name: subject}
        inner = fits(pattern.pattern, subject)
        if inner is not None and pattern.name is not None:
            inner[1][pattern.name] = subject
        return inner
    if isinstance(pattern, ast.MatchOr):
        options = [fits(p, subject) for p in pattern.patterns]
        tests = [all_of(o[0]) for o in options if o is not None and o[0] and not o[1]]
        return ([ast.BoolOp(ast.Or(), tests)], {}) if len(tests) == len(options) else None
    if not isinstance(pattern, ast.MatchSequence):
        return None
    return _sequence(pattern.patterns, subject)


def all_of(tests: list[ast.expr]) -> ast.expr:
    """The tests in one, joined by `and`."""
    return tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), tests)


def _sequence(
    patterns: list[ast.pattern], subject: ast.expr
) -> tuple[list[ast.expr], dict[str, ast.expr]] | None:
    """The same for a pattern of elements, one of which may stand for any number of them."""
    stars = [n for n, p in enumerate(patterns) if isinstance(p, ast.MatchStar)]
    least, at = len(patterns) - len(stars), stars[0] if stars else len(patterns)
    whole: list[ast.expr] = []
    bound: dict[str, ast.expr] = {}
    parts: list[ast.expr]
    if isinstance(subject, ast.Tuple):
        if len(subject.elts) < least or (not stars and len(subject.elts) != least):
            return [ast.Constant(False)], {}
        end = len(subject.elts) - (len(patterns) - at - 1)
        given = [*subject.elts[:at], ast.List(subject.elts[at:end], ast.Load()), *subject.elts[end:]]
        parts = given if stars else subject.elts
    else:
        whole.append(call("has_elements", subject, ast.Constant(least), ast.Constant(bool(stars))))
        places = [ast.Constant(n if n < at else n - len(patterns)) for n in range(len(patterns))]
        parts = [ast.Subscript(subject, place, ast.Load()) for place in places]
        if stars:
            parts[at] = call("rest", subject, ast.Constant(at), ast.Constant(least - at))
    for p, part in zip(patterns, parts, strict=True):
        if isinstance(p, ast.MatchStar):
            bound |= {p.name: part} if p.name else {}
            continue
        inner = fits(p, part)
        if inner is None:
            return None
        whole += inner[0]
        bound |= inner[1]
    return whole, bound


class Bound(ast.NodeTransformer):
    """A guard before its pattern's variables are assigned."""

    def __init__(self, bound: dict[str, ast.expr]) -> None:
        self.bound = bound

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self.bound.get(node.id, node) if isinstance(node.ctx, ast.Load) else node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        node.args = self.visit(node.args)
        own = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
        node.body = self._without(own).visit(node.body)
        return node

    def _comprehension(self, node: Any) -> ast.AST:
        first = node.generators[0]
        outside, first.iter = self.visit(first.iter), ast.Constant(None)
        targets = [n for g in node.generators for n in ast.walk(g.target)]
        self._without({n.id for n in targets if isinstance(n, ast.Name)}).generic_visit(node)
        first.iter = outside
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _without(self, own: set[str]) -> Bound:
        """For a part of a guard that has other variables of these names."""
        return Bound({k: v for k, v in self.bound.items() if k not in own})
