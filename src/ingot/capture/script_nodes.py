"""TorchScript's nodes that are no operators: attributes and objects, lists, texts, questions about types,
and what `torch.jit.optimize_for_inference` puts in for oneDNN.
"""

# TorchScript's graphs are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false, reportPrivateUsage=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture.aten.onednn import convolution
from ingot.capture.choice import Maybe, present
from ingot.capture.lists import Rows, TracedList
from ingot.capture.merge import UNBOUND
from ingot.capture.request import cannot_wait, recorder
from ingot.capture.scalars import kind_of
from ingot.capture.script_values import FOREVER, SYMBOLIC, key_of, text_of
from ingot.capture.stage import RUNTIME
from ingot.capture.where import models_own, quoted_line, standing_at
from ingot.errors import ExportError

# TorchScript's numbers for dtypes, in their order.
DTYPES = (
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32,
    torch.float64, torch.complex32, torch.complex64, torch.complex128, torch.bool, torch.qint8,
    torch.quint8, torch.qint32, torch.bfloat16, torch.quint4x2, torch.quint2x4, torch.bits1x8,
    torch.bits2x4, torch.bits4x2, torch.bits8, torch.bits16, torch.float8_e5m2, torch.float8_e4m3fn,
    torch.float8_e5m2fnuz, torch.float8_e4m3fnuz, torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip
#: Nodes that give as many values as they have outputs, in a list.
GIVE_LISTS = (
    "prim::If", "prim::Loop", "prim::ListUnpack", "prim::TupleUnpack", "prim::BroadcastMKLDNNTensors",
)  # fmt: skip
#: What tells a text, and what makes a longer one of it.
_TELL = ("prim::RaiseException", "prim::Print", "aten::warn")
_WRITE = ("aten::format", "aten::percentFormat", "aten::str", "aten::add")


def dtype_of_number(number: Any) -> torch.dtype:
    """The dtype that a number of a script has as a tensor."""
    if isinstance(number, (bool, torch.SymBool)):
        return torch.bool
    return torch.int64 if isinstance(number, (int, torch.SymInt)) else torch.float32


def _tensor(_: Any, data: Any, dtype: Any = None, *__: Any) -> torch.Tensor:
    """aten::tensor: numbers in nested lists, symbolic ones among them."""
    kind = DTYPES[dtype] if dtype is not None else None
    if isinstance(data, TracedList) and not data.known:
        return RUNTIME.call(torch.tensor, data, dtype=kind)
    flat = list(_flat(data))
    if not any(isinstance(x, (*SYMBOLIC, torch.Tensor)) for x in flat):
        return torch.tensor(data, dtype=kind)
    if not isinstance(data, list):
        made = (
            data if isinstance(data, torch.Tensor) else torch.scalar_tensor(data, dtype=dtype_of_number(data))
        )
        return made.to(kind) if kind is not None else made
    return torch.stack([_tensor(None, x, dtype) for x in data])


def _flat(x: Any) -> Any:
    if isinstance(x, list):
        for part in x:
            yield from _flat(part)
    else:
        yield x


def _raise(_: Any, message: Any = "", *__: Any) -> Any:
    raise models_own(RuntimeError(f"the scripted module raises: {message}"))


# -- objects, lists, dicts and texts


@functools.cache
def _class_named(name: str) -> type:
    """A plain class for the objects of a class that a script defines."""
    return type(name.rpartition(".")[2], (), {"__module__": "script"})


def _new_object(node: Any) -> Any:
    return _class_named(node.output().type().qualified_name())()


def is_object(x: Any) -> bool:
    """Whether a script's own class made this."""
    return type(x).__module__ == "script"


def _get(node: Any, owner: Any) -> Any:
    return getattr(owner, node.s("name"))


def _put(node: Any, owner: Any, value: Any) -> tuple[()]:
    setattr(owner, node.s("name"), value)
    return ()


def _block(node: Any, context: Any, *_: Any) -> Any:
    """The beginning and the end of a `with` block: those of torch change no values here, but autocast's on
    the CPU.
    """
    name = node.input().type().qualified_name()
    with standing_at(node.input().node().sourceRange()):
        if name.endswith(".autocast") and context._enabled and context.device == "cpu":
            raise ExportError(
                f"{quoted_line()}\nThe scripted module enters torch.autocast for the CPU, whose casts depend "
                "on what TorchScript makes of the block. Give its layers and inputs a dtype of their own, or "
                "export the Python module it was made from."
            )
        if not name.startswith("__torch__.torch."):
            raise ExportError(
                f"{quoted_line()}\nThe scripted module enters a `with` block of its own class "
                f"{name.rpartition('.')[2]}, which Ingot does not run. Call the class's methods instead, or "
                "export the Python module it was made from."
            )
    return context


def _module_at(_: Any, container: Any, key: Any) -> Any:
    """A module of a list or dict by its number or name."""
    if isinstance(key, SYMBOLIC):
        cannot_wait("chooses a module by a number that data or a size decides")
    return getattr(container, str(key))


def _pairs(_: Any, *inputs: Any) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key, value in zip(inputs[::2], inputs[1::2], strict=True):
        made[key_of(made, key)] = value
    return RUNTIME.new_dict(made)


def _unpacked(node: Any, x: Any) -> list[Any]:
    """A list as one value for each output: where only the run knows its length, that becomes fixed."""
    if isinstance(x, Rows) or (isinstance(x, TracedList) and not x.known):
        length = x.length if isinstance(x, Rows) else x.count()
        count = recorder().env.fixed_number(length)
        if count == node.outputsSize():
            return [x.at(i) if isinstance(x, Rows) else x.element(i) for i in range(count)]
        raise ValueError(f"{node.outputsSize()} values wanted, the list has {count}")
    return list(x)


def _is_told(node: Any) -> bool:
    """Whether what a node writes is in errors, warnings and what is printed alone."""
    return all(
        use.user.kind() in _TELL or (use.user.kind() in _WRITE and _is_told(use.user))
        for use in node.output().uses()
    )


def _formatted(node: Any, text: str, *values: Any) -> str:
    told = _is_told(node)
    return text.format(*(text_of(x, told) for x in values))


def _percent(node: Any, text: str, *values: Any) -> str:
    """`text % values`; a tuple is that of the values."""
    told = _is_told(node)
    given = iter(values[0] if len(values) == 1 and isinstance(values[0], tuple) else values)

    def shown(spec: re.Match[str]) -> str:
        if spec[0] == "%%":
            return "%"
        x = next(given)  # `%d` of a size would want it as a number
        return text_of(x, told) if spec[0] == "%s" or isinstance(x, SYMBOLIC) else spec[0] % x

    return re.sub("%.", shown, text)


def _listed(_: Any, x: Any, *__: Any) -> Any:
    """x.tolist(): a number, or lists as a script has them."""
    return _own(x.tolist())


def _own(values: Any) -> Any:
    if isinstance(values, Rows):
        return RUNTIME.call(list, values)
    if isinstance(values, TracedList) or not isinstance(values, list):
        return values
    return TracedList(map(_own, values))


def _least(_: Any, *given: Any) -> Any:
    """The smaller of two numbers, or the smallest of a list, in which what never ends counts for nothing. Of
    two that are neither less nor greater, NaN among them, it is the second.
    """
    values = given[::-1] if len(given) == 2 else given[0]
    if not isinstance(values, TracedList) or values.known:
        values = [v for v in values if type(v) is not int or v < FOREVER] or values
    return RUNTIME.call(min, values)


def _greatest(_: Any, *given: Any) -> Any:
    return RUNTIME.call(max, given[::-1] if len(given) == 2 else given[0])


def _same(_: Any, x: Any, *__: Any) -> Any:
    return x


# -- questions about types


def _is_of(node: Any, x: Any) -> bool:
    """isinstance(x, types)."""
    if isinstance(x, Maybe):
        cannot_wait("asks for the type of what data may leave None")
    return any(_fits(x, kind) for kind in node.tys("types"))


def _fits(x: Any, kind: Any) -> bool:
    name = kind.kind()
    if name == "AnyType":
        return True
    if name in ("OptionalType", "UnionType"):
        return (x is None and name == "OptionalType") or any(_fits(x, k) for k in kind.containedTypes())
    test = _OF_TYPE.get(name)
    if test is None:
        raise ExportError(
            f"{quoted_line()}\nThe scripted module asks for the type {kind}, which Ingot does not tell "
            "from others. Export the Python module it was made from."
        )
    return test(x, kind)


def _all_fit(values: Any, kind: Any) -> bool:
    if isinstance(values, TracedList) and not values.known:
        cannot_wait("asks for the type of a list as long as data says")
    values = list(values)
    if not values:
        raise ExportError(
            f"{quoted_line()}\nThe scripted module asks whether an empty container is of type {kind}, which "
            "nothing in it tells. Annotate the variable with one type instead of Any or Union."
        )
    return all(_fits(v, kind) for v in values)


def _fits_tuple(x: Any, kind: Any) -> bool:
    kinds = kind.containedTypes()
    alike = isinstance(x, tuple) and len(x) == len(kinds)
    return alike and all(_fits(v, k) for v, k in zip(x, kinds, strict=True))


_OF_TYPE: dict[str, Callable[[Any, Any], bool]] = {
    "TensorType": lambda x, _: isinstance(x, torch.Tensor),
    "NoneType": lambda x, _: x is None,
    "StringType": lambda x, _: isinstance(x, str),
    "BoolType": lambda x, _: kind_of(x) is bool,
    "IntType": lambda x, _: kind_of(x) is int,
    "FloatType": lambda x, _: kind_of(x) is float,
    "NumberType": lambda x, _: kind_of(x) in (int, float),
    "ListType": lambda x, kind: isinstance(x, list) and _all_fit(x, kind.getElementType()),
    "TupleType": _fits_tuple,
    "DictType": lambda x, kind: (
        isinstance(x, dict) and _all_fit(x, kind.getKeyType()) and _all_fit(x.values(), kind.getValueType())
    ),
    "ClassType": lambda x, kind: type(x) is _class_named(kind.qualified_name()),
}


# -- oneDNN: its tensors have another layout and the same numbers


def _plain_constant(node: Any) -> torch.Tensor:
    with _disable_current_modes():
        return node.t("value").to_dense()


def _layer_norm(_: Any, x: Any, shape: Any, weight: Any, bias: Any, eps: float, *__: Any) -> torch.Tensor:
    return torch.layer_norm(x, shape, weight, bias, eps)


def _limited(node: Any, x: Any) -> torch.Tensor:
    return torch.clamp(x, node.f("min_val"), node.f("max_val"))


def _onednn() -> Iterator[tuple[str, Callable[..., Any]]]:
    functions: Any = torch.nn.functional
    elementwise: dict[str, Callable[..., Any]] = {
        "HardSwish": lambda _, x: functions.hardswish(x),
        "HardSigmoid": lambda _, x: functions.hardsigmoid(x),
        "Relu6": lambda _, x: functions.relu6(x),
        "HardTanh": _limited,
        "Clamp": _limited,
        "LayerNorm": _layer_norm,
        "ScalarMul": lambda _, x, factor: x * factor,
        "Group": _same,
    }
    for name, function in elementwise.items():
        yield f"prim::MKLDNN{name}", function
        yield f"prim::MKLDNN{name}_", function


SPECIAL: dict[str, Callable[..., Any]] = {
    "prim::CreateObject": _new_object,
    "prim::GetAttr": _get,
    "prim::SetAttr": _put,
    "prim::ModuleContainerIndex": _module_at,
    "prim::EnumName": lambda _, x: x.name,
    "prim::EnumValue": lambda _, x: x.value,
    "prim::Enter": _block,
    "prim::Exit": _block,
    "prim::isinstance": _is_of,
    "prim::ListConstruct": lambda _, *inputs: TracedList(inputs),
    "prim::TupleConstruct": lambda _, *inputs: tuple(inputs),
    "prim::DictConstruct": _pairs,
    "prim::ListUnpack": _unpacked,
    "prim::TupleUnpack": lambda _, x: list(x),
    "prim::TupleIndex": lambda _, x, i: x[i],
    "prim::TupleSlice": lambda node, x: x[node.i("beg") : node.i("end")],
    "prim::Uninitialized": lambda _: UNBOUND,  # anything will do
    "prim::NumToTensor": _same,  # sizes of a traced graph: numbers until an operator wants a tensor
    "prim::unchecked_cast": lambda _, x: x.ingot_value if isinstance(x, Maybe) else x,  # it has been asked
    "prim::unchecked_unwrap_optional": lambda _, x: x.ingot_value if isinstance(x, Maybe) else x,
    "aten::_unwrap_optional": lambda _, x: present(x),
    "aten::wait": _same,
    "prim::data": lambda _, x: x.detach(),
    "prim::dtype": lambda _, x: DTYPES.index(x.dtype),
    "prim::device": lambda _, x: x.device,
    "prim::layout": lambda *_: 0,
    "prim::is_cuda": lambda _, x: x.is_cuda,
    "prim::is_mkldnn": lambda *_: False,
    "prim::requires_grad": lambda *_: False,
    "prim::min": _least,
    "prim::max": _greatest,
    "prim::tolist": _listed,
    "prim::abs": lambda _, x: abs(x),
    "prim::RaiseException": _raise,
    "aten::format": _formatted,
    "aten::percentFormat": _percent,
    "aten::str": lambda node, x: text_of(x, _is_told(node)),
    "prim::Print": lambda *_: (),
    "aten::warn": lambda *_: (),
    "aten::__is__": lambda _, a, b: RUNTIME.same(a, b),
    "aten::__isnot__": lambda _, a, b: RUNTIME.opposite(RUNTIME.same(a, b)),
    "aten::einsum": lambda _, equation, operands, *__: torch.einsum(equation, operands),
    "aten::tensor": _tensor,
    "aten::as_tensor": _tensor,
    "aten::is_scripting": lambda *_: True,
    "prim::ConstantMKLDNNTensor": _plain_constant,
    "prim::mkldnn_convolution": lambda _, x, w, b, stride, pad, *rest: convolution(
        x, w, b, pad, stride, *rest
    ),
    "prim::BroadcastMKLDNNTensors": lambda _, a, b: [a, b],  # which take part in one that broadcasts anyway
    "aten::to_mkldnn": lambda _, x, dtype=None: x if dtype is None else x.to(DTYPES[dtype]),
    **dict(_onednn()),
}
