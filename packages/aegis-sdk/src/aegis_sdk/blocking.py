"""The client for code that has no event loop: threads, scripts, Flask, Django, cron, notebooks.

    with aegis_sdk.blocking.connect(url) as aegis:
        position = aegis.request(BOOK, fill, resource="ACC-1", timeout_s=2.0)

Theory of operation. Each client has an event loop in a thread of its own, its *home*, and there an ordinary client. A verb is carried
out by that one: the calling thread hands the call over, and sleeps until it has ended. So there is one implementation, any number of
threads share one connection, and signatures and types are those of `aegis_sdk.Aegis`.

What must stay true:

- A call that was handed over ends: with its result, its error, or `Draining` when the home ends first. Nobody sleeps for ever.
- An exception that wakes the sleeping thread (Ctrl-C, a signal's handler) cancels the call, as the cancellation of a task does.
- A thread that would wait for itself is told so instead: a handler that runs on this home, or on any loop that serves an instance.
- A forked child has no home. Every verb says so; `close` has nothing to do there.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from aegis_sdk import client, instance, process
from aegis_sdk.application.composing import CLOSED
from aegis_sdk.application.outcomes import DOUBTS
from aegis_sdk.application.place import PLACE, told_doubt
from aegis_sdk.contract.method import Method
from aegis_sdk.errors import ContractError, Draining

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["Aegis", "Instance", "connect"]

END_S_MAX: Final = 5.0
"""How long `close` waits for the thread, once the client in it is closed."""


class _Call:
    """One verb on its way: made by a thread that waits, carried out at home."""

    __slots__ = ("_ended", "_error", "_result", "_task", "_verb")

    def __init__(self, verb: Callable[[], Any]) -> None:
        self._verb = verb
        self._task: asyncio.Task[Any] | None = None
        self._result: Any = None
        self._error: BaseException | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def wait(self) -> Any:
        self._ended.acquire()
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            self._error = None  # it holds this frame by its traceback

    # --- at home ------------------------------------------------------------------------------------------
    def begin(self, open_calls: set[_Call]) -> None:
        try:
            result = self._verb()
        except Exception as error:  # of arguments that the verb doesn't take
            self.end(None, error)
            return
        if not asyncio.iscoroutine(result):
            self.end(result, None)
            return
        open_calls.add(self)
        self._task = asyncio.get_running_loop().create_task(result)
        self._task.add_done_callback(functools.partial(self._done, open_calls))

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _done(self, open_calls: set[_Call], task: asyncio.Task[Any]) -> None:
        open_calls.discard(self)
        if task.cancelled():
            self.end(None, Draining(CLOSED))
        elif (error := task.exception()) is not None:
            self.end(None, error)
        else:
            self.end(task.result(), None)

    def end(self, result: Any, error: BaseException | None) -> None:
        self._result, self._error = result, error
        self._ended.release()


class _Home:
    """An event loop in a thread of its own, that other threads make calls to."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._lock = threading.Lock()
        """Held while a call is handed over, so that none comes behind the last turn of the loop."""
        self._is_ending = False
        self._calls: set[_Call] = set()
        self._thread = threading.Thread(target=self._live, name="aegis-blocking", daemon=True)
        self._thread.start()

    @property
    def is_here(self) -> bool:
        """False in a child that was forked after it began."""
        return os.getpid() == self._pid

    def carry_out(self, verb: Callable[[], Any]) -> Any:
        """What `verb` returns, or what the coroutine does that it returns. Raises: what they do, ContractError, Draining."""
        self._check()
        call, context = _Call(verb), copy_context()
        if PLACE.get() is not None:  # of a handler, whose loop is another one
            context.run(PLACE.set, None)
        try:
            with self._lock:
                if self._is_ending:
                    raise Draining(CLOSED)
                self._loop.call_soon_threadsafe(call.begin, self._calls, context=context)
            return call.wait()
        except DOUBTS:
            told_doubt()
            raise
        except Exception:
            raise
        except BaseException:  # Ctrl-C while it waited
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(call.cancel)
            raise

    def _check(self) -> None:
        """Raises: ContractError, where a call could not end."""
        if not self.is_here:
            raise ContractError(process.FORKED)
        running = asyncio._get_running_loop()
        if running is not None and (running is self._loop or process.serves_on(running)):
            raise ContractError(
                "a blocking call would hold up the event loop of this thread, which serves an instance: in a handler"
                " await ctx.request, in other coroutines use aegis_sdk.connect()"
            )

    def end(self) -> None:
        """Calls that are left end with Draining. Safe twice, and from any thread."""
        with self._lock, contextlib.suppress(RuntimeError):  # it is closed already
            self._is_ending = True
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(END_S_MAX)

    def _live(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._until_ended())
        finally:
            self._is_ending = True
            for call in list(self._calls):
                call.end(None, Draining(CLOSED))

    async def _until_ended(self) -> None:
        await self._ended.wait()


