"""Losses that torch does not write in its own operators, or whose Python asks for numbers."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.loops import scan
from ingot.capture.aten.registry import row, whole
from ingot.capture.checks import require
from ingot.capture.graph import GraphWriter
from ingot.capture.tensors import dtype_of

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor


@row("_assert_async", "_assert_async.msg")
def assert_async(g: Recorder, out: None, condition: Tensor, message: str = "") -> None:
    """A condition that the exported model checks."""
    holds = g.op("Reshape", g.operand(condition, torch.bool), g.const([], torch.int64))
    require(g, holds, message or "a condition on tensors")


def _sum(b: GraphWriter, *logs: ir.Value, dtype: ir.DataType) -> ir.Value:
    """log Σ exp, where all may be -∞."""
    highest = b.op("Max", *logs)
    nothing = b.op("Equal", highest, b.const(-math.inf, dtype))
    base = b.op("Where", nothing, b.const(0.0, dtype), highest)
    total = b.op("Sum", *[b.op("Exp", b.op("Sub", v, base)) for v in logs])
    return b.op("Add", b.op("Log", total), base)


def _fake_ctc(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: int = 1,
    zero_infinity: bool = False,
) -> Tensor:
    return log_probs.new_empty(list(log_probs.shape[1:-1]) if reduction == 0 else [])


@whole(torch.ctc_loss, meta=_fake_ctc)
def ctc_loss(
    g: Recorder,
    out: Tensor,
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: int = 1,
    zero_infinity: bool = False,
) -> ir.Value:
    """Connectionist temporal classification (Graves et al. 2006, the forward variables of 4.1, as
    logarithms): -log of the sum over all paths that say the target, between blanks.

    log_probs [t, n, classes] or [t, classes]; targets [n, most] or one after the other.
    """
    kind = dtype_of(log_probs.dtype)

    def lengths(given: Any) -> Tensor:
        made = given if isinstance(given, Tensor) else torch.tensor(list(given))
        return made.reshape(-1).long()

    def call() -> Tensor:
        x = log_probs if log_probs.dim() == 3 else log_probs.unsqueeze(1)
        steps, batch, classes = x.shape
        said, given = lengths(target_lengths), targets.long()
        if targets.dim() == 1:
            most = targets.shape[0] if isinstance(target_lengths, Tensor) else max(target_lengths, default=0)
            first = torch.cumsum(said, 0) - said
            places = torch.clamp_max(first.unsqueeze(1) + torch.arange(most), targets.shape[0] - 1)
            given = given.index_select(0, places.reshape(-1)).reshape(batch, most)
        most = given.shape[1]
        # What stands behind a target's end is never reached from its last state: any class will do.
        given = torch.clamp(given, 0, classes - 1)
        blanks = torch.full_like(given, blank)
        states = torch.stack([blanks, given], -1).reshape(batch, 2 * most)
        states = torch.cat([states, torch.full([batch, 1], blank)], 1)
        # The blank between two classes may be left out where these differ.
        twice = torch.cat([torch.full([batch, 2], blank), states.narrow(1, 0, 2 * most - 1)], 1)
        jump = torch.where((states != blank) & (states != twice), 0.0, -math.inf).to(x.dtype)
        said_now = torch.gather(x, 2, states.unsqueeze(0).expand(steps, batch, 2 * most + 1))
        running = torch.arange(steps).reshape(-1, 1, 1) < lengths(input_lengths).reshape(1, -1, 1)
        start = torch.where(torch.arange(2 * most + 1) == 0, 0.0, -math.inf).to(x.dtype)
        start = start.expand(batch, 2 * most + 1)
        edge = g.const([0, 1, 0, 0])
        edges = g.const([0, 2, 0, 0])
        low = g.const(-math.inf, x.dtype)

        def step(
            b: GraphWriter, a: ir.Value, allowed: ir.Value, now: ir.Value, on: ir.Value
        ) -> list[ir.Value]:
            width = b.op("Shape", a, start=1, end=2)
            one = b.op("Slice", b.op("Pad", a, edge, low), b.const([0]), width, b.const([1]))
            two = b.op("Slice", b.op("Pad", a, edges, low), b.const([0]), width, b.const([1]))
            total = _sum(b, a, one, b.op("Add", two, allowed), dtype=kind)
            return [b.op("Where", on, b.op("Add", total, now), a), allowed]

        last = scan(
            g,
            [g.val(start), g.val(jump)],
            [g.val(said_now), g.val(running)],
            0,
            [kind, kind, kind, ir.DataType.BOOL],
            2,
            step,
            0,
        )[0]
        ends = torch.stack([2 * said, torch.clamp_min(2 * said - 1, 0)], 1)
        both = g.op("GatherElements", last, g.val(ends), axis=1)
        made = x.new_empty([batch, 2])
        g.bind(made, both)
        end, before = made[:, 0], torch.where(said == 0, -math.inf, made[:, 1]).to(x.dtype)
        loss = -torch.logaddexp(end, before)
        if zero_infinity:
            loss = torch.where(loss == math.inf, 0.0, loss).to(x.dtype)
        if reduction == 1:
            return (loss / torch.clamp_min(said, 1).to(loss.dtype)).mean()
        return loss.sum() if reduction == 2 else loss.reshape(out.shape)

    return g.operand(g.recorded(call), out.dtype)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Any,
    weight: Any,
    reduction: str,
    ignore_index: Any,
    label_smoothing: float,
    options: Any,
) -> Tensor:
    """torch.nn.functional.linear_cross_entropy of all rows at once: torch takes them in chunks, as its
    options say, to have fewer logits at a time, and computes halves in the options' dtype.
    """
    classes, *inner, features = linear_weight.shape
    is_chunked = not inner and label_smoothing == 0 and target.dtype == torch.int64
    given: list[Any] = [input, linear_weight, linear_bias, weight]
    if options is not None and is_chunked and input.dtype in (torch.float16, torch.bfloat16):
        wide = options.acc_dtype or (torch.float32 if options.acc_policy == "auto" else input.dtype)
        given = [v if v is None else v.to(wide) for v in given]
    x, rows, bias, of_class = given
    rows = rows.reshape(-1, features)
    logits = torch.nn.functional.linear(x, rows, bias if bias is None else bias.reshape(-1))
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(*x.shape[:-1], classes, *inner),
        target,
        weight=of_class,
        reduction=reduction,
        ignore_index=-100 if ignore_index is None else ignore_index,
        label_smoothing=label_smoothing,
    )
    return loss.to(input.dtype)


def gaussian_nll(input: Tensor, target: Tensor, var: Any, full: bool, eps: float, reduction: str) -> Tensor:
    """torch.nn.functional.gaussian_nll_loss, whose Python looks at the variances' signs: a check here."""
    if isinstance(var, (int, float)):
        var = torch.full_like(input, var)
    torch._check_tensor_all(torch.logical_not(var < 0), lambda: "var has negative entry/entries")  # pyright: ignore[reportPrivateUsage]
    if var.dim() == input.dim() - 1:
        var = var.unsqueeze(-1)
    var = torch.clamp_min(var, eps)
    loss = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss
