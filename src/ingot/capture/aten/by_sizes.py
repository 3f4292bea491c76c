"""Functions that torch's C++ composes of others by the numbers of their sizes: here by free sizes."""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from ingot.capture.aten.pool import each
from ingot.capture.aten.reduce import cov
from ingot.capture.aten.registry import composed, instead
from ingot.capture.checks import demand, require_true
from ingot.capture.extent import of_whole
from ingot.capture.fakes import hint
from ingot.capture.request import recorder

Tensor = torch.Tensor
_chunk_cat: Any = torch._chunk_cat  # pyright: ignore[reportPrivateUsage,reportPrivateImportUsage]
_prelu_kernel: Any = torch._prelu_kernel  # pyright: ignore[reportPrivateUsage,reportPrivateImportUsage]
_VF: Any = torch._VF  # pyright: ignore[reportPrivateUsage]
_nn: Any = torch._C._nn  # pyright: ignore[reportPrivateUsage,reportAttributeAccessIssue]  (made in C++)


@instead(torch.kron, Tensor.kron)
def kron(input: Tensor, other: Tensor) -> Tensor:
    """Every element of one times all of the other, axis by axis; the shorter shape gets axes in front."""
    rank = max(input.dim(), other.dim())
    a, b = ([1] * (rank - x.dim()) + list(x.shape) for x in (input, other))
    x = input.reshape([n for size in a for n in (size, 1)])
    y = other.reshape([n for size in b for n in (1, size)])
    return (x * y).reshape([n * m for n, m in zip(a, b, strict=True)])


@instead(torch.take_along_dim, Tensor.take_along_dim)
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """Elements along an axis, of the flat tensor without one; the other axes broadcast."""
    if dim is None:
        return input.reshape(-1).gather(0, indices.reshape(-1))
    if input.dim() != indices.dim():
        return torch.take_along_dim(input, indices, dim)  # which says what it wants
    axis = dim % input.dim()
    wide = list(torch.broadcast_shapes(_one(input.shape, axis), _one(indices.shape, axis)))
    sizes = [[x.shape[axis] if d == axis else n for d, n in enumerate(wide)] for x in (input, indices)]
    return input.expand(sizes[0]).gather(axis, indices.expand(sizes[1]))


def _one(shape: Sequence[Any], axis: int) -> list[Any]:
    return [1 if d == axis else n for d, n in enumerate(shape)]


def _of_rank(*sizes: Callable[[Sequence[Any]], list[Any]]) -> Callable[..., Any]:
    """A function of a tensor, or of several, that gives each of few axes more of them."""

    def each(tensors: Any) -> Any:
        if not isinstance(tensors, Tensor):
            return tuple(map(each, tensors))
        few = tensors.dim() < len(sizes)
        return tensors.reshape(sizes[tensors.dim()](tensors.shape)) if few else tensors

    return each


instead(_VF.atleast_2d)(_of_rank(lambda _: [1, 1], lambda s: [1, s[0]]))
instead(_VF.atleast_3d)(_of_rank(lambda _: [1, 1, 1], lambda s: [1, s[0], 1], lambda s: [*s, 1]))


