"""The body of a Loop as steps over loose arrays (`kernels/loose.py`): one table for all shapes.

It is for bodies of operators that have such steps, on numbers and truth values; what the rounds compute is,
to the last bit, what plans compute.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from ingot.codegen import cache
from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine
from ingot.compiler.index import Index
from ingot.compiler.loose_nodes import DTYPES, STEPS, Inputs, Slot, UnsuitedError
from ingot.compiler.loose_parts import Part, alone, results_of
from ingot.kernels.contract import name_of
from ingot.kernels.expression import Step, expression_of, supports_step
from ingot.kernels.loose import DIMS, MOST_DIMS, RANK, STATE_WORDS, WORDS
from ingot.kernels.loose_fused import apply
from ingot.kernels.loose_loop import (
    LIST_WORDS,
    REPORT_WORDS,
    append,
    branch,
    keep,
    link,
    once,
    only_one,
    rounds,
)
from ingot.kernels.loose_plan import NODE_WORDS, planned
from ingot.ops.cast import target_dtype
from ingot.ops.control import body_of
from ingot.ops.elementwise import Elementwise
from ingot.ops.registry import Array, Op, evaluated

#: What a loop carries that is no array: it stays outside, and what is appended to it is handed out.
SEQUENCE = "sequence"
#: Operands of an expression that waits for more, of which each takes a register; and its operators.
_MOST_OPERANDS, _MOST_STEPS = 8, 32
#: Elementwise operators whose result has the shape of one operand, or that plans compute in several ways.
_NOT_ALIKE = frozenset(("PRelu", "Pow", "Mean"))
_VARIADIC = {"Max": "Max", "Min": "Min", "Sum": "Add"}


@dataclass(frozen=True, slots=True)
class _Tree:
    """An elementwise operator that is to be part of a fused kernel."""

    op: str
    operands: tuple[_Tree | Slot, ...]
    dtype: str
    attrs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class _To:
    """An argument: the address of a word."""

    word: int


#: Rows of a table: a kernel, and where its arguments begin.
_Rows: TypeAlias = "list[tuple[Kernel, int]]"


@dataclass(frozen=True, slots=True)
class LooseLoop:
    """Tables for rounds of any shapes.

    words: everything, with the addresses of code; links: words that are the addresses of others, and which.
    carried, captured: the words of each array that comes in, None for a sequence. lists: the words of the
    lists that grow: first those of the rows that are put out, then those of `sequences` (by number of what is
    carried). first, again: code and arguments of what is done once, and of the rounds; `bounds`: the first
    round, and how many there may be. parts: the nodes that have plans.
    """

    words: np.ndarray
    links: np.ndarray
    carried: list[tuple[int, np.dtype[Any]] | None]
    captured: list[int]
    lists: list[tuple[int, np.dtype[Any]]]
    sequences: list[int]
    state: int
    report: int
    bounds: int
    first: tuple[int, int]
    again: tuple[int, int]
    keep: list[Array]
    parts: list[Part]


def loose_loop(index: Index, carried: Sequence[str], captured: Sequence[str], machine: Machine) -> LooseLoop:
    """The rounds of a body whose carried and captured values are of these kinds: a dtype, or SEQUENCE.

    Raises UnsuitedError.
    """
    return _Compiler(machine).loop(index, carried, captured)


@dataclass(slots=True)
class _Compiler:
    machine: Machine
    words: array[int] = field(default_factory=lambda: array("q"))
    links: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    values: dict[ir.Value, Slot] = field(default_factory=dict[ir.Value, Slot])
    #: of a sequence what was put at its end
    inserted: dict[ir.Value, Slot] = field(default_factory=dict[ir.Value, Slot])
    waiting: dict[ir.Value, _Tree] = field(default_factory=dict[ir.Value, _Tree])
    arrays: list[Array] = field(default_factory=list[Array])
    code: list[tuple[int, Kernel]] = field(default_factory=list[tuple[int, Kernel]])
    parts: list[Part] = field(default_factory=list[Part])
    state: int = 0

    def loop(self, index: Index, carried: Sequence[str], captured: Sequence[str]) -> LooseLoop:
        """The tables."""
        count = len(carried)
        if len(index.inputs) != 2 + count or len(index.outputs) <= count or SEQUENCE in captured:
            raise UnsuitedError
        own, wanted = index.inputs[2:], index.outputs[1 : 1 + count]
        sequences = [n for n, kind in enumerate(carried) if kind == SEQUENCE and wanted[n] is not own[n]]
        put_out = index.outputs[1 + count :]
        self.state = self._take(STATE_WORDS)
        report, counter = self._take(REPORT_WORDS), self._take(1)
        lists = [self._take(LIST_WORDS) for _ in (*put_out, *sequences)]
        number = self.values[index.inputs[0]] = self._new("int64")
        self.links.append((number.word, counter))
        self.values[index.inputs[1]] = self._constant(np.array(True))
        for value, kind in (*zip(own, carried, strict=True), *zip(index.captured, captured, strict=True)):
            if kind != SEQUENCE:
                self.values[value] = self._new(kind)

        early: _Rows = []
        late: _Rows = []
        appended = {wanted[n]: own[n] for n in sequences}
        if len(appended) != len(sequences):
            raise UnsuitedError
        self._add_nodes(index, late, early, {index.inputs[0], *own}, appended)
        dtypes: list[np.dtype[Any]] = []
        new = [*map(self._slot, put_out), *(self._inserted(wanted[n]) for n in sequences)]
        for slot, place in zip(new, lists, strict=True):
            dtypes.append(np.dtype(slot.dtype))
            self._row(late, append(size=slot.size), _To(place), slot)
        pairs: list[int | _To] = []
        for n, kind in enumerate(carried):
            if kind != SEQUENCE:
                slot, kept = self._slot(wanted[n]), self._new(kind)
                if slot.dtype != kind:
                    raise UnsuitedError
                self._row(late, keep(size=slot.size), kept, slot, _To(counter))
                pairs += [_To(kept.word), _To(self.values[own[n]].word)]
        going = self._slot(index.outputs[0])
        if going.dtype != "bool":
            raise UnsuitedError
        self._row(late, only_one(), going)

        first = self._put(_To(self.state), *self._table(early))
        paired = self._put(*pairs)
        again = self._put(
            _To(self.state), _To(report), *self._table(late), _To(paired), len(pairs) // 2,
            _To(min(lists, default=0)), len(lists), _To(counter), 0, 0, _To(going.word),
        )  # fmt: skip
        return self._finished(index, carried, report, lists, dtypes, sequences, first, again)

    def _finished(
        self,
        index: Index,
        carried: Sequence[str],
        report: int,
        lists: list[int],
        dtypes: list[np.dtype[Any]],
        sequences: list[int],
        first: int,
        again: int,
    ) -> LooseLoop:
        both = once(), rounds()
        code = cache.addresses({*both, *(kernel for _, kernel in self.code)}, self.machine)
        for word, kernel in self.code:
            self.words[word] = code[kernel]
        begins = [
            None if kind == SEQUENCE else (self.values[value].word, np.dtype(kind))
            for value, kind in zip(index.inputs[2:], carried, strict=True)
        ]
        return LooseLoop(
            words=np.frombuffer(self.words, np.int64),
            links=np.array(self.links, np.int64).reshape(-1, 2),
            carried=begins,
            captured=[self.values[value].word for value in index.captured],
            lists=list(zip(lists, dtypes, strict=True)),
            sequences=sequences,
            state=self.state,
            report=report,
            bounds=again + rounds().arguments.index("start"),
            first=(code[both[0]], first),
            again=(code[both[1]], again),
            keep=self.arrays,
            parts=self.parts,
        )

    # ---- words ---------------------------------------------------------------------------------------------

    def _take(self, count: int) -> int:
        begin = len(self.words)
        self.words.extend([0] * count)
        return begin

    def _put(self, *words: int | _To) -> int:
        begin = self._take(len(words))
        for place, word in enumerate(words, begin):
            if isinstance(word, _To):
                self.links.append((place, word.word))
            else:
                self.words[place] = word
        return begin

    def _new(self, dtype: str) -> Slot:
        if dtype not in DTYPES:
            raise UnsuitedError
        return Slot(self._take(WORDS), dtype)

    def _constant(self, value: Array) -> Slot:
        dtype = name_of(value.dtype)
        if dtype not in DTYPES or value.ndim > MOST_DIMS:
            raise UnsuitedError
        own = np.ascontiguousarray(value).reshape(value.shape)
        self.arrays.append(own)
        word = self._take(WORDS)
        self.words[word], self.words[word + RANK] = own.ctypes.data, own.ndim
        for axis, size in enumerate(own.shape, word + DIMS):
            self.words[axis] = size
        return Slot(word, dtype, own)

    def _row(self, rows: _Rows, kernel: Kernel, *arguments: Slot | _To | int) -> None:
        words = [_To(a.word) if isinstance(a, Slot) else a for a in arguments]
        rows.append((kernel, self._put(_To(self.state), *words)))

    def _table(self, rows: _Rows) -> tuple[_To, int]:
        begin = self._take(0)
        for kernel, arguments in rows:
            self.code.append((self._put(0, _To(arguments)), kernel))
        return _To(begin), len(rows)

    # ---- nodes ---------------------------------------------------------------------------------------------

    def _slot(self, value: ir.Value | None) -> Slot:
        slot = None if value is None else self.values.get(value)
        if slot is None:
            raise UnsuitedError
        return slot

    def _inserted(self, sequence: ir.Value) -> Slot:
        slot = self.inserted.get(sequence)
        if slot is None:
            raise UnsuitedError
        return slot

    def _add_nodes(
        self,
        index: Index,
        rows: _Rows,
        early: _Rows,
        moving: set[ir.Value],
        appended: dict[ir.Value, ir.Value],
    ) -> None:
        """Rows for the nodes of a graph; `early` are those of nodes that depend on nothing that is `moving`.
        appended: sequences that are made, each of the one that the loop carries.
        """
        uses: dict[ir.Value, int] = dict.fromkeys(index.outputs, 2)
        readers: dict[ir.Value, int] = {}
        turns: list[bool] = []
        for n, (node, reads) in enumerate(zip(index.nodes, index.reads, strict=True)):
            for value in reads:
                uses[value] = uses.get(value, 0) + 1
                readers[value] = n
            turns.append(not moving.isdisjoint(reads))
            if turns[n]:
                moving.update(node.outputs)
        for value, facts in index.constants.items():
            if value in uses and value not in self.values:
                array_ = facts.value
                assert array_ is not None
                self.values[value] = self._constant(array_)
        for n, (node, op) in enumerate(zip(index.nodes, index.ops, strict=True)):
            here, result = rows if turns[n] else early, node.outputs[0]
            if node.domain not in ("", "ai.onnx"):
                raise UnsuitedError
            if not _is_elementwise(node, op):
                self._add_node(node, op, index, here, appended, uses)
                continue
            tree, reader = self._tree(node, op, here), readers.get(result)
            if (
                uses.get(result) == 1
                and reader is not None
                and turns[reader] == turns[n]
                and _is_elementwise(index.nodes[reader], index.ops[reader])
                and not _is_full(tree)
            ):
                self.waiting[result] = tree
            else:
                self.values[result] = self._emitted(tree, here)

    def _add_node(
        self,
        node: ir.Node,
        op: Op,
        index: Index,
        rows: _Rows,
        appended: dict[ir.Value, ir.Value],
        uses: dict[ir.Value, int],
    ) -> None:
        """Rows for a node that is not elementwise."""
        result, kind = node.outputs[0], node.op_type
        if kind == "If":
            self._branch(node, index, rows)
        elif kind == "SequenceInsert":
            given = [value for value in node.inputs if value is not None]
            if appended.get(result) is not given[0] or len(given) != 2 or uses.get(given[0]) != 1:
                raise UnsuitedError
            self.inserted[result] = self._slot(given[1])
        elif kind == "Identity":
            self.values[result] = self._slot(node.inputs[0])
        elif kind == "Constant":
            self.values[result] = self._constant(evaluated(op, node, [])[0])
        elif kind in STEPS:
            slots = [None if value is None else self._slot(value) for value in node.inputs]
            kernel, dtype, operands = STEPS[kind](node, op, Inputs(slots))
            out = self.values[result] = self._new(dtype)
            given = [self._constant(x) if isinstance(x, np.ndarray) else x for x in operands]
            self._row(rows, kernel, out, *(0 if x is None else x for x in given))
        else:
            self._add_part(node, op, index, rows)

    def _add_part(self, node: ir.Node, op: Op, index: Index, rows: _Rows) -> None:
        """A row for a node whose kernels are chosen by sizes."""
        dtypes = results_of(node, [None if value is None else self._slot(value) for value in node.inputs])
        inner, given = alone(node, op, index, self._slot)
        word, outs = self._take(NODE_WORDS), [self._new(dtype) for dtype in dtypes]
        self.parts.append(Part(inner, word, given))
        self._row(rows, planned(len(outs), len(given)), _To(word), *outs, *given)
        self.values.update(zip(node.outputs, outs, strict=True))

    def _branch(self, node: ir.Node, index: Index, rows: _Rows) -> None:
        condition = self._slot(node.inputs[0])
        graphs = [body_of(node, name) for name in ("then_branch", "else_branch")]
        tables: list[_Rows] = []
        outs: list[Slot] = []
        for graph in graphs:
            table: _Rows = []
            self._add_nodes(index.subgraphs[graph], table, table, set(), {})
            found = [self._slot(value) for value in graph.outputs]
            outs = outs or [self._new(slot.dtype) for slot in found]
            if [slot.dtype for slot in found] != [slot.dtype for slot in outs] or condition.dtype != "bool":
                raise UnsuitedError
            for out, slot in zip(outs, found, strict=True):
                self._row(table, link(), out, slot)
            tables.append(table)
        self._row(rows, only_one(), condition)
        self._row(rows, branch(), condition, *self._table(tables[0]), *self._table(tables[1]))
        self.values.update(zip(node.outputs, outs, strict=False))

    # ---- elementwise ---------------------------------------------------------------------------------------

    def _tree(self, node: ir.Node, op: Op, rows: _Rows) -> _Tree:
        """The operator over what its operands wait as, or where they lie; `rows` are for parts of many
        operands.
        """
        kind = node.op_type
        operands = [self._operand(value) for value in node.inputs if value is not None]
        if kind == "Clip":
            return self._clip(node, operands[0])
        if kind in _VARIADIC:
            tree = operands[0]
            for operand in operands[1:]:
                if isinstance(tree, _Tree) and _is_full(tree):
                    tree = self._emitted(tree, rows)
                tree = self._checked(_VARIADIC[kind], (tree, operand), operands[0].dtype)
            return tree if isinstance(tree, _Tree) else self._checked("Identity", (tree,), tree.dtype)
        if kind == "Cast":
            return self._checked("Cast", tuple(operands), name_of(target_dtype(node)))
        if kind == "Where":
            return self._checked("Where", tuple(operands), operands[-1].dtype)
        assert isinstance(op, Elementwise)
        if len({operand.dtype for operand in operands}) != 1:
            raise UnsuitedError
        changed = [(k, v) for k, v in op.attributes(node).items() if v != op.defaults[k]]
        dtype = "bool" if op.predicate else operands[0].dtype
        return self._checked(kind, tuple(operands), dtype, tuple(changed))

    def _operand(self, value: ir.Value) -> _Tree | Slot:
        return self.waiting.pop(value, None) or self._slot(value)

    def _clip(self, node: ir.Node, x: _Tree | Slot) -> _Tree:
        """Bounds are constants: of others it would have to be seen that they are scalars."""
        tree = x
        for op, value in zip(("Max", "Min"), node.inputs[1:], strict=False):
            if value is not None:
                bound = self._slot(value).constant
                if bound is None or bound.size != 1:
                    raise UnsuitedError
                tree = self._checked(op, (tree, self._constant(bound.reshape(()))), x.dtype)
        return tree if isinstance(tree, _Tree) else self._checked("Identity", (tree,), x.dtype)

    @staticmethod
    def _checked(
        op: str, operands: tuple[_Tree | Slot, ...], dtype: str, attrs: tuple[tuple[str, Any], ...] = ()
    ) -> _Tree:
        dtypes = tuple([operand.dtype for operand in operands])
        if dtype not in DTYPES or not supports_step(op, dtypes, dtype, attrs):
            raise UnsuitedError
        return _Tree(op, operands, dtype, attrs)

    def _emitted(self, tree: _Tree, rows: _Rows) -> Slot:
        leaves = _leaves(tree)
        numbers = {slot.word: n for n, slot in enumerate(leaves)}
        made: list[Step] = []

        def add(part: _Tree | Slot) -> int:
            if isinstance(part, Slot):
                return numbers[part.word]
            operands = tuple([add(operand) for operand in part.operands])
            made.append(Step(part.op, operands, part.dtype, part.attrs))
            return len(leaves) + len(made) - 1

        root = add(tree)
        expression = expression_of(tuple([slot.dtype for slot in leaves]), tuple(made), (root,))
        out = self._new(tree.dtype)
        self._row(rows, apply(expression, self.machine), out, *leaves)
        return out


def _is_elementwise(node: ir.Node, op: Op) -> bool:
    kind = node.op_type
    if kind in _NOT_ALIKE or node.domain not in ("", "ai.onnx"):
        return False
    return isinstance(op, Elementwise) or kind in _VARIADIC or kind in ("Clip", "Cast", "Where")


def _is_full(tree: _Tree) -> bool:
    """Whether nothing more is to be fused with it."""
    return len(_leaves(tree)) >= _MOST_OPERANDS or _count(tree) >= _MOST_STEPS


def _count(tree: _Tree) -> int:
    """The number of its operators."""
    return 1 + sum(_count(operand) for operand in tree.operands if isinstance(operand, _Tree))


def _leaves(tree: _Tree) -> list[Slot]:
    """The arrays that it reads, each once."""
    found: dict[int, Slot] = {}
    for operand in tree.operands:
        for slot in [operand] if isinstance(operand, Slot) else _leaves(operand):
            found[slot.word] = slot
    return list(found.values())
