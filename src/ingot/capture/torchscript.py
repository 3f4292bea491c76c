"""TorchScript: the graph of a scripted or traced module, run as a module of Python's would be.

The graph's operators are ATen's, so a recording sees the same calls; its numbers, lists, dicts and strings
are Python's own. Parameters, buffers and attributes are those of the scripted module.
"""

# TorchScript's graphs are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false, reportUnknownParameterType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import enum
import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CellType
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture import where
from ingot.capture.aten.quantised_tensor import Quantised
from ingot.capture.cells import Sharing
from ingot.capture.checks import as_known
from ingot.capture.choice import Maybe
from ingot.capture.intercept import is_contiguous
from ingot.capture.lists import Rows, TracedList, cut
from ingot.capture.request import recorder, recording
from ingot.capture.runs import Many
from ingot.capture.script_nodes import DTYPES, GIVE_LISTS, SPECIAL, dtype_of_number, is_object
from ingot.capture.script_values import CONTAINERS, FOREVER, NUMBERS, SCALARS, SYMBOLIC, as_float
from ingot.capture.stage import RUNTIME
from ingot.errors import ExportError

#: Operators that look at contents: beside those of recurrent layers, rows know these as torch._VF has them.
_OF_PACKED = ("_pack_padded_sequence", "_pad_packed_sequence")
_PLAIN = {int: "int64", float: "float32", bool: "bool"}
_KINDS = {"int": int, "float": float, "bool": bool, "str": str, "Tensor": torch.Tensor}


class Source:
    """Keeps a scripted module out of sight of whoever looks at what the one that stands for it holds."""

    def __init__(self, script: Any) -> None:
        self.script = script


class Scripted(torch.nn.Module):
    """A scripted module's parameters, buffers, attributes and submodules."""

    def script(self, *args: Any) -> Any:
        """Run the graph."""
        graph: Graph = self.__dict__["_script"]
        return graph.run([self, *args] if graph.has_self else list(args))

    def line_of(self, name: str) -> str | None:
        """The line of the script that sets an attribute, or else the first that reads it."""
        graphs = [g for g in (self.__dict__.get("_script"), *self.__dict__.get("_methods", {}).values()) if g]
        for kind in ("prim::SetAttr", "prim::GetAttr"):
            for graph in graphs:
                for node in _nodes(graph.graph):
                    if node.kind() != kind or node.s("name") != name:
                        continue
                    with where.standing_at(_range_of(node)):
                        if (line := where.quoted_line()) != where.UNKNOWN:
                            return line
        return None

    def prepare(self, name: str) -> None:
        """Have what a method reads, if the script has one of this name."""
        if self.__dict__["_source"].script._c._has_method(name):
            self.method(name)

    def method(self, name: str) -> Graph:
        """The graph of one of the script's methods."""
        graphs = self.__dict__.setdefault("_methods", {})
        if name not in graphs:
            source = self.__dict__["_source"].script
            graphs[name] = Graph(source._c._get_method(name).inlined_graph)
            _copy_attributes(source, self, graphs[name].graph)
        return graphs[name]

    def __getattr__(self, name: str) -> Any:
        """Also what Python that the script calls finds in the scripted module."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            source = self.__dict__.get("_source")
            if source is None or name.startswith("_"):
                raise
            return getattr(source.script, name)


def as_module(script: Any) -> Scripted:
    """A scripted module (or function) as a module that a recording can run.

    Raises:
        ExportError: it has no forward.
    """
    if isinstance(script, torch.jit.ScriptFunction):
        graph, schema, root = script.inlined_graph, script.schema, Scripted()
    else:
        forward = getattr(script, "forward", None)
        if forward is None or not hasattr(forward, "schema"):
            raise ExportError(f"the scripted module {script.original_name} has no forward to export.")
        graph, schema, root = script.inlined_graph, forward.schema, _copied(script)
    kind = type(getattr(script, "original_name", "Script"), (Scripted,), {"forward": _forward(schema)})
    root.__class__ = kind
    root.__dict__["_script"] = made = Graph(graph)
    if made.has_self:
        _copy_attributes(script, root, graph)
    return root


def _forward(schema: Any) -> Callable[..., Any]:
    """A forward with the script's own signature, its defaults among it."""
    signature = _signature(schema)

    def forward(self: Scripted, *args: Any, **kwargs: Any) -> Any:
        return self.script(*bound(schema, args, kwargs))

    mine = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    whole = inspect.Signature([mine, *signature.parameters.values()])
    forward.__signature__ = whole  # pyright: ignore[reportFunctionMemberAccess]
    return forward


