"""export(): a PyTorch module to an ONNX Program, as one list of stages."""

# The model is whatever the caller has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from ingot.errors import ExportError, MissingExtraError, VerificationError, said_plainly
from ingot.loading import require_directory
from ingot.ops.registry import registered
from ingot.program import TENSOR, Program, as_array
from ingot.stateful import State, write_states

if TYPE_CHECKING:
    import onnx_ir as ir

    from ingot.calls import Runner
    from ingot.capture.assume import Assumption
    from ingot.capture.attempt import Capture
    from ingot.report import Report

DEFAULT_OPSET = 20  # the oldest that has Gelu whole: most runtimes load it
P = ParamSpec("P")
T = TypeVar("T")

#: What torch.onnx.export takes by these names and `export` does not: what there is instead.
_OF_TORCH = {
    "dynamic_axes": "every dimension is dynamic unless the model fixes it; dynamic_shapes, with dims for "
    "each argument, names some, bounds them or makes them static",
    "custom_translation_table": "say what an operator becomes with ingot.translate",
    "custom_opsets": "say what an operator becomes with ingot.translate",
    "training": "a model is exported as after .eval(); state='inputs' leaves BatchNorm layers training",
    "example_outputs": "outputs are found by the export itself",
    "dynamo": "there is one way to export",
    "fallback": "there is one way to export",
    "operator_export_type": "what has no form in ONNX is refused; see ingot.translate",
    "external_data": "weights beyond 2 GB lie in a file beside the model by themselves",
    "optimize": "the graph is simplified by itself; ingot.optimize does more",
    "verbose": "debug=True shows whole tracebacks",
    "report": "program.assumptions and program.verification say what was found",
}  # fmt: skip
_WITHOUT_USE = (
    "artifacts_dir", "autograd_inlining", "do_constant_folding", "dump_exported_program",
    "export_modules_as_functions", "export_params", "keep_initializers_as_inputs", "profile",
)  # fmt: skip


