"""The steps of random graphs (`chains.py`): a node or a few, on values that are there.

A step raises `Unfit` where nothing fits it. `STEPS` has them all with their weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import onnx.numpy_helper

from tests.search.chains import Chain, Unfit, Value, broadcasts

Step: TypeAlias = "Callable[[Chain], object]"
STEPS: list[tuple[Step, float]] = []


def step(weight: float = 1.0) -> Callable[[Step], Step]:
    def enter(function: Step) -> Step:
        STEPS.append((function, weight))
        return function

    return enter


NUMBERS = ("float32", "float16", "float64", "int64", "int32")


def any_of(c: Chain, *dtypes: str, low: int = 0, high: int = 6, empty: bool = True) -> Value:
    """A value of a rank; of the main dtype unless others are named."""
    return c.pick(lambda v: low <= v.rank <= high and (empty or v.array.size > 0), dtypes=dtypes or (c.main,))


def small(c: Chain, x: Value) -> Value:
    """Numbers that do not grow."""
    return c.op("Tanh", x) if x.array.size and np.abs(x.array).max() > 30 else x


# ---- elementwise -------------------------------------------------------------------------------------------

UNARY = (
    *("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Erf", "Softplus", "Softsign", "Identity", "Elu", "LeakyRelu"),
    *("HardSigmoid", "Selu", "Sin", "Cos", "Exp", "HardSwish", "Mish", "Gelu", "Celu", "ThresholdedRelu"),
)
SINCE = {"HardSwish": 14, "Mish": 18, "Gelu": 20, "Celu": 12, "Swish": 24}


@step(3)
def unary(c: Chain) -> None:
    x = any_of(c)
    op = c.r.one([o for o in UNARY if SINCE.get(o, 1) <= c.opset])
    if op == "Exp":
        x = small(c, x)
    if op == "ThresholdedRelu" and not x.exact:
        raise Unfit
    attributes = {}
    if op in ("Elu", "LeakyRelu", "Celu", "HardSigmoid") and c.r.flag():
        attributes["alpha"] = c.r.real(0.1, 1.5)
    if op == "Gelu" and c.r.flag():
        attributes["approximate"] = "tanh"
    c.op(op, x, **attributes)


@step(1)
def rounding(c: Chain) -> None:
    x = c.pick(lambda v: v.exact)
    c.op(c.r.one(["Floor", "Ceil", "Round", "Sign"]), x)


@step(1)
def positive(c: Chain) -> None:
    """What needs positive numbers."""
    x = c.op("Abs", any_of(c))
    op = c.r.one(["Sqrt", "Log", "Reciprocal"])
    c.op(op, c.op("Add", x, c.constant(c.r.real(0.5, 2.0), x.dtype)))


@step(4)
def binary(c: Chain) -> None:
    x = c.pick(dtypes=NUMBERS if c.r.flag(0.3) else None)
    y = c.partner(x)
    op = c.r.one(["Add", "Sub", "Mul", "Max", "Min"])
    if op in ("Max", "Min") and c.opset < 12 and x.dtype not in ("float32", "float64", "float16"):
        raise Unfit
    pair = (x, y) if c.r.flag(0.7) else (y, x)
    c.op(op, *pair)


@step(1)
def quotient(c: Chain) -> None:
    x = c.pick(dtypes=(c.main, "int64", "int32"))
    shape = c.r.broadcastable(x.shape)
    y = np.where(c.r.rng.random(shape) < 0.5, -1, 1) * c.r.rng.integers(1, 5, shape)
    c.op("Div", x, c.constant(y, x.dtype))


@step(1)
def power(c: Chain) -> None:
    x = any_of(c)
    exponent = c.r.one([2.0, 3.0, 0.5, -1.0, 1.0, 0.0])
    if exponent in (0.5, -1.0):
        x = c.op("Add", c.op("Abs", x), c.constant(1.0, x.dtype))
    c.op("Pow", small(c, x), c.constant(exponent, x.dtype))


@step(1)
def several(c: Chain) -> None:
    x = any_of(c)
    others = [c.partner(x) for _ in range(c.r.integer(0, 3))]
    shape = x.shape
    for v in others:
        if not broadcasts(v.shape, shape):
            raise Unfit
        shape = np.broadcast_shapes(shape, v.shape)
    c.op(c.r.one(["Sum", "Mean", "Max", "Min"]), x, *others)


@step(1)
def clip(c: Chain) -> None:
    x = any_of(c)
    low, high = c.r.one([(-1.0, 1.0), (0.0, 6.0), (None, 2.0), (-0.5, None), (0.0, None)])
    if c.opset < 11:
        raise Unfit
    c.op("Clip", x, *(None if v is None else c.constant(v, x.dtype) for v in (low, high)))


@step(1)
def integers(c: Chain) -> None:
    x = c.pick(dtypes=("int64", "int32"))
    op = c.r.one(["Mod", "Abs", "Neg", "BitwiseAnd", "BitwiseOr", "BitwiseNot"])
    if op.startswith("Bitwise") and c.opset < 18:
        raise Unfit
    if op in ("Abs", "Neg", "BitwiseNot"):
        c.op(op, x)
    elif op == "Mod":
        c.op(op, x, c.constant(c.r.one([2, 3, -3, 7]), x.dtype))
    else:
        c.op(op, x, c.partner(x))


@step(2)
def compared(c: Chain) -> None:
    x = c.pick(lambda v: v.exact, dtypes=NUMBERS)
    there = [v for v in c.seen() if v.exact and v.dtype == x.dtype and broadcasts(v.shape, x.shape)]
    y = c.r.one(there) if c.r.flag() else c.constant(c.r.array(c.r.broadcastable(x.shape), x.dtype))
    names = ["Equal", "Less", "Greater"] + (["LessOrEqual", "GreaterOrEqual"] if c.opset >= 12 else [])
    c.op(c.r.one(names), x, y)


@step(1)
def logic(c: Chain) -> None:
    x = c.pick(dtypes=("bool",))
    op = c.r.one(["And", "Or", "Xor", "Not"])
    c.op(op, x, *([] if op == "Not" else [c.partner(x)]))


@step(2)
def where(c: Chain) -> None:
    condition = c.pick(dtypes=("bool",))
    x = c.pick(lambda v: broadcasts(v.shape, condition.shape), dtypes=NUMBERS)
    y = c.partner(x)
    if not broadcasts(y.shape, np.broadcast_shapes(x.shape, condition.shape)):
        raise Unfit
    c.op("Where", condition, *((x, y) if c.r.flag() else (y, x)))


CODES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}


@step(2)
def cast(c: Chain) -> None:
    x = c.pick(dtypes=(*NUMBERS, "bool", "uint8", "int8"))
    to = c.r.one(list(CODES)) if c.r.flag(0.6) else c.main
    whole = "int" in to or to == "bool"
    if x.array.dtype.kind == "f" and whole:
        finite = np.isfinite(x.array).all() and x.array.size
        if not x.exact or not finite or np.abs(x.array).max() > 100 or (to[0] == "u" and x.array.min() < 0):
            raise Unfit
    y = c.op("Cast", x, to=CODES[to])
    if c.r.flag(0.3):
        c.op("Cast", y, to=CODES[x.dtype])


# ---- layout ------------------------------------------------------------------------------------------------


def anything(c: Chain, low: int = 0, high: int = 5) -> Value:
    """Of any dtype, most often of the main one."""
    every = (*NUMBERS, "bool", "uint8", "int8")
    return c.pick(lambda v: low <= v.rank <= high, dtypes=None if c.r.flag(0.6) else every)


@step(4)
def transpose(c: Chain) -> None:
    x = anything(c)
    order = [int(a) for a in c.r.rng.permutation(x.rank)]
    c.op("Transpose", x, perm=order if order and c.r.flag(0.85) else None)


def factored(c: Chain, size: int) -> list[int]:
    """A shape of so many elements."""
    shape, rest = [], size
    for _ in range(c.r.integer(0, 3)):
        divisors = [d for d in range(1, rest + 1) if rest % d == 0] or [0]
        shape.append(c.r.one(divisors[:12]))
        rest = rest // shape[-1] if shape[-1] else 0
    shape.append(rest)
    c.r.rng.shuffle(shape)
    return shape


@step(4)
def reshape(c: Chain) -> None:
    x = anything(c)
    shape = factored(c, x.array.size)
    if x.array.size and shape and c.r.flag(0.5):
        shape[c.r.integer(0, len(shape) - 1)] = -1
    for i in range(min(x.rank, len(shape))):
        if shape[i] == x.shape[i] and c.r.flag(0.4):
            shape[i] = 0
    if 0 in shape and 0 in x.shape:
        raise Unfit
    c.op("Reshape", x, c.ints(shape))


@step(3)
def reshape_by_sizes(c: Chain) -> None:
    """A shape that is put together from others' sizes."""
    x = anything(c, 1)
    shape = c.op("Shape", x)
    parts = []
    merged = c.r.integer(0, x.rank - 1)
    for i in range(x.rank):
        if i == merged:
            parts.append(c.ints([-1] if x.array.size else [x.shape[i]]))
        elif c.r.flag(0.3):
            parts.append(c.ints([x.shape[i]]))
        else:
            parts.append(size_at(c, shape, i))
    if c.r.flag(0.4) and x.rank > 1:  # a pair as one
        del parts[c.r.integer(0, x.rank - 1)]
        if not any((p.array == -1).any() for p in parts):
            parts[-1] = c.ints([-1])
    c.op("Reshape", x, c.op("Concat", *parts, axis=0))


