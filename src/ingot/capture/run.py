"""One recording from start to end: example sizes to symbols, the model run on fake tensors, an ONNX model
out.
"""

# torch's shape environment and fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensor

from ingot.capture.assume import Assumption
from ingot.capture.dims import InputSpec
from ingot.capture.intercept import Intercept, SizeWanted, python_functions_run_as_they_are
from ingot.capture.record import Dispatch, Recorder
from ingot.capture.signature import Arguments, Leaf, check_names, leaves, unique_names
from ingot.capture.sizes import SizeEnv
from ingot.capture.symbolic_int import KeepSymbolic, shadowed_int
from ingot.capture.tensors import dtype_of
from ingot.capture.where import asked_by_user, converting_frame
from ingot.errors import ExportError

# Recording patches torch for its duration, so one at a time in a process.
_LOCK = threading.RLock()

# The oldest file format that has the opset: what the widest range of runtimes loads.
_IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13}


@dataclass
class Recording:
    """What one run of the model's Python gave."""

    model: ir.Model
    env: SizeEnv
    recorder: Recorder
    output: Any  # the structure the model returned, with fake tensors as leaves
    output_names: list[str]
    assumptions: list[Assumption]


def record(
    function: Any,
    arguments: Arguments,
    specs: Sequence[InputSpec],
    hints: dict[str, int],
    output_names: Sequence[str] | None,
    opset: int,
) -> Recording:
    """Run `function` on fake tensors whose symbolic sizes have the given hints, writing ONNX as it goes.

    It runs once; and once more for each other Python module that calls `int()` on a size, with an `int` that
    lets sizes be.

    Raises:
        DataDependentError, MissingOperatorError, ExportError: with the user's line.
        Exception: whatever the model raises for these sizes.
    """
    symbolic_int = _globals_of(function)
    while True:
        try:
            return _record(function, arguments, specs, hints, output_names, opset, symbolic_int)
        except KeepSymbolic as found:
            symbolic_int.append(found.module_globals)


def _record(
    function: Any,
    arguments: Arguments,
    specs: Sequence[InputSpec],
    hints: dict[str, int],
    output_names: Sequence[str] | None,
    opset: int,
    symbolic_int: list[dict[str, Any]],
) -> Recording:
    with _LOCK, unchanged(function) as state, shadowed_int(symbolic_int), quiet_torch():
        env = SizeEnv()
        recorder = Recorder(env, opset)
        env.on_int = lambda: _before_number(symbolic_int, recorder)
        if isinstance(function, torch.nn.Module):
            for name, tensor in [
                *function.named_parameters(remove_duplicate=False),
                *function.named_buffers(),
            ]:
                recorder.parameter_names.setdefault(id(tensor), name)
        symbols = {name: env.new_dim(name, hint) for name, hint in hints.items()}
        inputs: list[ir.Value] = []
        with torch.no_grad(), recorder.mode:
            fakes: list[Any] = []
            for spec in specs:
                shape = [symbols[d] if isinstance(d, str) else d for d in spec.dims]
                fake = torch.empty(shape, dtype=spec.dtype)
                value = ir.Value(
                    name=recorder.graph.unique(spec.name), type=ir.TensorType(dtype_of(spec.dtype))
                )
                recorder.add_input(fake, value)
                fakes.append(fake)
                inputs.append(value)
            args, kwargs = arguments.with_tensors(fakes)
            with (
                module_paths(function, recorder),
                python_functions_run_as_they_are(),
                Intercept(recorder),
                Dispatch(recorder),
            ):
                output = function(*args, **kwargs)
            recorder.missing.raise_if_any()
            outputs, names = _outputs(recorder, output, arguments.names, output_names)
            recorder.untie_transposed()
        for value, fake in zip(inputs, fakes, strict=True):
            value.shape = ir.Shape([recorder.dim_label(d) for d in fake.shape])
        model = _model(recorder, inputs, outputs)
        assumptions = [*recorder.assumptions, *state.assumptions()]
        return Recording(model, env, recorder, output, names, assumptions)


