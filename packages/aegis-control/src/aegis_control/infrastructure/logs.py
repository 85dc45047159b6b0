"""Logs: one JSON object a line on stderr, or lines for people. Control never waits for who reads them."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog
from aegis_sdk.log_writer import LogWriter

LogFormat = Literal["json", "console"]


def set_up(log_format: LogFormat, level: str) -> None:
    """Configure logging of the process; called once, by the program."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *_renderers(log_format),
        ],
    )
    handler = LogWriter(notice=lambda lines: formatter.format(_dropped(lines)))
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Each lost connection is one line of ours; the client's own are several a second.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    # Its warnings are about what strangers send, a line for each: ours are counted (seldom.py).
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def _dropped(lines: int) -> logging.LogRecord:
    said = {"msg": "log_lines_dropped", "levelname": "WARNING", "lines": lines}
    return logging.makeLogRecord(said)


def _renderers(log_format: LogFormat) -> list[Any]:
    if log_format == "console":
        # The default shows local variables: logins are among them.
        plain = structlog.dev.plain_traceback
        return [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