def _signature(schema: Any) -> inspect.Signature:
    parameter = inspect.Parameter
    found: list[inspect.Parameter] = []
    for at, a in enumerate(schema.arguments):
        if at == 0 and a.type.kind() == "ClassType":  # self, whatever the class calls it
            continue
        default = a.default_value if a.has_default_value() else parameter.empty
        annotation = _KINDS.get(str(a.type), parameter.empty)
        found.append(
            parameter(a.name, parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
        )
    return inspect.Signature(found)


def bound(schema: Any, args: Any, kwargs: Any) -> list[Any]:
    """The values of a script's parameters, but for self, in a call: lists and dicts are the script's own.

    Raises:
        ExportError: there is a tensor where the script wants a Python number.
        TypeError: the call does not fit.
    """
    signature = _signature(schema)
    given = signature.bind(*args, **kwargs)
    given.apply_defaults()
    for name, value in given.arguments.items():
        kind = signature.parameters[name].annotation
        if kind in _PLAIN and isinstance(value, torch.Tensor):
            raise ExportError(
                f"argument {name!r} of the scripted module is a tensor; its script wants "
                f"{kind.__name__}. Pass a Python {kind.__name__}; or, where it is to be "
                f"an input of the model, ingot.Input({_PLAIN[kind]!r}, [])."
            )
    return [_own(value) for value in given.arguments.values()]


def _own(value: Any) -> Any:
    """An argument as a script gets it."""
    if isinstance(value, TracedList):
        return TracedList(value.parts())
    if isinstance(value, list):
        return TracedList(map(_own, value))
    if isinstance(value, tuple) and type(value) is not torch.Size:
        parts = map(_own, value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return {k: _own(v) for k, v in value.items()} if type(value) is dict else value


def standing_for(script: Any) -> Scripted:
    """A module that holds what a scripted one does, for methods to be run on."""
    made = _copied(script)
    for name in script._c._method_names():
        made.method(name)
    return made


def _copied(script: Any) -> Scripted:
    """The tree of modules with the same tensors."""
    made = Scripted()
    made.training = getattr(script, "training", False)  # a frozen module has no such attribute
    for name, value in script.named_parameters(recurse=False):
        made._parameters[name] = _dense(value)  # a plain tensor where the script comes from a file
    for name, value in script.named_buffers(recurse=False):
        made.register_buffer(name, _dense(value))
    for name, child in script.named_children():
        made.add_module(name, _copied(child))
    made.__dict__["_source"] = Source(script)
    return made


def _dense(tensor: Any) -> Any:
    """A tensor of oneDNN's own layout in the plain one."""
    return tensor.to_dense() if tensor.layout == torch._mkldnn else tensor


def _copy_attributes(script: Any, root: Scripted, graph: Any) -> None:
    """Whatever else the graph reads from a module or writes to it: numbers, lists, other tensors."""
    owners: dict[int, tuple[Any, Scripted]] = {next(iter(graph.inputs())).unique(): (script, root)}
    for node in _nodes(graph):
        if node.kind() not in ("prim::GetAttr", "prim::SetAttr", "prim::CallMethod"):
            continue
        owner = owners.get(next(iter(node.inputs())).unique())
        if node.kind() == "prim::CallMethod":  # of an interface: which module it is, only the run says
            for module in root.modules() if owner is None else (owner[1],):
                if isinstance(module, Scripted):
                    module.prepare(node.s("name"))
            continue
        if owner is None:
            continue
        name = node.s("name")
        theirs, ours = owner
        value = _held_by(theirs, name)
        if isinstance(value, torch.jit.ScriptModule):
            if node.kind() == "prim::GetAttr":
                owners[node.output().unique()] = value, getattr(ours, name)
        elif name != "training" and not _has(ours, name):
            setattr(ours, name, value)


def _held_by(script: Any, name: str) -> Any:
    """An attribute of a script.

    Raises:
        ExportError: it is of a class that nobody has defined here: the script comes from a file.
    """
    try:
        return getattr(script, name)
    except RuntimeError as error:
        said = str(error).partition("__torch__.")[2].split()
        kind = said[0].rstrip(".") if said else "the script's own"
        raise ExportError(
            f"the scripted module {script.original_name} holds {name!r}, of a class that is not defined here "
            f"({kind}). Import the Python module that defines it before the export."
        ) from error


def _has(module: torch.nn.Module, name: str) -> bool:
    """Whether a module itself holds something of this name."""
    return any(name in held for held in (vars(module), module._parameters, module._buffers, module._modules))


def _range_of(node: Any) -> str:
    """Where a node comes from; one that only reads what others use, where they do."""
    own = node.sourceRange()
    if own or not node.outputsSize():
        return own
    ranges = (use.user.sourceRange() for v in node.outputs() for use in v.uses())
    return next(filter(None, ranges), "")


def script_of(module: Any) -> Any:
    """The scripted module that a module is, or stands for; None where it is none."""
    if isinstance(module, torch.jit.ScriptModule):
        return module
    source = module.__dict__.get("_source") if isinstance(module, Scripted) else None
    return source.script if source is not None else None


def reads(script: Any, name: str) -> bool:
    """Whether a scripted module's own methods read an attribute of this name."""
    graphs = (script._c._get_method(method).graph for method in script._c._method_names())
    return any(
        node.kind() == "prim::GetAttr" and node.s("name") == name
        for graph in graphs
        for node in _nodes(graph)
    )


def sets_attributes(graph: Any) -> bool:
    """Whether a script's graph changes the module that it belongs to."""
    return any(node.kind() == "prim::SetAttr" for node in _nodes(graph))


def _nodes(block: Any) -> Any:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


@dataclass(frozen=True)
class _Argument:
    name: str
    by_keyword: bool
    tensor: bool
    convert: Callable[[Any], Any] | None


@dataclass(frozen=True)
class _Operator:
    """torch's own form of an operator, and what its schema says."""

    name: str
    function: Any
    arguments: list[_Argument]
    takes_tensors: bool
    gives_float: bool


@functools.cache
def _operator(schema: str) -> _Operator:
    parsed = torch._C.parse_schema(schema)
    space, _, name = parsed.name.partition("::")
    packet = getattr(getattr(torch.ops, space), name)
    arguments = [
        _Argument(a.name, a.kwarg_only, "Tensor" in str(a.type), _conversion(str(a.real_type)))
        for a in parsed.arguments
    ]
    return _Operator(
        name,
        getattr(packet, parsed.overload_name or "default"),
        arguments,
        any(a.tensor for a in arguments),
        [str(r.type) for r in parsed.returns] == ["float"],
    )


def _conversion(kind: str) -> Callable[[Any], Any] | None:
    """TorchScript writes dtypes, layouts and memory formats as numbers."""
    if "ScalarType" in kind:
        return lambda x: DTYPES[x] if isinstance(x, int) else x
    if "Layout" in kind or "MemoryFormat" in kind:
        return lambda x: None if isinstance(x, int) else x
    return None


class Graph:
    """Runs a graph: every value is a Python object, a tensor or a symbolic size."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.inputs = list(graph.inputs())
        self.has_self = bool(self.inputs) and self.inputs[0].type().kind() == "ClassType"
        self.constants: dict[int, Any] = {}

    def run(self, arguments: Sequence[Any]) -> Any:
        """The value the graph returns for these arguments."""
        values = {v.unique(): a for v, a in zip(self.inputs, arguments, strict=True)}
        results = self.block(self.graph, values)
        return results[0] if len(results) == 1 else tuple(results)

    def block(self, block: Any, values: dict[int, Any]) -> list[Any]:
        """Run the nodes of a block, and return what it gives."""
        for node in block.nodes():
            kind = node.kind()
            if kind == "prim::Constant":
                self._set(node, values, self._constant(node))
                continue
            with where.standing_at(_range_of(node)):
                made = self.node(node, kind, values)
            self._set(node, values, made)
        return [values[v.unique()] for v in block.outputs()]

    @staticmethod
    def _set(node: Any, values: dict[int, Any], made: Any) -> None:
        outputs = list(node.outputs())
        if len(outputs) == 1 and node.kind() not in GIVE_LISTS:
            values[outputs[0].unique()] = made
        elif outputs:
            for v, one in zip(outputs, made, strict=True):
                values[v.unique()] = one

    def _constant(self, node: Any) -> Any:
        key = node.output().unique()
        if key not in self.constants:
            with _disable_current_modes():
                self.constants[key] = node.output().toIValue()
        return self.constants[key]

    def node(self, node: Any, kind: str, values: dict[int, Any]) -> Any:
        """What one node gives."""
        inputs = [values[v.unique()] for v in node.inputs()]
        if kind == "prim::If":
            return self.choose(node, inputs[0], values)
        if kind == "prim::Loop":
            return self.loop(node, inputs, values)
        special = SPECIAL.get(kind)
        if special is not None:
            return special(node, *inputs)
        if kind == "prim::CallMethod":
            owner, *rest = inputs
            return owner.method(node.s("name")).run([owner, *rest])
        if kind == "prim::PythonOp":
            return _pythons(node, inputs)
        if kind.startswith("prim::fork"):
            return Graph(node.g("Subgraph")).run(inputs)
        schema = node.schema()
        if schema == "(no schema)" or "..." in schema:
            raise ExportError(
                f"{where.quoted_line()}\nThe scripted module uses {kind}, which Ingot does not read. Export "
                "the Python module it was made from."
            )
        return call(schema, inputs)

    def choose(self, node: Any, condition: Any, values: dict[int, Any]) -> list[Any]:
        """The block for a condition; an If where only the run knows it."""
        blocks = list(node.blocks())
        if not RUNTIME.waits(condition):
            return self.block(blocks[0] if condition else blocks[1], values)
        held = {"held": CellType(_held(values))}
        perhaps = {key: v for key, v in values.items() if isinstance(v, Maybe)}

        def side(block: Any) -> tuple[Any, ...]:
            return tuple(self.block(block, {**values, **{key: as_known(v) for key, v in perhaps.items()}}))

        then, other = (Sharing(functools.partial(side, b), held) for b in blocks)
        return list(RUNTIME.branch(condition, then, other, (), ()))

    def loop(self, node: Any, inputs: list[Any], values: dict[int, Any]) -> list[Any]:
        """The block again and again, while its condition holds, as often as the count says at most; a Loop
        where only the run knows how often.
        """
        count, condition, *carried = inputs
        (block,) = node.blocks()
        places = [v.unique() for v in block.inputs()]
        if not recording():  # what verification compares with
            rounds = itertools.count()
            while condition and (i := next(rounds)) < count:
                condition, *carried = self.block(
                    block, {**values, **dict(zip(places, (i, *carried), strict=True))}
                )
            return carried
        if RUNTIME.waits(condition):
            condition = RUNTIME.truth(condition)
        names = ["the condition", *_names(list(block.inputs())[1:])]
        cells = {n: CellType(value) for n, value in zip(names, (condition, *carried), strict=True)}

        def round_(i: Any) -> None:
            now = [cells[n].cell_contents for n in names[1:]]
            made = self.block(block, {**values, **dict(zip(places, (i, *now), strict=True))})
            for name, value in zip(names, made, strict=True):
                cells[name].cell_contents = value

        shared = cells | {"held": CellType(_held(values))}
        body, go = Sharing(round_, shared), Sharing(lambda: cells[names[0]].cell_contents, shared)
        known = not isinstance(count, SYMBOLIC)
        if known and count >= FOREVER:
            rounds = itertools.count()
            RUNTIME.repeat(go, Sharing(lambda: round_(next(rounds)), shared), names, names, names)
        else:
            items = range(count) if known else Rows(count, lambda i: i)
            RUNTIME.each(items, body, go, names, names, names)
        return [cells[n].cell_contents for n in names[1:]]


def _names(variables: Sequence[Any]) -> list[str]:
    """The names that the script's author gave to variables, made different where they are not."""
    found = [v.debugName().partition(".")[0] for v in variables]
    return [
        n if n.isidentifier() and found.count(n) == 1 else f"{n if n.isidentifier() else 'value'} {i}"
        for i, n in enumerate(found, 1)
    ]


def _held(values: dict[int, Any]) -> list[Any]:
    """What a block can change: lists, dicts, and attributes of modules."""
    found = [v for v in values.values() if isinstance(v, (list, dict, tuple)) or is_object(v)]
    modules = {id(m): m for v in values.values() if isinstance(v, torch.nn.Module) for m in v.modules()}
    return [*found, *map(vars, modules.values())]


def call(schema: str, inputs: list[Any]) -> Any:
    """One operator on these arguments."""
    operator = _operator(schema)
    name, arguments = operator.name, operator.arguments
    first = inputs[0] if inputs else None
    if isinstance(first, (list, dict, tuple, Rows)) and name in CONTAINERS:
        return CONTAINERS[name](*inputs)
    if isinstance(first, (torch.Tensor, Quantised)) and name in _OF_TENSORS:
        return _OF_TENSORS[name](*inputs)
    if name in ("unbind", "split") and isinstance(first, torch.Tensor) and recording():
        parts = _parts(*inputs) if name == "split" else _rows(*inputs)
        if parts is not None:
            return parts
    if isinstance(first, enum.Enum) and name in ("eq", "ne"):
        return (first == inputs[1]) == (name == "eq")
    symbols = any(isinstance(x, SYMBOLIC) for x in inputs)
    as_numbers = symbols or any(
        a.tensor and isinstance(x, (int, float)) for a, x in zip(arguments, inputs, strict=True)
    )
    if as_numbers and name in NUMBERS and all(_is_number(x) for x in inputs):
        made = NUMBERS[name](*(_number(x) for x in inputs))
        return as_float(made) if operator.gives_float else made
    if symbols and name in SCALARS and not operator.takes_tensors:
        return SCALARS[name](*inputs)
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for argument, value in zip(arguments, inputs, strict=True):
        given = argument.convert(value) if argument.convert is not None else value
        if argument.tensor and isinstance(given, (*SYMBOLIC, int, float)):
            number: Any = given
            given = torch.scalar_tensor(number, dtype=dtype_of_number(number))
        if argument.by_keyword:
            named[argument.name] = given
        else:
            positional.append(given)
    named = {k: v for k, v in named.items() if v is not None}
    if positional and isinstance(positional[0], TracedList) and not positional[0].known:
        return RUNTIME.call(getattr(torch, name), *positional, **named)
    if any(isinstance(x, SYMBOLIC) for x in positional):
        python = _of_python(name, positional[0])
        if python is not None:
            rest = {"alpha": positional[2]} if len(positional) > 2 else {}
            return python(*positional[:2], **rest, **named)
    packed = name in _OF_PACKED or operator.function._overloadname == "data"
    function = getattr(torch._VF, name) if packed else operator.function
    if any(isinstance(x, torch.SymBool) for x in positional):
        return RUNTIME.call(function, *positional, **named)
    return function(*positional, **named)


def _of_python(name: str, first: Any) -> Any:
    """An arithmetic operator as Python's, which gives no dtype to the numbers in it: ATen's own would."""
    owner = torch.Tensor if isinstance(first, torch.Tensor) else torch
    return getattr(owner, name, None) if name.rstrip("_") in _ARITHMETIC else None


def _is_contiguous(tensor: Any, *_: Any) -> bool:
    return is_contiguous(recorder(), tensor) if recording() else tensor.is_contiguous()


def _rows(tensor: Any, axis: int = 0) -> TracedList | None:
    """unbind along an axis of which only the run knows the length; None for any other."""
    if not isinstance(tensor.shape[axis], torch.SymInt):
        return None
    rows = TracedList()
    rows.become(Many.of_rows(tensor.movedim(axis, 0), torch.Tensor))
    return rows


def _parts(tensor: Any, size: Any, axis: int = 0) -> Rows | None:
    """split into parts of one size along such an axis."""
    known = type(size) is int and size > 0
    return cut(tensor, size, axis) if known and isinstance(tensor.shape[axis], torch.SymInt) else None


def _pythons(node: Any, inputs: list[Any]) -> Any:
    """A function that the script leaves to Python; of a method, the script has bound it to itself."""
    function = node.pyobj()
    values, constants = iter(inputs), iter(node.scalar_args())
    given = [next(values) if kind == "d" else next(constants) for kind in node.cconv()]
    return getattr(function, "original_fn", function)(*given)


def _is_number(x: Any) -> bool:
    """A number, or a tensor without axes that the graph has as a constant beside numbers."""
    plain = isinstance(x, torch.Tensor) and type(x) is torch.Tensor and x.dim() == 0
    return plain or x is None or isinstance(x, (*SYMBOLIC, int, float, str))


def _number(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        with _disable_current_modes():
            return x.item()
    return x


_ARITHMETIC = frozenset(
    (
        "add", "sub", "mul", "div", "floor_divide", "true_divide", "remainder", "fmod", "pow", "eq", "ne",
        "lt", "le", "gt", "ge",
    )
)  # fmt: skip
# What is asked of a tensor and answered with numbers.
_OF_TENSORS: dict[str, Callable[..., Any]] = {
    "size": lambda x, *d: x.shape[d[0]] if d else TracedList(x.shape),
    "dim": lambda x: x.dim(),
    "len": lambda x: x.shape[0],
    "numel": lambda x: x.numel(),
    "stride": lambda x, *d: x.stride(*d) if d else TracedList(x.stride()),
    "is_floating_point": lambda x: x.is_floating_point(),
    "is_complex": lambda x: x.is_complex(),
    "is_contiguous": _is_contiguous,
    "Int": lambda x: NUMBERS["Int"](x.item()),
    "IntImplicit": lambda x: NUMBERS["Int"](x.item()),
    "Float": lambda x: NUMBERS["Float"](x.item()),
    "FloatImplicit": lambda x: NUMBERS["Float"](x.item()),
    "Bool": lambda x: NUMBERS["Bool"](x.item()),
    "ScalarImplicit": lambda x: x.item(),
    "item": lambda x: x.item(),
}
