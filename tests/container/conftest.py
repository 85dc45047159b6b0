"""A Docker engine, NATS in a container, and the images of control and of the demo, built from this tree.

Without an engine these tests skip on a developer's machine and fail in CI (`CI` is set): there, a
suite that quietly tests nothing would be worse than none.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import docker
import pytest
from docker.errors import DockerException
from testcontainers.core.config import testcontainers_config

from tests.container.support import REPOSITORY, NatsContainer

DEPLOY_CONF: Final = REPOSITORY / "deploy" / "nats.conf"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.container)


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A client of the Docker engine."""
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        why = f"no Docker engine answers ({str(error).partition(':')[0]})"
        if os.environ.get("CI"):
            pytest.fail(f"{why} (in CI the container tests must run)")
        pytest.skip(why)
    # Every fixture here removes what it starts; the library's reaper would be one more image to pull.
    testcontainers_config.ryuk_disabled = True
    yield client
    client.close()


@pytest.fixture(scope="module")
def nats_container(engine: Any) -> Iterator[NatsContainer]:
    """NATS as `deploy/` configures it, with storage of its own."""
    with NatsContainer(DEPLOY_CONF) as container:
        container.wait_ready()
        yield container


@pytest.fixture(scope="session")
def image(engine: Any) -> Iterator[str]:
    """The tag of control's image, built from this tree and removed afterwards."""
    tag = f"aegis-control:test-{uuid.uuid4().hex[:8]}"
    engine.images.build(path=str(REPOSITORY), tag=tag, rm=True, forcerm=True)
    yield tag
    engine.images.remove(tag, force=True)


@pytest.fixture(scope="session")
def demo_image(engine: Any, image: str) -> Iterator[str]:
    """The tag of the demo's image, which has the same version as control's."""
    tag = image.replace("aegis-control:", "aegis-demo:")
    engine.images.build(path=str(REPOSITORY), tag=tag, target="demo", rm=True, forcerm=True)
    yield tag
    engine.images.remove(tag, force=True)
