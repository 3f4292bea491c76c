"""InferenceSession's surface: what goes in, what comes out, and what each wrong use says."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx_ir as ir
import pytest

import ingot
from ingot.runtime import driver
from ingot.runtime.providers import choose

MODEL = """<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, 4] x, int64[batch] shift) => (float[batch, 4] y, float[batch] total) {
    axis = Constant<value_ints=[1]>()
    column = Unsqueeze(shift, axis)
    f = Cast<to=1>(column)
    y = Add(x, f)
    total = ReduceSum<keepdims=0>(y, axis)
}"""


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.parser.parse_model(MODEL)


@pytest.fixture(scope="module")
def session(model: onnx.ModelProto) -> ingot.InferenceSession:
    return ingot.InferenceSession(model)


def feed(rows: int = 3) -> dict[str, np.ndarray]:
    return {"x": np.arange(rows * 4, dtype=np.float32).reshape(rows, 4), "shift": np.arange(rows)}


def test_a_session_opens_from_everything(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    want = feed()["x"] + feed()["shift"][:, None].astype(np.float32)
    for source in (str(path), path, path.read_bytes(), model, ir.from_proto(model)):
        y, total = ingot.InferenceSession(source).run(None, feed())
        np.testing.assert_array_equal(y, want)
        np.testing.assert_allclose(total, want.sum(1))


def test_inputs_and_outputs_are_described(session: ingot.InferenceSession) -> None:
    x, shift = session.get_inputs()
    assert (x.name, x.type, list(x.shape)) == ("x", "tensor(float)", ["batch", 4])
    assert (shift.name, shift.type, list(shift.shape)) == ("shift", "tensor(int64)", ["batch"])
    assert [o.name for o in session.get_outputs()] == ["y", "total"]
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_a_size_of_minus_one_in_the_file_is_any_size(model: onnx.ModelProto) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    other.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    session = ingot.InferenceSession(other)
    assert session.get_inputs()[0].shape == [None, 4]
    assert session.run(None, feed(5))[0].shape == (5, 4)


def test_sizes_of_minus_one_are_not_taken_for_a_number() -> None:
    """Some exporters write -1 for a size that is not known: what is computed of such sizes is no constant."""
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        g (float[A, 4] x, float[B, 4] y) => (int64[2] sizes, float[C, 4] z) {
            sizes = Shape(x)
            one = Constant<value_ints=[1]>()
            zero = Constant<value_ints=[0]>()
            rows = Slice(sizes, zero, one)
            rest = Constant<value_ints=[-1]>()
            shape = Concat<axis=0>(rows, rest)
            z = Reshape(y, shape)
        }""")
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = -1
    feeds = {"x": np.zeros((3, 4), np.float32), "y": np.arange(24, dtype=np.float32).reshape(6, 4)}
    sizes, z = ingot.InferenceSession(model).run(None, feeds)
    assert sizes.tolist() == [3, 4]
    np.testing.assert_array_equal(z, feeds["y"].reshape(3, 8))


def test_outputs_are_chosen_by_name_and_are_new_arrays(session: ingot.InferenceSession) -> None:
    (total,) = session.run(["total"], feed())
    again = session.run(["total", "y"], feed())
    assert again[0] is not total
    total[:] = 0
    assert (again[0] != 0).any()


def test_an_output_that_is_asked_for_twice_is_two_arrays(session: ingot.InferenceSession) -> None:
    first, total, second = session.run(["y", "total", "y"], feed())
    assert total.shape == (3,)
    np.testing.assert_array_equal(first, second)
    assert not np.shares_memory(first, second)


