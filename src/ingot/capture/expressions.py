"""Expressions of rewritten code: what Python would decide there is a call of the runtime.

`and`, `or`, `not`, ternaries, comparisons, calls, subscripts and comprehensions become such calls;
operands that may not be evaluated become functions.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ingot.capture.late import is_late, shares_its_variables
from ingot.capture.names import goes_through
from ingot.capture.syntax import RUNTIME, call, name, runtime, slice_value, strings, thunk

if TYPE_CHECKING:
    from ingot.capture.statements import Function

# What is given to these is shown to somebody, and decides nothing, unless they are the model's own.
_SHOWING = ("print", "debug", "info", "warning", "warning_once", "error", "warn")

# Expressions whose value is one of these parts of theirs, or is made of such values.
_PARTS: dict[type[ast.expr], tuple[str, ...]] = {
    ast.IfExp: ("body", "orelse"),
    ast.NamedExpr: ("value",),
    ast.ListComp: ("elt",),
    ast.DictComp: ("value",),
}
#: What the loops of a comprehension are given: a function that goes over something, one that takes elements.
_OVER, _GIVE = "_ingot_over", "_ingot_give"
_MADE = "ingot_made"  # how a list in the tree is marked: the function of the runtime that makes it
_ASKED = "ingot_asked"  # how an expression is marked of which somebody asks only whether it is true


def mark_lists(node: ast.expr | None) -> None:
    """Mark the lists that an expression makes, and those in what it makes, as lists of the runtime's."""
    if node is None:
        return
    if isinstance(node, (ast.List, ast.ListComp)):
        setattr(node, _MADE, "new_list")
    parts: list[ast.expr | None]
    if isinstance(node, (ast.List, ast.Tuple)):
        parts = [*node.elts]
    elif isinstance(node, (ast.Dict, ast.BoolOp)):
        parts = [*node.values]
    elif isinstance(node, ast.BinOp):
        lists = [n for n in (node.left, node.right) if isinstance(n, ast.List)]
        parts = [v for n in lists for v in n.elts] if isinstance(node.op, ast.Mult) else []
    else:
        parts = [getattr(node, part, None) for part in _PARTS.get(type(node), ())]
    for part in parts:
        mark_lists(part)


def mark_condition(node: ast.expr) -> None:
    """Mark an expression, and those that it may give, as one of which only the truth is asked."""
    setattr(node, _ASKED, True)
    for part in _may_give(node):
        mark_condition(part)


def _may_give(node: ast.expr) -> list[ast.expr]:
    """The expressions of which one is the value of another."""
    if isinstance(node, ast.BoolOp):
        return node.values
    return [node.body, node.orelse] if isinstance(node, ast.IfExp) else []


def without_assignments(function: Function, node: ast.expr) -> tuple[ast.expr, list[ast.expr]]:
    """An operand that may not be evaluated, with calls in the place of `:=`: it becomes a function itself.

    Returns what the runtime is told of the variables: their names, then functions that have them.
    """
    node = _Assignments(function).visit(node)
    setters = dict.fromkeys(
        n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in function.set_by
    )
    variables = list(dict.fromkeys(function.set_by[n] for n in setters))
    return node, [strings(variables), *map(name, setters)] if setters else []


class _Assignments(ast.NodeTransformer):
    """`(v := x)` as a call of a function that assigns it, defined before the statement."""

    def __init__(self, function: Function) -> None:
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


