"""Values: the tensors that hold their elements, and variables among them, which both modes share.

A value is a window (`layout`) on a storage, a flat or shaped C-contiguous array that is never written to again while
anybody else can see it. So views are free, `numpy()` needs no copy, and nothing that was saved can change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgraph.core.arguments import flag
from dualgraph.core.arrays import as_array, copied
from dualgraph.core.layout import Layout, array_of
from dualgraph.core.mode import current, default
from dualgraph.core.op import Call
from dualgraph.core.tensor import Registered, Tensor, check_gradient
from dualgraph.device import CPU, Storage
from dualgraph.dtypes import DTYPES, STORED, widened
from dualgraph.errors import DTypeError, GradientError, ShapeError, SymbolError, here
from dualgraph.exact import stored_slots
from dualgraph.spec import DEFAULT_FLOAT, DEFAULT_INTEGER, Spec, is_float

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, DTypeLike, Leaf, Scalar

Array = np.ndarray[Any, Any]
UNSAID = ("bool", DEFAULT_INTEGER, DEFAULT_FLOAT)  # dtypes that the values tell


def _read_only(array: Array) -> Array:
    """Its memory as an array that can never be written to: unlike a view, it has no array as its base that would allow it."""
    window: Array = np.from_dlpack(array)
    window.setflags(write=False)
    return window


class Value(Tensor):
    """An n-dimensional array that remembers how it was computed.

    Made by `dualgraph.tensor` and by operations. `grad` holds the gradient after `backward`.
    """

    __slots__ = ("__weakref__", "_grad", "call", "hooks", "index", "layout", "storage", "tracked")

    storage: Storage
    layout: Layout
    tracked: bool
    call: Call | None
    index: int
    source: Leaf | None = None  # symbols and earlier values may stand for a tensor; tensors stand for themselves

    def __init__(
        self,
        storage: Storage,
        layout: Layout,
        requires_grad: bool = False,
        call: Call | None = None,
        index: int = -1,
    ):
        self.storage, self.layout, self.tracked, self.call, self.index = (
            storage,
            layout,
            requires_grad,
            call,
            index,
        )
        self._grad: Any = None
        self.hooks: list[Registered] | None = None

    @property
    def grad(self) -> Tensor | None:
        """The gradient accumulated by `backward`; None before."""
        return current().get_grad(self)

    @grad.setter
    def grad(self, g: Tensor | None) -> None:
        if g is not None and (g.__class__ is not Value or g.layout != self.layout):
            check_gradient(g, self.spec)
        current().set_grad(self, g)

    def held_gradient(self) -> Tensor | None:
        """What `.grad` holds outside of graphs. Compiled steps leave arrays, which become tensors when looked at."""
        g = self._grad
        if g.__class__ is np.ndarray:
            made = Value(g, Spec(self.layout.shape, self.layout.dtype))
            if self._grad is g:  # else a step of another thread left another; nothing comes between test and store
                self._grad = made
            return made
        return g  # type: ignore[no-any-return]

    def _value_now(self) -> None:
        """Reading the value of what a graph reads at every run would bake it in."""
        if self.tracked:
            _refuse_while_tracing(self)

    def numpy(self) -> Array:
        """The values as a NumPy array, without copying. It is read-only for good; `.copy()` is an ordinary one."""
        self._value_now()
        array = array_of(self.storage, self.layout)
        if self.layout.dtype in STORED:  # which DLPack does not take; but its bits
            return _read_only(array.view(f"u{array.itemsize}")).view(array.dtype)
        return _read_only(array)

    def item(self) -> Scalar:
        """The single element as a Python number."""
        self._value_now()
        if self.size != 1:
            raise ShapeError(f"item(): got shape {self.shape}; only a tensor of one element is a number").at(here(2))
        return array_of(self.storage, self.layout).item()  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        """The values as nested lists."""
        self._value_now()
        return array_of(self.storage, self.layout).tolist()

    if not TYPE_CHECKING:  # or NumPy's types took `array * tensor` for an array

        def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> Array:
            array = self.numpy()
            return array if dtype is None and not copy else np.array(array, dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        """A copy: whoever gets it may write to it."""
        if options.get("copy") is False:  # what the protocol asks for
            raise BufferError(
                "DLPack: got copy=False; tensors are values, and what is exported could be written to; copy"
            )
        if self.layout.dtype in STORED:
            raise BufferError(
                f"DLPack: got {self.spec}; NumPy, which exports it, knows no {self.layout.dtype} there; cast with "
                f"astype(x, '{DTYPES[self.layout.dtype].compute}') first"
            )
        return self.numpy().copy().__dlpack__(**{**options, "copy": None})

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU.kind, CPU.index

    def __reduce__(self) -> tuple[object, ...]:
        """Copied and pickled by value: what was recorded stays behind, so a tensor that has a history is refused."""
        if self.call is not None:
            raise GradientError(
                f"copy: got a tensor ({self.spec}) that was computed and still has its history, which cannot be copied; "
                "detach() it first"
            ).at(here(2))
        held = self.held_gradient()
        state = (CPU.copy(array_of(self.storage, self.layout)), self.tracked, held, self._more())
        return _remade, (type(self), *state), (getattr(self, "__dict__", None), self._slots())

    def _more(self) -> dict[str, Any]:
        """Further slots to be copied."""
        return {}

    def _slots(self) -> dict[str, Any]:
        """What a user's subclass keeps in slots of its own."""
        found: dict[str, Any] = {}
        for base in type(self).__mro__:
            if base.__module__ == __name__:
                return found
            found.update((n, getattr(self, n)) for n in stored_slots(base) if hasattr(self, n))
        return found

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if form else str(self)

    def __index__(self) -> int:
        if is_float(self.layout.dtype):
            raise DTypeError(f"use as an index: got a tensor of {self.layout.dtype}; an index is an integer").at(
                here(2)
            )
        return int(self.item())

    def __repr__(self) -> str:
        array, stored = array_of(self.storage, self.layout), self.layout.dtype in STORED
        shown, digits = (widened(array), 6) if stored else (array, None)  # as floats are, with the digits that it has
        text = np.array2string(shown, precision=digits, separator=", ", prefix="tensor(", threshold=100)
        dtype = "" if self.layout.dtype in UNSAID else f", dtype={self.layout.dtype}"
        grad = f", from {self.call.op.name}" if self.call else ", requires_grad=True" if self.tracked else ""
        return f"tensor({text}{dtype}{grad})"


