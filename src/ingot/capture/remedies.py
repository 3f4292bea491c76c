"""What to write in the place of functions of Python's library that want to know each element at once."""

# Modules and frames hold anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import bisect
import builtins
import dis
import heapq
import itertools
import statistics
from types import FrameType, ModuleType
from typing import Any

from ingot.capture.where import model_frame

_INSTEAD: list[tuple[ModuleType, str, str]] = [
    (
        heapq,
        "heapify heappop heappush heappushpop heapreplace merge",
        "torch.topk or torch.sort of a tensor, or heapq.nlargest or heapq.nsmallest of the whole list",
    ),
    (
        bisect,
        "bisect_left bisect_right bisect",
        "torch.searchsorted(places, values), with right=True for bisect_right, or torch.bucketize",
    ),
    (
        bisect,
        "insort_left insort_right insort",
        "torch.sort of the list with the new element in it, torch.cat((values, new))",
    ),
    (
        itertools,
        "groupby",
        "torch.unique_consecutive with return_inverse=True and return_counts=True, and index_add for sums "
        "over the groups",
    ),
    (
        itertools,
        "dropwhile takewhile",
        "a loop with `break`, or a mask of the first ones, (x > 0).long().cumprod(0).bool()",
    ),
    (itertools, "compress filterfalse", "a comprehension with `if`, or a mask, x[keep]"),
    (itertools, "islice", "a slice, `rows[a:b]`"),
    (itertools, "zip_longest", "zip of what torch.nn.functional.pad has made of one length"),
    (
        statistics,
        "fmean mean median mode pstdev pvariance stdev variance",
        "the tensor's own mean, median, mode, std and var",
    ),
    (
        builtins,
        "sorted",
        "torch.argsort(keys, stable=True), or torch.sort, and x.index_select(0, order)",
    ),
]
#: The name of a function as models write it, and what to write, by the function's id; of two names the last.
_BY_ID: dict[int, tuple[str, str]] = {
    id(getattr(module, name)): (name if module is builtins else f"{module.__name__}.{name}", text)
    for module, names, text in _INSTEAD
    for name in names.split()
}
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF")
_OF_THAT = ("LOAD_ATTR", "LOAD_METHOD")


def remedy(frame: FrameType | None, otherwise: str) -> str:
    """What to do about a refusal, where the model's line that `frame` runs, or is called from, names one of
    these functions; `otherwise` where it names none.
    """
    model = model_frame(frame) if frame is not None else None
    if model is None:
        return otherwise
    found = dict(_BY_ID[id(function)] for function in _named(model) if id(function) in _BY_ID)
    return " ".join(f"In the place of {name}, write {text}." for name, text in found.items()) or otherwise


def _named(frame: FrameType) -> list[Any]:
    """What the names of the line that runs stand for: variables, and attributes of modules."""
    found: list[Any] = []
    held: Any = None
    for step in dis.get_instructions(frame.f_code):
        position = step.positions
        if position is None or position.lineno != frame.f_lineno:
            continue
        if step.opname in _LOADS:
            held = _variable(frame, str(step.argval))
        elif step.opname in _OF_THAT and isinstance(held, ModuleType):
            held = getattr(held, str(step.argval), None)
        else:
            continue
        found.append(held)
    return found


def _variable(frame: FrameType, name: str) -> Any:
    for names in (frame.f_locals, frame.f_globals, frame.f_builtins):
        if name in names:
            return names[name]
    return None
