"""Convolutions by filters of 3×3 and stride 1: by Winograd's algorithm where it is faster, else by the direct
one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, Series, View, Weights
from ingot.kernels.contract import Epilogue
from ingot.kernels.conv import PackedConvWeights, call_of_square, pack_conv_weights
from ingot.kernels.sizes import made_again
from ingot.kernels.winograd import pays, winograd_calls
from ingot.kernels.winograd_pack import WinogradWeights, pack_winograd


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
        self._points: WinogradWeights | None = None
        #: for the direct algorithm, which packs them itself
        self.direct: PackedConvWeights = pack_conv_weights(weights, machine)

    @property
    def points(self) -> WinogradWeights:
        """For Winograd's algorithm."""
        if self._points is None:
            self._points = self._keep(lambda: pack_winograd(self._weights.read(), self._machine))
        return self._points


@made_again
def square_conv2d(
    x: View, w: SquareWeights, out: View, pads: Sequence[int], epilogue: Epilogue | None, machine: Machine
) -> list[Call | Series]:
    """Calls that compute out[N, O, Ho, Wo] = epilogue(convolution of x[N, C, H, W] with w), as `conv2d`."""
    if out.size == 0:
        return []
    if pays(x.shape[1], out.shape, machine):
        return [*winograd_calls(x, w.points, out, pads, epilogue, machine)]
    return [call_of_square(x, w.direct, out, pads, epilogue, machine)]
