"""Sees torch functions before torch takes them apart: what stays whole, and tensors about to become Python
values.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false, reportMissingParameterType=false

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import sys
from collections.abc import Callable, Generator
from typing import Any, NoReturn

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.overrides import TorchFunctionMode

from ingot.capture import autocast, diagonals, fakes, gradients, indexing, layouts, mixed, supports
from ingot.capture.alias import from_start
from ingot.capture.aten import INSTEAD, whole_row
from ingot.capture.aten.quantised_tensor import Quantised
from ingot.capture.checks import demand, insist
from ingot.capture.choice import Maybe
from ingot.capture.dispatch import whole_alike
from ingot.capture.handlers import inside_try
from ingot.capture.indexing import needs_select
from ingot.capture.lists import Rows, TracedList, cut
from ingot.capture.record import Recorder
from ingot.capture.request import asking_frame, is_rewritten, recorder, refuse, request, unpacks
from ingot.capture.standins.tensors import cut_by, numbers_of
from ingot.capture.standins.values import has_tensors, made_of_symbols, number_in, tensor_of
from ingot.capture.structure import parts_of
from ingot.capture.tensors import made_of_others
from ingot.capture.where import is_user_code, quoted_line
from ingot.errors import DataDependentError, ExportError

_Tensor: Any = torch.Tensor
_functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]  (made in C++)
_NUMBERS: dict[Any, Callable[[Any], Any] | None] = {
    _Tensor.__bool__: bool,
    _Tensor.__int__: int,
    _Tensor.__index__: lambda v: v.__index__(),
    _Tensor.__float__: float,
    _Tensor.__complex__: complex,
    _Tensor.item: None,
}
_LISTS: dict[Any, Callable[[Any], Any]] = {
    _Tensor.tolist: lambda t: t.tolist(),
    _Tensor.numpy: lambda t: t.numpy(),
    _Tensor.__array__: lambda t: t.numpy(),
}
_SUBSCRIPTS = frozenset((_Tensor.__getitem__, _Tensor.__setitem__))
_SPLITS = frozenset((torch.split, _Tensor.split))
_CUTS = frozenset((torch.unbind, _Tensor.unbind, *_SPLITS))
_LONGEST_TUPLE = 32  # elements of a list from which on torch takes it for a tensor
_LAYOUT = frozenset((_Tensor.stride, _Tensor.storage_offset, _Tensor.dim_order))
_ADDRESS = frozenset((_Tensor.data_ptr, _Tensor.untyped_storage, _Tensor.storage))
_PASSING_ON = ("torch/_tensor.py", "torch/overrides.py", "capture/stage.py")
_OF_NUMBERS = frozenset((torch.tensor, torch.as_tensor))
_NEEDS_NUMBERS = ("contain only concrete integers", "with symbolic sizes/strides")


class SizeWanted(RuntimeError):
    """torch's C++ is about to turn a symbolic size into a number."""


