"""Random programs: data drawn by hypothesis, and an interpreter that runs them through the public functions.

A program is a list of instructions over a growing list of values. Shapes come from a small family in which everything
broadcasts or multiplies, so eager kernels are shared between programs. Instructions whose operands do not fit are not
drawn at all: `Builder` follows the shapes with NumPy-like rules of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

import dualgraph as dg

Array = np.ndarray[Any, Any]

UNARY: dict[str, Callable[[Any], Any]] = {
    "negative": dg.negative, "exp": dg.exp, "tanh": dg.tanh, "square": dg.square, "abs": dg.abs, "sqrt": dg.sqrt,
    "relu": dg.relu, "sigmoid": dg.sigmoid, "sign": dg.sign, "floor": dg.floor, "log1p": dg.log1p, "sin": dg.sin,
    "scaled": lambda x: x * 0.3, "shifted": lambda x: 1.0 - x, "softmax": lambda x: dg.softmax(x, axis=-1),
    "log_softmax": lambda x: dg.log_softmax(x, axis=-1), "cast": lambda x: dg.astype(dg.astype(x, "float64"), x.dtype),
    "detached": lambda x: x.detach(), "self_sum": lambda x: x + x, "self_product": lambda x: x * x,
    "picked": lambda x: dg.take(x, np.array([1, 0, -1, 1]), axis=-1),
    "sorted_out": lambda x: dg.where(x > 0.25, x, dg.zeros_like(x)),
}  # fmt: skip
ALGEBRA: dict[str, Callable[..., Any]] = {  # what rewrite rules look for, and what they must leave alone
    "plus_zero": lambda x, y: x + 0.0, "minus_zero": lambda x, y: x - 0.0, "times_one": lambda x, y: 1.0 * x,
    "over_one": lambda x, y: x / 1.0, "plus_negative_zero": lambda x, y: -0.0 + x, "times_zero": lambda x, y: x * 0.0,
    "negated_twice": lambda x, y: dg.negative(-x), "self_maximum": lambda x, y: dg.maximum(x, x),
    "self_difference": lambda x, y: x - x,
    "multiply_add": lambda x, y: x * y + x, "add_multiply": lambda x, y: y - x * 0.7, "over_constant": lambda x, y: x / 3.0,
    "difference_of_products": lambda x, y: x * y - y * x, "log_of_exp": lambda x, y: dg.log(dg.exp(x)),
    "filled": lambda x, y: x * dg.ones_like(x) + dg.zeros_like(y), "choice": lambda x, y: dg.where(y > 0.5, x, x),
}  # fmt: skip
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": dg.add, "subtract": dg.subtract, "multiply": dg.multiply, "divide": dg.divide, "maximum": dg.maximum,
    "minimum": dg.minimum, "where": lambda x, y: dg.where(x < y, x, y), "equal": lambda x, y: dg.astype(x == y, x.dtype) * y,
}  # fmt: skip
REDUCE: dict[str, Callable[..., Any]] = {
    "sum": dg.sum, "mean": dg.mean, "max": dg.max, "min": dg.min, "logsumexp": dg.logsumexp, "var": dg.var, "prod": dg.prod,
    "argmax": lambda x, axis, keepdims: dg.astype(dg.argmax(x, axis=axis, keepdims=keepdims), x.dtype),
}  # fmt: skip
VIEWS: dict[str, Callable[[Any], Any]] = {
    "transpose": dg.matrix_transpose, "flip": dg.flip, "step": lambda x: x[..., ::2], "tail": lambda x: x[..., 1:, :],
    "row": lambda x: x[..., 1, :], "flat": lambda x: dg.reshape(x, (-1,)), "column": lambda x: x[..., :1],
    "widened": lambda x: dg.broadcast_to(x[..., :1, :], x.shape),
    "twice": lambda x: dg.concat([x, x], axis=-2)[..., : x.shape[-2], :],
    "windows": lambda x: x[..., 1:, :] + x[..., :-1, :],
}  # fmt: skip


TWO_OPERANDS = ("multiply_add", "add_multiply", "difference_of_products", "filled", "choice")


class Instruction(NamedTuple):
    kind: str
    name: str
    operands: tuple[int, ...]
    axis: int = 0
    keepdims: bool = False

    def __repr__(self) -> str:
        more = f", axis={self.axis}, keepdims={self.keepdims}" if self.kind == "reduce" else ""
        return f"{self.name}({', '.join(f'v{i}' for i in self.operands)}{more})"


class RandomProgram(NamedTuple):
    shapes: tuple[tuple[int, ...], ...]  # of the inputs
    dtype: str
    instructions: tuple[Instruction, ...]
    outputs: tuple[int, ...]
    seed: int  # of the input values
    order: int  # gradients up to this one

    def __repr__(self) -> str:
        count = len(self.shapes)
        lines = [f"v{n} = input {s} {self.dtype}" for n, s in enumerate(self.shapes)]
        lines += [f"v{count + n} = {i!r}" for n, i in enumerate(self.instructions)]
        return "\n".join(
            ["", *lines, f"outputs {', '.join(f'v{n}' for n in self.outputs)}; seed {self.seed}, order {self.order}"]
        )

    def __call__(self, *inputs: Any) -> list[Any]:
        values = list(inputs)
        for instruction in self.instructions:
            values.append(run(instruction, [values[i] for i in instruction.operands]))
        return [values[n] for n in self.outputs]

    def arrays(self) -> list[Array]:
        """Ordinary values, some or many special ones among them, or a few values that give ties and zeros."""
        rng = np.random.default_rng(self.seed)
        f = np.finfo(self.dtype)
        odd = [np.inf, -np.inf, np.nan, f.smallest_subnormal, -f.tiny / 2, f.max, 0.0, -0.0, -0.0, -0.0]
        grid = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0]
        share, special = [(0.0, odd), (0.2, odd), (0.5, odd), (1.0, grid)][self.seed % 4]
        found = []
        for shape in self.shapes:
            values = rng.normal(size=shape)
            chosen = rng.random(shape) < share
            found.append(np.asarray(np.where(chosen, rng.choice(special, shape), values), self.dtype))
        return found


def run(instruction: Instruction, xs: list[Any]) -> Any:
    kind, name = instruction.kind, instruction.name
    if kind == "unary":
        return UNARY[name](*xs)
    if kind == "binary":
        return BINARY[name](*xs)
    if kind == "algebra":
        return ALGEBRA[name](*xs)
    if kind == "view":
        return VIEWS[name](*xs)
    if kind == "matmul":
        return dg.matmul(*xs)
    return REDUCE[name](xs[0], axis=instruction.axis, keepdims=instruction.keepdims)


def result_shape(instruction: Instruction, shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape of the result; None where the operands do not fit."""
    kind, name = instruction.kind, instruction.name
    first = shapes[0]
    if kind == "unary":
        if name in ("softmax", "log_softmax", "picked") and (not first or first[-1] < 2):
            return None
        return (*first[:-1], 4) if name == "picked" else first
    if kind == "algebra" and name not in TWO_OPERANDS:
        return first
    if kind in ("binary", "algebra"):
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            return None
    if kind == "matmul":
        fits = len(first) == len(shapes[1]) == 2 and first[1] == shapes[1][0]
        return (first[0], shapes[1][1]) if fits else None
    if kind == "reduce":
        if instruction.axis >= len(first):
            return None
        kept = (1,) if instruction.keepdims else ()
        return (*first[: instruction.axis], *kept, *first[instruction.axis + 1 :])
    if len(first) < 2 or first[-2] < 2 or first[-1] < 2:
        return None
    rest, rows, columns = first[:-2], first[-2], first[-1]
    return {
        "transpose": (*rest, columns, rows), "flip": first, "step": (*rest, rows, (columns + 1) // 2),
        "tail": (*rest, rows - 1, columns), "row": (*rest, columns), "flat": (int(np.prod(first)),),
        "column": (*rest, rows, 1), "widened": first, "twice": first, "windows": (*rest, rows - 1, columns),
    }[name]  # fmt: skip


SHAPES = ((3, 4), (4, 4), (4,), (3, 1), (), (2, 3, 4))
KINDS = ("unary",) * 4 + ("binary",) * 3 + ("algebra",) * 3 + ("reduce",) * 2 + ("view",) * 2 + ("matmul",)
NAMES = {
    "unary": tuple(UNARY),
    "binary": tuple(BINARY),
    "algebra": tuple(ALGEBRA),
    "reduce": tuple(REDUCE),
    "view": tuple(VIEWS),
    "matmul": ("matmul",),
}


def instruction_of(rng: random.Random, known: list[tuple[int, ...]]) -> tuple[Instruction, tuple[int, ...]] | None:
    """A random instruction and the shape of its result; None where its operands do not fit."""
    kind = rng.choice(KINDS)
    name = rng.choice(NAMES[kind])
    count = 2 if kind in ("binary", "algebra", "matmul") else 1
    operands = tuple(max(0, len(known) - 1 - rng.choice((0, 0, 0, 1, 1, 2, 3, 4, 5))) for _ in range(count))
    axis, keepdims = (rng.randrange(2), rng.random() < 0.5) if kind == "reduce" else (0, False)
    instruction = Instruction(kind, name, operands, axis, keepdims)
    shape = result_shape(instruction, [known[i] for i in operands])
    return None if shape is None else (instruction, shape)


CODES = st.integers(0, 2**32 - 1)


@st.composite
def programs(draw: Any) -> RandomProgram:
    """Programs of up to 14 instructions with 1 to 3 inputs; any values may be outputs, also inputs, also one twice.

    Hypothesis draws one number for each instruction: choices inside it are uniform, and it shrinks by leaving some out.
    """
    seed = draw(CODES)
    rest = random.Random(seed)
    scale = rest.choice((1, 1, 1, 17))  # more than the lanes of a sum, and not a multiple of them
    shapes = [tuple(n * scale if n > 1 else n for n in shape) for shape in rest.choices(SHAPES, k=rest.randint(1, 3))]
    known = list(shapes)
    instructions: list[Instruction] = []
    for code in draw(st.lists(CODES, min_size=4, max_size=14)):
        found = instruction_of(random.Random(f"{seed} {code}"), known)
        if found is not None:
            instructions.append(found[0])
            known.append(found[1])
    last = len(known) - 1
    outputs = [last, *(rest.randint(0, last) for _ in range(rest.randrange(3)))]
    if rest.random() < 0.5:  # else some values are computed for nobody
        outputs += sorted(set(range(last)) - {i for instruction in instructions for i in instruction.operands})
    dtype = rest.choice(["float32", "float32", "float64"])
    order = 1 + (len(instructions) <= 5 and rest.random() < 0.5)
    return RandomProgram(tuple(shapes), dtype, tuple(instructions), tuple(outputs), rest.randrange(2**16), order)
