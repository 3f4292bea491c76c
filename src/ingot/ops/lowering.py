"""What an operator's `lower` may ask of the plan under construction. The compiler implements it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ingot.kernels.contract import name_of

if TYPE_CHECKING:
    from ingot.codegen.machine import Machine
    from ingot.kernels.call import Buffer, Call, Nested, Series, View, Weights
    from ingot.kernels.contract import Epilogue
    from ingot.kernels.expression import Expression
    from ingot.ops.bands import Rows
    from ingot.ops.registry import Facts
    from ingot.ops.window import Window

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the user of a session decides about its plans.

    winograd: convolutions may use Winograd's algorithm where it is faster; its rounding errors are a few
    times larger.
    amx: products of float32 may be computed from slices of 8 bits where the CPU multiplies those in tile
    registers.
    """

    winograd: bool = True
    amx: bool = True


class SomeRows(Protocol):
    """How to compute some rows; it knows nothing of the plan."""

    @property
    def source(self) -> tuple[int, Window]:
        """The height of the image that they are computed from, and the window over it."""
        ...

    def __call__(self, out: View, image: int, first: int) -> list[Call]:
        """The rows of one image from `first` on that go to `out` [1, C, rows, W]."""
        ...


@dataclass(slots=True)
class ByRows:
    """some: what computes rows of it. whole(): where all of it lies, and the calls."""

    some: SomeRows
    whole: Callable[[], tuple[View, list[Call | Series]]]


@dataclass(slots=True)
class Body:
    """A subgraph lowered for certain shapes, to be run by a step of the plan around it.

    inputs: the values behind the views of kind "input" among the steps', by index. results: what is known of
    each of its outputs, whose views are of kind "output". own: the memory that the steps write before they
    read it. checks: the flags that they may raise, and what to say then.
    """

    inputs: list[ir.Value]
    results: list[Facts]
    steps: list[Call | Nested]
    own: set[Buffer]
    checks: list[tuple[View, str]]


class Steps:
    """Elementwise steps of one node, all of one shape: `steps("Add", a, b)` is a value that waits.

    Operands broadcast to the shape; a number among them becomes a constant of the last operand's dtype that
    is a value. What two kernels need should be `stored` before the first of them: else both compute it.
    """

    def __init__(self, plan: Lowering, shape: Sequence[int]) -> None:
        self._plan, self._shape = plan, tuple(shape)

    def __call__(
        self,
        op: str,
        *operands: ir.Value | float | int | bool,
        dtype: str | None = None,
        into: ir.Value | None = None,
        **attrs: float | int | str,
    ) -> ir.Value:
        """The result, of `dtype` (default: the first operand's); `into`: the value that it is."""
        first = operands[0]
        assert isinstance(first, ir.Value)
        own = name_of(self._plan.facts(first).dtype)
        kinds = [name_of(self._plan.facts(v).dtype) for v in operands if isinstance(v, ir.Value)]
        given = [v if isinstance(v, ir.Value) else self.number(v, kinds[-1]) for v in operands]
        return self._wait(op, given, dtype or own, into, tuple(attrs.items()))

    def stored(self, value: ir.Value) -> ir.Value:
        """`value`, computed now."""
        return self._plan.located(self._plan.view(value))

    def number(self, value: float | int | bool, dtype: str) -> ir.Value:
        """A constant in every place."""
        return self._wait("Constant", [], dtype, None, (("value", value),))

    def cast(self, value: ir.Value, dtype: str, into: ir.Value | None = None) -> ir.Value:
        """`value` in another dtype; itself where it has that already."""
        if into is None and name_of(self._plan.facts(value).dtype) == dtype:
            return value
        return self("Cast", value, dtype=dtype, into=into)

    def _wait(
        self,
        op: str,
        operands: list[ir.Value],
        dtype: str,
        into: ir.Value | None,
        attrs: tuple[tuple[str, Any], ...],
    ) -> ir.Value:
        value = self._plan.intermediate(self._shape, dtype_of(dtype)) if into is None else into
        if not self._plan.wait(value, op, operands, attrs):
            raise TypeError(f"no kernel computes {op} to {dtype}; ask before the first step")
        return value


def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype of that name, bfloat16 included."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def wide_of(dtype: str) -> str:
    """In which dtype a kernel computes with floats of `dtype`."""
    return "float64" if dtype == "float64" else "float32"