def size_at(c: Chain, shape: Value, i: int) -> Value:
    """One number of a shape [1], in the ways in which exporters write it."""
    kind = c.r.integer(0, 2)
    if kind == 0:
        return unsqueezed(c, c.op("Gather", shape, c.constant(i, "int64"), axis=0), [0])
    if kind == 1:
        return c.op("Slice", shape, c.ints([i]), c.ints([i + 1]), c.ints([0]))
    return c.op("Gather", shape, c.ints([i]), axis=0)


def unsqueezed(c: Chain, x: Value, axes: list[int]) -> Value:
    return c.op("Unsqueeze", x, c.ints(axes)) if c.opset >= 13 else c.op("Unsqueeze", x, axes=axes)


def squeezed(c: Chain, x: Value, axes: list[int]) -> Value:
    return c.op("Squeeze", x, c.ints(axes)) if c.opset >= 13 else c.op("Squeeze", x, axes=axes)


@step(2)
def flat(c: Chain) -> None:
    x = anything(c)
    c.op("Flatten", x, axis=c.r.integer(-x.rank, x.rank))


@step(2)
def ones(c: Chain) -> None:
    """Dimensions of size 1 come and go."""
    x = anything(c)
    single = [i for i, d in enumerate(x.shape) if d == 1]
    if single and c.r.flag(0.6):
        axes = [i for i in single if c.r.flag(0.7)] or single
        squeezed(c, x, [a - x.rank if c.r.flag(0.3) else a for a in axes])
    else:
        rank = x.rank + c.r.integer(1, 2)
        axes = [int(a) for a in c.r.rng.permutation(rank)[: rank - x.rank]]
        unsqueezed(c, x, [a - rank if c.r.flag(0.3) else a for a in axes])


