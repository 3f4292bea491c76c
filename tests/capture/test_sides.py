"""Verification takes the sides of branches that the example does not take, and says which it could not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

import ingot
from ingot.calls import ingot_runner
from ingot.capture.attempt import capture
from ingot.capture.sample import sampled_inputs
from ingot.capture.sides import watched
from ingot.errors import ExportError, VerificationError
from ingot.report import Case, Report
from ingot.trial import Trial
from ingot.verify import verify_capture
from tests.capture.support import ort_runner, parity

T = torch.Tensor


def branches(x: T) -> T:
    """Nested branches and loops of both kinds."""
    y = x
    if x.sum() > 0 and x.max() < 5:
        if x.mean() > 1:
            y = x * 2
        for row in x:
            if row.sum() > 3:
                y = y + row
    while y.sum() < -3:
        y = y + 1
    return y


@pytest.mark.parametrize("runner", [ort_runner, ingot_runner])
def test_the_copy_says_which_sides_it_takes(runner: Any) -> None:
    """In either runtime, inside of other branches and loops too."""
    copy = watched(capture(branches, (torch.randn(4, 3),)).model)
    onnx.checker.check_model(ir.to_proto(copy.model), full_check=True)
    run = runner(copy.model)

    def sides(x: T) -> list[str]:
        return sorted(s.what.removeprefix("the ") for s in copy.taken(run, {"x": x.numpy()}).sides)

    holds, fails = "condition holds", "condition does not hold"
    no, one, more = (f"loop {n}" for n in ("does not run", "runs once", "runs more than once"))
    assert sides(torch.full((4, 3), 2.0)) == sorted([holds, holds, holds, more, no])
    assert sides(torch.full((1, 3), 0.1)) == sorted([holds, fails, fails, one, no])
    assert sides(torch.full((1, 3), -1.5)) == sorted([fails, one])
    assert sides(torch.full((1, 3), 9.0)) == sorted([holds, fails, no])  # `and` is a branch of its own


def test_a_wrong_side_is_found_wherever_it_stands() -> None:
    """Each of these models gets one side wrong, which the example does not take."""

    def by_sum(x: T) -> T:
        return x * 2 if x.sum() > 0 else x

    def by_narrow_range(x: T) -> T:
        return x * 2 if (x.sum() - 77).abs() > 0.01 else x

    def by_size(x: T) -> T:
        return x * 2 if x.shape[0] < 100 else x

    def nested(x: T) -> T:
        if x.abs().max() > 3:
            return x * 3
        return x * 2 if x[0, 0] > -0.5 else x

    def by_number_in_a_loop(x: T) -> T:
        for row in x:
            if row.max() > 50:
                x = x + row
        return x

    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    for model in (by_sum, by_narrow_range, by_size, nested, by_number_in_a_loop):
        captured = capture(model, (x,))
        assert verify_capture(captured).unverified == []
        copy = watched(captured.model)
        sides = copy.taken(ingot_runner(copy.model), {"x": x.numpy()}).sides

        def taken(node: ir.Node, sides: Any = sides) -> set[str]:
            return {s.what for s in sides if s.where == node.metadata_props["ingot.source"]}

        _spoil(captured.model, taken)
        with pytest.raises(VerificationError):
            verify_capture(captured)


def _spoil(model: ir.Model, taken: Any) -> None:
    """Make one side that the example does not take give twice what it should."""
    for node in model.graph.all_nodes():
        for name, what in (("then_branch", "holds"), ("else_branch", "does not hold")):
            if node.op_type != "If" or f"the condition {what}" in taken(node):
                continue
            graph = node.attributes[name].as_graph()
            for i, value in enumerate(graph.outputs):
                if value.dtype == ir.DataType.FLOAT:
                    twice = ir.node("Add", [value, value], name="twice")
                    twice.outputs[0].name, twice.outputs[0].type = "twice", value.type
                    graph.append(twice)
                    graph.outputs[i] = twice.outputs[0]
                    return
    raise AssertionError("no side is left to the search")


def test_what_no_input_reaches_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """By line, in the program and on stderr."""

    def f(x: T) -> T:
        if x.abs().sum() < 0:
            return x + 1
        return x

    program = ingot.export(f, (torch.rand(3),))
    assert program.verification is not None
    (side,) = program.verification.unverified
    assert "test_sides.py:" in side and side.endswith(": no input was found for which the condition holds")
    assert f"not verified: {side}\n" in capsys.readouterr().err


def test_sizes_of_zero_and_one_are_compared() -> None:
    """Of every dimension that may have them."""
    report = verify_capture(capture(lambda x: x.sum(0) + x.shape[1], (torch.rand(4, 3),)))
    sizes = [tuple(c.sizes.values()) for c in report.cases]
    assert {(1, 1), (0, 3), (4, 0), (0, 0)} <= set(sizes), sizes
    program = ingot.export(torch.nn.Identity(), (ingot.Input("float32", [ingot.Dim("n", min=2, max=6)]),))
    assert program.verification is not None
    assert all(2 <= c.sizes["n"] <= 6 for c in program.verification.cases)


def test_a_rank_that_follows_a_size_is_noted() -> None:
    """`squeeze` of a symbolic axis: of size 1 it is another model."""
    captured = capture(lambda x: x.squeeze(1) + 1, (torch.rand(4, 3, 2),))
    (noted,) = [a for a in captured.assumptions if a.kind == "range"]
    assert noted.what == "x_dim1 is not 1" and noted.status == "checked"
    assert all(c.sizes["x_dim1"] != 1 for c in verify_capture(captured).cases)


def test_inputs_that_do_not_fit_each_other_are_reported() -> None:
    """The module does not look at a mask of nothing but ones; the exported model does, and says so."""

    def f(x: T, mask: T) -> T:
        if not isinstance(mask, FakeTensor):  # as transformers skips a mask that hides nothing
            return x
        return torch.where(mask[torch.arange(x.shape[0])], x, 0)

    report = verify_capture(capture(f, (torch.rand(4, 3), torch.ones(4, 3, dtype=torch.bool))))
    (line,) = report.unverified
    assert line.startswith("inputs that do not fit each other: the module does not look at mask_batch="), line


def test_a_search_does_not_run_into_loops_without_end() -> None:
    """A loop that never ends for most inputs: the module would not end either."""

    def f(x: T) -> T:
        while x.abs().sum() > 1:
            x = x * 0.5 if x.abs().sum() < 100 else x * 1.0
        return x

    report = verify_capture(capture(f, (torch.full((3,), 2.0),)))
    assert any("more than once" in s for c in report.cases for s in c.reached) or len(report.cases) > 3
    assert np.isfinite(report.worst)


def _unless_short(x: T, mask: T) -> T | None:
    return None if x.shape[1] == 1 else mask


def _sum_of(mask: T | None) -> T:
    if mask is None:
        return torch.full((), 3.0)
    return mask.sum()


def test_what_may_be_none_is_seen_by_whoever_gets_it_back() -> None:
    """The caller of the function that returns it, and those that it is passed on to."""

    def f(x: T, mask: T) -> T:
        found = _unless_short(x, mask)
        return x * _sum_of(found)

    parity(
        f,
        (torch.randn(2, 5), torch.randn(2, 5)),
        (torch.randn(2, 1), torch.randn(2, 1)),
        (torch.randn(1, 1), torch.randn(1, 1)),
    )


def test_what_may_be_none_may_lie_in_a_dict() -> None:
    """Whoever takes it out sees what it is, or the size that decides it is noted."""

    def f(x: T, mask: T) -> T:
        masks = {"all": _unless_short(x, mask)}
        return x if masks["all"] is None else x * masks["all"]

    verify_capture(capture(f, (torch.randn(2, 5), torch.randn(2, 5))))


def test_what_fails_without_contents_alone_is_refused() -> None:
    """With the model's line; an error of the example's own is the model's."""

    def fussy(x: T) -> T:
        if isinstance(x, FakeTensor):
            raise RuntimeError("no contents")
        return x

    def wrong(x: T) -> T:
        return x @ torch.ones(7, 2)

    with pytest.raises(ExportError) as found:
        capture(fussy, (torch.rand(3),))
    assert 'raise RuntimeError("no contents")' in str(found.value) and "dynamic_shapes" in str(found.value)
    with pytest.raises(ExportError, match="itself refuses its example"):
        capture(wrong, (torch.rand(2, 3),))


