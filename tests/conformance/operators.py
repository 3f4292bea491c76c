"""How every operator is computed, for every dtype of its schema, found out by lowering onnx's own node cases;
and docs/operators.md, which shows it.

A case is lowered twice: with all inputs given while running, and with all but the first constant, as weights,
shapes and axes are in files. It counts as native where either form leaves nothing to the host. Cases are also
lowered with the dtype of an input, and of whatever the schema says has the same, exchanged for the others
that the schema allows. Nothing is compiled or run.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ingot.codegen.machine import host
from ingot.compiler.index import index_graph
from ingot.compiler.kinds import UNKNOWN, kinds_of
from ingot.errors import IngotError, ShapeError, UnsupportedOperatorError
from ingot.ops.registry import Facts, Op, find, operators
from ingot.passes.opset import normalise
from tests.ops.onnx_cases import plain

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operators.md"

#: What the host is for: strings, images, sequences and optionals, random numbers, training; and the operators
#: whose bodies are graphs with plans of their own.
WITH_BODIES = ("If", "Loop", "Scan", "SequenceMap")


@dataclass
class Row:
    """One operator: for each dtype, how many cases there are and how many are native; its own cases apart."""

    domain: str
    name: str
    versions: list[int]
    deprecated: bool
    own: dict[str, list[bool]] = field(default_factory=dict)
    varied: dict[str, list[bool]] = field(default_factory=dict)

    @property
    def is_native(self) -> bool:
        """Whether there are generated kernels for every numeric and boolean dtype that the schema allows."""
        numeric = [dtype for dtype in self.words if dtype not in ("string", "–")]
        return bool(numeric) and all(self.words[dtype] != "host" for dtype in numeric)

    @property
    def words(self) -> dict[str, str]:
        """For each dtype whether all ("native"), some ("partly") or no cases ("host") are native."""
        words: dict[str, str] = {}
        for dtype in sorted({*self.own, *self.varied}):
            words[dtype] = _word([*self.own.get(dtype, []), *self.varied.get(dtype, [])])
        return words

    def dtypes(self, word: str) -> list[str]:
        """The dtypes of that word."""
        return [dtype for dtype, own in self.words.items() if own == word]


def _word(natives: list[bool]) -> str:
    return "native" if all(natives) else "partly" if any(natives) else "host"


@cache
def survey() -> dict[tuple[str, str], Row]:
    """A row for every operator that has a schema in onnx, or a class in Ingot."""
    rows: dict[tuple[str, str], Row] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        row = rows.setdefault((schema.domain, schema.name), Row(schema.domain, schema.name, [], False))
        row.versions = sorted({*row.versions, schema.since_version})
        if schema.since_version == row.versions[-1]:
            row.deprecated = schema.deprecated
    for op in operators():
        # Those that only a session's own rules make are no part of any file.
        if op.domain not in ("ingot", ""):
            rows.setdefault((op.domain, op.name), Row(op.domain, op.name, [op.since], False))
    seen: set[Any] = set()
    for model, inputs in _cases():
        node = model.graph.node[0]
        row = rows[node.domain, node.op_type]
        dtype, native = _dtype(inputs), is_native(model, inputs)
        row.own.setdefault(dtype, []).append(native)
        if (form := _form(model, inputs)) not in seen:
            seen.add(form)
            for other, changed, arrays in _in_other_dtypes(model, inputs):
                if _means_something(changed, arrays):
                    row.varied.setdefault(other, []).append(is_native(changed, arrays))
    return dict(sorted(rows.items()))


def _cases() -> Iterator[tuple[onnx.ModelProto, list[Any]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        for case in load_model_tests(kind="node"):
            if len(case.model.graph.node) == 1:
                yield case.model, [plain(value) for value in case.data_sets[0][0]]


def _form(model: onnx.ModelProto, inputs: list[Any]) -> Any:
    """What may decide between kernels, sizes and numbers aside: of cases that share it, one is lowered in
    other dtypes.
    """
    node = model.graph.node[0]
    version = next(o.version for o in model.opset_import if o.domain == node.domain)
    attributes = tuple(sorted((a.name, a.s) for a in node.attribute))
    kinds = tuple((x.dtype.name, x.ndim) if isinstance(x, np.ndarray) else None for x in inputs)
    present = tuple(map(bool, node.input)), tuple(map(bool, node.output))
    return node.domain, node.op_type, version, attributes, kinds, present


def is_native(proto: onnx.ModelProto, inputs: list[Any]) -> bool:
    """Whether one of a case's two forms leaves nothing to the host."""
    return any(_lowers(proto, inputs, constant) for constant in (True, False))


