"""A function's code with control flow as calls of the runtime (`stage`), so that capture sees both sides.

`if`, `while` and `for` become functions for their blocks, which share the variables of the function around
them through its cells; `and`, `or`, `not`, ternaries, comparisons in a row, comprehensions and calls become
calls. What a call finds to be plain Python it runs as Python does. Line numbers stay.
"""

from __future__ import annotations

import ast
import copy
import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType

from ingot.capture.names import COMPREHENSIONS, walk_scope
from ingot.capture.sources import AROUND, FUTURE, MADE, codes_in, parsed, require_source, text_of
from ingot.capture.statements import Function
from ingot.errors import ExportError

_COMPREHENSION_NAMES = {
    "<listcomp>": ast.ListComp,
    "<genexpr>": ast.GeneratorExp,
    "<setcomp>": ast.SetComp,
    "<dictcomp>": ast.DictComp,
}


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


def keys_in(code: CodeType) -> tuple[Key, ...]:
    """The keys of the code and of every code object inside it."""
    return _keys_in(code, code.co_filename)


@functools.lru_cache(maxsize=4096)  # each recording asks for those of whole files
def _keys_in(code: CodeType, file: str) -> tuple[Key, ...]:
    """file: the code's, which its equality leaves out"""
    del file
    return tuple(map(Key.of, codes_in(code)))


def rewritten(code: CodeType, marks: Collection[Key], apart: Collection[Key] = ()) -> CodeType:
    """`code`, that of a whole function, with the marked functions in it (or itself) rewritten.

    apart: those of them whose whole body the runtime may run again

    Raises:
        ExportError: when there is no source, or another function's, or it holds something that has no
            staged form.
    """
    inside = keys_in(code)
    return _rewritten(code, *(tuple(k for k in inside if k in some) for some in (marks, apart)))


@functools.lru_cache(maxsize=2048)  # each recording of an export asks again, some for all code
def _rewritten(code: CodeType, marks: tuple[Key, ...], apart: tuple[Key, ...]) -> CodeType:
    """marks, apart: of the code, which say its file too, in the order of `keys_in`"""
    file = code.co_filename
    try:
        functions = _functions_of(text_of(file))
    except SyntaxError as error:  # no Python source at all
        raise ExportError(f"{file}: the source of {code.co_qualname} cannot be read: {error}") from error
    root = copy.deepcopy(_find(functions, code, file))
    require_source(code)
    around = _marked(root, apart)
    for node in _marked(root, marks):
        Function(node, file).rewrite(node in around)
    return _compiled(root, code)


def _first_line(node: ast.AST) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([getattr(node, "lineno", 0), *[d.lineno for d in decorators]])


def _name_of(node: ast.AST) -> str:
    return getattr(node, "name", "<lambda>")


@functools.lru_cache(maxsize=8)  # a model asks for many functions of a few files
def _functions_of(source: str) -> dict[tuple[int, str], list[ast.FunctionDef | ast.Lambda]]:
    """The functions of a file, not to be changed, by first line and name; a line may hold several lambdas."""
    found: dict[tuple[int, str], list[ast.FunctionDef | ast.Lambda]] = {}
    for node in ast.walk(parsed(source)):
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            found.setdefault((_first_line(node), _name_of(node)), []).append(node)
    return found


def _find(
    functions: Mapping[tuple[int, str], Sequence[ast.FunctionDef | ast.Lambda]], code: CodeType, file: str
) -> ast.FunctionDef | ast.Lambda:
    key = Key.of(code)
    found = functions.get((key.line, key.name), ())
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
    made = compile(module, file, "exec", flags=code.co_flags & FUTURE, dont_inherit=True)
    line = code.co_firstlineno
    hits = [c for c in codes_in(made) if c.co_name == code.co_name and c.co_firstlineno == line]
    new = _as_made(hits[0]).replace(co_qualname=code.co_qualname)
    MADE.add(new)
    if new.co_freevars != code.co_freevars:
        raise ExportError(
            f"{file}:{line}: {code.co_qualname} depends on data, and rewriting it changed the variables "
            f"it takes from outside: {code.co_freevars} became {new.co_freevars}."
        )
    return new


def _as_made(code: CodeType) -> CodeType:
    """The code with names that say of all code inside that it was rewritten."""
    inside = tuple(_as_made(c) if isinstance(c, CodeType) else c for c in code.co_consts)
    found = code.co_qualname
    whole = found if found.startswith(f"{AROUND}.") else f"{AROUND}.<locals>.{found}"
    return code.replace(co_consts=inside, co_qualname=whole)
