"""One run of the model's own Python on fake tensors, with inputs in the place of its tensors and state."""

# torch's shape environment and fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
import functools
import re
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture import complex_numbers
from ingot.capture.asked import before_branch, before_check, before_number
from ingot.capture.chance import watched_seeds
from ingot.capture.containers import Containers
from ingot.capture.dims import InputSpec
from ingot.capture.dispatch import Dispatch
from ingot.capture.fakes import sizes_of_pools
from ingot.capture.flags import RESULT
from ingot.capture.intercept import (
    Intercept,
    SizeWanted,
    lists_of_tensors,
    python_functions_run_as_they_are,
)
from ingot.capture.passed import Objects
from ingot.capture.record import Recorder
from ingot.capture.remedies import remedy
from ingot.capture.request import ACTIVE, GENERATED, Marks, request, still_running
from ingot.capture.signature import Arguments
from ingot.capture.sizes import SizeEnv
from ingot.capture.state import Snapshot, StateSpec
from ingot.capture.tensors import dtype_of
from ingot.capture.traced import watched_questions
from ingot.capture.translations import translated
from ingot.capture.watched import Tags
from ingot.capture.where import is_library_code, is_user_code, raised_at
from ingot.capture.wording import in_users_terms
from ingot.errors import DataDependentError

if TYPE_CHECKING:
    from ingot.capture.warm import Begin


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
    #: states by label that the next call finds as it wants them: see `settled`
    settled: dict[str, StateSpec] = field(default_factory=dict[str, StateSpec])
    keep_states: bool = False  # as inputs and outputs; else they may not matter
    begins: Mapping[str, Begin] = field(default_factory=dict[str, "Begin"])  # for what the first call makes
    marks: Marks = field(default_factory=Marks)  # what is rewritten: one for all recordings of an export
    ranges: Mapping[str, tuple[int, int | None]] = field(default_factory=dict[str, tuple[int, int | None]])
    untraced: bool = False  # whether its code hears that it is not traced


@dataclass
class Run:
    """A model that has run on fake tensors."""

    recorder: Recorder
    inputs: list[ir.Value]
    fakes: list[Any]
    objects: Objects
    output: Any


def run_model(
    call: Call,
    hints: dict[str, int],
    snapshot: Snapshot,
    prepare: Callable[[Recorder], None] | None = None,
) -> Run:
    """Run the function once, with inputs in the place of its arguments' tensors and of its state."""
    env = SizeEnv()
    recorder = Recorder(env, call.opset)
    env.on_int = lambda e: before_number(e, call.marks.symbolic_int, recorder)
    env.on_branch = lambda e: before_branch(e, recorder)
    env.on_chosen = lambda origin: call.marks.start_apart(origin[0], still_running(origin[1]))
    env.on_check = lambda e: before_check(e, recorder)
    recorder.labels_of = snapshot.labels_of
    recorder.untraced = call.untraced
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
            if isinstance(spec.example, torch.Tensor) and not spec.example.is_contiguous():
                recorder.lies_otherwise = spec.name
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
        recorder.made_by_call = functools.partial(_made_by_call, snapshot, (function, args, kwargs))
        recorder.outlives = snapshot.holds
        recorder.idle_tags = snapshot.idle_tags
        modules = function.modules() if isinstance(function, torch.nn.Module) else iter(())
        with (
            module_paths(function, recorder),
            translated(recorder, modules),
            python_functions_run_as_they_are(),
            sizes_of_pools(),
            lists_of_tensors(recorder),
            watched_seeds(recorder),
            watched_questions(recorder),
            snapshot.scripts.run_here(),
            Intercept(recorder),
            Dispatch(recorder),
            active(recorder, call.marks),
        ):
            output = _called(function, args, kwargs, recorder)
        recorder.missing.raise_if_any()
        recorder.copies.require_unchanged()
    return Run(recorder, inputs, fakes, objects, output)


def _made_by_call(snapshot: Snapshot, known: tuple[Any, ...], container: Any) -> bool:
    """Whether nothing but the call's own variables can hold a list, dict or object's attributes."""
    if isinstance(container, Tags):
        container = container.thing
    elif not isinstance(container, (list, dict, deque, set)):
        return False
    if snapshot.holds(vars(container) if isinstance(container, torch.Tensor) else container):
        return False
    return all(getattr(found, "thing", found) is not container for found in Containers(known).found)


