"""The text of a recipe: all that was noted while a plan was made, as one Python function of the sizes given.

The function works out the numbers of a plan, looks at each condition that the plan relies on as soon as it
can, and gives the same steps with other numbers, or None where another plan is needed. What only one of two
courses uses is worked out where that course is taken.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

from ingot.compiler.steps import Check, HostStep, Lowered, belong
from ingot.kernels.call import Buffer, Call, Series, View
from ingot.kernels.made_again import Fork, Remade
from ingot.kernels.notes import Condition, Found, Given, Notes, Quotient, Same
from ingot.kernels.sizes import Answer, Made, Size, has_sizes, parts_of


@dataclass(slots=True)
class _Courses:
    """Lines of which one part or the other is run."""

    test: str
    parts: tuple[list[str], list[str]]


#: Lines of a function, in order.
_Lines: TypeAlias = list[str | _Courses]


def _is_of_sizes(value: Any) -> bool:
    """Whether it is an array with sizes among its elements."""
    if type(value) is not np.ndarray or value.dtype.kind != "O":
        return False
    return any(type(part) is Size for part in value.ravel().tolist())


class Writer:
    """The function's text as it grows. Names: n0 … the sizes given, s0 and t0 … what follows from them, p0 …
    tuples of such, r0 … what calls gave, c0 … what is the same for all sizes, v0 … views, b0 … buffers, k0 …
    steps.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._lines: _Lines = []
        self._fixed: dict[str, Any] = {"View": View, "Buffer": Buffer, "Call": Call, "Series": Series}
        self._fixed |= {"Check": Check, "HostStep": HostStep, "belong": belong}
        self._names: dict[int, str] = {}  # of objects, which `_fixed` or the plan keep
        self._atoms: dict[int, str] = {}
        self._tuples: dict[str, str] = {}
        self._numbers = itertools.count()
        self._kept: list[Any] = []
        self._course: _Lines | None = None
        self._calls = 0
        later: list[tuple[int, Condition | Same]] = []
        for before, condition in notes.conditions:
            if isinstance(condition, Condition) and self._follows_from_given(condition.size):
                self._condition(condition)  # before anything is called: for other sizes it would be in vain
            else:
                later.append((before, condition))
        for before, condition in later:
            self._call_up_to(before)
            self._condition(condition)
        self._call_up_to(len(notes.calls))

    def function(self, result: Callable[[Writer], str]) -> Callable[..., Any]:
        """The function, of the sizes given, that returns this."""
        text = f"return {result(self)}"
        sizes = ", ".join([f"n{number}" for number in range(len(self._notes.given))])
        body = "\n    ".join(_few_names([*_flat(_late(self._lines, text)), text]))
        exec(compile(f"def again({sizes}):\n    {body}\n", "<recipe>", "exec"), self._fixed)
        return self._fixed["again"]

    def plan(self, lowered: Lowered, results: Sequence[tuple[int, ...]]) -> str:
        """Steps, checks, and the shapes of the results."""
        self._lines.append("steps = []")
        for step in lowered.steps:
            text = self.step(step)
            self._lines.append(f"steps += {text[1:]}" if text[0] == "*" else f"steps.append({text})")
        checks = ", ".join([self.check(check) for check in lowered.checks])
        return f"steps, [{checks}], [{', '.join(map(self.text, results))}]"

    # ---- what was noted ------------------------------------------------------------------------------------

    def _call_up_to(self, count: int) -> None:
        for number in range(self._calls, count):
            done = self._notes.calls[number]
            args = ", ".join(map(self.text, done.args))
            self._lines.append(f"r{number} = {self._constant(done.function)}({args})")
        self._calls = max(self._calls, count)

    def _condition(self, condition: Condition | Same) -> None:
        if isinstance(condition, Condition):
            test = f"{self.text(condition.size)} {'<' if condition.kind == 'negative' else '=='} 0"
            wrong = f"not ({test})" if condition.holds else test
        else:
            found = self._found(Found(condition.call, condition.path))
            value = self.text(condition.value)
            if condition.what == "value" and not (
                condition.value is None or isinstance(condition.value, bool)
            ):
                wrong = f"{found} != {value}"
            else:
                wrong = {
                    "value": f"{found} is not {value}",
                    "type": f"type({found}) is not {value}",
                    "length": f"len({found}) != {value}",
                }[condition.what]
        self._lines.append(f"if {wrong}: return None")

    def _follows_from_given(self, size: Size | int) -> bool:
        """Whether no call has a part in it."""
        if isinstance(size, int):
            return True
        atoms = [self._notes.atoms[atom] for monomial, _ in size.terms for atom in monomial]
        return all(
            isinstance(atom, Given)
            or (
                isinstance(atom, Quotient)
                and self._follows_from_given(atom.a)
                and self._follows_from_given(atom.b)
            )
            for atom in atoms
        )

    @staticmethod
    def _found(found: Found) -> str:
        steps = [f".{step}" if isinstance(step, str) else f"[{step}]" for step in found.path]
        return f"r{found.call}" + "".join(steps)

    def _atom(self, number: int) -> str:
        atom = self._notes.atoms[number]
        if isinstance(atom, Given):
            return f"n{atom.number}"
        name = self._atoms.get(number)
        if name is None:
            text = (
                self._found(atom)
                if isinstance(atom, Found)
                else f"{self._operand(atom.a)} // {self._operand(atom.b)}"
            )
            name = self._atoms[number] = f"s{number}"
            self._lines.append(f"{name} = {text}")
        return name

    def _operand(self, size: Size | int) -> str:
        return f"({self.text(size)})"

    # ---- values --------------------------------------------------------------------------------------------

    def text(self, value: Any) -> str:
        """A value as an expression."""
        kind = cast("type[Any]", type(value))
        if kind is Size:
            return self._size(value)
        if value is None or kind is int or kind is bool:
            return repr(value)
        if kind is Answer:
            return f"r{value.call}"
        if kind is Made:
            return f"r{value.call}[{value.number}]"
        if kind is View:
            return self.view(value)
        if not has_sizes(value):
            return self._constant(value)
        parts = [self.text(part) for part in parts_of(value)]
        inner = "".join([f"{part}, " for part in parts])
        if kind is tuple:
            return self._shared(f"({inner})")
        return f"[{inner}]" if kind is list else f"{self._constant(kind)}({inner})"

    def _shared(self, text: str) -> str:
        """A tuple, made once: most shapes and strides are those of several views."""
        name = self._tuples.get(text)
        if name is None:
            name = self._tuples[text] = self._new("p")
            self._lines.append(f"{name} = {text}")
        return name

    def _size(self, size: Size) -> str:
        text = ""
        for monomial, factor in size.terms:
            product = [self._atom(atom) for atom in monomial]
            if abs(factor) != 1 or not monomial:
                product.append(str(abs(factor)))
            text += ("-" if factor < 0 else "+" if text else "") + "*".join(product)
        if len(size.terms) == 1 and size.terms[0][1] == 1 and len(size.terms[0][0]) == 1:
            return text
        return self._named(size, text, "t")

    def _new(self, letter: str) -> str:
        """A name that no other object has, in whatever course."""
        return f"{letter}{next(self._numbers)}"

    def _named(self, value: Any, text: str, letter: str) -> str:
        name = self._names.get(id(value))
        if name is None:
            name = self._names[id(value)] = self._new(letter)
            self._kept.append(value)
            self._lines.append(f"{name} = {text}")
        return name

    def _constant(self, value: Any) -> str:
        if _is_of_sizes(value):
            raise TypeError("an array of sizes is used as if it were the same for all sizes")
        name = self._names.get(id(value))
        if name is None:
            name = self._names[id(value)] = self._new("c")
            self._fixed[name] = value
        return name

    # ---- steps ---------------------------------------------------------------------------------------------

    def view(self, view: View) -> str:
        """A view, made once."""
        if id(view) in self._notes.views:
            return self._found(self._notes.views[id(view)][1])
        if id(view) in self._names:
            return self._names[id(view)]
        if id(view.buffer) not in self._notes.buffers and (
            view.buffer.kind == "constant" and not has_sizes((view.offset, view.shape, view.strides))
        ):
            return self._constant(view)
        parts = [self.text(part) for part in (view.offset, view.dtype, view.shape, view.strides)]
        return self._named(view, f"View({self.buffer(view.buffer)}, {', '.join(parts)})", "v")

    def buffer(self, buffer: Buffer) -> str:
        """A buffer, made once."""
        if id(buffer) in self._names:
            return self._names[id(buffer)]
        if id(buffer) in self._notes.buffers:
            return self._found(self._notes.buffers[id(buffer)][1])
        if buffer.kind == "constant":
            return self._constant(buffer)
        kind = "" if buffer.kind == "arena" else f", {buffer.kind!r}, None, {buffer.index}"
        return self._named(buffer, f"Buffer({self.text(buffer.nbytes)}{kind})", "b")

    def check(self, check: Check) -> str:
        """A check."""
        return f"Check({self.view(check.flag)}, {self._constant(check.message)})"

    def _fork(self, fork: Fork) -> str:
        """One of two courses. Only their steps are: what these are about is there in both."""
        name, around, parts = self._new("k"), self._course, list[list[str]]()
        for course in (fork.none, fork.some):
            self._course = []
            steps = ", ".join([self.step(step) for step in course])
            parts.append([*_flat(self._course), f"{name} = [{steps}]"])
        self._course = around
        none, some = parts
        self._do(_Courses(f"r{fork.answer.call} is None", (none, some)), f"belong({name}, {fork.origin!r})")
        return f"*{name}"

    def _do(self, *lines: str | _Courses) -> None:
        """Lines of steps: of the course that is being written, if one is."""
        (self._lines if self._course is None else self._course).extend(lines)

    def step(self, step: Any) -> str:
        """A step, or with a star the steps that it stands for, as one of a list."""
        if isinstance(step, Series):
            body = ", ".join([self.step(part) for part in step.body])
            own = ", ".join([self.buffer(buffer) for buffer in step.own])
            return f"Series([{body}], {self.text(step.turns)}, {self.text(step.moves)}, [{own}])"
        if isinstance(step, Fork):
            return self._fork(step)
        if isinstance(step, Remade):
            given = ", ".join(map(self.text, step.given))
            name, made = self._new("k"), f"{self._constant(step.function)}({given})"
            self._do(f"{name} = {made}", f"belong({name}, {step.origin!r})")
            return f"*{name}"
        if isinstance(step, HostStep):
            inputs = ", ".join(
                [self.view(x) if isinstance(x, View) else self._constant(x) for x in step.inputs]
            )
            outputs = ", ".join(["None" if x is None else self.view(x) for x in step.outputs])
            return f"HostStep({step.position}, [{inputs}], [{outputs}])"
        if not isinstance(step, Call):
            raise TypeError(f"no recipe makes a {type(step).__name__} again")
        reads, writes = (", ".join(map(self.view, views)) for views in (step.reads, step.writes))
        form = step.form
        if form is not None and isinstance(form.again, Found):
            views = ", ".join([self.view(cast(View, step.args[place])) for place in form.places])
            text = f"{self._found(form.again)}.call([{views}], [{reads}], [{writes}])"
        else:
            args = ", ".join([self.text(arg) for arg in step.args])
            more = [step.scratch, step.flops, step.label, step.in_place, step.waves]
            parts = [self.text(step.tiles), f"[{reads}]", f"[{writes}]", *map(self.text, more)]
            text = f"Call({self._constant(step.kernel)}, [{args}], {', '.join(parts)})"
        name = self._new("k")
        self._do(f"{name} = {text}", f"{name}.origin = {step.origin!r}")
        return name


