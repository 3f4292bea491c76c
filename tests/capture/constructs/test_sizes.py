"""Branches and numbers that sizes decide: nothing of the example's sizes stays in the model."""

# The constructs are written as people write them.

from __future__ import annotations

import contextlib
import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, check, lengths, random
from tests.capture.support import parity

case = Cases()
ROWS = [random(n, 3, seed=n) for n in (5, 0, 1, 2, 3, 4, 8, 9)]
SOME = lengths()
IMAGES = [random(2, 3, h, w) for h, w in ((6, 8), (5, 5), (7, 3), (9, 9), (4, 10))]


@case(*ROWS)
def branch_on_a_size(x: T) -> T:
    if x.shape[0] > 4:
        return x * 2
    return x - 1


@case(*ROWS)
def branch_on_the_last_bit(x: T) -> T:
    return x + 1 if x.shape[0] & 1 else x * 2


@case(*ROWS)
def bits_of_a_size(x: T) -> tuple[T, T]:
    n = x.shape[0]
    return x[: n & 3], x * ((n | 4) ^ 1) / ((-n & 6) + 1)


@case(*ROWS)
def bits_of_a_number(x: T) -> T:
    return x[: (int(x.sum().item()) & 1) + 1]


@case(*((random(n, 3), random(m)) for n, m in ((2, 4), (5, 1), (1, 1), (0, 2))))
def elements_of_shapes(x: T, y: T) -> list[T]:
    shapes = [v.shape for v in (x, y)]
    flat = torch.cat([v.reshape(-1) for v in (x, y)]).tanh()
    parts, total = [], 0
    for shape in shapes:
        end = total + shape.numel()
        parts.append(flat[total:end].view(*shape))
        total = end
    return parts


@case(*ROWS)
def branch_on_an_empty_tensor(x: T) -> T:
    if x.shape[0] == 0:
        return torch.full((1, 3), 7.0)
    return x * 2


@case(*ROWS)
def branch_on_size_one(x: T) -> T:
    if x.shape[0] == 1:
        return x.squeeze(0)[None] + 5
    return x


@case(*ROWS)
def branch_on_numel(x: T) -> T:
    return x + 1 if x.numel() else torch.zeros(2, 3)


@case(*ROWS)
def branch_on_len(x: T) -> T:
    if len(x) < 3:
        return torch.cat([x, x])
    return x[:3]


@case(*ROWS)
def pad_or_cut(x: T) -> T:
    n = x.shape[0]
    if n < 4:
        return torch.cat([x, torch.zeros(4 - n, 3)])
    return x[:4]


@case(*ROWS)
def odd_and_even(x: T) -> T:
    if x.shape[0] % 2 == 1:
        x = torch.cat([x, torch.zeros(1, 3)])
    return x.reshape(-1, 2, 3).sum(1)


@case(*IMAGES)
def portrait_or_landscape(x: T) -> T:
    h, w = x.shape[-2:]
    if h > w:
        return x.transpose(-1, -2)
    if h == w:
        return x * 2
    return x


@case(*IMAGES)
def pad_to_a_square(x: T) -> T:
    h, w = x.shape[-2:]
    side = max(h, w)
    return nn.functional.pad(x, (0, side - w, 0, side - h))


@case(*IMAGES)
def pad_to_a_multiple_if_needed(x: T) -> T:
    h, w = x.shape[-2:]
    pad_h, pad_w = (4 - h % 4) % 4, (4 - w % 4) % 4
    if pad_h > 0 or pad_w > 0:
        x = nn.functional.pad(x, (0, pad_w, 0, pad_h))
    return x


@case(*ROWS)
def ternary_on_a_size(x: T) -> T:
    k = 2 if x.size(0) > 3 else 3
    return x * k


@case(*ROWS)
def sizes_and_data(x: T) -> T:
    if x.shape[0] > 0 and x[0].sum() > 0:
        return x + 1
    return x - 1


@case(*ROWS)
def min_and_max_of_sizes(x: T) -> T:
    n = min(x.shape[0], 3)
    m = max(x.shape[0], 4)
    return torch.cat([x[:n], torch.ones(m - x.shape[0], 3)])


@case(*ROWS)
def chunks_of_a_loop(x: T) -> T:
    outs = [torch.zeros(1, 3)]
    for start in range(0, x.shape[0], 2):
        outs.append(x[start : start + 2].sum(0, keepdim=True))
    return torch.cat(outs)


@case(*ROWS)
def halving_a_size(x: T) -> T:
    n = x.shape[0]
    steps = 0
    while n > 1:
        n = n // 2
        steps += 1
    return x + steps


