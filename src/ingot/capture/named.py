"""Places of containers and attributes under names that data puts together: `layers[f"expert_{n}"]`,
`layers[str(n)]`, `getattr(self, f"head_{n}")`.
"""

# Containers hold whatever the model's Python has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture import scalars
from ingot.capture.request import recorder
from ingot.capture.scalars import Symbolic, is_data
from ingot.capture.standins import subscripts

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_MAPPINGS = (dict, torch.nn.ModuleDict, torch.nn.ParameterDict)


def item(rt: Runtime, container: Any, make: Any, parts: Sequence[Any]) -> Any:
    """`container[f"…"]`; `make` is what stands for `str` where that made the string, else None."""
    if isinstance(container, _MAPPINGS) and _waits(make, parts):
        names = [str(k) for k in container if isinstance(k, str)]
        return _one_of(rt, names, parts, container.__getitem__)
    return rt.item(container, _text(rt, make, parts))


def attribute(rt: Runtime, get: Any, owner: Any, make: Any, parts: Sequence[Any]) -> Any:
    """`getattr(owner, f"…")`; `get` is what stands for `getattr`."""
    if get is getattr and _waits(make, parts):
        return _one_of(rt, dir(owner), parts, lambda name: getattr(owner, name))
    return rt.call(get, owner, _text(rt, make, parts))


def _waits(make: Any, parts: Sequence[Any]) -> bool:
    """Whether the run alone knows the name, which is put together from whole numbers."""
    g = recorder()
    unknown = [p for p in parts if isinstance(p, (torch.Tensor, *Symbolic)) and is_data(g, p)]
    return bool(unknown) and make in (None, str) and all(_is_whole(p, make) for p in unknown)


def _is_whole(part: Any, make: Any) -> bool:
    if isinstance(part, torch.Tensor):  # which str() shows as a tensor
        return make is None and not part.dim() and part.dtype in _WHOLE
    return isinstance(part, torch.SymInt)


def _text(rt: Runtime, make: Any, parts: Sequence[Any]) -> Any:
    if make is not None:
        return rt.call(make, *parts)

    def joined(*values: Any) -> str:
        return "".join(v if isinstance(v, str) else format(rt.text(v)) for v in values)

    return rt.formatted(joined, *parts)


def _one_of(rt: Runtime, names: Sequence[str], parts: Sequence[Any], get: Callable[[str], Any]) -> Any:
    """What stands under the name that the run's numbers make; the model checks that there is one."""
    g = recorder()
    subscripts.require_alike(*parts)
    whole, numbers = "", list[Any]()
    for p in parts:
        if isinstance(p, (torch.Tensor, *Symbolic)) and is_data(g, p):
            whole += r"(0|-?[1-9]\d*)"
            numbers.append(scalars.item(g, p) if isinstance(p, torch.Tensor) else p)
        else:
            whole += re.escape(format(p))
    rows = [(found.groups(), name) for name in names if (found := re.fullmatch(whole, name))]

    def meant(made: Sequence[str]) -> Any:
        holds: Any = True
        for n, text in zip(numbers, made, strict=True):
            holds = rt.both(holds, lambda n=n, text=text: rt.equal(n, int(text)))
        return holds

    some: Any = False
    for made, _ in rows:
        some = rt.either(some, lambda made=made: meant(made))
    rt.check(some, None)
    found = get(rows[-1][1])
    for made, name in reversed(rows[:-1]):
        found = rt.choose(meant(made), lambda name=name: get(name), lambda found=found: found)
    return found
