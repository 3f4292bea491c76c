"""SessionOptions, RunOptions and NodeArg: onnxruntime's names and meanings for what a session is told and
tells.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from ingot.errors import InputError

#: More than any machine has cores; each takes memory of its own.
MOST_THREADS = 1024
_MOST_SEVERE = 4
#: Bytes that are few beside what any process takes.
_SMALL = 2 << 20


class GraphOptimizationLevel(enum.IntEnum):
    """How much the session may change the graph. The answers stay the same function at every level."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(enum.IntEnum):
    """Accepted for compatibility: a plan's steps always run one after the other, each on all threads."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


@dataclass(slots=True)
class SessionOptions:
    """Options of an InferenceSession.

    intra_op_num_threads: threads that share each step; 0 takes one for each core this process may use.
    graph_optimization_level: ORT_DISABLE_ALL runs the graph as it stands in the file (opset normalisation
    excepted). optimized_model_filepath: the file that a new session writes the model to, as `ingot.optimize`
    simplifies it, or at ORT_DISABLE_ALL as it is. enable_profiling and profile_file_prefix are accepted for
    compatibility: ask `InferenceSession.profile` for times. log_severity_level: -1 (as 2) to 4; above 2
    nothing is said while kernels are compiled, which happens once for a model and a CPU. logid,
    log_verbosity_level, enable_mem_reuse, use_deterministic_compute (all is deterministic here) and
    use_per_session_threads are accepted as well.
    enable_winograd: convolutions of stride 1 (3×3, 5×5, along one axis) may use Winograd's algorithm where it
    is faster and AMX is not used. Their results then differ from exact ones by 1 to 6e-6 of the largest
    (otherwise by 0.3 to 3e-6), and an infinity or NaN reaches a few more pixels around it.
    enable_amx: where the CPU has AMX, float32 matrices are multiplied there as three slices of 8 bits with
    a common scale for a row, or for a part of an image. Results differ from exact ones by 0.2 to 0.6e-6 of
    the largest, like float32 sums, where values are of a size, and by up to 1.1e-5 where one of a row is a
    hundred times larger than the others and has no weight (see docs/kernels/sliced.md).
    strassen_memory: where AMX is not used, products of 36 rows and more with large weights may take
    Strassen's scheme, an eighth fewer multiplications, for which sums of the weights are kept. Those may
    take so many percent of the size of the model's weights, and 2 MiB of a small model: 0 keeps to the usual
    products, 100 lets all take it that are faster. Results differ from exact ones by 1 to 5e-6 of the largest
    (otherwise by 0.5 to 2e-6), and by up to 1.5e-5 in rows that are smaller than their neighbours (see
    docs/kernels/strassen.md).
    """

    intra_op_num_threads: int = 0
    inter_op_num_threads: int = 0
    graph_optimization_level: GraphOptimizationLevel = GraphOptimizationLevel.ORT_ENABLE_ALL
    execution_mode: ExecutionMode = ExecutionMode.ORT_SEQUENTIAL
    enable_profiling: bool = False
    profile_file_prefix: str = "ingot_profile_"
    log_severity_level: int = 2
    log_verbosity_level: int = 0
    logid: str = ""
    optimized_model_filepath: str = ""
    enable_mem_pattern: bool = True
    enable_mem_reuse: bool = True
    enable_cpu_mem_arena: bool = True
    use_deterministic_compute: bool = False
    use_per_session_threads: bool = True
    enable_winograd: bool = True
    enable_amx: bool = True
    strassen_memory: int = 40
    _config: dict[str, str] = field(default_factory=dict[str, str])
    _sizes: dict[str, int] = field(default_factory=dict[str, int])
    _sizes_by_denotation: dict[str, int] = field(default_factory=dict[str, int])
    _initializers: dict[str, Any] = field(default_factory=dict[str, Any])

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an option. Raises InputError for what it cannot be: at the line that says it."""
        if not isinstance(value, enum.Enum):  # enumerations of other libraries are no integers, but have one
            value = getattr(value, "value", value)
        known = type(self).__dataclass_fields__.get(name)
        if known is not None and known.default is not MISSING:
            _check(name, value, known.default)
        object.__setattr__(self, name, value)

    def add_free_dimension_override_by_name(self, dim_name: str, dim_value: int) -> None:
        """Dimensions of inputs and outputs of this name have this size; a model need not have one."""
        self._override(self._sizes, dim_name, dim_value)

    def add_free_dimension_override_by_denotation(self, dim_denotation: str, dim_value: int) -> None:
        """The same of dimensions of inputs with this denotation, such as DATA_BATCH."""
        self._override(self._sizes_by_denotation, dim_denotation, dim_value)

    def _override(self, sizes: dict[str, int], name: str, size: Any) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise InputError(
                f"the size of dimension {name!r} is {size!r}; it must be an integer of 0 or more"
            )
        sizes.setdefault(name, size)  # the first one counts

    def add_initializer(self, name: str, ort_value: Any) -> None:
        """The model's initializer of this name has this value (an OrtValue or an array, of its dtype and
        shape), which must stay as it is while the session is in use. A session of a model without it raises
        InputError.
        """
        if name in self._initializers:
            raise InputError(f"initializer {name!r} was added already; make new options for another value")
        self._initializers[name] = ort_value.numpy() if hasattr(ort_value, "numpy") else ort_value

    def add_external_initializers(self, names: Sequence[str], ort_values: Sequence[Any]) -> None:
        """`add_initializer` for each name."""
        if len(names) != len(ort_values):
            raise InputError(f"{len(names)} names were given for {len(ort_values)} initializers")
        for name, value in zip(names, ort_values, strict=True):
            self.add_initializer(name, value)

    def memory_for_sums(self, weights: int) -> int:
        """How many bytes Strassen's sums may take, of a model with so many bytes of weights."""
        share = self.strassen_memory
        return max(weights * share // 100, _SMALL) if share else 0

    @property
    def sizes(self) -> tuple[dict[str, int], dict[str, int]]:
        """The sizes of dimensions by name and by denotation."""
        return self._sizes, self._sizes_by_denotation

    @property
    def initializers(self) -> dict[str, Any]:
        """Other values of the model's initializers."""
        return self._initializers

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Keep a configuration entry; those of other runtimes have no effect here."""
        self._config[key] = value

    def get_session_config_entry(self, key: str) -> str:
        """A configuration entry; KeyError if it was never added."""
        return self._config[key]


def options_of(given: Any) -> SessionOptions:
    """Options for a session: the defaults for None, and from another runtime's options what we have too.

    Raises InputError for an option that cannot be meant, and for something else altogether.
    """
    if given is None:
        return SessionOptions()
    if isinstance(given, SessionOptions):
        options = given
    elif hasattr(given, "intra_op_num_threads") and hasattr(given, "graph_optimization_level"):
        options = SessionOptions()
        for each in fields(SessionOptions):
            value = getattr(given, each.name, None)
            if value is not None:
                setattr(options, each.name, value)
    else:
        raise InputError(f"sess_options is of type {type(given).__name__}; give ingot.SessionOptions()")
    return options


def _check(name: str, value: Any, default: Any) -> None:
    """Refuse a value that an option cannot have."""
    levels = _LEVELS.get(name)
    if levels is not None:
        if isinstance(value, bool) or value not in [int(level) for level in levels]:
            raise InputError(
                f"{name} is {value!r}; it may be one of {', '.join(level.name for level in levels)}"
            )
        return
    wanted = next(kind for kind in _ARTICLES if isinstance(default, kind))
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise InputError(f"{name} is {value!r}; it must be {_ARTICLES[wanted]}")
    least, most, said = _BOUNDS.get(name, (None, None, ""))
    if least is not None and most is not None and not least <= value <= most:
        raise InputError(f"{name} is {value}; it must be {said}")


#: bool before int, which it is too
_ARTICLES: dict[type, str] = {bool: "True or False", int: "an integer", str: "a string"}
_LEVELS: dict[str, list[enum.IntEnum]] = {
    "graph_optimization_level": list(GraphOptimizationLevel),
    "execution_mode": list(ExecutionMode),
}
_THREADS = 0, MOST_THREADS, f"0 (all cores) to {MOST_THREADS}"
#: The least and the most of a number, and both in words.
_BOUNDS: dict[str, tuple[int, int, str]] = {
    "intra_op_num_threads": _THREADS,
    "inter_op_num_threads": _THREADS,
    "strassen_memory": (0, 100, "0 to 100 percent of the weights' size"),
    "log_severity_level": (
        -1, _MOST_SEVERE, f"0 (all is said) to {_MOST_SEVERE} (fatal errors alone), or -1 for the default"
    ),
}  # fmt: skip


@dataclass(slots=True)
class RunOptions:
    """Options of one run.

    terminate: set to True, also by another thread while the run goes on, it ends the run with
    TerminatedError: before its next stage or the next round of a loop. All else is accepted for
    compatibility.
    """

    log_severity_level: int = 2
    log_verbosity_level: int = 0
    logid: str = ""
    terminate: bool = False
    only_execute_path_to_fetches: bool = False
    _config: dict[str, str] = field(default_factory=dict[str, str])

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Keep a configuration entry; those of other runtimes have no effect here."""
        self._config[key] = value

    def get_run_config_entry(self, key: str) -> str:
        """A configuration entry; KeyError if it was never added."""
        return self._config[key]


@dataclass(frozen=True, slots=True)
class NodeArg:
    """An input or output: its name, its type as onnxruntime spells it ("tensor(float)"), its shape.

    A dim is an int, a symbolic name, or None where nothing is known of it.
    """

    name: str
    type: str
    shape: Sequence[int | str | None]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What the file says of itself."""

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: dict[str, str]
