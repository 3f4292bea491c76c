"""One recording from start to end: example sizes to symbols, the model run on fake tensors, an ONNX model
out.
"""

# torch's shape environment and fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules.batchnorm import _BatchNorm

from ingot.capture import complex_numbers, torch_control
from ingot.capture.assume import Assumption
from ingot.capture.chance import drawn, watching, written
from ingot.capture.checks import line, require, through_checks
from ingot.capture.choice import Choice, Maybe
from ingot.capture.dims import InputSpec
from ingot.capture.graph import pruned, with_inner
from ingot.capture.handlers import inside_try
from ingot.capture.intercept import (
    Intercept,
    SizeWanted,
    lists_of_tensors,
    python_functions_run_as_they_are,
    refuse_catching,
)
from ingot.capture.lists import Many, Perhaps, Rows
from ingot.capture.passed import Afterwards, Objects, Path
from ingot.capture.record import Dispatch, Recorder
from ingot.capture.request import ACTIVE, Marks, Restart, asking_frame, request
from ingot.capture.scalars import Symbolic, depends_on_data
from ingot.capture.signature import Arguments, Leaf, check_names, leaves, unique_names
from ingot.capture.sizes import SizeEnv, StaleRead
from ingot.capture.state import ABSENT, Change, Snapshot, StateFound, StateMatters, StateSpec
from ingot.capture.swap import swapped
from ingot.capture.symbolic_int import KeepSymbolic, shadowed_int
from ingot.capture.tensors import dtype_of
from ingot.capture.texts import watched_texts
from ingot.capture.translations import translated
from ingot.capture.where import (
    asked_by_user,
    called_by_user,
    converting_frame,
    quoted_line,
    raise_if_ours,
)
from ingot.errors import DataDependentError, ExportError

if TYPE_CHECKING:
    from ingot.capture.warm import Begin

# Recording patches torch for its duration, so one at a time in a process.
_LOCK = threading.RLock()

# The oldest file format that has the opset: what the widest range of runtimes loads.
_IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13}


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


@dataclass
class Call:
    """What to record: one call of a function, and what is known to outlive it."""

    function: Any
    arguments: Arguments
    specs: Sequence[InputSpec]
    output_names: Sequence[str] | None
    opset: int
    states: Sequence[StateSpec] = ()
    state_specs: Sequence[InputSpec] = ()
    settled: Sequence[StateSpec] = ()  # states that the next call finds as it wants them: see `settled`
    keep_states: bool = False  # as inputs and outputs; else they may not matter
    begins: Mapping[str, Begin] = field(default_factory=dict[str, "Begin"])  # for what the first call makes
    marks: Marks = field(default_factory=Marks)  # what is rewritten: one for all recordings of an export
    ranges: Mapping[str, tuple[int, int | None]] = field(default_factory=dict[str, tuple[int, int | None]])


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
    while True:
        try:
            return _record(call, hints)
        except KeepSymbolic as found:
            marks.symbolic_int.append(found.module_globals)
        except Restart:
            pass  # the function is marked
        except Exception:
            # A branch on sizes may follow the example, written down as an assumption.
            if not marks.give_up_sizes():
                raise


@dataclass
class _Run:
    """A model that has run on fake tensors."""

    recorder: Recorder
    inputs: list[ir.Value]
    fakes: list[Any]
    objects: Objects
    output: Any


