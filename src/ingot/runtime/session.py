"""InferenceSession: onnxruntime's surface over Ingot's own CPU provider."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, cast

import numpy as np
import onnx_ir as ir

from ingot.codegen import machine
from ingot.compiler.index import Index, index_graph
from ingot.errors import IngotError, InputError, ModelError, ShapeError, TerminatedError
from ingot.loading import collector_paused, load, save
from ingot.mapped import files_of, note_files, require_as_they_were, state_of
from ingot.ops.lowering import PlanOptions
from ingot.ops.registry import RANGES, Array, label
from ingot.passes.malformed import SYMPTOMS, malformed
from ingot.passes.opset import normalise
from ingot.passes.pipeline import optimise, prepare
from ingot.runtime import providers as provider_choice
from ingot.runtime.binding import IOBinding, OrtValue
from ingot.runtime.driver import Driver, Resources
from ingot.runtime.options import (
    GraphOptimizationLevel,
    ModelMetadata,
    NodeArg,
    RunOptions,
    SessionOptions,
    options_of,
)
from ingot.runtime.overrides import override
from ingot.runtime.profile import KernelProfile, NodeProfile, kernels_of, nodes_of
from ingot.runtime.progress import Progress
from ingot.runtime.reasons import reason
from ingot.runtime.stages import copied
from ingot.runtime.termination import run_with
from ingot.runtime.values import ValueType, type_of

if TYPE_CHECKING:
    import onnx

    from ingot.program import Program

_NDARRAY: type = np.ndarray


class InferenceSession:
    """A model, ready to run. Thread-safe: concurrent calls of run() are independent.

    path_or_bytes: path of an .onnx file, its bytes, an onnx.ModelProto, an onnx_ir.Model or an ingot.Program.
    sess_options: threads and optimisation level, see SessionOptions.
    providers: names in order of preference; see `ingot.get_available_providers()`.

    Raises ModelError for what is not a valid model, or a place that cannot be written to,
    UnsupportedOperatorError for an operator nobody here can run, ProviderError for a provider that is not
    available.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model | Program,
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
        provider_options: Sequence[dict[str, Any]] | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise TypeError(f"InferenceSession has no option {', '.join(map(repr, unknown))}")
        self._options = options_of(sess_options)
        self._providers = provider_choice.choose(providers, provider_options)
        with collector_paused():
            given = self._options.initializers.keys()
            model = _load(path_or_bytes, self._optimises, given)
            again, path = _again(path_or_bytes, model, given), self._options.optimized_model_filepath
            written = model.clone() if path else None
            self._open(model, again)
            if written is not None:
                override(written, self._options)
                save(optimise(written) if self._optimises else written, path)

    def _open(self, model: ir.Model, again: Callable[[], ir.Model]) -> None:
        graph = model.graph
        override(model, self._options)
        self._files = files_of(model)
        defaults = [value for value in graph.inputs if value.name in graph.initializers]
        #: the model as it came, for runs that feed initializers other values, and sessions made for those
        self._again = again
        self._variants: dict[frozenset[str], InferenceSession] = {}
        self._defaults = {value.name or "": _node_arg(value) for value in defaults}
        for value in defaults:  # constants, until a run says otherwise
            graph.inputs.remove(value)
        self._metadata = ModelMetadata(
            producer_name=model.producer_name or "",
            graph_name=graph.name or "",
            domain=model.domain or "",
            description=model.doc_string or "",
            graph_description=graph.doc_string or "",
            version=model.model_version or 0,
            custom_metadata_map=dict(model.metadata_props),
        )
        self._inputs = [_node_arg(value) for value in graph.inputs]
        self._outputs = [_node_arg(value) for value in graph.outputs]
        types = map(type_of, graph.outputs)
        declared = [None if type_ is None or not type_.is_tensor else type_.dtype for type_ in types]
        self._wants = list(map(_wanted, graph.inputs, self._inputs))
        self._names = {arg.name: number for number, arg in enumerate(self._inputs)}
        try:
            prepare(model) if self._optimises else normalise(model)
            index = index_graph(model.graph)
        except IngotError:
            raise
        except SYMPTOMS as error:
            raise malformed(model) or error from error
        if index.captured:
            raise _unmade(index)
        threads = self._options.intra_op_num_threads or _cores()
        machine.masked()  # before a run asks for the CPU: a name that is wrong is refused now
        self._resources = Resources(
            threads,
            PlanOptions(self._options.enable_winograd, self._options.enable_amx),
            progress=Progress(self._options.log_severity_level),
        )
        weights = sum(v.const_value.nbytes for v in graph.initializers.values() if v.const_value is not None)
        self._resources.packed.spare = self._options.memory_for_sums(weights)
        self._model = model
        self._driver = Driver(index, self._resources, declared)
        self._positions = {n: i for i, n in enumerate(arg.name for arg in self._outputs)}

    @property
    def _optimises(self) -> bool:
        return self._options.graph_optimization_level != GraphOptimizationLevel.ORT_DISABLE_ALL

    # ---- onnxruntime's calls -------------------------------------------------------------------------------

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Array]:
        """Outputs (those named; all of them for None or an empty list) as new NumPy arrays.

        An initializer that is an input as well may be given another value for this run
        (`get_overridable_initializers`).

        Raises InputError for an unknown or missing input, a wrong dtype, rank or size; ShapeError where the
        sizes do not fit each other inside the model; TerminatedError where run_options say so. The session
        stays usable after each.
        """
        wanted = None if output_names is None else self._require_outputs(output_names)
        session = self._for(input_feed)
        feeds = session._feeds(input_feed)
        try:
            if run_options is None:
                outputs = session._driver.run(feeds)
            else:
                with run_with(run_options):
                    outputs = session._driver.run(feeds)
        except TerminatedError:
            raise
        except IngotError as error:
            found = session._reason(feeds)
            if found is None or str(found) == str(error):
                raise
            raise found from error
        except SYMPTOMS as error:
            raise malformed(session._model) or error from error
        except MemoryError as error:
            raise ShapeError(
                f"the run needs more memory than there is: {error}. Give smaller inputs, or check the "
                "sizes in the file."
            ) from error
        if not wanted:
            return outputs
        places = [self._positions[name] for name in wanted]
        if len({*places}) == len(places):
            return [outputs[place] for place in places]
        first = [places.index(place) == number for number, place in enumerate(places)]
        return [outputs[p] if own else copied(outputs[p]) for p, own in zip(places, first, strict=True)]

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """As `run`, with values in and out."""
        feed = {name: value.numpy() for name, value in input_dict_ort_values.items()}
        return [OrtValue(made) for made in self.run(output_names, feed, run_options)]

    def io_binding(self) -> IOBinding:
        """Inputs and outputs to bind, for `run_with_iobinding`."""
        return IOBinding(self, [*self._names, *self._defaults], list(self._positions))

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions | None = None) -> None:
        """Run on what is bound to it, of a model's inputs and outputs: see `IOBinding.run`."""
        iobinding.run(run_options)

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callable[[list[Array], Any, str], object],
        user_data: Any,
        run_options: RunOptions | None = None,
    ) -> None:
        """Run in a thread of its own, which then calls `callback(outputs, user_data, error)`: the outputs,
        and an empty string; or an empty list, and what went wrong. Inputs must stay as they are until then.
        """

        def work() -> None:
            outputs, problem = list[Array](), ""
            try:
                outputs = self.run(output_names, input_feed, run_options)
            except Exception as error:  # of whatever kind: nobody else could tell of it
                problem = str(error) or type(error).__name__
            callback(outputs, user_data, problem)

        threading.Thread(target=work, name="ingot run_async").start()

    def get_inputs(self) -> list[NodeArg]:
        """Name, type and shape of each input."""
        return list(self._inputs)

    def get_outputs(self) -> list[NodeArg]:
        """Name, type and shape of each output."""
        return list(self._outputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Name, type and shape of each initializer that run() may be given another value for."""
        return list(self._defaults.values())

    def get_providers(self) -> list[str]:
        """The providers that run this model, in order."""
        return list(self._providers)

    def set_providers(
        self,
        providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
        provider_options: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        """Raises ProviderError unless one of them runs here; the session goes on as it is."""
        self._providers = provider_choice.choose(providers, provider_options)

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """The options of each provider."""
        return {name: {} for name in self._providers}

    def get_session_options(self) -> SessionOptions:
        """The options the session was made with."""
        return self._options

    def get_modelmeta(self) -> ModelMetadata:
        """What the file says of itself."""
        return self._metadata

    # ---- what Ingot adds -----------------------------------------------------------------------------------

    @property
    def threads(self) -> int:
        """How many threads share the work."""
        return self._resources.threads

    def __copy__(self) -> InferenceSession:
        """Itself: calls of run() are independent."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> InferenceSession:
        """Itself, as `__copy__`."""
        del memo
        return self

    def __reduce__(self) -> NoReturn:
        """Raises InputError: machine code and threads stay in their process."""
        raise InputError(
            "an InferenceSession cannot be pickled: it holds machine code and threads of this process. Send "
            "the model's path or bytes to the other process, and make a session there."
        )

    def profile(self, input_feed: Mapping[str, Any], rounds: int = 10) -> list[NodeProfile]:
        """How each node is computed for these inputs, and the median time of its kernel over `rounds` runs.

        A fused kernel's time stands at the node it grew from; the others of the group have None.
        """
        session = self._for(input_feed)
        _require_rounds(rounds)
        return nodes_of(session._driver.profile(session._feeds(input_feed), rounds))

    def profile_kernels(self, input_feed: Mapping[str, Any], rounds: int = 10) -> list[KernelProfile]:
        """Every kernel call of a run in order, with its arithmetic, the memory it moves and the median time
        it took over `rounds` runs. Calls run one by one for this, so their sum is longer than a run.
        """
        session = self._for(input_feed)
        _require_rounds(rounds)
        return kernels_of(session._driver.profile(session._feeds(input_feed), rounds))

    def _require_outputs(self, names: Any) -> list[str]:
        """The names, once more as a list; raise InputError unless they are names of outputs."""
        if isinstance(names, str):
            raise InputError(f"output_names is the string {names!r}; give a list of names, or None")
        if not isinstance(names, Iterable):
            raise InputError(f"output_names is of type {type(names).__name__}; give a list of names, or None")
        wanted = list(cast("Iterable[Any]", names))
        unknown = [name for name in wanted if not isinstance(name, str) or name not in self._positions]
        if unknown:
            not_there, known = (", ".join(map(repr, n)) for n in (unknown, self._positions))
            raise InputError(f"the model has no output {not_there}; it has {known}. Ask for one of them.")
        return wanted

    def _for(self, feed: Any) -> InferenceSession:
        """The session that runs this feed: itself, or one with some initializers as inputs."""
        if type(feed) is not dict and not isinstance(
            feed, Mapping
        ):  # most are; the latter takes four times as long
            raise InputError(
                f"input_feed is of type {type(feed).__name__}; give a dict of arrays by input name"
                f" ({self._wanted()}), an empty one for a model without inputs"
            )
        named = cast("Mapping[str, Any]", feed)
        if named.keys() == self._names.keys():
            return self
        names = frozenset(self._defaults.keys() & named.keys())
        if not names:
            self._refuse_names(named)
        with self._resources.lock:
            if names not in self._variants:
                self._variants[names] = self._with_inputs(names)
        return self._variants[names]._for(named)

    def _with_inputs(self, names: frozenset[str]) -> InferenceSession:
        """A session on the same model, in which these initializers are inputs and nothing else."""
        model = self._again()
        for name in names:
            model.graph.initializers.pop(name).const_value = None
        session = InferenceSession.__new__(InferenceSession)
        session._options, session._providers = self._options, self._providers
        with collector_paused():
            session._open(model, self._again)
        return session

    def _feeds(self, feed: Mapping[str, Any]) -> list[Array]:
        """The inputs in order, as the graph wants them; the files that weights are read from are still what
        they were.
        """
        if self._files:
            require_as_they_were(self._files)
        arrays: list[Any] = []
        for arg, name, type_, dtype, rank, fixed in self._wants:
            array: Any = feed[name]
            # The usual case first, with as little as possible to look at.
            if type(array) is not _NDARRAY or array.dtype != dtype or not array.flags.c_contiguous:
                array = type_.accept(f"input {name!r}", array)
                if array is None or type(array) in (list, dict):
                    arrays.append(array)
                    continue
            if rank is not None and rank != array.ndim:
                raise InputError(
                    f"input {name!r} has shape {list(array.shape)} of rank {array.ndim}; "
                    f"the model wants rank {rank}: {_show(arg.shape)}"
                )
            for axis, size in fixed:
                if array.shape[axis] != size:
                    raise InputError(
                        f"input {name!r} has shape {list(array.shape)}; the model wants {_show(arg.shape)}"
                    )
            arrays.append(array)
        return arrays

    def _reason(self, feeds: Sequence[Any]) -> IngotError | None:
        """What the model itself says of inputs with which a run has failed."""
        ranges = self._model.metadata_props.get(RANGES, "{}")
        return reason(ranges, self._driver.index, self._inputs, feeds)

    def _wanted(self) -> str:
        return ", ".join(f"{a.name!r} {a.type} {_show(a.shape)}" for a in self._inputs) or "none"

    def _refuse_names(self, feed: Mapping[str, Any]) -> NoReturn:
        wanted = self._wanted()
        unknown = [name for name in feed if name not in self._names]
        if unknown:
            raise InputError(
                f"the model has no input {', '.join(map(repr, unknown))}; its inputs are {wanted}"
            )
        missing = [name for name in self._names if name not in feed]
        raise InputError(f"input {', '.join(map(repr, missing))} is missing; the model's inputs are {wanted}")


#: An input, its name and type, the dtype of arrays that need no look at each element (of strings it is None),
#: the rank and the axes with a size of their own.
_Wanted: TypeAlias = "tuple[NodeArg, str, ValueType, np.dtype[Any] | None, int | None, list[tuple[int, int]]]"


def _wanted(value: ir.Value, arg: NodeArg) -> _Wanted:
    type_ = _input_type(value)
    dtype = type_.dtype if type_.is_tensor and type_.dtype != object else None
    rank = None if value.shape is None else len(value.shape)
    fixed = [(axis, size) for axis, size in enumerate(arg.shape) if isinstance(size, int)]
    return arg, arg.name, type_, dtype, rank, fixed


def _load(source: Any, lift: bool, given: Collection[str]) -> ir.Model:
    """A model of its own: the session changes its graph."""
    model = source if isinstance(source, ir.Model) else getattr(source, "model", None)
    if isinstance(model, ir.Model):  # that of a Program, perhaps
        own = load(model).clone()
        note_files(own, files_of(model))
        return own
    return load(source, lift=lift, given=given)


def _again(source: Any, model: ir.Model, given: Collection[str]) -> Callable[[], ir.Model]:
    """How to have the model once more, as it came. A file is read again, if it is still the same; what its
    owner may change is copied now, if anybody can ask for it.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(cast("str | os.PathLike[str]", source))
        state = state_of(path)

        def read() -> ir.Model:
            if state is None or state_of(path) != state:
                raise InputError(
                    f"{path} has changed since the session was made, so no initializer can be given another "
                    "value. Make a new session."
                )
            return load(path, given=given)

        return read
    if isinstance(source, bytes):
        return lambda: load(source, given=given)
    if not any(value.name in model.graph.initializers for value in model.graph.inputs):
        return lambda: model  # nobody will ask
    copy = model.clone()
    return copy.clone


def _cores() -> int:
    available: Callable[[int], Any] | None = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available is not None else os.cpu_count() or 1


def _input_type(value: ir.Value) -> ValueType:
    found = type_of(value)
    if found is None:
        raise ModelError(
            f"input {value.name!r} has no type in the file; run onnx.shape_inference or export it again"
        )
    return found


def _unmade(index: Index) -> ModelError:
    """A value that is used and that nobody makes."""
    missing = index.captured[0]
    readers = [label(n) for n, reads in zip(index.nodes, index.reads, strict=True) if missing in reads]
    what = (
        f"{readers[0]} reads {missing.name!r}" if readers else f"{missing.name!r} is an output of the graph"
    )
    return ModelError(f"{what}, and no node, input or initializer makes it. Export the model again.")


def _require_rounds(rounds: Any) -> None:
    if not isinstance(rounds, int) or rounds < 1:
        raise InputError(f"rounds is {rounds!r}; it must be an integer of 1 or more")


def _node_arg(value: ir.Value) -> NodeArg:
    type_ = type_of(value)
    shape: list[int | str | None] = []
    if type_ is None or type_.kind not in ("seq", "map"):
        for dim in value.shape or ():
            # Some exporters write -1 for a size that is not known.
            shape.append((dim if dim >= 0 else None) if isinstance(dim, int) else dim.value)
    return NodeArg(value.name or "", "tensor(undefined)" if type_ is None else str(type_), shape)


def _show(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
