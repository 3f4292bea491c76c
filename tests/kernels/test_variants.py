"""Every kernel of the catalogue is emitted as machine code for five kinds of CPU, and looked at.

Quick: some of each generator for each machine. Slow: all of them, and no allowance is larger than it must be.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

import pytest

from ingot.codegen import cache
from ingot.codegen.kernel import _GENERATORS
from ingot.kernels.expression import Expression
from tests.kernels.allowances import ALLOWED, Bound
from tests.kernels.assembly import loops, products, spills, work
from tests.kernels.variants import FAMILIES, HELD_BY, MACHINES, Variant, lacks, variants

_HALF = ("float16", "bfloat16")
_SAMPLE = 5  # kernels of each generator for each machine, in the quick tests

catalogue = functools.cache(lambda machine: variants(MACHINES[machine]))
each_machine = pytest.mark.parametrize("machine", MACHINES)


def _skip(machine: str) -> None:
    reason = lacks(MACHINES[machine])
    if reason is not None:
        pytest.skip(reason)


def kind(variant: Variant) -> str:
    """Under which name a variant's spills are allowed: its generator, whether it has an epilogue, whether
    lanes are masked off, and whether it converts half precision.
    """
    params = dict(variant.kernel.params)
    epilogue: Expression | None = params.get("epilogue")
    masked = any(mark in repr(variant.kernel.params) for mark in ("'masked', True", "masked=True"))
    parts = (variant.kernel.generator.removeprefix("kernels."), epilogue and epilogue.steps and "epilogue")
    return " ".join(part for part in (*parts, masked and "masked", _widens(params) and "half") if part)


def _widens(params: dict[str, Any]) -> bool:
    """Whether a window's or Winograd's kernel reads half precision, or stores it without an epilogue."""
    shape = params.get("window") or params.get("block")
    source = getattr(shape, "source", params.get("source"))
    out = getattr(params.get("out"), "dtype", getattr(shape, "out", None))
    stored = not (params.get("epilogue") and params["epilogue"].steps) and "rows" not in params
    return source in _HALF or ((shape is not None or "panel" in params) and stored and out in _HALF)


def measure(variant: Variant, machine: str) -> Bound:
    """What the loops of a variant spill: the worst of those that do its work, and the worst of the others.

    Loops are weighed by their products or, in a kernel that multiplies nothing, by their instructions on
    vectors. An innermost one does the work if it has half as many as the heaviest, and one with loops in it
    if it has twice as many as that (its loops are then those of edges). Of the others the innermost count.
    """
    assembly = cache.native_assembly(variant.kernel, MACHINES[machine])
    found = loops(assembly)
    weigh = products if any(map(products, found)) else work
    most = max((weigh(loop) for loop in found if loop.innermost), default=0)
    bound = Bound()
    for loop in found:
        own = spills(loop, assembly)
        if 2 * weigh(loop) >= most if loop.innermost else weigh(loop) > 2 * most:
            bound = bound.joined(Bound(own))
        elif loop.innermost:
            bound = bound.joined(Bound(others=own.stores))
    return bound


def look(variant: Variant, machine: str) -> Bound:
    """Emit a variant, and fail if it spills more than is allowed."""
    found, allowed = measure(variant, machine), ALLOWED.get((machine, kind(variant)), Bound())
    assert found.within(allowed), (
        f"{kind(variant)} for {machine} (of {variant.family}): found {found}, allowed {allowed}; "
        f"keep fewer values alive in the loop. {variant.kernel}"
    )
    return found


def sample(machine: str, family: str) -> list[Variant]:
    """A few variants of each generator that the family is the first to name, spread over all of them."""
    found: list[Variant] = []
    own = [v for v in catalogue(machine) if v.family == family]
    for generator in dict.fromkeys(v.kernel.generator for v in own):
        some = [v for v in own if v.kernel.generator == generator]
        count = min(_SAMPLE, len(some))
        found += [some[(2 * i + 1) * len(some) // (2 * count)] for i in range(count)]
    return found


@each_machine
@pytest.mark.parametrize("family", FAMILIES)
def test_some_of_each_generator(machine: str, family: str) -> None:
    """Emission succeeds, and the loops that do the work keep their values in registers."""
    _skip(machine)
    for variant in sample(machine, family):
        look(variant, machine)


@pytest.mark.slow
@each_machine
def test_all_variants(machine: str) -> None:
    """The same of the whole catalogue; an allowance that nothing needs any more is taken back."""
    _skip(machine)
    needed: dict[str, Bound] = {}
    for variant in catalogue(machine):
        needed[kind(variant)] = needed.get(kind(variant), Bound()).joined(look(variant, machine))
    allowed = {name: bound for (own, name), bound in ALLOWED.items() if own == machine}
    assert {name: bound for name, bound in needed.items() if bound != Bound()} == allowed


def test_no_generator_is_forgotten() -> None:
    """A new kernel joins the catalogue: a family in variants.py calls the function that makes it."""
    named = {v.kernel.generator for machine in MACHINES for v in catalogue(machine)}
    missing = {name for name in _GENERATORS if name.startswith("kernels.")} - named
    assert not missing, f"no family of tests/kernels/variants.py has {sorted(missing)}"


def test_every_generator_is_held_to_its_definition() -> None:
    """HELD_BY names, for each generator, a test that draws its shapes."""
    assert {f"kernels.{name}" for name in HELD_BY} == {n for n in _GENERATORS if n.startswith("kernels.")}
    for generator, place in HELD_BY.items():
        file, function = place.split("::")
        name = f"tests.kernels.{file.removesuffix('.py')}"
        if not hasattr(sys.modules.get(name), function):
            sys.modules.pop(name, None)  # half of a file that skipped itself
        try:
            module = importlib.import_module(name)
        except pytest.skip.Exception:  # this CPU lacks what the whole file is about
            continue
        test = getattr(module, function)
        assert hasattr(test, "hypothesis"), f"{place}, which holds {generator}, draws nothing"
