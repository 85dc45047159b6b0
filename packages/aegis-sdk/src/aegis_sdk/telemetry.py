"""The SDK's logger: structlog over the standard library's `aegis_sdk` logger.

A library decides what is said, its user where it goes: without `configure_logs` the records go to the
standard `logging` of the process, each message one JSON object with the keys of docs/observability.md.
In a process that set up no logging at all, warnings go to standard error, as from any library; but a
thread writes them (log_writer.py), so that a pipe that nobody reads stops nothing.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final, TextIO

import structlog
from structlog.typing import Processor

from aegis_sdk.contract import arguments
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.trace import span_id, trace_id
from aegis_sdk.errors import InvalidArgument
from aegis_sdk.log_writer import LogWriter

_LOGGER_NAME = "aegis_sdk"
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
WAITING_SAID_S: Final = 10.0
_SHARED: Final[list[Processor]] = [
    structlog.stdlib.filter_by_level,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def _render(logger: Any, name: str, event: Any) -> str | bytes:
    """Its line. A value of a user's that has no text must not become an error of who logs it."""
    try:
        return _rendered(logger, name, event)
    except BaseException as error:  # whatever its str() raises
        kept = {key: event.get(key) for key in ("event", "request_id", "level", "timestamp")}
        return _json(logger, name, kept | {"log_line_unreadable": type(error).__name__})


def _rendered(logger: Any, name: str, event: Any) -> str | bytes:
    """JSON, or the console form when `configure_logs` chose it."""
    if _console is not None:
        return str(_console(logger, name, event))
    return _json(logger, name, _tracebacks(logger, name, event))


class _LastResort(LogWriter):
    """Takes the place of `logging.lastResort`: it writes only while the process has no other handler."""

    def emit(self, record: logging.LogRecord) -> None:
        others = logging.root.handlers if _logger.propagate else []
        if _logger.handlers == [self] and not others:
            super().emit(record)


_json = structlog.processors.JSONRenderer(ensure_ascii=False)
# Without locals: payloads don't belong into logs.
_tracebacks = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_console: Processor | None = None

_logger = logging.getLogger(_LOGGER_NAME)
_last_resort = _LastResort()
_last_resort.setLevel(logging.WARNING)
_logger.addHandler(_last_resort)

log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    _logger,
    processors=[*_SHARED, _render],
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)


def _console_renderer() -> Processor:
    from structlog import dev  # loads a terminal library, which services don't need

    return dev.ConsoleRenderer(colors=False, exception_formatter=dev.plain_traceback)


def configure_logs(
    *, level: str = "INFO", console: bool = False, stream: TextIO | None = None
) -> None:
    """Send the SDK's log to `stream` (default: standard error), one JSON object a line.

    `console=True` is for people at a terminal. Calling it again replaces the earlier choice. Nothing waits
    for the stream: a thread writes, and lines that it can't keep up with are dropped and counted.

    Raises: InvalidArgument, when there is no such level.
    """
    global _console  # noqa: PLW0603 - a process has one log
    _console = _console_renderer() if console else None
    named = arguments.text(level, "level", error=InvalidArgument).upper()
    if named not in _LEVELS:
        raise InvalidArgument(f"level must be one of {', '.join(_LEVELS)}; got {named!r}")
    for earlier in _logger.handlers:
        earlier.flush()
        earlier.close()
    _logger.handlers = [LogWriter(stream, notice=_notice)]
    _logger.propagate = False
    _logger.setLevel(named)


def _notice(lines: int) -> str:
    event = {"event": "log_lines_dropped", "lines": lines, "level": "warning"}
    stamped = structlog.processors.TimeStamper(fmt="iso", utc=True)(_logger, "warning", event)
    return str(_render(_logger, "warning", stamped))


class Waiting:
    """Says what a start waits for: immediately, and again every WAITING_SAID_S. As warnings, since those are seen
    where nobody has set up logging.
    """

    def __init__(self, event: str, **about: str) -> None:
        self._event = event
        self._about = about
        self._begun_s = time.monotonic()
        self._say_s = self._begun_s

    def say(self, **now: str) -> None:
        at_s = time.monotonic()
        if at_s < self._say_s:
            return
        self._say_s = at_s + WAITING_SAID_S
        log.warning(self._event, **self._about, **now, waited_s=round(at_s - self._begun_s, 1))


def is_debugging() -> bool:
    """Whether debug lines are written: asked before a request's lines are put together, on the hot path."""
    return _logger.isEnabledFor(logging.DEBUG)


def about(request: Request) -> dict[str, str | None]:
    """The keys that every line about a request carries, whoever writes it."""
    return {
        "request_id": request.request_id,
        "service": request.service,
        "method": request.method,
        "resource": request.resource,
        "trace_id": trace_id(request.traceparent),
        "span_id": span_id(request.traceparent),
    }
