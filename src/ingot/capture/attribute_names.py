"""Which globals code names, and which attributes it may read, by the names that stand in it."""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import dis
import functools
from collections.abc import Sequence
from types import CodeType
from typing import Any

ANY = "__dict__"  # among the names where it may be any attribute
_BY_NAME = ("getattr", "hasattr")
#: What reads attributes of names that it is given, or of all.
_OTHERS = frozenset(
    ("vars", "dir", "eval", "exec", "attrgetter", "getattr_static", "getmembers", "__getattribute__")
)
_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))


@functools.lru_cache(maxsize=4096)
def attributes_in(code: CodeType) -> frozenset[str]:
    """Attributes that code may read: by name, or by one of its strings; ANY where it may be any."""
    steps = list(dis.get_instructions(code))
    own = {str(i.argval) for i in steps if i.opname in ("LOAD_ATTR", "LOAD_METHOD")}
    makes_names = any(i.argval in _BY_NAME and not _is_spelt_out(steps, at) for at, i in enumerate(steps))
    if makes_names or not _OTHERS.isdisjoint(code.co_names):
        own.add(ANY)
    return frozenset(own.union(*map(_attributes_of, code.co_consts)))


def _attributes_of(constant: Any) -> frozenset[str]:
    if isinstance(constant, CodeType):
        return attributes_in(constant)
    parts = constant if isinstance(constant, (tuple, frozenset)) else (constant,)
    return frozenset(v for v in parts if isinstance(v, str))


def _is_spelt_out(steps: Sequence[dis.Instruction], at: int) -> bool:
    """Whether code that loads `getattr` at a step calls it with a name that stands there, or for `self`: a
    module's methods are no tensor's. In code that is rewritten the runtime calls it.
    """
    load, rest = steps[at], steps[at + 1 :]
    if load.opname != "LOAD_GLOBAL":
        return False
    by_runtime = not (load.arg or 0) & 1  # a NULL comes with what is called at once
    if by_runtime and steps[at - 1].argval not in ("call", "attribute_named"):
        return False
    depth = int(by_runtime)
    last = {depth: -1}  # the last step after which so many arguments stand on the stack
    for n, step in enumerate(rest):
        if step.opname in ("PRECALL", "CALL") and depth == step.arg:
            break
        if step.opcode in _JUMPS or step.opname == "CALL_FUNCTION_EX":
            return False
        depth += dis.stack_effect(step.opcode, step.arg)
        last[depth] = n
    first, second = (last.get(int(by_runtime) + n, 0) for n in (1, 2))
    if first == 0 and rest[0].argval in ("self", "cls"):
        return True
    return (
        second == first + 1 and isinstance(rest[second].argval, str) and rest[second].opname == "LOAD_CONST"
    )


@functools.lru_cache(maxsize=4096)
def names_in(code: CodeType) -> tuple[str, ...]:
    """Globals and attributes that code names, the functions in it included."""
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return tuple(sorted(set(code.co_names).union(*(names_in(c) for c in inner))))


@functools.lru_cache(maxsize=4096)
def globals_in(code: CodeType) -> frozenset[str]:
    """Globals alone."""
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    own = {str(i.argval) for i in dis.get_instructions(code) if i.opname.endswith(("_GLOBAL", "_NAME"))}
    return frozenset(own.union(*(globals_in(c) for c in inner)))
