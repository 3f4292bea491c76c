"""Runs, repetitions and histograms, whose sizes and places data decides."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ingot.capture.attempt import capture
from tests.capture.support import ort_runner, parity

torch.manual_seed(0)
R = torch.randn


@pytest.mark.parametrize("initial", [None, 2.0])
@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "max", "min"])
def test_segment_reduce(reduce: str, initial: float | None) -> None:
    """Runs by lengths and by offsets, of which some are empty, along the first axis and a later one."""

    def reduced(x: torch.Tensor, lengths: torch.Tensor, offsets: torch.Tensor) -> Any:
        each = lengths.expand(x.shape[1], -1)
        return (
            torch.segment_reduce(x, reduce, lengths=lengths, initial=initial),
            torch.segment_reduce(x, reduce, offsets=offsets, initial=initial),
            torch.segment_reduce(x.transpose(0, 1), reduce, lengths=each, axis=1, initial=initial),
        )

    def inputs(*lengths: int) -> tuple[torch.Tensor, ...]:
        n = torch.tensor(lengths)
        return R(int(n.sum()), 3, 2), n, F.pad(n.cumsum(0), (1, 0))

    parity(reduced, inputs(2, 0, 3), inputs(0, 4, 1, 1, 0), inputs(5))


def test_segments_that_do_not_fit() -> None:
    """Lengths that do not add up to the axis are refused by the file, as torch refuses them."""
    captured = capture(lambda x, n: torch.segment_reduce(x, "sum", lengths=n), (R(5), torch.tensor([2, 3])))
    run = ort_runner(captured.model)
    with pytest.raises(Exception, match="Reshape"):
        run({"x": R(5).numpy(), "n": torch.tensor([2, 2]).numpy()}, captured.output_names)


def test_rows_as_runs() -> None:
    """Numbers of rows as where each row begins, empty ones among them, and back; int32 too."""
    made: Any = torch
    as_runs, as_rows = made._convert_indices_from_coo_to_csr, made._convert_indices_from_csr_to_coo

    def there_and_back(x: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> Any:
        runs = as_runs(rows, x.shape[0])
        few = as_runs(rows, x.shape[0], out_int32=True)
        return runs, few, as_rows(runs, columns), as_rows(runs, columns, out_int32=True, transpose=True)

    def inputs(size: int, *rows: int) -> tuple[torch.Tensor, ...]:
        return R(size), torch.tensor(rows, dtype=torch.int64), torch.arange(len(rows))

    parity(there_and_back, inputs(4, 0, 2, 2, 3), inputs(6, 1, 1, 1, 2, 4), inputs(2), inputs(1, 0))


def test_repeat_interleave() -> None:
    """Each element as often as data says; nothing at all, too."""

    def repeated(x: torch.Tensor, n: torch.Tensor) -> Any:
        return x.repeat_interleave(n, 0), torch.repeat_interleave(n)

    parity(
        repeated,
        (R(4, 2), torch.tensor([2, 0, 1, 3])),
        (R(2, 3), torch.tensor([0, 0])),
        (R(3, 1), torch.tensor([1, 5, 0])),
    )


@pytest.mark.parametrize("density", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_histogramdd(density: bool, weighted: bool) -> None:
    """Points in bins of several axes: by their number, by limits, and by their edges."""

    def counted(x: torch.Tensor, w: torch.Tensor) -> Any:
        options: dict[str, Any] = {"density": density, "weight": w if weighted else None}
        edges = [torch.tensor([-1.0, 0.0, 0.5]), torch.tensor([-2.0, 1.0]), torch.linspace(-1, 1, 5)]
        even = torch.histogramdd(x, [3, 2, 4], **options)
        limited = torch.histogramdd(x, [2, 2, 1], range=[-1, 1, 0, 2, -3, 3], **options)
        return even.hist, *even.bin_edges, limited.hist, torch.histogramdd(x, edges, **options).hist

    parity(counted, (R(20, 3), torch.rand(20)), (R(7, 3), torch.rand(7)))


@pytest.mark.parametrize("density", [True, False])
def test_histogram_of_any_size(density: bool) -> None:
    """By number, by limits and by edges; what is NaN or beyond the edges is in no bin."""

    def counted(x: torch.Tensor, w: torch.Tensor) -> Any:
        limited = torch.histogram(x, 4, range=(-2.0, 2.0), density=density)
        edges = torch.tensor([-1.0, 0.0, 0.5])
        found = x.histogram(edges, weight=w, density=density), torch.histogram(x.nan_to_num(), bins=3)
        return limited.hist, limited.bin_edges, found, torch.histogram(w).hist

    with_nan = torch.tensor([[0.1, math.nan, 0.4], [-0.5, 3.0, -0.2]])
    parity(counted, (R(4, 5), torch.rand(4, 5)), (with_nan, torch.rand(2, 3)))


def test_embedding_of_bounded_norm() -> None:
    """Rows that are looked up are made shorter, in the table too."""

    def looked_up(table: torch.Tensor, i: torch.Tensor) -> Any:
        table = table.clone()
        return F.embedding(i, table, max_norm=1.0), table

    parity(looked_up, (R(5, 3), torch.tensor([1, 4, 1])), (R(7, 2), torch.tensor([0, 6])))
