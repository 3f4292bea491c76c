"""Inputs and outputs: nested arguments to named tensors and back. Needs no torch, so a Program can use it
alone.
"""

# Arguments may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import dataclasses
import inspect
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from ingot.capture.choice import Undecided, Unordered
from ingot.capture.dicts import TracedDict
from ingot.capture.objects import attributes, copied, fill, held_in, is_a
from ingot.errors import ExportError, InputError

#: What an input may be of, by the names that torch and NumPy have.
DTYPES = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "bfloat16", "float16",
    "float32", "float64", "complex64", "complex128",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Dim:
    """A dynamic size with a name and bounds: `Dim("len", min=1, max=512)`. No max is no bound."""

    name: str
    min: int = 0
    max: int | None = None

    def __post_init__(self) -> None:
        """Refuse bounds that no size keeps."""
        ends: list[Any] = [self.min] if self.max is None else [self.min, self.max]
        named = isinstance(self.name, str) and self.name  # pyright: ignore[reportUnnecessaryIsInstance]
        if not named or not all(type(n) is int for n in ends) or not 0 <= self.min <= ends[-1]:
            raise ExportError(f"{self!r}: wanted a name and integers 0 <= min <= max.")


@dataclasses.dataclass(frozen=True)
class Input:
    """An example given by its dtype and shape instead of a tensor: `Input("float32", ["batch", 3, "h",
    "w"])`.

    An int is a static size, a str names a dynamic one, a `Dim` gives it bounds too, None leaves the name to
    Ingot. The same name twice means the same size. Complex numbers are pairs of real ones along a last axis
    in the file. The dtype may be torch's or NumPy's own too, such as
    `torch.float32`. `Input("int64", [])` in the place of a Python number (the parameter is annotated int,
    float or bool, or has a default that is one) makes that number an input of the model. `example` is the
    tensor or number that verification begins with, drawn where there is none.
    """

    dtype: str | Any
    shape: Sequence[int | str | Dim | None]
    example: Any = None

    def __post_init__(self) -> None:
        """The dtype by its name; refuse what is no dtype, or no list of sizes."""
        kind: Any = getattr(self.dtype, "type", self.dtype)
        of_numpy = isinstance(kind, type) and issubclass(kind, np.generic)
        name = np.dtype(kind).name if of_numpy else str(self.dtype).removeprefix("torch.")
        object.__setattr__(self, "dtype", name)
        if name not in DTYPES:
            wanted = ", ".join(map(repr, DTYPES))
            raise ExportError(f"Input: dtype {self.dtype!r} is not one of {wanted}.")
        if isinstance(self.shape, (str, bytes)) or not isinstance(self.shape, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ExportError(
                f"shape is {self.shape!r}; wanted a list of sizes and names, as in "
                'Input("float32", ["batch", 3]).'
            )
        for axis, size in enumerate(self.shape):
            whole = type(size) is int and size >= 0
            if not (whole or size is None or isinstance(size, Dim) or (isinstance(size, str) and size)):
                raise ExportError(
                    f"Input: axis {axis} has size {size!r}; wanted a size of at least 0, or for a "
                    'dynamic one a name ("batch"), an ingot.Dim or None.'
                )
        object.__setattr__(
            self, "shape", tuple(self.shape)
        )  # so that `Annotated[Tensor, Input(…)] | None` is


@dataclasses.dataclass(frozen=True)
class Count(Input):
    """A Python number that is an input: one so annotated, or in an object among the arguments that the call
    changes.
    """

    kind: type = int


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One tensor (or fixed value) of a nested structure and the way to it."""

    path: tuple[str | int, ...]
    value: Any
    inside: bool = False  # an attribute of a plain object, or in one

    @property
    def name(self) -> str:
        """`inputs.mask[0]` as `inputs_mask_0`."""
        return re.sub(r"\W", "_", "_".join(str(p) for p in self.path))

    @property
    def output(self) -> str:
        """What it is called among the outputs: `hidden_0`, or `output_1_0` where a place comes first."""
        if not self.path:
            return "output"
        return self.name if self.name.isidentifier() else f"output_{self.name}"


_PLAIN = (bool, int, float, str)
_COUNTS = {int: "int64", float: "float64"}
_DTYPE_OF: dict[type, str] = {bool: "bool", **_COUNTS}
#: Python's numbers that stand for tensors without axes, by how the names of the tensors' dtypes begin.
_NUMBERS_OF = {"float": (int, float), "bfloat": (int, float), "int": (int,), "uint": (int,), "bool": (bool,)}


class Passed:
    """Stands in an output's structure for an input that an object of the call's still holds."""

    def __init__(self, name: str) -> None:
        self.name = name


class Kept:
    """Stands in an output's structure for a constant that an object holds."""

    def __init__(self, value: Any) -> None:
        self.value = value


def is_tensor(x: Any) -> bool:
    """Whether a leaf is a tensor: torch, NumPy or an Input."""
    if is_a(x, (np.ndarray, Input)):
        return True
    return any(c.__name__ == "Tensor" and c.__module__ in ("torch", "torch._tensor") for c in type(x).__mro__)


def children(x: Any) -> list[tuple[str | int, Any]] | None:
    """The parts of a container, or None for a leaf."""
    if is_a(x, Mapping):
        items = dict.items(x) if is_a(x, (Unordered, TracedDict)) else x.items()
        return [(k if is_a(k, int) else str(k), v) for k, v in items]
    if is_a(x, tuple) and hasattr(x, "_fields"):
        return list(zip(x._fields, x, strict=True))  # pyright: ignore[reportAttributeAccessIssue]
    if is_a(x, (list, tuple)):
        return list(enumerate(x))
    if is_tensor(x) or is_a(x, (type, Undecided)):
        return None
    if dataclasses.is_dataclass(type(x)):
        return list(held_in(x).items())
    held = attributes(x)
    return None if held is None else list(held.items())


def is_object(x: Any) -> bool:
    """Whether a container is a plain object, which may be held in several places."""
    return not is_a(x, (Mapping, list, tuple)) and not dataclasses.is_dataclass(type(x))


def leaves(
    x: Any, path: tuple[str | int, ...] = (), seen: set[int] | None = None, inside: bool = False
) -> Iterator[Leaf]:
    """Every leaf of a nested structure, in order; what a plain object holds comes where it is first met."""
    seen = set() if seen is None else seen
    parts = children(x)
    if parts is None:
        yield Leaf(path, x, inside)
        return
    if is_object(x):
        if id(x) in seen:
            return
        seen.add(id(x))
        inside = True
    for key, value in parts:
        yield from leaves(value, (*path, key), seen, inside)


def rebuild(x: Any, replace: Callable[[Any], Any], made: dict[int, Any] | None = None) -> Any:
    """The same structure with every leaf replaced; plain objects are copied, each once."""
    made = {} if made is None else made
    parts = children(x)
    if parts is None:
        return replace(x)
    if is_object(x):
        if id(x) not in made:
            new = made[id(x)] = copied(x)
            fill(new, {str(key): rebuild(v, replace, made) for key, v in parts})
        return made[id(x)]
    values = [rebuild(v, replace, made) for _, v in parts]
    if is_a(x, tuple):
        if type(x).__name__ == "Size":  # torch's, which holds numbers alone
            return tuple(values)
        return type(x)(*values) if hasattr(x, "_fields") else type(x)(values)
    if is_a(x, list) and (type(x) is list or type(x).__module__.startswith("ingot.")):
        return values
    if is_a(x, (Unordered, TracedDict)):
        return dict(zip(dict.keys(x), values, strict=True))
    if is_a(x, Mapping) and not is_a(x, dict):
        return type(x)(dict(zip(x.keys(), values, strict=True)))  # pyright: ignore[reportCallIssue]
    if is_a(x, dict) and dataclasses.is_dataclass(type(x)):  # transformers' ModelOutput
        return type(x)(**dict(zip(x.keys(), values, strict=True)))
    # A copy, which no `__init__` and no `__post_init__` makes anything else of.
    new = copied(x)
    if is_a(x, list):
        list.__setitem__(new, slice(None), values)
    elif is_a(x, dict):
        for key, value in zip(x.keys(), values, strict=True):
            (OrderedDict if is_a(x, OrderedDict) else dict).__setitem__(new, key, value)
    else:
        for (name, _), value in zip(parts, values, strict=True):
            object.__setattr__(new, str(name), value)
    return new


@dataclasses.dataclass
class Arguments:
    """A call of the model, flattened: which leaves are tensors, and what they are called."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    names: list[str]  # of the tensor leaves, in order
    signature: inspect.Signature | None = None

    @property
    def tensors(self) -> list[Any]:
        """The tensor leaves, in order."""
        return [leaf.value for leaf in leaves((self.args, self.kwargs)) if is_tensor(leaf.value)]

    @property
    def tensor_leaves(self) -> list[Leaf]:
        """The tensor leaves with their ways from `(args, kwargs)`, in order."""
        return [leaf for leaf in leaves((self.args, self.kwargs)) if is_tensor(leaf.value)]

    @property
    def names_by_path(self) -> dict[tuple[str | int, ...], str]:
        """Names of the tensors by their ways from `(args, kwargs)`."""
        return {leaf.path: name for leaf, name in zip(self.tensor_leaves, self.names, strict=True)}

    def label(self, leaf: Leaf) -> str:
        """What a leaf of `(args, kwargs)` is called after the function's parameters."""
        kind, first, *rest = leaf.path
        if kind == 1:
            return Leaf((first, *rest), None).name
        return Leaf((*_parameter(self.signature, int(first), len(self.args)), *rest), None).name

    @property
    def fixed(self) -> list[tuple[str, Any]]:
        """Arguments that are no tensors: name and value. Of what objects hold, numbers and words."""
        named = _labelled(self.signature, self.args, self.kwargs)
        kept = [leaf for leaf in named if not is_tensor(leaf.value) and leaf.value is not None]
        return [(leaf.name, leaf.value) for leaf in kept if not leaf.inside or isinstance(leaf.value, _PLAIN)]

    @property
    def numbers(self) -> list[type | None]:
        """For each tensor leaf, the kind of Python number that the function takes in its place, if any."""
        named = [leaf for leaf in _labelled(self.signature, self.args, self.kwargs) if is_tensor(leaf.value)]
        return [_number_kind(self.signature, leaf) for leaf in named]

    def with_tensors(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call with other tensors in the same places."""
        rest = iter(tensors)
        return rebuild((self.args, self.kwargs), lambda v: next(rest) if is_tensor(v) else v)

    def with_counts(self, counts: Collection[tuple[str | int, ...]]) -> Arguments:
        """The call with inputs in the place of the numbers at these ways from `(args, kwargs)`."""
        rest = leaves((self.args, self.kwargs))

        def counted(value: Any) -> Any:
            kind = type(value)
            return Count(_COUNTS[kind], [], value, kind) if next(rest).path in counts else value

        args, kwargs = rebuild((self.args, self.kwargs), counted)
        made = dataclasses.replace(self, args=args, kwargs=kwargs)
        old = self.names_by_path
        labelled = [leaf for leaf in _labelled(self.signature, args, kwargs) if is_tensor(leaf.value)]
        ways = [leaf.path for leaf in made.tensor_leaves]
        names = [old.get(way, leaf.name) for way, leaf in zip(ways, labelled, strict=True)]
        return dataclasses.replace(made, names=unique_names(names))

    def feeds(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Another call's tensors by name.

        Raises:
            InputError: when its structure is not the exported one's.
        """
        wanted = [leaf for leaf in _labelled(self.signature, self.args, self.kwargs) if is_tensor(leaf.value)]
        kinds = {leaf.name: leaf.value.dtype for leaf, kind in zip(wanted, self.numbers, strict=True) if kind}
        tensors = {leaf.name: leaf.value for leaf in wanted if leaf.name not in kinds}
        made = [
            Leaf(leaf.path, np.asarray(leaf.value, kinds[leaf.name]))
            if leaf.name in kinds and not is_tensor(leaf.value)
            else _with_array(leaf, tensors.get(leaf.name))
            for leaf in _labelled(self.signature, args, kwargs)
        ]
        self._require_fixed(args, kwargs)
        made += self._left_out(args, kwargs, kinds)
        given = [leaf.value for leaf in made if is_tensor(leaf.value)]
        found = [leaf.name for leaf in made if is_tensor(leaf.value)]
        if len(given) != len(wanted) or sorted(found) != sorted(leaf.name for leaf in wanted):
            _refuse_lists(made, wanted)
            raise InputError(
                f"the call has tensors {found}, the exported model takes {[leaf.name for leaf in wanted]}. "
                "Pass the same arguments as in the export."
            )
        by_label = dict(zip(found, given, strict=True))
        return {name: by_label[leaf.name] for name, leaf in zip(self.names, wanted, strict=True)}

    def _left_out(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], kinds: Mapping[str, str]
    ) -> list[Leaf]:
        """Numbers that are inputs, and that the call leaves to the function's defaults."""
        if self.signature is None or not kinds:
            return []
        given = self.signature.bind_partial(*args, **kwargs).arguments
        return [
            Leaf((name,), np.asarray(parameter.default, kinds[name]))
            for name, parameter in self.signature.parameters.items()
            if name in kinds and name not in given and isinstance(parameter.default, _PLAIN[:3])
        ]

    def _require_fixed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse another value of an argument that was kept at its value."""
        before = dict(_with_defaults(self.signature, self.args, self.kwargs))
        for name, value in _with_defaults(self.signature, args, kwargs):
            kept = before.get(name, value)
            if isinstance(kept, _PLAIN) and isinstance(value, _PLAIN) and kept != value:
                dtype = _DTYPE_OF.get(type(value))
                instead = f', or with ingot.Input("{dtype}", []) in its place' if dtype else ""
                raise InputError(
                    f"argument {name!r} is {value!r}; the model was exported with {kept!r}, which it keeps. "
                    f"Export again with that value{instead}."
                )


def _with_array(leaf: Leaf, tensor: Any) -> Leaf:
    """A number in the place of a tensor as an array without axes: of the tensor's dtype, if it is Python's.

    Raises:
        InputError: a Python number that the dtype has not, or something else that is no tensor.
    """
    value = leaf.value
    if tensor is None or is_tensor(value) or value is None:
        return leaf
    if isinstance(value, np.generic):
        return Leaf(leaf.path, np.asarray(value))
    dtype = str(tensor.dtype).removeprefix("torch.")
    kinds = next((k for start, k in _NUMBERS_OF.items() if dtype.startswith(start)), ())
    if type(value) in kinds:
        if dtype == "bfloat16":
            import ml_dtypes

            return Leaf(leaf.path, np.asarray(value, ml_dtypes.bfloat16))
        try:
            return Leaf(leaf.path, np.asarray(value, dtype))
        except OverflowError:  # an integer that the dtype has not
            pass
    raise InputError(
        f"argument {leaf.name!r} is {value!r}, of type {type(value).__name__}; the exported model takes a "
        f"tensor of {dtype}. Pass a tensor or a NumPy array."
    )


def _refuse_lists(made: Sequence[Leaf], wanted: Sequence[Leaf]) -> None:
    """Raises InputError for a list, tuple or dict of something else than tensors in the place of a tensor."""
    for leaf in wanted:
        length = len(leaf.path)
        inside = [x for x in made if x.path[:length] == leaf.path and len(x.path) > length]
        if inside and not any(is_tensor(x.value) for x in inside):
            raise InputError(
                f"argument {leaf.name!r} is a list, tuple or dict; the exported model takes a tensor there. "
                "Pass a tensor or a NumPy array."
            )


def _with_defaults(
    signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, Any]]:
    """Leaves by name, with the values of the parameters that the call leaves out."""
    if signature is None:
        return [(leaf.name, leaf.value) for leaf in _labelled(signature, args, kwargs)]
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(
            f"the call does not fit the model's {signature}: {error}. Pass the same arguments as in the "
            "export."
        ) from None
    bound.apply_defaults()
    return [(leaf.name, leaf.value) for leaf in leaves(dict(bound.arguments))]


def _called(function: Any) -> str:
    """What is called, by its name: `Net.forward`, or a function's own."""
    own = getattr(function, "__name__", None)
    return str(own) if own is not None else f"{type(function).__name__}.forward"


def _given(positional: tuple[Any, ...], keywords: dict[str, Any]) -> str:
    """How many arguments a call has, and the names of those that have one."""
    parts = (
        [f"{len(positional)} positional argument{'' if len(positional) == 1 else 's'}"] if positional else []
    )
    parts += [", ".join(f"{name}=…" for name in sorted(keywords))] if keywords else []
    return " and ".join(parts)


def _number_kind(signature: inspect.Signature | None, leaf: Leaf) -> type | None:
    """bool, int or float where the parameter is a Python number and an Input without axes stands for it."""
    if isinstance(leaf.value, Count):
        return leaf.value.kind
    if not isinstance(leaf.value, Input) or len(leaf.value.shape) or len(leaf.path) != 1 or not signature:
        return None
    parameter = signature.parameters.get(str(leaf.path[0]))
    if parameter is None:
        return None
    said = parameter.annotation
    words = said if isinstance(said, str) else getattr(said, "__name__", str(said))
    alternatives = {w.strip() for w in re.sub(r"Optional\[(.*)\]", r"\1", words).split("|")} - {"None"}
    kinds = {"bool": bool, "int": int, "float": float}
    if len(alternatives) == 1 and (word := next(iter(alternatives))) in kinds:
        return kinds[word]
    return type(parameter.default) if type(parameter.default) in (bool, int, float) else None


def _labelled(
    signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Leaf]:
    """Leaves in the order of the call; their paths begin with the parameter's name."""
    found: list[Leaf] = []
    seen: set[int] = set()
    for i, value in enumerate(args):
        found += leaves(value, _parameter(signature, i, len(args)), seen)
    for key, value in kwargs.items():
        found += leaves(value, (key,), seen)
    return found


def _parameter(signature: inspect.Signature | None, position: int, count: int) -> tuple[str | int, ...]:
    if signature is not None:
        for i, p in enumerate(signature.parameters.values()):
            if p.kind is inspect.Parameter.VAR_POSITIONAL:
                return (p.name, position - i)
            if i == position:
                return (p.name,)
    return (f"input_{position}" if count > 1 else "input",)


def arguments_of(
    function: Any, args: Any, kwargs: Mapping[str, Any] | None, input_names: Sequence[str] | None
) -> Arguments:
    """Name the tensors of a call of `function` (a module's `forward`, or any callable).

    Raises:
        ExportError: when the call does not fit the signature, or `input_names` cannot be its names.
    """
    positional: tuple[Any, ...] = args if isinstance(args, tuple) else (args,)
    if kwargs is not None and not isinstance(kwargs, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ExportError(f"kwargs is of type {type(kwargs).__name__}; wanted a dict of arguments by name.")
    keywords = dict(kwargs or {})
    if (
        positional
        and isinstance(positional[-1], dict)
        and not keywords
        and _takes_keywords(function, positional)
    ):
        positional, keywords = positional[:-1], dict(positional[-1])
    target = getattr(function, "forward", function)
    try:
        signature: inspect.Signature | None = inspect.signature(target)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        try:
            signature.bind(*positional, **keywords)
        except TypeError as error:
            if not positional and not keywords:
                raise ExportError(
                    f"{_called(function)}{signature} was given nothing ({error}), and no "
                    "annotation says what it takes. Pass an example, args=(torch.zeros(2, 3),), or a "
                    'description, args=(ingot.Input("float32", ["batch", 3]),).'
                ) from error
            raise ExportError(
                f"{_called(function)}{signature} cannot be called with {_given(positional, keywords)}: "
                f"{error}. Pass the arguments of one call as args=(…) and kwargs={{…}}."
            ) from error
    call = Arguments(positional, keywords, [], signature)
    names = [leaf.name for leaf in _labelled(signature, positional, keywords) if is_tensor(leaf.value)]
    if input_names is not None:
        check_names("input_names", input_names, names)
        names[: len(input_names)] = input_names
    call.names = unique_names(names)
    return call


def _takes_keywords(function: Any, positional: tuple[Any, ...]) -> bool:
    """torch.onnx.export reads a dict at the end of args as keyword arguments; so it is when nothing else
    fits it.
    """
    target = getattr(function, "forward", function)
    try:
        signature = inspect.signature(target)
        signature.bind(*positional[:-1], **positional[-1])
    except (TypeError, ValueError):
        return False
    try:
        bound = signature.bind(*positional)
    except TypeError:
        return True
    return bool(positional[-1]) and len(bound.arguments) > len(signature.parameters)


def unique_names(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """Names with numbers put behind repeated ones, and behind those that are `taken` or asked for later."""
    used, asked = set(taken), set(names)
    made: list[str] = []
    for name in names:
        numbered = (f"{name}_{n}" for n in count(1))
        free = name if name not in used else next(n for n in numbered if n not in used | asked)
        used.add(free)
        made.append(free)
    return made


def check_names(what: str, given: Sequence[Any], derived: Sequence[str], taken: Sequence[str] = ()) -> None:
    """Raise ExportError unless the names that the caller gave (`what` says by which argument) can be written.

    They may be fewer than the `derived` ones that they replace; each must be a word of its own, in none of
    the names `taken`.
    """
    if not isinstance(given, (list, tuple)) or not all(isinstance(n, str) and n for n in given):
        raise ExportError(f"{what} is {given!r}; wanted a list of names, none of them empty.")
    if len(given) > len(derived):
        whose = "the call has" if what == "input_names" else "the model returns"
        raise ExportError(
            f"{what} has {len(given)} names, {whose} {len(derived)} tensors: {list(derived)}. "
            "Give at most one name for each tensor, in their order."
        )
    again = sorted({n for n in given if list(given).count(n) > 1 or n in taken})
    if again:
        raise ExportError(
            f"{what} has {again}, which another input or output is called already. Give each a name of its "
            "own."
        )
