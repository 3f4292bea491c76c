"""Shapes of simple operators without asking torch, whose general way takes milliseconds with symbolic sizes.

Measured on one [batch, 64, h, w] tensor: relu through torch's fake implementation 5 ms, layer_norm 12 ms, an
alias of the input 0.06 ms. An elementwise result is such an alias, unless the input is a part of a tensor or
repeats some: its contents are never looked at, and what shares memory with what is kept by the recorder.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import functools
import operator
import sys
from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import sympy  # pyright: ignore[reportMissingTypeStubs]
import torch
import torch._meta_registrations
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.fx.experimental.symbolic_shapes import sym_or
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture.size_symbols import floor_div, product

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor

# One floating tensor in, the same shape and dtype out; other arguments are plain numbers.
_UNARY = frozenset(
    [
        "relu",
        "gelu",
        "sigmoid",
        "tanh",
        "exp",
        "log",
        "sqrt",
        "rsqrt",
        "neg",
        "abs",
        "silu",
        "hardswish",
        "hardsigmoid",
        "hardtanh",
        "leaky_relu",
        "elu",
        "erf",
        "sin",
        "cos",
        "mish",
        "softplus",
        "floor",
        "ceil",
        "round",
        "reciprocal",
        "square",
        "log_sigmoid",
        "celu",
        "relu6",
        "clamp",
        "clamp_min",
        "clamp_max",
        "pow",
    ]
)
_ALONG_A_DIM = frozenset(("_softmax", "_log_softmax"))
_WITH_MASK = frozenset(
    [
        "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
        "_fused_moving_avg_obs_fq_helper",
        "fake_quantize_per_channel_affine_cachemask",
        "fake_quantize_per_tensor_affine_cachemask",
    ]
)
_BINARY = frozenset(("add", "sub", "mul", "div", "maximum", "minimum"))
_COMPARED = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))
# Of whole numbers, or truths, of one dtype: the same dtype.
_OF_INTEGERS = frozenset(("add", "sub", "mul", "maximum", "minimum"))
_BITWISE = frozenset(("bitwise_and", "bitwise_or", "bitwise_xor"))
# Views for which torch's C++ computes with sizes and strides alone.
_REORDERED = frozenset(("transpose", "permute", "unsqueeze", "t"))
_REDUCED = frozenset(("mean", "sum", "amax", "amin"))  # of floats: a float
_INTEGERS = frozenset((torch.int8, torch.int16, torch.int32, torch.int64))
_OF_ANY_DTYPE = frozenset(("cat", "cumsum", "index")).union(
    _COMPARED, _OF_INTEGERS, _BITWISE, _REORDERED, _REDUCED
)
_SAMPLED = frozenset(("grid_sampler_2d", "grid_sampler_3d"))


def quick(g: Recorder, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The fake result, or None where only torch knows."""
    if name in _OF_ANY_DTYPE and not func._schema.is_mutable:
        made = _of_any_dtype(g, func, name, args, kwargs)
        if made is not None:
            return made
    if not args or not isinstance(args[0], Tensor):
        return None
    x = args[0]
    if name in ("view", "_unsafe_view") and len(args) == 2 and isinstance(args[1], (list, tuple)):
        return _viewed(g, x, args[1])
    if name == "slice":
        return _sliced(g, x, *args[1:], **kwargs)
    if name == "expand":
        return _expanded(g, x, *args[1:], **kwargs)
    if not x.dtype.is_floating_point or x.device.type != "cpu":
        return None
    if name in _WITH_MASK:  # torch has no form of these without contents
        return dense(g, x), fresh(g.mode, list(x.shape), torch.bool, x.device)
    if name == "quantized_decomposed::choose_qparams_per_token":  # of which torch says other dtypes
        sizes = [*x.shape[:-1], 1]
        dtype = torch.float32 if x.dtype == torch.float16 else x.dtype
        return fresh(g.mode, sizes, dtype, x.device), fresh(g.mode, sizes, dtype, x.device)
    if name in _ALONG_A_DIM:
        return dense(g, x) if x.dim() and len(args) > 2 and args[2] is False else None
    if name in _SAMPLED:
        return _sampled(g, x, args[1])
    rest = (*args[1:], *kwargs.values())
    if any(isinstance(a, complex) for a in rest):
        return None  # of another dtype
    if name in _UNARY and not any(isinstance(a, Tensor) for a in rest):
        return dense(g, x)
    if name in _BINARY and set(kwargs) <= {"alpha"}:
        y = args[1] if len(args) > 1 else None
        if isinstance(y, (int, float)):
            return dense(g, x)
        if isinstance(y, Tensor) and y.dtype == x.dtype:
            if spans(g, x, y):
                return dense(g, x)
            if spans(g, y, x):
                return dense(g, y)
    return None


