"""Modes: what is asked of a front end, and which one is the current one.

Every public operation ends in `bind(op, *inputs, **params)`, which hands over to the current front end: the eager one
runs the kernel now, a recorder (the static graph, or the tracing of a composite) writes down a `Call`. Nothing in `ops/`
knows which mode it runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, overload

from dualgraph.core.op import Call, Op
from dualgraph.core.stepped import stepped
from dualgraph.errors import ArgumentError, here, shown

if TYPE_CHECKING:
    from typing import Self

    from dualgraph.core.types import ArrayLike, P, Params, Pulled, R, Scalar, Tensor, Value, Variable


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
        """A tensor that is being made from data."""
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
