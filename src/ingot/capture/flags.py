"""`return`, `break` and `continue` as flags: a function's source so that every statement is reached from its
top.

A jump becomes an assignment, and what stands behind a statement that may jump runs only if no flag is set.
Where one side of an `if` always jumps, the rest moves to the other side instead. Nothing is written twice, so
a function stays as long as it was, however many early returns it has.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from ingot.capture.names import FUNCTIONS, walk_scope
from ingot.capture.syntax import assign, name, runtime

# One underscore: two would be mangled inside a class.
RETURNED, RESULT = "_ingot_returned", "_ingot_result"
EMIT = "_ingot_emit"  # given to a generator's function: takes what it yields, says whether that is enough


def without_jumps(function: ast.FunctionDef) -> list[ast.stmt]:
    """The function's body with one `return`, at its end."""
    body = function.body
    if not any(isinstance(n, ast.Return) for s in body[:-1] for n in [s, *walk_scope(s)]) and (
        isinstance(body[-1], ast.Return) or not _contains(body[-1:], (ast.Return,))
    ):
        return [*_Flags().block(body[:-1], None), *_last(body[-1])]
    end = ast.copy_location(ast.Return(ast.Constant(None)), body[-1])
    whole = body if always_jumps(body) else [*body, end]
    return [
        assign(RETURNED, ast.Constant(False), function),
        *_Flags().block(whole, None),
        ast.copy_location(ast.Return(name(RESULT)), body[-1]),
    ]


def _last(statement: ast.stmt) -> list[ast.stmt]:
    return [statement] if isinstance(statement, ast.Return) else _Flags().block([statement], None)


class _Yields(ast.NodeTransformer):
    """`yield v` as `if emit(v): return`: whoever loops over the generator says that it has enough."""

    def __init__(self) -> None:
        self.count = 0
        self.left: list[ast.AST] = []  # yields that have no such form

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Yield):
            return self.emitted(node.value.value or ast.Constant(None), node)
        if isinstance(node.value, ast.YieldFrom):
            self.count += 1
            item = f"_ingot_yielded{self.count}"
            body: list[ast.stmt] = [self.emitted(name(item), node)]
            made = ast.For(ast.Name(item, ast.Store()), node.value.value, body, [])
            return ast.fix_missing_locations(ast.copy_location(made, node))
        return self.generic_visit(node)

    def emitted(self, value: ast.expr, at: ast.AST) -> ast.stmt:
        made = ast.If(ast.Call(name(EMIT), [value], []), [ast.Return(ast.Constant(None))], [])
        return ast.fix_missing_locations(ast.copy_location(made, at))

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            return node
        if isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await)):
            self.left.append(node)
        return super().visit(node)


def without_yields(function: ast.FunctionDef) -> list[ast.stmt] | None:
    """The body of a generator with calls of EMIT for what it yields; None where it is sent something."""
    turned = _Yields()
    body = [turned.visit(s) for s in function.body]
    return None if turned.left else [s for s in body if isinstance(s, ast.stmt)]


class _Loop:
    """The flags of one loop."""

    def __init__(self, number: int) -> None:
        self.broken = f"_ingot_broken{number}"
        self.skipped = f"_ingot_skipped{number}"


