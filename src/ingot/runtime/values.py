"""What an input or output of a session may hold: tensors, and sequences, optionals and maps of them.

A sequence is a list, an absent optional is None, a map is a dict. Strings are Python's, in object arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from ingot.errors import InputError, ModelError
from ingot.ops.registry import Array
from ingot.proto import TYPE_KEY

_SPELLINGS = {"float32": "float", "float64": "double", "object": "string"}
_STRING = np.dtype(object)


@dataclass(frozen=True, slots=True)
class ValueType:
    """A type. kind: "tensor", "seq", "optional" or "map".

    dtype: of a tensor's elements or a map's keys. element: what a sequence, an optional or a map is of.
    """

    kind: str
    dtype: np.dtype[Any] | None = None
    name: str = ""
    element: ValueType | None = None

    @property
    def is_tensor(self) -> bool:
        """Whether it is a plain array."""
        return self.kind == "tensor"

    def __str__(self) -> str:
        """As onnxruntime spells it: `tensor(float)`, `seq(map(int64,tensor(float)))`."""
        inner = [part for part in (self.name, str(self.element) if self.element else "") if part]
        return f"{self.kind}({','.join(inner)})"

    def accept(self, subject: str, given: Any) -> Any:
        """What was given for an input of this type, as nodes want it; raises InputError naming `subject`."""
        element = self.element
        if element is None:
            return self._array(subject, given)
        if self.kind == "optional":
            return None if given is None else element.accept(subject, given)
        if self.kind == "seq":
            if not isinstance(given, (list, tuple)):
                raise InputError(f"{subject} is {_kind_of(given)}; the model wants {self}: give a list")
            items = cast("Sequence[Any]", given)
            return [element.accept(f"{subject}, item {i}", item) for i, item in enumerate(items)]
        if not isinstance(given, Mapping):
            raise InputError(f"{subject} is {_kind_of(given)}; the model wants {self}: give a dict")
        pairs = cast("Mapping[Any, Any]", given)
        wanted = str if self.dtype == _STRING else (int, np.integer)
        for key in pairs:
            if not isinstance(key, wanted):
                raise InputError(f"{subject} has the key {key!r}; the model wants {self}")
        return {key: element.accept(f"{subject}, key {key!r}", value) for key, value in pairs.items()}

    def _array(self, subject: str, given: Any) -> Array:
        """Lists and numbers take the model's dtype; other libraries' tensors keep their own, in any order of
        bytes.
        """
        dtype = self.dtype
        assert dtype is not None
        plain = issubclass(type(given), (list, tuple, int, float, bool, str))
        try:
            array: Array = np.asarray(given, object if plain and dtype == _STRING else None)
            if dtype == _STRING and array.dtype.kind in "UST":
                array = array.astype(str).astype(object)
        except (TypeError, ValueError, RuntimeError) as error:  # torch: of a tensor that wants gradients
            raise InputError(f"{subject} is a {type(given).__name__} that is no array: {error}") from None
        if np.ma.is_masked(given):
            raise InputError(f"{subject} is a masked array; the model takes every element: fill it first.")
        if array.dtype == _STRING:
            self._require_strings(subject, given, array)
        elif plain:
            array = _as(dtype, subject, array)
        if array.dtype != dtype and array.dtype.newbyteorder("=") == dtype:
            array = array.astype(dtype)  # bytes in this machine's order
        if array.dtype != dtype:
            raise InputError(
                f"{subject} has dtype {array.dtype}; the model wants {dtype}. "
                f"Convert it with .astype({str(dtype)!r})."
            )
        try:
            return array if array.flags.c_contiguous else array.copy(order="C")
        except MemoryError as error:  # a view of few numbers that repeats them
            raise InputError(
                f"{subject} has shape {list(array.shape)} of {dtype}, {array.nbytes:,} bytes, which is more "
                "than there is memory for. Give a smaller one."
            ) from error

    def _require_strings(self, subject: str, given: Any, array: Array) -> None:
        """Raise InputError where objects are no strings, or none are wanted."""
        if self.dtype != _STRING:
            raise InputError(
                f"{subject} is {_kind_of(given)}, which holds no numbers; the model wants {self.dtype}: give "
                "an array of that dtype."
            )
        for item in array.flat:
            if not isinstance(item, str):
                raise InputError(
                    f"{subject} holds {item!r} of type {type(item).__name__}; the model wants strings."
                )


def _as(dtype: np.dtype[Any], subject: str, numbers: Array) -> Array:
    """What a list holds in the model's dtype: floats are rounded, integers must be as they are."""
    if numbers.dtype.kind not in "biuf" or dtype == _STRING:
        return numbers  # refused for its dtype
    with np.errstate(all="ignore"):
        made = numbers.astype(dtype)
        whole = dtype.kind in "biu" or "int" in dtype.name
        lost = numbers[(made != numbers) if whole else (~np.isfinite(made) & np.isfinite(numbers))]
    if lost.size:
        raise InputError(f"{subject} holds {lost.flat[0].item()!r}, which is no {dtype}, as the model wants.")
    return made


def type_of(value: ir.Value) -> ValueType | None:
    """The type that the graph declares for a value, None where it does not."""
    text = value.metadata_props.get(TYPE_KEY)
    if text is not None:
        return _parsed(text)
    return None if value.type is None else _converted(value.type, value.name or "")


def _converted(type_: ir.TypeProtocol, name: str) -> ValueType:
    if isinstance(type_, ir.SequenceType):
        return ValueType("seq", element=_converted(type_.elem_type, name))
    if isinstance(type_, ir.OptionalType):
        return ValueType("optional", element=_converted(type_.elem_type, name))
    if isinstance(type_, ir.SparseTensorType):
        raise ModelError(f"{name!r} is a sparse tensor, which a session neither takes nor gives.")
    return _tensor(type_.dtype, name)


def _tensor(dtype: ir.DataType, name: str = "") -> ValueType:
    if dtype == ir.DataType.UNDEFINED:
        raise ModelError(f"{name!r} has no dtype in the file. Export the model again.")
    if dtype == ir.DataType.STRING:
        return ValueType("tensor", _STRING, "string")
    plain = np.dtype(dtype.numpy())
    return ValueType("tensor", plain, _SPELLINGS.get(plain.name, dtype.name.lower()))


def spelling_of(dtype: np.dtype[Any]) -> str:
    """ONNX's word for a dtype of NumPy's: "float" for float32."""
    known = _SPELLINGS.get(dtype.name)
    return ir.DataType.from_numpy(dtype).name.lower() if known is None else known


def _parsed(text: str) -> ValueType:
    """A type from its spelling; the keys of maps are integers or strings."""
    kind, _, inner = text.removesuffix(")").partition("(")
    if kind == "tensor":
        return _tensor(ir.DataType[inner.upper()])
    if kind != "map":
        return ValueType(kind, element=_parsed(inner))
    key, _, rest = inner.partition(",")
    keys = _tensor(ir.DataType[key.upper()])
    return ValueType("map", keys.dtype, keys.name, _parsed(rest))


def _kind_of(given: Any) -> str:
    return "None" if given is None else f"of type {type(given).__name__}"
