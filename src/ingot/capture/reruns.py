"""Proofs by another run: what a call left behind, drew by chance or wrote into strings changes nothing."""

# torch's shape environment and fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from ingot.capture.assume import Assumption
from ingot.capture.chance import watching, written
from ingot.capture.clocks import watching_clocks
from ingot.capture.graph import elements_decide
from ingot.capture.merge import describe
from ingot.capture.mutable import Contents
from ingot.capture.positions import Later, gives_passed, is_kind
from ingot.capture.record import Recorder
from ingot.capture.run import Call, Run, run_model
from ingot.capture.scalars import Symbolic
from ingot.capture.size_symbols import StaleRead
from ingot.capture.state import Change, Snapshot, StateMatters, StateSpec, in_words
from ingot.capture.texts import watched_texts
from ingot.capture.where import UNKNOWN, raise_if_ours
from ingot.capture.words import Word
from ingot.errors import DataDependentError, ExportError


def leftovers(
    call: Call,
    hints: dict[str, int],
    snapshot: Snapshot,
    run: Run,
    changes: Sequence[Change],
    first: list[str],
) -> list[Assumption] | StateMatters:
    """What a call left behind where nothing of its kind stood before: harmless if the next call, which finds
    it there, is the same function without reading it. Of what sizes decided it may read, if it wants it so:
    the error to raise where that turns out otherwise (see `settled`).

    Raises:
        ExportError: the next call reads what the inputs decided.
    """
    if not changes:
        return []
    where = {c.label: snapshot.line_of(c.label) for c in changes}
    read: str | None = None
    try:
        second = _again(call, hints, snapshot, lambda g: _leave_stale(g, run.recorder, changes))
        if written(second.recorder) != first or gives_passed(second.output):
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
        if value is not None and elements_decide(value, run.inputs):
            before = in_words(c.before)
            raise ExportError(
                f"{where[c.label]}\n"
                f"forward leaves a tensor in {c.label!r}, where {before} stood before the call, and a later "
                "call reads it: state that outlives the call, and no input of the model can be both. Make it "
                'a tensor of its dtype and shape before the export, and export with state="inputs".'
            )
    layers = [c for c in changes if any(isinstance(v, torch.nn.Module) for v in (c.before, c.after))]
    if layers:
        before, after = (
            f"a {type(v).__name__}" if isinstance(v, torch.nn.Module) else in_words(v)
            for v in (layers[0].before, layers[0].after)
        )
        raise ExportError(
            f"{where[layers[0].label]}\n"
            f"forward leaves {after} in {layers[0].label!r}, where {before} stood before the call, and the "
            "next call is another model for it: state that outlives the call, and no input can be a module. "
            "Make every module in `__init__`, and choose among them in forward."
        )
    plain = [c for c in changes if not isinstance(c.after, (torch.Tensor, *Symbolic))]
    chosen = next((c for c in plain if isinstance(c.after, Word)), None)
    if chosen is not None:
        raise ExportError(
            f"{where[chosen.label]}\n"
            f"forward leaves {describe(chosen.after)} in {chosen.label!r}, as data decides, and the next "
            "call is another model for it: state that outlives the call, and no input can be text or of an "
            'enum. Keep a number there, one for each of them, and export with state="inputs".'
        )
    if plain and len(plain) == len(changes):
        raise ExportError(
            f"{where[plain[0].label]}\n"
            f"forward leaves {plain[0].after!r} in {plain[0].label!r}, and the next call is another model "
            "for it: state that outlives the call, in a place that no input can take. Keep it in an "
            "attribute or buffer of the module, with a value from the start, and export with "
            'state="inputs"; or pass it in.'
        )
    left = [StateSpec(c.label, c.before, where[c.label], (c.label,), decided_by="sizes") for c in changes]
    return StateMatters(left, left=True)


def _leave_stale(recorder: Recorder, first: Recorder, changes: Sequence[Change]) -> None:
    """Let stand what the first call left, with tensors and sizes that raise where they are read."""
    for c in changes:
        if isinstance(c.after, torch.Tensor):
            real = first.real(c.after)
            c.place.set(recorder.stale_tensor(c.label, c.after) if real is None else real)
        elif isinstance(c.after, (torch.SymInt, torch.SymFloat)):
            c.place.set(recorder.env.stale_number(c.label))
        elif isinstance(c.after, Contents) and is_kind(c.after.kind):
            c.place.set(Later(c.label, c.place.get()))


