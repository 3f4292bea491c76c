"""Random graphs through a session, on one thread and on two, against the operators' plain definitions.

What one operator's tests cannot see: views of views, values with several readers, concats written in place,
memory given to the next value, epilogues, outputs that are inputs or views of one another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import ingot
from ingot.ops.interpreter import interpret
from ingot.passes.opset import normalise

Shape = tuple[int, ...]

#: Below, at and above the widths of vectors and register tiles. 0 is rare: whatever is empty tests little.
SIZES = [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 24, 31, 33]
MOST_ELEMENTS = 6000
UNARY = ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Gelu", "HardSwish", "Identity", "Erf", "LeakyRelu"]
BINARY = ["Add", "Sub", "Mul", "Max", "Min"]


class Maker:
    """A graph under construction, every choice drawn from `draw`; `shapes` are those of its float values."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw
        self.random = np.random.default_rng(draw(st.integers(0, 1 << 30)))
        self.shapes: dict[str, Shape] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.feeds: dict[str, np.ndarray] = {}

    def pick(self, choices: list[Any]) -> Any:
        return self.draw(st.sampled_from(choices))

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def value(self, rank: int | None = None, least: int = 0) -> str | None:
        """A value of this rank, or of at least `least`; the newest are likelier."""
        names = [n for n, s in self.shapes.items() if len(s) >= least and rank in (None, len(s))]
        return self.pick([*names, *names[-3:], *names[-1:]]) if names else None

    def weight(self, array: Any) -> str:
        """An initializer."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def floats(self, *shape: int) -> str:
        return self.weight(self.random.standard_normal(shape).astype(np.float32) / 2)

    def integers(self, values: Any) -> str:
        return self.weight(np.array(values, np.int64))

    def feed(self, array: np.ndarray) -> str:
        name = f"in{len(self.feeds)}"
        self.feeds[name] = array
        return name

    def node(self, op: str, inputs: list[str], *shapes: Shape, **attributes: Any) -> None:
        """A node whose outputs have these shapes."""
        outputs = [f"v{len(self.nodes)}_{i}" for i in range(len(shapes))]
        self.nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        self.shapes.update(zip(outputs, shapes, strict=True))

    def operand(self, shape: Shape) -> str:
        """Something that broadcasts to `shape`: a value made before, or a new weight."""
        fit = [n for n, s in self.shapes.items() if _broadcasts(s, shape)]
        if fit and self.integer(0, 3):
            return self.pick(fit)
        kept = shape[self.integer(0, len(shape)) :]
        return self.floats(*[1 if self.integer(0, 3) == 0 else n for n in kept])

    # ---- a node of each kind, or nothing where no value fits ----------------------------------------------

    def unary(self) -> None:
        x = self.value()
        if x is not None:
            self.node(self.pick(UNARY), [x], self.shapes[x])

    def binary(self) -> None:
        x = self.value()
        if x is not None:
            operands = [x, self.operand(self.shapes[x])]
            self.node(self.pick(BINARY), operands[:: self.pick([1, -1])], self.shapes[x])

    def where(self) -> None:
        x = self.value()
        if x is not None:
            shape = self.shapes[x]
            mask = self.random.random(shape[self.integer(0, len(shape)) :]) < 0.5
            mask = np.array(mask)
            condition = self.feed(mask) if self.integer(0, 1) else self.weight(mask)
            self.node("Where", [condition, x, self.operand(shape)], shape)

    def matmul(self) -> None:
        x = self.value(least=1)
        if x is None:
            return
        shape = self.shapes[x]
        rest = math.prod(shape[:-1])
        others = [
            n for n, s in self.shapes.items()
            if len(s) == len(shape) >= 2 and s[-2] == shape[-1] and s[:-2] == shape[:-2]
            and rest * s[-1] <= MOST_ELEMENTS
        ]  # fmt: skip
        if others and self.integer(0, 1):
            other = self.pick(others)
            self.node("MatMul", [x, other], (*shape[:-1], self.shapes[other][-1]))
            return
        n = self.pick(SIZES)
        if rest * n <= MOST_ELEMENTS:
            self.node("MatMul", [x, self.floats(shape[-1], n)], (*shape[:-1], n))

    def gemm(self) -> None:
        x = self.value(rank=2)
        if x is None:
            return
        transposed = self.integer(0, 1)
        rows, depth = self.shapes[x][::-1] if transposed else self.shapes[x]
        n, flip = self.pick(SIZES), self.integer(0, 1)
        inputs = [x, self.floats(*((n, depth) if flip else (depth, n)))]
        if self.integer(0, 1):
            inputs.append(self.operand((rows, n)))
        self.node("Gemm", inputs, (rows, n), transA=transposed, transB=flip, alpha=self.pick([1.0, 0.5]))

    def conv(self) -> None:
        x = self.value(rank=4)
        if x is None:
            return
        n, c, h, w = self.shapes[x]
        groups = self.pick([g for g in (1, 1, 2, c) if g and c % g == 0])
        out = groups * self.pick([1, 2, 3, 8, 17])
        kernel, stride, pad = self.pick([1, 3, 5]), self.pick([1, 1, 2]), self.integer(0, 2)
        oh, ow = ((d + 2 * pad - kernel) // stride + 1 for d in (h, w))
        if min(oh, ow) < 1 or not c or n * out * oh * ow > MOST_ELEMENTS:
            return
        inputs = [x, self.floats(out, c // groups, kernel, kernel)]
        if self.integer(0, 1):
            inputs.append(self.floats(out))
        self.node("Conv", inputs, (n, out, oh, ow), group=groups, strides=[stride] * 2, pads=[pad] * 4)

    def concat(self) -> None:
        x = self.value(least=1)
        if x is None:
            return
        shape = self.shapes[x]
        axis = self.integer(0, len(shape) - 1)
        around = shape[:axis], shape[axis + 1 :]
        fit = [n for n, s in self.shapes.items() if s[axis:] and (s[:axis], s[axis + 1 :]) == around]
        parts = [x, *(self.pick(fit) for _ in range(self.integer(0, 2)))]
        if self.integer(0, 3) == 0:
            parts.append(self.floats(*shape[:axis], 2, *shape[axis + 1 :]))
        sizes = [2 if p not in self.shapes else self.shapes[p][axis] for p in parts]
        joined = (*shape[:axis], sum(sizes), *shape[axis + 1 :])
        if math.prod(joined) <= MOST_ELEMENTS:
            parts = [parts[i] for i in self.random.permutation(len(parts))]
            self.node("Concat", parts, joined, axis=axis)

    def split(self) -> None:
        x = self.value(least=1)
        if x is None:
            return
        shape = self.shapes[x]
        axis = self.integer(0, len(shape) - 1)
        first = self.integer(0, shape[axis])
        sizes = [first, shape[axis] - first]
        parts = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
        self.node("Split", [x, self.integers(sizes)], *parts, axis=axis)

    def slice(self) -> None:
        x = self.value(least=1)
        if x is None:
            return
        shape = self.shapes[x]
        axis = self.integer(0, len(shape) - 1)
        n = shape[axis]
        step = self.pick([1, 1, 2, 3, -1, -2])
        start, end = self.integer(-1, n), self.integer(-1, n + 3)
        if step < 0:
            start, end = end, start - n - 2  # before the first element: an end below -n
        size = len(range(n)[slice(start, end, step)])
        if size or self.integer(0, 9) == 0:
            inputs = [x, *(self.integers([v]) for v in (start, end, axis, step))]
            self.node("Slice", inputs, (*shape[:axis], size, *shape[axis + 1 :]))

    def transpose(self) -> None:
        x = self.value(least=2)
        if x is not None:
            perm = self.random.permutation(len(self.shapes[x])).tolist()
            self.node("Transpose", [x], tuple(self.shapes[x][p] for p in perm), perm=perm)

    def reshape(self) -> None:
        x = self.value()
        if x is None or 0 in self.shapes[x]:
            return
        left, dims = math.prod(self.shapes[x]), list[int]()
        for _ in range(self.integer(0, 3)):
            dims.append(self.pick([d for d in range(1, min(left, 40) + 1) if left % d == 0]))
            left //= dims[-1]
        dims.append(left)
        self.random.shuffle(dims)
        self.node("Reshape", [x, self.integers(dims)], tuple(dims))

    def reduce(self) -> None:
        x = self.value(least=1)
        if x is None:
            return
        shape = self.shapes[x]
        axes = [i for i in range(len(shape)) if self.integer(0, 1)]
        keep = self.integer(0, 1)
        kinds = ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2"]
        if not axes or any(shape[i] == 0 for i in axes):
            return
        reduced = tuple(1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes)
        self.node(self.pick(kinds), [x, self.integers(axes)], reduced, keepdims=keep)

    def softmax(self) -> None:
        x = self.value(least=1)
        if x is not None:
            rank = len(self.shapes[x])
            self.node("Softmax", [x], self.shapes[x], axis=self.integer(-rank, rank - 1))

    def normalise(self) -> None:
        x = self.value(least=1)
        if x is not None:
            shape = self.shapes[x]
            axis = self.integer(0, len(shape) - 1)
            inputs = [x, self.floats(*shape[axis:])]
            if self.integer(0, 1):
                inputs.append(self.floats(*shape[axis:]))
            self.node("LayerNormalization", inputs, shape, axis=axis, epsilon=1e-2)

    def pad(self) -> None:
        x = self.value(least=1)
        if x is None:
            return
        shape = self.shapes[x]
        mode = self.pick(["constant", "constant", "reflect", "edge"])
        most = [0 if mode != "constant" and n < 3 else 2 for n in shape]
        pads = [self.integer(0, m) if self.integer(0, 1) else 0 for m in most * 2]
        padded = tuple(n + a + b for n, a, b in zip(shape, pads, pads[len(shape) :], strict=False))
        if math.prod(padded) <= MOST_ELEMENTS:
            self.node("Pad", [x, self.integers(pads)], padded, mode=mode)

    def gather(self) -> None:
        x = self.value(least=1)
        if x is None:
            return
        shape = self.shapes[x]
        axis = self.integer(0, len(shape) - 1)
        count = self.pick([(), (1,), (3,), (2, 2)])
        gathered = (*shape[:axis], *count, *shape[axis + 1 :])
        if shape[axis] and len(gathered) <= 4 and math.prod(gathered) <= MOST_ELEMENTS:
            indices = np.array(self.random.integers(-shape[axis], shape[axis], count), np.int64)
            chosen = self.feed(indices) if self.integer(0, 1) else self.weight(indices)
            self.node("Gather", [x, chosen], gathered, axis=axis)

    def expand(self) -> None:
        x = self.value()
        if x is None:
            return
        shape = self.shapes[x]
        wide = tuple(self.pick([1, 2, 5]) if n == 1 else n for n in shape)
        if len(shape) < 4 and self.integer(0, 1):
            wide = (self.pick([1, 2, 3]), *wide)
        if math.prod(wide) <= MOST_ELEMENTS:
            self.node("Expand", [x, self.integers(wide)], wide)

    def model(self) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
        """What was made, and what to feed it."""
        read = {name for node in self.nodes for name in node.input}
        names = [name for name in self.shapes if name not in read]  # whatever nobody reads, and a few more
        drawn = [self.value() for _ in range(self.integer(0, 3))]
        names += [name for name in drawn if name is not None]
        outputs = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * len(self.shapes[n]))
            for n in dict.fromkeys(names)
        ]
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(a.dtype), [f"{name}_{i}" for i in range(a.ndim)]
            )
            for name, a in self.feeds.items()
        ]
        graph = helper.make_graph(self.nodes, "random", inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        return model, self.feeds


KINDS = [
    Maker.unary, Maker.unary, Maker.binary, Maker.binary, Maker.binary, Maker.where, Maker.matmul,
    Maker.matmul, Maker.gemm, Maker.conv, Maker.conv, Maker.concat, Maker.concat, Maker.split, Maker.slice,
    Maker.transpose, Maker.transpose, Maker.reshape, Maker.reduce, Maker.softmax, Maker.normalise, Maker.pad,
    Maker.gather, Maker.expand,
]  # fmt: skip


@st.composite
def graphs(draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of 5 to 25 nodes, and what to feed it."""
    make = Maker(draw)
    for _ in range(make.integer(1, 3)):
        rank = make.pick([1, 2, 2, 3, 3, 4, 4, 4])
        shape = tuple(make.pick(SIZES) for _ in range(rank))
        if make.integer(0, 19) == 0:
            shape = (*shape[:-1], 0)
        while math.prod(shape) > MOST_ELEMENTS:
            shape = tuple(-(-n // 2) for n in shape)
        make.shapes[make.feed(make.random.standard_normal(shape).astype(np.float32))] = shape
    count = make.integer(5, 25)
    for _ in range(3 * count):
        if len(make.nodes) < count:
            make.pick(KINDS)(make)
    return make.model()


def _broadcasts(shape: Shape, wide: Shape) -> bool:
    """Whether `shape` broadcasts to `wide` without changing it."""
    tail = wide[len(wide) - len(shape) :]
    return len(shape) <= len(wide) and all(a in (1, b) for a, b in zip(shape, tail, strict=True))


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # NumPy's, of a normalisation over nothing
@given(graphs())
@settings(
    max_examples=70,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_random_graphs(case: tuple[onnx.ModelProto, dict[str, np.ndarray]]) -> None:
    is_right(*case)


def is_right(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> None:
    """Right on one thread and on two, twice, bit by bit the same; what was fed stays as it was."""
    onnx.checker.check_model(model)
    plain = ir.from_proto(model)
    normalise(plain)
    wanted = list(interpret(plain, feeds).values())
    before = {name: array.copy() for name, array in feeds.items()}
    first: list[np.ndarray] = []
    for threads in (1, 2):
        options = ingot.SessionOptions()
        options.intra_op_num_threads = threads
        session = ingot.InferenceSession(model, options)
        for _ in range(2):
            got = session.run(None, feeds)
            first = first or got
            for name, ours, same, reference in zip(session.get_outputs(), got, first, wanted, strict=True):
                assert ours.dtype == reference.dtype, name
                scale = np.abs(reference).max(initial=1.0)
                np.testing.assert_allclose(ours, reference, 0, 1e-4 * scale, err_msg=str(name))
                np.testing.assert_array_equal(ours, same, err_msg=f"{name} differs between runs or threads")
        for name, array in feeds.items():
            np.testing.assert_array_equal(array, before[name], err_msg=f"{name} was written to")
