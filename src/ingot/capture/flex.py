"""torch.nn.attention.flex_attention as its documentation says it: scores, what `score_mod` and `mask_mod`
make of them at every place at once, a softmax, a product.

torch compiles it wherever it is called; what it compiles is `math_attention`, which is called instead while a
model is recorded or compared.
"""

# torch's own code is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Generator
from types import FunctionType
from typing import Any

_NAME = "torch.nn.attention.flex_attention"


@contextlib.contextmanager
def uncompiled() -> Generator[None]:
    """While entered, flex_attention is the Python that torch would compile."""
    package: Any = sys.modules.get(_NAME)
    if package is None:  # nobody can call it
        yield
        return
    from torch._higher_order_ops.flex_attention import math_attention

    before = package._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG, package.flex_attention_hop
    package._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG, package.flex_attention_hop = True, math_attention
    try:
        yield
    finally:
        package._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG, package.flex_attention_hop = before


def pairs() -> list[tuple[Any, Any]]:
    """The function, and what has its code instead while a model is recorded."""
    package: Any = sys.modules.get(_NAME)
    if package is None:
        return []
    _plain()  # before its code is another
    return [(package.flex_attention, _instead)]


def _instead(
    query: Any,
    key: Any,
    value: Any,
    score_mod: Any = None,
    block_mask: Any = None,
    scale: Any = None,
    enable_gqa: Any = False,
    return_lse: Any = False,
    kernel_options: Any = None,
    *,
    return_aux: Any = None,
) -> Any:
    from ingot.capture import flex

    given = score_mod, block_mask, scale, enable_gqa, return_lse, kernel_options
    return flex.recorded(query, key, value, *given, return_aux=return_aux)


def recorded(
    query: Any, key: Any, value: Any, mod: Any, mask: Any, scale: Any, *more: Any, **aux: Any
) -> Any:
    """flex_attention with a scale of the size that math.sqrt would want as a number."""
    if scale is None:
        scale = 1.0 / query.size(-1) ** 0.5
    return _plain()(query, key, value, mod, mask, scale, *more, **aux)


@functools.cache
def _plain() -> Any:
    """flex_attention, whatever its code is just now."""
    function: Any = sys.modules[_NAME].flex_attention
    return FunctionType(function.__code__, function.__globals__, argdefs=function.__defaults__)