@step(2)
def expand(c: Chain) -> None:
    x = anything(c)
    if c.r.flag(0.5):
        y = c.pick(lambda v: broadcasts(v.shape, x.shape), dtypes=())
        c.op("Expand", x, c.op("Shape", y))
    else:
        shape = [d if d != 1 else c.r.integer(1, 4) for d in x.shape]
        lead = [c.r.integer(1, 3)] if c.r.flag(0.4) else []
        c.op("Expand", x, c.ints([*lead, *shape]))


@step(1)
def tile(c: Chain) -> None:
    x = anything(c, 1)
    c.op("Tile", x, c.ints([c.r.one([1, 1, 2, 3, 0]) for _ in x.shape]))


@step(4)
def slice_(c: Chain) -> None:
    x = anything(c, 1)
    axes = c.r.axes(x.rank, 1)
    starts, ends, steps = [], [], []
    for a in axes:
        d = x.shape[a]
        begin = c.r.integer(-d, d) if d else 0
        by = c.r.one([1, 1, 1, 2, -1, -2, 3])
        starts.append(begin)
        ends.append(
            c.r.one([c.r.integer(-d, d), 2**31 - 1, 2**63 - 1]) if by > 0 else c.r.one([-(2**31), -d - 1, 0])
        )
        steps.append(by)
    kind = c.r.one(["int64", "int32"]) if max(map(abs, ends)) < 2**31 else "int64"
    given = [c.constant(v, kind) for v in (starts, ends, axes, steps)]
    c.op("Slice", x, *given[: c.r.one([4, 4, 3])])


