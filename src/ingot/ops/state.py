"""Operators that carry a state from step to step: LinearAttention, CausalConvWithState."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import FLOATS
from ingot.errors import ModelError, UnsupportedOperatorError
from ingot.kernels.call import View, constant
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import fill
from ingot.kernels.linear_attention import evaluate_linear_attention, linear_attention
from ingot.ops.lowering import Lowering, Steps, wide_of
from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_float,
    attr_int,
    attr_str,
    first_input,
    given,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)

_HALVES = ("float32", "float16", "bfloat16")


@register("LinearAttention", since=27)
class LinearAttention(Op):
    """Attention whose past is a matrix for each head: a step decays it (`gated`), corrects what it has for a
    key (`delta`), or only adds to it. Queries, keys and values are [B, T, heads · size].
    """

    def _heads(self, node: ir.Node, facts: Sequence[Facts | None]) -> tuple[int, int, int, int]:
        """Heads of queries, heads of keys, sizes of a key and of a value."""
        q, k, v = (need(node, facts, i) for i in range(3))
        many, heads = attr_int(node, "q_num_heads", 0), attr_int(node, "kv_num_heads", 0)
        if many < 1 or heads < 1 or many % heads:
            raise ModelError(
                f"{label(node)}: {many} heads of queries are no multiple of {heads} heads of keys. Set "
                "q_num_heads and kv_num_heads."
            )
        if (
            not all(len(f.shape) == 3 for f in (q, k, v))
            or not q.shape[:2] == k.shape[:2] == v.shape[:2]
            or q.shape[2] % many
            or k.shape[2] != q.shape[2] // many * heads
            or v.shape[2] % heads
        ):
            raise shape_error(
                node,
                f"query {show(q.shape)}, key {show(k.shape)} and value {show(v.shape)} do not fit {many} "
                f"heads of queries and {heads} of keys",
            )
        keys, values = q.shape[2] // many, v.shape[2] // heads
        past, decay, beta = (given(facts, i) for i in (3, 4, 5))
        rule = attr_str(node, "update_rule", "gated_delta")
        wants = {"linear": (False, False), "gated": (True, False), "delta": (False, True)}
        if (decay is not None, beta is not None) != wants.get(rule, (True, True)) or (
            rule not in wants and rule != "gated_delta"
        ):
            raise ModelError(
                f"{label(node)}: update_rule {rule!r} does not go with the inputs. decay belongs to gated "
                "and gated_delta, beta to delta and gated_delta."
            )
        steps = q.shape[:2]
        if decay is not None and decay.shape not in ((*steps, heads), (*steps, heads * keys)):
            wanted = f"[B, T, {heads}] or [B, T, {heads * keys}]"
            raise shape_error(node, f"decay {show(decay.shape)} is not {wanted}")
        if beta is not None and beta.shape not in ((*steps, heads), (*steps, 1)):
            raise shape_error(node, f"beta {show(beta.shape)} is not [B, T, {heads}] or [B, T, 1]")
        if past is not None and past.shape != (q.shape[0], heads, keys, values):
            raise shape_error(node, f"past_state {show(past.shape)} does not fit the heads")
        return many, heads, keys, values

    def _scale(self, node: ir.Node, keys: int) -> float:
        return attr_float(node, "scale", 0.0) or 1.0 / math.sqrt(max(keys, 1))

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[B, T, heads · value], and the state after the last step."""
        many, heads, keys, values = self._heads(node, inputs)
        q, past = need(node, inputs, 0), given(inputs, 3)
        state = Facts(q.dtype if past is None else past.dtype, (q.shape[0], heads, keys, values))
        outputs: list[Facts | None] = [Facts(q.dtype, (*q.shape[:2], many * values)), state]
        return outputs[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Step by step, in float64."""
        facts = [None if a is None else Facts(a.dtype, a.shape) for a in inputs]
        many, heads, keys, values = self._heads(node, facts)
        q, k, v = (present(inputs, i) for i in range(3))
        past, decay, beta = (given(inputs, i) for i in (3, 4, 5))
        steps = q.shape[:2]
        out, state = evaluate_linear_attention(
            q.reshape(*steps, many, keys),
            k.reshape(*steps, heads, keys),
            v.reshape(*steps, heads, values),
            np.zeros((len(q), heads, keys, values)) if past is None else past,
            None if decay is None else np.exp(widen(decay)).reshape(*steps, heads, -1),
            beta,
            self._scale(node, keys),
        )
        outputs = [rounded(out.reshape(*steps, -1), q.dtype)]
        outputs.append(rounded(state, q.dtype if past is None else past.dtype))
        return outputs[: len(node.outputs)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One kernel; the exponentials of the decay come before it."""
        values_ = [*node.inputs, *[None] * 6][:6]
        facts = [None if v is None else plan.facts(v) for v in values_]
        if any(f is not None and f.dtype.name not in _HALVES for f in facts):
            return False
        many, heads, keys, values = self._heads(node, facts)
        machine = plan.machine
        q, k, v = (plan.plain(x) for x in values_[:3] if x is not None)
        past, decay, beta = values_[3:]

        def split(view: View, count: int) -> View:
            b, t, step = view.strides
            own = view.shape[2] // count
            return view.with_dims((*view.shape[:2], count, own), (b, t, own * step, step))

        factors = rates = None
        if decay is not None:
            shape = plan.facts(decay).shape
            steps = Steps(plan, shape)
            powers = plan.plain(steps("Exp", steps.cast(decay, "float32")))
            factors = split(powers, heads)
            if shape[2] == heads and keys != 1:
                factors = factors.with_dims((*shape, keys), (*factors.strides[:3], 0))
        if beta is not None:
            rates = plan.view(beta)
            if rates.shape[2] == 1:
                rates = rates.with_dims((*rates.shape[:2], heads), (*rates.strides[:2], 0))
        batch, length = q.shape[:2]
        out = plan.temporary((batch, length, many * values), q.dtype)
        state = None if past is None else plan.plain(past)
        kept = (batch, heads, keys, values)
        last = plan.temporary(kept, q.dtype if state is None else state.dtype)
        scale = constant(np.array(self._scale(node, keys), np.float32))
        call = linear_attention(
            split(q, many), split(k, heads), split(v, heads), state, factors, rates, scale, split(out, many),
            last, machine,
        )  # fmt: skip
        plan.emit(call)
        for value, view in zip(node.outputs, (out, last), strict=False):
            plan.alias(value, view)
        return True


@register("CausalConvWithState", since=27)
class CausalConvWithState(Op):
    """Each channel [B, C, T] convolved with taps of its own [C, 1, K] over what was before; the last K - 1
    elements are the state of the next call.
    """

    def _taps(self, node: ir.Node, facts: Sequence[Facts | None]) -> int:
        x, w = need(node, facts, 0), need(node, facts, 1)
        if len(x.shape) != 3 or len(w.shape) != 3 or w.shape[:2] != (x.shape[1], 1) or not w.shape[2]:
            found = f"x {show(x.shape)} and weight {show(w.shape)}"
            raise shape_error(node, f"{found} are not [B, C, T], [C, 1, K]")
        bias, past = given(facts, 2), given(facts, 3)
        if bias is not None and bias.shape != x.shape[1:2]:
            raise shape_error(node, f"the bias {show(bias.shape)} is not of {x.shape[1]} channels")
        if past is not None and past.shape != (*x.shape[:2], w.shape[2] - 1):
            raise shape_error(node, f"past_state {show(past.shape)} is not [B, C, {w.shape[2] - 1}]")
        if attr_str(node, "activation", "none") not in ("none", "silu", "swish"):
            raise ModelError(f"{label(node)}: activation is none of none, silu, swish. Use one of them.")
        return w.shape[2]

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x, and K - 1 elements of each channel."""
        x, taps = need(node, inputs, 0), self._taps(node, inputs)
        outputs: list[Facts | None] = [Facts(x.dtype, x.shape), Facts(x.dtype, (*x.shape[:2], taps - 1))]
        return outputs[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A sum over the taps, in float64."""
        x, w = present(inputs, 0), widen(present(inputs, 1))
        bias, past = given(inputs, 2), given(inputs, 3)
        taps, length = w.shape[2], x.shape[2]
        before = np.zeros((*x.shape[:2], taps - 1), x.dtype) if past is None else past
        padded = np.concatenate([before, x], 2)
        wide = widen(padded)
        y = sum((w[:, :, j] * wide[:, :, j : j + length] for j in range(taps)), np.zeros(()))
        y = y if bias is None else y + widen(bias)[:, None]
        if attr_str(node, "activation", "none") != "none":
            y = y / (1.0 + np.exp(-y))
        return [rounded(y, x.dtype), padded[:, :, length:]][: len(node.outputs)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Steps over shifted views of what was before and x."""
        values = [*node.inputs, None, None][:4]
        x, machine = first_input(node), plan.machine
        facts, dtype = plan.facts(x), plan.facts(x).dtype.name
        if dtype not in FLOATS:
            return False
        taps = self._taps(node, [None if v is None else plan.facts(v) for v in values])
        batch, channels, length = facts.shape
        wide = wide_of(dtype)
        padded = plan.temporary((batch, channels, length + taps - 1), facts.dtype)

        def part(first: int, count: int) -> View:
            return padded.with_dims((batch, channels, count), padded.strides, first)

        if taps > 1:
            past = values[3]
            before = part(0, taps - 1)
            plan.emit(fill(0.0, before, machine) if past is None else copy(plan.view(past), before, machine))
        plan.emit(copy(plan.view(x), part(taps - 1, length), machine))
        assert values[1] is not None
        weight, steps = plan.view(values[1]), Steps(plan, facts.shape)
        total: ir.Value | None = None
        for j in range(taps):
            factor = weight.with_dims((channels, 1), (weight.strides[0], 0), j * weight.strides[2])
            own = steps.cast(plan.located(part(j, length)), wide)
            term = steps("Mul", own, steps.cast(plan.located(factor), wide))
            total = term if total is None else steps("Add", total, term)
        assert total is not None
        if values[2] is not None:
            bias = plan.view(values[2])
            offset = plan.located(bias.with_dims((channels, 1), (bias.strides[0], 0)))
            total = steps("Add", total, steps.cast(offset, wide))
        if attr_str(node, "activation", "none") != "none":
            total = steps("Swish", total)
        steps.cast(total, dtype, node.outputs[0])
        if len(node.outputs) > 1:
            plan.emit(copy(part(length, taps - 1), plan.output(node.outputs[1]), machine))
        return True


def _plain_of(node: ir.Node, defaults: dict[str, int]) -> None:
    """Refuses what com.microsoft's operator has beyond the standard's."""
    for name, default in defaults.items():
        value = attr_int(node, name, default)
        if value != default:
            raise UnsupportedOperatorError(
                f"{label(node)}: {name} is {value}, and only {default} is known here. Export the model "
                "without it, or give the operator to ingot.register_op() under another name."
            )


@register("LinearAttention", since=1, domain="com.microsoft")
class WindowedLinearAttention(LinearAttention):
    """As it was before the standard had it; without a window of states."""

    def _heads(self, node: ir.Node, facts: Sequence[Facts | None]) -> tuple[int, int, int, int]:
        _plain_of(node, {"state_window": 0})
        return super()._heads(node, facts)


@register("CausalConvWithState", since=1, domain="com.microsoft")
class ExtendedCausalConvWithState(CausalConvWithState):
    """As it was before the standard had it; of one dimension, channels first, without dilation."""

    def _taps(self, node: ir.Node, facts: Sequence[Facts | None]) -> int:
        names = ("channels_last", "state_window", "state_update_capacity", "state_length", "input_channels")
        _plain_of(node, dict.fromkeys(names, 0) | {"ndim": 1, "dilation": 1, "state_channels_last": -1})
        return super()._taps(node, facts)
