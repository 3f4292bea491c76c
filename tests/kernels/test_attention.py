"""Attention against its plain definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen import cache
from ingot.codegen.machine import Machine
from ingot.errors import ShapeError, UnsupportedOperatorError
from ingot.kernels.attention import attention, definition
from tests.kernels.assembly import spills_in_loops
from tests.kernels.run import each_machine, machines, new, put, run_calls


def heads_last(rng: np.random.Generator, batch: int, heads: int, length: int, depth: int) -> np.ndarray:
    """[B, H, N, D] as a transposed view of [B, N, H * D], as projections give it."""
    return rng.standard_normal((batch, length, heads, depth)).astype(np.float32).transpose(0, 2, 1, 3)


def check(
    machine: Machine,
    sizes: tuple[int, int, int, int, int, int, int],
    mask: np.ndarray | None = None,
    causal_offset: int | None = None,
    softcap: float = 0.0,
    empty_is_zero: bool = True,
    out_dense: bool = False,
    keys_turned: bool = False,
    atol: float = 3e-6,
    keys_from: tuple[int, float] | None = None,
) -> None:
    """keys_from: from which key on all numbers of keys are this one."""
    batch, heads, key_heads, queries, keys, depth, depth_v = sizes
    rng = np.random.default_rng(0)
    q = heads_last(rng, batch, heads, queries, depth)
    k = heads_last(rng, batch, key_heads, keys, depth)
    v = heads_last(rng, batch, key_heads, keys, depth_v)
    if keys_from is not None:
        k[:, :, keys_from[0] :] = keys_from[1]
    if keys_turned:
        k = np.ascontiguousarray(k.swapaxes(2, 3)).swapaxes(2, 3)
    scale = depth**-0.5
    want = definition(q, k, v, mask, scale, causal_offset, softcap, empty_is_zero)
    strides = (
        None if out_dense else tuple(s // 4 for s in heads_last(rng, batch, heads, queries, depth_v).strides)
    )
    out = new(want.shape, strides=strides)
    calls = attention(
        put(q),
        put(k),
        put(v),
        None if mask is None else put(mask),
        out,
        scale,
        machine,
        causal_offset,
        softcap,
        empty_is_zero,
    )
    (got,) = run_calls(calls, out, machine=machine)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=atol)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_shapes_and_masks(data: st.DataObject) -> None:
    key_heads = data.draw(st.integers(1, 3))
    heads = key_heads * data.draw(st.sampled_from([1, 1, 2, 3]))
    batch = data.draw(st.integers(1, 2))
    queries, keys = data.draw(st.integers(0, 70)), data.draw(st.integers(0, 150))
    depth, depth_v = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    mask, rng = None, np.random.default_rng(1)
    kind = data.draw(st.sampled_from(["none", "float", "bool", "padding", "turned"]))
    if kind != "none":
        shape = [
            data.draw(st.sampled_from([1, batch])),
            data.draw(st.sampled_from([1, heads])),
            1 if kind == "padding" else queries,
            keys,
        ]
        mask = rng.standard_normal(shape).astype(np.float32)
        mask[rng.random(shape) < 0.3] = -np.inf
        if kind == "turned":
            mask = np.ascontiguousarray(mask.swapaxes(2, 3)).swapaxes(2, 3)
        if kind == "bool" or (kind == "padding" and data.draw(st.booleans())):
            mask = np.isfinite(mask)
    check(
        data.draw(st.sampled_from(machines())),
        (batch, heads, key_heads, queries, keys, depth, depth_v),
        mask,
        causal_offset=data.draw(st.sampled_from([None, None, 0, 5, -3])),
        softcap=data.draw(st.sampled_from([0.0, 0.0, 0.7])),
        empty_is_zero=data.draw(st.booleans()),
        out_dense=data.draw(st.booleans()),
        keys_turned=data.draw(st.booleans()),
    )


@each_machine
@pytest.mark.parametrize("queries", [1, 16, 49, 197])
def test_usual_layers(machine: Machine, queries: int) -> None:
    check(machine, (1, 2, 2, queries, queries, 64, 64))


@each_machine
def test_many_blocks_of_keys(machine: Machine) -> None:
    check(machine, (1, 1, 1, 33, 1500, 64, 128))


@each_machine
@pytest.mark.parametrize("forbidden", [None, (0, 0), (39, 299), (20, 599)])
def test_a_mask_that_forbids_next_to_nothing(machine: Machine, forbidden: tuple[int, int] | None) -> None:
    """Blocks of keys without anything forbidden take another way."""
    mask = np.ones((1, 1, 40, 600), bool)
    if forbidden is not None:
        mask[0, 0, forbidden[0], forbidden[1]] = False
    check(machine, (1, 2, 1, 40, 600, 16, 48), mask)


@each_machine
def test_a_running_maximum_that_grows_from_nothing(machine: Machine) -> None:
    keys = 600
    mask = np.linspace(-200, 200, keys, dtype=np.float32)[None, None, None].copy()
    mask[..., :200] = -np.inf
    check(machine, (1, 1, 1, 20, keys, 16, 16), mask, atol=1e-5)  # scores of 200 are known to 1e-5


def test_rows_without_a_key_are_zero_or_nan() -> None:
    mask = np.zeros((1, 1, 4, 8), bool)
    mask[0, 0, 1] = True
    for empty_is_zero in (True, False):
        check(machines()[0], (1, 1, 1, 4, 8, 8, 8), mask, empty_is_zero=empty_is_zero)


def test_non_finite_scores_reach_only_their_rows() -> None:
    mask = np.zeros((1, 1, 20, 40), np.float32)
    mask[0, 0, 3, 7], mask[0, 0, 18, 39] = np.nan, np.inf
    check(machines()[0], (1, 1, 1, 20, 40, 8, 8), mask)


def test_refusals() -> None:
    machine, half, single = machines()[0], new((1, 2, 3, 4), "float16"), new((1, 2, 3, 4))
    with pytest.raises(UnsupportedOperatorError, match="q is float16"):
        attention(half, single, single, None, single, 1.0, machine)
    with pytest.raises(ShapeError, match="2 query heads for 3 key heads"):
        attention(single, new((1, 3, 3, 4)), new((1, 3, 3, 4)), None, single, 1.0, machine)


@each_machine
@pytest.mark.parametrize("depth", [40, 64, 128])
def test_no_spills(machine: Machine, depth: int) -> None:
    """Both products stay in registers."""
    q = new((1, 4, 128, depth))
    (call,) = attention(q, q, q, None, q, 1.0, machine)
    assert (
        spills_in_loops(cache.native_assembly(call.kernel, machine), 18 if machine.registers > 16 else 13)
        == 0
    )


@each_machine
@pytest.mark.parametrize("depth", [3, 64, 100])
@pytest.mark.parametrize("kind", ["none", "float", "turned", "bool"])
def test_few_queries(machine: Machine, depth: int, kind: str) -> None:
    """As in generating text: many keys for one query, or a few."""
    for queries, keys, causal in ((1, 77, 40), (1, 3, None), (3, 200, None), (4, 33, 0)):
        mask = np.random.default_rng(2).standard_normal((2, 1, queries, keys)).astype(np.float32)
        mask[mask < -1] = -np.inf
        if kind == "turned":
            mask = np.ascontiguousarray(mask.swapaxes(2, 3)).swapaxes(2, 3)
        chosen = {"none": None, "bool": np.isfinite(mask)}.get(kind, mask)
        check(
            machine,
            (2, 6, 2, queries, keys, depth, depth + 1),
            chosen,
            causal,
            softcap=0.5 if causal else 0.0,
        )


@pytest.mark.parametrize("queries", [1, 4, 20, 100])
@pytest.mark.parametrize("rows", [1, None])
def test_what_a_truth_value_hides_may_be_anything(queries: int, rows: int | None) -> None:
    """Padding of a cache may hold NaN, and numbers whose products are infinite."""
    mask = np.ones((1, 1, rows or queries, 40), bool)
    mask[..., 30:] = False
    for machine in machines():
        for hidden in (np.nan, 3e38):
            check(machine, (1, 2, 2, queries, 40, 16, 16), mask, keys_from=(30, hidden))


@pytest.mark.parametrize("queries", [2, 20])
def test_a_row_masked_by_the_lowest_number_is_a_mean(queries: int) -> None:
    """Masks made with finfo.min are numbers, not -inf: a row of nothing else weighs all keys alike."""
    mask = np.zeros((1, 1, queries, 40), np.float32)
    mask[..., 30:] = mask[..., 1, :] = np.finfo(np.float32).min
    check(machines()[0], (1, 2, 2, queries, 40, 16, 16), mask)
