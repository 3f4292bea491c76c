"""Python's `math` and NumPy's functions of numbers that only the run knows: formulas where ONNX has an
operator for the function, else tensors.
"""

# torch's symbolic numbers are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.fx.experimental.sym_node import SymNode
from torch.utils._sympy import functions

from ingot.capture import checks, scalars
from ingot.capture.choice import present
from ingot.capture.request import recorder
from ingot.capture.scalars import Symbolic, depends_on_data
from ingot.capture.standins.table import STANDINS
from ingot.capture.standins.values import number_in

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime

Tensor = torch.Tensor
Function = Callable[..., Any]
_plain_log: Function = math.log
_real: Function = torch.sym_float


def _formula(name: str) -> Function:
    """A function that ONNX has, of a symbolic number."""
    found: Any = getattr(functions, f"OpaqueUnaryFn_{name}")

    def compute(x: Any) -> Any:
        real = _real(x)
        return torch.SymFloat(SymNode(found(real.node.expr), real.node.shape_env, float, None))

    return compute


def of_tensors(compute: Callable[..., Tensor], dtype: torch.dtype = torch.float64) -> Function:
    """A function of numbers by what PyTorch does with tensors of them."""

    def result(*numbers: Any) -> Any:
        g = recorder()
        kind = float if dtype.is_floating_point else int
        return scalars.item(g, compute(*(scalars.as_tensor(g, n, dtype) for n in numbers)), kind)

    return result


def _log10(x: Tensor) -> Tensor:
    """Whole for powers of ten, as C's is."""
    found = x.log() / math.log(10)
    whole = found.round()
    return torch.where(torch.pow(10.0, whole) == x, whole, found)


def _log(x: Any, *base: Any) -> Any:
    """log(x), and log(x, base) in the same way as Python."""
    above, *below = (_ONE["log"](v) if isinstance(v, Symbolic) else _plain_log(v) for v in (x, *base))
    return above / below[0] if below else above


_ONE: dict[str, Function] = {
    **{
        name: _formula(name)
        for name in (
            "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin", "acos", "atan", "exp", "log", "log2",
        )
    },
    "log10": of_tensors(_log10),
    "log1p": of_tensors(torch.log1p),
    "expm1": of_tensors(torch.expm1),
    "exp2": of_tensors(torch.exp2),
    "erf": of_tensors(torch.erf),
    "fabs": lambda x: abs(_real(x)),
    "degrees": lambda x: x * (180.0 / math.pi),
    "radians": lambda x: x * (math.pi / 180.0),
}  # fmt: skip
_TWO: dict[str, Function] = {
    "atan2": of_tensors(torch.atan2),
    "hypot": of_tensors(torch.hypot),
    "fmod": of_tensors(torch.fmod),
    "copysign": of_tensors(torch.copysign),
}
_ASKED: dict[str, Callable[[Tensor], Tensor]] = {
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "isfinite": torch.isfinite,
}

#: Where `math` raises an error: numbers that a function does not take.
_REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "sqrt": lambda x: x < 0,
    **dict.fromkeys(("log", "log2", "log10"), lambda x: x <= 0),
    "log1p": lambda x: x <= -1,
    **dict.fromkeys(("asin", "acos"), lambda x: x.abs() > 1),
}


def _isqrt(n: Any) -> Any:
    g = recorder()
    checks.demand(g, n >= 0, "math.isqrt takes no number below 0")
    if not depends_on_data(g, g.env.expr(n)):
        return math.floor(_ONE["sqrt"](n))  # of what float64 has as it is
    return of_tensors(_whole_root, torch.int64)(n)