def _means_something(proto: onnx.ModelProto, inputs: list[Any]) -> bool:
    """Whether the operator takes these inputs: an attribute may want another width."""
    model = ir.from_proto(proto)
    facts = {
        value: Facts(array.dtype, array.shape, array)
        for value, array in zip(model.graph.inputs, inputs, strict=False)
        if isinstance(array, np.ndarray)
    }
    try:
        normalise(model)
        node = model.graph[0]
        find(node.domain, node.op_type).infer(node, [v and facts.get(v) for v in node.inputs])
    except ShapeError:
        return False
    except IngotError:
        return True  # refused, or several nodes now: what lowering says of it counts
    return True


def _lowers(proto: onnx.ModelProto, inputs: list[Any], constant: bool) -> bool:
    model = ir.from_proto(proto)
    graph, given = model.graph, dict[ir.Value, Facts]()
    for position, (value, array) in enumerate(list(zip(graph.inputs, inputs, strict=False))):
        is_array = isinstance(array, np.ndarray)
        if constant and position and is_array and array.dtype != object:
            value.const_value = ir.tensor(array, name=value.name)
            graph.inputs.remove(value)
            graph.register_initializer(value)
        else:
            given[value] = Facts(array.dtype, array.shape) if is_array else Facts(np.dtype(object), ())
    try:
        normalise(model)
        found = kinds_of(index_graph(graph), given, host())
    except IngotError:
        return False
    return not {kind for _, kind in found} & {"host", UNKNOWN}


def _dtype(inputs: list[Any]) -> str:
    array = next((value for value in inputs if isinstance(value, np.ndarray)), None)
    return "–" if array is None else "string" if array.dtype == object else array.dtype.name


def _in_other_dtypes(
    proto: onnx.ModelProto, inputs: list[Any]
) -> Iterator[tuple[str, onnx.ModelProto, list[Any]]]:
    """The case with the dtype of an input exchanged, there and wherever the schema says the same; what it is
    called: the dtype alone for the first input, for the others with the input's name.
    """
    node = proto.graph.node[0]
    version = next(o.version for o in proto.opset_import if o.domain == node.domain)
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    formal = {v.name: _formal(schema.inputs, i) for i, v in _named(node.input)}
    results = {v: _formal(schema.outputs, i).type_str for i, v in _named_outputs(node)}
    seen: set[str] = set()
    for value, array in zip(proto.graph.input, inputs, strict=False):
        parameter = formal.get(value.name)
        if parameter is None or parameter.type_str in seen:
            continue
        if not isinstance(array, np.ndarray) or array.dtype == object:
            continue
        suffix = f" {parameter.name}" if seen else ""
        seen.add(parameter.type_str)
        kinds = {name: formal[name].type_str for name in formal}
        for element in _allowed(schema, parameter.type_str):
            if element.numpy() != array.dtype:
                changed = _exchanged(proto, inputs, kinds, results, parameter.type_str, element)
                yield element.numpy().name + suffix, *changed


def _allowed(schema: Any, variable: str) -> Iterator[ir.DataType]:
    """The element types that a type variable of the schema may be."""
    allowed = next((c.allowed_type_strs for c in schema.type_constraints if c.type_param_str == variable), [])
    for text in allowed:
        element = _ELEMENTS.get(text.removeprefix("tensor(").removesuffix(")"))
        if element is not None:
            yield element


