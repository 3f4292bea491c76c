"""Which variables a piece of Python reads and writes, and which of them anybody reads later: liveness over a
syntax tree.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import cast

FUNCTIONS = (ast.FunctionDef, ast.Lambda, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
_SCOPES = (*FUNCTIONS, ast.ClassDef)
_WITHOUT_PARTS = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop)


def walk_scope(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below a node, without entering functions and classes; no contexts and signs of operators."""
    todo = _children(node)
    while todo:
        child = todo.pop()
        yield child
        if not isinstance(child, _SCOPES):
            todo += _children(child)


def _children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below, the last one first (`ast.iter_child_nodes` takes three times as long)."""
    found: list[ast.AST] = []
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, list):
            found += [v for v in cast("list[object]", value) if isinstance(v, ast.AST)]
        elif isinstance(value, ast.AST) and not isinstance(value, _WITHOUT_PARTS):
            found.append(value)
    return found[::-1]


def written(nodes: Sequence[ast.AST]) -> list[str]:
    """Variables of the function that these nodes bind or delete, in order: no targets of comprehensions,
    which have a scope of their own.
    """
    found: dict[str, int] = {}  # how often each is assigned
    inner: dict[str, int] = {}  # and that in comprehensions
    for node in nodes:
        for n in [node, *walk_scope(node)]:
            if isinstance(n, ast.Name):
                if isinstance(n.ctx, ast.Store):
                    found[n.id] = found.get(n.id, 0) + 1
                elif isinstance(n.ctx, ast.Del):
                    found.setdefault(n.id, 0)
            elif isinstance(n, COMPREHENSIONS):
                for g in n.generators:
                    for x in ast.walk(g.target):
                        if isinstance(x, ast.Name):
                            inner[x.id] = inner.get(x.id, 0) + 1
            elif isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
                found.setdefault(n.name, 0)
            elif isinstance(n, ast.alias):
                found.setdefault((n.asname or n.name).split(".")[0], 0)
            elif isinstance(n, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
                if n.name:
                    found.setdefault(n.name, 0)
            elif isinstance(n, ast.MatchMapping) and n.rest:
                found.setdefault(n.rest, 0)
    return [v for v, count in found.items() if count > inner.get(v, -1)]


#: Functions and methods that go through the iterator they are given before they return.
_GO_THROUGH = {
    *("all", "any", "dict", "frozenset", "list", "max", "min", "set", "sorted", "sum", "tuple"),
    *("Counter", "OrderedDict", "deque", "extend", "fsum", "join", "prod", "update"),
}


def read(node: ast.AST) -> set[str]:
    """Variables read anywhere in a node, functions inside it included; not those that lambdas and
    comprehensions in it have for themselves.
    """
    found: set[str] = set()
    todo = [node]
    while todo:
        n = todo.pop()
        if isinstance(n, ast.Name):
            if not isinstance(n.ctx, ast.Store):
                found.add(n.id)
        elif isinstance(n, (ast.Lambda, *COMPREHENSIONS)):
            outside = [*n.args.defaults, *n.args.kw_defaults] if isinstance(n, ast.Lambda) else [_first(n)]
            todo += [x for x in outside if x is not None]
            found |= set[str]().union(*map(read, _children(n))) - _own(n)
        else:
            todo += _children(n)
    return found


def _own(node: ast.Lambda | ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> set[str]:
    """Variables of a lambda or comprehension."""
    if isinstance(node, ast.Lambda):
        return {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
    return {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}


def _first(node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> ast.expr:
    """What a comprehension goes through first, which is evaluated around it."""
    return node.generators[0].iter


def evaluated_names(node: ast.expr) -> list[str]:
    """Variables that an expression surely reads when it is evaluated, in order."""
    if isinstance(node, (*FUNCTIONS, *COMPREHENSIONS, ast.IfExp, ast.BoolOp)):
        return []
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Load) else []
    inner = (n for n in ast.iter_child_nodes(node) if isinstance(n, (ast.expr, ast.keyword)))
    found = (evaluated_names(n.value if isinstance(n, ast.keyword) else n) for n in inner)
    return list(dict.fromkeys(v for names in found for v in names))


def captured(nodes: Sequence[ast.AST]) -> set[str]:
    """Variables that functions and generators made in these nodes read or write: anybody may, at any time.

    A generator that is made for a function known to go through it at once is gone through there.
    """
    inside = [n for node in nodes for n in [node, *walk_scope(node)]]
    at_once = {id(n.args[0]) for n in inside if isinstance(n, ast.Call) and n.args and goes_through(n.func)}
    at_once |= {id(n.value) for n in inside if isinstance(n, ast.Starred)}
    late = [
        n
        for n in inside
        if isinstance(n, FUNCTIONS) or (isinstance(n, ast.GeneratorExp) and id(n) not in at_once)
    ]
    found: set[str] = set()
    for n in late:
        names = {x.id for x in ast.walk(n) if isinstance(x, ast.Name)}
        found |= names - _own(n) if isinstance(n, (ast.Lambda, ast.GeneratorExp)) else names
    return found


def goes_through(function: ast.expr) -> bool:
    """Whether a function, by its name, goes through an iterator that it is given before it returns."""
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    return name in _GO_THROUGH


def first_read(statements: Sequence[ast.stmt]) -> set[str]:
    """Variables that may be read before these statements have written them."""
    return _flow(statements)[0]


def live_behind(statements: Sequence[ast.stmt], after: set[str]) -> list[set[str]]:
    """Variables whose value matters behind each of the statements, given those that matter after all."""
    found: list[set[str]] = []
    for s in reversed(statements):
        found.append(after)
        needed, bound = _flow_of(s)
        after = needed | (after - bound)
    return found[::-1]


def _flow(statements: Sequence[ast.stmt]) -> tuple[set[str], set[str]]:
    """Variables read before they are written, and variables surely written."""
    needed: set[str] = set()
    bound: set[str] = set()
    for s in statements:
        n, b = _flow_of(s)
        needed |= n - bound
        bound |= b
    return needed, bound


def _flow_of(s: ast.stmt) -> tuple[set[str], set[str]]:
    if isinstance(s, ast.If):
        (n1, b1), (n2, b2) = _flow(s.body), _flow(s.orelse)
        return read(s.test) | n1 | n2, b1 & b2
    if isinstance(s, ast.While):
        n, _ = _flow(s.body)
        return read(s.test) | n | _flow(s.orelse)[0] | set(stops_of(s)), set()
    if isinstance(s, ast.For):
        n, _ = _flow(s.body)
        target = set(written([s.target]))
        return read(s.iter) | read(s.target) | (n - target) | _flow(s.orelse)[0] | set(stops_of(s)), set()
    if isinstance(s, ast.With):
        n, b = _flow(s.body)
        items = set[str]().union(*(read(i) for i in s.items))
        return items | n, b
    if isinstance(s, (ast.Try, ast.Match, ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
        return read(s), {s.name} if isinstance(s, ast.FunctionDef) else set()
    if isinstance(s, ast.AugAssign):
        target = {s.target.id} if isinstance(s.target, ast.Name) else read(s.target)
        return read(s.value) | target, set()
    if isinstance(s, (ast.Assign, ast.AnnAssign)):
        targets = s.targets if isinstance(s, ast.Assign) else [s.target]
        value = read(s.value) if s.value is not None else set[str]()
        bound = set(written(targets)) if s.value is not None else set[str]()
        return value.union(*(read(t) for t in targets)), bound
    return read(s), set()


def stops_of(loop: ast.AST) -> list[str]:
    """Flags that end a loop, noted on it by `flags`."""
    return getattr(loop, "stops", [])
