"""A function's code with control flow as calls of the runtime (`stage`), so that capture sees both sides.

`if`, `while` and `for` become functions for their blocks, which share the variables of the function around
them through its cells; `and`, `or`, `not`, ternaries, comparisons in a row, comprehensions and calls become
calls. What a call finds to be plain Python it runs as Python does. Line numbers stay.
"""

from __future__ import annotations

import ast
import copy
import functools
import linecache
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

from ingot.capture.flags import EMIT, RUNTIME, name, runtime, without_jumps, without_yields
from ingot.capture.names import (
    COMPREHENSIONS,
    FUNCTIONS,
    captured,
    first_read,
    live_before,
    read,
    stops_of,
    walk_scope,
    written,
)
from ingot.errors import ExportError

_IMPORT = "__import__('ingot.capture.stage', fromlist=('RUNTIME',)).RUNTIME"
# What is given to these is shown to somebody, and decides nothing.
_ONLY_SHOWN = ("print", "debug", "info", "warning", "warning_once", "error", "warn")
_COMPREHENSION_NAMES = {
    "<listcomp>": ast.ListComp,
    "<genexpr>": ast.GeneratorExp,
    "<setcomp>": ast.SetComp,
    "<dictcomp>": ast.DictComp,
}


AROUND = "_ingot_around"  # the function that rewritten code is compiled in: names of all code inside say so