def _record(call: Call, hints: dict[str, int]) -> Recording:
    with (
        _LOCK,
        swapped(list(call.marks.needed)),
        torch_control.understood(),
        unchanged(call.function, call.keep_states) as snapshot,
        shadowed_int(call.marks.symbolic_int),
    ):
        with quiet_torch():
            for label, begin in call.begins.items():
                snapshot.begin(label, begin.place, begin.value)
            before = drawn()
            with watched_texts() as texts:
                run = _run(call, hints, snapshot)
            chance = drawn() != before
            first = written(run.recorder)
            recorder = run.recorder
            known = {label for s in (*call.states, *call.settled) for label in s.labels}
            changes = [c for c in snapshot.changes() if c.label not in known]
            _require_known(recorder, snapshot, changes)
            with torch.no_grad(), recorder.mode:
                after = run.objects.look(recorder)
                outputs, names, carried = _outputs(call, run, after)
                following = _next_states(call, run, snapshot, outputs)
            others = _leftovers(call, hints, snapshot, run, changes, first)
            if chance:
                others.append(_without_chance(call, hints, snapshot, first))
            elif snapshot.unsteady:
                _require_steady(call, hints, snapshot, first)
            if texts.lines:
                others.append(_without_texts(call, hints, snapshot, first, texts.lines))
        matter = _mattering(call, run, outputs, following)
        if matter and not call.keep_states:
            raise StateMatters(matter)
        inputs, kept = run.inputs, list(call.states)
        if call.keep_states:
            outputs.extend(following)
        else:
            inputs, kept = inputs[: len(call.specs)], []
        recorder.untie_transposed()
        for value, fake in zip(run.inputs, run.fakes, strict=True):
            shape = fake.shape if isinstance(fake, torch.Tensor) else ()
            if isinstance(fake, torch.Tensor) and fake.is_complex():
                shape = (*shape, 2)
            value.shape = ir.Shape([recorder.dim_label(d) for d in shape])
        model = _model(recorder, inputs, outputs, _held_by_objects(call, run))
        used = {str(v.name) for v in model.graph.inputs}
        assumptions = [*recorder.assumptions, *_noted(call), *others]
        return Recording(
            model,
            recorder.env,
            recorder,
            after.structure(recorder, run.output),
            names[: len(names) - len(after.left)],
            {name: x.path for name, x in zip(names[len(names) - len(after.left) :], after.left, strict=True)},
            {before: name for before, name in carried.items() if before in used},
            assumptions,
            kept,
            list(call.states),
            call.begins,
        )


def _run(
    call: Call,
    hints: dict[str, int],
    snapshot: Snapshot,
    prepare: Callable[[Recorder], None] | None = None,
) -> _Run:
    """Run the function once, with inputs in the place of its arguments' tensors and of its state."""
    env = SizeEnv()
    recorder = Recorder(env, call.opset)
    env.on_int = lambda e: _before_number(e, call.marks.symbolic_int, recorder)
    env.on_branch = lambda e: _before_branch(e, recorder)
    env.on_check = lambda e: _before_check(e, recorder)
    recorder.labels_of = snapshot.labels_of
    function = call.function
    if isinstance(function, torch.nn.Module):
        named = [*function.named_parameters(remove_duplicate=False), *function.named_buffers()]
        for name, tensor in named:
            recorder.parameter_names.setdefault(id(tensor), name)
    symbols: dict[str, torch.SymInt] = {}
    inputs: list[ir.Value] = []
    fakes: list[Any] = []
    with torch.no_grad(), recorder.mode:
        for spec in (*call.specs, *call.state_specs):
            dtype = complex_numbers.REAL.get(spec.dtype, spec.dtype)
            value = ir.Value(name=recorder.graph.unique(spec.name), type=ir.TensorType(dtype_of(dtype)))
            inputs.append(value)
            if spec.number is not None:
                fakes.append(recorder.add_number(value, hints[spec.name], spec.number))
                continue
            for d in spec.dims:
                if isinstance(d, str) and d not in symbols:
                    symbols[d] = env.new_dim(d, hints[d])
                    if d in call.ranges:
                        env.declare_range(symbols[d], *call.ranges[d])
            sizes = [symbols[d] if isinstance(d, str) else d for d in spec.dims]
            is_complex = spec.dtype.is_complex  # pairs of real numbers in the model's file
            fake = torch.empty([*sizes, 2] if is_complex else sizes, dtype=dtype)
            recorder.add_input(fake, value, of_caller=len(fakes) < len(call.specs))
            fakes.append(recorder.recorded(torch.view_as_complex, fake) if is_complex else fake)
        for state, fake in zip(call.states, fakes[len(call.specs) :], strict=True):
            for label in state.labels:
                snapshot.places[label].set(fake)
        if prepare is not None:
            prepare(recorder)
        args, kwargs = call.arguments.with_tensors(fakes[: len(call.specs)])
        objects = Objects((args, kwargs), call.arguments)
        modules = function.modules() if isinstance(function, torch.nn.Module) else iter(())
        with (
            module_paths(function, recorder),
            translated(recorder, modules),
            python_functions_run_as_they_are(),
            lists_of_tensors(recorder),
            Intercept(recorder),
            Dispatch(recorder),
            active(recorder, call.marks),
        ):
            output = _called(function, args, kwargs, recorder)
        recorder.missing.raise_if_any()
    return _Run(recorder, inputs, fakes, objects, output)


