"""`make bench-late`: small graphs whose sizes are data, lists that loops collect, and rows of classifiers,
beside ONNX Runtime: what a run costs around the arithmetic.

Each row has one or several sets of inputs, which runs take by turns: sizes by data that stay the same, and
such that change. Outputs are compared for all of them before anything is timed; times are of one run.

    make bench-late
    make bench-late ARGS="--models topk,slice --profile"
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import pstats
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx.helper
import onnx.parser
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

import ingot
from benchmarks.files import Feed
from benchmarks.learned import learned
from ingot.timing import interleave, worst_difference

TOLERANCE = 1e-4
_RNG = np.random.default_rng(0)
Made = tuple[onnx.ModelProto, list[Feed]]
Make = Callable[[], Made]


def _parsed(text: str, *feeds: Feed, opset: int = 20) -> Make:
    whole = f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}'
    return lambda: (onnx.parser.parse_model(whole), list(feeds))


def _normal(*shape: int) -> Any:
    return _RNG.standard_normal(shape).astype(np.float32)


def _ints(*values: int) -> Any:
    return np.array(values, np.int64)


def _number(value: int) -> Any:
    return np.array(value, np.int64)


_TOPK = """g (float[n, m] x, int64[1] k) => (float[n, k] y, int64[n, k] i) { y, i = TopK(x, k) }"""
_TOPK_AND_SOFTMAX = """g (float[n, m] x, int64[1] k) => (float[n, k] p) {
    y, i = TopK(x, k)
    p = Softmax(y)
}"""
#: As many as there are numbers above 0.
_TOPK_COMPUTED = """g (float[m] x) => (float[k] y, int64[k] i)
<float zero = {0.0}, int64[1] axis = {0}> {
    above = Greater(x, zero)
    ones = Cast<to = 7>(above)
    k = ReduceSum(ones, axis)
    y, i = TopK(x, k)
}"""
_SLICE = """g (float[n, m] x, int64[1] a, int64[1] b) => (float[p, m] y) {
    z = Relu(x)
    s = Slice(z, a, b)
    y = Neg(s)
}"""
#: A window of four rows.
_WINDOW = """g (float[n, m] x, int64[1] a) => (float[p, m] y) <int64[1] four = {4}> {
    b = Add(a, four)
    s = Slice(x, a, b)
    y = Neg(s)
}"""
#: The rows behind the largest element of the first column.
_SLICE_COMPUTED = """g (float[n, m] x) => (float[p, m] y)
<int64 first = {0}, int64[1] far = {9223372036854775807}, int64[1] shape = {-1}> {
    column = Gather<axis = 1>(x, first)
    best = ArgMax<axis = 0, keepdims = 1>(column)
    s = Slice(x, best, far)
    y = Neg(s)
}"""
_EXPAND = """g (float[1, m] x, int64[2] shape) => (float[n, m] y) {
    z = Expand(x, shape)
    y = Relu(z)
}"""
_RANGE = """g (int64 n) => (float[n] y) <int64 zero = {0}, int64 one = {1}, float half = {0.5}> {
    r = Range(zero, n, one)
    f = Cast<to = 1>(r)
    y = Mul(f, half)
}"""
_RESHAPE = """g (float[n] x, int64[2] shape) => (float[a, b] y) { z = Reshape(x, shape) y = Neg(z) }"""
_GATHER = """g (float[n, m] x, int64 i) => (float[m] y) { y = Gather(x, i) }"""
_GATHER_COLUMN = """g (float[n, m] x, int64 i) => (float[n] y) { y = Gather<axis = 1>(x, i) }"""

#: Greedy decoding of n tokens, and each with its score at the end, in a list or stacked.
_DECODE = """g (float[32] h, int64 n) => (OUTPUT)
<float[32, 32] w = {WEIGHTS}, int64[1] axis = {0}> {
    START
    last, all = Loop(n, , h, start) <
        body = b (int64 i, bool c, float[32] u, seq(float[32]) kept)
            => (bool d, float[32] v, seq(float[32]) grown) {
            d = Identity(c)
            z = MatMul(u, w)
            v = Tanh(z)
            grown = SequenceInsert(kept, v)
        }
    >
    y = ConcatFromSequence<axis = 0, new_axis = 1>(all)
}"""


def _weights(count: int, scale: float) -> str:
    return ", ".join(f"{number:.6f}" for number in _RNG.standard_normal(count) * scale)


_COLLECTED = _DECODE.replace("OUTPUT", "float[n, 32] y").replace("START", "start = SequenceEmpty()").replace(
    "WEIGHTS", _weights(1024, 0.2)
)  # fmt: skip
_STACKED = """g (float[32] h, int64 n) => (float[32] last, float[n, 32] y)
<float[32, 32] w = {WEIGHTS}> {
    last, y = Loop(n, , h) <
        body = b (int64 i, bool c, float[32] u) => (bool d, float[32] v, float[32] row) {
            d = Identity(c)
            z = MatMul(u, w)
            v = Tanh(z)
            row = Identity(v)
        }
    >
}""".replace("WEIGHTS", _weights(1024, 0.2))
#: Until the token is 7, or n of them: tokens in a list.
_UNTIL = """g (float[32] h, int64 n) => (int64[t] y)
<float[32, 32] w = {WEIGHTS}, int64 end = {7}, bool yes = {1}> {
    start = SequenceEmpty<dtype = 7>()
    last, all = Loop(n, yes, h, start) <
        body = b (int64 i, bool c, float[32] u, seq(int64[1]) kept)
            => (bool d, float[32] v, seq(int64[1]) grown) {
            z = MatMul(u, w)
            v = Tanh(z)
            token = ArgMax<axis = 0, keepdims = 1>(v)
            grown = SequenceInsert(kept, token)
            same = Equal(token, end)
            flat = Squeeze(same)
            d = Not(flat)
        }
    >
    y = ConcatFromSequence<axis = 0>(all)
}""".replace("WEIGHTS", _weights(1024, 0.2))
#: A table that grows by a row in each round, and is read by a softmax, as keys and values are.
_ATTEND = """g (float[1, 16] q, int64 n) => (float[t, 16] y)
<float[16, 16] w = {WEIGHTS}> {
    start = SequenceEmpty()
    last, keys, all = Loop(n, , q, q, start) <
        body = b (int64 i, bool c, float[1, 16] u, float[k, 16] rows, seq(float[1, 16]) kept)
            => (bool d, float[1, 16] v, float[l, 16] more, seq(float[1, 16]) grown) {
            d = Identity(c)
            across = Transpose<perm = [1, 0]>(rows)
            scores = MatMul(u, across)
            p = Softmax<axis = 1>(scores)
            mixed = MatMul(p, rows)
            v = MatMul(mixed, w)
            more = Concat<axis = 0>(rows, v)
            grown = SequenceInsert(kept, v)
        }
    >
    y = ConcatFromSequence<axis = 0>(all)
}""".replace("WEIGHTS", _weights(256, 0.2))

_IF = """g (float[n, m] x) => (float[a, b] y)
<float zero = {0.0}, float ten = {10.0}> {
    total = ReduceSum<keepdims = 0>(x)
    above = Greater(total, zero)
    y = If(above) <
        then_branch = t () => (float[a, b] p) {
            large = Greater(total, ten)
            p = If(large) <
                then_branch = tt () => (float[a, b] q) { q = Mul(x, x) },
                else_branch = te () => (float[a, b] r) { r = Neg(x) }
            >
        },
        else_branch = e () => (float[a, b] s) { s = Relu(x) }
    >
}"""
#: The branches differ in shape.
_IF_SHAPES = """g (float[n, m] x) => (float[a, b] y)
<float zero = {0.0}, float ten = {10.0}, int64[1] axis = {0}> {
    total = ReduceSum<keepdims = 0>(x)
    above = Greater(total, zero)
    y = If(above) <
        then_branch = t () => (float[a, b] p) {
            large = Greater(total, ten)
            p = If(large) <
                then_branch = tt () => (float[a, b] q) { q = Concat<axis = 0>(x, x) },
                else_branch = te () => (float[a, b] r) { r = ReduceMean<keepdims = 1>(x, axis) }
            >
        },
        else_branch = e () => (float[a, b] s) { s = Relu(x) }
    >
}"""
_UNIQUE = """g (int64[n] x) => (int64[m] y, int64[m] i, int64[n] j, int64[m] c) { y, i, j, c = Unique(x) }"""
_COL2IM = """g (float[1, 72, 64] x) => (float[1, 8, 10, 10] y)
<int64[2] image = {10, 10}, int64[2] block = {3, 3}> { y = Col2Im(x, image, block) }"""
_SOFTMAX = """g (float[n, m] x) => (float[n, m] y) { y = Softmax(x) }"""


def _suppress(count: int) -> Make:
    corner, sides = _RNG.uniform(0, 10 * count**0.5, (count, 2)), _RNG.uniform(5, 30, (count, 2))
    boxes = np.concatenate([corner, corner + sides], 1)[None].astype(np.float32)
    text = """g (float[1, n, 4] boxes, float[1, 1, n] scores) => (int64[m, 3] y)
