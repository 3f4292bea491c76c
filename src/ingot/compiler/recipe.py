"""How to plan again for other sizes: by one Python function of them (`recipe_text.py`) for all that was noted
while a plan was made (`kernels/notes.py`). Nothing here knows an operator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from ingot.codegen.machine import Machine
from ingot.compiler.branches import along, condition_of
from ingot.compiler.facts import infer_facts
from ingot.compiler.index import Index
from ingot.compiler.lower import Lowering
from ingot.compiler.packed import Packed
from ingot.compiler.recipe_text import Writer
from ingot.compiler.steps import Check, Lowered
from ingot.errors import IngotError
from ingot.kernels.alike import remembering
from ingot.kernels.notes import noted
from ingot.ops.lowering import PlanOptions
from ingot.ops.registry import UNFIT, Facts

Shapes: TypeAlias = "tuple[tuple[int, ...], ...]"
Results: TypeAlias = "list[tuple[tuple[int, ...], np.dtype[Any]]]"

#: What planning may raise for sizes that it is not meant for, or that are noted. The plan that is then made
#: in full says what is wrong with an input, if anything is.
_NO_PLAN = (IngotError, *UNFIT, AssertionError, AttributeError, KeyError)


@dataclass(slots=True)
class Recipe:
    """A plan for sizes of which some may be others. index: the graph, with the branches that its Ifs take
    for these sizes. free: those, as numbers of inputs and axes. shapes: of the inputs that it was made for.
    again(*sizes): its steps, checks and the shapes of its results; None where conditions do not hold.
    """

    index: Index
    free: list[tuple[int, int]]
    shapes: Shapes
    again: Callable[..., tuple[list[Any], list[Check], list[tuple[int, ...]]] | None]
    kinds: dict[int, str]
    dtypes: list[np.dtype[Any]]

    def lowered(self, shapes: Shapes) -> tuple[Lowered, Results] | None:
        """The steps for these shapes, and what is known of the results; None where they need another plan."""
        if self._fixed(shapes) != self._fixed(self.shapes):
            return None
        try:
            with remembering():
                found = self.again(*[shapes[number][axis] for number, axis in self.free])
        except _NO_PLAN:
            return None
        if found is None:
            return None
        steps, checks, sizes = found
        return Lowered(steps, checks, self.kinds), list(zip(sizes, self.dtypes, strict=True))

    def steps(self, shapes: Shapes) -> Lowered:
        """The steps for shapes for which it was found to hold."""
        found = self.lowered(shapes)
        assert found is not None
        return found[0]

    def _fixed(self, shapes: Shapes) -> list[list[int]]:
        sizes = [list(shape) for shape in shapes]
        for number, axis in self.free:
            sizes[number][axis] = 0
        return sizes


def make_recipe(
    index: Index,
    inputs: Sequence[ir.Value],
    given: Sequence[Facts],
    free: list[tuple[int, int]],
    machine: Machine,
    packed: Packed,
    options: PlanOptions,
) -> Recipe | None:
    """Plan a graph once more, for inputs of which that is given, and note what is done to `free` sizes. None
    where that is not a plan for the whole graph, or something in it cannot be done to sizes that are noted.

    Which branch an If takes may follow from the sizes: then that is a condition of the recipe.
    """
    shapes = tuple([facts.shape for facts in given])
    try:
        with noted([shapes[number][axis] for number, axis in free], may_pin=False) as notes:
            sizes = dict(zip(free, notes.given, strict=True))
            facts = dict[ir.Value, Facts]()
            for number, (value, known) in enumerate(zip(inputs, given, strict=True)):
                shape: list[Any] = [sizes.get((number, d), size) for d, size in enumerate(known.shape)]
                facts[value] = Facts(known.dtype, tuple(shape))
            known = infer_facts(index, 0, facts)
            while known.cut:
                condition = condition_of(index, known)
                if condition is None or not known.facts[condition].is_known:
                    return None
                index, known = along(index, known, known.facts[condition].value)
            outputs = index.outputs
            if any(known.facts[value].dtype == object for value in outputs):
                return None
            lowered = Lowering(index, known, inputs, outputs, machine, packed, options).lower()
        results = [known.facts[value] for value in outputs]
        again = Writer(notes).function(lambda writer: writer.plan(lowered, [each.shape for each in results]))
    except _NO_PLAN:
        return None
    return Recipe(index, free, shapes, again, lowered.kinds, [each.dtype for each in results])
