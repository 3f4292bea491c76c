"""Sizes, tensors and what is outside of a model in every corner of Python: right for all inputs, or refused."""

# The constructs are written as people write them.
# ruff: noqa: B006, B905, C416, C417, E501, E712, RUF021, UP031, UP032

from __future__ import annotations

import bisect
import collections
import copy
import dataclasses
import enum
import functools
import itertools
import json
import math
import operator
import os
import pickle
import statistics
import time
import uuid
from fractions import Fraction
from typing import Any

import numpy as np
import sympy
import torch
from torch import nn

from ingot.capture.attempt import Capture, capture
from ingot.errors import IngotError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, copied, lengths, made, random

case = Cases()
SIGNS = both_signs()
ROWS = lengths()


@case(*ROWS)
def len_f_string(x: T) -> T:
    return x * len(f"{x.shape[0]}")


@case(*ROWS, torch.zeros(12, 3))
def len_str(x: T) -> T:
    return x * len(str(x.shape[0]))


@case(*ROWS)
def int_of_str(x: T) -> T:
    return x * int(str(x.shape[0]))


@case(*ROWS)
def int_of_format(x: T) -> T:
    return x * int("{}".format(x.shape[0]))


@case(*ROWS)
def int_of_percent(x: T) -> T:
    return x * int("%d" % x.shape[0])


@case(*ROWS)
def int_of_repr(x: T) -> T:
    return x * int(repr(x.shape[0]))


@case(*ROWS)
def str_of_shape(x: T) -> T:
    return x * len(str(tuple(x.shape)))


@case(*ROWS)
def str_of_tensor_shape(x: T) -> T:
    return x * len(str(x.shape))


@case(*ROWS)
def hash_of_size(x: T) -> T:
    return x * (hash(x.shape[0]) % 7)


@case(*ROWS)
def hash_of_shape(x: T) -> T:
    return x * (hash(tuple(x.shape)) % 7)


@case(*ROWS)
def dict_key_by_shape(x: T) -> T:
    return x * {tuple(x.shape): 2.0}.get((5, 3), 1.0)


@case(*ROWS)
def set_of_sizes(x: T) -> T:
    return x * len({x.shape[0], x.shape[1]})


@case(*ROWS)
def in_set(x: T) -> T:
    return x * 2 if x.shape[0] in {1, 5} else x


@case(*ROWS)
def in_range(x: T) -> T:
    return x * 2 if x.shape[0] in range(2, 5) else x


@case(*ROWS)
def in_dict(x: T) -> T:
    return x * 2 if x.shape[0] in {5: 1} else x


@case(*ROWS)
def sorted_by_size(x: T) -> T:
    return sorted([x, torch.ones(3, 2)], key=lambda t: t.shape[0])[0] * 2


@case(*ROWS)
def sorted_sizes(x: T) -> T:
    return x * sorted([x.shape[0], x.shape[1], 4])[1]


@case(*ROWS)
def max_of_sizes_key(x: T) -> T:
    return x * max([x.shape[0], 3], key=lambda v: -v)


@case(*ROWS)
def pickled_size(x: T) -> T:
    return x * pickle.loads(pickle.dumps(x.shape[0]))


@case(*ROWS)
def copied_size(x: T) -> T:
    return x * copy.copy(x.shape[0]) + copy.deepcopy(x.shape[0])


@case(*ROWS)
def deepcopied_dict(x: T) -> T:
    d = copy.deepcopy({"n": x.shape[0], "x": [x.shape[1]]})
    return x * d["n"] + d["x"][0]


@case(*ROWS)
def numpy_of_size(x: T) -> T:
    return x * float(np.sqrt(x.shape[0]))


@case(*ROWS)
def numpy_array_of_size(x: T) -> T:
    return x + torch.from_numpy(np.arange(x.shape[0], dtype=np.float32))[:, None]


@case(*ROWS)
def numpy_prod_shape(x: T) -> T:
    return x * int(np.prod(x.shape))


@case(*ROWS)
def numpy_zeros_shape(x: T) -> T:
    return x + torch.from_numpy(np.ones(x.shape, np.float32))


