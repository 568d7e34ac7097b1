"""Reverse-mode automatic differentiation: one sweep for both modes.

The sweep walks recorded calls backwards in program order and applies each op's gradient rules through `bind`, so it
computes in eager mode and builds nodes in static mode, with the same rules in the same order (Linnainmaa 1970; for the
rules of matrix products and reductions see Giles 2008). Un-broadcasting and accumulation live here, never in a rule.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

from dualgraph.errors import ArgumentError, DTypeError, GradientError, ShapeError, shown
from dualgraph.ops.arguments import flag
from dualgraph.ops.elementwise import add
from dualgraph.ops.op import Call, contribution, current, within
from dualgraph.ops.reduce import sum_to
from dualgraph.ops.shape import zeros_like
from dualgraph.ops.tensor import FUNCTIONS, TensorMethods
from dualgraph.spec import is_float

Key = tuple[int, int]  # (id of the call or leaf, result number)


def key_of(x: Any) -> Key:
    """What identifies a value of the recorded graph: its call and result number, or the leaf itself."""
    return (id(x.call), x.index) if x.call is not None else (id(x if x.source is None else x.source), -1)


def sweep(
    outputs: Sequence[Any],
    seeds: Sequence[Any],
    wanted: set[Key] | None,
    retain: bool,
    create_graph: bool,
    leaf: Callable[[Any, Any], None],
    intermediate: Callable[[Any, int, Any], None] | None = None,
) -> None:
    """Propagate `seeds` from `outputs` to the leaves.

    `leaf(x, g)` receives the finished gradient of each leaf (zeros where only piecewise constant functions lead to it), `intermediate(call, number, g)` that of each call's result.
    `wanted` restricts the sweep to paths that lead to the given values.
    """
    front = current().with_grad(create_graph)
    gradients: dict[Key, Any] = {}
    leaves: dict[Key, Any] = {}
    flat: dict[Key, Any] = {}  # values of which something reached is a piecewise constant function
    pending: list[tuple[int, Call]] = []

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

    def run() -> None:
        for x, seed in zip(outputs, seeds, strict=True):
            reach(x, seed)
        last = None
        while pending:
            call = heapq.heappop(pending)[1]
            if call is last:  # reached through several of its results
                continue
            last = call
            _propagate(front, call, gradients, reach, flat, useful, create_graph, intermediate)
            if not retain:
                front.release(call)
        for key, x in leaves.items():
            leaf(x, _finished(x.hooks, gradients[key]))
        for key, x in flat.items():
            if key not in leaves and (x.call is None if wanted is None else key in wanted):
                leaf(x, _finished(x.hooks, zeros_like(x)))

    started = front.begin_sweep()
    useful = _paths_to(outputs, wanted) if wanted is not None else None
    within(front, run)
    front.end_sweep(started)


def _finished(hooks: Sequence[Callable[[Any], Any]] | None, g: Any) -> Any:
    """The gradient after the hooks of its tensor."""
    for hook in hooks or ():
        replacement = hook(g)
        if replacement is not None:
            if not isinstance(replacement, TensorMethods):
                raise DTypeError(
                    f"hook: got {shown(replacement)} in place of a gradient of {g.spec}; return a tensor, or None to keep it"
                )
            if replacement.spec != g.spec:
                raise ShapeError(f"hook: got a gradient of {replacement.spec}, the tensor's is {g.spec}; keep its spec")
            g = replacement
    return g


def _propagate(
    front: Any,
    call: Call,
    gradients: dict[Key, Any],
    reach: Callable[[Any, Any], None],
    flat: dict[Key, Any],
    useful: set[int] | None,
    create_graph: bool,
    intermediate: Callable[[Any, int, Any], None] | None,
) -> None:
    """Apply the gradient rules of one call to the gradients of its results."""
    op = call.op
    if call.freed:
        raise GradientError(
            f"backward: the values saved by {op.name} were freed by an earlier backward; "
            "call the first backward with retain_graph=True to go through a graph again"
        ).at(call.where)
    if op.vjp == ():
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
    inputs = call.inputs
    if useful is None:
        wanted = tuple([(x if x.source is None else x.source).requires_grad for x in inputs])
    else:  # a leaf may have been switched since
        wanted = tuple([(x if x.source is None else x.source).requires_grad and _leads(x, useful) for x in inputs])
    if len(found) > 1:
        found = [zeros_like(front.result(call, n)) if g is None else g for n, g in enumerate(found)]
    if call.plan is not None and front.joint and op.joint_vjp and not create_graph:
        pulled = dict(front.pull(call, found, wanted))
        for number, g in pulled.items():
            reach(inputs[number], g)
        if len(pulled) < wanted.count(True):
            _note_flat([x for number, x in enumerate(inputs) if wanted[number] and number not in pulled], flat)
        return
    results = [front.result(call, n) for n in range(len(found))]
    g, out = (found[0], results[0]) if len(found) == 1 else (tuple(found), tuple(results))
    values = front.saved_inputs(call, create_graph)
    for number, want in enumerate(wanted):
        if want:
            part = contribution(op, number, g, out, values, call.params)
            if part is None:
                _note_flat([inputs[number]], flat)
            else:
                if not isinstance(part, TensorMethods):
                    raise GradientError(
                        f"{op.name}: its gradient rule gave {shown(part)}; it must give a tensor, or None where there is no "
                        "gradient; write it in public operations"
                    ).at(call.where)
                have, target = part.layout, inputs[number].layout
                same = have[0] == target[0] and have[1] == target[1]
                reach(inputs[number], part if same else sum_to(part, inputs[number].spec))


def _note_flat(stack: list[Any], flat: dict[Key, Any]) -> None:
    """Note values to which a rule passes nothing on, and all before them: where nothing else comes, the gradient is 0."""
    while stack:
        x = stack.pop()
        key = key_of(x)
        if (x if x.source is None else x.source).requires_grad and key not in flat:
            flat[key] = x
            if x.call is not None:
                stack.extend(x.call.inputs)


def _leads(x: Any, useful: set[int]) -> bool:
    return key_of(x)[0] in useful


def _paths_to(outputs: Sequence[Any], wanted: set[Key]) -> set[int]:
    """Identities of the calls and leaves from which a wanted value can be reached."""
    calls: dict[int, Call] = {}
    stack = [x.call for x in outputs if x.call is not None]
    while stack:
        call = stack.pop()
        if id(call) not in calls:
            if call.op.no_gradient:  # what lies behind it cannot be known, so it might matter
                raise GradientError(f"grad: {call.op.no_gradient}").at(call.where)
            calls[id(call)] = call
            stack.extend(x.call for x in call.inputs if x.call is not None)
    useful = {key[0] for key in wanted}
    for call in sorted(calls.values(), key=lambda c: c.serial):
        if any(_leads(x, useful) for x in call.inputs):
            useful.add(id(call))
    return useful


def _seed(output: Any, gradient: Any, name: str) -> Any:
    if not output.requires_grad:
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
        return current().constant(1.0, output.layout[1])
    gradient = current().unchanged(current().lift(gradient))
    if gradient.shape != output.shape:
        raise ShapeError(
            f"{name}: got a gradient of shape {gradient.shape} for an output of shape {output.shape}; "
            "they must be equal"
        )
    return sum_to(gradient, output.spec)


def backward(output: Any, gradient: Any = None, retain_graph: bool = False, create_graph: bool = False) -> None:
    """Add the gradient of `output` to `.grad` of every leaf it depends on."""
    output = current().lift(output)
    retain_graph = flag("backward", "retain_graph", retain_graph)
    create_graph = flag("backward", "create_graph", create_graph)

    def accumulate(x: Any, g: Any) -> None:
        held = x.grad
        x.grad = g if held is None else add(held, g)

    seed = within(current().with_grad(create_graph), _seed, output, gradient, "backward")
    sweep([output], [seed], None, retain_graph or create_graph, create_graph, accumulate)


def grad(
    outputs: Any,
    inputs: Sequence[Any] | Any,
    grad_outputs: Any = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> list[Any]:
    """Gradients of `outputs` (summed) with respect to each of `inputs`, without touching `.grad`.

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
    outs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    wrt = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    given = list(grad_outputs) if isinstance(grad_outputs, (list, tuple)) else [grad_outputs] * len(outs)
    if len(given) != len(outs):
        raise ArgumentError(
            f"grad: got {len(given)} grad_outputs for {len(outs)} outputs; there must be one for each; None stands for 1"
        )
    front = current()
    targets = [front.lift(x) for x in wrt]
    outs = [front.lift(x) for x in outs]
    for x in targets:
        if not is_float(x.layout[1]):
            raise DTypeError(f"grad: got an input of {x.spec}; gradients exist for floats only; cast it first")
        if not x.requires_grad:
            raise GradientError(
                f"grad: an input of {x.spec} needs no gradient; set requires_grad=True before it is used"
            )
    inner = front.with_grad(create_graph)
    seeds = [within(inner, _seed, o, g, "grad") for o, g in zip(outs, given, strict=True)]
    found: dict[Key, Any] = {}
    wanted = {key_of(x) for x in targets}

    def leaf(x: Any, g: Any) -> None:
        found.setdefault(key_of(x), g)

    def intermediate(call: Any, number: int, g: Any) -> None:
        if (id(call), number) in wanted:
            found[id(call), number] = g

    sweep(outs, seeds, wanted, retain, create_graph, leaf, intermediate)
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


FUNCTIONS["backward"] = backward
