"""Runs a graph: looks up (or makes) the plan for these shapes, runs it, and goes on after nodes whose outputs
depend on data.

A *stage* is the part of a graph between two such nodes. Its plan belongs to the shapes of everything alive
where it begins.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import onnx_ir as ir

from ingot.codegen.machine import Machine
from ingot.compiler.facts import infer_facts
from ingot.compiler.index import Index
from ingot.compiler.lower import HostStep, Lowering
from ingot.compiler.plan import Plan, make_plan
from ingot.kernels.call import Call
from ingot.loading import collector_paused
from ingot.ops.control import Control
from ingot.ops.lowering import PlanOptions
from ingot.ops.registry import Array, Facts
from ingot.runtime.execute import Instance, Memory
from ingot.runtime.profile import Record
from ingot.runtime.threads import Team

#: Plans kept for each stage; a service with more different shapes than this plans again (milliseconds).
MOST_PLANS = 64

T = TypeVar("T")


@dataclass(slots=True)
class Resources:
    """What all graphs of a session share: the CPU, options, packed weights, memory, threads."""

    machine: Machine
    threads: int
    options: PlanOptions
    packed: dict[Hashable, Any] = field(default_factory=dict[Hashable, Any])
    lock: threading.RLock = field(default_factory=threading.RLock)
    progress: Callable[[int, int], None] | None = None
    _memories: list[Memory] = field(default_factory=list[Memory])
    _teams: list[Team] = field(default_factory=list[Team])
    _team_made: bool = False

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


@dataclass(slots=True)
class Stage:
    """One plan and what comes after it."""

    plan: Plan
    results: list[tuple[tuple[int, ...], np.dtype[Any]]]
    #: values whose arrays the plan computes: the graph's outputs, or what is alive after the stage
    outputs: list[ir.Value]
    stop: int
    is_last: bool
    #: whether `outputs` are all of the graph's: a plan computes no strings and sequences
    is_whole: bool
    known: dict[ir.Value, Facts]
    free: list[Instance] = field(default_factory=list[Instance])
    next: OrderedDict[Hashable, Stage] = field(default_factory=OrderedDict[Hashable, "Stage"])


class Driver:
    """A graph that can be run. Thread-safe."""

    def __init__(self, index: Index, resources: Resources) -> None:
        self.index, self.resources = index, resources
        self._stages: OrderedDict[Hashable, Stage] = OrderedDict()
        self._bodies: dict[ir.Graph, Driver] = {}
        self._feeds = [*index.inputs, *index.captured]
        last = {value: len(index.nodes) for value in index.outputs}
        for position in range(len(index.nodes) - 1, -1, -1):
            for value in index.reads[position]:
                last.setdefault(value, position)
        self._last_use = last

    def run(self, feeds: Sequence[Array], record: Record | None = None) -> list[Array]:
        """Outputs for contiguous arrays of the inputs, then of the captured values.

        record: what was done and how long it took is noted there.
        """
        known = self._stages.get(tuple([() if isinstance(a, list) else a.shape for a in feeds]))
        if known is not None and known.is_whole and record is None and len(self._stages) == 1:
            return self._run_stage(known, feeds, None)  # the usual case: the same shapes as ever
        values, arrays, stages = self._feeds, list(feeds), self._stages
        start, given = 0, dict[ir.Value, Facts]()
        while True:
            stage = self._stage(stages, start, values, arrays, given)
            times: list[tuple[Call | HostStep, float]] = []
            outputs = self._run_stage(stage, arrays, None if record is None else times)
            if record is not None:
                record.kinds.update(stage.plan.kinds)
                record.add(self.index, times)
            if stage.is_last:
                return outputs if stage.is_whole else self._with_objects(stage, outputs, values, arrays)
            alive = dict(zip(stage.outputs, outputs, strict=True))
            alive.update(
                (v, a) for v, a in zip(values, arrays, strict=True) if self._last_use.get(v, -1) >= stage.stop
            )
            node = self.index.nodes[stage.stop]
            began, inner = time.perf_counter(), None if record is None else Record()
            made = self._evaluate(stage.stop, alive, stage.known, inner)
            if record is not None and inner is not None:
                seconds = time.perf_counter() - began
                record.kinds[stage.stop] = "host"
                record.seconds.setdefault(stage.stop, []).append(seconds)
                # The steps of its bodies stand for themselves; the node keeps what is left.
                own = seconds - sum(part for *_, part in inner.steps)
                record.steps.append((self.index, stage.stop, own))
                record.steps.extend(inner.steps)
            start = stage.stop + 1
            alive.update(zip(node.outputs, made, strict=False))
            values = [v for v in alive if self._last_use.get(v, -1) >= start]
            arrays = [_plain(alive[v]) for v in values]
            given, stages = stage.known, stage.next

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
        stages: OrderedDict[Hashable, Stage],
        start: int,
        values: Sequence[ir.Value],
        arrays: Sequence[Array],
        given: dict[ir.Value, Facts],
    ) -> Stage:
        shapes = tuple([() if isinstance(a, list) else a.shape for a in arrays])
        key = (tuple(values), shapes) if start else shapes
        stage = stages.get(key)
        if stage is not None:
            try:  # noqa: SIM105  (a context manager costs as much as all the rest here)
                stages.move_to_end(key)
            except KeyError:  # another thread has thrown it out just now
                pass
            return stage
        with self.resources.lock:
            stage = stages.get(key)
            if stage is None:
                stage = stages[key] = self._make_stage(start, values, arrays, given)
                while len(stages) > MOST_PLANS:
                    stages.popitem(last=False)
        return stage

    @collector_paused()
    def _make_stage(
        self, start: int, values: Sequence[ir.Value], arrays: Sequence[Array], given: dict[ir.Value, Facts]
    ) -> Stage:
        facts = dict(given)
        facts.update((v, _facts(a)) for v, a in zip(values, arrays, strict=True))
        known = infer_facts(self.index, start, facts)
        if known.cut:
            fed = set(values)
            outputs = [
                v
                for v, f in known.facts.items()
                if not f.is_known and v not in fed and self._last_use.get(v, -1) >= known.stop
            ]
        else:
            outputs = [v for v in self.index.outputs if known.facts[v].dtype != object]
        is_whole = not known.cut and len(outputs) == len(self.index.outputs)
        resources = self.resources
        used = [v for v in values if known.facts[v].dtype != object]
        lowering = Lowering(
            self.index, known, used, outputs, resources.machine, resources.packed, resources.options
        )
        plan = make_plan(lowering.lower(), resources.machine, resources.threads, resources.progress)
        if len(used) != len(values):
            numbers = {n: values.index(v) for n, v in enumerate(used)}
            for patch in plan.input_patches:
                patch.index = numbers[patch.index]
        results = [(known.facts[v].shape, known.facts[v].dtype) for v in outputs]
        later = {
            v: f
            for v, f in known.facts.items()
            if f.is_known and v not in self.index.constants and self._last_use.get(v, -1) >= known.stop
        }
        return Stage(plan, results, list(outputs), known.stop, not known.cut, is_whole, later)

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
        constants = stage.known | self.index.constants
        return [
            computed[v] if v in computed else copy.copy(older[v] if v in older else _value(constants[v]))
            for v in self.index.outputs
        ]

    def _run_stage(
        self, stage: Stage, arrays: Sequence[Array], times: list[tuple[Call | HostStep, float]] | None
    ) -> list[Array]:
        outputs = [np.empty(shape, dtype) for shape, dtype in stage.results]
        instance = _take(stage.free) or Instance(stage.plan)
        memory, team = self.resources.acquire()
        try:
            instance.run(arrays, outputs, memory, team, self._evaluate_step, times)
        finally:
            self.resources.release(memory, team)
            stage.free.append(instance)
        return outputs

    # ---- the host ------------------------------------------------------------------------------------------

    def _evaluate_step(self, position: int, inputs: list[Array | None]) -> Sequence[Array | None]:
        return self.index.ops[position].evaluate(self.index.nodes[position], inputs)

    def _evaluate(
        self,
        position: int,
        alive: dict[ir.Value, Array],
        known: dict[ir.Value, Facts],
        record: Record | None,
    ) -> Sequence[Array]:
        """The node that ended a stage, on arrays. What its bodies do is noted in `record`."""

        def array(value: ir.Value) -> Array:
            if value in alive:
                return alive[value]
            return _value(known.get(value) or self.index.constants[value])

        node, op = self.index.nodes[position], self.index.ops[position]
        inputs = [None if v is None else array(v) for v in node.inputs]
        if not op.subgraphs:
            return op.evaluate(node, inputs)

        def run_body(graph: ir.Graph, feeds: Sequence[Array]) -> list[Array]:
            body = self._bodies.get(graph)
            if body is None:
                body = self._bodies[graph] = Driver(self.index.subgraphs[graph], self.resources)
            captured = [array(v) for v in body.index.captured]
            if record is None:
                return body.run([_plain(a) for a in (*feeds, *captured)])
            turn = Record()
            made = body.run([_plain(a) for a in (*feeds, *captured)], turn)
            record.steps.extend(turn.steps)
            return made

        assert isinstance(op, Control)
        return op.run(node, inputs, run_body)


def _take(free: list[T]) -> T | None:
    """One of those that nobody uses; another thread may take the last one between a look and a grasp."""
    try:
        return free.pop()
    except IndexError:
        return None


def _plain(value: Any) -> Any:
    """An array as plans want it. Sequences are lists; they go from node to node as they are."""
    return cast(Any, value) if isinstance(value, list) else np.asarray(value, order="C")


def _facts(value: Any) -> Facts:
    """A sequence counts as a Python object, like a string: only the host touches it."""
    return Facts(np.dtype(object), ()) if isinstance(value, list) else Facts(value.dtype, value.shape)


def _value(facts: Facts) -> Array:
    array = facts.value  # once: it may be computed
    assert array is not None
    return array
