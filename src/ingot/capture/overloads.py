"""What an operator overload is to a recording: its row, whether it writes, is a view, can be folded."""

# torch's fake tensors, operator overloads and dispatch modes are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ingot.capture.aten import ROWS, Row

# Drawn when the model runs, never while recording: no result of theirs is a constant.
RANDOM = {
    "rand", "randn", "randint", "rand_like", "randn_like", "randint_like", "bernoulli", "normal", "uniform",
    "normal_functional", "multinomial", "randperm", "native_dropout", "exponential", "random", "poisson",
    "cauchy", "geometric", "log_normal", "binomial", "rrelu_with_noise", "_standard_gamma",
    "_sample_dirichlet", "rrelu_with_noise_functional",
}  # fmt: skip
_WRITES_IF_ASKED = {"_fused_moving_avg_obs_fq_helper"}  # its row refuses to be asked
_IN_PLACE_ONLY = {"set", "resize", "resize_as"}
# What these write besides their result, nobody reads.
_SCRATCH = {"rrelu_with_noise"}
# Constants that stay nodes: a number for Python, and the floats that integers stand for.
_NOT_FOLDED = {"_local_scalar_dense"}
_UNFOLDED_FAMILIES = ("quantized_decomposed::dequantize", "fake_quantize", "_fake_quantize", "_fused_moving")


@dataclass(frozen=True)
class Plan:
    """What to do with one operator overload."""

    name: str
    row: Row | None
    in_place: bool
    writes: bool
    view: bool
    foldable: bool


def plan_of(func: Any) -> Plan:
    """What an overload's schema and the table of rows say."""
    schema = func._schema
    name = schema.name.split("::")[1] if func.namespace == "aten" else schema.name
    arguments = schema.arguments
    writes = [a for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    base = name
    in_place = False
    if writes:
        in_place = (len(writes) == 1 and writes[0] is arguments[0]) or writes[0].name == arguments[0].name
        if name.endswith("_") and in_place:
            base = name[:-1]
    row = ROWS.get(f"{base}.{func._overloadname}") or ROWS.get(base)
    unasked = _SCRATCH | _WRITES_IF_ASKED
    if (writes and not in_place and base not in unasked) or base in _IN_PLACE_ONLY:
        row = None
    return Plan(base, row, in_place, bool(writes), bool(func.is_view), _is_foldable(name) and not writes)


def functional_of(func: Any) -> Any:
    """The overload that returns what this one writes into its `out` arguments, if there is one."""

    def signature(overload: Any) -> list[tuple[str, str]]:
        arguments = overload._schema.arguments
        return [(a.name, str(a.type)) for a in arguments if a.alias_info is None or not a.alias_info.is_write]

    packet = func.overloadpacket
    others = [getattr(packet, name) for name in packet.overloads()]
    plain = [f for f in others if len(signature(f)) == len(f._schema.arguments)]  # writes nothing itself
    return next((f for f in plain if signature(f) == signature(func)), None)


def name_of(func: Any) -> str:
    """The name without its namespace."""
    return func._schema.name.split("::")[1]


def _is_foldable(name: str) -> bool:
    """Whether a result of constants is a constant: an integer weight's float form stays a node."""
    return name not in _NOT_FOLDED and not name.startswith(_UNFOLDED_FAMILIES)


def python_source(func: Any) -> Callable[..., Any] | None:
    """The Python of an operator that `torch.library.custom_op` made."""
    from torch._library.custom_ops import OPDEFS

    made: Any = OPDEFS.get(func._schema.name)
    return made._init_fn if made is not None else None


def tensors_of(args: Any, kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors among the arguments of a call, also in lists."""
    found: list[torch.Tensor] = []
    for a in (*args, *kwargs.values()):
        if isinstance(a, torch.Tensor):
            found.append(a)
        elif isinstance(a, (list, tuple)):
            found.extend(t for t in a if isinstance(t, torch.Tensor))
    return found
