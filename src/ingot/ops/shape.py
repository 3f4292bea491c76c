"""Operators that move or relabel elements by shape alone: reshape, transpose, concat, split, expand, tile,
pad and kin.

Also Shape and Size, whose value is known as soon as the input's shape is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.kernels.call import memory_order
from ingot.kernels.copy import copy
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import BOOL, INT64
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_int,
    attr_ints,
    attr_str,
    broadcast,
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
from ingot.ops.sized import integer, integers, made_constant


class View(Op):
    """An operator whose output has the input's elements in the same order: `new_shape` is all there is to
    know.

    `new_shape` gets the second input's elements (None where the node has no second input).
    """

    quick = True

    def new_shape(
        self, node: ir.Node, shape: tuple[int, ...], argument: tuple[int, ...] | None
    ) -> tuple[int, ...]:
        """The output's shape."""
        raise NotImplementedError

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while the second input is."""
        x = need(node, inputs, 0)
        argument = None
        if given(inputs, 1) is not None:
            argument = known_ints(node, inputs, 1)
            if argument is None:
                return None
        return [Facts(x.dtype, self.new_shape(node, x.shape, argument))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A view of the input."""
        x = present(inputs, 0)
        second = given(inputs, 1)
        argument = None if second is None else tuple(second.ravel().tolist())
        return [x.reshape(self.new_shape(node, x.shape, argument))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """The same memory where strides can say it, else a copy."""
        x, value = first_input(node), node.outputs[0]
        shape = plan.facts(value).shape
        view = plan.view(x).reshape(shape)
        if view is None:
            view = plan.plain(x).reshape(shape)
            assert view is not None
        plan.alias(value, view)
        return True


@register("Reshape", since=25)
class Reshape(View):
    """The same elements in another shape; -1 stands for what is left, 0 for the input's own size (unless
    allowzero).
    """

    def new_shape(
        self, node: ir.Node, shape: tuple[int, ...], argument: tuple[int, ...] | None
    ) -> tuple[int, ...]:
        """Resolves 0 and -1."""
        if argument is None:
            raise ModelError(f"{label(node)}: input 1, the shape, is missing. Give the node its shape.")
        dims = list(argument)
        if not attr_int(node, "allowzero", 0):
            for i, size in enumerate(dims):
                if size == 0:
                    if i >= len(shape):
                        raise shape_error(
                            node, f"shape {show(argument)} copies dimension {i} of {show(shape)}"
                        )
                    dims[i] = shape[i]
        count = math.prod(shape)
        if -1 in dims:
            known = -math.prod(dims)
            if dims.count(-1) > 1 or any(size < -1 for size in dims):
                raise shape_error(node, f"shape {show(argument)} has more than one -1")
            if known == 0:
                # 0 · anything: the missing size cannot be told, and 0 is what NumPy-free runtimes agree on.
                raise shape_error(
                    node, f"-1 in {show(argument)} is ambiguous for an input of shape {show(shape)}"
                )
            if count % known:
                raise shape_error(
                    node, f"an input of shape {show(shape)} cannot be reshaped to {show(argument)}"
                )
            dims[dims.index(-1)] = count // known
        if math.prod(dims) != count:
            raise shape_error(node, f"an input of shape {show(shape)} cannot be reshaped to {show(argument)}")
        return tuple(dims)


@register("Flatten", since=25)
class Flatten(View):
    """Two dimensions: those before `axis`, and the others."""

    def new_shape(
        self, node: ir.Node, shape: tuple[int, ...], argument: tuple[int, ...] | None
    ) -> tuple[int, ...]:
        """[product before axis, product from axis on]; axis may be the rank."""
        del argument
        axis = attr_int(node, "axis", 1)
        if axis != len(shape):
            axis = normal_axis(node, axis, len(shape))
        return (math.prod(shape[:axis]), math.prod(shape[axis:]))


@register("Squeeze", since=25)
class Squeeze(View):
    """Without the dimensions of size 1: those named, or all."""

    def new_shape(
        self, node: ir.Node, shape: tuple[int, ...], argument: tuple[int, ...] | None
    ) -> tuple[int, ...]:
        """Without the named dimensions, each of which must be 1."""
        if argument is None:
            return tuple([size for size in shape if size != 1])
        axes = normal_axes(node, argument, len(shape))
        for axis in axes:
            if shape[axis] != 1:
                raise shape_error(
                    node, f"dimension {axis} of {show(shape)} is {shape[axis]}, and only 1 is squeezed"
                )
        return tuple([size for i, size in enumerate(shape) if i not in axes])


@register("Unsqueeze", since=25)
class Unsqueeze(View):
    """With a dimension of size 1 at each of `axes`, which count in the output."""

    def new_shape(
        self, node: ir.Node, shape: tuple[int, ...], argument: tuple[int, ...] | None
    ) -> tuple[int, ...]:
        """With the named dimensions."""
        if argument is None:
            raise ModelError(f"{label(node)}: input 1, the axes, is missing. Give the node its axes.")
        rank = len(shape) + len(argument)
        axes = normal_axes(node, argument, rank)
        if len(set(axes)) != len(axes):
            raise shape_error(node, f"axes {show(argument)} repeat")
        rest = iter(shape)
        return tuple([1 if i in axes else next(rest) for i in range(rank)])


@register("Transpose", since=25)
class Transpose(Op):
    """Dimensions in the order `perm`; reversed by default."""

    quick = True

    def perm(self, node: ir.Node, rank: int) -> tuple[int, ...]:
        """The permutation for an input of this rank."""
        perm = attr_ints(node, "perm")
        if perm is None:
            return tuple(range(rank - 1, -1, -1))
        if len(perm) != rank or sorted(perm) != list(range(rank)):
            raise shape_error(node, f"perm {show(perm)} does not permute an input of rank {rank}")
        return perm

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The permuted shape."""
        x = need(node, inputs, 0)
        shape = x.shape
        return [Facts(x.dtype, tuple([shape[i] for i in self.perm(node, len(shape))]))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A view of the input."""
        x = present(inputs, 0)
        return [x.transpose(self.perm(node, x.ndim))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """The same memory with the strides permuted."""
        view = plan.view(first_input(node))
        plan.alias(node.outputs[0], view.transpose(self.perm(node, view.rank)))
        return True


@register("Shape", since=25)
class Shape(Op):
    """The input's dims from `start` to `end`, as int64."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Known as soon as the input's shape is."""
        return [integers(self.dims(node, need(node, inputs, 0).shape))]

    def dims(self, node: ir.Node, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The slice of the shape; start and end are clamped to the rank."""
        if not node.attributes:
            return shape
        rank = len(shape)
        start, end = attr_int(node, "start", 0), attr_int(node, "end", rank)
        start = min(max(start + rank if start < 0 else start, 0), rank)
        end = min(max(end + rank if end < 0 else end, 0), rank)
        return shape[start:end]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """See `dims`."""
        return [np.array(self.dims(node, present(inputs, 0).shape), INT64)]


@register("Size", since=25)
class Size(Op):
    """How many elements the input has, as an int64 scalar."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Known as soon as the input's shape is."""
        return [integer(math.prod(need(node, inputs, 0).shape))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The product of the dims."""
        return [np.array(present(inputs, 0).size, INT64)]


@register("Concat", since=13)
class Concat(Op):
    """The inputs one after the other along `axis`."""

    quick = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """All dims but `axis` must agree."""
        facts = [need(node, inputs, i) for i in range(len(inputs) or 1)]
        first = facts[0]
        axis = normal_axis(node, attr_int(node, "axis", 0), len(first.shape))
        total = 0
        before, after = first.shape[:axis], first.shape[axis + 1 :]
        for other in facts:
            shape = other.shape
            if len(shape) != len(first.shape) or shape[:axis] != before or shape[axis + 1 :] != after:
                raise shape_error(
                    node, f"{show(first.shape)} and {show(shape)} differ in more than dimension {axis}"
                )
            if other.dtype != first.dtype:
                raise ModelError(
                    f"{label(node)}: inputs have dtypes {first.dtype} and {other.dtype}, and "
                    "must have one. Cast one."
                )
            total += shape[axis]
        return [Facts(first.dtype, (*before, total, *after))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.concatenate."""
        return [np.concatenate([present(inputs, i) for i in range(len(inputs))], attr_int(node, "axis", 0))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """In place where the producers can write their part directly."""
        value = node.outputs[0]
        axis = normal_axis(node, attr_int(node, "axis", 0), len(plan.facts(value).shape))
        plan.concat(value, [v for v in node.inputs if v is not None], axis)
        return True

    def is_by_image(self, node: ir.Node, inputs: Sequence[Facts | None]) -> bool:
        """Along another axis, of inputs that are all computed."""
        first = need(node, inputs, 0)
        computed = all(facts is not None and not facts.is_known for facts in inputs)
        return computed and normal_axis(node, attr_int(node, "axis", 0), len(first.shape)) != 0


@register("Split", since=18)
class Split(Op):
    """Parts along `axis`: of the given sizes, or as equal as possible with a smaller last one."""

    quick = True

    def sizes(self, node: ir.Node, total: int, given_sizes: tuple[int, ...] | None) -> tuple[int, ...]:
        """The size of each part; they add up to `total`."""
        if given_sizes is None:
            count = attr_int(node, "num_outputs", len(node.outputs))
            part = -(-total // count)
            given_sizes = tuple(max(0, min(part, total - i * part)) for i in range(count))
        if sum(given_sizes) != total or any(size < 0 for size in given_sizes):
            raise shape_error(node, f"parts {show(given_sizes)} do not add up to the dimension's {total}")
        if len(given_sizes) != len(node.outputs):
            raise shape_error(node, f"{len(given_sizes)} parts for {len(node.outputs)} outputs")
        return given_sizes

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """One shape for each part."""
        x = need(node, inputs, 0)
        axis = normal_axis(node, attr_int(node, "axis", 0), len(x.shape))
        wanted = None
        if given(inputs, 1) is not None:
            wanted = known_ints(node, inputs, 1)
            if wanted is None:
                return None
        sizes = self.sizes(node, x.shape[axis], wanted)
        return [Facts(x.dtype, (*x.shape[:axis], size, *x.shape[axis + 1 :])) for size in sizes]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Views of the input."""
        x, wanted = present(inputs, 0), given(inputs, 1)
        axis = normal_axis(node, attr_int(node, "axis", 0), x.ndim)
        sizes = self.sizes(node, x.shape[axis], None if wanted is None else tuple(wanted.tolist()))
        return np.split(x, np.cumsum(sizes)[:-1].tolist(), axis)

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Each part is a view of the input's memory."""
        view = plan.view(first_input(node))
        axis = normal_axis(node, attr_int(node, "axis", 0), view.rank)
        start = 0
        for value in node.outputs:
            shape = plan.facts(value).shape
            plan.alias(value, view.with_dims(shape, view.strides, start * view.strides[axis]))
            start += shape[axis]
        return True


@register("Expand", since=13)
class Expand(Op):
    """x broadcast with a shape, in both directions."""

    quick = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while the shape is."""
        x, shape = need(node, inputs, 0), known_ints(node, inputs, 1)
        return None if shape is None else [Facts(x.dtype, broadcast(node, x.shape, shape))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A read-only view of the input."""
        x = present(inputs, 0)
        return [np.broadcast_to(x, broadcast(node, x.shape, tuple(present(inputs, 1).tolist())))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """The input's memory with strides of 0."""
        value = node.outputs[0]
        plan.alias(value, plan.view(first_input(node)).broadcast_to(plan.facts(value).shape))
        return True


@register("Tile", since=13)
class Tile(Op):
    """x repeated along each dimension."""

    quick = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while the repeats are."""
        x, repeats = need(node, inputs, 0), known_ints(node, inputs, 1)
        if repeats is None:
            return None
        if len(repeats) != len(x.shape):
            raise shape_error(node, f"{len(repeats)} repeats for an input of rank {len(x.shape)}")
        if any(r < 0 for r in repeats):
            raise shape_error(node, f"repeats are {show(repeats)}, and must be 0 or more")
        return [Facts(x.dtype, tuple([n * r for n, r in zip(x.shape, repeats, strict=True)]))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.tile."""
        return [np.tile(present(inputs, 0), present(inputs, 1).tolist())]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One copy, from the input repeated by strides of 0."""
        x, value = plan.view(first_input(node)), node.outputs[0]
        shape = plan.facts(value).shape
        out = plan.output(value)
        repeats = [n // m if m else 0 for n, m in zip(shape, x.shape, strict=True)]
        dims = [d for pair in zip(repeats, x.shape, strict=True) for d in pair]
        target = out.with_dims(
            dims, [d for m, s in zip(x.shape, out.strides, strict=True) for d in (m * s, s)]
        )
        source = x.with_dims(dims, [d for s in x.strides for d in (0, s)])
        plan.emit(copy(source, target, plan.machine))
        return True


@register("DepthToSpace", since=28)
class DepthToSpace(Op):
    """Blocks of channels become blocks of pixels: [N, C, H, W] to [N, C/b², H·b, W·b]."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """C must be divisible by the block's area."""
        x, b = need(node, inputs, 0), attr_int(node, "blocksize", 1)
        if len(x.shape) != 4 or x.shape[1] % (b * b):
            raise shape_error(
                node, f"an input of shape {show(x.shape)} has no blocks of {b} × {b} in its channels"
            )
        n, c, h, w = x.shape
        return [Facts(x.dtype, (n, c // (b * b), h * b, w * b))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Mode DCR: depth, column, row; CRD: column, row, depth."""
        x, b = present(inputs, 0), attr_int(node, "blocksize", 1)
        n, c, h, w = x.shape
        if attr_str(node, "mode", "DCR") == "DCR":
            blocks = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
        else:
            blocks = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
        return [blocks.reshape(n, c // (b * b), h * b, w * b)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One copy between two views of seven dimensions."""
        b, dcr = attr_int(node, "blocksize", 1), attr_str(node, "mode", "DCR") == "DCR"
        return _move_blocks(plan, first_input(node), node.outputs[0], b, dcr, to_space=True)


@register("SpaceToDepth", since=28)
class SpaceToDepth(Op):
    """Blocks of pixels become channels: [N, C, H, W] to [N, C·b², H/b, W/b]."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """H and W must be divisible by the block size."""
        x, b = need(node, inputs, 0), attr_int(node, "blocksize", 1)
        if len(x.shape) != 4 or x.shape[2] % b or x.shape[3] % b:
            raise shape_error(
                node, f"an input of shape {show(x.shape)} does not divide into blocks of {b} × {b}"
            )
        n, c, h, w = x.shape
        return [Facts(x.dtype, (n, c * b * b, h // b, w // b))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Mode DCR: the block's position is the slow part of the channel; CRD: the fast part."""
        x, b = present(inputs, 0), attr_int(node, "blocksize", 1)
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // b, b, w // b, b)
        dcr = attr_str(node, "mode", "DCR") == "DCR"
        blocks = blocks.transpose(0, 3, 5, 1, 2, 4) if dcr else blocks.transpose(0, 1, 3, 5, 2, 4)
        return [blocks.reshape(n, c * b * b, h // b, w // b)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One copy between two views of seven dimensions."""
        b, dcr = attr_int(node, "blocksize", 1), attr_str(node, "mode", "DCR") == "DCR"
        return _move_blocks(plan, first_input(node), node.outputs[0], b, dcr, to_space=False)


def _move_blocks(plan: Lowering, x: ir.Value, y: ir.Value, b: int, dcr: bool, *, to_space: bool) -> bool:
    """Copy between [N, C·b², H, W] (`deep`) and [N, C, H·b, W·b] (`wide`)."""
    source, target = plan.view(x), plan.output(y, memory_order(plan.view(x)), free_order=True)
    deep, wide = (source, target) if to_space else (target, source)
    n, c, rows, columns = wide.shape
    h, w = rows // b, columns // b
    sn, sc, sh, sw = deep.strides
    row, column, channel = (b * c * sc, c * sc, sc) if dcr else (b * sc, sc, b * b * sc)
    deep = deep.with_dims((n, c, h, b, w, b), (sn, channel, sh, row, sw, column))
    sn, sc, sh, sw = wide.strides
    wide = wide.with_dims((n, c, h, b, w, b), (sn, sc, b * sh, sh, b * sw, sw))
    plan.emit(copy(*((deep, wide) if to_space else (wide, deep)), plan.machine))
    return True


@register("Trilu", since=14)
class Trilu(Op):
    """The upper or lower triangle of the last two dimensions, counted from diagonal k; zeros elsewhere."""

    quick = True

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x."""
        x = need(node, inputs, 0)
        if len(x.shape) < 2:
            raise shape_error(node, f"an input of shape {show(x.shape)} has no last two dimensions")
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.triu or np.tril."""
        x, k = present(inputs, 0), given(inputs, 1)
        diagonal = 0 if k is None else int(k.reshape(()))
        keep = _triangle(x.shape[-2], x.shape[-1], diagonal, attr_int(node, "upper", 1))
        return [np.where(keep, x, np.zeros((), x.dtype))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Where, with the triangle as a constant mask."""
        x, diagonal = first_input(node), given(node.inputs, 1)
        if diagonal is not None and plan.constant(diagonal) is None:
            return False
        facts, k = plan.facts(x), plan.constant(diagonal)
        shape, upper = facts.shape[-2:], attr_int(node, "upper", 1)
        first = 0 if k is None else k.reshape(()).item()
        keep = plan.located(made_constant(_triangle, *shape, first, upper, shape=shape))
        return plan.wait(node.outputs[0], "Where", [keep, x, plan.known(np.zeros((), facts.dtype))])


def _triangle(rows: int, columns: int, diagonal: int, upper: int) -> Array:
    """Which elements of a matrix are in its upper or lower triangle, counted from a diagonal."""
    # It may be as large as int64; NumPy adds it to an index.
    diagonal = max(-rows - 1, min(diagonal, columns + 1))
    keep = np.tri(rows, columns, diagonal - 1 if upper else diagonal, dtype=BOOL)
    return ~keep if upper else keep
