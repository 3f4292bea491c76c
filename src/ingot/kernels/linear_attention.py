"""LinearAttention: a state for each head that every step decays, corrects, adds to and is read from.

A thread has some columns of a head's state in its own memory for all steps, as many as a vector has lanes.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ingot.codegen.builder import F32, Builder, Value, vector
from ingot.codegen.elements import load_element, memory_element, store_element
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import Lanes
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View

_WAYS = 4  # sums at a time, which hide the latency of an addition


def evaluate_linear_attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    state: np.ndarray,
    factors: np.ndarray | None,
    rates: np.ndarray | None,
    scale: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The plain definition, in float64. q [B, T, Hq, K], k [B, T, H, K], v [B, T, H, V], state [B, H, K, V];
    factors [B, T, H, K or 1] are what the state is multiplied by before each step, rates [B, T, H or 1] how
    far a value replaces what the state has for its key (without them it is added). Returns [B, T, Hq, V] and
    the last state.
    """
    state, out = state.astype(np.float64), np.zeros((*q.shape[:3], v.shape[-1]))
    q, k, v = (a.astype(np.float64) for a in (q, k, v))
    for t in range(q.shape[1]):
        if factors is not None:
            state = state * factors[:, t].astype(np.float64)[..., None]
        value = v[:, t]
        if rates is not None:
            held = np.einsum("bhkv,bhk->bhv", state, k[:, t])
            value = rates[:, t].astype(np.float64)[..., None] * (value - held)
        state = state + k[:, t][..., None] * value[:, :, None]
        read = np.repeat(state, q.shape[2] // k.shape[2], axis=1)
        out[:, t] = scale * np.einsum("bhk,bhkv->bhv", q[:, t], read)
    return out, state


@kernel("q", "qb", "qt", "qh", "qk", "key", "kb", "kt", "kh", "kk", "v", "vb", "vt", "vh",
        "state", "sb", "sh", "sk", "factors", "fb", "ft", "fh", "fk", "rates", "rb", "rt", "rh",
        "out", "ob", "ot", "oh", "last", "lb", "lh", "lk",
        "scale", "steps", "heads", "group", "keys", "values", "blocks")  # fmt: skip
def _linear_attention(
    k: Builder,
    *,
    dtype: str,
    state_dtype: str,
    starts: bool,
    decays: bool,
    corrects: bool,
    lanes: int,
) -> None:
    element, kept = memory_element(dtype), memory_element(state_dtype)
    keys, values, group = k.arg("keys"), k.arg("values"), k.arg("group")
    wide, held = vector(F32, lanes), k.scratch
    scale = Lanes(k, k.broadcast(k.load(k.pointer("scale"), F32), lanes))
    whole = k.sub(keys, k.rem(keys, _WAYS))

    def spread(pointer: Value, step: Value, d: Value) -> Lanes:
        return Lanes(k, k.broadcast(load_element(k, pointer, dtype, 1, k.mul(d, step)), lanes))

    def over_keys(term: Callable[[Value], Lanes]) -> Lanes:
        """The sum of a term over all keys."""
        sums: list[Value] = [k.zero(wide) for _ in range(_WAYS)]
        with k.loop(0, whole, _WAYS, carry=sums) as d:
            for u in range(_WAYS):
                sums[u] = (Lanes(k, sums[u]) + term(k.add(d, u))).value
        rest = sums[:1]
        with k.loop(whole, keys, carry=rest) as d:
            rest[0] = (Lanes(k, rest[0]) + term(d)).value
        parts = [Lanes(k, s) for s in (*rest, *sums[1:])]
        return (parts[0] + parts[1]) + (parts[2] + parts[3])

    with k.loop(k.begin, k.end) as tile:
        block, line = k.rem(tile, k.arg("blocks")), k.div(tile, k.arg("blocks"))
        head, batch = k.rem(line, k.arg("heads")), k.div(line, k.arg("heads"))
        first = k.mul(block, lanes)
        mask = k.lanes_below(k.sub(values, first), lanes)

        def place(name: str, letter: str, of: Value, kind: object = element, batch: Value = batch) -> Value:
            offset = k.add(k.mul(batch, k.arg(f"{letter}b")), k.mul(of, k.arg(f"{letter}h")))
            return k.at(k.pointer(name), offset, kind)

        state, last = (
            k.at(place(name, letter, head, kept), first, kept)
            for name, letter in (("state", "s"), ("last", "l"))
        )
        with k.loop(0, keys) as d:
            value = k.zero(wide)
            if starts:
                value = load_element(k, state, state_dtype, lanes, k.mul(d, k.arg("sk")), mask)
            k.store(value, held, k.mul(d, lanes))
        with k.loop(0, k.arg("steps")) as t:

            def at(name: str, letter: str, of: Value, t: Value = t, kind: object = element) -> Value:
                return k.at(place(name, letter, of, kind), k.mul(t, k.arg(f"{letter}t")), kind)

            key = at("key", "k", head)
            value = Lanes(k, load_element(k, k.at(at("v", "v", head), first, element), dtype, lanes, 0, mask))

            def state_of(d: Value) -> Lanes:
                return Lanes(k, k.load(held, wide, k.mul(d, lanes)))

            if decays or corrects:
                factors = at("factors", "f", head, kind=F32)

                def decayed(d: Value, key: Value = key, factors: Value = factors) -> Lanes:
                    own = state_of(d)
                    if decays:
                        factor = k.load(factors, F32, k.mul(d, k.arg("fk")))
                        own = own * Lanes(k, k.broadcast(factor, lanes))
                        k.store(own.value, held, k.mul(d, lanes))
                    return own * spread(key, k.arg("kk"), d)

                found = over_keys(decayed)
                if corrects:
                    rate = load_element(k, at("rates", "r", head), dtype, 1)
                    value = Lanes(k, k.broadcast(rate, lanes)) * (value - found)
            with k.loop(0, keys) as d:
                after = state_of(d) + spread(key, k.arg("kk"), d) * value
                k.store(after.value, held, k.mul(d, lanes))
            with k.loop(0, group) as member:
                own_head = k.add(k.mul(head, group), member)
                query = at("q", "q", own_head)

                def read(d: Value, query: Value = query) -> Lanes:
                    return state_of(d) * spread(query, k.arg("qk"), d)

                result = scale * over_keys(read)
                target = k.at(at("out", "o", own_head), first, element)
                store_element(k, result.value, target, dtype, 0, mask)
        with k.loop(0, keys) as d:
            value = k.load(held, wide, k.mul(d, lanes))
            store_element(k, value, last, state_dtype, k.mul(d, k.arg("lk")), mask)


def linear_attention(
    q: View,
    key: View,
    v: View,
    state: View | None,
    factors: View | None,
    rates: View | None,
    scale: View,
    out: View,
    last: View,
    machine: Machine,
) -> Call:
    """See `evaluate_linear_attention`. factors and scale are float32; v, state, out and last have their last
    dimension contiguous. Sums are in float32.
    """
    batch, heads, keys, values = last.shape
    lanes = machine.lanes
    blocks = -(-values // lanes)
    start, decay, rate = state or last, factors or scale, rates or q
    fours, threes = (0, 0, 0, 0), (0, 0, 0)
    return Call(
        _linear_attention(
            dtype=q.dtype.name,
            state_dtype=last.dtype.name,
            starts=state is not None,
            decays=factors is not None,
            corrects=rates is not None,
            lanes=lanes,
        ),
        [q, *q.strides, key, *key.strides, v, *v.strides[:3], start, *start.strides[:3],
         decay, *(factors.strides if factors else fours), rate, *(rates.strides if rates else threes),
         out, *out.strides[:3], last, *last.strides[:3], scale, q.shape[1], heads,
         q.shape[2] // max(1, heads), keys, values, blocks],
        tiles=batch * heads * blocks,
        reads=[q, key, v, scale, *[view for view in (state, factors, rates) if view is not None]],
        writes=[out, last],
        scratch=4 * keys * lanes,
        flops=batch * q.shape[1] * keys * values * 2 * (2 * heads + q.shape[2]),
        label="LinearAttention",
    )  # fmt: skip
