"""Recurrent layers against their plain definition, and the definition against ONNX's reference."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.pack import PackedWeights
from ingot.kernels.recurrent import ACTIVATIONS, Sequences, definition, pack_recurrent, recurrent
from ingot.kernels.recurrent_form import Activation
from ingot.kernels.strassen import pack_sums, pays
from tests.kernels.run import each_machine, machines, new, put, run_calls

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def layer(
    kind: str, steps: int, batch: int, inputs: int, hidden: int, directions: int
) -> dict[str, np.ndarray]:
    """Random inputs, weights and states of a layer, by their names in the definition."""
    rng, gates = np.random.default_rng(0), GATES[kind]
    shapes = {
        "x": (steps, batch, inputs),
        "w": (directions, gates * hidden, inputs),
        "r": (directions, gates * hidden, hidden),
        "b": (directions, 2 * gates * hidden),
        "p": (directions, 3 * hidden),
        "h": (directions, batch, hidden),
        "c": (directions, batch, hidden),
    }
    # Small enough for the layer not to be chaotic: rounding would grow from step to step.
    return {
        name: 0.5 * (hidden**-0.5 if name in "wr" else 1) * rng.standard_normal(shape, np.float32)
        for name, shape in shapes.items()
    }


def check(
    machine: Machine,
    kind: Any,
    sizes: tuple[int, int, int, int],
    reverse: tuple[bool, ...],
    lengths: list[int] | None = None,
    given: str = "bphc",
    wanted: str = "yhc",
    linear_before_reset: bool = False,
    activations: list[Activation] | None = None,
    batch_first: bool = False,
    clip: float | None = None,
    input_forget: bool = False,
    dtype: str = "float32",
    strassen: bool = False,
) -> None:
    steps, batch, inputs, hidden = sizes
    values = layer(kind, steps, batch, inputs, hidden, len(reverse))
    values = {name: value.astype(dtype) for name, value in values.items()}
    for name in "bphc":
        if name not in given:
            values[name][:] = 0
    each = np.full(batch, steps) if lengths is None else np.array(lengths)
    want = definition(
        kind,
        **values,
        lengths=each,
        reverse=reverse,
        linear_before_reset=linear_before_reset,
        activations=activations,
        clip=clip,
        input_forget=input_forget,
    )
    weights = pack_recurrent(
        kind,
        values["w"],
        values["r"],
        values["b"] if "b" in given else None,
        values["p"] if "p" in given and kind == "LSTM" else None,
        machine,
        linear_before_reset=linear_before_reset,
        activations=activations,
        clip=clip,
        input_forget=input_forget,
    )
    x = values["x"]
    y = new(want[0].shape, dtype)
    if batch_first:
        x = np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
        y = new((batch, steps, len(reverse), hidden), dtype).transpose((1, 2, 0, 3))
    outs = {"y": y, "h": new(want[1].shape, dtype), "c": new(want[2].shape, dtype)}
    wanted = "".join(name for name in wanted if name != "c" or kind == "LSTM")
    sequences = Sequences(
        *(outs[name] if name in wanted else None for name in "yhc"),
        reverse=reverse,
        lengths=None if lengths is None else put(np.array(lengths, np.int32)),
        h0=put(values["h"]) if "h" in given else None,
        c0=put(values["c"]) if "c" in given and kind == "LSTM" else None,
    )
    sums = None
    if strassen:
        assert isinstance(weights.inputs, PackedWeights)
        assert pays(steps * batch, weights.inputs.k, weights.inputs.n, machine), "the case is too small"
        sums = pack_sums(weights.inputs, machine)
    calls = recurrent(put(x), weights, sequences, machine, sums)
    names = [call.kernel.generator.rsplit(".", 1)[-1] for call in calls]
    assert strassen == ("strassen" in names), names
    got = run_calls(calls, *(outs[name] for name in wanted), machine=machine)
    for name, array in zip(wanted, got, strict=True):
        bound = 1e-5 if dtype == "float32" else 1e-13
        np.testing.assert_allclose(array, want["yhc".index(name)], rtol=10 * bound, atol=bound, err_msg=name)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_layers(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["LSTM", "GRU", "RNN"]))
    steps, batch = data.draw(st.integers(0, 7)), data.draw(st.integers(0, 13))
    hidden = st.integers(1, 60) | st.sampled_from([64, 96, 128, 256, 512])
    sizes = steps, batch, data.draw(st.integers(1, 20)), data.draw(hidden)
    machine = data.draw(st.sampled_from(machines()))
    # With a small L1 products are computed in parts.
    l1 = data.draw(st.sampled_from([machine.l1_bytes, 8192, 16384]))
    machine = dataclasses.replace(machine, l1_bytes=l1)
    lengths = data.draw(st.none() | st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    names = st.sets(st.sampled_from("bphc")).map("".join)
    activations = None
    if data.draw(st.booleans()):
        count = {"LSTM": 3, "GRU": 2, "RNN": 1}[kind]
        names_ = st.sampled_from(sorted(ACTIVATIONS))
        activations = [Activation(data.draw(names_), 0.3, 0.4) for _ in range(count)]
    check(
        machine,
        kind,
        sizes,
        data.draw(st.sampled_from([(False,), (True,), (False, True)])),
        lengths,
        given=data.draw(names),
        wanted="".join(n for n in "yhc" if data.draw(st.booleans())) or "y",
        linear_before_reset=kind == "GRU" and data.draw(st.booleans()),
        activations=activations,
        batch_first=data.draw(st.booleans()),
        clip=data.draw(st.sampled_from([None, 0.5])),
        input_forget=kind == "LSTM" and data.draw(st.booleans()),
        dtype=data.draw(st.sampled_from(["float32", "float64"])),
    )


@each_machine
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch", [8, 13])
def test_products_in_parts(machine: Machine, kind: str, batch: int) -> None:
    """Layers whose blocks of weights are larger than L1, of groups that differ by a sequence."""
    few = dataclasses.replace(machine, l1_bytes=16384)
    check(few, kind, (3, batch, 5, 300), (True,), [3, 1, 0, 2] * 3 + [3] if batch == 13 else None)


@each_machine
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_inputs_product_by_strassens_scheme(machine: Machine, kind: str, batch_first: bool) -> None:
    check(machine, kind, (13, 5, 256, 256), (False,), batch_first=batch_first, strassen=True)


@each_machine
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch", [1, 5, 16])
def test_usual_layers(machine: Machine, kind: str, batch: int) -> None:
    check(machine, kind, (10, batch, 32, 64), (False, True), given="bhc", linear_before_reset=kind == "GRU")


@each_machine
@pytest.mark.parametrize("hidden", [128, 256, 512])
@pytest.mark.parametrize("batch", [1, 3, 4, 8, 17])
def test_blocks_of_units_that_are_multiplied_together(machine: Machine, batch: int, hidden: int) -> None:
    """Sums of four sequences and three vectors of weights, whatever is left over of either."""
    for l1 in (machine.l1_bytes, 16384):
        here = dataclasses.replace(machine, l1_bytes=l1)
        lengths = [5, 2, 0, 3, 4] * 4
        check(here, "LSTM", (5, batch, 7, hidden), (False, True), lengths[:batch], clip=0.5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("linear_before_reset", [False, True])
def test_the_definition_is_the_operators(kind: Any, linear_before_reset: bool) -> None:
    values = layer(kind, 5, 3, 4, 6, 1)
    names = {"LSTM": "xwrblhcp", "GRU": "xwrblh", "RNN": "xwrblh"}[kind]
    feeds = {name: values[name] for name in names if name != "l"}
    attributes = {"linear_before_reset": int(linear_before_reset)} if kind == "GRU" else {}
    outputs = ["y", "yh", *(["yc"] if kind == "LSTM" else [])]
    node = helper.make_node(
        kind, [n if n != "l" else "" for n in names], outputs, hidden_size=6, **attributes
    )
    graph = helper.make_graph(
        [node],
        kind,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in feeds],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    want = ReferenceEvaluator(model).run(None, feeds)
    lengths = np.full(3, 5)
    got = definition(
        kind, **values, lengths=lengths, reverse=(False,), linear_before_reset=linear_before_reset
    )
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-6)


def test_another_dtype_than_the_weights_is_refused() -> None:
    values, machine = layer("RNN", 2, 1, 3, 4, 1), machines()[0]
    weights = pack_recurrent("RNN", values["w"], values["r"], None, None, machine)
    with pytest.raises(UnsupportedOperatorError, match="x is float64"):
        recurrent(new((2, 1, 3), "float64"), weights, Sequences(), machine)
