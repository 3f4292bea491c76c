"""Stateful: calls in a row of a model whose state is among its inputs and outputs. Needs no PyTorch."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ingot.errors import InputError, ModelError

if TYPE_CHECKING:
    from ingot.program import Program

Array = npt.NDArray[Any]

#: The entry of a model's metadata that says which of its inputs and outputs are state.
KEY = "ingot.state"


@dataclass(frozen=True)
class State:
    """One input whose next value is one output, and its value before the first call.

    What an object among the arguments held, a cache of keys and values, and what the first call makes as
    large as its inputs have no initial value: they begin as zeros of the declared `dims`; a name there is the
    size of the other inputs' axis of that name, or 0.
    """

    input: str
    output: str
    initial: Array | None
    dtype: str = ""
    dims: tuple[int | str | None, ...] = ()

    def empty(self, sizes: Mapping[str, int]) -> Array:
        """The value before the first call, for the sizes by name of the other inputs."""
        shape = [d if isinstance(d, int) else sizes.get(str(d), 0) for d in self.dims]
        return np.zeros(shape, _dtype(self.dtype))


def write_states(model: ir.Model, states: Sequence[State]) -> None:
    """Put the states into the model's metadata: names, dtype, shape, and the initial elements compressed."""
    model.metadata_props[KEY] = json.dumps([_row(s) for s in states])


def _row(s: State) -> dict[str, Any]:
    names = {"input": s.input, "output": s.output}
    if s.initial is None:
        return names | {"dtype": s.dtype, "dims": list(s.dims)}
    return names | {
        "dtype": str(s.initial.dtype),
        "shape": list(s.initial.shape),
        "zlib": base64.b64encode(zlib.compress(np.ascontiguousarray(s.initial).tobytes())).decode(),
    }


def read_states(metadata: Mapping[str, str]) -> list[State]:
    """The states that a model's metadata names; none where it names none.

    Raises:
        ModelError: the entry is damaged.
    """
    try:
        rows = json.loads(metadata.get(KEY, "[]"))
        found: list[State] = []
        for row in rows:
            if "dims" in row:
                found.append(State(row["input"], row["output"], None, row["dtype"], tuple(row["dims"])))
                continue
            raw = zlib.decompress(base64.b64decode(row["zlib"]))
            array = np.frombuffer(bytearray(raw), _dtype(row["dtype"])).reshape(row["shape"])
            found.append(State(row["input"], row["output"], array))
        return found
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise ModelError(
            f"the model's metadata entry {KEY!r} cannot be read ({error}); export the model again."
        ) from error


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name) if name == "bfloat16" else name)


