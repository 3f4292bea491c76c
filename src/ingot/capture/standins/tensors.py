"""Tensors of numbers that only the run knows, or of as many as it says: `torch.tensor`, `torch.stack`,
`torch.split`, `tolist`.
"""

# Arguments are whatever the model's Python has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture import scalars
from ingot.capture.checks import of_empty
from ingot.capture.choice import present
from ingot.capture.lists import Rows, TracedList
from ingot.capture.objects import is_a
from ingot.capture.request import recorder
from ingot.capture.runs import Many, join
from ingot.capture.standins.sequences import list_
from ingot.capture.standins.table import STANDINS, stands_for
from ingot.capture.standins.values import has_tensors, made_of_symbols, may_hold_none, tensor_of
from ingot.capture.where import source_line
from ingot.capture.words import counted

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime


def _holds_grown(data: Any) -> bool:
    """Whether lists or tuples of any depth hold a list as long as data says."""
    if is_a(data, TracedList) and not data.known:
        return True
    if is_a(data, (list, tuple)):
        return any(map(_holds_grown, list.__iter__(data) if is_a(data, list) else data))
    return False


@stands_for(torch.as_tensor)
def as_tensor_(rt: Runtime, data: Any, dtype: torch.dtype | None = None, device: Any = None) -> Any:
    """torch.as_tensor(data): a tensor is no other one."""
    if isinstance(data, torch.Tensor):
        return torch.as_tensor(data, dtype=dtype, device=device)
    return tensor_(rt, data, dtype=dtype, device=device)


@stands_for(torch.tensor)
def tensor_(
    rt: Runtime, data: Any, *, dtype: torch.dtype | None = None, device: Any = None, **kwargs: Any
) -> Any:
    """torch.tensor(data), with numbers and lists that the run knows in it."""
    if isinstance(data, TracedList) and not data.known:
        rows, kind = data.numbers()
        if data.may_be_empty and dtype is None:
            of_empty(
                rows.numel(),
                "torch.tensor gives float32 of shape [0]",
                "the dtype and the other sizes that it has else",
            )
        dtype = torch.get_default_dtype() if dtype is None and kind is float else dtype
        return rows if dtype is None else rows.to(dtype)
    data = counted(data.parts() if isinstance(data, TracedList) else present(data))
    if _holds_grown(data):  # torch wants them equally long, and so does stack
        rows = [tensor_(rt, v, dtype=dtype) for v in data]
        wide = functools.reduce(torch.promote_types, (r.dtype for r in rows))
        return torch.stack([r.to(wide) for r in rows])
    if made_of_symbols(data) or has_tensors(data) or may_hold_none(data):
        return tensor_of(data, dtype)
    return torch.tensor(data, dtype=dtype, device=device, **kwargs)


def _of_class(kind: Any, dtype: torch.dtype) -> None:
    """torch.LongTensor(list) and its like; numbers instead are the sizes of an empty one."""

    def standin(rt: Runtime, *args: Any) -> Any:
        listed = len(args) == 1 and isinstance(args[0], (list, tuple)) and not isinstance(args[0], torch.Size)
        if listed and (made_of_symbols(args[0]) or not getattr(args[0], "known", True)):
            return tensor_(rt, args[0], dtype=dtype)
        return kind(*args)

    STANDINS[id(kind)] = standin


for _class, _dtype in (
    (torch.LongTensor, torch.int64),
    (torch.IntTensor, torch.int32),
    (torch.FloatTensor, torch.float32),
    (torch.DoubleTensor, torch.float64),
    (torch.BoolTensor, torch.bool),
):
    _of_class(_class, _dtype)


def _joining(function: Any) -> None:
    given = "sequences" if function is torch.nn.utils.rnn.pad_sequence else "tensors"

    def standin(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
        if not args and given in kwargs:
            args = (kwargs.pop(given),)
        if args and isinstance(args[0], Rows):
            args = (rt.list_of(args[0], lambda v: v, []), *args[1:])
        if args and isinstance(args[0], TracedList) and not args[0].known:
            return join(function, args, kwargs)
        return function(*args, **kwargs)

    STANDINS[id(function)] = standin


for _function in (
    torch.stack, torch.cat, torch.concat, torch.concatenate, torch.vstack, torch.row_stack, torch.hstack,
    torch.nn.utils.rnn.pad_sequence,
):  # fmt: skip
    _joining(_function)


def cut_by(rt: Runtime, tensor: torch.Tensor, sizes: Rows | TracedList, axis: int) -> Rows:
    """torch.split into as many parts as data says, of the sizes that it says: the model checks that they fill
    the axis.
    """
    axis %= tensor.dim()
    rows = list_(rt, sizes).rows()[0]
    ends = rows.cumsum(0)
    fill = (rows >= 0).all() & (rows.sum() == tensor.shape[axis])
    torch.ops.aten._assert_async.msg(fill, f"{source_line()}: the parts add up to the dimension")

    def part(i: Any) -> torch.Tensor:
        end, size = ends[i].item(), rows[i].item()
        return tensor[(*(slice(None),) * axis, slice(end - size, end))]

    return Rows(rows.shape[0], part)


def numbers_of(tensor: torch.Tensor) -> Any:
    """tensor.tolist(): numbers that the run knows, in lists as long as the tensor's sizes say."""
    if not tensor.dim():
        return scalars.item(recorder(), tensor)
    if isinstance(tensor.shape[0], torch.SymInt):
        if tensor.dim() == 1:
            kind = float if tensor.is_floating_point() else bool if tensor.dtype == torch.bool else int
            return TracedList([Many.of_rows(tensor.to(scalars.DTYPE[kind], copy=True), kind)])
        return Rows(tensor.shape[0], lambda i: numbers_of(tensor.select(0, i)))
    return [numbers_of(row) for row in tensor.unbind(0)]