@dataclass(frozen=True)
class Key:
    """A piece of code as one finds it again in its source: file, first line, name; lambdas also by place."""

    file: str
    line: int
    name: str
    place: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, code: CodeType) -> Key:
        """The key of a code object."""
        place = (0, 0)
        if code.co_name.startswith("<"):
            found = [
                (line, column) for line, _, column, end in code.co_positions() if line and column and end
            ]
            place = min(found, default=place)
        return cls(code.co_filename, code.co_firstlineno, code.co_name, place)


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """The code and every code object inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


@functools.lru_cache(maxsize=512)  # each recording of an export asks again
def rewritten(code: CodeType, marks: tuple[Key, ...], apart: tuple[Key, ...] = ()) -> CodeType:
    """`code`, that of a whole function, with the marked functions in it (or itself) rewritten.

    apart: those of them whose whole body the runtime may run again

    Raises:
        ExportError: when there is no source, or it holds something that has no staged form.
    """
    file = code.co_filename
    source = "".join(linecache.getlines(file))
    try:
        tree = ast.parse(source)
    except SyntaxError as error:  # no Python source at all
        raise ExportError(f"{file}: the source of {code.co_qualname} cannot be read: {error}") from error
    root = _find(tree, code, file)
    around = _marked(root, apart)
    for node in _marked(root, marks):
        _Function(node, file).rewrite(node in around)
    return _compiled(root, code)


def _first_line(node: ast.AST) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([getattr(node, "lineno", 0), *[d.lineno for d in decorators]])


def _name_of(node: ast.AST) -> str:
    return getattr(node, "name", "<lambda>")


def _find(tree: ast.AST, code: CodeType, file: str) -> ast.FunctionDef | ast.Lambda:
    key = Key.of(code)
    found = [
        n
        for n in ast.walk(tree)
        if isinstance(n, (ast.FunctionDef, ast.Lambda))
        and (_first_line(n), _name_of(n)) == (key.line, key.name)
    ]
    if len(found) > 1:
        found = [n for n in found if _holds(n, key)]
    if len(found) != 1:
        raise ExportError(
            f"{file}:{code.co_firstlineno}: {code.co_qualname} depends on data and its source was not found "
            "there. Write it in a file, on lines of its own."
        )
    return found[0]


def _holds(node: ast.AST, key: Key) -> bool:
    """Whether a lambda's or comprehension's own code starts where the key says."""
    if isinstance(node, ast.Lambda):
        inner = [n for n in [node.body, *walk_scope(node.body)] if isinstance(n, ast.expr)]
        starts = [(n.lineno, n.col_offset) for n in inner]
        return key.place in starts

    return True


def _marked(root: ast.AST, marks: Sequence[Key]) -> list[ast.FunctionDef | ast.Lambda]:
    """The functions to rewrite, innermost first."""
    found: dict[ast.FunctionDef | ast.Lambda, int] = {}

    def visit(node: ast.AST, around: list[ast.FunctionDef | ast.Lambda]) -> None:
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            around = [*around, node]
            if any(
                (m.line, m.name) == (_first_line(node), _name_of(node)) and _holds(node, m) for m in marks
            ):
                found[node] = len(around)
        elif isinstance(node, COMPREHENSIONS) and around:
            kinds = [_COMPREHENSION_NAMES.get(m.name) for m in marks if m.line == node.lineno]
            if type(node) in kinds:
                found[around[-1]] = len(around)
        for child in ast.iter_child_nodes(node):
            visit(child, around)

    visit(root, [])
    return sorted(found, key=lambda n: -found[n])


def _compiled(root: ast.FunctionDef | ast.Lambda, code: CodeType) -> CodeType:
    """The code object, inside a class and a function that give it the same free variables and mangling."""
    file = code.co_filename
    inner: ast.stmt = ast.Expr(root) if isinstance(root, ast.Lambda) else root
    if isinstance(root, ast.FunctionDef):
        # Decorators are not applied again; they stay so that the code's first line does.
        root.decorator_list = [ast.copy_location(ast.Constant(None), d) for d in root.decorator_list]
        root.returns = None
        root.args.defaults = [ast.Constant(None) for _ in root.args.defaults]
        root.args.kw_defaults = [d and ast.Constant(None) for d in root.args.kw_defaults]
    path = code.co_qualname.split(".")
    free = list(code.co_freevars)
    before: list[ast.stmt] = []
    if len(path) > 1 and path[-2] != "<locals>":
        owner = path[-2]
        inner = ast.ClassDef(owner, [], [], [inner], [])
        if owner not in free:
            before = [ast.Global([owner])]  # the class must not stand before the module's own name for it
        free = [v for v in free if v != "__class__"]
    elif isinstance(root, ast.FunctionDef) and root.name not in free:
        before = [ast.Global([root.name])]  # a function of the module that calls itself finds it there
    arguments = ast.arguments([], [ast.arg(v) for v in free], None, [], [], None, [])
    outer = ast.FunctionDef(AROUND, arguments, [*before, inner], [])
    module = ast.fix_missing_locations(ast.copy_location(ast.Module([outer], []), root))
    for node in ast.walk(module):
        if isinstance(node, (ast.stmt, ast.expr)) and not hasattr(node, "lineno"):
            ast.copy_location(node, root)
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.end_lineno != node.lineno
        ):
            # A call of a method is on the line where the method's name ends, to Python: a branch would be
            # on the last line of its sides.
            node.end_lineno, node.end_col_offset = node.lineno, node.col_offset
    made = compile(module, file, "exec", flags=code.co_flags & 0xFE0000, dont_inherit=True)
    line = code.co_firstlineno
    hits = [c for c in codes_in(made) if c.co_name == code.co_name and c.co_firstlineno == line]
    new = _as_made(hits[0]).replace(co_qualname=code.co_qualname)
    if new.co_freevars != code.co_freevars:
        raise ExportError(
            f"{file}:{line}: {code.co_qualname} depends on data, and rewriting it changed the variables "
            f"it takes from outside: {code.co_freevars} became {new.co_freevars}."
        )
    return new


# Expressions whose value is one of these parts of theirs, or is made of such values.
_PARTS: dict[type[ast.expr], tuple[str, ...]] = {
    ast.IfExp: ("body", "orelse"),
    ast.NamedExpr: ("value",),
    ast.ListComp: ("elt",),
    ast.DictComp: ("value",),
}
_MADE = "ingot_made"  # how a list in the tree is marked: the function of the runtime that makes it


def _as_made(code: CodeType) -> CodeType:
    """The code with names that say of all code inside that it was rewritten."""
    inside = tuple(_as_made(c) if isinstance(c, CodeType) else c for c in code.co_consts)
    found = code.co_qualname
    whole = found if found.startswith(f"{AROUND}.") else f"{AROUND}.<locals>.{found}"
    return code.replace(co_consts=inside, co_qualname=whole)


def _expression(source: str) -> ast.expr:
    return ast.parse(source, mode="eval").body


def _call(function: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(runtime(function), list(arguments), [])


def _thunk(body: ast.expr, *parameters: str) -> ast.Lambda:
    return ast.Lambda(ast.arguments([], [ast.arg(p) for p in parameters], None, [], [], None, []), body)


def _strings(values: Sequence[str]) -> ast.Constant:
    constant: Any = tuple(values)
    return ast.Constant(constant)


class _Function:
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
            inner = ast.Call(_thunk(body, RUNTIME), [_expression(_IMPORT)], [])
            made = ast.Call(_expression(f"{_IMPORT}.returned"), [inner], [])
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
        head: list[ast.stmt] = [ast.Assign([ast.Name(RUNTIME, ast.Store())], _expression(_IMPORT))]
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
        call = _call("returned", _call("whole", name(inner.name), _strings(names)))
        made: list[ast.stmt] = [inner, ast.Return(call)]
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
        _Function(inner, self.file, node.args).rewrite()
        made: list[ast.stmt] = [
            ast.Assign([ast.Name(RUNTIME, ast.Store())], _expression(_IMPORT)),
            inner,
            ast.Return(_call("generator", name(inner.name))),
        ]
        for s in (made[0], made[2]):
            for n in ast.walk(s):
                ast.copy_location(n, node)
        node.body = made

    # -- statements

    def block(self, statements: Sequence[ast.stmt], after: set[str]) -> list[ast.stmt]:
        """The statements rewritten; `after` are the variables that matter behind them."""
        out: list[ast.stmt] = []
        for at, s in enumerate(statements):
            live = live_before(statements[at + 1 :], after) | self.always_live
            new = self.statement(s, live)
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
            message = _thunk(self.expression(s.msg)) if s.msg is not None else ast.Constant(None)
            return [ast.Expr(_call("check", self.expression(s.test), message))]
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
            return [ast.Return(_call("returned", self.assigned(s.value or ast.Constant(None))))]
        if isinstance(s, (*FUNCTIONS, ast.ClassDef)):
            return [s]
        if isinstance(s, ast.AnnAssign):  # functions do not evaluate them, and know none of `nonlocal` names
            if s.value is None:
                return [ast.Pass()]
            s = ast.copy_location(ast.Assign([s.target], s.value), s)
        if isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Subscript) and not _assigns(s.value):
            update = _call(
                "update",
                self.expression(s.target.value),
                self.index(s.target.slice),
                ast.Constant(type(s.op).__name__),
                _thunk(self.expression(s.value)),
            )
            return [ast.Expr(update)]
        if isinstance(s, ast.Assign) and len(s.targets) > 1 and any(map(_is_place, s.targets)):
            self.count += 1
            kept = f"_ingot_value{self.count}"
            parts = [ast.Assign([ast.Name(kept, ast.Store())], s.value)]
            parts += [ast.Assign([target], name(kept)) for target in s.targets]
            return [made for part in parts for made in self.rewritten(ast.copy_location(part, s), live)]
        if isinstance(s, ast.Assign) and len(s.targets) == 1 and isinstance(s.targets[0], ast.Subscript):
            stored, place = _call("stored", self.assigned(s.value)), s.targets[0]
            return [ast.Expr(_call("put", stored, self.expression(place.value), self.index(place.slice)))]
        if isinstance(s, ast.Assign) and any(not isinstance(t, ast.Name) for t in s.targets):
            stored = _call("stored", self.assigned(s.value))
            targets: list[ast.expr] = [self.expression(t) for t in s.targets]
            return [ast.Assign(targets, stored)]
        if isinstance(s, ast.Assign):
            return [ast.Assign(s.targets, self.assigned(s.value))]
        return [self.expression(s)]

    def assigned(self, value: ast.expr) -> ast.expr:
        """A value on its way to where it stays: lists that are made for it may grow as data says."""
        _mark_lists(value)
        return self.expression(value)

    def index(self, node: ast.expr) -> ast.expr:
        """What stands in the brackets of a place that is written."""
        return _slice_value(self.expression(node))

    def match(self, s: ast.Match, live: set[str]) -> list[ast.stmt]:
        """A match on plain values is a row of comparisons; others stay Python's."""
        self.count += 1
        subject: ast.expr = name(f"_ingot_subject{self.count}")
        if isinstance(s.subject, ast.Tuple) and not any(isinstance(v, ast.Starred) for v in s.subject.elts):
            parts = [name(f"_ingot_subject{self.count}_{i}") for i in range(len(s.subject.elts))]
            subject = ast.Tuple(list(parts), ast.Load())
        found = [_pattern(c.pattern, subject) for c in s.cases]
        if any(f is None for f in found):
            cases = [ast.match_case(c.pattern, c.guard, self.block(c.body, live)) for c in s.cases]
            return [ast.Match(_call("matched", self.expression(s.subject)), cases)]
        targets = [ast.Name(n.id, ast.Store()) for n in ast.walk(subject) if isinstance(n, ast.Name)]
        self.local |= {n.id for n in targets}
        rest: list[ast.stmt] = []
        for case, fits in zip(reversed(s.cases), reversed(found), strict=True):
            assert fits is not None
            tests, bound = fits
            binding: list[ast.stmt] = [ast.Assign([ast.Name(v, ast.Store())], x) for v, x in bound.items()]
            if case.guard is None:
                rest = _if(tests, [*binding, *case.body], rest)
                continue
            # A pattern binds its variables before its guard is asked, and they stay where that fails.
            before = _if(copy.deepcopy(tests), binding, []) if binding else []
            rest = [*before, *_if([*tests, _Bound(bound).visit(case.guard)], case.body, rest)]
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
        call = _call(
            "branch",
            self.expression(s.test),
            name(then.name),
            name(other.name),
            _strings(names),
            _strings([v for v in names if v in live]),
        )
        return [then, other, ast.Expr(call)]

    def while_loop(self, s: ast.While, live: set[str]) -> list[ast.stmt]:
        names, heads = self.blocks([s])
        at_head = read(s.test) | first_read(s.body) | set(stops_of(s)) | live
        if stops_of(s):
            stops = ast.Call(runtime("none_of"), [name(f) for f in stops_of(s)], [])
            test, assigned = _without_assignments(self, self.expression(s.test))
            test = _call("both", stops, _thunk(test), *assigned)
        else:
            test = self.expression(s.test)
        tester = self.function("test", self.blocks([s.test])[1], [ast.Return(test)])
        body = self.function("body", heads, self.block(s.body, at_head))
        call = _call("repeat", name(tester.name), name(body.name), *self.carried(names, at_head, live))
        return [tester, body, ast.Expr(call)]

    def for_loop(self, s: ast.For, live: set[str]) -> list[ast.stmt]:
        names, heads = self.blocks([s])
        target = set(written([s.target]))
        at_head = (first_read(s.body) - target) | set(stops_of(s)) | live
        item: ast.stmt = ast.Assign([s.target], name("_ingot_item"))
        ast.fix_missing_locations(ast.copy_location(item, s.target))
        body = self.function("body", heads, [item, *self.block(s.body, at_head)], "_ingot_item")
        go: ast.expr = ast.Constant(None)
        if stops_of(s):
            go = _thunk(ast.Call(runtime("none_of"), [name(f) for f in stops_of(s)], []))
        call = _call(
            "each", self.expression(s.iter), name(body.name), go, *self.carried(names, at_head, live)
        )
        return [body, ast.Expr(call)]

    def carried(self, names: Sequence[str], at_head: set[str], live: set[str]) -> list[ast.expr]:
        """A loop's variables: all that it writes, those read in the next round, those read behind it."""
        return [
            _strings(names),
            _strings([v for v in names if v in at_head]),
            _strings([v for v in names if v in live]),
        ]

    # -- expressions

    def expression(self, node: Any) -> Any:
        """The node with its expressions rewritten."""
        return _Expressions(self).visit(node)


