"""Wrong calls of everything public, generated from the signatures: each works or raises an error of ours.

Every parameter of every public function is given every one of `VALUES`, the others as in a call that works. What is raised
must be a `DualgraphError` that names the user's line, with the same class and words in both modes, and nothing may have
changed. A new function is covered by its signature; where the names of its parameters do not tell what to pass,
`test_the_sample_calls_work` names it, and it gets a row in `CALLS`.
"""

from __future__ import annotations

import functools
import gc
import inspect
import operator
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from conformance.modes import random_state
from dualgraph import data, errors, nn, optim, static
from dualgraph.kernels import provider, reference
from dualgraph.ops.op import Op
from dualgraph.ops.tensor import TensorMethods

FLOAT = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
ROWS = np.array([0, 1])
VARIABLE = dg.Variable(FLOAT)
LOADER = data.DataLoader(data.TensorDataset(FLOAT))
ADAM = optim.Adam([nn.Parameter(FLOAT)])


class Given(NamedTuple):
    """An array that is passed as a tensor in eager mode, as an input of the graph in static mode."""

    array: np.ndarray[Any, Any]


class Made(NamedTuple):
    """Something computed from a tensor of `FLOAT` that requires a gradient."""

    function: Callable[[Any], Any]


def _nested(depth: int, kind: type = list) -> Any:
    value: Any = 1.0
    for _ in range(depth):
        value = kind((value,))
    return value


def _itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


VALUES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "str": lambda: "ab",
    "empty str": lambda: "",
    "object": object,
    "nested": lambda: [[2], [3]],
    "uneven": lambda: [[1.0], [1.0, 2.0]],
    "float": lambda: 3.5,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "-1": lambda: -1,
    "0": lambda: 0,
    "1": lambda: 1,
    "2**45": lambda: 2**45,
    "2**63": lambda: 2**63,
    "2**70": lambda: 2**70,
    "-2**70": lambda: -(2**70),
    "huge": lambda: 10**5000,
    "True": lambda: True,
    "int64": lambda: np.int64(2),
    "uint8": lambda: np.uint8(2),
    "float32": lambda: np.float32(1),
    "bool_": lambda: np.bool_(True),
    "array of shape ()": lambda: np.array(1),
    "array of strings": lambda: np.array(["a", "b"]),
    "array of objects": lambda: np.array([None, {}], object),
    "complex": lambda: 1j,
    "Decimal": lambda: Decimal("0.5"),
    "Fraction": lambda: Fraction(1, 2),
    "tensor of shape ()": lambda: Given(np.array(1)),
    "tensor of floats": lambda: Given(FLOAT),
    "tensor of bools": lambda: Given(FLOAT > 2),
    "tensor of a row": lambda: Given(ROWS),
    "list of a tensor": lambda: [Given(np.array(1))],
    "empty list": list,
    "empty tuple": tuple,
    "dict": lambda: {"a": 1},
    "set": lambda: {1, 2},
    "bytes": lambda: b"ab",
    "function": lambda: len,
    "type": lambda: int,
    "generator": lambda: (n for n in (0, 1)),
    "slice": lambda: slice(0, 2),
    "...": lambda: Ellipsis,
    "long": lambda: (0,) * 2000,
    "bools": lambda: [True, False],
    "a length of 2**63": lambda: (0, 2**63),
    "a length of 2**70": lambda: (2, 2**70),
    "many elements": lambda: (2**31, 2**31),
    "deep": lambda: _nested(5000),
    "deep tuple": lambda: _nested(5000, tuple),
    "itself": _itself,
}

# What is passed for a parameter of this name; a tensor of `FLOAT` for any other without a default.
BY_NAME: dict[str, Any] = {
    "arrays": [Given(FLOAT), Given(FLOAT)], "axes": (1, 0), "axis": 0, "axis1": 0, "axis2": 1, "classes": 3,
    "condition": Given(FLOAT > 2), "count": 1, "dataset": data.TensorDataset(FLOAT), "destination": 1, "device": "cpu",
    "dtype": "float64", "function": lambda x: x, "high": 5, "hook": lambda g: None, "in_features": 3, "indices": Given(ROWS),
    "labels": Given(ROWS), "low": 0, "n": 2, "name": "z", "nonlinearity": "relu", "num": 3, "out_features": 2, "p": 0.5,
    "params": [nn.Parameter(FLOAT)], "sections": 2, "seed": 0, "shape": (2, 3), "source": 0, "start": 0, "stop": 3,
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
    "Tensor.register_hook": {"self": Made(lambda x: x * 2.0)},
}  # fmt: skip

