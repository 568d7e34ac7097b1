"""Modules: trees of parameters, buffers and further modules, with one function, `forward`.

A module keeps its state in variables (`Parameter`, buffers) and computes with operations only, so the same object runs
in both modes and is trained by either.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self, TypeVar

import numpy as np

from dualgraph.core.arguments import flag, text
from dualgraph.core.mode import current
from dualgraph.core.observed import Observed, Table
from dualgraph.core.tensor import Tensor
from dualgraph.core.value import Variable
from dualgraph.device import device_named
from dualgraph.errors import ArgumentError, DTypeError, DualgraphError, here, shown
from dualgraph.nn.parameter import Parameter
from dualgraph.ops.creation import asarray

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, DeviceName, Forward, P, R_co

Named = TypeVar("Named")
PreHook = Callable[["Module", tuple[Any, ...]], object]
Hook = Callable[["Module", tuple[Any, ...], Any], object]


class Unfit(NamedTuple):
    """What `load_state_dict(strict=False)` left aside."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Handle:
    """A registered hook; `remove()` takes it off, and may be called again."""

    def __init__(self, hooks: Table, hook: PreHook | Hook):
        self._hooks, self._key = hooks, str(next(_numbers))  # by number: the same function may be registered twice
        hooks[self._key] = hook

    def remove(self) -> None:
        self._hooks.pop(self._key, None)


_numbers = itertools.count()


