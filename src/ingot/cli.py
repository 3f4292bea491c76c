"""The `ingot` command: arguments to calls. What is computed and decided lives in the modules it calls.

Data goes to stdout, progress and messages to stderr; colours only on a terminal and without NO_COLOR. Exit
codes: 0 ok, 1 failure, 2 usage, 3 numbers differ, 4 unsupported operator or missing extra. An error is one
line that says what to do; `--debug`, anywhere on the line, shows the traceback.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ingot.errors import (
    DEBUG,
    IngotError,
    InputError,
    MissingExtraError,
    MissingOperatorError,
    UnsupportedOperatorError,
    VerificationError,
    is_debugging,
)

FAILURE, DIFFERENT, UNSUPPORTED = 1, 3, 4

app = typer.Typer(
    help="PyTorch models to ONNX files that are the same function, and a fast native session to run them.",
    epilog="--debug, with any command, shows the traceback of an error. Exit codes: 0 ok, 1 failure, "
    "2 usage, 3 numbers differ, 4 unsupported operator or missing extra.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """What --shape and --dim say: dims of inputs, sizes of named dims, dtypes of inputs."""

    shapes: dict[str, list[int | str]]
    dims: dict[str, int]
    dtypes: dict[str, str]


# Nothing is cut off where no terminal sets a width.
data = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 1000)
messages = Console(stderr=True, highlight=False)

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape", help="Sizes of an input, NAME:DIMS[:DTYPE], as in image:1x3x224x224. Repeatable."
    ),
]
Dims = Annotated[
    list[str] | None, typer.Option("--dim", help="Size of a named dim: --dim batch=4. Repeatable.")
]
Threads = Annotated[int, typer.Option(min=0, help="Threads; 0 takes every core.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress, no remarks.")]


def version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        import ingot

        data.print(f"ingot {ingot.__version__}")
        raise typer.Exit


def not_negative(value: float) -> float:
    """What an option may be that is a time or a tolerance: NaN is neither."""
    if not value >= 0:
        raise typer.BadParameter(f"{value} is not 0 or more")
    return value


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """PyTorch models to ONNX files that are the same function, and a fast native session to run them."""


@app.command()
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="MODULE:FACTORY, what makes the model: package.module:function or file.py:function, called "
            "without arguments. It returns a torch.nn.Module, or (module, args, kwargs) with example "
            "arguments. Or a file: an exported program (.pt2) or a TorchScript module (.pt, .jit).",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write.")],
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="forward's argument by name: image:1x3x224x224 is an example, and every dim stays symbolic; "
            "image:batchx3x224x224 names the dims that are. ids:1x128:int64 has a dtype. Repeatable."
        ),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX opset to write, 18 to 25; 20 without.")] = None,
    verify: Annotated[
        bool, typer.Option(help="Compare with PyTorch on the example and on other shapes.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Write a PyTorch model as an ONNX file. Every dim is symbolic unless the model fixes it."""
    import ingot
    from ingot.export import announced, by_line
    from ingot.feeds import check_suffix, parse_shape
    from ingot.loading import require_directory
    from ingot.sources import Source, is_model_file, load_source, with_examples

    check_suffix(output)
    require_directory(output)
    messages.quiet = quiet
    specs = [_usage("--shape", parse_shape, text) for text in shape or ()]
    start = time.perf_counter()
    with messages.status("importing the model"):
        made = Source(Path(source)) if is_model_file(source) else load_source(source)
    made = with_examples(source, made, specs)
    with messages.status("exporting" + (" and verifying" if verify else "")):
        program = ingot.export(
            made.model, made.args, str(output), kwargs=made.kwargs, opset_version=opset, verify=verify
        )
    for assumption in by_line(a for a in program.assumptions if not announced(a)):
        messages.print(f"{assumption}", markup=False, soft_wrap=True)
    written = output, output.with_name(f"{output.name}.data")
    size = sum(file.stat().st_size for file in written if file.exists())
    messages.print(f"{output}: {in_units(size, 'B')} in {time.perf_counter() - start:.1f} s", markup=False)


