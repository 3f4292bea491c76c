"""What the user says an operator, an autograd function or a module becomes. Needs no PyTorch to be told."""

# Targets are whatever PyTorch has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
import difflib
import inspect
import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from ingot.capture import schemas
from ingot.capture.parameters import Parameters, of_autograd, of_function
from ingot.capture.signature import is_tensor, leaves, rebuild
from ingot.capture.where import quoted_line
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


@dataclass(frozen=True)
class Translation:
    """What a target becomes: a node of another domain, a call of an ONNX function, nodes that a Python
    function writes, or other torch calls.
    """

    target: Any
    to: Any  # "domain::Name", an `ir.Function`, or a Python function
    like: Callable[..., Any] | None = None

    @property
    def is_node(self) -> bool:
        """Whether one node stands for the target."""
        return isinstance(self.to, (str, ir.Function))

    @property
    def writes(self) -> bool:
        """Whether `to` writes nodes itself: its first parameter is called `op`."""
        return (
            not isinstance(self.to, (str, ir.Function))
            and next(iter(inspect.signature(self.to).parameters), "") == "op"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function that it is.

        Raises:
            ExportError: its parameters are not those of what it stands for.
        """
        try:
            inspect.signature(self.to).bind(*args, **kwargs)
        except TypeError as error:
            name = getattr(self.to, "__name__", "the function")
            raise ExportError(
                f"{quoted_line()}\nThe translation of {self.target!r}, {name}{inspect.signature(self.to)}, "
                f"cannot be called as what it stands for is here: {error}. Give it the same parameters"
                + (", after op." if self.writes else ".")
            ) from None
        if not self.writes:
            return self.to(*args, **kwargs)
        try:
            return self.to(*args, **kwargs)
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
            raise ExportError(
                f"{quoted_line()}\nThe translation of {self.target!r} fails: {type(error).__name__}: "
                f"{error}. It gets the graph's values in the place of tensors, and writes nodes with op."
            ) from error


_OPERATORS: dict[str, Translation] = {}  # by "library::name"
_CLASSES: dict[Any, Translation] = {}  # autograd functions, classes of modules, modules


def translate(target: Any, to: Any = None, *, like: Callable[..., Any] | None = None) -> Any:
    """Say what something of PyTorch's becomes in an export, from now on. Also a decorator, without `to`.

    Args:
        target: an operator of `torch.library` (`"library::name"`, `torch.ops.library.name`, or what
            `torch.library.custom_op` gave), a `torch.autograd.Function`, a class of modules, or one module.
        to: `"domain::Name"`: one node of a domain of your own; tensors are its inputs, in the order of the
            target's parameters, other arguments its attributes. A tensor that an operator may do without
            leaves its place empty. An ONNX function (`onnx_ir.Function`, `onnx.FunctionProto`, or one of
            onnxscript): one call of it, in the same way, and the model contains the function. A Python
            function whose first parameter is called `op`: it gets the graph's values in the place of tensors
            and writes nodes, `op.Add(x, 1)`, `op.Name(x, domain="d", outputs=2, alpha=0.5)`,
            `op(onnx_function, x)`; for a module the module comes after `op`. Any other Python function: it is
            called in the target's place, and its own torch calls are recorded. Nodes that stand for an
            operator that writes into its arguments have their new values behind its results.
        like: a function of the same arguments, without the module, that gives tensors of the result's dtype
            and shape, where running the target itself without data cannot.

    Raises:
        ExportError: the target is none of these, or `to` is none of these.
    """
    if to is None:

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            translate(target, function, like=like)
            return function

        return decorate
    function = _onnx_function(to)
    if isinstance(to, str):
        _require_name(to)
    elif function is None and not callable(to):
        raise ExportError(f"to is {to!r}; wanted 'domain::Name' or a function.")
    made = Translation(target, to if function is None else function, like)
    name = _operator_name(target)
    if name is not None:
        _OPERATORS[name] = made
    elif isinstance(target, type) or hasattr(target, "named_modules"):
        _CLASSES[target] = made
    else:
        raise ExportError(
            f"{target!r} cannot be translated; wanted an operator of torch.library, a "
            "torch.autograd.Function, a class of modules, or a module."
        )
    return made


def _require_name(to: str) -> None:
    """Refuse what is no operator's name with its domain, or none that ONNX has."""
    if not re.fullmatch(r"[\w.-]+::[A-Za-z_]\w*", to):
        raise ExportError(f"to is {to!r}; wanted 'domain::Name' or a function.")
    domain, name = to.split("::")
    if domain in schemas.STANDARD:
        schemas.require_operator(name)


def _onnx_function(to: Any) -> ir.Function | None:
    """An ONNX function in any of its forms."""
    if isinstance(to, ir.Function):
        return to
    to_proto = getattr(to, "to_function_proto", None)
    proto = to_proto() if callable(to_proto) else to
    return ir.from_proto(proto) if isinstance(proto, onnx.FunctionProto) else None


def forget(target: Any) -> None:
    """Take a translation back."""
    name = _operator_name(target)
    (_OPERATORS if name is not None else _CLASSES).pop(target if name is None else name, None)


def _operator_name(target: Any) -> str | None:
    if isinstance(target, str):
        return target if "::" in target else None
    for attribute in ("_qualified_op_name", "_qualname"):
        name = getattr(target, attribute, None)
        if isinstance(name, str) and "::" in name:
            return name
    schema = getattr(target, "_schema", None)
    return str(schema.name) if schema is not None else None


def of_operator(func: Any) -> Translation | None:
    """What an operator overload becomes, if somebody said so."""
    return _OPERATORS.get(func._schema.name) if _OPERATORS else None


def require_known_operators() -> None:
    """Raises ExportError for a translation of an operator that PyTorch does not have."""
    import torch

    for name in _OPERATORS:
        library, _, operator = name.partition("::")
        if hasattr(getattr(torch.ops, library), operator):
            continue
        known = {full.partition(".")[0] for full in torch._C._dispatch_get_all_op_names()}
        near = difflib.get_close_matches(name, sorted(known), 3)
        raise ExportError(
            f"ingot.translate was told of {name!r}, and PyTorch has no such operator"
            + (f"; it has {', '.join(map(repr, near))}" if near else "")
            + ". Correct the name, or import the library that registers it before the export."
        )


class Writer:
    """Writes nodes under the names of ONNX's operators: `op.Add(x, y)`, `op.Split(x, outputs=2, axis=0)`.

    A number has the dtype of the tensors it stands beside; a list or array becomes a constant of its own.
    """

    def __init__(self, recorder: Recorder, dtype: ir.DataType | None) -> None:
        self._recorder = recorder
        self._dtype = dtype  # of the first tensor that the target was given

    def __call__(self, function: Any, *inputs: Any, **attributes: Any) -> Any:
        """One call of an ONNX function, which the model contains from then on."""
        made = _onnx_function(function)
        if made is None:
            raise ExportError(f"op was called with {function!r}; wanted an ONNX function.")
        _add_function(self._recorder, made)
        count = len(made.outputs)
        return getattr(self, made.name)(*inputs, domain=made.domain, outputs=count, **attributes)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def write(*inputs: Any, domain: str = "", outputs: Any = 1, **attributes: Any) -> Any:
            g = self._recorder
            if not isinstance(outputs, int) or outputs < 1:
                raise ExportError(f"outputs of op.{name} is {outputs!r}; wanted their number, 1 or more.")
            known = (x.dtype for x in inputs if isinstance(x, ir.Value) and x.dtype is not None)
            beside = next(known, self._dtype)
            values = [self._value(x, beside) for x in inputs]
            if domain in schemas.STANDARD:
                attributes = schemas.fitting(name, g.opset, len(values), outputs, attributes)
            else:
                _require_name(f"{domain}::{name}")
            made = g.ops(name, *values, n=outputs, domain=domain)
            node = made[0].producer()
            assert node is not None, "ops() makes a node"
            for key, value in attributes.items():  # any name may be one, that of a parameter of `ops` too
                node.attributes[key] = schemas.attribute(key, value)
            return made[0] if outputs == 1 else tuple(made)

        return write

    def _value(self, x: Any, beside: ir.DataType | None) -> ir.Value | None:
        if x is None or isinstance(x, ir.Value):
            return x
        if isinstance(x, (bool, int, float)) and beside is not None:
            return self._recorder.graph.const(x, beside)
        array = np.asarray(x)
        if array.dtype == object:
            raise ExportError(
                f"{quoted_line()}\nA translation gave op {x!r} as an input; wanted values of the graph, "
                "numbers and arrays. A size comes from op.Shape."
            )
        if not isinstance(x, np.ndarray) and array.dtype == np.float64:
            array = array.astype(np.float32)
        return self._recorder.graph.const(array, ir.DataType.from_numpy(array.dtype))


def emit(g: Recorder, t: Translation, parameters: Parameters, out: Any, args: Any, kwargs: Any) -> Any:
    """Write the nodes of a translation, and return the values of its outputs."""
    if isinstance(t.to, str):
        return _node(g, t.to, parameters, out, args, kwargs)
    if isinstance(t.to, ir.Function):
        _add_function(g, t.to)
        return _node(g, f"{t.to.domain}::{t.to.name}", parameters, out, args, kwargs, t.to)
    values = rebuild((tuple(args), dict(kwargs)), lambda v: g.val(v) if is_tensor(v) else v)
    typed = (leaf.value.dtype for leaf in leaves(values) if isinstance(leaf.value, ir.Value))
    made = t(Writer(g, next(typed, None)), *values[0], **values[1])
    found, wanted = _flat(made), _count(out)
    if wanted != len(found) or not all(isinstance(v, ir.Value) for v in found):
        raise ExportError(
            f"the translation of {t.target!r} returned {made!r}; wanted {wanted} value(s) of the graph, one "
            "for each tensor that it stands for."
        )
    return found if isinstance(out, (list, tuple)) else found[0]


def without_contents(t: Translation, target: Callable[..., Any]) -> Callable[..., Any]:
    """What gives tensors like the results of a translation's target."""

    def meta(*args: Any, **kwargs: Any) -> Any:
        try:
            return (t.like or target)(*args, **kwargs)
        except (RuntimeError, TypeError, ValueError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise ExportError(
                f"{quoted_line()}\nWhich dtypes and shapes {t.target!r} gives is not known: "
                f"{'its `like`' if t.like else 'it'} does not run on tensors without contents ({said}). Give "
                "ingot.translate(…, like=f), a function of the same arguments that returns tensors of those "
                "dtypes and shapes; an operator may have one of torch.library.register_fake instead."
            ) from error

    return meta


def _add_function(g: Recorder, function: ir.Function) -> None:
    """The model contains the function: one of its name."""
    own = function.opset_imports.get("", g.opset)
    for node in function:
        if node.domain == "" and _since(node.op_type, own) != _since(node.op_type, g.opset):
            raise ExportError(
                f"the ONNX function {function.domain}::{function.name} has {node.op_type} of opset {own}, "
                f"and the model opset {g.opset}, where it is another operator. Write the function for opset "
                f"{g.opset}, or export with opset_version={own}."
            )
    known = g.functions.setdefault(function.identifier(), function)
    if known is not function and ir.to_proto(known) != ir.to_proto(function):
        raise ExportError(
            f"two ONNX functions are called {function.domain}::{function.name}, and they differ. Give one of "
            "them another name."
        )


def _since(op_type: str, opset: int) -> int:
    """The opset that gave an operator the meaning it has at this one; 0 where there is none."""
    if not onnx.defs.has(op_type, opset, ""):
        return 0
    return onnx.defs.get_schema(op_type, opset, "").since_version


def _require_fitting(function: ir.Function, inputs: int, attributes: Iterable[str], outputs: int) -> None:
    name = f"the ONNX function {function.domain}::{function.name}"
    unknown = [a for a in attributes if a not in function.attributes]
    if unknown:
        raise ExportError(
            f"{name} has no attribute {unknown[0]!r}, an argument of what it stands for. Declare it, "
            "or give a translation that writes its nodes: a function whose first parameter is op."
        )
    if inputs > len(function.inputs) or outputs != len(function.outputs):
        raise ExportError(
            f"{name} has {len(function.inputs)} input(s) and {len(function.outputs)} output(s); what it "
            f"stands for is called with {inputs} tensor(s) and gives {outputs}."
        )


def _node(
    g: Recorder,
    to: str,
    parameters: Parameters,
    out: Any,
    args: Any,
    kwargs: Any,
    function: ir.Function | None = None,
) -> Any:
    domain, name = to.split("::")
    given = parameters.by_name(args, kwargs)
    tensors = _tensors(to, given, parameters.optional)
    attributes = {
        key: value
        for key, value in given.items()
        if value is not None and not any(is_tensor(leaf.value) for leaf in leaves(value))
    }
    for key, value in attributes.items():
        if not all(isinstance(leaf.value, (bool, int, float, str)) for leaf in leaves(value)):
            raise ExportError(
                f"the argument {key!r} of {to} is {value!r}, which no attribute of a node can be. Give it a "
                "translation that writes its nodes: a function whose first parameter is op."
            )
    count = _count(out)
    if function is not None:
        _require_fitting(function, len(tensors), attributes, count)
    if domain in schemas.STANDARD:
        attributes = schemas.fitting(name, g.opset, len(tensors), count, attributes)
    made = g.ops(name, *(None if t is None else g.val(t) for t in tensors), n=count, domain=domain)
    node = made[0].producer()
    assert node is not None, "ops() makes a node"
    for key, value in attributes.items():  # any name may be one, that of a parameter of `ops` too
        node.attributes[key] = schemas.attribute(key, value)
    return made if isinstance(out, (list, tuple)) else made[0]


def _tensors(to: str, given: Mapping[str, Any], optional: Collection[str]) -> list[Any]:
    """The tensors among the arguments in order, None where an optional one before another is missing."""
    found: list[Any] = []
    for key, value in given.items():
        if value is None:
            found += [None] * (key in optional)
            continue
        parts = [leaf.value for leaf in leaves(value)]
        own = [v for v in parts if is_tensor(v)]
        if own and len(own) != len(parts):
            raise ExportError(
                f"{quoted_line()}\nThe argument {key!r} of {to} has tensors in it and other values, and a "
                "node of the graph takes tensors as inputs, numbers and words as attributes. Pass them by "
                "themselves, or give a translation that writes its nodes: a function whose first parameter "
                "is op."
            )
        found += own
    while found and found[-1] is None:
        found.pop()
    return found


def _count(out: Any) -> int:
    return len(out) if isinstance(out, (list, tuple)) else 1


def _flat(x: Any) -> list[Any]:
    if isinstance(x, dict):
        return _flat(list(x.values()))
    return [v for part in x for v in _flat(part)] if isinstance(x, (list, tuple)) else [x]


@contextlib.contextmanager
def translated(g: Recorder, modules: Iterator[Any]) -> Generator[None]:
    """Put translations in the place of autograd functions' `apply` and modules' `forward` for a while."""
    require_known_operators()
    saved: list[tuple[Any, Any]] = []
    for target, t in _CLASSES.items():
        if isinstance(target, type) and hasattr(target, "apply") and not hasattr(target, "named_modules"):
            saved.append((target, target.__dict__.get("apply")))
            target.apply = staticmethod(_standing_in(g, t, target.apply, of_autograd(target), None))  # pyright: ignore[reportAttributeAccessIssue]
    changed: list[tuple[Any, Any]] = []
    for m in modules if _CLASSES else ():
        t = _CLASSES.get(m) or next((_CLASSES[c] for c in type(m).__mro__ if c in _CLASSES), None)
        if t is not None:
            changed.append((m, m.__dict__.get("forward")))
            m.__dict__["forward"] = _standing_in(g, t, m.forward, of_function(m.forward), m)
    try:
        yield
    finally:
        for target, before in saved:
            if before is None:
                del target.apply
            else:
                target.apply = before
        for m, before in changed:
            if before is None:
                del m.__dict__["forward"]
            else:
                m.__dict__["forward"] = before


def _standing_in(
    g: Recorder, t: Translation, original: Callable[..., Any], parameters: Parameters, module: Any
) -> Callable[..., Any]:
    from ingot.capture import gradients  # which needs torch

    def call(*args: Any, **kwargs: Any) -> Any:
        if g.paused:
            return original(*args, **kwargs)
        own = (module,) if module is not None else ()
        if not t.is_node and not t.writes:
            return t(*own, *args, **kwargs)

        def row(_: Recorder, out: Any, *a: Any, **k: Any) -> Any:
            if t.is_node:
                return emit(g, t, parameters, out, a, k)
            return emit(g, t, parameters, out, (*own, *a), k)

        structure: Any = None

        def meta(*a: Any, **k: Any) -> list[Any]:
            nonlocal structure
            structure = without_contents(t, original)(*a, **k)
            return [leaf.value for leaf in leaves(structure) if is_tensor(leaf.value)]

        given = [leaf.value for leaf in leaves((args, kwargs))]
        given += [] if module is None else module.parameters()
        made = (gradients.left(lambda v=v: v, given) for v in g.whole(row, meta, *args, **kwargs))
        return rebuild(structure, lambda v: next(made) if is_tensor(v) else v)

    return call
