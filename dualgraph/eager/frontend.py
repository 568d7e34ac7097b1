"""The eager front end: every operation runs at once and, where a gradient may be wanted, goes on the tape.

A launch is prepared once for each op, parameters and layouts of its inputs (`Prepared`); after that an operation is a
dictionary look-up, one native call and a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dualgraph.core.arrays import as_array
from dualgraph.core.broadcast import checked_scalar
from dualgraph.core.layout import array_of, layout_of, view_of
from dualgraph.core.mode import FrontEnd, set_default
from dualgraph.core.op import Call, Op, out_of_memory, specs_of
from dualgraph.core.tensor import Tensor, check_assigned
from dualgraph.core.value import Earlier, Value, Variable, tensor
from dualgraph.device import Storage
from dualgraph.dtypes import scalar_array
from dualgraph.errors import DualgraphError, GraphError, OutOfMemoryError, here
from dualgraph.kernels import memory, provider
from dualgraph.kernels.failure import check_of, explain
from dualgraph.kernels.fusion import fuse
from dualgraph.kernels.program import Program
from dualgraph.ops.composite import composite, lower_call
from dualgraph.ops.reduce import sum_to
from dualgraph.ops.shape import contiguous_copy
from dualgraph.spec import Spec, is_float

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, Layout, Params, Pulled, Scalar


class Prepared:
    """A launch of one op, prepared for given layouts of its inputs.

    `places` says of each result where its storage is found, counted over the inputs and then what the launch gives. Most
    launches are `single`: they give the one result; the result of a view is the storage of an input (`shared`).
    """

    __slots__ = (
        "differentiable",
        "direct",
        "launch",
        "layouts",
        "loaded",
        "op",
        "places",
        "program",
        "pullbacks",
        "shared",
        "single",
    )

    def __init__(self, op: Op, layouts: Sequence[Layout], params: Params):
        specs = specs_of(op, [Spec(layout.shape, layout.dtype) for layout in layouts], params)
        program, inputs = Program(), len(layouts)
        operands = []
        for number, layout in enumerate(layouts):
            program.input(Spec(layout.shape, layout.dtype))
            operands.append(view_of(layout, number))
        results = tuple(
            contiguous_copy(program, v) if v.buffer in program.constants else v
            for v in lower_call(program, op, tuple(operands), specs, params)
        )
        program.outputs = list(dict.fromkeys(v.buffer for v in results if v.buffer >= inputs))
        if len(program.steps) > 1:
            program = fuse(program)[0]
        self.op, self.program = op, program
        self.loaded = provider.load(program, memory.plan(program)) if program.steps else None
        self.launch = self.loaded.launch if self.loaded is not None else None
        found = [*range(inputs), *program.outputs]
        self.places = tuple(found.index(v.buffer) for v in results)
        # elements of each storage; that of a windowed input is larger than the window, by how much is not known here
        extents = [x.size if x.__class__ is Spec else None for x in layouts] + [
            b.size for b in program.buffers[inputs:]
        ]
        self.layouts = tuple(layout_of(v, extents[v.buffer]) for v in results)
        self.differentiable = any(is_float(s.dtype) for s in specs)
        self.single = self.places == (inputs,)
        self.shared = self.places[0] if len(results) == 1 and self.launch is None else None
        self.direct = len(results) > 1 and self.places == tuple(range(inputs, len(found)))
        self.pullbacks: dict[Any, Pullback] = {}  # by the inputs that want a gradient, and the layouts of g

    def run(self, storages: Sequence[Storage]) -> Sequence[Storage]:
        """The storages of the results."""
        outputs: Any = ()
        if self.launch is not None:
            try:
                outputs = self.launch(*storages)
            except MemoryError:
                raise out_of_memory(self.op, self.layouts) from None
            if outputs.__class__ is int:
                raise self.failure(outputs, storages)
            if self.direct:
                return outputs  # type: ignore[no-any-return]
            if outputs.__class__ is not tuple:
                outputs = (outputs,)
        found = (*storages, *outputs)
        return [found[place] for place in self.places]

    def failure(self, failed: int, storages: Sequence[Storage]) -> DualgraphError:
        """The error of a failed check."""
        step = self.program.steps[failed]
        seen: dict[int, Any] = {**self.program.constants, **dict(enumerate(storages))}
        assert self.loaded is not None
        self.loaded.stepwise(storages, lambda number, buffers: seen.update(buffers))
        view = check_of(step).operand
        return explain(self.op.name, step, array_of(seen[view.buffer], view))


class Pullback:
    """The gradient rules of one call as one launch: from the gradients of its results to those of its inputs."""

    __slots__ = ("flat", "numbers", "prepared")

    def __init__(self, call: Call, wanted: tuple[bool, ...], gradients: Sequence[Any]):
        op, n, numbers = call.op, len(call.specs), list[int]()
        layouts = (*gradients, *call.specs, *(x.layout for x in call.inputs))
        targets = [x.spec for x in call.inputs]

        def function(*values: Any, **params: Any) -> Any:
            g, out = (values[0], values[1]) if n == 1 else (values[:n], values[n : 2 * n])
            numbers.clear()
            results = []
            for number, want in enumerate(wanted):
                if want:
                    found = op.vjp(number, g, out, *values[2 * n :], **params)
                    if found is not None:
                        numbers.append(number)
                        results.append(sum_to(found, targets[number]))
            return tuple(results)

        joint = composite(f"{op.name}_vjp", function, parameters=op.parameters, whole=False)
        self.prepared = Prepared(joint, layouts, call.params)
        self.numbers = tuple(numbers)
        self.flat = [number for number, want in enumerate(wanted) if want and number not in numbers]


class Listener(Protocol):
    """Hears of every call that is recorded."""

    calls: list[Call]


class Eager(FrontEnd):
    """The front end that runs operations now. `tapes` are the explicit tapes that listen."""

    __slots__ = ("_other", "grad_enabled", "tapes")

    def __init__(self, grad_enabled: bool = True, tapes: tuple[Listener, ...] = ()):
        self.grad_enabled, self.tapes = grad_enabled, tapes
        self._other: Eager | None = None

    def apply(self, op: Op, inputs: tuple[Value, ...], params: Params) -> Tensor:  # type: ignore[override]  # others are lifted
        try:
            if len(inputs) == 2:
                x, y = inputs
                saved: Any = (x.storage, y.storage)
                key: Any = (op, x.layout, y.layout)
                tracked: tuple[bool, ...] = (x.tracked, y.tracked)
            elif len(inputs) == 1:
                (x,) = inputs
                saved, key, tracked = (x.storage,), (op, x.layout), (x.tracked,)
            else:
                saved = [x.storage for x in inputs]
                key = (op, *[x.layout for x in inputs])
                tracked = tuple([x.tracked for x in inputs])
        except AttributeError:
            return self.apply(op, self._lifted(op, inputs), params)
        if params:
            key = (*key, *params.values())
        prepared = PREPARED.get(key)
        if prepared is None:
            prepared = self._prepare(op, key, inputs, params)
        needs_grad = True in tracked and self.grad_enabled and prepared.differentiable
        if prepared.single:  # as `run` does it
            try:
                storage = prepared.launch(*saved)  # type: ignore[misc]  # there is one
            except MemoryError:
                raise out_of_memory(op, prepared.layouts) from None
            if storage.__class__ is int:
                raise prepared.failure(storage, saved)
            if not needs_grad:
                return Value(storage, prepared.layouts[0])
            storages: Any = (storage,)
        elif prepared.shared is not None:
            storages = (saved[prepared.shared],)
            if not needs_grad:
                return Value(storages[0], prepared.layouts[0])
        else:
            storages = prepared.run(saved)
            if not needs_grad:
                tensors = tuple(map(Value, storages, prepared.layouts))
                return tensors[0] if len(tensors) == 1 else tensors  # type: ignore[return-value]  # see `FrontEnd`
        call = Call(op, inputs, params, prepared.layouts, here(2), saved, storages, prepared, tracked)
        for tape in self.tapes:
            tape.calls.append(call)
        if len(storages) == 1:
            return Value(storages[0], prepared.layouts[0], True, call, 0)
        return tuple(  # type: ignore[return-value]
            Value(storage, layout, is_float(layout.dtype), call, number)
            for number, (storage, layout) in enumerate(zip(storages, prepared.layouts, strict=True))
        )

    def _prepare(self, op: Op, key: Any, inputs: tuple[Any, ...], params: Params) -> Prepared:
        try:
            prepared = Prepared(op, tuple(x.layout for x in inputs), params)
        except DualgraphError as error:
            raise error.at(here(3)) from None
        except MemoryError:
            operands = " and ".join(str(x.spec) for x in inputs)
            raise OutOfMemoryError(
                f"{op.name}: got operands of {operands}, and there is no memory for what is computed between; compute it in "
                "parts"
            ).at(here(3)) from None
        if len(PREPARED) >= MOST_PREPARED:
            PREPARED.clear()
        PREPARED[key] = prepared
        return prepared

    def _lifted(self, op: Op, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        try:
            return tuple(self.lift(x) for x in inputs)
        except DualgraphError as error:
            raise error.at(here(3)) from None

    def lift(self, value: ArrayLike) -> Value:
        """A value as an eager tensor."""
        if isinstance(value, Value):
            return value
        if isinstance(value, Tensor):
            closed = getattr(value.recorder, "closed", None)  # type: ignore[attr-defined]
            raise GraphError(
                f"got a symbol ({value.spec}) outside of its graph"
                + (f" ({closed})" if closed else "")
                + "; a symbol stands for a value only while its graph is defined: return it from the traced function, or "
                "run the compiled graph and use its results"
            ).at(here(2))
        if value.__class__ in (bool, int, float):  # a NumPy scalar keeps its dtype
            kind = "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else "float32"
            found = self.constant(*checked_scalar("tensor", value, kind))
            return Value(found.storage, found.layout)  # a tensor of its own: it may be given hooks and gradients
        array = as_array(value)
        return Value(array, Spec(array.shape, array.dtype.name))

    def constant(self, value: Scalar, dtype: str) -> Value:
        key = (value, dtype) if value else (str(value), dtype)  # 0.0 and -0.0 are equal but not the same
        found = _constants.get(key)
        if found is None:
            if len(_constants) > 4096:
                _constants.clear()
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
                found = _constants[key] = Value(scalar_array(value, dtype), Spec((), dtype))
        return found

    def seed(self, dtype: str) -> Value:
        """The gradient of a scalar by itself, which is each caller's own."""
        one = self.constant(1.0, dtype)
        return Value(one.storage, one.layout)

    def result(self, call: Call, number: int) -> Value:
        layout = call.specs[number]
        return Value(call.results[number], layout, is_float(layout.dtype), call, number)

    def saved_inputs(self, call: Call, create_graph: bool) -> tuple[Value, ...]:
        """The inputs as they were: a variable that was assigned to since is replaced by its old value."""
        for x, storage in zip(call.inputs, call.saved, strict=True):
            if x.storage is not storage:
                break
        else:
            return call.inputs
        restored = []
        for x, storage in zip(call.inputs, call.saved, strict=True):
            if x.storage is not storage:
                tracked = create_graph and (x if x.source is None else x.source).tracked
                x = Earlier(x, storage) if tracked else Value(storage, x.layout)
            restored.append(x)
        return tuple(restored)

    def pull(  # type: ignore[override]  # there are no other tensors here
        self, call: Call, gradients: Sequence[Value], wanted: tuple[bool, ...], create_graph: bool
    ) -> Pulled | None:
        """Recorded once, and run as one launch."""
        if call.prepared is None or create_graph or not call.op.joint_vjp:
            return None
        key = (wanted, *[g.layout for g in gradients])
        pullback = call.prepared.pullbacks.get(key)
        if pullback is None:
            pullback = call.prepared.pullbacks[key] = Pullback(call, wanted, key[1:])
        prepared = pullback.prepared
        storages = prepared.run([*[g.storage for g in gradients], *call.results, *call.saved])
        return zip(pullback.numbers, map(Value, storages, prepared.layouts), strict=True), pullback.flat

    def update(  # type: ignore[override]
        self, op: Op, inputs: Sequence[Value], variables: Sequence[Variable], params: Params
    ) -> None:
        key = (op, *[x.layout for x in inputs], *params.values())
        prepared = PREPARED.get(key)
        if prepared is None:
            prepared = self._prepare(op, key, tuple(inputs), params)
            for variable, layout in zip(variables, prepared.layouts, strict=True):
                assert variable.layout == layout, f"{op.name} changes {variable.spec} to {layout}"
        for variable, storage in zip(variables, prepared.run([x.storage for x in inputs]), strict=True):
            variable.storage = storage

    def release(self, call: Call) -> None:
        call.freed = True
        if self.tapes:
            call.inputs = tuple(Value(_EMPTY, x.layout, x.tracked, x.call, x.index) for x in call.inputs)
        else:
            call.inputs = ()
        call.saved = call.results = ()

    def with_grad(self, enabled: bool) -> Eager:
        if enabled == self.grad_enabled:
            return self
        if self._other is None:
            self._other = Eager(enabled, self.tapes)
            self._other._other = self
        return self._other

    def forget(self) -> None:
        """Break the cycle with the other grad mode, so that a finished tape is freed at once."""
        if self._other is not None:
            self._other._other = None
            self._other = None

    def get_grad(self, x: Value) -> Tensor | None:
        return x.held_gradient()

    def set_grad(self, x: Value, g: Tensor | None) -> None:
        if isinstance(g, Tensor) and not isinstance(g, Value):
            self.lift(g)
        x._grad = g.detach() if isinstance(g, Variable) else g  # the value now, which an update does not change

    def assign(self, variable: Variable, value: ArrayLike) -> None:
        usual = type(value) is Value and value.layout == variable.layout and isinstance(variable, Variable)
        variable.storage = value.storage if usual else self._assigned(variable, value).storage  # type: ignore[union-attr]

    def _assigned(self, variable: Variable, value: ArrayLike) -> Value:
        try:
            check_assigned(variable, found := self.lift(value))
        except DualgraphError as error:
            raise error.at(here(4)) from None
        return found if found.layout.__class__ is Spec else tensor(found)  # type: ignore[return-value]  # made here

    def switching(self, x: Tensor) -> None:
        self.lift(x)  # a symbol of a graph that is over stands for nothing

    def detach(self, x: ArrayLike) -> Value:
        value = self.lift(x)
        return Value(value.storage, value.layout)


PREPARED: dict[Any, Prepared] = {}  # by op, layouts of inputs, and parameters
MOST_PREPARED = 2**13  # shapes that keep changing must not fill the memory: some 25 KB each
_EMPTY = np.empty(0, np.uint8)
_constants: dict[Any, Value] = {}


EAGER = Eager()
set_default(EAGER)
