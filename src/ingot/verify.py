"""Parity of an exported model with its source, on the example and on sizes the example did not take."""

# The reference is a torch module; torch and SymPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from ingot.calls import Runner, ingot_runner, not_compared, reference_outputs, require_as_many
from ingot.closeness import Array, check, check_kind
from ingot.errors import MissingExtraError, VerificationError, said_plainly
from ingot.loading import load
from ingot.program import Program, as_array
from ingot.report import Case, Report, some
from ingot.trial import RUNS, Trial, with_ties

if TYPE_CHECKING:
    from ingot.capture.attempt import Capture

OTHER_SHAPES = 3
DRAWS = 200
SEARCH_SECONDS = 10.0  # for inputs that take other sides of branches
CALLS_IN_A_ROW = 3  # compared where the model has state


@said_plainly
def verify(
    model: Any,
    reference: Any = None,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    runner: Runner = ingot_runner,
    rtol: float | None = None,
    debug: bool = False,
) -> Report:
    """Compare a model with the PyTorch module (or function) it came from.

    Args:
        model: a `Program`, which is also compared on other sizes drawn from its dimensions; or an
        `onnx_ir.Model`
            or path, which is compared on `args` and `kwargs` alone.
        reference: the module; for a Program None takes the module it was exported from.
        args, kwargs: one call. A Program brings its own.
        runner: opens the model for running; Ingot's session by default.
        rtol: the largest difference relative to the largest reference value, instead of the dtype's.
        debug: errors come with the whole traceback, as with INGOT_DEBUG=1 in the environment.

    Raises:
        VerificationError: names the worst output and, for a Program, the first node that differs; another
        number of outputs; or arguments of this function that cannot be what they are given for.
        ModelError: no such file, or not an ONNX model.
        MissingExtraError: torch is not installed.
    """
    del debug  # for `said_plainly`
    _require_sensible(model, reference, args, kwargs, runner, rtol)
    if isinstance(model, Program):
        if model.capture is None:
            raise VerificationError(
                "this Program has no record of its module; export it again, or give args and kwargs."
            )
        return verify_capture(model.capture, reference, runner=runner, rtol=rtol)
    if not find_spec("torch"):
        raise MissingExtraError("ingot.verify needs PyTorch. Install it with: pip install 'ingot[torch]'")
    from ingot.capture.draws import drawn
    from ingot.capture.precision import narrowest
    from ingot.capture.signature import arguments_of

    graph = load(model)
    call = arguments_of(reference, args, kwargs, None)
    wanted = [str(v.name) for v in graph.graph.inputs]
    feeds = {n: as_array(t) for n, t in zip(call.names, call.tensors, strict=True)}
    if not set(wanted) <= set(feeds) and len(wanted) == len(feeds):
        feeds = dict(zip(wanted, feeds.values(), strict=True))
    names = [str(v.name) for v in graph.graph.outputs]
    results = runner(graph)({k: v for k, v in feeds.items() if k in wanted}, names)

    def called() -> list[Array]:
        return reference_outputs(reference, *call.with_tensors(call.tensors))

    random, computed = drawn(graph, {}), narrowest(graph)

    def differences(expected: Sequence[Array]) -> dict[str, float]:
        found: dict[str, float] = {}
        for i, (name, want, got) in enumerate(zip(names, expected, results, strict=True)):
            if name in random:
                check_kind(name, want, got, (called()[i] for _ in range(RUNS)), "")
            else:
                found[name] = check(name, want, got, rtol, lambda want=want: want, "", computed.get(name))
        return found

    expected = called()
    require_as_many(expected, names)
    found, ties = with_ties(differences, expected, called)
    return Report([Case({}, found)], unverified=[*ties, *not_compared(random)])


