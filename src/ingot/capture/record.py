"""Runs the model's own Python on fake tensors and writes an ONNX node for each ATen call as it happens."""

# torch's fake tensors, operator overloads and dispatch modes are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt
import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ingot.capture import alias, complex_numbers, fakes, scalars, translations
from ingot.capture.alike import Alike, Answer, Look, Unlike
from ingot.capture.assume import Assumption
from ingot.capture.aten import ROWS, Row
from ingot.capture.graph import Body, GraphWriter
from ingot.capture.journal import Journal, Table, Tracked
from ingot.capture.request import asking_frame, request
from ingot.capture.sizes import SizeEnv, SizeWriter, StaleRead
from ingot.capture.tensors import DTYPES, Memory, dtype_of, zero_copy
from ingot.capture.where import add_line, quoted_line, source_line
from ingot.errors import DataDependentError, ExportError, MissingOperatorError

FOLD_LIMIT = (
    1 << 20
)  # results of up to this many elements, made from constants only, are computed while recording
FOLD_CREATED_LIMIT = 1 << 12  # the same for results made from nothing (zeros, arange)

Symbolic = (torch.SymInt, torch.SymFloat, torch.SymBool)


class Group(Tracked):
    """Tensors that share memory. A write through one of them makes the others' values out of date."""

    put_back = frozenset(("version", "entries"))

    def __init__(self, journal: Journal, *, owned: bool) -> None:
        self.journal = journal
        self.owned = (
            owned  # made during this recording: writing into it changes nothing that outlives the call
        )
        self.body: Body | None = None  # the branch or loop it was made in
        self.version = 0
        self.entries: tuple[Entry, ...] = ()


@dataclass(eq=False)
class Entry(Tracked):
    """What is known about one tensor: its value in the graph, its contents if constant, whose view it is."""

    put_back = frozenset(("value", "real", "view", "version", "parts"))
    journal: Journal
    tensor: torch.Tensor  # kept alive: entries are found by id
    group: Group
    value: ir.Value | None = None
    real: torch.Tensor | None = None
    view: View | None = None
    version: int = 0
    name: str = "const"
    parts: tuple[torch.Tensor, torch.Tensor] | None = None  # real and imaginary, of a complex tensor
    refusal: ExportError | None = None  # raised when something wants the value
    look: Look | None = None


@dataclass(eq=False)
class View:
    """How a view was made, so that it can be made again after its base was written to."""

    func: Any
    parent: Entry
    op: str
    row: Row
    out: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    index: int | None


@dataclass(frozen=True)
class Plan:
    """What to do with one operator overload."""

    name: str
    row: Row | None
    in_place: bool
    writes: bool
    view: bool
    foldable: bool


@dataclass
class Missing:
    """Operators without a row, with the lines that call them."""

    lines: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, name: str, line: str) -> None:
        """Note one call."""
        lines = self.lines.setdefault(name, [])
        if line not in lines:
            lines.append(line)

    def raise_if_any(self) -> None:
        """Raise one error for all of them."""
        if not self.lines:
            return
        listing = "\n".join(f"  {name}\n      {lines[0]}" for name, lines in sorted(self.lines.items()))
        raise MissingOperatorError(
            f"{len(self.lines)} ATen operator(s) have no ONNX row yet:\n{listing}\n"
            "Express them with other operators in the model, or say what they become with ingot.translate."
        )


# Drawn when the model runs, never while recording: no result of theirs is a constant.
_RANDOM = {
    "rand", "randn", "randint", "rand_like", "randn_like", "randint_like", "bernoulli", "normal", "uniform",
    "normal_functional", "multinomial", "randperm", "native_dropout", "exponential", "random", "poisson",
    "cauchy", "geometric", "log_normal", "binomial", "rrelu_with_noise", "_standard_gamma",
    "_sample_dirichlet", "rrelu_with_noise_functional",
}  # fmt: skip
_WRITES_IF_ASKED = {"_fused_moving_avg_obs_fq_helper"}  # its row refuses to be asked
_IN_PLACE_ONLY = {"set", "resize", "resize_as"}
# What these write besides their result, nobody reads.
_SCRATCH = {"rrelu_with_noise"}
# Aliases in memory that are no view operators to torch, and the other way round.
_NOT_FOLDED = {"_local_scalar_dense"}
_UNFOLDED_FAMILIES = ("quantized_decomposed::dequantize", "fake_quantize", "_fake_quantize", "_fused_moving")


