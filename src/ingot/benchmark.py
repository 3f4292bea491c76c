"""One job, several runners: outputs compared first, then times taken side by side.

What `ingot bench` prints for one file and `make bench` for the whole zoo comes from here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ingot.peers import Arrays, Job, Runner, complaint, other_weight, prepare
from ingot.timing import MachineLoad, interleave, worst_difference

TOLERANCE = 1e-4  # of the largest value of an output, for float32


@dataclass
class Measured:
    """One runner on one job: times in seconds, or the reason why there are none.

    `difference` is the worst over all outputs of max|a - b| / max|b| against the reference,
    `to_onnxruntime` the same against ONNX Runtime's outputs, where it took part.
    """

    runner: str
    version: str = ""
    median: float | None = None
    p95: float | None = None
    samples: int = 0
    load: float | None = None
    first_run: float | None = None
    difference: float | None = None
    to_onnxruntime: float | None = None
    reason: str = ""


def side_by_side(
    job: Job,
    runners: Sequence[str],
    *,
    reference: Arrays | None = None,
    tolerance: float = TOLERANCE,
    rounds: int = 20,
    seconds: float = 30.0,
    steady: float = 0.0,
    status: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Measured], float | None]:
    """Run `job` with each runner (names of ingot.peers.PEERS); never raises for one that cannot take part.

    reference: the outputs to compare with; without it, those of the first runner other than Ingot that
    works. A runner beyond `tolerance` is not timed. `status(text)` says what is being prepared,
    `progress(done, rounds)` how far the rounds are. `rounds`, `seconds` and `steady`: when
    timing.interleave ends. Returns a result per runner, and how many cores other processes kept busy
    meanwhile.
    """
    results = {name: Measured(name) for name in runners}
    ready: dict[str, Runner] = {}
    given: dict[str, Arrays] = {}
    measure = "the reference"
    # The one whose numbers are the measure comes first, Ingot after it.
    for name in sorted(runners, key=lambda name: name == "ingot"):
        if status is not None:
            status(f"preparing {name}")
        result = results[name]
        try:
            prepared = prepare(name, job)
            start = time.perf_counter()
            outputs = prepared.call()
        except Exception as error:  # a runner that fails is a line in the table, not the end of the run
            result.reason = complaint(error)
            continue
        result.first_run = time.perf_counter() - start
        result.load, result.version = prepared.load_seconds, prepared.version
        if reference is None:
            reference, measure = outputs, name
        result.difference = worst_difference(outputs, reference)
        given[name] = outputs
        if result.difference <= tolerance:
            ready[name] = prepared
        else:
            result.reason = (
                f"not timed: its outputs differ from {measure}'s by {result.difference:.1e} of the largest "
                "value"
            )
            weight = other_weight(job) if "torch" in name + measure else None
            if weight is not None:
                result.reason += (
                    f"; the PyTorch model has other weights than the file ({weight!r} is one): let its "
                    "factory load those that were exported, or seed it"
                )
    if (theirs := given.get("onnxruntime")) is not None:
        for name, outputs in given.items():
            if name != "onnxruntime":
                results[name].to_onnxruntime = worst_difference(outputs, theirs)
    given.clear()
    load = MachineLoad()
    calls = {name: ready[name].call for name in runners if name in ready}
    timings = interleave(calls, rounds=rounds, seconds=seconds, steady=steady, progress=progress)
    for name, timing in timings.items():
        result = results[name]
        result.median, result.p95, result.samples = timing.median, timing.p95, len(timing.samples)
    return list(results.values()), load.foreign_cores()