@step(2)
def slice_to_size(c: Chain) -> None:
    """Ends that are computed from sizes."""
    x = anything(c, 1)
    axis = c.r.integer(0, x.rank - 1)
    n = size_at(c, c.op("Shape", x), axis)
    end = (
        c.op(*c.r.one([("Sub", n, c.ints([1])), ("Div", n, c.ints([2])), ("Min", n, c.ints([3]))]))
        if c.opset >= 12
        else n
    )
    begin = c.ints([0]) if c.r.flag(0.7) else c.op("Neg", n)
    c.op("Slice", x, begin, end, c.ints([axis]))
    if c.r.flag(0.5):
        c.op("Slice", x, end, c.ints([2**63 - 1]), c.ints([axis]))


@step(3)
def split(c: Chain) -> None:
    x = anything(c, 1)
    axis = c.r.integer(0, x.rank - 1)
    d = x.shape[axis]
    many = c.r.integer(1, 4)
    signed = axis - x.rank if c.r.flag(0.3) else axis
    if c.r.flag(0.5) and d >= many:
        cuts = sorted(c.r.integer(0, d) for _ in range(many - 1))
        sizes = np.diff([0, *cuts, d]).tolist()
    elif d % many == 0:
        sizes = None
    elif c.opset >= 18:
        c.add("Split", [x], many, axis=signed, num_outputs=many)
        return
    else:
        raise Unfit
    if c.opset < 13:
        parts = c.add("Split", [x], many, axis=signed, split=sizes)
    else:
        more = {"num_outputs": many} if sizes is None and c.opset >= 18 else {}
        parts = c.add("Split", [x, None if sizes is None else c.ints(sizes)], many, axis=signed, **more)
    if c.r.flag(0.3):  # and together again
        c.op("Concat", *parts, axis=signed)


@step(4)
def concat(c: Chain) -> None:
    x = anything(c, 1)
    axis = c.r.integer(0, x.rank - 1)

    def fits(v: Value) -> bool:
        return v.rank == x.rank and all(
            i == axis or a == b for i, (a, b) in enumerate(zip(v.shape, x.shape, strict=True))
        )

    others = [c.pick(fits, dtypes=(x.dtype,)) for _ in range(c.r.integer(0, 2))]
    if c.r.flag(0.4):
        shape = [c.r.size(4) if i == axis else d for i, d in enumerate(x.shape)]
        new = c.r.array(shape, x.dtype, special=0.0)
        others.append(c.constant(new) if c.r.flag() else c.input(new))
    parts = [x, *others]
    c.r.rng.shuffle(parts)  # type: ignore[arg-type]
    c.op("Concat", *parts, axis=axis - x.rank if c.r.flag(0.4) else axis)


@step(2)
def pad(c: Chain) -> None:
    x = any_of(c, low=1, empty=False)
    mode = c.r.one(["constant", "constant", "edge", "reflect"])
    pads = [
        c.r.integer(0, min(2, d - 1) if mode == "reflect" else 2) if c.r.flag(0.6) else 0
        for _ in range(2)
        for d in x.shape
    ]
    value = c.constant(c.r.real(-1, 1), x.dtype) if mode == "constant" and c.r.flag() else None
    c.op("Pad", x, c.ints(pads), value, mode=mode)


@step(2)
def gather(c: Chain) -> None:
    x = anything(c, 1)
    axis = c.r.integer(0, x.rank - 1)
    d = x.shape[axis]
    if not d:
        raise Unfit
    there = [
        v
        for v in c.seen()
        if v.dtype in ("int64", "int32")
        and v.exact
        and v.rank <= 2
        and (v.array.size == 0 or (v.array.min() >= -d and v.array.max() < d))
    ]
    if there and c.r.flag(0.3):
        index = c.r.one(there)
    else:
        array = c.r.between(-d, d - 1, c.r.shape(0, 2, largest=20), c.r.one(["int64", "int32"]))
        index = c.constant(array) if c.r.flag(0.7) else c.input(array)
    c.op("Gather", x, index, axis=axis - x.rank if c.r.flag(0.3) else axis)


