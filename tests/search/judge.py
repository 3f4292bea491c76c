"""Runs a case in Ingot, in ONNX Runtime and in onnx.reference, and says who agrees with whom."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.helper as h
import onnx.numpy_helper
import onnx.reference
import onnxruntime

import ingot
from tests.search.draw import FLOATS, Array, Case, Draw, dtype_of, tensor_type

#: Where onnx.reference is wrong or answers something else: below an opset, or always (None).
REFERENCE_WRONG: dict[str, int | None] = {
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), 13),  # flattens nothing
    **dict.fromkeys(
        ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less", "PRelu"), 7
    ),
    "BatchNormalization": 14,
    "Gemm": 7,
    "Selu": 6,
    "RoiAlign": None,
    "LpNormalization": None,
    "LpPool": None,
    "RNN": None,
    "GRU": None,
    "LSTM": None,
    "GlobalMaxPool": None,
    "TfIdfVectorizer": None,
    "LRN": None,
    "StringNormalizer": None,
    "ReduceSumSquare": None,
    "AveragePool": 7,
    "QLinearConv": None,
    "Shape": None,
}

#: Operators that onnx.reference computes in half precision throughout, where others round only the result.
IN_HALF = (
    *("Attention", "DeformConv", "LayerNormalization", "Mean", "MelWeightMatrix"),
    *("NegativeLogLikelihoodLoss", "ReduceL1", "ReduceLogSum", "RMSNormalization"),
)

TOLERANCE = {
    "float64": 1e-6,
    "float32": 2e-5,
    "float16": 4e-3,
    "bfloat16": 3e-2,
    "complex64": 1e-5,
    "complex128": 1e-9,
}


def reference_is_wrong(case: Case) -> bool:
    """Whether onnx.reference is known to answer something else."""
    if case.domain:
        return False
    below = REFERENCE_WRONG.get(case.op, 0)
    if below is None or case.opset < below:
        return True
    arrays = [v for v in case.inputs if isinstance(v, np.ndarray)]
    if case.op in IN_HALF:
        halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
        return case.attributes.get("output_datatype") in halves or any(
            v.dtype.name in ("float16", "bfloat16") for v in arrays
        )
    if case.op == "Unique":  # unsorted: it sorts all the same, or takes along the first axis
        unsorted = not case.attributes.get("sorted", 1)
        return unsorted and (case.outputs == 1 or case.attributes.get("axis", 0) != 0)
    if case.op == "StringSplit":  # of "" there is no part; str.split finds an empty one
        return bool(case.attributes.get("delimiter")) and bool((arrays[0] == "").any())
    if case.op in ("MaxPool", "AveragePool"):  # its sizes, or windows that end in what is only padding
        attributes = case.attributes
        is_low = attributes.get("auto_pad") == "SAME_LOWER" or not arrays[0].size
        return is_low or (case.op == "AveragePool" and attributes.get("ceil_mode") == 1)
    if case.op == "GridSample":  # it moves the place to the border, not its neighbours
        return case.attributes.get("mode") == "cubic" and case.attributes.get("padding_mode") == "border"
    if case.op == "QuantizeLinear":  # not a number is no integer
        return bool(np.isnan(arrays[0].astype(np.float32)).any())
    if case.op in ("Cast", "CastLike"):  # digits of a float; the truth of a text
        is_text = arrays[0].dtype == object
        return is_text if case.attributes.get("to") == onnx.TensorProto.BOOL else _writes_floats(case)
    # Complex numbers without the imaginary parts; lengths that count whole elements only.
    whole = case.opset < 19 or case.attributes.get("coordinate_transformation_mode") == "pytorch_half_pixel"
    return case.op == "Resize" and (arrays[0].dtype.kind == "c" or (whole and _has_part_of_an_element(case)))


def _writes_floats(case: Case) -> bool:
    """Whether floats become strings: ours are plain digits, and everybody has others."""
    x, target = case.inputs[0], case.attributes.get("to")
    like = case.inputs[1] if case.op == "CastLike" else None
    is_text = target == onnx.TensorProto.STRING or (like is not None and like.dtype == object)
    return is_text and x.dtype.kind not in "iubO"


def _has_part_of_an_element(case: Case) -> bool:
    """Whether Resize's scales make no whole length, where the mode counts with it."""
    x, scales = case.inputs[0], case.inputs[2] if len(case.inputs) > 2 else None
    modes = ("align_corners", "tf_crop_and_resize", "pytorch_half_pixel")
    if (
        scales is None
        or not scales.size
        or case.attributes.get("coordinate_transformation_mode") not in modes
    ):
        return False
    axes = case.attributes.get("axes") or range(x.ndim)
    lengths = scales * [x.shape[axis] for axis in axes]
    return bool((lengths != np.round(lengths)).any())


