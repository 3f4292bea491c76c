"""What a session's options say of its model: sizes of dimensions, and other values of initializers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.errors import InputError
from ingot.ops.tensors import tensor_of
from ingot.runtime.options import SessionOptions


def override(model: ir.Model, options: SessionOptions) -> None:
    """Put sizes and values into the model's graph, in place. Raises InputError for an initializer that the
    model has not, or whose dtype or shape is another, and for two sizes of one dimension.
    """
    by_name, by_denotation = options.sizes
    if by_name or by_denotation:
        sizes = dict(by_name)
        for value in model.graph.inputs:
            _note(sizes, value, by_denotation)
        for value in (*model.graph.inputs, *model.graph.outputs):
            _fix(value, sizes, by_denotation)
    for name, array in options.initializers.items():
        _replace(model, name, array)


def _note(sizes: dict[str, int], value: ir.Value, by_denotation: Mapping[str, int]) -> None:
    """A name that stands where a denotation has a size has it everywhere."""
    for axis, dim in enumerate(value.shape or ()):
        assert value.shape is not None
        size = by_denotation.get(value.shape.get_denotation(axis) or "")
        if size is None or isinstance(dim, int) or dim.value is None:
            continue
        if sizes.setdefault(dim.value, size) != size:
            raise InputError(
                f"dimension {dim.value!r} of {value.name!r} has the sizes {sizes[dim.value]} and {size} in "
                "sess_options, by its name and by its denotation. Give it one."
            )


def _fix(value: ir.Value, sizes: Mapping[str, int], by_denotation: Mapping[str, int]) -> None:
    if value.shape is None:
        return
    denotations = [value.shape.get_denotation(axis) for axis in range(len(value.shape))]
    dims: list[int | ir.SymbolicDim] = []
    for dim, denotation in zip(value.shape, denotations, strict=True):
        if isinstance(dim, int):
            dims.append(dim)
        elif dim.value is None:
            dims.append(by_denotation.get(denotation or "", dim))
        else:
            dims.append(sizes.get(dim.value, dim))
    value.shape = ir.Shape(dims, denotations)


def _replace(model: ir.Model, name: str, given: Any) -> None:
    value = model.graph.initializers.get(name)
    if value is None or value.const_value is None:
        raise InputError(
            f"the model has no initializer {name!r}; sess_options.add_initializer can only give those of the "
            "file another value"
        )
    declared = value.const_value
    array = np.asarray(given)
    shape, dtype = tuple(declared.shape.dims), declared.dtype.numpy()
    if array.dtype != dtype or array.shape != shape:
        raise InputError(
            f"initializer {name!r} was added as {array.dtype} {list(array.shape)}, and is {dtype} "
            f"{list(shape)} in the model"
        )
    value.const_value = tensor_of(np.ascontiguousarray(array))