@step(1)
def scatter(c: Chain) -> None:
    x = any_of(c, low=1, high=3, empty=False)
    axis = c.r.integer(0, x.rank - 1)
    count = c.r.integer(1, x.shape[axis])
    shape = [count if i == axis else d for i, d in enumerate(x.shape)]
    along = c.r.rng.permutation(x.shape[axis])[:count]
    index = np.broadcast_to(along.reshape([-1 if i == axis else 1 for i in range(x.rank)]), shape)
    c.op(
        "ScatterElements",
        x,
        c.constant(index.astype(np.int64)),
        c.constant(c.r.floats(*shape, dtype=x.dtype)),
        axis=axis,
    )


@step(1)
def scatter_rows(c: Chain) -> None:
    x = any_of(c, low=1, high=4, empty=False)
    rows = c.r.rng.permutation(x.shape[0])[: c.r.integer(1, x.shape[0])].astype(np.int64)
    updates = c.r.floats(len(rows), *x.shape[1:], dtype=x.dtype)
    c.op("ScatterND", x, c.constant(rows[:, None]), c.constant(updates) if c.r.flag() else c.input(updates))


@step(1)
def blocks(c: Chain) -> None:
    x = any_of(c, low=4, high=4)
    if c.r.flag() and x.shape[1] % 4 == 0 and x.shape[1]:
        c.op("DepthToSpace", x, blocksize=2, mode=c.r.one(["DCR", "CRD"]))
    elif x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0:
        c.op("SpaceToDepth", x, blocksize=2)
    else:
        raise Unfit


@step(1)
def cumulated(c: Chain) -> None:
    x = any_of(c, low=1)
    c.op(
        "CumSum",
        x,
        c.constant(c.r.integer(-x.rank, x.rank - 1), "int64"),
        exclusive=c.r.one([None, 1]),
        reverse=c.r.one([None, 1]),
    )


@step(1)
def triangle(c: Chain) -> None:
    if c.opset < 14:
        raise Unfit
    x = anything(c, 2)
    c.op(
        "Trilu", x, c.constant(c.r.integer(-3, 3), "int64") if c.r.flag() else None, upper=c.r.one([None, 0])
    )


@step(1)
def made_from_sizes(c: Chain) -> None:
    """Range, ConstantOfShape, and numbers of elements."""
    x = anything(c, 1)
    shape = c.op("Shape", x)
    kind = c.r.integer(0, 3)
    if kind == 0:
        n = c.op("Gather", shape, c.constant(c.r.integer(0, x.rank - 1), "int64"), axis=0)
        c.op("Range", c.constant(0, "int64"), n, c.constant(c.r.one([1, 2]), "int64"))
    elif kind == 1:
        value = np.array([c.r.one([0, 1, 2.5])], c.main)
        c.op("ConstantOfShape", shape, value=onnx.numpy_helper.from_array(value))
    elif kind == 2:
        c.op("Size", x)
    else:
        c.op("Cast", shape, to=CODES[c.main])


@step(1)
def counted(c: Chain) -> None:
    """Sizes that depend on numbers."""
    x = c.pick(lambda v: v.exact and 1 <= v.rank <= 3, dtypes=("bool", c.main, "int64"))
    places = c.op("NonZero", x)
    if c.r.flag():
        c.op("GatherND", x, c.op("Transpose", places, perm=[1, 0]))


@step(1)
def best(c: Chain) -> None:
    x = c.pick(lambda v: v.exact and v.rank >= 1 and v.array.size > 0)
    axis = c.r.integer(0, x.rank - 1)
    k = c.r.integer(1, x.shape[axis])
    c.add("TopK", [x, c.ints([k])], 2, axis=axis, largest=c.r.one([None, 0]))


# ---- reductions and products -------------------------------------------------------------------------------


