"""What elementwise ops are made with: a scalar expression, and everything follows from it.

The rule of shape and dtype, the kernel and the gradient are derived: that is one elementwise op again (one kernel, in
either mode), differentiable in its turn. `out` is used instead of being computed again where the derivative contains it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from dualgraph.core.broadcast import broadcast_shapes, meet
from dualgraph.core.mode import current
from dualgraph.core.op import Op, Operand, Vjp, keywords
from dualgraph.core.tensor import Tensor
from dualgraph.dtypes import DTYPES, FLOATS
from dualgraph.kernels import derivative
from dualgraph.kernels import expr as E
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Program, View
from dualgraph.ops.registry import register
from dualgraph.spec import DEFAULT_FLOAT, Spec, is_float, promote

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike

Expression = Callable[..., E.Expr]
Slopes = Callable[..., "tuple[E.Expr, ...]"]  # slopes(out, *operands): the derivative for each operand


class Scalar:
    """What an elementwise op computes for one element, and how its operands' dtypes meet."""

    def __init__(
        self,
        name: str,
        expression: Expression,
        arity: int,
        floats: bool = False,
        conditions: int = 0,
        slopes: Slopes | None = None,
        copies: bool = False,
    ):
        self.name, self.expression, self.arity = name, expression, arity
        self.slopes = slopes  # where the derivative of the expression is not to be derived
        self.floats = floats  # integers are taken to the default float
        self.copies = copies  # what it is given, or a conversion of it: in the dtype in which it is stored
        self.conditions = conditions  # this many leading operands are bool and do not take part in promotion
        self._loops: dict[Any, Loop] = {}
        self._rules: dict[Any, Any] = {}
        self._dtypes: dict[Any, str] = {}

    def common(self, dtypes: tuple[str, ...]) -> str:
        """The dtype in which the operands meet."""
        dtype = promote(*dtypes[self.conditions :])
        return DEFAULT_FLOAT if self.floats and not is_float(dtype) else dtype

    def result(self, operands: list[E.Expr], params: dict[str, Any]) -> E.Expr:
        """The expression applied to operands of any dtypes."""
        dtype = self.common(tuple(x.dtype for x in operands))
        cast = [E.cast(x, "bool" if i < self.conditions else dtype) for i, x in enumerate(operands)]
        if self.copies:
            return self.expression(*cast, **params)
        result = self.expression(*map(E.widened, cast), **params)
        return E.cast(result, dtype) if result.dtype == DTYPES[dtype].compute else result  # the one rounding

    def spec(self, *specs: Any, **params: Any) -> Spec:
        shape = broadcast_shapes(self.name, *[s.shape for s in specs])
        dtypes = tuple([s.dtype for s in specs])
        key = (dtypes, *params.values())
        dtype = self._dtypes.get(key)
        if dtype is None:
            leaves = [E.input(i, dtype) for i, dtype in enumerate(dtypes)]
            dtype = self._dtypes[key] = self.result(leaves, params).dtype
        return Spec(shape, dtype)

    def lower(
        self, program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
    ) -> tuple[View, ...]:
        views = [x for x in operands if isinstance(x, View)]
        signature = tuple(x.dtype if isinstance(x, View) else x for x in operands)
        key = (signature, *params.values())
        loop = self._loops.get(key)
        if loop is None:
            loop = self._loops[key] = self._loop(signature, params)
        spec = specs[0]
        out = program.new(spec)
        program.add(loop, (out,), tuple(v.broadcast_to(spec.shape) for v in views), spec.shape)
        return (out,)

    def _loop(self, signature: tuple[Any, ...], params: dict[str, Any]) -> Loop:
        leaves: list[E.Expr] = []
        dtypes: list[str] = []
        for item in signature:
            if isinstance(item, str):
                leaves.append(E.input(len(dtypes), item))
                dtypes.append(item)
            else:
                leaves.append(E.Expr(E.LITERAL, (), item[1], item[0]))
        code, results = E.linearise([self.result(leaves, params)])
        return Loop(code, results, tuple(dtypes), (False,) * len(dtypes))

    def _derive(self, number: int, dtype: str, params: dict[str, Any]) -> tuple[Op | None, tuple[int, ...]] | None:
        """The op that computes the gradient of operand `number`, and which of (g, out, *inputs) it takes.

        None: the gradient is zero. An op of None: the gradient is `g` itself.
        """
        dtype = dtype if self.copies else DTYPES[dtype].compute

        def leaves(start: int) -> list[E.Expr]:
            return [E.input(start + i, "bool" if i < self.conditions else dtype) for i in range(self.arity)]

        xs = leaves(2)
        result = self.expression(*xs, **params)
        if not is_float(result.dtype):
            return None
        g, out = E.input(0, result.dtype), E.input(1, result.dtype)
        slope = self._slope(number, result, xs, g, out)
        if slope is None:
            return None
        used = tuple(sorted({i.attr for i in E.linearise([slope])[0] if i.op == E.INPUT}))
        if slope.op == E.INPUT and slope.attr == 0:
            return None, (0,)
        conditions = sum(1 for u in used if 2 <= u < 2 + self.conditions)
        order = tuple(sorted(used, key=lambda u: (not 2 <= u < 2 + self.conditions, u)))  # conditions lead
        where = {u: i for i, u in enumerate(order)}

        def expression(*operands: E.Expr, **_: Any) -> E.Expr:
            code, (root,) = E.linearise([slope])
            full = [operands[where[u]] if u in where else operands[0] for u in range(2 + self.arity)]
            return E.inline(code, full)[root]

        name = f"{self.name}_vjp{number}"
        return elementwise_op(name, expression, len(order), conditions=conditions, copies=self.copies), order

    def _slope(self, number: int, result: E.Expr, xs: list[E.Expr], g: E.Expr, out: E.Expr) -> E.Expr | None:
        if self.slopes is not None:
            return g * self.slopes(out, *xs)[number]
        return derivative.vjp(result, [xs[number]], g, out)[0]

    def vjp(self, number: int, g: Any, out: Any, /, *inputs: Any, **params: Any) -> Any:
        dtypes = tuple([x.layout.dtype for x in inputs])
        key = (number, dtypes, *params.values())
        rule = self._rules.get(key, self)
        if rule is self:
            rule = self._rules[key] = self._derive(number, self.common(dtypes), params)
        if rule is None:
            return None
        op, order = rule
        if op is None:
            return g
        operands = (g, out, *inputs)
        return current().apply(op, tuple(operands[i] for i in order), {})


