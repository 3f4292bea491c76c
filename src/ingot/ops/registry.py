"""What an operator is (`Op`, `Facts`), and the table of all of them (`register`, `find`).

The families (`elementwise.py`, `shape.py`, `conv.py` …) fill the table when they are imported; `find`
imports them on first use. Nothing here knows a particular operator. `generic.py` covers operators that only
`onnx.reference` knows.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, TypeVar, cast

import numpy as np
import onnx_ir as ir

from ingot.errors import IngotError, ModelError, ShapeError, UnsupportedOperatorError
from ingot.ops.lowering import Lowering

Array: TypeAlias = np.ndarray[Any, Any]
DType: TypeAlias = np.dtype[Any]

_FAMILIES = (
    "elementwise",
    "cast",
    "shape",
    "index",
    "slices",
    "order",
    "select",
    "boxes",
    "place",
    "loss",
    "signal",
    "state",
    "create",
    "reduce",
    "linear",
    "einsum",
    "conv",
    "conv_transpose",
    "pool",
    "norm",
    "softmax",
    "attention",
    "resize",
    "fused",
    "sample",
    "rnn",
    "rnn_integers",
    "quantize",
    "integer",
    "features",
    "labels",
    "linear_models",
    "trees",
    "contrib",
    "contrib_quantized",
    "contrib_products",
    "few_bits",
    "random",
    "control",
    "generation",
    "sequence",
    "image",
    "text",
)


#: Values of at most this many elements are computed while planning, so that shape arithmetic costs nothing at
#: run time. Larger constants were folded when the session was made, or wait for the kernel that packs them.
KNOWN_ELEMENTS = 4096
#: The same for what NumPy gives about as fast as it copies (`Op.quick`): grids and masks that follow from the
#: sizes of an input, so that few sizes are planned in another way than their neighbours.
QUICK_ELEMENTS = 8 * KNOWN_ELEMENTS


@dataclass(slots=True, unsafe_hash=True)
class Facts:
    """What is known of a value at planning time: concrete dims, and the value itself where it is known.

    `dtype` is NumPy's or ml_dtypes'; strings have dtype `object`. Never changed once they are made; they are
    not declared frozen because that makes them four times as slow to make, and a plan makes hundreds.
    """

    dtype: DType
    shape: tuple[int, ...]
    value: Array | None = None

    @property
    def is_known(self) -> bool:
        """Whether there is a value; does not compute it."""
        return self.value is not None


class LazyFacts(Facts):
    """Facts of a weight that is computed whenever it is asked for: once, when a kernel packs it."""

    __slots__ = ("_make",)
    _make: Callable[[], Array]

    def __init__(self, dtype: DType, shape: tuple[int, ...], make: Callable[[], Array]) -> None:
        self.dtype, self.shape, self._make = dtype, shape, make

    @property
    def value(self) -> Array:  # pyright: ignore[reportIncompatibleVariableOverride]  (read like the field)
        """The array, computed now."""
        return self._make()

    @property
    def is_known(self) -> bool:
        """Always."""
        return True


def have_no_images(inputs: Sequence[Facts | None]) -> bool:
    """Whether the known ones among inputs that broadcast are the same for all places in dimension 0."""
    rank = max([len(f.shape) for f in inputs if f is not None], default=0)
    return all(f is None or not f.is_known or len(f.shape) < rank or f.shape[0] == 1 for f in inputs)


def facts_of(array: Array) -> Facts:
    """Everything there is to know of a known value."""
    return Facts(array.dtype, array.shape, array)


@dataclass(frozen=True, slots=True)
class Bound:
    """An output whose dimension `axis` a kernel counts, up to what `shape` has; None: all of it is known."""

    dtype: DType
    shape: tuple[int, ...]
    axis: int | None

    def cut(self, array: Array, count: int) -> Array:
        """The output: the front of its memory in its true shape."""
        if self.axis is None or count == self.shape[self.axis]:
            return array
        shape = (*self.shape[: self.axis], count, *self.shape[self.axis + 1 :])
        found = array.reshape(-1)[: math.prod(shape)].reshape(shape)
        return found.copy() if 2 * found.size < array.size else found  # so that the rest is given back


class Op:
    """One operator's meaning at the newest opset: what it infers, computes and lowers to. One stateless
    instance each.
    """

    name: ClassVar[str]
    domain: ClassVar[str] = ""
    since: ClassVar[int]
    #: The answer depends on a random generator: never folded, never merged with its twin.
    random: ClassVar[bool] = False
    #: NumPy computes it in little more time than it takes to write the result, to the same bits as kernels.
    quick: ClassVar[bool] = False
    #: If, Loop and Scan: whoever runs the graph drives their subgraphs (`ops/control.py`).
    subgraphs: ClassVar[bool] = False

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """Facts of each output in `node.outputs`' order; None where they depend on data that is not known
        yet.

        Raises `ShapeError` when the inputs' shapes do not fit each other, `ModelError` when their dtypes do
        not.
        """
        del node, inputs
        return None

    def bound(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Bound | None] | None:
        """The most that the outputs can be, where `infer` cannot say and `lower` has kernels that count.

        Those fill the front of each output's memory, as it lies there when it is contiguous with its true
        sizes, and put the count where `plan.count` says.
        """
        del node, inputs
        return None

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The operator's plain definition on NumPy. Default: what `onnx.reference` computes for this node."""
        from ingot.ops.generic import reference_evaluate

        return reference_evaluate(node, inputs)

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Adds generated kernels for `node` to the plan. False: there are none, and the host evaluates it."""
        del node, plan
        return False

    def is_by_image(self, node: ir.Node, inputs: Sequence[Facts | None]) -> bool:
        """Whether `lower` may be told of one image (a place in dimension 0) at a time: that of the output
        follows from the same one of each input that is not known, and from known inputs as they are.
        """
        del node, inputs
        return False


#: What `infer` says: facts of each output, or None where nothing can be said.
Outputs: TypeAlias = "list[Facts | None] | None"

OpType = TypeVar("OpType", bound=type[Op])

_table: dict[tuple[str, str], Op] = {}
_loaded = False


def register(name: str, *, since: int, domain: str = "") -> Callable[[OpType], OpType]:
    """Class decorator: enters one instance of the class into the table. `since`: the schema version it
    implements.
    """

    def enter(cls: OpType) -> OpType:
        add(cls, name, since, domain)
        return cls

    return enter


def add(cls: type[Op], name: str, since: int, domain: str = "") -> Op:
    """Enters an instance of `cls` under a name; for families that build their classes from a table."""
    cls.name, cls.since, cls.domain = name, since, domain
    op = cls()
    enter_op(op)
    return op


def enter_op(op: Op) -> None:
    """Enters an operator under its own domain and name, in the place of the one there is."""
    _table[op.domain, op.name] = op


def registered(domain: str, op_type: str) -> Op | None:
    """The operator that the table has under these names; None where it has none (`find` may make one)."""
    load_families()
    return _table.get((domain, op_type))


def find(domain: str, op_type: str, node: ir.Node | None = None) -> Op:
    """The operator; one that only `onnx.reference` knows gets a generic `Op` that the host evaluates.

    Raises `UnsupportedOperatorError`, naming `node` where it is given.
    """
    domain = "" if domain == "ai.onnx" else domain
    op = _table.get((domain, op_type))
    if op is not None:
        return op
    load_families()
    op = _table.get((domain, op_type))
    if op is None:
        from ingot.ops.generic import generic_op

        op = generic_op(domain, op_type)
        if op is None:
            subject = label(node) if node is not None else op_type
            raise UnsupportedOperatorError(
                f"{subject}: operator {op_type!r} of domain {domain or 'ai.onnx'!r} is unknown here. "
                "Check the spelling, or give its Python implementation to ingot.register_op()."
            )
        _table[domain, op_type] = op
    return op


def operators() -> Iterator[Op]:
    """Every operator that has a class of its own, in the order of the families."""
    load_families()
    yield from list(_table.values())


def load_families() -> None:
    """Fills the table."""
    global _loaded
    if not _loaded:
        for family in _FAMILIES:
            importlib.import_module(f"ingot.ops.{family}")
        _loaded = True


# ---- what the families share: naming a node in an error, reading attributes, required inputs, broadcasting


#: Where graphs, and nodes of functions, keep the opset that the file declares, once they speak another one.
DECLARED = "ingot.declared_opset"
#: Where nodes that stand for another one of the file keep its operator and name.
STANDS_FOR = "ingot.stands_for"


#: What `ingot.export` writes beside a node: the line of Python it comes from, `model.py:12`; the text of the
#: check that it is; that it is a loop inside of one operator of PyTorch's.
SOURCE, CHECK, PART = "ingot.source", "ingot.check", "ingot.part"
#: Where a model keeps the ranges that its dimensions were declared with: `{"len": [1, 64]}`, null for no end.
RANGES = "ingot.ranges"


def label(node: ir.Node) -> str:
    """How an error names a node: `Conv 'stem/conv1' (opset 22, from net.py:31)`, with the opset that the file
    declares, and the line of Python where the file says it.
    """
    name = node.name or next((value.name for value in node.outputs if value.name), None) or "?"
    prefix = f"{node.domain}." if node.domain not in ("", "ai.onnx") else ""
    version = node.version
    if version is None and node.graph is not None:
        version = node.graph.opset_imports.get(node.domain)
        if node.domain == "":
            for meta in (node.meta, node.graph.meta):
                declared = cast("int | None", meta.get(DECLARED))  # pyright: ignore[reportUnknownMemberType]
                if declared is not None:
                    version = declared
                    break
    facts = [] if version is None else [f"opset {version}"]
    source = node.metadata_props.get(SOURCE, "")
    if source and source in name:
        source = ""
    facts += [f"from {source}"] if source else []
    found = f"{prefix}{node.op_type} {name!r}" + (f" ({', '.join(facts)})" if facts else "")
    whole = cast("str | None", node.meta.get(STANDS_FOR))  # pyright: ignore[reportUnknownMemberType]
    return f"{found} of {whole}" if whole else found


def shape_error(
    node: ir.Node, found: str, remedy: str = "Check the shapes that feed this node."
) -> ShapeError:
    """A `ShapeError` that names the node; or the check of the model's own that a Reshape stands for."""
    check = node.metadata_props.get(CHECK)
    if check is not None:
        where = node.metadata_props.get(SOURCE, "the model")
        place = "" if check.startswith(f"{where}:") else f"{where}: "
        return ShapeError(
            f"{place}{check}: this check of the model's own does not hold for these inputs. Give "
            "inputs for which it does."
        )
    return ShapeError(f"{label(node)}: {found}. {remedy}")


