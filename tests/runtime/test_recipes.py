"""When a recipe is made for the sizes of a graph's inputs, and when the whole is planned."""

from __future__ import annotations

from typing import cast

import pytest

from ingot.compiler.recipe import Recipe
from ingot.runtime.recipes import MOST_TRIES, USES, Recipes


class _Kind:
    """Stands for a recipe that holds for sizes with the same last digit as those that it was made for."""

    def __init__(self, size: int) -> None:
        self._kind = size % 10

    def lowered(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[None, None] | None:
        return (None, None) if shapes[0][0] % 10 == self._kind else None

    def steps(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        del shapes


def course(sizes: list[int]) -> tuple[list[bool], list[int]]:
    """Whether a recipe held for each size, and the sizes for which one was made."""
    recipes, held, made = Recipes(), list[bool](), list[int]()
    for size in sizes:

        def make(free: list[tuple[int, int]], size: int = size) -> Recipe:
            assert free == [(0, 0)]
            made.append(size)
            return cast(Recipe, _Kind(size))

        held.append(recipes.find(((size,),)) is not None)
        if not held[-1]:
            recipes.missed(((size,),), make)
    return held, made


@pytest.mark.parametrize(
    ("sizes", "made"),
    [
        ([10, 20, 30, 40], [30]),  # the first two have none
        ([10, 20, 30, 40, 11, 12, 21, 12], [30, 11, 12]),  # one was of use: the next kind has its own at once
        ([10, 20, 30, 11, 12, 13, 14], [30, 13]),  # of no use so far
    ],
)
def test_the_next_recipe_is_made_at_once_where_the_last_one_was_of_use(
    sizes: list[int], made: list[int]
) -> None:
    assert course(sizes)[1] == made


def test_recipes_are_earned_by_their_use() -> None:
    """Sizes of which few are of a kind that came before."""
    held, made = course([number * 7 % 1009 for number in range(1, 200)])
    assert len(made) <= MOST_TRIES + sum(held) // USES
