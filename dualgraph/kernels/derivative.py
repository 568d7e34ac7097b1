"""Derivatives of scalar code: reverse mode over expressions. One row of `DERIVATIVES` for every instruction.

The derivative of an elementwise op is thereby one more elementwise kernel, and differentiates again. Where a function
has no derivative the rows follow PyTorch's conventions: 0 for `abs` at 0, and half for each operand of `minimum` and
`maximum` where they are equal. So relu, whose derivative at 0 is to be 0, is not `maximum(x, 0)` but
`select(x <= 0, 0, x)`.

So code with a kink chooses between smooth pieces by one condition, the same for all of its parts: then every derivative
is that of one piece. Kinks that cancel (`maximum(x, 0) + log1p(exp(-abs(x)))`) do so in the value and, by luck, in the
first derivative, but not in the second.

A rule with a singular point moves the *operand* away from it rather than discarding the value computed there: a value
that is not selected gets the gradient 0, but in the second derivative 0 * inf would be NaN. A rule must not overflow,
underflow or cancel where the derivative itself does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dualgraph.kernels import expr as E
from dualgraph.kernels.expr import Code, Expr
from dualgraph.spec import is_float

Partials = tuple[Expr | None, ...]


def vjp(result: Expr, wrt: Sequence[Expr], g: Expr, out: Expr | None = None) -> list[Expr | None]:
    """The gradients of `result` with respect to the operands `wrt` (made by `expr.input`), times g. None is zero.

    `out` stands for the value of the result where that is at hand: rules written in terms of the result (exp, tanh, …)
    then read it instead of computing it again. Contributions are added in the order of a backward sweep over the
    linear code. A fold has no elementwise derivative: it raises TypeError.

    >>> x, g, out = (E.input(i, "float32") for i in range(3))
    >>> vjp(E.call("exp", -x), [x], g, out)
    [neg(mul(input:1, input:2))]
    """
    code, (last,) = E.linearise([result])
    operands = [x.attr for x in wrt]
    active = _active(code, operands)
    values = _values(code)
    if out is not None:
        values[last] = out
    found: dict[int, Expr] = {}
    adjoints: dict[int, Expr] = {last: g} if active[last] else {}
    for number in range(last, -1, -1):
        if number not in adjoints:
            continue
        instr, adjoint = code[number], adjoints.pop(number)
        if instr.op == E.INPUT:
            found[instr.attr] = adjoint
            continue
        if instr.op == E.FOLD:
            raise TypeError(
                f"got an expression with a fold ({instr.attr}); scalar derivatives are elementwise; "
                "give the op that folds a vjp of its own"
            )
        partials = DERIVATIVES[instr.op](adjoint, values[number], *(values[a] for a in instr.args))
        for arg, partial in zip(instr.args, partials, strict=True):
            if partial is not None and active[arg]:
                adjoints[arg] = adjoints[arg] + partial if arg in adjoints else partial
    return [found.get(operand) for operand in operands]


def _values(code: Code) -> list[Expr]:
    """One expression for each instruction of the code."""
    values: list[Expr] = []
    for instr in code:
        values.append(Expr(instr.op, tuple(values[a] for a in instr.args), instr.dtype, instr.attr))
    return values


def _active(code: Code, operands: Sequence[int]) -> list[bool]:
    """For each instruction: is it a float that depends on one of the operands?"""
    active: list[bool] = []
    for instr in code:
        depends = instr.attr in operands if instr.op == E.INPUT else any(active[a] for a in instr.args)
        active.append(depends and is_float(instr.dtype))
    return active


def _constant(_g: Expr, _out: Expr, *args: Expr) -> Partials:
    """Piecewise constant, or not a float: no gradient."""
    return (None,) * len(args)


def _larger(g: Expr, x: Expr, y: Expr) -> Expr:
    """The share of x in the gradient of maximum(x, y): all, half at a tie, or nothing; all where one is NaN."""
    return E.select(E.call("eq", x, y), g * 0.5, E.select(E.call("lt", x, y), 0.0, g))


def _pow(g: Expr, out: Expr, x: Expr, y: Expr) -> Partials:
    """y x^(y-1) and x^y log(x), with 0 for the first where y = 0, and 0 for the second where x = 0 and y >= 0."""
    vanishes = E.call("bitwise_and", E.call("eq", x, 0.0), E.call("ge", y, 0.0))
    return g * _power_rule(x, y), g * (out * E.call("log", E.select(vanishes, 1.0, x)))


def _power_rule(x: Expr, y: Expr) -> Expr:
    if y.op == E.LITERAL and (exponent := E.literal_value(y.attr, y.dtype)) != 0.0:
        return x * 2.0 if exponent == 2.0 else y * E.call("pow", x, exponent - 1.0)
    # 0 * x^-1: singular where x^-1 is infinite or NaN; and where x^-2, of the second derivative, is
    no_power = E.call("bitwise_not", E.call("isfinite", E.call("reciprocal", x * x)))
    singular = E.call("bitwise_and", E.call("eq", y, 0.0), no_power)
    return y * E.call("pow", x, E.select(singular, 1.0, y) - 1.0)


def _atan2(g: Expr, _out: Expr, y: Expr, x: Expr) -> Partials:
    """x / (x^2 + y^2) and -y / (x^2 + y^2) without squaring the larger of the two; 0 at the origin."""
    steep = E.call("lt", E.call("abs", x), E.call("abs", y))
    large, small = E.select(steep, y, x), E.select(steep, x, y)
    large = E.select(E.call("eq", large, 0.0), math.inf, large)
    ratio = small / large
    square = ratio * ratio + 1.0
    first, second = g / large / square, g * ratio / large / square
    return E.select(steep, second, first), -E.select(steep, first, second)


def _op(name: str) -> Callable[..., Expr]:
    return lambda *args: E.call(name, *args)


_abs, _cos, _cosh, _exp, _floor_divide, _rsqrt, _sign, _sin, _sinh, _copysign = map(
    _op, ("abs", "cos", "cosh", "exp", "floor_divide", "rsqrt", "sign", "sin", "sinh", "copysign")
)

# (g, out, *args) -> the gradient of each argument; `out` is the value of the instruction, None is zero.
DERIVATIVES: dict[str, Callable[..., Partials]] = {
    "add": lambda g, out, x, y: (g, g),
    "sub": lambda g, out, x, y: (g, -g),
    "mul": lambda g, out, x, y: (g * y, g * x),
    "div": lambda g, out, x, y: (g / y, -g * (out / y)),
    "minimum": lambda g, out, x, y: (_larger(g, y, x), _larger(g, x, y)),
    "maximum": lambda g, out, x, y: (_larger(g, x, y), _larger(g, y, x)),
    "floor_divide": _constant,
    "remainder": lambda g, out, x, y: (g, -g * _floor_divide(x, y)),
    "copysign": lambda g, out, x, y: (g * (_sign(x) * _copysign(1.0, y)), None),
    "neg": lambda g, out, x: (-g,),
    "abs": lambda g, out, x: (g * _sign(x),),
    "sign": _constant,
    "square": lambda g, out, x: (g * (x * 2.0),),
    "floor": _constant,
    "ceil": _constant,
    "round": _constant,
    "trunc": _constant,
    "sqrt": lambda g, out, x: (g / (out * 2.0),),
    "reciprocal": lambda g, out, x: (-g * (out * out),),
    "rsqrt": lambda g, out, x: (g * -0.5 * (out * out * out),),
    "exp": lambda g, out, x: (g * out,),
    "exp2": lambda g, out, x: (g * (out * math.log(2)),),
    "expm1": lambda g, out, x: (g * _exp(x),),  # out + 1 cancels where x is below 0
    "log": lambda g, out, x: (g / x,),
    "log2": lambda g, out, x: (g / (x * math.log(2)),),
    "log10": lambda g, out, x: (g / (x * math.log(10)),),
    "log1p": lambda g, out, x: (g / (x + 1.0),),
    "tanh": lambda g, out, x: (g * (1.0 - out * out),),
    "sigmoid": lambda g, out, x: (g * ((1.0 - out) * out),),
    "erf": lambda g, out, x: (g * (_exp(-(x * x)) * (2 / math.sqrt(math.pi))),),
    "sin": lambda g, out, x: (g * _cos(x),),
    "cos": lambda g, out, x: (-g * _sin(x),),
    "tan": lambda g, out, x: (g * (out * out + 1.0),),
    "asin": lambda g, out, x: (g * _rsqrt(1.0 - x * x),),
    "acos": lambda g, out, x: (-g * _rsqrt(1.0 - x * x),),
    "atan": lambda g, out, x: (g / (x * x + 1.0),),
    "sinh": lambda g, out, x: (g * _cosh(x),),
    "cosh": lambda g, out, x: (g * _sinh(x),),
    "pow": _pow,
    "atan2": _atan2,
    "eq": _constant,
    "ne": _constant,
    "lt": _constant,
    "le": _constant,
    "gt": _constant,
    "ge": _constant,
    "isnan": _constant,
    "isinf": _constant,
    "isfinite": _constant,
    "signbit": _constant,
    "bitwise_and": _constant,
    "bitwise_or": _constant,
    "bitwise_xor": _constant,
    "left_shift": _constant,
    "right_shift": _constant,
    "logical_right_shift": _constant,
    "mul_high_u32": _constant,
    "bitwise_not": _constant,
    "select": lambda g, out, c, x, y: (None, E.select(c, g, 0.0), E.select(c, 0.0, g)),
    "cast": lambda g, out, x: (E.cast(g, x.dtype) if is_float(x.dtype) else None,),
    "widen": lambda g, out, x: (E.cast(g, x.dtype),),
}
