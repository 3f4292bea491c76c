"""Numbers that vector mathematics needs for each width of a float: how its bits lie, and polynomials.

Polynomials are minimax fits of the relative error (Remez' exchange in 50 digits, then rounded), lowest degree
first; the error of the fit is given beside each, float32's first.
"""

# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from ingot.codegen.builder import element_of

if TYPE_CHECKING:
    from ingot.codegen.lanes import Lanes

LOG2E = 1.4426950408889634


@dataclass(frozen=True, slots=True)
class Format:
    """What of a float's width changes the formulas."""

    #: bits of the mantissa, and the exponent's offset
    mantissa: int
    bias: int
    #: 1.5 · 2^mantissa: adding it rounds to an integer, which then stands in the low bits
    round: float
    #: ln 2 in two parts; the product of the first with any exponent is exact without FMA too
    ln2: tuple[float, float]
    #: what rounding to this width loses of π/2 and of π/4
    lost_of_half_pi: float
    lost_of_quarter_pi: float
    #: the bits of √½
    root_half: int
    #: the smallest normal number
    least: float
    #: exp is 0 below and infinite above
    exp_range: tuple[float, float]
    #: where the power of two in exp is half of the smallest normal number, and where it is infinite
    flushed: tuple[float, float]
    #: expm1(r) = r + r² P(r) for |r| <= ln 2 / 2
    expm1: tuple[float, ...]
    #: 2 atanh(s) = 2 s + s³ P(s²) for |s| <= (√2 - 1) / (√2 + 1)
    two_atanh: tuple[float, ...]
    #: sinh(x) = x + x³ P(x²) for |x| <= 1
    sinh: tuple[float, ...]
    #: atan(x) = x + x³ P(x²) for |x| <= tan(π / 8)
    atan: tuple[float, ...]
    #: asin(x) = x + x³ P(x²) for |x| <= ½
    asin: tuple[float, ...]


