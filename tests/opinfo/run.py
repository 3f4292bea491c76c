"""`make opinfo`: every sampled call of every entry, in forked workers; writes results.json and docs/aten.md.

A few entries while working: `make opinfo ARGS="--entries '^fft' --samples 2"`. A partial run prints what it
found and leaves the two files alone; `--write` adds its entries to them. `--keep FILE` notes each entry when
it is done and goes on behind what is noted there: a long run in portions (`--minutes`).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.measured import commit
from tests.opinfo import report
from tests.opinfo.judge import Judge, Outcome, Own, outcome
from tests.opinfo.samples import UNDEFINED, calls, entries

SAMPLE_SECONDS = 30
ENTRY_SECONDS = 600


def main() -> int:
    """Run, print a summary, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", default="", help="a regular expression over entry names")
    parser.add_argument(
        "--failing", action="store_true", help="only entries that do not pass in results.json"
    )
    parser.add_argument("--stale", action="store_true", help="only entries without a result of this commit")
    parser.add_argument("--samples", type=int, default=0, help="samples for each entry; 0 for all")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--judge", choices=("other", "ingot"), default="other")
    parser.add_argument("--keep", type=Path, help="a file of finished entries, which are not run again")
    parser.add_argument("--minutes", type=float, default=0.0, help="begin no entry after that; 0 for no end")
    parser.add_argument("--write", action="store_true", help="write a partial run's results too")
    options = parser.parse_args()
    known = report.load()
    names = [n for n in entries() if re.search(options.entries, n)]
    if options.failing:
        names = [n for n in names if report.verdict(known.get(n, {})) != "pass"]
    start, at = time.monotonic(), commit()
    if options.stale:
        names = [n for n in names if known.get(n, {}).get("at") != at]
    results = _kept(options.keep, names)
    for name, outcomes in _all([n for n in names if n not in results], options):
        results[name] = report.summed(outcomes, options.samples, at)
        print(report.line(name, results[name]), flush=True)
        if options.keep:
            with options.keep.open("a") as kept:
                kept.write(json.dumps([name, results[name]]) + "\n")
    print(report.causes(results))
    print(f"{report.totals(results)} in {time.monotonic() - start:.0f} s")
    whole = len(results) == len(entries()) and not options.samples and options.judge == "other"
    if whole or options.write:
        report.write({**({} if whole else known), **results})
    return 0


def _kept(path: Path | None, names: list[str]) -> dict[str, Any]:
    """What earlier portions of this run found."""
    rows = path.read_text().splitlines() if path and path.exists() else []
    return {name: result for name, result in map(json.loads, rows) if name in names}


def _all(names: list[str], options: Any) -> Iterator[tuple[str, list[Outcome]]]:
    """Each entry in a process of its own, so that a crash or an endless loop costs only that entry."""
    waiting = collections.deque(names)
    running: dict[int, tuple[str, Path]] = {}
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            if time.monotonic() > end:
                waiting.clear()
            while waiting and len(running) < options.workers:
                name = waiting.popleft()
                path = Path(folder) / str(len(waiting))
                pid = os.fork()
                if pid == 0:
                    _child(name, path, options)
                running[pid] = (name, path)
            if not running:
                break
            pid, status = os.waitpid(-1, 0)
            name, path = running.pop(pid)
            text = path.read_text() if path.exists() else ""
            outcomes = [Outcome(*json.loads(row)) for row in text.splitlines()]
            if status:
                outcomes.append(Outcome("crash", f"the process ended with status {status}"))
            yield name, outcomes


def _child(name: str, path: Path, options: Any) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (ENTRY_SECONDS, ENTRY_SECONDS))  # others may be at work
    with path.open("w") as sink:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2)
        op = entries()[name]
        try:
            for count, (function, args, kwargs) in enumerate(calls(op)):
                if options.samples and count >= options.samples:
                    break
                judge = Own() if options.judge == "ingot" else Judge()
                try:
                    with _limited(SAMPLE_SECONDS):
                        found = outcome(function, args, kwargs, undefined=op.name in UNDEFINED, judge=judge)
                except TimeoutError:
                    found = Outcome("crash", f"takes longer than {SAMPLE_SECONDS} s of the CPU")
                sink.write(json.dumps([found.status, found.reason, found.judge]) + "\n")
                sink.flush()
        except Exception as error:  # the database itself cannot make its samples here
            sink.write(json.dumps(["skipped", f"no samples: {error}", ""]) + "\n")
    os._exit(0)


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
