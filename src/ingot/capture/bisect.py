"""Finds the first node of an exported model whose value differs from what the module computes there."""

# torch's modes are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import onnx_ir as ir
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture.aten import WHOLE
from ingot.capture.called import Called
from ingot.capture.intercept import python_functions_run_as_they_are
from ingot.capture.tensors import zero_copy
from ingot.capture.unchanged import unchanged
from ingot.ops.registry import SOURCE

if TYPE_CHECKING:
    from ingot.capture.attempt import Capture

Differs = Callable[[npt.NDArray[Any], npt.NDArray[Any]], bool]

AT_ONCE = 24  # values looked at in one run of the model


class _Replay:
    """Runs the module on real tensors and keeps the results that the recording named, in the same order."""

    def __init__(self, calls: Sequence[tuple[str, ir.Value | None]], wanted: set[int]) -> None:
        self.calls = calls
        self.wanted = wanted
        self.at = 0
        self.kept: dict[int, npt.NDArray[Any]] = {}
        self.paused = False
        self.lost = False  # the module took another way than in the recording

    def note(self, name: str, results: Sequence[Any]) -> None:
        for r in results:
            if not isinstance(r, torch.Tensor) or self.lost:
                continue
            if self.at >= len(self.calls) or self.calls[self.at][0] != name:
                self.lost = True
                return
            if self.at in self.wanted:
                with _disable_current_modes():
                    self.kept[self.at] = zero_copy(r.dequantize() if r.is_quantized else r.clone())
            self.at += 1


class _Functions(TorchFunctionMode):
    def __init__(self, replay: _Replay) -> None:
        super().__init__()
        self.replay = replay

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.replay.paused or func not in WHOLE:
            return func(*args, **(kwargs or {}))
        self.replay.paused = True
        try:
            out = func(*args, **(kwargs or {}))
        finally:
            self.replay.paused = False
        self.replay.note(WHOLE[func][0].__name__, _listed(out))
        return out


class _Operators(Called):
    def __init__(self, replay: _Replay) -> None:
        super().__init__()
        self.replay = replay

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        silent = name in ("_local_scalar_dense", "equal", "lift_fresh", "lift")
        if not self.replay.paused and func.namespace == "aten" and not silent:
            self.replay.note(name, _listed(out))
        return out


def _listed(out: Any) -> list[Any]:
    return list(out) if isinstance(out, (list, tuple)) else [out]


def first_difference(
    captured: Capture,
    module: Any,
    runner: Callable[[ir.Model], Any],
    inputs: Sequence[Any],
    feeds: Mapping[str, npt.NDArray[Any]],
    differs: Differs,
) -> str:
    """A sentence naming the node, its operator and the user's line; empty when it cannot be found."""
    calls = captured.recording.recorder.calls
    alive = {id(v) for node in captured.model.graph for v in node.outputs}
    places = [i for i, (_, v) in enumerate(calls) if v is not None and id(v) in alive]
    low, high = 0, len(places)  # the first bad one is among places[low:high]
    found: int | None = None
    while low < high:
        step = max((high - low) // AT_ONCE, 1)
        chosen = places[low:high:step]
        if places[high - 1] not in chosen:
            chosen.append(places[high - 1])
        bad = _first_bad(captured, module, runner, inputs, feeds, chosen, differs)
        if bad is None:
            break
        found = bad
        at = chosen.index(bad)
        high = places.index(bad)
        low = places.index(chosen[at - 1]) + 1 if at else low
        if step == 1:
            break
    if found is None:
        return ""
    value = calls[found][1]
    node = value.producer() if value is not None else None
    if node is None:
        return ""
    line = node.metadata_props.get(SOURCE, "an unknown line")
    what = f"{node.name!r} ({node.op_type})"
    return f" The first node that differs is {what}, written for {calls[found][0]} at {line}."


def _first_bad(
    captured: Capture,
    module: Any,
    runner: Callable[[ir.Model], Any],
    inputs: Sequence[Any],
    feeds: Mapping[str, npt.NDArray[Any]],
    chosen: Sequence[int],
    differs: Differs,
) -> int | None:
    calls = captured.recording.recorder.calls
    replay = _Replay(calls, set(chosen))
    args, kwargs = captured.arguments.with_tensors(
        [x.clone() if isinstance(x, torch.Tensor) else x for x in inputs]
    )
    quiet = (torch.no_grad(), unchanged(module), python_functions_run_as_they_are())
    with contextlib.ExitStack() as stack:
        for context in (*quiet, _Functions(replay), _Operators(replay)):
            stack.enter_context(context)
        module(*args, **kwargs)
    seen = [i for i in chosen if i in replay.kept]
    values = [v for i in seen if (v := calls[i][1]) is not None]
    if not values:
        return None
    results = values_in_run(captured.model, values, runner, feeds)
    for i, got in zip(seen, results, strict=True):
        want = replay.kept[i]
        if got.shape != want.shape or differs(want, got):
            return i
    return None


def values_in_run(
    model: ir.Model,
    values: Sequence[ir.Value],
    runner: Callable[[ir.Model], Any],
    feeds: Mapping[str, npt.NDArray[Any]],
) -> Sequence[npt.NDArray[Any]]:
    """Run the model with these values as its outputs."""
    graph = model.graph
    kept = list(graph.outputs)
    unique = list({id(v): v for v in values}.values())
    graph.outputs[:] = unique
    try:
        results = runner(model)(feeds, [str(v.name) for v in unique])
    finally:
        graph.outputs[:] = kept
    by_name = {v.name: r for v, r in zip(unique, results, strict=True)}
    return [by_name[v.name] for v in values]
