"""Values for keys, and maps: LabelEncoder, CategoryMapper, DictVectorizer, CastMap and ZipMap of ai.onnx.ml.

A map is a dict. Strings and maps are the host's; what has integer keys in a row is looked up by a kernel.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# onnx_ir does not say what a node's meta holds.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from ingot.errors import InputError, ModelError
from ingot.ops.compose import computed, deliver, settled
from ingot.ops.create import tensor_array
from ingot.ops.features import ML, strings_of
from ingot.ops.lowering import Lowering, Steps
from ingot.ops.numeric import FLOAT32, INT64, STRING
from ingot.ops.registry import (
    Array,
    DType,
    Facts,
    Op,
    Outputs,
    attr_float,
    attr_floats,
    attr_int,
    attr_ints,
    attr_str,
    first_input,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)

_CACHE = "ingot.ops.labels"
#: Of what keys may be that a kernel looks up.
_KEYS = frozenset(("int32", "int64", "float32", "float64"))
#: Their absolute values are below this: each dtype has all whole numbers up to there.
_FARTHEST = 1 << 24
#: A table has so many places for each key, or so many.
_SPARSEST, _SMALLEST = 16, 1024


class _Lookup(Op):
    """Each element is a key, and becomes its value, or a default."""

    def table(self, node: ir.Node, dtype: DType) -> tuple[Array, Array, Any]:
        """Keys, values and the default for inputs of a dtype."""
        raise NotImplementedError

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x, the dtype of the values."""
        x = need(node, inputs, 0)
        keys, values, _ = self.table(node, x.dtype)
        if (keys.dtype == STRING) != (x.dtype == STRING):
            raise ModelError(
                f"{label(node)}: its keys are {keys.dtype}, the input is {x.dtype}. Insert a Cast."
            )
        return [Facts(values.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The first of equal keys counts; NaN is a key like others."""
        x = present(inputs, 0)
        keys, values, default = self.table(node, x.dtype)
        found: Any = node.meta.get(_CACHE)
        kept = cast("dict[DType, dict[Any, int]] | None", found)
        if kept is None:
            kept = node.meta[_CACHE] = dict[DType, dict[Any, int]]()
        places = kept.get(x.dtype)
        if places is None:
            places = kept[x.dtype] = {}
            for i, key in enumerate(keys.tolist()):
                places.setdefault(_plain(key), i)
        found = np.array([places.get(_plain(key), -1) for key in x.ravel().tolist()], INT64)
        result = np.full(found.shape, default, values.dtype)
        hit = found >= 0
        result[hit] = values[found[hit]]
        return [result.reshape(x.shape)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Keys that are whole numbers, and not too far apart, are places in a table."""
        x, value = first_input(node), node.outputs[0]
        facts = plan.facts(x)
        if facts.dtype.name not in _KEYS or 0 in facts.shape:
            return False
        keys, values, default = self.table(node, facts.dtype)
        table = _spread_out(keys, values, default)
        if table is None:
            return False
        first, found = table
        steps, dtype = Steps(plan, facts.shape), facts.dtype.name
        low, high, beyond = (
            plan.known(np.array(n, facts.dtype)) for n in (first, first + len(found) - 2, len(found) - 1)
        )
        within = steps(
            "And", steps("GreaterOrEqual", x, low, dtype="bool"), steps("LessOrEqual", x, high, dtype="bool")
        )
        if facts.dtype.kind == "f":
            within = steps("And", within, steps("Equal", x, steps("Floor", x), dtype="bool"))
        place = steps("Where", within, steps("Sub", x, low), beyond, dtype=dtype)
        places = settled(plan, steps.cast(place, "int64"))
        deliver(plan, value, computed(plan, "Gather", [plan.known(found), places], facts.shape, values.dtype))
        return True


def _spread_out(keys: Array, values: Array, default: Any) -> tuple[int, Array] | None:
    """The lowest key, and the values in the order of the keys, the default at all others and at the end; None
    where the keys are too far apart, or no whole numbers.
    """
    if keys.dtype.kind not in "if" or values.dtype.kind not in "if" or not len(keys):
        return None
    if not (np.abs(keys) < _FARTHEST).all() or (keys != np.floor(keys)).any():
        return None
    whole = keys.astype(np.int64)
    first = int(whole.min())
    span = int(whole.max()) - first + 1
    if span > max(_SMALLEST, _SPARSEST * len(keys)):
        return None
    table = np.full(span + 1, default, values.dtype)
    table[whole[::-1] - first] = values[::-1]  # the first of equal keys counts
    return first, table


def _plain(key: Any) -> Any:
    """A key that can be found again: NaN is unequal to itself."""
    return "ingot: NaN" if isinstance(key, float) and math.isnan(key) else key


@register("LabelEncoder", since=4, domain=ML)
class LabelEncoder(_Lookup):
    """Version 1 numbers strings in order, and back; later ones have keys and values of any type."""

    def table(self, node: ir.Node, dtype: DType) -> tuple[Array, Array, Any]:
        """From lists or tensors of keys and values, whichever the node has."""
        classes = strings_of(node, "classes_strings")
        if classes is not None:
            numbers = np.arange(len(classes), dtype=np.int64)
            if dtype == STRING:
                return classes, numbers, attr_int(node, "default_int64", -1)
            return numbers, classes, attr_str(node, "default_string", "_Unused")
        keys, values = self._list(node, "keys"), self._list(node, "values")
        if len(keys) != len(values):
            raise ModelError(
                f"{label(node)}: {len(keys)} keys and {len(values)} values. The file is damaged."
            )
        return keys, values, self._default(node, values.dtype)

    @staticmethod
    def _list(node: ir.Node, name: str) -> Array:
        tensor = node.attributes.get(f"{name}_tensor")
        if tensor is not None:
            return tensor_array(tensor.as_tensor()).reshape(-1)
        strings, floats = strings_of(node, f"{name}_strings"), attr_floats(node, f"{name}_floats")
        integers = attr_ints(node, f"{name}_int64s")
        if strings is not None:
            return strings
        if floats is None and integers is None:
            raise ModelError(f"{label(node)}: it has no {name}. The file is incomplete.")
        return np.array(floats, np.float32) if floats is not None else np.array(integers, INT64)

    @staticmethod
    def _default(node: ir.Node, dtype: DType) -> Any:
        tensor = node.attributes.get("default_tensor")
        if tensor is not None:
            value = tensor_array(tensor.as_tensor()).reshape(-1).tolist()
            return value[0] if value else 0
        if dtype == STRING:
            return attr_str(node, "default_string", "_Unused")
        return (
            attr_float(node, "default_float", -0.0)
            if dtype.kind == "f"
            else attr_int(node, "default_int64", -1)
        )


@register("CategoryMapper", since=1, domain=ML)
class CategoryMapper(_Lookup):
    """Strings to integers, or integers to strings."""

    def table(self, node: ir.Node, dtype: DType) -> tuple[Array, Array, Any]:
        """Either list may be the keys."""
        strings, numbers = strings_of(node, "cats_strings"), attr_ints(node, "cats_int64s")
        if strings is None or numbers is None or len(strings) != len(numbers):
            raise ModelError(
                f"{label(node)}: cats_strings and cats_int64s must be as long. The file is damaged."
            )
        integers = np.array(numbers, INT64)
        if dtype == STRING:
            return strings, integers, attr_int(node, "default_int64", -1)
        return integers, strings, attr_str(node, "default_string", "_Unused")


def _mapping(node: ir.Node, inputs: Sequence[Any]) -> Mapping[Any, Any]:
    given = inputs[0]
    if not isinstance(given, Mapping):
        raise InputError(
            f"{label(node)}: its input is a {type(given).__name__}, and must be a map. Give a dict."
        )
    return cast("Mapping[Any, Any]", given)


@register("DictVectorizer", since=1, domain=ML)
class DictVectorizer(Op):
    """[1, keys]: the map's value for each key of the vocabulary, 0 (or an empty string) where it has none."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In the order of the vocabulary."""
        given = _mapping(node, inputs)
        strings = strings_of(node, "string_vocabulary")
        keys: list[Any] = (
            list(attr_ints(node, "int64_vocabulary") or ()) if strings is None else strings.tolist()
        )
        values = [np.asarray(value) for value in given.values()]
        dtype = values[0].dtype if values else FLOAT32
        if dtype.kind in "OUS":
            return [np.array([[str(given.get(key, "")) for key in keys]], object).reshape(1, -1)]
        return [np.array([[np.asarray(given.get(key, 0)).item() for key in keys]], dtype).reshape(1, -1)]


@register("CastMap", since=1, domain=ML)
class CastMap(Op):
    """A map from integers to numbers or strings as [1, n]: its values by key (DENSE), or at their places
    (SPARSE).
    """

    _TO = {"TO_FLOAT": FLOAT32, "TO_INT64": INT64, "TO_STRING": STRING}  # noqa: RUF012

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """SPARSE has max_map columns."""
        given, to = _mapping(node, inputs), attr_str(node, "cast_to", "TO_FLOAT")
        dtype = self._TO.get(to)
        if dtype is None:
            raise ModelError(f"{label(node)}: cast_to {to!r} is none of {', '.join(self._TO)}.")
        items = sorted((int(key), self._cast(value, dtype)) for key, value in given.items())
        if attr_str(node, "map_form", "DENSE") == "DENSE":
            return [np.array([value for _, value in items], dtype).reshape(1, -1)]
        width = attr_int(node, "max_map", 1)
        row = np.full((1, width), "" if dtype == STRING else 0, dtype)
        for key, value in items:
            if not 0 <= key < width:
                raise InputError(f"{label(node)}: the map has the key {key}, and max_map is {width}.")
            row[0, key] = value
        return [row]

    @staticmethod
    def _cast(value: Any, dtype: DType) -> Any:
        plain: Any = value.item() if hasattr(value, "item") else value
        if dtype == STRING:
            return plain if isinstance(plain, str) else f"{plain:f}"
        return int(float(plain)) if dtype == INT64 else float(plain)


@register("ZipMap", since=1, domain=ML)
class ZipMap(Op):
    """For each row of x [N, C] a map from class labels to the row's numbers: a list of dicts."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """One row, and so one map in the list, for an input of one dimension."""
        x = present(inputs, 0)
        found: Any = node.meta.get(_CACHE)
        labels = cast("list[Any] | None", found)
        if labels is None:
            strings = strings_of(node, "classlabels_strings")
            labels = (
                list(attr_ints(node, "classlabels_int64s") or ()) if strings is None else strings.tolist()
            )
            node.meta[_CACHE] = labels
        if x.ndim not in (1, 2) or x.shape[-1] != len(labels):
            raise shape_error(
                node, f"the input has shape {show(x.shape)}, and there are {len(labels)} labels"
            )
        rows: list[Any] = x.tolist() if x.ndim == 2 else [x.tolist()]
        return cast("list[Array]", [[dict(zip(labels, row)) for row in rows]])  # noqa: B905  (seen above)
