"""Emit LLVM IR as nested Python loops: integers, loops, branches, vectors, masks, loads and stores.

A kernel is a function `void kernel(ptr args, i64 begin, i64 end, ptr scratch)`. `args` is an array of 8-byte
slots (integers and pointers, in the order of `Builder(arguments=…)`), `begin..end` the share of tiles this
thread computes, `scratch` memory of its own. Integers may be Python ints: what is known while emitting is
folded while emitting.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false, reportMissingTypeStubs=false
# pyright: reportOptionalMemberAccess=false

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from ingot.codegen.machine import Machine

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
F32, F64, PTR, VOID = ir.FloatType(), ir.DoubleType(), ir.PointerType(), ir.VoidType()
KERNEL_TYPE = ir.FunctionType(VOID, [PTR, I64, I64, PTR])

Int = Any  # a Python int, or an ir.Value of type i64
Value = Any  # an ir.Value; llvmlite is untyped


#: LLVM's name of what permutes the lanes of a vector type.
_PERMUTATIONS = {
    "v16f32": "x86.avx512.permvar.sf.512",
    "v16i32": "x86.avx512.permvar.si.512",
    "v32i16": "x86.avx512.permvar.hi.512",
    "v64i8": "x86.avx512.permvar.qi.512",
    "v8f32": "x86.avx2.permps",
    "v8i32": "x86.avx2.permd",
    "v16i8": "x86.ssse3.pshuf.b.128",
}

# Types and constants of vectors are made once: llvmlite writes each of them out lane by lane, and remembers
# what it wrote. That takes a seventh off the time of emitting a kernel.
#: A number in every lane, by its digits and the type.
_SPLATS: dict[tuple[str, str], Any] = {}


@functools.cache
def vector(element: Any, lanes: int) -> Any:
    """The LLVM type of `lanes` elements; the element's own type for one lane."""
    return element if lanes == 1 else ir.VectorType(element, lanes)


@functools.cache
def integers(width: int, numbers: tuple[int, ...]) -> Any:
    """A constant vector of these integers."""
    return ir.Constant(ir.VectorType(ir.IntType(width), len(numbers)), list(numbers))


def element_of(type_: Any) -> Any:
    """The element type of a vector type, or the type itself."""
    return type_.element if isinstance(type_, ir.VectorType) else type_


def lanes_of(type_: Any) -> int:
    """How many elements a value of this type has."""
    return type_.count if isinstance(type_, ir.VectorType) else 1


def suffix(type_: Any) -> str:
    """LLVM's mangling of a type in an intrinsic's name: v16f32, i64, f32."""
    element = element_of(type_)
    if isinstance(element, ir.IntType):
        name = f"i{element.width}"
    else:
        name = {ir.HalfType: "f16", ir.FloatType: "f32", ir.DoubleType: "f64"}[type(element)]
    return f"v{type_.count}{name}" if isinstance(type_, ir.VectorType) else name


