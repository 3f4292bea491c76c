"""Flags instead of jumps: functions without `return`, `break` and `continue` compute what they did before."""

from __future__ import annotations

import ast
import itertools
import linecache
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import torch

from ingot.capture import rewrite, sources
from ingot.capture.attempt import capture
from ingot.capture.flags import without_jumps
from ingot.capture.rewrite import Key, keys_in, rewritten
from ingot.capture.sources import codes_in
from ingot.errors import ExportError
from tests.capture.support import op_types, parity

SOURCES = {
    "nested returns": """
        def f(a, b):
            if a:
                if b:
                    return 1
                a = 5
            elif b:
                return 2
            if a == 5:
                return a
            return 9
    """,
    "loop": """
        def f(a, b):
            total = 0
            for i in range(6):
                if i == b:
                    continue
                if i == a:
                    break
                if i * a == 8:
                    return total, i
                total += i
            else:
                total += 100
            return total
    """,
    "nested loops": """
        def f(a, b):
            out = []
            for i in range(4):
                for j in range(4):
                    if j == a:
                        break
                    if i == b:
                        continue
                    if i + j == 5:
                        return out
                    out.append((i, j))
                else:
                    out.append(i)
                    continue
                if i == 2:
                    break
            return out, 1
    """,
    "while": """
        def f(a, b):
            n = 0
            while True:
                n += 1
                if n > a:
                    break
                with_b = n * b
                if with_b > 6:
                    return with_b
            return n
    """,
    "loops whose end returns": """
        def f(a, b):
            if a > 2:
                for i in range(b):
                    if i * a == 6:
                        return i
                else:
                    return -1
            while a < 2:
                a += 1
                for i in range(b):
                    if i == a:
                        break
                else:
                    continue
                if a + b == 4:
                    return a, b
            else:
                return b
    """,
    "falls off the end": """
        def f(a, b):
            if a > b:
                return a
            b += 1
    """,
    "try": """
        def f(a, b):
            out = []
            for i in range(3):
                try:
                    if i == a:
                        continue
                    if i == b:
                        return out
                    out.append(1 // (i - 1))
                except ZeroDivisionError:
                    out.append("zero")
                finally:
                    out.append("end")
            return out
    """,
    "try with else": """
        def f(a, b):
            out = []
            for i in range(4):
                try:
                    if i == a:
                        continue
                    if i == b:
                        break
                    if i * a == 2:
                        return out, i
                    out.append(1 // (i - 1))
                except ZeroDivisionError:
                    out.append("zero")
                else:
                    out.append("else")
                    if i + b == 4:
                        return out
                finally:
                    out.append("end")
            return out
    """,
    "match": """
        def f(a, b):
            match a:
                case 0:
                    return b
                case 1:
                    b += 1
                case _:
                    if b:
                        return -b
            return b * 10
    """,
}


class _Runtime:
    """Stands for the runtime where every value is known."""

    @staticmethod
    def none_of(*flags: bool) -> bool:
        return not any(flags)


class _Stopped(ast.NodeTransformer):
    """Loops stop at their flags, as the runtime sees to."""

    def visit_For(self, node: ast.For) -> ast.AST:
        return self._stopped(node)

    def visit_While(self, node: ast.While) -> ast.AST:
        return self._stopped(node)

    def _stopped(self, node: Any) -> ast.AST:
        self.generic_visit(node)
        stops = getattr(node, "stops", [])
        if stops:
            test = ast.parse(f"if {' or '.join(stops)}: break").body
            node.body = [*test, *node.body]
        return node


def _function(tree: ast.Module) -> Callable[..., Any]:
    space: dict[str, Any] = {"_ingot": _Runtime}
    exec(compile(ast.fix_missing_locations(tree), "f", "exec"), space)
    return space["f"]


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_function_without_jumps_is_the_same_function(source: str) -> None:
    """For every pair of small arguments, and with one return at the most."""
    text = textwrap.dedent(source)
    plain = _function(ast.parse(text))
    tree = ast.parse(text)
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    function.body = without_jumps(function)
    jumps = [n for n in ast.walk(function) if isinstance(n, (ast.Return, ast.Break, ast.Continue))]
    assert len(jumps) <= 1
    flagged = _function(_Stopped().visit(tree))
    for a, b in itertools.product(range(-1, 5), repeat=2):
        assert flagged(a, b) == plain(a, b), (a, b, ast.unparse(tree))


def test_many_early_returns_stay_as_long_as_they_were() -> None:
    """Each statement is there once."""
    lines = [
        f"    if a == {i}:\n        b += {i}\n        if b == 7:\n            return {i}" for i in range(40)
    ]
    tree = ast.parse("def f(a, b):\n" + "\n".join(lines) + "\n    return a")
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    before = sum(1 for _ in ast.walk(function))
    function.body = without_jumps(function)
    assert sum(1 for _ in ast.walk(function)) < 3 * before


def halved(x: torch.Tensor, times: int) -> torch.Tensor:
    if times == 0:
        return x
    if x.sum() > 4:
        x = x / 2
    return halved(x, times - 1)


