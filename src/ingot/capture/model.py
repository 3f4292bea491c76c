"""The ONNX model of a finished run: its outputs, the nodes they need, names that are unique."""

# torch's shape environment and fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch

from ingot.capture import complex_numbers, scalars
from ingot.capture.assume import Assumption
from ingot.capture.aten.quantised_tensor import Quantised
from ingot.capture.checks import through_checks
from ingot.capture.choice import Choice, Maybe
from ingot.capture.graph import pruned, with_inner
from ingot.capture.lists import Rows
from ingot.capture.merge import describe
from ingot.capture.passed import Afterwards
from ingot.capture.record import Recorder
from ingot.capture.request import Restart
from ingot.capture.run import Call, Run
from ingot.capture.runs import Many, Perhaps
from ingot.capture.scalars import Symbolic
from ingot.capture.signature import Leaf, check_names, leaves, unique_names
from ingot.capture.structure import settled
from ingot.capture.tensors import dtype_of
from ingot.capture.where import returned_at, returning
from ingot.capture.words import Word
from ingot.errors import DataDependentError, ExportError
from ingot.ops.registry import RANGES

# The oldest file format that has the opset: what the widest range of runtimes loads.
_IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13}


def outputs_of(call: Call, run: Run, after: Afterwards) -> tuple[list[ir.Value], list[str], dict[str, str]]:
    """Name the tensors the model returned and put an Identity under those that are an input, a constant or
    repeated. Behind them stand those that it left in its arguments' objects; last, which output is the next
    call's input.
    """
    recorder, inputs, names = run.recorder, call.arguments.names, call.output_names
    run.output = settled(run.output)
    found: list[Leaf] = []
    for leaf in _returned(call, run.output):
        v = leaf.value
        if isinstance(v, (torch.Tensor, *Symbolic)):
            if after.is_output(recorder, leaf):
                found.append(leaf)
        elif isinstance(v, Word):
            raise ExportError(
                f"a condition chooses what the model returns at {leaf.output!r}, "
                f"{describe(v)}, and no output can be either. Return a number or a tensor for it."
            )
        elif isinstance(v, Maybe) and call.marks.require_rounds():
            raise Restart
        elif isinstance(v, (Maybe, Choice, Perhaps, Many, Rows)):
            raise ExportError(
                f"{returned_at(call.function)}\n"
                f"data decides what kind of thing the model returns at {leaf.output!r}: None or "
                "a tensor, a list of some length, or a key of a dict. Return one tensor: torch.stack the "
                "list, or a flag beside it."
            )
        elif isinstance(v, Quantised):
            raise ExportError(
                f"the model returns a quantised tensor at {leaf.output!r}, which no ONNX value "
                "is. Return its .dequantize(): a DeQuantStub behind it before convert()."
            )
        elif v is not None and not leaf.inside and not isinstance(v, (bool, int, float, str)):
            raise ExportError(
                f"the model returns a {type(v).__name__} at {leaf.output!r}; wanted tensors, "
                "in tuples, lists, dicts, dataclasses or plain objects. Return the tensors inside it."
            )
    left = after.unreturned([leaf.value for leaf in found])
    if not found and not left:
        raise ExportError(
            f"the model returns no tensor but {type(run.output).__name__}. Return at least one tensor."
        )
    named = [after.name_of(leaf.value, leaf.output) for leaf in found]
    if names is not None:
        check_names("output_names", names, named, inputs)
        named[: len(names)] = names
    taken = {v.name for v in recorder.graph.initializers.values()}
    named = unique_names([*named, *(x.output_name for x in left)], inputs)
    recorder.graph.scope = ""
    outputs: list[ir.Value] = []
    with returning(call.function):
        for value in [*(leaf.value for leaf in found), *(x.value for x in left)]:
            outputs.append(as_output(recorder, value, outputs))
    for name, value in zip(named, outputs, strict=True):
        value.name = recorder.graph.unique(name) if name in taken else name
    written = [str(v.name) for v in outputs]
    values = [*(leaf.value for leaf in found), *(x.value for x in left)]
    return outputs, written, after.carried(values, written)


def _returned(call: Call, output: Any) -> list[Leaf]:
    """Every leaf of what the model returns.

    Raises:
        DataDependentError: it is a list that data fills, or holds one
    """
    try:
        return list(leaves(output))
    except DataDependentError:  # nobody can count its elements
        raise DataDependentError(
            f"{returned_at(call.function)}\n"
            "The model returns a list that is as long as data says, and an ONNX model has as many outputs in "
            "every run. Return one tensor: torch.stack or torch.cat the list, or pad its tensors to one "
            "length and return their lengths beside it."
        ) from None


