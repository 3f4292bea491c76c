"""A recording from start to end: runs until nothing more is found out, then an ONNX model."""

# torch's shape environment and fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture import arrays, torch_control
from ingot.capture.alive import remembered
from ingot.capture.assume import Assumption
from ingot.capture.chance import drawn, written
from ingot.capture.checks import demanded
from ingot.capture.handlers import suppressions_seen
from ingot.capture.inference import without_inference_mode
from ingot.capture.kinds import Globals
from ingot.capture.mathematics import numpy_understood
from ingot.capture.memos import is_kept, require_transparent
from ingot.capture.model import held_by_objects, model_of, outputs_of, plain_outputs
from ingot.capture.passed import Path
from ingot.capture.record import Recorder
from ingot.capture.remembering import formulas_remembered
from ingot.capture.request import ACTIVE, Marks, Restart
from ingot.capture.reruns import (
    leftovers,
    require_steady,
    without_chance,
    without_layouts,
    without_texts,
)
from ingot.capture.run import Call, run_model
from ingot.capture.sizes import SizeEnv
from ingot.capture.state import Snapshot, StateFound, StateMatters, StateSpec
from ingot.capture.state_values import mattering, next_states, noted, require_known, with_first_sizes
from ingot.capture.swap import swapped
from ingot.capture.symbolic_int import KeepSymbolic, shadowed
from ingot.capture.texts import watched_texts
from ingot.capture.tries import Tries
from ingot.capture.truths import counted
from ingot.capture.unchanged import evaluating, left_training, put_back
from ingot.capture.where import raise_if_ours

if TYPE_CHECKING:
    from ingot.capture.warm import Begin

# Recording patches torch for its duration, so one at a time in a process.
_LOCK = threading.RLock()


@dataclass
class Recording:
    """What one run of the model's Python gave."""

    model: ir.Model
    env: SizeEnv
    recorder: Recorder
    output: Any  # the structure the model returned, with fake tensors as leaves
    output_names: list[str]  # of what the model returns
    left: dict[str, Path]  # outputs for what the call left in objects; where, from (args, kwargs)
    carried: dict[str, str]  # inputs that objects hold, and the outputs that are the next call's
    assumptions: list[Assumption]
    states: list[StateSpec]  # inputs and outputs of the model
    touched: list[StateSpec]  # everything that a call writes to and a later call could see
    begins: Mapping[str, Begin]  # where the module begins otherwise
    presumed: list[StateFound | StateMatters]  # to raise where states do not settle as is presumed of them


@remembered()
@formulas_remembered()
def record(call: Call, hints: dict[str, int]) -> Recording:
    """Run the function on fake tensors whose symbolic sizes have the given hints, writing ONNX as it goes.

    It runs once; and once more for each other Python module that calls `int()` on a size, with an `int` that
    lets sizes be; and once more for each function whose Python depends on data or sizes, with that function
    rewritten (`rewrite`, `stage`).

    Raises:
        DataDependentError, MissingOperatorError, ExportError: with the user's line.
        StateFound: the call changes what outlives it, and `call.states` does not have it yet.
        Exception: whatever the model raises for these sizes.
    """
    marks = call.marks
    marks.begin(_globals_of(call.function))
    known = bool(call.states or call.settled)  # which might be none then
    tables = marks.tables
    tries = Tries()
    training = left_training(call.function, call.keep_states)
    try:
        with _LOCK, evaluating(call.function, call.keep_states) as snapshot:
            while True:
                try:
                    marks.mark(snapshot.codes, snapshot.makers)
                    return _record(call, hints, snapshot, training)
                except KeepSymbolic as found:
                    marks.symbolic_int.append(found.module_globals)
                except Restart:
                    pass  # the function is marked
                except Exception as error:
                    raise_if_ours(error)
                    how = "" if error is ACTIVE.final else _another_way(marks, known)
                    if not how:
                        tries.tell(error)
                        raise
                    tries.note(error, how)
    finally:
        marks.tables = tables  # for other sizes they may be free


def _another_way(marks: Marks, known: bool) -> str:
    """Mark what is otherwise in another try, and say it; nothing where all was tried.

    known: what the call changes is, tables among it
    """
    if marks.take_unjoined_apart():
        return "with a function recorded for either answer to what it asks of sizes"
    if not known and marks.fix_tables():
        return "with the tables that the module keeps as the example leaves them"
    # A branch on sizes may follow the example, written down as an assumption.
    return "with branches on sizes as the example takes them" if marks.give_up_sizes() else ""


