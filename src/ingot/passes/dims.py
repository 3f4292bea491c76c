"""What can be proved of a value's shape without running: each dim is a number, a name, or a term of those.

Two dims with equal keys are equal for every input. A key that nothing else equals stands for "unknown".
Nothing is assumed: declared shapes of inputs count (the session enforces them), and what operators do to
them. Numbers that a file declares of other values count where each name of an input that is lost on the way
there has another in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import onnx_ir as ir

from ingot.ops.elementwise import Elementwise, Variadic
from ingot.ops.registry import UNFIT, attr_int, attr_ints, registered
from ingot.ops.slices import slice_bounds
from ingot.passes.edit import constant_of, constant_shape, ints_of
from ingot.passes.malformed import require_form

#: An int, a symbol's name, or a tuple (operator, keys …).
Key: TypeAlias = "int | str | tuple[Any, ...]"
Keys: TypeAlias = "tuple[Key, ...]"

_ELEMENTWISE = (Elementwise, Variadic)
_UNSEEN = object()
_SAME_AS_FIRST = frozenset(
    (
        *(
            "Cast",
            "CastLike",
            "Clip",
            "CumSum",
            "Dropout",
            "Identity",
            "LogSoftmax",
            "LpNormalization",
            "Softmax",
        ),
        *("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"),
        *("RMSNormalization", "RotaryEmbedding", "ScatterElements", "ScatterND", "Trilu"),
    )
)


class Dims:
    """Proofs about a graph. Rewriting it to an equal one leaves them true; new values get their own."""

    def __init__(self) -> None:
        self._shapes: dict[ir.Value, Keys | None] = {}
        self._contents: dict[ir.Value, Keys | None] = {}

    def of(self, value: ir.Value | None) -> Keys | None:
        """The key of each dim, None where not even the rank is known."""
        if value is None:
            return None
        shapes = self._shapes
        known = shapes.get(value, _UNSEEN)
        if known is not _UNSEEN:
            return cast("Keys | None", known)
        # From the inputs on, without recursion: graphs are deeper than Python's stack.
        waiting, seen = [value], set[ir.Value]()
        while waiting:
            last = waiting[-1]
            node = last.producer()
            if node is not None and last not in shapes and last not in seen:
                seen.add(last)
                before = len(waiting)
                # What follows its first input alone asks for no other's.
                read = node.inputs[:1] if node.op_type in _SAME_AS_FIRST else node.inputs
                for feeding in read:
                    if feeding is None or feeding in shapes or feeding in seen:
                        continue
                    if feeding.producer() is None:
                        shapes[feeding] = self._shape(feeding)
                    else:
                        waiting.append(feeding)
                if len(waiting) > before:
                    continue
            waiting.pop()
            if last not in shapes:
                shapes[last] = self._shape(last)
        return shapes[value]

    def content(self, value: ir.Value | None) -> Keys | None:
        """The keys of an integer vector's (or scalar's) elements: what a Reshape is given."""
        if value is None:
            return None
        if value not in self._contents:
            self._contents[value] = None
            self._contents[value] = self._content(value)
        return self._contents[value]

    def _shape(self, value: ir.Value) -> Keys | None:
        node = value.producer()
        if node is None or node.op_type == "Constant":
            fixed = constant_shape(value)
            if fixed is not None:
                return fixed
        declared = None if value.shape is None else _declared(value.shape, value)
        if node is None:
            return declared
        free = self._free(node)
        if declared is not None and not free and all(isinstance(key, int) for key in declared):
            return declared
        derived = self._derive(node, value)
        if declared is None or (derived is not None and len(declared) != len(derived)):
            return derived
        unknown: Keys = tuple(("dim", id(value), i) for i in range(len(declared)))
        known = unknown if derived is None else derived
        # A declared number says more than that a size is not known; but no number stands for a name.
        merged = tuple(
            d if derived is None or (isinstance(d, int) and _is_unknown(k)) else k
            for d, k in zip(declared, known, strict=True)
        )
        names = {key for key in merged if not isinstance(key, int)}
        if len(free - names) <= len(names - free):
            return merged
        if derived is not None:
            return derived
        return tuple(u if isinstance(d, int) else d for d, u in zip(declared, unknown, strict=True))

    def _free(self, node: ir.Node) -> set[Key]:
        """The names in the shapes of a node's inputs, which a run may give any number. What a file declares
        of the result may be left from when they were numbers: many a dimension is set free by its name alone.
        """
        keys = set[Key]()
        for value in node.inputs:
            if value is not None:
                keys.update(key for key in self._shapes.get(value) or () if isinstance(key, str))
        return keys

    def _derive(self, node: ir.Node, value: ir.Value) -> Keys | None:
        if node.domain != "":
            return None
        if node.op_type in _SAME_AS_FIRST and value.index() == 0:
            return self.of(node.inputs[0])
        rule = _RULES.get(node.op_type)
        if rule is not None:
            try:
                return rule(self, node, value)
            except UNFIT:
                require_form(node)
                return None  # of an invalid node nothing is proved: it is refused by name where it runs
        if node.op_type == "Where" or isinstance(registered("", node.op_type), _ELEMENTWISE):
            shapes: list[Keys] = []
            for operand in node.inputs:
                shape = self.of(operand)
                if shape is None:
                    return None
                shapes.append(shape)
            return broadcast_keys(shapes)
        return None

    def _content(self, value: ir.Value) -> Keys | None:
        shape = constant_shape(value)
        if shape is not None:
            if len(shape) > 1 or (shape and shape[0] > 32):
                return None
            array = constant_of(value)
            if array is None or array.dtype.kind not in "iu":
                return None
            return tuple(int(x) for x in array.ravel().tolist())
        node = value.producer()
        if node is None or node.domain != "":
            return None
        if node.op_type == "Shape":
            dims = self.of(node.inputs[0])
            if dims is None:
                return None
            end = attr_int(node, "end", len(dims))
            return dims[slice(attr_int(node, "start", 0), end)]
        if node.op_type == "Cast" and attr_int(node, "to", 0) not in _WHOLE:
            return None  # what is computed of floats is not what is computed of whole numbers
        if node.op_type in ("Unsqueeze", "Squeeze", "Reshape", "Identity", "Cast"):
            return self.content(node.inputs[0])  # vectors of one element and scalars are not told apart
        if node.op_type == "Concat":
            keys: list[Key] = []
            for operand in node.inputs:
                part = self.content(operand)
                if part is None:
                    return None
                keys += part
            return tuple(keys)
        if node.op_type == "Gather" and attr_int(node, "axis", 0) == 0:
            source = self.content(node.inputs[0])
            index = None if source is None else ints_of(node.inputs[1])
            if source is None or index is None or any(not -len(source) <= i < len(source) for i in index):
                return None
            return tuple(source[i] for i in index)
        if node.op_type == "Slice":
            source = self.content(node.inputs[0])
            if source is None:
                return None
            bounds = [ints_of(v) for v in node.inputs[1:]]
            if any(b is None or len(b) != 1 for b in bounds):
                return None
            numbers = [b[0] for b in bounds if b is not None]
            step = numbers[3] if len(numbers) > 3 else 1
            return source[slice(numbers[0], numbers[1], step)] if step > 0 else None
        if node.op_type in ("Add", "Sub", "Mul", "Div"):
            a, b = self.content(node.inputs[0]), self.content(node.inputs[1])
            if a is None or b is None or len(a) != 1 or len(b) != 1:
                return None
            return (_arithmetic(node.op_type, a[0], b[0]),)
        return None


_WHOLE = (ir.DataType.INT64, ir.DataType.INT32)


def _arithmetic(op: str, a: Key, b: Key) -> Key:
    if isinstance(a, int) and isinstance(b, int):
        if op == "Div":
            return a // b if b and a >= 0 and b > 0 else ("Div", a, b)
        return a + b if op == "Add" else a - b if op == "Sub" else a * b
    if op in ("Mul", "Div") and b == 1:
        return a
    if op == "Mul" and a == 1:
        return b
    return (op, a, b)


def _is_unknown(key: Key) -> bool:
    """Whether a key stands for a size of which nothing is known."""
    return isinstance(key, tuple) and key[0] == "dim"


def _declared(shape: ir.Shape, value: ir.Value) -> Keys:
    keys: list[Key] = []
    for i, dim in enumerate(shape):
        if isinstance(dim, int) and dim >= 0:
            keys.append(dim)
        else:
            # A dim without a name equals only itself. Some exporters write -1 for one.
            name = None if isinstance(dim, int) else dim.value
            keys.append(name if name is not None else ("dim", id(value), i))
    return tuple(keys)


def broadcast_keys(shapes: Sequence[Keys]) -> Keys:
    """The keys of the broadcast shape; where two dims may or may not be 1, a term of both."""
    result: Keys = ()
    for shape in shapes:
        if shape == result or not shape:  # as nearly always
            continue
        missing = len(shape) - len(result)
        if missing:
            result, shape = (1,) * missing + result, (1,) * -missing + shape
        result = tuple([_broadcast(one, two) for one, two in zip(result, shape, strict=True)])
    return result


def _broadcast(one: Key, two: Key) -> Key:
    if one == two or two == 1:
        return one
    if one == 1:
        return two
    # A number other than 1 decides: what meets it is equal to it, or 1.
    if isinstance(one, int):
        return one
    return two if isinstance(two, int) else _either((one, two))


def _either(keys: Sequence[Key]) -> Key:
    """The term for what several dims broadcast to. A term of terms is flat, or it would grow for ever."""
    members = set[str]()
    for key in keys:
        members.update(key[1:] if isinstance(key, tuple) and key[0] == "broadcast" else [repr(key)])
    return ("broadcast", *sorted(members))


def fits(inner: Keys, outer: Keys) -> bool:
    """True where `inner` is proved to broadcast to `outer` without enlarging it."""
    if len(inner) > len(outer):
        return False
    return all(a == 1 or a == b for a, b in zip(inner, outer[len(outer) - len(inner) :], strict=True))


def _reshape(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    del value
    source, wanted = dims.of(node.inputs[0]), dims.content(node.inputs[1])
    if wanted is None:
        length = dims.of(node.inputs[1])
        if length is None or len(length) != 1 or not isinstance(length[0], int):
            return None
        return tuple(("dim", id(node), i) for i in range(length[0]))
    keys: list[Key] = []
    for i, key in enumerate(wanted):
        if key == 0 and not attr_int(node, "allowzero", 0):
            keys.append(source[i] if source is not None and i < len(source) else ("dim", id(node), i))
        else:
            keys.append(key)
    if keys.count(-1) == 1:
        rest = None if source is None else _quotient(list(source), [key for key in keys if key != -1])
        keys[keys.index(-1)] = ("dim", id(node), keys.index(-1)) if rest is None else rest
    return tuple(keys)


def _quotient(total: list[Key], others: list[Key]) -> Key | None:
    """The product of `total` over that of `others`, where it is a number or one key."""
    numerator, denominator = 1, 1
    symbols = [key for key in total if not isinstance(key, int)]
    for key in others:
        if isinstance(key, int):
            denominator *= key
        elif key in symbols:
            symbols.remove(key)
        else:
            return None
    for key in total:
        numerator *= key if isinstance(key, int) else 1
    if not denominator or numerator % denominator or len(symbols) > 1:
        return None
    if not symbols:
        return numerator // denominator
    return symbols[0] if numerator == denominator else ("Mul", symbols[0], numerator // denominator)


def _matmul(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    del value
    a, b = dims.of(node.inputs[0]), dims.of(node.inputs[1])
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return None
    return (*broadcast_keys([a[:-2], b[:-2]]), a[-2], b[-1])


def _gemm(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    del value
    a, b = dims.of(node.inputs[0]), dims.of(node.inputs[1])
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return None
    return (a[1 if attr_int(node, "transA", 0) else 0], b[0 if attr_int(node, "transB", 0) else 1])


def _transpose(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    del value
    x, perm = dims.of(node.inputs[0]), attr_ints(node, "perm")
    if x is None:
        return None if perm is None else tuple(("dim", id(node), i) for i in perm)
    return tuple(x[i] for i in (perm if perm is not None else reversed(range(len(x)))))


def _conv(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    x, w = dims.of(node.inputs[0]), dims.of(node.inputs[1])
    if w is None:
        return None
    batch: Key = x[0] if x is not None else ("dim", id(node), 0)
    return (batch, w[0], *[("dim", id(value), i) for i in range(2, len(w))])


def _unsqueeze(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    del value
    x, axes = dims.of(node.inputs[0]), ints_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if x is None or axes is None:
        return None
    rank = len(x) + len(axes)
    places = {axis % rank for axis in axes}
    if len(places) != len(axes):
        return None
    rest = iter(x)
    return tuple(1 if i in places else next(rest) for i in range(rank))


def _squeeze(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    del value
    x, axes = dims.of(node.inputs[0]), ints_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if x is None or axes is None or not x:
        return None
    return tuple(key for i, key in enumerate(x) if i not in {axis % len(x) for axis in axes})


def _gather(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    del value
    x, indices = dims.of(node.inputs[0]), dims.of(node.inputs[1])
    if x is None or indices is None or not x:
        return None
    axis = attr_int(node, "axis", 0) % len(x)
    return (*x[:axis], *indices, *x[axis + 1 :])


def _reduce(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    del value
    x = dims.of(node.inputs[0])
    axes = ints_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if x is None or not axes:
        return None
    places = {axis % len(x) for axis in axes}
    if attr_int(node, "keepdims", 1):
        return tuple(1 if i in places else key for i, key in enumerate(x))
    return tuple(key for i, key in enumerate(x) if i not in places)


def _split(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    x, index = dims.of(node.inputs[0]), value.index()
    if x is None or index is None or not x:
        return None
    axis = attr_int(node, "axis", 0) % len(x)
    sizes = ints_of(node.inputs[1]) if len(node.inputs) > 1 else None
    whole: Key = x[axis]
    size: Key = ("dim", id(value), axis)
    if sizes is not None:
        size = sizes[index]
    elif isinstance(whole, int) and whole % len(node.outputs) == 0:
        size = whole // len(node.outputs)
    return (*x[:axis], size, *x[axis + 1 :])


def _concat(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    shapes = [dims.of(v) for v in node.inputs]
    if None in shapes or not shapes or not shapes[0]:
        return None
    known = [shape for shape in shapes if shape is not None]
    axis = attr_int(node, "axis", 0) % len(known[0])
    sizes = [shape[axis] for shape in known]
    total: Key = sum(s for s in sizes if isinstance(s, int))
    if not all(isinstance(s, int) for s in sizes):
        total = ("dim", id(value), axis)
    return (*known[0][:axis], total, *known[0][axis + 1 :])


def _expand(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    del value
    x, shape = dims.of(node.inputs[0]), dims.content(node.inputs[1])
    return None if x is None or shape is None else broadcast_keys([x, shape])


def _slice(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    x = dims.of(node.inputs[0])
    parts = [ints_of(v) for v in node.inputs[1:]]
    if x is None or len(parts) < 2:
        return None
    axes = parts[2] if len(parts) > 2 else (None if parts[0] is None else tuple(range(len(parts[0]))))
    if axes is None:
        return tuple(("dim", id(value), i) for i in range(len(x)))
    result = list(x)
    starts, ends, steps = parts[0], parts[1], parts[3] if len(parts) > 3 else (1,) * len(axes)
    for j, axis in enumerate(axes):
        size, place = x[axis % len(x)], axis % len(x)
        result[place] = ("dim", id(value), place)
        if isinstance(size, int) and starts is not None and ends is not None and steps is not None:
            result[place] = len(range(*slice_bounds(starts[j], ends[j], steps[j], size)))
    return tuple(result)


def _length(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    keys = dims.content(value)
    return None if keys is None or node.op_type != "Shape" else (len(keys),)


def _windows(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    x = dims.of(node.inputs[0])
    if x is None:
        return None
    rest: list[Key] = [("dim", id(value), i) for i in range(2, len(x))]
    return (*x[:2], *([1] * len(rest) if node.op_type.startswith("Global") else rest))


def _resize(dims: Dims, node: ir.Node, value: ir.Value) -> Keys | None:
    x = dims.of(node.inputs[0])
    return None if x is None else tuple(("dim", id(value), i) for i in range(len(x)))


_RULES: dict[str, Callable[[Dims, ir.Node, ir.Value], Keys | None]] = {
    "Reshape": _reshape,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Transpose": _transpose,
    "Conv": _conv,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Gather": _gather,
    "Split": _split,
    "Concat": _concat,
    "Expand": _expand,
    "Slice": _slice,
    "Shape": _length,
    "Resize": _resize,
    **dict.fromkeys(("AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool"), _windows),
    **{f"Reduce{kind}": _reduce for kind in ("Mean", "Sum", "Max", "Min", "L1", "L2", "Prod", "SumSquare")},
}
