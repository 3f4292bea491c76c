"""What code generation must know of a CPU: vector width, registers, features, cache sizes. No kernel asks for
an ISA by name.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ingot.codegen.cpu import this_cpu
from ingot.errors import IngotError

if TYPE_CHECKING:
    from llvmlite.binding import TargetMachine  # pyright: ignore[reportMissingTypeStubs]

# Each level switches off what is newer. INGOT_ISA=avx2 runs (and tests) the narrower kernels on a wider
# machine.
_MASKED = {
    "amx": (),
    "avx512": ("amx",),
    "avx2": ("avx512", "evex512", "avx10", "amx", "avxvnni"),
    "sse": ("avx512", "evex512", "avx10", "amx", "avx", "fma", "f16c", "xop", "vaes", "vpclmulqdq"),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """A CPU as the kernels see it. `features` is LLVM's comma-separated list, e.g. "+avx2,+fma"."""

    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    fma: bool
    l1_bytes: int
    l2_bytes: int
    #: whether 8-bit integers can be multiplied in tile registers (Intel AMX), by this process
    tiles: bool = False
    #: plans ask for what is known for a machine thousands of times
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        own = (self.triple, self.cpu, self.features, self.vector_bytes, self.registers, self.fma, self.tiles)
        object.__setattr__(self, "_hash", hash(own))

    def __hash__(self) -> int:
        return self._hash

    @property
    def lanes(self) -> int:
        """float32 values in a vector register."""
        return self.vector_bytes // 4

    @property
    def permutes(self) -> bool:
        """Whether one instruction permutes the float32 lanes of a vector by an index vector."""
        return self.permutation(4) == (self.vector_bytes, 4)

    def permutation(self, itemsize: int) -> tuple[int, int] | None:
        """How `Builder.permute` moves elements of 1, 2 or 4 bytes by an index vector: the bytes of the widest
        vector it permutes, and of each unit that it moves. None where there is no such instruction.
        """
        features = self.features.split(",")
        if self.vector_bytes == 64 and (itemsize > 1 or "+avx512vbmi" in features):
            return 64, itemsize
        if self.vector_bytes == 32 and itemsize == 4 and "+avx2" in features:
            return 32, 4
        is_x86 = self.triple.startswith(("x86", "i686"))
        return (16, 1) if self.vector_bytes > 16 or "+ssse3" in features or not is_x86 else None

    @property
    def byte_products(self) -> bool:
        """Whether one instruction adds the products of four unsigned and four signed bytes to each 32-bit
        lane (Intel's VNNI; it does the same with pairs of 16-bit integers).
        """
        wanted = {64: ("+avx512vnni",), 32: ("+avx512vnni", "+avxvnni")}.get(self.vector_bytes, ())
        return any(feature in self.features.split(",") for feature in wanted)

    @property
    def fingerprint(self) -> str:
        """Equal for machines that may share object code."""
        return f"{self.triple}|{self.cpu}|{self.features}|{self.vector_bytes}|{self.l1_bytes}|{self.l2_bytes}"

    def target(self) -> TargetMachine:
        """LLVM's target machine for this CPU."""
        from ingot.codegen import llvm

        return llvm.target(self.triple, self.cpu, self.features)


def _cache_bytes() -> tuple[int, int]:
    """Sizes of this core's first two data caches, from Linux; usual ones where the system does not tell."""
    sizes = {"1": 32 << 10, "2": 512 << 10}
    with contextlib.suppress(OSError, ValueError):
        for number in range(16):  # until there is no such file
            folder = f"/sys/devices/system/cpu/cpu0/cache/index{number}/"
            level, kind = _line(folder + "level"), _line(folder + "type")
            if level in sizes and kind != "Instruction":
                sizes[level] = int(_line(folder + "size").removesuffix("K")) * 1024
    return sizes["1"], sizes["2"]


def _line(path: str) -> str:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123  (pathlib takes as long as the reading)
        return file.read().strip()


@functools.cache
def _tiles_allowed() -> bool:
    """Ask Linux to let this process use tile registers: their state is large, so it is not kept unasked."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18  # Linux, Documentation/arch/x86/xstate.rst
    return ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0


def masked(isa: str | None = None) -> str | None:
    """What `isa`, or else the environment's INGOT_ISA, masks, in small letters; None: nothing.

    Raises IngotError for another name.
    """
    level = (isa or os.environ.get("INGOT_ISA", "")).strip().lower() or None  # set to nothing: not set
    if level is not None and level not in _MASKED:
        raise IngotError(f"INGOT_ISA is {level!r}; it may be one of {', '.join(_MASKED)}")
    return level


@functools.cache
def host(isa: str | None = None) -> Machine:
    """The CPU in front of us. `isa` (or the environment's INGOT_ISA) masks what is newer: "amx", "avx512",
    "avx2", "sse", in small letters or capitals.

    Raises IngotError for another name, or where the CPU lacks what was asked for.
    """
    level = masked(isa)
    cpu = this_cpu()
    available = {name for name, on in cpu.features.items() if on}
    enabled = {name for name in available if not name.startswith(_MASKED[level] if level else ())}
    is_x86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
    if is_x86 and level == "avx512" and "avx512f" not in enabled:
        raise IngotError("INGOT_ISA is 'avx512', and this CPU has no AVX-512; unset it or say avx2")
    if is_x86 and level == "avx2" and not {"avx2", "fma"} <= enabled:
        raise IngotError("INGOT_ISA is 'avx2', and this CPU has no AVX2 with FMA; unset it or say sse")
    if not is_x86:
        vector_bytes, registers, fma = 16, 32, True  # AArch64: FMA is part of the base set
    elif {"avx512f", "avx512vl", "avx512bw", "avx512dq", "fma"} <= enabled:
        vector_bytes, registers, fma = 64, 32, True
    elif {"avx2", "fma"} <= enabled:
        vector_bytes, registers, fma = 32, 16, True
    else:
        vector_bytes, registers, fma = 16, 16, False
    tiles = {"amx-tile", "amx-int8"} <= enabled and vector_bytes == 64 and _tiles_allowed()
    if level == "amx" and not tiles:
        raise IngotError("INGOT_ISA is 'amx', and this CPU or system has no AMX; unset it or say avx512")
    marks = [f"+{name}" if name in enabled else f"-{name}" for name in sorted(cpu.features)]
    if vector_bytes == 64:
        marks.append("-prefer-256-bit")  # LLVM's tuning would split every 512-bit vector in two
    l1_bytes, l2_bytes = _cache_bytes()
    return Machine(
        triple=cpu.triple,
        # Under a mask the host's name would bring the masked features back.
        cpu=cpu.name if level in (None, "amx") else ("x86-64" if is_x86 else "generic"),
        features=",".join(marks),
        vector_bytes=vector_bytes,
        registers=registers,
        fma=fma,
        l1_bytes=l1_bytes,
        l2_bytes=l2_bytes,
        tiles=tiles,
    )
