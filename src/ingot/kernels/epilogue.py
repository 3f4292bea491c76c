"""Epilogues of kernels that compute vectors of neighbouring channels of one pixel, one after the other."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ingot.codegen.builder import Builder, Value
from ingot.codegen.elements import gather_element, load_element, memory_element
from ingot.codegen.machine import Machine
from ingot.kernels import expression as expressions
from ingot.kernels.contract import AXES, Reach, axis_slots, name_of, reach
from ingot.kernels.expression import Expression
from ingot.kernels.window import Finish, Place

# An epilogue of more instructions than this is emitted once, in a loop over sums that went through memory.
_SHORT_EPILOGUE = 16


def is_short(epilogue: Expression | None) -> bool:
    """Whether it may be written out for every result of a block."""
    return epilogue is None or epilogue.weight <= _SHORT_EPILOGUE


def together(epilogue: Expression | None, machine: Machine) -> int:
    """How many pixels of a long one are finished at a time."""
    return 1 if epilogue is None or is_short(epilogue) else expressions.joined(epilogue, machine)


def operands_of(
    layouts: Sequence[tuple[np.dtype, tuple[int, ...]]], channels: int
) -> tuple[tuple[Reach, ...], tuple[str, ...], list[int]]:
    """How operands are reached, of which the dtypes and the strides along the output's dimensions [N, C, H,
    W] are given; their slots, and what goes there, with 0 for each address.
    """
    reaches: list[Reach] = []
    slots: list[int] = []
    for dtype, strides in layouts:
        _, channel, row, column = strides
        reaches.append(reach(name_of(dtype), channel, row != 0 or column != 0, channels))
        slots += [0, *strides]
    return tuple(reaches), axis_slots(len(layouts)), slots


def finisher(
    k: Builder, epilogue: Expression | None, reaches: tuple[Reach, ...]
) -> tuple[Callable[[Place], list[Value]], Finish]:
    """What the loops call to prepare the operands of a vector of channels, and to apply the epilogue to some
    pixels of it.

    The kernel has the slots of `operands_of` and one named "channels", how many there are.
    """
    lanes = k.machine.lanes
    pointers = [k.pointer(f"x{i}") for i in range(len(reaches))]
    strides = [{axis: k.arg(f"x{i}_{axis}") for axis in AXES} for i in range(len(reaches))]

    def read(i: int, pointer: Value, place: Place) -> Value:
        """A vector of operand i of the epilogue."""
        dtype = reaches[i].dtype
        if reaches[i].channels == "contiguous":
            return load_element(k, pointer, dtype, lanes, mask=place.mask)
        if reaches[i].channels == "repeated":
            return k.broadcast(load_element(k, pointer, dtype, 1), lanes)
        left = k.sub(k.arg("channels"), place.channel)
        return gather_element(k, pointer, dtype, lanes, strides[i]["channel"], left)

    def prepare(place: Place) -> list[Value]:
        """Operands that are the same for all pixels; of the others their address."""
        prepared: list[Value] = []
        for i, own in enumerate(reaches):
            offset = k.add(
                k.mul(place.image, strides[i]["image"]), k.mul(place.channel, strides[i]["channel"])
            )
            pointer = k.at(pointers[i], offset, memory_element(own.dtype))
            prepared.append(pointer if own.per_pixel else read(i, pointer, place))
        return prepared

    def finish(values: Sequence[Value], places: Sequence[Place], prepared: list[Value]) -> list[Value]:
        if epilogue is None:
            return list(values)

        def leaves(value: Value, place: Place) -> list[Value]:
            found = [value, *prepared]
            for i, own in enumerate(reaches):
                if own.per_pixel:
                    steps = strides[i]
                    offset = k.add(k.mul(place.row, steps["row"]), k.mul(place.column, steps["column"]))
                    pointer = k.at(prepared[i], offset, memory_element(own.dtype))
                    found[1 + i] = read(i, pointer, place)
            return found

        together = [leaves(value, place) for value, place in zip(values, places, strict=True)]
        return [results[0] for results in expressions.emit_vectors(k, epilogue, together, lanes)]

    return prepare, finish
