"""Operators that put elements into a larger tensor: Col2Im, MaxUnpool, CenterCropPad, TensorScatter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import DTYPES, FLOATS, INTEGERS
from ingot.errors import InputError, ModelError
from ingot.kernels.call import View, constant, memory_order, row_major
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import elementwise, fill
from ingot.kernels.expression import Step, expression_of
from ingot.kernels.gather import scatter_elements
from ingot.ops.lowering import Lowering, Steps, dtype_of, wide_of
from ingot.ops.numeric import is_float, rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_int,
    attr_ints,
    attr_str,
    first_input,
    given,
    known_ints,
    label,
    need,
    normal_axes,
    normal_axis,
    present,
    register,
    shape_error,
    show,
)

Part = tuple[tuple[int, int, int], ...]  # for each dimension: where it starts, the step, how many


@register("Col2Im", since=18)
class Col2Im(Op):
    """Blocks [N, C · taps, blocks] added up where they lie in an image [N, C, sizes...]."""

    def _taps(
        self, node: ir.Node, sizes: Sequence[int], block: Sequence[int]
    ) -> tuple[tuple[int, ...], list[tuple[Part, Part]]]:
        """How many blocks there are along each dimension; and for each tap the part of the image that it
        adds to, and the blocks that are inside of it there.
        """
        rank = len(sizes)
        strides = attr_ints(node, "strides") or (1,) * rank
        dilations = attr_ints(node, "dilations") or (1,) * rank
        pads = attr_ints(node, "pads") or (0,) * (2 * rank)
        counts = tuple(
            [
                (n + pads[d] + pads[rank + d] - dilations[d] * (block[d] - 1) - 1) // strides[d] + 1
                for d, n in enumerate(sizes)
            ]
        )
        found: list[tuple[Part, Part]] = []
        for tap in itertools.product(*map(range, block)):
            image: list[tuple[int, int, int]] = []
            blocks: list[tuple[int, int, int]] = []
            for d, n in enumerate(sizes):
                first = tap[d] * dilations[d] - pads[d]
                skip = max(0, -(first // strides[d]))  # blocks whose tap lies before the image
                after = max(skip, min(counts[d], -((first - n) // strides[d])))
                image.append((first + skip * strides[d], strides[d], after - skip))
                blocks.append((skip, 1, after - skip))
            found.append((tuple(image), tuple(blocks)))
        return counts, found

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while the sizes of image and blocks are."""
        x, sizes, block = need(node, inputs, 0), known_ints(node, inputs, 1), known_ints(node, inputs, 2)
        if sizes is None or block is None:
            return None
        counts, _ = self._taps(node, sizes, block)
        taps = math.prod(block)
        if len(x.shape) != 3 or x.shape[1] % max(1, taps) or x.shape[2] != math.prod(counts):
            raise shape_error(
                node,
                f"x {show(x.shape)} is not [N, C · {taps}, {math.prod(counts)}] for an image {show(sizes)} "
                f"in blocks {show(block)}",
            )
        return [Facts(x.dtype, (x.shape[0], x.shape[1] // taps, *sizes))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A sum for each tap of a block."""
        x, sizes, block = (present(inputs, i) for i in range(3))
        counts, parts = self._taps(node, sizes.tolist(), block.tolist())
        wide = widen(x).reshape(len(x), -1, len(parts), *counts)
        y = np.zeros((len(x), wide.shape[1], *sizes.tolist()), wide.dtype)
        for tap, (image, blocks) in enumerate(parts):
            y[(..., *map(_slice, image))] += wide[:, :, tap][(..., *map(_slice, blocks))]
        return [rounded(y, x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """An addition for each tap of a block, on views of the image and the blocks."""
        x, machine = plan.view(first_input(node)), plan.machine
        dtype = x.dtype.name
        if dtype not in (*FLOATS, *INTEGERS, "bool"):
            return False
        sizes, block = (plan.constant(v) for v in node.inputs[1:3])
        assert sizes is not None
        assert block is not None
        counts, parts = self._taps(node, sizes.tolist(), block.tolist())
        out = plan.output(node.outputs[0])
        wide = wide_of(dtype) if is_float(x.dtype) else dtype
        y = out if wide == dtype else plan.temporary(out.shape, dtype_of(wide))
        plan.emit(fill(0, y, machine))
        steps = (Step("Cast", (1,), wide), Step("Add", (0, 2), wide))
        add = expression_of((wide, dtype), steps, (3,))
        if dtype == "bool":
            add = expression_of((dtype, dtype), (Step("Or", (0, 1), dtype),), (2,))
        images, channels = out.shape[:2]
        n, c, last = x.strides
        inner = tuple(last * s for s in row_major(counts))
        for tap, (image, blocks) in enumerate(parts):
            size = tuple([part[2] for part in image])
            if 0 in size:
                continue
            first = tap * c + sum(part[0] * s for part, s in zip(blocks, inner, strict=True))
            source = x.with_dims((images, channels, *size), (n, len(parts) * c, *inner), first)
            start = sum(part[0] * s for part, s in zip(image, y.strides[2:], strict=True))
            steps_ = [part[1] * s for part, s in zip(image, y.strides[2:], strict=True)]
            target = y.with_dims(source.shape, (*y.strides[:2], *steps_), start)
            call = elementwise(add, [target, source], [target], machine, "Col2Im")
            plan.emit(call)
        if y is not out:
            plan.emit(copy(y, out, machine))
        return True


def _slice(part: tuple[int, int, int]) -> slice:
    first, step, count = part
    return slice(first, first + step * (count - 1) + 1, step) if count else slice(0, 0)


@register("MaxUnpool", since=22)
class MaxUnpool(Op):
    """x where its indices say, in a tensor of zeros that a MaxPool would have made it from."""

    def _pooled(self, node: ir.Node, x: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the indices count in."""
        rank = len(x) - 2
        kernel = attr_ints(node, "kernel_shape") or (1,) * rank
        strides, pads = attr_ints(node, "strides") or (1,) * rank, attr_ints(node, "pads") or (0,) * 2 * rank
        sizes = [(n - 1) * strides[d] - pads[d] - pads[rank + d] + kernel[d] for d, n in enumerate(x[2:])]
        return (*x[:2], *sizes)

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while an output shape is given that is."""
        x, indices = need(node, inputs, 0), need(node, inputs, 1)
        if len(x.shape) < 3 or x.shape != indices.shape:
            raise shape_error(node, f"x {show(x.shape)} and its indices {show(indices.shape)} differ")
        own = self._pooled(node, x.shape)
        if given(inputs, 2) is None:
            return [Facts(x.dtype, own)]
        shape = known_ints(node, inputs, 2)
        if shape is None:
            return None
        if len(shape) != len(own) or any(a < b for a, b in zip(shape, own, strict=True)):
            raise shape_error(node, f"the output {show(shape)} is smaller than {show(own)}")
        return [Facts(x.dtype, shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """One assignment."""
        x, indices, wanted = present(inputs, 0), present(inputs, 1), given(inputs, 2)
        shape = self._pooled(node, x.shape)
        y = np.zeros(math.prod(shape), x.dtype)
        if indices.size and not (int(indices.min()) >= 0 and int(indices.max()) < y.size):
            raise InputError(f"{label(node)}: an index is outside the output. Check what makes the indices.")
        y[indices.ravel()] = x.ravel()
        y = y.reshape(shape)
        if wanted is None:
            return [y]
        whole = np.zeros(tuple(wanted.tolist()), x.dtype)
        whole[tuple([slice(n) for n in shape])] = y
        return [whole]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Zeros, then a scatter."""
        x, value, machine = first_input(node), node.outputs[0], plan.machine
        facts, indices = plan.facts(x), node.inputs[1]
        assert indices is not None
        shape = self._pooled(node, facts.shape)
        if facts.dtype.name not in DTYPES or min(shape) <= 0:
            return False
        source, where = plan.plain(x), plan.plain(indices)
        out = plan.output(value)
        y = out if out.shape == shape and out.is_contiguous else plan.temporary(shape, facts.dtype)
        plan.emit(fill(0, y, machine))
        if facts.shape != shape or y is not out or source.size:
            flat = y.with_dims((y.size,), (1,))
            line = [v.with_dims((v.size,), (1,)) for v in (where, source)]
            message = f"{label(node)}: an index is outside the output. Check what makes the indices."
            plan.emit(scatter_elements(flat, line[0], line[1], 0, flat, plan.check(message), machine))
        if y is not out:
            if out.shape != shape:
                plan.emit(fill(0, out, machine))
            plan.emit(copy(y, out.with_dims(shape, out.strides), machine))
        return True


@register("CenterCropPad", since=18)
class CenterCropPad(Op):
    """The middle of x, or x in the middle of zeros, along each axis that has another size in `shape`."""

    def _sizes(self, node: ir.Node, x: tuple[int, ...], wanted: Sequence[int]) -> list[int]:
        axes = normal_axes(node, attr_ints(node, "axes") or range(len(x)), len(x))
        if len(axes) != len(wanted) or min(wanted, default=0) < 0:
            raise shape_error(node, f"{show(wanted)} are no sizes for the axes {show(axes)}")
        sizes = list(x)
        for axis, n in zip(axes, wanted, strict=True):
            sizes[axis] = n
        return sizes

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while the sizes are."""
        x, wanted = need(node, inputs, 0), known_ints(node, inputs, 1)
        return None if wanted is None else [Facts(x.dtype, tuple(self._sizes(node, x.shape, wanted)))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """One assignment."""
        x = present(inputs, 0)
        sizes = self._sizes(node, x.shape, present(inputs, 1).tolist())
        y = np.zeros(sizes, x.dtype)
        from_, to = (
            tuple([slice(max(0, a - b) // 2, max(0, a - b) // 2 + min(a, b)) for a, b in pairs])
            for pairs in (list(zip(x.shape, sizes, strict=True)), list(zip(sizes, x.shape, strict=True)))
        )
        y[to] = x[from_]
        return [y]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A view where nothing is added, else zeros and a copy."""
        x, value, machine = plan.view(first_input(node)), node.outputs[0], plan.machine
        sizes = plan.facts(value).shape
        if x.dtype.name not in DTYPES:
            return False
        both = tuple([min(a, b) for a, b in zip(x.shape, sizes, strict=True)])

        def middle(view: View) -> View:
            first = sum((n - m) // 2 * s for n, m, s in zip(view.shape, both, view.strides, strict=True))
            return view.with_dims(both, view.strides, first)

        if both == sizes:
            plan.alias(value, middle(x))
            return True
        out = plan.output(value, memory_order(x), free_order=True)
        plan.emit([fill(0, out, machine), copy(middle(x), middle(out), machine)])
        return True


@register("TensorScatter", since=24)
class TensorScatter(Op):
    """A cache with `update` written along `axis`, from write_indices[batch] on."""

    def _axis(self, node: ir.Node, cache: Facts, update: Facts) -> int:
        axis = normal_axis(node, attr_int(node, "axis", -2), len(cache.shape))
        rest = [n for d, n in enumerate(cache.shape) if d != axis]
        own = [n for d, n in enumerate(update.shape) if d != axis]
        fits = len(update.shape) == len(cache.shape) and rest == own
        if axis == 0 or not fits or update.shape[axis] > cache.shape[axis]:
            raise shape_error(
                node, f"update {show(update.shape)} does not fit {show(cache.shape)} along axis {axis}"
            )
        if attr_str(node, "mode", "linear") not in ("linear", "circular"):
            raise ModelError(f"{label(node)}: mode is neither linear nor circular. Use one of them.")
        return axis

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """As the cache."""
        cache, update = need(node, inputs, 0), need(node, inputs, 1)
        self._axis(node, cache, update)
        return [Facts(cache.dtype, cache.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """One assignment."""
        cache, update, first = present(inputs, 0), present(inputs, 1), given(inputs, 2)
        axis = self._axis(node, Facts(cache.dtype, cache.shape), Facts(update.dtype, update.shape))
        start = np.zeros(len(cache), np.int64) if first is None else first
        count, size = int(update.shape[axis]), int(cache.shape[axis])
        at = start[:, None] + np.arange(count)
        if attr_str(node, "mode", "linear") == "circular":
            at = at % size
        elif at.size and not (int(at.min()) >= 0 and int(at.max()) < size):
            raise InputError(f"{label(node)}: the update goes beyond the cache. Check write_indices.")
        y = cache.copy()
        np.moveaxis(y, axis, 1)[np.arange(len(cache))[:, None], at] = np.moveaxis(update, axis, 1)
        return [y]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Where each element goes, as steps; then a copy and a scatter."""
        values = [*node.inputs, None][:3]
        cache, update = (plan.view(v) for v in values[:2] if v is not None)
        facts = [Facts(v.dtype, v.shape) for v in (cache, update)]
        axis, machine = self._axis(node, *facts), plan.machine
        if cache.dtype.name not in DTYPES:
            return False
        batch, length, size = cache.shape[0], update.shape[axis], cache.shape[axis]
        first = constant(np.zeros(batch, np.int64)) if values[2] is None else plan.view(values[2])
        steps = Steps(plan, (batch, length))
        start = plan.located(first.with_dims((batch, 1), (first.strides[0], 0)))
        at = steps("Add", start, plan.known(np.arange(length)))
        if attr_str(node, "mode", "linear") == "circular":
            at = steps("Mod", at, size)
        else:  # a scatter would count negative ones from the end
            at = steps(
                "Where", steps("Less", at, 0, dtype="bool"), steps.number(size, "int64"), at, dtype="int64"
            )
        where = plan.view(at)
        own = [0] * update.rank
        own[0], own[axis] = where.strides
        places = where.with_dims(update.shape, own)
        message = f"{label(node)}: the update goes beyond the cache. Check write_indices."
        out = plan.output(node.outputs[0])
        if update.size:
            plan.emit(scatter_elements(cache, places, update, axis, out, plan.check(message), machine))
        else:
            plan.emit(copy(cache, out, machine))
        return True
