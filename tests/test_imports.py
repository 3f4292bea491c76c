"""What may import what: the public names, the cost of `import ingot`, and the direction between folders."""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import onnx.parser
import pytest

import ingot
from ingot.codegen import linker

PACKAGE = Path(ingot.__file__).parent

PUBLIC = [
    "DataDependentError",
    "Dim",
    "ExecutionMode",
    "ExportError",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "IngotError",
    "Input",
    "InputError",
    "MissingExtraError",
    "MissingOperatorError",
    "ModelError",
    "NodeArg",
    "OperatorError",
    "OrtValue",
    "Program",
    "ProviderError",
    "RunOptions",
    "SessionOptions",
    "ShapeError",
    "Stateful",
    "TerminatedError",
    "UnsupportedOperatorError",
    "VerificationError",
    "__version__",
    "export",
    "get_available_providers",
    "load",
    "optimize",
    "register_op",
    "save",
    "translate",
    "verify",
]

# The way of the data: a folder imports only what stands below it. Modules of the package itself (export,
# cli, …) sit on top of all folders and may import any of them; of these, folders import only BELOW_ALL.
MAY_IMPORT = {
    "codegen": set[str](),
    "kernels": {"codegen"},
    "ops": {"kernels", "codegen"},
    "passes": {"ops"},
    "compiler": {"passes", "ops", "kernels", "codegen"},
    "runtime": {"compiler", "passes", "ops", "kernels", "codegen"},
    "capture": {"passes", "ops"},
}
BELOW_ALL = {"errors", "loading", "mapped", "proto"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@functools.cache
def imported(path: Path) -> set[str]:
    """Return every module that path imports when it runs, at its top or inside functions."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []  # names in annotations are not used at run time
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write ingot.…"
            assert node.module is not None
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_at_top(path: Path) -> set[str]:
    """Return every module that is imported together with path."""
    body = [
        node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    return {
        name
        for node in body
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }


def folder_of(path: Path) -> str | None:
    """Return the folder of the package that path lies in; None for a module of the package itself."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else None


def in_fresh_python(code: str, **variables: str) -> object:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | variables
    )
    return json.loads(result.stdout)


def test_public_names_are_pinned() -> None:
    assert sorted(ingot.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_there(name: str) -> None:
    assert getattr(ingot, name) is not None
    assert name in dir(ingot)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'exprot'"):
        ingot.exprot  # noqa: B018


def test_import_ingot_imports_no_heavy_library() -> None:
    heavy = ["torch", "sympy", "onnxruntime", "llvmlite", "transformers", "onnx", "onnx_ir", "rich", "typer"]
    code = f"import json, sys, ingot; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    assert in_fresh_python(code) == []


def test_a_session_imports_no_torch() -> None:
    code = (
        "import json, sys, ingot; ingot.InferenceSession; ingot.SessionOptions;"
        "heavy = ['torch', 'onnxruntime', 'transformers', 'sympy.core'];"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    assert in_fresh_python(code) == []


@pytest.mark.parametrize("name", ["run", "dispatch", "stage", "bounds", "one_of"])
def test_a_file_of_capture_may_be_the_first_import(name: str) -> None:
    """Files that need each other do so where a function runs."""
    assert in_fresh_python(f"import ingot.capture.{name}; print(1)") == 1


@pytest.mark.skipif(not linker.IS_KNOWN, reason="LLVM's linker is used on this system")
def test_llvm_is_loaded_only_to_compile(tmp_path: Path) -> None:
    """It is 40 MB. Neither does a plain model need onnx's reference operators, 12 MB."""
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n] x) => (float[n] y) { y = Exp(x) }'
    )
    onnx.save(graph, tmp_path / "exp.onnx")
    code = (
        "import json, sys, ingot, numpy as np;"
        f"session = ingot.InferenceSession({str(tmp_path / 'exp.onnx')!r});"
        "y, = session.run(None, {'x': np.zeros(3, np.float32)}); assert (y == 1).all();"
        "heavy = ['llvmlite.binding', 'onnx.reference', 'sympy.core', 'rich', 'typer'];"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    cache = str(tmp_path / "cache")
    assert in_fresh_python(code, INGOT_CACHE_DIR=cache) == ["llvmlite.binding"], "compiled without LLVM?"
    assert in_fresh_python(code, INGOT_CACHE_DIR=cache) == []


def test_sympy_is_there_when_it_is_used() -> None:
    code = (
        "import json, ingot; ingot.InferenceSession; import onnx_ir;"
        "size = onnx_ir.SymbolicDim('n') + 1; import sympy.core.add; from sympy import Max, Symbol;"
        "n = Symbol('n'); print(json.dumps([str(size), str(Max(n, 2) - n), 2 * n == sympy.Add(n, n)]))"
    )
    assert in_fresh_python(code) == ["n + 1", "-n + Max(2, n)", True]


@pytest.mark.parametrize("first", ["sympy.core.relational", "sympy.core", "sympy.functions", "sympy"])
def test_a_part_of_sympy_that_is_imported_first_is_loaded_once(first: str) -> None:
    """Python looks for its folder, which loads the whole of sympy, and then for the part."""
    code = (
        f"import importlib, json, ingot, sys; part = importlib.import_module({first!r}); import sympy;"
        "from sympy.core.relational import Relational;"
        "print(json.dumps([part is sys.modules[part.__name__], part.__spec__.origin == part.__file__,"
        "issubclass(sympy.Eq, Relational), sympy.core.symbol.Symbol is sympy.Symbol]))"
    )
    assert in_fresh_python(code) == [True] * 4


def test_functions_stay_functions_beside_modules_of_their_name() -> None:
    """Whichever is imported first: each way in a package that was not imported before."""
    ways = [
        (name, way.format(name))
        for name in ("export", "verify")
        for way in ("import ingot.{0}", "ingot.{0}", "from ingot.{0} import {0}")
    ]
    code = f"""
import json, sys
found = []
for name, first in {ways}:
    for module in [m for m in sys.modules if m.partition(".")[0] == "ingot"]:
        del sys.modules[module]
    space = {{}}
    exec(f"import ingot; {{first}}; import ingot.{{name}}; from ingot.{{name}} import {{name}}", space)
    function = getattr(space["ingot"], name)
    found.append((first, callable(function), function is space[name]))
print(json.dumps(found))"""
    assert in_fresh_python(code) == [[first, True, True] for _, first in ways]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_imports_only_what_stands_below_it(path: Path) -> None:
    folder = folder_of(path)
    if folder is None:
        return
    assert folder in MAY_IMPORT, f"{folder}/ has no place in the order; give it one in MAY_IMPORT"
    allowed = MAY_IMPORT[folder] | BELOW_ALL | {folder}
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "ingot" and len(parts) > 1:
            assert parts[1] in allowed, (
                f"{folder}/{path.name} imports {name}; it may import {sorted(allowed)}"
            )


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_capture_imports_torch(path: Path) -> None:
    """Modules of the package itself may, inside functions that were given something of PyTorch's."""
    folder = folder_of(path)
    if folder != "capture":
        names = imported(path) if folder is not None else imported_at_top(path)
        torch = {name for name in names if name.split(".")[0] == "torch"}
        assert not torch, f"{path.relative_to(PACKAGE)} imports {sorted(torch)}: move it into capture/"
