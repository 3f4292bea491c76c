"""Statements of rewritten code: blocks become functions that share the variables of the function around them
through its cells, and `if`, `while`, `for` and `match` calls of the runtime with these functions.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Collection, Sequence
from typing import Any

from ingot.capture import late, unbound
from ingot.capture.expressions import Expressions, mark_condition, mark_lists, without_assignments
from ingot.capture.flags import EMIT, without_jumps, without_yields
from ingot.capture.names import (
    FUNCTIONS,
    captured,
    evaluated_names,
    first_read,
    live_behind,
    read,
    stops_of,
    walk_scope,
    written,
)
from ingot.capture.patterns import Bound, fits, if_all
from ingot.capture.syntax import IMPORT, RUNTIME, call, name, parsed, runtime, slice_value, strings, thunk
from ingot.errors import ExportError


class Function:
    """Rewrites one function in its tree."""

    def __init__(
        self, node: ast.FunctionDef | ast.Lambda, file: str, arguments: ast.arguments | None = None
    ) -> None:
        self.node = node
        self.file = file
        self.arguments = arguments or node.args  # of the function that the user wrote
        self.count = 0
        self.setters: list[ast.stmt] = []  # of variables that operands assign, before the statement
        self.set_by: dict[str, str] = {}  # the variable of each
        self.parameters = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}

    def rewrite(self, apart: bool = False) -> None:
        """Rewrite the function; its body as a function for the runtime where it is taken `apart`."""
        node = self.node
        if isinstance(node, ast.Lambda):
            self.local = self.parameters
            body = self.expression(node.body)
            inner = ast.Call(thunk(body, RUNTIME), [parsed(IMPORT)], [])
            made = ast.Call(parsed(f"{IMPORT}.returned"), [inner], [])
            for n in ast.walk(made):
                if isinstance(n, (ast.expr, ast.arg)) and not getattr(n, "lineno", 0):
                    ast.copy_location(n, node.body)
            for n in [*ast.walk(inner.args[0]), *ast.walk(made.func)]:
                if isinstance(n, ast.expr):
                    ast.copy_location(n, node.body)
            node.body = ast.copy_location(made, node.body)
            return
        if any(isinstance(n, (ast.Yield, ast.YieldFrom, ast.Await)) for n in walk_scope(node)):
            self.generator(node)
            return
        late.mark(node)
        unbound.mark(node)
        body = without_jumps(node)
        declared = [n for n in walk_scope(node) if isinstance(n, (ast.Global, ast.Nonlocal))]
        self.globals = [v for n in declared if isinstance(n, ast.Global) for v in n.names]
        outer = {v for n in declared if isinstance(n, ast.Nonlocal) for v in n.names}
        mine = [v for v in written(body) if v not in self.globals]
        self.local = {*mine, *self.parameters}
        self.always_live = captured(body) | outer
        body = [s for s in body if s not in declared]
        new = self.block(body, set())
        if apart:
            new = self.whole(body, new, node)
        # Variables that only blocks write need a place in the function around them.
        places = [ast.Assign([ast.Name(v, ast.Store())], ast.Constant(None)) for v in mine if v not in outer]
        head: list[ast.stmt] = [ast.Assign([ast.Name(RUNTIME, ast.Store())], parsed(IMPORT))]
        if places:
            head.append(ast.If(ast.Constant(False), list(places), []))
        for s in [*declared, *head]:
            for n in ast.walk(s):
                ast.copy_location(n, node)
        tops = [s for s in declared if isinstance(s, ast.Nonlocal)] + [
            s for s in declared if isinstance(s, ast.Global)
        ]
        node.body = [*tops, *head, *new]

    def whole(self, body: Sequence[ast.stmt], new: list[ast.stmt], node: ast.FunctionDef) -> list[ast.stmt]:
        """The body as a function of its own, which the runtime calls."""
        last = new[-1] if new else None
        if isinstance(last, ast.Return) and isinstance(last.value, ast.Call):
            last.value = last.value.args[0]  # without `returned`, which looks for the caller
        names, heads = self.blocks(body)
        inner = self.function("whole", heads, new)
        calling = call("returned", call("whole", name(inner.name), strings(names)))
        made: list[ast.stmt] = [inner, ast.Return(calling)]
        return [ast.fix_missing_locations(ast.copy_location(s, node)) for s in made]

    def generator(self, node: ast.FunctionDef) -> None:
        """A generator as a function that returns what can be looped over: its body, given the loop's."""
        body = without_yields(node)
        if body is None:
            raise ExportError(
                f"{self.file}:{node.lineno}: {node.name} yields and takes what is sent to it, and what it "
                "does depends on data. Yield in statements of their own, or return a list."
            )
        arguments = ast.arguments([], [ast.arg(EMIT)], None, [], [], None, [])
        outer = [n for s in body for n in [s, *walk_scope(s)] if isinstance(n, ast.Nonlocal)]
        declared = {v for n in outer for v in n.names}
        changed = [v for v in written(body) if v in self.parameters and v not in declared]
        heads: list[ast.stmt] = [ast.Nonlocal(changed)] if changed else []
        inner = ast.FunctionDef("_ingot_generate", arguments, [*heads, *body], [])
        ast.fix_missing_locations(ast.copy_location(inner, node))
        Function(inner, self.file, node.args).rewrite()
        made: list[ast.stmt] = [
            ast.Assign([ast.Name(RUNTIME, ast.Store())], parsed(IMPORT)),
            inner,
            ast.Return(call("generator", name(inner.name))),
        ]
        for s in (made[0], made[2]):
            for n in ast.walk(s):
                ast.copy_location(n, node)
        node.body = made

    def can_set(self, variables: Collection[str]) -> bool:
        """Whether operands that become functions may assign these variables."""
        return not variables or (isinstance(self.node, ast.FunctionDef) and self.local.issuperset(variables))

    # -- statements

    def block(self, statements: Sequence[ast.stmt], after: set[str]) -> list[ast.stmt]:
        """The statements rewritten; `after` are the variables that matter behind them."""
        out: list[ast.stmt] = []
        for s, live in zip(statements, live_behind(statements, after), strict=True):
            new = self.statement(s, live | self.always_live)
            for n in new:
                ast.fix_missing_locations(ast.copy_location(n, s))
            out += new
        return out

    def statement(self, s: ast.stmt, live: set[str]) -> list[ast.stmt]:
        """One statement rewritten."""
        around, self.setters = self.setters, []
        new = self.rewritten(s, live)
        new, self.setters = [*self.setters, *new], around
        return new

    def rewritten(self, s: ast.stmt, live: set[str]) -> list[ast.stmt]:
        """The statement itself, without what it needs before it."""
        if isinstance(s, ast.If):
            return self.branch(s, live)
        if isinstance(s, ast.While):
            return self.while_loop(s, live)
        if isinstance(s, ast.For):
            return self.for_loop(s, live)
        if isinstance(s, ast.Assert):
            message = thunk(self.expression(s.msg)) if s.msg is not None else ast.Constant(None)
            return [ast.Expr(call("check", self.condition(s.test), message))]
        if isinstance(s, ast.With):
            items = [ast.withitem(self.expression(i.context_expr), i.optional_vars) for i in s.items]
            return [ast.With(items, self.block(s.body, live))]
        if isinstance(s, ast.Try):
            inside = live.union(*(read(n) for n in [*s.handlers, *s.orelse, *s.finalbody]))
            handlers = [
                ast.copy_location(ast.ExceptHandler(h.type, h.name, self.block(h.body, inside)), h)
                for h in s.handlers
            ]
            parts = [self.block(part, inside) for part in (s.body, s.orelse, s.finalbody)]
            return [ast.Try(parts[0], handlers, parts[1], parts[2])]
        if isinstance(s, ast.Match):
            return self.match(s, live)
        if isinstance(s, ast.Return):
            return [ast.Return(call("returned", self.assigned(s.value or ast.Constant(None))))]
        if isinstance(s, (*FUNCTIONS, ast.ClassDef)):
            return [s]
        if isinstance(s, ast.AnnAssign):  # functions do not evaluate them, and know none of `nonlocal` names
            if s.value is None:
                return [ast.Pass()]
            s = ast.copy_location(ast.Assign([s.target], s.value), s)
        if isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Subscript) and not _assigns(s.value):
            update = call(
                "update",
                self.expression(s.target.value),
                self.index(s.target.slice),
                ast.Constant(type(s.op).__name__),
                thunk(self.expression(s.value)),
            )
            return [ast.Expr(update)]
        if isinstance(s, ast.Assign) and len(s.targets) > 1 and any(map(_is_place, s.targets)):
            self.count += 1
            kept = f"_ingot_value{self.count}"
            parts = [ast.Assign([ast.Name(kept, ast.Store())], s.value)]
            parts += [ast.Assign([target], name(kept)) for target in s.targets]
            return [made for part in parts for made in self.rewritten(ast.copy_location(part, s), live)]
        if isinstance(s, ast.Assign) and len(s.targets) == 1 and _has_places(s.targets[0]):
            return [made for part in self.one_by_one(s) for made in self.rewritten(part, live)]
        if isinstance(s, ast.Assign) and len(s.targets) == 1 and isinstance(s.targets[0], ast.Subscript):
            stored, place = call("stored", self.assigned(s.value)), s.targets[0]
            return [ast.Expr(call("put", stored, self.expression(place.value), self.index(place.slice)))]
        if isinstance(s, ast.Assign) and any(not isinstance(t, ast.Name) for t in s.targets):
            apart = all(map(_is_variables, s.targets))
            stored = call("taken_apart" if apart else "stored", self.assigned(s.value))
            targets: list[ast.expr] = [self.expression(t) for t in s.targets]
            return [ast.Assign(targets, stored)]
        if isinstance(s, ast.Assign):
            return [ast.Assign(s.targets, self.assigned(s.value))]
        return [self.expression(s)]

    def one_by_one(self, s: ast.Assign) -> list[ast.stmt]:
        """`a[i], b = value` as Python does it: the value is taken apart, then each target gets its part."""
        (target,) = s.targets
        assert isinstance(target, (ast.Tuple, ast.List))
        apart: list[ast.expr] = []
        parts: list[ast.stmt] = []
        for element in target.elts:
            self.count += 1
            kept = f"_ingot_value{self.count}"
            stored = ast.Name(kept, ast.Store())
            if isinstance(element, ast.Starred):
                apart.append(ast.Starred(stored, ast.Store()))
                element = element.value
            else:
                apart.append(stored)
            parts.append(ast.Assign([element], name(kept)))
        return [
            ast.copy_location(p, s) for p in (ast.Assign([ast.Tuple(apart, ast.Store())], s.value), *parts)
        ]

    def assigned(self, value: ast.expr) -> ast.expr:
        """A value on its way to where it stays: lists that are made for it may grow as data says."""
        mark_lists(value)
        return self.expression(value)

    def index(self, node: ast.expr) -> ast.expr:
        """What stands in the brackets of a place that is written."""
        return slice_value(self.expression(node))

    def match(self, s: ast.Match, live: set[str]) -> list[ast.stmt]:
        """A match on plain values is a row of comparisons; others stay Python's."""
        self.count += 1
        subject: ast.expr = name(f"_ingot_subject{self.count}")
        if isinstance(s.subject, ast.Tuple) and not any(isinstance(v, ast.Starred) for v in s.subject.elts):
            parts = [name(f"_ingot_subject{self.count}_{i}") for i in range(len(s.subject.elts))]
            subject = ast.Tuple(list(parts), ast.Load())
        found = [fits(c.pattern, subject) for c in s.cases]
        if any(f is None for f in found):
            cases = [ast.match_case(c.pattern, c.guard, self.block(c.body, live)) for c in s.cases]
            return [ast.Match(call("matched", self.expression(s.subject)), cases)]
        targets = [ast.Name(n.id, ast.Store()) for n in ast.walk(subject) if isinstance(n, ast.Name)]
        self.local |= {n.id for n in targets}
        rest: list[ast.stmt] = []
        for case, matches in zip(reversed(s.cases), reversed(found), strict=True):
            assert matches is not None
            tests, bound = matches
            binding: list[ast.stmt] = [ast.Assign([ast.Name(v, ast.Store())], x) for v, x in bound.items()]
            if case.guard is None:
                rest = if_all(tests, [*binding, *case.body], rest)
                continue
            # A pattern binds its variables before its guard is asked, and they stay where that fails.
            before = if_all(copy.deepcopy(tests), binding, []) if binding else []
            rest = [*before, *if_all([*tests, Bound(bound).visit(case.guard)], case.body, rest)]
            for n in before:
                ast.copy_location(n, case.body[0])
        target: ast.expr = targets[0]
        if isinstance(subject, ast.Tuple):
            target = ast.Tuple(list(targets), ast.Store())
        first = ast.Assign([target], s.subject)
        return self.block([ast.fix_missing_locations(ast.copy_location(r, s)) for r in [first, *rest]], live)

    def blocks(self, nodes: Sequence[ast.AST]) -> tuple[list[str], list[ast.stmt]]:
        """Variables that the blocks write, and the declarations that let them."""
        names = [v for v in written(nodes) if v in self.local]
        heads: list[ast.stmt] = []
        if names:
            heads.append(ast.Nonlocal(names))
        outside = [v for v in written(nodes) if v in self.globals]
        if outside:
            heads.append(ast.Global(outside))
        return names, heads

    def function(
        self, role: str, heads: Sequence[ast.stmt], body: Sequence[ast.stmt], *parameters: str
    ) -> ast.FunctionDef:
        """A block as a function."""
        self.count += 1
        arguments = ast.arguments([], [ast.arg(p) for p in parameters], None, [], [], None, [])
        whole = [*heads, *body] or [ast.Pass()]
        return ast.FunctionDef(f"_ingot_{role}{self.count}", arguments, whole, [])

    def branch(self, s: ast.If, live: set[str]) -> list[ast.stmt]:
        names, heads = self.blocks([*s.body, *s.orelse])
        then = self.function("then", heads, self.block(s.body, live))
        other = self.function("else", heads, self.block(s.orelse, live))
        calling = call(
            "branch",
            self.condition(s.test),
            name(then.name),
            name(other.name),
            strings(names),
            strings([v for v in names if v in live]),
        )
        return [then, other, ast.Expr(calling)]

    def while_loop(self, s: ast.While, live: set[str]) -> list[ast.stmt]:
        names, heads = self.blocks([s])
        at_head = read(s.test) | first_read(s.body) | set(stops_of(s)) | live
        if stops_of(s):
            stops = ast.Call(runtime("none_of"), [name(f) for f in stops_of(s)], [])
            test, assigned = without_assignments(self, self.condition(s.test))
            test = call("both", stops, thunk(test), *assigned)
        else:
            test = self.condition(s.test)
        tester = self.function("test", self.blocks([s.test])[1], [ast.Return(test)])
        body = self.function("body", heads, self.block(s.body, at_head))
        calling = call("repeat", name(tester.name), name(body.name), *self.carried(names, at_head, live))
        return [tester, body, ast.Expr(calling)]

    def for_loop(self, s: ast.For, live: set[str]) -> list[ast.stmt]:
        names, heads = self.blocks([s])
        target = set(written([s.target]))
        at_head = (first_read(s.body) - target) | set(stops_of(s)) | live
        item: ast.stmt = ast.Assign([s.target], name("_ingot_item"))
        ast.fix_missing_locations(ast.copy_location(item, s.target))
        body = self.function("body", heads, [item, *self.block(s.body, at_head)], "_ingot_item")
        go: ast.expr = ast.Constant(None)
        if stops_of(s):
            go = thunk(ast.Call(runtime("none_of"), [name(f) for f in stops_of(s)], []))
        later = self.found_later(s, live)
        calling = call(
            "each", self.expression(s.iter), name(body.name), go, *self.carried(names, at_head, live), *later
        )
        return [body, ast.Expr(calling)]

    def found_later(self, s: ast.For, live: set[str]) -> list[ast.expr]:
        """What a loop goes through that others may find: where it is an iterator, they find what is left."""
        own = self.local - self.parameters - live - set[str]().union(*map(read, s.body))
        names = [n for n in evaluated_names(s.iter) if n not in own]
        itself = isinstance(s.iter, (ast.Attribute, ast.Subscript))
        return (
            [ast.Tuple([name(n) for n in names], ast.Load()), ast.Constant(itself)] if names or itself else []
        )

    def carried(self, names: Sequence[str], at_head: set[str], live: set[str]) -> list[ast.expr]:
        """A loop's variables: all that it writes, those read in the next round, those read behind it."""
        return [
            strings(names),
            strings([v for v in names if v in at_head]),
            strings([v for v in names if v in live]),
        ]

    # -- expressions

    def expression(self, node: Any) -> Any:
        """The node with its expressions rewritten."""
        return Expressions(self).visit(node)

    def condition(self, node: ast.expr) -> Any:
        """The same of an expression of which only the truth is asked."""
        mark_condition(node)
        return self.expression(node)


def _assigns(node: ast.expr) -> bool:
    """Whether an expression assigns a variable."""
    return any(isinstance(n, ast.NamedExpr) for n in ast.walk(node))


def _has_places(target: ast.expr) -> bool:
    """Whether an assignment takes something apart, and puts a part into a container."""
    inside = ast.walk(target) if isinstance(target, (ast.Tuple, ast.List)) else ()
    return any(isinstance(n, ast.Subscript) for n in inside)


def _is_variables(target: ast.expr) -> bool:
    """Whether an assignment takes something apart into variables."""
    return isinstance(target, (ast.Tuple, ast.List)) and all(
        isinstance(v, ast.Name) or _is_variables(v) for v in target.elts
    )


def _is_place(target: ast.expr) -> bool:
    """Whether an assignment puts something into a container."""
    return isinstance(target, ast.Subscript)
