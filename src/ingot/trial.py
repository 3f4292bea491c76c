"""One comparison after another of an exported model with the module that it came from, and what is noted of
them.
"""

# The reference is a torch module; torch and SymPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ingot.calls import Runner, draws_of, exported_calls, not_compared, reference_calls, what_is_compared
from ingot.closeness import (
    SHAKEN,
    TOLERANCE,
    Array,
    check,
    check_kind,
    differs,
    distance,
    equal,
    is_finite,
)
from ingot.errors import IngotError, VerificationError
from ingot.report import Case, Report, shown_sizes, some

if TYPE_CHECKING:
    from ingot.capture.attempt import Capture


T = TypeVar("T")


FITTING = 8  # ways to let sizes agree that are tried
RUNS = 8  # of a module that draws numbers, or whose inputs are moved by their rounding


def with_ties(
    differences: Callable[[T], dict[str, float]], wanted: T, again: Callable[[], T]
) -> tuple[dict[str, float], list[str]]:
    """The differences from what the module gives, and the lines where it gives that only with what torch
    leaves open as the model has it: equal values in ONNX's order, say.

    Raises:
        VerificationError: the outputs differ, whichever of them are taken.
    """
    from ingot.capture.left_open import as_the_model

    try:
        return differences(wanted), []
    except VerificationError:
        with as_the_model() as told:  # inputs moved by their rounding, too
            wanted = again()
            if not told():
                raise
            found = differences(wanted)
    return found, told()


