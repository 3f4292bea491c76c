"""What a model's own Python can reach beside what the model holds: the code that it names, and the numbers,
containers and objects outside of it in which that code may keep something.

Names decide: a function reaches the globals that it names, the variables of the functions around it, and of
every class, object and Python module on the way the methods and attributes whose names stand in code that is
reached. Libraries (`objects.LIBRARIES`) are left out.
"""

# A model may hold anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

import dis
import enum
import functools
import os
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch

from ingot.capture.attribute_names import globals_in, names_in
from ingot.capture.clocks import UNREPEATABLE, UNSTEADY, is_unrepeatable
from ingot.capture.mutable import contents_of
from ingot.capture.objects import LIBRARIES, attributes, is_a, own_dict
from ingot.capture.scripts import Scripts
from ingot.capture.where import is_user_code, quoted_at

NUMBERS = (bool, int, float)
CONTAINERS = (dict, list, deque, set, OrderedDict)
_KEPT = (torch.Tensor, str, type(None), tuple, *NUMBERS, *CONTAINERS)  # what a variable may be watched for
# What torch keeps in a module for itself, and functools.wraps in a function.
OF_TORCH = frozenset(torch.nn.Module().__dict__) | {"_is_hf_initialized", "__wrapped__"}
_CALLED = frozenset(  # by Python, without their name
    f"__{name}__"
    for name in (
        "call", "getattr", "getattribute", "setattr", "getitem", "setitem", "delitem", "contains", "len",
        "iter", "next", "enter", "exit", "bool", "int", "float", "index", "eq", "ne", "lt", "le", "gt",
        "ge", "hash", "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "matmul", "iadd",
        "neg", "get", "set", "class",
    )
)  # fmt: skip
_Cache: Any = type(functools.lru_cache(len))
_STORES = ("STORE_GLOBAL", "STORE_DEREF", "STORE_ATTR", "DELETE_ATTR", "DELETE_GLOBAL")


class Variable:
    """A variable of a function or of a Python module, or an attribute of a class, as a dict of one."""

    def __init__(self, name: str, get: Callable[[], Any], put: Callable[[Any], object]) -> None:
        self.name, self._get, self._put = name, get, put

    def __getitem__(self, key: str) -> Any:
        return self._get()

    def __setitem__(self, key: str, value: Any) -> None:
        self._put(value)


_MAKERS = ("__init__", "__new__", "__post_init__")

Root = tuple[str, Any]  # what it is called, and a dict or a Variable