class Recorder:
    """The state of one recording, and what rows use to emit: `val`, `operand`, `op`, `const`, `shape`."""

    def __init__(self, env: SizeEnv, opset: int) -> None:
        self.env = env
        self.opset = opset
        self.graph = GraphWriter(opset)
        self.journal = Journal()
        self.sizes = SizeWriter(self.graph, env, self.journal)
        self.missing = Missing()
        self.nested = False  # whether there was a branch or loop; calls are not noted from then on
        self.token: ir.Value | None = None  # needed by every output: comes from the last check
        self.check: ir.Value | None = None  # what must hold in the branch or loop that is recorded
        self.poisoned: dict[str, str] = {}  # variables that a branch left without a value, and why
        self.assumptions: list[Assumption] = []
        self.parameter_names: dict[int, str] = {}
        self.paused = False
        self.in_python = (
            False  # torch's operators run in their Python form, which takes symbolic sizes everywhere
        )
        self.calls: list[
            tuple[str, ir.Value | None]
        ] = []  # every recorded result in order: operator and value
        self.mode = FakeTensorMode(shape_env=env, allow_non_fake_inputs=True)
        self.mode.cache_enabled = False  # a cached result would skip its guards
        self.alike = Alike(env, self.mode, self.journal)
        self._labels: dict[Any, int | str | None] = {}  # of sizes, as they are written in the file
        self.functions: dict[Any, ir.Function] = {}  # of the model, by domain, name and overload
        self.modules: list[str] = []
        self._entries: dict[int, Entry] = {}
        self._plans: dict[Any, Plan] = {}
        self._transposed: dict[int, ir.Value] = Table(self.journal)
        self.memo: dict[Any, Any] = Table(self.journal)  # rows' own values, shared between calls
        self.input_entries: list[Entry] = []
        self.labels_of: Callable[[torch.Tensor], list[str]] = lambda _: []  # where the model holds a tensor
        self.written: dict[str, str] = {}  # what the model holds and writes to, with the line
        self._stale: dict[int, tuple[str, torch.Tensor]] = {}
        self._by_memory: dict[Memory, ir.Value] = {}
        self.op: Callable[..., ir.Value] = self.graph.op
        self.ops: Callable[..., Sequence[ir.Value]] = self.graph.ops
        self.shape = self.sizes.shape

    # -- values

    def entry(self, tensor: torch.Tensor) -> Entry:
        """The record of a tensor; a real tensor seen for the first time is a constant."""
        found = self._entries.get(id(tensor))
        if found is not None:
            return found
        real = tensor.constant if isinstance(tensor, FakeTensor) else tensor
        if id(tensor) in self._stale:
            raise StaleRead(self._stale[id(tensor)][0])
        if real is None:
            raise ExportError(
                f"a tensor of unknown origin is used at {quoted_line()}\n"
                "It was not made by a recorded operator; it may come from an earlier call, through a cache."
            )
        return self._new(
            tensor,
            Group(self.journal, owned=False),
            real=real,
            name=self.parameter_names.get(id(real), "const"),
        )

    def _new(self, tensor: torch.Tensor, group: Group, **rest: Any) -> Entry:
        if group.body is None:
            group.body = self.graph.body
        made = self._entries[id(tensor)] = Entry(self.journal, tensor, group, version=group.version, **rest)
        group.entries = (*group.entries, made)
        return made

    def bind(self, tensor: torch.Tensor, value: ir.Value) -> None:
        """Say that `value` is the tensor's value."""
        self._new(tensor, Group(self.journal, owned=True), value=value)
        self.annotate(value, tensor)

    def value_of(self, x: Any) -> ir.Value | None:
        """The value of a tensor or number that this recording made, if it is no constant."""
        found = self._entries.get(id(x)) if isinstance(x, torch.Tensor) else None
        if found is not None:
            return self._get(found) if found.real is None else None
        return self.scalar(x) if isinstance(x, (torch.SymInt, torch.SymFloat)) else None

    def written_to(self, x: Any) -> bool:
        """Whether something was written into a tensor since it was bound; numbers are as they are."""
        return isinstance(x, torch.Tensor) and self.entry(x).group.version > 0

    def stale_tensor(self, label: str, like: torch.Tensor) -> torch.Tensor:
        """A tensor that an earlier call left behind: whoever reads it raises StaleRead."""
        made = fakes.fresh(self.mode, [_hint(n) for n in like.shape], like.dtype, like.device)
        self._stale[id(made)] = label, made
        return made

    def annotate(self, value: ir.Value, tensor: torch.Tensor) -> None:
        """Write dtype and shape on the value."""
        if value.type is None:
            value.type = ir.TensorType(dtype_of(tensor.dtype))
        if value.shape is None:
            value.shape = ir.Shape([self.dim_label(d) for d in tensor.shape])

    def dim_label(self, size: Any) -> int | str | None:
        """A size as it is written in the file: a number, a name, a product or sum of names, or unknown."""
        if isinstance(size, int):
            return size
        known = self.env.moment, size.node._expr
        if known not in self._labels:
            self._labels[known] = self._label(self.env.expand(self.env.expr(size)))
        return self._labels[known]

    def _label(self, e: Any) -> int | str | None:
        if e.is_number:
            return int(e)
        if not all(s in self.env.names for s in e.free_symbols):
            return None
        if not e.is_polynomial():
            return None
        names = {s: type(s)(self.env.names[s], integer=True, nonnegative=True) for s in e.free_symbols}
        return str(e.xreplace(names))

    def val(self, tensor: Any) -> ir.Value:
        """The tensor's (or number's) value in the graph."""
        if not isinstance(tensor, torch.Tensor):
            return self.scalar(tensor)
        return self._get(self.entry(tensor))

    def _get(self, e: Entry) -> ir.Value:
        if e.version != e.group.version:
            e.version = e.group.version
            e.value = None
            if e.real is None:
                view = e.view
                assert view is not None, "only views go out of date"
                made = view.row(self, view.out, *view.args, **view.kwargs)
                e.value = made if view.index is None else made[view.index]
        if e.value is None:
            if e.refusal is not None:
                raise e.refusal
            assert e.real is not None
            e.value = self._initializer(e)
        return e.value

    def _initializer(self, e: Entry) -> ir.Value:
        real = e.real
        assert real is not None
        if e.group.owned or (real.numel() <= 64 and e.name == "const"):  # small, and may be written to later
            array = zero_copy(real).copy()
            return self.graph.const(array, dtype_of(real.dtype))
        return self._stored(e.name, real, zero_copy(real), Memory.of(real))

    def _stored(self, name: str, real: torch.Tensor, array: npt.NDArray[Any], memory: Memory) -> ir.Value:
        """The initializer of what lies in this memory, read in this way: tied weights have one."""
        found = self._by_memory.get(memory) if real.numel() else None
        if found is None:
            tensor = ir.Tensor(array, dtype=dtype_of(real.dtype))
            found = self._by_memory[memory] = self.graph.initializer(name, tensor)
        return found

    def contents(self, real: torch.Tensor) -> npt.NDArray[Any]:
        """A constant's elements."""
        return zero_copy(real)

    def weight(self, name: str, array: npt.NDArray[Any], dtype: torch.dtype) -> ir.Value:
        """A constant computed from parameters."""
        return self.graph.initializer(name, ir.Tensor(array, dtype=dtype_of(dtype)))

    def transposed(self, weight: torch.Tensor) -> ir.Value:
        """A 2-D weight transposed: as a constant view of the same memory when nothing else uses it, else a
        node.
        """
        e = self.entry(weight)
        if e.real is None or e.group.owned or e.value is not None:
            key = id(e)
            if key not in self._transposed:
                self._transposed[key] = self.op("Transpose", self._get(e), perm=[1, 0])
            return self._transposed[key]
        name = f"{e.name}.T" if e.name != "const" else "const"
        return self._stored(name, e.real, zero_copy(e.real).T, Memory.of(e.real).transposed())

    def untie_transposed(self) -> None:
        """A weight that is used both as it is and transposed is stored once: the latter becomes a Transpose
        node.
        """
        for memory, constant in list(self._by_memory.items()):
            plain = self._by_memory.get(memory.transposed())
            if len(memory.shape) != 2 or plain is None or memory.strides[0] >= memory.strides[1]:
                continue
            node = ir.node("Transpose", [plain], {"perm": [1, 0]}, name=self.graph.unique("Transpose"))
            node.outputs[0].name = node.name
            node.outputs[0].type, node.outputs[0].shape = constant.type, constant.shape
            self.graph.nodes.insert(0, node)
            constant.replace_all_uses_with(node.outputs[0])
            del self.graph.initializers[str(constant.name)]
            del self._by_memory[memory]

    def real(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The tensor's contents when they do not depend on any input."""
        return self.entry(tensor).real

    def const(self, value: Any, dtype: torch.dtype = torch.int64) -> ir.Value:
        """A constant of a torch dtype."""
        return self.graph.const(value, DTYPES[dtype])

    def scalar(self, number: Any) -> ir.Value:
        """A Python or symbolic number as a tensor of shape []."""
        if isinstance(number, Symbolic):
            return self.sizes.scalar(number)
        kind = {bool: torch.bool, int: torch.int64, float: torch.float32}[type(number)]
        return self.const(number, kind)

    def operand(self, x: Any, dtype: torch.dtype) -> ir.Value:
        """A tensor or number as a value of `dtype`."""
        if isinstance(x, torch.Tensor):
            return self.cast(self.val(x), x.dtype, dtype)
        if isinstance(x, Symbolic):
            e = self.env.expr(x)
            if e.is_number:
                return self.const(int(e) if e.is_integer else float(e), dtype)
            found = torch.int64 if e.is_integer else torch.float64
            return self.cast(self.sizes.scalar(x), found, dtype)
        return self.const(x, dtype)

    def cast(self, value: ir.Value, found: torch.dtype, wanted: torch.dtype) -> ir.Value:
        """`value` in another dtype."""
        return value if found == wanted else self.op("Cast", value, to=dtype_of(wanted))

    def same_size(self, a: Any, b: Any) -> bool:
        """Whether two sizes are the same formula."""
        return self.sizes.equal(a, b)

    @contextlib.contextmanager
    def pause(self) -> Generator[None]:
        """Run torch on fake tensors without writing nodes."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    # -- calls

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One ATen call: run it on fake tensors, emit its row, remember which value is whose.

        What refuses it names the user's line.
        """
        try:
            return self._dispatch(func, args, kwargs)
        except ExportError as error:
            add_line(error)
            raise
        except (DynamicOutputShapeException, DataDependentOutputException) as error:
            raise DataDependentError(
                f"{quoted_line()}\n{func} gives a result whose shape or value depends on the contents of its "
                "operands, and has no row. Use other operators, or compute this outside of the model."
            ) from error
        except (UnsupportedOperatorException, NotImplementedError) as error:
            raise MissingOperatorError(
                f"{quoted_line()}\n{func} cannot run without contents of its operands, and has no row. Use "
                f"other "
                "operators, or compute this outside of the model."
            ) from error

    def _dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.paused or func.namespace in ("prim", "prims", "debugprims"):
            return func(*args, **kwargs)
        mapped = translations.of_operator(func)
        if mapped is not None:
            return self._translated(mapped, func, args, kwargs)
        plan = self._plans.get(func) or self._plan(func)
        if plan.row is None and func.namespace != "aten" and (source := _python_source(func)) is not None:
            return self._through(func, source, args, kwargs)
        tensors = _tensors(args, kwargs)
        if kwargs.get("generator") is not None:
            raise ExportError(
                f"{quoted_line()}\n{func} draws from a generator of the model's own, whose numbers an ONNX "
                "model cannot repeat. Draw them outside of forward and pass them as an argument, or leave "
                "the generator away."
            )
        if plan.name == "_local_scalar_dense":
            return self.python_number(args[0])
        if plan.name == "equal":
            return self.equal(args[0], args[1])
        reals = [self.real(t) for t in tensors]
        known = all(r is not None for r in reals) and plan.name not in _RANDOM
        is_complex = complex_numbers.concern(plan.name, tensors, kwargs)
        if plan.name in ("lift_fresh", "lift"):
            return self._lift(func, args[0])
        if plan.in_place and self._is_outside(func, self.entry(args[0])):
            self._in_place(func, plan, args, kwargs, False)  # not by torch, which would write into the tensor
            return args[0]
        if plan.in_place and torch.Tag.inplace_view in func.tags and not is_complex:
            return self._in_place_view(func, plan, args, kwargs)
        question = None if plan.writes or is_complex else self._question(func, args, kwargs)
        answer = self.alike.answer(question)
        out = self.alike.results(answer, answer.raw) if answer is not None else None
        if out is None and not known:
            out = fakes.quick(self, plan.name, args, kwargs)
        if out is None:
            out = self._fake(func, plan, args, kwargs)
        if plan.in_place:
            self._in_place(func, plan, args, kwargs, known)
            return args[0]
        if known and plan.foldable and self._fold(func, plan, args, kwargs, out, bool(tensors)):
            return out
        if is_complex:
            return complex_numbers.dispatch(self, func, plan.name, args, kwargs, out)
        if plan.row is None:
            self._without_row(func, args, kwargs, out)
            return out
        self.locate()
        made = plan.row(self, out, *args, **kwargs)
        tidy = self._tidied(question, answer, (args, *kwargs.values()), out)
        if plan.view:
            like = View(func, self.entry(args[0]), plan.name, plan.row, out, args, kwargs, None)
            self._bind_views(like, tidy, made)
        else:
            self._bind_results(_name(func), tidy, made)
        return tidy

    def _question(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call as others like it ask; None where it is unlike any."""
        try:
            return self.alike.question(func, args, kwargs, self._look)
        except Unlike:
            return None

    def _look(self, tensor: torch.Tensor) -> Look:
        e = self._entries.get(id(tensor))
        if e is None:
            return self.alike.look(tensor)
        if e.look is None:
            e.look = self.alike.look(tensor)
        return e.look

    def _tidied(self, question: Any, answer: Answer | None, arguments: Sequence[Any], out: Any) -> Any:
        """The outputs of a call with short formulas for their sizes."""
        if answer is not None:
            return out if answer.raw == answer.tidy else self.alike.results(answer, answer.tidy)
        tidy = self._tidy(out)
        self.alike.keep(question, arguments, out, tidy)
        return tidy

    def _through(self, func: Any, source: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """An operator by the Python that it is made of."""
        try:
            with self.mode, Dispatch(self):
                return source(*args, **kwargs)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ExportError(
                f"{quoted_line()}\nthe Python of {func} does not run on tensors without contents ({error}). "
                "Say what the operator becomes with ingot.translate."
            ) from error

    def _fake(self, func: Any, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What torch says the call returns."""
        try:
            return func(*args, **kwargs)
        except (NotImplementedError, UnsupportedOperatorException) as error:
            if plan.row is not None or func.namespace == "aten":
                raise
            raise MissingOperatorError(
                f"{quoted_line()}\n{func} is an operator that neither Ingot nor torch's tensors without "
                "contents know. Say what it becomes with ingot.translate, and its result's shape with "
                "torch.library.register_fake."
            ) from error

    def _translated(
        self, t: translations.Translation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """An operator that the user said the meaning of."""
        if not t.is_node and not t.writes:
            with self.mode, Dispatch(self):
                return t.to(*args, **kwargs)
        names = [a.name for a in func._schema.arguments]

        def row(g: Recorder, out: Any, *a: Any, **k: Any) -> Any:
            return translations.emit(g, t, names, out, a, k)

        return self.whole(row, t.like or func, *args, **kwargs)

    def whole(self, row: Row, meta: Row, *args: Any, **kwargs: Any) -> Any:
        """One call of a torch function that is kept whole; `meta` gives what its results look like."""
        with self.pause():
            out = meta(*args, **kwargs)
        return self._whole(row, out, self._tidy, args, kwargs)

    def whole_alike(self, row: Row, meta: Row, *args: Any, **kwargs: Any) -> Any:
        """The same, where what `meta` gives follows from what its arguments look like."""
        question = self._question(meta, args, kwargs)
        answer = self.alike.answer(question)
        if answer is not None:
            out = self.alike.results(answer, answer.raw)
        else:
            with self.pause():
                out = meta(*args, **kwargs)
        given = (args, *kwargs.values())
        return self._whole(row, out, lambda o: self._tidied(question, answer, given, o), args, kwargs)

    def _whole(
        self, row: Row, out: Any, tidied: Callable[[Any], Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.locate()
        try:
            made = row(self, out, *args, **kwargs)
        except ExportError as error:
            add_line(error)
            raise
        out = tidied(out)
        self._bind_results(row.__name__, out, made)
        return out

    def _tidy(self, out: Any) -> Any:
        """The same outputs with a symbol of its own for every size that is a long formula."""
        if isinstance(out, torch.Tensor):
            shape = list(out.shape)  # each look makes new objects
            sizes = [self.env.derive(d) if isinstance(d, torch.SymInt) else d for d in shape]
            if all(a is b for a, b in zip(sizes, shape, strict=True)):
                return out
            with self.pause():
                return _like(self.mode, out, sizes)
        if isinstance(out, (list, tuple)):
            tidied = [self._tidy(o) for o in out]
            return (
                type(out)(tidied)
                if type(out) in (list, tuple)
                else out
                if tidied == list(out)
                else tuple(tidied)
            )
        return out

    def locate(self) -> None:
        """Nodes from now on are the running submodule's, and the user's line's."""
        self.graph.scope = self.modules[-1] if self.modules else ""
        self.graph.source = source_line()

    def _plan(self, func: Any) -> Plan:
        schema = func._schema
        name = schema.name.split("::")[1] if func.namespace == "aten" else schema.name
        arguments = schema.arguments
        writes = [a for a in arguments if a.alias_info is not None and a.alias_info.is_write]
        base = name
        in_place = False
        if writes:
            in_place = (len(writes) == 1 and writes[0] is arguments[0]) or writes[0].name == arguments[0].name
            if name.endswith("_") and in_place:
                base = name[:-1]
            elif in_place:
                in_place = True
        row = ROWS.get(f"{base}.{func._overloadname}") or ROWS.get(base)
        unasked = _SCRATCH | _WRITES_IF_ASKED
        if (writes and not in_place and base not in unasked) or base in _IN_PLACE_ONLY:
            row = None
        made = Plan(base, row, in_place, bool(writes), bool(func.is_view), _is_foldable(name) and not writes)
        self._plans[func] = made
        return made

    def _bind_views(self, like: View, out: Any, made: Any) -> None:
        """Say which values views of a tensor have, and how they were made."""
        several = isinstance(out, (list, tuple))
        outs, values = (list(out), made) if several else ([out], [made])
        for i, (o, v) in enumerate(zip(outs, values, strict=True)):
            view = replace(like, index=i) if several else like
            self._new(o, like.parent.group, value=v, view=view)
            self.annotate(v, o)
            self.note_dims(o, v)
            self._note_call(_name(like.func), v)

    def _note_call(self, name: str, value: ir.Value | None) -> None:
        if not self.nested:  # behind a branch or loop the calls of another run are not in this order
            self.calls.append((name, value))

    def _bind_results(self, name: str, out: Any, made: Any) -> None:
        if out is None:  # a check that returns nothing
            return
        if isinstance(out, torch.Tensor):
            out, made = [out], [made]
        for i, (o, v) in enumerate(zip(out, made, strict=False)):
            if not isinstance(o, torch.Tensor):
                continue
            self._note_call(name, v if isinstance(v, ir.Value) else None)
            if isinstance(v, ir.Value):
                self.bind(o, v)
                self.note_dims(o, v)
            else:
                refusal = v or ExportError(f"result {i} of {name} has no ONNX form; use the others alone.")
                self._new(o, Group(self.journal, owned=True), refusal=refusal)

    def note_dims(self, tensor: torch.Tensor, value: ir.Value) -> None:
        """Sizes of a result that have symbols of their own come from its value."""
        for axis, size in enumerate(tensor.shape):
            if isinstance(size, torch.SymInt):
                e = size.node._expr
                if e.is_Symbol and e not in self.sizes.sources:
                    self.sizes.sources[e] = (value, axis)

    def _without_row(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Take an operator without a row apart; when torch cannot, note it and go on to find the others."""
        parts = _decomposition(func)
        if parts is not None:
            again = self.recorded(parts, *args, **kwargs)
            results = again if isinstance(again, (list, tuple)) else [again]
            if any(isinstance(r, torch.Tensor) and id(r) not in self._entries for r in results):
                self._note_missing(func, out)  # it came apart into something that has no row either
                return
            flat_out = list(out) if isinstance(out, (list, tuple)) else [out]
            flat_again = list(again) if isinstance(again, (list, tuple)) else [again]
            for o, a in zip(flat_out, flat_again, strict=True):
                if isinstance(o, torch.Tensor):
                    self.adopt(o, a)
            return
        self._note_missing(func, out)

    def adopt(self, out: torch.Tensor, made: Any) -> None:
        """Say that `out` has the value of `made`, which another call gave."""
        if out.is_complex():
            self.bind_complex(out, *complex_numbers.parts(self, made))
            return
        value = self.operand(made, out.dtype)
        self.bind(out, value)
        self.note_dims(out, value)

    def bind_complex(self, out: torch.Tensor, re: torch.Tensor, im: torch.Tensor) -> None:
        """Say which real tensors a complex one consists of."""
        self._new(out, Group(self.journal, owned=True), parts=(re, im))

    def constant(self, tensor: torch.Tensor, like: Entry) -> torch.Tensor:
        """A real tensor as a constant that may be written to if `like` may."""
        self._new(tensor, Group(self.journal, owned=like.group.owned), real=tensor, name=like.name)
        return tensor

    def recorded(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call Python over torch operators from within a row, and record what it calls."""
        with self.mode, Dispatch(self):
            return function(*args, **kwargs)

    def traced(self, function: Callable[..., Any], out: Any, *args: Any, **kwargs: Any) -> Any:
        """What a row returns, for an operator that is written as Python over other torch operators."""
        again = self.recorded(function, *args, **kwargs)
        if isinstance(out, torch.Tensor):
            return self._as_dtype(again, out)
        return [self._as_dtype(a, o) for a, o in zip(again, out, strict=True)]

    def _as_dtype(self, made: Any, out: Any) -> ir.Value | None:
        if not isinstance(out, torch.Tensor) or made is None:
            return None
        return self.operand(made, out.dtype)

    def _functional(self, func: Any) -> Row | None:
        """`op_` without a row of its own as `op`, taken apart."""
        name = func._schema.name.split("::")[1]
        packet: Any = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") else None
        overload = getattr(packet, func._overloadname, None)
        if overload is None:
            return None

        def emit(g: Recorder, out: Any, *args: Any, **kwargs: Any) -> Any:
            return g.traced(overload, out, *args, **kwargs)

        return emit

    def _note_missing(self, func: Any, out: Any) -> None:
        self.missing.add(str(func), quoted_line())
        outs = list(out) if isinstance(out, (list, tuple)) else [out]
        if any(isinstance(o, torch.Tensor) and o.is_complex() for o in outs):
            self.missing.raise_if_any()  # nothing can stand for it
        for o in outs:
            if isinstance(o, torch.Tensor):
                value = ir.Value(name=self.graph.unique("missing"))
                self.bind(o, value)
                self.note_dims(o, value)

    # -- constants

    def _fold(
        self, func: Any, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, has_inputs: bool
    ) -> bool:
        outs = [o for o in (out if isinstance(out, (list, tuple)) else [out]) if isinstance(o, torch.Tensor)]
        limit = FOLD_LIMIT if has_inputs else FOLD_CREATED_LIMIT
        if not plan.view and not all(_static(o) and o.numel() <= limit for o in outs):
            return False
        if any(_has_symbol(a) for a in (*args, *kwargs.values())):
            return False
        with _disable_current_modes(), torch.no_grad():
            made = func(*self._reals(args), **{k: self._reals(v) for k, v in kwargs.items()})
        parent = self.entry(args[0]) if plan.view else None
        for i, o in enumerate(out if isinstance(out, (list, tuple)) else [out]):
            r = made[i] if isinstance(made, (list, tuple)) else made
            if not isinstance(o, torch.Tensor):
                continue
            if parent is not None and plan.row is not None:
                index = i if isinstance(out, (list, tuple)) else None
                view = View(func, parent, plan.name, plan.row, out, args, kwargs, index)
                self._new(o, parent.group, real=r, view=view)
            else:
                self._new(o, Group(self.journal, owned=not plan.view), real=r)
            self._note_call(_name(func), None)
        return True

    def _reals(self, x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return self.real(x)
        if isinstance(x, (list, tuple)):
            return type(x)(self._reals(v) for v in x)
        if isinstance(x, Symbolic):
            return self.sizes.number(x)
        return x

    def _lift(self, func: Any, tensor: torch.Tensor) -> torch.Tensor:
        real = self.real(tensor)
        out = func(tensor)
        assert real is not None
        with _disable_current_modes():
            self._new(out, Group(self.journal, owned=True), real=real.detach().clone())
        return out

    def python_number(self, tensor: torch.Tensor, convert: Callable[[Any], Any] | None = None) -> Any:
        """A tensor that becomes a Python number: that of a constant, else one that has a value in the graph.

        convert: what makes a bool or number of it, where Python insists on one; the function that asks is
        rewritten then.

        Raises:
            Restart, DataDependentError
        """
        real = self.real(tensor)
        if real is None:
            if convert is None:
                request(asking_frame())  # so that isinstance, ==, f-strings … are seen
                return scalars.item(self, tensor)
            request(asking_frame())
            raise DataDependentError(
                f"{quoted_line()}\n"
                f"This line turns a tensor (shape {list(tensor.shape)}, {tensor.dtype}) that depends on "
                "the inputs into "
                "a Python value, in a way that has no ONNX form. "
                "Use tensor operations instead (torch.where for a choice, masks for a selection), "
                "or compute the value outside of the model and pass it as an argument."
            )
        with _disable_current_modes():
            number = real.item()
        self.assume("constant", f"a constant tensor is the Python value {number!r}", "assumed")
        return number if convert is None else convert(number)

    def python_list(self, tensor: torch.Tensor, convert: Callable[[torch.Tensor], Any]) -> Any:
        """A tensor that becomes a list or an array."""
        real = self.real(tensor)
        if real is None:
            self.python_number(tensor, convert)
        assert real is not None
        with _disable_current_modes():
            return convert(real.detach().clone())

    def equal(self, a: torch.Tensor, b: torch.Tensor) -> Any:
        """torch.equal: a bool, or a SymBool where data decides."""
        x, y = self.real(a), self.real(b)
        if x is None or y is None:
            if a.dim() != b.dim() or not all(map(self.same_size, a.shape, b.shape)):
                self.python_number(a if x is None else b, bool)
            with self.mode, Dispatch(self):
                return scalars.item(self, (a == b).all())
        with _disable_current_modes():
            return torch.equal(x, y)

    def assume(self, kind: Any, what: str, status: Any) -> None:
        """Note an assumption at the user's line."""
        made = Assumption(kind, source_line(), what, status)
        if made not in self.assumptions:
            self.assumptions.append(made)

    # -- writes

    def _is_outside(self, func: Any, target: Entry) -> bool:
        """Before torch runs it: a write into something that is there after the call.

        What the model holds is noted, and is this recording's own from then on; anything else is refused.
        """
        if target.group.owned:
            return False
        base = target
        while base.view is not None:
            base = base.view.parent
        labels = self.labels_of(base.tensor)
        if labels:
            self.written.setdefault(labels[0], quoted_line())
            self._release(target.group)
            target.group.owned = True
            return True
        name = target.name if target.name != "const" else "a tensor made outside of forward"
        raise ExportError(
            f"{func} writes into {name!r} at {quoted_line()}\n"
            "The change would outlive the call, which an ONNX model cannot do. Work on a copy "
            "(`.clone()`), or take "
            "the state as an input and return it as an output."
        )

    def _in_place(
        self, func: Any, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any], known: bool
    ) -> None:
        target = self.entry(args[0])
        group = target.group
        if any(target.group is e.group for e in self.input_entries):
            self.assume(
                "input-changed",
                "an input tensor is written to; the model leaves the caller's alone",
                "assumed",
            )
        here = group.body is self.graph.body  # a branch must not change what was there before it
        constant = known and here and all(e.real is not None for e in group.entries)
        if constant and not any(_has_symbol(a) for a in (*args, *kwargs.values())):
            with _disable_current_modes(), torch.no_grad():
                func(*self._reals(args), **{k: self._reals(v) for k, v in kwargs.items()})
            group.version += 1
            for e in group.entries:
                e.parts = None
            self._note_call(_name(func), None)
            return
        self._release(group)
        if complex_numbers.concern(plan.name, _tensors(args, kwargs), kwargs):
            complex_numbers.write(self, func, plan.name, args, kwargs)
            return
        self.locate()
        row = plan.row or self._functional(func)
        if row is None:
            self.missing.add(str(func), quoted_line())
            return
        made = row(self, args[0], *args, **kwargs)
        value = made[0] if isinstance(made, (list, tuple)) else made
        self._write(target, value)
        self.annotate(value, args[0])
        self._note_call(_name(func), value)

    def _in_place_view(
        self, func: Any, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        """`x.squeeze_()` and the like: the same tensor from now on as a view of what it was."""
        target = args[0]
        entry = self.entry(target)
        functional = getattr(torch.ops.aten, plan.name, None)
        if plan.row is None or functional is None:
            self.missing.add(str(func), quoted_line())
            return func(*args, **kwargs)
        with self.pause():
            before = target.detach()
        was = replace(entry, tensor=before)
        self._entries[id(before)] = was
        entry.group.entries = tuple(was if e is entry else e for e in entry.group.entries)
        func(*args, **kwargs)
        rest = (before, *args[1:])
        view = View(functional, was, plan.name, plan.row, target, rest, kwargs, None)
        if was.real is None:
            self.locate()
            value = plan.row(self, target, *rest, **kwargs)
            self._new(target, was.group, value=value, view=view)
            self.note_dims(target, value)
        else:
            with _disable_current_modes():
                real = functional(was.real, *args[1:], **kwargs)
            self._new(target, was.group, real=real, view=view)
        return target

    def _release(self, group: Group) -> None:
        """A constant that is about to receive what an input decides stops being one."""
        for e in group.entries:
            if e.real is not None and e.tensor.is_complex():
                complex_numbers.parts(self, e.tensor)
        for e in group.entries:
            if e.real is None:
                continue
            if e.tensor.is_complex():
                pass
            elif e.view is None:
                self._get(e)
            else:
                e.value, e.version = None, -1
            e.real = None

    def _write(self, target: Entry, value: ir.Value) -> None:
        """`target` has the new value; carry it up to its base, and leave every other view out of date."""
        chain = [(target, value)]
        while (view := chain[-1][0].view) is not None:
            e, v = chain[-1]
            chain.append((view.parent, alias.put_back(self, e, view, v)))
        group = target.group
        group.version += 1
        for e, v in chain:
            e.value, e.version = v, group.version

    def put_value(self, base: Entry, value: ir.Value) -> None:
        """A tensor (no view) has another value from here on, as a write in a branch or loop says."""
        self._release(base.group)
        self._write(base, value)

    def val_of(self, e: Entry) -> ir.Value:
        """An entry's value in the graph."""
        return self._get(e)

    @contextlib.contextmanager
    def attempt(self) -> Generator[None]:
        """Something that may fail: what it noted and assumed is forgotten then."""
        before = list(self.assumptions), dict(self.missing.lines), dict(self.poisoned), self.token, self.check
        env = self.env.notes()
        try:
            yield
        except Exception:
            self.assumptions[:], self.missing.lines, self.poisoned, self.token, self.check = before
            self.env.forget(env)
            raise

    def overwrite(self, tensor: torch.Tensor, value: ir.Value) -> None:
        """Give a tensor a new value, for an operator that writes to it without saying so."""
        target = self.entry(tensor)
        if not self._is_outside("the operator", target):
            self._release(target.group)
        self._write(target, value)
        self.annotate(value, tensor)

    def add_input(self, tensor: torch.Tensor, value: ir.Value, *, of_caller: bool = True) -> None:
        """An input of the model: the caller's own tensor, or state."""
        self.bind(tensor, value)
        self.note_dims(tensor, value)
        if of_caller:
            self.input_entries.append(self.entry(tensor))

    def add_number(self, value: ir.Value, hint: Any, kind: type) -> Any:
        """An input that is a Python number to the model."""
        made = self.env.new_number(str(value.name), hint, kind)
        value.shape = ir.Shape([])
        one = self.op("Unsqueeze", value, self.graph.const([0]))
        wanted = ir.DataType.DOUBLE if kind is float else ir.DataType.INT64
        if value.dtype != wanted:
            one = self.op("Cast", one, to=wanted)
        (symbol,) = made.node.expr.free_symbols
        self.sizes.sources[symbol] = one, -1
        return made


class Dispatch(TorchDispatchMode):
    """Hands every ATen call to the recorder."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.recorder.dispatch(func, args, kwargs or {})


def _name(func: Any) -> str:
    return func._schema.name.split("::")[1]


def _tensors(args: Any, kwargs: dict[str, Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for a in (*args, *kwargs.values()):
        if isinstance(a, torch.Tensor):
            found.append(a)
        elif isinstance(a, (list, tuple)):
            found.extend(t for t in a if isinstance(t, torch.Tensor))
    return found


def _static(tensor: torch.Tensor) -> bool:
    return not any(isinstance(d, torch.SymInt) for d in tensor.shape)


def _like(mode: FakeTensorMode, tensor: torch.Tensor, sizes: Sequence[Any]) -> torch.Tensor:
    """A fake tensor of these sizes with the other's order of strides, as far as it says what is
    contiguous.
    """
    order = sorted(
        range(len(sizes)), key=lambda d: -_hint(tensor.stride(d)) if _hint(tensor.stride(d)) else -(1 << 62)
    )
    repeated = [_hint(tensor.stride(d)) == 0 for d in range(len(sizes))]
    base = fakes.fresh(mode, [1 if repeated[d] else sizes[d] for d in order], tensor.dtype, tensor.device)
    if order == list(range(len(sizes))) and not any(repeated):
        return base
    back = [order.index(d) for d in range(len(sizes))]
    made = base.permute(back)
    return made.expand(list(sizes)) if any(repeated) else made


def _hint(stride: Any) -> int:
    return (
        int(stride.node.shape_env.value(stride.node.expr))
        if isinstance(stride, torch.SymInt)
        else int(stride)
    )


def _python_source(func: Any) -> Callable[..., Any] | None:
    """The Python of an operator that `torch.library.custom_op` made."""
    from torch._library.custom_ops import OPDEFS

    made: Any = OPDEFS.get(func._schema.name)
    return made._init_fn if made is not None else None


def _is_foldable(name: str) -> bool:
    """Whether a result of constants is a constant: an integer weight's float form stays a node."""
    return name not in _NOT_FOLDED and not name.startswith(_UNFOLDED_FAMILIES)


def _has_symbol(x: Any) -> bool:
    if isinstance(x, (list, tuple)):
        return any(_has_symbol(v) for v in x)
    return isinstance(x, Symbolic)


def _decomposition(func: Any) -> Callable[..., Any] | None:
    from torch._decomp import core_aten_decompositions, decomposition_table

    table: Any = core_aten_decompositions()
    found: Any = table.get(func) or decomposition_table.get(func)
    if found is None and func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
        return func.decompose
    return found


__all__ = ["Dispatch", "Entry", "Recorder", "View"]
