"""A quantised module run again with the steps that the exported model chose: what is left when both round
alike.

PyTorch quantises x by `round(x * (1 / scale))`, QuantizeLinear by `round(x / scale)`; sums before it are
added in another order, and a quantised operator of PyTorch's adds integers. Where a number lies half way
between two steps but for its last digits, as the largest of a row that is quantised by its largest does,
the two choose different steps, and everything behind may be another number. Neither is wrong, so the module
is run once more, and at each of its quantisers goes on with the integers of the exported model, once each
of them is a step of its own scale, next to a number within `ROUNDING` of its own: elsewhere a quantiser may
differ by nothing. What the module then gives must be what the exported model gives, as for any other. The
operators on quantised tensors run as the float operators that they are exported as, and each is held to what
PyTorch's own gives for the same operands.
"""

# torch's operators and modes are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture.aten import INSTEAD
from ingot.capture.aten.quantised_tensor import Quantised
from ingot.capture.called import Called
from ingot.capture.overflow import loses, lost
from ingot.capture.quantisers import QUANTISERS
from ingot.capture.where import source_line

if TYPE_CHECKING:
    from ingot.capture.attempt import Capture

Array = npt.NDArray[Any]
Tensor = torch.Tensor
#: What float32 sums of two libraries differ by, as a part of the largest number of a quantiser.
ROUNDING = 2e-5


#: The name of a quantiser, what it gave, and the integers behind it where it gave numbers.
Steps = tuple[str, Array | None, Array | None]


class OtherError(Exception):
    """The module is not the exported model, or its calls are not those of the recording."""


class UnknownError(OtherError):
    """Nothing can be said: the module's quantisers are not those of the recording, one after another."""


class _Quantisers(Called):
    """Goes on with the integers found, where the module's own numbers are that near to them."""

    def __init__(self, found: Sequence[Steps]) -> None:
        super().__init__()
        self.found, self.at = found, 0
        self.free = False  # the module's own integers are taken
        self.last: Tensor | None = None  # operand of a quantiser, in steps
        self.forced = False

    @contextlib.contextmanager
    def left_alone(self) -> Generator[None]:
        """While entered, quantisers are the module's own."""
        self.free = True
        try:
            yield
        finally:
            self.free = False

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        row = QUANTISERS.get(name)
        if row is None or self.free:
            return out
        several = isinstance(out, (list, tuple))
        results = list(out) if several else [out]
        if [n for n, *_ in self.found[self.at : self.at + len(results)]] != [name] * len(results):
            raise UnknownError
        _, wanted, integers = self.found[self.at]
        self.at += len(results)
        with _disable_current_modes():
            read = row(*args, **kwargs)
            if read is None:
                return out
            self.last = read[0]
            if wanted is None:
                return out
            if tuple(wanted.shape) != tuple(self.last.shape):
                raise UnknownError
            plain = wanted.astype(np.float32) if wanted.dtype.kind == "V" else wanted  # bfloat16
            chosen = torch.from_numpy(np.ascontiguousarray(plain)).to(results[0].dtype)
            steps = read[1](chosen)
            exact = integers is None or _near(torch.from_numpy(integers.astype(np.float64)), steps)
            if not (exact and _whole(steps) and _near(self.last, steps)):
                raise _other(name)
            self.forced = self.forced or not torch.equal(chosen, results[0])
            results[0] = chosen
        return type(out)(results) if several else results[0]


def _other(name: str) -> OtherError:
    """An operator does not give what the exported model gives."""
    return OtherError(f"{name} at {source_line()}")


def _near(numbers: Tensor, steps: Tensor, besides: Any = 0.0) -> bool:
    """Whether each step is next to a number within rounding of the one that it stands for."""
    if not numbers.numel():
        return True
    reach = max(float(numbers.abs().max()), 1.0)
    return bool(((steps - numbers).abs() <= 0.5 + ROUNDING * reach + besides).all())


def _whole(steps: Tensor) -> bool:
    """Whether numbers that were quantised and back are steps of this scale, not of one nearby."""
    if not steps.numel():
        return True
    reach = max(float(steps.abs().max()), 1.0)
    return bool(((steps - steps.round()).abs() <= ROUNDING * reach).all())