def _record(
    call: Call, hints: dict[str, int], snapshot: Snapshot, training: Sequence[Assumption]
) -> Recording:
    """training: layers that are recorded in another mode than they were in"""
    with (
        swapped(
            list(call.marks.needed),
            list(call.marks.apart),
            {code.co_filename for code in (*snapshot.codes, *snapshot.makers)},
        ),
        torch_control.understood(),
        put_back(snapshot),
        shadowed(call.marks.symbolic_int, call.marks.models_own),
        counted(),
        numpy_understood(),
        suppressions_seen(),
    ):
        with quiet_torch(), without_inference_mode():
            for label, begin in call.begins.items():
                snapshot.begin(label, begin.place, begin.value)
            before = drawn()
            call.marks.begin_run()
            with watched_texts() as texts:
                run = run_model(call, hints, snapshot)
            arrays.require_unchanged(run.recorder.shown)
            chance = drawn() != before
            recorder = run.recorder
            known = {label for s in (*call.states, *call.settled.values()) for label in s.labels}
            changes = [c for c in snapshot.changes() if c.label not in known and not is_kept(c)]
            found = require_known(call, run, snapshot, changes)
            presumed: list[StateFound | StateMatters] = [] if found is None else [found]
            taken = {s.label for error in presumed for s in error.states}
            changes = [c for c in changes if c.label not in taken]
            proved = changes or chance or snapshot.unsteady or recorder.layouts or texts.lines
            first = written(recorder) if proved else []  # what another run has to write too
            with torch.no_grad(), recorder.mode:
                demanded(recorder)
                after = run.objects.look(recorder)
                outputs, names, carried = outputs_of(call, run, after)
                following = next_states(call, run, snapshot, outputs)
            others = [*require_transparent(recorder, snapshot)]
            left = leftovers(call, hints, snapshot, run, changes, first)
            if isinstance(left, StateMatters):
                presumed.append(left)
            else:
                others += left
            if chance:
                others.append(without_chance(call, hints, snapshot, first))
            elif snapshot.unsteady:
                others += require_steady(call, hints, snapshot, first)
            if recorder.layouts:
                others.append(without_layouts(call, hints, snapshot, first, recorder.layouts))
            if texts.lines:
                others.append(without_texts(call, hints, snapshot, first, texts.lines))
        matter = mattering(call, run, outputs, following)
        if matter and not call.keep_states:
            raise StateMatters(matter)
        inputs, kept = run.inputs, list(call.states)
        if call.keep_states:
            outputs.extend(following)
        else:
            inputs, kept = inputs[: len(call.specs)], []
        recorder.weights.untie_transposed()
        for value, fake in zip(run.inputs, run.fakes, strict=True):
            shape = fake.shape if isinstance(fake, torch.Tensor) else ()
            if isinstance(fake, torch.Tensor) and fake.is_complex():
                shape = (*shape, 2)
            value.shape = ir.Shape([recorder.dim_label(d) for d in shape])
        settled = [*call.settled.values(), *(s for error in presumed for s in error.states)]
        states = with_first_sizes(call, run)
        kept = states if call.keep_states else kept
        model = model_of(recorder, inputs, outputs, held_by_objects(call, run))
        used = {str(v.name) for v in model.graph.inputs}
        assumptions = [
            *training,
            *recorder.assumptions,
            *noted(call, states, settled),
            *plain_outputs(run.output),
            *others,
            *after.lost,
        ]
        made = Recording(
            model,
            recorder.env,
            recorder,
            run.output,
            names[: len(names) - len(after.left)],
            {name: x.path for name, x in zip(names[len(names) - len(after.left) :], after.left, strict=True)},
            {before: name for before, name in carried.items() if before in used},
            assumptions,
            kept,
            list(call.states),
            call.begins,
            presumed,
        )
    # Behind the rewriting: the classes of what the model returns are made of it, and may be its own.
    return replace(made, output=after.structure(recorder, run.output))


def _globals_of(function: Any) -> list[Globals]:
    """Globals of the Python modules that a model's classes come from, or the model where it is a function."""
    if not isinstance(function, torch.nn.Module):
        own: Any = getattr(getattr(function, "__func__", function), "__globals__", None)
        return [] if own is None else [own]
    names = {type(m).__module__ for m in function.modules()}
    found = [n for n in names if n in sys.modules and n.split(".")[0] not in ("torch", "builtins", "ingot")]
    return [vars(sys.modules[n]) for n in sorted(found)]


@contextlib.contextmanager
def quiet_torch() -> Generator[None]:
    """torch logs every error of a fake tensor with a traceback; the error itself reaches the caller
    anyway.
    """
    loggers = [
        logging.getLogger(n) for n in ("torch._subclasses.fake_tensor", "torch.fx.experimental.sym_node")
    ]
    levels = [x.level for x in loggers]
    for x in loggers:
        x.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for x, level in zip(loggers, levels, strict=True):
            x.setLevel(level)
