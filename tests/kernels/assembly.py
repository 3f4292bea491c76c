"""What the generated machine code must look like: innermost loops keep their vectors in registers.

Of x86 (AT&T syntax) and of AArch64, as `codegen.cache.native_assembly` gives it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LABEL = re.compile(r"([\w.$]+):")
_JUMP = re.compile(r"\s+(j\w+|b|b\.\w+|cbn?z|tbn?z)\s.*?(\.L\w+)$")
_END = re.compile(r"\s+(?:jmp\w*|b|br|retq?|ud2|brk)\b(?!\.)")  # what follows is not reached from here
_CALL = re.compile(r"\s+(?:call\w*|bl|blr)\s")
_PRODUCT = re.compile(r"\s+(?:v?fn?m(?:add|sub|la|ls)|v?mulp[sd]|fmul|vpdpbusd|tdpbusd)")
# Vector, mask and tile registers; on AArch64 a part of one is b, h, s or d.
_VECTOR = re.compile(r"%(?:[xyzt]mm\d+|k\d)|[\s{,](?:v\d+\.|[bhsdq]\d+\b)")
_MOVE = re.compile(r"\s+(?:v?k?mov|v?p?broadcast|ld|st|fmov|dup|tilel|tiles)")
_STACK = re.compile(r"\(%rsp|\[sp\b")
_FRAME = re.compile(r"\s+movq\s+%rsp, %rbp$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Spills:
    """Instructions of innermost loops that touch the stack: with a vector that is stored there, and with one
    that is read from there (of x86, often as an operand of arithmetic).
    """

    stores: int = 0
    loads: int = 0


@dataclass(frozen=True, slots=True)
class Loop:
    """Instructions that a loop runs each time, but for those of loops in it; whether it has any in it."""

    lines: list[str]
    innermost: bool


def loops(assembly: str) -> list[Loop]:
    """All loops but those that call functions: across a call, the convention of calls leaves few vectors in
    registers, whatever a kernel does.
    """
    blocks, edges = _flow(assembly.split("\n"))
    found = [
        Loop([line for b in sorted(own) for line in blocks[b]], innermost) for own, innermost in _nest(edges)
    ]
    return [loop for loop in found if not any(_CALL.match(line) for line in loop.lines)]


def _flow(lines: list[str]) -> tuple[list[list[str]], list[list[int]]]:
    """Basic blocks of instructions in their order, and where each one may go on."""
    blocks: list[list[str]] = [[]]
    labels: dict[str, int] = {}
    for line in lines:
        label = _LABEL.match(line)
        if label:
            if blocks[-1]:
                blocks.append([])
            labels[label[1]] = len(blocks) - 1
        elif re.match(r"\s+[a-z]", line):
            blocks[-1].append(line)
            if _JUMP.match(line) or _END.match(line):
                blocks.append([])
    edges: list[list[int]] = []
    for i, block in enumerate(blocks):
        jump = _JUMP.match(block[-1]) if block else None
        goes_on = i + 1 < len(blocks) and not (block and _END.match(block[-1]))
        edges.append(([labels[jump[2]]] if jump and jump[2] in labels else []) + ([i + 1] if goes_on else []))
    return blocks, edges


def _nest(edges: list[list[int]]) -> list[tuple[set[int], bool]]:
    """The blocks of each loop, without those of the loops in it, and whether there are none.

    A loop is a cycle; the loops in it are the cycles that are left without the block where it is entered.
    """
    found: list[tuple[set[int], bool]] = []
    todo = [set(range(len(edges)))]
    while todo:
        for cycle in _cycles(edges, todo.pop()):
            entries = {b for a, row in enumerate(edges) if a not in cycle for b in row if b in cycle}
            rest = cycle - (entries or {min(cycle)})
            inner = _cycles(edges, rest)
            found.append((cycle.difference(*inner), not inner))
            if inner:
                todo.append(rest)
    return sorted(found, key=lambda loop: min(loop[0]))


def _cycles(edges: list[list[int]], among: set[int]) -> list[set[int]]:
    """The strongly connected parts of the blocks `among` that have a cycle (Tarjan, 1972)."""
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    waiting: set[int] = set()
    found: list[set[int]] = []
    for root in sorted(among):
        if root in order:
            continue
        path = [(root, iter([b for b in edges[root] if b in among]))]
        order[root] = low[root] = len(order)
        stack.append(root)
        waiting.add(root)
        while path:
            block, further = path[-1]
            for other in further:
                if other not in order:
                    order[other] = low[other] = len(order)
                    stack.append(other)
                    waiting.add(other)
                    path.append((other, iter([b for b in edges[other] if b in among])))
                    break
                if other in waiting:
                    low[block] = min(low[block], order[other])
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[block])
                if low[block] == order[block]:
                    part: set[int] = set()
                    while block not in part:
                        part.add(stack.pop())
                    waiting -= part
                    if len(part) > 1 or block in edges[block]:
                        found.append(part)
    return found


def products(loop: Loop) -> int:
    """Instructions that multiply vectors (or registers of them)."""
    return sum(bool(_PRODUCT.match(line)) for line in loop.lines)


def work(loop: Loop) -> int:
    """Instructions on vectors that are more than a move, a load or a store."""
    used = [line for line in loop.lines if _VECTOR.search(line)]
    return sum(not _MOVE.match(line) and not _STACK.search(line) for line in used)


def spills(loop: Loop, assembly: str) -> Spills:
    """What of a loop of the assembly touches the stack."""
    frame = "%rbp|" if _FRAME.search(assembly) else ""  # otherwise %rbp holds what any register may
    stack = re.compile(rf"\((?:{frame}%rsp)|\[sp\b")
    stores = loads = 0
    for line in loop.lines:
        if stack.search(line) and _VECTOR.search(line):
            # A store's target is the last operand on x86; on AArch64 the name says it.
            is_store = re.match(r"\s+st", line) if "[sp" in line else stack.search(line.rsplit(", ", 1)[-1])
            stores, loads = stores + bool(is_store), loads + (not is_store)
    return Spills(stores, loads)


def spills_in_loops(assembly: str, multiplications: int) -> int:
    """Stack references of vector registers in innermost loops of at least so many multiplications."""
    chosen = [loop for loop in loops(assembly) if loop.innermost and products(loop) >= multiplications]
    assert chosen, f"no loop has {multiplications} multiplications"
    return sum(found.stores + found.loads for found in (spills(loop, assembly) for loop in chosen))
