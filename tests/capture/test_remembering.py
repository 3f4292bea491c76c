"""What SymPy remembers while a model is recorded, and afterwards."""

from __future__ import annotations

from typing import Any

import sympy
from sympy.core import cache

from ingot.capture.remembering import formulas_remembered


def results() -> list[int]:
    """How many results each function of SymPy's remembers at most, as it says itself."""
    return [sum(function.cache_info()[2:3]) for function in cache.CACHE]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def test_sympy_has_its_own_memory_again_afterwards() -> None:
    """Also where one recording goes on inside of another."""
    before = results()
    with formulas_remembered():
        with formulas_remembered():
            within = results()
        assert results() == within
    assert all(now > then for now, then in zip(within, before, strict=True) if then)
    assert results() == before


def test_what_sympy_is_made_to_forget_it_forgets_for_good() -> None:
    """torch's formulas are mended while the first model is recorded: none from before may be left."""

    class Half(sympy.Function):
        rule: Any = staticmethod(lambda n: n / 2)

        @classmethod
        def eval(cls, n: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return cls.rule(n)

    n: Any = sympy.Symbol("n")
    assert Half(n) == n / 2
    with formulas_remembered():
        assert Half(n) == n / 2
        Half.rule = staticmethod(lambda n: n / 4)
        cache.clear_cache()  # pyright: ignore[reportUnknownMemberType]
        assert Half(n) == n / 4
    assert Half(n) == n / 4
    Half.rule = staticmethod(lambda n: n / 8)
    cache.clear_cache()  # pyright: ignore[reportUnknownMemberType]
    with formulas_remembered():
        assert Half(n) == n / 8