@app.command()
def run(
    model: ModelFile,
    inputs: Annotated[
        list[str] | None,
        typer.Option("-i", "--input", help="FILE.npz, or NAME=FILE.npy; random without. Repeatable."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the outputs: .npz or .npy.")
    ] = None,
    shape: Shapes = None,
    dim: Dims = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random inputs.")] = 0,
    threads: Threads = 0,
    provider: Annotated[
        list[str] | None, typer.Option(help="Execution providers, in order of preference.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a model once and print its outputs. Of each: name, dtype, shape and range."""
    from ingot.feeds import check_place, save_outputs
    from ingot.summary import summarise

    messages.quiet = quiet
    sizes = _sizes(shape, dim)
    session = _session(model, threads, provider)
    names = [value.name for value in session.get_outputs()]
    if output is not None:
        check_place(output, len(names))
    feed = _feed(session, inputs, sizes, seed)
    start = time.perf_counter()
    with messages.status("running"):
        outputs = session.run(None, feed)
    seconds = time.perf_counter() - start
    if output is not None:
        save_outputs(names, outputs, output)
        messages.print(f"written: {output}", markup=False)
    rows = [summarise(name, array) for name, array in zip(names, outputs, strict=True)]
    if as_json:
        data.print_json(json.dumps({"seconds": seconds, "outputs": [asdict(row) for row in rows]}))
        return
    grid = _table("output", "dtype", "shape", "min", "max", "mean", "not finite")
    for row in rows:
        grid.add_row(
            row.name, row.dtype, "x".join(map(str, row.shape)) or "scalar",
            *("–" if value is None else f"{value:.6g}" for value in (row.min, row.max, row.mean)),
            str(row.not_finite),
        )  # fmt: skip
    data.print(grid)
    messages.print(f"first run: {seconds * 1e3:.1f} ms, the plan for these shapes included")


@app.command()
def inspect(
    model: ModelFile,
    shape: Shapes = None,
    dim: Dims = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Also how each node is computed, and how long it takes.")
    ] = False,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Show what a model is made of. That is inputs, outputs, operators and how each is computed, parameters,
    the cost of one call, and what would not run.
    """
    from ingot.describe import computed, cost, describe, refusals
    from ingot.feeds import random_feed
    from ingot.loading import load
    from ingot.summary import signature

    sizes = _sizes(shape, dim)
    graph = load(model)
    found = describe(graph)
    facts: dict[str, Any] = asdict(found)
    sizes_known = True
    arguments = [signature(name, dtype, dims) for name, dtype, dims in found.inputs]
    try:
        feed = random_feed(arguments, sizes.shapes, sizes.dims, dtypes=sizes.dtypes)
    except InputError as error:
        if plan or shape or dim:
            raise
        sizes_known, feed = False, {}
        facts["cost"] = {"unknown": str(error)}
    facts["refused"] = refusals(graph)
    if sizes_known and facts["refused"]:
        facts["cost"] = {"unknown": "not all operators are known here"}
    elif sizes_known:
        shapes = {name: array.shape for name, array in feed.items()}
        facts["computed"] = computed(graph, shapes)
        counted = cost(graph, shapes)
        facts["cost"] = {"flops": counted.total, **asdict(counted)}
        facts["cost"]["sizes"] = {name: list(array.shape) for name, array in feed.items()}
    if plan:
        session = _session(model, threads, None)
        with messages.status("planning and timing"):
            facts["plan"] = [asdict(node) for node in session.profile(feed)]
    if as_json:
        data.print_json(json.dumps(facts))
        return
    _show_description(model, facts)


@app.command()
def bench(
    model: ModelFile,
    against: Annotated[
        str, typer.Option(help="Runners to compare with: torch, torch.compile, onnxruntime, openvino, mnn.")
    ] = "onnxruntime",
    source: Annotated[
        str | None, typer.Option(metavar="MODULE:FACTORY", help="The PyTorch model the file came from.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("-i", "--input", help="FILE.npz, or NAME=FILE.npy; random without. Repeatable."),
    ] = None,
    shape: Shapes = None,
    dim: Dims = None,
    threads: Threads = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which every runner has its turn.")] = 20,
    seconds: Annotated[
        float, typer.Option(callback=not_negative, help="End the rounds after this long.")
    ] = 30.0,
    rtol: Annotated[
        float, typer.Option(callback=not_negative, help="Largest difference allowed, of the largest value.")
    ] = 1e-4,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Time a model beside other runtimes. They take turns in one process, once their outputs are compared."""
    from ingot.benchmark import side_by_side
    from ingot.peers import Job, parse_runners
    from ingot.sources import load_source

    messages.quiet = quiet
    sizes = _sizes(shape, dim)
    runners = ["ingot", *(name for name in _usage("--against", parse_runners, against) if name != "ingot")]
    module = load_source(source).model.eval() if source is not None else None
    cores = threads or len(os.sched_getaffinity(0))
    feed = _feed(_session(model, cores, None), inputs, sizes, 0)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=messages, transient=True, disable=quiet) as progress:
        task = progress.add_task("preparing", total=rounds)
        results, foreign = side_by_side(
            Job(model, feed, cores, module),
            runners,
            tolerance=rtol,
            rounds=rounds,
            seconds=seconds,
            status=lambda text: progress.update(task, description=text),
            progress=lambda done, total: progress.update(
                task, completed=done, total=total, description="rounds"
            ),
        )
    rows = [asdict(row) for row in results]
    if as_json:
        data.print_json(json.dumps({"threads": cores, "foreign_cores": foreign, "runners": rows}))
    else:
        ours = results[0].median
        grid = _table("runner", "version", "median ms", "p95 ms", "× ingot", "load s", "difference")
        for row in results:
            if row.median is None or row.p95 is None:
                continue
            ratio = f"{row.median / ours:.2f}" if ours else "–"
            texts = f"{row.median * 1e3:.3f}", f"{row.p95 * 1e3:.3f}", ratio, f"{row.load:.2f}"
            grid.add_row(row.runner, row.version, *texts, f"{row.difference:.1e}")
        data.print(grid)
    for row in results:
        if row.reason:
            messages.print(f"{row.runner}: {row.reason}", markup=False)
    if foreign is not None and foreign > 0.1:
        messages.print(f"note: other processes kept {foreign:.1f} cores busy meanwhile")
    ingot_row = results[0]
    if ingot_row.median is None:
        raise typer.Exit(DIFFERENT if ingot_row.difference is not None else FAILURE)


def _session(model: Path, threads: int, providers: list[str] | None) -> Any:
    import ingot

    settings = ingot.SessionOptions()
    settings.intra_op_num_threads = threads
    with messages.status("opening the model"):
        return ingot.InferenceSession(str(model), settings, providers=providers)


def _feed(session: Any, files: list[str] | None, sizes: Sizes, seed: int) -> dict[str, Any]:
    from ingot.feeds import random_feed, read_feed

    arguments = session.get_inputs()
    given = read_feed(arguments, files or ())
    return given | random_feed(arguments, sizes.shapes, sizes.dims, seed, sizes.dtypes, given)


def _sizes(shape: list[str] | None, dim: list[str] | None) -> Sizes:
    from ingot.feeds import parse_dim, parse_shape

    specs = [_usage("--shape", parse_shape, text) for text in shape or ()]
    return Sizes(
        {name: dims for name, dims, _ in specs},
        dict(_usage("--dim", parse_dim, text) for text in dim or ()),
        {name: dtype for name, _, dtype in specs if dtype is not None},
    )


def _usage(option: str, parse: Callable[[str], T], text: str) -> T:
    """Parse an option's value; what is wrong with it is a usage error."""
    try:
        return parse(text)
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _table(*headings: str) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        grid.add_column(
            heading, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold"
        )
    return grid


def _show_description(model: Path, facts: dict[str, Any]) -> None:
    opsets = ", ".join(f"{domain} {number}" for domain, number in facts["opsets"].items())
    data.print(
        f"{model}: opset {opsets}, IR {facts['ir_version']}, by {facts['producer'] or 'unknown'}",
        markup=False,
    )
    for kind in ("inputs", "outputs"):
        grid = _table(kind[:-1], "dtype", "shape")
        for name, dtype, dims in facts[kind]:
            grid.add_row(name, dtype, "x".join(map(str, dims)) or "scalar")
        data.print()
        data.print(grid, markup=False)
    data.print(f"\nparameters: {facts['parameters']:,} in {in_units(facts['parameter_bytes'], 'B')}", end="")
    dtypes = (
        f"{dtype} {count:,} in {in_units(size, 'B')}" for dtype, (count, size) in facts["by_dtype"].items()
    )
    data.print(f" ({', '.join(dtypes) or 'none'})", markup=False)
    cost = facts["cost"]
    if "flops" in cost:
        sizes = ", ".join(
            f"{name} {'x'.join(map(str, dims)) or 'scalar'}" for name, dims in cost["sizes"].items()
        )
        least = "" if cost["complete"] else "at least "
        data.print(f"arithmetic: {least}{in_units(cost['flops'], 'FLOP')} for {sizes}", markup=False)
    else:
        data.print(f"arithmetic: depends on sizes; {cost['unknown']}", markup=False)
    operators = ", ".join(f"{name} {count}" for name, count in facts["operators"].items())
    data.print(f"operators: {operators}", markup=False)
    if "computed" in facts:
        kinds: dict[str, list[str]] = {}
        for name, counts in facts["computed"].items():
            for kind, count in counts.items():
                kinds.setdefault(kind, []).append(f"{name} {count}")
        for kind in ("native", "host", "depends on data"):
            data.print(f"{kind}: {', '.join(kinds.get(kind, ['none']))}", markup=False)
    for reason in facts["refused"]:
        data.print(f"would not run: {reason}", markup=False)
    if "plan" in facts:
        data.print()
        grid = _table("node", "operator", "computed by", "ms")
        for node in facts["plan"]:
            spent = "" if node["milliseconds"] is None else f"{node['milliseconds']:.3f}"
            grid.add_row(node["name"], node["op_type"], node["kind"], spent)
        data.print(grid, markup=False)
        host = [node["name"] for node in facts["plan"] if node["kind"] == "host"]
        if any(node["milliseconds"] is None for node in facts["plan"]):
            data.print("without ms: part of another node's kernel, or nothing to compute (view, folded)")
        data.print(f"evaluated with NumPy: {', '.join(host) or 'no node'}", markup=False)


def in_units(count: int, unit: str) -> str:
    """A count with three digits: `48 B`, `4.19 MB`, `1.25 GFLOP`."""
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if count >= 0.9995 * 10**power:
            return f"{count / 10**power:.3g} {prefix}{unit}"
    return f"{count} {unit}"


def exit_code(error: BaseException) -> int:
    """Return the exit code that the conventions give to an error."""
    if isinstance(error, VerificationError):
        return DIFFERENT
    if isinstance(error, UnsupportedOperatorError | MissingOperatorError | MissingExtraError):
        return UNSUPPORTED
    return FAILURE


def explain(error: Exception) -> str:
    """Return what is printed for an error: one line, more only where it lists several things."""
    if isinstance(error, IngotError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error} (--debug shows where)"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments or is_debugging()
    arguments = [argument for argument in arguments if argument != "--debug"]
    shown = os.environ.get(DEBUG)
    os.environ[DEBUG] = "1" if debug else "0"
    try:
        app(args=arguments, prog_name="ingot")  # leaves by SystemExit; usage errors have code 2 there
    except Exception as error:
        if debug:
            messages.print_exception()
        messages.quiet = False
        messages.print("[red]error:[/red]", end=" ")
        messages.print(explain(error), markup=False, soft_wrap=True)
        sys.exit(exit_code(error))
    finally:
        del os.environ[DEBUG]
        os.environ.update({DEBUG: shown} if shown is not None else {})
