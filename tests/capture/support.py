"""Runs a capture in onnxruntime, which judges it independently of Ingot's own session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    RuntimeException,
)

from ingot.capture.attempt import Capture, capture
from ingot.capture.signature import is_tensor, leaves
from ingot.errors import IngotError

ort.set_default_logger_severity(4)


class OrtError(IngotError):
    """onnxruntime fails on a model or on its inputs."""


def seeded() -> None:
    """Draw the same numbers again. `torch.manual_seed` also notes it for devices, with the stack of calls."""
    torch.default_generator.manual_seed(0)


def ort_runner(model: ir.Model) -> Any:
    """Open a model in onnxruntime."""
    options = ort.SessionOptions()
    # Without it pairs of products of bytes overflow 16 bits on processors that have no VNNI.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def run(feeds: Mapping[str, Any], names: Sequence[str]) -> Any:
        try:
            return session.run(list(names), dict(feeds))
        except (Fail, InvalidArgument, RuntimeException) as error:
            raise OrtError(str(error)) from error

    return run


def parity(
    module: Any,
    args: tuple[Any, ...],
    *others: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    other_kwargs: Sequence[Mapping[str, Any]] = (),
    tolerance: float = 2e-5,
    **options: Any,
) -> Capture:
    """Capture on `args`, check the file, and compare with torch on `args` and on the `others`."""
    if isinstance(module, torch.nn.Module):
        module.eval()
    captured = capture(module, args, kwargs=kwargs, **options)
    onnx.checker.check_model(ir.to_proto(captured.model), full_check=True)
    run = ort_runner(captured.model)
    calls = [(args, dict(kwargs or {})), *[(o, {}) for o in others], *[((), dict(k)) for k in other_kwargs]]
    for positional, keywords in calls:
        with torch.no_grad():
            expected = module(*_copied(positional), **keywords)
        want = [leaf.value for leaf in leaves(expected) if is_tensor(leaf.value)]
        feeds = {k: v.numpy() for k, v in captured.arguments.feeds(positional, keywords).items()}
        used = {v.name for v in captured.model.graph.inputs}
        got = run({k: v for k, v in feeds.items() if k in used}, captured.output_names)
        assert len(got) == len(want)
        for name, g, w in zip(captured.output_names, got, want, strict=True):
            same(name, g, w.numpy(), tolerance)
    return captured


def _copied(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.clone() if isinstance(a, torch.Tensor) else a for a in args)


def same(name: str, got: Any, want: Any, tolerance: float) -> None:
    """Equal dtype and shape; numbers equal up to `tolerance` of the largest one."""
    assert got.dtype == want.dtype, (name, got.dtype, want.dtype)
    assert got.shape == want.shape, (name, got.shape, want.shape)
    if want.size == 0:
        return
    if want.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, err_msg=name)
        return
    finite = want[np.isfinite(want)]
    scale = max(float(np.abs(finite).max()), 1e-30) if finite.size else 1.0
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale, equal_nan=True, err_msg=name)


def op_types(captured: Capture) -> list[str]:
    """Operators of the graph, in order."""
    return [node.op_type for node in captured.model.graph]