def _outputs(
    recorder: Recorder, output: Any, inputs: Sequence[str], names: Sequence[str] | None
) -> tuple[list[ir.Value], list[str]]:
    """Name the tensors the model returned and put an Identity under those that are an input, a constant or
    repeated.
    """
    found: list[Leaf] = []
    for leaf in leaves(output):
        v = leaf.value
        if isinstance(v, (torch.Tensor, torch.SymInt, torch.SymFloat)):
            found.append(leaf)
        elif v is not None and not isinstance(v, (bool, int, float, str)):
            raise ExportError(
                f"the model returns a {type(v).__name__} at {leaf.name or 'its output'}; wanted tensors, "
                "in tuples, lists, "
                "dicts or dataclasses. Return the tensors inside it, or switch it off (a key-value "
                "cache: use_cache=False)."
            )
    if not found:
        raise ExportError(
            f"the model returns no tensor but {type(output).__name__}. Return at least one tensor."
        )
    named = [leaf.name if leaf.path else "output" for leaf in found]
    named = [f"output_{n}" if n.isdigit() else n for n in named]
    if names is not None:
        check_names("output_names", names, named, inputs)
        named[: len(names)] = names
    taken = {v.name for v in recorder.graph.initializers.values()}
    named = unique_names(named, inputs)
    recorder.graph.scope = ""
    outputs: list[ir.Value] = []
    for leaf in found:
        v = leaf.value
        value = recorder.val(v)
        if value.producer() is None or value in outputs or value.is_graph_output():
            shape, dtype = value.shape, value.type
            value = recorder.op("Identity", value)
            value.shape, value.type = shape, dtype
        if isinstance(v, torch.Tensor):
            value.type, value.shape = ir.TensorType(dtype_of(v.dtype)), None
            recorder.annotate(value, v)
        else:
            kind = ir.DataType.INT64 if isinstance(v, torch.SymInt) else ir.DataType.DOUBLE
            value.type, value.shape = ir.TensorType(kind), ir.Shape([])
        outputs.append(value)
    for name, value in zip(named, outputs, strict=True):
        value.name = recorder.graph.unique(name) if name in taken else name
    return outputs, [str(v.name) for v in outputs]


def _model(recorder: Recorder, inputs: list[ir.Value], outputs: list[ir.Value]) -> ir.Model:
    """Nodes that lead to an output, initializers that are used, names that are unique."""
    needed: list[ir.Node] = []
    alive: set[int] = {id(v) for v in outputs}
    for node in reversed(recorder.graph.nodes):
        if any(id(v) in alive for v in node.outputs):
            needed.append(node)
            alive.update(id(v) for v in node.inputs if v is not None)
    needed.reverse()
    own = {v.name for v in [*inputs, *outputs]}
    held = set(map(id, outputs))
    for node in needed:
        for v in node.outputs:
            if v.name in own and id(v) not in held:
                v.name = recorder.graph.unique(str(v.name))
    for v in [v for node in needed for v in node.outputs]:
        if v.shape is not None and v not in outputs:
            v.shape = ir.Shape([_canonical(recorder, d) for d in v.shape])
    initializers = [v for v in recorder.graph.initializers.values() if id(v) in alive]
    for v in initializers:
        if v.name in own:
            v.name = recorder.graph.unique(str(v.name))
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=needed,
        initializers=initializers,
        opset_imports={"": recorder.opset},
        name="main",
    )
    return ir.Model(graph, ir_version=_IR_VERSIONS.get(recorder.opset, 10), producer_name="ingot")


def _canonical(recorder: Recorder, dim: int | ir.SymbolicDim) -> int | str | None:
    """A dimension's label after the model fixed or unified it."""
    if isinstance(dim, int):
        return dim
    label = dim.value
    if not isinstance(label, str):
        return None
    for symbol, name in recorder.env.names.items():
        if name == label:
            e = recorder.env.canon(symbol)
            return int(e) if e.is_number else recorder.env.names[e]
    return label


# -- int(size)


def _globals_of(function: Any) -> list[dict[str, Any]]:
    """Globals of the Python modules that a model's classes come from: `int` is theirs to call on sizes."""
    if not isinstance(function, torch.nn.Module):
        return []
    names = {type(m).__module__ for m in function.modules()}
    own = [n for n in names if n in sys.modules and n.split(".")[0] not in ("torch", "builtins")]
    return [vars(sys.modules[n]) for n in sorted(own) if "int" not in vars(sys.modules[n])]


