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
    is none.
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

    @property
    def gates(self) -> int:
        """Of a unit."""
        return {"LSTM": 4, "GRU": 3, "RNN": 1}[self.kind]


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


def grouped(batch: int, gates: int, factors: int, dtype: str, machine: Machine, whole: bool) -> Groups:
    """The groups of `batch` sequences whose states have so many factors (floats, or units of integers).

    whole: integers, whose products take registers of their own.
    """
    count, taller, size = split(batch, _most_rows(gates, machine, whole))
    rows = size + (taller > 0)
    # Half of L1 is for a part of a block's weights, and a quarter for the sequences' sums and as much of
    # their states.
    weights = gates * machine.vector_bytes
    parts = -(-factors // max(UNROLL, machine.l1_bytes // 2 // weights))
    part = -(-factors // parts // UNROLL) * UNROLL
    tall = max(1, machine.l1_bytes // 4 // (part * bytes_of(dtype) + weights) // rows)
    tiles = -(-count // tall)
    most = -(-count // tiles)
    return Groups(count, taller, rows, tiles, most, part, parts=most > 1 and part < factors)


def _most_rows(gates: int, machine: Machine, whole: bool) -> int:
    """The most sequences whose sums fit in the registers beside a vector of each gate or of each sequence,
    whichever are fewer, one of the others, and, without multiply-adds, a product.
    """
    if whole:
        return max(1, (machine.registers - 2) // gates - 1)
    free = machine.registers - (1 if machine.fma else 2)
    rows = 1
    while (rows + 1) * gates + min(rows + 1, gates) <= free:
        rows += 1
    return rows
