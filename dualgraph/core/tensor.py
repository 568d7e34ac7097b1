"""What tensors of both modes have in common: operators and methods, each one line over the public operations.

`Value`, which holds its elements, and `Symbol`, which stands for them, derive from `Tensor`; a model never asks which of
the two it has. This file stands below the operations: it calls them through `FUNCTIONS`, which `ops` and `autodiff` fill
with their public names.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsIndex, TypeGuard, Unpack, overload

import numpy as np

from dualgraph.core.mode import current
from dualgraph.device import CPU, device_named
from dualgraph.dtypes import NUMPY_DTYPES
from dualgraph.errors import ArgumentError, DTypeError, GradientError, GraphError, ShapeError, here, shown
from dualgraph.spec import Shape, Spec, is_float

if TYPE_CHECKING:
    from dualgraph.core.op import Call
    from dualgraph.core.types import (
        Array,
        ArrayLike,
        Axis,
        DeviceName,
        DTypeLike,
        FoldOptions,
        Key,
        Layout,
        Leaf,
        Scalar,
        ShapeLike,
        SpreadOptions,
        SumOptions,
        TensorHook,
    )

FUNCTIONS: dict[str, Callable[..., Tensor]] = {}


class Tensor:
    """What operations accept and return: a value in dynamic mode, a symbol while a function is traced.

    Made by `dualgraph.tensor` and by operations. `grad` holds the gradient after `backward`.

    >>> import dualgraph as dg
    >>> isinstance(dg.tensor([1.0]), dg.Tensor)
    True
    """

    __slots__ = ()

    is_variable: bool = False  # whether the value may be replaced: a graph reads it by reference
    __array_ufunc__: Any = None  # NumPy leaves mixed expressions to our reflected operators
    layout: Layout
    source: Leaf | None  # the tensor to whose gradient this one's belongs, if that is another one
    tracked: bool  # what `requires_grad` says, without its door
    call: Call | None
    hooks: list[Registered] | None
    index: int

    if TYPE_CHECKING:  # of values and symbols in their own ways

        @property
        def grad(self) -> Tensor | None:
            """The gradient accumulated by `backward`; None before."""

        @grad.setter
        def grad(self, g: Tensor | None) -> None: ...

        def numpy(self) -> Array:
            """The values as a NumPy array, without copying; of a symbol an error."""

        def item(self) -> Scalar:
            """The single element as a Python number; of a symbol an error."""

        def tolist(self) -> Any:
            """The values as nested lists; of a symbol an error."""

        def __int__(self) -> int: ...
        def __float__(self) -> float: ...

    def __init__(self, *data: object, **options: object):
        raise ArgumentError("Tensor: got a call of the class; tensors are made from data by dualgraph.tensor(data)").at(
            here(2)
        )

    @property
    def spec(self) -> Spec:
        """Shape and dtype."""
        layout = self.layout
        return Spec(layout.shape, layout.dtype)

    def in_words(self) -> str:
        """The tensor in messages: the same in both modes."""
        return f"a tensor of {self.spec}"

    @property
    def shape(self) -> Shape:
        """Length of each axis."""
        return self.layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as NumPy names it."""
        return NUMPY_DTYPES[self.layout.dtype]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.layout.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.spec.size

    @property
    def device(self) -> str:
        """Where the values are: "cpu"."""
        return CPU.name

    def to(self, device: DeviceName) -> Tensor:
        """The tensor on a device. Only "cpu" is available in this version."""
        device_named("to", device)
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self.call is None

    def __add__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["add"](self, other)

    def __radd__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["add"](other, self)

    def __sub__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["subtract"](self, other)

    def __rsub__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["subtract"](other, self)

    def __mul__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["multiply"](self, other)

    def __rmul__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["multiply"](other, self)

    def __truediv__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["divide"](self, other)

    def __rtruediv__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["divide"](other, self)

    def __floordiv__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["floor_divide"](self, other)

    def __rfloordiv__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["floor_divide"](other, self)

    def __mod__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["remainder"](self, other)

    def __rmod__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["remainder"](other, self)

    def __pow__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["power"](self, other)

    def __rpow__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["power"](other, self)

    def __matmul__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["matmul"](self, other)

    def __rmatmul__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["matmul"](other, self)

    def __and__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["bitwise_and"](self, other)

    def __rand__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["bitwise_and"](other, self)

    def __or__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["bitwise_or"](self, other)

    def __ror__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["bitwise_or"](other, self)

    def __xor__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["bitwise_xor"](self, other)

    def __rxor__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["bitwise_xor"](other, self)

    def __lshift__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["bitwise_left_shift"](self, other)

    def __rlshift__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["bitwise_left_shift"](other, self)

    def __rshift__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["bitwise_right_shift"](self, other)

    def __rrshift__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["bitwise_right_shift"](other, self)

    def __lt__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["less"](self, other)

    def __le__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["less_equal"](self, other)

    def __gt__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["greater"](self, other)

    def __ge__(self, other: ArrayLike) -> Tensor:
        return FUNCTIONS["greater_equal"](self, other)

    @overload  # type: ignore[override]  # an array of answers, not one
    def __eq__(self, other: None) -> Literal[False]: ...
    @overload
    def __eq__(self, other: ArrayLike) -> Tensor: ...
    def __eq__(self, other: ArrayLike | None) -> Tensor | bool:
        return False if other is None else FUNCTIONS["equal"](self, other)

    @overload  # type: ignore[override]  # an array of answers, not one
    def __ne__(self, other: None) -> Literal[True]: ...
    @overload
    def __ne__(self, other: ArrayLike) -> Tensor: ...
    def __ne__(self, other: ArrayLike | None) -> Tensor | bool:
        return True if other is None else FUNCTIONS["not_equal"](self, other)

    if TYPE_CHECKING:

        def __hash__(self) -> int: ...
    else:
        __hash__ = object.__hash__

    def __neg__(self) -> Tensor:
        return FUNCTIONS["negative"](self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return FUNCTIONS["abs"](self)

    def __invert__(self) -> Tensor:
        return FUNCTIONS["bitwise_invert"](self)

    def __getitem__(self, key: Key) -> Tensor:
        return FUNCTIONS["getitem"](self, key)

    if not TYPE_CHECKING:  # for whom there is none

        def __setitem__(self, key: Key, value: ArrayLike) -> None:
            raise ArgumentError(
                f"x[{shown(key)}] = …: tensors are values and cannot be written to; build the new value with dg.where, "
                "dg.concat or arithmetic, and keep state in an nn.Parameter or a buffer"
            ).at(here(2))

    def assign(self, value: ArrayLike) -> None:
        """Only variables take new values."""
        try:
            check_assigned(self, self)
        except GraphError as error:
            raise error.at(here(2)) from None

    def __len__(self) -> int:
        shape = self.layout.shape
        if not shape:
            raise ShapeError("len(): got a tensor of shape (); a scalar has no length").at(here(2))
        return shape[0]

    def __contains__(self, value: ArrayLike) -> bool:
        found = self == value
        return bool(FUNCTIONS["any"](found)) if isinstance(found, Tensor) else bool(found)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape: ShapeLike) -> Tensor:
        """See `dualgraph.reshape`; the lengths as one tuple or one by one."""
        return FUNCTIONS["reshape"](self, shape[0] if len(shape) == 1 else shape)

    def astype(self, dtype: DTypeLike) -> Tensor:
        """See `dualgraph.astype`."""
        return FUNCTIONS["astype"](self, dtype)

    @property
    def T(self) -> Tensor:
        """The transpose of a matrix."""
        if len(self.layout.shape) != 2:
            raise ShapeError(f".T: got shape {self.layout.shape}; it is defined for 2 axes; use mT or permute_dims")
        return FUNCTIONS["matrix_transpose"](self)

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        return FUNCTIONS["matrix_transpose"](self)

    @property
    def requires_grad(self) -> bool:
        """Whether gradients with respect to this tensor are recorded; setting it is `requires_grad_`."""
        return self.tracked

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        self.requires_grad_(requires_grad)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switch gradient tracking of a leaf; returns the tensor."""
        if not isinstance(requires_grad, bool):
            raise ArgumentError(
                f"requires_grad_: got {shown(requires_grad)}; it must be True or False; pass one of them"
            ).at(here(2))
        if requires_grad and not is_float(self.layout.dtype):
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

    def backward(
        self, gradient: ArrayLike | None = None, retain_graph: bool = False, create_graph: bool = False
    ) -> None:
        """Add the gradient of this tensor to `.grad` of every leaf that it depends on."""
        FUNCTIONS["backward"](self, gradient, retain_graph, create_graph)

    def detach(self) -> Tensor:
        """The same value, cut off from the recorded graph."""
        return current().detach(self)

    def register_hook(self, hook: TensorHook) -> Callable[[], None]:
        """Call `hook(gradient)` when this tensor's gradient is complete; a result replaces it. Returns a remover."""
        if not callable(hook):
            raise ArgumentError(f"register_hook: got {shown(hook)}; a hook is a function of the gradient; pass one").at(
                here(2)
            )
        if not self.tracked:
            raise GradientError("register_hook: the tensor needs no gradient; set requires_grad=True first").at(here(2))
        if self.call is not None and self.call.op.no_gradient:
            raise GradientError(f"register_hook: {self.call.op.no_gradient}").at(here(2))
        hooks: list[Any]
        if self.call is None:
            current().switching(self)
            if self.hooks is None:
                self.hooks = []  # type: ignore[misc]  # a slot of both subclasses
            hooks = self.hooks
        else:
            current().lift(self)
            if self.call.hooks is None:
                self.call.hooks = {}
            hooks = self.call.hooks.setdefault(self.index, [])
        entry: Any = hook if is_retaining(hook) else Registered(hook)
        hooks.append(entry)
        return Remover(self, hooks, entry)

    def retain_grad(self) -> None:
        """Keep the gradient of this intermediate result in its `.grad`, as a leaf does; asking twice changes nothing."""
        if not self.tracked:
            raise GradientError("retain_grad: the tensor needs no gradient; set requires_grad=True first").at(here(2))
        if self.call is None:
            return
        hooks = (self.call.hooks or {}).get(self.index, ())
        if not any(is_retaining(hook) and hook.reference() is self for hook in hooks):
            self.register_hook(Retaining(self))

    def sum(self, axis: Axis = None, **options: Unpack[SumOptions]) -> Tensor:
        """See `dualgraph.sum`."""
        return FUNCTIONS["sum"](self, axis=axis, **(options and _ours(options)))

    def prod(self, axis: Axis = None, **options: Unpack[SumOptions]) -> Tensor:
        """See `dualgraph.prod`."""
        return FUNCTIONS["prod"](self, axis=axis, **(options and _ours(options)))

    def mean(self, axis: Axis = None, **options: Unpack[FoldOptions]) -> Tensor:
        """See `dualgraph.mean`."""
        return FUNCTIONS["mean"](self, axis=axis, **(options and _ours(options)))

    def var(self, axis: Axis = None, **options: Unpack[SpreadOptions]) -> Tensor:
        """See `dualgraph.var`."""
        return FUNCTIONS["var"](self, axis=axis, **(options and _ours(options)))

    def std(self, axis: Axis = None, **options: Unpack[SpreadOptions]) -> Tensor:
        """See `dualgraph.std`."""
        return FUNCTIONS["std"](self, axis=axis, **(options and _ours(options)))

    def max(self, axis: Axis = None, **options: Unpack[FoldOptions]) -> Tensor:
        """See `dualgraph.max`."""
        return FUNCTIONS["max"](self, axis=axis, **(options and _ours(options)))

    def min(self, axis: Axis = None, **options: Unpack[FoldOptions]) -> Tensor:
        """See `dualgraph.min`."""
        return FUNCTIONS["min"](self, axis=axis, **(options and _ours(options)))

    def any(self, axis: Axis = None, **options: Unpack[FoldOptions]) -> Tensor:
        """See `dualgraph.any`."""
        return FUNCTIONS["any"](self, axis=axis, **(options and _ours(options)))

    def all(self, axis: Axis = None, **options: Unpack[FoldOptions]) -> Tensor:
        """See `dualgraph.all`."""
        return FUNCTIONS["all"](self, axis=axis, **(options and _ours(options)))

    def argmax(self, axis: SupportsIndex | None = None, **options: Unpack[FoldOptions]) -> Tensor:
        """See `dualgraph.argmax`."""
        return FUNCTIONS["argmax"](self, axis=axis, **(options and _ours(options)))

    def argmin(self, axis: SupportsIndex | None = None, **options: Unpack[FoldOptions]) -> Tensor:
        """See `dualgraph.argmin`."""
        return FUNCTIONS["argmin"](self, axis=axis, **(options and _ours(options)))

    def argsort(self, axis: SupportsIndex = -1, *, descending: bool = False, stable: bool = True) -> Tensor:
        """See `dualgraph.argsort`."""
        return FUNCTIONS["argsort"](self, axis=axis, descending=descending, stable=stable)

    def sort(self, axis: SupportsIndex = -1, *, descending: bool = False, stable: bool = True) -> Tensor:
        """See `dualgraph.sort`. A new tensor: values never change."""
        return FUNCTIONS["sort"](self, axis=axis, descending=descending, stable=stable)

    def logsumexp(self, axis: Axis = None, **options: Unpack[FoldOptions]) -> Tensor:
        """See `dualgraph.logsumexp`."""
        return FUNCTIONS["logsumexp"](self, axis=axis, **(options and _ours(options)))

    def exp(self) -> Tensor:
        """See `dualgraph.exp`."""
        return FUNCTIONS["exp"](self)

    def log(self) -> Tensor:
        """See `dualgraph.log`."""
        return FUNCTIONS["log"](self)

    def sqrt(self) -> Tensor:
        """See `dualgraph.sqrt`."""
        return FUNCTIONS["sqrt"](self)

    def tanh(self) -> Tensor:
        """See `dualgraph.tanh`."""
        return FUNCTIONS["tanh"](self)

    def sigmoid(self) -> Tensor:
        """See `dualgraph.sigmoid`."""
        return FUNCTIONS["sigmoid"](self)

    def relu(self) -> Tensor:
        """See `dualgraph.relu`."""
        return FUNCTIONS["relu"](self)

    def square(self) -> Tensor:
        """See `dualgraph.square`."""
        return FUNCTIONS["square"](self)

    def sin(self) -> Tensor:
        """See `dualgraph.sin`."""
        return FUNCTIONS["sin"](self)

    def cos(self) -> Tensor:
        """See `dualgraph.cos`."""
        return FUNCTIONS["cos"](self)

    def abs(self) -> Tensor:
        """See `dualgraph.abs`."""
        return FUNCTIONS["abs"](self)

    def permute_dims(self, axes: Sequence[int]) -> Tensor:
        """See `dualgraph.permute_dims`."""
        return FUNCTIONS["permute_dims"](self, axes)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        """See `dualgraph.swapaxes`."""
        return FUNCTIONS["swapaxes"](self, axis1, axis2)

    def expand_dims(self, axis: int) -> Tensor:
        """See `dualgraph.expand_dims`."""
        return FUNCTIONS["expand_dims"](self, axis)

    def squeeze(self, axis: Axis = None) -> Tensor:
        """See `dualgraph.squeeze`."""
        return FUNCTIONS["squeeze"](self, axis)

    def flatten(self, start_axis: int = 0, end_axis: int = -1) -> Tensor:
        """See `dualgraph.flatten`."""
        return FUNCTIONS["flatten"](self, start_axis, end_axis)

    def broadcast_to(self, shape: ShapeLike) -> Tensor:
        """See `dualgraph.broadcast_to`."""
        return FUNCTIONS["broadcast_to"](self, shape)

    def softmax(self, axis: int = -1) -> Tensor:
        """See `dualgraph.softmax`."""
        return FUNCTIONS["softmax"](self, axis)

    def clip(self, min: ArrayLike | None = None, max: ArrayLike | None = None) -> Tensor:
        """See `dualgraph.clip`."""
        return FUNCTIONS["clip"](self, min, max)


