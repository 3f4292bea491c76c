"""The zoo: a name is always the same numbers, whatever else drew random ones before."""

from __future__ import annotations

import pytest
import torch

from benchmarks.zoo import build


@pytest.mark.parametrize("name", ["mlp", "segformer_b0"])  # the second drops paths at random while training
def test_a_model_is_built_the_same_again(name: str) -> None:
    one, inputs = build(name)
    torch.rand(3)
    other, same = build(name)
    _, more = build(name, 3)
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for key, value in inputs.items():
        assert torch.equal(value, same[key])
        assert more[key].shape == (3, *value.shape[1:])
