"""Attention in one streaming pass: softmax(scale · Q Kᵀ + mask) V, without the matrix of scores in memory."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine
from ingot.errors import ShapeError, UnsupportedOperatorError
from ingot.kernels.alike import alike
from ingot.kernels.attention_block import SlicedForm
from ingot.kernels.attention_row import RowForm, attend_row
from ingot.kernels.attention_tile import Form, attend, rows_at_once
from ingot.kernels.call import Buffer, Call, View, row_major
from ingot.kernels.contract import name_of
from ingot.kernels.copy import copy
from ingot.kernels.made_again import made_again
from ingot.kernels.scores import LOG2E, Mask
from ingot.kernels.sliced_attention import MORE_SLOTS, attend_sliced, config, cycles, places
from ingot.kernels.slices import DEPTH

_FEW = 4  # queries that are taken one by one
_MOST_PACKED = 16 << 20  # bytes of keys and values a thread copies; more of them are read where they are


_KEY_BLOCK = 1024  # keys whose scores are in memory at once, of the kernel on tile registers
# Slicing a head's keys and values takes as long as 50 queries: heads are divided among threads, and their
# queries only where there are few heads, into parts of at least so many; into smaller ones only where a few
# threads would not all have work.
_PART, _HEADS = 384, 16
_SMALLEST_PART, _FEWEST_HEADS = 96, 4


def definition(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None,
    scale: float,
    causal_offset: int | None = None,
    softcap: float = 0.0,
    empty_is_zero: bool = True,
) -> np.ndarray:
    """The plain meaning in float64: q [B, H, N, D], k [B, Hkv, L, D], v [B, Hkv, L, Dv], mask like [B, H, N,
    L].
    """
    q, k, v = (a.astype(np.float64) for a in (q, k, v))
    repeats = q.shape[1] // max(k.shape[1], 1)
    with np.errstate(all="ignore"):
        scores = scale * (q @ k.repeat(repeats, 1).swapaxes(-1, -2))
        if softcap:
            scores = softcap * np.tanh(scores / softcap)
        if mask is not None and mask.dtype == bool:
            scores = np.where(mask, scores, -np.inf)
        elif mask is not None:
            scores = scores + mask.astype(np.float64)
        if causal_offset is not None:
            queries, keys = np.ogrid[: scores.shape[2], : scores.shape[3]]
            scores = np.where(keys <= queries + causal_offset, scores, -np.inf)
        top: np.ndarray = scores.max(-1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isneginf(top), 0.0, top))
        total = weights.sum(-1, keepdims=True)
        if empty_is_zero:
            total = np.where(total == 0, 1.0, total)
        return (weights / total) @ v.repeat(repeats, 1)


@made_again
@alike
def attention(
    q: View,
    k: View,
    v: View,
    mask: View | None,
    out: View,
    scale: float,
    machine: Machine,
    causal_offset: int | None = None,
    softcap: float = 0.0,
    empty_is_zero: bool = True,
    amx: bool = False,
) -> list[Call]:
    """out = softmax(softcap(scale · q kᵀ) + mask) v, all of float32.

    q [B, H, N, D], k [B, Hkv, L, D], v [B, Hkv, L, Dv], out [B, H, N, Dv]; H is a multiple of Hkv, and query
    heads in a row share a key head. Any strides; where the innermost one is not 1, a copy comes first (or, of
    out, last). mask: broadcastable to [B, H, N, L], added to the scores, or boolean (where False, a score is
    -inf). causal_offset: query i sees keys up to i + causal_offset; None: all. softcap c: c · tanh(score /
    c), if not 0. Rows without any finite score are 0 (Attention of ONNX opset 23), or, without
    `empty_is_zero`, NaN as of a Softmax. amx: tile registers may be used, where the machine has them and they
    are faster. Raises UnsupportedOperatorError for other dtypes, ShapeError where
    heads do not divide.
    """
    for name, view in (("q", q), ("k", k), ("v", v), ("out", out), *([("mask", mask)] if mask else [])):
        if view.dtype != np.float32 and not (name == "mask" and view.dtype == np.bool_):
            raise UnsupportedOperatorError(
                f"attention: {name} is {view.dtype.name}, the native kernel computes float32 "
                "(and boolean masks); cast it, or leave this node to the host"
            )
    batch, heads, queries, depth = q.shape
    key_heads, keys, depth_v = k.shape[1], k.shape[2], v.shape[3]
    if out.size == 0:
        return []
    if key_heads == 0 or heads % key_heads:
        raise ShapeError(
            f"attention: found {heads} query heads for {key_heads} key heads, wanted a multiple of them"
        )
    before: list[Call] = []
    after: list[Call] = []
    q, k, v = (_rows_side_by_side(view, before, machine) for view in (q, k, v))
    target = out
    if out.strides[3] != 1 and depth_v > 1:
        target = _dense(out)
        after.append(copy(target, out, machine))

    if mask is not None:
        mask = mask.broadcast_to((batch, heads, queries, keys))
        if queries > _FEW:
            mask = _keys_side_by_side(mask, before, machine)
    is_causal = causal_offset is not None
    empty_is_zero = empty_is_zero or keys == 0  # a sum over no keys is 0 in any case
    sizes = [heads, heads // key_heads, queries, keys]
    binary = LOG2E if mask is None or mask.dtype == np.bool_ else 1.0
    # A softcap divides before tanh and multiplies after it.
    q_scale, cap = (scale / softcap, softcap * binary) if softcap else (scale * binary, 0.0)
    numbers = [_bits(q_scale), _bits(cap), causal_offset or 0]
    arguments: list[int | View | Kernel] = [
        q, *q.strides[:3], k, *k.strides[:3], v, *v.strides[:3], target, *target.strides[:3],
        *([mask, *mask.strides] if mask else [0] * 5),
    ]  # fmt: skip
    if queries <= _FEW:
        reach = (
            None if mask is None else Mask(name_of(mask.dtype), "rows" if mask.strides[3] == 1 else "strided")
        )
        form = RowForm(depth, depth_v, reach, is_causal, softcap != 0, empty_is_zero)
        code, sizes = attend_row(form=form), [*sizes, 0, 0, *numbers, 0]
        tiles, scratch = batch * heads * queries, keys + machine.lanes
    elif amx and machine.tiles and _fits_tiles(q_scale, q, k, v):
        code, more, tiles, scratch = _sliced(
            (q, k, v), mask, is_causal, softcap != 0, empty_is_zero, q_scale, machine
        )
        more = [*more[:2], *numbers, *more[2:]]
        sizes = [*sizes, *more]
    else:
        code, more, scratch = _tile(q, k, v, mask, is_causal, softcap != 0, empty_is_zero, machine)
        sizes = [*sizes, *more, *numbers, scratch]
        tiles = batch * heads * more[0]
        if dict(code.params)["form"].packed:
            scratch += keys * (depth + depth_v)
    call = Call(
        code,
        [*arguments, *sizes],
        tiles=tiles,
        reads=[q, k, v, *([mask] if mask else [])],
        writes=[target],
        scratch=4 * scratch,
        flops=2 * batch * heads * queries * keys * (depth + depth_v),
        label="attention",
    )
    return [*before, call, *after]


def _tile(
    q: View,
    k: View,
    v: View,
    mask: View | None,
    is_causal: bool,
    softcap: bool,
    empty_is_zero: bool,
    machine: Machine,
) -> tuple[Kernel, tuple[int, int], int]:
    """The kernel for many queries, its numbers of blocks of queries and of keys in a block, and floats of
    scratch.
    """
    queries, depth, keys, depth_v = *q.shape[2:], *v.shape[2:]
    lanes = machine.lanes
    vectors = 1 if queries <= lanes else 2
    width = vectors * lanes
    height = _height(keys, rows_at_once(machine))
    # The scores of a block of keys and their values stay in L1; blocks are nearly equal.
    most = max(machine.l1_bytes // (4 * (width + depth_v)) // height, 1)
    groups = -(-keys // height)
    block_keys = -(-groups // max(-(-groups // most), 1)) * height
    reach = None
    if mask is not None:
        kind = "repeated" if mask.strides[2] == 0 else "rows" if mask.strides[3] == 1 else "strided"
        reach = Mask(name_of(mask.dtype), kind)
    is_spread = k.strides[2] != depth or v.strides[2] != depth_v
    packed = is_spread and queries >= 2 * width and keys * (depth + depth_v) * 4 <= _MOST_PACKED
    form = Form(
        depth=depth,
        depth_v=depth_v,
        pitch=depth if packed else k.strides[2],
        height=height,
        vectors=vectors,
        short_tail=0 < queries % width <= lanes,
        mask=reach,
        causal=is_causal,
        softcap=softcap,
        empty_is_zero=empty_is_zero,
        packed=packed,
    )
    scores = (block_keys + height) * (2 if reach and reach.reach == "rows" else 1) + lanes
    return attend(form=form), (-(-queries // width), block_keys), width * (depth + depth_v + 1 + scores)


def _direct_cycles(queries: int, keys: int, depth: int, depth_v: int) -> float:
    """About how long a head takes by vectors, measured with 32 to 128 elements in a head."""
    return queries * keys * (1.0 + 0.037 * (depth + depth_v))


def _fits_tiles(q_scale: float, q: View, k: View, v: View) -> bool:
    """Whether tile registers are faster, and can take scores of this scale."""
    (batch, heads, queries, depth), (key_heads, keys), depth_v = q.shape, k.shape[1:3], v.shape[3]
    if not (2.0**-30 < q_scale < 2.0**30 and keys and depth) or keys * (depth + depth_v) * 3 > _MOST_PACKED:
        return False
    sharing = heads / key_heads / _parts(batch * heads, queries)
    return cycles(queries, keys, depth, depth_v, sharing) < _direct_cycles(queries, keys, depth, depth_v)


def _parts(heads: int, queries: int) -> int:
    """Into how many tiles of work a head's queries are divided."""
    large = min(queries // _PART, -(-_HEADS // heads))
    return max(1, large, min(queries // _SMALLEST_PART, -(-_FEWEST_HEADS // heads)))


def _sliced(
    qkv: tuple[View, View, View],
    mask: View | None,
    is_causal: bool,
    softcap: bool,
    empty_is_zero: bool,
    q_scale: float,
    machine: Machine,
) -> tuple[Kernel, list[int | View | Kernel], int, int]:
    """The kernel on tile registers; its arguments from the number of blocks on, without the numbers; tiles;
    floats of scratch.
    """
    q, k, v = qkv
    (batch, heads, queries, depth), keys, depth_v = q.shape, k.shape[2], v.shape[3]
    # What is not finite goes to the kernel of vectors.
    code, (blocks, block_keys), floats = _tile(q, k, v, mask, is_causal, softcap, empty_is_zero, machine)
    exact = attend(form=replace(dict(code.params)["form"], packed=False, pitch=k.strides[2]))
    parts = _parts(batch * heads, queries)
    # Registers of as few rows as it takes; parts begin where blocks of vectors do.
    rows = -(-queries // (2 * blocks)) if parts == 1 else machine.lanes
    key_blocks = -(-keys // _KEY_BLOCK)
    key_block = -(-keys // (key_blocks * DEPTH)) * DEPTH
    reach = None if mask is None else Mask(name_of(mask.dtype), "rows" if mask.strides[3] == 1 else "strided")
    form = SlicedForm(depth, depth_v, reach, is_causal, softcap, empty_is_zero, key_block >= keys)
    offsets, scratch = places(form, keys, key_block, 4 * floats)
    # Scores beyond 2²² are for vectors: near the largest of them a float32 has no place for a difference.
    large = min(2.0**40, math.sqrt(2.0**22 / (q_scale * depth)))
    more = {
        "parts": parts, "rows": rows, "query_blocks": blocks, "key_block": key_block,
        "score_config": config(rows, form.steps.words), "value_config": config(rows, DEPTH // 4),
        **offsets, "large": _bits(large), "exact": exact,
    }  # fmt: skip
    arguments = [blocks, block_keys, 0, *(more[slot] for slot in MORE_SLOTS)]
    return attend_sliced(form=form), arguments, batch * heads * parts, scratch // 4


def _bits(number: float) -> int:
    return int(np.float32(number).view(np.int32))


def _height(keys: int, most: int) -> int:
    """Keys in a group: few values, so that few kernels serve all lengths, and such that the last group
    repeats few keys. A group costs about 1.5 keys by itself.
    """
    if keys < most:
        return 1 << max(keys.bit_length() - 1, 0)
    return min(range(most - 2, most + 1), key=lambda height: (-(-keys // height) * (height + 1.5), -height))


def _dense(like: View) -> View:
    """A fresh row-major buffer of the shape of `like`."""
    return View(Buffer(like.size * 4), 0, like.dtype, like.shape, row_major(like.shape))


def _keys_side_by_side(mask: View, calls: list[Call], machine: Machine) -> View:
    """`mask`, or a copy of it whose neighbouring keys lie side by side: gathering them takes as long as the
    products.
    """
    if not (mask.strides[2] and mask.strides[3]) or mask.strides[3] == 1 or mask.size == 0:
        return mask
    own = tuple(size if stride else 1 for size, stride in zip(mask.shape, mask.strides, strict=True))
    size = math.prod(own) * mask.dtype.itemsize
    dense = View(Buffer(size), 0, mask.dtype, own, row_major(own))
    calls.append(copy(mask.with_dims(own, mask.strides), dense, machine))
    return dense.broadcast_to(mask.shape)


def _rows_side_by_side(view: View, calls: list[Call], machine: Machine) -> View:
    """`view`, or a copy of it whose innermost elements lie side by side."""
    if view.strides[3] == 1 or view.shape[3] == 1 or view.size == 0:
        return view
    dense = _dense(view)
    calls.append(copy(view, dense, machine))
    return dense
