"""What a random case is made of: `Draw` has the choices, `Case` is one node with its inputs.

The generators of the families (`elementwise.py`, `shapes.py` …) enter a function for each operator into
`TABLE`. It is given a `Draw` and an opset at which the operator exists, and answers the case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import ml_dtypes
import numpy as np
import onnx
import onnx.defs

Array: TypeAlias = np.ndarray[Any, Any]
T = TypeVar("T")

FLOATS = ("float32", "float64", "float16", "bfloat16")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
INTEGERS = (*SIGNED, *UNSIGNED)
NARROW = (
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("int4", "uint4", "int2", "uint2", "float4_e2m1fn"),
)


def dtype_of(name: str) -> np.dtype[Any]:
    """NumPy's or ml_dtypes'; strings are objects."""
    if name == "string":
        return np.dtype(object)
    return np.dtype(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) else np.dtype(name)


@dataclass
class Case:
    """One node: arrays (None for an absent input, a list for a sequence), attributes, outputs."""

    op: str
    inputs: Sequence[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    #: Inputs that have to be initializers (True: whatever may be).
    constant: Sequence[int] = ()
    #: Which outputs are named; the others are absent.
    named: Sequence[int] | None = None
    domain: str = ""
    opset: int = 0
    #: How far results may be apart, relative to the largest; None: by dtype.
    tolerance: float | None = None
    #: Whether only the form of the results is compared: true random draws.
    by_form: bool = False


Maker: TypeAlias = "Callable[[Draw, int], Case]"
TABLE: dict[tuple[str, str], Maker] = {}


def case(*names: str, domain: str = "") -> Callable[[Maker], Maker]:
    """Decorator: enters the generator of these operators. One for several asks `Draw.op`."""

    def enter(maker: Maker) -> Maker:
        for name in names:
            assert (domain, name) not in TABLE, name
            TABLE[domain, name] = maker
        return maker

    return enter


class Draw:
    """The choices of one case, all from its seed."""

    def __init__(self, seed: int, op: str = "", domain: str = "") -> None:
        self.rng = np.random.default_rng(seed)
        self.op, self.domain = op, domain

    # ---- numbers and choices

    def integer(self, low: int, high: int) -> int:
        """One of low … high."""
        return int(self.rng.integers(low, high + 1))

    def flag(self, chance: float = 0.5) -> bool:
        return bool(self.rng.random() < chance)

    def one(self, choices: Sequence[T]) -> T:
        return choices[self.integer(0, len(choices) - 1)]

    def real(self, low: float, high: float) -> float:
        """A float32, as attributes hold it."""
        return float(np.float32(self.rng.uniform(low, high)))

    def some(self, attributes: dict[str, Any], chance: float = 0.6) -> dict[str, Any]:
        """Some of the attributes; the others keep their defaults. None is never given."""
        return {k: v for k, v in attributes.items() if v is not None and self.flag(chance)}

    # ---- shapes

    def size(self, high: int = 9) -> int:
        """Small numbers, now and then 0 or what fills several vectors."""
        kind = self.rng.random()
        if kind < 0.04:
            return 0
        if kind < 0.2:
            return 1
        return self.integer(15, 40) if kind > 0.94 else self.integer(2, high)

    def shape(
        self, low: int = 0, high: int = 4, *, empty: bool = True, largest: int = 4000
    ) -> tuple[int, ...]:
        while True:
            shape = tuple(self.size(7) for _ in range(self.integer(low, high)))
            if np.prod(shape) <= largest and (empty or 0 not in shape):
                return shape

    def axis(self, rank: int, opset: int = 99, negative_from: int = 11) -> int:
        """Of a rank of 1 or more; counted from the end where the opset allows it."""
        axis = self.integer(0, rank - 1)
        return axis - rank if opset >= negative_from and self.flag(0.4) else axis

    def axes(self, rank: int, low: int = 0, *, negative: bool = True) -> list[int]:
        count = self.integer(min(low, rank), rank)
        axes = [int(a) for a in self.rng.permutation(rank)[:count]]
        return [a - rank if negative and self.flag(0.3) else a for a in axes]

    def broadcastable(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape that broadcasts with this one: some sizes are 1, leading ones are left out."""
        other = [1 if self.flag(0.3) else s for s in shape]
        return tuple(other[self.integer(0, len(other)) :] if self.flag(0.4) else other)

    # ---- dtypes and arrays

    def dtype(self, opset: int, kind: str | int = 0, *, only: Sequence[str] | None = None) -> str:
        """One of the dtypes that the schema allows an input (its index) or a type variable (its name)."""
        schema = onnx.defs.get_schema(self.op, opset, self.domain)
        name = schema.inputs[kind].type_str if isinstance(kind, int) else kind
        for constraint in schema.type_constraints:
            if constraint.type_param_str == name:
                allowed = [tensor_type(t) for t in constraint.allowed_type_strs]
                break
        else:
            allowed = [tensor_type(name)]
        names = [t for t in allowed if t and (only is None or t in only)]
        common = [n for n in names if n in ("float32", "int64", "bool", "int32")]
        return self.one(common) if common and self.flag(0.5) else self.one(names)

    def array(
        self, shape: Sequence[int], dtype: str = "float32", *, special: float = 0.15, scale: float = 1.0
    ) -> Array:
        """Any values; with that chance some of them are NaN, infinite, negative zeros, limits."""
        shape = tuple(shape)
        rng = self.rng
        if dtype == "string":
            words = ["", "a", "Ab", "ab c", "tensor", "ß", "0", "1.5", "日本", "x" * 20]
            return rng.choice(np.array(words, object), shape) if shape else np.array(self.one(words), object)
        if dtype == "bool":
            return np.asarray(rng.random(shape) < 0.5)
        kind = dtype_of(dtype)
        if dtype.startswith("complex"):
            return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(kind)
        if "int" in dtype:
            bits = int(dtype.removeprefix("u").removeprefix("int"))
            low, high = (0, 2**bits - 1) if dtype[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            if self.flag(special):
                found = rng.integers(low, high, shape, np.uint64 if low == 0 else np.int64, endpoint=True)
            else:
                found = rng.integers(max(low, -9), min(high, 9), shape, endpoint=True)
            return np.asarray(found).astype(kind)
        values = np.asarray(rng.standard_normal(shape) * scale)
        if self.flag(0.2):
            values = np.round(values * 2) / 2
        if self.flag(special) and values.size:
            marks = [np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40, 6e4, -3e38, 0.5, -1.5]
            where = rng.random(shape) < 0.3
            values = np.where(where, rng.choice(np.array(marks), shape), values)
        with np.errstate(all="ignore"):
            return np.asarray(values).astype(kind)

    def floats(self, *shape: int, dtype: str = "float32", scale: float = 1.0) -> Array:
        """Ordinary numbers."""
        return self.array(shape, dtype, special=0.0, scale=scale)

    def between(self, low: int, high: int, shape: Sequence[int], dtype: str = "int64") -> Array:
        """Integers of low … high."""
        return np.asarray(self.rng.integers(low, high + 1, tuple(shape))).astype(dtype_of(dtype))


def tensor_type(name: str) -> str | None:
    """`float32` of `tensor(float)`; None of what is no tensor."""
    if not name.startswith("tensor("):
        return None
    inner = name[7:-1]
    renamed = {
        "float": "float32",
        "double": "float64",
        "float4e2m1": "float4_e2m1fn",
        "float8e4m3fn": "float8_e4m3fn",
        "float8e4m3fnuz": "float8_e4m3fnuz",
        "float8e5m2": "float8_e5m2",
        "float8e5m2fnuz": "float8_e5m2fnuz",
        "float8e8m0": "float8_e8m0fnu",
        "float6e2m3": "float6_e2m3fn",
        "float6e3m2": "float6_e3m2fn",
    }
    return renamed.get(inner, inner)
