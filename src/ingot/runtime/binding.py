"""OrtValue and IOBinding: onnxruntime's names for arrays that stay where they are from one run to the next.

All memory here is the CPU's: a value is a NumPy array, and asking for another device is an error.
"""

from __future__ import annotations

import ctypes
import math
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx_ir as ir

from ingot.errors import InputError
from ingot.ops.registry import Array
from ingot.runtime.values import spelling_of

if TYPE_CHECKING:
    from ingot.runtime.options import RunOptions


class _Runs(Protocol):
    """A session."""

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Array]: ...


class OrtValue:
    """What an input or output holds: an array, or a list or dict for a sequence or map. Nothing is copied."""

    def __init__(self, value: Any) -> None:
        self._value = value

    @classmethod
    def ortvalue_from_numpy(cls, numpy_obj: Any, /, device_type: str = "cpu", device_id: int = 0) -> OrtValue:
        """The array itself: what is written into it later, later runs see."""
        _require_cpu(device_type, device_id)
        return cls(np.asarray(numpy_obj))

    @classmethod
    def ortvalue_from_shape_and_type(
        cls, shape: Sequence[int], element_type: Any, device_type: str = "cpu", device_id: int = 0
    ) -> OrtValue:
        """A new array; its elements are not set. element_type: NumPy's, or an onnx.TensorProto.DataType."""
        _require_cpu(device_type, device_id)
        sizes, dtype = _sizes(shape), dtype_of(element_type)
        try:
            return cls(np.empty(sizes, dtype))
        except (MemoryError, ValueError) as error:
            raise InputError(f"shape is {list(sizes)} of {dtype}: {error}. Give a smaller one.") from error

    def numpy(self) -> Any:
        """The array itself (a sequence's list, a map's dict)."""
        return self._value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """For NumPy, and for `InferenceSession.run`."""
        return np.array(self._value, dtype) if copy else np.asarray(self._value, dtype)

    def shape(self) -> list[int]:
        """The sizes of a tensor."""
        return list(self._tensor().shape)

    def data_type(self) -> str:
        """As `NodeArg.type` spells it: "tensor(float)"; a list is "seq", a dict is "map"."""
        if not self.is_tensor():
            return "map" if isinstance(self._value, dict) else "seq"
        return f"tensor({spelling_of(self._tensor().dtype)})"

    def element_type(self) -> int:
        """A tensor's onnx.TensorProto.DataType."""
        dtype = self._tensor().dtype
        return int(ir.DataType.STRING if dtype.kind == "O" else ir.DataType.from_numpy(dtype))

    def device_name(self) -> str:
        """Always "cpu"."""
        return "cpu"

    def data_ptr(self) -> int:
        """The address of a tensor's first element."""
        return int(self._tensor().ctypes.data)

    def is_tensor(self) -> bool:
        """Whether it is an array."""
        return isinstance(self._value, np.ndarray)

    def has_value(self) -> bool:
        """False for an optional that is absent."""
        return self._value is not None

    def update_inplace(self, np_arr: Any) -> None:
        """Writes other elements into the array; raises InputError for another shape or dtype."""
        target, array = self._tensor(), np.asarray(np_arr)
        _require_fit(target, array, "update_inplace: the array")
        target[...] = array

    def _tensor(self) -> Array:
        value: Any = self._value
        if not self.is_tensor():
            raise InputError(f"this OrtValue holds a {type(value).__name__}, and no tensor")
        return value


