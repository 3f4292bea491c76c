"""What a model is made of: inputs, outputs, operators, parameters, and the arithmetic one call costs.

Nothing is run here. Arithmetic needs sizes: it is counted for concrete input sizes, on the graph as it
stands in the file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ingot.compiler.facts import infer_facts
from ingot.compiler.index import Index, index_graph
from ingot.errors import UnsupportedOperatorError
from ingot.ops.registry import Facts, find
from ingot.passes.edit import graphs_of, subgraphs_of
from ingot.passes.opset import normalise

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of one call, by operator; a multiply-add is two.

    Products, convolutions, attention and recurrent cells count, as in PyTorch's FlopCounterMode;
    elementwise work, which memory decides, does not. `complete` is False when sizes depend on data, and the
    rest was not counted.
    """

    by_operator: dict[str, int]
    complete: bool

    @property
    def total(self) -> int:
        """The sum over all operators."""
        return sum(self.by_operator.values())


@dataclass(frozen=True)
class Description:
    """What stands in a file: `inputs` and `outputs` are (name, dtype, dims); `operators` counts subgraphs
    too.
    """

    producer: str
    ir_version: int
    opsets: dict[str, int]
    inputs: list[tuple[str, str, list[int | str]]]
    outputs: list[tuple[str, str, list[int | str]]]
    operators: dict[str, int]
    parameters: int
    parameter_bytes: int
    #: dtype: (elements, bytes), the largest first
    by_dtype: dict[str, tuple[int, int]]
    metadata: dict[str, str] = field(default_factory=dict[str, str])


def describe(model: ir.Model) -> Description:
    """Describe a model as it is; reads no weights."""
    graph = model.graph
    counts: Counter[str] = Counter()
    _count(graph, counts)
    tensors = [value.const_value for value in graph.initializers.values()]
    held = [tensor for tensor in tensors if tensor is not None]
    sizes: dict[str, tuple[int, int]] = {}
    for tensor in held:
        dtype, (elements, size) = _dtype_name(tensor.dtype), sizes.get(_dtype_name(tensor.dtype), (0, 0))
        sizes[dtype] = elements + math.prod(tensor.shape.numpy()), size + tensor.nbytes
    return Description(
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part),
        ir_version=model.ir_version,
        opsets={domain or "ai.onnx": version for domain, version in graph.opset_imports.items()},
        inputs=[_signature(value) for value in graph.inputs if value.name not in graph.initializers],
        outputs=[_signature(value) for value in graph.outputs],
        operators=dict(counts.most_common()),
        parameters=sum(math.prod(tensor.shape.numpy()) for tensor in held),
        parameter_bytes=sum(tensor.nbytes for tensor in held),
        by_dtype=dict(sorted(sizes.items(), key=lambda item: -item[1][1])),
        metadata=dict(model.metadata_props),
    )


def cost(model: ir.Model, sizes: Mapping[str, Shape]) -> Cost:
    """Count the arithmetic of one call with inputs of `sizes`.

    Raises ShapeError where the sizes do not fit each other, ModelError for a damaged graph.
    """
    index, given = _indexed(model, sizes)
    known = infer_facts(index, 0, given)
    found: Counter[str] = Counter()
    complete = not known.cut
    for node in index.nodes[: known.stop]:
        count = _COUNTS.get(node.op_type)
        if count is None or node.domain not in ("", "ai.onnx"):
            continue
        inputs = [() if value is None else known.facts[value].shape for value in node.inputs]
        flops = count(node, inputs, known.facts[node.outputs[0]].shape)
        if flops is None:
            complete = False
        else:
            found[node.op_type] += flops
    return Cost(dict(found.most_common()), complete)


def computed(model: ir.Model, sizes: Mapping[str, Shape]) -> dict[str, dict[str, int]]:
    """How the nodes of each operator are computed with inputs of `sizes`, and how many in each way: "native",
    "host", "view" or "folded" (neither costs anything), "depends on data" for what only a run can tell.

    Nodes of subgraphs have plans of their own and are not counted. Raises as `cost` does.
    """
    from ingot.codegen.machine import host
    from ingot.compiler.kinds import kinds_of

    index, given = _indexed(model, sizes)
    counts: dict[str, Counter[str]] = {}
    for node, kind in kinds_of(index, given, host()):
        counts.setdefault(_operator(node), Counter())[kind] += 1
    return {name: dict(kinds.most_common()) for name, kinds in counts.items()}