# -- state


def _require_known(recorder: Recorder, snapshot: Snapshot, changes: Sequence[Change]) -> None:
    """Start again with an input for what the call turned out to change."""
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
            if not isinstance(c.after, (torch.Tensor, *Symbolic)):
                by = "nothing"
            elif isinstance(c.after, Symbolic) and not depends_on_data(recorder, recorder.env.expr(c.after)):
                by = "sizes"
            where = snapshot.line_of(c.label)
            found[c.label] = StateSpec(c.label, c.before, where, (c.label,), named, decided_by=by)
    if found:
        raise StateFound(list(found.values()))


def _next_states(call: Call, run: _Run, snapshot: Snapshot, outputs: list[ir.Value]) -> list[ir.Value]:
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
        value = _as_output(run.recorder, after, [*outputs, *made])
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


def _leftovers(
    call: Call,
    hints: dict[str, int],
    snapshot: Snapshot,
    run: _Run,
    changes: Sequence[Change],
    first: list[str],
) -> list[Assumption]:
    """What a call left behind where nothing of its kind stood before: harmless if the next call, which finds
    it there, is the same function without reading it.

    Raises:
        ExportError: the next call reads what the inputs decided.
    """
    if not changes:
        return []
    where = {c.label: snapshot.line_of(c.label) for c in changes}
    read: str | None = None
    try:
        second = _run(call, hints, snapshot, lambda g: _leave_stale(g, run.recorder, changes))
        if written(second.recorder) != first:
            read = changes[0].label
    except StaleRead as stale:
        read = stale.label
    except Exception as error:  # whatever the model's own Python makes of what the first call left
        raise_if_ours(error)
        read = changes[0].label
    if read is None:
        what = "{!r} is written in forward before it is read; the exported model does not keep it"
        return [Assumption("state", where[c.label], what.format(c.label), "proved") for c in changes]
    for c in changes:
        value = run.recorder.value_of(c.after)
        if value is not None and _depends_on_data(value, run.inputs):
            before = _in_words(c.before)
            raise ExportError(
                f"{where[c.label]}\n"
                f"forward leaves a tensor in {c.label!r}, where {before} stood before the call, and a later "
                "call reads it: state that outlives the call, and no input of the model can be both. Make it "
                'a tensor of its dtype and shape before the export, and export with state="inputs".'
            )
    plain = [c for c in changes if not isinstance(c.after, (torch.Tensor, *Symbolic))]
    if plain and len(plain) == len(changes):
        raise ExportError(
            f"{where[plain[0].label]}\n"
            f"forward leaves {plain[0].after!r} in {plain[0].label!r}, and the next call is another model "
            "for it: state that outlives the call, in a place that no input can take. Keep it in an "
            "attribute or buffer of the module, with a value from the start, and export with "
            'state="inputs"; or pass it in.'
        )
    what = "{!r} is kept by forward for later calls; the exported model makes it anew in each"
    return [Assumption("state", where[c.label], what.format(c.label), "assumed") for c in changes]


def _in_words(x: Any) -> str:
    if isinstance(x, torch.Tensor):
        return f"{x.dtype} {list(x.shape)}"
    return "nothing" if x is ABSENT else repr(x)


def _without_chance(
    call: Call,
    hints: dict[str, int],
    snapshot: Snapshot,
    wanted: list[str],
) -> Assumption:
    """Random numbers of Python's were drawn: harmless if other draws give the same model.

    Raises:
        ExportError: they do not.
    """
    line = "<unknown>"
    for _ in range(2):
        _restore_state(call, snapshot)
        with watching() as found:
            again = _run(call, hints, snapshot)
        line = found()
        if written(again.recorder) != wanted:
            raise ExportError(
                f"{line}\nforward draws a random number here, with Python's random or NumPy's, and the "
                "model depends on it: the export would keep one draw for ever. Draw it outside of forward "
                "and pass it as an argument, or switch the random part off."
            )
    what = "random numbers are drawn in Python; three recordings with other numbers are the same model"
    return Assumption("constant", line, what, "proved")


