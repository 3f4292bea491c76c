"""Ingot's own linker against LLVM's: the same code, the same constants, the same answers."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import random
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from ingot.codegen import cache, library, linker, llvm, machine
from ingot.errors import IngotError
from tests.kernels.variants import MACHINES, Variant, lacks, variants

pytestmark = pytest.mark.skipif(not linker.IS_KNOWN, reason="LLVM's own linker is used on this system")

_TAKES_DOUBLES = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double, ctypes.c_double)
_TAKES_NUMBER = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


def emit(assembly: str) -> bytes:
    return llvm.emit_object(assembly, machine.host().target())


def image(data: bytes, functions: dict[str, int]) -> dict[str, bytes]:
    """What lies in memory of each section that is reached from the functions, addresses left out.

    A section's place is what the relocations that name it say.
    """
    parsed = linker._parsed(data)
    bases: dict[int, int] = {}
    for name, number, value, is_global in parsed.symbols:
        if is_global and number in parsed.sections:
            assert bases.setdefault(number, functions[name] - value) == functions[name] - value
    waiting = list(bases)
    while waiting:
        number = waiting.pop()
        for target, place, code, symbol, addend in parsed.relocations:
            if target != number:
                continue
            name, section, value, _ = parsed.symbols[symbol]
            at = bases[number] + place
            if code in (linker._PC32, linker._PLT32):
                found = at + struct.unpack("<i", ctypes.string_at(at, 4))[0] - addend - value
            else:
                assert code == linker._ABS64, f"a kernel has relocation {code}, which this test does not know"
                found = struct.unpack("<Q", ctypes.string_at(at, 8))[0] - addend - value
            if section == linker._UNDEFINED:
                assert found == library.address_of(name), name
            elif section not in bases:
                bases[section] = found
                waiting.append(section)
            else:
                assert bases[section] == found, f"{name}: two relocations disagree where its section lies"
    contents: dict[str, bytes] = {}
    for number, base in bases.items():
        content = bytearray(ctypes.string_at(base, parsed.sections[number].size))
        for target, place, code, _, _ in parsed.relocations:
            if target == number:
                width = 8 if code == linker._ABS64 else 4
                content[place : place + width] = bytes(width)
        contents[f"{number} {parsed.sections[number].name}"] = bytes(content)
    return contents


def check(found: list[Variant], name: str) -> None:
    objects = {
        f"k{number}": cache.compile_object(variant.kernel, MACHINES[name], f"k{number}")
        for number, variant in enumerate(found)
    }
    ours = linker.link(list(objects.values()), library.address_of)
    theirs = llvm.link(list(objects.values()), library.address_of, objects)
    assert ours.keys() == theirs.keys()
    for symbol, data in objects.items():
        variant = found[int(symbol[1:])]
        assert image(data, ours) == image(data, theirs), f"{variant} is not linked as LLVM links it"


@pytest.mark.parametrize("name", ["avx512", "sse"])
def test_a_kernel_of_each_generator(name: str) -> None:
    reason = lacks(MACHINES[name])
    if reason is not None:
        pytest.skip(reason)
    in_own_process(check_each_generator, name)


def check_each_generator(name: str) -> None:
    """One kernel of each generator."""
    check(list({each.kernel.generator: each for each in variants(MACHINES[name])}.values()), name)


def check_all(name: str) -> None:
    """The whole catalogue."""
    check(variants(MACHINES[name]), name)


def in_own_process(run: Callable[[str], None], name: str) -> None:
    """LLVM's linker ends the process where its sections lie more than 2 GiB apart, as they may in one that
    has lent and returned gigabytes.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(run, name).result()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, each in MACHINES.items() if each.triple.startswith("x86_64")])
def test_every_kernel(name: str) -> None:
    reason = lacks(MACHINES[name])
    if reason is not None:
        pytest.skip(reason)
    in_own_process(check_all, name)


