"""From a call of the model to a finished capture: records it, again where states or sizes turn out to
matter, and sums up what was assumed.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from ingot.capture.alive import remembered
from ingot.capture.annotations import annotated_inputs
from ingot.capture.assume import Assumption
from ingot.capture.bounds import follows
from ingot.capture.dims import DimTable, InputSpec, input_specs, state_specs
from ingot.capture.example_sizes import with_chosen_sizes, with_larger_sizes, with_unequal_sizes
from ingot.capture.formats import opened, read
from ingot.capture.passed import CountsFound
from ingot.capture.recording import Recording, record
from ingot.capture.remembering import formulas_remembered
from ingot.capture.request import Marks
from ingot.capture.run import Call
from ingot.capture.scalars import Symbolic
from ingot.capture.settled import settle
from ingot.capture.signature import Arguments, Kept, arguments_of, rebuild
from ingot.capture.state import StateFound, StateMatters, StateSpec
from ingot.capture.tensors import zero_copy
from ingot.capture.tries import beside_the_first
from ingot.capture.warm import Begin, begins, refusal
from ingot.capture.where import raise_if_ours, raised_at
from ingot.capture.wording import in_bounds, in_users_terms, in_words
from ingot.errors import DataDependentError, ExportError

OPSETS = range(18, 26)
READABLE = 200  # characters of a formula
_RAISED = re.compile(r"^RuntimeError: ")


@dataclass
class Capture:
    """A finished recording with the call it came from."""

    source: Any
    arguments: Arguments
    specs: list[InputSpec]
    table: DimTable
    recording: Recording
    assumptions: list[Assumption]
    attempt: Callable[[dict[str, int]], Recording]  # records again with other example sizes
    original: Any = None  # what verification compares with: a scripted module itself, not its graph run here
    #: records again as the model runs where nobody traces it, if its code asks
    as_untraced: Callable[[], Capture] | None = None

    @property
    def model(self) -> ir.Model:
        """The ONNX graph."""
        return self.recording.model

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return self.recording.output_names

    def feeds(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """Arrays by the names of the inputs that the model has."""
        used = {str(v.name) for v in self.model.graph.inputs}
        rows = zip(self.specs, inputs, strict=True)
        return {
            s.name: np.asarray(x, str(s.dtype).removeprefix("torch.")) if s.number else zero_copy(x)
            for s, x in rows
            if s.name in used
        }

    def output_structure(self, mark: Any) -> Any:
        """The model's output with `mark` in the place of every tensor."""
        kinds = (torch.Tensor, *Symbolic)

        def shown(v: Any) -> Any:
            if isinstance(v, Kept):
                return v.value
            return mark if isinstance(v, kinds) else v

        return rebuild(self.recording.output, shown)


