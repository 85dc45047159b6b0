"""The SDK's logger: structlog over the standard library's `aegis_sdk` logger.

A library decides what is said, its user where it goes and in which form: without `configure_logs` the records go to the
standard `logging` of the process, with the keys of docs/observability.md (log_line.py says how). structlog's own
configuration, which is the application's, is neither read nor changed.
In a process that set up no logging at all, warnings go to standard error, as from any library; but a
thread writes them (log_writer.py), so that a pipe that nobody reads stops nothing.
"""

from __future__ import annotations

import logging
import time
from typing import Final, TextIO

import structlog
from structlog.typing import Processor

from aegis_sdk.contract import arguments
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.trace import span_id, trace_id
from aegis_sdk.errors import InvalidArgument
from aegis_sdk.log_line import Form, Line, as_json, as_record
from aegis_sdk.log_writer import LogWriter

_LOGGER_NAME = "aegis_sdk"
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
WAITING_SAID_S: Final = 10.0
_SHARED: Final[list[Processor]] = [
    structlog.stdlib.filter_by_level,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


class _LastResort(LogWriter):
    """Takes the place of `logging.lastResort`: it writes only while the process has no other handler."""

    def emit(self, record: logging.LogRecord) -> None:
        others = logging.root.handlers if _logger.propagate else []
        if _logger.handlers == [self] and not others:
            super().emit(record)


_logger = logging.getLogger(_LOGGER_NAME)
_last_resort = _LastResort()
_last_resort.setLevel(logging.WARNING)
_last_resort.setFormatter(Form(as_json()))
_logger.addHandler(_last_resort)

log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    _logger,
    processors=[*_SHARED, as_record],
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
    named = arguments.text(level, "level", error=InvalidArgument).upper()
    if named not in _LEVELS:
        raise InvalidArgument(f"level must be one of {', '.join(_LEVELS)}; got {named!r}")
    for earlier in _logger.handlers:
        earlier.flush()
        earlier.close()
    form = Form(_console_renderer() if console else as_json())
    writer = LogWriter(stream, notice=lambda lines: form.format(_dropped(lines)))
    writer.setFormatter(form)
    _logger.handlers = [writer]
    _logger.propagate = False
    _logger.setLevel(named)


def _dropped(lines: int) -> logging.LogRecord:
    event = {"event": "log_lines_dropped", "lines": lines, "level": "warning"}
    stamped = structlog.processors.TimeStamper(fmt="iso", utc=True)(_logger, "warning", event)
    return logging.makeLogRecord({"msg": Line(stamped)})


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
