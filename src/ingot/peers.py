# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# The peers are optional and most of them ship no type stubs.
"""Other ways to run the same model, each behind one call: what `ingot bench` and the benchmarks compare with.

Every peer gets the same file and the same arrays, float32 arithmetic, the given number of threads and,
where it can be told, the fixed shapes of these inputs: each as fast as its own documentation says to make
it. Peers are imported when asked for; one that is not installed raises MissingExtraError.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ingot.errors import IngotError, InputError, MissingExtraError, ProviderError
from ingot.loading import load

Arrays = list[NDArray[Any]]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Job:
    """What is to be run: the file, its inputs by name, the threads, and the PyTorch module behind the
    file.
    """

    path: Path
    inputs: Mapping[str, NDArray[Any]]
    threads: int
    module: Any = None


@dataclass(frozen=True)
class Runner:
    """A peer that is ready: `call()` runs the job once and returns its outputs in the file's order."""

    call: Callable[[], Arrays]
    version: str
    load_seconds: float


def prepare(name: str, job: Job) -> Runner:
    """Open `job` with the peer `name` (a key of PEERS) and return it ready to run.

    Raises MissingExtraError where it is not installed, ProviderError, naming the peer and its complaint,
    where it cannot take the model, and ProviderError for an unknown name.
    """
    if name not in PEERS:
        raise ProviderError(f"no peer is called {name!r}; there are {', '.join(PEERS)}")
    start = time.perf_counter()
    try:
        call, version = PEERS[name](job)
    except IngotError:
        raise
    except Exception as error:  # whatever a peer raises is its refusal
        raise ProviderError(f"{name} cannot take {job.path.name}: {complaint(error)}") from error
    return Runner(call, version, time.perf_counter() - start)


