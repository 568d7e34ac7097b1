"""Functions that run step by step, generators and coroutines, with each of their steps in a context.

What a decorator that only enters, calls and leaves does to such a function is nothing: the call makes a generator, and its
steps run later, wherever the caller is then.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

Run = Callable[..., Any]  # calls a function in a context


def stepped(function: Callable[..., Any], run: Run) -> Callable[..., Any]:
    """The function with each of its steps run by `run`: those of a generator or coroutine function, or its one call."""
    kinds = (function, getattr(function, "__call__", None))  # noqa: B004 - of an object with such a method

    def of_kind(test: Callable[[Any], bool]) -> bool:
        return any(test(kind) for kind in kinds)

    if of_kind(inspect.isgeneratorfunction):
        made = _generated
    elif of_kind(inspect.iscoroutinefunction):
        made = _awaited
    elif of_kind(inspect.isasyncgenfunction):
        made = _generated_async
    else:
        made = None
    if made is None:

        @functools.wraps(function)
        def inside(*args: Any, **named: Any) -> Any:
            return run(function, *args, **named)

        return inside
    return functools.wraps(function)(made(function, run))


def _generated(function: Callable[..., Any], run: Run) -> Callable[..., Any]:
    def inside(*args: Any, **named: Any) -> Any:
        return (yield from _steps(function(*args, **named), run))

    return inside


def _awaited(function: Callable[..., Any], run: Run) -> Callable[..., Any]:
    async def inside(*args: Any, **named: Any) -> Any:
        return await _Steps(function(*args, **named), run)

    return inside


def _generated_async(function: Callable[..., Any], run: Run) -> Callable[..., Any]:
    async def inside(*args: Any, **named: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **named)
        step = generator.__anext__()
        while True:
            try:
                given = await _Steps(step, run)
            except StopAsyncIteration:
                break
            try:
                step = generator.asend((yield given))
            except GeneratorExit:
                await _Steps(generator.aclose(), run)
                raise
            except BaseException as error:
                step = generator.athrow(error)

    return inside


class _Steps:
    """An awaitable, each step of which is run by `run`."""

    def __init__(self, awaitable: Any, run: Run):
        self.awaitable, self.run = awaitable, run

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from _steps(self.awaitable.__await__(), self.run))


def _steps(generator: Any, run: Run) -> Any:
    """A generator whose steps are those of another one, each by `run`: what is sent, thrown and returned goes through."""
    step: Any = generator.__next__
    argument: tuple[Any, ...] = ()
    try:
        while True:
            given = run(step, *argument)
            try:
                step, argument = _send(generator, (yield given))
            except GeneratorExit:
                run(generator.close)
                raise
            except BaseException as error:
                step, argument = generator.throw, (error,)
    except StopIteration as end:
        return end.value


def _send(generator: Any, value: Any) -> tuple[Any, tuple[Any, ...]]:
    return (generator.__next__, ()) if value is None else (generator.send, (value,))
