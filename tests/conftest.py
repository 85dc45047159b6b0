"""One nats-server for a module's tests; each test has a prefix of its own on it. It starts when a test asks for it.

And the marker `core`: what `poe test` runs. All of the folders in CORE are, and elsewhere the tests that carry the marker themselves.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats

TESTS: Final = Path(__file__).parent
CORE: Final = frozenset({"unit", "contract", "examples"})


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


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.relative_to(TESTS).parts[0] in CORE:
        item.add_marker("core")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of all says how to run the rest."""
    if config.getoption("markexpr", "").startswith("core") and not hasattr(config, "workerinput"):
        said = "the rest: `uv run poe test-rest`; with the long forms: `uv run poe test-all`"
        print(said)  # noqa: T201
