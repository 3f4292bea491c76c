"""Images of a batch one after the other: the same results, and only where images are alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ingot
from ingot.codegen.machine import host
from ingot.compiler import images, lower
from ingot.compiler.images import Region
from ingot.ops.interpreter import interpret
from tests.compiler.test_random_graphs import MOST_ELEMENTS, Maker, is_right
from tests.passes.graphs import parse, with_weights


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Region]:
    """All that is lowered for one image at a time from here on: whatever can be is."""
    kept: list[Region] = []
    _pay(monkeypatch, kept)
    return kept


def _pay(monkeypatch: pytest.MonkeyPatch, kept: list[Region]) -> None:
    regions = images.regions

    def noting(*args: Any) -> list[Region]:
        made = regions(*args)
        kept.extend(made)
        return made

    monkeypatch.setattr(lower, "regions", noting)
    monkeypatch.setattr(images, "_LARGE", 0)
    monkeypatch.setattr(images, "_LEAST", 0)
    monkeypatch.setattr(images, "_FITTING", 1 << 40)
    monkeypatch.setattr(images, "_MOST_WEIGHTS", 1 << 40)


class Network(Maker):
    """A network of images, with whatever does not treat them alike in between."""

    def value(self, rank: int | None = None, least: int = 0) -> str | None:
        """Mostly the newest: a chain with branches."""
        names = [n for n, s in self.shapes.items() if len(s) >= least and rank in (None, len(s))]
        return names[-1] if names and self.integer(0, 4) else super().value(rank, least)

    def pool(self) -> None:
        x = self.value(rank=4)
        if x is not None:
            n, c, h, w = self.shapes[x]
            if min(h, w) >= 2:
                shape = (n, c, h // 2, w // 2)
                kind = self.pick(["MaxPool", "AveragePool"])
                self.node(kind, [x], shape, kernel_shape=[2, 2], strides=[2, 2])

    def pool_with_places(self) -> None:
        x = self.value(rank=4)
        if x is not None and min(self.shapes[x][2:]) >= 2:
            n, c, h, w = self.shapes[x]
            self.node("MaxPool", [x], (n, c, h - 1, w - 1), kernel_shape=[2, 2])
            places = f"places{len(self.nodes)}"
            self.nodes[-1].output.append(places)
            floats = f"floats{len(self.nodes)}"
            self.nodes.append(onnx.helper.make_node("Cast", [places], [floats], to=1))
            self.shapes[floats] = (n, c, h - 1, w - 1)

    def global_pool(self) -> None:
        x = self.value(rank=4)
        if x is not None and 0 not in self.shapes[x]:
            self.node("GlobalAveragePool", [x], (*self.shapes[x][:2], 1, 1))

    def resize(self) -> None:
        x = self.value(rank=4)
        if x is not None and 0 not in self.shapes[x]:
            n, c, h, w = self.shapes[x]
            if n * c * h * w * 4 <= MOST_ELEMENTS:
                scales = self.weight(np.array([1.0, 1.0, 2.0, 2.0], np.float32))
                mode = self.pick(["nearest", "linear"])
                self.node("Resize", [x, "", scales], (n, c, 2 * h, 2 * w), mode=mode)

    def mean(self) -> None:
        x = self.value(rank=4)
        if x is not None and 0 not in self.shapes[x]:
            axes = self.pick([[2, 3], [1], [0, 2], [-1]])
            shape = tuple(1 if d in axes or d - 4 in axes else size for d, size in enumerate(self.shapes[x]))
            self.node(self.pick(["ReduceMean", "ReduceMax"]), [x, self.integers(axes)], shape)

    def normalise_channels(self) -> None:
        x = self.value(rank=4)
        if x is not None and 0 not in self.shapes[x]:
            c = self.shapes[x][1]
            inputs, shape = [x, self.floats(c), self.floats(c)], self.shapes[x]
            if self.integer(0, 1):
                self.node("InstanceNormalization", inputs, shape, epsilon=1e-2)
            else:
                self.node("GroupNormalization", inputs, shape, num_groups=c, epsilon=1e-2)

    def normalise_batch(self) -> None:
        x = self.value(rank=4)
        if x is not None:
            c = self.shapes[x][1]
            variance = self.weight(self.random.uniform(0.5, 2.0, c).astype(np.float32))
            inputs = [x, self.floats(c), self.floats(c), self.floats(c), variance]
            self.node("BatchNormalization", inputs, self.shapes[x])


_KINDS = [
    *[Maker.conv] * 9, *[Maker.concat] * 4, *[Maker.unary] * 4, *[Maker.binary] * 5, *[Network.pool] * 3,
    *[Network.normalise_batch] * 3, Network.normalise_channels, Network.pool_with_places, Network.global_pool,
    Network.resize, Network.mean, Maker.split,
]  # fmt: skip


@st.composite
def networks(draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A network of 6 to 20 nodes over two to four images, and what to feed it."""
    make = Network(draw)
    for _ in range(make.integer(1, 2)):
        shape = (make.pick([2, 2, 3, 4]), make.pick([3, 8, 9, 16]), *make.pick([(7, 5), (8, 8), (1, 9)]))
        assert math.prod(shape) <= MOST_ELEMENTS
        make.shapes[make.feed(make.random.standard_normal(shape).astype(np.float32))] = shape
    count = make.integer(6, 20)
    for _ in range(3 * count):
        if len(make.nodes) < count:
            make.pick(_KINDS)(make)
    return make.model()


