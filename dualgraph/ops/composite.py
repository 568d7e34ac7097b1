"""Composite ops: an op written as ops over ops.

In eager mode a composite runs as one launch of its fused kernels, as libraries ship them; in static mode a pass opens it,
and its parts fuse with their neighbours. Both differentiate the composite as a whole, before it is taken apart, so both
give the same bits.

The gradient is derived by differentiating the function, and is a composite again, for each input one; it is written by
hand where that is shorter to compute or rounds less (`gradients`), or as a rule in public ops (`vjp`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualgraph.core.mode import bind, current, within
from dualgraph.core.op import Call, Op, Operand, Part, Vjp, as_view, keywords
from dualgraph.core.tensor import FUNCTIONS
from dualgraph.dtypes import DTYPES, STORED, scalar_array
from dualgraph.errors import DTypeError, GraphError, shown
from dualgraph.kernels.program import Program, View
from dualgraph.ops.symbol import PLACEHOLDER, Recorder, Symbol, literal_of
from dualgraph.spec import Spec, is_float

MOST_TRACES = 4096  # of one composite: shapes and options that keep changing must not fill the memory


class _Composition(Recorder):
    """Records what is run for many shapes and options."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def add(self, call: Call) -> None:
        self.calls.append(call)

    def number(self, value: float, dtype: str) -> Symbol:
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
            return self.constant_array(scalar_array(value, dtype), operand=True)


