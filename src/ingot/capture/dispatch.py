"""The way of one ATen call through a recording: its fake result, its row, and which value is whose."""

# torch's fake tensors, operator overloads and dispatch modes are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode

from ingot.capture import (
    complex_numbers,
    fakes,
    formulas,
    gradients,
    mixed,
    scalars,
    translations,
    unwritten,
    writes,
)
from ingot.capture.alike import Answer, Look, Unlike
from ingot.capture.aten import Row
from ingot.capture.entries import View
from ingot.capture.folding import fold, lift
from ingot.capture.missing import without_row
from ingot.capture.overloads import RANDOM, Plan, name_of, python_source, tensors_of
from ingot.capture.parameters import of_schema
from ingot.capture.tensors import made_of_others
from ingot.capture.where import add_line, quoted_line
from ingot.errors import DataDependentError, ExportError, MissingOperatorError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


_Aten: Any = torch.ops.aten
# What torch's C++ asks a tensor for, where it computes with sizes as numbers: a free size is fixed by it.
_METADATA = frozenset(
    (
        _Aten.size.default,
        _Aten.sym_size.default,
        _Aten.sym_size.int,
        _Aten.stride.default,
        _Aten.sym_stride.default,
        _Aten.sym_stride.int,
        _Aten.numel.default,
        _Aten.sym_numel.default,
        _Aten.storage_offset.default,
        _Aten.sym_storage_offset.default,
        _Aten.dim.default,
        _Aten._has_same_storage_numel.default,  # forward-mode gradients ask how a tangent lies
        _Aten.is_contiguous.default,
        _Aten.is_contiguous.memory_format,
        _Aten.is_strides_like_format.default,
        _Aten.is_non_overlapping_and_dense.default,
    )
)


class Dispatch(TorchDispatchMode):
    """Hands every ATen call to the recorder."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(map(made_of_others, types)):
            return NotImplemented  # the tensor itself takes the call apart, and its parts come here
        return dispatch(self.recorder, func, args, kwargs or {})


def dispatch(g: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One ATen call: run it on fake tensors, emit its row, remember which value is whose.

    What refuses it names the user's line.
    """
    g.env.operators.append(func._schema.name.partition("::")[2])
    try:
        return _dispatch(g, func, args, kwargs)
    except ExportError as error:
        add_line(error)
        raise
    except (DynamicOutputShapeException, DataDependentOutputException) as error:
        raise DataDependentError(
            f"{quoted_line()}\n{func} gives a result whose shape or value depends on the contents of its "
            "operands, and has no row. Use other operators, or compute this outside of the model."
        ) from error
    except (UnsupportedOperatorException, NotImplementedError) as error:
        device = kwargs.get("device")
        if device is not None and torch.device(device).type not in ("cpu", "meta"):
            raise ExportError(
                f"{quoted_line()}\nThis makes a tensor on {device}; wanted the CPU, where models are "
                "exported. Take the device from an input (device=x.device)."
            ) from error
        if func.namespace == "quantized" or "quantize" in func.__name__:
            raise MissingOperatorError(
                f"{quoted_line()}\n{func} computes with PyTorch's own quantised tensors, which no ONNX value "
                "is. Export the model as it is before convert(), with its FakeQuantize layers, or one that "
                "PT2E or torchao quantised."
            ) from error
        if "nested" in func.__name__ or "jagged" in func.__name__:
            raise MissingOperatorError(
                f"{quoted_line()}\nNested tensors ({func}) have no form in ONNX, whose tensors have one size "
                "along each axis. Pad the rows (torch.nn.utils.rnn.pad_sequence) and keep a mask beside them."
            ) from error
        raise MissingOperatorError(
            f"{quoted_line()}\n{func} cannot run without contents of its operands, and has no row. Use "
            f"other "
            "operators, or compute this outside of the model."
        ) from error
    finally:
        g.env.operators.pop()