def _whole_root(n: Tensor) -> Tensor:
    """The root of any int64, of which float64 knows the first 53 bits."""
    near = n.double().sqrt().long()
    near = near - (near > n // near.clamp(min=1)).long()
    more = near + 1
    return torch.where(more <= n // more, more, near)


def _bit_length(n: Any) -> Any:
    """n.bit_length(): how many powers of two there are up to the number's size."""
    e = recorder().env.expr(n)
    if e.is_number:
        return int(e).bit_length()
    powers = torch.ones(63, dtype=torch.int64) << torch.arange(63)
    return (scalars.as_tensor(recorder(), abs(n), torch.int64) >= powers).sum().item()


def _require_taken(name: str, x: Any) -> None:
    """The run fails where Python raises: for what data decides, sizes being what they are."""
    refused, g = _REFUSED.get(name), recorder()
    if refused is not None and isinstance(x, Symbolic) and depends_on_data(g, g.env.expr(x)):
        wrong = refused(scalars.as_tensor(g, x, torch.float64))
        checks.require(g, g.val(~wrong), f"math.{name} takes the number")


def _standin(function: Any, name: str, symbolic: Function) -> None:
    def standin(rt: Runtime, *args: Any) -> Any:
        del rt
        args = tuple(number_in(present(a)) for a in args)
        if not any(isinstance(a, Symbolic) for a in args):
            return function(*args)
        _require_taken(name, args[0])
        return symbolic(*args)

    STANDINS[id(function)] = standin


def _question(function: Any, compute: Callable[[Tensor], Tensor]) -> None:
    def standin(rt: Runtime, x: Any) -> Any:
        x = number_in(x)
        if not isinstance(x, Symbolic):
            return function(x)
        return rt.truth(compute(scalars.as_tensor(recorder(), x, torch.float64)))

    STANDINS[id(function)] = standin


def _of_numpy(function: Any, symbolic: Callable[..., Any]) -> None:
    """A function that NumPy has for arrays as well: those are its own."""

    def standin(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
        numbers = all(isinstance(a, (bool, int, float, *Symbolic)) for a in args)
        if kwargs or not numbers or not any(isinstance(a, Symbolic) for a in args):
            return function(*args, **kwargs)
        return symbolic(rt, *args)

    STANDINS[id(function)] = standin


def _extreme(whole: Function, real: Callable[..., Tensor]) -> Callable[..., Any]:
    """np.minimum or np.maximum: NaN is the result where one is NaN, as Python's own would not have it."""

    def symbolic(rt: Runtime, a: Any, b: Any) -> Any:
        if all(isinstance(x, (int, torch.SymInt)) for x in (a, b)):
            return rt.call(whole, a, b)
        return of_tensors(real)(a, b)

    return symbolic


def _rounded(whole: Function, real: Callable[..., Tensor]) -> Callable[..., Any]:
    """np.floor and its like, which give floats: of NaN and infinities themselves."""

    def symbolic(rt: Any, x: Any) -> Any:
        del rt
        is_of_data = depends_on_data(recorder(), recorder().env.expr(x))
        return of_tensors(real)(x) if is_of_data else _real(x if isinstance(x, torch.SymInt) else whole(x))

    return symbolic


_least, _most = _extreme(min, torch.minimum), _extreme(max, torch.maximum)


def _clip(rt: Runtime, x: Any, low: Any, high: Any) -> Any:
    return _least(rt, _most(rt, x, low), high)


def register() -> None:
    """Put these among the stand-ins."""
    for table in (_ONE, _TWO):
        for name, symbolic in table.items():
            if hasattr(math, name):
                _standin(getattr(math, name), name, symbolic)
    _standin(math.log, "log", _log)
    _standin(math.isqrt, "isqrt", _isqrt)
    _standin(math.gcd, "gcd", of_tensors(torch.gcd, torch.int64))
    for name, compute in _ASKED.items():
        _question(getattr(math, name), compute)
    _of_numpy(np.minimum, _least)
    _of_numpy(np.maximum, _most)
    _of_numpy(np.clip, _clip)
    _of_numpy(np.floor, _rounded(math.floor, torch.floor))
    _of_numpy(np.ceil, _rounded(math.ceil, torch.ceil))
    _of_numpy(np.trunc, _rounded(math.trunc, torch.trunc))
    _of_numpy(np.rint, _rounded(round, torch.round))


#: What NumPy calls on objects that it knows nothing of, `x.sqrt()` for np.sqrt(x).
_METHODS: dict[str, Function] = {
    **_ONE,
    "arcsin": _ONE["asin"],
    "arccos": _ONE["acos"],
    "arctan": _ONE["atan"],
    "deg2rad": _ONE["radians"],
    "rad2deg": _ONE["degrees"],
    "hypot": _TWO["hypot"],
    "arctan2": _TWO["atan2"],
    "rint": lambda x: _rounded(round, torch.round)(None, x),
}


@contextlib.contextmanager
def numpy_understood() -> Generator[None]:
    """For the time of a recording: NumPy's functions take sizes, and sizes say how many bits they have."""
    kinds: tuple[Any, ...] = (torch.SymInt, torch.SymFloat)
    whole: Any = torch.SymInt
    of_torch, whole.bit_length = whole.bit_length, _bit_length  # torch would fix the number
    for kind in kinds:
        for name, method in _METHODS.items():
            setattr(kind, name, method)
    try:
        yield
    finally:
        whole.bit_length = of_torch
        for kind in kinds:
            for name in _METHODS:
                delattr(kind, name)
