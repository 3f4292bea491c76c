"""Inputs for verification: the example, and other sizes drawn within everything the capture assumed."""

# torch and SymPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy
import torch

from ingot.capture.size_symbols import UNDEFINED

if TYPE_CHECKING:
    from ingot.capture.attempt import Capture
    from ingot.capture.dims import InputSpec

# Sizes tried against each other: small and odd ones, where kernels and formulas go wrong, and parts of the
# example's.
_SMALL = (1, 2, 3, 5, 7)
LONGEST = 8192  # what a module is run on to see another side of it: many compare all rows with all
EDGES = 3  # dimensions that are tried alone at sizes 0 and 1
_PARTS = ((1, 2), (3, 4), (1, 1), (3, 2), (2, 1))


def example_inputs(captured: Capture, rng: np.random.Generator) -> tuple[list[Any], dict[str, int]]:
    """The tensors of the export call; those given as specs are drawn."""
    sizes = {name: int(n) for name, n in captured.table.sizes.items()}
    env = captured.recording.env
    for symbol, fixed in env.fixed.items():
        if env.names[symbol] in sizes and any(s.example is None for s in captured.specs):
            sizes[env.names[symbol]] = fixed.size
    numbers = captured.table.numbers
    return [
        numbers[s.name]
        if s.number
        else s.example
        if s.example is not None
        else _draw(s, _shape(s, sizes), rng)
        for s in captured.specs
    ], sizes


def other_sizes(captured: Capture, rng: np.random.Generator, draws: int) -> Iterator[dict[str, int]]:
    """Sizes of every symbolic dimension that keep to the declared ranges and to every recorded condition."""
    env, table = captured.recording.env, captured.table
    equations = _equations(captured, [g.condition for g in env.held.values() if not g.under])
    free = free_sizes(captured)
    own = [
        s for s in env.names if env.names[s] in table.of_state
    ]  # as large as the state is before the first call
    pinned = {env.canon_dims(s): table.sizes[env.names[s]] for s in own}
    if all(s in pinned for s in free):
        return
    for attempt in range(draws):
        picked: dict[Any, Any] = {}
        by_hint: dict[
            tuple[int, int], int
        ] = {}  # one size for an axis that all inputs have alike: batches that agree
        for s in free:
            if s in pinned:
                picked[s] = sympy.Integer(pinned[s])
                continue
            name, hint = env.names[s], int(table.sizes[env.names[s]])
            low, high = table.ranges.get(name, (1, None))
            axis = _axis(captured, name)
            n = by_hint.get((hint, axis))
            if n is None and name in table.ranges and attempt % 2:
                n = int(rng.integers(low, max(low, 4 * hint if high is None else min(high, 4 * hint)) + 1))
            elif n is None:
                n = _pick(hint, attempt, rng)
            by_hint[hint, axis] = n
            picked[s] = sympy.Integer(max(low, 1, n if high is None else min(n, high)))
        picked = _settled(picked, equations, pinned)
        known = allowed(captured, picked)
        if known is not None:
            yield sizes_of(captured, known)


def edge_sizes(captured: Capture) -> Iterator[dict[str, int]]:
    """Sizes of 1 and 0, of all dimensions and of each alone, where nothing recorded excludes them."""
    env = captured.recording.env
    free = free_sizes(captured)
    if captured.recording.states:
        return  # sizes that have to be those of the state
    example = {s: sympy.Integer(captured.table.sizes[env.names[s]]) for s in free_sizes(captured)}
    chosen = [(free, 1), *(([s], n) for n in (0, 1) for s in free[:EDGES]), (free, 0)]
    for symbols, n in chosen:
        if not all(within(captured, s, n) for s in symbols):
            continue
        known = allowed(captured, example | dict.fromkeys(symbols, sympy.Integer(n)))
        if symbols and known is not None:
            yield sizes_of(captured, known)


def free_sizes(captured: Capture) -> list[Any]:
    """Symbols of the dimensions that nothing fixed, and that are no other dimension's."""
    env = captured.recording.env
    return [s for s in env.names if env.canon_dims(s) == s]


