"""LLVM behind one door: text to object code, what it knows of this CPU, and its own linker.

Import this module inside functions, where there is something to compile: it brings in 40 MB of LLVM, and a
session whose kernels are in the cache needs none of it.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from llvmlite.utils import get_library_name

from ingot.codegen import library

llvm.initialize_native_target()
llvm.initialize_native_asmparser()  # for inline assembly
llvm.initialize_native_asmprinter()

#: LLVM's writer of object files, past the lock by which llvmlite lets one thread at a time into LLVM: where
#: each has modules and a target machine of its own, as many may write as there are cores. None: not found.
_emit: Any = None
with contextlib.suppress(OSError, AttributeError):
    _library = ctypes.CDLL(str(Path(llvm.__file__).with_name(get_library_name())))
    _emit, _ffi = _library.LLVMPY_TargetMachineEmitToMemory, llvm.ffi
    _text = ctypes.POINTER(ctypes.c_char_p)
    _emit.argtypes = [_ffi.LLVMTargetMachineRef, _ffi.LLVMModuleRef, ctypes.c_int, _text]
    _emit.restype = _ffi.LLVMMemoryBufferRef

#: They keep the code that they linked.
_engines: list[Any] = []


def target(triple: str, cpu: str, features: str) -> llvm.TargetMachine:
    """LLVM's target machine, set up for position-independent objects."""
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="pic", codemodel="small", jit=True
    )


def emit_object(assembly: str, target_machine: llvm.TargetMachine) -> bytes:
    """The object file of a module in LLVM's assembly language. Threads that call this work side by side."""
    module = _parsed(assembly)
    if _emit is None:
        return target_machine.emit_object(module)
    with llvm.ffi.OutputString() as error:
        found = _emit(target_machine, module, 1, error)
        if not found:
            raise RuntimeError(str(error))
    lib = llvm.ffi.lib
    try:
        return ctypes.string_at(lib.LLVMPY_GetBufferStart(found), lib.LLVMPY_GetBufferSize(found))
    finally:
        lib.LLVMPY_DisposeMemoryBuffer(found)


def emit_assembly(assembly: str, target_machine: llvm.TargetMachine) -> str:
    """The machine's assembly text of such a module."""
    return target_machine.emit_assembly(_parsed(assembly))


def _parsed(assembly: str) -> Any:
    module = llvm.parse_assembly(assembly, llvm.create_context())
    module.verify()
    return module


def triple() -> str:
    """What this process runs on, as LLVM spells it."""
    return llvm.get_process_triple()


def host_name() -> str:
    """LLVM's name of this CPU."""
    return llvm.get_host_cpu_name()


def host_features() -> dict[str, bool]:
    """LLVM's features of this kind of CPU, and which this one has."""
    return {str(name): bool(on) for name, on in llvm.get_host_cpu_features().items()}


def link(objects: Sequence[bytes], resolve: Callable[[str], int], wanted: Iterable[str]) -> dict[str, int]:
    """Where the functions `wanted` of these objects lie now; for good. What they use of the C library,
    `resolve` finds.
    """
    for name in library.NAMES:
        llvm.add_symbol(name, resolve(name))
    # lmm, its manager of memory, keeps code and constants together, within reach of each other's 32 bits.
    engine = llvm.create_mcjit_compiler(
        llvm.parse_assembly(""), llvm.Target.from_default_triple().create_target_machine(), use_lmm=True
    )
    for data in objects:
        engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    _engines.append(engine)
    return {name: engine.get_function_address(name) for name in wanted}
