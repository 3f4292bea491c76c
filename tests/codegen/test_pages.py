"""Memory at cache lines, on huge pages where there is much of it, and gone when nothing lies in it."""

from __future__ import annotations

import gc
import mmap
import weakref
from itertools import pairwise

import numpy as np
import pytest

from ingot.codegen import pages
from ingot.codegen.pages import Pool, Recycled, aligned, lent, passing

SIZES = [0, 1, 63, 64, 4097, (1 << 20) - 1, 1 << 20, (3 << 20) + 5, (40 << 20) + 1]


def start(array: np.ndarray) -> int:
    return array.ctypes.data


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_every_byte_is_there_and_aligned(size: int, asks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_CAN_ASK", asks and pages._CAN_ASK)
    for found in (aligned(size), lent(size), Pool().empty(size)):
        assert found.shape == (size,)
        assert size == 0 or start(found) % 64 == 0
        found[:] = 7
        assert (found == 7).all()


def test_a_kernel_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    if not pages._CAN_ASK:
        pytest.skip("this system has no huge pages to ask for")
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 1 << 20)  # no advice: EINVAL, as such a kernel says
    found = aligned(3 << 20)
    found[:] = 7
    assert (found == 7).all()


def test_pieces_of_a_pool_lie_apart_from_each_other() -> None:
    pool = Pool()
    pieces = [pool.empty(size) for size in [*SIZES, *reversed(SIZES)]]
    for number, piece in enumerate(pieces):
        piece[:] = number
    assert all((piece == number).all() for number, piece in enumerate(pieces))


def base(array: np.ndarray) -> object:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def test_small_pieces_share_a_chunk_once_there_are_many() -> None:
    pool = Pool()
    pool.empty(1 << 20)
    first, second = pool.empty(1000), pool.empty(1000)
    if not pages._CAN_ASK:
        pytest.skip("this system has no huge pages to ask for")
    assert start(second) == start(first) + 1024


def test_a_chunk_is_gone_with_what_lies_in_it() -> None:
    pool = Pool()
    piece = pool.empty(2 << 20)
    chunk = weakref.ref(base(piece))
    del pool
    gc.collect()
    assert chunk() is not None
    piece[:] = 1
    del piece
    gc.collect()
    assert chunk() is None, "memory of a pool outlives all that lay in it"


def test_who_lends() -> None:
    pool = Pool()
    pool.empty(1 << 20)
    with pool.lending():
        pieces = [lent(100)]
        with passing():
            apart = lent(100)
        pieces.append(lent(100))
    pieces.append(pool.empty(100))
    gaps = [start(b) - start(a) for a, b in pairwise(pieces)]
    if pages._CAN_ASK:
        assert gaps == [128, 128]
    assert base(apart) is not base(pieces[0])


def test_large_arrays_lie_where_nobody_holds_one_any_more() -> None:
    recycled, dtype = Recycled(), np.dtype(np.float32)
    first = recycled.empty((300, 400), dtype)
    address, part = first.ctypes.data, first[10:20].T
    del first  # a view of it is still there
    second = recycled.empty((300, 400), dtype)
    assert second.ctypes.data != address
    second[...] = 1
    part[...] = 2
    assert (second == 1).all()
    del part
    third = recycled.empty((400, 300), dtype)
    assert third.ctypes.data == address, "memory of the same size that nobody holds is taken again"
    assert third.flags.writeable
    assert third.shape == (400, 300)
    del second, third
    recycled.empty((7,), dtype)
    assert len(recycled._pieces) == 1, "what is idle is given back when another size is asked for"
