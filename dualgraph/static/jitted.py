"""`jit`: a function compiled for each signature it meets, with the reasons why."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from dualgraph import tree
from dualgraph.core.arguments import flag
from dualgraph.core.mode import current, default
from dualgraph.core.value import Value
from dualgraph.errors import ArgumentError, here, shown
from dualgraph.exact import COMPILED, plainly
from dualgraph.spec import Spec
from dualgraph.static.compile import Compiled, warn_of_misses
from dualgraph.static.executable import Executable
from dualgraph.static.passes import Pass, chosen
from dualgraph.static.signature import Constant, Signature, differences, signature
from dualgraph.static.tracing import argument_names, name_of, tracing

if TYPE_CHECKING:
    from dualgraph.core.types import Level, Q, S, T

P = ParamSpec("P")
R = TypeVar("R")

MOST_SIGNATURES = 256  # kept of one function
_numbers = itertools.count()  # two methods may be functions of one name
MOST_SLOTTED = 64  # objects without a __dict__ whose compiled methods are kept


def jit(
    function: Callable[P, R],
    *,
    optimize: Level = "exact",
    passes: Sequence[str | Pass] | None = None,
    verify: bool = False,
) -> Jitted[P, R]:
    """A function compiled for each signature it is called with; `misses` tells why each time. Options as in `compile`.

    >>> import dualgraph as dg
    >>> double = jit(lambda x: x * 2.0)
    >>> double(dg.ones(2)).tolist(), double(dg.ones(3)).tolist()
    ([2.0, 2.0], [2.0, 2.0, 2.0])
    >>> double.misses
    ['first call', 'argument x: shape (2,) → (3,)']
    """
    if not callable(function):
        raise ArgumentError(f"jit: got {shown(function)}; pass a function").at(here(2))
    return Jitted(function, optimize, passes, flag("jit", "verify", verify))


class Jitted(Generic[P, R]):
    """A function that compiles itself for each signature; see `jit`."""

    function: Callable[P, R]
    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], optimize: Level, passes: Sequence[str | Pass] | None, verify: bool):
        self.function, self.__wrapped__ = function, function
        self.__module__ = str(plainly(function, "__module__", type(self).__module__))
        self._options = (optimize, passes, verify)
        self._passes, self._verify = chosen(optimize, passes), verify
        self._cache: dict[Signature, Compiled] = {}
        self._reasons: list[str] = []
        self._seen: dict[Any, Compiled] = {}  # by the layouts of plain tensors
        self._name = name_of(function)
        self._slotted: dict[str, Bound] = {}
        self._number = next(_numbers)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, owner: None, kind: type | None = None) -> Self: ...
    @overload
    def __get__(self: Jitted[Concatenate[S, Q], T], owner: S, kind: type | None = None) -> Jitted[Q, T]: ...
    def __get__(self, owner: Any, kind: type | None = None) -> object:
        """As a method: compiled for each object apart, and kept by the object, so that both go together."""
        if owner is None or isinstance(self.function, staticmethod):
            return self
        key = f"{COMPILED}{plainly(self.function, '__qualname__', self._name)} {self._number}>"
        held = plainly(owner, "__dict__")
        if held is None or isinstance(owner, type):  # a class, or slots only: a few of them are kept here
            held, key = self._slotted, f"{key} {id(owner)}"
            while len(held) > MOST_SLOTTED:
                del held[next(iter(held))]
        bound = held.get(key)
        if not isinstance(bound, Bound) or bound.owner is not owner or bound.method is not self:
            method = Jitted(functools.partial(self.function, owner), *self._options)
            bound = held[key] = Bound(owner, self, method)
        return bound.jitted

    def __reduce__(self) -> str | tuple[object, ...]:
        """By name, as functions are, where the name leads here (a decorator); else a copy, which starts anew."""
        path = str(plainly(self.function, "__qualname__", ""))
        found: Any = sys.modules.get(str(plainly(self.function, "__module__", "")))
        for name in path.split("."):
            found = getattr(found, name, None) if name.isidentifier() else None
        if found is self:
            return path
        return Jitted, (self.function, *self._options)

    @property
    def misses(self) -> list[str]:
        """Why the function was traced, once for each time."""
        return list(self._reasons)

    @property
    def executables(self) -> list[Executable]:
        """The executables at hand."""
        return [v.executable for c in self._cache.values() for v in c.variants]

    def __repr__(self) -> str:
        return f"<jit {plainly(self.function, '__name__', self._name)}: {len(self._cache)} signatures>"

    def __call__(self, *args: P.args, **named: P.kwargs) -> R:
        front = current()
        usual = None
        if front is default() and not named:
            try:  # tensors only: their layouts are the signature
                usual = tuple([x.layout for x in args if x.__class__ is Value and not x.tracked])
                first = self._seen[len(args), usual].variants[0]
                if len(usual) == len(args) and first.quick is not None and first.holds():
                    return first.quick(args)  # type: ignore[no-any-return]
            except (IndexError, KeyError):
                pass
        if tracing():
            return self.function(*args, **named)
        leaves, structure = tree.flatten((args, named))
        key = signature(leaves, structure, front.grad_enabled)
        compiled = self._cache.get(key)
        reason = "first call"
        if compiled is None:
            compiled, reason = self._new(args, named, key)
        if not compiled._direct:  # equal constants, yet other objects: those of this call are looked into
            compiled._specs, compiled._named = _constants(key)
        tensors = [x for x, d in zip(leaves, key.leaves, strict=True) if isinstance(d, Spec)]
        result = compiled.run(tensors, reason)
        if usual is not None and len(usual) == len(args) and compiled._direct:
            self._seen[len(args), usual] = compiled
        return result  # type: ignore[no-any-return]

    def _missed(self, reason: str) -> None:
        self._reasons.append(reason)
        warn_of_misses(self.function, self._reasons)

    def _new(self, args: Any, named: Any, key: Signature) -> tuple[Compiled, str]:
        """A function for a signature, to be traced when it is run, and why it is needed."""
        reason = self._reason(key, argument_names(self.function, args, named))
        specs, kwargs = _constants(key)
        compiled = Compiled(self.function, specs, kwargs, self._passes, self._verify, self._missed)
        while len(self._cache) >= MOST_SIGNATURES:
            dropped = self._cache.pop(next(iter(self._cache)))
            self._seen = {k: c for k, c in self._seen.items() if c is not dropped}
        self._cache[key] = compiled
        return compiled, reason

    def _reason(self, key: Signature, names: list[str]) -> str:
        if not self._cache:
            return "first call"
        nearest = min(
            list(self._cache), key=lambda old: (old.structure != key.structure, len(differences(old, key, names)))
        )
        return "; ".join(differences(nearest, key, names))


def _constants(key: Signature) -> Any:
    """The arguments of a signature: specs of tensors, and the constants themselves."""
    return tree.unflatten(key.structure, (d.value if isinstance(d, Constant) else d for d in key.leaves))


class Bound:
    """What an object keeps of a compiled method. It is not copied with the object: the copy compiles its own."""

    __slots__ = ("jitted", "method", "owner")

    def __init__(
        self, owner: Any = None, method: Jitted[..., Any] | None = None, jitted: Jitted[..., Any] | None = None
    ):
        self.owner, self.method, self.jitted = owner, method, jitted

    def __reduce__(self) -> Any:
        return Bound, ()
