"""Calls made again for other memory are what the function itself would have given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ingot.codegen.machine import host
from ingot.kernels.alike import alike, remembering
from ingot.kernels.attention import attention
from ingot.kernels.call import Buffer, Call, View
from ingot.kernels.contract import Epilogue
from ingot.kernels.conv import conv2d, pack_conv_weights
from ingot.kernels.depthwise import depthwise_conv2d, pack_depthwise
from ingot.kernels.expression import Expression, Step
from ingot.kernels.gemm import matmul
from ingot.kernels.pack import pack_weights
from ingot.kernels.winograd import winograd_conv2d
from ingot.kernels.winograd_pack import pack_winograd
from ingot.kernels.winograd_scheme import schemes
from tests.kernels.run import new

random = np.random.default_rng(0)
ADD = Expression(("float32", "float32"), (Step("Add", (0, 1), "float32"),), (2,))


def weights(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def image(*shape: int) -> View:
    _, c, h, w = shape
    return new(shape, strides=(c * h * w, 1, w * c, c))


def part(view: View) -> View:
    """The second half of memory that is twice as large."""
    size = view.buffer.nbytes
    return View(Buffer(2 * size), size, view.dtype, view.shape, view.strides)


FILTERS = pack_conv_weights(weights(24, 16, 3, 3), host())
DEPTHWISE = pack_depthwise(weights(32, 1, 3, 3), host())
WINOGRAD = pack_winograd(weights(24, 16, 3, 3), schemes((3, 3))[0], host())


def _matmul(place: Callable[[View], View]) -> list[Call]:
    packed = pack_weights(weights(48, 40), host())
    after = Epilogue(ADD, [place(new((5, 7, 40)))])
    return matmul(place(new((5, 7, 48))), packed, place(new((5, 7, 40))), after, host())


def _runtime_matmul(place: Callable[[View], View]) -> list[Call]:
    """Its second factor is packed into memory that the function makes."""
    return matmul(place(new((3, 20, 30))), place(new((3, 30, 50))), place(new((3, 20, 50))), machine=host())


def _shared_matmul(place: Callable[[View], View]) -> list[Call]:
    """Operand and result are the same memory."""
    out = place(new((7, 40)))
    return matmul(place(new((7, 48))), pack_weights(weights(48, 40), host()), out, Epilogue(ADD, [out]))


def _conv(place: Callable[[View], View]) -> list[Call]:
    x, out = place(image(2, 16, 12, 12)), place(image(2, 24, 12, 12))
    return conv2d(x, FILTERS, out, pads=(1, 1, 1, 1), machine=host())


def _depthwise(place: Callable[[View], View]) -> list[Call]:
    x, out = place(image(1, 32, 9, 9)), place(image(1, 32, 9, 9))
    return depthwise_conv2d(x, DEPTHWISE, out, (1, 1), (1, 1, 1, 1), (1, 1), None, host())


def _winograd(place: Callable[[View], View]) -> list[Call]:
    x, out = place(image(1, 16, 16, 16)), place(image(1, 24, 16, 16))
    return winograd_conv2d(x, WINOGRAD, out, (1, 1, 1, 1), None, host())


def _attention(place: Callable[[View], View]) -> list[Call]:
    q, k, v, out = (place(new((1, 4, 20, 16))) for _ in range(4))
    return attention(q, k, v, None, out, 0.25, host())


CASES = [_matmul, _runtime_matmul, _shared_matmul, _conv, _depthwise, _winograd, _attention]


def described(calls: list[Call]) -> list[Any]:
    """Everything that a call says, with its buffers by number in the order they appear."""
    numbers: dict[int, int] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, View):
            buffer = value.buffer
            constant = None if buffer.array is None else buffer.array.tobytes()
            number = -1 if constant is not None else numbers.setdefault(id(buffer), len(numbers))
            return number, buffer.nbytes, value.offset, value.dtype, value.shape, value.strides
        return value

    return [
        (
            call.kernel, *map(plain, call.args), call.tiles, [plain(v) for v in call.reads],
            [plain(v) for v in call.writes], call.scratch, call.flops, call.label, call.in_place,
            call.origin,
        )
        for call in calls
    ]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_other_memory_and_the_same_calls(case: Callable[[Callable[[View], View]], list[Call]]) -> None:
    with remembering():
        first = case(lambda view: view)
        for call in first:
            call.origin.append(1)  # whose calls these are is not remembered
        again, moved = case(lambda view: view), case(part)
    wanted, shifted = case(lambda view: view), case(part)
    assert described(again) == described(wanted)
    assert described(moved) == described(shifted)
    assert [call.form for call in again] == [call.form for call in first], "they were worked out again"
    buffers = {id(v.buffer) for call in first for v in (*call.reads, *call.writes) if v.buffer.array is None}
    for call in again:
        for view in (*call.reads, *call.writes):
            assert view.buffer.array is not None or id(view.buffer) not in buffers, (
                "memory of the first calls"
            )


def test_what_lies_otherwise_is_worked_out_for_itself() -> None:
    made: list[int] = []

    @alike
    def nothing(a: View, b: View, number: int) -> list[Call]:
        del a, b
        made.append(number)
        return []

    x, y = new((4, 6)), new((4, 6))
    other = new((4, 6), strides=(1, 4))
    with remembering():
        for a, b, number in ((x, y, 1), (y, x, 1), (x, x, 2), (y, y, 2), (x, other, 3), (x, y, 4)):
            nothing(a, b, number)
    assert made == [1, 2, 3, 4]
    nothing(x, y, 5)
    nothing(x, y, 5)
    assert made[4:] == [5, 5], "nothing is remembered outside of a plan"