@dataclass
class Trial:
    """The comparisons of one capture with its module."""

    captured: Capture
    module: Any
    runner: Runner
    rtol: float | None
    report: Report = field(default_factory=Report)
    compared: list[tuple[list[Any], dict[str, int]]] = field(default_factory=list[Any])
    #: outputs that agree with the module in float64 alone, and how far its own float32 is from that
    rounded: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        self.run = self.runner(self.captured.model)
        from ingot.capture.precision import narrowest

        self.drawn = draws_of(self.captured)
        self.computed = narrowest(self.captured.model)

    def _ignored(self, inputs: list[Any], sizes: Mapping[str, int], wanted: Sequence[Array]) -> str:
        """Which inputs differ in the size of an axis that the example has alike, batches say, and decide
        nothing: the module gives the same with others in their place that fit. Nothing where there are none.

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
                again = reference_calls(self.captured, self.module, [moved])[0]
            except Exception as error:  # whatever the module itself says to inputs that are none of its own
                raise_if_ours(error)
                continue
            if len(again) == len(wanted) and all(map(equal, again, wanted)):
                rest = {name for names in apart if not changed.isdisjoint(names) for name in names} - changed
                return " beside ".join(
                    some([f"{n}={sizes[n]}" for n in sorted(x)], ", ") for x in (changed, rest)
                )
        return ""

    def compare(self, rows: Sequence[list[Any]], sizes: dict[str, int], reached: Sequence[str] = ()) -> bool:
        """Compare calls in a row: one, or several where the model has state. Whether the module takes them.

        reached: what the inputs were searched for
        """
        from ingot.capture.attempt import refuses
        from ingot.capture.sample import fair_inputs, undecided
        from ingot.capture.where import raise_if_ours

        captured, report = self.captured, self.report
        if 0 in sizes.values() and self._divides_by_sizes():
            line = "sizes of 0, which PyTorch's kernels of the engine qnnpack divide by: they end the process"
            if line not in report.unverified:
                report.unverified.append(line)
            return False
        fair = [fair_inputs(captured, list(inputs), sizes) for inputs in rows]
        rows = [inputs for inputs in fair if inputs is not None]
        if len(rows) < len(fair) and report.cases:
            return False
        try:
            wanted = reference_calls(captured, self.module, rows)
        except Exception as error:  # whatever the module itself says to inputs that are none of its own
            raise_if_ours(error)
            if not report.cases and isinstance(error, IngotError):
                raise
            if not report.cases:
                raise refuses(error, captured.source, captured.specs) from error
            if not reached:
                report.refused.append(sizes)  # no size of the model's own choosing: nothing to compare with
            return False
        if reached and not all(map(is_finite, itertools.chain(*wanted))):
            return False  # too large for the module: its infinities say nothing of the branch
        states = captured.recording.states
        names = what_is_compared(captured)
        where = shown_sizes(sizes, report.cases[0].sizes if report.cases else sizes)
        if reached:
            where = f"{where}, on inputs that take another side ({reached[0]})"
        try:
            got = exported_calls(captured, self.run, rows, len(wanted))
        except IngotError as error:
            open_lines = undecided(captured, sizes)
            ignored = self._ignored(rows[0], sizes, wanted[0]) if report.cases and not reached else ""
            if ignored:  # the first of its kind says it
                line = (
                    f"inputs that do not fit each other: the module does not look at {ignored}, the exported"
                )
                known = line.partition("=")[0]
                if not any(u.startswith(known) for u in report.unverified):
                    report.unverified.append(f"{line} model, which does, fails")
                return False
            checked = [line for line in open_lines if f"{line}: " in str(error)]
            if report.cases and (checked or (not reached and (0 in sizes.values() or open_lines))):
                unfit = f", which may not fit each other at {some(open_lines, ', ')}" if open_lines else ""
                if not reached or not any(f"{checked[0]}: " in line for line in report.unverified):
                    report.unverified.append(f"the exported model fails for {where}{unfit}: {error}")
                return False
            raise VerificationError(
                f"the exported model fails for {where}, where the module gives a result: {error}"
            ) from error

        def shaken(call: int, output: int, draw: int = 0) -> Array:
            moved = [[_nudged(x, draw) for x in inputs] for inputs in rows[: call + 1]]
            return reference_calls(captured, self.module, moved)[call][output]

        def differences(wanted: Sequence[list[Array]]) -> dict[str, float]:
            found: dict[str, float] = {}
            exact = functools.cache(functools.partial(self._in_float64, rows))
            for call, (expected, results) in enumerate(zip(wanted, got, strict=True)):
                at = f"{where}, call {call + 1} in a row" if states else where
                for i, (name, want, result) in enumerate(zip(names, expected, results, strict=True)):
                    if name in self.drawn:
                        again = (reference_calls(captured, self.module, rows)[call][i] for _ in range(RUNS))
                        check_kind(name, want, result, again, at)
                        continue
                    if report.cases and 0 in sizes.values() and self._is_of_nothing(want, result):
                        found.setdefault(name, 0.0)
                        continue
                    moved = functools.partial(shaken, call, i)
                    dtype = self.computed.get(name)
                    try:
                        part = check(name, want, result, self.rtol, moved, at, dtype)
                    except VerificationError:
                        plain = self._in_plain_steps(want, result, rows, call, i)
                        if plain is not None:
                            part = check(name, plain, result, self.rtol, moved, at, dtype)
                            found[name] = max(found.get(name, 0.0), part)
                            continue
                        gap, scale = distance(want, result)
                        part = gap / scale if scale else 0.0
                        if not self._rounds_otherwise(want, result, rows, call, i):
                            if not self._rounds_less(want, result, moved, exact, (call, i)):
                                raise
                            self.rounded[name] = max(self.rounded.get(name, 0.0), part)
                    found[name] = max(found.get(name, 0.0), part)
            return found

        try:
            found, ties = with_ties(differences, wanted, lambda: reference_calls(captured, self.module, rows))
        except VerificationError as error:
            if captured.recording.touched or self.drawn:  # a draw would be the first difference
                raise
            from ingot.capture.bisect import first_difference
            from ingot.capture.left_open import as_the_model

            feeds = captured.feeds(rows[0])
            with as_the_model():
                node = first_difference(captured, captured.source, self.runner, rows[0], feeds, differs)
            raise VerificationError(f"{error}{node}") from error
        if not report.cases and self.rtol is None:
            self._require_steps(got[0], rows)
        lines = [*ties, *not_compared(self.drawn)]
        report.unverified += [line for line in lines if line not in report.unverified]
        report.cases.append(Case(sizes, found))
        self.compared.append((list(rows[0]), sizes))
        return True

    def _is_of_nothing(self, want: Array, got: Array) -> bool:
        """Whether an output is of another kind as Python's of an empty list is, a number or float32 of no
        elements, and nothing else: the lines are noted where sizes of 0 leave such a list in the model.
        """
        lines = self.captured.recording.recorder.empty_lists
        if not lines or (want.dtype == got.dtype and want.shape == got.shape):
            return False
        number = str(want.dtype) in ("int64", "float64") and want.shape in ((), got.shape)
        plain = number and bool((got == want).all())
        if not plain and (want.size or got.size or want.dtype != np.float32):
            return False
        self.report.unverified += [line for line in lines if line not in self.report.unverified]
        return True

    def _divides_by_sizes(self) -> bool:
        """Whether the module may run kernels of qnnpack."""
        import torch

        from ingot.capture.rounding import is_quantised

        is_chosen = torch.backends.quantized.engine == "qnnpack"
        return is_chosen and is_quantised([n.op_type for n in self.captured.model.graph])

    def _in_plain_steps(
        self, want: Array, got: Array, rows: Sequence[list[Any]], call: int, output: int
    ) -> Array | None:
        """What the module gives without PyTorch's fast path for encoders, where that alone gives NaN: it does
        for sequences that are all padding.
        """
        import torch

        is_fast = torch.backends.mha.get_fastpath_enabled()
        if not is_fast or want.shape != got.shape or want.dtype.kind != "f":
            return None
        lost = np.isnan(want) & ~np.isnan(got)
        if not lost.any():
            return None
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            plain = reference_calls(self.captured, self.module, rows[: call + 1])[call][output]
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        if np.isnan(plain[lost]).any():
            return None
        line = (
            "NaN that PyTorch's fast path for encoders gives to sequences that are all padding: there the "
            "exported model gives what the module's plain steps give"
        )
        if line not in self.report.unverified:
            self.report.unverified.append(line)
        return np.where(lost, plain, want)

    def _rounds_otherwise(
        self, want: Array, got: Array, rows: Sequence[list[Any]], call: int, output: int
    ) -> bool:
        """Whether a quantised model differs from the module by how halves are rounded: see `steps`, and
        `rounding` for what has no order of its quantisers.
        """
        from ingot.capture.rounding import Otherwise, is_a_rounding, is_quantised

        if self.rtol is not None:
            return False
        known = self._in_its_steps(got, rows, output)
        if known is not None:
            return known
        if not is_quantised([n.op_type for n in self.captured.model.graph]):
            return False

        def run(seed: int) -> Array:
            with Otherwise(seed):
                return reference_calls(self.captured, self.module, rows[: call + 1])[call][output]

        _, scale = distance(want, got)
        return is_a_rounding(want, got, run, TOLERANCE.get(str(want.dtype), 0.0) * scale)

    def _in_its_steps(self, got: Array, rows: Sequence[list[Any]], output: int) -> bool | None:
        """Whether the module gives an output of the exported model where its quantisers go on with the
        model's integers, which are its own but for rounding; None where that cannot be told.
        """
        from ingot.capture.steps import OtherError, UnknownError

        try:
            want, lines = self._stepped(got, rows, output)
        except UnknownError:
            return None
        except OtherError:
            return False
        if not _agree(want, got, TOLERANCE.get(str(got.dtype), 0.0)):
            return False
        self.report.unverified += [line for line in lines if line not in self.report.unverified]
        return True

    def _stepped(self, got: Array, rows: Sequence[list[Any]], output: int) -> tuple[Array, Sequence[str]]:
        """An output of the module's whose quantisers go on with the model's integers, and what else differs.

        Raises:
            UnknownError, OtherError: see `steps`
        """
        import torch

        from ingot.capture.bisect import values_in_run
        from ingot.capture.steps import UnknownError, in_steps, steps_of

        captured = self.captured
        script = isinstance(self.module, torch.jit.ScriptModule)  # whose interpreter nobody can go on for
        if script or captured.recording.states or captured.recording.touched:
            raise UnknownError
        allowed, feeds = TOLERANCE.get(str(got.dtype), 0.0), captured.feeds(rows[0])
        name = what_is_compared(captured)[output]
        found = steps_of(
            captured,
            lambda values: values_in_run(captured.model, values, self.runner, feeds),
            lambda x: _agree(x, got, allowed),
            next(v for v in captured.model.graph.outputs if v.name == name),
        )
        with in_steps(found) as lines:
            want = reference_calls(captured, self.module, rows)[0][output]
        return want, list(lines)

    def _require_steps(self, got: Sequence[Array], rows: Sequence[list[Any]]) -> None:
        """Compare the integers of a quantised model with the module's: a zero point that a quantiser and
        what reads it have alike, and that is not the module's, shows in no number that keeps to its range.

        Raises:
            VerificationError: they are others, by more than rounding
        """
        from ingot.capture.rounding import is_quantised
        from ingot.capture.steps import OtherError, UnknownError

        names = {name for name, _, _ in self.captured.recording.recorder.quantisers}
        # A model's own round() may follow anything: how far that is from the module's, its outputs say.
        plain = "round" not in names and is_quantised([n.op_type for n in self.captured.model.graph])
        if not plain or self.drawn:
            return
        try:
            self._stepped(got[0], rows, 0)
        except UnknownError:
            pass
        except OtherError as error:
            raise VerificationError(
                f"the exported model rounds to other steps than the module, by more than float32's rounding: "
                f"{error}. Its outputs agree on the example and would not on numbers beyond the range."
            ) from error

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
            calls = reference_calls(self.captured, copy.deepcopy(self.module).double(), wide)
        except Exception as error:  # whatever the module itself says to a dtype that is none of its own
            raise_if_ours(error)
            return {}
        return {(call, i): x for call, outputs in enumerate(calls) for i, x in enumerate(outputs)}


def _agree(want: Array, got: Array, allowed: float) -> bool:
    if want.dtype != got.dtype or want.shape != got.shape:
        return False
    difference, scale = distance(want, got)
    return difference <= allowed * scale


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
