"""Which dimensions of the inputs are symbolic, what they are called, and which example sizes stand for
them.
"""

# torch.export's Dim is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ingot.capture.signature import Arguments, Dim, Input, children, is_object, is_tensor, leaves
from ingot.capture.state import StateSpec
from ingot.capture.tensors import BY_NAME, of_array
from ingot.errors import ExportError

DEFAULT_SIZE = 4  # the example size of a dimension that was only named


@dataclass
class InputSpec:
    """One input tensor: a dim is an int when static, else the name of a symbol."""

    name: str
    dtype: torch.dtype
    dims: list[int | str]
    example: torch.Tensor | None
    sizes: list[int]  # the example's, or what stands for them
    number: type | None = None  # a Python number to the model: bool, int or float


@dataclass
class DimTable:
    """Every symbolic dimension: its example size and the range the caller gave it."""

    sizes: dict[str, int] = field(default_factory=dict[str, int])
    ranges: dict[str, tuple[int, int | None]] = field(default_factory=dict[str, tuple[int, int | None]])
    numbers: dict[str, Any] = field(
        default_factory=dict[str, Any]
    )  # example values of inputs that are numbers
    chosen: set[str] = field(default_factory=set[str])  # dims whose size no example gave
    of_state: set[str] = field(default_factory=set[str])  # the dims whose first size the state's own is


def input_specs(arguments: Arguments, dynamic_shapes: Any) -> tuple[list[InputSpec], DimTable]:
    """Dims of every tensor input.

    dynamic_shapes: `"auto"` makes every dimension symbolic; None makes all static; else a dict by argument or
    a sequence in the order of the call, nested like the arguments, whose leaves are dicts {axis: dim} or
    sequences of dims, or None for static; a dim is an ingot.Dim or torch.export.Dim, a name, None or an int
    for static, or Dim.AUTO.

    Raises:
        ExportError: when it does not fit the arguments.
    """
    tensors = arguments.tensors
    wanted = _dims_of_leaves(arguments, dynamic_shapes)
    table = DimTable()
    specs: list[InputSpec] = []
    for name, tensor, dims, kind in zip(arguments.names, tensors, wanted, arguments.numbers, strict=True):
        spec = _describe(name, tensor)
        if kind is not None:
            _set_number(spec, tensor, kind, table)
        for axis in range(len(spec.sizes)):
            _set_dim(spec, axis, tensor, dims, table)
        specs.append(spec)
    return specs, table


def _describe(name: str, tensor: Any) -> InputSpec:
    if isinstance(tensor, Input):
        dtype = getattr(torch, tensor.dtype)
        sizes = [d if isinstance(d, int) else DEFAULT_SIZE + i for i, d in enumerate(tensor.shape)]
        if tensor.example is None or not sizes:
            return InputSpec(name, dtype, list(sizes), None, sizes)
        example = torch.as_tensor(tensor.example)
        fits = example.dim() == len(sizes) and example.dtype == dtype
        declared = zip(example.shape, tensor.shape, strict=False)
        if not fits or any(isinstance(d, int) and n != d for n, d in declared):
            raise ExportError(
                f"input {name!r}: the example is {example.dtype} {list(example.shape)}, its Input says "
                f"{tensor.dtype} {list(tensor.shape)}."
            )
        sizes = [int(n) for n in example.shape]
        return InputSpec(name, example.dtype, list(sizes), example, sizes)
    example = of_array(name, tensor) if isinstance(tensor, np.ndarray) else tensor
    if example.layout != torch.strided or example.is_nested:
        raise ExportError(
            f"input {name!r} is {'nested' if example.is_nested else f'of layout {example.layout}'}, which no "
            "tensor of ONNX is. Pass it as one dense tensor (.to_dense(), .to_padded_tensor(0)), or what it "
            "is made of as several."
        )
    if example.device.type != "cpu":
        raise ExportError(
            f"input {name!r} is on {example.device}; wanted the CPU. Move it with .cpu(), or describe it: "
            f"ingot.Input({str(example.dtype).removeprefix('torch.')!r}, {list(example.shape)})."
        )
    if example.dtype not in BY_NAME.values() and not example.is_complex():
        raise ExportError(
            f"input {name!r} is of dtype {example.dtype}; wanted one of {sorted(BY_NAME)}. Pass it in one of "
            "these, and make what the model wants of it in forward."
        )
    sizes = [int(n) for n in example.shape]
    return InputSpec(name, example.dtype, list(sizes), example, sizes)


