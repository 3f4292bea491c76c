"""Fourier transforms as ONNX DFT over pairs of real numbers, and the short-time transform made of them."""

# Rules take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture import fakes
from ingot.capture.aten.registry import instead, row
from ingot.capture.aten.shape import END, slice_values
from ingot.capture.complex_numbers import Pair, as_pairs, from_pairs, rule

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
_LEAST_WEIGHT = 1e-11  # torch.istft's
_VF: Any = torch._VF  # its functions come from C++ and are unknown to type checkers


def _dft(g: Recorder, x: ir.Value, axis: int, *, inverse: bool = False, onesided: bool = False) -> ir.Value:
    """One axis of [.., 1 or 2]; the inverse divides by its length. ONNX wants an axis before the signal's."""
    flags = {"inverse": int(inverse), "onesided": int(onesided)}
    first = axis == 0
    if first:
        x, axis = g.op("Unsqueeze", x, g.const([0])), 1
    y = g.op("DFT", x, None, g.const(axis), **flags) if g.opset >= 20 else g.op("DFT", x, axis=axis, **flags)
    return g.op("Squeeze", y, g.const([0])) if first else y


def _scaled(
    g: Recorder, x: ir.Value, lengths: Sequence[Any], mode: int, inverse: bool, dtype: torch.dtype
) -> ir.Value:
    """torch's normalisation (0 none, 1 by √n, 2 by n), where ONNX has divided inverse transforms by n."""
    if mode == (2 if inverse else 0):
        return x
    n = g.operand(functools.reduce(operator.mul, lengths, 1), dtype)
    if mode == 1:
        n = g.op("Sqrt", n)
    return g.op("Mul" if inverse else "Div", x, n)


@rule("_fft_r2c")
def real_to_complex(g: Recorder, func: Any, a: Tensor, dim: Sequence[int], mode: int, onesided: bool) -> Pair:
    """The last of the axes from real numbers, the others on what it gives."""
    axes = [d % a.dim() for d in dim]
    x = g.op("Unsqueeze", g.val(a), g.const([-1]))
    x = _dft(g, x, axes[-1], onesided=onesided)
    for axis in axes[:-1]:
        x = _dft(g, x, axis)
    shape = list(a.shape)
    if onesided:
        shape[axes[-1]] = shape[axes[-1]] // 2 + 1
    x = _scaled(g, x, [a.shape[d] for d in axes], mode, False, a.dtype)
    if len(axes) == 1:
        real = g.recorded(_real_by_nature, shape[axes[0]], a.shape[axes[0]], a.dim() - 1 - axes[0])
        x = g.op("Where", g.val(real), g.const(0, a.dtype), x)
    return from_pairs(g, x, shape, a.dtype)


def _real_by_nature(count: Any, size: Any, behind: int) -> Tensor:
    """The imaginary parts that are 0 in a transform of real numbers: at the first and the middle frequency.

    Runtimes leave the rounding of a complex transform there, and the angle of a negative number is then on
    either side of the cut.
    """
    at = torch.arange(count)
    real = (at == 0) | (at * 2 == size)
    return real.reshape([-1, *[1] * behind, 1]) & torch.tensor([False, True])


@rule("_fft_c2c")
def complex_to_complex(
    g: Recorder, func: Any, a: Tensor, dim: Sequence[int], mode: int, forward: bool
) -> Pair:
    """Every axis in turn."""
    pairs = as_pairs(g, a)
    x, axes = g.val(pairs), [d % a.dim() for d in dim]
    for axis in axes:
        x = _dft(g, x, axis, inverse=not forward)
    x = _scaled(g, x, [a.shape[d] for d in axes], mode, not forward, pairs.dtype)
    return from_pairs(g, x, a.shape, pairs.dtype)


