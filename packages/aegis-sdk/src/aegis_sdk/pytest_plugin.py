"""The plugin for pytest: pytest-asyncio beside the SDK is all it takes. Its fixtures are for tests that are coroutines.

Every run of pytest loads it where the SDK is installed, so it imports nothing before a test asks for a fixture.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Generator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aegis_sdk.testing import Cluster, MemoryAegis

_SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("aegis").addoption(
        "--aegis-seed", type=int, metavar="N", help="replay what the faults of `cluster` draw"
    )


def pytest_configure(config: pytest.Config) -> None:
    options = "seed=None, virtual=True, limit_s=3600"
    config.addinivalue_line("markers", f"aegis({options}): how the fixture `cluster` is made")


@pytest.fixture
def aegis_seed(request: pytest.FixtureRequest) -> int:
    """What faults draw from: `--aegis-seed`, the marker's, or a new one. A failure says which."""
    wanted = (request.config.getoption("--aegis-seed"), _options(request).get("seed"))
    seed: int = next((n for n in wanted if n is not None), random.randrange(1 << 32))
    request.node.stash[_SEED] = seed
    return seed


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    marker = request.node.get_closest_marker("aegis")
    return dict(marker.kwargs) if marker else {}


def _async_fixture(function: Callable[..., Any]) -> Any:
    """Of pytest-asyncio; without it, who asks for the fixture is told what to install."""
    if find_spec("pytest_asyncio") is None:

        def missing() -> None:
            pytest.fail("this fixture needs pytest-asyncio: pip install pytest-asyncio")

        missing.__doc__ = function.__doc__
        return pytest.fixture(name=function.__name__)(missing)
    import pytest_asyncio

    return pytest_asyncio.fixture(function)


@_async_fixture
async def cluster(request: pytest.FixtureRequest, aegis_seed: int) -> AsyncIterator[Cluster]:
    """A whole system in memory, in virtual time: instances, kills, partitions, losses, `assert_exactly_once()`."""
    from aegis_sdk import testing

    async with testing.cluster(**_options(request) | {"seed": aegis_seed}) as made:
        yield made


@_async_fixture
async def aegis(cluster: Cluster) -> MemoryAegis:
    """The client of `cluster`: `serve`, `request`, `submit`, `attach`, `cancel`."""
    return cluster.aegis


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    seed = item.stash.get(_SEED, None)
    if report.failed and seed is not None:
        report.sections.append(("aegis", f"seed {seed}: replay it by --aegis-seed {seed}"))
    return report
