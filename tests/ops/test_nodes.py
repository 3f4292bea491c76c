"""Edits of nodes against onnx_ir's own methods: the same graph afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ingot.ops import nodes


@pytest.fixture(params=["fields", "methods"], autouse=True)
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written to onnx_ir's fields, and left to its methods as where it has other fields."""
    assert nodes._IS_KNOWN, "onnx_ir has other fields: see what they are for, and let ops/nodes.py write them"
    monkeypatch.setattr(nodes, "_IS_KNOWN", request.param == "fields")


def graph() -> tuple[ir.Graph, dict[str, ir.Value]]:
    """x, w → a = Add(x, w), b = Mul(a, a), c = Clip(b, , w), an output."""
    tensor = ir.Tensor(np.ones(3, np.float32))
    x, w = ir.Value(name="x"), ir.Value(name="w", const_value=tensor)
    a = ir.Node("", "Add", [x, w], name="a")
    b = ir.Node("", "Mul", [a.outputs[0], a.outputs[0]], name="b")
    c = ir.Node("", "Clip", [b.outputs[0], None, w], name="c")
    made = ir.Graph([x], c.outputs, nodes=[a, b, c], initializers=[w])
    return made, {"x": x, "w": w, **{node.name or "": node.outputs[0] for node in (a, b, c)}}


def told(made: ir.Graph, values: dict[str, ir.Value]) -> dict[str, Any]:
    """All that a graph says of its nodes and values, in order."""
    names = {id(value): name for name, value in values.items()}
    return {
        "nodes": [(n.name, [None if v is None else names[id(v)] for v in n.inputs]) for n in made],
        "uses": {name: [(use.node.name, use.idx) for use in v.uses()] for name, v in values.items()},
        "outputs": [names[id(value)] for value in made.outputs],
        "initializers": {key: names[id(value)] for key, value in made.initializers.items()},
        "places": {name: (v.is_initializer(), v.graph is made) for name, v in values.items()},
    }


def edited(edit: Callable[[ir.Graph, dict[str, ir.Value]], object]) -> dict[str, Any]:
    made, values = graph()
    edit(made, values)
    return told(made, values)


def maker(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def test_a_node_is_what_the_constructor_makes() -> None:
    def make(inputs: list[ir.Value | None], outputs: list[ir.Value]) -> tuple[ir.Node, ir.Node]:
        attributes = {"k": ir.Attr("k", ir.AttributeType.INT, 3)}
        said: dict[str, Any] = {"name": "n", "overload": "o", "doc_string": "d", "metadata_props": {"a": "b"}}
        theirs = ir.Node("ai.onnx", "Odd", inputs, attributes, outputs=outputs[:2], **said)
        return theirs, nodes.node_of("ai.onnx", "Odd", inputs, outputs[2:], attributes, **said)

    x, y = ir.Value(name="x"), ir.Value(name="y")
    theirs, ours = make([x, None, y, x], [ir.Value() for _ in range(4)])
    assert type(ours) is type(theirs)
    for field in (*ir.Node.__slots__, "domain", "graph", "version"):
        if field not in ("_outputs", "_attributes"):
            assert getattr(ours, field) == getattr(theirs, field), field
    assert dict(ours.attributes) == dict(theirs.attributes)
    assert [(v.producer() is ours, v.index()) for v in ours.outputs] == [(True, 0), (True, 1)]
    for value in (x, y):
        ends = [[use.idx for use in value.uses() if use.node is node] for node in (theirs, ours)]
        assert ends[0] == ends[1]
        assert len({type(use) for use in value.uses()}) == 1
    made = ir.Graph([x, y], ours.outputs, nodes=[ours], opset_imports={"": 20})
    assert len(made.clone()) == 1


@pytest.mark.parametrize("old, new", [("a", "x"), ("w", "x"), ("x", "w"), ("b", "a"), ("a", "a")])
def test_other_values_are_read(old: str, new: str) -> None:
    ours = edited(lambda _, values: nodes.replace_uses(values[old], values[new]))
    theirs = edited(lambda _, values: values[old].replace_all_uses_with(values[new]))
    assert ours == theirs


@pytest.mark.parametrize("names", [["x"], ["x", "w"], ["w", "x"], ["a", "w", "b"], ["b", None, "w", "x"], []])
def test_inputs_of_any_number(names: list[str | None]) -> None:
    made, values = graph()
    node = maker(values["c"])
    nodes.set_inputs(node, [None if name is None else values[name] for name in names])
    found = told(made, values)
    assert found["nodes"][2] == ("c", names)
    for name, value in values.items():
        wanted = [i for i, each in enumerate(names) if each == name]
        assert sorted(use.idx for use in value.uses() if use.node is node) == wanted, name
    assert found["uses"]["a"][:2] == [("b", 0), ("b", 1)]


def test_nodes_are_removed() -> None:
    def ours(_: ir.Graph, values: dict[str, ir.Value]) -> None:
        nodes.replace_uses(values["b"], values["x"])
        nodes.remove(maker(values["b"]))
        nodes.remove(maker(values["a"]))

    def theirs(made: ir.Graph, values: dict[str, ir.Value]) -> None:
        values["b"].replace_all_uses_with(values["x"])
        made.remove(maker(values["b"]), safe=True)
        made.remove(maker(values["a"]), safe=True)

    assert edited(ours) == edited(theirs)
    made, values = graph()
    nodes.replace_uses(values["b"], values["x"])
    removed = maker(values["b"])
    nodes.remove(removed)
    assert removed.graph is None
    assert list(removed.inputs) == [None, None]
    made.append(removed)  # as good as new
    assert [node.name for node in made] == ["a", "c", "b"]


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_nodes_in_use_stay(name: str) -> None:
    made, values = graph()
    before = told(made, values)
    with pytest.raises(ValueError, match="still"):
        nodes.remove(maker(values[name]))
    assert told(made, values) == before


def test_initializers_are_the_graphs() -> None:
    made, values = graph()
    values["new"] = nodes.initialized("new", ir.Tensor(np.zeros((2, 3), np.int64)))
    nodes.add_new_initializer(made, values["new"])
    found = told(made, values)
    assert found["initializers"] == {"w": "w", "new": "new"}
    assert found["places"]["new"] == (True, True)
    assert values["new"].dtype == ir.DataType.INT64
    assert values["new"].shape == ir.Shape((2, 3))
