"""The C library's mathematics, callable from generated code: slow, right, for what `math.py` leaves to it.

A kernel names them as external functions; their addresses are put in when objects are linked, so cached
objects stay valid in another process.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportAttributeAccessIssue=false

from __future__ import annotations

import ctypes
import sys
from typing import Any

from llvmlite import ir

from ingot.codegen.builder import F64, I64, PTR, Builder, Callee, Value, lanes_of

NAMES = ("sin", "cos", "tan", "pow", "fmod")


def address_of(name: str) -> int:
    """Where a function of the C library is in this process; AttributeError where it has none of the name."""
    library = ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0


def call(k: Builder, name: str, *operands: Value) -> Value:
    """The C function `name` on every lane of float64 operands."""
    lanes = lanes_of(operands[0].type)
    symbol = f"{name}.lanes{lanes}"
    function = k.module.globals.get(symbol)
    if function is None:
        function = _each_lane(k, name, symbol, operands[0].type, len(operands))
    return k.ir.call(function, operands)


def _address(k: Builder, name: str, type_: Any) -> Any:
    """A variable of the module that holds the function's address.

    A direct call would need a global offset table, which LLVM's in-process linker gets wrong in a second
    object.
    """
    variable = ir.GlobalVariable(k.module, PTR, f"{name}.address")
    variable.linkage = "internal"
    variable.initializer = ir.Function(k.module, type_, name)
    return variable


def _each_lane(k: Builder, name: str, symbol: str, type_: Any, arity: int) -> Any:
    """A function of the module that loops over the lanes: calls in a row would bloat the kernel."""
    scalar = ir.FunctionType(F64, [F64] * arity)
    variable = _address(k, name, scalar)
    function = ir.Function(k.module, ir.FunctionType(type_, [type_] * arity), symbol)
    function.linkage = "internal"
    function.attributes.add("noinline")
    build = ir.IRBuilder(function.append_basic_block("enter"))
    target = Callee(build.load(variable, typ=PTR), scalar)
    if lanes_of(type_) == 1:
        build.ret(build.call(target, function.args))
        return function
    places = [build.alloca(type_) for _ in range(arity)]
    for place, argument in zip(places, function.args, strict=True):
        place.type = PTR  # llvmlite would take it for a pointer that can only point to a whole vector
        build.store(argument, place)
    top, after = function.append_basic_block("loop"), function.append_basic_block("after")
    before = build.block
    build.branch(top)
    build.position_at_end(top)
    lane = build.phi(I64)
    where = [build.gep(place, [lane], source_etype=F64) for place in places]
    build.store(build.call(target, [build.load(w, typ=F64) for w in where]), where[0])
    following = build.add(lane, I64(1))
    lane.add_incoming(I64(0), before)
    lane.add_incoming(following, top)
    build.cbranch(build.icmp_signed("<", following, I64(type_.count)), top, after)
    build.position_at_end(after)
    build.ret(build.load(places[0], typ=type_))
    return function