def ort_is_wrong(case: Case) -> bool:
    """Whether ONNX Runtime is known to answer something else, or to end the process."""
    x = case.inputs[0] if case.inputs else None
    if case.domain or not isinstance(x, np.ndarray):
        return False
    if case.op == "Unique":  # it ends the process for no elements, and takes a NaN for any number
        return x.size == 0 or (x.dtype.kind == "f" and bool(np.isnan(x).any()))
    if case.op == "AffineGrid":  # an axis of size 1 is at -1 in the definition, and not here
        sizes = np.asarray(case.inputs[1])
        return case.attributes.get("align_corners") == 1 and bool((sizes[2:] == 1).any())
    if case.op in ("RNN", "GRU", "LSTM"):
        # What is put into the last activation is not clipped; where nothing is read, the state is lost.
        lengths = case.inputs[4] if len(case.inputs) > 4 else None
        empty = lengths is not None and bool((np.asarray(lengths) == 0).any())
        return empty or (case.op == "LSTM" and "clip" in case.attributes)
    if case.op in ("Cast", "CastLike"):
        return _writes_floats(case)
    if case.op != "Resize":
        return False
    if "keep_aspect_ratio_policy" in case.attributes and min(case.attributes.get("axes") or [0]) < 0:
        return True
    mode, nearest = case.attributes.get("coordinate_transformation_mode"), case.attributes.get("nearest_mode")
    if mode == "tf_crop_and_resize" and nearest in ("ceil", "floor"):
        return True  # whole coordinates have errors in their last bit
    # It rounds the length after scaling before it counts with it, in every opset; onnx's own cases do not.
    is_new = case.opset >= 19 or case.attributes.get("antialias") == 1
    return is_new and mode != "pytorch_half_pixel" and _has_part_of_an_element(case)


@dataclass
class Judgement:
    """`kind`: agrees, wrong, crash, refused, alone (only Ingot runs it), peers (they disagree), nobody."""

    kind: str
    detail: str = ""


def element_type(array: Array) -> int:
    if array.dtype == object:
        return onnx.TensorProto.STRING
    return h.np_dtype_to_tensor_dtype(array.dtype)


def type_of(value: Any, shape: Sequence[Any] | None) -> onnx.TypeProto:
    if isinstance(value, list):
        inner = type_of(value[0], None) if value else h.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
        return h.make_sequence_type_proto(inner)
    return h.make_tensor_type_proto(element_type(value), shape)


