"""Random cases of operators that move elements, pick them or reduce over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.search.draw import FLOATS, Array, Case, Draw, case, dtype_of

I64 = np.int64


def ints(values: Any) -> Array:
    return np.asarray(values, I64)


# ---- shape -------------------------------------------------------------------------------------------------


@case("Reshape")
def reshape(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(0, 4), r.dtype(opset))
    sizes = list(x.shape)
    if len(sizes) > 1 and r.flag():
        k = r.integer(0, len(sizes) - 2)
        sizes[k : k + 2] = [sizes[k] * sizes[k + 1]]
    else:
        sizes.insert(r.integer(0, len(sizes)), 1)
    attributes: dict[str, Any] = {}
    zero_is_zero = opset >= 14 and r.flag(0.2)
    if zero_is_zero:
        attributes["allowzero"] = 1
    if x.size and r.flag() and sizes:
        sizes[r.integer(0, len(sizes) - 1)] = -1
    if not zero_is_zero:
        sizes = [0 if i < x.ndim and s == x.shape[i] and r.flag(0.2) else s for i, s in enumerate(sizes)]
    if opset < 5:
        return Case("Reshape", [x], {"shape": sizes})
    return Case("Reshape", [x, ints(sizes)], attributes)


@case("Flatten")
def flatten(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(0 if opset >= 9 else 1, 4), r.dtype(opset))
    low = -x.ndim if opset >= 11 else 0
    return Case("Flatten", [x], r.some({"axis": r.integer(low, x.ndim)}) if x.ndim else {"axis": 0})


@case("Squeeze")
def squeeze(r: Draw, opset: int) -> Case:
    shape = [1 if r.flag(0.4) else s for s in r.shape(0, 5)]
    x = r.array(shape, r.dtype(opset))
    axes = [a for a, s in enumerate(shape) if s == 1 and r.flag(0.7)]
    if opset >= 11:
        axes = [a - len(shape) if r.flag(0.3) else a for a in axes]
    if r.flag(0.2) or not axes:
        return Case("Squeeze", [x])
    return Case("Squeeze", [x, ints(axes)]) if opset >= 13 else Case("Squeeze", [x], {"axes": axes})


@case("Unsqueeze")
def unsqueeze(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(0, 3), r.dtype(opset))
    axes = r.axes(x.ndim + r.integer(1, 3), 1, negative=False)
    rank = x.ndim + len(axes)
    axes = [a for a in axes if a < rank]
    rank = x.ndim + len(axes)
    axes = sorted({a % max(rank, 1) for a in axes}) if axes else [0]
    rank = x.ndim + len(axes)
    if opset >= 11 and r.flag(0.4):
        axes = [a - rank if r.flag() else a for a in axes]
    if opset >= 13 and r.flag():
        axes = axes[::-1]
    return Case("Unsqueeze", [x, ints(axes)]) if opset >= 13 else Case("Unsqueeze", [x], {"axes": axes})


@case("Transpose")
def transpose(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(0, 5), r.dtype(opset))
    perm = [int(p) for p in r.rng.permutation(x.ndim)]
    return Case("Transpose", [x], {"perm": perm} if r.flag(0.8) and perm else {})


@case("Shape")
def shape(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(), r.dtype(opset))
    ends = {"start": r.integer(-6, 6), "end": r.integer(-6, 6)}
    return Case("Shape", [x], r.some(ends) if opset >= 15 else {})


@case("Size")
def size(r: Draw, opset: int) -> Case:
    return Case("Size", [r.array(r.shape(), r.dtype(opset))])


@case("Concat")
def concat(r: Draw, opset: int) -> Case:
    whole, dtype = list(r.shape(1, 4)), r.dtype(opset)
    axis = r.axis(len(whole), opset)
    arrays: list[Array] = []
    for _ in range(r.integer(1, 4)):
        whole[axis] = r.size(5)
        arrays.append(r.array(whole, dtype))
    return Case("Concat", arrays, {"axis": axis})


@case("Split")
def split(r: Draw, opset: int) -> Case:
    dims, dtype = list(r.shape(1, 4)), r.dtype(opset)
    axis, count = r.axis(len(dims), opset), r.integer(1, 4)
    attributes: dict[str, Any] = {"axis": axis} if axis or r.flag() else {}
    if r.flag():
        sizes = [r.integer(0, 4) for _ in range(count)]
        dims[axis] = sum(sizes)
        x = r.array(dims, dtype)
        if opset < 13:
            return Case("Split", [x], {**attributes, "split": sizes}, count)
        return Case("Split", [x, ints(sizes)], attributes, count)
    dims[axis] = count * r.integer(0, 3) if opset < 18 or r.flag() else r.integer(count, 9)
    if opset >= 18:
        attributes["num_outputs"] = count
        if dims[axis] and -(-dims[axis] // count) * (count - 1) > dims[axis]:
            dims[axis] = count
    return Case("Split", [r.array(dims, dtype)], attributes, count)


@case("Slice")
def slices(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 4), r.dtype(opset))
    axes = r.axes(x.ndim, 1, negative=opset >= 10)
    starts, ends, steps = [], [], []
    for a in axes:
        n = x.shape[a]
        starts.append(r.integer(-n - 2, n + 2))
        ends.append(r.one([r.integer(-n - 2, n + 2), 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)]))
        steps.append(r.one([1, 1, 2, -1, -2, 3, 2**31 - 1, -(2**62)]))
        # Back from before the first element to after the last: ONNX Runtime takes the end, onnx.reference
        # the start for another, and ends and starts of that kind may meet in two axes of one case.
        if steps[-1] < 0:
            starts[-1] = max(starts[-1], -n)
    if r.flag(0.3) and opset < 10:
        axes = list(range(len(starts)))
        return Case("Slice", [x], {"starts": starts, "ends": ends})
    if opset < 10:
        return Case("Slice", [x], {"axes": axes, "starts": starts, "ends": ends})
    kind = r.dtype(opset, 1)
    if kind == "int32":
        ends = [max(min(e, 2**31 - 1), -(2**31)) for e in ends]
        steps = [max(min(s, 2**31 - 1), -(2**31)) for s in steps]
    extra = r.integer(0, 2)
    if extra == 0:
        axes = list(range(len(starts)))
    given = [starts, ends, axes if extra else None, steps if extra > 1 else None]
    return Case("Slice", [x, *(None if v is None else np.array(v, kind) for v in given)])


@case("Pad")
def pad(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 4, empty=r.flag(0.3)), r.dtype(opset))
    modes = ["constant", "constant", "reflect", "edge"] + (["wrap"] if opset >= 19 else [])
    mode = r.one(modes)
    axes = r.axes(x.ndim, 1) if opset >= 18 and r.flag() else None
    sizes = [x.shape[a] for a in (axes if axes is not None else range(x.ndim))]
    high = [max(n - 1, 0) if mode == "reflect" and r.flag(0.8) else 3 for n in sizes]
    low = -1 if r.flag(0.2) and min(sizes) > 3 else 0
    pads = [r.integer(low, min(h, 4)) for _ in range(2) for h in high]
    attributes: dict[str, Any] = {"mode": mode} if mode != "constant" or r.flag() else {}
    if opset < 11:
        value = {"value": r.real(-2, 2)} if mode == "constant" and r.flag() else {}
        return Case("Pad", [x], {**attributes, ("paddings" if opset < 2 else "pads"): pads, **value})
    kind = "int64" if axes is None or opset < 18 else r.one(["int64", "int32"])
    fill = (
        r.array((), str(x.dtype) if x.dtype != object else "string")
        if mode == "constant" and r.flag()
        else None
    )
    return Case("Pad", [x, ints(pads), fill, None if axes is None else np.array(axes, kind)], attributes)


@case("Tile")
def tile(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 4, largest=300), r.dtype(opset))
    if opset < 6:
        kind = str(x.dtype)
        return Case("Tile", [x, r.between(0, 3, (), kind), r.between(0, x.ndim - 1, (), kind)])
    return Case("Tile", [x, r.between(0, 3, (x.ndim,))])


@case("Expand")
def expand(r: Draw, opset: int) -> Case:
    whole = r.shape()
    x = r.array(r.broadcastable(whole), r.dtype(opset))
    return Case("Expand", [x, ints(r.broadcastable(whole) if r.flag(0.3) else whole).reshape(-1)])


@case("DepthToSpace")
def depth_to_space(r: Draw, opset: int) -> Case:
    b = r.integer(1, 3)
    x = r.array((r.size(3), b * b * r.integer(1, 3), r.size(4), r.size(4)), r.dtype(opset))
    mode = {"mode": r.one(["DCR", "CRD"])} if opset >= 11 and r.flag(0.7) else {}
    return Case("DepthToSpace", [x], {"blocksize": b, **mode})


@case("SpaceToDepth")
def space_to_depth(r: Draw, opset: int) -> Case:
    b = r.integer(1, 3)
    x = r.array((r.size(3), r.size(3), b * r.integer(0, 3), b * r.integer(1, 3)), r.dtype(opset))
    mode = {"mode": r.one(["DCR", "CRD"])} if opset >= 28 and r.flag(0.7) else {}
    return Case("SpaceToDepth", [x], {"blocksize": b, **mode})


@case("EyeLike")
def eye_like(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(2, 2), r.dtype(opset))
    return Case("EyeLike", [x], r.some({"k": r.integer(-4, 4), "dtype": r.one([1, 6, 7, 9, 10, 11])}))


@case("ConstantOfShape")
def constant_of_shape(r: Draw, opset: int) -> Case:
    value = onnx.numpy_helper.from_array(r.array((1,), r.dtype(opset, "T2")))
    return Case("ConstantOfShape", [ints(r.shape())], r.some({"value": value}))


@case("Range")
def range_(r: Draw, opset: int) -> Case:
    kind = r.dtype(opset)
    start, delta = r.integer(-5, 5), r.one([-3, -2, -1, 1, 2, 0.5, 0.3])
    if "int" in kind:
        delta = int(delta) or 1
    count = r.integer(-2, 12)
    return Case(
        "Range", [np.asarray(v).astype(dtype_of(kind)) for v in (start, start + delta * count, delta)]
    )


@case("CenterCropPad")
def center_crop_pad(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 4), r.dtype(opset))
    axes = r.axes(x.ndim, 1) if r.flag() else None
    count = x.ndim if axes is None else len(axes)
    sizes = r.between(0, 8, (count,), r.one(["int64", "int32"]))
    return Case("CenterCropPad", [x, sizes], {} if axes is None else {"axes": axes})


@case("ReverseSequence")
def reverse_sequence(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(2, 4), r.dtype(opset))
    batch, time = r.one([(0, 1), (1, 0)])
    lengths = r.between(1 if x.shape[time] else 0, max(x.shape[time], 0), (x.shape[batch],))
    axes = {"batch_axis": batch, "time_axis": time} if batch == 0 or r.flag() else {}
    return Case("ReverseSequence", [x, lengths], axes)


# ---- picking elements --------------------------------------------------------------------------------------


@case("Gather")
def gather(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 4, empty=r.flag(0.1)), r.dtype(opset))
    axis = r.axis(x.ndim, opset, 1)
    n = x.shape[axis]
    shape = r.shape(0, 3, largest=60) if n else (0,)
    indices = (
        r.between(-n if opset >= 11 else 0, n - 1, shape, r.dtype(opset, 1)) if n else np.zeros((0,), I64)
    )
    return Case("Gather", [x, indices], {"axis": axis} if axis or r.flag() else {})


@case("GatherElements")
def gather_elements(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 4, empty=False), r.dtype(opset))
    axis = r.axis(x.ndim)
    shape = [r.integer(0, s) for s in x.shape]
    shape[axis] = r.size()
    n = x.shape[axis]
    return Case(
        r.op, [x, r.between(-n, n - 1, shape, r.dtype(opset, 1))], {"axis": axis} if axis or r.flag() else {}
    )


@case("GatherND")
def gather_nd(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 4, empty=False), r.dtype(opset))
    batch = r.integer(0, x.ndim - 1) if opset >= 12 and r.flag() else 0
    last = r.integer(1, x.ndim - batch)
    lead = r.shape(0, 2, largest=30)
    sizes = x.shape[batch : batch + last]
    shape = (*x.shape[:batch], *lead)
    indices = np.stack([r.between(-n, n - 1, shape) for n in sizes], -1)
    return Case("GatherND", [x, indices], {"batch_dims": batch} if batch else {})


@case("Scatter", "ScatterElements")
def scatter_elements(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    x = r.array(r.shape(1, 4, empty=False), dtype)
    axis = r.axis(x.ndim, opset)
    shape = [r.integer(0, s) for s in x.shape]
    attributes: dict[str, Any] = {"axis": axis} if axis or r.flag() else {}
    reductions = ["none"] + (["add", "mul"] if opset >= 16 else []) + (["min", "max"] if opset >= 18 else [])
    if dtype in ("bool", "string"):
        reductions = ["none"]
    reduction = r.one(reductions)
    if reduction != "none":
        attributes["reduction"] = reduction
    n = x.shape[axis]
    if reduction == "none":  # the order of two writes is nowhere said
        shape[axis] = min(shape[axis], n)
        indices = r.rng.permuted(
            np.broadcast_to(
                np.arange(n).reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)]), x.shape
            ).copy(),
            axis=axis,
        )
        indices = indices[tuple(slice(s) for s in shape)].astype(dtype_of(r.dtype(opset, 1)))
        if opset >= 11 and r.flag():
            indices = np.where(r.rng.random(shape) < 0.4, indices - n, indices).astype(indices.dtype)
    else:
        indices = r.between(-n, n - 1, shape, r.dtype(opset, 1))
    return Case(r.op, [x, indices, r.array(shape, dtype)], attributes)


@case("ScatterND")
def scatter_nd(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    x = r.array(r.shape(1, 4, empty=False), dtype)
    last = r.integer(1, x.ndim)
    sizes, rest = x.shape[:last], x.shape[last:]
    reductions = ["none"] + (["add", "mul"] if opset >= 16 else []) + (["min", "max"] if opset >= 18 else [])
    reduction = "none" if dtype in ("bool", "string") else r.one(reductions)
    if reduction == "none":
        count = r.integer(0, min(int(np.prod(sizes)), 12))
        flat = r.rng.permutation(int(np.prod(sizes)))[:count]
        indices = np.stack(np.unravel_index(flat, sizes), -1).astype(I64)
    else:
        lead = r.shape(0, 2, largest=20)
        indices = np.stack([r.between(-n if opset >= 11 else 0, n - 1, lead) for n in sizes], -1)
    updates = r.array((*indices.shape[:-1], *rest), dtype)
    return Case("ScatterND", [x, indices, updates], {} if reduction == "none" else {"reduction": reduction})


@case("TopK")
def top_k(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 4, empty=False), r.dtype(opset), special=0.1)
    axis = r.axis(x.ndim, opset)
    k = r.integer(0 if opset >= 10 else 1, x.shape[axis])
    attributes = {"axis": axis} if axis != x.ndim - 1 or r.flag() else {}
    if opset < 10:
        return Case("TopK", [x], {**attributes, "k": k}, 2)
    if opset >= 11:
        attributes |= r.some({"largest": r.integer(0, 1)})
    return Case("TopK", [x, ints([k])], attributes, 2)


@case("ArgMax", "ArgMin")
def arg_extreme(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 4, empty=False), r.dtype(opset))
    last = {"select_last_index": r.integer(0, 1)} if opset >= 12 else {}
    return Case(r.op, [x], r.some({"axis": r.axis(x.ndim, opset), "keepdims": r.integer(0, 1), **last}))


@case("OneHot")
def one_hot(r: Draw, opset: int) -> Case:
    depth = r.integer(1, 6)
    kind = r.dtype(opset, 0, only=("int64", "int32", "float32", "uint8", "int8", "float64", "float16"))
    low = 0 if kind[0] == "u" else -depth - 1 if opset >= 11 else 0
    indices = r.between(low, depth + (1 if opset >= 11 else -1), r.shape(0, 3, largest=100), kind)
    axis = r.integer(-indices.ndim - 1, indices.ndim)
    held = r.array((2,), r.dtype(opset, 2))
    deep = r.between(
        depth, depth, r.one([(), (1,)]), r.dtype(opset, 1, only=("int64", "int32", "float32", "uint8"))
    )
    return Case("OneHot", [indices, deep, held], r.some({"axis": axis}))


@case("Compress")
def compress(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 4), r.dtype(opset))
    if r.flag(0.3):
        return Case("Compress", [x, r.array((r.integer(0, x.size),), "bool")])
    axis = r.axis(x.ndim, opset)
    return Case("Compress", [x, r.array((r.integer(0, x.shape[axis]),), "bool")], {"axis": axis})


@case("NonZero")
def non_zero(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(0, 4), r.dtype(opset))
    return Case("NonZero", [x])


@case("Unique")
def unique(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 3, empty=False), r.dtype(opset))
    if x.dtype.kind in "iuf":
        x = np.where(np.abs(x.astype(np.float64)) > 2, np.ones_like(x), np.round(x)).astype(x.dtype)
    attributes = r.some({"sorted": r.integer(0, 1)}) | ({"axis": r.axis(x.ndim)} if r.flag() else {})
    return Case("Unique", [x], attributes, r.integer(1, 4))


@case("TensorScatter")
def tensor_scatter(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    dims = [d or 1 for d in r.shape(3, 4, empty=False)]
    axis = r.integer(1, len(dims) - 1)
    cache, update = list(dims), list(dims)
    mode = r.one(["linear", "circular"])
    update[axis] = r.integer(1, dims[axis])
    high = dims[axis] - (update[axis] if mode == "linear" else 1)
    where = r.between(0, high, (dims[0],)) if r.flag(0.7) else None
    attributes = r.some({"mode": mode}, 1.0 if mode == "circular" else 0.5)
    if axis != len(dims) - 2 or r.flag():
        attributes["axis"] = axis - len(dims) if r.flag(0.4) else axis
    return Case("TensorScatter", [r.array(cache, dtype), r.array(update, dtype), where], attributes)


# ---- reductions --------------------------------------------------------------------------------------------


@case(
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
def reduce(r: Draw, opset: int) -> Case:
    since = 13 if r.op == "ReduceSum" else 18
    dtype = r.dtype(opset, only=FLOATS if "Log" in r.op else None)
    special = 0.2 if r.op in ("ReduceMax", "ReduceMin") and dtype not in FLOATS else 0.0
    x = r.array(r.shape(0, 4, empty=opset >= 18), dtype, special=special)
    if r.op == "ReduceLogSum" and r.flag(0.8):
        x = np.abs(x).astype(x.dtype)
    attributes = r.some({"keepdims": r.integer(0, 1)})
    axes = r.axes(x.ndim, 0, negative=opset >= 11)
    if opset < since:
        return Case(r.op, [x], attributes | ({"axes": axes} if axes and r.flag(0.8) else {}))
    attributes |= r.some({"noop_with_empty_axes": r.integer(0, 1)})
    return Case(r.op, [x, ints(axes) if r.flag(0.8) else None], attributes)


@case("Einsum")
def einsum(r: Draw, opset: int) -> Case:
    letters = dict(zip("abcde", (r.integer(1, 5) for _ in range(5)), strict=True))
    terms = [
        "".join(str(c) for c in r.rng.choice(list("abcde"), r.integer(1, 3), replace=r.flag(0.15)))
        for _ in range(r.integer(1, 3))
    ]
    there = sorted(set("".join(terms)))
    out = [c for c in there if r.flag(0.6)]
    r.rng.shuffle(out)
    dtype = r.dtype(opset, 0, only=("float32", "float64", "int32", "int64", "float16"))
    arrays = [r.floats(*(letters[c] for c in t), dtype=dtype) for t in terms]
    equation = ",".join(terms) + ("->" + "".join(out) if r.flag(0.8) else "")
    if r.flag(0.2):
        equation, arrays = "..." + equation.replace(",", ",...").replace("->", "->..."), arrays
    if r.flag(0.2):
        equation = equation.replace(",", " , ")
    return Case("Einsum", arrays, {"equation": equation})