class _Flags:
    def __init__(self) -> None:
        self.loops = 0

    def block(self, statements: Sequence[ast.stmt], loop: _Loop | None) -> list[ast.stmt]:
        """The statements with every jump turned into flags."""
        out: list[ast.stmt] = []
        for at, s in enumerate(statements):
            rest = list(statements[at + 1 :])
            if isinstance(s, ast.Return):
                value = s.value or ast.Constant(None)
                return [*out, assign(RESULT, value, s), assign(RETURNED, ast.Constant(True), s)]
            if isinstance(s, (ast.Break, ast.Continue)):
                assert loop is not None, "Python has checked it"
                flag = loop.broken if isinstance(s, ast.Break) else loop.skipped
                return [*out, assign(flag, ast.Constant(True), s)]
            flags = self._set_by([s], loop)
            if isinstance(s, ast.If) and flags:
                then, other = list(s.body), list(s.orelse)
                moved = True
                if always_jumps(then):
                    other += rest
                elif always_jumps(other):
                    then += rest
                else:
                    moved = False
                out.append(
                    ast.copy_location(
                        ast.If(s.test, self.block(then, loop) or [ast.Pass()], self.block(other, loop)), s
                    )
                )
                if moved:
                    return out
            else:
                out += self._inner(s, loop)
            if flags and rest:
                return [*out, *self._unless(flags, rest, loop)]
        return out

    def _unless(self, flags: Sequence[str], rest: Sequence[ast.stmt], loop: _Loop | None) -> list[ast.stmt]:
        """Statements that run where none of the flags is set."""
        made = self.block(rest, loop)
        if not flags or not rest:
            return made
        test = ast.Call(runtime("none_of"), [name(f) for f in flags], [])
        return [ast.copy_location(ast.If(test, made, []), rest[0])]

    def _inner(self, s: ast.stmt, loop: _Loop | None) -> list[ast.stmt]:
        """One statement with its own blocks turned."""
        if isinstance(s, ast.If):
            then, other = self.block(s.body, loop), self.block(s.orelse, loop)
            return [ast.copy_location(ast.If(s.test, then or [ast.Pass()], other), s)]
        if isinstance(s, (ast.For, ast.While)):
            return self._loop(s, loop)
        if isinstance(s, ast.With):
            return [ast.copy_location(ast.With(s.items, self.block(s.body, loop)), s)]
        if isinstance(s, ast.Try):
            handlers = [
                ast.copy_location(ast.ExceptHandler(h.type, h.name, self.block(h.body, loop)), h)
                for h in s.handlers
            ]
            other = self._unless(self._set_by(s.body, loop), s.orelse, loop)
            made = ast.Try(self.block(s.body, loop), handlers, other, self.block(s.finalbody, loop))
            return [ast.copy_location(made, s)]
        if isinstance(s, ast.Match):
            cases = [ast.match_case(c.pattern, c.guard, self.block(c.body, loop)) for c in s.cases]
            return [ast.copy_location(ast.Match(s.subject, cases), s)]
        return [s]

    def _loop(self, s: ast.For | ast.While, outer: _Loop | None) -> list[ast.stmt]:
        self.loops += 1
        mine = _Loop(self.loops)
        returns = _contains(s.body, (ast.Return,))
        breaks = _contains(s.body, (ast.Break,), own_loop=True)
        skips = _contains(s.body, (ast.Continue,), own_loop=True)
        body = self.block(s.body, mine)
        if skips:
            body.insert(0, assign(mine.skipped, ast.Constant(False), s))
        stops = [*([mine.broken] if breaks else []), *([RETURNED] if returns else [])]
        looped: ast.For | ast.While
        looped = (
            ast.For(s.target, s.iter, body, []) if isinstance(s, ast.For) else ast.While(s.test, body, [])
        )
        looped.stops = stops  # type: ignore[attr-defined,union-attr]  # pyright: ignore[reportAttributeAccessIssue]
        out: list[ast.stmt] = [assign(mine.broken, ast.Constant(False), s)] if breaks else []
        out.append(ast.copy_location(looped, s))
        return [*out, *self._unless(stops, s.orelse, outer)]

    def _set_by(self, statements: Sequence[ast.stmt], loop: _Loop | None) -> list[str]:
        """Flags that statements may set, of those that skip what stands behind them."""
        flags: list[str] = []
        if _contains(statements, (ast.Return,)):
            flags.append(RETURNED)
        if loop is not None:
            if _contains(statements, (ast.Break,), own_loop=True):
                flags.append(loop.broken)
            if _contains(statements, (ast.Continue,), own_loop=True):
                flags.append(loop.skipped)
        return flags


def _contains(
    statements: Iterable[ast.AST], kinds: tuple[type[ast.stmt], ...], own_loop: bool = False
) -> bool:
    """Whether one of these statements is inside; with `own_loop`, not in a loop of its own."""
    for s in statements:
        if isinstance(s, kinds):
            return True
        if isinstance(s, (*FUNCTIONS, ast.ClassDef)):
            continue
        inner: Iterable[ast.AST] = ast.iter_child_nodes(s)
        if own_loop and isinstance(s, (ast.For, ast.While)):
            inner = s.orelse
        if _contains(inner, kinds, own_loop):
            return True
    return False


def _try_jumps(s: ast.Try) -> bool:
    """Whether control never leaves a `try` at its end."""
    whole = always_jumps(s.body) or always_jumps(s.orelse)
    return always_jumps(s.finalbody) or (whole and all(always_jumps(h.body) for h in s.handlers))


def _loop_jumps(s: ast.For | ast.While) -> bool:
    """Whether control leaves a loop by jumps alone: it has no end, or what follows its last round jumps."""
    endless = isinstance(s, ast.While) and isinstance(s.test, ast.Constant) and bool(s.test.value)
    return (endless or always_jumps(s.orelse)) and not _contains(s.body, (ast.Break,), own_loop=True)


def always_jumps(statements: Sequence[ast.stmt]) -> bool:
    """Whether control never leaves these statements at their end."""
    for s in statements:
        if isinstance(s, (ast.Return, ast.Raise, ast.Break, ast.Continue)):
            return True
        if isinstance(s, ast.If) and s.orelse and always_jumps(s.body) and always_jumps(s.orelse):
            return True
        if isinstance(s, ast.With) and always_jumps(s.body):
            return True
        if isinstance(s, ast.Try) and _try_jumps(s):
            return True
        if isinstance(s, (ast.For, ast.While)) and _loop_jumps(s):
            return True
    return False