def _assigns(node: ast.expr) -> bool:
    """Whether an expression assigns a variable."""
    return any(isinstance(n, ast.NamedExpr) for n in ast.walk(node))


def _is_place(target: ast.expr) -> bool:
    """Whether an assignment puts something into a container."""
    return isinstance(target, ast.Subscript)


def _mark_lists(node: ast.expr | None) -> None:
    """Mark the lists that an expression makes, and those in what it makes, as lists of the runtime's."""
    if node is None:
        return
    if isinstance(node, (ast.List, ast.ListComp)):
        setattr(node, _MADE, "new_list")
    parts: list[ast.expr | None]
    if isinstance(node, (ast.List, ast.Tuple)):
        parts = [*node.elts]
    elif isinstance(node, ast.Dict):
        parts = [*node.values]
    elif isinstance(node, ast.BinOp):
        lists = [n for n in (node.left, node.right) if isinstance(n, ast.List)]
        parts = [v for n in lists for v in n.elts] if isinstance(node.op, ast.Mult) else []
    else:
        parts = [getattr(node, part, None) for part in _PARTS.get(type(node), ())]
    for part in parts:
        _mark_lists(part)


def _if(tests: list[ast.expr], body: list[ast.stmt], rest: list[ast.stmt]) -> list[ast.stmt]:
    """`if all tests: body; else: rest`."""
    if not tests:
        return body
    return [ast.copy_location(ast.If(_all(tests), body, rest), body[0])]


