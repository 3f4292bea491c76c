"""Which nodes of a model ONNX Runtime has no kernels for: it refuses to load such a file, valid as it is.

float16 is not among it: ONNX Runtime computes that in float32 where it has nothing else.
"""

# onnx's schemas are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import onnx
import onnx_ir as ir

from ingot.capture.assume import Assumption
from ingot.ops.registry import SOURCE
from ingot.passes.edit import subgraphs_of

_D = ir.DataType
#: Operators that ONNX has for a dtype and ONNX Runtime's CPU provider (1.32) has not, of those that an export
#: writes. Of whole numbers those are left out that are functions of others in ONNX: they may be taken apart.
LACKING: dict[_D, str] = {
    _D.BFLOAT16: (
        "Abs Add ArgMax ArgMin BatchNormalization Ceil Clip CumSum DFT DepthToSpace Div Dropout Equal Erf "
        "Exp Expand Floor Gelu Gemm Greater GreaterOrEqual GroupNormalization LeakyRelu Less LessOrEqual "
        "Log LogSoftmax MatMul Max Min Mod Mul Neg NonZero PRelu Pad Pow QuantizeLinear Reciprocal "
        "ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
        "ReduceSumSquare Relu Resize Sigmoid Size Softmax Sqrt Sub Sum Tanh Tile Trilu Where"
    ),
    _D.DOUBLE: (
        "Acos Acosh Asin Asinh Atan Atanh AveragePool Conv ConvTranspose Cosh Elu Erf Gelu "
        "GlobalAveragePool GlobalMaxPool GroupNormalization HardSigmoid HardSwish InstanceNormalization "
        "LeakyRelu MaxRoiPool Mish NonZero PRelu RNN Resize Sinh Softplus Tan"
    ),
    _D.INT16: ("ArgMax ArgMin DepthToSpace Einsum GridSample Max Min NonZero Pad Resize Trilu Unique Where"),
    _D.UINT16: (
        "ArgMax ArgMin DepthToSpace Einsum GridSample Max Min NonZero Pad Resize TopK Trilu Unique Where"
    ),
    _D.UINT32: (
        "ArgMax ArgMin CumSum DepthToSpace Einsum Gemm GridSample NonZero ReduceMax ReduceMean ReduceMin "
        "ReduceProd ReduceSum Resize TopK Trilu Unique"
    ),
    _D.UINT64: (
        "ArgMax ArgMin CumSum DepthToSpace Einsum Gemm GridSample NonZero ReduceMax ReduceMean ReduceMin "
        "ReduceProd ReduceSum Resize TopK Trilu Unique Where"
    ),
    _D.BOOL: "DepthToSpace GridSample Resize Unique Where",
    _D.INT32: "DepthToSpace Gemm GridSample QuantizeLinear Unique",
    _D.INT64: "DepthToSpace Gemm GridSample Resize",
    _D.INT8: "Einsum GridSample NonZero Trilu",
    _D.UINT8: "Einsum GridSample Trilu Unique",
}
_SHOWN = 6  # operators that a message names
_NAMES = {"tensor(float)": _D.FLOAT, "tensor(double)": _D.DOUBLE, "tensor(bfloat16)": _D.BFLOAT16}


def lacking(model: ir.Model) -> list[Assumption]:
    """One for each dtype that ONNX Runtime lacks operators of the model for."""
    found: dict[_D, dict[str, str]] = {}  # by dtype, operators with the first line that needs them
    graphs = [model.graph, *(f.graph for f in model.functions.values())]
    for graph in graphs:
        _look(graph, model.opset_imports.get("", onnx.defs.onnx_opset_version()), {}, found)
    return [
        Assumption(
            "runtime",
            next(iter(lines.values())),
            f"ONNX Runtime's CPU provider has no kernel of {dtype.numpy().name} for {_some(sorted(lines))}, "
            "and does not load the model",
            "fixed",
        )
        for dtype, lines in found.items()
    ]


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def operand(op_type: str) -> int:
    """The place of the operand whose dtype an operator is for."""
    return 1 if op_type == "Where" else 0


def _look(
    graph: Iterable[ir.Node], opset: int, dtypes: dict[ir.Value, _D], found: dict[_D, dict[str, str]]
) -> None:
    """Note what is lacking in a graph; dtypes: of values that do not say theirs."""
    for node in graph:
        for inner in subgraphs_of(node):
            _look(inner, opset, dtypes, found)
        if node.domain:
            continue
        known = [None if v is None else v.dtype or dtypes.get(v) for v in node.inputs]
        place = operand(node.op_type)
        dtype = known[place] if place < len(known) else None
        if dtype is not None and node.op_type in LACKING.get(dtype, "").split():
            where = node.metadata_props.get(SOURCE, "the model")
            found.setdefault(dtype, {}).setdefault(node.op_type, where)
        for value, made in zip(node.outputs, _given(node, opset, known), strict=False):
            if value.dtype is None and made is not None:
                dtypes[value] = made


def _given(node: ir.Node, opset: int, known: list[_D | None]) -> list[_D | None]:
    """The dtypes of a node's outputs, where they follow from its inputs'."""
    if node.op_type == "Cast":
        return [_D(node.attributes["to"].as_int())]
    schema = _schema(node.op_type, opset)
    if schema is None:
        return []
    takes = [schema.inputs[min(i, len(schema.inputs) - 1)].type_str for i in range(len(known))]
    by_name = {name: dtype for name, dtype in zip(takes, known, strict=True) if dtype is not None}
    return [by_name.get(out.type_str) or _NAMES.get(out.type_str) for out in schema.outputs]


@functools.lru_cache(maxsize=512)
def _schema(op_type: str, opset: int) -> Any:
    try:
        return onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