_MADE: list[Region] = []


@given(networks())
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def _networks_are_right(case: tuple[onnx.ModelProto, dict[str, np.ndarray]]) -> None:
    is_right(*case)


def test_random_networks(found: list[Region]) -> None:
    """Of whatever is before, between and behind what is lowered for one image at a time."""
    _networks_are_right()
    assert len(found) > 40, "hardly anything was lowered for one image at a time: this tests nothing"
    kept = [len(region.kept) for region in found]
    assert max(kept) > 1, "no region had two results"


_BLOCK = """
    g (float[N, 8, H, W] x, float[16, 8, 1, 1] w, float[16, 1, 3, 3] d, float[8, 16, 1, 1] p,
       float[8, 16, 3, 3] q) => (float[N, 8, H, W] y, float[N, 16, H, W] z) {
      a = Conv (x, w)
      b = Relu (a)
      c = Conv <group = 16, pads = [1, 1, 1, 1]> (b, d)
      e = Relu (c)
      f = Conv (e, p)
      h = Add (f, x)
      i = Sigmoid (h)
      z = Concat <axis = 1> (h, i)
      y = Conv <pads = [1, 1, 1, 1]> (z, q)
    }
"""


def _block(weights: int = 0) -> ir.Model:
    random = np.random.default_rng(weights)
    shapes = {"w": (16, 8, 1, 1), "d": (16, 1, 3, 3), "p": (8, 16, 1, 1), "q": (8, 16, 3, 3)}
    made = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return with_weights(parse(_BLOCK), **made)


