"""The native loop that runs a plan: every thread walks the same steps and claims tiles of each until none is
left.

A step's tiles lie in as many shares as threads are worth it. Each thread claims its own share first, in
halves of what remains of it, so that what a core wrote in one step is there when it reads it in the next;
then it helps with the others' shares. So a thread that is late, slow or pushed aside by another process costs
only what it has claimed; one that never comes costs nothing. A thread goes on to the next step when all tiles
of this one are done. Which thread computes a tile changes no result.

A kernel may keep something in its scratch memory from one claim to the next, such as a band of rows that it
has packed. The word before that memory says what: each step begins with -1 there.

A step may come in waves: so many tiles at a time, and none of a wave begins before all of the one before it
are done. A thread claims its share of a wave at once: waves are short.

Steps are rows of six 8-byte words: code, args, tiles, threads that are worth it, the address of the step's
counters, and the tiles of a wave (all of them, for most steps). Counters are a cache line each, since lines
travel between cores and may take half a microsecond: tiles done of all shares, then tiles claimed of each. A
thread counts what it has done when it leaves a share. They need no reset: each carries the number of the run
it counts for, in its upper 40 bits; one from an earlier run counts as 0, and a thread that meets a later
run's leaves.

The team's state is an array of 8-byte words:

    word  0  threads          word  1  turns of waiting before a worker parks
    word  2  address of the system's yield
    word  3  steps            word  4  number of steps            word  5  table of scratch pointers
    word 16  number of the run; odd while words 3 to 5 are being changed
    word 32  workers that may be looking at words 3 to 5, or at the tables they point to
    word 64 + 8 t             1 while worker t is parked, or about to be
"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass

from ingot.codegen.cache import functions
from ingot.codegen.machine import Machine

WORDS_BEFORE_WORKERS, WORDS_PER_WORKER = 64, 8
BUSY_WORD = 32
STEP_WORDS = 6
COUNTER_WORDS = 8  # a cache line
#: Bytes before the scratch memory that a kernel gets, for the word that says what it keeps there.
BEFORE_SCRATCH = 64
MOST_TILES = (1 << 24) - 1
#: Where shares begin is computed in 32 bits: a share's number times the tiles.
MOST_SHARES = 255
TURNS_BEFORE_YIELD = 2000  # about 0.1 ms: by then another process has a core we wait for

_PAUSE = {
    "x86": "call void @llvm.x86.sse2.pause()",
    "arm": "call void @llvm.aarch64.hint(i32 1)",
    "other": 'fence syncscope("singlethread") seq_cst',
}
_DECLARATIONS = {
    "x86": "declare void @llvm.x86.sse2.pause()",
    "arm": "declare void @llvm.aarch64.hint(i32)",
    "other": "",
}

_SOURCE = r"""
define internal void @relax(ptr %team, i64 %turn) noinline {
  PAUSE
  %late = icmp sgt i64 %turn, TURNS
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

; Run all steps alone, without counting.
define internal void @alone(ptr %table, i64 %n, ptr %scratch) {
  %held = getelementptr i64, ptr %scratch, i64 -1
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %step, label %exit
step:
  %i = phi i64 [0, %0], [%i1, %step]
  %row = getelementptr [6 x i64], ptr %table, i64 %i
  %code = load ptr, ptr %row
  %a1 = getelementptr i64, ptr %row, i64 1
  %args = load ptr, ptr %a1
  %a2 = getelementptr i64, ptr %row, i64 2
  %tiles = load i64, ptr %a2
  store i64 -1, ptr %held
  call void %code(ptr %args, i64 0, i64 %tiles, ptr %scratch)
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %n
  br i1 %more, label %step, label %exit
exit:
  ret void
}

; Thread %me helps with the steps of run number %run until all are done, or until a later run has begun.
define internal void @help(ptr %team, i64 %me, i64 %run, ptr %table, i64 %n, ptr %scratch) {
  %held = getelementptr i64, ptr %scratch, i64 -1
  %stamp = shl i64 %run, 24
  %me.short = trunc i64 %me to i32
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %step, label %exit
step:
  %i = phi i64 [0, %0], [%i1, %next]
  %row = getelementptr [6 x i64], ptr %table, i64 %i
  %code = load ptr, ptr %row
  %a1 = getelementptr i64, ptr %row, i64 1
  %args = load ptr, ptr %a1
  %a2 = getelementptr i64, ptr %row, i64 2
  %tiles = load i64, ptr %a2
  %a3 = getelementptr i64, ptr %row, i64 3
  %sharers = load i64, ptr %a3
  %a4 = getelementptr i64, ptr %row, i64 4
  %counters = load ptr, ptr %a4
  %a5 = getelementptr i64, ptr %row, i64 5
  %wave = load i64, ptr %a5
  store i64 -1, ptr %held
  %shares = trunc i64 %sharers to i32
  %own = urem i32 %me.short, %shares
  %wave.short = trunc i64 %wave to i32
  %shared = icmp sgt i64 %sharers, 1
  %alike = icmp eq i64 %wave, %tiles
  %by.halves = and i1 %shared, %alike
  %halving = zext i1 %by.halves to i64
  %nothing = icmp sle i64 %tiles, 0
  br i1 %nothing, label %next, label %begin.wave
begin.wave:
  %before = phi i64 [0, %step], [%after, %wave.done]
  %w = phi i64 [0, %step], [%w1, %wave.done]
  %w1 = add i64 %w, 1
  %after = add i64 %before, %wave
  %goal = or i64 %stamp, %after
  br label %visit
visit:
  %v = phi i32 [0, %begin.wave], [%v1, %visited.all]
  %v1 = add i32 %v, 1
  %round = add i32 %own, %v
  %over = icmp uge i32 %round, %shares
  %wrapped = sub i32 %round, %shares
  %share = select i1 %over, i32 %wrapped, i32 %round
  %share1 = add i32 %share, 1
  %low.n = mul i32 %share, %wave.short
  %low = udiv i32 %low.n, %shares
  %high.n = mul i32 %share1, %wave.short
  %high = udiv i32 %high.n, %shares
  %length.short = sub i32 %high, %low
  %length = zext i32 %length.short to i64
  %low.long = zext i32 %low to i64
  %earlier = mul i64 %w, %length
  %limit = add i64 %earlier, %length
  %first.n = add i64 %before, %low.long
  %first = sub i64 %first.n, %earlier
  %line = zext i32 %share1 to i64
  %place = shl i64 %line, 3
  %claimed = getelementptr i64, ptr %counters, i64 %place
  br label %claim
claim:
  %did = phi i64 [0, %visit], [%did, %take], [%did.more, %work]
  %c = load atomic i64, ptr %claimed acquire, align 8
  %c.stamp = and i64 %c, -16777216
  %c.same = icmp eq i64 %c.stamp, %stamp
  %c.difference = sub i64 %c.stamp, %stamp
  %c.later = icmp sgt i64 %c.difference, 0
  br i1 %c.later, label %exit, label %portion
portion:
  %c.tiles = and i64 %c, 16777215
  %used = select i1 %c.same, i64 %c.tiles, i64 0
  %left = sub i64 %limit, %used
  %none = icmp sle i64 %left, 0
  br i1 %none, label %visited, label %take
take:
  %part = lshr i64 %left, %halving
  %small = icmp slt i64 %part, 1
  %size = select i1 %small, i64 1, i64 %part
  %taken = add i64 %used, %size
  %wanted = or i64 %stamp, %taken
  %pair = cmpxchg ptr %claimed, i64 %c, i64 %wanted acq_rel acquire
  %won = extractvalue { i64, i1 } %pair, 1
  br i1 %won, label %work, label %claim
work:
  %begin = add i64 %first, %used
  %end = add i64 %begin, %size
  call void %code(ptr %args, i64 %begin, i64 %end, ptr %scratch)
  %did.more = add i64 %did, %size
  br label %claim
visited:
  %idle = icmp eq i64 %did, 0
  br i1 %idle, label %visited.all, label %count
count:
  %d = load atomic i64, ptr %counters acquire, align 8
  %d.stamp = and i64 %d, -16777216
  %d.same = icmp eq i64 %d.stamp, %stamp
  %d.base = select i1 %d.same, i64 %d, i64 %stamp
  %d.new = add i64 %d.base, %did
  %d.pair = cmpxchg ptr %counters, i64 %d, i64 %d.new acq_rel acquire
  %counted = extractvalue { i64, i1 } %d.pair, 1
  br i1 %counted, label %counted.all, label %count
counted.all:
  %last = icmp sge i64 %d.new, %goal
  br i1 %last, label %wave.done, label %visited.all
visited.all:
  %more.shares = icmp ult i32 %v1, %shares
  br i1 %more.shares, label %visit, label %spin
spin:
  %turn = phi i64 [0, %visited.all], [%turn1, %again]
  %now = load atomic i64, ptr %counters acquire, align 8
  %now.stamp = and i64 %now, -16777216
  %now.difference = sub i64 %now.stamp, %stamp
  %now.later = icmp sgt i64 %now.difference, 0
  br i1 %now.later, label %exit, label %compare
compare:
  %all = icmp sge i64 %now, %goal
  br i1 %all, label %wave.done, label %again
again:
  call void @relax(ptr %team, i64 %turn)
  %turn1 = add i64 %turn, 1
  br label %spin
wave.done:
  %more.waves = icmp slt i64 %after, %tiles
  br i1 %more.waves, label %begin.wave, label %next
next:
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %n
  br i1 %more, label %step, label %exit
exit:
  ret void
}

; Thread 0's part of the run that was announced.
define void @work(ptr %team) {
  %threads = load i64, ptr %team
  %p3 = getelementptr i64, ptr %team, i64 3
  %table = load ptr, ptr %p3
  %p4 = getelementptr i64, ptr %team, i64 4
  %n = load i64, ptr %p4
  %p5 = getelementptr i64, ptr %team, i64 5
  %scratches = load ptr, ptr %p5
  %scratch = load ptr, ptr %scratches
  %solo = icmp eq i64 %threads, 1
  br i1 %solo, label %one, label %many
one:
  call void @alone(ptr %table, i64 %n, ptr %scratch)
  ret void
many:
  %g = getelementptr i64, ptr %team, i64 16
  %run = load atomic i64, ptr %g acquire, align 8
  call void @help(ptr %team, i64 0, i64 %run, ptr %table, i64 %n, ptr %scratch)
  ret void
}

; Announce a run; do it at once if no worker is parked, or if none is to be woken.
; Returns how many are parked and should be woken: then nothing was done yet, and work() does it.
define i64 @run(ptr %team, ptr %table, i64 %n, ptr %scratches, i64 %wake) {
  %threads = load i64, ptr %team
  %g = getelementptr i64, ptr %team, i64 16
  %old = atomicrmw add ptr %g, i64 1 seq_cst
  %p3 = getelementptr i64, ptr %team, i64 3
  store atomic ptr %table, ptr %p3 seq_cst, align 8
  %p4 = getelementptr i64, ptr %team, i64 4
  store atomic i64 %n, ptr %p4 seq_cst, align 8
  %p5 = getelementptr i64, ptr %team, i64 5
  store atomic ptr %scratches, ptr %p5 seq_cst, align 8
  %odd = atomicrmw add ptr %g, i64 1 seq_cst
  br label %loop
loop:
  %t = phi i64 [1, %0], [%t1, %body]
  %parked = phi i64 [0, %0], [%parked1, %body]
  %more = icmp slt i64 %t, %threads
  br i1 %more, label %body, label %ready
body:
  %off = mul i64 %t, 8
  %at = add i64 %off, 64
  %p = getelementptr i64, ptr %team, i64 %at
  %state = load atomic i64, ptr %p seq_cst, align 8
  %parked1 = add i64 %parked, %state
  %t1 = add i64 %t, 1
  br label %loop
ready:
  %asleep = icmp ne i64 %parked, 0
  %wanted = icmp ne i64 %wake, 0
  %first = and i1 %asleep, %wanted
  br i1 %first, label %out, label %go
go:
  call void @work(ptr %team)
  ret i64 0
out:
  ret i64 %parked
}

; Worker %me: help with whatever is announced after run %seen. Returns the last run seen, when idle for long.
define i64 @serve(ptr %team, i64 %me, i64 %seen) {
  %p1 = getelementptr i64, ptr %team, i64 1
  %patience = load i64, ptr %p1
  %g = getelementptr i64, ptr %team, i64 16
  %busy = getelementptr i64, ptr %team, i64 32
  %off = mul i64 %me, 8
  %at = add i64 %off, 64
  %parked = getelementptr i64, ptr %team, i64 %at
  store atomic i64 0, ptr %parked seq_cst, align 8
  br label %wait
wait:
  %last = phi i64 [%seen, %0], [%now, %left], [%last, %missed], [%last, %awake]
  br label %spin
spin:
  %turn = phi i64 [0, %wait], [%turn1, %again]
  %now = load atomic i64, ptr %g seq_cst, align 8
  %same = icmp eq i64 %now, %last
  %bit = and i64 %now, 1
  %changing = icmp ne i64 %bit, 0
  %nothing = or i1 %same, %changing
  br i1 %nothing, label %idle, label %enter
idle:
  %tired = icmp sge i64 %turn, %patience
  br i1 %tired, label %park, label %again
again:
  call void @relax(ptr %team, i64 0)
  %turn1 = add i64 %turn, 1
  br label %spin
enter:
  %b0 = atomicrmw add ptr %busy, i64 1 seq_cst
  %p3 = getelementptr i64, ptr %team, i64 3
  %table = load atomic ptr, ptr %p3 seq_cst, align 8
  %p4 = getelementptr i64, ptr %team, i64 4
  %n = load atomic i64, ptr %p4 seq_cst, align 8
  %p5 = getelementptr i64, ptr %team, i64 5
  %scratches = load atomic ptr, ptr %p5 seq_cst, align 8
  %still = load atomic i64, ptr %g seq_cst, align 8
  %steady = icmp eq i64 %still, %now
  br i1 %steady, label %helping, label %missed
helping:
  %mine = getelementptr ptr, ptr %scratches, i64 %me
  %scratch = load ptr, ptr %mine
  call void @help(ptr %team, i64 %me, i64 %now, ptr %table, i64 %n, ptr %scratch)
  br label %left
left:
  %b1 = atomicrmw sub ptr %busy, i64 1 seq_cst
  br label %wait
missed:
  %b2 = atomicrmw sub ptr %busy, i64 1 seq_cst
  br label %wait
park:
  store atomic i64 1, ptr %parked seq_cst, align 8
  %late = load atomic i64, ptr %g seq_cst, align 8
  %quiet = icmp eq i64 %late, %last
  br i1 %quiet, label %leave, label %awake
awake:
  store atomic i64 0, ptr %parked seq_cst, align 8
  br label %wait
leave:
  ret i64 %last
}

; For measuring how long a turn of waiting takes.
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

    run: int
    work: int
    serve: int
    idle: int


@functools.cache
def runner(machine: Machine) -> Runner:
    """The loop for this machine, made once a process."""
    name = platform.machine().lower()
    kind = (
        "x86" if name in ("x86_64", "amd64", "i686") else "arm" if name in ("aarch64", "arm64") else "other"
    )
    body = _SOURCE.replace("PAUSE", _PAUSE[kind]).replace("TURNS", str(TURNS_BEFORE_YIELD))
    return Runner(*functions(_DECLARATIONS[kind] + body, ("run", "work", "serve", "idle"), machine))
