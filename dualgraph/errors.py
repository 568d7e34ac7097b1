"""The exceptions of dualgraph. Every message says what was got, what the rule is, and what to do.

    DualgraphError
    ├── ShapeError (ValueError)         shapes do not fit the operation
    ├── DTypeError (TypeError)          dtypes do not fit, or data cannot be a tensor
    ├── AxisError (IndexError)          an axis that the tensor does not have
    ├── RangeError (IndexError)         an index or label outside its range
    ├── ArgumentError (ValueError)      another argument outside its rule
    ├── GradientError (RuntimeError)    a gradient that cannot be computed
    ├── GraphError (RuntimeError)       misuse of a static graph or of its symbols
    ├── SymbolError (TypeError)         a symbol used where a value is needed
    ├── FeedError (ValueError)          missing, extra or unfit arguments of a compiled graph
    ├── OutOfMemoryError (MemoryError)  a result larger than the memory that is left
    └── KernelError (RuntimeError)      the kernel layer cannot serve a request

The same class and message are raised in both modes; the last line names the user's own line: in static mode the one
which defined the operation.
"""

from __future__ import annotations

import os
import re
import reprlib
import sys
from types import CodeType
from typing import Any, NamedTuple

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
# Parts of the package that are written as a user would write them.
_USER_CODE = (os.path.join(_PACKAGE, "models") + os.sep, os.path.join(_PACKAGE, "compare", "workloads.py"))
# Parts of the standard library that stand between the user and us.
_BETWEEN = {
    os.path.join(os.path.dirname(os.__file__), f"{n}.py") for n in ("contextlib", "copy", "functools", "pickle")
}
_NUMPY = os.path.join("-packages", "numpy", "")  # whose functions make arrays of what they are given
_internal: dict[str, bool] = {}  # by file: the hash of a code object costs more than the rest
_new_tuple = tuple.__new__


class Where(NamedTuple):
    """A place in the user's program. The line number is looked up only when asked for."""

    code: CodeType
    instruction: int

    @property
    def file(self) -> str:
        return self.code.co_filename

    @property
    def line(self) -> int:
        for start, end, line in self.code.co_lines():
            if start <= self.instruction < end and line is not None:
                return line
        return self.code.co_firstlineno

    @property
    def function(self) -> str:
        return self.code.co_name

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"

    def __reduce__(self) -> tuple[type[Place], tuple[str, int, str]]:
        return Place, (self.file, self.line, self.function)


class Place(NamedTuple):
    """A `Where` in plain words: what is left of it in another process, where its code is not."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def is_internal(file: str) -> bool:
    """Whether a file is dualgraph's own code (its built-in models count as the user's)."""
    internal = _internal.get(file)
    if internal is None:
        internal = file.startswith(_PACKAGE) and not file.startswith(_USER_CODE)
        internal = internal or file.startswith("<frozen") or file in _BETWEEN or _NUMPY in file
        _internal[file] = internal
    return internal


def here(depth: int = 1) -> Where | None:
    """The innermost place on the stack that is not dualgraph's own code."""
    frame = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        internal = _internal.get(code.co_filename)
        if internal is None:
            internal = is_internal(code.co_filename)
        if not internal:
            return _new_tuple(Where, (code, frame.f_lasti))
        frame = frame.f_back  # type: ignore[assignment]
    return None


class DualgraphError(Exception):
    """Base of all errors raised by dualgraph. `where` is the user's own place: the line that ran, unless `at` names another."""

    def __init__(self, *args: object):
        super().__init__(*args)
        self.where: Where | Place | None = here(2)

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  at {self.where}" if self.where is not None else message

    def at(self, where: Where | None) -> DualgraphError:
        """Name the user's place, such as that of the call which was recorded; None keeps the one known."""
        self.where = where or self.where
        return self


class ShapeError(DualgraphError, ValueError):
    """Shapes do not fit the operation."""


class DTypeError(DualgraphError, TypeError):
    """Dtypes do not fit the operation, or the data cannot be made a tensor."""


class AxisError(DualgraphError, IndexError):
    """An axis that the tensor does not have, or the same axis twice."""


class RangeError(DualgraphError, IndexError):
    """An index or label outside its range."""


class ArgumentError(DualgraphError, ValueError):
    """An argument outside its rule."""


class GradientError(DualgraphError, RuntimeError):
    """A gradient that cannot be computed."""


class GraphError(DualgraphError, RuntimeError):
    """Misuse of a static graph or of its symbols."""


class SymbolError(DualgraphError, TypeError):
    """A symbol (a value not computed yet) used where a value is needed."""


class FeedError(DualgraphError, ValueError):
    """Missing, extra or unfit arguments of a compiled graph."""


class OutOfMemoryError(DualgraphError, MemoryError):
    """A result larger than the memory that is left."""


class KernelError(DualgraphError, RuntimeError):
    """The kernel layer cannot serve a request."""


class RecompileWarning(UserWarning):
    """A function is traced and compiled again and again: right, and slow."""


class CacheWarning(UserWarning):
    """The cache of machine code is damaged or cannot be written: costs time, never correctness."""


class _Words(reprlib.Repr):
    """Values as messages show them: short, whatever they are, and the same in both modes."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxother, self.maxstring = 4, 100, 100
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = 12

    def repr1(self, x: Any, level: int) -> str:
        if hasattr(type(x), "in_words"):  # a tensor of either mode
            return str(x.in_words())
        return " ".join(super().repr1(x, level).split())

    def repr_instance(self, x: Any, level: int) -> str:
        return re.sub(" at 0x[0-9a-fA-F]+", "", super().repr_instance(x, level))  # an address says nothing

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 512 else f"an integer of {x.bit_length()} bits"

    def repr_ndarray(self, x: Any, level: int) -> str:
        return self.repr_instance(x, level) if x.size <= 8 else f"an array of {x.dtype}{list(x.shape)}"


shown = _Words().repr