def _close(got: list[np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    for ours, theirs in zip(got, wanted.values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max(initial=1e-30))


def test_a_block_has_steps_for_each_image(found: list[Region]) -> None:
    """What lies between its nodes is one image's; its inputs and outputs are of all."""
    model = _block()
    session = ingot.InferenceSession(ir.to_proto(model))
    sizes: dict[int, int] = {}
    for batch in (2, 8):
        x = np.random.default_rng(batch).standard_normal((batch, 8, 20, 20)).astype(np.float32)
        _close(session.run(None, {"x": x}), interpret(model, {"x": x}))
        kernels = session.profile_kernels({"x": x}, 1)
        sizes[batch] = len(kernels)
    assert [region.batch for region in found] == [2, 8]
    assert [value.name for value in found[0].kept] == ["z", "y"]
    assert sizes[8] - sizes[2] >= 6 * 4, "each of six more images has its own steps"


def test_sizes_that_change_by_recipes(found: list[Region]) -> None:
    """Batches and images of many sizes, one after the other, as they come."""
    model = _block(1)
    session = ingot.InferenceSession(ir.to_proto(model))
    random = np.random.default_rng(0)
    for _ in range(24):
        shape = (int(random.integers(0, 6)), 8, int(random.integers(1, 12)), int(random.integers(1, 12)))
        x = random.standard_normal(shape).astype(np.float32)
        before = len(found)
        _close(session.run(None, {"x": x}), interpret(model, {"x": x}))
        batches = [region.batch for region in found[before:]]  # noted ones belong to a recipe
        assert {size for size in batches if type(size) is int} <= {shape[0]}, "a region of another batch"
    assert found


def test_a_concat_that_others_read_within_a_concat_that_others_read(found: list[Region]) -> None:
    """Both have the memory of all images, the first one in the place of the second."""
    text = """
    g (float[2, 3, 4, 6] x, float[4, 3, 1, 1] w, float[4, 12, 1, 1] v)
        => (float[a, 12, 2, 3] m, float[b, 4, 2, 3] y) {
      a = Conv (x, w)
      p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
      m = Concat <axis = 1> (p, p, p)
      n = Concat <axis = 0> (m, m)
      y = Conv (n, v)
    }
    """
    random = np.random.default_rng(3)
    weights = {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in (("w", (4, 3, 1, 1)), ("v", (4, 12, 1, 1)))
    }
    model = with_weights(parse(text), **weights)
    x = random.standard_normal((2, 3, 4, 6)).astype(np.float32)
    _close(ingot.InferenceSession(ir.to_proto(model)).run(None, {"x": x}), interpret(model, {"x": x}))
    assert found


@pytest.mark.parametrize(
    "mixing",
    [
        "m = Softmax <axis = 0> (a)",
        "m = Add (a, k)",  # a constant of its own for each image
        "m = ReduceMax <keepdims = 1> (a, first)",
        "m = Concat <axis = 0> (a, a)",
        "m, places = MaxPool <kernel_shape = [2, 2]> (a)",
    ],
)
def test_what_does_not_treat_images_alike_is_lowered_for_all(mixing: str, found: list[Region]) -> None:
    text = f"""
    g (float[3, 4, 6, 6] x, float[4, 4, 3, 3] w, float[3, 4, 1, 1] k, int64[1] first)
        => (float[a, b, c, d] y, float[e, f, g, h] z) {{
      early = Conv <pads = [1, 1, 1, 1]> (x, w)
      before = Conv <pads = [1, 1, 1, 1]> (early, w)
      a = Conv <pads = [1, 1, 1, 1]> (before, w)
      {mixing}
      y = Conv <pads = [1, 1, 1, 1]> (m, w)
      z = Conv <pads = [1, 1, 1, 1]> (y, w)
    }}
    """
    random = np.random.default_rng(5)
    weights = {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in (("w", (4, 4, 3, 3)), ("k", (3, 4, 1, 1)))
    }
    model = with_weights(parse(text), first=np.array([0]), **weights)
    x = random.standard_normal((3, 4, 6, 6)).astype(np.float32)
    _close(ingot.InferenceSession(ir.to_proto(model)).run(None, {"x": x}), interpret(model, {"x": x}))
    mixed = [node for node in model.graph if node.op_type != "Conv"]
    made = {output for node in mixed for output in node.outputs}
    assert found, "nothing was lowered for one image at a time: this tests nothing"
    assert not made.intersection([value for region in found for value in region.values])


def test_a_region_whose_steps_cannot_come_again_is_lowered_for_all(
    found: list[Region], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that turns out to be the host's."""
    model = _block(2)
    monkeypatch.setattr(type(_op("Sigmoid")), "lower", lambda *_: False)
    x = np.random.default_rng(2).standard_normal((3, 8, 6, 7)).astype(np.float32)
    session = ingot.InferenceSession(ir.to_proto(model))
    _close(session.run(None, {"x": x}), interpret(model, {"x": x}))
    assert found
    assert "host" in {step.kind for step in session.profile({"x": x}, rounds=1)}


def _op(name: str) -> Any:
    from ingot.ops.registry import registered

    return registered("", name)


def test_when_it_pays() -> None:
    """From a few times L2 on for all images; of one neither next to nothing nor more than L3 would keep."""
    l2 = host().l2_bytes
    assert images._pays(8 * l2, 8, l2)
    assert not images._pays(2 * l2, 2, l2), "all of it stays in the cache"
    assert not images._pays(8 * l2, 64, l2), "a step of one image is too short"
    assert not images._pays(64 * l2, 2, l2), "one image is too large for any cache"
