"""The SDK's log takes the form of the application's, and leaves the application's own set-up alone."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from aegis_sdk.telemetry import log


class Textless:
    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def written(root: logging.Logger, form: logging.Formatter) -> io.StringIO:
    """What an application's handler with this formatter writes from now on."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(form)
    root.handlers[:] = [handler]
    root.setLevel("INFO")
    return out


def failing() -> None:
    try:
        raise LookupError("no such account")
    except LookupError:
        log.exception("handler_failed", service="accounts", error="no such account")


def test_in_an_applications_structlog_it_is_one_flat_object(root: logging.Logger) -> None:
    out = written(
        root,
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ]
        ),
    )
    log.warning("nats_lost", url="nats://here", connection="main")
    failing()
    lost, failed = map(json.loads, out.getvalue().splitlines())
    assert (lost["event"], lost["url"], lost["level"]) == ("nats_lost", "nats://here", "warning")
    assert failed["exception"].endswith("LookupError: no such account")


def test_in_a_formatter_that_knows_dicts_it_is_one_flat_object(root: logging.Logger) -> None:
    """As python-json-logger does: a message that is a dict has the fields."""

    class OfDicts(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            assert isinstance(record.msg, dict)
            extra = {k: v for k, v in vars(record).items() if k == "message"}
            return json.dumps(record.msg | extra)

    out = written(root, OfDicts())
    log.warning("nats_lost", url="nats://here")
    assert json.loads(out.getvalue())["url"] == "nats://here"


def test_anybody_else_gets_words_and_no_json_in_json(root: logging.Logger) -> None:
    out = written(root, logging.Formatter("%(levelname)s %(name)s %(message)s"))
    log.warning("nats_lost", url="nats://here", reason="it was closed", lag=3, other=Textless())
    log.warning("nats_lost", url="nats://here", reason="it was closed", lag=3)
    odd, said = out.getvalue().splitlines()
    assert odd == "WARNING aegis_sdk nats_lost log_line_unreadable=ValueError"
    assert said == 'WARNING aegis_sdk nats_lost url=nats://here reason="it was closed" lag=3'
    failing()
    assert out.getvalue().rstrip().endswith("LookupError: no such account")


def test_neither_structlogs_configuration_nor_the_metrics_registry_is_touched() -> None:
    """Not by the import, not by our own log, and not by what we count."""
    program = (
        "import logging, structlog, prometheus_client as p\n"
        "before = structlog.get_config(), list(p.REGISTRY._names_to_collectors)\n"
        "root = logging.getLogger().handlers[:]\n"
        "import aegis_sdk.blocking, aegis_sdk.client, aegis_sdk.infrastructure.metrics_server\n"
        "aegis_sdk.configure_logs()\n"
        "assert before == (structlog.get_config(), list(p.REGISTRY._names_to_collectors))\n"
        "assert not structlog.is_configured() and logging.getLogger().handlers == root"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_applications_processors_are_not_run_on_the_sdks_lines(root: logging.Logger) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("this one is the application's")

    before = structlog.get_config()
    out = written(root, logging.Formatter("%(message)s"))
    try:
        structlog.configure(processors=[refuse])
        log.warning("nats_lost")
    finally:
        structlog.configure(**before)
    assert out.getvalue() == "nats_lost\n"
