"""Core ATen: each overload that torch tags as core is called, exported and compared, or refused by name.

What the tag lists grows with torch: a new overload fails `test_every_overload_is_here` until it has a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.support import ort_runner, parity

torch.manual_seed(0)
ATEN: Any = torch.ops.aten


def a(*shape: int) -> torch.Tensor:
    """Within (0, 1): in the domain of every function here."""
    return torch.rand(shape or (3, 4)) * 0.9 + 0.05


def n(*shape: int) -> torch.Tensor:
    """Integers 1 to 3."""
    return torch.randint(1, 4, shape or (3, 4))


def t(*shape: int) -> torch.Tensor:
    """Truth values."""
    return torch.rand(shape or (3, 4)) > 0.5


X, IMAGE, VOLUME = a(), a(2, 4, 6, 8), a(1, 2, 4, 5, 6)
NO, SOME = [False] * 3, [True] * 3
STATISTICS = (a(4), a(4), a(4), a(4))

UNARY = """
    _to_copy abs acos alias amax amin any argmax argmin asin asinh atan atanh ceil clone cos cosh elu erf
    exp expm1 floor gelu hardtanh isinf isnan leaky_relu log log10 log1p log2 logical_not mean neg nonzero
    prod reciprocal relu round rsqrt sigmoid sign sin sinh sqrt tan tanh trunc
