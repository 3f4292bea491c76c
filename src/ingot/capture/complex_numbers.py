"""Complex tensors as two real ones: an ATen call on them becomes calls on their parts, which are recorded as
any.

ONNX has no complex dtypes. A complex tensor of the recording has an entry with two parts instead of a value;
at the model's edge it is one real tensor with an axis of 2 at its end, as `torch.view_as_real` has it.
Structure is done to both parts alike, so that views of a complex tensor are views of its parts and writes
find their way.
"""

# Rules take whatever the ATen call was given; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false, reportPrivateUsage=false
# ruff: noqa: ARG001, ARG005

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture import fakes
from ingot.capture.entries import Group, View
from ingot.capture.missing import without_row
from ingot.capture.where import quoted_line
from ingot.errors import ExportError, MissingOperatorError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
Rule = Callable[
    ..., Any
]  # (recorder, ATen function, *args, **kwargs) to a real tensor, a Pair, or a list of them

REAL: dict[torch.dtype, torch.dtype] = {
    torch.complex32: torch.float16,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}


class Pair(tuple[Any, Any]):
    """Real and imaginary part of a result; plain numbers as well as tensors."""

    __slots__ = ()


RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register what an ATen operator does to complex tensors."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


_MAKERS = frozenset(
    ("complex", "polar", "view_as_complex", "_fft_r2c", "_fft_c2c", "_fft_c2r", "stft", "istft")
)