class Module(Observed):
    """Base of models and layers. Derive, create the parts in `__init__`, and compute in `forward`.

    Attributes that are parameters, variables (buffers) or modules are found by `parameters()`, `buffers()`,
    `modules()` and `state_dict()`, in the order of their creation.

    >>> from dualgraph import nn
    >>> class Model(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden, self.out = nn.Linear(8, 4), nn.Linear(4, 2)
    ...     def forward(self, x):
    ...         return self.out(nn.functional.relu(self.hidden(x)))
    >>> model = Model()
    >>> model
    Model(
      (hidden): Linear(in_features=8, out_features=4, bias=True)
      (out): Linear(in_features=4, out_features=2, bias=True)
    )
    >>> [name for name, _ in model.named_parameters()]
    ['hidden.weight', 'hidden.bias', 'out.weight', 'out.bias']
    """

    _parameters: Table
    _buffers: Table
    _modules: Table
    _transient: set[str]
    _pre_hooks: Table
    _hooks: Table
    _training: bool

    def __init__(self) -> None:
        # Into __dict__, because __setattr__ needs them.
        tables = {name: Table() for name in ("_parameters", "_buffers", "_modules", "_pre_hooks", "_hooks")}
        start = {**tables, "_transient": set(), "_training": True}
        self.__dict__.update(start)
        for name in start:
            current().wrote(self, name)

    def _no_forward(self, *_: object, **__: object) -> NoReturn:
        raise ArgumentError(
            f"{type(self).__name__}: called, but it has no forward; define forward(self, …) in the class"
        ).at(here())

    forward: Callable[..., Any] = _no_forward

    def __call__(self: Forward[P, R_co], *args: P.args, **kwargs: P.kwargs) -> R_co:
        if not self._pre_hooks and not self._hooks:
            return self.forward(*args, **kwargs)
        for pre_hook in tuple(self._pre_hooks.values()):
            changed = pre_hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)  # type: ignore[assignment]
        out = self.forward(*args, **kwargs)
        for hook in tuple(self._hooks.values()):
            changed = hook(self, args, out)
            out = out if changed is None else changed
        return out

    def register_forward_pre_hook(self, hook: PreHook) -> Handle:
        """Call `hook(module, args)` before each forward; a result other than None replaces the arguments."""
        return Handle(self._pre_hooks, hook)

    def register_forward_hook(self, hook: Hook) -> Handle:
        """Call `hook(module, args, out)` after each forward; a result other than None replaces the output."""
        return Handle(self._hooks, hook)

    # Registration

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, (Variable, Module)):
            self._register(name, value)
        elif value is not None and name in self.__dict__.get("_buffers", ()):
            buffer = self._buffers[name]
            if buffer is None:
                self._register(name, Variable(value, name=name))  # type: ignore[arg-type]
            elif isinstance(value, Tensor):
                buffer.assign(value)  # not another object: a compiled graph holds this one
            else:
                buffer.assign(asarray(np.asarray(value), dtype=buffer.dtype))
        elif value is not None and name in self.__dict__.get("_parameters", ()):
            raise DTypeError(
                f"{type(self).__name__}.{name}: got {_kind(value)} for a parameter; only a Parameter or None "
                f"can take its place; to change the value, write {name}.assign(new)"
            ).at(here())
        else:
            for table in self._tables() if value is None else ():
                if name in table:
                    table[name] = None
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        for table in self._tables():
            table.pop(name, None)
        super().__delattr__(name)

    def _tables(self) -> tuple[dict[str, Any], ...]:
        return tuple(self.__dict__.get(table, {}) for table in ("_parameters", "_buffers", "_modules"))

    def _register(self, name: str, value: Variable | Module) -> None:
        if "_parameters" not in self.__dict__:
            raise ArgumentError(
                f"{type(self).__name__}.{name}: assigned before the module was set up; call super().__init__() first"
            ).at(here())
        kind = 0 if isinstance(value, Parameter) else 1 if isinstance(value, Variable) else 2
        for number, table in enumerate(self._tables()):
            if number != kind:
                table.pop(name, None)
        self._tables()[kind][name] = value
        super().__setattr__(name, value)

    def _check_name(self, what: str, name: str, table: Mapping[str, Any]) -> None:
        fault = (
            f"got a name of {type(name).__name__}; it must be a string"
            if not isinstance(name, str)
            else f"got the name {name!r}; it must not be empty nor contain a dot, which separates the names of a path"
            if not name or "." in name
            else f"got the name {name!r}, which is an attribute already; choose another"
            if name not in table and hasattr(self, name)
            else ""
        )
        if fault:
            raise ArgumentError(f"{type(self).__name__}.{what}: {fault}").at(here())

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter by name; None keeps the name for a parameter that is absent."""
        self._check_name("register_parameter", name, self._parameters)
        if parameter is None:
            self._parameters[name] = None
            super().__setattr__(name, None)
        elif isinstance(parameter, Parameter):
            self._register(name, parameter)
        else:
            raise DTypeError(
                f"{type(self).__name__}.register_parameter: got {type(parameter).__name__} for {name!r}; it must be a "
                "Parameter or None; wrap the value in nn.Parameter"
            ).at(here())

    def register_buffer(self, name: str, value: ArrayLike | None, persistent: bool = True) -> None:
        """Add state without gradient: a variable made of `value` (a tensor, an array, numbers), or None for later.

        Assigning a tensor to the attribute replaces its value. A buffer that is not `persistent` stays out of
        `state_dict`.
        """
        self._check_name("register_buffer", name, self._buffers)
        persistent = flag("register_buffer", "persistent", persistent)
        if value is None:
            self._buffers[name] = None
            super().__setattr__(name, None)
        else:
            self._register(name, value if type(value) is Variable else Variable(value, name=name))
        (self._transient.discard if persistent else self._transient.add)(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a module by name."""
        self._check_name("register_module", name, self._modules)
        self._modules[name] = checked_module(f"{type(self).__name__}.register_module", module)
        super().__setattr__(name, module)

    add_module = register_module

    # Walking the tree

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below, each once."""
        return _present(self._modules.items(), set())

    def children(self) -> Iterator[Module]:
        """See `named_children`."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module and all below it with their paths, parents first; shared ones once."""
        once = flag("named_modules", "remove_duplicate", remove_duplicate)
        return self._walk(text("named_modules", "prefix", prefix), set() if once else None)

    def _walk(self, prefix: str, seen: set[int] | None) -> Iterator[tuple[str, Module]]:
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module._walk(_path(prefix, name), seen)

    def modules(self) -> Iterator[Module]:
        """See `named_modules`."""
        return (module for _, module in self.named_modules())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters with their paths; shared ones once."""
        return self._named("_parameters", prefix, flag("named_parameters", "recurse", recurse), remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """See `named_parameters`."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Variable]]:
        """The buffers with their paths; shared ones once."""
        return self._named("_buffers", prefix, flag("named_buffers", "recurse", recurse), remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Variable]:
        """See `named_buffers`."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _named(self, table: str, prefix: str, recurse: bool, once: bool) -> Iterator[tuple[str, Any]]:
        modules = self.named_modules(prefix, remove_duplicate=once) if recurse else [(prefix, self)]
        items = ((_path(path, name), x) for path, module in modules for name, x in getattr(module, table).items())
        return _present(items, set() if once else None)

    def get_submodule(self, path: str) -> Module:
        """The module at a path such as "encoder.0"; "" is this one."""
        module = self
        text("get_submodule", "the path", path)
        for name in path.split(".") if path else ():
            found = module._modules.get(name)
            if found is None:
                self._unknown("get_submodule", path, [name for name, _ in self.named_modules(remove_duplicate=False)])
            module = found
        return module

    def get_parameter(self, path: str) -> Parameter:
        """The parameter at a path such as "encoder.0.weight"."""
        found = dict(self.named_parameters(remove_duplicate=False))
        text("get_parameter", "the path", path)
        return found[path] if path in found else self._unknown("get_parameter", path, list(found))

    def get_buffer(self, path: str) -> Variable:
        """The buffer at a path."""
        found = dict(self.named_buffers(remove_duplicate=False))
        text("get_buffer", "the path", path)
        return found[path] if path in found else self._unknown("get_buffer", path, list(found))

    def _unknown(self, what: str, path: str, known: list[str]) -> NoReturn:
        raise ArgumentError(
            f"{type(self).__name__}.{what}: got {path!r}; there is no such path{suggestion(path, known)}"
        ).at(here())

    # State

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Path → value of every parameter and persistent buffer as it is now. Values never change: none is copied."""
        return {name: variable.detach() for name, variable in self._state(prefix)}

    def _state(self, prefix: str = "") -> Iterator[tuple[str, Variable]]:
        for path, module in self.named_modules(prefix, remove_duplicate=False):
            own = [*module._parameters.items(), *module._buffers.items()]
            yield from ((_path(path, n), v) for n, v in own if v is not None and n not in module._transient)

    def load_state_dict(self, state: Mapping[str, ArrayLike], strict: bool = True) -> Unfit:
        """Assign the values of `state` (tensors, arrays or numbers) to the parameters and buffers of those paths.

        Shapes and dtypes must be equal; with `strict` the paths, too. All is checked before anything is assigned.
        """
        if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
            raise ArgumentError(
                f"{type(self).__name__}.load_state_dict: got {shown(state)}; a state is a dictionary of tensors by path; use "
                "what state_dict() gave"
            ).at(here())
        strict = flag("load_state_dict", "strict", strict)
        own = dict(self._state())
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        faults: list[str] = []
        if strict:
            faults += [f"missing: {name} ({own[name].spec})" for name in missing]
            faults += [f"unexpected: {name}{suggestion(name, missing or list(own))}" for name in unexpected]
        values: list[tuple[Variable, Any]] = []
        for name, variable in own.items():
            if name in state:
                try:
                    values.append((variable, fitting(state[name], variable)))
                except (DualgraphError, TypeError, ValueError) as error:
                    faults.append(f"unfit: {name}: {Exception.__str__(error)}")
        if faults:
            raise ArgumentError(
                f"{type(self).__name__}.load_state_dict: got a state that does not fit; paths, shapes and dtypes "
                "must be those of state_dict(); make it from the same model"
                + (", or pass strict=False to load what fits by name" if strict and (missing or unexpected) else "")
                + "".join(f"\n  {fault}" for fault in faults)
            ).at(here())
        for variable, value in values:
            variable.assign(value)
        return Unfit(missing, unexpected)

    # Switches

    @property
    def training(self) -> bool:
        """Whether the module is in training mode. A graph that depends on it is compiled once for each mode."""
        return self._training

    @training.setter
    def training(self, mode: bool) -> None:
        self._training = bool(mode)

    def train(self, mode: bool = True) -> Self:
        """Put this module and all below it into training mode."""
        mode = flag("train", "mode", mode)
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Put this module and all below it into evaluation mode."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switch gradients of all parameters on or off."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Clear the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def apply(self, function: Callable[[Module], object]) -> Self:
        """Call `function(module)` for every module, children first."""
        if not callable(function):
            raise ArgumentError(f"apply: got {shown(function)}; pass a function of a module").at(here())
        for module in self.children():
            module.apply(function)
        function(self)
        return self

    def to(self, device: DeviceName) -> Self:
        """This module on a device: only "cpu" so far."""
        device_named(f"{type(self).__name__}.to", device)
        return self

    # Text

    def extra_repr(self) -> str:
        """What stands in the brackets of `repr`; for layers to override."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self._modules.items()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        first = [self.extra_repr()] if self.extra_repr() else []
        return f"{type(self).__name__}(" + "".join(f"\n  {line}" for line in first + lines) + "\n)"


def checked_module(where: str, module: Any) -> Module | None:
    """A module or None."""
    if module is None or isinstance(module, Module):
        return module
    remedy = "create it first, with ()" if isinstance(module, type) else "wrap a function in a Module with that forward"
    raise DTypeError(f"{where}: got {shown(module)}; it must be a Module; {remedy}").at(here())


def fitting(value: Any, variable: Variable) -> Any:
    """A value to be loaded as a tensor of the variable's spec."""
    typed = isinstance(value, (Tensor, np.ndarray, np.generic))
    x = asarray(
        value if typed else np.array(value, variable.dtype)
    ).detach()  # it may be a variable that is loaded, too
    if x.spec != variable.spec:
        raise ArgumentError(f"got {x.spec}, must be {variable.spec}")
    return x


def suggestion(name: str, known: Iterable[str]) -> str:
    """What may have been meant by an unknown name, as the end of a message."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(map(repr, filter(None, names)))}" if any(names) else "; there are none"


def _path(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _present(items: Iterable[tuple[str, Named | None]], seen: set[int] | None) -> Iterator[tuple[str, Named]]:
    """The entries that are not None, each object once if `seen` is given."""
    for name, x in items:
        if x is not None and (seen is None or id(x) not in seen):
            if seen is not None:
                seen.add(id(x))
            yield name, x


def _kind(value: Any) -> str:
    """What something is called, the same in both modes."""
    return "a tensor" if isinstance(value, Tensor) else type(value).__name__
