"""Symbols and the recorder: front ends that write calls down instead of running them.

A `Recorder` is what traces a composite op; the static graph is a recorder with inputs, variables and constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from dualgraph.errors import DualgraphError, GraphError, SymbolError, here
from dualgraph.kernels.expr import literal_bits, literal_value
from dualgraph.ops.op import Call, Op, as_specs
from dualgraph.ops.tensor import TensorMethods
from dualgraph.spec import NUMPY_DTYPES, Spec, is_float


class Symbol(TensorMethods):
    """A value that is not computed yet: result `index` of `call` in a recorder."""

    __slots__ = ("__weakref__", "_grad", "call", "hooks", "index", "layout", "name", "recorder", "requires_grad", "source")

    def __init__(self, recorder: Recorder, spec: Spec, call: Call | None, index: int, requires_grad: bool = False):
        self.recorder, self.layout, self.call, self.index = recorder, spec, call, index
        self.requires_grad = requires_grad
        self.name: str | None = None
        self.hooks: list[Callable[[Any], Any]] | None = None
        self.source: Any = None  # the eager tensor this symbol stands for, if any
        self._grad: Any = None

    def __repr__(self) -> str:
        return f"Symbol({self.name or (self.call.name if self.call else '?')}: {self.spec})"

    @property
    def grad(self) -> Any:
        """The gradient accumulated by `backward` inside this graph."""
        return self._grad if self.source is None else self.source.grad

    @grad.setter
    def grad(self, g: Any) -> None:
        if self.source is None:
            self._grad = g
        else:
            self.source.grad = g

    def _value_needed(self, what: str, remedy: str) -> NoReturn:
        raise SymbolError(
            f"{what} of a symbol ({self.spec}): its value is known only when the compiled graph runs; {remedy}"
        ).at(here(3))

    def __bool__(self) -> NoReturn:
        self._value_needed("bool()", "choose between values with dg.where, or decide outside of the traced function")

    def __int__(self) -> NoReturn:
        self._value_needed("int()", "keep it a tensor, or compute it outside of the traced function")

    def __index__(self) -> NoReturn:
        self._value_needed("use as an index", "select with dg.take, or compute the index outside of the traced function")

    def __float__(self) -> NoReturn:
        self._value_needed("float()", "keep it a tensor, or compute it outside of the traced function")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self._value_needed("conversion to NumPy", "return the value from the traced function, or watch it")

    def numpy(self) -> NoReturn:
        self._value_needed("numpy()", "return the value from the traced function, or watch it")

    def item(self) -> NoReturn:
        self._value_needed("item()", "return the value from the traced function, or watch it")

    def tolist(self) -> NoReturn:
        self._value_needed("tolist()", "return the value from the traced function, or watch it")


class Recorder:
    """A front end that records calls in program order."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.grad_enabled = True
        self.closed: str | None = None  # why nothing can be recorded any more

    def apply(self, op: Op, inputs: tuple[Any, ...], params: dict[str, Any]) -> Any:
        return self.record(op, inputs, params, self.grad_enabled)

    def record(self, op: Op, inputs: tuple[Any, ...], params: dict[str, Any], grad_enabled: bool) -> Any:
        where = here(2)
        try:
            if self.closed:
                raise GraphError(f"{op.name}: {self.closed}")
            symbols = tuple(self.lift(x) for x in inputs)
            specs = as_specs(op.spec(*[x.layout for x in symbols], **params))
        except DualgraphError as error:
            raise error.at(where) from None
        call = Call(op, symbols, params, specs, where)
        self.calls.append(call)
        needs_grad = grad_enabled and any(x.requires_grad for x in symbols)
        results = tuple(
            Symbol(self, spec, call, i, needs_grad and is_float(spec.dtype)) for i, spec in enumerate(specs)
        )
        return results[0] if len(results) == 1 else results

    def lift(self, value: Any) -> Symbol:
        """A value as a symbol of this recorder."""
        if isinstance(value, Symbol):
            if value.recorder is not self:
                raise GraphError(
                    f"got a symbol ({value.spec}) of another graph; symbols live in the graph that defined them: "
                    "pass the value in as an argument, or return it from the other graph"
                )
            return value
        return self.capture(value)

    def capture(self, value: Any) -> Symbol:
        """A value from outside: here only constants."""
        array = np.asarray(value)
        return self.constant_array(array)

    def constant(self, value: Any, dtype: str) -> Symbol:
        return self.constant_array(np.array(value, NUMPY_DTYPES[dtype]))

    def constant_array(self, array: np.ndarray[Any, Any]) -> Symbol:
        spec = Spec(array.shape, array.dtype.name)
        bits = array.tobytes()
        call = Call(CONSTANT, (), {"spec": spec, "data": bits}, (spec,), None)
        self.calls.append(call)
        return Symbol(self, spec, call, 0)

    def placeholder(self, spec: Spec, name: str | None = None) -> Symbol:
        """A leaf of the recording."""
        symbol = Symbol(self, spec, None, -1)
        symbol.name = name
        return symbol

    def result(self, call: Call, number: int) -> Symbol:
        return Symbol(self, call.specs[number], call, number, self.grad_enabled)

    def saved_inputs(self, call: Call, create_graph: bool) -> tuple[Any, ...]:
        return call.inputs

    def release(self, call: Call) -> None:
        call.freed = True

    def with_grad(self, enabled: bool) -> Any:
        return self if enabled == self.grad_enabled else _GradSwitch(self, enabled)


class _GradSwitch:
    """A recorder seen with gradient recording switched: everything else is the recorder's own."""

    def __init__(self, recorder: Any, enabled: bool):
        self.recorder, self.grad_enabled = recorder, enabled

    def apply(self, op: Op, inputs: tuple[Any, ...], params: dict[str, Any]) -> Any:
        return self.recorder.record(op, inputs, params, self.grad_enabled)

    def with_grad(self, enabled: bool) -> Any:
        return self if enabled == self.grad_enabled else self.recorder.with_grad(enabled)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.recorder, name)


def _constant_lower(program: Any, operands: Any, specs: Any, params: Any) -> Any:
    spec = params["spec"]
    return (program.constant(constant_array(params)),)


def constant_array(params: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The array held by a constant call."""
    spec = params["spec"]
    return np.frombuffer(params["data"], NUMPY_DTYPES[spec.dtype]).reshape(spec.shape)


def literal_of(call: Call) -> tuple[int, str] | None:
    """A scalar constant's bits and dtype; None for any other call."""
    if call.op is CONSTANT and call.params["spec"].shape == ():
        dtype = call.params["spec"].dtype
        bits = int.from_bytes(call.params["data"], "little")
        return bits, dtype
    return None


CONSTANT = Op("constant", spec=lambda *, spec, data: spec, lower=_constant_lower)

__all__ = ["CONSTANT", "Recorder", "Symbol", "constant_array", "literal_bits", "literal_of", "literal_value"]
