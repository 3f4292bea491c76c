"""Whether the source that is found for a function is what its code was made of: files change while a process
runs, and `exec` gives code any file and line.
"""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType
from weakref import WeakSet

from ingot.errors import ExportError

AROUND = "_ingot_around"  # the function that rewritten code is compiled in: names of all code inside say so
MADE = WeakSet[CodeType]()  # of functions that were rewritten
FUTURE = 0x1FE0000  # co_flags that `from __future__` sets


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """The code and every code object inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


def text_of(file: str) -> str:
    """What a file says, as Python shows its lines; empty where there is none."""
    return "".join(linecache.getlines(file))


@functools.lru_cache(maxsize=8)  # a model asks for many functions of a few files
def parsed(source: str) -> ast.Module:
    """A file's tree, not to be changed."""
    return ast.parse(source)


def is_source_of(code: CodeType) -> bool:
    """Whether the file that code names says, at its line, what the code does.

    Code that a test runner has put its own `assert` into is taken for that.
    """
    if is_part(code) or code in MADE:
        return True
    if any("@" in name for c in codes_in(code) for name in c.co_varnames):
        return True  # names that no source can have
    try:
        made = _compiled(text_of(code.co_filename), code.co_filename, code.co_flags & FUTURE)
    except (SyntaxError, ValueError):
        return False
    return code in made.get((code.co_firstlineno, code.co_name), ())


def require_source(code: CodeType) -> None:
    """Raise an ExportError for code of which the source is not known."""
    if not is_source_of(code):
        raise ExportError(
            f"{code.co_filename}:{code.co_firstlineno}: {code.co_qualname} depends on data, or asks what a "
            "number is, and what stands there is not what it was made of: the file was changed since it was "
            "imported, or exec or another tool has made the function. Start Python again, or write the "
            "function in a file."
        )


def is_part(code: CodeType) -> bool:
    """Whether code is inside that of a function that was rewritten."""
    return code.co_qualname.startswith(f"{AROUND}.")


@functools.lru_cache(maxsize=8)
def _compiled(source: str, file: str, flags: int) -> Mapping[tuple[int, str], Sequence[CodeType]]:
    """The code of a file by first line and name; a line may hold several lambdas."""
    found: dict[tuple[int, str], list[CodeType]] = {}
    for code in codes_in(compile(parsed(source), file, "exec", flags=flags, dont_inherit=True)):
        found.setdefault((code.co_firstlineno, code.co_name), []).append(code)
    return found
