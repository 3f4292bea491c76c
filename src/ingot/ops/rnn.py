"""Recurrent layers: RNN, GRU, LSTM, with every attribute they have. Computed in float64, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ingot.errors import InputError, ModelError
from ingot.kernels.call import View, constant
from ingot.kernels.copy import copy
from ingot.kernels.gather import gather
from ingot.kernels.recurrent import (
    ACTIVATIONS,
    RecurrentWeights,
    Sequences,
    applied,
    pack_recurrent,
    recurrent,
)
from ingot.kernels.recurrent_form import DEFAULTS, Activation, Kind
from ingot.ops.linear import strassen_sums
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    DType,
    Facts,
    Op,
    Outputs,
    attr_float,
    attr_floats,
    attr_int,
    attr_str,
    given,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)

_LENGTHS = "a length in sequence_lens (input 4) is none of 0 … {0}, the steps of x. Give lengths up to that."
Function = Callable[[Array], Array]


class Recurrent(Op):
    """x [S, B, I] (or [B, S, I] with layout=1) through S steps in one or two directions D.

    Weights w [D, gates · H, I] and r [D, gates · H, H]; outputs every state [S, D, B, H] and the last ones
    [D, B, H].
    """

    gates: ClassVar[int]
    #: The kernels' name of it.
    kind: ClassVar[Kind]
    #: How many states a step carries: h alone, or h and c.
    states: ClassVar[int] = 1
    #: Where the inputs with the initial states are.
    initial: ClassVar[tuple[int, ...]] = (5,)

    def step(
        self,
        node: ir.Node,
        x: Array,
        state: list[Array],
        r: Array,
        bias: Array,
        f: list[Function],
        p: Array | None,
    ) -> list[Array]:
        """The next state(s). `x` [B, gates · H] is already multiplied by w; bias [2 · gates · H] is w's,
        then r's.
        """
        raise NotImplementedError

    def directions(self, node: ir.Node) -> int:
        """1 or 2."""
        return 2 if attr_str(node, "direction", "forward") == "bidirectional" else 1

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Checks the shapes of weights, lengths and states against the input's."""
        x, w, r = (need(node, inputs, i) for i in range(3))
        if len(x.shape) != 3:
            raise shape_error(node, f"the input has shape {show(x.shape)}, and must have rank 3")
        batch_first = attr_int(node, "layout", 0)
        steps, batch = (x.shape[1], x.shape[0]) if batch_first else (x.shape[0], x.shape[1])
        hidden, both = r.shape[-1], self.directions(node)
        declared = attr_int(node, "hidden_size", hidden)
        if declared != hidden:
            raise shape_error(node, f"hidden_size is {declared}, and r has shape {show(r.shape)}")
        every = (batch, steps, both, hidden) if batch_first else (steps, both, batch, hidden)
        last = (batch, both, hidden) if batch_first else (both, batch, hidden)
        for facts, name, wanted in (
            (w, "w", (both, self.gates * hidden, x.shape[2])),
            (r, "r", (both, self.gates * hidden, hidden)),
            (given(inputs, 3), "the bias", (both, 2 * self.gates * hidden)),
            (given(inputs, 4), "sequence_lens", (batch,)),
            *((given(inputs, i), f"the initial state (input {i})", last) for i in self.initial),
            (given(inputs, 7) if self.states == 2 else None, "the peepholes", (both, 3 * hidden)),
        ):
            if facts is not None and facts.shape != wanted:
                raise shape_error(node, f"{name} has shape {show(facts.shape)}, and must be {show(wanted)}")
        outputs: list[Facts | None] = [Facts(x.dtype, every), *[Facts(x.dtype, last)] * self.states]
        return outputs[: len(node.outputs)]

    def activations(self, node: ir.Node) -> list[Activation]:
        """The activations of every direction. Alphas and betas are given in order, to those that have one."""
        attribute = node.attributes.get("activations")
        usual = [default.name for default in DEFAULTS[self.kind]] * self.directions(node)
        names = usual if attribute is None else list(attribute.as_strings())
        if len(names) != len(usual):
            raise ModelError(
                f"{label(node)}: {len(names)} activations, and {len(usual)} are wanted. "
                "Name those of each direction, or none."
            )
        given = {name: list(attr_floats(node, f"activation_{name}") or ()) for name in ("alpha", "beta")}
        known = {name.lower(): name for name in ACTIVATIONS}
        result: list[Activation] = []
        for name in names:
            own = known.get(name.lower())
            if own is None:
                raise ModelError(
                    f"{label(node)}: activation {name!r} is unknown. Use one of {sorted(ACTIVATIONS)}."
                )
            numbers = [
                0.0 if default is None else given[which].pop(0) if given[which] else default
                for which, default in zip(("alpha", "beta"), ACTIVATIONS[own][1:], strict=True)
            ]
            result.append(Activation(own, *numbers))
        return result

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Step by step; entries beyond their sequence length keep their state and give 0."""
        source, r = present(inputs, 0), widen(present(inputs, 2))
        w, bias, lengths = widen(present(inputs, 1)), given(inputs, 3), given(inputs, 4)
        batch_first = attr_int(node, "layout", 0)
        x = widen(source).swapaxes(0, 1) if batch_first else widen(source)
        steps, batch, hidden = x.shape[0], x.shape[1], r.shape[-1]
        if lengths is not None:
            check_lengths(node, lengths, steps)
        peepholes = given(inputs, 7) if self.states == 2 else None
        clip = attr_float(node, "clip", 0.0) or None
        functions = [applied(activation, clip) for activation in self.activations(node)]
        count = len(DEFAULTS[self.kind])
        direction = attr_str(node, "direction", "forward")
        every: list[Array] = []
        lasts: list[list[Array]] = []
        for d in range(self.directions(node)):
            backwards = direction == "reverse" or d == 1
            state: list[Array] = []
            for index in self.initial:
                start = given(inputs, index)
                if start is None:
                    state.append(np.zeros((batch, hidden)))
                else:
                    state.append(widen(start[:, d] if batch_first else start[d]))
            b = np.zeros(2 * self.gates * hidden) if bias is None else widen(bias[d])
            p = None if peepholes is None else widen(peepholes[d])
            projected = x @ w[d].T
            states = np.zeros((steps, batch, hidden))
            for t in reversed(range(steps)) if backwards else range(steps):
                new = self.step(node, projected[t], state, r[d], b, functions[d * count : (d + 1) * count], p)
                if lengths is not None:
                    live = (t < lengths).reshape(-1, 1)
                    states[t] = np.where(live, new[0], 0.0)
                    state = [np.where(live, n, o) for n, o in zip(new, state, strict=True)]
                else:
                    states[t], state = new[0], new
            every.append(states)
            lasts.append(state)
        y = np.stack(every, 1)
        ends = [np.stack([last[i] for last in lasts], 0) for i in range(self.states)]
        if batch_first:
            y, ends = y.transpose(2, 0, 1, 3), [e.swapaxes(0, 1) for e in ends]
        return [rounded(o, source.dtype) for o in (y, *ends)][: len(node.outputs)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One product for all steps, then the steps; constant weights. Half precision in float32."""
        operands = [*node.inputs, *[None] * 8][:8]
        x, *parts, lengths = operands[:5]
        parts.append(operands[7] if self.states == 2 else None)
        assert x is not None
        constants = [plan.constant(v) for v in parts]
        if any(v is not None and c is None for v, c in zip(parts, constants, strict=True)):
            return False
        dtype = np.dtype(np.float64 if plan.facts(x).dtype == np.float64 else np.float32)
        batch_first = bool(attr_int(node, "layout", 0))
        activations, each = self.activations(node), len(DEFAULTS[self.kind])
        direction = attr_str(node, "direction", "forward")
        reverse = (False, True) if direction == "bidirectional" else (direction == "reverse",)
        alike = all(activations[i] == activations[i % each] for i in range(len(activations)))

        def steps_first(view: View | None, *order: int) -> View | None:
            return view if view is None or not batch_first else view.transpose(order)

        def read(value: ir.Value | None) -> View | None:
            return None if value is None else _in_dtype(plan, plan.view(value), dtype)

        source = steps_first(read(x), 1, 0, 2)
        assert source is not None
        starts = [steps_first(read(operands[i]), 1, 0, 2) for i in self.initial]
        outputs = [plan.output(v) if plan.wants(v) else None for v in node.outputs]
        targets = [v if v is None or v.dtype == dtype else plan.temporary(v.shape, dtype) for v in outputs]
        y, h, c = [*targets, None, None, None][:3]
        y = steps_first(y, 1, 2, 0, 3)
        last = [steps_first(v, 1, 0, 2) for v in (h, c)]
        known_lengths = None if lengths is None else length_view(node, plan, lengths, source.shape[0])
        # Directions with activations of their own are layers of their own.
        for some in [(0, len(reverse))] if alike else [(d, d + 1) for d in range(len(reverse))]:
            weights, key = self._weights(
                node, plan, parts, constants, activations[some[0] * each :][:each], some
            )
            sequences = Sequences(
                _part(y, 1, some),
                _part(last[0], 0, some),
                _part(last[1], 0, some),
                reverse[slice(*some)],
                known_lengths,
                _part(starts[0], 0, some),
                _part(starts[1], 0, some) if len(starts) > 1 else None,
            )
            sums = None
            if weights.input_slices is None:
                sums = strassen_sums(plan, source, weights.inputs, None if key is None else ("sums", key))
            plan.emit(recurrent(source, weights, sequences, plan.machine, sums))
        for target, output in zip(targets, outputs, strict=True):
            if target is not None and output is not None and target is not output:
                plan.emit(copy(target, output, plan.machine))
        return True

    def _weights(
        self,
        node: ir.Node,
        plan: Lowering,
        parts: list[ir.Value | None],
        constants: list[Array | None],
        activations: list[Activation],
        some: tuple[int, int],
    ) -> tuple[RecurrentWeights, Hashable]:
        """The constants of some of the directions, packed once for the session, and their key there."""
        late, clip = bool(attr_int(node, "linear_before_reset", 0)), attr_float(node, "clip", 0.0) or None
        forget = bool(attr_int(node, "input_forget", 0))
        first, second, b, p = [None if c is None else c[slice(*some)] for c in constants]
        assert first is not None
        assert second is not None

        def make() -> RecurrentWeights:
            return pack_recurrent(
                self.kind, first, second, b, p, plan.machine,
                linear_before_reset=late, activations=activations, clip=clip, input_forget=forget,
                tiles=plan.options.amx and plan.machine.tiles,
            )  # fmt: skip

        # All of them: what is computed while planning may be another array in the next plan.
        own = all(v is None or v.is_initializer() for v in parts)
        settings = (late, clip, forget, some, *activations)
        key = ("recurrent", self.kind, *parts, settings) if own else None
        return plan.pack(key, make), key


