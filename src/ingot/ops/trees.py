"""Decision trees of ai.onnx.ml: TreeEnsembleRegressor, TreeEnsembleClassifier and TreeEnsemble."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# onnx_ir does not say what a node's meta holds.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.kernels.copy import copy
from ingot.kernels.trees import Forest, evaluate_forest, forest
from ingot.ops.forest import AGGREGATES, LEAF, MEMBER, MODES, Trees, distinct, pack
from ingot.ops.lists import numbers_of, strings_through
from ingot.ops.lowering import Lowering, Steps
from ingot.ops.numeric import FLOAT32, FLOAT64
from ingot.ops.registry import (
    Array,
    DType,
    Facts,
    Op,
    attr_int,
    attr_str,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.scores import (
    SCORE_TRANSFORMS,
    Classifier,
    chosen,
    lower_beside,
    lower_largest,
    lower_scores,
    lower_second_class,
    lower_two,
    second_class,
    transform_of,
    transformed,
)

_CACHE = "ingot.ops.trees"


class _Ensemble(Op):
    """What the three have in common: the trees of a node, packed once for each dtype of its input."""

    def _forest(self, node: ir.Node, dtype: DType) -> Forest:
        """The packed trees for an input of this dtype; float64 is compared as it is, all else as float32."""
        dtype = FLOAT64 if dtype == FLOAT64 else FLOAT32
        found: Any = node.meta.get(_CACHE)
        kept = cast("dict[DType, Forest] | None", found)
        if kept is None:
            kept = node.meta[_CACHE] = dict[DType, Forest]()
        if dtype not in kept:
            kept[dtype] = self.packed(node, dtype)
        return kept[dtype]

    def packed(self, node: ir.Node, dtype: DType) -> Forest:
        """The trees as the node's attributes have them."""
        raise NotImplementedError

    def table(self, node: ir.Node, x: Facts) -> tuple[int, int]:
        """Rows and columns of the input, checked."""
        if len(x.shape) not in (1, 2):
            raise shape_error(node, f"the input has shape {show(x.shape)}, and must be [N, features]")
        if x.dtype == object or x.dtype.kind not in "fiub":
            raise ModelError(f"{label(node)}: the input is {x.dtype}, and must be numbers. Insert a Cast.")
        rows, columns = x.shape if len(x.shape) == 2 else (1, x.shape[0])
        wanted = self._forest(node, x.dtype).features
        if columns < wanted:
            raise shape_error(node, f"the input has {columns} features, and the trees ask for {wanted}")
        return rows, columns

    def raw(self, node: ir.Node, x: Array) -> Array:
        """float64 [N, targets] before any transform."""
        packed = self._forest(node, x.dtype)
        return evaluate_forest(packed, np.atleast_2d(x).astype(packed.dtype, copy=False))

    def lower_raw(self, node: ir.Node, plan: Lowering, value: ir.Value | None, dtype: DType) -> ir.Value:
        """The same by the kernel, in `value` or a new one, rounded to `dtype`."""
        x = node.inputs[0]
        assert x is not None
        facts = plan.facts(x)
        packed = self._forest(node, facts.dtype)
        rows, columns = self.table(node, facts)
        if facts.dtype != packed.dtype:
            cast = plan.intermediate(facts.shape, packed.dtype)
            if not plan.wait(cast, "Cast", [x]):
                raise ModelError(f"{label(node)}: no kernel converts {facts.dtype} to {packed.dtype}.")
            x = cast
        view = plan.view(x)
        if columns > 1 and view.strides[-1] != 1:
            view = plan.copied(view)
        if view.rank == 1:
            view = view.with_dims((1, columns), (columns, 1))
        out = plan.temporary((rows, len(packed.base)), dtype) if value is None else plan.output(value)
        if not out.is_contiguous:  # a part of something larger
            own = plan.temporary(out.shape, dtype)
            plan.emit([forest(packed, view, own, plan.machine), copy(own, out, plan.machine)])
        else:
            plan.emit(forest(packed, view, out, plan.machine))
        return plan.located(out) if value is None else value


#: A table of all places that there could be is used where it has at most this many for each that there is.
_SPARSEST = 8


