"""`contiguous` and `reshape`, which copy a tensor unless its memory lies as they want it. Where sizes decide
that, they give a copy here, and the two are linked: what is written into one may be in the other, so that a
read of it is refused then (see `sharing`).
"""

# torch's symbolic sizes and SymPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NoReturn

import sympy
import torch

from ingot.capture.alias import argument
from ingot.capture.alike import formula
from ingot.capture.bounds import functions
from ingot.capture.entries import Entry
from ingot.capture.record import Recorder
from ingot.capture.request import recorder
from ingot.capture.sharing import link_copy
from ingot.capture.where import quoted_line
from ingot.errors import DataDependentError

Tensor: Any = torch.Tensor
#: The order of axes that a format wants, where it is not their own.
_ORDERS: dict[Any, tuple[int, ...]] = {
    torch.channels_last: (0, 2, 3, 1),
    torch.channels_last_3d: (0, 2, 3, 4, 1),
}


def _contiguous(tensor: Any, *, memory_format: Any = torch.contiguous_format) -> Any:
    made = tensor.contiguous(memory_format=memory_format)
    order = _ORDERS.get(memory_format, range(tensor.dim()))
    if memory_format == torch.preserve_format or not _of_sizes(tensor) or len(order) != tensor.dim():
        return made
    g = recorder()
    layout, sure = _layout(g, tensor), False
    if layout is not None:
        in_order = [[found[d] for d in order] for found in layout]
        always = _Formulas.one_after_the_other, _Formulas.never_one_after_the_other
        sure = _known(g, always[not _shares(g, tensor, made)], *in_order)
    return _told(g, tensor, made, sure, lambda: tensor.clone(memory_format=memory_format))


