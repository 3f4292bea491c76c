"""Sizes that go through tensors, checks and layouts stay sizes, and become no numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.export import Dim

import ingot
from ingot.capture.attempt import capture
from tests.capture.support import OrtError, op_types, ort_runner, parity

R = torch.randn
T = torch.Tensor


def test_a_quotient_of_sizes_is_a_size_again() -> None:
    """`torch.div` of sizes is a tensor; a shape, a bound and a number of turns are made of it."""

    class M(torch.nn.Module):
        def forward(self, x: T) -> T:
            n = torch.div(x.size(1), 4, rounding_mode="trunc")
            y = x.new_zeros(x.size(0), n + 1)
            y[:, 1:] = x[:, : n * 4].reshape(x.size(0), n, 4).sum(-1)
            for i in range(n):
                y[:, 0] += x[:, i]
            return y

    captured = parity(M(), (R(2, 12),), (R(3, 9),), (R(1, 4),), (R(2, 31),))
    assert not captured.recording.env.fixed


def test_arithmetic_on_a_tensor_of_a_size_is_followed() -> None:
    """Windows counted as audio models do; a number made of it is the size, and equals what it equals."""

    class M(torch.nn.Module):
        def forward(self, x: T) -> T:
            n = torch.tensor(x.shape[-1])
            for kernel, stride in ((10, 5), (3, 2)):
                n = torch.div(n - kernel, stride, rounding_mode="floor") + 1
            frames = x.unfold(-1, 10, 5)[..., 0].unfold(-1, 3, 2)[..., 0]
            return frames + torch.arange(int(n)) + torch.ones(int(n.clone().view(1)[0]))

    parity(M(), (R(2, 100),), (R(3, 61),), (R(1, 1000),))


def test_towards_zero_is_no_floor_where_numbers_may_be_negative() -> None:
    """(3 - n) / 2 towards zero, and rounded down, for sizes on both sides of 3."""

    class M(torch.nn.Module):
        def forward(self, x: T) -> T:
            t = torch.div(3 - x.shape[0], 2, rounding_mode="trunc")
            f = torch.div(3 - x.shape[0], 2, rounding_mode="floor")
            return x + t.item() + 10 * f.item()

    parity(M(), (R(8, 2),), (R(2, 2),), (R(3, 2),), (R(6, 2),))


def test_what_follows_from_other_bounds_is_neither_checked_nor_listed() -> None:
    """A table is cut at a length and spread over as many: that the length is in it says all."""
    table = torch.arange(512)[None]

    def embedded(x: T) -> T:
        return x + table[:, : x.shape[1]].expand(x.shape[0], x.shape[1])

    captured = parity(embedded, (R(2, 9),), (R(3, 512),), (R(1, 1),))
    assert [a.what for a in captured.assumptions] == ["x_dim1 is at most 512"]
    assert op_types(captured).count("Where") == 1, "one check"
    with pytest.raises(OrtError):
        ort_runner(captured.model)({"x": R(2, 513).numpy()}, captured.output_names)


def test_sizes_of_feature_maps_follow_from_the_images() -> None:
    """Only what the first layer wants is left of what each asks; nothing where the declared range says so."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, stride=2, padding=1), torch.nn.MaxPool2d(3, 2, 1), torch.nn.Conv2d(4, 4, 1)
    )
    captured = capture(net, (R(2, 3, 32, 32),))
    said = [a.what for a in captured.assumptions if a.kind != "narrowed"]
    assert said == ["input_dim2 + 2 is at least 3", "input_dim3 + 2 is at least 3"]
    h, w = (Dim(n, min=16, max=64) for n in "hw")
    captured = capture(net, (R(2, 3, 32, 32),), dynamic_shapes=({0: "b", 2: h, 3: w},))
    assert {a.kind for a in captured.assumptions} == {"declared"}


