"""Plans of single nodes for the sizes that rounds of a loop meet, in the tables where native code looks them
up (`kernels/loose_plan.py`). What a plan computes does not depend on which others there are.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np

from ingot.codegen.machine import Machine
from ingot.codegen.pages import aligned
from ingot.codegen.spmd import BEFORE_SCRATCH, STEP_WORDS
from ingot.compiler.facts import infer_facts
from ingot.compiler.loose_parts import Part
from ingot.compiler.lower import Lowering
from ingot.compiler.packed import Packed
from ingot.compiler.plan import Plan, make_plan
from ingot.compiler.recipe import Recipe, Results, Shapes, make_recipe
from ingot.compiler.steps import HostStep
from ingot.errors import IngotError
from ingot.kernels.loose import ALIGNMENT, DIMS, MOST_DIMS, RANK
from ingot.kernels.loose_plan import ASK, BASE, BUCKET, BUCKETS, FOLLOWING, KEY_WORDS, KEYS, TABLE, TOOK
from ingot.ops.lowering import PlanOptions
from ingot.ops.registry import UNFIT, Facts
from ingot.runtime.recipes import Recipes

#: Bytes of a node's plans; then they are made anew.
MOST_PLAN_BYTES = 1 << 23
#: Sizes remembered as such that have no plan here.
MOST_REFUSED = 1 << 10

#: What native code calls.
CODE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


@dataclass(slots=True)
class Planner:
    """What plans of a session share."""

    machine: Machine
    packed: Packed = field(default_factory=Packed)
    options: PlanOptions = field(default_factory=PlanOptions)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def plan(self, part: Part, recipes: Recipes, shapes: Shapes) -> tuple[Plan, Results] | None:
        """The plan of a node for inputs of these shapes. None where NumPy would do a part of it, where it is
        worth more than one thread, and where shapes do not fit: whoever else runs it then says so.
        """
        with self.lock:
            try:
                plan, results = self._made(part, recipes, shapes)
            except (IngotError, *UNFIT):
                return None
        if plan.is_long or any(isinstance(step, HostStep) for step in plan.parts):
            return None
        return plan, results

    def _made(self, part: Part, recipes: Recipes, shapes: Shapes) -> tuple[Plan, Results]:
        found = recipes.find(shapes)
        if found is not None:
            recipe, lowered, results = found
            return make_plan(lowered, self.machine, 1, None, partial(recipe.steps, shapes)), results
        index = part.index
        own = [Facts(np.dtype(slot.dtype), shape) for slot, shape in zip(part.inputs, shapes, strict=True)]
        known = infer_facts(index, 0, dict(zip(index.inputs, own, strict=True)))
        if known.cut:
            raise ValueError("sizes that depend on data")
        results = [(known.facts[value].shape, known.facts[value].dtype) for value in index.outputs]
        if any(len(shape) > MOST_DIMS for shape, _ in results):
            raise ValueError("more dimensions than a loose array has")
        lowering = Lowering(
            index, known, index.inputs, index.outputs, self.machine, self.packed, self.options
        )
        plan = make_plan(lowering.lower(), self.machine, 1)

        def make(free: list[tuple[int, int]]) -> Recipe | None:
            return make_recipe(index, index.inputs, own, free, self.machine, self.packed, self.options)

        recipes.missed(shapes, make)
        return plan, results


class PartPlans:
    """The plans of one node among the tables of a loop. One run at a time."""

    def __init__(self, part: Part, recipes: Recipes, planner: Planner, words: np.ndarray) -> None:
        """words: of the loop's tables."""
        self._part, self._recipes, self._planner = part, recipes, planner
        self._base, self._cells = words.ctypes.data, memoryview(cast(Any, words))
        self._table = np.zeros(BUCKETS, np.int64)
        self._kept: list[tuple[np.ndarray, list[Any]]] = []
        self._nbytes = 0
        self._refused: set[Shapes] = set()
        #: what went wrong in a call: raised by whoever made native code make it
        self.error: BaseException | None = None
        self._code = CODE(self._answer)
        self._cells[part.word + ASK] = cast(int, ctypes.cast(self._code, ctypes.c_void_p).value)
        self._cells[part.word + TABLE] = self._table.ctypes.data

    def sizes(self) -> Shapes:
        """The shapes of what the node read last."""
        cells = self._cells
        return tuple(
            [
                tuple(cells[slot.word + DIMS : slot.word + DIMS + cells[slot.word + RANK]].tolist())
                for slot in self._part.inputs
            ]
        )

    def took(self) -> int:
        """Nanoseconds that the node took since this was asked last, roughly."""
        word = self._part.word + TOOK
        nanoseconds, self._cells[word] = self._cells[word], 0
        return nanoseconds

    def _answer(self, *_arguments: Any) -> None:
        try:
            self._add()
        except BaseException as error:
            self.error = error

    def _add(self) -> None:
        """Put a plan for the present sizes into the table, if there can be one."""
        shapes = self.sizes()
        if shapes in self._refused:
            return
        made = self._planner.plan(self._part, self._recipes, shapes)
        if made is None:
            if len(self._refused) >= MOST_REFUSED:
                self._refused.clear()
            self._refused.add(shapes)
            return
        plan, results = made
        memory = self._entry(shapes, plan, results)
        self._nbytes += memory.nbytes
        if self._nbytes > MOST_PLAN_BYTES:
            self._table[:] = 0
            self._kept.clear()
            self._nbytes = memory.nbytes
        bucket = self._cells[self._part.word + BUCKET]
        memory[FOLLOWING], self._table[bucket] = self._table[bucket], memory.ctypes.data
        self._kept.append((memory, plan.keep))

    def _entry(self, shapes: Shapes, plan: Plan, results: Results) -> np.ndarray:
        """The words of a plan."""
        part, origin = self._part, self._base + 8 * (self._part.word + BASE)
        starts, kept = list[int](), 0
        for shape, dtype in results:
            starts.append(kept)
            kept += _round_up(math.prod(shape) * dtype.itemsize)
        scratch = kept + _round_up(plan.arena_bytes) + BEFORE_SCRATCH
        keys = [word for shape in shapes for word in _described(shape)]
        for start, (shape, _) in zip(starts, results, strict=True):
            keys += [start, *_described(shape)]
        flags = [kept + plan.offset(check.flag) for check in plan.checks]

        begins = [KEYS + len(keys)]
        count = len(plan.arena_words) + len(plan.input_patches) + len(plan.output_patches)
        for length in (3 * count, plan.rows.size, len(flags)):
            begins.append(begins[-1] + length)
        memory = aligned(8 * (begins[-1] + len(plan.words))).view(np.int64)
        patches, rows, flagged, words = [memory.ctypes.data + 8 * begin for begin in begins]
        memory[:KEYS] = (
            0, scratch + _round_up(plan.scratch_bytes), kept, patches, count, rows, len(plan.rows), flagged,
            len(flags), scratch, int(plan.nanoseconds),
        )  # fmt: skip
        memory[KEYS : begins[0]] = keys
        pointed = [
            (word, origin, kept + offset)
            for word, offset in zip(plan.arena_words.tolist(), plan.arena_offsets.tolist(), strict=True)
        ]
        pointed += [
            (patch.word, self._base + 8 * part.inputs[patch.index].word, patch.offset)
            for patch in plan.input_patches
        ]
        pointed += [(patch.word, origin, starts[patch.index] + patch.offset) for patch in plan.output_patches]
        memory[begins[0] : begins[1]] = [
            number for word, begin, far in pointed for number in (words + 8 * word, begin, far)
        ]
        own = memory[begins[1] : begins[2]].reshape(-1, STEP_WORDS)
        own[:] = plan.rows
        own[:, 1] = words + 8 * plan.rows[:, 1]
        memory[begins[2] : begins[3]] = flags
        memory[begins[3] :] = plan.words
        memory[begins[3] + plan.links[:, 0]] = words + 8 * plan.links[:, 1]
        return memory


def _round_up(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _described(shape: Sequence[int]) -> list[int]:
    """Rank and sizes, as many words for each array."""
    return [len(shape), *shape, *[0] * (KEY_WORDS - 1 - len(shape))]
