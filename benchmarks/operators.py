"""`make bench-operators`: each operator alone beside ONNX Runtime, on about 10³, 10⁵ and 10⁷ elements.

Models of one node, outputs compared before anything is timed. It finds the kernels that are slower than a
peer's; what a network gains from fusing them is not in it.

    make bench-operators
    make bench-operators ARGS="--only Atan,MaxPool --threads 1,2 --below 0.95"
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from rich.console import Console
from rich.table import Table

from ingot.benchmark import side_by_side
from ingot.peers import Job

Array = NDArray[Any]

SIZES = (1_000, 100_000, 10_000_000)
_RNG = np.random.default_rng(0)
_OPSET = 21
_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Node:
    """One node: inputs that each run gives, and constants; `order`: their names as the node wants them."""

    op: str
    inputs: dict[str, Array]
    constants: dict[str, Array] = field(default_factory=dict[str, Array])
    attrs: dict[str, Any] = field(default_factory=dict[str, Any])
    order: tuple[str, ...] = ()
    outputs: int = 1
    domain: str = ""

    def save(self, path: Path) -> None:
        """Write the model of this node."""
        names = self.order or (*self.inputs, *self.constants)
        results = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, list(names), results, domain=self.domain, **self.attrs)
        ends = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in self.inputs.items()
        ]
        graph = helper.make_graph(
            [node], self.op, ends, [helper.make_empty_tensor_value_info(name) for name in results],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


Make = Callable[[int], Node]


def _normal(*shape: int, dtype: str = "float32") -> Array:
    return _RNG.standard_normal(shape, np.float32).astype(dtype)


def _between(low: float, high: float, *shape: int, dtype: str = "float32") -> Array:
    return (_RNG.random(shape, np.float32) * (high - low) + low).astype(dtype)


def _rows(n: int, width: int) -> tuple[int, int]:
    return max(1, n // width), width


def _unary(op: str, low: float = -3.0, high: float = 3.0, dtype: str = "float32", **attrs: Any) -> Make:
    return lambda n: Node(op, {"x": _between(low, high, n, dtype=dtype)}, attrs=attrs)


def _binary(op: str, low: float = 0.5, high: float = 3.0, dtype: str = "float32", **attrs: Any) -> Make:
    return lambda n: Node(op, {name: _between(low, high, n // 2, dtype=dtype) for name in "ab"}, attrs=attrs)


def _broadcast(op: str, shape: Callable[[int], Sequence[int]], dtype: str = "float32") -> Make:
    """A matrix, and an operand of `shape(columns)`."""
    return lambda n: Node(
        op,
        {
            "a": _between(0.5, 3, *_rows(n, 250), dtype=dtype),
            "b": np.asarray(_between(0.5, 3, *shape(n // 250), dtype=dtype), dtype),
        },
    )


def _reduction(op: str, axis: int, width: int = 500, dtype: str = "float32") -> Make:
    return lambda n: Node(
        op,
        {"x": _between(0.999, 1.001, *_rows(n, width), dtype=dtype)},
        {"axes": np.array([axis])},
        {"keepdims": 0},
    )


def _along(op: str, axis: int, width: int = 500, dtype: str = "float32", **attrs: Any) -> Make:
    """Something along an axis that is an attribute."""
    return lambda n: Node(op, {"x": _normal(*_rows(n, width), dtype=dtype)}, attrs={"axis": axis, **attrs})


def _image(n: int, channels: int) -> Array:
    side = max(4, int((n / channels) ** 0.5) // 4 * 4)
    return _normal(1, channels, side, side)


def _window(op: str, channels: int = 16, **attrs: Any) -> Make:
    return lambda n: Node(op, {"x": _image(n, 1 if n < 10_000 else channels)}, attrs=attrs)


def _transpose(perm: Sequence[int], *inner: int, dtype: str = "float32") -> Make:
    return lambda n: Node(
        "Transpose",
        {"x": _normal(max(1, n // int(np.prod(inner))), *inner, dtype=dtype)},
        attrs={"perm": list(perm)},
    )


def _resize(mode: str, factor: float, **attrs: Any) -> Make:
    def make(n: int) -> Node:
        x = _image(n, 3 if n < 10_000 else 16)
        return Node(
            "Resize", {"x": x}, {"scales": np.array([1, 1, factor, factor], np.float32)},
            {"mode": mode, **attrs}, ("x", "", "scales"),
        )  # fmt: skip

    return make


def _gather(width: int, table: int = 30_000, dtype: str = "float32") -> Make:
    return lambda n: Node(
        "Gather",
        {"ids": _RNG.integers(0, table, max(1, n // width))},
        {"table": _normal(table, width, dtype=dtype)},
        order=("table", "ids"),
    )


def _elements(op: str) -> Make:
    def make(n: int) -> Node:
        x = _normal(*_rows(n, 100))
        ids = np.argsort(_RNG.random(x.shape, np.float32), 1)[:, :50]
        inputs = {"x": x, "ids": ids}
        if op == "ScatterElements":
            inputs["u"] = _normal(*ids.shape)
        return Node(op, inputs, attrs={"axis": 1})

    return make


def _nd(op: str, width: int) -> Make:
    def make(n: int) -> Node:
        x = _normal(*_rows(n, width))
        ids = _RNG.permutation(len(x))[: max(1, len(x) // 2), None]
        inputs = {"x": x, "ids": ids}
        if op == "ScatterND":
            inputs["u"] = _normal(len(ids), width)
        return Node(op, inputs)

    return make


def _concat(parts: int, axis: int) -> Make:
    def make(n: int) -> Node:
        shape = _rows(n // parts, 10 if axis else 100)
        return Node("Concat", {f"x{i}": _normal(*shape) for i in range(parts)}, attrs={"axis": axis})

    return make


def _split(parts: int, axis: int) -> Make:
    def make(n: int) -> Node:
        x = _normal(*_rows(n, 10 * parts)) if axis else _normal(parts, n // parts)
        return Node("Split", {"x": x}, attrs={"axis": axis, "num_outputs": parts}, outputs=parts)

    return make


def _topk(k: int, width: int, **attrs: Any) -> Make:
    return lambda n: Node("TopK", {"x": _normal(*_rows(n, width))}, {"k": np.array([k])}, attrs, outputs=2)


def _where(shape: Callable[[int, int], tuple[int, ...]]) -> Make:
    def make(n: int) -> Node:
        rows, width = _rows(n // 2, 250)
        c = _RNG.random(shape(rows, width)) < 0.5
        return Node("Where", {"c": c, "a": _normal(rows, width), "b": _normal(rows, width)})

    return make


def _norm(op: str, width: int = 768, **attrs: Any) -> Make:
    def make(n: int) -> Node:
        constants = {"w": _normal(width), **({} if "RMS" in op or "Simpl" in op else {"b": _normal(width)})}
        return Node(op, {"x": _normal(*_rows(n, width))}, constants, {"axis": -1, **attrs})

    return make


def _planes_norm(op: str, **attrs: Any) -> Make:
    def make(n: int) -> Node:
        channels = 4 if n < 10_000 else 32
        x = _image(n, channels)
        constants = {"w": _between(0.5, 1.5, channels), "b": _normal(channels)}
        if op == "BatchNormalization":
            constants |= {"mean": _normal(channels), "variance": _between(0.5, 1.5, channels)}
        return Node(op, {"x": x}, constants, attrs)

    return make


def _cast(source: str, target: str) -> Make:
    to = helper.np_dtype_to_tensor_dtype(np.dtype(target))
    return lambda n: Node("Cast", {"x": _between(0, 100, n, dtype=source)}, attrs={"to": to})


def _slice(step: int, axis: int) -> Make:
    def make(n: int) -> Node:
        x = _normal(*_rows(n, 500))
        start, end = (0, 1 << 40) if step > 0 else (-1, -(1 << 40))
        constants = {
            name: np.array([value])
            for name, value in (("start", start), ("end", end), ("axes", axis), ("steps", step))
        }
        return Node("Slice", {"x": x}, constants)

    return make


def _pad(mode: str) -> Make:
    return lambda n: Node(
        "Pad", {"x": _image(n, 4)}, {"pads": np.array([0, 0, 1, 2, 0, 0, 1, 2])}, {"mode": mode}
    )


def _quantize(op: str, axis: bool = False) -> Make:
    def make(n: int) -> Node:
        rows, width = _rows(n, 250)
        shape = (width,) if axis else ()
        x = _normal(rows, width)
        if op == "DequantizeLinear":
            x = (x * 40).clip(-128, 127).astype(np.int8)
        constants = {
            "scale": np.asarray(_between(0.01, 0.02, *shape), np.float32),
            "zero": np.zeros(shape, np.int8),
        }
        return Node(op, {"x": x}, constants, {"axis": 1} if axis else {})

    return make


def _suppress(n: int) -> Node:
    count = max(4, min(4000, n // 100))
    corner, sides = _between(0, 10 * count**0.5, count, 2), _between(5, 30, count, 2)
    boxes = np.concatenate([corner, corner + sides], 1)[None]
    constants = {
        "most": np.array([100]), "iou": np.array([0.5], np.float32), "low": np.array([0.1], np.float32)
    }  # fmt: skip
    return Node("NonMaxSuppression", {"boxes": boxes, "scores": _between(0, 1, 1, 1, count)}, constants)


def _grid(n: int) -> Node:
    x = _image(n, 3)
    return Node("GridSample", {"x": x, "grid": _between(-1, 1, 1, *x.shape[2:], 2)})


def _one_hot(n: int) -> Node:
    return Node(
        "OneHot", {"ids": _RNG.integers(0, 100, max(1, n // 100))},
        {"depth": np.array([100]), "values": np.array([0, 1], np.float32)},
    )  # fmt: skip


def _constants(op: str, **more: Any) -> Make:
    """Of a vector and constants."""
    return lambda n: Node(op, {"x": _normal(n)}, dict(more))


_HALF, _WHOLE = np.float32(-0.5), np.float32(0.5)
_POOLS = {
    "2x2 s2": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "3x3 s2": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "3x3 s1": {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]},
    "5x5 s1": {"kernel_shape": [5, 5], "strides": [1, 1], "pads": [2, 2, 2, 2]},
}
_SMOOTH = (
    *("Exp", "Tanh", "Erf", "Sigmoid", "Softplus", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Asinh"),
    *("Abs", "Neg", "Sign", "Floor", "Ceil", "Round", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Softsign"),
    *("HardSigmoid", "HardSwish", "Mish", "Gelu", "ThresholdedRelu", "IsNaN", "IsInf"),
)
_DOUBLE = ("Exp", "Tanh", "Erf", "Sigmoid", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Asinh", "Abs")
_SUMS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")

CASES: dict[str, Make] = {
    **{op: _unary(op) for op in _SMOOTH},
    **{
        op: _unary(op, low, high)
        for op, low, high in (
            ("Log", 0.01, 10),
            ("Sqrt", 0, 10),
            ("Reciprocal", 0.5, 3),
            ("Asin", -1, 1),
            ("Acos", -1, 1),
            ("Acosh", 1, 9),
            ("Atanh", -0.99, 0.99),
        )
    },
    "Gelu tanh": _unary("Gelu", approximate="tanh"),
    **{f"{op} f64": _unary(op, dtype="float64") for op in _DOUBLE},
    **{
        f"{op} f64": _unary(op, low, high, "float64")
        for op, low, high in (
            ("Log", 0.01, 10),
            ("Sqrt", 0, 10),
            ("Asin", -1, 1),
            ("Acos", -1, 1),
            ("Acosh", 1, 9),
            ("Atanh", -0.99, 0.99),
        )
    },
    "Not": lambda n: Node("Not", {"x": _RNG.random(n) < 0.5}),
    "Clip": _constants("Clip", low=_HALF, high=_WHOLE),
    **{op: _binary(op) for op in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Less", "Equal", "PRelu")},
    "Mod": _binary("Mod", fmod=1),
    **{f"{op} f64": _binary(op, dtype="float64") for op in ("Add", "Div", "Pow")},
    **{f"{op} i64": _binary(op, 1, 100, "int64") for op in ("Add", "Mul", "Div", "Mod", "Equal", "Max")},
    **{f"{op} i32": _binary(op, 1, 100, "int32") for op in ("Add", "Div", "Less")},
    "Pow by 2": _constants("Pow", e=np.float32(2)),
    "Pow by 3.5": lambda n: Node("Pow", {"x": _between(0.1, 3, n)}, {"e": np.float32(3.5)}),
    "And": lambda n: Node("And", {name: _RNG.random(n // 2) < 0.5 for name in "ab"}),
    "Add row": _broadcast("Add", lambda _: (250,)),
    "Add column": _broadcast("Add", lambda m: (max(m, 1), 1)),
    "Mul scalar": _broadcast("Mul", lambda _: ()),
    "Where": _where(lambda r, w: (r, w)),
    "Where row": _where(lambda _, w: (w,)),
    "Where column": _where(lambda r, _: (r, 1)),
    **{f"Reduce{s} rows": _reduction(f"Reduce{s}", 1) for s in _SUMS},
    **{f"Reduce{s} columns": _reduction(f"Reduce{s}", 0) for s in _SUMS},
    "ReduceSum all": lambda n: Node("ReduceSum", {"x": _normal(n)}, attrs={"keepdims": 0}),
    "ReduceMax all": lambda n: Node("ReduceMax", {"x": _normal(n)}, attrs={"keepdims": 0}),
    "ReduceSum of 8": _reduction("ReduceSum", 1, 8),
    "ReduceSum f64 rows": _reduction("ReduceSum", 1, dtype="float64"),
    "ReduceSum f64 columns": _reduction("ReduceSum", 0, dtype="float64"),
    "ReduceSum i64 rows": _reduction("ReduceSum", 1, dtype="int64"),
    "ReduceMean planes": lambda n: Node(
        "ReduceMean", {"x": _image(n, 16)}, {"axes": np.array([2, 3])}, {"keepdims": 1}
    ),
    "GlobalAveragePool": _window("GlobalAveragePool"),
    "GlobalMaxPool": _window("GlobalMaxPool"),
    **{
        f"{op} {heading}": _window(op, **attrs)
        for op in ("MaxPool", "AveragePool")
        for heading, attrs in _POOLS.items()
    },
    "MaxPool 64 channels": _window("MaxPool", 64, **_POOLS["3x3 s2"]),
    "MaxPool 1d": lambda n: Node(
        "MaxPool", {"x": _normal(1, 8, n // 8)}, attrs={"kernel_shape": [3], "strides": [2]}
    ),
    **{f"{op} rows": _along(op, -1) for op in ("Softmax", "LogSoftmax", "Hardmax")},
    "Softmax columns": _along("Softmax", 0),
    "Softmax of 32000": _along("Softmax", -1, 32_000),
    "LogSoftmax of 32000": _along("LogSoftmax", -1, 32_000),
    "Softmax of 10": _along("Softmax", -1, 10),
    "Softmax f64": _along("Softmax", -1, dtype="float64"),
    **{
        f"{op} {heading}": _along(op, axis, keepdims=0)
        for op in ("ArgMax", "ArgMin")
        for heading, axis in (("rows", 1), ("columns", 0))
    },
    "ArgMax of 32000": _along("ArgMax", 1, 32_000, keepdims=0),
    "ArgMax i64": _along("ArgMax", 1, dtype="int64"),
    "CumSum rows": lambda n: Node("CumSum", {"x": _normal(*_rows(n, 500))}, {"axis": np.array(1)}),
    "CumSum columns": lambda n: Node("CumSum", {"x": _normal(*_rows(n, 500))}, {"axis": np.array(0)}),
    "CumSum i64": lambda n: Node("CumSum", {"x": _RNG.integers(0, 9, _rows(n, 500))}, {"axis": np.array(1)}),
    "TopK 5 of 1000": _topk(5, 1000),
    "TopK 50 of 32000": _topk(50, 32_000),
    "TopK 1 of 100": _topk(1, 100),
    "TopK 100 of 1000": _topk(100, 1000),
    "TopK sort 1000": _topk(1000, 1000),
    "TopK columns": lambda n: Node(
        "TopK", {"x": _normal(1000, max(1, n // 1000))}, {"k": np.array([5])}, {"axis": 0}, outputs=2
    ),
    **{f"Gather {w}": _gather(w) for w in (1, 16, 64, 300, 768)},
    "Gather columns": lambda n: Node(
        "Gather", {"x": _normal(*_rows(n, 500))}, {"ids": _RNG.integers(0, 500, 250)}, {"axis": 1}
    ),
    "Gather one column": lambda n: Node(
        "Gather", {"x": _normal(*_rows(n, 10))}, {"ids": np.array(3)}, {"axis": 1}
    ),
    **{op: _elements(op) for op in ("GatherElements", "ScatterElements")},
    **{f"{op} {w}": _nd(op, w) for op in ("GatherND", "ScatterND") for w in (4, 256)},
    "OneHot": _one_hot,
    "NonZero": lambda n: Node("NonZero", {"x": (_RNG.random(n) < 0.3).astype(np.float32)}),
    "Compress": lambda n: Node("Compress", {"x": _normal(n), "c": _RNG.random(n) < 0.5}),
    "Unique": lambda n: Node("Unique", {"x": _RNG.integers(0, n // 4 + 1, n)}),
    "Transpose 10": _transpose((1, 0), 250),
    "Transpose 0231": _transpose((0, 2, 3, 1), 16, 8, 8),
    "Transpose 0312": _transpose((0, 3, 1, 2), 8, 8, 16),
    "Transpose 0213": _transpose((0, 2, 1, 3), 8, 4, 32),
    "Transpose 0213 of 4": _transpose((0, 2, 1, 3), 16, 16, 4),
    "Transpose 210": _transpose((2, 1, 0), 10, 25),
    "Transpose 3210": _transpose((3, 2, 1, 0), 4, 5, 10),
    "Transpose 1032": _transpose((1, 0, 3, 2), 5, 4, 50),
    "Transpose 021354": _transpose((0, 2, 4, 1, 3, 5), 2, 5, 2, 5, 2),
    "Transpose u8": _transpose((0, 2, 1), 3, 64, dtype="uint8"),
    "Transpose i64": _transpose((1, 0), 250, dtype="int64"),
    "Transpose of 3": _transpose((1, 0), 3),
    **{f"Concat {p} rows": _concat(p, 0) for p in (2, 50)},
    **{f"Concat {p} columns": _concat(p, 1) for p in (2, 50)},
    **{f"Split {p} rows": _split(p, 0) for p in (2, 50)},
    **{f"Split {p} columns": _split(p, 1) for p in (2, 50)},
    "Slice every second": _slice(2, 1),
    "Slice every second row": _slice(2, 0),
    "Slice backwards": _slice(-1, 1),
    **{f"Pad {mode}": _pad(mode) for mode in ("constant", "reflect", "edge")},
    "Tile": lambda n: Node("Tile", {"x": _normal(*_rows(n // 4, 50))}, {"times": np.array([2, 2])}),
    "Tile of 3": lambda n: Node("Tile", {"x": _normal(3)}, {"times": np.array([n // 3])}),
    "Expand": lambda n: Node("Expand", {"x": _normal(max(1, n // 100), 1)}, {"shape": np.array([1, 100])}),
    "Trilu": lambda n: Node("Trilu", {"x": _normal(int(n**0.5), int(n**0.5))}),
    "DepthToSpace": lambda n: Node("DepthToSpace", {"x": _image(n, 16)}, attrs={"blocksize": 2}),
    "SpaceToDepth": lambda n: Node("SpaceToDepth", {"x": _image(n, 4)}, attrs={"blocksize": 2}),
    "Resize nearest 2": _resize("nearest", 2.0),
    "Resize nearest asymmetric": _resize(
        "nearest", 2.0, coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    "Resize nearest half": _resize("nearest", 0.5),
    "Resize linear 2": _resize("linear", 2.0),
    "Resize linear half": _resize("linear", 0.5),
    "Resize linear aligned": _resize("linear", 2.0, coordinate_transformation_mode="align_corners"),
    "Resize linear 1.7": _resize("linear", 1.7),
    "Resize cubic 2": _resize("cubic", 2.0),
    "GridSample": _grid,
    "LayerNormalization": _norm("LayerNormalization"),
    "LayerNormalization 64": _norm("LayerNormalization", 64),
    "SimplifiedLayerNormalization": _norm("SimplifiedLayerNormalization"),
    "BatchNormalization": _planes_norm("BatchNormalization"),
    "InstanceNormalization": _planes_norm("InstanceNormalization"),
    "GroupNormalization": _planes_norm("GroupNormalization", num_groups=4),
    "LRN": _window("LRN", size=5),
    "LpNormalization": _along("LpNormalization", -1, 250),
    **{
        f"Cast {a} {b}": _cast(a, b)
        for a, b in (
            ("float32", "int64"),
            ("int64", "float32"),
            ("float32", "float16"),
            ("float16", "float32"),
            ("float32", "bool"),
            ("uint8", "float32"),
            ("float32", "uint8"),
            ("bool", "float32"),
            ("int32", "int64"),
            ("int64", "int32"),
            ("float64", "float32"),
            ("float32", "float64"),
        )
    },
    "QuantizeLinear": _quantize("QuantizeLinear"),
    "QuantizeLinear columns": _quantize("QuantizeLinear", True),
    "DequantizeLinear": _quantize("DequantizeLinear"),
    "DequantizeLinear columns": _quantize("DequantizeLinear", True),
    "DynamicQuantizeLinear": lambda n: Node("DynamicQuantizeLinear", {"x": _normal(n)}, outputs=3),
    "NonMaxSuppression": _suppress,
    "BitShift": lambda n: Node(
        "BitShift",
        {name: _RNG.integers(0, 9, n // 2).astype(np.uint32) for name in "ab"},
        attrs={"direction": "LEFT"},
    ),
    "Einsum transpose": lambda n: Node(
        "Einsum", {"x": _normal(*_rows(n, 250))}, attrs={"equation": "ij->ji"}
    ),
    "Einsum sum": lambda n: Node("Einsum", {"x": _normal(*_rows(n, 250))}, attrs={"equation": "ij->i"}),
}


def main() -> None:
    """Print the rows of each operator, size and number of threads, worst first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="names that begin with one of these, by commas")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="elements (default: %(default)s)")
    parser.add_argument("--threads", default="1", help="numbers of threads (default: 1)")
    parser.add_argument("--seconds", type=float, default=0.15, help="of each row at least (default: 0.15)")
    parser.add_argument("--below", type=float, default=float("inf"), help="print only rows of a lower ratio")
    parser.add_argument("--peers", default="onnxruntime", help="the others (default: onnxruntime)")
    chosen = parser.parse_args()
    prefixes = tuple(chosen.only.split(","))
    peers: list[str] = chosen.peers.split(",")
    found: list[tuple[float, list[str]]] = []
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "node.onnx"
        for name, make in CASES.items():
            if not name.startswith(prefixes):
                continue
            for size in map(int, chosen.sizes.split(",")):
                node = make(size)
                node.save(path)
                for threads in map(int, chosen.threads.split(",")):
                    cells, _ = side_by_side(
                        Job(path, node.inputs, threads), ["ingot", *peers],
                        rounds=7, seconds=chosen.seconds,
                    )  # fmt: skip
                    ours, *theirs = [cell.median for cell in cells]
                    texts = [f"{1e6 * cell.median:.1f}" if cell.median else cell.reason for cell in cells]
                    best = min((t for t in theirs if t is not None), default=None)
                    ratio = best / ours if ours and best else 0.0 if best else float("inf")
                    found.append((ratio, [name, str(size), str(threads), *texts, f"{ratio:.2f}"]))
                    print(*found[-1][1], sep="\t", file=sys.stderr, flush=True)
    table = Table(
        "operator", "elements", "threads", "Ingot µs", *(f"{p} µs" for p in peers), "ratio", box=None
    )
    for ratio, row in sorted(found, key=lambda pair: pair[0]):
        if ratio < chosen.below:
            table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