#: What Python and NumPy raise where a node's attributes and inputs do not go together.
UNFIT = (TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError, MemoryError)
#: The same where no schema tells which inputs and attributes a node must have.
_UNFIT_WITHOUT_SCHEMA = (*UNFIT, AssertionError, AttributeError, KeyError)


def unfit_kinds(node: ir.Node) -> tuple[type[Exception], ...]:
    """Which exceptions say that this node's attributes and inputs do not go together."""
    return _UNFIT_WITHOUT_SCHEMA if node.domain == "com.microsoft" else UNFIT


def unfit(node: ir.Node, inputs: Sequence[Any], error: Exception) -> ModelError:
    """What is raised for one of these: it names the node and what it was given."""
    shown = [
        f"{x.dtype} {show(x.shape)}" if hasattr(x, "shape") else "nothing" if x is None else "a sequence"
        for x in inputs
    ]
    return ModelError(
        f"{label(node)}: it cannot be computed from {', '.join(shown) or 'nothing'} with its attributes "
        f"({', '.join(sorted(node.attributes)) or 'none'}): {error}. "
        "Check them against the operator's definition, or run onnx.checker on the file."
    )


def evaluated(op: Op, node: ir.Node, inputs: Sequence[Any]) -> list[Array]:
    """`op.evaluate`; what Python and NumPy refuse is a ModelError."""
    try:
        return op.evaluate(node, inputs)
    except IngotError:
        raise
    except unfit_kinds(node) as error:
        raise unfit(node, inputs, error) from error


