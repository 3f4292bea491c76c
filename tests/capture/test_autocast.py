"""torch.autocast: the casts of eager PyTorch on the CPU are part of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ingot.calls import ingot_runner
from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs.support import copied, positive, random

T = torch.Tensor
X = random(2, 4, 6, 6)
M = random(4, 4)


def _inside(function: Callable[[T], T], dtype: torch.dtype) -> Callable[[T], T]:
    def model(x: T) -> T:
        with torch.autocast("cpu", dtype=dtype):
            return function(x)

    return model


FUNCTIONS: dict[str, tuple[Callable[[T], Any], T]] = {
    "matmul": (lambda x: x @ M, M),
    "rmatmul": (lambda x: M @ x, M),
    "matmul_of_doubles": (lambda x: x.double() @ M.double(), M),
    "linear": (lambda x: F.linear(x, M, M[0]), M),
    "bmm": (lambda x: torch.bmm(x[None], M[None]), M),
    "addmm": (lambda x: torch.addmm(M, x, M), M),
    "einsum": (lambda x: torch.einsum("ij,jk->ik", x, M), M),
    "bilinear": (lambda x: F.bilinear(x, M, M[None]), M),
    "attention": (lambda x: F.scaled_dot_product_attention(x[None], x[None], M[None]), M),
    "conv2d": (lambda x: F.conv2d(x, torch.ones(3, 4, 3, 3) / 9), X),
    "conv_transpose2d": (lambda x: F.conv_transpose2d(x, torch.ones(4, 3, 2, 2) / 9), X),
    "conv_then_pool": (lambda x: F.max_pool2d(F.conv2d(x, torch.ones(3, 4, 3, 3) / 9), 2), X),
    "pool3d": (lambda x: F.adaptive_avg_pool3d((x @ x)[None], 1), X),
    "pool2d": (lambda x: F.adaptive_avg_pool2d(x @ x, 1), X),
    "softmax": (lambda x: torch.softmax(x @ M, -1), M),
    "layer_norm": (lambda x: F.layer_norm(x @ M, (4,)), M),
    "layer_norm_with_weight": (lambda x: F.layer_norm(x, (4,), M[0], M[1]), M),
    "layer_norm_of_a_product": (lambda x: F.layer_norm(x @ M, (4,), M[0], M[1]), M),
    "group_norm": (lambda x: F.group_norm(x @ x, 2, torch.ones(4), torch.zeros(4)), X),
    "batch_norm": (lambda x: F.batch_norm(x @ x, torch.zeros(4), torch.ones(4)), X),
    "silu": (lambda x: F.silu(x @ M), M),
    "cat_of_two_dtypes": (lambda x: torch.cat([x, x @ M]), M),
    "mse_loss": (lambda x: F.mse_loss(x @ M, M), M),
    "interpolate": (lambda x: F.interpolate(x @ x, scale_factor=2.0), X),
    "sum": (lambda x: (x @ M).sum(), M),
    "product": (lambda x: (x @ M).abs().prod(), M),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_casts_as_eager(name: str, dtype: torch.dtype) -> None:
    """The dtype and the values that eager gives, up to how a product of the lower precision is summed."""
    function, x = FUNCTIONS[name]
    model = _inside(function, dtype)
    expected = model(x)
    captured = capture(model, copied((x,)))
    output = captured.model.graph.outputs[0]
    names = {
        torch.bfloat16: "BFLOAT16",
        torch.float16: "FLOAT16",
        torch.float32: "FLOAT",
        torch.float64: "DOUBLE",
    }
    assert output.dtype is not None
    assert output.dtype.name == names[expected.dtype], f"eager gives {expected.dtype}"
    (got,) = ingot_runner(captured.model)({"x": x.numpy()}, captured.output_names)
    error = (torch.from_numpy(got.astype("float32")) - expected.float()).abs().max()
    assert error <= 4 * torch.finfo(dtype).eps * expected.float().abs().max()


class Net(nn.Module):
    """Some layers inside, some outside, one with autocast off again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: T) -> T:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = torch.relu(self.a(x))
            with torch.autocast("cpu", enabled=False):
                h = self.b(h.float())
            h = self.a(h) if h.sum() > 0 else self.a(-h)
        return self.b(h.float())


@pytest.mark.parametrize("sign", [1, -1])
def test_blocks_and_branches(sign: int) -> None:
    """A weight that was cast in one branch is cast in the other as well."""
    torch.manual_seed(0)
    model = Net().eval()
    captured = capture(model, (positive(5, 4),))
    run = ingot_runner(captured.model)
    for n in (5, 1, 3):
        x = positive(n, 4) * sign
        with torch.no_grad():
            expected = model(x)
        (got,) = run({"x": x.numpy()}, captured.output_names)
        assert (torch.from_numpy(got) - expected).abs().max() <= 0.02 * expected.abs().max()


def test_recurrent_layers_are_refused() -> None:
    """autocast casts some of the operators that they are made of."""
    layer = nn.LSTM(4, 4)
    with pytest.raises(ExportError, match=r"test_autocast.py:\d+"):
        capture(_inside(lambda x: layer(x)[0], torch.bfloat16), (M,))