# expm1 2^-28 and 2^-60, two_atanh 2^-30 and 2^-59, sinh 2^-27 and 2^-56, atan 2^-28 and 2^-57,
# asin 2^-27 and 2^-58
FLOAT = Format(
    mantissa=23,
    bias=127,
    round=12582912.0,
    ln2=(0.693359375, -2.12194440e-4),
    lost_of_half_pi=-4.3711390001862426e-08,
    lost_of_quarter_pi=-2.1855695000931213e-08,
    root_half=0x3F3504F3,
    least=2.0**-126,
    exp_range=(-104.5, 89.0),
    flushed=(-88.2, 89.0),
    expm1=(
        0.4999999701976776,
        0.1666654646396637,
        0.04166743531823158,
        0.00836626160889864,
        0.0013870657421648502,
    ),
    two_atanh=(0.6666677594184875, 0.3997754156589508, 0.2987171411514282),
    sinh=(0.1666666716337204, 0.008333349600434303, 0.0001983615948120132, 2.8169522465759655e-06),
    atan=(
        -0.33333316445350647,
        0.19998471438884735,
        -0.14243541657924652,
        0.10593853890895844,
        -0.06078292056918144,
    ),
    asin=(
        0.16666752099990845,
        0.07495300471782684,
        0.04547010734677315,
        0.024180512875318527,
        0.042165081948041916,
    ),
)
DOUBLE = Format(
    mantissa=52,
    bias=1023,
    round=6755399441055744.0,
    ln2=(6.93147180369123816490e-01, 1.90821492927058770002e-10),
    lost_of_half_pi=6.123233995736766e-17,
    lost_of_quarter_pi=3.061616997868383e-17,
    root_half=0x3FE6A09E667F3BCD,
    least=2.0**-1022,
    exp_range=(-746.0, 710.0),
    flushed=(-709.1, 710.0),
    expm1=(
        0.5,
        0.16666666666666677,
        0.0416666666666667,
        0.008333333333321615,
        0.0013888888888866728,
        0.00019841269886158402,
        2.480158736073158e-05,
        2.7557244181991125e-06,
        2.755724263258723e-07,
        2.510904488834267e-08,
        2.092447773114515e-09,
    ),
    two_atanh=(
        0.6666666666666734,
        0.3999999999941555,
        0.2857142874220522,
        0.22222198589971828,
        0.18183563577520917,
        0.15314066362840728,
        0.14795824023704598,
    ),
    sinh=(
        0.16666666666666669,
        0.008333333333333148,
        0.0001984126984143162,
        2.7557319157137553e-06,
        2.505212312832415e-08,
        1.6057260280703764e-10,
        7.758736999203482e-13,
    ),
    atan=(
        -0.333333333333332,
        0.19999999999953244,
        -0.14285714280166412,
        0.11111110782149447,
        -0.09090897725109094,
        0.07692059714945979,
        -0.06663099175330761,
        0.058478590648699265,
        -0.05039189487641787,
        0.03806211629878662,
        -0.017905014112263477,
    ),
    asin=(
        0.1666666666666676,
        0.07499999999970801,
        0.04464285717461028,
        0.03038194270786724,
        0.022372214985144852,
        0.01735161206061083,
        0.013980819966519937,
        0.011398917063832312,
        0.010780225499339687,
        0.003706511701230045,
        0.021707197580028162,
        -0.020998711106204597,
        0.032628405034749085,
    ),
)
#: float64 alone. erf(x) = x + x P(x²) for |x| <= 1 (2^-56)
ERF = (
    0.1283791670955126,
    -0.3761263890318375,
    0.11283791670954858,
    -0.02686617064507296,
    0.00522397762478137,
    -0.0008548326978765149,
    0.00012055331037551108,
    -1.4925593518728226e-05,
    1.6460972954153765e-06,
    -1.635002619207727e-07,
    1.4657883530919653e-08,
    -1.136567067182716e-09,
    5.945255584223488e-11,
)
#: e^(y²) erfc(y) (1 + 2 y) = P((y - 3.75) / (y + 3.75)) for y in [0, 28] (2^-53), after Shepherd and
#: Laframboise, Chebyshev Approximation of (1 + 2x) exp(x²) erfc(x), 1981
ERFC = (
    1.2375126308378275,
    -0.14024059858554702,
    0.0035854154854636318,
    0.08227673849015102,
    -0.10880393014170346,
    0.09230432116019975,
    -0.05869339859065529,
    0.028362277421463352,
    -0.009746579546113215,
    0.0017556258333219696,
    0.00029371358229461864,
    -0.00029015398813058004,
    5.1649473935627234e-05,
    2.238396630953022e-05,
    -1.144527947233573e-05,
    -9.730676001232656e-07,
    1.7539736821929673e-06,
    -5.767997584720375e-08,
    -2.619296245977787e-07,
    2.3261318581491597e-08,
    4.164043720278251e-08,
    -3.2382396969286446e-09,
    -6.765467505528734e-09,
    -1.9477313622880394e-10,
    8.089360542814986e-10,
    1.710427192056601e-10,
)
#: sin(x) = x + x³ P(x²) and cos(x) = 1 - x² / 2 + x⁴ P(x²) for |x| <= π / 4 (2^-56 and 2^-59)
SIN = (
    -0.1666666666666663,
    0.00833333333332212,
    -0.0001984126982958837,
    2.7557313620130703e-06,
    -2.5050747455233185e-08,
    1.5896207048598697e-10,
)
COS = (
    0.0416666666666666,
    -0.0013888888888874133,
    2.4801587289487348e-05,
    -2.7557314353611753e-07,
    2.0875723426074728e-09,
    -1.135965487169395e-11,
)


def format_of(x: Lanes) -> Format:
    """What is known of the width of these floats."""
    return DOUBLE if isinstance(element_of(x.type), ir.DoubleType) else FLOAT
