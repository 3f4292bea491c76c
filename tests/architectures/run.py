"""`make architectures`: every architecture of transformers that builds with a tiny configuration, exported
with all dimensions dynamic and verified on other sizes; writes results.json and docs/architectures.md.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from tests.architectures.build import arguments, awaken, tiny
from tests.measured import commit, listed
from tests.opinfo.judge import one_line

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
GENERATED = Path(__file__).with_name("generation.json")
SECONDS = 180


def names() -> dict[str, Any]:
    """Model type to configuration class, of those that have a base model."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    found: dict[str, Any] = {}
    for name in CONFIG_MAPPING:
        if name in MODEL_MAPPING_NAMES:
            with contextlib.suppress(Exception):
                found[name] = CONFIG_MAPPING[name]
    return found


def attempt(config_class: Any) -> tuple[str, str]:
    """`(status, reason)` of one architecture: unbuilt, pass, refused, wrong or crash."""
    import transformers

    from ingot.capture.attempt import capture
    from ingot.errors import ExportError, VerificationError
    from ingot.export import verified
    from tests.capture.support import ort_runner

    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    try:
        config = tiny(config_class)
        model = transformers.AutoModel.from_config(config).eval().float()
        if sum(p.numel() for p in model.parameters()) > 40e6:
            return "unbuilt", "too large with what is made small here"
        awaken(model)
        given = arguments(model, config)
        with torch.no_grad():
            model(**given)
    except Exception as error:
        return "unbuilt", f"{type(error).__name__}: {first_line(error)}"
    try:
        captured, report = verified(capture(model, (), kwargs=given), ort_runner)
    except VerificationError as error:
        return "wrong", first_line(error)
    except ExportError as error:
        return "refused", first_line(error)
    except Exception as error:
        return "crash", f"{type(error).__name__}: {first_line(error)}"
    fixed = sum(a.kind == "narrowed" for a in captured.assumptions)
    free = len({d for s in captured.specs for d in s.dims if isinstance(d, str)}) - fixed
    return "pass", f"{len(report.cases)} sizes, {free} dimensions dynamic"


def generate(config_class: Any) -> tuple[str, str]:
    """`(status, reason)` of a greedy loop with a cache: unbuilt, pass, refused, wrong or crash."""
    from ingot.errors import ExportError, VerificationError
    from tests.architectures.generation import Unbuilt, generation

    try:
        return "pass", generation(config_class)
    except Unbuilt as error:
        return "unbuilt", first_line(error)
    except (VerificationError, AssertionError) as error:
        return "wrong", first_line(error)
    except ExportError as error:
        return "refused", first_line(error)
    except Exception as error:
        return "crash", f"{type(error).__name__}: {first_line(error)}"


def first_line(error: Exception) -> str:
    """The error in one line of readable length."""
    return one_line(error)[:400]


def main() -> int:
    """Run those asked for, each in a process of its own, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", default="", help="a regular expression over model types")
    parser.add_argument("--failing", action="store_true", help="only those that built and did not pass")
    parser.add_argument("--new", action="store_true", help="only those without a result")
    parser.add_argument("--stale", action="store_true", help="only those that built, of other commits")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this long")
    parser.add_argument("--generation", action="store_true", help="loops with a cache instead of base models")
    options = parser.parse_args()
    results, measure = (GENERATED, generate) if options.generation else (RESULTS, attempt)
    known = _read(results)
    import transformers  # noqa: F401  (loaded once, for all of the forked processes)

    import ingot.capture.attempt
    import ingot.verify  # noqa: F401

    begun, at = time.monotonic(), commit()
    oldest = sorted(names().items(), key=lambda item: known.get(item[0], [])[2:])
    for name, config_class in oldest:
        if not re.search(options.names, name) or (options.new and name in known):
            continue
        if options.failing and known.get(name, ["unbuilt"])[0] in ("pass", "unbuilt"):
            continue
        if options.stale and (known.get(name, [])[2:] == [at] or known.get(name, [""])[0] == "unbuilt"):
            continue
        if time.monotonic() - begun > options.seconds:
            break
        start = time.monotonic()
        status, reason = _forked(measure, config_class)
        known[name] = [status, reason, at]
        print(f"{status:8s} {name:32s} {time.monotonic() - start:5.1f} s  {reason[:230]}", flush=True)
        results.write_text(json.dumps(dict(sorted(known.items())), indent=0) + "\n")
    counts = collections.Counter(row[0] for row in known.values())
    print(dict(counts))
    PAGE.write_text(page(_read(RESULTS), _read(GENERATED)))
    return 0


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _forked(measure: Callable[[Any], tuple[str, str]], config_class: Any) -> tuple[str, str]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the CPU: others may be at work
        quiet = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
            warnings.simplefilter("ignore")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            result = measure(config_class)
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not text:
        return "crash", f"the process ended with status {status} ({SECONDS} s of the CPU are allowed)"
    status_, reason = json.loads(text)
    return status_, reason


def _commits(results: dict[str, Any]) -> str:
    return listed([*row, None][2] for row in results.values())


def page(results: dict[str, Any], generated: dict[str, Any]) -> str:
    """docs/architectures.md."""
    built = {n: r for n, r in sorted(results.items()) if r[0] != "unbuilt"}
    loops = {n: r for n, r in sorted(generated.items()) if r[0] != "unbuilt"}
    passing = [n for n, r in built.items() if r[0] == "pass"]
    lines = [
        "# Architectures of transformers that Ingot exports",
        "",
        f"Generated by `make architectures`: {len(results)} model types of transformers tried, each built "
        f"with its",
        f"own configuration made small; {len(built)} build on a CPU and take the inputs that are made for "
        f"them. Their",
        "base models are exported with every dimension dynamic, run in onnxruntime, and compared with "
        "PyTorch on the",
        "example and on other sizes. What is `wrong` is refused by `ingot.export` too, which verifies.",
        "",
        f"**{len(passing)} of {len(built)} pass.**",
        "",
        f"Generation with a key-value cache was measured for {len(loops)}: the step is exported with its",
        "cache as inputs and outputs, and a greedy loop over it in Ingot's session gives the tokens of the",
        "model's own `generate` at several batch",
        f"sizes (column *cache*). **{sum(r[0] == 'pass' for r in loops.values())} of {len(loops)} pass.**",
        "",
        f"Base models by the day and commit that was measured: {_commits(built)}.",
        f"Loops: {_commits(loops)}.",
        "",
        "| architecture | result | cache | commit | |",
        "|---|---|---|---|---|",
    ]
    for name in sorted({*built, *loops}):
        status, reason, at = [*built.get(name, ("", "")), ""][:3]
        loop, why, then = [*loops.get(name, ("", "")), ""][:3]
        reason = "; ".join(r for r in (reason, "" if loop in ("", "pass") else f"cache: {why}") if r)
        text = re.sub(r"\S*[/\\]", "", reason).replace("|", "\\|").replace("<", "&lt;")
        of = ", ".join(dict.fromkeys(f"`{w.split()[-1]}`" for w in (at, then) if w))
        lines.append(f"| {name} | {status} | {loop} | {of} | {text[:150]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
