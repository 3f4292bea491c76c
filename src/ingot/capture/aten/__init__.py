"""ATen operators to ONNX: a file for each family. Importing this package fills the tables in `registry`."""

from ingot.capture.aten import (
    attention,
    conv,
    create,
    elementwise,
    index,
    linear,
    norm,
    pool,
    reduce,
    resize,
    rnn,
    shape,
)
from ingot.capture.aten.registry import ROWS, WHOLE, Row, whole_row

__all__ = [
    "ROWS",
    "WHOLE",
    "Row",
    "attention",
    "conv",
    "create",
    "elementwise",
    "index",
    "linear",
    "norm",
    "pool",
    "reduce",
    "resize",
    "rnn",
    "shape",
    "whole_row",
]
