"""Variables that may have no value where they are read: Python raises there, and so must the model.

A branch or loop leaves something in each of its variables, whichever way it went. Beside a variable that is
read where not every way there has assigned it goes a flag that says whether one has, a variable as any other.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from ingot.capture.names import COMPREHENSIONS, FUNCTIONS, walk_scope, written
from ingot.capture.syntax import assign, call, name

_FLAG = "_ingot_has_"  # how the flag of a variable begins

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
            then, other = (bound | _named(s.test, holds) for holds in (True, False))
            return _either(self.block(s.body, then), self.block(s.orelse, other))
        if isinstance(s, ast.While):
            self.read(s.test, bound)
            endless = isinstance(s.test, ast.Constant) and bool(s.test.value)
            _, breaks, _ = self.rounds(s.body, bound | _named(s.test, True))
            after = None if endless else self.block(s.orelse, bound | _named(s.test, False))
            return _either(after, *breaks)
        if isinstance(s, ast.For):
            self.read(s.iter, bound)
            bound = bound | _named(s.iter)
            end, breaks, continues = self.rounds(s.body, bound | {*written([s.target])})
            after = _either(end, *continues) if _runs(s.iter) else bound
            return _either(None if after is None else self.block(s.orelse, after), *breaks)
        if isinstance(s, ast.With):
            for item in s.items:  # each may read what those before it have named
                self.read(item, bound)
                bound = bound | _given(item)
            return self.block(s.body, bound)
        if isinstance(s, ast.Try):
            ends = [self.block([*s.body, *s.orelse], bound), *(self.block(h.body, bound) for h in s.handlers)]
            last, after = self.block(s.finalbody, bound), _either(*ends)
            return None if last is None or after is None else after | last
        if isinstance(s, ast.Match):
            self.read(s.subject, bound)
            bound = bound | _named(s.subject)
            ends = [self.block(case.body, self.guard(case, bound)) for case in s.cases]
            last = s.cases[-1]
            whole = (
                isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None and last.guard is None
            )
            return _either(*ends, *([] if whole else [bound]))
        if isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self.read(s, bound | {s.name})
            return bound | {s.name}
        if isinstance(s, ast.ClassDef):
            return bound | {s.name}
        self.read(s, bound)
        if isinstance(s, (ast.Return, ast.Raise)):
            return None
        if isinstance(s, (ast.Break, ast.Continue)):
            if self.loops:
                self.loops[-1][isinstance(s, ast.Continue)].append(bound)
            return None
        if isinstance(s, ast.Delete):
            return bound - {t.id for t in s.targets if isinstance(t, ast.Name)}
        is_bare = isinstance(s, ast.AnnAssign) and s.value is None
        if isinstance(s, ast.Assert):
            return bound | _named(s.test, True)
        return bound if is_bare else bound | _given(s)

    def rounds(self, body: Sequence[ast.stmt], bound: set[str]) -> tuple[Bound, list[Bound], list[Bound]]:
        """What has a value at the end of a round, at its breaks and at its continues."""
        self.loops.append(([], []))
        end = self.block(body, bound)
        return end, *self.loops.pop()

    def guard(self, case: ast.match_case, bound: set[str]) -> set[str]:
        """What has a value where a case is taken."""
        if case.guard is None:
            return bound
        self.read(case.guard, bound | {*written([case.pattern])})
        return bound | _named(case.guard, True)

    def read(self, node: ast.AST, bound: set[str]) -> None:
        """What is read by a node; functions in it read variables that have no value yet as late as can be."""
        if isinstance(node, ast.AugAssign):
            self.name(node.target, bound)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            self.name(node, bound)
        if isinstance(node, COMPREHENSIONS):
            first = node.generators[0].iter
            self.read(first, bound)
            targets = [g.target for g in node.generators]
            named = {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}
            inner = bound | named | {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            parts: list[ast.AST] = [v for g in node.generators for v in (g.iter, *g.ifs) if v is not first]
            parts += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        elif isinstance(node, FUNCTIONS):
            given = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
            body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else [*node.body]
            for v in (*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)):
                self.read(v, bound)
            inner, parts = bound | given | {*written(body)}, body
        elif isinstance(node, ast.ClassDef):
            return
        else:
            inner, parts = bound, list(ast.iter_child_nodes(node))
        for n in parts:
            self.read(n, inner)

    def name(self, node: ast.AST, bound: set[str]) -> None:
        if isinstance(node, ast.Name) and node.id not in bound and node.id in self.local:
            self.unsure[id(node)] = node


class _Marked(ast.NodeTransformer):
    """The flags set beside the assignments, and asked beside the reads."""

    def __init__(self, reads: dict[int, ast.Name], unsure: set[str]) -> None:
        self.reads, self.unsure = reads, unsure

    def block(self, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
        """Statements with the flags between them."""
        return [made for s in statements for made in self.statement(s)]

    def statement(self, s: ast.stmt) -> list[ast.stmt]:
        if isinstance(s, (*FUNCTIONS, ast.ClassDef)):
            self.generic_visit(s)
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
            if isinstance(inner, ast.match_case) and inner.guard is not None:
                inner.guard = self.expression(inner.guard)
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
        if isinstance(s, ast.Delete):
            gone = [t.id for t in s.targets if isinstance(t, ast.Name) and t.id in self.unsure]
            before = [ast.Expr(self.asked(v)) for v in gone]
            return [*before, s, *(assign(_FLAG + v, ast.Constant(False), s) for v in gone)]
        made = [*before, s, *(self.flags([s], s) if plain and not bare else [])]
        return [ast.fix_missing_locations(ast.copy_location(n, s)) for n in made]

    def flags(self, nodes: Sequence[ast.AST], at: ast.stmt) -> list[ast.stmt]:
        return [assign(_FLAG + v, ast.Constant(True), at) for v in _stored(nodes) if v in self.unsure]

    def asked(self, variable: str) -> ast.expr:
        return call("bound", name(_FLAG + variable), name(variable))

    def expression(self, node: ast.expr) -> ast.expr:
        """An expression, with what it reads and names."""
        made = self.visit(node)
        assert isinstance(made, ast.expr)
        return made

    def visit(self, node: ast.AST) -> ast.AST:
        """An expression, and what reads variables in functions and comprehensions in it."""
        if isinstance(node, ast.NamedExpr) and node.target.id in self.unsure:
            flag = ast.NamedExpr(ast.Name(_FLAG + node.target.id, ast.Store()), ast.Constant(True))
            node.value = self.expression(node.value)
            made = ast.Subscript(ast.Tuple([node, flag], ast.Load()), ast.Constant(0), ast.Load())
            return ast.fix_missing_locations(ast.copy_location(made, node))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) in self.reads:
            return ast.fix_missing_locations(ast.copy_location(self.asked(node.id), node))
        return self.generic_visit(node)


def _others(function: ast.FunctionDef) -> set[str]:
    """Variables that are bound or taken away in ways that no flag follows, or are not the function's own."""
    found: set[str] = set()
    for n in ast.walk(function):
        if isinstance(n, (ast.Global, ast.Nonlocal)):
            found |= {*n.names}
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


