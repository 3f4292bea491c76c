"""MODULE:FACTORY: what may stand there, and what a mistake says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ingot.errors import ExportError, MissingExtraError
from ingot.feeds import parse_shape
from ingot.sources import Source, load_source, with_examples

CODE = """
class Model:
    def state_dict(self): return {}
    def forward(self, x): return x

made = Model()
def build(): return Model()
def with_args(): return Model(), (1, 2)
def with_one(): return Model(), 1
def with_names(): return Model(), {"x": 1}
def with_both(): return Model(), (1,), {"y": 2}
def number(): return 3
def broken(): raise RuntimeError("the user's own mistake")
class Inside:
    build = staticmethod(build)
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "some_models.py"
    path.write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return path


@pytest.mark.parametrize(
    ("factory", "args", "kwargs"),
    [
        ("build", (), {}),
        ("Model", (), {}),
        ("made", (), {}),
        ("Inside.build", (), {}),
        ("with_args", (1, 2), {}),
        ("with_one", (1,), {}),
        ("with_names", (), {"x": 1}),
        ("with_both", (1,), {"y": 2}),
    ],
)
def test_factories(factory: str, args: object, kwargs: object) -> None:
    source = load_source(f"some_models.py:{factory}")
    assert type(source.model).__name__ == "Model"
    assert (source.args, source.kwargs) == (args, kwargs)


def test_a_module_of_the_current_folder(file: Path) -> None:
    file.rename(file.with_name("dotted_models.py"))
    assert type(load_source("dotted_models:build").model).__name__ == "Model"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some_models.py", "is not MODULE:FACTORY"),
        ("some_models.py:", "is not MODULE:FACTORY"),
        ("nowhere.py:build", r"nowhere\.py is not there"),
        ("nowhere.models:build", "no module 'nowhere.models'"),
        ("some_models.py:bulid", "has no 'bulid'; it has .*build"),
        ("some_models.py:number", r"gave an object of type int; a torch\.nn\.Module is wanted"),
    ],
)
def test_mistakes(name: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        load_source(name)


def test_errors_of_the_users_code_have_its_line() -> None:
    with pytest.raises(ExportError, match=r"some_models.py:\d+: .*\n.*RuntimeError: the user's own mistake"):
        load_source("some_models.py:broken")


def test_a_missing_import_inside_the_users_module_is_not_hidden(file: Path) -> None:
    file.with_name("needs_more.py").write_text("import a_package_that_is_not_there\n")
    with pytest.raises(ExportError, match=r"needs_more.py:1: import .*\n.*'a_package_that_is_not_there'"):
        load_source("needs_more:build")


@pytest.mark.parametrize("name", ["needs_torch:build", "needs_torch.py:build"])
def test_without_torch_the_message_has_the_pip_command(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file.with_name("needs_torch.py").write_text("import torch\n")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ingot\[torch\]'"):
        load_source(name)


def test_example_is_an_array_of_sizes_or_a_spec_with_names() -> None:
    model = load_source("some_models.py:build").model
    example = with_examples("m", Source(model), [("x", [1, 3], "int64")]).kwargs["x"]
    assert isinstance(example, np.ndarray)
    assert (example.shape, example.dtype) == ((1, 3), np.int64)
    pytest.importorskip("torch")
    for dtype, found in ((None, "float32"), ("double", "float64")):
        spec = with_examples("m", Source(model), [("x", ["batch", 3], dtype)]).kwargs["x"]
        assert (spec.dtype, list(spec.shape)) == (found, ["batch", 3])


def test_a_described_input_takes_the_place_of_the_factorys() -> None:
    model = load_source("some_models.py:build").model
    made = with_examples("m", Source(model, (1,)), [("x", [2], None)])
    assert made.args[0].shape == (2,) and made.kwargs == {}
    with pytest.raises(ExportError, match="--shape y: forward has no such argument; it has x"):
        with_examples("m", Source(model, (1,)), [("y", [2], None)])
    with pytest.raises(ExportError, match="--shape x:1x3:floaty: 'floaty' is no dtype; it may be float"):
        with_examples("m", Source(model, (1,)), [parse_shape("x:1x3:floaty")])
