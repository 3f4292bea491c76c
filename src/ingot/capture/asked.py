"""Python is about to ask a size or number for its value: it is rewritten, kept symbolic, or refused."""

# torch's shape environment and fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingot.capture.checks import line, require
from ingot.capture.handlers import inside_try
from ingot.capture.intercept import (
    SizeWanted,
    refuse_catching,
)
from ingot.capture.kinds import dtype_is_int, functions_of
from ingot.capture.record import Recorder
from ingot.capture.remedies import remedy
from ingot.capture.request import asking_frame, request
from ingot.capture.scalars import depends_on_data
from ingot.capture.symbolic_int import KeepSymbolic
from ingot.capture.where import (
    asked_by_user,
    called_by_user,
    converting_frame,
    quoted_line,
)
from ingot.errors import DataDependentError


def before_branch(condition: Any, recorder: Recorder) -> None:
    """The user's Python is about to branch on a condition that only the run knows: rewrite the function.

    Raises:
        Restart: to start again with it.
        DataDependentError: data decides, and the function has no staged form for this.
    """
    frame = converting_frame("", depth=3) or asking_frame()
    data = depends_on_data(recorder, condition)
    request(frame, needed=data)
    if data:
        raise DataDependentError(
            f"{quoted_line(frame)}\n"
            "Data decides this condition, in a place where Python alone can ask: inside a library's or a "
            "built-in function, a generator or a class body. "
            + remedy(
                frame,
                "Write it as an `if`, loop or `and`/`or` of the function's own, or with torch.where.",
            )
        )


def before_check(condition: Any, recorder: Recorder) -> bool:
    """The user's own torch._check: where data decides, it is a check in the graph. An operator's own is the
    operator's there, unless the model would catch what it raises.
    """
    if not depends_on_data(recorder, condition):
        return False
    if not called_by_user("_check"):
        if inside_try(of_operator=True) and recorder.env.known(condition) is None:
            refuse_catching("an operator's operands may not fit each other")
        return False
    require(recorder, recorder.sizes.scalar_of(condition), f"`{line()}`")
    return True


def before_number(condition: Any, already: Sequence[dict[str, Any]], recorder: Recorder) -> None:
    """A size is about to become a Python number: see whether that can be avoided.

    `int(x.shape[0])` in the user's code: start again with an `int` that leaves sizes as they are. torch's
    own C++:
    take the operator's Python form instead.
    """
    asking = converting_frame("")
    data = depends_on_data(recorder, condition)
    frame = converting_frame("__int__")
    if frame is None or data:
        request(asking, needed=data)
    if data and asking is not None:
        raise DataDependentError(
            f"{quoted_line(asking)}\n"
            "Data decides this number, and Python alone can use it here: as a key, a count of list elements, "
            "or an argument of a library's function. "
            + remedy(asking, "Compute with tensors, or pass the number in as an argument.")
        )
    if frame is not None:
        if dtype_is_int(functions_of(frame.f_globals)):
            request(frame, needed=False)
        if not any(frame.f_globals is g for g in already):
            raise KeepSymbolic(frame.f_globals)
    elif not asked_by_user() and not recorder.in_python:
        raise SizeWanted