CALLS = """
@table = internal global [2 x ptr] [ptr @pow, ptr @fmod]
@count = internal global i64 0
@five = internal global i64 5

declare double @pow(double, double)
declare double @fmod(double, double)
declare ptr @somewhere()

define double @direct(double %a, double %b) {
  %r = call double @pow(double %a, double %b)
  ret double %r
}

define double @by_table(double %a, double %b) {
  %p = getelementptr ptr, ptr @table, i64 1
  %f = load volatile ptr, ptr %p
  %r = call double %f(double %a, double %b)
  ret double %r
}

define i64 @counted(i64 %by) {
  %five = load volatile i64, ptr @five
  %old = load volatile i64, ptr @count
  %some = add i64 %old, %by
  %new = add i64 %some, %five
  store volatile i64 %new, ptr @count
  ret i64 %new
}

define i64 @place_of_count(i64 %unused) {
  %r = ptrtoint ptr @count to i64
  ret i64 %r
}

define i64 @address_of_pow(i64 %unused) {
  %r = ptrtoint ptr @pow to i64
  ret i64 %r
}

define i64 @jump(i64 %which) {
  switch i64 %which, label %other [ i64 0, label %a  i64 1, label %b  i64 2, label %c  i64 3, label %d
                                    i64 4, label %e  i64 5, label %f ]
a:
  %va = call i64 @counted(i64 11)
  ret i64 %va
b:
  ret i64 101
c:
  %vc = call i64 @address_of_pow(i64 0)
  ret i64 %vc
d:
  ret i64 17
e:
  %ve = call i64 @counted(i64 -3)
  ret i64 %ve
f:
  ret i64 -9
other:
  ret i64 0
}
"""


def test_calls_tables_jumps_and_variables() -> None:
    """What no kernel has today, and LLVM may write tomorrow: each in the way that its relocation asks for."""
    found = linker.link([emit(CALLS)], library.address_of)
    direct, by_table = _TAKES_DOUBLES(found["direct"]), _TAKES_DOUBLES(found["by_table"])
    assert (direct(3.0, 4.0), by_table(7.5, 2.0)) == (81.0, 1.5)
    pow_ = library.address_of("pow")
    assert _TAKES_NUMBER(found["address_of_pow"])(0) == pow_
    jump = _TAKES_NUMBER(found["jump"])
    assert [jump(i) for i in (0, 1, 2, 3, 4, 5, 6, -1)] == [16, 101, pow_, 17, 18, -9, 0, 0]


def test_objects_see_each_other() -> None:
    caller = (
        "declare i64 @made(i64)\ndefine i64 @ask(i64 %x) {\n  %r = call i64 @made(i64 %x)\n  ret i64 %r\n}"
    )
    maker = "define i64 @made(i64 %x) {\n  %r = mul i64 %x, 3\n  ret i64 %r\n}"
    found = linker.link([emit(caller), emit(maker)], library.address_of)
    assert _TAKES_NUMBER(found["ask"])(14) == 42


def pieces() -> list[tuple[int, int, str]]:
    """The process' memory: from where to where, and what may be done with it."""
    return [
        (int(begin, 16), int(end, 16), mode)
        for begin, end, mode in re.findall(
            r"^(\w+)-(\w+) (\S+)", Path("/proc/self/maps").read_text(), re.MULTILINE
        )
    ]


def mode_of(address: int) -> str:
    (mode,) = [mode for begin, end, mode in pieces() if begin <= address < end]
    return mode


def looked_up(number: int, size: int = 4) -> str:
    """An object with code and constants: look(i) is `number` for the last of `size` constants."""
    filled = ", ".join([f"i64 {number if i == size - 1 else i}" for i in range(size)])
    return f"""
@numbers = internal constant [{size} x i64] [{filled}]
define i64 @look{number}(i64 %i) {{
  %p = getelementptr i64, ptr @numbers, i64 %i
  %r = load volatile i64, ptr %p
  ret i64 %r
}}
define i64 @table{number}(i64 %unused) {{
  %r = ptrtoint ptr @numbers to i64
  ret i64 %r
}}"""


def test_nothing_can_be_both_written_and_run() -> None:
    found = linker.link([emit(CALLS), emit(looked_up(0))], library.address_of)
    for name, address in found.items():
        assert mode_of(address) == "r-xp", name
    assert mode_of(_TAKES_NUMBER(found["table0"])(0)) == "r--p"
    assert mode_of(_TAKES_NUMBER(found["place_of_count"])(0)) == "rw-p"


def test_what_is_linked_lies_together() -> None:
    """Linux allows a process 65,530 pieces of memory. Sessions link one after the other, in any thread."""
    objects = [emit(looked_up(number)) for number in range(8)]

    def wrong(turn: int) -> int:
        number = turn % len(objects)
        found = linker.link([objects[number]], library.address_of)
        return _TAKES_NUMBER(found[f"look{number}"])(3) - number

    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(wrong, range(8)))
        before = len(pieces())
        assert not any(pool.map(wrong, range(400)))
        assert len(pieces()) < before + 40, (
            "code and constants that are linked one by one do not lie together"
        )