def _pattern(pattern: ast.pattern, subject: ast.expr) -> tuple[list[ast.expr], dict[str, ast.expr]] | None:
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
        inner = _pattern(pattern.pattern, subject)
        if inner is not None and pattern.name is not None:
            inner[1][pattern.name] = subject
        return inner
    if isinstance(pattern, ast.MatchOr):
        options = [_pattern(p, subject) for p in pattern.patterns]
        tests = [_all(o[0]) for o in options if o is not None and o[0] and not o[1]]
        return ([ast.BoolOp(ast.Or(), tests)], {}) if len(tests) == len(options) else None
    if not isinstance(pattern, ast.MatchSequence):
        return None
    return _sequence(pattern.patterns, subject)


def _all(tests: list[ast.expr]) -> ast.expr:
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
        whole.append(_call("has_elements", subject, ast.Constant(least), ast.Constant(bool(stars))))
        places = [ast.Constant(n if n < at else n - len(patterns)) for n in range(len(patterns))]
        parts = [ast.Subscript(subject, place, ast.Load()) for place in places]
        if stars:
            parts[at] = _call("rest", subject, ast.Constant(at), ast.Constant(least - at))
    for p, part in zip(patterns, parts, strict=True):
        if isinstance(p, ast.MatchStar):
            bound |= {p.name: part} if p.name else {}
            continue
        inner = _pattern(p, part)
        if inner is None:
            return None
        whole += inner[0]
        bound |= inner[1]
    return whole, bound


