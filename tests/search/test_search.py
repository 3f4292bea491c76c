"""Random nodes at random opsets, with and without passes, against ONNX Runtime and onnx.reference; and wrong
nodes, which are one typed error each. What a peer is known to get wrong stands in `judge.py`.
"""

from __future__ import annotations

import zlib

import pytest

import ingot
from tests.search.cases import OPERATORS, case_of
from tests.search.judge import attempt, build, judge, run_ingot

MANY = 60


def seed_of(domain: str, op: str, number: int) -> int:
    """The same for an operator whatever others there are."""
    return zlib.crc32(f"{domain}.{op}".encode()) + number


def compare(domain: str, op: str, number: int) -> None:
    case, r = case_of(domain, op, seed_of(domain, op, number))
    model, feeds = build(case, r)
    found = judge(case, model, feeds)
    inputs = [getattr(v, "shape", v) for v in case.inputs]
    assert found.kind in ("agrees", "alone", "peers", "nobody"), (
        f"{op} (opset {case.opset}) of {inputs} with {case.attributes}: {found.kind}: {found.detail}"
    )


def refuse(domain: str, op: str, number: int) -> None:
    case, r = case_of(domain, op, seed_of(domain, op, 1000 + number), wrong=True)
    try:
        model, feeds = build(case, r)
    except Exception:
        return  # nothing that a file can say
    _, text, error = attempt(run_ingot, model, feeds)
    assert error is None or isinstance(error, ingot.IngotError | MemoryError), (
        f"{op} (opset {case.opset}) with {case.attributes}: {text}"
    )


@pytest.mark.parametrize(("domain", "op"), OPERATORS)
def test_a_random_node(domain: str, op: str) -> None:
    compare(domain, op, 0)


@pytest.mark.parametrize(("domain", "op"), OPERATORS)
def test_a_wrong_node(domain: str, op: str) -> None:
    refuse(domain, op, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("domain", "op"), OPERATORS)
def test_many_random_nodes(domain: str, op: str) -> None:
    for number in range(1, MANY):
        compare(domain, op, number)


@pytest.mark.slow
@pytest.mark.parametrize(("domain", "op"), OPERATORS)
def test_many_wrong_nodes(domain: str, op: str) -> None:
    for number in range(1, MANY):
        refuse(domain, op, number)
