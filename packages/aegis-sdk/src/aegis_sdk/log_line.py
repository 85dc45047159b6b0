"""One line of the SDK's log on its way through the standard library's `logging`.

Theory of operation. A library must not choose the form of its user's log. So the message of a record is a `Line`: a dict of
the event's keys. Who understands dicts takes them as they are: structlog's ProcessorFormatter (by the two attributes
that its own `wrap_for_formatter` sets), python-json-logger, and `Form`, which writes the SDK's JSON. For all others the
message's text is `event key=value ...`, which no JSON formatter has to quote twice.

What must stay true: a value without a text is never an error of whoever logs it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from typing import Any, Final

import structlog
from structlog.typing import Processor

_PLAIN: Final = re.compile(r"[^\s\"=]+")
_UNSAID: Final = frozenset({"event", "level", "timestamp", "exception"})
"""The text has them elsewhere: handlers write level and time themselves."""
_KEPT: Final = ("event", "request_id", "level", "timestamp")

Failure = tuple[type[BaseException], BaseException, Any]


class Line(dict[str, Any]):
    """An event's keys. `failure` is the exception that it tells of."""

    failure: Failure | None = None

    def __str__(self) -> str:
        """For handlers that know nothing of dicts."""
        try:
            said = [f"{key}={_word(self[key])}" for key in self if key not in _UNSAID]
        except BaseException as error:  # whatever a value's str() raises
            said = [f"log_line_unreadable={type(error).__name__}"]
        text = " ".join([str(self.get("event")), *said])
        return f"{text}\n{self['exception']}" if "exception" in self else text

    def copy(self) -> Line:
        """A formatter changes what it is given, and another one may get the same record."""
        made = Line(self)
        made.failure = self.failure
        return made


def as_record(logger: Any, name: str, event: Any) -> tuple[tuple[Line], dict[str, Any]]:
    """The last processor: what `logging` is called with."""
    line = Line(event)
    raised = line.pop("exc_info", None)
    try:
        line.failure = _failure(raised)
        if line.failure is not None:
            said = structlog.processors.format_exc_info(logger, name, {"exc_info": line.failure})
            line["exception"] = said["exception"]
    except BaseException as error:  # whatever an exception of a user's does when it is looked at
        line.failure = None
        line["log_line_unreadable"] = type(error).__name__
    return (line,), {"extra": {"_logger": logger, "_name": name}}


class Form(logging.Formatter):
    """The SDK's own form of a record: what `render` makes of a line's keys; the text of anybody else's."""

    def __init__(self, render: Processor) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        """A line that can't be written keeps the keys that tell what it is about."""
        if not isinstance(record.msg, Line):
            return super().format(record)
        logger, name, line = getattr(record, "_logger", None), record.levelname, record.msg
        try:
            return str(self._render(logger, name, _with_failure(line)))
        except BaseException as error:  # whatever a value's str() raises
            kept = {key: line.get(key) for key in _KEPT}
            return json.dumps(
                kept | {"log_line_unreadable": type(error).__name__}, default=lambda _: None
            )


def as_json() -> Processor:
    """Keys in their order; tracebacks as lists, without locals: payloads don't belong into logs."""
    tracebacks: Callable[..., Any] = structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    )
    write = structlog.processors.JSONRenderer(ensure_ascii=False)
    return lambda logger, name, event: write(logger, name, tracebacks(logger, name, event))


def _with_failure(line: Line) -> dict[str, Any]:
    event = {key: value for key, value in line.items() if key != "exception"}
    return event if line.failure is None else event | {"exc_info": line.failure}


def _failure(exc_info: Any) -> Failure | None:
    """Whatever `exc_info=` was: asked for now, since the line may be written later and elsewhere."""
    if isinstance(exc_info, BaseException):
        return type(exc_info), exc_info, exc_info.__traceback__
    found = exc_info if isinstance(exc_info, tuple) else sys.exc_info() if exc_info else None
    return None if found is None or found[0] is None else found


def _word(value: Any) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
