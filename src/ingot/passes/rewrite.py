"""What a rule is, and the pass that applies rules until none fits.

A rule is a function for some root operators: `(editor, node)` to the values that replace the node's
outputs; to None where the pattern is not there; or to a sentence where it is there and a check refuses it.
Its docstring is its equation. The values that it leaves without use are removed with their nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import onnx_ir as ir

from ingot.errors import is_debugging
from ingot.ops.nodes import remove
from ingot.ops.registry import UNFIT, label
from ingot.passes.dims import Dims
from ingot.passes.edit import Editor, constant_shape, graphs_of, replace
from ingot.passes.malformed import require_form

Result: TypeAlias = "Sequence[ir.Value | None] | str | None"
Apply: TypeAlias = "Callable[[Rewriting, ir.Node], Result]"


@dataclass(frozen=True, slots=True)
class Rule:
    """One equation between graphs. `since`: the first opset that has the operators it writes. `needs`:
    operators in its pattern of which the model must have one.
    """

    name: str
    roots: tuple[str, ...]
    since: int
    apply: Apply
    needs: frozenset[str] = frozenset()

    def __call__(
        self, model: ir.Model, *, standard: bool = True, explain: Callable[[str], None] | None = None
    ) -> int:
        """Applies this rule alone; returns how often."""
        return rewrite(model, [self], standard=standard, explain=explain)


def rule(*roots: str, since: int = 1, needs: Iterable[str] = ()) -> Callable[[Apply], Rule]:
    """Decorator: a rule for these root operators."""

    def make(apply: Apply) -> Rule:
        return Rule(apply.__name__, roots, since, apply, frozenset(needs))

    return make


@dataclass
class Rewriting(Editor):
    """What a rule gets: an editor at its root, and what is known of shapes."""

    node: ir.Node
    dims: Dims
    #: Only standard ONNX may be written: a proof is needed where Ingot's own session would do without.
    standard: bool = True
    graph: ir.Graph = field(init=False)

    def __post_init__(self) -> None:
        Editor.__init__(self, self.node)


def rewrite(
    model: ir.Model,
    rules: Iterable[Rule],
    *,
    standard: bool = True,
    explain: Callable[[str], None] | None = None,
    dims: Dims | None = None,
) -> int:
    """Applies `rules` to every graph of the model, in place, until none fits; returns how many were applied.

    requires: one opset for all nodes, no local functions. ensures: the same function of the same inputs.
    `explain` gets a line for each rule applied or refused. dims: what is proved of the model's shapes.
    """
    opset = model.opset_imports.get("", 0)
    table: dict[str, list[Rule]] = {}
    for entry in rules:
        if entry.since <= opset:
            for root in entry.roots:
                table.setdefault(root, []).append(entry)
    total, dims = 0, Dims() if dims is None else dims
    for _ in range(16):  # each round applies at least one rule; rules make graphs smaller, so a few rounds do
        present = {node.op_type for graph in graphs_of(model) for node in graph}
        applied = sum(_round(graph, table, present, dims, standard, explain) for graph in graphs_of(model))
        total += applied
        if not applied:
            break
    return total


def _round(
    graph: ir.Graph,
    table: dict[str, list[Rule]],
    present: set[str],
    dims: Dims,
    standard: bool,
    explain: Callable[[str], None] | None,
) -> int:
    applied = 0
    rewriting: Rewriting | None = None
    for node in list(graph):
        if node.graph is not graph or node.domain != "":
            continue
        entries = table.get(node.op_type)
        if entries is None:
            continue
        if rewriting is None:
            rewriting = Rewriting(node, dims, standard)
        rewriting.node = node
        name = label(node) if explain is not None else ""
        for entry in entries:
            if entry.needs and entry.needs.isdisjoint(present):
                continue
            result = _result(entry, rewriting, node)
            if isinstance(result, str):
                if explain is not None:
                    explain(f"{entry.name}: {name}: {result}")
            elif result is not None:
                feeding = [value for value in node.inputs if value is not None]
                present.update(_makers(result))
                replace(node, result)
                remove_unused(feeding)
                applied += 1
                if explain is not None:
                    explain(f"{entry.name}: {name}: applied")
                break
    return applied


def _result(entry: Rule, rewriting: Rewriting, node: ir.Node) -> Result:
    """What a rule makes of a node. Nothing of one whose attributes and inputs do not go together: that is
    refused by name where it runs. With INGOT_DEBUG=1 the rule's own error comes out.
    """
    try:
        result = entry.apply(rewriting, node)
    except UNFIT:
        if is_debugging():
            raise
        require_form(node)
        return None
    if result is None or isinstance(result, str):
        return result
    if len(result) != len(node.outputs):
        return None  # it has outputs that its operator has not
    missing = [old for old, new in zip(node.outputs, result, strict=True) if new is None]
    return None if any(old.uses() or old.is_graph_output() for old in missing) else result


def _makers(values: Iterable[ir.Value | None]) -> Iterator[str]:
    """The operators that make the values."""
    for value in values:
        node = None if value is None else value.producer()
        if node is not None:
            yield node.op_type


def remove_unused(values: Iterable[ir.Value]) -> None:
    """Removes the producers of values that nothing uses, and so on upwards."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if node is None or value.uses() or node.graph is None:
            continue
        if any(v.uses() or v.is_graph_output() for v in node.outputs):
            continue
        feeding = [value for value in node.inputs if value is not None]
        remove(node)
        waiting += feeding


# ---- the vocabulary of patterns -------------------------------------------------------------------------


def made_by(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The standard node that computes the value, if it is one of these operators."""
    node = None if value is None else value.producer()
    return node if node is not None and node.domain == "" and node.op_type in op_types else None


def only_use(value: ir.Value) -> bool:
    """True where one node input uses the value and no graph output shows it."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def either_way(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Both orders of a commutative node's two inputs."""
    a, b = node.inputs
    if a is not None and b is not None:
        yield a, b
        yield b, a


def factors(value: ir.Value, inside: bool = True) -> list[ir.Value]:
    """The values whose product this is, through Mul nodes that nothing else uses."""
    node = made_by(value, "Mul")
    if node is None or (not inside and not only_use(value)):
        return [value]
    return [f for v in node.inputs if v is not None for f in factors(v, inside=False)]


def adds_no_dimensions(g: Rewriting, x: ir.Value, node: ir.Node) -> bool:
    """True where no constant between x and the node's output has more dimensions than x."""
    known = g.dims.of(x)
    rank = 0 if known is None else len(known)
    waiting, ranks = [value for value in node.inputs if value is not None], list[int]()
    while waiting:
        value = waiting.pop()
        shape, producer = constant_shape(value), value.producer()
        if shape is not None:
            ranks.append(len(shape))
        elif value is not x and producer is not None:
            waiting += [v for v in producer.inputs if v is not None]
    return max(ranks, default=0) <= rank