class Intercept(TorchFunctionMode):
    """Active while the model's Python runs."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        g = self.recorder
        if g.paused:
            return func(*args, **kwargs)
        if any(map(made_of_others, types)):
            # The tensor itself takes the call apart, and its parts come here; or it leaves that to torch.
            asks_torch = not torch._C._is_torch_function_enabled()
            return func(*args, **kwargs) if asks_torch else NotImplemented
        if Quantised in types and func not in INSTEAD:
            with self:
                return Quantised.__torch_function__(func, types, args, kwargs)
        unsure = perhaps_none(func, args, kwargs)
        if unsure is not None:
            with self:
                return two_calls(func, args, kwargs, unsure)
        if g.mixed and func in mixed.UPDATES and id(args[0]) in g.mixed:
            return mixed.updated(g, func, args)
        if kwargs and func in _TAKEN_BY_PLACE and not (args and func in _OF_NUMBERS):
            args, kwargs = _by_place(func, args, kwargs)
        if func in _NUMBERS and _plain(args):
            return g.python_number(args[0], _NUMBERS[func])
        if func in _LISTS and _plain(args):
            return g.python_list(args[0], _LISTS[func])
        if (
            func is _Tensor.__getitem__
            and type(args[1]) is int
            and args[1] == 0
            and hasattr(args[0], "packed_batch")
        ):
            return args[0].packed_batch  # the number of sequences, which torch's layers make states for
        if func is _Tensor.__len__ and _plain(args):
            ask_for_loop(args[0])
        if func is _Tensor.unbind and _plain(args) and _iterates(sys._getframe(1)):
            ask_for_loop(args[0], loops=True)
        if func in _CUTS and _plain(args):
            parts = _rows_cut(func, args, kwargs)
            if parts is not None:
                return parts
        if func in _OF_NUMBERS and (made_of_symbols(args[0]) or has_tensors(args[0])):
            return tensor_of(*args, **kwargs)
        if func is _Tensor.is_contiguous and _plain(args) and asking_frame() is not None:
            return is_contiguous(g, *args, **kwargs)
        if func in _LAYOUT and _asked_by_model():
            layouts.require_known(g, args[0], func.__name__)
        if func in _ADDRESS and isinstance(args[0], FakeTensor) and _asked_by_model():  # a weight has one
            layouts.refuse_address(func.__name__)
        if func in (torch.equal, _Tensor.equal) and _plain(args):
            return g.equal(args[0], args[1])
        if func in (torch.allclose, _Tensor.allclose) and _plain(args):
            return g.all_close(*args, **kwargs)
        if func in _SUBSCRIPTS:
            args = (args[0], _places_of(_subscript(args[1])), *args[2:])
        if gradients.switches(func) and isinstance(args[0], FakeTensor):
            return gradients.switched(g, func, args, kwargs)
        if g.untold and gradients.asks(func) and _asked_by_model():
            gradients.require_told(g, args[0])
        if func is _Tensor.__getitem__ and needs_select(args[1]) and _plain(args, True):
            return indexing.read(g, args[0], args[1])
        if func is _Tensor.__setitem__ and needs_select(args[1]) and _plain(args, True):
            g.env.operators.append(func.__name__)
            try:
                indexing.write(g, *args)
                gradients.follow(g)
            finally:
                g.env.operators.pop()
            return None
        found = whole_row(func) if not _has_gradient((*args, *kwargs.values())) else None
        call: Any = (_INSTEAD.get(func) or INSTEAD.get(func) or func) if _plain(args, True) else func
        if found is not None and _plain(args) and _plain(tuple(kwargs.values())):
            call = functools.partial(whole_alike, g, *found)
            if autocast.is_on():
                call = functools.partial(autocast.whole, g, func, found)
        g.env.operators.append(getattr(func, "__name__", ""))
        try:
            made = _called(g, call, args, kwargs)
        finally:
            g.env.operators.pop()
        gradients.follow(g)
        return made


def _called(g: Recorder, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """What an operator gives, once more in torch's Python where its C++ wants numbers for sizes."""
    g.env.unfit = None
    try:
        return call(*args, **kwargs)
    except (RuntimeError, IndexError) as error:
        concrete = isinstance(error, SizeWanted) or any(text in str(error) for text in _NEEDS_NUMBERS)
        if not concrete or g.in_python:
            if not isinstance(error, IndexError) or g.env.unfit is not None:
                _refuse_if_caught(args, error)
            g.env.takes_refusal()  # a loop over places ends with the last, without a `try`
            raise
    g.in_python = True
    try:
        with enable_python_dispatcher():
            return _called(g, call, args, kwargs)
    finally:
        g.in_python = False


def _asked_by_model() -> bool:
    """Whether the model's own code calls a function of torch's, rather than what records it."""
    at = sys._getframe(2)
    while at.f_back is not None and at.f_code.co_filename.endswith(_PASSING_ON):
        at = at.f_back
    return is_user_code(at.f_code)


