"""LinearRegressor, LinearClassifier, SVMRegressor and SVMClassifier of ai.onnx.ml."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.kernels.coupling import coupling, evaluate_coupling, pairs_of
from ingot.ops.compose import computed, deliver, integer, settled
from ingot.ops.features import ML, as_float, numeric
from ingot.ops.lowering import Lowering, Steps
from ingot.ops.numeric import FLOAT32, FLOAT64
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_floats,
    attr_int,
    attr_ints,
    attr_str,
    first_input,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.scores import (
    Classifier,
    arithmetic,
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

#: Probabilities of a pair are kept so far from 0 and from 1.
_LEAST = 1e-7


def _floats(node: ir.Node, name: str) -> Array:
    return np.array(attr_floats(node, name) or (), np.float32)


def _table(node: ir.Node, x: Facts, columns: int) -> int:
    """The rows of an input [N, columns] or [columns]."""
    numeric(node, x)
    if len(x.shape) not in (1, 2) or x.shape[-1] != columns:
        raise shape_error(node, f"the input has shape {show(x.shape)}, and must be [N, {columns}]")
    return x.shape[0] if len(x.shape) == 2 else 1


class _Linear(Op):
    """x · Wᵀ + b, in float32."""

    def parameters(self, node: ir.Node) -> tuple[Array, Array]:
        """W [rows, features] and b [rows]."""
        raise NotImplementedError

    def divided(self, node: ir.Node, rows: int) -> tuple[Array, Array]:
        """The coefficients in `rows` rows, and intercepts for them."""
        w, b = _floats(node, "coefficients"), _floats(node, "intercepts")
        b = b if len(b) else np.zeros(rows, np.float32)
        if not rows or not len(w) or len(w) % rows or len(b) != rows:
            raise ModelError(
                f"{label(node)}: {len(w)} coefficients and {len(b)} intercepts for {rows} outputs. The file "
                "is damaged."
            )
        return w.reshape(rows, -1), b

    def scores(self, node: ir.Node, x: Array) -> Array:
        """In float64."""
        w, b = self.parameters(node)
        with np.errstate(all="ignore"):
            return np.atleast_2d(x).astype(np.float64) @ w.T.astype(np.float64) + b

    def lower_product(self, node: ir.Node, plan: Lowering) -> ir.Value:
        """[N, rows]; it waits."""
        x = as_float(plan, first_input(node))
        w, b = self.parameters(node)
        view = plan.view(x)
        if view.rank == 1:
            x = plan.located(view.with_dims((1, *view.shape), (0, *view.strides)))
        rows = plan.facts(x).shape[0]

        def transposed() -> Array:
            return np.ascontiguousarray(w.T)

        weights = plan.known(plan.pack(("ml", id(node)), transposed))
        product = computed(plan, "MatMul", [x, weights], (rows, len(w)), FLOAT32)
        return computed(plan, "Add", [product, plan.known(b)], (rows, len(w)), FLOAT32)


@register("LinearRegressor", since=1, domain=ML)
class LinearRegressor(_Linear):
    """[N, targets]: x · Wᵀ + b, then a transform of each row."""

    def parameters(self, node: ir.Node) -> tuple[Array, Array]:
        """A row for each target."""
        return self.divided(node, attr_int(node, "targets", 1))

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """float32."""
        w, _ = self.parameters(node)
        return [Facts(FLOAT32, (_table(node, need(node, inputs, 0), w.shape[1]), len(w)))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Rounded once."""
        return [transformed(self.scores(node, present(inputs, 0)), transform_of(node)).astype(FLOAT32)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A matrix product and what follows it."""
        lower_scores(plan, self.lower_product(node, plan), node.outputs[0], transform_of(node))
        return True


@register("LinearClassifier", since=1, domain=ML)
class LinearClassifier(_Linear, Classifier):
    """The class of the largest x · w + b, and all of them, transformed. One score for two labels is the
    second's.
    """

    def parameters(self, node: ir.Node) -> tuple[Array, Array]:
        """A row for each intercept; without any, one for each label."""
        return self.divided(node, len(_floats(node, "intercepts")) or max(self.classes(node), 1))

    def _is_one_score(self, node: ir.Node) -> bool:
        w, _ = self.parameters(node)
        return len(w) == 1 and self.classes(node) == 2

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[N] labels, [N, classes] scores."""
        w, _ = self.parameters(node)
        rows = _table(node, need(node, inputs, 0), w.shape[1])
        width = 2 if self._is_one_score(node) else len(w)
        if self.classes(node) != width:
            raise ModelError(
                f"{label(node)}: {self.classes(node)} labels for {width} scores. The file is damaged."
            )
        outputs: list[Facts | None] = [self.label_facts(node, rows), Facts(FLOAT32, (rows, width))]
        return outputs[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The label is chosen before the transform."""
        labels, transform = self.labels(node), transform_of(node)
        assert labels is not None
        scores = self.scores(node, present(inputs, 0))
        if not self._is_one_score(node):
            return [chosen(labels, scores.argmax(1)), transformed(scores, transform).astype(FLOAT32)]
        both = second_class(scores, False, transform == "LOGISTIC")
        if transform == "PROBIT":
            both = transformed(both, transform)
        return [chosen(labels, (scores[:, 0] > 0).astype(np.int64)), both.astype(FLOAT32)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A matrix product, the transform, the label."""
        labels, transform = self.labels(node), transform_of(node)
        assert labels is not None
        if labels.dtype == object:
            return False
        scores = settled(plan, self.lower_product(node, plan))
        wanted = [*node.outputs, None][:2]
        if self._is_one_score(node):
            if wanted[0] is not None:
                lower_two(plan, scores, 0.0, labels.tolist(), wanted[0])
            if wanted[1] is not None:
                columns = lower_second_class(plan, scores, False, transform == "LOGISTIC")
                lower_beside(plan, *columns, wanted[1], transform)
            return True
        if wanted[0] is not None:
            lower_largest(plan, scores, labels, wanted[0])
        if wanted[1] is not None:
            lower_scores(plan, scores, wanted[1], transform)
        return True


class _Machine(Op):
    """Kernels of a support vector machine: K(x, v) for each row and each vector."""

    def kernel(self, node: ir.Node, x: Array, vectors: Array) -> Array:
        """[N, vectors], in float64."""
        name = attr_str(node, "kernel_type", "LINEAR")
        gamma, coefficient, degree = (*_floats(node, "kernel_params").tolist(), 0.0, 0.0, 0.0)[:3]
        product = x @ vectors.T
        if name == "LINEAR":
            return product
        if name == "POLY":
            return (gamma * product + coefficient) ** degree
        if name == "SIGMOID":
            return np.tanh(gamma * product + coefficient)
        if name == "RBF":
            square = (x * x).sum(1)[:, None] + (vectors * vectors).sum(1) - 2 * product
            return np.exp(-gamma * np.maximum(square, 0.0))
        raise ModelError(f"{label(node)}: kernel_type {name!r} is none of LINEAR, POLY, RBF, SIGMOID.")

    def vectors(self, node: ir.Node, count: int) -> Array:
        """[count, features]."""
        found = _floats(node, "support_vectors").astype(np.float64)
        if not count or len(found) % count:
            raise ModelError(
                f"{label(node)}: {len(found)} numbers are no {count} support vectors. The file is damaged."
            )
        return found.reshape(count, -1)

    def lower_kernel(self, node: ir.Node, plan: Lowering, x: ir.Value, vectors: Array) -> ir.Value:
        """The same by kernels, of x in float64; it waits."""
        name = attr_str(node, "kernel_type", "LINEAR")
        gamma, coefficient, degree = (*_floats(node, "kernel_params").tolist(), 0.0, 0.0, 0.0)[:3]
        shape = (plan.facts(x).shape[0], len(vectors))
        product = computed(plan, "MatMul", [x, plan.known(np.ascontiguousarray(vectors.T))], shape, FLOAT64)
        if name == "LINEAR":
            return product
        if name == "RBF":
            axes = plan.known(np.array([1]))
            squares = computed(plan, "ReduceSumSquare", [x, axes], (shape[0], 1), FLOAT64)
            own = plan.known((vectors * vectors).sum(1))
            twice = arithmetic(plan, "Mul", product, -2.0)
            near = computed(plan, "Add", [arithmetic(plan, "Add", twice, own), squares], shape, FLOAT64)
            near = computed(plan, "Max", [near, plan.known(np.array(0.0))], shape, FLOAT64)
            return computed(plan, "Exp", [arithmetic(plan, "Mul", near, -gamma)], shape, FLOAT64)
        inner = arithmetic(plan, "Add", arithmetic(plan, "Mul", product, gamma), coefficient)
        if name == "SIGMOID":
            return computed(plan, "Tanh", [inner], shape, FLOAT64)
        if name == "POLY":
            return arithmetic(plan, "Pow", inner, degree)
        raise ModelError(f"{label(node)}: kernel_type {name!r} is none of LINEAR, POLY, RBF, SIGMOID.")


def _rows_of(node: ir.Node, plan: Lowering) -> ir.Value:
    """The input [N, features] in float64, computed now."""
    x = first_input(node)
    view = plan.view(x)
    if view.rank == 1:
        x = plan.located(view.with_dims((1, *view.shape), (0, *view.strides)))
    facts = plan.facts(x)
    if facts.dtype == FLOAT64:
        return x
    return settled(plan, computed(plan, "Cast", [x], facts.shape, FLOAT64, [integer("to", 11)]))


def _product(plan: Lowering, x: ir.Value, weights: Array, added: Array | float) -> ir.Value:
    """x · weights + added, in float64; it waits."""
    shape = (plan.facts(x).shape[0], weights.shape[1])
    product = computed(plan, "MatMul", [x, plan.known(np.ascontiguousarray(weights))], shape, FLOAT64)
    return computed(plan, "Add", [product, plan.known(np.asarray(added, np.float64))], shape, FLOAT64)


def _in_float32(plan: Lowering, x: ir.Value) -> ir.Value:
    return computed(plan, "Cast", [x], plan.facts(x).shape, FLOAT32, [integer("to", 1)])


@register("SVMRegressor", since=1, domain=ML)
class SVMRegressor(_Machine):
    """[N, 1]: Σ coefficients · K(x, v) + rho; its sign (1 or -1) where one_class is set."""

    def _parameters(self, node: ir.Node) -> tuple[Array | None, Array, float]:
        """Support vectors (None: x · coefficients), coefficients and rho."""
        count, rho = attr_int(node, "n_supports", 0), _floats(node, "rho")
        coefficients = _floats(node, "coefficients").astype(np.float64)
        if not len(rho) or not len(coefficients):
            raise ModelError(f"{label(node)}: it has no rho or no coefficients. The file is incomplete.")
        return (self.vectors(node, count) if count else None), coefficients, float(rho[0])

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """float32."""
        vectors, coefficients, _ = self._parameters(node)
        columns = len(coefficients) if vectors is None else vectors.shape[1]
        return [Facts(FLOAT32, (_table(node, need(node, inputs, 0), columns), 1))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In float64, rounded once."""
        x = np.atleast_2d(present(inputs, 0)).astype(np.float64)
        vectors, coefficients, rho = self._parameters(node)
        with np.errstate(all="ignore"):
            if vectors is None:
                products = x @ coefficients[:, None]
            else:
                products = self.kernel(node, x, vectors) @ coefficients[:, None]
        y = products + rho
        if attr_int(node, "one_class", 0):
            y = np.where(y > 0, 1.0, -1.0)
        return [transformed(y, transform_of(node)).astype(FLOAT32)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Products and functions in float64."""
        x = _rows_of(node, plan)
        vectors, coefficients, rho = self._parameters(node)
        factor = x if vectors is None else self.lower_kernel(node, plan, x, vectors)
        y = _product(plan, factor, coefficients[:, None], rho)
        if attr_int(node, "one_class", 0):
            shape = plan.facts(y).shape
            above = computed(plan, "Greater", [y, plan.known(np.array(0.0))], shape, np.bool_)
            y = computed(
                plan, "Where", [above, *(plan.known(np.array(v)) for v in (1.0, -1.0))], shape, FLOAT64
            )
        y = lower_scores(plan, y, None, transform_of(node))
        deliver(plan, node.outputs[0], _in_float32(plan, y))
        return True


@register("SVMClassifier", since=1, domain=ML)
class SVMClassifier(_Machine, Classifier):
    """Votes of a machine for each pair of classes (libsvm's SVC), with probabilities by pairwise coupling
    where the node has prob_a and prob_b; or one score for each class, x · w (no support vectors).
    """

    def _counts(self, node: ir.Node) -> tuple[int, ...]:
        return tuple(attr_ints(node, "vectors_per_class") or ())

    def _is_linear(self, node: ir.Node) -> bool:
        return not self._counts(node)

    def _width(self, node: ir.Node) -> int:
        """Scores of a row."""
        classes = self.classes(node)
        if self._is_linear(node) or len(_floats(node, "prob_a")):
            return classes
        return classes * (classes - 1) // 2 if classes > 2 else 2

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[N] labels, [N, scores]."""
        if self.labels(node) is None:
            raise ModelError(f"{label(node)}: it has no class labels. The file is incomplete.")
        if self._is_linear(node):
            columns = len(_floats(node, "coefficients")) // max(self.classes(node), 1)
        else:
            columns = self.vectors(node, sum(self._counts(node))).shape[1]
        rows = _table(node, need(node, inputs, 0), columns)
        outputs: list[Facts | None] = [
            self.label_facts(node, rows),
            Facts(FLOAT32, (rows, self._width(node))),
        ]
        return outputs[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In float64, rounded once."""
        x = np.atleast_2d(present(inputs, 0)).astype(np.float64)
        labels, transform = self.labels(node), transform_of(node)
        assert labels is not None
        rho, classes = _floats(node, "rho").astype(np.float64), len(labels)
        coefficients = _floats(node, "coefficients").astype(np.float64)
        if self._is_linear(node):
            with np.errstate(all="ignore"):
                scores = x @ coefficients.reshape(classes, -1).T + rho[0]
            return [chosen(labels, scores.argmax(1)), transformed(scores, transform).astype(FLOAT32)]
        decisions = self._decisions(node, x, coefficients, rho)
        a, b = (_floats(node, name).astype(np.float64) for name in ("prob_a", "prob_b"))
        if len(a):
            scores = transformed(coupled(decisions, a, b, classes), transform)
        elif classes > 2:
            scores = transformed(decisions, transform)
        else:
            scores = self._two_scores(node, decisions, transform)
        votes = np.zeros((len(x), classes))
        for number, (i, j) in enumerate(pairs_of(classes)):
            first = decisions[:, number] > 0
            votes[:, i] += first
            votes[:, j] += ~first
        return [chosen(labels, votes.argmax(1)), scores.astype(FLOAT32)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """What the machines say is one product, and their votes another."""
        labels, transform = self.labels(node), transform_of(node)
        assert labels is not None
        if labels.dtype == object:
            return False
        x, classes = _rows_of(node, plan), len(labels)
        rho = _floats(node, "rho").astype(np.float64)
        coefficients = _floats(node, "coefficients").astype(np.float64)
        wanted = [*node.outputs, None][:2]
        if self._is_linear(node):
            scores = settled(plan, _product(plan, x, coefficients.reshape(classes, -1).T, rho[0]))
            if wanted[0] is not None:
                lower_largest(plan, scores, labels, wanted[0])
            if wanted[1] is not None:
                said = lower_scores(plan, scores, None, transform)
                deliver(plan, wanted[1], _in_float32(plan, said))
            return True
        vectors, weights = self._weights(node, coefficients, rho)
        factor = self.lower_kernel(node, plan, x, vectors)
        decisions = settled(plan, _product(plan, factor, weights, rho))
        if wanted[0] is not None:
            shape = plan.facts(decisions).shape
            first = computed(plan, "Greater", [decisions, plan.known(np.array(0.0))], shape, np.bool_)
            first = computed(plan, "Cast", [first], shape, FLOAT64, [integer("to", 11)])
            votes, others = np.zeros((len(rho), classes)), np.zeros(classes)
            for number, (i, j) in enumerate(pairs_of(classes)):
                votes[number, i], votes[number, j] = 1.0, -1.0
                others[j] += 1.0
            lower_largest(plan, settled(plan, _product(plan, first, votes, others)), labels, wanted[0])
        if wanted[1] is not None:
            a, b = (_floats(node, name).astype(np.float64) for name in ("prob_a", "prob_b"))
            if classes > 2 or len(a):
                scores = lower_coupled(plan, decisions, a, b, classes) if len(a) else decisions
                said = lower_scores(plan, scores, None, transform)
                deliver(plan, wanted[1], _in_float32(plan, said))
            else:
                negative = self._is_negated(node, transform)
                columns = lower_second_class(plan, decisions, negative, transform == "LOGISTIC")
                first, second = (_in_float32(plan, settled(plan, column)) for column in columns)
                lower_beside(plan, first, second, wanted[1], transform)
        return True

    @staticmethod
    def _is_negated(node: ir.Node, transform: str) -> bool:
        return bool((_floats(node, "coefficients") < 0).any()) and not transform.startswith("SOFTMAX")

    def _two_scores(self, node: ir.Node, decisions: Array, transform: str) -> Array:
        """The decision between two classes as a score for each."""
        scores = second_class(decisions, self._is_negated(node, transform), transform == "LOGISTIC")
        return transformed(scores, transform) if transform == "PROBIT" else scores

    def _decisions(self, node: ir.Node, x: Array, coefficients: Array, rho: Array) -> Array:
        """[N, pairs]: what each pair's machine says."""
        vectors, weights = self._weights(node, coefficients, rho)
        with np.errstate(all="ignore"):
            return self.kernel(node, x, vectors) @ weights + rho

    def _weights(self, node: ir.Node, coefficients: Array, rho: Array) -> tuple[Array, Array]:
        """The vectors, and what each counts in each pair's machine: [vectors, pairs]."""
        counts = self._counts(node)
        classes, total = len(counts), sum(counts)
        vectors = self.vectors(node, total)
        if len(coefficients) != (classes - 1) * total or len(rho) != classes * (classes - 1) // 2:
            raise ModelError(
                f"{label(node)}: {len(coefficients)} coefficients and {len(rho)} rho for {total} vectors of "
                f"{classes} classes. The file is damaged."
            )
        alpha = coefficients.reshape(classes - 1, total)
        ends = np.cumsum(counts)
        parts = [slice(int(end) - n, int(end)) for end, n in zip(ends, counts, strict=True)]
        weights = np.zeros((total, len(rho)))
        for number, (i, j) in enumerate(pairs_of(classes)):
            weights[parts[i], number] = alpha[j - 1, parts[i]]
            weights[parts[j], number] = alpha[i, parts[j]]
        return vectors, weights


def coupled(decisions: Array, a: Array, b: Array, classes: int) -> Array:
    """Class probabilities [N, classes] from those of pairs, sigmoid(a · decision + b)."""
    fitted = a * decisions + b
    e = np.exp(-np.abs(fitted))
    pairs = np.clip(np.where(fitted >= 0, e / (1 + e), 1 / (1 + e)), _LEAST, 1 - _LEAST)
    return evaluate_coupling(pairs, classes)


def lower_coupled(plan: Lowering, decisions: ir.Value, a: Array, b: Array, classes: int) -> ir.Value:
    """The same by kernels."""
    facts = plan.facts(decisions)
    each = Steps(plan, facts.shape)
    fitted = each("Add", each("Mul", decisions, plan.known(a)), plan.known(b))
    other = each("Sigmoid", each("Neg", fitted))
    pairs = each("Min", each("Max", other, _LEAST), 1 - _LEAST)
    out = plan.temporary((facts.shape[0], classes), FLOAT64)
    plan.emit(coupling(plan.plain(pairs), out))
    return plan.located(out)