@case(*ROWS)
def isinstance_int(x: T) -> T:
    return x * 2 if isinstance(x.shape[0], int) else x


class MyInt(int):
    pass


@case(*ROWS)
def int_subclass(x: T) -> T:
    return x * MyInt(x.shape[0])


@case(*ROWS)
def math_sqrt(x: T) -> T:
    return x * math.sqrt(x.shape[0])


@case(*ROWS)
def math_gcd(x: T) -> T:
    return x * math.gcd(x.shape[0], 4)


@case(*ROWS)
def math_isqrt(x: T) -> T:
    return x * math.isqrt(x.shape[0])


@case(*ROWS)
def math_comb(x: T) -> T:
    return x * math.comb(x.shape[0], 2)


@case(*ROWS)
def math_log(x: T) -> T:
    return x * math.log(x.shape[0] + 1)


@case(*ROWS)
def math_log_base(x: T) -> T:
    return x * math.log(x.shape[0] + 1, 2)


@case(*ROWS)
def math_prod(x: T) -> T:
    return x * math.prod(x.shape)


@case(*ROWS)
def math_ceil_div(x: T) -> T:
    return x * math.ceil(x.shape[0] / 2)


@case(*ROWS)
def math_hypot(x: T) -> T:
    return x * math.hypot(x.shape[0], 3)


@case(*ROWS)
def math_isclose(x: T) -> T:
    return x * 2 if math.isclose(x.shape[0], 5) else x


@case(*ROWS)
def bit_and(x: T) -> T:
    return x * (x.shape[0] & 1)


@case(*ROWS)
def bit_or(x: T) -> T:
    return x * (x.shape[0] | 2)


@case(*ROWS)
def bit_xor(x: T) -> T:
    return x * (x.shape[0] ^ 3)


@case(*ROWS)
def shift_left(x: T) -> T:
    return x * (1 << x.shape[0])


@case(*ROWS)
def shift_right(x: T) -> T:
    return x * (x.shape[0] >> 1)


@case(*ROWS)
def bit_length(x: T) -> T:
    return x * x.shape[0].bit_length()


@case(*ROWS)
def invert(x: T) -> T:
    return x * ~x.shape[0]


@case(*ROWS)
def power_of_two(x: T) -> T:
    return x * 2 if x.shape[0] & (x.shape[0] - 1) == 0 else x


@case(*ROWS)
def divmod_size(x: T) -> T:
    q, r = divmod(x.shape[0], 3)
    return x * q + r


