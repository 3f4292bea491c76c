"""ATen operators to ONNX: a file for each family. Importing this package fills the tables in `registry`."""

from ingot.capture.aten import (
    attention,
    conv,
    create,
    cumulative,
    elementwise,
    fft,
    index,
    linear,
    norm,
    pool,
    random,
    reduce,
    resize,
    rnn,
    shape,
)
from ingot.capture.aten.registry import INSTEAD, ROWS, WHOLE, Row, whole_row

__all__ = [
    "INSTEAD",
    "ROWS",
    "WHOLE",
    "Row",
    "attention",
    "conv",
    "create",
    "cumulative",
    "elementwise",
    "fft",
    "index",
    "linear",
    "norm",
    "pool",
    "random",
    "reduce",
    "resize",
    "rnn",
    "shape",
    "whole_row",
]
