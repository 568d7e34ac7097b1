"""Wrong calls of everything public: each works or raises an error of ours.

Every parameter of every public function is given every one of `VALUES`, the others as in a call that works. What is raised
must be a `DualgraphError` that names the user's line, with the same class and words in both modes, and nothing may have
changed. The functions that operations of `extend` are made of return every one of `VALUES`, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from conformance import calls
from conformance.calls import (
    ADAM,
    FLOAT,
    IN_GRAPHS,
    METHODS,
    NEED_VALUES,
    NEVER_WORK,
    OPERATIONS,
    OUTSIDE,
    ROWS,
    VARIABLE,
    Function,
    Given,
    Outcome,
    run,
)  # fmt: skip
from conformance.modes import random_state
from dualgraph import errors, extend, static
from dualgraph.eager import PREPARED
from dualgraph.kernels import provider, reference


def _nested(depth: int, kind: type = list) -> Any:
    value: Any = 1.0
    for _ in range(depth):
        value = kind((value,))
    return value


def _itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


DEEP, DEEP_TUPLE = _nested(5000), _nested(5000, tuple)

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
    "long": lambda: (0,) * 500,
    "bools": lambda: [True, False],
    "a length of 2**63": lambda: (0, 2**63),
    "a length of 2**70": lambda: (2, 2**70),
    "many elements": lambda: (2**31, 2**31),
    "deep": lambda: DEEP,
    "deep tuple": lambda: DEEP_TUPLE,
    "itself": _itself,
}


def _fault(outcome: Outcome) -> str | None:
    """What is wrong with an error."""
    error = outcome.error
    if error is None:
        return None
    if not isinstance(error, errors.DualgraphError):
        return f"raw {type(error).__name__}: {str(error)[:150]}"
    if error.where is None or error.where.file != calls.__file__ or str(error.where) not in str(error):
        return f"not the user's line: {error.where}"
    if len(outcome.words) > 1000:
        return f"{len(outcome.words)} characters"
    return None


def _faults(function: Function, changed: str, kind: str) -> Iterator[str]:
    before = _state()
    results = []
    for static_mode in (False, True):
        result = run(function.function, *function.call(changed, VALUES[kind]()), static_mode)
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
        PREPARED.clear()
        yield
    PREPARED.clear()


def test_the_sample_calls_work() -> None:
    faults = []
    for function in OPERATIONS.values():
        for static_mode in (False, True):
            result = run(function.function, *function.call(), static_mode)
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
    assert name in METHODS or run(function.function, *function.call(), inside).error is None
    faults = []
    for p in function.parameters:
        for kind in VALUES:
            before, value = _state(), VALUES[kind]()
            if p.name == "function" and callable(value):
                continue  # what it raises is its own
            result = run(function.function, *function.call(p.name, value), inside)
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


def _returning(**functions: Any) -> Any:
    return extend.external("made", **{"function": lambda a: a, "spec": lambda s: s, "vjp": (None,), **functions})


# The functions that an operation is made of, each of which returns a value.
RETURNING: dict[str, Callable[[Any], Any]] = {
    "expression": lambda value: extend.elementwise("made", lambda x: value),
    "literal": lambda value: extend.elementwise("made", lambda x: extend.literal(value, x.dtype)),
    "instruction": lambda value: extend.elementwise("made", lambda x: extend.call(value, x)),
    "operand": lambda value: extend.elementwise("made", lambda x: x + value),
    "left operand": lambda value: extend.elementwise("made", lambda x: value * x),
    "condition": lambda value: extend.elementwise("made", lambda x: extend.select(value, x, 1.0)),
    "composite": lambda value: extend.composite("made", lambda x: value),
    "results of a composite": lambda value: extend.composite("made", lambda x: (x, value)),
    "external": lambda value: _returning(function=lambda a: value),
    "results of an external": lambda value: _returning(function=lambda a: (a, value), spec=lambda s: (s, s)),
    "spec": lambda value: _returning(spec=lambda s: value),
    "specs": lambda value: _returning(spec=lambda s: (s, value)),
    "shape": lambda value: _returning(spec=lambda s: static.Spec(value, "float32")),
    "dtype": lambda value: _returning(spec=lambda s: static.Spec((2, 3), value)),
    "rule": lambda value: _returning(vjp=(lambda g, out, x: value,)),
    "rule of a composite": lambda value: extend.composite("made", lambda x: x, vjp=(lambda g, out, x: value,)),
    "rule of an expression": lambda value: extend.elementwise("made", lambda x: x, vjp=(lambda g, out, x: value,)),
    "rule by number": lambda value: _returning(vjp=lambda number, g, out, x: value),
    "rule inside": lambda value: extend.composite("around", lambda x: RETURNING["rule"](value)(x) * 2.0),
}


@pytest.mark.parametrize("what", RETURNING)
def test_what_functions_of_operations_return(what: str) -> None:
    faults = []
    for kind in VALUES:
        value = calls.passed_as(VALUES[kind](), dg.tensor, None)
        if value is len and what == "instruction":
            continue
        op, x = RETURNING[what](value), dg.tensor(FLOAT, requires_grad=True)
        weight = dg.Variable([1.0])

        def step(x: Any, op: Any = op, weight: Any = weight) -> None:
            weight.assign(weight + 1.0)
            results = op(x)
            for result in results if isinstance(results, tuple) else (results,):
                if result.requires_grad:
                    dg.sum(result).backward(retain_graph=True)

        found = []
        for function in (step, static.jit(step)):
            before = _state()
            weight.assign([1.0])
            try:
                function(x)
            except Exception as error:
                ours = isinstance(error, errors.DualgraphError)
                found.append((type(error).__name__, str(error), ours and error.where.file == __file__))
                if _state() != before or (function is not step and weight.tolist() != [1.0]) or x.grad is not None:
                    faults.append(f"{kind}: changed the state")
            else:
                found.append(("", "", True))
            x.grad = None
        if found[0] != found[1] or not found[0][2] or len(found[0][1]) > 1000:
            faults.append(f"{kind}: eager {found[0]}, static {found[1]}")
    assert not faults, "\n".join(faults)