@remembered()
@formulas_remembered()
def capture(
    model: Any,
    args: Any,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_shapes: Any = "auto",
    opset: int = 20,
    state: str = "refuse",
    untraced: bool = False,
) -> Capture:
    """Record the model; see `ingot.export` for the arguments.

    untraced: code of the model's that asks hears that it is not traced
    """
    again = partial(
        capture,
        model,
        args,
        kwargs=kwargs,
        input_names=input_names,
        output_names=output_names,
        dynamic_shapes=dynamic_shapes,
        opset=opset,
        state=state,
        untraced=True,
    )
    if type(opset) is not int or opset not in OPSETS:  # 20.0 is in them
        raise ExportError(
            f"opset_version is {opset!r}; Ingot writes {OPSETS.start} to {OPSETS.stop - 1}. Pass one of them."
        )
    if isinstance(model, (str, os.PathLike)):
        model = read(Path(model))
    scripted = isinstance(model, (torch.jit.ScriptModule, torch.jit.ScriptFunction))
    original, (model, args, kwargs) = model, opened(model, args, kwargs)
    if not scripted:
        original = model
    if not callable(model):
        raise ExportError(
            f"model is of type {type(model).__name__}; wanted a torch.nn.Module or a function of tensors."
        )
    if isinstance(model, type):
        raise ExportError(
            f"model is the class {model.__name__}; wanted a module made of it, {model.__name__}(…)."
        )
    _require_forward(model)
    _require_contents(model)
    if isinstance(args, tuple) and not args and not kwargs:
        args, kwargs = annotated_inputs(model)
    arguments = arguments_of(model, args, kwargs, input_names)
    if not arguments.names:
        raise ExportError(
            "the call has no tensor arguments. Pass an example, args=(torch.zeros(2, 3),), or say what they "
            'are: args=(ingot.Input("float32", ["batch", 3]),), or so annotated in forward.'
        )
    if state not in ("refuse", "inputs"):
        raise ExportError(f"state is {state!r}; wanted 'refuse' or 'inputs'.")
    states: dict[str, StateSpec] = {}  # what forward changes: inputs of the recording
    settled: dict[str, StateSpec] = {}  # what it changes for itself
    first: dict[str, Begin] = {}
    pinned: dict[str, str] = {}
    marks = Marks(tables="free" if state == "refuse" else "alone")
    while True:
        specs, table = input_specs(arguments, dynamic_shapes)
        narrowed = [pin(specs, table, name, where) for name, where in pinned.items()]
        call = Call(
            model,
            arguments,
            specs,
            output_names,
            opset,
            list(states.values()),
            state_specs(list(states.values()), table),
            settled,
            state == "inputs",
            first,
            marks,
            table.ranges,
            untraced,
        )
        try:
            found = _captured(call, table)
            asks = bool(found.recording.recorder.asked_traced) and not untraced
            return replace(
                found,
                original=original,
                assumptions=[*narrowed, *found.assumptions],
                as_untraced=again if asks else None,
            )
        except CountsFound as found:
            arguments = arguments.with_counts(found.paths)
        except StateFound as found:
            sizes_decide = any(s.decided_by == "sizes" for s in found.states)
            if sizes_decide and not found.unsettled and _settles(call, table, found.states):
                settled |= {s.label: s for s in found.states}
            elif marks.fix_tables():
                states, settled = {}, {}
            else:
                states |= {s.label: s for s in found.states}
        except ExportError as error:
            if (
                isinstance(error, StateMatters)
                and not error.unsettled
                and _settles(call, table, error.states, error.left)
            ):
                settled |= {s.label: s for s in error.states}
                states = {n: s for n, s in states.items() if n not in settled}
                continue
            if marks.fix_tables():
                states, settled = {}, {}
                continue
            sizes = {s.size: s.where for s in states.values() if s.size is not None}
            if isinstance(error, DataDependentError) and sizes and not pinned:
                pinned, states = sizes, {}  # the model compares a size with the last call's: one size for all
                continue
            if not call.keep_states or first:
                raise
            first = begins(call, table)
            if not first:
                raise
            states = {}
        except Exception as error:  # what the model raises without contents and with sizes left open
            raise_if_ours(error)
            if marks.fix_tables():
                states, settled = {}, {}
                continue
            if isinstance(error, RecursionError):
                raise ExportError(
                    f"{raised_at(error, layer_at(error, model))}\n"
                    "A function calls itself here as often as data or a size says, and the export would "
                    "never end. Write it as a loop."
                ) from error
            if "update to inference tensor" in str(error):
                raise ExportError(
                    f"{raised_at(error, layer_at(error, model))}\n"
                    "This writes into a tensor that was made under torch.inference_mode, which PyTorch "
                    "allows inside of that mode alone. Make the model outside of it, and load the weights "
                    "with model.load_state_dict."
                ) from error
            own = refusal(call, table)
            if own is not None:
                raise refuses(own, model, specs) from own
            if re.search("does not require grad|backward through the graph", str(error)):
                raise ExportError(
                    f"{raised_at(error, layer_at(error, model))}\n"
                    "This takes gradients through what an export records as a whole: a branch or loop that "
                    "data or a size decides, or an operator with sizes that are left open. Choose with "
                    "torch.where, make the sizes static with dynamic_shapes, or write the gradient's formula."
                ) from error
            if isinstance(error, TypeError) and re.search(r"\bnot (Rows|Many|Perhaps)\b", str(error)):
                raise DataDependentError(
                    f"{raised_at(error, layer_at(error, model))}\n"
                    "This function takes a list of Python numbers, and gets one that data fills "
                    f"({in_users_terms(_first_line(error).partition(':')[0])}). Give it numbers that are no "
                    "tensor's, or write it with masks or index tensors."
                ) from error
            said = (
                f"{raised_at(error, layer_at(error, model))}\n"
                "The model runs on the example, and fails here where its tensors have no contents and its "
                f"dimensions no numbers ({type(error).__name__}: {in_users_terms(_first_line(error))}). Make "
                "the sizes static that meet at this line, with dynamic_shapes, or write it with other "
                "operators."
            )
            raise ExportError(beside_the_first(error, said)) from error