def _finder(tree: Array, number: Array) -> Callable[[Array, Array], Array]:
    """A function from trees and numbers in them to places in these lists; -1 where there is no such node."""
    trees, rank = np.unique(tree, return_inverse=True)
    lowest, span = int(number.min()), int(number.max()) - int(number.min()) + 1
    keys = rank.astype(np.int64) * span + (number - lowest)
    dense = int(trees[-1]) - int(trees[0]) < len(trees)
    table: Array | None = None
    ordered = order = keys
    if len(trees) * span <= _SPARSEST * len(keys):
        table = np.full(len(trees) * span, -1, np.int64)
        table[keys[::-1]] = np.arange(len(keys))[::-1]  # the first of those that are alike
    else:
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]

    def find(of_trees: Array, numbers: Array) -> Array:
        ranks = of_trees - trees[0] if dense else np.searchsorted(trees, of_trees)
        ranks = np.clip(ranks, 0, len(trees) - 1)
        inside = (trees[ranks] == of_trees) & (numbers >= lowest) & (numbers < lowest + span)
        wanted = np.where(inside, ranks.astype(np.int64) * span + (numbers - lowest), -1)
        if table is not None:
            return np.where(inside, table[wanted], -1)
        at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        return np.where(ordered[at] == wanted, order[at], -1)

    return find


def _grouped(node: ir.Node, prefix: str, targets: str) -> Trees:
    """The trees of versions 1 to 3: nodes named by (tree, node), leaves' entries as well.

    prefix: of the entries' attributes, "target" or "class".
    """
    tree, number = (_ints(node, f"nodes_{name}") for name in ("treeids", "nodeids"))
    count = len(tree)
    if not count:
        raise ModelError(f"{label(node)}: it has no nodes. The file is incomplete.")

    def column(name: str, default: Any, dtype: Any) -> Array:
        found = numbers_of(node, name, dtype)
        if found is None:
            return np.full(count, default, dtype)
        if len(found) != count:
            raise ModelError(
                f"{label(node)}: {name} has {len(found)} elements, and there are {count} nodes. The file is "
                "damaged."
            )
        return found

    known = {name: i for i, name in enumerate(MODES[:MEMBER])} | {"LEAF": LEAF}
    unknown: list[str] = []

    def number_of(name: str) -> int:
        if name not in known:
            unknown.append(name)
        return known.get(name, LEAF)

    mode = strings_through(node, "nodes_modes", number_of)
    if unknown or len(mode) != count:
        raise ModelError(
            f"{label(node)}: nodes_modes has {len(mode)} elements, {sorted(unknown)} among them; there are "
            f"{count} nodes, and modes are {', '.join(known)}."
        )
    find = _finder(tree, number)
    if len(distinct(find(tree, number))) != count:
        raise ModelError(f"{label(node)}: two nodes of a tree have the same number. The file is damaged.")

    inner = mode != LEAF
    yes, no = (np.zeros(count, np.int64) for _ in range(2))
    yes[inner] = find(tree[inner], column("nodes_truenodeids", 0, np.int64)[inner])
    no[inner] = find(tree[inner], column("nodes_falsenodeids", 0, np.int64)[inner])
    _, roots = np.unique(tree, return_index=True)  # the first node of each tree
    leaf_trees, leaf_nodes, target = (_ints(node, f"{prefix}_{n}") for n in ("treeids", "nodeids", targets))
    weight = numbers_of(node, f"{prefix}_weights", np.float32)
    weight = np.zeros(0, np.float32) if weight is None else weight
    if not len(leaf_trees) == len(leaf_nodes) == len(target) == len(weight):
        raise ModelError(f"{label(node)}: its {prefix}_… lists differ in length. The file is damaged.")
    leaf = find(leaf_trees, leaf_nodes)
    kept = ~inner[leaf] | (leaf < 0)  # what inner nodes say is not heard
    return Trees(
        column("nodes_featureids", 0, np.int64),
        mode,
        column("nodes_values", 0, np.float32),
        yes,
        no,
        column("nodes_missing_value_tracks_true", 0, np.int64) != 0,
        np.sort(roots),
        leaf[kept],
        target[kept],
        weight[kept],
        {},
    )


def _ints(node: ir.Node, name: str) -> Array:
    found = numbers_of(node, name, np.int64)
    return np.zeros(0, np.int64) if found is None else found


def _base(node: ir.Node, targets: int) -> Array:
    base = numbers_of(node, "base_values", np.float32)
    if base is None or not len(base):
        return np.zeros(targets)
    if len(base) not in (1, targets):
        raise ModelError(
            f"{label(node)}: base_values has {len(base)} elements, and there are {targets} targets."
        )
    return np.resize(base, targets)