class Expressions(ast.NodeTransformer):
    """Boolean operators, comparisons, calls, subscripts and comprehensions as calls of the runtime."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.raises = False  # whether this is an error that is raised

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

    def as_asked(self, node: ast.expr) -> ast.expr:
        """What an expression may give, rewritten: as a condition where only its truth is asked, so that the
        sides of a branch need no other common form.
        """
        is_truth = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        made = self.visited(node)
        return made if is_truth or _may_give(node) or not hasattr(node, _ASKED) else call("truth_now", made)

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        for test in node.ifs:
            mark_condition(test)
        self.generic_visit(node)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        mark_condition(node.test)
        node.test = self.visited(node.test)
        node.body, node.orelse = map(self.as_asked, (node.body, node.orelse))
        sides, assigned = without_assignments(self.function, ast.Tuple([node.body, node.orelse], ast.Load()))
        assert isinstance(sides, ast.Tuple)
        node.body, node.orelse = sides.elts
        return call("choose", node.test, thunk(node.body), thunk(node.orelse), *assigned)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        node.values = [self.as_asked(v) for v in node.values]
        later, assigned = without_assignments(self.function, ast.Tuple(node.values[1:], ast.Load()))
        assert isinstance(later, ast.Tuple)
        node.values[1:] = later.elts
        *first, whole = node.values
        for value in reversed(first):
            operator = "both" if isinstance(node.op, ast.And) else "either"
            whole = call(operator, value, thunk(whole), *assigned)
        return whole

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Mult) and isinstance(node.left, ast.List):
            return call("times", node.left, node.right)
        if isinstance(node.op, ast.Mult) and isinstance(node.right, ast.List):
            return call("times", node.right, node.left)
        text = isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
        if self.raises and text and isinstance(node.op, ast.Mod):
            return call("told_in", node.left, node.right)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.Not):
            mark_condition(node.operand)
        self.generic_visit(node)
        return call("opposite", node.operand) if isinstance(node.op, ast.Not) else node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        values = [node.left, *node.comparators]
        if len(node.ops) == 1:
            return self.comparison(values[0], node.ops[0], values[1])
        # Each operand is evaluated once, and none behind a comparison that does not hold, as Python does.
        names = [f"_ingot_operand{i}" for i in range(len(values))]
        later, assigned = without_assignments(self.function, ast.Tuple(values[2:], ast.Load()))
        assert isinstance(later, ast.Tuple)
        parts = [
            self.comparison(name(a), op, name(b))
            for a, op, b in zip(names, node.ops, names[1:], strict=False)
        ]
        whole = parts.pop()
        for operand, value in zip(reversed(names[2:]), reversed(later.elts), strict=True):
            rest = ast.Call(thunk(whole, operand), [value], [])
            whole = call("both", parts.pop(), thunk(rest), *assigned)
        return ast.Call(thunk(whole, *names[:2]), values[:2], [])

    def comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> ast.expr:
        if isinstance(op, ast.Is):
            return call("same", left, right)
        if isinstance(op, ast.IsNot):
            return call("opposite", call("same", left, right))
        if isinstance(op, ast.In):
            return call("contains", right, left)
        if isinstance(op, ast.NotIn):
            return call("opposite", call("contains", right, left))
        if isinstance(op, ast.Eq):
            return call("equal", left, right)
        if isinstance(op, ast.NotEq):
            return call("unequal", left, right)
        return ast.Compare(left, [op], [right])

    def visited(self, node: ast.expr) -> ast.expr:
        """An operand, rewritten."""
        made = self.visit(node)
        assert isinstance(made, ast.expr)
        return made

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if self.raises and called == "format" and isinstance(getattr(node.func, "value", None), ast.Constant):
            self.generic_visit(node)
            node.args = [v if isinstance(v, ast.Starred) else call("told", v) for v in node.args]
            for keyword in node.keywords:
                keyword.value = call("told", keyword.value)
            return node
        if called in _SHOWING:
            made = self.shown(node)
            if made is not None:
                return made
        if isinstance(node.func, ast.Name) and called == "next" and node.args and not node.keywords:
            made = self.first_of(node.func, node.args[0], node.args[1:])
            if made is not None:
                return made
        if isinstance(node.func, ast.Name) and called == "getattr" and len(node.args) == 2:
            parts = _parts_of_name(node.args[1])
            if parts is not None:
                return call("attribute_named", *map(self.visited, (node.func, node.args[0], *parts)))
        found = node.args[0] if node.args else None
        alone = len(node.args) == 1 and not node.keywords
        if isinstance(found, ast.GeneratorExp) and (alone or goes_through(node.func)):
            stops = isinstance(node.func, ast.Name) and called in ("any", "all", "next")
            made = self.quantified(node.func, found) if stops and alone and called != "next" else None
            if made is not None:
                return made
            if not stops and not is_late(found):
                all_of = ast.copy_location(ast.ListComp(found.elt, found.generators), found)
                node.args = [all_of, *node.args[1:]]
        for argument in (*node.args, *(k.value for k in node.keywords)):
            mark_lists(argument)
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
            return call("call_spread", node.func, node.args[0].value)
        return ast.Call(runtime("call"), [node.func, *node.args], node.keywords)

    def shown(self, node: ast.Call) -> ast.AST | None:
        """A call of what shows its arguments, as it is and rewritten: the called function says which is
        meant. None where it has to be rewritten.
        """
        asked = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)
        given = [*node.args, *(k.value for k in node.keywords)]
        inside = [n for v in given for n in ast.walk(v)]
        if any(isinstance(n, asked) or getattr(n, "id", "") in ("super", "locals") for n in inside):
            return None
        function = "_ingot_function"
        plain = ast.Call(name(function), copy.deepcopy(node.args), copy.deepcopy(node.keywords))
        staged = self.visit_Call(ast.copy_location(ast.Call(name(function), node.args, node.keywords), node))
        assert isinstance(staged, ast.expr)
        return call(
            "shown", self.visited(node.func), thunk(plain, function, RUNTIME), thunk(staged, function)
        )

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        self.raises = True
        return self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        self.generic_visit(node)
        parts = [v for v in node.values if isinstance(v, ast.FormattedValue)]
        values, names = [v.value for v in parts], [f"_ingot_part{i}" for i in range(len(parts))]
        for v, n in zip(parts, names, strict=True):
            v.value = ast.copy_location(name(n), v)
        return call("formatted", thunk(node, *names), *values)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        node.value = call("told" if self.raises else "text", self.function.expression(node.value))
        if node.format_spec is not None:  # which stays a string with values in it
            self.generic_visit(node.format_spec)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        parts = _parts_of_name(node.slice) if isinstance(node.ctx, ast.Load) else None
        if parts is not None:
            return call("item_named", *map(self.visited, (node.value, *parts)))
        self.generic_visit(node)
        if not isinstance(node.ctx, ast.Load) or isinstance(node.slice, ast.Constant):
            return node
        return call("item", node.value, slice_value(node.slice))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        asked = node.attr == "__class__" and isinstance(node.ctx, ast.Load)
        return call("class_of", node.value) if asked else node

    def visit_List(self, node: ast.List) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load) and any(isinstance(v, ast.Starred) for v in node.elts):
            stars = [isinstance(v, ast.Starred) for v in node.elts]
            parts = [v.value if isinstance(v, ast.Starred) else v for v in node.elts]
            return call("spread", ast.Tuple([ast.Constant(s) for s in stars], ast.Load()), *parts)
        made = getattr(node, _MADE, None)
        return call(made, node) if made is not None else node

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        self.generic_visit(node)
        stars = [key is None for key in node.keys]
        if not any(stars):
            return call("new_dict", node)
        parts: list[ast.expr] = [
            value if key is None else ast.Tuple([key, value], ast.Load())
            for key, value in zip(node.keys, node.values, strict=True)
        ]
        return call("spread_dict", ast.Tuple([ast.Constant(s) for s in stars], ast.Load()), *parts)

    def visit_Set(self, node: ast.Set) -> ast.AST:
        self.generic_visit(node)
        starred = any(isinstance(v, ast.Starred) for v in node.elts)
        return node if starred else call("set_of", ast.Tuple(node.elts, ast.Load()))

    def visit_SetComp(self, node: ast.SetComp) -> ast.AST:
        listed = ast.copy_location(ast.ListComp(node.elt, node.generators), node)
        return call("set_of", self.visited(listed))

    def visit_DictComp(self, node: ast.DictComp) -> ast.AST:
        pair = ast.copy_location(ast.Tuple([node.key, node.value], ast.Load()), node)
        listed = ast.copy_location(ast.ListComp(pair, node.generators), node)
        return call("dict_of", self.visited(listed))

    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        shares = shares_its_variables(node)  # before functions of the runtime's are in it
        self.generic_visit(node)
        made = node if shares else self.comprehension(node, "list_of", "gathered")
        return call("new_list", node) if made is node and hasattr(node, _MADE) else made

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.AST:
        self.generic_visit(node)
        return call("late", node) if is_late(node) else node

    def first_of(self, called: ast.Name, node: ast.expr, default: Sequence[ast.expr]) -> ast.AST | None:
        """`next(… for …)`: the first element that there is, or the default. None: it is no such call."""
        if not isinstance(node, ast.GeneratorExp):
            return None
        made = self.as_far(called, node, "first_of", "first_in")
        if made is not None:
            made.args += [thunk(self.function.expression(d)) for d in default]
        return made

    def quantified(self, called: ast.expr, node: ast.GeneratorExp) -> ast.AST | None:
        """`any(… for …)` or `all(…)`; None: it has no such form."""
        first, *others = node.generators
        if others:  # any of each is any of all
            inner = ast.copy_location(ast.GeneratorExp(node.elt, others), node)
            each = ast.copy_location(ast.Call(copy.deepcopy(called), [inner], []), node)
            node = ast.copy_location(ast.GeneratorExp(each, [first]), node)
        function = "nested" if others else "quantified"
        return self.as_far(called, node, function, function)

    def as_far(
        self, called: ast.expr, node: ast.GeneratorExp, function: str, several: str
    ) -> ast.Call | None:
        """A call that goes through a generator only as far as it must; None: it has no such form."""
        all_of = ast.copy_location(ast.ListComp(node.elt, node.generators), node)
        kept = ast.Constant(isinstance(node.generators[0].iter, (ast.Name, ast.Attribute, ast.Subscript)))
        if shares_its_variables(all_of) or any(isinstance(n, ast.NamedExpr) for n in ast.walk(all_of)):
            return None
        self.generic_visit(all_of)
        made = self.comprehension(all_of, function, several)
        if not isinstance(made, ast.Call):
            return None
        made.args = [called, kept, *made.args]
        return made

    def comprehension(self, node: ast.ListComp, function: str, several: str) -> ast.AST:
        """A list that the runtime makes, which may find that its length is not known: by a `function` of the
        runtime where it has one loop, else by one for `several`.
        """
        written = {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}
        if any(g.is_async for g in node.generators) or not self.function.can_set(written):
            return node
        tests = [t for g in node.generators for t in g.ifs]
        parts, assigned = without_assignments(self.function, ast.Tuple([node.elt, *tests], ast.Load()))
        assert isinstance(parts, ast.Tuple)
        element, *tests = parts.elts
        rest = iter(tests)
        loops = [(g.target, g.iter, [next(rest) for _ in g.ifs]) for g in node.generators]
        if len(loops) == 1:
            return call(function, *_loop(*loops[0], element), *assigned)
        whole: ast.expr = ast.Call(name(_GIVE), [element], [])
        for loop in reversed(loops):
            whole = ast.Call(name(_OVER), _loop(*loop, whole), [])
        return call(several, thunk(whole, _OVER, _GIVE), *assigned)


def _loop(target: ast.expr, items: ast.expr, tests: Sequence[ast.expr], body: ast.expr) -> list[ast.expr]:
    """One loop of a comprehension: what it goes through, what it does with each, what must hold of it."""
    return [items, _per_item(target, body), ast.List([_per_item(target, t) for t in tests], ast.Load())]


def _per_item(target: ast.expr, body: ast.expr) -> ast.expr:
    """An expression as a function of what a loop gives."""
    if isinstance(target, ast.Name):
        return thunk(body, target.id)
    targets = list(dict.fromkeys(n.id for n in ast.walk(target) if isinstance(n, ast.Name)))
    unpack = ast.ListComp(
        _tuple_of(targets),
        [ast.comprehension(target, ast.List([name("_ingot_item")], ast.Load()), [], 0)],
    )
    first = ast.Subscript(unpack, ast.Constant(0), ast.Load())
    return thunk(ast.Call(thunk(body, *targets), [ast.Starred(first, ast.Load())], []), "_ingot_item")


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