def test_what_may_be_fed(session: ingot.InferenceSession) -> None:
    """Lists, arrays that are not contiguous, no rows at all."""
    want = session.run(None, feed())[0]
    lists = {name: array.tolist() for name, array in feed().items()}
    np.testing.assert_array_equal(session.run(None, lists)[0], want)
    strided = {"x": np.asfortranarray(feed()["x"]), "shift": np.repeat(feed()["shift"], 2)[::2]}
    np.testing.assert_array_equal(session.run(None, strided)[0], want)
    assert session.run(None, feed(0))[0].shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": None}, ["'x'", "missing"]),
        ({"z": np.zeros(1)}, ["'z'", "no input", "'x'"]),
        ({"x": np.zeros((3, 4))}, ["'x'", "float64", "float32", "astype"]),
        ({"x": np.zeros(4, np.float32)}, ["'x'", "rank 1", "rank 2", "batch"]),
        ({"x": np.zeros((3, 5), np.float32)}, ["'x'", "[3, 5]", "[batch, 4]"]),
        ({"x": [[1.0, 2.0], [3.0]]}, ["'x'", "list"]),
    ],
)
def test_wrong_input_says_what_was_given_and_what_is_wanted(
    session: ingot.InferenceSession, change: dict, words: list[str]
) -> None:
    """One typed error, one line; and the session still works."""
    given = {name: array for name, array in (feed() | change).items() if array is not None}
    with pytest.raises(ingot.errors.InputError) as caught:
        session.run(None, given)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, f"{message!r} does not mention {word!r}"
    session.run(None, feed())


def test_sizes_that_do_not_fit_each_other(session: ingot.InferenceSession) -> None:
    with pytest.raises(ingot.errors.ShapeError, match="Add"):
        session.run(None, {"x": np.zeros((3, 4), np.float32), "shift": np.arange(2)})
    session.run(None, feed())


def test_no_names_are_all_outputs(session: ingot.InferenceSession) -> None:
    assert len(session.run([], feed())) == 2


def test_strings_that_pass_through_are_the_callers_no_more() -> None:
    session = ingot.InferenceSession(
        onnx.parser.parse_model(
            """<ir_version: 10, opset_import: ["" : 20]>
            g (string[n] s) => (string[n] same, string[2] k) {
                same = Identity(s)
                k = Constant<value_strings=["a", "b"]>()
            }"""
        )
    )
    given = np.array(["x", "y"], object)
    for _ in range(2):
        same, constant = session.run(None, {"s": given})
        assert same.tolist() == ["x", "y"]
        assert constant.tolist() == ["a", "b"]
        same[0] = constant[0] = "changed"
    assert given.tolist() == ["x", "y"]


def test_an_unknown_output_is_an_error(session: ingot.InferenceSession) -> None:
    with pytest.raises(ingot.errors.InputError, match="no output 'nothing'"):
        session.run(["nothing"], feed())


def test_an_index_out_of_range_is_an_error() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
    g (float[n, 4] x, int64[k] i) => (float[k, 4] y) { y = Gather(x, i) }"""
    session = ingot.InferenceSession(onnx.parser.parse_model(text))
    x = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x, "i": np.array([3, -4])})[0], x[[3, 0]])
    for bad in (4, -5):
        with pytest.raises(ingot.errors.InputError, match="Gather"):
            session.run(None, {"x": x, "i": np.array([0, bad])})
    np.testing.assert_array_equal(session.run(None, {"x": x, "i": np.array([1, 1])})[0], x[[1, 1]])


def test_files_that_are_no_models(tmp_path: Path, model: onnx.ModelProto) -> None:
    data = model.SerializeToString()
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_text("not a model at all")
    (tmp_path / "torn.onnx").write_bytes(data[: len(data) // 2])
    for name in ("missing.onnx", "empty.onnx", "text.onnx", "torn.onnx"):
        with pytest.raises(ingot.errors.ModelError) as caught:
            ingot.InferenceSession(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_unknown_operator_is_named() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20, "my.own" : 1]>
    g (float[n] x) => (float[n] y) { y = my.own.Wobble(x) }"""
    with pytest.raises(ingot.errors.UnsupportedOperatorError, match="Wobble"):
        ingot.InferenceSession(onnx.parser.parse_model(text))