class _Regressor(_Ensemble):
    """[N, targets]: what the leaves say of each target, combined over the trees, then transformed."""

    def transform(self, node: ir.Node) -> str:
        """What is done to the scores of a row."""
        raise NotImplementedError

    def dtype(self, node: ir.Node, x: DType) -> DType:
        """Of the output."""
        del node, x
        return FLOAT32

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """A row of targets for each row of x."""
        x = need(node, inputs, 0)
        rows, _ = self.table(node, x)
        return [Facts(self.dtype(node, x.dtype), (rows, len(self._forest(node, x.dtype).base)))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Row by row down each tree."""
        x = present(inputs, 0)
        dtype = self.dtype(node, x.dtype)
        return [transformed(self.raw(node, x), self.transform(node)).astype(dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A kernel over the rows, then the transform."""
        value, transform = node.outputs[0], self.transform(node)
        facts = plan.facts(value)
        wide = facts.dtype if facts.dtype in (FLOAT32, FLOAT64) else FLOAT32
        if transform == "NONE" and wide == facts.dtype:
            self.lower_raw(node, plan, value, wide)
            return True
        scores = lower_scores(plan, self.lower_raw(node, plan, None, wide), None, transform)
        Steps(plan, facts.shape).cast(scores, facts.dtype.name, value)
        return True


@register("TreeEnsembleRegressor", since=3, domain="ai.onnx.ml")
class TreeEnsembleRegressor(_Regressor):
    """Versions 1 and 3: attributes name nodes by tree and number."""

    def transform(self, node: ir.Node) -> str:
        """By its name."""
        return transform_of(node)

    def packed(self, node: ir.Node, dtype: DType) -> Forest:
        """base_values are added after the trees are combined."""
        trees, targets = _grouped(node, "target", "ids"), attr_int(node, "n_targets", 1)
        aggregate = attr_str(node, "aggregate_function", "SUM")
        if aggregate not in AGGREGATES:
            raise ModelError(
                f"{label(node)}: aggregate_function {aggregate!r} is none of {', '.join(AGGREGATES)}."
            )
        return pack(node, trees, targets, aggregate, _base(node, targets), dtype)


@register("TreeEnsemble", since=5, domain="ai.onnx.ml")
class TreeEnsemble(_Regressor):
    """Version 5: nodes and leaves in lists of their own, sets of values as a way to split."""

    def transform(self, node: ir.Node) -> str:
        """By its number."""
        number = attr_int(node, "post_transform", 0)
        if not 0 <= number < len(SCORE_TRANSFORMS):
            raise ModelError(
                f"{label(node)}: post_transform {number} is none of 0 … {len(SCORE_TRANSFORMS) - 1}."
            )
        return SCORE_TRANSFORMS[number]

    def dtype(self, node: ir.Node, x: DType) -> DType:
        """The input's own."""
        return x if x in (FLOAT32, FLOAT64) else np.dtype(np.float32) if x.kind != "f" else x

    def packed(self, node: ir.Node, dtype: DType) -> Forest:
        """Leaves are numbered after the inner nodes."""

        def tensor(name: str, default: Array | None = None) -> Array:
            found = node.attributes.get(name)
            if found is None and default is not None:
                return default
            if found is None:
                raise ModelError(f"{label(node)}: attribute {name} is missing. Run onnx.checker on the file.")
            return np.asarray(found.as_tensor().numpy()).reshape(-1)

        mode, value = tensor("nodes_modes").astype(np.int64), tensor("nodes_splits")
        leaf_targets, leaf_weights = _ints(node, "leaf_targetids"), tensor("leaf_weights")
        inner, leaves = len(mode), len(leaf_targets)
        lists = [
            _ints(node, f"nodes_{name}")
            for name in ("featureids", "truenodeids", "trueleafs", "falsenodeids", "falseleafs")
        ]
        missing = _ints(node, "nodes_missing_value_tracks_true")
        missing = np.zeros(inner, np.int64) if not len(missing) else missing
        lengths = {inner, len(value), len(missing), *map(len, lists)}
        if len(lengths) != 1 or leaves != len(leaf_weights) or ((mode < 0) | (mode > MEMBER)).any():
            raise ModelError(
                f"{label(node)}: its lists of nodes and leaves do not fit each other. The file is damaged."
            )
        feature, yes, yes_leaf, no, no_leaf = lists
        members = self._members(node, mode, tensor("membership_values", np.zeros(0, np.float32)))
        more = np.zeros(leaves, np.int64)
        trees = Trees(
            np.concatenate([feature, more]),
            np.concatenate([mode, more + LEAF]),
            np.concatenate([value, more.astype(value.dtype)]),
            np.concatenate([yes + np.where(yes_leaf != 0, inner, 0), more]),
            np.concatenate([no + np.where(no_leaf != 0, inner, 0), more]),
            np.concatenate([missing, more]) != 0,
            _ints(node, "tree_roots"),
            inner + np.arange(leaves),
            leaf_targets,
            leaf_weights,
            members,
        )
        number = attr_int(node, "aggregate_function", 1)
        if not 0 <= number < len(AGGREGATES):
            raise ModelError(
                f"{label(node)}: aggregate_function {number} is none of 0 … {len(AGGREGATES) - 1}."
            )
        targets = attr_int(node, "n_targets", 1)
        return pack(node, trees, targets, AGGREGATES[number], np.zeros(targets), dtype)

    @staticmethod
    def _members(node: ir.Node, mode: Array, values: Array) -> dict[int, Array]:
        """The sets, which NaN parts from each other, in the order of the nodes that ask for them."""
        asking = np.flatnonzero(mode == MEMBER)
        ends = np.flatnonzero(np.isnan(values))
        sets = np.split(values, ends + 1)
        sets = [part[~np.isnan(part)] for part in sets]
        if len(sets) < len(asking):
            raise ModelError(
                f"{label(node)}: {len(asking)} nodes ask for sets, and membership_values has {len(sets)}. "
                "The file "
                "is damaged."
            )
        return dict(zip(asking.tolist(), sets, strict=False))


@register("TreeEnsembleClassifier", since=3, domain="ai.onnx.ml")
class TreeEnsembleClassifier(_Ensemble, Classifier):
    """The class that the trees' leaves speak for most, and the scores of all classes.

    Two classes of which the leaves name only the first are one score: it is the second class's, and what the
    first one has depends on the weights: 1 - s where none is negative, else -s. (So onnxruntime and
    converters understand it; where the leaves name both, the larger score decides, by the specification.)
    """

    def packed(self, node: ir.Node, dtype: DType) -> Forest:
        """base_values are added to the classes that leaves name."""
        trees = _grouped(node, "class", "ids")
        classes = max(self.classes(node), 1)
        base = numbers_of(node, "base_values", np.float32)
        base = np.zeros(0) if base is None else base
        if len(base) not in (0, 1, classes):
            raise ModelError(
                f"{label(node)}: base_values has {len(base)} elements, and there are {classes} classes."
            )
        added = np.zeros(classes)
        if len(base) == classes:
            added = base.astype(np.float64)
        elif len(base) and self._is_one_score(node):
            added[0] = base[0]
        return pack(node, trees, classes, "SUM", added, dtype)

    def _is_one_score(self, node: ir.Node) -> bool:
        """Two classes, of which leaves name the first alone, and not more than one base value."""
        ids = _ints(node, "class_ids")
        base = numbers_of(node, "base_values", np.float32)
        return self.classes(node) == 2 and not ids.any() and (base is None or len(base) < 2)

    def _is_positive(self, node: ir.Node) -> bool:
        weights = numbers_of(node, "class_weights", np.float32)
        return weights is None or not bool((weights < 0).any())

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """A label and a row of scores for each row of x."""
        x = need(node, inputs, 0)
        if self.labels(node) is None:
            raise ModelError(f"{label(node)}: it has no class labels. The file is incomplete.")
        rows, _ = self.table(node, x)
        outputs: list[Facts | None] = [
            self.label_facts(node, rows),
            Facts(FLOAT32, (rows, self.classes(node))),
        ]
        return outputs[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The label of the largest score, before the transform."""
        raw = self.raw(node, present(inputs, 0)).astype(np.float32).astype(np.float64)
        labels, transform = self.labels(node), transform_of(node)
        assert labels is not None
        if not self._is_one_score(node):
            return [chosen(labels, raw.argmax(1)), transformed(raw, transform).astype(FLOAT32)]
        positive, score = self._is_positive(node), raw[:, :1]
        index = (score[:, 0] > (0.5 if positive else 0)).astype(np.int64)
        scores = second_class(score, not positive, transform == "LOGISTIC")
        if transform == "PROBIT":
            scores = transformed(scores, transform)
        return [chosen(labels, index), scores.astype(FLOAT32)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A kernel over the rows, then the transform and the label."""
        labels, transform = self.labels(node), transform_of(node)
        assert labels is not None
        if labels.dtype == object:
            return False
        one = self._is_one_score(node)
        raw = self.lower_raw(node, plan, None, FLOAT32)
        wanted = [*node.outputs, None][:2]
        if one:
            positive = self._is_positive(node)
            view = plan.view(raw)
            score = plan.located(view.with_dims((view.shape[0], 1), view.strides))
            if wanted[0] is not None:
                lower_two(plan, score, 0.5 if positive else 0.0, labels.tolist(), wanted[0])
            if wanted[1] is not None:
                columns = lower_second_class(plan, score, not positive, transform == "LOGISTIC")
                lower_beside(plan, *columns, wanted[1], transform)
            return True
        if wanted[0] is not None:
            lower_largest(plan, raw, labels, wanted[0])
        if wanted[1] is not None:
            lower_scores(plan, raw, wanted[1], transform)
        return True
