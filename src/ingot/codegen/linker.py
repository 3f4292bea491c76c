"""Object files into this process's memory, without LLVM: sections are laid out, relocations applied, and then
what is code may be run and no longer written, and constants only be read.

Linux counts pieces of memory by what may be done with them, and allows a process 65,530. So what is linked
lies side by side in arenas: code grows from the front, constants from the back, in whole pages that were
never used, and an arena is three pieces however much was linked into it.

It reads what LLVM writes for kernels: relocatable ELF files for x86-64 Linux (System V ABI, AMD64 supplement,
sections 4.2 to 4.4). Whatever else is in an object raises UnlinkableError, and LLVM's own linker takes it.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

#: Whether objects of this system are of that kind.
IS_KNOWN = sys.platform == "linux" and platform.machine() == "x86_64"

_ELF_64_LITTLE = b"\x7fELF\x02\x01\x01"
_RELOCATABLE, _X86_64 = 1, 62
_PROGBITS, _SYMTAB, _STRTAB, _RELA, _NOBITS, _REL = 1, 2, 3, 4, 8, 9
_WRITE, _ALLOC, _EXECUTE, _TLS = 1, 2, 4, 0x400
_UNDEFINED, _ABSOLUTE = 0, 0xFFF1
_GLOBAL = 1

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QIIq")

_ABS64, _PC32, _PLT32, _GOTPCREL, _ABS32, _ABS32S, _PC64 = 1, 2, 4, 9, 10, 11, 24
_GOTPCRELX, _REX_GOTPCRELX = 41, 42
#: Relocations that want an address out of a table near the code.
_THROUGH_TABLE = (_GOTPCREL, _GOTPCRELX, _REX_GOTPCRELX)
_JUMP = b"\xff\x25\x02\x00\x00\x00\xcc\xcc"  # jmp *2(%rip): to the address that stands after these bytes
#: Unwinding tables: nothing here throws.
_IGNORED = (".eh_frame",)

_PROT_READ, _PROT_EXEC = 1, 4

_ARENA_BYTES = 4 << 20
#: Of a section: relocations reach no further.
_MOST_BYTES = 1 << 31


class UnlinkableError(Exception):
    """An object with something that this linker does not know."""


@dataclass(slots=True)
class _Section:
    """A section that lies in memory: its bytes (None: zeros), and where it lies in the arena."""

    name: str
    flags: int
    align: int
    size: int
    data: memoryview | None
    offset: int = 0

    @property
    def kind(self) -> int:
        """0 for code, 1 for constants, 2 for what may be written."""
        return 0 if self.flags & _EXECUTE else 2 if self.flags & _WRITE else 1


@dataclass(slots=True)
class _Object:
    """One file: its sections by number, symbols, and relocations of each section."""

    sections: dict[int, _Section]
    #: name, section's number, value, whether other objects may see it
    symbols: list[tuple[str, int, int, bool]]
    #: section's number, offset in it, kind, symbol's number, addend
    relocations: list[tuple[int, int, int, int, int]]
    #: external functions that are called, and table entries, by symbol's number: offsets in the arena
    jumps: dict[int, int] = field(default_factory=dict[int, int])
    table: dict[int, int] = field(default_factory=dict[int, int])

    def move(self, by: Sequence[int]) -> None:
        """Each kind of section so much further."""
        for section in self.sections.values():
            section.offset += by[section.kind]
        self.jumps = {symbol: at + by[0] for symbol, at in self.jumps.items()}
        self.table = {symbol: at + by[1] for symbol, at in self.table.items()}


class _Arena:
    """Memory that what is linked lies in. front, back: the first and the last of the pages that are free."""

    def __init__(self, size: int) -> None:
        self.memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.front, self.back = 0, size
        with suppress(OSError):  # a system that has no huge pages; of one, most would lie empty
            self.memory.madvise(mmap.MADV_NOHUGEPAGE)

    def fits(self, sizes: Sequence[int]) -> bool:
        """Whether there is room for code, constants, and what is written."""
        return sum(sizes) <= self.back - self.front

    def take(self, sizes: Sequence[int]) -> tuple[int, int, int]:
        """Pages for them: where each begins. They count as used whatever becomes of them."""
        code, constants, written = sizes
        begin, end = self.front, self.back
        self.front, self.back = begin + code, end - constants - written
        return begin, self.back, end - written


#: They stay as long as the process. Only the last one has room.
_arenas: list[_Arena] = []
_lock = threading.Lock()


def _take(sizes: Sequence[int]) -> tuple[_Arena, tuple[int, int, int]]:
    """An arena, and where in it there are pages for code, constants, and what is written."""
    with _lock:
        if not _arenas or not _arenas[-1].fits(sizes):
            _arenas.append(_Arena(max(_ARENA_BYTES, sum(sizes))))
        return _arenas[-1], _arenas[-1].take(sizes)


def link(objects: Sequence[bytes], resolve: Callable[[str], int]) -> dict[str, int]:
    """The addresses of all global symbols of these objects, which from now on lie in memory, for good.

    resolve: the address of a function of the C library; AttributeError if there is none.

    Raises UnlinkableError for objects that this linker does not know; OSError where the system refuses memory
    that can be executed.
    """
    parsed = [_parse(data) for data in objects]
    sizes = _lay_out(parsed)
    if not any(sizes):
        return {}
    arena, begins = _take(sizes)
    memory, base = arena.memory, arena.base
    found: dict[str, int] = {}
    for each in parsed:
        each.move(begins)
        for section in each.sections.values():
            if section.data is not None:
                memory[section.offset : section.offset + section.size] = section.data.tobytes()
        for name, number, value, is_global in each.symbols:
            if is_global and number in each.sections:
                found[name] = base + each.sections[number].offset + value
    for each in parsed:
        _relocate(each, memory, base, found, resolve)
    for begin, size, protection in zip(begins, sizes, (_PROT_READ | _PROT_EXEC, _PROT_READ), strict=False):
        _protect(base + begin, size, protection)
    return found


def _parse(data: bytes) -> _Object:
    try:
        return _parsed(data)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise UnlinkableError(f"the object is torn: {error}") from error


def _parsed(data: bytes) -> _Object:
    header = _HEADER.unpack_from(data)
    ident, kind, machine, section_table = header[0], header[1], header[2], header[6]
    entry_bytes, count, names_index = header[11:14]
    if not ident.startswith(_ELF_64_LITTLE) or (kind, machine) != (_RELOCATABLE, _X86_64):
        raise UnlinkableError("this is no relocatable ELF file for x86-64")
    headers = [_SECTION.unpack_from(data, section_table + entry_bytes * i) for i in range(count)]
    whole = memoryview(data)

    def text(table: int, at: int) -> str:
        start = headers[table][4] + at
        return data[start : data.index(b"\0", start)].decode()

    sections: dict[int, _Section] = {}
    symbols: list[tuple[str, int, int, bool]] = []
    relocations: list[tuple[int, int, int, int, int]] = []
    tables = 0
    for number, (name_at, type_, flags, _, start, size, link_, _, align, _) in enumerate(headers):
        if flags & _ALLOC:
            name = text(names_index, name_at)
            if flags & _TLS:
                raise UnlinkableError(f"section {name!r} is of each thread's own")
            if name in _IGNORED:
                continue
            if type_ not in (_PROGBITS, _NOBITS):
                raise UnlinkableError(f"section {name!r} has type {type_}")
            if align > mmap.PAGESIZE or size > _MOST_BYTES:
                raise UnlinkableError(f"section {name!r} has {size} bytes, at multiples of {align}")
            content = None if type_ == _NOBITS else whole[start : start + size]
            if content is not None and content.nbytes != size:
                raise UnlinkableError("the object is torn")
            sections[number] = _Section(name, flags, max(align, 1), size, content)
        elif type_ == _SYMTAB:
            tables += 1
            for at in range(start, start + size, _SYMBOL.size):
                name_at, info, _, section, value, _ = _SYMBOL.unpack_from(data, at)
                symbols.append((text(link_, name_at), section, value, info >> 4 >= _GLOBAL))
    if tables != 1:
        raise UnlinkableError(f"the object has {tables} symbol tables")
    for _, type_, _, _, start, size, _, target, _, _ in headers:
        if type_ == _REL:
            raise UnlinkableError("the object has relocations without addends")
        if type_ == _RELA and target in sections:
            for at in range(start, start + size, _RELOCATION.size):
                place, code, symbol, addend = _RELOCATION.unpack_from(data, at)
                relocations.append((target, place, code, symbol, addend))
    if any(symbol >= len(symbols) for _, _, _, symbol, _ in relocations):
        raise UnlinkableError("the object is torn: a relocation names a symbol that is not there")
    return _Object(sections, symbols, relocations)


def _lay_out(objects: Sequence[_Object]) -> list[int]:
    """Give each section, jump and table entry its offset among what is of its kind. Returns the bytes of
    code, of constants, and of what is written: whole pages.
    """
    sizes: list[int] = []
    for kind in range(3):
        at = 0
        for each in objects:
            for section in each.sections.values():
                if section.kind == kind:
                    # At cache lines, so that code lies in them alike whatever is linked with it.
                    at = section.offset = _up(at, max(section.align, 64))
                    at += section.size
            if kind == 0:
                for symbol in _external(each, (_PLT32,)):
                    at = each.jumps[symbol] = _up(at, 8)
                    at += 16
            if kind == 1:
                for symbol in _external(each, _THROUGH_TABLE, defined=True):
                    at = each.table[symbol] = _up(at, 8)
                    at += 8
        sizes.append(_up(at, mmap.PAGESIZE))
    return sizes


def _external(each: _Object, codes: Sequence[int], defined: bool = False) -> dict[int, None]:
    """The symbols that relocations of these kinds name: those of no section, or (`defined`) all."""
    return {
        symbol: None
        for _, _, code, symbol, _ in each.relocations
        if code in codes and (defined or each.symbols[symbol][1] == _UNDEFINED)
    }


def _up(at: int, align: int) -> int:
    return -(-at // align) * align


def _relocate(
    each: _Object, memory: mmap.mmap, base: int, found: dict[str, int], resolve: Callable[[str], int]
) -> None:
    """Fill in addresses. S, A and P are the names of the ABI: symbol, addend, place."""

    def address(number: int) -> int:
        name, section, value, _ = each.symbols[number]
        if section in each.sections:
            return base + each.sections[section].offset + value
        if section == _ABSOLUTE:
            return value
        if section != _UNDEFINED:
            raise UnlinkableError(f"symbol {name!r} is in section {section}, which is not in memory")
        if name in found:
            return found[name]
        try:
            return resolve(name)
        except AttributeError:
            raise UnlinkableError(f"nothing here has the name {name!r}") from None

    for symbol, at in each.jumps.items():
        memory[at : at + 16] = _JUMP + struct.pack("<Q", address(symbol))
    for symbol, at in each.table.items():
        struct.pack_into("<Q", memory, at, address(symbol))
    for target, place, code, symbol, addend in each.relocations:
        section = each.sections[target]
        if place + (8 if code in (_ABS64, _PC64) else 4) > section.size:
            raise UnlinkableError("a relocation lies outside its section")
        at = section.offset + place
        if code in (_PLT32, _PC32):
            to = base + each.jumps[symbol] if symbol in each.jumps else address(symbol)
            _put(memory, at, "<i", to + addend - (base + at))
        elif code in _THROUGH_TABLE:
            _put(memory, at, "<i", base + each.table[symbol] + addend - (base + at))
        elif code == _ABS64:
            _put(memory, at, "<Q", address(symbol) + addend)
        elif code == _PC64:
            _put(memory, at, "<q", address(symbol) + addend - (base + at))
        elif code == _ABS32:
            _put(memory, at, "<I", address(symbol) + addend)
        elif code == _ABS32S:
            _put(memory, at, "<i", address(symbol) + addend)
        else:
            raise UnlinkableError(f"relocation {code} is not known")


def _put(memory: mmap.mmap, at: int, form: str, value: int) -> None:
    try:
        struct.pack_into(form, memory, at, value)
    except struct.error as error:
        raise UnlinkableError(f"an address is out of a relocation's reach: {error}") from error


def _protect(address: int, size: int, protection: int) -> None:
    if size == 0:
        return
    library = ctypes.CDLL(None, use_errno=True)
    if library.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), protection):
        raise OSError(ctypes.get_errno(), "the system refuses to make generated code executable")
