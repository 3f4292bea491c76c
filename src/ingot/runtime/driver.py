"""Runs a graph: looks up (or makes) the plan for these shapes, runs it, and goes on after nodes whose outputs
depend on data.

A *stage* (`stages.py`) is the part of a graph between two such nodes. Its plan belongs to the shapes of
everything alive where it begins, and to the branches taken where Ifs depend on no more than shapes and small
inputs: such an If is no such node, its branch is part of the plan (`compiler/branches.py`). Nor are If, Loop
and Scan whose bodies native code can run (`compiler/bodies.py`).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from ingot.codegen.forks import session_lock
from ingot.codegen.machine import Machine, host
from ingot.codegen.pages import Recycled
from ingot.compiler.bodies import Enclosing
from ingot.compiler.branches import Question, along, condition_of, question_of
from ingot.compiler.contents import Contents, Held, deciding, may_decide
from ingot.compiler.facts import Known, infer_facts
from ingot.compiler.index import Index
from ingot.compiler.lower import Lowering
from ingot.compiler.packed import Packed
from ingot.compiler.plan import Row, make_plan
from ingot.compiler.recipe import Recipe, make_recipe
from ingot.compiler.steps import HostStep
from ingot.errors import IngotError, InputError, ModelError, ShapeError
from ingot.loading import collector_paused
from ingot.ops.control import Advance, Control, Subgraphs
from ingot.ops.lowering import PlanOptions
from ingot.ops.outline import known_of
from ingot.ops.registry import (
    UNFIT,
    Array,
    Facts,
    facts_of,
    label,
    shape_error,
    show,
    unfit,
)
from ingot.runtime.execute import Instance, Memory
from ingot.runtime.loose import LooseLoops, LooseRounds
from ingot.runtime.loose_plans import Planner
from ingot.runtime.profile import Record
from ingot.runtime.recipes import Recipes
from ingot.runtime.rounds import Rounds, UndecidedError, evaluated_alone
from ingot.runtime.stages import (
    Ending,
    Passage,
    Stage,
    Stages,
    copied,
    is_object,
    key_of,
    plain,
    planned,
    shapes_of,
    use,
    value_of,
)
from ingot.runtime.termination import require_wanted
from ingot.runtime.threads import Team

#: Plans kept for each stage; a service with more different shapes than this plans again (milliseconds).
MOST_PLANS = 64
#: Conditions that one plan may depend on; each may double the plans for the same shapes.
MOST_QUESTIONS = 4
#: Nodes one behind the other whose results are planned for what data says.
MOST_DEPTH = 4

T = TypeVar("T")


@dataclass(slots=True)
class Resources:
    """What all graphs of a session share: the CPU, options, packed weights, memory, threads."""

    threads: int
    options: PlanOptions
    packed: Packed = field(default_factory=Packed)
    lock: threading.RLock = field(default_factory=session_lock)
    progress: Callable[[int, int], None] | None = None
    recycled: Recycled = field(default_factory=Recycled)
    _memories: list[Memory] = field(default_factory=list[Memory])
    _teams: list[Team] = field(default_factory=list[Team])
    _team_made: bool = False

    @property
    def machine(self) -> Machine:
        """The CPU; looking at it takes a millisecond, which the first plan pays."""
        return host()

    def acquire(self) -> tuple[Memory, Team]:
        """Memory and threads for one run. A run that finds the team busy works alone, to the same answer."""
        memory = _take(self._memories) or Memory()
        if not self._team_made:  # the lock may be held for long, while another thread plans
            with self.lock:
                if not self._team_made:
                    self._team_made = True
                    return memory, Team(self.threads, self.machine)
        return memory, _take(self._teams) or Team(1, self.machine)

    def release(self, memory: Memory, team: Team) -> None:
        """Give them back. A team of one that stood in for the busy one is let go."""
        self._memories.append(memory)
        if team.threads == self.threads:
            self._teams.append(team)


class Driver:
    """A graph that can be run. Thread-safe."""

    def __init__(
        self,
        index: Index,
        resources: Resources,
        declared: Sequence[np.dtype[Any] | None] = (),
        *,
        is_body: bool = False,
    ) -> None:
        """declared: the dtypes that a file says its outputs have, None where it does not say. is_body: what
        small integers hold changes from run to run, as the number of a round does.
        """
        self.index, self.resources = index, resources
        self._declared = declared
        self._contents = None if is_body else Contents()
        self._stages: Stages = OrderedDict()
        self._bodies: dict[ir.Graph, Driver] = {}
        self._feeds = [*index.inputs, *index.captured]
        self._recipes = Recipes()

    @property
    def _enclosing(self) -> Enclosing:
        resources = self.resources
        return Enclosing(resources.machine, resources.packed, resources.options, resources.threads)

    @functools.cached_property
    def rounds(self) -> Rounds:
        """The same graph for NumPy: a loop's rounds whose shapes differ from those of the round before."""
        return Rounds(self.index)

    @functools.cached_property
    def loose(self) -> LooseLoops:
        """The same graph for rounds of a loop whose sizes change, or that are not counted before."""
        resources = self.resources
        planner = Planner(resources.machine, resources.packed, resources.options, resources.lock)
        return LooseLoops(self.index, planner)

    def prefers_rounds(self, shapes: tuple[Hashable, ...], feeds: Sequence[Any]) -> bool:
        """Whether these are for NumPy: no plan is there, and none is worth making. One is where the shapes
        come again, as long as none is thrown out for it.
        """
        if shapes in self._stages or not self.rounds.suits(feeds):
            return False
        return not self.rounds.has_met(shapes) or len(self._stages) >= MOST_PLANS

    def run(self, feeds: Sequence[Array], record: Record | None = None) -> list[Array]:
        """Outputs for contiguous arrays of the inputs, then of the captured values.

        record: what was done and how long it took is noted there.
        """
        shapes, contents = shapes_of(feeds), self._contents
        held = contents.held(feeds) if contents is not None and contents.places else None
        key = key_of(0, (), shapes, held)
        known = planned(self._stages.get(key), feeds)
        if known is not None and record is None and (known.is_whole or known.ending is not None):
            if len(self._stages) > 1:
                use(self._stages, key)
            if known.is_whole:
                return self._run_stage(known, feeds, None)
            assert known.ending is not None
            return known.ending.run(self._run_stage(known, feeds, None), feeds)
        values: Sequence[ir.Value] = self._feeds
        arrays, stages = list(feeds), self._stages
        index = self.index
        start, given = 0, dict[ir.Value, Facts]()
        ahead: Stage | None = None
        depth = 0
        while True:
            require_wanted()
            stage = ahead or self._stage(stages, start, values, arrays, given, index, contents, depth)
            index, depth, ahead = stage.index, stage.depth, None
            times: list[tuple[Row | HostStep, float]] = []
            if stage.plan.parts or stage.results:
                outputs = self._run_stage(stage, arrays, None if record is None else times)
            else:  # nothing lies between two nodes of the host
                outputs = []
            if record is not None:
                record.kinds.update(stage.plan.kinds)
                record.add(index, times)
            if stage.is_last:
                return outputs if stage.is_whole else self._with_objects(stage, outputs, values, arrays)
            if stage.contents is not None:
                at_stop = stage.at_stop = stage.at_stop or Passage(stage, values)
                found = [*outputs, *arrays]
                following = [found[place] for place in at_stop.places]
                ahead = self._ahead(stage, at_stop.values, following)
                if ahead is not None:
                    start, values, arrays = stage.stop, at_stop.values, following
                    continue
            alive = dict(zip(stage.outputs, outputs, strict=False))
            alive.update(
                (v, a) for v, a in zip(values, arrays, strict=True) if index.last_use.get(v, -1) >= stage.stop
            )
            if index is self.index and stage.stop >= index.late and not stage.bounds:
                return self._finish(stage, alive, outputs, record, not start)
            is_first, start, contents = not start, stage.stop + 1, None
            if stage.bounds:
                count = int(outputs[-1])
                alive.update((v, bound.cut(alive[v], count)) for v, bound in stage.bounds.items())
            else:
                made = self._stop(stage, stage.stop, alive, record)
                alive.update(zip(index.nodes[stage.stop].outputs, made, strict=False))
            if start == len(index.nodes):  # nothing is left that a plan would compute
                results = self._handed_out(stage, alive, outputs)
                if is_first and stage.bounds and stage.ending is None:
                    stage.ending = Ending(stage, self._feeds)
                return results
            given, stages = stage.known, stage.next
            values = [v for v in alive if index.last_use.get(v, -1) >= start]
            arrays = [plain(alive[v]) for v in values]

    def profile(self, feeds: Sequence[Array], rounds: int) -> list[Record]:
        """What each of `rounds` runs did and how long that took, after one that plans."""
        self.run(feeds)
        records = [Record() for _ in range(rounds)]
        for record in records:
            self.run(feeds, record)
        return records

    # ---- stages --------------------------------------------------------------------------------------------

    def _stage(
        self,
        stages: Stages,
        start: int,
        values: Sequence[ir.Value],
        arrays: Sequence[Array],
        given: dict[ir.Value, Facts],
        index: Index,
        contents: Contents | None = None,
        depth: int = 0,
    ) -> Stage:
        shapes = shapes_of(arrays)
        key = key_of(start, values, shapes, None if contents is None else contents.held(arrays))
        stage = planned(stages.get(key), arrays)
        if stage is not None:
            use(stages, key)
            return stage
        with self.resources.lock:
            while True:
                held = None if contents is None else contents.held(arrays)
                key = key_of(start, values, shapes, held)
                root = stages.get(key)
                stage = planned(root, arrays)
                if stage is not None:
                    return stage
                assert root is None or isinstance(root, Question)
                made = self._make_stage(start, values, arrays, given, index, root, contents, held, depth)
                if made is not None:
                    break
            asked, stage = made
            grown: Stage | Question = stage
            for question, answer in reversed(asked):
                question.next[answer] = grown
                grown = question
            stages[key] = grown
            while len(stages) > MOST_PLANS:
                stages.popitem(last=False)
        return stage

    def _ahead(self, before: Stage, values: Sequence[ir.Value], arrays: Sequence[Array]) -> Stage | None:
        """The stage that begins with the node at a stop, where that follows from what data holds; None where
        the host is to evaluate it.
        """
        contents, start = before.contents, before.stop
        if contents is None or (not contents.is_open and contents.held(arrays) is None):
            return None
        index = before.index
        stage = self._stage(
            before.next, start, values, arrays, before.known, index, contents, before.depth + 1
        )
        is_stuck = not stage.is_last and stage.stop == start and stage.index is index and not stage.bounds
        if is_stuck:
            contents.close()
            return None
        return stage

    @collector_paused()
    def _make_stage(
        self,
        start: int,
        values: Sequence[ir.Value],
        arrays: Sequence[Array],
        given: dict[ir.Value, Facts],
        index: Index,
        tree: Question | None,
        contents: Contents | None,
        held: Held | None,
        depth: int,
    ) -> tuple[list[tuple[Question, bool]], Stage] | None:
        """A plan for these arrays, and the questions that it depends on with their answers. tree: what was
        asked already for arrays of these shapes. held: what is known of what they hold. None where `contents`
        are to be looked at that this does not have yet.
        """
        if tree is None and not start and held is None and (stage := self._stage_again(arrays)) is not None:
            return [], stage
        facts = dict(given)
        facts.update((v, _facts(a)) for v, a in zip(values, arrays, strict=True))
        if held is not None:
            facts.update((values[place], facts_of(arrays[place].copy())) for place in held[0])
        known = infer_facts(index, start, facts)
        asked: list[tuple[Question, bool]] = []
        while known.cut:
            answer = self._answer(index, known, values, arrays, asked, tree)
            if answer is not None:
                index, known = along(index, known, answer)
                continue
            further = self._enclosing.beyond(index, known)
            if further is None:
                break
            known = further
        if known.cut and contents is not None and contents.is_open:
            found = deciding(index, known, facts, values, arrays, self._enclosing.beyond)
            if not set(found).issubset(contents.places):
                contents.look(found)
                return None
        last_use = index.last_use
        if known.cut:
            fed = set(values)
            known.bounds = {v: b for v, b in known.bounds.items() if last_use.get(v, -1) > known.stop}
            outputs = [
                v
                for v, f in known.facts.items()
                if not f.is_known and v not in fed and last_use.get(v, -1) >= known.end
            ]
        else:
            self._require_declared(index, [known.facts[v].dtype for v in index.outputs])
            outputs = [v for v in index.outputs if known.facts[v].dtype != object]
        is_whole = not known.cut and len(outputs) == len(index.outputs)
        resources = self.resources
        lowering = Lowering(
            index, known, values, outputs, resources.machine, resources.packed, resources.options
        )
        results = [(known.facts[v].shape, known.facts[v].dtype) for v in outputs]
        try:
            plan = make_plan(lowering.lower(), resources.machine, resources.threads, resources.progress)
        except OverflowError as error:  # of words of arguments
            facts = known.facts
            raise _too_large(list(facts), [(f.shape, f.dtype) for f in facts.values()]) from error
        if known.bounds:
            results.append(((), np.dtype(np.int64)))
        stop, is_last = known.stop, not known.cut
        later: dict[ir.Value, Facts] = {}
        if not is_whole:
            later.update(
                (v, f)
                for v, f in known.facts.items()
                if f.is_known and v not in index.constants and last_use.get(v, -1) >= stop
            )
        stage = Stage(index, plan, results, list(outputs), stop, is_last, is_whole, later, known.bounds)
        if held is not None:
            assert contents is not None
            contents.note(held, known)
        stage.depth = depth
        may_look = known.cut and not known.bounds and self._contents is not None and depth < MOST_DEPTH
        if may_look and may_decide(index, known):
            stage.contents = Contents()
        is_alike = held is None and not asked and not known.bodies
        if not start and is_whole and is_alike:
            own = [_facts(array) for array in arrays]

            def make(free: list[tuple[int, int]]) -> Recipe | None:
                return make_recipe(
                    self.index, values, own, free, resources.machine, resources.packed, resources.options
                )

            self._recipes.missed(tuple([each.shape for each in own]), make)
        return asked, stage

    def _stage_again(self, arrays: Sequence[Array]) -> Stage | None:
        """The whole graph, planned by a recipe where one holds for these arrays."""
        if any(is_object(array) for array in arrays):
            return None
        shapes = tuple([array.shape for array in arrays])
        found = self._recipes.find(shapes)
        if found is None:
            return None
        recipe, lowered, results = found
        resources, index = self.resources, recipe.index
        again = functools.partial(recipe.steps, shapes)
        try:
            plan = make_plan(lowered, resources.machine, resources.threads, resources.progress, again)
        except OverflowError:  # of words of arguments: who plans the whole says of what
            return None
        outputs, stop = list(index.outputs), len(index.nodes)
        return Stage(index, plan, results, outputs, stop, True, True, {}, {})

    def _require_declared(self, index: Index, found: Sequence[np.dtype[Any] | None]) -> None:
        """Raises ModelError for an output of another dtype than its file says. Strings count as objects, and
        so do sequences, of which none is a tensor. skl2onnx declares float64 where its models' operators
        (of ai.onnx.ml) give float32: those are handed out as they are.
        """
        for value, own, (dtype, wanted) in zip(
            index.outputs, self.index.outputs, zip(found, self._declared, strict=False), strict=False
        ):
            if wanted is not None and dtype is not None and dtype != wanted:
                node = value.producer()
                if node is not None and node.domain == "ai.onnx.ml" and dtype == np.float32:
                    continue
                made = f" of {label(node)}" if node is not None else ""
                raise ModelError(
                    f"output {own.name!r}{made} is {dtype}, and the file declares it as {wanted}. Correct "
                    "its type, or export the model again."
                )

    def _answer(
        self,
        index: Index,
        known: Known,
        values: Sequence[ir.Value],
        arrays: Sequence[Array],
        asked: list[tuple[Question, bool]],
        tree: Question | None,
    ) -> Any:
        """What the node at `known.stop` decides by, if it is an If and that is known, or found out by a
        question, which is added to `asked`; else None.
        """
        condition = condition_of(index, known)
        if condition is None:
            return None
        facts = known.facts[condition]
        if facts.is_known:
            return facts.value
        if len(asked) == MOST_QUESTIONS:
            return None
        # For these shapes the same questions follow the same answers: one that was asked is asked again.
        before = asked[-1][0].next.get(asked[-1][1]) if asked else tree
        question = before if isinstance(before, Question) else question_of(index, known, condition, values)
        if question is None:
            return None
        answer = question.answer(arrays)
        asked.append((question, answer))
        return answer

    def _with_objects(
        self, stage: Stage, outputs: list[Array], values: Sequence[ir.Value], arrays: Sequence[Array]
    ) -> list[Array]:
        """All outputs of the graph: those of the plan, and the strings and sequences that the host made.
        Copies, where they may be the caller's own or the session's constants.
        """
        computed, older = (
            dict(zip(stage.outputs, outputs, strict=True)),
            dict(zip(values, arrays, strict=True)),
        )
        constants = stage.known | stage.index.constants
        return [
            computed[v] if v in computed else copy.copy(older[v] if v in older else value_of(constants[v]))
            for v in stage.index.outputs
        ]

    def _run_stage(
        self, stage: Stage, arrays: Sequence[Array], times: list[tuple[Row | HostStep, float]] | None
    ) -> list[Array]:
        try:
            outputs = stage.empty(self.resources.recycled)
        except (MemoryError, ValueError) as error:  # NumPy has an error of its own for more than can be named
            raise _too_large(stage.outputs, stage.results) from error
        instance = _take(stage.free) or Instance(stage.plan)
        memory, team = self.resources.acquire()
        try:
            instance.run(arrays, outputs, memory, team, stage.evaluate, times)
        except MemoryError as error:  # nodes of the host say so themselves
            raise ShapeError(
                f"what lies between these inputs and the outputs takes {stage.plan.arena_bytes:,} bytes, "
                "more than there is memory for. Give smaller inputs, or check the sizes in the file."
            ) from error
        finally:
            self.resources.release(memory, team)
            stage.free.append(instance)
        return outputs

    def _finish(
        self,
        stage: Stage,
        alive: dict[ir.Value, Array],
        fresh: Sequence[Array],
        record: Record | None,
        starts: bool,
    ) -> list[Array]:
        """The nodes behind the stage, which make strings and maps for the caller; then all outputs. starts:
        the stage begins with the graph.
        """
        nodes = stage.index.nodes
        for position in range(stage.stop, len(nodes)):
            made = self._stop(stage, position, alive, record)
            alive.update(zip(nodes[position].outputs, made, strict=False))
        results = self._handed_out(stage, alive, fresh)
        if starts and stage.ending is None:
            stage.ending = Ending(stage, self._feeds)
        return results

    def _stop(
        self, stage: Stage, position: int, alive: dict[ir.Value, Array], record: Record | None
    ) -> Sequence[Array]:
        """What a node behind the stage makes on the host; how long it took is noted in `record`."""
        if record is None:
            return self._evaluate(stage.index, position, alive, stage.known, None)
        began, inner = time.perf_counter(), Record()
        made = self._evaluate(stage.index, position, alive, stage.known, inner)
        seconds = time.perf_counter() - began
        record.kinds[position] = "host"
        record.seconds.setdefault(position, []).append(seconds)
        # The steps of its bodies stand for themselves; the node keeps what is left.
        own = seconds - sum(part for *_, part in inner.steps)
        record.steps.append((stage.index, position, own))
        record.steps.extend(inner.steps)
        return made

    def _handed_out(self, stage: Stage, alive: dict[ir.Value, Any], fresh: Sequence[Array]) -> list[Array]:
        """All outputs of the graph. fresh: arrays that are nobody else's; the others may be the caller's own,
        the session's constants, or part of larger memory, and are copied.
        """
        own = {id(array) for array in fresh}
        results: list[Array] = []
        for value in stage.index.outputs:
            found = alive[value] if value in alive else stage.constant(value)
            if id(found) in own:
                own.remove(id(found))
            else:
                found = copied(found)
            results.append(found)
        self._require_declared(stage.index, [getattr(result, "dtype", None) for result in results])
        return results

    # ---- the host ------------------------------------------------------------------------------------------

    def _evaluate(
        self,
        index: Index,
        position: int,
        alive: dict[ir.Value, Array],
        known: dict[ir.Value, Facts],
        record: Record | None,
    ) -> Sequence[Array]:
        """The node that ended a stage, on arrays. What its bodies do is noted in `record`."""

        def array(value: ir.Value) -> Array:
            if value in alive:
                return alive[value]
            return value_of(known.get(value) or index.constants[value])

        node, op = index.nodes[position], index.ops[position]
        inputs = [None if v is None else array(v) for v in node.inputs]
        if not op.subgraphs:
            return evaluated_alone(op, node, inputs)

        before: tuple[Hashable, ...] | None = None
        rounds: dict[ir.Graph, Callable[[Sequence[Any]], list[Any]]] = {}

        def body_of(graph: ir.Graph) -> Driver:
            body = self._bodies.get(graph)
            if body is None:
                body = self._bodies[graph] = Driver(index.subgraphs[graph], self.resources, is_body=True)
            return body

        def run_body(graph: ir.Graph, feeds: Sequence[Array]) -> list[Array]:
            nonlocal before
            require_wanted()
            body, count = body_of(graph), len(feeds)
            arrays = [plain(a) for a in (*feeds, *map(array, body.index.captured))]
            shapes = shapes_of(arrays)
            last, before = before, shapes
            if last is not None and last != shapes and body.prefers_rounds(shapes, arrays):
                # What NumPy refuses a plan may leave out, if nobody reads it: the plan has the last word.
                with contextlib.suppress(UndecidedError, InputError, ModelError, ShapeError, *UNFIT):
                    if graph not in rounds:
                        rounds[graph] = body.rounds.begin(arrays[count:])
                    return rounds[graph](arrays[:count])
            if record is None:
                return body.run(arrays)
            turn = Record()
            made = body.run(arrays, turn)
            record.steps.extend(turn.steps)
            return made

        def outer(value: ir.Value) -> Facts | None:
            facts = known.get(value) or index.constants.get(value)
            return known_of(alive.get(value)) if facts is None else facts

        assert isinstance(op, Control)
        native: list[LooseRounds | None] = []

        def run_rounds(
            graph: ir.Graph, start: int, trips: int | None, carried: Sequence[Any]
        ) -> Advance | None:
            if not native:
                body = body_of(graph)
                native.append(body.loose.begin(carried, [array(v) for v in body.index.captured]))
            return None if native[0] is None else native[0].advance(start, trips, carried)

        made = _run(node, inputs, lambda: op.run(node, inputs, Subgraphs(run_body, outer, run_rounds)))
        if native and native[0] is not None:
            native[0].end()
        return made