def evaluated_late(op: Op, node: ir.Node, inputs: Sequence[Any]) -> list[Array]:
    """The same of a node whose inputs nobody knew before: what `op.infer` checks of them is made up for."""
    try:
        # An optional that is empty, a sequence or a map has no facts.
        if all(isinstance(x, np.ndarray) for x, v in zip(inputs, node.inputs, strict=False) if v is not None):
            op.infer(node, [None if x is None else facts_of(x) for x in inputs])
    except IngotError:
        raise
    except unfit_kinds(node) as error:
        raise unfit(node, inputs, error) from error
    return evaluated(op, node, inputs)


def need(node: ir.Node, inputs: Sequence[Facts | None], index: int) -> Facts:
    """The facts of an input that the operator cannot do without."""
    facts = inputs[index] if index < len(inputs) else None
    if facts is None:
        raise ModelError(
            f"{label(node)}: input {index} is missing, and the operator requires it. "
            "Give the node its input, or run onnx.checker on the file."
        )
    return facts


def given(inputs: Sequence[Any], index: int) -> Any:
    """An optional input, or None."""
    return inputs[index] if index < len(inputs) else None


def is_weight(value: ir.Value) -> bool:
    """Whether it is the same in every plan: an initializer, or integers of the file dequantised."""
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return value.is_initializer()
    return all(v is None or v.is_initializer() for v in node.inputs)


