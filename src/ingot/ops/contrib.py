"""com.microsoft's operators that standard ones cannot say: GroupQueryAttention and Inverse.

The others are rewritten when a file is opened (`passes/contrib.py`).
"""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# What NumPy makes of arrays of any dtype has none that is known.

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError, ShapeError, UnsupportedOperatorError
from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    attr_float,
    attr_int,
    given,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)

DOMAIN = "com.microsoft"


@register("Inverse", since=1, domain=DOMAIN)
class Inverse(Op):
    """The inverses of matrices [..., n, n]."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The shape of x."""
        x = need(node, inputs, 0)
        if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
            raise shape_error(node, f"the input has shape {show(x.shape)}, and must be square matrices")
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In float64; raises ShapeError for a matrix that has none."""
        x = present(inputs, 0)
        try:
            return [rounded(np.linalg.inv(widen(x)), x.dtype)]
        except np.linalg.LinAlgError as error:
            raise ShapeError(f"{label(node)}: a matrix has no inverse ({error}). Check the input.") from error


@register("GroupQueryAttention", since=1, domain=DOMAIN)
class GroupQueryAttention(Op):
    """Attention of new rows after what is kept of older ones, with fewer heads of keys than of queries.

    Inputs: query [B, S, N · H] (with keys and values beside it where those are left out), key and value
    [B, S, K · H], past_key and past_value [B, K, P, H], seqlens_k [B] (the number of valid keys, less one),
    total_sequence_length, cos_cache and sin_cache [positions, R/2], position_ids [B, S], attention_bias,
    head_sink. Outputs: [B, S, N · H], and keys and values [B, K, max(P, total), H].
    """

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By the formula, in float64, row by row of the batch."""
        query = present(inputs, 0)
        n, k = attr_int(node, "num_heads", 0), attr_int(node, "kv_num_heads", 0)
        if not n or not k or n % k:
            raise ModelError(f"{label(node)}: num_heads {n} must be a multiple of kv_num_heads {k}.")
        if attr_int(node, "smooth_softmax", 0) or given(inputs, 11) is not None:
            raise UnsupportedOperatorError(f"{label(node)}: smooth_softmax and head_sink are unknown here.")
        batch, rows, width = query.shape
        key, value = given(inputs, 1), given(inputs, 2)
        if key is None:
            size = width // (n + 2 * k)
            query, key, value = np.split(query, [n * size, (n + k) * size], 2)
        else:
            size = width // n
        q, new_k, new_v = (
            widen(x).reshape(batch, rows, h, size).transpose(0, 2, 1, 3)
            for x, h in ((query, n), (key, k), (value, k))
        )
        totals = present(inputs, 5).reshape(-1).astype(np.int64) + 1
        past_key, past_value = given(inputs, 3), given(inputs, 4)
        kept = 0 if past_key is None else past_key.shape[2]
        length = max(kept, int(present(inputs, 6).reshape(())))
        prompt = rows == int(present(inputs, 6).reshape(()))  # nothing is past
        starts = np.zeros(batch, np.int64) if prompt else totals - rows
        if (starts < 0).any() or (starts + (0 if prompt else rows) > length).any():
            raise ShapeError(
                f"{label(node)}: seqlens_k {(totals - 1).tolist()} and total_sequence_length {length} do "
                f"not fit {rows} "
                "new rows. Check what is fed."
            )
        if attr_int(node, "do_rotary", 0):
            asked: Array | None = given(inputs, 9)
            along: Array = np.add(starts[:, None], np.arange(rows))
            places = along if asked is None else asked.reshape(batch, rows)
            q, new_k = (
                self._rotated(node, x, places, present(inputs, 7), present(inputs, 8)) for x in (q, new_k)
            )
        keys, values = (np.zeros((batch, k, length, size)) for _ in range(2))
        for b in range(batch):
            start = int(starts[b])
            if past_key is not None and past_value is not None:
                keys[b, :, :kept], values[b, :, :kept] = past_key[b], past_value[b]
            keys[b, :, start : start + rows], values[b, :, start : start + rows] = new_k[b], new_v[b]
        y = self._attended(node, q, keys, values, starts, given(inputs, 10))
        y = y.transpose(0, 2, 1, 3).reshape(batch, rows, n * size)
        dtype = present(inputs, 0).dtype
        return [rounded(y, dtype), rounded(keys, dtype), rounded(values, dtype)][: len(node.outputs)]

    @staticmethod
    def _attended(
        node: ir.Node, q: Array, keys: Array, values: Array, starts: Array, bias: Array | None
    ) -> Array:
        """[B, N, S, H]."""
        groups, rows, length = q.shape[1] // keys.shape[1], q.shape[2], keys.shape[2]
        wide_k, wide_v = (np.repeat(x, groups, 1) for x in (keys, values))
        scale = attr_float(node, "scale", 0.0) or 1 / math.sqrt(q.shape[3])
        softcap, window = attr_float(node, "softcap", 0.0), attr_int(node, "local_window_size", -1)
        scores = q @ wide_k.swapaxes(2, 3) * scale
        if softcap > 0:
            scores = softcap * np.tanh(scores / softcap)
        if bias is not None:
            added = widen(bias)
            scores = scores + np.pad(added, [(0, 0)] * 3 + [(0, length - added.shape[3])])
        row: Array = starts[:, None, None, None] + np.arange(rows)[:, None]
        column: Array = np.arange(length)
        seen: Array = column <= row
        if window > 0:
            seen = seen & (column > row - window)
        scores = np.where(seen, scores, -np.inf)
        e = np.exp(scores - scores.max(-1, keepdims=True))
        return (e / e.sum(-1, keepdims=True)) @ wide_v

    @staticmethod
    def _rotated(node: ir.Node, x: Array, places: Array, cos: Array, sin: Array) -> Array:
        """Pairs of elements of x [B, heads, S, H] by the angles of their places [B, S]."""
        c, s = (widen(table)[places][:, None] for table in (cos, sin))
        width = 2 * cos.shape[1]
        y = x.copy()
        if attr_int(node, "rotary_interleaved", 0):
            first, second = slice(0, width, 2), slice(1, width, 2)
        else:
            first, second = slice(0, width // 2), slice(width // 2, width)
        a, b = x[..., first], x[..., second]
        y[..., first], y[..., second] = c * a - s * b, s * a + c * b
        return y