def _by_its_own_names(function: Callable[P, T]) -> Callable[P, T]:
    """The function, saying of an argument that torch.onnx.export has what it takes instead."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name in _OF_TORCH or name in _WITHOUT_USE:
                instead = _OF_TORCH.get(name, "leave it away")
                raise ExportError(
                    f"ingot.export has no argument {name!r}, as torch.onnx.export has: {instead}."
                )
        return function(*args, **kwargs)

    return call


@said_plainly
@_by_its_own_names
def export(
    model: Any,
    args: Any = (),
    f: str | os.PathLike[str] | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_shapes: Any = "auto",
    opset_version: int | None = None,
    verify: bool = True,
    state: Literal["refuse", "inputs"] = "refuse",
    debug: bool = False,
) -> Program:
    """Turn a PyTorch module into an ONNX model that is the same function for every input size.

    The module's own Python runs once on tensors without contents; each operator it calls becomes an ONNX
    node. The module is left as it was: mode, buffers and attributes.

    Args:
        model: a `torch.nn.Module`, or a function of tensors. It is exported as after `.eval()`, which a
            line on stderr says of one in training mode whose layers ask for it. Also a
            `torch.fx.GraphModule`, a `torch.export.ExportedProgram`, a scripted or traced module, or the path
            of a file of one of the last two.
        args: the positional arguments of one call: tensors, NumPy arrays, `ingot.Input` specs, or lists,
            tuples, dicts, dataclasses and plain objects of them: a key-value cache's tensors are inputs, and
            what the call leaves in it are outputs `next.NAME`. Anything else is kept at its value and
            recorded as an assumption. Nothing, where an exported program or the model's annotations say
            what it takes: `Annotated[Tensor, ingot.Input(…)]` is an input, with a default or without.
        f: where to save the model; nowhere if None.
        kwargs: the keyword arguments of that call.
        input_names, output_names: names instead of those derived from arguments and outputs; may be shorter.
            An output is named by the keys, fields and places that lead to it, `hidden_0` for the first of
            `{"hidden": [...]}`; with `output` in front where a place is first, `output_1_0`.
        dynamic_shapes: `"auto"`: every dimension is dynamic; None: none is; or dims for each argument as in
            `torch.onnx.export`, `ingot.Dim` among them. A dimension that the model itself fixes becomes
            static, and a line on stderr says where; so does one for dimensions that must be equal, and for a
            branch on a size that the example took.
        opset_version: 18 to 25; 20 by default.
        verify: run the exported model against the module: on the example, on other sizes, and on inputs
            that are searched to take every side of its branches and loops. `program.verification` says what
            was compared, and which sides no input was found for.
        state: what becomes of buffers and attributes that `forward` changes and a later call reads.
            `"refuse"`: an ExportError with the line; `"inputs"`: each becomes an input `state.NAME` and an
            output `next.NAME`, which `ingot.Stateful` carries from call to call. BatchNorm layers in training
            mode then stay in it.
        debug: errors come with the whole traceback, Ingot's and PyTorch's own among it; so they do with
            INGOT_DEBUG=1 in the environment.

    Raises:
        ModelError: `f` cannot be written to.
        DataDependentError: data decides something that has no ONNX form; has the file, line and remedy.
        MissingOperatorError: lists every ATen operator without a row.
        VerificationError: the exported model gives other numbers; names the output and the first node that
            differs.
        ExportError: anything else that cannot be exported as it is.
        MissingExtraError: torch is not installed.
    """
    del debug  # for `said_plainly`
    if not find_spec("torch"):
        raise MissingExtraError("ingot.export needs PyTorch. Install it with: pip install 'ingot[torch]'")
    from ingot.capture.attempt import capture
    from ingot.capture.elsewhere import lacking

    if verify not in (True, False):
        raise ExportError(f"verify is {verify!r}; wanted True or False.")
    if f is not None:
        require_directory(f)
    captured = capture(
        model,
        args,
        kwargs=kwargs,
        input_names=input_names,
        output_names=output_names,
        dynamic_shapes=dynamic_shapes,
        opset=DEFAULT_OPSET if opset_version is None else opset_version,
        state=state,
    )
    report = None
    foreign = _foreign(captured.model) if verify else []
    if verify and foreign:
        print(
            f"ingot export: not verified: nodes of {', '.join(foreign)} run where somebody has them "
            "(ingot.register_op says what they do)",
            file=sys.stderr,
        )
    elif verify:
        captured, report = verified(captured)
        announce_verification(report)
    assumptions = [*captured.assumptions, *lacking(captured.model)]
    announce(assumptions)
    states = [*initial_states(captured), *carried_states(captured)]
    if states:
        write_states(captured.model, states)
    program = Program(
        captured.model,
        assumptions,
        captured.arguments,
        captured.output_structure(TENSOR),
        captured.output_names,
        captured,
        report,
    )
    if f is not None:
        program.save(f)
    return program


def initial_states(captured: Capture) -> list[State]:
    """The state that a model was exported with."""
    return [
        State(spec.input_name, spec.output_name, as_array(spec.initial))
        if spec.first is None
        else State(spec.input_name, spec.output_name, None, str(as_array(spec.initial).dtype), spec.first)
        for spec in captured.recording.states
    ]


def carried_states(captured: Capture) -> list[State]:
    """What objects among the arguments hold and the call changes: a cache of keys and values."""
    inputs = {str(v.name): v for v in captured.model.graph.inputs}
    return [
        State(before, after, None, _numpy_name(inputs[before]), tuple(_dims(inputs[before])))
        for before, after in captured.recording.carried.items()
    ]


def _numpy_name(value: ir.Value) -> str:
    assert value.dtype is not None, "capture gives every input its dtype"
    return value.dtype.numpy().name


def _dims(value: ir.Value) -> list[int | str | None]:
    return [d if isinstance(d, int) else d.value for d in value.shape or ()]


def _foreign(model: ir.Model) -> list[str]:
    """Domains of nodes that no session here can run: not registered, and no function of the model."""
    return sorted(
        {
            node.domain
            for node in model.graph.all_nodes()
            if node.domain
            and registered(node.domain, node.op_type) is None
            and node.op_identifier() not in model.functions
        }
    )


def verified(captured: Capture, runner: Runner | None = None) -> tuple[Capture, Report]:
    """The capture that was verified: the one with more dynamic dimensions where that one is right as well;
    and where the model's code asks whether it is traced and is then another function, the one that heard no.

    Raises:
        VerificationError: see `ingot.verify`.
    """
    from ingot.calls import ingot_runner

    try:
        return _as_free_as_right(captured, runner or ingot_runner)
    except VerificationError as error:
        if captured.as_untraced is None:
            raise
        lines = dict.fromkeys(captured.recording.recorder.asked_traced)
        try:
            return _as_free_as_right(captured.as_untraced(), runner or ingot_runner)
        except ExportError as other:
            raise VerificationError(
                f"{error} The model asks whether it is traced ({'; '.join(lines)}), and may be another "
                f"function then; as it runs otherwise, it cannot be exported: {other}"
            ) from other


def _as_free_as_right(captured: Capture, runner: Runner) -> tuple[Capture, Report]:
    from ingot.calls import draws_of
    from ingot.capture.attempt import without_branches_of_the_example
    from ingot.verify import verify_capture

    # Whether the wider one is right shows in values, which are not compared where they are drawn.
    wider = None if draws_of(captured) else without_branches_of_the_example(captured)
    if wider is not None:
        try:
            return wider, verify_capture(wider, runner=runner)
        except VerificationError:
            pass  # the branch that the example took matters
    return captured, verify_capture(captured, runner=runner)


def announced(a: Assumption) -> bool:
    """Whether export() itself says so on stderr: where the model is narrower than its source in sizes,
    does not change an argument as its source does, was in training mode, or cannot be loaded everywhere.
    """
    return a.kind in ("narrowed", "unified", "begins", "training", "input-changed", "runtime") or (
        a.kind == "branch" and a.status == "checked"
    )


def announce(assumptions: Sequence[Assumption]) -> None:
    """Say on stderr which dimensions are fixed or made equal, which branches on sizes are taken, which
    arguments keep what the source changes; where; which layers were in training mode; and what ONNX Runtime
    has no kernels for.
    """
    from ingot.report import some

    said = list(filter(announced, assumptions))
    layers = [a for a in said if a.kind == "training"]
    if layers:
        names = some([a.where for a in layers], ", ")
        print(f"ingot export: {layers[0].what}, where these may differ: {names}", file=sys.stderr)
    for a in by_line(a for a in said if a.kind != "training"):
        see, fixed = f"{a.what}; see", f"{a.what}, fixed by"
        how: dict[str, str] = {
            "begins": see,
            "input-changed": see,
            "narrowed": fixed,
            "unified": fixed,
            "runtime": f"{a.what}; export it in float32, or run it with ingot.InferenceSession; see",
        }
        print(
            f"ingot export: {how.get(a.kind, f'fails unless {a.what}, for the branch at')} {a.where}",
            file=sys.stderr,
        )


def by_line(assumptions: Iterable[Assumption]) -> list[Assumption]:
    """One assumption for all of a kind that a line of the source asked for, in the order they were found."""
    from ingot.report import some

    groups: dict[tuple[str, str, str], list[Assumption]] = {}
    for a in assumptions:
        groups.setdefault((a.where, a.kind, a.status), []).append(a)
    return [replace(found[0], what=some([a.what for a in found], " and ")) for found in groups.values()]


def announce_verification(report: Report) -> None:
    """Say on stderr what is not verified: sizes that the module itself refused, sides that no input took."""
    from ingot.report import shown_sizes

    refused = [sizes for sizes in report.refused if 0 not in sizes.values()]  # nothing, to most models
    if refused:
        tried = shown_sizes(refused[0], report.cases[0].sizes)
        print(
            f"ingot export: verified on {len(report.cases)} shapes; the module itself refused "
            f"{len(refused)} more ({'' if len(refused) == 1 else 'one is '}{tried})",
            file=sys.stderr,
        )
    for what in report.unverified:
        print(f"ingot export: not verified: {what}", file=sys.stderr)
