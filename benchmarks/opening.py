"""`python -m benchmarks.opening RUNNER MODEL.onnx INPUTS.npz THREADS`: opens and times a model.

A process of its own for loading.py, which imports nothing but the runner: what the runner only needs later
counts as time and memory of opening. Each is opened in the plain way of its documentation. Prints JSON.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LATER_RUNS = 3
Feed = dict[str, Any]
#: What opens a model: (path, inputs, threads) -> a call that runs it.
Opener = Callable[[str, Feed, int], Callable[[], object]]


def _ingot() -> Opener:
    from ingot import InferenceSession, SessionOptions

    return _sessions(InferenceSession, SessionOptions)


def _onnxruntime() -> Opener:
    from onnxruntime import InferenceSession, SessionOptions

    return _sessions(InferenceSession, SessionOptions)


def _sessions(session_type: Any, options_type: Any) -> Opener:
    def open_(path: str, inputs: Feed, threads: int) -> Callable[[], object]:
        options = options_type()
        options.intra_op_num_threads = threads
        session = session_type(path, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, inputs)

    return open_


def _openvino() -> Opener:
    import openvino

    def open_(path: str, inputs: Feed, threads: int) -> Callable[[], object]:
        core = openvino.Core()
        model = core.read_model(path)
        model.reshape({name: list(array.shape) for name, array in inputs.items()})
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        return lambda: request.infer(inputs, share_inputs=True)

    return open_


RUNNERS: dict[str, Callable[[], Opener]] = {
    "ingot": _ingot,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def resident(field: str) -> int | None:
    """Return VmRSS, or VmHWM, its highest value, of this process in bytes; None where there is no /proc.

    (getrusage's maximum is no use here: a new process inherits that of the one it was forked from.)
    """
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def main() -> int:
    """Open and run the model of the command line; print what it took."""
    runner, path, arrays, threads = sys.argv[1:]
    open_ = RUNNERS[runner]()
    inputs = dict(np.load(arrays))
    before = resident("VmRSS")
    start = time.perf_counter()
    call = open_(path, inputs, int(threads))
    create = time.perf_counter() - start
    start = time.perf_counter()
    call()
    first, peak = time.perf_counter() - start, resident("VmHWM")
    later: list[float] = []
    for _ in range(LATER_RUNS):
        start = time.perf_counter()
        call()
        later.append(time.perf_counter() - start)
    version = getattr(sys.modules[runner], "__version__", "").split("-")[0]
    grown = None if before is None or peak is None else peak - before
    times = {"create": create, "first": first, "later": min(later)}
    print(json.dumps({**times, "peak_bytes": grown, "version": version}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
