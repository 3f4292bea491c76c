"""The native loop that runs a plan: every thread takes its share of each step's tiles and meets the others at
a barrier.

Steps are rows of five 8-byte words: code, args, tiles, threads that share it, and whether a barrier follows.
The team's state is an array of 8-byte words, each thing that is written often on a cache line of its own:

    word  0  threads          word  1  spins before a worker parks    word  2  address of the system's yield
    word  3  steps            word  4  number of steps                word  5  table of scratch pointers
    word 16  generation       (one more for each run; workers wait for it to change)
    word 32  arrivals         word 48  barrier's sense
    word 64 + 8 t             1 while worker t is parked, or about to be
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from ingot.codegen.machine import Machine

WORDS_BEFORE_WORKERS, WORDS_PER_WORKER = 64, 8
STEP_WORDS = 5
SPINS_BEFORE_YIELD = 2000  # about 0.1 ms: by then another process has our core

_PAUSE = {
    "x86": "call void @llvm.x86.sse2.pause()",
    "arm": "call void @llvm.aarch64.hint(i32 1)",
    "other": 'fence syncscope("singlethread") seq_cst',
}

_SOURCE = r"""
define internal void @relax(ptr %team, i64 %turn) noinline {
  PAUSE
  %late = icmp sgt i64 %turn, SPINS
  br i1 %late, label %give, label %done
give:
  %slot = getelementptr i64, ptr %team, i64 2
  %yield = load ptr, ptr %slot
  %known = icmp ne ptr %yield, null
  br i1 %known, label %call, label %done
call:
  %r = call i32 %yield()
  br label %done
done:
  ret void
}

define internal void @barrier(ptr %team, i64 %threads) noinline {
  %count = getelementptr i64, ptr %team, i64 32
  %sense = getelementptr i64, ptr %team, i64 48
  %before = load atomic i64, ptr %sense acquire, align 8
  %arrived = atomicrmw add ptr %count, i64 1 acq_rel
  %mine = add i64 %arrived, 1
  %last = icmp eq i64 %mine, %threads
  br i1 %last, label %release, label %wait
release:
  store atomic i64 0, ptr %count monotonic, align 8
  %next = add i64 %before, 1
  store atomic i64 %next, ptr %sense release, align 8
  ret void
wait:
  br label %spin
spin:
  %turn = phi i64 [0, %wait], [%turn1, %again]
  %now = load atomic i64, ptr %sense acquire, align 8
  %same = icmp eq i64 %now, %before
  br i1 %same, label %again, label %done
again:
  call void @relax(ptr %team, i64 %turn)
  %turn1 = add i64 %turn, 1
  br label %spin
done:
  ret void
}

; Run every step's share of thread `me`. The last step's barrier makes all results visible to thread 0.
define void @steps(ptr %team, i64 %me) {
  %threads = load i64, ptr %team
  %p3 = getelementptr i64, ptr %team, i64 3
  %table = load ptr, ptr %p3
  %p4 = getelementptr i64, ptr %team, i64 4
  %n = load i64, ptr %p4
  %p5 = getelementptr i64, ptr %team, i64 5
  %scratches = load ptr, ptr %p5
  %mine = getelementptr ptr, ptr %scratches, i64 %me
  %scratch = load ptr, ptr %mine
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %step, label %exit
step:
  %i = phi i64 [0, %0], [%i1, %next]
  %row = getelementptr [5 x i64], ptr %table, i64 %i
  %code = load ptr, ptr %row
  %a1 = getelementptr i64, ptr %row, i64 1
  %args = load ptr, ptr %a1
  %a2 = getelementptr i64, ptr %row, i64 2
  %tiles = load i64, ptr %a2
  %a3 = getelementptr i64, ptr %row, i64 3
  %sharers = load i64, ptr %a3
  %a4 = getelementptr i64, ptr %row, i64 4
  %meet = load i64, ptr %a4
  %fewer = icmp slt i64 %threads, %sharers
  %team_size = select i1 %fewer, i64 %threads, i64 %sharers
  %works = icmp slt i64 %me, %team_size
  br i1 %works, label %share, label %join
share:
  %lo = mul i64 %tiles, %me
  %begin = sdiv i64 %lo, %team_size
  %hi = add i64 %lo, %tiles
  %end = sdiv i64 %hi, %team_size
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %work, label %join
work:
  call void %code(ptr %args, i64 %begin, i64 %end, ptr %scratch)
  br label %join
join:
  %alone = icmp eq i64 %threads, 1
  %go_on = icmp eq i64 %meet, 0
  %skip = or i1 %alone, %go_on
  br i1 %skip, label %next, label %meeting
meeting:
  call void @barrier(ptr %team, i64 %threads)
  br label %next
next:
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %n
  br i1 %more, label %step, label %exit
exit:
  ret void
}

