"""torch dtypes and memory as ONNX sees them: constants share memory with the module's parameters."""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass_type

from ingot.errors import ExportError

DTYPES: dict[torch.dtype, ir.DataType] = {
    torch.float32: ir.DataType.FLOAT,
    torch.float64: ir.DataType.DOUBLE,
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
    torch.bool: ir.DataType.BOOL,
    torch.int8: ir.DataType.INT8,
    torch.int16: ir.DataType.INT16,
    torch.int32: ir.DataType.INT32,
    torch.int64: ir.DataType.INT64,
    torch.uint8: ir.DataType.UINT8,
    torch.uint16: ir.DataType.UINT16,
    torch.uint32: ir.DataType.UINT32,
    torch.uint64: ir.DataType.UINT64,
}
BY_NAME: dict[str, torch.dtype] = {str(d).removeprefix("torch."): d for d in DTYPES}


def inner_dtype(dtype: torch.dtype) -> torch.dtype:
    """What torch takes several steps in before it rounds once: halves in float32, others as they are."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def dtype_of(dtype: torch.dtype) -> ir.DataType:
    """The ONNX dtype of a torch dtype."""
    found = DTYPES.get(dtype)
    if found is None:
        remedy = (
            "Compute with the real and the imaginary parts as two tensors, or outside of the model"
            if dtype.is_complex
            else "Convert it to one of these first"
        )
        raise ExportError(
            f"{dtype} has no ONNX dtype Ingot writes; wanted one of {', '.join(sorted(BY_NAME))}. {remedy}."
        )
    return found


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a tensor's elements lie and in which order: tensors alike in this are one weight."""

    address: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Memory:
        """The memory of a real tensor."""
        return cls(tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())

    def transposed(self) -> Memory:
        """The same memory read with all axes in reverse."""
        return Memory(self.address, self.dtype, self.shape[::-1], self.strides[::-1])


@functools.lru_cache(maxsize=256)
def made_of_others(kind: type) -> bool:
    """Whether tensors of this class are made of other tensors and say themselves what operators do with
    them, as torchao's quantised weights do.
    """
    return is_traceable_wrapper_subclass_type(kind) and not issubclass(kind, FakeTensor)


def of_array(name: str, array: npt.NDArray[Any]) -> torch.Tensor:
    """An array given for an input, as a tensor; raises ExportError where torch has no such elements."""
    if not array.dtype.isnative or any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    try:
        return torch.from_numpy(array)
    except TypeError:
        raise ExportError(
            f"input {name!r} is an array of dtype {array.dtype}; wanted one of {', '.join(sorted(BY_NAME))}."
        ) from None


def zero_copy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """A CPU tensor's memory as an array, without copying; complex numbers as pairs of real ones."""
    from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore[reportPrivateUsage]

    with _disable_current_modes():
        plain = tensor.detach()
        if plain.device.type != "cpu":
            plain = plain.cpu()
        plain = plain.resolve_conj().resolve_neg()
        if plain.is_complex():
            plain = torch.view_as_real(plain)
        if plain.dtype == torch.bfloat16:
            return plain.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return np.asarray(plain.numpy())
