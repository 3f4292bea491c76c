"""`tensor[index]`, read and written, where a part of the index is a number or truth of the run's."""

# torch's fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from functools import partial
from typing import Any

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore[reportPrivateUsage]

from ingot.capture import complex_numbers, fakes, gradients
from ingot.capture.checks import require_place
from ingot.capture.entries import View
from ingot.capture.record import Recorder
from ingot.capture.standins.values import made_of_symbols, tensor_of

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8)
_MASKS = (torch.bool, torch.uint8)


def needs_select(index: Any) -> bool:
    """torch's own indexing would turn a symbolic position into the example's."""
    return any(
        _is_place(i)
        or _is_truth(i)
        or (isinstance(i, slice) and any(map(_is_place, (i.start, i.stop, i.step))))
        for i in _parts(index)
    )


def read(g: Recorder, tensor: Any, index: Any) -> Any:
    """tensor[index]: a view of the tensor, unless an array of positions is among the parts."""
    _require_places(tensor, index)
    view, rest = _view(g, tensor, index)
    return view if rest is None else view[rest]


def write(g: Recorder, tensor: Any, index: Any, value: Any) -> None:
    """tensor[index] = value."""
    _require_places(tensor, index)
    view, rest = _view(g, tensor, index)
    value = tensor_of(value) if made_of_symbols(value) else torch.as_tensor(value)
    if rest is not None:
        view[rest] = value
        return
    extra = value.dim() - view.dim()
    if extra > 0 and all(isinstance(n, int) and n == 1 for n in value.shape[:extra]):
        value = value.reshape(value.shape[extra:])  # torch leaves leading axes of 1 away
    view.copy_(value)


def _require_places(tensor: Any, index: Any) -> None:
    """Refuse places that data decides where the model would catch that an axis has no such one."""
    parts = _parts(index)
    for axis, i in enumerate(parts):
        if _is_place(i):
            plain = all(isinstance(before, (int, slice, torch.SymInt)) for before in parts[:axis])
            size = tensor.shape[axis] if plain and axis < tensor.dim() else 0  # else whichever it is
            require_place(i, size, "the axis")


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _is_place(i: Any) -> bool:
    if isinstance(i, torch.SymInt):
        return True
    return isinstance(i, FakeTensor) and not i.dim() and i.dtype in _WHOLE


def _is_truth(i: Any) -> bool:
    """Whether a part of an index takes all or nothing: torch would ask which."""
    return isinstance(i, torch.SymBool) or (
        isinstance(i, FakeTensor) and not i.dim() and i.dtype == torch.bool
    )


def _consumed(i: Any) -> int:
    """How many axes of the tensor a part of an index says something about."""
    if i is None or isinstance(i, (bool, torch.SymBool)):
        return 0
    if isinstance(i, torch.Tensor) and i.dtype in _MASKS:
        return i.dim()
    if isinstance(i, list):
        return _consumed(torch.as_tensor(i))
    return 1


def _view(g: Recorder, tensor: Any, index: Any) -> tuple[Any, tuple[Any, ...] | None]:
    """The view that slices, numbers and new axes give, and an index with what is left: arrays and masks."""
    axis, rest, arrays = 0, [], False
    parts = _parts(index)
    for n, i in enumerate(parts):
        if i is Ellipsis:
            end = tensor.dim() - sum(map(_consumed, parts[n + 1 :]))
            rest += [slice(None)] * (end - axis)
            axis = end
        elif i is None:
            tensor = tensor.unsqueeze(axis)
            rest.append(slice(None))
            axis += 1
        elif isinstance(i, slice):
            bounds = (b.item() if isinstance(b, torch.Tensor) else b for b in (i.start, i.stop, i.step))
            tensor = tensor[(slice(None),) * axis + (slice(*bounds),)]
            rest.append(slice(None))
            axis += 1
        elif isinstance(i, torch.Tensor) and not i.dim() and i.dtype in _WHOLE:
            tensor = _at_tensor(g, tensor, axis, i)
        elif _is_truth(i):  # a mask over a new axis of one
            tensor = tensor.unsqueeze(axis)
            rest.append(tensor_of(i).reshape(1) if isinstance(i, torch.SymBool) else i.reshape(1))
            axis += 1
            arrays = True
        elif isinstance(i, (torch.Tensor, list, bool)):
            rest.append(i)
            axis += _consumed(i)
            arrays = True
        else:
            tensor = tensor.select(axis, i)
    return tensor, tuple(rest) if arrays else None


def _at_tensor(g: Recorder, tensor: Any, axis: int, place: torch.Tensor) -> torch.Tensor:
    """tensor.select(axis, place): place is what it is now, whatever is written into it later."""
    real = g.real(place)
    if real is not None:
        with _disable_current_modes():
            number = int(real)
        return tensor.select(axis, number)
    g.locate()
    value = g.cast(g.val(place), place.dtype, torch.int64)
    return gradients.selected(g, partial(_at, g, tensor, axis, value), tensor, axis, place)


def _at(g: Recorder, tensor: Any, axis: int, place: ir.Value) -> torch.Tensor:
    if axis >= tensor.dim():
        raise IndexError(f"too many indices for tensor of dimension {tensor.dim()}")
    out = fakes.without_axis(g.mode, tensor, axis)
    if tensor.is_complex():
        re, im = (_at(g, part, axis, place) for part in complex_numbers.parts(g, tensor))
        g.bind_complex(out, re, im)
        return out
    value = _gathered(g, out, tensor, axis, place)
    parent = g.entry(tensor)
    view = View(partial(_at, g), parent, "select", _gathered, out, (tensor, axis, place), {}, None)
    g.new_entry(out, parent.group, value=value, view=view)
    g.annotate(value, out)
    g.note_dims(out, value)
    g.note_call("select", value)
    return out


def _gathered(g: Recorder, out: Any, tensor: torch.Tensor, axis: int, place: ir.Value) -> ir.Value:
    del out  # every row takes it
    return g.op("Gather", g.val(tensor), place, axis=axis)
