"""Random programs: data drawn from a seed, and an interpreter that runs them through the public functions.

A program is a list of instructions over a growing list of values. Shapes come from small families in which everything
broadcasts or multiplies, so eager kernels are shared between programs. Instructions whose operands do not fit are not
drawn at all: `result` follows shapes and kinds with NumPy-like rules of its own.

Inputs lie in memory in any way and are handed over in any way: as arguments, captured, as parameters, as variables that
the program assigns to. Some programs fail, at a check that finds a bad index; `bound` makes of a program the function
that both modes run, and what it leaves behind.

The draws are those of `RandomState`, whose stream NumPy has frozen: a seed gives the same program in every environment.
(Hypothesis gives no such promise: its draws depend on its version and on the constants of all modules that are loaded.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import dualgraph as dg
import dualgraph.nn.functional as F
from conformance.layouts import LAYOUTS
from conformance.modes import differentiated, leaves
from dualgraph import extend

Array = np.ndarray[Any, Any]

UNARY: dict[str, Callable[[Any], Any]] = {
    "negative": dg.negative, "exp": dg.exp, "tanh": dg.tanh, "square": dg.square, "abs": dg.abs, "sqrt": dg.sqrt,
    "relu": dg.relu, "sigmoid": dg.sigmoid, "sign": dg.sign, "floor": dg.floor, "log1p": dg.log1p, "sin": dg.sin,
    "scaled": lambda x: x * 0.3, "shifted": lambda x: 1.0 - x, "softmax": lambda x: dg.softmax(x, axis=-1),
    "log_softmax": lambda x: dg.log_softmax(x, axis=-1), "cast": lambda x: dg.astype(dg.astype(x, "float64"), x.dtype),
    "detached": lambda x: x.detach(), "self_sum": lambda x: x + x, "self_product": lambda x: x * x,
    "picked": lambda x: dg.take(x, np.array([1, 0, -1, 1]), axis=-1),
    "sorted_out": lambda x: dg.where(x > 0.25, x, dg.zeros_like(x)), "signbit": lambda x: dg.astype(dg.signbit(x), x.dtype),
    "sorted": dg.sort, "order": lambda x: dg.astype(dg.argsort(x, descending=True), x.dtype),
}  # fmt: skip
ALGEBRA: dict[str, Callable[..., Any]] = {  # what rewrite rules look for, and what they must leave alone
    "plus_zero": lambda x, y: x + 0.0, "minus_zero": lambda x, y: x - 0.0, "times_one": lambda x, y: 1.0 * x,
    "over_one": lambda x, y: x / 1.0, "plus_negative_zero": lambda x, y: -0.0 + x, "times_zero": lambda x, y: x * 0.0,
    "negated_twice": lambda x, y: dg.negative(-x), "self_maximum": lambda x, y: dg.maximum(x, x),
    "self_difference": lambda x, y: x - x,
    "multiply_add": lambda x, y: x * y + x, "add_multiply": lambda x, y: y - x * 0.7, "over_constant": lambda x, y: x / 3.0,
    "multiply_add_chain": lambda x, y: ((x * 0.7 + y) * x + 0.3) * x + y, "two_products": lambda x, y: x * x + y * y,
    "difference_of_products": lambda x, y: x * y - y * x, "log_of_exp": lambda x, y: dg.log(dg.exp(x)),
    "filled": lambda x, y: x * dg.ones_like(x) + dg.zeros_like(y), "choice": lambda x, y: dg.where(y > 0.5, x, x),
}  # fmt: skip
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": dg.add, "subtract": dg.subtract, "multiply": dg.multiply, "divide": dg.divide, "maximum": dg.maximum,
    "minimum": dg.minimum, "where": lambda x, y: dg.where(x < y, x, y), "equal": lambda x, y: dg.astype(x == y, x.dtype) * y,
    "copysign": dg.copysign, "signed": lambda x, y: dg.where(dg.signbit(x), y, 1.0),
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
    "windows": lambda x: x[..., 1:, :] + x[..., :-1, :], "composed": extend.composite("composed", lambda x: dg.flip(x).mT),
}  # fmt: skip


INTEGER: dict[str, Callable[..., Any]] = {  # integers in, integers out; they wrap around
    "i_add": dg.add, "i_multiply": dg.multiply, "i_subtract": dg.subtract, "i_maximum": dg.maximum,
    "i_where": lambda x, y: dg.where(x < y, x, y), "i_floor_divide": lambda x, y: x // 3, "i_xor": dg.bitwise_xor,
    "i_remainder": lambda x, y: x % 5, "i_negative": lambda x, y: -x, "i_shift": lambda x, y: x << 2,
    "i_plus_zero": lambda x, y: x + 0, "i_times_zero": lambda x, y: x * 0, "i_times_one": lambda x, y: x * 1,
}  # fmt: skip
MEETING: dict[str, Callable[[Any, Any], Any]] = {  # floats and integers in, floats out
    "mixed_product": lambda x, i: x * i, "chosen": lambda x, i: dg.where(i > 0, x, -x), "compared": lambda x, i: x * (x < i),
    "masked": lambda x, i: x * dg.astype(i % 2 == 0, x.dtype), "taken": lambda x, i: dg.take(x, i % x.shape[-1], axis=-1),
    "looked_up": lambda x, i: dg.take(x, dg.where(i == 7, x.shape[-1], i % x.shape[-1]), axis=-1),  # 7 is a bad index
    "held_against": lambda x, i: x * dg.mean(dg.take(x, dg.minimum(i, x.shape[-1]) % (x.shape[-1] + 1), axis=-1)),
}  # fmt: skip
RANDOM: dict[str, Callable[[Any], Any]] = {
    "dropout": lambda x: F.dropout(x, 0.3), "noise": lambda x: x + dg.rand(x.shape, dtype=x.dtype),
    "normal": lambda x: x * dg.randn(x.shape, dtype=x.dtype), "mask": lambda x: dg.where(dg.bernoulli(x.shape, 0.5), x, 0.0),
    "jump": lambda x: x * dg.randint(x.shape, -2, 3),
}  # fmt: skip

PRODUCTS: dict[str, Callable[[Any, Any], Any]] = {
    "matmul": dg.matmul, "matmul_nt": lambda x, y: x @ y.mT, "matmul_tn": lambda x, y: x.mT @ y,
    "matmul_flipped": lambda x, y: dg.flip(x) @ y, "linear": lambda x, y: dg.linear(x, y),
}  # fmt: skip
STATE: dict[str, Callable[[Any, Any], Any]] = {"assign": lambda variable, x: variable.assign(x) or x}

TWO_OPERANDS = (
    "multiply_add", "add_multiply", "multiply_add_chain", "two_products", "difference_of_products", "filled", "choice",
    "i_add", "i_multiply", "i_subtract", "i_maximum", "i_where", "i_xor",
)  # fmt: skip
EITHER = ("max", "min", "sum")  # reductions that integers have as well
LARGEST = 300_000  # elements of one value

Kind = tuple[tuple[int, ...], str]  # shape; "f" for the floats of the program, "i" for int64


class Handed(NamedTuple):
    """How an input lies in memory, and how the function gets it: "argument", "captured", "parameter" or "variable"."""

    layout: str
    way: str


PLAIN = Handed("contiguous", "argument")


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
    inputs: tuple[Kind, ...]
    dtype: str
    instructions: tuple[Instruction, ...]
    outputs: tuple[int, ...]
    seed: int  # of the input values
    order: int  # gradients up to this one
    handed: tuple[Handed, ...]  # for each input

    def __repr__(self) -> str:
        count = len(self.inputs)
        lines = [
            f"v{n} = {h.way} {s} {self.dtype if k == 'f' else 'int64'}, {h.layout}"
            for n, ((s, k), h) in enumerate(zip(self.inputs, self.handed, strict=True))
        ]
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
        rng = np.random.RandomState(self.seed)
        f = np.finfo(self.dtype)
        plain = [np.inf, -np.inf, f.smallest_subnormal, -f.tiny / 2, f.max, 0.0, -0.0, -0.0, -0.0]
        odd = np.concatenate([np.array(plain, self.dtype), nans(self.dtype)])
        grid = np.array([0.0, -0.0, 0.5, -0.5, 1.0, -1.0], self.dtype)
        share, special = [(0.0, odd), (0.0, odd), (0.2, odd), (0.5, odd), (1.0, grid)][self.seed % 5]
        found = []
        for (shape, kind), handed in zip(self.inputs, self.handed, strict=True):
            if kind == "i":
                wide = rng.choice([0, 0, 40], shape)  # products of the large ones wrap around
                found.append(np.asarray(rng.randint(-9, 10, shape, np.int64) << wide, np.int64))
                continue
            values = np.asarray(rng.normal(size=shape), self.dtype)
            chosen = rng.random_sample(shape) < share
            array = np.asarray(np.where(chosen, rng.choice(special, shape), values), self.dtype)
            repeated = handed.layout == "repeated" and shape  # rows that are one in memory have one value
            found.append(np.broadcast_to(array[:1], shape).copy() if repeated else array)
        return found

    def smaller(self) -> Iterator[RandomProgram]:
        """The program with one thing less."""
        for n, handed in enumerate(self.handed):
            if handed != PLAIN and handed.way != "variable":
                yield self._replace(handed=(*self.handed[:n], PLAIN, *self.handed[n + 1 :]))
        if self.order > 1:
            yield self._replace(order=1)
        for n in range(len(self.outputs)):
            if len(self.outputs) > 1:
                yield self._replace(outputs=self.outputs[:n] + self.outputs[n + 1 :])
        first, kinds = len(self.inputs), list(self.inputs)
        for instruction in self.instructions:
            kinds.append(result(instruction, [kinds[i] for i in instruction.operands]) or ((), "f"))
        for n in reversed(range(len(self.instructions))):
            gone = first + n
            for other in [i for i in range(gone) if kinds[i] == kinds[gone]][-3:] or [gone]:
                # `other` stands for the value that goes.
                def renamed(i: int, gone: int = gone, other: int = other) -> int:
                    return other if i == gone else i - (i > gone)

                rest = self.instructions[:n] + self.instructions[n + 1 :]
                used = {*self.outputs, *(i for later in rest for i in later.operands)}
                if other != gone or gone not in used:
                    fewer = tuple(x._replace(operands=tuple(map(renamed, x.operands))) for x in rest)
                    yield self._replace(instructions=fewer, outputs=tuple(map(renamed, self.outputs)))


def smallest(program: RandomProgram, fails: Callable[[RandomProgram], bool]) -> RandomProgram:
    """What is left of a program that fails when nothing can be taken away without it passing."""
    while True:
        for less in program.smaller():
            if fails(less):
                program = less
                break
        else:
            return program


def run(instruction: Instruction, xs: list[Any]) -> Any:
    kind, name = instruction.kind, instruction.name
    if kind == "reduce":
        return REDUCE[name](xs[0], axis=instruction.axis, keepdims=instruction.keepdims)
    return FUNCTIONS[kind][name](*xs)


def result(instruction: Instruction, operands: Sequence[Kind]) -> Kind | None:
    """Shape and kind of the result; None where the operands do not fit."""
    kinds = "".join(kind for _, kind in operands)
    kind, name = instruction.kind, instruction.name
    if kind == "integer":
        fits, made = kinds == "ii", "i"
    elif kind == "meeting":
        fits, made = kinds == "fi", "f"
    elif kind == "view" or (kind == "reduce" and name in EITHER):
        fits, made = True, kinds
    else:
        fits, made = "i" not in kinds, "f"
    shape = result_shape(instruction, [shape for shape, _ in operands]) if fits else None
    return None if shape is None or math.prod(shape) > LARGEST else (shape, made)


def result_shape(instruction: Instruction, shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    kind, name = instruction.kind, instruction.name
    first = shapes[0]
    if kind in ("unary", "random"):
        if name in ("softmax", "log_softmax", "picked", "sorted", "order") and (not first or first[-1] < 2):
            return None
        return (*first[:-1], 4) if name == "picked" else first
    if name == "held_against":
        return first if first and len(shapes[1]) <= 1 else None
    if name in ("taken", "looked_up"):
        return (*first[:-1], *shapes[1]) if first and len(shapes[1]) <= 1 else None
    if kind in ("algebra", "integer") and name not in TWO_OPERANDS:
        return first
    if kind in ("binary", "algebra", "integer", "meeting"):
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            return None
    if kind == "product":
        return product_shape(name, *shapes)
    if kind == "state":
        return first if first == shapes[1] else None
    if kind == "reduce":
        if instruction.axis >= len(first):
            return None
        kept = (1,) if instruction.keepdims else ()
        return (*first[: instruction.axis], *kept, *first[instruction.axis + 1 :])
    if len(first) < 2 or first[-2] < 2 or first[-1] < 2:
        return None
    rest, rows, columns = first[:-2], first[-2], first[-1]
    return {
        "transpose": (*rest, columns, rows), "composed": (*rest, columns, rows),
        "flip": first, "step": (*rest, rows, (columns + 1) // 2),
        "tail": (*rest, rows - 1, columns), "row": (*rest, columns), "flat": (math.prod(first),),
        "column": (*rest, rows, 1), "widened": first, "twice": first, "windows": (*rest, rows - 1, columns),
    }[name]  # fmt: skip


def product_shape(name: str, x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, ...] | None:
    """Of matrices, stacks of them, and vectors."""
    if not x or not y or (name != "matmul" and min(len(x), len(y)) < 2):
        return None
    x = (*x[:-2], x[-1], x[-2]) if name == "matmul_tn" else x
    y = (*y[:-2], y[-1], y[-2]) if name in ("matmul_nt", "linear") else y
    left, right = (1, *x) if len(x) == 1 else x, (*y, 1) if len(y) == 1 else y
    if left[-1] != right[-2] or (name == "linear" and len(y) != 2):
        return None
    try:
        batch = np.broadcast_shapes(left[:-2], right[:-2])
    except ValueError:
        return None
    return (*batch, *left[-2:-1][: len(x) - 1], *right[-1:][: len(y) - 1])


FUNCTIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "unary": UNARY, "binary": BINARY, "algebra": ALGEBRA, "reduce": REDUCE, "view": VIEWS, "integer": INTEGER,
    "meeting": MEETING, "random": RANDOM, "product": PRODUCTS, "state": STATE,
}  # fmt: skip
NAMES = {kind: tuple(functions) for kind, functions in FUNCTIONS.items()}
OFTEN = {
    "unary": 4,
    "binary": 3,
    "algebra": 4,
    "reduce": 3,
    "view": 2,
    "product": 3,
    "state": 1,
    "random": 1,
    "integer": 2,
    "meeting": 2,
}
KINDS = tuple(kind for kind, times in OFTEN.items() for _ in range(times))
PAIRS = ("binary", "algebra", "product", "integer", "meeting", "state")
WAYS = ("argument", "argument", "captured", "parameter")
LAYINGS = ("contiguous", "contiguous", *(name for name in LAYOUTS if name != "contiguous"), "repeated")

SMALL = ((3, 4), (4, 4), (4,), (3, 1), (), (2, 3, 4))
FAMILIES = (
    SMALL,
    tuple(tuple(17 * n if n > 1 else n for n in shape) for shape in SMALL),  # not a multiple of the lanes of a sum
    ((33,), (2, 33), (33, 33), (1,), (33, 1)),  # one more than the lanes
    ((4097,), (2, 4097), (1,), ()),  # one more than a chunk
    ((70_000,), (2, 70_000), (1,), ()),  # worth more than one thread
)
FAMILY_OF = (0,) * 17 + (1,) * 4 + (2,) * 2 + (3,) + (4,)  # new shapes are new kernels, which take time to compile


def nans(dtype: str) -> Array:
    """Of either sign, with and without payload, one of them signalling."""
    bits = [0x7FC00000, 0xFFC00000, 0x7FC12345, 0xFFC00001, 0xFF800777]
    if dtype == "float32":
        return np.array(bits, np.uint32).view(np.float32)
    wide = [0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000012345678, 0xFFF8000000000001, 0xFFF0000000000777]
    return np.array(wide, np.uint64).view(np.float64)


def drawn(rng: np.random.RandomState, choices: Sequence[Any]) -> Any:
    return choices[rng.randint(len(choices))]


def instruction_of(
    rng: np.random.RandomState, known: list[Kind], variables: list[int]
) -> tuple[Instruction, Kind] | None:
    """A random instruction and what it results in; None where its operands do not fit."""
    kind = drawn(rng, KINDS)
    name = drawn(rng, NAMES[kind])
    wanted = {"integer": "ii", "meeting": "fi"}.get(kind, "ff")[: 2 if kind in PAIRS else 1]
    operands = []
    for letter in wanted:
        fitting = [i for i, known_kind in enumerate(known) if known_kind[1] == letter or kind == "view"]
        if kind == "state" and not operands:
            fitting = variables
        if not fitting:
            return None
        operands.append(fitting[max(0, len(fitting) - 1 - drawn(rng, (0, 0, 0, 1, 1, 2, 3, 4, 5)))])
    axis, keepdims = (rng.randint(2), bool(rng.randint(2))) if kind == "reduce" else (0, False)
    if kind == "reduce" and name in EITHER and rng.randint(4) == 0:  # of any kind
        operands = [rng.randint(len(known))]
    instruction = Instruction(kind, name, tuple(operands), axis, keepdims)
    found = result(instruction, [known[i] for i in operands])
    return None if found is None else (instruction, found)


def program_of(seed: int) -> RandomProgram:
    """A program of up to 14 instructions with 1 to 4 inputs, one of them perhaps of integers.

    Any values may be outputs, also inputs, also one twice.
    """
    rng = np.random.RandomState(seed)
    family = drawn(rng, FAMILY_OF)
    inputs: list[Kind] = [(drawn(rng, FAMILIES[family]), "f") for _ in range(rng.randint(1, 4))]
    if family >= 2:
        inputs[0] = (FAMILIES[family][0], "f")  # never small ones alone
    if rng.randint(3) == 0:
        inputs.append((drawn(rng, FAMILIES[family]), "i"))
    handed = [Handed(drawn(rng, LAYINGS), drawn(rng, WAYS)) for _ in inputs]
    if rng.randint(4) == 0:
        inputs.append((drawn(rng, FAMILIES[family]), "f"))
        handed.append(Handed("contiguous", "variable"))
    variables = [n for n, h in enumerate(handed) if h.way == "variable"]
    known = list(inputs)
    instructions: list[Instruction] = []
    for _ in range(4 + min(rng.randint(11), rng.randint(11))):
        found = instruction_of(rng, known, variables)
        if found is not None:
            instructions.append(found[0])
            known.append(found[1])
    last = len(known) - 1
    outputs = [last, *(rng.randint(last + 1) for _ in range(rng.randint(3)))]
    if rng.randint(2):  # else some values are computed for nobody
        outputs += sorted(set(range(last)) - {i for instruction in instructions for i in instruction.operands})
    dtype = drawn(rng, ("float32", "float32", "float64"))
    order = 1 + int(len(instructions) <= 5 and family < 3 and rng.randint(2))
    return RandomProgram(
        tuple(inputs), dtype, tuple(instructions), tuple(outputs), rng.randint(2**16), order, tuple(handed)
    )


class Bound(NamedTuple):
    """A program with its inputs: the function of those that are arguments, these, and the variables that it changes."""

    function: Callable[..., list[Any]]
    arguments: list[Any]
    variables: list[Any]

    def outcome(self, run: Callable[..., Sequence[Any]]) -> list[Array]:
        """What a run gives and leaves behind: results or the words of its error, then the variables."""
        start = [v.numpy() for v in self.variables]
        dg.manual_seed(SEED)
        try:
            found = [x.numpy() for x in run(*self.arguments)]
        except dg.errors.RangeError as error:
            found = [np.array(f"{type(error).__name__}: {error.args[0]}")]
        after = [v.numpy() for v in self.variables]
        for variable, value in zip(self.variables, start, strict=True):
            variable.assign(value)
        return [*found, *after]


SEED = 20


def bound(program: RandomProgram, arrays: Sequence[Array]) -> Bound:
    """Eager tensors that lie as the program says, and the function with its gradients."""
    given = [tensor_of(a, h) for a, h in zip(arrays, program.handed, strict=True)]
    at = [n for n, h in enumerate(program.handed) if h.way == "argument"]
    full = differentiated(program, program.order)

    def function(*arguments: Any) -> list[Any]:
        values = dict(zip(at, arguments, strict=True))
        return leaves(full(*(values.get(n, x) for n, x in enumerate(given))))

    variables = [x for x, h in zip(given, program.handed, strict=True) if h.way == "variable"]
    return Bound(function, [given[n] for n in at], variables)


def tensor_of(array: Array, handed: Handed) -> Any:
    """An eager tensor with these elements; arguments and parameters of floats need gradients."""
    if handed.layout == "repeated" and array.ndim:
        x = dg.broadcast_to(dg.tensor(np.ascontiguousarray(array[:1])), array.shape)
    else:
        base, view = LAYOUTS[handed.layout if array.ndim and handed.layout in LAYOUTS else "contiguous"](array)
        x = view(dg.tensor(base))
    is_float = array.dtype.kind == "f"
    if handed.way in ("parameter", "variable"):
        return dg.Variable(x, requires_grad=is_float and handed.way == "parameter")
    x = x.detach()
    return x.requires_grad_() if is_float and handed.way == "argument" else x