def allowed(captured: Capture, sizes: Mapping[Any, Any]) -> dict[Any, Any] | None:
    """What is known for these sizes of the free dimensions; None where something recorded excludes them."""
    env = captured.recording.env
    try:
        known = env.at(sizes)
        refused = any(g.whole.xreplace(known) == False for g in env.held.values())  # noqa: E712
    except UNDEFINED:
        return None
    return None if refused else known


def undecided(captured: Capture, sizes: Mapping[str, int]) -> list[str]:
    """Lines of relations between sizes of which only the run knows whether these sizes meet them: where the
    past of a cache is as long as its contents say, for instance, or where one is asked for on a side of a
    branch that data decides.
    """
    env = captured.recording.env
    known = env.at({s: sympy.Integer(sizes[env.names[s]]) for s in free_sizes(captured)})
    asked = [g for g in env.held.values() if not g.by_user or g.under] + env.inside
    open_ = [g.where for g in asked if g.whole.xreplace(known) != True]  # noqa: E712  (a SymPy object)
    return list(dict.fromkeys(open_))


def within(captured: Capture, symbol: Any, n: int) -> bool:
    """Whether a dimension may have this size by its declared range."""
    low, high = captured.table.ranges.get(captured.recording.env.names[symbol], (0, None))
    return low <= n and (high is None or n <= high)


def sizes_of(captured: Capture, known: Mapping[Any, Any]) -> dict[str, int]:
    """Sizes by the names of dimensions."""
    return {name: int(known[s]) for s, name in captured.recording.env.names.items()}


def _equations(captured: Capture, conditions: Sequence[Any]) -> list[Any]:
    """Those that a size can be worked out of, over the dimensions of the inputs."""
    opened = [captured.recording.env.expand(c) for c in conditions if isinstance(c, sympy.Eq)]
    return [e for e in opened if isinstance(e, sympy.Eq) and all(side.is_polynomial() for side in e.args)]


def _settled(picked: dict[Any, Any], equations: Sequence[Any], kept: Collection[Any]) -> dict[Any, Any]:
    """The sizes with those changed, none of the `kept`, that equations give from the others; and bounds, as
    equations where they are not kept to.

    A mask as long as past and new tokens together is hardly ever drawn so.
    """
    picked = dict(picked)
    for equation in [*equations] * 3:  # one may undo another
        if equation.xreplace(picked) != False:  # noqa: E712  (a SymPy object)
            continue
        difference: Any = sympy.expand(equation.lhs - equation.rhs)  # pyright: ignore[reportOperatorIssue]
        for s in sorted(equation.free_symbols & set(picked) - set(kept), key=lambda s: -int(picked[s])):
            slope = difference.coeff(s)
            rest = difference - slope * s
            if slope in (1, -1) and s not in rest.free_symbols:
                found = (-rest / slope).xreplace(picked)
                if found.is_Integer and found >= 0:
                    picked[s] = found
                    break
    return picked


