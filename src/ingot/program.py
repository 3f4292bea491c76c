"""Program: an exported model, what it assumes, and how to call it as the module it came from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ingot.errors import ExportError
from ingot.loading import save, weight_bytes
from ingot.stateful import KEY, Stateful

if TYPE_CHECKING:
    from ingot.capture.assume import Assumption
    from ingot.capture.attempt import Capture
    from ingot.capture.signature import Arguments
    from ingot.report import Report


Array = npt.NDArray[Any]


@dataclass(repr=False)
class Program:
    """The result of an export.

    model         the ONNX graph; its weights share memory with the module's parameters
    assumptions   what must hold for it to be the same function as the module
    arguments     the call it was exported with: names and structure of the inputs
    output        the structure of the module's output
    output_names  the graph's outputs, in the order of that structure
    """

    model: ir.Model
    assumptions: list[Assumption]
    arguments: Arguments
    output: Any
    output_names: list[str]
    capture: Capture | None = field(default=None, repr=False)  # how it was made, for verification
    verification: Report | None = field(default=None, repr=False)  # what verify=True compared
    _session: Any = field(default=None, repr=False)

    def __repr__(self) -> str:
        """One line: names of inputs and outputs, and how much there is of the rest."""
        ends = f"{', '.join(self.input_names)} -> {', '.join(self.output_names)}"
        size = f"{len(self.model.graph)} nodes, {weight_bytes(self.model):,} bytes of weights"
        return f"Program({ends}; {size}, {len(self.assumptions)} assumptions)"

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, in the order of the call."""
        return self.arguments.names

    def __reduce__(self) -> NoReturn:
        """Raises ExportError: it holds the module and how it was recorded."""
        raise ExportError(
            "a Program cannot be pickled: it holds the module it came from. Save the model, "
            "program.save(path), and pass the path on."
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the `.onnx` file, and `<name>.data` beside it for weights of more than 2 GB.

        A reader sees the old file or the new one. Raises `ModelError` when the place cannot be written to.
        """
        save(self.model, path)

    def session(self, **options: Any) -> Any:
        """A new `ingot.InferenceSession` on this model; options as its own."""
        from ingot.runtime.session import InferenceSession

        return InferenceSession(self.model, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with the module's own arguments: torch or NumPy in, NumPy out in the module's
        structure. State goes from each call to the next.
        """
        if self._session is None:
            self._session = Stateful(self) if KEY in self.model.metadata_props else self.session()
        return self.call(self._session, args, kwargs)

    def call(self, session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a session of this model with the module's own arguments."""
        feeds = {name: as_array(t) for name, t in self.arguments.feeds(args, kwargs).items()}
        wanted = {v.name for v in self.model.graph.inputs}
        results = session.run(self.output_names, {k: v for k, v in feeds.items() if k in wanted})
        return self.structured(results, feeds)

    def reset(self) -> None:
        """Let calls of this Program begin with the initial state again."""
        self._session = None

    def structured(self, results: Sequence[Array], feeds: Mapping[str, Array] | None = None) -> Any:
        """Output arrays in the structure the module returns; `feeds` has what it returns as it was given."""
        from ingot.capture.signature import Passed, rebuild

        rest = iter(results)

        def filled(leaf: Any) -> Any:
            if isinstance(leaf, Passed):
                return (feeds or {})[leaf.name]
            return next(rest) if leaf is TENSOR else leaf

        return rebuild(self.output, filled)


class _Tensor:
    """Stands for a tensor in a Program's output structure."""

    def __repr__(self) -> str:
        return "TENSOR"


TENSOR = _Tensor()


def as_array(tensor: Any) -> npt.NDArray[Any]:
    """A torch tensor or anything NumPy takes, as an array; complex numbers as pairs of real ones."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        if tensor.is_complex():  # an ONNX model has real numbers: the parts lie along a last axis
            import torch

            tensor = torch.view_as_real(tensor.resolve_conj())
        tensor = tensor.resolve_neg()
        if str(tensor.dtype) == "torch.bfloat16":
            import ml_dtypes
            import torch

            return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()
    array = np.asarray(tensor)
    return np.stack([np.real(array), np.imag(array)], -1) if array.dtype.kind == "c" else array
