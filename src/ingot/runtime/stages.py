"""A stage: one plan, and what comes after it. A graph's stages are a tree: by the shapes of what is alive, by
what small integers hold, and by the answers of questions.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
import onnx_ir as ir

from ingot.codegen.pages import LARGE, Recycled
from ingot.compiler.branches import Question
from ingot.compiler.contents import Contents, Held
from ingot.compiler.index import Index
from ingot.compiler.plan import Plan
from ingot.ops.registry import Array, Bound, Facts, Op, evaluated
from ingot.runtime.execute import Instance

_NDARRAY: type = np.ndarray


@dataclass(slots=True)
class Stage:
    """One plan and what comes after it."""

    #: the graph as this plan has it
    index: Index
    plan: Plan
    results: list[tuple[tuple[int, ...], np.dtype[Any]]]
    #: values whose arrays the plan computes: the graph's outputs, or what is alive after the stage
    outputs: list[ir.Value]
    stop: int
    is_last: bool
    #: whether `outputs` are all of the graph's: a plan computes no strings and sequences
    is_whole: bool
    known: dict[ir.Value, Facts]
    #: of the node at `stop`, where the plan computes it too: its outputs, and after them their count
    bounds: dict[ir.Value, Bound]
    free: list[Instance] = field(default_factory=list[Instance])
    next: Stages = field(default_factory=OrderedDict[Hashable, "Stage | Question"])
    #: whether the node at `stop` may be planned with what comes after it, for what small integers hold
    contents: Contents | None = None
    #: how many nodes on the way here were planned so
    depth: int = 0
    is_large: bool = field(init=False)
    #: how runs go on behind it, where that is known
    ending: Ending | None = None
    at_stop: Passage | None = None

    def __post_init__(self) -> None:
        self.is_large = any(math.prod(shape) * dtype.itemsize >= LARGE for shape, dtype in self.results)

    def empty(self, recycled: Recycled) -> list[Array]:
        """Memory for the results."""
        if not self.is_large:
            return [np.empty(shape, dtype) for shape, dtype in self.results]
        return [
            (recycled.empty if math.prod(shape) * dtype.itemsize >= LARGE else np.empty)(shape, dtype)
            for shape, dtype in self.results
        ]

    def constant(self, value: ir.Value) -> Array:
        """A value that no run computes."""
        return value_of(self.known.get(value) or self.index.constants[value])

    def evaluate(self, position: int, inputs: list[Array | None]) -> Sequence[Array | None]:
        """A node of the plan that NumPy computes."""
        return evaluated(self.index.ops[position], self.index.nodes[position], inputs)


class Passage:
    """What is alive at the stop of a stage, and where that is among its outputs and what it began with."""

    def __init__(self, stage: Stage, values: Sequence[ir.Value]) -> None:
        places = {value: place for place, value in enumerate((*stage.outputs, *values))}
        last_use = stage.index.last_use
        self.values = tuple([value for value in places if last_use.get(value, -1) >= stage.stop])
        self.places = [places[value] for value in self.values]


class Ending:
    """The nodes behind a stage that starts with the graph, once they have run: what runs for other data of
    the same shapes have left to do. Of a node that the stage has counted nothing but the count.
    """

    def __init__(self, stage: Stage, feeds: Sequence[ir.Value]) -> None:
        index = stage.index
        places = {value: place for place, value in enumerate((*stage.outputs, *feeds))}
        late = range(len(index.nodes) if stage.bounds else stage.stop, len(index.nodes))
        self._counted = [(places[value], bound) for value, bound in stage.bounds.items()]
        made = {value for position in late for value in index.nodes[position].outputs}
        wanted = [value for position in late for value in index.reads[position]]
        constants = [v for v in dict.fromkeys([*wanted, *index.outputs]) if v not in made and v not in places]
        places.update({value: len(places) + place for place, value in enumerate(constants)})
        self._constants = [stage.constant(value) for value in constants]
        self._steps: list[tuple[Op, ir.Node, list[int | None]]] = []
        for position in late:
            node = index.nodes[position]
            inputs = [None if value is None else places[value] for value in node.inputs]
            self._steps.append((index.ops[position], node, inputs))
            for value in node.outputs:
                places[value] = len(places)
        #: where each output is, and whether it is nobody else's
        self._results: list[tuple[int, bool]] = []
        fresh = set(range(len(stage.outputs)))
        for value in index.outputs:
            self._results.append((places[value], places[value] in fresh))
            fresh.discard(places[value])

    def run(self, outputs: Sequence[Array], feeds: Sequence[Array]) -> list[Array]:
        """The graph's outputs, from those of the stage."""
        if self._counted:
            count, outputs = int(outputs[-1]), list(outputs[:-1])
            for place, bound in self._counted:
                whole = outputs[place]
                part = bound.cut(whole, count)
                outputs[place] = part if part is whole or part.base is None else part.copy()
        work: list[Any] = [*outputs, *feeds, *self._constants]
        for op, node, inputs in self._steps:
            work += evaluated(op, node, [None if place is None else work[place] for place in inputs])
        return [work[place] if fresh else copied(work[place]) for place, fresh in self._results]


Stages: TypeAlias = "OrderedDict[Hashable, Stage | Question]"


def key_of(
    start: int, values: Sequence[ir.Value], shapes: tuple[Hashable, ...], held: Held | None
) -> Hashable:
    """What a plan is looked up by."""
    if start:
        return start, tuple(values), shapes, held
    return shapes if held is None else (shapes, held)


def use(stages: Stages, key: Hashable) -> None:
    """This one is the last to be thrown out."""
    try:  # noqa: SIM105  (a context manager costs as much as all the rest here)
        stages.move_to_end(key)
    except KeyError:  # another thread has thrown it out just now
        pass


def planned(tree: Stage | Question | None, arrays: Sequence[Array]) -> Stage | None:
    """The stage that the answers for these arrays lead to, if it was made already."""
    while isinstance(tree, Question):
        tree = cast("Stage | Question | None", tree.next.get(tree.answer(arrays)))
    return tree


def copied(value: Any) -> Any:
    """The same, nobody else's: arrays contiguous, in the order of their dimensions."""
    return copy.copy(value) if is_object(value) else np.array(value, order="C")


def is_object(value: Any) -> bool:
    """Sequences are lists, maps are dicts, an absent optional is None."""
    return value is None or isinstance(value, (list, dict))


def _kind(value: Any) -> Hashable:
    return cast(Hashable, type(value)) if is_object(value) else value.shape


def shapes_of(values: Sequence[Any]) -> tuple[Hashable, ...]:
    """What plans are looked up by: the shape of an array, what kind of object anything else is."""
    return tuple([v.shape if type(v) is _NDARRAY else _kind(v) for v in values])


def plain(value: Any) -> Any:
    """An array as plans want it. Sequences and the like go from node to node as they are."""
    return value if is_object(value) else np.asarray(value, order="C")


def value_of(facts: Facts) -> Array:
    """The array of what is known before the run."""
    array = facts.value  # once: it may be computed
    assert array is not None
    return array