def _exchanged(
    proto: onnx.ModelProto,
    inputs: list[Any],
    kinds: dict[str, str],
    results: dict[str, str],
    variable: str,
    element: ir.DataType,
) -> tuple[onnx.ModelProto, list[Any]]:
    changed, arrays = copy.deepcopy(proto), list(inputs)
    for position, info in enumerate(changed.graph.input):
        array = inputs[position]
        if kinds.get(info.name) == variable and isinstance(array, np.ndarray):
            info.type.tensor_type.elem_type = element.value
            arrays[position] = _converted(array, element.numpy())
    for info in changed.graph.output:
        if results.get(info.name) == variable:
            info.type.tensor_type.elem_type = element.value
    return changed, arrays


def _converted(array: Any, dtype: Any) -> Any:
    """Between two narrow floats there is no way but a wide one."""
    narrow = array.dtype.itemsize == dtype.itemsize == 1
    return (array.astype(np.float32) if narrow else array).astype(dtype)


@dataclass(frozen=True)
class _Name:
    name: str


def _named(names: Any) -> list[tuple[int, _Name]]:
    return [(i, _Name(name)) for i, name in enumerate(names) if name]


def _named_outputs(node: onnx.NodeProto) -> list[tuple[int, str]]:
    return [(i, name) for i, name in enumerate(node.output) if name]


def _formal(parameters: Any, position: int) -> Any:
    """The schema's parameter at a position; the last may stand for many."""
    return parameters[min(position, len(parameters) - 1)]


_ELEMENTS = {
    ("float" if t.name == "FLOAT" else "double" if t.name == "DOUBLE" else t.name.lower()): t
    for t in ir.DataType
    if t.name not in ("UNDEFINED", "STRING", "COMPLEX64", "COMPLEX128")
}


def native_count() -> int:
    """Operators of the main domain with kernels for all their numeric and boolean dtypes."""
    return sum(row.is_native for (domain, _), row in survey().items() if domain == "")


# ---- the page --------------------------------------------------------------------------------------------


def table() -> list[str]:
    """The page's tables, a line each."""
    lines: list[str] = []
    domains = dict.fromkeys(domain for domain, _ in survey())
    for domain in domains:
        rows = [row for row in survey().values() if row.domain == domain]
        lines += ["", f"### {domain or 'ai.onnx'}", ""]
        lines += ["| operator | opsets | native | native in part | host |", "| --- | --- | --- | --- | --- |"]
        lines += [_line(row) for row in rows]
    return lines


def _line(row: Row) -> str:
    versions = ", ".join(map(str, row.versions)) + (" (deprecated)" if row.deprecated else "")
    if row.name in WITH_BODIES and row.domain == "":
        return f"| {row.name} | {versions} | its bodies, whatever they hold | | the turns |"
    usual = [dtype for dtype in row.dtypes("native") if " " not in dtype]  # of the first input
    cells = [_shown(usual), *(_shown(row.dtypes(word)) for word in ("partly", "host"))]
    if not row.own:
        cells[2] = _without_cases(row)
    return f"| {row.name} | {versions} | {' | '.join(cells)} |"


GROUPS = {
    "floats": ["float32", "float64", "float16", "bfloat16"],
    "integers": [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)],
    "narrow types": [
        *("int2", "int4", "uint2", "uint4", "float4_e2m1fn"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    ],
}


def _shown(dtypes: list[str]) -> str:
    """Dtypes in words; groups that are there as a whole by their names."""
    left, words = list(dtypes), list[str]()
    for name, group in GROUPS.items():
        if set(group) <= set(left):
            words.append(name)
            left = [dtype for dtype in left if dtype not in group]
    return ", ".join([*words, *left])


def _without_cases(row: Row) -> str:
    if (row.domain, row.name) == ("ai.onnx.preview.training", "Gradient"):
        return "becomes nodes of other operators"
    try:
        op = find(row.domain, row.name)
    except UnsupportedOperatorError:
        return "refused"
    return "evaluated by NumPy" if type(op).lower is Op.lower else "has kernels; onnx has no case"
