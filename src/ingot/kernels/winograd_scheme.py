"""Winograd's F(m, r) along an axis, and of two axes, as exact numbers: which points there are, and what the
three transforms weigh. No code is emitted here.

A filter of r taps over m + r − 1 values is a product of polynomials, known from its values at as many points,
infinity among them: m + r − 1 products for m outputs, where the definition has m · r.

    v = Bᵀ d      row a: d weighed by the coefficients of Π (x − b) over the other finite points b; infinity:
                  over all of them
    u = G w       row a: the filter at a, divided by Π (a − b) over the others
    y = Aᵀ (u·v)  output j weighs the point a by aʲ; infinity goes to the last one only

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015); Toom and Cook before them. Small
numbers that lie far apart lose least: ½ and −2 instead of 2 and −2 where there are two beside 0, 1 and −1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np

#: Points in groups of groups. The transform of the input goes down this tree: what the points outside of a
#: group take from the input is taken once for all of the group.
Tree: TypeAlias = "Fraction | tuple[Tree, ...]"

_ZERO, _ONE, _HALF, _TWO = Fraction(0), Fraction(1), Fraction(1, 2), Fraction(2)
_NEAR: Tree = (_ZERO, (_ONE, -_ONE))
#: The finite points, by how many there are with infinity.
_POINTS: dict[int, tuple[Tree, ...]] = {
    1: (),
    4: (_ZERO, (_ONE, -_ONE)),
    6: (_NEAR, (_HALF, -_TWO)),
    8: (_NEAR, ((_HALF, -_HALF), (_TWO, -_TWO))),
}
#: Points along an axis that may be tried: with two axes errors multiply.
_SIDES = {1: (8, 6, 4), 2: (6, 4)}


@dataclass(frozen=True, slots=True)
class Axis:
    """F(outputs, taps): along an axis. One of each: nothing is done there."""

    outputs: int
    taps: int

    @property
    def side(self) -> int:
        """Values that a tile reads, and points."""
        return self.outputs + self.taps - 1

    @property
    def points(self) -> tuple[Tree, ...]:
        """The finite ones."""
        return _POINTS[self.side]


@dataclass(frozen=True, slots=True)
class Scheme:
    """Tiles of outputs down and across."""

    rows: Axis
    columns: Axis

    @property
    def kernel(self) -> tuple[int, int]:
        """Rows and columns of the filter."""
        return self.rows.taps, self.columns.taps

    @property
    def passes(self) -> int:
        """Axes along which something is done."""
        return (self.rows.side > 1) + (self.columns.side > 1)

    @property
    def points(self) -> int:
        """Products that a tile needs."""
        return self.rows.side * self.columns.side

    @property
    def line(self) -> int:
        """Addresses of a column of a tile, in a whole vector: the last may be read by nobody."""
        return 8 if self.rows.side > 4 else 4

    @property
    def input_scratch(self) -> tuple[int, int]:
        """Bytes and vectors that `to_points` needs beside its zeros."""
        return self.columns.side * self.line * 8, self.points

    @property
    def output_scratch(self) -> int:
        """Vectors that `from_points` needs for two vectors of channels."""
        return self.rows.outputs * (self.columns.side + 2 * self.columns.outputs)


def upright(kernel: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of filters [k], or [1, k], as ones of k rows and a column; of others as they are."""
    rows, columns = kernel if len(kernel) == 2 else (1, *kernel)
    return (columns, rows) if rows == 1 else (rows, columns)


@functools.cache
def schemes(kernel: tuple[int, int]) -> tuple[Scheme, ...]:
    """Those for filters of so many rows and columns, of several outputs along each axis, largest tiles first.

    Filters of one row have none: they are turned (`upright`).
    """
    rows, columns = kernel
    if rows == 1:
        return ()
    sides = [side for side in _SIDES[1 + (columns > 1)] if side > max(kernel)]
    return tuple(
        Scheme(Axis(side - rows + 1, rows), Axis(side - columns + 1 if columns > 1 else 1, columns))
        for side in sides
    )


def leaves(tree: Tree) -> list[Fraction]:
    """The points of a group, in order."""
    return [point for part in tree for point in leaves(part)] if isinstance(tree, tuple) else [tree]


def polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of Π (x − root), the constant one first; the last is 1."""
    found = [_ONE]
    for root in roots:
        found = [a - root * b for a, b in zip([_ZERO, *found], [*found, _ZERO], strict=True)]
    return found


@functools.cache
def filter_matrix(axis: Axis) -> np.ndarray:
    """G [points, taps] in float64."""
    points, powers = leaves(axis.points), range(axis.taps)
    rows: list[list[Fraction]] = []
    for a in points:
        apart = math.prod([a - b for b in points if b != a], start=_ONE)
        rows.append([a**j / apart for j in powers])
    rows.append([_ONE if j == axis.taps - 1 else _ZERO for j in powers])
    return np.array([[float(number) for number in row] for row in rows])
