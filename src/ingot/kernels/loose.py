"""Arrays whose sizes are known only when a step runs: what they lie in, and what steps of them share.

A *loose* array is contiguous; where it lies and its sizes stand in memory: its address, its rank, its
dimensions (`WORDS` words in all). A step reads those of its inputs, takes memory for its output, and writes
down where that is and how large. So the same tables serve arrays of any sizes (`kernels/loose_loop.py`).

A step that cannot do its work says so in a word of the *state*, and what comes after it is not run: memory
is used up (`NO_MEMORY`, `NO_ROOM`), or the inputs are not for it (`DECLINED`). That is not yet an error: who
runs the steps computes that round in another way, which says what is wrong, if anything is.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from ingot.codegen.builder import I64, PTR, Builder, Int, Value, vector
from ingot.codegen.elements import cast, load_element

#: Words of an array: where it lies, its rank, its dimensions.
ADDRESS, RANK, DIMS, MOST_DIMS = 0, 1, 2, 8
WORDS = DIMS + MOST_DIMS
#: Words of the state: free memory and its end, what went wrong, and the memory of this round and of the one
#: before it.
NEXT, END, STATUS, OWN, OWN_END, OTHER, OTHER_END = range(7)
STATE_WORDS = 8
#: What a step may say.
NO_MEMORY, NO_ROOM, DECLINED = 1, 2, 3
#: No array has so many elements: products of sizes stay below it.
MOST_ELEMENTS = 1 << 31
ALIGNMENT = 64
#: Bytes of scratch that a step may use: for strides, and for a vector of each operand.
SCRATCH_BYTES = 4096
#: Bytes that are moved at a time: most arrays are short.
_MOVED_BYTES = 32


class Loose:
    """An array of a step, by the name of its argument."""

    def __init__(self, k: Builder, name: str) -> None:
        self._k, self.words = k, k.pointer(name)

    @property
    def memory(self) -> Value:
        """Where its elements lie."""
        return self._k.load(self.words, PTR, ADDRESS)

    @property
    def rank(self) -> Value:
        """The number of its dimensions."""
        return self._k.load(self.words, I64, RANK)

    def dim(self, axis: Int) -> Value:
        """The size of a dimension."""
        return self._k.load(self.words, I64, self._k.add(axis, DIMS))

    def count(self, begin: Int = 0, end: Int | None = None) -> Value:
        """The product of the sizes of some dimensions, MOST_ELEMENTS if it is more."""
        k = self._k
        total: list[Value] = [I64(1)]
        with k.loop(begin, self.rank if end is None else end, carry=total) as axis:
            total[0] = bounded(k, k.mul(total[0], self.dim(axis)))
        return total[0]

    def integer(self, index: Int, dtype: str) -> Value:
        """An element of an array of integers."""
        return cast(self._k, load_element(self._k, self.memory, dtype, 1, index), dtype, "int64")

    # ---- of a result ---------------------------------------------------------------------------------------

    def lie(self, memory: Value) -> None:
        """Say where it lies."""
        self._k.store(memory, self.words, ADDRESS)

    def set_rank(self, rank: Int) -> None:
        """Say how many dimensions it has."""
        self._k.store(self._k.int(rank), self.words, RANK)

    def set_dim(self, axis: Int, size: Int) -> None:
        """Say the size of a dimension."""
        self._k.store(self._k.int(size), self.words, self._k.add(axis, DIMS))


def bounded(k: Builder, size: Value) -> Value:
    """A product of two sizes, MOST_ELEMENTS if it is more."""
    return k.min(size, MOST_ELEMENTS)


def say(k: Builder, what: int) -> None:
    """Say that the step cannot do its work."""
    k.store(I64(what), k.pointer("state"), STATUS)


@contextmanager
def unless(k: Builder, bad: Value) -> Generator[None]:
    """The body runs if the inputs are not bad; else the step declines."""
    with k.when(bad):
        say(k, DECLINED)
    with k.when(k.ir.not_(bad)):
        yield


@contextmanager
def room(k: Builder, nbytes: Value) -> Generator[Value]:
    """New memory; the body runs if there is enough."""
    state = k.pointer("state")
    begin = k.load(state, I64, NEXT)
    after = k.add(begin, k.ir.and_(k.add(nbytes, ALIGNMENT - 1), I64(-ALIGNMENT)))
    fits = k.compare("<=", after, k.load(state, I64, END))
    with k.when(k.ir.not_(fits)):
        say(k, NO_MEMORY)
    with k.when(fits):
        k.store(after, state, NEXT)
        yield k.ir.inttoptr(begin, PTR)


def all_of(k: Builder, *conditions: Value) -> Value:
    """Whether all of these hold."""
    result = conditions[0]
    for condition in conditions[1:]:
        result = k.ir.and_(result, condition)
    return result


def any_of(k: Builder, *conditions: Value) -> Value:
    """Whether any of these holds."""
    result = conditions[0]
    for condition in conditions[1:]:
        result = k.ir.or_(result, condition)
    return result


def integer_element(size: int) -> Value:
    """The LLVM type of an element that is only moved."""
    return ir.IntType(8 * size)


def move(k: Builder, target: Value, source: Value, count: Value, size: int) -> None:
    """Elements of so many bytes, from one place to another."""
    element, lanes = integer_element(size), _MOVED_BYTES // size
    whole = k.sub(count, k.rem(count, lanes))
    wide = vector(element, lanes)
    with k.loop(0, whole, lanes) as i:
        k.store(k.load(source, wide, i), target, i)
    with k.loop(whole, count) as i:
        k.store(k.load(source, element, i), target, i)


def natural_strides(k: Builder, array: Loose, strides: Value) -> None:
    """The strides of a contiguous array, in elements, as words in memory."""
    rank = array.rank
    step: list[Value] = [I64(1)]
    with k.loop(0, rank, carry=step) as turn:
        axis = k.sub(k.sub(rank, 1), turn)
        k.store(step[0], strides, axis)
        step[0] = bounded(k, k.mul(step[0], array.dim(axis)))


def offset_of(
    k: Builder, number: Value, outer: Value, dim: Callable[[Value], Value], stride: Callable[[Value], Value]
) -> Value:
    """How far row `number` lies, where rows are counted over the first `outer` dimensions."""
    carry: list[Value] = [number, I64(0)]
    with k.loop(0, outer, carry=carry) as turn:
        axis = k.sub(k.sub(outer, 1), turn)
        size = dim(axis)
        here = k.rem(carry[0], size)
        carry[1] = k.add(carry[1], k.mul(here, stride(axis)))
        carry[0] = k.div(carry[0], size)
    return carry[1]


def spread(k: Builder, target: Value, out: Loose, source: Value, strides: Value, size: int) -> None:
    """All elements of `out`, to `target`, from a source of these strides (words in memory, in elements).

    Dimensions that lie densely are moved as one piece; where the last one does not, element by element.
    """
    rank, total = out.rank, out.count()

    def stride(axis: Int) -> Value:
        return k.load(strides, I64, axis)

    with k.when(k.compare(">", total, 0)):
        dense: list[Value] = [rank, I64(1)]  # dimensions outside of the piece, its elements

        def goes_on() -> Value:
            axis = k.max(k.sub(dense[0], 1), 0)
            joins = any_of(k, k.compare("==", stride(axis), dense[1]), k.compare("==", out.dim(axis), 1))
            return k.ir.and_(k.compare(">", dense[0], 0), joins)

        with k.repeat(goes_on, dense):
            axis = k.sub(dense[0], 1)
            dense[:] = [axis, k.mul(dense[1], out.dim(axis))]
        outer, piece = dense
        element = integer_element(size)
        loose = all_of(k, k.compare("==", piece, 1), k.compare(">", outer, 0))
        inner = k.max(k.sub(outer, 1), 0)

        with k.when(loose):
            length, step = out.dim(inner), stride(inner)
            with k.loop(0, k.div(total, length)) as row:
                begin = k.at(source, offset_of(k, row, inner, out.dim, stride), element)
                end = k.at(target, k.mul(row, length), element)
                with k.loop(0, length) as i:
                    k.store(k.load(begin, element, k.mul(i, step)), end, i)
        with k.when(k.ir.not_(loose)), k.loop(0, k.div(total, piece)) as row:
            begin = k.at(source, offset_of(k, row, outer, out.dim, stride), element)
            move(k, k.at(target, k.mul(row, piece), element), begin, piece, size)


def copy_dims(k: Builder, out: Loose, source: Loose, begin: Int, end: Int, first: Int) -> None:
    """Dimensions of the source from `begin` to `end` become those of `out` from `first` on."""
    with k.loop(begin, end) as axis:
        out.set_dim(k.add(k.sub(axis, begin), first), source.dim(axis))


def is_nonzero(k: Builder, memory: Value, dtype: str, index: Int) -> Value:
    """Whether an element counts as true."""
    return cast(k, load_element(k, memory, dtype, 1, index), dtype, "bool")


def slots(prefix: str, count: int) -> tuple[str, ...]:
    """Names of so many arguments."""
    return tuple([f"{prefix}{number}" for number in range(count)])


def arrays(k: Builder, names: Sequence[str]) -> list[Loose]:
    """The arrays of these arguments."""
    return [Loose(k, name) for name in names]


def bit(k: Builder, condition: Value) -> Value:
    """A condition as 0 or 1."""
    return k.ir.zext(condition, I64)


def dim_back(k: Builder, x: Loose, back: Int) -> Value:
    """The size of the dimension so many before the last; 1 where there is none."""
    axis = k.sub(k.sub(x.rank, 1), back)
    return k.choose(k.compare(">=", axis, 0), x.dim(k.max(axis, 0)), 1)


def describe(out: Loose, memory: Value, dims: Sequence[Int]) -> None:
    """Say of a result where it lies, and its dimensions."""
    out.lie(memory)
    out.set_rank(len(dims))
    for axis, size in enumerate(dims):
        out.set_dim(axis, size)


def is_size(k: Builder, size: Value) -> Value:
    """Whether a number may be a size."""
    return all_of(k, k.compare(">=", size, 0), k.compare("<", size, MOST_ELEMENTS))


def has(k: Builder, bits: Value, axis: Value) -> Value:
    """Whether an axis is among those that stand as bits."""
    return k.compare("!=", k.ir.and_(bits, k.ir.shl(I64(1), axis)), 0)
