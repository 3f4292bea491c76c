"""Python numbers that data decides: `.item()`, `int()`, `float()`, `.tolist()`, in shapes, slices and
arithmetic.
"""

from __future__ import annotations

import math

import torch

from tests.capture.constructs.support import Case, Cases, T, both_signs, check, positive, random

case = Cases()
SIGNS = both_signs()
COUNTS = [torch.tensor([n, 9, 2, 5, 4]) for n in (3, 0, 1, 5)]


@case(*SIGNS)
def item_in_arithmetic(x: T) -> T:
    return x * x.max().item() + 1


@case(*SIGNS)
def item_as_output(x: T) -> tuple[T, float]:
    s = x.sum().item()
    return x, s * 2


ENDS = (0, 1, -1, 57, -57, 100, 105, -105, 2**63 - 1, -(2**63) + 1, -(2**63))


@case(*(torch.tensor([n, m]) for n in ENDS for m in (7, -10)))
def divided_by_either_sign(x: T) -> tuple[int, ...]:
    n, m = x.tolist()
    q, r = divmod(n // 10, -10)
    return q, r, n // 3, n // -10, n % -10, n // m, n % m, n // 10 // m, n // m // 10, (n // 10 >> 2) // -3


@case(*(random(n, 2) for n in (1, 2, 9, 10, 11, 35, 100, 105)))
def sizes_divided_by_negative_numbers(x: T) -> tuple[int, ...]:
    n = x.shape[0]
    return n // -10, n % -10, n // 10 // -10, -n // 10 // -2, (-n - 20) % -10, *divmod(n // 3, -10)


@case(*COUNTS)
def item_in_slices(x: T) -> tuple[T, T]:
    n = x[0].item()
    return x[:n] + 1, x[n:]


@case(*COUNTS)
def negative_item_in_slices(x: T) -> T:
    n = x[0].item()
    return x[-n:]


@case(*COUNTS)
def tensor_in_slices(x: T) -> T:
    return x[: x[0]] * 2


@case(*COUNTS)
def item_as_size(x: T) -> T:
    n = int(x[0])
    return torch.zeros(n, 2) + torch.ones(n, 1)


@case(*COUNTS)
def item_in_arange(x: T) -> T:
    return torch.arange(x[0].item()) * 2


@case(*COUNTS)
def item_in_expand_and_view(x: T) -> T:
    n = int(x[0]) + 1
    return x.expand(n, 5).reshape(n * 5)


@case(*COUNTS)
def item_as_index(x: T) -> T:
    return x[x[0].item() - 1] + x[x[2].item()]


@case(*SIGNS)
def int_of_a_float(x: T) -> T:
    return x * int(x.sum()) + int(x[0, 0] * 10)


@case(*SIGNS)
def float_of_an_int(x: T) -> T:
    return x * float((x > 0).sum())


@case(*SIGNS)
def division_and_remainder(x: T) -> T:
    n = int((x * 10).sum())
    return x + n // 4 + n % 4


@case(*SIGNS)
def true_division(x: T) -> T:
    n = (x > 0).sum().item()
    return x * (n / 4)


@case(*SIGNS)
def negation_and_power(x: T) -> T:
    n = int((x > 0).sum())
    return x * (-n) + n**2


@case(*(torch.tensor(v) for v in ([25], [15], [-15], [-25], [14], [16], [-4], [-6], [150], [249], [0, 5])))
def round_to_tens(x: T) -> T:
    n = int(x.sum())
    return torch.stack([x + round(n, -1), x + round(n, -2)])


@case(*(torch.zeros(n) for n in (5, 15, 25, 4, 6, 0, 49, 50, 150)))
def round_a_size_to_tens(x: T) -> T:
    return x + round(x.shape[0], -1) + round(x.shape[0] - 30, -2)


@case(*SIGNS)
def round_a_number(x: T) -> T:
    return x + round(x.sum().item())


@case(*SIGNS)
def abs_of_a_number(x: T) -> T:
    return x + abs(x.sum().item()) + abs(int(x.sum()))


@case(*SIGNS)
def min_and_max_of_numbers(x: T) -> T:
    n = int((x > 0).sum())
    return x[: max(n, 1)] * min(n, 2)


@case(*SIGNS)
def min_and_max_of_tensors(x: T) -> T:
    return max(x.sum(), x.mean()) * x + min(x.sum(), x.mean())


@case(*SIGNS)
def max_with_a_number(x: T) -> T:
    return x / max(x.sum().item(), 1.0)


@case(*SIGNS)
def square_root_of_a_number(x: T) -> T:
    return x / math.sqrt(abs(x.sum().item()))


@case(*SIGNS)
def floor_and_ceil_of_a_number(x: T) -> T:
    s = x.sum().item()
    return x + math.floor(s) + 2 * math.ceil(s)


@case(*SIGNS)
def branch_on_a_number(x: T) -> T:
    s = x.sum().item()
    if s > 0:
        return x * s
    return x - s


@case(*SIGNS)
def branch_on_an_int(x: T) -> T:
    n = int((x > 0).sum())
    if n == 0:
        return x
    if n % 2 == 0:
        return x * n
    return x + n


@case(*SIGNS)
def number_from_a_branch(x: T) -> T:
    k = 2 if x.sum() > 0 else 3
    return x.repeat(k, 1)


@case(*SIGNS)
def float_from_a_branch(x: T) -> T:
    k = 0.5 if x.sum() > 0 else 2.0
    return x * k


@case(*SIGNS)
def tolist_of_a_row(x: T) -> T:
    a, b, c = x[0].tolist()
    return x * a + b - c


@case(*SIGNS)
def sum_of_tolist(x: T) -> T:
    return x + sum(x[0].tolist())


@case((random(9, 3), torch.tensor([2, 3, 4])), (random(9, 3), torch.tensor([1, 0, 8])))
def sizes_from_tolist(x: T, n: T) -> list[T]:
    a, b, c = n.tolist()
    return [x[:a], x[a : a + b], x[a + b : a + b + c]]


@case(
    (random(9, 3), torch.tensor([2, 3, 4])),
    (random(9, 3), torch.tensor([4, 5])),
    (random(9, 3), torch.tensor([9])),
)
def loop_over_tolist(x: T, n: T) -> T:
    start = 0
    out = torch.zeros(3)
    for length in n.tolist():
        out = out * 2 + x[start : start + length].sum(0)
        start += length
    return out


@case(*SIGNS)
def number_as_a_dict_key(x: T) -> T:
    return x * {0: 1.0, 1: 2.0}[int(x.sum() > 0)]


@case(*SIGNS)
def number_as_a_list_index(x: T) -> T:
    return x * [1.0, 2.0][int(x.sum() > 0)]


@case(*SIGNS)
def tensor_as_a_list_index(x: T) -> T:
    ways = [x, x * 2, -x]
    return ways[(x.sum() > 0).long()]


@case(*SIGNS)
def number_in_a_tuple(x: T) -> T:
    n = int((x > 0).sum())
    return x * 2 if n in (0, 3, 27) else x


@case(*SIGNS)
def torch_tensor_of_numbers(x: T) -> T:
    n = int((x > 0).sum())
    return torch.tensor([n, 2, n * 3]) + torch.tensor(n)


@case(*SIGNS)
def full_of_a_number(x: T) -> T:
    return torch.full((2, 3), x.sum().item()) + torch.full_like(x[:1], x.max().item())


@case(*SIGNS)
def any_and_all_of_a_generator(x: T) -> T:
    if any(v > 0 for v in (x.sum(), x.mean(), x.max())):
        x = x + 1
    if all(v > 0 for v in [x.sum(), x.min()]):
        x = x * 2
    return x


@case(*SIGNS)
def masked_rows(x: T) -> tuple[T, T]:
    p = x[x > 0]
    q = x[x[:, 0] < 0]
    if p.shape[0] > 3:
        p = p[:3]
    return p * 2, q.sum()


@case(*SIGNS)
def size_of_masked_rows(x: T) -> T:
    p = x[x[:, 0] > 0]
    return torch.zeros(p.shape[0], 2) + p.numel()


@case(*SIGNS)
def nonzero_and_its_length(x: T) -> T:
    where = (x > 0.5).nonzero()
    n = len(where)
    return x * n


@case(*[positive(4, 6) * k for k in (1, 0.2, 3)])
def crop_to_a_box(x: T) -> T:
    h = int(x[0, 0].clamp(1, 3))
    w = int(x[1, 1].clamp(1, 5))
    return x[:h, :w].sum() + x[h:, w:].sum()


@case(
    (random(2, 6, 3), torch.tensor([4, 6])),
    (random(2, 6, 3), torch.tensor([2, 1])),
    (random(3, 8, 3), torch.tensor([1, 8, 3])),
)
def trim_to_the_longest(x: T, lengths: T) -> T:
    longest = int(lengths.max())
    x = x[:, :longest]
    mask = torch.arange(longest)[None] < lengths[:, None]
    return (x * mask[..., None]).sum(1)


@case(*SIGNS)
def int_or_float(x: T) -> T:
    k = 2
    if x.sum() < 0:
        k = 0.5
    return x * k


@case(*SIGNS)
def int_or_float_divided(x: T) -> T:
    k = 3 if x.sum() > 0 else 0.5
    return x + k / 2


@case(*SIGNS)
def int_or_float_floor(x: T) -> T:
    k = 3 if x.sum() > 0 else 2.5
    return x + k // 2


@case(*SIGNS)
def int_or_float_item(x: T) -> T:
    k = x.shape[0] if x.sum() > 0 else x.sum().item()
    return x * k


@case(*SIGNS)
def bool_or_int(x: T) -> T:
    k = True if x.sum() > 0 else 3
    return x * k


@case(*SIGNS)
def int_or_float_of_two_branches(x: T) -> T:
    k = 3 if x.sum() > 0 else 2.5
    k = k if x[0, 0] > 0.3 else 7.5
    return x * k + torch.full((3,), k / 2)


@case(*SIGNS)
def int_or_float_with_a_dtype(x: T) -> T:
    k = 3 if x.sum() > 0 else 2.5
    return torch.full((3,), k, dtype=torch.float32) + x


@case(*SIGNS)
def conditions_of_data_counted(x: T) -> tuple[T, bool, int, bool]:
    a, b = bool(x.sum() > 0), (x[0, 1] > 0.3).item()
    return x * (a + 1) - b * 2.5 + (a == 1), a ^ b, a + b, a < b


@case(*SIGNS)
def parity_of_data(x: T) -> T:
    flip = False
    for row in x:
        flip ^= bool(row[0] > 0)
    return x.flip(0) if flip != (x.shape[0] > 2) else x


@case(*[(random(b, 4, 3, 5), torch.tensor([n, 1])) for b, n in ((2, 2), (1, 1), (3, 3), (2, 1))])
def strides_with_a_number_of_data(x: T, counts: T) -> T:
    n = counts.max().item()
    batch, heads, _, width = x.shape
    y = (x[:, :, :n] + 1).view(batch, heads, n, width).transpose(1, 2)
    y[:, 0] = -1.0
    y = y.transpose(1, 2).masked_fill(x[:, :1, :1] > 0, 2.0)  # laid out by comparing strides
    return y.view(batch * heads, n, width)


@case.parametrize()
def test_scalars(case: Case) -> None:
    """Numbers follow the data."""
    check(case)
