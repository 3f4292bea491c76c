"""`make test`: lint, formatting, types and tests, one after the other, with one closing summary.

Every stage runs even when an earlier one failed, so that one run shows everything there is to repair.
Only the standard library is used here. The exit code is 0 when all stages passed, else 1.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
# A file's tests stay together. A worker that dies ends the run: with another one in its place it never ended.
_TWO_WORKERS = ["-n", "2", "--dist", "loadfile", "--max-worker-restart", "0"]


def pytest_counts(report: Path) -> str:
    """Turn pytest's JUnit file into '412 passed, 1 failed, 3 skipped'; says so when pytest wrote none."""
    if not report.exists():
        return "no report: pytest did not finish"
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    count = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    parts = [f"{passed} passed"]
    for key, word in (("failures", "failed"), ("errors", "errors"), ("skipped", "skipped")):
        if count[key]:
            parts.append(f"{count[key]} {word}")
    return ", ".join(parts)


def first_match(pattern: str, text: str, otherwise: str) -> str:
    """Return the first match of pattern in text, which is where a tool counts what is wrong."""
    found = re.findall(pattern, text)
    return found[0] if found else otherwise


def main() -> int:
    """Run the stages, print the summary, return the exit code."""
    # Two workers share two cores: a thread pool in each of them would only make them wait for each other.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    rows: list[tuple[str, bool, str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "pytest.xml"
        stages: list[tuple[str, list[str]]] = [
            ("lint", ["ruff", "check", "."]),
            ("format", ["ruff", "format", "--check", "."]),
            ("types", ["pyright"]),
            ("tests", ["pytest", *_TWO_WORKERS, f"--junitxml={report}", *sys.argv[1:]]),
        ]
        for name, command in stages:
            print(f"== {name}: {' '.join(command)}", flush=True)
            start = time.monotonic()
            process = subprocess.Popen(
                [PYTHON, "-m", *command],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert process.stdout is not None
            lines: list[str] = []
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                lines.append(line)
            passed = process.wait() == 0
            output = "".join(lines)
            if name == "lint":
                count = first_match(r"Found \d+ errors?", output, "clean" if passed else "failed")
            elif name == "format":
                wanted = r"\d+ files? (?:would be reformatted|already formatted)"
                count = first_match(wanted, output, "failed")
            elif name == "types":
                count = first_match(r"\d+ errors?, \d+ warnings?", output, "failed")
            else:
                count = pytest_counts(report)
            rows.append((name, passed, count, time.monotonic() - start))
    print("\n== summary")
    for name, passed, count, seconds in rows:
        print(f"   {name:<7} {'ok' if passed else 'FAILED':<7} {count}  ({seconds:.0f} s)")
    failed = [name for name, passed, _, _ in rows if not passed]
    total = sum(seconds for *_, seconds in rows)
    print(f"   {'FAILED: ' + ', '.join(failed) if failed else 'all passed'} in {total:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
