"""Which provider runs a model. One that cannot run here is an error, unless another was listed after it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, cast

from ingot.errors import ProviderError

NATIVE = "CPUExecutionProvider"

#: Names people ask for that exist elsewhere; asking for one is not a typing error.
_ELSEWHERE = (
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
    "ROCMExecutionProvider",
    "MIGraphXExecutionProvider",
    "OpenVINOExecutionProvider",
    "DnnlExecutionProvider",
    "CoreMLExecutionProvider",
    "DmlExecutionProvider",
    "QNNExecutionProvider",
    "XnnpackExecutionProvider",
    "AzureExecutionProvider",
    "WebGpuExecutionProvider",
)


def get_available_providers() -> list[str]:
    """The providers that can run on this machine, the preferred one first."""
    return [NATIVE]


def _name(provider: Any) -> str:
    """Of an entry: a name, or a name and options."""
    parts: Sequence[Any] = cast("Sequence[Any]", provider) if isinstance(provider, tuple) else (provider,)
    name = parts[0] if parts else None
    if not isinstance(name, str):
        raise ProviderError(
            f"`providers` has the entry {provider!r}; give names, such as {NATIVE!r}, or (name, options)"
        )
    return name


def choose(
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None,
    provider_options: Sequence[dict[str, Any]] | None = None,
) -> list[str]:
    """The providers of `providers` that will run the model, in order (default: all that are available).

    Raises ProviderError where none of them can, or one is no provider's name; warns for each that is passed
    over.
    """
    for name, given in (("providers", providers), ("provider_options", provider_options)):
        if given is not None and not isinstance(given, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ProviderError(f"`{name}` is of type {type(given).__name__}; give a list, or None")
    if provider_options is not None and (providers is None or len(provider_options) != len(providers)):
        count = 0 if providers is None else len(providers)
        raise ProviderError(
            f"provider_options has {len(provider_options)} entries, providers has {count}; give one for each"
        )
    if providers is None:
        return get_available_providers()
    names = [_name(p) for p in ([providers] if isinstance(providers, str) else providers)]
    chosen: list[str] = []
    available = get_available_providers()
    for position, name in enumerate(names):
        if name in available:
            if name not in chosen:
                chosen.append(name)
            continue
        if name not in _ELSEWHERE:
            raise ProviderError(
                f"{name!r} is not the name of an execution provider; available here: {', '.join(available)}"
            )
        later = [n for n in names[position + 1 :] if n in available]
        if not later and not chosen:
            raise ProviderError(
                f"{name} is not available here, and no provider after it in `providers` is. "
                f"Available: {', '.join(available)}. List one of them after {name} to run there instead."
            )
        if later:
            warnings.warn(
                f"{name} is not available here; the model runs on {later[0]}", RuntimeWarning, stacklevel=4
            )
    if not chosen:
        raise ProviderError(f"`providers` is empty; name one of {', '.join(available)}, or leave it out")
    return chosen
