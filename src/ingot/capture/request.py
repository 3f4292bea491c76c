"""A request to start again with one function rewritten: Python is about to decide something that only the run
knows.
"""

# Frames are what this file is about.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import dis
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch

from ingot.capture.kinds import (
    Globals,
    asks_for_int,
    asks_what_a_number_is,
    asks_what_is_same,
    dtype_is_int,
    functions_of,
)
from ingot.capture.remedies import remedy
from ingot.capture.rewrite import Key, rewritten
from ingot.capture.sources import codes_in, is_source_of, require_source
from ingot.capture.syntax import RUNTIME, THUNK
from ingot.capture.where import is_ingot_code, is_user_code, quoted_line, user_frame
from ingot.errors import DataDependentError, ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

GENERATED = "_ingot_"  # how the names of a rewritten function's blocks begin


class Restart(BaseException):  # not an Exception: the model's own `except` clauses must not catch it
    """More code is marked to be rewritten."""


Place = tuple[str, int]  # a line of a file
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


Apart = dict[Key, set[Place]]
KeptWhole = set[tuple[Key, Place]]


def _copied(apart: Apart, kept_whole: KeptWhole) -> tuple[Apart, KeptWhole]:
    return {key: set(places) for key, places in apart.items()}, set(kept_whole)


