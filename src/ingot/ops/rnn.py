"""Recurrent layers: RNN, GRU, LSTM, with every attribute they have. Computed in float64, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.kernels.call import View
from ingot.kernels.definitions import sigmoid, softplus
from ingot.kernels.recurrent import Kind, RecurrentWeights, pack_recurrent, recurrent, supports
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
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

Outputs = list[Facts | None] | None
Activation = Callable[[Array], Array]

# name: (function of x, alpha, beta; default alpha; default beta)
_ACTIVATIONS: dict[str, tuple[Callable[[Array, float, float], Array], float, float]] = {
    "Relu": (lambda x, _a, _b: np.maximum(x, 0.0), 0.0, 0.0),
    "Tanh": (lambda x, _a, _b: np.tanh(x), 0.0, 0.0),
    "Sigmoid": (lambda x, _a, _b: sigmoid(x), 0.0, 0.0),
    "Affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "LeakyRelu": (lambda x, a, _b: np.where(x < 0, a * x, x), 0.01, 0.0),
    "ThresholdedRelu": (lambda x, a, _b: np.where(x >= a, x, 0.0), 1.0, 0.0),
    "ScaledTanh": (lambda x, a, b: a * np.tanh(b * x), 1.0, 1.0),
    "HardSigmoid": (lambda x, a, b: np.clip(a * x + b, 0.0, 1.0), 0.2, 0.5),
    "Elu": (lambda x, a, _b: np.where(x >= 0, x, a * np.expm1(x)), 1.0, 0.0),
    "Softsign": (lambda x, _a, _b: x / (1.0 + np.abs(x)), 0.0, 0.0),
    "Softplus": (lambda x, _a, _b: softplus(x), 0.0, 0.0),
}


class Recurrent(Op):
    """x [S, B, I] (or [B, S, I] with layout=1) through S steps in one or two directions D.

    Weights w [D, gates · H, I] and r [D, gates · H, H]; outputs every state [S, D, B, H] and the last ones
    [D, B, H].
    """

    gates: ClassVar[int]
    defaults: ClassVar[tuple[str, ...]]
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
        f: list[Activation],
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
        """Checks the weights' shapes against the input's."""
        x, w, r = (need(node, inputs, i) for i in range(3))
        if len(x.shape) != 3:
            raise shape_error(node, f"the input has shape {show(x.shape)}, and must have rank 3")
        batch_first = attr_int(node, "layout", 0)
        steps, batch = (x.shape[1], x.shape[0]) if batch_first else (x.shape[0], x.shape[1])
        hidden, both = r.shape[-1], self.directions(node)
        for facts, name, wanted in (
            (w, "w", (both, self.gates * hidden, x.shape[2])),
            (r, "r", (both, self.gates * hidden, hidden)),
            (given(inputs, 3), "the bias", (both, 2 * self.gates * hidden)),
        ):
            if facts is not None and facts.shape != wanted:
                raise shape_error(node, f"{name} has shape {show(facts.shape)}, and must be {show(wanted)}")
        every = (batch, steps, both, hidden) if batch_first else (steps, both, batch, hidden)
        last = (batch, both, hidden) if batch_first else (both, batch, hidden)
        outputs: list[Facts | None] = [Facts(x.dtype, every), *[Facts(x.dtype, last)] * self.states]
        return outputs[: len(node.outputs)]

    def functions(self, node: ir.Node) -> list[Activation]:
        """The activations of every direction, clipping included."""
        attribute = node.attributes.get("activations")
        names = (
            tuple(attribute.as_strings()) if attribute is not None else self.defaults * self.directions(node)
        )
        alphas, betas = (
            list(attr_floats(node, "activation_alpha") or ()),
            list(attr_floats(node, "activation_beta") or ()),
        )
        known = {name.lower(): entry for name, entry in _ACTIVATIONS.items()}
        clip = attr_float(node, "clip", 0.0)
        result: list[Activation] = []
        for name in names:
            entry = known.get(name.lower())
            if entry is None:
                raise ModelError(
                    f"{label(node)}: activation {name!r} is unknown. Use one of {sorted(_ACTIVATIONS)}."
                )
            function, alpha, beta = entry
            # Alphas are given in order, to the activations that have one.
            if name.lower() in ("affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu"):
                alpha = alphas.pop(0) if alphas else alpha
            if name.lower() in ("affine", "scaledtanh", "hardsigmoid"):
                beta = betas.pop(0) if betas else beta
            result.append(_bound(function, alpha, beta, clip))
        return result

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Step by step; entries beyond their sequence length keep their state and give 0."""
        source, r = present(inputs, 0), widen(present(inputs, 2))
        w, bias, lengths = widen(present(inputs, 1)), given(inputs, 3), given(inputs, 4)
        batch_first = attr_int(node, "layout", 0)
        x = widen(source).swapaxes(0, 1) if batch_first else widen(source)
        steps, batch, hidden = x.shape[0], x.shape[1], r.shape[-1]
        peepholes = given(inputs, 7) if self.states == 2 else None
        functions, count = self.functions(node), len(self.defaults)
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
        """One product for all steps, then the steps; float32 with constant weights and the usual
        activations.
        """
        operands = [*node.inputs, *[None] * 8][:8]
        x, w, r, bias, lengths = operands[:5]
        peepholes = operands[7] if self.states == 2 else None
        assert x is not None
        attribute = node.attributes.get("activations")
        names = None if attribute is None else list(attribute.as_strings())
        kind = self.kind
        clip = attr_float(node, "clip", 0.0) or None
        constants = [plan.constant(v) for v in (w, r, bias, peepholes)]
        missing = [
            v for v, c in zip((w, r, bias, peepholes), constants, strict=True) if v is not None and c is None
        ]
        if (
            missing
            or plan.facts(x).dtype != np.float32
            or not supports(kind, names, clip, bool(attr_int(node, "input_forget", 0)))
        ):
            return False
        first, second, b, p = constants
        assert first is not None
        assert second is not None
        late = bool(attr_int(node, "linear_before_reset", 0))

        def make() -> RecurrentWeights:
            tiles = plan.options.amx and plan.machine.tiles
            return pack_recurrent(
                kind, first, second, b, p, plan.machine,
                linear_before_reset=late, activations=names, tiles=tiles,
            )  # fmt: skip

        # All of them: what is computed while planning may be another array in the next plan.
        own = all(v is None or v.is_initializer() for v in (w, r, bias, peepholes))
        weights = plan.pack(
            ("recurrent", kind, w, r, bias, peepholes, late, str(names)) if own else None, make
        )
        batch_first = bool(attr_int(node, "layout", 0))
        direction = attr_str(node, "direction", "forward")
        reverse = (False, True) if direction == "bidirectional" else (direction == "reverse",)

        def states(value: ir.Value | None) -> View | None:
            if value is None:
                return None
            view = plan.view(value)
            return view.transpose((1, 0, 2)) if batch_first else view

        source = plan.view(x)
        starts = [states(operands[i]) for i in self.initial]
        outputs = [plan.output(v) if plan.wants(v) else None for v in node.outputs]
        outputs += [None] * (3 - len(outputs))
        y, *last = outputs
        if batch_first:
            source = source.transpose((1, 0, 2))
            y = None if y is None else y.transpose((1, 2, 0, 3))
            last = [None if v is None else v.transpose((1, 0, 2)) for v in last]
        plan.emit(
            recurrent(
                source,
                weights,
                y,
                last[0],
                last[1],
                plan.machine,
                reverse=reverse,
                lengths=None if lengths is None else plan.view(lengths),
                h0=starts[0],
                c0=starts[1] if len(starts) > 1 else None,
            )
        )
        return True


def _bound(
    function: Callable[[Array, float, float], Array], alpha: float, beta: float, clip: float
) -> Activation:
    def activation(x: Array) -> Array:
        return function(np.clip(x, -clip, clip) if clip else x, alpha, beta)

    return activation


@register("RNN", since=22)
class RNN(Recurrent):
    """h' = f(x·w + h·r + bias)."""

    kind = "RNN"
    gates = 1
    defaults = ("Tanh",)

    def step(
        self,
        node: ir.Node,
        x: Array,
        state: list[Array],
        r: Array,
        bias: Array,
        f: list[Activation],
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
    defaults = ("Sigmoid", "Tanh")

    def step(
        self,
        node: ir.Node,
        x: Array,
        state: list[Array],
        r: Array,
        bias: Array,
        f: list[Activation],
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
    defaults = ("Sigmoid", "Tanh", "Tanh")
    states = 2
    initial = (5, 6)

    def step(
        self,
        node: ir.Node,
        x: Array,
        state: list[Array],
        r: Array,
        bias: Array,
        f: list[Activation],
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
