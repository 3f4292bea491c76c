"""Random networks for images, at sizes that such networks have: convolutions of all kinds, and what stands
between them.

Graphs of a few small nodes (`chains.py`) take other kernels than these: what cuts large images into bands and
tiles, and layouts that go through several layers. A layer of `LAYERS` takes the network's image to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.helper as h
import onnx.numpy_helper

from tests.search.chains import Unfit
from tests.search.draw import Array, Draw

OPSET = 20
WIDTHS = (7, 16, 24, 32, 33, 40, 48, 64, 72, 96)
WIDEST = 300
ACTIVATIONS = ("Relu", "HardSwish", "Gelu", "LeakyRelu", "Silu", "Clip", "Affine", "")
ENLARGED = 2  # how often an image is doubled at the most
SMALLEST, LARGEST = 9, 200  # pixels of a side; most layers fit the smallest

Layer: TypeAlias = "Callable[[Network], object]"
LAYERS: list[Layer] = []


def layer(function: Layer) -> Layer:
    """Decorator: a layer that may be drawn. It raises `Unfit` where it fits no image of these channels."""
    LAYERS.append(function)
    return function


class Network:
    """A network while it grows.

    image: the name of what comes next in, of `channels` channels
    """

    def __init__(self, seed: int, layers: Sequence[Layer] = ()) -> None:
        """layers: those that it is made of, in this order; drawn if there are none"""
        self.r = Draw(seed)
        self.given = self.channels = self.r.one((1, 3, 3, 4, 8))
        self.image, self.enlarged = "image", 0
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.outputs: list[str] = []
        for function in layers or [self.r.one(LAYERS) for _ in range(self.r.integer(2, 7))]:
            try:
                function(self)
            except Unfit:
                continue
            if self.r.flag(0.15):
                self.outputs.append(self.image)

    def model(self) -> onnx.ModelProto:
        """One input of any batch and size; its last image and some on the way are outputs."""
        names = list(dict.fromkeys([*self.outputs, self.op("Identity", self.image)]))
        floats = onnx.TensorProto.FLOAT
        image = h.make_tensor_value_info("image", floats, ["batch", self.given, "height", "width"])
        outputs = [h.make_tensor_value_info(n, floats, None) for n in names]
        graph = h.make_graph(self.nodes, "network", [image], outputs, self.weights)
        return h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET)], ir_version=9)

    def feed(self, pixels: int) -> dict[str, Array]:
        """An image, or a few, of so many pixels in all at the most."""
        batch = self.r.one((1, 1, 2, 5, 8))
        height = self.r.integer(SMALLEST, min(LARGEST, pixels // batch // SMALLEST))
        width = self.r.integer(SMALLEST, min(LARGEST, pixels // batch // height))
        return {"image": self.r.floats(batch, self.given, height, width)}

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output, which is answered."""
        name = f"{op}{len(self.nodes)}"
        self.nodes.append(h.make_node(op, inputs, [name], name, **attributes))
        return name

    def constant(self, array: Any) -> str:
        name = f"constant{len(self.weights)}"
        self.weights.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape: int, inputs: int = 1) -> str:
        """Numbers that keep results as large as what they are made of."""
        return self.constant(
            self.r.rng.standard_normal(shape).astype(np.float32) / np.float32(math.sqrt(inputs))
        )

    def width(self) -> int:
        return self.r.one(WIDTHS)

    def activated(self, x: str) -> str:
        """With one of the usual activations behind it, or none."""
        kind = self.r.one(ACTIVATIONS)
        if kind == "Silu":
            return self.op("Mul", x, self.op("Sigmoid", x))
        if kind == "Clip":
            return self.op("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6)))
        if kind == "Affine":
            scaled = self.op("Mul", x, self.constant(np.float32(1.1)))
            return self.op("Relu", self.op("Add", scaled, self.constant(np.float32(0.1))))
        return self.op(kind, x) if kind else x

    def convolved(
        self,
        x: str,
        channels: int,
        width: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        pads: Sequence[int] | None = None,
    ) -> str:
        """A convolution with a bias or without; padded by half its kernel unless `pads` say otherwise."""
        inputs = channels // groups * math.prod(kernel)
        given = [x, self.weight(width, channels // groups, *kernel, inputs=inputs)]
        if self.r.flag(0.7):
            given.append(self.weight(width, inputs=10))
        half = [k // 2 * dilation for k in kernel]
        return self.op(
            "Conv",
            *given,
            kernel_shape=kernel,
            pads=[*half, *half] if pads is None else pads,
            strides=[stride, stride],
            group=groups,
            dilations=[dilation, dilation],
        )

    def become(self, image: str, channels: int) -> None:
        """What comes next in."""
        if channels > WIDEST:
            raise Unfit
        self.image, self.channels = image, channels

    def enlarge(self) -> None:
        """Note that the image is doubled; it becomes no larger than a few times."""
        if self.enlarged == ENLARGED:
            raise Unfit
        self.enlarged += 1


# ---- convolutions ------------------------------------------------------------------------------------------


def _plain(n: Network, kernel: tuple[int, int], stride: int = 1, dilation: int = 1) -> None:
    width = n.width()
    made = n.convolved(n.image, n.channels, width, kernel, stride=stride, dilation=dilation)
    n.become(n.activated(made), width)


@layer
def pointwise(n: Network) -> None:
    _plain(n, (1, 1))


@layer
def three_by_three(n: Network) -> None:
    _plain(n, (3, 3), stride=n.r.one((1, 1, 2)))


@layer
def five_by_five(n: Network) -> None:
    _plain(n, (5, 5), stride=n.r.one((1, 2)))


@layer
def dilated(n: Network) -> None:
    _plain(n, (3, 3), dilation=2)


@layer
def along_one_axis(n: Network) -> None:
    _plain(n, n.r.one(((1, 7), (5, 1), (1, 3), (3, 1))))


@layer
def depthwise(n: Network) -> None:
    """Of any padding, on each side another one."""
    kernel = n.r.one((2, 3, 5, 7))
    pads = [n.r.integer(0, kernel - 1) for _ in range(4)]
    stride, side = n.r.integer(1, 3), (kernel, kernel)
    made = n.convolved(n.image, n.channels, n.channels, side, stride=stride, groups=n.channels, pads=pads)
    n.become(n.activated(made), n.channels)


@layer
def grouped(n: Network) -> None:
    groups = [g for g in (2, 3, 4, 6, 8) if n.channels % g == 0]
    if not groups:
        raise Unfit
    group = n.r.one(groups)
    width = group * n.r.one((4, 8, 12, 16))
    made = n.convolved(n.image, n.channels, width, (3, 3), stride=n.r.one((1, 2)), groups=group)
    n.become(n.activated(made), width)


@layer
def transposed(n: Network) -> None:
    n.enlarge()
    width = n.width()
    weight = n.weight(n.channels, width, 2, 2, inputs=n.channels)
    n.become(n.op("ConvTranspose", n.image, weight, strides=[2, 2]), width)


# ---- blocks ------------------------------------------------------------------------------------------------


@layer
def residual(n: Network) -> None:
    inner = n.activated(n.convolved(n.image, n.channels, width := n.width(), (1, 1)))
    added = n.op("Add", n.image, n.convolved(inner, width, n.channels, (3, 3)))
    n.become(n.activated(added), n.channels)


@layer
def inverted_residual(n: Network) -> None:
    """The blocks of MobileNets: wider, each channel for itself, narrower."""
    inner, stride, kernel = n.channels * n.r.one((2, 3, 6)), n.r.integer(1, 2), n.r.one((3, 5, 7))
    if inner > WIDEST:
        raise Unfit
    wide = n.activated(n.convolved(n.image, n.channels, inner, (1, 1)))
    wide = n.activated(n.convolved(wide, inner, inner, (kernel, kernel), stride=stride, groups=inner))
    same = stride == 1 and n.r.flag(0.6)
    width = n.channels if same else n.width()
    narrow = n.convolved(wide, inner, width, (1, 1))
    n.become(n.op("Add", n.image, narrow) if same else narrow, width)


@layer
def squeeze_and_excite(n: Network) -> None:
    few = max(4, n.channels // 4)
    mean = n.op("GlobalAveragePool", n.image)
    mean = n.activated(n.convolved(mean, n.channels, few, (1, 1)))
    scale = n.op(n.r.one(("Sigmoid", "HardSigmoid")), n.convolved(mean, few, n.channels, (1, 1)))
    n.become(n.op("Mul", n.image, scale), n.channels)


@layer
def concatenated(n: Network) -> None:
    a = n.activated(n.convolved(n.image, n.channels, 16, (1, 1)))
    b = n.activated(n.convolved(n.image, n.channels, width := n.width(), (3, 3)))
    parts, channels = ([a, b, n.image], n.channels) if n.r.flag() else ([a, b], 0)
    n.become(n.op("Concat", *parts, axis=1), 16 + width + channels)


@layer
def taken_apart(n: Network) -> None:
    """Half of the channels go through a convolution, or decide how much of the other half is kept."""
    if n.channels % 2:
        raise Unfit
    half, names = n.channels // 2, [f"half{len(n.nodes)}", f"rest{len(n.nodes)}"]
    n.nodes.append(h.make_node("Split", [n.image], names, names[0], axis=1, num_outputs=2))
    made = n.activated(n.convolved(names[0], half, half, (3, 3)))
    if n.r.flag():
        n.become(n.op("Concat", made, names[1], axis=1), n.channels)
    else:
        n.become(n.op("Mul", made, n.op("Sigmoid", names[1])), half)


@layer
def normalised_by_channels(n: Network) -> None:
    """The blocks of ConvNeXt: channels last, normalised, and two products or none."""
    c = n.channels
    rows = n.op("Transpose", n.image, perm=[0, 2, 3, 1])
    rows = n.op("LayerNormalization", rows, n.weight(c), n.weight(c), axis=-1)
    if n.r.flag(0.6):
        rows = n.activated(n.op("MatMul", rows, n.weight(c, 2 * c, inputs=c)))
        rows = n.op("MatMul", rows, n.weight(2 * c, c, inputs=2 * c))
    n.become(n.op("Transpose", rows, perm=[0, 3, 1, 2]), c)


@layer
def attention(n: Network) -> None:
    """Two heads over an image of a quarter of the sides."""
    c = n.channels
    if c % 4:
        raise Unfit
    small = n.op("AveragePool", n.image, kernel_shape=[4, 4], strides=[4, 4])
    flat = n.op("Reshape", small, n.constant(np.array([0, c, -1])))
    rows = n.op("Transpose", flat, perm=[0, 2, 1])

    def heads() -> str:
        projected = n.op("MatMul", rows, n.weight(c, c, inputs=c))
        split = n.op("Reshape", projected, n.constant(np.array([0, 0, 2, c // 2])))
        return n.op("Transpose", split, perm=[0, 2, 1, 3])

    query, key, value = heads(), heads(), heads()
    scores = n.op("MatMul", query, n.op("Transpose", key, perm=[0, 1, 3, 2]))
    scores = n.op("Softmax", n.op("Mul", scores, n.constant(np.float32((c // 2) ** -0.5))), axis=-1)
    mixed = n.op("Transpose", n.op("MatMul", scores, value), perm=[0, 2, 1, 3])
    mixed = n.op("Add", n.op("Reshape", mixed, n.constant(np.array([0, 0, c]))), rows)
    n.become(n.op("Reshape", n.op("Transpose", mixed, perm=[0, 2, 1]), n.op("Shape", small)), c)


# ---- between them ------------------------------------------------------------------------------------------


@layer
def largest_of_windows(n: Network) -> None:
    ceiled = n.r.integer(0, 1)
    made = n.op("MaxPool", n.image, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=ceiled)
    n.become(made, n.channels)


@layer
def mean_of_windows(n: Network) -> None:
    counted = n.r.integer(0, 1)
    made = n.op("AveragePool", n.image, kernel_shape=[2, 2], pads=[0, 0, 1, 1], count_include_pad=counted)
    n.become(made, n.channels)


@layer
def resized(n: Network) -> None:
    n.enlarge()
    scales = n.constant(np.array([1, 1, 2, 2], np.float32))
    mode, places = n.r.one(("nearest", "linear")), n.r.one(("half_pixel", "asymmetric"))
    made = n.op(
        "Resize", n.image, "", scales, mode=mode, coordinate_transformation_mode=places, nearest_mode="floor"
    )
    n.become(made, n.channels)


@layer
def shuffled(n: Network) -> None:
    if n.channels % 4:
        raise Unfit
    n.enlarge()
    n.become(n.op("DepthToSpace", n.image, blocksize=2, mode="CRD"), n.channels // 4)


@layer
def padded(n: Network) -> None:
    pads = n.constant(np.array([0, 0, 1, 2, 0, 0, 3, 0]))
    n.become(n.op("Pad", n.image, pads, mode=n.r.one(("constant", "reflect", "edge"))), n.channels)


@layer
def every_second(n: Network) -> None:
    bounds = ([1, 0], [9999, 9999], [2, 3], [2, 1])
    n.become(n.op("Slice", n.image, *(n.constant(np.array(b)) for b in bounds)), n.channels)


@layer
def without_the_largest(n: Network) -> None:
    axis = n.constant(np.array([n.r.integer(1, 3)]))
    n.become(n.op("Sub", n.image, n.op("ReduceMax", n.image, axis, keepdims=1)), n.channels)


@layer
def normalised_by_images(n: Network) -> None:
    made = n.op("InstanceNormalization", n.image, n.weight(n.channels), n.weight(n.channels))
    n.become(made, n.channels)
