"""Random graphs of a few nodes: values feed several nodes, are outputs as well, and shapes are computed.

`Chain` holds a graph while it grows. Every node is evaluated where it is added, by its plain definition, so
that the next one can be drawn by what is there: shapes that fit, numbers that do not depend on rounding.
The steps that may be drawn stand in `links.py`, `wrapped.py` and `quantised_links.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import onnx
import onnx.helper as h
import onnx.numpy_helper
import onnx_ir as ir

from ingot.ops.interpreter import interpret
from ingot.passes.opset import normalise
from tests.search.draw import Array, Draw
from tests.search.judge import element_type

OPSETS = (11, 12, 13, 15, 17, 18, 19, 20, 21, 22, 23)
LARGEST = 20_000


class Unfit(Exception):
    """A step that does not fit what there is; another one is drawn."""


@dataclass(eq=False)
class Value:
    """A value of the graph and what it is for the first feed. exact: whether no rounding made it."""

    name: str
    array: Array
    exact: bool = True
    constant: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def rank(self) -> int:
        return self.array.ndim

    @property
    def dtype(self) -> str:
        return self.array.dtype.name


#: Operators whose results are their operands' numbers, or whole ones, without rounding.
EXACT = frozenset(
    (
        *("Identity", "Neg", "Abs", "Relu", "Max", "Min", "Clip", "Sign", "Floor", "Ceil", "Round", "Mod"),
        *("Not", "And", "Or", "Xor", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Where"),
        *("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Slice", "Split"),
        *("Concat", "Pad", "Gather", "GatherND", "ScatterElements", "ScatterND", "DepthToSpace"),
        *("SpaceToDepth", "Shape", "Size", "Range", "ConstantOfShape", "TopK", "NonZero", "ReduceMax"),
        *("ReduceMin", "ArgMax", "ArgMin", "MaxPool", "GlobalMaxPool", "Trilu", "Cast", "Dropout"),
        *("BitwiseAnd", "BitwiseOr", "BitwiseNot", "QuantizeLinear", "DequantizeLinear", "Constant"),
    )
)


@dataclass
class Chain:
    """A graph that grows. outer: the chain around a body, whose values it may use."""

    r: Draw
    opset: int
    main: str = "float32"
    #: Draws so many further steps.
    grow: Callable[[Chain, int], None] = lambda _c, _n: None
    outer: Chain | None = None
    numbers: Iterator[int] = field(default_factory=count)
    pool: list[Value] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[tuple[Value, list[Any] | None]] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    symbols: dict[int, str] = field(default_factory=dict)
    #: Constants, of which the pool has some.
    constants: list[Value] = field(default_factory=list)
    depth: int = 0

    # ---- values

    def name(self) -> str:
        return f"v{next(self.numbers)}"

    def body(self) -> Chain:
        return Chain(self.r, self.opset, self.main, self.grow, self, self.numbers, depth=self.depth + 1)

    def seen(self) -> list[Value]:
        """All values that a node here may use."""
        return [*(self.outer.seen() if self.outer else []), *self.pool]

    def everything(self) -> list[Value]:
        return [*(self.outer.everything() if self.outer else []), *self.pool, *self.constants]

    def input(self, array: Array) -> Value:
        """A new input of the model; its dims are numbers, symbols, or nothing at all is said."""
        if self.outer is not None:
            return self.outer.input(array)
        value = Value(self.name(), array)
        kind = self.r.rng.random()
        dims: list[Any] | None = None if kind < 0.1 else list(array.shape)
        if dims is not None and kind < 0.6:
            dims = [
                self.symbols.setdefault(d, f"s{d}")
                if self.r.flag(0.7)
                else f"{value.name}d{i}"
                if kind < 0.4
                else d
                for i, d in enumerate(dims)
            ]
        self.inputs.append((value, dims))
        self.pool.append(value)
        return value

    def constant(self, array: Any, dtype: str | None = None) -> Value:
        """An initializer, of the graph here or outside; now and then a Constant node."""
        array = np.asarray(array, dtype)
        if self.outer is not None and self.r.flag(0.4):
            return self.outer.constant(array)
        value = Value(self.name(), array, constant=True)
        tensor = onnx.numpy_helper.from_array(array, value.name)
        if self.r.flag(0.2):
            self.nodes.append(h.make_node("Constant", [], [value.name], value=tensor))
        else:
            self.initializers.append(tensor)
        (self.pool if self.r.flag(0.3) else self.constants).append(value)  # others may share it
        return value

    def ints(self, values: Sequence[int]) -> Value:
        return self.constant(np.array(list(values), np.int64))

    def pick(
        self, fits: Callable[[Value], bool] = lambda _: True, *, dtypes: Sequence[str] | None = None
    ) -> Value:
        """A value that fits, most often one of the last ones; raises Unfit."""
        dtypes = (self.main,) if dtypes is None else dtypes
        found = [v for v in self.seen() if (not dtypes or v.dtype in dtypes) and fits(v)]
        if not found:
            raise Unfit
        if self.r.flag(0.65):
            return found[-1]
        return self.r.one(found)

    def partner(self, x: Value, *, chance: float = 0.5, dtype: str | None = None) -> Value:
        """A value that broadcasts with x: one that is there, a constant, or an input."""
        dtype = dtype or x.dtype
        there = [v for v in self.seen() if v.dtype == dtype and broadcasts(v.shape, x.shape)]
        if there and self.r.flag(chance):
            return self.r.one(there)
        shape = self.r.broadcastable(x.shape)
        array = self.r.array(shape, dtype, special=0.0)
        return self.constant(array) if self.r.flag(0.7) else self.input(array)

    # ---- nodes

    def add(
        self,
        op: str,
        inputs: Sequence[Value | None],
        outputs: int = 1,
        domain: str = "",
        **attributes: Any,
    ) -> list[Value]:
        """A node more; its results are in the pool. Raises Unfit where it cannot be evaluated."""
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        names = [self.name() for _ in range(outputs)]
        attributes = {k: v for k, v in attributes.items() if v is not None}
        node = h.make_node(
            op, [v.name if v else "" for v in given], names, names[0] + "_" + op, domain=domain, **attributes
        )
        read = needed(node)
        outside = [v for v in self.everything() if v.name in read]
        arrays = self.evaluated(node, {v.name: v.array for v in (*outside, *(v for v in given if v))})
        if any(a.size > LARGEST or a.ndim > 6 for a in arrays):
            raise Unfit
        if any(a.dtype.kind == "f" and a.size and not np.abs(a).max() < 1e4 for a in arrays):
            raise Unfit
        exact = op in EXACT or all(a.dtype.kind in "iub" for a in arrays)
        if op == "Cast" and arrays[0].dtype.kind == "f":
            exact = arrays[0].dtype.itemsize >= given[0].array.dtype.itemsize  # type: ignore[union-attr]
        exact = exact and all(v is None or v.exact for v in (*outside, *given))
        self.nodes.append(node)
        values = [Value(n, a, exact) for n, a in zip(names, arrays, strict=True)]
        self.pool += values
        return values

    def op(self, op: str, *inputs: Value | None, domain: str = "", **attributes: Any) -> Value:
        return self.add(op, inputs, 1, domain, **attributes)[0]

    def evaluated(self, node: onnx.NodeProto, arrays: dict[str, Array]) -> list[Array]:
        infos = [h.make_tensor_value_info(n, element_type(a), a.shape) for n, a in arrays.items()]
        made = [onnx.ValueInfoProto(name=name) for name in node.output]
        graph = h.make_graph([node], "g", infos, made)
        model = h.make_model(graph, opset_imports=imports(self.opset), ir_version=10)
        with np.errstate(all="ignore"):
            try:
                found = interpret(normalise(ir.from_proto(model)), arrays)
            except Exception as error:
                raise Unfit(str(error)) from error
        return [found[name] for name in node.output]

    # ---- the whole

    def outputs(self) -> list[Value]:
        """What nothing uses, and some of the rest."""
        used = {name for node in self.nodes for name in needed(node)}
        made = [v for v in self.pool if any(v.name in node.output for node in self.nodes)]
        made = [v for v in made if not v.constant]
        last = [v for v in made if v.name not in used and self.r.flag(0.85)]
        more = [v for v in made if v.name in used and self.r.flag(0.12)]
        if self.outer is None and self.r.flag(0.08):
            more += [self.r.one([v for v, _ in self.inputs])]
        found = list(dict.fromkeys([*last, *more])) or made[-1:]
        self.r.rng.shuffle(found)  # type: ignore[arg-type]
        return found

    def model(self, outputs: Sequence[Value]) -> onnx.ModelProto:
        infos = [h.make_tensor_value_info(v.name, element_type(v.array), dims) for v, dims in self.inputs]
        typed = self.r.flag()
        made = [
            h.make_tensor_value_info(v.name, element_type(v.array), None)
            if typed
            else onnx.ValueInfoProto(name=v.name)
            for v in outputs
        ]
        graph = h.make_graph(self.nodes, "g", infos, made, self.initializers)
        return h.make_model(graph, opset_imports=imports(self.opset), ir_version=10)

    def feed(self) -> dict[str, Array]:
        return {v.name: v.array for v, _ in self.inputs}

    def other_feed(self) -> dict[str, Array]:
        """Of other sizes where the inputs' are free: equal ones stay equal."""
        sizes: dict[int, int] = {}
        found = {}
        for value, dims in self.inputs:
            shape = [
                sizes.setdefault(d, self.r.one([d, d + 1, d + 1, 1, d + 5, d + 5, 2 * d, 2 * d, 0]))
                if free
                else d
                for d, free in zip(
                    value.shape,
                    [True] * value.rank if dims is None else [isinstance(d, str) for d in dims],
                    strict=True,
                )
            ]
            found[value.name] = self.r.array(shape, value.dtype, special=0.0)
        return found


def imports(opset: int) -> list[onnx.OperatorSetIdProto]:
    return [h.make_opsetid("", opset), h.make_opsetid("com.microsoft", 1)]


def needed(node: onnx.NodeProto) -> set[str]:
    """What a node reads, in its bodies too."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names |= needed(inner)
        names |= {v.name for v in attribute.g.output}
    return names


def broadcasts(a: Sequence[int], b: Sequence[int]) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(a[::-1], b[::-1], strict=False))
