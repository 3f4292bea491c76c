"""Sums of products of small integers: each 32-bit lane takes four products of bytes, or two of 16 bits.

Operands are vectors of 32-bit integers that hold four bytes or two 16-bit integers each. Sums wrap at 32 bits
and never saturate on the way.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from ingot.codegen.builder import I32, Builder, Value, lanes_of, vector
from ingot.codegen.elements import I16


def add_bytes(k: Builder, sums: Value, unsigned: Value, signed: Value) -> Value:
    """sums + Σ unsigned[i] · signed[i] over the four bytes of each lane; see `Machine.byte_products`."""
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes_of(sums.type)}"
    function = k.declare(name, sums.type, [sums.type] * 3)
    return k.ir.call(function, [sums, unsigned, signed])


def add_pairs(k: Builder, sums: Value, a: Value, b: Value) -> Value:
    """sums + a[0] · b[0] + a[1] · b[1], of signed 16-bit integers in each lane."""
    lanes = lanes_of(sums.type)
    bits = 32 * lanes
    if k.machine.byte_products:
        function = k.declare(f"llvm.x86.avx512.vpdpwssd.{bits}", sums.type, [sums.type] * 3)
        return k.ir.call(function, [sums, a, b])
    if k.machine.triple.startswith(("x86", "i686")):
        name = {512: "avx512.pmaddw.d.512", 256: "avx2.pmadd.wd", 128: "sse2.pmadd.wd"}[bits]
        halves = vector(I16, 2 * lanes)
        function = k.declare(f"llvm.x86.{name}", sums.type, [halves, halves])
        return k.ir.add(sums, k.ir.call(function, [k.ir.bitcast(x, halves) for x in (a, b)]))
    half = k.splat(16, vector(I32, lanes))
    for left, right in ((a, b), (k.ir.shl(a, half), k.ir.shl(b, half))):
        sums = k.ir.add(sums, k.ir.mul(k.ir.ashr(left, half), k.ir.ashr(right, half)))
    return sums
