"""`make bench-control`: loops, branches and small rows beside ONNX Runtime, where a run is short and what
stands around the arithmetic decides.

Modules with loops and branches on data are exported, some graphs are made here, and scikit-learn's models
come through skl2onnx. Outputs are compared before anything is timed.

    make bench-control
    make bench-control ARGS="--models while,nms_200 --threads 1,2"
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.helper
import onnx.parser
import torch
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

import ingot
from benchmarks.files import Feed
from benchmarks.learned import learned
from ingot.benchmark import side_by_side
from ingot.peers import Job

#: Labels and places are equal, probabilities nearly so.
TOLERANCE = 1e-4
_RNG = np.random.default_rng(0)
Made = tuple[Path, Feed]


class While(torch.nn.Module):
    """n rounds over a vector."""

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        i = 0
        while i < n:
            x = torch.tanh(x * 0.9 + 0.1)
            i = i + 1
        return x


class Branch(torch.nn.Module):
    """One of two layers, by the sum of the input; then halved until the sum is small."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # noqa: SIM108
            y = self.one(x)
        else:
            y = self.other(x).relu()
        while y.abs().sum() > 2:
            y = y * 0.5
        return y


class Nested(torch.nn.Module):
    """Ten rounds in each of n, and a branch."""

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        for i in range(n):
            j = 0
            while j < 10:
                x = torch.sin(x + i) * 0.9 + j
                j = j + 1
            if x.sum() > 0:
                x = x * 0.5 - 1
        return x


class Growing(torch.nn.Module):
    """A table that gets a row in each of n rounds."""

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        out = x
        for _ in range(n):
            out = torch.cat([out, out[-1:] * 0.9 + 0.1])
        return out


def _exported(module: torch.nn.Module, example: Feed) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        torch.manual_seed(0)
        path = folder / f"{type(module).__name__}.onnx"
        arguments = tuple(torch.from_numpy(np.asarray(array)) for array in example.values())
        ingot.export(module.eval(), arguments, path, verify=False)
        return path, example

    return make


#: Greedy non-maximum suppression, as one writes it in Python: the boxes that are left shrink.
_SUPPRESS = """<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 4] boxes, float[n] scores) => (int64[m] keep)
<int64[1] zero1 = {0}, int64[1] one1 = {1}, int64[1] two1 = {2}, int64[1] far = {9223372036854775807},
 int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64 three = {3},
 float half = {0.5}, float nil = {0.0}> {
    count = Shape(scores)
    k = Squeeze(count)
    kk = Unsqueeze(k, zero1)
    s, order = TopK<sorted = 1>(scores, kk)
    start = SequenceEmpty<dtype = 7>()
    live = Greater(k, zero)
    rest_out, list = Loop(, live, order, start) <
        body = b (int64 i, bool c, int64[u] left, seq(int64[]) kept)
            => (bool d, int64[w] next, seq(int64[]) grown) {
            best = Gather<axis = 0>(left, zero)
            grown = SequenceInsert(kept, best)
            rest = Slice(left, one1, far, zero1)
            box = Gather<axis = 0>(boxes, best)
            boxlow = Slice(box, zero1, two1, zero1)
            boxhigh = Slice(box, two1, far, zero1)
            others = Gather<axis = 0>(boxes, rest)
            otherlow = Slice(others, zero1, two1, one1)
            otherhigh = Slice(others, two1, far, one1)
            low = Max(boxlow, otherlow)
            high = Min(boxhigh, otherhigh)
            gap = Sub(high, low)
            sides = Clip(gap, nil)
            sx = Gather<axis = 1>(sides, zero)
            sy = Gather<axis = 1>(sides, one)
            common = Mul(sx, sy)
            x0 = Gather<axis = 1>(boxes, zero)
            y0 = Gather<axis = 1>(boxes, one)
            x1 = Gather<axis = 1>(boxes, two)
            y1 = Gather<axis = 1>(boxes, three)
            dx = Sub(x1, x0)
            dy = Sub(y1, y0)
            area = Mul(dx, dy)
            mine = Gather<axis = 0>(area, best)
            theirs = Gather<axis = 0>(area, rest)
            both = Add(mine, theirs)
            union = Sub(both, common)
            iou = Div(common, union)
            few = LessOrEqual(iou, half)
            where = NonZero(few)
            flat = Squeeze(where, zero1)
            next = Gather<axis = 0>(rest, flat)
            size = Shape(next)
            number = Squeeze(size, zero1)
            d = Greater(number, zero)
        }
    >
    keep = ConcatFromSequence<axis = 0, new_axis = 1>(list)
}"""
#: Rows that are stacked, as many as an input says.
_COUNTED = """<ir_version: 10, opset_import: ["" : 20]>
g (float[4] x, int64 n) => (float[4] y, float[m, 4] ys)
<float p = {0.9}, float q = {0.1}> {
    y, ys = Loop(n, , x) <
        body = b (int64 i, bool c, float[4] u) => (bool d, float[4] v, float[4] w) {
            d = Identity(c)
            less = Mul(u, p)
            v = Add(less, q)
            w = Tanh(v)
        }
    >
}"""