def test_a_function_of_the_module_that_calls_itself() -> None:
    """It finds itself by its name in the module, also once it is rewritten."""
    parity(lambda x: halved(x, 3), (torch.ones(2, 3),), (torch.ones(4, 9),), (-torch.ones(1, 2),))


class Feed(torch.nn.Module):
    """Has a method of that name."""

    def next(self, items: Any, scale: int = 1) -> Any:
        """All of them."""
        return scale * sum(items)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both ways to call it, in a function that data makes rewritten."""
        y = x if x.sum() > 0 else -x
        return y * self.next(k for k in (1, 2, 3)) + self.next((k for k in (1, 2)), 10)


def own_next(x: torch.Tensor) -> torch.Tensor:
    def next(items: Any, otherwise: int = 0) -> Any:
        return max([*items, otherwise])

    y = x if x.sum() > 0 else -x
    return y * next(k for k in (1, 2, 3)) + next((k for k in (1, 2)), 7)


@pytest.mark.parametrize("model", [Feed(), own_next], ids=["method", "function"])
def test_next_is_what_the_model_names_so(model: Any) -> None:
    """Only Python's own takes the first."""
    parity(model, (torch.ones(2, 3),), (-torch.ones(4, 3),))


def _marked_twice(x: torch.Tensor) -> torch.Tensor:
    def inner(y: torch.Tensor) -> torch.Tensor:
        return y + 1 if y.sum() > 0 else y

    return inner(x) if x.sum() > 0 else x


def test_a_file_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of its functions are rewritten; and what is rewritten is a copy."""
    parsed: list[str] = []
    parse = ast.parse

    def counted(source: str, *args: Any, **kwargs: Any) -> Any:
        parsed.append(source)
        return parse(source, *args, **kwargs)

    outer = _marked_twice.__code__
    marks = [(Key.of(code),) for code in codes_in(outer) if code.co_name in ("inner", "_marked_twice")]
    again = rewrite._rewritten.__wrapped__
    rewrite._functions_of.cache_clear()
    sources.parsed.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(ast, "parse", counted)
        first, *rest = [again(outer, mark, ()) for mark in (*marks, *marks)]
    whole = parsed.count(Path(__file__).read_text())
    assert whole == 1, f"{whole} times"
    assert len(marks) == 2
    assert [_code(c) for c in (first, rest[0])] == [_code(c) for c in rest[1:]], "the kept tree was changed"
    assert _code(first) != _code(rest[0])


def test_a_function_is_rewritten_once() -> None:
    """Whoever asks, in whatever order the marks were found, and whatever else is marked."""
    outer = _marked_twice.__code__
    marks = list(keys_in(outer))
    other = Key.of(halved.__code__)
    once = rewritten(outer, marks)
    for again in (marks[::-1], {*marks, other}, (other, *marks)):
        assert rewritten(outer, again, {other}) is once, again
    assert rewritten(outer, marks, marks) is not once
    assert rewritten(outer, marks[:1]) is not once


def _code(code: CodeType) -> list[Any]:
    return [(c.co_code, c.co_names) for c in codes_in(code)]


def _made(path: Path, source: str) -> Any:
    """What a file defines that says this, as long as it does."""
    path.write_text(source)
    linecache.checkcache(str(path))
    made: dict[str, Any] = {}
    exec(compile(source, str(path), "exec"), made)
    return made


SCALED = """
def scaled(x):
    if x.sum() > 0:
        return x * {}
    return x
"""


def test_source_that_was_changed_is_not_taken(tmp_path: Path) -> None:
    """What stands at a function's line must be what it was made of; another's may be alive beside it."""
    before = _made(tmp_path / "model.py", SCALED.format(2))["scaled"]
    after = _made(tmp_path / "model.py", SCALED.format(3))["scaled"]
    with pytest.raises(
        ExportError, match=r"model\.py:2: scaled depends on data, .* is not what it was made of"
    ):
        capture(before, (torch.ones(3),))
    parity(after, (torch.ones(3),), (-torch.ones(4),))
    assert "If" in op_types(capture(after, (torch.ones(3),)))


def test_exec_under_the_place_of_another(tmp_path: Path) -> None:
    """Of two functions of one place the one whose source it is is rewritten, and no other."""
    path = tmp_path / "model.py"
    own = _made(path, SCALED.format(2))
    other: dict[str, Any] = {}
    exec(compile(SCALED.format(5), str(path), "exec"), other)
    with pytest.raises(ExportError, match="is not what it was made of"):
        capture(lambda x: own["scaled"](x) + other["scaled"](x), (torch.ones(3),))


def test_exec_under_the_place_of_a_branch_on_sizes(tmp_path: Path) -> None:
    """Where the source is not known a branch on sizes goes the example's way, and says so."""
    path = tmp_path / "model.py"
    source = "def scaled(x):\n    return x * {} if x.shape[0] > 2 else x\n"
    _made(path, source.format(2))
    other: dict[str, Any] = {}
    exec(compile(source.format(5), str(path), "exec"), other)
    captured = parity(other["scaled"], (torch.ones(3),), (torch.ones(4),))
    assert [(a.kind, a.status) for a in captured.assumptions] == [("branch", "checked")]
