"""ONNX's backend interface over a session, so that onnx's own test suite, and whatever else knows that
interface, runs Ingot.

    import ingot.backend
    onnx.backend.test.BackendTest(ingot.backend.IngotBackend, __name__)

The module has the class's functions too, as other backends' modules do: `ingot.backend.prepare(model)`.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# onnx.backend.base is annotated in part.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

from ingot.errors import InputError, ModelError, ProviderError, UnsupportedOperatorError
from ingot.ops.generic import type_proto_of
from ingot.runtime.session import InferenceSession


class IngotBackendRep(BackendRep):
    """A model that is ready to run."""

    def __init__(self, session: InferenceSession) -> None:
        self.session = session
        names = [value.name for value in session.get_outputs()]
        self._outputs = namedtupledict("Outputs", names)

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Outputs, by position and by name, for inputs in the graph's order (those with initializers left
        out), by name in a dict, or one array for a model of one input.

        Raises InputError for too many or too few.
        """
        del kwargs
        wanted = [value.name for value in self.session.get_inputs()]
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, Mapping):
            if len(inputs) != len(wanted):
                raise InputError(
                    f"{len(inputs)} inputs were given; the model wants {len(wanted)}: "
                    f"{', '.join(wanted) or 'none'}. Give a value for each."
                )
            inputs = dict(zip(wanted, inputs, strict=True))
        return self._outputs(*self.session.run(None, inputs))


class IngotBackend(Backend):
    """Ingot behind `onnx.backend.base.Backend`."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether `prepare` accepts the model: every operator is known here at its opset."""
        try:
            cls.prepare(model, device, **kwargs)
        except (UnsupportedOperatorError, ProviderError):
            return False
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> IngotBackendRep:
        """A model that is ready to run. kwargs: those of `ingot.InferenceSession`; the tolerances that onnx's
        suite hands on are passed over.

        Raises ModelError for what is not valid ONNX, UnsupportedOperatorError, ProviderError for a device.
        """
        if not cls.supports_device(device):
            raise ProviderError(f"device {device!r} is not available; the backend runs on 'CPU'")
        if not isinstance(model, onnx.ModelProto):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ModelError(
                f"an onnx.ModelProto is wanted, and this is of type {type(model).__name__}. onnx.load makes "
                "one of a file; ingot.InferenceSession takes paths and bytes as well."
            )
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise ModelError(f"the model is not valid ONNX: {error}") from error
        options = {key: value for key, value in kwargs.items() if key not in ("rtol", "atol")}
        return IngotBackendRep(InferenceSession(model, **options))

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Prepare and run once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one node on inputs in the order of its own that are not left out.

        opset_version: of the node's domain, the newest by default. outputs_info is not needed.
        """
        del outputs_info
        if not cls.supports_device(device):
            raise ProviderError(f"device {device!r} is not available; the backend runs on 'CPU'")
        main = onnx.defs.onnx_opset_version()
        opsets = {"": main, node.domain: kwargs.pop("opset_version", None) or _newest(node)}
        names = [name for name in node.input if name]
        if len(names) != len(inputs):
            raise InputError(f"{len(inputs)} inputs were given; {node.op_type} has {len(names)}: {names}")
        feeds = {name: _plain(value) for name, value in zip(names, inputs, strict=True)}
        graph = onnx.helper.make_graph(
            [node],
            "run_node",
            [onnx.helper.make_value_info(name, type_proto_of(value)) for name, value in feeds.items()],
            [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.output if name],
        )
        imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        model = onnx.helper.make_model(graph, opset_imports=imports)
        return IngotBackendRep(InferenceSession(model, **kwargs)).run(feeds)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The CPU."""
        try:
            return Device(device).type == DeviceType.CPU
        except AttributeError:  # a device that onnx has no name for
            return False


def _newest(node: onnx.NodeProto) -> int:
    try:
        return onnx.defs.get_schema(node.op_type, domain=node.domain).since_version
    except onnx.defs.SchemaError:
        return 1  # the session knows the operator, or says that it does not


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (list, dict)) else np.asarray(value)


is_compatible = IngotBackend.is_compatible
prepare = IngotBackend.prepare
run_model = IngotBackend.run_model
run_node = IngotBackend.run_node
supports_device = IngotBackend.supports_device