@step(4)
def reduce(c: Chain) -> None:
    op = c.r.one(["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSumExp", "SumSquare", "Sum", "Mean"])
    whole = op in ("Sum", "Max", "Min", "Prod")
    x = c.pick(
        lambda v: v.array.size > 0, dtypes=(c.main, "int64", "int32") if whole and c.r.flag(0.2) else None
    )
    if op in ("Prod", "LogSumExp", "SumSquare") and "float" in x.dtype:
        x = small(c, x)
    axes = c.r.axes(x.rank, 1)
    keep = c.r.one([None, 0, 1])
    name = f"Reduce{op}"
    if not axes or c.r.flag(0.1):
        c.op(name, x, keepdims=keep)
    elif c.opset >= (13 if op == "Sum" else 18):
        c.op(name, x, c.ints(axes), keepdims=keep)
    else:
        c.op(name, x, axes=axes, keepdims=keep)


@step(1)
def arg(c: Chain) -> None:
    x = c.pick(lambda v: v.exact and v.rank >= 1 and v.array.size > 0)
    c.op(c.r.one(["ArgMax", "ArgMin"]), x, axis=c.r.integer(-x.rank, x.rank - 1), keepdims=c.r.one([None, 0]))


@step(2)
def softmax(c: Chain) -> None:
    x = any_of(c, low=1)
    c.op(c.r.one(["Softmax", "Softmax", "LogSoftmax"]), small(c, x), axis=c.r.integer(-x.rank, x.rank - 1))


def weights(c: Chain, *shape: int) -> Value:
    array = c.r.floats(*shape, dtype=c.main, scale=0.7)
    return c.constant(array) if c.r.flag(0.85) else c.input(array)


@step(4)
def product(c: Chain) -> None:
    x = any_of(c, low=1, high=5)
    k = x.shape[-1]
    there = [
        v
        for v in c.seen()
        if v.dtype == x.dtype and v.rank >= 2 and v.shape[-2] == k and broadcasts(v.shape[:-2], x.shape[:-2])
    ]
    if there and c.r.flag(0.5):
        y = c.op("MatMul", x, c.r.one(there))
    else:
        lead = [c.r.one([1, d]) for d in x.shape[:-2]] if c.r.flag(0.2) else []
        y = c.op("MatMul", x, weights(c, *lead, k, c.r.integer(1, 9)))
    if c.r.flag(0.5):
        y = c.op("Add", *c.r.one([(y, b), (b, y)]) if (b := weights(c, *y.shape[-1:])) else ())
    if c.r.flag(0.2):
        c.op("Mul", y, c.constant(c.r.one([0.5, 0.125, 2.0]), c.main))


@step(1)
def turned_product(c: Chain) -> None:
    """Scores: a product with what is turned."""
    x = any_of(c, low=2, high=4)
    order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    y = c.op("Transpose", x, perm=order)
    scores = c.op("MatMul", x, y) if c.r.flag(0.7) else c.op("MatMul", y, x)
    scores = c.op(c.r.one(["Mul", "Div"]), scores, c.constant(c.r.one([0.5, 4.0]), c.main))
    if c.r.flag(0.5):
        scores = c.op("Add", scores, c.partner(scores))
    scores = c.op("Softmax", small(c, scores), axis=-1)
    if scores.shape[-1] == x.shape[-2]:
        c.op("MatMul", scores, x)


@step(2)
def gemm(c: Chain) -> None:
    x = any_of(c, low=2, high=2)
    turn_a, turn_b = c.r.integer(0, 1), c.r.integer(0, 1)
    k = x.shape[0] if turn_a else x.shape[1]
    m, n = (x.shape[1] if turn_a else x.shape[0]), c.r.integer(1, 9)
    w = weights(c, n, k) if turn_b else weights(c, k, n)
    bias = weights(c, *c.r.broadcastable((m, n))) if c.r.flag(0.7) else None
    c.op(
        "Gemm",
        x,
        w,
        bias,
        transA=turn_a or None,
        transB=turn_b or None,
        alpha=c.r.one([None, 0.5]),
        beta=c.r.one([None, 2.0]),
    )


@step(1)
def einsum(c: Chain) -> None:
    if c.opset < 12:
        raise Unfit
    x = any_of(c, low=2, high=3)
    lead = "ab"[: x.rank - 1]
    form = c.r.one(
        [f"{lead}c,cd->{lead}d", f"{lead}c,dc->d{lead}", f"{lead}c,c->{lead}", f"{lead}c,{lead}d->{lead}cd"]
    )
    second = form.split(",")[1].split("->")[0]
    sizes = {**dict(zip(lead + "c", x.shape, strict=True)), "d": c.r.integer(1, 5)}
    c.op("Einsum", x, weights(c, *(sizes[s] for s in second)), equation=form)


