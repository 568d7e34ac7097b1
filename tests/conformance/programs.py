"""Random programs: data drawn from a seed, and an interpreter that runs them through the public functions.

A program is a list of instructions over a growing list of values. Shapes come from small families in which everything
broadcasts or multiplies, so eager kernels are shared between programs. Instructions whose operands do not fit are not
drawn at all: `result` follows shapes and kinds with NumPy-like rules of its own.

Inputs lie in memory in any way and are handed over in any way (`WAYS`). Programs assign to variables, switch flags, run
sweeps that leave gradients in leaves and read what is there; some fail, at a check that finds a bad index. `runs` makes of
a program the function that both modes run, and compares what its calls give and leave behind.

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
from conformance.modes import weight
from dualgraph import extend
from dualgraph.dtypes import DTYPES, NUMPY_DTYPES

Array = np.ndarray[Any, Any]

UNARY: dict[str, Callable[[Any], Any]] = {
    "negative": dg.negative, "exp": dg.exp, "tanh": dg.tanh, "square": dg.square, "abs": dg.abs, "sqrt": dg.sqrt,
    "relu": dg.relu, "sigmoid": dg.sigmoid, "sign": dg.sign, "floor": dg.floor, "log1p": dg.log1p, "sin": dg.sin,
    "scaled": lambda x: x * 0.3, "shifted": lambda x: 1.0 - x, "softmax": lambda x: dg.softmax(x, axis=-1),
    "log_softmax": lambda x: dg.log_softmax(x, axis=-1), "cast": lambda x: dg.astype(dg.astype(x, "float64"), x.dtype),
    "self_sum": lambda x: x + x, "self_product": lambda x: x * x,
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
    "sign_of_root": lambda x, y: dg.where(dg.signbit(dg.sqrt(x) / 1.0), x, 1.0),
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


def held_against(x: Any, i: Any, bad: int) -> Any:
    """A check that most integers pass."""
    n = x.shape[-1]
    return x * dg.mean(dg.take(x, dg.reshape(dg.where(i == bad, n, i % n), (-1,)), axis=-1))


MEETING: dict[str, Callable[[Any, Any], Any]] = {  # floats and integers in, floats out
    "mixed_product": lambda x, i: x * i, "chosen": lambda x, i: dg.where(i > 0, x, -x), "compared": lambda x, i: x * (x < i),
    "masked": lambda x, i: x * dg.astype(i % 2 == 0, x.dtype), "taken": lambda x, i: dg.take(x, i % x.shape[-1], axis=-1),
    "looked_up": lambda x, i: dg.take(x, dg.where(i == 7, x.shape[-1], i % x.shape[-1]), axis=-1),  # 7 is a bad index
    "held_against": lambda x, i: held_against(x, i, 7), "held_otherwise": lambda x, i: held_against(x, i, 5),
    "checked": lambda x, i: (x, held_against(x, i, 7))[0], "checked_otherwise": lambda x, i: (x, held_against(x, i, 5))[0],
}  # fmt: skip
CHECKS = ("held_against", "held_otherwise", "checked", "checked_otherwise")
RANDOM: dict[str, Callable[[Any], Any]] = {
    "dropout": lambda x: F.dropout(x, 0.3), "noise": lambda x: x + dg.rand(x.shape, dtype=x.dtype),
    "normal": lambda x: x * dg.randn(x.shape, dtype=x.dtype), "mask": lambda x: dg.where(dg.bernoulli(x.shape, 0.5), x, 0.0),
    "jump": lambda x: x * dg.randint(x.shape, -2, 3),
}  # fmt: skip

turned = extend.composite("turned", lambda x: x.mT)
PRODUCTS: dict[str, Callable[[Any, Any], Any]] = {
    "matmul": dg.matmul, "matmul_nt": lambda x, y: x @ y.mT, "matmul_tn": lambda x, y: x.mT @ y,
    "matmul_turned": lambda x, y: x @ turned(y),
    "row_by_constant": lambda x, y: x[..., :1, :] @ turned(dg.tensor(weight((5, x.shape[-1]), x.dtype))),
    "matmul_flipped": lambda x, y: dg.flip(x) @ y, "linear": lambda x, y: dg.linear(x, y),
}  # fmt: skip
STATE: dict[str, Callable[[Any, Any], Any]] = {
    "assign": lambda variable, x: variable.assign(x) or x, "decay": lambda v, x: v.assign(v * 0.5 + x) or x,
}  # fmt: skip
SAME: dict[str, Callable[[Any], Any]] = {  # views that change nothing
    "whole": lambda x: x[...], "same_shape": lambda x: dg.reshape(x, x.shape), "same_dtype": lambda x: dg.astype(x, x.dtype),
    "same_order": lambda x: dg.permute_dims(x, tuple(range(x.ndim))), "same_extent": lambda x: dg.broadcast_to(x, x.shape),
    "there_and_back": lambda x: x.reshape(-1).reshape(x.shape),
}  # fmt: skip


def unrecorded(x: Any) -> Any:
    with dg.no_grad():
        return x * 0.5


def recorded_again(x: Any) -> Any:
    with dg.no_grad(), dg.enable_grad():
        return x * 1.5


def hooked(x: Any) -> Any:
    y = x * 0.5
    if y.requires_grad:
        y.register_hook(lambda g: g * 3.0)
    return y


def retained(x: Any) -> Any:
    """The gradient that a sweep leaves in an intermediate value."""
    y = x * 2.0
    if y.requires_grad:
        y.retain_grad()
        y.backward(weight(y.shape, y.dtype), retain_graph=True)
    return y if y.grad is None else y * y.grad


RECORDING: dict[str, Callable[[Any], Any]] = {  # what becomes a part of the history
    "detached": lambda x: x.detach(), "new_leaf": lambda x: x.detach().requires_grad_(), "hooked": hooked,
    "unrecorded": unrecorded, "recorded_again": recorded_again,
}  # fmt: skip


def with_gradient(x: Any, g: Any) -> Any:
    x.grad = g
    return x


LEAF: dict[str, Callable[[Any], Any]] = {  # what is done to leaves
    "frozen": lambda x: x.requires_grad_(False), "tracked": lambda x: x.requires_grad_(),
    "cleared": lambda x: with_gradient(x, None), "filled_gradient": lambda x: with_gradient(x, dg.full_like(x, 0.5)),
    "gradient": lambda x: dg.zeros_like(x) if x.grad is None else x.grad,
    "scaled_gradient": lambda x: with_gradient(x, None if x.grad is None else x.grad * 0.25),
}  # fmt: skip


def swept(x: Any, **options: bool) -> Any:
    if x.requires_grad:
        x.backward(weight(x.shape, x.dtype), **options)
    return x


def slope(y: Any, x: Any, **options: bool) -> Any:
    if not (x.requires_grad and y.requires_grad):
        return dg.zeros_like(x)
    return dg.grad(y, x, weight(y.shape, y.dtype), allow_unused=True, **options)[0]


SWEEP: dict[str, Callable[..., Any]] = {
    "backward": lambda x: swept(x, retain_graph=True), "freeing": lambda x: swept(x), "retained": retained,
    "slope": lambda y, x: slope(y, x, create_graph=True), "last_slope": lambda y, x: slope(y, x, retain_graph=True),
}  # fmt: skip
LEAVING = ("backward", "freeing", "retained")  # a gradient in leaves

TWO_OPERANDS = (
    "multiply_add", "add_multiply", "multiply_add_chain", "two_products", "difference_of_products", "filled", "choice",
    "i_add", "i_multiply", "i_subtract", "i_maximum", "i_where", "i_xor",
)  # fmt: skip
EITHER = ("max", "min", "sum")  # reductions that integers have as well
LARGEST = 300_000  # elements of one value

Kind = tuple[tuple[int, ...], str]  # shape; "f" for the floats of the program, "i" for int64


class Handed(NamedTuple):
    """How an input lies in memory, how the function gets it (one of `WAYS`), and what is there before."""

    layout: str
    way: str
    of: int = -1  # the input that it is, for a "twin" of it and for what shares its memory
    held: bool = False  # a gradient is there
    hooked: bool = False


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
    left: bool = False  # gradients are left in the leaves by `backward`, and not taken
    recorded: bool = True  # gradients are enabled where the program is run

    def __repr__(self) -> str:
        count = len(self.inputs)
        lines = [
            f"v{n} = {h.way} {s} {self.dtype if k == 'f' else 'int64'}, {h.layout}{facts(h)}"
            for n, ((s, k), h) in enumerate(zip(self.inputs, self.handed, strict=True))
        ]
        lines += [f"v{count + n} = {i!r}" for n, i in enumerate(self.instructions)]
        outputs = ", ".join(f"v{n}" for n in self.outputs)
        more = ", gradients left" * self.left + ", without gradients" * (not self.recorded)
        return "\n".join(["", *lines, f"outputs {outputs}; seed {self.seed}, order {self.order}{more}"])

    def __call__(self, *inputs: Any) -> list[Any]:
        values = list(inputs)
        for instruction in self.instructions:
            values.append(run(instruction, [values[i] for i in instruction.operands]))
        return [values[n] for n in self.outputs]

    def arrays(self) -> list[Array]:
        """Ordinary values, some or many special ones among them, or a few values that give ties and zeros."""
        rng = np.random.RandomState(self.seed)
        record, dtype = DTYPES[self.dtype], NUMPY_DTYPES[self.dtype]
        subnormal, tiny = record.decode(1), record.decode(1 << (record.digits - 1))
        plain = [np.inf, -np.inf, subnormal, -tiny / 2, record.highest, 0.0, -0.0, -0.0, -0.0]
        odd = np.concatenate([np.array(plain, dtype), nans(self.dtype)])
        grid = np.array([0.0, -0.0, 0.5, -0.5, 1.0, -1.0], dtype)
        share, special = [(0.0, odd), (0.0, odd), (0.2, odd), (0.5, odd), (1.0, grid)][self.seed % 5]
        found = []
        for (shape, kind), handed in zip(self.inputs, self.handed, strict=True):
            if kind == "i":
                wide = rng.choice([0, 0, 40], shape)  # products of the large ones wrap around
                found.append(np.asarray(rng.randint(-9, 10, shape, np.int64) << wide, np.int64))
                continue
            values = np.asarray(rng.normal(size=shape), dtype)
            chosen = rng.random_sample(shape) < share
            array = np.asarray(np.where(chosen, rng.choice(special, shape), values), dtype)
            repeated = handed.layout == "repeated" and shape  # rows that are one in memory have one value
            found.append(np.broadcast_to(array[:1], shape).copy() if repeated else array)
        return found

    def smaller(self) -> Iterator[RandomProgram]:
        """The program with one thing less."""
        return (less for less in self._reduced() if less.is_valid())

    def _reduced(self) -> Iterator[RandomProgram]:
        for n, handed in enumerate(self.handed):
            simpler = [
                PLAIN,
                handed._replace(held=False),
                handed._replace(hooked=False),
                handed._replace(layout="contiguous"),
            ]
            for other in dict.fromkeys(simpler[handed == PLAIN :]):
                if other != handed:
                    yield self._replace(handed=(*self.handed[:n], other, *self.handed[n + 1 :]))
        if self.order > 1 or self.left:
            yield self._replace(order=1, left=False)
        if not self.recorded:
            yield self._replace(recorded=True)
        for n in range(len(self.outputs)):
            if len(self.outputs) > 1:
                yield self._replace(outputs=self.outputs[:n] + self.outputs[n + 1 :])
        first, kinds = len(self.inputs), self.kinds()
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

    def kinds(self) -> list[Kind]:
        """Of all values."""
        kinds = list(self.inputs)
        for instruction in self.instructions:
            kinds.append(result(instruction, [kinds[i] for i in instruction.operands]) or ((), "f"))
        return kinds

    def is_valid(self) -> bool:
        """Is only done to an input what its way allows?"""
        for instruction in self.instructions:
            if instruction.kind == "state" and instruction.operands[0] not in self.variables():
                return False
            if instruction.kind == "leaf" and instruction.operands[0] not in self.leaves():
                return False
        sweeps = self.left or any(i.name in LEAVING for i in self.instructions)
        return not (sweeps and any(h.way == "computed" for h in self.handed))

    def variables(self) -> list[int]:
        """The inputs that can be assigned to."""
        return [n for n, h in enumerate(self.handed) if h.way in ("variable", "parameter")]

    def leaves(self) -> list[int]:
        """The values to which a program may do what is done to leaves."""
        twins = {n for m, h in enumerate(self.handed) if h.way == "twin" for n in (m, h.of)}
        plain = {n for n, h in enumerate(self.handed) if h.way in ("plain", "captured", "shared")}
        computed = {n for n, h in enumerate(self.handed) if h.way == "computed"}
        floats = {n for n, (_, kind) in enumerate(self.inputs) if kind == "f"}
        inputs = sorted(
            floats - computed - (twins & (plain | twins)) - {n for n in plain if self.handed[n].way == "captured"}
        )
        first = len(self.inputs)
        return inputs + [first + n for n, i in enumerate(self.instructions) if i.name == "new_leaf"]


def facts(handed: Handed) -> str:
    more = f" of v{handed.of}" * (handed.of >= 0)
    return more + ", with a gradient" * handed.held + ", hooked" * handed.hooked


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
    elif kind in ("view", "same") or (kind == "reduce" and name in EITHER):
        fits, made = True, kinds
    else:
        fits, made = "i" not in kinds, "f"
    shape = result_shape(instruction, [shape for shape, _ in operands]) if fits else None
    return None if shape is None or math.prod(shape) > LARGEST else (shape, made)


def result_shape(instruction: Instruction, shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    kind, name = instruction.kind, instruction.name
    first = shapes[0]
    if kind in ("same", "recording", "leaf"):
        return first
    if kind == "sweep":
        return shapes[-1]
    if kind in ("unary", "random"):
        if name in ("softmax", "log_softmax", "picked", "sorted", "order") and (not first or first[-1] < 2):
            return None
        return (*first[:-1], 4) if name == "picked" else first
    if name in CHECKS:
        return first if first and math.prod((*first, *shapes[1])) <= LARGEST else None
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
    if name == "row_by_constant":
        return (*x[:-2], 1, 5)
    x = (*x[:-2], x[-1], x[-2]) if name == "matmul_tn" else x
    y = (*y[:-2], y[-1], y[-2]) if name in ("matmul_nt", "matmul_turned", "linear") else y
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
    "meeting": MEETING, "random": RANDOM, "product": PRODUCTS, "state": STATE, "same": SAME,
    "recording": RECORDING, "leaf": LEAF, "sweep": SWEEP,
}  # fmt: skip
NAMES = {kind: tuple(functions) for kind, functions in FUNCTIONS.items()}
OFTEN = {
    "unary": 4, "binary": 3, "algebra": 4, "reduce": 3, "view": 2, "product": 3, "state": 1, "random": 1, "integer": 3,
    "meeting": 2, "same": 2, "recording": 1, "leaf": 1, "sweep": 1,
}  # fmt: skip
KINDS = tuple(kind for kind, times in OFTEN.items() for _ in range(times))
TASTES: tuple[tuple[str, ...], ...] = (  # a program may be of some kinds above all, which then meet one another
    (), (), ("meeting", "state"), ("product", "product", "view"), ("sweep", "leaf", "recording", "same"),
    ("same", "binary", "sweep"), ("algebra", "unary"),
)  # fmt: skip
PAIRS = ("binary", "algebra", "product", "integer", "meeting", "state")
WAYS = (  # arguments that take gradients, what is computed of them, arguments that take none; captured: a leaf, a value
    "argument", "argument", "computed", "plain", "leaf", "captured", "parameter", "variable",
)  # fmt: skip
SECOND = ("twin", "shared")  # the same tensor as another input once more; a value of its own in the memory of another
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
    if dtype == "bfloat16":
        return np.array([0x7FC0, 0xFFC0, 0x7FC1, 0xFFD2, 0xFF87], np.uint16).view(NUMPY_DTYPES[dtype])
    if dtype == "float32":
        return np.array(bits, np.uint32).view(np.float32)
    wide = [0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000012345678, 0xFFF8000000000001, 0xFFF0000000000777]
    return np.array(wide, np.uint64).view(np.float64)


def drawn(rng: np.random.RandomState, choices: Sequence[Any]) -> Any:
    return choices[rng.randint(len(choices))]


def instruction_of(
    rng: np.random.RandomState, program: RandomProgram, kinds: Sequence[str] = KINDS
) -> Instruction | None:
    """A random instruction that goes on with a program; None where its operands do not fit."""
    kind = drawn(rng, kinds)
    name = drawn(rng, NAMES[kind])
    known = program.kinds()
    wanted = {"integer": "ii", "meeting": "fi"}.get(kind, "ff")[: 2 if kind in PAIRS or "slope" in name else 1]
    operands = []
    for letter in wanted:
        fitting = [i for i, known_kind in enumerate(known) if known_kind[1] == letter or kind in ("view", "same")]
        if kind in ("state", "leaf") and not operands:
            fitting = program.variables() if kind == "state" else program.leaves()
        elif kind == "state":
            fitting = [i for i in fitting if known[i] == known[operands[0]]]
        if not fitting:
            return None
        operands.append(fitting[max(0, len(fitting) - 1 - drawn(rng, (0, 0, 0, 1, 1, 2, 3, 4, 5)))])
    axis, keepdims = (rng.randint(2), bool(rng.randint(2))) if kind == "reduce" else (0, False)
    if kind == "reduce" and name in EITHER and rng.randint(4) == 0:  # of any kind
        operands = [rng.randint(len(known))]
    instruction = Instruction(kind, name, tuple(operands), axis, keepdims)
    return None if result(instruction, [known[i] for i in operands]) is None else instruction


def program_of(seed: int) -> RandomProgram:
    """A program of up to 14 instructions with 1 to 6 inputs, one of them perhaps of integers.

    Any values may be outputs, also inputs, also one twice.
    """
    rng = np.random.RandomState(seed)
    taste, family = drawn(rng, TASTES), drawn(rng, FAMILY_OF)
    if "product" in taste and rng.randint(2):  # sums of three or four terms seldom show their order
        family = 1
    inputs: list[Kind] = [(drawn(rng, FAMILIES[family]), "f") for _ in range(rng.randint(1, 4))]
    if family >= 2:
        inputs[0] = (FAMILIES[family][0], "f")  # never small ones alone
    if "meeting" in taste or rng.randint(3) == 0:
        inputs.append((drawn(rng, FAMILIES[family]), "i"))
    handed = [handed_of(rng, kind) for _, kind in inputs]
    if "product" in taste and rng.randint(2):
        handed[0] = handed[0]._replace(way="captured", held=False, hooked=False)
    if "state" in taste or rng.randint(4) == 0:
        inputs.append((drawn(rng, FAMILIES[family]), "f"))
        handed.append(Handed("contiguous", "variable"))
    if rng.randint(4) == 0:
        of = rng.randint(len(inputs))
        inputs.append(inputs[of])
        handed.append(Handed("contiguous", drawn(rng, SECOND), of))
    dtype = drawn(rng, ("float32", "float32", "float64"))
    left, recorded = rng.randint(4) == 0, rng.randint(16) > 0
    program = RandomProgram(tuple(inputs), dtype, (), (), rng.randint(2**16), 1, tuple(handed), left, recorded)
    if not program.is_valid():
        program = program._replace(left=False)
    for _ in range(4 + min(rng.randint(11), rng.randint(11))):
        found = instruction_of(rng, program, KINDS + taste * (len(KINDS) // (len(taste) or 1)))
        if found is not None:
            longer = program._replace(instructions=(*program.instructions, found))
            program = longer if longer.is_valid() else program
    last = len(program.kinds()) - 1
    outputs = [last, *(rng.randint(last + 1) for _ in range(rng.randint(3)))]
    if rng.randint(2):  # else some values are computed for nobody
        outputs += sorted(set(range(last)) - {i for instruction in program.instructions for i in instruction.operands})
    order = 1 + int(len(program.instructions) <= 5 and family < 3 and rng.randint(2))
    return program._replace(outputs=tuple(outputs), order=order)


def handed_of(rng: np.random.RandomState, kind: str) -> Handed:
    """Of floats and of integers; integers take no gradients."""
    layout, way = drawn(rng, LAYINGS), drawn(rng, WAYS)
    if kind == "i":
        return Handed(layout, way if way in ("captured", "variable") else "plain")
    takes = way in ("argument", "leaf", "parameter")
    return Handed(layout, way, -1, takes and rng.randint(4) == 0, takes and rng.randint(8) == 0)