def test_arenas_that_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is taken; what is larger than one has one of its own size."""
    arenas: list[linker._Arena] = []
    monkeypatch.setattr(linker, "_ARENA_BYTES", 5 * mmap.PAGESIZE)
    monkeypatch.setattr(linker, "_arenas", arenas)
    sizes = [4, 4, 4, 4, 4000, 4, 4]
    found = [linker.link([emit(looked_up(n, size))], library.address_of) for n, size in enumerate(sizes)]
    for number, (size, names) in enumerate(zip(sizes, found, strict=True)):
        assert _TAKES_NUMBER(names[f"look{number}"])(size - 1) == number
    assert [len(arena.memory) // mmap.PAGESIZE for arena in arenas] == [5, 5, 9, 5]


def test_an_unknown_name_is_refused() -> None:
    text = "declare i64 @no_such_function()\ndefine i64 @f() { %r = call i64 @no_such_function() ret i64 %r }"
    with pytest.raises(linker.UnlinkableError, match="nothing here has the name 'no_such_function'"):
        linker.link([emit(text)], library.address_of)


def test_other_kinds_of_object_are_refused() -> None:
    arm = MACHINES["neon"]
    if lacks(arm) is None:
        text = "define i64 @f(i64 %x) {\n  ret i64 %x\n}"
        with pytest.raises(linker.UnlinkableError, match="no relocatable ELF file for x86-64"):
            linker.link([llvm.emit_object(text, arm.target())], library.address_of)
    own_to_each_thread = "@x = thread_local global i64 1\ndefine ptr @f() {\n  ret ptr @x\n}"
    with pytest.raises(linker.UnlinkableError):
        linker.link([emit(own_to_each_thread)], library.address_of)


def test_a_torn_object_is_refused() -> None:
    whole = emit(CALLS)
    for length in range(0, len(whole), 7):
        with pytest.raises(linker.UnlinkableError):
            linker.link([whole[:length]], library.address_of)


def test_a_damaged_object_is_refused_or_linked() -> None:
    """Nothing else is raised, and nothing is written outside: the next one is linked as ever."""
    whole, drawn, refused = emit(CALLS), random.Random(0), 0
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(drawn.randrange(1, 4)):
            data[drawn.randrange(len(data))] = drawn.choice([0, 127, 128, 255])
        try:
            linker.link([bytes(data)], library.address_of)
        except linker.UnlinkableError:
            refused += 1
    assert 50 < refused < 450
    found = linker.link([whole], library.address_of)
    assert _TAKES_DOUBLES(found["direct"])(3.0, 4.0) == 81.0


def test_what_our_linker_refuses_llvm_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> dict[str, int]:
        raise linker.UnlinkableError("for the test")

    monkeypatch.setattr(linker, "link", refuse)
    text = "define i64 @twice(i64 %x) {\n  %r = shl i64 %x, 1\n  ret i64 %r\n}"
    assert _TAKES_NUMBER(cache.link([emit(text)], ["twice"])["twice"])(21) == 42


_FAR_APART = """
import ctypes

from ingot.codegen import library, llvm, machine

system = ctypes.CDLL(None)
system.mmap.restype = ctypes.c_void_p
system.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
system.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
GIGABYTE = 1 << 30


def reserve(size: int) -> int:
    return system.mmap(None, size, 0, 0x4022, -1, 0)  # no access, private, anonymous, no swap for it


text = "define i64 @twice(i64 %x) { %r = shl i64 %x, 1 ret i64 %r }"
data = llvm.emit_object(text, machine.host().target())
low = reserve(64 * GIGABYTE)
for size in (1 << 21, 1 << 20, 1 << 18, 1 << 16, 1 << 14, 1 << 13, 1 << 12):
    while (at := reserve(size)) > low:
        pass
    system.munmap(at, size)
for gigabytes in range(3, 60, 3):
    system.munmap(low + gigabytes * GIGABYTE, 4096)
address = llvm.link([data], library.address_of, ["twice"])["twice"]
print(ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(21))
"""


def test_llvm_links_where_free_pages_lie_gigabytes_apart() -> None:
    """In a process that has grown large, code and what it refers to would lie out of each other's reach."""
    run = subprocess.run([sys.executable, "-c", _FAR_APART], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["42"], f"exit code {run.returncode}: {run.stderr[-1000:]}"


def test_a_system_without_executable_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(linker, "_protect", refuse)
    with pytest.raises(IngotError, match=r"refuses to execute it \(Permission denied\)"):
        cache.link([emit("define i64 @f(i64 %x) { ret i64 %x }")], ["f"])
