"""InferenceSession: onnxruntime's surface over Ingot's own CPU provider."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ingot.codegen import machine
from ingot.compiler.index import index_graph
from ingot.errors import InputError, ModelError
from ingot.loading import collector_paused, load
from ingot.ops.lowering import PlanOptions
from ingot.ops.registry import Array
from ingot.passes.opset import normalise
from ingot.passes.pipeline import prepare
from ingot.runtime import providers as provider_choice
from ingot.runtime.driver import Driver, Resources
from ingot.runtime.options import GraphOptimizationLevel, ModelMetadata, NodeArg, RunOptions, SessionOptions
from ingot.runtime.profile import KernelProfile, NodeProfile, kernels_of, nodes_of

if TYPE_CHECKING:
    import onnx

    from ingot.program import Program

_TYPE_NAMES = {
    "float32": "float", "float64": "double", "float16": "float16", "bfloat16": "bfloat16", "int8": "int8",
    "int16": "int16", "int32": "int32", "int64": "int64", "uint8": "uint8", "uint16": "uint16",
    "uint32": "uint32", "uint64": "uint64", "bool": "bool", "object": "string", "complex64": "complex64",
    "complex128": "complex128",
}  # fmt: skip


class InferenceSession:
    """A model, ready to run. Thread-safe: concurrent calls of run() are independent.

    path_or_bytes: path of an .onnx file, its bytes, an onnx.ModelProto, an onnx_ir.Model or an ingot.Program.
    sess_options: threads and optimisation level, see SessionOptions.
    providers: names in order of preference; see `ingot.get_available_providers()`.

    Raises ModelError for what is not a valid model, UnsupportedOperatorError for an operator nobody here can
    run, ProviderError for a provider that is not available.
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
        self._options = sess_options or SessionOptions()
        self._providers = provider_choice.choose(providers, provider_options)
        with collector_paused():
            self._open(path_or_bytes)

    def _open(self, source: Any) -> None:
        model = _load(source)
        graph = model.graph
        self._metadata = ModelMetadata(
            producer_name=model.producer_name or "",
            graph_name=graph.name or "",
            domain=model.domain or "",
            description=model.doc_string or "",
            graph_description=graph.doc_string or "",
            version=model.model_version or 0,
            custom_metadata_map=dict(model.metadata_props),
        )
        fed = [value for value in graph.inputs if value.name not in graph.initializers]
        self._inputs = [_node_arg(value) for value in fed]
        self._outputs = [_node_arg(value) for value in graph.outputs]
        self._dtypes = [_dtype(value) for value in fed]
        self._fixed = [
            [(axis, size) for axis, size in enumerate(arg.shape) if isinstance(size, int)]
            for arg in self._inputs
        ]
        self._names = {arg.name: number for number, arg in enumerate(self._inputs)}
        optimise = self._options.graph_optimization_level != GraphOptimizationLevel.ORT_DISABLE_ALL
        prepare(model) if optimise else normalise(model)
        index = index_graph(model.graph)
        if index.captured:
            names = ", ".join(repr(v.name) for v in index.captured)
            raise ModelError(
                f"the graph uses {names}, and no node, input or initializer makes it; the file is damaged"
            )
        index.inputs = [value for value in index.inputs if value not in index.constants]
        threads = self._options.intra_op_num_threads or _cores()
        if threads < 0:
            raise InputError(f"intra_op_num_threads is {threads}; it must be 0 (all cores) or more")
        self._resources = Resources(
            machine.host(),
            threads,
            PlanOptions(self._options.enable_winograd, self._options.enable_amx),
            progress=_Progress(),
        )
        self._driver = Driver(index, self._resources)
        self._positions = {n: i for i, n in enumerate(arg.name for arg in self._outputs)}

    # ---- onnxruntime's calls -------------------------------------------------------------------------------

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Array]:
        """Outputs (those named; all of them for None or an empty list) as new NumPy arrays.

        Raises InputError for an unknown or missing input, a wrong dtype, rank or size; ShapeError where the
        sizes do not fit each other inside the model. The session stays usable after either.
        """
        del run_options
        unknown = [name for name in output_names or () if name not in self._positions]
        if unknown:
            names, known = (", ".join(map(repr, n)) for n in (unknown, self._positions))
            raise InputError(f"the model has no output {names}; it has {known}. Ask for one of them.")
        outputs = self._driver.run(self._feeds(input_feed))
        return [outputs[self._positions[name]] for name in output_names] if output_names else outputs

    def get_inputs(self) -> list[NodeArg]:
        """Name, type and shape of each input."""
        return list(self._inputs)

    def get_outputs(self) -> list[NodeArg]:
        """Name, type and shape of each output."""
        return list(self._outputs)

    def get_providers(self) -> list[str]:
        """The providers that run this model, in order."""
        return list(self._providers)

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

    def profile(self, input_feed: Mapping[str, Any], rounds: int = 10) -> list[NodeProfile]:
        """How each node is computed for these inputs, and the median time of its kernel over `rounds` runs.

        A fused kernel's time stands at the node it grew from; the others of the group have None.
        """
        return nodes_of(self._driver.profile(self._feeds(input_feed), rounds))

    def profile_kernels(self, input_feed: Mapping[str, Any], rounds: int = 10) -> list[KernelProfile]:
        """Every kernel call of a run in order, with its arithmetic, the memory it moves and the median time
        it took over `rounds` runs. Calls run one by one for this, so their sum is longer than a run.
        """
        return kernels_of(self._driver.profile(self._feeds(input_feed), rounds))

    def _feeds(self, feed: Mapping[str, Any]) -> list[Array]:
        if feed.keys() != self._names.keys():
            self._refuse_names(feed)
        arrays: list[Array] = []
        for arg, dtype, fixed in zip(self._inputs, self._dtypes, self._fixed, strict=True):
            given = feed[arg.name]
            array = given if type(given) is np.ndarray else _as_array(arg, given, dtype)
            if array.dtype != dtype:
                raise InputError(
                    f"input {arg.name!r} has dtype {array.dtype}; the model wants {dtype}. "
                    f"Convert it with .astype({str(dtype)!r})."
                )
            if len(arg.shape) != array.ndim:
                raise InputError(
                    f"input {arg.name!r} has shape {list(array.shape)} of rank {array.ndim}; "
                    f"the model wants rank {len(arg.shape)}: {_show(arg.shape)}"
                )
            for axis, size in fixed:
                if array.shape[axis] != size:
                    raise InputError(
                        f"input {arg.name!r} has shape {list(array.shape)}; "
                        f"the model wants {_show(arg.shape)}"
                    )
            arrays.append(array if array.flags.c_contiguous else array.copy(order="C"))
        return arrays

    def _refuse_names(self, feed: Mapping[str, Any]) -> None:
        wanted = ", ".join(f"{a.name!r} {a.type} {_show(a.shape)}" for a in self._inputs) or "none"
        unknown = [name for name in feed if name not in self._names]
        if unknown:
            raise InputError(
                f"the model has no input {', '.join(map(repr, unknown))}; its inputs are {wanted}"
            )
        missing = [name for name in self._names if name not in feed]
        raise InputError(f"input {', '.join(map(repr, missing))} is missing; the model's inputs are {wanted}")