for _name in ("and", "or", "xor", "left_shift", "right_shift", "invert"):
    CALLS[f"dg.bitwise_{_name}"] = {"x": Given(ROWS), "y": Given(ROWS)}
for _name in ("and", "or", "xor", "lshift", "rshift", "invert"):
    CALLS[f"Tensor.__{_name}__"] = CALLS[f"Tensor.__r{_name}__"] = {"self": Given(ROWS), "other": Given(ROWS)}

# These ask for values, which a symbol does not have: in static mode they may raise where they work in eager mode.
NEED_VALUES = (
    "Tensor.__index__", "Tensor.item", "Tensor.numpy", "Tensor.tolist", "dg.tensor",
)  # fmt: skip


# What is no call of a user: protocols, base classes, what is made by other functions.
NOT_CALLED = ("Tensor.held_gradient", "data.Dataset", "data.Digits", "nn.Module", "optim.Optimizer")

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


def _public(prefix: str, module: Any) -> Iterator[tuple[str, Any]]:
    names = getattr(module, "__all__", None)
    if names is None:
        names = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__ and n[0] != "_"]
    for name in sorted(names):
        if inspect.isfunction(getattr(module, name)):
            yield f"{prefix}.{name}", getattr(module, name)


def _methods() -> Iterator[tuple[str, Any]]:
    """Methods and operators of tensors."""
    for name in sorted({*vars(TensorMethods), *vars(dg.Tensor)}):
        method = inspect.getattr_static(dg.Tensor, name)
        is_operator = name in vars(operator) or name.replace("__r", "__", 1) in vars(operator)
        if inspect.isfunction(method) and (is_operator or name[0] != "_") and f"Tensor.{name}" not in NOT_CALLED:
            yield f"Tensor.{name}", _method(name, method)


