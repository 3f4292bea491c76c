"""Attention and what is made for it: Attention (masks, heads, caches), RotaryEmbedding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import FLOATS
from ingot.errors import ModelError
from ingot.kernels.attention import attention
from ingot.kernels.call import View as Memory
from ingot.kernels.contract import name_of
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import elementwise, fill
from ingot.kernels.gather import gather
from ingot.ops.compose import complex_product
from ingot.ops.index import checked_indices
from ingot.ops.lowering import Lowering, Steps
from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_float,
    attr_int,
    broadcast,
    first_input,
    given,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)


def _heads(node: ir.Node, x: Array, heads: int) -> Array:
    """[B, S, heads · D] as [B, heads, S, D]; four dimensions stay."""
    if x.ndim == 4:
        return x
    if heads < 1 or x.shape[2] % heads:
        raise shape_error(node, f"the last dimension of {show(x.shape)} does not divide into {heads} heads")
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(0, 2, 1, 3)


def _head_shape(node: ir.Node, x: Facts, heads: int) -> tuple[int, int, int, int]:
    shape = x.shape
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    if len(shape) != 3 or heads < 1 or shape[2] % heads:
        raise shape_error(node, f"an input of shape {show(shape)} does not divide into {heads} heads")
    return shape[0], heads, shape[1], shape[2] // heads


def _scale(node: ir.Node, size: int) -> float:
    """What scores are multiplied by: the attribute, also where it is 0, else the root of 1 / `size`."""
    given_one = "scale" in node.attributes.data
    return attr_float(node, "scale", 1.0) if given_one else 1.0 / math.sqrt(max(size, 1))


@register("Attention", since=25)
class Attention(Op):
    """softmax(q @ kᵀ · scale + mask) @ v for each head; a row with nothing to attend to is 0.

    q [B, H, N, D] or [B, N, H · D]; k and v with heads that divide H. Optional: mask (bool: may attend;
    float: added), past keys and values (put before k and v), and how many keys are no padding.
    """

    #: what a row is whose scores are all -inf: 0, or NaN as a softmax has it
    empty_row_is_zero: ClassVar[bool] = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """y like q, with v's head size; present key and value; the scores."""
        q, k, v = (need(node, inputs, i) for i in range(3))
        q_heads, kv_heads = attr_int(node, "q_num_heads", 0), attr_int(node, "kv_num_heads", 0)
        batch, heads, rows, size = _head_shape(node, q, q_heads)
        kb, kh, keys, key_size = _head_shape(node, k, kv_heads)
        vb, vh, values, value_size = _head_shape(node, v, kv_heads)
        if kh != vh or keys != values or key_size != size or (kh and heads % kh):
            raise shape_error(
                node,
                f"query {show(q.shape)}, key {show(k.shape)} and value {show(v.shape)} "
                "do not belong together",
            )
        # Wider than ONNX, which wants one batch and a mask that fits: they broadcast, as in the products.
        batch = broadcast(node, (batch,), (kb,), (vb,))[0]
        past, past_value = given(inputs, 4), given(inputs, 5)
        if (past is None) != (past_value is None):
            raise shape_error(node, "past_key and past_value come together, and one of them is missing")
        before = past.shape[2] if past is not None and len(past.shape) == 4 else 0
        for name, facts, wanted in (
            ("past_key", past, (kb, kh, before, size)),
            ("past_value", past_value, (vb, kh, before, value_size)),
        ):
            if facts is not None and facts.shape != wanted:
                raise shape_error(node, f"{name} has shape {show(facts.shape)}, and must be {show(wanted)}")
        total = keys + before
        mask = given(inputs, 3)
        if mask is not None:
            wanted = (batch, heads, rows, total)
            # A mask may be shorter than the keys, also of one; what it does not cover is masked.
            padded = (*mask.shape[:-1], total) if mask.shape and mask.shape[-1] < total else mask.shape
            batch, heads, rows, columns = broadcast(node, wanted, padded)
            if columns != total:
                raise shape_error(node, f"the mask {show(mask.shape)} does not broadcast to {show(wanted)}")
        y = (batch, heads, rows, value_size) if len(q.shape) == 4 else (batch, rows, heads * value_size)
        outputs: list[Facts | None] = [
            Facts(q.dtype, y),
            Facts(k.dtype, (batch, kh, total, size)),
            Facts(v.dtype, (batch, kh, total, value_size)),
            Facts(q.dtype, (batch, heads, rows, total)),
        ]
        return outputs[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By the formula, in float64."""
        query, key, value = (present(inputs, i) for i in range(3))
        dtype = query.dtype
        q = _heads(node, query, attr_int(node, "q_num_heads", 0))
        k, v = (_heads(node, x, attr_int(node, "kv_num_heads", 0)) for x in (key, value))
        past_key, past_value, lengths = given(inputs, 4), given(inputs, 5), given(inputs, 6)
        if past_key is not None:
            k, v = np.concatenate([past_key, k], 2), np.concatenate([past_value, v], 2)
        present_key, present_value = k, v
        rows, keys = q.shape[2], k.shape[2]
        offset = np.zeros((1, 1, 1, 1), np.int64)
        if past_key is not None:
            offset = offset + past_key.shape[2]
        elif lengths is not None:
            offset = lengths.astype(np.int64).reshape(-1, 1, 1, 1) - rows
        allowed, bias = self.masks(node, given(inputs, 3), rows, keys, offset, lengths)

        repeats = q.shape[1] // k.shape[1]
        wide_k, wide_v = (np.repeat(widen(x), repeats, 1) for x in (k, v))
        scale = _scale(node, q.shape[3])
        mode, softcap = attr_int(node, "qk_matmul_output_mode", 0), attr_float(node, "softcap", 0.0)
        with np.errstate(all="ignore"):
            scores = np.matmul(widen(q), wide_k.swapaxes(2, 3)) * scale
            shown = scores
            if softcap > 0:
                scores = softcap * np.tanh(scores / softcap)
                shown = shown if mode == 0 else scores
            scores = np.where(allowed, scores + bias, -np.inf)
            shown = scores if mode == 2 else shown
            weights = _softmax(scores)
            if not self.empty_row_is_zero:
                weights = np.where(np.isneginf(scores).all(-1, keepdims=True), np.nan, weights)
            shown = weights if mode == 3 else shown
            y = np.matmul(weights, wide_v)
        if query.ndim == 3:
            y = y.transpose(0, 2, 1, 3).reshape(y.shape[0], rows, -1)
        outputs = [rounded(y, dtype), present_key, present_value, rounded(shown, dtype)]
        return outputs[: len(node.outputs)]

    @staticmethod
    def masks(
        node: ir.Node, mask: Array | None, rows: int, keys: int, offset: Array, lengths: Array | None
    ) -> tuple[Array, Array]:
        """(which keys each row may attend to, what is added to its scores), both broadcast to [B, H, rows,
        keys].

        `offset` [B or 1, 1, 1, 1]: how many valid keys come before the first row.
        """
        allowed = np.ones((1, 1, rows, keys), np.bool_)
        bias = np.zeros((1, 1, 1, 1))
        if mask is not None:
            mask = mask if mask.ndim else np.broadcast_to(mask, (keys,))
            widths = [(0, 0)] * (mask.ndim - 1) + [(0, max(0, keys - mask.shape[-1]))]
            if mask.dtype == np.bool_:
                allowed = allowed & np.pad(mask, widths, constant_values=False)
            else:
                bias = np.pad(widen(mask), widths, constant_values=-np.inf)
                allowed = allowed & ~np.isneginf(bias)
        position, column = offset + np.arange(rows).reshape(-1, 1), np.arange(keys)
        left, right = attr_int(node, "left_window_size", -1), attr_int(node, "right_window_size", -1)
        if attr_int(node, "is_causal", 0):
            allowed = allowed & (column <= position)
        if left >= 0:
            allowed = allowed & (column >= position - left)
        if right >= 0:
            allowed = allowed & (column <= position + right)
        if lengths is not None:
            allowed = allowed & (column < lengths.reshape(-1, 1, 1, 1))
        return allowed, bias

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One streaming pass in float32. What was before is put before keys and values, windows and lengths
        become a mask; the scores themselves are the host's.
        """
        operands = [*node.inputs, *[None] * 7][:7]
        query, key, value, mask = operands[:4]
        assert query is not None
        assert key is not None
        assert value is not None
        y, machine = node.outputs[0], plan.machine
        facts = [plan.facts(v) for v in (query, key, value)]
        given_mask = None if mask is None else plan.facts(mask)
        if (
            any(name_of(f.dtype) not in _COMPUTED for f in facts)
            or (given_mask is not None and name_of(given_mask.dtype) not in (*_COMPUTED, "bool"))
            or any(plan.wants(v) for v in node.outputs[3:])
        ):
            return False
        heads, kv_heads = attr_int(node, "q_num_heads", 0), attr_int(node, "kv_num_heads", 0)
        shapes = [_head_shape(node, f, h) for f, h in zip(facts, (heads, kv_heads, kv_heads), strict=True)]
        views = [
            _split_heads(plan.view(operand), shape)
            for operand, shape in zip((query, key, value), shapes, strict=True)
        ]
        for i, past in ((1, operands[4]), (2, operands[5])):
            output = node.outputs[i] if i < len(node.outputs) and plan.wants(node.outputs[i]) else None
            views[i] = _with_past(plan, views[i], past, output)
        rows, keys = shapes[0][2], views[1].shape[2]
        before = keys - shapes[1][2]
        views = [_as_float32(plan, view) for view in views]
        causal = before if attr_int(node, "is_causal", 0) else None
        where = None if mask is None else _as_float32(plan, plan.view(mask))
        if where is not None and where.rank and where.shape[-1] < keys:
            where = _padded_mask(plan, where, keys)
        windows = [attr_int(node, f"{side}_window_size", -1) for side in ("left", "right")]
        if operands[6] is not None or max(windows) >= 0:
            where = self._lower_mask(node, plan, where, operands[6], rows, keys, before)
            causal = None
        order = (0, 2, 1, 3) if views[0].strides[1] < views[0].strides[2] else (0, 1, 2, 3)
        out = plan.output(y, order if len(facts[0].shape) == 4 else None)
        # Batches may be 1 where the others' are not; so may the heads and rows of a query under a mask.
        size = shapes[2][3]
        split = (out.shape[0], out.shape[-1] // max(size, 1), out.shape[1], size)
        out = _split_heads(out, split)
        target = out if out.dtype == np.float32 else plan.temporary(out.shape, np.float32, order)
        wide = [out.shape[:3], *[(out.shape[0], *view.shape[1:3]) for view in views[1:]]]
        q, k, v = (view.broadcast_to((*w, view.shape[3])) for view, w in zip(views, wide, strict=True))
        scale = _scale(node, shapes[0][3])
        softcap = attr_float(node, "softcap", 0.0)
        zero = self.empty_row_is_zero
        amx = plan.options.amx
        plan.emit(attention(q, k, v, where, target, scale, machine, causal, softcap, zero, amx))
        if target is not out:
            plan.emit(copy(target, out, machine))
        return True

    @staticmethod
    def _lower_mask(
        node: ir.Node,
        plan: Lowering,
        mask: Memory | None,
        lengths: ir.Value | None,
        rows: int,
        keys: int,
        before: int,
    ) -> Memory:
        """`mask` with what windows, causality and lengths forbid; see `masks`."""
        count = None if lengths is None else plan.view(lengths)
        own = (1 if count is None else count.shape[0], 1, rows, keys)
        shape = own if mask is None else tuple(np.broadcast_shapes(own, mask.shape))
        steps = Steps(plan, shape)
        column, position = plan.known(np.arange(keys)), plan.known(np.arange(rows)[:, None] + before)
        found: list[ir.Value] = []
        if count is not None:
            length = steps.cast(
                plan.located(count.with_dims((own[0], 1, 1, 1), (count.strides[0], 0, 0, 0))), "int64"
            )
            length = steps.stored(length)
            found.append(steps("Less", column, length, dtype="bool"))
            if not before:
                position = steps.stored(steps("Add", steps("Sub", length, rows), position))
        left, right = (attr_int(node, f"{side}_window_size", -1) for side in ("left", "right"))
        if attr_int(node, "is_causal", 0):
            found.append(steps("LessOrEqual", column, position, dtype="bool"))
        if left >= 0:
            first = steps("Sub", position, left)
            found.append(steps("GreaterOrEqual", column, first, dtype="bool"))
        if right >= 0:
            found.append(steps("LessOrEqual", column, steps("Add", position, right), dtype="bool"))
        allowed = found[0]
        for other in found[1:]:
            allowed = steps("And", allowed, other)
        if mask is None:
            return plan.view(allowed)
        if mask.dtype == np.bool_:
            return plan.view(steps("And", allowed, plan.located(mask)))
        none = steps.number(-math.inf, "float32")
        return plan.view(steps("Where", allowed, plan.located(mask), none, dtype="float32"))


_COMPUTED = ("float32", "float16", "bfloat16")


def _as_float32(plan: Lowering, view: Memory) -> Memory:
    """Half precision as float32; truth values and float32 as they are."""
    if name_of(view.dtype) not in ("float16", "bfloat16"):
        return view
    wide = plan.temporary(view.shape, np.float32)
    plan.emit(copy(view, wide, plan.machine))
    return wide


def _with_past(plan: Lowering, view: Memory, past: ir.Value | None, output: ir.Value | None) -> Memory:
    """[B, H, S, D] after what was before, which is the node's output where that is wanted."""
    if past is None and output is None:
        return view
    before = 0 if past is None else plan.facts(past).shape[2]
    shape = (*view.shape[:2], before + view.shape[2], view.shape[3])
    whole = plan.temporary(shape, view.dtype) if output is None else plan.output(output)
    if past is not None:
        first = whole.with_dims((*shape[:2], before, shape[3]), whole.strides)
        plan.emit(copy(plan.view(past), first, plan.machine))
    # The output's batch may be that of a mask or a query.
    last = whole.with_dims((*whole.shape[:2], *view.shape[2:]), whole.strides, before * whole.strides[2])
    plan.emit(copy(view, last, plan.machine))
    return whole


def _padded_mask(plan: Lowering, mask: Memory, keys: int) -> Memory:
    """A mask that is shorter than the keys, which forbids the rest."""
    whole = plan.temporary((*mask.shape[:-1], keys), mask.dtype)
    known = mask.shape[-1]
    rest = whole.with_dims((*mask.shape[:-1], keys - known), whole.strides, known * whole.strides[-1])
    plan.emit(fill(False if mask.dtype == np.bool_ else -math.inf, rest, plan.machine))
    plan.emit(copy(mask, whole.with_dims(mask.shape, whole.strides), plan.machine))
    return whole


@register("SoftmaxAttention", since=1, domain="ingot")
class SoftmaxAttention(Attention):
    """Attention spelled with a plain softmax, for sessions only: a row with nothing to attend to is NaN."""

    empty_row_is_zero = False


def _split_heads(view: Memory, shape: tuple[int, int, int, int]) -> Memory:
    """[B, S, heads · D] as [B, heads, S, D]; four dimensions stay."""
    if view.rank == 4:
        return view
    batch, heads, rows, size = shape
    b, s, d = view.strides
    return view.with_dims((batch, heads, rows, size), (b, size * d, s, d))


def _softmax(scores: Array) -> Array:
    """Along the last axis; a row of nothing but -inf is 0."""
    largest: Array = scores.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(scores - np.where(np.isneginf(largest), 0.0, largest))
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1.0, total)


@register("RotaryEmbedding", since=23)
class RotaryEmbedding(Op):
    """Pairs of elements of each head rotated by the angles of their position.

    x [B, H, S, D] or [B, S, H · D]; cos and sin [positions, R/2] with position_ids [B, S], or [B, S, R/2]
    without.
    """

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x."""
        x = need(node, inputs, 0)
        if len(x.shape) not in (3, 4):
            raise shape_error(node, f"the input has shape {show(x.shape)}, and must have rank 3 or 4")
        if len(x.shape) == 3 and not attr_int(node, "num_heads", 0):
            raise ModelError(f"{label(node)}: an input of rank 3 needs attribute num_heads. Set it.")
        batch, _, steps, size = _head_shape(node, x, attr_int(node, "num_heads", 0))
        half = (attr_int(node, "rotary_embedding_dim", 0) or size) // 2
        positions = given(inputs, 3)
        if positions is not None and positions.shape != (batch, steps):
            raise shape_error(
                node, f"position_ids have shape {show(positions.shape)}, and must be {show((batch, steps))}"
            )
        for name, i in (("cos_cache", 1), ("sin_cache", 2)):
            table = need(node, inputs, i).shape
            rows = (batch, steps) if positions is None else table[:1]
            if table != (*rows, half):
                wanted = f"[{batch}, {steps}, {half}]" if positions is None else f"[positions, {half}]"
                raise shape_error(node, f"{name} has shape {show(table)}, and must be {wanted}")
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By the formula; elements beyond rotary_embedding_dim stay."""
        source, positions = present(inputs, 0), given(inputs, 3)
        x = widen(_heads(node, source, attr_int(node, "num_heads", 0)))
        cos, sin = (widen(present(inputs, i)) for i in (1, 2))
        if positions is not None:
            positions = checked_indices(node, positions, len(cos), from_end=False)
            cos, sin = cos[positions], sin[positions]
        cos, sin = cos[:, None], sin[:, None]
        width = attr_int(node, "rotary_embedding_dim", 0) or x.shape[-1]
        y = x.copy()
        if attr_int(node, "interleaved", 0):
            first, second = slice(0, width, 2), slice(1, width, 2)
        else:
            first, second = slice(0, width // 2), slice(width // 2, width)
        a, b = x[..., first], x[..., second]
        y[..., first] = cos * a - sin * b
        y[..., second] = sin * a + cos * b
        if source.ndim == 3:
            y = y.transpose(0, 2, 1, 3).reshape(source.shape)
        return [rounded(y, source.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Both halves of the pairs from one kernel; the angles of the positions are gathered before."""
        x, value, machine = first_input(node), node.outputs[0], plan.machine
        facts = plan.facts(x)
        dtype = name_of(facts.dtype)
        tables = [v for v in node.inputs[1:3] if v is not None]
        positions = node.inputs[3] if len(node.inputs) > 3 else None
        if dtype not in FLOATS or any(plan.facts(v).dtype != facts.dtype for v in tables):
            return False
        angles = [plan.view(v) for v in tables]
        if positions is not None:
            where = plan.view(positions)
            message = f"{label(node)}: a position is outside the table of angles. Check position_ids."
            for i, table in enumerate(angles):
                angles[i] = plan.temporary((*where.shape, table.shape[-1]), facts.dtype)
                flag = plan.check(message)
                plan.emit(gather(table, where, 0, angles[i], flag, machine, from_end=False))
        out = plan.output(value)
        view, target = (_by_heads(node, v, attr_int(node, "num_heads", 0)) for v in (plan.plain(x), out))
        width = attr_int(node, "rotary_embedding_dim", 0) or view.shape[-1]
        half, own = width // 2, view.shape[:-1]
        step, start = (2, 1) if attr_int(node, "interleaved", 0) else (1, half)

        def pair(v: Memory) -> list[Memory]:
            strides = (*v.strides[:-1], step * v.strides[-1])
            return [v.with_dims((*own, half), strides, i * start * v.strides[-1]) for i in (0, 1)]

        spread = [a.with_dims((own[0], 1, own[2], half), (a.strides[0], 0, *a.strides[1:])) for a in angles]
        plan.emit(
            elementwise(complex_product(dtype), [*pair(view), *spread], pair(target), machine, "rotate")
        )
        if width < view.shape[-1]:
            source, rest = (
                v.with_dims((*own, v.shape[-1] - width), v.strides, width * v.strides[-1])
                for v in (view, target)
            )
            plan.emit(copy(source, rest, machine))
        return True


def _by_heads(node: ir.Node, view: Memory, heads: int) -> Memory:
    """[B, H, S, D] or [B, S, H · D] as [B, H, S, D]."""
    if view.rank == 4:
        return view
    batch, length, width = view.shape
    if width % heads:
        raise shape_error(node, f"{width} elements are not {heads} heads of one size")
    own, (outer, middle, step) = width // heads, view.strides
    return view.with_dims((batch, heads, length, own), (outer, own * step, middle, step))
