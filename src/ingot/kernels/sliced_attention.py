"""Attention on tile registers: both products are sums of products of bytes, the softmax is float32's.

A tile of work is a part of a head's queries. Its keys and values are sliced first (attention_slices.py), into
the thread's own memory, and serve all of its blocks of up to 32 queries:

    scores[query, key]   six products of slices over the head's elements, into float32
    weights              exp(score - the largest of its row), from 0 to 1, sliced with the scale 1
    out[query, column]   six products of slices over the keys, times the column's scale, over the weights' sum

Long rows are taken a block of keys at a time, with running maxima and sums as in attention_tile.py. Queries,
keys or values that cannot be sliced go to the kernel of vectors, which the call brings with it.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools

import numpy as np

from ingot.codegen.builder import F32, I8, I64, Builder, Value
from ingot.codegen.kernel import kernel
from ingot.kernels.attention_block import LEFT, RIGHT, Block, SlicedForm
from ingot.kernels.attention_slices import MOST_QUERIES, slice_keys, slice_values, too_large
from ingot.kernels.call import View, constant
from ingot.kernels.contract import Frame
from ingot.kernels.scores import SLOTS, start_of
from ingot.kernels.sliced_tile import Tiles
from ingot.kernels.slices import DEPTH, LANES, SLICES, TILE_BYTES

#: What the kernel takes beyond the arguments of attention. at_…: bytes from the start of scratch memory;
#: large: the bits of the smallest magnitude of queries and keys that is left to vectors; exact: their kernel.
MORE_SLOTS = (
    "parts", "rows", "query_blocks", "key_block", "score_pitch", "score_config", "value_config",
    "at_scores", "at_key_scales", "at_keys", "at_values", "at_exact", "large", "exact",
)  # fmt: skip


def places(form: SlicedForm, keys: int, key_block: int, exact: int) -> tuple[dict[str, int], int]:
    """The arguments that are offsets in scratch memory, the pitch of scores among them, and how many bytes it
    needs. exact: those of the kernel of vectors.
    """
    pitch = key_block + LANES
    tiles, groups = -(-keys // LANES), -(-keys // DEPTH)
    sizes = {
        "at_scores": MOST_QUERIES * pitch * 4,
        "at_key_scales": tiles * 64,
        "at_keys": tiles * form.steps.number * SLICES * form.steps.words * 64,
        "at_values": form.columns * groups * SLICES * TILE_BYTES,
        "at_exact": -(-exact // 64) * 64,
    }
    offsets = {"score_pitch": pitch}
    place = form.fixed()["end"]
    for name, size in sizes.items():
        offsets[name], place = place, place + size
    return offsets, place


def cycles(queries: int, keys: int, depth: int, depth_v: int, sharing: float) -> float:
    """About how long a head takes; `sharing` heads use the same sliced keys and values.

    Measured: a multiplication of two registers takes 17 cycles with what it loads, 16 scores of a query 26
    until they are weights, slicing a key's or value's element 1.1, a query's step 45.
    """
    blocks = -(-queries // MOST_QUERIES)
    tiles, groups = -(-keys // LANES), -(-keys // DEPTH)
    steps, columns = -(-depth // DEPTH), -(-depth_v // LANES)
    multiplications = blocks * 12 * (tiles * steps + groups * columns)
    of_queries = queries * (26 * tiles + 45 * steps + 8 * columns) + 500 * blocks
    return 17 * multiplications + of_queries + 1.1 * keys * (depth + depth_v) / sharing


@functools.cache
def config(rows: int, words_: int) -> View:
    """What `ldtilecfg` reads, for a left side of `rows` rows of `words_` 32-bit words."""
    memory = np.zeros(64, np.uint8)
    memory[0] = 1
    memory[16:32].view(np.uint16)[:] = 64
    memory[16:32].view(np.uint16)[LEFT:RIGHT] = 4 * words_
    memory[48:54], memory[54:56] = rows, words_
    return constant(memory)


@kernel(*SLOTS, *MORE_SLOTS)
def attend_sliced(k: Builder, *, form: SlicedForm) -> None:
    """Tiles begin..end of (batch, head, part of its queries)."""
    place = form.fixed()
    frame = Frame(k, k.at(k.scratch, place["frame"], I8), SLOTS)
    for slot in SLOTS:
        frame.set(slot, k.arg(slot))
    frame.set("blocks", 1)
    arg = {name: k.arg(name) for name in (*SLOTS, *MORE_SLOTS)}
    heads, shared, parts = arg["heads"], arg["heads_per_key_head"], arg["parts"]
    tiles = Tiles(k)
    tiles.configure(k.pointer("value_config"))
    held = [k.int(-1), I64(0)]  # the head whose keys and values are sliced, and whether they could not be
    with k.loop(k.begin, k.end, carry=held) as work:
        part, others = k.rem(work, parts), k.div(work, parts)
        head, batch = k.rem(others, heads), k.div(others, heads)
        key_head = k.div(others, shared)
        own = k.div(head, shared)

        def slice_head(batch: Value = batch, own: Value = own) -> list[Value]:
            return [_slice_head(k, form, arg, batch, own)]

        (special,) = k.either(k.compare("!=", key_head, held[0]), slice_head, lambda kept=held[1]: [kept])
        held[:] = [key_head, special]

        step = k.mul(arg["rows"], 2)
        first, last = (k.mul(k.div(k.mul(k.add(part, i), arg["query_blocks"]), parts), step) for i in (0, 1))
        last = k.min(last, arg["queries"])
        queries = k.at(start_of(k, "q", batch, head), k.mul(first, arg["q_row"]), F32)
        large = too_large(k, form.depth, queries, arg["q_row"], k.sub(last, first), arg["large"])
        is_special = k.ir.or_(large, k.ir.icmp_signed("!=", special, I64(0)))

        # The same blocks as if there were no tile registers: how far they see past a causal mask is the same.
        with k.when(is_special), k.loop(first, last, MOST_QUERIES) as query:
            Block(k, form, arg, batch, head, query, MOST_QUERIES).exactly(frame, others)
        with k.when(k.ir.not_(is_special)), k.loop(first, last, step) as query:
            Block(k, form, arg, batch, head, query, step).attend()
    tiles.release()


def _slice_head(k: Builder, form: SlicedForm, arg: dict[str, Value], batch: Value, head: Value) -> Value:
    """Slice a head's keys and values; 1 where they cannot be, else 0."""
    place = form.fixed()
    keys, values = start_of(k, "k", batch, head), start_of(k, "v", batch, head)
    turned, value_scales = (k.at(k.scratch, place[n], I8) for n in ("turned", "value_scales"))
    key_goal, key_scales, value_goal = (
        k.at(k.scratch, arg[f"at_{n}"], I8) for n in ("keys", "key_scales", "values")
    )
    large = slice_keys(
        k, form.steps, keys, arg["k_row"], arg["keys"], key_goal, key_scales, turned, arg["large"]
    )
    bad = slice_values(k, form.depth_v, values, arg["v_row"], arg["keys"], value_goal, value_scales)
    return k.ir.zext(k.ir.or_(large, bad), I64)