""".split()  # noqa: SIM905  (so many words read better so)
BINARY = ("add", "sub", "mul", "div", "eq", "ne", "ge", "gt", "le", "lt", "fmod", "remainder")

#: One call of each overload, by the name that torch prints.
CALLS: dict[str, tuple[Any, ...]] = {
    **{f"{name}.default": (X,) for name in UNARY},
    "acosh.default": (X + 1,),
    "bitwise_not.default": (n(),),
    **{f"{op}.Tensor": (X, a()) for op in BINARY},
    **{f"{op}.Scalar": (X, 0.4) for op in BINARY},
    **{f"bitwise_{op}.Tensor": (n(), n()) for op in ("and", "or", "xor")},
    **{f"bitwise_{op}.Scalar": (n(), 2) for op in ("and", "or", "xor")},
    **{f"logical_{op}.default": (t(), t()) for op in ("and", "or", "xor")},
    **{f"{op}.default": (X, a()) for op in ("atan2", "maximum", "minimum")},
    "_adaptive_avg_pool2d.default": (IMAGE, [4, 3]),
    "_adaptive_avg_pool2d_backward.default": (a(2, 4, 4, 3), IMAGE),
    "_adaptive_avg_pool3d.default": (VOLUME, [2, 3, 4]),
    "_cdist_forward.default": (a(3, 4), a(5, 4), 2.0, None),
    "_log_softmax.default": (X, 1, False),
    "_native_batch_norm_legit.no_stats": (IMAGE, a(4), a(4), True, 0.1, 1e-5),
    "_native_batch_norm_legit_no_training.default": (IMAGE, *STATISTICS, 0.1, 1e-5),
    "_pdist_forward.default": (X, 2.0),
    "_softmax.default": (X, 1, False),
    "adaptive_avg_pool1d.default": (a(2, 3, 8), [3]),
    "addmm.default": (a(5), a(3, 4), a(4, 5)),
    "any.dim": (t(), 1),
    "any.dims": (t(), [0, 1]),
    "as_strided.default": (X, [2, 3], [4, 1], 1),
    "avg_pool1d.default": (a(2, 3, 8), [3], [2]),
    "avg_pool2d.default": (IMAGE, [3, 2], [2, 2], [1, 1], True, False),
    "avg_pool2d_backward.default": (a(2, 4, 4, 5), IMAGE, [3, 2], [2, 2], [1, 1], True, False, None),
    "avg_pool3d.default": (VOLUME, [2, 2, 2]),
    "bmm.default": (a(2, 3, 4), a(2, 4, 5)),
    "cat.default": ([X, a()], 1),
    "clamp.Tensor": (X, a() / 2, a()),
    "clamp.default": (X, 0.2, 0.6),
    "col2im.default": (a(1, 12, 12), [4, 5], [2, 2], [1, 1], [0, 0], [1, 1]),
    "constant_pad_nd.default": (X, [1, -1, 2, 0], 0.5),
    "convolution.default": (IMAGE, a(6, 2, 3, 3), a(6), [2, 1], [1, 0], [1, 2], False, [0, 0], 2),
    "convolution_backward.default": (
        a(2, 6, 3, 4), IMAGE, a(6, 2, 3, 3), [6], [2, 1], [1, 0], [1, 2], False, [0, 0], 2, SOME,
    ),
    "copy.default": (X, a()),
    "cumsum.default": (X, 1),
    "diagonal.default": (X, 1),
    "div.Scalar_mode": (X, 0.3),
    "div.Tensor_mode": (X, a()),
    "embedding.default": (a(5, 3), n()),
    "embedding_dense_backward.default": (a(3, 4, 2), n(), 5, 2, False),
    "eq.Scalar": (n(), 2),
    "expand.default": (a(3, 1), [2, 3, 4]),
    "fill.Scalar": (X, 2.5),
    "flip.default": (X, [0, -1]),
    "full_like.default": (X, 2.5),
    "gather.default": (X, 1, n(3, 2)),
    "grid_sampler_2d.default": (IMAGE, a(2, 3, 5, 2) * 2 - 1, 0, 0, False),
    "index.Tensor": (X, [None, n(2, 2)]),
    "index_put.default": (X, [n(2) - 1], a(2, 4)),
    "index_select.default": (X, 1, n(5)),
    "masked_scatter.default": (X, t(), a(12)),
    "max.dim": (X, 1),
    "max_pool2d_with_indices.default": (IMAGE, [2, 3]),
    "max_pool2d_with_indices_backward.default": (
        a(2, 4, 3, 4), IMAGE, [2, 2], [2, 2], [0, 0], [1, 1], False,
        torch.nn.functional.max_pool2d(IMAGE, 2, return_indices=True)[1],
    ),
    "max_pool3d_with_indices.default": (VOLUME, [2, 2, 2]),
    "mean.dim": (X, [1]),
    "min.dim": (X, 1),
    "mm.default": (X, a(4, 2)),
    "native_dropout.default": (X, 0.5, False),
    "native_group_norm.default": (IMAGE, a(4), a(4), 2, 4, 48, 2, 1e-5),
    "native_group_norm_backward.default": (IMAGE, a(2, 4, 6, 8), a(2, 2), a(2, 2), a(4), 2, 4, 48, 2, SOME),
    "native_layer_norm.default": (X, [4], a(4), a(4), 1e-5),
    "native_layer_norm_backward.default": (X, a(), [4], a(3, 1), a(3, 1), a(4), a(4), SOME),
    "permute.default": (VOLUME, [0, 3, 1, 4, 2]),
    "pow.Scalar": (2.5, X),
    "pow.Tensor_Scalar": (X, 2.5),
    "pow.Tensor_Tensor": (X, a()),
    "prod.dim_int": (X, 1),
    "reflection_pad1d.default": (X, [1, 2]),
    "reflection_pad2d.default": (IMAGE, [1, 2, 0, 3]),
    "reflection_pad3d.default": (VOLUME, [1, 2, 0, 3, 1, 0]),
    "repeat.default": (X, [2, 1, 3]),
    "replication_pad2d.default": (IMAGE, [1, 2, 0, 3]),
    "replication_pad3d.default": (VOLUME, [1, 2, 0, 3, 1, 0]),
    "scatter.src": (X, 1, n(3, 1), a(3, 2)),
    "scatter.value": (X, 1, n(3, 1), 2.5),
    "scatter_add.default": (X, 1, n(), a()),
    "scatter_reduce.two": (X, 1, n(), a(), "mean"),
    "select.int": (X, 1, -2),
    "select_scatter.default": (X, a(3), 1, 2),
    "slice.Tensor": (X, 1, 1, None, 2),
    "slice_scatter.default": (X, a(3, 2), 1, 0, 4, 2),
    "sort.default": (X, 0, True),
    "split_with_sizes.default": (X, [1, 3], 1),
    "squeeze.dim": (a(3, 1, 2), 1),
    "squeeze.dims": (a(1, 3, 1), [0, 2]),
    "sum.dim_IntList": (X, [0], True),
    "topk.default": (X, 2),
    "unsqueeze.default": (X, 1),
    "upsample_bilinear2d.vec": (IMAGE, [9, 5], False, None),
    "upsample_nearest2d.vec": (IMAGE, None, [2.0, 1.5]),
    "var.correction": (X, [1]),
    "var.dim": (X, [1], False),
    "view.default": (X, [2, 6]),
    "where.self": (t(), X, a()),
}  # fmt: skip
KEYWORDS: dict[str, dict[str, Any]] = {
    "_to_copy.default": {"dtype": torch.float64},
    "div.Scalar_mode": {"rounding_mode": "floor"},
    "div.Tensor_mode": {"rounding_mode": "trunc"},
    "var.correction": {"correction": 2},
}


def _in_training(x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor) -> Any:
    mean, var = mean.clone(), var.clone()
    return ATEN._native_batch_norm_legit(x, None, None, mean, var, True, 0.1, 1e-5), mean, var


def _into(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    made = torch.zeros(3, 4)
    ATEN.atan2.out(x, y, out=made)
    return made


#: Those that are about more than one call of tensors.
PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "_native_batch_norm_legit.default": (_in_training, (IMAGE, a(4), a(4))),
    "atan2.out": (_into, (X, a())),
    "_embedding_bag.default": (
        lambda w, i: ATEN._embedding_bag(w, i, torch.tensor([0, 2, 5]))[0], (a(5, 3), n(6)),
    ),
    "_fft_r2c.default": (lambda x: torch.view_as_real(ATEN._fft_r2c(x, [1], 0, True)), (X,)),
    "_fft_c2r.default": (lambda x: ATEN._fft_c2r(ATEN._fft_r2c(x, [1], 0, True), [1], 2, 4), (X,)),
    "_local_scalar_dense.default": (lambda x, m: x * ATEN._local_scalar_dense(m), (X, torch.tensor(3))),
    "arange.start_step": (lambda x: ATEN.arange.start_step(1, x.shape[1], 2), (X,)),
    "full.default": (lambda x: ATEN.full([2, 3], 1.5) + x.sum(), (X,)),
    "scalar_tensor.default": (lambda x: ATEN.scalar_tensor(x.shape[0]) + x, (X,)),
    "sym_numel.default": (lambda x: x * ATEN.sym_numel(x), (X,)),
    "sym_size.int": (lambda x: x * ATEN.sym_size.int(x, 1), (X,)),
    "sym_stride.int": (lambda x: x * ATEN.sym_stride.int(x, 0), (X,)),
    "sym_storage_offset.default": (lambda x: x + ATEN.sym_storage_offset(x), (X,)),
    "sym_is_contiguous.default": (lambda x: x + 1 if ATEN.sym_is_contiguous(x) else x, (X,)),
}  # fmt: skip

#: Numbers that are drawn, or are whatever stands in memory: only what they look like can be compared.
DRAWN: dict[str, Callable[..., Any]] = {
    "rand.default": lambda x: ATEN.rand([2, x.shape[0]]),
    "randn.default": lambda x: ATEN.randn([2, x.shape[0]]),
    "randperm.default": lambda x: ATEN.randperm(x.shape[0]),
    "empty.memory_format": lambda x: ATEN.empty.memory_format([2, x.shape[0]]),
    "empty_strided.default": lambda x: ATEN.empty_strided([2, 3], [3, 1]) + 0 * x.sum(),
}


#: Refused, with a word of the error.
REFUSED: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "resize_.default": (lambda x: ATEN.resize_(x.clone(), [2, 3]), (X,), "resize_"),
}


def core() -> set[str]:
    """Every overload that torch tags as core, by the name that it prints."""
    found: set[str] = set()
    for name in torch._C._dispatch_get_all_op_names():  # pyright: ignore[reportPrivateUsage]
        if not name.startswith("aten::"):
            continue
        packet, _, overload = name.removeprefix("aten::").partition(".")
        operator = getattr(getattr(ATEN, packet, None), overload or "default", None)
        if operator is not None and torch.Tag.core in operator.tags:
            found.add(str(operator).removeprefix("aten."))
    return found


def test_every_overload_is_here() -> None:
    """Called and compared, or refused by name: nothing that torch calls core is left out."""
    known = [*CALLS, *PROGRAMS, *DRAWN, *REFUSED]
    assert len(known) == len(set(known))
    found = core()
    assert found <= set(known), f"no call here: {sorted(found - set(known))}"
    assert set(known) - found == set(), f"not core any more: {sorted(set(known) - found)}"


def called(name: str) -> tuple[Callable[..., Any], tuple[torch.Tensor, ...]]:
    """A function of the call's tensors alone, and those."""
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(ATEN, packet), overload)
    tensors: list[torch.Tensor] = []

    def numbered(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            tensors.append(x)
            return _Place(len(tensors) - 1)
        return [numbered(v) for v in x] if isinstance(x, (list, tuple)) else x

    places = numbered(CALLS[name])

    def call(*given: torch.Tensor) -> Any:
        def filled(x: Any) -> Any:
            if isinstance(x, _Place):
                return given[x.at]
            return [filled(v) for v in x] if isinstance(x, list) else x

        return operator(*filled(places), **KEYWORDS.get(name, {}))

    return call, tuple(tensors)


class _Place:
    """Where a tensor stands among the arguments."""

    def __init__(self, at: int) -> None:
        self.at = at


@pytest.mark.parametrize("name", CALLS)
def test_overload(name: str) -> None:
    """Exports, and equals torch in onnxruntime."""
    function, tensors = called(name)
    parity(function, tensors, dynamic_shapes=None)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str) -> None:
    """The same for those that give or take numbers."""
    parity(*PROGRAMS[name], dynamic_shapes=None)


@pytest.mark.parametrize("name", DRAWN)
def test_drawn(name: str) -> None:
    """The result has torch's dtype and shape."""
    captured = capture(DRAWN[name], (X,), dynamic_shapes=None)
    (got,) = ort_runner(captured.model)({"x": X.numpy()}, captured.output_names)
    want = DRAWN[name](X)
    assert (got.shape, torch.from_numpy(got).dtype) == (tuple(want.shape), want.dtype)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """The error names the operator."""
    function, args, word = REFUSED[name]
    with pytest.raises(ExportError, match=word):
        capture(function, args, dynamic_shapes=None)