def _of_any_dtype(
    g: Recorder, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor | None:
    """The same of operators that integers and truths have as well, or more axes in another order."""
    tensors = args[0] if name == "cat" else args[:1]
    if not tensors or not all(isinstance(t, Tensor) and _is_plain(t) for t in tensors):
        return None
    x = tensors[0]
    if name == "cat":
        return _joined(g, *args, **kwargs)
    if name == "cumsum":
        return _summed_up(g, x, *args[1:], **kwargs)
    if kwargs or len(args) == 1:
        return _reordered(g, func, args) if name == "t" else None
    if name in _REORDERED:
        return _reordered(g, func, args)
    if name in _REDUCED:
        return _reduced(g, x, *args[1:])
    if name == "index":
        return _indexed(g, x, args[1])
    if name in _OF_INTEGERS and x.dtype not in _INTEGERS:
        return None
    return _combined(g, name, x, args[1])


def _is_plain(x: Tensor) -> bool:
    """Whether a tensor is one of sizes and strides on the CPU, with no size that is 1 in the example alone:
    torch asks whether that is repeated, which is noted.
    """
    if x.layout is not torch.strided or x.device.type != "cpu" or x.is_quantized:
        return False
    return not any(isinstance(n, torch.SymInt) and hint(n) == 1 for n in x.shape)


def _viewed(g: Recorder, x: Tensor, size: Any) -> Tensor | None:
    """A reshape: only the number of elements is checked. torch would walk the strides, division by
    division.
    """
    if not any(isinstance(d, torch.SymInt) for d in x.shape):
        return None
    before = product(g.env.expr(d) for d in x.shape)
    places = [i for i, d in enumerate(size) if isinstance(d, int) and d == -1]
    after = sympy.sympify(product(g.env.expr(d) for i, d in enumerate(size) if i not in places))
    sizes = list(size)
    if after == 0 or len(places) > 1:
        return None
    if places:
        above, below = (before / after).as_numer_denom()
        if int(g.env.value(above)) % int(g.env.value(below)):
            return None
        sizes[places[0]] = g.env.size(above if below == 1 else floor_div(above, below))
    elif before != after:
        if int(g.env.value(before)) != int(g.env.value(after)):
            return None
        g.env.require_equal(before, after)
    return fresh(g.mode, sizes, x.dtype, x.device)


def _sliced(
    g: Recorder, x: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Tensor | None:
    """A slice of everything, of whose length torch would make another formula; one with a bound of which the
    sizes decide whether it counts from the end: torch would call its length unknown.
    """
    env, length = g.env, g.env.expr(x.shape[dim])
    whole = end is None or (isinstance(end, int) and end == sys.maxsize)
    if whole and (start is None or (isinstance(start, int) and start == 0)) and step == 1:
        return _alias(g, x)
    bounds = [env.expr(b) for b in (0 if start is None else start, length if whole else end)]
    open_ = [b for b in bounds if not (b.is_nonnegative or b.is_negative)]
    if not open_ or any(map(env.of_data, (*bounds, length))) or all(env.signed(b) for b in open_):
        return None
    first, last = (env.place(b, length) for b in bounds)
    sizes: list[Any] = list(x.shape)
    sizes[dim] = env.derive(env.size(floor_div(sympy.Max(0, last - first) + step - 1, step)))
    with g.pause():
        return like(g.mode, x, sizes)


def _expanded(g: Recorder, x: Tensor, size: Sequence[Any], *, implicit: bool = False) -> Tensor | None:
    """An expand of axes of which a branch or data chose the size."""
    del implicit
    with g.pause():
        made = fitted(g, x, size)
        return None if made is x else made.expand(list(size))


def _reordered(g: Recorder, func: Any, args: tuple[Any, ...]) -> Tensor | None:
    """A view with the axes in another order, or another one of size 1, as torch's C++ makes it: the Python
    that the fake mode would take asks for all that broadcasting may do.
    """
    x = args[0]
    if not isinstance(x, FakeTensor):
        return None
    with in_kernel_invocation_manager(g.mode), _disable_current_modes(), g.env.imagining():
        made = func(*args)
    with _disable_current_modes():
        return FakeTensor(g.mode, made, x.device)


def _broadcast(g: Recorder, tensors: Sequence[Tensor]) -> list[Any] | None:
    """The sizes that tensors have together, where each axis has one size in all that do not repeat it."""
    if not all(map(_is_plain, tensors)):
        return None
    sizes: list[Any] = [1] * max(t.dim() for t in tensors)
    for t in tensors:
        for axis, size in enumerate(t.shape, len(sizes) - t.dim()):
            if g.sizes.number(size) == 1:
                continue
            if g.sizes.number(sizes[axis]) == 1:
                sizes[axis] = size
            elif not g.same_size(size, sizes[axis]):
                return None
    return sizes


def _in_order(g: Recorder, x: Tensor) -> bool:
    """Whether what torch makes element by element of a tensor lies in memory as it is counted."""
    strides = [hint(s) for s, n in zip(x.stride(), x.shape, strict=True) if g.sizes.number(n) != 1]
    strides = [s for s in strides if s]  # what is repeated is of no interest
    return all(a >= b for a, b in pairwise(strides))


def _combined(g: Recorder, name: str, x: Tensor, y: Any) -> Tensor | None:
    """A comparison, or one of two tensors of one dtype of integers or truths, element by element."""
    dtype = torch.bool if name in _COMPARED else x.dtype
    if x.dtype.is_complex or (name in _BITWISE and x.dtype.is_floating_point):
        return None
    others = [y] if isinstance(y, Tensor) else []
    if others:
        if y.dtype != x.dtype:
            return None
    elif type(y) is not int or name in _BITWISE or x.dtype == torch.bool:
        return None
    sizes = _broadcast(g, [x, *others])
    if sizes is None or not all(_in_order(g, t) for t in (x, *others)):
        return None
    return fresh(g.mode, sizes, dtype, x.device)


def _reduced(g: Recorder, x: Tensor, dims: Any, keep: bool = False) -> Tensor | None:
    """A reduction along some axes."""
    if not isinstance(dims, (list, tuple)) or not dims or not x.dtype.is_floating_point:
        return None
    if not all(-x.dim() <= d < x.dim() for d in dims) or not _in_order(g, x):
        return None
    gone = {d % x.dim() for d in dims}
    sizes = [1 if d in gone else n for d, n in enumerate(x.shape) if keep or d not in gone]
    return fresh(g.mode, sizes, x.dtype, x.device) if len(gone) == len(dims) else None


def _summed_up(g: Recorder, x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor | None:
    """A running sum."""
    if not -x.dim() <= dim < x.dim():
        return None
    whole = not (x.dtype.is_floating_point or x.dtype.is_complex)
    return fresh(g.mode, list(x.shape), dtype or (torch.int64 if whole else x.dtype), x.device)


def _indexed(g: Recorder, x: Tensor, indices: Sequence[Tensor | None]) -> Tensor | None:
    """The elements at places that tensors of integers say."""
    axes = [i for i, index in enumerate(indices) if index is not None]
    places = [index for index in indices if index is not None]
    if not axes or len(indices) > x.dim() or g.is_empty(x):
        return None
    if any(p.dtype not in (torch.int32, torch.int64) for p in places):
        return None
    found = _broadcast(g, places)
    if found is None or not _in_order(g, x):
        return None
    first = axes[0] if axes[-1] - axes[0] == len(axes) - 1 else 0  # else they come in front
    rest = [n for i, n in enumerate(x.shape) if i not in axes]
    return fresh(g.mode, [*rest[:first], *found, *rest[first:]], x.dtype, x.device)


def _joined(g: Recorder, tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    """Tensors of one dtype, one behind the other."""
    if not -tensors[0].dim() <= dim < tensors[0].dim():
        return None
    first, dim = tensors[0], dim % tensors[0].dim()
    around = [*first.shape[:dim], *first.shape[dim + 1 :]]
    for t in tensors:
        if t.dim() != first.dim() or t.dtype != first.dtype or t.is_complex():
            return None
        if not around and g.is_empty(t):
            return None  # torch leaves it out, whatever the others' rank is
        same = zip([*t.shape[:dim], *t.shape[dim + 1 :]], around, strict=True)
        if not _in_order(g, t) or not all(g.same_size(a, b) for a, b in same):
            return None
    sizes: list[Any] = list(first.shape)
    sizes[dim] = functools.reduce(operator.add, (t.shape[dim] for t in tensors))
    return fresh(g.mode, sizes, first.dtype, first.device)


def _sampled(g: Recorder, x: Tensor, grid: Tensor) -> Tensor | None:
    """Samples at the places of a grid, which torch's Python would work out, neighbour by neighbour: sixteen
    of them for a cubic.
    """
    if grid.dim() != x.dim() or grid.dtype != x.dtype:
        return None  # torch says what is wrong
    with g.env.imagining():
        checked(grid, 0, x.shape[0], "grid_sample")
        checked(grid, x.dim() - 1, x.dim() - 2, "grid_sample")
    return fresh(g.mode, [*x.shape[:2], *grid.shape[1:-1]], x.dtype, x.device)


def fresh(mode: FakeTensorMode, sizes: Sequence[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A new contiguous fake tensor, in half the time of torch.empty under the fake mode."""
    env: Any = mode.shape_env
    with _disable_current_modes(), env.imagining():
        return FakeTensor(mode, torch.empty(list(sizes), dtype=dtype, device="meta"), device)


def _alias(g: Recorder, x: Tensor) -> Tensor:
    with g.pause():
        return x.detach()


def dense(g: Recorder, x: Tensor) -> Tensor:
    """What an elementwise operator makes of a tensor: in the order of its elements, with none between them
    left out and none repeated. Whether a reshape of it is a view depends on that.
    """
    e = g.known_entry(x)
    if e is None or (e.part_by() is None and not e.is_repeated()):
        return _alias(g, x)
    strides = [hint(s) for s in x.stride()]
    several = [d for d, s in enumerate(strides) if s]  # the others lie nowhere, and stay where they are
    order = list(range(x.dim()))
    for place, d in zip(several, sorted(several, key=lambda d: -strides[d]), strict=True):
        order[place] = d
    with g.pause():
        made = fresh(g.mode, [x.shape[d] for d in order], x.dtype, x.device)
        return made.permute([order.index(d) for d in range(x.dim())])


def spans(g: Recorder, a: Tensor, b: Tensor) -> bool:
    """Whether b broadcasts into a's shape for every size: each of its axes is a's, or 1."""
    n, m = a.dim(), b.dim()
    return m <= n and all(
        g.sizes.number(s) == 1 or g.same_size(s, a.shape[n - m + i]) for i, s in enumerate(b.shape)
    )


def pooled(
    inputSize: Any, kernelSize: Any, pad_l: Any, pad_r: Any, stride: Any, dilation: Any, ceil_mode: Any
) -> Any:
    """How many windows a pool has. Where it rounds up, one that would begin behind the input and the padding
    in front of it is left out: torch's own formula asks the example whether there is one.
    """
    reach = inputSize + pad_l + pad_r - dilation * (kernelSize - 1) - 1
    if not ceil_mode:
        return reach // stride + 1
    return torch.sym_min((reach + stride - 1) // stride, (inputSize + pad_l - 1) // stride) + 1


@contextlib.contextmanager
def sizes_of_pools() -> Generator[None]:
    """torch's own shapes of pools follow `pooled`."""
    formulas: Any = torch._meta_registrations
    kept = formulas.pooling_output_shape_pad_lr
    formulas.pooling_output_shape_pad_lr = pooled
    try:
        yield
    finally:
        formulas.pooling_output_shape_pad_lr = kept


def checked(x: Tensor, axis: int, wanted: Any, what: str) -> None:
    """torch's own check that an axis fits the parameters, so that a size the model fixes is seen to be
    fixed.
    """
    torch._check(  # pyright: ignore[reportPrivateUsage]
        x.shape[axis] == wanted, lambda: f"{what} takes {wanted} in axis {axis}, the input is {list(x.shape)}"
    )


def fitted(g: Recorder, x: Tensor, sizes: Sequence[Any]) -> Tensor:
    """A tensor that is to be repeated to these sizes (-1: as it is), whole in the axes of which a branch or
    data chose the size, with torch's check of these: one may be 1 for some inputs and whole for others, which
    operators in the graph see by themselves. The very same where there are none.
    """
    own: list[Any] = list(x.shape)
    changed = False
    for axis in range(-min(len(own), len(sizes)), 0):
        size, wanted = own[axis], sizes[axis]
        if (isinstance(wanted, int) and wanted == -1) or not g.env.is_chosen(size):
            continue
        if g.env.known(sympy.Eq(g.env.expr(size), g.env.expr(wanted))) is None:
            torch._check(sym_or(size == 1, size == wanted))
            own[axis], changed = wanted, True
    return like(g.mode, x, own) if changed else x


def without_generator(func: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The overload that takes no generator, of one that was given none: torch has the other for whole numbers
    alone.
    """
    name = func._overloadname.removesuffix("generator").removesuffix("_") or "default"
    return getattr(func.overloadpacket, name), {k: v for k, v in kwargs.items() if k != "generator"}


def dim_from_the_front(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call without a negative `dim`, to which torch's own shape of some operators gives
    another rank.
    """
    given = {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)} | kwargs
    dim = given.get("dim")
    if dim is None or dim >= 0:
        return args, kwargs
    return (args[0],), {n: v for n, v in given.items() if n != "self"} | {"dim": dim % max(args[0].dim(), 1)}


def like(mode: FakeTensorMode, tensor: torch.Tensor, sizes: Sequence[Any]) -> torch.Tensor:
    """A fake tensor of these sizes with the other's order of strides, as far as it says what is
    contiguous.
    """
    order = sorted(
        range(len(sizes)), key=lambda d: -hint(tensor.stride(d)) if hint(tensor.stride(d)) else -(1 << 62)
    )
    repeated = [hint(tensor.stride(d)) == 0 for d in range(len(sizes))]
    base = fresh(mode, [1 if repeated[d] else sizes[d] for d in order], tensor.dtype, tensor.device)
    if order == list(range(len(sizes))) and not any(repeated):
        return base
    back = [order.index(d) for d in range(len(sizes))]
    made = base.permute(back)
    return made.expand(list(sizes)) if any(repeated) else made


def without_axis(mode: FakeTensorMode, tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """What one place of an axis looks like, with the strides that it has in the whole: they decide whether
    a reshape of it is a view.
    """
    sizes, strides = list(tensor.shape), list(tensor.stride())
    del sizes[axis], strides[axis]
    with _disable_current_modes():
        plain = torch.empty_strided(sizes, strides, dtype=tensor.dtype, device="meta")
        return FakeTensor(mode, plain, tensor.device)


def hint(size: Any) -> int:
    """A size or stride, or the number that stands for it while recording."""
    return int(size.node.shape_env.value(size.node.expr)) if isinstance(size, torch.SymInt) else int(size)
