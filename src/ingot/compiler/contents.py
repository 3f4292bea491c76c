"""Sizes that are data: where small integers alive at the start of a stage say what shapes its nodes give (the
k of a TopK, the ends of a Slice, the trips of a Loop whose rows are stacked), what they hold belongs to a
plan, as shapes do. So such a node ends no stage, and is a kernel, or a view, among the others. The same goes
for the condition of an If that a stage has computed: the branch is part of the next one.

That is for integers that say the same again and again, or some of a few things. Where they say many, or
shapes turn out to be always the same, plans are made without a look at them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import onnx_ir as ir

from ingot.compiler.exact import sources_of
from ingot.compiler.facts import Known, infer_facts
from ingot.compiler.index import Index
from ingot.ops.control import Control, If, Loop
from ingot.ops.registry import Facts, facts_of

#: Integers with more elements are never looked at: their bytes are part of what a run looks a plan up by.
MOST_ELEMENTS = 8
#: Different things that are planned for.
MOST_MET = 32
#: Of so many, not all may lead to the same shapes.
FEWEST_MET = 4
#: Integers that take more nodes than this to work out are not sizes that plans know.
MOST_NODES = 64

#: What a plan is looked up by besides shapes: which values were looked at, and their bytes.
Held = tuple[tuple[int, ...], bytes]


class Contents:
    """What is looked at where a stage begins, and what was met there. Changed by one thread at a time."""

    def __init__(self) -> None:
        #: by number, among the values alive
        self.places: tuple[int, ...] = ()
        self._met: dict[Held, Hashable] = {}
        self._is_closed = False

    def held(self, arrays: Sequence[Any]) -> Held | None:
        """What the arrays hold, where a plan knows that, or one may be made that does."""
        places = self.places
        if not places:
            return None
        try:
            found = b"".join([arrays[place].tobytes() for place in places])
        except AttributeError:  # an optional that has nothing in this run
            return None
        if len(found) > 8 * MOST_ELEMENTS * len(places):  # few in other runs
            return None
        held = places, found
        return None if self._is_closed and held not in self._met else held

    @property
    def is_open(self) -> bool:
        """Whether more may be looked at, and planned for."""
        return not self._is_closed

    def look(self, places: Sequence[int]) -> None:
        """Look at these values from now on, too."""
        self.places = tuple(sorted({*self.places, *places}))

    def note(self, held: Held, known: Known) -> None:
        """A plan was made for what is known when this is held."""
        shapes = hash(tuple([facts.shape for facts in known.facts.values()]))
        self._met[held] = shapes
        met = len(self._met)
        if met >= MOST_MET or (met >= FEWEST_MET and len({*self._met.values()}) == 1):
            self.close()

    def close(self) -> None:
        """Plan for nothing more."""
        self._is_closed = True


def may_decide(index: Index, known: Known) -> bool:
    """Whether the shapes that the node at the stop gives may follow from what the nodes before it say: small
    integers, or which branch is taken.
    """
    return known.stop > 0 and bool(_asked(index, known))


def deciding(
    index: Index,
    known: Known,
    facts: dict[ir.Value, Facts],
    values: Sequence[ir.Value],
    arrays: Sequence[Any],
    beyond: Callable[[Index, Known], Known | None],
) -> list[int]:
    """Which of `values` hold what the shapes follow from that the node at the stop gives, by number; none
    where that is not all that they depend on.

    facts: those that the walk began with. beyond: as in `Enclosing`, for loops.
    """
    places = {value: place for place, value in enumerate(values)}
    node, op = index.nodes[known.stop], index.ops[known.stop]
    if isinstance(op, If):  # a condition that a run has computed; of others there are questions
        return [places[v] for v in _asked(index, known) if v in places] if known.start == known.stop else []
    leaves: dict[ir.Value, list[int]] = {}
    for value in _asked(index, known):
        sources = sources_of(index, known, value, places, _is_small, MOST_NODES)
        if sources is None:
            return []
        leaves[value] = sorted(sources.leaves.values())
    if not leaves:
        return []
    more = dict(facts)
    for found in leaves.values():
        more.update((values[place], facts_of(arrays[place])) for place in found)
    further = infer_facts(index, known.start, more)
    if isinstance(op, Control):
        passes = further.cut and index.nodes[further.stop] is node and beyond(index, further) is not None
        return [place for found in leaves.values() for place in found] if passes else []
    if any(value is not None and value not in further.facts for value in node.inputs):
        return []  # something else that the shapes follow from stands before the node
    inputs = [None if value is None else further.facts[value] for value in node.inputs]
    if op.infer(node, inputs) is None:
        return []
    needed: list[int] = []
    for value, found in leaves.items():
        unknown = Facts(further.facts[value].dtype, further.facts[value].shape)
        pairs = zip(node.inputs, inputs, strict=True)
        without = [unknown if own is value else fact for own, fact in pairs]
        if op.infer(node, without) is None:
            needed += found
    return needed


def _asked(index: Index, known: Known) -> list[ir.Value]:
    """What the node at the stop reads of small integers that are not known."""
    node, op = index.nodes[known.stop], index.ops[known.stop]
    inputs = node.inputs
    if isinstance(op, Control):  # the number of trips, if rows are stacked
        inputs = inputs[:1] if isinstance(op, Loop) and len(node.outputs) > len(inputs) - 2 else ()
    if isinstance(op, If):
        inputs = node.inputs[:1]
    facts = {value: known.facts.get(value) for value in inputs if value is not None}
    return [v for v, fact in facts.items() if fact is not None and not fact.is_known and _is_small(fact)]


def _is_small(facts: Facts) -> bool:
    return facts.dtype.kind in "iub" and 0 < math.prod(facts.shape) <= MOST_ELEMENTS
