"""PyTorch's other forms of a model, exported programs, graph modules, scripted modules and their files, as
modules whose Python a recording can run.
"""

# What torch makes of a graph is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false, reportMissingTypeStubs=false

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import sys
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import BuiltinFunctionType
from typing import Any

import numpy as np
import sympy
import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ingot.capture import where
from ingot.capture.dims import default_name
from ingot.capture.request import recorder, recording
from ingot.capture.signature import Count, Dim, Input, rebuild
from ingot.capture.stage import RUNTIME
from ingot.capture.subgraphs import INSTEAD
from ingot.capture.torchscript import as_module
from ingot.errors import ExportError, IngotError

_NO_BOUND = 1 << 40  # torch's "infinity" is larger


def opened(model: Any, args: Any, kwargs: Mapping[str, Any] | None) -> tuple[Any, Any, Any]:
    """A module that a recording can run, and the arguments of one call: the model's own where it has them and
    the caller gave none.
    """
    model = _uncompiled(model)
    if isinstance(model, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        return as_module(model), args, kwargs
    none_given = isinstance(args, tuple) and not args and not kwargs
    if isinstance(model, torch.export.ExportedProgram):
        return _program(model, args, kwargs, none_given)
    if isinstance(model, GraphModule):
        described = _described(model, args, kwargs, none_given)
        return (_running(model), *described)
    return model, args, kwargs


def _uncompiled(model: Any) -> Any:
    """The module that torch.compile has put its own around."""
    compiler = sys.modules.get("torch._dynamo.eval_frame")  # not imported where nothing was compiled
    return model._orig_mod if compiler is not None and isinstance(model, compiler.OptimizedModule) else model


def read(path: Path) -> Any:
    """The model in a file that torch wrote: an exported program (`.pt2`) or a scripted module.

    Raises:
        ExportError: there is no such file, or it holds no model.
    """
    if not path.is_file():
        found = "this is a directory" if path.is_dir() else "no such file"
        raise ExportError(f"{path}: {found}. Give a .pt2 file or a TorchScript file.")
    if path.suffix == ".onnx":
        raise ExportError(
            f"{path} is an ONNX file already, and export makes those of PyTorch models. Run it with "
            "ingot.InferenceSession or `ingot run`; ingot.optimize writes a simpler one."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        names = []
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}. Check its permissions.") from error
    inside = {name.partition("/")[2] for name in names}
    if any(name.startswith("code/") for name in inside):
        return _loaded(path, "TorchScript module", functools.partial(torch.jit.load, map_location="cpu"))
    if any("serialized_exported_program" in n or n.startswith("models/") for n in (*inside, *names)):
        return _loaded(path, "exported program", torch.export.load)
    found = "an archive of something else"
    if any(n.endswith("data.pkl") for n in inside):
        found = "pickled Python objects"
    elif not names:
        found = "neither of PyTorch's archives, or a part of one" if path.stat().st_size else "nothing"
    raise ExportError(
        f"{path} holds {found}; wanted an exported program (torch.export.save) or a TorchScript module "
        "(torch.jit.save). Make the module in Python, load the weights into it, and export that; copy or "
        "download a file anew that should be one of the two."
    )


def _loaded(path: Path, kind: str, load: Callable[[str], Any]) -> Any:
    """What torch makes of an archive.

    Raises:
        ExportError: torch refuses it.
    """
    log = logging.getLogger("torch.export")  # where it writes the traceback of what it raises as well
    try:
        log.disabled = True
        return load(str(path))
    except Exception as error:  # of any kind: torch's readers have no errors of their own
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ExportError(
            f"{path}: PyTorch {torch.__version__} does not open this {kind}: {type(error).__name__}: "
            f"{said.rstrip('.')}. Import the library whose operators it calls before the export; copy or "
            "download the file anew, or write it with this version of PyTorch."
        ) from error
    finally:
        log.disabled = False


class _AtLine(Interpreter):
    """Runs a graph node by node, each as if at the line of the Python that it came from."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False  # torch would write the node's trace into the message

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        with where.standing_at(n.meta.get("stack_trace") or n.stack_trace):
            try:
                return super().run_node(n)
            except IngotError as error:
                if str(error).startswith(where.UNKNOWN):
                    said = str(error).removeprefix(where.UNKNOWN)
                    error.args = (f"node {n.format_node()} of the graph{said}",)
                raise

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A function or operator, ours where torch's own would want to trace the graphs that it is given."""
        if not recording():
            return super().call_function(target, args, kwargs)
        if isinstance(target, BuiltinFunctionType | type):  # len, max, int: as in a model's code
            return RUNTIME.call(target, *args, **kwargs)
        recorded: Any = INSTEAD.get(target, target)
        return super().call_function(recorded, args, kwargs)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A submodule; of what an exported program asks of sizes all but their ranges, which are declared."""
        if target != "_guards_fn" or not recording():
            return super().call_module(target, args, kwargs)
        leaned = recorder().env.leaned
        before = set(leaned)
        out = super().call_module(target, args, kwargs)
        leaned &= before
        return out

    def fetch_attr(self, target: str) -> Any:
        """A tensor, or a graph that an operator runs: node by node as well."""
        found = super().fetch_attr(target)
        return _AtLine(found).run if isinstance(found, GraphModule) and recording() else found


@contextlib.contextmanager
def _levels_closed() -> Generator[None]:
    """Whatever ends a graph's run, between the nodes that open and close a level of torch.vmap too: the
    levels that it has opened are closed.
    """
    functorch: Any = torch._C._functorch
    before = functorch.maybe_current_level()
    try:
        yield
    finally:
        while functorch.maybe_current_level() != before:
            functorch.pop_dynamic_layer_stack()


class Graph(torch.nn.Module):
    """A graph module that is run node by node, with the same parameters, buffers and submodules."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__()
        object.__setattr__(self, "_graph_module", module)
        for name in ("_parameters", "_buffers", "_modules"):
            object.__setattr__(self, name, getattr(module, name))
        self.training = module.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph."""
        with _levels_closed():
            return self._run(args, kwargs)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module: Any = self.__dict__["_graph_module"]
        run = _AtLine(module).run
        if isinstance(module.graph._codegen, torch.fx.graph._PyTreeCodeGen):
            flat = torch.fx._pytree.tree_flatten_spec(_as_made(module, args, kwargs), module._in_spec)
            out = run(*flat, enable_io_processing=False)
            return pytree.tree_unflatten(out, module._out_spec)
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        return run(*bound.args, *bound.kwargs.values())


def _running(module: GraphModule) -> Graph:
    if module.graph.python_code("self").src != module.code:
        raise ExportError(
            f"the graph of {type(module).__name__} was changed after its forward was made of it, which still "
            "does what it did before. Call recompile() on it."
        )

    def forward(self: Graph, *args: Any, **kwargs: Any) -> Any:
        return Graph.forward(self, *args, **kwargs)

    mine = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    theirs = inspect.signature(module.forward).parameters.values()
    forward.__signature__ = inspect.Signature([mine, *theirs])  # pyright: ignore[reportFunctionMemberAccess]
    return type(type(module).__name__, (Graph,), {"forward": forward})(module)


def _program(
    program: Any, args: Any, kwargs: Mapping[str, Any] | None, none_given: bool
) -> tuple[Any, Any, Any]:
    """An exported program takes the sizes it was exported for; its graph may have others' in it."""
    if none_given and program.example_inputs is not None:
        args, kwargs = program.example_inputs
    module = program.module()
    kinds = torch.export.graph_signature.InputKind
    wanted = {s.arg.name for s in program.graph_signature.input_specs if s.kind == kinds.USER_INPUT}
    places = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in wanted]
    values = [n.meta.get("val") for n in places]
    spec = program.call_spec.in_spec
    if none_given and program.example_inputs is None:
        args, kwargs = pytree.tree_unflatten(values, spec)
    return (_running(module), *_with_sizes(module, args, kwargs, places, program.range_constraints))