class Stateful:
    """A session that carries the model's state from each call to the next. Not for concurrent calls.

    source: an `InferenceSession` (Ingot's or onnxruntime's), a `Program`, or what a session opens.
    options: for the session where one is opened.

    Raises ModelError where the model has no state: it was not exported with `state="inputs"`.
    """

    def __init__(self, source: Any, **options: Any) -> None:
        from ingot.program import Program

        self._program: Program | None = source if isinstance(source, Program) else None
        self.session: Any = _session(source, options)
        self.states = read_states(self.session.get_modelmeta().custom_metadata_map)
        if not self.states:
            raise ModelError(
                'the model has no state that ingot.Stateful could carry; export it with state="inputs".'
            )
        self._inputs = {s.input for s in self.states}
        self._own = {s.input for s in self.states if s.initial is not None}
        self._outputs = {s.output for s in self.states}
        self.state: dict[str, Array] = {}
        self.reset()

    def reset(self, state: Mapping[str, Any] | None = None) -> None:
        """Begin anew: with the values that the model was exported with, or with these in their places.

        What was an argument of the module, a cache, begins empty; what the module's first call makes, as
        zeros of the sizes of the first inputs.

        state: arrays by the name of the input.

        Raises InputError for a name that is no state, and a value that is no array of its shape.
        """
        if state is not None and not isinstance(state, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                f"state is of type {type(state).__name__}; give a dict of arrays by input name, or None"
            )
        given = dict(state or {})
        unknown = sorted(set(given) - self._inputs)
        if unknown:
            raise InputError(f"the model has no state {unknown}; it has {sorted(self._inputs)}.")
        shapes = {v.name: v.shape for v in self.session.get_inputs()}
        values: dict[str, Array] = {}
        for s in self.states:
            if given.get(s.input) is not None:
                values[s.input] = _fitting(s, given[s.input], shapes[s.input])
            elif s.initial is not None:
                values[s.input] = s.initial.copy()
        self.state = values

    def get_inputs(self) -> list[Any]:
        """The session's inputs without the state."""
        return [v for v in self.session.get_inputs() if v.name not in self._inputs]

    def get_outputs(self) -> list[Any]:
        """The session's outputs without the state."""
        return [v for v in self.session.get_outputs() if v.name not in self._outputs]

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], *rest: Any) -> list[Any]:
        """As the session's `run`, with the state put in; afterwards the state is that after the call.

        What was an argument of the module may be fed all the same. A call that fails leaves the state as it
        was.
        """
        _require_call(output_names, input_feed)
        both = sorted(set(input_feed) & self._own)
        if both:
            raise InputError(f"{both} are state, which ingot.Stateful puts in itself; give them to reset().")
        wanted = list(output_names) if output_names else [v.name for v in self.get_outputs()]
        names = [*wanted, *(s.output for s in self.states)]
        feed = {**self._beginning(input_feed), **self.state, **input_feed}
        results = self.session.run(names, feed, *rest)
        self.state = {s.input: a for s, a in zip(self.states, results[len(wanted) :], strict=True)}
        return list(results[: len(wanted)])

    def _beginning(self, feed: Mapping[str, Any]) -> dict[str, Array]:
        """Empty values for what no call has given a value yet."""
        missing = [s for s in self.states if s.input not in self.state and s.input not in feed]
        if not missing:
            return {}
        fed = [v for v in self.session.get_inputs() if v.name in feed]
        axes = [(d, n) for v in fed for d, n in zip(v.shape, np.shape(feed[v.name]), strict=False)]
        sizes = {d: n for d, n in axes if isinstance(d, str)}
        return {s.input: s.empty(sizes) for s in missing}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model with the module's own arguments, as a `Program` can be called."""
        if self._program is None:
            raise InputError("only the state of an ingot.Program can be called; use run() with a session.")
        return self._program.call(self, args, kwargs)


def _require_call(output_names: Any, input_feed: Any) -> None:
    """Raise InputError where there are no names, or no inputs by name."""
    if not isinstance(input_feed, Mapping):
        raise InputError(
            f"input_feed is of type {type(input_feed).__name__}; give a dict of arrays by input name"
        )
    if isinstance(output_names, str) or not isinstance(output_names, (Iterable, type(None))):
        raise InputError(f"output_names is {output_names!r}; give a list of names, or None")


def _fitting(state: State, given: Any, shape: Sequence[int | str | None]) -> Array:
    """A new value of a state as an array of its own, in the state's dtype."""
    dtype = _dtype(state.dtype) if state.initial is None else state.initial.dtype
    try:
        array = np.array(given, dtype)
    except (TypeError, ValueError, RuntimeError) as error:  # torch: of a tensor that wants gradients
        raise InputError(
            f"the state {state.input!r} is a {type(given).__name__} that is no array of {dtype}: {error}"
        ) from error
    pairs = zip(array.shape, shape, strict=False)
    if array.ndim != len(shape) or any(isinstance(d, int) and n != d for n, d in pairs):
        wanted = ", ".join("?" if d is None else str(d) for d in shape)
        raise InputError(
            f"the state {state.input!r} has shape {list(array.shape)}; the model wants [{wanted}]"
        )
    return array


def _session(source: Any, options: dict[str, Any]) -> Any:
    if hasattr(source, "get_modelmeta"):
        return source
    from ingot.program import Program
    from ingot.runtime.session import InferenceSession

    return InferenceSession(source.model if isinstance(source, Program) else source, **options)
