"""torch.cond, torch.while_loop, torch.scan and map, and checks of tensors: torch's own control flow as
branches, loops and checks.

Their code is swapped for the time of a recording, so that they are found under every name that a model has
for them.
"""

# torch's operators take functions and structures of any kind.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from types import FunctionType
from typing import Any

import torch
from torch.utils import _pytree as pytree  # pyright: ignore[reportPrivateUsage]

from ingot.capture.checks import line, require
from ingot.capture.lists import Rows, TracedList
from ingot.capture.request import recorder
from ingot.capture.scope import inside
from ingot.capture.stage import RUNTIME


@contextlib.contextmanager
def understood() -> Generator[None]:
    """torch's control flow is recorded."""
    pairs = list(_pairs())
    saved = [(function, function.__code__) for function, _ in pairs]
    try:
        for function, instead in pairs:
            function.__code__ = instead.__code__
        yield
    finally:
        for function, code in saved:
            function.__code__ = code


def _pairs() -> Generator[tuple[FunctionType, FunctionType]]:
    """Functions of torch and what has their code instead: the same parameters, and a call of ours."""
    from torch._higher_order_ops.cond import cond
    from torch._higher_order_ops.map import map as torch_map
    from torch._higher_order_ops.scan import scan
    from torch._higher_order_ops.while_loop import while_loop

    checked = getattr(torch, "_check_tensor_all_with", None)
    found: Any = ((cond, _cond), (while_loop, _while_loop), (scan, _scan), (torch_map, _map), (checked, _all))
    for function, instead in found:
        if isinstance(function, FunctionType):
            yield function, instead


def _cond(pred: Any, true_fn: Any, false_fn: Any, operands: Any = ()) -> Any:
    from ingot.capture import torch_control

    return torch_control.branch(pred, true_fn, false_fn, operands)


def _while_loop(cond_fn: Any, body_fn: Any, carried_inputs: Any) -> Any:
    from ingot.capture import torch_control

    return torch_control.loop(cond_fn, body_fn, carried_inputs)


def _scan(combine_fn: Any, init: Any, xs: Any, *, dim: Any = 0, reverse: Any = False) -> Any:
    from ingot.capture import torch_control

    return torch_control.scanned(combine_fn, init, xs, dim, reverse)


def _map(f: Any, xs: Any, *args: Any) -> Any:
    from ingot.capture import torch_control

    return torch_control.mapped(f, xs, args)


def _all(error_type: Any, cond: Any, message: Any = None) -> None:
    from ingot.capture import torch_control

    torch_control.check_all(error_type, cond, message)


def check_all(error_type: Any, condition: Any, message: Any) -> None:
    """torch._check_tensor_all: a check in the graph where data decides."""
    g = recorder()
    holds = RUNTIME.truth(condition.all())
    if isinstance(holds, torch.SymBool):
        require(g, g.scalar(holds), f"`{line()}`")
    elif not holds:
        raise error_type(message() if callable(message) else "Expected cond to be True for all elements")


def branch(condition: Any, then: Callable[..., Any], other: Callable[..., Any], operands: Any) -> Any:
    """torch.cond."""
    return RUNTIME.choose(condition, lambda: then(*operands), lambda: other(*operands))


def loop(going: Callable[..., Any], body: Callable[..., Any], start: Any) -> Any:
    """torch.while_loop: what `body` gives, tuples throughout."""
    state: Any = tuple(start)

    def test() -> Any:
        return going(*state)

    def round_() -> None:
        nonlocal state
        found = body(*state)
        state = tuple(found) if isinstance(found, (tuple, list)) else (found,)

    RUNTIME.repeat(test, round_, ("state",), ("state",), ("state",))
    return state


def scanned(combine: Callable[..., Any], init: Any, xs: Any, dim: int, reverse: bool) -> tuple[Any, Any]:
    """torch.scan: the last carry, and the outputs of all rounds stacked."""
    columns, structure = pytree.tree_flatten(xs)
    length = columns[0].shape[dim]
    carry: Any = init

    def row_at(i: Any) -> Any:
        return pytree.tree_unflatten([c.select(dim, i) for c in columns], structure)

    shape = _outputs_of(lambda: combine(init, row_at(0))[1])
    outs = [TracedList() for _ in range(shape.num_leaves)]

    def round_(i: Any) -> None:
        nonlocal carry
        carry, out = combine(carry, row_at(length - 1 - i if reverse else i))
        for column, part in zip(outs, pytree.tree_flatten(out)[0], strict=True):
            list.append(column, part)

    RUNTIME.each(Rows(length, lambda i: i), round_, None, ("carry",), ("carry",), ("carry",))
    stacked = [RUNTIME.call(torch.stack, column) for column in outs]
    if reverse:
        stacked = [s.flip(0) for s in stacked]
    return carry, pytree.tree_unflatten(stacked, shape)


def _outputs_of(one_round: Callable[[], Any]) -> Any:
    """The structure of what a round gives: it is recorded and thrown away."""
    with inside(recorder()) as trial:
        out = one_round()
    trial.body.discard()
    return pytree.tree_flatten(out)[1]


def mapped(function: Callable[..., Any], xs: Any, args: Any) -> Any:
    """torch's map: the function of every row, stacked."""
    return scanned(lambda carry, row: (carry, function(row, *args)), (), xs, 0, False)[1]