def _described(
    module: GraphModule, args: Any, kwargs: Mapping[str, Any] | None, none_given: bool
) -> tuple[Any, Any]:
    """A graph of ATen calls has the sizes of its own example in it; one that was traced in Python has not."""
    places = [n for n in module.graph.nodes if n.op == "placeholder"]
    values = [n.meta.get("val") for n in places]
    low = any(isinstance(n.target, torch._ops.OpOverload) for n in module.graph.nodes)
    if not low or not all(isinstance(v, torch.Tensor) for v in values):
        return args, kwargs
    if none_given:
        args = tuple(values)
    return _with_sizes(module, args, kwargs, places, {})


def _in_order(module: GraphModule, args: Any, kwargs: Mapping[str, Any] | None) -> list[Any]:
    """What a call gives to the placeholders of a graph, in their order, however it is passed."""
    positional, keywords = args if isinstance(args, tuple) else (args,), dict(kwargs or {})
    try:
        call = _as_made(module, positional, keywords)
        if isinstance(module.graph._codegen, torch.fx.graph._PyTreeCodeGen):
            return torch.fx._pytree.tree_flatten_spec(call, module._in_spec)
        return pytree.tree_leaves(call)
    except (TypeError, ValueError, LookupError):  # no such call, which is refused where it is named
        return pytree.tree_leaves((positional, keywords))


