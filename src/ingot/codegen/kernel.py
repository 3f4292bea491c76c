"""A kernel as a name: the generator that emits it and the parameters it is emitted with. Hashable, cheap, not
yet code.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from ingot.codegen.builder import Builder
from ingot.codegen.machine import Machine

_GENERATORS: dict[str, Generator] = {}
#: Every kernel that was ever named, by its generator and parameters: a plan names the same ones many times.
#: Parameters in another order are another key of the same kernel.
_KERNELS: dict[tuple[str, tuple[tuple[str, Any], ...]], Kernel] = {}


@dataclass(frozen=True, slots=True)
class Generator:
    """A Python function that emits a kernel. Calling it with parameters names one kernel; nothing is emitted
    yet.
    """

    name: str
    arguments: tuple[str, ...]
    emit: Callable[..., None]

    def __call__(self, **params: Hashable) -> Kernel:
        key = (self.name, tuple(params.items()))
        kernel = _KERNELS.get(key)
        if kernel is None:
            ordered = tuple(sorted(params.items()))
            made = Kernel(self.name, ordered)
            kernel = _KERNELS[key] = _KERNELS.setdefault((self.name, ordered), made)
        return kernel


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """One kernel: a generator's name and its parameters. There is one of each (a `Generator` makes it), so
    that Python tells them apart without looking at the parameters.
    """

    generator: str
    params: tuple[tuple[str, Any], ...]
    #: the names of the slots of `args`, in order
    arguments: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        own = _GENERATORS[self.generator].arguments
        object.__setattr__(self, "arguments", own + dict(self.params).get("operands", ()))

    def assembly(self, machine: Machine, symbol: str = "kernel") -> str:
        """Emit it: a module in LLVM's assembly language with one external function, `symbol`."""
        params = dict(self.params)
        builder = Builder(symbol, machine, self.arguments)
        _GENERATORS[self.generator].emit(builder, **params)
        return builder.finish()


def kernel(*arguments: str) -> Callable[[Callable[..., None]], Generator]:
    """Decorator: `emit(builder, **params)` emits a kernel whose `args` slots are `arguments`.

    A generator whose number of slots depends on its parameters takes the further names as the parameter
    `operands`.
    """

    def register(emit: Callable[..., None]) -> Generator:
        name = f"{emit.__module__.removeprefix('ingot.')}.{emit.__name__}"
        generator = _GENERATORS[name] = Generator(name, arguments, emit)
        return generator

    return register