class Reach:
    """Walks from what a model is made of: `roots` gives what it finds, `meet` is told what is in there."""

    def __init__(self, function: Any, scripts: Scripts) -> None:
        self.codes: list[CodeType] = []
        self.makers: list[CodeType] = []  # what makes objects of the model's classes
        self._scripts = scripts
        self.caches: list[Any] = []  # of functools, around the model's functions
        self.unsteady = False  # whether the code may give another answer each time, whatever it finds
        self._found: deque[Root] = deque()
        self._functions: deque[FunctionType] = deque()
        self._seen: set[int] = set()
        self._alive: list[Any] = []  # bound methods and views are made anew: their ids must stay theirs
        self._scopes: set[tuple[int, str]] = set()  # variables of Python modules that were met
        self._labels: Counter[str] = Counter()
        self._named: set[str] = {"forward"}
        self._waiting: defaultdict[str, list[Callable[[], None]]] = defaultdict(
            list
        )  # for code that names it
        self._begin(function)

    def roots(self) -> Iterator[Root]:
        """Everything where something may be kept; whoever looks into one says what is in it with `meet`."""
        while self._found or self._functions:
            if self._found:
                yield self._found.popleft()
            else:
                self._function(self._functions.popleft())

    def _begin(self, function: Any) -> None:
        if isinstance(function, torch.nn.Module):
            self._module("", function)
            return
        while isinstance(function, functools.partial):
            for part in (*function.args, *function.keywords.values()):
                self._hold("", part)
            function = function.func
        owner = getattr(function, "__self__", None)
        code = getattr(function, "__func__", function)
        if isinstance(owner, torch.nn.Module):
            self._module("", owner)
        else:
            self._hold("", owner)
        if isinstance(code, FunctionType):
            self._cells(code, "")
            self._functions.append(code)
        else:
            self._hold("", function)

    # -- what is found

    def _new(self, x: Any) -> bool:
        if id(x) in self._seen:
            return False
        self._seen.add(id(x))
        self._alive.append(x)
        return True

    def _root(self, label: str, root: Any, shared: bool = False) -> None:
        """shared: several roots of one thing go by one name"""
        if not isinstance(root, Variable) and not self._new(root):
            return
        whole = f"{label}.{root.name}" if isinstance(root, Variable) and label else label
        whole = root.name if isinstance(root, Variable) and not label else whole
        self._labels[whole] += not shared
        n = self._labels[whole]
        self._found.append((label if n <= 1 else f"{label or 'globals'}({n})", root))

    def _variable(self, label: str, name: str, get: Callable[[], Any], put: Callable[[Any], object]) -> None:
        """A variable that code names, if something may be kept in it."""
        value = get()
        kept = is_a(value, _KEPT) or contents_of(value) is not None or attributes(value) is not None
        if kept:
            self._root(label, Variable(name, get, put))
        else:
            self.meet(f"{label}.{name}" if label else name, value)

    def meet(self, label: str, x: Any) -> None:
        """Something that stands in a variable, container or object."""
        if is_a(x, torch.nn.Module):
            self._module(label, x)
        elif is_a(x, type):
            self.unsteady |= is_unrepeatable(x)
            self._class(x)
        elif type(x) not in _KEPT and self._new(x):
            self._meet_new(label, x)

    def _meet_new(self, label: str, x: Any) -> None:
        if is_unrepeatable(x):
            self.unsteady = True
        elif is_a(x, FunctionType):
            self._functions.append(x)
        elif is_a(x, MethodType):
            self.meet(label, x.__func__)
            self._hold(label, x.__self__)
        elif is_a(x, functools.partial):
            for part in (x.func, *x.args, *x.keywords.values()):
                self._hold(label, part)
        elif is_a(x, threading.local):
            self._root(label, vars(x))
        elif hasattr(type(x), "__next__"):
            self.unsteady = True
        elif attributes(x) is not None:
            self._class(type(x))
        elif hasattr(x, "__wrapped__"):
            self._cache(x)
            self.meet(label, x.__wrapped__)
        elif contents_of(x) is not None:
            self._class(type(x))

    def _cache(self, x: Any) -> None:
        if isinstance(x, _Cache):
            self.caches.append(x)

    def _hold(self, label: str, x: Any) -> None:
        """Something that stands where no container or variable shows it."""
        self.meet(label, x)
        if attributes(x) is not None:
            self._root(label, own_dict(x))

    def _module(self, label: str, module: torch.nn.Module) -> None:
        for path, m in module.named_modules():
            at = ".".join(p for p in (label, path) if p)
            if not self._new(m):
                continue
            m = self._scripts.stands_for(m)
            for root in (m._buffers, m._parameters, m.__dict__):
                self._root(at, root, shared=True)
                if not at:  # a global of the name of one of these goes by another
                    self._labels.update(map(str, root))
            for name, tensor in (*m._parameters.items(), *m._buffers.items()):
                if tensor is not None:  # on which attributes may be kept
                    self._root(f"{at}.{name}" if at else name, vars(tensor), shared=True)
            for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values()):
                self._hold(at, hook)
            self._class(type(m))

    # -- code

    def _function(self, function: FunctionType) -> None:
        code, module = function.__code__, str(function.__module__)
        if not is_user_code(code) or module.split(".")[0] in LIBRARIES:
            return
        self._root(function.__name__, vars(function))
        arguments = code.co_varnames[: code.co_argcount]
        defaults: tuple[Any, ...] = function.__defaults__ or ()
        held = dict(zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True))
        held |= function.__kwdefaults__ or {}
        held = {k: v for k, v in held.items() if not isinstance(v, _KEPT[:4] + NUMBERS)}
        if held:
            self._root(function.__name__, held)
        self._cells(function, function.__name__)
        if not self._new(code):
            return
        self.codes.append(code)
        names, scope = names_in(code), function.__globals__
        for name in names:
            if name in scope:
                if name in globals_in(code):  # not an attribute of the same name
                    self._global(name, scope, names)
            elif name in UNREPEATABLE and not UNSTEADY.isdisjoint(names):  # imported by the function
                self.unsteady = True
        for name in set(names) - self._named:
            self._named.add(name)
            for call in self._waiting.pop(name, ()):
                call()

    def _cells(self, function: FunctionType, label: str) -> None:
        """The variables of the functions around a function."""
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name == "__class__" or not self._new(cell):
                continue
            try:
                value = cell.cell_contents
            except ValueError:  # not bound yet
                continue
            if isinstance(value, torch.nn.Module):
                self._module(f"{label}.{name}" if label else name, value)
            else:
                put = functools.partial(_set_cell, cell)
                self._variable(label, name, lambda c=cell: c.cell_contents, put)

    def _global(self, name: str, scope: dict[str, Any], names: tuple[str, ...]) -> None:
        value = scope[name]
        if isinstance(value, ModuleType):
            self._python_module(value, names)
        elif (id(scope), name) not in self._scopes:
            self._scopes.add((id(scope), name))
            self._variable("", name, lambda: scope[name], functools.partial(scope.__setitem__, name))

    def _python_module(self, module: ModuleType, names: tuple[str, ...]) -> None:
        """What code takes of a Python module that it names."""
        top, scope = module.__name__.split(".")[0], vars(module)
        if module is os and not {"environ", "getenv", "putenv"}.isdisjoint(names):
            self._variable("os", "environ", lambda: os.environ, lambda _: None)
        if top in UNREPEATABLE and not (UNSTEADY | {"getattr"}).isdisjoint(names):
            self.unsteady = True
        for name in names if top not in LIBRARIES else ():
            if (id(scope), name) not in self._scopes and not isinstance(scope.get(name, os), ModuleType):
                self._scopes.add((id(scope), name))
                label = module.__name__.rpartition(".")[2]
                put = functools.partial(scope.__setitem__, name)
                self._variable(label, name, lambda n=name: scope[n], put)

    def _class(self, kind: type) -> None:
        """A class of the user's: what it keeps for all of its objects, and its methods that code names.

        Python calls some of them by itself; those that make an object are left out, for they change it alone.
        """
        for cls in kind.__mro__:
            if cls.__module__.split(".")[0] in LIBRARIES or not self._new(cls) or issubclass(cls, enum.Enum):
                continue
            for name, value in list(vars(cls).items()):
                function = _function_in(value)
                self._cache(getattr(value, "__func__", value))
                if name in _MAKERS and isinstance(function, FunctionType):
                    self.makers.append(function.__code__)
                if function is not None:
                    self._when_named(name, functools.partial(self.meet, cls.__name__, function))
                elif name.startswith("__"):
                    continue
                elif type(value) in (torch.Tensor, *NUMBERS, *CONTAINERS) and name[0] != "_":
                    self._attribute(cls, name)
                else:
                    self._when_named(name, functools.partial(self._attribute, cls, name))

    def _attribute(self, cls: type, name: str) -> None:
        get, put = functools.partial(getattr, cls, name), functools.partial(setattr, cls, name)
        if name in vars(cls) and not hasattr(type(vars(cls)[name]), "__get__"):
            self._variable(cls.__name__, name, get, put)

    def _when_named(self, name: str, call: Callable[[], None]) -> None:
        """Do it as soon as code names this; what Python calls by itself is always named."""
        if name in self._named or name in _CALLED:
            call()
        else:
            self._waiting[name].append(call)


def _set_cell(cell: Any, value: Any) -> None:
    cell.cell_contents = value


def _function_in(value: Any) -> Any:
    """The function of a method, property or whatever else calls one."""
    value = getattr(value, "__func__", value)
    value = getattr(value, "fget", getattr(value, "func", value)) if not isinstance(value, type) else value
    value = getattr(value, "__wrapped__", value)
    return value if isinstance(value, FunctionType) else None


def line_that_changes(codes: Sequence[CodeType], names: Sequence[str]) -> str | None:
    """The line of code that stores into the first of these names, or else the first that has it at all."""
    for stores in (True, False):
        for name in names if not stores else names[:1]:
            for code in codes:
                for i in dis.get_instructions(code):
                    if i.argval == name and (i.opname in _STORES) >= stores and i.positions is not None:
                        return quoted_at(code.co_filename, i.positions.lineno or code.co_firstlineno)
    return None