def parse_runners(text: str) -> list[str]:
    """Split `onnxruntime,openvino`; raises InputError, naming those there are, for a name that is none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PEERS:
            raise InputError(f"no runner is called {name!r}; there are {', '.join(PEERS)}")
    return names


def complaint(error: Exception) -> str:
    """Return what an error says on one line of at most 300 characters; OpenVINO's own source lines are left
    out.
    """
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(("Exception from src", "Check '")))
    text = text or type(error).__name__
    return text if len(text) <= 300 else text[:299] + "…"


def _import(package: str, command: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(f"{package} is not installed; `{command}` installs it") from error


def _ingot(job: Job) -> tuple[Callable[[], Arrays], str]:
    import ingot

    options = ingot.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = ingot.InferenceSession(str(job.path), options)
    inputs = dict(job.inputs)

    def call() -> Arrays:
        return [np.asarray(value) for value in session.run(None, inputs)]

    return call, ingot.__version__


def _torch_call(job: Job, compiled: bool) -> tuple[Callable[[], Arrays], str]:
    torch = _import("torch", "pip install 'ingot[torch]'")
    if job.module is None:
        raise ProviderError(
            f"torch needs the PyTorch model that {job.path.name} came from; "
            "name it with --source MODULE:FACTORY"
        )
    pytree = importlib.import_module("torch.utils._pytree")
    torch.set_num_threads(job.threads)
    module = job.module
    if compiled:
        torch.compiler.reset()  # code compiled for another number of threads
        module = torch.compile(module, dynamic=False)
    # Arrays that came out of a file may be read-only, which torch warns about.
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in job.inputs.items()}

    takes = inspect.signature(job.module.forward).parameters
    # A file whose inputs have names of their own has them in the order of the call.
    named = tensors if all(name in takes for name in tensors) else {}
    rest = [] if named else list(tensors.values())

    def call() -> Arrays:
        with torch.inference_mode():
            leaves = pytree.tree_leaves(module(*rest, **named))
        return [leaf.numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]

    call()
    return call, torch.__version__


def other_weight(job: Job) -> str | None:
    """A weight of the PyTorch module that has the name of one in the file, and other numbers."""
    if job.module is None:
        return None
    held: dict[str, Any] = dict(job.module.state_dict())
    for name, value in load(job.path).graph.initializers.items():
        ours = held.get(name)
        if ours is None or value.const_value is None:
            continue
        theirs = np.asarray(value.const_value.numpy(), np.float64)
        mine = np.asarray(ours.detach().cpu().double().numpy())
        alike = (
            [mine] if mine.ndim < 2 else [mine, np.swapaxes(mine, -1, -2)]
        )  # a product's may be transposed
        if not any(m.shape == theirs.shape and np.allclose(m, theirs) for m in alike):
            return str(name)
    return None


def _onnxruntime(job: Job) -> tuple[Callable[[], Arrays], str]:
    ort = _import("onnxruntime", "pip install onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for name, value in symbolic_dims(job).items():
        options.add_free_dimension_override_by_name(name, value)
    session = ort.InferenceSession(str(job.path), options, providers=["CPUExecutionProvider"])
    inputs = dict(job.inputs)
    return lambda: session.run(None, inputs), ort.__version__


def _openvino(job: Job) -> tuple[Callable[[], Arrays], str]:
    openvino = _import("openvino", "pip install openvino")
    core = openvino.Core()
    model = core.read_model(str(job.path))
    model.reshape({name: list(array.shape) for name, array in job.inputs.items()})
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": job.threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Left to itself it computes in bfloat16 on processors that have it.
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )
    request = compiled.create_infer_request()
    inputs = dict(job.inputs)

    def call() -> Arrays:
        results = request.infer(inputs, share_inputs=True)
        return [results[index] for index in range(len(compiled.outputs))]

    return call, openvino.__version__.split("-")[0]


def _mnn(job: Job) -> tuple[Callable[[], Arrays], str]:
    mnn = _import("MNN", "pip install MNN")
    names, output_names = list(job.inputs), _output_names(job.path)
    folder = _mnn_folder(job.path, job.path.stat().st_mtime_ns)
    config = {"backend": "CPU", "precision": "high", "numThread": job.threads}
    runtime = mnn.nn.create_runtime_manager((config,))
    module = mnn.nn.load_module_from_file(
        str(Path(folder.name) / "model.mnn"),
        names,
        output_names,
        runtime_manager=runtime,
        shape_mutable=False,
    )
    expr = mnn.expr
    # MNN has no 64-bit integers; token ids fit 32.
    arrays = [array.astype(np.int32) if array.dtype == np.int64 else array for array in job.inputs.values()]
    variables = [
        expr.const(array, list(array.shape), expr.NCHW, expr.int if array.dtype == np.int32 else expr.float)
        for array in arrays
    ]

    def call() -> Arrays:
        # Channel-blocked results are put back in the file's order: part of handing an answer over.
        return [np.array(expr.convert(value, expr.NCHW).read()) for value in module.onForward(variables)]

    call()
    return call, mnn.version()


@functools.lru_cache(maxsize=1)
def _mnn_folder(path: Path, modified: int) -> tempfile.TemporaryDirectory[str]:
    """A folder with `model.mnn`, converted from the file. Kept for the next number of threads or batch size:
    converting takes far longer than anything else that is done here.
    """
    del modified  # another file may come to stand at the same path
    folder = tempfile.TemporaryDirectory()
    converted = Path(folder.name) / "model.mnn"
    arguments = ["-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(converted), "--bizCode", "bench"]
    result = subprocess.run(
        [sys.executable, "-c", "from MNN.tools.mnnconvert import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if not converted.exists():
        raise ProviderError(f"MNN cannot convert {path.name}: {_last_line(result.stdout + result.stderr)}")
    return folder


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it says nothing"


def _output_names(path: Path) -> list[str]:
    model = onnx.load(str(path), load_external_data=False)
    return [output.name for output in model.graph.output]


def symbolic_dims(job: Job) -> dict[str, int]:
    """Return the size that the job's inputs give to each named dimension of the file's inputs.

    A name that stands for different sizes (some exporters call every dimension "?") is left out.
    """
    model = onnx.load(str(job.path), load_external_data=False)
    sizes: dict[str, int] = {}
    ambiguous: set[str] = set()
    for value in model.graph.input:
        array = job.inputs.get(value.name)
        if array is None:
            continue
        for dim, size in zip(value.type.tensor_type.shape.dim, array.shape, strict=False):
            if dim.dim_param and sizes.setdefault(dim.dim_param, size) != size:
                ambiguous.add(dim.dim_param)
    return {name: size for name, size in sizes.items() if name not in ambiguous}


PEERS: dict[str, Callable[[Job], tuple[Callable[[], Arrays], str]]] = {
    "ingot": _ingot,
    "torch": lambda job: _torch_call(job, compiled=False),
    "torch.compile": lambda job: _torch_call(job, compiled=True),
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "mnn": _mnn,
}