def length_view(node: ir.Node, plan: Lowering, value: ir.Value, steps: int) -> View:
    """The lengths that are given, looked up among those that there are: others would lead beyond x."""
    known = plan.constant(value)
    if known is not None:
        check_lengths(node, known, steps)
        return plan.view(value)
    where = plan.view(value)
    found = plan.temporary(where.shape, np.int32)
    flag = plan.check(f"{label(node)}: {_LENGTHS.format(steps)}")
    table = constant(np.arange(steps + 1, dtype=np.int32))
    plan.emit(gather(table, where, 0, found, flag, plan.machine, from_end=False))
    return found


def check_lengths(node: ir.Node, lengths: Array, steps: int) -> None:
    """Raises InputError for a length that is none."""
    if ((lengths < 0) | (lengths > steps)).any():
        raise InputError(f"{label(node)}: {_LENGTHS.format(steps)}")


def _part(view: View | None, axis: int, some: tuple[int, int]) -> View | None:
    """Some of the directions, which are a view's dimension `axis`."""
    if view is None:
        return None
    shape = (*view.shape[:axis], some[1] - some[0], *view.shape[axis + 1 :])
    return view.with_dims(shape, view.strides, some[0] * view.strides[axis])


def _in_dtype(plan: Lowering, view: View, dtype: DType) -> View:
    """The view, or a copy of it in that dtype."""
    if view.dtype == dtype:
        return view
    result = plan.temporary(view.shape, dtype)
    plan.emit(copy(view, result, plan.machine))
    return result


