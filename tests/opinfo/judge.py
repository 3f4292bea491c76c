"""One sampled call: exported with its own sizes, run by somebody else's runtime, compared with eager
PyTorch.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnx.reference import ReferenceEvaluator

from ingot.calls import ingot_runner, reference_outputs
from ingot.capture.attempt import Capture, capture
from ingot.capture.signature import rebuild
from ingot.errors import ExportError, VerificationError
from ingot.program import as_array
from ingot.verify import verify_capture

ort.set_default_logger_severity(4)
OPSET = 20


@dataclass
class Outcome:
    """What became of one call.

    status  `pass`; `random`: draws of the right dtype and shape; `refused`: a typed error; `wrong`: other
            numbers, or a file that does not run; `crash`: an error that is not Ingot's; `skipped`: eager
            PyTorch itself refuses the call
    """

    status: str
    reason: str = ""
    judge: str = ""


class Unrunnable(Exception):
    """No judge has a kernel for every node."""


class Judge:
    """onnxruntime; onnx.reference where it lacks a kernel. `name` is who answered last."""

    def __init__(self) -> None:
        self.name = ""

    def __call__(self, model: ir.Model) -> Any:
        """Open a model."""
        proto = ir.to_proto(model)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = ort.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            if not _lacks_kernel(error):
                raise
            return self._reference(proto)
        self.name = "onnxruntime"

        def run(feeds: Mapping[str, Any], names: Sequence[str]) -> Any:
            try:
                return session.run(list(names), dict(feeds))
            except Exception as error:
                if not _lacks_kernel(error):
                    raise
                return self._reference(proto)(feeds, names)

        return run

    def _reference(self, proto: onnx.ModelProto) -> Any:
        onnx.checker.check_model(proto, full_check=True)
        self.name = "onnx.reference"
        evaluator = ReferenceEvaluator(proto)

        def run(feeds: Mapping[str, Any], names: Sequence[str]) -> Any:
            with np.errstate(all="ignore"):
                return evaluator.run(list(names), dict(feeds))

        return run


class Own:
    """Ingot's own session."""

    name = "ingot"

    def __call__(self, model: ir.Model) -> Any:
        """Open a model."""
        return ingot_runner(model)


def _lacks_kernel(error: Exception) -> bool:
    text = str(error)
    return (
        "NOT_IMPLEMENTED" in text
        or "No corresponding Numpy type" in text
        or "Could not find an implementation" in text
    )


def outcome(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    undefined: bool = False,
    judge: Any = None,
) -> Outcome:
    """Export one call and compare."""
    judge = judge or Judge()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reference_outputs(function, copied(args), copied(kwargs))
        except Exception as error:
            return Outcome("skipped", f"eager: {first_line(error)}")
        try:
            captured = capture(function, args, kwargs=kwargs, dynamic_shapes=None, opset=OPSET)
        except ExportError as error:
            return Outcome("refused", first_line(error))
        except Exception as error:
            return Outcome("crash", f"{type(error).__name__}: {first_line(error)}")
        try:
            if undefined or any(a.kind == "random" for a in captured.assumptions):
                _same_kind(captured, judge)
                return Outcome("random", judge=judge.name)
            verify_capture(captured, runner=judge)
        except VerificationError as error:
            return Outcome("wrong", first_line(error), judge.name)
        except Exception as error:
            return Outcome("wrong", f"{type(error).__name__}: {first_line(error)}", judge.name)
    return Outcome("pass", judge=judge.name)


def one_line(error: Exception) -> str:
    """The error's text in one line, files named as from the folder that Python looks in: the same on every
    machine.
    """
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return re.sub(r"(?:/[^\s/:]+)+/(?=site-packages/|tests/)", "", text).replace("site-packages/", "")


def first_line(error: Exception) -> str:
    """The error in one line of readable length."""
    text = one_line(error)
    return text[:300]


def copied(x: Any) -> Any:
    """The same arguments in memory of their own."""
    return rebuild(x, lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf)


def _same_kind(captured: Capture, judge: Any) -> None:
    """Random results have eager's dtype and shape."""
    want = reference_outputs(captured.source, *captured.arguments.with_tensors(captured.arguments.tensors))
    feeds = {
        n: as_array(t) for n, t in zip(captured.arguments.names, captured.arguments.tensors, strict=True)
    }
    got = judge(captured.model)(feeds, captured.output_names)
    for name, w, g in zip(captured.output_names, want, got, strict=True):
        if w.dtype != g.dtype or w.shape != g.shape:
            raise VerificationError(f"output {name!r}: {g.dtype} {g.shape}, eager {w.dtype} {w.shape}")