class _Progress:
    """A line on stderr while kernels are compiled, once that takes longer than a second."""

    def __init__(self) -> None:
        self._began = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 1:
            self._began = now
        if now - self._began > 1 and sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(
                f"\ringot: compiling kernels for this CPU, {done} of {total}",
                end=end,
                file=sys.stderr,
                flush=True,
            )


def _load(source: Any) -> ir.Model:
    """A model of its own: the session changes its graph."""
    if isinstance(source, ir.Model):
        return source.clone()
    model = getattr(source, "model", None)
    if isinstance(model, ir.Model):  # a Program
        return model.clone()
    return load(source)


def _cores() -> int:
    available: Callable[[int], Any] | None = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available is not None else os.cpu_count() or 1


def _dtype(value: ir.Value) -> np.dtype[Any]:
    if value.dtype is None:
        raise ModelError(
            f"input {value.name!r} has no dtype in the file; run onnx.shape_inference or export it again"
        )
    if value.dtype == ir.DataType.STRING:
        return np.dtype(object)
    return np.dtype(value.dtype.numpy())


def _node_arg(value: ir.Value) -> NodeArg:
    dtype = (
        "undefined"
        if value.dtype is None
        else _TYPE_NAMES.get(
            "object" if value.dtype == ir.DataType.STRING else np.dtype(value.dtype.numpy()).name,
            value.dtype.name.lower(),
        )
    )
    shape: list[int | str | None] = []
    for dim in value.shape or ():
        # Some exporters write -1 for a size that is not known.
        shape.append((dim if dim >= 0 else None) if isinstance(dim, int) else dim.value)
    return NodeArg(value.name or "", f"tensor({dtype})", shape)


def _as_array(arg: NodeArg, given: Any, dtype: np.dtype[Any]) -> Array:
    """Lists and numbers take the model's dtype; other libraries' tensors keep their own."""
    try:
        own = dtype if issubclass(type(given), (list, tuple, int, float, bool, str)) else None
        return np.asarray(given, own)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"input {arg.name!r} is a {type(given).__name__} that is no array: {error}"
        ) from None


def _show(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