@rule("_fft_c2r")
def complex_to_real(g: Recorder, func: Any, a: Tensor, dim: Sequence[int], mode: int, size: Any) -> Tensor:
    """The inverse of a half spectrum: its other half is the conjugate of the first, backwards."""
    pairs = as_pairs(g, a)
    x, axes, dtype = g.val(pairs), [d % a.dim() for d in dim], pairs.dtype
    for axis in axes[:-1]:
        x = _dft(g, x, axis, inverse=True)
    last = axes[-1]
    half = size // 2 + 1
    x = slice_values(g, x, last, 0, half)
    rest = slice_values(g, x, last, 1, (size + 1) // 2)
    rest = g.op("Slice", rest, g.const([-1]), g.const([-END]), g.const([last]), g.const([-1]))
    rest = g.op("Mul", rest, g.const([1.0, -1.0], dtype))
    x = _dft(g, g.op("Concat", x, rest, axis=last), last, inverse=True)
    x = g.op("Gather", x, g.const(0), axis=-1)
    shape = [*a.shape]
    shape[last] = size
    x = _scaled(g, x, [shape[d] for d in axes], mode, True, dtype)
    made = fakes.fresh(g.mode, shape, dtype, a.device)
    g.bind(made, x)
    return made


@row("unfold_backward")
def overlap_add(
    g: Recorder, out: Tensor, a: Tensor, sizes: Sequence[Any], dim: int, size: int, step: int
) -> ir.Value:
    """Windows added up where they overlap: the transpose of unfold."""
    from ingot.capture.aten.windows import window_indices

    axis, rank = dim % len(sizes), len(sizes)
    # [.., windows, .., size] to [windows, size, ..], and zeros with the axis in front.
    others = [d for d in range(rank) if d != axis]
    x = g.op("Transpose", g.val(a), perm=[axis, rank, *others])
    lead = [sizes[d] for d in others]
    if not all(g.same_size(a.shape[d], sizes[d]) for d in others):  # torch's istft has one envelope for all
        x = g.op("Expand", x, g.shape([a.shape[axis], size, *lead]))
    at = g.op("Unsqueeze", window_indices(g, a.shape[axis], step, size, 1), g.const([-1]))
    zeros = g.op("Expand", g.const(0, a.dtype), g.shape([sizes[axis], *lead]))
    total = g.op("ScatterND", zeros, at, x, reduction="add")
    order = [axis, *others]
    return g.op("Transpose", total, perm=[order.index(d) for d in range(rank)])


@instead(_VF.stft)
def stft(
    x: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Tensor:
    """torch.stft after its padding: windows of the signal, each transformed; [.., frequencies, frames]."""
    hop = n_fft // 4 if hop_length is None else hop_length
    taper = _taper(n_fft, win_length, window, x)
    if align_to_window:  # the first window begins at the first element, not the first frame
        around = n_fft - (n_fft if win_length is None else win_length)
        x = torch.constant_pad_nd(x, [around // 2, around - around // 2])
    frames = x.unfold(-1, n_fft, hop) * taper
    norm = "ortho" if normalized else "backward"
    half = not (x.is_complex() or taper.is_complex()) if onesided is None else onesided
    spectrum = torch.fft.rfft(frames, dim=-1, norm=norm) if half else torch.fft.fft(frames, dim=-1, norm=norm)
    spectrum = spectrum.transpose(-1, -2)
    return spectrum if return_complex is not False else torch.view_as_real(spectrum)


@instead(_VF.istft)
def istft(
    x: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Tensor:
    """torch.istft: frames transformed back, added up where they overlap, and divided by what the windows add
    up to; `length` may follow the signal's.
    """
    hop = n_fft // 4 if hop_length is None else hop_length
    spectrum = x if x.is_complex() else torch.view_as_complex(x)
    taper = _taper(n_fft, win_length, window, spectrum)
    single = spectrum.dim() == 2
    frames = (spectrum.unsqueeze(0) if single else spectrum).transpose(1, 2)
    norm = "ortho" if normalized else "backward"
    if return_complex:
        parts = torch.fft.ifft(frames, n_fft, norm=norm)
    else:
        half = frames if onesided is not False else frames[..., : n_fft // 2 + 1]
        parts = torch.fft.irfft(half, n_fft, norm=norm)
    whole = n_fft + hop * (frames.shape[1] - 1)
    total = _overlapped(parts * taper, whole, n_fft, hop)
    weights = _overlapped((taper * taper).expand(1, frames.shape[1], n_fft), whole, n_fft, hop)
    begin = n_fft // 2 if center else 0
    end = whole - begin if length is None else begin + length
    total, weights = total[:, begin:end], weights[:, begin:end]
    torch.ops.aten._assert_async.msg(
        (weights.abs() > _LEAST_WEIGHT).all(), "torch.istft: the windows add up to more than 0 everywhere"
    )
    total = total / weights
    if length is not None:  # zeros where no frame reaches
        total = torch.constant_pad_nd(total, [0, length - total.shape[1]])
    return total.squeeze(0) if single else total


def _taper(n_fft: int, win_length: int | None, window: Tensor | None, like: Tensor) -> Tensor:
    """The window, or ones, in the middle of a frame."""
    length = n_fft if win_length is None else win_length
    taper = window
    if taper is None:
        taper = torch.ones(length, dtype=like.real.dtype if like.is_complex() else like.dtype)
    left = (n_fft - length) // 2
    return torch.constant_pad_nd(taper, [left, n_fft - length - left]) if length < n_fft else taper


def _overlapped(frames: Tensor, length: int, size: int, step: int) -> Tensor:
    """[.., frames, size] added up at every `step`: [.., length]."""
    return torch.ops.aten.unfold_backward(frames, [frames.shape[0], length], 1, size, step)