class _Bound(ast.NodeTransformer):
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

    def _without(self, own: set[str]) -> _Bound:
        """For a part of a guard that has other variables of these names."""
        return _Bound({k: v for k, v in self.bound.items() if k not in own})


def _without_assignments(function: _Function, node: ast.expr) -> tuple[ast.expr, list[ast.expr]]:
    """An operand that may not be evaluated, with calls in the place of `:=`: it becomes a function itself.

    Returns what the runtime is told of the variables: their names, then functions that have them.
    """
    node = _Assignments(function).visit(node)
    setters = dict.fromkeys(
        n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in function.set_by
    )
    variables = list(dict.fromkeys(function.set_by[n] for n in setters))
    return node, [_strings(variables), *map(name, setters)] if setters else []


class _Assignments(ast.NodeTransformer):
    """`(v := x)` as a call of a function that assigns it, defined before the statement."""

    def __init__(self, function: _Function) -> None:
        self.function = function

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return node

    def visit_NamedExpr(self, node: ast.NamedExpr) -> ast.AST:
        self.generic_visit(node)
        variable = node.target.id
        if variable not in self.function.local:
            return node
        kept: list[ast.stmt] = [
            ast.Assign([ast.Name(variable, ast.Store())], name("value")),
            ast.Return(name("value")),
        ]
        setter = self.function.function("set", [ast.Nonlocal([variable])], kept, "value")
        self.function.set_by[setter.name] = variable
        self.function.setters.append(ast.fix_missing_locations(ast.copy_location(setter, node)))
        return ast.copy_location(ast.Call(name(setter.name), [node.value], []), node)