def _has_gradient(values: Any) -> bool:
    """Whether a gradient may be taken of what is computed of them: torch's own operators keep track of it."""
    if not torch.is_grad_enabled():
        return False
    lists = [list.__iter__(v) if isinstance(v, list) else v for v in values if isinstance(v, (list, tuple))]
    return any(isinstance(v, torch.Tensor) and v.requires_grad for v in itertools.chain(values, *lists))


def _indices(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _is_grown(index: Any) -> bool:
    """Whether an index is a list that is as long as data or a size says."""
    return isinstance(index, Rows) or (isinstance(index, TracedList) and not index.known)


def _lists_places(index: Any) -> bool:
    """Whether an index is a list of places, of which the run knows some or how many they are."""
    return _is_grown(index) or (isinstance(index, list) and (made_of_symbols(index) or has_tensors(index)))


def _subscript(index: Any) -> Any:
    """An index, where a short list that holds more than numbers is a tuple, as torch has it."""
    if not isinstance(index, list) or _is_grown(index) or len(index) >= _LONGEST_TUPLE:
        return index
    held = list(list.__iter__(index))
    parts = (torch.Tensor, list, tuple, slice, type(None), type(Ellipsis))
    return tuple(held) if any(isinstance(v, parts) for v in held) else index


def _places_of(index: Any) -> Any:
    """An index with the tensors that such lists are for torch."""
    from ingot.capture.stage import RUNTIME  # which needs this file

    def place(i: Any) -> Any:
        if not _lists_places(i):
            return i
        return RUNTIME.call(torch.tensor, RUNTIME.call(list, i)) if _is_grown(i) else tensor_of(i)

    found = tuple(map(place, _indices(index)))
    return found if isinstance(index, tuple) else found[0]


def perhaps_none(func: Any, args: Any, kwargs: Any) -> Maybe | None:
    """What may be None among the arguments of a function that takes None too: its two calls are not alike."""
    if not any(isinstance(v, Maybe) for v in (*args, *kwargs.values())):
        return None
    defaults = _defaults(func)
    named = dict(zip(defaults, args, strict=False)) | kwargs
    found = (v for n, v in named.items() if isinstance(v, Maybe) and defaults.get(n, 0) is None)
    return next(found, None)


def two_calls(func: Any, args: Any, kwargs: Any, unsure: Maybe) -> Any:
    """A call without what may be None where it is, and with it elsewhere."""
    from ingot.capture.stage import RUNTIME  # which needs this file

    def given(value: Any) -> Callable[[], Any]:
        instead = [value if a is unsure else a for a in args]
        named = {k: value if a is unsure else a for k, a in kwargs.items()}
        return functools.partial(func, *instead, **named)

    return RUNTIME.choose(unsure.ingot_is_none, given(None), given(unsure.ingot_value))


def _by_place(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call by name: those that follow the ones by place, by their places too."""
    left = list(_defaults(func) or ("data",))[len(args) :]
    names = list(itertools.takewhile(kwargs.__contains__, left))
    return (*args, *(kwargs[n] for n in names)), {n: v for n, v in kwargs.items() if n not in names}


@functools.lru_cache(maxsize=1)
def _signatures() -> dict[Any, Callable[..., Any]]:
    return torch.overrides.get_testing_overrides()


@functools.lru_cache(maxsize=256)
def _defaults(func: Any) -> dict[str, Any]:
    """Names of a torch function's parameters, in order, and the default of each."""
    try:
        parameters = inspect.signature(_signatures().get(func) or func).parameters
    except (TypeError, ValueError):
        return {}
    return {name: p.default for name, p in parameters.items()}


def _refuse_if_caught(args: Any, error: Exception) -> None:
    """An operation fails for the example's sizes inside a `try`: which way the model goes is not known."""
    sizes = [d for a in args if isinstance(a, torch.Tensor) for d in a.shape]
    if any(isinstance(d, torch.SymInt) for d in sizes) and inside_try(of_operator=True, error=type(error)):
        refuse_catching(str(error).splitlines()[0])


def refuse_catching(what: str) -> NoReturn:
    """An error that the model would catch is not to be had in ONNX."""
    refuse(
        DataDependentError(
            f"{quoted_line()}\n"
            f"This fails for some sizes ({what}), inside a `try` that may catch it: an ONNX model cannot "
            "catch errors. Ask for the sizes with an `if` instead."
        )
    )


def ask_for_loop(tensor: Any, loops: bool = False) -> None:
    """Python is about to count the rows of a tensor: where only the run knows them, the function is
    rewritten.

    `a, b = tensor` wants a number of them, so that the size is fixed instead.
    """
    if not tensor.dim() or not isinstance(tensor.shape[0], torch.SymInt):
        return
    frame = asking_frame()
    if frame is None or (loops and unpacks(frame)):
        return
    request(frame, needed=not recorder().env.of_inputs(tensor.shape[0]))


def _rows_cut(func: Any, args: Any, kwargs: Any) -> Rows | None:
    """unbind, or split into parts of one size, where only the run knows the length of the axis or that size;
    split into as many parts as data says.

    None where the caller takes apart as many as sizes say, or is no function that can be rewritten: the size
    is fixed then.
    """
    tensor, *rest = args
    size = 1
    if func in _SPLITS:
        size, *rest = rest or [kwargs.get("split_size", kwargs.get("split_size_or_sections"))]
    axis: Any = (rest or [kwargs.get("dim", 0)])[0]
    if isinstance(size, Rows) or (isinstance(size, TracedList) and not size.known):
        from ingot.capture.stage import RUNTIME  # which needs this file

        return cut_by(RUNTIME, tensor, size, axis)
    if isinstance(size, torch.Tensor) and not size.dim():
        size = number_in(size, int)
    if isinstance(size, torch.SymInt):
        return _cut_as_said(tensor, size, axis) if _asks_for_rows(size) else None
    if type(size) is not int or size < 1 or not isinstance(tensor.shape[axis], torch.SymInt):
        return None
    if not _asks_for_rows(tensor.shape[axis]):
        return None
    length, axis = tensor.shape[axis], axis % tensor.dim()
    if func in (torch.unbind, _Tensor.unbind):
        return Rows(length, lambda i: tensor.select(axis, i))
    return cut(tensor, size, axis)


def _asks_for_rows(number: Any = 0) -> bool:
    """Whether the function that cuts a tensor can take as many parts as the run says; it is rewritten for
    that, unless it takes them apart, into as many variables as there must be. `number`: what data may say of
    them.
    """
    frame = asking_frame()
    if frame is None:
        return False
    by_data = isinstance(number, torch.SymInt) and not recorder().env.of_inputs(number)
    if unpacks(frame):
        return by_data  # of sizes, each is to be the example's
    request(frame, needed=by_data)
    return is_rewritten(frame)


def _cut_as_said(tensor: Any, size: Any, axis: int) -> Rows:
    """torch.split into parts of a size that only the run knows."""
    said, length = "torch.split takes no parts of this size", tensor.shape[axis]
    insist(recorder(), size >= 0, said)
    if isinstance(length, torch.SymInt):
        insist(recorder(), (size > 0) | (length == 0), said)
    elif length:
        insist(recorder(), size > 0, said)
    return cut(tensor, torch.sym_max(size, 1), axis)


def is_contiguous(g: Recorder, tensor: Any, *args: Any, **kwargs: Any) -> bool:
    """Tensor.is_contiguous, which is noted: how a tensor lies in memory is no part of a model, unless it lies
    so at all sizes.
    """
    found = bool(tensor.is_contiguous(*args, **kwargs))
    sure = found and not (args or kwargs) and layouts.lies_as_counted(g, tensor)
    g.layouts.append(quoted_line())
    return found if sure and g.other_layouts == "open" else found != bool(g.other_layouts)


def _iterates(frame: Any) -> bool:
    """Whether a call comes from Tensor.__iter__."""
    return frame.f_code.co_name == "__iter__" and frame.f_code.co_filename.endswith("_tensor.py")


def _plain(args: Any, complex_too: bool = False) -> bool:
    """No tensor is one of vmap's, whose batch axis is out of sight; nor complex, where it must have a
    value.
    """
    wrapped: Any = _functorch.is_functorch_wrapped_tensor
    for a in args:
        if isinstance(a, torch.Tensor):
            if wrapped(a) or (a.is_complex() and not complex_too):
                return False
        elif isinstance(a, (list, tuple)) and not _plain(parts_of(a) or (), complex_too):
            return False
    return True


def chunk(tensor: Any, chunks: Any, dim: int = 0) -> Any:
    """torch.chunk, which wants a number for the size it divides. Where the example has fewer parts than that,
    or data or a size says how many there are to be, only the run knows their number.
    """
    length, said = tensor.shape[dim], number_in(chunks, int)
    if isinstance(said, torch.SymInt) and _asks_for_rows(said):
        insist(recorder(), said > 0, "torch.chunk makes one part at the least")
        n: Any = torch.sym_max(said, 1)
        parts = cut(tensor, torch.sym_max((length + n - 1) // n, 1), dim)
        return Rows(torch.sym_max(parts.length, (length == 0) * n), parts.at)  # of nothing: all of them
    if isinstance(length, int):
        none = [0] * chunks  # of nothing there are as many as asked for
        return tensor.split(-(-length // chunks), dim) if length else tensor.split_with_sizes(none, dim)
    even = statically_known_true(length % chunks == 0)
    piece = length // chunks if even else (length + chunks - 1) // chunks
    last = length - piece * (chunks - 1)
    fewer = fakes.hint(last) < 1 or not recorder().env.of_inputs(length)
    if fewer and _asks_for_rows():
        parts = cut(tensor, torch.sym_max(piece, 1), dim)
        none = length == 0  # of which there are as many as asked for
        return Rows(recorder().env.derive(parts.length + none * (chunks - 1)), parts.at)
    if not even:  # of nothing there are as many as asked for
        demand(recorder(), (last > 0) | (length == 0), f"There would be fewer than {chunks} chunks here")
    return tensor.split_with_sizes([*[piece] * (chunks - 1), last], dim)


def tensor_split(tensor: Any, indices_or_sections: Any, dim: int = 0) -> Any:
    """torch.tensor_split, whose C++ asks which of the parts are longer."""
    length, parts = tensor.shape[dim], indices_or_sections
    if isinstance(length, int) or not isinstance(parts, int) or parts < 1:
        return INSTEAD[torch.tensor_split](tensor, indices_or_sections, dim)
    return tensor.split_with_sizes([(length + parts - 1 - i) // parts for i in range(parts)], dim)


def narrow(tensor: Any, dim: int, start: Any, length: Any) -> Any:
    """torch.narrow, whose C++ takes a tensor for where it starts and none for how much it keeps."""
    start, length = (n.item() if isinstance(n, torch.Tensor) else n for n in (start, length))
    if isinstance(start, torch.SymInt) and recorder().env.of_inputs(start):
        start = recorder().env.derive(from_start(recorder(), start, tensor.shape[dim]))
    env = recorder().env
    if not any(env.of_data(env.expr(n)) for n in (start, length)):
        return torch.narrow(tensor, dim, start, length)
    _require_within(start, length, tensor.shape[dim])
    made = torch.narrow(tensor, dim, start, length)
    kept = env.expr(made.shape[dim])
    if kept.is_Symbol and env.of_data(kept):  # a slice's, which could be shorter
        env.put(kept, env.expr(length))
    return made


def _require_within(start: Any, length: Any, size: Any) -> None:
    """The run fails where torch refuses to narrow an axis to what is not in it."""
    g, said = recorder(), "torch.narrow would refuse a part that the axis has not here"
    for holds in (length >= 0, start >= -size, start + length <= size):
        insist(g, holds, said)
    if not isinstance(start, int):
        insist(g, (start >= 0) | (start + length <= 0), said)
    elif start < 0:
        insist(g, start + length <= 0, said)


def set_data(tensor: Any, value: Any) -> NoReturn:
    """`x.data = y`: whatever holds x holds another tensor from then on, without an operator that says so."""
    del tensor, value
    raise ExportError(
        f"{quoted_line()}\nThis puts another tensor in the place of one (`.data = …`), which a "
        "recording does not see. Assign to the variable or attribute itself, or write into the tensor "
        "(`x.copy_(y)`)."
    )


def _split_along(name: str, axis: Callable[[Any], int]) -> Callable[..., Any]:
    """hsplit and its like: tensor_split in parts of one size."""

    def split(tensor: Any, indices_or_sections: Any) -> Any:
        parts, dim = indices_or_sections, axis(tensor)
        if isinstance(parts, int) and parts > 0:
            demand(
                recorder(), tensor.shape[dim] % parts == 0, f"{name} would refuse {parts} unequal parts here"
            )
        return tensor_split(tensor, parts, dim)

    return split


_INSTEAD: dict[Any, Callable[..., Any]] = (
    {
        function: call
        for name, call in {
            "chunk": chunk,
            "narrow": narrow,
            "tensor_split": tensor_split,
            "hsplit": _split_along("hsplit", lambda t: min(t.dim() - 1, 1)),
            "vsplit": _split_along("vsplit", lambda _: 0),
            "dsplit": _split_along("dsplit", lambda _: 2),
        }.items()
        for function in (getattr(torch, name), getattr(_Tensor, name))
    }
    | {**diagonals.INSTEAD, **supports.INSTEAD, _Tensor.data.__set__: set_data}
    | layouts.INSTEAD
)
#: Functions whose arguments are looked at here; of `torch.tensor`, torch says no names.
_TAKEN_BY_PLACE = frozenset(
    (*_OF_NUMBERS, torch.equal, _Tensor.equal, torch.unbind, torch.split, torch.chunk, torch.narrow)
)


@contextlib.contextmanager
def python_functions_run_as_they_are() -> Generator[None]:
    """`torch.nn.functional` is Python: let it run, so that the calls inside it are seen.

    Its functions first ask whether somebody overrides them; while a function mode is active the answer is
    yes, and the mode would not see what they call. For the time of a recording the answer is no, but for
    tensors that say themselves what functions do with them. And their `min` and `max` of sizes are formulas,
    where Python's would ask which is the smaller one.
    """
    import torch.functional
    import torch.nn.functional

    modules: list[Any] = [torch.nn.functional, torch.functional]
    names = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    saved: list[tuple[Any, str, Any]] = []
    for module in modules:
        for name in names:
            if hasattr(module, name):
                saved.append((module, name, getattr(module, name)))
                setattr(module, name, _overridden)
        module.min, module.max = _least, _most
    try:
        yield
    finally:
        for module, name, value in saved:
            setattr(module, name, value)
        for module in modules:
            del module.min, module.max


def _extreme(plain: Callable[..., Any], of_two: Callable[..., Any]) -> Callable[..., Any]:
    """`min` or `max` that takes sizes of which only the run knows the number."""

    def extreme(*args: Any, **kwargs: Any) -> Any:
        values = list(args[0]) if len(args) == 1 else list(args)
        if not kwargs and values and any(isinstance(v, torch.SymInt) for v in values):
            return functools.reduce(of_two, values)
        return plain(values, **kwargs)

    return extreme


_least, _most = _extreme(min, torch.sym_min), _extreme(max, torch.sym_max)


@contextlib.contextmanager
def lists_of_tensors(recorder: Recorder) -> Generator[None]:
    """`tolist` of a fake tensor is a function of its own class, which loops over it."""
    fake: Any = FakeTensor
    before = fake.tolist

    def tolist(tensor: Any) -> Any:
        if recorder.real(tensor) is None:
            request(asking_frame())
            return numbers_of(tensor)
        return recorder.python_list(tensor, _LISTS[_Tensor.tolist])

    fake.tolist = tolist
    try:
        yield
    finally:
        fake.tolist = before


def _overridden(*given: Any) -> bool:
    return torch._C._is_torch_function_enabled() and any(
        made_of_others(type(t)) for x in given for t in (x if isinstance(x, tuple) else (x,))
    )