def elementwise_op(
    name: str,
    expression: Expression,
    arity: int,
    floats: bool = False,
    conditions: int = 0,
    vjp: tuple[Vjp | None, ...] | Vjp | None = None,
    slopes: Slopes | None = None,
    copies: bool = False,
) -> Op:
    """An elementwise `Op` from a scalar expression; its gradient is derived unless `slopes` or a `vjp` are given."""
    scalar = Scalar(name, expression, arity, floats, conditions, slopes, copies)
    rules = scalar.vjp if vjp is None else vjp
    return Op(name, scalar.spec, scalar.lower, rules, scalar=scalar, parameters=keywords(expression))


# What the docstrings of all these functions have in common.
_UNARY = "For each element of x (a tensor, an array, nested lists or a number); the result has its shape."
_BINARY = """For each pair of elements: x and y (tensors, arrays, nested lists or numbers) broadcast together.

Dtypes meet in the highest kind (bool, integer, float), the widest of it; a Python number takes the dtype of the tensor
beside it unless its kind is higher. Raises `ShapeError` where the shapes do not fit."""
_FLOATS = "Computed in floats: integers and bools become float32."


class Unary(Protocol):
    """An elementwise operation of one operand."""

    def __call__(self, x: ArrayLike, /) -> Tensor: ...


class Binary(Protocol):
    """An elementwise operation of two operands, which broadcast together."""

    def __call__(self, x: ArrayLike, y: ArrayLike, /) -> Tensor: ...


def unary(
    name: str, expression: Expression | None = None, floats: bool = True, doc: str = "", example: str = ""
) -> Unary:
    """An op and its public function. `example`: "operand -> result" for the docstring, as `[4.0] -> [2.0]`."""
    op = register(elementwise_op(name, expression or (lambda x: E.call(name, x)), 1, floats))

    def function(x: ArrayLike, /) -> Tensor:
        front = current()
        return front.apply(op, (x if isinstance(x, Tensor) else front.lift(x),), {})

    _name(function, name, doc, _UNARY, floats, example)
    return function


def binary(
    name: str,
    expression: Expression | None = None,
    floats: bool = False,
    doc: str = "",
    slopes: Slopes | None = None,
    example: str = "",
) -> Binary:
    """An op and its public function. `slopes`: its derivatives, where those of the expression will not do."""
    op = register(elementwise_op(name, expression or (lambda x, y: E.call(name, x, y)), 2, floats, slopes=slopes))

    def function(x: ArrayLike, y: ArrayLike, /) -> Tensor:
        front = current()
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            if y.__class__ is float and isinstance(x, Tensor) and x.layout.dtype in FLOATS:
                y = front.constant(y, x.layout.dtype)  # the common case, without the detour
            else:
                x, y = meet(name, (x, y))
        return front.apply(op, (x, y), {})

    _name(function, name, doc, _BINARY, floats, example)
    return function


def _name(function: Any, name: str, doc: str, operands: str, floats: bool, example: str) -> None:
    function.__name__ = function.__qualname__ = name
    function.__module__ = sys._getframe(2).f_globals["__name__"]  # where it is found by this name: so it can be pickled
    operand, _, result = example.partition(" -> ")
    first, rest = operand[: operand.find("]") + 1], operand[operand.find("]") + 1 :]
    shown = f">>> import dualgraph as dg\n>>> dg.{name}(dg.tensor({first}){rest}).tolist()\n{result}"
    function.__doc__ = "\n\n".join([f"{doc}.", operands, *[_FLOATS] * floats, *[shown] * bool(example)])


__all__ = ["Binary", "Expression", "Scalar", "Slopes", "Unary", "binary", "elementwise_op", "unary"]