def state_specs(states: Sequence[StateSpec], table: DimTable) -> list[InputSpec]:
    """Inputs for what outlives a call; every dimension of a tensor is symbolic until the model fixes it."""
    specs: list[InputSpec] = []
    for state in states:
        name, initial = state.input_name, state.initial
        if not isinstance(initial, torch.Tensor):
            table.numbers[name] = initial
            specs.append(_number(name, type(initial)))
            continue
        sizes = [int(n) for n in initial.shape]
        labels: list[int | str] = [
            n if axis in state.static else default_name(name, axis) for axis, n in enumerate(sizes)
        ]
        dynamic = {d: n for d, n in zip(labels, sizes, strict=True) if isinstance(d, str)}
        table.sizes.update(dynamic)
        table.of_state.update(dynamic)
        specs.append(InputSpec(name, initial.dtype, labels, initial, sizes))
    return specs


_KINDS = {bool: torch.bool, int: torch.int64, float: torch.float64}
_EXAMPLES = {bool: True, int: 3, float: 1.5}


def _set_number(spec: InputSpec, wanted: Input, kind: type, table: DimTable) -> None:
    fits = {bool: spec.dtype == torch.bool, float: spec.dtype.is_floating_point}
    if not fits.get(kind, not spec.dtype.is_floating_point and spec.dtype != torch.bool):
        raise ExportError(
            f"input {spec.name!r} stands for a Python {kind.__name__} and has dtype {wanted.dtype!r}; wanted "
            f"{str(_KINDS[kind]).removeprefix('torch.')!r}."
        )
    spec.number = kind
    table.numbers[spec.name] = _EXAMPLES[kind] if wanted.example is None else kind(wanted.example)


def _number(name: str, kind: type) -> InputSpec:
    return InputSpec(name, _KINDS[kind], [], None, [], number=kind)


def default_name(argument: str, axis: int) -> str:
    """`ids_batch` for the first axis, `ids_dim1` … for the others."""
    return f"{argument}_batch" if axis == 0 else f"{argument}_dim{axis}"