@contextlib.contextmanager
def active(recorder: Recorder, marks: Marks) -> Generator[None]:
    """The recording that the runtime of rewritten functions belongs to.

    Raises:
        Restart: at the end, if the model's own `except:` swallowed it.
    """
    ACTIVE.recorder, ACTIVE.marks, ACTIVE.pending, ACTIVE.refusal = recorder, marks, None, None
    ACTIVE.words = ACTIVE.maybes = False
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
        request(_users_frame(error))
        raise _number_wanted(error, "torch's own code needs it as a number") from None
    except (TypeError, AttributeError, RuntimeError) as error:
        said = str(error)
        no_key = said.startswith("unhashable type") and "Sym" in said
        if no_key or said.startswith("BooleanAtom not allowed"):
            frame = _users_frame(error)
            request(frame)
            raise DataDependentError(
                f"{raised_at(error)}\n"
                "Data or a size decides a number or condition that is a key of a dict or an element of a "
                "set here. "
                + remedy(
                    frame,
                    "Look it up with `table[key]` in a function of the model's own, compute with tensors, or "
                    "make it static with dynamic_shapes, where it is a size.",
                )
            ) from None
        if not any(word in said for word in (*_SYMBOLIC_KINDS, *_TORCHS_OWN)):
            raise
        request(_users_frame(error))
        own = any(word in said for word in _TORCHS_OWN)
        raise _number_wanted(error, "torch's own code needs it as a number" if own else said) from None
    except NameError as error:
        why = recorder.poisoned.get(_variable(error))
        if why is None:
            raise
        raise DataDependentError(
            f"{raised_at(error)}\n"
            f"This uses {_in_words(_variable(error))}, which data decides: it is {why}. No ONNX value can "
            "hold both. Give both sides the same kind of value: tensors of one dtype and rank, or numbers of "
            "one type."
        ) from None


def _variable(error: NameError) -> str:
    """The variable without a value; Python itself names it only in words where it is the function's own."""
    found = re.search(r"variable '(\w+)'", str(error))
    return str(error.name or (found and found[1]))


def _in_words(variable: str) -> str:
    """What a variable is to whoever wrote the model."""
    if variable == RESULT:
        return "what a function returns"
    return "a value of this line" if variable.startswith(GENERATED) else repr(variable)


# How Python's own errors call a number that only the run knows.
_SYMBOLIC_KINDS = (
    "SymInt", "SymFloat", "SymBool", "BooleanAtom", "arguments should be Rational", "'Rows' object",
    "Can't pickle local object 'run_model.",
)  # fmt: skip
# What torch's C++ says where it meets one.
_TORCHS_OWN = (
    "on tensor with symbolic sizes/strides", "dispatch_on_subclass called with NO overloaded args",
    "data-dependent expression",
)  # fmt: skip


def _number_wanted(error: BaseException, why: str) -> DataDependentError:
    return DataDependentError(
        f"{raised_at(error)}\n"
        f"Data or a size decides what Python alone can use here ({in_users_terms(why.splitlines()[0])}). "
        + remedy(
            _users_frame(error),
            "Compute with +, -, *, //, %, min, max and math, or with tensors; or make the dimension static "
            "with dynamic_shapes.",
        )
    )


def _users_frame(error: BaseException) -> FrameType | None:
    """The innermost frame of the model's own that an error comes through."""
    found: FrameType | None = None
    at = error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        found = at.tb_frame if is_user_code(code) and not is_library_code(code) else found
        at = at.tb_next
    return found


@contextlib.contextmanager
def module_paths(function: Any, recorder: Recorder) -> Generator[None]:
    """Keep the path of the running submodule in `recorder.modules`."""
    if not isinstance(function, torch.nn.Module):
        yield
        return
    paths = {id(m): name for name, m in function.named_modules()}
    hooks: Any = torch.nn.modules.module

    def enter(module: Any, *_: Any) -> None:
        if id(module) not in paths:  # forward may have made it
            paths.update((id(m), name) for name, m in function.named_modules())
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
