"""What stands in for Python's own functions and subscripts in rewritten code, where only the run knows the
tensors, numbers and lists that they are given. Importing this package fills the table.
"""

from ingot.capture.standins import calls, made, numbers, reductions, sequences, subscripts, tensors, values
from ingot.capture.standins.table import STANDINS

__all__ = [
    "STANDINS",
    "calls",
    "made",
    "numbers",
    "reductions",
    "sequences",
    "subscripts",
    "tensors",
    "values",
]
