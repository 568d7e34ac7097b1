"""Calls of everything public, generated from the signatures: a sample of each that works, in either mode.

A new function is covered by its signature; where the names of its parameters do not tell what to pass,
`test_the_sample_calls_work` names it, and it gets a row in `CALLS`.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import dualgraph as dg
import dualgraph.nn.functional as F
from dualgraph import data, errors, extend, nn, optim, static
from dualgraph.core.value import Value
from dualgraph.kernels import expr

FLOAT = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
ROWS = np.array([0, 1])
VARIABLE = dg.Variable(FLOAT)
LOADER = data.DataLoader(data.TensorDataset(FLOAT))
DOUBLED = static.compile(lambda x: x * 2.0, static.spec((2, 3)))
MODULES = {
    "Linear": nn.Linear(3, 2), "ModuleList": nn.ModuleList([nn.Tanh()]), "ModuleDict": nn.ModuleDict({"z": nn.Tanh()}),
    "Sequential": nn.Sequential(nn.Tanh()), "TensorDataset": data.TensorDataset(FLOAT),
}  # fmt: skip
ADAM = optim.Adam([nn.Parameter(FLOAT)])
SCALAR = expr.input(0, "float32")

# One operation of each kind that `extend` makes.
HYPOTENUSE = extend.elementwise("hypotenuse", lambda x, y: extend.call("sqrt", x * x + y * y), arity=2)
SCALED = extend.composite("scaled", lambda x, k: x * k)
SORTED = extend.external("sorted", lambda a, k: np.sort(a, axis=None).reshape(a.shape), lambda s, k: s)


class Given(NamedTuple):
    """An array that is passed as a tensor in eager mode, as an input of the graph in static mode."""

    array: np.ndarray[Any, Any]


class Made(NamedTuple):
    """Something computed from a tensor of `FLOAT` that requires a gradient."""

    function: Callable[[Any], Any]


# What is passed for a parameter of this name; a tensor of `FLOAT` for any other without a default.
BY_NAME: dict[str, Any] = {
    "arrays": [Given(FLOAT), Given(FLOAT)], "axes": (1, 0), "axis": 0, "axis1": 0, "axis2": 1, "classes": 3,
    "condition": Given(FLOAT > 2), "count": 1, "dataset": data.TensorDataset(FLOAT), "destination": 1, "device": "cpu",
    "dtype": "float64", "function": lambda x: x, "high": 5, "hook": lambda g: None, "in_features": 3, "indices": Given(ROWS),
    "labels": Given(ROWS), "low": 0, "n": 2, "name": "z", "nonlinearity": "relu", "normalized_shape": 3, "num": 3,
    "out_features": 2, "p": 0.5, "params": [nn.Parameter(FLOAT)], "sections": 2, "seed": 0,
    "shape": (2, 3), "source": 0, "start": 0, "stop": 3,
    "target": Given(ROWS), "value": 1.0, "variable": VARIABLE, "weight": Given(np.ones((4, 3), np.float32)),
}  # fmt: skip

# Where the names do not tell.
_LOSS = {"outputs": Made(lambda x: dg.sum(x * x)), "inputs": Made(lambda x: [x])}
CALLS: dict[str, dict[str, Any]] = {
    "dg.backward": {"output": Made(lambda x: dg.sum(x * x))},
    "dg.grad": _LOSS,
    "dg.matmul": {"b": Given(FLOAT.T)},
    "Tensor.__matmul__": {"other": Given(FLOAT.T)},
    "Tensor.__rmatmul__": {"other": Given(FLOAT.T)},
    "dg.mse_loss": {"target": Given(FLOAT)},
    "F.mse_loss": {"target": Given(FLOAT)},
    "dg.outer": {"a": Given(FLOAT[0]), "b": Given(FLOAT[1])},
    "dg.squeeze": {"x": Given(FLOAT[:1])},
    "Tensor.squeeze": {"self": Given(FLOAT[:1])},
    "dg.take": {"axis": 0},
    "dg.take_along_axis": {"indices": Given(ROWS[:, None])},
    "Tensor.assign": {"self": Made(lambda x: VARIABLE), "value": Given(FLOAT)},
    "Tensor.backward": {"self": Made(lambda x: dg.sum(x * x))},
    "Tensor.item": {"self": Given(FLOAT[:1, 0])},
    "Tensor.__index__": {"self": Given(ROWS[0])},
    "Tensor.__getitem__": {"key": 1},
    "data.TensorDataset": {"arrays": FLOAT},
    "init.calculate_gain": {"nonlinearity": "relu"},
    "nn.CrossEntropyLoss()": {"target": Given(ROWS)},
    "nn.MSELoss()": {"target": Given(FLOAT)},
    "nn.ModuleDict": {"modules": {}},
    "nn.ModuleList": {"modules": []},
    "nn.Sequential": {"modules": nn.Tanh()},
    "static.compile": {"target": lambda *args: dg.ones(2), "specs": static.Spec((2, 3), "float32")},
    "dg.broadcast_arrays": {"arrays": Given(FLOAT)},
    "static.gradients": {"loss": Made(lambda x: dg.sum(x * x)), "inputs": Made(lambda x: [x])},
    "DataLoader.load_state_dict": {"state": LOADER.state_dict()},
    "Adam.load_state_dict": {"state": ADAM.state_dict()},
    "extend.call": {"op": "abs", "args": SCALAR},
    "extend.cast": {"x": SCALAR},
    "extend.elementwise": {"expression": lambda x: x},
    "extend.external": {"spec": lambda s: s},
    "extend.select": {"condition": SCALAR > 0, "x": SCALAR, "y": SCALAR},
    "Tensor.register_hook": {"self": Made(lambda x: x * 2.0)},
    "Tensor.retain_grad": {"self": Made(lambda x: x * 2.0)},
}  # fmt: skip

for _name in ("and", "or", "xor", "left_shift", "right_shift", "invert"):
    CALLS[f"dg.bitwise_{_name}"] = {"x": Given(ROWS), "y": Given(ROWS)}
for _name in ("and", "or", "xor", "lshift", "rshift", "invert"):
    CALLS[f"Tensor.__{_name}__"] = CALLS[f"Tensor.__r{_name}__"] = {"self": Given(ROWS), "other": Given(ROWS)}

# These ask for values, which a symbol does not have: in static mode they may raise where they work in eager mode.
NEED_VALUES = (
    "Tensor.__contains__", "Tensor.__index__", "Tensor.item", "Tensor.numpy", "Tensor.tolist", "dg.tensor",
)  # fmt: skip


# What is no call of a user: protocols, base classes, what is made by other functions.
NOT_CALLED = ("Adam.update", "Tensor.held_gradient", "data.Dataset", "data.Digits", "nn.Module", "optim.Optimizer")

NEVER_WORK = ("Tensor.__setitem__",)


class Function(NamedTuple):
    """A public function, by the name in the messages of this test."""

    name: str
    function: Callable[..., Any]
    parameters: tuple[inspect.Parameter, ...]

    def call(self, changed: str | None = None, value: Any = None) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call that works, but for one of them."""
        args: list[Any] = []
        named: dict[str, Any] = {}
        given = CALLS.get(self.name, {})
        for p in self.parameters:
            if p.name == changed:
                found = value
            elif p.name in given:
                found = given[p.name]
            elif p.name == "self":
                found = Given(FLOAT)
            elif p.default is not p.empty:
                continue
            else:
                found = BY_NAME.get(p.name, Given(FLOAT))
            if p.kind is p.KEYWORD_ONLY or len(args) < self.parameters.index(p):
                named[p.name] = found
            else:
                args.append(found)
        return args, named


