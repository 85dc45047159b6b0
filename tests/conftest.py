"""One nats-server for a module's tests; each test has a prefix of its own on it. It starts when a test asks for it."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedNats]:
    with EmbeddedNats() as running:
        yield running


@pytest.fixture
def prefix() -> str:
    return f"t{secrets.token_hex(4)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports go from one process to another, and some of our tests log what no UTF-8 can hold."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report
