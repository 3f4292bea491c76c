"""Writes in place and through views end up where torch puts them, or are refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ingot.calls import ingot_runner
from ingot.capture.attempt import capture
from ingot.errors import ExportError, IngotError
from tests.capture.support import OrtError, ort_runner, parity

T = torch.Tensor


def add_in_place(x: T) -> T:
    y = x * 1
    y.add_(1)
    y *= 2
    return y


def through_row(x: T) -> tuple[T, T]:
    y = x * 1
    row = y[0]
    row += 5
    return y, row


def row_after_base(x: T) -> tuple[T, T]:
    y = x * 1
    row = y[1]
    y.mul_(3)
    return row, y


def column(x: T) -> T:
    y = x.clone()
    y[:, 0] = x[:, 1] * 7
    y[..., -1] = 2
    return y


def slice_of_slice(x: T) -> T:
    y = x.clone()
    part = y[1:, :2]
    part[0] = -1.0
    return y + part.sum()


def strided(x: T) -> T:
    y = torch.zeros_like(x)
    y[:, ::2] = x[:, ::2].sin()
    y[1::2] += 1
    return y


def transposed(x: T) -> T:
    y = x.clone()
    y.t()[0] += 1
    y.permute(1, 0).unsqueeze(0).mul_(2)
    return y


def reshaped(x: T) -> T:
    y = x.clone()
    y.view(-1).add_(3)
    return y


def pieces(x: T) -> T:
    y = torch.cat([x, x], 1)
    a, b = y.chunk(2, 1)
    a.add_(1)
    b.mul_(a)
    return y


def unbound(x: T) -> T:
    y = torch.stack([x, x, x])
    first, _, last = y.unbind(0)
    first.zero_()
    last.fill_(2)
    return y


def masked(x: T) -> T:
    y = x.clone()
    y[x > 0] = 0.5
    y.masked_fill_(x < -1, 9.0)
    return y


def gathered(x: T) -> T:
    y = x.clone()
    y[torch.tensor([0, 1]), torch.tensor([1, 0])] = 4.0
    y.scatter_(1, torch.zeros(x.shape[0], 1, dtype=torch.long), 3.0)
    return y


def constant_buffer(x: T) -> T:
    table = torch.zeros(3, 3)
    table[0] = 1
    table[:, 2] += 2
    return x.sum() + table


def constant_then_input(x: T) -> tuple[T, T]:
    table = torch.zeros(2, 3)
    row = table[0]
    table[1] = x[0, :3]
    row += 1
    return table, row


def empty_then_filled(x: T) -> T:
    y = torch.empty(x.shape[0], 2 * x.shape[1])
    y[:, : x.shape[1]] = x
    y[:, x.shape[1] :] = -x
    return y


def symbolic_place(x: T) -> T:
    y = x.clone()
    y[:, x.shape[1] - 1] = 0
    return y


def written_twice(x: T) -> T:
    y = x.clone()
    for i in range(2):
        y[i] = y[i] * 2 + y[1 - i]
    return y


def transposed_in_place(x: T) -> tuple[T, T, T]:
    y = x.clone()
    row, rows = y[0], y[1:]
    y.t_()
    y.mul_(2)
    return row, rows, y


def through_what_was_there(x: T) -> tuple[T, T]:
    y = x.clone()
    row = y[0]
    y.unsqueeze_(-1)
    row.mul_(2)
    y[1] = 5
    return row, y


def constant_transposed_in_place(x: T) -> tuple[T, T]:
    y = torch.arange(12.0).reshape(3, 4)
    row = y[0]
    y.t_()
    y.mul_(x[0, 0])
    return row, y


def scattered_in_place(x: T) -> tuple[T, T, T]:
    y, z = x.clone(), x.clone()
    row = y[0]
    y.masked_scatter_(x > 0, x * 2)
    z.erfc_()
    return y, row, z


WRITES: list[Callable[..., object]] = [
    add_in_place, through_row, row_after_base, column, slice_of_slice, strided, transposed, reshaped, pieces,
    unbound, masked, gathered, constant_buffer, constant_then_input, empty_then_filled, symbolic_place,
    written_twice, transposed_in_place, through_what_was_there, constant_transposed_in_place,
    scattered_in_place,
]  # fmt: skip


@pytest.mark.parametrize("function", WRITES, ids=lambda f: f.__name__)
def test_write(function: Callable[..., object]) -> None:
    """Equal to torch on the example and on another size."""
    parity(function, (torch.randn(4, 3),), (torch.randn(5, 6),))


def test_input_written_to_is_recorded() -> None:
    """The exported model leaves the caller's tensor alone, and says so."""

    def f(x: T) -> T:
        x.add_(1)
        return x * 2

    captured = parity(f, (torch.randn(3),))
    assert [a.kind for a in captured.assumptions] == ["input-changed"]


def test_write_through_expand_is_refused() -> None:
    """Several elements share one place: there is no telling which value wins."""

    def f(x: T) -> T:
        y = x.clone().unfold(1, 2, 1)
        y[0] = 1
        return y

    with pytest.raises(ExportError, match=r"writes into a tensor through `unfold`"):
        capture(f, (torch.randn(3, 4),))


def test_buffer_written_to_is_refused() -> None:
    """State that outlives the call cannot be in the file."""

    class Counter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: T) -> T:
            self.count.add_(1)
            return x + self.count

    module = Counter()
    with pytest.raises(ExportError, match=r"self\.count\.add_\(1\)\nforward changes 'count' here"):
        capture(module, (torch.randn(3),))
    assert module.count.item() == 0