class _Expressions(ast.NodeTransformer):
    """Boolean operators, comparisons, calls, subscripts and comprehensions as calls of the runtime."""

    def __init__(self, function: _Function) -> None:
        self.function = function

    def visit(self, node: ast.AST) -> ast.AST:
        made = super().visit(node)
        if made is not node and isinstance(node, ast.expr):
            for n in ast.walk(made):
                if isinstance(n, ast.expr) and not hasattr(n, "lineno"):
                    ast.copy_location(n, node)
        return made

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        sides, assigned = _without_assignments(self.function, ast.Tuple([node.body, node.orelse], ast.Load()))
        assert isinstance(sides, ast.Tuple)
        node.body, node.orelse = sides.elts
        return _call("choose", node.test, _thunk(node.body), _thunk(node.orelse), *assigned)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        later, assigned = _without_assignments(self.function, ast.Tuple(node.values[1:], ast.Load()))
        assert isinstance(later, ast.Tuple)
        node.values[1:] = later.elts
        *first, whole = node.values
        for value in reversed(first):
            operator = "both" if isinstance(node.op, ast.And) else "either"
            whole = _call(operator, value, _thunk(whole), *assigned)
        return whole

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Mult) and isinstance(node.left, ast.List):
            return _call("times", node.left, node.right)
        if isinstance(node.op, ast.Mult) and isinstance(node.right, ast.List):
            return _call("times", node.right, node.left)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return _call("opposite", node.operand) if isinstance(node.op, ast.Not) else node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        values = [node.left, *node.comparators]
        if len(node.ops) == 1:
            return self.comparison(values[0], node.ops[0], values[1])
        # Each operand is evaluated once, and none behind a comparison that does not hold, as Python does.
        names = [f"_ingot_operand{i}" for i in range(len(values))]
        later, assigned = _without_assignments(self.function, ast.Tuple(values[2:], ast.Load()))
        assert isinstance(later, ast.Tuple)
        parts = [
            self.comparison(name(a), op, name(b))
            for a, op, b in zip(names, node.ops, names[1:], strict=False)
        ]
        whole = parts.pop()
        for operand, value in zip(reversed(names[2:]), reversed(later.elts), strict=True):
            rest = ast.Call(_thunk(whole, operand), [value], [])
            whole = _call("both", parts.pop(), _thunk(rest), *assigned)
        return ast.Call(_thunk(whole, *names[:2]), values[:2], [])

    def comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> ast.expr:
        if isinstance(op, ast.Is):
            return _call("same", left, right)
        if isinstance(op, ast.IsNot):
            return _call("opposite", _call("same", left, right))
        if isinstance(op, ast.In):
            return _call("contains", right, left)
        if isinstance(op, ast.NotIn):
            return _call("opposite", _call("contains", right, left))
        if isinstance(op, ast.Eq):
            return _call("equal", left, right)
        if isinstance(op, ast.NotEq):
            return _call("unequal", left, right)
        return ast.Compare(left, [op], [right])

    def visited(self, node: ast.expr) -> ast.expr:
        """An operand, rewritten."""
        made = self.visit(node)
        assert isinstance(made, ast.expr)
        return made

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in _ONLY_SHOWN:
            return node
        if isinstance(node.func, ast.Name) and called == "next" and node.args and not node.keywords:
            made = self.first_of(node.func, node.args[0], node.args[1:])
            if made is not None:
                return made
        if isinstance(node.func, ast.Name) and called == "getattr" and len(node.args) == 2:
            parts = _parts_of_name(node.args[1])
            if parts is not None:
                return _call("attribute_named", *map(self.visited, (node.func, node.args[0], *parts)))
        found = node.args[0] if len(node.args) == 1 and not node.keywords else None
        if isinstance(found, ast.GeneratorExp):
            stops = isinstance(node.func, ast.Name) and called in ("any", "all")
            made = self.quantified(node.func, found) if stops else None
            if made is not None:
                return made
            if not stops:
                node.args = [ast.copy_location(ast.ListComp(found.elt, found.generators), found)]
        for argument in (*node.args, *(k.value for k in node.keywords)):
            _mark_lists(argument)
            if isinstance(argument, ast.List):
                setattr(argument, _MADE, "given_list")
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "super" and not node.args:
            # super() would look at the arguments of the block's function
            arguments = self.function.arguments
            first = (arguments.posonlyargs + arguments.args)[0].arg
            node.args = [name("__class__"), name(first)]
            return node
        if isinstance(node.func, ast.Name) and node.func.id in ("locals", "globals", "vars", "eval", "exec"):
            return node
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == RUNTIME:
            return node
        if len(node.args) == 1 and isinstance(node.args[0], ast.Starred) and not node.keywords:
            return _call("call_spread", node.func, node.args[0].value)
        return ast.Call(runtime("call"), [node.func, *node.args], node.keywords)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        self.generic_visit(node)
        parts = [v for v in node.values if isinstance(v, ast.FormattedValue)]
        values, names = [v.value for v in parts], [f"_ingot_part{i}" for i in range(len(parts))]
        for v, n in zip(parts, names, strict=True):
            v.value = ast.copy_location(name(n), v)
        return _call("formatted", _thunk(node, *names), *values)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        node.value = _call("text", self.function.expression(node.value))
        if node.format_spec is not None:  # which stays a string with values in it
            self.generic_visit(node.format_spec)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        parts = _parts_of_name(node.slice) if isinstance(node.ctx, ast.Load) else None
        if parts is not None:
            return _call("item_named", *map(self.visited, (node.value, *parts)))
        self.generic_visit(node)
        if not isinstance(node.ctx, ast.Load) or isinstance(node.slice, ast.Constant):
            return node
        return _call("item", node.value, _slice_value(node.slice))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        asked = node.attr == "__class__" and isinstance(node.ctx, ast.Load)
        return _call("class_of", node.value) if asked else node

    def visit_List(self, node: ast.List) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load) and any(isinstance(v, ast.Starred) for v in node.elts):
            stars = [isinstance(v, ast.Starred) for v in node.elts]
            parts = [v.value if isinstance(v, ast.Starred) else v for v in node.elts]
            return _call("spread", ast.Tuple([ast.Constant(s) for s in stars], ast.Load()), *parts)
        made = getattr(node, _MADE, None)
        return _call(made, node) if made is not None else node

    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        self.generic_visit(node)
        made = self.comprehension(node, "list_of")
        return _call("new_list", node) if made is node and hasattr(node, _MADE) else made

    def first_of(self, called: ast.Name, node: ast.expr, default: Sequence[ast.expr]) -> ast.AST | None:
        """`next(… for …)`: the first element that there is, or the default. None: it is no such call."""
        if not isinstance(node, ast.GeneratorExp):
            return None
        made = self.as_far(called, node, "first_of")
        if made is not None:
            made.args += [_thunk(self.function.expression(d)) for d in default]
        return made

    def quantified(self, called: ast.expr, node: ast.GeneratorExp) -> ast.AST | None:
        """`any(… for …)` or `all(…)`; None: it has no such form."""
        first, *others = node.generators
        if others:  # any of each is any of all
            inner = ast.copy_location(ast.GeneratorExp(node.elt, others), node)
            each = ast.copy_location(ast.Call(copy.deepcopy(called), [inner], []), node)
            node = ast.copy_location(ast.GeneratorExp(each, [first]), node)
        return self.as_far(called, node, "nested" if others else "quantified")

    def as_far(self, called: ast.expr, node: ast.GeneratorExp, function: str) -> ast.Call | None:
        """A call that goes through a generator only as far as it must; None: it has no such form."""
        all_of = ast.copy_location(ast.ListComp(node.elt, node.generators), node)
        kept = ast.Constant(isinstance(node.generators[0].iter, (ast.Name, ast.Attribute, ast.Subscript)))
        if any(isinstance(n, ast.NamedExpr) for n in ast.walk(all_of)):
            return None
        self.generic_visit(all_of)
        made = self.comprehension(all_of, function)
        if not isinstance(made, ast.Call):
            return None
        made.args = [called, kept, *made.args]
        return made

    def comprehension(self, node: ast.ListComp, function: str) -> ast.AST:
        """One loop: its list is made by the runtime, which may find that its length is not known."""
        made = node.elt
        if len(node.generators) != 1 or any(isinstance(n, ast.NamedExpr) for n in ast.walk(node)):
            return node
        loop = node.generators[0]
        targets = [n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)]

        def per_item(body: ast.expr) -> ast.expr:
            if isinstance(loop.target, ast.Name):
                return _thunk(body, loop.target.id)
            unpack = ast.ListComp(
                _tuple_of(targets),
                [ast.comprehension(loop.target, ast.List([name("_ingot_item")], ast.Load()), [], 0)],
            )
            first = ast.Subscript(unpack, ast.Constant(0), ast.Load())
            return _thunk(
                ast.Call(_thunk(body, *targets), [ast.Starred(first, ast.Load())], []), "_ingot_item"
            )

        if loop.is_async or len(set(targets)) != len(targets):
            return node
        tests = ast.List([per_item(t) for t in loop.ifs], ast.Load())
        return _call(function, loop.iter, per_item(made), tests)