def first_input(node: ir.Node) -> ir.Value:
    """The first input of a node that `infer` has found to have one."""
    value = node.inputs[0]
    assert value is not None
    return value


def present(inputs: Sequence[Array | None], index: int) -> Array:
    """An input array that `infer` has already found to be there."""
    array = inputs[index]
    assert array is not None
    return array


def one_dtype(node: ir.Node, inputs: Sequence[Facts | None]) -> None:
    """Raises `ModelError` where inputs that must be of one dtype are not."""
    dtypes = [f.dtype for f in inputs if f is not None]
    if dtypes and dtypes.count(dtypes[0]) < len(dtypes):
        found = ", ".join(map(str, dict.fromkeys(dtypes)))
        raise ModelError(f"{label(node)}: its inputs are {found}, and must be of one dtype. Insert a Cast.")


def known_ints(node: ir.Node, inputs: Sequence[Facts | None], index: int) -> tuple[int, ...] | None:
    """An integer input's elements where its value is known at planning time, else None."""
    facts = need(node, inputs, index)
    if facts.dtype.kind not in "iu":
        raise ModelError(
            f"{label(node)}: input {index} is {facts.dtype}, and must be integers. Insert a Cast."
        )
    value = facts.value
    return None if value is None else tuple(value.ravel().tolist())


# `.data`: the dictionary inside of onnx_ir's; going through its own methods takes five times as long.
def attr_int(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    attribute = node.attributes.data.get(name)
    return default if attribute is None else attribute.value


def attr_float(node: ir.Node, name: str, default: float) -> float:
    """A float attribute; a default is the float32 that the file would hold."""
    attribute = node.attributes.data.get(name)
    return float(np.float32(default)) if attribute is None else attribute.value


def attr_str(node: ir.Node, name: str, default: str) -> str:
    """A string attribute."""
    attribute = node.attributes.data.get(name)
    return default if attribute is None else attribute.as_string()


def attr_ints(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """A list of integers, None where the node does not have it."""
    attribute = node.attributes.data.get(name)
    return None if attribute is None else tuple(attribute.value)


def attr_floats(node: ir.Node, name: str) -> tuple[float, ...] | None:
    """A list of floats, None where the node does not have it."""
    attribute = node.attributes.data.get(name)
    return None if attribute is None else tuple(attribute.value)


def normal_axis(node: ir.Node, axis: int, rank: int) -> int:
    """`axis` in 0 … rank-1; negative axes count from the end."""
    if not -rank <= axis < max(rank, 1):
        raise shape_error(
            node, f"axis {axis} is outside an input of rank {rank}", "Use an axis below the rank."
        )
    return axis + rank if axis < 0 else axis


def normal_axes(node: ir.Node, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Several axes, each in 0 … rank-1."""
    return tuple([normal_axis(node, axis, rank) for axis in axes])


def broadcast(node: ir.Node, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that all shapes broadcast to, by NumPy's rule.

    Raises `ShapeError` naming the first two shapes that do not fit.
    """
    result = shapes[0]
    for shape in shapes[1:]:
        if shape == result:
            continue
        short, long = (shape, result) if len(shape) <= len(result) else (result, shape)
        dims = list(long)
        offset = len(long) - len(short)
        for i, size in enumerate(short):
            other = dims[offset + i]
            if other != size:
                if other == 1:
                    dims[offset + i] = size
                elif size != 1:
                    raise shape_error(
                        node,
                        f"shapes {show(result)} and {show(shape)} do not broadcast: "
                        f"{other} against {size} in "
                        f"dimension {offset + i - len(long)}",
                        "Dimensions must be equal or 1.",
                    )
        result = tuple(dims)
    return result


def show(shape: Sequence[int]) -> str:
    """`[1, 3, 224, 224]`."""
    return "[" + ", ".join(map(str, shape)) + "]"
