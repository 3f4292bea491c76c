"""State in a finished run: what the call turned out to change, its next values, which of them matter."""

# torch's shape environment and fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir
import torch

from ingot.capture.assume import Assumption
from ingot.capture.graph import elements_decide, uses
from ingot.capture.model import as_output
from ingot.capture.record import Recorder
from ingot.capture.run import Call, Run
from ingot.capture.scalars import Symbolic, depends_on_data
from ingot.capture.state import Change, Snapshot, StateFound, StateSpec, in_words
from ingot.errors import ExportError


def require_known(call: Call, run: Run, snapshot: Snapshot, changes: Sequence[Change]) -> StateFound | None:
    """Start again with an input for what the call turned out to change. Of what sizes decide, and data does
    not, it is presumed that the next call finds it as it wants it, so that no input is needed: the error to
    raise where that turns out otherwise (see `settled`).
    """
    recorder = run.recorder
    found: dict[str, StateSpec] = {}
    for label, where in recorder.written.items():
        before = snapshot.before[label]
        found[label] = StateSpec(label, before, where, tuple(snapshot.labels_of(before)))
    taken = {label for s in found.values() for label in s.labels}
    for c in changes:
        if c.is_state and c.label not in taken:
            size = recorder.dim_label(c.after) if isinstance(c.after, torch.SymInt) else None
            named = size if isinstance(size, str) and size in recorder.env.names.values() else None
            by = "data"
            value = recorder.value_of(c.after) if isinstance(c.after, torch.Tensor) else None
            if value is not None and not elements_decide(value, run.inputs):
                by = "sizes"  # a table of positions that grows with the longest input so far
            elif not isinstance(c.after, (torch.Tensor, *Symbolic)):
                by = "nothing"
            elif isinstance(c.after, Symbolic) and not depends_on_data(recorder, recorder.env.expr(c.after)):
                by = "sizes"
            where = snapshot.line_of(c.label)
            found[c.label] = StateSpec(c.label, c.before, where, (c.label,), named, decided_by=by)
    if not found:
        return None
    error = StateFound(list(found.values()))
    by = {s.decided_by for s in error.states}
    if call.keep_states or "data" in by or "sizes" not in by:
        raise error
    return error


def next_states(call: Call, run: Run, snapshot: Snapshot, outputs: list[ir.Value]) -> list[ir.Value]:
    """The value of each state after the call, as an output of the graph.

    Raises:
        ExportError: it has another dtype or shape than before the call, so no input can have it.
    """
    made: list[ir.Value] = []
    settled: list[StateSpec] = []
    for state, before in zip(call.states, run.fakes[len(call.specs) :], strict=True):
        after = snapshot.places[state.label].get()
        if isinstance(before, torch.Tensor):
            _require_alike(run.recorder, state, before, after)
            sizes = enumerate(zip(before.shape, after.shape, state.initial.shape, strict=True))
            number = run.recorder.sizes.number
            static = {i for i, (b, a, n) in sizes if number(a) == n and type(b) is not int}
            if static:
                settled.append(replace(state, static=state.static | static))
        value = as_output(run.recorder, after, [*outputs, *made])
        value.name = run.recorder.graph.unique(state.output_name)
        made.append(value)
    if settled and call.keep_states:
        raise StateFound(settled)
    return made


def _require_alike(recorder: Recorder, state: StateSpec, before: torch.Tensor, after: Any) -> None:
    fits = isinstance(after, torch.Tensor) and after.dtype == before.dtype and after.dim() == before.dim()
    if fits:
        sizes = zip(before.shape, after.shape, strict=True)
        fits = all(recorder.sizes.number(b) is None or recorder.same_size(a, b) for b, a in sizes)
    if fits:
        return
    shapes = [
        f"{x.dtype} {[recorder.dim_label(d) for d in x.shape]}" if isinstance(x, torch.Tensor) else repr(x)
        for x in (before, after)
    ]
    raise ExportError(
        f"{state.where}\n"
        f"{state.label!r} is {shapes[0]} before the call and {shapes[1]} after it; an input of the model has "
        "one dtype and the sizes it declares. Give the state its dtype and shape before the export."
    )


def mattering(
    call: Call, run: Run, outputs: Sequence[ir.Value], following: Sequence[ir.Value]
) -> list[StateSpec]:
    """The states that decide an output of this call or, through other states, of a later one."""
    held = [*run.recorder.env.held.values()]
    asked = {
        str(name) for g in held for s in g.condition.free_symbols if (name := run.recorder.env.numbers.get(s))
    }
    before = run.inputs[len(call.specs) :]
    found: set[int] = {i for i, v in enumerate(before) if v.name in asked}
    reached: set[int] = set()
    seen: set[int] = set()
    todo = [*outputs, *(following[i] for i in found)]
    while todo:
        v = todo.pop()
        if id(v) in reached:
            continue
        reached.add(id(v))
        for i, state in enumerate(before):
            if state is v and i not in found:
                found.add(i)
                todo.append(following[i])
        node = v.producer()
        if node is not None and id(node) not in seen:
            seen.add(id(node))
            todo.extend(uses(node))
    return [s for i, s in enumerate(call.states) if i in found]


def with_first_sizes(call: Call, run: Run) -> list[StateSpec]:
    """The states, with the sizes of those that the first call makes as large as its inputs.

    Raises:
        ExportError: such a size is no dimension of an input, so that nobody knows it before the call.
    """
    count = len(call.specs)
    given = {d.value for v in run.inputs[:count] for d in v.shape or () if isinstance(d, ir.SymbolicDim)}
    found: list[StateSpec] = []
    for state, value in zip(call.states, run.inputs[count:], strict=True):
        begin = next((call.begins[label] for label in state.labels if label in call.begins), None)
        if begin is None or not begin.follows:
            found.append(state)
            continue
        first: list[int | str] = [int(n) for n in state.initial.shape]
        for axis in begin.follows:
            d = (value.shape or ())[axis]
            if isinstance(d, ir.SymbolicDim) and d.value not in given:
                raise ExportError(
                    f"{state.where}\nThe first call makes {state.label!r}, here {first}, and the size of its "
                    f"axis {axis} depends on the inputs and is none of theirs: no state can begin so. "
                    "Give it its shape before the export."
                )
            if isinstance(d, ir.SymbolicDim):
                first[axis] = str(d.value)
        found.append(replace(state, first=tuple(first)))
    return found


def noted(call: Call, states: Sequence[StateSpec], settled: Sequence[StateSpec]) -> list[Assumption]:
    """What is to be known of the states (`states`: with their first sizes; those that have `settled`)."""
    if call.keep_states:
        what = "{!r} is an input and an output of the model: state that forward changes"
        begin = (
            "{!r} is {} before the first call; the model begins with {}, on which the module gives the same"
        )
        first = {
            label: f"zeros [{', '.join(map(str, s.first))}]" for s in states if s.first for label in s.labels
        }
        found = [
            Assumption("begins", label, begin.format(label, in_words(b.before), first.get(label, b)), "fixed")
            for label, b in call.begins.items()
        ]
        return [*found, *(Assumption("state", s.where, what.format(s.label), "fixed") for s in call.states)]
    what = "{!r} is changed in forward, and no output depends on it; the exported model leaves it alone"
    kept = "{!r} is changed in forward as sizes decide; the exported model begins every call with {}"
    found = [
        Assumption("begins", s.where, kept.format(s.label, in_words(s.initial)), "fixed") for s in settled
    ]
    return [*found, *(Assumption("state", s.where, what.format(s.label), "proved") for s in call.states)]
