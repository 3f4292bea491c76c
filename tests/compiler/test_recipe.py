"""A plan that a recipe gives is the plan: table for table that of a session that has no recipes."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

import ingot
from ingot.runtime.recipes import Recipes
from tests.compiler.test_shapes import CASES, assert_same, plans, session_of

Shapes = dict[str, tuple[int, ...]]

# Windows of all kinds, volumes, joins that are written in place, and images that grow.
WINDOWS = """g (float[n, 16, h, w] x) => (float[n, 8, a, b] y, float[n, c, d, e] z) {
    p = AveragePool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(x)
    q = MaxPool<kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2]>(p)
    r = Conv<pads=[1, 1, 1, 1], strides=[2, 2], auto_pad="NOTSET">(x, square)
    j = Concat<axis=1>(p, q, r)
    k = Relu(j)
    y = Conv<pads=[1, 1, 1, 1]>(k, joined)
    t = ConvTranspose<strides=[2, 2], pads=[1, 1, 1, 1]>(q, grow)
    s = Sigmoid(t)
    axes = Constant<value_ints=[2, 3]>()
    m = ReduceMean<keepdims=1>(s, axes)
    z = Mul(s, m)
}"""
WINDOW_WEIGHTS = {"square": (16, 16, 3, 3), "joined": (8, 48, 3, 3), "grow": (16, 8, 4, 4)}

VOLUMES = """g (float[n, 4, d, h, w] x) => (float[n, 8, a, b, c] y) {
    p = Conv<pads=[1, 1, 1, 1, 1, 1]>(x, first)
    q = Relu(p)
    r = MaxPool<kernel_shape=[2, 2, 2], strides=[2, 2, 2]>(q)
    y = Conv<pads=[1, 1, 1, 1, 1, 1]>(r, second)
}"""
VOLUME_WEIGHTS = {"first": (8, 4, 3, 3, 3), "second": (8, 8, 3, 3, 3)}

# Positions, a causal mask and shapes that follow from the lengths of texts; heads by Reshape.
TEXTS = """g (float[n, t, 32] x, float[n, t] m) => (float[n, t, 32] y) {
    batch = Shape<start=0, end=1>(x)
    length = Shape<start=1, end=2>(x)
    first = Constant<value_int=0>()
    step = Constant<value_int=1>()
    count = Squeeze(length)
    ids = Range(first, count, step)
    front = Constant<value_ints=[0]>()
    back = Constant<value_ints=[1]>()
    row = Unsqueeze(ids, front)
    column = Unsqueeze(ids, back)
    places = Concat<axis=0>(batch, length)
    wide = Expand(row, places)
    known = Gather(table, wide)
    part = Slice(known_table, front, length, front)
    h0 = Add(x, known)
    h = Add(h0, part)
    allowed = LessOrEqual(row, column)
    middle = Constant<value_ints=[1, 2]>()
    m4 = Unsqueeze(m, middle)
    half = Constant<value_float=0.5>()
    there = Greater(m4, half)
    both = And(allowed, there)
    none = Constant<value_float=-1000000.0>()
    zero = Constant<value_float=0.0>()
    bias = Where(both, zero, none)
    eight = Constant<value_ints=[8]>()
    four = Constant<value_ints=[4]>()
    width = Mul(eight, four)
    heads = Concat<axis=0>(batch, length, four, eight)
    whole = Concat<axis=0>(batch, length, width)
    q = MatMul(h, wq)
    k = MatMul(h, wk)
    q4 = Reshape(q, heads)
    k4 = Reshape(k, heads)
    v4 = Reshape(h, heads)
    qt = Transpose<perm=[0, 2, 1, 3]>(q4)
    kt = Transpose<perm=[0, 2, 3, 1]>(k4)
    vt = Transpose<perm=[0, 2, 1, 3]>(v4)
    scores = MatMul(qt, kt)
    masked = Add(scores, bias)
    weights = Softmax<axis=-1>(masked)
    mixed = MatMul(weights, vt)
    turned = Transpose<perm=[0, 2, 1, 3]>(mixed)
    y = Reshape(turned, whole)
}"""
TEXT_WEIGHTS = {"table": (300, 32), "known_table": (300, 32), "wq": (32, 32), "wk": (32, 32)}

# A token of its own before patches of an image, as vision transformers have it.
PATCHES = """g (float[n, 3, h, w] x) => (float[n, t, 16] y, float[n, 16] z) {
    p = Conv<strides=[4, 4]>(x, stem)
    front = Shape<start=0, end=2>(p)
    rest = Constant<value_ints=[-1]>()
    flat_shape = Concat<axis=0>(front, rest)
    flat = Reshape(p, flat_shape)
    tokens = Transpose<perm=[0, 2, 1]>(flat)
    batch = Shape<start=0, end=1>(x)
    own = Constant<value_ints=[1, 16]>()
    shape = Concat<axis=0>(batch, own)
    class = Expand(token, shape)
    joined = Concat<axis=1>(class, tokens)
    l = LayerNormalization(joined, scale, bias)
    y = MatMul(l, mix)
    first = Constant<value_int=0>()
    z = Gather<axis=1>(y, first)
}"""
PATCH_WEIGHTS = {"stem": (16, 3, 4, 4), "token": (1, 1, 16), "scale": (16,), "bias": (16,), "mix": (16, 16)}

# Arithmetic of sizes: quotients, bounds, comparisons, floats on the way, and what is as large as it says.
ARITHMETIC = """g (float[n, c, h, w] x)
=> (float[a, b] y, float[n, c, d, e] z, float[f, g] u, int64[k] v, float[p] q) {
    rows = Shape<start=2, end=3>(x)
    columns = Shape<start=3, end=4>(x)
    batch = Shape<start=0, end=2>(x)
    two = Constant<value_ints=[2]>()
    three = Constant<value_ints=[3]>()
    one = Constant<value_ints=[1]>()
    nothing = Constant<value_ints=[0]>()
    minus = Constant<value_ints=[-1]>()
    half = Div(rows, two)
    odd = Mod(columns, two)
    even = Sub(columns, odd)
    few = Min(half, three, columns)
    many = Max(half, two)
    lead = ReduceProd<keepdims=1>(batch)
    both = Mul(rows, columns)
    all = Concat<axis=0>(lead, both)
    flat = Reshape(x, all)
    is_minus = Equal(all, minus)
    chosen = Where(is_minus, all, all)
    ones = ConstantOfShape<value=float[1] {1.0}>(chosen)
    y = Add(flat, ones)
    zeros = Concat<axis=0>(nothing, nothing)
    ends = Concat<axis=0>(many, even)
    axes = Constant<value_ints=[2, 3]>()
    part = Slice(x, zeros, ends, axes)
    z = Relu(part)
    number = Cast<to=1>(columns)
    ratio = Constant<value_floats=[0.7]>()
    scaled = Mul(number, ratio)
    up = Ceil(scaled)
    whole = Cast<to=7>(up)
    line = Concat<axis=0>(whole, few)
    u = Expand(ratio, line)
    least = Neg(many)
    begin = Squeeze(least)
    end = Squeeze(whole)
    by = Constant<value_int=2>()
    range = Range(begin, end, by)
    v = Add(range, rows)
    floats = Cast<to=1>(range)
    root = Sqrt(number)
    q = Mul(floats, root)
}"""

# Masks and positions larger than what is computed while planning.
TRIANGLES = """g (float[n, t, 8] x, float[n, t, t] m) => (float[n, t, t] y, float[n, t, t] z, int64[k] r) {
    k = Constant<value_int=1>()
    y = Trilu<upper=1>(m, k)
    shape = Shape(m)
    ones = ConstantOfShape<value=float[1] {1.0}>(shape)
    lower = Trilu<upper=0>(ones)
    z = Add(lower, m)
    count = Size(m)
    zero = Constant<value_int=0>()
    all = Range(zero, count, k)
    r = Add(all, count)
}"""

# As many of the largest as the sizes say.
LARGEST = """g (float[n, m] x) => (float[a, b] y, int64[c, d] i, float[e, f] z) {
    shape = Shape(x)
    one = Constant<value_ints=[1]>()
    two = Constant<value_ints=[2]>()
    m = Gather(shape, one)
    half = Div(m, two)
    k = Add(half, one)
    y, i = TopK<axis=-1>(x, k)
    z, j = TopK<axis=-1, largest=0>(y, one)
}"""

# Images that are made larger and smaller: by scales, to the size of others, in all modes; a table of
# positions as large as the image; a convolution of a concatenation of such images.
RESIZES = """g (float[n, 8, h, w] x)
=> (float[n, 8, a, b] y, float[n, c, d, e] z, float[n, 8, f, g] u, float[n, 8, h, w] v, float[n, 8, i, j] t) {
    shape = Shape(x)
    plane = Shape<start=2, end=4>(x)
    twice = Constant<value_floats=[1.0, 1.0, 2.0, 2.0]>()
    odd = Constant<value_floats=[1.0, 1.0, 1.7, 0.6]>()
    q0 = Conv<strides=[2, 2], pads=[1, 1, 1, 1]>(x, small)
    q = Relu(q0)
    r = Conv<strides=[2, 2], pads=[1, 1, 1, 1]>(q, small)
    y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , twice)
    q1 = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(q, , , shape)
    r1 = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(r, , , shape)
    all = Concat<axis=1>(x, q1, r1)
    z = Conv(all, fuse)
    u = Resize<mode="cubic", cubic_coeff_a=-0.5>(x, , odd)
    places = Resize<mode="cubic", axes=[2, 3]>(table, , , plane)
    v = Add(x, places)
    half = Constant<value_ints=[2, 3]>()
    less = Sub(plane, half)
    t = Resize<mode="linear", axes=[2, 3], antialias=1, keep_aspect_ratio_policy="not_larger">(x, , , less)
}"""
RESIZE_WEIGHTS = {"small": (8, 8, 3, 3), "fuse": (4, 24, 1, 1), "table": (1, 8, 7, 7)}

# Layers that read what all before them gave, joined: each is normalised, filtered by ones and by squares.
# With few pixels the squares are direct, with more Winograd's; rows are on both sides of tiles' edges.
DENSE = """g (float[n, 24, h, w] x) => (float[n, 32, a, b] y) {
    s0 = Mul(x, g0)
    t0 = Add(s0, b0)
    r0 = Relu(t0)
    c0 = Conv(r0, one0)
    k0 = Conv<pads=[1, 1, 1, 1]>(c0, square0)
    j0 = Concat<axis=1>(x, k0)
    s1 = Mul(j0, g1)
    t1 = Add(s1, b1)
    r1 = Relu(t1)
    c1 = Conv(r1, one1)
    k1 = Conv<pads=[1, 1, 1, 1]>(c1, square1)
    j1 = Concat<axis=1>(j0, k1)
    p = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(j1)
    d = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(p, down)
    e = Conv<pads=[2, 2, 2, 2], dilations=[2, 2]>(d, wide)
    y = Sigmoid(e)
}"""
DENSE_WEIGHTS = {
    "g0": (24, 1, 1), "b0": (24, 1, 1), "one0": (32, 24, 1, 1), "square0": (16, 32, 3, 3),
    "g1": (40, 1, 1), "b1": (40, 1, 1), "one1": (32, 40, 1, 1), "square1": (16, 32, 3, 3),
    "down": (20, 56, 3, 3), "wide": (32, 20, 3, 3),
}  # fmt: skip

# A table of positions that fits square images as it is and is made to fit others, a branch in a branch, and
# one that no size takes.
BRANCHES = """g (float[n, 8, h, w] x) => (float[n, 8, h, w] y) {
    height = Shape<start=2, end=3>(x)
    width = Shape<start=3, end=4>(x)
    one = Constant<value_ints=[1]>()
    many = Constant<value_ints=[20]>()
    never = Less(height, one)
    square = Equal(height, width)
    large = Less(many, height)
    checked = If(never) <
        then_branch = checked_then () => (float[1, 8, a, b] none) { none = Identity(table) },
        else_branch = checked_else () => (float[1, 8, a, b] all) { all = Relu(table) }
    >
    places = If(square) <
        then_branch = square_then () => (float[1, 8, a, b] some) {
            sides = Concat<axis=0>(height, width)
            some = Resize<mode="nearest", axes=[2, 3]>(checked, , , sides)
        },
        else_branch = square_else () => (float[1, 8, a, b] other) {
            other = If(large) <
                then_branch = large_then () => (float[1, 8, a, b] much) {
                    plane = Concat<axis=0>(height, width)
                    much = Resize<mode="linear", axes=[2, 3]>(checked, , , plane)
                },
                else_branch = large_else () => (float[1, 8, a, b] little) {
                    ones = Concat<axis=0>(height, width)
                    part = ReduceMean<axes=[2, 3], keepdims=1>(checked)
                    two = Constant<value_ints=[1, 8]>()
                    shape = Concat<axis=0>(two, ones)
                    little = Expand(part, shape)
                }
            >
        }
    >
    s = Conv<pads=[1, 1, 1, 1]>(x, square_weights)
    y = Add(s, places)
}"""
BRANCH_WEIGHTS = {"table": (1, 8, 7, 7), "square_weights": (8, 8, 3, 3)}

# The middle of each place of an image, a place after the other, up to four thousand and more.
ANCHORS = """g (float[n, 4, h, w] x) => (float[n, 2, p] y) {
    none = Constant<value_int=0>()
    one = Constant<value_int=1>()
    two = Constant<value_int=2>()
    half = Constant<value_float=0.5>()
    flat = Constant<value_ints=[-1]>()
    front = Constant<value_ints=[0]>()
    back = Constant<value_ints=[1]>()
    height = Shape<start=2, end=3>(x)
    width = Shape<start=3, end=4>(x)
    rows = Squeeze(height)
    columns = Squeeze(width)
    range_y = Range(none, rows, one)
    range_x = Range(none, columns, one)
    cast_y = Cast<to=1>(range_y)
    cast_x = Cast<to=1>(range_x)
    middle_y = Add(cast_y, half)
    middle_x = Add(cast_x, half)
    column = Unsqueeze(middle_y, back)
    line = Unsqueeze(middle_x, front)
    plane = Concat<axis=0>(height, width)
    wide_y = Expand(column, plane)
    wide_x = Expand(line, plane)
    list_y = Reshape(wide_y, flat)
    list_x = Reshape(wide_x, flat)
    row_y = Unsqueeze(list_y, front)
    row_x = Unsqueeze(list_x, front)
    anchors = Concat<axis=0>(row_x, row_y)
    batch = Shape<start=0, end=1>(x)
    pairs = Constant<value_ints=[2, -1]>()
    shape = Concat<axis=0>(batch, pairs)
    part = Conv(x, two_filters)
    found = Reshape(part, shape)
    y = Add(found, anchors)
}"""
ANCHOR_WEIGHTS = {"two_filters": (2, 4, 1, 1)}

# Images whose channels lie apart in front of 3x3 filters: as they come, and behind a normalisation.
APART = """g (float[n, 48, h, w] x) => (float[n, 48, h, w] y) {
    first = Conv<pads=[1, 1, 1, 1]>(x, square)
    normal = InstanceNormalization(first, ones, zeros)
    r = Relu(normal)
    second = Conv<pads=[1, 1, 1, 1]>(r, square)
    y = Add(x, second)
}"""
APART_WEIGHTS = {"square": (48, 48, 3, 3), "ones": (48,), "zeros": (48,)}

Draw = Callable[[random.Random], Shapes]


def image(channels: int, low: int, high: int) -> Draw:
    return lambda r: {"x": (1, channels, r.randrange(low, high), r.randrange(low, high))}


def batch(channels: int, low: int, high: int) -> Draw:
    return lambda r: {"x": (r.randrange(4), channels, r.randrange(low, high), r.randrange(low, high))}


def few_images(r: random.Random) -> Shapes:
    return {"x": (r.randrange(1, 4), 3, r.randrange(8, 40), r.randrange(8, 40))}


def grown(r: random.Random) -> Shapes:
    h, w = r.randrange(1, 40), r.randrange(1, 40)
    return {"x": (1, 8, h, w), "s": (1, 8, 2 * h, 2 * w)}


def square_or_not(r: random.Random) -> Shapes:
    h, w = r.randrange(8, 40), r.randrange(8, 40)
    return {"x": (1, 8, h, w if r.random() < 0.5 else h)}


def volume(r: random.Random) -> Shapes:
    return {"x": (1, 4, r.randrange(2, 7), r.randrange(4, 20), r.randrange(4, 20))}


def texts(low: int, high: int) -> Draw:
    def draw(r: random.Random) -> Shapes:
        n, t = r.randrange(1, 4), r.randrange(low, high)
        return {"x": (n, t, 32), "m": (n, t)}

    return draw


def squares(r: random.Random) -> Shapes:
    n, t = r.randrange(1, 4), r.randrange(2, 150)
    return {"x": (n, t, 8), "m": (n, t, t)}


#: Graphs, the shapes they are planned for, and how many of 24 plans must come from recipes at least.
GRAPHS: dict[str, tuple[str, dict[str, tuple[int, ...]], Draw, int]] = {
    "images": (*CASES["images"][:2], image(3, 16, 120), 10),
    "large images": (*CASES["images"][:2], image(3, 200, 330), 10),
    "batches": (*CASES["images"][:2], batch(3, 1, 40), 1),
    "grown": (*CASES["grown"][:2], grown, 0),
    "tokens": (*CASES["tokens"][:2], lambda r: {"x": (r.randrange(1, 4), r.randrange(1, 200), 32)}, 1),
    "windows": (WINDOWS, WINDOW_WEIGHTS, image(16, 8, 60), 10),
    "short texts": (TEXTS, TEXT_WEIGHTS, texts(1, 64), 10),
    "texts": (TEXTS, TEXT_WEIGHTS, texts(40, 300), 10),
    "patches": (PATCHES, PATCH_WEIGHTS, image(3, 16, 120), 10),
    "batches of patches": (PATCHES, PATCH_WEIGHTS, few_images, 6),
    "arithmetic": (ARITHMETIC, {}, image(3, 8, 60), 10),
    "arithmetic of little": (ARITHMETIC, {}, batch(3, 1, 20), 1),
    "triangles": (TRIANGLES, {}, squares, 10),
    "largest": (LARGEST, {}, lambda r: {"x": (r.randrange(1, 5), r.randrange(2, 70))}, 1),
    "resizes": (RESIZES, RESIZE_WEIGHTS, image(8, 8, 90), 10),
    "branches": (BRANCHES, BRANCH_WEIGHTS, square_or_not, 8),
    "anchors": (ANCHORS, ANCHOR_WEIGHTS, image(4, 20, 120), 20),
    "channels apart": (APART, APART_WEIGHTS, image(48, 3, 40), 10),
    "dense": (DENSE, DENSE_WEIGHTS, image(24, 2, 16), 8),
    "joined": (DENSE, DENSE_WEIGHTS, image(24, 30, 140), 10),
    "tiny": (DENSE, DENSE_WEIGHTS, image(24, 2, 6), 2),
    "dense batches": (DENSE, DENSE_WEIGHTS, batch(24, 2, 12), 1),
    "volumes": (VOLUMES, VOLUME_WEIGHTS, volume, 0),
}


def counted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether a recipe held, for each plan that is made."""
    held: list[bool] = []
    find = Recipes.find

    def count(self: Recipes, shapes: tuple[tuple[int, ...], ...]) -> object:
        found = find(self, shapes)
        held.append(found is not None)
        return found

    monkeypatch.setattr(Recipes, "find", count)
    return held


