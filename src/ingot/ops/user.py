"""`register_op`: operators that a user writes in Python, NumPy in and NumPy out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import onnx
import onnx_ir as ir

from ingot.errors import OperatorError
from ingot.ops.generic import GenericOp
from ingot.ops.registry import Array, Facts, Op, enter_op, facts_of, label, registered, show

#: NumPy arrays in the order of the node's inputs (None where one is left out), attributes by name.
Function: TypeAlias = "Callable[..., Any]"
#: Facts of the inputs and the attributes to `(dtype, shape)` of each output; None where data decides.
Shapes: TypeAlias = "Callable[..., Any]"

F = TypeVar("F", bound=Function)


def register_op(
    domain: str,
    name: str,
    function: Function | None = None,
    *,
    shape: Shapes | None = None,
    since: int = 1,
    random: bool = False,
    replace: bool = False,
) -> Any:
    """Gives the operator `name` of `domain` an implementation, for every session opened from now on.

    function: called with the inputs as NumPy arrays in the node's order (None for one that is left out;
    strings in arrays of dtype object, sequences as lists) and the node's attributes as keyword arguments
    (tensors as arrays); attributes that the node lacks are the function's own defaults. It returns an array,
    or a tuple with one for each output; a list of arrays is a sequence. The arrays it gets are read-only and
    belong to the session: copy what should outlive the call. Without `function` this is a decorator.

    shape: called like `function`, with `Facts` (dtype, shape, and value where it is known before the run)
    in place of arrays; returns `(dtype, shape)`, or a list of such pairs, or None where data decides. With it
    the operator becomes a step of the plan around it; without it the session plans again after the operator.

    since: the opset version of `domain` that the operator belongs to. random: it may answer differently each
    time, so it is never computed ahead. replace: an earlier registration gives way.

    Raises OperatorError for a registration that cannot work: names that are no names, something that cannot
    be called, an operator that has an implementation. While running, OperatorError names the node
    whose function raised, or returned something else than its shape function had promised.

        @ingot.register_op("com.example", "Clamp01", shape=lambda x: (x.dtype, x.shape))
        def clamp01(x): return np.clip(x, 0, 1)
    """
    if function is None:
        _checked(domain, name, register_op, shape, since)  # not only when the function is there

        def decorate(given: F) -> F:
            register_op(domain, name, given, shape=shape, since=since, random=random, replace=replace)
            return given

        return decorate
    domain = "" if domain == "ai.onnx" else domain
    subject = _checked(domain, name, function, shape, since)
    known = registered(domain, name)
    if isinstance(known, UserOp):
        if not replace:
            raise OperatorError(
                f"{subject} was registered before, and a session may be using it. "
                "Pass replace=True to give it another implementation."
            )
    elif known is not None and not isinstance(known, GenericOp):
        raise OperatorError(
            f"{subject} has an implementation in Ingot already. Register yours under a domain of your own."
        )
    attributes = {"__doc__": inspect.getdoc(function) or f"{name}, as registered.", "random": random}
    cls = type(name, (UserOp,), attributes)
    cls.name, cls.since, cls.domain = name, since, domain
    enter_op(cls(function, shape))
    return function


def _checked(domain: Any, name: Any, function: Any, shape: Any, since: Any) -> str:
    """How errors name the operator; raises OperatorError for what can be no registration."""
    for what, given in (("domain", domain), ("name", name)):
        if not isinstance(given, str):
            raise OperatorError(f"register_op: {what} is {given!r}, and must be a string.")
    if not name.isidentifier():
        raise OperatorError(f"register_op: {name!r} is no name of an operator. Use letters, digits and _.")
    subject = f"register_op: operator {name!r} of domain {domain or 'ai.onnx'!r}"
    if domain == "ingot":
        raise OperatorError(f"{subject}: the domain is Ingot's own. Use another one.")
    if not callable(function):
        raise OperatorError(f"{subject}: the implementation is {function!r}, and must be callable.")
    if shape is not None and not callable(shape):
        raise OperatorError(f"{subject}: shape is {shape!r}, and must be callable or None.")
    if not isinstance(since, int) or isinstance(since, bool) or since < 1:
        raise OperatorError(f"{subject}: since is {since!r}, and must be an opset version, 1 or more.")
    return subject


class UserOp(Op):
    """An operator whose meaning is a Python function."""

    def __init__(self, function: Function, shape: Shapes | None) -> None:
        self._function, self._shape = function, shape

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """What the shape function says."""
        facts = self._promised(node, inputs)
        return None if facts is None else [*facts[: len(node.outputs)]]

    def _promised(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts] | None:
        """For each output of the operator: a node may leave the last ones out."""
        if self._shape is None:
            return None
        said = self._call(node, "shape function", self._shape, inputs)
        if said is None:
            return None
        pairs: list[Any] = list(said) if _is_list_of_pairs(said) else [said]
        facts = [_facts_of_pair(node, pair) for pair in pairs]
        _require_as_many(node, "shape function", facts)
        return facts

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """What the function returns, checked against what the shape function promised."""
        promised = self._promised(node, [_known_facts(x) for x in inputs])
        results = self._call(node, "function", self._function, [_read_only(x) for x in inputs])
        several = isinstance(results, tuple) or (isinstance(results, list) and len(node.outputs) > 1)
        made: list[Any] = list(cast("Sequence[Any]", results)) if several else [results]
        _require_as_many(node, "function", made)
        if len(made) > max(len(node.outputs), len(promised or ())):
            raise OperatorError(
                f"{label(node)}: its function gave {len(made)} outputs, and the node has "
                f"{len(node.outputs)}. Return no more than those, or let the shape function promise "
                "them all: a node may leave out the last ones."
            )
        made = [_as_value(node, i, value) for i, value in enumerate(made[: len(node.outputs)])]
        for i, (value, facts) in enumerate(zip(made, promised or [], strict=False)):
            if _describe(value) != _describe(facts):
                raise OperatorError(
                    f"{label(node)}: output {i} of its function is {_describe(value)}, and its shape "
                    f"function promised {_describe(facts)}. Correct one of them."
                )
        return made

    def _call(self, node: ir.Node, what: str, function: Callable[..., Any], inputs: Sequence[Any]) -> Any:
        attributes = {key: _attribute(node, a) for key, a in node.attributes.items()}
        try:
            return function(*inputs, **attributes)
        except OperatorError:
            raise
        except Exception as error:  # of whatever kind: the function is the user's own
            given = ", ".join("nothing" if x is None else _describe(x) for x in inputs)
            raise OperatorError(
                f"{label(node)}: its {what} raised {type(error).__name__}: {error}. It was given {given}"
                + (f" and the attributes {', '.join(attributes)}." if attributes else ".")
            ) from error


def _require_as_many(node: ir.Node, what: str, values: Sequence[Any]) -> None:
    if len(values) < len(node.outputs):
        raise OperatorError(
            f"{label(node)}: its {what} gave {len(values)} outputs, and the node has "
            f"{len(node.outputs)}. Return a tuple with one for each."
        )


def _is_list_of_pairs(said: Any) -> bool:
    """One pair begins with a dtype, a list of them with a pair."""
    first: Any = said[0] if isinstance(said, (tuple, list)) and said else None  # pyright: ignore[reportUnknownVariableType]
    return isinstance(said, list) or isinstance(first, (tuple, list))


def _facts_of_pair(node: ir.Node, pair: Any) -> Facts:
    try:
        dtype, shape = pair
        sizes = tuple(int(size) for size in shape)
        if any(size < 0 for size in sizes) or sizes != tuple(shape):
            raise ValueError(f"{tuple(shape)} is no shape")
        return Facts(np.dtype(dtype), sizes)
    except (TypeError, ValueError) as error:
        raise OperatorError(
            f"{label(node)}: its shape function gave {pair!r}, and must give (dtype, shape) for each output: "
            f"{error}."
        ) from error


def _known_facts(value: Array | None) -> Facts | None:
    """Sequences and maps, which are no arrays, count as one Python object."""
    if value is None:
        return None
    return facts_of(value) if hasattr(value, "dtype") else Facts(np.dtype(object), ())


def _read_only(value: Any) -> Any:
    if not hasattr(value, "dtype"):
        return value
    view: Array = value.view()
    view.flags.writeable = False
    return view


def _as_value(node: ir.Node, index: int, value: Any) -> Any:
    """An array; lists of arrays and maps are sequences and maps."""
    output = node.outputs[index]
    if isinstance(value, (list, dict)) and not (isinstance(output.type, ir.TensorType) or _is_read(output)):
        items = cast("list[Any] | dict[Any, Any]", value)
        if isinstance(items, dict) or all(isinstance(x, (np.ndarray, dict)) for x in items):
            return items
    if isinstance(value, (np.ndarray, np.generic, int, float, bool)):
        array = np.asarray(value)
        return array.astype(object) if array.dtype.kind in "US" else array
    raise OperatorError(
        f"{label(node)}: output {index} of its function is of type {_kind(value)}, and must be "
        "a NumPy array. Convert it with np.asarray."
    )


def _is_read(output: ir.Value) -> bool:
    """Whether an operator reads it that takes tensors alone there."""
    for node, position in output.uses():
        if onnx.defs.has(node.op_type, domain=node.domain):
            takes = onnx.defs.get_schema(node.op_type, domain=node.domain).inputs
            if takes and all(t.startswith("tensor(") for t in takes[min(position, len(takes) - 1)].types):
                return True
    return False


def _kind(value: Any) -> str:
    if not isinstance(value, list):
        return type(value).__name__
    kinds = sorted({type(item).__name__ for item in cast("list[Any]", value)})
    return f"list (of {', '.join(kinds)})" if kinds else "list"


def _attribute(node: ir.Node, attribute: ir.Attr) -> Any:
    value = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        return value.numpy()
    if attribute.type == ir.AttributeType.TENSORS:
        return [tensor.numpy() for tensor in value]
    if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        raise OperatorError(
            f"{label(node)}: attribute {attribute.name} is a graph, which a registered operator cannot run. "
            "Use If, Loop or Scan around it."
        )
    return list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value


def _describe(value: Any) -> str:
    return f"{value.dtype} {show(value.shape)}" if hasattr(value, "dtype") else type(value).__name__


__all__ = ["Function", "Shapes", "UserOp", "register_op"]
