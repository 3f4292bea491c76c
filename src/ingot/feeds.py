"""Inputs for a session from the command line: random ones of given sizes, or arrays from .npy and .npz
files.
"""

from __future__ import annotations

import math
import pickle
import re
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ingot.errors import InputError, ModelError

if TYPE_CHECKING:
    from ingot.runtime.options import NodeArg

#: Names of inputs may have colons: what looks like a dtype at the end is one.
_SHAPE = re.compile(
    r"(?P<name>.+?):(?P<dims>[^:]*?)(?::(?P<dtype>bool|string|double|(?:bfloat|float|u?int|complex)(?:\d\w*)?))?"
)
#: What ONNX calls float32 and float64.
_SPELLINGS = {"float": "float32", "double": "float64"}
#: What ONNX, ONNX's floats by their Python names, and PyTorch call the types of elements.
NAMES_OF_DTYPES = (
    *_SPELLINGS, "float16", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float32", "float64", "bfloat16", "complex64", "complex128",
)  # fmt: skip


def parse_shape(text: str) -> tuple[str, list[int | str], str | None]:
    """Split `image:1x3x224x224` or `ids:batchxlength:int64` into name, dims and dtype (None when it is not
    given).

    A dim is a number or a name; a scalar is `x:`. Raises InputError for anything else.
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is not NAME:DIMS; write for example image:1x3x224x224")
    dtype = match["dtype"]
    if dtype is not None and dtype not in NAMES_OF_DTYPES:
        raise InputError(f"{text!r}: {dtype!r} is no dtype; it may be {', '.join(NAMES_OF_DTYPES)}")
    dims: list[int | str] = []
    for part in match["dims"].split("x") if match["dims"] else ():
        if not _is_size(part) and not part.isidentifier():
            raise InputError(f"{text!r}: {part!r} is neither a size nor a name; write image:1x3x224x224")
        dims.append(int(part) if _is_size(part) else part)
    return match["name"], dims, dtype


def wrong_dtype(name: str, dims: Sequence[int | str], inputs: Collection[str]) -> str | None:
    """What to say of `image:1x3:flaot`, which `parse_shape` takes for dims of an input `image:1x3`."""
    if not dims or not any(name.startswith(f"{known}:") for known in inputs):
        return None
    end = "x".join(map(str, dims))
    return f"--shape {name}:{end}: {end!r} is no dtype; it may be {', '.join(NAMES_OF_DTYPES)}"


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit()


def parse_dim(text: str) -> tuple[str, int]:
    """Split `batch=4` into name and size; raises InputError for anything else."""
    name, _, size = text.partition("=")
    if not name or not _is_size(size):
        raise InputError(f"{text!r} is not NAME=SIZE; write for example batch=4")
    return name, int(size)


def sizes_of(
    arg: NodeArg, shapes: Mapping[str, Sequence[int | str]], dims: Mapping[str, int]
) -> tuple[int, ...]:
    """Return concrete sizes for one input: from `shapes`, else its own with named dims from `dims`.

    A leading dim that nobody gave is 1: a batch of one. Raises InputError, naming the option to give, for
    others.
    """
    wanted: Sequence[int | str | None] = shapes.get(arg.name, arg.shape)
    sizes: list[int] = []
    for position, dim in enumerate(wanted):
        if isinstance(dim, int):
            sizes.append(dim)
        elif dim is not None and dim in dims:
            sizes.append(dims[dim])
        elif position == 0:
            sizes.append(1)
        else:
            shown = "x".join(str(d if d is not None else "?") for d in wanted)
            example = "x".join(str(d) if isinstance(d, int) else "SIZE" for d in wanted)
            hint = f" or --dim {dim}=SIZE" if dim is not None else ""
            raise InputError(f"input {arg.name!r} is {shown}: give --shape {arg.name}:{example}{hint}")
    return tuple(sizes)


def random_feed(
    args: Sequence[NodeArg],
    shapes: Mapping[str, Sequence[int | str]],
    dims: Mapping[str, int],
    seed: int = 0,
    dtypes: Mapping[str, str] | None = None,
    given: Collection[str] = (),
) -> dict[str, NDArray[Any]]:
    """Draw an array for each input that is not `given`: floats and complex numbers from the normal
    distribution, integers and bools 0 or 1.

    0 and 1 are token ids and mask values of every vocabulary. Raises InputError for an unknown name in
    `shapes` or `dims`, or one of an input that is given; a size nobody gave, one of `dtypes` that is not the
    input's, more elements than there is memory for, or a type that cannot be drawn (strings, lists).
    """
    _check_names(args, given, shapes, dims)
    random = np.random.default_rng(seed)
    feed: dict[str, NDArray[Any]] = {}
    for arg in args:
        if arg.name in given:
            continue
        sizes = sizes_of(arg, shapes, dims)
        dtype = _dtype_of(arg)
        if dtype is None:
            raise InputError(
                f"input {arg.name!r} is {arg.type}, which is not drawn at random: {_by_hand(arg)}"
            )
        asked = (dtypes or {}).get(arg.name, dtype.name)
        if _SPELLINGS.get(asked, asked) != dtype.name:
            raise InputError(
                f"--shape {arg.name}: {asked} was asked for and the model takes {dtype.name}; "
                "leave the dtype out"
            )
        try:
            feed[arg.name] = _drawn(random, sizes, dtype)
        except (MemoryError, ValueError) as error:  # NumPy's own limit is a ValueError
            raise InputError(
                f"input {arg.name!r} of {'x'.join(map(str, sizes))} has {math.prod(sizes):,} elements, more "
                "than there is memory for; give smaller sizes"
            ) from error
    return feed


def _dtype_of(arg: NodeArg) -> np.dtype[Any] | None:
    """The dtype of an input of numbers; None where it has strings, or is no tensor."""
    name = arg.type.removeprefix("tensor(").removesuffix(")").upper()
    if name not in ir.DataType.__members__ or name in ("UNDEFINED", "STRING"):
        return None
    return np.dtype(ir.DataType[name].numpy())


def _by_hand(arg: NodeArg) -> str:
    if arg.type == "tensor(string)":
        return f"give it in a file, which `ingot run` and `ingot bench` take as --input {arg.name}=FILE.npy"
    return "run the model in Python, with ingot.InferenceSession"


def _drawn(random: np.random.Generator, sizes: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind in "biu" or "int" in dtype.name:
        return random.integers(0, 2, sizes).astype(dtype)
    normal: NDArray[Any] = random.standard_normal(sizes)
    if dtype.kind == "c":
        return (normal + 1j * random.standard_normal(sizes)).astype(dtype)
    return (np.abs(normal) if dtype == ml_dtypes.float8_e8m0fnu else normal).astype(dtype)


def _check_names(
    args: Sequence[NodeArg],
    given: Collection[str],
    shapes: Mapping[str, Sequence[int | str]],
    dims: Mapping[str, int],
) -> None:
    inputs = [(arg, arg.name) for arg in args]
    named = [(arg, d) for arg in args for d in (*arg.shape, *shapes.get(arg.name, ())) if isinstance(d, str)]
    for option, what, wanted, there in (
        ("--shape", "input", shapes, inputs),
        ("--dim", "named dim", dims, named),
    ):
        known = dict.fromkeys(name for _, name in there)
        for name in wanted:
            if name not in known:
                wrong = wrong_dtype(name, shapes[name], known) if option == "--shape" else None
                if wrong is not None:
                    raise InputError(wrong)
                raise InputError(
                    f"{option} {name}: the model has no such {what}; it has {', '.join(known) or 'none'}"
                )
            if all(arg.name in given for arg, other in there if other == name):
                raise InputError(f"{option} {name}: --input gives it from a file; leave one of them out")


def read_feed(args: Sequence[NodeArg], files: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read inputs from `NAME=FILE.npy`, from `FILE.npz` (an array per name) or, with one input, from
    `FILE.npy`.

    NumPy keeps of bfloat16 and smaller types the bytes alone: they are what the input wants. Raises
    InputError for a name the model does not have, an array of another dtype than its input's, or a file that
    is not there, not NumPy's, broken or not of plain numbers.
    """
    names = [arg.name for arg in args]
    dtypes = {arg.name: _dtype_of(arg) for arg in args}
    feed: dict[str, NDArray[Any]] = {}
    for text in files:
        name, equals, file = text.partition("=")
        if not equals or (name not in names and Path(text).exists()):
            name, file = "", text
        elif name not in names:
            raise InputError(
                f"--input {text}: the model has no input {name!r}; it has {', '.join(names) or 'none'}"
            )
        if not file:
            raise InputError(f"--input {text!r} names no file; write NAME=FILE.npy or FILE.npz")
        loaded = _loaded(file)
        if isinstance(loaded, np.ndarray):
            if not name and len(names) != 1:
                raise InputError(
                    f"{file}: which input is it? Write NAME={file}, with NAME of {', '.join(names)}"
                )
            feed[name or names[0]] = _fitting(file, name or names[0], loaded, dtypes)
            continue
        for key, array in loaded.items():
            if key not in names:
                raise InputError(
                    f"{file} has {key!r}, and the model has no such input; it has {', '.join(names)}"
                )
            feed[key] = _fitting(file, key, array, dtypes)
    return feed


