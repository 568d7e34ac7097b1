"""Reverse-mode automatic differentiation: one sweep for both modes.

The sweep walks recorded calls backwards in program order and applies each op's gradient rules through `bind`, so it
computes in eager mode and builds nodes in static mode, with the same rules in the same order (Linnainmaa 1970; for the
rules of matrix products and reductions see Giles 2008). Un-broadcasting and accumulation live here, never in a rule.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from dualgraph.core.arguments import flag
from dualgraph.core.mode import FrontEnd, current, within
from dualgraph.core.op import Call
from dualgraph.core.tensor import FUNCTIONS, Tensor, is_retaining
from dualgraph.errors import ArgumentError, DTypeError, DualgraphError, GradientError, ShapeError, shown
from dualgraph.ops.elementwise import add
from dualgraph.ops.identity import identity
from dualgraph.ops.reduce import sum_to
from dualgraph.ops.shape import zeros_like
from dualgraph.spec import Spec, is_float

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike

Key = tuple[int, int]  # (id of the call or leaf, result number)


def key_of(x: Any) -> Key:
    """What identifies a value of the recorded graph: its call and result number, or the leaf itself."""
    return (id(x.call), x.index) if x.call is not None else (id(x if x.source is None else x.source), -1)


def sweep(
    front: FrontEnd,
    outputs: Sequence[Any],
    seeds: Sequence[Any],
    targets: Sequence[Any] | None,
    retain: bool,
    create_graph: bool,
    leaf: Callable[[Any, Any], None],
    intermediate: Callable[[Any, int, Any], None] | None = None,
) -> None:
    """Propagate `seeds` from `outputs` to the leaves; `front` is the current front end.

    `leaf(x, g)` receives the finished gradient of each leaf, `intermediate(call, number, g)` that of each call's result.
    A leaf to which only piecewise constant functions lead gets zeros.
    `targets` restricts the sweep to paths that lead to these values.
    """
    gradients: dict[Key, Any] = {}
    leaves: dict[Key, Any] = {}
    flat: dict[Key, Any] = {}  # values of which something reached is a piecewise constant function
    pending: list[tuple[int, Call]] = []
    behind = Behind()

    def reach(x: Any, g: Any) -> None:
        call = x.call
        key = (id(call), x.index) if call is not None else (id(x if x.source is None else x.source), -1)
        held = gradients.get(key)
        if held is not None:
            gradients[key] = add(held, g)
            return
        gradients[key] = g
        if call is None:
            leaves[key] = x
        else:
            heapq.heappush(pending, (-call.serial, call))

    started = front.begin_sweep()
    useful, met = (None, Leaves()) if targets is None else _paths_to(outputs, targets)
    for x, seed in zip(outputs, seeds, strict=True):
        reach(x, seed)
    last = None
    while pending:
        call = heapq.heappop(pending)[1]
        if call is last:  # reached through several of its results
            continue
        last = call
        if _propagate(front, call, gradients, reach, flat, behind, useful, create_graph, intermediate) and not retain:
            call.behind = behind
            front.release(call)
    for key, x in leaves.items():
        leaf(x, _finished(x.hooks, gradients[key]))
    if flat:
        asked = None if targets is None else {key_of(x) for x in targets}
        for key, x in flat.items():
            if key not in leaves and (x.call is None if asked is None else key in asked):
                leaf(x, _finished(x.hooks if x.call is None else None, zeros_like(x)))
    if met is not None:
        behind.add([x for x in (*leaves.values(), *flat.values()) if x.call is None] if flat else leaves.values())
        behind.leaves = {**met, **(behind.known or {})} if met else behind.known
    front.end_sweep(started)


def _finished(hooks: Sequence[Callable[[Any], Any]] | None, g: Any) -> Any:
    """The gradient after the hooks that its tensor has now; those that only look come last."""
    for hook in sorted(hooks, key=is_retaining) if hooks else ():
        replacement = hook(g)
        if replacement is not None:
            if not isinstance(replacement, Tensor):
                raise DTypeError(
                    f"hook: got {shown(replacement)} in place of a gradient of {g.spec}; return a tensor, or None to keep it"
                )
            if replacement.spec != g.spec:
                raise ShapeError(f"hook: got a gradient of {replacement.spec}, the tensor's is {g.spec}; keep its spec")
            g = identity(replacement)
    return g


def _propagate(
    front: FrontEnd,
    call: Call,
    gradients: dict[Key, Any],
    reach: Callable[[Any, Any], None],
    flat: dict[Key, Any],
    behind: Behind,
    useful: set[int] | None,
    create_graph: bool,
    intermediate: Callable[[Any, int, Any], None] | None,
) -> bool:
    """Apply the gradient rules of one call to the gradients of its results; not where these are all that is wanted."""
    op, inputs = call.op, call.inputs
    through = useful is None or any(_leads(x, useful) for x in inputs)
    if through:
        if call.freed:
            raise _freed(call)
        if op.vjp is None:
            why = f"{op.name} has no gradient rule; detach its input, or define the op with a vjp"
            raise GradientError(f"backward: {op.no_gradient or why}").at(call.where)
    found: list[Any] = []
    for number in range(len(call.specs)):
        arrived = gradients.pop((id(call), number), None)
        if arrived is not None:
            if call.hooks:
                arrived = _finished(call.hooks.get(number), arrived)
            if intermediate is not None:
                intermediate(call, number, arrived)
        found.append(arrived)
    if not through:
        return False
    wanted, now = call.tracked, tuple([(x if x.source is None else x.source).tracked for x in inputs])
    if now != wanted:  # who took no gradient then gets none; who takes none now, a leaf frozen since, neither
        behind.add([x for then, want, x in zip(wanted, now, inputs, strict=True) if then and not want])
        wanted = tuple([then and want for then, want in zip(wanted, now, strict=True)])
    if useful is not None:
        wanted = tuple([want and _leads(x, useful) for want, x in zip(wanted, inputs, strict=True)])
    if len(found) > 1:
        found = [zeros_like(front.result(call, n)) if g is None else g for n, g in enumerate(found)]
    pulled = front.pull(call, found, wanted, create_graph)
    if pulled is not None:
        gradients_of_inputs, without = pulled
        for number, part in gradients_of_inputs:
            reach(inputs[number], part)
        if without:
            _note_flat([inputs[number] for number in without], flat)
        return True
    results = [front.result(call, n) for n in range(len(found))]
    g: Any = found[0] if len(found) == 1 else tuple(found)
    out: Any = results[0] if len(found) == 1 else tuple(results)
    values = front.saved_inputs(call, create_graph)
    for number, want in enumerate(wanted):
        if want:
            part = op.vjp(number, g, out, *values, **call.params)
            if part is None:
                _note_flat([inputs[number]], flat)
            else:
                if not isinstance(part, Tensor):
                    raise GradientError(
                        f"{op.name}: its gradient rule gave {shown(part)}; it must give a tensor, or None where there is no "
                        "gradient; write it in public operations"
                    ).at(call.where)
                have, target = part.layout, inputs[number].layout
                same = have[0] == target[0] and have[1] == target[1]
                reach(inputs[number], part if same else _fitted(call, part, inputs[number].spec))
    return True


def _fitted(call: Call, part: Any, spec: Spec) -> Any:
    """What a gradient rule gave, in the shape and dtype of the input."""
    if not is_float(part.layout.dtype):
        raise GradientError(
            f"{call.op.name}: its gradient rule gave {part.spec} for an input of {spec}; gradients are floats; cast it with "
            "astype"
        ).at(call.where)
    try:
        return sum_to(part, spec)
    except ShapeError as error:
        raise ShapeError(f"{call.op.name}: its gradient rule gave what does not fit: {error.args[0]}").at(
            call.where
        ) from None


Leaves = dict[int, ref[Any]]


class Behind:
    """What is known of the leaves behind calls that a sweep freed: some of `leaves`, which are `known` when it is over."""

    known: Leaves | None = None
    leaves: Leaves | None = None

    def add(self, leaves: Iterable[Any]) -> None:
        owners = [x if x.source is None else x.source for x in leaves]
        self.known = {**(self.known or {}), **{id(owner): ref(owner) for owner in owners}}

    def may_hold(self, targets: dict[int, Any]) -> bool:
        """Whether one of these leaves may be among them."""
        if self.leaves is None:
            return bool(targets)
        found = ((self.leaves.get(number), x) for number, x in targets.items())
        return any(reference is not None and reference() is x for reference, x in found)


def _freed(call: Call) -> DualgraphError:
    return GradientError(
        f"backward: the values saved by {call.op.name} were freed by an earlier backward; "
        "call the first backward with retain_graph=True to go through a graph again"
    ).at(call.where)


def _note_flat(stack: list[Any], flat: dict[Key, Any]) -> None:
    """Note values to which a rule passes nothing on, and all before them: where nothing else comes, the gradient is 0."""
    while stack:
        x = stack.pop()
        key = key_of(x)
        if (x if x.source is None else x.source).tracked and key not in flat:
            flat[key] = x
            if x.call is not None:
                if x.call.freed:
                    raise _freed(x.call)
                call = x.call
                stack.extend(x for then, x in zip(call.tracked, call.inputs, strict=True) if then)


def leads_to(x: Any, targets: Sequence[Any]) -> bool:
    """Whether a value was computed from one of the targets, as far as can be known."""
    keys = {key_of(target) for target in targets}
    stack, seen = [x], set()
    while stack:
        x = stack.pop()
        key = key_of(x)
        if key in keys:
            return True
        if x.call is not None and id(x.call) not in seen:
            if x.call.freed or x.call.op.no_gradient:
                return True
            seen.add(id(x.call))
            stack.extend(x.call.inputs)
    return False


def _leads(x: Any, useful: set[int]) -> bool:
    return key_of(x)[0] in useful


def _paths_to(outputs: Sequence[Any], targets: Sequence[Any]) -> tuple[set[int], Leaves | None]:
    """Identities of the calls and leaves from which a target can be reached; and all leaves, if they are known."""
    calls: dict[int, Call] = {}
    met: Leaves | None = {}
    owners = (x if x.source is None else x.source for x in targets if x.call is None)
    leaves = {id(owner): owner for owner in owners}
    first = min((x.call.serial for x in targets if x.call is not None), default=math.inf)
    stack = [x.call for x in outputs if x.call is not None]
    while stack:
        call = stack.pop()
        if id(call) not in calls:
            if call.op.no_gradient:  # what lies behind it cannot be known, so it might matter
                raise GradientError(f"grad: {call.op.no_gradient}").at(call.where)
            if call.freed:
                if call.serial > first or call.behind.may_hold(leaves):
                    raise _freed(call)
                met = None if met is None or call.behind.leaves is None else {**met, **call.behind.leaves}
                continue
            calls[id(call)] = call
            stack.extend(x.call for x in call.inputs if x.call is not None)
            if met is not None:
                inputs = (x if x.source is None else x.source for x in call.inputs if x.call is None)
                met.update({id(owner): ref(owner) for owner in inputs})
    useful = {key_of(x)[0] for x in targets}
    for call in sorted(calls.values(), key=lambda c: c.serial):
        if any(_leads(x, useful) for x in call.inputs):
            useful.add(id(call))
    return useful, met


def _seed(front: FrontEnd, output: Any, gradient: Any, name: str) -> Any:
    if not output.tracked:
        raise GradientError(
            f"{name}: the output {output.spec} needs no gradient (nothing it was computed from has requires_grad, or it "
            "was computed under no_grad); set requires_grad=True on a parameter or input first"
        )
    if gradient is None:
        if output.shape != ():
            raise GradientError(
                f"{name}: got an output of shape {output.shape}; only a scalar has an implied gradient of 1; "
                "reduce it with sum or mean, or pass the gradient"
            )
        return front.seed(output.layout.dtype)
    gradient = identity(gradient)
    if gradient.shape != output.shape:
        raise ShapeError(
            f"{name}: got a gradient of shape {gradient.shape} for an output of shape {output.shape}; "
            "they must be equal"
        )
    return sum_to(gradient, output.spec)


def backward(
    output: Tensor, gradient: ArrayLike | None = None, retain_graph: bool = False, create_graph: bool = False
) -> None:
    """Add the gradient of `output` to `.grad` of every leaf it depends on."""
    output = current().lift(output)
    retain_graph = flag("backward", "retain_graph", retain_graph)
    create_graph = flag("backward", "create_graph", create_graph)

    front = current().with_grad(create_graph)

    def accumulate(x: Any, g: Any) -> None:
        held = front.held_before(x)
        x.grad = g if held is None else add(held, g)

    def run() -> None:
        seed = _seed(front, output, gradient, "backward")
        sweep(front, [output], [seed], None, retain_graph or create_graph, create_graph, accumulate)

    within(front, run)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: ArrayLike | Sequence[ArrayLike | None] | None = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> list[Tensor]:
    """Gradients of `outputs` (summed) with respect to each of `inputs`, without touching the `.grad` of leaves.

    With `create_graph` the gradients can be differentiated again. An input that does not matter gets zeros with
    `allow_unused=True` and is an error otherwise.

    >>> import dualgraph as dg
    >>> x = dg.tensor(3.0, requires_grad=True)
    >>> (g,) = dg.grad(x * x, [x], create_graph=True)
    >>> (h,) = dg.grad(g, [x])
    >>> g.item(), h.item()
    (6.0, 2.0)
    """
    create_graph, allow_unused = (
        flag("grad", "create_graph", create_graph),
        flag("grad", "allow_unused", allow_unused),
    )
    retain = create_graph if retain_graph is None else flag("grad", "retain_graph", retain_graph)
    given_outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    wrt = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    given = list(grad_outputs) if isinstance(grad_outputs, (list, tuple)) else [grad_outputs] * len(given_outputs)
    if len(given) != len(given_outputs):
        raise ArgumentError(
            f"grad: got {len(given)} grad_outputs for {len(given_outputs)} outputs; there must be one for each; None stands for 1"
        )
    front = current()
    targets = [front.lift(x) for x in wrt]
    outs = [front.lift(x) for x in given_outputs]
    for x in targets:
        if not is_float(x.layout.dtype):
            raise DTypeError(f"grad: got an input of {x.spec}; gradients exist for floats only; cast it first")
        if not x.tracked:
            raise GradientError(
                f"grad: an input of {x.spec} needs no gradient; set requires_grad=True before it is used"
            )
    front = front.with_grad(create_graph)
    found: dict[Key, Any] = {}
    wanted = {key_of(x) for x in targets}

    def leaf(x: Any, g: Any) -> None:
        found.setdefault(key_of(x), g)

    def intermediate(call: Any, number: int, g: Any) -> None:
        if (id(call), number) in wanted:
            found[id(call), number] = g

    def run() -> None:
        seeds = [_seed(front, o, g, "grad") for o, g in zip(outs, given, strict=True)]
        sweep(front, outs, seeds, targets, retain, create_graph, leaf, intermediate)

    front.differentiates(outs, targets)
    within(front, run)
    results = []
    for x in targets:
        g = found.get(key_of(x))
        if g is None:
            if not allow_unused:
                raise GradientError(
                    f"grad: the outputs do not depend on an input of {x.spec}; pass allow_unused=True to get zeros for it"
                )
            g = zeros_like(x)
        results.append(g)
    return results


FUNCTIONS.update(backward=backward, grad=grad)  # type: ignore[arg-type]  # without one tensor as the result
