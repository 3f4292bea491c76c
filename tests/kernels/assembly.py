"""What the generated machine code must look like: loops that multiply keep their values in registers."""

from __future__ import annotations

import re


def spills_in_loops(assembly: str, multiplications: int) -> int:
    """Stack references of vector registers in innermost loops of at least so many multiplications (x86)."""
    found = 0
    loops = 0
    for label, block in re.findall(r"\n(\.L\w+):(.*?)(?=\n\.L\w+:|\Z)", assembly, re.DOTALL):
        back = re.search(rf"\tj\w+\t{re.escape(label)}\n", block)
        if back is None:
            continue
        body = block[: back.end()]
        if len(re.findall(r"vfmadd|mulps", body)) >= multiplications:
            loops += 1
            found += len(re.findall(r"[xyz]mm.*rsp|rsp.*[xyz]mm", body))
    assert loops, f"no loop has {multiplications} multiplications"
    return found
