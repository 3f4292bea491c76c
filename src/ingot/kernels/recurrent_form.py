"""What of a recurrent layer its steps' code depends on, and the constants that they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from ingot.codegen.elements import bytes_of
from ingot.codegen.machine import Machine
from ingot.kernels.call import View
from ingot.kernels.contract import split

Kind = Literal["LSTM", "GRU", "RNN"]

UNROLL = 4

#: Of 16 registers, sums of three vectors of weights with four sequences fill 12; of four gates with three
#: sequences as well, but eight sequences are twice four.
_ACROSS = 3
#: Blocks of units that may be multiplied together, and into how many runs of them a layer must fall at least:
#: so many threads share a step.
_TOGETHER, _FEWEST_RUNS = (8, 4), 8


@dataclass(frozen=True, slots=True)
class Activation:
    """A function of a gate, by ONNX's name, with its parameters."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0


_SIGMOID, _TANH = Activation("Sigmoid"), Activation("Tanh")
DEFAULTS: dict[Kind, tuple[Activation, ...]] = {
    "LSTM": (_SIGMOID, _TANH, _TANH),
    "GRU": (_SIGMOID, _TANH),
    "RNN": (_TANH,),
}


@dataclass(frozen=True, slots=True)
class Form:
    """What of a layer changes the code.

    rows: sequences in a group, whose sums fill the registers. groups: whether one group has them all, each
    has as many, or the last ones have one less. parts: whether a product takes a part of the state's units
    after the other. ragged: whether sequences have lengths of their own. late: whether the GRU's reset gate
    is applied before its last product ("before": that one waits for the gates), after it ("after"), or there
    is none. together: blocks of units in a product (`together`).
    """

    kind: Kind
    rows: int
    groups: Literal["one", "alike", "mixed"]
    parts: bool
    ragged: bool
    activations: tuple[Activation, ...]
    late: Literal["none", "before", "after"]
    masked: bool
    peepholes: bool
    every: bool  # whether the states of all steps are wanted
    dtype: str = "float32"
    clip: float | None = None
    input_forget: bool = False
    together: int = 1

    @property
    def gates(self) -> int:
        """Of a unit."""
        return {"LSTM": 4, "GRU": 3, "RNN": 1}[self.kind]

    @property
    def sums(self) -> int:
        """Vectors of a sequence's sums that are there at a time."""
        return self.gates * self.together


@dataclass(frozen=True, slots=True)
class StateWeights:
    """A layer's constants as its steps read them."""

    kind: Kind
    dtype: str
    hidden: int
    directions: int
    activations: tuple[Activation, ...]
    linear_before_reset: bool
    clip: float | None
    input_forget: bool
    weights: View
    late_weights: View | None
    late_bias: View | None
    peepholes: View | None
    together: int


class Groups(NamedTuple):
    """How a layer's sequences are shared out: the groups, whose sums fill the registers, how many of them
    have `rows` sequences (the others have one less; 0: all have as many), the tiles that share the groups,
    and the most groups in one; factors of the state in a part of a product, and whether there are several.
    """

    number: int
    taller: int
    rows: int
    tiles: int
    most: int
    part: int
    parts: bool


def together(kind: Kind, hidden: int, lanes: int, machine: Machine) -> int:
    """How many blocks of units have one product, which takes their vectors of weights (block by block, gate
    by gate) by `_ACROSS`; 1: each block has its own, of its gates.
    """
    if kind != "LSTM" or machine.registers > 16 or not machine.fma:
        return 1  # more registers hold four gates of as many sequences; without multiply-adds fewer are free
    return next(
        (n for n in _TOGETHER if hidden % (n * lanes) == 0 and hidden // (n * lanes) >= _FEWEST_RUNS), 1
    )


def columns(gates: int, together: int) -> tuple[tuple[int, int], ...]:
    """The columns that the vectors of weights of `together` blocks make: how many, of how many vectors each;
    then the others, of two vectors, for the sums of one alone would wait for each other.
    """
    if together == 1:
        return ((1, gates),)
    left = -(gates * together) % _ACROSS  # columns that have one vector less
    whole = (gates * together - left * (_ACROSS - 1)) // _ACROSS
    return ((whole, _ACROSS), (left, _ACROSS - 1))[: 2 if left else 1]


def grouped(
    batch: int, gates: int, together: int, factors: int, dtype: str, machine: Machine, whole: bool
) -> Groups:
    """The groups of `batch` sequences whose states have so many factors (floats, or units of integers).

    together: blocks of units in a product. whole: integers, whose products take registers of their own.
    """
    across = columns(gates, together)[0][1]
    count, taller, size = split(batch, _most_rows(across, machine, whole))
    rows = size + (taller > 0)
    # Half of L1 is for a part of a column of weights, and a quarter (three eighths where there are sums of
    # several blocks) for the sequences' sums and as much of their states.
    weights, sums = (n * machine.vector_bytes for n in (across, gates * together))
    parts = -(-factors // max(UNROLL, machine.l1_bytes // 2 // weights))
    part = -(-factors // parts // UNROLL) * UNROLL
    room = machine.l1_bytes // 4 if together == 1 else machine.l1_bytes // 8 * 3
    tall = max(1, room // (part * bytes_of(dtype) + sums) // rows)
    tiles = -(-count // tall)
    most = -(-count // tiles)
    return Groups(count, taller, rows, tiles, most, part, parts=most > 1 and part < factors)


def _most_rows(across: int, machine: Machine, whole: bool) -> int:
    """The most sequences whose sums with `across` vectors of weights fit in the registers beside each of
    these or one of each sequence, whichever are fewer, one of the others, and, without multiply-adds, a
    product.
    """
    if whole:
        return max(1, (machine.registers - 2) // across - 1)
    free = machine.registers - (1 if machine.fma else 2)
    rows = 1
    while (rows + 1) * across + min(rows + 1, across) <= free:
        rows += 1
    return rows