def build(case: Case, draw: Draw | None = None) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The model and what to feed it. With a draw, some inputs are initializers, and some dimensions free."""
    names, inputs, initializers, feeds = [], [], [], {}
    for i, value in enumerate(case.inputs):
        if value is None:
            names.append("")
            continue
        name = f"i{i}"
        names.append(name)
        constant = i in case.constant or (draw is not None and i > 0 and draw.flag(0.3))
        if constant and not isinstance(value, list):
            initializers.append(onnx.numpy_helper.from_array(value, name))
            continue
        shape = None
        if not isinstance(value, list):
            free = draw is not None and draw.flag(0.4)
            shape = [f"{name}d{d}" if free else s for d, s in enumerate(value.shape)]
        inputs.append(h.make_value_info(name, type_of(value, shape)))
        feeds[name] = value
    while names and not names[-1]:
        names.pop()
    wanted = range(case.outputs) if case.named is None else case.named
    outputs = [f"o{i}" if i in wanted else "" for i in range(case.outputs)]
    node = h.make_node(case.op, names, outputs, "node", domain=case.domain, **case.attributes)
    made = [onnx.ValueInfoProto(name=name) for name in outputs if name]
    graph = h.make_graph([node], "g", inputs, made, initializers)
    main = case.opset if case.domain == "" else 21
    imports = [h.make_opsetid("", main)]
    if case.domain:
        imports.append(h.make_opsetid(case.domain, case.opset))
    return h.make_model(graph, opset_imports=imports, ir_version=12 if main >= 25 else 10), feeds


# ---- the three runtimes ------------------------------------------------------------------------------------


def run_ingot(model: onnx.ModelProto, feeds: dict[str, Any], plain: bool = False) -> list[Any]:
    options = ingot.SessionOptions()
    options.intra_op_num_threads = 1
    if plain:
        options.graph_optimization_level = ingot.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ingot.InferenceSession(model, options)
    return session.run(None, feeds)


def run_ort(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    given: dict[str, Any] = {}
    for name, value in feeds.items():
        if isinstance(value, np.ndarray) and value.dtype.kind not in "fiubOc":
            kind = element_type(value)
            given[name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(value, kind)
        else:
            given[name] = value
    if any(isinstance(v, onnxruntime.OrtValue) for v in given.values()):
        every = {
            k: v if isinstance(v, onnxruntime.OrtValue) else onnxruntime.OrtValue.ortvalue_from_numpy(v)
            for k, v in given.items()
        }
        return [v.numpy() for v in session.run_with_ort_values(None, every)]
    found = session.run(None, given)
    kinds = [tensor_type(output.type) or "" for output in session.get_outputs()]
    return [v.view(dtype_of(k)) if k.startswith("float8") else v for v, k in zip(found, kinds, strict=True)]


def run_reference(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return onnx.reference.ReferenceEvaluator(model).run(None, feeds)


# ---- comparing ---------------------------------------------------------------------------------------------


def difference(got: Any, want: Any, tolerance: float | None = None, by_form: bool = False) -> str | None:
    """What is different, None where nothing is."""
    if isinstance(want, list | tuple) or isinstance(got, list):
        if not isinstance(got, list | tuple) or not isinstance(want, list | tuple) or len(got) != len(want):
            return f"{type(got).__name__} for {type(want).__name__}, or other lengths"
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            found = difference(a, b, tolerance, by_form)
            if found:
                return f"[{i}]: {found}"
        return None
    if isinstance(want, dict) or isinstance(got, dict):
        if not isinstance(got, dict) or not isinstance(want, dict) or got.keys() != want.keys():
            return f"{got} for {want}"
        return difference(list(got.values()), list(want.values()), tolerance, by_form)
    if want is None or got is None:
        return None if got is want else f"{got!r} for {want!r}"
    if isinstance(want, str):
        return None if got == want else f"{got!r} for {want!r}"
    a, b = np.asarray(got), np.asarray(want)
    if a.shape != b.shape:
        return f"shape {a.shape} for {b.shape}"
    if b.dtype.kind in "OSU":
        return None if a.tolist() == b.tolist() else f"{a.ravel()[:5]} for {b.ravel()[:5]}"
    if a.dtype != b.dtype:
        return f"dtype {a.dtype} for {b.dtype}"
    if by_form or a.size == 0:
        return None
    if b.dtype.kind in "iub" or b.dtype.name.startswith(("int", "uint")):
        if np.array_equal(a, b):
            return None
        return f"{where(a, b, a != b)}"
    kind = np.complex128 if b.dtype.kind == "c" else np.float64
    x, y = a.astype(kind), b.astype(kind)
    finite = np.isfinite(y)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if not np.array_equal(same | finite, np.ones_like(finite)) or not np.isfinite(x[finite]).all():
        return f"NaN or Inf: {where(a, b, ~np.where(finite, np.isfinite(x), same))}"
    bound = TOLERANCE.get(b.dtype.name, 0.0) if tolerance is None else tolerance
    size = max(np.abs(y[finite]).max(initial=0.0), 1e-9)
    apart = np.abs(np.where(finite, x, 0) - np.where(finite, y, 0))
    if apart.max(initial=0.0) > bound * size:
        return f"{apart.max() / size:.2g} of {size:.3g}: {where(a, b, apart == apart.max())}"
    return None


def where(a: Array, b: Array, which: Array) -> str:
    places = np.argwhere(which)
    first = tuple(int(i) for i in places[0])
    return f"{a[first]} for {b[first]} at {list(first)}, {len(places)} of {a.size}"


def attempt(function: Any, *arguments: Any) -> tuple[Any, str | None, Exception | None]:
    try:
        return function(*arguments), None, None
    except Exception as error:
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", error


#: Operators for which onnx.reference answers in a dtype of its own, whatever it is given.
OTHER_DTYPES = ("AffineGrid", "BatchNormalization", "Det")


def as_typed(want: Any, got: Any) -> Any:
    """A peer's floats in the dtype of ours; anything else as it is."""
    arrays = isinstance(want, np.ndarray) and isinstance(got, np.ndarray)
    return want.astype(got.dtype) if arrays and {want.dtype.name, got.dtype.name} <= {*FLOATS} else want