class Lowering(Protocol):
    """A plan under construction, for one set of shapes. Values are strided views of memory
    (`kernels.call.View`).
    """

    @property
    def machine(self) -> Machine:
        """The CPU that code is generated for."""
        ...

    @property
    def options(self) -> PlanOptions:
        """What the session was told about its plans."""
        ...

    def facts(self, value: ir.Value) -> Facts:
        """dtype, shape and, where it is known, the value."""
        ...

    def constant(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        """The value's array if it is known while planning; None otherwise, and for no value."""
        ...

    def weights(self, value: ir.Value) -> Weights | None:
        """Like `constant`, for what a kernel packs: the array is read only where it is."""
        ...

    def view(self, value: ir.Value) -> View:
        """Where the value lies; any strides. Computes it if it is still waiting."""
        ...

    def wants(self, value: ir.Value) -> bool:
        """Whether anybody reads this output of a node."""
        ...

    def plain(self, value: ir.Value) -> View:
        """Like `view`, but contiguous in the order of the dimensions (a copy where it is not)."""
        ...

    def copied(self, view: View, order: Sequence[int] | None = None) -> View:
        """A dense copy, contiguous in the order of the dimensions or in `order` (outermost first)."""
        ...

    def temporary(self, shape: Sequence[int], dtype: Any, order: Sequence[int] | None = None) -> View:
        """Memory for as long as calls read or write it."""
        ...

    def output(self, value: ir.Value, order: Sequence[int] | None = None, free_order: bool = False) -> View:
        """Memory for a value the node computes. `order`: the memory order of dimensions that suits the
        kernel, outermost first (default: as they are). free_order: the kernel writes any strides equally
        well.
        """
        ...

    def alias(self, value: ir.Value, view: View) -> None:
        """`value` is this view of memory that exists already: no work."""
        ...

    def wait(
        self, value: ir.Value, op: str, operands: Sequence[ir.Value], attrs: tuple[tuple[str, Any], ...] = ()
    ) -> bool:
        """`value` is an elementwise operator's result; it waits to be fused into a kernel. False where no
        kernel can compute it for these dtypes: then return False from `lower` (having emitted nothing).
        """
        ...

    def anchor(
        self,
        value: ir.Value,
        emit: Callable[[View, Epilogue | None], Sequence[Call | Series]],
        order: Sequence[int] | None = None,
        free_order: bool = False,
        rows: Callable[[], Rows | None] | None = None,
        exact: bool = False,
    ) -> None:
        """`value` is computed by a kernel that can have an epilogue; it waits for one. `emit(out, epilogue)`
        returns the calls; take the views of the inputs before, not in it. The last of `order` is contiguous
        in `out`, in the other dimensions any strides may come unless free_order, when all may. exact: what
        the epilogue gets is the value itself, of its dtype, and may become one of another dtype.
        rows()(out, epilogue, image, first): for images, where `rows` gives something when it is wanted, the
        same for `out` [1, C, rows, W], the rows of one image from `first` on.
        """
        ...

    def waits_as(self, value: ir.Value) -> str | None:
        """The elementwise operator as whose result a value of this plan waits; None: it does not."""
        ...

    def by_rows(self, value: ir.Value) -> ByRows | None:
        """How to compute a value [N, C, H, W] that only this node reads, by rows or the whole; the node must
        use one of both. None if nothing that waits can.
        """
        ...

    def inline(self, value: ir.Value) -> tuple[Expression, list[View]]:
        """How to compute an operand while reading it, if only this node reads it and elementwise nodes make
        it; else the identity and where it lies. The first of the views has all the elements, each broadcasts
        to the operand's shape.
        """
        ...

    def emit(self, calls: Call | Nested | Sequence[Call]) -> None:
        """Append calls."""
        ...

    def body(self, graph: ir.Graph) -> Body:
        """A subgraph of this node, lowered."""
        ...

    def watch(self, body: Body) -> list[View]:
        """The flags that a body of this node may raise; the run looks at them, too."""
        ...

    def check(self, message: str) -> View:
        """A flag (int64) that a kernel sets when it meets data it must refuse; the run then raises
        InputError(message).
        """
        ...

    @property
    def count(self) -> View:
        """Where the kernels of a node with a `Bound` put the count: an int64."""
        ...

    def pack(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, kept for all plans of the session under `key` (None: not kept): weights in a kernel's own
        order.
        """
        ...

    def afford(self, key: Hashable, nbytes: int, make: Callable[[], T]) -> T | None:
        """`pack` for what is `nbytes` large and need not be: None where the session has no room for it, or
        does not keep it.
        """
        ...

    @property
    def packing(self) -> Callable[[Callable[[], Any]], Any]:
        """Makes weights in a kernel's own order like `pack`, but when they are wanted, also after this plan;
        whoever asks for them keeps them.
        """
        ...

    def concat(self, value: ir.Value, inputs: Sequence[ir.Value], axis: int) -> None:
        """Join along `axis`, in place where the producers can write their part directly."""
        ...

    def known(self, array: np.ndarray[Any, Any]) -> ir.Value:
        """A new value that is this constant."""
        ...

    def intermediate(self, shape: Sequence[int], dtype: Any) -> ir.Value:
        """A new value that only this node makes and uses, for operators that become several waiting ones."""
        ...

    def column(self, value: ir.Value, rank: int) -> ir.Value:
        """A new value: the vector [C] as [C, 1, …], of 1 + `rank` dimensions."""
        ...

    def located(self, view: View) -> ir.Value:
        """A new value that lies here, for using existing memory in another shape."""
        ...