@case(*SOME)
def size_in_a_condition_of_a_while(x: T) -> T:
    y = x
    while y.shape[0] < 7:
        y = torch.cat([y, y])
    return y


@case(*SOME)
def arithmetic_with_sizes(x: T) -> T:
    n = x.shape[0]
    scale = (n * 2 + 1) / 4
    half = int(n * 0.5)
    return x[: half + 1] * scale + n**2


@case(*SOME)
class PositionsUpToTheLength(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 3)

    def forward(self, x: T) -> T:
        n = x.shape[0]
        if n > self.table.num_embeddings:
            raise ValueError("too long")
        return x + self.table(torch.arange(n))


@case(*SOME)
class CachedTable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table: T | None = None

    def forward(self, x: T) -> T:
        if self.table is None or self.table.shape[0] < x.shape[0]:
            self.table = torch.arange(x.shape[0] * 3).float().reshape(x.shape[0], 3)
        return x + self.table[: x.shape[0]]


@case(*SOME)
def mask_of_the_right_size(x: T) -> T:
    n = x.shape[0]
    mask = torch.ones(n, n).tril() if n > 1 else torch.zeros(1, 1)
    return mask @ x


QUERIES = [
    (random(2, n, 4, seed=n), random(2, m, 4, seed=m + 20))
    for n, m in ((3, 5), (1, 1), (1, 6), (4, 4), (2, 9))
]


@case(*QUERIES)
def causal_mask_behind_a_cache(q: T, k: T) -> T:
    n, m = q.shape[1], k.shape[1]
    mask = torch.tril(torch.ones(n, m, dtype=torch.bool), diagonal=m - n)
    return (q @ k.transpose(1, 2)).masked_fill(~mask, -1e4).softmax(-1)


@case(*QUERIES)
def triangles_by_sizes(q: T, k: T) -> tuple[T, ...]:
    n, m = q.shape[1], k.shape[1]
    a = q @ k.transpose(1, 2)
    added = a + torch.triu(torch.full((n, m), -1e4), m - n + 1)
    rows, columns = torch.tril_indices(n, m, m - n)
    return added, a.tril(m - n), torch.ones(n, m).tril_(m - n), a[:, rows, columns]


@case(*((random(2, n, 8, seed=n), random(m)) for n, m in ((3, 5), (4, 2), (1, 1), (1, 3))))
def mask_with_more_rows_than_queries(x: T, y: T) -> T:
    rows = x.shape[1] if x.shape[1] > 1 else y.shape[0]  # of one query as many as y has, which torch refuses
    q = x.unsqueeze(1)
    return F.scaled_dot_product_attention(q, q, q, torch.zeros(rows, x.shape[1]))


@case(*lengths())
def condition_as_a_key(x: T) -> T:
    return {True: x * 2, False: x * 3}[x.shape[0] > 4] + {False: 1, True: 2}.get(x.shape[0] > 2)


@case(*lengths())
def conditions_given_to_torch(x: T) -> T:
    long = x.shape[0] > 4
    kept = {"descending": long and x.shape[1] > 2}
    pooled = functools.partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=not long)
    return x.sort(1, **kept)[0] + pooled(x[None])[0] + x.sum(1, keepdim=True) * int(long)


@case(*lengths())
def word_that_a_size_chooses(x: T) -> T:
    way = "tanh" if x.shape[0] > 4 else "none"
    return F.gelu(x, approximate=way).cumsum(0)


@case(*lengths())
def rank_that_a_size_chooses(x: T) -> T:
    y = x if x.shape[0] > 4 else x[None]
    axis = 0 if x.shape[0] > 2 else 1
    return y.reshape(-1).cumsum(0) * y.dim() + x.softmax(axis).sum()


@case(*lengths())
def what_a_condition_is(x: T) -> T:
    long = x.shape[0] > 4
    return x * (2 if isinstance(long, bool) else 3) + ["a", "bc"].index("bc" if long else "a")


@case(*lengths())
def flag_that_torch_asks_in_python(x: T) -> T:
    window = torch.ones(4)
    signal, long = x.reshape(-1).repeat(4), x.shape[0] > 4
    return torch.stft(signal, 4, 2, window=window, center=long, return_complex=True).abs().sum(-1)


@case(
    *[
        (random(2, 3, n, 4, seed=n), random(2, 3, m, 4, seed=m + 9))
        for n, m in ((5, 5), (1, 1), (2, 6), (1, 3))
    ]
)
def causal_unless_single(q: T, k: T) -> T:
    causal = q.shape[2] > 1 and q.shape[1] == 3
    return F.scaled_dot_product_attention(q, k, k, is_causal=causal)


