"""Signals: DFT, STFT, the windows, and the filters of mel spectrograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import FLOATS
from ingot.errors import ModelError
from ingot.kernels.call import View, constant, row_major
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import elementwise, fill
from ingot.kernels.expression import Step, expression_of
from ingot.ops.fourier import Factor, Transform, hermitian, matrix_of, packed, product, real_inverse, waves
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_int,
    first_input,
    given,
    known_ints,
    label,
    need,
    normal_axis,
    present,
    register,
    shape_error,
    show,
)

#: Up to this length a real signal from half of its spectrum is one product.
_LONGEST = 2048
#: Float32 signals of so few numbers are NumPy's: what such transforms are compared with (onnx's suite, to
#: 1e-7) has the rounding errors of its algorithm, and there is little to win.
_FEW = 256


# ---- transforms --------------------------------------------------------------------------------------------


@register("DFT", since=20)
class DFT(Op):
    """The discrete Fourier transform along an axis of real [..., 1] or complex [..., 2] signals."""

    def _settings(self, node: ir.Node, inputs: Sequence[Facts | None]) -> tuple[int, int, bool, bool] | None:
        """The axis, the length, and the flags inverse and onesided; None while they are not known."""
        x = need(node, inputs, 0)
        if len(x.shape) < 2 or x.shape[-1] not in (1, 2):
            raise shape_error(node, f"the input {show(x.shape)} is not [..., 1] (real) or [..., 2] (complex)")
        inverse, onesided = bool(attr_int(node, "inverse", 0)), bool(attr_int(node, "onesided", 0))
        axis = -2
        if given(inputs, 2) is not None:
            known = known_ints(node, inputs, 2)
            if known is None:
                return None
            axis = known[0]
        axis = normal_axis(node, axis, len(x.shape))
        if axis == len(x.shape) - 1:
            raise shape_error(node, "the last axis holds the parts of a number, and is not transformed")
        size = x.shape[axis]
        length = 2 * (size - 1) if inverse and onesided else size
        if given(inputs, 1) is not None:
            known = known_ints(node, inputs, 1)
            if known is None:
                return None
            length = known[0]
        if length < 1:
            raise shape_error(node, f"a transform of length {length} of {show(x.shape)} has no elements")
        return axis, length, inverse, onesided

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The length (or half of it and one) in the axis' place; two parts (or one, of a real signal)."""
        settings, x = self._settings(node, inputs), need(node, inputs, 0)
        if settings is None:
            return None
        axis, length, inverse, onesided = settings
        shape = list(x.shape)
        shape[axis] = length // 2 + 1 if onesided and not inverse else length
        shape[-1] = 1 if onesided and inverse else 2
        return [Facts(x.dtype, tuple(shape))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.fft, in the precision of x."""
        x = present(inputs, 0)
        known = [None if a is None else Facts(a.dtype, a.shape, a) for a in inputs]
        settings = self._settings(node, known)
        assert settings is not None
        axis, length, inverse, onesided = settings
        wide = x if x.dtype == np.float32 else widen(x)
        signal = wide[..., 0] if x.shape[-1] == 1 else wide[..., 0] + 1j * wide[..., 1]
        if onesided and inverse:
            return [rounded(np.fft.irfft(signal, length, axis)[..., None], x.dtype)]
        y = (np.fft.ifft if inverse else np.fft.fft)(signal, length, axis)
        if onesided:
            y = np.take(y, range(length // 2 + 1), axis)
        return [rounded(np.stack([y.real, y.imag], -1), x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """See `ops/fourier.py`."""
        x, value = plan.view(first_input(node)), node.outputs[0]
        settings = self._settings(node, [None if v is None else plan.facts(v) for v in node.inputs])
        assert settings is not None
        axis, length, inverse, onesided = settings
        real = onesided and inverse
        few = 0 if x.dtype != np.float32 else _FEW
        if x.dtype.name not in FLOATS or not x.size or max(x.size, length) <= few:
            return False
        parts, taken = x.shape[-1], min(x.shape[axis], length)
        order = [d for d in range(x.rank - 1) if d != axis]
        rest = tuple([x.shape[d] for d in order])
        shape = (*rest, taken, parts)
        strides = [x.strides[d] for d in (*order, axis, x.rank - 1)]
        signal = x.with_dims(shape, strides)
        rows = math.prod(rest)
        flat = signal.reshape((rows, taken * parts))
        if flat is None or flat.strides[1] != 1:
            copied = plan.copied(signal)
            flat = copied.with_dims((rows, taken * parts), (taken * parts, 1))
        facts = plan.facts(value)
        count, width = facts.shape[axis], facts.shape[-1]
        result = plan.temporary((*rest, count, width), facts.dtype)
        lines = result.with_dims((rows, count * width), (count * width, 1))
        transform = Transform(plan, length, x.dtype.name, inverse=inverse)
        if real and length <= _LONGEST:
            key = ("transform", "real", transform.dtype.name, taken, length, parts)
            matrix = plan.pack(key, lambda: _packed_inverse(taken, length, parts, transform.dtype, plan))
            plan.emit(product(flat, matrix, lines, plan.machine))
        elif real:
            wide = plan.temporary((rows, taken, parts), transform.dtype)
            plan.emit(copy(flat.with_dims(wide.shape, (flat.strides[0], parts, 1)), wide, plan.machine))
            spectrum = hermitian(plan, wide, length)
            done = transform.whole(spectrum.with_dims((rows, length * 2), (length * 2, 1)), 2)
            front = done.with_dims((rows, length), done.strides[:2])
            plan.emit(copy(front, lines, plan.machine))
        elif transform.is_one:
            transform.rows(flat, count, parts, lines)
        else:
            whole = plan.temporary((rows, length * parts), transform.dtype)
            plan.emit(copy(flat, _front(whole, 0, taken * parts), plan.machine))
            if taken < length:
                plan.emit(fill(0.0, _front(whole, taken * parts, length * parts), plan.machine))
            done = transform.whole(whole, parts)
            front = done.with_dims((rows, count, 2), done.strides)
            plan.emit(copy(front, lines.with_dims((rows, count, 2), (count * 2, 2, 1)), plan.machine))
        back = [0] * x.rank
        for place, d in enumerate((*order, axis, x.rank - 1)):
            back[d] = place
        plan.alias(value, result.transpose(back))
        return True


def _packed_inverse(rows: int, length: int, parts: int, dtype: np.dtype, plan: Lowering) -> Factor:
    matrix = real_inverse(rows, length)
    return packed(matrix if parts == 2 else matrix[::2], dtype, plan.machine)


def _front(view: View, first: int, last: int) -> View:
    return view.with_dims((view.shape[0], last - first), view.strides, first)


@register("STFT", since=17)
class STFT(Op):
    """The transforms of overlapping frames of signals [B, length, 1 or 2]: [B, frames, spectrum, 2].

    Exporters leave the last dimension of real signals off, and runtimes take them so.
    """

    def _frames(self, node: ir.Node, inputs: Sequence[Facts | None]) -> tuple[int, int, int] | None:
        """Their length, step and number; None while they are not known."""
        x, step, window = need(node, inputs, 0), known_ints(node, inputs, 1), given(inputs, 2)
        if len(x.shape) not in (2, 3) or (len(x.shape) == 3 and x.shape[2] not in (1, 2)):
            raise shape_error(node, f"the signal {show(x.shape)} is not [B, length, 1] or [B, length, 2]")
        if step is None:
            return None
        length = x.shape[1] if window is None else window.shape[0]
        if given(inputs, 3) is not None:
            known = known_ints(node, inputs, 3)
            if known is None:
                return None
            length = known[0]
        if step[0] < 1 or not 1 <= length <= x.shape[1] or (window is not None and window.shape != (length,)):
            raise shape_error(
                node,
                f"frames of {length} elements every {step[0]} do not fit signal {show(x.shape)} and window",
            )
        return length, step[0], 1 + (x.shape[1] - length) // step[0]

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Half of the spectrum and one where it is onesided."""
        frames, x = self._frames(node, inputs), need(node, inputs, 0)
        if frames is None:
            return None
        length, _, count = frames
        onesided = attr_int(node, "onesided", 1)
        if onesided and x.shape[2:] == (2,):
            raise ModelError(f"{label(node)}: a complex signal has no onesided spectrum. Set onesided to 0.")
        return [Facts(x.dtype, (x.shape[0], count, length // 2 + 1 if onesided else length, 2))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.fft of all frames at once, in float64."""
        x, window = present(inputs, 0), given(inputs, 2)
        known = [None if a is None else Facts(a.dtype, a.shape, a) for a in inputs]
        frames = self._frames(node, known)
        assert frames is not None
        length, step, count = frames
        wide = widen(x if x.ndim == 3 else x[..., None])
        signal = wide[..., 0] if wide.shape[2] == 1 else wide[..., 0] + 1j * wide[..., 1]
        at = np.arange(count)[:, None] * step + np.arange(length)
        parts = signal[:, at] * (1.0 if window is None else widen(window))
        y = np.fft.fft(parts, axis=-1)
        y = y[..., : length // 2 + 1] if attr_int(node, "onesided", 1) else y
        return [rounded(np.stack([y.real, y.imag], -1), x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Frames are overlapping views of the signal, and a known window is part of the matrix."""
        x, value = plan.plain(first_input(node)), node.outputs[0]
        inputs = [*node.inputs, None, None][:4]
        frames = self._frames(node, [None if v is None else plan.facts(v) for v in inputs])
        assert frames is not None
        length, step, count = frames
        if x.dtype.name not in FLOATS or x.size == 0:
            return False
        batch, size, parts = (*x.shape, 1)[:3]
        own = (batch, count, length * parts)
        view = x.with_dims(own, (size * parts, step * parts, 1))
        window, known = inputs[2], plan.constant(inputs[2])
        out = plan.output(value)
        spectrum = out.shape[2]
        transform = Transform(plan, length, x.dtype.name)
        wide = transform.dtype
        if transform.is_one and (window is None or known is not None):
            flat = out.reshape((batch, count, spectrum * 2))
            target = flat if flat is not None else plan.temporary((batch, count, spectrum * 2), out.dtype)
            weights = None if known is None else widen(known)
            key = ("frames", window) if window is not None and window.is_initializer() else None
            if key is None:
                transform.rows(view, spectrum, parts, target, weights)
            else:
                cos, sin = waves(length, spectrum, length, False)
                assert weights is not None

                def make() -> Factor:
                    matrix = matrix_of(cos * weights[:, None], sin * weights[:, None], parts)
                    return packed(matrix, wide, plan.machine)

                factor = plan.pack((*key, spectrum, parts), make)
                plan.emit(product(view, factor, target, plan.machine))
            if flat is None:
                whole = target.reshape(out.shape)
                assert whole is not None
                plan.emit(copy(whole, out, plan.machine))
            return True
        whole = plan.temporary((batch * count, length * parts), wide)
        shape = (batch, count, length, parts)
        target = whole.with_dims(shape, row_major(shape))
        source = x.with_dims(shape, (size * parts, step * parts, parts, 1))
        if window is None:
            plan.emit(copy(source, target, plan.machine))
        else:
            factors = plan.view(window).with_dims((length, 1), (plan.view(window).strides[0], 0))
            dtype = x.dtype.name
            steps = (
                Step("Cast", (0,), wide.name),
                Step("Cast", (1,), wide.name),
                Step("Mul", (2, 3), wide.name),
            )
            weigh = expression_of((dtype, dtype), steps, (4,))
            plan.emit(elementwise(weigh, [source, factors], [target], plan.machine))
        if transform.is_one:
            done = plan.temporary((batch * count, spectrum * 2), wide)
            transform.rows(whole, spectrum, parts, done)
            strides = (count * spectrum * 2, spectrum * 2, 2, 1)
        else:
            done = transform.whole(whole, parts)
            strides = (count * length * 2, length * 2, 2, 1)
        plan.emit(copy(done.with_dims(out.shape, strides), out, plan.machine))
        return True


# ---- tables ------------------------------------------------------------------------------------------------


class _Table(Op):
    """Numbers that follow from scalars alone: they are made while planning."""

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A constant."""
        inputs = [plan.constant(v) for v in node.inputs]
        plan.alias(node.outputs[0], constant(self.evaluate(node, inputs)[0]))
        return True


class _Window(_Table):
    """A sum of cosines over `size` places; of a periodic one the next place would be the first again."""

    terms: ClassVar[tuple[float, ...]]

    def _dtype(self, node: ir.Node) -> np.dtype:
        return ir.DataType(attr_int(node, "output_datatype", 1)).numpy()

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while the size is."""
        size = known_ints(node, inputs, 0)
        if size is None:
            return None
        if len(size) != 1 or size[0] < 0:
            raise shape_error(node, f"{show(size)} is no number of places")
        return [Facts(self._dtype(node), (size[0],))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By the formula."""
        size = int(present(inputs, 0).reshape(()))
        period = size if attr_int(node, "periodic", 1) else size - 1
        with np.errstate(invalid="ignore"):  # the only place of a symmetric window: 0 / 0, as it is defined
            angle = 2.0 * np.pi * (np.arange(size) / period)
        return [rounded(sum(c * np.cos(i * angle) for i, c in enumerate(self.terms)), self._dtype(node))]


@register("HannWindow", since=17)
class HannWindow(_Window):
    """½ - ½ cos."""

    terms = (0.5, -0.5)


@register("HammingWindow", since=17)
class HammingWindow(_Window):
    """25/46 - 21/46 cos."""

    terms = (25.0 / 46.0, -21.0 / 46.0)


@register("BlackmanWindow", since=17)
class BlackmanWindow(_Window):
    """0.42 - 0.5 cos + 0.08 cos of twice the angle."""

    terms = (0.42, -0.5, 0.08)


@register("MelWeightMatrix", since=17)
class MelWeightMatrix(_Table):
    """Triangles over a spectrum, evenly spaced on the mel scale: [dft_length / 2 + 1, num_mel_bins]."""

    def _dtype(self, node: ir.Node) -> np.dtype:
        return ir.DataType(attr_int(node, "output_datatype", 1)).numpy()

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while one of the scalars is."""
        facts = [need(node, inputs, i) for i in range(5)]
        if not all(f.is_known for f in facts):
            return None
        bins, length = (int(f.value.reshape(())) for f in facts[:2] if f.value is not None)
        return [Facts(self._dtype(node), (length // 2 + 1, bins))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The rising and the falling side of each triangle, between three neighbouring frequencies."""
        bins, length, rate = (int(present(inputs, i).reshape(())) for i in range(3))
        low, high = (float(present(inputs, i).reshape(())) for i in (3, 4))
        mel_low, mel_high = (2595.0 * math.log10(1.0 + f / 700.0) for f in (low, high))
        # The step is that of onnx.reference: the range through the number of edges, not of gaps.
        mel = mel_low + np.arange(bins + 2) * ((mel_high - mel_low) / (bins + 2))
        hertz = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
        edges = ((length + 1) * hertz // rate).astype(np.int64)
        left, centre, right = edges[:-2], edges[1:-1], edges[2:]
        at = np.arange(length // 2 + 1)[:, None]
        with np.errstate(all="ignore"):
            rise = np.where(centre == left, at == centre, (at - left) / (centre - left))
            fall = (right - at) / (right - centre)
        rise = np.where((at >= left) & (at <= centre), rise, 0.0)
        result = np.where((right > centre) & (at >= centre) & (at < right), fall, rise)
        return [rounded(result, self._dtype(node))]
