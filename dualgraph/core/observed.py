"""Objects whose attributes a traced function may read: what was read is known, and so is that something has changed.

Modules and optimisers are `Observed`. While a function is traced each attribute that it reads is reported to the front
end; the interpreter's own attribute look-up is replaced for that time only, so that it costs nothing otherwise. Each change
of any of them moves `VERSION` on: as long as it stands still, nothing that was read can have changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualgraph.core.mode import current
from dualgraph.locks import lock

MISSING: Any = type("Missing", (), {"__repr__": lambda _: "nothing", "__slots__": ()})()
VERSION = [0]  # in a list, which is read without a call
_lock = lock()
_open: set[object] = set()  # one for each time that attributes are being observed


def changed() -> None:
    """An observed object is not as it was."""
    with _lock:
        VERSION[0] += 1


class Observed:
    """Base of objects whose attributes are part of what a trace depends on."""

    def __setattr__(self, name: str, value: object) -> None:
        old = vars(self).get(name, MISSING)
        if isinstance(old, Table) and isinstance(value, dict) and not isinstance(value, Table):
            value = Table(value)  # so that its changes are noticed, too
        object.__setattr__(self, name, value)
        if old is not value:
            current().wrote(self, name)
            changed()

    def __getstate__(self) -> object:
        """What a copy starts with: who makes one depends on all of it."""
        current().copied(self)
        return super().__getstate__()

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        current().wrote(self, name)
        changed()


class Table(dict[str, Any]):
    """A dictionary of an observed object's parts, each change of which is one of the object."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        changed()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        changed()

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]  # any mapping will do
        self.update(other)
        return self

    def clear(self) -> None:
        super().clear()
        changed()

    def pop(self, *args: Any) -> Any:
        found = super().pop(*args)
        changed()
        return found

    def popitem(self) -> tuple[str, Any]:
        found = super().popitem()
        changed()
        return found

    def setdefault(self, *args: Any) -> Any:
        found = super().setdefault(*args)
        changed()
        return found

    def update(self, *args: Any, **named: Any) -> None:
        super().update(*args, **named)
        changed()


def _reported(owner: Any, name: str) -> Any:
    """`object.__getattribute__`, and the front end hears of it."""
    if name.startswith("__") and name != "__dict__":
        return object.__getattribute__(owner, name)
    current().observe(owner, name)
    if not _open:  # Ctrl-C came when the last one had ended
        _settle()
    return object.__getattribute__(owner, name)


def observing(run: Callable[[], Any]) -> Any:
    """Call a function; attributes that are read meanwhile are reported. May be nested, and open in several threads."""
    mine = object()
    try:  # no `with` block, in whose own functions Ctrl-C might come
        _open.add(mine)
        _settle()
        return run()
    finally:
        _open.discard(mine)  # one call of C; were the other not to happen, the next look-up would see to it
        _settle()


def _settle() -> None:
    with _lock:
        replaced = "__getattribute__" in vars(Observed)
        if _open and not replaced:
            Observed.__getattribute__ = _reported  # type: ignore[method-assign]
        elif replaced and not _open:
            del Observed.__getattribute__
