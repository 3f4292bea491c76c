"""The model's constants as initializers: one for each piece of memory, read in one way, without a copy."""

# torch's tensors are untyped in places.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnx_ir as ir
import torch

from ingot.capture.entries import Entry
from ingot.capture.graph import GraphWriter
from ingot.capture.tensors import Memory, dtype_of, zero_copy


class Weights:
    """Makes initializers; tied weights have one."""

    def __init__(self, graph: GraphWriter) -> None:
        self.graph = graph
        self._by_memory: dict[Memory, ir.Value] = {}

    def value(self, e: Entry) -> ir.Value:
        """A constant's value in the graph."""
        real = e.real
        assert real is not None
        if e.group.owned or (real.numel() <= 64 and e.name == "const"):  # small, and may be written to later
            array = zero_copy(real).copy()
            return self.graph.const(array, dtype_of(real.dtype))
        return self._stored(e.name, real, zero_copy(real), Memory.of(real))

    def transposed(self, e: Entry) -> ir.Value | None:
        """A 2-D constant transposed: a view of the same memory, where nothing has used it as it is."""
        if e.real is None or e.group.owned or e.value is not None:
            return None
        name = f"{e.name}.T" if e.name != "const" else "const"
        return self._stored(name, e.real, zero_copy(e.real).T, Memory.of(e.real).transposed())

    def _stored(self, name: str, real: torch.Tensor, array: npt.NDArray[Any], memory: Memory) -> ir.Value:
        """The initializer of what lies in this memory, read in this way."""
        found = self._by_memory.get(memory) if real.numel() else None
        if found is None:
            tensor = ir.Tensor(array, dtype=dtype_of(real.dtype))
            found = self._by_memory[memory] = self.graph.initializer(name, tensor)
        return found

    def untie_transposed(self) -> None:
        """A weight that is used both as it is and transposed is stored once: the latter becomes a Transpose
        node.
        """
        for memory, constant in list(self._by_memory.items()):
            plain = self._by_memory.get(memory.transposed())
            if len(memory.shape) != 2 or plain is None or memory.strides[0] >= memory.strides[1]:
                continue
            node = ir.node("Transpose", [plain], {"perm": [1, 0]}, name=self.graph.unique("Transpose"))
            node.outputs[0].name = node.name
            node.outputs[0].type, node.outputs[0].shape = constant.type, constant.shape
            self.graph.nodes.insert(0, node)
            constant.replace_all_uses_with(node.outputs[0])
            del self.graph.initializers[str(constant.name)]
            del self._by_memory[memory]
