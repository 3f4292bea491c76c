"""Dicts at keys that only the run knows: each key that a dict has may be the one, and the model checks that
one is.
"""

# Keys and values may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any

from ingot.capture.checks import require_uncaught
from ingot.capture.dicts import TracedDict
from ingot.capture.open_dicts import want_open
from ingot.capture.where import quoted_line
from ingot.errors import DataDependentError

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime

#: Dicts that nothing of the model's own happens in where a key gets another value.
KINDS = (dict, TracedDict, OrderedDict, defaultdict, Counter)


def put(rt: Runtime, container: Any, key: Any, value: Any) -> None:
    """`container[key] = value`."""
    require_there(rt, container, key)
    for k, before in list(container.items()):
        container[k] = rt.choose(rt.equal(key, k), lambda: value, lambda before=before: before)


def require_there(rt: Runtime, container: Any, key: Any) -> None:
    """Let the model check that a dict has a key.

    Raises:
        DataDependentError: it has none that may be this one.
    """
    keys: Any = list(container)
    if all(type(k) is int for k in keys) and sorted(keys) == list(range(len(keys))):
        keys = range(len(keys))  # two comparisons, not one for each
    there = rt.contains(keys, key)
    if there is False:
        want_open(container)
        known = list(container)
        has = f"the keys {', '.join(map(repr, known[:4]))}" if known else "no keys yet"
        raise DataDependentError(
            f"{quoted_line()}\nData or a size decides the key here, and the dict has {has}: which ones it "
            "has then would follow from data, too, and no ONNX value says that. Give it every key that there "
            "may be first (`dict.fromkeys(range(n), 0)`), or count in a tensor (`torch.bincount`)."
        )
    if rt.waits(there):
        require_uncaught("the dict has this key", "Ask with `in` or `.get(…)` before.", KeyError)
    rt.check(there, None)
