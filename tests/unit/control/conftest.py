"""Control's tests run over both forms of the protocol, but those of what only one of them has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.control.support import Office

OF_BOTH = ("admin", "failover", "register", "unreadable", "later_logs", "leadership")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "_form" in metafunc.fixturenames:
        one = metafunc.module.__name__.rpartition(".test_")[2] not in OF_BOTH
        one = one or metafunc.definition.get_closest_marker("fences") is not None
        metafunc.parametrize("_form", [False] if one else [False, True], indirect=True)


@pytest.fixture(autouse=True)
def _form(request: pytest.FixtureRequest) -> Iterator[None]:
    Office.in_turns = request.param
    yield
    Office.in_turns = False