def _reshaping(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    made = function(*args, **kwargs)
    if not args or not _of_sizes(args[0]):
        return made
    tensor, *rest = args
    g = recorder()
    layout, sure = _layout(g, tensor), False
    if layout is not None and _shares(g, tensor, made):
        alike = _known(g, _Formulas.one_after_the_other, *layout)
        sure = alike or _known(g, _Formulas.taken_apart, *layout, made.shape)
    elif layout is not None:
        sure = _known(g, _Formulas.never_taken_apart, *layout, made.shape)
    return _told(g, tensor, made, sure, lambda: function(tensor.clone(), *rest, **kwargs))


def lies_as_counted(g: Recorder, tensor: Any) -> bool:
    """Whether the elements lie in memory as they are counted at all sizes, if those of inputs do."""
    entry = g.entry(tensor)
    shared = entry.part_by() is not None or entry.group.links or entry.group.join is not None
    if shared or g.lies_otherwise is not None:
        return False
    return not _of_sizes(tensor) or _Formulas(g).one_after_the_other(tensor.shape, tensor.stride())


def require_known(g: Recorder, tensor: Any, what: str) -> None:
    """Refuse to say how a tensor lies in memory, unless that is known of tensors of all sizes, of inputs that
    lie as they are counted.
    """
    entry = g.entry(tensor)
    part, base = entry.part_by(), entry.base().tensor
    found = why = None
    if part is not None:  # which is a tensor of its own in the recording
        found = f"a part of another tensor ({part})"
    elif entry.group.links or entry.group.join is not None:
        found = "a tensor of which sizes or data decide whose memory it is"
    elif _of_sizes(base) and not _Formulas(g).one_after_the_other(base.shape, base.stride()):
        found = "a result whose elements lie in another order than they are counted in, as sizes decide"
    elif g.lies_otherwise is not None:
        why = (
            f"The example's {g.lies_otherwise!r} does not lie in memory as its elements are counted, and "
            f"this line asks for a {what}: inputs of ONNX always lie so. Pass it with .contiguous()."
        )
    if found is not None:
        why = (
            f"This line asks for the {what} of {found}, which no tensor of ONNX has. Ask the whole "
            "tensor, or compute it of .shape."
        )
    if why is not None:
        raise DataDependentError(f"{quoted_line()}\n{why}")
    lie = f"{what} takes the inputs to lie in memory as their elements are counted, as they do in ONNX"
    g.assume("values", lie, "fixed")


def refuse_address(what: str) -> NoReturn:
    """Refuse to say where in memory a tensor is: in the recording, nowhere."""
    raise DataDependentError(
        f"{quoted_line()}\nThis line asks where a tensor lies in memory ({what}), and no tensor of ONNX lies "
        "anywhere. Keep what you know of it in a variable, or ask whether they are one (`a is b`)."
    )


def _of_sizes(tensor: Any) -> bool:
    """Whether sizes decide how a tensor lies in memory."""
    return not tensor.is_complex() and any(
        isinstance(n, torch.SymInt) for n in (*tensor.shape, *tensor.stride())
    )


def _layout(g: Recorder, tensor: Any) -> tuple[list[Any], list[Any]] | None:
    """Sizes and strides; None where they are not known of a part of another tensor."""
    e = g.entry(tensor)
    strides = list(tensor.stride()) if e.part_by() is None else _strides(e)
    return None if strides is None else (list(tensor.shape), strides)


def _strides(e: Entry) -> list[Any] | None:
    """The strides of a view, from those of what it is a view of: tensors without contents have others."""
    view = e.view
    if view is None:
        return list(e.tensor.stride())
    found = _strides(view.parent)
    if found is None or view.op in ("alias", "detach"):
        return found
    rank = len(found)
    if view.op == "slice":
        dim = argument(view, 1, "dim", 0) % rank
        found[dim] = found[dim] * argument(view, 4, "step", 1)
    elif view.op in ("select", "unbind"):
        del found[argument(view, 1, "dim", 0) % rank]
    elif view.op == "permute":
        found = [found[d % rank] for d in view.args[1]]
    elif view.op in ("t", "transpose") and rank >= 2:
        a, b = (0, 1) if view.op == "t" else (view.args[1] % rank, view.args[2] % rank)
        found[a], found[b] = found[b], found[a]
    elif view.op == "unsqueeze":
        found.insert(view.args[1] % (rank + 1), 1)
    elif view.op not in ("narrow", "split", "split_with_sizes", "t"):
        return None
    return found


def _shares(g: Recorder, tensor: Any, made: Any) -> bool:
    """Whether a result is its tensor's own memory, for the sizes of the recording."""
    return g.entry(made).group is g.entry(tensor).group


def _told(g: Recorder, tensor: Any, made: Any, sure: bool, copy: Callable[[], Any]) -> Any:
    """What a call has made, or a copy, where nobody knows whose memory that is.

    sure: whether it is the tensor's own memory, or is not, for all sizes
    """
    if sure:
        return made
    made = copy() if _shares(g, tensor, made) else made
    link_copy(g, made, [tensor])
    return made


def _known(g: Recorder, question: Callable[..., bool], *sizes: Sequence[Any]) -> bool:
    """What is known of sizes and strides, worked out once for all tensors that lie alike."""
    formulas = tuple(tuple(map(formula, parts)) for parts in sizes)
    key = question, g.env.moment, tuple(g.env.path), formulas
    found = g.layouts_known.get(key)
    if found is None:
        found = g.layouts_known[key] = question(_Formulas(g), *sizes)
    return found


class _Formulas:
    """Sizes and strides as formulas, in which no size is 0: what has no elements has no memory."""

    def __init__(self, g: Recorder) -> None:
        self.g = g

    def of(self, n: Any) -> Any:
        """A size or stride as a formula."""
        e = self.g.env.expr(n)
        while most := {m: _without_1(m) for m in e.atoms(sympy.Max, functions().Max) if 1 in m.args}:
            e = e.xreplace(most)
        return e

    def same(self, a: Any, b: Any) -> bool:
        """Whether two formulas are always the same."""
        return bool(a == b) or sympy.expand(self.g.env.expand(a) - self.g.env.expand(b)) == 0

    def is_several(self, n: Any) -> bool:
        """Whether a size is never 1, as its declared range says, or the branch that is recorded."""
        return bool(self.g.env.known(sympy.Ge(n, 2)))

    def differ(self, a: Any, b: Any) -> bool:
        """Whether two formulas are never the same: one is a multiple of the other, or always larger."""
        if a == 0 or b == 0:  # of what is repeated: the other one is a size, or a product of sizes
            return bool(a != b)
        times = a / b
        if times.is_number:
            return bool(times != 1)
        for e in map(sympy.expand, (times, 1 / times)):
            if e.is_polynomial():
                return self.is_several(e)
        return any(self.g.env.known(c) for c in (sympy.Gt(a, b), sympy.Lt(a, b)))

    def one_after_the_other(self, sizes: Sequence[Any], strides: Sequence[Any]) -> bool:
        """Whether elements always lie in memory as they are counted."""
        return all(self.same(stride, after) for _, stride, after in self._counted(sizes, strides))

    def never_one_after_the_other(self, sizes: Sequence[Any], strides: Sequence[Any]) -> bool:
        """Whether they never do."""
        axes = self._counted(sizes, strides)
        return any(self.is_several(size) and self.differ(stride, after) for size, stride, after in axes)

    def _counted(self, sizes: Sequence[Any], strides: Sequence[Any]) -> Iterator[tuple[Any, Any, Any]]:
        """Each axis, the last one first: its size, its stride, and the one that it has where elements lie as
        they are counted.
        """
        after: Any = sympy.S.One
        for size, stride in self._axes(sizes, strides):
            yield size, stride, after
            after = after * size

    def _axes(self, sizes: Sequence[Any], strides: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """The size and stride of each axis, the last one first, but those of size 1: their strides are of no
        interest.
        """
        both = zip(map(self.of, reversed(sizes)), map(self.of, reversed(strides)), strict=True)
        return ((size, stride) for size, stride in both if size != 1)

    def _joined(self, sizes: Sequence[Any], strides: Sequence[Any]) -> list[tuple[Any, Any]]:
        """The same, with axes that always lie one after the other as one."""
        parts: list[tuple[Any, Any]] = []
        for size, stride in self._axes(sizes, strides):
            if parts and self.same(stride, parts[-1][0] * parts[-1][1]):
                parts[-1] = parts[-1][0] * size, parts[-1][1]
            else:
                parts.append((size, stride))
        return parts

    def taken_apart(self, sizes: Sequence[Any], strides: Sequence[Any], wanted: Sequence[Any]) -> bool:
        """Whether each new axis is always a part of axes that lie one after the other.

        Source: `computeStride_impl` in aten/src/ATen/TensorUtils.cpp.
        """
        parts, left = self._joined(sizes, strides), list(map(self.of, wanted))
        inner = parts[:-1]  # what is left is as much as the outermost ones
        return all(self.same(self._taken(left, whole)[-1], whole) for whole, _ in inner)

    def never_taken_apart(self, sizes: Sequence[Any], strides: Sequence[Any], wanted: Sequence[Any]) -> bool:
        """Whether there is always one that is none."""
        parts, left = self._joined(sizes, strides), list(map(self.of, wanted))
        if not all(self.is_several(size) for size, _ in parts):
            return False
        if not all(self.differ(outer[1], inner[0] * inner[1]) for inner, outer in pairwise(parts)):
            return False  # for some sizes, two of them may be one
        for whole, _ in parts[:-1]:
            *less, found = self._taken(left, whole)
            if not all(self.differ(n, whole) for n in less):
                return False
            if not self.same(found, whole):
                return self.differ(found, whole)
        return False

    def _taken(self, left: list[Any], whole: Any) -> list[Any]:
        """How much the last ones of the axes that are left are together, one more each time, until they are
        the whole; those are taken from the list.
        """
        found: list[Any] = [sympy.S.One]
        while left and not self.same(found[-1], whole):
            found.append(found[-1] * left.pop())
        return found


def _without_1(most: Any) -> Any:
    """max(1, n) of a size that is not 0."""
    return most.func(*(a for a in most.args if a != 1))


INSTEAD: dict[Any, Callable[..., Any]] = {
    Tensor.contiguous: _contiguous,
    **{
        f: partial(_reshaping, f)
        for f in (
            *(torch.reshape, torch.flatten, torch.ravel),
            *(Tensor.reshape, Tensor.flatten, Tensor.ravel, Tensor.reshape_as),
        )
    },
}
