"""Symbols and the recorder: front ends that write calls down instead of running them.

A `Recorder` is what traces a composite op; the static graph is a recorder with inputs, variables and constants.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from dualgraph.core.arrays import as_array
from dualgraph.core.mode import FrontEnd, current, default
from dualgraph.core.op import Call, Op, specs_of
from dualgraph.core.tensor import FUNCTIONS, Registered, Tensor, check_gradient
from dualgraph.dtypes import scalar_array
from dualgraph.errors import DualgraphError, GraphError, SymbolError, here
from dualgraph.spec import Spec, is_float

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, Leaf, Params, Scalar, Value, Variable

# NumPy's names of operators, and ours
_SAME = (
    "add subtract multiply divide floor_divide remainder power matmul bitwise_and bitwise_or bitwise_xor "
    "less less_equal greater greater_equal equal not_equal"
).split()
_OPERATORS = {
    **{name: name for name in _SAME},
    "left_shift": "bitwise_left_shift",
    "right_shift": "bitwise_right_shift",
}


class Symbol(Tensor):
    """A value that is not computed yet: result `index` of `node` in a recorder.

    `call` is what differentiation sees: the node, or None where the symbol is a leaf of the recorded graph.
    """

    __slots__ = (
        "__weakref__",
        "_grad",
        "call",
        "hooks",
        "index",
        "layout",
        "node",
        "recorder",
        "source",
        "tracked",
    )

    takes_operators = True  # see `exact`

    def __init__(self, recorder: Recorder, node: Call, index: int, requires_grad: bool = False, leaf: bool = False):
        self.recorder, self.node, self.index, self.tracked = recorder, node, index, requires_grad
        self.layout: Spec = node.specs[index]
        self.call = None if leaf else node
        self.hooks: list[Registered] | None = None
        self.source: Leaf | None = None  # the tensor that this symbol stands for, if any
        self._grad: Any = None

    def __repr__(self) -> str:
        return f"Symbol({self.node.name}: {self.spec})"

    @property
    def grad(self) -> Tensor | None:
        """The gradient accumulated by `backward` inside this graph."""
        return self._grad if self.source is None else self.source.grad

    @grad.setter
    def grad(self, g: Tensor | None) -> None:
        current().lift(self)  # in the graph that is being defined
        if self.source is None:
            check_gradient(g, self.spec)
            self._grad = None if g is None else self.recorder.value_now(g)
        else:
            self.source.grad = g

    def __reduce__(self) -> NoReturn:
        raise GraphError(
            f"copy: got a symbol ({self.spec}), which belongs to the graph that is being defined; use it as it is: values "
            "never change"
        ).at(here(2))

    def _value_needed(self, what: str, remedy: str) -> NoReturn:
        raise SymbolError(
            f"{what} of a symbol ({self.spec}): its value is known only when the compiled graph runs; {remedy}"
        ).at(here(3))

    def __bool__(self) -> NoReturn:
        self._value_needed("bool()", "choose between values with dg.where, or decide outside of the traced function")

    def __int__(self) -> NoReturn:
        self._value_needed("int()", "keep it a tensor, or compute it outside of the traced function")

    def __index__(self) -> NoReturn:
        self._value_needed(
            "use as an index", "select with dg.take, or compute the index outside of the traced function"
        )

    def __float__(self) -> NoReturn:
        self._value_needed("float()", "keep it a tensor, or compute it outside of the traced function")

    def __format__(self, form: str) -> str:
        if form:
            self._value_needed("format()", "return the value from the traced function, and format it there")
        return str(self)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **named: Any) -> Any:
        """NumPy's operators, which an array on the left calls, are ours; its functions need values."""
        operation = _OPERATORS.get(ufunc.__name__)
        if operation is not None and method == "__call__" and not named:
            return FUNCTIONS[operation](*inputs)
        remedy = (
            "use the function of dualgraph"
            if method == "__call__" and "out" not in named
            else "use operations of dualgraph"
        )
        self._value_needed(f"np.{ufunc.__name__}", f"{remedy}, or compute it outside of the traced function")

    def __dlpack__(self, **_: Any) -> NoReturn:
        self._value_needed("conversion by DLPack", "return the value from the traced function, or watch it")

    def __dlpack_device__(self) -> NoReturn:
        self._value_needed("conversion by DLPack", "return the value from the traced function, or watch it")

    def __array_function__(self, function: Any, types: Any, args: Any, named: Any) -> Any:
        if function.__name__ in ("array_equal", "array_equiv"):  # which take every error for "not equal"
            self._value_needed(f"np.{function.__name__}()", "compare with ==, and use the result in dg.where")
        return function._implementation(*args, **named)  # as if this were not here

    def __array__(self, *_: object, **__: object) -> NoReturn:
        self._value_needed("conversion to NumPy", "return the value from the traced function, or watch it")

    def numpy(self) -> NoReturn:
        self._value_needed("numpy()", "return the value from the traced function, or watch it")

    def item(self) -> NoReturn:
        self._value_needed("item()", "return the value from the traced function, or watch it")

    def tolist(self) -> NoReturn:
        self._value_needed("tolist()", "return the value from the traced function, or watch it")


