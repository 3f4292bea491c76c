"""PyTorch's own database of operators: entries by name, and the calls that it samples for each."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ingot.capture.signature import is_tensor, leaves

# What these give is whatever stands in memory.
UNDEFINED = ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided")


@functools.cache
def entries() -> dict[str, Any]:
    """Every entry that takes float32, by name and variant."""
    from torch.testing._internal import common_methods_invocations as database

    database.wrapper_set_seed = _unseeded  # a model that seeds its own draws is another model, and refused
    found: dict[str, Any] = {}
    for op in database.op_db:
        if torch.float32 in op.dtypes:
            name = f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name
            found[name] = op
    return found


def _unseeded(op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A random operator by itself."""
    return op(*args, **kwargs)


def calls(op: Any) -> Iterator[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]:
    """The sampled calls in float32: a function, its arguments and its keyword arguments.

    A call without any tensor gets one in front that it does not use, since a model has inputs.
    """
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    for sample in op.sample_inputs("cpu", torch.float32, requires_grad=False):
        args, kwargs = (sample.input, *sample.args), dict(sample.kwargs)
        if any(is_tensor(leaf.value) for leaf in leaves((args, kwargs))):
            yield _plain(op), args, kwargs
        else:
            yield _with_unused(op), (torch.zeros(1), *args), kwargs


def _plain(op: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return op.op(*args, **kwargs)

    return call


def _with_unused(op: Any) -> Callable[..., Any]:
    def call(unused: Any, *args: Any, **kwargs: Any) -> Any:
        del unused
        return op.op(*args, **kwargs)

    return call
