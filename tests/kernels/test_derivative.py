"""Every row of the table of derivatives against finite differences, and again for the derivative of the derivative."""

import math

import numpy as np
import pytest

from dualgraph.kernels import expr as E
from dualgraph.kernels.derivative import DERIVATIVES, vjp
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Program
from dualgraph.kernels.reference import load
from dualgraph.spec import Spec

PLAIN = np.array([-2.3, -0.7, 0.4, 1.6])
INSIDE = np.array([-0.9, -0.3, 0.2, 0.8])  # (-1, 1)
POSITIVE = np.array([0.3, 0.9, 1.7, 3.1])
OTHER = np.array([1.3, -0.6, 2.2, -1.9])

# Where each instruction is differentiated: away from its kinks and inside its domain.
SAMPLES = {
    op: arrays
    for ops, arrays in {
        "add sub mul div minimum maximum copysign atan2 floor_divide remainder": (PLAIN, OTHER),
        "pow": (POSITIVE, OTHER),
        "neg abs sign square floor ceil round trunc reciprocal exp exp2 expm1": (PLAIN,),
        "tanh sigmoid erf sin cos tan atan sinh cosh": (PLAIN,),
        "sqrt rsqrt log log2 log10 log1p": (POSITIVE,),
        "asin acos": (INSIDE,),
    }.items()
    for op in ops.split()
}


def evaluate(exprs, *arrays):
    """The values of expressions whose operand i is `arrays[i]`."""
    program = Program()
    views = [program.input(Spec(a.shape, a.dtype.name)) for a in arrays]
    code, results = E.linearise(exprs)
    shape = arrays[0].shape
    kernel = Loop(code, results, tuple(v.dtype for v in views), (False,) * len(views))
    outs = [program.new(Spec(shape, dtype)) for dtype in kernel.output_dtypes]
    program.outputs += [o.buffer for o in outs]
    program.add(kernel, outs, views, shape)
    result = load(program).launch(*arrays)
    return list(result) if isinstance(result, tuple) else [result]


def differentiate(make, *operands):
    """The gradients of `make(*operands)`, weighted with 1; zero where there is none."""
    result = make(*operands)
    found = vjp(result, operands, E.literal(1.0, result.dtype))
    return [E.literal(0.0, o.dtype) if d is None else d for d, o in zip(found, operands, strict=True)]


def inputs(*arrays):
    return [E.input(i, a.dtype.name) for i, a in enumerate(arrays)]


def gradients(make, *arrays):
    return evaluate(differentiate(make, *inputs(*arrays)), *arrays)