class Registered:
    """A hook as it was registered: that of one registration, though the same function may be registered twice."""

    __slots__ = ("hook",)

    def __init__(self, hook: TensorHook):
        self.hook = hook

    def __call__(self, g: Tensor) -> Tensor | None:
        return self.hook(g)

    def __eq__(self, other: object) -> bool:
        """Of the same function, by identity: what a user's `==` would say is not asked."""
        return isinstance(other, Registered) and _same_function(self.hook, other.hook)

    __hash__ = None  # type: ignore[assignment]  # equal ones are not one


class Remover:
    """Takes a hook off when it is called; may be called again. Copied tensors have no hooks, so a copy takes none off."""

    __slots__ = ("_entry", "_hooks", "_tensor")

    def __init__(self, tensor: Tensor | None = None, hooks: list[Any] | None = None, entry: object = None):
        self._tensor, self._hooks, self._entry = tensor, hooks or [], entry

    def __call__(self) -> None:
        for number, held in enumerate(self._hooks):
            if held is self._entry:
                if self._tensor is not None and self._tensor.call is None:
                    current().switching(self._tensor)
                del self._hooks[number]
                return

    def __reduce__(self) -> tuple[object, ...]:
        return Remover, ()


class Retaining:
    """The hook by which an intermediate result keeps its gradient."""

    __slots__ = ("reference",)

    def __init__(self, result: Tensor):
        self.reference = weakref.ref(result)

    def __call__(self, g: Tensor) -> None:
        x = self.reference()
        if x is not None:
            held = x.grad
            x.grad = g if held is None else held + g


def _same_function(f: object, g: object) -> bool:
    if isinstance(f, MethodType) and isinstance(g, MethodType):  # which is made anew each time
        return f.__self__ is g.__self__ and f.__func__ is g.__func__
    return f is g


def is_retaining(hook: object) -> TypeGuard[Retaining]:
    """Whether a hook only keeps the gradient, as it is after all others."""
    return isinstance(hook, Retaining)


def _ours(options: Mapping[str, object]) -> dict[str, object]:
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
    if value.layout.dtype != variable.layout.dtype:
        raise DTypeError(
            f"assign: got {value.layout.dtype} for a variable of {variable.layout.dtype}; cast the value first"
        )
