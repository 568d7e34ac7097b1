"""Losses over rows of class scores, each one op with its own gradient rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgraph.core.arguments import choice
from dualgraph.core.mode import bind, current
from dualgraph.errors import DTypeError, ShapeError
from dualgraph.ops import elementwise as ew
from dualgraph.ops.composite import composite
from dualgraph.ops.indexing import hot, in_range, integers_only
from dualgraph.ops.reduce import max, sum
from dualgraph.ops.registry import register
from dualgraph.ops.shape import expand_dims
from dualgraph.ops.statistics import known
from dualgraph.spec import is_float

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, Reduction, Tensor

REDUCTIONS = ("mean", "sum", "none")


def checked_reduction(name: str, reduction: str) -> Reduction:
    """One of `REDUCTIONS`."""
    return choice(name, "reduction", reduction, REDUCTIONS)  # type: ignore[return-value]  # one of these


def _rows_spec(name: str) -> Any:
    def spec(x: Any, labels: Any, *, reduction: str) -> None:
        if not is_float(x.dtype):
            raise DTypeError(
                f"{name}: got scores of {x.dtype}; they must be floats; cast them with astype(x, 'float32')"
            )
        integers_only(name, "labels", labels.dtype)
        if len(x.shape) != 2 or labels.shape != x.shape[:1]:
            raise ShapeError(
                f"{name}: got scores of shape {x.shape} and labels of shape {labels.shape}; they must be (rows, classes) and "
                "(rows,); reshape them"
            )
        if x.shape[0] == 0 and reduction == "mean":
            raise ShapeError(
                f"{name}: got an empty batch (scores of shape {x.shape}); the mean of no rows is undefined; "
                "skip empty batches, or use reduction='sum'"
            )
        if x.shape[1] == 0:
            raise ShapeError(f"{name}: got scores of shape {x.shape}; at least one class is needed")

    return spec


def _reduced(rows: Any, reduction: str) -> Any:
    if reduction == "none":
        return rows
    total = sum(rows)
    return total if reduction == "sum" else ew.divide(total, known(rows.layout.shape[0], total))


def _row_gradient(g: Any, n: int, reduction: str) -> Any:
    """The gradient of each row's loss as a column."""
    if reduction == "none":
        return expand_dims(g, 1)
    return g if reduction == "sum" else ew.divide(g, known(n, g))


def _cross_entropy(x: Any, labels: Any, *, reduction: str) -> Any:
    labels = in_range(labels, x.layout.shape[1])
    shifted = ew.subtract(x, max(x, axis=1, keepdims=True))
    total = ew.log(sum(ew.exp(shifted), axis=1))
    hit = hot(labels, x.layout.shape[1], "bool")
    chosen = sum(ew.where(hit, shifted, -0.0), axis=1)
    return _reduced(ew.subtract(total, chosen), reduction)


def _cross_entropy_gradient(g: Any, x: Any, labels: Any, *, reduction: str) -> Any:
    shift = current().detach(max(x, axis=1, keepdims=True))  # it cancels, and so does its gradient
    e = ew.exp(ew.subtract(x, shift))
    p = ew.divide(e, sum(e, axis=1, keepdims=True))
    hit = hot(labels, x.layout.shape[1], "bool")
    return ew.multiply(ew.where(hit, ew.subtract(p, 1.0), p), _row_gradient(g, x.layout.shape[0], reduction))


_CROSS_ENTROPY = register(
    composite(
        "cross_entropy",
        _cross_entropy,
        spec=_rows_spec("cross_entropy"),
        gradients=(_cross_entropy_gradient, None),
    )
)


def _nll_loss(x: Any, labels: Any, *, reduction: str) -> Any:
    hit = hot(in_range(labels, x.layout.shape[1]), x.layout.shape[1], "bool")
    return _reduced(ew.negative(sum(ew.where(hit, x, -0.0), axis=1)), reduction)


def _nll_gradient(g: Any, x: Any, labels: Any, *, reduction: str) -> Any:
    hit = hot(labels, x.layout.shape[1], "bool")
    return ew.where(hit, ew.negative(_row_gradient(g, x.layout.shape[0], reduction)), 0.0)