@case(*ROWS)
def negative_floor(x: T) -> T:
    return x * (-x.shape[0] // 2)


@case(*ROWS)
def negative_mod(x: T) -> T:
    return x * (-x.shape[0] % 3)


@case(*ROWS)
def floor_by_negative(x: T) -> T:
    return x * (x.shape[0] // -2) + (x.shape[0] % -3)


@case(*ROWS)
def chain(x: T) -> T:
    return x * 2 if 2 <= x.shape[0] < 5 else x


@case(*ROWS)
def round_half(x: T) -> T:
    return x * round(x.shape[0] / 2)


@case(*ROWS)
def round_digits(x: T) -> T:
    return x * round(x.shape[0] / 3, 1)


@case(*ROWS)
def int_of_float(x: T) -> T:
    return x * int(x.shape[0] * 0.7)


@case(*ROWS)
def pow_neg(x: T) -> T:
    return x * x.shape[0] ** -0.5 + x.shape[0] ** 2


@case(*ROWS)
def float_pow(x: T) -> T:
    return x * 2.0 ** x.shape[0] + pow(x.shape[0], 2, 3)


@case(*ROWS)
def bool_of_size(x: T) -> T:
    return x * bool(x.shape[0] - 1) + (not x.shape[0] - 5)


@case(*ROWS)
def sum_of_bools(x: T) -> T:
    return x * sum(n > 3 for n in x.shape)


@case(*ROWS)
def any_all(x: T) -> T:
    return x * 2 if any(n == 4 for n in x.shape) or all(n > 2 for n in x.shape) else x


@case(*ROWS)
def step_from_size(x: T) -> T:
    return x[:: x.shape[0] // 2 + 1]


@case(*ROWS)
def negative_slice(x: T) -> T:
    return x[-(x.shape[0] // 2) :]


@case(*SIGNS)
def step_from_data(x: T) -> T:
    return x[:: int((x > 0).any()) + 1]


@case(*ROWS)
def bisect_size(x: T) -> T:
    return x * bisect.bisect([2, 4, 6], x.shape[0])


@case(*ROWS)
def list_index(x: T) -> T:
    return x * [1, 2, 3, 4, 5, 8].index(x.shape[0])


@case(*ROWS)
def table_by_size(x: T) -> T:
    return x * [9, 1, 2, 3, 4, 5, 6, 7, 8, 10][x.shape[0]]


@case(*ROWS)
def string_by_size(x: T) -> T:
    return x * int("0123456789"[x.shape[0]])


@case(*ROWS)
def string_times(x: T) -> T:
    return x * len("ab" * x.shape[0])


@case(*ROWS)
def rjust(x: T) -> T:
    return x * len("a".rjust(x.shape[0]))


@case(*ROWS)
def bytes_of(x: T) -> T:
    return x * len(bytes(x.shape[0]))


@case(*ROWS)
def to_bytes(x: T) -> T:
    return x * x.shape[0].to_bytes(2, "big")[1]


@case(*ROWS)
def hex_of(x: T) -> T:
    return x * int(hex(x.shape[0]), 16)


@case(*ROWS)
def json_of(x: T) -> T:
    return x * json.loads(json.dumps({"n": x.shape[0]}))["n"]


@case(*ROWS)
def fraction(x: T) -> T:
    return x * float(Fraction(x.shape[0], 3))


@case(*ROWS)
def mean_stat(x: T) -> T:
    return x * statistics.mean([x.shape[0], 2])


@case(*ROWS)
def lru(x: T) -> T:
    @functools.lru_cache
    def f(n):
        return n * 2

    return x * f(x.shape[0])


_BY_N: dict[int, T] = {}


@case(*ROWS)
def cache_by_size(x: T) -> T:
    n = x.shape[0]
    if n not in _BY_N:
        _BY_N[n] = torch.arange(3.0) * 2
    return x + _BY_N[n]


@case(*ROWS)
def islice(x: T) -> T:
    return sum(itertools.islice(iter([x, x * 2, x * 3]), x.shape[0] % 3), x)


@case(*ROWS)
def combos(x: T) -> T:
    return x * len(list(itertools.combinations(range(x.shape[0]), 2)))


@case(*ROWS)
def reduce_range(x: T) -> T:
    return x * functools.reduce(operator.add, range(x.shape[0] + 1))


@case(*ROWS)
def sum_range(x: T) -> T:
    return x * sum(range(x.shape[0]))


@case(*ROWS)
def list_range(x: T) -> T:
    return x * list(range(x.shape[0]))[-1]


@case(*ROWS)
def enum_by_size(x: T) -> T:
    class K(enum.Enum):
        A = 5
        B = 3

    try:
        return x * (2 if K(x.shape[0]) is K.A else 3)
    except ValueError:
        return x


@case(*ROWS)
def match_size(x: T) -> T:
    match x.shape[0]:
        case 5:
            return x * 2
        case 3 | 4:
            return x * 3
        case _:
            return x


@case(*ROWS)
def match_shape(x: T) -> T:
    match tuple(x.shape):
        case (5, 3):
            return x * 2
        case (n, 3) if n > 3:
            return x * n
        case _:
            return x


@case(*ROWS)
def shape_equals(x: T) -> T:
    return x * 2 if x.shape == (5, 3) else x


@case(*ROWS)
def shape_list_equals(x: T) -> T:
    return x * 2 if list(x.shape) == [5, 3] else x


@case(random(5, 3), random(2, 3), torch.zeros(4, 3), torch.full((1, 3), -1.0), torch.ones(4, 3))
def list_literal_and_list_of_sizes(x: T) -> T:
    most = (x > 0).sum(1).max()
    y = x.new_zeros(x.shape[0], most)
    assert list(y.size()) == [x.shape[0], most]
    if [most, 3] != list(y.size()):
        return y + 1
    return y.T


@case(*ROWS)
def shape_compare(x: T) -> T:
    return x * 2 if tuple(x.shape) < (4, 9) else x


@case(*ROWS)
def numel_(x: T) -> T:
    return x * 2 if x.numel() == 15 else x * x.numel()


@case(*ROWS)
def strides(x: T) -> T:
    return x * x.stride(0) + x.t().stride(1)


@case(*ROWS)
def nbytes(x: T) -> T:
    return x * x.nbytes + x.element_size() * x.shape[0]


@case(*ROWS)
def data_ptr(x: T) -> T:
    return x * (x.data_ptr() % 2 + 1)


@case(*ROWS)
def storage(x: T) -> T:
    return x * x.untyped_storage().nbytes()


@case(*SIGNS)
def tolist_sorted(x: T) -> T:
    return x * sorted(x.sum(0).tolist())[0]


@case(*SIGNS)
def tolist_index(x: T) -> T:
    return x * (x.sum(0).tolist().index(max(x.sum(0).tolist())) + 1)


@case(*SIGNS)
def str_of_item(x: T) -> T:
    return x * len(str(int((x > 0).sum())))


@case(*SIGNS)
def repr_of_tensor(x: T) -> T:
    return x * len(repr(x))


@case(*SIGNS)
def str_tensor_sign(x: T) -> T:
    return x * ("-" in str(x))


@case(*SIGNS)
def numpy_method(x: T) -> T:
    return x * float(x.numpy().max())


@case(*SIGNS)
def array_protocol(x: T) -> T:
    return x * np.array(x.sum().item())


@case(*SIGNS)
def memo(x: T) -> T:
    return x + torch.tensor(x.tolist())


@case(*SIGNS)
def deep(x: T) -> T:
    return copy.deepcopy(x) + 1


@case(*SIGNS)
def pickled(x: T) -> T:
    return pickle.loads(pickle.dumps(x)) * 2


@case(*SIGNS)
def eq_all(x: T) -> T:
    return x * 2 if torch.equal(x, x.abs()) else x


@case(*SIGNS)
def allclose_(x: T) -> T:
    return x * 2 if torch.allclose(x, x.abs()) else x


@case(*SIGNS)
def in_tensor(x: T) -> T:
    return x * 2 if 0.5 in x else x


@case(*SIGNS)
def is_nonzero(x: T) -> T:
    return x * 2 if torch.is_nonzero((x > 0).any()) else x


@case(*SIGNS)
def contains_list(x: T) -> T:
    return x * 2 if bool(x.sum() > 0) in [True] else x


@case(*SIGNS)
def data_dict(x: T) -> T:
    return x * {True: 2.0, False: 3.0}[bool(x.sum() > 0)]


@case(*SIGNS)
def index_list(x: T) -> T:
    return x * [2.0, 3.0][int(x.sum() > 0)]


@case(*SIGNS)
def tuple_cmp(x: T) -> T:
    return x * 2 if (x.sum().item(), 1) > (0.0, 0) else x


@case(*SIGNS)
def min_key(x: T) -> T:
    return min(x, -x, key=lambda t: t.sum().item())


@case(*SIGNS)
def format_branch(x: T) -> T:
    return x * 2 if f"{x.sum() > 0}" == "tensor(True)" else x


@case(*SIGNS)
class ClassCounter(nn.Module):
    n = 0

    def forward(self, x: T) -> T:
        type(self).n += 1
        return x * type(self).n


_LIST: list[int] = []


@case(*SIGNS)
def global_list(x: T) -> T:
    _LIST.append(1)
    return x * len(_LIST)


@case(*SIGNS)
def default_arg(x: T, seen: list[int] = []) -> T:
    seen.append(1)
    return x * len(seen)


@case(*SIGNS)
def func_attr(x: T) -> T:
    func_attr.n = getattr(func_attr, "n", 0) + 1
    return x * func_attr.n


def _helper(x: T) -> T:
    _helper.calls = getattr(_helper, "calls", 0) + 1
    return x * _helper.calls


@case(*SIGNS)
def helper_attr(x: T) -> T:
    return _helper(x)


_IT = itertools.count(1)


@case(*SIGNS)
def iterator_global(x: T) -> T:
    return x * next(_IT)


@case(*SIGNS)
def clock(x: T) -> T:
    return x * (time.time() % 7)


@case(*SIGNS)
def urandom(x: T) -> T:
    return x * (int.from_bytes(os.urandom(4), "big"))


@case(*SIGNS)
def uuid_(x: T) -> T:
    return x * (uuid.uuid4().int % 1000003)


@case(*SIGNS)
def seeded(x: T) -> T:
    return x * torch.rand(3, generator=torch.Generator().manual_seed(3))


@case(*SIGNS)
def grad_mode(x: T) -> T:
    return x * 2 if torch.is_grad_enabled() else x


@case(*SIGNS)
def requires(x: T) -> T:
    return x * 2 if x.requires_grad else x


@case(*SIGNS)
def dtype_branch(x: T) -> T:
    return x * 2 if x.dtype == torch.float32 else x


@case(*SIGNS)
def try_index(x: T) -> T:
    try:
        return x[4] * 2
    except IndexError:
        return x[0]


@case(*ROWS)
def unpack_shape(x: T) -> T:
    n, *rest = x.shape
    return x * n * len(rest)


@case(*ROWS)
def chunk_count(x: T) -> T:
    return x * len(x.chunk(2))


@case(*ROWS)
def split_count(x: T) -> T:
    return x * len(x.split(2))


@case(*ROWS)
def len_of_nonzero(x: T) -> T:
    return x * len((x > 0).nonzero())


@case(*ROWS)
def unique_count(x: T) -> T:
    return x * len(torch.unique(x > 0))


@case(*ROWS)
def zip_rows(x: T) -> T:
    return sum((a * b for a, b in zip(x, x.flip(0))), torch.zeros(3))


@case(*ROWS)
def iter_next(x: T) -> T:
    return next(iter(x)) * 2


@case(*ROWS)
def list_comp_len(x: T) -> T:
    return x * len([r for r in x])


@case(*ROWS)
def dict_comp(x: T) -> T:
    return x * sum({i: r.sum() for i, r in enumerate(x)}.values())


@case(*ROWS)
def reversed_rows(x: T) -> T:
    return torch.stack(list(reversed(list(x))))


@case(*ROWS)
def starred(x: T) -> T:
    return torch.stack([*x, x[0]])


@case(*ROWS)
def map_rows(x: T) -> T:
    return torch.stack(list(map(lambda r: r * 2, x)))


@case(*ROWS)
def filter_rows(x: T) -> T:
    return x * len(list(filter(lambda r: r.sum() > 0, x)))


@case(*ROWS)
def size_default_dict(x: T) -> T:
    d = collections.defaultdict(int)
    d[x.shape[0]] += 1
    return x * d[5]


@case(*ROWS)
def counter_sizes(x: T) -> T:
    return x * collections.Counter(x.shape)[3]


@case(*ROWS)
def namedtuple_size(x: T) -> T:
    P = collections.namedtuple("P", "n m")
    p = P(*x.shape)
    return x * p.n + p._asdict()["m"]


@case(*ROWS)
def dataclass_eq(x: T) -> T:
    @dataclasses.dataclass
    class S:
        n: int

    return x * 2 if S(x.shape[0]) == S(5) else x


@case(*ROWS)
def conditional_default(x: T) -> T:
    return x * (x.shape[0] == 5 and 2 or 3)


@case(*ROWS)
def bool_arith(x: T) -> T:
    return x * ((x.shape[0] > 3) + 1)


@case(*ROWS)
def bool_index(x: T) -> T:
    return x * (2.0, 3.0)[x.shape[0] > 3]


@case(*ROWS)
def bool_dict(x: T) -> T:
    return x * {True: 2.0, False: 3.0}[x.shape[0] > 3]


@case(*ROWS)
def float_is_integer(x: T) -> T:
    return x * 2 if (x.shape[0] / 2).is_integer() else x


@case(*ROWS)
def as_ratio(x: T) -> T:
    return x * (x.shape[0] / 2).as_integer_ratio()[1]


@case(*ROWS)
def real_imag(x: T) -> T:
    return x * (x.shape[0].real + x.shape[0].imag + x.shape[0].numerator)


@case(*ROWS)
def complex_of(x: T) -> T:
    return x * abs(complex(x.shape[0], 1))


@case(*ROWS)
def range_len(x: T) -> T:
    return x * len(range(0, x.shape[0], 2))


@case(*ROWS)
def range_index(x: T) -> T:
    return x * range(10, 30, 2)[x.shape[0]]


@case(*ROWS)
def slice_indices(x: T) -> T:
    return x * slice(1, None, 2).indices(x.shape[0])[1]


@case(*ROWS)
def str_compare(x: T) -> T:
    return x * 2 if str(x.shape[0]) == "5" else x


@case(*ROWS)
def getattr_fs(x: T) -> T:
    class H:
        w5 = 2.0
        w3 = 4.0

    return x * getattr(H, f"w{x.shape[0]}", 1.0)


@case(*ROWS)
def log_line(x: T) -> T:
    print(f"shape {x.shape} of {x}")
    return x * 1.0


def _assumed(captured: Capture, args: tuple[Any, ...]) -> bool:
    """Whether what the export wrote down, and prints, holds for these inputs."""
    env = captured.recording.env
    feeds = captured.arguments.feeds(copied(args), {})
    sizes = {
        d: n
        for spec in captured.specs
        for d, n in zip(spec.dims, feeds[spec.name].shape, strict=True)
        if isinstance(d, str)
    }
    known = env.at({s: sympy.Integer(sizes[n]) for s, n in env.names.items() if n in sizes})
    return all(g.condition.xreplace(known) != False for g in env.held.values())


@case(*ROWS)
def iterator_in_loop(x: T) -> Any:
    it = iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    h = torch.zeros(3)
    for row in x:
        h = h + row * next(it)
    return h


@case(*SIGNS)
def iterator_in_branch(x: T) -> Any:
    it = iter([1.0, 2.0, 3.0])
    y = x
    if x.sum() > 0:
        y = y * next(it)
    return y * next(it)


@case(*SIGNS)
def generator_in_branch(x: T) -> Any:
    def count():
        n = 1.0
        while True:
            yield n
            n += 1

    it = count()
    y = x
    if x.sum() > 0:
        y = y * next(it)
    return y * next(it)


@case(*ROWS)
def count_in_loop(x: T) -> Any:
    it = itertools.count(1)
    h = torch.zeros(3)
    for row in x:
        h = h + row * next(it)
    return h


@case(*SIGNS)
def int_or_float_returned(x: T) -> Any:
    k = 3 if x.sum() > 0 else 2.5
    return x, k


@case(*SIGNS)
def int_or_float_with_int_tensor(x: T) -> Any:
    k = 3 if x.sum() > 0 else 2.5
    return torch.arange(4) * k + x.sum()


@case(*SIGNS)
def int_or_float_full(x: T) -> Any:
    k = 3 if x.sum() > 0 else 2.5
    return torch.full((4,), k) + x.sum()


@case.parametrize()
def test_right_or_refused(case: Case) -> None:
    """Never the example's value for ever. A refusal is one of Ingot's own errors."""
    try:
        captured = capture(made(case), copied(case.inputs[0]))
        first, *others = case.inputs
        inputs = [first, *(args for args in others if _assumed(captured, args))]
        check(Case(case.name, case.make, inputs), narrowed=True, captured=captured)
    except IngotError as error:
        assert (
            "test_corners.py:" in str(error) or "site-packages" in str(error) or "lib/python" in str(error)
        ), error