def _require_steady(call: Call, hints: dict[str, int], snapshot: Snapshot, wanted: list[str]) -> None:
    """Raise ExportError where another recording, from the same state, gives another model."""
    _restore_state(call, snapshot)
    if written(_run(call, hints, snapshot).recorder) != wanted:
        raise ExportError(
            f"{snapshot.first_line}\n"
            "forward is another model each time it runs: it depends on the time, the system's randomness or "
            "an iterator outside of it. Take that out of forward and pass it as an argument."
        )


def _without_texts(
    call: Call, hints: dict[str, int], snapshot: Snapshot, wanted: list[str], lines: Sequence[str]
) -> Assumption:
    """Sizes or tensors were written into strings: harmless if strings with other numbers give the same model.

    Raises:
        ExportError: they do not.
    """
    _restore_state(call, snapshot)
    try:
        with watched_texts(varied=True):
            same = written(_run(call, hints, snapshot).recorder) == wanted
    except Exception as error:  # whatever the model's own Python makes of another string
        raise_if_ours(error)
        same = False
    if not same:
        raise DataDependentError(
            f"{lines[0]}\nThis line writes a size or tensor into a string, and the model depends on the "
            "string: the export would keep the example's for ever. Compute with the number itself, or choose "
            "with `if` on it."
        )
    return Assumption("constant", lines[0], "sizes in strings do not change the model", "proved")


def _restore_state(call: Call, snapshot: Snapshot) -> None:
    """Let the model hold what it held before the first call."""
    snapshot.restore()
    for label, begin in call.begins.items():
        snapshot.begin(label, begin.place, begin.value)


def _leave_stale(recorder: Recorder, first: Recorder, changes: Sequence[Change]) -> None:
    """Let stand what the first call left, with tensors and sizes that raise where they are read."""
    for c in changes:
        if isinstance(c.after, torch.Tensor):
            real = first.real(c.after)
            c.place.set(recorder.stale_tensor(c.label, c.after) if real is None else real)
        elif isinstance(c.after, (torch.SymInt, torch.SymFloat)):
            c.place.set(recorder.env.stale_number(c.label))


