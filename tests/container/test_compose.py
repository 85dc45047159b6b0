"""`deploy/docker-compose.yaml`: it is valid, comes up healthy, and does its work."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import free_port
from aegis_sdk import Method, ResourceContext, Role, Service

from tests.container.support import REPOSITORY, compose_command, get_json, until

pytestmark = pytest.mark.timeout(600)

FILE: Final = REPOSITORY / "deploy" / "docker-compose.yaml"
UP_DEADLINE_S: Final = 180

COUNT: Method[int, int] = Method("counters", "count", request=int, reply=int)


@dataclass(frozen=True, slots=True)
class Stack:
    """The compose project, up, with ports of its own."""

    engine: Any
    project: str
    env: dict[str, str]

    def compose(self, *arguments: str) -> str:
        command = [*compose_command(), "-p", self.project, "-f", str(FILE), *arguments]
        done = subprocess.run(
            command,
            env=os.environ | self.env,
            cwd=FILE.parent,
            capture_output=True,
            text=True,
            timeout=UP_DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def container(self, service: str) -> Any:
        labels = [
            f"com.docker.compose.project={self.project}",
            f"com.docker.compose.service={service}",
        ]
        [container] = self.engine.containers.list(all=True, filters={"label": labels})
        return container

    def url(self, scheme: str, port: str) -> str:
        return f"{scheme}://127.0.0.1:{self.env[port]}"


@pytest.fixture(scope="module")
def stack(engine: Any, image: str) -> Iterator[Stack]:
    ports = ("NATS", "NATS_MONITOR", "CONTROL", "PROMETHEUS")
    env = {f"AEGIS_{name}_PORT": str(free_port()) for name in ports}
    env["AEGIS_VERSION"] = image.partition(":")[2]
    stack = Stack(engine, f"aegis{uuid.uuid4().hex[:8]}", env)
    try:
        stack.compose("up", "-d")
        yield stack
    finally:
        stack.compose("down", "-v")


def test_the_file_is_valid(engine: Any) -> None:
    command = [*compose_command(), "-f", str(FILE), "config", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_control_becomes_healthy(stack: Stack) -> None:
    """By the image's own health check, after it found NATS by itself."""

    def health() -> bool:
        state = stack.container("control").attrs["State"]
        return bool(state.get("Health", {}).get("Status") == "healthy")

    until("control is healthy", health)


def test_the_cli_in_the_image_reaches_it(stack: Stack) -> None:
    code, said = stack.container("control").exec_run(["ipc-cli", "status", "-o", "json"])
    assert code == 0, said


async def test_a_service_on_the_host_works_with_it(stack: Stack) -> None:
    """The published ports are all that a service needs; a stored request survives a restart of NATS."""
    service = Service("counters")

    @service.handles(COUNT)
    async def count(ctx: ResourceContext, amount: int) -> int:
        total = (ctx.state.get("total", int) or 0) + amount
        ctx.state.set("total", total)
        return total

    url = stack.url("nats", "AEGIS_NATS_PORT")
    async with aegis_sdk.connect(url) as aegis:
        await aegis.serve(service, resources={"C-1": Role.AUTO})
        assert await aegis.request(COUNT, 2, resource="C-1", timeout_s=10.0) == 2
        stack.container("nats").kill()
        stack.compose("start", "nats")
        assert await aegis.request(COUNT, 3, resource="C-1", timeout_s=30.0) == 5


def test_prometheus_scrapes_control(stack: Stack) -> None:
    api = f"{stack.url('http', 'AEGIS_PROMETHEUS_PORT')}/api/v1"

    def up() -> bool:
        result = get_json(f"{api}/query?query=up%7Bjob%3D%22aegis-control%22%7D")["data"]["result"]
        return bool(result and result[0]["value"][1] == "1")

    until("the target is up", up)
    names = get_json(f"{api}/label/__name__/values")["data"]
    assert "aegis_build_info" in names


def test_prometheus_has_the_alerts_loaded(stack: Stack) -> None:
    api = f"{stack.url('http', 'AEGIS_PROMETHEUS_PORT')}/api/v1"
    groups = until("the rules are evaluated", lambda: get_json(f"{api}/rules")["data"]["groups"])
    alerts = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert "AegisNoControlLeader" in alerts
    assert "err" not in alerts.values(), alerts