@dataclass
class Marks:
    """Functions to rewrite, over all recordings of one export."""

    needed: dict[Key, bool] = field(default_factory=dict[Key, bool])  # False: asked for a size's sake alone
    refused: set[Key] = field(
        default_factory=set[Key]
    )  # have no staged form: sizes decide there by the example
    symbolic_int: list[Globals] = field(
        default_factory=list[Globals]
    )  # globals of modules whose `int` leaves sizes as they are

    models_own: list[Globals] = field(default_factory=list[Globals])  # whose `type` says int of a size

    reached: bool = False  # whether the code that the model reaches was looked at
    asking: list[CodeType] = field(default_factory=list[CodeType])  # of it what asks if two things are one

    everywhere: bool = (
        False  # whether all of it is rewritten: what data decides is kept where any may find it
    )

    apart: Apart = field(
        default_factory=dict[Key, set[Place]]
    )  # functions that are recorded for either answer to what is asked at some lines
    kept_whole: KeptWhole = field(
        default_factory=set[tuple[Key, Place]]
    )  # those of them where a side was found that fails
    began: tuple[Apart, KeptWhole] = field(
        default_factory=lambda: (dict[Key, set[Place]](), set[tuple[Key, Place]]())
    )  # both, when a run began that others are compared with
    recursive: set[Place] = field(
        default_factory=set[Place]
    )  # branches that decide whether a function calls itself again, without an end
    unrolled: set[Place] = field(
        default_factory=set[Place]
    )  # loops of which Python knows the rounds, and which are no Loop
    unjoined: list[tuple[Place, list[Key]]] = field(
        default_factory=list[tuple[Place, list[Key]]]
    )  # branches on sizes that left a variable without a value, with the functions around them

    tables: Literal["free", "alone", "fixed"] = (
        "free"  # which that a model keeps a branch on sizes may change:
    )
    # with numbers that say how long they are, without, or none, where it goes the example's way

    freed: bool = False  # whether one did, in this recording

    may_grow: bool = False  # whether data may decide what dicts, deques and sets of the model's own have

    open_at: set[Place] = field(default_factory=set["Place"])  # lines that make dicts at keys of data

    must_run: bool = (
        False  # whether loops run that give a variable its first value: what is returned is not None
    )

    def begin(self, models_own: list[Globals]) -> None:
        """For another recording of the same model: what was rewritten is likely to be again."""
        self.refused.clear()
        self.reached = False
        self.freed = False
        if self.models_own:
            return
        self.models_own = models_own
        recurrent: Any = vars(torch.nn.modules.rnn)  # takes int() of how many sequences a packed one has
        self.symbolic_int.append(recurrent)
        for g in models_own:
            if "int" not in g and not dtype_is_int(functions_of(g)):
                self.symbolic_int.append(g)

    def mark(self, codes: Sequence[CodeType], makers: Sequence[CodeType]) -> None:
        """Mark what of a model's code asks what a number is, before the first recording.

        makers: of its objects, which are marked where all code is
        """
        before, self.reached = self.reached, True
        asks = [] if before else [c for c in codes if asks_what_a_number_is(c) or self._asks_for_pythons(c)]
        for code in asks:
            require_source(code)
        asking = list(map(Key.of, asks))
        weighing = [] if before else [Key.of(code) for code in codes if "getsizeof" in code.co_names]
        for key in (*weighing, *asking):
            self.add(key, key in weighing)
        if not before:
            self.asking = [code for code in codes if any(map(asks_what_is_same, codes_in(code)))]
        if self.everywhere and not before:
            by_file = sorted((*codes, *makers), key=lambda code: code.co_filename)  # of which few are parsed
            for key in (key for code in by_file for key in rewritable(code)):
                self.add(key, True)

    def _asks_for_pythons(self, code: CodeType) -> bool:
        """Whether code of a module in which `int` is Python's own asks if something is one."""
        if not asks_for_int(code):
            return False
        known = {id(g) for g in self.symbolic_int}
        return any(id(g) not in known and g.get("__file__") == code.co_filename for g in self.models_own)

    def take_everything(self) -> None:
        """Start again with all code of the model's rewritten, if it is not."""
        if not self.everywhere:
            self.everywhere, self.reached = True, False
            ACTIVE.pending = Restart()
            raise ACTIVE.pending

    def let_grow(self) -> None:
        """Start again with dicts, deques and sets that may grow as data says, if they may not."""
        if not self.may_grow:
            self.may_grow = self.everywhere = True
            self.reached = False
            ACTIVE.pending = Restart()
            raise ACTIVE.pending

    def take_those_that_ask(self) -> None:
        """Start again with all code rewritten that asks whether two things are one, if some is not."""
        asking, self.asking = self.asking, []
        new = [self.add(key, True) for code in asking for key in rewritable(code)]
        if any(new):
            ACTIVE.pending = Restart()
            raise ACTIVE.pending

    def add(self, key: Key, needed: bool) -> bool:
        """Mark a function; whether that is new."""
        if key in self.needed or (key in self.refused and not needed):
            return False
        self.needed[key] = needed
        return True

    def take_apart(self, place: Place, functions: Sequence[Key]) -> bool:
        """Record the innermost function that is not yet, for either answer at a line; if there is one."""
        for key in functions:
            places = self.apart.setdefault(key, set())
            if place not in places and (key, place) not in self.kept_whole:
                places.add(place)
                self.needed.setdefault(key, False)
                return True
        return False

    def keep_whole(self, key: Key, place: Place) -> None:
        """A function is not to be taken apart for what is asked at a line: a side of it fails."""
        self.apart[key].discard(place)
        self.kept_whole.add((key, place))

    def begin_run(self) -> None:
        """For a run that others are to be compared with."""
        self.began = _copied(self.apart, self.kept_whole)

    @contextlib.contextmanager
    def as_it_began(self) -> Generator[None]:
        """What runs meanwhile takes functions apart as that run began to: what it found out on its way, in
        which of them a side fails, would make another one of this.
        """
        apart, kept_whole = self.apart, self.kept_whole
        self.apart, self.kept_whole = _copied(*self.began)
        try:
            yield
        finally:
            for key, places in apart.items():
                self.apart.setdefault(key, set()).update(places)
            self.kept_whole |= kept_whole
            for key, place in self.kept_whole:
                self.apart.get(key, set[Place]()).discard(place)

    def start_apart(self, place: Place, functions: Sequence[Key]) -> None:
        """Start again with it, if there is one."""
        if self.take_apart(place, functions):
            ACTIVE.pending = Restart()
            raise ACTIVE.pending

    def take_unjoined_apart(self) -> bool:
        """The same for every branch that left a variable without a value."""
        found, self.unjoined = self.unjoined, []
        taken = [self.take_apart(*one) for one in found]  # all of them
        return any(taken)

    def fix_tables(self) -> bool:
        """Take the example's way where a branch on sizes changes a table that the model keeps; whether there
        were such branches.
        """
        freed, self.freed = self.freed, False
        if freed:
            self.tables = "fixed"
        return freed

    def require_rounds(self) -> bool:
        """Let loops that give a variable its first value run at least once; whether that is new."""
        before, self.must_run = self.must_run, True
        return not before

    def give_up_sizes(self) -> bool:
        """Leave functions alone that were marked for a size's sake; whether there were any.

        Those that data decides are found again: some depend on a size that a branch on sizes left open.
        """
        soft = [k for k, needed in self.needed.items() if not needed]
        self.refused.update(soft)
        if soft:
            self.needed.clear()
        return bool(soft)


