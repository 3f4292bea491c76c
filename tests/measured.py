"""Which commit the rows of a generated table are of: a long table is measured in portions."""

from __future__ import annotations

import collections
import subprocess
from collections.abc import Iterable

UNNOTED = "an earlier one"  # of rows that were measured before commits were noted


def commit() -> str:
    """The day and the commit that is measured, with a + where the package differs from it."""
    asked = ("git", "log", "-1", "--format=%cs %h"), ("git", "status", "--porcelain", "--", "src")
    made, changed = (subprocess.run(a, capture_output=True, text=True, check=True).stdout for a in asked)
    return made.strip() + ("+" if changed.strip() else "")


def listed(commits: Iterable[str | None]) -> str:
    """Each day and commit once, with how many rows are of it."""
    counts = collections.Counter(c or UNNOTED for c in commits)
    return ", ".join(f"{c} ({n})" for c, n in sorted(counts.items()))
