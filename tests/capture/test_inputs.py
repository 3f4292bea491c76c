"""Exports without example values: specs, bounds and annotations; Python arguments kept and asked for."""

# Annotations here are read as text, as jaxtyping's would be.
# ruff: noqa: F722, F821

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from torch import nn

import ingot
from ingot.capture.annotations import annotated_inputs, read_shape
from ingot.capture.signature import DTYPES
from ingot.capture.tensors import BY_NAME
from ingot.errors import ExportError, InputError
from tests.capture.test_constructs import dims

T = torch.Tensor


def test_specs_with_bounds() -> None:
    """Sizes keep to the range in the recording, in verification and in what the file declares."""

    def f(ids: T, x: T) -> T:
        return x.softmax(-1) * ids[:, None]

    spec = ingot.Input("float32", ["batch", ingot.Dim("len", min=20, max=24)])
    program = ingot.export(f, (ingot.Input("int64", ["batch"]), spec))
    assert dims(program) == {"ids": ["batch"], "x": ["batch", "len"]}
    assert [str(a) for a in program.assumptions if a.kind == "declared"] == [
        "20 <= len <= 24 (declared, proved; len)"
    ]
    assert program.verification is not None
    seen = {case.sizes["len"] for case in program.verification.cases}
    assert len(seen) > 1 and min(seen) >= 20 and max(seen) <= 24
    for bad in ({"min": 3, "max": 2}, {"min": -1}):
        with pytest.raises(ExportError, match="0 <= min <= max"):
            ingot.Dim("n", **bad)


def test_sizes_are_chosen_so_that_the_model_works() -> None:
    """Five halvings need more than the smallest sizes; a model of one size only gets that one."""
    convolutions = [nn.Conv2d(3 if i == 0 else 4, 4, 3, 2, 1) for i in range(5)]
    net = nn.Sequential(*convolutions, nn.AvgPool2d(2), nn.Flatten())
    program = ingot.export(nn.Sequential(*net[:-1]), (ingot.Input("float32", ["batch", 3, "h", "w"]),))
    assert dims(program) == {"input": ["batch", 3, "h", "w"]}

    class Fixed(nn.Module):
        def forward(self, x: T) -> T:
            if x.shape[2] != 224:
                raise ValueError("wanted 224 rows")
            return x.mean(2)

    program = ingot.export(Fixed(), (ingot.Input("float32", ["batch", 3, "h"]),))
    assert dims(program) == {"x": ["batch", 3, 224]}
    program = ingot.export(lambda x: x.reshape(15, -1), (ingot.Input("float32", ["n", 4]),))
    assert dims(program) == {"x": ["n", 4]}
    with pytest.raises(
        ExportError, match=r"x float32 \[4, 4\]\): .* and some larger ones were tried for want"
    ):
        ingot.export(lambda x: x @ torch.ones(x.shape[0] + 1, 2), (ingot.Input("float32", ["n", 4]),))


class Annotated_(nn.Module):
    """Annotations of both kinds; a parameter with a default is left at it."""

    def forward(
        self,
        image: Float32[T, "batch 3 h w"],
        scale: Annotated[T, ingot.Input("float32", ["batch"])],
        ids: Int64[T, "batch _"] | None,
        *,
        mask: Bool[T, "batch h w"] | None,
        power: int = 2,
    ) -> T:
        assert ids is not None and mask is not None
        return ((image * scale[:, None, None, None]) ** power).sum(1) * mask + ids.sum()


def test_nothing_but_annotations() -> None:
    """Every parameter without a default has its dtype and shape from its annotation."""
    program = ingot.export(Annotated_())
    assert dims(program) == {
        "image": ["batch", 3, "h", "w"],
        "scale": ["batch"],
        "ids": ["batch", "ids_dim1"],
        "mask": ["batch", "h", "w"],
    }
    dtypes = [str(v.dtype) for v in program.model.graph.inputs]
    assert dtypes == ["FLOAT", "FLOAT", "INT64", "BOOL"]


def test_annotations_that_are_objects() -> None:
    """As without `from __future__ import annotations`, and as jaxtyping's own classes are."""

    class Float16:
        dim_str, dtypes = "n 4", ["float16"]

    def f(x: Any, y: Any) -> Any:
        return x + y

    f.__annotations__ = {"x": Annotated[T, ingot.Input("int32", [5])], "y": Float16}
    (x, y), _ = annotated_inputs(f)
    assert (x.dtype, list(x.shape), y.dtype, list(y.shape)) == ("int32", [5], "float16", ["n", 4])


Rows = Annotated[T, ingot.Input("float32", ["b", 3])]
Number = Annotated[int, ingot.Input("int64", [])]


def with_defaults(x: Rows, k: int = 3, y: Rows | None = None, n: Number = 2, *, z: Rows | None = None) -> T:
    """Arguments that have both an annotation and a default, by aliases of the module."""
    assert y is not None and z is not None, "what is annotated is an input, whatever its default"
    return x * k * n + y + z


