"""Which `try` may catch what an operator raises."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ingot.capture import recording
from ingot.capture.handlers import inside_try, suppressions_seen
from tests.capture.support import OrtError, ort_runner, parity


def none_of_sizes() -> tuple[bool, bool]:
    """As transformers' StaticCache writes."""
    try:
        return inside_try(), inside_try(of_operator=True)
    except NotImplementedError:
        return True, True
    except ImportError as error:
        raise ValueError from error


def one_of_several() -> tuple[bool, bool]:
    try:
        return inside_try(), inside_try(of_operator=True)
    except NotImplementedError:
        return True, True
    except RuntimeError:
        return False, False


def all_of_them() -> tuple[bool, bool]:
    try:
        return inside_try(), inside_try(of_operator=True)
    except KeyError:
        return True, True
    except:  # noqa: E722  (what is asked about)
        return False, False


def in_a_tuple() -> tuple[bool, bool]:
    try:
        return inside_try(), inside_try(of_operator=True)
    except (NotImplementedError, IndexError):
        return False, False


def of_another_module() -> tuple[bool, bool]:
    try:
        return inside_try(), inside_try(of_operator=True)
    except torch.cuda.OutOfMemoryError:
        return False, False


def at_the_end_alone() -> tuple[bool, bool]:
    try:
        return inside_try(), inside_try(of_operator=True)
    finally:
        torch.ones(1)


class OfALibrary(RuntimeError):
    pass


def raised_again() -> tuple[bool, bool]:
    """As einops writes, to say more of it."""
    try:
        return inside_try(), inside_try(of_operator=True)
    except OfALibrary as error:
        said = f"while working: {error}"
        for _ in range(2):
            said += "." if len(said) < 90 else ""
        raise OfALibrary(said) from None


def raised_as_it_was() -> tuple[bool, bool]:
    try:
        return inside_try(), inside_try(of_operator=True)
    except:
        torch.ones(1)
        raise


def raised_again_or_not(quiet: bool = True) -> tuple[bool, bool]:
    try:
        return inside_try(), inside_try(of_operator=True)
    except RuntimeError:
        if not quiet:
            raise
    return False, False


def raised_as_what_is_caught_around() -> tuple[bool, bool]:
    try:
        return raised_again()
    except KeyError:
        return False, False


def raised_into_a_wider_one() -> tuple[bool, bool]:
    try:
        try:
            return inside_try(), inside_try(of_operator=True)
        except RuntimeError as error:
            raise KeyError from error
    except KeyError:
        return False, False


def let_through_to_a_wider_one() -> tuple[bool, bool]:
    try:
        with torch.no_grad():
            try:
                return inside_try(), inside_try(of_operator=True)
            except KeyError:
                return True, True
            finally:
                torch.ones(1)
    except RuntimeError:
        return False, False


@pytest.mark.parametrize(
    ("ask", "found"),
    [
        (raised_again, (False, False)),
        (raised_as_it_was, (False, False)),
        (raised_again_or_not, (True, True)),
        (raised_as_what_is_caught_around, (True, True)),
        (raised_into_a_wider_one, (True, True)),
        (let_through_to_a_wider_one, (True, True)),
        (none_of_sizes, (True, False)),
        (one_of_several, (True, True)),
        (all_of_them, (True, True)),
        (in_a_tuple, (True, True)),
        (of_another_module, (True, True)),
        (at_the_end_alone, (False, False)),
    ],
)
def test_what_may_catch(ask: Callable[[], tuple[bool, bool]], found: tuple[bool, bool]) -> None:
    assert recorded(ask) == found


def heads(x: torch.Tensor, at: int) -> torch.Tensor:
    """As einops takes an axis apart, and says more of what went wrong."""
    try:
        if x.shape[0] % at:
            raise OfALibrary(f"{x.shape[0]:5d} rows are no {at} parts")
        return x.reshape(at, x.shape[0] // at, x.shape[1])
    except OfALibrary as error:
        raise OfALibrary("while taking rows apart") from error


def test_what_is_only_raised_again_is_a_check() -> None:
    captured = parity(
        lambda x: heads(x[x[:, 0] > 0], 2).sum(1),
        (torch.tensor([[1.0], [2], [-1]]),),
        (torch.tensor([[1.0, 2], [2, 3], [-1, 3], [4, 1], [5, 6]]),),
        (torch.full((3, 2), -1.0),),
    )
    with pytest.raises(OrtError):
        ort_runner(captured.model)({"x": np.ones((3, 2), np.float32)}, captured.output_names)


def recorded(ask: Callable[[], Any]) -> Any:
    """As a model that is recorded asks; beyond the recording nobody looks."""
    defined: dict[str, Any] = {}
    exec(compile("def record(ask): return ask()", recording.__file__, "exec"), defined)
    with suppressions_seen():
        return defined["record"](ask)


def in_a_suppress() -> tuple[bool, bool]:
    with contextlib.suppress(IndexError):
        return inside_try(), inside_try(error=KeyError)


def behind_one() -> tuple[bool, bool]:
    again = contextlib.suppress(IndexError)
    with again, again:
        pass
    return inside_try(), inside_try(error=IndexError)


def beside_one_of_another_thread() -> tuple[bool, bool]:
    entered, asked = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.suppress(IndexError):
            entered.set()
            asked.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    entered.wait(60)
    try:
        return inside_try(), inside_try(error=IndexError)
    finally:
        asked.set()
        other.join()


def inside_of_another_recording() -> tuple[bool, bool]:
    with contextlib.suppress(IndexError):
        found = recorded(behind_one)
        return found[0], inside_try()


@pytest.mark.parametrize(
    ("ask", "found"),
    [
        (in_a_suppress, (True, False)),
        (behind_one, (False, False)),
        (beside_one_of_another_thread, (False, False)),
        (inside_of_another_recording, (False, True)),
    ],
)
def test_what_suppresses(ask: Callable[[], tuple[bool, bool]], found: tuple[bool, bool]) -> None:
    """Of the recording's own thread, and of no recording around it."""
    assert recorded(ask) == found
