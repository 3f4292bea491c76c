"""Checks of tensors, and arguments of torch functions that data makes None."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import _assert
from torch.nn.functional import scaled_dot_product_attention

import ingot
from ingot.capture import recording
from tests.capture.support import OrtError, ort_runner, parity


def test_a_check_of_all_elements_is_in_the_graph() -> None:
    """torch._check_tensor_all: the run fails where an element does not hold, as the module's call does."""

    def root(x: torch.Tensor) -> torch.Tensor:
        torch._check_tensor_all(x >= 0, lambda: "negative")
        return x.sqrt()

    program = ingot.export(root, (torch.rand(3),))
    assert [a.status for a in program.assumptions if a.kind == "condition"] == ["checked"]
    np.testing.assert_allclose(program(torch.tensor([4.0, 9.0])), [2.0, 3.0])
    with pytest.raises(ingot.IngotError):
        program(torch.tensor([1.0, -1.0]))


def test_torch_assert_is_an_assertion() -> None:
    """Of a size and of data: it was dropped where a size was asked for."""

    def f(x: torch.Tensor) -> torch.Tensor:
        torch._assert(x.shape[0] > 1, "two rows at least")
        torch._assert(x.shape[1] == 2, "two columns")
        torch._assert(x.sum() > 0, "positive in all")
        return x * 2

    program = ingot.export(f, (torch.ones(3, 2),))
    assert [str(d) for d in program.model.graph.inputs[0].shape or ()] == ["x_batch", "2"]
    np.testing.assert_array_equal(program(torch.ones(2, 2)), np.full((2, 2), 2.0))
    for wrong in (torch.ones(1, 2), -torch.ones(2, 2)):
        with pytest.raises(ingot.ShapeError, match=r"torch\._assert"):
            program(wrong)

    with pytest.raises(ingot.ExportError, match=r"refuses its example \(x float32 \[3, 1\]\): .*two columns"):
        ingot.export(f, (torch.ones(3, 1),))