def _method(name: str, method: Any) -> Any:
    """The method of whichever class the tensor has."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **named: Any) -> Any:
        return getattr(self, name)(*args, **named)

    return call


def _functions(found: Iterator[tuple[str, Any]]) -> dict[str, Function]:
    return {name: Function(name, function, _parameters(function)) for name, function in found}


def _parameters(function: Any) -> tuple[inspect.Parameter, ...]:
    return tuple(p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD)


def _classes(prefix: str, module: Any) -> Iterator[tuple[str, Any]]:
    for name in sorted(module.__all__):
        if inspect.isclass(getattr(module, name)) and f"{prefix}.{name}" not in NOT_CALLED:
            yield f"{prefix}.{name}", getattr(module, name)


def _layers() -> Iterator[tuple[str, Any]]:
    """A layer of each kind, as a function of its inputs."""
    for name, kind in _classes("nn", nn):
        if issubclass(kind, nn.Module) and kind.forward is not nn.Module.forward:
            function = Function(name, kind, _parameters(kind))
            args, named = function.call()
            yield f"{name}()", kind(*args, **named).forward


# Run in both modes, or in graphs only.
INSIDE = ("static.gradients", "static.placeholder")
OPERATIONS = {
    **_functions(_public("dg", dg)),
    **_functions(_public("F", F)),
    **_functions(_methods()),
    **_functions(_layers()),
}
IN_GRAPHS = _functions(item for item in _public("static", static) if item[0] in INSIDE)

# Make or change state, so they are called outside of graphs.
OUTSIDE = {
    **_functions(_classes("nn", nn)),
    **_functions(_classes("optim", optim)),
    **_functions(_classes("data", data)),
    **_functions(_public("init", nn.init)),
    **_functions(_public("data", data)),
    **_functions(item for item in _public("static", static) if item[0] not in INSIDE),
    **_functions((f"DataLoader.{name}", getattr(LOADER, name)) for name in ("load_state_dict",)),
    **_functions((f"Adam.{name}", getattr(ADAM, name)) for name in ("load_state_dict", "zero_grad")),
    **_functions([("dg.Variable", dg.Variable)]),
}


def _passed(value: Any, make: Callable[[Any], Any], leaf: Any) -> Any:
    """An argument with its tensors made."""
    if isinstance(value, Given):
        return make(value.array)
    if isinstance(value, Made):
        return value.function(leaf)
    if isinstance(value, list) and len(value) < 3 and any(isinstance(x, Given) for x in value):
        return [_passed(x, make, leaf) for x in value]
    return value


class Outcome(NamedTuple):
    error: BaseException | None
    words: str = ""

    @property
    def ours(self) -> bool:
        return isinstance(self.error, errors.DualgraphError)


def _run(function: Callable[..., Any], args: list[Any], named: dict[str, Any], static_mode: bool) -> Outcome:
    """What comes of a call; what it is given is made before."""
    graph = static.Graph()

    def make(array: Any) -> Any:
        if not static_mode:
            return dg.tensor(array)
        return static.placeholder(f"x{len(graph.placeholders)}", array.shape, array.dtype)

    def passed(leaf: Any) -> tuple[list[Any], dict[str, Any]]:
        return [_passed(v, make, leaf) for v in args], {k: _passed(v, make, leaf) for k, v in named.items()}

    if not static_mode:
        return _outcome(function, *passed(dg.tensor(FLOAT, requires_grad=True)))
    with graph:
        return _outcome(function, *passed(static.placeholder("leaf", FLOAT.shape, "float32", requires_grad=True)))


def _outcome(function: Callable[..., Any], args: list[Any], named: dict[str, Any]) -> Outcome:
    try:
        function(*args, **named)  # the user's line
    except Exception as error:
        return Outcome(error, str(error.args[0]) if error.args else "")
    return Outcome(None)


def _fault(outcome: Outcome) -> str | None:
    """What is wrong with an error."""
    error = outcome.error
    if error is None:
        return None
    if not isinstance(error, errors.DualgraphError):
        return f"raw {type(error).__name__}: {str(error)[:150]}"
    if error.where is None or error.where.file != __file__ or str(error.where) not in str(error):
        return f"not the user's line: {error.where}"
    if len(outcome.words) > 1000:
        return f"{len(outcome.words)} characters"
    return None


def _faults(function: Function, changed: str, kind: str) -> Iterator[str]:
    before = _state()
    results = []
    for static_mode in (False, True):
        result = _run(function.function, *function.call(changed, VALUES[kind]()), static_mode)
        results.append(result)
        fault = _fault(result)
        if fault:
            yield f"{'static' if static_mode else 'eager'}: {fault}"
        if result.error is not None and _state() != before:
            yield "changed the state"
            _restore(before)
    eager, lazy = results
    if not all(r.error is None or r.ours for r in results):
        return
    if function.name in NEED_VALUES and isinstance(lazy.error, errors.SymbolError):
        return
    if isinstance(eager.error, errors.RangeError) and lazy.error is None:
        return  # found when the graph runs; see `test_bad_input`
    if type(eager.error) is not type(lazy.error) or eager.words != lazy.words:
        yield f"eager {type(eager.error).__name__} {eager.words[:150]!r}, static {type(lazy.error).__name__} {lazy.words[:150]!r}"


def _state() -> Any:
    return (
        random_state(),
        dg.is_grad_enabled(),
        dg.get_num_threads(),
        [p.numpy().tobytes() for p in (VARIABLE, *ADAM.params)],
    )


def _restore(state: Any) -> None:
    dg.set_num_threads(state[2])


@pytest.fixture(autouse=True, scope="module")
def _plain_kernels() -> Iterator[None]:
    """Kernels that need no compiling; what was prepared for them is forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provider, "load", reference.load)
        _forget_plans()
        yield
    _forget_plans()


def _forget_plans() -> None:
    for found in gc.get_objects():
        if type(found) is Op:
            found.plans.clear()


def test_the_sample_calls_work() -> None:
    faults = []
    for function in OPERATIONS.values():
        for static_mode in (False, True):
            result = _run(function.function, *function.call(), static_mode)
            needs = static_mode and function.name in NEED_VALUES
            refused = function.name in NEVER_WORK and isinstance(result.error, errors.ArgumentError)
            if result.error is not None and not refused and not (needs and result.ours):
                faults.append(
                    f"{function.name} {'static' if static_mode else 'eager'}: {result.error!r}; add what to pass to CALLS"
                )
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", [*OUTSIDE, *IN_GRAPHS])
def test_wrong_calls_of_one_mode(name: str) -> None:
    inside = name in IN_GRAPHS
    function = IN_GRAPHS[name] if inside else OUTSIDE[name]
    assert _run(function.function, *function.call(), inside).error is None
    faults = []
    for p in function.parameters:
        for kind in VALUES:
            before = _state()
            result = _run(function.function, *function.call(p.name, VALUES[kind]()), inside)
            fault = _fault(result)
            if fault is None and result.error is not None and _state() != before:
                fault = "changed the state"
            if fault:
                faults.append(f"{name}({p.name}={kind}) {fault}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", OPERATIONS)
def test_wrong_calls(name: str) -> None:
    function = OPERATIONS[name]
    faults = [
        f"{name}({p.name}={kind}) {fault}"
        for p in function.parameters
        if p.name != "self"
        for kind in VALUES
        for fault in _faults(function, p.name, kind)
    ]
    assert not faults, "\n".join(faults)
