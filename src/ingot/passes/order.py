"""Nodes in topological order: ONNX demands it, some tools forget it, and everything behind the door relies on
it.
"""

from __future__ import annotations

import onnx_ir as ir

from ingot.errors import ModelError
from ingot.ops.registry import label
from ingot.passes.edit import subgraphs_of


def in_order(model: ir.Model, subject: str) -> ir.Model:
    """Sorts the nodes of every graph and function where one stands before a node that it reads; returns the
    model.

    Raises ModelError, naming `subject` and the nodes, where they wait for each other.
    """
    for graph in (model.graph, *model.functions.values()):
        if _is_sorted(graph, set()):
            continue
        try:
            graph.sort()
        except ValueError as error:
            nodes = ", ".join(label(node) for node in _circle(graph)) or "nodes of a subgraph"
            raise ModelError(
                f"{subject}: {nodes}: each reads what another one makes, in a circle, so none can be the "
                "first. Export the model again."
            ) from error
    return model


def _is_sorted(graph: ir.Graph | ir.Function, made: set[ir.Node]) -> bool:
    """Whether each node reads only what nodes before it make; `made`: those of the graphs around."""
    for node in graph:
        for value in node.inputs:
            if value is not None:
                producer = value.producer()
                if producer is not None and producer not in made:
                    return False
        for body in subgraphs_of(node) if node.attributes.data else ():
            if not _is_sorted(body, made):
                return False
        made.add(node)
    return True


def _circle(graph: ir.Graph | ir.Function) -> list[ir.Node]:
    """One circle of nodes, from each to one that it reads."""
    done: set[ir.Node] = set()
    for start in graph:
        path: dict[ir.Node, None] = {}
        stack = [(start, iter(_read(start, graph)))]
        path[start] = None
        while stack:
            node, rest = stack[-1]
            before = next((n for n in rest if n not in done), None)
            if before is None:
                stack.pop()
                del path[node]
                done.add(node)
            elif before in path:
                return list(path)[list(path).index(before) :]
            else:
                path[before] = None
                stack.append((before, iter(_read(before, graph))))
    return []


def _read(node: ir.Node, graph: ir.Graph | ir.Function) -> list[ir.Node]:
    """The nodes of the same graph that a node reads, itself or in its subgraphs."""
    inner = [n for body in subgraphs_of(node) for n in ir.traversal.RecursiveGraphIterator(body)]
    made = [value.producer() for n in (node, *inner) for value in n.inputs if value is not None]
    return [n for n in made if n is not None and n.graph is graph]
