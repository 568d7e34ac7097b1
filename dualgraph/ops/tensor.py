"""What tensors of both modes have in common: operators and methods, each one line over the public operations.

The `EagerTensor` and the static `Symbol` derive from `Tensor`; a model never asks which of the two it holds.
This file stands below the operations: it calls them through `FUNCTIONS`, which `ops` fills with its public names.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dualgraph.errors import ArgumentError, DTypeError, GradientError, GraphError, ShapeError, here, shown
from dualgraph.ops.op import current
from dualgraph.spec import NUMPY_DTYPES, Shape, Spec, is_float

FUNCTIONS: dict[str, Callable[..., Any]] = {}


class Tensor:
    """What operations accept and return: a value in dynamic mode, a symbol while a function is traced.

    Made by `dualgraph.tensor` and by operations. `grad` holds the gradient after `backward`.

    >>> import dualgraph as dg
    >>> isinstance(dg.tensor([1.0]), dg.Tensor)
    True
    """

    __slots__ = ()

    is_variable = False  # whether the value may be replaced: a graph reads it by reference
    __array_ufunc__: Any = None  # NumPy leaves mixed expressions to our reflected operators
    layout: Any
    source: Any  # the tensor to whose gradient this one's belongs, if that is another one
    tracked: bool  # what `requires_grad` says, without its door
    call: Any
    hooks: Any
    grad: Any
    index: int

    def __init__(self, *data: Any, **options: Any):
        raise ArgumentError("Tensor: got a call of the class; tensors are made from data by dualgraph.tensor(data)").at(
            here(2)
        )

    @property
    def spec(self) -> Spec:
        """Shape and dtype."""
        layout = self.layout
        return Spec(layout[0], layout[1])

    def in_words(self) -> str:
        """The tensor in messages: the same in both modes."""
        return f"a tensor of {self.spec}"

    @property
    def shape(self) -> Shape:
        """Length of each axis."""
        return self.layout[0]  # type: ignore[no-any-return]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as NumPy names it."""
        return NUMPY_DTYPES[self.layout[1]]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.layout[0])

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.spec.size

    @property
    def device(self) -> str:
        """Where the values are: "cpu"."""
        return "cpu"

    def to(self, device: str) -> Any:
        """The tensor on a device. Only "cpu" is available in this version."""
        if not isinstance(device, str) or device != "cpu":
            raise ArgumentError(f"to: got device {shown(device)}; this version runs on 'cpu' only; use 'cpu'").at(
                here(2)
            )
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self.call is None

    def __add__(self, other: Any) -> Any:
        return FUNCTIONS["add"](self, other)

    def __radd__(self, other: Any) -> Any:
        return FUNCTIONS["add"](other, self)

    def __sub__(self, other: Any) -> Any:
        return FUNCTIONS["subtract"](self, other)

    def __rsub__(self, other: Any) -> Any:
        return FUNCTIONS["subtract"](other, self)

    def __mul__(self, other: Any) -> Any:
        return FUNCTIONS["multiply"](self, other)

    def __rmul__(self, other: Any) -> Any:
        return FUNCTIONS["multiply"](other, self)

    def __truediv__(self, other: Any) -> Any:
        return FUNCTIONS["divide"](self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return FUNCTIONS["divide"](other, self)

    def __floordiv__(self, other: Any) -> Any:
        return FUNCTIONS["floor_divide"](self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return FUNCTIONS["floor_divide"](other, self)

    def __mod__(self, other: Any) -> Any:
        return FUNCTIONS["remainder"](self, other)

    def __rmod__(self, other: Any) -> Any:
        return FUNCTIONS["remainder"](other, self)

    def __pow__(self, other: Any) -> Any:
        return FUNCTIONS["power"](self, other)

    def __rpow__(self, other: Any) -> Any:
        return FUNCTIONS["power"](other, self)

    def __matmul__(self, other: Any) -> Any:
        return FUNCTIONS["matmul"](self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return FUNCTIONS["matmul"](other, self)

    def __and__(self, other: Any) -> Any:
        return FUNCTIONS["bitwise_and"](self, other)

    def __rand__(self, other: Any) -> Any:
        return FUNCTIONS["bitwise_and"](other, self)

    def __or__(self, other: Any) -> Any:
        return FUNCTIONS["bitwise_or"](self, other)

    def __ror__(self, other: Any) -> Any:
        return FUNCTIONS["bitwise_or"](other, self)

    def __xor__(self, other: Any) -> Any:
        return FUNCTIONS["bitwise_xor"](self, other)

    def __rxor__(self, other: Any) -> Any:
        return FUNCTIONS["bitwise_xor"](other, self)

    def __lshift__(self, other: Any) -> Any:
        return FUNCTIONS["bitwise_left_shift"](self, other)

    def __rlshift__(self, other: Any) -> Any:
        return FUNCTIONS["bitwise_left_shift"](other, self)

    def __rshift__(self, other: Any) -> Any:
        return FUNCTIONS["bitwise_right_shift"](self, other)

    def __rrshift__(self, other: Any) -> Any:
        return FUNCTIONS["bitwise_right_shift"](other, self)

    def __lt__(self, other: Any) -> Any:
        return FUNCTIONS["less"](self, other)

    def __le__(self, other: Any) -> Any:
        return FUNCTIONS["less_equal"](self, other)

    def __gt__(self, other: Any) -> Any:
        return FUNCTIONS["greater"](self, other)

    def __ge__(self, other: Any) -> Any:
        return FUNCTIONS["greater_equal"](self, other)

    def __eq__(self, other: Any) -> Any:
        return False if other is None else FUNCTIONS["equal"](self, other)

    def __ne__(self, other: Any) -> Any:
        return True if other is None else FUNCTIONS["not_equal"](self, other)

    __hash__ = object.__hash__

    def __neg__(self) -> Any:
        return FUNCTIONS["negative"](self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return FUNCTIONS["abs"](self)

    def __invert__(self) -> Any:
        return FUNCTIONS["bitwise_invert"](self)

    def __getitem__(self, key: Any) -> Any:
        return FUNCTIONS["getitem"](self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise ArgumentError(
            f"x[{shown(key)}] = …: tensors are values and cannot be written to; build the new value with dg.where, dg.concat or "
            "arithmetic, and keep state in an nn.Parameter or a buffer"
        ).at(here(2))

    def assign(self, value: Any) -> None:
        """Only variables take new values."""
        try:
            check_assigned(self, self)
        except GraphError as error:
            raise error.at(here(2)) from None

    def __len__(self) -> int:
        shape = self.layout[0]
        if not shape:
            raise ShapeError("len(): got a tensor of shape (); a scalar has no length").at(here(2))
        return shape[0]  # type: ignore[no-any-return]

    def __contains__(self, value: Any) -> bool:
        found = self == value
        return bool(FUNCTIONS["any"](found)) if isinstance(found, Tensor) else bool(found)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape: Any) -> Any:
        """See `dualgraph.reshape`; the lengths as one tuple or one by one."""
        return FUNCTIONS["reshape"](self, shape[0] if len(shape) == 1 else shape)

    def astype(self, dtype: Any) -> Any:
        """See `dualgraph.astype`."""
        return FUNCTIONS["astype"](self, dtype)

    @property
    def T(self) -> Any:
        """The transpose of a matrix."""
        if len(self.layout[0]) != 2:
            raise ShapeError(f".T: got shape {self.layout[0]}; it is defined for 2 axes; use mT or permute_dims")
        return FUNCTIONS["matrix_transpose"](self)

    @property
    def mT(self) -> Any:
        """The last two axes exchanged."""
        return FUNCTIONS["matrix_transpose"](self)

    @property
    def requires_grad(self) -> bool:
        """Whether gradients with respect to this tensor are recorded; setting it is `requires_grad_`."""
        return self.tracked

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        self.requires_grad_(requires_grad)

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Switch gradient tracking of a leaf; returns the tensor."""
        if not isinstance(requires_grad, bool):
            raise ArgumentError(
                f"requires_grad_: got {shown(requires_grad)}; it must be True or False; pass one of them"
            ).at(here(2))
        if requires_grad and not is_float(self.layout[1]):
            raise DTypeError(f"requires_grad: got {self.spec}; gradients exist for floats only; cast it first").at(
                here(2)
            )
        if self.call is not None and not requires_grad:
            raise GradientError("requires_grad_: got a computed tensor; only a leaf can be switched; use detach()").at(
                here(2)
            )
        current().switching(self)
        self.tracked = requires_grad  # type: ignore[misc]  # a slot of both subclasses
        return self

    def backward(self, gradient: Any = None, retain_graph: bool = False, create_graph: bool = False) -> None:
        """Add the gradient of this tensor to `.grad` of every leaf that it depends on."""
        FUNCTIONS["backward"](self, gradient, retain_graph, create_graph)

    def detach(self) -> Any:
        """The same value, cut off from the recorded graph."""
        return current().detach(self)

    def register_hook(self, hook: Callable[[Any], Any]) -> Callable[[], None]:
        """Call `hook(gradient)` when this tensor's gradient is complete; a result replaces it. Returns a remover."""
        if not callable(hook):
            raise ArgumentError(f"register_hook: got {shown(hook)}; a hook is a function of the gradient; pass one").at(
                here(2)
            )
        if not self.tracked:
            raise GradientError("register_hook: the tensor needs no gradient; set requires_grad=True first").at(here(2))
        if self.call is not None and self.call.op.no_gradient:
            raise GradientError(f"register_hook: {self.call.op.no_gradient}").at(here(2))
        if self.call is None:
            current().switching(self)
            if self.hooks is None:
                self.hooks = []
            hooks = self.hooks
        else:
            if self.call.hooks is None:
                self.call.hooks = {}
            hooks = self.call.hooks.setdefault(self.index, [])
        hooks.append(hook)

        def remove() -> None:
            if hook in hooks:
                if self.call is None:
                    current().switching(self)
                hooks.remove(hook)

        return remove

    def retain_grad(self) -> None:
        """Keep the gradient of this intermediate result in its `.grad`."""
        if self.call is not None:
            reference = weakref.ref(self)

            def keep(g: Any) -> None:
                x = reference()
                if x is not None:
                    held = x.grad
                    x.grad = g if held is None else held + g

            self.register_hook(keep)

    def sum(self, axis: Any = None, **options: Any) -> Any:
        """See `dualgraph.sum`."""
        return FUNCTIONS["sum"](self, axis=axis, **(options and _ours(options)))

    def prod(self, axis: Any = None, **options: Any) -> Any:
        """See `dualgraph.prod`."""
        return FUNCTIONS["prod"](self, axis=axis, **(options and _ours(options)))

    def mean(self, axis: Any = None, **options: Any) -> Any:
        """See `dualgraph.mean`."""
        return FUNCTIONS["mean"](self, axis=axis, **(options and _ours(options)))

    def var(self, axis: Any = None, **options: Any) -> Any:
        """See `dualgraph.var`."""
        return FUNCTIONS["var"](self, axis=axis, **(options and _ours(options)))

    def std(self, axis: Any = None, **options: Any) -> Any:
        """See `dualgraph.std`."""
        return FUNCTIONS["std"](self, axis=axis, **(options and _ours(options)))

    def max(self, axis: Any = None, **options: Any) -> Any:
        """See `dualgraph.max`."""
        return FUNCTIONS["max"](self, axis=axis, **(options and _ours(options)))

    def min(self, axis: Any = None, **options: Any) -> Any:
        """See `dualgraph.min`."""
        return FUNCTIONS["min"](self, axis=axis, **(options and _ours(options)))

    def any(self, axis: Any = None, **options: Any) -> Any:
        """See `dualgraph.any`."""
        return FUNCTIONS["any"](self, axis=axis, **(options and _ours(options)))

    def all(self, axis: Any = None, **options: Any) -> Any:
        """See `dualgraph.all`."""
        return FUNCTIONS["all"](self, axis=axis, **(options and _ours(options)))

    def argmax(self, axis: Any = None, **options: Any) -> Any:
        """See `dualgraph.argmax`."""
        return FUNCTIONS["argmax"](self, axis=axis, **(options and _ours(options)))

    def argmin(self, axis: Any = None, **options: Any) -> Any:
        """See `dualgraph.argmin`."""
        return FUNCTIONS["argmin"](self, axis=axis, **(options and _ours(options)))

    def logsumexp(self, axis: Any = None, **options: Any) -> Any:
        """See `dualgraph.logsumexp`."""
        return FUNCTIONS["logsumexp"](self, axis=axis, **(options and _ours(options)))

    def exp(self) -> Any:
        """See `dualgraph.exp`."""
        return FUNCTIONS["exp"](self)

    def log(self) -> Any:
        """See `dualgraph.log`."""
        return FUNCTIONS["log"](self)

    def sqrt(self) -> Any:
        """See `dualgraph.sqrt`."""
        return FUNCTIONS["sqrt"](self)

    def tanh(self) -> Any:
        """See `dualgraph.tanh`."""
        return FUNCTIONS["tanh"](self)

    def sigmoid(self) -> Any:
        """See `dualgraph.sigmoid`."""
        return FUNCTIONS["sigmoid"](self)

    def relu(self) -> Any:
        """See `dualgraph.relu`."""
        return FUNCTIONS["relu"](self)

    def square(self) -> Any:
        """See `dualgraph.square`."""
        return FUNCTIONS["square"](self)

    def sin(self) -> Any:
        """See `dualgraph.sin`."""
        return FUNCTIONS["sin"](self)

    def cos(self) -> Any:
        """See `dualgraph.cos`."""
        return FUNCTIONS["cos"](self)

    def abs(self) -> Any:
        """See `dualgraph.abs`."""
        return FUNCTIONS["abs"](self)

    def permute_dims(self, axes: Sequence[int]) -> Any:
        """See `dualgraph.permute_dims`."""
        return FUNCTIONS["permute_dims"](self, axes)

    def swapaxes(self, axis1: int, axis2: int) -> Any:
        """See `dualgraph.swapaxes`."""
        return FUNCTIONS["swapaxes"](self, axis1, axis2)

    def expand_dims(self, axis: int) -> Any:
        """See `dualgraph.expand_dims`."""
        return FUNCTIONS["expand_dims"](self, axis)

    def squeeze(self, axis: int | Sequence[int] | None = None) -> Any:
        """See `dualgraph.squeeze`."""
        return FUNCTIONS["squeeze"](self, axis)

    def flatten(self, start_axis: int = 0, end_axis: int = -1) -> Any:
        """See `dualgraph.flatten`."""
        return FUNCTIONS["flatten"](self, start_axis, end_axis)

    def broadcast_to(self, shape: Sequence[int]) -> Any:
        """See `dualgraph.broadcast_to`."""
        return FUNCTIONS["broadcast_to"](self, shape)

    def softmax(self, axis: int = -1) -> Any:
        """See `dualgraph.softmax`."""
        return FUNCTIONS["softmax"](self, axis)

    def clip(self, min: Any = None, max: Any = None) -> Any:
        """See `dualgraph.clip`."""
        return FUNCTIONS["clip"](self, min, max)


def _ours(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a reduction as `np.sum(x)` and its like pass them: without empty ones, and by our names."""
    ours = {name: value for name, value in options.items() if value is not None or name not in ("out", "dtype")}
    return {"correction" if name == "ddof" else name: value for name, value in ours.items()}


def check_gradient(g: Any, spec: Spec) -> None:
    """What `.grad` of a tensor takes: nothing, or a tensor of its shape and dtype."""
    if g is None:
        return
    if not isinstance(g, Tensor):
        raise DTypeError(f"grad: got {type(g).__name__}; it must be a tensor or None").at(here(3))
    if g.spec != spec:
        raise ShapeError(f"grad: got {g.spec} for a tensor of {spec}; shape and dtype must be equal").at(here(3))


def check_assigned(variable: Tensor, value: Tensor) -> None:
    """Only variables take new values, and only those of their own shape and dtype."""
    if not variable.is_variable:
        raise GraphError(
            f"assign: got a plain tensor ({variable.spec}); tensors are values, the arguments and results of a graph, too; "
            "make the state a dualgraph.Variable, an nn.Parameter or a registered buffer, outside, and use it in the function"
        )
    if value.shape != variable.shape:
        raise ShapeError(
            f"assign: got shape {value.shape} for a variable of shape {variable.shape}; they must be equal"
        )
    if value.layout[1] != variable.layout[1]:
        raise DTypeError(f"assign: got {value.layout[1]} for a variable of {variable.layout[1]}; cast the value first")