def _before_number(already: Sequence[dict[str, Any]], recorder: Recorder) -> None:
    """A size is about to become a Python number: see whether that can be avoided.

    `int(x.shape[0])` in the user's code: start again with an `int` that leaves sizes as they are. torch's
    own C++:
    take the operator's Python form instead.
    """
    frame = converting_frame("__int__")
    if frame is not None:
        if not any(frame.f_globals is g for g in already):
            raise KeepSymbolic(frame.f_globals)
    elif not asked_by_user() and not recorder.in_python:
        raise SizeWanted


@contextlib.contextmanager
def quiet_torch() -> Generator[None]:
    """torch logs every error of a fake tensor with a traceback; the error itself reaches the caller
    anyway.
    """
    loggers = [
        logging.getLogger(n) for n in ("torch._subclasses.fake_tensor", "torch.fx.experimental.sym_node")
    ]
    levels = [x.level for x in loggers]
    for x in loggers:
        x.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for x, level in zip(loggers, levels, strict=True):
            x.setLevel(level)


# -- the module while it runs


@contextlib.contextmanager
def module_paths(function: Any, recorder: Recorder) -> Generator[None]:
    """Keep the path of the running submodule in `recorder.modules`."""
    if not isinstance(function, torch.nn.Module):
        yield
        return
    paths = {id(m): name for name, m in function.named_modules()}
    hooks: Any = torch.nn.modules.module

    def enter(module: Any, *_: Any) -> None:
        recorder.modules.append(paths.get(id(module), recorder.modules[-1] if recorder.modules else ""))

    def leave(*_: Any) -> None:
        if recorder.modules:
            recorder.modules.pop()

    first = hooks.register_module_forward_pre_hook(enter)
    last = hooks.register_module_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        first.remove()
        last.remove()


class _State:
    """Attributes of every submodule before the run, and what the run did to them."""

    def __init__(self, modules: Sequence[tuple[str, torch.nn.Module]]) -> None:
        self.modules = modules
        self.before = [dict(m.__dict__) for _, m in modules]
        self.containers = [
            _contents(m) for _, m in modules
        ]  # hooks are put into dicts that stay the same object
        self.buffers = [dict(m._buffers) for _, m in modules]
        self.parameters = [dict(m._parameters) for _, m in modules]

    def assumptions(self) -> list[Assumption]:
        """Attributes the model wrote; a rewritten buffer is refused."""
        found: list[Assumption] = []
        for (path, m), before, buffers in zip(self.modules, self.before, self.buffers, strict=True):
            for name, value in m._buffers.items():
                if value is not buffers.get(name):
                    raise ExportError(
                        f"buffer {_join(path, name)!r} is replaced in forward: state that outlives the "
                        "call, which an ONNX "
                        "model does not have. Take it as an input and return it as an output."
                    )
            for name, value in m.__dict__.items():
                if name not in before or before[name] is not value:
                    whose = _join(path, name)
                    what = f"attribute {whose!r} is written in forward; the exported model does not keep it"
                    found.append(Assumption("constant", whose, what, "assumed"))
        return found

    def restore(self) -> None:
        """Put every attribute back, so that no fake tensor stays behind."""
        rows = zip(self.modules, self.before, self.buffers, self.parameters, strict=True)
        for (_, m), before, buffers, parameters in rows:
            m.__dict__.clear()
            m.__dict__.update(before)
            tables: Any = ((m._buffers, buffers), (m._parameters, parameters))
            for mine, old in tables:
                mine.clear()
                mine.update(old)
        for saved in self.containers:
            for container, contents in saved:
                if isinstance(container, list):
                    container[:] = contents
                else:
                    container.clear()
                    container.update(contents)


def _contents(module: torch.nn.Module) -> list[tuple[Any, Any]]:
    return [(v, type(v)(v)) for v in module.__dict__.values() if type(v) in (dict, list, set, OrderedDict)]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@contextlib.contextmanager
def unchanged(function: Any) -> Generator[_State]:
    """eval() for the time of the run; every submodule's mode and attributes as before afterwards."""
    modules = list(function.named_modules()) if isinstance(function, torch.nn.Module) else []
    modes = [m.training for _, m in modules]
    for _, m in modules:
        m.training = False
    state = _State(modules)
    try:
        yield state
    finally:
        state.restore()
        for (_, m), mode in zip(modules, modes, strict=True):
            m.training = mode


def is_fake(tensor: Any) -> bool:
    """Whether a tensor is one of a recording's."""
    return isinstance(tensor, FakeTensor)