def _fitting(
    file: str, name: str, array: NDArray[Any], dtypes: Mapping[str, np.dtype[Any] | None]
) -> NDArray[Any]:
    wanted, dtype = dtypes[name], array.dtype
    if wanted is None or dtype.newbyteorder("=") == wanted:
        return array
    if dtype.kind == wanted.kind == "V" and dtype.itemsize == wanted.itemsize and dtype.names is None:
        return array.view(wanted)
    convert = f"array.astype({wanted.name!r})" if dtype.kind in "biufc" else f"arrays of {wanted.name}"
    raise InputError(
        f"{file}: {name!r} has dtype {dtype}; the model wants {wanted.name}. Write the file anew, with "
        f"numpy.{'save' if file.endswith('.npy') else 'savez'} of {convert}"
    )


def _loaded(file: str) -> NDArray[Any] | dict[str, NDArray[Any]]:
    if not Path(file).exists():
        raise InputError(
            f"{file}: there is no such file. Check the path; the working directory is {Path.cwd()}"
        )
    try:
        loaded = np.load(Path(file), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return cast("NDArray[Any]", loaded)
        with loaded:
            arrays: dict[str, Any] = {key: loaded[key] for key in loaded.files}
        if all(isinstance(array, np.ndarray) for array in arrays.values()):
            return arrays
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError):
        pass  # what NumPy says is about its own options
    raise InputError(
        f"{file} is not a .npy or .npz file, or broken, or holds more than numbers; "
        "write it with numpy.save or numpy.savez"
    )