def _set_dim(spec: InputSpec, axis: int, tensor: Any, dims: Any, table: DimTable) -> None:
    wanted: Any = dims
    if isinstance(tensor, Input):
        declared = tensor.shape[axis]
        if isinstance(declared, Dim):
            _set_range(spec, axis, declared.name, (declared.min, declared.max), table)
            if spec.example is None:
                size = max(spec.sizes[axis], declared.min)
                spec.sizes[axis] = size if declared.max is None else min(size, declared.max)
            declared = declared.name
        if isinstance(declared, int):
            if declared < 0:
                raise ExportError(
                    f"input {spec.name!r}: axis {axis} has size {declared}; wanted a size of at least 0, a "
                    "name, or None for a dynamic size."
                )
            asked: Any = dims.get(axis) if isinstance(dims, Mapping) else None
            if asked is not None and asked != declared:
                raise ExportError(
                    f"dynamic_shapes of input {spec.name!r}, axis {axis}, is {asked!r}, and the size is "
                    f"{declared} by its Input or in the exported program. Make it dynamic there."
                )
            return
        wanted = declared if declared is not None else "auto"
    elif isinstance(dims, Mapping):
        rank = len(spec.sizes)
        beyond = [a for a in dims if not isinstance(a, int) or not -rank <= a < rank]
        if beyond:
            raise ExportError(
                f"dynamic_shapes of input {spec.name!r} names the axes {beyond}; the tensor's axes are 0 to "
                f"{rank - 1}."
            )
        wanted = dims.get(axis, dims.get(axis - rank))
    elif isinstance(dims, (list, tuple)):
        if len(dims) != len(spec.sizes):
            raise ExportError(
                f"dynamic_shapes of input {spec.name!r} has {len(dims)} entries, the tensor has "
                f"{len(spec.sizes)} axes."
            )
        wanted = dims[axis]
    if isinstance(wanted, int) and not isinstance(wanted, bool) and wanted != spec.sizes[axis]:
        raise ExportError(
            f"dynamic_shapes of input {spec.name!r}, axis {axis}, is {wanted}, and the example has "
            f"{spec.sizes[axis]} there. Pass an example of that size, or give a name for a dynamic one."
        )
    if wanted is None or (isinstance(wanted, int) and not isinstance(wanted, bool)):
        return
    kind = getattr(wanted, "name", None) if type(wanted).__name__ == "_DimHintType" else None
    hint = getattr(getattr(wanted, "type", None), "name", kind)
    if hint == "STATIC":
        return
    if isinstance(wanted, str) and wanted != "auto":
        label = wanted
    elif isinstance(wanted, str) or hint in ("AUTO", "DYNAMIC"):
        label = default_name(spec.name, axis)
        if getattr(wanted, "min", None) is not None or getattr(wanted, "max", None) is not None:
            _set_range(spec, axis, label, _bounds(wanted), table)
    elif isinstance(wanted, Dim):
        label = wanted.name
        _set_range(spec, axis, label, (wanted.min, wanted.max), table)
    elif hasattr(wanted, "__name__"):
        label = str(getattr(wanted, "__name__"))  # noqa: B009  (a torch.export.Dim is a type)
        _set_range(spec, axis, label, _bounds(wanted), table)
    else:
        raise ExportError(
            f"dynamic_shapes of input {spec.name!r}, axis {axis}: found {wanted!r}; wanted a name, "
            "an ingot.Dim or torch.export.Dim, "
            "an int or None (static)."
        )
    known = table.sizes.get(label)
    size = spec.sizes[axis]
    if known is not None and label in table.chosen and spec.example is not None:
        known = None  # the example's size is better than the one that was chosen
    if known is not None and spec.example is not None and known != size:
        raise ExportError(
            f"dimension {label!r} is {known} in one input and {size} in axis {axis} of {spec.name!r}. "
            "One name is one size: give them different names, or examples that agree."
        )
    if known is not None:
        spec.sizes[axis] = known
    low, high = table.ranges.get(label, (0, None))
    if spec.example is not None and not (low <= size and (high is None or size <= high)):
        raise ExportError(
            f"dimension {label!r} is declared {low} to {'any size' if high is None else high}, and the "
            f"example has {size} in axis {axis} of {spec.name!r}. Pass an example inside of the "
            "range, or widen it."
        )
    table.sizes[label] = spec.sizes[axis]
    if spec.example is None and known is None:
        table.chosen.add(label)
    elif spec.example is not None:
        table.chosen.discard(label)
    spec.dims[axis] = label


def _bounds(dim: Any) -> tuple[int, int | None]:
    """Those of a dim of torch.export's."""
    low, high = getattr(dim, "min", None), getattr(dim, "max", None)
    # No bound is infinite: torch's int_oo, or sympy's, which no int() takes.
    return int(low or 0), int(high) if high is not None and high < 1 << 40 else None


def _set_range(
    spec: InputSpec, axis: int, label: str, bounds: tuple[int, int | None], table: DimTable
) -> None:
    before = table.ranges.setdefault(label, bounds)
    if before != bounds:
        raise ExportError(
            f"input {spec.name!r}, axis {axis}: {Dim(label, *bounds)} was declared otherwise before, "
            f"{Dim(label, *before)}. One name is one size: give them different names, or the same bounds."
        )