; Thread 0: announce a run. Returns how many workers are parked and must be woken.
define i64 @announce(ptr %team) {
  %threads = load i64, ptr %team
  %g = getelementptr i64, ptr %team, i64 16
  %old = atomicrmw add ptr %g, i64 1 seq_cst
  br label %loop
loop:
  %t = phi i64 [1, %0], [%t1, %body]
  %parked = phi i64 [0, %0], [%parked1, %body]
  %more = icmp slt i64 %t, %threads
  br i1 %more, label %body, label %done
body:
  %off = mul i64 %t, 8
  %at = add i64 %off, 64
  %p = getelementptr i64, ptr %team, i64 %at
  %state = load atomic i64, ptr %p seq_cst, align 8
  %parked1 = add i64 %parked, %state
  %t1 = add i64 %t, 1
  br label %loop
done:
  ret i64 %parked
}

; Thread 0, when no worker sleeps: announce and run at once. Returns the number of parked workers (then nothing ran yet).
define i64 @run(ptr %team) {
  %parked = call i64 @announce(ptr %team)
  %none = icmp eq i64 %parked, 0
  br i1 %none, label %go, label %out
go:
  call void @steps(ptr %team, i64 0)
  br label %out
out:
  ret i64 %parked
}

; Worker `me`: run whatever is announced after `seen`; return the last generation seen, once there was nothing to do for long.
define i64 @serve(ptr %team, i64 %me, i64 %seen) {
  %p1 = getelementptr i64, ptr %team, i64 1
  %patience = load i64, ptr %p1
  %g = getelementptr i64, ptr %team, i64 16
  %off = mul i64 %me, 8
  %at = add i64 %off, 64
  %parked = getelementptr i64, ptr %team, i64 %at
  store atomic i64 0, ptr %parked seq_cst, align 8
  br label %wait
wait:
  %last = phi i64 [%seen, %0], [%now, %ran], [%last, %awake]
  br label %spin
spin:
  %turn = phi i64 [0, %wait], [%turn1, %again]
  %now = load atomic i64, ptr %g acquire, align 8
  %same = icmp eq i64 %now, %last
  br i1 %same, label %idle, label %ran
idle:
  %tired = icmp sge i64 %turn, %patience
  br i1 %tired, label %park, label %again
again:
  call void @relax(ptr %team, i64 0)
  %turn1 = add i64 %turn, 1
  br label %spin
ran:
  call void @steps(ptr %team, i64 %me)
  br label %wait
park:
  store atomic i64 1, ptr %parked seq_cst, align 8
  %late = load atomic i64, ptr %g seq_cst, align 8
  %still = icmp eq i64 %late, %last
  br i1 %still, label %leave, label %awake
awake:
  store atomic i64 0, ptr %parked seq_cst, align 8
  br label %wait
leave:
  ret i64 %last
}

; For measuring how long one turn of waiting takes.
define void @idle(ptr %team, i64 %turns) {
  br label %loop
loop:
  %i = phi i64 [0, %0], [%i1, %loop]
  call void @relax(ptr %team, i64 0)
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %turns
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""


@dataclass(frozen=True, slots=True)
class Runner:
    """Addresses of the native functions above."""

    steps: int
    announce: int
    run: int
    serve: int
    idle: int
    engine: Any  # keeps the code alive


@functools.cache
def runner(machine: Machine) -> Runner:
    """Compile the loop for this machine (a few milliseconds, once a process)."""
    name = platform.machine().lower()
    kind = (
        "x86" if name in ("x86_64", "amd64", "i686") else "arm" if name in ("aarch64", "arm64") else "other"
    )
    declarations = {
        "x86": "declare void @llvm.x86.sse2.pause()\n",
        "arm": "declare void @llvm.aarch64.hint(i32)\n",
    }
    source = declarations.get(kind, "") + _SOURCE.replace("PAUSE", _PAUSE[kind]).replace(
        "SPINS", str(SPINS_BEFORE_YIELD)
    )
    module = llvm.parse_assembly(source)
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine.target())
    engine.finalize_object()
    names = ("steps", "announce", "run", "serve", "idle")
    return Runner(*(engine.get_function_address(n) for n in names), engine=engine)
