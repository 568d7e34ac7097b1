"""What optimisers have in common: groups of parameters, their state in variables, one op to update each parameter.

An update is written with operations and recorded like any other, so `step()` can be part of a traced training step. The
state lives in variables made at construction: a compiled graph writes to the same objects as the eager mode.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from dualgraph.core.arguments import flag, members, real
from dualgraph.core.mode import current, default, within
from dualgraph.core.observed import Observed, Table
from dualgraph.core.tensor import Tensor
from dualgraph.core.value import Variable
from dualgraph.errors import ArgumentError, DTypeError, DualgraphError, here, shown
from dualgraph.ops.creation import asarray
from dualgraph.ops.elementwise import astype
from dualgraph.ops.symbol import Symbol
from dualgraph.spec import is_float

if TYPE_CHECKING:
    from dualgraph.core.types import OptimizerState

Options = Mapping[str, Any]
Option = float | bool | Sequence[float]
Params = Iterable[Variable | Mapping[str, object]]  # parameters, or groups: "params", and options of their own


class Group(Observed):
    """Parameters that share their options, with their state. `group["lr"]` and `group.lr` are the same.

    The learning rate may be changed at any time, also between runs of a compiled step. The other options are part of
    the update's formula and stay as they are.
    """

    optimizer: str
    params: tuple[Variable, ...]
    rate: Variable
    options: Table
    state: list[dict[str, Variable]]
    count: Variable | None

    def __init__(self, name: str, params: Sequence[Variable], options: Options, slots: Sequence[str], counted: bool):
        self.optimizer, self.params = name, tuple(params)
        # float64 whatever the parameters are: cast in the update, so that none loses precision.
        self.rate = Variable(np.array(options["lr"], np.float64), name="lr")
        self.options = Table({key: value for key, value in options.items() if key != "lr"})
        self.state = [{slot: Variable(np.zeros(p.shape, p.dtype), name=slot) for slot in slots} for p in self.params]
        # Updates made of each parameter: those without a gradient do not count.
        self.count = Variable(np.zeros(len(self.params), np.int64), name="step") if counted else None

    @property
    def lr(self) -> float:
        """The learning rate, as a number."""
        return float(current().lift(self.rate))  # a symbol while a graph is traced: raises, rather than being baked in

    @lr.setter
    def lr(self, value: float | Tensor) -> None:
        if isinstance(value, Tensor):
            changes = current() is not default() and (value.tracked or value.is_variable)
            if (
                value.shape == () and not changes and not isinstance(value, Symbol)
            ):  # else it is known when a graph runs
                checked_number(self.optimizer, "lr", value.item())
            self.rate.assign(astype(value, "float64"))
        else:
            self.rate.assign(asarray(np.array(checked_number(self.optimizer, "lr", value), np.float64)))

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__.get("options", ()):
            self[name] = value  # type: ignore[assignment]  # raises, saying why
        super().__setattr__(name, value)

    @overload
    def __getitem__(self, key: Literal["lr"]) -> float: ...
    @overload
    def __getitem__(self, key: Literal["params"]) -> tuple[Variable, ...]: ...  # type: ignore[overload-overlap]
    @overload
    def __getitem__(self, key: str) -> Option: ...
    def __getitem__(self, key: str) -> Option | tuple[Variable, ...]:
        if isinstance(key, str) and key in ("lr", "params"):
            return getattr(self, key)  # type: ignore[no-any-return]
        if not isinstance(key, str) or key not in self.options:
            raise unknown_option(self.optimizer, key, ["lr", "params", *self.options])
        return self.options[key]  # type: ignore[no-any-return]

    def __setitem__(self, key: str, value: float | Tensor) -> None:
        if not isinstance(key, str) or key != "lr":
            raise ArgumentError(
                f"{self.optimizer}: got a new value for {shown(key)}; only lr can be changed, the rest is built into the "
                "update (and into compiled graphs); make a new optimiser, and load this one's state_dict() into it"
            ).at(here())
        self.lr = value

    def with_gradients(self) -> tuple[list[tuple[int, Variable, Any]], tuple[int, ...]]:
        """(number, parameter, gradient) of those that have one, and the numbers of the others."""
        found = [(number, p, p.grad) for number, p in enumerate(self.params)]
        return [x for x in found if x[2] is not None], tuple(number for number, _, g in found if g is None)

    def __repr__(self) -> str:
        options = {"lr": float(self.rate.numpy()), **self.options}
        return f"{len(self.params)} parameters: " + ", ".join(f"{key}={value}" for key, value in options.items())


class Optimizer(Observed):
    """Base of optimisers: give the defaults, `SLOTS`, and `update(group)`.

    `params` are parameters, or groups: dicts of "params" and the options in which they differ from the defaults.
    """

    param_groups: tuple[Group, ...]
    SLOTS: tuple[str, ...] = ()  # state of a parameter: a variable of its shape for each

    def __init__(self, params: Params, defaults: Mapping[str, Option]):
        self._checked({**defaults})
        groups: list[Group] = []
        seen: dict[int, int] = {}
        for given in _groups(self._name, params):
            if not isinstance(given, Mapping):
                raise _no_group(self._name, given)
            unknown = [key for key in given if key != "params" and key not in defaults]
            if unknown:
                raise unknown_option(self._name, unknown[0], ["params", *defaults])
            params_of = _members(self._name, given, seen)
            options = {**defaults, **{key: value for key, value in given.items() if key != "params"}}
            options = self._checked(options)
            groups.append(Group(self._name, params_of, options, self._slots(options), self._counted(options)))
        self.param_groups = tuple(groups)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options in their canonical types; raises for one outside its rule."""
        if "lr" not in options:
            raise ArgumentError(f"{self._name}: got no lr among the defaults; every optimiser has one; pass it").at(
                here()
            )
        return {**options, "lr": checked_number(self._name, "lr", options["lr"])}

    def _slots(self, options: Options) -> Sequence[str]:
        return self.SLOTS

    def _counted(self, options: Options) -> bool:
        return False

    def update(self, group: Group) -> None:
        """Update the parameters of a group from their gradients."""
        raise NotImplementedError

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        within(current().with_grad(False), self._update_all)

    def _update_all(self) -> None:
        for group in self.param_groups:
            self.update(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients; with `set_to_none=False` those present become zeros, and the next step still updates."""
        set_to_none = flag(self._name, "set_to_none", set_to_none)
        for p in self.params:
            p.grad = None if set_to_none or p.grad is None else asarray(np.zeros(p.shape, p.dtype))

    @property
    def params(self) -> Iterator[Variable]:
        """All parameters, group after group: the order by which states are numbered."""
        return (p for group in self.param_groups for p in group.params)

    @property
    def lr(self) -> float:
        """The learning rate, if all groups have the same; setting it sets that of all groups."""
        rates = [group.lr for group in self.param_groups]
        if any(rate != rates[0] for rate in rates):
            raise ArgumentError(
                f"{self._name}.lr: the groups have different rates {rates}; ask each: optimizer.param_groups[i].lr"
            ).at(here())
        return rates[0]

    @lr.setter
    def lr(self, value: float | Tensor) -> None:
        if not isinstance(value, Tensor):
            value = checked_number(self._name, "lr", value)
        for group in self.param_groups:
            group.lr = value

    def named_variables(self) -> Iterator[tuple[str, Variable]]:
        """All state: learning rates, counts, and the slots of each parameter, by names such as "exp_avg.0"."""
        number = 0
        for place, group in enumerate(self.param_groups):
            yield f"lr.{place}", group.rate
            if group.count is not None:
                yield f"step.{place}", group.count
            for state in group.state:
                yield from ((f"{slot}.{number}", variable) for slot, variable in state.items())
                number += 1

    def state_dict(self) -> OptimizerState:
        """The state by number of the parameter, and the options of the groups. Values never change: none is copied."""
        state: dict[int, dict[str, Any]] = {}
        groups = []
        for group in self.param_groups:
            numbers = range(len(state), len(state) + len(group.params))
            groups.append({"lr": group.lr, **group.options, "params": list(numbers)})
            counts = None if group.count is None else group.count.numpy()
            for place, slots in enumerate(group.state):
                count = {} if counts is None else {"step": int(counts[place])}
                state[len(state)] = {**count, **{slot: variable.detach() for slot, variable in slots.items()}}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Take over a state made by `state_dict` of an optimiser with the same options and parameters.

        Everything is checked before anything is assigned.
        """
        faults: list[str] = []
        values: list[tuple[Variable, Any]] = []
        given, slots = self._parts(state)
        if len(given) != len(self.param_groups):
            faults.append(f"got {len(given)} groups, must be {len(self.param_groups)}")
        start = 0
        for place, (group, options) in enumerate(zip(self.param_groups, given, strict=False)):
            numbers = list(range(start, start + len(group.params)))
            start += len(numbers)
            if options.get("params") != numbers:
                faults.append(f"group {place}: got parameters {options.get('params')}, must be {numbers}")
            for key, value in group.options.items():
                if _plain(options.get(key)) != value:
                    faults.append(f"group {place}: got {key} = {options.get(key)!r}, this optimiser has {value!r}")
            _check_rate(f"group {place}: lr", options.get("lr"), faults)
            _collect(f"group {place}: lr", options.get("lr"), group.rate, values, faults)
            if group.count is not None:
                counts = [slots.get(number, {}).get("step") for number in numbers]
                _check_counts(f"group {place}: step", counts, faults)
                _collect(f"group {place}: step", counts, group.count, values, faults)
            for number, own in zip(numbers, group.state, strict=True):
                for slot, variable in own.items():
                    _collect(f"{slot} of parameter {number}", slots.get(number, {}).get(slot), variable, values, faults)
        if faults:
            raise ArgumentError(
                f"{self._name}.load_state_dict: got a state that does not fit; it must come from an optimiser with "
                "the same options and parameters; make this one like that" + "".join(f"\n  {fault}" for fault in faults)
            ).at(here())
        for variable, value in values:
            variable.assign(value)

    def _parts(self, state: Any) -> tuple[list[Any], Mapping[Any, Any]]:
        """The groups and the slots of a state, which are dictionaries as `state_dict` makes them."""
        groups = state.get("param_groups", ()) if isinstance(state, Mapping) else None
        slots = state.get("state", {}) if isinstance(state, Mapping) else None
        if (
            not isinstance(groups, (list, tuple))
            or not isinstance(slots, Mapping)
            or not all(isinstance(x, Mapping) for x in (*groups, *slots.values()))
        ):
            raise ArgumentError(
                f"{self._name}.load_state_dict: got {shown(state)}; a state is a dictionary of dictionaries; use what "
                "state_dict() gave"
            ).at(here())
        return list(groups), slots

    def __repr__(self) -> str:
        return f"{self._name}(" + "".join(f"\n  {group!r}" for group in self.param_groups) + "\n)"


def checked_number(name: str, option: str, value: Any, below: float = math.inf) -> float:
    """A finite number in [0, below)."""
    found = real(name, option, value)
    if not 0.0 <= found < below:
        rule = "a number of at least 0" if below == math.inf else f"a number in [0, {below:g})"
        raise ArgumentError(f"{name}: got {option} = {shown(value)}; it must be {rule}").at(here())
    return found + 0.0  # -0.0 becomes 0.0: as constants of an update the two are not the same


def unknown_option(name: str, key: Any, known: Sequence[str]) -> DualgraphError:
    """The error for an option that does not exist."""
    close = difflib.get_close_matches(shown(key), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
    return ArgumentError(f"{name}: got the option {shown(key)}; it does not exist; {hint}").at(here())


def _groups(name: str, params: Any) -> list[Mapping[str, Any]]:
    given = None if isinstance(params, (set, frozenset, Mapping)) else members(params)
    if given is None:
        kind = "a single tensor" if isinstance(params, Tensor) else f"a {type(params).__name__}"
        raise DTypeError(
            f"{name}: got {kind}; parameters are passed as a sequence with a fixed order, such as model.parameters() "
            "or a list"
        ).at(here())
    if not given:
        raise ArgumentError(f"{name}: got no parameters; pass at least one; a generator is empty once it was read").at(
            here()
        )
    if isinstance(given[0], Mapping):
        return given
    return [{"params": given}]


def _no_group(name: str, given: Any) -> DualgraphError:
    return ArgumentError(f"{name}: got the group {shown(given)}; a group is a dict with the key 'params'").at(here())


def _members(name: str, given: Mapping[str, Any], seen: dict[int, int]) -> list[Variable]:
    """The parameters of a group, checked; `seen` collects those of all groups."""
    if "params" not in given:
        raise _no_group(name, given)
    listed = given["params"]
    found: list[Any] | None = [listed] if isinstance(listed, Tensor) else members(listed)
    if found is None:
        raise DTypeError(f"{name}: got a group with params {shown(listed)}; give a parameter or a list of them").at(
            here()
        )
    if not found:
        raise ArgumentError(f"{name}: got a group without parameters; leave it out").at(here())
    for p in found:
        if not isinstance(p, Variable):
            raise DTypeError(
                f"{name}: parameter {len(seen)} is {shown(p)}; only a variable can be updated; make it an nn.Parameter"
            ).at(here())
        if not is_float(p.layout.dtype):
            raise DTypeError(f"{name}: parameter {len(seen)} is {p.spec}; only floats have gradients; cast it").at(
                here()
            )
        if id(p) in seen:
            raise ArgumentError(
                f"{name}: parameter {len(seen)} ({p.spec}) is parameter {seen[id(p)]} again; it would be updated "
                "twice; list each once (model.parameters() does)"
            ).at(here())
        seen[id(p)] = len(seen)
    return found


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_rate(what: str, value: Any, faults: list[str]) -> None:
    number = value.item() if isinstance(value, (Tensor, np.generic, np.ndarray)) and value.shape == () else value
    if number is not None and not (_is_number(number, (int, float)) and 0.0 <= number < math.inf):
        faults.append(f"unfit: {what}: got {shown(value)}, must be a number of at least 0")


def _check_counts(what: str, counts: Sequence[Any], faults: list[str]) -> None:
    wrong = [n for n in counts if n is not None and not (_is_number(n, (int, np.integer)) and 0 <= n < 2**63)]
    if wrong:
        faults.append(f"unfit: {what}: got {shown(wrong[0])}, must be a whole number of at least 0")


def _is_number(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _collect(what: str, value: Any, variable: Variable, values: list[tuple[Variable, Any]], faults: list[str]) -> None:
    """Note a value to be assigned, or why it does not fit."""
    if value is None or (isinstance(value, list) and None in value):
        faults.append(f"missing: {what}")
        return
    try:
        x = value if isinstance(value, (Tensor, np.ndarray)) else np.array(value, variable.dtype)
        tensor = asarray(x).detach()
    except (DualgraphError, ValueError, TypeError, OverflowError) as error:
        faults.append(f"unfit: {what}: {error}")
        return
    if tensor.spec == variable.spec:
        values.append((variable, tensor))
    else:
        faults.append(f"unfit: {what}: got {tensor.spec}, must be {variable.spec}")