def judge(case: Case, model: onnx.ModelProto, feeds: dict[str, Any], peers: Any = None) -> Judgement:
    """Ingot's answer, with and without passes, beside those of the peers."""
    answers: dict[str, Any] = {}
    refusals: dict[str, str] = {}
    for name, run in peers or (("ort", run_ort), ("reference", run_reference)):
        if (name == "reference" and reference_is_wrong(case)) or (name == "ort" and ort_is_wrong(case)):
            continue
        found, refusal, _ = attempt(run, model, feeds)
        if refusal is None:
            answers[name] = found
        else:
            refusals[name] = refusal
    got, refusal, error = attempt(run_ingot, model, feeds)
    plain, plain_refusal, plain_error = attempt(run_ingot, model, feeds, True)
    for e, text in ((error, refusal), (plain_error, plain_refusal)):
        if e is not None and not isinstance(e, ingot.IngotError):
            return Judgement("crash", f"{text} | peers: {list(answers)}")
    if (refusal is None) != (plain_refusal is None):
        return Judgement("refused", f"optimised or plain only: {refusal or plain_refusal} | {list(answers)}")
    if refusal is not None:
        if not answers:
            return Judgement("nobody", f"{refusal} | {refusals}")
        return Judgement("refused", f"{refusal} | {list(answers)} run it")
    apart = difference(got, plain, case.tolerance, case.by_form)
    if apart:
        return Judgement("wrong", f"optimised is not plain: {apart}")
    if not answers:
        return Judgement("alone", str(refusals)[:400])
    if "reference" in answers and case.domain == "" and case.op in OTHER_DTYPES:
        answers["reference"] = [as_typed(w, g) for w, g in zip(answers["reference"], got, strict=False)]
    found = {name: difference(got, want, case.tolerance, case.by_form) for name, want in answers.items()}
    if "dtype" in (found.get("reference") or "") and (
        case.domain == "ai.onnx.ml" or case.op == "LayerNormalization"
    ):
        del found["reference"]  # floats as integers; the mean as narrow as the input
    if all(v is None for v in found.values()):
        return Judgement("agrees")
    if any(v is None for v in found.values()):
        return Judgement("peers", str({k: v for k, v in found.items() if v}))
    return Judgement("wrong", str(found))
