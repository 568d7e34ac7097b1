"""A random program as a function of tensors that both modes run, and everything that its calls give and leave behind.

The function is called several times: the state of variables, gradients, flags and random numbers goes on, and results of
one call are arguments of the next. Calls may take turns between the modes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import dualgraph as dg
from conformance.layouts import LAYOUTS
from conformance.modes import Array, assert_bits, differentiated, leaves, random_state, weight
from conformance.programs import Handed, RandomProgram
from dualgraph.bits import same_bits
from dualgraph.spec import is_float

SEED = 20
ARGUMENTS = ("argument", "computed", "plain", "twin", "shared")
Outcome = dict[str, Array]


class Bound(NamedTuple):
    """A program with its inputs: the function of those that are arguments, and all of them."""

    program: RandomProgram
    function: Callable[..., list[Any]]
    given: list[Any]
    body: Callable[..., list[Any]]  # what the function calls, and holds weakly

    @property
    def arguments(self) -> list[Any]:
        """Of the first call."""
        return [self.given[n] for n in places(self.program)]

    def outcome(self, *runs: Callable[..., Sequence[Any]]) -> Outcome:
        """What one call of each gives and leaves behind: results or the words of an error, then the state.

        After an error there are no further calls, and the state is that from before, as a failed static step leaves it.
        """
        found: Outcome = {}
        given = list(self.given)
        dg.manual_seed(SEED)
        for number, run in enumerate(runs):
            before = state(given)
            try:
                with dg.enable_grad() if self.program.recorded else dg.no_grad():
                    results = run(*(given[n] for n in places(self.program)))
            except dg.errors.DualgraphError as error:
                found[f"call {number}"] = np.array(f"{type(error).__name__}: {error.args[0]}")
                found.update((f"call {number}, {name}", x) for name, x in before.items())
                if run is not self.function:
                    found.update((f"call {number}, {name}", x) for name, x in state(given).items())
                break
            after = [(f"result {n}", x) for n, result in enumerate(results) for x in described(result, given)]
            found.update((f"call {number}, {name}{which}", x) for name, (which, x) in after)
            found.update((f"call {number}, {name}", x) for name, x in state(given).items())
            given = [self.next_of(n, given, results) for n in range(len(given))]
            given = [given[h.of] if h.way == "twin" else x for x, h in zip(given, self.program.handed, strict=True)]
        return found

    def next_of(self, n: int, given: list[Any], results: Sequence[Any]) -> Any:
        """An argument of the next call: a result of this one that fits, or the same tensor again."""
        way, x = self.program.handed[n].way, given[n]
        if way not in ("argument", "plain") or (self.program.seed + n) % 2:
            return x
        fitting = [r for r in results if r.spec == x.spec]
        if not fitting:
            return x
        made = fitting[0].detach()
        return made.requires_grad_() if way == "argument" and is_float(x.dtype.name) else made


def places(program: RandomProgram) -> list[int]:
    """The inputs that are arguments."""
    return [n for n, h in enumerate(program.handed) if h.way in ARGUMENTS]


def described(x: Any, given: list[Any]) -> list[tuple[str, Array]]:
    """A result: its values, its flag, and which of the inputs it is."""
    which = [n for n, other in enumerate(given) if other is x][:1]
    return [("", x.detach().numpy()), (" takes gradients", np.array(x.requires_grad)), (" is input", np.array(which))]


def state(given: list[Any]) -> Outcome:
    """Values of variables, gradients and flags of all inputs, and the random numbers."""
    found = {"random numbers": np.array(random_state())}
    for n, x in enumerate(given):
        if x.is_variable:
            found[f"v{n}"] = x.numpy()
        if is_float(x.dtype.name):
            found[f"v{n}.requires_grad"] = np.array(x.requires_grad)
            found[f"v{n}.grad"] = np.array("none") if x.grad is None else x.grad.detach().numpy()
    return found


def bound(program: RandomProgram) -> Bound:
    """Eager tensors that lie as the program says, and the function with its gradients."""
    given: list[Any] = []
    for array, handed in zip(program.arrays(), program.handed, strict=True):
        given.append(tensor_of(array, handed, given))
    at = places(program)
    full = sweeping(program) if program.left else differentiated(program, program.order)

    def body(inputs: list[Any]) -> list[Any]:
        return [as_result(x, inputs) for x in leaves(full(*inputs))]

    hidden = weakref.ref(body)  # or guards would follow the interpreter of programs, which takes longer than all else

    def function(*arguments: Any) -> list[Any]:
        values = dict(zip(at, arguments, strict=True))
        run: Any = hidden()
        return run([values.get(n, x) for n, x in enumerate(given)])  # type: ignore[no-any-return]

    return Bound(program, function, given, body)


def sweeping(function: Callable[..., Any]) -> Callable[..., list[Any]]:
    """`function` that leaves the gradients of its outputs, one after the other."""

    def run(*inputs: Any) -> list[Any]:
        found = leaves(function(*inputs))
        for n, x in enumerate(found):
            if x.requires_grad:
                x.backward(weight(x.shape, x.dtype, n), retain_graph=True)
        return found

    return run


def as_result(x: Any, inputs: list[Any]) -> Any:
    """Leaves that are made inside stay there: their gradients cannot come out with them."""
    return x.detach() if x.is_leaf and x.requires_grad and all(x is not y for y in inputs) else x


def tensor_of(array: Array, handed: Handed, given: list[Any]) -> Any:
    """An eager tensor with these elements, of which, and with what is there before, as it is to be handed over."""
    if handed.way == "twin":
        return given[handed.of]
    if handed.way == "shared":
        return given[handed.of].detach()
    if handed.layout == "repeated" and array.ndim:
        base, view = np.ascontiguousarray(array[:1]), lambda x: dg.broadcast_to(x, array.shape)
    else:
        base, view = LAYOUTS[handed.layout if array.ndim and handed.layout in LAYOUTS else "contiguous"](array)
    if handed.way == "computed":
        leaf = dg.tensor(base, requires_grad=True)
        x = view(leaf)
        return leaf * 2.0 if x is leaf else x
    x = view(dg.tensor(base)).detach()
    if handed.way in ("parameter", "variable"):
        x = dg.Variable(x, requires_grad=handed.way == "parameter")
    elif handed.way in ("argument", "leaf"):
        x.requires_grad_()
    if handed.held:
        x.grad = dg.tensor(weight(x.shape, x.dtype, 1))
    if handed.hooked:
        x.register_hook(lambda g: g * 1.5)
    return x


def same_outcome(found: Outcome, expected: Outcome) -> bool:
    return list(found) == list(expected) and all(map(same_bits, found.values(), expected.values()))


def assert_same(found: Outcome, expected: Outcome, what: str) -> None:
    """By bits, name by name."""
    assert list(found) == list(expected), f"{what}: {list(found)}, expected {list(expected)}"
    for name, x in expected.items():
        if x.dtype.kind == "U":
            assert str(found[name]) == str(x), f"{what}, {name}: got {found[name]}, expected {x}"
        else:
            assert_bits([found[name]], [x], f"{what}, {name}")