def _run(node: ir.Node, inputs: Sequence[Any], run: Callable[[], list[Any]]) -> list[Any]:
    """`run`; what Python and NumPy refuse of a node with bodies is a ModelError."""
    try:
        return run()
    except IngotError:
        raise
    except UNFIT as error:
        raise unfit(node, inputs, error) from error


def _too_large(
    values: Sequence[ir.Value], results: Sequence[tuple[tuple[int, ...], np.dtype[Any]]]
) -> ShapeError:
    """For what is left of the machine; names the largest, with sizes of 0 as 1, for strides are as large."""
    sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in results[: len(values)]]
    places = [math.prod([max(n, 1) for n in shape]) * dtype.itemsize for shape, dtype in results]
    number = places.index(max(places[: len(values)]))
    value, (shape, dtype) = values[number], results[number]
    needs = f"takes {sizes[number]:,} bytes, more" if sizes[number] else "has more places"
    found = f"{dtype} {show(shape)} {needs} than there is memory for"
    remedy = "Give smaller inputs, or check the sizes in the file."
    node = value.producer()
    if node is None:
        return ShapeError(f"{value.name!r} of {found}. {remedy}")
    return shape_error(node, f"its result of {found}", remedy)


def _take(free: list[T]) -> T | None:
    """One of those that nobody uses; another thread may take the last one between a look and a grasp."""
    try:
        return free.pop()
    except IndexError:
        return None


def _facts(value: Any) -> Facts:
    """A sequence counts as a Python object, like a string: only the host touches it."""
    return Facts(np.dtype(object), ()) if is_object(value) else Facts(value.dtype, value.shape)