def causal_or_masked(q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mask is left out where it says no more than the flag."""
    is_causal = bool((mask == torch.triu(torch.full_like(mask, float("-inf")), 1)).all())
    chosen: torch.Tensor | None = None
    if not is_causal:
        chosen = mask
    return scaled_dot_product_attention(q, q, q, chosen, 0.0, is_causal)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("scripted", [False, True])
def test_a_mask_where_data_does_not_make_attention_causal(scripted: bool) -> None:
    def call(batch: int, n: int, causal: bool) -> tuple[torch.Tensor, ...]:
        mask = torch.triu(torch.full((n, n), float("-inf")), 1) if causal else torch.randn(n, n)
        return torch.randn(batch, n, 8), mask

    made = torch.jit.script(causal_or_masked) if scripted else causal_or_masked
    parity(made, call(2, 5, True), call(1, 1, False), call(3, 4, False), call(2, 7, True), call(1, 9, False))


def test_a_mask_that_data_makes_none() -> None:
    """Attention without a mask is another call, on the other side of an If."""

    class Masked(torch.nn.Module):
        def forward(self, q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            chosen = mask if mask.sum() > 0 else None
            return scaled_dot_product_attention(q, q, q, attn_mask=chosen)

    module, q = Masked(), torch.randn(2, 5, 8)
    program = ingot.export(module, (q, torch.ones(5, 5)))
    for mask in (torch.eye(5), -torch.eye(5), torch.zeros(5, 5)):
        torch.testing.assert_close(torch.from_numpy(program(q, mask)), module(q, mask))


def test_an_error_may_say_numbers_of_data() -> None:
    """They stand in the check's text as an ellipsis, whatever format they are given."""

    def pairs(x: torch.Tensor) -> torch.Tensor:
        kept, most = x[x[:, 0] > 0], x.max().item()
        if kept.shape[0] % 2:
            raise ValueError(f"{kept.shape[0]:5d} rows of {x.shape[1]}, up to {most:.2f} or {most * 2!r}")
        return kept.reshape(2, -1)

    even, odd = torch.tensor([[1.0, 2], [2, 3], [-1, 0]]), torch.tensor([[1.0, 2], [-2, 3], [-1, 0]])
    captured = parity(pairs, (even,), (even.repeat(3, 2),), (-even[:2],))
    said = [a.what for a in captured.assumptions if a.kind == "condition"]
    assert said == ["not ValueError(… rows of 2, up to … or …): `if kept.shape[0] % 2:`"]
    with pytest.raises(OrtError):
        ort_runner(captured.model)({"x": odd.numpy()}, captured.output_names)


Windows = Callable[[torch.Tensor], torch.Tensor]


def even(x: torch.Tensor) -> torch.Tensor:
    _assert(x.shape[1] % 2 == 0, f"{x.shape[1]} columns must be divisible by {2}, of {x.shape}")
    torch._assert(
        x.shape[0] > 0,
        f"{x.shape[0]:3d} rows of a tensor are too few for {x!r}",
    )
    return x.unflatten(1, (-1, 2)).sum(2)


class Even(torch.nn.Module):
    """Its code is rewritten, as it asks what a size is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 2 if x.shape[0] > 4 else x
        _assert(x.shape[1] % 2 == 0, f"{x.shape[1]} columns are odd")
        return x.unflatten(1, (-1, 2)).sum(2)


@pytest.mark.parametrize("windows", [even, Even()], ids=["as it is", "rewritten"])
def test_the_message_of_an_assertion_is_no_question(
    windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads it while it holds: the model is not recorded with other numbers to see who does."""
    monkeypatch.setattr(recording, "without_texts", lambda *_: pytest.fail("was recorded once more"))
    x = torch.randn(3, 4)
    parity(windows, (x,), (torch.randn(1, 2),), (torch.randn(7, 6),))
    with pytest.raises(ingot.ExportError, match="5 columns"):
        ingot.export(windows, (torch.randn(3, 5),))


def kept_text(x: torch.Tensor) -> torch.Tensor:
    text = f"{x.shape[0]} rows"
    _assert(x.shape[0] > 0, text)
    return x * len(text)


def written_inside(x: torch.Tensor) -> torch.Tensor:
    _assert(x.shape[0] > 0, f"{(text := str(x.shape[0]))} rows")
    return x * len(text)


def own(x: torch.Tensor) -> torch.Tensor:
    def _assert(_: Any, said: str) -> int:
        return len(said)

    return x * _assert(x.shape[0] > 0, f"{x.shape[0]} rows")


def caught(x: torch.Tensor) -> torch.Tensor:
    try:
        _assert(x.shape[1] == 3, f"{x.shape[0]} rows")
    except AssertionError as error:
        return x * len(str(error))
    return x


@pytest.mark.parametrize("reads", [kept_text, written_inside, own, caught])
def test_a_message_that_somebody_reads_decides(reads: Windows) -> None:
    """Where it has another way out, or an `except` may catch it, another recording shows that it matters."""
    with pytest.raises(ingot.DataDependentError, match="into a string, and the model depends on the string"):
        ingot.export(reads, (torch.randn(3, 4),))


def require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def test_a_text_beside_a_side_that_fails() -> None:
    """The call is tried for either answer to `n > 7`, of which one fails. That was known when the model was
    recorded with other numbers in its texts: values had other names, and the text was taken to decide.
    """

    def shown(x: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        require(x.dim() >= 1, f"no axes: {x.shape}")
        n = x.shape[0]
        kept = 3 if n > 7 else n
        y = scales.expand(n)[:kept] + x[:, 0].reshape(kept)
        return y * 2 if x.shape[1] == 5 else y

    def call(n: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(n, columns), torch.randn(n)

    captured = parity(shown, call(2, 3), call(4, 5), call(7, 1), call(1, 5))
    assert [a.status for a in captured.assumptions if "strings" in a.what] == ["proved"]
