"""torch.cond, torch.while_loop, torch.scan and map, and checks of tensors: torch's own control flow as
branches, loops and checks.

Their code is swapped for the time of a recording, so that they are found under every name that a model has
for them.
"""

# torch's operators take functions and structures of any kind.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false, reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator
from types import FunctionType, SimpleNamespace
from typing import Any

import sympy  # pyright: ignore[reportMissingTypeStubs]
import torch
from torch._functorch import vmap
from torch.nn.modules import transformer
from torch.utils import _pytree as pytree  # pyright: ignore[reportPrivateUsage]

from ingot.capture import flex
from ingot.capture.checks import line, require
from ingot.capture.lists import Rows, TracedList
from ingot.capture.request import recorder
from ingot.capture.scope import inside
from ingot.capture.stage import RUNTIME
from ingot.capture.where import models_own, quoted_line
from ingot.errors import ExportError


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
    encode: Any = torch.nn.TransformerEncoder.forward
    found: Any = (
        *((cond, _cond), (while_loop, _while_loop), (scan, _scan), (torch_map, _map), (checked, _all)),
        (torch._assert, _assert),
        (getattr(vmap, "_get_chunked_inputs", None), _in_one),
        (torch.nn.functional.gaussian_nll_loss, _gaussian_nll),
        (torch.nn.functional.linear_cross_entropy, _linear_cross_entropy),
        *flex.pairs(),
        *((getattr(observer, "forward", None), _observe) for observer in _observers()),
        *((getattr(transformer, "_detect_is_causal_mask", None), _said_to_be_causal), (encode, _encode)),
    )
    for function, instead in found:
        if isinstance(function, FunctionType):
            yield function, instead


def _observers() -> list[type]:
    """Modules that note how far values span, so that a quantised model may be made: none where nobody has
    imported them.
    """
    module: Any = sys.modules.get("torch.ao.quantization.observer")
    if module is None:
        return []
    kinds = module.UniformQuantizationObserverBase, module.RecordingObserver
    found = [x for x in vars(module).values() if isinstance(x, type) and issubclass(x, kinds)]
    return [kind for kind in found if "forward" in vars(kind)]


def _observe(self: Any, x_orig: Any) -> Any:
    from ingot.capture import torch_control

    torch_control.refuse_observer(self)
    return x_orig


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


def _in_one(flat_args: Any, flat_in_dims: Any, batch_size: Any, chunk_size: Any) -> Any:  # noqa: ARG001
    # torch.vmap(…, chunk_size=n): chunks save memory, and give what the whole batch does.
    return (tuple(flat_args),)


def _assert(condition: Any, message: Any) -> None:
    from ingot.capture import torch_control

    torch_control.asserted(condition, message)


def refuse_observer(observer: Any) -> None:
    """Raises ExportError: the model is one that calibration runs."""
    raise ExportError(
        f"{quoted_line()}\nA {type(observer).__name__} notes here how far values span, for a quantised model "
        "to be made. Export that one: what torch.ao.quantization.convert (convert_fx, convert_pt2e) makes of "
        "this model. Where it is inside of a FakeQuantize, call "
        "model.apply(torch.ao.quantization.disable_observer) before the export."
    )


def asserted(condition: Any, message: Any) -> None:
    """torch._assert: a check in the graph; a size of an input that must be one number is fixed at it.

    Raises:
        AssertionError: it does not hold.
    """
    g = recorder()
    e = g.env.expr(condition) if isinstance(condition, torch.SymBool) else None
    one = isinstance(e, sympy.Eq) and any(a.is_number for a in e.args) and any(a.is_Symbol for a in e.args)
    if not one or g.env.of_data(e):
        RUNTIME.check(condition, lambda: message)
    elif not condition:
        raise models_own(AssertionError(message))


def check_all(error_type: Any, condition: Any, message: Any) -> None:
    """torch._check_tensor_all: a check in the graph where data decides."""
    g = recorder()
    holds = RUNTIME.truth(condition.all())
    if isinstance(holds, torch.SymBool):
        require(g, g.scalar(holds), f"`{line()}`")
    elif not holds:
        raise error_type(message() if callable(message) else "Expected cond to be True for all elements")


def _gaussian_nll(
    input: Any, target: Any, var: Any, full: Any = False, eps: Any = 1e-6, reduction: Any = "mean"
) -> Any:
    from ingot.capture.aten import loss

    return loss.gaussian_nll(input, target, var, full, eps, reduction)


def _linear_cross_entropy(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    weight: Any = None,
    reduction: Any = "mean",
    ignore_index: Any = None,
    label_smoothing: Any = 0.0,
    options: Any = None,
) -> Any:
    from ingot.capture.aten import loss

    given = linear_bias, weight, reduction, ignore_index, label_smoothing, options
    return loss.linear_cross_entropy(input, linear_weight, target, *given)


def _said_to_be_causal(mask: Any, is_causal: Any = None, size: Any = None) -> bool:  # noqa: ARG001
    # Found out from the mask's contents, it is a hint: the mask says the same.
    return is_causal is True


def _encode(
    self: Any, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: Any = None
) -> Any:
    from ingot.capture import torch_control

    return torch_control.encoded(self, src, mask, src_key_padding_mask, is_causal)


#: nn.TransformerEncoder.forward, whatever its code is just now
_plain_encoder = FunctionType(
    torch.nn.TransformerEncoder.forward.__code__,
    torch.nn.TransformerEncoder.forward.__globals__,
    argdefs=torch.nn.TransformerEncoder.forward.__defaults__,
)


def encoded(encoder: Any, src: Any, mask: Any, padding: Any, is_causal: Any) -> Any:
    """nn.TransformerEncoder.forward in inference: padding that is all at the ends of the rows makes nested
    tensors of them, which leave zeros there.
    """
    nested = torch.backends.mha.get_fastpath_enabled() and getattr(encoder, "use_nested_tensor", False)
    if mask is not None or padding is None or src.dim() != 3 or not nested or encoder.layers[0].training:
        return _plain_encoder(encoder, src, mask, padding, is_causal)
    kept = padding.logical_not() if padding.dtype == torch.bool else padding == 0
    if getattr(encoder, "mask_check", True):
        zeros = kept.logical_not() & (kept[:, 1:] <= kept[:, :-1]).all()
    else:  # as many from the start as are kept at all
        padding = zeros = torch.arange(src.shape[1]) >= kept.sum(1, keepdim=True)
    layers = SimpleNamespace(layers=encoder.layers, norm=None)
    output = _plain_encoder(layers, src, None, padding, is_causal)
    output = output.masked_fill(zeros.unsqueeze(-1), 0.0)
    return output if encoder.norm is None else encoder.norm(output)


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
    """torch.scan: the last carry, and the outputs of all rounds stacked along the dimension that was read."""
    columns, structure = pytree.tree_flatten(xs)
    dim %= columns[0].dim()
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
    if dim:
        stacked = [s.movedim(0, dim) if dim < s.dim() else s for s in stacked]  # torch leaves the others
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
