"""Attention on tile registers against its plain definition, and against the kernel of vectors where values
are not for tile registers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import host
from ingot.errors import IngotError
from ingot.kernels import attention as kernels
from ingot.kernels.attention import attention, definition
from ingot.kernels.call import Call
from tests.kernels.run import new, put, run_calls
from tests.kernels.test_attention import heads_last
from tests.kernels.test_spills import stores

try:
    machine = host("amx")
except IngotError as error:
    pytest.skip(str(error), allow_module_level=True)

# Of the largest value; a float32 sum of products of a head's elements errs by as much.
TOLERANCE = 2e-6


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tile registers take what they would be slower with, too."""
    monkeypatch.setattr(kernels, "_direct_cycles", lambda *_: np.inf)


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks of keys as long as one register's."""
    monkeypatch.setattr(kernels, "_KEY_BLOCK", 64)
    yield


class Case:
    """Random operands of given sizes, and what is made of them."""

    def __init__(self, *sizes: int, spread: float = 1.0, seed: int = 0) -> None:
        self.batch, self.heads, key_heads, self.queries, keys, self.depth, self.depth_v = sizes
        rng = np.random.default_rng(seed)
        self.q = heads_last(rng, self.batch, self.heads, self.queries, self.depth) * np.float32(spread)
        self.k = heads_last(rng, self.batch, key_heads, keys, self.depth)
        self.v = heads_last(rng, self.batch, key_heads, keys, self.depth_v)
        self.mask: np.ndarray | None = None
        self.causal: int | None = None
        self.softcap = 0.0
        self.zero = True

    def call(self, amx: bool = True) -> tuple[Call, np.ndarray]:
        """The call and what it computes."""
        shape = (self.batch, self.queries, self.heads, self.depth_v)
        out = new(shape).transpose((0, 2, 1, 3))
        mask = None if self.mask is None else put(self.mask)
        (call,) = attention(
            put(self.q), put(self.k), put(self.v), mask, out, self.depth**-0.5, machine,
            self.causal, self.softcap, self.zero, amx,
        )  # fmt: skip
        return call, run_calls(call, out, machine=machine)[0]

    def check(self, tolerance: float = TOLERANCE) -> None:
        """Hold the kernel on tile registers to the definition."""
        call, found = self.call()
        assert call.kernel.generator == "kernels.sliced_attention.attend_sliced"
        scale = self.depth**-0.5
        wanted = definition(self.q, self.k, self.v, self.mask, scale, self.causal, self.softcap, self.zero)
        assert np.array_equal(np.isnan(found), np.isnan(wanted))
        error = np.abs(found - wanted)[~np.isnan(wanted)].max(initial=0)
        assert error <= tolerance * np.abs(self.v).max(), f"differs by {error:.1e}"

    def check_left_to_vectors(self) -> None:
        """Hold it to the kernel of vectors: the same NaN, infinities and numbers."""
        found, wanted = self.call()[1], self.call(amx=False)[1]
        largest = np.abs(wanted[np.isfinite(wanted)]).max()
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=3e-6 * largest)


def _mask(data: st.DataObject, case: Case) -> np.ndarray | None:
    kind = data.draw(st.sampled_from(["none", "none", "float", "bool", "padding", "turned"]))
    if kind == "none":
        return None
    keys = case.k.shape[2]
    shape = [
        data.draw(st.sampled_from([1, case.batch])),
        data.draw(st.sampled_from([1, case.heads])),
        1 if kind == "padding" else case.queries,
        keys,
    ]
    rng = np.random.default_rng(1)
    mask = rng.standard_normal(shape).astype(np.float32)
    mask[rng.random(shape) < 0.3] = -np.inf
    if kind == "turned":
        mask = np.ascontiguousarray(mask.swapaxes(2, 3)).swapaxes(2, 3)
    if kind == "bool" or (kind == "padding" and data.draw(st.booleans())):
        mask = np.isfinite(mask)
    return mask


_RANDOM = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.usefixtures("always")
@_RANDOM
@given(data=st.data())
def test_any_shape_and_mask(data: st.DataObject) -> None:
    """Odd lengths and sizes, every kind of mask, causal or not, heads that share keys."""
    key_heads = data.draw(st.integers(1, 2))
    case = Case(
        data.draw(st.integers(1, 2)),
        key_heads * data.draw(st.sampled_from([1, 1, 3])),
        key_heads,
        data.draw(st.integers(5, 100)),
        data.draw(st.integers(1, 300)),
        data.draw(st.sampled_from([1, 8, 20, 32, 40, 64, 72, 80, 128])),
        data.draw(st.sampled_from([1, 8, 16, 40, 64, 100])),
    )
    case.mask = _mask(data, case)
    case.causal = data.draw(st.sampled_from([None, None, 0, 5, -3]))
    case.softcap = data.draw(st.sampled_from([0.0, 0.0, 0.7]))
    case.zero = data.draw(st.booleans())
    case.check()