def check(make, *arrays, step=1e-5, tolerance=2e-8):
    """Compare the gradients of `make` with central differences of fourth order."""
    for number, exact in enumerate(gradients(make, *arrays)):

        def moved(steps, number=number):
            shifted = [a + steps * step if i == number else a for i, a in enumerate(arrays)]
            return evaluate([make(*inputs(*arrays))], *shifted)[0]

        difference = (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / (12 * step)
        np.testing.assert_allclose(exact, difference, rtol=tolerance, atol=tolerance)


def instruction(op):
    return lambda *args: E.call(op, *args)


def test_every_instruction_has_a_derivative():
    assert set(DERIVATIVES) == set(E.INSTRUCTIONS)


def test_every_float_instruction_has_samples():
    numeric = {op for op, row in E.INSTRUCTIONS.items() if not row.predicate and "shift" not in op}
    assert set(SAMPLES) == {op for op in numeric if "bitwise" not in op} - {"mul_high_u32", "select", *E.CONVERSIONS}


@pytest.mark.parametrize("op", SAMPLES)
def test_first_derivative(op):
    check(instruction(op), *SAMPLES[op])


@pytest.mark.parametrize("op", SAMPLES)
@pytest.mark.parametrize("order", [2, 3])
def test_higher_derivatives(op, order):
    def nth(n, which):
        if n == 0:
            return instruction(op)
        return lambda *xs: differentiate(nth(n - 1, which[1:]), *xs)[which[0]]

    arity = len(SAMPLES[op])
    for which in [(i,) * order for i in range(arity)] + [(1, 0)[: order - 1] for _ in range(arity > 1)]:
        check(nth(order - 1, which[: order - 1]), *SAMPLES[op], tolerance=1e-6)


def test_the_checker_notices_a_wrong_rule(monkeypatch):
    monkeypatch.setitem(DERIVATIVES, "exp", lambda g, out, x: (g * out * 1.000001,))
    with pytest.raises(AssertionError):
        check(instruction("exp"), PLAIN)


def test_composed_code_with_shared_values():
    def gelu(x, y):
        inner = E.call("tanh", (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi))
        return x * y * 0.5 * (inner + 1.0) + inner * E.call("select", E.call("lt", x, y), x * y, E.call("sin", x))

    check(gelu, PLAIN, OTHER)
    check(lambda x, y: differentiate(gelu, x, y)[0], PLAIN, OTHER, tolerance=1e-7)


def test_literal_exponents():
    for exponent in (2.0, 3.0, 1.0, 0.5, -1.0):
        check(lambda x, e=exponent: E.call("pow", x, e), POSITIVE)
    assert gradients(lambda x: E.call("pow", x, 2.0), PLAIN)[0].tolist() == (2 * PLAIN).tolist()
    assert gradients(lambda x: E.call("pow", x, 0.0), PLAIN)[0].tolist() == [0] * 4


def test_pow_at_its_singular_points():
    x = np.array([0.0, 0.0, 0.0, 0.0, 1e-310, 2.0, math.inf, math.nan])
    y = np.array([0.0, 1.0, 2.0, 0.5, 0.0, 0.0, 0.0, 0.0])
    for_x, for_y = gradients(instruction("pow"), x, y)
    assert for_x.tolist() == [0, 1, 0, math.inf, 0, 0, 0, 0]
    assert for_y[:6].tolist() == [0, 0, 0, 0, math.log(1e-310), math.log(2)]
    second = gradients(lambda x, y: differentiate(instruction("pow"), x, y)[0], x, y)[0]
    assert second[:3].tolist() == [0, 0, 2]


def test_ties_are_shared_and_nan_passes():
    x = np.array([1.0, 0.0, 2.0, 3.0, math.nan])
    y = np.array([1.0, -0.0, 3.0, 2.0, 1.0])
    larger, smaller = (gradients(instruction(op), x, y) for op in ("maximum", "minimum"))
    assert [a.tolist() for a in larger] == [[0.5, 0.5, 0, 1, 1], [0.5, 0.5, 1, 0, 1]]
    assert [a.tolist() for a in smaller] == [[0.5, 0.5, 1, 0, 1], [0.5, 0.5, 0, 1, 1]]


def test_kinks():
    x = np.array([0.0, -0.0, 1.0, -1.0])
    assert gradients(instruction("abs"), x)[0].tolist() == [0, 0, 1, -1]
    relu = gradients(lambda x: E.select(E.call("le", x, 0.0), 0.0, x), x)[0]
    assert relu.tolist() == [0, 0, 1, 0]
    assert gradients(lambda x: E.call("copysign", x, E.literal(-2.0, "float64")), x)[0].tolist() == [0, 0, -1, 1]


@pytest.mark.parametrize("op", ["sign", "floor", "ceil", "round", "trunc", "signbit"])
def test_piecewise_constants_have_no_gradient(op):
    x = E.input(0, "float64")
    assert vjp(E.cast(E.call(op, x), "float64"), [x], E.literal(1.0, "float64")) == [None]
    assert vjp(E.call("signbit", x), [x], x) == [None]


def test_casts_give_gradients_in_the_dtype_of_their_operand():
    x, n = E.input(0, "float32"), E.input(1, "int64")
    product = E.cast(x, "float64") * E.cast(n, "float64")
    for_x, for_n = vjp(product, [x, n], E.literal(1.0, "float64"))
    assert for_x.dtype == "float32"
    assert for_n is None
    assert vjp(E.cast(E.cast(x, "int32"), "float32"), [x], x) == [None]


def test_a_given_result_is_read_instead_of_computed():
    x, g, out = (E.input(i, "float32") for i in range(3))
    (found,) = vjp(E.call("tanh", x), [x], g, out)
    assert repr(found) == "mul(input:1, sub(literal:1065353216, mul(input:2, input:2)))"


def test_only_operands_asked_for_are_differentiated():
    x, y, g = (E.input(i, "float32") for i in range(3))
    assert repr(vjp(x * y, [y], g)) == "[mul(input:2, input:0)]"
    assert vjp(x * y, [], g) == []
    assert vjp(x * 2.0, [y], g) == [None]
    assert vjp(x, [x], g) == [g]


def test_operands_are_known_by_their_number():
    x = E.input(3, "float32")
    (found,) = vjp(E.input(3, "float32") * E.input(3, "float32"), [x], E.input(0, "float32"))
    assert repr(found) == "add(mul(input:0, input:3), mul(input:0, input:3))"


def test_folds_are_refused():
    x = E.input(0, "float32")
    with pytest.raises(TypeError, match=r"got an expression with a fold \(sum\)"):
        vjp(x * E.fold("sum", x), [x], x)