def test_sizes_of_which_only_the_run_knows_whether_they_fit_are_reported() -> None:
    """One new token beside a mask of more: the module repeats it, which the example's sizes give no reason
    to.
    """

    def f(x: T, mask: T, past: T) -> T:
        seen = int((past > 0).sum())
        y = x + mask.cumsum(1)[:, seen:]
        if not isinstance(mask, FakeTensor):  # as transformers skips a mask that hides nothing
            return y.sum(1) + past.sum()
        return y @ torch.ones(x.shape[1]) + past.sum()

    captured = capture(f, (torch.rand(2, 4), torch.ones(2, 9), torch.rand(1, 5)))
    trial = Trial(captured, captured.original, ingot_runner, None, Report([Case({}, {})]))
    sizes = {name: int(n) for name, n in captured.table.sizes.items()} | {"x_dim1": 1}
    taken = trial.compare([sampled_inputs(captured, sizes, np.random.default_rng(0))], sizes)
    (line,) = trial.report.unverified
    assert not taken and "may not fit each other at " in line and "test_sides.py:" in line


def test_a_number_that_sizes_choose_is_a_formula_over_them() -> None:
    """So what is made by it may be known: here that a bias of one row is repeated."""
    bias = torch.randn(1, 128)

    def f(x: T, past: T) -> T:
        seen = 0 if past.numel() == 0 else past.shape[0]
        total = x.shape[0] + seen
        return x @ torch.ones(x.shape[1], total) + bias[max(0, 1 - total) :, max(0, 128 - total) :]

    parity(
        f,
        (torch.rand(4, 3), torch.rand(5, 2)),
        (torch.rand(6, 3), torch.rand(0, 2)),
        (torch.rand(1, 3), torch.rand(1, 2)),
    )


def test_what_data_leaves_of_a_size_meets_another_size() -> None:
    """The hint of the number is chosen so that they fit."""

    def f(x: T, mask: T, past: T) -> T:
        seen = int((past > 0).sum())
        return x + mask[:, seen:]

    parity(
        f,
        (torch.rand(2, 4), torch.rand(2, 9), torch.ones(5)),
        (torch.rand(3, 9), torch.rand(3, 9), torch.zeros(4)),
        (torch.rand(3, 1), torch.rand(3, 12), torch.ones(11)),
    )