def test_what_is_annotated_is_an_input_with_a_default_or_without() -> None:
    """Its default is the example of a number; a default without an annotation is recorded as fixed."""
    program = ingot.export(with_defaults)
    assert dims(program) == {"x": ["b", 3], "y": ["b", 3], "n": [], "z": ["b", 3]}
    assert [str(a) for a in program.assumptions] == ["argument 'k' is 3 (argument, fixed; k)"]
    _, keywords = annotated_inputs(with_defaults)
    assert keywords["n"].example == 2
    x, y, z = torch.randn(3, 2, 3)
    got = program(x, y=y, n=5, z=z)
    np.testing.assert_allclose(got, with_defaults(x, 3, y, 5, z=z), rtol=1e-6)

    def last(x: Rows, n: Number, /) -> T:  # a number without a default is one all the same
        return x * n if n > 3 else x - n

    assert ingot.export(last).arguments.numbers == [None, int]


def test_annotations_that_say_too_little() -> None:
    """Some annotated and some not; a varying number of axes."""

    def half(x: Float[T, "n 2"], y: T) -> T:
        return x + y

    with pytest.raises(ExportError, match=r"the arguments \['y'\] have no shape"):
        ingot.export(half)
    assert read_shape("#batch rows=4 _ n", "x") == ["batch", 4, None, "n"]
    for text in ("*batch 3", "... 3", "n+1"):
        with pytest.raises(ExportError, match="a fixed number of axes"):
            read_shape(text, "x")
    with pytest.raises(ExportError, match="no annotation says what it takes"):
        ingot.export(nn.Linear(2, 2))


class Numbers(nn.Module):
    """Numbers that feed arithmetic and sizes, and some that are only looked at."""

    def forward(self, x: T, n: int, scale: float = 0.5, shift: bool = False, mode: str = "a") -> T:  # noqa: ARG002
        if mode == "b":
            x = -x
        y = x[:, :n].sum(1, keepdim=True) * scale / math.sqrt(4) + n
        return torch.cat([y, torch.zeros(x.shape[0], n)], 1) + x.new_full((1,), scale)


def test_numbers_that_are_asked_for_become_inputs() -> None:
    """An Input without axes in the place of a number; each value of it is right."""
    x = torch.randn(3, 9)
    number = ingot.Input("int64", []), ingot.Input("float32", [], example=0.25)
    program = ingot.export(Numbers(), (x, *number))
    assert program.input_names == ["x", "n", "scale"]
    for n, scale in [(4, 2.0), (0, 0.5), (1, -1.0), (9, 0.0)]:
        want = Numbers()(x, n, scale)
        np.testing.assert_allclose(program(x, n, scale), want.numpy(), atol=1e-5)


def test_a_call_may_leave_numbers_to_their_defaults() -> None:
    x = torch.randn(3, 9)
    every = ingot.Input("int64", []), ingot.Input("float32", []), ingot.Input("bool", [])
    program = ingot.export(Numbers(), (x, *every))
    for args, kwargs in [((4,), {}), ((4, 2.0), {}), ((4,), {"shift": True}), ((4,), {"scale": 0.0})]:
        want = Numbers()(x, *args, **kwargs)
        np.testing.assert_allclose(program(x, *args, **kwargs), want.numpy(), atol=1e-5)
    with pytest.raises(InputError, match="missing a required argument: 'n'"):
        program(x)


def sized(x: T, n: int) -> tuple[T, T]:
    """A number that is a whole shape."""
    return x.new_zeros(n), torch.ones(n, 2)


def test_a_number_is_a_size_alone() -> None:
    program = ingot.export(sized, (torch.randn(2), ingot.Input("int64", [])), verify=False)
    for n in (0, 1, 7):
        for got, want in zip(program(torch.randn(3), n), sized(torch.randn(3), n), strict=True):
            np.testing.assert_array_equal(got, want)


def test_other_numbers_are_fixed_and_said_to_be() -> None:
    """They are in the assumptions, and a call with others is refused."""
    x = torch.randn(3, 9)
    program = ingot.export(Numbers(), (x, 4))
    assert [str(a) for a in program.assumptions if a.kind == "argument"] == [
        "argument 'n' is 4 (argument, fixed; n)"
    ]
    assert np.asarray(program(x, 4)).shape == (3, 5)
    for call in [(x, 5), (x, 4, 0.25), (x, 4, 0.5, False, "b")]:
        with pytest.raises(InputError, match="exported with"):
            program(*call)


def test_wrong_dtypes_of_numbers() -> None:
    """A float for an int."""
    with pytest.raises(ExportError, match="stands for a Python int and has dtype 'float32'; wanted 'int64'"):
        ingot.export(Numbers(), (torch.randn(3, 9), ingot.Input("float32", [])))