def _uses(node: ir.Node) -> Generator[ir.Value]:
    """What a node reads, its subgraphs included."""
    yield from (v for v in node.inputs if v is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from (v for inner in attribute.as_graph() for v in _uses(inner))
            yield from attribute.as_graph().outputs


def _depends_on_data(value: ir.Value, inputs: Sequence[ir.Value]) -> bool:
    """Whether the elements of an input decide a value; its sizes alone may."""
    wanted, seen, todo = set(map(id, inputs)), set[int](), [value]
    while todo:
        v = todo.pop()
        if id(v) in wanted:
            return True
        node = v.producer()
        if node is not None and id(node) not in seen and node.op_type != "Shape":
            seen.add(id(node))
            todo.extend(_uses(node))
    return False


def _mattering(
    call: Call, run: _Run, outputs: Sequence[ir.Value], following: Sequence[ir.Value]
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
            todo.extend(_uses(node))
    return [s for i, s in enumerate(call.states) if i in found]


def _noted(call: Call) -> list[Assumption]:
    """What is to be known of the states."""
    if call.keep_states:
        what = "{!r} is an input and an output of the model: state that forward changes"
        begin = (
            "{!r} is {} before the first call; the model begins with {}, on which the module gives the same"
        )
        found = [
            Assumption("state", label, begin.format(label, _in_words(b.before), b), "assumed")
            for label, b in call.begins.items()
        ]
        return [*found, *(Assumption("state", s.where, what.format(s.label), "fixed") for s in call.states)]
    what = "{!r} is changed in forward, and no output depends on it; the exported model leaves it alone"
    kept = "{!r} is changed in forward as sizes decide; the exported model begins every call with {!r}"
    return [
        *(Assumption("state", s.where, kept.format(s.label, s.initial), "assumed") for s in call.settled),
        *(Assumption("state", s.where, what.format(s.label), "proved") for s in call.states),
    ]


@contextlib.contextmanager
def active(recorder: Recorder, marks: Marks) -> Generator[None]:
    """The recording that the runtime of rewritten functions belongs to.

    Raises:
        Restart: at the end, if the model's own `except:` swallowed it.
    """
    ACTIVE.recorder, ACTIVE.marks, ACTIVE.pending, ACTIVE.refusal = recorder, marks, None, None
    try:
        yield
    except Exception:
        if ACTIVE.pending is not None:
            raise ACTIVE.pending from None
        if ACTIVE.refusal is not None:
            raise ACTIVE.refusal from None
        raise
    finally:
        ACTIVE.recorder = None
    if ACTIVE.pending is not None:
        raise ACTIVE.pending
    if ACTIVE.refusal is not None:
        raise ACTIVE.refusal


def _called(function: Any, args: Any, kwargs: Any, recorder: Recorder) -> Any:
    """The model's output. A variable that a branch left without a value is named with the reason."""
    try:
        return function(*args, **kwargs)
    except SizeWanted as error:
        raise _number_wanted(error, "torch's own code needs it as a number") from None
    except (TypeError, AttributeError, RuntimeError) as error:
        if "unhashable type: non-nested Sym" in str(error):
            frame = _innermost(error)
            request(frame)
            raise DataDependentError(
                f"{quoted_line(frame)}\n"
                "Data or a size decides a number that is a key of a dict or an element of a set here. "
                "Look it up with `table[key]` in a function of the model's own, or compute with tensors."
            ) from None
        if not any(word in str(error) for word in _SYMBOLIC_KINDS):
            raise
        request(_innermost(error))
        raise _number_wanted(error, str(error)) from None
    except NameError as error:
        why = recorder.poisoned.get(str(error.name))
        if why is None:
            raise
        line = quoted_line(_innermost(error))
        raise DataDependentError(
            f"{line}\n"
            f"This uses {error.name!r}, which data decides: it is {why}. No ONNX value can hold both. "
            "Give both sides "
            "the same kind of value: tensors of one dtype and rank, or numbers of one type."
        ) from None


# How Python's own errors call a number that only the run knows.
_SYMBOLIC_KINDS = (
    "SymInt", "SymFloat", "SymBool", "BooleanAtom", "arguments should be Rational", "'Rows' object",
    "on tensor with symbolic sizes/strides", "Can't pickle local object '_run.",
)  # fmt: skip


def _number_wanted(error: BaseException, why: str) -> DataDependentError:
    return DataDependentError(
        f"{quoted_line(_innermost(error))}\n"
        f"Data or a size decides what Python alone can use here ({why.splitlines()[0]}). Compute with "
        "+, -, *, //, %, min, max and math, or with tensors; or make the dimension static with "
        "dynamic_shapes."
    )


def _innermost(error: BaseException) -> FrameType | None:
    """The frame that an error comes from."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at.tb_frame if at is not None else None


def _outputs(call: Call, run: _Run, after: Afterwards) -> tuple[list[ir.Value], list[str], dict[str, str]]:
    """Name the tensors the model returned and put an Identity under those that are an input, a constant or
    repeated. Behind them stand those that it left in its arguments' objects; last, which output is the next
    call's input.
    """
    recorder, inputs, names = run.recorder, call.arguments.names, call.output_names
    found: list[Leaf] = []
    for leaf in leaves(run.output):
        v = leaf.value
        if isinstance(v, (torch.Tensor, *Symbolic)):
            if after.is_output(recorder, leaf):
                found.append(leaf)
        elif isinstance(v, (Maybe, Choice, Perhaps, Many, Rows)):
            raise ExportError(
                f"data decides what kind of thing the model returns at {leaf.name or 'its output'}: "
                "None or a "
                "tensor, or a list of some length. Return one tensor: torch.stack the list, or a "
                "flag beside it."
            )
        elif v is not None and not leaf.inside and not isinstance(v, (bool, int, float, str)):
            raise ExportError(
                f"the model returns a {type(v).__name__} at {leaf.name or 'its output'}; wanted tensors, "
                "in tuples, lists, dicts, dataclasses or plain objects. Return the tensors inside it."
            )
    left = after.unreturned([leaf.value for leaf in found])
    if not found and not left:
        raise ExportError(
            f"the model returns no tensor but {type(run.output).__name__}. Return at least one tensor."
        )
    named = [after.name_of(leaf.value, leaf.name) if leaf.path else "output" for leaf in found]
    named = [f"output_{n}" if n.isdigit() else n for n in named]
    if names is not None:
        check_names("output_names", names, named, inputs)
        named[: len(names)] = names
    taken = {v.name for v in recorder.graph.initializers.values()}
    named = unique_names([*named, *(x.output_name for x in left)], inputs)
    recorder.graph.scope = ""
    outputs: list[ir.Value] = []
    for value in [*(leaf.value for leaf in found), *(x.value for x in left)]:
        outputs.append(_as_output(recorder, value, outputs))
    for name, value in zip(named, outputs, strict=True):
        value.name = recorder.graph.unique(name) if name in taken else name
    written = [str(v.name) for v in outputs]
    values = [*(leaf.value for leaf in found), *(x.value for x in left)]
    return outputs, written, after.carried(values, written)


def _as_output(recorder: Recorder, v: Any, outputs: Sequence[ir.Value]) -> ir.Value:
    """The value of a tensor or number, one that no other output is."""
    if isinstance(v, torch.Tensor) and v.is_complex():
        v = complex_numbers.as_pairs(recorder, v)
    kind = ir.DataType.INT64 if isinstance(v, (torch.SymInt, int)) else ir.DataType.DOUBLE
    kind = ir.DataType.BOOL if isinstance(v, (torch.SymBool, bool)) else kind
    value = recorder.graph.const(v, kind) if isinstance(v, (bool, int, float)) else recorder.val(v)
    value = through_checks(recorder, value)
    if value.producer() is None or value in outputs or value.is_graph_output():
        shape, dtype = value.shape, value.type
        value = recorder.op("Identity", value)
        value.shape, value.type = shape, dtype
    if isinstance(v, torch.Tensor):
        value.type, value.shape = ir.TensorType(dtype_of(v.dtype)), None
        recorder.annotate(value, v)
    else:
        value.type, value.shape = ir.TensorType(kind), ir.Shape([])
    return value


def _held_by_objects(call: Call, run: _Run) -> set[int]:
    """The inputs that objects among the arguments hold: what no output needs of an object is no input."""
    rows = zip(run.inputs, call.arguments.tensor_leaves, strict=False)
    return {id(v) for v, leaf in rows if leaf.inside}


def _model(
    recorder: Recorder, inputs: list[ir.Value], outputs: list[ir.Value], optional: set[int]
) -> ir.Model:
    """Nodes that lead to an output, initializers that are used, names that are unique.

    The `optional` inputs are left out where no output needs them.
    """
    needed, alive = pruned(recorder.graph.nodes, outputs)
    inputs = [v for v in inputs if id(v) in alive or id(v) not in optional]
    own = {v.name for v in [*inputs, *outputs]}
    held = set(map(id, outputs))
    every = list(with_inner(needed))
    for node in every:
        for v in node.outputs:
            if v.name in own and id(v) not in held:
                v.name = recorder.graph.unique(str(v.name))
    for v in [v for node in every for v in node.outputs]:
        if v.shape is not None and v not in outputs:
            v.shape = ir.Shape([_canonical(recorder, d) for d in v.shape])
    initializers = [v for v in recorder.graph.initializers.values() if id(v) in alive]
    for v in initializers:
        if v.name in own:
            v.name = recorder.graph.unique(str(v.name))
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=needed,
        initializers=initializers,
        opset_imports={"": recorder.opset} | {node.domain: 1 for node in needed if node.domain},
        name="main",
    )
    return ir.Model(
        graph,
        ir_version=_IR_VERSIONS.get(recorder.opset, 10),
        producer_name="ingot",
        functions=_functions(recorder, every),
    )


def _functions(recorder: Recorder, nodes: Sequence[ir.Node]) -> list[ir.Function]:
    """The model's ONNX functions that its nodes call."""
    called = {node.op_identifier() for node in nodes}
    return [f for identifier, f in recorder.functions.items() if identifier in called]


def _canonical(recorder: Recorder, dim: int | ir.SymbolicDim) -> int | str | None:
    """A dimension's label after the model fixed or unified it."""
    if isinstance(dim, int):
        return dim
    label = dim.value
    if not isinstance(label, str):
        return None
    for symbol, name in recorder.env.names.items():
        if name == label:
            e = recorder.env.canon(symbol)
            return int(e) if e.is_number else recorder.env.names[e]
    return label


# -- int(size)


def _globals_of(function: Any) -> list[dict[str, Any]]:
    """Globals of the Python modules that a model's classes come from: `int` is theirs to call on sizes."""
    recurrent: Any = vars(torch.nn.modules.rnn)  # takes int() of how many sequences a packed one has
    if not isinstance(function, torch.nn.Module):
        own: Any = getattr(getattr(function, "__func__", function), "__globals__", None)
        return [recurrent] if own is None or "int" in own else [recurrent, own]
    names = {type(m).__module__ for m in function.modules()}
    found = [n for n in names if n in sys.modules and n.split(".")[0] not in ("torch", "builtins")]
    return [recurrent] + [vars(sys.modules[n]) for n in sorted(found) if "int" not in vars(sys.modules[n])]


def _before_branch(condition: Any, recorder: Recorder) -> None:
    """The user's Python is about to branch on a condition that only the run knows: rewrite the function.

    Raises:
        Restart: to start again with it.
        DataDependentError: data decides, and the function has no staged form for this.
    """
    frame = converting_frame("", depth=3) or asking_frame()
    data = depends_on_data(recorder, condition)
    request(frame, needed=data)
    if data:
        raise DataDependentError(
            f"{quoted_line(frame)}\n"
            "Data decides this condition, in a place where Python alone can ask: inside a library's "
            "or a built-in "
            "function, a generator or a class body. Write it as an `if`, loop or `and`/`or` of the "
            "function's own, or "
            "with torch.where."
        )


def _before_check(condition: Any, recorder: Recorder) -> bool:
    """The user's own torch._check: where data decides, it is a check in the graph. An operator's own is the
    operator's there, unless the model would catch what it raises.
    """
    if not depends_on_data(recorder, condition):
        return False
    if not called_by_user("_check"):
        if inside_try() and recorder.env.known(condition) is None:
            refuse_catching("an operator's operands may not fit each other")
        return False
    require(recorder, recorder.sizes.scalar_of(condition), f"`{line()}`")
    return True


def _before_number(condition: Any, already: Sequence[dict[str, Any]], recorder: Recorder) -> None:
    """A size is about to become a Python number: see whether that can be avoided.

    `int(x.shape[0])` in the user's code: start again with an `int` that leaves sizes as they are. torch's
    own C++:
    take the operator's Python form instead.
    """
    asking = converting_frame("")
    data = depends_on_data(recorder, condition)
    frame = converting_frame("__int__")
    if frame is None or data:
        request(asking, needed=data)
    if data and asking is not None:
        raise DataDependentError(
            f"{quoted_line(asking)}\n"
            "Data decides this number, and Python alone can use it here: as a key, a count of list "
            "elements, or an "
            "argument of a library's function. Compute with tensors, or pass the number in as an argument."
        )
    if frame is not None:
        if not any(frame.f_globals is g for g in already):
            raise KeepSymbolic(frame.f_globals)
    elif not asked_by_user() and not recorder.in_python:
        raise SizeWanted


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


# -- the module while it runs


@contextlib.contextmanager
def module_paths(function: Any, recorder: Recorder) -> Generator[None]:
    """Keep the path of the running submodule in `recorder.modules`."""
    if not isinstance(function, torch.nn.Module):
        yield
        return
    paths = {id(m): name for name, m in function.named_modules()}
    hooks: Any = torch.nn.modules.module

    def enter(module: Any, *_: Any) -> None:
        recorder.modules.append(paths.get(id(module), recorder.modules[-1] if recorder.modules else ""))

    def leave(*_: Any) -> None:
        if recorder.modules:
            recorder.modules.pop()

    first = hooks.register_module_forward_pre_hook(enter)
    last = hooks.register_module_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        first.remove()
        last.remove()


@contextlib.contextmanager
def unchanged(function: Any, keep_batch_norm: bool = False) -> Generator[Snapshot]:
    """eval() for the time of the run; mode and everything the model holds as before afterwards.

    With `keep_batch_norm`, BatchNorm layers in training mode stay in it.
    """
    modules = list(function.modules()) if isinstance(function, torch.nn.Module) else []
    modes = [m.training for m in modules]
    for m in modules:
        m.training = m.training and keep_batch_norm and isinstance(m, _BatchNorm)
    script = isinstance(function, torch.jit.ScriptModule)  # what it holds is not Python's
    snapshot = Snapshot(None if script else function)
    try:
        yield snapshot
    finally:
        snapshot.restore()
        for m, mode in zip(modules, modes, strict=True):
            m.training = mode


def is_fake(tensor: Any) -> bool:
    """Whether a tensor is one of a recording's."""
    return isinstance(tensor, FakeTensor)