@instead(torch.prelu, Tensor.prelu)
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x, times a slope below zero: one for all, or one for each channel."""
    if weight.dim() != 1 or input.dim() == 0 or not isinstance(weight.shape[0], torch.SymInt):
        return torch.prelu(input, weight)
    slopes = weight.reshape([-1 if d == min(1, input.dim() - 1) else 1 for d in range(input.dim())])
    if input.dim() == 1:  # whose one axis is no channels
        torch._check(weight.shape[0] == 1, lambda: "prelu of a vector has one slope")  # pyright: ignore[reportPrivateUsage]
    return _prelu_kernel(input, slopes)


def _convolved(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A convolution; one that keeps its input's size pads it by half of the filter, and by one more behind
    where the filter's size is even.
    """

    def convolved(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: Any = 1,
    ) -> Tensor:
        kernel = weight.shape[2:]
        free = any(isinstance(k, torch.SymInt) for k in kernel)
        if padding == "same" and free and set(each(stride, 1)) == {1}:
            wide = [d * (k - 1) for d, k in zip(each(dilation, len(kernel)), kernel, strict=True)]
            halves = [half for n in reversed(wide) for half in (n // 2, n - n // 2)]
            input, padding = torch.nn.functional.pad(input, halves), 0
        return function(input, weight, bias, stride, padding, dilation, groups)

    return convolved


for _function in (torch.conv1d, torch.conv2d, torch.conv3d):
    instead(_function)(_convolved(_function))


@instead(torch.nn.functional.one_hot, torch.ops.aten.one_hot.default)
def one_hot(tensor: Tensor, num_classes: Any = -1) -> Tensor:
    """A 1 at each index along a new last axis, as long as the largest index says where nothing else does."""
    if num_classes == -1:
        demand(recorder(), tensor.numel() > 0, "one_hot could not count the classes of nothing here")
        lowest: Any = tensor.amin().item()
        demand(recorder(), lowest >= 0, "one_hot would refuse negative numbers here")
        num_classes = (tensor.amax() + 1).item()
    elif (isinstance(num_classes, int) and num_classes < 1) or tensor.dtype != torch.int64:
        return torch.nn.functional.one_hot(tensor, num_classes)  # which torch refuses
    else:
        _require_classes(tensor, num_classes)
    return (tensor.unsqueeze(-1) == torch.arange(num_classes)).to(torch.int64)


def _require_classes(tensor: Tensor, count: Any) -> None:
    """The run fails where one_hot has no class for a number, as torch refuses it."""
    g = recorder()
    low, high = of_whole(g.val(tensor))
    if low < 0 or not isinstance(count, int) or high >= count:
        fits = ((tensor >= 0) & (tensor < count)).all()
        require_true(g, fits, "each number that torch.one_hot takes is one of its classes")


@instead(torch.vander)
def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Powers of a vector's elements, one a row; the highest first unless they are to increase."""
    if isinstance(N, int) and N < 2:
        return torch.vander(x, N, increasing)  # which torch.linalg refuses
    count: Any = x.shape[0] if N is None else N
    if isinstance(count, int):
        found = torch.linalg.vander(x, N=count)
    else:
        more: Any = torch.sym_max(count - 1, 0)
        powers = x.unsqueeze(-1).expand([*x.shape, more]).cumprod(-1)
        ones = torch.ones([*x.shape, 1], dtype=powers.dtype)
        found = torch.cat([ones, powers], -1).narrow(-1, 0, count)
    return found if increasing else found.flip(-1)


@composed("_pdist_forward")
@instead(torch.pdist)
def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """Distances of each row to every later one."""
    if input.dim() != 2 or not input.is_floating_point():
        return torch.pdist(input, p)  # which says what it wants
    n: Any = input.shape[0]
    places = torch.arange(n)
    pairs = (places.unsqueeze(1) < places).nonzero().reshape(n * (n - 1) // 2, 2)
    first, second = pairs.unbind(1)
    apart = input.index_select(0, first) - input.index_select(0, second)
    if p == 0:
        return (apart != 0).sum(-1).to(input.dtype)
    if p == float("inf"):  # of no elements too
        return torch.nn.functional.pad(apart.abs(), (0, 1)).amax(-1)
    return torch.linalg.vector_norm(apart, p, -1)


@instead(torch.combinations)
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of r elements, in the order of their places."""
    if input.dim() != 1 or r < 1:
        return torch.combinations(input, r, with_replacement)
    places = torch.arange(input.shape[0])
    grid = [places.reshape([-1 if d == axis else 1 for d in range(r)]) for axis in range(r)]
    chosen = grid[0] >= 0
    for before, after in itertools.pairwise(grid):
        chosen = chosen & (before <= after if with_replacement else before < after)
    return input[chosen.nonzero()]


@instead(_nn.pad_sequence)
def pad_sequence(
    sequences: Sequence[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Sequences as long as the longest, of the first one's dtype, one beside the other."""
    given: list[Tensor] = list(sequences)
    if not given or any(t.dim() == 0 for t in given) or padding_side not in ("left", "right"):
        return _nn.pad_sequence(sequences, batch_first, padding_value, padding_side)
    longest: Any = given[0].shape[0]
    for t in given[1:]:
        longest = torch.sym_max(longest, t.shape[0])
    padded: list[Tensor] = []
    for t in given:
        missing = longest - t.shape[0]
        ends = (missing, 0) if padding_side == "left" else (0, missing)
        wide = torch.nn.functional.pad(t, (*[0, 0] * (t.dim() - 1), *ends), value=padding_value)
        padded.append(wide.to(given[0].dtype))
    return torch.stack(padded, 0 if batch_first else 1)


@instead(_chunk_cat)
def chunk_cat(tensors: Sequence[Tensor], dim: int, num_chunks: int) -> Tensor:
    """As many parts of each tensor along an axis, each flat and filled up with zeros; all tensors side by
    side.
    """
    if num_chunks < 1 or any(t.dim() == 0 for t in tensors):
        return _chunk_cat(list(tensors), dim, num_chunks)  # which says what it wants
    axis = dim % tensors[0].dim()
    parts: list[Tensor] = []
    for t in tensors:
        demand(recorder(), t.numel() > 0, "torch._chunk_cat would refuse a tensor of no elements here")
        length: Any = (t.shape[axis] + num_chunks - 1) // num_chunks
        missing = length * num_chunks - t.shape[axis]
        wide = torch.nn.functional.pad(t, (*[0, 0] * (t.dim() - axis - 1), 0, missing))
        parts.append(wide.reshape([*t.shape[:axis], num_chunks, length * math.prod(t.shape[axis + 1 :])]))
    return torch.cat(parts, axis + 1)


@instead(torch.cross, Tensor.cross)
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The product of vectors along an axis; without one, along the first that has 3 elements."""
    if dim is None:
        for axis, size in enumerate(input.shape):
            if hint(size) == 3:
                dim = axis
                break
            if isinstance(size, torch.SymInt):
                demand(recorder(), size != 3, f"torch.cross would take axis {axis}, which has 3 elements")
    return torch.cross(input, other) if dim is None else torch.linalg.cross(input, other, dim=dim)


@instead(torch.diff, Tensor.diff)
def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences of neighbours, n times; of fewer elements than that none are left."""
    if input.dim() == 0 or n < 0:
        return torch.diff(input, n, dim, prepend, append)  # which says what it wants
    if n == 0:
        return input.clone()
    given = [t for t in (prepend, input, append) if t is not None]
    x = torch.cat(given, dim) if len(given) > 1 else input
    axis = dim % x.dim()
    for _ in range(n):
        before, after = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
        x = x[after] ^ x[before] if x.dtype == torch.bool else x[after] - x[before]
    return x


@instead(_VF.cdist, torch.ops.aten.cdist.default, torch.ops.aten.cdist)
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: int | None = None) -> Tensor:
    """Distances of rows from their differences, unless a matrix product is asked for: torch takes that for
    more than 25 rows, and loses digits where rows are near to each other.
    """
    return _VF.cdist(x1, x2, p, 2 if compute_mode is None or compute_mode == 0 else compute_mode)


@instead(_nn.pad)
def pad(input: Tensor, pad: Sequence[Any], mode: str = "constant", value: float | None = None) -> Tensor:
    """A border of what stands at the other end of each axis; torch's other borders are rows of their own."""
    sizes = input.shape[input.dim() - len(pad) // 2 :]
    if mode != "circular" or not any(isinstance(n, torch.SymInt) for n in (*pad, *sizes)):
        return _nn.pad(input, pad, mode, value)
    if len(pad) != 2 * (input.dim() - 2) and len(pad) != 2 * (input.dim() - 1):
        return _nn.pad(input, pad, mode, value)  # which says what it wants
    for place in range(len(pad) // 2):
        axis, (before, after) = input.dim() - 1 - place, pad[2 * place : 2 * place + 2]
        input = _around(input, axis, before, after)
    return input


def _around(x: Tensor, axis: int, before: Any, after: Any) -> Tensor:
    """An axis continued at both ends as if it were a ring, or cut where a width is below 0."""
    size: Any = x.shape[axis]
    for width in (before, after):
        demand(recorder(), width <= size, "A circular border would go round more than once")
    cut: Any = [torch.sym_max(-width, 0) for width in (before, after)]
    if any(isinstance(n, torch.SymInt) or n for n in cut):
        x = x.narrow(axis, cut[0], size - cut[0] - cut[1])
        size = x.shape[axis]
    widths: Any = [torch.sym_max(width, 0) for width in (before, after)]
    before, after = widths
    parts = [x.narrow(axis, size - before, before), x, x.narrow(axis, 0, after)]
    kept = zip(parts, (before, 1, after), strict=True)
    return torch.cat([p for p, width in kept if not isinstance(width, int) or width], axis)


@instead(torch.corrcoef, Tensor.corrcoef)
def corrcoef(input: Tensor) -> Tensor:
    """Correlations of rows: their covariances, with each row's own variance as the unit."""
    found = cov(input)
    if found.dim() == 0:
        return found / found
    deviation = found.diagonal().sqrt()
    return torch.clamp(found / deviation.unsqueeze(1) / deviation.unsqueeze(0), -1, 1)


@instead(torch.linalg.multi_dot, _VF.chain_matmul)
def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """A product of matrices, in the order that multiplies least at the example's sizes."""
    parts = list(tensors)
    first, last = parts[0], parts[-1]
    if len(parts) > 2:  # vectors at the ends are a row and a column
        parts[0] = first.unsqueeze(0) if first.dim() == 1 else first
        parts[-1] = last.unsqueeze(1) if last.dim() == 1 else last
    sizes = [hint(p.shape[0]) for p in parts] + [hint(parts[-1].shape[-1])]

    @cache
    def cheapest(begin: int, end: int) -> tuple[int, int]:
        """How many multiplications the product of `parts[begin:end]` takes, and where it is parted."""
        if end - begin == 1:
            return 0, begin
        return min(
            (cheapest(begin, k)[0] + cheapest(k, end)[0] + sizes[begin] * sizes[k] * sizes[end], k)
            for k in range(begin + 1, end)
        )

    def product(begin: int, end: int) -> Tensor:
        if end - begin == 1:
            return parts[begin]
        middle = cheapest(begin, end)[1]
        return product(begin, middle) @ product(middle, end)

    made = product(0, len(parts))
    if len(parts) > 2 and first.dim() == 1:
        made = made.squeeze(0)
    return made.squeeze(-1) if len(parts) > 2 and last.dim() == 1 else made


@instead(torch.gradient)
def gradient(
    input: Tensor, *, spacing: Any = 1, dim: int | Sequence[int] | None = None, edge_order: int = 1
) -> tuple[Tensor, ...]:
    """Second-order differences along axes; one-sided ones at both ends."""
    spacing = 1 if spacing is None else spacing
    given = range(input.dim()) if dim is None else (dim,) if isinstance(dim, int) else dim
    axes = [d % input.dim() for d in given]
    steps = list(spacing) if isinstance(spacing, (list, tuple)) else [spacing] * len(axes)
    if len(steps) != len(axes) or edge_order not in (1, 2):
        return torch.gradient(input, spacing=spacing, dim=axes, edge_order=edge_order)  # which says why not
    return tuple(_along(input, s, d, edge_order) for s, d in zip(steps, axes, strict=True))


def _along(x: Tensor, spacing: Any, axis: int, edge_order: int) -> Tensor:
    """The differences along one axis of points one step apart, or at the places given."""
    n = x.shape[axis]
    torch._check(n > edge_order, lambda: f"gradient of edge order {edge_order} takes {edge_order + 1} points")  # pyright: ignore[reportPrivateUsage]

    def at(begin: int, length: Any = 1) -> Tensor:
        return x.narrow(axis, begin if begin >= 0 else n + begin, length)

    def wide(v: Tensor) -> Tensor:
        return v.reshape([n - 2 if d == axis else 1 for d in range(x.dim())])

    if isinstance(spacing, Tensor):
        torch._check(spacing.shape[0] == n, lambda: "gradient takes as many coordinates as points")  # pyright: ignore[reportPrivateUsage]
        gaps = spacing.narrow(0, 1, n - 1) - spacing.narrow(0, 0, n - 1)
        left, right = gaps.narrow(0, 0, n - 2), gaps.narrow(0, 1, n - 2)
        ends = [(gaps[0], gaps[1]), (gaps[-1], gaps[-2])] if edge_order == 2 else [(gaps[0],), (gaps[-1],)]
        low, high = wide(-right / (left * (left + right))), wide(left / (right * (left + right)))
        here = wide((right - left) / (left * right))
        inner = low * at(0, n - 2) + here * at(1, n - 2) + high * at(2, n - 2)
    else:
        inner = (at(2, n - 2) - at(0, n - 2)) / (2 * spacing)
        ends = [(spacing, spacing)] * 2
    outer: list[Tensor] = []
    for sign, gap, points in zip((1, -1), ends, ((0, 1, 2), (-1, -2, -3)), strict=True):
        if edge_order == 1:
            outer.append(sign * (at(points[1]) - at(points[0])) / gap[0])
            continue
        near, far = gap[0], gap[-1]
        a, b, c = (at(p) for p in points)
        left_out = -(2 * near + far) / (near * (near + far))
        slope = a * left_out + b * ((near + far) / (near * far)) - c * (near / (far * (near + far)))
        outer.append(sign * slope)
    return torch.cat([outer[0], inner, outer[1]], axis)