def _parsed(name: str, text: str, feed: Feed) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        path = folder / f"{name}.onnx"
        onnx.save(onnx.parser.parse_model(text), path)
        return path, feed

    return make


def _boxes(count: int) -> Feed:
    corner, sides = _RNG.uniform(0, 10 * count**0.5, (count, 2)), _RNG.uniform(5, 30, (count, 2))
    boxes = np.concatenate([corner, corner + sides], 1).astype(np.float32)
    return {"boxes": boxes, "scores": _RNG.standard_normal(count).astype(np.float32)}


def _floats(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _saved(folder: Path, name: str, graph: onnx.GraphProto) -> Path:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def _scan(folder: Path) -> Made:
    """A recurrent layer of 32 units, 100 steps."""
    nodes = [
        helper.make_node("MatMul", ["h", "w"], ["hw"]),
        helper.make_node("Add", ["hw", "row"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["next"]),
        helper.make_node("Identity", ["next"], ["out"]),
    ]
    one, many = [1, 32], ["t", 1, 32]
    ends = [_floats("h", one), _floats("row", one)], [_floats("next", one), _floats("out", one)]
    scan = helper.make_node(
        "Scan", ["start", "x"], ["last", "y"], body=helper.make_graph(nodes, "step", *ends), num_scan_inputs=1
    )
    w = numpy_helper.from_array((_RNG.standard_normal((32, 32)) * 0.1).astype(np.float32), "w")
    outer = [_floats("start", one), _floats("x", many)], [_floats("last", one), _floats("y", many)]
    path = _saved(folder, "scan", helper.make_graph([scan], "scan", *outer, [w]))
    x = _RNG.standard_normal((100, 1, 32)).astype(np.float32)
    return path, {"start": np.zeros((1, 32), np.float32), "x": x}


def _quantised_lstm(folder: Path) -> Made:
    """com.microsoft's, of 64 units, 50 steps."""
    integers = [_RNG.integers(-128, 127, (1, 64, 256)).astype(np.int8) for _ in range(2)]
    bias = (_RNG.standard_normal((1, 512)) * 0.1).astype(np.float32)
    scale, zero = np.array([0.002], np.float32), np.array([0], np.int8)
    arrays = dict(
        zip(["w", "r", "b", "ws", "wz", "rs", "rz"], [*integers, bias, scale, zero, scale, zero], strict=True)
    )
    node = helper.make_node(
        "DynamicQuantizeLSTM", ["x", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"], ["y", "h", "c"],
        domain="com.microsoft", hidden_size=64,
    )  # fmt: skip
    ends = (
        [_floats("x", ["t", "n", 64])],
        [_floats(name, list("abcd"[:rank])) for name, rank in zip("yhc", (4, 3, 3), strict=True)],
    )
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    path = _saved(folder, "quantised_lstm", helper.make_graph([node], "lstm", *ends, weights))
    return path, {"x": _RNG.standard_normal((50, 1, 64)).astype(np.float32)}


def _scikit(name: str, rows: int) -> Callable[[Path], Made]:
    """A classifier of three classes and ten features, trained on 500 rows."""

    def make(folder: Path) -> Made:
        from sklearn import ensemble, neighbors, svm

        models: dict[str, Any] = {
            "svc": svm.SVC(probability=True, random_state=0),
            "knn": neighbors.KNeighborsClassifier(5),
            "forest": ensemble.RandomForestClassifier(100, random_state=0),
            "boosting": ensemble.GradientBoostingClassifier(n_estimators=100, random_state=0),
        }
        model = models[name]
        proto = learned(model, options={id(model): {"zipmap": False}})
        path = folder / f"{name}.onnx"
        path.write_bytes(proto.SerializeToString())
        return path, {"X": _RNG.standard_normal((rows, 10)).astype(np.float32)}

    return make


_VECTOR = _RNG.standard_normal(32).astype(np.float32)
_ONES = np.ones((1, 16), np.float32)

MODELS: dict[str, tuple[str, Callable[[Path], Made]]] = {
    "while": ("while, 100 rounds", _exported(While(), {"x": _VECTOR, "n": np.array(100)})),
    "nested": ("10 · 10 rounds and a branch", _exported(Nested(), {"x": _VECTOR, "n": np.array(10)})),
    "branch": ("if and while", _exported(Branch(), {"x": _ONES})),
    "scan": ("Scan, 100 steps", _scan),
    "quantised_lstm": ("DynamicQuantizeLSTM, 50 steps", _quantised_lstm),
    "counted": ("rows of 100 rounds", _parsed("counted", _COUNTED, {"x": _ONES[0, :4], "n": np.array(100)})),
    "growing": ("a table that grows, 100 rounds", _exported(Growing(), {"x": _ONES, "n": np.array(100)})),
    **{
        f"nms_{count}": (f"NMS by a Loop, {count} boxes", _parsed("nms", _SUPPRESS, _boxes(count)))
        for count in (50, 200, 1000)
    },
    **{
        f"{name}_{rows}": (f"{title}, {rows} row{'s' * (rows > 1)}", _scikit(name, rows))
        for name, title in (
            ("svc", "SVC"), ("knn", "nearest neighbours"), ("forest", "random forest"),
            ("boosting", "gradient boosting"),
        )
        for rows in (1, 10, 1000)
    },
}  # fmt: skip


def main() -> None:
    """Print a table of medians and how many times Ingot's ONNX Runtime's is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--threads", default="1", help="numbers of threads (default: 1)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each row (default: 3)")
    chosen = parser.parse_args()
    table = Table("model", "threads", "Ingot µs", "ONNX Runtime µs", "ratio", box=None)
    with tempfile.TemporaryDirectory() as temporary:
        for name in chosen.models.split(","):
            heading, make = MODELS[name]
            path, feed = make(Path(temporary))
            for threads in map(int, chosen.threads.split(",")):
                cells, _ = side_by_side(
                    Job(path, feed, threads, None), ["ingot", "onnxruntime"],
                    tolerance=TOLERANCE, rounds=40, seconds=chosen.seconds,
                )  # fmt: skip
                times = [cell.median for cell in cells]
                if None in times:
                    reasons = "; ".join(cell.reason for cell in cells if cell.reason)
                    table.add_row(heading, str(threads), "", "", reasons)
                    continue
                ours, theirs = (1e6 * time for time in times if time is not None)
                table.add_row(heading, str(threads), f"{ours:.1f}", f"{theirs:.1f}", f"{theirs / ours:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