def test_buffer_replaced_is_refused() -> None:
    """So is assigning another tensor to a buffer; the module keeps its own."""

    class Counter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: T) -> T:
            self.count = self.count + x.sum()
            return x + self.count

    module = Counter()
    with pytest.raises(ExportError, match=r"x\.sum\(\)\nforward changes 'count' here"):
        capture(module, (torch.randn(3),))
    assert module.count.item() == 0


def test_attribute_written_is_recorded_and_restored() -> None:
    """An attribute that forward leaves behind is no part of the function; the module is as before."""

    class Keeps(torch.nn.Module):
        def forward(self, x: T) -> T:
            self.last = x * 2
            return self.last + 1

    module = Keeps()
    captured = parity(module, (torch.randn(3),))
    assert "'last' is written in forward before it is read" in captured.assumptions[0].what
    fresh = Keeps()
    capture(fresh, (torch.randn(3),))
    assert not hasattr(fresh, "last")


def test_data_replaced_is_refused() -> None:
    """The variable is another tensor then, and nobody has called an operator."""

    def function(x: T) -> T:
        y = x.clone()
        y.data = x * 2
        return y

    with pytest.raises(ExportError, match=r"y\.data = x \* 2"):
        capture(function, (torch.randn(3),))


def test_into_tensors_that_are_given() -> None:
    """`out=`: the tensor, a view of it, its dtype, and operators with two results."""

    def function(x: T, y: T) -> tuple[T, ...]:
        whole = torch.zeros(2, *x.shape)
        torch.add(x, y, alpha=2, out=whole[0])
        same = torch.mul(x, 3, out=whole[1])
        wide = torch.empty(x.shape, dtype=torch.float64)
        torch.sub(x, y, out=wide)
        values, places = torch.empty(x.shape[0]), torch.empty(x.shape[0], dtype=torch.int64)
        torch.max(x, 1, out=(values, places))
        return whole * 2, same, wide, values, places

    parity(function, (torch.randn(3, 4), torch.randn(3, 4)), (torch.randn(2, 5), torch.randn(2, 5)))


def test_into_a_part_as_long_as_data_says() -> None:
    """Where each group of rows begins: `out=` is a part that is as long as the counts, which data makes."""

    def function(x: T, group: T) -> tuple[T, T]:
        counts = torch.zeros(int(group.max()) + 1).scatter_add_(0, group, torch.ones(group.shape[0]))
        begins = counts.new_empty(counts.size(0) + 1)
        begins.narrow(0, 0, 1).zero_()
        torch.cumsum(counts, 0, out=begins.narrow(0, 1, counts.size(0)))
        return x - begins[group][:, None], begins

    calls = [(torch.randn(len(group), 3), torch.tensor(group)) for group in ([0, 1, 1], [4, 0], [0], [2, 2])]
    parity(function, *calls)  # type: ignore[arg-type]


def test_into_a_tensor_of_another_size() -> None:
    """torch makes it as large as the result."""

    def function(x: T) -> T:
        made = torch.empty(0)
        torch.neg(x, out=made)
        return made

    with pytest.raises(ExportError, match="Assign the result"):
        capture(function, (torch.randn(3, 4),))


@pytest.mark.parametrize(("offset", "dims"), [(0, (0, 1)), (1, (0, 1)), (-2, (1, -1)), (1, (2, 0))])
def test_through_a_diagonal(offset: int, dims: tuple[int, int]) -> None:
    """Of any two axes, and of another view."""

    def function(x: T) -> tuple[T, ...]:
        y, z = x * 1, x * 1
        y.diagonal(offset, *dims).mul_(3)
        torch.diagonal(z[1:].narrow(1, 1, 2), dim1=0, dim2=1).fill_(7)
        z.narrow(2, -2, 1).add_(1)
        return y, z

    parity(function, (torch.randn(4, 3, 5),), (torch.randn(3, 6, 4),))


def test_into_a_row_that_is_not_there() -> None:
    """A place that sizes decide is outside of the axis for some of them: the model fails where torch does."""

    def function(x: T) -> T:
        made = torch.zeros_like(x)
        made[x.shape[0] - 4] = 1
        return made

    captured = capture(function, (torch.randn(5, 3),))
    for run in (ort_runner(captured.model), ingot_runner(captured.model)):
        for rows in (2, 4, 9):
            feeds = {"x": torch.randn(rows, 3).numpy()}
            np.testing.assert_equal(
                run(feeds, captured.output_names)[0], function(torch.zeros(rows, 3)).numpy()
            )
        with pytest.raises((IngotError, OrtError)):
            run({"x": torch.randn(1, 3).numpy()}, captured.output_names)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (7, 2)])
@pytest.mark.parametrize("dynamic_shapes", ["auto", None])
def test_diagonals_that_are_filled(shape: tuple[int, int], dynamic_shapes: str | None) -> None:
    """Of wide and tall matrices, with wrap, through a transpose and a slice, and where three axes meet."""

    def f(x: T, cube: T) -> tuple[T, ...]:
        plain, wrapped, turned, column = x * 1, x * 2, x * 3, x * 4
        plain.fill_diagonal_(-1e9)
        wrapped.fill_diagonal_(4, wrap=True)
        turned.T.fill_diagonal_(0)
        column[:, :1].fill_diagonal_(7)
        meeting = (cube * 5).fill_diagonal_(9.0)
        return plain, wrapped, turned, column, meeting

    others = [(1, 1), (9, 3), (2, 6)] if dynamic_shapes else []
    cube = torch.randn(3, 3, 3)
    calls = [(torch.randn(s), cube) for s in (shape, *others)]
    parity(f, *calls, dynamic_shapes=dynamic_shapes)