# ---- convolutions, pools, norms ----------------------------------------------------------------------------


def image(c: Chain, ranks: tuple[int, ...] = (3, 4)) -> Value:
    """[N, C, …], made where there is none."""
    fits = [v for v in c.seen() if v.rank in ranks and v.dtype == c.main and min(v.shape[1:]) > 0]
    if fits and c.r.flag(0.8):
        return fits[-1] if c.r.flag(0.6) else c.r.one(fits)
    rank = c.r.one(ranks)
    shape = [c.r.integer(1, 2), c.r.integer(1, 8), *(c.r.integer(3, 9) for _ in range(rank - 2))]
    return c.input(c.r.floats(*shape, dtype=c.main))


@step(4)
def conv(c: Chain) -> None:
    x = image(c)
    channels, sizes = x.shape[1], x.shape[2:]
    group = c.r.one([g for g in (1, 1, 1, 2, channels) if channels % g == 0])
    out = group * c.r.integer(1, 5)
    kernel = [c.r.integer(1, min(3, s)) for s in sizes]
    w = weights(c, out, channels // group, *kernel)
    b = weights(c, out) if c.r.flag() else None
    pads = [c.r.integer(0, 1) for _ in range(2 * len(sizes))] if c.r.flag() else None
    strides = [c.r.integer(1, 2) for _ in sizes] if c.r.flag(0.4) else None
    auto = c.r.one(["SAME_UPPER", "SAME_LOWER", "VALID"]) if pads is None and c.r.flag(0.2) else None
    y = c.op(
        "Conv",
        x,
        w,
        b,
        group=group if group != 1 else None,
        pads=pads,
        strides=strides,
        auto_pad=auto,
        kernel_shape=kernel if c.r.flag() else None,
    )
    kind = c.r.integer(0, 7)
    if kind == 0:
        normalised(c, y)
    elif kind == 1:
        factor = weights(c, *c.r.one([(out, *[1] * len(sizes)), (1, out, *[1] * len(sizes)), (1,), ()]))
        y = c.op(c.r.one(["Mul", "Add", "Sub"]), y, factor)
    elif kind == 2:
        c.op("Add", y, c.input(c.r.floats(*y.shape, dtype=c.main)))
    elif kind == 3:
        c.op("Mul", y, c.op("Sigmoid", y))
    elif kind == 4 and c.opset >= 11:
        hat = c.op(
            "Clip", c.op("Add", y, c.constant(3.0, c.main)), c.constant(0.0, c.main), c.constant(6.0, c.main)
        )
        c.op("Div", c.op("Mul", y, hat), c.constant(6.0, c.main))


def normalised(c: Chain, x: Value) -> Value:
    n = x.shape[1]
    scale, bias, mean = (c.constant(c.r.floats(n, dtype=c.main)) for _ in range(3))
    variance = c.constant(np.abs(c.r.floats(n, dtype=c.main)) + np.array(0.5, c.main))
    return c.op("BatchNormalization", x, scale, bias, mean, variance, epsilon=c.r.one([None, 1e-3]))


@step(1)
def batch_norm(c: Chain) -> None:
    normalised(c, c.pick(lambda v: v.rank >= 2 and v.shape[1] > 0))


@step(1)
def conv_transpose(c: Chain) -> None:
    x = image(c)
    group = c.r.one([g for g in (1, 2) if x.shape[1] % g == 0])
    kernel = [c.r.integer(1, 3) for _ in x.shape[2:]]
    w = weights(c, x.shape[1], c.r.integer(1, 4), *kernel)
    c.op("ConvTranspose", x, w, group=group, strides=[c.r.integer(1, 2) for _ in kernel])


@step(2)
def pool(c: Chain) -> None:
    x = image(c)
    if c.r.flag(0.3):
        c.op(c.r.one(["GlobalAveragePool", "GlobalMaxPool"]), x)
        return
    kernel = [c.r.integer(1, min(3, s)) for s in x.shape[2:]]
    op = c.r.one(["MaxPool", "AveragePool"])
    pads = [c.r.integer(0, (k - 1) // 2) for _ in range(2) for k in kernel] if c.r.flag() else None
    more = {"count_include_pad": c.r.one([None, 1])} if op == "AveragePool" else {}
    c.op(
        op,
        x,
        kernel_shape=kernel,
        pads=pads,
        strides=[c.r.integer(1, 2) for _ in kernel],
        ceil_mode=c.r.one([None, None, 1]) if c.opset >= 19 or op == "MaxPool" else None,
        **more,
    )


@step(1)
def resize(c: Chain) -> None:
    x = image(c, (4,))
    if c.opset < 11:
        raise Unfit
    scales = c.constant(np.array([1, 1, c.r.one([1, 2, 0.5]), c.r.one([2, 2, 3])], np.float32))
    c.op(
        "Resize",
        x,
        c.constant(np.zeros(0, np.float32)) if c.opset < 13 else None,
        scales,
        mode=c.r.one(["nearest", "linear"]),
        coordinate_transformation_mode=c.r.one(["asymmetric", "half_pixel"]),
        nearest_mode="floor",
    )


@step(3)
def layer_norm(c: Chain) -> None:
    """As an operator, or as the nodes that it was written as."""
    x = any_of(c, low=1)
    n = x.shape[-1]
    if not n:
        raise Unfit
    if c.r.flag(0.5):
        if c.opset < 17:
            raise Unfit
        axis = c.r.integer(-x.rank, -1)
        shape = x.shape[axis:]
        c.op(
            "LayerNormalization",
            x,
            weights(c, *shape),
            weights(c, *shape) if c.r.flag() else None,
            axis=axis,
            epsilon=c.r.one([None, 1e-3]),
        )
        return

    def mean(v: Value) -> Value:
        return c.op("ReduceMean", v, c.ints([-1])) if c.opset >= 18 else c.op("ReduceMean", v, axes=[-1])

    rms = c.r.flag(0.4)
    away = x if rms else c.op("Sub", x, mean(x))
    square = c.op("Pow", away, c.constant(2.0, c.main)) if c.r.flag() else c.op("Mul", away, away)
    deviation = c.op("Sqrt", c.op("Add", mean(square), c.constant(c.r.one([1e-3, 1e-2]), c.main)))
    y = c.op("Div", away, deviation) if c.r.flag(0.7) else c.op("Mul", away, c.op("Reciprocal", deviation))
    if c.r.flag(0.8):
        y = c.op("Mul", *c.r.one([(y, w), (w, y)]) if (w := weights(c, n)) else ())
    if c.r.flag(0.6):
        c.op("Add", y, weights(c, n))


@step(1)
def instance_norm(c: Chain) -> None:
    x = image(c)
    n = x.shape[1]
    c.op("InstanceNormalization", x, weights(c, n), weights(c, n), epsilon=1e-2)


@step(2)
def gelu(c: Chain) -> None:
    x = any_of(c)
    one, half = c.constant(1.0, c.main), c.constant(0.5, c.main)
    erf = c.op("Erf", c.op("Div", x, c.constant(np.sqrt(2), c.main)))
    opened = c.op("Add", erf, one)
    if c.r.flag():
        c.op("Mul", c.op("Mul", x, opened), half)
    else:
        c.op("Mul", c.op("Mul", x, half), opened)


@step(1)
def moved(c: Chain) -> None:
    """Something with channels last."""
    x = image(c, (4,))
    y = c.op("Transpose", x, perm=[0, 2, 3, 1])
    y = c.op(c.r.one(["Relu", "Tanh", "Neg"]), y)
    if c.r.flag():
        y = c.op("Add", y, weights(c, y.shape[-1]))
    c.op("Transpose", y, perm=[0, 3, 1, 2])


@step(1)
def heads(c: Chain) -> None:
    """[B, S, N · H] as [B, N, S, H] and back."""
    x = any_of(c, low=3, high=3, empty=False)
    n = c.r.one([n for n in (1, 2, 3, 4) if x.shape[2] % n == 0])
    y = c.op("Transpose", c.op("Reshape", x, c.ints([0, 0, n, -1])), perm=[0, 2, 1, 3])
    y = c.op("Softmax", y, axis=-1) if c.r.flag() else y
    c.op("Reshape", c.op("Transpose", y, perm=[0, 2, 1, 3]), c.ints([0, 0, -1]))