def _dims_of_leaves(arguments: Arguments, dynamic_shapes: Any) -> list[Any]:
    """The entry of dynamic_shapes that belongs to each tensor."""
    count = len(arguments.tensors)
    if isinstance(dynamic_shapes, str):
        if dynamic_shapes != "auto":
            raise ExportError(
                f"dynamic_shapes is {dynamic_shapes!r}; wanted 'auto', None, or dims for each argument."
            )
        return ["auto"] * count
    if dynamic_shapes is None:
        return [None] * count
    found: list[Any] = []
    seen: set[int] = set()
    if isinstance(dynamic_shapes, Mapping):
        known = [*(_parameter_names(arguments)), *arguments.kwargs]
        unknown = [k for k in dynamic_shapes if k not in known and k not in arguments.names]
        if unknown:
            raise ExportError(
                f"dynamic_shapes names {unknown}; the arguments are {known}, the inputs {arguments.names}."
            )
        if all(k in arguments.names for k in dynamic_shapes) and not set(dynamic_shapes) & set(known):
            return [dynamic_shapes.get(name) for name in arguments.names]
        for name, value in zip(_parameter_names(arguments), arguments.args, strict=True):
            _pair(value, dynamic_shapes.get(name), found, seen)
        for name, value in arguments.kwargs.items():
            _pair(value, dynamic_shapes.get(name), found, seen)
        return found
    if not isinstance(dynamic_shapes, (list, tuple)):
        raise ExportError(
            f"dynamic_shapes is {dynamic_shapes!r}; wanted 'auto', None, or dims for each argument: a dict "
            "by name or a sequence in the order of the call."
        )
    entries = list(dynamic_shapes)
    values = [*arguments.args, *arguments.kwargs.values()]
    if len(entries) != len(values):
        raise ExportError(f"dynamic_shapes has {len(entries)} entries, the call has {len(values)} arguments.")
    for value, entry in zip(values, entries, strict=True):
        _pair(value, entry, found, seen)
    return found


def _parameter_names(arguments: Arguments) -> list[str]:
    names = list(arguments.signature.parameters) if arguments.signature is not None else []
    return [names[i] if i < len(names) else f"input_{i}" for i in range(len(arguments.args))]


def _pair(value: Any, entry: Any, found: list[Any], seen: set[int]) -> None:
    if is_tensor(value):
        found.append(entry)
        return
    parts = children(value)
    if parts is None:
        return
    if entry is None or entry == "auto":
        found.extend([entry] * sum(1 for leaf in leaves(value, seen=seen) if is_tensor(leaf.value)))
        return
    if is_object(value):
        if id(value) in seen:
            return
        seen.add(id(value))
    for i, (key, part) in enumerate(parts):
        mine = entry.get(key) if isinstance(entry, Mapping) else entry[i] if i < len(entry) else None
        _pair(part, mine, found, seen)


def hints_for(table: DimTable) -> dict[str, int]:
    """Example sizes to start from: 0 and 1 are raised to sizes that torch does not treat apart."""
    taken = set(table.sizes.values())
    hints: dict[str, int] = {}
    spare = (n for n in range(2, 1 << 20) if n not in taken)
    raised: dict[int, int] = {}
    for name, size in table.sizes.items():
        if size >= 2:
            hints[name] = size
            continue
        low, high = table.ranges.get(name, (0, None))
        if size not in raised:
            raised[size] = next(spare)
        hint = max(raised[size], low)
        hints[name] = hint if high is None or hint <= high else size
    for name, number in table.numbers.items():
        plain = isinstance(number, bool) or number not in (0, 1)
        hints[name] = number if plain else type(number)(raised.setdefault(int(number), next(spare)))
    return hints


def raised(table: DimTable, hints: Mapping[str, int]) -> list[str]:
    """The dims and numbers whose hint is not the example's."""
    return [name for name, size in (table.sizes | table.numbers).items() if hints[name] != size]


def names_of(specs: Sequence[InputSpec]) -> list[str]:
    """Names of the inputs."""
    return [s.name for s in specs]
