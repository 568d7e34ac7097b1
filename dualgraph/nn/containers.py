"""Modules that hold modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

from dualgraph.core.arguments import integer, members
from dualgraph.errors import ArgumentError, RangeError, here, shown
from dualgraph.nn.module import Module, checked_module, suggestion

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, Tensor


class _Numbered(Module):
    """Children named "0", "1", … in order."""

    def _extend(self, modules: Iterable[Any]) -> None:
        given = members(modules)
        if given is None:
            raise ArgumentError(
                f"{type(self).__name__}: got {shown(modules)}; it holds a list of modules; pass one"
            ).at(here())
        first = len(self._modules)
        checked = [checked_module(f"{type(self).__name__}: item {first + n}", module) for n, module in enumerate(given)]
        for module in checked:
            number = len(self._modules)
            while str(number) in self._modules:  # named by the user
                number += 1
            self._modules[str(number)] = module

    def _items(self) -> list[Module]:
        return [module for module in self._modules.values() if module is not None]

    def _name(self, index: int) -> str:
        n, index = len(self._modules), integer(type(self).__name__, "index", index)
        if not -n <= index < n:
            raise RangeError(
                f"{type(self).__name__}: got index {shown(index)} of {n} modules; it must lie in [{-n}, {n})"
            ).at(here())
        return list(self._modules)[index]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._items())

    def __setitem__(self, index: int, module: Module) -> None:
        name = self._name(index)
        self._modules[name] = checked_module(f"{type(self).__name__}: item {index}", module)


class Sequential(_Numbered):
    """Modules applied one after the other: the output of each is the input of the next.

    >>> import dualgraph as dg
    >>> from dualgraph import nn
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    >>> model(dg.ones((5, 4))).shape
    (5, 2)
    >>> len(model), model[1]
    (3, Tanh())

    Given a dict, the modules are named by its keys and are attributes.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.register_module(name, module)
        else:
            self._extend(modules)

    def forward(self, x: ArrayLike) -> Tensor:
        for module in self._modules.values():
            if module is not None:
                x = module(x)
        return x  # type: ignore[return-value]  # without modules, x itself

    def append(self, module: Module) -> Sequential:
        """Add a module at the end."""
        self._extend([module])
        return self

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        items = self._items()
        return (
            Sequential(*items[index])
            if isinstance(index, slice)
            else items[list(self._modules).index(self._name(index))]
        )


class ModuleList(_Numbered):
    """A list of modules; `forward` is up to the module that holds it.

    >>> from dualgraph import nn
    >>> layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    >>> len(list(layers.parameters()))
    6
    """

    def __init__(self, modules: Iterable[Module] = ()):
        super().__init__()
        self._extend(modules)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end."""
        self._extend([module])
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Add modules at the end."""
        self._extend(modules)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Add a module before position `index`."""
        items: list[Any] = self._items()
        n, at = len(items), integer("insert", "index", index)
        items.insert(min(max(at, -n), n), checked_module("ModuleList.insert", module))
        self._modules.clear()
        self._extend(items)

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...
    def __getitem__(self, index: int | slice) -> Module:
        items = self._items()
        return (
            ModuleList(items[index])
            if isinstance(index, slice)
            else items[list(self._modules).index(self._name(index))]
        )


class ModuleDict(Module):
    """Modules by name; `forward` is up to the module that holds it.

    >>> from dualgraph import nn
    >>> heads = nn.ModuleDict({"value": nn.Linear(4, 1), "policy": nn.Linear(4, 3)})
    >>> sorted(heads.keys()), heads["policy"].out_features
    (['policy', 'value'], 3)
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()):
        super().__init__()
        self.update(modules)

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules."""
        given = members(modules.items() if isinstance(modules, Mapping) else modules)
        pair: Any
        for pair in [modules] if given is None else given:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise ArgumentError(
                    f"ModuleDict: got {shown(pair)}; it holds modules by name; pass a dictionary, or a list of (name, module)"
                ).at(here())
            name, module = pair
            self[name] = module

    def __setitem__(self, name: str, module: Module) -> None:
        # Not an attribute, so any name without a dot will do, "keys" too.
        if not isinstance(name, str) or not name or "." in name:
            raise ArgumentError(
                f"ModuleDict: got the name {shown(name)}; it must be a string, not empty, without a dot"
            ).at(here())
        self._modules[name] = checked_module(f"ModuleDict: item {name!r}", module)

    def __getitem__(self, name: str) -> Module:
        found: Module | None = self._modules.get(name) if isinstance(name, str) else None
        if found is None:
            raise ArgumentError(
                f"ModuleDict: got {shown(name)}; no such module{suggestion(shown(name), self._modules)}"
            ).at(here())
        return found

    def __delitem__(self, name: str) -> None:
        self[name]
        del self._modules[name]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._modules

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> Iterable[Module]:
        """The modules."""
        return [module for module in self._modules.values() if module is not None]

    def items(self) -> Iterable[tuple[str, Module]]:
        """Names and modules."""
        return [(name, module) for name, module in self._modules.items() if module is not None]
