"""Nodes to kernel calls, for one set of shapes.

The graph is walked once, and each node asks the plan under construction (`construction.py`) for what it
needs.
"""

from __future__ import annotations

import onnx_ir as ir

from ingot.compiler.construction import Construction
from ingot.compiler.images import Region, regions
from ingot.compiler.places import OneImage
from ingot.compiler.steps import HostStep, Lowered
from ingot.errors import IngotError, UnsupportedOperatorError
from ingot.kernels.alike import remembering
from ingot.kernels.call import Call, Series, View, memory_order, series
from ingot.kernels.copy import copy
from ingot.ops.registry import UNFIT, Array, Facts, label, unfit, unfit_kinds


class Lowering(Construction):
    """The walk over a graph that makes a plan."""

    def lower(self) -> Lowered:
        """Lower every node that the outputs need."""
        with remembering():
            self._lower_nodes()
        for position in range(self._start, self._stop):
            self._kinds.setdefault(position, "folded")
        self._waits.clear()
        return Lowered(self._steps, self._checks, self._kinds)

    def _lower_nodes(self) -> None:
        live = self._live
        begin, position = self._regions(), self._start
        while position < self._stop:
            region = begin.get(position)
            if region is not None and self._lower_images(region):
                position = region.positions[-1]
            elif position in live:
                self._lower_node(position)
            position += 1
        if self._has_packed:
            self._forget()  # some weights are packed when it is known how a kernel reads them
        self._position = self._stop
        for value, target in zip(self._outputs, self._targets, strict=True):
            view = target if value is self._counted else self._result(value)
            if view != target:
                self.emit(copy(view, target, self.machine))

    def _lower_node(self, position: int) -> None:
        self._position = position
        node, op, _, _ = self._index.walk[position]
        self._kinds[position] = "native"
        try:
            is_native = not (self._has_wide and self._is_wide(node)) and op.lower(node, self)
        except UnsupportedOperatorError as error:
            raise _named(node, error) from error
        except IngotError:
            raise
        except unfit_kinds(node) as error:  # what a kernel does not take, and `infer` let through
            inputs = [None if v is None else self._facts[v] for v in node.inputs]
            raise unfit(node, inputs, error) from error
        if not is_native:
            self._kinds[position] = "host"
            self._evaluate_on_host(node)

    # ---- images one after the other ------------------------------------------------------------------------

    def _regions(self) -> dict[int, Region]:
        """What is lowered for one image at a time, by the position of the first node."""
        if not any(len(view.shape) > 2 and view.shape[0] > 1 for view in self._views.values()):
            return {}
        found = regions(
            self._index,
            [position for position in range(self._start, self._stop) if position in self._live],
            self._uses,
            self._facts,
            self._outputs,
            self.machine.l2_bytes,
        )
        return {region.positions[0]: region for region in found}

    def _lower_images(self, region: Region) -> bool:
        """Lower a region for one image, and again for each. False: that cannot be, no step was added but what
        computes its inputs, and whatever else was noted of its nodes is noted anew when each is lowered.
        """
        whole = [self.view(value) for value in region.inputs]
        one = dict[ir.Value, Facts]()
        for value in (*region.inputs, *region.values):
            facts = self._facts[value]
            one[value] = Facts(facts.dtype, (1, *facts.shape[1:]))
        image = OneImage(0, one, dict.fromkeys(region.kept))
        before, checks = self._steps, len(self._checks)

        def turn(number: int) -> list[Call | Series]:
            image.number, self._steps = number, []
            for value, view in zip(region.inputs, whole, strict=True):
                self._views[value] = view.part(0, number, 1)
            for position in region.positions:
                self._lower_node(position)
            for value in region.kept:
                view = self.view(value)
                place = self._places.choose(self._position, value, memory_order(view), True)
                if view != place:
                    self.emit(copy(view, place, self.machine))
            for value in region.values:
                self._views.pop(value, None)
                self._waiting.pop(value, None)
            steps = [step for step in self._steps if isinstance(step, (Call, Series))]
            if len(steps) < len(self._steps):
                raise _NotByImageError
            return steps

        self._places.enter(image)
        calls: list[Call | Series] | None = None
        try:
            calls = series(turn, region.batch)
        except _NotByImageError:
            del self._checks[checks:]
        finally:
            self._steps = before
            self._places.leave(done=calls is not None)
            self._views.update(zip(region.inputs, whole, strict=True))
        if calls is None:
            return False
        for value, view in image.kept.items():
            assert view is not None
            self._views[value] = view
        self._steps += calls
        return True

    def _result(self, value: ir.Value) -> View:
        """What waits for the end is computed now, and refused by the name of its node."""
        try:
            return self.view(value)
        except IngotError:
            raise
        except UNFIT as error:
            node = value.producer()
            if node is None:
                raise
            inputs = [None if v is None else self._facts[v] for v in node.inputs]
            raise unfit(node, inputs, error) from error

    def _is_wide(self, node: ir.Node) -> bool:
        every = (*node.inputs, *node.outputs)
        return any(v in self._facts and self._facts[v].dtype.itemsize > 8 for v in every if v is not None)

    def _evaluate_on_host(self, node: ir.Node) -> None:
        inputs: list[View | Array | None] = []
        for value in node.inputs:
            known = self.constant(value)
            inputs.append(None if value is None else known if known is not None else self.view(value))
        outputs = [self.output(v) if v in self._facts else None for v in node.outputs]
        self._steps.append(HostStep(self._position, inputs, outputs))


class _NotByImageError(Exception):
    """A region of the graph has steps that cannot come again for each image."""


def _named(node: ir.Node, error: UnsupportedOperatorError) -> UnsupportedOperatorError:
    """A kernel's error does not know which node wants it."""
    name = label(node)
    return error if name in str(error) else UnsupportedOperatorError(f"{name}: {error}")