@register("RNN", since=22)
class RNN(Recurrent):
    """h' = f(x·w + h·r + bias)."""

    kind = "RNN"
    gates = 1

    def step(
        self,
        node: ir.Node,
        x: Array,
        state: list[Array],
        r: Array,
        bias: Array,
        f: list[Function],
        p: Array | None,
    ) -> list[Array]:
        """One step."""
        del node, p
        hidden = r.shape[-1]
        return [f[0](x + state[0] @ r.T + bias[:hidden] + bias[hidden:])]


@register("GRU", since=22)
class GRU(Recurrent):
    """h' = (1 - z) · g(x·w + (q · h)·r) + z · h, with gates z and q; linear_before_reset puts q after the
    product.
    """

    kind = "GRU"
    gates = 3

    def step(
        self,
        node: ir.Node,
        x: Array,
        state: list[Array],
        r: Array,
        bias: Array,
        f: list[Function],
        p: Array | None,
    ) -> list[Array]:
        """One step."""
        del p
        (h,), n = state, r.shape[-1]
        wb, rb = bias[: 3 * n], bias[3 * n :]
        gates = x[:, : 2 * n] + h @ r[: 2 * n].T + wb[: 2 * n] + rb[: 2 * n]
        z, q = f[0](gates[:, :n]), f[0](gates[:, n:])
        if attr_int(node, "linear_before_reset", 0):
            candidate = q * (h @ r[2 * n :].T + rb[2 * n :])
        else:
            candidate = (q * h) @ r[2 * n :].T + rb[2 * n :]
        return [(1.0 - z) * f[1](x[:, 2 * n :] + candidate + wb[2 * n :]) + z * h]


@register("LSTM", since=22)
class LSTM(Recurrent):
    """c' = f · c + i · g(candidate); h' = o · h(c'); gates in the order i, o, f, candidate."""

    kind = "LSTM"
    gates = 4
    states = 2
    initial = (5, 6)

    def step(
        self,
        node: ir.Node,
        x: Array,
        state: list[Array],
        r: Array,
        bias: Array,
        f: list[Function],
        p: Array | None,
    ) -> list[Array]:
        """One step; peepholes p are in the order i, o, f."""
        h, c = state
        n = r.shape[-1]
        gates = x + h @ r.T + bias[: 4 * n] + bias[4 * n :]
        i, o, forget, candidate = np.split(gates, 4, 1)
        pi, po, pf = np.split(p, 3) if p is not None else (0.0, 0.0, 0.0)
        i = f[0](i + pi * c)
        forget = 1.0 - i if attr_int(node, "input_forget", 0) else f[0](forget + pf * c)
        c = forget * c + i * f[1](candidate)
        o = f[0](o + po * c)
        return [o * f[2](c), c]