class Recorder(FrontEnd):
    """A front end that records calls in program order."""

    def __init__(self) -> None:
        self.grad_enabled = True
        self.closed: str | None = None  # why nothing can be recorded any more
        self.differentiate_seconds = 0.0

    def add(self, call: Call) -> None:
        """Write a call down, behind those before it."""
        raise NotImplementedError

    def apply(self, op: Op, inputs: tuple[ArrayLike, ...], params: Params) -> Tensor:
        return self.record(op, inputs, params, self.grad_enabled)

    def record(self, op: Op, inputs: tuple[ArrayLike, ...], params: Params, grad_enabled: bool) -> Tensor:
        """Write down a call of an op; several results come as a tuple."""
        where = here(2)
        try:
            if self.closed:
                raise GraphError(f"{op.name}: {self.closed}")
            symbols = tuple([self.lift(x if grad_enabled else _value_of(x)) for x in inputs])
            specs = specs_of(op, [x.layout for x in symbols], params)
        except DualgraphError as error:
            raise error.at(where) from None
        tracked = tuple([x.tracked for x in symbols])
        call = Call(op, symbols, params, specs, where, tracked=tracked)
        self.add(call)
        needs_grad = grad_enabled and any(tracked)
        results = tuple([self._result(call, i, needs_grad and is_float(spec.dtype)) for i, spec in enumerate(specs)])
        return results[0] if len(results) == 1 else results  # type: ignore[return-value]  # see `FrontEnd.apply`

    def _result(self, call: Call, number: int, requires_grad: bool) -> Symbol:
        """A result; one that needs no gradient has no history, as in eager mode, and may become a leaf."""
        return Symbol(self, call, number, requires_grad, leaf=not requires_grad)

    def lift(self, value: ArrayLike) -> Symbol:
        """A value as a symbol of this recorder."""
        if isinstance(value, Symbol):
            if value.recorder is not self:
                raise GraphError(
                    f"got a symbol ({value.spec}) of another graph; symbols live in the graph that defined them: "
                    "pass the value in as an argument, or return it from the other graph"
                )
            return value
        return self.capture(value)

    def capture(self, value: ArrayLike) -> Symbol:
        """A value from outside: here only constants, because the recording is kept."""
        if isinstance(value, Tensor) and (value.is_variable or value.tracked):
            raise GraphError(
                f"got a variable ({value.spec}) inside of a composite operation, whose recording is kept; pass it in as an "
                "input, so that its present value and its gradient are used"
            )
        return self.constant_array(as_array(value))

    def assign(self, variable: Variable, value: ArrayLike) -> None:
        raise GraphError(
            "got an update of a variable inside of a composite operation (a random number is one, too); a composite has "
            "inputs and results only: draw and update outside, and pass the values in"
        ).at(here(3))

    def get_grad(self, x: Value) -> Tensor | None:
        raise GraphError("got .grad inside of a composite operation; read it outside and pass it in").at(here(3))

    def set_grad(self, x: Value, g: Tensor | None) -> None:
        raise GraphError("got .grad inside of a composite operation; leave gradients outside").at(here(3))

    def value_now(self, g: Tensor) -> Symbol:
        """What is put into a `.grad`: of a variable its value, which an update does not change."""
        owner = g.source if isinstance(g, Symbol) and g.source is not None else g
        return self.detach(g) if owner.is_variable else self.lift(g)

    def fresh(self, x: Value) -> Symbol:
        """A tensor that is being made: a value of the graph, made anew at each run, and no constant or variable of it."""
        return self.constant_array(x.storage)

    def detach(self, x: ArrayLike) -> Symbol:
        symbol = self.lift(_value_of(x))
        return Symbol(self, symbol.node, symbol.index, leaf=True)

    def created(self, variable: Variable) -> None:
        """A variable is being made: inside a recording it would outlive the run that it belongs to."""
        raise GraphError(
            "got a new Variable (a Parameter, a module or an optimiser makes some) inside of a traced function; state lives "
            "outside: create it before, or compute with plain tensors"
        ).at(here(3))

    def constant(self, value: Scalar, dtype: str) -> Symbol:
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
            return self.constant_array(scalar_array(value, dtype))

    def constant_array(self, array: np.ndarray[Any, Any], operand: bool = False) -> Symbol:
        return self.leaf(CONSTANT, Spec(array.shape, array.dtype.name), value=Constant(array, operand))

    def placeholder(self, spec: Spec, name: str, requires_grad: bool = False) -> Symbol:
        """An input of the recording."""
        return self.leaf(PLACEHOLDER, spec, requires_grad, name=name)

    def leaf(self, op: Op, spec: Spec, requires_grad: bool = False, **params: object) -> Symbol:
        """A node without inputs, and its value as a leaf of differentiation."""
        call = Call(op, (), params, (spec,), here(2))
        self.add(call)
        return Symbol(self, call, 0, requires_grad, leaf=True)

    def result(self, call: Call, number: int) -> Symbol:
        return Symbol(self, call, number, is_float(call.specs[number].dtype))

    def update(self, op: Op, inputs: Sequence[Tensor], variables: Sequence[Variable], params: Params) -> None:
        new = self.record(op, tuple(inputs), params, False)
        for variable, value in zip(variables, new if isinstance(new, tuple) else (new,), strict=True):
            self.assign(variable, value)

    def begin_sweep(self) -> float:
        return time.perf_counter()

    def end_sweep(self, started: float) -> None:
        self.differentiate_seconds += time.perf_counter() - started

    def with_grad(self, enabled: bool) -> FrontEnd:
        return self if enabled == self.grad_enabled else _GradSwitch(self, enabled)


