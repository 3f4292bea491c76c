"""Parity of an exported model with its source, on the example and on sizes the example did not take."""

# The reference is a torch module; torch and SymPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ingot.errors import IngotError, MissingExtraError, VerificationError, said_plainly
from ingot.loading import load
from ingot.program import Program, as_array

if TYPE_CHECKING:
    from ingot.capture.assume import Assumption
    from ingot.capture.attempt import Capture

Array = npt.NDArray[Any]
T = TypeVar("T")
# Runs a model: (inputs by name, names of the wanted outputs) to arrays.
Run = Callable[[Mapping[str, Array], Sequence[str]], Sequence[Array]]
# Opens a model for running.
Runner = Callable[[ir.Model], Run]

# Largest difference allowed, as a part of the largest reference value. A network's float32 sums differ by
# 1e-6 to 2e-5 between libraries; integers and booleans must be equal.
TOLERANCE = {"float64": 1e-9, "float32": 2e-4, "float16": 1e-2, "bfloat16": 5e-2}
OTHER_SHAPES = 3
DRAWS = 200
DRAWS_OUTSIDE = 8
SEARCH_SECONDS = 10.0  # for inputs that take other sides of branches
FITTING = 8  # ways to let sizes agree that are tried
CALLS_IN_A_ROW = 3  # compared where the model has state
RUNS = 8  # of a module that draws numbers, or whose inputs are moved by their rounding

SHOWN = 4  # dimensions or facts that a message has at the most

#: How many times its tolerance an output may differ at the most, where the module itself is that sensitive.
MOST_SENSITIVE = 10
#: How much further than an input moved by its rounding moves the module's result a model may be from it.
SHAKEN = 20


@dataclass
class Case:
    """One comparison: the sizes, and the largest difference of each output relative to its largest value.

    reached: sides of branches and loops that no case before took, where inputs were searched that take them
    """

    sizes: dict[str, int]
    differences: dict[str, float]
    reached: list[str] = field(default_factory=list[str])


@dataclass
class Report:
    """What verification did."""

    cases: list[Case] = field(default_factory=list[Case])
    refused: list[dict[str, int]] = field(
        default_factory=list[dict[str, int]]
    )  # sizes the module itself refuses
    #: sides of branches and loops that no case took; inputs that are empty, or do not fit each other, on
    #: which the exported model fails; lines whose order of equal values is torch's own to choose; outputs
    #: that depend on numbers drawn in the run, or that were compared with the module in float64
    unverified: list[str] = field(default_factory=list[str])

    @property
    def worst(self) -> float:
        """The largest relative difference of all."""
        return max((d for c in self.cases for d in c.differences.values()), default=0.0)


def ingot_runner(model: ir.Model) -> Run:
    """Ingot's own CPU session."""
    from ingot.runtime.session import InferenceSession

    session: Any = InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda feeds, names: session.run(list(names), dict(feeds))