@pytest.mark.parametrize("bounds", [{}, {"min": 2}, {"max": 8}, {"min": 2, "max": 8}])
def test_dims_of_torch_with_and_without_bounds(bounds: dict[str, int]) -> None:
    dims = ({0: torch.export.Dim("rows", **bounds)},)
    program = ingot.export(lambda x: x * 2, (torch.ones(4, 3),), dynamic_shapes=dims)
    assert list(program.model.graph.inputs[0].shape or ()) == ["rows", 3]


@pytest.mark.parametrize("dims", [{"x": [ingot.Dim("rows", 2, 8), None]}, ({0: ingot.Dim("rows", 2, 8)},)])
def test_dims_of_ingot(dims: Any) -> None:
    """As in ingot.Input; a bound that an Input gives for the same name is the same."""
    program = ingot.export(lambda x: x * 2, (torch.ones(4, 3),), dynamic_shapes=dims)
    assert list(program.model.graph.inputs[0].shape or ()) == ["rows", 3]
    assert [a.what for a in program.assumptions if a.kind == "declared"] == ["2 <= rows <= 8"]
    with pytest.raises(ExportError, match="'rows' is declared 2 to 8, and the example has 9"):
        ingot.export(lambda x: x * 2, (torch.ones(9, 3),), dynamic_shapes=dims)


def test_bounds_of_dims_that_torch_finds_are_kept() -> None:
    dims = ({0: torch.export.Dim.DYNAMIC(min=2, max=8), 1: torch.export.Dim.AUTO},)
    program = ingot.export(lambda x: x * 2, (torch.ones(4, 3),), dynamic_shapes=dims)
    assert [a.what for a in program.assumptions if a.kind == "declared"] == ["2 <= x_batch <= 8"]


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        ({"x": {0: 7}, "y": None}, r"input 'x', axis 0, is 7, and the example has 4 there"),
        (
            {"x": {0: torch.export.Dim("n", max=4)}, "y": {0: torch.export.Dim("n", max=8)}},
            r"input 'y', axis 0: Dim\(name='n', min=0, max=8\) was declared otherwise before",
        ),
    ],
)
def test_dims_that_contradict_the_example_or_each_other(dims: Any, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        ingot.export(_Pair(), (torch.ones(4, 4), torch.ones(4, 4)), dynamic_shapes=dims)


@pytest.mark.parametrize("opset", [20.0, "20", True, 17, 26])
def test_opsets_that_are_none(opset: Any) -> None:
    with pytest.raises(ExportError, match=r"opset_version is .*; Ingot writes 18 to 25"):
        ingot.export(torch.relu, (torch.ones(3),), opset_version=opset)


class _Pair(nn.Module):
    def forward(self, x: T, y: T) -> T:
        return x @ y


def test_an_example_that_the_model_refuses() -> None:
    """The model's own words, its line and the example's sizes: none of the recording's symbols."""
    x = torch.ones(2, 5)
    with pytest.raises(ExportError, match=r"Linear.*\n.*refuses its example.*2, 5.*2x5 and 3x4"):
        ingot.export(nn.Linear(3, 4), (x,))
    with pytest.raises(ExportError, match=r"test_inputs.py:\d+: return x @ y\n.*refuses.*2x5 and 2x5"):
        ingot.export(_Pair(), (x, x))


@pytest.mark.parametrize(
    ("dtype", "shape", "words"),
    [
        ("floaty", ["a", 4], "dtype 'floaty' is not one of"),
        (float, [2], "is not one of"),
        ("float32", [-1, 4], "axis 0 has size -1"),
        ("float32", ["a", 2.5], "axis 1 has size 2.5"),
        ("float32", [""], "axis 0 has size ''"),
        ("float32", [True], "axis 0 has size True"),
    ],
)
def test_inputs_that_are_none(dtype: Any, shape: Any, words: str) -> None:
    """An Input says itself what is wrong with it."""
    with pytest.raises(ExportError, match=words):
        ingot.Input(dtype, shape)


def test_inputs_may_be_of_what_files_hold() -> None:
    """Each dtype that Ingot writes has its name, and those of complex numbers, which are pairs in a file."""
    assert set(DTYPES) == {*BY_NAME, "complex64", "complex128"}


def test_complex_inputs_without_values() -> None:
    """Pairs of real numbers in the file, whoever gives them."""

    def f(z: Complex64[T, "n 3"]) -> tuple[T, T]:
        return z * z.conj() + 1j, z.abs()

    z = torch.randn(2, 3, dtype=torch.complex64)
    wanted = torch.view_as_real(f(z)[0]), f(z)[1]
    for spec in ((), (ingot.Input("complex64", ["n", 3]),)):
        program = ingot.export(f, spec)
        assert dims(program) == {"z": ["n", 3, 2]}
        for given in (z, z.numpy()):
            for got, want in zip(program(given), wanted, strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-6)
