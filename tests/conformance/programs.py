"""Random programs: data drawn by hypothesis, and an interpreter that runs them through the public functions.

A program is a list of instructions over a growing list of values. Shapes come from a small family in which everything
broadcasts or multiplies, so eager kernels are shared between programs. Instructions whose operands do not fit are not
drawn at all: `Builder` follows the shapes with NumPy-like rules of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

import dualgraph as dg

Array = np.ndarray[Any, Any]

UNARY: dict[str, Callable[[Any], Any]] = {
    "negative": dg.negative, "exp": dg.exp, "tanh": dg.tanh, "square": dg.square, "abs": dg.abs, "sqrt": dg.sqrt,
    "relu": dg.relu, "sigmoid": dg.sigmoid, "sign": dg.sign, "floor": dg.floor, "log1p": dg.log1p, "sin": dg.sin,
    "scaled": lambda x: x * 0.3, "plus_zero": lambda x: x + 0.0, "minus_zero": lambda x: x - 0.0, "times_one": lambda x: x * 1.0,
    "shifted": lambda x: 1.0 - x, "softmax": lambda x: dg.softmax(x, axis=-1), "negated_twice": lambda x: -(-x),
    "log_softmax": lambda x: dg.log_softmax(x, axis=-1), "cast": lambda x: dg.astype(dg.astype(x, "float64"), x.dtype),
    "detached": lambda x: x.detach(), "self_sum": lambda x: x + x, "self_product": lambda x: x * x,
    "self_maximum": lambda x: dg.maximum(x, x), "picked": lambda x: dg.take(x, np.array([1, 0, -1, 1]), axis=-1),
    "sorted_out": lambda x: dg.where(x > 0.25, x, dg.zeros_like(x)),
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
        return "\n".join(["", *lines, f"outputs {', '.join(f'v{n}' for n in self.outputs)}; seed {self.seed}, order {self.order}"])

    def __call__(self, *inputs: Any) -> list[Any]:
        values = list(inputs)
        for instruction in self.instructions:
            values.append(run(instruction, [values[i] for i in instruction.operands]))
        return [values[n] for n in self.outputs]

    def arrays(self) -> list[Array]:
        """Ordinary values, and one in five a special one."""
        rng = np.random.default_rng(self.seed)
        f = np.finfo(self.dtype)
        special = np.array(
            [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, f.smallest_subnormal, -f.tiny / 2, f.max], self.dtype
        )
        found = []
        for shape in self.shapes:
            values = rng.normal(size=shape).astype(self.dtype)
            odd = rng.random(shape) < (0.2 if self.seed % 2 else 0.0)
            found.append(np.where(odd, rng.choice(special, shape), values))
        return found


def run(instruction: Instruction, xs: list[Any]) -> Any:
    kind, name = instruction.kind, instruction.name
    if kind == "unary":
        return UNARY[name](*xs)
    if kind == "binary":
        return BINARY[name](*xs)
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
    if kind == "binary":
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
KINDS = ("unary",) * 4 + ("binary",) * 4 + ("reduce",) * 2 + ("view",) * 2 + ("matmul",)
NAMES = {"unary": tuple(UNARY), "binary": tuple(BINARY), "reduce": tuple(REDUCE), "view": tuple(VIEWS), "matmul": ("matmul",)}


@st.composite
def programs(draw: Any) -> RandomProgram:
    """Programs of 3 to 12 instructions with 1 to 3 inputs; any values may be outputs, also inputs, also one twice."""
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    known = list(shapes)
    instructions: list[Instruction] = []
    for _ in range(draw(st.integers(3, 12))):
        kind = draw(st.sampled_from(KINDS))
        name = draw(st.sampled_from(NAMES[kind]))
        count = 2 if kind in ("binary", "matmul") else 1
        operands = tuple(len(known) - 1 - draw(st.integers(0, min(len(known) - 1, 5))) for _ in range(count))
        axis, keepdims = (draw(st.integers(0, 1)), draw(st.booleans())) if kind == "reduce" else (0, False)
        instruction = Instruction(kind, name, operands, axis, keepdims)
        shape = result_shape(instruction, [known[i] for i in operands])
        if shape is not None:
            instructions.append(instruction)
            known.append(shape)
    last = len(known) - 1
    outputs = [last, *draw(st.lists(st.integers(0, last), max_size=3))]
    dtype = draw(st.sampled_from(["float32", "float32", "float64"]))
    order = 1 + (len(instructions) <= 5 and draw(st.booleans()))
    return RandomProgram(tuple(shapes), dtype, tuple(instructions), tuple(outputs), draw(st.integers(0, 2**16)), order)
