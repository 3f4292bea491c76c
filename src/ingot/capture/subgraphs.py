"""What the graph of an exported program calls besides ATen: control flow over subgraphs, blocks with another
setting, operators that write into copies, and checks of numbers.
"""

# torch's operators take functions and structures of any kind.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false, reportUnknownLambdaType=false

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch._higher_order_ops.auto_functionalize import get_mutable_args, read_view_information_from_args
from torch.utils import _pytree as pytree

from ingot.capture import torch_control
from ingot.capture.checks import demand, line, require
from ingot.capture.request import recorder
from ingot.capture.scalars import depends_on_data


def cond(condition: Any, then: Callable[..., Any], other: Callable[..., Any], operands: Any = ()) -> Any:
    """torch.cond."""
    return torch_control.branch(condition, then, other, operands)


def while_loop(going: Callable[..., Any], body: Callable[..., Any], start: Any, more: Any = ()) -> Any:
    """torch.while_loop; what both functions read besides the state comes last."""
    return torch_control.loop(lambda *state: going(*state, *more), lambda *state: body(*state, *more), start)


def scan(combine: Callable[..., Any], init: Sequence[Any], xs: Any, more: Any = ()) -> list[Any]:
    """torch.scan with flat lists: the carry, then the outputs of all rounds stacked."""

    def round_(carry: Sequence[Any], row: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        found = list(combine(*carry, *row, *more))
        return found[: len(init)], found[len(init) :]

    carry, stacked = torch_control.scanned(round_, list(init), list(xs), 0, False)
    return [*carry, *stacked]


def associative_scan(combine: Callable[..., Any], xs: Any, more: Any = ()) -> list[Any]:
    """Each row combined with all before it; the first is as it was."""

    def round_(carry: Sequence[Any], row: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        found = list(combine(*carry, *row, *more))
        return found, list(found)

    _, rest = torch_control.scanned(round_, [x[0] for x in xs], [x[1:] for x in xs], 0, False)
    return [torch.cat([x[:1], r]) for x, r in zip(xs, rest, strict=True)]


def map_rows(function: Callable[..., Any], xs: Any, more: Any = ()) -> Any:
    """torch's map over the rows of several tensors."""
    return torch_control.mapped(lambda row: function(*row, *more), list(xs), ())


def autocast(device: str, dtype: Any, on: bool, cached: Any, function: Callable[..., Any], *args: Any) -> Any:
    """A block under torch.autocast."""
    with torch.autocast(device, dtype=dtype, enabled=on, cache_enabled=cached):
        return function(*args)


def plain(function: Callable[..., Any], *args: Any, **_: Any) -> Any:
    """A block that is only marked: the same call."""
    return function(*args)


def without_mark(_: Any, function: Callable[..., Any], *args: Any) -> Any:
    """A block under torch.no_grad, which changes no value."""
    return function(*args)


def with_hints(function: Callable[..., Any], args: Any, kwargs: Any, **_: Any) -> Any:
    """A block with hints for a compiler: the same call."""
    return function(*args, **kwargs)


def wider(operator: Any, dtype: torch.dtype, *args: Any) -> Any:
    """An operator that gives this dtype, computed in what its operands and that have in common."""
    kinds = [x.dtype for x in args if isinstance(x, torch.Tensor)]
    common = functools.reduce(torch.promote_types, kinds, dtype)
    return operator(*(x.to(common) if isinstance(x, torch.Tensor) else x for x in args)).to(dtype)


def assert_scalar(condition: Any, message: str = "") -> None:
    """torch._check, in the graph where the run decides.

    Raises:
        RuntimeError: it does not hold.
    """
    g = recorder()
    if not isinstance(condition, torch.SymBool):
        if not condition:
            raise RuntimeError(message)
    elif depends_on_data(g, g.env.expr(condition)):
        if g.env.known(g.env.expr(condition)) is not True:
            require(g, g.scalar(condition), f"{_in_words(message)}`{line()}`")
    else:
        demand(g, condition, message)


def _in_words(message: str) -> str:
    """torch's own message for a check that it derived, as far as it says something to a user."""
    found = re.search(r"expression (.+?) on node", message)
    return re.sub(r"\b[su]\d+\b", "the number", found[1]) + ", of " if found else ""


def in_range(size: Any, low: Any = None, high: Any = None, **bounds: Any) -> None:
    """torch._check of a number's bounds."""
    low, high = bounds.get("min", low), bounds.get("max", high)
    if low is not None:
        assert_scalar(size >= low, f"{line()}: at least {low} is wanted")
    if high is not None:
        assert_scalar(size <= high, f"{line()}: at most {high} is wanted")


def functionalized(operator: Any, **kwargs: Any) -> Any:
    """An operator that writes into its arguments, on copies: its results, then the copies."""
    names, _ = get_mutable_args(operator)
    copies = {n: pytree.tree_map(_copy, kwargs[n]) for n in names}
    return _results(operator(**(kwargs | copies)), copies.values())


def functionalized_views(operator: Any, *, _all_bases: Sequence[Any], **kwargs: Any) -> Any:
    """The same, where the arguments are views of the tensors `_all_bases`, which are copied."""
    names, types = get_mutable_args(operator)
    views = read_view_information_from_args(names, types, kwargs, list(_all_bases))
    copies = [_copy(base) for base in _all_bases]
    written = {n: _viewed(views[n], copies) for n in names}
    return _results(operator(**(kwargs | written)), copies)


def _copy(x: Any) -> Any:
    return x.clone() if isinstance(x, torch.Tensor) else x


def _viewed(view: Any, copies: list[Any]) -> Any:
    if isinstance(view, list):
        return [_viewed(v, copies) for v in view]
    return None if view is None else view.regenerate_view(copies)


def _results(out: Any, copies: Iterable[Any]) -> tuple[Any, ...]:
    return (*(out if isinstance(out, tuple) else (out,)), *copies)


_OPS: Any = torch.ops.higher_order
_ATEN: Any = torch.ops.aten
#: What to call in the place of an operator that a graph names.
INSTEAD: dict[Any, Callable[..., Any]] = {
    _OPS.cond: cond,
    _OPS.while_loop: while_loop,
    _OPS.scan: scan,
    _OPS.associative_scan: associative_scan,
    _OPS.map_impl: map_rows,
    _OPS.wrap_with_autocast: autocast,
    _OPS.wrap_with_set_grad_enabled: without_mark,
    _OPS.invoke_subgraph: lambda function, _, *args: function(*args),
    _OPS.wrap: plain,
    _OPS.wrap_activation_checkpoint: plain,
    _OPS.tag_activation_checkpoint: plain,
    _OPS.auto_functionalized: functionalized,
    _OPS.auto_functionalized_v2: functionalized_views,
    _OPS.strict_mode: lambda function, args: function(*args),
    _OPS.hints_wrapper: with_hints,
    _OPS.out_dtype: wider,
    _ATEN.detach_.default: lambda tensor: tensor,  # of a constant in a file torch refuses it
    _ATEN._assert_scalar.default: assert_scalar,
    _ATEN._assert_tensor_metadata.default: lambda *_, **__: None,  # what capture has found out by itself
    torch.ops.export.access_subclass_inner_tensor.default: getattr,
    _ATEN.sym_constrain_range.default: in_range,
    _ATEN.sym_constrain_range_for_size.default: in_range,
}
