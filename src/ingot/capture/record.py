"""The state of one recording: the values of the tensors and numbers that the model's Python handles."""

# torch's fake tensors and symbolic numbers are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt
import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture import (
    arrays,
    complex_numbers,
    dispatch,
    endless,
    extent,
    fakes,
    gradients,
    scalars,
    sharing,
    unwritten,
    writes,
)
from ingot.capture.alike import Alike
from ingot.capture.assume import Assumption, Kind, Status
from ingot.capture.aten import Row
from ingot.capture.copies import Copies
from ingot.capture.dispatch import Dispatch
from ingot.capture.entries import Entry, Group
from ingot.capture.graph import GraphWriter
from ingot.capture.journal import Journal, Table
from ingot.capture.missing import Missing
from ingot.capture.overloads import Plan, plan_of
from ingot.capture.quantisers import QUANTISERS
from ingot.capture.request import asking_frame, request
from ingot.capture.scalars import Symbolic
from ingot.capture.size_nodes import SizeWriter
from ingot.capture.size_symbols import StaleRead
from ingot.capture.sizes import SizeEnv
from ingot.capture.tensors import DTYPES, dtype_of
from ingot.capture.weights import Weights
from ingot.capture.where import quoted_line, source_line
from ingot.errors import DataDependentError, ExportError

if TYPE_CHECKING:
    from ingot.capture.memos import Kept
    from ingot.capture.mixed import Mixed
    from ingot.capture.split import Trial

