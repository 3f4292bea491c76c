"""Inputs from the command line: sizes, random arrays, files; each mistake names the option to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ingot.errors import InputError, ModelError
from ingot.feeds import check_suffix, parse_dim, parse_shape, random_feed, read_feed, save_outputs, sizes_of
from ingot.runtime.options import NodeArg

IMAGE = NodeArg("image", "tensor(float)", ["batch", 3, "h", "w"])
IDS = NodeArg("ids", "tensor(int64)", ["batch", "length"])


def test_parse_shape() -> None:
    assert parse_shape("image:1x3x224x224") == ("image", [1, 3, 224, 224], None)
    assert parse_shape("ids:batchx128:int64") == ("ids", ["batch", 128], "int64")
    assert parse_shape("scale:") == ("scale", [], None)
    assert parse_shape("a:b:2") == ("a:b", [2], None)  # names of other exporters hold colons
    assert parse_shape("input:0:1xn:float16") == ("input:0", [1, "n"], "float16")
    assert parse_shape("input:0:n") == ("input:0", ["n"], None)


@pytest.mark.parametrize("text", ["image", "image:1x-3", "image:1x3.5", ":1x2"])
def test_parse_shape_refuses(text: str) -> None:
    with pytest.raises(InputError, match="image:1x3x224x224"):
        parse_shape(text)


def test_parse_dim() -> None:
    assert parse_dim("batch=4") == ("batch", 4)
    for text in ("batch", "=4", "batch=x"):
        with pytest.raises(InputError, match="batch=4"):
            parse_dim(text)


def test_sizes_come_from_shapes_then_dims_then_a_batch_of_one() -> None:
    assert sizes_of(IMAGE, {"image": [2, 3, 8, 8]}, {}) == (2, 3, 8, 8)
    assert sizes_of(IMAGE, {}, {"h": 32, "w": 64}) == (1, 3, 32, 64)
    assert sizes_of(IMAGE, {"image": ["batch", 3, 8, "w"]}, {"batch": 5, "w": 9}) == (5, 3, 8, 9)
    with pytest.raises(InputError, match=r"--shape image:SIZEx3xSIZExSIZE or --dim h=SIZE"):
        sizes_of(IMAGE, {}, {})


@pytest.mark.parametrize("text", ["image:1x3x32x32:floaty", "image:1x3x4x4:floax32"])
def test_a_word_that_is_no_dtype_is_not_taken_for_dims(text: str) -> None:
    name, dims, _ = parse_shape(text)
    with pytest.raises(InputError, match=f"--shape {text}: 'floa.*' is no dtype; it may be float"):
        random_feed([IMAGE], {name: dims}, {}, seed=0)


def test_random_feed_repeats_and_integers_are_safe_token_ids() -> None:
    feed = random_feed([IMAGE, IDS], {}, {"h": 4, "w": 4, "length": 50}, seed=3)
    again = random_feed([IMAGE, IDS], {}, {"h": 4, "w": 4, "length": 50}, seed=3)
    assert {name: (array.dtype, array.shape) for name, array in feed.items()} == {
        "image": (np.float32, (1, 3, 4, 4)),
        "ids": (np.int64, (1, 50)),
    }
    assert set(np.unique(feed["ids"])) == {0, 1}
    for name in feed:
        np.testing.assert_array_equal(feed[name], again[name])


NUMBERS = [d for d in ir.DataType if d not in (ir.DataType.UNDEFINED, ir.DataType.STRING)]


@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: dtype.name)
def test_random_feed_of_every_type_of_numbers(dtype: ir.DataType) -> None:
    drawn = random_feed([NodeArg("x", f"tensor({dtype.name.lower()})", [100])], {}, {})["x"]
    assert drawn.dtype == dtype.numpy()
    numbers = drawn.astype(np.complex128)
    assert np.isfinite(numbers).all() and len(np.unique(numbers)) > 1


def test_random_feed_refuses_unknown_names_and_strings() -> None:
    with pytest.raises(InputError, match=r"--shape imgae.*it has image"):
        random_feed([IMAGE], {"imgae": [1]}, {})
    with pytest.raises(InputError, match=r"--dim q.*it has batch, h, w"):
        random_feed([IMAGE], {}, {"h": 4, "w": 4, "q": 3})
    with pytest.raises(InputError, match="--shape image: --input gives it from a file"):
        random_feed([IMAGE], {"image": [1, 3, 2, 2]}, {}, given={"image"})
    with pytest.raises(InputError, match=r"--input words=FILE\.npy"):
        random_feed([NodeArg("words", "tensor(string)", [1])], {}, {})
    with pytest.raises(InputError, match=r"is seq\(tensor\(float\)\), .*run the model in Python"):
        random_feed([NodeArg("images", "seq(tensor(float))", [])], {}, {})


def test_a_dtype_is_the_models_or_refused() -> None:
    for dtype in ("float", "float32"):
        feed = random_feed([IMAGE], {"image": [1, 3, 2, 2]}, {}, dtypes={"image": dtype})
        assert feed["image"].dtype == np.float32
    with pytest.raises(InputError, match="int64 was asked for and the model takes float32"):
        random_feed([IMAGE], {"image": [1, 3, 2, 2]}, {}, dtypes={"image": "int64"})


def test_read_feed(tmp_path: Path) -> None:
    one, two = np.ones((1, 2), np.int64), np.zeros(3, np.float32)
    np.save(tmp_path / "one.npy", one)
    np.savez(tmp_path / "both.npz", ids=one, image=two)
    (tmp_path / "text.npy").write_text("not an array")
    assert read_feed([IDS], [str(tmp_path / "one.npy")])["ids"].shape == (1, 2)
    assert set(read_feed([IDS, IMAGE], [str(tmp_path / "both.npz")])) == {"ids", "image"}
    assert set(read_feed([IDS, IMAGE], [f"ids={tmp_path / 'one.npy'}"])) == {"ids"}
    with pytest.raises(InputError, match=r"which input is it\? Write NAME="):
        read_feed([IDS, IMAGE], [str(tmp_path / "one.npy")])
    with pytest.raises(InputError, match="has 'image', and the model has no such input; it has ids"):
        read_feed([IDS], [str(tmp_path / "both.npz")])
    (tmp_path / "empty.npy").touch()
    (tmp_path / "cut.npy").write_bytes((tmp_path / "one.npy").read_bytes()[:-1])
    (tmp_path / "broken.npz").write_bytes((tmp_path / "both.npz").read_bytes()[:40])
    np.savez(tmp_path / "objects.npz", ids=np.array([{}], dtype=object))
    for name in ("text.npy", "empty.npy", "cut.npy", "broken.npz", "objects.npz"):
        with pytest.raises(InputError, match=r"is not a \.npy or \.npz file, or broken") as refused:
            read_feed([IDS], [str(tmp_path / name)])
        assert "pickle" not in str(refused.value)
    with pytest.raises(InputError, match=r"nowhere\.npy: there is no such file.*working directory is"):
        read_feed([IDS], [f"ids={tmp_path / 'nowhere.npy'}"])
    with pytest.raises(
        InputError, match=r"both\.npz: 'image' has dtype float32; .*wants int64.*numpy\.savez of arr"
    ):
        read_feed([IDS, NodeArg("image", "tensor(int64)", [3])], [str(tmp_path / "both.npz")])


@pytest.mark.parametrize("name", ["BFLOAT16", "FLOAT8E4M3FN", "INT4", "FLOAT8E8M0"])
def test_files_of_types_that_numpy_does_not_know(tmp_path: Path, name: str) -> None:
    arg = NodeArg("x", f"tensor({name.lower()})", [2, 5])
    drawn = random_feed([arg], {}, {})["x"]
    np.save(tmp_path / "x.npy", drawn)
    read = read_feed([arg], [str(tmp_path / "x.npy")])["x"]
    assert read.dtype == ir.DataType[name].numpy()
    np.testing.assert_array_equal(read, drawn)
    with pytest.raises(InputError, match="the model wants float16"):
        read_feed([NodeArg("x", "tensor(float16)", [2, 5])], [str(tmp_path / "x.npy")])


def test_save_outputs(tmp_path: Path) -> None:
    y = np.arange(3.0)
    save_outputs(["y", "z"], [y, y + 1], tmp_path / "out.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["z"], y + 1)
    save_outputs(["y"], [y], tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), y)
    with pytest.raises(InputError, match=r"2 outputs and \.npy holds one"):
        save_outputs(["y", "z"], [y, y], tmp_path / "out.npy")
    with pytest.raises(InputError, match="use one of these suffixes"):
        save_outputs(["y"], [y], tmp_path / "out.csv")
    with pytest.raises(InputError, match=r"there is no directory .*nowhere; create it first"):
        save_outputs(["y"], [y], tmp_path / "nowhere" / "out.npy")


def test_outputs_of_any_name(tmp_path: Path) -> None:
    """Those of numpy.savez's own arguments among them."""
    path = tmp_path / "outputs.npz"
    names = ["file", "allow_pickle", "args", "a/b"]
    save_outputs(names, [np.full(2, n) for n in range(4)], path)
    with np.load(path) as found:
        assert found.files == names
        assert [int(found[name][0]) for name in names] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["outputs.npz", "outputs.npy"])
def test_outputs_that_cannot_be_written_leave_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")

    def fails(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fails)
    monkeypatch.setattr(np.lib.format, "write_array", fails)
    with pytest.raises(OSError, match="disk full"):
        save_outputs(["y"], [np.ones(2)], path)
    with pytest.raises(InputError, match="output 'y' is a list"):
        save_outputs(["y"], [[np.ones(2)]], path)  # type: ignore[list-item]
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == [name]


def test_model_suffix() -> None:
    check_suffix(Path("m.onnx"))
    with pytest.raises(ModelError, match=r"written as \.onnx"):
        check_suffix(Path("m.pt"))
