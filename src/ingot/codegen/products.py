"""Sums of products of small integers: each 32-bit lane takes four products of bytes, or two of 16 bits.

Operands are vectors of 32-bit integers that hold four bytes or two 16-bit integers each. Sums wrap at 32 bits
and never saturate on the way.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from ingot.codegen.builder import I8, I32, Builder, Value, lanes_of, vector
from ingot.codegen.elements import I16


def add_bytes(k: Builder, sums: Value, unsigned: Value, signed: Value) -> Value:
    """sums + Σ unsigned[i] · signed[i] over the four bytes of each lane; see `Machine.byte_products`."""
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes_of(sums.type)}"
    function = k.declare(name, sums.type, [sums.type] * 3)
    return k.ir.call(function, [sums, unsigned, signed])


def add_few_bits(k: Builder, sums: Value, unsigned: Value, signed: Value) -> Value:
    """`add_bytes` of unsigned bytes below 16, on any machine: two products of theirs fit 16 bits."""
    if k.machine.byte_products:
        return add_bytes(k, sums, unsigned, signed)
    lanes = lanes_of(sums.type)
    bits, features = 32 * lanes, k.machine.features.split(",")
    name = {512: "avx512.pmaddubs.w.512", 256: "avx2.pmadd.ub.sw", 128: "ssse3.pmadd.ub.sw.128"}[bits]
    if bits > 128 or "+ssse3" in features:
        bytes_, words = vector(I8, 4 * lanes), vector(I16, 2 * lanes)
        function = k.declare(f"llvm.x86.{name}", words, [bytes_, bytes_])
        both = k.ir.call(function, [k.ir.bitcast(x, bytes_) for x in (unsigned, signed)])
        return add_pairs(k, sums, k.ir.bitcast(both, sums.type), k.splat(1 << 16 | 1, sums.type))
    for shift in (0, 8, 16, 24):
        left = k.ir.and_(k.ir.lshr(unsigned, k.splat(shift, sums.type)), k.splat(255, sums.type))
        right = k.ir.ashr(k.ir.shl(signed, k.splat(24 - shift, sums.type)), k.splat(24, sums.type))
        sums = k.ir.add(sums, k.ir.mul(left, right))
    return sums


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