def public(prefix: str, module: Any) -> Iterator[tuple[str, Any]]:
    names = getattr(module, "__all__", None)
    if names is None:
        names = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__ and n[0] != "_"]
    for name in sorted(names):
        if inspect.isfunction(getattr(module, name)):
            yield f"{prefix}.{name}", getattr(module, name)


def methods() -> Iterator[tuple[str, Any]]:
    """Methods and operators of tensors."""
    for name in sorted({*vars(dg.Tensor), *vars(Value)} - {"__init__"}):
        method = inspect.getattr_static(Value, name)
        is_operator = name in vars(operator) or name.replace("__r", "__", 1) in vars(operator)
        if inspect.isfunction(method) and (is_operator or name[0] != "_") and f"Tensor.{name}" not in NOT_CALLED:
            yield f"Tensor.{name}", _method(name, method)


def _method(name: str, method: Any) -> Any:
    """The method of whichever class the tensor has."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **named: Any) -> Any:
        return getattr(self, name)(*args, **named)

    return call


def functions(found: Iterator[tuple[str, Any]]) -> dict[str, Function]:
    return {name: Function(name, function, parameters_of(function)) for name, function in found}


def parameters_of(function: Any) -> tuple[inspect.Parameter, ...]:
    return tuple(p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD)


def classes(prefix: str, module: Any) -> Iterator[tuple[str, Any]]:
    for name in sorted(module.__all__):
        if inspect.isclass(getattr(module, name)) and f"{prefix}.{name}" not in NOT_CALLED:
            yield f"{prefix}.{name}", getattr(module, name)


def layers() -> Iterator[tuple[str, Any]]:
    """A layer of each kind, as a function of its inputs."""
    for name, kind in classes("nn", nn):
        if issubclass(kind, nn.Module) and kind.forward is not nn.Module.forward:
            function = Function(name, kind, parameters_of(kind))
            args, named = function.call()
            yield f"{name}()", kind(*args, **named).forward


def _bound(owners: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Methods of objects that hold state; those of items are called as Python calls them."""
    for kind, owner in owners.items():
        for name in dir(type(owner)):
            method = getattr(owner, name)
            if inspect.ismethod(method) and (name[0] != "_" or name in ITEMS) and f"{kind}.{name}" not in NOT_CALLED:
                yield f"{kind}.{name}", method