def refusals(model: ir.Model) -> list[str]:
    """What would not run, and why: a line for each node. Nothing else of the model is looked at."""
    model = model.clone()
    try:
        normalise(model)
    except UnsupportedOperatorError as error:
        return [str(error)]
    found: list[str] = []
    for graph in graphs_of(model):
        for node in graph:
            try:
                find(node.domain, node.op_type, node)
            except UnsupportedOperatorError as error:
                found.append(str(error))
    return found


def _indexed(model: ir.Model, sizes: Mapping[str, Shape]) -> tuple[Index, dict[ir.Value, Facts]]:
    model = model.clone()
    normalise(model)
    index = index_graph(model.graph)
    given: dict[ir.Value, Facts] = {}
    for value in index.inputs:
        size = sizes.get(value.name or "")
        if size is not None and value.dtype is not None:
            given[value] = Facts(value.dtype.numpy(), tuple(size))
    return index, given


def _operator(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def _count(graph: ir.Graph, counts: Counter[str]) -> None:
    for node in graph:
        counts[_operator(node)] += 1
        for body in subgraphs_of(node):
            _count(body, counts)


def _signature(value: ir.Value) -> tuple[str, str, list[int | str]]:
    dtype = "unknown" if value.dtype is None else _dtype_name(value.dtype)
    dims: list[int | str] = []
    for dim in value.shape if value.shape is not None else ():
        dims.append(dim if isinstance(dim, int) else dim.value or "?")
    return value.name or "", dtype, dims


def _dtype_name(dtype: ir.DataType) -> str:
    name = dtype.name.lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _matmul(node: ir.Node, inputs: Sequence[Shape], output: Shape) -> int:
    del node
    return 2 * math.prod(output) * inputs[0][-1]


def _gemm(node: ir.Node, inputs: Sequence[Shape], output: Shape) -> int:
    transposed = node.attributes.get("transA")
    depth = inputs[0][0 if transposed is not None and transposed.as_int() else 1]
    return 2 * math.prod(output) * depth


def _conv(node: ir.Node, inputs: Sequence[Shape], output: Shape) -> int:
    del node
    return 2 * math.prod(output) * math.prod(inputs[1][1:])  # weight [out, in / groups, *kernel]


def _conv_transpose(node: ir.Node, inputs: Sequence[Shape], output: Shape) -> int:
    del node, output
    return 2 * math.prod(inputs[0]) * math.prod(inputs[1][1:])  # weight [in, out / groups, *kernel]


def _attention(node: ir.Node, inputs: Sequence[Shape], output: Shape) -> int | None:
    if any(node.inputs[position] is not None for position in range(4, min(6, len(inputs)))):
        return None  # keys of the past lengthen the product
    query, key = inputs[0], inputs[1]
    # scores: every query with every key over the width of a head; then the weighted sum of values
    width = query[-1] if len(query) == 3 else query[1] * query[-1]
    return 2 * query[0] * query[-2] * key[-2] * width + 2 * math.prod(output) * key[-2]


def _recurrent(gates: int) -> Callable[[ir.Node, Sequence[Shape], Shape], int]:
    def count(node: ir.Node, inputs: Sequence[Shape], output: Shape) -> int:
        del node, output
        steps_and_batch = math.prod(inputs[0][:2])
        directions, _, features = inputs[1]
        hidden = inputs[2][-1]
        return 2 * steps_and_batch * directions * gates * hidden * (features + hidden)

    return count


def _einsum(node: ir.Node, inputs: Sequence[Shape], output: Shape) -> int | None:
    equation = node.attributes["equation"].as_string().replace(" ", "").split("->")[0]
    if "..." in equation:
        return None
    del output
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.split(","), inputs, strict=True):
        for label, size in zip(term, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return 2 * math.prod(sizes.values()) if len(inputs) > 1 else 0


_COUNTS: dict[str, Callable[[ir.Node, Sequence[Shape], Shape], int | None]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Attention": _attention,
    "Einsum": _einsum,
    "LSTM": _recurrent(4),
    "GRU": _recurrent(3),
    "RNN": _recurrent(1),
}