#: The lowest and the highest number of each dtype of integers.
_INTEGERS = {
    dtype: (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    for dtype in DTYPES
    if not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
}


class Recorder:
    """The state of one recording, and what rows use to emit: `val`, `operand`, `op`, `const`, `shape`."""

    def __init__(self, env: SizeEnv, opset: int) -> None:
        self.env = env
        self.opset = opset
        self.graph = GraphWriter(opset)
        self.journal = Journal()
        self.sizes = SizeWriter(
            self.graph,
            env,
            self.journal,
            lambda e: endless.require_fits(self, e),
            lambda e: extent.of_formula(self, e),
        )
        self.missing = Missing()
        self.nested = False  # whether there was a branch or loop; calls are not noted from then on
        self.token: ir.Value | None = None  # needed by every output: comes from the last check
        self.copies = Copies()  # of what lists of any length hold
        # Tensors and objects, by id, of which the run says which they are: one of two, as a condition says.
        self.chosen: dict[int, tuple[Any, Any, tuple[Any, Any]]] = {}
        self.mixed: dict[int, Mixed] = {}  # tensors that may be numbers, by id
        self.written_through: list[tuple[torch.Tensor, torch.Tensor]] = []  # see `gradients.wrote`
        self.switched: list[tuple[torch.Tensor, bool]] = []  # see `gradients.switched`
        self.untold: dict[int, tuple[torch.Tensor, str]] = {}  # of which that depends on the way, by id
        self.to_select: list[Entry] = []  # the same of places that were read before
        #: Places of an axis that tensors say, by id: the place, the axis, and which it is.
        self.selected: dict[int, tuple[torch.Tensor, int, torch.Tensor]] = {}
        self.passed: dict[int, Any] = {}  # iterators of which the run alone knows how far they were taken
        self.poisoned: dict[str, str] = {}  # variables that a branch left without a value, and why
        self.lost_variables: dict[int, Any] = {}  # their cells, by id
        self.assumptions: list[Assumption] = []
        self.layouts: list[str] = []  # lines that ask how a tensor lies in memory
        self.layouts_known: dict[Any, bool] = {}  # whether tensors lie in some way for all sizes
        #: Whether these lines get the other answer: all of them, or those of which the sizes decide.
        self.other_layouts: Literal["", "all", "open"] = ""
        self.lies_otherwise: str | None = None  # an example that is not contiguous
        self.asked_traced: list[str] = []  # lines that ask whether a tensor is one without contents
        self.untraced = False  # whether they hear that it is none
        self.seeded: str | None = None  # the line after which random numbers are the same in every call
        self.parameter_names: dict[int, str] = {}
        self.paused = False
        self.passed_on = 0  # whether what takes the value of a tensor only passes it on: see `unwritten`
        self.of_nothing = 0  # whether reductions may have nothing to look at: see `aten.nothing`
        self.in_python = (
            False  # torch's operators run in their Python form, which takes symbolic sizes everywhere
        )
        self.calls: list[
            tuple[str, ir.Value | None]
        ] = []  # every recorded result in order: operator and value
        self.quantisers: list[
            tuple[str, ir.Value | None, bool]
        ] = []  # those of operators that round to steps, and whether they are in a branch or loop
        self.mode = FakeTensorMode(shape_env=env, allow_non_fake_inputs=True)
        self.mode.cache_enabled = False  # a cached result would skip its guards
        self.alike = Alike(env, self.mode, self.journal)
        self._labels: dict[Any, int | str | None] = {}  # of sizes, as they are written in the file
        self.functions: dict[Any, ir.Function] = {}  # of the model, by domain, name and overload
        self.modules: list[str] = []
        self.trials: list[Trial] = []  # calls that run to find out what they ask
        self.branches: list[tuple[Any, int]] = []  # that are being recorded: see `recursion`
        self.recursions: Counter[Any] = Counter()  # by line, those of sizes in a call of a function by itself
        self.turns: set[Any] = set()  # numbers of rounds that Python would know
        self.counted: dict[Any, Any] = {}  # those and what it would count from them, with ranges: see `turns`
        self.merged: dict[Any, tuple[Any, Any, Any]] = {}  # numbers that a condition chooses: it and the two
        self.extents: dict[Any, Any] = {}  # of whole numbers, the least and the most: see `extent`
        self.narrowed: dict[Any, Any] = Table(self.journal)  # the same, by checks that were made before
        self.required: dict[Any, bool] = Table(self.journal)  # conditions that were checked before
        self.dicts: dict[int, tuple[Any, Any]] = {}  # that rewritten code makes, with the line
        self.empty_lists: dict[str, None] = {}  # lines that give something of another kind for an empty list
        self.grown: dict[Any, Any] = {}  # numbers that loops leave: what they were, how far they went
        self.answers = 0  # that calls which were taken apart are being recorded for
        self._entries: dict[int, Entry] = {}
        self._plans: dict[Any, Plan] = {}
        self._transposed: dict[int, ir.Value] = Table(self.journal)
        self.weights = Weights(self.graph)
        self.memo: dict[Any, Any] = Table(self.journal)  # rows' own values, shared between calls
        self.input_entries: list[Entry] = []
        self.state_inputs: set[ir.Value] = set()
        self.offsets: dict[str, tuple[Any, int]] = {}  # inputs that rise from 0: see note_offsets
        self.labels_of: Callable[[torch.Tensor], list[str]] = lambda _: []  # where the model holds a tensor
        self.made_by_call: Callable[[Any], bool] = lambda _: False  # whether a container is the call's own
        self.outlives: Callable[[Any], bool] = lambda _: False  # whether one is there before the call
        # What stands on a tensor since before the call that no code of the model's reads.
        self.idle_tags: Callable[[torch.Tensor], dict[str, Any]] = lambda _: {}
        self.memos: dict[int, Kept] = Table(self.journal)  # what is kept under sizes for later calls
        self.forms: dict[Any, int] = {}  # how such things follow from their keys
        self.shown: tuple[arrays.Shown, ...] = ()  # arrays of what outlives the call
        self.written: dict[str, str] = {}  # what the model holds and writes to, with the line
        self._stale: dict[int, tuple[str, torch.Tensor]] = {}
        self.op: Callable[..., ir.Value] = self.graph.op
        self.ops: Callable[..., Sequence[ir.Value]] = self.graph.ops
        self.shape = self.sizes.shape

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
        return self.new_entry(
            tensor,
            Group(self.journal, owned=False),
            real=real,
            name=self.parameter_names.get(id(real), "const"),
        )

    def new_entry(self, tensor: torch.Tensor, group: Group, **rest: Any) -> Entry:
        if group.body is None:
            group.body = self.graph.body
        made = self._entries[id(tensor)] = Entry(self.journal, tensor, group, version=group.version, **rest)
        group.entries = (*group.entries, made)
        return made

    def new_owned(self, tensor: torch.Tensor, **rest: Any) -> Entry:
        """The record of a tensor that the recording makes, with memory of its own."""
        return self.new_entry(tensor, Group(self.journal, owned=True), **rest)

    def known_entry(self, tensor: torch.Tensor) -> Entry | None:
        """The record of a tensor, if it has one."""
        return self._entries.get(id(tensor))

    def stands_for(self, tensor: torch.Tensor, entry: Entry) -> Entry:
        """`tensor` takes the place of an entry's, for its views too: the other is free to become another view
        of the memory.
        """
        other, entry.tensor = entry.tensor, tensor
        self._entries[id(tensor)] = entry
        if entry.view is not None:
            out = entry.view.out
            several = isinstance(out, (list, tuple))
            out = [tensor if o is other else o for o in out] if several else tensor
            entry.view = replace(entry.view, out=out)
        for e in entry.group.entries:
            if e.view is not None and e.view.parent is entry:
                e.view = replace(e.view, args=(tensor, *e.view.args[1:]))
        return entry

    def bind(self, tensor: torch.Tensor, value: ir.Value) -> None:
        """Say that `value` is the tensor's value."""
        self.new_owned(tensor, value=value)
        self.annotate(value, tensor)

    def value_of(self, x: Any) -> ir.Value | None:
        """The value of a tensor or number that this recording made, if it is no constant."""
        found = self._entries.get(id(x)) if isinstance(x, torch.Tensor) else None
        if found is not None:
            return self.val_of(found) if found.real is None else None
        return self.scalar(x) if isinstance(x, (torch.SymInt, torch.SymFloat)) else None

    def note_offsets(self, tensor: torch.Tensor, size: Any, fewest: int) -> None:
        """An operator takes these as places where parts of an axis of this size begin, and `fewest` of them
        unless the axis is empty: where they are an input of the model, no others are drawn for it.
        """
        value = self.val(tensor)
        while (node := value.producer()) is not None and node.op_type == "Cast":
            value = node.inputs[0] or value
        if node is None and not value.is_initializer():
            bound = self.env.expr(size) if isinstance(size, torch.SymInt) else size
            self.offsets[str(value.name)] = bound, fewest

    def written_to(self, x: Any) -> bool:
        """Whether something was written into a tensor since it was bound; numbers are as they are."""
        return isinstance(x, torch.Tensor) and self.entry(x).group.version > 0

    def stale_tensor(self, label: str, like: torch.Tensor) -> torch.Tensor:
        """A tensor that an earlier call left behind: whoever reads it raises StaleRead."""
        made = fakes.fresh(self.mode, [fakes.hint(n) for n in like.shape], like.dtype, like.device)
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
        return self.val_of(self._there(tensor))

    def _there(self, tensor: torch.Tensor) -> Entry:
        """The record of a tensor that somebody reads."""
        found = self.entry(tensor)
        if found.gone is not None:
            raise found.gone
        if found.group.shown:
            arrays.require_unchanged(found.group.shown)
        return found

    def val_of(self, e: Entry) -> ir.Value:
        """The value of a tensor that is read, unless it is passed on."""
        if e.group.unwritten is not None and not self.passed_on:
            unwritten.read(self, e)
        if e.group.join is not None or e.group.links or e.group.lost:
            sharing.settle(self, e.group)
        if e.version != e.group.version:
            e.version = e.group.version
            e.value = None
            if e.real is None:
                view = e.view
                assert view is not None, "only views go out of date"
                with self.passing_on():
                    made = view.row(self, view.out, *view.args, **view.kwargs)
                e.value = made if view.index is None else made[view.index]
        if e.value is None:
            if e.refusal is not None:
                raise e.refusal
            assert e.real is not None
            e.value = self.weights.value(e)
        return e.value

    def weight(self, name: str, array: npt.NDArray[Any], dtype: torch.dtype) -> ir.Value:
        """A constant computed from parameters."""
        return self.graph.initializer(name, ir.Tensor(array, dtype=dtype_of(dtype)))

    def transposed(self, weight: torch.Tensor) -> ir.Value:
        """A 2-D weight transposed: as a constant view of the same memory when nothing else uses it, else a
        node.
        """
        e = self.entry(weight)
        found = self.weights.transposed(e)
        if found is None:
            found = self._transposed.get(id(e))
        if found is None:
            found = self._transposed[id(e)] = self.op("Transpose", self.val_of(e), perm=[1, 0])
        return found

    def is_empty(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor has no element, whatever the inputs are."""
        return any(self.sizes.number(n) == 0 for n in tensor.shape)

    @contextlib.contextmanager
    def passing_on(self) -> Generator[None]:
        """Take values of tensors without reading what is in them: for views, and around what is written."""
        self.passed_on += 1
        try:
            yield
        finally:
            self.passed_on -= 1

    def real(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The tensor's contents when they do not depend on any input."""
        e = self._there(tensor)
        if e.group.unwritten is not None and e.real is not None and not self.passed_on:
            unwritten.read(self, e)
        if e.real is not None and (e.group.links or e.group.lost):
            sharing.settle(self, e.group)
        return e.real

    def const(self, value: Any, dtype: torch.dtype = torch.int64) -> ir.Value:
        """A constant of a torch dtype; an integer that the dtype has not wraps, as torch's scalars do."""
        if isinstance(value, int) and dtype in _INTEGERS:
            lowest, highest = _INTEGERS[dtype]
            value = (value - lowest) % (highest - lowest + 1) + lowest
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
            if isinstance(x, torch.SymFloat) and dtype in _INTEGERS:
                endless.require_whole_number(self, x)
            return self.cast(self.sizes.scalar(x), found, dtype)
        return self.const(x, dtype)

    def cast(self, value: ir.Value, found: torch.dtype, wanted: torch.dtype) -> ir.Value:
        """`value` in another dtype."""
        if found == wanted:
            return value
        made = self.op("Cast", value, to=dtype_of(wanted))
        made.type = ir.TensorType(dtype_of(wanted))
        return made

    def same_size(self, a: Any, b: Any) -> bool:
        """Whether two sizes are the same formula."""
        return self.sizes.equal(a, b)

    def choose_tensor(self, made: torch.Tensor, condition: Any = None, *sides: Any) -> torch.Tensor:
        """A tensor that is the one object or the other as a condition says; without one, nobody knows."""
        self.chosen[id(made)] = made, condition, (sides[0], sides[1]) if sides else (None, None)
        return made

    def plan(self, func: Any) -> Plan:
        """What to do with an operator overload."""
        found = self._plans.get(func)
        if found is None:
            found = self._plans[func] = plan_of(func)
        return found

    def whole(self, row: Row, meta: Row, *args: Any, **kwargs: Any) -> Any:
        """One call of a torch function that is kept whole; `meta` gives what its results look like."""
        return dispatch.whole(self, row, meta, *args, **kwargs)

    def overwrite(self, tensor: torch.Tensor, value: ir.Value) -> None:
        """Give a tensor a new value, for an operator that writes to it without saying so."""
        writes.overwrite(self, tensor, value)

    @contextlib.contextmanager
    def pause(self) -> Generator[None]:
        """Run torch on fake tensors without writing nodes."""
        before, self.paused = self.paused, True
        try:
            with self.env.imagining():
                yield
        finally:
            self.paused = before

    def locate(self) -> None:
        """Nodes from now on are the running submodule's, and the user's line's."""
        self.graph.scope = self.modules[-1] if self.modules else ""
        self.graph.source = source_line()

    def note_call(self, name: str, value: ir.Value | None) -> None:
        """Note a result, for `bisect` and `steps`."""
        if name in QUANTISERS:
            self.quantisers.append((name, value, self.graph.body is not self.graph.root))
        if not self.nested:  # behind a branch or loop the calls of another run are not in this order
            self.calls.append((name, value))

    def note_dims(self, tensor: torch.Tensor, value: ir.Value) -> None:
        """Sizes of a result that have symbols of their own come from its value."""
        for axis, size in enumerate(tensor.shape):
            if isinstance(size, torch.SymInt):
                e = size.node._expr
                if e.is_Symbol and e not in self.sizes.sources:
                    self.sizes.sources[e] = (value, axis)

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
        self.new_owned(out, parts=(re, im))

    def constant(self, tensor: torch.Tensor, like: Entry) -> torch.Tensor:
        """A real tensor as a constant that may be written to if `like` may."""
        self.new_entry(tensor, Group(self.journal, owned=like.group.owned), real=tensor, name=like.name)
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
        self.assume("constant", f"a constant tensor is the Python value {number!r}", "proved")
        return number if convert is None else convert(number)

    def python_list(self, tensor: torch.Tensor, convert: Callable[[torch.Tensor], Any]) -> Any:
        """A tensor that becomes a list or an array."""
        real = self.real(tensor)
        if real is None:
            self.python_number(tensor, convert)
        assert real is not None
        with _disable_current_modes():
            made = convert(real.detach().clone())
        arrays.show(self, self.entry(tensor), made)
        return made

    def equal(self, a: torch.Tensor, b: torch.Tensor) -> Any:
        """torch.equal: a bool, or a SymBool where data decides."""
        x, y = self.real(a), self.real(b)
        if x is None or y is None:
            if a.dim() != b.dim():
                return False
            sizes = list(zip(a.shape, b.shape, strict=True))
            if any(None not in n and n[0] != n[1] for n in (tuple(map(self.sizes.number, s)) for s in sizes)):
                return False
            if not all(self.same_size(p, q) for p, q in sizes):
                self.python_number(a if x is None else b, bool)
            with self.mode, Dispatch(self):
                return scalars.item(self, (a == b).all())
        with _disable_current_modes():
            return torch.equal(x, y)

    def all_close(self, *args: Any, **kwargs: Any) -> Any:
        """torch.allclose: a bool, or a SymBool where data decides."""
        with self.mode, Dispatch(self):
            holds = torch.isclose(*args, **kwargs).all()
            real = self.real(holds)
            if real is None:
                return scalars.item(self, holds)
        with _disable_current_modes():
            return bool(real)

    def assume(self, kind: Kind, what: str, status: Status, where: str | None = None) -> None:
        """Note an assumption at a line, that of the user which runs if none is given."""
        made = Assumption(kind, where or source_line(), what, status)
        if made not in self.assumptions:
            self.assumptions.append(made)

    @contextlib.contextmanager
    def attempt(self, errors: type[BaseException] = BaseException) -> Generator[None]:
        """Something that may fail with one of the errors: what it noted and assumed is forgotten then."""
        before = list(self.assumptions), dict(self.missing.lines), dict(self.poisoned), self.token
        body, env, path, since = self.graph.body, self.env.notes(), list(self.env.path), self.journal.begin()
        check = body.check
        try:
            yield
        except errors:
            self.assumptions[:], self.missing.lines, self.poisoned, self.token = before
            body.check, self.env.path[:] = check, path
            gradients.forgotten(self, since)
            self.journal.put_back(since)  # values that were computed under checks which are forgotten
            self.env.forget(env)
            raise
        except BaseException:
            self.journal.keep(since)
            raise
        self.journal.keep(since)

    def add_input(self, tensor: torch.Tensor, value: ir.Value, *, of_caller: bool = True) -> None:
        """An input of the model: the caller's own tensor, or state."""
        self.bind(tensor, value)
        self.note_dims(tensor, value)
        if of_caller:
            self.input_entries.append(self.entry(tensor))
        else:
            self.state_inputs.add(value)

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