class Traced:
    """The calls of a composite for given input specs and parameters.

    They are all that it computes, with each rounding: so it does not matter whether they are lowered together or one by one.

    What a `whole` is given in a stored dtype is widened, and only results are rounded, to the dtypes that the function
    gives for it.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], specs: Sequence[Spec], params: dict[str, Any], whole: bool
    ):
        recorder = _Composition()
        recorder.grad_enabled = False
        self.inputs = [recorder.placeholder(Spec(s.shape, s.dtype), f"x{i}") for i, s in enumerate(specs)]

        def called(inputs: Sequence[Symbol]) -> tuple[Symbol, ...]:
            results = function(*inputs, **params)
            results = results if isinstance(results, tuple) else (results,)
            try:
                return tuple([recorder.lift(x) for x in results])
            except DTypeError:
                raise GraphError(
                    f"{name}: got {shown(results)} from the function of a composite operation; it returns a tensor or a "
                    "tuple of tensors; return these"
                ) from None

        def rounded_once(inputs: Sequence[Symbol]) -> tuple[Symbol, ...]:
            astype: Any = FUNCTIONS["astype"]
            results = called([astype(x, DTYPES[x.layout.dtype].compute) for x in inputs])
            return tuple([astype(x, y.layout.dtype) for x, y in zip(results, called(inputs), strict=True)])

        stored = any(x.layout.dtype in STORED for x in self.inputs)
        self.outputs: tuple[Symbol, ...] = within(recorder, rounded_once if whole and stored else called, self.inputs)
        self.calls = needed_calls(recorder.calls, self.outputs)


def needed_calls(calls: Sequence[Call], outputs: Sequence[Symbol]) -> list[Call]:
    """The calls that `outputs` depend on, in program order."""
    needed = {id(x.node) for x in outputs}
    kept = []
    for call in reversed(calls):
        if id(call) in needed:
            kept.append(call)
            needed.update(id(x.node) for x in call.inputs)
    return kept[::-1]


def lower_calls(program: Program, calls: Sequence[Call], values: dict[tuple[int, int], Operand]) -> None:
    """Append the kernels of `calls`; `values` maps (id of call, result) to operands and grows; placeholders are in it already."""
    for call in calls:
        if (id(call), 0) in values:
            continue
        literal = literal_of(call)
        if literal is not None:
            values[id(call), 0] = literal
            continue
        operands = tuple(values[operand_key(x)] for x in call.inputs)
        results = lower_call(program, call.op, operands, call.specs, call.params)
        for number, view in enumerate(results):
            values[id(call), number] = view


def lower_call(
    program: Program, op: Op, operands: tuple[Operand, ...], specs: Sequence[Spec], params: dict[str, Any]
) -> tuple[View, ...]:
    """Append the kernels of one call."""
    if not op.literal_scalars:
        operands = tuple(as_view(program, x) for x in operands)
    elif op.scalar is not None and not any(isinstance(x, View) for x in operands):
        operands = (as_view(program, operands[0]), *operands[1:])  # kernels need one operand to be told from a constant
    return op.lower(program, operands, tuple(specs), params)


def operand_key(x: Symbol) -> tuple[int, int]:
    """What identifies a value among the calls being lowered."""
    return (id(x.node), x.index)


def opened(whole: Call, inputs: Sequence[Symbol], recorder: Any) -> tuple[list[Part], list[Symbol]]:
    """The calls that a composite consists of, of these inputs and in its place, and its results among theirs."""
    parts: list[Part] = []
    results = _open(whole, whole, inputs, recorder, parts)
    for number, part in enumerate(parts[:-1], 1):
        part.number = number
    return parts, results


def _open(whole: Call, call: Call, inputs: Sequence[Symbol], recorder: Any, parts: list[Part]) -> list[Symbol]:
    assert call.op.parts is not None
    trace: Traced = call.op.parts([x.layout for x in inputs], call.params)
    values = dict(zip(map(operand_key, trace.inputs), inputs, strict=True))
    for inner in trace.calls:
        if (id(inner), 0) in values:
            continue
        operands = tuple([values[operand_key(x)] for x in inner.inputs])
        if inner.op.parts is None:
            part = Part(inner.op, operands, inner.params, inner.specs, whole)
            parts.append(part)
            results = [Symbol(recorder, part, number) for number in range(len(part.specs))]
        else:
            results = _open(whole, inner, operands, recorder, parts)
        for number, x in enumerate(results):
            values[id(inner), number] = x
    return [values[operand_key(x)] for x in trace.outputs]


def composite(
    name: str,
    function: Callable[..., Any],
    vjp: tuple[Vjp | None, ...] | Vjp | None = None,
    spec: Callable[..., Any] | None = None,
    gradients: tuple[Callable[..., Any] | None, ...] = (),
    parameters: tuple[str, ...] | None = None,
    whole: bool = True,
) -> Op:
    """An op computed by `function(*inputs, **params)`, written in public ops.

    `gradients` are functions over public ops, one for each input (None: no gradient). They take by their names what they
    need of `g`, `out` and the parameters of `function`; each is made a composite. Without them, and without a `vjp`, the
    gradient is derived. `parameters` has the names of those that the function does not name itself. What is not a `whole`
    is only launched as one: each of its ops rounds its own results.
    """
    if parameters is None:
        parameters = keywords(function)
    if vjp is None:
        vjp = _written(name, function, gradients) if gradients else _derived(name, function, parameters)
    traces: dict[Any, Traced] = {}

    def traced(specs: Sequence[Any], params: dict[str, Any]) -> Traced:
        key = (*[(s.shape, s.dtype) for s in specs], *params.values())
        found = traces.get(key)
        if found is None:
            if len(traces) >= MOST_TRACES:
                traces.clear()
            found = traces[key] = Traced(name, function, specs, params, whole)
        return found

    def infer(*specs: Any, **params: Any) -> tuple[Spec, ...]:
        if spec is not None:
            spec(*specs, **params)
        return tuple(x.spec for x in traced(specs, params).outputs)

    def lower(
        program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
    ) -> tuple[View, ...]:
        inputs = [Spec(x.shape, x.dtype) if isinstance(x, View) else Spec((), x[1]) for x in operands]
        trace = traced(inputs, params)
        values: dict[tuple[int, int], Operand] = {
            operand_key(symbol): operand for symbol, operand in zip(trace.inputs, operands, strict=True)
        }
        lower_calls(program, trace.calls, values)
        return tuple(as_view(program, values[operand_key(x)]) for x in trace.outputs)

    return Op(name, infer, lower, vjp, composition=function, parts=traced, parameters=parameters)


def _written(name: str, function: Callable[..., Any], gradients: Sequence[Callable[..., Any] | None]) -> Vjp:
    """Gradients that are given as functions of some of `g`, `out` and the inputs."""
    known = ("g", "out", *_positional(function))
    ops = [None if f is None else composite(f"{name}_vjp{n or ''}", f) for n, f in enumerate(gradients)]
    takes = [() if f is None else tuple(known.index(place) for place in _positional(f)) for f in gradients]

    def vjp(number: int, g: Any, out: Any, /, *inputs: Any, **params: Any) -> Any:
        op, operands = ops[number], (g, out, *inputs)
        return None if op is None else bind(op, *[operands[i] for i in takes[number] if i < len(operands)], **params)

    return vjp


def _positional(function: Callable[..., Any]) -> tuple[str, ...]:
    code = function.__code__
    return code.co_varnames[: code.co_argcount]


def _derived(name: str, function: Callable[..., Any], parameters: tuple[str, ...]) -> Vjp:
    """The gradient of a composite as composites, one for each input, made when first needed."""
    rules: dict[tuple[int, int], Op] = {}

    def vjp(number: int, g: Any, out: Any, /, *inputs: Any, **params: Any) -> Any:
        if not is_float(inputs[number].layout.dtype):
            return None
        gradients = g if isinstance(g, tuple) else (g,)
        key = (number, len(gradients))
        if key not in rules:
            rules[key] = composite(f"{name}_vjp{number}", _pullback(function, *key), parameters=parameters)
        operands, rule = (*gradients, *inputs), rules[key]
        assert rule.parts is not None
        depends = any(call.op is PLACEHOLDER for call in rule.parts([x.layout for x in operands], params).calls)
        return bind(rule, *operands, **params) if depends else None  # on nothing, not even on g: it is 0

    return vjp


def _pullback(function: Callable[..., Any], number: int, count: int) -> Callable[..., Any]:
    def gradient(*operands: Any, **params: Any) -> Any:
        gradients, inputs = operands[:count], operands[count:]
        leaves = [x if x.tracked else _leaf(x) for x in inputs]  # who differentiates again asks for the same ones

        def differentiated() -> Any:
            out = function(*leaves, **params)
            outs = [current().lift(o) for o in (out if isinstance(out, tuple) else (out,))]
            pairs = [(o, g) for o, g in zip(outs, gradients, strict=True) if o.tracked]
            return FUNCTIONS["grad"](
                [o for o, _ in pairs], [leaves[number]], [g for _, g in pairs], create_graph=True, allow_unused=True
            )[0]

        return within(current().with_grad(True), differentiated)

    return gradient


def _leaf(x: Symbol) -> Symbol:
    """A symbol as a leaf to differentiate with respect to."""
    return Symbol(x.recorder, x.node, x.index, is_float(x.layout.dtype), leaf=True)