class Builder:
    """One kernel under construction, for one machine."""

    def __init__(self, name: str, machine: Machine, arguments: Sequence[str]) -> None:
        self.machine, self.name = machine, name
        self.module = ir.Module(name)
        self.module.triple = machine.triple
        self.function = ir.Function(self.module, KERNEL_TYPE, name)
        args, self.begin, self.end, self.scratch = self.function.args
        self.ir = ir.IRBuilder(self.function.append_basic_block("enter"))
        self._args, self._slots = args, {slot: i for i, slot in enumerate(arguments)}

    # ---- arguments -----------------------------------------------------------------------------------------

    def arg(self, name: str) -> Value:
        """The integer in slot `name`."""
        return self.ir.load(self.at(self._args, self._slots[name], I64), typ=I64, name=name)

    def pointer(self, name: str) -> Value:
        """The pointer in slot `name`."""
        return self.ir.load(self.at(self._args, self._slots[name], I64), typ=PTR, name=name)

    # ---- integers ------------------------------------------------------------------------------------------

    def int(self, value: Int) -> Value:
        """`value` as an ir.Value."""
        return I64(value) if isinstance(value, int) else value

    def add(self, *terms: Int) -> Int:
        fixed = sum(t for t in terms if isinstance(t, int))
        moving = [t for t in terms if not isinstance(t, int)]
        if not moving:
            return fixed
        total = moving[0]
        for term in moving[1:]:
            total = self.ir.add(total, term)
        return self.ir.add(total, I64(fixed)) if fixed else total

    def sub(self, a: Int, b: Int) -> Int:
        if isinstance(b, int):
            return self.add(a, -b)
        return self.ir.sub(self.int(a), b)

    def mul(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if isinstance(a, int):
            a, b = b, a
        if isinstance(b, int):
            if b == 0:
                return 0
            if b == 1:
                return a
        return self.ir.mul(self.int(a), self.int(b))

    def div(self, a: Int, b: Int) -> Int:
        """a // b for a >= 0 and b > 0."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        return a if isinstance(b, int) and b == 1 else self.ir.udiv(self.int(a), self.int(b))

    def rem(self, a: Int, b: Int) -> Int:
        """a % b for a >= 0 and b > 0."""
        if isinstance(a, int) and isinstance(b, int):
            return a % b
        return 0 if isinstance(b, int) and b == 1 else self.ir.urem(self.int(a), self.int(b))

    def ceil_div(self, a: Int, b: Int) -> Int:
        return self.div(self.add(a, self.sub(b, 1)), b)

    def compare(self, relation: str, a: Int, b: Int) -> Any:
        """A signed comparison: "<", "<=", "==", "!=", ">", ">="; a Python bool when both are known."""
        if isinstance(a, int) and isinstance(b, int):
            return {"<": a < b, "<=": a <= b, "==": a == b, "!=": a != b, ">": a > b, ">=": a >= b}[relation]
        return self.ir.icmp_signed(relation, self.int(a), self.int(b))

    def min(self, a: Int, b: Int) -> Int:
        return self.choose(self.compare("<", a, b), a, b)

    def max(self, a: Int, b: Int) -> Int:
        return self.choose(self.compare(">", a, b), a, b)

    def choose(self, condition: Any, a: Int, b: Int) -> Int:
        """a where `condition` (a Python bool or an i1) holds, else b."""
        if isinstance(condition, bool):
            return a if condition else b
        return self.ir.select(condition, self.int(a), self.int(b))

    # ---- control -------------------------------------------------------------------------------------------

    @contextmanager
    def loop(
        self,
        start: Int,
        stop: Int,
        step: Int = 1,
        carry: list[Value] | None = None,
        at_least_once: bool = False,
    ) -> Generator[Value]:
        """for index in range(start, stop, step). The values in `carry` live in registers from one turn to the
        next: the body replaces them in the list, and after the loop the list has the last ones.
        """
        carry = [] if carry is None else carry
        if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
            turns = len(range(start, stop, step))
            at_least_once = turns > 0
            if turns == 1:
                yield start
                return
        before = self.ir.block
        top, after = self.function.append_basic_block("loop"), self.function.append_basic_block("after")
        if at_least_once:
            self.ir.branch(top)
        else:
            self.ir.cbranch(self.ir.icmp_signed("<", self.int(start), self.int(stop)), top, after)
        self.ir.position_at_end(top)
        index = self.ir.phi(I64)
        index.add_incoming(self.int(start), before)
        first = list(carry)
        phis = [self.ir.phi(value.type) for value in carry]
        for phi, value in zip(phis, first, strict=True):
            phi.add_incoming(value, before)
        carry[:] = phis
        yield index
        following, bottom = self.ir.add(index, self.int(step)), self.ir.block
        index.add_incoming(following, bottom)
        last = list(carry)
        for phi, value in zip(phis, last, strict=True):
            phi.add_incoming(value, bottom)
        self.ir.cbranch(self.ir.icmp_signed("<", following, self.int(stop)), top, after)
        self.ir.position_at_end(after)
        if not at_least_once:
            merged = [self.ir.phi(value.type) for value in last]
            for phi, none, some in zip(merged, first, last, strict=True):
                phi.add_incoming(none, before)
                phi.add_incoming(some, bottom)
            last = merged
        carry[:] = last

    @contextmanager
    def repeat(self, condition: Callable[[], Value], carry: list[Value]) -> Generator[None]:
        """while condition(): the body. The values in `carry` are as in `loop`; the condition, which is
        straight-line code, may use them.
        """
        before = self.ir.block
        top, body, after = (self.function.append_basic_block(n) for n in ("while", "do", "done"))
        self.ir.branch(top)
        self.ir.position_at_end(top)
        phis = [self.ir.phi(value.type) for value in carry]
        for phi, value in zip(phis, carry, strict=True):
            phi.add_incoming(value, before)
        carry[:] = phis
        self.ir.cbranch(condition(), body, after)
        self.ir.position_at_end(body)
        yield
        bottom = self.ir.block
        for phi, value in zip(phis, carry, strict=True):
            phi.add_incoming(value, bottom)
        self.ir.branch(top)
        self.ir.position_at_end(after)
        carry[:] = phis

    @contextmanager
    def when(self, condition: Any) -> Generator[None]:
        """The body runs if `condition` holds. It may not define values that are used after it."""
        if isinstance(condition, bool):
            if condition:
                yield
            else:  # emit into a block that nothing reaches
                here, dead = self.ir.block, self.function.append_basic_block("never")
                self.ir.position_at_end(dead)
                yield
                self.ir.unreachable()
                self.ir.position_at_end(here)
            return
        with self.ir.if_then(condition):
            yield

    def either(
        self, condition: Any, then: Callable[[], list[Value]], other: Callable[[], list[Value]]
    ) -> list[Value]:
        """Values computed by `then()` or `other()`, only one of which runs."""
        if isinstance(condition, bool):
            return then() if condition else other()
        yes, no, join = (self.function.append_basic_block(n) for n in ("yes", "no", "join"))
        self.ir.cbranch(condition, yes, no)
        results: list[tuple[list[Value], Any]] = []
        for block, emit in ((yes, then), (no, other)):
            self.ir.position_at_end(block)
            values = emit()
            results.append((values, self.ir.block))
            self.ir.branch(join)
        self.ir.position_at_end(join)
        merged: list[Value] = []
        for a, b in zip(results[0][0], results[1][0], strict=True):
            phi = self.ir.phi(a.type)
            phi.add_incoming(a, results[0][1])
            phi.add_incoming(b, results[1][1])
            merged.append(phi)
        return merged

    def held(self) -> Value:
        """What the kernel said in this step, on this thread, that it keeps in scratch memory; else -1."""
        return self.load(self.scratch, I64, -1)

    def hold(self, what: Value) -> None:
        """Say what the kernel keeps in scratch memory for its next claim of this step."""
        self.store(what, self.scratch, -1)

    def begin_step(self, scratch: Value) -> None:
        """Nothing is kept in `scratch` when a step begins that gets it."""
        self.store(I64(-1), scratch, -1)

    def call(self, address: Value, *arguments: Value) -> None:
        """Call a function of no result through its address; integers may be Python ints."""
        values = [self.int(a) for a in arguments]
        type_ = ir.FunctionType(VOID, [v.type for v in values])
        function = address if isinstance(address.type, ir.PointerType) else self.ir.inttoptr(address, PTR)
        # llvmlite's opaque pointers carry no function type; its call() wants one on the callee.
        self.ir.call(Callee(function, type_), values)

    # ---- memory --------------------------------------------------------------------------------------------

    def at(self, pointer: Value, index: Int, element: Any) -> Value:
        """The address `index` elements after `pointer`. A sum's constant part is best given last, by a second
        at(): it then folds into the displacement of the instruction.
        """
        if isinstance(index, int) and index == 0:
            return pointer
        return self.ir.gep(pointer, [self.int(index)], source_etype=element)

    def load(
        self, pointer: Value, type_: Any, index: Int = 0, mask: Value | None = None, align: int | None = None
    ) -> Value:
        """One value (scalar or vector) at pointer[index], index in elements. Lanes off `mask` are not read
        and are 0.
        """
        element = element_of(type_)
        where = self.at(pointer, index, element)
        if mask is not None:
            name = f"llvm.masked.load.{suffix(type_)}.p0"
            load = self.declare(name, type_, [PTR, I32, mask.type, type_])
            return self.ir.call(load, [where, I32(align or size_of(element)), mask, ir.Constant(type_, None)])
        return self.ir.load(where, typ=type_, align=align or size_of(element))

    def store(self, value: Value, pointer: Value, index: Int = 0, mask: Value | None = None) -> None:
        """Store a value (scalar or vector) at pointer[index], index in elements; only the lanes of `mask`."""
        element = element_of(value.type)
        where = self.at(pointer, index, element)
        if isinstance(mask, ir.Constant) and [lane.constant for lane in mask.constant] == [1] + [0] * (
            lanes_of(mask.type) - 1
        ):
            # A masked store of one known lane that was narrowed just before (to bfloat16) becomes a store of
            # four bytes in LLVM, two of which belong to the next element.
            value, mask = self.ir.extract_element(value, I32(0)), None
        if mask is not None:
            name = f"llvm.masked.store.{suffix(value.type)}.p0"
            store = self.declare(name, VOID, [value.type, PTR, I32, mask.type])
            self.ir.call(store, [value, where, I32(size_of(element)), mask])
            return
        self.ir.store(value, where, align=size_of(element))

    def broadcast(self, scalar: Value, lanes: int) -> Value:
        """A vector with `scalar` in each lane."""
        if lanes == 1:
            return scalar
        type_ = vector(scalar.type, lanes)
        one = self.ir.insert_element(ir.Constant(type_, ir.Undefined), scalar, I32(0))
        return self.ir.shuffle_vector(one, ir.Constant(type_, ir.Undefined), integers(32, (0,) * lanes))

    def concatenate(self, values: Sequence[Value]) -> Value:
        """One vector with the lanes of two, four, … equal ones; free where it is taken apart again."""
        values = list(values)
        while len(values) > 1:
            lanes = lanes_of(values[0].type)
            numbers = integers(32, tuple(range(2 * lanes)))
            values = [
                self.ir.shuffle_vector(low, high, numbers)
                for low, high in zip(values[::2], values[1::2], strict=True)
            ]
        return values[0]

    def part(self, value: Value, first: int, lanes: int) -> Value:
        """`lanes` lanes of a vector from `first` on."""
        if lanes == 1:
            return self.ir.extract_element(value, I32(first))
        return self.ir.shuffle_vector(value, value, integers(32, tuple(range(first, first + lanes))))

    def gather(self, pointer: Value, type_: Any, stride: Int, count: Int | None = None) -> Value:
        """Lanes pointer[0], pointer[stride], …; lanes from `count` on are not read and are 0."""
        lanes, element = lanes_of(type_), element_of(type_)
        if lanes == 1:
            return self.load(pointer, element)
        steps = integers(64, tuple(range(lanes)))
        offsets = self.ir.mul(steps, self.broadcast(self.int(stride), lanes))
        pointers = self.ir.gep(self.broadcast_pointer(pointer, lanes), [offsets], source_etype=element)
        mask = self.lanes_below(count, lanes) if count is not None else integers(1, (1,) * lanes)
        name = f"llvm.masked.gather.{suffix(type_)}.v{lanes}p0"
        load = self.declare(name, type_, [pointers.type, I32, mask.type, type_])
        return self.ir.call(load, [pointers, I32(size_of(element)), mask, ir.Constant(type_, None)])

    def gather_at(
        self, pointer: Value, offsets: Value, type_: Any, mask: Value | None = None, step: Any = None
    ) -> Value:
        """Lanes pointer[offsets[i]] for a vector of i64 `offsets` in elements (or in elements of type
        `step`); lanes off `mask` are not read and are 0.
        """
        lanes, element = lanes_of(type_), element_of(type_)
        pointers = self.ir.gep(
            self.broadcast(pointer, lanes), [offsets], source_etype=element if step is None else step
        )
        if mask is None:
            mask = integers(1, (1,) * lanes)
        name = f"llvm.masked.gather.{suffix(type_)}.v{lanes}p0"
        load = self.declare(name, type_, [pointers.type, I32, mask.type, type_])
        align = size_of(element if step is None else step)
        return self.ir.call(load, [pointers, I32(align), mask, ir.Constant(type_, None)])

    def scatter(self, value: Value, pointer: Value, stride: Int, count: Int | None = None) -> None:
        """Store lanes at pointer[0], pointer[stride], …; only the first `count` of them."""
        lanes, element = lanes_of(value.type), element_of(value.type)
        if lanes == 1:
            self.store(value, pointer)
            return
        steps = integers(64, tuple(range(lanes)))
        offsets = self.ir.mul(steps, self.broadcast(self.int(stride), lanes))
        pointers = self.ir.gep(self.broadcast_pointer(pointer, lanes), [offsets], source_etype=element)
        mask = self.lanes_below(count, lanes) if count is not None else integers(1, (1,) * lanes)
        name = f"llvm.masked.scatter.{suffix(value.type)}.v{lanes}p0"
        store = self.declare(name, VOID, [value.type, pointers.type, I32, mask.type])
        self.ir.call(store, [value, pointers, I32(size_of(element)), mask])

    def broadcast_pointer(self, pointer: Value, lanes: int) -> Value:
        return self.broadcast(pointer, lanes)

    def lanes_below(self, count: Int, lanes: int) -> Value:
        """The mask of lanes whose number is below `count`; a constant where that is known."""
        if isinstance(count, int):
            return integers(1, tuple([int(lane < count) for lane in range(lanes)]))
        numbers = integers(32, tuple(range(lanes)))
        bounded = self.ir.trunc(self.int(self.max(self.min(count, lanes), 0)), I32)
        return self.ir.icmp_unsigned("<", numbers, self.broadcast(bounded, lanes))

    def prefetch(
        self, pointer: Value, index: Int, element: Any, locality: int = 3, write: bool = False
    ) -> None:
        """Start fetching the line of pointer[index], perhaps to `write` it; locality 3 is L1, 2 is L2."""
        prefetch = self.declare("llvm.prefetch.p0", VOID, [PTR, I32, I32, I32])
        self.ir.call(prefetch, [self.at(pointer, index, element), I32(int(write)), I32(locality), I32(1)])

    # ---- floating point ------------------------------------------------------------------------------------

    def splat(self, number: float, type_: Any) -> Value:
        """`number` in every lane of `type_` (float or integer elements)."""
        if not isinstance(type_, ir.VectorType):
            return ir.Constant(type_, number)
        key = repr(number), str(type_)  # 0.0 and -0.0 are equal, and not the same
        known = _SPLATS.get(key)
        if known is None:
            known = _SPLATS[key] = ir.Constant(type_, [number] * type_.count)
        return known

    def zero(self, type_: Any) -> Value:
        return ir.Constant(type_, None) if isinstance(type_, ir.VectorType) else ir.Constant(type_, 0)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once where the machine can."""
        if not self.machine.fma:
            return self.ir.fadd(self.ir.fmul(a, b), c)
        return self.intrinsic("fma", a, b, c)

    def intrinsic(self, name: str, *arguments: Value) -> Value:
        """A pure LLVM intrinsic overloaded on its first argument's type: "fma", "sqrt", "fabs", "floor",
        "smax" …
        """
        type_ = arguments[0].type
        function = self.declare(f"llvm.{name}.{suffix(type_)}", type_, [a.type for a in arguments])
        return self.ir.call(function, list(arguments))

    def declare(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        """An external function or intrinsic. (llvmlite's own declare_intrinsic crashes on vector types.)"""
        known = self.module.globals.get(name)
        return (
            known
            if known is not None
            else ir.Function(self.module, ir.FunctionType(result, list(arguments)), name)
        )

    def permute(self, value: Value, lanes: Value) -> Value:
        """Lane i of the result is lane lanes[i] of the vector `value`; see `Machine.permutation`. Of lanes[i]
        the bits that count the vector's lanes are looked at alone.
        """
        name = _PERMUTATIONS[suffix(value.type)]
        if suffix(value.type) == "v16i8":  # these look at more bits
            lanes = self.ir.and_(lanes, self.splat(15, lanes.type))
            name = name if self.machine.triple.startswith(("x86", "i686")) else "aarch64.neon.tbl1.v16i8"
        function = self.declare(f"llvm.{name}", value.type, [value.type, lanes.type])
        return self.ir.call(function, [value, lanes])

    def reduce_lanes(self, combine: Callable[[Value, Value], Value], value: Value) -> Value:
        """Combine the lanes of a vector pairwise, always in the same order; returns a scalar."""
        lanes = lanes_of(value.type)
        while lanes > 1:
            half = lanes // 2
            undefined = ir.Constant(value.type, ir.Undefined)
            pick = [ir.Constant(ir.VectorType(I32, half), list(range(s, s + half))) for s in (0, half)]
            low, high = (self.ir.shuffle_vector(value, undefined, p) for p in pick)
            value, lanes = combine(low, high), half
        return self.ir.extract_element(value, I32(0)) if isinstance(value.type, ir.VectorType) else value

    def finish(self) -> str:
        """Close the function; the module as LLVM assembly."""
        if not self.ir.block.is_terminated:
            self.ir.ret_void()
        return str(self.module)


class Callee:
    """A function pointer with the type llvmlite's call() asks for."""

    def __init__(self, pointer: Value, function_type: Any) -> None:
        self.pointer, self.function_type = pointer, function_type
        self.type = pointer.type
        self.name = pointer.name
        self.calling_convention = ""

    def get_reference(self) -> str:
        return self.pointer.get_reference()


def size_of(element: Any) -> int:
    """Bytes of an element in memory."""
    if isinstance(element, ir.IntType):
        return max(1, element.width // 8)
    return {ir.HalfType: 2, ir.FloatType: 4, ir.DoubleType: 8, ir.PointerType: 8}[type(element)]