def _tuple_of(names: Sequence[str]) -> ast.expr:
    return ast.Tuple([name(n) for n in names], ast.Load())


def _parts_of_name(node: ast.expr) -> list[ast.expr] | None:
    """The parts of a string that is put together where it is used as a name, `f"layer_{n}"` or `str(n)`,
    after what puts them together. None: it is something else.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str":
        plain = len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], ast.Starred)
        return [node.func, node.args[0]] if plain else None
    if not isinstance(node, ast.JoinedStr):
        return None
    numbers = [p for p in node.values if isinstance(p, ast.FormattedValue)]
    if not numbers or any(p.conversion != -1 or p.format_spec is not None for p in numbers):
        return None
    return [
        ast.Constant(None),
        *(p.value if isinstance(p, ast.FormattedValue) else p for p in node.values),
    ]


def _slice_value(node: ast.expr) -> ast.expr:
    """What stands in brackets as a value: slices become calls of `slice`."""
    if isinstance(node, ast.Slice):
        parts = [part or ast.Constant(None) for part in (node.lower, node.upper, node.step)]
        return ast.Call(ast.Name("slice", ast.Load()), parts, [])
    if isinstance(node, ast.Tuple):
        if any(isinstance(n, ast.Starred) for n in node.elts):
            return node
        return ast.Tuple([_slice_value(n) for n in node.elts], ast.Load())
    return node