class Variable(Value):
    """A leaf tensor whose value may be replaced: a parameter, a buffer, a piece of optimiser state.

    Static graphs read its value at every run and write it back; plain tensors are constants of a graph.
    """

    __slots__ = ("name",)

    is_variable = True
    name: str

    def __init__(self, value: ArrayLike, requires_grad: bool = False, name: str = ""):
        current().created(self)
        source: Any = value if isinstance(value, Value) else tensor(value)
        array = copied(array_of(source.storage, source.layout))  # its own: nobody else may see it change
        super().__init__(array, Spec(*source.spec), False)
        self.requires_grad_(flag(type(self).__name__, "requires_grad", requires_grad))
        self.name = name

    def _more(self) -> dict[str, Any]:
        return {"name": self.name}

    def _value_now(self) -> None:
        _refuse_while_tracing(self)

    def assign(self, value: ArrayLike) -> None:
        """Replace the value by another of the same shape and dtype."""
        current().assign(self, value)


class Earlier(Value):
    """What a leaf held when a call used it, for a sweep that is recorded: the leaf's gradient, and a value of its own."""

    __slots__ = ("source",)

    source: Value

    def __init__(self, leaf: Value, storage: Storage):
        self.source = leaf.source if isinstance(leaf, Earlier) else leaf
        self.storage, self.layout, self.tracked, self.call, self.index = storage, leaf.layout, True, None, -1

    @property
    def grad(self) -> Tensor | None:
        """The gradient of the leaf."""
        return self.source.grad

    @grad.setter
    def grad(self, g: Tensor | None) -> None:
        self.source.grad = g

    @property
    def hooks(self) -> list[Registered] | None:
        """The hooks of the leaf."""
        return self.source.hooks

    @hooks.setter
    def hooks(self, hooks: list[Registered] | None) -> None:
        self.source.hooks = hooks


def _owned(array: Array) -> Array:
    """An array that nobody else can write to: what is unpickled may lie in the caller's buffers."""
    return array if array.flags.owndata else array.copy()


def _remade(kind: Any, array: Array, requires_grad: bool, held: Any, more: dict[str, Any]) -> Any:
    """A copy of a tensor, made without its `__init__`."""
    x = kind.__new__(kind)
    if isinstance(x, Variable):
        current().created(x)
    Value.__init__(x, _owned(array), Spec(array.shape, array.dtype.name), requires_grad)
    x._grad = held
    for name, value in more.items():
        setattr(x, name, value)
    return x


def _refuse_while_tracing(x: Value) -> None:
    front = current()
    if front is not default() and front.lift(x) is not x:
        raise SymbolError(
            f"the value of a variable ({x.spec}) was asked for while a graph is being defined; the graph reads it anew at "
            "every run: compute with the tensor itself, or read the value outside of the traced function"
        ).at(here(3))


def tensor(
    data: ArrayLike | Sequence[Tensor], *, dtype: DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor holding a copy of `data` (numbers, nested lists, arrays, tensors).

    Python floats become float32 and integers int64; arrays keep their dtype. Raises `DTypeError` for data that no
    supported dtype can hold.

    >>> tensor([[1.0, 2.0]]).spec
    Spec(shape=(1, 2), dtype='float32')
    """
    requires_grad = flag("tensor", "requires_grad", requires_grad)
    source = data.numpy() if isinstance(data, Value) else data
    if isinstance(data, Tensor) and not isinstance(data, Value):
        data.numpy()  # a symbol: raises, saying what to do
    try:
        array = as_array(source, dtype, copy_tensors=True)
    except (DTypeError, ShapeError) as error:
        raise error.at(here(2)) from None
    result = Value(array, Spec(array.shape, array.dtype.name))
    made = current().fresh(result)
    return made.requires_grad_() if requires_grad else made