def _require_sensible(model: Any, reference: Any, args: Any, kwargs: Any, runner: Any, rtol: Any) -> None:
    """Refuse arguments of `verify` that only fail later, as something else."""
    of_program = isinstance(model, Program)
    if of_program and model.capture is not None and (args is not None or kwargs is not None):
        raise VerificationError(
            "a Program is compared on the call that it was exported with, and on other sizes: leave args and "
            "kwargs away, or pass its `model` to compare it on them alone."
        )
    if not callable(reference) and not (of_program and reference is None):
        raise VerificationError(
            f"reference is of type {type(reference).__name__}; wanted the torch.nn.Module or function to "
            "compare with."
        )
    if not callable(runner):
        raise VerificationError(
            f"runner is of type {type(runner).__name__}; wanted a function that opens a model."
        )
    number = isinstance(rtol, (int, float)) and not isinstance(rtol, bool)
    if rtol is not None and not (number and 0 <= rtol < math.inf):
        raise VerificationError(f"rtol is {rtol!r}; wanted a number of 0 or more, 1e-4 for example.")


def verify_capture(
    captured: Capture,
    source: Any = None,
    *,
    runner: Runner = ingot_runner,
    rtol: float | None = None,
    seed: int = 0,
) -> Report:
    """Compare a capture with its module on the example and on other sizes.

    Raises:
        VerificationError: see `verify`.
    """
    from ingot.capture.sample import (
        edge_sizes,
        example_inputs,
        masking_nothing,
        other_sizes,
        sampled_inputs,
    )

    module = captured.original if source is None else source
    trial = Trial(captured, module, runner, rtol)
    rng = np.random.default_rng(seed)
    inputs, sizes = example_inputs(captured, rng)
    later = CALLS_IN_A_ROW - 1 if captured.recording.states else 0
    trial.compare([inputs, *(sampled_inputs(captured, sizes, rng) for _ in range(later))], sizes)
    for masks in masking_nothing(captured, inputs):
        trial.compare([masks], sizes)
    tested = {tuple(sizes.items())}
    for drawn in other_sizes(captured, rng, DRAWS):
        if len(trial.report.cases) > OTHER_SHAPES:
            break
        if tuple(drawn.items()) not in tested:
            tested.add(tuple(drawn.items()))
            trial.compare([sampled_inputs(captured, drawn, rng) for _ in range(1 + later)], drawn)
    for edge in edge_sizes(captured):
        if tuple(edge.items()) not in tested:
            tested.add(tuple(edge.items()))
            trial.compare([sampled_inputs(captured, edge, rng) for _ in range(1 + later)], edge)
    _compare_sides(trial, rng)
    trial.report.unverified += [
        f"the digits of output {name!r}, which rounding moves far: PyTorch's own are up to {part:.2g} of the "
        "largest value from what the module gives in float64, and the model is compared with that"
        for name, part in trial.rounded.items()
    ]
    return trial.report


def _compare_sides(trial: Trial, rng: np.random.Generator) -> None:
    """Compare on inputs that are searched to take the sides of branches that no case took so far."""
    from ingot.capture.sample import sampled_inputs
    from ingot.capture.search import searched, sizes_taking_other_sides
    from ingot.capture.sides import watched

    captured, report = trial.captured, trial.report
    copy = watched(captured.model)
    if not copy.sides:
        return
    run = ingot_runner(copy.model)  # whoever runs the model: this one only finds inputs
    state = {s.input_name: as_array(s.initial) for s in captured.recording.states}

    def look(inputs: Sequence[Any]) -> Any:
        return copy.taken(run, {**captured.feeds(inputs), **state})

    for sizes in sizes_taking_other_sides(captured):
        trial.compare([sampled_inputs(captured, sizes, rng)], sizes)
    left, of_nothing = copy.all(), set[Any]()
    for inputs, sizes in trial.compared:
        if 0 in sizes.values():  # little is compared there: enough only where nothing else takes the side
            of_nothing |= look(inputs).sides
        else:
            left -= look(inputs).sides
    shapes = list(
        {tuple(c.sizes.items()): c.sizes for c in report.cases if 0 not in c.sizes.values()}.values()
    )
    for inputs, sizes, found in searched(captured, look, left, shapes, rng, SEARCH_SECONDS):
        names = sorted(map(str, found))
        if trial.compare([inputs], sizes, names):
            report.cases[-1].reached = names
        else:  # the module takes no such input, or can say nothing of it: another one may do
            left |= found
    lines: dict[str, set[str]] = {}
    for side in left - of_nothing:
        lines.setdefault(side.where, set()).add(side.what)
    report.unverified += [
        f"{where}: no input was found for which {some(sorted(sides), ', or ')}"
        for where, sides in sorted(lines.items())
    ]
