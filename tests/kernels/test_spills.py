"""The innermost loops of the kernels that matter keep their vectors in registers."""

from __future__ import annotations

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
from tests.kernels.assembly import Loop, loops, spills
from tests.kernels.run import each_machine, new


def innermost_loops(kernel: Kernel, machine: Machine) -> list[Loop]:
    """The loops that have no other loop in them."""
    return [loop for loop in loops(cache.native_assembly(kernel, machine)) if loop.innermost]


def stores(kernel: Kernel, machine: Machine) -> int:
    """How often a vector register is stored on the stack in innermost loops."""
    assembly = cache.native_assembly(kernel, machine)
    return sum(spills(loop, assembly).stores for loop in loops(assembly) if loop.innermost)


def unary(op: str, machine: Machine) -> Call:
    expression = Expression(("float32",), (Step(op, (0,), "float32"),), (1,))
    return elementwise(expression, [new((4096,))], [new((4096,))], machine)


@each_machine
@pytest.mark.parametrize("op", ["Relu", "Exp", "Log", "Tanh", "Erf", "Sigmoid", "Gelu", "Swish", "Softplus"])
def test_functions(op: str, machine: Machine) -> None:
    call = unary(op, machine)
    assert innermost_loops(call.kernel, machine)
    # Sixteen registers are just too few for the longest formulas and their constants; two vectors at a time
    # take a few more, and are faster all the same.
    assert stores(call.kernel, machine) <= (0 if machine.registers > 16 else 3 if machine.fma else 1)


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
    assert max(stores(call.kernel, machine) for call in calls) <= bound


@each_machine
def test_transposes(machine: Machine) -> None:
    call = copy(new((96, 160)).transpose((1, 0)), new((160, 96)), machine)
    assert "transpose" in call.kernel.generator
    # The squares at the edges, which are masked, take a register more than a machine of 16 has.
    assert stores(call.kernel, machine) <= (1 if machine.registers == 16 else 0)


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
        assert stores(call.kernel, machine) <= few
