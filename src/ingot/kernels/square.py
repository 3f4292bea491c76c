"""Convolutions by filters of 3×3 and stride 1: by Winograd's algorithm where it is faster, else by the direct
one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, Layout, Series, View, Weights, layout_of
from ingot.kernels.contract import Epilogue
from ingot.kernels.conv import PackedConvWeights, call_of_square, pack_conv_weights
from ingot.kernels.expression import Expression
from ingot.kernels.made_again import made_again, remembered
from ingot.kernels.winograd import WinogradForms, calls_of_forms, fastest, winograd_forms
from ingot.kernels.winograd_pack import WinogradWeights, pack_winograd
from ingot.kernels.winograd_tile import SCHEMES


class SquareWeights:
    """Filters [O, C, 3, 3], packed for each algorithm when it is first chosen. keep: where what is packed is
    made.
    """

    def __init__(
        self,
        weights: Weights,
        machine: Machine,
        keep: Callable[[Callable[[], WinogradWeights]], WinogradWeights],
    ) -> None:
        self._weights, self._machine, self._keep = weights, machine, keep
        self._points: dict[int, WinogradWeights] = {}
        #: for the direct algorithm, which packs them itself
        self.direct: PackedConvWeights = pack_conv_weights(weights, machine)

    def points(self, outputs: int) -> WinogradWeights:
        """For Winograd's algorithm with so many outputs in a tile along an axis."""
        if outputs not in self._points:
            scheme = SCHEMES[outputs]
            self._points[outputs] = self._keep(
                lambda: pack_winograd(self._weights.read(), scheme, self._machine)
            )
        return self._points[outputs]


def square_conv2d(
    x: View, w: SquareWeights, out: View, pads: Sequence[int], epilogue: Epilogue | None, machine: Machine
) -> list[Call | Series]:
    """Calls that compute out[N, O, Ho, Wo] = epilogue(convolution of x[N, C, H, W] with w), as `conv2d`."""
    if out.size == 0:
        return []
    operands = [v.broadcast_to(out.shape) for v in (epilogue.operands if epilogue else ())]
    expression = None if epilogue is None else epilogue.expression
    layouts = tuple([(v.dtype, v.strides) for v in operands])
    forms = _forms(layout_of(x), layout_of(out), layouts, expression, (pads[0], pads[1]), machine)
    return _calls(forms, x, w, out, tuple(pads), epilogue, operands, machine)


@remembered(1024, "answer")
def _forms(
    x: Layout,
    out: Layout,
    operands: tuple[tuple[np.dtype, tuple[int, ...]], ...],
    epilogue: Expression | None,
    pads: tuple[int, int],
    machine: Machine,
) -> WinogradForms | None:
    """Those of Winograd's algorithm; None where the direct one is faster."""
    scheme = fastest(x[1][1], out[1], machine)
    return None if scheme is None else winograd_forms(x, out, operands, epilogue, pads, scheme, machine)


@made_again
def _calls(
    forms: WinogradForms | None,
    x: View,
    w: SquareWeights,
    out: View,
    pads: tuple[int, ...],
    epilogue: Epilogue | None,
    operands: Sequence[View],
    machine: Machine,
) -> list[Call | Series]:
    if forms is None:
        return [call_of_square(x, w.direct, out, pads, epilogue, machine)]
    return [*calls_of_forms(forms, x, w.points(forms[0]), out, operands)]
