"""The ONNX graph while it is being written: nodes, shared constants, unique names. Knows nothing of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

SHARED_CONSTANT_SIZE = (
    1024  # constants of up to this many elements with equal contents become one initializer
)


class GraphWriter:
    """Appends nodes to one graph and hands out their values."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self.scope = ""  # module path of what runs now
        self.source = ""  # file:line of what runs now
        self._names: dict[str, int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def unique(self, name: str) -> str:
        """`name`, or `name_1`, `name_2` … when taken."""
        count = self._names.get(name)
        if count is None:
            self._names[name] = 0
            return name
        while True:
            count += 1
            candidate = f"{name}_{count}"
            if candidate not in self._names:
                self._names[name] = count
                self._names[candidate] = 0
                return candidate

    def ops(
        self, op_type: str, *inputs: ir.Value | None, n: int, domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """Append a node with `n` outputs; attributes given as None are left out."""
        name = self.unique(f"{self.scope}/{op_type}" if self.scope else op_type)
        given = {k: v for k, v in attributes.items() if v is not None}
        node = ir.node(op_type, inputs=inputs, attributes=given, domain=domain, num_outputs=n, name=name)
        if self.source:
            node.metadata_props["ingot.source"] = self.source
        for i, value in enumerate(node.outputs):
            value.name = name if n == 1 else f"{name}:{i}"
        self.nodes.append(node)
        return node.outputs

    def op(self, op_type: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """Append a node with one output and return it."""
        return self.ops(op_type, *inputs, n=1, domain=domain, **attributes)[0]

    def const(self, value: Any, dtype: ir.DataType = ir.DataType.INT64) -> ir.Value:
        """A constant; small ones with equal contents are one initializer."""
        array = np.asarray(value, dtype=dtype.numpy())
        if array.size > SHARED_CONSTANT_SIZE:
            return self.initializer("const", ir.Tensor(array, dtype=dtype))
        key = (dtype.name, array.shape, array.tobytes())
        found = self._constants.get(key)
        if found is None:
            found = self._constants[key] = self.initializer("const", ir.Tensor(array, dtype=dtype))
        return found

    def initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """A named constant; the tensor is kept as it is given, not copied."""
        name = self.unique(name)
        sizes: list[Any] = list(tensor.shape)
        value = ir.Value(
            name=name, shape=ir.Shape(sizes), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        if isinstance(tensor, ir.Tensor):
            tensor.name = name
        self.initializers[name] = value
        return value
