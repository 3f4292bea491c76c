"""`make bench-shapes`: what a run of a shape that a session never saw takes longer than one that it knows.

Images are made smaller by some rows and columns, in an order drawn at random, texts by some tokens; a model
with no other size that may change gets larger batches. Measured is the processor's time in which a run plans,
inside of it: differences of whole runs of large models would say more about the machine. One thread, kernels
compiled before, the median over new shapes, and the worst of them. The limit is 10 ms for each 500 nodes of
the file. Runs of known shapes must plan nothing.

    make bench-shapes                                        the zoo
    make bench-shapes ARGS="--models mlp,resnet50 --shapes 20"
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import ingot
from ingot.runtime import driver

#: Milliseconds for each node of the file.
LIMIT = 10 / 500
#: New shapes before the ones that count: what most shapes have in common is there then.
WARM = 10

Inputs = Mapping[str, NDArray[Any]]


def variants(inputs: Inputs, free: Mapping[str, list[int]]) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield inputs of other shapes: `free` are the axes of each input whose size may change. Axes of the same
    number and size in two inputs change together.
    """
    sizes = {(axis, inputs[name].shape[axis]): 0 for name, axes in free.items() for axis in axes}
    large = [key for key in sizes if key[0] > 0 and key[1] >= 16]
    if len(large) > 1:
        unit = next(u for u in (32, 14, 1) if all(size % u == 0 for _, size in large))
        smaller = range(0, -min(size for _, size in large), -unit)
        drawn = list(itertools.product(smaller, repeat=len(large)))[1:]
        random.Random(0).shuffle(drawn)
        steps: Iterator[tuple[int, ...]] = iter(drawn)
    elif large:
        steps = ((-i,) for i in range(1, large[0][1] - 1))
    else:
        large, steps = [key for key in sizes if key[0] == 0], ((i,) for i in itertools.count(1))
    for step in steps:
        taken = dict(zip(large, itertools.cycle(step), strict=False))
        changed: dict[str, NDArray[Any]] = {}
        for name, array in inputs.items():
            shape = list(array.shape)
            for axis in free[name]:
                shape[axis] += taken.get((axis, array.shape[axis]), 0)
            changed[name] = np.resize(array, shape)
        yield changed


def measure(path: Path, inputs: Inputs, count: int) -> list[float]:
    """Return the milliseconds that runs of `count` new shapes spend on planning, in this process.

    Shapes that the model refuses do not count. Raises AssertionError where a known shape is planned again.
    """
    spent = [0.0]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent[0] += time.thread_time() - began

        return inner

    driver.Driver._make_stage = timed(driver.Driver._make_stage)
    driver.Instance = timed(driver.Instance)
    options = ingot.SessionOptions()
    options.intra_op_num_threads = 1
    session = ingot.InferenceSession(path, options)
    free = {
        each.name: [axis for axis, size in enumerate(each.shape) if not isinstance(size, int)]
        for each in session.get_inputs()
    }
    session.run(None, dict(inputs))
    found: list[float] = []
    for feeds in variants(inputs, free):
        if len(found) == WARM + count:
            break
        spent[0] = 0.0
        try:
            session.run(None, feeds)
        except ingot.IngotError:  # the model takes no image of this size
            continue
        found.append(spent[0] * 1e3)
        spent[0] = 0.0
        session.run(None, feeds)
        assert not spent[0], "a shape that the session knows was planned again"
    assert len(found) > WARM, "the model takes too few other shapes to measure"
    return found[WARM:]


def in_new_process(path: Path, inputs: Inputs, count: int) -> list[float]:
    """Return what `measure` finds in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, path, inputs, count).result()


def nodes_in(path: Path) -> int:
    """Return how many nodes a file has, those of its subgraphs included."""
    model = ir.load(path)
    graphs = [model.graph, *model.functions.values()]
    return sum(1 for graph in graphs for _ in ir.traversal.RecursiveGraphIterator(graph))


def main() -> int:
    """Measure and print a table."""
    # Not for the processes that measure.
    from benchmarks.cases import NAMES, open_case

    parser = argparse.ArgumentParser(
        prog="make bench-shapes", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", default="all", help="`all`, or names of the zoo (default: all)")
    parser.add_argument("--shapes", type=int, default=10, help="new shapes per model (default: 10)")
    parser.add_argument("--folder", type=Path, help="keep the exported files there, and take those there are")
    chosen = parser.parse_args()
    names = NAMES if chosen.models == "all" else chosen.models.split(",")
    within = 0
    print("| model | nodes | limit, ms | a new shape, ms | of the limit | the worst, ms |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            case = open_case(name, 1, folder)
            in_new_process(case.path, case.inputs, chosen.shapes)  # compiles what was never compiled
            found = in_new_process(case.path, case.inputs, chosen.shapes)
            taken = statistics.median(found)
            nodes = nodes_in(case.path)
            limit = nodes * LIMIT
            within += taken <= limit
            row = f"{case.title} | {nodes} | {limit:.2f} | {taken:.2f} | {taken / limit:.2f}"
            print(f"| {row} | {max(found):.2f} |", flush=True)
    print(f"\nwithin the limit: {within} of {len(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
