"""Attributes that list millions of numbers or strings (ensembles of trees): arrays, not Python objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.ops.registry import Array, label


class LongAttr(ir.Attr):
    """An attribute of very many numbers (`array`), or strings: `array` has the place of each in `texts`."""

    __slots__ = ("_items", "array", "texts")

    def __init__(
        self, name: str, kind: ir.AttributeType, array: Array, texts: Sequence[str], doc_string: str | None
    ) -> None:
        super().__init__(name, kind, (), doc_string=doc_string)
        self.array, self.texts = array, texts
        self._items: tuple[Any, ...] | None = None

    @property
    def value(self) -> tuple[Any, ...]:
        """The items as Python has them; made when somebody asks."""
        if self._items is None:
            items = self.array.tolist()
            strings = self.type == ir.AttributeType.STRINGS
            self._items = tuple([self.texts[i] for i in items] if strings else items)
        return self._items


class _Numbered(dict[Any, int]):
    """A number for each key that it is asked for."""

    def __missing__(self, key: Any) -> int:
        self[key] = number = len(self)
        return number


def numbered(items: Sequence[Any]) -> tuple[Array, list[Any]]:
    """The items' places among the different ones, and these."""
    known = _Numbered()
    places = np.fromiter(map(known.__getitem__, items), np.int32, len(items))
    return places, list(known)


def numbers_of(node: ir.Node, name: str, dtype: Any) -> Array | None:
    """A list of numbers as an array, or the tensor that newer versions have under `name`_as_tensor; None for
    neither.

    Raises ModelError where the list holds strings.
    """
    tensor = node.attributes.get(f"{name}_as_tensor")
    if tensor is not None:
        return np.asarray(tensor.as_tensor().numpy()).reshape(-1)
    found = node.attributes.get(name)
    if found is None:
        return None
    if found.type == ir.AttributeType.STRINGS:
        raise ModelError(
            f"{label(node)}: attribute {name} holds strings, wanted numbers; export the model again."
        )
    return (
        found.array.astype(dtype, copy=False) if isinstance(found, LongAttr) else np.array(found.value, dtype)
    )


def strings_through(node: ir.Node, name: str, meaning: Callable[[str], int]) -> Array:
    """What each string of a list means, each different one asked once; empty where there is no list."""
    found = node.attributes.get(name)
    if found is None:
        return np.zeros(0, np.int64)
    places, texts = (
        (found.array, found.texts) if isinstance(found, LongAttr) else numbered(list(found.as_strings()))
    )
    return np.array([meaning(text) for text in texts], np.int64)[places]
