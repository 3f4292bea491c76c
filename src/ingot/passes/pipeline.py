"""The passes in their order: what a session does to a model, and what `ingot.optimize` does to a file's."""

# pyright: reportUnknownMemberType=false
# onnx.checker is annotated in part.

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from ingot.errors import ModelError
from ingot.passes import clean, fold
from ingot.passes.classes import number_classes
from ingot.passes.denormal import flush_biases
from ingot.passes.dims import Dims
from ingot.passes.edit import fixed_graphs, graphs_of
from ingot.passes.lists import stack_lists
from ingot.passes.opset import NEWEST, normalise
from ingot.passes.rewrite import rewrite
from ingot.passes.rules import RULES, join, upsample

#: A stage changes a model in place and says how much it did.
Stage: TypeAlias = "tuple[str, Callable[[ir.Model], object]]"

#: From here on every operator that the rules read means what it means at the newest opset.
LOWEST = 18


def prepare(
    model: ir.Model, *, debug: bool = False, explain: Callable[[str], None] | None = None
) -> ir.Model:
    """Brings a model to what the compiler reads: newest opset, no local functions, rules applied; in place.

    ensures: the same function; the graph may use operators more freely than ONNX (see `rules.attention`),
    so it is not for other runtimes. debug: every stage's result is checked, and the stage that broke it is
    named.
    """
    joins = partial(rewrite, rules=(*join.RULES, *upsample.RULES), standard=False, explain=explain)
    first: list[Stage] = [
        ("normalise", normalise),
        ("number classes", number_classes),
        ("stack lists", stack_lists),
    ]
    with fixed_graphs(model):
        run(model, first, debug=debug, explain=explain)
        changes = _stages(fold.SESSION_LIMIT, False, explain, joins, flush_biases)
        return run(model, changes, debug=debug, explain=explain)


def optimise(
    model: ir.Model, *, debug: bool = False, explain: Callable[[str], None] | None = None
) -> ir.Model:
    """Simplifies a model for any runtime, in place: only standard operators of its own opset (at least 18).

    ensures: the same function, opset max(declared, 18), weights not larger than before but for small
    constants.
    """
    target = min(NEWEST, max(model.opset_imports.get("", LOWEST), LOWEST))
    with fixed_graphs(model):
        run(model, [("normalise", partial(normalise, target=target))], debug=debug, explain=explain)
        return run(model, _stages(fold.FILE_LIMIT, True, explain), debug=debug, explain=explain)


def _stages(
    limit: int,
    standard: bool,
    explain: Callable[[str], None] | None,
    *further: Callable[[ir.Model], object],
) -> list[Stage]:
    dims = Dims()  # what is proved of shapes while folding, the rules need not prove again
    rules = partial(rewrite, rules=RULES, standard=standard, explain=explain, dims=dims)
    applied: list[object] = []

    def counted(stage: Callable[[ir.Model], object], model: ir.Model) -> object:
        applied.append(stage(model))
        return applied[-1]

    def if_applied(stage: Callable[[ir.Model], object], model: ir.Model) -> object:
        return stage(model) if any(applied) else 0

    return [
        ("remove dead nodes", clean.remove_dead),
        ("lift constants", fold.lift_constants),
        ("fold", partial(fold.fold, limit=limit, dims=dims)),
        ("merge initializers", clean.merge_initializers),
        ("merge equal nodes", clean.merge_equal_nodes),
        *(("rules", partial(counted, stage)) for stage in (rules, *further)),
        ("lift new constants", partial(if_applied, fold.lift_constants)),
        ("fold again", partial(if_applied, partial(fold.fold, limit=limit))),
        ("merge again", partial(if_applied, clean.merge_equal_nodes)),
        ("remove what is left over", clean.remove_dead),
        ("remove unused initializers", clean.remove_unused_initializers),
    ]


def run(
    model: ir.Model,
    stages: list[Stage],
    *,
    debug: bool = False,
    explain: Callable[[str], None] | None = None,
) -> ir.Model:
    """Runs the stages in order. debug: checks the model after each; raises `ModelError` naming the stage."""
    for name, stage in stages:
        result = stage(model)
        if explain is not None:
            done = f": {result}" if isinstance(result, int) else ""
            explain(f"[{name}]{done}, {sum(map(len, graphs_of(model)))} nodes")
        if debug:
            check(model, name)
    return model


def check(model: ir.Model, stage: str) -> None:
    """Raises `ModelError`, naming the stage, where the model is not valid ONNX."""
    try:
        common.CheckerPass()(model)  # which leaves large weights out of what it writes
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(
            f"The stage {stage!r} left an invalid graph: {error}. Please report this."
        ) from error
