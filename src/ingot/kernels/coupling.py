"""Probabilities of classes from those of each pair of them: the second method of Wu, Lin and Weng
(Probability Estimates for Multi-class Classification by Pairwise Coupling, 2004), as libsvm computes it.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import numpy as np

from ingot.codegen.builder import F64, I64, Builder, Value
from ingot.codegen.kernel import kernel
from ingot.kernels.call import Call, View

#: Rounds end where the equations hold to this, divided by the number of classes; and after so many.
_EPSILON, _ROUNDS = 0.005, 100


def pairs_of(classes: int) -> list[tuple[int, int]]:
    """The pairs in their order: (0, 1), (0, 2), …, (1, 2), …"""
    return [(i, j) for i in range(classes) for j in range(i + 1, classes)]


def evaluate_coupling(pairs: np.ndarray, classes: int) -> np.ndarray:
    """The plain definition: [N, classes] from the probability of each pair's first class [N, pairs]."""
    r = np.zeros((len(pairs), classes, classes))
    for number, (i, j) in enumerate(pairs_of(classes)):
        r[:, i, j], r[:, j, i] = pairs[:, number], 1 - pairs[:, number]
    q = -r.transpose(0, 2, 1) * r
    index = np.arange(classes)
    q[:, index, index] = (r * r).sum(1)
    p = np.full((len(r), classes), 1 / classes)
    for _ in range(max(_ROUNDS, classes)):
        qp = np.einsum("nij,nj->ni", q, p)
        pqp = (p * qp).sum(1)
        going = np.abs(qp - pqp[:, None]).max(1, initial=0.0) >= _EPSILON / classes
        if not going.any():
            break
        some, mine, qp, pqp = q[going], p[going], qp[going], pqp[going]
        for t in range(classes):
            step = (pqp - qp[:, t]) / some[:, t, t]
            mine[:, t] += step
            pqp = (pqp + step * (step * some[:, t, t] + 2 * qp[:, t])) / (1 + step) ** 2
            qp = (qp + step[:, None] * some[:, t]) / (1 + step)[:, None]
            mine = mine / (1 + step)[:, None]
        p[going] = mine
    return p


@kernel("pairs", "count", "classes", "rounds", "out")
def _coupling(k: Builder) -> None:
    """A tile is a row. Scratch has the matrix q, then q · p."""
    n, b = k.arg("classes"), k.ir
    q = k.scratch
    qp = k.at(q, k.mul(n, n), F64)
    size = b.sitofp(n, F64)
    bound = b.fdiv(F64(_EPSILON), size)

    def at(i: Value, j: Value) -> Value:
        return k.add(k.mul(i, n), j)

    with k.loop(k.begin, k.end) as tile:
        source = k.at(k.pointer("pairs"), k.mul(tile, k.arg("count")), F64)
        p = k.at(k.pointer("out"), k.mul(tile, n), F64)
        with k.loop(0, n) as i:
            k.store(b.fdiv(F64(1), size), p, i)
            k.store(F64(0), q, at(i, i))
        number: list[Value] = [I64(0)]
        with k.loop(0, n, carry=number) as i, k.loop(k.add(i, 1), n, carry=number) as j:
            first = k.load(source, F64, number[0])
            second = b.fsub(F64(1), first)
            product = b.fneg(b.fmul(first, second))
            k.store(product, q, at(i, j))
            k.store(product, q, at(j, i))
            # r: the probability of the other class of the pair, against `own`
            for own, r in ((i, second), (j, first)):
                k.store(b.fadd(k.load(q, F64, at(own, own)), b.fmul(r, r)), q, at(own, own))
            number[0] = k.add(number[0], 1)
        state: list[Value] = [I64(0), I64(1), F64(0)]  # rounds, whether it goes on, p · q · p

        def goes_on() -> Value:
            return b.and_(k.compare("<", state[0], k.arg("rounds")), k.compare("!=", state[1], 0))

        with k.repeat(goes_on, state):
            total: list[Value] = [F64(0)]
            with k.loop(0, n, carry=total) as i:
                one: list[Value] = [F64(0)]
                with k.loop(0, n, carry=one) as j:
                    one[0] = b.fadd(one[0], b.fmul(k.load(q, F64, at(i, j)), k.load(p, F64, j)))
                k.store(one[0], qp, i)
                total[0] = b.fadd(total[0], b.fmul(one[0], k.load(p, F64, i)))
            worst: list[Value] = [F64(0)]
            with k.loop(0, n, carry=worst) as i:
                off = k.intrinsic("fabs", b.fsub(k.load(qp, F64, i), total[0]))
                worst[0] = b.select(b.fcmp_ordered(">", off, worst[0]), off, worst[0])
            going = b.fcmp_ordered(">=", worst[0], bound)
            last = k.choose(going, n, 0)
            pqp: list[Value] = [total[0]]
            with k.loop(0, last, carry=pqp) as t:
                own, far = k.load(q, F64, at(t, t)), k.load(qp, F64, t)
                step = b.fdiv(b.fsub(pqp[0], far), own)
                scale = b.fadd(F64(1), step)
                k.store(b.fadd(k.load(p, F64, t), step), p, t)
                grown = b.fmul(step, b.fadd(b.fmul(step, own), b.fmul(F64(2), far)))
                pqp[0] = b.fdiv(b.fadd(pqp[0], grown), b.fmul(scale, scale))
                with k.loop(0, n) as j:
                    moved = b.fadd(k.load(qp, F64, j), b.fmul(step, k.load(q, F64, at(t, j))))
                    k.store(b.fdiv(moved, scale), qp, j)
                    k.store(b.fdiv(k.load(p, F64, j), scale), p, j)
            state[:] = [k.add(state[0], 1), k.choose(going, 1, 0), pqp[0]]


def coupling(pairs: View, out: View) -> Call:
    """out [N, classes] of pairs [N, classes · (classes - 1) / 2], both float64 and contiguous."""
    rows, classes = out.shape
    return Call(
        _coupling(),
        [pairs, pairs.shape[1], classes, max(_ROUNDS, classes), out],
        tiles=rows if classes else 0,
        reads=[pairs],
        writes=[out],
        scratch=8 * (classes * classes + classes),
        flops=rows * 10 * classes * classes,
        label="coupling",
    )
