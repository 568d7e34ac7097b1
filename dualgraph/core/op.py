"""Op and Call: an operation, and one application of it.

An `Op` is defined once, for both modes and all devices. The tape of eager mode and the static graph are made of calls.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dualgraph.errors import OutOfMemoryError, Where
from dualgraph.kernels import expr as E
from dualgraph.kernels.program import Program, View
from dualgraph.spec import Spec, fitting

if TYPE_CHECKING:
    from dualgraph.core.types import Layout, Params

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
    """Parameters are what keys can be made of, from their values alone: launches, traces and equal calls are found by these.

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
