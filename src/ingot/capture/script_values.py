"""TorchScript's operators on numbers, lists and dicts, as Python has them: sizes may stay symbolic."""

# Values of a script may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from ingot.capture.request import cannot_wait, recorder
from ingot.capture.scalars import depends_on_data
from ingot.capture.stage import RUNTIME

SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
#: How often a `while` goes round, and the length of what `zip` and `enumerate` count with.
FOREVER = (1 << 63) - 1


def _div(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return _floor_div(a, b)
    quotient = _quotient(a, b)
    return quotient if rounding_mode is None else _int(quotient)


def _quotient(a: Any, b: Any) -> Any:
    """`a / b` as C++ has it: by 0, which Python refuses, an infinity or NaN."""
    if b == 0 if not isinstance(b, SYMBOLIC) else depends_on_data(recorder(), recorder().env.expr(b)):
        return _of_tensors(torch.true_divide)(a, b)
    return a / b


def _floor_div(a: Any, b: Any) -> Any:
    """`a // b`; of floats the quotient rounded down, which for 1.0 and 0.1 is 10: Python says 9."""
    return a // b if _are_whole(a, b) else _of_tensors(lambda x, y: torch.floor(x / y))(a, b)


def _remainder(a: Any, b: Any) -> Any:
    """`a % b`; of floats as C++ rounds it."""
    if _are_whole(a, b):
        return a % b
    return _of_tensors(lambda x, y: torch.fmod(y + torch.fmod(x, y), y))(a, b)


def _are_whole(*numbers: Any) -> bool:
    return all(isinstance(n, (int, torch.SymInt, torch.SymBool)) for n in numbers)


def _int(x: Any) -> Any:
    return RUNTIME.call(int, x)


def as_float(x: Any) -> Any:
    """A number as a float."""
    return RUNTIME.call(float, x)


def _bool(x: Any) -> Any:
    return x if isinstance(x, torch.SymBool) else x != 0 if isinstance(x, SYMBOLIC) else bool(x)


def _not(x: Any) -> Any:
    return torch.sym_not(_bool(x)) if isinstance(x, SYMBOLIC) else not x


def _range_length(low: Any, high: Any, step: Any) -> Any:
    if step == 1:
        return torch.sym_max(high - low, 0)
    return torch.sym_max((high - low + step - (1 if step > 0 else -1)) // step, 0)


def _round_to(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: x if isinstance(x, (int, torch.SymInt)) else function(x)


#: On numbers alone, symbolic ones among them; also where a traced graph has numbers as tensors of no axes.
NUMBERS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b, alpha=1: a + b if alpha == 1 else a + alpha * b,
    "sub": lambda a, b, alpha=1: a - b if alpha == 1 else a - alpha * b,
    "mul": operator.mul,
    "div": _div,
    "true_divide": _quotient,
    "floordiv": _floor_div,
    "floor_divide": _floor_div,
    "remainder": _remainder,
    "neg": operator.neg,
    "pow": operator.pow,
    "eq": RUNTIME.equal,
    "ne": RUNTIME.unequal,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "__not__": _not,
    "__and__": operator.and_,
    "__or__": operator.or_,
    "__xor__": operator.xor,
    "Int": _int,
    "IntImplicit": _int,
    "Float": as_float,
    "FloatImplicit": as_float,
    "Bool": _bool,
    "ScalarImplicit": lambda x: x,
    "item": lambda x: x,
    "ceil": _round_to(math.ceil),
    "floor": _round_to(math.floor),
    "sqrt": lambda x: torch.sym_sqrt(x),
    "abs": abs,
    "min": torch.sym_min,
    "max": torch.sym_max,
    "__range_length": _range_length,
    "__derive_index": lambda i, start, step: start + i * step,
}


def _of_tensors(function: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """A function of floats, which the model computes in float64."""
    return lambda *xs: function(*[torch.scalar_tensor(x, dtype=torch.float64) for x in xs]).item()


#: On numbers that a script has as such, where only the run knows one of them.
SCALARS: dict[str, Callable[..., Any]] = {
    "__lshift__": lambda a, b: a * 2**b,
    "__rshift__": lambda a, b: a // 2**b,
    "divmod": lambda a, b: (a // b, a % b),
    "fabs": lambda x: abs(as_float(x)),
    "degrees": _of_tensors(torch.rad2deg),
    "radians": _of_tensors(torch.deg2rad),
    **{
        name: _of_tensors(getattr(torch, name))
        for name in (
            "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "copysign", "cos", "cosh", "erf",
            "erfc", "exp", "expm1", "fmod", "isfinite", "isinf", "isnan", "lgamma", "log", "log10", "log1p",
            "round", "sin", "sinh", "tan", "tanh",
        )
    },
}  # fmt: skip


def text_of(x: Any, told: bool = False) -> str:
    """A value in a string, as TorchScript writes it: floats with as many digits as tell them apart.

    told: an error says it, and no output has it
    """
    if isinstance(x, float):
        return f"{int(x)}." if abs(x) < 1e10 and x.is_integer() else f"{x:.17g}"
    if isinstance(x, (list, tuple)):
        inside = ", ".join(text_of(part, told) for part in x)
        return f"[{inside}]" if isinstance(x, list) else f"({inside}{',' if len(x) == 1 else ''})"
    if isinstance(x, dict):
        return f"{{{', '.join(f'{text_of(k, told)}: {text_of(v, told)}' for k, v in x.items())}}}"
    return str(RUNTIME.told(x) if told else RUNTIME.text(x))


def _slice(x: Any, start: Any = None, end: Any = None, step: int = 1) -> Any:
    return RUNTIME.item(x, slice(start, end, step))


def key_of(x: Any, key: Any) -> Any:
    """A key of a dict that the script makes or changes: Python has to know it."""
    if isinstance(x, dict) and isinstance(key, SYMBOLIC):
        cannot_wait("makes a number that data or a size decides a key of a dict")
    return key


def _set_item(x: Any, key: Any, value: Any) -> Any:
    x[key_of(x, key)] = value
    return x


def _returning(change: Callable[..., Any]) -> Callable[..., Any]:
    """A change in place that gives the container back, as TorchScript's do."""

    def changed(x: Any, *rest: Any) -> Any:
        change(x, *rest)
        return x

    return changed


def _delete(x: Any, key: Any) -> None:
    del x[key]


#: On lists, dicts and tuples, which are changed in place.
CONTAINERS: dict[str, Callable[..., Any]] = {
    "append": _returning(lambda x, v: x.append(v)),
    "extend": _returning(lambda x, v: x.extend(v)),
    "insert": _returning(lambda x, i, v: x.insert(i, v)),
    "remove": _returning(lambda x, v: x.remove(v)),
    "reverse": _returning(lambda x: x.reverse()),
    "clear": _returning(lambda x: x.clear()),
    "sort": _returning(lambda x, reverse=False: RUNTIME.call(x.sort, reverse=reverse)),
    "mul_": _returning(lambda x, n: x.__setitem__(slice(None), x * n)),
    "sorted": lambda x: RUNTIME.call(sorted, x),
    "pop": lambda x, *i: x.pop(*i),
    "popitem": lambda x: x.popitem(),
    "copy": lambda x: x.copy(),
    "list": lambda x: RUNTIME.call(list, x),
    "dict": lambda x: RUNTIME.new_dict(x.copy() if isinstance(x, dict) else dict(x)),
    "index": lambda x, v: RUNTIME.call(x.index, v),
    "count": lambda x, v: RUNTIME.call(x.count, v),
    "len": lambda x: RUNTIME.call(len, x),
    "add": operator.add,
    "add_": _returning(lambda x, v: x.extend(v)),
    "mul": operator.mul,
    "eq": RUNTIME.equal,
    "ne": RUNTIME.unequal,
    "slice": _slice,
    "__getitem__": RUNTIME.item,
    "_set_item": _set_item,
    "Delete": _delete,
    "__contains__": RUNTIME.contains,
    "keys": lambda x: RUNTIME.call(list, x.keys()),
    "values": lambda x: RUNTIME.call(list, x.values()),
    "items": lambda x: RUNTIME.call(list, x.items()),
    "get": lambda x, key, default=None: RUNTIME.call(x.get, key, default),
    "setdefault": lambda x, key, default: x.setdefault(key_of(x, key), default),
    "update": _returning(lambda x, v: x.update(v)),
    "sum": lambda x: RUNTIME.call(sum, x),
    "any": lambda x: RUNTIME.call(any, x),
    "all": lambda x: RUNTIME.call(all, x),
}
