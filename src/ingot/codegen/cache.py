"""Object code of kernels: in this process, else in a directory on disk, else compiled now.

A kernel's key is the source of everything that emits code, its parameters, the CPU and LLVM's version; so a
stale object is never found, and no invalidation is needed. LLVM itself is loaded only where something must be
compiled.
"""
# llvmlite has no type information.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llvmlite

from ingot.codegen import forks, library, linker, store
from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine
from ingot.errors import IngotError

_addresses: dict[str, int] = {}
#: The same by kernel, without making the key again.
_found: dict[tuple[Kernel, Machine], int] = {}


@functools.cache
def _generators_digest() -> str:
    """A digest of the source of all code that emits code."""
    digest = hashlib.sha256(llvmlite.__version__.encode())
    for folder in ("codegen", "kernels"):
        where = str(Path(__file__).parent.parent / folder)
        for name in sorted(os.listdir(where)):  # noqa: PTH208  (pathlib takes as long as reading and hashing)
            if name.endswith(".py"):
                digest.update(name.encode())
                with open(f"{where}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
                    digest.update(file.read())
    return digest.hexdigest()


@functools.cache
def _beginning(machine: Machine) -> str:
    """Of what a kernel's key is the digest of: what all kernels for this CPU have in common."""
    return f"{_generators_digest()}|{machine.fingerprint}"


def _key(kernel: Kernel, machine: Machine) -> str:
    text = f"{_beginning(machine)}|{kernel.generator}|{kernel.params!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _paths(keys: Iterable[str]) -> dict[str, str]:
    """The file of each key's object."""
    folder = store.directory() / "objects"
    return {key: f"{folder}/{key}.o" for key in keys}


def _path(key: str) -> str:
    return _paths([key])[key]


def functions(assembly: str, names: Sequence[str], machine: Machine) -> list[int]:
    """Where the functions `names` of a module in LLVM's language lie now, compiled if it was never before."""
    text = f"{llvmlite.__version__}|{machine.fingerprint}|{assembly}"
    path = _path(hashlib.sha256(text.encode()).hexdigest()[:40])
    data = store.read(path)
    if data is None:
        from ingot.codegen import llvm

        data = llvm.emit_object(assembly, machine.target())
        store.write(path, data)
    found = link([data], names)
    return [found[name] for name in names]


def compile_object(kernel: Kernel, machine: Machine, symbol: str = "kernel") -> bytes:
    """Emit and compile one kernel; the object file's bytes."""
    from ingot.codegen import llvm

    return llvm.emit_object(kernel.assembly(machine, symbol), machine.target())


def native_assembly(kernel: Kernel, machine: Machine) -> str:
    """The machine's assembly text of one kernel, for looking at and for the tests that count spills."""
    from ingot.codegen import llvm

    return llvm.emit_assembly(kernel.assembly(machine), machine.target())


def link(objects: Sequence[bytes], names: Iterable[str]) -> dict[str, int]:
    """Where the functions `names` of these objects lie from now on, as long as the process.

    Raises IngotError where the system allows no memory that is written and then executed.
    """
    if linker.IS_KNOWN:
        try:
            found = linker.link(objects, library.address_of)
            return {name: found[name] for name in names}
        except linker.UnlinkableError:
            pass
        except OSError as error:
            raise IngotError(
                f"generated code: found a system that refuses to execute it ({error.strerror}); allow this "
                "process memory that is written and then executed (SELinux calls it execmem)"
            ) from error
    from ingot.codegen import llvm

    return llvm.link(objects, library.address_of, names)


def addresses(
    kernels: Iterable[Kernel], machine: Machine, progress: Callable[[int, int], None] | None = None
) -> dict[Kernel, int]:
    """The address of each kernel's code, compiled if it was never before (on all cores; `progress(done,
    total)`, from 0 on).
    """
    found = {kernel: _found.get((kernel, machine), 0) for kernel in kernels}
    keys = {kernel: _key(kernel, machine) for kernel, address in found.items() if not address}
    if not keys:
        return found
    with forks.OF_CODE:
        missing = {key: kernel for kernel, key in keys.items() if key not in _addresses}
        if missing:
            objects = {key: store.read(path) for key, path in _paths(missing).items()}
            todo = [key for key, data in objects.items() if data is None]
            if todo:
                objects.update(_compile_all({key: missing[key] for key in todo}, machine, progress))
            names = {key: f"k{key}" for key in missing}
            linked = link([data for data in objects.values() if data is not None], names.values())
            _addresses.update((key, linked[name]) for key, name in names.items())
        for kernel, key in keys.items():
            found[kernel] = _found[kernel, machine] = _addresses[key]
        return found


def _compile_all(
    kernels: dict[str, Kernel], machine: Machine, progress: Callable[[int, int], None] | None
) -> dict[str, bytes]:
    """Compile kernels on all cores, by their keys, and keep the objects on disk."""

    def compile_one(item: tuple[str, Kernel]) -> tuple[str, bytes]:
        key, kernel = item
        data = compile_object(kernel, machine, f"k{key}")
        store.write(_path(key), data)
        return key, data

    made: dict[str, bytes] = {}
    if progress is not None:
        progress(0, len(kernels))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for key, data in pool.map(compile_one, kernels.items()):
            made[key] = data
            if progress is not None:
                progress(len(made), len(kernels))
    return made