def _as_made(
    module: GraphModule, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """A call with as many positional arguments as the one that the graph was made by, the others by name."""
    given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    spec: Any = getattr(module, "_in_spec", None)
    count = len(given) if spec is None else spec.child(0).num_children
    items = list(given.items())
    return [value for _, value in items[:count]], dict(items[count:])


class _Whole(int):
    """A number of a call that is told from all others."""


def _with_sizes(
    module: GraphModule,
    args: Any,
    kwargs: Mapping[str, Any] | None,
    places: list[Node],
    ranges: Mapping[Any, Any],
) -> tuple[Any, Any]:
    """The arguments with an Input, example included, in the place of each tensor, and of each number that the
    graph takes any of.
    """
    call = args if isinstance(args, tuple) else (args,), dict(kwargs or {})
    positional, keywords = rebuild(call, lambda leaf: _Whole(leaf) if type(leaf) is int else leaf)
    names: dict[str, str] = {}
    described: dict[int, Input] = {}
    for example, place in zip(_in_order(module, positional, keywords), places, strict=False):
        value = place.meta.get("val")
        if isinstance(example, _Whole) and isinstance(value, torch.SymInt):
            described[id(example)] = Count("int64", [], int(example), int)
        elif isinstance(example, (torch.Tensor, np.ndarray)) and isinstance(value, torch.Tensor):
            described[id(example)] = _described_input(example, value, place.name, ranges, names)

    def given(leaf: Any) -> Any:
        return described.get(id(leaf), int(leaf) if isinstance(leaf, _Whole) else leaf)

    return rebuild((positional, keywords), given)


def _described_input(
    example: Any, value: torch.Tensor, name: str, ranges: Mapping[Any, Any], names: dict[str, str]
) -> Input:
    """An example with the dtype and sizes that the graph was made for.

    Raises:
        ExportError: it has other sizes, where the graph was made for one alone.
    """
    dims = [_dim(d, ranges, names, default_name(name, axis)) for axis, d in enumerate(value.shape)]
    wanted = [d.name if isinstance(d, Dim) else "any" if d is None else d for d in dims]
    sizes = list(example.shape)
    other = any(isinstance(d, int) and d != s for d, s in zip(dims, sizes, strict=False))
    if other or len(sizes) != len(dims):
        raise ExportError(
            f"input {name!r} is of shape {sizes}, and the exported program takes {wanted}. Pass tensors of "
            "such sizes; or make the program anew, with dynamic_shapes for what is to be another size."
        )
    dtype = str(example.dtype).removeprefix("torch.")
    return Input(dtype, dims, None if isinstance(example, torch._subclasses.FakeTensor) else example)


def _dim(size: Any, ranges: Mapping[Any, Any], names: dict[str, str], name: str) -> int | Dim | None:
    if isinstance(size, int):
        return size
    e = size.node.expr
    if not e.is_Symbol:
        return None
    name = names.setdefault(str(e), name)  # one symbol is one dimension, wherever it stands
    bounds = ranges.get(e)
    if bounds is None:
        return Dim(name)
    low, high = bounds.lower, bounds.upper
    bounded = isinstance(high, sympy.Integer) and int(high) < _NO_BOUND
    return Dim(name, max(int(low), 0), int(high) if bounded else None)