def refuses(error: Exception, model: Any, specs: Sequence[InputSpec]) -> ExportError:
    """What to raise where the model's own Python raises on the example, in PyTorch as here."""
    if "does not require grad" in str(error):
        return ExportError(
            f"{raised_at(error, layer_at(error, model))}\n"
            "This takes gradients, and an export calls the model as under torch.no_grad(), where nothing has "
            "any. Put `with torch.enable_grad():` around what they are taken of and this."
        )
    given = ", ".join(f"{s.name} {_in_words(s)}" for s in specs)
    of_tensors = isinstance(error, (RuntimeError, ValueError, IndexError, TypeError, AssertionError))
    instead = "Call the model on the example in PyTorch and mend that first."
    if of_tensors:
        instead = "Pass an example that the model takes, with the dtypes and sizes it wants."
        if any(s.example is None and any(isinstance(d, str) for d in s.dims) for s in specs):
            instead = (
                "These sizes and some larger ones were tried for want of an example. Give one, "
                "ingot.Input(…, example=…), or sizes that the model takes: numbers, or an ingot.Dim with "
                "bounds."
            )
    return ExportError(
        f"{raised_at(error, layer_at(error, model))}\n"
        f"The model itself refuses its example ({given}): {type(error).__name__}: {_first_line(error)}. "
        f"{instead}"
    )


def layer_at(error: BaseException, model: Any) -> str:
    """The innermost layer of the model that an error came through: `layer 'head.2', Linear(…), of Net`."""
    names = {id(m): n for n, m in model.named_modules()} if isinstance(model, torch.nn.Module) else {}
    found, at = type(model).__name__, error.__traceback__
    while at is not None:
        layer = at.tb_frame.f_locals.get("self")
        if names.get(id(layer)):
            found = f"layer {names[id(layer)]!r}, {str(layer).splitlines()[0]}, of {type(model).__name__}"
        at = at.tb_next
    return found


def _first_line(error: BaseException) -> str:
    """What an error says, without what torch adds below it, or TorchScript's interpreter above it."""
    lines = str(error).strip().splitlines() or [""]
    of_script = [x for x in lines if _RAISED.match(x)] if "TorchScript interpreter" in lines[0] else []
    return _RAISED.sub("", of_script[-1] if of_script else lines[0]).rstrip(".")


def _in_words(spec: InputSpec) -> str:
    """Dtype and sizes of an input, as the example has them."""
    if spec.number is not None:
        return spec.number.__name__
    return f"{str(spec.dtype).removeprefix('torch.')} {list(spec.sizes)}"


def _settles(call: Call, table: DimTable, states: Sequence[StateSpec], left: bool = False) -> bool:
    """Whether states are what the next call finds as it wants them, and the caller asked for none.

    left: they stand where no input could take their place
    """
    plain = all(s.decided_by != "data" for s in states)
    return plain and (left or not call.keep_states) and settle(call, table, states)


def pin(specs: Sequence[InputSpec], table: DimTable, name: str, where: str) -> Assumption:
    """Make a dimension of the inputs static at the example's size."""
    size = table.sizes.pop(name)
    for spec in specs:
        spec.dims = [size if d == name else d for d in spec.dims]
    return Assumption("narrowed", where, f"dimension {name!r} is {size}", "fixed")


def _captured(call: Call, table: DimTable) -> Capture:
    def attempt(hints: dict[str, int]) -> Recording:
        recording = record(call, hints)
        for found in recording.presumed:
            if not _settles(call, table, found.states, found.left):
                found.unsettled = True
                raise found
            call.settled |= {s.label: s for s in found.states}
        return recording

    recording = with_larger_sizes(attempt, with_chosen_sizes(attempt, table), table)
    recording = with_unequal_sizes(attempt, recording, table)
    assumptions = _assumptions(call.arguments, recording, table)
    specs = list(call.specs)
    return Capture(call.function, call.arguments, specs, table, recording, assumptions, attempt)