def _given(node: ast.AST) -> set[str]:
    """Variables that surely have a value behind a statement or an item of `with`."""
    return {*_stored([node])} | _named(node)


def _stored(nodes: Sequence[ast.AST]) -> list[str]:
    """Variables that these nodes bind, and not by `:=` alone, which may not be evaluated."""
    inside = [n for node in nodes for n in [node, *walk_scope(node)]]
    named = {id(n.target) for n in inside if isinstance(n, ast.NamedExpr)}
    by_name = [n for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    perhaps = {n.id for n in by_name if id(n) in named} - {n.id for n in by_name if id(n) not in named}
    return [v for v in written(nodes) if v not in perhaps]


def _named(node: ast.AST, holds: bool | None = None) -> set[str]:
    """Variables that `:=` has surely given a value where an expression was evaluated.

    holds: the expression's truth, where that is known
    """
    if isinstance(node, ast.NamedExpr):
        return {node.target.id} | _named(node.value, holds)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _named(node.operand, None if holds is None else not holds)
    parts: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.BoolOp):
        all_of = holds is isinstance(node.op, ast.And)  # which holds as each does, or does not as none does
        parts, holds = list(node.values if all_of else node.values[:1]), holds if all_of else None
    else:
        if isinstance(node, ast.Compare) and holds is not True:
            parts = [node.left, node.comparators[0]]
        elif isinstance(node, ast.IfExp):
            parts = [node.test]
        elif isinstance(node, COMPREHENSIONS):
            parts = [node.generators[0].iter]
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            parts = []
        holds = None
    return set[str]().union(*(_named(p, holds) for p in parts))


def _either(*ways: Bound) -> Bound:
    """What has a value wherever one came from."""
    found: Bound = None
    for way in ways:
        if way is not None:
            found = way if found is None else found & way
    return found