def test_providers(model: onnx.ModelProto) -> None:
    with pytest.warns(RuntimeWarning, match="CUDAExecutionProvider"):
        session = ingot.InferenceSession(model, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert session.get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(ingot.errors.ProviderError, match="CUDAExecutionProvider"):
        ingot.InferenceSession(model, providers=["CUDAExecutionProvider"])
    with pytest.raises(ingot.errors.ProviderError, match="CPUProvider"):
        ingot.InferenceSession(model, providers=["CPUProvider"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ingot.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert ingot.get_available_providers() == ["CPUExecutionProvider"]


def test_concurrent_runs_give_the_same_bits(session: ingot.InferenceSession) -> None:
    """Many threads, different shapes, one session."""
    feeds = [feed(rows) for rows in (1, 2, 30, 400)]
    wanted = [session.run(None, f) for f in feeds]
    wrong: list[str] = []

    def work(offset: int) -> None:
        for turn in range(100):
            which = (turn + offset) % len(feeds)
            for given, want in zip(session.run(None, feeds[which]), wanted[which], strict=True):
                if not np.array_equal(given, want):
                    wrong.append(f"shape {want.shape} in turn {turn}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:5]


def test_plans_used_last_are_kept(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MOST_PLANS", 2)
    session = ingot.InferenceSession(model)
    for rows in (1, 2, 1, 3):
        session.run(None, feed(rows))
    kept = [stage.results[0][0][0] for stage in session._driver._stages.values()]
    assert kept == [1, 3], "the plan that was used before the last is gone"


def test_every_level_of_optimisation_gives_the_same_function(model: onnx.ModelProto) -> None:
    for level in ingot.GraphOptimizationLevel:
        options = ingot.SessionOptions()
        options.graph_optimization_level = level
        options.intra_op_num_threads = 1
        y, _ = ingot.InferenceSession(model, options).run(None, feed())
        np.testing.assert_array_equal(y, feed()["x"] + feed()["shift"][:, None].astype(np.float32))


def test_inputs_whose_memory_is_not_writable_or_not_there(session: ingot.InferenceSession) -> None:
    """Read-only arrays, arrays of no elements, and dtypes that Python's buffers do not know."""
    given = feed()
    want = session.run(None, given)
    for array in given.values():
        array.setflags(write=False)
    for got, other in zip(session.run(None, given), want, strict=True):
        np.testing.assert_array_equal(got, other)
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        g (bfloat16[n] x) => (bfloat16[n] y) { y = Add(x, x) }""")
    doubling = ingot.InferenceSession(model)
    for size in (0, 5):
        x = np.arange(size).astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(doubling.run(None, {"x": x})[0], x + x)


def test_folded_weights_are_the_same_function_for_every_shape(tmp_path: Path) -> None:
    """BatchNormalization's factors wait with the weights in the file until a kernel packs them; a later shape
    that packs them in another way reads them again.
    """
    generator = np.random.default_rng(0)
    arrays = {
        "w": generator.standard_normal((96, 64, 3, 3)) / 24,
        "v": generator.standard_normal((96, 32, 2, 2)) / 10,
        **{name: generator.uniform(0.5, 3.0, 96) for name in ("s", "b", "m", "var")},
        **{f"{name}2": generator.uniform(0.5, 3.0, 32) for name in ("s", "b", "m", "var")},
    }
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        g (float[n, 64, h, k] x) => (float[n, 32, p, q] y) {
            a = Conv<pads=[1, 1, 1, 1]>(x, w)
            c = BatchNormalization(a, s, b, m, var)
            d = ConvTranspose<strides=[2, 2]>(c, v)
            y = BatchNormalization(d, s2, b2, m2, var2)
        }""")
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    plain = ingot.SessionOptions()
    plain.graph_optimization_level = ingot.GraphOptimizationLevel.ORT_DISABLE_ALL
    folded, direct = ingot.InferenceSession(path), ingot.InferenceSession(path, plain)
    for shape in ((1, 64, 5, 7), (2, 64, 40, 40), (1, 64, 1, 1), (1, 64, 64, 64)):
        x = generator.standard_normal(shape).astype(np.float32)
        (got,), (want,) = folded.run(None, {"x": x}), direct.run(None, {"x": x})
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


def test_a_name_alone_is_a_list_of_providers() -> None:
    assert choose("CPUExecutionProvider") == ["CPUExecutionProvider"]
    wrong: Any = [1]
    with pytest.raises(ingot.ProviderError, match="entry 1;"):
        choose(wrong)


@pytest.mark.parametrize("names", [3, [["y"]], [None], [0]])
def test_output_names_that_are_none(session: ingot.InferenceSession, names: object) -> None:
    with pytest.raises(ingot.InputError, match=r"output_names is of type int|the model has no output"):
        session.run(names, feed())  # type: ignore[arg-type]


def test_output_names_that_are_read_once(session: ingot.InferenceSession) -> None:
    """A generator, or names that NumPy holds, are as good as a list."""
    names = [value.name for value in session.get_outputs()]
    want = session.run(names, feed())
    for given in ((name for name in names), np.array(names)):
        got = session.run(given, feed())  # type: ignore[arg-type]
        assert len(got) == len(want), "names that were read once were taken for none"
        np.testing.assert_array_equal(got[0], want[0])


@pytest.mark.parametrize("rounds", [0, -1, "2"])
def test_a_profile_takes_rounds(session: ingot.InferenceSession, rounds: object) -> None:
    with pytest.raises(ingot.InputError, match=f"rounds is {rounds!r}"):
        session.profile(feed(), rounds)  # type: ignore[arg-type]


def test_a_session_is_not_pickled_and_copies_are_itself(session: ingot.InferenceSession) -> None:
    with pytest.raises(ingot.InputError, match="make a session there"):
        pickle.dumps(session)
    assert copy.copy(session) is session
    assert copy.deepcopy([session])[0] is session


def test_a_condition_of_several_elements_is_refused() -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[2] x, bool[N] c) => (float[2] y) {
            y = If (c) <then_branch = t () => (float[2] p) { p = Neg(x) },
                        else_branch = e () => (float[2] q) { q = Abs(x) }>
        }""")
    session = ingot.InferenceSession(proto)
    with pytest.raises(ingot.ModelError, match=r"If 'y' \(opset 20\): its condition has shape \[2\]"):
        session.run(None, {"x": np.ones(2, np.float32), "c": np.ones(2, bool)})


def test_a_value_that_nobody_makes_is_named_with_its_reader() -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[2] x) => (float[2] y) { y = Add(x, q) }""")
    with pytest.raises(ingot.ModelError, match=r"Add 'y' \(opset 20\) reads 'q'"):
        ingot.InferenceSession(proto)


def test_what_a_last_node_of_data_leaves_is_the_callers_own() -> None:
    """Outputs beside it that are inputs, constants or one array twice share no memory with anything."""
    text = """<ir_version: 10, opset_import: ["" : 20]>
    g (float[n] x) => (int64[1, m] places, float[n] same, float[n] twice, float[n] again, float[2] fixed)
    <float[2] numbers = {1.0, 2.0}> {
        same = Identity(x)
        twice = Add(x, x)
        again = Identity(twice)
        fixed = Identity(numbers)
        places = NonZero(x)
    }"""
    session = ingot.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    x = np.array([0, 1, 0, 2], np.float32)
    for _ in range(2):
        outputs = session.run(None, {"x": x})
        assert [y.tolist() for y in outputs] == [[[1, 3]], [0, 1, 0, 2], [0, 2, 0, 4], [0, 2, 0, 4], [1, 2]]
        assert all(y.flags.c_contiguous and y.flags.writeable for y in outputs)
        for y in outputs:
            others = [x, *(z for z in outputs if z is not y)]
            assert not any(np.shares_memory(y, z) for z in others)
            y[...] = 7
        x[...] = [0, 1, 0, 2]
