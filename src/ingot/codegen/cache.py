"""Object code of kernels: in this process, else in a directory on disk, else compiled now.

A kernel's key is the source of everything that emits code, its parameters, the CPU and LLVM's version; so a
stale object is never found, and no invalidation is needed. Files are written under another name and renamed:
concurrent processes may share the directory. INGOT_CACHE_DIR moves it.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import platformdirs

from ingot.codegen import library
from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine

_lock = threading.RLock()
_addresses: dict[str, int] = {}
#: The same by kernel, without making the key again.
_found: dict[tuple[Kernel, Machine], int] = {}
_engine: Any = None


@functools.cache
def _generators_digest() -> str:
    """A digest of the source of all code that emits code."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256(llvmlite.__version__.encode())
    for path in sorted([*(root / "codegen").glob("*.py"), *(root / "kernels").glob("*.py")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def directory() -> Path:
    """Where objects are kept."""
    chosen = os.environ.get("INGOT_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("ingot"))


def _key(kernel: Kernel, machine: Machine) -> str:
    text = f"{_generators_digest()}|{machine.fingerprint}|{kernel.generator}|{kernel.params!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def engine_of(assembly: str, machine: Machine) -> Any:
    """An engine with the functions of a module in LLVM's language, compiled if it was never before."""
    text = f"{llvmlite.__version__}|{machine.fingerprint}|{assembly}"
    path = directory() / "objects" / f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.o"
    data = _read(path)
    if data is None:
        module = llvm.parse_assembly(assembly)
        module.verify()
        data = machine.target().emit_object(module)
        _write(path, data)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine.target())
    engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    return engine


def compile_object(kernel: Kernel, machine: Machine, symbol: str = "kernel") -> bytes:
    """Emit and compile one kernel; the object file's bytes."""
    module = llvm.parse_assembly(kernel.assembly(machine, symbol))
    module.verify()
    return machine.target().emit_object(module)


def native_assembly(kernel: Kernel, machine: Machine) -> str:
    """The machine's assembly text of one kernel, for looking at and for the tests that count spills."""
    module = llvm.parse_assembly(kernel.assembly(machine))
    module.verify()
    return machine.target().emit_assembly(module)


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    # The digest of the object stands before it: a torn or damaged file is compiled again.
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def _write(path: Path, data: bytes) -> None:
    """Keep an object for later processes; a directory that cannot be written only costs the next one time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(data).digest() + data)
        Path(name).replace(path)


def _link(objects: Iterable[tuple[str, bytes]]) -> None:
    global _engine
    loaded = list(objects)
    if _engine is None:
        library.register()
        backing = llvm.parse_assembly("")
        _engine = llvm.create_mcjit_compiler(
            backing, llvm.Target.from_default_triple().create_target_machine()
        )
    for _, data in loaded:
        _engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    _engine.finalize_object()
    for key, _ in loaded:
        _addresses[key] = _engine.get_function_address("k" + key)


def addresses(
    kernels: Iterable[Kernel], machine: Machine, progress: Callable[[int, int], None] | None = None
) -> dict[Kernel, int]:
    """The address of each kernel's code, compiled if it was never before (on all cores; `progress(done,
    total)`).
    """
    wanted = list(kernels)
    found = {kernel: _found.get((kernel, machine), 0) for kernel in wanted}
    if all(found.values()):
        return found
    keys = {kernel: _key(kernel, machine) for kernel in wanted}
    with _lock:
        missing = {key: kernel for kernel, key in keys.items() if key not in _addresses}
        if missing:
            folder = directory() / "objects"
            objects = {key: _read(folder / f"{key}.o") for key in missing}
            todo = [key for key, data in objects.items() if data is None]
            if todo:
                with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
                    made = pool.map(lambda key: compile_object(missing[key], machine, "k" + key), todo)
                    for done, (key, data) in enumerate(zip(todo, made, strict=True), 1):
                        objects[key] = data
                        _write(folder / f"{key}.o", data)
                        if progress is not None:
                            progress(done, len(todo))
            _link((key, data) for key, data in objects.items() if data is not None)
        found = {kernel: _addresses[key] for kernel, key in keys.items()}
        _found.update(((kernel, machine), address) for kernel, address in found.items())
        return found
