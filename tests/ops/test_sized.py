"""What operators compute with sizes that are noted is what they compute with integers, or is refused."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest

from ingot.kernels.notes import noted
from ingot.kernels.sizes import Size
from ingot.ops.numeric import INT64
from ingot.ops.registry import Facts, evaluated, facts_of, find
from ingot.ops.sized import MadeFacts, integers, known_facts, memory_of


def node_of(op_type: str, count: int, **attributes: int) -> ir.Node:
    inputs = [ir.Value(name=f"x{number}") for number in range(count)]
    return ir.Node("", op_type, inputs, [ir.AttrInt64(k, v) for k, v in attributes.items()])


def results(op_type: str, *inputs: Facts, **attributes: int) -> Facts:
    node, op = node_of(op_type, len(inputs), **attributes), find("", op_type)
    inferred = op.infer(node, inputs)
    assert inferred is not None
    found = known_facts(op, node, inputs, inferred)[0]
    assert found is not None
    return found


@pytest.mark.parametrize(
    "op_type",
    ["Add", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mul", "Sub"],
)
def test_arithmetic_with_sizes_is_that_with_integers(op_type: str) -> None:
    for a, b in itertools.product((-7, -3, 0, 5, 6), (-3, -1, 2, 5)):
        node, op = node_of(op_type, 2), find("", op_type)
        wanted = evaluated(op, node, [np.array([a, 7 + a], INT64), np.array([b], INT64)])[0]
        with noted([7]) as notes:
            size = notes.given[0]
            found = results(op_type, integers([size + (a - 7), size + a]), integers([size + (b - 7)]))
            assert found.value is not None
            assert found.dtype == wanted.dtype, f"{op_type} of {a} and {b}: give it the dtype it has"
            assert [int(x) for x in found.value] == wanted.tolist(), f"{op_type} of {a} and {b}"


def test_sums_of_sizes_stay_sizes() -> None:
    with noted([7, 5], may_pin=False) as notes:
        shape = integers([*notes.given, 3])
        picked = results("Gather", shape, facts_of(np.array([1, 0])), axis=0)
        total = results("Mul", picked, integers([4]))
        assert total.value is not None
        first, second = total.value.tolist()
        assert type(first) is type(second) is Size
        assert (first.value, second.value) == (20, 28)


def test_what_the_dtype_cannot_hold_is_refused() -> None:
    with noted([7]) as notes, pytest.raises(TypeError, match="more than int64 can hold"):
        results("Mul", integers([notes.given[0]]), integers([1 << 62]))


def test_an_array_that_follows_from_sizes_is_not_looked_at() -> None:
    with noted([7], may_pin=False) as notes:
        limit = results("Squeeze", integers([notes.given[0]]))
        zero, one = facts_of(np.array(0)), facts_of(np.array(1))
        made = results("Range", zero, limit, one)
        assert isinstance(made, MadeFacts)
        assert made.made.array.tolist() == [0, 1, 2, 3, 4, 5, 6]
        with pytest.raises(TypeError, match="is looked at"):
            _ = made.value
        view = memory_of(made)
        assert view is not None
        assert view.buffer.array is None, "memory that is made anew has no array that a kernel may look into"


def test_without_notes_nothing_follows_from_sizes() -> None:
    assert memory_of(facts_of(np.array([3]))) is None
    assert results("Add", integers([3]), integers([4])).value == np.array([7])