@case(
    *[
        (random(b, n, 4, seed=n), random(b, past, 4, seed=past), random(b, past, 4, seed=past + 1))
        for b, n, past in ((2, 3, 4), (1, 1, 0), (1, 1, 9), (2, 4, 1), (3, 2, 6), (1, 1, 5), (1, 1, 6))
    ]
)
def mask_unless_single_behind_a_window(x: T, keys: T, values: T) -> tuple[T, T, T]:
    k, v = torch.cat([keys, x], 1), torch.cat([values, x * 2], 1)
    if k.shape[1] > 6:
        k, v = k[:, -6:], v[:, -6:]
    n, m = x.shape[1], k.shape[1]
    mask = torch.ones(n, m, dtype=torch.bool).tril(m - n) if n > 1 else None
    return F.scaled_dot_product_attention(x, k, v, attn_mask=mask), k, v


@case(*ROWS)
def conditions_counted(x: T) -> T:
    a, b = x.shape[0] > 3, x.shape[0] % 2 == 0
    return x * (a + 2 * b - 0.5) + sum(n > 2 for n in x.shape) + 2**b + (-a) + ~b + (a // 1 + b % 2) / 2


@case(*ROWS)
def conditions_compared(x: T) -> T:
    a, b, c = x.shape[0] > 3, x.shape[0] % 2 == 0, x.shape[0] == 8
    if a == 1 and b != 1:
        x = x + 10
    if (a ^ b ^ c) and (a ^ True or a != b):
        x = x * 3
    return x - 1 if a > b else x * (3 & a) + (a <= b) * 2


@case(*ROWS)
def flipped_for_every_size(x: T) -> T:
    flip = False
    for k in (1, 3, 6):
        flip ^= x.shape[0] > k
    return x.flip(0) if flip else x


@case(*ROWS)
def a_list_of_the_call_by_size(x: T) -> T:
    shift, table = [3, 2], {"a": 3}
    kept = shift.copy()
    if x.shape[0] > 3:
        kept[0] = 0
        table["a"] = 1
    if x.shape[0] > 7:
        kept[1] = 0
    if sum(kept) > 2:
        x = x.roll(kept[0], 0)
    return x * kept[0] + kept[1] + table["a"]


@case(*ROWS)
def written_from_the_end(x: T) -> tuple[T, T]:
    m, n = torch.zeros_like(x), x.shape[0]
    m[-7:-2] = 1
    m[-5::2] += 2
    m[n - 4 :] += 4
    m[3 - n : 6 - n] *= 3
    part = m[-6:]
    part[-4:-1] += 5
    part[:, -2:] *= 2
    return m, part + x.shape[0]


@case(*ROWS)
def written_where_data_says(x: T) -> T:
    m, k = torch.zeros_like(x), int((x > 0).sum()) - 3
    m[k:-k] = 1
    m[-k:] += 2
    m[k : k + 4 : 2] += 4
    return x + m


@case(*[random(h, w, seed=h) for h, w in ((3, 4), (1, 1), (1, 5), (4, 1), (2, 2))], torch.zeros(1, 1))
def neighbours_that_are_there(x: T) -> T:
    y = x.clone()
    if x[0, 0] == 0:
        return y * 2
    for a, b in ((0, 1), (1, 0), (1, 1)):
        if a < x.shape[0] and b < x.shape[1] and x[a, b] > -0.5:
            y[a, b] = y[0, 0] + 1
    return y


@case(*[random(h, w, seed=h + w) for h, w in ((3, 4), (1, 1), (2, 1), (5, 2), (4, 3))])
def written_in_rounds_where_there_is_room(x: T) -> T:
    y = torch.zeros_like(x)
    for row in x:
        if row.sum() > 0 and x.shape[1] > 2:
            y[0, 2] += row[0]
    return y


@case(*ROWS)
def row_before_the_middle(x: T) -> T:
    m, n = torch.zeros_like(x), x.shape[0]
    if n:
        m[n // 2 - 1] = 1
        m[n // 2] += 3
    return x + m


SIGNS = [sign * random(n, 3, seed=n).abs() for n in (5, 7, 9, 6, 1) for sign in (1, -1)]


@case(*SIGNS)
def row_that_only_some_have(x: T) -> T:
    return x + 1 if x.shape[0] > 6 and x[6, 0] > 0 else x


@case(*SIGNS)
def row_that_some_lack(x: T) -> T:
    return x + 1 if x.shape[0] < 7 or x[6, 0] > 0 else x


PATCHES = torch.randn(31 * 31, 2, generator=torch.Generator().manual_seed(0))


def _positions(tokens: int, height: int, width: int) -> T:
    if tokens == PATCHES.shape[0] and height == width:
        return PATCHES
    rows = PATCHES.T.reshape(1, 2, 31, 31)
    stretched = F.interpolate(rows, size=(height // 4, width // 4), mode="bilinear")
    return stretched.flatten(2)[0].T


@case(*[random(4 * h, 4 * w, seed=h + w) for h, w in ((5, 9), (31, 31), (1, 961), (6, 6))])
def positions_as_they_are_for_one_size_of_image(x: T) -> T:
    """Which is none that is usual, nor near the example's: positions are stretched for all others."""
    tokens = F.avg_pool2d(x.unsqueeze(0), 4).flatten().unsqueeze(1)
    return tokens + _positions(tokens.shape[0], *x.shape)


@case.parametrize()
def test_sizes(case: Case) -> None:
    """Sizes that the example does not have, 0 and 1 among them."""
    check(case)


class Places:
    """Is looped over by its places, until one is outside."""

    def __init__(self, x: T) -> None:
        self.x = x

    def __getitem__(self, place: int) -> T:
        return self.x[place]


def to_the_last_place(x: T) -> T:
    total = torch.zeros(3)
    for row in Places(x):  # pyright: ignore[reportGeneralTypeIssues]
        total = total * 0.5 + row
    return total


def unless_it_is_suppressed(x: T) -> T:
    with contextlib.suppress(IndexError):
        return x[6] * 2
    return x.sum(0)


def test_what_an_operator_refuses_of_the_example_is_checked() -> None:
    """A model that goes on all the same has another way for other sizes."""
    rows = [(random(n, 3, seed=n),) for n in (5, 7, 9)]
    captured = check(Case("to_the_last_place", lambda: to_the_last_place, rows), refuses=True)
    (held,) = [a.what for a in captured.assumptions if a.kind == "branch"]
    assert held.startswith("x_batch is at most"), held


def where_it_is_caught(x: T) -> T:
    try:
        return x[6]
    except IndexError:
        return x.sum(0)


def until_it_is_caught(x: T) -> T:
    total, place = torch.zeros(3), 0
    try:
        while True:
            total, place = total + x[place], place + 1
    except IndexError:
        return total


@pytest.mark.parametrize("function", [where_it_is_caught, until_it_is_caught, unless_it_is_suppressed])
def test_places_outside_of_the_example_that_a_try_catches_are_refused(function: Any) -> None:
    """No ONNX model can catch errors; of numbers of axes it has none to catch."""
    with pytest.raises(DataDependentError, match=r"index . is out of bounds.*Ask for the sizes with an `if`"):
        capture(function, (random(5, 3),))


def too_many_axes(x: T) -> T:
    try:
        return x[0, 0, 0]
    except IndexError:
        return x + 1


def test_what_no_size_decides_is_caught() -> None:
    """Python's own `except` takes it."""
    check(Case("too_many_axes", lambda: too_many_axes, [(random(n, 3),) for n in (5, 2)]))


def test_what_torch_refuses_in_its_python_is_not_caught() -> None:
    """An operator whose C++ wants numbers for sizes, and whose Python then refuses the example's."""

    def cell(x: T, w: T) -> T:
        try:
            return torch.gru_cell(x, x, w, w)
        except RuntimeError:
            return x * 2

    with pytest.raises(DataDependentError, match=r"(?s)This fails for some sizes \(input has inconsistent"):
        capture(cell, (random(2, 3), random(9, 4)))


@pytest.mark.parametrize("caught", [False, True])
def test_as_many_tokens_as_a_filter_has_taps_may_be_one(caught: bool) -> None:
    """The example's tokens, and those that are kept for the filter, are four each by chance: one token is
    filtered with the kept ones, whether a wrapper of the model's catches errors or not.
    """
    taps = random(3, 1, 4)

    def filtered(x: T, kept: T) -> T:
        if x.shape[-1] == 1:
            return F.conv1d(torch.cat([kept, x], -1), taps, groups=3)[..., -1:] * 2
        return x + kept.mean(-1, keepdim=True)

    def wrapped(x: T, kept: T) -> T:
        try:
            return filtered(x, kept)
        except RuntimeError as error:
            raise ValueError("too few of both") from error

    inputs = [(random(2, 3, n), random(2, 3, m)) for n, m in ((4, 4), (1, 4), (7, 4), (1, 3), (2, 5))]
    captured = parity(wrapped if caught else filtered, *inputs)
    assert not [a for a in captured.assumptions if a.kind == "branch"], "one side is left out"