def plain_outputs(output: Any) -> list[Assumption]:
    """What the model returned that is no tensor: the same in every call."""
    plain = [
        leaf for leaf in leaves(output) if isinstance(leaf.value, (bool, int, float, str)) and not leaf.inside
    ]
    said = [f"what the model returns at {leaf.output!r} is {leaf.value!r}" for leaf in plain]
    return [Assumption("output", leaf.output, what, "fixed") for leaf, what in zip(plain, said, strict=True)]


def as_output(recorder: Recorder, v: Any, outputs: Sequence[ir.Value]) -> ir.Value:
    """The value of a tensor or number, one that no other output is."""
    if isinstance(v, torch.Tensor) and v.is_complex():
        v = complex_numbers.as_pairs(recorder, v)
    scalars.require_kind(recorder, v, "the dtype of an output")
    kind = ir.DataType.INT64 if isinstance(v, (torch.SymInt, int)) else ir.DataType.DOUBLE
    kind = ir.DataType.BOOL if isinstance(v, (torch.SymBool, bool)) else kind
    value = recorder.graph.const(v, kind) if isinstance(v, (bool, int, float)) else recorder.val(v)
    recorder.graph.require(value)
    value = through_checks(recorder, value)
    if value.producer() is None or value in outputs or value.is_graph_output():
        shape, dtype = value.shape, value.type
        value = recorder.op("Identity", value)
        value.shape, value.type = shape, dtype
    if isinstance(v, torch.Tensor):
        value.type, value.shape = ir.TensorType(dtype_of(v.dtype)), None
        recorder.annotate(value, v)
    else:
        value.type, value.shape = ir.TensorType(kind), ir.Shape([])
    return value


def held_by_objects(call: Call, run: Run) -> set[int]:
    """The inputs that objects among the arguments hold: what no output needs of an object is no input."""
    rows = zip(run.inputs, call.arguments.tensor_leaves, strict=False)
    return {id(v) for v, leaf in rows if leaf.inside}


def model_of(
    recorder: Recorder, inputs: list[ir.Value], outputs: list[ir.Value], optional: set[int]
) -> ir.Model:
    """Nodes that lead to an output, initializers that are used, names that are unique.

    The `optional` inputs are left out where no output needs them.
    """
    needed, alive = pruned(recorder.graph.nodes, outputs)
    inputs = [v for v in inputs if id(v) in alive or id(v) not in optional]
    own = {v.name for v in [*inputs, *outputs]}
    held = set(map(id, outputs))
    every = list(with_inner(needed))
    for node in every:
        for v in node.outputs:
            if v.name in own and id(v) not in held:
                v.name = recorder.graph.unique(str(v.name))
    for v in [v for node in every for v in node.outputs]:
        if v.shape is not None and v not in outputs:
            v.shape = ir.Shape([_canonical(recorder, d) for d in v.shape])
    initializers = [v for v in recorder.graph.initializers.values() if id(v) in alive]
    for v in initializers:
        if v.name in own:
            v.name = recorder.graph.unique(str(v.name))
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=needed,
        initializers=initializers,
        opset_imports={"": recorder.opset} | {node.domain: 1 for node in needed if node.domain},
        name="main",
    )
    env = recorder.env
    ranges = {env.names[s]: found for s, found in env.ranges.items() if s in env.names}
    return ir.Model(
        graph,
        ir_version=_IR_VERSIONS.get(recorder.opset, 10),
        producer_name="ingot",
        functions=_functions(recorder, every),
        metadata_props={RANGES: json.dumps(ranges)} if ranges else {},
    )


def _functions(recorder: Recorder, nodes: Sequence[ir.Node]) -> list[ir.Function]:
    """The model's ONNX functions that its nodes call."""
    called = {node.op_identifier() for node in nodes}
    return [f for identifier, f in recorder.functions.items() if identifier in called]


def _canonical(recorder: Recorder, dim: int | ir.SymbolicDim) -> int | str | None:
    """A dimension's label after the model fixed or unified it."""
    if isinstance(dim, int):
        return dim
    label = dim.value
    if not isinstance(label, str):
        return None
    for symbol, name in recorder.env.names.items():
        if name == label:
            e = recorder.env.canon(symbol)
            return int(e) if e.is_number else recorder.env.names[e]
    return label