def concern(name: str, tensors: Sequence[Tensor], args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether a call takes or gives complex numbers: tensors of them, or one of Python's."""
    if name in _MAKERS or any(t.is_complex() for t in tensors):
        return True
    if any(isinstance(a, complex) for a in (*args, *kwargs.values())):
        return True
    dtype = kwargs.get("dtype")
    return isinstance(dtype, torch.dtype) and dtype.is_complex


# -- parts


def parts(g: Recorder, tensor: Any) -> tuple[Tensor, Tensor]:
    """The two real tensors of a complex one; those of a real one, with zeros."""
    if not tensor.is_complex():
        return tensor, g.recorded(torch.zeros_like, tensor)
    e = g.entry(tensor)
    if e.parts is None:
        view = e.view
        if view is not None and view.op in RULES:
            base = parts(g, view.parent.tensor)
            made = [g.recorded(view.func, b, *view.args[1:], **view.kwargs) for b in base]
            re, im = made if view.index is None else (m[view.index] for m in made)
        else:
            assert e.real is not None
            with _disable_current_modes():
                plain = e.real.resolve_conj().resolve_neg()
                re, im = plain.real.clone(), plain.imag.clone()
            for p in (re, im):
                g.constant(p, e)
        e.parts = (re, im)
    return e.parts


def part(g: Recorder, x: Any, which: int) -> Any:
    """One part of a tensor, number or list of them."""
    if isinstance(x, (list, tuple)):
        return [part(g, v, which) for v in x]
    if isinstance(x, Tensor):
        if x.is_complex():
            return parts(g, x)[which]
        return x if which == 0 else torch.zeros_like(x)
    if isinstance(x, complex):
        return x.imag if which else x.real
    return x if which == 0 or x is None else 0


def split(g: Recorder, x: Any) -> tuple[Any, Any]:
    """Both parts; None for the imaginary part of what is real."""
    if isinstance(x, Tensor):
        return parts(g, x) if x.is_complex() else (x, None)
    if isinstance(x, complex):
        return x.real, x.imag
    return x, None


def as_pairs(g: Recorder, tensor: Tensor) -> Tensor:
    """A complex tensor as a real one with its parts along a last axis of 2."""
    re, im = parts(g, tensor)
    a, b = g.val(re), g.val(im)
    known = g.memo.get(("pairs", id(a), id(b)))
    if known is None:
        last = g.const([-1])
        known = g.op("Concat", g.op("Unsqueeze", a, last), g.op("Unsqueeze", b, last), axis=-1)
        g.memo["pairs", id(a), id(b)] = known
    made = fakes.fresh(g.mode, [*re.shape, 2], re.dtype, re.device)
    g.bind(made, known)
    return made


def from_pairs(g: Recorder, value: ir.Value, shape: Sequence[Any], dtype: torch.dtype) -> Pair:
    """The parts of a value that has them along its last axis."""
    made: list[Tensor] = []
    values = [g.op("Gather", value, g.const(i), axis=-1) for i in (0, 1)]
    for v in values:
        fake = fakes.fresh(g.mode, list(shape), dtype, torch.device("cpu"))
        g.bind(fake, v)
        g.note_dims(fake, v)
        made.append(fake)
    g.memo["pairs", id(values[0]), id(values[1])] = value
    return Pair(made)


# -- calls


def dispatch(
    g: Recorder,
    func: Any,
    name: str,
    tensors: Sequence[Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    out: Any,
) -> Any:
    """One ATen call that takes or gives complex numbers. tensors: those among its arguments."""
    found = RULES.get(name)
    if found is None:
        without_row(g, func, args, kwargs, out)
        return out
    g.locate()
    made = g.recorded(found, g, func, *args, **kwargs)
    given = set[Group]() if func.is_view else _memories(g, tensors)
    if isinstance(made, list):
        return [_result(g, m, o, given) for m, o in zip(made, out, strict=True)]
    return _result(g, made, out, given)


def _memories(g: Recorder, tensors: Sequence[Tensor]) -> set[Group]:
    """Where tensors and their parts lie."""
    entries = [g.entry(t) for t in tensors]
    parted = [g.entry(p) for e in entries for p in e.parts or ()]
    return {e.group for e in (*entries, *parted)}


def _result(g: Recorder, made: Any, out: Tensor, given: set[Group]) -> Tensor:
    """What a rule gives as the result of a call. given: memory of operands, which no result may share."""

    def own(p: Tensor) -> Tensor:
        return g.recorded(p.clone) if g.entry(p).group in given else p

    if not isinstance(made, Pair):
        return own(made)
    re, im = made
    if not out.is_complex():
        raise ExportError(
            f"{quoted_line()}\nA complex number stands beside real tensors where PyTorch takes real ones "
            "alone. Make one of the tensors complex."
        )
    dtype = REAL[out.dtype]
    re, im = (own(_tensor(g, p, out, dtype)) for p in (re, im))
    tensor = fakes.fresh(g.mode, list(re.shape), out.dtype, out.device)
    g.bind_complex(tensor, re, im)
    return tensor


def _tensor(g: Recorder, p: Any, out: Tensor, dtype: torch.dtype) -> Tensor:
    if not isinstance(p, Tensor):
        return g.recorded(torch.full, list(out.shape), 0 if p is None else p, dtype=dtype)
    return p if p.dtype == dtype else g.recorded(p.to, dtype)


def write(g: Recorder, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """One ATen call that writes into a complex tensor, or complex numbers into a real one."""
    target = args[0]
    found = RULES.get(name)
    if found is None:
        raise MissingOperatorError(f"{func} on complex numbers has no row, at {quoted_line()}")
    g.locate()
    made = g.recorded(found, g, func, *args, **kwargs)
    if not isinstance(made, Pair):
        made = Pair((made, None))
    if not target.is_complex():
        raise ExportError(
            f"{func} writes complex numbers into a real tensor at {quoted_line()}; take .real of them."
        )
    if torch.Tag.inplace_view in func.tags:
        g.entry(target).parts = made  # views of what its parts were
        return
    for mine, new in zip(parts(g, target), made, strict=True):
        g.recorded(mine.copy_, new) if isinstance(new, Tensor) else g.recorded(mine.fill_, new or 0)


# -- rules: the same thing to both parts

_OF_THE_FIRST = """
    slice view _unsafe_view reshape _reshape_alias expand permute transpose t unsqueeze squeeze select clone
    contiguous detach alias lift_fresh repeat flip roll index _unsafe_index index_select gather split
    split_with_sizes unbind unfold diagonal diag_embed tril triu sum mean cumsum neg cat stack masked_select
    take trace positive resolve_conj resolve_neg nansum slice_copy view_copy expand_copy permute_copy
    transpose_copy t_copy detach_copy unsqueeze_copy squeeze_copy select_copy alias_copy unfold_copy
    diagonal_copy lift_fresh_copy zero rot90 _neg_view
"""
_LINEAR: dict[str, tuple[int, ...]] = {  # which arguments have parts
    **dict.fromkeys(_OF_THE_FIRST.split(), (0,)),
    "masked_fill": (0, 2),
    "where": (1, 2),
    "index_put": (0, 2),
    "_unsafe_index_put": (0, 2),
    "_index_put_impl": (0, 2),
    "scatter": (0, 3),
    "scatter_add": (0, 3),
    "index_add": (0, 3),
    "index_copy": (0, 3),
    "index_fill": (0, 3),
    "masked_scatter": (0, 2),
    "copy": (0, 1),
    "fill": (0, 1),
    "constant_pad_nd": (0, 2),
    "slice_scatter": (0, 1),
    "select_scatter": (0, 1),
    "diagonal_scatter": (0, 1),
}


def _functional(func: Any) -> Any:
    """`op` for `op_`."""
    name = func._schema.name.split("::")[1]
    return getattr(torch.ops.aten, name[:-1]) if name.endswith("_") and name[:-1] else func


def _linear(places: tuple[int, ...]) -> Rule:
    def apply(g: Recorder, func: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(kwargs.get("dtype"), torch.dtype):
            kwargs = {**kwargs, "dtype": REAL.get(kwargs["dtype"], kwargs["dtype"])}
        call = _functional(func)
        made = [
            call(*[part(g, a, which) if i in places else a for i, a in enumerate(args)], **kwargs)
            for which in (0, 1)
        ]
        if isinstance(made[0], (list, tuple)):
            return [Pair(p) for p in zip(*made, strict=True)]
        return Pair(made)

    return apply


for _name, _places in _LINEAR.items():
    RULES[_name] = _linear(_places)


def _plus(a: Any, b: Any, sign: int) -> Any:
    if b is None:
        return a
    if a is None:
        return b if sign > 0 else -b
    return a + b if sign > 0 else a - b


def _whole_shape(made: Pair) -> Pair:
    """Parts of one shape, where only one of them was broadcast."""
    re, im = made
    if isinstance(re, Tensor) and isinstance(im, Tensor) and re.shape != im.shape:
        re, im = torch.broadcast_tensors(re, im)
    return Pair((re, im))


def times(g: Recorder, a: Any, b: Any, product: Any = torch.mul) -> Pair:
    """The product of two complex (or real) operands."""
    ar, ai = a if isinstance(a, Pair) else split(g, a)
    br, bi = b if isinstance(b, Pair) else split(g, b)
    re = product(ar, br)
    if ai is None and bi is None:
        return Pair((re, None))
    if ai is None:
        return Pair((re, product(ar, bi)))
    if bi is None:
        return Pair((re, product(ai, br)))
    return Pair((re - product(ai, bi), product(ar, bi) + product(ai, br)))


@rule("add")
def _add(g: Recorder, func: Any, a: Any, b: Any, *, alpha: Any = 1) -> Pair:
    ar, ai = split(g, a)
    br, bi = times(g, b, alpha) if alpha != 1 else split(g, b)
    return _whole_shape(Pair((ar + br, _plus(ai, bi, 1))))


@rule("sub")
def _sub(g: Recorder, func: Any, a: Any, b: Any, *, alpha: Any = 1) -> Pair:
    ar, ai = split(g, a)
    br, bi = times(g, b, alpha) if alpha != 1 else split(g, b)
    return _whole_shape(Pair((ar - br, _plus(ai, bi, -1))))


@rule("rsub")
def _rsub(g: Recorder, func: Any, a: Any, b: Any, alpha: Any = 1) -> Pair:
    return _sub(g, func, b, a, alpha=alpha)


@rule("mul")
def _mul(g: Recorder, func: Any, a: Any, b: Any) -> Pair:
    return times(g, a, b)


@rule("mm", "bmm", "mv", "dot", "matmul")
def _matmul(g: Recorder, func: Any, a: Any, b: Any) -> Pair:
    return times(g, a, b, _functional(func))


@rule("vdot")
def _vdot(g: Recorder, func: Any, a: Any, b: Any) -> Pair:
    return times(g, _conj(g, func, a), b, torch.dot)


@rule("addmm", "baddbmm", "addmv")
def _addmm(g: Recorder, func: Any, c: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Pair:
    product = times(g, times(g, a, b, torch.matmul), alpha)
    if beta == 0:
        return product
    (pr, pi), (cr, ci) = product, times(g, c, beta)
    return _whole_shape(Pair((pr + cr, _plus(pi, ci, 1))))


@rule("convolution", "_convolution")
def _convolution(g: Recorder, func: Any, x: Any, weight: Any, bias: Any, *rest: Any) -> Pair:
    re, im = times(g, x, weight, lambda a, b: func(a, b, None, *rest))
    if bias is not None:
        br, bi = split(g, bias)
        shape = [-1, *[1] * (x.dim() - 2)]
        re, im = re + br.reshape(shape), im if bi is None else im + bi.reshape(shape)
    return Pair((re, im))


def _inverted(re: Tensor, im: Tensor) -> tuple[Pair, Tensor]:
    """A pair and a factor, whose product is 1 / (re + i im).

    By the quotient of the smaller part and the larger, as torch: a square may overflow, or be 0 (Smith,
    Algorithm 116, CACM 1962).
    """
    first = torch.abs(re) >= torch.abs(im)
    large, small = torch.where(first, re, im), torch.where(first, im, re)
    ratio = small / large
    pair = Pair((torch.where(first, 1.0, ratio), -torch.where(first, ratio, 1.0)))
    return pair, 1 / (large + small * ratio)


def _over(g: Recorder, a: Any, b: Any) -> Pair:
    """a / b."""
    br, bi = b if isinstance(b, Pair) else split(g, b)
    if bi is None:
        ar, ai = split(g, a)
        return Pair((ar / br, None if ai is None else ai / br))
    if not isinstance(br, Tensor):
        return times(g, a, 1 / complex(br, bi))
    pair, factor = _inverted(br, bi)
    re, im = pair if isinstance(a, int) and a == 1 else times(g, a, pair)
    return Pair((re * factor, im * factor))


def _reciprocal(g: Recorder, a: Any) -> Pair:
    return _over(g, 1, a)


@rule("reciprocal")
def _reciprocal_rule(g: Recorder, func: Any, a: Any) -> Pair:
    return _reciprocal(g, a)


@rule("div", "divide", "true_divide")
def _div(g: Recorder, func: Any, a: Any, b: Any, *, rounding_mode: Any = None) -> Pair:
    return _over(g, a, b)


@rule("conj_physical", "_conj", "_conj_physical", "conj", "_conj_copy")
def _conj(g: Recorder, func: Any, a: Any) -> Pair:
    re, im = split(g, a)
    return Pair((re, None if im is None else _negative(g, im)))


def _negative(g: Recorder, x: Tensor) -> Tensor:
    """-x, as a view: what is written into one of the two is in the other."""
    with g.pause():
        out = x.detach()
    parent, value = g.entry(x), _negated(g, out, x)
    view = View(partial(_negative, g), parent, "neg", _negated, out, (x,), {}, None)
    g.new_entry(out, parent.group, value=value, view=view)
    g.annotate(value, out)
    g.note_dims(out, value)
    return out


def _negated(g: Recorder, out: Any, x: Tensor) -> ir.Value:
    del out  # every row takes it
    return g.op("Neg", g.val(x))


@rule("abs")
def _abs(g: Recorder, func: Any, a: Any) -> Tensor:
    return modulus(*parts(g, a))


def modulus(re: Tensor, im: Tensor) -> Tensor:
    """sqrt(re² + im²), scaled by the larger so that neither square overflows."""
    x, y = torch.abs(re), torch.abs(im)
    large = torch.maximum(x, y)
    safe = torch.where((large == 0) | torch.isinf(large), torch.ones_like(large), large)
    ratio = torch.minimum(x, y) / safe
    return torch.where(torch.isinf(large), large, large * torch.sqrt(1 + ratio * ratio))


@rule("angle")
def _angle(g: Recorder, func: Any, a: Any) -> Tensor:
    re, im = parts(g, a)
    return torch.atan2(im, re)


@rule("sgn")
def _sgn(g: Recorder, func: Any, a: Any) -> Pair:
    re, im = parts(g, a)
    length = modulus(re, im)
    safe = torch.where(length == 0, torch.ones_like(length), length)
    return Pair((re / safe, im / safe))


@rule("complex")
def _complex(g: Recorder, func: Any, re: Tensor, im: Tensor) -> Pair:
    return Pair(torch.broadcast_tensors(re, im))


@rule("polar")
def _polar(g: Recorder, func: Any, length: Tensor, angle: Tensor) -> Pair:
    return Pair((length * torch.cos(angle), length * torch.sin(angle)))


@rule("view_as_complex")
def _view_as_complex(g: Recorder, func: Any, pairs: Tensor) -> Pair:
    return Pair((pairs.select(-1, 0), pairs.select(-1, 1)))


@rule("view_as_real", "view_as_real_copy")
def _view_as_real(g: Recorder, func: Any, a: Any) -> Tensor:
    """A copy of both parts: after a write into one of them a read of the other is refused."""
    from ingot.capture.sharing import link_copy  # which needs this file

    made = as_pairs(g, a)
    if func.is_view:
        link_copy(g, made, parts(g, a))
    return made


@rule("real")
def _real(g: Recorder, func: Any, a: Any) -> Tensor:
    return parts(g, a)[0]


@rule("imag")
def _imag(g: Recorder, func: Any, a: Any) -> Tensor:
    return parts(g, a)[1]


# -- rules: functions


@rule("exp")
def _exp(g: Recorder, func: Any, a: Any) -> Pair:
    re, im = a if isinstance(a, Pair) else parts(g, a)
    size = torch.exp(re)
    return Pair((size * torch.cos(im), size * torch.sin(im)))


@rule("log")
def _log(g: Recorder, func: Any, a: Any) -> Pair:
    re, im = a if isinstance(a, Pair) else parts(g, a)
    return Pair((torch.log(modulus(re, im)), torch.atan2(im, re)))


def _scaled_log(base: float) -> Rule:
    def apply(g: Recorder, func: Any, a: Any) -> Pair:
        re, im = _log(g, func, a)
        return Pair((re / math.log(base), im / math.log(base)))

    return apply


RULES["log2"], RULES["log10"] = _scaled_log(2.0), _scaled_log(10.0)


@rule("sqrt")
def _sqrt(g: Recorder, func: Any, a: Any) -> Pair:
    """The larger part from |z| + |re|, of which nothing is lost, the other by their product, |im| / 2."""
    re, im = parts(g, a)
    size = torch.abs(im)
    large = torch.sqrt(modulus(re, im) / 2 + torch.abs(re) / 2)
    small = torch.where((large == 0) | torch.isinf(size), size, size / (2 * large))
    right = re >= 0
    x, y = torch.where(right, large, small), torch.where(right, small, large)
    return Pair((x, torch.copysign(y, im)))


@rule("rsqrt")
def _rsqrt(g: Recorder, func: Any, a: Any) -> Pair:
    return _reciprocal(g, _sqrt(g, func, a))


@rule("square")
def _square(g: Recorder, func: Any, a: Any) -> Pair:
    return times(g, a, a)


@rule("pow")
def _pow(g: Recorder, func: Any, a: Any, b: Any) -> Pair:
    """Whole exponents by products, others through exp(b log a)."""
    if isinstance(b, (int, float)) and float(b).is_integer() and abs(b) <= 16:
        n = int(abs(b))
        power = Pair(split(g, a))
        if n == 0:
            return Pair((torch.ones_like(power[0]), None))
        for _ in range(n - 1):
            power = times(g, power, a)
        return power if b > 0 else _reciprocal(g, power)
    if isinstance(b, (int, float)) and b == 0.5:
        return _sqrt(g, func, a)
    if isinstance(a, (int, float, complex)):
        return _exp(g, func, times(g, b, cmath.log(a)))
    return _exp(g, func, times(g, _log(g, func, a), b))


@rule("sin")
def _sin(g: Recorder, func: Any, a: Any) -> Pair:
    x, y = parts(g, a)
    return Pair((torch.sin(x) * torch.cosh(y), torch.cos(x) * torch.sinh(y)))


@rule("cos")
def _cos(g: Recorder, func: Any, a: Any) -> Pair:
    x, y = parts(g, a)
    return Pair((torch.cos(x) * torch.cosh(y), -(torch.sin(x) * torch.sinh(y))))


@rule("sinh")
def _sinh(g: Recorder, func: Any, a: Any) -> Pair:
    x, y = parts(g, a)
    return Pair((torch.sinh(x) * torch.cos(y), torch.cosh(x) * torch.sin(y)))


@rule("cosh")
def _cosh(g: Recorder, func: Any, a: Any) -> Pair:
    x, y = parts(g, a)
    return Pair((torch.cosh(x) * torch.cos(y), torch.sinh(x) * torch.sin(y)))


@rule("tanh")
def _tanh(g: Recorder, func: Any, a: Any) -> Pair:
    x, y = parts(g, a)
    part = 1 / torch.cosh(2 * x)  # 0 where the cosine is beyond all numbers
    below = 1 + torch.cos(2 * y) * part
    return Pair((torch.tanh(2 * x) / below, torch.sin(2 * y) * part / below))


@rule("tan")
def _tan(g: Recorder, func: Any, a: Any) -> Pair:
    x, y = parts(g, a)
    part = 1 / torch.cosh(2 * y)
    below = 1 + torch.cos(2 * x) * part
    return Pair((torch.sin(2 * x) * part / below, torch.tanh(2 * y) / below))


@rule("sigmoid")
def _sigmoid(g: Recorder, func: Any, a: Any) -> Pair:
    re, im = _exp(g, func, times(g, a, -1.0))
    return _reciprocal(g, Pair((1 + re, im)))


# -- rules: questions and reductions


def _either(test: Any, both: Any) -> Rule:
    def apply(g: Recorder, func: Any, a: Any) -> Tensor:
        re, im = parts(g, a)
        return both(test(re), test(im))

    return apply


RULES["isnan"] = _either(torch.isnan, torch.logical_or)
RULES["isinf"] = _either(torch.isinf, torch.logical_or)
RULES["isfinite"] = _either(torch.isfinite, torch.logical_and)
RULES["logical_not"] = _either(torch.logical_not, torch.logical_and)


def _truth(g: Recorder, a: Any) -> Tensor:
    re, im = split(g, a)
    return re != 0 if im is None else (re != 0) | (im != 0)


@rule("eq")
def _eq(g: Recorder, func: Any, a: Any, b: Any) -> Tensor:
    return (part(g, a, 0) == part(g, b, 0)) & (part(g, a, 1) == part(g, b, 1))


@rule("ne")
def _ne(g: Recorder, func: Any, a: Any, b: Any) -> Tensor:
    return (part(g, a, 0) != part(g, b, 0)) | (part(g, a, 1) != part(g, b, 1))


@rule("any", "all", "nonzero", "count_nonzero")
def _of_truth(g: Recorder, func: Any, a: Any, *args: Any, **kwargs: Any) -> Any:
    return _functional(func)(_truth(g, a), *args, **kwargs)


@rule("logical_and", "logical_or", "logical_xor")
def _logical(g: Recorder, func: Any, a: Any, b: Any) -> Any:
    return _functional(func)(_truth(g, a), _truth(g, b))


@rule("linalg_vector_norm", "norm")
def _norm(g: Recorder, func: Any, a: Any, *args: Any, **kwargs: Any) -> Any:
    kwargs.pop("dtype", None)
    return func(modulus(*parts(g, a)), *args, **kwargs)


@rule("var", "std")
def _var(g: Recorder, func: Any, a: Any, *args: Any, **kwargs: Any) -> Any:
    re, im = (torch.ops.aten.var(p, *args, **kwargs) for p in parts(g, a))
    total = re + im
    return torch.sqrt(total) if "std" in func._schema.name else total


@rule("prod")
def _prod(
    g: Recorder, func: Any, a: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Pair:
    flat = a.reshape(-1) if dim is None else a.movedim(dim, 0)
    total: Any = Pair((torch.ones_like(parts(g, flat)[0][0]), None))
    for row in flat.unbind(0):
        total = times(g, total, row)
    return Pair([p if p is None or not keepdim else p.unsqueeze(dim) for p in total])


@rule("_to_copy", "to")
def _to(g: Recorder, func: Any, a: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> Any:
    """Another width, or from and to real numbers; a real target drops the imaginary part, as torch does, but
    for truth.
    """
    wanted = a.dtype if dtype is None else dtype
    if not wanted.is_complex:
        return _truth(g, a) if wanted == torch.bool else parts(g, a)[0].to(wanted)
    return Pair([p.to(REAL[wanted], copy=True) for p in parts(g, a)])


def _like(number: float) -> Rule:
    def apply(g: Recorder, func: Any, a: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> Any:
        sizes = args[0] if args and isinstance(args[0], (list, tuple)) else a.shape
        return _full(list(sizes), number, dtype or a.dtype)

    return apply


def _full(sizes: list[Any], number: Any, dtype: Any) -> Any:
    if not dtype.is_complex:
        return torch.full(sizes, number, dtype=dtype)
    z = complex(number)
    return Pair([torch.full(sizes, v, dtype=REAL[dtype]) for v in (z.real, z.imag)])


for _name, _number in (("zeros", 0), ("ones", 1), ("empty", 0)):
    RULES[f"{_name}_like"] = RULES[f"new_{_name}"] = _like(_number)
    RULES[_name] = lambda g, func, size, *args, dtype=None, _number=_number, **kwargs: _full(
        list(size), _number, dtype
    )


@rule("full")
def _full_rule(g: Recorder, func: Any, size: Any, value: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return _full(list(size), value, dtype or torch.complex64)


@rule("full_like")
def _full_like(g: Recorder, func: Any, a: Any, value: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return _full(list(a.shape), value, dtype or a.dtype)


@rule("new_full")
def _new_full(
    g: Recorder, func: Any, a: Any, size: Any, value: Any, *, dtype: Any = None, **kwargs: Any
) -> Any:
    return _full(list(size), value, dtype or a.dtype)


@rule("scalar_tensor")
def _scalar_tensor(g: Recorder, func: Any, value: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return _full([], value, dtype)
