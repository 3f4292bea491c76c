"""Random graphs of a few nodes, with and without passes, at several sizes, against ONNX Runtime; where it has
no kernel, against the plain definitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest

import ingot
from ingot.ops.interpreter import interpret
from ingot.ops.registry import evaluated_late
from ingot.passes.opset import normalise
from tests.search import quantised_links, wrapped  # noqa: F401  # enters its steps
from tests.search.chains import EXACT, OPSETS, Chain, Unfit, Value
from tests.search.draw import Array, Draw
from tests.search.judge import attempt, difference, run_ingot, run_ort, run_reference
from tests.search.links import STEPS
from tests.search.mutate import damaged

#: Of float64 ONNX Runtime's constants (in Gelu) are float32.
TOLERANCE = {"float32": 1e-5, "float64": 1e-7, "float16": 1e-2}
EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52, "float16": 2.0**-10}
QUANTISED = 0.2
PLAIN = [s for s in STEPS if s[0].__module__ != quantised_links.__name__]
OTHER = [s for s in STEPS if s[0].__module__ == quantised_links.__name__]


def grow(c: Chain, many: int, steps: Sequence[Any] = PLAIN) -> None:
    """Draws so many steps that fit."""
    chances = np.array([weight for _, weight in steps], float)
    chances /= chances.sum()
    done = 0
    for _ in range(many * 12):
        if done == many:
            return
        which = int(c.r.rng.choice(len(steps), p=chances))
        try:
            steps[which][0](c)
            done += 1
        except Unfit:
            continue


def chain_of(seed: int) -> Chain:
    r = Draw(seed)
    main = r.one(["float32"] * 7 + ["float16", "float64"])
    c = Chain(r, r.one(OPSETS), main, grow)
    for _ in range(r.integer(1, 3)):
        c.input(r.floats(*r.shape(0, 4, largest=2000, empty=r.flag(0.15)), dtype=main))
    if r.flag(0.3):
        c.input(
            r.array(r.shape(0, 3, empty=False, largest=100), r.one(["int64", "int32", "bool"]), special=0.0)
        )
    if main == "float32" and r.flag(QUANTISED):
        try:
            quantised_links.start(c)
            grow(c, r.integer(1, 5), OTHER if r.flag(0.7) else STEPS)
        except Unfit:
            grow(c, r.integer(2, 6))
    else:
        grow(c, r.integer(2, 6))
    return c


def plain_definitions(model: onnx.ModelProto, feed: dict[str, Any]) -> list[Any]:
    with np.errstate(all="ignore"):
        found = interpret(normalise(ir.from_proto(model)), feed)
    return [found[v.name] for v in model.graph.output]


def rounded_anew(model: onnx.ModelProto, feed: dict[str, Array], epsilon: float, seed: int) -> list[Any]:
    """The plain definitions, with every result of a node a rounding away."""
    rng = np.random.default_rng(seed)

    def evaluated(op: Any, node: ir.Node, inputs: Sequence[Any]) -> list[Any]:
        return [
            (x * (1 + epsilon * rng.choice([-1, 1], x.shape))).astype(x.dtype)
            if isinstance(x, np.ndarray) and x.dtype.kind == "f" and node.op_type not in EXACT
            else x
            for x in evaluated_late(op, node, inputs)
        ]

    with patch("ingot.ops.interpreter.evaluated_late", evaluated):
        return plain_definitions(model, feed)


def has_nothing(model: onnx.ModelProto, feed: dict[str, Array]) -> bool:
    """Whether a value on the way has no elements, or that cannot be said."""
    sizes = [v.size for v in feed.values()]

    def evaluated(op: Any, node: ir.Node, inputs: Sequence[Any]) -> list[Any]:
        results = evaluated_late(op, node, inputs)
        sizes.extend(x.size for x in results if isinstance(x, np.ndarray))
        return results

    with patch("ingot.ops.interpreter.evaluated_late", evaluated):
        _, refusal, _ = attempt(plain_definitions, model, feed)
    return refusal is not None or not all(sizes)


def apart(got: Array, want: Array) -> float:
    with np.errstate(all="ignore"):
        both = np.abs(got.astype(np.float64) - want.astype(np.float64))
    return float(both[np.isfinite(both)].max(initial=0.0))


def is_rounding(
    model: onnx.ModelProto, feed: dict[str, Array], got: Any, want: Any, i: int, epsilon: float
) -> bool:
    """Whether the plain definitions' own result moves as far where each node rounds otherwise."""
    moves = []
    middle = plain_definitions(model, feed)[i]
    for seed in range(6):
        found = rounded_anew(model, feed, epsilon, seed)[i]
        if found.shape == middle.shape:
            moves.append(apart(found, middle))
    return apart(got, want) <= 4 * max(moves, default=0.0)


def attempt_chain(seed: int) -> tuple[str, str]:
    """What became of the graph of this seed: agrees, wrong, crash, refused, alone, nobody."""
    c = chain_of(seed)
    outputs = c.outputs()
    if not outputs:
        return "empty", ""
    model = c.model(outputs)
    kinds = []
    for number, feed in enumerate((c.feed(), c.other_feed())):
        kind, detail = judged(c, outputs, model, feed, number)
        if kind in ("wrong", "crash", "refused"):
            return kind, f"feed {number}: {detail}"
        kinds.append(kind)
    return kinds[0], ""


