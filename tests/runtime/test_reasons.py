"""A run that fails says why in the model's own words, wherever it was noticed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import ingot

LONG = r"input 'ids' has shape \[2, 80\]: dimension 1, 'len', is 80, and the model was exported for 1 to 64\."


class Positions(nn.Module):
    """Has 64 places."""

    def __init__(self, asks: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(64, 8)
        self.asks = asks

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if self.asks and ids.shape[1] > 64:
            raise ValueError("too long")
        return self.table(torch.arange(ids.shape[1])) + ids[..., None]


@pytest.mark.parametrize("asks", [False, True])
def test_a_size_outside_of_its_declared_range_is_named(asks: bool) -> None:
    """The Gather that has no such place comes first, whether or not the graph checks the range behind it."""
    ids = ingot.Input("int64", ["batch", ingot.Dim("len", min=1, max=64)])
    program = ingot.export(Positions(asks), (ids,))
    assert program(np.ones((2, 64), np.int64)).shape == (2, 64, 8)
    with pytest.raises(ingot.InputError, match=LONG):
        program(np.ones((2, 80), np.int64))


def test_ranges_without_an_end_and_those_that_others_wrote() -> None:
    """`at least 3`; an entry of another form says nothing, and the error is the node's."""
    rows = ingot.Input("float32", [ingot.Dim("n", min=3)])

    def cut(x: torch.Tensor) -> torch.Tensor:
        return x[: x.shape[0] - 2].reshape(-1, 1) if x.shape[0] >= 3 else x

    program = ingot.export(cut, (rows,))
    with pytest.raises(ingot.InputError, match="is 2, and the model was exported for at least 3"):
        program(np.ones(2, np.float32))
    program.model.metadata_props["ingot.ranges"] = "[3]"
    with pytest.raises(ingot.IngotError, match=r"declared range|Reshape"):
        ingot.InferenceSession(program.model).run(None, {"x": np.ones(2, np.float32)})


def test_a_check_behind_what_fails_is_named() -> None:
    """An index that is outside is nobody's fault where the sizes are ones that the model refuses anyway."""

    def pairs(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        y = x[places]
        assert x.shape[0] % 2 == 0, "rows come in pairs"
        return y

    program = ingot.export(pairs, (torch.randn(4, 3), torch.tensor([1, 2])))
    x = np.ones((3, 3), np.float32)
    with pytest.raises(ingot.ShapeError, match=r"assert x\.shape\[0\] % 2 == 0.* does not hold"):
        program(x, np.array([5]))
    with pytest.raises(ingot.InputError, match="an index is outside its dimension"):
        program(np.ones((4, 3), np.float32), np.array([5]))


def test_a_model_without_checks_says_what_its_node_says() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 3] x, int64[m] i) => (float[m, 3] y) { y = Gather <axis = 0> (x, i) }""")
    session = ingot.InferenceSession(model)
    with pytest.raises(ingot.InputError, match="Gather") as caught:
        session.run(None, {"x": np.ones((2, 3), np.float32), "i": np.array([9])})
    assert caught.value.__cause__ is None
