"""When a graph is planned by a recipe (`compiler/recipe.py`) instead of anew, and when a recipe is made.

A recipe takes as long as several plans, so the first sets of sizes have none. It is for the sizes that were
seen to change, and holds for others as long as its conditions do: a graph may need a few. Where the last one
was of use, the next one is made for the first sizes that want it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ingot.compiler.recipe import Recipe, Results, Shapes
from ingot.compiler.steps import Lowered

#: Recipes kept for inputs of the same ranks.
MOST_RECIPES = 16
#: Plans without a recipe before one is made, where the last one was of no use; more where many were made.
FIRST_WAIT, PART_OF_MADE = 2, 4
#: So many are made without being used; each further one is earned by so many uses, which save what it takes.
MOST_TRIES, USES = 6, 8


@dataclass(slots=True)
class _Family:
    """Inputs of the same ranks. met: the first shapes. varied: inputs and axes that had other sizes since.
    recipes: the one that was used last comes first. made: how often one was tried for. used: plans by one;
    used_before: when one was made last. missed: plans since then without one.
    """

    met: Shapes
    varied: dict[tuple[int, int], None] = field(default_factory=dict[tuple[int, int], None])
    recipes: list[Recipe] = field(default_factory=list[Recipe])
    made: int = 0
    used: int = 0
    used_before: int = 0
    missed: int = 0


class Recipes:
    """The recipes of one graph. One thread at a time."""

    def __init__(self) -> None:
        self._families: dict[tuple[int, ...], _Family] = {}

    def find(self, shapes: Shapes) -> tuple[Recipe, Lowered, Results] | None:
        """The recipe that holds for these shapes, if any, its steps, and what is known of the results."""
        family = self._families.get(tuple(map(len, shapes)))
        for number, recipe in enumerate([] if family is None else family.recipes):
            found = recipe.lowered(shapes)
            if found is not None:
                assert family is not None
                family.recipes.insert(0, family.recipes.pop(number))
                family.used += 1
                return recipe, *found
        return None

    def missed(self, shapes: Shapes, make: Callable[[list[tuple[int, int]]], Recipe | None]) -> None:
        """A plan was made for these shapes; so is a recipe, if it is time for one. make: makes it for sizes
        that vary, None if it cannot be.
        """
        family = self._families.setdefault(tuple(map(len, shapes)), _Family(shapes))
        if family.made >= MOST_TRIES + family.used // USES:
            return
        for number, (old, new) in enumerate(zip(family.met, shapes, strict=True)):
            for axis in [axis for axis, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]:
                family.varied[number, axis] = None
        is_of_use = family.used > family.used_before
        if family.varied and (is_of_use or family.missed >= max(FIRST_WAIT, family.made // PART_OF_MADE)):
            free = sorted(family.varied)
            recipe = make(free)
            if recipe is None:  # what has size 1 may be repeated where others are not
                more = [(number, axis) for number, axis in free if shapes[number][axis] != 1]
                recipe = make(more) if 0 < len(more) < len(free) else None
            if recipe is not None:
                family.recipes.insert(0, recipe)
                del family.recipes[MOST_RECIPES:]
            family.made, family.missed, family.used_before = family.made + 1, 0, family.used
        else:
            family.missed += 1