def without_branches_of_the_example(captured: Capture) -> Capture | None:
    """The capture with those dimensions free that the model's own `if size == number:` fixed, if it works so.

    The other way through such an `if` is often the general one: position embeddings that are interpolated
    unless the image has the size of the training images. Whether it is right for the example too is for
    verification.
    """
    env = captured.recording.env
    lines: dict[
        str, list[str]
    ] = {}  # dimensions by the line that fixed them: a check that raises stays a check
    for s, fixed in env.fixed.items():
        if fixed.by_user:
            lines.setdefault(fixed.where, []).append(env.names[s])
    hints = env.hints_by_name()
    recording = captured.recording
    for names in lines.values():
        trial = hints | {name: hints[name] * 2 for name in names}
        try:
            other = captured.attempt(trial)
        except Exception as error:  # whatever the model makes of sizes that are none of its own
            raise_if_ours(error)
            continue
        if len(other.env.fixed) < len(recording.env.fixed):
            recording, hints = other, trial
    if recording is captured.recording:
        return None
    assumptions = _assumptions(captured.arguments, recording, captured.table)
    return replace(captured, recording=recording, assumptions=assumptions)


def _require_forward(model: Any) -> None:
    has_none = isinstance(model, torch.nn.Module) and type(model).forward is torch.nn.Module.forward
    if has_none and "forward" not in model.__dict__:
        raise ExportError(
            f"model is a {type(model).__name__}, which has no forward. Export a module that has one and "
            "calls this one's layers in it."
        )


def _require_contents(model: Any) -> None:
    if isinstance(model, torch.nn.Module):
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if torch.nn.parameter.is_lazy(tensor):
                raise ExportError(
                    f"{name!r} has no size yet: its layer is lazy. Call the model once on an example before "
                    "the export."
                )
            if tensor.device.type != "cpu":
                raise ExportError(
                    f"{name!r} is on {tensor.device}; wanted the CPU. Move the model and the example "
                    "with .cpu() first."
                )


def _assumptions(arguments: Arguments, recording: Recording, table: DimTable) -> list[Assumption]:
    env = recording.env
    found: list[Assumption] = []
    held = [name for leaf, name in zip(arguments.tensor_leaves, arguments.names, strict=True) if leaf.inside]
    for symbol, fixed in env.fixed.items():
        name = env.names[symbol]
        if name in table.of_state or any(name.startswith(f"{x}_") for x in held):
            continue  # nobody but the model itself chooses these
        found.append(Assumption("narrowed", fixed.where, f"dimension {name!r} is {fixed.size}", "fixed"))
    for symbol, (kept, where, _) in env.unified.items():
        what = f"dimension {env.names[symbol]!r} equals {env.names[kept]!r}"
        found.append(Assumption("unified", where, what, "fixed"))
    found.extend(_conditions(recording))
    for name, (low, high) in table.ranges.items():
        leaned = any(env.names[s] == name for s in env.leaned)  # else nothing was decided by it
        status = "checked" if leaned else "proved"
        found.append(Assumption("declared", name, in_bounds(name, low, high), status))
    for name, value in arguments.fixed:
        found.append(Assumption("argument", name, f"argument {name!r} is {value!r}", "fixed"))
    found.extend(recording.assumptions)
    return list(dict.fromkeys(found))


def _conditions(recording: Recording) -> Iterator[Assumption]:
    """What was taken to hold of sizes."""
    env = recording.env
    guards = list(env.held.values())
    bounds, declared = env.bounds(guards, declared=True), env.bounds([], declared=True)
    for guard in guards:
        with env.doubting():
            condition = env.expand(guard.whole)
        if condition == True:  # noqa: E712  (a SymPy object: known by now)
            continue
        if follows(condition, declared) or env.follows_from(bounds, guard):
            continue
        kind = "range" if len(condition.free_symbols) == 1 else "relation"
        what = readable(recording, condition) or (
            "sizes that take the example's way at this line"
            if guard.by_user
            else "sizes that fit each other at this line"
        )
        yield Assumption("branch" if guard.by_user else kind, guard.where, what, "checked")


def readable(recording: Recording, condition: Any) -> str:
    """A condition in words, over the names of dimensions; empty where nobody would read it."""
    env = recording.env
    if not all(s in env.names or s in env.numbers for s in condition.free_symbols):
        return ""
    names = {
        s: type(s)(env.names[s], integer=True, nonnegative=True)
        for s in condition.free_symbols
        if s in env.names
    }
    text = in_words(condition.xreplace(names))
    return text if len(text) <= READABLE else ""