@said_plainly
def verify(
    model: Any,
    reference: Any,
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
        VerificationError: names the worst output and, for a Program, the first node that differs; or another
        number of outputs.
        ModelError: no such file, or not an ONNX model.
        MissingExtraError: torch is not installed.
    """
    del debug  # for `said_plainly`
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
                _check_kind(name, want, got, (called()[i] for _ in range(RUNS)), "")
            else:
                found[name] = _check(name, want, got, rtol, lambda want=want: want, "", computed.get(name))
        return found

    expected = called()
    _require_as_many(expected, names)
    found, ties = _with_ties(differences, expected, called)
    return Report([Case({}, found)], unverified=[*ties, *_not_compared(random)])


def _with_ties(
    differences: Callable[[T], dict[str, float]], wanted: T, again: Callable[[], T]
) -> tuple[dict[str, float], list[str]]:
    """The differences from what the module gives, and the lines where it gives that only with equal values in
    ONNX's order: torch leaves theirs open.

    Raises:
        VerificationError: the outputs differ, in whatever order equal values come.
    """
    from ingot.capture.ties import FirstOfEqual

    try:
        return differences(wanted), []
    except VerificationError:
        with FirstOfEqual() as first:  # which also holds for inputs moved by their rounding
            wanted = again()
            if not first.lines:
                raise
            found = differences(wanted)
    return found, [
        f"the order of equal values, which torch leaves open ({line}): the model takes the first"
        for line in first.lines
    ]


def _require_as_many(expected: Sequence[Array], names: Sequence[str]) -> None:
    if len(expected) != len(names):
        raise VerificationError(
            f"the module gives {len(expected)} outputs, the exported model {len(names)}: {list(names)}. "
            "Compare it with the module that it was exported from."
        )


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
    trial = _Trial(captured, module, runner, rtol)
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


def _compare_sides(trial: _Trial, rng: np.random.Generator) -> None:
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
        f"no input was found for {where}: {some(sorted(sides), ', or ')}"
        for where, sides in sorted(lines.items())
    ]


def tried_outside(captured: Capture, *, runner: Runner = ingot_runner, seed: int = 0) -> Capture:
    """The capture, with those branches on sizes `tried`, and no longer checked by the graph, that make no
    difference to its results.

    A model that has another way for a single token, or for an empty past, often says so for speed alone:
    where a branch followed the example, the module and the exported model are compared at sizes that take the
    other way.
    """
    from ingot.capture.attempt import branches
    from ingot.capture.checks import lift
    from ingot.capture.sample import sampled_inputs, sizes_outside

    rows = {guard: found for guard, found in branches(captured) if found.status == "checked"}
    if not rows or draws_of(captured):  # of values that are not compared nobody knows that they are equal
        return captured
    unchecked = captured.model.clone()
    lift(unchecked, {str(guard.condition) for guard in rows})
    rng = np.random.default_rng(seed)
    equal: dict[Assumption, Assumption] = {}
    harmless: set[str] = set()
    later = CALLS_IN_A_ROW if captured.recording.states else 1
    for guard, found in rows.items():
        trial = _Trial(captured, captured.original, runner, None, Report([Case({}, {})]), model=unchecked)
        try:
            for sizes in itertools.islice(sizes_outside(captured, guard), DRAWS_OUTSIDE):
                inputs = [sampled_inputs(captured, sizes, rng) for _ in range(later)]
                trial.compare(inputs, sizes)
                if len(trial.report.cases) > OTHER_SHAPES:
                    break
        except VerificationError:
            continue
        if len(trial.report.cases) > 1:
            equal[found] = replace(found, status="tried")
            harmless.add(str(guard.condition))
    lift(captured.model, harmless)
    return replace(captured, assumptions=[equal.get(a, a) for a in captured.assumptions])


def shown_sizes(sizes: Mapping[str, int], example: Mapping[str, int]) -> str:
    """The sizes in one line: of many, those that are not the example's."""
    other = {k: v for k, v in sizes.items() if len(sizes) <= SHOWN or example.get(k) != v}
    return some([f"{k}={v}" for k, v in other.items()], ", ") or "the example"


def some(parts: Sequence[str], between: str) -> str:
    """As many of the parts as one line holds, and how many more there are."""
    rest = len(parts) - SHOWN
    return between.join(parts[:SHOWN]) + (f" … {rest} more" if rest > 0 else "")


def reference_outputs(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Array]:
    """The module's output tensors for one call, in eval mode."""
    import torch

    from ingot.capture.unchanged import unchanged

    with torch.no_grad(), unchanged(module):
        return _arrays(module(*args, **kwargs))


def _arrays(output: Any) -> list[Array]:
    from ingot.capture.signature import is_tensor, leaves

    numbers = (int, float)
    return [
        as_array(leaf.value)
        for leaf in leaves(output)
        if is_tensor(leaf.value) or isinstance(leaf.value, numbers)
    ]


def _reference_calls(captured: Capture, module: Any, rows: Sequence[list[Any]]) -> list[list[Array]]:
    """The module's outputs and state for calls in a row, as many as it takes."""
    import torch

    from ingot.capture.signature import leaves
    from ingot.capture.unchanged import unchanged
    from ingot.capture.where import raise_if_ours

    recording = captured.recording
    found: list[list[Array]] = []
    if isinstance(module, torch.jit.ScriptModule) and recording.touched:
        module = captured.source  # its graph run by Ingot, which can begin anew
    with (
        torch.no_grad(),
        unchanged(module, bool(recording.states)) as snapshot,
        snapshot.scripts.run_here() if recording.touched else nullcontext(),
    ):
        for state in recording.touched:  # a copy of its own, so that the caller's is not written to
            for label in state.labels:
                if label in snapshot.places:
                    snapshot.places[label].set(_copy(snapshot.before[label]))
        places = snapshot.places | {label: begin.place for label, begin in recording.begins.items()}
        for inputs in rows:
            args, kwargs = captured.arguments.with_tensors([_copy(x) for x in inputs])
            try:
                outputs = _tensors_only(captured, _arrays(module(*args, **kwargs)))
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


def _compared(captured: Capture) -> list[str]:
    """What is compared: the model's outputs, what it left in the call's objects, its state."""
    states = captured.recording.states
    return [*captured.output_names, *captured.recording.left, *(s.output_name for s in states)]


def draws_of(captured: Capture) -> dict[str, frozenset[str]]:
    """For each of the compared outputs that depends on numbers drawn in the run, the operators that draw."""
    from ingot.capture.draws import drawn

    states = captured.recording.states
    return drawn(captured.model, {s.input_name: s.output_name for s in states})


def _not_compared(random: Mapping[str, frozenset[str]]) -> list[str]:
    return [
        f"the values of output {name!r}, which depend on numbers drawn anew in every run "
        f"({some(sorted(lines), ', ')}): only dtype and shape are compared"
        for name, lines in random.items()
    ]


def _exported_calls(
    captured: Capture, run: Run, rows: Sequence[list[Any]], count: int
) -> list[Sequence[Array]]:
    """The same of the exported model."""
    states = captured.recording.states
    names = _compared(captured)
    state = {s.input_name: as_array(s.initial) for s in states}
    found: list[Sequence[Array]] = []
    for inputs in rows[:count]:
        found.append(run({**captured.feeds(inputs), **state}, names))
        state = {s.input_name: a for s, a in zip(states, found[-1][len(names) - len(states) :], strict=True)}
    return found


@dataclass
class _Trial:
    """The comparisons of one capture with its module."""

    captured: Capture
    module: Any
    runner: Runner
    rtol: float | None
    report: Report = field(default_factory=Report)
    compared: list[tuple[list[Any], dict[str, int]]] = field(default_factory=list[Any])
    model: ir.Model | None = None  # another form of the captured one
    #: outputs that agree with the module in float64 alone, and how far its own float32 is from that
    rounded: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        self.run = self.runner(self.model or self.captured.model)
        from ingot.capture.precision import narrowest

        self.drawn = draws_of(self.captured)
        self.computed = narrowest(self.captured.model)

    def _ignored(self, inputs: list[Any], sizes: Mapping[str, int], wanted: Sequence[Array]) -> bool:
        """Whether inputs differ in the size of an axis that the example has alike, batches say, and those
        that fit no other decide nothing: the module gives the same with others in their place that fit.

        Such a module does not look at an input; the model it was exported to, which looks, refuses it.
        """
        from ingot.capture.sample import drawn
        from ingot.capture.where import raise_if_ours

        alike: dict[tuple[int, int], list[str]] = {}
        for spec in self.captured.specs:
            for axis, (dim, size) in enumerate(zip(spec.dims, spec.sizes, strict=True)):
                if isinstance(dim, str) and dim in sizes:
                    alike.setdefault((axis, size), []).append(dim)
        apart = [names for names in alike.values() if len({sizes[n] for n in names}) > 1]
        choices = [sorted({sizes[n] for n in names}) for names in apart]
        for chosen in itertools.islice(itertools.product(*choices), FITTING) if apart else ():
            fitting = dict(sizes)
            for names, size in zip(apart, chosen, strict=True):
                fitting |= dict.fromkeys(names, size)
            rng = np.random.default_rng(0)
            changed = {name for name, size in fitting.items() if size != sizes[name]}
            moved = [
                x if changed.isdisjoint(spec.dims) else drawn(spec, fitting, rng)
                for spec, x in zip(self.captured.specs, inputs, strict=True)
            ]
            try:
                again = _reference_calls(self.captured, self.module, [moved])[0]
            except Exception as error:  # whatever the module itself says to inputs that are none of its own
                raise_if_ours(error)
                continue
            if len(again) == len(wanted) and all(map(_equal, again, wanted)):
                return True
        return False

    def compare(self, rows: Sequence[list[Any]], sizes: dict[str, int], reached: Sequence[str] = ()) -> bool:
        """Compare calls in a row: one, or several where the model has state. Whether the module takes them.

        reached: what the inputs were searched for
        """
        from ingot.capture.attempt import refuses
        from ingot.capture.sample import fair_inputs, undecided
        from ingot.capture.where import raise_if_ours

        captured, report = self.captured, self.report
        fair = [fair_inputs(captured, list(inputs), sizes) for inputs in rows]
        rows = [inputs for inputs in fair if inputs is not None]
        if len(rows) < len(fair) and report.cases:
            return False
        try:
            wanted = _reference_calls(captured, self.module, rows)
        except Exception as error:  # whatever the module itself says to inputs that are none of its own
            raise_if_ours(error)
            if not report.cases and isinstance(error, IngotError):
                raise
            if not report.cases:
                raise refuses(error, captured.source, captured.specs) from error
            if not reached:
                report.refused.append(sizes)  # no size of the model's own choosing: nothing to compare with
            return False
        if reached and not all(map(_is_finite, itertools.chain(*wanted))):
            return False  # too large for the module: its infinities say nothing of the branch
        states = captured.recording.states
        names = _compared(captured)
        where = shown_sizes(sizes, report.cases[0].sizes if report.cases else sizes)
        if reached:
            where = f"{where}, on inputs that take another side ({reached[0]})"
        try:
            got = _exported_calls(captured, self.run, rows, len(wanted))
        except IngotError as error:
            open_lines = undecided(captured, sizes)
            ignored = 0 in sizes.values() or open_lines or self._ignored(rows[0], sizes, wanted[0])
            if report.cases and not reached and ignored:
                unfit = f", which may not fit each other at {some(open_lines, ', ')}" if open_lines else ""
                report.unverified.append(f"the exported model fails for {where}{unfit}: {error}")
                return False
            raise VerificationError(
                f"the exported model fails for {where}, where the module gives a result: {error}"
            ) from error

        def shaken(call: int, output: int, draw: int = 0) -> Array:
            moved = [[_nudged(x, draw) for x in inputs] for inputs in rows[: call + 1]]
            return _reference_calls(captured, self.module, moved)[call][output]

        def differences(wanted: Sequence[list[Array]]) -> dict[str, float]:
            found: dict[str, float] = {}
            exact = functools.cache(functools.partial(self._in_float64, rows))
            for call, (expected, results) in enumerate(zip(wanted, got, strict=True)):
                at = f"{where}, call {call + 1} in a row" if states else where
                for i, (name, want, result) in enumerate(zip(names, expected, results, strict=True)):
                    if name in self.drawn:
                        again = (_reference_calls(captured, self.module, rows)[call][i] for _ in range(RUNS))
                        _check_kind(name, want, result, again, at)
                        continue
                    moved = functools.partial(shaken, call, i)
                    try:
                        dtype = self.computed.get(name)
                        part = _check(name, want, result, self.rtol, moved, at, dtype)
                    except VerificationError:
                        gap, scale = distance(want, result)
                        part = gap / scale if scale else 0.0
                        if not self._rounds_otherwise(want, result, rows, call, i):
                            if not self._rounds_less(want, result, moved, exact, (call, i)):
                                raise
                            self.rounded[name] = max(self.rounded.get(name, 0.0), part)
                    found[name] = max(found.get(name, 0.0), part)
            return found

        try:
            found, ties = _with_ties(
                differences, wanted, lambda: _reference_calls(captured, self.module, rows)
            )
        except VerificationError as error:
            if captured.recording.touched or self.drawn:  # a draw would be the first difference
                raise
            from ingot.capture.bisect import first_difference
            from ingot.capture.ties import FirstOfEqual

            feeds = captured.feeds(rows[0])
            with FirstOfEqual():
                node = first_difference(captured, captured.source, self.runner, rows[0], feeds, _differs)
            raise VerificationError(f"{error}{node}") from error
        lines = [*ties, *_not_compared(self.drawn)]
        report.unverified += [line for line in lines if line not in report.unverified]
        report.cases.append(Case(sizes, found))
        self.compared.append((list(rows[0]), sizes))
        return True

    def _rounds_otherwise(
        self, want: Array, got: Array, rows: Sequence[list[Any]], call: int, output: int
    ) -> bool:
        """Whether a quantised model differs from the module by how halves are rounded: see `rounding`."""
        from ingot.capture.rounding import Otherwise, is_a_rounding, is_quantised

        if self.rtol is not None or not is_quantised([n.op_type for n in self.captured.model.graph]):
            return False

        def run(seed: int) -> Array:
            with Otherwise(seed):
                return _reference_calls(self.captured, self.module, rows[: call + 1])[call][output]

        _, scale = distance(want, got)
        return is_a_rounding(want, got, run, TOLERANCE.get(str(want.dtype), 0.0) * scale)

    def _rounds_less(
        self,
        want: Array,
        got: Array,
        shaken: Callable[..., Array],
        exact: Callable[[], Mapping[tuple[int, int], Array]],
        at: tuple[int, int],
    ) -> bool:
        """Whether the exported model gives what the module gives in float64, from which the module's own
        float32 is away because rounding moves its result as far: by a layer that divides by the little that
        another left of equal numbers, say.

        Both are asked for: where float32's digits are no accident, as the coordinates that an interpolation
        counts in it, no rounding of the inputs moves the result, and float64 is not what was to be exported.

        shaken: what the module gives for inputs moved by their rounding, by the number of a draw: two scores
        that are almost one change places in some draws alone
        exact: what it gives in float64, by the number of the call and of the output, as in `at`
        """
        if want.dtype != got.dtype or want.shape != got.shape:
            return False
        if want.dtype.kind == "f" and want.dtype != np.float32:
            return False
        difference, _ = distance(want, got)
        moves = (distance(want, shaken(draw=draw))[0] for draw in range(RUNS))
        if not any(np.isfinite(moved) and difference <= SHAKEN * moved for moved in moves):
            return False
        reference = exact().get(at)
        if reference is None or reference.shape != got.shape:
            return False
        apart, scale = distance(reference, got)
        return apart <= (TOLERANCE.get(str(want.dtype), 0.0) if self.rtol is None else self.rtol) * scale

    def _in_float64(self, rows: Sequence[list[Any]]) -> dict[tuple[int, int], Array]:
        """What a copy of the module gives in float64, by call and output; nothing where it cannot."""
        import torch

        from ingot.capture.where import raise_if_ours

        recording = self.captured.recording
        if recording.states or recording.touched or not isinstance(self.module, torch.nn.Module):
            return {}
        wide = [[x.double() if _is_float32(x) else x for x in inputs] for inputs in rows]
        try:
            calls = _reference_calls(self.captured, copy.deepcopy(self.module).double(), wide)
        except Exception as error:  # whatever the module itself says to a dtype that is none of its own
            raise_if_ours(error)
            return {}
        return {(call, i): x for call, outputs in enumerate(calls) for i, x in enumerate(outputs)}


def _equal(a: Array, b: Array) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def _is_finite(x: Array) -> bool:
    return x.dtype.kind not in "fc" or bool(np.isfinite(x).all())


def _tensors_only(captured: Capture, outputs: list[Array]) -> list[Array]:
    """Drop Python numbers that are no outputs of the graph."""
    from ingot.capture.signature import Passed, is_tensor, leaves
    from ingot.program import TENSOR

    kept = [
        leaf.value is TENSOR
        for leaf in leaves(captured.output_structure(TENSOR))
        if leaf.value is TENSOR or is_tensor(leaf.value) or isinstance(leaf.value, (int, float, Passed))
    ]
    if len(outputs) != len(kept):
        _require_as_many(outputs, captured.output_names)
    return [o for o, keep in zip(outputs, kept, strict=True) if keep]


def _nudged(x: Any, draw: int = 0) -> Any:
    """The input moved by its own rounding, each number otherwise in a later draw: how far the reference moves
    is how well its numbers are defined.
    """
    if not hasattr(x, "dtype") or not x.dtype.is_floating_point:
        return x
    if draw == 0:
        return x * (1 + 1e-6)
    import torch

    part = torch.rand(x.shape, generator=torch.Generator().manual_seed(draw)) * 2 - 1
    return (x * (1 + 1e-6 * part)).to(x.dtype)


def _is_float32(x: Any) -> bool:
    import torch

    return isinstance(x, torch.Tensor) and x.dtype == torch.float32


def _copy(x: Any) -> Any:
    return x.clone() if hasattr(x, "clone") else x


def _check(
    name: str,
    want: Array,
    got: Array,
    rtol: float | None,
    shaken: Callable[[], Array],
    where: str,
    computed: str | None = None,
) -> float:
    """The largest difference relative to the largest reference value.

    computed: the narrowest dtype of floating numbers on the way to it, where there are any below float64

    Raises:
        VerificationError: on another dtype or shape, other places of NaN and infinity, or a larger
        difference.
    """
    at = f" at {where}" if where else ""
    if got.dtype != want.dtype or got.shape != want.shape:
        raise VerificationError(
            f"output {name!r}{at}: the module gives {want.dtype} {list(want.shape)}, the exported model "
            f"{got.dtype} "
            f"{list(got.shape)}."
        )
    difference, scale = distance(want, got)
    tolerance = TOLERANCE.get(str(want.dtype), 0.0) if rtol is None else rtol
    if rtol is None and tolerance and computed:  # more digits than those it was computed in, nobody has
        tolerance = max(tolerance, TOLERANCE[computed])
    if difference <= tolerance * scale:
        return difference / scale if scale else 0.0
    if rtol is None and difference <= MOST_SENSITIVE * tolerance * scale:
        # A module that moves this much when its inputs change in their last digits says no more than that.
        moved, _ = distance(want, shaken())
        if np.isfinite(moved) and difference <= SHAKEN * moved:
            return difference / scale if scale else 0.0
    raise VerificationError(
        f"output {name!r}{at}: the exported model differs from the module by {difference:.3g}, where "
        "values reach "
        f"{scale:.3g} and {tolerance * scale:.3g} is allowed."
    )


def _check_kind(name: str, want: Array, got: Array, again: Iterable[Array], where: str) -> None:
    """An output that depends on drawn numbers has the module's dtype and shape, but for axes whose size is
    another one each time that the module runs.

    Raises:
        VerificationError: it has not.
    """
    if got.dtype == want.dtype and got.shape == want.shape:
        return
    if got.dtype == want.dtype and got.ndim == want.ndim:
        runs = np.array([want.shape, *(other.shape for other in again if other.ndim == want.ndim)])
        differ = np.array(got.shape) != want.shape
        if (runs != runs[0]).any(0)[differ].all():
            return
    at = f" at {where}" if where else ""
    raise VerificationError(
        f"output {name!r}{at}: the module gives {want.dtype} {list(want.shape)}, the exported model "
        f"{got.dtype} {list(got.shape)}."
    )


def _differs(want: Array, got: Array) -> bool:
    difference, scale = distance(want, got)
    return difference > TOLERANCE.get(str(want.dtype), 0.0) * scale


def distance(want: Array, got: Array) -> tuple[float, float]:
    """The largest difference, infinite where NaN or infinities stand in other places, and the largest finite
    value.
    """
    if want.size == 0:
        return 0.0, 0.0
    a, b = want.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(np.isnan(a), np.isnan(b)) or not np.array_equal(finite, np.isfinite(b)):
        return float("inf"), 1.0
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf"), 1.0
    scale = float(np.abs(a[finite]).max()) if finite.any() else 0.0
    return (float(np.abs(a[finite] - b[finite]).max()) if finite.any() else 0.0), scale