#: What lines are about, but for the sizes given and what is the same for all sizes.
_NAME = re.compile(r"\b[prstvbk]\d+\b")


def _late(lines: _Lines, result: str) -> _Lines:
    """The lines before that of the result, with what only one of two courses uses at the beginning of it.
    Conditions on what a call gave go with the call; if nobody else uses that, it stays for their sake.
    """
    kept = _Lines()
    moved: dict[int, list[str | _Courses]] = {0: kept}
    users, conditions = defaultdict[str, set[int]](set), defaultdict[str, list[str]](list)

    def use(line: str, part: int) -> None:
        for name in _NAME.findall(line):
            users[name].add(part)

    use(result, 0)
    for line in reversed(lines):
        if isinstance(line, _Courses):
            use(line.test, 0)
            for part in line.parts:
                moved[id(part)] = []
                for text in part:
                    use(text, id(part))
            kept.append(line)
            continue
        if line.startswith("if "):
            about = set(_NAME.findall(line))
            call = about.pop() if len(about) == 1 else ""
            if call.startswith("r"):
                conditions[call].append(line)
                continue
        name, _, _ = line.partition(" = ")
        parts = users.get(name, {0})
        where = next(iter(parts)) if len(parts) == 1 else 0
        moved[where] += [*conditions.pop(name, ()), line]
        use(line, where)
    for line in kept:
        if isinstance(line, _Courses):
            for part in line.parts:
                part[:0] = reversed(_flat(moved[id(part)]))
    return kept[::-1]


def _few_names(lines: Sequence[str]) -> list[str]:
    """The same with names x0 …, of which each stands for something else once nobody asks for the last.

    The frame of a function with a name for each thing would fill what Python sets aside for frames (16 KB),
    and each call from it would get memory of its own: DenseNet's plan took 7.0 ms with 1,659 names, 4.2 with
    1,426.
    """
    last = {name: number for number, line in enumerate(lines) for name in _NAME.findall(line)}
    names, free, count = dict[str, str](), list[str](), itertools.count()
    renamed: list[str] = []
    for number, line in enumerate(lines):
        here = dict.fromkeys(_NAME.findall(line))
        for name in here:
            if name not in names:
                names[name] = free.pop() if free else f"x{next(count)}"
        renamed.append(_NAME.sub(lambda found: names[found[0]], line))
        free += [names.pop(name) for name in here if last[name] == number]
    return renamed


def _flat(lines: Sequence[str | _Courses]) -> list[str]:
    flat: list[str] = []
    for line in lines:
        if isinstance(line, str):
            flat.append(line)
            continue
        for test, part in zip((f"if {line.test}:", "else:"), line.parts, strict=True):
            flat += [test, *[f"    {text}" for text in part]]
    return flat
