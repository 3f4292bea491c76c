"""What becomes of the sums of a recurrent layer's gates: the new state of a block of a sequence's units."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ingot.codegen import math as vector_math
from ingot.codegen.builder import Builder, Value
from ingot.codegen.lanes import Lanes
from ingot.kernels.operations import OPERATIONS
from ingot.kernels.recurrent_form import Form

#: Those of the activations that are elementwise operators by themselves.
_PARAMETERS = {
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Elu": ("alpha",),
    "Softsign": (),
    "Softplus": (),
}


@dataclass(frozen=True, slots=True)
class Vectors:
    """Addresses of a block of a sequence's units, and which of its lanes there are (`mask`; None: all).

    live: whether the sequence has this step; None: all have. old, old_cell: before it; states that are kept
    are whole vectors, those that are given are not. update, y, late_bias, peepholes: where a layer has them.
    """

    mask: Value | None
    live: Value | None
    old: Value
    new: Value
    inputs: Sequence[Value]  # of each gate
    old_cell: Value
    cell: Value  # of a GRU, the state times the reset gate
    update: Value
    y: Value
    late_bias: Value
    peepholes: Sequence[Value]


class Gates:
    """The code for one block of a sequence's units."""

    def __init__(self, k: Builder, form: Form, at: Vectors, type_: Any, clips_cells: bool) -> None:
        """type_: of a vector. clips_cells: whether a cell is clipped before its activation."""
        self.k, self.form, self.at, self.type, self.clips_cells = k, form, at, type_, clips_cells

    def _read(self, address: Value) -> Value:
        return self.k.load(address, self.type, mask=self.at.mask)

    def _gate(self, gate: int, total: Value) -> Value:
        """A gate before its activation, of its sum."""
        return self.k.ir.fadd(total, self._read(self.at.inputs[gate]))

    def _activate(self, i: int, value: Value) -> Value:
        k, own, clip, dtype = self.k, self.form.activations[i], self.form.clip, self.form.dtype
        x = Lanes(k, value)
        if clip is not None and (i < 2 or self.clips_cells):
            x = x.at_least(-clip).at_most(clip)
        if own.name == "Relu":
            return k.ir.select(
                k.ir.fcmp_unordered("<", x.value, k.zero(self.type)), k.zero(self.type), x.value
            )
        if own.name == "Sigmoid":
            return vector_math.sigmoid(k, x.value)
        if own.name == "Affine":
            return (x * own.alpha + own.beta).value
        if own.name == "ThresholdedRelu":
            return x.where(x >= own.alpha, 0.0).value
        if own.name in ("Tanh", "ScaledTanh"):
            if own.name == "Tanh":
                return vector_math.tanh(k, x.value)
            return (Lanes(k, vector_math.tanh(k, (x * own.beta).value)) * own.alpha).value
        given = {"alpha": own.alpha, "beta": own.beta}
        attrs = {name: given[name] for name in _PARAMETERS[own.name]}
        return OPERATIONS[own.name].emit(k, [x.value], (dtype,), dtype, attrs)

    def begin(self, sums: Sequence[Value]) -> list[Value]:
        """A step up to what its last activation gets, of each gate's sum without what the inputs contribute;
        what `end` wants to know of it.
        """
        if self.form.kind == "RNN":
            return [self._gate(0, sums[0])]
        if self.form.kind == "LSTM":
            return self._cell(*(self._gate(g, total) for g, total in enumerate(sums)))
        z, reset = (self._activate(0, self._gate(g, sums[g])) for g in range(2))
        late = self.k.ir.fadd(sums[2], self._read(self.at.late_bias))
        return [z, self.k.fma(reset, late, self._read(self.at.inputs[2]))]

    def end(self, kept: Sequence[Value]) -> None:
        """The rest of the step."""
        if self.form.kind == "RNN":
            self._store(self._activate(0, kept[0]))
        elif self.form.kind == "LSTM":
            output, cell = kept
            output = self._peep(1, cell, output)
            self._store(self.k.ir.fmul(self._activate(0, output), self._activate(2, cell)))
        else:
            self._store(self._mixed(kept[0], self._activate(1, kept[1])))

    def gates_first(self, sums: Sequence[Value]) -> None:
        """A GRU's gates: keeps z, and the reset gate times the state, which the last product needs whole."""
        z, reset = (self._activate(0, self._gate(g, sums[g])) for g in range(2))
        self.k.store(z, self.at.update)
        self.k.store(self.k.ir.fmul(reset, self._read(self.at.old)), self.at.cell)

    def candidate_last(self, sums: Sequence[Value]) -> None:
        """What a GRU's last product, its only sum, makes of the state."""
        k = self.k
        candidate = self._activate(1, self._gate(2, sums[0]))
        self._store(self._mixed(k.load(self.at.update, self.type), candidate))

    def _mixed(self, z: Value, candidate: Value) -> Value:
        """(1 - z) · candidate + z · the state before."""
        return self.k.fma(z, self.k.ir.fsub(self._read(self.at.old), candidate), candidate)

    def _store(self, value: Value) -> None:
        """Keep a sequence's new state, or, after its end, the one before."""
        self.k.store(self._if_live(value, lambda: self._read(self.at.old)), self.at.new)
        if self.form.every:
            y = self._if_live(value, lambda: self.k.zero(self.type))
            self.k.store(y, self.at.y, mask=self.at.mask)

    def _if_live(self, value: Value, other: Callable[[], Value]) -> Value:
        """`value`, or after the sequence's end the other."""
        live = self.at.live
        return value if live is None else self.k.ir.select(live, value, other())

    def _cell(self, admit: Value, output: Value, forget: Value, new: Value) -> list[Value]:
        """The output gate as it is and the new cell of an LSTM, of gates in ONNX's order."""
        k, old = self.k, self._read(self.at.old_cell)
        gate = self._activate(0, self._peep(0, old, admit))
        if self.form.input_forget:
            kept = k.ir.fsub(k.splat(1.0, self.type), gate)
        else:
            kept = self._activate(0, self._peep(2, old, forget))
        cell = k.fma(kept, old, k.ir.fmul(gate, self._activate(1, new)))
        k.store(self._if_live(cell, lambda: old), self.at.cell)
        return [output, cell]

    def _peep(self, gate: int, cell: Value, value: Value) -> Value:
        """A gate that looks at the cell, where the layer has peepholes."""
        if not self.form.peepholes:
            return value
        return self.k.fma(self._read(self.at.peepholes[gate]), cell, value)
