"""What LLVM knows of this CPU: its name, its features, the triple of this process.

LLVM takes a tenth of a second and 40 MB to say so, and says the same every time. So its answer is kept on
disk for the same CPU: on x86-64 it depends on nothing but what the instructions cpuid and xgetbv give (and
LLVM's version), and a few instructions of our own read those. Elsewhere LLVM is asked each time.
"""
# llvmlite has no type information.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import ctypes
import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from typing import Any

import llvmlite

from ingot.codegen import linker, store

#: Leaves and subleaves of cpuid that describe features, with which of EAX, EBX, ECX and EDX to look at:
#: the others depend on the core, or on what is switched on at the moment.
_LEAVES = (
    (0x1, 0, "acd"), (0x7, 0, "abcd"), (0x7, 1, "abcd"), (0x7, 2, "abcd"), (0xD, 1, "a"), (0x14, 0, "b"),
    (0x19, 0, "b"), (0x1E, 1, "a"), (0x24, 0, "ab"),
    (0x80000001, 0, "acd"), (0x80000007, 0, "d"), (0x80000008, 0, "b"), (0x80000021, 0, "ab"),
)  # fmt: skip
_OSXSAVE = 1 << 27  # in ECX of leaf 1: xgetbv may be asked

_PROBE = """
define void @probe(i32 %leaf, i32 %subleaf, ptr %out) {
  %all = call { i32, i32, i32, i32 }
    asm sideeffect "cpuid", "={ax},={bx},={cx},={dx},{ax},{cx}"(i32 %leaf, i32 %subleaf)
  %a = extractvalue { i32, i32, i32, i32 } %all, 0
  %b = extractvalue { i32, i32, i32, i32 } %all, 1
  %c = extractvalue { i32, i32, i32, i32 } %all, 2
  %d = extractvalue { i32, i32, i32, i32 } %all, 3
  store i32 %a, ptr %out
  %p1 = getelementptr i32, ptr %out, i64 1
  store i32 %b, ptr %p1
  %p2 = getelementptr i32, ptr %out, i64 2
  store i32 %c, ptr %p2
  %p3 = getelementptr i32, ptr %out, i64 3
  store i32 %d, ptr %p3
  ret void
}

define i32 @allowed() {
  %both = call { i32, i32 } asm sideeffect "xgetbv", "={ax},={dx},{cx}"(i32 0)
  %low = extractvalue { i32, i32 } %both, 0
  ret i32 %low
}
"""


@dataclass(frozen=True, slots=True)
class Cpu:
    """LLVM's answer. features: of those that such a CPU may have, whether it has them."""

    triple: str
    name: str
    features: dict[str, bool]


def this_cpu() -> Cpu:
    """The CPU in front of us, as LLVM sees it."""
    signature = _signature() if linker.IS_KNOWN else None
    if signature is None:
        return _ask()
    form = ",".join(Cpu.__dataclass_fields__)  # versions of ours may share the directory
    key = hashlib.sha256(f"{llvmlite.__version__}|{form}|".encode() + signature).hexdigest()[:40]
    path = store.directory() / "machines" / f"{key}.json"
    kept = store.read(path)
    if kept is not None:
        return Cpu(**json.loads(kept))
    cpu = _ask()
    store.write(path, json.dumps(asdict(cpu)).encode())
    return cpu


def _ask() -> Cpu:
    from ingot.codegen import llvm

    return Cpu(llvm.triple(), llvm.host_name(), llvm.host_features())


def _signature() -> bytes | None:
    """What cpuid and xgetbv say of features. None where generated code may not run: LLVM will tell why."""
    path = store.directory() / "objects" / f"{_digest(_PROBE)}.o"
    data = store.read(path)
    if data is None:
        from ingot.codegen import llvm

        # For the oldest CPU of the kind: this runs before it is known which one it is.
        data = llvm.emit_object(_PROBE, llvm.target(llvm.triple(), "x86-64", "+xsave"))
        store.write(path, data)
    try:
        found = linker.link([data], _nothing)
    except (linker.UnlinkableError, OSError):
        return None
    probe: Any = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(found["probe"])
    allowed: Any = ctypes.CFUNCTYPE(ctypes.c_uint32)(found["allowed"])
    registers = (ctypes.c_uint32 * 4)()

    def ask(leaf: int, subleaf: int) -> tuple[int, ...]:
        probe(leaf, subleaf, ctypes.addressof(registers))
        return tuple(registers)

    first, extended = ask(0, 0), ask(0x80000000, 0)
    words = [*first, extended[0]]
    for leaf, subleaf, wanted in _LEAVES:
        if leaf <= (extended[0] if leaf >= 0x80000000 else first[0]):
            answer = ask(leaf, subleaf)
            words += [answer["abcd".index(register)] for register in wanted]
            if leaf == 1 and answer[2] & _OSXSAVE:
                words.append(allowed())
    return struct.pack(f"<{len(words)}I", *words)


def _digest(source: str) -> str:
    return hashlib.sha256(f"{llvmlite.__version__}|{source}".encode()).hexdigest()[:40]


def _nothing(name: str) -> int:
    raise AttributeError(name)