class _Operators(TorchFunctionMode):
    """Operators on quantised tensors as the float operators that they are exported as."""

    def __init__(self, quantisers: _Quantisers) -> None:
        super().__init__()
        self.quantisers = quantisers
        self.lines: dict[str, None] = {}  # where an operator of PyTorch's own overflows

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _is_quantised(func) and not any(isinstance(a, Quantised) for a in _leaves((args, kwargs))):
            return func(*args, **kwargs)
        with _disable_current_modes():
            own = func(*_own(args), **_own(kwargs))
        call = INSTEAD.get(func) or partial(_by_itself, func)
        with self:
            return self._compared(own, _name(func), partial(call, *args, **kwargs))

    def _compared(self, own: Any, name: str, run: partial[Any]) -> Any:
        """What the float operator gives, once PyTorch's own operator gives the same."""
        quantisers = self.quantisers
        quantisers.last, quantisers.forced = None, False
        made = run()
        if isinstance(made, Quantised):
            steps = own.int_repr().double()
            numbers = made.integers.double() if quantisers.last is None else quantisers.last
            if not _near(numbers, steps):
                self._require_overflow(name, run.args, numbers, steps, made)
        elif isinstance(made, Tensor) and not _close(own, made):
            if not quantisers.forced:
                raise _other(name)
            with quantisers.left_alone():
                if not _close(own, run()):
                    raise _other(name)
        return made

    def _require_overflow(
        self, name: str, args: Any, numbers: Tensor, steps: Tensor, made: Quantised
    ) -> None:
        """Raises OtherError unless the sums of a layer are no further away than what overflows may take."""
        kind = name.removeprefix("quantized::").removesuffix("_relu")
        if kind != "linear" and not kind.startswith("conv"):
            raise _other(name)
        taken = lost(args[0], args[1], kind)
        if taken is None or not _near(numbers, steps, taken / float(made.scale)):
            raise _other(name)
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            if not loses(args[0], args[1], kind):
                raise _other(name)
        self.lines[
            f"what {name} of PyTorch loses at {source_line()}: on this processor it adds products in 16 "
            "bits, which overflow for activations that its calibration did not have; the model's sums are "
            "exact"
        ] = None


def _name(func: Any) -> str:
    return getattr(func, "_qualified_op_name", None) or getattr(func, "_name", "")


def _is_quantised(func: Any) -> bool:
    """Whether a function computes with PyTorch's own quantised tensors, whatever it is given."""
    return func in INSTEAD and (_name(func).startswith("quantized::") or func in _QUANTISED_FUNCTIONS)


_QUANTISED_FUNCTIONS = (
    torch.quantize_per_tensor,
    torch.quantize_per_channel,
    torch.quantize_per_tensor_dynamic,
)


def _by_itself(func: Any, *args: Any, **kwargs: Any) -> Any:
    return Quantised.__torch_function__(func, (), args, kwargs)


def _leaves(x: Any) -> Iterator[Any]:
    if isinstance(x, (list, tuple, dict)):
        for part in x.values() if isinstance(x, dict) else x:
            yield from _leaves(part)
    else:
        yield x


def _own(x: Any) -> Any:
    """Arguments with PyTorch's quantised tensors."""
    if isinstance(x, Quantised):
        return x.to_tensor()
    if isinstance(x, dict):
        return {k: _own(v) for k, v in x.items()}
    return type(x)(map(_own, x)) if isinstance(x, (list, tuple)) else x


def _close(own: Any, made: Tensor) -> bool:
    if not isinstance(own, Tensor) or own.shape != made.shape:
        return False
    if not own.numel():
        return True
    return bool((own.double() - made.double()).abs().max() <= ROUNDING * own.double().abs().max())


Run = Callable[[Sequence[ir.Value]], Sequence[Array]]


def steps_of(captured: Capture, run: Run, is_same: Callable[[Array], bool], output: ir.Value) -> list[Steps]:
    """The exported model's quantisers in the order of the recording, and what each gave in a run with a known
    output; None for a result that the model does not have, or that no such run was seen to give.

    A session may compute values that it has to give in another way than those that it need not, and round
    otherwise: only what is seen with the output as it was belongs to it.

    run: gives values of the model
    is_same: whether the output is as it was

    Raises:
        UnknownError: the model has none, or some are in branches and loops, whose runs have no such order.
    """
    recorder = captured.recording.recorder
    alive = {id(v) for node in captured.model.graph for v in node.outputs}
    values = [v if v is not None and id(v) in alive else None for _, v, _ in recorder.quantisers]
    behind = {id(v): _integers(v) for v in values if v is not None}
    if any(inside for _, _, inside in recorder.quantisers) or not any(v is not None for v in values):
        raise UnknownError
    seen = dict[int, Array]()
    both = [v for v in [*values, *behind.values()] if v is not None]
    left = [list({id(v): v for v in both}.values())]
    while left:
        asked = left.pop()
        *results, given = run([*asked, output])
        if is_same(given):
            seen |= zip(map(id, asked), results, strict=True)
        elif len(asked) > 1:
            middle = len(asked) // 2
            left += [asked[:middle], asked[middle:]]
    return [
        (name, seen.get(id(v)), seen.get(id(behind.get(id(v)))))
        for (name, _, _), v in zip(recorder.quantisers, values, strict=True)
    ]


def _integers(value: ir.Value) -> ir.Value | None:
    """What was dequantised to a value, if it was."""
    node = value.producer()
    return node.inputs[0] if node is not None and node.op_type == "DequantizeLinear" else None


@contextlib.contextmanager
def in_steps(found: Sequence[Steps]) -> Generator[dict[str, None]]:
    """While entered, a module's quantisers go on with these integers, one quantiser after another.

    Gives sentences on what else differs, which are complete afterwards.

    Raises:
        OtherError: its own are others, by more than rounding.
    """
    from ingot.capture.intercept import python_functions_run_as_they_are  # after a recording: cycles

    quantisers = _Quantisers(found)
    operators = _Operators(quantisers)
    with python_functions_run_as_they_are(), quantisers, operators:
        yield operators.lines
    if quantisers.at != len(found):
        raise UnknownError
