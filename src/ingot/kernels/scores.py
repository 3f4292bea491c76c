"""What the kernels of attention share: their arguments, how a mask is reached, and the exponential of a
score.

Scores are kept times log2(e), so that a power of two is their exponential, unless there is a mask of numbers:
one near the lowest float32 would become -inf.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ingot.codegen.builder import F32, I32, Builder, Int, Value, lanes_of, vector
from ingot.codegen.lanes import Lanes

SLOTS = (
    "q", "q_batch", "q_head", "q_row",
    "k", "k_batch", "k_head", "k_row",
    "v", "v_batch", "v_head", "v_row",
    "out", "out_batch", "out_head", "out_row",
    "mask", "mask_batch", "mask_head", "mask_row", "mask_key",
    "heads", "heads_per_key_head", "queries", "keys", "blocks", "block_keys",
    "scale", "softcap", "causal_offset", "packed",
)  # fmt: skip


LOG2E = 1.4426950408889634
# 2^f = 1 + f P(f) for |f| <= 1/2: a minimax fit of the relative error (2^-23.4), lowest degree first.
_EXP2 = (
    *(0.6931470036506653, 0.24022242426872253, 0.05550733581185341),
    *(0.009671512991189957, 0.001326472731307149),
)
_ROUND = 12582912.0  # 1.5 · 2^23: adding it leaves the integer part in the low bits


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask's dtype, and how it is reached: "repeated" has one value for all queries, "rows" has
    neighbouring keys side by side, "strided" is neither.
    """

    dtype: str
    reach: Literal["repeated", "rows", "strided"]

    def bias(self, k: Builder, value: Value) -> Value:
        """An element as a number to add to a score: of a boolean 0 or -inf."""
        if self.dtype != "bool":
            return value
        type_ = vector(F32, lanes_of(value.type))
        return k.ir.select(value, k.splat(0.0, type_), k.splat(float("-inf"), type_))

    def applied(self, k: Builder, score: Value, bias: Value) -> Value:
        """A score under a mask's number. What a boolean hides is -inf, also where the score is none."""
        if self.dtype != "bool":
            return k.ir.fadd(score, bias)
        return k.ir.select(k.ir.fcmp_ordered("==", bias, k.zero(bias.type)), score, bias)


def start_of(k: Builder, name: str, batch: Int, head: Int, element: object = F32) -> Value:
    """The address of a head's first row of the operand `name`."""
    offset = k.add(k.mul(batch, k.arg(f"{name}_batch")), k.mul(head, k.arg(f"{name}_head")))
    return k.at(k.pointer(name), offset, element)


def number(k: Builder, name: str) -> Value:
    """The argument `name`, a float32 that travels as its bits."""
    return k.ir.bitcast(k.ir.trunc(k.arg(name), I32), F32)


def exp2(k: Builder, x: Value, bits: int = 0) -> Value:
    """2^(x + bits) for x <= 0, exactly 0 below 2^-127; NaN stays NaN. Within 3 ULP."""
    bias = 127.0 + bits
    y = Lanes(k, x).at_least(-bias)
    shifted = y + (_ROUND + bias)
    fraction = y - (shifted - (_ROUND + bias))
    power = (shifted.bits() << 23).floats()
    return (fraction.polynomial((1.0, *_EXP2)) * power).value


def weight_of(k: Builder, score: Value, shift: Value, is_binary: bool) -> Value:
    """exp(score - shift) for a shift that is at least the score; `is_binary`: both are times log2(e)."""
    below: Value = k.ir.fsub(score, shift)
    return exp2(k, below if is_binary else k.ir.fmul(below, k.splat(LOG2E, below.type)))