ITEMS = ("__getitem__", "__setitem__", "__delitem__", "__contains__")


# Run in both modes, or in graphs only.
INSIDE = ("static.gradients", "static.placeholder")
OPERATIONS = {
    **functions(public("dg", dg)),
    **functions(public("F", F)),
    **functions(methods()),
    **functions(layers()),
    **functions(
        iter(
            [
                ("extend.elementwise()", lambda x, y: HYPOTENUSE(x, y)),
                ("extend.composite()", lambda x, k=2.0: SCALED(x, k=k)),
                ("extend.external()", lambda x, k=2.0: SORTED(x, k=k)),
            ]
        )
    ),
}
IN_GRAPHS = functions(item for item in public("static", static) if item[0] in INSIDE)

METHODS = functions(_bound({"DataLoader": LOADER, "Adam": ADAM, "group": ADAM.param_groups[0], **MODULES}))

# Make or change state, so they are called outside of graphs.
OUTSIDE = {
    **functions(classes("nn", nn)),
    **functions(classes("optim", optim)),
    **functions(classes("data", data)),
    **functions(public("init", nn.init)),
    **functions(public("extend", extend)),
    **functions(public("data", data)),
    **functions(item for item in public("static", static) if item[0] not in INSIDE),
    **METHODS,
    **functions(
        iter(
            [
                ("dg.Variable", dg.Variable),
                ("jit()", lambda x: static.jit(lambda x: dg.ones(2))(x)),
                ("compile()", lambda x: DOUBLED(x)),
            ]
        )
    ),
}


def passed_as(value: Any, make: Callable[[Any], Any], leaf: Any) -> Any:
    """An argument with its tensors made."""
    if isinstance(value, Given):
        return make(value.array)
    if isinstance(value, Made):
        return value.function(leaf)
    if isinstance(value, list) and len(value) < 3 and any(isinstance(x, Given) for x in value):
        return [passed_as(x, make, leaf) for x in value]
    return value


class Outcome(NamedTuple):
    error: BaseException | None
    words: str = ""

    @property
    def ours(self) -> bool:
        return isinstance(self.error, errors.DualgraphError)


def run(function: Callable[..., Any], args: list[Any], named: dict[str, Any], static_mode: bool) -> Outcome:
    """What comes of a call; what it is given is made before."""
    graph = static.Graph()

    def make(array: Any) -> Any:
        if not static_mode:
            return dg.tensor(array)
        return static.placeholder(f"x{len(graph.placeholders)}", array.shape, array.dtype)

    def passed(leaf: Any) -> tuple[list[Any], dict[str, Any]]:
        return [passed_as(v, make, leaf) for v in args], {k: passed_as(v, make, leaf) for k, v in named.items()}

    if not static_mode:
        return outcome(function, *passed(dg.tensor(FLOAT, requires_grad=True)))
    with graph:
        return outcome(function, *passed(static.placeholder("leaf", FLOAT.shape, "float32", requires_grad=True)))


def outcome(function: Callable[..., Any], args: list[Any], named: dict[str, Any]) -> Outcome:
    try:
        function(*args, **named)  # the user's line
    except Exception as error:
        return Outcome(error, str(error.args[0]) if error.args else "")
    return Outcome(None)
