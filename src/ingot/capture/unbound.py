"""Variables that may have no value where they are read: Python raises there, and so must the model.

A branch or loop leaves something in each of its variables, whichever way it went. Beside a variable that is
read where not every way there has assigned it goes a flag that says whether one has, a variable as any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from ingot.capture.names import COMPREHENSIONS, FUNCTIONS, written
from ingot.capture.syntax import assign, call, name

_FLAG = "_ingot_has_"  # how the flag of a variable begins
_SCOPES = (*FUNCTIONS, *COMPREHENSIONS, ast.ClassDef)

Bound = set[str] | None  # variables that have a value; None where no way leads


def mark(function: ast.FunctionDef) -> None:
    """Give a function's variables that are read where they may have no value their flags, in its tree."""
    found = _Reads(function)
    if not found.unsure:
        return
    unsure = {n.id for n in found.unsure.values()}
    body = _Marked(found.unsure, unsure).block(function.body)
    function.body = [*(assign(_FLAG + v, ast.Constant(False), function) for v in sorted(unsure)), *body]


class _Reads:
    """Where a function reads variables that may have no value, by the ids of the nodes."""

    def __init__(self, function: ast.FunctionDef) -> None:
        given = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)}
        self.local = {*written(function.body)} - given - _others(function)
        self.unsure: dict[int, ast.Name] = {}
        self.loops: list[tuple[list[Bound], list[Bound]]] = []  # what has a value at each break and continue
        self.block(function.body, set())

    def block(self, statements: Sequence[ast.stmt], bound: Bound) -> Bound:
        for s in statements:
            if bound is None:
                return None
            bound = self.statement(s, bound)
        return bound

    def statement(self, s: ast.stmt, bound: set[str]) -> Bound:
        if isinstance(s, ast.If):
            self.read(s.test, bound)
            return _either(self.block(s.body, bound), self.block(s.orelse, bound))
        if isinstance(s, ast.While):
            self.read(s.test, bound)
            endless = isinstance(s.test, ast.Constant) and bool(s.test.value)
            _, breaks, _ = self.rounds(s.body, bound)
            return _either(None if endless else self.block(s.orelse, bound), *breaks)
        if isinstance(s, ast.For):
            self.read(s.iter, bound)
            end, breaks, continues = self.rounds(s.body, bound | {*written([s.target])})
            after = _either(end, *continues) if _runs(s.iter) else bound
            return _either(None if after is None else self.block(s.orelse, after), *breaks)
        if isinstance(s, ast.With):
            for item in s.items:  # each may read what those before it have named
                self.read(item, bound)
                bound = bound | {*written([item])}
            return self.block(s.body, bound)
        if isinstance(s, ast.Try):
            ends = [self.block([*s.body, *s.orelse], bound), *(self.block(h.body, bound) for h in s.handlers)]
            last, after = self.block(s.finalbody, bound), _either(*ends)
            return None if last is None or after is None else after | last
        if isinstance(s, ast.Match):
            self.read(s.subject, bound)
            ends = [self.block(case.body, bound) for case in s.cases]
            last = s.cases[-1]
            whole = (
                isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None and last.guard is None
            )
            return _either(*ends, *([] if whole else [bound]))
        if isinstance(s, (*FUNCTIONS, ast.ClassDef)):
            return bound | {s.name} if not isinstance(s, ast.Lambda) else bound
        self.read(s, bound)
        if isinstance(s, (ast.Return, ast.Raise)):
            return None
        if isinstance(s, (ast.Break, ast.Continue)):
            if self.loops:
                self.loops[-1][isinstance(s, ast.Continue)].append(bound)
            return None
        is_bare = isinstance(s, ast.AnnAssign) and s.value is None
        return bound if is_bare else bound | {*written([s])}

    def rounds(self, body: Sequence[ast.stmt], bound: set[str]) -> tuple[Bound, list[Bound], list[Bound]]:
        """What has a value at the end of a round, at its breaks and at its continues."""
        self.loops.append(([], []))
        end = self.block(body, bound)
        return end, *self.loops.pop()

    def read(self, node: ast.AST, bound: set[str]) -> None:
        for n in _outside_of_scopes(node):
            if not isinstance(n, ast.Name) or n.id in bound or n.id not in self.local:
                continue
            if isinstance(n.ctx, ast.Load) or (isinstance(node, ast.AugAssign) and n is node.target):
                self.unsure[id(n)] = n