def without_recipes(session: ingot.InferenceSession) -> ingot.InferenceSession:
    session._driver._recipes.missed = lambda *_: None  # type: ignore[method-assign]
    return session


@pytest.mark.parametrize("name", GRAPHS)
def test_a_recipe_gives_the_plan(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, weights, draw, least = GRAPHS[name]
    threads = 1 + len(name) % 2
    session = session_of(text, weights, threads)
    plain = without_recipes(session_of(text, weights, threads))
    held, drawn = counted(monkeypatch), random.Random(name)
    shapes = [draw(drawn) for _ in range(24)]
    found = [plans(session, each) for each in shapes]
    number = sum(held)
    assert number >= least, f"recipes held for {number} of {len(shapes)} sets of sizes"
    for each, plan in zip(shapes, found, strict=True):
        assert_same(plan, plans(plain, each), each)
    assert sum(held) == number, "the other session had recipes as well"


# Rows of 4,096 bytes, which are spread from eight of them on, and a convolution that grows images.
SPREAD = """g (float[n, 1024, h, w] x) => (float[n, 8, a, b] y) {
    s = Mul(x, scale)
    r = Relu(s)
    c = Conv(r, one)
    y = ConvTranspose<strides=[2, 2]>(c, grow)
}"""
SPREAD_WEIGHTS = {"scale": (1024, 1, 1), "one": (8, 1024, 1, 1), "grow": (8, 8, 2, 2)}


def test_one_recipe_is_for_few_rows_and_many_and_for_images_of_any_sides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = session_of(SPREAD, SPREAD_WEIGHTS, 1)
    plain = without_recipes(session_of(SPREAD, SPREAD_WEIGHTS, 1))
    held = counted(monkeypatch)
    for h, w in ((4, 9), (5, 8), (3, 6), (2, 3), (8, 4), (3, 2), (4, 2)):
        shapes = {"x": (1, 1024, h, w)}
        assert_same(plans(session, shapes), plans(plain, shapes), shapes)
    assert held[::2] == [False, False, False, True, True, True, True]
