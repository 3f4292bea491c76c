"""Convolutions of stride 1 by filters that Winograd's algorithm has tiles for: by it where it is faster, else
directly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, Layout, Series, View, Weights
from ingot.kernels.contract import Epilogue
from ingot.kernels.conv import PackedConvWeights, call_of_square, conv2d, pack_conv_weights
from ingot.kernels.expression import Expression
from ingot.kernels.made_again import made_again, remembered
from ingot.kernels.winograd import (
    WinogradForms,
    calls_of_forms,
    expression_of,
    fastest,
    layouts_of,
    stood_up,
    winograd_forms,
)
from ingot.kernels.winograd_pack import WinogradWeights, pack_winograd
from ingot.kernels.winograd_scheme import schemes, upright


class StrideOneWeights:
    """Filters [O, C, k] or [O, C, kh, kw], packed for each algorithm when it is first chosen. keep: where
    what is packed is made.
    """

    def __init__(
        self,
        weights: Weights,
        machine: Machine,
        keep: Callable[[Callable[[], WinogradWeights]], WinogradWeights],
    ) -> None:
        self._weights, self._machine, self._keep = weights, machine, keep
        self.kernel = weights.shape[2:]
        self.turned: bool = upright(self.kernel) != self.kernel
        self._points: dict[int, WinogradWeights] = {}
        #: for the direct algorithm, which packs them itself
        self.direct: PackedConvWeights = pack_conv_weights(weights, machine)

    def points(self, points: int) -> WinogradWeights:
        """For Winograd's algorithm with so many points of a tile."""
        if points not in self._points:
            (scheme,) = [own for own in schemes(upright(self.kernel)) if own.points == points]
            self._points[points] = self._keep(
                lambda: pack_winograd(self._weights.read(), scheme, self._machine)
            )
        return self._points[points]


def stride_one_conv2d(
    x: View, w: StrideOneWeights, out: View, pads: Sequence[int], epilogue: Epilogue | None, machine: Machine
) -> list[Call | Series]:
    """Calls that compute out[N, O, Ho, Wo] = epilogue(convolution of x[N, C, H, W] with w), as `conv2d`."""
    if out.size == 0:
        return []
    views, before = stood_up(x, out, pads, epilogue, w.turned)
    layouts, size = layouts_of(views), out.shape[2:]
    forms = _forms(w.kernel, size, *layouts, expression_of(epilogue), before, machine)
    return _calls(forms, x, w, out, tuple(pads), epilogue, views, machine)


@remembered(1024, "answer")
def _forms(
    kernel: tuple[int, ...],
    size: tuple[int, ...],
    x: Layout,
    out: Layout,
    operands: tuple[tuple[np.dtype, tuple[int, ...]], ...],
    epilogue: Expression | None,
    pads: tuple[int, int],
    machine: Machine,
) -> WinogradForms | None:
    """Those of Winograd's algorithm; None where the direct one is faster. size: of the output before it is
    stood up.
    """
    scheme = fastest(kernel, x[1][1], (*out[1][:2], *size), machine)
    return None if scheme is None else winograd_forms(x, out, operands, epilogue, pads, scheme, machine)


@made_again
def _calls(
    forms: WinogradForms | None,
    x: View,
    w: StrideOneWeights,
    out: View,
    pads: tuple[int, ...],
    epilogue: Epilogue | None,
    views: Sequence[View],
    machine: Machine,
) -> list[Call | Series]:
    if forms is None:
        if 1 in w.kernel or len(w.kernel) == 1:
            ones = (1,) * len(w.kernel)
            return [*conv2d(x, w.direct, out, ones, pads, ones, epilogue, machine)]
        return [call_of_square(x, w.direct, out, pads, epilogue, machine)]
    return [*calls_of_forms(forms, views, w.points(forms[0]))]
