"""What a reduction folds with: one record for each monoid, and everything that is known of it.

The order of a fold is the same for all of them (`kernels.reference.folds`); how two values are joined is a scalar
instruction, so no lowering needs a row of its own for a monoid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dualgraph.dtypes import DTYPES, STORED
from dualgraph.errors import ArgumentError, DTypeError, shown
from dualgraph.spec import DEFAULT_INTEGER, is_float

LOWEST, HIGHEST = object(), object()  # of the integers that a dtype holds


class Monoid(NamedTuple):
    """A row of `MONOIDS`."""

    instruction: str  # joins two values
    identities: Mapping[str, Any]  # by the kind of the dtype: e with `e op x == x`, in bits
    nothing: Any  # the result of no elements; None: there is none
    result: Callable[[str], str]  # the dtype in which elements of a dtype are folded

    def identity(self, dtype: str) -> Any:
        """The value that changes no other.

        >>> MONOIDS["sum"].identity("float32"), MONOIDS["max"].identity("int32"), MONOIDS["all"].identity("bool")
        (-0.0, -2147483648, True)
        """
        record = DTYPES[dtype]
        if record.kind not in self.identities or dtype in STORED:
            raise DTypeError(
                f"{self.instruction}: got a fold of {dtype}; it folds {' and '.join(self.identities)}; cast first"
            )
        found = self.identities[record.kind]
        return record.lowest if found is LOWEST else record.highest if found is HIGHEST else found

    def of_nothing(self, dtype: str) -> Any:
        """The fold of no elements; where it is undefined (ops refuse it) the identity."""
        return self.identity(dtype) if self.nothing is None else self.nothing


def _wide(dtype: str) -> str:
    """Sums of small integers do not wrap."""
    return dtype if is_float(dtype) else DEFAULT_INTEGER


def _same(dtype: str) -> str:
    return dtype


def _bool(dtype: str) -> str:
    return "bool"


MONOIDS: dict[str, Monoid] = {
    "sum": Monoid("add", {"bool": False, "integer": 0, "float": -0.0}, 0, _wide),
    "prod": Monoid("mul", {"bool": True, "integer": 1, "float": 1.0}, 1, _wide),
    "max": Monoid("maximum", {"bool": False, "integer": LOWEST, "float": -math.inf}, None, _same),
    "min": Monoid("minimum", {"bool": True, "integer": HIGHEST, "float": math.inf}, None, _same),
    "any": Monoid("bitwise_or", {"bool": False}, False, _bool),
    "all": Monoid("bitwise_and", {"bool": True}, True, _bool),
}


def monoid(name: str) -> Monoid:
    """The record of a monoid."""
    found = MONOIDS.get(name)
    if found is None:
        raise ArgumentError(f"got monoid {shown(name)}; there is none of this name; known are {', '.join(MONOIDS)}")
    return found