def _pick(hint: int, attempt: int, rng: np.random.Generator) -> int:
    kind = int(rng.integers(3))
    if kind == 0:
        return int(rng.choice(_SMALL)) if hint < 64 or attempt % 2 else int(rng.integers(1, hint + 1))
    if kind == 1:
        over, under = _PARTS[int(rng.integers(len(_PARTS)))]
        return max(hint * over // under, 1)
    return int(rng.integers(1, hint + 4))


def _axis(captured: Capture, name: str) -> int:
    for spec in captured.specs:
        if name in spec.dims:
            return spec.dims.index(name)
    return 0


def sampled_inputs(captured: Capture, sizes: dict[str, int], rng: np.random.Generator) -> list[Any]:
    """Tensors of these sizes, with elements like the example's.

    A number in an object that counts what the object holds, as a cache does, goes with the size it equals.
    """
    numbers, counted = captured.table.numbers, _counts(captured)
    return [
        sizes[counted[s.name]]
        if s.name in counted
        else _number(s.number, numbers[s.name], rng)
        if s.number
        else _draw(s, _shape(s, sizes), rng)
        for s in captured.specs
    ]


def masking_nothing(captured: Capture, inputs: list[Any]) -> Iterator[list[Any]]:
    """The inputs with masks of ones, where the model's code goes another way when it is traced: that one is
    then for masks of something else.
    """
    masks = [
        i
        for i, x in enumerate(inputs)
        if isinstance(x, torch.Tensor)
        and not x.is_floating_point()
        and not x.is_complex()
        and bool(((x == 0) | (x == 1)).all())
    ]
    if captured.recording.recorder.asked_traced and not all(bool((inputs[i] == 1).all()) for i in masks):
        yield [torch.ones_like(x) if i in masks else x for i, x in enumerate(inputs)]


def fair_inputs(captured: Capture, inputs: list[Any], sizes: Mapping[str, int]) -> list[Any] | None:
    """The inputs with offsets that begin at 0, never fall and stay inside; None where there are too few of
    them. torch reads and writes outside of its memory for others. Those that are fair stay as they are.
    """
    offsets = captured.recording.recorder.offsets
    if not offsets:
        return inputs
    env = captured.recording.env
    known = env.at({s: sympy.Integer(sizes[env.names[s]]) for s in free_sizes(captured)})
    made = list(inputs)
    for at, spec in enumerate(captured.specs):
        if spec.name not in offsets:
            continue
        formula, fewest = offsets[spec.name]
        found: Any = env.expand(sympy.sympify(formula)).xreplace(known)
        bound = int(found) if found.is_number else 0
        if made[at].numel() < fewest and bound:
            return None
        made[at] = torch.clamp(made[at], 0, bound).sort().values
        made[at][:1] = 0
    return made


def _counts(captured: Capture) -> dict[str, str]:
    """For numbers that objects hold, the dimension of a tensor beside them of that size in the example."""
    rows = list(zip(captured.specs, captured.arguments.tensor_leaves, strict=True))
    found: dict[str, str] = {}
    for spec, leaf in rows:
        if spec.number is int and leaf.inside:
            beside = [s for s, other in rows if other.path[:-1] == leaf.path[:-1]]
            alike = [d for s in beside for d, n in zip(s.dims, s.sizes, strict=True) if isinstance(d, str)
                     and n == captured.table.numbers[spec.name]]  # fmt: skip
            if alike:
                found[spec.name] = alike[-1]
    return found


def _number(kind: type, example: Any, rng: np.random.Generator) -> Any:
    """Another value of an input that is a Python number."""
    if kind is bool:
        return bool(rng.integers(2))
    # In float32 as in float64: the input may be either.
    scale = float(np.float32(rng.uniform(0.25, 2)))
    return max(int(example * scale), min(example, 1)) if kind is int else float(np.float32(example * scale))


def drawn(spec: InputSpec, sizes: dict[str, int], rng: np.random.Generator) -> torch.Tensor:
    """One input of these sizes."""
    return _draw(spec, _shape(spec, sizes), rng)


def _shape(spec: InputSpec, sizes: dict[str, int]) -> list[int]:
    return [sizes[d] if isinstance(d, str) else d for d in spec.dims]


def _draw(spec: InputSpec, shape: list[int], rng: np.random.Generator) -> torch.Tensor:
    """Elements picked from the example, so that indices stay valid; normal numbers where it has no
    variety.
    """
    example = spec.example
    count = int(np.prod(shape))
    if example is not None and example.numel():
        flat = example.detach().cpu().reshape(-1)
        varied = not spec.dtype.is_floating_point or bool((flat != flat[0]).any())
        if varied:
            return flat[torch.from_numpy(rng.integers(0, flat.numel(), count))].reshape(shape).clone()
    if spec.dtype.is_floating_point:
        return torch.from_numpy(rng.standard_normal(count)).to(spec.dtype).reshape(shape)
    return torch.from_numpy(rng.integers(0, 2, count)).to(spec.dtype).reshape(shape)
