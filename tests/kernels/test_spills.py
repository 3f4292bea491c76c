"""The innermost loops of the kernels that matter keep their vectors in registers."""

from __future__ import annotations

import re

import pytest

from ingot.codegen import cache
from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, Step
from ingot.kernels.normalize import layer_norm
from ingot.kernels.reduce import reduce
from ingot.kernels.softmax import softmax
from tests.kernels.run import each_machine, new

_VECTOR_STORE = re.compile(r"\s+v?mov[a-z0-9]*\s+%[xyz]mm\d+,\s*-?\w*\(%r[sb]p")


def innermost_loops(kernel: Kernel, machine: Machine) -> list[list[str]]:
    """The instructions of each loop that has no other loop in it."""
    lines = cache.native_assembly(kernel, machine).split("\n")
    labels = {line.split(":")[0]: i for i, line in enumerate(lines) if re.match(r"\.L\w+:", line)}
    spans: list[tuple[int, int]] = []
    for i, line in enumerate(lines):
        jump = re.match(r"\s+j\w+\s+(\.L\w+)", line)
        if jump and labels.get(jump[1], i) < i:
            spans.append((labels[jump[1]], i))
    inner = [s for s in spans if not any(s != t and s[0] <= t[0] and t[1] <= s[1] for t in spans)]
    return [lines[a : b + 1] for a, b in inner]


def spills(kernel: Kernel, machine: Machine) -> int:
    """How often a vector register is stored on the stack in innermost loops."""
    return sum(bool(_VECTOR_STORE.match(line)) for loop in innermost_loops(kernel, machine) for line in loop)


def unary(op: str, machine: Machine) -> Call:
    expression = Expression(("float32",), (Step(op, (0,), "float32"),), (1,))
    return elementwise(expression, [new((4096,))], [new((4096,))], machine)


@each_machine
@pytest.mark.parametrize("op", ["Relu", "Exp", "Log", "Tanh", "Erf", "Sigmoid", "Gelu", "Swish", "Softplus"])
def test_functions(op: str, machine: Machine) -> None:
    call = unary(op, machine)
    assert innermost_loops(call.kernel, machine)
    # Sixteen registers are just too few for the longest formulas and their constants.
    assert spills(call.kernel, machine) <= (1 if machine.registers == 16 else 0)


@each_machine
def test_rows(machine: Machine) -> None:
    x, weight = new((64, 768)), new((768,))
    calls = [
        softmax(x, new(x.shape), 1, machine),
        softmax(x, new(x.shape), 0, machine),
        layer_norm(
            x, weight, weight, new(x.shape), 1, 1e-5, machine, residual=new(x.shape), total=new(x.shape)
        ),
        reduce("ReduceMean", [x], (1,), new((64,)), machine),
        reduce("ReduceMean", [x], (0,), new((768,)), machine),
    ]
    # Softmax across lanes holds two exponentials, their masks and twelve constants: with sixteen registers it
    # spills a few, and two at a time are faster all the same.
    bound = 0 if machine.registers > 16 else 12
    assert max(spills(call.kernel, machine) for call in calls) <= bound


@each_machine
def test_transposes(machine: Machine) -> None:
    call = copy(new((96, 160)).transpose((1, 0)), new((160, 96)), machine)
    assert "transpose" in call.kernel.generator
    assert spills(call.kernel, machine) == 0


@each_machine
@pytest.mark.parametrize("vectors", [1, 2, 4, 12, 16])
def test_short_rows(vectors: int, machine: Machine) -> None:
    """Rows that stay in registers: one loop over rows, and nothing in it is stored on the stack.

    Softmax of more than eight vectors spills a few, and is faster than three passes all the same.
    """
    if vectors > 4 and machine.registers == 16:
        pytest.skip("these rows go through memory on this machine")
    x, weight = new((64, vectors * machine.lanes)), new((vectors * machine.lanes,))
    calls = [
        softmax(x, new(x.shape), 1, machine),
        layer_norm(x, weight, weight, new(x.shape), 1, 1e-5, machine),
    ]
    for call in calls:
        assert len(innermost_loops(call.kernel, machine)) == 1
        few = 4 if machine.registers == 16 else 24 if vectors > 8 and call is calls[0] else 0
        assert spills(call.kernel, machine) <= few