def check_place(path: Path, count: int) -> None:
    """Raise InputError where `count` outputs cannot be written to path: `.npz` holds all of them by name,
    `.npy` the only one, and the folder must be there.
    """
    if path.suffix not in (".npz", ".npy"):
        raise InputError(f"{path}: outputs are written as .npz or .npy; use one of these suffixes")
    if path.suffix == ".npy" and count != 1:
        raise InputError(f"{path}: the model has {count} outputs and .npy holds one; use .npz")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no directory {path.parent}; create it first")
    if path.is_dir():
        raise InputError(f"{path}: this is a directory; give the path of a file to write")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: this is a device, pipe or socket; give the path of a file to write")


def save_outputs(names: Sequence[str], outputs: Sequence[NDArray[Any]], path: Path) -> None:
    """Write outputs to path, where `check_place` finds nothing wrong with it: what stood there stays until
    all is written. Raises InputError for an output that is no array.
    """
    check_place(path, len(outputs))
    for name, output in zip(names, outputs, strict=True):
        if not isinstance(output, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                f"{path}: output {name!r} is a {type(output).__name__}, and NumPy's files hold arrays; run "
                "the model in Python, with ingot.InferenceSession"
            )
    with tempfile.TemporaryDirectory(prefix=".ingot-", dir=path.parent) as scratch:
        written = Path(scratch) / "outputs"
        with written.open("wb") as file:
            if path.suffix == ".npz":
                _write_all(file, names, outputs)
            else:
                np.save(file, outputs[0])
        written.replace(path)


def _write_all(file: IO[bytes], names: Sequence[str], outputs: Sequence[NDArray[Any]]) -> None:
    """A .npz; numpy.savez takes outputs called `file` or `allow_pickle` for its own arguments."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, output in zip(names, outputs, strict=True):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, output)


def check_suffix(path: Path) -> None:
    """Raise ModelError for an output path that is not .onnx: other tools go by the suffix."""
    if path.suffix != ".onnx":
        raise ModelError(f"{path}: models are written as .onnx; use that suffix")
