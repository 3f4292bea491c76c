"""Discrete Fourier transforms of rows, from products of matrices, copies and elementwise steps.

A short transform is one product with a matrix of cosines and sines. Cooley and Tukey's step makes a length
that is a product a · b out of transforms of a and of b, with a turn of each number in between (the twiddle
factors): two products where the matrices of turns are small, else step by step with the turns by themselves.
What has a prime factor that is too large for a product is Bluestein's: a convolution with a chirp, by
transforms of a length that has none.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View, constant, row_major
from ingot.kernels.contraction import Matrices, multiply, pack_matrices
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import elementwise, fill
from ingot.kernels.expression import Expression, Step, expression_of
from ingot.kernels.gemm import matmul
from ingot.kernels.pack import PackedWeights, pack_weights
from ingot.ops.compose import complex_product
from ingot.ops.lowering import Lowering, wide_of
from ingot.ops.registry import Array

#: A transform up to this length is one product, and a factor of a longer one.
_ONE_PRODUCT = 512
#: Up to this length two products have the turns in their matrices, which grow with its 1.5th power.
_TWO_PRODUCTS = 4096
#: Up to this length a transform with a large prime factor is one product.
_LARGE_MATRIX = 2048
#: The factor that a step of a longer one takes off, at most: products from here on reach the machine's rate.
_STEP = 64


@functools.lru_cache(256)
def waves(rows: int, columns: int, length: int, inverse: bool) -> tuple[Array, Array]:
    """cos and sin of 2π j k / length, with the sign of the exponent in the sine; exact multiples."""
    turns = np.outer(np.arange(rows), np.arange(columns)) % length
    angle = 2.0 * np.pi / length * turns
    return np.cos(angle), np.sin(angle) if inverse else -np.sin(angle)


def matrix_of(cos: Array, sin: Array, parts: int) -> Array:
    """[..., rows · parts, columns · 2]: complex products as real ones, of real (1 part) or complex rows."""
    *batch, rows, columns = cos.shape
    matrix = np.empty((*batch, rows, parts, columns, 2))
    matrix[..., 0, :, 0], matrix[..., 0, :, 1] = cos, sin
    if parts == 2:
        matrix[..., 1, :, 0], matrix[..., 1, :, 1] = -sin, cos
    return matrix.reshape(*batch, rows * parts, columns * 2)


def real_inverse(rows: int, length: int) -> Array:
    """[rows · 2, length]: a real signal from the first half of its spectrum."""
    cos, sin = waves(rows, length, length, True)
    share = np.full(rows, 2.0)
    share[0] = 1.0
    if length % 2 == 0 and rows > length // 2:
        share[length // 2] = 1.0
    share[length // 2 + 1 :] = 0.0
    matrix = np.stack([cos, -sin], 1) * share[:, None, None] / length
    matrix[0, 1] = 0.0  # what is imaginary there belongs to no real signal
    if length % 2 == 0 and rows > length // 2:
        matrix[length // 2, 1] = 0.0
    return matrix.reshape(rows * 2, length)


def _factors(length: int) -> tuple[int, int]:
    """Two factors next to the root; (1, length) for a prime."""
    return max((a, length // a) for a in range(1, math.isqrt(length) + 1) if length % a == 0)


Factor = PackedWeights | Matrices


def packed(matrix: Array, dtype: np.dtype, machine: Machine) -> Factor:
    """A matrix as the second factor of products of this dtype."""
    own = np.ascontiguousarray(matrix).astype(dtype)
    return pack_matrices(own, machine) if dtype == np.float64 else pack_weights(own, machine)


def product(x: View, factor: Factor, out: View, machine: Machine) -> list[Call]:
    if isinstance(factor, Matrices):
        return multiply(x, factor, out, machine)
    return matmul(x, factor, out, None, machine)


class Transform:
    """Products that transform rows [R, length, parts] of float64, or of float32 (or half precision)."""

    def __init__(self, plan: Lowering, length: int, dtype: str, *, inverse: bool = False) -> None:
        self.plan, self.length, self.inverse = plan, length, inverse
        #: what is computed with
        self.dtype = np.dtype(wide_of(dtype))
        self._scale = 1.0 / length if inverse else 1.0

    @property
    def is_one(self) -> bool:
        """Whether it is one product: `rows` makes as much of the spectrum as is wanted."""
        small = self.length <= _ONE_PRODUCT
        return small or (self.length <= _LARGE_MATRIX and _factors(self.length)[1] > _ONE_PRODUCT)

    def _packed(self, name: str, sizes: tuple[int, ...], make: Callable[[], Array]) -> Factor:
        key = ("transform", name, self.dtype.name, self.length, self.inverse, *sizes)
        return self.plan.pack(key, lambda: packed(make(), self.dtype, self.plan.machine))

    def rows(self, x: View, count: int, parts: int, out: View, weights: Array | None = None) -> None:
        """out [R, count · 2] from x [R, taken · parts]; weights: what each element is multiplied by first."""
        taken = x.shape[-1] // parts

        def make() -> Array:
            cos, sin = waves(taken, count, self.length, self.inverse)
            scale = self._scale if weights is None else self._scale * weights[:taken, None]
            return matrix_of(cos * scale, sin * scale, parts)

        machine = self.plan.machine
        if weights is None:
            factor = self._packed("one", (taken, count, parts), make)
        else:
            factor = packed(make(), self.dtype, machine)
        self.plan.emit(product(x, factor, out, machine))

    def whole(self, x: View, parts: int) -> View:
        """[R, length, 2] from contiguous x [R, length · parts] of `dtype`."""
        length = self.length
        if self.is_one:
            out = self.plan.temporary((x.shape[0], length * 2), self.dtype)
            self.rows(x, length, parts, out)
            return out.with_dims((x.shape[0], length, 2), (length * 2, 2, 1))
        if _factors(length)[1] <= _ONE_PRODUCT and length <= _TWO_PRODUCTS:
            return self._in_two(x, parts)
        if _largest_prime(length) <= _ONE_PRODUCT:
            return self._in_steps(x, parts)
        return self._by_chirps(x, parts)

    def _in_two(self, x: View, parts: int) -> View:
        """[R, length, 2] from contiguous x [R, length · parts], by two products of about its root."""
        plan, machine = self.plan, self.plan.machine
        outer, inner = _factors(self.length)
        rows = x.shape[0]

        def first() -> Array:
            """For each place j within: a transform of every inner-th element, turned by j."""
            cos, sin = waves(outer, outer, outer, self.inverse)
            turn = np.exp(
                (2j if self.inverse else -2j)
                * np.pi
                * np.outer(np.arange(inner), np.arange(outer))
                / self.length
            )
            each = (cos + 1j * sin) * turn[:, None, :] * self._scale
            return matrix_of(each.real, each.imag, parts)

        # [R, outer, inner, parts] to [inner, R, outer, parts], whose last two are a row of a matrix
        split = x.with_dims((inner, rows, outer, parts), (parts, x.strides[0], inner * parts, 1))
        moved = plan.copied(split).with_dims(
            (inner, rows, outer * parts), row_major((inner, rows, outer * parts))
        )
        turned = plan.temporary((inner, rows, outer * 2), self.dtype)
        plan.emit(product(moved, self._packed("first", (parts,), first), turned, machine))
        shape = (inner, rows, outer, 2)
        moved = plan.copied(turned.with_dims(shape, row_major(shape)).transpose((1, 2, 0, 3)))
        moved = moved.with_dims((rows * outer, inner * 2), (inner * 2, 1))
        done = plan.temporary((rows * outer, inner * 2), self.dtype)

        def second() -> Array:
            return matrix_of(*waves(inner, inner, inner, self.inverse), 2)

        plan.emit(product(moved, self._packed("second", (), second), done, machine))
        # Element k of the spectrum is k % outer of the first and k // outer of the second transform.
        shape = (rows, outer, inner, 2)
        moved = plan.copied(done.with_dims(shape, row_major(shape)).transpose((0, 2, 1, 3)))
        return moved.with_dims((rows, self.length, 2), (self.length * 2, 2, 1))

    def _in_steps(self, x: View, parts: int) -> View:
        """A transform of every b-th number for each place below b, turns, and transforms of length b.

        With t = b · i + j and k = p + a · q: X[k] = Σⱼ w_b^(j q) · w^(j p) · Σᵢ w_a^(i p) · x[t].
        """
        plan, rows, length = self.plan, x.shape[0], self.length
        outer = _step(length)
        inner = length // outer
        # [R, outer, inner, parts] to [R, inner, outer, parts]
        split = x.with_dims((rows, inner, outer, parts), (x.strides[0], parts, inner * parts, 1))
        moved = plan.copied(split).with_dims((rows * inner, outer * parts), (outer * parts, 1))
        first = Transform(plan, outer, self.dtype.name, inverse=self.inverse).whole(moved, parts)
        turned = plan.temporary((rows, outer, inner, 2), self.dtype)

        def turns() -> View:
            angle = 2.0 * np.pi / length * (np.outer(np.arange(outer), np.arange(inner)) % length)
            return _parts(np.cos(angle), np.sin(angle) * (1 if self.inverse else -1), self.dtype)

        table = plan.pack(("transform", "turns", self.dtype.name, length, outer, self.inverse), turns)
        source = first.with_dims((rows, outer, inner, 2), (inner * outer * 2, 2, outer * 2, 1))
        self._multiply(source, table, turned)
        lines = turned.with_dims((rows * outer, inner * 2), (inner * 2, 1))
        done = Transform(plan, inner, self.dtype.name, inverse=self.inverse).whole(lines, 2)
        back = done.with_dims((rows, inner, outer, 2), (length * 2, 2, inner * 2, 1))
        return plan.copied(back).with_dims((rows, length, 2), (length * 2, 2, 1))

    def _by_chirps(self, x: View, parts: int) -> View:
        """X[k] = c[k] · Σₜ (c[t] · x[t]) · c̄[k - t] with c[t] = w^(t² / 2) (Bluestein, 1970): a convolution,
        by transforms that are longer and have small factors.
        """
        plan, rows, length = self.plan, x.shape[0], self.length
        longer = _smooth(2 * length - 1)

        def chirp() -> Array:
            squares = np.arange(length, dtype=np.int64) ** 2 % (2 * length)
            return np.exp((1j if self.inverse else -1j) * np.pi / length * squares)

        def scaled(scale: float) -> View:
            c = chirp() * scale
            return _parts(c.real, c.imag, self.dtype)

        def spectrum() -> View:
            c = chirp().conj()
            around = np.zeros(longer, np.complex128)
            around[:length], around[longer - length + 1 :] = c, c[:0:-1]
            found = np.fft.fft(around)
            return _parts(found.real, found.imag, self.dtype)

        def kept(name: str, make: Callable[[], View]) -> View:
            return plan.pack(("transform", name, self.dtype.name, length, self.inverse), make)

        long = plan.temporary((rows, longer, 2), self.dtype)
        front = long.with_dims((rows, length, 2), long.strides)
        source = x.with_dims((rows, length, parts), (x.strides[0], parts, 1))
        chirps = kept("chirp", lambda: scaled(1.0))
        if parts == 2:
            self._multiply(source, chirps, front)
        else:
            real, imaginary = _halves(chirps)
            for part, target in zip((real, imaginary), _halves(front), strict=True):
                own = source.with_dims((rows, length), source.strides[:2])
                plan.emit(elementwise(_times(self.dtype.name), [own, part], [target], plan.machine, "DFT"))
        rest = long.with_dims((rows, longer - length, 2), long.strides, length * 2)
        plan.emit(fill(0.0, rest, plan.machine))
        flat = long.with_dims((rows, longer * 2), (longer * 2, 1))
        found = Transform(plan, longer, self.dtype.name).whole(flat, 2)
        product = plan.temporary((rows, longer, 2), self.dtype)
        self._multiply(found, kept("chirps", spectrum), product)
        flat = product.with_dims((rows, longer * 2), (longer * 2, 1))
        back = Transform(plan, longer, self.dtype.name, inverse=True).whole(flat, 2)
        result = plan.temporary((rows, length, 2), self.dtype)
        last = chirps if self._scale == 1.0 else kept("scaled chirp", lambda: scaled(self._scale))
        self._multiply(back.with_dims((rows, length, 2), back.strides), last, result)
        return result

    def _multiply(self, x: View, factors: View, out: View) -> None:
        """out = x · factors, of complex numbers as pairs; the factors are alike for all rows."""
        leaves = [*_halves(x), *_halves(factors)]
        product = complex_product(self.dtype.name)
        self.plan.emit(elementwise(product, leaves, _halves(out), self.plan.machine, "DFT"))


def hermitian(plan: Lowering, x: View, length: int) -> View:
    """The whole spectrum [R, length, 2] of a real signal from x [R, taken, 1 or 2], the first half of it or
    what there is of that; what is imaginary where that belongs to no real signal does not count.
    """
    rows, taken, parts = x.shape
    half = length // 2 + 1
    taken = min(taken, half)
    out = plan.temporary((rows, length, 2), x.dtype)
    plan.emit(fill(0.0, out, plan.machine))
    mirrored = min(taken - 1, (length - 1) // 2)
    for part in range(parts):
        first = 0 if part == 0 else 1
        last = taken if part == 0 else mirrored + 1
        for count, start, step, sign in (
            (last - first, first, 1, 1.0),
            (mirrored, length - 1, -1, 1.0 - 2 * part),
        ):
            if count < 1:
                continue
            begin = first if step == 1 else 1
            source = x.with_dims((rows, count), x.strides[:2], begin * x.strides[1] + part * x.strides[2])
            target = out.with_dims((rows, count), (length * 2, step * 2), start * 2 + part)
            if sign == 1.0:
                plan.emit(copy(source, target, plan.machine))
            else:
                plan.emit(elementwise(_minus(x.dtype.name), [source], [target], plan.machine, "DFT"))
    return out


def _halves(view: View) -> list[View]:
    """The real and the imaginary parts of [..., 2]."""
    shape, strides = view.shape[:-1], view.strides
    return [view.with_dims(shape, strides[:-1], part * strides[-1]) for part in (0, 1)]


def _parts(real: Array, imaginary: Array, dtype: np.dtype) -> View:
    return constant(np.ascontiguousarray(np.stack([real, imaginary], -1), dtype))


def _times(dtype: str) -> Expression:
    return expression_of((dtype, dtype), (Step("Mul", (0, 1), dtype),), (2,))


def _minus(dtype: str) -> Expression:
    return expression_of((dtype,), (Step("Neg", (0,), dtype),), (1,))


@functools.lru_cache(256)
def _largest_prime(number: int) -> int:
    largest, factor = 1, 2
    while factor * factor <= number:
        while number % factor == 0:
            largest, number = factor, number // factor
        factor += 1
    return max(largest, number)


@functools.lru_cache(256)
def _step(length: int) -> int:
    """The factor that a step takes off: the largest up to _STEP, else the smallest there is."""
    small = [f for f in range(2, _STEP + 1) if length % f == 0]
    return small[-1] if small else next(f for f in range(_STEP + 1, length + 1) if length % f == 0)


def _smooth(least: int) -> int:
    """The first length from `least` on that is a power of two, or 3, 5 or 9 times one."""
    return min(f << max(0, math.ceil(math.log2(least / f))) for f in (1, 3, 5, 9))
