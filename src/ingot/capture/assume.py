"""What an export took for granted: one record for each, with the line of the user's code that asked for
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "narrowed",
    "unified",
    "range",
    "relation",
    "branch",
    "condition",
    "declared",
    "argument",
    "constant",
    "input-changed",
    "state",
    "begins",
    "random",
    "values",
    "output",
    "training",
    "unwritten",
    "open",
    "runtime",
]
Status = Literal["proved", "checked", "fixed"]


@dataclass(frozen=True)
class Assumption:
    """One thing that must hold for the exported model to be the same function as its source.

    kind    `narrowed`: a dimension became static; `unified`: two dimensions must be equal; `range`: bounds or
            divisibility of sizes; `relation`: an equation between sizes; `branch`: what sizes must be
            like for the model's own Python to go the way of the example; `condition`: an assertion, or
            another check, of what the run computes; `declared`: bounds that the caller gave a dimension;
            `argument`: a non-tensor argument kept at its value; `constant`: a Python value
            computed from tensors that never change (parameters, buffers); `input-changed`: the source
            writes into its input, the exported model leaves it alone; `state`: forward changes something that
            outlives the call; `begins`: a number or table that forward changes as sizes decide, of which
            every call of the model finds what the module held at the export; `random`: each run draws
            numbers of its own, which no seed of PyTorch's repeats; `values`: PyTorch raises for some contents
            of tensors, the exported model does not; `output`: a number or text that the module returns stays
            what it was, and is no output of the model; `training`: a layer was in training mode, in which it
            may be another function, and is exported as after `.eval()`; `unwritten`: something may read
            what `torch.empty` leaves in a tensor, which is 0 in the model and anything in the module;
            `open`: PyTorch leaves open which of several results an operator gives, and the model's may be
            others: verification says where that made a difference;
            `runtime`: ONNX Runtime has no kernels for operators of the model, and does not load it
    where   file:line in the user's code, or the argument's or the layer's name
    what    the condition or fact, in words or as a formula over the names of dimensions
    status  `proved`: holds for every input; `checked`: the graph itself fails when it does not hold; `fixed`:
            the model is narrower than its source, which its declared inputs show, or this line
    """

    kind: Kind
    where: str
    what: str
    status: Status

    def __str__(self) -> str:
        return f"{self.what} ({self.kind}, {self.status}; {self.where})"