class _Active:
    """The recording that is going on: one at a time, under the lock of `recording`."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.marks = Marks()
        self.pending: Restart | None = None
        self.refusal: Exception | None = None  # holds even where the model's own `except` swallows it
        self.words = False  # whether a condition has chosen between plain values: see `words`
        self.maybes = False  # whether data decides of some value that it is None
        self.final: Exception | None = None  # Python itself would go another way than the run, unasked


ACTIVE = _Active()


def recorder() -> Recorder:
    """The recorder that is at work."""
    found = ACTIVE.recorder
    if found is None:
        raise DataDependentError(
            "a value of an export is used after the export has ended. It was kept in a global, a "
            "cache or a closure."
        )
    return found


def recording() -> bool:
    """Whether a recording is going on."""
    return ACTIVE.recorder is not None


def request(frame: FrameType | None, needed: bool = True) -> None:
    """Start again with the frame's function rewritten, if that is possible and was not tried before.

    needed: data decides; else a size does, which may also be fixed to the example's branch
    """
    frame = _function_around(frame)
    if frame is None or ACTIVE.recorder is None or not is_user_code(frame.f_code):
        return
    if is_rewritten(frame) or not _has_source(frame.f_code, needed):
        return
    asker = frame.f_back if frame.f_code.co_name in ("__bool__", "__len__", "__iter__") else None
    asker = _function_around(asker)
    if asker is not None and is_user_code(asker.f_code) and not is_rewritten(asker):
        ACTIVE.marks.add(Key.of(asker.f_code), needed)  # Python makes a number of the answer there, or loops
    key = Key.of(frame.f_code)
    if ACTIVE.marks.add(key, needed):
        ACTIVE.pending = Restart()
        raise ACTIVE.pending


def _function_around(frame: FrameType | None) -> FrameType | None:
    """The function that runs, of a comprehension that asks the one that it stands in."""
    if frame is None or frame.f_code.co_name not in _COMPREHENSIONS:
        return frame
    at = frame.f_back
    while at is not None and frame.f_code not in codes_in(at.f_code):
        at = at.f_back
    return frame if at is None else _function_around(at)


def _has_source(code: CodeType, needed: bool) -> bool:
    """Whether the source of code is known; where it is needed and is not, the export ends."""
    if needed:
        try:
            require_source(code)
        except ExportError as error:
            refuse(error)
    return is_source_of(code)


def is_rewritten(frame: FrameType) -> bool:
    """Whether a frame runs rewritten code: a function, a block of it or an operand."""
    code = frame.f_code
    names = (*code.co_freevars, *code.co_cellvars, *code.co_varnames)
    return code.co_name.startswith(GENERATED) or RUNTIME in names or THUNK in names


def rewritable(code: CodeType) -> list[Key]:
    """A function of the model's that has a form for the runtime, and those inside it."""
    if not is_user_code(code) or code.co_name.startswith(("<", GENERATED)):
        return []
    inside = [Key.of(c) for c in codes_in(code) if not c.co_name.startswith(("<", GENERATED))]
    for keys in (inside, inside[:1]):
        with contextlib.suppress(ExportError):
            rewritten(code, keys)
            return keys
    return []


