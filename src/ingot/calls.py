"""Calls of a module and of the model that it was exported to: what each gives of what is compared."""

# The reference is a torch module; torch and SymPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ingot.closeness import (
    Array,
)
from ingot.errors import VerificationError
from ingot.program import as_array
from ingot.report import some

if TYPE_CHECKING:
    from ingot.capture.attempt import Capture


# Runs a model: (inputs by name, names of the wanted outputs) to arrays.
Run = Callable[[Mapping[str, Array], Sequence[str]], Sequence[Array]]
# Opens a model for running.
Runner = Callable[[ir.Model], Run]


def ingot_runner(model: ir.Model) -> Run:
    """Ingot's own CPU session."""
    from ingot.runtime.session import InferenceSession

    session: Any = InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda feeds, names: session.run(list(names), dict(feeds))


def require_as_many(expected: Sequence[Array], names: Sequence[str]) -> None:
    """Raises VerificationError where there are more or fewer outputs than names."""
    if len(expected) != len(names):
        raise VerificationError(
            f"the module gives {len(expected)} outputs, the exported model {len(names)}: {list(names)}. "
            "Compare it with the module that it was exported from."
        )


def reference_outputs(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Array]:
    """The module's output tensors for one call, in eval mode."""
    import torch

    from ingot.capture.unchanged import unchanged

    with torch.no_grad(), unchanged(module):
        return arrays_of(module(*args, **kwargs))


def arrays_of(output: Any) -> list[Array]:
    """Copies: what a call returns may be a buffer that the next one writes to."""
    from ingot.capture.signature import is_tensor, leaves

    numbers = (int, float)
    return [
        as_array(leaf.value).copy()
        for leaf in leaves(output)
        if is_tensor(leaf.value) or isinstance(leaf.value, numbers)
    ]


def reference_calls(captured: Capture, module: Any, rows: Sequence[list[Any]]) -> list[list[Array]]:
    """The module's outputs and state for calls in a row, as many as it takes."""
    import torch

    from ingot.capture.signature import leaves
    from ingot.capture.unchanged import unchanged
    from ingot.capture.where import raise_if_ours

    recording = captured.recording
    found: list[list[Array]] = []
    script: Any = None
    if isinstance(module, torch.jit.ScriptModule) and recording.touched:
        if not recording.begins and not any(m.training for m in module.modules()):
            script = copy.deepcopy(module)  # whose outputs are TorchScript's own
        module = captured.source  # its graph run by Ingot, which can begin anew and show its state
    with (
        torch.no_grad(),
        unchanged(module, bool(recording.states)) as snapshot,
        snapshot.scripts.run_here() if recording.touched else nullcontext(),
    ):
        for state in recording.touched:  # a copy of its own, so that the caller's is not written to
            for label in state.labels:
                if label in snapshot.places:
                    snapshot.places[label].set(copied(snapshot.before[label]))
        places = snapshot.places | {label: begin.place for label, begin in recording.begins.items()}
        for inputs in rows:
            args, kwargs = captured.arguments.with_tensors([copied(x) for x in inputs])
            again, named = captured.arguments.with_tensors([copied(x) for x in inputs])
            try:
                given = module(*args, **kwargs)
                own = given if script is None else script(*again, **named)
                outputs = tensors_only(captured, arrays_of(own))
            except Exception as error:  # whatever the module itself says to sizes that are none of its own
                raise_if_ours(error)
                if not found:
                    raise
                break  # full: a cache of fixed size, say
            held = {leaf.path: leaf.value for leaf in leaves((args, kwargs))} if recording.left else {}
            left = [held[path] for path in recording.left.values()]
            after = [as_array(x) for x in (*left, *(places[s.label].get() for s in recording.states))]
            found.append([*outputs, *(a.copy() for a in after)])
    return found


def what_is_compared(captured: Capture) -> list[str]:
    """What is compared: the model's outputs, what it left in the call's objects, its state."""
    states = captured.recording.states
    return [*captured.output_names, *captured.recording.left, *(s.output_name for s in states)]


def draws_of(captured: Capture) -> dict[str, frozenset[str]]:
    """For each of the compared outputs that depends on numbers drawn in the run, the operators that draw."""
    from ingot.capture.draws import drawn

    states = captured.recording.states
    return drawn(captured.model, {s.input_name: s.output_name for s in states})


def not_compared(random: Mapping[str, frozenset[str]]) -> list[str]:
    return [
        f"the values of output {name!r}, which depend on numbers drawn anew in every run "
        f"({some(sorted(lines), ', ')}): only dtype and shape are compared"
        for name, lines in random.items()
    ]


def exported_calls(
    captured: Capture, run: Run, rows: Sequence[list[Any]], count: int
) -> list[Sequence[Array]]:
    """The same of the exported model."""
    states = captured.recording.states
    names = what_is_compared(captured)
    state = {s.input_name: as_array(s.initial) for s in states}
    found: list[Sequence[Array]] = []
    for inputs in rows[:count]:
        found.append(run({**captured.feeds(inputs), **state}, names))
        state = {s.input_name: a for s, a in zip(states, found[-1][len(names) - len(states) :], strict=True)}
    return found


def tensors_only(captured: Capture, outputs: list[Array]) -> list[Array]:
    """Drop Python numbers that are no outputs of the graph."""
    from ingot.capture.signature import Passed, is_tensor, leaves
    from ingot.program import TENSOR

    kept = [
        leaf.value is TENSOR
        for leaf in leaves(captured.output_structure(TENSOR))
        if leaf.value is TENSOR or is_tensor(leaf.value) or isinstance(leaf.value, (int, float, Passed))
    ]
    if len(outputs) != len(kept):
        require_as_many(outputs, captured.output_names)
    return [o for o, keep in zip(outputs, kept, strict=True) if keep]


def copied(x: Any) -> Any:
    return x.clone() if hasattr(x, "clone") else x