class _AtHome:
    """What stands for `inner`, which lives there."""

    def __init__(self, home: _Home, inner: Any) -> None:
        self._home = home
        self._inner = inner


def _verb(
    of: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[_AtHome, P], R]:
    """The same verb for a thread."""
    name = of.__name__

    @functools.wraps(of)
    def verb(self: _AtHome, /, *args: P.args, **kwargs: P.kwargs) -> R:
        done = functools.partial(getattr(self._inner, name), *args, **kwargs)
        result: R = self._home.carry_out(done)
        return result

    return verb


class Instance(_AtHome):
    """A running instance of a service, as `aegis_sdk.Instance`: it serves in the background, on the client's own loop."""

    ready = _verb(instance.Instance.ready)
    add = _verb(instance.Instance.add)
    remove = _verb(instance.Instance.remove)
    drain = _verb(instance.Instance.drain)
    stop = _verb(instance.Instance.stop)

    @property
    def id(self) -> str:
        """As `ipc-cli list-instances` has it."""
        return str(self._inner.id)

    @property
    def active_resources(self) -> list[str]:
        """The resources that this instance believes to be active for, sorted."""
        return list(self._inner.active_resources)

    def serve_forever(self, *, signals: bool = True) -> None:
        """As `aegis_sdk.Instance.serve_forever`; signals are heard where the calling thread is the main one."""
        with process.signals_drain() if signals else contextlib.nullcontext():
            self._home.carry_out(lambda: self._inner.until_ended(signals=signals))


def _serving(
    of: Callable[Concatenate[Any, P], Coroutine[Any, Any, instance.Instance]],
) -> Callable[Concatenate[_AtHome, P], Instance]:
    serve = _verb(of)

    @functools.wraps(of)
    def made(self: _AtHome, /, *args: P.args, **kwargs: P.kwargs) -> Instance:
        return Instance(self._home, serve(self, *args, **kwargs))

    return made


class Aegis(_AtHome):
    """A connection for any number of threads. Made by `connect`; the verbs are those of `aegis_sdk.Aegis`.

    Not to be taken over a fork: connect in each process. What is not closed is closed when the interpreter ends.
    """

    def __init__(self, opening: AbstractAsyncContextManager[Any]) -> None:
        home = _Home()
        self._opening = opening  # its generator ends with the loop, behind `close`
        try:
            super().__init__(home, home.carry_out(opening.__aenter__))
        except BaseException:
            home.end()
            raise
        atexit.register(self.close)

    request = _verb(client.Aegis.request)
    read = _verb(client.Aegis.read)
    submit = _verb(client.Aegis.submit)
    attach = _verb(client.Aegis.attach)
    cancel = _verb(client.Aegis.cancel)
    serve = _serving(client.Aegis.serve)

    def serve_metrics(self, port: int, *, host: str = "127.0.0.1") -> int:
        """As `aegis_sdk.Aegis.serve_metrics`."""
        served: int = self._home.carry_out(lambda: self._inner.serve_metrics(port, host=host))
        return served

    def position(self, method: Method[Any, Any]) -> str:
        """As `aegis_sdk.Aegis.position`."""
        seen: str = self._home.carry_out(lambda: self._inner.position(method))
        return seen

    def drain(self, *, timeout_s: float = 10.0) -> None:
        """Drain all instances served here, wait for open requests, close. Raises: InvalidArgument."""
        self._end(lambda: self._inner.drain(timeout_s=timeout_s))

    def close(self) -> None:
        """Quick, and safe twice, from any thread; it has nothing to do in a forked child.

        Open calls of other threads end: by OutcomeUnknown with the request's id, or by Draining when nothing was sent.
        """
        if self._home.is_here:
            self._end(self._inner.close)

    def _end(self, verb: Callable[[], Any]) -> None:
        with contextlib.suppress(Draining):
            self._home.carry_out(verb)
        self._home.end()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def blocking(
    opening: Callable[P, AbstractAsyncContextManager[Any]],
) -> Callable[P, Aegis]:
    """The same way to a client, for threads."""

    @functools.wraps(opening)
    def connect(*args: P.args, **kwargs: P.kwargs) -> Aegis:
        process.end_as_pid_1()  # the main thread's alone to do
        return Aegis(opening(*args, **kwargs))

    return connect


connect = blocking(client.connect)
"""`with blocking.connect(url) as aegis:`, or without `with` and closed by `close`. Takes and raises what
`aegis_sdk.connect` does; it returns when the connection is open.
"""
