"""What an error says where a recording was tried in more than one way: which of two is told first.

The first way keeps all branches on sizes open; another gives some of that up. Where the other gets further
down the model, what ended the first is out of its way, and its own error is the one to mend. Where it ends
before, or in another file, the first error is what keeps the whole model from being recorded. The other one
is told below it.
"""

from __future__ import annotations

import re

from ingot.capture.state import StateMatters
from ingot.capture.where import raised_at
from ingot.errors import ExportError

_PLACE = re.compile(r"(.+?):(\d+): ")


class Tries:
    """The ways in which a recording was tried, and what ended the first that ended in an error."""

    def __init__(self) -> None:
        self.first = ""
        self.refused = False  # by Ingot; else what the model raises
        self.how = ""

    def note(self, error: Exception, how: str) -> None:
        """A try has ended in this error; how: what is otherwise in the next, "with sizes as …"."""
        self.how = how
        if self.first or isinstance(error, StateMatters):  # which no user has to mend yet
            return
        self.refused = isinstance(error, ExportError)
        # Of torch's errors the line alone: their words may be of its insides.
        self.first = str(error) if self.refused else raised_at(error, "")

    def tell(self, error: Exception) -> None:
        """Let the last error say what the first one said as well; one that is not Ingot's remembers it."""
        if isinstance(error, StateMatters):  # a whole run has ended in it
            return
        if isinstance(error, ExportError):
            error.args = (self.beside(str(error)), *error.args[1:])
        else:
            error.ingot_tries = self  # pyright: ignore[reportAttributeAccessIssue]

    def beside(self, last: str) -> str:
        """What the last error says, beside the first."""
        if not self.first or self.first == last:
            return last
        if not self.refused or _is_further(last, self.first):
            return (
                f"{last}\nThat is the export tried again, {self.how}. At first it ended here:\n{self.first}"
            )
        return f"{self.first}\nTried again, {self.how}, the export ends here:\n{last}"


def beside_the_first(error: Exception, said: str) -> str:
    """What to say of an error of the model's or torch's, beside what ended an earlier try."""
    tries = getattr(error, "ingot_tries", None)
    return tries.beside(said) if isinstance(tries, Tries) else said


def _is_further(last: str, first: str) -> bool:
    """Whether an error's line is further down the same file than another's; without one it ends a run."""
    a, b = _PLACE.match(last), _PLACE.match(first)
    return a is None or (b is not None and a[1] == b[1] and int(a[2]) > int(b[2]))
