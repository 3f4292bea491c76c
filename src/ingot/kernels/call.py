"""The words in which kernels and plans speak: a buffer, a strided view of it, a call of a kernel."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from ingot.codegen.kernel import Kernel
from ingot.codegen.pages import address_of


@dataclass(eq=False, slots=True)
class Buffer:
    """A piece of memory. Where it lies is decided later (arena), given at each run (input, output), or known
    (constant).
    """

    nbytes: int
    kind: Literal["arena", "input", "output", "constant"] = "arena"
    array: np.ndarray | None = None  # of a constant
    index: int = 0  # which input or output
    _address: int = field(default=0, init=False)

    @property
    def address(self) -> int:
        """Where a constant lies."""
        if not self._address:
            assert self.array is not None
            self._address = address_of(self.array)
        return self._address


_NOWHERE = Buffer(0)


@dataclass(slots=True, unsafe_hash=True)
class View:
    """A strided array in a buffer. `offset` is in bytes, `strides` in elements; a stride of 0 repeats.

    Never changed once it is made; it is not declared frozen because that makes it four times as slow to make,
    and a plan makes a thousand.
    """

    buffer: Buffer
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie one after the other in the order of the dimensions."""
        step = 1
        for n, s in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if n != 1 and s != step:
                return self.size == 0
            step *= n
        return True

    def with_dims(self, shape: Sequence[int], strides: Sequence[int], offset: int = 0) -> View:
        """Another view of the same memory; `offset` elements further."""
        return View(
            self.buffer,
            self.offset + offset * self.dtype.itemsize if offset else self.offset,
            self.dtype,
            tuple(shape),
            tuple(strides),
        )

    def transpose(self, perm: Sequence[int]) -> View:
        return self.with_dims([self.shape[p] for p in perm], [self.strides[p] for p in perm])

    def swapped(self) -> View:
        """Matrices [..., M, N] as [..., N, M]."""
        return self.transpose((*range(self.rank - 2), self.rank - 1, self.rank - 2))

    def part(self, axis: int, start: int, size: int) -> View:
        """`size` places along an axis from `start` on, which may lie outside (but in the same memory)."""
        shape = (*self.shape[:axis], size, *self.shape[axis + 1 :])
        return self.with_dims(shape, self.strides, start * self.strides[axis])

    def broadcast_to(self, shape: Sequence[int]) -> View:
        """As NumPy's broadcast_to: new and repeated dimensions get stride 0."""
        if self.shape == shape:
            return self
        shape = tuple(shape)
        missing = len(shape) - len(self.shape)
        own = [
            0 if n == 1 and m != 1 else s
            for n, m, s in zip(self.shape, shape[missing:], self.strides, strict=True)
        ]
        return View(self.buffer, self.offset, self.dtype, shape, (*(0,) * missing, *own))

    def reshape(self, shape: Sequence[int]) -> View | None:
        """The same elements in another shape without moving them, or None where only a copy can do it."""
        if self.size == 0:
            return self.with_dims(shape, row_major(shape))
        # Merge neighbouring dimensions that lie one after the other, then split the merged ones again.
        runs: list[list[int]] = []  # [size, stride of the last]
        for n, s in zip(self.shape, self.strides, strict=True):
            if n == 1:
                continue
            if runs and runs[-1][1] == n * s:
                runs[-1] = [runs[-1][0] * n, s]
            else:
                runs.append([n, s])
        strides: list[int] = []
        for n in reversed(shape):
            if n == 1:
                strides.append(0)
                continue
            if not runs or runs[-1][0] % n:
                return None
            size, stride = runs[-1]
            strides.append(stride)
            runs[-1] = [size // n, stride * n]
            if runs[-1][0] == 1:
                runs.pop()
        return self.with_dims(shape, strides[::-1])


#: How a view lies: its dtype, shape and strides.
Layout: TypeAlias = tuple[np.dtype, tuple[int, ...], tuple[int, ...]]


def layout_of(view: View) -> Layout:
    """All of the view but its memory."""
    return view.dtype, view.shape, view.strides


def blank(layout: Layout) -> View:
    """A view of no memory, to work out a `Form` with."""
    return View(_NOWHERE, 0, *layout)


@dataclass(slots=True)
class Weights:
    """A constant array that is read when a kernel packs it, and let go again: it may lie in a file, or be
    computed from what does. Never changed once it is made.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @classmethod
    def of(cls, array: np.ndarray) -> Weights:
        """An array that is there."""
        return cls(array.shape, array.dtype, lambda: array)


def common_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """What all shapes broadcast to, by NumPy's rule. Raises ValueError where there is no such shape."""
    rank = max(map(len, shapes))
    common = [1] * rank
    for shape in shapes:
        for d, size in enumerate(shape, rank - len(shape)):
            if common[d] == 1:
                common[d] = size
            elif size != 1 and size != common[d]:
                raise ValueError(f"shapes {', '.join(map(str, shapes))} do not broadcast")
    return tuple(common)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a contiguous array."""
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def strides_in_order(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense array whose dimensions lie in memory as `order` says, outermost first."""
    strides = [0] * len(shape)
    step = 1
    for d in reversed(order):
        strides[d] = step
        step *= max(shape[d], 1)
    return tuple(strides)


def memory_order(view: View) -> tuple[int, ...]:
    """The dimensions from the largest stride down; those of size 1 stay with their left neighbour."""
    keys: list[int] = []
    for n, s in zip(view.shape, view.strides, strict=True):
        keys.append(abs(s) if n > 1 else (keys[-1] if keys else 1 << 62))
    return tuple(sorted(range(view.rank), key=lambda d: -keys[d]))


def arena_view(shape: Sequence[int], dtype: Any, order: Sequence[int] | None = None) -> View:
    """A buffer of the arena, dense in the `order` of dimensions, outermost first (default: as they are)."""
    shape, dtype = tuple(shape), np.dtype(dtype)
    strides = row_major(shape) if order is None else strides_in_order(shape, order)
    return View(Buffer(math.prod(shape) * dtype.itemsize), 0, dtype, shape, strides)


def constant(array: np.ndarray) -> View:
    """A view of a NumPy array, which the plan keeps alive."""
    strides = tuple(s // array.itemsize for s in array.strides)
    return View(Buffer(array.nbytes, "constant", array), 0, array.dtype, array.shape, strides)


@dataclass(eq=False, slots=True)
class Form:
    """All of a call but the memory it is about: what calls that are alike share.

    args: those of the call, with 0 where a view goes. places: which those are. constants: views of tables
    that all of the calls read. The rest is as in `Call`.
    """

    kernel: Kernel
    args: list[int | View | Kernel]
    places: tuple[int, ...]
    tiles: int
    scratch: int = 0
    flops: int = 0
    label: str = ""
    in_place: bool = False
    waves: int = 1
    constants: tuple[View, ...] = ()
    #: the words of the arguments, and how long the call takes one thread: the plan's, worked out once
    words: array[int] | None = None
    nanoseconds: float = 0.0
    #: of a plan whose sizes are noted: how the form is worked out again (`made_again.py`)
    again: object = None

    def call(self, views: Sequence[View], reads: list[View], writes: list[View]) -> Call:
        """A call of this form: `views` go to its places."""
        args = self.args.copy()
        for place, view in zip(self.places, views, strict=True):
            args[place] = view
        return Call(
            self.kernel, args, self.tiles, reads, writes, self.scratch, self.flops, self.label, self.in_place,
            self.waves, form=self,
        )  # fmt: skip


@dataclass(slots=True)
class Call:
    """One step of a plan: `kernel(args, begin, end, scratch)` over `tiles` tiles shared out among the
    threads.

    args: a value for each of kernel.arguments: an int, a View (its address), or a Kernel (the address of its
    code). tiles: units of work; each is computed by one thread, in the same way whichever thread that is.
    scratch: bytes of memory each thread needs for itself while it runs. reads, writes: the views whose memory
    the call touches, for liveness. flops: the arithmetic a textbook would count, for deciding
    how many threads are worth it. in_place: whether what is written may be exactly the memory of something
    read: every element is read before it is written, and by the thread that writes it. waves: of so many
    equal parts of the tiles none begins before all of the one before it are done. form: what it shares with
    others, where somebody worked that out.
    """

    kernel: Kernel
    args: list[int | View | Kernel]
    tiles: int
    reads: list[View]
    writes: list[View]
    scratch: int = 0
    flops: int = 0
    label: str = ""
    in_place: bool = False
    waves: int = 1
    origin: list[int] = field(default_factory=list[int])  # which nodes it computes; the plan fills it in
    form: Form | None = None

    def __post_init__(self) -> None:
        if len(self.args) != len(self.kernel.arguments):
            raise TypeError(
                f"{self.kernel.generator} takes {self.kernel.arguments}, got {len(self.args)} arguments"
            )


def form_of(call: Call) -> Form:
    """What other calls may share with this one."""
    places = tuple([place for place, arg in enumerate(call.args) if isinstance(arg, View)])
    return Form(
        call.kernel, call.args, places, call.tiles, call.scratch, call.flops, call.label, call.in_place,
        call.waves,
    )  # fmt: skip


@dataclass(slots=True)
class Series:
    """Calls that come again: `turns` times `body`, in each turn with the views at its calls' places so many
    bytes further than in the one before.

    moves: those bytes, a list for each part of the body, as long as a call has places; of a series within,
    again a list for each part of its body. own: memory that each turn writes before it reads it.
    """

    body: list[Call | Series]
    turns: int
    moves: Moves
    own: list[Buffer]


Moves: TypeAlias = "list[list[int] | Moves]"


def series(turn: Callable[[int], Sequence[Call | Series]], turns: int) -> list[Call | Series]:
    """The calls of `turns` turns: of turn(0), turn(1) … Their views lie further by the same bytes from turn
    to turn: the first two are made, to see by how many. Each may use memory of its own.
    """
    first = list(turn(0))
    if turns < 2:
        return first
    second = list(turn(1))
    own: dict[Buffer, Buffer] = {}
    moves = _moves(first, second, own)
    if moves is not None:
        return [Series(first, turns, moves, list(own))]
    calls = first + second
    for number in range(2, turns):
        calls += turn(number)
    return calls


def _moves(
    first: Sequence[Call | Series], second: Sequence[Call | Series], own: dict[Buffer, Buffer]
) -> Moves | None:
    """How far the views of the second turn lie from those of the first; None where the turns differ in more.
    own: buffers of the first turn in whose place the second has others.
    """
    if len(first) != len(second):
        return None
    moves: Moves = []
    for a, b in zip(first, second, strict=True):
        if isinstance(a, Call) and isinstance(b, Call):
            part = _distances(a, b, own)
        elif isinstance(a, Series) and isinstance(b, Series) and (a.turns, a.moves) == (b.turns, b.moves):
            part = _moves(a.body, b.body, own)
        else:
            part = None
        if part is None:
            return None
        moves.append(part)
    return moves


def _distances(a: Call, b: Call, own: dict[Buffer, Buffer]) -> list[int] | None:
    if a.form is None:
        a.form = form_of(a)
    form = a.form
    if form is not b.form:
        theirs = b.form or form_of(b)
        if form.again is not None or theirs.again is not None:
            raise TypeError("calls are compared whose forms may be others for other sizes")
        if (form.kernel, form.tiles, form.places) != (theirs.kernel, theirs.tiles, theirs.places):
            return None
        for x, y in zip(a.args, b.args, strict=True):
            if x != y and not isinstance(x, View):
                return None
    distances: list[int] = []
    for place in form.places:
        x, y = a.args[place], b.args[place]
        assert isinstance(x, View)
        assert isinstance(y, View)
        if x.buffer is not y.buffer and (
            x.buffer.kind != "arena"
            or x.buffer.nbytes != y.buffer.nbytes
            or own.setdefault(x.buffer, y.buffer) is not y.buffer
        ):
            return None
        distances.append(y.offset - x.offset)
    return distances


@dataclass(eq=False, slots=True)
class Block:
    """Steps that a call runs as often as it wants to: a branch, or the body of a loop.

    inputs, outputs: where the views of those kinds among the steps' lie, by index: contiguous views of what
    is around the block. moves: how many bytes further they lie from round to round, of the inputs and of the
    outputs; the others stay. own: memory that a round writes before it reads it.
    """

    steps: list[Call | Nested]
    inputs: list[View]
    outputs: list[View]
    own: set[Buffer]
    moves: tuple[dict[int, int], dict[int, int]] = field(default_factory=lambda: ({}, {}))

    def behind(self, view: View) -> tuple[View, int] | None:
        """What a view of the block's own inputs or outputs stands for, and how far it moves; else None."""
        kinds = {"input": (self.inputs, self.moves[0]), "output": (self.outputs, self.moves[1])}
        if view.buffer.kind not in kinds:
            return None
        (views, moves), number = kinds[view.buffer.kind], view.buffer.index
        outer = views[number]
        return View(outer.buffer, outer.offset + view.offset, *layout_of(view)), moves.get(number, 0)


@dataclass(eq=False, slots=True)
class Nested:
    """A call and the blocks that it runs. The first arguments of its kernel are, for each block, the table of
    its steps and their number, then words that move from round to round and their number; after those, if it
    watches any flags, their addresses and their number. The plan fills these in.
    """

    call: Call
    blocks: list[Block]
    flags: list[View]