class IOBinding:
    """Inputs and outputs of the runs to come (`InferenceSession.io_binding`). Inputs are read where they lie;
    what a run gives is copied into the arrays that are bound to outputs.
    """

    def __init__(self, session: _Runs, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self._session = session
        self._known = {"input": list(inputs), "output": list(outputs)}
        self._inputs: dict[str, Any] = {}
        self._targets: dict[str, Array | None] = {}
        self._results: list[Any] = []

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        """An array, or what else `run` takes for this input."""
        self._inputs[self._require("input", name)] = arr_on_cpu

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """A value."""
        self.bind_cpu_input(name, ortvalue.numpy())

    def bind_input(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: Any,
        shape: Sequence[int],
        buffer_ptr: int,
    ) -> None:
        """Dense elements at an address, such as a torch tensor's `data_ptr()`. They must stay there."""
        _require_cpu(device_type, device_id)
        self.bind_cpu_input(name, _at_address(element_type, shape, buffer_ptr))

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Memory at an address for an output; without one each run makes a new array."""
        _require_cpu(device_type, device_id)
        target = None
        if buffer_ptr is not None:
            if element_type is None or shape is None:
                raise InputError(f"output {name!r}: an address needs an element_type and a shape with it")
            target = _at_address(element_type, shape, buffer_ptr)
        self._targets[self._require("output", name)] = target

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """A value whose array each run writes into."""
        value: Any = ortvalue.numpy()
        if not isinstance(value, np.ndarray):
            raise InputError(f"output {name!r}: the OrtValue holds a {type(value).__name__}, and no tensor")
        self._targets[self._require("output", name)] = value

    def get_outputs(self) -> list[OrtValue]:
        """What the last run gave, in the order in which outputs were bound."""
        return [OrtValue(value) for value in self._results]

    def copy_outputs_to_cpu(self) -> list[Array]:
        """What the last run gave, as arrays of the caller's own."""
        bound = list(self._targets.values())
        return [x if t is None else x.copy() for x, t in zip(self._results, bound, strict=True)]

    def clear_binding_inputs(self) -> None:
        """Forget the inputs."""
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        """Forget the outputs, and what the last run gave."""
        self._targets.clear()
        self._results = []

    def synchronize_inputs(self) -> None:
        """Nothing to wait for: all memory is the CPU's."""

    def synchronize_outputs(self) -> None:
        """Nothing to wait for."""

    def run(self, run_options: RunOptions | None = None) -> None:
        """Run on what is bound. Raises InputError as `InferenceSession.run` does, where no output is bound,
        and where an output does not fit the array that is bound to it; that array is as it was then.
        """
        if not self._targets:
            raise InputError(f"no output is bound; bind one of {', '.join(self._known['output'])}")
        made = self._session.run(list(self._targets), self._inputs, run_options)
        pairs = list(zip(self._targets.items(), made, strict=True))
        for (name, target), array in pairs:
            if target is not None:
                _require_fit(target, array, f"output {name!r}")
        self._results = []
        for (_, target), array in pairs:
            if target is not None:
                target[...] = array
            self._results.append(array if target is None else target)

    def _require(self, kind: str, name: str) -> str:
        if name not in self._known[kind]:
            raise InputError(
                f"the model has no {kind} {name!r}; it has {', '.join(self._known[kind]) or 'none'}"
            )
        return name


def _require_fit(target: Array, array: Array, subject: str) -> None:
    if array.shape != target.shape or array.dtype != target.dtype:
        raise InputError(
            f"{subject} is {array.dtype} {list(array.shape)}, and what it is written into is {target.dtype} "
            f"{list(target.shape)}"
        )
    if not target.flags.writeable:
        raise InputError(f"{subject}: the array that it is written into is read-only")


def dtype_of(element_type: Any) -> np.dtype[Any]:
    """A NumPy dtype from NumPy's own names and types, or from an onnx.TensorProto.DataType."""
    try:
        if isinstance(element_type, int):
            known = ir.DataType(element_type)
            return np.dtype(object) if known == ir.DataType.STRING else np.dtype(known.numpy())
        return np.dtype(element_type)
    except (TypeError, ValueError) as error:
        raise InputError(f"element_type is {element_type!r}, which is no dtype of NumPy or ONNX") from error


def _sizes(shape: Any) -> tuple[int, ...]:
    """The sizes of an array; InputError for what are none."""
    try:
        sizes = tuple(map(operator.index, shape))
    except TypeError as error:
        raise InputError(f"shape is {shape!r}; give a list of sizes") from error
    if any(size < 0 for size in sizes):
        raise InputError(f"shape is {list(sizes)}; sizes are 0 or more")
    return sizes


def _at_address(element_type: Any, shape: Sequence[int], address: int) -> Array:
    dtype = dtype_of(element_type)
    if dtype.kind == "O":
        raise InputError("strings have no address; bind an array of them with bind_cpu_input")
    sizes = _sizes(shape)
    nbytes = math.prod(sizes) * dtype.itemsize
    if not nbytes:
        return np.empty(sizes, dtype)
    memory: Any = (ctypes.c_char * nbytes).from_address(address)
    return np.ndarray(sizes, dtype, memory)


def _require_cpu(device_type: str, device_id: int) -> None:
    if str(device_type).lower() != "cpu" or device_id != 0:
        raise InputError(
            f"device {device_type!r} {device_id} is not available; models run on 'cpu', device 0"
        )