def test_a_slice_around_a_middle_is_as_long_as_what_it_is_added_to() -> None:
    """Relative positions: how far the slice can reach follows from the check before it."""

    class M(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Parameter(R(1, 41, 3))

        def forward(self, x: T) -> T:
            if self.table.size(1) < 2 * x.size(1) - 1:
                raise ValueError("too long")
            middle = self.table.size(1) // 2
            around = self.table[:, middle - x.size(1) + 1 : middle + x.size(1)]
            return (x @ around.transpose(1, 2))[..., : x.size(1)].softmax(-1) @ x

    captured = parity(M(), (R(2, 7, 3),), (R(1, 21, 3),), (R(3, 1, 3),), (R(2, 2, 3),))
    assert not {"x_dim1", "x_batch"} & {captured.recording.env.names[s] for s in captured.recording.env.fixed}


def test_strides_that_are_read_and_used_belong_together() -> None:
    """Overlapping windows by as_strided, where heads were taken apart: torch keeps a view, whose strides are
    others than those of the export, and the model computes with what it reads.
    """

    class M(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = torch.nn.Linear(8, 8)

        def forward(self, x: T) -> T:
            length, batch, _ = x.shape
            h = self.project(x).view(length, batch, 2, 4).transpose(0, 1)
            h = h.transpose(1, 2).reshape(batch * 2, length, 4)
            h = h.view(batch * 2, length // 4, 4, 4)
            size, stride = list(h.size()), list(h.stride())
            size[1], stride[1] = size[1] * 2 - 1, stride[1] // 2
            return h.as_strided(size=size, stride=stride) * 2

    parity(M(), (R(16, 2, 8),), (R(8, 3, 8),), (R(12, 1, 8),))


def test_narrow_takes_tensors_for_both_bounds() -> None:
    """Where it starts and how much it keeps, both of data."""

    class M(torch.nn.Module):
        def forward(self, x: T, n: T) -> T:
            kept = n.max()
            return torch.cat([x.narrow(-1, 0, kept), x.narrow(1, kept, x.size(1) - kept) * 2], 1)

    n = torch.tensor([1, 3, 2])
    parity(M(), (R(2, 6), n), (R(3, 9), n + 2), (R(1, 5), n - 1))


def test_sizes_are_compared_with_tuples_inside_a_choice() -> None:
    """`a is None or a.size()[:2] == (batch, length)`, where the length is data's."""

    class M(torch.nn.Module):
        def forward(self, x: T, n: T) -> T:
            y = x[: n.max()]
            assert y is None or y.size()[:1] == (int(n.max()),)
            return y * 2

    n = torch.tensor([1, 3])
    parity(M(), (R(5, 2), n), (R(8, 2), n + 2))


def test_what_an_assertion_says_of_a_size_holds_from_there_on() -> None:
    """The number of columns is data's until the model insists on one."""

    class M(torch.nn.Module):
        def forward(self, x: T, n: T) -> T:
            y = torch.cat([x.new_zeros(x.size(0), int(n.max())), x], 1)
            y = y.narrow(1, n.max(), y.size(1) - n.max())
            assert y.size(1) == 6
            return y.reshape(-1, 2, 3).sum(1)

    n = torch.tensor([1, 3])
    parity(M(), (R(5, 6), n), (R(8, 6), n + 2))


def test_a_bound_may_count_from_either_end() -> None:
    """`x[:, 4 - n :]` is the rest from there, or the last columns where n is more than 4: both are sizes."""

    class M(torch.nn.Module):
        def forward(self, x: T, y: T) -> T:
            n = y.size(0)
            a, b = x[:, 4 - n :], x[:, -n:]
            return torch.cat([a + torch.arange(a.size(1)), b * 2, x[:, : n - 4]], 1)

    captured = parity(
        M(), (R(2, 9), R(3)), (R(3, 9), R(6)), (R(1, 5), R(4)), (R(2, 3), R(9)), (R(2, 7), R(0))
    )
    assert not captured.recording.env.fixed


def test_the_last_of_what_was_padded_is_as_long_as_that() -> None:
    """A cache that keeps the last four, padded where there are fewer."""

    class M(torch.nn.Module):
        def forward(self, x: T) -> T:
            kept = x.new_zeros(x.size(0), 4)
            y = torch.nn.functional.pad(x, (4 - x.size(1), 0)) if x.size(1) < 4 else x
            kept.copy_(y[:, -4:])
            return torch.cat([kept, x], 1)

    captured = parity(M(), (R(2, 5),), (R(3, 9),), (R(1, 4),), (R(2, 3),), (R(2, 1),))
    assert not captured.recording.env.fixed


def test_a_branch_is_tried_on_sizes_that_nothing_is_divided_by() -> None:
    """A remainder by a size: 0 of it is no size to try another way of the branch with."""

    class M(torch.nn.Module):
        def forward(self, x: T, y: T) -> T | tuple[T, T]:
            if 2 * (x.size(0) % y.size(0)) < y.size(0):
                return x * y.sum()
            return x, y

    ingot.export(M(), (R(6, 4), R(3, 2)))


def test_sizes_that_have_no_root_are_not_tried() -> None:
    """As many windows as a side of theirs squared: of images below a window's size there are fewer than 0."""

    def square(x: T) -> T:
        windows = x.unfold(1, 8, 4).unfold(2, 8, 4)
        rows = windows.reshape(x.size(0), windows.size(1) * windows.size(2), 64)
        side = int(math.sqrt(rows.size(1)))
        return rows.reshape(x.size(0), side, rows.size(1) // side, 64).sum(1)

    program = ingot.export(square, (R(2, 32, 32),))
    for x in (R(2, 32, 32), R(1, 16, 16), R(3, 48, 48)):
        np.testing.assert_allclose(program(x), square(x), rtol=1e-5, atol=1e-5)


def test_a_size_and_a_buffer_of_one_integer_are_a_size() -> None:
    """Audio codecs keep kernel size and stride as buffers, and pad by what they compute with them."""

    class M(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = torch.nn.Buffer(torch.tensor(7))
            self.stride = torch.nn.Buffer(torch.tensor(2))

        def forward(self, x: T) -> tuple[T, T]:
            length = x.shape[-1]
            frames = torch.ceil((length - self.kernel + 5) / self.stride + 1).to(torch.int64) - 1
            extra = frames * self.stride + self.kernel - 5 - length
            inner = x[:, length - self.kernel :]
            return torch.nn.functional.pad(x, (self.kernel - self.stride, extra)), inner + x[:, -7:]

    captured = parity(M(), (R(2, 12),), (R(3, 9),), (R(1, 7),), (R(2, 31),))
    assert not captured.recording.env.fixed


def test_a_range_of_whole_steps_of_its_length_is_a_loop_of_pythons() -> None:
    """Audio is worked on in one chunk where there is no length of chunks."""

    class M(torch.nn.Module):
        def forward(self, x: T) -> T:
            length, frames = x.size(1), []
            for offset in range(0, 2 * length, length):
                frames.append(x[:, offset : offset + length] * 2)
            return torch.cat([torch.stack([frames[0]])[0], frames[1]], 1) + x

    captured = parity(M(), (R(2, 12),), (R(3, 9),), (R(1, 1),))
    assert not captured.recording.env.fixed


def test_a_dimension_is_fixed_at_the_size_of_the_example() -> None:
    """An example so small that larger ones are tried: what Python alone can use is the example's size."""

    class M(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv1d(3, 4, 3, stride=8, padding=1)

        def forward(self, x: T) -> T:
            y = self.conv(x)
            return torch.where(y > 0, y, y * 2) + float(np.ones(x.shape[2]).sum())

    captured = parity(M(), (R(1, 3, 8),))
    assert 8 in [fixed.size for fixed in captured.recording.env.fixed.values()]


def test_padding_that_is_taken_off_again_leaves_the_size() -> None:
    """Rows padded up to a multiple of 8, and cut again where they were: as many as there are in the mask."""

    class M(torch.nn.Module):
        def forward(self, x: T, mask: T) -> T:
            padding = (8 - x.shape[1] % 8) % 8
            y = x
            if padding > 0:
                y = torch.nn.functional.pad(y, (0, padding), value=1.0)
            y = y.view(x.shape[0], -1, 8).cumsum(2).flatten(1)
            if padding > 0:
                y = y[:, :-padding]
            if y.size() != mask.size():
                raise ValueError("the mask has another size")
            return y * mask

    captured = parity(
        M(), *[(R(b, n), torch.ones(b, n)) for b, n in ((2, 13), (1, 8), (3, 5), (2, 16), (1, 31))]
    )
    assert not captured.recording.env.fixed


class _Blocks(torch.nn.Module):
    """Pixels of each block of 4 by 4 attend to those in and around it; `-1` says how many there are."""

    def __init__(self, biased: bool) -> None:
        super().__init__()
        pixels = (4, 4) if biased else (1, 1)
        self.bias = torch.nn.Parameter(R(*pixels, 36))

    def forward(self, x: T) -> T:
        b, c, h, w = x.shape
        torch._assert(h % 4 == 0, "")
        torch._assert(w % 4 == 0, "")
        blocks = (h // 4) * (w // 4)
        q = x.reshape(-1, c // 2, h // 4, 4, w // 4, 4).permute(0, 1, 3, 5, 2, 4)
        q = q.reshape(b * 2, c // 2, -1, blocks).transpose(1, 3)
        k = torch.nn.functional.pad(x, [1, 1, 1, 1]).unfold(2, 6, 4).unfold(3, 6, 4)
        k = k.reshape(b * 2, c // 2, blocks, -1).permute(0, 2, 3, 1)
        scores = q @ k.transpose(-1, -2) + self.bias.reshape(-1, 36)
        y = (scores.softmax(-1) @ k).transpose(1, 3)
        y = y.reshape(-1, 4, 4, h // 4, w // 4).permute(0, 3, 1, 4, 2).contiguous()
        return y.view(b, c, h, w)


@pytest.mark.parametrize("size", [(2, 6, 8, 12), (2, 6, 8, 8), (1, 6, 4, 4)], ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_what_is_in_a_block_fixes_neither_the_image_nor_the_batch(
    size: tuple[int, ...], biased: bool
) -> None:
    """A bias for each of 16 pixels wants 16 of them, which any number of blocks and any batch has."""
    others = [(R(n, 6, h, w),) for n, h, w in ((3, 12, 8), (1, 4, 4), (1, 24, 12), (5, 8, 16))]
    captured = parity(_Blocks(biased), (R(*size),), *others)
    fixed = {captured.recording.env.names[s] for s in captured.recording.env.fixed}
    assert not fixed & {"x_batch", "x_dim2", "x_dim3"}
    with pytest.raises(OrtError):
        ort_runner(captured.model)({"x": R(2, 6, 8, 10).numpy()}, captured.output_names)


class _Windows(torch.nn.Module):
    """Attention in windows of `size` by `size`, with a bias for each pair of pixels."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.bias = torch.nn.Parameter(R(size**2, size**2))

    def attention(self, x: T) -> T:
        q = x.flatten(2)
        return (q @ (q.transpose(-2, -1) @ q + self.bias).softmax(-1)).view(x.shape)

    def forward(self, x: T) -> T:
        b, c, h, w = x.shape
        n = self.size
        if h == n and w == n:
            return self.attention(x)
        x = x.view(b, c, h // n, n, w // n, n).permute(0, 2, 4, 1, 3, 5)
        x = self.attention(x.reshape(-1, c, n, n)).view(b, h // n, w // n, c, n, n)
        return x.permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


@pytest.mark.parametrize("size", [(2, 3, 4, 4), (2, 3, 8, 4)], ids=str)
def test_numbers_that_a_branch_asks_for_fix_nothing_outside_of_it(size: tuple[int, ...]) -> None:
    """Where both sides are 4, as many pixels as the bias is for; images of other sizes take the other way."""
    others = [(R(n, 3, h, w),) for n, h, w in ((1, 4, 4), (3, 8, 4), (1, 12, 8))]
    captured = parity(_Windows(4), (R(*size),), *others)
    assert not {captured.recording.env.names[s] for s in captured.recording.env.fixed} & {"x_dim2", "x_dim3"}


def test_a_layer_of_a_whole_image_fixes_the_image() -> None:
    """As many features as one size of the image has, and no multiple of it."""

    class M(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 2, 3, stride=2, padding=1)
            self.linear = torch.nn.Linear(2 * 4 * 3, 5)

        def forward(self, x: T) -> T:
            return self.linear(self.conv(x).flatten(1))

    captured = parity(M(), (R(2, 1, 8, 6),), (R(3, 1, 8, 6),))
    sizes = {captured.recording.env.names[s]: f.size for s, f in captured.recording.env.fixed.items()}
    assert sizes == {"x_dim1": 1, "x_dim2": 8, "x_dim3": 6}


class _NumbersOfRows(torch.nn.Module):
    """Numbers that are given for each row of a batch, as many features as `-1` says."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.other = torch.nn.Linear(12, 5), torch.nn.Linear(6, 5)

    def forward(self, x: T, few: T, more: T) -> T:
        waves = (few.flatten()[:, None] * torch.arange(4.0)).sin()
        return x + self.linear(waves.reshape(x.shape[0], -1)) + self.other(more.reshape(len(x), -1))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_features_of_each_row_fix_no_batch(batch: int) -> None:
    """Two sizes that grow together make as many features as a layer wants; each alone does not."""
    calls = [(R(n, 5), R(n, 3), R(rows, 6 * n // rows)) for n, rows in ((batch, 1), (4, 8), (1, 2), (5, 5))]
    captured = parity(_NumbersOfRows(), *calls)
    sizes = {captured.recording.env.names[s]: f.size for s, f in captured.recording.env.fixed.items()}
    assert sizes == {"x_dim1": 5}
    run = ort_runner(captured.model)
    feeds = {name: x.numpy() for name, x in zip(("x", "few", "more"), calls[1], strict=True)}
    with pytest.raises(OrtError):
        run(feeds | {"few": R(4, 4).numpy()}, captured.output_names)