def without_chance(
    call: Call,
    hints: dict[str, int],
    snapshot: Snapshot,
    wanted: list[str],
) -> Assumption:
    """Random numbers of Python's were drawn: harmless if other draws give the same model.

    Raises:
        ExportError: they do not.
    """
    line = UNKNOWN
    for _ in range(2):
        _restore_state(call, snapshot)
        with watching() as found:
            again = _again(call, hints, snapshot)
        line = found()
        if written(again.recorder) != wanted:
            raise ExportError(
                f"{line}\nforward draws a random number here, with Python's random or NumPy's, and the "
                "model depends on it: the export would keep one draw for ever. Draw it outside of forward "
                "and pass it as an argument, or switch the random part off."
            )
    what = "random numbers are drawn in Python; three recordings with other numbers are the same model"
    return Assumption("constant", line, what, "proved")


def require_steady(
    call: Call, hints: dict[str, int], snapshot: Snapshot, wanted: list[str]
) -> list[Assumption]:
    """What asks a clock or the system's randomness, where another recording gives the same model: perhaps by
    chance, or because the answer was the same.

    Raises:
        ExportError: another recording, from the same state, gives another model.
    """
    _restore_state(call, snapshot)
    with watching_clocks() as lines:
        again = written(_again(call, hints, snapshot).recorder)
    if again != wanted:
        raise ExportError(
            f"{lines[0] if len(lines) == 1 else snapshot.first_line}\n"
            "forward is another model each time it runs: it depends on the time, the system's randomness or "
            "an iterator outside of it. Take that out of forward and pass it as an argument."
        )
    what = (
        "a clock or the system's randomness is asked here: two recordings are the same model, which may keep"
    )
    return [Assumption("constant", line, f"{what} the answer", "fixed") for line in lines]


def without_texts(
    call: Call, hints: dict[str, int], snapshot: Snapshot, wanted: list[str], lines: Sequence[str]
) -> Assumption:
    """Sizes or tensors were written into strings: harmless if strings with other numbers give the same model.

    Raises:
        ExportError: they do not.
    """
    _restore_state(call, snapshot)
    try:
        with watched_texts(varied=True):
            same = written(_again(call, hints, snapshot).recorder) == wanted
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


def without_layouts(
    call: Call, hints: dict[str, int], snapshot: Snapshot, wanted: list[str], lines: Sequence[str]
) -> Assumption:
    """The model asked how tensors lie in memory: harmless if the other answer gives the same model, or none.

    Raises:
        DataDependentError: another model.
    """

    def same(turned: Literal["all", "open"]) -> bool:
        _restore_state(call, snapshot)

        def turn(g: Recorder) -> None:
            g.other_layouts = turned

        try:
            return written(_again(call, hints, snapshot, turn).recorder) == wanted
        except Exception as error:  # the model wants tensors to lie so
            raise_if_ours(error)
            return True

    if not same("all"):
        if same("open"):
            lie = "the inputs lie in memory as their elements are counted, as they do in ONNX"
            return Assumption("values", lines[0], lie, "fixed")
        raise DataDependentError(
            f"{lines[0]}\nThis line asks how a tensor lies in memory, and the model depends on it, which "
            "tensors of ONNX know nothing of. Compute the same for both answers, as .contiguous() and "
            ".reshape() do."
        )
    return Assumption("constant", lines[0], "how tensors lie in memory does not change the model", "proved")


def _again(
    call: Call,
    hints: dict[str, int],
    snapshot: Snapshot,
    prepare: Callable[[Recorder], None] | None = None,
) -> Run:
    """Another run, to be compared with the one before."""
    with call.marks.as_it_began():
        return run_model(call, hints, snapshot, prepare)


def _restore_state(call: Call, snapshot: Snapshot) -> None:
    """Let the model hold what it held before the first call."""
    snapshot.restore()
    snapshot.shield()
    for label, begin in call.begins.items():
        snapshot.begin(label, begin.place, begin.value)