<int64[1] most = {100}, float[1] iou = {0.5}, float[1] low = {0.1}> {
    y = NonMaxSuppression(boxes, scores, most, iou, low)
}"""
    return _parsed(text, {"boxes": boxes, "scores": _RNG.uniform(0, 1, (1, 1, count)).astype(np.float32)})


def _tfidf() -> Made:
    node = helper.make_node(
        "TfIdfVectorizer", ["x"], ["y"], mode="TF", min_gram_length=1, max_gram_length=2, max_skip_count=1,
        ngram_counts=[0, 50], ngram_indexes=list(range(100)),
        pool_int64s=[*range(50), *(n for i in range(50) for n in (i, (7 * i) % 50))],
    )  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [100])
    model = helper.make_model(
        helper.make_graph([node], "g", [x], [y]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    return model, [{"x": _RNG.integers(0, 60, 40)}]


def _scikit(name: str, rows: int) -> Make:
    """Of three classes and ten features, trained on 500 rows."""

    def make() -> Made:
        from sklearn import ensemble, linear_model, naive_bayes, tree

        models: dict[str, Any] = {
            "isolation": ensemble.IsolationForest(n_estimators=20, random_state=0),
            "logistic": linear_model.LogisticRegression(),
            "tree": tree.DecisionTreeClassifier(random_state=0),
            "bayes": naive_bayes.GaussianNB(),
        }
        model = models[name]
        options: dict[str, Any] = {} if name == "isolation" else {"options": {id(model): {"zipmap": False}}}
        proto = learned(model, target_opset={"": 17, "ai.onnx.ml": 3}, **options)
        return proto, [{"X": _normal(rows, 10)}]

    return make


_X, _TABLE = _normal(4, 1000), _normal(64, 32)
_VECTOR, _SMALL = _normal(32), np.abs(_normal(4, 8))

MODELS: dict[str, tuple[str, Make]] = {
    "topk": ("TopK, k an input", _parsed(_TOPK, {"x": _X, "k": _ints(5)})),
    "topk_8": ("the same, 8 k by turns", _parsed(_TOPK, *({"x": _X, "k": _ints(k)} for k in range(1, 9)))),
    "topk_100": (
        "the same, 100 k by turns",
        _parsed(_TOPK, *({"x": _X, "k": _ints(k)} for k in range(1, 101))),
    ),
    "topk_softmax": ("TopK, Softmax", _parsed(_TOPK_AND_SOFTMAX, {"x": _X, "k": _ints(5)})),
    "topk_computed": (
        "TopK, k computed",
        _parsed(_TOPK_COMPUTED, *({"x": _normal(200)} for _ in range(4))),
    ),
    "slice": ("Slice, ends are inputs", _parsed(_SLICE, {"x": _TABLE, "a": _ints(2), "b": _ints(9)})),
    "slice_60": (
        "the same, 60 ends by turns",
        _parsed(_SLICE, *({"x": _TABLE, "a": _ints(2), "b": _ints(b)} for b in range(3, 63))),
    ),
    "window_60": (
        "Slice, a window, 60 places",
        _parsed(_WINDOW, *({"x": _TABLE, "a": _ints(a)} for a in range(60))),
    ),
    "slice_computed": (
        "Slice, start by ArgMax",
        _parsed(_SLICE_COMPUTED, *({"x": _normal(64, 32)} for _ in range(4))),
    ),
    "expand": ("Expand, shape an input", _parsed(_EXPAND, {"x": _TABLE[:1], "shape": _ints(7, 32)})),
    "expand_50": (
        "the same, 50 shapes by turns",
        _parsed(_EXPAND, *({"x": _TABLE[:1], "shape": _ints(n, 32)} for n in range(1, 51))),
    ),
    "range": ("Range, limit an input", _parsed(_RANGE, {"n": _number(50)})),
    "reshape": ("Reshape, shape an input", _parsed(_RESHAPE, {"x": _X[0], "shape": _ints(20, -1)})),
    "gather": ("Gather of one index", _parsed(_GATHER, {"x": _TABLE, "i": _number(3)})),
    "gather_column": ("the same of a column", _parsed(_GATHER_COLUMN, {"x": _TABLE, "i": _number(3)})),
    "collected": ("Loop, 50 rounds, a list", _parsed(_COLLECTED, {"h": _VECTOR, "n": _number(50)})),
    "collected_40": (
        "the same, 1 to 40 rounds by turns",
        _parsed(_COLLECTED, *({"h": _VECTOR, "n": _number(n)} for n in range(1, 41))),
    ),
    "stacked": ("Loop, 50 rounds, stacked", _parsed(_STACKED, {"h": _VECTOR, "n": _number(50)})),
    "until": ("Loop until a token, a list", _parsed(_UNTIL, {"h": _VECTOR, "n": _number(50)})),
    "attend": ("keys that grow, a list", _parsed(_ATTEND, {"q": _TABLE[:1, :16], "n": _number(50)})),
    "if": ("nested If", _parsed(_IF, {"x": _SMALL}, {"x": 0.1 * _SMALL}, {"x": -_SMALL})),
    "if_shapes": (
        "nested If, shapes differ",
        _parsed(_IF_SHAPES, {"x": _SMALL}, {"x": 0.1 * _SMALL}, {"x": -_SMALL}),
    ),
    **{
        f"{name}_{rows}": (f"{title}, {rows} row{'s' * (rows > 1)}", _scikit(name, rows))
        for name, title in (
            ("isolation", "isolation forest"), ("logistic", "logistic regression"),
            ("tree", "decision tree"), ("bayes", "naive Bayes"),
        )
        for rows in (1, 100)
    },
    "nms_6": ("NonMaxSuppression, 6 boxes", _suppress(6)),
    "nms_50": ("NonMaxSuppression, 50 boxes", _suppress(50)),
    "softmax": ("Softmax of 32000", _parsed(_SOFTMAX, {"x": _normal(1, 32_000)})),
    "softmax_4": ("Softmax of 4 · 32000", _parsed(_SOFTMAX, {"x": _normal(4, 32_000)})),
    "unique": ("Unique of 20", _parsed(_UNIQUE, {"x": _RNG.integers(0, 10, 20)})),
    "unique_1000": ("Unique of 1000", _parsed(_UNIQUE, {"x": _RNG.integers(0, 300, 1000)})),
    "col2im": ("Col2Im", _parsed(_COL2IM, {"x": _normal(1, 72, 64)})),
    "tfidf": ("TfIdfVectorizer of 40", _tfidf),
}  # fmt: skip


def _theirs(path: Path, threads: int) -> Any:
    import onnxruntime  # pyright: ignore[reportMissingTypeStubs]

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _by_turns(session: Any, feeds: Sequence[Feed]) -> Callable[[], object]:
    turns = itertools.cycle(feeds)
    return lambda: session.run(None, next(turns))


def _profile(call: Callable[[], object], count: int) -> None:
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(count):
        call()
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def main() -> None:
    """Print a table of medians and how many times Ingot's ONNX Runtime's is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--threads", type=int, default=1, help="of each session (default: 1)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each row (default: 1)")
    parser.add_argument("--profile", action="store_true", help="show where Python's time goes, too")
    chosen = parser.parse_args()
    table = Table("model", "Ingot µs", "ONNX Runtime µs", "ratio", box=None)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model.onnx"
        for name in chosen.models.split(","):
            heading, make = MODELS[name]
            model, feeds = make()
            onnx.save(model, path)
            options = ingot.SessionOptions()
            options.intra_op_num_threads = chosen.threads
            ours, theirs = ingot.InferenceSession(path, options), _theirs(path, chosen.threads)
            difference = max(worst_difference(ours.run(None, f), theirs.run(None, f)) for f in feeds)
            if difference > TOLERANCE:
                table.add_row(heading, "", "", f"outputs differ by {difference:.1e} of the largest value")
                continue
            calls = {"ours": _by_turns(ours, feeds), "theirs": _by_turns(theirs, feeds)}
            for call in calls.values():
                for _ in range(3 * len(feeds)):
                    call()
            times = interleave(calls, rounds=40, seconds=chosen.seconds)
            own, other = (1e6 * times[key].median for key in calls)
            table.add_row(heading, f"{own:.1f}", f"{other:.1f}", f"{other / own:.2f}")
            if chosen.profile:
                _profile(calls["ours"], 2000)
    Console().print(table)


if __name__ == "__main__":
    main()