_NLL_LOSS = register(composite("nll_loss", _nll_loss, spec=_rows_spec("nll_loss"), gradients=(_nll_gradient, None)))


def cross_entropy(input: ArrayLike, target: ArrayLike, reduction: Reduction = "mean") -> Tensor:
    """-log softmax(input)[target] of each row; averaged ("mean"), summed ("sum") or as it is ("none").

    `input`: (rows, classes) scores, floats. `target`: (rows,) class numbers, int32 or int64; one outside of [0, classes)
    raises `RangeError`. Computed from input - max(input), so large scores do not overflow. Raises `ShapeError` for other
    shapes and for the mean of an empty batch, `DTypeError`, and `ArgumentError` for another reduction.

    >>> import dualgraph as dg
    >>> scores = dg.tensor([[1000.0, 0.0], [0.0, 0.0]])
    >>> dg.cross_entropy(scores, dg.tensor([0, 1]), reduction="none").tolist()
    [0.0, 0.6931471824645996]
    """
    front = current()
    reduction = checked_reduction("cross_entropy", reduction)
    return bind(_CROSS_ENTROPY, front.lift(input), front.lift(target), reduction=reduction)


def nll_loss(input: ArrayLike, target: ArrayLike, reduction: Reduction = "mean") -> Tensor:
    """-input[row, target[row]] of rows of log-probabilities; averaged, summed or as it is.

    Shapes, dtypes and errors as for `cross_entropy`, of which it is the second half after `log_softmax`.

    >>> import dualgraph as dg
    >>> dg.nll_loss(dg.tensor([[-0.5, -1.0], [-3.0, -0.25]]), dg.tensor([0, 1])).item()
    0.375
    """
    front = current()
    reduction = checked_reduction("nll_loss", reduction)
    return bind(_NLL_LOSS, front.lift(input), front.lift(target), reduction=reduction)


def _mse(x: Any, y: Any, *, reduction: str) -> Any:
    error = ew.square(ew.subtract(x, y))
    if reduction == "none":
        return error
    total = sum(error)
    return total if reduction == "sum" else ew.divide(total, known(error.spec.size, total))


def _mse_gradient(g: Any, x: Any, y: Any, *, reduction: str, sign: float = 1.0) -> Any:
    difference = ew.subtract(x, y)
    scale = 2.0 * sign / (difference.spec.size if reduction == "mean" else 1)
    return ew.multiply(ew.multiply(difference, known(scale, difference)), g)


def _mse_gradient_of_target(g: Any, x: Any, y: Any, *, reduction: str) -> Any:
    return _mse_gradient(g, x, y, reduction=reduction, sign=-1.0)


def _mse_spec(x: Any, y: Any, *, reduction: str) -> None:
    if x.shape != y.shape:
        raise ShapeError(f"mse_loss: got shapes {x.shape} and {y.shape}; they must be equal; reshape one of them")
    if not (is_float(x.dtype) and is_float(y.dtype)):
        raise DTypeError(f"mse_loss: got {x.dtype} and {y.dtype}; both must be floats; cast with astype(…, 'float32')")
    if reduction == "mean" and 0 in x.shape:
        raise ShapeError(f"mse_loss: got an empty batch (shape {x.shape}); the mean of nothing is undefined; skip it")


_MSE = register(composite("mse_loss", _mse, spec=_mse_spec, gradients=(_mse_gradient, _mse_gradient_of_target)))


def mse_loss(input: ArrayLike, target: ArrayLike, reduction: Reduction = "mean") -> Tensor:
    """(input - target)**2, averaged ("mean"), summed ("sum") or as it is ("none"); shapes must be equal.

    Floats only. Raises `ShapeError` for unequal shapes (nothing is broadcast) and for the mean of nothing, `DTypeError`,
    and `ArgumentError` for another reduction.

    >>> import dualgraph as dg
    >>> dg.mse_loss(dg.tensor([1.0, 5.0]), dg.tensor([2.0, 2.0])).item()
    5.0
    """
    front = current()
    return bind(_MSE, front.lift(input), front.lift(target), reduction=checked_reduction("mse_loss", reduction))


__all__ = [
    "cross_entropy",
    "mse_loss",
    "nll_loss",
]
