"""What a run meets in tensors besides their values: gradients that it reads and leaves, flags, hooks, histories.

The values of variables, and gradients without a history, are the program's own state (`kernels.state`). What is kept
here is looked at before the launch, so that nothing has happened where it is refused. What it leaves is left together
with the state, in one piece: the launch changes nothing by itself then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import setitem
from typing import Any

import numpy as np

from dualgraph.autodiff import leads_to
from dualgraph.core.mode import current, default
from dualgraph.core.tensor import Tensor
from dualgraph.errors import DualgraphError, FeedError, GraphError, here
from dualgraph.kernels.state import GRADIENT, Changes
from dualgraph.ops.symbol import Symbol
from dualgraph.static.graph import Argument, Graph, Link, hooks_met, hooks_of

Array = np.ndarray[Any, Any]


class Effects:
    """What a graph reads and leaves in the tensors that it captured, and in those that are passed."""

    def __init__(self, graph: Graph, names: Sequence[str]):
        self._graph, self._names = graph, names
        touched = [v for v in graph.with_gradients if v.touched]
        # The launch leaves gradients; those with a history, which it knows nothing of, are left here.
        self.left = [(v.tensor, g) for v in touched if (g := v.final_gradient) is not None and g.tracked]
        later = {id(tensor) for tensor, _ in self.left}
        self.graded = [(v.tensor, v.final_gradient) for v in touched if id(v.tensor) not in later]
        for v in graph.arguments.values():
            v.final_tracked, v.final_hooks = v.value.tracked, tuple(v.value.hooks or ())
        self._switched = [v for v in graph.arguments.values() if v.has_other_flags]
        self._flagged = [v for v in graph.variables.values() if v.has_other_flags]
        absent = [v.tensor for v in graph.with_gradients if v.gradient_was_none]
        self._without_gradient = absent if graph.spelled_out else []
        self._of_arguments: list[Argument] = []
        changed = [v.tensor for v in graph.with_gradients if v.touched or id(v.tensor) in graph.switched]
        self._changed = [x.position for x in changed if isinstance(x, Argument)]
        changed = [x for x in changed if not isinstance(x, Argument)]
        self._plain_changed = {id(x) for x in changed if not x.is_variable}
        self._used = [n for n, p in enumerate(graph.placeholders) if graph.dag.out_degree(p.node)]
        self._captured = {id(x) for x in (*(v.tensor for v in graph.variables.values()), *graph.constants)}

    @property
    def gradients(self) -> list[Symbol]:
        """What is left in `.grad`: first those with a history."""
        return [g for _, g in (*self.left, *self.graded) if g is not None]

    def read(self, variables: Sequence[Link]) -> None:
        """The run reads the gradients of these."""
        concerned = {id(v.tensor) for v in (*variables, *self._switched)}
        found = [v.tensor for v in self._graph.arguments.values() if v.touched or id(v.tensor) in concerned]
        self._of_arguments = found

    @property
    def usual(self) -> bool:
        """Whether there is nothing to be done but what the launch does."""
        return not (self.more or self._of_arguments or self._changed or self._plain_changed)

    @property
    def more(self) -> bool:
        """Whether a run leaves something that the launch knows nothing of."""
        return bool(self.left or self._switched or self._flagged)

    # Before the launch

    def passed(self, values: Sequence[Any]) -> dict[int, Any]:
        """The tensors that were passed for the arguments in which gradients are looked for and left."""
        self._check_told(values)
        if self._graph.behind:
            self._check_histories(values)
        if self._graph.spelled_out:
            self._check_flags(values)
        for tensor in self._without_gradient:
            self._check_absence(values[tensor.position] if isinstance(tensor, Argument) else tensor)
        found = {id(argument): self._owner(argument, values) for argument in self._of_arguments}
        for position in self._changed:
            self._check_is_alone(position, values)
        if self._plain_changed:
            for position in self._used:
                if id(values[position]) in self._plain_changed and position not in self._graph.known:
                    self._check_is_alone(position, values)
        return found

    def _check_is_alone(self, position: int, values: Sequence[Any]) -> None:
        """What is done to an argument is done to the tensor that is passed: it must not be another one as well."""
        x, known = values[position], self._graph.known
        twice = any(y is x for n, y in enumerate(values) if n != position and n not in known)
        if isinstance(x, Tensor) and (twice or id(x) in self._captured):
            raise FeedError(
                "got a tensor twice, or one that the graph also reads by itself, where a gradient is left in it, or its "
                "requires_grad or hooks are changed; the one would know nothing of the other: pass two tensors, or set "
                "requires_grad before the call and use static.jit, which then sees that they are one"
            ).at(here())

    def asked(self, values: Sequence[Any]) -> dict[int, Any]:
        """The tensors that were passed for all arguments whose `.grad` is read, also where no result depends on it."""
        return {
            id(v.tensor): x
            for x, v in zip(values, self._graph.arguments.values(), strict=True)
            if v.gradient is not None and isinstance(x, Tensor)
        }

    def _owner(self, argument: Argument, values: Sequence[Any]) -> Any:
        """The tensor in whose `.grad` a gradient is left."""
        x, name = values[argument.position], self._names[argument.position]
        wanted = self._graph.arguments[id(argument)].tracked
        if not wanted and not isinstance(x, Tensor):
            return default().lift(x)  # of which nobody else knows
        if wanted and not (isinstance(x, Tensor) and x.tracked):
            got = "a tensor that needs no gradient" if isinstance(x, Tensor) else type(x).__name__
            raise FeedError(
                f"feed {name!r}: got {got}; the function leaves a gradient in this argument: pass a tensor with "
                "requires_grad=True"
            ).at(here())
        if x.call is not None:
            raise self._has_history(argument.position, x)
        return x

    def _check_absence(self, x: Any) -> None:
        if isinstance(x, Tensor) and x.grad is not None:
            raise FeedError(
                f"got a gradient in .grad of a tensor of {x.spec}, but the graph was defined to read that there is none; "
                "clear it, or define the graph again (static.jit does so by itself)"
            ).at(here())

    def _check_flags(self, values: Sequence[Any]) -> None:
        """A graph that is spelled out is not defined again by itself."""
        captured = [(v.tensor, v.tracked, v.hooks) for v in self._graph.variables.values()]
        constants = [(x, False, ()) for x in self._graph.constants]
        fed = [
            (x, x.tracked, v.hooks)
            for x, v in zip(values, self._graph.arguments.values(), strict=True)
            if isinstance(x, Tensor)
        ]
        for x, tracked, hooks in (*captured, *constants, *fed):
            if x.tracked != tracked or tuple(hooks_met(x)) != hooks:
                raise FeedError(
                    f"got a tensor of {x.spec} with another requires_grad, or other hooks, than it had when the graph "
                    "was defined; define the graph again, or use static.jit, which does so by itself"
                ).at(here())

    def _check_histories(self, values: Sequence[Any]) -> None:
        """A gradient that the graph takes ends at its arguments: it must not have to go on behind them."""
        for number, argument in enumerate(self._graph.arguments.values()):
            x, behind = values[number], self._graph.behind.get(id(argument.tensor), ())
            if not behind or not isinstance(x, Tensor) or not x.tracked or x.call is None:
                continue
            targets = [values[t.position] if isinstance(t, Argument) else t for t in behind]
            if leads_to(x, [t for t in targets if isinstance(t, Tensor)]):
                raise self._has_history(number, x)

    def _has_history(self, number: int, x: Any) -> DualgraphError:
        return GraphError(
            f"feed {self._names[number]!r}: got a tensor ({x.spec}) that was computed eagerly and still has its history; "
            "the compiled gradient cannot go back through it: detach() it, or compile the function from its beginning"
        ).at(here())

    def _check_told(self, values: Sequence[Any]) -> None:
        """What follows from a gradient was defined for those arguments that were said to take one."""
        for x, link in zip(values, self._graph.arguments.values(), strict=True):
            if not link.tracked and getattr(x, "tracked", False) and current().grad_enabled:
                raise FeedError(
                    f"feed {link.node.params['name']!r}: got a tensor that takes a gradient; the graph was defined for one "
                    "that takes none: say static.placeholder(…, requires_grad=True), or pass x.detach()"
                ).at(here())

    # After it

    def leave(
        self, passed: dict[int, Any], arrays: Sequence[Array], make: Callable[[Array, Symbol], Any], state: Changes
    ) -> None:
        """Leave gradients with a history, made of `arrays`, flags, hooks and the new `state`, all at once."""
        gradients = [make(array, g) for array, (_, g) in zip(arrays, self.left, strict=True)]
        owners = [passed.get(id(tensor), tensor) for tensor, _ in self.left]
        flags = [(passed[id(v.tensor)], v) for v in self._switched] + [(v.tensor, v) for v in self._flagged]
        changes = Changes(
            (*state.owners, *owners, *(x for x, _ in flags)),
            (*state.slots, *[GRADIENT] * len(owners), *["tracked"] * len(flags)),
            (*state.values, *gradients, *(v.final_tracked for _, v in flags)),
        )
        hooks = [(held := hooks_of(x), v.hooks_left(held)) for x, v in flags]
        before = [list(held) for held, _ in hooks]  # finalisers run when all is done
        changes.commit(map(setitem, [held for held, _ in hooks], [slice(None)] * len(hooks), [new for _, new in hooks]))
        del before


def held_gradient(tensor: Any, link: Link) -> Array:
    """What `.grad` of a tensor holds, where the graph reads it."""
    assert link.gradient is not None
    g, spec = tensor.held_gradient(), link.gradient.spec
    if g is None and link.defaulted:
        return np.full(spec.shape, -0.0, spec.dtype)
    if g is None or g.spec != spec:
        raise FeedError(
            f"got no gradient in .grad of a tensor of {tensor.spec}, but the graph was defined to add to one; run "
            "backward before, or define the graph again (static.jit does so by itself)"
        ).at(here())
    if g.tracked:
        raise GraphError(
            f"got a .grad ({g.spec}) that takes a gradient itself; a graph cannot differentiate through it: detach() it first"
        ).at(link.gradient.node.where)
    return np.ascontiguousarray(g.numpy()).reshape(spec.shape)
