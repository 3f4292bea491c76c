"""`make conformance`: runs onnx's suites, prints the score; with --write docs/operators.md is made anew."""

from __future__ import annotations

import sys
import unittest
import warnings
from collections import Counter

import onnx

from tests.conformance.operators import PAGE, native_count, survey, table
from tests.conformance.suite import LEFT, items

HEAD = """# Operators

Made by `python -m tests.conformance.report --write`; do not edit by hand.

## The suites of onnx {version}

Run unmodified through `ingot.backend`, at their own tolerances:

| suite | passed | of |
| --- | ---: | ---: |
{scores}

What is left of the node suite, by name:

{left}

## How operators are computed

{count} of the {total} operators of the main domain that onnx has cases for have generated kernels for every
numeric and boolean dtype that their inputs may have, in some cases at least. Elsewhere NumPy evaluates them
between the plans; `onnx.reference` is asked for casts of strings and of narrow types where no kernel takes
them, Dropout in training and sparse constants. It is found out by lowering onnx's node cases, with all but
the first input constant or none, and again in the other dtypes that the schema allows: a case for each
combination of opset, words among the attributes, inputs, their ranks and dtypes, and outputs.
Dtypes are those of the first input; of another one only what is not native stands there, with its name.

"native": every case of the dtype is generated code, a view of memory or known from shapes. "native in part":
some are. "host": none is; strings, sequences and optionals are the host's always. "floats" are float32,
float64, float16 and bfloat16; "integers" those of 8 to 64 bits, signed and unsigned; "narrow types" those of
2 and 4 bits and the floats of 8. Opsets are those in which a meaning or a type was changed: files of any
opset are brought to the newest when they are opened (`src/ingot/passes/upgrades.py`).

Resize to the nearest element counts coordinates in float32, as ONNX Runtime does, and takes what lies within
a millionth of the middle of two elements for the middle. With `align_corners` and `tf_crop_and_resize` and
scales, files of opset 11 to 18 count the whole elements of the result, which is what those opsets' text and
ONNX Runtime say (but with `antialias`); of opset 19 and newer the length times the scale, a fraction, as
`onnx.reference` has it. With `pytorch_half_pixel` a result of one element is the first one, in every opset.
GridSample's cubics bring each neighbour back to the border by itself, as PyTorch and ONNX Runtime do.

Of com.microsoft's operators that ONNX Runtime 1.32 has CPU kernels for, these are refused by name: AttnLSTM,
BifurcationDetector, GatedDeltaNet, GatherPacked, MatMulFpQ4, MoEGroupRouter, NGramHashMapping,
SparseToDenseMatMul, VarlenCausalConvWithState, VarlenNGramHashMapping and WhisperBeamSearch; so are
BeamSearch, GreedySearch and Sampling behind an encoder, and SparseAttention whose blocks are computed.

Files that ONNX Runtime's optimiser has written: of the operators that it puts between integers
(com.microsoft's QLinear*, QGemm, QAttention, DynamicQuantizeMatMul …) each gives the same integers here as
there, given the same inputs, but a Softmax's share or the average of a window at the middle of two.
QLinearSoftmax counts in whole parts of 1, whose number is rounded down (254 for the usual scale of 1 / 255),
and saturates where ONNX Runtime's int8 one overflows. Whole files of integers may still be some percent
apart, as ONNX Runtime's own answers are from one optimisation level or thread count to another: the last bit
of a float decides which of two integers a value becomes, and what follows amplifies it. Normalisations of
float16 and bfloat16 round their result once, as ONNX Runtime does;
`onnx.reference` rounds between their steps.
"""


def run_suites() -> tuple[Counter[str], Counter[str], list[str]]:
    """(cases, cases passed) by suite, and what failed."""
    every, passed, failed = Counter[str](), Counter[str](), list[str]()
    for item in items():
        every[item.category] += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                item.run()
        except (Exception, unittest.SkipTest) as error:
            failed.append(
                f"{item.category} {item.name}: {type(error).__name__}: {' '.join(str(error).split())[:150]}"
            )
        else:
            passed[item.category] += 1
    return every, passed, failed


def page(every: Counter[str], passed: Counter[str]) -> str:
    """docs/operators.md. Draws that happened to be the expected ones are not counted as passed."""
    passed = passed | Counter()
    passed["Node"] = min(passed["Node"], every["Node"] - len(LEFT))
    covered = [row for row in survey().values() if row.domain == "" and row.own]
    head = HEAD.format(
        version=onnx.__version__,
        scores="\n".join(f"| {name} | {passed[name]:,} | {every[name]:,} |" for name in every),
        left="\n".join(f"- `{name}`: {reason}." for name, reason in LEFT.items()),
        count=native_count(),
        total=len(covered),
    )
    return head + "\n".join(table()) + "\n"


def main() -> int:
    """Print the score; the exit code is 1 where a case fails that is not known to be left."""
    every, passed, failed = run_suites()
    for name in every:
        print(f"{name}: {passed[name]:,} of {every[name]:,}")
    print(f"native: {native_count()} operators of the main domain")
    wrong = [line for line in failed if line.split(":")[0].split()[1] not in LEFT]
    for line in failed:
        print(("FAILED " if line in wrong else "left ") + line)
    if "--write" in sys.argv:
        PAGE.write_text(page(every, passed))
        print(f"written: {PAGE}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
