"""The SDK's logger: structlog over the standard library's `aegis_sdk` logger.

A library decides what is said, its user where it goes: without `configure_logs` the records go to the
standard `logging` of the process, each message one JSON object with the keys of docs/observability.md.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, TextIO

import structlog
from structlog.typing import Processor

from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.trace import span_id, trace_id

_LOGGER_NAME = "aegis_sdk"
_SHARED: Final[list[Processor]] = [
    structlog.stdlib.filter_by_level,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def _render(logger: Any, name: str, event: Any) -> str | bytes:
    """JSON, or the console form when `configure_logs` chose it."""
    if _console is not None:
        return str(_console(logger, name, event))
    return _json(logger, name, _tracebacks(logger, name, event))


_json = structlog.processors.JSONRenderer(ensure_ascii=False)
# Without locals: payloads don't belong into logs.
_tracebacks = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_console: Processor | None = None

_logger = logging.getLogger(_LOGGER_NAME)

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

    `console=True` is for people at a terminal. Calling it again replaces the earlier choice.
    """
    global _console  # noqa: PLW0603 - a process has one log
    _console = _console_renderer() if console else None
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _logger.handlers = [handler]
    _logger.propagate = False
    _logger.setLevel(level.upper())


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
