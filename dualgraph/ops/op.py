"""Op, Call and bind: an operation, one application of it, and the one door to both modes.

Every public operation ends in `bind(op, *inputs, **params)`, which hands over to the current front end: the eager one
runs the kernel now, a recorder (the static graph, or the tracing of a composite) writes down a `Call`. An `Op` is defined
once, for both modes and all devices; nothing in `ops/` knows which mode it runs in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from dualgraph.errors import ArgumentError, OutOfMemoryError, Where, here, shown
from dualgraph.kernels import expr as E
from dualgraph.kernels.program import Program, View
from dualgraph.ops.stepped import stepped
from dualgraph.spec import Spec, fitting

if TYPE_CHECKING:
    from typing import Self

    from dualgraph.ops.types import ArrayLike, Layout, P, Params, Pulled, R, Scalar, Tensor, Value, Variable

Literal = tuple[int, str]  # (bits, dtype): a scalar operand known while lowering
Operand = View | Literal
SpecRule = Callable[..., "Spec | tuple[Spec, ...]"]
Lower = Callable[..., "tuple[View, ...]"]
Vjp = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Op:
    """All facts of an operation.

    `spec(*input_specs, **params)` gives the result's spec, or raises one of `dualgraph.errors`.
    `lower(program, operands, specs, params)` appends kernel steps and returns views of the results.
    `vjp(i, g, out, *inputs, **params)` gives the gradient of input i from the gradient `g` of the result, written in
    public ops; None where it is 0. It may be given as a tuple of functions without the number, one for each input (None:
    no gradient); an empty one says that there is no rule.
    """

    name: str
    spec: SpecRule
    lower: Lower
    vjp: Any = ()  # a `Vjp`, or None where there is no rule
    view: Callable[..., View | None] | None = None  # the result as a view of input 0, where the layout allows it
    pure: bool = True  # the result depends on the inputs alone, and computing it has no effect
    joint_vjp: bool = True  # gradient rules depend on their arguments alone: the eager mode runs a recording of them
    no_gradient: str = ""  # why there is no gradient rule, and what to do
    scalar: Any = None  # elementwise ops: what is computed for one element
    literal_scalars: bool = True  # lowering accepts scalar operands as literals
    checks: bool = False  # refuses some values of its operands: so it runs even where nobody uses its result
    composition: Callable[..., Any] | None = None  # composite ops: the function over public ops
    parts: Callable[..., Any] | None = None  # composite ops: the recording (`composite.Traced`) for specs and params
    parameters: tuple[str, ...] | None = None  # names, in the one order in which they are passed; of `spec` if None

    def __post_init__(self) -> None:
        if self.parameters is None:
            object.__setattr__(self, "parameters", keywords(self.spec))
        if isinstance(self.vjp, tuple):
            object.__setattr__(self, "vjp", _numbered(self.vjp) if self.vjp else None)

    def __repr__(self) -> str:
        return self.name


def keywords(function: Callable[..., Any]) -> tuple[str, ...]:
    """The parameters that a function of ours takes by their names alone, in order."""
    code = getattr(function, "__code__", None)
    if code is None:  # a `functools.partial`, which has been given them
        return ()
    first = code.co_argcount
    return tuple(code.co_varnames[first : first + code.co_kwonlyargcount])


def _check_canonical(op: Op, params: dict[str, Any]) -> None:
    """Parameters are what keys can be made of, from their values alone: plans, traces and equal calls are found by these.

    They come in the order of the op, and are equal only where they are the same: no -0.0 and no NaN, no arrays. (Each is of
    one kind in all calls of an op: the door functions of `arguments` see to that, and a test.)
    """
    if [*params] != [name for name in op.parameters or () if name in params]:
        raise TypeError(f"{op.name} takes the parameters {op.parameters}, in this order; it got {[*params]}")
    if not all(map(_is_canonical, params.values())):
        raise TypeError(
            f"{op.name} got {params}; parameters are bools, integers, strings, None, tuples and floats but -0.0, nan"
        )


def _is_canonical(value: Any) -> bool:
    kind = type(value)
    if kind is tuple:
        return all(map(_is_canonical, value))
    if kind is float:
        return value == value and (value != 0.0 or math.copysign(1.0, value) > 0.0)
    return kind in (bool, int, str, type(None))


def _numbered(rules: tuple[Vjp | None, ...]) -> Vjp:
    def vjp(number: int, /, *args: Any, **params: Any) -> Any:
        rule = rules[number]
        return None if rule is None else rule(*args, **params)

    return vjp


class Call:
    """One application of an op. The tape is a list of calls; the static graph is calls in a DAG.

    `inputs` are tensors or symbols, `tracked` whether each took a gradient when it was used; `specs` those of the results.
    `saved` and `results` are the eager mode's storages of inputs and results at the time of the call, `prepared` its launch;
    recorders leave them empty. A call that is `freed` knows what is known of the leaves `behind` it (`autodiff.Behind`).
    """

    __slots__ = (
        "__weakref__",
        "behind",
        "freed",
        "hooks",
        "inputs",
        "op",
        "params",
        "prepared",
        "results",
        "saved",
        "serial",
        "specs",
        "tracked",
        "where",
    )

    op: Op
    inputs: tuple[Any, ...]
    params: dict[str, Any]
    specs: tuple[Any, ...]
    where: Where | None
    saved: Sequence[Any]
    results: Sequence[Any]
    prepared: Any
    tracked: tuple[bool, ...]
    freed: bool
    serial: int
    behind: Any

    def __init__(
        self,
        op: Op,
        inputs: tuple[Any, ...],
        params: dict[str, Any],
        specs: tuple[Any, ...],
        where: Where | None,
        saved: Sequence[Any] = (),
        results: Sequence[Any] = (),
        prepared: Any = None,
        tracked: tuple[bool, ...] = (),
    ):
        self.op, self.inputs, self.params, self.specs, self.where = op, inputs, params, specs, where
        self.saved, self.results, self.prepared, self.tracked = saved, results, prepared, tracked
        self.freed = False
        self.hooks: dict[int, list[Callable[[Any], Any]]] | None = None
        self.serial = next(_serials)

    @property
    def name(self) -> str:
        return f"{self.op.name}_{self.serial}"

    @property
    def place(self) -> tuple[int, int]:
        """What identifies it among the calls of a graph: its serial number, and which part of the call of that number it is."""
        return self.serial, 0

    def instead(self, op: Op, inputs: tuple[Any, ...], params: dict[str, Any], specs: tuple[Any, ...]) -> Call:
        """Another call in the place of this one."""
        call = Call(op, inputs, params, specs, self.where)
        call.serial = self.serial
        return call

    def __repr__(self) -> str:
        results = ", ".join(f"{Spec(s[0], s[1])}" for s in self.specs)
        return f"<{self.name}: {results}>"


class Part(Call):
    """A call that a composite consists of, in the place of the `whole`: parts have its serial number and its line.

    They are numbered from 1 on; the last one, from which the composite has its result, has the place of the whole.
    """

    __slots__ = ("number", "whole")

    def __init__(
        self,
        op: Op,
        inputs: tuple[Any, ...],
        params: dict[str, Any],
        specs: tuple[Any, ...],
        whole: Call,
        number: int = 0,
    ):
        super().__init__(op, inputs, params, specs, whole.where)
        self.whole, self.number, self.serial = whole, number, whole.serial

    @property
    def name(self) -> str:
        return f"{self.whole.name}.{self.op.name}" + (f"_{self.number}" if self.number else "")

    @property
    def place(self) -> tuple[int, int]:
        return self.serial, self.number

    def instead(self, op: Op, inputs: tuple[Any, ...], params: dict[str, Any], specs: tuple[Any, ...]) -> Part:
        return Part(op, inputs, params, specs, self.whole, self.number)


def checks(call: Call) -> bool:
    """Whether a call refuses some values of its operands, it or one that it consists of."""
    return call.op.checks or (call.op.parts is not None and any(map(checks, _parts(call))))


def pure(call: Call) -> bool:
    """Whether the results of a call depend on its inputs alone, and computing them has no effect."""
    return call.op.pure and (call.op.parts is None or all(map(pure, _parts(call))))


def _parts(call: Call) -> Sequence[Call]:
    return call.op.parts([x.layout for x in call.inputs], call.params).calls if call.op.parts is not None else ()


_serials = itertools.count()
ADDRESSABLE = 2**44  # bytes: more than any machine has, so it is refused while a graph is defined


class FrontEnd:
    """What operations, tensors, modules and the sweep ask of the mode in which they run.

    Eager mode and recorders answer in their own ways; where one of them has nothing to do, this says what that means.
    """

    __slots__ = ()

    grad_enabled: bool

    # Operations

    def apply(self, op: Op, inputs: tuple[ArrayLike, ...], params: Params) -> Tensor:
        """Apply an op to tensors, symbols or array-likes; several results come as a tuple."""
        raise NotImplementedError

    def update(self, op: Op, inputs: Sequence[Tensor], variables: Sequence[Variable], params: Params) -> None:
        """Apply an op whose results are the new values of variables."""
        raise NotImplementedError

    def lift(self, value: ArrayLike) -> Tensor:
        """A tensor or array-like as a tensor of this front end."""
        raise NotImplementedError

    def constant(self, value: Scalar, dtype: str) -> Tensor:
        """A scalar as a tensor of this front end."""
        raise NotImplementedError

    def number(self, value: float, dtype: str) -> Tensor:
        """A constant that follows from a shape or an option, as an operand: no code is made for each of its values."""
        return self.constant(value, dtype)

    def detach(self, x: ArrayLike) -> Tensor:
        """The value of a tensor, without a gradient."""
        raise NotImplementedError

    def fresh(self, x: Value) -> Tensor:
        """A tensor that is being made from data, to become a leaf."""
        return x

    def with_grad(self, enabled: bool) -> FrontEnd:
        """This front end with gradient recording on or off."""
        raise NotImplementedError

    # The sweep

    def begin_sweep(self) -> float:
        """A sweep begins; what is given here `end_sweep` gets."""
        return 0.0

    def end_sweep(self, started: float) -> None:
        """A sweep is over."""

    def seed(self, dtype: str) -> Tensor:
        """The gradient of a scalar by itself."""
        return self.constant(1.0, dtype)

    def differentiates(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        """Gradients of outputs with respect to targets are about to be taken."""

    def result(self, call: Call, number: int) -> Tensor:
        """Result `number` of an earlier call, as an input for further calls."""
        raise NotImplementedError

    def saved_inputs(self, call: Call, create_graph: bool) -> tuple[Tensor, ...]:
        """The inputs of a call with the values that it used."""
        return call.inputs

    def pull(
        self, call: Call, gradients: Sequence[Tensor], wanted: tuple[bool, ...], create_graph: bool
    ) -> Pulled | None:
        """The gradients of the inputs of a call, all at once; None where its rules are to be applied one by one."""
        return None

    def release(self, call: Call) -> None:
        """The values that a call saved are needed no more."""
        call.freed = True

    def held_before(self, x: Tensor) -> Tensor | None:
        """What `.grad` holds, for a gradient to be added to."""
        return x.grad

    # What belongs to tensors that stand outside of any graph

    def get_grad(self, x: Value) -> Tensor | None:
        """What `.grad` of a leaf holds now."""
        raise NotImplementedError

    def set_grad(self, x: Value, g: Tensor | None) -> None:
        """Put a gradient into `.grad` of a leaf."""
        raise NotImplementedError

    def assign(self, variable: Variable, value: ArrayLike) -> None:
        """Replace the value of a variable."""
        raise NotImplementedError

    def created(self, variable: Variable) -> None:
        """A variable is being made."""

    def switching(self, x: Tensor) -> None:
        """`requires_grad` or the hooks of a leaf are about to change."""

    # `Observed` objects

    def observe(self, owner: object, name: str) -> None:
        """An attribute is about to be read."""

    def wrote(self, owner: object, name: str) -> None:
        """An attribute was set or deleted."""

    def copied(self, owner: object) -> None:
        """An object is about to be copied, with all of its attributes."""


class Context:
    """Something that was entered and changes the front end until it is left, in whatever order that happens.

    The open contexts are linked, innermost first, and each knows the front end inside of it. One that is left is taken out
    wherever it stands: so a generator that is suspended inside of a context, and closed much later, brings nothing back.
    """

    __slots__ = ("_outer", "_over", "front")

    front: FrontEnd

    def inside(self, front: FrontEnd) -> FrontEnd:
        """The front end inside of this context, where `front` is the one outside."""
        raise NotImplementedError

    def enter(self) -> FrontEnd:
        self._over = False  # True also where it was left by another thread
        self._outer = outer = _innermost.get(_outside)
        self.front = front = self.inside(outer.front)
        _innermost.set(self)
        return front

    def leave(self) -> None:
        self._over = True
        innermost = _innermost.get(_outside)
        if innermost is self and not self._outer._over:
            _innermost.set(self._outer)
        else:
            _innermost.set(_linked(innermost))


def _linked(context: Context) -> Context:
    """The innermost of a context and those around it, after those that are over were taken out."""
    if context is _outside:
        return context
    outer = _linked(context._outer)
    if context._over:
        return outer
    context._outer, context.front = outer, context.inside(outer.front)
    return context


class _Outside(Context):
    """Where no context was entered: the eager mode, once it is there."""

    __slots__ = ()

    def __init__(self) -> None:
        self.front, self._over = FrontEnd(), False


_outside = _Outside()
_innermost: ContextVar[Context] = ContextVar("innermost")


def set_default(front: FrontEnd) -> None:
    """The front end of every thread and context that chose none: the eager mode names itself here."""
    _outside.front = front


def current() -> FrontEnd:
    """The current front end."""
    return _innermost.get(_outside).front


def default() -> FrontEnd:
    """The front end where none was chosen."""
    return _outside.front


def bind(op: Op, *inputs: Any, **params: Any) -> Tensor:
    """Apply `op` in the current mode; several results come as a tuple."""
    return _innermost.get(_outside).front.apply(op, inputs, params)


class Chosen(Context):
    """A front end chosen for a `with` block of the user's."""

    __slots__ = ("_chosen",)

    def __init__(self, front: FrontEnd):
        self._chosen = front

    def inside(self, front: FrontEnd) -> FrontEnd:
        return self._chosen