def request_code(code: Any) -> None:
    """Start again with this code rewritten, unless it is already."""
    if not is_user_code(code) or code.co_name.startswith(GENERATED):
        return
    _has_source(code, True)
    key = Key.of(code)
    if ACTIVE.marks.add(key, True):
        ACTIVE.pending = Restart()
        raise ACTIVE.pending


_CONVERTING = (
    "torch/_tensor.py",
    "torch/overrides.py",
    "torch/__init__.py",
    "experimental/sym_node.py",
    "experimental/recording.py",
    "experimental/symbolic_shapes.py",
)


def refuse(error: Exception) -> NoReturn:
    """Raise an error that ends the export even if the model catches it."""
    ACTIVE.refusal = error
    raise error


def asking_frame() -> FrameType | None:
    """The user's frame that turns a tensor into a Python value, if it is the user's and not torch's."""
    split: Any = torch.functional.split  # Python that calls the tensor's method
    at: FrameType | None = sys._getframe(1)
    while at is not None and (
        is_ingot_code(at.f_code) or at.f_code.co_filename.endswith(_CONVERTING) or at.f_code is split.__code__
    ):
        at = at.f_back
    return at if at is not None and is_user_code(at.f_code) else None


def unpacks(frame: FrameType) -> bool:
    """Whether the frame is taking something apart into a number of variables."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("UNPACK")


def unpacked(frame: FrameType) -> int | None:
    """Into how many variables such a frame takes it apart; None where one of them takes what is left."""
    at = _instruction(frame)
    return at.arg if at.opname == "UNPACK_SEQUENCE" else None


def updates(frame: FrameType) -> bool:
    """Whether the frame is changing something by `+=` or its like."""
    at = _instruction(frame)
    return at.opname == "BINARY_OP" and at.argrepr.endswith("=")


def _instruction(frame: FrameType) -> dis.Instruction:
    """What a frame is doing. (A call of C's may stand at one of the caches behind its instruction.)"""
    before = [i for i in dis.get_instructions(frame.f_code) if i.offset <= frame.f_lasti]
    return before[-1]


def cannot_say(what: str, edit: str = "Write it as an `if` of the function's own.") -> NoReturn:
    """Python would take what only the run knows for something else, without a question: refuse."""
    found = f"This line {what}, which has no ONNX form here."
    ACTIVE.final = DataDependentError(f"{quoted_line()}\n{found} {edit}")
    raise ACTIVE.final


def cannot_wait(what: str) -> NoReturn:
    """Python needs to know now what only the run knows: rewrite the function that asks, or refuse.

    Raises:
        Restart, DataDependentError
    """
    frame = sys._getframe(1)
    request(user_frame(frame))
    edit = remedy(frame, "Write it with tensor operations, or as a loop or branch of the function's own.")
    raise DataDependentError(f"{quoted_line()}\nThis line {what}, which has no ONNX form here. {edit}")


def place() -> Place:
    """The user's line that runs."""
    frame = user_frame(sys._getframe(1))
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)


def functions() -> list[Key]:
    """The rewritten functions that are running, innermost first."""
    found: list[Key] = []
    at: FrameType | None = sys._getframe(1)
    while at is not None:
        code = at.f_code
        if is_user_code(code) and is_rewritten(at) and not code.co_name.startswith((GENERATED, "<")):
            found.append(Key.of(code))
        at = at.f_back
    return found


def still_running(found: Sequence[Key]) -> list[Key]:
    """The innermost of these functions that still runs: what follows a branch in it may need its answer."""
    running = functions()
    return [key for key in found if key in running][:1]