def _dispatch(g: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if g.paused or func.namespace in ("prim", "prims", "debugprims") or func in _METADATA:
        with g.env.imagining():
            return func(*args, **kwargs)
    mapped = translations.of_operator(func)
    if mapped is not None:
        return _translated(g, mapped, func, args, kwargs)
    if func is _Aten._efficientzerotensor.default:  # a tangent of zeros, in a form of its own
        return _dispatch(g, _Aten.zeros.default, args, kwargs)
    plan = g.plan(func)
    if plan.row is None and func.namespace != "aten" and (source := python_source(func)) is not None:
        return _through(g, func, source, args, kwargs)
    tensors = tensors_of(args, kwargs)
    if kwargs.get("generator") is not None:
        raise ExportError(
            f"{quoted_line()}\n{func} draws from a generator of the model's own, whose numbers an ONNX "
            "model cannot repeat. Draw them outside of forward and pass them as an argument, or leave "
            "the generator away."
        )
    if plan.name == "_local_scalar_dense":
        return g.python_number(args[0])
    if plan.name == "equal":
        return g.equal(args[0], args[1])
    if torch.Tag.out in func.tags:
        return writes.into_outs(g, func, args, kwargs)
    if g.env.either:
        _require_kinds(g, func, tensors, args, kwargs)
    with g.passing_on():
        reals = [g.real(t) for t in tensors]
    known = all(r is not None for r in reals) and plan.name not in RANDOM
    is_complex = complex_numbers.concern(plan.name, tensors, args, kwargs)
    if plan.name in ("lift_fresh", "lift"):
        return lift(g, func, args[0])
    if plan.in_place and writes.is_outside(g, func, g.entry(args[0])):
        writes.in_place(g, func, plan, args, kwargs, False)  # not by torch, which would write into the tensor
        return args[0]
    if plan.in_place and torch.Tag.inplace_view in func.tags and not is_complex:
        return writes.in_place_view(g, func, plan, args, kwargs)
    question = None if plan.writes or is_complex else _question(g, func, args, kwargs)
    answer = g.alike.answer(question)
    out = g.alike.results(answer, answer.raw) if answer is not None else None
    if out is None and not known:
        out = fakes.quick(g, func, plan.name, args, kwargs)
    if out is None:
        out = _fake(g, func, plan, args, kwargs)
    if plan.in_place:
        writes.in_place(g, func, plan, args, kwargs, known)
        gradients.wrote(g, args[0], tensors)
        return args[0]
    if plan.view and out is args[0]:
        return out  # `x.to(…)` of what it has: the tensor itself, and no view of it
    if g.mixed:
        mixed.require_one_dtype(g, func, tensors, args, kwargs, out)
    if known and plan.foldable and fold(g, func, plan, args, kwargs, out, bool(tensors)):
        return _begun(g, plan.name, out)
    if is_complex:
        made = complex_numbers.dispatch(g, func, plan.name, tensors, args, kwargs, out)
        return _begun(g, plan.name, made)
    if plan.row is None:
        without_row(g, func, args, kwargs, out)
        return out
    g.locate()
    with g.passing_on() if plan.view else contextlib.nullcontext():
        made = plan.row(g, out, *args, **kwargs)
    tidy = _tidied(g, question, answer, (args, *kwargs.values()), out)
    if plan.view:
        like = View(func, g.entry(args[0]), plan.name, plan.row, out, args, kwargs, None)
        _bind_views(g, like, tidy, made)
    else:
        _bind_results(g, name_of(func), tidy, made)
    if plan.name in formulas.FOLLOWED:
        formulas.follow(g, plan.name, tidy, args, kwargs)
    return _begun(g, plan.name, tidy)


def _begun(g: Recorder, name: str, out: Any) -> Any:
    """The result of a call, in which nothing is where the operator fills none."""
    if name in unwritten.MAKES:
        unwritten.begin(g, out)
    return out


def _require_kinds(
    g: Recorder, func: Any, tensors: list[torch.Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Refuse numbers that may be ints or floats where the result's dtype depends on which."""
    made_to = kwargs.get("dtype") is not None and name_of(func) != "scalar_tensor"  # whose dtype torch chose
    if made_to or any(t.is_floating_point() or t.is_complex() for t in tensors):
        return
    for x in (*args, *kwargs.values()):
        scalars.require_kind(g, x, f"the dtype that {name_of(func)} gives")


def _question(g: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call as others like it ask; None where it is unlike any."""
    try:
        return g.alike.question(func, args, kwargs, partial(_look, g))
    except Unlike:
        return None


def _look(g: Recorder, tensor: torch.Tensor) -> Look:
    e = g.known_entry(tensor)
    if e is None:
        return g.alike.look(tensor)
    if e.look is None:
        e.look = g.alike.look(tensor)
    return e.look


def _tidied(g: Recorder, question: Any, answer: Answer | None, arguments: Sequence[Any], out: Any) -> Any:
    """The outputs of a call with short formulas for their sizes."""
    if answer is not None:
        return out if answer.raw == answer.tidy else g.alike.results(answer, answer.tidy)
    tidy = _tidy(g, out)
    g.alike.keep(question, arguments, out, tidy)
    return tidy


def _through(g: Recorder, func: Any, source: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """An operator by the Python that it is made of."""
    try:
        with g.mode, Dispatch(g):
            return source(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ExportError(
            f"{quoted_line()}\nthe Python of {func} does not run on tensors without contents ({error}). "
            "Say what the operator becomes with ingot.translate."
        ) from error


def _fake(g: Recorder, func: Any, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What torch says the call returns."""
    if plan.name in ("unique_dim", "unique_consecutive"):
        args, kwargs = fakes.dim_from_the_front(func, args, kwargs)
    if func._overloadname.endswith("generator"):
        func, kwargs = fakes.without_generator(func, kwargs)
    try:
        with g.env.imagining():
            return func(*args, **kwargs)
    except (NotImplementedError, UnsupportedOperatorException) as error:
        if plan.row is not None or func.namespace in ("aten", "quantized"):
            raise
        raise MissingOperatorError(
            f"{quoted_line()}\n{func} is an operator that neither Ingot nor torch's tensors without "
            "contents know. Say what it becomes with ingot.translate, and its result's shape with "
            "torch.library.register_fake."
        ) from error


def _translated(
    g: Recorder, t: translations.Translation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """An operator that the user said the meaning of."""
    if not t.is_node and not t.writes:
        with g.mode, Dispatch(g):
            return t(*args, **kwargs)
    arguments, parameters = func._schema.arguments, of_schema(func._schema)
    given = parameters.by_name(args, kwargs)
    written = tensors_of([given.get(a.name) for a in arguments if a.alias_info and a.alias_info.is_write], {})

    def row(g: Recorder, out: Any, *a: Any, **k: Any) -> Any:
        return translations.emit(g, t, parameters, out, a, k)

    meta = translations.without_contents(t, func)
    if not written:
        return whole(g, row, meta, *args, **kwargs)
    with g.pause():
        out = meta(*args, **kwargs)
    results = [] if out is None else list(out) if isinstance(out, (list, tuple)) else [out]
    own = [r for r in results if not any(r is w for w in written)]
    g.locate()
    made = row(g, [*own, *written], *args, **kwargs)
    _bind_results(g, name_of(func), own, made)
    for tensor, value in zip(written, made[len(own) :], strict=True):
        g.overwrite(tensor, value)
    return out


def whole(g: Recorder, row: Row, meta: Row, *args: Any, **kwargs: Any) -> Any:
    """One call of a torch function that is kept whole; `meta` gives what its results look like."""
    with g.pause():
        out = meta(*args, **kwargs)
    return _whole(g, row, out, partial(_tidy, g), args, kwargs)


def whole_alike(g: Recorder, row: Row, meta: Row, *args: Any, **kwargs: Any) -> Any:
    """The same, where what `meta` gives follows from what its arguments look like."""
    question = _question(g, meta, args, kwargs)
    answer = g.alike.answer(question)
    if answer is not None:
        out = g.alike.results(answer, answer.raw)
    else:
        with g.pause():
            out = meta(*args, **kwargs)
    given = (args, *kwargs.values())
    return _whole(g, row, out, lambda o: _tidied(g, question, answer, given, o), args, kwargs)


def _whole(
    g: Recorder,
    row: Row,
    out: Any,
    tidied: Callable[[Any], Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    g.locate()
    try:
        made = row(g, out, *args, **kwargs)
    except ExportError as error:
        add_line(error)
        raise
    out = tidied(out)
    _bind_results(g, row.__name__, out, made)
    return out


def _tidy(g: Recorder, out: Any) -> Any:
    """The same outputs with a symbol of its own for every size that is a long formula."""
    if isinstance(out, torch.Tensor):
        shape = list(out.shape)  # each look makes new objects
        sizes = [g.env.derive(d) for d in shape]
        if all(a is b for a, b in zip(sizes, shape, strict=True)):
            return out
        with g.pause():
            return fakes.like(g.mode, out, sizes)
    if isinstance(out, (list, tuple)):
        tidied = [_tidy(g, o) for o in out]
        return (
            type(out)(tidied) if type(out) in (list, tuple) else out if tidied == list(out) else tuple(tidied)
        )
    return out


def _bind_views(g: Recorder, like: View, out: Any, made: Any) -> None:
    """Say which values views of a tensor have, and how they were made."""
    several = isinstance(out, (list, tuple))
    outs, values = (list(out), made) if several else ([out], [made])
    for i, (o, v) in enumerate(zip(outs, values, strict=True)):
        view = replace(like, index=i) if several else like
        g.new_entry(o, like.parent.group, value=v, view=view)
        g.annotate(v, o)
        g.note_dims(o, v)
        g.note_call(name_of(like.func), v)


def _bind_results(g: Recorder, name: str, out: Any, made: Any) -> None:
    if out is None:  # a check that returns nothing
        return
    if isinstance(out, torch.Tensor):
        out, made = [out], [made]
    for i, (o, v) in enumerate(zip(out, made, strict=False)):
        if not isinstance(o, torch.Tensor):
            continue
        g.note_call(name, v if isinstance(v, ir.Value) else None)
        if isinstance(v, ir.Value):
            g.bind(o, v)
            g.note_dims(o, v)
        else:
            refusal = v or ExportError(f"result {i} of {name} has no ONNX form; use the others alone.")
            g.new_owned(o, refusal=refusal)
