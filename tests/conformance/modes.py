"""One function, run in every mode, and the comparison of bits that all conformance tests use.

A *function* here takes tensors (floats need gradients) and returns tensors, nested or not. `differentiated` makes of it a
function that returns its gradients as well, so a comparison of modes always covers both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import dualgraph as dg
from dualgraph import static, tree
from dualgraph.bits import differing, same_bits
from dualgraph.core.tensor import Tensor
from dualgraph.kernels import provider
from dualgraph.ops.random import DRAW, SEED
from dualgraph.spec import is_float

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]

LEVELS = ("none", "exact")
NATIVE = provider.name() == "llvm"
SEED_OF_RUNS = 20

# ------------------------------------------------------------------------------------------------- comparing bits


def assert_bits(got: Sequence[Any], expected: Sequence[Any], what: str) -> None:
    """Every array equal bit for bit; the message shows the first elements that are not."""
    assert len(got) == len(expected), f"{what}: {len(got)} results, expected {len(expected)}"
    for number, (a, b) in enumerate(zip(map(np.asarray, got), map(np.asarray, expected), strict=True)):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), (
            f"{what}, result {number}: {a.dtype}{a.shape}, {b.dtype}{b.shape}"
        )
        if same_bits(a, b):
            continue
        places = differing(a, b)
        at = [tuple(int(k) for k in np.unravel_index(n, a.shape)) for n in places[:4]]
        shown = "; ".join(f"{i}: got {_shown(a[i])}, expected {_shown(b[i])}" for i in at)
        raise AssertionError(
            f"{what}, result {number} of {len(got)}: {len(places)} of {a.size} elements differ: {shown}"
        )


def _shown(value: Any) -> str:
    """A NaN with its bits, in which alone it can differ from another."""
    return f"{value!r} (0x{value.tobytes()[::-1].hex()})" if value != value else repr(value)


# ------------------------------------------------------------------------------------------------- making functions


def leaves(value: Any) -> list[Any]:
    """The tensors of a nested result."""
    return [x for x in tree.flatten(value)[0] if isinstance(x, Tensor)]


def weight(shape: tuple[int, ...], dtype: Any, number: int = 0) -> Array:
    """A fixed incoming gradient, different in each element."""
    size = int(np.prod(shape))
    values = np.random.default_rng(100 + number).uniform(0.5, 1.5, size)
    return np.asarray(values.reshape(shape), dtype)


def gradients(outputs: Sequence[Any], inputs: Sequence[Any], create_graph: bool = False) -> list[Any]:
    """The gradient of a weighted sum of all differentiable outputs for each of the inputs; zeros where unused."""
    useful = [x for x in outputs if x.requires_grad]
    if not useful or not inputs:
        return []
    seeds = [weight(x.shape, x.dtype, n) for n, x in enumerate(useful)]
    return dg.grad(useful, inputs, seeds, create_graph=create_graph, allow_unused=True, retain_graph=True)


def differentiated(function: Function, order: int = 1) -> Function:
    """`function` with the gradients of its outputs, of those gradients, … up to `order`, as further results."""

    def run(*inputs: Any) -> list[Any]:
        found = leaves(function(*inputs))
        wanted = [x for x in inputs if x.requires_grad]
        latest = found
        for n in range(order):
            latest = gradients(latest, wanted, create_graph=n + 1 < order)
            found = [*found, *latest]
        return found

    return run


# ------------------------------------------------------------------------------------------------- running


def tensors(arrays: Sequence[Array]) -> list[Any]:
    """Eager tensors; floats need gradients."""
    return [dg.tensor(a, requires_grad=is_float(a.dtype.name)) for a in arrays]


def run_eager(function: Function, arrays: Sequence[Array]) -> list[Array]:
    dg.manual_seed(SEED_OF_RUNS)
    return [x.numpy() for x in leaves(function(*tensors(arrays)))]


def define(function: Function, arrays: Sequence[Any]) -> tuple[static.Graph, list[Any]]:
    """The function as a graph with an input for each array or tensor."""
    graph = static.Graph()
    with graph:
        inputs = [
            static.placeholder(
                f"x{n}", a.shape, a.dtype, requires_grad=getattr(a, "requires_grad", is_float(np.dtype(a.dtype).name))
            )
            for n, a in enumerate(arrays)
        ]
        outputs = leaves(function(*inputs))
    return graph, outputs


def run_executable(executable: static.Executable, arrays: Sequence[Array]) -> list[Array]:
    dg.manual_seed(SEED_OF_RUNS)
    return [x.numpy() for x in executable(*arrays)]


def run_static(function: Function, arrays: Sequence[Array], level: str = "exact") -> list[Array]:
    graph, outputs = define(function, arrays)
    return run_executable(static.compile(graph, outputs=outputs, optimize=level), arrays)


def assert_modes_agree(
    function: Function, arrays: Sequence[Array], what: str = "", levels: Sequence[str] = LEVELS, order: int = 1
) -> list[Array]:
    """Eager and static, at every level, by bits, with gradients up to `order`. Returns the eager results."""
    full = differentiated(function, order) if order else function
    expected = run_eager(full, arrays)
    graph, outputs = define(full, arrays)
    for level in levels:
        executable = static.compile(graph, outputs=outputs, optimize=level)
        assert_bits(run_executable(executable, arrays), expected, f"{what} static {level} against eager")
    return expected


def random_state() -> tuple[int, int]:
    """(seed, draws made)."""
    return int(SEED.numpy()), int(DRAW.numpy())
