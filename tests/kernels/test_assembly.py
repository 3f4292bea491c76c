"""What looks at assembly: loops by the flow of control, and what of them touches the stack."""

from __future__ import annotations

from ingot.codegen import cache
from tests.kernels.assembly import Spills, loops, products, spills, spills_in_loops, work
from tests.kernels.variants import MACHINES, lacks, variants

_X86 = """
kernel:
	vmovups	%zmm9, 64(%rsp)
.LBB0_1:
	xorl	%eax, %eax
	jmp	.LBB0_3
.LBB0_4:
	vmovups	%zmm1, 128(%rsp)
	jmp	.LBB0_5
.LBB0_3:
	vfmadd231ps	(%rdi,%rax,4){1to16}, %zmm2, %zmm1
	vmulps	64(%rsp), %zmm1, %zmm3
	movq	%rax, 8(%rsp)
	testq	%rsi, %rsi
	je	.LBB0_4
.LBB0_5:
	incq	%rax
	cmpq	%rcx, %rax
	jne	.LBB0_3
	vaddps	%zmm4, %zmm1, %zmm1
	vmovups	%zmm1, (%rdx)
	decq	%r8
	jne	.LBB0_1
	vmovups	64(%rsp), %zmm9
	retq
"""

_ARM = """
kernel:
	stp	d15, d14, [sp, #64]
.LBB0_1:
	ldr	q3, [sp, #16]
	fmla	v0.4s, v3.4s, v1.s[0]
	str	q0, [sp, #32]
	ldr	x9, [sp, #8]
	subs	x8, x8, #1
	b.ne	.LBB0_1
.LBB0_2:
	bl	exp
	str	q0, [sp, #32]
	cbnz	x9, .LBB0_2
	ldp	d15, d14, [sp, #64]
	ret
"""


def test_loops_of_x86() -> None:
    """A block out of line belongs to the loop that it returns to; an outer loop has what is only its own."""
    outer, inner = loops(_X86)
    assert (outer.innermost, products(outer), work(outer), spills(outer, _X86)) == (False, 0, 1, Spills())
    assert (inner.innermost, products(inner), work(inner), spills(inner, _X86)) == (True, 2, 1, Spills(1, 1))
    assert spills_in_loops(_X86, 2) == 2


def test_loops_of_aarch64() -> None:
    """What is saved at the function's ends is no spill, and neither is what is alive across a call."""
    (loop,) = loops(_ARM)
    assert (loop.innermost, products(loop), spills(loop, _ARM)) == (True, 1, Spills(1, 1))


def test_a_tile_that_is_too_large_is_found() -> None:
    """Sixteen registers do not hold fourteen rows of two vectors."""
    machine = MACHINES["avx2"]
    if lacks(machine) is None:
        wide = [
            v.kernel for v in variants(MACHINES["avx512"]) if v.kernel.generator == "kernels.contract.tile"
        ]
        tile = next(k for k in wide if dict(k.params)["columns"] == 14 and dict(k.params)["vectors"] == 2)
        assert spills_in_loops(cache.native_assembly(tile, machine), 28) > 28