def _value_of(x: Any) -> Any:
    """What comes from outside without the history that it may have there."""
    outside = isinstance(x, Tensor) and not isinstance(x, Symbol)
    return default().detach(x) if outside and x.call is not None else x


class _GradSwitch(FrontEnd):
    """A recorder seen with gradient recording switched: everything else is the recorder's own."""

    def __init__(self, recorder: Recorder, enabled: bool):
        vars(self).update({name: getattr(recorder, name) for name in _ITS_OWN})
        self.recorder, self.grad_enabled = recorder, enabled

    def apply(self, op: Op, inputs: tuple[ArrayLike, ...], params: Params) -> Tensor:
        return self.recorder.record(op, inputs, params, self.grad_enabled)

    def with_grad(self, enabled: bool) -> FrontEnd:
        return self if enabled == self.grad_enabled else self.recorder.with_grad(enabled)


_ITS_OWN = [name for name in vars(FrontEnd) if name[0] != "_" and name not in vars(_GradSwitch)]


def recorder_of(front: FrontEnd) -> FrontEnd:
    """The recorder behind a front end that may be seen with gradient recording switched."""
    return front.recorder if isinstance(front, _GradSwitch) else front


class Constant:
    """An array known while the graph is defined. Small ones are equal by their bits, large ones by identity.

    `operand`: a scalar that kernels read from memory, so that one kernel serves all of its values.
    """

    __slots__ = ("_key", "array", "operand")

    def __init__(self, array: np.ndarray[Any, Any], operand: bool = False):
        self.array, self.operand = array, operand
        self._key = (operand, array.shape, array.dtype.name, array.tobytes()) if array.nbytes <= 64 else (id(self),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"{self.array.item()!r}" if self.array.shape == () else f"array{list(self.array.shape)}"


def literal_of(call: Call) -> tuple[int, str] | None:
    """The bits and dtype of a scalar that becomes part of the code; None for any other call."""
    if call.op is not CONSTANT or call.specs[0].shape != () or call.params["value"].operand:
        return None
    return int.from_bytes(call.params["value"].array.tobytes(), "little"), call.specs[0].dtype


def _leaf_spec(**_: Any) -> NoReturn:
    raise TypeError("leaves of a graph are made by the recorder, not by bind")


def _constant_lower(program: Any, operands: Any, specs: Any, params: dict[str, Any]) -> Any:
    return (program.constant(params["value"].array),)


CONSTANT = Op("constant", _leaf_spec, _constant_lower)
PLACEHOLDER = Op("placeholder", _leaf_spec, _leaf_spec)

__all__ = ["CONSTANT", "PLACEHOLDER", "Constant", "Recorder", "Symbol", "literal_of", "recorder_of"]
