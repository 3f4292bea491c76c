"""Images read between their pixels, at places that the data gives: GridSample, AffineGrid, DeformConv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import FLOATS, INTEGERS
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.call import View as Memory
from ingot.kernels.call import row_major
from ingot.kernels.contract import Epilogue
from ingot.kernels.contraction import Matrices, multiply, pack_matrices
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Step, expression_of
from ingot.kernels.gemm import matmul
from ingot.kernels.pack import PackedWeights, pack_weights
from ingot.kernels.sample import (
    Mode,
    Padding,
    deformed_columns,
    evaluate_deformed_columns,
    evaluate_grid_sample,
    grid_sample,
)
from ingot.ops.lowering import Lowering, Steps, wide_of
from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_int,
    attr_str,
    first_input,
    given,
    known_ints,
    label,
    need,
    one_dtype,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.window import Window


@register("GridSample", since=22)
class GridSample(Op):
    """x [N, C, sizes...] at grid [N, places..., coordinates in -1..1, the last dimension's first]."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[N, C, places...]."""
        x, grid = need(node, inputs, 0), need(node, inputs, 1)
        dims = len(x.shape) - 2
        if dims < 1 or len(grid.shape) != dims + 2 or grid.shape[-1] != dims or grid.shape[0] != x.shape[0]:
            raise shape_error(
                node,
                f"x {show(x.shape)} wants a grid [{x.shape[0] if x.shape else 'N'}, places of {dims} "
                f"dimensions, {dims}], found {show(grid.shape)}",
            )
        return [Facts(x.dtype, (*x.shape[:2], *grid.shape[1:-1]))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A sum over the neighbours of each place; coordinates in the grid's own precision."""
        x, grid = present(inputs, 0), present(inputs, 1)
        mode, padding, corners = self._options(node)
        y = evaluate_grid_sample(x, grid, mode, padding, corners=corners)
        return [rounded(y, x.dtype)]

    @staticmethod
    def _options(node: ir.Node) -> tuple[Mode, Padding, bool]:
        return (
            cast(Mode, attr_str(node, "mode", "linear")),
            cast(Padding, attr_str(node, "padding_mode", "zeros")),
            bool(attr_int(node, "align_corners", 0)),
        )

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One kernel, with vectors along the places. Integers and truth values by way of floats."""
        x, grid = (plan.view(v) for v in node.inputs if v is not None)
        mode, padding, corners = self._options(node)
        dims = x.rank - 2
        known = x.dtype.name in (*FLOATS, *INTEGERS, "bool") and grid.dtype.name in FLOATS
        if not known or dims > 3 or 0 in x.shape:
            return False
        if x.dtype.name not in FLOATS:
            wide = plan.temporary(x.shape, np.float32 if x.dtype.itemsize < 4 else np.float64)
            plan.emit(copy(x, wide, plan.machine))
            x = wide
        grid = grid if grid.is_contiguous else plan.copied(grid)
        out = plan.output(node.outputs[0])
        flat = (*out.shape[:2], math.prod(out.shape[2:]))
        target = out.reshape(flat)
        if target is None or (target.strides[2] != 1 and flat[2] > 1) or out.dtype != x.dtype:
            target = plan.temporary(flat, x.dtype)
        plan.emit(grid_sample(x, grid, target, mode, padding, plan.machine, corners=corners))
        if target.buffer is not out.buffer:
            whole = target.reshape(out.shape)
            assert whole is not None
            plan.emit(copy(whole, out, plan.machine))
        return True


@register("AffineGrid", since=20)
class AffineGrid(Op):
    """Where GridSample reads to apply theta [N, D, D + 1] to an image of `size`: [N, places..., D]."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while the size is."""
        theta, size = need(node, inputs, 0), known_ints(node, inputs, 1)
        if size is None:
            return None
        dims = len(size) - 2
        if dims not in (2, 3) or theta.shape != (size[0], dims, dims + 1):
            raise shape_error(node, f"theta {show(theta.shape)} is no transformation of {show(size)}")
        return [Facts(theta.dtype, (size[0], *size[2:], dims))]

    @staticmethod
    def _places(node: ir.Node, sizes: Sequence[int]) -> Array:
        """[places, D + 1]: coordinates in -1 … 1, the last dimension's first, then 1."""
        axes: list[Array] = []
        for n in sizes:
            if attr_int(node, "align_corners", 0):
                axes.append(np.linspace(-1.0, 1.0, n) if n > 1 else np.array([-1.0]))
            else:
                axes.append((2.0 * np.arange(n) + 1.0) / n - 1.0)
        grid = np.meshgrid(*axes, indexing="ij")
        return np.stack([*grid[::-1], np.ones(tuple(sizes))], -1).reshape(-1, len(sizes) + 1)

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A product with the places."""
        theta, size = present(inputs, 0), present(inputs, 1).tolist()
        grid = self._places(node, size[2:]) @ widen(theta).transpose(0, 2, 1)
        return [rounded(grid.reshape(size[0], *size[2:], len(size) - 2), theta.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Steps that multiply with the coordinates of each axis, and add."""
        theta, value = first_input(node), node.outputs[0]
        facts, dtype = plan.facts(value), plan.facts(theta).dtype.name
        if dtype not in FLOATS:
            return False
        view, sizes, wide = plan.view(theta), facts.shape[1:-1], wide_of(dtype)
        places = self._places(node, sizes).reshape(*sizes, -1).astype(wide)
        steps = Steps(plan, facts.shape)
        total: ir.Value | None = None
        for j in range(len(sizes) + 1):
            strides = (view.strides[0], *[0] * len(sizes), view.strides[1])
            factor = plan.located(view.with_dims(facts.shape, strides, j * view.strides[2]))
            axis = len(sizes) - 1 - j
            if axis < 0:
                term = steps.cast(factor, wide)
            else:
                own = np.moveaxis(places[..., j], axis, 0).reshape(sizes[axis], -1)[:, 0]
                own = own.reshape([-1 if d == axis + 1 else 1 for d in range(len(facts.shape))])
                term = steps("Mul", steps.cast(factor, wide), plan.known(own))
            total = term if total is None else steps("Add", total, term)
        assert total is not None
        steps.cast(total, dtype, value)
        return True


@register("DeformConv", since=22)
class DeformConv(Op):
    """A convolution whose taps read x between its pixels, where `offset` moves them."""

    def _window(self, node: ir.Node, facts: Sequence[Facts | None]) -> tuple[Window, int, int]:
        """The window, and the groups of filters and of offsets."""
        x, w, offset = (need(node, facts, i) for i in range(3))
        if len(x.shape) != 4 or len(w.shape) != 4:
            raise UnsupportedOperatorError(
                f"{label(node)}: x has shape {show(x.shape)}; only images [N, C, H, W] are convolved so."
            )
        one_dtype(node, facts)
        window = Window.of(node, x.shape[2:], w.shape[2:])
        groups, many = attr_int(node, "group", 1), attr_int(node, "offset_group", 1)
        taps = math.prod(window.kernel)
        if (
            x.shape[1] != w.shape[1] * groups
            or w.shape[0] % groups
            or x.shape[1] % many
            or offset.shape != (x.shape[0], 2 * many * taps, *window.output)
        ):
            raise shape_error(
                node,
                f"x {show(x.shape)}, weight {show(w.shape)} and offset {show(offset.shape)} do not fit "
                f"{groups} groups and {many} groups of offsets",
            )
        mask: Facts | None = given(facts, 4)
        if mask is not None and mask.shape != (x.shape[0], many * taps, *window.output):
            raise shape_error(node, f"the mask {show(mask.shape)} does not fit offset {show(offset.shape)}")
        return window, groups, many

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """As a convolution's."""
        window, _, _ = self._window(node, inputs)
        x, w = need(node, inputs, 0), need(node, inputs, 1)
        return [Facts(x.dtype, (x.shape[0], w.shape[0], *window.output))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The columns by NumPy, then a product."""
        x, w, offset = (present(inputs, i) for i in range(3))
        bias, mask = given(inputs, 3), given(inputs, 4)
        facts = [None if a is None else Facts(a.dtype, a.shape) for a in inputs]
        window, groups, many = self._window(node, facts)
        columns = evaluate_deformed_columns(
            x,
            offset.reshape(len(x), many, *window.kernel, 2, *window.output),
            None if mask is None else mask.reshape(len(x), many, *window.kernel, *window.output),
            (groups, many),
            *_pairs(window),
        )
        factor = widen(w).reshape(groups, w.shape[0] // groups, w.shape[1], -1)
        y = np.einsum("nghwtc,goct->ngohw", columns, factor, optimize=True)
        y = y.reshape(len(x), w.shape[0], *window.output)
        return [rounded(y if bias is None else y + widen(bias)[:, None, None], x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A kernel for the columns, then the product of matrices, which adds the bias."""
        values = [*node.inputs, None, None][:5]
        x, w, offset = (v for v in values[:3] if v is not None)
        facts, weights = plan.facts(x), plan.facts(w)
        dtype, machine = facts.dtype.name, plan.machine
        if dtype not in FLOATS:
            return False
        window, groups, many = self._window(node, [None if v is None else plan.facts(v) for v in values])
        images, outputs, own = facts.shape[0], weights.shape[0], weights.shape[1]
        taps, rows = math.prod(window.kernel), math.prod(window.output)
        image = plan.view(x)
        if image.strides[1] != 1 and image.shape[1] > 1:
            image = plan.copied(image, (0, 2, 3, 1))
        mask, bias = (None if v is None else plan.view(v) for v in (values[4], values[3]))
        columns = plan.temporary((images, groups, rows, taps * own), facts.dtype)
        strides, dilations, before = _pairs(window)
        kernel = (window.kernel[0], window.kernel[1])
        plan.emit(
            deformed_columns(
                image, plan.view(offset), mask, columns, (groups, many), kernel, strides, dilations, before,
                machine,
            )
        )  # fmt: skip
        known, is_double = plan.weights(w), dtype == "float64"
        factor: PackedWeights | Matrices | Memory
        if known is not None:

            def pack() -> PackedWeights | Matrices:
                matrix = known.read().reshape(groups, outputs // groups, own, taps).transpose(0, 3, 2, 1)
                matrix = matrix.reshape(groups, taps * own, -1)
                return pack_matrices(matrix, machine) if is_double else pack_weights(matrix, machine)

            factor = plan.pack(("deformed", w) if w.is_initializer() else None, pack)
        else:
            split = plan.plain(w).reshape((groups, outputs // groups, own, taps))
            assert split is not None
            turned = plan.copied(split.transpose((0, 3, 2, 1)))
            factor = turned.with_dims(*_dense((groups, taps * own, outputs // groups)))
        out = plan.output(node.outputs[0], (0, 2, 3, 1))
        if out.strides[2] != out.shape[3] * out.strides[3] and out.shape[2] > 1:
            target = plan.temporary(out.shape, out.dtype, (0, 2, 3, 1))
        else:
            target = out
        n, c, _, step = target.strides
        flat = (images, groups, rows, outputs // groups)
        result = target.with_dims(flat, (n, flat[3] * c, step, c))
        spread: list[Memory] = []
        if bias is not None:
            each = bias.strides[0]
            spread = [bias.with_dims((1, groups, 1, flat[3]), (0, flat[3] * each, 0, each))]
        if isinstance(factor, Matrices) or (is_double and isinstance(factor, Memory)):
            plan.emit(multiply(columns, factor, result, machine))
            add = expression_of((dtype, dtype), (Step("Add", (0, 1), dtype),), (2,))
            plan.emit([elementwise(add, [result, b], [result], machine) for b in spread])
        else:
            steps = (Step("Cast", (1,), "float32"), Step("Add", (0, 2), "float32"), Step("Cast", (3,), dtype))
            after = Epilogue(expression_of(("float32", dtype), steps, (4,)), spread) if spread else None
            plan.emit(matmul(columns, factor, result, after, machine))
        if target is not out:
            plan.emit(copy(target, out, machine))
        return True


def _dense(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return shape, row_major(shape)


def _pairs(window: Window) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Strides, dilations and padding before."""
    first, second, third = ((v[0], v[1]) for v in (window.strides, window.dilations, window.before))
    return first, second, third
