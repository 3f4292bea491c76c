"""com.microsoft's rarer operators against onnxruntime: several streams, blocks of attention, masked pools."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import ingot
from ingot.errors import UnsupportedOperatorError

R = np.random.default_rng(5)
B, S, C, H = 2, 5, 3, 16


def f(*shape: int) -> np.ndarray:
    return R.standard_normal(shape).astype(np.float32)


def compare(
    op: str,
    arrays: list[np.ndarray | None],
    outputs: int = 1,
    constant: tuple[int, ...] = (),
    in_place: dict[int, int] | None = None,
    **attributes: Any,
) -> None:
    """Both runtimes give the same. constant: the inputs that are initializers; in_place: outputs that
    onnxruntime writes over inputs.
    """
    in_place = in_place or {}
    there = [(i, a) for i, a in enumerate(arrays) if a is not None]
    graph = helper.make_graph(
        [
            helper.make_node(
                op,
                [f"i{i}" if a is not None else "" for i, a in enumerate(arrays)],
                [f"o{i}" for i in range(outputs)],
                domain="com.microsoft",
                **attributes,
            )
        ],
        "g",
        [
            helper.make_tensor_value_info(f"i{i}", helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim)
            for i, a in there
            if i not in constant
        ],
        [onnx.ValueInfoProto(name=f"o{i}") for i in range(outputs)],
        [numpy_helper.from_array(a, f"i{i}") for i, a in there if i in constant],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    feed = {f"i{i}": a for i, a in there if i not in constant}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), options)
    binding = theirs.io_binding()
    values = {n: onnxruntime.OrtValue.ortvalue_from_numpy(a.copy()) for n, a in feed.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for i in range(outputs):
        if i in in_place:
            binding.bind_ortvalue_output(f"o{i}", values[f"i{in_place[i]}"])
        else:
            binding.bind_output(f"o{i}")
    theirs.run_with_iobinding(binding)
    want = binding.copy_outputs_to_cpu()
    got = ingot.InferenceSession(model).run(None, feed)
    for number, (a, b) in enumerate(zip(got, want, strict=True)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"output {number}"
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * max(1.0, np.abs(b).max(initial=0)))


@pytest.mark.parametrize("scale", [None, (H,), (C, H), (C * H,)])
@pytest.mark.parametrize("flat", [False, True])
def test_branches_are_normalised_by_themselves(scale: tuple[int, ...] | None, flat: bool) -> None:
    x = f(B, S, C * H) if flat else f(B, S, C, H)
    weights = None if scale is None else f(*scale)
    compare("BranchwiseRMSNorm", [x, weights], num_branches=C if flat else 0, epsilon=1e-3)


@pytest.mark.parametrize("gates", [(C,), (C, 1), (C, H)])
@pytest.mark.parametrize("flat", [False, True])
def test_streams_are_mixed(gates: tuple[int, ...], flat: bool) -> None:
    x = f(B, S, C * H) if flat else f(B, S, C, H)
    branches = {"num_branches": C} if flat else {}
    compare("HyperConnectionPreMix", [x, f(B, S, *gates)], reduction_scale=0.5, **branches)
    for mix in (None, f(B, S, C, C)):
        compare("HyperConnectionPostMix", [x, f(B, S, H), f(B, S, *gates), mix], **branches)


def test_the_gate_of_an_engram() -> None:
    arrays = [f(B, S, C, H), f(B, S, C, H), f(B, S, H), f(C, H), f(C, H)]
    compare("EngramGate", arrays)
    compare("EngramGate", [*arrays, f(C, H)], 2, epsilon=1e-2)


def test_words_are_embedded_by_their_letters() -> None:
    words = R.integers(1, 20, (7, 9)).astype(np.int32)
    words[1, 4:], words[2, 1:], words[3, 2] = 0, 0, 0
    compare("WordConvEmbedding", [words, f(6, 1, 3, 4), f(6), f(20, 4)], constant=(1, 2, 3))


@pytest.mark.parametrize("shape", [(2, 3, 9), (2, 3, 6, 7), (1, 2, 4, 5, 3)])
def test_a_pool_stops_where_its_mask_ends(shape: tuple[int, ...]) -> None:
    rank = len(shape) - 2
    for kernel, strides, pads in ((2, 1, 0), (3, 2, 1)):
        mask = (R.random((1, 1, *shape[2:])) < 0.7).astype(np.int32)
        mask[0, 0, 0] = 1
        attributes = {"kernel_shape": [kernel] * rank, "strides": [strides] * rank, "pads": [pads] * 2 * rank}
        compare("MaxpoolWithMask", [f(*shape), mask], **attributes)


#: Two layouts of blocks: each row of blocks sees itself and some before it.
LAYOUTS = np.array(
    [
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]],
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]],
    ]
)


def blocks() -> tuple[np.ndarray, np.ndarray]:
    starts = np.concatenate([np.zeros((2, 1), int), LAYOUTS.sum(2).cumsum(1)], 1).astype(np.int32)
    columns = np.full((2, starts[:, -1].max()), -1, np.int32)
    for layout, row in zip(LAYOUTS, columns, strict=True):
        found = layout.nonzero()[1]
        row[: len(found)] = found
    return starts, columns


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rotary", [0, 1])
@pytest.mark.parametrize(("rows", "total"), [(40, 40), (1, 37)])
def test_blocks_of_attention(rows: int, total: int, rotary: int, packed: bool) -> None:
    n, k, size, room = 4, 2, 16, 64
    parts = [f(1, rows, heads * size) for heads in (n, k, k)]
    given: list[np.ndarray | None] = [np.concatenate(parts, 2), None, None] if packed else [*parts]
    past = [f(1, k, room, size), f(1, k, room, size)]
    tables = [np.cos(f(room, size // 2)), np.sin(f(room, size // 2))] if rotary else []
    lengths = [np.array([total], np.int32), np.array([total], np.int32)]
    compare(
        "SparseAttention",
        [*given, *past, *blocks(), *lengths, *tables],
        3,
        constant=(5, 6),
        in_place={1: 3, 2: 4},
        num_heads=n,
        kv_num_heads=k,
        sparse_block_size=16,
        do_rotary=rotary,
    )


def test_blocks_that_are_computed_are_refused() -> None:
    parts = [f(1, 8, heads * 16) for heads in (4, 2, 2)]
    past = [f(1, 2, 64, 16), f(1, 2, 64, 16)]
    lengths = [np.array([8], np.int32), np.array([8], np.int32)]
    with pytest.raises(UnsupportedOperatorError, match=r"SparseAttention.*must be constants"):
        compare(
            "SparseAttention",
            [*parts, *past, *blocks(), *lengths],
            3,
            in_place={1: 3, 2: 4},
            num_heads=4,
            kv_num_heads=2,
            sparse_block_size=16,
        )


def test_which_operators_are_unknown() -> None:
    """Those that docs/operators.md lists."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

    from ingot.ops.registry import find
    from ingot.passes.contrib import DOMAIN, is_rewritten

    kernels = [k for k in get_all_opkernel_def() if k.domain == DOMAIN and "CPU" in k.provider]
    unknown: set[str] = set()
    for name in {kernel.op_name for kernel in kernels if not is_rewritten(kernel.op_name)}:
        try:
            find(DOMAIN, name)
        except UnsupportedOperatorError:
            unknown.add(name)
    assert unknown == {
        *("AttnLSTM", "BifurcationDetector", "GatedDeltaNet", "GatherPacked", "MatMulFpQ4"),
        *("MoEGroupRouter", "NGramHashMapping", "SparseToDenseMatMul", "VarlenCausalConvWithState"),
        *("VarlenNGramHashMapping", "WhisperBeamSearch"),
    }