class _Marked(ast.NodeTransformer):
    """The flags set beside the assignments, and asked beside the reads."""

    def __init__(self, reads: dict[int, ast.Name], unsure: set[str]) -> None:
        self.reads, self.unsure = reads, unsure

    def block(self, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
        """Statements with the flags between them."""
        return [made for s in statements for made in self.statement(s)]

    def statement(self, s: ast.stmt) -> list[ast.stmt]:
        if isinstance(s, (*FUNCTIONS, ast.ClassDef)):
            return [s, *self.flags([s], s)]
        before: list[ast.stmt] = []
        if isinstance(s, ast.AugAssign) and id(s.target) in self.reads and isinstance(s.target, ast.Name):
            before = [ast.Expr(self.asked(s.target.id))]
        for part in ("body", "orelse", "finalbody"):
            inner = getattr(s, part, None)
            if inner:
                setattr(s, part, self.block(inner))
        for inner in (*getattr(s, "handlers", ()), *getattr(s, "cases", ())):
            inner.body = self.block(inner.body)
        if isinstance(s, (ast.For, ast.With)):
            heads: list[ast.AST] = [s.target] if isinstance(s, ast.For) else [*s.items]
            s.body = [*self.flags(heads, s), *s.body]
        for field, value in ast.iter_fields(s):
            if isinstance(value, ast.expr):
                setattr(s, field, self.visit(value))
            elif field in ("targets", "items"):
                setattr(s, field, [self.visit(v) for v in value])
        plain = isinstance(s, (ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom))
        bare = isinstance(s, ast.AnnAssign) and s.value is None
        made = [*before, s, *(self.flags([s], s) if plain and not bare else [])]
        return [ast.fix_missing_locations(ast.copy_location(n, s)) for n in made]

    def flags(self, nodes: Sequence[ast.AST], at: ast.stmt) -> list[ast.stmt]:
        return [assign(_FLAG + v, ast.Constant(True), at) for v in written(nodes) if v in self.unsure]

    def asked(self, variable: str) -> ast.expr:
        return call("bound", name(_FLAG + variable), name(variable))

    def visit(self, node: ast.AST) -> ast.AST:
        """An expression; functions and comprehensions in it have variables of their own."""
        if isinstance(node, _SCOPES):
            return node
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) in self.reads:
            return ast.fix_missing_locations(ast.copy_location(self.asked(node.id), node))
        return self.generic_visit(node)


def _others(function: ast.FunctionDef) -> set[str]:
    """Variables that are bound or taken away in ways that no flag follows, or are not the function's own."""
    found: set[str] = set()
    for n in ast.walk(function):
        if isinstance(n, (ast.Global, ast.Nonlocal)):
            found |= {*n.names}
        elif isinstance(n, ast.Name) and isinstance(n.ctx, ast.Del):
            found.add(n.id)
        elif isinstance(n, ast.NamedExpr):
            found.add(n.target.id)
        elif isinstance(n, (ast.ExceptHandler, ast.match_case)):
            found |= {*written([n if isinstance(n, ast.ExceptHandler) else n.pattern])}
    return found


def _runs(items: ast.expr) -> bool:
    """Whether a loop over something surely runs."""
    if isinstance(items, (ast.Tuple, ast.List)):
        return any(not isinstance(v, ast.Starred) for v in items.elts)
    if not (isinstance(items, ast.Call) and isinstance(items.func, ast.Name) and items.func.id == "range"):
        return False
    try:
        return bool(items.args) and len(range(*map(ast.literal_eval, items.args))) > 0
    except (TypeError, ValueError):
        return False


def _outside_of_scopes(node: ast.AST) -> Iterator[ast.AST]:
    """The node and what is in it, without functions and comprehensions."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _SCOPES):
            yield from _outside_of_scopes(child)


def _either(*ways: Bound) -> Bound:
    """What has a value wherever one came from."""
    found: Bound = None
    for way in ways:
        if way is not None:
            found = way if found is None else found & way
    return found
