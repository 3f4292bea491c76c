"""The best boxes of a detector that do not overlap (NonMaxSuppression)."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import numpy as np

from ingot.codegen.builder import F32, I1, I64, Builder, Value, vector
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import Lanes, any_lane
from ingot.codegen.machine import Machine
from ingot.kernels.call import Buffer, Call, View
from ingot.kernels.iteration import round_up
from ingot.kernels.order import key_of, place_of, sift_down, word_of
from ingot.kernels.select import add_up

# ---- suppression -------------------------------------------------------------------------------------------


def evaluate_suppression(
    boxes: np.ndarray, scores: np.ndarray, most: int, overlap: float, least: float | None, *, centred: bool
) -> np.ndarray:
    """The plain definition: (image, class, box) of each that is kept, the best of a class first.

    boxes [N, B, 4] by two corners (y, x, y, x), or by centre and size (x, y, width, height); scores [N, K,
    B]. A box is kept if its score is above `least` and its intersection over union with no better one that
    was kept is above `overlap`; at most `most` for each class of an image.
    """
    boxes = boxes.astype(np.float32)
    if centred:
        half = boxes[..., 2:] / np.float32(2)
        low, high = boxes[..., 1::-1] - half[..., ::-1], boxes[..., 1::-1] + half[..., ::-1]
    else:
        low, high = (f(boxes[..., :2], boxes[..., 2:]) for f in (np.minimum, np.maximum))
    area = (high[..., 1] - low[..., 1]) * (high[..., 0] - low[..., 0])
    kept: list[tuple[int, int, int]] = []
    for image, label in np.ndindex(scores.shape[:2]):
        own = scores[image, label]
        order = np.lexsort((-own, ~np.isnan(own)))  # what is no number is larger than any, as in TopK
        if least is not None:
            order = order[own[order] > np.float32(least)]
        taken: list[int] = []
        for box in order.tolist():
            if len(taken) >= most:
                break
            side = np.minimum(high[image, taken], high[image, box]) - np.maximum(
                low[image, taken], low[image, box]
            )
            shared = side[:, 1] * side[:, 0]
            union = area[image, taken] + area[image, box] - shared
            real = (side > 0).all(1) & (shared > 0) & (area[image, taken] > 0) & (union > 0)
            with np.errstate(all="ignore"):
                if not (real & (area[image, box] > 0) & (shared / union > np.float32(overlap))).any():
                    taken.append(box)
        kept += [(image, label, box) for box in taken]
    return np.array(kept, np.int64).reshape(-1, 3)


@kernel("boxes", "scores", "count", "classes", "room", "most", "overlap", "least", "picks", "counts",
        "box_image", "box_step", "box_part", "score_image", "score_class", "score_step")  # fmt: skip
def _suppress(k: Builder, *, centred: bool, bounded: bool, lanes: int) -> None:
    """A tile is a class of an image: a heap of what may be kept, and the edges of what is, side by side."""
    boxes, scores, picks = k.pointer("boxes"), k.pointer("scores"), k.pointer("picks")
    count, room, classes = k.arg("count"), k.arg("room"), k.arg("classes")
    most = k.min(room, k.max(k.load(k.pointer("most"), I64), 0))
    overlap = Lanes(k, k.broadcast(k.load(k.pointer("overlap"), F32), lanes))
    heap = k.scratch
    space = k.mul(k.ceil_div(room, lanes), lanes)
    edges = [k.at(k.at(heap, count, I64), k.mul(space, i), F32) for i in range(5)]
    wide = vector(F32, lanes)

    def box_of(own: Value, i: Value) -> list[Value]:
        """Low y, low x, high y, high x, area."""
        at = k.mul(i, k.arg("box_step"))
        part = k.arg("box_part")
        a, b, c, d = (Lanes(k, k.load(own, F32, k.add(at, k.mul(part, j)))) for j in range(4))
        if centred:
            x, y, half_x, half_y = a, b, c * 0.5, d * 0.5
            low_y, low_x, high_y, high_x = y - half_y, x - half_x, y + half_y, x + half_x
        else:
            low_y, low_x, high_y, high_x = a.at_most(c), b.at_most(d), a.at_least(c), b.at_least(d)
        area = (high_x - low_x) * (high_y - low_y)
        return [v.value for v in (low_y, low_x, high_y, high_x, area)]

    def overlaps(box: list[Value], j: Value, kept: Value) -> Value:
        """Whether one of the kept from j on shares too much with the box."""
        one = [Lanes(k, k.broadcast(v, lanes)) for v in box]
        other = [Lanes(k, k.load(e, wide, j)) for e in edges]
        height = one[2].at_most(other[2]) - one[0].at_least(other[0])
        width = one[3].at_most(other[3]) - one[1].at_least(other[1])
        shared = width * height
        union = one[4] + other[4] - shared
        hit = shared / union > overlap
        for v in (height, width, shared, union, one[4], other[4]):
            hit = k.ir.and_(hit, v > 0.0)
        return any_lane(k, k.ir.and_(hit, k.lanes_below(k.sub(kept, j), lanes)))

    with k.loop(k.begin, k.end) as tile:
        image, label = k.div(tile, classes), k.rem(tile, classes)
        own_picks = k.at(picks, k.mul(tile, room), I64)
        own_boxes = k.at(boxes, k.mul(image, k.arg("box_image")), F32)
        offset = k.add(k.mul(image, k.arg("score_image")), k.mul(label, k.arg("score_class")))
        own_scores = k.at(scores, offset, F32)
        found: list[Value] = [I64(0)]
        with k.loop(0, count, carry=found) as i:
            score = k.load(own_scores, F32, k.mul(i, k.arg("score_step")))
            # The smallest word is at the root of a heap: there the best is to be.
            k.store(k.ir.not_(word_of(k, key_of(k, score, "float32"), i, "float32")), heap, found[0])
            fits = I1(1)
            if bounded:
                fits = k.ir.fcmp_ordered(">", score, k.load(k.pointer("least"), F32))
            found[0] = k.add(found[0], k.ir.zext(fits, I64))
        half = k.div(found[0], 2)
        with k.loop(0, half) as i:
            sift_down(k, heap, k.sub(k.sub(half, 1), i), found[0], I64)
        state: list[Value] = [found[0], I64(0)]

        def goes_on() -> Value:
            return k.ir.and_(k.compare(">", state[0], 0), k.compare("<", state[1], most))

        with k.repeat(goes_on, state):
            left, kept = k.sub(state[0], 1), state[1]
            place = place_of(k, k.ir.not_(k.load(heap, I64)))
            k.store(k.load(heap, I64, left), heap)
            sift_down(k, heap, 0, k.max(left, 1), I64)
            box = box_of(own_boxes, place)
            search: list[Value] = [I64(0), I1(0)]

            def looks_on(kept: Value = kept, search: list[Value] = search) -> Value:
                return k.ir.and_(k.compare("<", search[0], kept), k.ir.not_(search[1]))

            with k.repeat(looks_on, search):
                search[:] = [k.add(search[0], lanes), overlaps(box, search[0], kept)]

            def keep(kept: Value = kept, box: list[Value] = box, place: Value = place) -> list[Value]:
                for value, edge in zip(box, edges, strict=True):
                    k.store(value, edge, kept)
                k.store(place, own_picks, kept)
                return [k.add(kept, 1)]

            state[:] = [left, *k.either(search[1], lambda kept=kept: [kept], keep)]
        k.store(state[1], k.pointer("counts"), tile)


@kernel("picks", "counts", "count", "room", "classes", "tiles", "out")
def _list_picks(k: Builder) -> None:
    """[count, 3]: image, class and box of those that each tile has kept."""
    counts, out = k.pointer("counts"), k.pointer("out")
    with k.loop(k.begin, k.end) as tile:
        start = k.load(counts, I64, tile)
        following = k.load(counts, I64, k.min(k.add(tile, 1), k.sub(k.arg("tiles"), 1)))
        is_last = k.compare("==", k.add(tile, 1), k.arg("tiles"))
        stop = k.choose(is_last, k.load(k.pointer("count"), I64), following)
        image, label = k.div(tile, k.arg("classes")), k.rem(tile, k.arg("classes"))
        with k.loop(0, k.sub(stop, start)) as i:
            box = k.load(k.pointer("picks"), I64, k.add(k.mul(tile, k.arg("room")), i))
            for part, value in enumerate((image, label, box)):
                k.store(value, out, k.add(k.mul(k.add(start, i), 3), part))


def suppress(
    boxes: View,
    scores: View,
    most: View,
    overlap: View,
    least: View | None,
    room: int,
    out: View,
    count: View,
    machine: Machine,
    *,
    centred: bool,
) -> list[Call]:
    """ONNX NonMaxSuppression; see `evaluate_suppression`. most (int64), overlap and least (float32): one
    number each; no more than `room` are kept of a class. out: int64, memory for [N · K · room, 3].
    """
    images, classes, boxes_each = scores.shape
    tiles = images * classes
    picks, counts = (
        View(Buffer(8 * max(1, n)), 0, np.dtype(np.int64), (max(1, n),), (1,)) for n in (tiles * room, tiles)
    )
    first = Call(
        _suppress(centred=centred, bounded=least is not None, lanes=machine.lanes),
        [boxes, scores, boxes_each, classes, room, most, overlap, overlap if least is None else least, picks,
         counts, *boxes.strides, *scores.strides],
        tiles=tiles,
        reads=[boxes, scores, most, overlap, *([] if least is None else [least])],
        writes=[picks, counts],
        scratch=8 * boxes_each + 5 * 4 * round_up(max(1, room), machine.lanes),
        flops=scores.size * 20,
        label="NonMaxSuppression",
    )  # fmt: skip
    last = Call(
        _list_picks(),
        [picks, counts, count, room, classes, tiles, out],
        tiles=tiles,
        reads=[picks, counts, count],
        writes=[out],
        label="NonMaxSuppression",
    )
    return [first, add_up(counts, tiles, count), last]