def others_agree(model: onnx.ModelProto, feed: Any, got: Any, i: int, tolerance: float) -> bool:
    """Whether both others agree where ONNX Runtime does not: around If it reuses memory too early."""
    found = [attempt(run, model, feed)[0] for run in (run_reference, plain_definitions)]
    return all(f is not None and difference(got, f[i], tolerance) is None for f in found)


def judged(
    c: Chain, outputs: Sequence[Value], model: onnx.ModelProto, feed: dict[str, Array], number: int
) -> tuple[str, str]:
    want, ort_refusal = None, "not asked"
    if not has_nothing(model, feed):  # it may divide by a size of 0, which ends the process
        want, ort_refusal, _ = attempt(run_ort, model, feed)
        if want is not None and any(v is None for v in want):
            ort_refusal = "no result of an If"
    got, refusal, error = attempt(run_ingot, model, feed)
    plain, plain_refusal, plain_error = attempt(run_ingot, model, feed, True)
    for e, text in ((error, refusal), (plain_error, plain_refusal)):
        if e is not None and not isinstance(e, ingot.IngotError):
            return "crash", f"{text} | ort: {ort_refusal}"
    if ort_refusal is not None:
        if refusal is not None and plain_refusal is not None:
            return "nobody", f"{refusal} | {ort_refusal}"
        want, own_refusal, _ = attempt(plain_definitions, model, feed)
        if own_refusal is not None:
            return "nobody", f"{own_refusal} | {ort_refusal}"
        if number and (refusal or plain_refusal):
            return "nobody", f"{refusal or plain_refusal} | {ort_refusal}"
    if number and refusal and plain_refusal and attempt(plain_definitions, model, feed)[1] is not None:
        return "nobody", f"{refusal}"  # ONNX Runtime overlooks what does not fit and is empty
    if refusal is not None or plain_refusal is not None:
        return "refused", f"{refusal} | plain: {plain_refusal}"
    epsilon = EPSILON[c.main]
    if any(n.op_type == "QuantizeLinear" for n in c.nodes):
        epsilon *= 64  # what is in the middle of two steps may be rounded either way
    elif any(t.data_type == onnx.TensorProto.FLOAT16 for t in c.initializers) or "to=10" in str(c.nodes):
        epsilon = EPSILON["float16"]
    for name, found in (("plain", plain), ("optimised", got)):
        for i, (a, b) in enumerate(zip(found, want, strict=True)):
            tolerance = max(TOLERANCE[c.main], TOLERANCE.get(b.dtype.name, 0) if b is not None else 0)
            different = difference(a, b, tolerance)
            if different is None:
                continue
            arrays = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
            kinds = "f" if outputs[i].exact else "fiu"
            alike = arrays and a.shape == b.shape and a.dtype == b.dtype and a.dtype.kind in kinds
            if alike and is_rounding(model, feed, a, b, i, epsilon):
                continue
            if ort_refusal is None and others_agree(model, feed, a, i, tolerance):
                return "peers", f"{different}"
            if "Loop" in str(c.nodes) and arrays and not a.size and not b.size:
                continue  # dims of rows that no trip made
            return (
                "wrong",
                f"{name} output {i} ({model.graph.output[i].name}) {different} | ort: {ort_refusal}",
            )
    return ("agrees" if ort_refusal is None else "alone"), f"{ort_refusal}"


def check(seed: int) -> None:
    kind, detail = attempt_chain(seed)
    assert kind not in ("wrong", "crash", "refused"), f"graph {seed}: {kind}: {detail}"


@pytest.mark.parametrize("block", range(12))
def test_random_graphs(block: int) -> None:
    for seed in range(10 * block, 10 * block + 10):
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(40))
def test_many_random_graphs(block: int) -> None:
    for seed in range(1000 + 100 * block, 1100 + 100 * block):
        check(seed)


def refuse_chain(seed: int, many: int) -> None:
    """Damaged graphs are computed, or refused with one typed error, and end nothing."""
    c = chain_of(seed)
    outputs = c.outputs()
    if not outputs:
        return
    whole = c.model(outputs)
    for number in range(many):
        r = Draw(1000 * seed + number)
        try:
            model, what = damaged(whole, r)
        except (TypeError, ValueError, OverflowError):
            continue  # nothing that a file can say
        for plain in (False, True):
            _, text, error = attempt(run_ingot, model, c.feed(), plain)
            assert error is None or isinstance(error, ingot.IngotError), (
                f"seed {seed}, damage {number}, {'without' if plain else 'with'} passes, {what}: {text}"
            )


@pytest.mark.parametrize("block", range(4))
def test_damaged_graphs(block: int) -> None:
    for seed in range(8 * block, 8 * block + 8):
        refuse_chain(seed, 4)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(40))
def test_many_damaged_graphs(block: int) -> None:
    for seed in range(32 + 10 * block, 42 + 10 * block):
        refuse_chain(seed, 8)