def within(front: FrontEnd, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
    """Call a function with `front` as the current front end.

    What is still open inside when it returns belongs to generators that were suspended there: it ends with it. No `with`
    block: Ctrl-C may come at the start of an `__exit__` that is written in Python, and the front end would stay for ever.
    """
    context = Chosen(front)
    context.front, context._over = front, False
    context._outer = outer = _innermost.get(_outside)
    try:
        _innermost.set(context)
        return function(*args, **named)
    finally:
        _innermost.set(outer)
        context._over = True
        if outer._over:
            _innermost.set(_linked(outer))


class no_grad(Context):
    """Context manager and decorator (`@no_grad()` or `@no_grad`): results computed inside need no gradient.

    Of a decorated generator or coroutine function each step runs inside, and what happens between its steps does not.

    >>> import dualgraph as dg
    >>> x = dg.tensor([1.0], requires_grad=True)
    >>> with dg.no_grad():
    ...     y = x * 2.0
    >>> y.requires_grad
    False
    """

    __slots__ = ("_again",)

    enabled = False

    _again: list[no_grad] | None

    @overload
    def __new__(cls, function: None = None) -> Self: ...
    @overload
    def __new__(cls, function: Callable[P, R]) -> Callable[P, R]: ...  # type: ignore[misc]  # what it decorates
    def __new__(cls, function: Callable[P, R] | None = None) -> Self | Callable[P, R]:  # type: ignore[misc]
        self = object.__new__(cls)
        self._over = True
        self._again = None  # one object may be entered several times, in other threads too
        return self if function is None else self(function)

    def inside(self, front: FrontEnd) -> FrontEnd:
        return front.with_grad(self.enabled)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Use as a decorator: the whole function runs inside."""
        if not callable(function) or isinstance(function, type):
            raise ArgumentError(
                f"{type(self).__name__}: got {shown(function)} to decorate; it decorates functions; decorate the methods of a "
                "class one by one, or use it in a with block"
            ).at(here(2))

        def run(step: Callable[..., Any], *args: Any, **named: Any) -> Any:
            return within(self.inside(current()), step, *args, **named)

        return stepped(function, run)

    def __enter__(self) -> None:
        if self._over:
            self.enter()
        else:
            again = type(self)()
            again.enter()
            self._again = [*(self._again or ()), again]

    def __exit__(self, *exc: object) -> None:
        if not self._again:
            self.leave()
            return
        entered = [self, *self._again]
        context: Any = _innermost.get(_outside)
        while context is not _outside and context not in entered:
            context = context._outer
        if context is _outside:
            context = entered[-1]
        if context is not self:
            self._again.remove(context)
        context.leave()


class enable_grad(no_grad):
    """Context manager: record gradients again inside `no_grad`."""

    __slots__ = ()

    enabled = True


def is_grad_enabled() -> bool:
    """Whether results computed now record their gradient."""
    return current().grad_enabled


def as_specs(specs: Spec | tuple[Spec, ...]) -> tuple[Spec, ...]:
    """A spec rule's answer as a tuple of specs."""
    return (specs,) if isinstance(specs, Spec) else specs


def specs_of(op: Op, inputs: Sequence[Layout], params: Params) -> tuple[Spec, ...]:
    """The specs of an op's results, which are of a size that can be addressed."""
    if params:
        _check_canonical(op, params)
    specs = as_specs(op.spec(*inputs, **params))
    for spec in specs:
        fitting(op.name, spec[0])
        if op.view is None and spec.nbytes > ADDRESSABLE:
            raise out_of_memory(op, specs)
    return specs


def out_of_memory(op: Op, specs: Sequence[Any]) -> OutOfMemoryError:
    """The error for results that cannot be held."""
    needed = sum(Spec(s[0], s[1]).nbytes for s in specs) >> 30
    what = " and ".join(str(Spec(s[0], s[1])) for s in specs)
    return OutOfMemoryError(
        f"{op.name}: got a result of {what}, {needed:,} GiB, for which there is no memory; compute it in parts"
    )


def leaves(operands: Sequence[Operand]) -> tuple[list[E.Expr], list[View]]:
    """The operands of elementwise code as expressions, and the views among them in the order of its inputs."""
    exprs, views = list[E.Expr](), list[View]()
    for operand in operands:
        if isinstance(operand, View):
            exprs.append(E.input(len(views), operand.dtype))
            views.append(operand)
        else:
            exprs.append(E.Expr(E.LITERAL, (), operand[1], operand[0]))
    return exprs, views


def as_view(program: Program, operand: Operand) -> View:
    """An operand as a view: literals become constants of the program."""
    if isinstance(operand, View):
        return operand
    bits, dtype = operand
    return program.constant(E.literal_array(bits, dtype))
