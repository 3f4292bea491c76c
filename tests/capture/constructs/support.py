"""Constructs of Python as cases: a function or module, and inputs that take every way through it.

The model is captured on the first input alone and compared with eager PyTorch on all of them, in onnxruntime
and in Ingot's own session. Where eager PyTorch raises, both runtimes must fail at a check of the model's,
or at the operator that an index outside its dimension is given to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from ingot.calls import ingot_runner
from ingot.capture.attempt import Capture, capture
from ingot.capture.signature import leaves
from ingot.errors import InputError, ShapeError
from ingot.program import TENSOR, as_array
from tests.capture.support import OrtError, ort_runner, same, seeded

T = torch.Tensor
#: How a check that does not hold is named, by Ingot's session and by onnxruntime.
_CHECKED = r"constructs/\w+\.py:\d+: .*this check of the model's own|Name:'check at \S*constructs/\w+\.py:\d+"

#: How an operator refuses an index outside its dimension.
_OUTSIDE = "an index is outside its dimension|invalid indice found|indices element out of data bounds"


@dataclass
class Case:
    """One construct."""

    name: str
    make: Callable[[], Any]  # a new module, or the function
    inputs: list[tuple[Any, ...]]


class Cases:
    """The cases of one file."""

    def __init__(self) -> None:
        self.all: list[Case] = []

    def __call__(self, *inputs: Any) -> Callable[[Any], Any]:
        """Register a function or module class; each input is a tensor or a tuple of arguments."""

        def register(thing: Any) -> Any:
            calls = [i if isinstance(i, tuple) else (i,) for i in inputs]
            is_class = isinstance(thing, type)
            self.all.append(Case(thing.__name__, thing if is_class else lambda: thing, calls))
            return thing

        return register

    def parametrize(self) -> Any:
        """As a decorator of the file's one test."""
        return pytest.mark.parametrize("case", self.all, ids=[c.name for c in self.all])


def random(*shape: int, seed: int = 0) -> T:
    """Numbers of both signs."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 17 * len(shape) + sum(shape)))


def positive(*shape: int, seed: int = 0) -> T:
    """Numbers above 0.1."""
    return random(*shape, seed=seed).abs() + 0.1


def negative(*shape: int, seed: int = 0) -> T:
    """Numbers below -0.1."""
    return -positive(*shape, seed=seed)


def both_signs(width: int = 3) -> list[T]:
    """Positive and negative tensors of several lengths; the first one has 5 rows."""
    return [make(n, width) for n in (5, 1, 2, 9) for make in (positive, negative)]


def lengths(width: int = 3, *more: int) -> list[T]:
    """Random tensors of several lengths; the first one has 5 rows."""
    return [random(n, width, seed=n) for n in (5, 1, 2, 3, 4, 8, *more)]


def made(case: Case) -> Any:
    """A fresh model with the same weights every time."""
    seeded()
    model = case.make()
    return model.eval() if isinstance(model, torch.nn.Module) else model


def check(
    case: Case,
    tolerance: float = 2e-5,
    narrowed: bool = False,
    refuses: bool = False,
    captured: Capture | None = None,
) -> Capture:
    """Capture the case on its first input, or take what was captured so, and compare it with eager PyTorch on
    all of them.

    narrowed: inputs that the declared shapes exclude are left out, if an assumption says which dimension is
    fixed
    refuses: inputs other than the first may fail in the model, at a check of sizes: an assumption has it, and
    the error has its line
    """
    captured = captured or capture(made(case), copied(case.inputs[0]))
    onnx.checker.check_model(ir.to_proto(captured.model), full_check=True)
    runs = {"onnxruntime": ort_runner(captured.model), "ingot": ingot_runner(captured.model)}
    fixed = any(a.kind == "narrowed" for a in captured.assumptions)
    for args in case.inputs:
        if narrowed and fixed and not _declared(captured, args):
            continue
        try:
            with torch.no_grad():
                expected = made(case)(*copied(args))
        except Exception as error:
            expected = error
        for runtime, run in runs.items():
            try:
                _compare(captured, case, args, expected, runtime, run, tolerance)
            except (ShapeError, OrtError) as error:
                checked = [
                    a.where for a in captured.assumptions if (a.kind, a.status) == ("branch", "checked")
                ]
                if not refuses or args is case.inputs[0] or not any(w in str(error) for w in checked):
                    raise
    return captured


def _declared(captured: Capture, args: Any) -> bool:
    """Whether the inputs have the sizes that the model declares."""
    feeds = captured.arguments.feeds(copied(args), {})
    pairs = [
        (d, n)
        for v in captured.model.graph.inputs
        for d, n in zip(v.shape or (), feeds[str(v.name)].shape, strict=True)
    ]
    return all(not isinstance(d, int) or d == n for d, n in pairs)


def _compare(
    captured: Capture, case: Case, args: Any, expected: Any, runtime: str, run: Any, tolerance: float
) -> None:
    where = f"{case.name} in {runtime} on {[tuple(a.shape) if isinstance(a, T) else a for a in args]}"
    feeds = {k: as_array(v) for k, v in captured.arguments.feeds(copied(args), {}).items()}
    used = {v.name for v in captured.model.graph.inputs}
    feeds = {k: v for k, v in feeds.items() if k in used}
    if isinstance(expected, Exception):
        words = f"{_CHECKED}|{_OUTSIDE}" if isinstance(expected, IndexError) else _CHECKED
        with pytest.raises((ShapeError, InputError, OrtError), match=words):
            run(feeds, captured.output_names)
            pytest.fail(f"{where}: eager raises {expected!r}, the model gives a result", pytrace=False)
        return
    got = run(feeds, captured.output_names)
    structure = [leaf.value for leaf in leaves(captured.output_structure(TENSOR))]
    values = [leaf.value for leaf in leaves(expected)]
    assert len(structure) == len(values), (
        f"{where}: {len(structure)} values in the export, {len(values)} in eager"
    )
    results = iter(got)
    for kept, want in zip(structure, values, strict=True):
        if kept is not TENSOR:
            assert type(kept) is type(want), f"{where}: {kept!r} for ever, where eager gives {want!r}"
            assert kept == want, f"{where}: {kept!r} for ever, where eager gives {want!r}"
            continue
        result = next(results)
        same(where, result, _array(want), tolerance)


def _array(want: Any) -> Any:
    if isinstance(want, T):
        return want.numpy()
    return np.asarray(want, dtype={bool: np.bool_, int: np.int64, float: np.float64}[type(want)])


def copied(args: Sequence[Any]) -> tuple[Any, ...]:
    """Tensors that a model may write to."""
    return tuple(a.clone() if isinstance(a, T) else a for a in args)