@pytest.mark.usefixtures("always", "short_blocks")
@_RANDOM
@given(data=st.data())
def test_many_blocks_of_keys(data: st.DataObject) -> None:
    """Maxima and sums that run through blocks of keys."""
    case = Case(1, 2, 1, data.draw(st.integers(5, 70)), data.draw(st.integers(65, 400)), 32, 40, spread=3.0)
    case.mask = _mask(data, case)
    case.causal = data.draw(st.sampled_from([None, None, 0, -3]))
    case.zero = data.draw(st.booleans())
    case.check(tolerance=5e-6)


@pytest.mark.parametrize("tokens", [128, 197, 325, 1100])
def test_usual_layers(tokens: int) -> None:
    """A few heads of 64 elements; parts of a head's queries where heads are few."""
    Case(1, 2, 2, tokens, tokens, 64, 64).check(tolerance=1e-6)


@pytest.mark.usefixtures("always")
def test_scores_that_decide() -> None:
    """One weight of nearly 1, and scores that lie far apart."""
    Case(1, 1, 1, 40, 200, 64, 64, spread=100.0).check(tolerance=3e-5)  # scores of 400 are known to 3e-5


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("which", ["q", "k", "v"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
def test_what_is_not_finite_goes_to_vectors(which: str, value: float) -> None:
    """NaN and infinities are where the kernel of vectors has them; so are numbers too large for a scale."""
    case = Case(1, 2, 2, 70, 90, 32, 32)
    getattr(case, which)[0, 1, 33, 5] = value
    case.causal = 0
    case.check_left_to_vectors()


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("mask", ["none", "rows", "strided", "bool"])
def test_vectors_see_the_same_rows_and_masks(mask: str) -> None:
    """Blocks of queries that vectors compute have their own rows of the mask."""
    case = Case(2, 4, 2, 75, 50, 24, 24)
    rng = np.random.default_rng(5)
    values = rng.standard_normal((2, 1, 75, 50)).astype(np.float32)
    chosen = {
        "none": None, "rows": values, "bool": values > -1,
        "strided": np.ascontiguousarray(values.swapaxes(2, 3)).swapaxes(2, 3),
    }  # fmt: skip
    case.mask = chosen[mask]
    case.v[0, 0, 40, 3] = np.inf
    case.check_left_to_vectors()


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("power", [-149, -140, -110, -60, 30, 110])
def test_sizes_of_values(power: int) -> None:
    """Columns of any size keep their precision; denormal ones are for vectors."""
    case = Case(1, 1, 1, 40, 70, 32, 33)
    case.v[..., ::2] = np.ldexp(case.v[..., ::2], power)
    case.v[..., 4] = 0
    _, found = case.call()
    wanted = definition(case.q, case.k, case.v, None, 32**-0.5).astype(np.float32)
    for column in range(33):
        largest = np.abs(case.v[..., column]).max()
        error = np.abs(found[..., column].astype(np.float64) - wanted[..., column]).max()
        assert error <= TOLERANCE * largest + 4 * np.finfo(np.float32).smallest_subnormal


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("power", [-149, -110, -60, -20])
def test_small_queries_and_keys(power: int) -> None:
    """Scores near 0 weigh all keys alike, also beside masked ones."""
    for which in ("q", "k"):
        case = Case(1, 2, 1, 40, 70, 32, 32)
        array = getattr(case, which)
        array[:, :, ::3] = np.ldexp(array[:, :, ::3], power)
        array[:, :, 7] = 0
        case.causal = 10
        case.check()


@pytest.mark.usefixtures("always")
def test_masks_that_are_no_numbers() -> None:
    """NaN and +inf in a mask reach only their rows; finfo.min masks a row like any number."""
    case = Case(1, 2, 2, 40, 100, 16, 16)
    mask = np.zeros((1, 1, 40, 100), np.float32)
    mask[0, 0, 3, 7], mask[0, 0, 18, 99] = np.nan, np.inf
    mask[..., 60:80] = mask[..., 25, :] = np.finfo(np.float32).min
    mask[..., 30, :] = -np.inf
    case.mask = mask
    for case.zero in (True, False):
        case.check()


def test_the_choice() -> None:
    """Long rows go to tile registers, where they are allowed; short ones to vectors."""

    def chosen(tokens: int, size: int, amx: bool) -> str:
        q = new((1, 4, tokens, size))
        (call,) = attention(q, q, q, None, q, 0.1, machine, amx=amx)
        return call.kernel.generator.rpartition(".")[2]

    assert [chosen(n, 64, True) for n in (4, 16, 128, 197, 1500)] == [
        "attend_row",
        "attend",
        *["attend_sliced"] * 3,
    ]
    assert chosen(49, 32, True) == "attend"
    assert chosen(197, 64, False) == "attend"


@pytest.mark.parametrize("depth", [40, 64])
def test_no_spills(depth: int) -> None:
    """Scores and weights are computed in registers."""
    q = new((1, 12, 256, depth))
    (call,) = attention(q, q, q, None, q, 0.1, machine, amx=True)
    assert stores(call.kernel, machine) == 0
